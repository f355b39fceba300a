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
  return 6 * d * d + 4 * d + 3 * d * r + 2 * r * r + m * d + 2 * d * w + (2 * w + d) * r + (w + r) * columns(w, r);
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
  step.BW = at, at += w * r, step.C = at, at += (w + d) * r;
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

void factors_take_root(const struct block *b, int64_t count, double *wide) {
  root_lower((int)b->n, (int)count, wide);
  for (int64_t i = 0; i < b->n; i++) memcpy(b->Y + i * b->n, wide + i * count, (size_t)b->n * sizeof(double));
}

int64_t factors_spread_root(const struct kwm_tracker *tracker, const struct block *b, int64_t more, double *wide) {
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
    factors_take_root(&b, factors_spread_root(tracker, &b, 0, step.wide), step.wide);
    memset(b.X, 0, (size_t)(b.n * tracker->spec.rank) * sizeof(double));
  }
  memset(tracker->D, 0, (size_t)(d * d) * sizeof(double));
  for (int64_t i = 0; i < d; i++) {
    tracker->D[i * (d + 1)] = sqrt(tracker->spread[i]);
    tracker->z[tracker->n + i] = tracker->start[i];
  }
}

/* ---- deviations that grow, none beyond the prior's */

double factors_variance(const struct block *b, int64_t r, int64_t i) {
  double sum = 0;
  for (int64_t j = 0; j < b->n; j++) sum += b->Y[i * b->n + j] * b->Y[i * b->n + j];
  for (int64_t j = 0; j < r; j++) sum += b->X[i * r + j] * b->X[i * r + j];
  return sum;
}

void factors_scale_row(const struct block *b, int64_t r, int64_t i, double share) {
  for (int64_t j = 0; j < b->n; j++) b->Y[i * b->n + j] *= share;
  for (int64_t j = 0; j < r; j++) b->X[i * r + j] *= share;
}

void factors_inflate(struct kwm_tracker *tracker, double factor) {
  const int64_t r = tracker->spec.rank;
  struct tracker_blocks range;
  blocks_range(&tracker->spec, &range);
  for (struct block b = {0}; blocks_next(tracker, &range, &b);)
    for (int64_t i = 0; i < b.n; i++) {
      const double room = tracker->prior[b.first + i] / factors_variance(&b, r, i);
      factors_scale_row(&b, r, i, sqrt(fmax(1, fmin(factor, room))));
    }
}
