/* L⁻¹Z for the lower triangle L (r, r) and Z (r, p), the part that is not a product: at most CUDA_LARGE_SOLVE rows.

   A warp has 8 columns of Z in registers, in groups of 8 rows. A group is multiplied by the inverse of its part of the
   diagonal, and the groups below it lose what it has to do with them, by the matrix units: for Zᵀ and Lᵀ what a product
   leaves in a lane is what the next one wants there, if the numbers of a sum are taken in another order.

   cuda_large.c puts it together. Up to 256 rows: block by block, what the rows above have to do with each is a product.
   Beyond: the blocks on the diagonal of L are inverted in this way, all at once, and all of Z is products. */
#include "cuda_large.cuh"

/* Columns of a block of threads, and threads. */
enum { SOLVE_WARPS = 4, SOLVE_THREADS = SOLVE_WARPS * WARP, COLUMNS = 8 * SOLVE_WARPS };

/* A row in shared memory: pairs that two groups read at once lie in different banks. */
static __host__ __device__ inline int stride_of(int n) {
  return (n + 7) / 16 * 16 + 8;
}

/* lower (n rounded up to 8, stride) <- L, zeros above the diagonal and beyond it. */
static __device__ inline void load_lower(int n, const double *L, int64_t ldl, double *lower) {
  const int stride = stride_of(n), rows = (n + 7) / 8 * 8;
  for (int i = (int)threadIdx.x / WARP; i < rows; i += SOLVE_WARPS)
    for (int k = (int)threadIdx.x % WARP; k < rows; k += WARP) {
      const bool there = i < n && k <= i;
      __pipeline_memcpy_async(&lower[i * stride + k], there ? &L[i * ldl + k] : L, sizeof *L, there ? 0 : sizeof *L);
    }
  __pipeline_commit();
}

/* inverses (n, 8) <- of the squares (8, 8) on lower's diagonal; a thread has a column of one. */
static __device__ inline void invert_diagonal(int n, const double *lower, double *inverses) {
  const int stride = stride_of(n), own = (int)threadIdx.x % 8;
  for (int first = (int)threadIdx.x / 8 * 8; first < n; first += SOLVE_THREADS) {
    const double *const square = lower + first * (stride + 1);
    double x[8];
#pragma unroll
    for (int i = 0; i < 8; i++) {
      double left = i == own;
#pragma unroll
      for (int k = 0; k < i; k++) left -= square[i * stride + k] * x[k];
      x[i] = i >= own && first + i < n ? left / square[i * stride + i] : 0;
      inverses[(first + i) * 8 + own] = x[i];
    }
  }
}

/* Each B (n, k) <- L⁻¹B, n <= 8 GROUPS; blockIdx.y: one of many, `apart` numbers from one to the next. */
template <int GROUPS>
static __global__ void __launch_bounds__(SOLVE_THREADS)
    large_solve(struct cuda_large_lower of, int64_t k, double *B, int64_t ldb, int64_t apart) {
  extern __shared__ double lower[];
  const struct lane lane = lane_of();
  const int n = (int)of.n, stride = stride_of(n), groups = (n + 7) / 8;
  double *const inverses = lower + 8 * groups * stride;
  const int64_t column = (int64_t)blockIdx.x * COLUMNS + lane.warp * 8 + lane.group;
  double z[GROUPS][2];
  load_lower(n, of.L + blockIdx.y * of.apart, of.ld, lower);
  B += blockIdx.y * apart;
#pragma unroll
  for (int g = 0; g < GROUPS; g++)
#pragma unroll
    for (int x = 0; x < 2; x++) {
      const int row = 8 * g + 2 * lane.place + x;
      z[g][x] = row < n && column < k ? B[row * ldb + column] : 0;
    }
  __pipeline_wait_prior(0);
  __syncthreads();
  invert_diagonal(n, lower, inverses);
  __syncthreads();
#pragma unroll
  for (int g = 0; g < GROUPS; g++) {
    if (g >= groups) break;
    const double2 own = *(const double2 *)&inverses[(8 * g + lane.group) * 8 + 2 * lane.place];
    double solved[2] = {};
    multiply_small(z[g][0], own.x, solved);
    multiply_small(z[g][1], own.y, solved);
    z[g][0] = solved[0], z[g][1] = solved[1];
#pragma unroll
    for (int below = g + 1; below < GROUPS; below++) {
      if (below >= groups) break;
      const double2 l = *(const double2 *)&lower[(8 * below + lane.group) * stride + 8 * g + 2 * lane.place];
      multiply_small(-solved[0], l.x, z[below]);
      multiply_small(-solved[1], l.y, z[below]);
    }
  }
#pragma unroll
  for (int g = 0; g < GROUPS; g++)
#pragma unroll
    for (int x = 0; x < 2; x++) {
      const int row = 8 * g + 2 * lane.place + x;
      if (row < n && column < k) B[row * ldb + column] = z[g][x];
    }
}

/* to (N, N) <- L (n, n), its lower triangle, zeros above it, ones on the rest of the diagonal; units (N, N): 1 on the
   diagonal, 0 elsewhere. */
static __global__ void __launch_bounds__(THREADS)
    large_frame(int64_t n, const double *L, int64_t N, double *to, double *units) {
  for (int64_t k = (int64_t)blockIdx.x * THREADS + threadIdx.x; k < N * N; k += (int64_t)gridDim.x * THREADS) {
    const int64_t i = k / N, j = k % N;
    units[k] = i == j;
    to[k] = i < n && j <= i ? L[i * n + j] : i == j;
  }
}

void cuda_large_frame(int64_t n, const double *L, int64_t N, double *to, double *units, cudaStream_t stream) {
  large_frame<<<ceiling(N * N, 4 * THREADS), THREADS, 0, stream>>>(n, L, N, to, units);
}

void cuda_large_solve(const struct cuda_large_lower *lower, int64_t k, double *B, int64_t ldb, int64_t apart,
                      cudaStream_t stream) {
  const int n = (int)lower->n, bytes = (n + 7) / 8 * 8 * (stride_of(n) + 8) * (int)sizeof(double);
  const dim3 grid(ceiling(k, COLUMNS), (unsigned)lower->count);
  const auto kernel = n <= 16 ? large_solve<2> : large_solve<CUDA_LARGE_SOLVE / 8>;
  cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  kernel<<<grid, SOLVE_THREADS, bytes, stream>>>(*lower, k, B, ldb, apart);
}
