/* What ranks share whose streams differ: noises that adapt, rows of the read-out. */
#include "correct_state.h"
#include "kwm/par.h"

void correct_share_noises(kwm_correct *correct, double *squared, double *expected) {
  struct kwm_shared *const shared = correct->spec.shared;
  double sums[] = {correct->pull[0], correct->pull[1], *squared, *expected};
  if (shared == NULL) return;
  kwm_par_sum_mates_f64(shared->layout, 4, sums);
  correct->pull[0] = sums[0], correct->pull[1] = sums[1];
  *squared = sums[2], *expected = sums[3];
}

void correct_share_rows(kwm_correct *correct, int64_t groups) {
  const struct correct_device *const dev = &correct->dev;
  struct kwm_shared *const shared = correct->spec.shared;
  if (shared == NULL) return;
  for (int64_t k = 1; k < groups; k++)
    kwm_device_add(correct->spec.device, dev->ld, dev->told + k * dev->ld, dev->told);
  kwm_shared_sum(shared, dev->ld, dev->told);
  kwm_shared_sum(shared, dev->ld * correct->spec.width, dev->turned);
}

double correct_mean_square(const kwm_correct *correct, int64_t n, const float *y) {
  double sums[] = {0, (double)n};
  for (int64_t k = 0; k < n; k++) sums[0] += (double)y[k] * (double)y[k];
  if (correct->spec.shared != NULL) kwm_par_sum_mates_f64(correct->spec.shared->layout, 2, sums);
  return sums[0] / sums[1];
}
