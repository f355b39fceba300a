/* Dense algebra by cuBLAS and cuSOLVER. They read by columns: our row-major A is their Aᵀ, so products are asked for as
   (AB)ᵀ = BᵀAᵀ, and our upper triangle is their lower one. */
#include <math.h>

#include "cuda_small.h"
#include "cuda_state.h"

static cublasOperation_t operation(bool transpose) {
  return transpose ? CUBLAS_OP_T : CUBLAS_OP_N;
}

struct gemm_call {
  int64_t transpose_a, transpose_b, m, n, k, lda, ldb, ldc;
  double alpha, beta;
  const void *A, *B;
  void *C;
};

static void play_gemm(kwm_device *d, const void *call) {
  const struct gemm_call *const c = call;
  const struct cuda_small small = {c->transpose_a != 0, c->transpose_b != 0, c->m, c->n, c->k, c->lda, c->ldb, c->ldc};
  const float alpha = (float)c->alpha, beta = (float)c->beta;
  if (cuda_small_is(&small))
    CUDA_LAUNCH(d, small_product, &small, alpha, c->A, c->B, beta, c->C);
  else
    CUDA_MUST(blas, cublasSgemm_64(cuda_blas(d), operation(c->transpose_b), operation(c->transpose_a), c->n, c->m, c->k,
                                   &alpha, c->B, c->ldb, c->A, c->lda, &beta, c->C, c->ldc));
}

void cuda_gemm(kwm_device *d, bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, float alpha,
               const float *A, int64_t lda, const float *B, int64_t ldb, float beta, float *C, int64_t ldc) {
  CUDA_ASK(d, gemm, transpose_a, transpose_b, m, n, k, lda, ldb, ldc, (double)alpha, (double)beta, A, B, C);
}

static void play_gemm_f64(kwm_device *d, const void *call) {
  const struct gemm_call *const c = call;
  CUDA_MUST(blas, cublasDgemm_64(cuda_blas(d), operation(c->transpose_b), operation(c->transpose_a), c->n, c->m, c->k,
                                 &c->alpha, c->B, c->ldb, c->A, c->lda, &c->beta, c->C, c->ldc));
}

void cuda_gemm_f64(kwm_device *d, bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, double alpha,
                   const double *A, int64_t lda, const double *B, int64_t ldb, double beta, double *C, int64_t ldc) {
  const struct gemm_call call = {transpose_a, transpose_b, m, n, k, lda, ldb, ldc, alpha, beta, A, B, C};
  cuda_ask(d, play_gemm_f64, &call, sizeof call);
}

double *cuda_room(kwm_device *d, size_t doubles) {
  struct cuda_state *const state = cuda_state_of(d);
  const size_t bytes = doubles * sizeof(double);
  if (bytes > state->room_bytes) {
    if (state->room != NULL) cuda_free(d, state->room);
    state->room = cuda_alloc(d, bytes, false);
    state->room_bytes = state->room != NULL ? bytes : 0;
  }
  return state->room;
}

void cuda_clear_report(kwm_device *d) {
  cuda_zero(d, cuda_state_of(d)->report, CUDA_REPORT * sizeof(int));
}

bool cuda_good_report(kwm_device *d) {
  int report[CUDA_REPORT];
  cuda_get(d, report, cuda_state_of(d)->report, sizeof report);
  return report[CUDA_INFO] == 0 && report[CUDA_NOT_FINITE] == 0;
}

/* W (n, n), the triangle that cuSOLVER calls `part`, <- its factor; false: there is no memory for it. */
static bool factor(kwm_device *d, cublasFillMode_t part, int64_t n, double *W) {
  const struct cuda_state *const state = cuda_state_of(d);
  int length = 0;
  CUDA_MUST(solver, cusolverDnDpotrf_bufferSize(cuda_solver(d), part, kwm_int(n), W, kwm_int(n), &length));
  double *const work = cuda_room(d, (size_t)length + 1);
  if (work == NULL) return false;
  cuda_clear_report(d);
  CUDA_MUST(solver,
            cusolverDnDpotrf(cuda_solver(d), part, kwm_int(n), W, kwm_int(n), work, length, &state->report[CUDA_INFO]));
  CUDA_LAUNCH(d, check_factor, n, W, &state->report[CUDA_NOT_FINITE]);
  return true;
}

bool cuda_factor_f64(kwm_device *d, int64_t n, double *W) {
  return factor(d, CUBLAS_FILL_MODE_LOWER, n, W) && cuda_good_report(d);
}

/* The solves wait for no report: what they make of a factor that is none is not looked at. */
static bool factor_solve_large(kwm_device *d, int64_t n, double *S, double *x) {
  const cublasFillMode_t part = CUBLAS_FILL_MODE_UPPER; /* our lower one */
  const cublasOperation_t turns[] = {CUBLAS_OP_T, CUBLAS_OP_N};
  if (!factor(d, part, n, S)) return false;
  for (int k = 0; k < 2; k++)
    CUDA_MUST(blas, cublasDtrsv_64(cuda_blas(d), part, turns[k], CUBLAS_DIAG_NON_UNIT, n, S, n, x, 1));
  return cuda_good_report(d);
}

bool cuda_factor_solve_f64(kwm_device *d, int64_t n, double *S, double *x, double *x_host) {
  if (n > CUDA_SMALL_FACTOR && !factor_solve_large(d, n, S, x)) return false;
  if (n <= CUDA_SMALL_FACTOR) CUDA_LAUNCH(d, small_factor, n, S, x);
  cuda_get(d, x_host, x, (size_t)n * sizeof *x);
  return n > CUDA_SMALL_FACTOR || !isnan(x_host[0]);
}
