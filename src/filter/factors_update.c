/* The update with low-rank cross terms (factors.c), exact for outputs of x: with f_i = Zᵀh_i, the posterior of the unit
   η is N(δ, EEᵀ), E lower triangular, so that ξ stays the first r of η:

     S = I + f fᵀ,   δ = fᵀS⁻¹e,   x += Z δ,   θ_b += C_b δ₁,   Z <- Z E,   C_b <- C_b E₁₁;   Y_b stays. */
#include <math.h>
#include <string.h>

#include "factors.h"
#include "kwm/backend.h"
#include "root.h"

/* HZ (count, d) <- rows of H in x times Z; A <- root of S; s. */
static bool innovation(struct kwm_tracker *tracker, const struct factors_step *step, const struct tracker_work *work,
                       int count, const int *rows) {
  const int64_t d = tracker->d, N = tracker->N;
  kwm_gemm_f64(false, false, count, d, d, 1, work->H + tracker->n, N, tracker->D, d, 0, step->HZ, d);
  kwm_gemm_f64(false, true, count, count, d, 1, step->HZ, d, step->HZ, d, 0, work->A, count);
  for (int i = 0; i < tracker->m; i++) work->s[i] = NAN;
  for (int i = 0; i < count; i++) {
    work->A[(int64_t)i * (count + 1)] += 1;
    work->s[rows[i]] = tracker->r[rows[i]] * work->A[(int64_t)i * (count + 1)];
  }
  return root_cholesky(count, work->A);
}

/* From a = S⁻¹e. */
static void correct(struct kwm_tracker *tracker, const struct factors_step *step, const struct tracker_work *work,
                    int count) {
  const int64_t d = tracker->d, r = tracker->spec.rank;
  double *const delta = step->c, *const E = step->U; /* E (d, d), column after column */
  memset(delta, 0, (size_t)d * sizeof *delta);
  for (int i = 0; i < count; i++)
    for (int64_t j = 0; j < d; j++) delta[j] += step->HZ[i * d + j] * work->a[i];
  memset(E, 0, (size_t)(d * d) * sizeof *E);
  for (int64_t i = 0; i < d; i++) E[i * (d + 1)] = 1;
  for (int i = 0; i < count; i++) root_observe((int)d, E, 0, step->HZ + i * d, work->u, work->v);
  for (int64_t i = 0; i < d; i++)
    for (int64_t j = 0; j < d; j++) tracker->z[tracker->n + i] += tracker->D[i * d + j] * delta[j];
  for (struct block b = {0}; blocks_next(tracker, &step->range, &b);) {
    for (int64_t k = 0; k < b.n * r; k++) tracker->z[b.first + k / r] += b.X[k] * delta[k % r];
    kwm_gemm_f64(false, true, b.n, r, r, 1, b.X, r, E, d, 0, step->C, r);
    memcpy(b.X, step->C, (size_t)(b.n * r) * sizeof(double));
  }
  kwm_gemm_f64(false, true, d, d, d, 1, tracker->D, d, E, d, 0, step->M, d);
  memcpy(tracker->D, step->M, (size_t)(d * d) * sizeof(double));
  blocks_share_means(tracker);
}

struct kwm_track factors_update(struct kwm_tracker *tracker, const double *y) {
  const struct factors_step step = factors_step(tracker);
  struct tracker_work work;
  int rows[TRACKER_ROWS_MAX];
  tracker_work(tracker, &work);
  const int count = tracker_linearise(tracker, &work, y, tracker->z, rows);
  if (count == 0) return (struct kwm_track){.verdict = KWM_TRACKED_NOTHING, .e = work.e, .s = work.s};
  if (!innovation(tracker, &step, &work, count, rows)) return (struct kwm_track){.verdict = KWM_TRACKED_NUMERIC};
  struct kwm_track track = tracker_density(tracker, &work, count, rows);
  if (track.verdict != KWM_TRACKED) return track;
  root_forward(count, work.A, work.a);
  root_backward(count, work.A, work.a);
  if (tracker->spec.adapt > 0) tracker_adapt(tracker, &work, count, rows);
  correct(tracker, &step, &work, count);
  tracker->steps++;
  return track;
}
