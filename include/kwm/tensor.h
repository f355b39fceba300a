/* What a transformer computes: one table of operations, for the host and for every kind of device. The layers, the pipe
   and the learners of the language model are written against it once. All arrays are row-major, contiguous unless said,
   and lie where `d` says (NULL: the host); all sizes > 0. Operations of equal arguments give equal bits. Rows are
   tokens: n = sequences * context, a sequence's tokens one after the other. Local.

   Matrix products are kwm_device_gemm. "adjoint" operations take the score with respect to their output (the derivative
   of the summed log-likelihood; equations.md (14)) and give or add that with respect to their inputs. */
#pragma once

#include "kwm/device.h"
#include "kwm/inform.h"
#include "kwm/read.h"

/* What is dropped: element (row, column) of a (n, width) array is kept with probability 1 - rate and scaled by
   1 / (1 - rate), keyed by (seed, step, site, global row, column) alone (Philox, kwm_tensor_keep). rate 0: nothing. */
struct kwm_dropout {
  uint64_t seed, step;
  uint32_t site; /* one for each place in the network */
  int64_t first; /* global number of row 0 */
  float rate;
};

/* Causal attention: n = sequences * context rows, width = heads * size columns. */
struct kwm_attention {
  int64_t sequences, context, heads, size;
};

/* Facts of a row's categorical innovation: surprisal of the target, entropy, sum of p², 1 if the target is likeliest,
   the largest p. */
enum {
  KWM_TOKEN_SURPRISAL,
  KWM_TOKEN_ENTROPY,
  KWM_TOKEN_SQUARES,
  KWM_TOKEN_CORRECT,
  KWM_TOKEN_LARGEST,
  KWM_TOKEN_FACTS
};

/* Rows of a table that occur in a batch, and where: kind k is row kinds[k], found at places[begin[k] .. begin[k+1]),
   ascending. kinds (count), begin (count + 1), places (n). */
struct kwm_gather {
  int64_t count, n;
  const int32_t *kinds, *begin, *places;
};

/* One step of the scalar Riccati recursion in every coordinate (equations.md 3(a); kwm/riccati.h says what it means):
   f <- f + rate_f (y² - f), on `first` f <- y²; m <- m + rate_m (y - m);
   p <- steady ? (sqrt(q² + 4 q / f) - q) / 2 : (p + q) / (1 + (p + q) f), at most p0;  x <- p m. */
struct kwm_riccati_step {
  float q, p0, rate_f, rate_m;
  bool first, steady;
};

/* One step of Adam, uphill: m, v the running means; the step is rate m / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) +
   eps), then mean <- (1 - decay) mean + step. score is multiplied by `scale` first. t counts from 1. */
struct kwm_adam_step {
  float rate, beta1, beta2, epsilon, decay, scale;
  int64_t t;
};

struct kwm_tensor_ops {
  /* x (n, width) <- dropout(E[ids[r]] + pos[r % context]); E (types, width), pos (context, width). ids (n) are the
     device's, each in [0, types). */
  void (*embed)(kwm_device *d, int64_t n, int64_t width, int64_t context, const int32_t *ids, const float *E,
                const float *pos, const struct kwm_dropout *drop, float *x);
  /* table (rows, width): row kinds[k] += sum of x's rows at its places, in their order; x (n, width). Host pointers are
     those of `gather` on the host, the device's on a device. */
  void (*gather)(kwm_device *d, int64_t width, const struct kwm_gather *gather, const float *x, float *table);
  /* sums (context, width) += x (n, width) over the sequences, in their order. */
  void (*fold)(kwm_device *d, int64_t n, int64_t width, int64_t context, const float *x, float *sums);

  /* y <- x / rms(x) * g, inv (n) <- 1 / rms(x), rms² = mean of squares + 1e-6; g (width). Adjoint: sx (n, width) <- the
     score with respect to x, plus `more` (n, width) if it is not NULL (may be sx itself); sg (width) += that of g.
     scratch: kwm_tensor_norm_scratch floats. */
  void (*norm)(kwm_device *d, int64_t n, int64_t width, const float *x, const float *g, float *y, float *inv);
  void (*norm_adjoint)(kwm_device *d, int64_t n, int64_t width, const float *x, const float *g, const float *inv,
                       const float *sy, const float *more, float *sx, float *sg, float *scratch);

  /* out (n, width) <- softmax of causal q kᵀ / sqrt(size), applied to v, head by head; qkv (n, 3 width): q, k, v side
     by side, each its heads side by side. weights (sequences, heads, context, context) <- the softmax, 0 above the
     diagonal. Adjoint: sqkv (n, 3 width) <- ; `weights` is overwritten. */
  void (*attention)(kwm_device *d, const struct kwm_attention *a, const float *qkv, float *weights, float *out);
  void (*attention_adjoint)(kwm_device *d, const struct kwm_attention *a, const float *qkv, float *weights,
                            const float *sout, float *sqkv);

  /* y (n) <- u Φ(u) (GELU, exact); su <- sy (Φ(u) + u φ(u)); su may be sy. */
  void (*gelu)(kwm_device *d, int64_t n, const float *u, float *y);
  void (*gelu_adjoint)(kwm_device *d, int64_t n, const float *u, const float *sy, float *su);

  /* y (n, width) <- x + dropout(f); x NULL: 0. y may be x or f. The adjoint of the dropout is the same with x NULL. */
  void (*residual)(kwm_device *d, int64_t n, int64_t width, const struct kwm_dropout *drop, const float *x,
                   const float *f, float *y);

  /* logits (n, classes), rows ld floats apart -> in place the innovation one-hot(target) - p, unless `innovate` is
     false: then the logits stay. facts (n, KWM_TOKEN_FACTS). targets (n) in [0, classes). */
  void (*categorical)(kwm_device *d, int64_t n, int64_t classes, int64_t ld, const int32_t *targets, bool innovate,
                      float *logits, float *facts);

  /* y, f, m, p, x (n); x may be y. */
  void (*riccati)(kwm_device *d, int64_t n, const struct kwm_riccati_step *step, const float *y, float *f, float *m,
                  float *p, float *x);
  void (*adam)(kwm_device *d, int64_t n, const struct kwm_adam_step *step, const float *score, float *m, float *v,
               float *mean);
  /* mean (n) <- keep mean + scale x (n); x NULL: 0 */
  void (*drift)(kwm_device *d, int64_t n, float keep, float scale, const float *x, float *mean);
  /* sums (1, double; of kwm_device_share) <- sum of x² over n */
  void (*norm2)(kwm_device *d, int64_t n, const float *x, double *sums);
  /* the same with weights: sum of w x²; w, x (n) */
  void (*quadratic)(kwm_device *d, int64_t n, const float *w, const float *x, double *sums);

  /* U (n, n) <- orthonormal, its columns nearer to the eigenvectors of symmetric A (n, n; both triangles), which is
     damped by 1e-6 of its mean diagonal. `anew`: exactly, in columns of ascending eigenvalue (waits; false: no
     convergence or not finite, U then unchanged). Else one cheap improvement of the U that is there, by matrix products
     only: R = UᵀAU, the antisymmetric X_ij = x / (1 + (x / 0.3)²) of x = R_ij / (R_jj - R_ii), 0 where |R_jj - R_ii|
     is under 1e-7 of their sum, scaled down as a whole to a Frobenius norm of at most 1/2 a column on average, and to
     what Newton's iteration takes; U <- U (I + X) made orthonormal by it (in TF32: if U was). scratch: 4 n² floats. */
  bool (*basis)(kwm_device *d, int64_t n, bool anew, const float *A, float *U, float *scratch);

  /* The read-out as a whole: what gemm, categorical and two more gemms would give, at the device's best layout. */
  void (*read)(kwm_device *d, const struct kwm_read *read);

  /* In bfloat16, sums in float; NULL: not there. to (n) <- x; C (m, n) <- A (m, k) B (k, n), n and k multiples of 8 */
  void (*narrow)(kwm_device *d, int64_t n, const float *x, uint16_t *to);
  void (*half_gemm)(kwm_device *d, int64_t m, int64_t n, int64_t k, const uint16_t *A, const uint16_t *B, float *C);
  /* kwm/inform.h; shift: x (n, width) += c (width) in every row */
  void (*likely)(kwm_device *d, const struct kwm_likely *likely);
  void (*inform)(kwm_device *d, const struct kwm_inform *inform);
  void (*inform_low)(kwm_device *d, const struct kwm_inform_low *inform);
  void (*shrink_low)(kwm_device *d, const struct kwm_inform_low *inform);
  void (*tally)(kwm_device *d, const struct kwm_tally *tally);
  void (*lean)(kwm_device *d, const struct kwm_lean *lean);
  void (*steer)(kwm_device *d, const struct kwm_steer *steer);
  void (*shift)(kwm_device *d, int64_t n, int64_t width, const float *c, float *x);
};

/* The table of a device; NULL: the host's. */
const struct kwm_tensor_ops *kwm_tensor_of(const kwm_device *device);

int64_t kwm_tensor_norm_scratch(int64_t n, int64_t width); /* floats of norm_adjoint's scratch */

/* The host's table, and the keep rule of dropout: the factor of element (row, column), 0 or 1 / (1 - rate). */
extern const struct kwm_tensor_ops kwm_tensor_host;
float kwm_tensor_keep(const struct kwm_dropout *drop, int64_t row, int64_t column);
