/* L⁻¹Z for the lower triangle L (r, r) and Z (r, p), the part that is not a product: at most CUDA_LARGE_SOLVE rows. 8
   lanes own a column, and each of them every eighth row of it, in registers: a step is a shuffle.

   cuda_large.c puts it together. Up to 256 rows: block by block, what the rows above have to do with each is a product.
   Beyond: the blocks on the diagonal of L are inverted in this way, all at once, and all of Z is products. */
#include "cuda_large.h"

enum { WARP = 32, WARPS = 8, THREADS = WARP * WARPS };

/* Rows of a column that one of its 8 lanes has; columns of a warp; of a block of threads. */
enum { SOLVE_OWN = CUDA_LARGE_SOLVE / 8, SOLVE_WARP = WARP / 8, SOLVE_BLOCK = SOLVE_WARP * WARPS };

static __host__ __device__ inline int solve_stride(int n) {
  return (n + 7) / 8 * 8 + 1;
}

/* Lᵀ (n, stride), zeros beyond the triangle, then 1 / its diagonal (n). */
static __device__ inline void solve_fetch(int n, const double *L, int64_t ldl, double *of) {
  const int stride = solve_stride(n);
  for (int e = (int)threadIdx.x; e < n * stride; e += THREADS) {
    const int i = e / n, k = e % n;
    of[k * stride + i] = i < n && k <= i ? L[i * ldl + k] : 0;
  }
  __syncthreads();
  for (int k = (int)threadIdx.x; k < n; k += THREADS) of[n * stride + k] = 1 / of[k * stride + k];
  __syncthreads();
}

/* B (n, k); blockIdx.y: one of many, `apart_L` and `apart_B` numbers from one to the next */
static __global__ void __launch_bounds__(THREADS)
    large_solve(int n, int64_t k, const double *L, int64_t ldl, int64_t apart_L, double *B, int64_t ldb,
                int64_t apart_B) {
  extern __shared__ double shared[];
  const int lane = (int)threadIdx.x % WARP, own = lane % 8, stride = solve_stride(n);
  const int64_t column = (int64_t)blockIdx.x * SOLVE_BLOCK + (int)threadIdx.x / 8;
  const double *const inverse = shared + n * stride;
  double z[SOLVE_OWN];
  L += blockIdx.y * apart_L, B += blockIdx.y * apart_B;
  solve_fetch(n, L, ldl, shared);
#pragma unroll
  for (int i = 0; i < SOLVE_OWN; i++) z[i] = 8 * i + own < n && column < k ? B[(8 * i + own) * ldb + column] : 0;
#pragma unroll
  for (int b = 0; b < SOLVE_OWN; b++)
    for (int s = 0; s < 8 && 8 * b + s < n; s++) {
      const double *const l = shared + (8 * b + s) * stride + own;
      const double x = __shfl_sync(0xffffffffu, z[b] * inverse[8 * b + s], lane / 8 * 8 + s);
      z[b] = own == s ? x : own > s ? z[b] - l[8 * b] * x : z[b];
#pragma unroll
      for (int i = b + 1; i < SOLVE_OWN; i++)
        if (8 * i < n) z[i] -= l[8 * i] * x;
    }
#pragma unroll
  for (int i = 0; i < SOLVE_OWN; i++)
    if (8 * i + own < n && column < k) B[(8 * i + own) * ldb + column] = z[i];
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
  large_frame<<<(unsigned)((N * N + 4 * THREADS - 1) / (4 * THREADS)), THREADS, 0, stream>>>(n, L, N, to, units);
}

void cuda_large_solve(const struct cuda_large_lower *lower, int64_t k, double *B, int64_t ldb, int64_t apart,
                      cudaStream_t stream) {
  const int rows = (int)lower->n, bytes = rows * (solve_stride(rows) + 1) * (int)sizeof(double);
  const dim3 grid((unsigned)((k + SOLVE_BLOCK - 1) / SOLVE_BLOCK), (unsigned)lower->count);
  cudaFuncSetAttribute(large_solve, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  large_solve<<<grid, THREADS, bytes, stream>>>(rows, k, lower->L, lower->ld, lower->apart, B, ldb, apart);
}
