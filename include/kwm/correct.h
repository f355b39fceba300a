/* Correcting activations (equations.md (38)-(55)): an offset b on what the last stage reads its prediction from,
   p = softmax(W(y + b)), is a latent state with dynamics b <- a b + w; the tokens that come are its measurements, and
   no weight changes. One filter a stream; streams run side by side. Local, on the host.

   full: P dense, (width, width). lowrank: b = B c in a fixed subspace B (width, rank) with orthonormal columns, P = B S
   Bᵀ with S dense (rank, rank): what equations.md (50) calls the subspace form; every token costs classes * rank. diag:
   P diagonal, updated by the diagonal of the information.

   The correction of the mean is b <- b + P⁺ Wᵀ(onehot - p) with the exact score; what a token tells about b, the
   information that P⁺ = (P⁻¹ + F)⁻¹ takes in, comes in three forms. exact: F = Wᵀ(diag(p) - ppᵀ)W. topk: the likeliest
   classes one by one, all others merged into one (never more information than exact has). observed: the outer product
   of the token's own score, whose expectation under p is F; one rank-one step. */
#pragma once

#include "kwm/base.h"

enum kwm_correct_kind { KWM_CORRECT_FULL, KWM_CORRECT_LOWRANK, KWM_CORRECT_DIAG };
enum kwm_correct_form { KWM_CORRECT_OBSERVED, KWM_CORRECT_TOPK, KWM_CORRECT_EXACT };

struct kwm_correct_spec {
  enum kwm_correct_kind kind;
  enum kwm_correct_form form;
  int64_t streams, width, classes;
  int64_t rank;        /* lowrank: columns of B, 1 to width */
  int64_t top;         /* topk: classes taken one by one, 1 to classes */
  double prior, noise; /* variances of b at first, and of w; after a token the mean variance is at most the prior's, so
                          that the gain stays bounded */
  double bound;        /* nats by which one token's step may promise to lower its surprisal, 0: any */
  double decay;        /* a, above 0, up to 1 */
  int64_t window;      /* tokens over which the contraction of the error is watched (55) */
  const float *W;      /* (classes, width) borrowed */
  const double *often; /* lowrank: (classes) how often each comes: B are the leading eigenvectors of W's covariance
                          under it; NULL: all alike */
};

typedef struct kwm_correct kwm_correct;

/* KWM_ERR_USAGE: rank or top out of range. */
kwm_status kwm_correct_create(kwm_correct **correct, const struct kwm_correct_spec *spec);
void kwm_correct_destroy(kwm_correct *correct); /* accepts NULL */

/* y (streams, width), rows ld floats apart, throughout. fixed (streams, classes): W y if it is known, or NULL. */
struct kwm_correct_input {
  const float *y, *fixed;
  int64_t ld;
};

/* logits (streams, classes) <- W(y + b). */
void kwm_correct_logits(kwm_correct *correct, const struct kwm_correct_input *input, float *logits);

/* Each stream's token: scored by the offset from tokens before it, then used, then time goes on. targets (streams).
   surprisal (streams) <- nats. */
void kwm_correct_step(kwm_correct *correct, const struct kwm_correct_input *input, const int32_t *targets,
                      double *surprisal);

/* Time goes on without a token that tells anything (one that the model made up itself). */
void kwm_correct_idle(kwm_correct *correct);

struct kwm_correct_facts {
  double tokens;
  double squared,
      expected;       /* sums of |onehot - p|² and of its expectation under p: their ratio is a categorical's NIS */
  double contraction; /* the largest factor over a whole window by which (55)'s product took a direction of the first
                         stream's error up or down; 0: no whole window yet */
  double broken;      /* updates left out because numbers were not finite or not definite */
};
struct kwm_correct_facts kwm_correct_facts(const kwm_correct *correct);

/* Stream s: offset (width) <- b; P (width, width) <- its covariance. NULL: not wanted. For tests and health. */
void kwm_correct_state(const kwm_correct *correct, int64_t s, double *offset, double *P);

/* Operations a token, all in all, beside y: with the read-out, which is 2 width classes without a correction. */
double kwm_correct_operations(const struct kwm_correct_spec *spec);
