/* What blocks of tokens tell of offsets (kwm/inform.h: inform_low), a block to a stream; the small matrices lie in
   shared memory, U stays where it is. */
#include "cuda_map.cuh"
#include "cuda_tensor.h"

static constexpr int LOW_THREADS = 256, SWEEPS = 8;
static constexpr float NEAR = 2e-3f; /* sines of a sweep after which there is nothing left to turn */

/* Of one stream: q rows, the last `rows` of them new. (q, ld) each, ld odd so that rows lie in different banks: K =
   UUᵀ, its factor, eigenvectors. */
struct low {
  int r, q, old, ld;
  float *U, *K, *L, *Q;
};

/* K <- UUᵀ, L <- I / prior + K; a warp to an element. */
static __device__ void multiply(const struct low &low, float lambda) {
  const int lane = (int)threadIdx.x % CUDA_WARP, warp = (int)threadIdx.x / CUDA_WARP, q = low.q;
  for (int at = warp; at < q * (q + 1) / 2; at += LOW_THREADS / CUDA_WARP) {
    int i = (int)((sqrtf(8.0f * (float)at + 1) - 1) / 2);
    if ((i + 1) * (i + 2) / 2 <= at) i++;
    const int j = at - i * (i + 1) / 2;
    const float *const a = low.U + (int64_t)i * low.r, *const b = low.U + (int64_t)j * low.r;
    float sum = 0;
#pragma unroll 4
    for (int k = lane; k < low.r; k += CUDA_WARP) sum += a[k] * b[k];
    sum = cuda_warp_sum(sum);
    if (lane != 0) continue;
    low.K[i * low.ld + j] = low.K[j * low.ld + i] = sum;
    low.L[i * low.ld + j] = sum + (i == j ? lambda : 0.0f);
  }
}

/* L <- its Cholesky factor, column by column, by one warp; false: not positive definite. */
static __device__ bool factor(const struct low &low) {
  const int lane = (int)threadIdx.x, q = low.q, ld = low.ld;
  bool good = true;
  for (int j = 0; j < q; j++) {
    float square = low.L[j * ld + j];
    for (int m = 0; m < j; m++) square -= low.L[j * ld + m] * low.L[j * ld + m];
    good = good && square > 0 && isfinite(square);
    const float over = rsqrtf(square);
    __syncwarp();
    for (int i = j + lane; i < q; i += CUDA_WARP) {
      float sum = low.L[i * ld + j];
      for (int m = 0; m < j; m++) sum -= low.L[i * ld + m] * low.L[j * ld + m];
      low.L[i * ld + j] = sum * over;
    }
    __syncwarp();
  }
  return good;
}

/* w (q) <- (LLᵀ)⁻¹ w, by one warp. */
static __device__ void solve(const struct low &low, float *w) {
  const int lane = (int)threadIdx.x % CUDA_WARP, q = low.q, ld = low.ld;
  for (int j = 0; j < q; j++) {
    const float of = w[j] / low.L[j * ld + j];
    __syncwarp();
    if (lane == 0) w[j] = of;
    for (int i = j + 1 + lane; i < q; i += CUDA_WARP) w[i] -= low.L[i * ld + j] * of;
    __syncwarp();
  }
  for (int j = q - 1; j >= 0; j--) {
    const float of = w[j] / low.L[j * ld + j];
    __syncwarp();
    if (lane == 0) w[j] = of;
    for (int i = lane; i < j; i += CUDA_WARP) w[i] -= low.L[j * ld + i] * of;
    __syncwarp();
  }
}

/* w <- what of U's rows makes P x / prior, x = Σ share_j new row j: of row i share - w_i. By one warp. */
static __device__ void combine(const struct low &low, const float *share, float *w) {
  const int lane = (int)threadIdx.x % CUDA_WARP, q = low.q;
  for (int i = lane; i < q; i += CUDA_WARP) {
    float sum = 0;
    for (int j = low.old; j < q; j++) sum += share[j - low.old] * low.K[i * low.ld + j];
    w[i] = sum;
  }
  __syncwarp();
  solve(low, w);
  for (int i = lane; i < q; i += CUDA_WARP) w[i] = (i >= low.old ? share[i - low.old] : 0.0f) - w[i];
}

/* The rotation that makes K_ab zero. */
static __device__ float2 rotation(const struct low &low, int a, int b) {
  const float off = low.K[a * low.ld + b], gap = low.K[b * low.ld + b] - low.K[a * low.ld + a];
  if (off == 0) return make_float2(1, 0);
  const float tau = __fdividef(gap, 2 * off), t = __fdividef(copysignf(1.0f, tau), fabsf(tau) + sqrtf(1 + tau * tau));
  const float c = rsqrtf(1 + t * t);
  return isfinite(t) ? make_float2(c, t * c) : make_float2(1, 0);
}

/* Who meets whom: pair p of round k among `even` numbers, each with each once in even - 1 rounds. */
static __device__ uchar2 meeting(int even, int k, int p) {
  const int m = even - 1, a = p == 0 ? m : (k + p) % m, b = (k - p + m) % m;
  return make_uchar2((unsigned char)(a < b ? a : b), (unsigned char)(a < b ? b : a));
}

/* A square of K, of the pairs a and b (an odd number's missing partner is `q`), turned from both sides. */
static __device__ void turn_square(const struct low &low, uchar2 a, uchar2 b, float2 x, float2 y) {
  float *const first = low.K + b.x * low.ld, *const second = low.K + b.y * low.ld;
  const bool wide = a.y < low.q, high = b.y < low.q;
  const float m00 = first[a.x], m01 = wide ? first[a.y] : 0, m10 = high ? second[a.x] : 0,
              m11 = wide && high ? second[a.y] : 0;
  const float n00 = x.x * m00 - x.y * m01, n01 = x.y * m00 + x.x * m01;
  const float n10 = x.x * m10 - x.y * m11, n11 = x.y * m10 + x.x * m11;
  first[a.x] = y.x * n00 - y.y * n10;
  if (wide) first[a.y] = y.x * n01 - y.y * n11;
  if (high) second[a.x] = y.y * n00 + y.x * n10;
  if (wide && high) second[a.y] = y.y * n01 + y.x * n11;
}

/* K <- QᵀKQ, all but diagonal; Q, orthogonal, its eigenvectors: by Jacobi's rotations, half of q at once. A square of
   four elements, or two of Q, to a thread, in which no other writes. `pairs` of all rounds lie in shared memory. */
static __device__ void diagonalise(const struct low &low, uchar2 *meetings) {
  __shared__ float2 turn[KWM_INFORM_RANK / 2];
  const int q = low.q, even = q + q % 2, pairs = even / 2, rounds = even - 1;
  for (int at = (int)threadIdx.x; at < q * q; at += LOW_THREADS)
    low.Q[at / q * low.ld + at % q] = at % (q + 1) == 0 ? 1.0f : 0.0f;
  for (int at = (int)threadIdx.x; at < rounds * pairs; at += LOW_THREADS)
    meetings[at] = meeting(even, at / pairs, at % pairs);
  const int mine = (int)threadIdx.x % pairs, line = (int)threadIdx.x / pairs, lines = LOW_THREADS / pairs;
  bool far = false;
  for (int k = 0; k < SWEEPS * rounds; k++) {
    const uchar2 *const met = meetings + k % rounds * pairs;
    if (k > 0 && k % rounds == 0) {
      if (!__syncthreads_or(far)) break;
      far = false;
    } else {
      __syncthreads();
    }
    if ((int)threadIdx.x < pairs) {
      const uchar2 of = met[threadIdx.x];
      turn[threadIdx.x] = of.y < q ? rotation(low, of.x, of.y) : make_float2(1, 0);
      far = far || (of.y < q && fabsf(turn[threadIdx.x].y) > NEAR);
    }
    __syncthreads();
    const uchar2 a = met[mine];
    const float2 x = turn[mine];
    for (int o = line; o < pairs + q && line < lines; o += lines) {
      if (o < pairs) {
        turn_square(low, a, met[o], x, turn[o]);
      } else if (a.y < q) {
        float *const row = low.Q + (o - pairs) * low.ld;
        const float u = row[a.x], v = row[a.y];
        row[a.x] = x.x * u - x.y * v, row[a.y] = x.y * u + x.x * v;
      }
    }
  }
  __syncthreads();
}

/* U's first `keep` rows <- the leading directions, with the noise of the time since. */
static __device__ void compress(const struct kwm_inform_low &of, const struct low &low, int keep, uchar2 *meetings) {
  __shared__ float scale[KWM_INFORM_RANK];
  __shared__ int from[KWM_INFORM_RANK];
  const int q = low.q, i = (int)threadIdx.x;
  const float lambda = 1 / of.prior, t = (float)of.since[blockIdx.x], a2 = powf(of.decay, 2 * t);
  diagonalise(low, meetings);
  if (i < q) {
    const float had = low.K[i * low.ld + i];
    const float has = 1 / (a2 / (lambda + had) + t * of.noise) - lambda;
    int place = 0;
    for (int j = 0; j < q; j++) place += low.K[j * low.ld + j] > had || (low.K[j * low.ld + j] == had && j < i);
    from[place] = i, scale[place] = had > 0 && has > 0 ? sqrtf(has / had) : 0.0f;
  }
  __syncthreads();
  for (int k = i; k < low.r; k += LOW_THREADS) {
    float old[KWM_INFORM_RANK];
    for (int j = 0; j < q; j++) old[j] = low.U[(int64_t)j * low.r + k];
    for (int j = 0; j < keep; j++) {
      float sum = 0;
      for (int m = 0; m < q; m++) sum += low.Q[m * low.ld + from[j]] * old[m];
      low.U[(int64_t)j * low.r + k] = scale[j] * sum;
    }
  }
  if (i == 0) of.known[blockIdx.x] = keep, of.since[blockIdx.x] = 0;
}

/* P x of one coordinate. */
static __device__ float applied(const struct low &low, float prior, const float *w, int k) {
  float sum = 0;
  for (int i = 0; i < low.q; i++) sum += w[i] * low.U[(int64_t)i * low.r + k];
  return prior * sum;
}

static __global__ void __launch_bounds__(LOW_THREADS) inform_low(struct kwm_inform_low of, int kept) {
  extern __shared__ float small[];
  __shared__ float share[2][KWM_INFORM_RANK], w[2][KWM_INFORM_RANK];
  __shared__ bool good;
  const int s = (int)blockIdx.x, r = (int)of.r, rows = (int)of.rows, old = of.known[s], q = old + rows;
  const int lane = (int)threadIdx.x % CUDA_WARP, warp = (int)threadIdx.x / CUDA_WARP;
  const float *const A = of.A + (int64_t)s * rows * r;
  float *const c = of.c + (int64_t)s * r;
  const int ld = q | 1;
  const struct low low = {r, q, old, ld, of.U + (int64_t)s * of.rank * r, small, small + q * ld, small + 2 * q * ld};
  for (int k = (int)threadIdx.x; k < rows * r; k += LOW_THREADS) low.U[(int64_t)old * r + k] = A[k];
  for (int j = warp; j < rows; j += LOW_THREADS / CUDA_WARP) {
    float sum = 0;
    for (int k = lane; k < r && s == 0; k += CUDA_WARP) sum += A[(int64_t)j * r + k] * of.watched[k];
    sum = cuda_warp_sum(sum);
    if (lane == 0) share[0][j] = 1, share[1][j] = sum;
  }
  __syncthreads();
  multiply(low, 1 / of.prior);
  __syncthreads();
  if (warp == 0) {
    const bool positive = factor(low);
    if (lane == 0) good = positive;
  }
  __syncthreads();
  if (warp < 2) combine(low, share[warp], w[warp]);
  __syncthreads();
  float promised = 0;
  for (int k = (int)threadIdx.x; k < r; k += LOW_THREADS) {
    float total = 0;
    for (int j = 0; j < rows; j++) total += A[(int64_t)j * r + k];
    promised += total * applied(low, of.prior, w[0], k);
  }
  promised = cuda_block_sum(promised);
  if (!good || !isfinite(promised)) {
    for (int k = (int)threadIdx.x; k < r; k += LOW_THREADS) c[k] = 0;
    if (threadIdx.x == 0) of.broken[s]++, of.known[s] = of.since[s] = 0;
    return;
  }
  const float keep = powf(of.decay, (float)of.tokens);
  const float part = of.bound > 0 && promised > of.bound ? of.bound / promised : 1.0f;
  for (int k = (int)threadIdx.x; k < r; k += LOW_THREADS) {
    c[k] = keep * (c[k] + part * applied(low, of.prior, w[0], k));
    if (s == 0) of.watched[k] = keep * (of.watched[k] - applied(low, of.prior, w[1], k));
  }
  if (threadIdx.x == 0) of.known[s] = q, of.since[s] += (int32_t)of.tokens;
  __syncthreads();
  if (q + rows > of.rank) compress(of, low, kept, (uchar2 *)(small + 3 * q * ld));
}

void cuda_blocks_inform(const struct kwm_inform_low *of, cudaStream_t stream) {
  KWM_ASSERT(of->rows <= of->rank && of->rank <= KWM_INFORM_RANK);
  const size_t bytes = (size_t)(3 * of->rank * (of->rank + 1)) * sizeof(float) +
                       (size_t)((of->rank + 1) * (of->rank + 1) / 2) * sizeof(uchar2);
  cudaFuncSetAttribute(inform_low, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes);
  inform_low<<<(unsigned)of->n, LOW_THREADS, bytes, stream>>>(*of, (int)kwm_inform_keep(of->rank, of->rows));
}
