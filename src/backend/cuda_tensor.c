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

static void *room_of(kwm_device *d, size_t bytes) {
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
  CUDA_MUST(blas, cublasGetMathMode(cuda_state_of(d)->blas, &mode));
  return mode;
}

/* Given addresses in memory, cuBLAS takes it that tensor cores can have them in vectors; where they cannot, products
   are in float. Returns what the mode was. */
static cublasMath_t begin_products(kwm_device *d, const struct kwm_attention *a, const void *const arrays[4]) {
  const cublasMath_t before = math_of(d);
  bool vectors = a->size * (int64_t)sizeof(float) % VECTOR == 0 && a->context * (int64_t)sizeof(float) % VECTOR == 0;
  for (int k = 0; k < 4; k++) vectors = vectors && (uintptr_t)arrays[k] % VECTOR == 0;
  if (!vectors) CUDA_MUST(blas, cublasSetMathMode(cuda_state_of(d)->blas, CUBLAS_DEFAULT_MATH));
  return before;
}

/* C (m, n) <- scale op(A) op(B), op(A) (m, k), for each of the batch. pointers (views, batch). */
static void products(kwm_device *d, int64_t batch, float *const *pointers, int64_t m, int64_t n, int64_t k, float scale,
                     struct operand A, struct operand B, struct operand C) {
  const float zero = 0;
  CUDA_MUST(blas, cublasSgemmBatched_64(cuda_state_of(d)->blas, B.transposed ? CUBLAS_OP_T : CUBLAS_OP_N,
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
  float **const pointers = room_of(d, (size_t)(TENSOR_VIEWS * batch) * sizeof *pointers);
  point(d, a, qkv, weights, out, NULL, NULL, pointers);
  const cublasMath_t before = begin_products(d, a, arrays);
  products(d, batch, pointers, context, context, size, 1, (struct operand){Q, false, 3 * width},
           (struct operand){K, true, 3 * width}, (struct operand){WEIGHTS, false, context});
  CUDA_LAUNCH(d, tensor_soften, batch * context, context, (float)(1 / sqrt((double)size)), weights);
  products(d, batch, pointers, context, size, context, 1, (struct operand){WEIGHTS, false, context},
           (struct operand){V, false, 3 * width}, (struct operand){OUT, false, width});
  CUDA_MUST(blas, cublasSetMathMode(cuda_state_of(d)->blas, before));
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
  char *const room = room_of(d, addresses + (size_t)(batch * context * context) * sizeof(float));
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
  CUDA_MUST(blas, cublasSetMathMode(cuda_state_of(d)->blas, before));
}

/* ---- basis ---- */

/* C <- op(A) B, all (n, n). */
static void square_product(kwm_device *d, int64_t n, bool transpose_a, const float *A, const float *B, float *C) {
  cuda_gemm(d, transpose_a, false, n, n, n, 1, A, n, B, n, 0, C, n);
}

static void clear_report(kwm_device *d) {
  cuda_zero(d, cuda_state_of(d)->report, CUDA_REPORT * sizeof(int));
}

static bool good_report(kwm_device *d) {
  int report[CUDA_REPORT];
  cuda_get(d, report, cuda_state_of(d)->report, sizeof report);
  return report[CUDA_INFO] == 0 && report[CUDA_NOT_FINITE] == 0;
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
  CUDA_MUST(solver, cusolverDnSsyevd_bufferSize(state->solver, CUSOLVER_EIG_MODE_VECTOR, CUBLAS_FILL_MODE_LOWER,
                                                kwm_int(n), W, kwm_int(n), NULL, &length));
  const size_t values = ((size_t)n + 63) / 64 * 64;
  struct facts *const facts = room_of(d, sizeof *facts + 256 + (values + (size_t)length) * sizeof(float));
  float *const room = (float *)(void *)((char *)facts + 256);
  clear_report(d);
  CUDA_LAUNCH(d, tensor_damping, n, A, &facts->damping);
  CUDA_LAUNCH(d, tensor_damp, n, A, &facts->damping, W, &state->report[CUDA_NOT_FINITE]);
  if (!good_report(d)) return false;
  const cusolverStatus_t status =
      cusolverDnSsyevd(state->solver, CUSOLVER_EIG_MODE_VECTOR, CUBLAS_FILL_MODE_LOWER, kwm_int(n), W, kwm_int(n), room,
                       room + values, length, &state->report[CUDA_INFO]);
  CUDA_LAUNCH(d, tensor_check, n, W, &state->report[CUDA_NOT_FINITE]);
  if (status != CUSOLVER_STATUS_SUCCESS || !good_report(d)) return false;
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
  struct facts *const facts = room_of(d, sizeof *facts);
  CUDA_LAUNCH(d, tensor_damping, n, A, &facts->damping);
  square_product(d, n, false, A, U, G);
  square_product(d, n, true, U, G, R);
  CUDA_LAUNCH(d, tensor_first_order, n, R, &facts->damping, X);
  square_product(d, n, true, X, X, G);
  CUDA_LAUNCH(d, tensor_bound, n, G, &facts->newton, &cuda_state_of(d)->scratch);
  CUDA_LAUNCH(d, tensor_shift, n, 1, &facts->newton, X);
  square_product(d, n, false, U, X, R);
  CUDA_LAUNCH(d, tensor_shift, n, 2, &facts->newton, G);
  for (int k = 0; k < TENSOR_NEWTON; k++) {
    if (k > 0) square_product(d, n, true, from[k], from[k], G);
    CUDA_LAUNCH(d, tensor_newton, n, k, &facts->newton, G);
    square_product(d, n, false, from[k], G, to[k]);
  }
}

/* In full single precision, whatever the device's other products are in. */
static bool basis(kwm_device *d, int64_t n, bool anew, const float *A, float *U, float *scratch) {
  const cublasHandle_t blas = cuda_state_of(d)->blas;
  const cublasMath_t before = math_of(d);
  bool good = true;
  CUDA_MUST(blas, cublasSetMathMode(blas, CUBLAS_DEFAULT_MATH));
  if (anew)
    good = eigenvectors(d, n, A, U, scratch);
  else
    improve(d, n, A, U, scratch);
  CUDA_MUST(blas, cublasSetMathMode(blas, before));
  return good;
}

static void likely(kwm_device *d, const struct kwm_likely *of) {
  CUDA_LAUNCH(d, inform_likely, of);
}

static void inform(kwm_device *d, const struct kwm_inform *of) {
  CUDA_LAUNCH(d, inform_take, of);
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
    .basis = basis,
    .read = cuda_tensor_read,
    .likely = likely,
    .inform = inform,
    .lean = lean,
};
