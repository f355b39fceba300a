/* Embedding, its sums over places and sequences, and dropout. A thread takes four columns of a row, for which one draw
   of dropout serves. */
#include "cuda_map.cuh"
#include "cuda_tensor.h"

#include "dropout.h"

static constexpr int QUAD = 4, GATHER_WARPS = 8;

struct dropping {
  struct kwm_dropout drop;
  uint32_t threshold;
  float scale;

  explicit dropping(const struct kwm_dropout *of)
      : drop(*of), threshold(dropout_threshold(of)), scale(dropout_scale(of)) {
  }

  __device__ void apply(int64_t row, int64_t quad, float values[QUAD]) const {
    if (!(drop.rate > 0)) return;
    const philox4x32_ctr_t words = dropout_words(&drop, row, quad);
#pragma unroll
    for (int k = 0; k < QUAD; k++) values[k] = words.v[k] < threshold ? 0.0f : values[k] * scale;
  }
};

/* Four columns from `column` of an array's row, of which those below `width` are there. */
template <bool VECTORS>
static __device__ void load_quad(const float *row, int64_t column, int64_t width, float to[QUAD]) {
  if (VECTORS) {
    const float4 v = *(const float4 *)(row + column);
    to[0] = v.x, to[1] = v.y, to[2] = v.z, to[3] = v.w;
  } else {
#pragma unroll
    for (int k = 0; k < QUAD; k++) to[k] = column + k < width ? row[column + k] : 0.0f;
  }
}

template <bool VECTORS>
static __device__ void store_quad(const float from[QUAD], int64_t column, int64_t width, float *row) {
  if (VECTORS) {
    *(float4 *)(row + column) = make_float4(from[0], from[1], from[2], from[3]);
  } else {
#pragma unroll
    for (int k = 0; k < QUAD; k++)
      if (column + k < width) row[column + k] = from[k];
  }
}

/* A quad's row and its place there; a division of 64 bits costs more than a draw. */
static __device__ void place_of(int64_t at, int64_t quads, int64_t *row, int64_t *quad) {
  *row = at >> 32 != 0 ? at / quads : (int64_t)((uint32_t)at / (uint32_t)quads);
  *quad = at - *row * quads;
}

template <bool VECTORS>
static __global__ void __launch_bounds__(CUDA_THREADS)
    embed(int64_t n, int64_t width, int64_t context, const int32_t *ids, const float *E, const float *pos,
          const struct dropping dropping, float *x) {
  const int64_t quads = (width + QUAD - 1) / QUAD;
  for (int64_t at = cuda_thread(); at < n * quads; at += cuda_stride()) {
    int64_t row, quad;
    place_of(at, quads, &row, &quad);
    float token[QUAD], place[QUAD];
    load_quad<VECTORS>(E + ids[row] * width, QUAD * quad, width, token);
    load_quad<VECTORS>(pos + row % context * width, QUAD * quad, width, place);
#pragma unroll
    for (int k = 0; k < QUAD; k++) token[k] += place[k];
    dropping.apply(row, quad, token);
    store_quad<VECTORS>(token, QUAD * quad, width, x + row * width);
  }
}

void cuda_tensor_embed(int64_t n, int64_t width, int64_t context, const int32_t *ids, const float *E, const float *pos,
                       const struct kwm_dropout *drop, float *x, cudaStream_t stream) {
  const unsigned blocks = cuda_blocks(n * ((width + QUAD - 1) / QUAD));
  const dropping dropping(drop);
  if (width % QUAD == 0 && cuda_aligned(E) && cuda_aligned(pos) && cuda_aligned(x))
    embed<true><<<blocks, CUDA_THREADS, 0, stream>>>(n, width, context, ids, E, pos, dropping, x);
  else
    embed<false><<<blocks, CUDA_THREADS, 0, stream>>>(n, width, context, ids, E, pos, dropping, x);
}

template <bool VECTORS>
static __global__ void __launch_bounds__(CUDA_THREADS)
    residual(int64_t n, int64_t width, const struct dropping dropping, const float *x, const float *f, float *y) {
  const int64_t quads = (width + QUAD - 1) / QUAD;
  for (int64_t at = cuda_thread(); at < n * quads; at += cuda_stride()) {
    int64_t row, quad;
    place_of(at, quads, &row, &quad);
    float value[QUAD], base[QUAD] = {};
    load_quad<VECTORS>(f + row * width, QUAD * quad, width, value);
    if (x != NULL) load_quad<VECTORS>(x + row * width, QUAD * quad, width, base);
    dropping.apply(row, quad, value);
#pragma unroll
    for (int k = 0; k < QUAD; k++) value[k] += base[k];
    store_quad<VECTORS>(value, QUAD * quad, width, y + row * width);
  }
}

void cuda_tensor_residual(int64_t n, int64_t width, const struct kwm_dropout *drop, const float *x, const float *f,
                          float *y, cudaStream_t stream) {
  const unsigned blocks = cuda_blocks(n * ((width + QUAD - 1) / QUAD));
  const dropping dropping(drop);
  if (width % QUAD == 0 && cuda_aligned(x) && cuda_aligned(f) && cuda_aligned(y))
    residual<true><<<blocks, CUDA_THREADS, 0, stream>>>(n, width, dropping, x, f, y);
  else
    residual<false><<<blocks, CUDA_THREADS, 0, stream>>>(n, width, dropping, x, f, y);
}

/* A block takes a kind and a warp's width of columns: its warps take turns at the places, and their sums are added in
   the warps' order. */
template <bool VECTORS>
static __global__ void __launch_bounds__(CUDA_WARP *GATHER_WARPS)
    gather_kind(int64_t width, const struct kwm_gather gather, const float *x, float *table) {
  __shared__ float4 sums[GATHER_WARPS][CUDA_WARP];
  const unsigned lane = threadIdx.x, warp = threadIdx.y;
  const int64_t column = ((int64_t)blockIdx.y * CUDA_WARP + lane) * QUAD;
  const int32_t first = gather.begin[blockIdx.x], last = gather.begin[blockIdx.x + 1];
  float sum[QUAD] = {};
  if (column < width)
#pragma unroll 4
    for (int32_t at = first + (int32_t)warp; at < last; at += GATHER_WARPS) {
      float value[QUAD];
      load_quad<VECTORS>(x + gather.places[at] * width, column, width, value);
      for (int k = 0; k < QUAD; k++) sum[k] += value[k];
    }
  sums[warp][lane] = make_float4(sum[0], sum[1], sum[2], sum[3]);
  __syncthreads();
  if (warp > 0 || column >= width) return;
  float *const row = table + gather.kinds[blockIdx.x] * width;
  float total[QUAD];
  load_quad<VECTORS>(row, column, width, total);
  for (unsigned other = 0; other < GATHER_WARPS && first + (int32_t)other < last; other++) {
    const float4 part = sums[other][lane];
    total[0] += part.x, total[1] += part.y, total[2] += part.z, total[3] += part.w;
  }
  store_quad<VECTORS>(total, column, width, row);
}

void cuda_tensor_gather(int64_t width, const struct kwm_gather *gather, const float *x, float *table,
                        cudaStream_t stream) {
  const int64_t tile = CUDA_WARP * QUAD;
  const dim3 grid((unsigned)gather->count, (unsigned)((width + tile - 1) / tile)), block(CUDA_WARP, GATHER_WARPS);
  if (width % QUAD == 0 && cuda_aligned(x) && cuda_aligned(table))
    gather_kind<true><<<grid, block, 0, stream>>>(width, *gather, x, table);
  else
    gather_kind<false><<<grid, block, 0, stream>>>(width, *gather, x, table);
}

static __global__ void __launch_bounds__(CUDA_THREADS) fold(int64_t n, int64_t period, const float *x, float *sums) {
  for (int64_t k = cuda_thread(); k < period; k += cuda_stride()) {
    float sum = sums[k];
#pragma unroll 8
    for (int64_t at = k; at < n; at += period) sum += x[at];
    sums[k] = sum;
  }
}

void cuda_tensor_fold(int64_t n, int64_t width, int64_t context, const float *x, float *sums, cudaStream_t stream) {
  const int64_t period = context * width;
  fold<<<cuda_blocks(period), CUDA_THREADS, 0, stream>>>(n * width, period, x, sums);
}
