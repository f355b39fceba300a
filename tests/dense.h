/* Dense linear algebra in double precision, written as in a textbook, and the textbook Kalman filter on top of it: what
   the program's own forms are compared with. Shares nothing with src. Row-major; arrays are calloc'ed.
   dense.c is optimised and never instrumented (tests/CMakeLists.txt): what reads the program's own arrays is below. */
#pragma once

#include "kwm_test.h"

#include "kwm/rng.h"

double *dense_new(int64_t n);
double *dense_copy(int64_t n, const double *from);

/* C (m, n) <- A (m, k) B (k, n) */
void dense_multiply(int64_t m, int64_t n, int64_t k, const double *A, const double *B, double *C);

/* B (n, m) <- A (m, n) transposed */
void dense_transpose(int64_t m, int64_t n, const double *A, double *B);

/* A (n, n) <- its inverse: Gauss-Jordan elimination with partial pivoting. */
void dense_invert(int64_t n, double *A);

/* A (n, n) symmetric, positive definite <- its Cholesky factor, lower triangle; zeros above. */
void dense_cholesky(int64_t n, double *A);

/* A (n, n) symmetric -> E with its eigenvectors in columns: Jacobi's cyclic rotations. A is destroyed. */
void dense_eigenvectors(int64_t n, double *A, double *E);

/* |a - b| / |b| in the Frobenius norm. */
static inline double dense_error(int64_t n, const double *a, const double *b) {
  double difference = 0, norm = 0;
  for (int64_t k = 0; k < n; k++) {
    difference += (a[k] - b[k]) * (a[k] - b[k]);
    norm += b[k] * b[k];
  }
  return sqrt(difference) / sqrt(norm > 0 ? norm : 1);
}

static inline double dense_error_f32(int64_t n, const float *a, const double *b) {
  double *const wide = dense_new(n);
  for (int64_t k = 0; k < n; k++) wide[k] = (double)a[k];
  const double error = dense_error(n, wide, b);
  free(wide);
  return error;
}

/* NaN fails. */
#define assert_below(value, bound)                                                                                     \
  do {                                                                                                                 \
    const double below_value_ = (value), below_bound_ = (bound);                                                       \
    if (!(below_value_ <= below_bound_))                                                                               \
      fail_msg("%s = %.3g, wanted at most %.3g", #value, below_value_, below_bound_);                                  \
  } while (0)

/* Time update of P (n, n): Λ <- λΛ + (1-λ)Λ0, then P <- P + q P0, for the diagonal P0 = diag(prior). */
void dense_predict(int64_t n, double *P, const double *prior, double lambda, double q);

/* S (m, m) <- H P Hᵀ + I */
void dense_innovation_covariance(int64_t n, int64_t m, const double *P, const double *H, double *S);

/* Measurement update of P (n, n) with H (m, n), e (m), R = I: K = P Hᵀ S⁻¹, delta <- K e, P <- P - K S Kᵀ. */
void dense_update(int64_t n, int64_t m, double *P, const double *H, const double *e, double *delta);

/* P (n, n) keeps only its diagonal blocks of order p. */
void dense_decouple(int64_t n, int64_t p, double *P);

double dense_trace(int64_t n, const double *P);

/* A number of the test's own, normal, keyed by (what, index). */
double test_normal(uint64_t what, int64_t index);
