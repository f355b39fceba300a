/* Dense algebra on row-major arrays: the only door to BLAS and LAPACK. Local. One implementation so far: `cpu`
   (OpenBLAS), the reference that others are tested against. */
#pragma once

#include "kwm/base.h"

/* C (m, n) <- alpha op(A) op(B) + beta C; op(A) is (m, k), op(B) is (k, n). ld: elements from row to row as stored. */
void kwm_gemm(bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, float alpha, const float *A,
              int64_t lda, const float *B, int64_t ldb, float beta, float *C, int64_t ldc);

/* Upper triangle of C (n, n) <- alpha AᵀA + beta C for A (k, n); the strict lower triangle is not touched. */
void kwm_gram(int64_t n, int64_t k, float alpha, const float *A, int64_t lda, float beta, float *C, int64_t ldc);

/* The same two in double precision, C (n, n) <- alpha AᵀA + beta C in its upper triangle. */
void kwm_gemm_f64(bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, double alpha, const double *A,
                  int64_t lda, const double *B, int64_t ldb, double beta, double *C, int64_t ldc);
void kwm_gram_f64(int64_t n, int64_t k, double alpha, const double *A, int64_t lda, double beta, double *C,
                  int64_t ldc);

/* C (m, n) <- alpha B A + beta C for symmetric A (n, n), its upper triangle read, and B (m, n). */
void kwm_symm_f64(int64_t m, int64_t n, double alpha, const double *A, int64_t lda, const double *B, int64_t ldb,
                  double beta, double *C, int64_t ldc);

/* Copies the upper triangle of C (n, n) into the lower one. */
void kwm_mirror(int64_t n, float *C, int64_t ldc);
void kwm_mirror_f64(int64_t n, double *C, int64_t ldc);

/* A (n, n) symmetric -> A <- V with V[:, i] the vector of values[i]
   (ascending). Double precision, LAPACK dsyevd. False if it does not converge or A holds non-finite numbers. */
bool kwm_eigen_f64(int64_t n, double *A, double *values);

/* A (n, n) symmetric, lower triangle read -> its Cholesky factor L in the lower triangle. False if not positive
   definite (or not finite): a numerical outcome, not an error. */
bool kwm_cholesky_f64(int64_t n, double *A, int64_t lda);

/* x (n) <- A⁻¹x from the Cholesky factor. */
void kwm_cholesky_solve_f64(int64_t n, const double *L, int64_t lda, double *x);

/* A (n, n), factored by kwm_cholesky_f64 -> the inverse of the original matrix, both triangles. */
bool kwm_cholesky_invert_f64(int64_t n, double *L, int64_t lda);

/* B (n, k) <- L⁻¹B for the lower-triangular L (n, n). */
void kwm_triangular_solve(int64_t n, int64_t k, const float *L, int64_t ldl, float *B, int64_t ldb);
void kwm_triangular_solve_f64(int64_t n, int64_t k, const double *L, int64_t ldl, double *B, int64_t ldb);

/* Cholesky on the upper triangle, in place without LAPACKE's row-major copy, for large matrices. kwm_factor_f64: A (n,
   n) symmetric, upper triangle read -> U in it, A = UᵀU; the strict lower triangle is not touched. False if not
   positive definite or not finite. Then, from U: B (n, k) <- U⁻ᵀB (half), U⁻¹B (back), both, A⁻¹B (solve), and the
   upper triangle of A⁻¹. */
bool kwm_factor_f64(int64_t n, double *A, int64_t lda);
void kwm_factor_half_f64(int64_t n, int64_t k, const double *U, int64_t ldu, double *B, int64_t ldb);
void kwm_factor_back_f64(int64_t n, int64_t k, const double *U, int64_t ldu, double *B, int64_t ldb);
void kwm_factor_solve_f64(int64_t n, int64_t k, const double *U, int64_t ldu, double *B, int64_t ldb);
bool kwm_factor_invert_f64(int64_t n, double *U, int64_t ldu);

/* Any A (n, n), overwritten: B (n, k) <- A⁻¹B. False if A is singular. Its eigenvalues, real and imaginary parts. False
   if they do not converge. */
bool kwm_solve_f64(int64_t n, int64_t k, double *A, double *B);
bool kwm_poles_f64(int64_t n, double *A, double *real, double *imaginary);
/* The same with right eigenvectors in the columns of V (n, n); a pair's are V_j ± i V_{j+1}. */
bool kwm_eigensystem_f64(int64_t n, double *A, double *real, double *imaginary, double *V);

/* B (m, n) <- B L for the lower-triangular L (n, n). */
void kwm_multiply_lower(int64_t m, int64_t n, const float *L, int64_t ldl, float *B, int64_t ldb);

/* First thing in main, before MPI: a library older than the processor takes its kernels for the oldest ones it knows,
   many times slower. If so, starts the program anew with OPENBLAS_CORETYPE set to what the processor can do; a value
   that is already set is kept. Returns if there is nothing to do. */
void kwm_backend_kernels(char **argv);

/* Once, before any arithmetic: subnormal numbers count as zero from here on. They carry nothing that a filter in single
   precision could use, and cost some processors a hundred cycles each. */
void kwm_backend_start(void);

/* From here on the library works with `threads` threads; returns how many it did before. */
int kwm_backend_threads(int threads);

/* Words on the library and the kernel it chose ("OpenBLAS ... Zen"). */
const char *kwm_backend_words(void);
