/* Private to the CUDA backend: launchers of cuda_small.cu, which says what they do. */
#pragma once

#include "cuda_kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

/* C <- alpha op(A) op(B) + beta C of (m, k) and (k, n), where cuda_small_is says that it is small. */
struct cuda_small {
  bool transpose_a, transpose_b;
  int64_t m, n, k, lda, ldb, ldc;
};
bool cuda_small_is(const struct cuda_small *small);
void cuda_small_product(const struct cuda_small *small, float alpha, const float *A, const float *B, float beta,
                        float *C, cudaStream_t stream);

/* S (n, n), lower triangle, <- its factor L; x (n) <- S⁻¹x, NaN where S is not positive definite; n <=
   CUDA_SMALL_FACTOR. */
enum { CUDA_SMALL_FACTOR = 128 };
void cuda_small_factor(int64_t n, double *S, double *x, cudaStream_t stream);

#ifdef __cplusplus
}
#endif
