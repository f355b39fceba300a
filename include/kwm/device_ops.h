/* What a device computes: one table for each kind of device. All arrays are the device's, row-major and contiguous
   unless said, `_host` excepted; all sizes > 0. Kernels of equal arguments give equal bits. Comments give shapes; what
   the numbers mean stands where the host's own loops do (the room named in each heading). Facts are doubles in memory
   of kwm_device_share. */
#pragma once

#include "kwm/device_facts.h"
#include "kwm/device_rooms.h"

struct kwm_device_ops {
  const char *name;
  const struct kwm_tensor_ops *tensor; /* of a transformer (kwm/tensor.h) */
  const struct kwm_lane_ops *lane;     /* copies beside its work (kwm/lane.h) */
  void (*close)(kwm_device *d);

  /* memory (kwm/device.h) */
  void *(*alloc)(kwm_device *d, size_t bytes, bool shared); /* NULL: no room; contents undefined */
  void (*free)(kwm_device *d, void *at);
  void (*put)(kwm_device *d, void *to, const void *from_host, size_t bytes);
  void (*get)(kwm_device *d, void *to_host, const void *from, size_t bytes);
  void (*copy_rows)(kwm_device *d, int64_t rows, size_t width, void *to, size_t pitch_to, const void *from,
                    size_t pitch_from); /* bytes */
  void (*zero)(kwm_device *d, void *at, size_t bytes);
  void (*begin)(kwm_device *d); /* NULL: everything begins when it is asked for */
  void (*wait)(kwm_device *d);
  void (*aside)(kwm_device *d, bool begins); /* NULL, both: in order */
  void (*rejoin)(kwm_device *d);

  /* between devices; NULL: not offered */
  bool (*identity)(kwm_device *d, unsigned char identity[KWM_DEVICE_IDENTITY]);
  bool (*join)(kwm_device *d, const unsigned char identity[KWM_DEVICE_IDENTITY], int rank, int size);
  void (*exchange)(kwm_device *d, int peer, const struct kwm_device_message *message);
  /* values (n), 16-byte aligned, n a multiple of 4, <- their sums over the rooms' devices, the same bits on all: in a
     tree over their places, ((0+1)+(2+3)) */
  void (*sum_rooms)(kwm_device *d, const struct kwm_device_rooms *rooms, int64_t n, float *values);

  /* dense algebra (kwm/backend.h). eigen_begin: a problem, worked out in double precision beside what is asked for from
     then on, as may be others; A stays as it is until eigen_end, which must come: V <- its solution; false: no
     convergence, not finite, or NULL was begun, for want of memory; waits. eigen_wake, NULL or not: such a problem of
     order n will come; what libraries load for it is loaded beside all else. */
  void (*gemm)(kwm_device *d, bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, float alpha,
               const float *A, int64_t lda, const float *B, int64_t ldb, float beta, float *C, int64_t ldc);
  void (*eigen_wake)(kwm_device *d, int64_t n);
  void *(*eigen_begin)(kwm_device *d, const struct kwm_device_eigen *of);
  bool (*eigen_end)(kwm_device *d, void *begun);

  /* the same in double (kwm/backend.h: gemm_f64, gram_f64, symm_f64 with beta 0, triangular_solve_f64); factor: the
     upper triangle of W (n, n) is positive definite; W is overwritten; waits */
  void (*gemm_f64)(kwm_device *d, bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, double alpha,
                   const double *A, int64_t lda, const double *B, int64_t ldb, double beta, double *C, int64_t ldc);
  void (*gram_f64)(kwm_device *d, int64_t n, int64_t k, double alpha, const double *A, double beta, double *C);
  void (*symm_f64)(kwm_device *d, int64_t m, int64_t n, const double *A, const double *B, double *C);
  /* C (m, m), lower triangle, <- A Bᵀ + beta C for A, B (m, k), of which A Bᵀ is symmetric; above: undefined */
  void (*gemmt_f64)(kwm_device *d, int64_t m, int64_t k, const double *A, const double *B, double beta, double *C);
  void (*solve_lower_f64)(kwm_device *d, int64_t n, int64_t k, const double *L, double *B);
  bool (*factor_f64)(kwm_device *d, int64_t n, double *W);
  /* S (n, n), of which the lower triangle is read, <- its factor L there; x, x_host (n) <- S⁻¹x; waits; false: not
     positive definite */
  bool (*factor_solve_f64)(kwm_device *d, int64_t n, double *S, double *x, double *x_host);

  /* elementwise: y += scale x; x <- x² */
  void (*add_scaled)(kwm_device *d, int64_t n, float scale, const float *x, float *y);
  void (*square)(kwm_device *d, int64_t n, float *x);
  /* sums (width) += column sums of squares of rows (n, width); dots (width) <- column sums of x∘y, both (n, width) */
  void (*add_squares)(kwm_device *d, int64_t n, int64_t width, const float *rows, float *sums);
  void (*column_dots)(kwm_device *d, int64_t n, int64_t width, const float *x, const float *y, float *dots);
  /* C (n, n): lower triangle <- upper */
  void (*mirror)(kwm_device *d, int64_t n, float *C);

  /* layer: a (n, length + 1) <- [pixels/255 (n, length), 1]; act (n, w + 1) <- [max(u, 0), 1]; J (n, m, w) <- 0 where
     u (n, w) is not positive */
  void (*pixels)(kwm_device *d, int64_t n, int64_t length, const uint8_t *pixels, float *a);
  void (*relu)(kwm_device *d, int64_t n, int64_t w, const float *u, float *act);
  void (*relu_mask)(kwm_device *d, int64_t n, int64_t m, int64_t w, const float *u, float *J);
  /* x (n, m, w), rows ld floats apart, <- times the factor of dropout (kwm/tensor.h) of element (sample, column) */
  void (*drop)(kwm_device *d, int64_t n, int64_t m, int64_t w, int64_t ld, const struct kwm_dropout *drop, float *x);

  /* layer, gated: tables (kwm_device_gated_floats(count)) <- of theta (count, 10), private to the implementation;
     symbols (n, length), n_symbols (n) <- of pixels (n, length); h (n, 2, count), S (n, 2, 10, count) or NULL */
  void (*gated_tables)(kwm_device *d, int64_t count, const float *theta, float *tables);
  void (*gated_encode)(kwm_device *d, int64_t n, int64_t length, const uint8_t *pixels, uint16_t *symbols,
                       int32_t *n_symbols);
  void (*gated_forward)(kwm_device *d, int64_t n, int64_t length, int64_t count, const float *tables,
                        const uint16_t *symbols, const int32_t *n_symbols, float *h, float *S);

  /* model: facts; e (n, classes), J (n, classes, classes), both NULL or both given. Sampled: g, h (n, classes) from
     draws (n) uniform, or Gaussian (n, classes) normal. */
  void (*observe)(kwm_device *d, const struct kwm_device_observation *o, float *e, float *J);
  void (*observe_sampled)(kwm_device *d, const struct kwm_device_observation *o, const double *draws, float *g,
                          float *h);

  /* lin: F (packed(params), count) += HᵀH, s (params, count) += Hᵀe; f (params, count) += diag(HᵀH);
     g (n, w) <- sum_r e (n, m) J (n, m, w); squares (n, w) <- sum_r J² */
  void (*units_fisher)(kwm_device *d, const struct kwm_device_units *units, float *F, float *s);
  void (*units_diagonal)(kwm_device *d, const struct kwm_device_units *units, float *f, float *s);
  void (*output_score)(kwm_device *d, int64_t n, int64_t m, int64_t w, const float *e, const float *J, float *g);
  void (*output_squares)(kwm_device *d, int64_t n, int64_t m, int64_t w, const float *J, float *squares);

  /* H (n·m, o·i) <- J (n, m, o) ⊗ a (n, i); diagonal of A (n, n) += value; y (n) += x */
  void (*outer_rows)(kwm_device *d, int64_t n, int64_t m, int64_t o, int64_t i, const float *J, const float *a,
                     double *H);
  void (*add_diagonal)(kwm_device *d, int64_t n, double value, double *A);
  /* A (n, n): lower triangle <- upper */
  void (*mirror_f64)(kwm_device *d, int64_t n, double *A);
  /* both triangles of P (n, n) <- P - YᵀY for Y (k, n), of P's upper triangle */
  void (*downdate_both)(kwm_device *d, int64_t n, int64_t k, const double *Y, double *P);
  /* Z (n·m, p) <- H (P - YᵀY) for P (p, p), p = o·i, and Y (k, p), k >= 0; of P the upper triangle is read, or both for
     more than KWM_OUTER_FEW rows */
  void (*outer_symm)(kwm_device *d, const struct kwm_device_outer *rows, const double *P, int64_t k, const double *Y,
                     double *Z);
  /* S (n·m, n·m), lower triangle, <- Z Hᵀ + keep S, of which Z Hᵀ is symmetric; above: undefined */
  void (*outer_share)(kwm_device *d, const struct kwm_device_outer *rows, const double *Z, double keep, double *S);
  void (*add_f64)(kwm_device *d, int64_t n, const double *x, double *y);

  /* cov, kron: f_kj <- max(gt2_k, 0) / batch at2_j, X <- Y / (D + f); D, f, X, Y (o, i), gt2 (o), at2 (i); facts
     (KWM_GAINS), MOVED without the prior, EXPECTED times batch */
  void (*kron_gain)(kwm_device *d, int64_t o, int64_t i, double batch, const float *gt2, const float *at2,
                    const float *Y, const float *D, float *f, float *X, double *facts);
  /* D (n) <- λD + (1-λ)d0, then D/(1 + qD); X <- share / D (X - mean), mean NULL for zero */
  void (*kron_forget)(kwm_device *d, int64_t n, float lambda, float d0, float *D);
  void (*kron_diffuse)(kwm_device *d, int64_t n, float q, float *D);
  void (*kron_pull)(kwm_device *d, int64_t n, float share, const float *D, const float *mean, float *X);
  /* facts (1) <- sum of 1/D (n) */
  void (*sum_inverse)(kwm_device *d, int64_t n, const float *D, double *facts);

  /* cov, block of units in double: M, W (count, p, p) both triangles, prior (p), delta (count, p), evidence F
     (packed(p), count) then s (p, count). absorb: δ = (M + F)⁻¹s, facts (count, KWM_GAINS; EXPECTED 0). take: M += F.
     predict: forgetting λ with the pull, then process noise q (kwm/cov.h); anchor NULL for λ = 1; facts (1) <- the
     number of blocks that were not positive definite, M and mean unchanged then. trace: facts (1) <- tr P. */
  void (*block_absorb)(kwm_device *d, int64_t count, int64_t p, const double *M, const double *prior,
                       const float *evidence, double *delta, double *facts);
  void (*block_take)(kwm_device *d, int64_t count, int64_t p, const float *evidence, double *M);
  void (*block_predict)(kwm_device *d, int64_t count, int64_t p, double lambda, double q, const double *prior,
                        const float *anchor, double *M, double *W, float *mean, double *facts);
  void (*block_trace)(kwm_device *d, int64_t count, int64_t p, const double *M, double *facts);
  /* mean (n) += scale delta (n) */
  void (*move_f64)(kwm_device *d, int64_t n, double scale, const double *delta, float *mean);

  /* cov, diag: D, next, delta (count, p), float or double by `wide`; evidence f (p, count) then s (p, count); prior
     (period), parameter k of a block has prior[k % period]. facts (count, KWM_GAINS), EXPECTED times batch. */
  void (*diag_absorb)(kwm_device *d, bool wide, int64_t count, int64_t p, int64_t period, const double *prior,
                      const float *evidence, const void *D, void *next, double *delta, double *facts);
  void (*diag_predict)(kwm_device *d, bool wide, int64_t count, int64_t p, int64_t period, double lambda, double q,
                       const double *prior, const float *anchor, void *D, float *mean);
  void (*diag_trace)(kwm_device *d, bool wide, int64_t n, const void *D, double *facts);
};

/* Floats of the tables of `count` units. */
int64_t kwm_device_gated_floats(int64_t count);
