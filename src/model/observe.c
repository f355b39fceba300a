/* Categorical observation: softmax, whitening by the exact Fisher information, and the surprisal's own statistics. */
#include "kwm/model.h"

#include <math.h>

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

static void add_facts(int64_t classes, const float *logits, const float *p, int label, struct kwm_innovation *sums) {
  double entropy = 0, second = 0, power = 0;
  int64_t best = 0;
  for (int64_t k = 0; k < classes; k++) {
    const double log_p = log((double)p[k]);
    entropy -= (double)p[k] * log_p;
    second += (double)p[k] * log_p * log_p;
    power += (double)p[k] * (double)p[k];
    if (logits[k] > logits[best]) best = k;
  }
  sums->samples += 1;
  sums->surprisal -= log((double)p[label]);
  sums->entropy += entropy;
  sums->variance += second - entropy * entropy;
  sums->correct += best == label;
  sums->squared += 1 - 2 * (double)p[label] + power;
  sums->expected += 1 - power;
}

void kwm_observe(int64_t n, int64_t classes, const float *logits, const uint8_t *labels, float *e, float *J,
                 struct kwm_innovation *sums) {
  KWM_ASSERT(classes <= CLASSES_MAX);
  for (int64_t i = 0; i < n; i++) {
    float p[CLASSES_MAX];
    softmax(classes, logits + i * classes, p);
    add_facts(classes, logits + i * classes, p, labels[i], sums);
    for (int64_t r = 0; r < classes && e != NULL; r++) {
      const float root = sqrtf(p[r]);
      e[i * classes + r] = ((r == labels[i] ? 1.0f : 0.0f) - p[r]) / root;
      for (int64_t k = 0; k < classes; k++) J[(i * classes + r) * classes + k] = root * ((r == k ? 1.0f : 0.0f) - p[k]);
    }
  }
}
