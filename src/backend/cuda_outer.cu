/* What cuBLAS leaves to do for rows H = J ⊗ a of a matrix (cuda_outer.c): a in double, the weighing of sums over a
   sample's a by J, the correction of few rows for pending ones, and a triangle's mirror image. */
#include "cuda_large.cuh"

enum { COLUMNS = 128, OUTPUTS = 16 };

static __global__ void __launch_bounds__(THREADS) outer_widen(int64_t n, const float *a, double *wide) {
  const int64_t k = (int64_t)blockIdx.x * THREADS + threadIdx.x;
  if (k < n) wide[k] = (double)a[k];
}

void cuda_outer_widen(int64_t n, const float *a, double *wide, cudaStream_t stream) {
  outer_widen<<<ceiling(n, THREADS), THREADS, 0, stream>>>(n, a, wide);
}

/* Z (n·m, p) <- keep Z + J (n, m, o) U (o, n, p); blockIdx.x: columns, y: the sample, z: OUTPUTS of its rows. */
static __global__ void __launch_bounds__(COLUMNS)
    outer_weigh(int64_t n, int64_t m, int64_t o, int64_t p, const float *J, const double *U, double keep, double *Z) {
  extern __shared__ double weights[]; /* (o, OUTPUTS) */
  const int64_t s = blockIdx.y, first = (int64_t)blockIdx.z * OUTPUTS, j = (int64_t)blockIdx.x * COLUMNS + threadIdx.x;
  const float *const from = J + (s * m + first) * o;
  for (int e = (int)threadIdx.x; e < o * OUTPUTS; e += COLUMNS) {
    const int r = e / (int)o, b = e % (int)o;
    weights[b * OUTPUTS + r] = first + r < m ? (double)from[r * o + b] : 0;
  }
  __syncthreads();
  if (j >= p) return;
  double sums[OUTPUTS] = {};
#pragma unroll 8
  for (int b = 0; b < o; b++) {
    const double u = U[(b * n + s) * p + j];
#pragma unroll
    for (int r = 0; r < OUTPUTS; r++) sums[r] += weights[b * OUTPUTS + r] * u;
  }
#pragma unroll
  for (int r = 0; r < OUTPUTS; r++) {
    double *const to = &Z[(s * m + first + r) * p + j];
    if (first + r < m) *to = keep == 0 ? sums[r] : keep * *to + sums[r];
  }
}

void cuda_outer_weigh(const struct kwm_device_outer *rows, int64_t p, const double *U, double keep, double *Z,
                      cudaStream_t stream) {
  const dim3 grid(ceiling(p, COLUMNS), (unsigned)rows->n, ceiling(rows->m, OUTPUTS));
  outer_weigh<<<grid, COLUMNS, (size_t)(rows->o * OUTPUTS) * sizeof(double), stream>>>(rows->n, rows->m, rows->o, p,
                                                                                       rows->J, U, keep, Z);
}

/* Z (m, p) -= G Y for G (m, k), Y (k, p), m <= 2 WARPS. A block of threads has 32 columns, a warp two rows of them; Y
   comes to shared memory in one piece, mostly, and is waited for once. */
enum { PIECE = 192, FEW = 2 * WARPS };
static_assert((int)FEW == (int)CUDA_LARGE_FEW, "a warp has two rows");

static __global__ void __launch_bounds__(THREADS)
    outer_less(int m, int p, int k, const double *G, const double *Y, double *Z) {
  extern __shared__ double values[]; /* (PIECE, WARP), then weights (FEW, PIECE) */
  double *const weights = values + PIECE * WARP;
  const int lane = (int)threadIdx.x % WARP, warp = (int)threadIdx.x / WARP, j = (int)blockIdx.x * WARP + lane;
  double sums[2] = {};
  for (int first = 0; first < k; first += PIECE) {
    const int count = min(k - first, (int)PIECE);
#pragma unroll 8
    for (int y = warp; y < count; y += WARPS) values[y * WARP + lane] = j < p ? Y[(int64_t)(first + y) * p + j] : 0;
#pragma unroll 4
    for (int e = (int)threadIdx.x; e < FEW * count; e += THREADS)
      weights[e / count * PIECE + e % count] = e / count < m ? G[(int64_t)(e / count) * k + first + e % count] : 0;
    __syncthreads();
#pragma unroll 8
    for (int y = 0; y < count; y++) {
      sums[0] += weights[warp * PIECE + y] * values[y * WARP + lane];
      sums[1] += weights[(warp + WARPS) * PIECE + y] * values[y * WARP + lane];
    }
    __syncthreads();
  }
  if (j < p && warp < m) Z[(int64_t)warp * p + j] -= sums[0];
  if (j < p && warp + WARPS < m) Z[(int64_t)(warp + WARPS) * p + j] -= sums[1];
}

void cuda_outer_less(int64_t m, int64_t p, int64_t k, const double *G, const double *Y, double *Z,
                     cudaStream_t stream) {
  const int bytes = PIECE * (WARP + FEW) * (int)sizeof(double);
  cudaFuncSetAttribute(outer_less, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  outer_less<<<ceiling(p, WARP), THREADS, bytes, stream>>>((int)m, (int)p, (int)k, G, Y, Z);
}

/* Below the diagonal of A (n, n) <- what is above; a block of threads has a square of it. */
enum { SQUARE = 64, DOWN = THREADS / SQUARE };

static __global__ void __launch_bounds__(THREADS) outer_mirror(int n, double *A) {
  extern __shared__ double square[]; /* (SQUARE, SQUARE + 1) */
  const struct place at = place_of(blockIdx.x, (n + SQUARE - 1) / SQUARE, 1);
  const int row = (int)at.strip * SQUARE, column = (int)at.column * SQUARE;
  const int c = (int)threadIdx.x % SQUARE, top = (int)threadIdx.x / SQUARE;
#pragma unroll
  for (int r = top; r < SQUARE; r += DOWN)
    if (row + r < n && column + c < n) square[r * (SQUARE + 1) + c] = A[(int64_t)(row + r) * n + column + c];
  __syncthreads();
#pragma unroll
  for (int r = top; r < SQUARE; r += DOWN) {
    const int i = column + r, j = row + c;
    if (j < i && i < n) A[(int64_t)i * n + j] = square[c * (SQUARE + 1) + r];
  }
}

void cuda_mirror_f64(int64_t n, double *A, cudaStream_t stream) {
  const int64_t width = ceiling(n, SQUARE);
  const int bytes = SQUARE * (SQUARE + 1) * (int)sizeof(double);
  outer_mirror<<<(unsigned)first_of(width, width, 1), THREADS, bytes, stream>>>((int)n, A);
}
