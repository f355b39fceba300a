/* The shadow device's observations (src/model/observe.c). */
#include "shadow.h"

#include <math.h>

enum { CLASSES_MAX = 64 };

/* One sample. */
struct sample {
  int64_t classes, label;
  double R;
  const float *logits;
  double p[CLASSES_MAX];
};

static int64_t largest(const struct sample *sample) {
  int64_t best = 0;
  for (int64_t k = 1; k < sample->classes; k++)
    if (sample->logits[k] > sample->logits[best]) best = k;
  return best;
}

/* No probability below the least that the host allows; NaN stays NaN. */
static void softmax(struct sample *sample) {
  const double least = 1e-30, top = (double)sample->logits[largest(sample)];
  double total = 0;
  for (int64_t k = 0; k < sample->classes; k++) total += sample->p[k] = exp((double)sample->logits[k] - top);
  for (int64_t k = 0; k < sample->classes; k++)
    sample->p[k] = sample->p[k] / total < least ? least : sample->p[k] / total;
}

static void facts_categorical(const struct sample *sample, double *facts) {
  double entropy = 0, second = 0, power = 0;
  for (int64_t k = 0; k < sample->classes; k++) {
    const double p = sample->p[k], log_p = log(p);
    entropy -= p * log_p;
    second += p * log_p * log_p;
    power += p * p;
  }
  facts[KWM_FACT_SURPRISAL] = -log(sample->p[sample->label]);
  facts[KWM_FACT_ENTROPY] = entropy;
  facts[KWM_FACT_VARIANCE] = second - entropy * entropy;
  facts[KWM_FACT_CORRECT] = largest(sample) == sample->label;
  facts[KWM_FACT_SQUARED] = 1 - 2 * sample->p[sample->label] + power;
  facts[KWM_FACT_EXPECTED] = 1 - power;
  facts[KWM_FACT_TOP] = sample->p[largest(sample)];
}

static void facts_gaussian(const struct sample *sample, double *facts) {
  const double m = (double)sample->classes, log_norm = log(2 * 3.14159265358979323846 * sample->R);
  double squared = 0;
  for (int64_t r = 0; r < sample->classes; r++) {
    const double error = (r == sample->label) - (double)sample->logits[r];
    squared += error * error;
  }
  facts[KWM_FACT_SURPRISAL] = 0.5 * (squared / sample->R + m * log_norm);
  facts[KWM_FACT_ENTROPY] = 0.5 * m * (1 + log_norm);
  facts[KWM_FACT_VARIANCE] = 0.5 * m;
  facts[KWM_FACT_CORRECT] = largest(sample) == sample->label;
  facts[KWM_FACT_SQUARED] = squared;
  facts[KWM_FACT_EXPECTED] = m * sample->R;
  facts[KWM_FACT_TOP] = 0;
}

/* Whitened innovation e (classes) and rows J (classes, classes). */
static void whiten(const struct sample *sample, float *e, float *J) {
  for (int64_t r = 0; r < sample->classes; r++) {
    const bool gaussian = sample->R > 0;
    const double root = gaussian ? sqrt(sample->R) : sqrt(sample->p[r]), y = r == sample->label;
    e[r] = (float)((y - (gaussian ? (double)sample->logits[r] : sample->p[r])) / root);
    for (int64_t k = 0; k < sample->classes; k++)
      J[r * sample->classes + k] = (float)(gaussian ? (r == k) / root : root * ((r == k) - sample->p[k]));
  }
}

/* Scores of the label and of what was drawn. */
static void score(const struct sample *sample, const double *draws, float *g, float *h) {
  int64_t drawn = 0;
  double sum = 0;
  for (int64_t k = 0; k + 1 < sample->classes && sample->R == 0; k++) {
    sum += sample->p[k];
    if (draws[0] < sum) break;
    drawn = k + 1;
  }
  for (int64_t k = 0; k < sample->classes; k++) {
    const double y = k == sample->label;
    g[k] = (float)(sample->R > 0 ? (y - (double)sample->logits[k]) / sample->R : y - sample->p[k]);
    h[k] = (float)(sample->R > 0 ? draws[k] / sqrt(sample->R) : (k == drawn) - sample->p[k]);
  }
}

/* Sample i, its facts written. */
static struct sample observed(const struct kwm_device_observation *o, int64_t i) {
  struct sample sample = {
      .classes = o->classes, .label = o->labels[i], .R = o->noise, .logits = o->logits + i * o->classes};
  KWM_ASSERT(sample.label < o->classes);
  if (o->noise > 0) {
    facts_gaussian(&sample, o->facts + i * KWM_FACTS);
  } else {
    softmax(&sample);
    facts_categorical(&sample, o->facts + i * KWM_FACTS);
  }
  return sample;
}

static struct kwm_device_observation opened(kwm_device *d, const struct kwm_device_observation *o) {
  KWM_ASSERT(o->classes <= CLASSES_MAX && o->noise >= 0);
  struct kwm_device_observation open = *o;
  open.logits = shadow_array(d, o->logits, o->n * o->classes, sizeof *o->logits);
  open.labels = shadow_array(d, o->labels, o->n, sizeof *o->labels);
  open.facts = shadow_facts(d, o->facts, o->n * KWM_FACTS);
  return open;
}

void shadow_observe(kwm_device *d, const struct kwm_device_observation *o, float *e, float *J) {
  const int64_t m = o->classes;
  const struct kwm_device_observation open = opened(d, o);
  KWM_ASSERT((e == NULL) == (J == NULL));
  float *const to_e = e == NULL ? NULL : shadow_array(d, e, o->n * m, sizeof *e);
  float *const to_J = J == NULL ? NULL : shadow_array(d, J, o->n * m * m, sizeof *J);
  for (int64_t i = 0; i < o->n; i++) {
    const struct sample sample = observed(&open, i);
    if (e != NULL) whiten(&sample, to_e + i * m, to_J + i * m * m);
  }
}

void shadow_observe_sampled(kwm_device *d, const struct kwm_device_observation *o, const double *draws, float *g,
                            float *h) {
  const int64_t m = o->classes, width = o->noise > 0 ? m : 1;
  const struct kwm_device_observation open = opened(d, o);
  const double *const from = shadow_array(d, draws, o->n * width, sizeof *draws);
  float *const to_g = shadow_array(d, g, o->n * m, sizeof *g), *const to_h = shadow_array(d, h, o->n * m, sizeof *h);
  for (int64_t i = 0; i < o->n; i++) {
    const struct sample sample = observed(&open, i);
    score(&sample, from + i * width, to_g + i * m, to_h + i * m);
  }
}
