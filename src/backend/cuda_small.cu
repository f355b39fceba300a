/* Products and factors so small that latency is all they cost, where the libraries' kernels, made for large ones, take
   up to seven times as long.

   A product: a block of threads owns a tile of C, a thread a number of it.

   A factor: one block of threads has all of S in shared memory, with x as one more row below it, which then ends as
   L⁻¹x. */
#include "cuda_small.h"

enum { EDGE = 16, THREADS = EDGE * EDGE, DEEP = 32 };

/* One operand's values: element (k, i) of the tile stands at M[k ld + i], or, if not ALONG, at M[i ld + k]; 0 beyond
   its edges. Neighbours in memory go to neighbouring threads. */
template <bool ALONG> struct operand {
  float values[EDGE * DEEP / THREADS];

  static __device__ inline int place(int e) {
    return ALONG ? e % EDGE : e / DEEP;
  }
  static __device__ inline int depth(int e) {
    return ALONG ? e / EDGE : e % DEEP;
  }
  __device__ inline void fetch(const float *M, int64_t ld, int64_t first, int64_t count, int64_t k, int64_t end) {
#pragma unroll
    for (int q = 0; q < EDGE * DEEP / THREADS; q++) {
      const int e = (int)threadIdx.x + q * THREADS;
      const int64_t i = first + place(e), at = k + depth(e);
      values[q] = i < count && at < end ? M[ALONG ? at * ld + i : i * ld + at] : 0.0f;
    }
  }
  __device__ inline void store(float (*to)[EDGE + 1]) const {
#pragma unroll
    for (int q = 0; q < EDGE * DEEP / THREADS; q++) {
      const int e = (int)threadIdx.x + q * THREADS;
      to[depth(e)][place(e)] = values[q];
    }
  }
};

/* What comes next is fetched while what is there is multiplied; two places for it, so that a turn waits once. */
template <bool TA, bool TB>
static __global__ void __launch_bounds__(THREADS)
    small_product(struct cuda_small s, float alpha, const float *A, const float *B, float beta, float *C) {
  __shared__ float left[2][DEEP][EDGE + 1], right[2][DEEP][EDGE + 1];
  const int64_t row = (int64_t)blockIdx.y * EDGE, column = (int64_t)blockIdx.x * EDGE;
  const int y = (int)threadIdx.x / EDGE, x = (int)threadIdx.x % EDGE;
  operand<TA> of_left;
  operand<!TB> of_right;
  float sum = 0;
  of_left.fetch(A, s.lda, row, s.m, 0, s.k);
  of_right.fetch(B, s.ldb, column, s.n, 0, s.k);
  for (int64_t k = 0; k < s.k; k += DEEP) {
    const int turn = (int)(k / DEEP % 2);
    of_left.store(left[turn]);
    of_right.store(right[turn]);
    __syncthreads();
    if (k + DEEP < s.k) {
      of_left.fetch(A, s.lda, row, s.m, k + DEEP, s.k);
      of_right.fetch(B, s.ldb, column, s.n, k + DEEP, s.k);
    }
#pragma unroll
    for (int d = 0; d < DEEP; d++) sum += left[turn][d][y] * right[turn][d][x];
  }
  if (row + y >= s.m || column + x >= s.n) return;
  float *const at = &C[(row + y) * s.ldc + column + x];
  *at = beta == 0 ? alpha * sum : alpha * sum + beta * *at;
}

/* Rows of S and x below it, each `stride` apart; then 1 / its diagonal. */
enum { FACTOR_THREADS = 512, WARP = 32, WARPS = FACTOR_THREADS / WARP };

static __host__ __device__ inline int factor_stride(int n) {
  return n | 1;
}

/* False, to all threads: not positive definite. Ends with the block in step. */
static __device__ inline bool factor_rows(int n, double *rows, double *over) {
  const int stride = factor_stride(n), lane = (int)threadIdx.x % WARP, warp = (int)threadIdx.x / WARP;
  bool good = true;
  for (int j = 0; j < n && good; j++) {
    __syncthreads();
    const double pivot = rows[j * stride + j], scale = rsqrt(pivot);
    good = pivot > 0 && isfinite(pivot);
    for (int i = j + 1 + (int)threadIdx.x; i <= n; i += FACTOR_THREADS) rows[i * stride + j] *= scale;
    __syncthreads();
    if (threadIdx.x == 0) rows[j * stride + j] = pivot * scale, over[j] = scale;
    for (int i = j + 1 + warp; i <= n; i += WARPS) {
      const double left = rows[i * stride + j];
      for (int k = j + 1 + lane; k <= i && k < n; k += WARP) rows[i * stride + k] -= left * rows[k * stride + j];
    }
  }
  __syncthreads();
  return good;
}

static __global__ void __launch_bounds__(FACTOR_THREADS) small_factor(int n, double *S, double *x) {
  extern __shared__ double rows[];
  const int stride = factor_stride(n);
  double *const y = rows + n * stride, *const over = y + stride;
  for (int e = (int)threadIdx.x; e < n * n; e += FACTOR_THREADS)
    if (e % n <= e / n) rows[e / n * stride + e % n] = S[e];
  for (int k = (int)threadIdx.x; k < n; k += FACTOR_THREADS) y[k] = x[k];
  const bool good = factor_rows(n, rows, over);
  for (int e = (int)threadIdx.x; e < n * n; e += FACTOR_THREADS)
    if (e % n <= e / n) S[e] = rows[e / n * stride + e % n];
  if (threadIdx.x >= WARP) return;
  for (int j = n - 1; j >= 0 && good; j--) {
    const double found = y[j] * over[j];
    __syncwarp();
    for (int i = (int)threadIdx.x; i < j; i += WARP) y[i] -= rows[j * stride + i] * found;
    if (threadIdx.x == 0) y[j] = found;
    __syncwarp();
  }
  for (int k = (int)threadIdx.x; k < n; k += WARP) x[k] = good ? y[k] : nan("");
}

/* Tiles for about one block of threads on each processor, and no long sums: else cuBLAS is faster (measured on an
   H200). */
enum { TILES_MOST = 160, DEEP_MOST = 320 };

static int64_t tiles_along(int64_t n) {
  return (n + EDGE - 1) / EDGE;
}

bool cuda_small_is(const struct cuda_small *small) {
  return small->k > 0 && small->k <= DEEP_MOST && small->m <= TILES_MOST * EDGE && small->n <= TILES_MOST * EDGE &&
         tiles_along(small->m) * tiles_along(small->n) <= TILES_MOST;
}

void cuda_small_product(const struct cuda_small *small, float alpha, const float *A, const float *B, float beta,
                        float *C, cudaStream_t stream) {
  const dim3 grid((unsigned)tiles_along(small->n), (unsigned)tiles_along(small->m));
  const auto for_a = small->transpose_b ? small_product<true, true> : small_product<true, false>;
  const auto for_plain = small->transpose_b ? small_product<false, true> : small_product<false, false>;
  const auto kernel = small->transpose_a ? for_a : for_plain;
  kernel<<<grid, THREADS, 0, stream>>>(*small, alpha, A, B, beta, C);
}

void cuda_small_factor(int64_t n, double *S, double *x, cudaStream_t stream) {
  const int bytes = (int)((n + 2) * factor_stride((int)n)) * (int)sizeof(double);
  cudaFuncSetAttribute(small_factor, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  small_factor<<<1, FACTOR_THREADS, bytes, stream>>>((int)n, S, x);
}
