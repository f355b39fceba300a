/* Causal attention of heads of 64 in one kernel each way, on tensor cores in TF32: a block to a head of a sequence of
   up to 128 tokens. Scores and their adjoints never leave registers, but for the weights that the way back needs.

   A warp takes 16 rows. Fragments are those of mma.m16n8k8 (g = lane / 4, t = lane % 4): A holds (g, t), (g + 8, t),
   (g, t + 4), (g + 8, t + 4), B (t, g), (t + 4, g), C (g, 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1). Where a C
   becomes an A, or A and B both come from memory by rows, the inner index is taken in the order 2t, 2t + 1 instead of
   t, t + 4: any order will do if both sides have it. Rows in shared memory are PITCH apart, and so without conflicts.
 */
#include "cuda_map.cuh"
#include "cuda_tensor.h"

static constexpr int SIZE = 64, ROWS = 16, CONTEXT_MAX = 128, STEP = 8;
static constexpr int PAD = 4, PITCH = SIZE + PAD, TILES = CONTEXT_MAX / STEP, STEPS = SIZE / STEP;

bool cuda_tensor_heads_fit(const struct kwm_attention *a, const void *const arrays[4]) {
  bool aligned = true;
  for (int k = 0; k < 4; k++) aligned = aligned && cuda_aligned(arrays[k]);
  return aligned && a->size == SIZE && a->context % ROWS == 0 && a->context <= CONTEXT_MAX;
}

static __device__ float rounded(float x) {
  uint32_t bits;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
  return __uint_as_float(bits);
}

/* c += A B of one step. */
static __device__ void multiply(float c[4], const float a[4], float b0, float b1) {
  asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(__float_as_uint(a[0])), "r"(__float_as_uint(a[1])), "r"(__float_as_uint(a[2])), "r"(__float_as_uint(a[3])),
        "r"(__float_as_uint(b0)), "r"(__float_as_uint(b1)));
}

/* The sum and the largest over the four lanes that share a row. */
static __device__ float row_sum(float x) {
  x += __shfl_xor_sync(0xffffffffu, x, 1);
  return x + __shfl_xor_sync(0xffffffffu, x, 2);
}

static __device__ float row_max(float x) {
  x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 1));
  return fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 2));
}

/* Which head this block works on. */
struct place {
  int64_t token, column, weights;
};

static __device__ struct place place_of(const struct kwm_attention &a) {
  const int64_t which = blockIdx.x;
  return {which / a.heads * a.context, which % a.heads * SIZE, which * a.context * a.context};
}

/* 16 bytes into shared memory, there after the wait for all but the last `pending` groups. */
static __device__ void copy_async(float *to, const float *from) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"((uint32_t)__cvta_generic_to_shared(to)), "l"(from));
}

static __device__ void close_group(void) {
  asm volatile("cp.async.commit_group;");
}

template <int PENDING> static __device__ void wait_groups(void) {
  asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

/* to (context, SIZE; PITCH) <- from (ld) */
static __device__ void load_rows(int context, const float *from, int64_t ld, float *to) {
  for (int at = (int)threadIdx.x; at < context * (SIZE / 4); at += (int)blockDim.x) {
    const int row = at / (SIZE / 4), column = at % (SIZE / 4) * 4;
    copy_async(to + row * PITCH + column, from + row * ld + column);
  }
}

/* to (16, SIZE) of rows `ld` apart <- scale c. */
static __device__ void store_rows(const float c[STEPS][4], float scale, float *to, int64_t ld) {
  const int g = (int)threadIdx.x % CUDA_WARP / 4, t = (int)threadIdx.x % 4;
#pragma unroll
  for (int n = 0; n < STEPS; n++) {
    *(float2 *)(to + g * ld + n * STEP + 2 * t) = make_float2(scale * c[n][0], scale * c[n][1]);
    *(float2 *)(to + (g + 8) * ld + n * STEP + 2 * t) = make_float2(scale * c[n][2], scale * c[n][3]);
  }
}

/* c (16, tiles of 8) <- A (16, SIZE) Bᵀ of rows in shared memory; A's fragments of all steps. Tiles are even in number,
   two at a time: products of one tile wait for each other. */
static __device__ void rows_by_rows(int tiles, const float A[STEPS][4], const float *B, float c[TILES][4]) {
  const int g = (int)threadIdx.x % CUDA_WARP / 4, t = (int)threadIdx.x % 4;
#pragma unroll
  for (int n = 0; n < TILES; n += 2) {
    if (n >= tiles) continue;
    const float *const low = B + (n * STEP + g) * PITCH + t, *const high = low + STEP * PITCH;
#pragma unroll
    for (int k = 0; k < 4; k++) c[n][k] = c[n + 1][k] = 0;
#pragma unroll
    for (int k = 0; k < STEPS; k++) {
      multiply(c[n], A[k], rounded(low[k * STEP]), rounded(low[k * STEP + 4]));
      multiply(c[n + 1], A[k], rounded(high[k * STEP]), rounded(high[k * STEP + 4]));
    }
  }
}

/* c (16, SIZE) <- a (16, tiles of 8) B of rows in shared memory. */
static __device__ void tiles_by_rows(int tiles, const float a[TILES][4], const float *B, float c[STEPS][4]) {
  const int g = (int)threadIdx.x % CUDA_WARP / 4, t = (int)threadIdx.x % 4;
#pragma unroll
  for (int n = 0; n < STEPS; n++) c[n][0] = c[n][1] = c[n][2] = c[n][3] = 0;
#pragma unroll
  for (int k = 0; k < TILES; k++) {
    if (k >= tiles) continue;
    const float A[4] = {rounded(a[k][0]), rounded(a[k][2]), rounded(a[k][1]), rounded(a[k][3])};
    const float *const row = B + (k * STEP + 2 * t) * PITCH + g;
#pragma unroll
    for (int n = 0; n < STEPS; n++) multiply(c[n], A, rounded(row[n * STEP]), rounded(row[PITCH + n * STEP]));
  }
}

/* Fragments of 16 rows in memory, `ld` apart, from this lane's place. */
static __device__ void load_fragments(const float *rows, int64_t ld, float A[STEPS][4]) {
  const int g = (int)threadIdx.x % CUDA_WARP / 4, t = (int)threadIdx.x % 4;
#pragma unroll
  for (int k = 0; k < STEPS; k++) {
    const float *const at = rows + g * ld + k * STEP + t;
    A[k][0] = rounded(at[0]);
    A[k][1] = rounded(at[8 * ld]);
    A[k][2] = rounded(at[4]);
    A[k][3] = rounded(at[8 * ld + 4]);
  }
}

/* Scores of rows first + g and first + g + 8 -> their softmax. */
static __device__ void soften_rows(int first, int tiles, float scale, float s[TILES][4]) {
  const int g = (int)threadIdx.x % CUDA_WARP / 4, t = (int)threadIdx.x % 4;
  float top[2] = {-INFINITY, -INFINITY}, sum[2] = {};
#pragma unroll
  for (int n = 0; n < TILES; n++) {
    if (n >= tiles) continue;
#pragma unroll
    for (int c = 0; c < 4; c++) {
      if (n * STEP + 2 * t + c % 2 > first + g + c / 2 * 8) s[n][c] = -INFINITY;
      top[c / 2] = fmaxf(top[c / 2], s[n][c]);
    }
  }
  top[0] = row_max(top[0]), top[1] = row_max(top[1]);
#pragma unroll
  for (int n = 0; n < TILES; n++) {
    if (n >= tiles) continue;
#pragma unroll
    for (int c = 0; c < 4; c++) {
      s[n][c] = __expf(scale * (s[n][c] - top[c / 2]));
      sum[c / 2] += s[n][c];
    }
  }
  const float over[2] = {1 / row_sum(sum[0]), 1 / row_sum(sum[1])};
#pragma unroll
  for (int n = 0; n < TILES; n++)
#pragma unroll
    for (int c = 0; c < 4; c++) s[n][c] = n < tiles ? s[n][c] * over[c / 2] : 0.0f;
}

static __global__ void __launch_bounds__(2 * CONTEXT_MAX, 2)
    heads(const struct kwm_attention a, float scale, const float *qkv, float *weights, float *out) {
  extern __shared__ float4 shared[];
  const int context = (int)a.context, warp = (int)threadIdx.x / CUDA_WARP, first = warp * ROWS;
  const int g = (int)threadIdx.x % CUDA_WARP / 4, t = (int)threadIdx.x % 4, tiles = 2 * (warp + 1);
  const struct place place = place_of(a);
  const int64_t width = a.heads * SIZE, ld = 3 * width;
  const float *const q = qkv + place.token * ld + place.column;
  float *const K = (float *)shared, *const V = K + context * PITCH;
  float A[STEPS][4], s[TILES][4], o[STEPS][4];
  load_rows(context, q + width, ld, K);
  close_group();
  load_rows(context, q + 2 * width, ld, V);
  close_group();
  load_fragments(q + first * ld, ld, A);
  wait_groups<1>();
  __syncthreads();
  rows_by_rows(tiles, A, K, s);
  soften_rows(first, tiles, scale, s);
  float *const to = weights + place.weights + (first + g) * context + 2 * t;
#pragma unroll
  for (int n = 0; n < TILES; n++) {
    if (n >= context / STEP) continue;
    *(float2 *)(to + n * STEP) = make_float2(s[n][0], s[n][1]);
    *(float2 *)(to + 8 * context + n * STEP) = make_float2(s[n][2], s[n][3]);
  }
  wait_groups<0>();
  __syncthreads();
  tiles_by_rows(tiles, s, V, o);
  store_rows(o, 1, out + (place.token + first) * width + place.column, width);
}

void cuda_tensor_heads(const struct kwm_attention *a, const float *qkv, float *weights, float *out,
                       cudaStream_t stream) {
  const size_t shared = 2 * (size_t)a->context * PITCH * sizeof(float);
  const unsigned threads = (unsigned)(a->context / ROWS * CUDA_WARP);
  if (cudaFuncSetAttribute(heads, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared) != cudaSuccess) return;
  heads<<<(unsigned)(a->sequences * a->heads), threads, shared, stream>>>(*a, 0.125f, qkv, weights, out);
}

/* The lower tiles of the weights (context, context) into W (pitch). */
static __device__ void load_weights(int context, const float *from, int pitch, float *W) {
  const int quads = context / 4;
  for (int at = (int)threadIdx.x; at < context * quads; at += (int)blockDim.x) {
    const int row = at / quads, column = at % quads * 4;
    if (column >= (row / ROWS + 1) * ROWS) continue;
    copy_async(W + row * pitch + column, from + row * context + column);
  }
}

/* to (16, SIZE), of rows ld apart <- scale times columns first .. first + 15 of the lower tiles of W, turned, by B. */
static __device__ void columns_by_rows(int context, int first, const float *W, int pitch, const float *B, float scale,
                                       float *to, int64_t ld) {
  const int g = (int)threadIdx.x % CUDA_WARP / 4, t = (int)threadIdx.x % 4;
  float c[STEPS][4] = {};
#pragma unroll 2
  for (int i = first; i < context; i += STEP) {
    const float *const w = W + (i + 2 * t) * pitch + first + g, *const row = B + (i + 2 * t) * PITCH + g;
    const float A[4] = {rounded(w[0]), rounded(w[8]), rounded(w[pitch]), rounded(w[pitch + 8])};
#pragma unroll
    for (int n = 0; n < STEPS; n++) multiply(c[n], A, rounded(row[n * STEP]), rounded(row[PITCH + n * STEP]));
  }
  store_rows(c, scale, to, ld);
}

/* The scores of the weights s -> those of what the softmax was of, w (s - sᵀw), rounded; W: this warp's first row. */
static __device__ void pull_rows(int tiles, const float *W, int pitch, float s[TILES][4]) {
  const int g = (int)threadIdx.x % CUDA_WARP / 4, t = (int)threadIdx.x % 4;
  const float *const w = W + g * pitch + 2 * t;
  float mean[2] = {};
#pragma unroll
  for (int n = 0; n < TILES; n++) {
    if (n >= tiles) continue;
    const float2 low = *(const float2 *)(w + n * STEP), high = *(const float2 *)(w + 8 * pitch + n * STEP);
    mean[0] += low.x * s[n][0] + low.y * s[n][1];
    mean[1] += high.x * s[n][2] + high.y * s[n][3];
  }
  mean[0] = row_sum(mean[0]), mean[1] = row_sum(mean[1]);
#pragma unroll
  for (int n = 0; n < TILES; n++) {
    if (n >= tiles) continue;
    const float2 low = *(const float2 *)(w + n * STEP), high = *(const float2 *)(w + 8 * pitch + n * STEP);
    s[n][0] = rounded(low.x * (s[n][0] - mean[0]));
    s[n][1] = rounded(low.y * (s[n][1] - mean[0]));
    s[n][2] = rounded(high.x * (s[n][2] - mean[1]));
    s[n][3] = rounded(high.y * (s[n][3] - mean[1]));
  }
}

static __device__ void keep_rows(int tiles, const float s[TILES][4], float *W, int pitch) {
  const int g = (int)threadIdx.x % CUDA_WARP / 4, t = (int)threadIdx.x % 4;
  float *const w = W + g * pitch + 2 * t;
#pragma unroll
  for (int n = 0; n < TILES; n++) {
    if (n >= tiles) continue;
    *(float2 *)(w + n * STEP) = make_float2(s[n][0], s[n][1]);
    *(float2 *)(w + 8 * pitch + n * STEP) = make_float2(s[n][2], s[n][3]);
  }
}

/* Two warps to 16 tokens: one for their columns, which gives the scores of v and then of k, one for their rows, which
   gives those of the weights and then of q. */
static __global__ void __launch_bounds__(4 * CONTEXT_MAX, 1)
    heads_adjoint(const struct kwm_attention a, float scale, const float *qkv, const float *weights, const float *sout,
                  float *sqkv) {
  extern __shared__ float4 shared[];
  const int context = (int)a.context, warps = context / ROWS, warp = (int)threadIdx.x / CUDA_WARP;
  const int tile = warp % warps, first = tile * ROWS, tiles = 2 * (tile + 1), pitch = context + PAD;
  const bool by_rows = warp >= warps;
  const struct place place = place_of(a);
  const int64_t width = a.heads * SIZE, ld = 3 * width;
  const float *const q = qkv + place.token * ld + place.column;
  float *const sq = sqkv + (place.token + first) * ld + place.column;
  float *const W = (float *)shared, *const S = W + context * pitch, *const V = S + context * PITCH;
  float *const K = V + context * PITCH, *const Q = K + context * PITCH;
  float s[TILES][4];
  load_rows(context, sout + place.token * width + place.column, width, S);
  load_rows(context, q + 2 * width, ld, V);
  load_weights(context, weights + place.weights, pitch, W);
  close_group();
  load_rows(context, q + width, ld, K);
  load_rows(context, q, ld, Q);
  close_group();
  wait_groups<1>();
  __syncthreads();
  if (by_rows) {
    float A[STEPS][4];
    load_fragments(S + first * PITCH, PITCH, A);
    rows_by_rows(tiles, A, V, s);
    pull_rows(tiles, W + first * pitch, pitch, s);
  } else {
    columns_by_rows(context, first, W, pitch, S, 1, sq + 2 * width, ld);
  }
  __syncthreads();
  if (by_rows) keep_rows(tiles, s, W + first * pitch, pitch);
  wait_groups<0>();
  __syncthreads();
  if (by_rows) {
    float o[STEPS][4];
    tiles_by_rows(tiles, s, K, o);
    store_rows(o, scale, sq, ld);
  } else {
    columns_by_rows(context, first, W, pitch, Q, scale, sq + width, ld);
  }
}

void cuda_tensor_heads_adjoint(const struct kwm_attention *a, const float *qkv, const float *weights, const float *sout,
                               float *sqkv, cudaStream_t stream) {
  const size_t rows = (size_t)a->context, shared = rows * (rows + PAD + 4 * PITCH) * sizeof(float);
  const unsigned threads = (unsigned)(a->context / ROWS * 2 * CUDA_WARP);
  if (cudaFuncSetAttribute(heads_adjoint, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared) != cudaSuccess)
    return;
  heads_adjoint<<<(unsigned)(a->sequences * a->heads), threads, shared, stream>>>(*a, 0.125f, qkv, weights, sout, sqkv);
}
