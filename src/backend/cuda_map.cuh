/* What the kernels share: elementwise maps at the speed of memory, and sums in a fixed order.

   A map is y <- f(a, b, y) on n floats with 0, 1 or 2 arrays beside y, in vectors of four where all arrays are aligned.
   Sums go up a fixed tree: lanes of a warp, warps of a block, blocks in their order: the same bits each time. */
#pragma once

#include "cuda_kernels.h"

static constexpr int CUDA_WARP = 32, CUDA_THREADS = 256;
static constexpr int64_t CUDA_BLOCKS = 1056, CUDA_ROWS = 65535;

/* Blocks of CUDA_THREADS for n pieces of work: a grid beyond what runs at once would only begin again and again. */
static inline unsigned cuda_blocks(int64_t n) {
  const int64_t blocks = (n + CUDA_THREADS - 1) / CUDA_THREADS;
  return (unsigned)(blocks < CUDA_BLOCKS ? blocks : CUDA_BLOCKS);
}

/* A grid for rows (rows, width): columns along x, rows along y, both to be strided over. */
static inline dim3 cuda_grid(int64_t rows, int64_t width) {
  return dim3(cuda_blocks(width), (unsigned)(rows < CUDA_ROWS ? rows : CUDA_ROWS));
}

static __device__ inline int64_t cuda_thread(void) {
  return (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
}

static __device__ inline int64_t cuda_stride(void) {
  return (int64_t)gridDim.x * blockDim.x;
}

static inline bool cuda_aligned(const void *at) {
  return (uintptr_t)at % sizeof(float4) == 0;
}

template <int ARRAYS, class F>
static __global__ void __launch_bounds__(CUDA_THREADS)
    cuda_map_vectors(int64_t n, const float *a, const float *b, float *y, F f) {
  const int64_t vectors = n / 4;
  for (int64_t k = cuda_thread(); k < vectors; k += cuda_stride()) {
    float4 va = {}, vb = {}, vy = ((const float4 *)y)[k];
    if (ARRAYS > 0) va = ((const float4 *)a)[k];
    if (ARRAYS > 1) vb = ((const float4 *)b)[k];
    vy.x = f(va.x, vb.x, vy.x);
    vy.y = f(va.y, vb.y, vy.y);
    vy.z = f(va.z, vb.z, vy.z);
    vy.w = f(va.w, vb.w, vy.w);
    ((float4 *)y)[k] = vy;
  }
  const int64_t last = 4 * vectors + cuda_thread();
  if (last < n) y[last] = f(ARRAYS > 0 ? a[last] : 0.0f, ARRAYS > 1 ? b[last] : 0.0f, y[last]);
}

template <int ARRAYS, class F>
static __global__ void __launch_bounds__(CUDA_THREADS)
    cuda_map_numbers(int64_t n, const float *a, const float *b, float *y, F f) {
  for (int64_t k = cuda_thread(); k < n; k += cuda_stride())
    y[k] = f(ARRAYS > 0 ? a[k] : 0.0f, ARRAYS > 1 ? b[k] : 0.0f, y[k]);
}

template <int ARRAYS, class F>
static void cuda_map(int64_t n, const float *a, const float *b, float *y, F f, cudaStream_t stream) {
  if (cuda_aligned(a) && cuda_aligned(b) && cuda_aligned(y))
    cuda_map_vectors<ARRAYS><<<cuda_blocks((n + 3) / 4), CUDA_THREADS, 0, stream>>>(n, a, b, y, f);
  else
    cuda_map_numbers<ARRAYS><<<cuda_blocks(n), CUDA_THREADS, 0, stream>>>(n, a, b, y, f);
}

/* The sum over the warp, in every lane. */
template <class T> static __device__ inline T cuda_warp_sum(T value) {
  for (int apart = CUDA_WARP / 2; apart > 0; apart /= 2) value += __shfl_xor_sync(0xffffffffu, value, apart);
  return value;
}

/* The sum over the block (whole warps, at most 32 of them), in every thread. Begins and goes on with the block in step.
 */
static __device__ inline float cuda_block_sum(float value) {
  __shared__ float of_warp[CUDA_WARP];
  const unsigned lane = threadIdx.x % CUDA_WARP, warp = threadIdx.x / CUDA_WARP, warps = blockDim.x / CUDA_WARP;
  value = cuda_warp_sum(value);
  __syncthreads();
  if (lane == 0) of_warp[warp] = value;
  __syncthreads();
  return cuda_warp_sum(lane < warps ? of_warp[lane] : 0.0f);
}

/* sums[k] of thread 0 <- the block's, for all of its threads (whole warps, at most 32 of them). Ends with the block
   in step. */
template <int SUMS> static __device__ inline void cuda_block_sums(double sums[SUMS]) {
  __shared__ double of_warp[SUMS][CUDA_WARP];
  const unsigned lane = threadIdx.x % CUDA_WARP, warp = threadIdx.x / CUDA_WARP, warps = blockDim.x / CUDA_WARP;
  for (int k = 0; k < SUMS; k++) {
    const double sum = cuda_warp_sum(sums[k]);
    if (lane == 0) of_warp[k][warp] = sum;
  }
  __syncthreads();
  if (warp == 0)
    for (int k = 0; k < SUMS; k++) sums[k] = cuda_warp_sum(lane < warps ? of_warp[k][lane] : 0.0);
  __syncthreads();
}

/* Stores this block's sums as part number blockIdx.x and returns true, to all threads, in the block that ends last. */
template <int SUMS>
static __device__ inline bool cuda_last_block(const double sums[SUMS], const struct cuda_scratch &scratch) {
  __shared__ bool last;
  if (threadIdx.x == 0) {
    for (int k = 0; k < SUMS; k++) scratch.parts[blockIdx.x * CUDA_SUMS + k] = sums[k];
    __threadfence();
    /* Back to zero with the last one. */
    last = atomicInc(scratch.done, gridDim.x - 1) == gridDim.x - 1;
  }
  __syncthreads();
  if (last) __threadfence();
  return last;
}

/* facts (SUMS) <- the sum of the parts [first, first + parts); for all threads of a block. */
template <int SUMS>
static __device__ inline void cuda_add_parts(const struct cuda_scratch &scratch, int64_t first, int64_t parts,
                                             double *facts) {
  double sums[SUMS] = {};
  for (int64_t part = first + threadIdx.x; part < first + parts; part += blockDim.x)
    for (int k = 0; k < SUMS; k++) sums[k] += __ldcg(&scratch.parts[part * CUDA_SUMS + k]);
  cuda_block_sums<SUMS>(sums);
  if (threadIdx.x == 0)
    for (int k = 0; k < SUMS; k++) facts[k] = sums[k];
}
