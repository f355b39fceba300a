/* The observation: softmax whitened by its exact Fisher information, or Gaussian; and the surprisal's own statistics.
 */
#include "kwm/model.h"

#include <math.h>

#include "kwm/device_ops.h"
#include "kwm/rng.h"

enum { CLASSES_MAX = 64 };

/* Below this a probability no longer changes any product in single precision, but still divides safely. */
static const float P_MIN = 1e-30f;

static void softmax(int64_t classes, const float *logits, float *p) {
  float top = logits[0], total = 0;
  for (int64_t k = 1; k < classes; k++) top = logits[k] > top ? logits[k] : top;
  for (int64_t k = 0; k < classes; k++) total += p[k] = expf(logits[k] - top);
  /* Not fmaxf: it would turn a NaN into P_MIN. */
  for (int64_t k = 0; k < classes; k++) p[k] = p[k] / total < P_MIN ? P_MIN : p[k] / total;
}

static int64_t largest(int64_t classes, const float *logits) {
  int64_t best = 0;
  for (int64_t k = 1; k < classes; k++)
    if (logits[k] > logits[best]) best = k;
  return best;
}

static void add_facts(int64_t classes, const float *logits, const float *p, int label, struct kwm_innovation *sums) {
  double entropy = 0, second = 0, power = 0;
  const int64_t best = largest(classes, logits);
  for (int64_t k = 0; k < classes; k++) {
    const double log_p = log((double)p[k]);
    entropy -= (double)p[k] * log_p;
    second += (double)p[k] * log_p * log_p;
    power += (double)p[k] * (double)p[k];
  }
  sums->samples += 1;
  sums->surprisal -= log((double)p[label]);
  sums->entropy += entropy;
  sums->variance += second - entropy * entropy;
  sums->correct += best == label;
  sums->squared += 1 - 2 * (double)p[label] + power;
  sums->expected += 1 - power;
  kwm_calibration_add(&sums->calibration, (double)p[best], best == label);
}

static void observe_categorical(int64_t classes, const float *logits, int label, float *e, float *J,
                                struct kwm_innovation *sums) {
  float p[CLASSES_MAX];
  softmax(classes, logits, p);
  add_facts(classes, logits, p, label, sums);
  for (int64_t r = 0; r < classes && e != NULL; r++) {
    const float root = sqrtf(p[r]);
    e[r] = ((r == label ? 1.0f : 0.0f) - p[r]) / root;
    for (int64_t k = 0; k < classes; k++) J[r * classes + k] = root * ((r == k ? 1.0f : 0.0f) - p[k]);
  }
}

static void observe_gaussian(double R, int64_t classes, const float *outputs, int label, float *e, float *J,
                             struct kwm_innovation *sums) {
  const double m = (double)classes, log_norm = log(2 * 3.14159265358979323846 * R);
  double squared = 0;
  for (int64_t r = 0; r < classes; r++) {
    const double error = (r == label) - (double)outputs[r];
    squared += error * error;
    if (e == NULL) continue;
    e[r] = (float)(error / sqrt(R));
    for (int64_t k = 0; k < classes; k++) J[r * classes + k] = r == k ? (float)(1 / sqrt(R)) : 0;
  }
  sums->samples += 1;
  sums->surprisal += 0.5 * (squared / R + m * log_norm);
  sums->entropy += 0.5 * m * (1 + log_norm);
  sums->variance += 0.5 * m;
  sums->correct += largest(classes, outputs) == label;
  sums->squared += squared;
  sums->expected += m * R;
}

void kwm_observe(const struct kwm_model *model, int64_t n, const float *logits, const uint8_t *labels, float *e,
                 float *J, struct kwm_innovation *sums) {
  const int64_t classes = model->classes;
  KWM_ASSERT(classes <= CLASSES_MAX);
  for (int64_t i = 0; i < n; i++) {
    const float *const of_sample = logits + i * classes;
    float *const e_i = e == NULL ? NULL : e + i * classes, *const J_i = e == NULL ? NULL : J + i * classes * classes;
    if (model->noise_variance > 0)
      observe_gaussian(model->noise_variance, classes, of_sample, labels[i], e_i, J_i, sums);
    else
      observe_categorical(classes, of_sample, labels[i], e_i, J_i, sums);
  }
}

static double uniform_of(const struct kwm_draw *draw, int64_t i) {
  return kwm_rng_uniform(draw->seed, KWM_RNG_LABELS, draw->step, draw->index + (uint64_t)i);
}

static double normal_of(const struct kwm_draw *draw, int64_t i, int64_t k) {
  const uint64_t at = draw->index + (uint64_t)i;
  return kwm_rng_normal(draw->seed, KWM_RNG_LABELS, draw->step, at * CLASSES_MAX + (uint64_t)k);
}

/* A class drawn from p, at the keyed uniform number. */
static int64_t draw_class(int64_t classes, const float *p, double uniform) {
  double sum = 0;
  for (int64_t k = 0; k + 1 < classes; k++) {
    sum += (double)p[k];
    if (uniform < sum) return k;
  }
  return classes - 1;
}

static void sample_categorical(int64_t classes, const float *logits, int label, double uniform, float *g, float *h,
                               struct kwm_innovation *sums) {
  float p[CLASSES_MAX];
  softmax(classes, logits, p);
  add_facts(classes, logits, p, label, sums);
  const int64_t drawn = draw_class(classes, p, uniform);
  for (int64_t k = 0; k < classes; k++) {
    g[k] = (k == label ? 1.0f : 0.0f) - p[k];
    h[k] = (k == drawn ? 1.0f : 0.0f) - p[k];
  }
}

void kwm_observe_sampled(const struct kwm_model *model, int64_t n, const float *logits, const uint8_t *labels,
                         const struct kwm_draw *draw, float *g, float *h, struct kwm_innovation *sums) {
  const int64_t m = model->classes;
  const double R = model->noise_variance;
  KWM_ASSERT(m <= CLASSES_MAX);
  for (int64_t i = 0; i < n; i++) {
    const float *const z = logits + i * m;
    if (R > 0) {
      observe_gaussian(R, m, z, labels[i], NULL, NULL, sums);
      for (int64_t k = 0; k < m; k++) {
        g[i * m + k] = (float)(((k == labels[i]) - (double)z[k]) / R);
        h[i * m + k] = (float)(normal_of(draw, i, k) / sqrt(R));
      }
      continue;
    }
    sample_categorical(m, z, labels[i], uniform_of(draw, i), g + i * m, h + i * m, sums);
  }
}

/* ---- on a device */

int64_t kwm_draws_width(const struct kwm_model *model) {
  return model->noise_variance > 0 ? model->classes : 1;
}

void kwm_draws(const struct kwm_model *model, int64_t n, const struct kwm_draw *draw, double *draws) {
  const int64_t width = kwm_draws_width(model);
  for (int64_t i = 0; i < n; i++)
    for (int64_t k = 0; k < width; k++)
      draws[i * width + k] = model->noise_variance > 0 ? normal_of(draw, i, k) : uniform_of(draw, i);
}

static struct kwm_device_observation observation(const struct kwm_model *model, int64_t n, const float *logits,
                                                 const uint8_t *labels, double *facts) {
  return (struct kwm_device_observation){.n = n,
                                         .classes = model->classes,
                                         .noise = model->noise_variance,
                                         .logits = logits,
                                         .labels = labels,
                                         .facts = facts};
}

void kwm_observe_on(kwm_device *device, const struct kwm_model *model, int64_t n, const float *logits,
                    const uint8_t *labels, float *e, float *J, double *facts) {
  const struct kwm_device_observation seen = observation(model, n, logits, labels, facts);
  KWM_ASSERT(model->classes <= CLASSES_MAX);
  if (n > 0) device->ops->observe(device, &seen, e, J);
}

void kwm_observe_sampled_on(kwm_device *device, const struct kwm_model *model, int64_t n, const float *logits,
                            const uint8_t *labels, const double *draws, float *g, float *h, double *facts) {
  const struct kwm_device_observation seen = observation(model, n, logits, labels, facts);
  KWM_ASSERT(model->classes <= CLASSES_MAX);
  if (n > 0) device->ops->observe_sampled(device, &seen, draws, g, h);
}
