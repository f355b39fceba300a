/* What lies between attention's matrix products: the softmax of causal rows and its adjoint, a warp to a row, and the
   addresses that a batch of products is given. */
#include "cuda_map.cuh"
#include "cuda_tensor.h"

static constexpr int WARPS = CUDA_THREADS / CUDA_WARP;

struct views {
  struct cuda_view view[TENSOR_VIEWS];
};

static __global__ void point(int64_t batch, int64_t heads, int count, const struct views views, float **pointers) {
  const int64_t at = cuda_thread();
  if (at >= batch * count) return;
  const struct cuda_view *const view = &views.view[at / batch];
  pointers[at] = view->base + at % batch / heads * view->per_sequence + at % heads * view->per_head;
}

void cuda_tensor_point(int64_t sequences, int64_t heads, int count, const struct cuda_view *views, float **pointers,
                       cudaStream_t stream) {
  struct views all = {};
  const int64_t batch = sequences * heads;
  for (int k = 0; k < count; k++) all.view[k] = views[k];
  const unsigned blocks = (unsigned)((batch * count + CUDA_THREADS - 1) / CUDA_THREADS);
  point<<<blocks, CUDA_THREADS, 0, stream>>>(batch, heads, count, all, pointers);
}

static __device__ float warp_max(float value) {
  for (int apart = CUDA_WARP / 2; apart > 0; apart /= 2)
    value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, apart));
  return value;
}

static __global__ void __launch_bounds__(CUDA_THREADS)
    soften(int64_t rows, int64_t context, float scale, float *scores) {
  const int64_t lane = threadIdx.x % CUDA_WARP;
  for (int64_t at = cuda_thread() / CUDA_WARP; at < rows; at += cuda_stride() / CUDA_WARP) {
    float *const row = scores + at * context;
    const int64_t length = at % context + 1;
    float top = -INFINITY, sum = 0;
    for (int64_t j = lane; j < length; j += CUDA_WARP) top = fmaxf(top, row[j]);
    top = warp_max(top);
    for (int64_t j = lane; j < length; j += CUDA_WARP) {
      const float weight = expf(scale * (row[j] - top));
      row[j] = weight;
      sum += weight;
    }
    const float over = 1 / cuda_warp_sum(sum);
    for (int64_t j = lane; j < context; j += CUDA_WARP) row[j] = j < length ? row[j] * over : 0.0f;
  }
}

static unsigned row_blocks(int64_t rows) {
  const int64_t blocks = (rows + WARPS - 1) / WARPS;
  return (unsigned)(blocks < INT32_MAX ? blocks : INT32_MAX);
}

void cuda_tensor_soften(int64_t rows, int64_t context, float scale, float *scores, cudaStream_t stream) {
  soften<<<row_blocks(rows), CUDA_THREADS, 0, stream>>>(rows, context, scale, scores);
}

static __global__ void __launch_bounds__(CUDA_THREADS)
    soften_adjoint(int64_t rows, int64_t context, const float *s, float *weights) {
  const int64_t lane = threadIdx.x % CUDA_WARP;
  for (int64_t at = cuda_thread() / CUDA_WARP; at < rows; at += cuda_stride() / CUDA_WARP) {
    const float *const score = s + at * context;
    float *const row = weights + at * context;
    const int64_t length = at % context + 1;
    float mean = 0;
    for (int64_t j = lane; j < length; j += CUDA_WARP) mean += row[j] * score[j];
    mean = cuda_warp_sum(mean);
    for (int64_t j = lane; j < length; j += CUDA_WARP) row[j] *= score[j] - mean;
  }
}

void cuda_tensor_soften_adjoint(int64_t rows, int64_t context, const float *s, float *weights, cudaStream_t stream) {
  soften_adjoint<<<row_blocks(rows), CUDA_THREADS, 0, stream>>>(rows, context, s, weights);
}
