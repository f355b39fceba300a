/* What tokens tell of offsets (kwm/inform.h), a block to a stream. Column k of a stream's P, which is symmetric, is
   thread k's; rows of information lie in shared memory, padded with zeros to a multiple of four, coordinate by
   coordinate. */
#include "cuda_map.cuh"
#include "cuda_tensor.h"

static constexpr int LIST_THREADS = 1024;
static constexpr float NEGLIGIBLE = 1e-6f;

/* ---- the likeliest classes ---- */

struct place {
  float p;
  int at;

  __device__ bool before(struct place other) const {
    return p > other.p || (p == other.p && at < other.at);
  }
};

static __device__ struct place block_first(struct place mine) {
  __shared__ struct place of_warp[CUDA_WARP];
  const unsigned lane = threadIdx.x % CUDA_WARP, warp = threadIdx.x / CUDA_WARP, warps = blockDim.x / CUDA_WARP;
  for (int round = 0; round < 2; round++) {
    for (unsigned apart = CUDA_WARP / 2; apart > 0; apart /= 2) {
      struct place other;
      other.p = __shfl_down_sync(0xffffffffu, mine.p, apart);
      other.at = __shfl_down_sync(0xffffffffu, mine.at, apart);
      if (other.before(mine)) mine = other;
    }
    if (round == 1) break;
    if (lane == 0) of_warp[warp] = mine;
    __syncthreads();
    mine = lane < warps ? of_warp[lane] : place{-1, INT32_MAX};
  }
  __syncthreads();
  if (threadIdx.x == 0) of_warp[0] = mine;
  __syncthreads();
  mine = of_warp[0];
  __syncthreads();
  return mine;
}

static __device__ float chance(const float *e, int target, int i) {
  return fmaxf(i == target ? 1 - e[i] : -e[i], 0.0f);
}

/* This thread's first class after `last`. */
static __device__ struct place scan(int classes, const float *e, int target, struct place last) {
  struct place best = {-1, INT32_MAX};
  for (int i = (int)threadIdx.x; i < classes; i += (int)blockDim.x) {
    const struct place here = {chance(e, target, i), i};
    if (last.before(here) && here.before(best)) best = here;
  }
  return best;
}

static __global__ void __launch_bounds__(LIST_THREADS) likely(struct kwm_likely of) {
  __shared__ struct place listed[KWM_INFORM_ROWS];
  const int classes = (int)of.classes, r = (int)of.r, top = (int)of.top, target = of.targets[blockIdx.x];
  const float *const e = of.e + blockIdx.x * of.classes, *const g = of.g + blockIdx.x * of.r;
  float *const A = of.A + blockIdx.x * (of.top + 1) * of.r;
  struct place mine = scan(classes, e, target, place{2, -1});
  for (int j = 0; j < top; j++) {
    const struct place first = block_first(mine);
    if (threadIdx.x == 0) listed[j] = first, of.listed[blockIdx.x * of.top + j] = first.at;
    if (mine.at == first.at) mine = scan(classes, e, target, first);
  }
  __syncthreads();
  float rest = 1;
  for (int j = 0; j < top; j++) rest -= listed[j].p;
  for (int k = (int)threadIdx.x; k < r; k += (int)blockDim.x) {
    const float mean = of.M[(int64_t)target * r + k] - g[k];
    float others = mean;
    for (int j = 0; j < top; j++) {
      const float row = of.M[(int64_t)listed[j].at * r + k];
      A[(int64_t)j * r + k] = sqrtf(listed[j].p) * (row - mean);
      others -= listed[j].p * row;
    }
    A[(int64_t)top * r + k] = rest > NEGLIGIBLE ? sqrtf(rest) * (others / rest - mean) : 0.0f;
  }
}

void cuda_inform_likely(const struct kwm_likely *of, cudaStream_t stream) {
  likely<<<(unsigned)of->n, LIST_THREADS, 0, stream>>>(*of);
}

/* ---- taking the information in ---- */

/* Rows of one coordinate, together. */
template <int ROWS> struct alignas(ROWS % 4 == 0 ? 16 : 4) column { float of[ROWS]; };

template <int ROWS> static __device__ float column_dot(const struct column<ROWS> &a, const struct column<ROWS> &b) {
  float sum = 0;
#pragma unroll
  for (int j = 0; j < ROWS; j++) sum += a.of[j] * b.of[j];
  return sum;
}

/* N <- its Cholesky factor, by one warp; false: not positive definite. */
template <int ROWS> static __device__ bool factor(float (*N)[ROWS + 1]) {
  const int lane = (int)threadIdx.x % CUDA_WARP;
  bool good = true;
  for (int j = 0; j < ROWS; j++) {
    float square = N[j][j];
    for (int m = 0; m < j; m++) square -= N[j][m] * N[j][m];
    good = good && square > 0;
    const float root = sqrtf(square);
    for (int i = j + 1 + lane; i < ROWS; i += CUDA_WARP) {
      float sum = N[i][j];
      for (int m = 0; m < j; m++) sum -= N[i][m] * N[j][m];
      N[i][j] = sum / root;
    }
    __syncwarp();
    if (lane == 0) N[j][j] = root;
    __syncwarp();
  }
  return good;
}

/* N <- I + G Aᵀ, its lower triangle, a warp to an element. */
template <int ROWS>
static __device__ void form(int r, const struct column<ROWS> *A, const struct column<ROWS> *G, float (*N)[ROWS + 1]) {
  const int lane = (int)threadIdx.x % CUDA_WARP, warp = (int)threadIdx.x / CUDA_WARP;
  for (int at = warp; at < ROWS * ROWS; at += (int)blockDim.x / CUDA_WARP) {
    const int i = at / ROWS, j = at % ROWS;
    if (j > i) continue;
    float sum = 0;
    for (int k = lane; k < r; k += CUDA_WARP) sum += G[k].of[i] * A[k].of[j];
    sum = cuda_warp_sum(sum);
    if (lane == 0) N[i][j] = sum + (i == j ? 1.0f : 0.0f);
  }
}

static __device__ void begin_anew(const struct kwm_inform &of, float *c, float *P) {
  const int r = (int)of.r, k = (int)threadIdx.x;
  if (k == 0) of.broken[blockIdx.x]++;
  if (k >= r) return;
  c[k] = 0;
  for (int i = 0; i < r; i++) P[(int64_t)i * r + k] = i == k ? of.prior : 0.0f;
}

/* along (r) <- AᵀA v */
template <int ROWS>
static __device__ void look_along(int r, const struct column<ROWS> *A, const float *v, float *along) {
  __shared__ struct column<ROWS> seen;
  const int lane = (int)threadIdx.x % CUDA_WARP, warp = (int)threadIdx.x / CUDA_WARP, k = (int)threadIdx.x;
  for (int j = warp; j < ROWS; j += (int)blockDim.x / CUDA_WARP) {
    float sum = 0;
    for (int i = lane; i < r; i += CUDA_WARP) sum += A[i].of[j] * v[i];
    sum = cuda_warp_sum(sum);
    if (lane == 0) seen.of[j] = sum;
  }
  __syncthreads();
  if (k < r) along[k] = column_dot<ROWS>(A[k], seen);
}

/* This thread's column of A P. */
template <int ROWS> static __device__ struct column<ROWS> project(int r, const struct column<ROWS> *A, const float *P) {
  struct column<ROWS> z = {};
#pragma unroll 4
  for (int i = 0; i < r; i++) {
    const float p = P[(int64_t)i * r + threadIdx.x];
    const struct column<ROWS> a = A[i];
#pragma unroll
    for (int j = 0; j < ROWS; j++) z.of[j] += a.of[j] * p;
  }
  return z;
}

/* z <- L⁻¹z */
template <int ROWS>
static __device__ void solve(const float (*L)[ROWS + 1], struct column<ROWS> &z) {
#pragma unroll
  for (int j = 0; j < ROWS; j++) {
#pragma unroll
    for (int m = 0; m < j; m++) z.of[j] -= L[j][m] * z.of[m];
    z.of[j] /= L[j][j];
  }
}

/* This thread's column of the weighted rows; returns the weighted score. */
template <int ROWS> static __device__ float open_column(const struct kwm_inform &of, int k, struct column<ROWS> &to) {
  const float root = sqrtf(of.weight);
  float sum = 0;
  for (int j = 0; j < ROWS; j++) {
    const float a = j < of.rows ? of.A[(blockIdx.x * of.rows + j) * of.r + k] : 0.0f;
    to.of[j] = root * a;
    sum += a;
  }
  return of.weight * (of.g != NULL ? of.g[blockIdx.x * of.r + k] : sum);
}

/* The trend, and how this thread's score lies to it. */
static __device__ void follow(const struct kwm_inform &of, float g, float step) {
  const int k = (int)threadIdx.x;
  float *const trend = of.trend + blockIdx.x * of.r, *const pull = of.pull + 2 * blockIdx.x;
  const float x = cuda_block_sum(k < of.r ? g * trend[k] : 0.0f);
  if (k < of.r) trend[k] = KWM_INFORM_TREND * trend[k] + step;
  if (k == 0) pull[0] += x, pull[1] += x * x;
}

/* Shared memory: A, then G and in its place Z (r columns each), g, along (r each). */
template <int ROWS> static __global__ void take(struct kwm_inform of) {
  extern __shared__ float4 shared[];
  __shared__ float N[ROWS][ROWS + 1];
  __shared__ bool good;
  const int r = (int)of.r, k = (int)threadIdx.x;
  struct column<ROWS> *const A = (struct column<ROWS> *)shared, *const Z = A + r;
  float *const g = (float *)(Z + r), *const along = g + r;
  float *const c = of.c + blockIdx.x * of.r, *const P = of.P + blockIdx.x * of.r * of.r;
  struct column<ROWS> z = {};
  if (k < r) g[k] = open_column<ROWS>(of, k, A[k]), along[k] = 0;
  __syncthreads();
  if (k < r) Z[k] = z = project<ROWS>(r, A, P);
  if (blockIdx.x == 0) look_along<ROWS>(r, A, of.watched, along);
  __syncthreads();
  form<ROWS>(r, A, Z, N);
  __syncthreads();
  if (k < CUDA_WARP) {
    const bool positive = factor<ROWS>(N);
    if (k == 0) good = positive;
  }
  __syncthreads();
  if (!good) {
    begin_anew(of, c, P);
    return;
  }
  float trace = 0;
  if (k < r) {
    solve<ROWS>(N, z);
    Z[k] = z;
    trace = of.decay * of.decay * (P[(int64_t)k * r + k] - column_dot<ROWS>(z, z)) + of.noise;
  }
  trace = cuda_block_sum(trace);
  const float most = (float)r * of.prior, t = trace > most ? most / trace : 1.0f, keep = t * of.decay * of.decay;
  float step = 0, moved = 0;
  if (k < r) {
#pragma unroll 4
    for (int i = 0; i < r; i++) {
      const float p = P[(int64_t)i * r + k] - column_dot<ROWS>(Z[i], z);
      step += p * g[i];
      moved += p * along[i];
      P[(int64_t)i * r + k] = keep * p + (i == k ? t * of.noise : 0.0f);
    }
  }
  const float promised = cuda_block_sum(k < r ? step * g[k] : 0.0f);
  if (!isfinite(promised)) {
    begin_anew(of, c, P);
    return;
  }
  const float share = of.bound > 0 && promised > of.bound ? of.bound / promised : 1.0f;
  if (k < r) c[k] = of.decay * (c[k] + share * step);
  if (of.trend != NULL) follow(of, k < r ? g[k] : 0.0f, share * step);
  if (blockIdx.x == 0 && k < r) of.watched[k] = of.decay * (of.watched[k] - moved);
}

template <int ROWS> static void launch(const struct kwm_inform *of, cudaStream_t stream) {
  const size_t bytes = (size_t)of->r * (2 * sizeof(struct column<ROWS>) + 2 * sizeof(float));
  const int64_t threads = (of->r + CUDA_WARP - 1) / CUDA_WARP * CUDA_WARP;
  cudaFuncSetAttribute(take<ROWS>, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes);
  take<ROWS><<<(unsigned)of->n, (unsigned)threads, bytes, stream>>>(*of);
}

void cuda_inform_take(const struct kwm_inform *of, cudaStream_t stream) {
  KWM_ASSERT(kwm_inform_fits(of->r, of->rows));
  if (of->rows == 1)
    launch<1>(of, stream);
  else if (of->rows <= 12)
    launch<12>(of, stream);
  else if (of->rows <= 20)
    launch<20>(of, stream);
  else
    launch<KWM_INFORM_ROWS>(of, stream);
}

static __global__ void __launch_bounds__(CUDA_THREADS) lean(struct kwm_lean of) {
  const int64_t all = of.n * of.classes;
  for (int64_t k = cuda_thread(); k < all; k += cuda_stride()) tensor_lean_one(&of, k / of.classes, k % of.classes);
}

void cuda_inform_lean(const struct kwm_lean *of, cudaStream_t stream) {
  lean<<<cuda_blocks(of->n * of->classes), CUDA_THREADS, 0, stream>>>(*of);
}
