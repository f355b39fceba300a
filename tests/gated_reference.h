/* The whole model once more in double precision, written term by term: recurrence pixel by pixel, its sensitivities
   (equations.md 3(h)), read-out and log-likelihood. Shares nothing with src. */
#pragma once

#include <complex.h>

#include "dense.h"

enum { REF_PARAMS = 10 };

static inline double ref_logistic(double t) {
  return 1 / (1 + exp(-t));
}

/* Final state of one unit; S (REF_PARAMS): its derivatives, NULL: not wanted; peak: largest |h|, |S_p| on the way. */
static inline double complex ref_unit(const double *theta, int64_t length, const uint8_t *pixels, double complex *S,
                                      double *peak) {
  double complex h = 0;
  for (int k = 0; k < REF_PARAMS && S != NULL; k++) S[k] = 0, peak[k] = 0;
  if (S != NULL) peak[REF_PARAMS] = 0;
  for (int64_t t = 0; t < length; t++) {
    const double x = pixels[t] / 255.0, rate = exp(theta[0]), turn = exp(theta[1]);
    const double r = ref_logistic(theta[2] * x + theta[3]), g = ref_logistic(theta[4] * x + theta[5]);
    const double complex a = cexp(-rate * r + I * turn), u = (theta[6] + I * theta[7]) * x + theta[8] + I * theta[9];
    if (S != NULL) {
      const double dr = r * (1 - r), dg = g * (1 - g);
      const double complex da[REF_PARAMS] = {-rate * r * a, I * turn * a, -rate * dr * x * a, -rate * dr * a};
      const double complex df[REF_PARAMS] = {0, 0, 0, 0, dg * x * u, dg * u, g * x, I * g * x, g, I * g};
      for (int k = 0; k < REF_PARAMS; k++) {
        S[k] = a * S[k] + da[k] * h + df[k];
        peak[k] = fmax(peak[k], cabs(S[k]));
      }
    }
    h = a * h + g * u;
    if (S != NULL) peak[REF_PARAMS] = fmax(peak[REF_PARAMS], cabs(h));
  }
  return h;
}

struct ref_model {
  int64_t width, hidden, classes, length;
  double *theta, *W1, *W2; /* (width, 10), (hidden, 2 width + 1), (classes, hidden + 1) */
};

/* logits (classes) from the final states z (2 width): real parts, then imaginary parts. */
static inline void ref_readout(const struct ref_model *model, const double *z, double *logits) {
  const int64_t wide = 2 * model->width;
  for (int64_t c = 0; c < model->classes; c++) logits[c] = model->W2[c * (model->hidden + 1) + model->hidden];
  for (int64_t k = 0; k < model->hidden; k++) {
    double u = model->W1[k * (wide + 1) + wide];
    for (int64_t j = 0; j < wide; j++) u += model->W1[k * (wide + 1) + j] * z[j];
    for (int64_t c = 0; c < model->classes && u > 0; c++) logits[c] += model->W2[c * (model->hidden + 1) + k] * u;
  }
}

static inline void ref_states(const struct ref_model *model, const uint8_t *pixels, double *z) {
  for (int64_t u = 0; u < model->width; u++) {
    const double complex h = ref_unit(model->theta + u * REF_PARAMS, model->length, pixels, NULL, NULL);
    z[u] = creal(h);
    z[model->width + u] = cimag(h);
  }
}

static inline void ref_softmax(int64_t classes, const double *logits, double *p) {
  double total = 0, top = logits[0];
  for (int64_t c = 1; c < classes; c++) top = fmax(top, logits[c]);
  for (int64_t c = 0; c < classes; c++) total += p[c] = exp(logits[c] - top);
  for (int64_t c = 0; c < classes; c++) p[c] /= total;
}

/* log p(label | pixels) */
static inline double ref_log_likelihood(const struct ref_model *model, const uint8_t *pixels, int label) {
  double *const z = dense_new(2 * model->width), *const logits = dense_new(2 * model->classes);
  ref_states(model, pixels, z);
  ref_readout(model, z, logits);
  ref_softmax(model->classes, logits, logits + model->classes);
  const double value = log(logits[model->classes + label]);
  free(z), free(logits);
  return value;
}
