/* The covariances whose step is elementwise: kron in its eigenbasis, and diag. What the numbers mean stands in
   src/cov/kron.c and src/cov/diag.c. */
#include "cuda_map.cuh"

/* kron_gain: a block takes a piece of one row at a time, four numbers a thread. */
static constexpr int FOUR = 4, PIECE = FOUR * CUDA_THREADS;

/* A thread's four numbers of a piece: side by side as one vector, or each a block's width from the last. What lies
   beyond the row's end reads as `none` and is not written. */
template <bool VECTORS>
static __device__ inline void load_four(const float *row, int64_t piece, int64_t end, float none, float out[FOUR]) {
  if (VECTORS) {
    const int64_t at = piece + FOUR * threadIdx.x;
    const float4 four = at < end ? *(const float4 *)(row + at) : make_float4(none, none, none, none);
    out[0] = four.x;
    out[1] = four.y;
    out[2] = four.z;
    out[3] = four.w;
  } else {
    for (int u = 0; u < FOUR; u++) {
      const int64_t at = piece + u * CUDA_THREADS + threadIdx.x;
      out[u] = at < end ? row[at] : none;
    }
  }
}

template <bool VECTORS>
static __device__ inline void store_four(float *row, int64_t piece, int64_t end, const float in[FOUR]) {
  if (VECTORS) {
    const int64_t at = piece + FOUR * threadIdx.x;
    if (at < end) *(float4 *)(row + at) = make_float4(in[0], in[1], in[2], in[3]);
  } else {
    for (int u = 0; u < FOUR; u++) {
      const int64_t at = piece + u * CUDA_THREADS + threadIdx.x;
      if (at < end) row[at] = in[u];
    }
  }
}

struct gain_arrays {
  int64_t o, i;
  double share; /* 1 / batch */
  const float *gt2, *at2, *Y, *D;
  float *f, *X;
};

/* One piece of a row; sums += its facts. Four numbers are added up in float first: the conversions to double would cost
   more than the memory. */
template <bool VECTORS>
static __device__ inline void gain_piece(const struct gain_arrays &g, int64_t row, int64_t piece,
                                         double sums[KWM_GAINS]) {
  const int64_t first = row * g.i;
  const float weight = (float)((g.gt2[row] < 0 ? 0.0 : (double)g.gt2[row]) * g.share);
  float at2[FOUR], Y[FOUR], D[FOUR], f[FOUR], X[FOUR], change = 0, moved = 0, slope = 0, expected = 0;
  load_four<VECTORS>(g.Y + first, piece, g.i, 0, Y);
  load_four<VECTORS>(g.D + first, piece, g.i, 1, D);
  load_four<VECTORS>(g.at2, piece, g.i, 0, at2);
#pragma unroll
  for (int u = 0; u < FOUR; u++) {
    f[u] = weight * at2[u];
    const float next = D[u] + f[u], x = Y[u] / next, share = __fdividef(f[u], next);
    X[u] = x;
    change += isfinite(next) ? f[u] * x * x : INFINITY;
    moved += x * x;
    slope += Y[u] * x;
    expected += share * share;
  }
  store_four<VECTORS>(g.f + first, piece, g.i, f);
  store_four<VECTORS>(g.X + first, piece, g.i, X);
  sums[KWM_GAIN_CHANGE] += (double)change;
  sums[KWM_GAIN_MOVED] += (double)moved;
  sums[KWM_GAIN_SLOPE] += (double)slope;
  sums[KWM_GAIN_EXPECTED] += (double)expected;
}

template <bool VECTORS>
static __global__ void __launch_bounds__(CUDA_THREADS)
    gain(struct gain_arrays g, unsigned pieces, unsigned items, double *facts, struct cuda_scratch scratch) {
  double sums[KWM_GAINS] = {};
  for (unsigned item = blockIdx.x; item < items; item += gridDim.x)
    gain_piece<VECTORS>(g, item / pieces, (int64_t)(item % pieces) * PIECE, sums);
  cuda_block_sums<KWM_GAINS>(sums);
  if (cuda_last_block<KWM_GAINS>(sums, scratch)) cuda_add_parts<KWM_GAINS>(scratch, 0, gridDim.x, facts);
}

void cuda_kron_gain(int64_t o, int64_t i, double batch, const float *gt2, const float *at2, const float *Y,
                    const float *D, float *f, float *X, double *facts, const struct cuda_scratch *scratch,
                    cudaStream_t stream) {
  const struct gain_arrays g = {o, i, 1 / batch, gt2, at2, Y, D, f, X};
  const bool vectors =
      i % FOUR == 0 && cuda_aligned(at2) && cuda_aligned(Y) && cuda_aligned(D) && cuda_aligned(f) && cuda_aligned(X);
  const int64_t pieces = (i + PIECE - 1) / PIECE, items = o * pieces;
  KWM_ASSERT(items <= INT32_MAX);
  const unsigned blocks = (unsigned)(items < CUDA_PARTS ? items : (int64_t)CUDA_PARTS);
  if (vectors)
    gain<true><<<blocks, CUDA_THREADS, 0, stream>>>(g, (unsigned)pieces, (unsigned)items, facts, *scratch);
  else
    gain<false><<<blocks, CUDA_THREADS, 0, stream>>>(g, (unsigned)pieces, (unsigned)items, facts, *scratch);
}

struct forgotten {
  float lambda, rest;
  __device__ float operator()(float, float, float D) const {
    return lambda * D + rest;
  }
};

void cuda_kron_forget(int64_t n, float lambda, float d0, float *D, cudaStream_t stream) {
  cuda_map<0>(n, NULL, NULL, D, forgotten{lambda, (1 - lambda) * d0}, stream);
}

struct diffused {
  float q;
  __device__ float operator()(float, float, float D) const {
    return D / (1 + q * D);
  }
};

void cuda_kron_diffuse(int64_t n, float q, float *D, cudaStream_t stream) {
  cuda_map<0>(n, NULL, NULL, D, diffused{q}, stream);
}

struct pulled {
  float share;
  __device__ float operator()(float D, float mean, float x) const {
    return share / D * (x - mean);
  }
};

void cuda_kron_pull(int64_t n, float share, const float *D, const float *mean, float *X, cudaStream_t stream) {
  if (mean != NULL)
    cuda_map<2>(n, D, mean, X, pulled{share}, stream);
  else
    cuda_map<1>(n, D, NULL, X, pulled{share}, stream);
}

template <class T>
static __global__ void __launch_bounds__(CUDA_THREADS)
    add_inverses(int64_t n, const T *D, double *facts, struct cuda_scratch scratch) {
  double sum[1] = {};
  for (int64_t k = cuda_thread(); k < n; k += cuda_stride()) sum[0] += 1 / (double)D[k];
  cuda_block_sums<1>(sum);
  if (cuda_last_block<1>(sum, scratch)) cuda_add_parts<1>(scratch, 0, gridDim.x, facts);
}

/* Blocks for a sum over n numbers. */
static unsigned parts_for(int64_t n) {
  const unsigned blocks = cuda_blocks(n);
  return blocks < CUDA_PARTS ? blocks : (unsigned)CUDA_PARTS;
}

void cuda_sum_inverse(int64_t n, const float *D, double *facts, const struct cuda_scratch *scratch,
                      cudaStream_t stream) {
  add_inverses<<<parts_for(n), CUDA_THREADS, 0, stream>>>(n, D, facts, *scratch);
}

void cuda_diag_trace(bool wide, int64_t n, const void *D, double *facts, const struct cuda_scratch *scratch,
                     cudaStream_t stream) {
  if (wide)
    add_inverses<<<parts_for(n), CUDA_THREADS, 0, stream>>>(n, (const double *)D, facts, *scratch);
  else
    add_inverses<<<parts_for(n), CUDA_THREADS, 0, stream>>>(n, (const float *)D, facts, *scratch);
}

static __global__ void move_mean(int64_t n, double scale, const double *delta, float *mean) {
  for (int64_t k = cuda_thread(); k < n; k += cuda_stride()) mean[k] += (float)(scale * delta[k]);
}

void cuda_move_f64(int64_t n, double scale, const double *delta, float *mean, cudaStream_t stream) {
  move_mean<<<cuda_blocks(n), CUDA_THREADS, 0, stream>>>(n, scale, delta, mean);
}

struct diag_shape {
  int64_t count, p, period;
  const double *prior;
  unsigned parts; /* blocks of threads that share one block of the covariance */
};

/* This block's share of one block's parameters; sums <- its facts. A sum of squares that was rounded below zero counts
   as zero; NaN stays. What is stored may be narrower than what was worked out, and the step goes on with the former. */
template <class T>
static __device__ inline void absorb_part(const struct diag_shape &shape, int64_t block, const float *evidence,
                                          const T *D, T *next, double *delta, double sums[KWM_GAINS]) {
  const int64_t p = shape.p, count = shape.count;
  const float *const score = evidence + p * count;
  const int64_t first = (int64_t)(blockIdx.x % shape.parts) * blockDim.x + threadIdx.x;
  for (int64_t k = first; k < p; k += (int64_t)shape.parts * blockDim.x) {
    const float found = evidence[k * count + block];
    const double f = found < 0 ? 0.0 : (double)found, s = (double)score[k * count + block];
    const T taken = (T)((double)D[block * p + k] + f);
    const double step = s / (double)taken, share = f / (double)taken;
    next[block * p + k] = taken;
    delta[block * p + k] = step;
    sums[KWM_GAIN_CHANGE] += isfinite(taken) ? f * step * step : (double)INFINITY;
    sums[KWM_GAIN_MOVED] += step * step / shape.prior[k % shape.period];
    sums[KWM_GAIN_SLOPE] += s * step;
    sums[KWM_GAIN_EXPECTED] += share * share;
  }
}

template <class T>
static __global__ void absorb_diagonal(struct diag_shape shape, const float *evidence, const T *D, T *next,
                                       double *delta, double *facts, struct cuda_scratch scratch) {
  const int64_t block = blockIdx.x / shape.parts;
  double sums[KWM_GAINS] = {};
  absorb_part(shape, block, evidence, D, next, delta, sums);
  cuda_block_sums<KWM_GAINS>(sums);
  if (shape.parts == 1) {
    if (threadIdx.x == 0)
      for (int k = 0; k < KWM_GAINS; k++) facts[block * KWM_GAINS + k] = sums[k];
  } else if (cuda_last_block<KWM_GAINS>(sums, scratch)) {
    for (int64_t b = 0; b < shape.count; b++)
      cuda_add_parts<KWM_GAINS>(scratch, b * shape.parts, shape.parts, facts + b * KWM_GAINS);
  }
}

template <class T>
static void start_absorb(const struct diag_shape &shape, const float *evidence, const void *D, void *next,
                         double *delta, double *facts, const struct cuda_scratch *scratch, cudaStream_t stream) {
  const int threads = shape.p <= CUDA_WARP ? CUDA_WARP : CUDA_THREADS;
  const unsigned blocks = (unsigned)(shape.count * shape.parts);
  absorb_diagonal<<<blocks, threads, 0, stream>>>(shape, evidence, (const T *)D, (T *)next, delta, facts, *scratch);
}

void cuda_diag_absorb(bool wide, int64_t count, int64_t p, int64_t period, const double *prior, const float *evidence,
                      const void *D, void *next, double *delta, double *facts, const struct cuda_scratch *scratch,
                      cudaStream_t stream) {
  const int64_t wanted = (p + CUDA_THREADS - 1) / CUDA_THREADS, room = CUDA_PARTS / count;
  const int64_t parts = wanted < room ? wanted : room;
  const struct diag_shape shape = {count, p, period, prior, (unsigned)(parts > 1 ? parts : 1)};
  if (wide)
    start_absorb<double>(shape, evidence, D, next, delta, facts, scratch, stream);
  else
    start_absorb<float>(shape, evidence, D, next, delta, facts, scratch, stream);
}

struct diag_time {
  int64_t n, p, period;
  double lambda, q;
  const double *prior;
  const float *anchor;
};

template <class T> static __global__ void predict_diagonal(struct diag_time time, T *D, float *mean) {
  for (int64_t k = cuda_thread(); k < time.n; k += cuda_stride()) {
    const double p0 = time.prior[time.period == 1 ? 0 : k % time.p % time.period];
    const double forgot = time.lambda * (double)D[k] + (1 - time.lambda) / p0;
    if (time.lambda < 1) {
      const double apart = (double)time.anchor[k] - (double)mean[k];
      mean[k] = (float)((double)mean[k] + (1 - time.lambda) / (p0 * forgot) * apart);
    }
    D[k] = (T)(forgot / (1 + time.q * p0 * forgot));
  }
}

void cuda_diag_predict(bool wide, int64_t count, int64_t p, int64_t period, double lambda, double q,
                       const double *prior, const float *anchor, void *D, float *mean, cudaStream_t stream) {
  const struct diag_time time = {count * p, p, period, lambda, q, prior, anchor};
  const unsigned blocks = cuda_blocks(time.n);
  if (wide)
    predict_diagonal<<<blocks, CUDA_THREADS, 0, stream>>>(time, (double *)D, mean);
  else
    predict_diagonal<<<blocks, CUDA_THREADS, 0, stream>>>(time, (float *)D, mean);
}
