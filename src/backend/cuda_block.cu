/* Blocks of units in the information form: p <= 16 parameters, some hundred blocks, all in double.

   Half a warp holds one matrix, lane i its row i, in registers; lanes and columns beyond p are zeros and stay so. A
   step of elimination spreads the pivot's row to the lanes by shuffles. Pivots are those of the Cholesky factor,
   squared: all of them are positive if and only if the matrix is positive definite. */
#include "cuda_map.cuh"

#include <float.h>
#include <math.h>

enum { PARAMS_FEW = 10, PARAMS_MAX = 16, HALF = CUDA_WARP / 2, THREADS = 64, TRACE_THREADS = 512 };

static const unsigned ALL = 0xffffffffu;

/* Half warps by number over the whole grid, and lanes of one. */
static __device__ int64_t half_number(void) {
  return cuda_thread() / HALF;
}

static __device__ int half_lane(void) {
  return (int)(threadIdx.x % HALF);
}

static unsigned blocks_for(int64_t count) {
  return (unsigned)((count * HALF + THREADS - 1) / THREADS);
}

static __device__ double spread(double value, int lane) {
  return __shfl_sync(ALL, value, lane, HALF);
}

/* The sum over the half warp, in every lane. */
static __device__ double sum_half(double value) {
  for (int apart = HALF / 2; apart > 0; apart /= 2) value += __shfl_xor_sync(ALL, value, apart, HALF);
  return value;
}

static __device__ bool positive(double pivot) {
  return pivot > 0 && pivot <= DBL_MAX;
}

/* row <- this lane's row of the symmetric matrix M (p, p). */
template <int MAX> static __device__ void load_row(int p, const double *M, double row[MAX]) {
  const int lane = half_lane();
#pragma unroll
  for (int j = 0; j < MAX; j++) row[j] = lane < p && j < p ? M[lane * p + j] : 0;
}

/* row <- this lane's row of F of block b. */
template <int MAX>
static __device__ void load_evidence(int64_t count, int p, int64_t b, const float *evidence, double row[MAX]) {
  const int lane = half_lane();
#pragma unroll
  for (int j = 0; j < MAX; j++) {
    const int k = lane < j ? lane : j, l = lane < j ? j : lane;
    row[j] = lane < p && j < p ? (double)evidence[(k * p - k * (k - 1) / 2 + l - k) * count + b] : 0;
  }
}

/* W (p, p), both triangles <- the rows' upper triangle. */
template <int MAX> static __device__ void store_rows(int p, const double row[MAX], double *W) {
  const int lane = half_lane();
  if (lane >= p) return;
#pragma unroll
  for (int j = 0; j < MAX; j++)
    if (j >= lane && j < p) W[lane * p + j] = W[j * p + lane] = row[j];
}

template <int MAX> static __device__ void add_to_diagonal(double value, double row[MAX]) {
#pragma unroll
  for (int j = 0; j < MAX; j++) row[j] += j == half_lane() ? value : 0;
}

/* Solves A x = b for rows of A and one element of b a lane: rows -> the upper factor of A, inverse <- one over its
   diagonal, b -> the reduced right-hand side. False: A is not positive definite. */
template <int MAX> static __device__ bool eliminate(int p, double row[MAX], double *inverse, double *b) {
  const int lane = half_lane();
  bool good = true;
  *inverse = 0;
#pragma unroll
  for (int k = 0; k < MAX; k++) {
    if (k >= p) break;
    const double pivot = spread(row[k], k), over = 1 / pivot, factor = lane > k ? row[k] * over : 0;
    good = good && positive(pivot);
    if (lane == k) *inverse = over;
#pragma unroll
    for (int j = k + 1; j < MAX; j++) row[j] -= factor * spread(row[j], k);
    *b -= factor * spread(*b, k);
  }
  return good;
}

/* This lane's element of x, from what eliminate left; product <- that of F x for this lane's row of F. */
template <int MAX>
static __device__ double substitute(int p, const double row[MAX], double inverse, double b, const double F[MAX],
                                    double *product) {
  const int lane = half_lane();
  double x = 0;
  *product = 0;
#pragma unroll
  for (int k = MAX - 1; k >= 0; k--) {
    if (k >= p) continue;
    const double solved = spread(b * inverse, k);
    if (lane < k) b -= row[k] * solved;
    if (lane == k) x = solved;
    *product += F[k] * solved;
  }
  return x;
}

/* Rows of A -> rows of its inverse, in place. False: not positive definite. */
template <int MAX> static __device__ bool invert(int p, double row[MAX]) {
  const int lane = half_lane();
  bool good = true;
#pragma unroll
  for (int k = 0; k < MAX; k++) {
    if (k >= p) break;
    const double pivot = spread(row[k], k), over = 1 / pivot, factor = row[k] * over;
    good = good && positive(pivot);
#pragma unroll
    for (int j = 0; j < MAX; j++) {
      if (j == k) continue;
      const double above = spread(row[j], k);
      row[j] = lane == k ? above * over : row[j] - factor * above;
    }
    row[k] = lane == k ? over : -factor;
  }
  return good;
}

template <int MAX>
static __global__ void __launch_bounds__(THREADS)
    absorb(int64_t count, int p, const double *__restrict__ M, const double *__restrict__ prior,
           const float *__restrict__ evidence, double *__restrict__ delta, double *__restrict__ facts) {
  const int64_t own = half_number(), b = own < count ? own : count - 1;
  const int lane = half_lane();
  const bool mine = own < count && lane < p;
  const float *const score = evidence + p * (p + 1) / 2 * count;
  double row[MAX], F[MAX], inverse, product;
  load_row<MAX>(p, M + b * p * p, row);
  load_evidence<MAX>(count, p, b, evidence, F);
#pragma unroll
  for (int j = 0; j < MAX; j++) row[j] += F[j];
  const double s = lane < p ? (double)score[lane * count + b] : 0, over_prior = lane < p ? 1 / prior[lane] : 0;
  double reduced = s;
  const bool good = eliminate<MAX>(p, row, &inverse, &reduced);
  const double x = substitute<MAX>(p, row, inverse, reduced, F, &product);
  const double change = sum_half(x * product), moved = sum_half(x * x * over_prior), slope = sum_half(s * x);
  if (mine) delta[b * p + lane] = x;
  if (own >= count || lane >= KWM_GAINS) return;
  const double sum = lane == KWM_GAIN_CHANGE ? change : lane == KWM_GAIN_MOVED ? moved : slope;
  facts[b * KWM_GAINS + lane] = lane == KWM_GAIN_EXPECTED ? 0 : good ? sum : (double)NAN;
}

void cuda_block_absorb(int64_t count, int64_t p, const double *M, const double *prior, const float *evidence,
                       double *delta, double *facts, cudaStream_t stream) {
  KWM_ASSERT(p <= PARAMS_MAX);
  if (p <= PARAMS_FEW)
    absorb<PARAMS_FEW><<<blocks_for(count), THREADS, 0, stream>>>(count, (int)p, M, prior, evidence, delta, facts);
  else
    absorb<PARAMS_MAX><<<blocks_for(count), THREADS, 0, stream>>>(count, (int)p, M, prior, evidence, delta, facts);
}

static __global__ void __launch_bounds__(CUDA_THREADS)
    take(int64_t count, int p, const float *__restrict__ evidence, double *__restrict__ M) {
  for (int64_t at = cuda_thread(); at < count * p * p; at += cuda_stride()) {
    const int64_t b = at / (p * p);
    const int i = (int)(at % (p * p)) / p, j = (int)(at % p), k = i < j ? i : j, l = i < j ? j : i;
    M[at] += (double)evidence[(k * p - k * (k - 1) / 2 + l - k) * count + b];
  }
}

void cuda_block_take(int64_t count, int64_t p, const float *evidence, double *M, cudaStream_t stream) {
  KWM_ASSERT(p <= PARAMS_MAX);
  take<<<cuda_blocks(count * p * p), CUDA_THREADS, 0, stream>>>(count, (int)p, evidence, M);
}

/* How blocks change with time. */
struct passage {
  int64_t count;
  int p;
  double lambda, q;
  const double *prior;
};

/* row <- this lane's row of λM + (1-λ)P0⁻¹ of block b. */
template <int MAX>
static __device__ void load_forgotten(const struct passage &by, int64_t b, const double *M, double row[MAX]) {
  load_row<MAX>(by.p, M + b * by.p * by.p, row);
  if (by.lambda == 1) return;
#pragma unroll
  for (int j = 0; j < MAX; j++) row[j] *= by.lambda;
  add_to_diagonal<MAX>(half_lane() < by.p ? (1 - by.lambda) / by.prior[half_lane()] : 0, row);
}

/* W <- the time update of M; the first number of a block that is not positive definite is NaN. */
template <int MAX>
static __global__ void __launch_bounds__(THREADS)
    predict(const struct passage by, const double *__restrict__ M, double *__restrict__ W) {
  const int64_t own = half_number(), b = own < by.count ? own : by.count - 1;
  const int p = by.p, lane = half_lane();
  double row[MAX], next[MAX], inverse, none = 0;
  load_forgotten<MAX>(by, b, M, row);
#pragma unroll
  for (int j = 0; j < MAX; j++) next[j] = row[j];
  bool good = true;
  if (by.q > 0) {
    good = invert<MAX>(p, next);
    add_to_diagonal<MAX>(lane < p ? by.q * by.prior[lane] : 0, next);
    good = invert<MAX>(p, next) && good;
  } else {
    good = eliminate<MAX>(p, row, &inverse, &none);
  }
  if (own >= by.count) return;
  if (!good) next[0] = (double)NAN;
  store_rows<MAX>(p, next, W + b * p * p);
}

/* Number of blocks without a time update, to all threads of a block of CUDA threads. */
static __device__ int failures(int64_t count, int p, const double *W) {
  int mine = 0, all = 0;
  for (int64_t b = threadIdx.x; b < count; b += blockDim.x) mine += !(W[b * p * p] <= DBL_MAX);
  __shared__ int of_warp[THREADS / CUDA_WARP];
  mine = __reduce_add_sync(ALL, mine);
  if (threadIdx.x % CUDA_WARP == 0) of_warp[threadIdx.x / CUDA_WARP] = mine;
  __syncthreads();
  for (int w = 0; w < THREADS / CUDA_WARP; w++) all += of_warp[w];
  return all;
}

/* The mean's pull towards the anchor, from M, then M <- W; nothing if a block of W failed. */
template <int MAX>
static __global__ void __launch_bounds__(THREADS)
    commit(const struct passage by, const float *__restrict__ anchor, double *__restrict__ M,
           const double *__restrict__ W, float *__restrict__ mean, double *__restrict__ facts) {
  const int64_t own = half_number(), b = own < by.count ? own : by.count - 1;
  const int p = by.p, lane = half_lane(), failed = failures(by.count, p, W);
  if (cuda_thread() == 0) facts[0] = failed;
  if (failed > 0) return;
  if (by.lambda < 1) {
    double row[MAX], none[MAX] = {}, inverse, product, reduced = 0;
    load_forgotten<MAX>(by, b, M, row);
    if (lane < p)
      reduced = (1 - by.lambda) * ((double)anchor[b * p + lane] - (double)mean[b * p + lane]) / by.prior[lane];
    eliminate<MAX>(p, row, &inverse, &reduced);
    const double pull = substitute<MAX>(p, row, inverse, reduced, none, &product);
    if (own < by.count && lane < p) mean[b * p + lane] += (float)pull;
  }
  __syncwarp();
  if (own >= by.count) return;
  for (int k = lane; k < p * p; k += HALF) M[b * p * p + k] = W[b * p * p + k];
}

void cuda_block_predict(int64_t count, int64_t p, double lambda, double q, const double *prior, const float *anchor,
                        double *M, double *W, float *mean, double *facts, cudaStream_t stream) {
  const struct passage by = {count, (int)p, lambda, q, prior};
  const unsigned blocks = blocks_for(count);
  KWM_ASSERT(p <= PARAMS_MAX && (lambda == 1 || anchor != NULL));
  if (lambda == 1 && q == 0) {
    cudaMemsetAsync(facts, 0, sizeof *facts, stream);
  } else if (p <= PARAMS_FEW) {
    predict<PARAMS_FEW><<<blocks, THREADS, 0, stream>>>(by, M, W);
    commit<PARAMS_FEW><<<blocks, THREADS, 0, stream>>>(by, anchor, M, W, mean, facts);
  } else {
    predict<PARAMS_MAX><<<blocks, THREADS, 0, stream>>>(by, M, W);
    commit<PARAMS_MAX><<<blocks, THREADS, 0, stream>>>(by, anchor, M, W, mean, facts);
  }
}

/* One block of CUDA threads for all matrices: the sum has one order. */
template <int MAX>
static __global__ void __launch_bounds__(TRACE_THREADS)
    trace(int64_t count, int p, const double *__restrict__ M, double *__restrict__ facts) {
  double sum[1] = {0};
  for (int64_t first = 0; first < count; first += TRACE_THREADS / HALF) {
    const int64_t own = first + threadIdx.x / HALF, b = own < count ? own : count - 1;
    double row[MAX];
    load_row<MAX>(p, M + b * p * p, row);
    const bool good = invert<MAX>(p, row);
    double variance = 0;
#pragma unroll
    for (int j = 0; j < MAX; j++) variance += j == half_lane() ? row[j] : 0;
    if (own < count) sum[0] += good ? variance : (double)NAN;
  }
  cuda_block_sums<1>(sum);
  if (threadIdx.x == 0) facts[0] = sum[0];
}

void cuda_block_trace(int64_t count, int64_t p, const double *M, double *facts, cudaStream_t stream) {
  KWM_ASSERT(p <= PARAMS_MAX);
  if (p <= PARAMS_FEW)
    trace<PARAMS_FEW><<<1, TRACE_THREADS, 0, stream>>>(count, (int)p, M, facts);
  else
    trace<PARAMS_MAX><<<1, TRACE_THREADS, 0, stream>>>(count, (int)p, M, facts);
}
