/* The shadow device's kron and diag (src/cov/kron_real.h, kron_time.h, diag.c): a scalar Riccati recursion for each
   number. */
#include "shadow.h"

#include <math.h>

/* A sum of squares that was rounded below zero counts as zero; NaN stays. */
static double information(double found) {
  return found < 0 ? 0 : found;
}

/* gains += one number's step x of precision next = D + f; not finite from then on if next is not. */
static void add_gain(double f, double next, double x, double score, double prior, double *gains) {
  gains[KWM_GAIN_CHANGE] += isfinite(next) ? f * x * x : NAN;
  gains[KWM_GAIN_MOVED] += x * x / prior;
  gains[KWM_GAIN_SLOPE] += score * x;
  gains[KWM_GAIN_EXPECTED] += f / next * (f / next);
}

void shadow_kron_gain(kwm_device *d, int64_t o, int64_t i, double batch, const float *gt2, const float *at2,
                      const float *Y, const float *D, float *f, float *X, double *facts) {
  const float *const outputs = shadow_array(d, gt2, o, sizeof *gt2), *const inputs =
                                                                         shadow_array(d, at2, i, sizeof *at2);
  const float *const scores = shadow_array(d, Y, o * i, sizeof *Y), *const before =
                                                                        shadow_array(d, D, o * i, sizeof *D);
  float *const to_f = shadow_array(d, f, o * i, sizeof *f), *const to_X = shadow_array(d, X, o * i, sizeof *X);
  double *const gains = shadow_facts(d, facts, KWM_GAINS);
  for (int k = 0; k < KWM_GAINS; k++) gains[k] = 0;
  for (int64_t k = 0; k < o * i; k++) {
    const float weight = (float)(information((double)outputs[k / i]) / batch);
    to_f[k] = weight * inputs[k % i];
    const float next = before[k] + to_f[k];
    to_X[k] = scores[k] / next;
    add_gain((double)to_f[k], (double)next, (double)to_X[k], (double)scores[k], 1, gains);
  }
}

void shadow_kron_forget(kwm_device *d, int64_t n, float lambda, float d0, float *D) {
  float *const to = shadow_array(d, D, n, sizeof *D);
  for (int64_t k = 0; k < n; k++) to[k] = lambda * to[k] + (1 - lambda) * d0;
}

void shadow_kron_diffuse(kwm_device *d, int64_t n, float q, float *D) {
  float *const to = shadow_array(d, D, n, sizeof *D);
  for (int64_t k = 0; k < n; k++) to[k] = to[k] / (1 + q * to[k]);
}

void shadow_kron_pull(kwm_device *d, int64_t n, float share, const float *D, const float *mean, float *X) {
  const float *const precision = shadow_array(d, D, n, sizeof *D);
  const float *const from = mean == NULL ? NULL : shadow_array(d, mean, n, sizeof *mean);
  float *const to = shadow_array(d, X, n, sizeof *X);
  for (int64_t k = 0; k < n; k++) to[k] = share / precision[k] * (to[k] - (mean == NULL ? 0 : from[k]));
}

void shadow_sum_inverse(kwm_device *d, int64_t n, const float *D, double *facts) {
  shadow_diag_trace(d, false, n, D, facts);
}

void shadow_move_f64(kwm_device *d, int64_t n, double scale, const double *delta, float *mean) {
  const double *const from = shadow_array(d, delta, n, sizeof *delta);
  float *const to = shadow_array(d, mean, n, sizeof *mean);
  for (int64_t k = 0; k < n; k++) to[k] += (float)(scale * from[k]);
}

/* Numbers that are kept in float or in double. */
struct numbers {
  float *f32;
  double *f64;
};

static struct numbers numbers_of(kwm_device *d, bool wide, int64_t n, const void *at) {
  if (wide) return (struct numbers){.f64 = shadow_array(d, at, n, sizeof(double))};
  return (struct numbers){.f32 = shadow_array(d, at, n, sizeof(float))};
}

static double number(struct numbers numbers, int64_t k) {
  return numbers.f64 != NULL ? numbers.f64[k] : (double)numbers.f32[k];
}

static void set_number(struct numbers numbers, int64_t k, double value) {
  if (numbers.f64 != NULL)
    numbers.f64[k] = value;
  else
    numbers.f32[k] = (float)value;
}

void shadow_diag_absorb(kwm_device *d, bool wide, int64_t count, int64_t p, int64_t period, const double *prior,
                        const float *evidence, const void *D, void *next, double *delta, double *facts) {
  const double *const variances = shadow_array(d, prior, period, sizeof *prior);
  const float *const from = shadow_array(d, evidence, 2 * p * count, sizeof *evidence);
  const struct numbers before = numbers_of(d, wide, count * p, D), after = numbers_of(d, wide, count * p, next);
  double *const to = shadow_array(d, delta, count * p, sizeof *delta);
  double *const gains = shadow_facts(d, facts, count * KWM_GAINS);
  for (int64_t k = 0; k < count * KWM_GAINS; k++) gains[k] = 0;
  for (int64_t b = 0; b < count; b++)
    for (int64_t k = 0; k < p; k++) {
      const double f = information((double)from[k * count + b]), s = (double)from[(p + k) * count + b];
      set_number(after, b * p + k, number(before, b * p + k) + f);
      to[b * p + k] = s / number(after, b * p + k);
      add_gain(f, number(after, b * p + k), to[b * p + k], s, variances[k % period], gains + b * KWM_GAINS);
    }
}

void shadow_diag_predict(kwm_device *d, bool wide, int64_t count, int64_t p, int64_t period, double lambda, double q,
                         const double *prior, const float *anchor, void *D, float *mean) {
  const double *const variances = shadow_array(d, prior, period, sizeof *prior);
  const struct numbers precision = numbers_of(d, wide, count * p, D);
  KWM_ASSERT(lambda == 1 || anchor != NULL);
  const float *const home = lambda < 1 ? shadow_array(d, anchor, count * p, sizeof *anchor) : NULL;
  float *const to = lambda < 1 ? shadow_array(d, mean, count * p, sizeof *mean) : NULL;
  for (int64_t k = 0; k < count * p; k++) {
    const double p0 = variances[k % p % period], next = lambda * number(precision, k) + (1 - lambda) / p0;
    if (lambda < 1) to[k] = (float)((double)to[k] + (1 - lambda) / (p0 * next) * ((double)home[k] - (double)to[k]));
    set_number(precision, k, next / (1 + q * p0 * next));
  }
}

void shadow_diag_trace(kwm_device *d, bool wide, int64_t n, const void *D, double *facts) {
  const struct numbers precision = numbers_of(d, wide, n, D);
  double *const to = shadow_facts(d, facts, 1), sum = 0;
  for (int64_t k = 0; k < n; k++) sum += 1 / number(precision, k);
  to[0] = sum;
}
