/* Innovations of blocks of tokens, summed, and what is added to every row (kwm/inform.h, kwm/tensor.h). */
#include "cuda_map.cuh"
#include "cuda_tensor.h"

#include <cuda_bf16.h>

static constexpr int64_t TALLY_BLOCKS = 1024; /* about as many as a large GPU holds at once */

/* What a token adds to a class. */
static __device__ void add_token(float logit, float log_sum, bool hit, float &sum, float &told) {
  const float p = __expf(logit - log_sum);
  sum += (hit ? 1.0f : 0.0f) - p;
  told += p * (1 - p);
}

static __device__ void store(float *to, const float (&values)[1]) {
  to[0] = values[0];
}

static __device__ void store(float *to, const float (&values)[4]) {
  *(float4 *)to = make_float4(values[0], values[1], values[2], values[3]);
}

static __device__ void store(__nv_bfloat16 *to, const float (&values)[1]) {
  to[0] = __float2bfloat16_rn(values[0]);
}

static __device__ void store(__nv_bfloat16 *to, const float (&values)[4]) {
  ((__nv_bfloat162 *)to)[0] = __floats2bfloat162_rn(values[0], values[1]);
  ((__nv_bfloat162 *)to)[1] = __floats2bfloat162_rn(values[2], values[3]);
}

static __device__ void load(const float *from, float (&values)[1]) {
  values[0] = from[0];
}

static __device__ void load(const float *from, float (&values)[4]) {
  const float4 v = *(const float4 *)from;
  values[0] = v.x, values[1] = v.y, values[2] = v.z, values[3] = v.w;
}

/* A thread to ONCE neighbouring classes of a stream's group, and to others as far apart as there are threads; zeros
   after the last class. The last groups first: of their logits the most is still in the cache. Shared memory: of each
   token of the group the logarithm of its sum, and its target. */
template <int ONCE> static __global__ void __launch_bounds__(CUDA_THREADS) tally(struct kwm_tally of) {
  extern __shared__ float log_sum[];
  const int groups = (int)of.groups, n = (int)of.n, steps = (int)of.steps, classes = (int)of.classes;
  const int s = (int)blockIdx.y % n, j = groups - 1 - (int)blockIdx.y / n;
  const int first = (j * steps + groups - 1) / groups, count = ((j + 1) * steps + groups - 1) / groups - first;
  int *const target = (int *)(log_sum + count);
  const float *const logits = of.logits + ((int64_t)first * n + s) * of.ld;
  const int64_t apart = n * of.ld, to = (s * groups + j) * of.ld;
  for (int t = (int)threadIdx.x; t < count; t += (int)blockDim.x) {
    const int64_t row = (int64_t)(first + t) * n + s;
    target[t] = of.targets[row];
    log_sum[t] = of.facts[row * KWM_TOKEN_FACTS + KWM_TOKEN_SURPRISAL] + logits[t * apart + target[t]];
  }
  __syncthreads();
  for (int i = ONCE * (int)cuda_thread(); i < classes; i += ONCE * (int)cuda_stride()) {
    float sum[ONCE] = {}, told[ONCE] = {};
#pragma unroll 4
    for (int t = 0; t < count; t++) {
      float values[ONCE];
      load(logits + t * apart + i, values);
#pragma unroll
      for (int k = 0; k < ONCE; k++) add_token(values[k], log_sum[t], i + k == target[t], sum[k], told[k]);
    }
#pragma unroll
    for (int k = 0; k < ONCE; k++)
      if (i + k >= classes) sum[k] = told[k] = 0;
    if (of.sums != NULL) store(of.sums + to + i, sum);
    if (of.half != NULL) store((__nv_bfloat16 *)of.half + to + i, sum);
    if (of.told != NULL) store(of.told + to + i, told);
  }
}

void cuda_blocks_tally(const struct kwm_tally *of, cudaStream_t stream) {
  const bool vectors = of->ld % 4 == 0 && cuda_aligned(of->logits) && cuda_aligned(of->sums) &&
                       cuda_aligned(of->told) && cuda_aligned(of->half);
  const int64_t pieces = vectors ? (of->classes + 3) / 4 : of->classes, rows = of->n * of->groups;
  const int64_t wanted = TALLY_BLOCKS / rows > 0 ? TALLY_BLOCKS / rows : 1;
  const dim3 grid((unsigned)(wanted < cuda_blocks(pieces) ? wanted : cuda_blocks(pieces)), (unsigned)rows);
  const size_t shared = (size_t)((of->steps + of->groups - 1) / of->groups) * (sizeof(float) + sizeof(int));
  if (vectors)
    tally<4><<<grid, CUDA_THREADS, shared, stream>>>(*of);
  else
    tally<1><<<grid, CUDA_THREADS, shared, stream>>>(*of);
}

static __device__ float sum_of(float a, float b) {
  return a + b;
}

static __device__ float4 sum_of(float4 a, float4 b) {
  return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w);
}

/* width in pieces of T. */
template <class T>
static __global__ void __launch_bounds__(CUDA_THREADS) shift(int64_t n, int64_t width, const T *c, T *x) {
  for (int64_t row = blockIdx.y; row < n; row += gridDim.y)
    for (int64_t k = cuda_thread(); k < width; k += cuda_stride())
      x[row * width + k] = sum_of(x[row * width + k], c[k]);
}

void cuda_blocks_shift(int64_t n, int64_t width, const float *c, float *x, cudaStream_t stream) {
  if (width % 4 == 0 && cuda_aligned(c) && cuda_aligned(x))
    shift<float4><<<cuda_grid(n, width / 4), CUDA_THREADS, 0, stream>>>(n, width / 4, (const float4 *)c, (float4 *)x);
  else
    shift<float><<<cuda_grid(n, width), CUDA_THREADS, 0, stream>>>(n, width, c, x);
}

/* A thread to a row's variance. */
static __global__ void __launch_bounds__(CUDA_THREADS) steer_variances(struct kwm_steer of) {
  for (int64_t i = cuda_thread(); i < of.rows; i += cuda_stride()) {
    float told = 0;
#pragma unroll 8
    for (int64_t g = 0; g < of.groups; g++) told += of.told[g * of.rows + i];
    of.variance[i] /= 1 + of.variance[i] * of.scale * told;
  }
}

static __global__ void __launch_bounds__(CUDA_THREADS) steer_rows(struct kwm_steer of) {
  for (int64_t row = blockIdx.y; row < of.rows; row += gridDim.y)
    for (int64_t k = cuda_thread(); k < of.width; k += cuda_stride()) {
      const float step = of.variance[row] * of.score[row * of.width + k];
      of.change[row * of.width + k] += step;
      of.W[row * of.width + k] += step;
    }
}

void cuda_blocks_steer(const struct kwm_steer *of, cudaStream_t stream) {
  steer_variances<<<cuda_blocks(of->rows), CUDA_THREADS, 0, stream>>>(*of);
  steer_rows<<<cuda_grid(of->rows, of->width), CUDA_THREADS, 0, stream>>>(*of);
}
