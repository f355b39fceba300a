/* Private to filter: trackers whose P_θθ is block-diagonal (blocks.c, blocks_update.c), or that and low rank
   (factors.c, factors_predict.c, factors_update.c). */
#pragma once

#include "tracker_state.h"

bool blocks_method(enum kwm_tracker_method method); /* one of these */

/* This rank's blocks: the first, their number, where they begin in θ; numbers of their roots, of those before, of all;
   the widest block of all. */
struct tracker_blocks {
  int first, count, theta, widest;
  int64_t numbers, before, all;
};
void blocks_range(const struct kwm_tracker_spec *spec, struct tracker_blocks *range);
int64_t blocks_work_size(const struct kwm_tracker_spec *spec);

/* Scratch of a step; w: the widest block. */
struct blocks_step {
  struct tracker_blocks range;
  double *P, *sums;             /* (d, d); (2 d d + d + 2), and where counts of outputs are summed */
  double *L, *f, *Yf;           /* (d), (w), (w) */
  double *square, *rows, *mean; /* (w, w); (d, w); (N) */
};
struct blocks_step blocks_step(const struct kwm_tracker *tracker);

/* A block of this rank: where it begins in θ, its size, Y_b (n, n) and X_b (d, n), row-major; lowrank: C_b (n, rank) in
   X's place. Begins zeroed; false: no more. */
struct block {
  int64_t index, first, n;
  double *Y, *X;
};
bool blocks_next(const struct kwm_tracker *tracker, const struct tracker_blocks *range, struct block *block);

/* values (n) summed over the ranks that share the blocks; sums (d, d) <- Σ X_bX_bᵀ over all blocks. Collective. */
void blocks_sum(const struct kwm_tracker *tracker, int64_t n, double *values);
void blocks_crossed(const struct kwm_tracker *tracker, const struct blocks_step *step);

/* Means of all blocks on every rank, from their owners'. Collective. */
void blocks_share_means(struct kwm_tracker *tracker);

void blocks_prior(struct kwm_tracker *tracker);
void blocks_begin(struct kwm_tracker *tracker);
void blocks_inflate(struct kwm_tracker *tracker, double factor);

/* State i, where this rank has all blocks: its variance; its row and column of P times share, its variance + more. */
double blocks_variance(const struct kwm_tracker *tracker, int i);
void blocks_adopt(struct kwm_tracker *tracker, int i, double share, double more);
bool blocks_predict(struct kwm_tracker *tracker, const double *u);
struct kwm_track blocks_update(struct kwm_tracker *tracker, const double *y);

int64_t factors_work_size(const struct kwm_tracker_spec *spec);
void factors_prior(struct kwm_tracker *tracker);
void factors_begin(struct kwm_tracker *tracker);
void factors_inflate(struct kwm_tracker *tracker, double factor);
bool factors_predict(struct kwm_tracker *tracker, const double *u);
struct kwm_track factors_update(struct kwm_tracker *tracker, const double *y);
