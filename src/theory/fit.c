/* Sizes of a measurement along one axis, and the exponent of what was measured. */
#include "fit.h"

#include <math.h>

double fit_exponent(int n, const double *x, const double *y) {
  double mx = 0, my = 0, xx = 0, xy = 0;
  for (int k = 0; k < n; k++) mx += log(x[k]) / n, my += log(y[k]) / n;
  for (int k = 0; k < n; k++) {
    xx += (log(x[k]) - mx) * (log(x[k]) - mx);
    xy += (log(x[k]) - mx) * (log(y[k]) - my);
  }
  return xy / xx;
}

struct fit_case fit_at(const struct fit_case *fit, int k) {
  struct fit_case at = *fit;
  const int64_t size = fit->sizes[k];
  switch (fit->axis) {
  case FIT_PARAMETERS:
    at.d_o = size;
    if (at.d_i == 0) at.d_i = size;
    break;
  case FIT_OUTPUTS: at.m = size; break;
  case FIT_SAMPLES: at.samples = size; break;
  case FIT_RANK: at.rank = size; break;
  }
  return at;
}

double fit_size(const struct fit_case *at) {
  switch (at->axis) {
  case FIT_PARAMETERS: break;
  case FIT_OUTPUTS: return (double)at->m;
  case FIT_SAMPLES: return (double)at->samples;
  case FIT_RANK: return (double)at->rank;
  }
  return (double)(at->d_o * at->d_i);
}

struct subject_spec fit_spec(const struct fit_case *at) {
  return (struct subject_spec){.structure = at->structure,
                               .form = at->form,
                               .n = at->d_o * at->d_i,
                               .d_i = at->d_i,
                               .samples = at->samples,
                               .rows = at->samples * at->m,
                               .precision = 1,
                               .rank = at->rank,
                               .kind = KWM_LOWRANK_PRECISION};
}
