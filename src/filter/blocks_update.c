/* The update with P_θθ block-diagonal (blocks.c), one row h of H at a time, all exact but for P_bb':

     f_b = Y_bᵀh_b + X_bᵀh_x,  L_x = P h in x,  α = 1 + hᵀP h,  g = (1 - √(1 - |f_b|²/α)) / |f_b|²
     Y_b <- Y_b (1 - g f_b f_bᵀ),  X_b <- (X_b - L_x f_bᵀ/α) (1 - g f_b f_bᵀ)⁻¹,  P_xx <- P_xx - L_xL_xᵀ/α

   then D = P_xx - Σ X_bX_bᵀ. Where the correlation between blocks that is left out makes that indefinite, its negative
   eigenvalues are set to zero: P_xx grows, and P stays positive semidefinite. `deep`: h has elements in θ; only then do
   ranks talk row by row. */
#include <math.h>
#include <string.h>

#include "blocks.h"
#include "kwm/backend.h"
#include "root.h"

/* L (d) <- P h in x; returns α. */
static double project(const struct kwm_tracker *tracker, const struct blocks_step *step, const double *h, bool deep) {
  const int64_t d = tracker->d;
  const double *const hx = h + tracker->n;
  double *const sums = step->sums, alpha = 1;
  memset(sums, 0, (size_t)(d + 1) * sizeof *sums);
  for (struct block b = {0}; deep && blocks_next(tracker, &step->range, &b);)
    for (int64_t j = 0; j < b.n; j++) { /* w = (Y_bᵀh_b)_j: X_b w in L, w² + w X_bᵀh_x in α beside hᵀL */
      double w = 0, both = 0;
      for (int64_t i = 0; i < b.n; i++) w += b.Y[i * b.n + j] * h[b.first + i];
      for (int64_t i = 0; i < d; i++) sums[i] += b.X[i * b.n + j] * w, both += b.X[i * b.n + j] * hx[i];
      sums[d] += w * (w + both);
    }
  if (deep) blocks_sum(tracker, d + 1, sums);
  alpha += sums[d];
  for (int64_t i = 0; i < d; i++) {
    step->L[i] = sums[i];
    for (int64_t j = 0; j < d; j++) step->L[i] += step->P[i * d + j] * hx[j];
    alpha += hx[i] * step->L[i];
  }
  return alpha;
}

/* f <- f_b, Yf <- Y_b f_b; |f|². */
static double block_project(const struct kwm_tracker *tracker, const struct blocks_step *step, const double *h,
                            const struct block *b, bool deep) {
  const double *const hx = h + tracker->n;
  double squares = 0;
  memset(step->f, 0, (size_t)b->n * sizeof(double));
  for (int64_t i = 0; i < tracker->d; i++)
    for (int64_t j = 0; hx[i] != 0 && j < b->n; j++) step->f[j] += hx[i] * b->X[i * b->n + j];
  for (int64_t i = 0; deep && i < b->n; i++)
    for (int64_t j = 0; h[b->first + i] != 0 && j < b->n; j++) step->f[j] += h[b->first + i] * b->Y[i * b->n + j];
  for (int64_t j = 0; j < b->n; j++) squares += step->f[j] * step->f[j];
  for (int64_t i = 0; i < b->n; i++) {
    step->Yf[i] = 0;
    for (int64_t j = 0; j < b->n; j++) step->Yf[i] += b->Y[i * b->n + j] * step->f[j];
  }
  return squares;
}

/* One row: mean by its innovation e, covariance. */
static void observe_row(struct kwm_tracker *tracker, const struct blocks_step *step, const double *h, double e,
                        bool deep) {
  const int64_t d = tracker->d;
  const double alpha = project(tracker, step, h, deep);
  for (struct block b = {0}; blocks_next(tracker, &step->range, &b);) {
    const double squares = block_project(tracker, step, h, &b, deep), *const f = step->f;
    if (!(squares > 0)) continue;
    const double left = sqrt(fmax(1 - squares / alpha, 1e-12)), g = (1 - left) / squares, inverse = g / left;
    for (int64_t i = 0; i < b.n; i++) {
      for (int64_t j = 0; j < b.n; j++) b.Y[i * b.n + j] -= g * step->Yf[i] * f[j];
      tracker->z[b.first + i] += step->Yf[i] * e / alpha;
    }
    for (int64_t i = 0; i < d; i++) {
      double *const row = b.X + i * b.n, Xf = -step->L[i] * squares / alpha;
      for (int64_t j = 0; j < b.n; j++) Xf += row[j] * f[j];
      const double c = inverse * Xf - step->L[i] / alpha;
      for (int64_t j = 0; j < b.n; j++) row[j] += c * f[j];
    }
  }
  for (int64_t i = 0; i < d; i++) {
    tracker->z[tracker->n + i] += step->L[i] * e / alpha;
    for (int64_t j = 0; j < d; j++) step->P[i * d + j] -= step->L[i] * step->L[j] / alpha;
  }
}

/* D <- the positive part of P - Σ X_bX_bᵀ. */
static bool settle(struct kwm_tracker *tracker, const struct blocks_step *step) {
  const int64_t d = tracker->d, square = d * d;
  double *const V = step->sums, *const values = step->L;
  blocks_crossed(tracker, step);
  for (int64_t k = 0; k < square; k++) tracker->D[k] = step->P[k] - step->sums[k];
  memcpy(V, tracker->D, (size_t)square * sizeof *V);
  if (kwm_cholesky_f64(d, V, d)) return true;
  memcpy(V, tracker->D, (size_t)square * sizeof *V);
  if (!kwm_eigen_f64(d, V, values)) return false;
  double *const scaled = V + square; /* V Λ₊ */
  for (int64_t k = 0; k < square; k++) scaled[k] = fmax(values[k % d], 0) * V[k];
  kwm_gemm_f64(false, true, d, d, d, 1, scaled, d, V, d, 0, tracker->D, d);
  return true;
}

/* A (count, count) <- S, lower triangle; s <- its diagonal in the outputs' units. */
static void innovation(struct kwm_tracker *tracker, const struct blocks_step *step, const struct tracker_work *work,
                       int count, const int *rows, bool deep) {
  const int64_t d = tracker->d, n = tracker->n, N = tracker->N;
  double *const sums = step->sums;
  for (int i = 0; i < tracker->m; i++) work->s[i] = NAN;
  for (int i = 0; i < count; i++) {
    const double *const h = work->H + i * N;
    double *const row = work->A + (int64_t)i * count;
    row[i] = project(tracker, step, h, deep);
    work->s[rows[i]] = tracker->r[rows[i]] * row[i];
    memset(sums, 0, (size_t)count * sizeof *sums);
    for (struct block b = {0}; deep && blocks_next(tracker, &step->range, &b);) {
      block_project(tracker, step, h, &b, true);
      for (int k = 0; k < i; k++)
        for (int64_t l = 0; l < b.n; l++) sums[k] += work->H[k * N + b.first + l] * step->Yf[l];
    }
    if (deep) blocks_sum(tracker, count, sums);
    for (int k = 0; k < i; k++) {
      row[k] = sums[k];
      for (int64_t l = 0; l < d; l++) row[k] += work->H[k * N + n + l] * step->L[l];
    }
  }
}

/* z and P by the rows, each with the innovation that the rows before have left. */
static void correct(struct kwm_tracker *tracker, const struct blocks_step *step, const struct tracker_work *work,
                    int count, bool deep) {
  const int64_t n = tracker->n, N = tracker->N;
  memcpy(step->mean, tracker->z, (size_t)N * sizeof(double));
  for (int i = 0; i < count; i++) {
    const double *const h = work->H + i * N;
    double moved = 0;
    for (int64_t j = 0; deep && j < n; j++) moved += h[j] * (tracker->z[j] - step->mean[j]);
    if (deep) blocks_sum(tracker, 1, &moved);
    for (int64_t j = n; j < N; j++) moved += h[j] * (tracker->z[j] - step->mean[j]);
    observe_row(tracker, step, h, work->a[i] - moved, deep);
  }
  blocks_share_means(tracker);
}

struct kwm_track blocks_update(struct kwm_tracker *tracker, const double *y) {
  const int64_t N = tracker->N, d = tracker->d;
  const struct blocks_step step = blocks_step(tracker);
  struct tracker_work work;
  int rows[TRACKER_ROWS_MAX];
  bool deep = false;
  tracker_work(tracker, &work);
  const int count = tracker_linearise(tracker, &work, y, tracker->z, rows);
  if (count == 0) return (struct kwm_track){.verdict = KWM_TRACKED_NOTHING, .e = work.e, .s = work.s};
  for (int64_t k = 0; k < count * N; k++) deep = deep || (k % N < tracker->n && work.H[k] != 0);
  blocks_crossed(tracker, &step);
  for (int64_t k = 0; k < d * d; k++) step.P[k] = tracker->D[k] + step.sums[k];
  innovation(tracker, &step, &work, count, rows, deep);
  if (!root_cholesky(count, work.A)) return (struct kwm_track){.verdict = KWM_TRACKED_NUMERIC};
  struct kwm_track track = tracker_density(tracker, &work, count, rows);
  if (track.verdict != KWM_TRACKED) return track;
  if (tracker->spec.adapt > 0) { /* wants S⁻¹e */
    memcpy(work.v, work.a, (size_t)count * sizeof(double));
    root_forward(count, work.A, work.a);
    root_backward(count, work.A, work.a);
    tracker_adapt(tracker, &work, count, rows);
    memcpy(work.a, work.v, (size_t)count * sizeof(double));
  }
  correct(tracker, &step, &work, count, deep);
  if (!settle(tracker, &step)) track.verdict = KWM_TRACKED_NUMERIC;
  tracker->steps++;
  return track;
}
