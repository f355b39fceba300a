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

static void observe_on(kwm_device *device, const struct kwm_model *model, enum kwm_evidence evidence, int64_t n,
                       const float *logits, const struct kwm_sens_seen *seen, const struct kwm_sens_rows *rows,
                       float *e) {
  KWM_ASSERT(evidence != KWM_EVIDENCE_OUTPUTS);
  if (evidence == KWM_EVIDENCE_EXACT)
    kwm_observe_on(device, model, n, logits, seen->labels, e, rows->J, seen->facts);
  else
    kwm_observe_sampled_on(device, model, n, logits, seen->labels, seen->draws, rows->g, rows->J, seen->facts);
}

void kwm_sens_observe(kwm_device *device, const struct kwm_model *model, enum kwm_evidence evidence, int64_t n,
                      const float *logits, const struct kwm_sens_seen *seen, const struct kwm_sens_rows *rows,
                      float *e) {
  if (device != NULL) {
    observe_on(device, model, evidence, n, logits, seen, rows, e);
    return;
  }
  switch (evidence) {
  case KWM_EVIDENCE_EXACT: kwm_observe(model, n, logits, seen->labels, e, rows->J, seen->sums); break;
  case KWM_EVIDENCE_SAMPLED:
    kwm_observe_sampled(model, n, logits, seen->labels, &seen->draw, rows->g, rows->J, seen->sums);
    break;
  case KWM_EVIDENCE_OUTPUTS:
    kwm_observe(model, n, logits, seen->labels, NULL, NULL, seen->sums);
    identity_rows(model, n, rows->J);
    break;
  }
}

void kwm_sens_pull(kwm_device *device, int64_t n, int64_t per_sample, int64_t d_o, int64_t d_i, const float *W,
                   const struct kwm_sens_rows *from, const struct kwm_sens_rows *to) {
  kwm_dense_pull_back(device, n * per_sample, d_i, d_o, W, from->J, to->J);
  if (from->g != NULL) kwm_dense_pull_back(device, n, d_i, d_o, W, from->g, to->g);
}

void kwm_sens_relu(kwm_device *device, int64_t n, int64_t per_sample, int64_t d, const float *u,
                   const struct kwm_sens_rows *rows) {
  kwm_relu_pull_back(device, n, per_sample, d, u, rows->J);
  if (rows->g != NULL) kwm_relu_pull_back(device, n, 1, d, u, rows->g);
}
