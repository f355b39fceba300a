/* What lies between the matrix products that improve a basis (tensor_basis.c says what it does), and around cuSOLVER.
 */
#include "cuda_map.cuh"
#include "cuda_tensor.h"

static constexpr int TILE = 32, TILE_ROWS = 8;

static unsigned tiles(int64_t n) {
  return (unsigned)((n + TILE - 1) / TILE);
}

static __global__ void __launch_bounds__(CUDA_THREADS) damping_of(int64_t n, const float *A, double *damping) {
  double sum[1] = {};
  for (int64_t k = threadIdx.x; k < n; k += CUDA_THREADS) sum[0] += (double)A[k * n + k];
  cuda_block_sums<1>(sum);
  if (threadIdx.x == 0) *damping = TENSOR_DAMPING * (sum[0] / (double)n);
}

void cuda_tensor_damping(int64_t n, const float *A, double *damping, cudaStream_t stream) {
  damping_of<<<1, CUDA_THREADS, 0, stream>>>(n, A, damping);
}

static __global__ void __launch_bounds__(CUDA_THREADS)
    damp(int64_t n, const float *A, const double *damping, float *B, int *not_finite) {
  const float added = (float)*damping;
  for (int64_t row = blockIdx.y; row < n; row += gridDim.y)
    for (int64_t column = cuda_thread(); column < n; column += cuda_stride()) {
      const float value = A[row * n + column] + (row == column ? added : 0.0f);
      if (!isfinite(value)) *not_finite = 1;
      B[row * n + column] = value;
    }
}

void cuda_tensor_damp(int64_t n, const float *A, const double *damping, float *B, int *not_finite,
                      cudaStream_t stream) {
  damp<<<cuda_grid(n, n), CUDA_THREADS, 0, stream>>>(n, A, damping, B, not_finite);
}

static __global__ void __launch_bounds__(CUDA_THREADS) check(int64_t n, const float *B, int *not_finite) {
  for (int64_t k = cuda_thread(); k < n; k += cuda_stride())
    if (!isfinite(B[k])) *not_finite = 1;
}

void cuda_tensor_check(int64_t n, const float *B, int *not_finite, cudaStream_t stream) {
  check<<<cuda_blocks(n * n), CUDA_THREADS, 0, stream>>>(n * n, B, not_finite);
}

static __global__ void turn(int64_t n, const float *B, float *U) {
  __shared__ float tile[TILE][TILE + 1];
  const int64_t top = (int64_t)blockIdx.y * TILE, left = (int64_t)blockIdx.x * TILE;
  for (unsigned k = threadIdx.y; k < TILE; k += TILE_ROWS)
    if (top + k < n && left + threadIdx.x < n) tile[k][threadIdx.x] = B[(top + k) * n + left + threadIdx.x];
  __syncthreads();
  for (unsigned k = threadIdx.y; k < TILE; k += TILE_ROWS)
    if (left + k < n && top + threadIdx.x < n) U[(left + k) * n + top + threadIdx.x] = tile[threadIdx.x][k];
}

void cuda_tensor_turn(int64_t n, const float *B, float *U, cudaStream_t stream) {
  turn<<<dim3(tiles(n), tiles(n)), dim3(TILE, TILE_ROWS), 0, stream>>>(n, B, U);
}

/* A tile on or above the diagonal, and what mirrors it. */
static __global__ void first_order(int64_t n, const float *R, const double *damping, float *X) {
  __shared__ float tile[TILE][TILE + 1];
  if (blockIdx.x < blockIdx.y) return;
  const int64_t top = (int64_t)blockIdx.y * TILE, left = (int64_t)blockIdx.x * TILE;
  const double added = *damping;
  for (unsigned k = threadIdx.y; k < TILE; k += TILE_ROWS) {
    const int64_t i = top + k, j = left + threadIdx.x;
    if (i >= n || j >= n) continue;
    tile[k][threadIdx.x] =
        i < j ? tensor_angle((double)R[i * n + i] + added, (double)R[j * n + j] + added, (double)R[i * n + j]) : 0.0f;
    if (i <= j) X[i * n + j] = tile[k][threadIdx.x];
  }
  __syncthreads();
  for (unsigned k = threadIdx.y; k < TILE; k += TILE_ROWS) {
    const int64_t i = left + k, j = top + threadIdx.x;
    if (i < n && j < i) X[i * n + j] = -tile[threadIdx.x][k];
  }
}

void cuda_tensor_first_order(int64_t n, const float *R, const double *damping, float *X, cudaStream_t stream) {
  first_order<<<dim3(tiles(n), tiles(n)), dim3(TILE, TILE_ROWS), 0, stream>>>(n, R, damping, X);
}

/* The sum of the squares, and the trace. */
static __global__ void __launch_bounds__(CUDA_THREADS)
    bound(int64_t n, const float *G, struct tensor_newton *newton, const struct cuda_scratch scratch) {
  double sums[2] = {};
  for (int64_t k = cuda_thread(); k < n * n; k += cuda_stride()) sums[0] += (double)G[k] * (double)G[k];
  for (int64_t k = cuda_thread(); k < n; k += cuda_stride()) sums[1] += (double)G[k * n + k];
  cuda_block_sums<2>(sums);
  if (!cuda_last_block<2>(sums, scratch)) return;
  double total[2] = {};
  cuda_add_parts<2>(scratch, 0, gridDim.x, total);
  if (threadIdx.x == 0) *newton = tensor_newton_of(n, total[1], total[0]);
}

void cuda_tensor_bound(int64_t n, const float *G, struct tensor_newton *newton, const struct cuda_scratch *scratch,
                       cudaStream_t stream) {
  const unsigned wanted = cuda_blocks(n * n), blocks = wanted < CUDA_PARTS ? wanted : (unsigned)CUDA_PARTS;
  bound<<<blocks, CUDA_THREADS, 0, stream>>>(n, G, newton, *scratch);
}

static __device__ void shift_all(int64_t n, float diagonal, float scale, float *M) {
  for (int64_t row = blockIdx.y; row < n; row += gridDim.y)
    for (int64_t column = cuda_thread(); column < n; column += cuda_stride()) {
      const float value = scale * M[row * n + column];
      M[row * n + column] = row == column ? diagonal + value : value;
    }
}

static __global__ void __launch_bounds__(CUDA_THREADS)
    shift(int64_t n, int power, float diagonal, const struct tensor_newton *newton, float *M) {
  shift_all(n, diagonal, (float)(power == 1 ? newton->scale : newton->scale * newton->scale), M);
}

void cuda_tensor_shift(int64_t n, int power, bool shifts, const struct tensor_newton *newton, float *M,
                       cudaStream_t stream) {
  shift<<<cuda_grid(n, n), CUDA_THREADS, 0, stream>>>(n, power, shifts ? 1.0f : 0.0f, newton, M);
}

static __global__ void __launch_bounds__(CUDA_THREADS)
    newton_step(int64_t n, int step, const struct tensor_newton *newton, float *M) {
  shift_all(n, (float)newton->keep[step], (float)-newton->cut[step], M);
}

void cuda_tensor_newton(int64_t n, int step, const struct tensor_newton *newton, float *M, cudaStream_t stream) {
  newton_step<<<cuda_grid(n, n), CUDA_THREADS, 0, stream>>>(n, step, newton, M);
}

static __global__ void add_both(int64_t n, const float *Z, float *H) {
  __shared__ float tile[TILE][TILE + 1];
  const int64_t top = (int64_t)blockIdx.y * TILE, left = (int64_t)blockIdx.x * TILE;
  for (unsigned k = threadIdx.y; k < TILE; k += TILE_ROWS)
    if (left + k < n && top + threadIdx.x < n) tile[k][threadIdx.x] = Z[(left + k) * n + top + threadIdx.x];
  __syncthreads();
  for (unsigned k = threadIdx.y; k < TILE; k += TILE_ROWS)
    if (top + k < n && left + threadIdx.x < n) {
      const int64_t at = (top + k) * n + left + threadIdx.x;
      H[at] += Z[at] + tile[threadIdx.x][k];
    }
}

void cuda_tensor_add_both(int64_t n, const float *Z, float *H, cudaStream_t stream) {
  add_both<<<dim3(tiles(n), tiles(n)), dim3(TILE, TILE_ROWS), 0, stream>>>(n, Z, H);
}

static __global__ void __launch_bounds__(CUDA_THREADS)
    follow(int64_t n, int step, const struct tensor_newton *newton, const float *H, const float *P, float *Z) {
  const double cut = newton->cut[step], kept = newton->keep[step] - cut;
  for (int64_t row = blockIdx.y; row < n; row += gridDim.y)
    for (int64_t column = cuda_thread(); column < n; column += cuda_stride()) {
      const int64_t at = row * n + column;
      const float value = (float)kept * Z[at] - (float)cut * (H[at] + P[at]);
      Z[at] = row == column ? (float)(kept - 1) + value : value;
    }
}

void cuda_tensor_follow(int64_t n, int step, const struct tensor_newton *newton, const float *H, const float *P,
                        float *Z, cudaStream_t stream) {
  follow<<<cuda_grid(n, n), CUDA_THREADS, 0, stream>>>(n, step, newton, H, P, Z);
}

static __global__ void __launch_bounds__(CUDA_THREADS) split(int64_t n, const float *x, float *high, float *low) {
  for (int64_t k = cuda_thread(); k < n; k += cuda_stride()) {
    const float value = x[k], part = __uint_as_float(__float_as_uint(value) & 0xFFFFE000u);
    high[k] = part;
    low[k] = value - part;
  }
}

void cuda_tensor_split(int64_t n, const float *x, float *high, float *low, cudaStream_t stream) {
  split<<<cuda_blocks(n), CUDA_THREADS, 0, stream>>>(n, x, high, low);
}
