/* The diagonal prior of a spec as one list of variances that repeats along the group's parameters. */
#pragma once

#include "kwm/cov_ops.h"

/* Parameter k of the group has the variance prior[k % period]. */
static inline int64_t prior_period(const struct kwm_cov_spec *spec) {
  return spec->d_o > 0 ? 1 : spec->params;
}

/* prior (period) <- the variances. */
static inline void prior_fill(const struct kwm_cov_spec *spec, double *prior) {
  KWM_ASSERT(spec->d_o > 0 ? spec->prior_precision > 0 : spec->prior_variance != NULL);
  for (int64_t k = 0; k < prior_period(spec); k++)
    prior[k] = spec->d_o > 0 ? 1 / spec->prior_precision : spec->prior_variance[k];
}

/* Sum of the prior variances of the group's n parameters on this rank. */
static inline double prior_trace(const struct kwm_cov_spec *spec, const double *prior) {
  double sum = 0;
  for (int64_t k = 0; k < spec->count * spec->params; k++) sum += prior[k % prior_period(spec)];
  return sum;
}

/* moved[b] (count) <- δᵀP0⁻¹δ of block b for delta (count, params). */
static inline void prior_moved(const struct kwm_cov_spec *spec, const double *prior, const double *delta,
                               double *moved) {
  const int64_t p = spec->params, period = prior_period(spec);
  for (int64_t b = 0; b < spec->count; b++) {
    moved[b] = 0;
    for (int64_t k = 0; k < p; k++) moved[b] += delta[b * p + k] * delta[b * p + k] / prior[k % period];
  }
}
