/* What inform_low and shrink_low share (kwm/inform.h): a block to a stream, its small matrices in shared memory, U
   where it is. All threads work on the small matrices together and meet once a step: what takes long there is the way
   from one step to the next, not the operations. */
#pragma once

#include "cuda_map.cuh"
#include "cuda_tensor.h"

static constexpr int TILE = 4;

/* Of one stream: q rows, the first `old` of them in U, the others in A. K = UUᵀ (q, q), rows ld numbers apart, odd, so
   that they lie in different banks. */
struct low {
  int r, q, old, ld;
  float *U, *K;
  const float *A;

  __device__ const float *row(int i) const {
    return i < old ? U + (int64_t)i * r : A + (int64_t)(i - old) * r;
  }
};

/* Sums over a warp's lanes of TILE² values each: of value lane / 2. */
static __device__ inline float tile_sum(float (&values)[TILE * TILE]) {
  const unsigned lane = threadIdx.x % CUDA_WARP;
#pragma unroll
  for (int step = 1; step < CUDA_WARP / 2; step *= 2) {
    const int half = TILE * TILE / 2 / step, apart = CUDA_WARP / 2 / step;
    const bool upper = (lane & apart) != 0;
#pragma unroll
    for (int e = 0; e < half; e++) {
      const float gone = upper ? values[e] : values[e + half];
      values[e] = (upper ? values[e + half] : values[e]) + __shfl_xor_sync(0xffffffffu, gone, apart);
    }
  }
  return values[0] + __shfl_xor_sync(0xffffffffu, values[0], 1);
}

/* K <- UUᵀ, a warp to TILE rows and TILE columns. */
static __device__ inline void multiply(const struct low &low) {
  const int lane = (int)threadIdx.x % CUDA_WARP, warp = (int)threadIdx.x / CUDA_WARP;
  const int q = low.q, warps = (int)blockDim.x / CUDA_WARP, lines = (q + TILE - 1) / TILE;
  for (int at = warp; at < lines * lines; at += warps) {
    const int first = at / lines * TILE, second = at % lines * TILE;
    const float *a[TILE], *b[TILE];
    float sum[TILE * TILE] = {};
    if (second > first) continue;
#pragma unroll
    for (int i = 0; i < TILE; i++) a[i] = low.row(min(first + i, q - 1)), b[i] = low.row(min(second + i, q - 1));
#pragma unroll 4
    for (int k = lane; k < low.r; k += CUDA_WARP) {
      float u[TILE], v[TILE];
#pragma unroll
      for (int i = 0; i < TILE; i++) u[i] = a[i][k], v[i] = b[i][k];
#pragma unroll
      for (int e = 0; e < TILE * TILE; e++) sum[e] += u[e / TILE] * v[e % TILE];
    }
    const float all = tile_sum(sum);
    const int i = first + lane / 2 / TILE, j = second + lane / 2 % TILE;
    if (lane % 2 == 0 && i < q && j < q) low.K[i * low.ld + j] = low.K[j * low.ld + i] = all;
  }
}
