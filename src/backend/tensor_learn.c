/* The host's categorical innovation, scalar Riccati recursion and Adam. */
#include "tensor_host.h"

#include <math.h>

#include "kwm/backend.h"

/* One row of logits, with the likeliest's and the sum of exp(logit - top). */
static void row_facts(int64_t classes, const float *logits, int32_t target, float top, double sum, float *facts) {
  const double log_sum = log(sum), over = 1 / sum;
  double mean = 0, squares = 0;
  for (int64_t c = 0; c < classes; c++) {
    const double below = (double)(logits[c] - top), weight = (double)expf((float)below);
    mean += weight > 0 ? weight * below : weight;
    squares += weight * weight;
  }
  facts[KWM_TOKEN_SURPRISAL] = (float)(log_sum - (double)(logits[target] - top));
  facts[KWM_TOKEN_ENTROPY] = (float)(log_sum - mean * over);
  facts[KWM_TOKEN_SQUARES] = (float)(squares * over * over);
  facts[KWM_TOKEN_CORRECT] = logits[target] >= top ? 1 : 0;
  facts[KWM_TOKEN_LARGEST] = (float)over;
}

void tensor_categorical(kwm_device *d, int64_t n, int64_t classes, int64_t ld, const int32_t *targets, bool innovate,
                        float *logits, float *facts) {
  (void)d;
  for (int64_t r = 0; r < n; r++) {
    float *const row = logits + r * ld, top = row[0];
    double sum = 0;
    for (int64_t c = 1; c < classes; c++) top = row[c] > top ? row[c] : top;
    for (int64_t c = 0; c < classes; c++) sum += (double)expf(row[c] - top);
    row_facts(classes, row, targets[r], top, sum, facts + r * KWM_TOKEN_FACTS);
    if (!innovate) continue;
    const float over = (float)(1 / sum);
    for (int64_t c = 0; c < classes; c++) row[c] = -expf(row[c] - top) * over;
    row[targets[r]] += 1;
  }
}

void tensor_read(kwm_device *d, const struct kwm_read *read) {
  const int64_t n = read->n, classes = read->classes, width = read->width;
  float *const logits = read->room;
  kwm_gemm(false, true, n, classes, width, 1, read->y, width, read->E, width, 0, logits, classes);
  tensor_categorical(d, n, classes, classes, read->targets, read->sy != NULL, logits, read->facts);
  if (read->sy == NULL) return;
  kwm_gemm(false, false, n, width, classes, 1, logits, classes, read->E, width, 0, read->sy, width);
  if (read->sE != NULL)
    kwm_gemm(true, false, classes, width, n, 1, logits, classes, read->y, width, 1, read->sE, width);
}

/* The fixed point without the difference of two near numbers: (sqrt(q² + 4 q/f) - q)/2 = 2/(sqrt(f² + 4 f/q) + f). */
static float next_variance(const struct kwm_riccati_step *step, float f, float p) {
  const float q = step->q, wide = p + q;
  const float next = step->steady ? 2 / (sqrtf(f * f + 4 * f / q) + f) : wide / (1 + wide * f);
  return next < step->p0 ? next : step->p0;
}

void tensor_riccati(kwm_device *d, int64_t n, const struct kwm_riccati_step *step, const float *y, float *f, float *m,
                    float *p, float *x) {
  (void)d;
  for (int64_t k = 0; k < n; k++) {
    const float score = y[k], square = score * score;
    f[k] = step->first ? square : f[k] + step->rate_f * (square - f[k]);
    m[k] += step->rate_m * (score - m[k]);
    p[k] = next_variance(step, f[k], p[k]);
    x[k] = p[k] * m[k];
  }
}

void tensor_adam(kwm_device *d, int64_t n, const struct kwm_adam_step *step, const float *score, float *m, float *v,
                 float *mean) {
  (void)d;
  const double t = (double)step->t;
  const float rate = (float)((double)step->rate / (1 - pow((double)step->beta1, t)));
  const float over = (float)(1 / sqrt(1 - pow((double)step->beta2, t)));
  for (int64_t k = 0; k < n; k++) {
    const float g = step->scale * score[k];
    m[k] += (1 - step->beta1) * (g - m[k]);
    v[k] += (1 - step->beta2) * (g * g - v[k]);
    mean[k] = (1 - step->decay) * mean[k] + rate * m[k] / (sqrtf(v[k]) * over + step->epsilon);
  }
}

void tensor_drift(kwm_device *d, int64_t n, float keep, float scale, const float *x, float *mean) {
  (void)d;
  for (int64_t k = 0; k < n; k++) mean[k] = keep * mean[k] + (x == NULL ? 0 : scale * x[k]);
}

void tensor_norm2(kwm_device *d, int64_t n, const float *x, double *sums) {
  (void)d;
  double sum = 0;
  for (int64_t k = 0; k < n; k++) sum += (double)x[k] * (double)x[k];
  sums[0] = sum;
}

void tensor_quadratic(kwm_device *d, int64_t n, const float *w, const float *x, double *sums) {
  (void)d;
  double sum = 0;
  for (int64_t k = 0; k < n; k++) sum += (double)w[k] * (double)x[k] * (double)x[k];
  sums[0] = sum;
}
