/* Correcting activations (equations.md (38)-(55)): an offset b on what the last stage reads its prediction from,
   p = softmax(W(y + b) + l), is a latent state with dynamics b <- a b + w; so is, if wanted, the vocabulary's bias l.
   The tokens that come are their measurements, and no weight changes. One filter a stream; streams run side by side.
   Local, but for what ranks share whose streams differ (spec.shared): the noises that adapt and the rows of the
   read-out follow the sums over all of them.

   full: P dense, (width, width). lowrank: P = (I / prior + UᵀU)⁻¹ with at most `rank` rows in U, so that whatever is
   not in U keeps the prior's variance: each token adds the row of its score; when U is full, the leading half of its
   right singular vectors stays, with the process noise of the time since. diag: P diagonal, updated by the diagonal of
   the information. bias: no offset, l alone.

   The correction of the mean is b <- b + P⁺ Wᵀ(onehot - p) with the exact score; what a token tells about b, the
   information that P⁺ = (P⁻¹ + F)⁻¹ takes in, comes in four forms. exact: F = Wᵀ(diag(p) - ppᵀ)W. topk: the likeliest
   classes one by one, all others merged into one (never more information than exact has). sampled: the mean of the
   outer products of the scores of `top` classes drawn from p, whose expectation is F. observed: the outer product
   of the token's own score, whose expectation under p is F; one rank-one step, the only form of lowrank. Its score may
   be cut: classes less likely than `cut` count as words of their usual frequencies, so that no token costs a second
   pass over W.

   The bias has a variance v_i for each word, with the diagonal of its information p_i(1 - p_i): v <- v / (1 + v p(1 -
   p)), l <- a (l + v e), v <- a² v + (1 - a²) v0, an AR(1) that is stationary at v0. It does not know of b's
   covariance, nor b of its.

   Blocks: with `every` above 1 so many tokens are predicted by what is known before the first of them, then taken in
   together, in `rows` rows (or as many as there are tokens): row j is the sum of the scores of the j-th part of the
   block. Scores are a martingale's differences, so that the outer product of their sum has the expectation of the sum
   of their outer products. One product by W then serves all tokens of a row.

   Rows: with `readout`, in blocks, W's rows are states as well, shared by all streams: row i has a variance v_i,
   readout at first, of every coordinate, and information p_i(1 - p_i) times the mean square of what is read: v_i falls
   as its word is seen, and W_i += v_i Σ (onehot - p)_i y.

   Adapting: R, the categorical's covariance, is scaled by the ratio of |onehot - p|² to its expectation, smoothed.
   Scores of a filter whose q is right have no correlation with the steps before them; so ln q moves by adapt Σx /
   sqrt(Σx²), at most 3 adapt, x = gᵀ(Σ 0.9^k step_k) of the run's tokens and streams: up where offsets lag behind what
   they follow, down where they follow noise.

   full with topk or observed, bias, and everything in blocks run on the device, in single precision (kwm/inform.h); all
   others on the host. */
#pragma once

#include "kwm/base.h"
#include "kwm/device.h"

enum kwm_correct_kind { KWM_CORRECT_FULL, KWM_CORRECT_LOWRANK, KWM_CORRECT_DIAG, KWM_CORRECT_BIAS };
enum { KWM_CORRECT_RANK = 64 /* the largest rank */ };
enum kwm_correct_form { KWM_CORRECT_OBSERVED, KWM_CORRECT_TOPK, KWM_CORRECT_EXACT, KWM_CORRECT_SAMPLED };

struct kwm_correct_spec {
  enum kwm_correct_kind kind;
  enum kwm_correct_form form;
  int64_t streams, width, classes;
  int64_t rank;        /* lowrank: rows of U, 1 to KWM_CORRECT_RANK and, one token at a time, to width */
  int64_t top;         /* topk: classes taken one by one, 1 to classes */
  int64_t every, rows; /* full (observed), lowrank, bias: tokens taken in at once, 0 and 1: one; in how many rows */
  double cut;          /* lowrank, one at a time: probability below which classes count by their frequencies, 0: none */
  double prior, noise; /* variances of b at first, and of w; after a token the mean variance is at most the prior's, so
                          that the gain stays bounded */
  double bound;        /* nats by which a step may promise to lower surprisal, for each of its tokens, 0: any */
  double decay;        /* a, above 0, up to 1 */
  double adapt;        /* full, diag: rate at which noise and R's scale follow what is seen, once a run; 0: they stay */
  double bias, bias_decay;   /* v0, 0: no bias; its a */
  uint64_t seed;             /* of what sampled draws */
  int64_t first;             /* the first stream's number among those of all ranks, for what is drawn */
  double readout;            /* v at first of W's rows, 0: they stay; in blocks */
  int64_t window;            /* tokens over which the contraction of the error is watched (55) */
  bool half;                 /* lowrank, full, in blocks: where the device has them, 16-bit products for the scores */
  bool outside;              /* rows of information come from outside (take), for an offset that W does not read; full
                                (observed) or lowrank, no bias; classes: any */
  const float *W;            /* (classes, width) borrowed, the host's */
  const double *often;       /* (classes) how often each comes, for the cut; NULL: all alike */
  kwm_device *device;        /* borrowed; NULL: the host */
  struct kwm_shared *shared; /* borrowed (kwm/par.h), NULL: this rank is alone; else run is collective over its mates,
                                with adapt in as many runs on all, with readout in runs as long, too */
  const float *device_W;     /* W there */
};

typedef struct kwm_correct kwm_correct;

/* KWM_ERR_USAGE: rank, top or rows out of range, lowrank in another form, blocks of a kind that has none. */
kwm_status kwm_correct_create(kwm_correct **correct, const struct kwm_correct_spec *spec);
void kwm_correct_destroy(kwm_correct *correct); /* accepts NULL */
/* True if it works on the device, which reads device_W, not W. */
bool kwm_correct_on_device(const struct kwm_correct_spec *spec);
const struct kwm_correct_spec *kwm_correct_spec_of(const kwm_correct *correct);

/* logits (streams, classes) <- W(y + b) + l; y (streams, width). Of the host. */
void kwm_correct_logits(kwm_correct *correct, const float *y, float *logits);

/* `steps` tokens of each stream, one after the other: scored by the state from tokens before it, then used, then time
   goes on. y (steps, streams, width), targets (steps, streams); facts (steps, streams, KWM_TOKEN_FACTS) <- as in
   kwm/tensor.h. All are the host's. */
void kwm_correct_run(kwm_correct *correct, int64_t steps, const float *y, const int32_t *targets, float *facts);

/* W was changed from outside: runs in blocks, which keep a copy, read it anew. */
void kwm_correct_moved(kwm_correct *correct);

/* outside: the offsets (streams, width) as they are; the place of rows (streams, *rows, width) that `steps` tokens of
   each stream make, every at most, both where the device says; and, when they are there, with the host's facts (steps,
   streams, KWM_TOKEN_FACTS): they are taken in, and time goes on. */
const float *kwm_correct_offsets(const kwm_correct *correct);
float *kwm_correct_rows(const kwm_correct *correct, int64_t steps, int64_t *rows);
void kwm_correct_take(kwm_correct *correct, int64_t steps, const float *facts);

/* Time goes on without a token that tells anything (one that the model made up itself). Of the host. */
void kwm_correct_idle(kwm_correct *correct);

struct kwm_correct_facts {
  double tokens;
  double squared,
      expected;        /* sums of |onehot - p|² and of its expectation under p: their ratio is a categorical's NIS */
  double contraction;  /* the largest factor over a whole window by which (55)'s product took a direction of the first
                          stream's error up or down; 0: no whole window yet */
  double broken;       /* updates left out because numbers were not finite or not definite */
  double noise, scale; /* q and R's scale at the end */
  double listed;       /* classes whose rows a cut score took */
};
struct kwm_correct_facts kwm_correct_facts(const kwm_correct *correct);

/* Stream s: offset (width) <- b; P (width, width) <- its covariance; bias (classes) <- l. NULL: not wanted. For tests.
 */
void kwm_correct_state(const kwm_correct *correct, int64_t s, double *offset, double *P, double *bias);

/* Operations a token, all in all, beside y: with the read-out, which is 2 width classes without a correction. Bytes
   that are kept. By what was counted so far. */
double kwm_correct_operations(const kwm_correct *correct);
double kwm_correct_bytes(const struct kwm_correct_spec *spec);
