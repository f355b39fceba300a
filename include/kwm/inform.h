/* What tokens tell of the offsets of many streams at once (kwm/correct.h): operations of kwm/tensor.h's table, in
   single precision. Each stream has coordinates c (r) and a symmetric covariance P (r, r); M (classes, r) is the
   read-out in these coordinates. Local. */
#pragma once

#include "kwm/base.h"

/* Rows of information that a stream may bring at once, and how many numbers they may be: what a block of a GPU holds.
 */
enum { KWM_INFORM_ROWS = 36, KWM_INFORM_COORDINATES = 1024, KWM_INFORM_NUMBERS = 24000 };
static inline bool kwm_inform_fits(int64_t r, int64_t rows) {
  const int64_t whole = rows == 1 ? 1 : rows <= 12 ? 12 : rows <= 20 ? 20 : KWM_INFORM_ROWS;
  return r <= KWM_INFORM_COORDINATES && rows <= KWM_INFORM_ROWS && whole * r <= KWM_INFORM_NUMBERS;
}

/* The information of a categorical observation in rows: the `top` likeliest classes one by one, sqrt(p_i) (M_i - Mᵀp),
   and all others merged into one, with their common probability and their mean row. */
struct kwm_likely {
  int64_t n, classes, r, top; /* streams; 1 <= top <= classes, top + 1 <= KWM_INFORM_ROWS */
  const float *e;             /* (n, classes): innovations onehot(target) - p */
  const int32_t *targets;     /* (n) */
  const float *M, *g;         /* (classes, r); (n, r): Mᵀe */
  float *A;                   /* (n, top + 1, r) <- */
  int32_t *listed;            /* (n, top) <- the likeliest, of equal ones the lower number first */
};

/* With A and g of `weight` w, that is w AᵀA and w g: P⁺ = (P⁻¹ + AᵀA)⁻¹ = P - ZᵀZ, Z = L⁻¹AP, LLᵀ = I + APAᵀ. Then c <-
   a (c + s P⁺g), s = min(1, bound / gᵀP⁺g) (bound 0: 1), and P <- t (a² P⁺ + q I), t at most 1 and such that the mean
   variance is at most the prior's. Of stream 0, v
   <- a (v - P⁺AᵀA v). Where numbers are not finite or not definite a stream begins anew: c = 0, P = prior I. */
struct kwm_inform {
  int64_t n, r, rows;               /* kwm_inform_fits(r, rows) */
  const float *A, *g;               /* (n, rows, r), (n, r); g NULL: the sum of A's rows */
  float weight;                     /* of what they tell: 1 over the scale of R */
  float decay, noise, prior, bound; /* a, q */
  float *c, *P;                     /* (n, r), (n, r, r), both triangles */
  float *watched;                   /* v (r) */
  int32_t *broken;                  /* (n) += 1 where a stream begins anew */
  float *room;                      /* (rows, r) */
  float *trend, *pull;              /* (n, r), (n, 2) or NULL: with x = gᵀtrend, pull += (x, x²), then trend <-
                                       KWM_INFORM_TREND trend + the step */
};
#define KWM_INFORM_TREND 0.9f /* what is kept of the trend from step to step */

/* The same with P = (I / prior + UᵀU)⁻¹, in whose U (at most `rank` rows) the rows A come after the `known` ones, and
   without a bound on the mean variance. Then shrink_low, which reads and changes only U, known and since: where as many
   rows more no longer fit, the leading kwm_inform_keep of U's right singular vectors stay: one whose variance was v =
   1 / (1 / prior + s²) gets the length that makes it a^2t v + t q, t the tokens `since` the last time, or 0 where that
   is above the prior. */
struct kwm_inform_low {
  int64_t n, r, rows, rank;         /* rows <= rank <= KWM_INFORM_RANK, r <= KWM_INFORM_COORDINATES */
  int64_t tokens;                   /* that the rows are of */
  const float *A;                   /* (n, rows, r) */
  float decay, noise, prior, bound; /* a and q of one token; the step's bound */
  float *c, *U;                     /* (n, r), (n, rank, r) */
  float *watched;                   /* v (r) */
  int32_t *known, *since, *broken;  /* (n) */
};
enum { KWM_INFORM_RANK = 64 };
static inline int64_t kwm_inform_keep(int64_t rank, int64_t rows) {
  return rank / 2 < rank - rows ? rank / 2 : rank - rows;
}

/* The innovations of blocks of tokens: of stream s and group j of its tokens sums <- Σ onehot(target) - p, p =
   exp(logit - logit of the target - surprisal), and told, unless NULL, <- Σ p (1 - p). Token t is in group t groups /
   steps. half: where a device has products of 16-bit numbers (kwm/tensor.h), the sums rounded to 8 bits of mantissa. */
struct kwm_tally {
  int64_t n, steps, groups, classes, ld; /* streams; 1 <= groups <= steps; rows are ld floats apart */
  const float *logits, *facts;           /* (steps, n, ld), (steps, n, KWM_TOKEN_FACTS) */
  const int32_t *targets;                /* (steps, n) */
  float *sums, *told;                    /* (n, groups, ld) both; sums NULL with half: not wanted */
  uint16_t *half;                        /* (n, groups, ld), or NULL */
};

/* Rows of a read-out W as states, each with a variance v of all of its coordinates: with what `groups` parts of the
   tokens told of each row's class, v <- v / (1 + v scale Σ told), then W and `change` += v score, score the Σ of
   innovation times what was read. */
struct kwm_steer {
  int64_t rows, width, groups;
  const float *score, *told; /* (rows, width), (groups, rows) */
  float scale;               /* of a coordinate's information: the mean square of what was read */
  float *variance;           /* (rows) */
  float *change, *W;         /* (rows, width) */
};

/* Biases c (n, classes) of the classes and their variances v (n, classes), which the token's innovations correct:
   v <- v / (1 + v p (1 - p)), c <- a (c + v e), v <- a² v + (1 - a²) prior. */
struct kwm_lean {
  int64_t n, classes, groups; /* groups: with told */
  const float *e;             /* (n, classes): onehot(target) - p; with told (n, groups, classes) */
  const int32_t *targets;     /* (n) */
  const float *told;          /* as e, in place of p (1 - p), for more tokens than one; else NULL */
  float decay, prior;         /* a */
  float *c, *v;
};
