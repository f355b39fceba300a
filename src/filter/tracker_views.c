/* What a tracker says of itself, and posteriors of disjoint data made one. */
#include <math.h>
#include <string.h>

#include "blocks.h"
#include "root.h"

void kwm_tracker_outputs(struct kwm_tracker *tracker, bool noise, double *y, double *variance) {
  const struct kwm_space *const space = tracker->spec.space;
  const int n = tracker->n, d = tracker->d, N = tracker->N;
  struct tracker_work work;
  tracker_work(tracker, &work);
  space->observe(space->context, tracker->z + n, tracker->z, y, work.Hx, work.Ht);
  for (int i = 0; i < tracker->m; i++) {
    double sum = noise ? tracker->r[i] : 0;
    for (int j = 0; j < n; j++) work.u[j] = work.Ht[(int64_t)i * n + j];
    for (int j = 0; j < d; j++) work.u[n + j] = work.Hx[(int64_t)i * d + j];
    root_project(N, tracker->Y, 0, work.u, work.v);
    for (int j = 0; j < N; j++) sum += work.v[j] * work.v[j];
    variance[i] = sum;
  }
}

void kwm_tracker_widen(struct kwm_tracker *tracker, double *v) {
  root_add(tracker->N, tracker->Y, 0, v);
}

void kwm_tracker_covariance(const struct kwm_tracker *tracker, double *P) {
  const int N = tracker->N;
  memset(P, 0, (size_t)N * (size_t)N * sizeof *P);
  for (int l = 0; l < N; l++) {
    const double *const column = tracker->Y + (int64_t)l * N;
    for (int i = l; i < N; i++)
      for (int j = l; j < N; j++) P[(int64_t)i * N + j] += column[i] * column[j];
  }
}

double kwm_tracker_variance(const struct kwm_tracker *tracker, int i) {
  if (tracker->spec.method == KWM_TRACKER_BLOCK) return blocks_variance(tracker, i - tracker->n);
  double sum = 0;
  for (int j = 0; j <= i; j++) sum += tracker->Y[(int64_t)j * tracker->N + i] * tracker->Y[(int64_t)j * tracker->N + i];
  return sum;
}

void kwm_tracker_adopt(struct kwm_tracker *tracker, int i, double mean, double variance) {
  const int n = tracker->n, N = tracker->N;
  const double now = kwm_tracker_variance(tracker, n + i), share = variance < now ? sqrt(variance / now) : 1;
  tracker->z[n + i] = mean;
  if (tracker->spec.method == KWM_TRACKER_BLOCK) {
    blocks_adopt(tracker, i, share, fmax(variance - now, 0));
    return;
  }
  for (int j = 0; j <= n + i; j++) tracker->Y[(int64_t)j * N + n + i] *= share;
  if (!(variance > now)) return;
  struct tracker_work work;
  tracker_work(tracker, &work);
  memset(work.u, 0, (size_t)N * sizeof(double));
  work.u[n + i] = sqrt(variance - now);
  root_add(N, tracker->Y, n + i, work.u);
}

void kwm_tracker_copy(struct kwm_tracker *to, const struct kwm_tracker *from) {
  KWM_ASSERT(to->N == from->N && to->n == from->n && to->m == from->m);
  KWM_ASSERT(to->kept == from->kept);
  memcpy(to->z, from->z, (size_t)to->kept * sizeof(double)); /* all but the scratch: one piece (kwm_tracker_create) */
  to->steps = from->steps;
  to->Q = from->Q;
}

double kwm_tracker_nees(struct kwm_tracker *tracker, const double *x) {
  const int n = tracker->n, d = tracker->d, N = tracker->N;
  struct tracker_work work;
  tracker_work(tracker, &work);
  double *const P = work.Fx, *const error = work.u;
  for (int i = 0; i < d; i++)
    for (int j = 0; j <= i; j++) {
      double sum = 0;
      for (int l = 0; l <= n + j; l++) sum += tracker->Y[(int64_t)l * N + n + i] * tracker->Y[(int64_t)l * N + n + j];
      P[(int64_t)i * d + j] = sum;
    }
  if (!root_cholesky(d, P)) return NAN;
  for (int i = 0; i < d; i++) error[i] = x[i] - tracker->z[n + i];
  root_forward(d, P, error);
  double sum = 0;
  for (int i = 0; i < d; i++) sum += error[i] * error[i];
  return sum;
}

/* ---- posteriors made one */

/* L (n, n) row-major <- L⁻¹, lower triangular. */
static void invert_lower(int n, double *L) {
  for (int j = 0; j < n; j++) {
    L[(int64_t)j * n + j] = 1 / L[(int64_t)j * n + j];
    for (int i = j + 1; i < n; i++) {
      double sum = 0;
      for (int l = j; l < i; l++) sum -= L[(int64_t)i * n + l] * L[(int64_t)l * n + j];
      L[(int64_t)i * n + j] = sum / L[(int64_t)i * n + i];
    }
  }
}

bool kwm_tracker_part(const struct kwm_tracker *tracker, double *part) {
  const int n = tracker->n, N = tracker->N;
  double *const L = part, *const vector = part + (int64_t)n * n;
  for (int i = 0; i < n; i++)
    for (int j = 0; j < n; j++) L[(int64_t)i * n + j] = j <= i ? tracker->Y[(int64_t)j * N + i] : 0;
  for (int i = 0; i < n; i++)
    if (!(L[(int64_t)i * n + i] > 0)) return false;
  invert_lower(n, L);
  /* Λ = L⁻ᵀL⁻¹: row i needs rows >= i only, so that it may take their place from above. */
  for (int i = 0; i < n; i++)
    for (int j = i; j < n; j++) {
      double sum = 0;
      for (int l = j; l < n; l++) sum += L[(int64_t)l * n + i] * L[(int64_t)l * n + j];
      if (j > i) L[(int64_t)i * n + j] = sum;
      if (j == i) vector[i] = sum;
    }
  for (int i = 0; i < n; i++) {
    L[(int64_t)i * n + i] = vector[i];
    for (int j = 0; j < i; j++) L[(int64_t)i * n + j] = L[(int64_t)j * n + i];
  }
  for (int i = 0; i < n; i++) {
    vector[i] = 0;
    for (int j = 0; j < n; j++) vector[i] += L[(int64_t)i * n + j] * tracker->z[j];
  }
  return true;
}

bool kwm_tracker_fuse(struct kwm_tracker *tracker, double count, const double *before, double *sum) {
  const int n = tracker->n, N = tracker->N;
  const int64_t size = (int64_t)n * (n + 1);
  for (int64_t i = 0; i < size; i++) sum[i] -= (count - 1) * before[i];
  double *const L = sum, *const mean = sum + (int64_t)n * n;
  if (!root_cholesky(n, L)) return false;
  root_forward(n, L, mean);
  root_backward(n, L, mean);
  memcpy(tracker->z, mean, (size_t)n * sizeof *mean);
  /* Λ = LLᵀ, so P = L⁻ᵀL⁻¹: an upper root. Its lower one by adding its columns one after the other. */
  invert_lower(n, L);
  kwm_tracker_prior(tracker);
  for (int j = 0; j < n; j++) tracker->Y[(int64_t)j * N + j] = 0;
  for (int j = 0; j < n; j++) {
    struct tracker_work work;
    tracker_work(tracker, &work);
    memset(work.u, 0, (size_t)N * sizeof(double));
    for (int i = 0; i <= j; i++) work.u[i] = L[(int64_t)j * n + i];
    root_add(N, tracker->Y, 0, work.u);
  }
  return true;
}
