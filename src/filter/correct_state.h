/* Private to filter/correct*.c: the filter in coordinates. r: width, or 0 without an offset. */
#pragma once

#include "kwm/correct.h"
#include "kwm/tensor.h"

enum { CORRECT_BLOCK_ROWS = 12 /* the most rows of a block */ };
static inline bool correct_in_blocks(const struct kwm_correct_spec *spec) {
  return spec->every > 1 || spec->outside;
}
enum { CORRECT_ROWS = 128 /* rows of information taken in at once */, CORRECT_STEPS = 64 /* tokens sent at once */ };

/* Of a device; all (streams, ...) but W. */
struct correct_device {
  float *y, *input, *logits, *score, *facts; /* (STEPS, streams, width), (width), (classes), (width), (STEPS, FACTS) */
  float *c, *P, *A, *watched, *room;         /* (width), (width, width), (rows, width), (width), (rows, width) */
  int32_t *targets, *listed, *broken;        /* (STEPS, streams), (top), (1) */
  float *sums, *told, *U, *W;    /* blocks: (groups, ld) twice; lowrank: (rank, width); (ld, width), padded */
  uint16_t *half, *half_W;       /* sums and W in 16 bits; NULL: products in float */
  int32_t *known, *since;        /* lowrank: (1) */
  float *change, *turned, *vary; /* rows of W: (ld, width) what is added, and its score; (ld) variances */
  float *trend, *pull;           /* what adapts: (width), (2); else NULL */
  int64_t ld, sent;              /* of logits, sums, told, bias and its variance; tokens sent at once */
};

struct kwm_correct {
  struct kwm_correct_spec spec;
  int64_t r, rows;                      /* rows: of A, Z */
  double *c, *P;                        /* (streams, r), (streams, r, r) or diag (streams, r) */
  float *lean, *spread;                 /* (streams, classes): the words' biases and their variances; where spec says */
  float *input, *logits, *score;        /* (streams, width), (streams, classes), (streams, r) */
  float *facts;                         /* (streams): tensor.h's */
  double *A, *G, *F, *N, *mean, *along; /* (rows, r), (r, rows), (r, r), (rows, rows), (r), (r) */
  double *watched;                      /* (r): the direction of the error that is watched, unit at a window's start */
  int32_t *top;                         /* (top) classes of one token, likeliest or drawn */
  float *U, *kept, *usual; /* lowrank: (streams, rank, r) rows of information; (rank, r); (r) the mean row of W */
  double *K;               /* lowrank: (streams, rank, rank) UUᵀ */
  int64_t *known;          /* lowrank: (streams) rows of U so far */
  struct correct_device dev;
  bool copied;          /* in blocks: dev.W is of W as it is */
  double noise, weight; /* q and 1 over R's scale, as they are now */
  double *trend;        /* of the host, what adapts: (streams, r), inform.h's; else NULL */
  double pull[2];       /* of the run at hand, all streams: inform.h's */
  int64_t watched_for;
  int64_t seen; /* tokens of each stream, on the host */
  struct kwm_correct_facts sums;
};

/* correct_memory.c: pieces (n) of the device, zeroed, then the priors; words' rows are ld numbers long. */
struct correct_piece {
  void *at;      /* of a pointer */
  int64_t count; /* of floats or of 32-bit integers */
};
kwm_status correct_open(kwm_correct *correct, int64_t ld, size_t n, const struct correct_piece *pieces);

/* correct_cost.c: rows of information of a token; whether they are those of `top` classes. */
int64_t correct_form_rows(const struct kwm_correct_spec *spec);
bool correct_lists(const struct kwm_correct_spec *spec);

/* correct_update.c: stream s takes its token in, from the innovations e = onehot(target) - p (classes). */
void correct_update(kwm_correct *correct, int64_t s, const float *e, int32_t target);
/* Stream s begins anew: no offset, the prior's variance. */
void correct_reset(kwm_correct *correct, int64_t s);
/* Time goes on for stream s. */
void correct_predict(kwm_correct *correct, int64_t s);
/* The error watched after a token: a vector v <- a v - moved; its norm at a window's end, then a unit vector again. */
void correct_watch(kwm_correct *correct, const double *moved);

/* correct_adapt.c: before the first token, and after a run in which |onehot - p|² was `squared`, `expected` under p. */
kwm_status correct_adapt_open(kwm_correct *correct);
void correct_adapt(kwm_correct *correct, double squared, double expected);

/* correct_ranks.c: over all ranks' streams. The pull and the two sums of a run; dev->turned, and in dev->told's first
   row what `groups` of its rows told, where several ranks have streams, else nothing; the mean square of y (n). */
void correct_share_noises(kwm_correct *correct, double *squared, double *expected);
void correct_share_rows(kwm_correct *correct, int64_t groups);
double correct_mean_square(const kwm_correct *correct, int64_t n, const float *y);

/* correct_low.c. score (width) of stream s <- from logits and their logarithmic sum, by the classes above the cut. */
void correct_low_score(kwm_correct *correct, int64_t s, const float *logits, double log_sum, int32_t target);
/* correct_update and correct_predict in one. */
void correct_low_update(kwm_correct *correct, int64_t s);
void correct_low_state(const kwm_correct *correct, int64_t s, double *P);

/* correct_blocks.c: `steps` tokens of each stream, more than one at once; what it keeps, and the offset's covariance.
 */
kwm_status correct_blocks_create(kwm_correct *correct);
void correct_blocks_run(kwm_correct *correct, int64_t steps, const float *y, const int32_t *targets, float *facts);
void correct_blocks_take(kwm_correct *correct, int64_t steps, int64_t rows);
void correct_blocks_state(const kwm_correct *correct, int64_t s, double *offset, double *P, double *bias);

/* correct_device.c. watch: after `tokens` more; at a window's end the norm of the watched error, then a unit vector. */
kwm_status correct_device_create(kwm_correct *correct);
void correct_device_destroy(kwm_correct *correct);
void correct_device_run(kwm_correct *correct, int64_t steps, const float *y, const int32_t *targets, float *facts);
void correct_device_watch(kwm_correct *correct, int64_t tokens);
void correct_device_count_broken(kwm_correct *correct);
/* n floats of the device <- to doubles; accepts NULL. */
void correct_device_get(const kwm_correct *correct, int64_t n, const float *from, double *to);
void correct_device_state(const kwm_correct *correct, int64_t s, double *offset, double *P, double *bias);
