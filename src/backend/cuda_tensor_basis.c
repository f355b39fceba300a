/* The CUDA device's bases: cuSOLVER's eigenvectors, and improvements by products (kwm/tensor.h).

   Where the device's products may be in TF32, all of the improvement's that can be are. Full precision is wanted of
   R = UᵀAU, whose small eigenvalues would drown in what the large ones are rounded by, and of the last step, which
   makes U orthonormal; these are three products in TF32 of numbers split in two. The rotation W = I + Z is followed by
   its difference Z from I, so that TF32 rounds what is small where the motion is: with H = WᵀW - I = Z + Zᵀ + ZᵀZ
   Newton's step W (keep I - cut WᵀW) is Z <- (keep - cut - 1) I + (keep - cut) Z - cut (H + ZH). */
#include <math.h>

#include "cuda_state.h"
#include "cuda_tensor.h"

/* C <- op(A) B, all (n, n). */
static void square_product(kwm_device *d, int64_t n, bool transpose_a, const float *A, const float *B, float *C) {
  cuda_gemm(d, transpose_a, false, n, n, n, 1, A, n, B, n, 0, C, n);
}

/* In double where it is, what the improvement needs besides matrices. */
struct facts {
  double damping;
  struct tensor_newton newton;
};

/* Its columns, our rows, end in scratch; from there turned and, for they are orthonormal to single precision times the
   order only, put through one step of Newton's iteration. */
static bool eigenvectors(kwm_device *d, int64_t n, const float *A, float *U, float *scratch) {
  const struct cuda_state *const state = cuda_state_of(d);
  float *const W = scratch, *const G = scratch + n * n, *const turned = scratch + 2 * n * n;
  int length = 0;
  CUDA_MUST(solver, cusolverDnSsyevd_bufferSize(cuda_solver(d), CUSOLVER_EIG_MODE_VECTOR, CUBLAS_FILL_MODE_LOWER,
                                                kwm_int(n), W, kwm_int(n), NULL, &length));
  const size_t values = ((size_t)n + 63) / 64 * 64;
  struct facts *const facts = cuda_tensor_room(d, sizeof *facts + 256 + (values + (size_t)length) * sizeof(float));
  float *const room = (float *)(void *)((char *)facts + 256);
  cuda_clear_report(d);
  CUDA_LAUNCH(d, tensor_damping, n, A, &facts->damping);
  CUDA_LAUNCH(d, tensor_damp, n, A, &facts->damping, W, &state->report[CUDA_NOT_FINITE]);
  if (!cuda_good_report(d)) return false;
  const cusolverStatus_t status =
      cusolverDnSsyevd(cuda_solver(d), CUSOLVER_EIG_MODE_VECTOR, CUBLAS_FILL_MODE_LOWER, kwm_int(n), W, kwm_int(n),
                       room, room + values, length, &state->report[CUDA_INFO]);
  CUDA_LAUNCH(d, tensor_check, n, W, &state->report[CUDA_NOT_FINITE]);
  if (status != CUSOLVER_STATUS_SUCCESS || !cuda_good_report(d)) return false;
  const struct tensor_newton newton = tensor_newton_of(n, 0, 0);
  cuda_put(d, &facts->newton, &newton, sizeof newton);
  CUDA_LAUNCH(d, tensor_turn, n, W, turned);
  square_product(d, n, true, turned, turned, G);
  CUDA_LAUNCH(d, tensor_newton, n, 0, &facts->newton, G);
  square_product(d, n, false, turned, G, U);
  cuda_wait(d);
  return true;
}

static void improve(kwm_device *d, int64_t n, const float *A, float *U, float *scratch) {
  float *const G = scratch, *const R = scratch + n * n, *const X = scratch + 2 * n * n;
  float *const from[TENSOR_NEWTON] = {R, X, R, X}, *const to[TENSOR_NEWTON] = {X, R, X, U};
  struct facts *const facts = cuda_tensor_room(d, sizeof *facts);
  CUDA_LAUNCH(d, tensor_damping, n, A, &facts->damping);
  square_product(d, n, false, A, U, G);
  square_product(d, n, true, U, G, R);
  CUDA_LAUNCH(d, tensor_first_order, n, R, &facts->damping, X);
  square_product(d, n, true, X, X, G);
  CUDA_LAUNCH(d, tensor_bound, n, G, &facts->newton, &cuda_state_of(d)->scratch);
  CUDA_LAUNCH(d, tensor_shift, n, 1, true, &facts->newton, X);
  square_product(d, n, false, U, X, R);
  CUDA_LAUNCH(d, tensor_shift, n, 2, true, &facts->newton, G);
  for (int k = 0; k < TENSOR_NEWTON; k++) {
    if (k > 0) square_product(d, n, true, from[k], from[k], G);
    CUDA_LAUNCH(d, tensor_newton, n, k, &facts->newton, G);
    square_product(d, n, false, from[k], G, to[k]);
  }
}

/* M (n, n) split into what TF32 holds of it and the rest, one after the other. */
static void split(kwm_device *d, int64_t n, const float *M, float *parts) {
  CUDA_LAUNCH(d, tensor_split, n * n, M, parts, parts + n * n);
}

/* C <- op(A) B in TF32, almost as in full precision: of matrices split in two, all but the product of the rests. */
static void split_product(kwm_device *d, int64_t n, bool transpose_a, const float *A, const float *B, float *C) {
  const float *const rest_a = A + n * n, *const rest_b = B + n * n;
  cuda_gemm(d, transpose_a, false, n, n, n, 1, rest_a, n, B, n, 0, C, n);
  cuda_gemm(d, transpose_a, false, n, n, n, 1, A, n, rest_b, n, 1, C, n);
  cuda_gemm(d, transpose_a, false, n, n, n, 1, A, n, B, n, 1, C, n);
}

/* Z (n, n) <- the polar factor of I + scale Z, less I, but for the last step. G, R: room. */
static void follow_rotation(kwm_device *d, int64_t n, struct tensor_newton *newton, float *Z, float *G, float *R) {
  square_product(d, n, true, Z, Z, G);
  CUDA_LAUNCH(d, tensor_bound, n, G, newton, &cuda_state_of(d)->scratch);
  CUDA_LAUNCH(d, tensor_shift, n, 1, false, newton, Z);
  CUDA_LAUNCH(d, tensor_shift, n, 2, false, newton, G);
  for (int k = 0; k < TENSOR_NEWTON - 1; k++) {
    if (k > 0) {
      square_product(d, n, true, Z, Z, G);
      CUDA_LAUNCH(d, tensor_add_both, n, Z, G);
    }
    square_product(d, n, false, Z, G, R);
    CUDA_LAUNCH(d, tensor_follow, n, k, newton, G, R, Z);
  }
}

static void improve_tf32(kwm_device *d, int64_t n, const float *A, float *U, float *scratch) {
  const int64_t square = n * n;
  float *const G = scratch, *const R = scratch + square, *const Z = scratch + 2 * square;
  struct facts *const facts = cuda_tensor_room(d, 256 + (size_t)(4 * square) * sizeof(float));
  float *const left = (float *)(void *)((char *)facts + 256), *const right = left + 2 * square;
  CUDA_LAUNCH(d, tensor_damping, n, A, &facts->damping);
  split(d, n, A, left);
  split(d, n, U, right);
  split_product(d, n, false, left, right, G);
  split(d, n, G, left);
  split_product(d, n, true, right, left, R);
  CUDA_LAUNCH(d, tensor_first_order, n, R, &facts->damping, Z);
  follow_rotation(d, n, &facts->newton, Z, G, R);
  cuda_copy_rows(d, 1, (size_t)square * sizeof *R, R, 0, U, 0);
  cuda_gemm(d, false, false, n, n, n, 1, U, n, Z, n, 1, R, n);
  split(d, n, R, left);
  split_product(d, n, true, left, left, G);
  CUDA_LAUNCH(d, tensor_newton, n, TENSOR_NEWTON - 1, &facts->newton, G);
  split(d, n, G, right);
  split_product(d, n, false, left, right, U);
}

bool cuda_tensor_basis(kwm_device *d, int64_t n, bool anew, const float *A, float *U, float *scratch) {
  const cublasHandle_t blas = cuda_blas(d);
  cublasMath_t before;
  bool good = true;
  CUDA_MUST(blas, cublasGetMathMode(blas, &before));
  if (!anew && before == CUBLAS_TF32_TENSOR_OP_MATH) {
    improve_tf32(d, n, A, U, scratch);
    return true;
  }
  CUDA_MUST(blas, cublasSetMathMode(blas, CUBLAS_DEFAULT_MATH));
  if (anew)
    good = eigenvectors(d, n, A, U, scratch);
  else
    improve(d, n, A, U, scratch);
  CUDA_MUST(blas, cublasSetMathMode(blas, before));
  return good;
}
