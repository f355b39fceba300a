/* Private to filter/correct*.c: the filter in coordinates. r is width, or lowrank's rank; M (classes, r) is W, or W B.
 */
#pragma once

#include "kwm/correct.h"

enum { CORRECT_ROWS = 128 }; /* rows of information taken in at once */

struct kwm_correct {
  struct kwm_correct_spec spec;
  int64_t r, rows;                      /* rows: of A, Z */
  float *B;                             /* lowrank: (width, r) */
  const float *M;                       /* (classes, r): W, or made_M */
  float *made_M;                        /* lowrank: (classes, r) */
  double *c, *P;                        /* (streams, r), (streams, r, r) or diag (streams, r) */
  float *input, *small;                 /* (streams, width), (streams, r) */
  float *logits, *score, *facts;        /* (streams, classes): innovations after a step; (streams, r); tensor.h's */
  double *A, *G, *F, *N, *mean, *along; /* (rows, r), (r, rows), (r, r), (rows, rows), (r), (r) */
  double *watched;                      /* (r): the direction of the error that is watched, unit at a window's start */
  int32_t *top;                         /* (top) classes of one token */
  int64_t watched_for;
  struct kwm_correct_facts sums;
};

/* correct_update.c: stream s takes its token in, from the innovations e = onehot(target) - p (classes). */
void correct_update(kwm_correct *correct, int64_t s, const float *e, int32_t target);
/* Stream s begins anew: no offset, the prior's variance. */
void correct_reset(kwm_correct *correct, int64_t s);
/* Time goes on for stream s. */
void correct_predict(kwm_correct *correct, int64_t s);
