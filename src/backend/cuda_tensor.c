/* The CUDA device's transformer operations: its kernels, and between them cuBLAS and cuSOLVER (which read by columns,
   see cuda_dense.c). */
#include "cuda_tensor.h"

#include <math.h>

#include "cuda_state.h"

static void embed(kwm_device *d, int64_t n, int64_t width, int64_t context, const int32_t *ids, const float *E,
                  const float *pos, const struct kwm_dropout *drop, float *x) {
  CUDA_LAUNCH(d, tensor_embed, n, width, context, ids, E, pos, drop, x);
}

static void gather_rows(kwm_device *d, int64_t width, const struct kwm_gather *gather, const float *x, float *table) {
  CUDA_LAUNCH(d, tensor_gather, width, gather, x, table);
}

static void fold(kwm_device *d, int64_t n, int64_t width, int64_t context, const float *x, float *sums) {
  CUDA_LAUNCH(d, tensor_fold, n, width, context, x, sums);
}

static void norm(kwm_device *d, int64_t n, int64_t width, const float *x, const float *g, float *y, float *inv) {
  CUDA_LAUNCH(d, tensor_norm, n, width, x, g, y, inv);
}

static void norm_adjoint(kwm_device *d, int64_t n, int64_t width, const float *x, const float *g, const float *inv,
                         const float *sy, const float *more, float *sx, float *sg, float *scratch) {
  CUDA_LAUNCH(d, tensor_norm_adjoint, n, width, x, g, inv, sy, more, sx, sg, scratch);
}

static void gelu(kwm_device *d, int64_t n, const float *u, float *y) {
  CUDA_LAUNCH(d, tensor_gelu, n, u, y);
}

static void gelu_adjoint(kwm_device *d, int64_t n, const float *u, const float *sy, float *su) {
  CUDA_LAUNCH(d, tensor_gelu_adjoint, n, u, sy, su);
}

static void residual(kwm_device *d, int64_t n, int64_t width, const struct kwm_dropout *drop, const float *x,
                     const float *f, float *y) {
  CUDA_LAUNCH(d, tensor_residual, n, width, drop, x, f, y);
}

static void categorical(kwm_device *d, int64_t n, int64_t classes, int64_t ld, const int32_t *targets, bool innovate,
                        float *logits, float *facts) {
  CUDA_LAUNCH(d, tensor_categorical, n, classes, ld, targets, innovate, logits, facts);
}

static void riccati(kwm_device *d, int64_t n, const struct kwm_riccati_step *step, const float *y, float *f, float *m,
                    float *p, float *x) {
  CUDA_LAUNCH(d, tensor_riccati, n, step, y, f, m, p, x);
}

static void adam(kwm_device *d, int64_t n, const struct kwm_adam_step *step, const float *score, float *m, float *v,
                 float *mean) {
  CUDA_LAUNCH(d, tensor_adam, n, step, score, m, v, mean);
}

static void drift(kwm_device *d, int64_t n, float keep, float scale, const float *x, float *mean) {
  CUDA_LAUNCH(d, tensor_drift, n, keep, scale, x, mean);
}

static void norm2(kwm_device *d, int64_t n, const float *x, double *sums) {
  CUDA_LAUNCH(d, tensor_norm2, n, x, sums, &cuda_state_of(d)->scratch);
}

static void quadratic(kwm_device *d, int64_t n, const float *w, const float *x, double *sums) {
  CUDA_LAUNCH(d, tensor_quadratic, n, w, x, sums, &cuda_state_of(d)->scratch);
}

void *cuda_tensor_room(kwm_device *d, size_t bytes) {
  void *const room = cuda_room(d, bytes / sizeof(double) + 1);
  if (room == NULL) cuda_failed("room for one operation", "no memory", __FILE_NAME__, __LINE__);
  return room;
}

/* ---- attention: for each sequence and head a product of the columns of qkv ---- */

enum { Q, K, V, WEIGHTS, OUT, SQ, SK, SV, SCORES };
enum { ALIGNMENT = 256, VECTOR = 16 };

/* One of the arrays in a batch, as stored. */
struct operand {
  int array;
  bool transposed;
  int64_t ld;
};

static cublasMath_t math_of(kwm_device *d) {
  cublasMath_t mode;
  CUDA_MUST(blas, cublasGetMathMode(cuda_blas(d), &mode));
  return mode;
}

/* Given addresses in memory, cuBLAS takes it that tensor cores can have them in vectors; where they cannot, products
   are in float. Returns what the mode was. */
static cublasMath_t begin_products(kwm_device *d, const struct kwm_attention *a, const void *const arrays[4]) {
  const cublasMath_t before = math_of(d);
  bool vectors = a->size * (int64_t)sizeof(float) % VECTOR == 0 && a->context * (int64_t)sizeof(float) % VECTOR == 0;
  for (int k = 0; k < 4; k++) vectors = vectors && (uintptr_t)arrays[k] % VECTOR == 0;
  if (!vectors) CUDA_MUST(blas, cublasSetMathMode(cuda_blas(d), CUBLAS_DEFAULT_MATH));
  return before;
}

/* C (m, n) <- scale op(A) op(B), op(A) (m, k), for each of the batch. pointers (views, batch). */
static void products(kwm_device *d, int64_t batch, float *const *pointers, int64_t m, int64_t n, int64_t k, float scale,
                     struct operand A, struct operand B, struct operand C) {
  const float zero = 0;
  CUDA_MUST(blas, cublasSgemmBatched_64(cuda_blas(d), B.transposed ? CUBLAS_OP_T : CUBLAS_OP_N,
                                        A.transposed ? CUBLAS_OP_T : CUBLAS_OP_N, n, m, k, &scale,
                                        (const float *const *)(pointers + B.array * batch), B.ld,
                                        (const float *const *)(pointers + A.array * batch), A.ld, &zero,
                                        pointers + C.array * batch, C.ld, batch));
}

/* Addresses of what attention works on, into pointers (SCORES + 1, batch); NULL: not there. */
static void point(kwm_device *d, const struct kwm_attention *a, const float *qkv, float *weights, const float *out,
                  float *sqkv, float *scores, float **pointers) {
  const int64_t size = a->size, width = a->heads * size, square = a->context * a->context, row = a->context * width;
  struct cuda_view views[TENSOR_VIEWS] = {{NULL, 0, 0}};
  for (int k = 0; k < 3; k++) {
    views[Q + k] = (struct cuda_view){(float *)qkv + k * width, 3 * row, size};
    views[SQ + k] = (struct cuda_view){sqkv + (sqkv == NULL ? 0 : k * width), 3 * row, size};
  }
  views[OUT] = (struct cuda_view){(float *)out, row, size};
  views[WEIGHTS] = (struct cuda_view){weights, a->heads * square, square};
  views[SCORES] = (struct cuda_view){scores, a->heads * square, square};
  CUDA_LAUNCH(d, tensor_point, a->sequences, a->heads, sqkv == NULL ? OUT + 1 : TENSOR_VIEWS, views, pointers);
}

static void attention(kwm_device *d, const struct kwm_attention *a, const float *qkv, float *weights, float *out) {
  const int64_t batch = a->sequences * a->heads, context = a->context, size = a->size, width = a->heads * size;
  const void *const arrays[] = {qkv, weights, out, out};
  if (math_of(d) == CUBLAS_TF32_TENSOR_OP_MATH && cuda_tensor_heads_fit(a, arrays)) {
    CUDA_LAUNCH(d, tensor_heads, a, qkv, weights, out);
    return;
  }
  float **const pointers = cuda_tensor_room(d, (size_t)(TENSOR_VIEWS * batch) * sizeof *pointers);
  point(d, a, qkv, weights, out, NULL, NULL, pointers);
  const cublasMath_t before = begin_products(d, a, arrays);
  products(d, batch, pointers, context, context, size, 1, (struct operand){Q, false, 3 * width},
           (struct operand){K, true, 3 * width}, (struct operand){WEIGHTS, false, context});
  CUDA_LAUNCH(d, tensor_soften, batch * context, context, (float)(1 / sqrt((double)size)), weights);
  products(d, batch, pointers, context, size, context, 1, (struct operand){WEIGHTS, false, context},
           (struct operand){V, false, 3 * width}, (struct operand){OUT, false, width});
  CUDA_MUST(blas, cublasSetMathMode(cuda_blas(d), before));
}

static void attention_adjoint(kwm_device *d, const struct kwm_attention *a, const float *qkv, float *weights,
                              const float *sout, float *sqkv) {
  const int64_t batch = a->sequences * a->heads, context = a->context, size = a->size, width = a->heads * size;
  const size_t listed = (size_t)(TENSOR_VIEWS * batch) * sizeof(float *);
  const size_t addresses = (listed + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
  const float scale = (float)(1 / sqrt((double)size));
  const void *const arrays[] = {qkv, weights, sout, sqkv};
  if (math_of(d) == CUBLAS_TF32_TENSOR_OP_MATH && cuda_tensor_heads_fit(a, arrays)) {
    CUDA_LAUNCH(d, tensor_heads_adjoint, a, qkv, weights, sout, sqkv);
    return;
  }
  char *const room = cuda_tensor_room(d, addresses + (size_t)(batch * context * context) * sizeof(float));
  float **const pointers = (float **)(void *)room, *const scores = (float *)(void *)(room + addresses);
  const struct operand w = {WEIGHTS, false, context}, wt = {WEIGHTS, true, context}, s = {OUT, false, width};
  point(d, a, qkv, weights, sout, sqkv, scores, pointers);
  const cublasMath_t before = begin_products(d, a, arrays);
  products(d, batch, pointers, context, size, context, 1, wt, s, (struct operand){SV, false, 3 * width});
  products(d, batch, pointers, context, context, size, 1, s, (struct operand){V, true, 3 * width},
           (struct operand){SCORES, false, context});
  CUDA_LAUNCH(d, tensor_soften_adjoint, batch * context, context, scores, weights);
  products(d, batch, pointers, context, size, context, scale, w, (struct operand){K, false, 3 * width},
           (struct operand){SQ, false, 3 * width});
  products(d, batch, pointers, context, size, context, scale, wt, (struct operand){Q, false, 3 * width},
           (struct operand){SK, false, 3 * width});
  CUDA_MUST(blas, cublasSetMathMode(cuda_blas(d), before));
}

static void narrow(kwm_device *d, int64_t n, const float *x, uint16_t *to) {
  CUDA_LAUNCH(d, tensor_narrow, n, n, x, to);
}

static void likely(kwm_device *d, const struct kwm_likely *of) {
  CUDA_LAUNCH(d, inform_likely, of);
}

static void inform(kwm_device *d, const struct kwm_inform *of) {
  CUDA_LAUNCH(d, inform_take, of);
}

static void inform_low(kwm_device *d, const struct kwm_inform_low *of) {
  CUDA_LAUNCH(d, blocks_inform, of);
}

static void shrink_low(kwm_device *d, const struct kwm_inform_low *of) {
  CUDA_LAUNCH(d, blocks_shrink, of);
}

static void tally(kwm_device *d, const struct kwm_tally *of) {
  CUDA_LAUNCH(d, blocks_tally, of);
}

static void steer(kwm_device *d, const struct kwm_steer *of) {
  CUDA_LAUNCH(d, blocks_steer, of);
}

static void shift(kwm_device *d, int64_t n, int64_t width, const float *c, float *x) {
  CUDA_LAUNCH(d, blocks_shift, n, width, c, x);
}

static void lean(kwm_device *d, const struct kwm_lean *of) {
  CUDA_LAUNCH(d, inform_lean, of);
}

const struct kwm_tensor_ops cuda_tensor = {
    .embed = embed,
    .gather = gather_rows,
    .fold = fold,
    .norm = norm,
    .norm_adjoint = norm_adjoint,
    .attention = attention,
    .attention_adjoint = attention_adjoint,
    .gelu = gelu,
    .gelu_adjoint = gelu_adjoint,
    .residual = residual,
    .categorical = categorical,
    .riccati = riccati,
    .adam = adam,
    .drift = drift,
    .norm2 = norm2,
    .quadratic = quadratic,
    .basis = cuda_tensor_basis,
    .read = cuda_tensor_read,
    .narrow = narrow,
    .half_gemm = cuda_tensor_half_gemm,
    .likely = likely,
    .inform = inform,
    .inform_low = inform_low,
    .shrink_low = shrink_low,
    .tally = tally,
    .lean = lean,
    .steer = steer,
    .shift = shift,
};
