/* The norm, a warp to a row. Its adjoint sums the score of g over the rows of a piece first, then over the pieces:
   where a row fits into a warp's registers in the same pass. */
#include "cuda_map.cuh"
#include "cuda_tensor.h"

static constexpr int WARPS = CUDA_THREADS / CUDA_WARP, TILE = 32, QUAD = 4, REGISTER_WIDTH = 1024;
static constexpr float FLOOR = 1e-6f;

template <bool VECTORS>
static __global__ void __launch_bounds__(CUDA_THREADS)
    norm_rows(int64_t n, int64_t width, const float *x, const float *g, float *y, float *inv) {
  const unsigned lane = threadIdx.x % CUDA_WARP;
  for (int64_t row = cuda_thread() / CUDA_WARP; row < n; row += cuda_stride() / CUDA_WARP) {
    const float *const from = x + row * width;
    float *const to = y + row * width;
    float sum = 0;
    if (VECTORS)
      for (int64_t k = lane; k < width / QUAD; k += CUDA_WARP) {
        const float4 v = ((const float4 *)from)[k];
        sum += v.x * v.x + v.y * v.y + (v.z * v.z + v.w * v.w);
      }
    else
      for (int64_t k = lane; k < width; k += CUDA_WARP) sum += from[k] * from[k];
    const float over = 1 / sqrtf(cuda_warp_sum(sum) / (float)width + FLOOR);
    if (lane == 0) inv[row] = over;
    if (VECTORS)
      for (int64_t k = lane; k < width / QUAD; k += CUDA_WARP) {
        const float4 v = ((const float4 *)from)[k], w = ((const float4 *)g)[k];
        ((float4 *)to)[k] = make_float4(v.x * over * w.x, v.y * over * w.y, v.z * over * w.z, v.w * over * w.w);
      }
    else
      for (int64_t k = lane; k < width; k += CUDA_WARP) to[k] = from[k] * over * g[k];
  }
}

static unsigned row_blocks(int64_t n) {
  return (unsigned)((n + WARPS - 1) / WARPS < INT32_MAX ? (n + WARPS - 1) / WARPS : INT32_MAX);
}

void cuda_tensor_norm(int64_t n, int64_t width, const float *x, const float *g, float *y, float *inv,
                      cudaStream_t stream) {
  if (width % QUAD == 0 && cuda_aligned(x) && cuda_aligned(g) && cuda_aligned(y))
    norm_rows<true><<<row_blocks(n), CUDA_THREADS, 0, stream>>>(n, width, x, g, y, inv);
  else
    norm_rows<false><<<row_blocks(n), CUDA_THREADS, 0, stream>>>(n, width, x, g, y, inv);
}

/* What the adjoint reads and writes. */
struct adjoint {
  int64_t n, width;
  const float *x, *g, *inv, *sy, *more;
  float *sx, *pieces; /* pieces (gridDim.x, width) */
};

static __device__ float4 operator*(float4 a, float4 b) {
  return make_float4(a.x * b.x, a.y * b.y, a.z * b.z, a.w * b.w);
}

static __device__ float4 operator*(float a, float4 b) {
  return make_float4(a * b.x, a * b.y, a * b.z, a * b.w);
}

static __device__ float4 operator+(float4 a, float4 b) {
  return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w);
}

static __device__ float4 quad_of(const float *row, int64_t quad, int64_t quads) {
  return quad < quads ? ((const float4 *)row)[quad] : make_float4(0, 0, 0, 0);
}

/* One row, whose quads lane, lane + 32, ... are this lane's; score (QUADS) += that of g. */
template <int QUADS>
static __device__ void adjoint_row(const struct adjoint &a, int64_t row, const float4 g[QUADS], float4 score[QUADS]) {
  const int64_t quads = a.width / QUAD, lane = threadIdx.x % CUDA_WARP;
  const float over = a.inv[row];
  float4 x[QUADS], s[QUADS], more[QUADS];
  float dot = 0;
#pragma unroll
  for (int j = 0; j < QUADS; j++) {
    x[j] = quad_of(a.x + row * a.width, lane + j * CUDA_WARP, quads);
    s[j] = quad_of(a.sy + row * a.width, lane + j * CUDA_WARP, quads);
    more[j] = a.more == NULL ? make_float4(0, 0, 0, 0) : quad_of(a.more + row * a.width, lane + j * CUDA_WARP, quads);
  }
#pragma unroll
  for (int j = 0; j < QUADS; j++) {
    score[j] = score[j] + over * (s[j] * x[j]);
    s[j] = s[j] * g[j];
    const float4 along = s[j] * x[j];
    dot += along.x + along.y + (along.z + along.w);
  }
  const float along = -(cuda_warp_sum(dot) / (float)a.width) * over * over;
#pragma unroll
  for (int j = 0; j < QUADS; j++) {
    const int64_t quad = lane + j * CUDA_WARP;
    if (quad >= quads) continue;
    ((float4 *)(a.sx + row * a.width))[quad] = over * (s[j] + along * x[j]) + more[j];
  }
}

template <int QUADS> static __global__ void __launch_bounds__(CUDA_THREADS) adjoint_rows(const struct adjoint a) {
  __shared__ float4 sums[WARPS][QUADS * CUDA_WARP];
  const int64_t quads = a.width / QUAD, lane = threadIdx.x % CUDA_WARP, warp = threadIdx.x / CUDA_WARP;
  float4 g[QUADS], score[QUADS] = {};
#pragma unroll
  for (int j = 0; j < QUADS; j++) g[j] = quad_of(a.g, lane + j * CUDA_WARP, quads);
  for (int64_t row = blockIdx.x * (int64_t)WARPS + warp; row < a.n; row += gridDim.x * (int64_t)WARPS)
    adjoint_row<QUADS>(a, row, g, score);
#pragma unroll
  for (int j = 0; j < QUADS; j++) sums[warp][lane + j * CUDA_WARP] = score[j];
  __syncthreads();
  for (int64_t quad = threadIdx.x; quad < quads; quad += CUDA_THREADS) {
    float4 sum = sums[0][quad];
    for (int w = 1; w < WARPS; w++) sum = sum + sums[w][quad];
    ((float4 *)(a.pieces + blockIdx.x * a.width))[quad] = sum;
  }
}

/* The same for any width: first the pieces, a column to a thread, then the rows. */
static __global__ void __launch_bounds__(CUDA_THREADS) adjoint_pieces(const struct adjoint a) {
  const int64_t column = blockIdx.y * (int64_t)CUDA_THREADS + threadIdx.x;
  if (column >= a.width) return;
  float sum = 0;
#pragma unroll 4
  for (int64_t row = blockIdx.x; row < a.n; row += gridDim.x)
    sum += a.sy[row * a.width + column] * a.x[row * a.width + column] * a.inv[row];
  a.pieces[blockIdx.x * a.width + column] = sum;
}

static __global__ void __launch_bounds__(CUDA_THREADS) adjoint_any_rows(const struct adjoint a) {
  const unsigned lane = threadIdx.x % CUDA_WARP;
  for (int64_t row = cuda_thread() / CUDA_WARP; row < a.n; row += cuda_stride() / CUDA_WARP) {
    const float *const x = a.x + row * a.width, *const sy = a.sy + row * a.width;
    float sum = 0;
    for (int64_t k = lane; k < a.width; k += CUDA_WARP) sum += sy[k] * a.g[k] * x[k];
    const float over = a.inv[row], along = cuda_warp_sum(sum) / (float)a.width * over * over;
    for (int64_t k = lane; k < a.width; k += CUDA_WARP)
      a.sx[row * a.width + k] =
          over * (sy[k] * a.g[k] - along * x[k]) + (a.more != NULL ? a.more[row * a.width + k] : 0.0f);
  }
}

/* sg (width) += the sum of the pieces, in a fixed order. */
static __global__ void __launch_bounds__(TILE *TILE)
    add_pieces(int64_t count, int64_t width, const float *pieces, float *sg) {
  __shared__ float part[TILE][TILE + 1];
  const int64_t from = (int64_t)blockIdx.x * TILE, column = from + threadIdx.x;
  float sum = 0;
  if (column < width)
    for (int64_t piece = threadIdx.y; piece < count; piece += TILE) sum += pieces[piece * width + column];
  part[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  sum = cuda_warp_sum(part[threadIdx.x][threadIdx.y]);
  const int64_t to = from + threadIdx.y;
  if (threadIdx.x == 0 && to < width) sg[to] += sum;
}

void cuda_tensor_norm_adjoint(int64_t n, int64_t width, const float *x, const float *g, const float *inv,
                              const float *sy, const float *more, float *sx, float *sg, float *scratch,
                              cudaStream_t stream) {
  const struct adjoint a = {n, width, x, g, inv, sy, more, sx, scratch};
  const unsigned pieces = (unsigned)(n < TENSOR_NORM_PARTS ? n : (int64_t)TENSOR_NORM_PARTS);
  const bool aligned = cuda_aligned(x) && cuda_aligned(g) && cuda_aligned(sy) && cuda_aligned(more) &&
                       cuda_aligned(sx) && cuda_aligned(scratch);
  if (width % QUAD != 0 || width > REGISTER_WIDTH || !aligned) {
    const dim3 grid(pieces, (unsigned)((width + CUDA_THREADS - 1) / CUDA_THREADS));
    adjoint_pieces<<<grid, CUDA_THREADS, 0, stream>>>(a);
    adjoint_any_rows<<<row_blocks(n), CUDA_THREADS, 0, stream>>>(a);
  } else if (width <= REGISTER_WIDTH / 4)
    adjoint_rows<2><<<pieces, CUDA_THREADS, 0, stream>>>(a);
  else if (width <= REGISTER_WIDTH / 2)
    adjoint_rows<4><<<pieces, CUDA_THREADS, 0, stream>>>(a);
  else
    adjoint_rows<8><<<pieces, CUDA_THREADS, 0, stream>>>(a);
  add_pieces<<<(unsigned)((width + TILE - 1) / TILE), dim3(TILE, TILE), 0, stream>>>(pieces, width, scratch, sg);
}
