/* What blocks of tokens tell of offsets: inform_low (cuda_low.cuh). */
#include "cuda_low.cuh"

static constexpr int THREADS = 512, SIDES = 2;

/* S = I / prior + K and, right of it, K share for each side (q, q + SIDES). Sides: of the new rows the sum, and of
   stream 0 what each sees of the watched direction; share (SIDES, q) of each row in it, w (SIDES, q) of each row in P
   times it over the prior. */
struct update {
  struct low low;
  float *S, *share, *w;
};

static __host__ __device__ constexpr int row_floats(int q) {
  return (q + SIDES) | 1;
}

static __host__ __device__ constexpr int shared_floats(int q) {
  return 2 * q * (row_floats(q) + SIDES);
}

static __device__ struct update open_update(const struct kwm_inform_low &of, float *shared) {
  const int s = (int)blockIdx.x, r = (int)of.r, old = of.known[s], q = old + (int)of.rows, ld = row_floats(q);
  struct update up = {{r, q, old, ld, of.U + (int64_t)s * of.rank * r, shared, of.A + (int64_t)s * of.rows * r}};
  up.S = shared + q * ld, up.share = up.S + q * ld, up.w = up.share + SIDES * q;
  return up;
}

/* The new rows go to U as well, and the shares to both sides. */
static __device__ void append(const struct update &up, const float *watched) {
  const struct low &low = up.low;
  const int lane = (int)threadIdx.x % CUDA_WARP, warp = (int)threadIdx.x / CUDA_WARP;
  for (int i = warp; i < low.q; i += THREADS / CUDA_WARP) {
    const float *const row = low.row(i);
    float sum = 0;
    for (int k = lane; k < low.r && i >= low.old; k += CUDA_WARP) {
      low.U[(int64_t)i * low.r + k] = row[k];
      if (blockIdx.x == 0) sum += row[k] * watched[k];
    }
    sum = cuda_warp_sum(sum);
    if (lane == 0) up.share[i] = i < low.old ? 0.0f : 1.0f, up.share[low.q + i] = sum;
  }
}

static __device__ void open_system(const struct update &up, float lambda) {
  const struct low &low = up.low;
  const int q = low.q, ld = low.ld, wide = q + SIDES;
  for (int at = (int)threadIdx.x; at < q * wide; at += THREADS) {
    const int i = at / wide, m = at % wide;
    float value = m < q ? low.K[i * ld + m] : 0.0f;
    if (m == i) value += lambda;
    for (int j = low.old; j < q && m >= q; j++) value += up.share[(m - q) * q + j] * low.K[i * ld + j];
    if (m >= q) up.w[(m - q) * q + i] = value;
    up.S[i * ld + m] = value;
  }
}

/* w of both sides <- share - S⁻¹K share, by Gauss and Jordan: S is positive definite, which its pivots tell. Returns
   what the step promises over the prior, not finite if S is not definite; in all threads. */
static __device__ float solve(const struct update &up) {
  __shared__ float promised;
  const int lane = (int)threadIdx.x % CUDA_WARP, warp = (int)threadIdx.x / CUDA_WARP, q = up.low.q, ld = up.low.ld;
  for (int j = 0; j < q; j++) {
    const float *const pivot = up.S + j * ld;
    for (int i = warp; i < q; i += THREADS / CUDA_WARP) {
      if (i == j) continue;
      const float share = __fdividef(up.S[i * ld + j], pivot[j]);
      for (int m = j + 1 + lane; m < q + SIDES; m += CUDA_WARP) up.S[i * ld + m] -= share * pivot[m];
    }
    __syncthreads();
  }
  if (warp == 0) {
    float sum = 0;
    for (int i = lane; i < q; i += CUDA_WARP) {
      const float *const row = up.S + i * ld;
      const float over = row[i] > 0 ? 1 / row[i] : NAN, side = up.w[i];
      up.w[i] = up.share[i] - over * row[q];
      up.w[q + i] = up.share[q + i] - over * row[q + 1];
      sum += up.w[i] * side;
    }
    sum = cuda_warp_sum(sum);
    if (lane == 0) promised = sum;
  }
  __syncthreads();
  return promised;
}

/* Of one coordinate P times both sides. */
static __device__ float2 applied(const struct update &up, float prior, int k) {
  const struct low &low = up.low;
  float step = 0, seen = 0;
#pragma unroll 8
  for (int i = 0; i < low.q; i++) {
    const float u = low.U[(int64_t)i * low.r + k];
    step += up.w[i] * u;
    seen += up.w[low.q + i] * u;
  }
  return make_float2(prior * step, prior * seen);
}

static __global__ void __launch_bounds__(THREADS, 1) inform_low(struct kwm_inform_low of, float keep) {
  extern __shared__ float shared[];
  const int s = (int)blockIdx.x, r = (int)of.r;
  const struct update up = open_update(of, shared);
  float *const c = of.c + (int64_t)s * r;
  multiply(up.low);
  append(up, of.watched);
  __syncthreads();
  open_system(up, 1 / of.prior);
  __syncthreads();
  const float promised = of.prior * solve(up);
  if (!isfinite(promised)) {
    for (int k = (int)threadIdx.x; k < r; k += THREADS) c[k] = 0;
    if (threadIdx.x == 0) of.broken[s]++, of.known[s] = of.since[s] = 0;
    return;
  }
  const float part = of.bound > 0 && promised > of.bound ? of.bound / promised : 1.0f;
  for (int k = (int)threadIdx.x; k < r; k += THREADS) {
    const float2 both = applied(up, of.prior, k);
    c[k] = keep * (c[k] + part * both.x);
    if (s == 0) of.watched[k] = keep * (of.watched[k] - both.y);
  }
  if (threadIdx.x == 0) of.known[s] = up.low.q, of.since[s] += (int32_t)of.tokens;
}

void cuda_blocks_inform(const struct kwm_inform_low *of, cudaStream_t stream) {
  KWM_ASSERT(of->rows <= of->rank && of->rank <= KWM_INFORM_RANK);
  const size_t bytes = (size_t)shared_floats((int)of->rank) * sizeof(float);
  inform_low<<<(unsigned)of->n, THREADS, bytes, stream>>>(*of, powf(of->decay, (float)of->tokens));
}
