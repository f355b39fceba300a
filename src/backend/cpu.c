/* OpenBLAS and LAPACKE, row-major. */
#include "kwm/backend.h"

#include <cblas.h>
#include <lapacke.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <stdlib.h>
#if defined(__SSE__)
#include <xmmintrin.h>
#endif

void kwm_gemm(bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, float alpha, const float *A,
              int64_t lda, const float *B, int64_t ldb, float beta, float *C, int64_t ldc) {
  if (m == 0 || n == 0) return;
  cblas_sgemm(CblasRowMajor, transpose_a ? CblasTrans : CblasNoTrans, transpose_b ? CblasTrans : CblasNoTrans,
              kwm_int(m), kwm_int(n), kwm_int(k), alpha, A, kwm_int(lda), B, kwm_int(ldb), beta, C, kwm_int(ldc));
}

void kwm_gram(int64_t n, int64_t k, float alpha, const float *A, int64_t lda, float beta, float *C, int64_t ldc) {
  cblas_ssyrk(CblasRowMajor, CblasUpper, CblasTrans, kwm_int(n), kwm_int(k), alpha, A, kwm_int(lda), beta, C,
              kwm_int(ldc));
}

void kwm_gemm_f64(bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, double alpha, const double *A,
                  int64_t lda, const double *B, int64_t ldb, double beta, double *C, int64_t ldc) {
  if (m == 0 || n == 0) return;
  cblas_dgemm(CblasRowMajor, transpose_a ? CblasTrans : CblasNoTrans, transpose_b ? CblasTrans : CblasNoTrans,
              kwm_int(m), kwm_int(n), kwm_int(k), alpha, A, kwm_int(lda), B, kwm_int(ldb), beta, C, kwm_int(ldc));
}

void kwm_gram_f64(int64_t n, int64_t k, double alpha, const double *A, int64_t lda, double beta, double *C,
                  int64_t ldc) {
  cblas_dsyrk(CblasRowMajor, CblasUpper, CblasTrans, kwm_int(n), kwm_int(k), alpha, A, kwm_int(lda), beta, C,
              kwm_int(ldc));
}

/* By panels of A's rows, each used twice while it is in the cache: a few wide B are the case here, and for them dsymm
   runs at three quarters of dgemm's rate. */
void kwm_symm_f64(int64_t m, int64_t n, double alpha, const double *A, int64_t lda, const double *B, int64_t ldb,
                  double beta, double *C, int64_t ldc) {
  enum { PANEL = 256 };
  for (int64_t first = 0; first < n && m > 0; first += PANEL) {
    const int64_t width = n - first < PANEL ? n - first : PANEL, next = first + width;
    const double *const diagonal = A + first * lda + first, *const right = diagonal + width;
    cblas_dsymm(CblasRowMajor, CblasRight, CblasUpper, kwm_int(m), kwm_int(width), alpha, diagonal, kwm_int(lda),
                B + first, kwm_int(ldb), first == 0 ? beta : 1, C + first, kwm_int(ldc));
    kwm_gemm_f64(false, false, m, n - next, width, alpha, B + first, ldb, right, lda, first == 0 ? beta : 1, C + next,
                 ldc);
    if (next < n) kwm_gemm_f64(false, true, m, width, n - next, alpha, B + next, ldb, right, lda, 1, C + first, ldc);
  }
}

void kwm_mirror(int64_t n, float *C, int64_t ldc) {
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = i + 1; j < n; j++) C[j * ldc + i] = C[i * ldc + j];
}

void kwm_mirror_f64(int64_t n, double *C, int64_t ldc) {
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = i + 1; j < n; j++) C[j * ldc + i] = C[i * ldc + j];
}

bool kwm_eigen_f64(int64_t n, double *A, double *values) {
  return LAPACKE_dsyevd(LAPACK_ROW_MAJOR, 'V', 'U', kwm_int(n), A, kwm_int(n), values) == 0;
}

bool kwm_cholesky_f64(int64_t n, double *A, int64_t lda) {
  return LAPACKE_dpotrf(LAPACK_ROW_MAJOR, 'L', kwm_int(n), A, kwm_int(lda)) == 0;
}

void kwm_cholesky_solve_f64(int64_t n, const double *L, int64_t lda, double *x) {
  cblas_dtrsv(CblasRowMajor, CblasLower, CblasNoTrans, CblasNonUnit, kwm_int(n), L, kwm_int(lda), x, 1);
  cblas_dtrsv(CblasRowMajor, CblasLower, CblasTrans, CblasNonUnit, kwm_int(n), L, kwm_int(lda), x, 1);
}

bool kwm_cholesky_invert_f64(int64_t n, double *L, int64_t lda) {
  if (LAPACKE_dpotri(LAPACK_ROW_MAJOR, 'L', kwm_int(n), L, kwm_int(lda)) != 0) return false;
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = i + 1; j < n; j++) L[i * lda + j] = L[j * lda + i];
  return true;
}

void kwm_triangular_solve(int64_t n, int64_t k, const float *L, int64_t ldl, float *B, int64_t ldb) {
  cblas_strsm(CblasRowMajor, CblasLeft, CblasLower, CblasNoTrans, CblasNonUnit, kwm_int(n), kwm_int(k), 1.0f, L,
              kwm_int(ldl), B, kwm_int(ldb));
}

void kwm_triangular_solve_f64(int64_t n, int64_t k, const double *L, int64_t ldl, double *B, int64_t ldb) {
  cblas_dtrsm(CblasRowMajor, CblasLeft, CblasLower, CblasNoTrans, CblasNonUnit, kwm_int(n), kwm_int(k), 1.0, L,
              kwm_int(ldl), B, kwm_int(ldb));
}

bool kwm_factor_f64(int64_t n, double *A, int64_t lda) {
  /* Row by row the upper triangle is column by column the lower one. */
  return LAPACKE_dpotrf(LAPACK_COL_MAJOR, 'L', kwm_int(n), A, kwm_int(lda)) == 0;
}

void kwm_factor_half_f64(int64_t n, int64_t k, const double *U, int64_t ldu, double *B, int64_t ldb) {
  cblas_dtrsm(CblasRowMajor, CblasLeft, CblasUpper, CblasTrans, CblasNonUnit, kwm_int(n), kwm_int(k), 1.0, U,
              kwm_int(ldu), B, kwm_int(ldb));
}

void kwm_factor_back_f64(int64_t n, int64_t k, const double *U, int64_t ldu, double *B, int64_t ldb) {
  cblas_dtrsm(CblasRowMajor, CblasLeft, CblasUpper, CblasNoTrans, CblasNonUnit, kwm_int(n), kwm_int(k), 1.0, U,
              kwm_int(ldu), B, kwm_int(ldb));
}

void kwm_factor_solve_f64(int64_t n, int64_t k, const double *U, int64_t ldu, double *B, int64_t ldb) {
  kwm_factor_half_f64(n, k, U, ldu, B, ldb);
  kwm_factor_back_f64(n, k, U, ldu, B, ldb);
}

bool kwm_factor_invert_f64(int64_t n, double *U, int64_t ldu) {
  return LAPACKE_dpotri(LAPACK_COL_MAJOR, 'L', kwm_int(n), U, kwm_int(ldu)) == 0;
}

bool kwm_solve_f64(int64_t n, int64_t k, double *A, double *B) {
  lapack_int *const pivots = malloc((size_t)n * sizeof *pivots);
  if (pivots == NULL) return false;
  const bool regular =
      LAPACKE_dgesv(LAPACK_ROW_MAJOR, kwm_int(n), kwm_int(k), A, kwm_int(n), pivots, B, kwm_int(k)) == 0;
  free(pivots);
  return regular;
}

bool kwm_poles_f64(int64_t n, double *A, double *real, double *imaginary) {
  return LAPACKE_dgeev(LAPACK_ROW_MAJOR, 'N', 'N', kwm_int(n), A, kwm_int(n), real, imaginary, NULL, 1, NULL, 1) == 0;
}

bool kwm_eigensystem_f64(int64_t n, double *A, double *real, double *imaginary, double *V) {
  return LAPACKE_dgeev(LAPACK_ROW_MAJOR, 'N', 'V', kwm_int(n), A, kwm_int(n), real, imaginary, NULL, kwm_int(n), V,
                       kwm_int(n)) == 0;
}

void kwm_multiply_lower(int64_t m, int64_t n, const float *L, int64_t ldl, float *B, int64_t ldb) {
  cblas_strmm(CblasRowMajor, CblasRight, CblasLower, CblasNoTrans, CblasNonUnit, kwm_int(m), kwm_int(n), 1.0f, L,
              kwm_int(ldl), B, kwm_int(ldb));
}

#if defined(__x86_64__)
/* The kernels that this processor can run, NULL if the oldest are right. */
static const char *best_kernels(void) {
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
    return "SkylakeX";
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? "Haswell" : NULL;
}

void kwm_backend_kernels(char **argv) {
  static const char *const old[] = {"Prescott", "Core2", "Penryn", "Dunnington", "Nehalem", "Atom", "Generic"};
  const char *const taken = openblas_get_corename(), *const best = best_kernels();
  bool slow = false;
  for (size_t k = 0; k < sizeof old / sizeof old[0]; k++) slow = slow || strcmp(taken, old[k]) == 0;
  if (!slow || best == NULL || getenv("OPENBLAS_CORETYPE") != NULL) return;
  if (setenv("OPENBLAS_CORETYPE", best, 0) == 0) execv("/proc/self/exe", argv);
}
#else
void kwm_backend_kernels(char **argv) {
  (void)argv;
}
#endif

void kwm_backend_start(void) {
#if defined(__SSE__)
  enum { FLUSH_TO_ZERO = 0x8000, DENORMALS_ARE_ZERO = 0x0040 };
  _mm_setcsr(_mm_getcsr() | FLUSH_TO_ZERO | DENORMALS_ARE_ZERO);
#endif
}

int kwm_backend_threads(int threads) {
  const int before = openblas_get_num_threads();
  openblas_set_num_threads(threads);
  return before;
}

const char *kwm_backend_words(void) {
  return openblas_get_config();
}
