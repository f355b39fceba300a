/* The shadow device's layers (src/layer). The gated recurrence runs pixel by pixel from the parameters themselves,
   which are all that its tables hold; a run of background pixels is that many pixels. */
#include "shadow.h"

#include <complex.h>
#include <math.h>
#include <string.h>

#include "dropout.h"

enum { PARAMS = 10, VALUES = 256, RUN_MAX = 48 };

void shadow_pixels(kwm_device *d, int64_t n, int64_t length, const uint8_t *pixels, float *a) {
  const uint8_t *const from = shadow_array(d, pixels, n * length, sizeof *pixels);
  float *const to = shadow_array(d, a, n * (length + 1), sizeof *a);
  for (int64_t i = 0; i < n; i++) {
    for (int64_t t = 0; t < length; t++) to[i * (length + 1) + t] = (float)from[i * length + t] / 255.0f;
    to[i * (length + 1) + length] = 1;
  }
}

void shadow_relu(kwm_device *d, int64_t n, int64_t w, const float *u, float *act) {
  const float *const from = shadow_array(d, u, n * w, sizeof *u);
  float *const to = shadow_array(d, act, n * (w + 1), sizeof *act);
  for (int64_t i = 0; i < n; i++) {
    for (int64_t k = 0; k < w; k++) to[i * (w + 1) + k] = from[i * w + k] <= 0 ? 0 : from[i * w + k]; /* NaN stays */
    to[i * (w + 1) + w] = 1;
  }
}

void shadow_relu_mask(kwm_device *d, int64_t n, int64_t m, int64_t w, const float *u, float *J) {
  const float *const from = shadow_array(d, u, n * w, sizeof *u);
  float *const rows = shadow_array(d, J, n * m * w, sizeof *J);
  for (int64_t row = 0; row < n * m; row++)
    for (int64_t k = 0; k < w; k++)
      if (!(from[row / m * w + k] > 0)) rows[row * w + k] = 0;
}

void shadow_drop(kwm_device *d, int64_t n, int64_t m, int64_t w, int64_t ld, const struct kwm_dropout *drop, float *x) {
  dropout_rows(n, m, w, ld, drop, SHADOW_MATRIX(d, x, n * m, w, ld));
}

void shadow_gated_tables(kwm_device *d, int64_t count, const float *theta, float *tables) {
  const float *const from = shadow_array(d, theta, count * PARAMS, sizeof *theta);
  float *const to = shadow_array(d, tables, kwm_device_gated_floats(count), sizeof *tables);
  memcpy(to, from, (size_t)(count * PARAMS) * sizeof *to);
}

/* Symbols 0..255 are single pixels, 255 + L a run of L >= 2 background pixels. */
static int32_t encode(int64_t length, const uint8_t *pixels, uint16_t *symbols) {
  int32_t n = 0;
  for (int64_t t = 0; t < length; n++) {
    int64_t run = 1;
    while (pixels[t] == 0 && run < RUN_MAX && t + run < length && pixels[t + run] == 0) run++;
    symbols[n] = run == 1 ? pixels[t] : (uint16_t)(VALUES - 1 + run);
    t += run;
  }
  return n;
}

void shadow_gated_encode(kwm_device *d, int64_t n, int64_t length, const uint8_t *pixels, uint16_t *symbols,
                         int32_t *n_symbols) {
  const uint8_t *const from = shadow_array(d, pixels, n * length, sizeof *pixels);
  uint16_t *const to = shadow_array(d, symbols, n * length, sizeof *symbols);
  int32_t *const lengths = shadow_array(d, n_symbols, n, sizeof *n_symbols);
  for (int64_t i = 0; i < n; i++) lengths[i] = encode(length, from + i * length, to + i * length);
}

/* What one pixel of a value does to a unit: h <- a h + f, and its derivatives by each parameter. */
struct pixel {
  double complex a, f, da[PARAMS], df[PARAMS];
};

static void fill_pixels(const float *theta, struct pixel pixels[VALUES]) {
  double p[PARAMS];
  for (int k = 0; k < PARAMS; k++) p[k] = (double)theta[k];
  const double rate = exp(p[0]), turn = exp(p[1]);
  const double complex b = p[6] + I * p[7], c = p[8] + I * p[9];
  for (int value = 0; value < VALUES; value++) {
    const double x = value / 255.0, r = 1 / (1 + exp(-p[2] * x - p[3])), g = 1 / (1 + exp(-p[4] * x - p[5]));
    const double complex a = cexp(-rate * r + I * turn), u = b * x + c;
    const double k = rate * r * (1 - r), q = g * (1 - g);
    pixels[value] = (struct pixel){.a = a,
                                   .f = g * u,
                                   .da = {-rate * r * a, I * turn * a, -k * x * a, -k * a},
                                   .df = {0, 0, 0, 0, q * x * u, q * u, g * x, I * g * x, g, I * g}};
  }
}

/* One unit's state and its derivatives. */
struct trace {
  double complex h, S[PARAMS];
};

static void take_pixel(const struct pixel *pixel, bool sensitive, struct trace *trace) {
  for (int k = 0; k < PARAMS && sensitive; k++)
    trace->S[k] = pixel->a * trace->S[k] + pixel->da[k] * trace->h + pixel->df[k];
  trace->h = pixel->a * trace->h + pixel->f;
}

static struct trace run_unit(const struct pixel pixels[VALUES], int32_t n_symbols, const uint16_t *symbols,
                             bool sensitive) {
  struct trace trace = {0};
  for (int32_t t = 0; t < n_symbols; t++) {
    const int run = symbols[t] < VALUES ? 1 : symbols[t] - (VALUES - 1);
    KWM_ASSERT(run <= RUN_MAX && "a symbol that was encoded");
    for (int k = 0; k < run; k++) take_pixel(&pixels[symbols[t] < VALUES ? symbols[t] : 0], sensitive, &trace);
  }
  return trace;
}

void shadow_gated_forward(kwm_device *d, int64_t n, int64_t length, int64_t count, const float *tables,
                          const uint16_t *symbols, const int32_t *n_symbols, float *h, float *S) {
  const float *const theta = shadow_array(d, tables, kwm_device_gated_floats(count), sizeof *tables);
  const uint16_t *const codes = shadow_array(d, symbols, n * length, sizeof *symbols);
  const int32_t *const lengths = shadow_array(d, n_symbols, n, sizeof *n_symbols);
  float *const to_h = shadow_array(d, h, n * 2 * count, sizeof *h);
  float *const to_S = S == NULL ? NULL : shadow_array(d, S, n * 2 * PARAMS * count, sizeof *S);
  for (int64_t u = 0; u < count; u++) {
    struct pixel pixels[VALUES];
    fill_pixels(theta + u * PARAMS, pixels);
    for (int64_t i = 0; i < n; i++) {
      KWM_ASSERT(lengths[i] > 0 && lengths[i] <= length && "sequences that were encoded");
      const struct trace end = run_unit(pixels, lengths[i], codes + i * length, S != NULL);
      to_h[(2 * i) * count + u] = (float)creal(end.h);
      to_h[(2 * i + 1) * count + u] = (float)cimag(end.h);
      for (int k = 0; k < PARAMS && S != NULL; k++) {
        to_S[(2 * i * PARAMS + k) * count + u] = (float)creal(end.S[k]);
        to_S[((2 * i + 1) * PARAMS + k) * count + u] = (float)cimag(end.S[k]);
      }
    }
  }
}
