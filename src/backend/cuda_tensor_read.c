/* The read-out: logits, innovations and their products, in rows that tensor cores can take. */
#include "cuda_tensor.h"

#include "cuda_state.h"

/* C (m, n) <- op(A) op(B) + beta C of 16-bit A and B, in float. */
static void half_gemm(kwm_device *d, bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k,
                      const uint16_t *A, int64_t lda, const uint16_t *B, int64_t ldb, float beta, float *C,
                      int64_t ldc) {
  const float one = 1;
  CUDA_MUST(blas,
            cublasGemmEx_64(cuda_state_of(d)->blas, transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N,
                            transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N, n, m, k, &one, B, CUDA_R_16BF, ldb, A, CUDA_R_16BF,
                            lda, &beta, C, CUDA_R_32F, ldc, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT));
}

static float *aligned(float *room) {
  const uintptr_t whole = TENSOR_READ_COLUMNS * sizeof(float);
  return room + (whole - (uintptr_t)room % whole) % whole / sizeof(float);
}

static void read_half(kwm_device *d, const struct kwm_read *r, float *logits) {
  const int64_t n = r->n, width = r->width, ld = tensor_read_ld(r->classes);
  uint16_t *const e = (uint16_t *)(void *)(logits + n * ld), *const E = e + n * ld, *const y = E + ld * width;
  CUDA_LAUNCH(d, tensor_narrow, r->classes * width, ld * width, r->E, E);
  CUDA_LAUNCH(d, tensor_narrow, n * width, n * width, r->y, y);
  half_gemm(d, false, true, n, ld, width, y, width, E, width, 0, logits, ld);
  if (r->sy == NULL) {
    CUDA_LAUNCH(d, tensor_categorical, n, r->classes, ld, r->targets, false, logits, r->facts);
    return;
  }
  CUDA_LAUNCH(d, tensor_categorical_half, n, r->classes, ld, r->targets, logits, e, r->facts);
  half_gemm(d, false, false, n, width, ld, e, ld, E, width, 0, r->sy, width);
  if (r->sE != NULL) half_gemm(d, true, false, r->classes, width, n, e, ld, y, width, 1, r->sE, width);
}

void cuda_tensor_read(kwm_device *d, const struct kwm_read *r) {
  const int64_t n = r->n, classes = r->classes, width = r->width, ld = tensor_read_ld(classes);
  float *const logits = aligned(r->room);
  if (r->half) {
    read_half(d, r, logits);
    return;
  }
  cuda_gemm(d, false, true, n, classes, width, 1, r->y, width, r->E, width, 0, logits, ld);
  CUDA_LAUNCH(d, tensor_categorical, n, classes, ld, r->targets, r->sy != NULL, logits, r->facts);
  if (r->sy == NULL) return;
  cuda_gemm(d, false, false, n, width, classes, 1, logits, ld, r->E, width, 0, r->sy, width);
  if (r->sE != NULL) cuda_gemm(d, true, false, classes, width, n, 1, logits, ld, r->y, width, 1, r->sE, width);
}
