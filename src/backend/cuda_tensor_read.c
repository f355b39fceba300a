/* The read-out: logits, innovations and their products, in rows that tensor cores can take. */
#include "cuda_tensor.h"

#include "cuda_state.h"

enum { VECTOR = 8 }; /* numbers of 16 bits in one access */

/* C (m, n) <- op(A) op(B) + beta C of 16-bit A and B, in float. */
static void half_gemm(kwm_device *d, bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k,
                      const uint16_t *A, int64_t lda, const uint16_t *B, int64_t ldb, float beta, float *C,
                      int64_t ldc) {
  const float one = 1;
  CUDA_MUST(blas,
            cublasGemmEx_64(cuda_blas(d), transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N,
                            transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N, n, m, k, &one, B, CUDA_R_16BF, ldb, A, CUDA_R_16BF,
                            lda, &beta, C, CUDA_R_32F, ldc, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT));
}

void cuda_tensor_half_gemm(kwm_device *d, int64_t m, int64_t n, int64_t k, const uint16_t *A, const uint16_t *B,
                           float *C) {
  half_gemm(d, false, false, m, n, k, A, k, B, n, 0, C, n);
}

static float *aligned(float *room) {
  const uintptr_t whole = TENSOR_READ_COLUMNS * sizeof(float);
  return room + (whole - (uintptr_t)room % whole) % whole / sizeof(float);
}

/* sE += eᵀ y, its last rows apart: what is read along the classes is to be a whole number of vectors. */
static void add_half(kwm_device *d, const struct kwm_read *r, int64_t ld, const uint16_t *e, const uint16_t *y) {
  const int64_t most = r->classes / VECTOR * VECTOR, rest = r->classes - most, width = r->width;
  if (most > 0) half_gemm(d, true, false, most, width, r->n, e, ld, y, width, 1, r->sE, width);
  if (rest > 0) half_gemm(d, true, false, rest, width, r->n, e + most, ld, y, width, 1, r->sE + most * width, width);
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
  if (r->sE != NULL) add_half(d, r, ld, e, y);
}

static void add_whole(kwm_device *d, const struct kwm_read *r, int64_t ld, const float *e) {
  const int64_t most = r->classes / VECTOR * VECTOR, rest = r->classes - most, width = r->width;
  if (most > 0) cuda_gemm(d, true, false, most, width, r->n, 1, e, ld, r->y, width, 1, r->sE, width);
  if (rest > 0)
    cuda_gemm(d, true, false, rest, width, r->n, 1, e + most, ld, r->y, width, 1, r->sE + most * width, width);
}

/* E, followed by rows of zeros: logits of classes that are not there are zero, and stay so. */
static const float *pad(kwm_device *d, const struct kwm_read *r, int64_t ld, float *room) {
  const int64_t width = r->width, classes = r->classes;
  if (r->padded) return r->E;
  cuda_copy_rows(d, 1, (size_t)(classes * width) * sizeof *room, room, 0, r->E, 0);
  if (ld > classes) cuda_zero(d, room + classes * width, (size_t)((ld - classes) * width) * sizeof *room);
  return room;
}

static void read_whole(kwm_device *d, const struct kwm_read *r, float *logits) {
  const int64_t n = r->n, width = r->width, classes = r->classes, ld = tensor_read_ld(classes);
  const float *const E = pad(d, r, ld, logits + n * ld);
  cuda_gemm(d, false, true, n, ld, width, 1, r->y, width, E, width, 0, logits, ld);
  CUDA_LAUNCH(d, tensor_categorical, n, classes, ld, r->targets, r->sy != NULL, logits, r->facts);
  if (r->sy == NULL) return;
  cuda_gemm(d, false, false, n, width, ld, 1, logits, ld, E, width, 0, r->sy, width);
  if (r->sE != NULL) add_whole(d, r, ld, logits);
}

void cuda_tensor_read(kwm_device *d, const struct kwm_read *r) {
  if (r->half)
    read_half(d, r, aligned(r->room));
  else
    read_whole(d, r, aligned(r->room));
}
