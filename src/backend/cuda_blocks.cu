/* What blocks of tokens tell of offsets and biases (kwm/inform.h). inform_low: a block to a stream; the small matrices
   lie in shared memory, U stays where it is. */
#include "cuda_map.cuh"
#include "cuda_tensor.h"

static constexpr int LOW_THREADS = 256, SWEEPS = 4;

static __device__ float warp_sum(float mine) {
  for (unsigned apart = CUDA_WARP / 2; apart > 0; apart /= 2) mine += __shfl_xor_sync(0xffffffffu, mine, apart);
  return mine;
}

static __device__ float block_sum(float mine) {
  __shared__ float of_warp[CUDA_WARP];
  const unsigned lane = threadIdx.x % CUDA_WARP, warp = threadIdx.x / CUDA_WARP, warps = blockDim.x / CUDA_WARP;
  mine = warp_sum(mine);
  __syncthreads();
  if (lane == 0) of_warp[warp] = mine;
  __syncthreads();
  return warp_sum(lane < warps ? of_warp[lane] : 0.0f);
}

/* Of one stream: q rows, the last `rows` of them new. (q, q) each: K = UUᵀ, its factor or its rest, eigenvectors. */
struct low {
  int r, q, old;
  float *U, *K, *L, *Q;
};

/* K <- UUᵀ, L <- I / prior + K; a warp to an element. */
static __device__ void multiply(const struct low &low, float lambda) {
  const int lane = (int)threadIdx.x % CUDA_WARP, warp = (int)threadIdx.x / CUDA_WARP, q = low.q;
  for (int at = warp; at < q * q; at += LOW_THREADS / CUDA_WARP) {
    const int i = at / q, j = at % q;
    if (j > i) continue;
    float sum = 0;
    for (int k = lane; k < low.r; k += CUDA_WARP) sum += low.U[(int64_t)i * low.r + k] * low.U[(int64_t)j * low.r + k];
    sum = warp_sum(sum);
    if (lane != 0) continue;
    low.K[i * q + j] = low.K[j * q + i] = sum;
    low.L[i * q + j] = sum + (i == j ? lambda : 0.0f);
  }
}

/* L <- its Cholesky factor, by one warp; false: not positive definite. */
static __device__ bool factor(const struct low &low) {
  const int lane = (int)threadIdx.x, q = low.q;
  bool good = true;
  for (int j = 0; j < q; j++) {
    const float root = sqrtf(low.L[j * q + j]);
    good = good && root > 0 && isfinite(root);
    __syncwarp();
    for (int i = j + lane; i < q; i += CUDA_WARP) low.L[i * q + j] = i == j ? root : low.L[i * q + j] / root;
    __syncwarp();
    for (int at = lane; at < (q - j - 1) * (q - j - 1); at += CUDA_WARP) {
      const int i = j + 1 + at / (q - j - 1), k = j + 1 + at % (q - j - 1);
      if (k <= i) low.L[i * q + k] -= low.L[i * q + j] * low.L[k * q + j];
    }
    __syncwarp();
  }
  return good;
}

/* w (q) <- (LLᵀ)⁻¹ w, by one warp. */
static __device__ void solve(const struct low &low, float *w) {
  const int lane = (int)threadIdx.x % CUDA_WARP, q = low.q;
  for (int j = 0; j < q; j++) {
    if (lane == 0) w[j] /= low.L[j * q + j];
    __syncwarp();
    for (int i = j + 1 + lane; i < q; i += CUDA_WARP) w[i] -= low.L[i * q + j] * w[j];
    __syncwarp();
  }
  for (int j = q - 1; j >= 0; j--) {
    if (lane == 0) w[j] /= low.L[j * q + j];
    __syncwarp();
    for (int i = lane; i < j; i += CUDA_WARP) w[i] -= low.L[j * q + i] * w[j];
    __syncwarp();
  }
}

/* w <- what of U's rows makes P x / prior, x = Σ share_j new row j: of row i share - w_i. By one warp. */
static __device__ void combine(const struct low &low, const float *share, float *w) {
  const int lane = (int)threadIdx.x % CUDA_WARP, q = low.q;
  for (int i = lane; i < q; i += CUDA_WARP) {
    w[i] = 0;
    for (int j = low.old; j < q; j++) w[i] += share[j - low.old] * low.K[i * q + j];
  }
  __syncwarp();
  solve(low, w);
  for (int i = lane; i < q; i += CUDA_WARP) w[i] = (i >= low.old ? share[i - low.old] : 0.0f) - w[i];
}

/* The rotation that makes K_ab zero. */
static __device__ float2 rotation(const struct low &low, int a, int b) {
  const float off = low.K[a * low.q + b], gap = low.K[b * low.q + b] - low.K[a * low.q + a];
  if (off == 0) return make_float2(1, 0);
  const float tau = gap / (2 * off), t = copysignf(1.0f, tau) / (fabsf(tau) + sqrtf(1 + tau * tau));
  const float c = rsqrtf(1 + t * t);
  return make_float2(c, t * c);
}

/* Pair p of round k among `even` numbers: each meets each once in even - 1 rounds. */
static __device__ int2 meeting(int even, int k, int p) {
  const int m = even - 1, a = p == 0 ? m : (k + p) % m, b = (k - p + m) % m;
  return a < b ? make_int2(a, b) : make_int2(b, a);
}

/* K <- QᵀKQ, all but diagonal; Q, orthogonal, its eigenvectors: by Jacobi's rotations, half of q at once. A square of
   four elements to a thread, in which no other writes. */
static __device__ void diagonalise(const struct low &low) {
  __shared__ float2 turn[KWM_INFORM_RANK / 2];
  const int q = low.q, even = q + q % 2, pairs = even / 2;
  for (int at = (int)threadIdx.x; at < q * q; at += LOW_THREADS) low.Q[at] = at % (q + 1) == 0 ? 1.0f : 0.0f;
  for (int k = 0; k < SWEEPS * (even - 1); k++) {
    __syncthreads();
    if ((int)threadIdx.x < pairs) {
      const int2 of = meeting(even, k % (even - 1), (int)threadIdx.x);
      turn[threadIdx.x] = of.y < q ? rotation(low, of.x, of.y) : make_float2(1, 0);
    }
    __syncthreads();
    for (int at = (int)threadIdx.x; at < pairs * (pairs + q); at += LOW_THREADS) {
      const int p = at % pairs, o = at / pairs;
      const int2 a = meeting(even, k % (even - 1), p);
      const float2 x = turn[p];
      const bool paired = a.y < q;
      if (o >= pairs) {
        if (!paired) continue;
        float *const row = low.Q + (o - pairs) * q;
        const float u = row[a.x], v = row[a.y];
        row[a.x] = x.x * u - x.y * v, row[a.y] = x.y * u + x.x * v;
        continue;
      }
      const int2 b = meeting(even, k % (even - 1), o);
      const float2 y = turn[o];
      const bool both = b.y < q;
      float *const first = low.K + b.x * q, *const second = low.K + b.y * q;
      const float m00 = first[a.x], m01 = paired ? first[a.y] : 0, m10 = both ? second[a.x] : 0,
                  m11 = paired && both ? second[a.y] : 0;
      const float n00 = x.x * m00 - x.y * m01, n01 = x.y * m00 + x.x * m01, n10 = x.x * m10 - x.y * m11,
                  n11 = x.y * m10 + x.x * m11;
      first[a.x] = y.x * n00 - y.y * n10;
      if (paired) first[a.y] = y.x * n01 - y.y * n11;
      if (both) second[a.x] = y.y * n00 + y.x * n10;
      if (paired && both) second[a.y] = y.y * n01 + y.x * n11;
    }
  }
  __syncthreads();
}

/* U's first `keep` rows <- the leading directions, with the noise of the time since. */
static __device__ void compress(const struct kwm_inform_low &of, const struct low &low, int keep) {
  __shared__ float scale[KWM_INFORM_RANK];
  __shared__ int from[KWM_INFORM_RANK];
  const int q = low.q, i = (int)threadIdx.x;
  const float lambda = 1 / of.prior, t = (float)of.since[blockIdx.x], a2 = powf(of.decay, 2 * t);
  diagonalise(low);
  if (i < q) {
    const float had = low.K[i * q + i];
    const float has = 1 / (a2 / (lambda + had) + t * of.noise) - lambda;
    int place = 0;
    for (int j = 0; j < q; j++) place += low.K[j * q + j] > had || (low.K[j * q + j] == had && j < i);
    from[place] = i, scale[place] = had > 0 && has > 0 ? sqrtf(has / had) : 0.0f;
  }
  __syncthreads();
  for (int k = i; k < low.r; k += LOW_THREADS) {
    float old[KWM_INFORM_RANK];
    for (int j = 0; j < q; j++) old[j] = low.U[(int64_t)j * low.r + k];
    for (int j = 0; j < keep; j++) {
      float sum = 0;
      for (int m = 0; m < q; m++) sum += low.Q[m * q + from[j]] * old[m];
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
  const struct low low = {r, q, old, of.U + (int64_t)s * of.rank * r, small, small + q * q, small + 2 * q * q};
  for (int k = (int)threadIdx.x; k < rows * r; k += LOW_THREADS) low.U[(int64_t)old * r + k] = A[k];
  for (int j = warp; j < rows; j += LOW_THREADS / CUDA_WARP) {
    float sum = 0;
    for (int k = lane; k < r && s == 0; k += CUDA_WARP) sum += A[(int64_t)j * r + k] * of.watched[k];
    sum = warp_sum(sum);
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
  promised = block_sum(promised);
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
  if (q + rows > of.rank) compress(of, low, kept);
}

void cuda_blocks_inform(const struct kwm_inform_low *of, cudaStream_t stream) {
  KWM_ASSERT(of->rows <= of->rank && of->rank <= KWM_INFORM_RANK);
  const size_t bytes = (size_t)(3 * of->rank * of->rank) * sizeof(float);
  cudaFuncSetAttribute(inform_low, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes);
  inform_low<<<(unsigned)of->n, LOW_THREADS, bytes, stream>>>(*of, (int)kwm_inform_keep(of->rank, of->rows));
}

/* What a token adds to a class. */
static __device__ void add_token(float logit, float log_sum, bool hit, float &sum, float &told) {
  const float p = __expf(logit - log_sum);
  sum += (hit ? 1.0f : 0.0f) - p;
  told += p * (1 - p);
}

static __device__ void store(float *to, const float (&values)[1]) {
  to[0] = values[0];
}

static __device__ void store(float *to, const float (&values)[4]) {
  *(float4 *)to = make_float4(values[0], values[1], values[2], values[3]);
}

static __device__ void load(const float *from, float (&values)[1]) {
  values[0] = from[0];
}

static __device__ void load(const float *from, float (&values)[4]) {
  const float4 v = *(const float4 *)from;
  values[0] = v.x, values[1] = v.y, values[2] = v.z, values[3] = v.w;
}

/* A thread to ONCE neighbouring classes of a stream's group, token after token; zeros after the last class. */
template <int ONCE> static __global__ void __launch_bounds__(CUDA_THREADS) tally(struct kwm_tally of) {
  const int groups = (int)of.groups, n = (int)of.n, steps = (int)of.steps, classes = (int)of.classes;
  const int at = (int)blockIdx.y, s = at / groups, j = at % groups;
  const int first = (j * steps + groups - 1) / groups, end = ((j + 1) * steps + groups - 1) / groups;
  for (int i = ONCE * (int)cuda_thread(); i < classes; i += ONCE * (int)cuda_stride()) {
    float sum[ONCE] = {}, told[ONCE] = {};
#pragma unroll 4
    for (int t = first; t < end; t++) {
      const int64_t row = (int64_t)t * n + s;
      const float *const logits = of.logits + row * of.ld;
      const int target = of.targets[row];
      const float log_sum = of.facts[row * KWM_TOKEN_FACTS + KWM_TOKEN_SURPRISAL] + logits[target];
      float values[ONCE];
      load(logits + i, values);
#pragma unroll
      for (int k = 0; k < ONCE; k++) add_token(values[k], log_sum, i + k == target, sum[k], told[k]);
    }
#pragma unroll
    for (int k = 0; k < ONCE; k++)
      if (i + k >= classes) sum[k] = told[k] = 0;
    store(of.sums + at * of.ld + i, sum);
    if (of.told != NULL) store(of.told + at * of.ld + i, told);
  }
}

void cuda_blocks_tally(const struct kwm_tally *of, cudaStream_t stream) {
  const bool vectors = of->ld % 4 == 0 && cuda_aligned(of->logits) && cuda_aligned(of->sums) && cuda_aligned(of->told);
  const int64_t pieces = vectors ? (of->classes + 3) / 4 : of->classes;
  const dim3 grid(cuda_blocks(pieces), (unsigned)(of->n * of->groups));
  if (vectors)
    tally<4><<<grid, CUDA_THREADS, 0, stream>>>(*of);
  else
    tally<1><<<grid, CUDA_THREADS, 0, stream>>>(*of);
}

static __global__ void __launch_bounds__(CUDA_THREADS) shift(int64_t n, int64_t width, const float *c, float *x) {
  for (int64_t row = blockIdx.y; row < n; row += gridDim.y)
    for (int64_t k = cuda_thread(); k < width; k += cuda_stride()) x[row * width + k] += c[k];
}

void cuda_blocks_shift(int64_t n, int64_t width, const float *c, float *x, cudaStream_t stream) {
  shift<<<cuda_grid(n, width), CUDA_THREADS, 0, stream>>>(n, width, c, x);
}
