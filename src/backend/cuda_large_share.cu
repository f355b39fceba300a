/* S <- keep S + Z Hᵀ for at most CUDA_LARGE_FEW rows Z, H (m, n): a long sum of a few numbers.

   Each warp has columns of its own, and the matrix units' product; a block of threads adds its warps' sums, and the
   block that ends last adds the blocks', all in their order. */
#include "cuda_large.cuh"

enum { ROWS = CUDA_LARGE_FEW, SQUARE = ROWS * ROWS, STEPS = 4, COLUMNS = WARPS * STEPS * 8 };
static_assert(SQUARE == THREADS, "a thread has a number of S");

/* Two neighbours of row r of A (m, n), 0 beyond it. */
static __device__ inline double2 load_pair(int64_t m, int64_t n, const double *A, int64_t r, int64_t column) {
  if (r >= m || column >= n) return make_double2(0, 0);
  const double *const at = &A[r * n + column];
  return make_double2(at[0], column + 1 < n ? at[1] : 0);
}

/* c (16 x 16, two halves) += Z Hᵀ over the columns [column, column + 8). Numbers of the sum are taken in another order
   than the columns', the same for both. */
static __device__ inline void add_columns(int64_t m, int64_t n, const double *Z, const double *H, int64_t column,
                                          double c[2][4]) {
  const struct lane lane = lane_of();
  const int64_t at = column + 2 * lane.place;
  double2 z[2], h[2];
#pragma unroll
  for (int v = 0; v < 2; v++) {
    z[v] = load_pair(m, n, Z, lane.group + 8 * v, at);
    h[v] = load_pair(m, n, H, lane.group + 8 * v, at);
  }
  const double a[4] = {z[0].x, z[1].x, z[0].y, z[1].y};
#pragma unroll
  for (int v = 0; v < 2; v++) {
    const double b[2] = {h[v].x, h[v].y};
    multiply(a, b, c[v]);
  }
}

/* The sum of `count` squares' own number. */
static __device__ inline double sum_squares(int count, const double *squares) {
  double sum = 0;
#pragma unroll 8
  for (int k = 0; k < count; k++) sum += squares[k * SQUARE + threadIdx.x];
  return sum;
}

static __global__ void __launch_bounds__(THREADS) large_share(int64_t m, int64_t n, const double *Z, const double *H,
                                                              double keep, double *S, double *parts, unsigned *done) {
  __shared__ double sums[WARPS * SQUARE];
  __shared__ bool last;
  const struct lane lane = lane_of();
  double c[2][4] = {};
#pragma unroll
  for (int step = 0; step < STEPS; step++)
    add_columns(m, n, Z, H, (int64_t)blockIdx.x * COLUMNS + (lane.warp * STEPS + step) * 8, c);
#pragma unroll
  for (int v = 0; v < 8; v++)
    sums[lane.warp * SQUARE + (lane.group + v % 4 / 2 * 8) * ROWS + v / 4 * 8 + 2 * lane.place + v % 2] =
        c[v / 4][v % 4];
  __syncthreads();
  parts[blockIdx.x * SQUARE + threadIdx.x] = sum_squares(WARPS, sums);
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) last = atomicInc(done, gridDim.x - 1) == gridDim.x - 1;
  __syncthreads();
  if (!last) return;
  __threadfence();
  const int i = (int)threadIdx.x / ROWS, j = (int)threadIdx.x % ROWS;
  if (i >= m || j >= m) return;
  const double sum = sum_squares((int)gridDim.x, parts);
  S[i * m + j] = keep == 0 ? sum : keep * S[i * m + j] + sum;
}

int64_t cuda_large_share_parts(int64_t n) {
  return (int64_t)ceiling(n, COLUMNS) * SQUARE;
}

void cuda_large_share(int64_t m, int64_t n, const double *Z, const double *H, double keep, double *S, double *parts,
                      unsigned *done, cudaStream_t stream) {
  large_share<<<ceiling(n, COLUMNS), THREADS, 0, stream>>>(m, n, Z, H, keep, S, parts, done);
}
