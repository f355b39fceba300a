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
  double *B, *J, *BW, *C;     /* of a block of w: (d, w) twice, (w, r) twice */
  double *wide, *XG;          /* (w, r + 2 w), (r, r + w) */
};
struct factors_step factors_step(const struct kwm_tracker *tracker);
