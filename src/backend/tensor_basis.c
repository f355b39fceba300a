/* The host's basis: eigenvectors anew in double, or one improvement of those there are.

   The improvement is the eigenvectors' first-order motion X, made a rotation by Newton's iteration (tensor_host.h). */
#include "tensor_host.h"

#include <math.h>

#include "kwm/backend.h"

static double mean_diagonal(int64_t n, const float *A) {
  double sum = 0;
  for (int64_t k = 0; k < n; k++) sum += (double)A[k * n + k];
  return sum / (double)n;
}

static bool all_finite(int64_t n, const double *values) {
  bool finite = true;
  for (int64_t k = 0; k < n; k++) finite = finite && isfinite(values[k]);
  return finite;
}

static bool eigenvectors(int64_t n, const float *A, float *U) {
  double *W = NULL;
  if (kwm_alloc((void **)&W, (size_t)(n * n + n) * sizeof *W, "eigenvectors") != KWM_OK) return false;
  const double damping = TENSOR_DAMPING * mean_diagonal(n, A);
  for (int64_t k = 0; k < n * n; k++) W[k] = (double)A[k] + (k % (n + 1) == 0 ? damping : 0);
  const bool good = all_finite(n * n, W) && kwm_eigen_f64(n, W, W + n * n) && all_finite(n * n, W);
  for (int64_t k = 0; k < n * n && good; k++) U[k] = (float)W[k];
  kwm_free(W);
  return good;
}

/* R (n, n) <- X, from its diagonal and the triangle above. */
static void first_order(int64_t n, double damping, float *R) {
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = i + 1; j < n; j++) {
      const float angle =
          tensor_angle((double)R[i * n + i] + damping, (double)R[j * n + j] + damping, (double)R[i * n + j]);
      R[i * n + j] = angle;
      R[j * n + i] = -angle;
    }
  for (int64_t k = 0; k < n; k++) R[k * n + k] = 0;
}

/* M (n, n) <- diagonal I + scale M */
static void shift(int64_t n, double diagonal, double scale, float *M) {
  for (int64_t k = 0; k < n * n; k++) M[k] = (float)(scale * (double)M[k] + (k % (n + 1) == 0 ? diagonal : 0));
}

/* C <- op(A) B, all (n, n) */
static void product(int64_t n, bool transpose_a, const float *A, const float *B, float *C) {
  kwm_gemm(transpose_a, false, n, n, n, 1, A, n, B, n, 0, C, n);
}

static void improve(int64_t n, const float *A, float *U, float *scratch) {
  float *const G = scratch, *const X = scratch + n * n, *const Y = scratch + 2 * n * n;
  float *const from[TENSOR_NEWTON] = {Y, X, Y, X}, *const to[TENSOR_NEWTON] = {X, Y, X, U};
  product(n, false, A, U, G);
  product(n, true, U, G, X);
  first_order(n, TENSOR_DAMPING * mean_diagonal(n, A), X);
  product(n, true, X, X, G);
  double squares = 0;
  for (int64_t k = 0; k < n * n; k++) squares += (double)G[k] * (double)G[k];
  const struct tensor_newton newton = tensor_newton_of(n, mean_diagonal(n, G) * (double)n, squares);
  shift(n, 1, newton.scale, X);
  product(n, false, U, X, Y);
  shift(n, 1, newton.scale * newton.scale, G); /* I + XᵀX is YᵀY */
  for (int k = 0; k < TENSOR_NEWTON; k++) {
    if (k > 0) product(n, true, from[k], from[k], G);
    shift(n, newton.keep[k], -newton.cut[k], G);
    product(n, false, from[k], G, to[k]);
  }
}

bool tensor_basis(kwm_device *d, int64_t n, bool anew, const float *A, float *U, float *scratch) {
  (void)d;
  if (anew) return eigenvectors(n, A, U);
  improve(n, A, U, scratch);
  return true;
}
