/* The observation of src/model/observe.c, a warp for each sample: softmax whitened by its exact Fisher information, or
   Gaussian; and the surprisal's own statistics. */
#include "cuda_map.cuh"

static constexpr int CLASSES_MAX = 64, SLOTS = CLASSES_MAX / CUDA_WARP;

/* Below this a probability no longer changes any product in single precision, but still divides safely. */
static constexpr float P_MIN = 1e-30f;

/* The first of the largest, as a comparison from the first on finds it: NaN is larger than nothing, and nothing is
   larger than a NaN that comes first. In every lane. */
static __device__ int largest(int classes, const float *logits) {
  float top = -INFINITY;
  int best = 0;
  for (int k = (int)threadIdx.x; k < classes; k += CUDA_WARP)
    if (logits[k] > top) {
      top = logits[k];
      best = k;
    }
  for (int apart = CUDA_WARP / 2; apart > 0; apart /= 2) {
    const float other = __shfl_xor_sync(0xffffffffu, top, apart);
    const int at = __shfl_xor_sync(0xffffffffu, best, apart);
    if (other > top || (other == top && at < best)) {
      top = other;
      best = at;
    }
  }
  return isnan(logits[0]) ? 0 : best;
}

/* p (classes), shared by the warp. */
static __device__ void softmax(int classes, const float *logits, int best, float *p) {
  float mine[SLOTS] = {}, total = 0;
  for (int s = 0, k = (int)threadIdx.x; s < SLOTS; s++, k += CUDA_WARP)
    if (k < classes) total += mine[s] = expf(logits[k] - logits[best]);
  total = cuda_warp_sum(total);
  /* Not fmaxf: it would turn a NaN into P_MIN. */
  for (int s = 0, k = (int)threadIdx.x; s < SLOTS; s++, k += CUDA_WARP)
    if (k < classes) p[k] = mine[s] / total < P_MIN ? P_MIN : mine[s] / total;
  __syncwarp();
}

static __device__ void categorical_facts(int classes, const float *p, int best, int label, double *facts) {
  double entropy = 0, second = 0, power = 0;
  for (int k = (int)threadIdx.x; k < classes; k += CUDA_WARP) {
    const double of_k = (double)p[k], log_p = log(of_k);
    entropy -= of_k * log_p;
    second += of_k * log_p * log_p;
    power += of_k * of_k;
  }
  entropy = cuda_warp_sum(entropy);
  second = cuda_warp_sum(second);
  power = cuda_warp_sum(power);
  if (threadIdx.x != 0) return;
  facts[KWM_FACT_SURPRISAL] = -log((double)p[label]);
  facts[KWM_FACT_ENTROPY] = entropy;
  facts[KWM_FACT_VARIANCE] = second - entropy * entropy;
  facts[KWM_FACT_CORRECT] = best == label;
  facts[KWM_FACT_SQUARED] = 1 - 2 * (double)p[label] + power;
  facts[KWM_FACT_EXPECTED] = 1 - power;
  facts[KWM_FACT_TOP] = (double)p[best];
}

static __device__ void gaussian_facts(double R, int classes, const float *outputs, int best, int label, double *facts) {
  const double m = classes, log_norm = log(2 * 3.14159265358979323846 * R);
  double squared = 0;
  for (int k = (int)threadIdx.x; k < classes; k += CUDA_WARP) {
    const double error = (k == label) - (double)outputs[k];
    squared += error * error;
  }
  squared = cuda_warp_sum(squared);
  if (threadIdx.x != 0) return;
  facts[KWM_FACT_SURPRISAL] = 0.5 * (squared / R + m * log_norm);
  facts[KWM_FACT_ENTROPY] = 0.5 * m * (1 + log_norm);
  facts[KWM_FACT_VARIANCE] = 0.5 * m;
  facts[KWM_FACT_CORRECT] = best == label;
  facts[KWM_FACT_SQUARED] = squared;
  facts[KWM_FACT_EXPECTED] = m * R;
  facts[KWM_FACT_TOP] = 0;
}

/* The warp's sample: what both kernels begin with. p is left alone if Gaussian. */
static __device__ void take_sample(const struct kwm_device_observation &o, float *p) {
  const int classes = (int)o.classes, label = o.labels[blockIdx.x];
  const float *const logits = o.logits + blockIdx.x * o.classes;
  double *const facts = o.facts + (int64_t)blockIdx.x * KWM_FACTS;
  const int best = largest(classes, logits);
  if (o.noise > 0) {
    gaussian_facts(o.noise, classes, logits, best, label, facts);
    return;
  }
  softmax(classes, logits, best, p);
  categorical_facts(classes, p, best, label, facts);
}

static __global__ void observe(struct kwm_device_observation o, float *e, float *J) {
  __shared__ float p[CLASSES_MAX];
  const int classes = (int)o.classes, label = o.labels[blockIdx.x];
  const float *const outputs = o.logits + blockIdx.x * o.classes;
  take_sample(o, p);
  if (e == NULL) return;
  e += blockIdx.x * o.classes;
  J += blockIdx.x * o.classes * o.classes;
  const double deviation = sqrt(o.noise);
  for (int r = (int)threadIdx.x; r < classes; r += CUDA_WARP)
    e[r] = o.noise > 0 ? (float)(((r == label) - (double)outputs[r]) / deviation)
                       : ((r == label ? 1.0f : 0.0f) - p[r]) / sqrtf(p[r]);
  for (int at = (int)threadIdx.x; at < classes * classes; at += CUDA_WARP) {
    const int r = at / classes, k = at % classes;
    if (o.noise > 0)
      J[at] = r == k ? (float)(1 / deviation) : 0;
    else
      J[at] = sqrtf(p[r]) * ((r == k ? 1.0f : 0.0f) - p[k]);
  }
}

void cuda_observe(const struct kwm_device_observation *o, float *e, float *J, cudaStream_t stream) {
  KWM_ASSERT(o->classes <= CLASSES_MAX);
  observe<<<(unsigned)o->n, CUDA_WARP, 0, stream>>>(*o, e, J);
}

/* A class drawn from p, at the uniform number. */
static __device__ int draw_class(int classes, const float *p, double uniform) {
  double sum = 0;
  for (int k = 0; k + 1 < classes; k++) {
    sum += (double)p[k];
    if (uniform < sum) return k;
  }
  return classes - 1;
}

static __global__ void observe_sampled(struct kwm_device_observation o, const double *draws, float *g, float *h) {
  __shared__ float p[CLASSES_MAX];
  const int classes = (int)o.classes, label = o.labels[blockIdx.x];
  const int64_t first = blockIdx.x * o.classes;
  take_sample(o, p);
  const int drawn = o.noise > 0 ? 0 : draw_class(classes, p, draws[blockIdx.x]);
  for (int k = (int)threadIdx.x; k < classes; k += CUDA_WARP) {
    if (o.noise > 0) {
      g[first + k] = (float)(((k == label) - (double)o.logits[first + k]) / o.noise);
      h[first + k] = (float)(draws[first + k] / sqrt(o.noise));
    } else {
      g[first + k] = (k == label ? 1.0f : 0.0f) - p[k];
      h[first + k] = (k == drawn ? 1.0f : 0.0f) - p[k];
    }
  }
}

void cuda_observe_sampled(const struct kwm_device_observation *o, const double *draws, float *g, float *h,
                          cudaStream_t stream) {
  KWM_ASSERT(o->classes <= CLASSES_MAX);
  observe_sampled<<<(unsigned)o->n, CUDA_WARP, 0, stream>>>(*o, draws, g, h);
}
