/* The categorical innovation, a block to a row: read once for its sums, and once more, from the cache, for the
   innovation, which replaces the logits or goes to an array of 16-bit numbers. */
#include "cuda_map.cuh"
#include "cuda_tensor.h"

#include <cuda_bf16.h>
#include <float.h>

static constexpr int ROW_THREADS = 1024, FEW_THREADS = 128, ROW_BLOCKS = 2, AHEAD = 2;
static constexpr int64_t FEW_CLASSES = 2048;
static constexpr float FARTHEST = -100; /* exp of less is zero */

/* Of some logits: the largest, and with w = exp(logit - top) the sums of w, w (logit - top) and w². */
struct soft {
  float top, sum, mean, squares;

  __device__ void raise(float to) {
    const float below = fmaxf(top - to, FARTHEST), weight = __expf(below);
    top = to;
    mean = weight * (mean + below * sum);
    sum *= weight;
    squares *= weight * weight;
  }

  __device__ void take(float logit) {
    const float below = logit - top, weight = __expf(below);
    sum += weight;
    mean += weight > 0 ? weight * below : weight;
    squares += weight * weight;
  }

  __device__ void join(struct soft other) {
    if (other.top > top)
      raise(other.top);
    else
      other.raise(top);
    sum += other.sum, mean += other.mean, squares += other.squares;
  }
};

static __device__ struct soft soft_none(void) {
  return soft{-FLT_MAX, 0, 0, 0};
}

static __device__ struct soft warp_join(struct soft mine) {
  for (unsigned apart = CUDA_WARP / 2; apart > 0; apart /= 2) {
    struct soft other;
    other.top = __shfl_down_sync(0xffffffffu, mine.top, apart);
    other.sum = __shfl_down_sync(0xffffffffu, mine.sum, apart);
    other.mean = __shfl_down_sync(0xffffffffu, mine.mean, apart);
    other.squares = __shfl_down_sync(0xffffffffu, mine.squares, apart);
    mine.join(other);
  }
  return mine;
}

/* The block's, in all of its threads. */
static __device__ struct soft block_join(struct soft mine) {
  __shared__ struct soft of_warp[CUDA_WARP];
  const unsigned lane = threadIdx.x % CUDA_WARP, warp = threadIdx.x / CUDA_WARP, warps = blockDim.x / CUDA_WARP;
  mine = warp_join(mine);
  if (lane == 0) of_warp[warp] = mine;
  __syncthreads();
  if (warp == 0) {
    mine = warp_join(lane < warps ? of_warp[lane] : soft_none());
    if (lane == 0) of_warp[0] = mine;
  }
  __syncthreads();
  return of_warp[0];
}

/* A row in vectors: what comes before the first aligned one, how many there are, what is left. */
struct cut {
  int head, vectors, tail;
};

static __device__ struct cut cut_row(const float *row, int classes) {
  const int off = (int)((uintptr_t)row % sizeof(float4) / sizeof(float)), before = (4 - off) % 4;
  const int head = before < classes ? before : classes, vectors = (classes - head) / 4;
  return cut{head, vectors, head + 4 * vectors};
}

static __device__ float largest(float4 v) {
  return fmaxf(fmaxf(v.x, v.y), fmaxf(v.z, v.w));
}

static __device__ struct soft row_soft(int classes, const float *row, const struct cut cut) {
  const float4 *const vectors = (const float4 *)(row + cut.head), none = {-INFINITY, -INFINITY, -INFINITY, -INFINITY};
  const int step = (int)blockDim.x;
  struct soft mine = soft_none();
  for (int k = (int)threadIdx.x; k < cut.vectors; k += AHEAD * step) {
    float4 v[AHEAD];
    float top = -INFINITY;
#pragma unroll
    for (int a = 0; a < AHEAD; a++) v[a] = k + a * step < cut.vectors ? vectors[k + a * step] : none;
#pragma unroll
    for (int a = 0; a < AHEAD; a++) top = fmaxf(top, largest(v[a]));
    if (top > mine.top) mine.raise(top);
#pragma unroll
    for (int a = 0; a < AHEAD; a++) mine.take(v[a].x), mine.take(v[a].y), mine.take(v[a].z), mine.take(v[a].w);
  }
  for (int k = (int)threadIdx.x; k < cut.head + classes - cut.tail; k += step) {
    const float logit = row[k < cut.head ? k : k - cut.head + cut.tail];
    if (logit > mine.top) mine.raise(logit);
    mine.take(logit);
  }
  return block_join(mine);
}

static __device__ void store4(const float e[4], float *to) {
  *(float4 *)to = make_float4(e[0], e[1], e[2], e[3]);
}

static __device__ void store4(const float e[4], __nv_bfloat16 *to) {
  union {
    __nv_bfloat162 pair[2];
    uint2 whole;
  } all;
  all.pair[0] = __floats2bfloat162_rn(e[0], e[1]);
  all.pair[1] = __floats2bfloat162_rn(e[2], e[3]);
  *(uint2 *)to = all.whole;
}

static __device__ void store1(float e, float *to) {
  *to = e;
}

static __device__ void store1(float e, __nv_bfloat16 *to) {
  *to = __float2bfloat16_rn(e);
}

/* to (classes), aligned as the row is, <- the innovation; `to` may be the row. */
template <class T>
static __device__ void innovate_row(int classes, const float *row, const struct cut cut, int target, float top,
                                    float over, T *to) {
  const float4 *const vectors = (const float4 *)(row + cut.head);
#pragma unroll 2
  for (int k = (int)threadIdx.x; k < cut.vectors; k += (int)blockDim.x) {
    const float4 v = vectors[k];
    float e[4] = {-__expf(v.x - top) * over, -__expf(v.y - top) * over, -__expf(v.z - top) * over,
                  -__expf(v.w - top) * over};
    const int hit = target - cut.head - 4 * k;
#pragma unroll
    for (int c = 0; c < 4; c++) e[c] += hit == c ? 1.0f : 0.0f;
    store4(e, to + cut.head + 4 * k);
  }
  for (int k = (int)threadIdx.x; k < cut.head + classes - cut.tail; k += (int)blockDim.x) {
    const int at = k < cut.head ? k : k - cut.head + cut.tail;
    store1((at == target ? 1.0f : 0.0f) - __expf(row[at] - top) * over, to + at);
  }
}

/* e: NULL, or rows as far apart as those of the logits, zeros after the classes. */
static __global__ void __launch_bounds__(ROW_THREADS, ROW_BLOCKS)
    categorical(int classes, int64_t ld, const int32_t *targets, bool innovate, float *logits, __nv_bfloat16 *e,
                float *facts) {
  float *const row = logits + blockIdx.x * ld;
  const int target = targets[blockIdx.x];
  const struct cut cut = cut_row(row, classes);
  const float aim = row[target];
  const struct soft all = row_soft(classes, row, cut);
  const float over = 1 / all.sum;
  if (threadIdx.x == 0) {
    const float log_sum = logf(all.sum);
    float *const of = facts + blockIdx.x * (int64_t)KWM_TOKEN_FACTS;
    of[KWM_TOKEN_SURPRISAL] = log_sum - (aim - all.top);
    of[KWM_TOKEN_ENTROPY] = log_sum - all.mean * over;
    of[KWM_TOKEN_SQUARES] = all.squares * over * over;
    of[KWM_TOKEN_CORRECT] = aim >= all.top ? 1.0f : 0.0f;
    of[KWM_TOKEN_LARGEST] = over;
  }
  if (!innovate) return;
  if (e == NULL) {
    innovate_row(classes, row, cut, target, all.top, over, row);
    return;
  }
  innovate_row(classes, row, cut, target, all.top, over, e + blockIdx.x * ld);
  for (int64_t k = classes + threadIdx.x; k < ld; k += blockDim.x) e[blockIdx.x * ld + k] = __float2bfloat16_rn(0);
}

static void launch(int64_t n, int64_t classes, int64_t ld, const int32_t *targets, bool innovate, float *logits,
                   __nv_bfloat16 *e, float *facts, cudaStream_t stream) {
  const int threads = classes > FEW_CLASSES ? ROW_THREADS : FEW_THREADS;
  KWM_ASSERT(n <= INT32_MAX && classes <= INT32_MAX / 2);
  categorical<<<(unsigned)n, threads, 0, stream>>>((int)classes, ld, targets, innovate, logits, e, facts);
}

void cuda_tensor_categorical(int64_t n, int64_t classes, int64_t ld, const int32_t *targets, bool innovate,
                             float *logits, float *facts, cudaStream_t stream) {
  launch(n, classes, ld, targets, innovate, logits, NULL, facts, stream);
}

void cuda_tensor_categorical_half(int64_t n, int64_t classes, int64_t ld, const int32_t *targets, float *logits,
                                  uint16_t *e, float *facts, cudaStream_t stream) {
  launch(n, classes, ld, targets, true, logits, (__nv_bfloat16 *)e, facts, stream);
}

template <bool VECTORS>
static __global__ void __launch_bounds__(CUDA_THREADS)
    narrow(int64_t n, int64_t all, const float *x, __nv_bfloat16 *to) {
  const int64_t quads = VECTORS ? n / 4 : 0;
  for (int64_t k = cuda_thread(); k < quads; k += cuda_stride()) {
    const float4 v = ((const float4 *)x)[k];
    const float values[4] = {v.x, v.y, v.z, v.w};
    store4(values, to + 4 * k);
  }
  for (int64_t k = 4 * quads + cuda_thread(); k < all; k += cuda_stride())
    to[k] = __float2bfloat16_rn(k < n ? x[k] : 0.0f);
}

void cuda_tensor_narrow(int64_t n, int64_t all, const float *x, uint16_t *to, cudaStream_t stream) {
  if (cuda_aligned(x))
    narrow<true><<<cuda_blocks((all + 3) / 4), CUDA_THREADS, 0, stream>>>(n, all, x, (__nv_bfloat16 *)to);
  else
    narrow<false><<<cuda_blocks(all), CUDA_THREADS, 0, stream>>>(n, all, x, (__nv_bfloat16 *)to);
}
