/* Predictive distributions of one sample, and their sums. */
#include "outlook.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "kwm/backend.h"
#include "kwm/rng.h"

static const double PI = 3.14159265358979323846;

/* p <- softmax(z). */
static void softmax(int64_t m, const double *z, double *p) {
  double top = z[0], total = 0;
  for (int64_t k = 1; k < m; k++) top = z[k] > top ? z[k] : top;
  for (int64_t k = 0; k < m; k++) total += p[k] = exp(z[k] - top);
  for (int64_t k = 0; k < m; k++) p[k] /= total;
}

static double entropy(int64_t m, const double *p) {
  double sum = 0;
  for (int64_t k = 0; k < m; k++)
    if (p[k] != 0) sum -= p[k] * log(p[k]);
  return sum;
}

static int64_t largest(int64_t m, const double *p) {
  int64_t best = 0;
  for (int64_t k = 1; k < m; k++)
    if (p[k] > p[best]) best = k;
  return best;
}

/* L (m, m), lower <- a factor of C, which may be singular and carry rounding: with the least of a few additions to its
   diagonal that make it positive definite. */
static bool factor(int64_t m, const double *C, double *L) {
  const double least = 1e-12, most = 1e-2, tiny = 1e-24;
  double trace = 0;
  for (int64_t k = 0; k < m; k++) trace += C[k * m + k];
  if (!(trace >= 0 && isfinite(trace))) return false;
  for (double share = least; share < most; share *= 100) {
    memcpy(L, C, (size_t)(m * m) * sizeof *L);
    for (int64_t k = 0; k < m; k++) L[k * m + k] += share * trace + tiny;
    if (kwm_cholesky_f64(m, L, m)) return true;
  }
  return false;
}

/* p <- mean of softmax(z + Lε) over the draws; the mean of their entropies. */
static double draw(int64_t m, const double *z, const double *L, uint64_t seed, uint64_t step, double *p) {
  double each[KWM_OUTLOOK_CLASSES_MAX], normal[KWM_OUTLOOK_CLASSES_MAX], at[KWM_OUTLOOK_CLASSES_MAX], certain = 0;
  memset(p, 0, (size_t)m * sizeof *p);
  for (uint64_t d = 0; d < KWM_OUTLOOK_DRAWS; d++) {
    for (int64_t k = 0; k < m; k++)
      normal[k] = kwm_rng_normal(seed, KWM_RNG_PREDICTIVE, step, d * KWM_OUTLOOK_CLASSES_MAX + (uint64_t)k);
    for (int64_t r = 0; r < m; r++) {
      at[r] = z[r];
      for (int64_t k = 0; k <= r; k++) at[r] += L[r * m + k] * normal[k];
    }
    softmax(m, at, each);
    certain += entropy(m, each) / KWM_OUTLOOK_DRAWS;
    for (int64_t k = 0; k < m; k++) p[k] += each[k] / KWM_OUTLOOK_DRAWS;
  }
  return certain;
}

static void mackay(int64_t m, const double *z, const double *C, double *p) {
  double shrunk[KWM_OUTLOOK_CLASSES_MAX];
  for (int64_t k = 0; k < m; k++) shrunk[k] = z[k] / sqrt(1 + PI / 8 * fmax(C[k * m + k], 0));
  softmax(m, shrunk, p);
}

void kwm_outlook(struct kwm_outlook *outlook, int64_t m, const float *z, const double *C, uint64_t seed,
                 uint64_t step) {
  double mean[KWM_OUTLOOK_CLASSES_MAX], L[KWM_OUTLOOK_CLASSES_MAX * KWM_OUTLOOK_CLASSES_MAX], certain = NAN;
  KWM_ASSERT(m >= 1 && m <= KWM_OUTLOOK_CLASSES_MAX);
  for (int64_t k = 0; k < m; k++) {
    mean[k] = (double)z[k];
    outlook->p[KWM_OUTLOOK_POSTERIOR][k] = outlook->p[KWM_OUTLOOK_MACKAY][k] = NAN;
  }
  softmax(m, mean, outlook->p[KWM_OUTLOOK_PLUGIN]);
  if (C != NULL && factor(m, C, L)) {
    certain = draw(m, mean, L, seed, step, outlook->p[KWM_OUTLOOK_POSTERIOR]);
    mackay(m, mean, C, outlook->p[KWM_OUTLOOK_MACKAY]);
  }
  for (int f = 0; f < KWM_OUTLOOK_FORMS; f++) outlook->entropy[f] = entropy(m, outlook->p[f]);
  outlook->information = outlook->entropy[KWM_OUTLOOK_POSTERIOR] - certain;
}

double kwm_outlook_score(const struct kwm_outlook *outlook, int64_t m, enum kwm_outlook_score score) {
  const double *const p = outlook->p[KWM_OUTLOOK_PLUGIN];
  switch (score) {
  case KWM_OUTLOOK_ENTROPY_PLUGIN: return outlook->entropy[KWM_OUTLOOK_PLUGIN];
  case KWM_OUTLOOK_ENTROPY_POSTERIOR: return outlook->entropy[KWM_OUTLOOK_POSTERIOR];
  case KWM_OUTLOOK_INFORMATION: return outlook->information;
  case KWM_OUTLOOK_MAX_PROBABILITY: return -p[largest(m, p)];
  case KWM_OUTLOOK_SCORES: break;
  }
  return NAN;
}

void kwm_outlook_add(struct kwm_outlook_sums *sums, int64_t m, const struct kwm_outlook *outlook, int label) {
  sums->samples++;
  sums->information += outlook->information;
  for (int f = 0; f < KWM_OUTLOOK_FORMS; f++) {
    struct kwm_outlook_form_sums *const form = &sums->form[f];
    const double *const p = outlook->p[f];
    const int64_t best = largest(m, p);
    const double known = isnan(p[best]) ? NAN : 1; /* no prediction is neither right nor wrong */
    form->correct += known * (best == label);
    form->surprisal -= known * log(fmax(p[label], DBL_MIN));
    form->entropy += outlook->entropy[f];
    kwm_calibration_add(&form->calibration, p[best], best == label);
  }
}
