/* sensitivity: adjoint and stage, one layer at a time. */
#include "kwm/sens.h"

#include <string.h>

#include "kwm/layer.h"

static void identity_rows(const struct kwm_model *model, int64_t n, float *J) {
  const int64_t m = model->classes;
  memset(J, 0, (size_t)(n * m * m) * sizeof *J);
  for (int64_t i = 0; i < n; i++)
    for (int64_t r = 0; r < m; r++) J[(i * m + r) * m + r] = 1;
}

void kwm_sens_observe(const struct kwm_model *model, enum kwm_evidence evidence, int64_t n, const float *logits,
                      const uint8_t *labels, const struct kwm_draw *draw, const struct kwm_sens_rows *rows, float *e,
                      struct kwm_innovation *sums) {
  switch (evidence) {
  case KWM_EVIDENCE_EXACT: kwm_observe(model, n, logits, labels, e, rows->J, sums); break;
  case KWM_EVIDENCE_SAMPLED: kwm_observe_sampled(model, n, logits, labels, draw, rows->g, rows->J, sums); break;
  case KWM_EVIDENCE_OUTPUTS:
    kwm_observe(model, n, logits, labels, NULL, NULL, sums);
    identity_rows(model, n, rows->J);
    break;
  }
}

void kwm_sens_pull(int64_t n, int64_t per_sample, int64_t d_o, int64_t d_i, const float *W,
                   const struct kwm_sens_rows *from, const struct kwm_sens_rows *to) {
  kwm_dense_pull_back(n * per_sample, d_i, d_o, W, from->J, to->J);
  if (from->g != NULL) kwm_dense_pull_back(n, d_i, d_o, W, from->g, to->g);
}

void kwm_sens_relu(int64_t n, int64_t per_sample, int64_t d, const float *u, const struct kwm_sens_rows *rows) {
  kwm_relu_pull_back(n, per_sample, d, u, rows->J);
  if (rows->g != NULL) kwm_relu_pull_back(n, 1, d, u, rows->g);
}
