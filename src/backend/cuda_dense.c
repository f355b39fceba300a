/* Dense algebra by cuBLAS and cuSOLVER. They read by columns: our row-major A is their Aᵀ, so products are asked for as
   (AB)ᵀ = BᵀAᵀ, our upper triangle is their lower one, and eigenvectors come out as our rows.

   eigen costs one dsyevd of a dense (n, n) in double on the GPU (some ten n³ operations, most of them limited by
   memory and latency rather than by arithmetic), two passes over the matrix for the change of precision, and about
   four n² doubles of scratch, kept from the first call on. */
#include "cuda_state.h"

static cublasOperation_t operation(bool transpose) {
  return transpose ? CUBLAS_OP_T : CUBLAS_OP_N;
}

void cuda_gemm(kwm_device *d, bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, float alpha,
               const float *A, int64_t lda, const float *B, int64_t ldb, float beta, float *C, int64_t ldc) {
  CUDA_MUST(blas, cublasSgemm_64(cuda_state_of(d)->blas, operation(transpose_b), operation(transpose_a), n, m, k,
                                 &alpha, B, ldb, A, lda, &beta, C, ldc));
}

void cuda_gemm_f64(kwm_device *d, bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, double alpha,
                   const double *A, int64_t lda, const double *B, int64_t ldb, double beta, double *C, int64_t ldc) {
  CUDA_MUST(blas, cublasDgemm_64(cuda_state_of(d)->blas, operation(transpose_b), operation(transpose_a), n, m, k,
                                 &alpha, B, ldb, A, lda, &beta, C, ldc));
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

static void clear_report(kwm_device *d) {
  cuda_zero(d, cuda_state_of(d)->report, CUDA_REPORT * sizeof(int));
}

/* Waits for what was asked for since the report was cleared. */
static bool good_report(kwm_device *d) {
  int report[CUDA_REPORT];
  cuda_get(d, report, cuda_state_of(d)->report, sizeof report);
  return report[CUDA_INFO] == 0 && report[CUDA_NOT_FINITE] == 0;
}

/* W (n, n), upper triangle <- its eigenvectors by rows; values (n); work (length). A status other than success ends it
   like no convergence. */
static bool decompose(kwm_device *d, int64_t n, double *W, double *values, double *work, int length) {
  const struct cuda_state *const state = cuda_state_of(d);
  const cusolverStatus_t status =
      cusolverDnDsyevd(state->solver, CUSOLVER_EIG_MODE_VECTOR, CUBLAS_FILL_MODE_LOWER, kwm_int(n), W, kwm_int(n),
                       values, work, length, &state->report[CUDA_INFO]);
  return status == CUSOLVER_STATUS_SUCCESS && good_report(d);
}

/* What is not finite is found before the decomposition too, which might not come to an end with it. */
bool cuda_eigen(kwm_device *d, int64_t n, const float *A, float *V) {
  const struct cuda_state *const state = cuda_state_of(d);
  int length = 0;
  CUDA_MUST(solver, cusolverDnDsyevd_bufferSize(state->solver, CUSOLVER_EIG_MODE_VECTOR, CUBLAS_FILL_MODE_LOWER,
                                                kwm_int(n), NULL, kwm_int(n), NULL, &length));
  const size_t size = (size_t)(n * n), kept = (size + (size_t)n + 31) / 32 * 32;
  double *const W = cuda_room(d, kept + (size_t)length);
  if (W == NULL) return false;
  clear_report(d);
  CUDA_LAUNCH(d, widen, n, A, W, &state->report[CUDA_NOT_FINITE]);
  if (!good_report(d) || !decompose(d, n, W, W + size, W + kept, length)) return false;
  CUDA_LAUNCH(d, narrow, n, W, V, &state->report[CUDA_NOT_FINITE]);
  return good_report(d);
}

/* W (n, n), the triangle that cuSOLVER calls `part`, <- its factor; false: there is no memory for it. */
static bool factor(kwm_device *d, cublasFillMode_t part, int64_t n, double *W) {
  const struct cuda_state *const state = cuda_state_of(d);
  int length = 0;
  CUDA_MUST(solver, cusolverDnDpotrf_bufferSize(state->solver, part, kwm_int(n), W, kwm_int(n), &length));
  double *const work = cuda_room(d, (size_t)length + 1);
  if (work == NULL) return false;
  clear_report(d);
  CUDA_MUST(solver,
            cusolverDnDpotrf(state->solver, part, kwm_int(n), W, kwm_int(n), work, length, &state->report[CUDA_INFO]));
  CUDA_LAUNCH(d, check_factor, n, W, &state->report[CUDA_NOT_FINITE]);
  return true;
}

bool cuda_factor_f64(kwm_device *d, int64_t n, double *W) {
  return factor(d, CUBLAS_FILL_MODE_LOWER, n, W) && good_report(d);
}

/* The solves wait for no report: what they make of a factor that is none is not looked at. */
bool cuda_factor_solve_f64(kwm_device *d, int64_t n, double *S, double *x) {
  const cublasFillMode_t part = CUBLAS_FILL_MODE_UPPER; /* our lower one */
  const cublasOperation_t turns[] = {CUBLAS_OP_T, CUBLAS_OP_N};
  if (!factor(d, part, n, S)) return false;
  for (int k = 0; k < 2; k++)
    CUDA_MUST(blas, cublasDtrsv_64(cuda_state_of(d)->blas, part, turns[k], CUBLAS_DIAG_NON_UNIT, n, S, n, x, 1));
  return good_report(d);
}
