/* The shadow device's blocks of units in the information form (src/cov/block_information.c, block_predict.c): one
   precision matrix at a time, in double. */
#include "shadow.h"

#include <math.h>
#include <string.h>

#include "kwm/backend.h"

enum { PARAMS_MAX = 32, SQUARE = PARAMS_MAX * PARAMS_MAX };

static int64_t packed(int64_t p) {
  return p * (p + 1) / 2;
}

/* W (p, p) += F of block b, both triangles. */
static void add_evidence(int64_t count, int64_t p, int64_t b, const float *evidence, double *W) {
  int64_t index = 0;
  for (int64_t k = 0; k < p; k++)
    for (int64_t l = k; l < p; l++, index++) {
      const double value = (double)evidence[index * count + b];
      W[k * p + l] += value;
      if (l != k) W[l * p + k] += value;
    }
}

static double quadratic(int64_t p, const double *W, const double *x) {
  double sum = 0;
  for (int64_t k = 0; k < p; k++)
    for (int64_t l = 0; l < p; l++) sum += x[k] * W[k * p + l] * x[l];
  return sum;
}

/* delta (p) <- the step of block b, gains (KWM_GAINS). */
static void absorb_one(int64_t count, int64_t p, int64_t b, const double *M, const double *prior, const float *evidence,
                       double *delta, double *gains) {
  double F[SQUARE] = {0}, W[SQUARE];
  const float *const score = evidence + packed(p) * count;
  add_evidence(count, p, b, evidence, F);
  for (int64_t k = 0; k < p * p; k++) W[k] = M[k] + F[k];
  for (int64_t k = 0; k < p; k++) delta[k] = (double)score[k * count + b];
  const bool good = kwm_cholesky_f64(p, W, p);
  if (good) kwm_cholesky_solve_f64(p, W, p, delta);
  gains[KWM_GAIN_CHANGE] = good ? quadratic(p, F, delta) : NAN;
  gains[KWM_GAIN_MOVED] = gains[KWM_GAIN_SLOPE] = good ? 0 : NAN;
  gains[KWM_GAIN_EXPECTED] = 0;
  for (int64_t k = 0; k < p; k++) {
    gains[KWM_GAIN_MOVED] += delta[k] * delta[k] / prior[k];
    gains[KWM_GAIN_SLOPE] += (double)score[k * count + b] * delta[k];
  }
}

void shadow_block_absorb(kwm_device *d, int64_t count, int64_t p, const double *M, const double *prior,
                         const float *evidence, double *delta, double *facts) {
  KWM_ASSERT(p <= PARAMS_MAX);
  const double *const precision = shadow_array(d, M, count * p * p, sizeof *M);
  const double *const variances = shadow_array(d, prior, p, sizeof *prior);
  const float *const from = shadow_array(d, evidence, (packed(p) + p) * count, sizeof *evidence);
  double *const to = shadow_array(d, delta, count * p, sizeof *delta);
  double *const gains = shadow_facts(d, facts, count * KWM_GAINS);
  for (int64_t b = 0; b < count; b++)
    absorb_one(count, p, b, precision + b * p * p, variances, from, to + b * p, gains + b * KWM_GAINS);
}

void shadow_block_take(kwm_device *d, int64_t count, int64_t p, const float *evidence, double *M) {
  const float *const from = shadow_array(d, evidence, (packed(p) + p) * count, sizeof *evidence);
  double *const to = shadow_array(d, M, count * p * p, sizeof *M);
  for (int64_t b = 0; b < count; b++) add_evidence(count, p, b, from, to + b * p * p);
}

static bool invert(int64_t p, double *W) {
  return kwm_cholesky_f64(p, W, p) && kwm_cholesky_invert_f64(p, W, p);
}

/* How blocks change with time. */
struct passage {
  int64_t p;
  double lambda, q;
  const double *prior;
};

/* W (p, p) <- the time update of M; pull (p) <- in: anchor - mean, out: what the mean moves by. */
static bool predict_one(const struct passage *by, const double *M, double *W, double *pull) {
  const int64_t p = by->p;
  memcpy(W, M, (size_t)(p * p) * sizeof *W);
  if (by->lambda < 1) {
    double L[SQUARE];
    for (int64_t k = 0; k < p * p; k++) W[k] *= by->lambda;
    for (int64_t k = 0; k < p; k++) W[k * p + k] += (1 - by->lambda) / by->prior[k];
    for (int64_t k = 0; k < p; k++) pull[k] *= (1 - by->lambda) / by->prior[k];
    memcpy(L, W, (size_t)(p * p) * sizeof *W);
    if (!kwm_cholesky_f64(p, L, p)) return false;
    kwm_cholesky_solve_f64(p, L, p, pull);
  }
  if (by->q > 0) {
    if (!invert(p, W)) return false;
    for (int64_t k = 0; k < p; k++) W[k * p + k] += by->q * by->prior[k];
    if (!invert(p, W)) return false;
  }
  return true;
}

/* All blocks or none: W first, then M and mean from it. */
void shadow_block_predict(kwm_device *d, int64_t count, int64_t p, double lambda, double q, const double *prior,
                          const float *anchor, double *M, double *W, float *mean, double *facts) {
  KWM_ASSERT(p <= PARAMS_MAX && (lambda == 1 || anchor != NULL));
  const struct passage by = {.p = p, .lambda = lambda, .q = q, .prior = shadow_array(d, prior, p, sizeof *prior)};
  const float *const home = lambda < 1 ? shadow_array(d, anchor, count * p, sizeof *anchor) : NULL;
  float *const to = lambda < 1 ? shadow_array(d, mean, count * p, sizeof *mean) : NULL;
  double *const precision = shadow_array(d, M, count * p * p, sizeof *M);
  double *const next = shadow_array(d, W, count * p * p, sizeof *W), *const bad = shadow_facts(d, facts, 1);
  bad[0] = 0;
  for (int pass = 0; pass < 2 && bad[0] == 0; pass++)
    for (int64_t b = 0; b < count; b++) {
      double pull[PARAMS_MAX] = {0};
      for (int64_t k = 0; k < p && lambda < 1; k++) pull[k] = (double)home[b * p + k] - (double)to[b * p + k];
      bad[0] += !predict_one(&by, precision + b * p * p, next + b * p * p, pull);
      if (pass == 0) continue;
      memcpy(precision + b * p * p, next + b * p * p, (size_t)(p * p) * sizeof *precision);
      for (int64_t k = 0; k < p && lambda < 1; k++) to[b * p + k] += (float)pull[k];
    }
}

void shadow_block_trace(kwm_device *d, int64_t count, int64_t p, const double *M, double *facts) {
  KWM_ASSERT(p <= PARAMS_MAX);
  const double *const precision = shadow_array(d, M, count * p * p, sizeof *M);
  double *const to = shadow_facts(d, facts, 1), sum = 0;
  for (int64_t b = 0; b < count; b++) {
    double W[SQUARE];
    memcpy(W, precision + b * p * p, (size_t)(p * p) * sizeof *W);
    const bool good = invert(p, W);
    for (int64_t k = 0; k < p; k++) sum += good ? W[k * p + k] : NAN;
  }
  to[0] = sum;
}
