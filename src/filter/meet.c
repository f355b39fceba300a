/* Two Gaussians of one state made one, as if the second's mean had been observed with its covariance LLᵀ: rows of L⁻¹
   are observations with unit noise, taken one after the other. */
#include <math.h>
#include <string.h>

#include "root.h"
#include "tracker_state.h"

bool kwm_tracker_meet(struct kwm_tracker *tracker, const struct kwm_tracker *other) {
  const int N = tracker->N;
  struct tracker_work work;
  double sum = 0;
  KWM_ASSERT(tracker->n == 0 && other->N == N);
  tracker_work(tracker, &work);
  double *const h = work.t;
  for (int i = 0; i < N; i++) {
    double e = 0, alpha = 1;
    memset(h, 0, (size_t)N * sizeof *h);
    for (int j = i; j >= 0; j--) { /* hᵀL = e_iᵀ */
      const double *const column = other->Y + (int64_t)j * N;
      double rest = i == j;
      for (int l = j + 1; l <= i; l++) rest -= h[l] * column[l];
      if (!(column[j] > 0)) return false;
      h[j] = rest / column[j];
      e += h[j] * (other->z[j] - tracker->z[j]);
    }
    root_observe(N, tracker->Y, 0, h, work.u, work.v);
    for (int j = 0; j < N; j++) alpha += work.u[j] * work.u[j];
    for (int j = 0; j < N; j++) tracker->z[j] += work.v[j] * e / alpha;
    sum += fabs(e);
  }
  return isfinite(sum);
}
