/* Which directions stay: shrink_low (cuda_low.cuh). */
#include "cuda_low.cuh"

static constexpr int THREADS = 256, SWEEPS = 8, FEW_KEPT = 8, MOST_KEPT = KWM_INFORM_RANK / 2;
static constexpr float NEAR = 1e-2f; /* of I / prior + K off the diagonal: a sweep after which its square is left */
static constexpr float NONE = 1e-30f;

/* K (even, even), `even` q or one more, a row and a column of zeros, twice: rotations read one and write the other. Q
   (q, even) eigenvectors. `meetings`: who meets whom in which round. */
struct shrink {
  struct low low;
  int even;
  float *turned, *Q;
  uchar2 *meetings;
};

static __host__ __device__ constexpr int row_floats(int q) {
  return (q + 1) | 1;
}

static __host__ __device__ constexpr int shared_floats(int q) {
  return 3 * (q + 1) * row_floats(q);
}

static __device__ struct shrink open_shrink(const struct kwm_inform_low &of, float *shared) {
  const int s = (int)blockIdx.x, r = (int)of.r, q = of.known[s], even = q + q % 2, whole = even * row_floats(q);
  struct shrink shrink = {{r, q, q, row_floats(q), of.U + (int64_t)s * of.rank * r, shared, NULL}, even};
  shrink.turned = shared + whole, shrink.Q = shared + 2 * whole;
  shrink.meetings = (uchar2 *)(shared + shared_floats((int)of.rank));
  for (int i = (int)threadIdx.x; i < even && even > q; i += THREADS)
    shared[i * row_floats(q) + q] = shared[q * row_floats(q) + i] = 0;
  return shrink;
}

/* Cosine and sine of the rotation that makes K_ab zero. */
static __device__ float2 rotation(const float *K, int ld, uchar2 of) {
  const float off = K[of.x * ld + of.y], gap = K[of.y * ld + of.y] - K[of.x * ld + of.x];
  const float square = gap * gap + 4 * off * off, over = rsqrtf(square), cosine2 = 0.5f + 0.5f * fabsf(gap) * over;
  const float secant = rsqrtf(cosine2);
  return square > NONE ? make_float2(cosine2 * secant, copysignf(secant, gap) * off * over) : make_float2(1, 0);
}

/* Who meets whom: pair p of round k among `even` numbers, each with each once in even - 1 rounds. */
static __device__ uchar2 meeting(int even, int k, int p) {
  const int m = even - 1, a = p == 0 ? m : (k + p) % m, b = (k - p + m) % m;
  return make_uchar2((unsigned char)(a < b ? a : b), (unsigned char)(a < b ? b : a));
}

/* to <- the square of K of the pairs a and b, turned from both sides. */
static __device__ void turn_square(const float *K, int ld, uchar2 a, uchar2 b, float2 x, float2 y, float *to) {
  const float *const first = K + b.x * ld, *const second = K + b.y * ld;
  const float n00 = x.x * first[a.x] - x.y * first[a.y], n01 = x.y * first[a.x] + x.x * first[a.y];
  const float n10 = x.x * second[a.x] - x.y * second[a.y], n11 = x.y * second[a.x] + x.x * second[a.y];
  to[b.x * ld + a.x] = y.x * n00 - y.y * n10, to[b.x * ld + a.y] = y.x * n01 - y.y * n11;
  to[b.y * ld + a.x] = y.y * n00 + y.x * n10, to[b.y * ld + a.y] = y.y * n01 + y.x * n11;
}

/* Whether K_ab is still to be made zero: what of it is left counts beside the prior. */
static __device__ bool is_far(const float *K, int ld, uchar2 of, float lambda) {
  const float off = K[of.x * ld + of.y], a = lambda + K[of.x * ld + of.x], b = lambda + K[of.y * ld + of.y];
  return off * off > NEAR * NEAR * a * b;
}

/* Returns K turned to QᵀKQ, all but diagonal, which lies in K or in `turned`; Q, orthogonal, its eigenvectors: by
   Jacobi's rotations, half of `even` at once. A square of four elements, or two of Q, to a thread, which works out the
   rotations it needs itself; `meetings` of all rounds. */
static __device__ const float *diagonalise(const struct shrink &shrink, float lambda) {
  const struct low &low = shrink.low;
  const int q = low.q, ld = low.ld, even = shrink.even, pairs = even / 2, rounds = even - 1;
  const int mine = (int)threadIdx.x % pairs, line = (int)threadIdx.x / pairs, lines = THREADS / pairs;
  float *from = low.K, *to = shrink.turned;
  bool far = false;
  for (int at = (int)threadIdx.x; at < q * even; at += THREADS)
    shrink.Q[at / even * ld + at % even] = at / even == at % even ? 1.0f : 0.0f;
  for (int at = (int)threadIdx.x; at < rounds * pairs; at += THREADS)
    shrink.meetings[at] = meeting(even, at / pairs, at % pairs);
  __syncthreads();
  for (int sweep = 0; sweep < SWEEPS; sweep++) {
    for (int k = 0; k < rounds; k++) {
      const uchar2 *const met = shrink.meetings + k * pairs, a = met[mine];
      for (int o = line; o < pairs + q && line < lines; o += lines) {
        const uchar2 b = met[o < pairs ? o : mine];
        const float2 x = rotation(from, ld, a), y = rotation(from, ld, b);
        far = far || is_far(from, ld, a, lambda);
        if (o < pairs) {
          turn_square(from, ld, a, b, x, y, to);
        } else {
          float *const row = shrink.Q + (o - pairs) * ld;
          const float u = row[a.x], v = row[a.y];
          row[a.x] = x.x * u - x.y * v, row[a.y] = x.y * u + x.x * v;
        }
      }
      float *const other = from;
      from = to, to = other;
      __syncthreads();
    }
    if (!__syncthreads_or(far)) break;
    far = false;
  }
  return from;
}

/* U's first rows <- the `keep` leading directions, KEPT at most, with the noise of `since` tokens. */
template <int KEPT>
static __device__ void compress(const struct kwm_inform_low &of, const struct shrink &shrink, int keep) {
  const struct low &low = shrink.low;
  __shared__ __align__(16) float of_row[KWM_INFORM_RANK][KEPT];
  const int q = low.q, i = (int)threadIdx.x;
  const float lambda = 1 / of.prior, t = (float)of.since[blockIdx.x], a2 = powf(of.decay, 2 * t);
  const float *const K = diagonalise(shrink, lambda);
  for (int at = i; at < q * KEPT; at += THREADS) of_row[at / KEPT][at % KEPT] = 0;
  __syncthreads();
  if (i < q) {
    const float had = K[i * low.ld + i], has = 1 / (a2 / (lambda + had) + t * of.noise) - lambda;
    const float scale = had > 0 && has > 0 ? sqrtf(has / had) : 0.0f;
    int place = 0;
    for (int j = 0; j < q; j++) place += K[j * low.ld + j] > had || (K[j * low.ld + j] == had && j < i);
    for (int m = 0; m < q && place < keep; m++) of_row[m][place] = scale * shrink.Q[m * low.ld + i];
  }
  __syncthreads();
  for (int k = i; k < low.r; k += THREADS) {
    float sum[KEPT] = {};
#pragma unroll 4
    for (int m = 0; m < q; m++) {
      const float old = low.U[(int64_t)m * low.r + k];
#pragma unroll
      for (int j = 0; j < KEPT; j++) sum[j] += of_row[m][j] * old;
    }
#pragma unroll
    for (int j = 0; j < KEPT; j++)
      if (j < keep) low.U[(int64_t)j * low.r + k] = sum[j];
  }
}

template <int KEPT> static __global__ void __launch_bounds__(THREADS) shrink_low(struct kwm_inform_low of, int kept) {
  extern __shared__ float shared[];
  const int s = (int)blockIdx.x;
  const struct shrink shrink = open_shrink(of, shared);
  if (shrink.low.q + of.rows <= of.rank) return;
  multiply(shrink.low);
  __syncthreads();
  compress<KEPT>(of, shrink, kept);
  if (threadIdx.x == 0) of.known[s] = kept, of.since[s] = 0;
}

template <int KEPT> static void launch(const struct kwm_inform_low *of, int kept, cudaStream_t stream) {
  const int rank = (int)of->rank, meetings = (rank + 1) * (rank + 1) / 2;
  const size_t bytes = (size_t)shared_floats(rank) * sizeof(float) + (size_t)meetings * sizeof(uchar2);
  cudaFuncSetAttribute(shrink_low<KEPT>, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes);
  shrink_low<KEPT><<<(unsigned)of->n, THREADS, bytes, stream>>>(*of, kept);
}

void cuda_blocks_shrink(const struct kwm_inform_low *of, cudaStream_t stream) {
  const int kept = (int)kwm_inform_keep(of->rank, of->rows);
  KWM_ASSERT(of->rank <= KWM_INFORM_RANK && kept <= MOST_KEPT);
  if (kept <= FEW_KEPT)
    launch<FEW_KEPT>(of, kept, stream);
  else
    launch<MOST_KEPT>(of, kept, stream);
}
