/* The measurement update of one large symmetric matrix P (p, p) by r rows: Z = H P and P <- P - ZᵀZ, on the upper
   triangle, with the matrix units for double precision.

   At least, at 2.9 TB/s of memory and 60 TFLOP/s, for p = 5120: 36 µs for each of the three times that a triangle is
   read or written, or, from r = 40 on (H P) and 160 on, the 2p²r and p²r operations: 1311 µs in all for r = 1000.

   H P      Up to 16 rows: each tile of the triangle is read once and serves twice, as it is and as its mirror image. A
            block of threads takes a run of tiles along a strip; its sums go to parts, which a second kernel adds in
            their order. More rows: cuBLAS.
   P - ZᵀZ  A block of threads owns a tile; its numbers are asked for all at once, before the sum begins and while other
            blocks calculate. Up to 16 rows ordinary arithmetic is enough, then the matrix units; many rows: cuBLAS. */
#include <cuda_pipeline.h>

#include "cuda_large.h"

enum { WARP = 32, WARPS = 8, THREADS = WARP * WARPS, PART = 32 };
/* Numbers of a sum at a time. A row in shared memory is 4 longer than what it holds: then the 4 x 4 numbers that half a
   warp reads at once lie in different banks. */
enum { DEEP = 16, PAD = 4, FEW = CUDA_LARGE_FEW };

/* Where a lane stands in a 16 x 8 product: row and column group, place in the group. */
struct lane {
  int warp, group, place;
};

static __device__ inline struct lane lane_of(void) {
  const int thread = (int)threadIdx.x, lane = thread % WARP;
  return {thread / WARP, lane / 4, lane % 4};
}

/* c (16 x 8) += a (16 x 8) b (8 x 8). a: (group + 8 h, place + 4 q) at h + 2 q; b: (place + 4 q, group) at q; c: (group
   + 8 h, 2 place + x) at 2 h + x. */
static __device__ inline void multiply(const double a[4], const double b[2], double c[4]) {
#if __CUDA_ARCH__ >= 900
  asm("mma.sync.aligned.m16n8k8.row.col.f64.f64.f64.f64 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+d"(c[0]), "+d"(c[1]), "+d"(c[2]), "+d"(c[3])
      : "d"(a[0]), "d"(a[1]), "d"(a[2]), "d"(a[3]), "d"(b[0]), "d"(b[1]));
#else
  for (int q = 0; q < 2; q++)
    for (int h = 0; h < 2; h++)
      asm("mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64 {%0, %1}, {%2}, {%3}, {%0, %1};"
          : "+d"(c[2 * h]), "+d"(c[2 * h + 1])
          : "d"(a[h + 2 * q]), "d"(b[q]));
#endif
}

/* to (2) <- from (2) beside the calculation, where `there` says how many there are; 0 for the others. */
template <bool PAIRED> static __device__ inline void fetch(double *to, const double *from, int there) {
  if (PAIRED) {
    __pipeline_memcpy_async(to, from, 2 * sizeof *to, there > 0 ? 0 : 2 * sizeof *to);
  } else {
    __pipeline_memcpy_async(to, from, sizeof *to, there > 0 ? 0 : sizeof *to);
    __pipeline_memcpy_async(to + 1, there > 1 ? from + 1 : from, sizeof *to, there > 1 ? 0 : sizeof *to);
  }
}

/* to (ROWS, WIDTH + PAD) <- rows [first, ...) and columns [column, ...) of A (k, n), 0 beyond it; by COUNT threads. */
template <int ROWS, int WIDTH, int COUNT, bool PAIRED>
static __device__ inline void fetch_tile(int64_t k, int64_t n, const double *A, int64_t first, int64_t column,
                                         double *to) {
  constexpr int turn = COUNT / (WIDTH / 2);
  static_assert(ROWS % turn == 0, "each thread has as many rows");
  const int top = (int)threadIdx.x / (WIDTH / 2), c = (int)threadIdx.x % (WIDTH / 2) * 2;
  const int64_t left = n - column - c;
  const int rows = (int)(k - first < ROWS ? k - first : ROWS), most = left < 0 ? 0 : left > 2 ? 2 : (int)left;
  const double *const from = A + (first + top) * n + column + c;
#pragma unroll
  for (int r = 0; r < ROWS; r += turn) {
    const int there = top + r < rows ? most : 0;
    fetch<PAIRED>(&to[(top + r) * (WIDTH + PAD) + c], there > 0 ? from + r * n : A, there);
  }
}

/* H P for few rows. A tile has SYMM_TALL rows (a strip's) and SYMM_WIDE columns and comes in slabs of rows. */
enum { SYMM_ROWS = FEW, SYMM_TALL = 128, SYMM_WIDE = 64, SLAB = 32, SLABS = SYMM_TALL / SLAB };
enum { ACROSS = SYMM_WIDE + PAD, DOWN = SYMM_TALL + PAD, SLAB_SIZE = SLAB * ACROSS, AHEAD_SIZE = SYMM_ROWS * ACROSS };

/* Slabs in flight, and tiles whose columns of H are held meanwhile: two blocks of threads find room for it. */
enum { RING = SLABS, RINGS = RING / SLABS + 1 };
enum { SYMM_SHARED = RING * SLAB_SIZE + RINGS * AHEAD_SIZE + SYMM_ROWS * DOWN };

/* Tile number `tile` of the triangle, strip by strip: its strip and column of tiles. */
struct place {
  int64_t strip, column;
};

static __host__ __device__ inline int64_t first_of(int64_t strip, int64_t columns) {
  return strip * columns - strip * (strip - 1) * (SYMM_TALL / SYMM_WIDE) / 2;
}

/* The first row of tiles has `width`, each other one `less` fewer than the one above. */
static __device__ inline struct place place_of(int64_t tile, int64_t width, int64_t less) {
  struct place at = {0, tile};
  for (; at.column >= width; width -= less) at.column -= width, at.strip++;
  return {at.strip, at.column + at.strip * less};
}

static __device__ inline void advance(struct place *at, int64_t columns) {
  if (++at->column == columns) at->column = ++at->strip * (SYMM_TALL / SYMM_WIDE);
}

/* The block of threads that takes a tile. */
static __device__ inline int64_t taker_of(int64_t tile, int64_t tiles, int64_t blocks) {
  return ((tile + 1) * blocks - 1) / tiles;
}

/* across (16 rows of H, 8 columns of the warp) += H of the strip times the slab; along (16, 8 rows of the warp) += H of
   the tile's columns times the slab's mirror image, over the warp's half of the columns. `below`: how far the slab's
   first row lies below the tile's first column. */
template <bool DIAGONAL>
static __device__ inline void symm_multiply(int below, const double *slab, const double *of_rows,
                                            const double *of_columns, double across[4], double along[4]) {
  const struct lane lane = lane_of();
  const int half = lane.warp / 4 * (SYMM_WIDE / 2), part = lane.warp % 4 * 8;
#pragma unroll
  for (int k = 0; k < SLAB; k += 8) {
    const double *const h = of_rows + lane.group * DOWN + k + lane.place;
    const double *const p = slab + (k + lane.place) * ACROSS + lane.warp * 8 + lane.group;
    const double a[4] = {h[0], h[8 * DOWN], h[4], h[8 * DOWN + 4]};
    const int beyond = below + k + lane.place - lane.warp * 8 - lane.group;
    const double b[2] = {DIAGONAL && beyond > 0 ? 0 : p[0], DIAGONAL && beyond > -4 ? 0 : p[4 * ACROSS]};
    multiply(a, b, across);
  }
#pragma unroll
  for (int k = half; k < half + SYMM_WIDE / 2; k += 8) {
    const double *const h = of_columns + lane.group * ACROSS + k + lane.place;
    const double *const p = slab + (part + lane.group) * ACROSS + k + lane.place;
    const double a[4] = {h[0], h[8 * ACROSS], h[4], h[8 * ACROSS + 4]};
    const int beyond = below + part + lane.group - k - lane.place;
    const double b[2] = {DIAGONAL && beyond >= 0 ? 0 : p[0], DIAGONAL && beyond >= 4 ? 0 : p[4]};
    multiply(a, b, along);
  }
}

/* part (m, n), columns [column, column + 8) <- c */
static __device__ inline void symm_store(int64_t m, int64_t n, int64_t column, const double c[4], double *part) {
  const struct lane lane = lane_of();
#pragma unroll
  for (int v = 0; v < 4; v++) {
    const int64_t r = lane.group + v / 2 * 8, j = column + 2 * lane.place + v % 2;
    if (r < m && j < n) part[r * n + j] = c[v];
  }
}

/* What a strip's rows have got, two halves for each block of threads: parts (sharers, 2, m, n). */
static __device__ inline void symm_flush(int64_t m, int64_t n, int64_t strip, double along[SLABS][4], double *parts) {
  const struct lane lane = lane_of();
#pragma unroll
  for (int s = 0; s < SLABS; s++) {
    symm_store(m, n, strip * SYMM_TALL + s * SLAB + lane.warp % 4 * 8, along[s], parts + lane.warp / 4 * m * n);
    for (int v = 0; v < 4; v++) along[s][v] = 0;
  }
}

/* parts (strips + 2 sharers, m, n) <- sums of H (m, n) times the upper triangle of P (n, n) and its mirror image. */
template <bool PAIRED>
static __global__ void __launch_bounds__(THREADS, CUDA_LARGE_BLOCKS)
    large_symm(int64_t m, int64_t n, int64_t strips, const double *P, const double *H, double *parts) {
  extern __shared__ double shared[];
  double *const rings = shared + RING * SLAB_SIZE, *const of_rows = rings + RINGS * AHEAD_SIZE;
  const int64_t columns = (n + SYMM_WIDE - 1) / SYMM_WIDE, tiles = first_of(strips, columns);
  const int64_t begin = blockIdx.x * tiles / gridDim.x, end = (blockIdx.x + 1) * tiles / gridDim.x;
  struct place at = place_of(begin, columns, SYMM_TALL / SYMM_WIDE), ahead = at;
  int64_t fetched = 0, fetches = (end - begin) * SLABS, strip = -1;
  double along[SLABS][4] = {};
  auto fetch_slab = [&]() {
    if (fetched < fetches) {
      const int64_t slab = fetched % SLABS, row = ahead.strip * SYMM_TALL + slab * SLAB;
      fetch_tile<SLAB, SYMM_WIDE, THREADS, PAIRED>(n, n, P, row, ahead.column * SYMM_WIDE,
                                                   shared + fetched % RING * SLAB_SIZE);
      if (slab == 0)
        fetch_tile<SYMM_ROWS, SYMM_WIDE, THREADS, PAIRED>(m, n, H, 0, ahead.column * SYMM_WIDE,
                                                          rings + fetched / SLABS % RINGS * AHEAD_SIZE);
      if (slab == SLABS - 1) advance(&ahead, columns);
    }
    fetched++;
    __pipeline_commit();
  };
  for (int s = 0; s < RING - 1; s++) fetch_slab();
  for (int64_t tile = begin; tile < end; tile++) {
    if (at.strip != strip) {
      const int64_t sharer = blockIdx.x - taker_of(first_of(strip, columns), tiles, gridDim.x);
      if (strip >= 0) symm_flush(m, n, strip, along, parts + (strips + 2 * sharer) * m * n);
      strip = at.strip;
      __syncthreads();
      for (int e = (int)threadIdx.x; e < SYMM_ROWS * SYMM_TALL; e += THREADS) {
        const int64_t r = e / SYMM_TALL, i = e % SYMM_TALL, row = strip * SYMM_TALL + i;
        of_rows[r * DOWN + i] = r < m && row < n ? H[r * n + row] : 0;
      }
    }
    const int below = (int)(at.strip * SYMM_TALL - at.column * SYMM_WIDE);
    const double *const of_columns = rings + (tile - begin) % RINGS * AHEAD_SIZE;
    double across[4] = {};
#pragma unroll
    for (int s = 0; s < SLABS; s++) {
      __pipeline_wait_prior(RING - 2);
      __syncthreads();
      fetch_slab();
      const double *const slab = shared + ((tile - begin) * SLABS + s) % RING * SLAB_SIZE;
      if (below > -SYMM_TALL)
        symm_multiply<true>(below + s * SLAB, slab, of_rows + s * SLAB, of_columns, across, along[s]);
      else
        symm_multiply<false>(0, slab, of_rows + s * SLAB, of_columns, across, along[s]);
    }
    symm_store(m, n, at.column * SYMM_WIDE + lane_of().warp * 8, across, parts + strip * m * n);
    advance(&at, columns);
  }
  const int64_t sharer = blockIdx.x - taker_of(first_of(strip, columns), tiles, gridDim.x);
  symm_flush(m, n, strip, along, parts + (strips + 2 * sharer) * m * n);
}

/* C (m, n) <- the sum of the parts that large_symm with `blocks` blocks of threads made. */
static __global__ void __launch_bounds__(THREADS)
    large_sum(int64_t m, int64_t n, int64_t strips, int64_t blocks, const double *parts, double *C) {
  const int64_t k = (int64_t)blockIdx.x * THREADS + threadIdx.x, columns = (n + SYMM_WIDE - 1) / SYMM_WIDE;
  const int64_t strip = k % n / SYMM_TALL, tiles = first_of(strips, columns);
  if (k >= m * n) return;
  double sum = 0;
#pragma unroll 4
  for (int64_t s = 0; s <= strip; s++) sum += parts[s * m * n + k];
  const int64_t sharers =
      taker_of(first_of(strip + 1, columns) - 1, tiles, blocks) - taker_of(first_of(strip, columns), tiles, blocks) + 1;
  for (int64_t s = 0; s < 2 * sharers; s++) sum += parts[(strips + s) * m * n + k];
  C[k] = sum;
}

/* A tile of C (n, n) <- alpha AᵀA + beta C, TILE x TILE; a warp has PART x PART of it. Three steps in flight let 16
   warps work on a processor. */
enum { TILE = 64, GRAM_THREADS = TILE * TILE / PART, GRAM_STAGES = 3, GRAM_SIDE = DEEP * (TILE + PAD) };
enum { GRAM_BLOCKS = 16 * WARP / GRAM_THREADS, GRAM_SHARED = GRAM_STAGES * 2 * GRAM_SIDE };

/* c[i][j]: the product of rows 16 i and columns 8 j of the warp's part. */
static __device__ inline void gram_multiply(const double *left, const double *right, double c[2][4][4]) {
  const struct lane lane = lane_of();
  const double *const l = left + lane.warp / (TILE / PART) * PART + lane.group;
  const double *const r = right + lane.warp % (TILE / PART) * PART + lane.group;
#pragma unroll
  for (int deep = 0; deep < DEEP; deep += 8) {
    const int k = deep + lane.place;
    double a[2][4];
#pragma unroll
    for (int v = 0; v < 8; v++) a[v / 4][v % 4] = l[(k + v % 4 / 2 * 4) * (TILE + PAD) + v / 4 * 16 + v % 2 * 8];
#pragma unroll
    for (int j = 0; j < 4; j++) {
      const double b[2] = {r[k * (TILE + PAD) + 8 * j], r[(k + 4) * (TILE + PAD) + 8 * j]};
      multiply(a[0], b, c[0][j]);
      multiply(a[1], b, c[1][j]);
    }
  }
}

/* Calls f(two numbers, row, column) for the pairs of neighbours that the lane holds; places within the tile. */
template <class F> static __device__ inline void gram_pairs(double c[2][4][4], F f) {
  const struct lane lane = lane_of();
#pragma unroll
  for (int i = 0; i < 2; i++)
#pragma unroll
    for (int j = 0; j < 4; j++)
#pragma unroll
      for (int h = 0; h < 2; h++)
        f(&c[i][j][2 * h], lane.warp / (TILE / PART) * PART + 16 * i + lane.group + 8 * h,
          lane.warp % (TILE / PART) * PART + 8 * j + 2 * lane.place);
}

/* Two neighbours of row `row` of C, or what stands for them beyond the edge: nothing here branches, so that all are
   asked for at once. */
template <bool PAIRED>
static __device__ inline double2 load_pair(int64_t n, const double *C, int64_t row, int64_t column) {
  const int64_t r = row < n ? row : n - 1, last = PAIRED ? n - 2 : n - 1, c = column < last ? column : last;
  if (PAIRED) return *(const double2 *)&C[r * n + c];
  return make_double2(C[r * n + c], C[r * n + (c < n - 1 ? c + 1 : c)]);
}

/* Two neighbours of C, those of them in the upper triangle. */
template <bool PAIRED>
static __device__ inline void store_pair(int64_t n, double *C, int64_t row, int64_t column, double2 pair) {
  double *const at = &C[row * n + column];
  if (PAIRED && column >= row && row < n && column + 1 < n) {
    *(double2 *)at = pair;
  } else {
    if (column >= row && row < n && column < n) at[0] = pair.x;
    if (column + 1 >= row && row < n && column + 1 < n) at[1] = pair.y;
  }
}

/* First row and column of tile number `tile` of those that reach the upper triangle, row by row. */
static __device__ inline struct place gram_place(int64_t n, int64_t tile) {
  const struct place at = place_of(tile, (n + TILE - 1) / TILE, 1);
  return {at.strip * TILE, at.column * TILE};
}

/* alpha is not 0: C is held divided by it. */
template <bool PAIRED>
static __global__ void __launch_bounds__(GRAM_THREADS, GRAM_BLOCKS)
    large_gram(int64_t n, int64_t k, double alpha, const double *A, double beta, double *C) {
  extern __shared__ double shared[];
  const struct place at = gram_place(n, blockIdx.x);
  const double ratio = beta / alpha;
  const int steps = (int)((k + DEEP - 1) / DEEP);
  double c[2][4][4] = {};
  auto fetch_step = [&](int step) {
    double *const to = shared + step % GRAM_STAGES * 2 * GRAM_SIDE;
    if (step < steps) {
      fetch_tile<DEEP, TILE, GRAM_THREADS, PAIRED>(k, n, A, (int64_t)step * DEEP, at.strip, to);
      fetch_tile<DEEP, TILE, GRAM_THREADS, PAIRED>(k, n, A, (int64_t)step * DEEP, at.column, to + GRAM_SIDE);
    }
    __pipeline_commit();
  };
#pragma unroll 1
  for (int step = 0; step < GRAM_STAGES - 1; step++) fetch_step(step);
  if (beta != 0) {
    gram_pairs(c, [=](double *pair, int row, int column) {
      const double2 old = load_pair<PAIRED>(n, C, at.strip + row, at.column + column);
      pair[0] = old.x, pair[1] = old.y;
    });
    gram_pairs(c, [=](double *pair, int, int) { pair[0] *= ratio, pair[1] *= ratio; });
  }
#pragma unroll 1
  for (int step = 0; step < steps; step++) {
    __pipeline_wait_prior(GRAM_STAGES - 2);
    __syncthreads();
    fetch_step(step + GRAM_STAGES - 1);
    const double *const from = shared + step % GRAM_STAGES * 2 * GRAM_SIDE;
    gram_multiply(from, from + GRAM_SIDE, c);
  }
  gram_pairs(c, [=](const double *pair, int row, int column) {
    store_pair<PAIRED>(n, C, at.strip + row, at.column + column, make_double2(alpha * pair[0], alpha * pair[1]));
  });
}

/* The same for few rows A (k, n), k <= ROWS, perhaps 0, by ordinary arithmetic: a warp has 8 rows of the tile, a lane
   two neighbours of each. Rows beyond the last count as 0: a loop of known length is a fifth faster. */
template <int ROWS, bool PAIRED>
static __global__ void __launch_bounds__(THREADS, 3)
    large_gram_few(int64_t n, int k, double alpha, const double *A, double beta, double *C) {
  __shared__ __align__(16) double left[ROWS * TILE], right[ROWS * TILE];
  const struct place at = gram_place(n, blockIdx.x);
  const int row = (int)threadIdx.x / WARP * 8, column = (int)threadIdx.x % WARP * 2;
  double2 c[8];
#pragma unroll
  for (int i = 0; i < 8; i++) c[i] = load_pair<PAIRED>(n, C, at.strip + row + i, at.column + column);
  for (int e = (int)threadIdx.x; e < ROWS * TILE; e += THREADS) {
    const int64_t r = e / TILE, i = at.strip + e % TILE, j = at.column + e % TILE;
    left[e] = r < k && i < n ? alpha * A[r * n + i] : 0;
    right[e] = r < k && j < n ? A[r * n + j] : 0;
  }
  __syncthreads();
#pragma unroll
  for (int i = 0; i < 8; i++) c[i].x = beta == 0 ? 0 : beta * c[i].x, c[i].y = beta == 0 ? 0 : beta * c[i].y;
#pragma unroll 2
  for (int r = 0; r < ROWS; r++) {
    const double2 b = *(const double2 *)&right[r * TILE + column];
#pragma unroll
    for (int i = 0; i < 8; i += 2) {
      const double2 a = *(const double2 *)&left[r * TILE + row + i];
      c[i].x += a.x * b.x, c[i].y += a.x * b.y;
      c[i + 1].x += a.y * b.x, c[i + 1].y += a.y * b.y;
    }
  }
#pragma unroll
  for (int i = 0; i < 8; i++) store_pair<PAIRED>(n, C, at.strip + row + i, at.column + column, c[i]);
}

static unsigned ceiling(int64_t a, int64_t b) {
  return (unsigned)((a + b - 1) / b);
}

static bool paired(int64_t n, const double *A, const double *B) {
  return n % 2 == 0 && ((uintptr_t)A | (uintptr_t)B) % sizeof(double2) == 0;
}

struct cuda_large_cut cuda_large_cut_of(int64_t n, int processors) {
  const int64_t strips = ceiling(n, SYMM_TALL), columns = ceiling(n, SYMM_WIDE), tiles = first_of(strips, columns);
  const int64_t most = (int64_t)processors * CUDA_LARGE_BLOCKS, blocks = tiles < most ? tiles : most;
  return {strips, blocks, strips + 2 * (columns / (tiles / blocks) + 2)};
}

void cuda_large_symm(const struct cuda_large_cut *cut, int64_t m, int64_t n, const double *P, const double *H,
                     double *parts, double *Z, cudaStream_t stream) {
  const int bytes = SYMM_SHARED * (int)sizeof(double);
  const auto kernel = paired(n, P, H) ? large_symm<true> : large_symm<false>;
  cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  kernel<<<(unsigned)cut->blocks, THREADS, bytes, stream>>>(m, n, cut->strips, P, H, parts);
  large_sum<<<ceiling(m * n, THREADS), THREADS, 0, stream>>>(m, n, cut->strips, cut->blocks, parts, Z);
}

void cuda_large_gram(int64_t n, int64_t k, double alpha, const double *A, double beta, double *C, cudaStream_t stream) {
  const unsigned width = ceiling(n, TILE), tiles = width * (width + 1) / 2;
  const bool pairs = paired(n, A, C);
  if (k <= FEW) {
    const auto fewer = pairs ? large_gram_few<FEW / 2, true> : large_gram_few<FEW / 2, false>;
    const auto kernel = k <= FEW / 2 ? fewer : pairs ? large_gram_few<FEW, true> : large_gram_few<FEW, false>;
    kernel<<<tiles, THREADS, 0, stream>>>(n, (int)k, alpha, A, beta, C);
    return;
  }
  const int bytes = GRAM_SHARED * (int)sizeof(double);
  const auto kernel = pairs ? large_gram<true> : large_gram<false>;
  cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  kernel<<<tiles, GRAM_THREADS, bytes, stream>>>(n, k, alpha, A, beta, C);
}
