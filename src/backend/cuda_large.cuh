/* What the kernels on one large matrix in double precision share: the matrix units' product and tiles that come to
   shared memory beside the calculation. */
#pragma once

#include <cuda_pipeline.h>

#include "cuda_large.h"

static constexpr int WARP = 32, WARPS = 8, THREADS = WARP * WARPS;

/* A row in shared memory is 4 longer than what it holds, a multiple of 8: then the 4 x 4 numbers that half a warp reads
   at once lie in different banks, whether a group stands along the row or down the column. */
static constexpr int PAD = 4;

/* Where a lane stands in a product of the matrix units: group (8) and place in it (4). */
struct lane {
  int warp, group, place;
};

static __device__ inline struct lane lane_of(void) {
  const int thread = (int)threadIdx.x, lane = thread % WARP;
  return {thread / WARP, lane / 4, lane % 4};
}

/* c (8 x 8) += a (8 x 4) b (4 x 8). a: (group, place); b: (place, group); c: (group, 2 place + x) at x. */
static __device__ inline void multiply_small(double a, double b, double c[2]) {
  asm("mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64 {%0, %1}, {%2}, {%3}, {%0, %1};"
      : "+d"(c[0]), "+d"(c[1])
      : "d"(a), "d"(b));
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
    for (int h = 0; h < 2; h++) multiply_small(a[h + 2 * q], b[q], &c[2 * h]);
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

/* to (ROWS, WIDTH + PAD) <- rows [first, ...) and columns [column, ...) of A (k, n), 0 beyond it; by COUNT threads, a
   power of two. A tile within A is fetched without a look at each number: that would take as long as the calculation.
 */
template <int ROWS, int WIDTH, int COUNT, bool PAIRED>
static __device__ inline void fetch_tile(int k, int n, const double *A, int first, int column, double *to) {
  constexpr int turn = COUNT / (WIDTH / 2);
  static_assert(ROWS % turn == 0, "each thread has as many rows");
  const int thread = (int)threadIdx.x % COUNT, top = thread / (WIDTH / 2), c = thread % (WIDTH / 2) * 2;
  const double *from = A + (int64_t)(first + top) * n + (column + c);
  to += top * (WIDTH + PAD) + c;
  if (first + ROWS <= k && column + WIDTH <= n) {
    const int64_t apart = (int64_t)turn * n;
#pragma unroll
    for (int r = 0; r < ROWS; r += turn, from += apart) fetch<PAIRED>(&to[r * (WIDTH + PAD)], from, 2);
    return;
  }
  const int left = n - column - c, most = left < 0 ? 0 : left > 2 ? 2 : left;
#pragma unroll 1
  for (int r = 0; r < ROWS; r += turn, from += (int64_t)turn * n) {
    const int there = first + top + r < k ? most : 0;
    fetch<PAIRED>(&to[r * (WIDTH + PAD)], there > 0 ? from : A, there);
  }
}

/* The same for all rows of A (k, n), k <= ROWS; what stands for those beyond it is the last one's. */
template <int ROWS, int WIDTH, int COUNT, bool PAIRED>
static __device__ inline void fetch_rows(int k, int n, const double *A, int column, double *to) {
  constexpr int turn = COUNT / (WIDTH / 2);
  const int thread = (int)threadIdx.x % COUNT, top = thread / (WIDTH / 2), c = thread % (WIDTH / 2) * 2;
  if (column + WIDTH > n) {
    fetch_tile<ROWS, WIDTH, COUNT, PAIRED>(k, n, A, 0, column, to);
    return;
  }
  const double *const from = A + column + c;
  to += top * (WIDTH + PAD) + c;
#pragma unroll
  for (int r = 0; r < ROWS; r += turn)
    fetch<PAIRED>(&to[r * (WIDTH + PAD)], from + (int64_t)min(top + r, k - 1) * n, 2);
}

/* Tiles of an upper triangle, strip by strip of rows; each strip has `less` tiles fewer than the one above. */
struct place {
  int64_t strip, column;
};

static __host__ __device__ inline int64_t first_of(int64_t strip, int64_t columns, int64_t less) {
  return strip * columns - strip * (strip - 1) / 2 * less;
}

/* Of tile number `tile`; the first strip has `columns`. The root may be off by rounding. */
static __device__ inline struct place place_of(int64_t tile, int64_t columns, int64_t less) {
  const float twice = (float)(2 * columns + less);
  int64_t strip = (int64_t)((twice - sqrtf(fmaxf(twice * twice - (float)(8 * less * tile), 0))) / (float)(2 * less));
  while (first_of(strip, columns, less) > tile) strip--;
  while (first_of(strip + 1, columns, less) <= tile) strip++;
  return {strip, tile - first_of(strip, columns, less) + strip * less};
}

/* `units` of work are shared out in runs: the runner that has a unit, and where its run begins. */
static __host__ __device__ inline int64_t runner_of(int64_t unit, int64_t units, int64_t runners) {
  return ((unit + 1) * runners - 1) / units;
}
static __host__ __device__ inline int64_t begin_of(int64_t runner, int64_t units, int64_t runners) {
  return runner * units / runners;
}

static inline unsigned ceiling(int64_t a, int64_t b) {
  return (unsigned)((a + b - 1) / b);
}

/* Neighbours can be fetched two at a time. */
static inline bool paired(int64_t n, const double *A, const double *B) {
  return n % 2 == 0 && ((uintptr_t)A | (uintptr_t)B) % sizeof(double2) == 0;
}
