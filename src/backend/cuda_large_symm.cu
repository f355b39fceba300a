/* Z = H P for at most CUDA_LARGE_FEW rows H and the upper triangle of a symmetric P (n, n), which is read once.

   A tile of P comes to shared memory and serves twice, as it is and as its mirror image. What limits it then is how
   often shared memory is read, so a tile's numbers are read by one warp each way: half of the warps sum down the
   columns
   ("across": H of the strip's rows stays in registers), half along the rows ("along": the sums stay there, and what is
   read of H serves 32 rows). A block of threads takes a run of tiles along the strips; its sums go to parts, which a
   second kernel adds in their order. */
#include "cuda_large.cuh"

/* A tile's rows (a strip's) and columns; tiles in flight. */
enum { ROWS = CUDA_LARGE_FEW, TALL = 128, WIDE = 32, LESS = TALL / WIDE, RING = 5 };
enum { SUM_WARPS = 4 };
enum { STRIDE = WIDE + PAD, TILE_SIZE = TALL * STRIDE, STAGE = TILE_SIZE + ROWS * STRIDE };
/* H of the next strip's rows follows. All strips but the last have more tiles than are in flight: it is one strip's. */
enum { NEXT = RING * STAGE, DOWN = TALL + PAD, SHARED = NEXT + ROWS * DOWN };
static_assert(RING - 1 <= LESS, "one strip at a time is ahead");
static_assert(WARPS == 8 && TALL == 4 * 32 && WIDE == 4 * 8, "four warps each way");

/* h (TALL/8, fragments) <- H (m, `length` beyond `from`, ld numbers from row to row), 0 beyond it. */
static __device__ inline void load_rows(int m, int length, const double *from, int ld, double h[TALL / 8][4]) {
  const struct lane lane = lane_of();
#pragma unroll
  for (int k = 0; k < TALL / 8; k++)
#pragma unroll
    for (int v = 0; v < 4; v++) {
      const int r = lane.group + v % 2 * 8, i = 8 * k + lane.place + v / 2 * 4;
      h[k][v] = r < m && i < length ? from[(int64_t)r * ld + i] : 0;
    }
}

/* Warps 0 to 3: c (ROWS, the warp's 8 columns) <- H of the strip times the tile. `below`: how far the tile's first row
   lies below its first column. */
template <bool DIAGONAL>
static __device__ inline void sum_across(int below, const double *tile, const double h[TALL / 8][4], double c[4]) {
  const struct lane lane = lane_of();
  const double *const p = tile + lane.place * STRIDE + lane.warp * 8 + lane.group;
  double sums[4][4] = {};
#pragma unroll
  for (int k = 0; k < TALL / 8; k++) {
    const int beyond = below + 8 * k + lane.place - lane.warp * 8 - lane.group;
    const double *const at = p + 8 * k * STRIDE;
    const double b[2] = {DIAGONAL && beyond > 0 ? 0 : at[0], DIAGONAL && beyond > -4 ? 0 : at[4 * STRIDE]};
    multiply(h[k], b, sums[k % 4]);
  }
#pragma unroll
  for (int v = 0; v < 4; v++) c[v] = (sums[0][v] + sums[1][v]) + (sums[2][v] + sums[3][v]);
}

/* Warps 4 to 7: sums (ROWS, the warp's 32 rows) += H of the tile's columns (ROWS, STRIDE) times the tile's mirror
   image. */
template <bool DIAGONAL>
static __device__ inline void sum_along(int below, const double *tile, const double *H, double sums[][4]) {
  const struct lane lane = lane_of();
  const int top = (lane.warp - WARPS / 2) * 32 + lane.group;
  const double *const h = H + lane.group * STRIDE + lane.place, *const p = tile + top * STRIDE + lane.place;
#pragma unroll
  for (int k = 0; k < WIDE; k += 8) {
    const double a[4] = {h[k], h[8 * STRIDE + k], h[k + 4], h[8 * STRIDE + k + 4]};
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const int beyond = below + top + 8 * i - k - lane.place;
      const double *const at = p + 8 * i * STRIDE + k;
      const double b[2] = {DIAGONAL && beyond >= 0 ? 0 : at[0], DIAGONAL && beyond >= 4 ? 0 : at[4]};
      multiply(a, b, sums[i]);
    }
  }
}

/* part (m, n), columns [column, column + 8) <- c */
static __device__ inline void store(int m, int n, int column, const double c[4], double *part) {
  const struct lane lane = lane_of();
#pragma unroll
  for (int v = 0; v < 4; v++) {
    const int r = lane.group + v / 2 * 8, j = column + 2 * lane.place + v % 2;
    if (r < m && j < n) part[(int64_t)r * n + j] = c[v];
  }
}

/* What a block of threads takes. */
struct run {
  int64_t columns, tiles, begin, end;
};

static __host__ __device__ inline struct run run_of(int64_t n, int64_t strips, int64_t block, int64_t blocks) {
  const int64_t columns = (n + WIDE - 1) / WIDE, tiles = first_of(strips, columns, LESS);
  return {columns, tiles, begin_of(block, tiles, blocks), begin_of(block + 1, tiles, blocks)};
}

/* The block's number among those that share a strip. */
static __device__ inline int64_t sharer_of(const struct run &run, int64_t strip, int64_t block, int64_t blocks) {
  return block - runner_of(first_of(strip, run.columns, LESS), run.tiles, blocks);
}

/* Where a tile is, and the place of it and its columns of H in shared memory. */
struct step {
  int strip, column, place;
};

static __device__ inline void advance(int columns, struct step *at) {
  if (++at->column == columns) at->column = ++at->strip * LESS;
  if (++at->place == RING) at->place = 0;
}

static __device__ inline bool begins(const struct step &at) {
  return at.column == at.strip * LESS;
}

/* with_rows: and H of the strip's rows. */
template <bool PAIRED>
static __device__ inline void fetch_step(int m, int n, const double *P, const double *H, const struct step &at,
                                         bool with_rows, double *shared) {
  double *const to = shared + at.place * STAGE;
  fetch_tile<TALL, WIDE, THREADS, PAIRED>(n, n, P, at.strip * TALL, at.column * WIDE, to);
  fetch_rows<ROWS, WIDE, THREADS, PAIRED>(m, n, H, at.column * WIDE, to + TILE_SIZE);
  if (with_rows) fetch_rows<ROWS, TALL, THREADS, PAIRED>(m, n, H, at.strip * TALL, shared + NEXT);
}

/* held: across, H of the strip's rows; along, sums, in the first four. part (m, n): of what goes across. */
static __device__ inline void multiply_step(bool across, int m, int n, const struct step &at, const double *shared,
                                            double held[TALL / 8][4], double *part) {
  const double *const tile = shared + at.place * STAGE;
  const int below = at.strip * TALL - at.column * WIDE;
  double c[4];
  if (!across && below > -TALL)
    sum_along<true>(below, tile, tile + TILE_SIZE, held);
  else if (!across)
    sum_along<false>(0, tile, tile + TILE_SIZE, held);
  else if (below > -TALL)
    sum_across<true>(below, tile, held, c);
  else
    sum_across<false>(0, tile, held, c);
  if (across) store(m, n, at.column * WIDE + lane_of().warp * 8, c, part);
}

/* part (m, n) <- the sums along a strip, which are zero then. */
static __device__ inline void store_along(int m, int n, int strip, double sums[][4], double *part) {
#pragma unroll
  for (int i = 0; i < 4; i++) {
    store(m, n, strip * TALL + (lane_of().warp - WARPS / 2) * 32 + 8 * i, sums[i], part);
    for (int v = 0; v < 4; v++) sums[i][v] = 0;
  }
}

/* parts (strips + sharers, m, n) <- sums of H (m, n) times the upper triangle of P (n, n) and its mirror image. To ask
   for a tile takes almost as many instructions as to multiply it: half of the warps do the one while the others do the
   other. */
template <bool PAIRED>
static __global__ void __launch_bounds__(THREADS, 1)
    large_symm(int m, int n, int strips, const double *P, const double *H, double *parts) {
  extern __shared__ double shared[];
  const struct run run = run_of(n, strips, blockIdx.x, gridDim.x);
  const bool across = threadIdx.x < THREADS / 2;
  const int count = (int)(run.end - run.begin), columns = (int)run.columns;
  const struct place first = place_of(run.begin, run.columns, LESS);
  struct step at = {(int)first.strip, (int)first.column, 0}, ahead = at;
  double held[TALL / 8][4] = {};
  if (across) load_rows(m, n - at.strip * TALL, H + at.strip * TALL, n, held);
#pragma unroll 1
  for (int tile = 1 - RING; tile < count; tile++) {
    if (tile >= 0) {
      __pipeline_wait_prior(RING - 2);
      __syncthreads();
    }
    if (across && tile > 0 && begins(at)) load_rows(ROWS, TALL, shared + NEXT, DOWN, held);
#pragma unroll 1
    for (int turn = 0; turn < 2; turn++) {
      if ((turn == 0) != across) {
        if (tile >= 0) multiply_step(across, m, n, at, shared, held, parts + (int64_t)at.strip * m * n);
        continue;
      }
      const int next = tile + RING - 1;
      if (next < count) {
        fetch_step<PAIRED>(m, n, P, H, ahead, next > 0 && begins(ahead), shared);
        advance(columns, &ahead);
      }
      __pipeline_commit();
    }
    if (tile < 0) continue;
    const int strip = at.strip;
    advance(columns, &at);
    if (across || (at.strip == strip && tile + 1 < count)) continue;
    const int64_t sharer = sharer_of(run, strip, blockIdx.x, gridDim.x);
    store_along(m, n, strip, held, parts + (strips + sharer) * m * n);
  }
}

/* C (m, n) <- the sum of the parts that large_symm with `blocks` blocks of threads made; blockIdx.y: the row. A warp
   has every fourth part of 32 columns, so that there is one time of waiting. */
static __global__ void __launch_bounds__(SUM_WARPS *WARP)
    large_sum(int64_t m, int64_t n, int64_t strips, int64_t blocks, const double *parts, double *C) {
  __shared__ double sums[SUM_WARPS][WARP];
  const int lane = (int)threadIdx.x % WARP, warp = (int)threadIdx.x / WARP;
  const int64_t j = (int64_t)blockIdx.x * WARP + lane, k = blockIdx.y * n + j, size = m * n;
  const int strip = (int)((int64_t)blockIdx.x * WARP / TALL);
  const struct run run = run_of(n, strips, 0, blocks);
  const int64_t last = runner_of(first_of(strip + 1, run.columns, LESS) - 1, run.tiles, blocks);
  const int sharers = (int)sharer_of(run, strip, last, blocks) + 1;
  double sum = 0;
  if (j < n) {
#pragma unroll 10
    for (int s = warp; s <= strip; s += SUM_WARPS) sum += parts[s * size + k];
#pragma unroll 2
    for (int s = warp; s < sharers; s += SUM_WARPS) sum += parts[(strips + s) * size + k];
  }
  sums[warp][lane] = sum;
  __syncthreads();
  if (warp == 0 && j < n) C[k] = (sums[0][lane] + sums[1][lane]) + (sums[2][lane] + sums[3][lane]);
}

struct cuda_large_cut cuda_large_cut_of(int64_t n, int processors) {
  const int64_t strips = ceiling(n, TALL), tiles = run_of(n, strips, 0, 1).tiles;
  const int64_t blocks = tiles < processors ? tiles : processors;
  return {strips, blocks, strips + ceiling(n, WIDE) / (tiles / blocks) + 2};
}

void cuda_large_symm(const struct cuda_large_cut *cut, int64_t m, int64_t n, const double *P, const double *H,
                     double *parts, double *Z, cudaStream_t stream) {
  const int bytes = SHARED * (int)sizeof(double);
  const auto kernel = paired(n, P, H) ? large_symm<true> : large_symm<false>;
  cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  kernel<<<(unsigned)cut->blocks, THREADS, bytes, stream>>>((int)m, (int)n, (int)cut->strips, P, H, parts);
  large_sum<<<dim3(ceiling(n, WARP), (unsigned)m), SUM_WARPS * WARP, 0, stream>>>(m, n, cut->strips, cut->blocks, parts,
                                                                                  Z);
}
