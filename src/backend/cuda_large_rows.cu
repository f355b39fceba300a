/* Z = H P for some hundred rows H and the upper triangle of a symmetric P (n, n): a product, for which P is whole.

   A block of threads has at most 128 rows of H and 128 columns of P; it sums over a run of P's rows, those below the
   columns' own fetched as the mirror image of what stands above. Runs are as long for each of the processors, which
   share columns then: their sums are parts, which a second kernel adds in their order.

   To ask for a step takes almost as many instructions as to multiply it: half of the warps do the one while the others
   do the other. */
#include "cuda_large.cuh"

/* Columns of P, and numbers of a sum at a time; steps in flight. */
enum { WIDE = 128, DEEP = 32, STAGES = 3 };
/* P's numbers in shared memory, (DEEP, WIDE) as they stand or (WIDE, DEEP) mirrored; H's follow, (rows, DEEP). */
enum { ACROSS = WIDE + PAD, ALONG = DEEP + PAD, P_SIZE = WIDE * ALONG };
static_assert(DEEP * ACROSS <= P_SIZE, "either fits");

/* Warps have 32 columns each, and half of the rows. */
static_assert(WIDE == 4 * 32 && WARPS == 2 * 4, "two times four warps");

/* Of the kernel that adds the parts. */
enum { SUM_THREADS = 128 };

enum order { PLAIN, DIAGONAL, MIRRORED };

static __device__ inline enum order order_of(int first, int column) {
  return first < column ? PLAIN : first < column + WIDE ? DIAGONAL : MIRRORED;
}

/* to (DEEP, WIDE) <- P where rows [first, ...) meet columns [column, ...), number by number from above the diagonal. */
static __device__ inline void fetch_diagonal(int n, const double *P, int first, int column, double *to) {
#pragma unroll 4
  for (int e = (int)threadIdx.x; e < DEEP * WIDE; e += THREADS) {
    const int i = first + e / WIDE, j = column + e % WIDE;
    const double *const from = &P[(int64_t)min(i, j) * n + max(i, j)];
    const bool there = i < n && j < n;
    __pipeline_memcpy_async(&to[e / WIDE * ACROSS + e % WIDE], there ? from : P, sizeof *to, there ? 0 : sizeof *to);
  }
}

static __host__ __device__ constexpr int stage_of(int half) {
  return P_SIZE + 16 * half * ALONG;
}

/* HALF: of groups of 8 rows, those of a warp, or one more. */
template <int HALF, bool PAIRED>
static __device__ inline void fetch_step(int m, int n, const double *P, const double *H, int first, int column,
                                         double *to) {
  switch (order_of(first, column)) {
  case PLAIN: fetch_tile<DEEP, WIDE, THREADS, PAIRED>(n, n, P, first, column, to); break;
  case DIAGONAL: fetch_diagonal(n, P, first, column, to); break;
  default: fetch_tile<WIDE, DEEP, THREADS, PAIRED>(n, n, P, column, first, to); break;
  }
  fetch_rows<16 * HALF, DEEP, THREADS, PAIRED>(m, n, H, first, to + P_SIZE);
}

/* The groups of 8 rows of H that are a warp's: HALF, or, in the lower half, perhaps one fewer. */
struct rows {
  int first;
  bool whole;
};

template <int HALF> static __device__ inline struct rows rows_of(int m) {
  const bool upper = lane_of().warp < WARPS / 2;
  return {upper ? 0 : HALF, upper || m > 8 * (2 * HALF - 1)};
}

/* c[i][t]: columns 16 i and rows 8 t of the warp's, += P (DOWN: from one number of the sum to the next; OVER: from one
   column to the next) times H. */
template <int HALF, int DOWN, int OVER>
static __device__ inline void multiply_step(const struct rows &rows, const double *P, const double *H,
                                            double c[2][HALF][4]) {
  const struct lane lane = lane_of();
  const double *const p = P + (lane.warp % 4 * 32 + lane.group) * OVER + lane.place * DOWN;
  const double *const h = H + (rows.first * 8 + lane.group) * ALONG + lane.place;
#pragma unroll
  for (int k = 0; k < DEEP; k += 8) {
    double a[2][4];
#pragma unroll
    for (int v = 0; v < 8; v++) a[v / 4][v % 4] = p[(k + v % 4 / 2 * 4) * DOWN + (v / 4 * 16 + v % 2 * 8) * OVER];
#pragma unroll
    for (int t = 0; t < HALF; t++) {
      if (t == HALF - 1 && !rows.whole) break;
      const double b[2] = {h[8 * t * ALONG + k], h[8 * t * ALONG + k + 4]};
      multiply(a[0], b, c[0][t]);
      multiply(a[1], b, c[1][t]);
    }
  }
}

/* part (m, n) <- c, which is zero then. */
template <int HALF>
static __device__ inline void store(const struct rows &rows, int m, int n, int column, double c[2][HALF][4],
                                    double *part) {
  const struct lane lane = lane_of();
#pragma unroll
  for (int i = 0; i < 2; i++)
#pragma unroll
    for (int t = 0; t < HALF; t++)
#pragma unroll
      for (int v = 0; v < 4; v++) {
        const int r = (rows.first + t) * 8 + 2 * lane.place + v % 2;
        const int j = column + lane.warp % 4 * 32 + 16 * i + lane.group + v / 2 * 8;
        if ((t < HALF - 1 || rows.whole) && r < m && j < n) part[(int64_t)r * n + j] = c[i][t][v];
        c[i][t][v] = 0;
      }
}

/* Steps of all columns, one after the other. */
struct steps {
  int64_t each, all;
};

static __host__ __device__ inline struct steps steps_of(int64_t n) {
  const int64_t each = (n + DEEP - 1) / DEEP;
  return {each, (n + WIDE - 1) / WIDE * each};
}

/* Of one block of threads: its run of steps, and where a step of it is: columns and, in steps, rows of P. */
struct run {
  int64_t begin;
  int count, each;
};
struct at {
  int tile, row;
};

static __device__ inline struct run run_of(int n) {
  const struct steps steps = steps_of(n);
  const int64_t begin = begin_of(blockIdx.x, steps.all, gridDim.x);
  return {begin, (int)(begin_of(blockIdx.x + 1, steps.all, gridDim.x) - begin), (int)steps.each};
}

static __device__ inline struct at first_of(const struct run &run) {
  return {(int)(run.begin / run.each), (int)(run.begin % run.each)};
}

static __device__ inline void advance(const struct run &run, struct at *at) {
  if (++at->row == run.each) at->row = 0, at->tile++;
}

/* parts (sharers, m, n) <- sums of H (m, n) times P (n, n). */
template <int HALF, bool PAIRED>
static __global__ void __launch_bounds__(THREADS, 1)
    large_rows(int m, int n, const double *P, const double *H, double *parts) {
  extern __shared__ double shared[];
  const struct run run = run_of(n);
  const struct steps steps = steps_of(n);
  const struct rows rows = rows_of<HALF>(m);
  const bool upper = threadIdx.x < THREADS / 2;
  double c[2][HALF][4] = {};
  struct at at = first_of(run), ahead = at;
  int to = 0, from = 0;
  auto fetch_next = [&](bool there) {
    if (there) {
      fetch_step<HALF, PAIRED>(m, n, P, H, ahead.row * DEEP, ahead.tile * WIDE, shared + to * stage_of(HALF));
      advance(run, &ahead);
      if (++to == STAGES) to = 0;
    }
    __pipeline_commit();
  };
  auto multiply_next = [&]() {
    const double *const step = shared + from * stage_of(HALF);
    if (order_of(at.row * DEEP, at.tile * WIDE) == MIRRORED)
      multiply_step<HALF, 1, ALONG>(rows, step, step + P_SIZE, c);
    else
      multiply_step<HALF, ACROSS, 1>(rows, step, step + P_SIZE, c);
    if (++from == STAGES) from = 0;
  };
#pragma unroll 1
  for (int step = 1 - STAGES; step < run.count; step++) {
    if (step >= 0) {
      __pipeline_wait_prior(STAGES - 2);
      __syncthreads();
    }
#pragma unroll 1
    for (int turn = 0; turn < 2; turn++)
      if ((turn == 0) == upper)
        fetch_next(step + STAGES - 1 < run.count);
      else if (step >= 0)
        multiply_next();
    if (step < 0) continue;
    const int tile = at.tile;
    advance(run, &at);
    if (at.tile == tile && step + 1 < run.count) continue;
    const int64_t sharer = blockIdx.x - runner_of(tile * steps.each, steps.all, gridDim.x);
    store<HALF>(rows, m, n, tile * WIDE, c, parts + sharer * m * n);
  }
}

/* C (m, n) <- the sum of the parts that large_rows with `blocks` blocks of threads made; blockIdx.y: the row */
static __global__ void __launch_bounds__(SUM_THREADS)
    large_rows_sum(int64_t m, int64_t n, int64_t blocks, const double *parts, double *C) {
  const int64_t j = (int64_t)blockIdx.x * SUM_THREADS + threadIdx.x, tile = j / WIDE, k = blockIdx.y * n + j;
  const struct steps steps = steps_of(n);
  if (j >= n) return;
  const int sharers = (int)(runner_of((tile + 1) * steps.each - 1, steps.all, blocks) -
                            runner_of(tile * steps.each, steps.all, blocks)) +
                      1;
  double sum = 0;
#pragma unroll 4
  for (int s = 0; s < sharers; s++) sum += parts[s * m * n + k];
  C[k] = sum;
}

struct cuda_large_cut cuda_large_rows_cut(int64_t n, int processors) {
  const struct steps steps = steps_of(n);
  const int64_t blocks = steps.all < processors ? steps.all : processors;
  return {0, blocks, (steps.each - 1) / (steps.all / blocks) + 2};
}

template <int HALF>
static void start(int64_t blocks, int64_t m, int64_t n, const double *P, const double *H, double *parts,
                  cudaStream_t stream) {
  const int bytes = STAGES * stage_of(HALF) * (int)sizeof(double);
  const auto kernel = paired(n, P, H) ? large_rows<HALF, true> : large_rows<HALF, false>;
  cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  kernel<<<(unsigned)blocks, THREADS, bytes, stream>>>((int)m, (int)n, P, H, parts);
}

void cuda_large_rows(const struct cuda_large_cut *cut, int64_t m, int64_t n, const double *P, const double *H,
                     double *parts, double *Z, cudaStream_t stream) {
  switch ((m + 15) / 16) {
  case 1:
  case 2: start<2>(cut->blocks, m, n, P, H, parts, stream); break;
  case 3:
  case 4: start<4>(cut->blocks, m, n, P, H, parts, stream); break;
  case 5:
  case 6: start<6>(cut->blocks, m, n, P, H, parts, stream); break;
  case 7: start<7>(cut->blocks, m, n, P, H, parts, stream); break;
  default: start<8>(cut->blocks, m, n, P, H, parts, stream); break;
  }
  large_rows_sum<<<dim3(ceiling(n, SUM_THREADS), (unsigned)m), SUM_THREADS, 0, stream>>>(m, n, cut->blocks, parts, Z);
}
