/* C (n, n), upper triangle, <- alpha AᵀA + beta C for some rows A (k, n), and, if wanted, its mirror image below.

   A block of threads owns a tile; its numbers are asked for all at once, before the sum begins. Up to 16 rows ordinary
   arithmetic is enough, then the matrix units. */
#include "cuda_large.cuh"

enum { FEW = CUDA_LARGE_FEW };

/* A tile, a warp's part of it, numbers of a sum at a time and steps in flight, blocks of threads on a processor. */
enum { TALL = 64, WIDE = 64, DOWN = 32, ALONG = 32, DEEP = 16, STAGES = 4, BLOCKS = 2 };
enum { WARPS_ALONG = WIDE / ALONG, GRAM_THREADS = TALL / DOWN * WARPS_ALONG * WARP };
enum { LEFT = DEEP * (TALL + PAD), STAGE = LEFT + DEEP * (WIDE + PAD), SHARED = STAGES * STAGE };

/* c[i][j]: the product of rows 16 i and columns 8 j of the warp's part. */
typedef double part[DOWN / 16][ALONG / 8][4];

/* `left`: of the numbers of the sum, those that are there. */
static __device__ inline void multiply_step(int left, const double *from, part c) {
  const struct lane lane = lane_of();
  const double *const l = from + lane.warp / WARPS_ALONG * DOWN + lane.group + lane.place * (TALL + PAD);
  const double *const r = from + LEFT + lane.warp % WARPS_ALONG * ALONG + lane.group + lane.place * (WIDE + PAD);
#pragma unroll
  for (int k = 0; k < DEEP; k += 8) {
    if (k >= left) break;
    double a[DOWN / 16][4];
#pragma unroll
    for (int i = 0; i < DOWN / 16; i++)
#pragma unroll
      for (int v = 0; v < 4; v++) a[i][v] = l[(k + v / 2 * 4) * (TALL + PAD) + i * 16 + v % 2 * 8];
#pragma unroll
    for (int j = 0; j < ALONG / 8; j++) {
      const double b[2] = {r[k * (WIDE + PAD) + 8 * j], r[(k + 4) * (WIDE + PAD) + 8 * j]};
#pragma unroll
      for (int i = 0; i < DOWN / 16; i++) multiply(a[i], b, c[i][j]);
    }
  }
}

/* Calls f(two numbers, row, column) for the pairs of neighbours that the lane holds; places within the tile. */
template <class F> static __device__ inline void each_pair(part c, F f) {
  const struct lane lane = lane_of();
#pragma unroll
  for (int i = 0; i < DOWN / 16; i++)
#pragma unroll
    for (int j = 0; j < ALONG / 8; j++)
#pragma unroll
      for (int h = 0; h < 2; h++)
        f(&c[i][j][2 * h], lane.warp / WARPS_ALONG * DOWN + 16 * i + lane.group + 8 * h,
          lane.warp % WARPS_ALONG * ALONG + 8 * j + 2 * lane.place);
}

/* Two neighbours of row `row` of C, or what stands for them beyond the edge: nothing here branches, so that all are
   asked for at once. */
template <bool PAIRED> static __device__ inline double2 load_pair(int n, const double *C, int row, int column) {
  const int last = PAIRED ? n - 2 : n - 1, c = min(column, last);
  const double *const at = &C[(int64_t)min(row, n - 1) * n];
  return PAIRED ? __ldcs((const double2 *)&at[c]) : make_double2(at[c], at[min(c + 1, last)]);
}

/* Two neighbours of C, those of them in the upper triangle. */
template <bool PAIRED> static __device__ inline void store_pair(int n, double *C, int row, int column, double2 pair) {
  double *const at = &C[(int64_t)row * n + column];
  if (PAIRED && column >= row && row < n && column + 1 < n) {
    __stcs((double2 *)at, pair);
  } else {
    if (column >= row && row < n && column < n) at[0] = pair.x;
    if (column + 1 >= row && row < n && column + 1 < n) at[1] = pair.y;
  }
}

/* A tile of C: its first row and column; whether it is within the triangle, so that its numbers need not be looked at
   one by one. What is read and written of C is not asked for again, and A is: it keeps its place in the cache. */
struct tile {
  int row, column;
  bool whole;
};

template <bool PAIRED> static __device__ inline struct tile tile_of(int n) {
  const struct place at = place_of(blockIdx.x, (n + WIDE - 1) / WIDE, 1);
  const int row = (int)at.strip * TALL, column = (int)at.column * WIDE;
  return {row, column, PAIRED && column >= row + TALL && column + WIDE <= n};
}

/* C comes while the sum is made: a barrier keeps its loads where they are asked for. */
template <bool PAIRED>
static __global__ void __launch_bounds__(GRAM_THREADS, BLOCKS)
    large_gram(int n, int k, double alpha, const double *A, double beta, bool both, double *C) {
  extern __shared__ double shared[];
  const struct tile tile = tile_of<PAIRED>(n);
  const int steps = (k + DEEP - 1) / DEEP;
  double *const corner = C + (int64_t)tile.row * n + tile.column;
  part c = {}, old = {};
  int to = 0, from = 0;
  auto fetch_step = [&](int step) {
    double *const at = shared + to * STAGE;
    if (step < steps) {
      fetch_tile<DEEP, TALL, GRAM_THREADS, PAIRED>(k, n, A, step * DEEP, tile.row, at);
      fetch_tile<DEEP, WIDE, GRAM_THREADS, PAIRED>(k, n, A, step * DEEP, tile.column, at + LEFT);
    }
    if (++to == STAGES) to = 0;
    __pipeline_commit();
  };
#pragma unroll 1
  for (int step = 0; step < STAGES - 1; step++) fetch_step(step);
  if (beta != 0 && tile.whole)
    each_pair(old, [=](double *pair, int row, int column) {
      const double2 there = __ldcs((const double2 *)&corner[(int64_t)row * n + column]);
      pair[0] = there.x, pair[1] = there.y;
    });
  else if (beta != 0)
    each_pair(old, [=](double *pair, int row, int column) {
      const double2 there = load_pair<PAIRED>(n, C, tile.row + row, tile.column + column);
      pair[0] = there.x, pair[1] = there.y;
    });
#pragma unroll 1
  for (int step = 0; step < steps; step++) {
    __pipeline_wait_prior(STAGES - 2);
    __syncthreads();
    fetch_step(step + STAGES - 1);
    multiply_step(k - step * DEEP, shared + from * STAGE, c);
    if (++from == STAGES) from = 0;
  }
#pragma unroll
  for (int i = 0; i < DOWN / 16; i++)
#pragma unroll
    for (int j = 0; j < ALONG / 8; j++)
#pragma unroll
      for (int v = 0; v < 4; v++) c[i][j][v] = alpha * c[i][j][v] + beta * old[i][j][v];
  if (tile.whole)
    each_pair(c, [=](const double *pair, int row, int column) {
      __stcs((double2 *)&corner[(int64_t)row * n + column], make_double2(pair[0], pair[1]));
    });
  else
    each_pair(c, [=](const double *pair, int row, int column) {
      store_pair<PAIRED>(n, C, tile.row + row, tile.column + column, make_double2(pair[0], pair[1]));
    });
  if (both)
    each_pair(c, [=](const double *pair, int row, int column) {
#pragma unroll
      for (int x = 0; x < 2; x++) {
        const int i = tile.row + row, j = tile.column + column + x;
        if (i < j && j < n) __stcs(&C[(int64_t)j * n + i], pair[x]);
      }
    });
}

/* The same for few rows A (k, n), k <= ROWS, perhaps 0, by ordinary arithmetic: a warp has 8 rows of the tile, a lane
   two neighbours of each. Rows beyond the last count as 0: a loop of known length is a fifth faster. What comes of A is
   asked for before C: it is waited for first. */
enum { OWN = TALL / WARPS, FEW_BLOCKS = 3 };
static_assert(WIDE == 2 * WARP, "a lane has two neighbours");

/* to (ROWS, 64 + PAD) <- A's columns [column, ...) */
template <int ROWS> static __device__ inline void fetch_few(int k, int n, const double *A, int column, double *to) {
  static_assert(TALL == WIDE, "either side");
#pragma unroll
  for (int e = (int)threadIdx.x; e < ROWS * WIDE; e += THREADS) {
    const int r = e / WIDE, j = e % WIDE;
    const bool there = r < k && column + j < n;
    __pipeline_memcpy_async(&to[r * (WIDE + PAD) + j], there ? &A[(int64_t)r * n + column + j] : A, sizeof *to,
                            there ? 0 : sizeof *to);
  }
}

template <int ROWS, bool PAIRED>
static __global__ void __launch_bounds__(THREADS, FEW_BLOCKS)
    large_gram_few(int n, int k, double alpha, const double *A, double beta, double *C) {
  __shared__ __align__(16) double left[ROWS * (TALL + PAD)], right[ROWS * (WIDE + PAD)];
  const struct tile tile = tile_of<PAIRED>(n);
  const int row = (int)threadIdx.x / WARP * OWN, column = (int)threadIdx.x % WARP * 2;
  double *const at = C + (int64_t)(tile.row + row) * n + tile.column + column;
  double2 c[OWN];
  fetch_few<ROWS>(k, n, A, tile.row, left);
  fetch_few<ROWS>(k, n, A, tile.column, right);
  __pipeline_commit();
  if (tile.whole)
#pragma unroll
    for (int i = 0; i < OWN; i++) c[i] = __ldcs((const double2 *)&at[(int64_t)i * n]);
  else
#pragma unroll
    for (int i = 0; i < OWN; i++) c[i] = load_pair<PAIRED>(n, C, tile.row + row + i, tile.column + column);
  __pipeline_wait_prior(0);
  __syncthreads();
#pragma unroll
  for (int i = 0; i < OWN; i++) c[i].x = beta == 0 ? 0 : beta * c[i].x, c[i].y = beta == 0 ? 0 : beta * c[i].y;
#pragma unroll 2
  for (int r = 0; r < ROWS; r++) {
    double2 b = *(const double2 *)&right[r * (WIDE + PAD) + column];
    b.x *= alpha, b.y *= alpha;
#pragma unroll
    for (int i = 0; i < OWN; i += 2) {
      const double2 a = *(const double2 *)&left[r * (TALL + PAD) + row + i];
      c[i].x += a.x * b.x, c[i].y += a.x * b.y;
      c[i + 1].x += a.y * b.x, c[i + 1].y += a.y * b.y;
    }
  }
  if (tile.whole)
#pragma unroll
    for (int i = 0; i < OWN; i++) __stcs((double2 *)&at[(int64_t)i * n], c[i]);
  else
#pragma unroll
    for (int i = 0; i < OWN; i++) store_pair<PAIRED>(n, C, tile.row + row + i, tile.column + column, c[i]);
}

void cuda_large_gram(int64_t n, int64_t k, double alpha, const double *A, double beta, bool both, double *C,
                     cudaStream_t stream) {
  const int64_t width = ceiling(n, WIDE);
  const unsigned tiles = (unsigned)first_of(width, width, 1);
  const bool pairs = paired(n, A, C);
  if (k <= FEW && !both) {
    const auto fewer = pairs ? large_gram_few<FEW / 2, true> : large_gram_few<FEW / 2, false>;
    const auto kernel = k <= FEW / 2 ? fewer : pairs ? large_gram_few<FEW, true> : large_gram_few<FEW, false>;
    kernel<<<tiles, THREADS, 0, stream>>>((int)n, (int)k, alpha, A, beta, C);
    return;
  }
  const int bytes = SHARED * (int)sizeof(double);
  const auto kernel = pairs ? large_gram<true> : large_gram<false>;
  cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  kernel<<<tiles, GRAM_THREADS, bytes, stream>>>((int)n, (int)k, alpha, A, beta, both, C);
}
