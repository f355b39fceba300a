/* GELU, and what learners do with each number. */
#include "cuda_map.cuh"
#include "cuda_tensor.h"

/* Arrays of one length, element by element: read only, read and written, written only; an array may be another. */
template <int READ, int BOTH, int WRITE> struct columns {
  const float *read[READ > 0 ? READ : 1];
  float *both[BOTH > 0 ? BOTH : 1], *write[WRITE > 0 ? WRITE : 1];
};

/* f(read, both, write) on element k of arrays of T, float or float4. */
template <class T, int READ, int BOTH, int WRITE, class F>
static __device__ void update(int64_t k, const struct columns<READ, BOTH, WRITE> &of, const F &f) {
  enum { LANES = sizeof(T) / sizeof(float) };
  union {
    T whole;
    float part[LANES];
  } read[READ > 0 ? READ : 1], both[BOTH > 0 ? BOTH : 1], write[WRITE > 0 ? WRITE : 1];
#pragma unroll
  for (int a = 0; a < READ; a++) read[a].whole = ((const T *)of.read[a])[k];
#pragma unroll
  for (int a = 0; a < BOTH; a++) both[a].whole = ((const T *)of.both[a])[k];
#pragma unroll
  for (int lane = 0; lane < LANES; lane++) {
    float in[READ > 0 ? READ : 1] = {}, kept[BOTH > 0 ? BOTH : 1] = {}, out[WRITE > 0 ? WRITE : 1] = {};
    for (int a = 0; a < READ; a++) in[a] = read[a].part[lane];
    for (int a = 0; a < BOTH; a++) kept[a] = both[a].part[lane];
    f(in, kept, out);
    for (int a = 0; a < BOTH; a++) both[a].part[lane] = kept[a];
    for (int a = 0; a < WRITE; a++) write[a].part[lane] = out[a];
  }
#pragma unroll
  for (int a = 0; a < BOTH; a++) ((T *)of.both[a])[k] = both[a].whole;
#pragma unroll
  for (int a = 0; a < WRITE; a++) ((T *)of.write[a])[k] = write[a].whole;
}

template <bool VECTORS, int READ, int BOTH, int WRITE, class F>
static __global__ void __launch_bounds__(CUDA_THREADS)
    update_all(int64_t n, const struct columns<READ, BOTH, WRITE> of, const F f) {
  const int64_t vectors = VECTORS ? n / 4 : 0;
  for (int64_t k = cuda_thread(); k < vectors; k += cuda_stride()) update<float4>(k, of, f);
  for (int64_t k = 4 * vectors + cuda_thread(); k < n; k += cuda_stride()) update<float>(k, of, f);
}

template <int READ, int BOTH, int WRITE, class F>
static void launch(int64_t n, const struct columns<READ, BOTH, WRITE> &of, const F &f, cudaStream_t stream) {
  bool aligned = true;
  for (int a = 0; a < READ; a++) aligned = aligned && cuda_aligned(of.read[a]);
  for (int a = 0; a < BOTH; a++) aligned = aligned && cuda_aligned(of.both[a]);
  for (int a = 0; a < WRITE; a++) aligned = aligned && cuda_aligned(of.write[a]);
  if (aligned)
    update_all<true><<<cuda_blocks((n + 3) / 4), CUDA_THREADS, 0, stream>>>(n, of, f);
  else
    update_all<false><<<cuda_blocks(n), CUDA_THREADS, 0, stream>>>(n, of, f);
}

static constexpr float ROOT_HALF = 0.70710678f, DENSITY_0 = 0.39894228f;

struct gelu_of {
  __device__ void operator()(const float *in, float *, float *out) const {
    const float u = in[0];
    out[0] = u * (0.5f + 0.5f * erff(u * ROOT_HALF));
  }
};

struct gelu_score {
  __device__ void operator()(const float *in, float *, float *out) const {
    const float u = in[0];
    out[0] = in[1] * (0.5f + 0.5f * erff(u * ROOT_HALF) + u * DENSITY_0 * expf(-0.5f * u * u));
  }
};

void cuda_tensor_gelu(int64_t n, const float *u, float *y, cudaStream_t stream) {
  launch(n, columns<1, 0, 1>{{u}, {}, {y}}, gelu_of{}, stream);
}

void cuda_tensor_gelu_adjoint(int64_t n, const float *u, const float *sy, float *su, cudaStream_t stream) {
  launch(n, columns<2, 0, 1>{{u, sy}, {}, {su}}, gelu_score{}, stream);
}

/* The host's form (tensor_learn.c). */
struct riccati_of {
  struct kwm_riccati_step step;

  __device__ void operator()(const float *in, float *kept, float *out) const {
    const float score = in[0], square = score * score, q = step.q, wide = kept[2] + q;
    const float f = step.first ? square : kept[0] + step.rate_f * (square - kept[0]);
    const float m = kept[1] + step.rate_m * (score - kept[1]);
    const float next = step.steady ? 2 / (sqrtf(f * f + 4 * f / q) + f) : wide / (1 + wide * f);
    kept[0] = f;
    kept[1] = m;
    kept[2] = next < step.p0 ? next : step.p0;
    out[0] = kept[2] * m;
  }
};

void cuda_tensor_riccati(int64_t n, const struct kwm_riccati_step *step, const float *y, float *f, float *m, float *p,
                         float *x, cudaStream_t stream) {
  launch(n, columns<1, 3, 1>{{y}, {f, m, p}, {x}}, riccati_of{*step}, stream);
}

struct adam_of {
  float scale, share1, share2, rate, over, epsilon, keep;

  __device__ void operator()(const float *in, float *kept, float *) const {
    const float g = scale * in[0];
    kept[0] += share1 * (g - kept[0]);
    kept[1] += share2 * (g * g - kept[1]);
    kept[2] = keep * kept[2] + rate * kept[0] / (sqrtf(kept[1]) * over + epsilon);
  }
};

void cuda_tensor_adam(int64_t n, const struct kwm_adam_step *step, const float *score, float *m, float *v, float *mean,
                      cudaStream_t stream) {
  const double t = (double)step->t;
  const float rate = (float)((double)step->rate / (1 - pow((double)step->beta1, t)));
  const float over = (float)(1 / sqrt(1 - pow((double)step->beta2, t)));
  launch(n, columns<1, 3, 0>{{score}, {m, v, mean}, {}},
         adam_of{step->scale, 1 - step->beta1, 1 - step->beta2, rate, over, step->epsilon, 1 - step->decay}, stream);
}

struct drift_of {
  float keep, scale;

  __device__ void operator()(const float *in, float *kept, float *) const {
    kept[0] = keep * kept[0] + scale * in[0];
  }
};

struct decay_of {
  float keep;

  __device__ void operator()(const float *, float *kept, float *) const {
    kept[0] *= keep;
  }
};

void cuda_tensor_drift(int64_t n, float keep, float scale, const float *x, float *mean, cudaStream_t stream) {
  if (x != NULL)
    launch(n, columns<1, 1, 0>{{x}, {mean}, {}}, drift_of{keep, scale}, stream);
  else
    launch(n, columns<0, 1, 0>{{}, {mean}, {}}, decay_of{keep}, stream);
}

static __device__ double square(float w, float x) {
  return (double)w * (double)x * (double)x;
}

/* Of w x²; w NULL: 1. */
static __global__ void __launch_bounds__(CUDA_THREADS)
    sum_squares(int64_t n, bool vectors, const float *w, const float *x, double *sums,
                const struct cuda_scratch scratch) {
  const int64_t quads = vectors ? n / 4 : 0;
  double sum[1] = {};
#pragma unroll 4
  for (int64_t k = cuda_thread(); k < quads; k += cuda_stride()) {
    const float4 v = ((const float4 *)x)[k];
    const float4 u = w != nullptr ? ((const float4 *)w)[k] : float4{1, 1, 1, 1};
    sum[0] += square(u.x, v.x) + square(u.y, v.y) + (square(u.z, v.z) + square(u.w, v.w));
  }
  for (int64_t k = 4 * quads + cuda_thread(); k < n; k += cuda_stride())
    sum[0] += square(w != nullptr ? w[k] : 1, x[k]);
  cuda_block_sums<1>(sum);
  if (cuda_last_block<1>(sum, scratch)) cuda_add_parts<1>(scratch, 0, gridDim.x, sums);
}

void cuda_tensor_quadratic(int64_t n, const float *w, const float *x, double *sums, const struct cuda_scratch *scratch,
                           cudaStream_t stream) {
  const unsigned wanted = cuda_blocks((n + 3) / 4), blocks = wanted < CUDA_PARTS ? wanted : (unsigned)CUDA_PARTS;
  const bool aligned = cuda_aligned(x) && (w == nullptr || cuda_aligned(w));
  sum_squares<<<blocks, CUDA_THREADS, 0, stream>>>(n, aligned, w, x, sums, *scratch);
}

void cuda_tensor_norm2(int64_t n, const float *x, double *sums, const struct cuda_scratch *scratch,
                       cudaStream_t stream) {
  cuda_tensor_quadratic(n, nullptr, x, sums, scratch, stream);
}
