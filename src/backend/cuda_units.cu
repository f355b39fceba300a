/* Evidence of units: HᵀH = sum_i S_iᵀ (J_iᵀJ_i) S_i and Hᵀe = sum_i S_iᵀ J_iᵀe (src/lin/jac.c), in full or its
   diagonal.

   A block has UNITS units, as many as fill a sector of memory. A warp holds SLOTS samples of them, one unit and sample
   a lane, and goes on in steps of all the block's slots; each lane keeps a unit's whole sum in registers. Sums go up a
   fixed tree: samples of a lane, lanes of a warp, warps. */
#include "cuda_map.cuh"

enum { UNITS = 8, SLOTS = CUDA_WARP / UNITS, WARPS = 8, SAMPLES = WARPS * SLOTS, CHANNELS = 2, ROWS_AHEAD = 5 };
enum { PARAMS_FEW = 10, PARAMS_MAX = 16 };

static const unsigned ALL = 0xffffffffu;

/* One sample's metric JᵀJ = [rr ri; ri ii] and cotangent Jᵀe at one unit. */
struct pullback {
  float rr, ri, ii, cr, ci;
};

static __device__ struct pullback pull_back(const struct kwm_device_units &units, int64_t i, int64_t u) {
  struct pullback sum = {};
  const float *const J = units.J + i * units.m * CHANNELS * units.count + u, *const e = units.e + i * units.m;
#pragma unroll ROWS_AHEAD
  for (int64_t r = 0; r < units.m; r++) {
    const float re = __ldg(J + CHANNELS * r * units.count), im = __ldg(J + (CHANNELS * r + 1) * units.count);
    const float error = __ldg(e + r);
    sum.rr += re * re;
    sum.ri += re * im;
    sum.ii += im * im;
    sum.cr += re * error;
    sum.ci += im * error;
  }
  return sum;
}

/* One unit's evidence: F packed as of MAX parameters, or its diagonal, then s. Parameters beyond those there are count
   as zeros. */
template <int MAX, bool FULL> struct evidence {
  static const int ENTRIES = FULL ? MAX * (MAX + 1) / 2 : MAX;
  float F[ENTRIES], s[MAX];

  __device__ void take(const struct kwm_device_units &units, int64_t i, int64_t u) {
    const float *const S = units.S + i * CHANNELS * units.params * units.count + u;
    float re[MAX], im[MAX];
#pragma unroll
    for (int k = 0; k < MAX; k++) {
      re[k] = k < units.params ? __ldg(S + k * units.count) : 0.0f;
      im[k] = k < units.params ? __ldg(S + (units.params + k) * units.count) : 0.0f;
    }
    const struct pullback pull = pull_back(units, i, u);
    int entry = 0;
#pragma unroll
    for (int k = 0; k < MAX; k++) {
      const float t_re = pull.rr * re[k] + pull.ri * im[k], t_im = pull.ri * re[k] + pull.ii * im[k];
      s[k] += pull.cr * re[k] + pull.ci * im[k];
#pragma unroll
      for (int j = k; j < (FULL ? MAX : k + 1); j++, entry++) F[entry] += t_re * re[j] + t_im * im[j];
    }
  }
};

/* The sum over the slots of a warp, in the lanes of the first. */
static __device__ float sum_slots(float value) {
  for (int apart = CUDA_WARP / 2; apart >= UNITS; apart /= 2) value += __shfl_down_sync(ALL, value, (unsigned)apart);
  return value;
}

/* Where entry number `entry` of p parameters lies among those of `max`: rows of a packed triangle grow by max - p. */
template <bool FULL> static __device__ int entry_of(int entry, int p, int max) {
  if (!FULL) return entry;
  int row = 0;
  for (int left = entry; left >= p - row; row++) left -= p - row;
  return entry + row * (max - p);
}

/* F (entries, count), s (p, count) += the warps' sums (WARPS, ENTRIES + MAX, UNITS) of the block's units. */
template <int MAX, bool FULL>
static __device__ void add_sums(const struct kwm_device_units &units, const float *sums, float *F, float *s) {
  const int ENTRIES = evidence<MAX, FULL>::ENTRIES, STRIDE = (ENTRIES + MAX) * UNITS;
  const int p = (int)units.params, entries = FULL ? p * (p + 1) / 2 : p, unit = (int)threadIdx.x % UNITS;
  const int64_t u = (int64_t)blockIdx.x * UNITS + unit;
  if (u >= units.count) return;
  for (int entry = (int)threadIdx.x / UNITS; entry < entries + p; entry += CUDA_WARP * WARPS / UNITS) {
    const bool score = entry >= entries;
    const int at = score ? entry - entries + ENTRIES : entry_of<FULL>(entry, p, MAX);
    float sum = 0;
    for (int w = 0; w < WARPS; w++) sum += sums[w * STRIDE + at * UNITS + unit];
    float *const to = score ? s + (entry - entries) * units.count : F + entry * units.count;
    to[u] += sum;
  }
}

template <int MAX, bool FULL>
static __global__ void __launch_bounds__(CUDA_WARP *WARPS)
    add_evidence(const struct kwm_device_units units, float *__restrict__ F, float *__restrict__ s) {
  enum { ENTRIES = evidence<MAX, FULL>::ENTRIES, ALL_ENTRIES = ENTRIES + MAX };
  __shared__ float sums[WARPS * ALL_ENTRIES * UNITS];
  const int lane = (int)threadIdx.x % CUDA_WARP, warp = (int)threadIdx.x / CUDA_WARP;
  const int64_t own = (int64_t)blockIdx.x * UNITS + lane % UNITS, u = own < units.count ? own : units.count - 1;
  struct evidence<MAX, FULL> mine = {};
  for (int64_t i = warp * SLOTS + lane / UNITS; i < units.n; i += SAMPLES) mine.take(units, i, u);
  __syncwarp();
  float *const to = sums + warp * ALL_ENTRIES * UNITS + lane;
#pragma unroll
  for (int k = 0; k < ALL_ENTRIES; k++) {
    const float sum = sum_slots(k < ENTRIES ? mine.F[k < ENTRIES ? k : 0] : mine.s[k < ENTRIES ? 0 : k - ENTRIES]);
    if (lane < UNITS) to[k * UNITS] = sum;
  }
  __syncthreads();
  add_sums<MAX, FULL>(units, sums, F, s);
}

template <bool FULL> static void launch(const struct kwm_device_units *units, float *F, float *s, cudaStream_t stream) {
  const unsigned blocks = (unsigned)((units->count + UNITS - 1) / UNITS);
  KWM_ASSERT(units->params <= PARAMS_MAX);
  if (units->params <= PARAMS_FEW)
    add_evidence<PARAMS_FEW, FULL><<<blocks, CUDA_WARP * WARPS, 0, stream>>>(*units, F, s);
  else
    add_evidence<PARAMS_MAX, FULL><<<blocks, CUDA_WARP * WARPS, 0, stream>>>(*units, F, s);
}

void cuda_units_fisher(const struct kwm_device_units *units, float *F, float *s, cudaStream_t stream) {
  launch<true>(units, F, s, stream);
}

void cuda_units_diagonal(const struct kwm_device_units *units, float *f, float *s, cudaStream_t stream) {
  launch<false>(units, f, s, stream);
}
