/* What the files of the host's transformer operations share (kwm/tensor.h says what each computes).

     tensor.c            the table, dropout, embedding, sums over places and sequences
     tensor_layer.c      norm, GELU, residual
     tensor_attention.c  causal attention
     tensor_learn.c      the categorical innovation, Riccati, Adam
     tensor_basis.c      eigenvectors, followed
     tensor_inform.c     what tokens tell of offsets, one token of each stream at a time
     tensor_blocks.c     the same of blocks of tokens, in few rows */
#pragma once

#include <math.h>

#include "kwm/inform.h"
#include "kwm/tensor.h"

#ifdef __CUDACC__
#define TENSOR_DEVICE __host__ __device__
#else
#define TENSOR_DEVICE
#endif

/* norm_adjoint sums the score of g over at most so many pieces of the rows first. */
enum { TENSOR_NORM_PARTS = 264 };

/* read's rows of logits, of innovations and of E begin at multiples of so many numbers: what tensor cores and vectors
   want. In its room, itself aligned so: logits (n, ld), and with `half` the innovations (n, ld), E (ld, width) and y
   (n, width), 16 bits each. */
enum { TENSOR_READ_COLUMNS = 64 };
static inline int64_t tensor_read_ld(int64_t classes) {
  return (classes + TENSOR_READ_COLUMNS - 1) / TENSOR_READ_COLUMNS * TENSOR_READ_COLUMNS;
}

/* basis: the damping of A by its mean diagonal, the smallest gap by the sum of two eigenvalues, the angle from which on
   first order is believed less and less, the largest root mean square of a column of X, the largest bound of X's
   singular values; steps of Newton's iteration. */
#define TENSOR_DAMPING 1e-6
#define TENSOR_GAP 1e-7
#define TENSOR_ANGLE 0.3
#define TENSOR_COLUMN 0.5
#define TENSOR_SPREAD 2.0
enum { TENSOR_NEWTON = 4 };

/* X_ij of R_ii, R_jj (damped) and R_ij. What is not a number counts as no motion. A ratio far above TENSOR_ANGLE says
   that the gap is as small as what R_ij is known to: followed in full, the many pairs of a long tail of small
   eigenvalues would take up all of X's norm. */
static TENSOR_DEVICE inline float tensor_angle(double low, double high, double off) {
  const double gap = high - low, x = fabs(gap) > TENSOR_GAP * fabs(high + low) ? off / gap : 0;
  const double angle = x / (1 + x * x / (TENSOR_ANGLE * TENSOR_ANGLE));
  return fabs(angle) <= TENSOR_ANGLE ? (float)angle : 0.0f;
}

/* X is scaled; then step k of Newton's iteration is Y <- Y (keep[k] I - cut[k] YᵀY). */
struct tensor_newton {
  double scale, keep[TENSOR_NEWTON], cut[TENSOR_NEWTON];
};

/* Of the trace of G = XᵀX and the sum of its squares, which bound the singular values of X: σ² <= b² = ‖G‖. Those of
   I + X are sqrt(1 + σ²), for X is antisymmetric: within [1, sqrt(1 + b²)]. Each step Y (3 - YᵀY)/2 is scaled so that
   both ends of the interval land on one number, which is the next interval's lower end; its upper end is then 1. With b
   at most TENSOR_SPREAD the last interval is narrower than single precision can tell. */
static TENSOR_DEVICE inline struct tensor_newton tensor_newton_of(int64_t n, double trace, double squares) {
  struct tensor_newton newton;
  const double column = sqrt(trace / (double)n), bound = sqrt(sqrt(squares));
  newton.scale = column > TENSOR_COLUMN ? TENSOR_COLUMN / column : 1;
  if (newton.scale * bound > TENSOR_SPREAD) newton.scale = TENSOR_SPREAD / bound;
  double low = 1, high = sqrt(1 + newton.scale * newton.scale * bound * bound);
  for (int k = 0; k < TENSOR_NEWTON; k++) {
    const double scale = sqrt(3 / (high * high + high * low + low * low));
    newton.keep[k] = 1.5 * scale;
    newton.cut[k] = 0.5 * scale * scale * scale;
    low = newton.keep[k] * low - newton.cut[k] * low * low * low;
    high = 1;
  }
  return newton;
}

/* One class's bias and variance after a token (kwm/inform.h). */
static TENSOR_DEVICE inline void tensor_lean_one(const struct kwm_lean *of, int64_t s, int64_t i) {
  const float a2 = of->decay * of->decay;
  float *const c = of->c + s * of->classes + i, *const v = of->v + s * of->classes + i;
  float e = 0, told = 0;
  if (of->told == NULL) {
    e = of->e[s * of->classes + i];
    const float p = i == of->targets[s] ? 1 - e : -e;
    told = p * (1 - p);
  }
  for (int64_t j = 0; j < of->groups && of->told != NULL; j++) {
    const int64_t at = (s * of->groups + j) * of->classes + i;
    e += of->e[at], told += of->told[at];
  }
  const float after = *v / (1 + *v * told);
  *c = of->decay * (*c + after * e);
  *v = a2 * after + (1 - a2) * of->prior;
}

/* factors (4) <- the factors of columns 4 quad .. 4 quad + 3 of a row. */
void tensor_keep4(const struct kwm_dropout *drop, int64_t row, int64_t quad, float factors[4]);

void tensor_norm(kwm_device *d, int64_t n, int64_t width, const float *x, const float *g, float *y, float *inv);
void tensor_norm_adjoint(kwm_device *d, int64_t n, int64_t width, const float *x, const float *g, const float *inv,
                         const float *sy, const float *more, float *sx, float *sg, float *scratch);
void tensor_attention(kwm_device *d, const struct kwm_attention *a, const float *qkv, float *weights, float *out);
void tensor_attention_adjoint(kwm_device *d, const struct kwm_attention *a, const float *qkv, float *weights,
                              const float *sout, float *sqkv);
void tensor_gelu(kwm_device *d, int64_t n, const float *u, float *y);
void tensor_gelu_adjoint(kwm_device *d, int64_t n, const float *u, const float *sy, float *su);
void tensor_residual(kwm_device *d, int64_t n, int64_t width, const struct kwm_dropout *drop, const float *x,
                     const float *f, float *y);
void tensor_categorical(kwm_device *d, int64_t n, int64_t classes, int64_t ld, const int32_t *targets, bool innovate,
                        float *logits, float *facts);
void tensor_riccati(kwm_device *d, int64_t n, const struct kwm_riccati_step *step, const float *y, float *f, float *m,
                    float *p, float *x);
void tensor_adam(kwm_device *d, int64_t n, const struct kwm_adam_step *step, const float *score, float *m, float *v,
                 float *mean);
void tensor_drift(kwm_device *d, int64_t n, float keep, float scale, const float *x, float *mean);
void tensor_norm2(kwm_device *d, int64_t n, const float *x, double *sums);
void tensor_quadratic(kwm_device *d, int64_t n, const float *w, const float *x, double *sums);
bool tensor_basis(kwm_device *d, int64_t n, bool anew, const float *A, float *U, float *scratch);
void tensor_read(kwm_device *d, const struct kwm_read *read);
void tensor_likely(kwm_device *d, const struct kwm_likely *likely);
void tensor_inform(kwm_device *d, const struct kwm_inform *inform);
void tensor_inform_low(kwm_device *d, const struct kwm_inform_low *inform);
void tensor_shrink_low(kwm_device *d, const struct kwm_inform_low *inform);
void tensor_tally(kwm_device *d, const struct kwm_tally *tally);
void tensor_lean(kwm_device *d, const struct kwm_lean *lean);
void tensor_steer(kwm_device *d, const struct kwm_steer *steer);
void tensor_shift(kwm_device *d, int64_t n, int64_t width, const float *c, float *x);
