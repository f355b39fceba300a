/* Private to filter: scratch of the tracker with low-rank cross terms (factors.c). */
#pragma once

#include "blocks.h"

struct factors_step {
  struct tracker_blocks range;
  int *rows;                  /* (d) */
  double *T, *U, *M, *V;      /* (d, d) each */
  double *P, *FC;             /* (d, d), (d, r) */
  double *K, *E, *G;          /* (d, d), (r, d), (r, r) */
  double *W, *TW;             /* (d, r), (r, r) */
  double *values, *c, *first; /* (d) each */
  double *HZ;                 /* (m, d) */
  double *B, *J, *BW, *C;     /* of a block of w: (d, w) twice, (w, r), (w + d, r) */
  double *wide, *XG;          /* (w, r + 2 w), (r, r + w) */
};
struct factors_step factors_step(const struct kwm_tracker *tracker);

/* Of a block: Y_b <- the lower root that `wide` (n, count) has, which is overwritten; wide (n, r + n + more) <- [C_b
   Y_b 0], returns its row length. */
void factors_take_root(const struct block *b, int64_t count, double *wide);
int64_t factors_spread_root(const struct kwm_tracker *tracker, const struct block *b, int64_t more, double *wide);

/* Variance of its parameter i; its deviation times share, correlations stay. */
double factors_variance(const struct block *b, int64_t r, int64_t i);
void factors_scale_row(const struct block *b, int64_t r, int64_t i, double share);
