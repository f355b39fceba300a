/* The joint filter with P_θθ block-diagonal. Columns of a root of P are grouped as θ's blocks are: block b has Y_b and
   the rows X_b of x below it, so that P_bb = Y_bY_bᵀ, P_xb = X_bY_bᵀ, P_xx = Σ X_bX_bᵀ + D, positive semidefinite as
   long as D is. What is not kept is P_bb', b' another block; all else is the exact filter's: see also blocks_update.c.

     predict   X_b <- F_b Y_b + F_x X_b,  D <- F_x D F_xᵀ + Q

   Ranks share the blocks: x, θ and D are the same on all, Y_b and X_b on their owner only; sums over blocks go over
   all. */
#include "blocks.h"

#include <math.h>
#include <string.h>

#include "kwm/backend.h"
#include "root.h"

/* ---- which blocks, where */

bool blocks_method(enum kwm_tracker_method method) {
  return method == KWM_TRACKER_BLOCK || method == KWM_TRACKER_LOWRANK;
}

/* Of a block's root with what is kept of its covariance with x. */
static int64_t numbers_of(const struct kwm_tracker_spec *spec, int64_t n) {
  return n * (n + (spec->method == KWM_TRACKER_LOWRANK ? spec->rank : spec->space->d));
}

/* First block of owner `rank`: blocks in order, each owner about the same work. */
static int first_of(const struct kwm_tracker_spec *spec, int rank, int ranks) {
  double all = 0, sum = 0;
  int b = 0;
  for (int k = 0; k < spec->n_blocks; k++) all += (double)numbers_of(spec, spec->blocks[k]);
  for (; b < spec->n_blocks && sum < all * rank / ranks * (1 - 1e-12); b++)
    sum += (double)numbers_of(spec, spec->blocks[b]);
  return b;
}

void blocks_range(const struct kwm_tracker_spec *spec, struct tracker_blocks *range) {
  const int rank = spec->layout != NULL ? spec->layout->owner : 0;
  const int ranks = spec->layout != NULL ? spec->layout->owners : 1;
  const int last = rank + 1 == ranks ? spec->n_blocks : first_of(spec, rank + 1, ranks);
  *range = (struct tracker_blocks){.first = first_of(spec, rank, ranks)};
  range->count = last - range->first;
  for (int b = 0; b < spec->n_blocks; b++) {
    const int64_t numbers = numbers_of(spec, spec->blocks[b]);
    if (b < range->first) range->theta += spec->blocks[b], range->before += numbers;
    if (b >= range->first && b < last) range->numbers += numbers;
    if (spec->blocks[b] > range->widest) range->widest = spec->blocks[b];
    range->all += numbers;
  }
}

int64_t blocks_work_size(const struct kwm_tracker_spec *spec) {
  const int64_t d = spec->space->d, n = spec->space->n, m = spec->space->m;
  struct tracker_blocks range;
  blocks_range(spec, &range);
  return 3 * d * d + 3 * d + 2 + m + n + range.widest * (range.widest + d + 2);
}

struct blocks_step blocks_step(const struct kwm_tracker *tracker) {
  const int64_t d = tracker->d, m = tracker->m;
  struct blocks_step step;
  blocks_range(&tracker->spec, &step.range);
  const int64_t w = step.range.widest;
  double *at = tracker->blocks_work;
  step.P = at, at += d * d, step.sums = at, at += 2 * d * d + d + 2 + m;
  step.L = at, at += d, step.f = at, at += w, step.Yf = at, at += w;
  step.square = at, at += w * w, step.rows = at, at += d * w;
  step.mean = at;
  return step;
}

bool blocks_next(const struct kwm_tracker *tracker, const struct tracker_blocks *range, struct block *block) {
  const bool begins = block->Y == NULL;
  block->first = begins ? range->theta : block->first + block->n;
  block->Y = begins ? tracker->Y : block->Y + numbers_of(&tracker->spec, block->n);
  block->index = begins ? range->first : block->index + 1;
  if (block->index == range->first + range->count) return false;
  block->n = tracker->spec.blocks[block->index];
  block->X = block->Y + block->n * block->n;
  return true;
}

void blocks_sum(const struct kwm_tracker *tracker, int64_t n, double *values) {
  if (tracker->spec.layout != NULL && tracker->spec.layout->owners > 1)
    kwm_par_sum_group(tracker->spec.layout, n, values);
}

void blocks_crossed(const struct kwm_tracker *tracker, const struct blocks_step *step) {
  const int64_t d = tracker->d;
  memset(step->sums, 0, (size_t)(d * d) * sizeof(double));
  for (struct block b = {0}; blocks_next(tracker, &step->range, &b);)
    kwm_gemm_f64(false, true, d, d, b.n, 1, b.X, b.n, b.X, b.n, 1, step->sums, d);
  blocks_sum(tracker, d * d, step->sums);
}

void blocks_share_means(struct kwm_tracker *tracker) {
  struct tracker_blocks range;
  if (tracker->spec.layout == NULL || tracker->spec.layout->owners == 1) return;
  blocks_range(&tracker->spec, &range);
  int64_t end = range.theta;
  for (int b = 0; b < range.count; b++) end += tracker->spec.blocks[range.first + b];
  memset(tracker->z, 0, (size_t)range.theta * sizeof(double));
  memset(tracker->z + end, 0, (size_t)(tracker->n - end) * sizeof(double));
  blocks_sum(tracker, tracker->n, tracker->z);
}

/* ---- beginning */

void blocks_prior(struct kwm_tracker *tracker) {
  const struct blocks_step step = blocks_step(tracker);
  memset(tracker->Y, 0, (size_t)step.range.numbers * sizeof(double));
  memset(tracker->D, 0, (size_t)tracker->d * (size_t)tracker->d * sizeof(double));
  for (struct block b = {0}; blocks_next(tracker, &step.range, &b);)
    for (int64_t i = 0; i < b.n; i++) b.Y[i * (b.n + 1)] = sqrt(tracker->prior[b.first + i]);
}

void blocks_begin(struct kwm_tracker *tracker) {
  const int64_t d = tracker->d;
  const struct blocks_step step = blocks_step(tracker);
  for (struct block b = {0}; blocks_next(tracker, &step.range, &b);) memset(b.X, 0, (size_t)(d * b.n) * sizeof(double));
  memset(tracker->D, 0, (size_t)(d * d) * sizeof(double));
  for (int64_t i = 0; i < d; i++) {
    tracker->D[i * (d + 1)] = tracker->spread[i];
    tracker->z[tracker->n + i] = tracker->start[i];
  }
}

/* ---- predict */

/* Y_b <- root of P_bb + walk, X_b such that P_xb stays; D takes what Σ X_bX_bᵀ loses. */
static void walk(struct kwm_tracker *tracker, const struct blocks_step *step) {
  const int64_t d = tracker->d;
  blocks_crossed(tracker, step);
  for (int64_t k = 0; k < d * d; k++) tracker->D[k] += step->sums[k];
  for (struct block b = {0}; blocks_next(tracker, &step->range, &b);) {
    const int64_t n = b.n;
    kwm_gemm_f64(false, true, d, n, n, 1, b.X, n, b.Y, n, 0, step->rows, n);
    kwm_gemm_f64(false, true, n, n, n, 1, b.Y, n, b.Y, n, 0, step->square, n);
    for (int64_t i = 0; i < n; i++) step->square[i * (n + 1)] += tracker->spec.walk * tracker->prior[b.first + i];
    if (!root_cholesky((int)n, step->square)) continue; /* not finite: the update says so */
    for (int64_t i = 0; i < n; i++)
      for (int64_t j = 0; j < n; j++) b.Y[i * n + j] = j <= i ? step->square[i * n + j] : 0;
    for (int64_t i = 0; i < d; i++) root_forward((int)n, step->square, step->rows + i * n);
    memcpy(b.X, step->rows, (size_t)(d * n) * sizeof *b.X);
  }
  blocks_crossed(tracker, step);
  for (int64_t k = 0; k < d * d; k++) tracker->D[k] -= step->sums[k];
}

static void forget(struct kwm_tracker *tracker, const struct blocks_step *step) {
  const double scale = 1 / sqrt(tracker->spec.forgetting);
  for (struct block b = {0}; blocks_next(tracker, &step->range, &b);)
    for (int64_t i = 0; i < b.n; i++) {
      double *const row = b.Y + i * b.n, variance = 0;
      for (int64_t j = 0; j < b.n; j++) variance += row[j] * row[j];
      for (int64_t j = 0; j < b.n && variance < tracker->prior[b.first + i]; j++) row[j] *= scale;
    }
}

void blocks_inflate(struct kwm_tracker *tracker, double factor) {
  const struct blocks_step step = blocks_step(tracker);
  for (struct block block = {0}; blocks_next(tracker, &step.range, &block);)
    for (int64_t i = 0; i < block.n; i++) {
      double *const row = block.Y + i * block.n, variance = 0;
      for (int64_t j = 0; j < block.n; j++) variance += row[j] * row[j];
      const double share = sqrt(fmax(1, fmin(factor, tracker->prior[block.first + i] / variance)));
      for (int64_t j = 0; j < block.n; j++) row[j] *= share;
    }
}

bool blocks_predict(struct kwm_tracker *tracker, const double *u) {
  const struct kwm_space *const space = tracker->spec.space;
  const int64_t d = tracker->d, all = tracker->n;
  const struct blocks_step step = blocks_step(tracker);
  struct tracker_work work;
  double *const x = tracker->z + all, sum = 0;
  tracker_work(tracker, &work);
  space->step(space->context, x, u, tracker->z, work.v, work.Fx, work.Ft);
  memcpy(x, work.v, (size_t)d * sizeof *x);
  for (struct block b = {0}; blocks_next(tracker, &step.range, &b);) {
    kwm_gemm_f64(false, false, d, b.n, d, 1, work.Fx, d, b.X, b.n, 0, step.rows, b.n);
    for (int64_t i = 0; i < d; i++) /* most rows of F_b are zero where a block moves one state */
      for (int64_t l = 0; l < b.n; l++) {
        const double slope = work.Ft[i * all + b.first + l];
        for (int64_t j = 0; slope != 0 && j < b.n; j++) step.rows[i * b.n + j] += slope * b.Y[l * b.n + j];
      }
    memcpy(b.X, step.rows, (size_t)(d * b.n) * sizeof *b.X);
  }
  kwm_gemm_f64(false, false, d, d, d, 1, work.Fx, d, tracker->D, d, 0, step.P, d);
  kwm_gemm_f64(false, true, d, d, d, 1, step.P, d, work.Fx, d, 0, tracker->D, d);
  for (int64_t i = 0; i < d; i++) tracker->D[i * (d + 1)] += tracker->q[i];
  if (tracker->spec.forgetting > 0 && tracker->spec.forgetting < 1) forget(tracker, &step);
  if (tracker->spec.walk > 0) walk(tracker, &step);
  for (int64_t i = 0; i < d; i++) sum += fabs(x[i]);
  return isfinite(sum);
}

/* ---- views */

void kwm_tracker_variances(const struct kwm_tracker *tracker, double *variances) {
  if (!blocks_method(tracker->spec.method)) {
    for (int i = 0; i < tracker->n; i++) variances[i] = kwm_tracker_variance(tracker, i);
    return;
  }
  const int64_t rank = tracker->spec.method == KWM_TRACKER_LOWRANK ? tracker->spec.rank : 0;
  struct tracker_blocks range;
  blocks_range(&tracker->spec, &range);
  memset(variances, 0, (size_t)tracker->n * sizeof *variances);
  for (struct block b = {0}; blocks_next(tracker, &range, &b);) {
    for (int64_t k = 0; k < b.n * b.n; k++) variances[b.first + k / b.n] += b.Y[k] * b.Y[k];
    for (int64_t k = 0; k < b.n * rank; k++) variances[b.first + k / rank] += b.X[k] * b.X[k];
  }
  blocks_sum(tracker, tracker->n, variances);
}

double blocks_variance(const struct kwm_tracker *tracker, int i) {
  KWM_ASSERT(tracker->spec.method == KWM_TRACKER_BLOCK);
  const struct blocks_step step = blocks_step(tracker);
  double sum = tracker->D[(int64_t)i * (tracker->d + 1)];
  KWM_ASSERT(i >= 0 && step.range.numbers == step.range.all);
  for (struct block b = {0}; blocks_next(tracker, &step.range, &b);)
    for (int64_t j = 0; j < b.n; j++) sum += b.X[i * b.n + j] * b.X[i * b.n + j];
  return sum;
}

void blocks_adopt(struct kwm_tracker *tracker, int i, double share, double more) {
  const struct blocks_step step = blocks_step(tracker);
  const int64_t d = tracker->d;
  for (struct block b = {0}; share < 1 && blocks_next(tracker, &step.range, &b);)
    for (int64_t j = 0; j < b.n; j++) b.X[i * b.n + j] *= share;
  for (int64_t j = 0; j < d; j++) tracker->D[i * d + j] *= share, tracker->D[j * d + i] *= share;
  tracker->D[i * (d + 1)] += more;
}

struct kwm_tracker_roots kwm_tracker_roots(const struct kwm_tracker *tracker) {
  struct tracker_blocks range;
  blocks_range(&tracker->spec, &range);
  return (struct kwm_tracker_roots){
      .values = tracker->Y, .first = range.before, .count = range.numbers, .all = range.all};
}
