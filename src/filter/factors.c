/* The joint filter with low-rank cross terms. With independent unit ξ (r), ε_b (n_b), η (d), ξ = the first r of η,

     θ_b = C_b ξ + Y_b ε_b,   x = Z η,      P = blkdiag(Y_bY_bᵀ, Z₂Z₂ᵀ) + UUᵀ,   U = [C; Z₁],   Z = [Z₁ Z₂]:

   x and θ, and blocks of θ with each other, depend on each other through r numbers only; positive semidefinite
   whatever they are. An update by outputs of x keeps this form and is exact (factors_update.c). A step of time is exact
   for P_xx, with T = F_x Z + [F_θ C, 0] and B_b = F_b Y_b,

     P_xx <- TTᵀ + Σ B_bB_bᵀ + Q,   P_xb <- T₁C_bᵀ + B_bY_bᵀ,   P_bb <- P_bb,

   but its P_xθ has rank d. Kept is what r of the states, I, tell of it (a Nyström, or column, approximation):

     P_xθ <- P_xI P_II⁻¹ P_Iθ,   P_bb' <- P_bI P_II⁻¹ P_Ib':   states in I keep all of their covariance with θ.

   They are chosen one after the other, each the one whose squared correlations with the parameters, given those before,
   add up to most, as pivots of a Cholesky factor of P_xx; Z is that factor, W = [P_II^-½; 0], and

     C_b <- P_bx W,   Y_bY_bᵀ <- P_bb - C_bC_bᵀ = R (I - GGᵀ) Rᵀ,   R = [C_b Y_b], C_b⁺ = R G.

   What is projected away is the covariance of the other states with θ, and of blocks with each other, given x_I; P_xx
   and every P_bb stay. Parameters that only move other states learn nothing at this step and keep their uncertainty, so
   that their turn comes: θ's marginals err on the wide side, what is forecast of x may err to either. (Leading singular
   vectors of P_xθ instead would mix states, so that one's innovation would teach another's parameters: it diverges.)
   rank = d with one block is the exact joint filter. Ranks share the blocks, Z is the same on all. */
#include <math.h>
#include <string.h>

#include "factors.h"
#include "kwm/backend.h"
#include "root.h"

/* ---- scratch */

static int64_t columns(int64_t widest, int64_t r) {
  return r + 2 * widest;
}

int64_t factors_work_size(const struct kwm_tracker_spec *spec) {
  const int64_t d = spec->space->d, r = spec->rank, m = spec->space->m;
  struct tracker_blocks range;
  blocks_range(spec, &range);
  const int64_t w = range.widest;
  return 6 * d * d + 4 * d + 3 * d * r + 2 * r * r + m * d + 2 * d * w + 2 * w * r + (w + r) * columns(w, r);
}

struct factors_step factors_step(const struct kwm_tracker *tracker) {
  const int64_t d = tracker->d, r = tracker->spec.rank, m = tracker->m;
  struct factors_step step;
  blocks_range(&tracker->spec, &step.range);
  const int64_t w = step.range.widest;
  double *at = tracker->blocks_work;
  step.T = at, at += d * d, step.U = at, at += d * d, step.M = at, at += d * d, step.V = at, at += d * d;
  step.P = at, at += d * d, step.FC = at, at += d * r; /* in this order: summed over ranks as one */
  step.K = at, at += d * d, step.E = at, at += r * d, step.G = at, at += r * r;
  step.W = at, at += d * r, step.TW = at, at += r * r;
  step.values = at, at += d, step.c = at, at += d, step.first = at, at += d;
  step.HZ = at, at += m * d, step.rows = (int *)at, at += d;
  step.B = at, at += d * w, step.J = at, at += d * w;
  step.BW = at, at += w * r, step.C = at, at += w * r;
  step.wide = at, at += w * columns(w, r);
  step.XG = at;
  return step;
}

/* ---- beginning */

void factors_prior(struct kwm_tracker *tracker) {
  struct tracker_blocks range;
  blocks_range(&tracker->spec, &range);
  memset(tracker->Y, 0, (size_t)range.numbers * sizeof(double));
  memset(tracker->D, 0, (size_t)(tracker->d * tracker->d) * sizeof(double));
  for (struct block b = {0}; blocks_next(tracker, &range, &b);)
    for (int64_t i = 0; i < b.n; i++) b.Y[i * (b.n + 1)] = sqrt(tracker->prior[b.first + i]);
}

/* Y_b <- the root that the first n rows of `wide` (n, count) have. */
static void take_root(const struct block *b, int64_t count, double *wide) {
  root_lower((int)b->n, (int)count, wide);
  for (int64_t i = 0; i < b->n; i++) memcpy(b->Y + i * b->n, wide + i * count, (size_t)b->n * sizeof(double));
}

/* wide (n, r + n + more) <- [C_b Y_b 0]; its row length. */
static int64_t spread_root(const struct kwm_tracker *tracker, const struct block *b, int64_t more, double *wide) {
  const int64_t r = tracker->spec.rank, count = r + b->n + more;
  memset(wide, 0, (size_t)(b->n * count) * sizeof *wide);
  for (int64_t i = 0; i < b->n; i++) {
    memcpy(wide + i * count, b->X + i * r, (size_t)r * sizeof *wide);
    memcpy(wide + i * count + r, b->Y + i * b->n, (size_t)b->n * sizeof *wide);
  }
  return count;
}

void factors_begin(struct kwm_tracker *tracker) {
  const int64_t d = tracker->d;
  const struct factors_step step = factors_step(tracker);
  for (struct block b = {0}; blocks_next(tracker, &step.range, &b);) {
    take_root(&b, spread_root(tracker, &b, 0, step.wide), step.wide);
    memset(b.X, 0, (size_t)(b.n * tracker->spec.rank) * sizeof(double));
  }
  memset(tracker->D, 0, (size_t)(d * d) * sizeof(double));
  for (int64_t i = 0; i < d; i++) {
    tracker->D[i * (d + 1)] = sqrt(tracker->spread[i]);
    tracker->z[tracker->n + i] = tracker->start[i];
  }
}

/* ---- deviations that grow, none beyond the prior's */

static double variance_of(const struct block *b, int64_t r, int64_t i) {
  double sum = 0;
  for (int64_t j = 0; j < b->n; j++) sum += b->Y[i * b->n + j] * b->Y[i * b->n + j];
  for (int64_t j = 0; j < r; j++) sum += b->X[i * r + j] * b->X[i * r + j];
  return sum;
}

static void scale_row(const struct block *b, int64_t r, int64_t i, double share) {
  for (int64_t j = 0; j < b->n; j++) b->Y[i * b->n + j] *= share;
  for (int64_t j = 0; j < r; j++) b->X[i * r + j] *= share;
}

void factors_inflate(struct kwm_tracker *tracker, double factor) {
  const int64_t r = tracker->spec.rank;
  struct tracker_blocks range;
  blocks_range(&tracker->spec, &range);
  for (struct block b = {0}; blocks_next(tracker, &range, &b);)
    for (int64_t i = 0; i < b.n; i++) {
      const double room = tracker->prior[b.first + i] / variance_of(&b, r, i);
      scale_row(&b, r, i, sqrt(fmax(1, fmin(factor, room))));
    }
}

static void forget(struct kwm_tracker *tracker, const struct tracker_blocks *range) {
  const double scale = 1 / sqrt(tracker->spec.forgetting);
  const int64_t r = tracker->spec.rank;
  for (struct block b = {0}; blocks_next(tracker, range, &b);)
    for (int64_t i = 0; i < b.n; i++)
      if (variance_of(&b, r, i) < tracker->prior[b.first + i]) scale_row(&b, r, i, scale);
}

/* ---- a step of time */

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
      const double variance = variance_of(&b, r, l), scale = variance > 0 ? 1 / sqrt(variance) : 0;
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
  const int64_t wide = spread_root(tracker, b, walk > 0 ? n : 0, step->wide);
  kwm_gemm_f64(false, false, n, length, r, -1, step->C, r, XG, length, 1, step->wide, wide);
  for (int64_t i = 0; i < n && walk > 0; i++)
    step->wide[i * wide + length + i] = sqrt(walk * tracker->prior[b->first + i]);
  take_root(b, wide, step->wide);
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
