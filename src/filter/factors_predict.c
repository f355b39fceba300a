/* A step of time of the filter with low-rank cross terms: formulas in factors.c. */
#include <math.h>
#include <string.h>

#include "factors.h"
#include "kwm/backend.h"

static void forget(struct kwm_tracker *tracker, const struct tracker_blocks *range) {
  const double scale = 1 / sqrt(tracker->spec.forgetting);
  const int64_t r = tracker->spec.rank;
  for (struct block b = {0}; blocks_next(tracker, range, &b);)
    for (int64_t i = 0; i < b.n; i++)
      if (factors_variance(&b, r, i) < tracker->prior[b.first + i]) factors_scale_row(&b, r, i, scale);
}

/* B (d, n) <- F_b Y_b; rows: those of F_b that are not zero; returns their number. */
static int64_t slopes(const struct kwm_tracker *tracker, const struct tracker_work *work, const struct block *b,
                      double *B, int *rows) {
  int64_t count = 0;
  for (int64_t i = 0; i < tracker->d; i++) {
    const double *const f = work->Ft + i * tracker->n + b->first;
    double *const row = B + count * b->n;
    bool any = false;
    memset(row, 0, (size_t)b->n * sizeof *row);
    for (int64_t l = 0; l < b->n; l++)
      for (int64_t j = 0; f[l] != 0 && j <= l; j++) row[j] += f[l] * b->Y[l * b->n + j], any = true;
    if (any) rows[count++] = (int)i;
  }
  return count;
}

static double dot(int64_t n, const double *a, const double *b) {
  double sum = 0;
  for (int64_t i = 0; i < n; i++) sum += a[i] * b[i];
  return sum;
}

/* T <- F_x Z + [F_θC, 0], P <- P_xx. */
static void carry(struct kwm_tracker *tracker, const struct factors_step *step, const struct tracker_work *work) {
  const int64_t d = tracker->d, r = tracker->spec.rank;
  int *const rows = step->rows;
  memset(step->P, 0, (size_t)(d * d + d * r) * sizeof(double));
  for (struct block b = {0}; blocks_next(tracker, &step->range, &b);) {
    const int64_t count = slopes(tracker, work, &b, step->B, rows);
    for (int64_t i = 0; i < count; i++) {
      const double *const f = work->Ft + (int64_t)rows[i] * tracker->n + b.first;
      for (int64_t j = 0; j < count; j++)
        step->P[rows[i] * d + rows[j]] += dot(b.n, step->B + i * b.n, step->B + j * b.n);
      for (int64_t l = 0; l < b.n; l++)
        for (int64_t j = 0; j < r; j++) step->FC[rows[i] * r + j] += f[l] * b.X[l * r + j];
    }
  }
  blocks_sum(tracker, d * d + d * r, step->P);
  kwm_gemm_f64(false, false, d, d, d, 1, work->Fx, d, tracker->D, d, 0, step->T, d);
  for (int64_t k = 0; k < d * r; k++) step->T[k / r * d + k % r] += step->FC[k];
  kwm_gemm_f64(false, true, d, d, d, 1, step->T, d, step->T, d, 1, step->P, d);
  for (int64_t i = 0; i < d; i++) step->P[i * (d + 1)] += tracker->q[i];
}

/* K, E, G <- Σ J Δ⁻¹Jᵀ, Σ CᵀΔ⁻¹Jᵀ, Σ CᵀΔ⁻¹C, with J = B_bY_bᵀ and Δ = diag(P_θθ). */
static void correlate(struct kwm_tracker *tracker, const struct factors_step *step, const struct tracker_work *work) {
  const int64_t d = tracker->d, r = tracker->spec.rank;
  int *const rows = step->rows;
  memset(step->K, 0, (size_t)(d * d + r * d + r * r) * sizeof(double));
  for (struct block b = {0}; blocks_next(tracker, &step->range, &b);) {
    const int64_t count = slopes(tracker, work, &b, step->B, rows), n = b.n;
    kwm_gemm_f64(false, true, count, n, n, 1, step->B, n, b.Y, n, 0, step->J, n);
    memcpy(step->C, b.X, (size_t)(n * r) * sizeof(double));
    for (int64_t l = 0; l < n; l++) {
      const double variance = factors_variance(&b, r, l), scale = variance > 0 ? 1 / sqrt(variance) : 0;
      for (int64_t j = 0; j < r; j++) step->C[l * r + j] *= scale;
      for (int64_t i = 0; i < count; i++) step->J[i * n + l] *= scale;
    }
    kwm_gemm_f64(true, false, r, r, n, 1, step->C, r, step->C, r, 1, step->G, r);
    for (int64_t i = 0; i < count; i++) {
      for (int64_t j = 0; j < count; j++) step->K[rows[i] * d + rows[j]] += dot(n, step->J + i * n, step->J + j * n);
      for (int64_t l = 0; l < n; l++)
        for (int64_t j = 0; j < r; j++) step->E[j * d + rows[i]] += step->C[l * r + j] * step->J[i * n + l];
    }
  }
  blocks_sum(tracker, d * d + r * d + r * r, step->K);
}

/* M (d, d) <- P_xθΔ⁻¹P_θx = K + T₁(E + GT₁ᵀ/2) + its transpose. */
static void weigh(const struct kwm_tracker *tracker, const struct factors_step *step) {
  const int64_t d = tracker->d, r = tracker->spec.rank;
  double *const half = step->U, *const product = step->V; /* (r, d), (d, d) */
  kwm_gemm_f64(false, true, r, d, r, 0.5, step->G, r, step->T, d, 0, half, d);
  for (int64_t k = 0; k < r * d; k++) half[k] += step->E[k];
  kwm_gemm_f64(false, false, d, d, r, 1, step->T, d, half, d, 0, product, d);
  for (int64_t i = 0; i < d; i++)
    for (int64_t j = 0; j < d; j++) step->M[i * d + j] = step->K[i * d + j] + product[i * d + j] + product[j * d + i];
}

/* The next state: of those that are not taken (first: INFINITY) and not determined by these, the one with most of M,
   or, M NULL, of P, given them; -1: none. first (d): variances to begin with. */
static int pivot(int64_t d, const double *M, const double *P, const double *first) {
  int best = -1;
  double most = 0;
  for (int64_t i = 0; i < d; i++) {
    const double variance = P[i * (d + 1)], score = M != NULL ? M[i * (d + 1)] / variance : variance;
    if (!(variance > 1e-13 * first[i]) || (best >= 0 && !(score > most))) continue;
    best = (int)i, most = score;
  }
  return best;
}

/* P, M <- given state p: those of what is left of x. Column k of Z. */
static void take(const struct kwm_tracker *tracker, const struct factors_step *step, int64_t p, int64_t k) {
  const int64_t d = tracker->d;
  double *const w = step->c, *const row = step->values, *const P = step->P, *const M = step->M;
  const double variance = P[p * (d + 1)], weight = M[p * (d + 1)];
  for (int64_t i = 0; i < d; i++) {
    w[i] = P[i * d + p] / variance, row[i] = M[i * d + p];
    tracker->D[i * d + k] = w[i] * sqrt(variance);
  }
  for (int64_t i = 0; i < d; i++)
    for (int64_t j = 0; j < d; j++) {
      P[i * d + j] -= w[i] * w[j] * variance;
      M[i * d + j] += w[i] * w[j] * weight - w[i] * row[j] - w[j] * row[i];
    }
}

/* Z <- P_xx's pivoted factor, W (d, r) <- [L⁻ᵀ; 0] where Z₁'s pivots are L's rows. */
static void choose(struct kwm_tracker *tracker, const struct factors_step *step) {
  const int64_t d = tracker->d, r = tracker->spec.rank;
  int *const picked = step->rows;
  int64_t count = 0;
  memset(tracker->D, 0, (size_t)(d * d) * sizeof(double));
  for (int64_t i = 0; i < d; i++) step->first[i] = step->P[i * (d + 1)];
  for (; count < d; count++) {
    const int p = pivot(d, count < r ? step->M : NULL, step->P, step->first);
    if (p < 0) break;
    step->first[p] = INFINITY;
    picked[count] = p;
    take(tracker, step, p, count);
  }
  memset(step->W, 0, (size_t)(d * r) * sizeof(double));
  const int64_t most = count < r ? count : r;
  for (int64_t j = 0; j < most; j++)
    for (int64_t i = j; i >= 0; i--) {
      double sum = i == j;
      for (int64_t l = i + 1; l <= j; l++) sum -= tracker->D[picked[l] * d + i] * step->W[picked[l] * r + j];
      step->W[picked[i] * r + j] = sum / tracker->D[picked[i] * d + i];
    }
}

/* A (r, r) <- S + I, A = SSᵀ positive semidefinite, lower triangle. */
static void half_and_one(int64_t r, double *A) {
  for (int64_t j = 0; j < r; j++) {
    double *const row = A + j * r;
    row[j] = sqrt(fmax(row[j] - dot(j, row, row), 0));
    for (int64_t i = j + 1; i < r; i++) {
      double *const other = A + i * r;
      other[j] = row[j] > 0 ? (other[j] - dot(j, row, other)) / row[j] : 0;
    }
  }
  for (int64_t j = 0; j < r; j++) A[j * (r + 1)] += 1;
}

/* C_b <- R G, Y_b <- root of R (I - GGᵀ) Rᵀ + walk: with SSᵀ = I - GᵀG and X = (I + S)⁻¹, I - G X Gᵀ is a root of I -
   GGᵀ. */
static void project(struct kwm_tracker *tracker, const struct factors_step *step, const struct tracker_work *work,
                    const struct block *b) {
  const int *const rows = step->rows;
  const int64_t r = tracker->spec.rank, n = b->n, length = r + n;
  const double walk = tracker->spec.walk;
  double *const XG = step->XG; /* (r, r + n): Gᵀ = [TW; BᵀW]ᵀ */
  const int64_t count = slopes(tracker, work, b, step->B, step->rows);
  for (int64_t i = 0; i < count; i++)
    for (int64_t j = 0; j < r; j++) step->C[i * r + j] = step->W[rows[i] * r + j];
  kwm_gemm_f64(true, false, n, r, count, 1, step->B, n, step->C, r, 0, step->BW, r);
  kwm_gemm_f64(false, false, n, r, r, 1, b->X, r, step->TW, r, 0, step->C, r);
  kwm_gemm_f64(false, false, n, r, n, 1, b->Y, n, step->BW, r, 1, step->C, r);
  for (int64_t j = 0; j < r; j++) {
    for (int64_t i = 0; i < r; i++) XG[j * length + i] = step->TW[i * r + j];
    for (int64_t i = 0; i < n; i++) XG[j * length + r + i] = step->BW[i * r + j];
  }
  kwm_gemm_f64(false, true, r, r, length, -1, XG, length, XG, length, 0, step->G, r);
  for (int64_t i = 0; i < r; i++) step->G[i * (r + 1)] += 1;
  half_and_one(r, step->G);
  kwm_triangular_solve_f64(r, length, step->G, r, XG, length);
  const int64_t wide = factors_spread_root(tracker, b, walk > 0 ? n : 0, step->wide);
  kwm_gemm_f64(false, false, n, length, r, -1, step->C, r, XG, length, 1, step->wide, wide);
  for (int64_t i = 0; i < n && walk > 0; i++)
    step->wide[i * wide + length + i] = sqrt(walk * tracker->prior[b->first + i]);
  factors_take_root(b, wide, step->wide);
  memcpy(b->X, step->C, (size_t)(n * r) * sizeof(double));
}

bool factors_predict(struct kwm_tracker *tracker, const double *u) {
  const struct kwm_space *const space = tracker->spec.space;
  const int64_t d = tracker->d, r = tracker->spec.rank;
  const struct factors_step step = factors_step(tracker);
  struct tracker_work work;
  double *const x = tracker->z + tracker->n, sum = 0;
  KWM_ASSERT(r >= 1 && r <= d);
  tracker_work(tracker, &work);
  space->step(space->context, x, u, tracker->z, work.v, work.Fx, work.Ft);
  memcpy(x, work.v, (size_t)d * sizeof *x);
  carry(tracker, &step, &work);
  correlate(tracker, &step, &work);
  weigh(tracker, &step);
  choose(tracker, &step);
  kwm_gemm_f64(true, false, r, r, d, 1, step.T, d, step.W, r, 0, step.TW, r);
  for (struct block b = {0}; blocks_next(tracker, &step.range, &b);) project(tracker, &step, &work, &b);
  if (tracker->spec.forgetting > 0 && tracker->spec.forgetting < 1) forget(tracker, &step.range);
  for (int64_t i = 0; i < d; i++) sum += fabs(x[i]);
  return isfinite(sum);
}
