#include "kwm/encoder.h"

#include <math.h>
#include <string.h>

#include "kwm/backend.h"
#include "kwm/rng.h"

enum { PARAMETERS_MAX = 20000, ROWS_MAX = 4096 };

int kwm_encoder_rows(const struct kwm_encoder_spec *spec) {
  return spec->m * (spec->ahead + 1) + spec->size;
}

kwm_status kwm_encoder_init(struct kwm_encoder *encoder, const struct kwm_encoder_spec *spec) {
  const int64_t window = (int64_t)spec->m * (spec->delays + 1), p = spec->size, h = spec->hidden, g = spec->decoder;
  const int64_t m = spec->m, k = spec->k;
  memset(encoder, 0, sizeof *encoder);
  KWM_CHECK(p >= m, KWM_ERR_USAGE, "world.states: wanted at least the %d outputs, found %d", spec->m, spec->size);
  const int64_t W2 = h * (window + 1), V1 = W2 + p * (h + 1), V2 = V1 + g * (p + 1), C = V2 + m * g;
  const int64_t K = C + m * (p + 1), B = K + p * p, n = B + p * k;
  KWM_CHECK(n <= PARAMETERS_MAX && kwm_encoder_rows(spec) <= ROWS_MAX, KWM_ERR_USAGE,
            "world.lift network: wanted at most %d parameters and %d losses a step, found %lld and %d", PARAMETERS_MAX,
            ROWS_MAX, (long long)n, kwm_encoder_rows(spec));
  *encoder = (struct kwm_encoder){.spec = *spec,
                                  .window = (int)window,
                                  .n = (int)n,
                                  .W2 = (int)W2,
                                  .V1 = (int)V1,
                                  .V2 = (int)V2,
                                  .C = (int)C,
                                  .K = (int)K,
                                  .B = (int)B};
  /* see the space's observe: z and its sensitivity twice, [K B], G, dy/dz, and a layer with its input */
  const int64_t layer = window + 1 + (h > g ? h : g) + p + 1;
  const int64_t numbers = 2 * (p + p * n) + p * (p + k) + 4 * p * p + m * p + layer;
  return kwm_alloc((void **)&encoder->work, (size_t)numbers * sizeof(double), "encoder");
}

void kwm_encoder_fini(struct kwm_encoder *encoder) {
  kwm_free(encoder->work);
  memset(encoder, 0, sizeof *encoder);
}

void kwm_encoder_prior(const struct kwm_encoder *encoder, uint64_t seed, double scale, double *mean, double *variance) {
  const struct kwm_encoder_spec *const spec = &encoder->spec;
  const int p = spec->size, linear = encoder->window < p ? encoder->window : p;
  for (int i = 0; i < encoder->n; i++) {
    const double draw = kwm_rng_normal(seed, KWM_RNG_WORLD, 2, (uint64_t)i);
    mean[i] = 0, variance[i] = scale * scale;
    if (i < encoder->W2 || (i >= encoder->V1 && i < encoder->V2)) { /* first layers */
      mean[i] = draw, variance[i] = 1;
    } else if (i < encoder->V1) { /* what has no linear part is of the outputs' size from the start */
      const int row = (i - encoder->W2) / (spec->hidden + 1), column = (i - encoder->W2) % (spec->hidden + 1);
      const double share = column < spec->hidden ? 1.0 / spec->hidden : 1;
      variance[i] = scale * scale * share;
      if (column < spec->hidden) mean[i] = (row < linear ? 0.3 * scale : 1) * sqrt(share) * draw;
    } else if (i < encoder->C) {
      variance[i] = scale * scale / spec->decoder;
      mean[i] = 0.3 * sqrt(variance[i]) * draw;
    } else if (i < encoder->K) {
      const int row = (i - encoder->C) / (p + 1), column = (i - encoder->C) % (p + 1);
      mean[i] = row == column, variance[i] = 0.1;
    } else if (i < encoder->B) {
      const int row = (i - encoder->K) / p, column = (i - encoder->K) % p;
      if (row == column) mean[i] = spec->stable ? 0.1 : 1;
    }
  }
}

void kwm_encoder_lift(const struct kwm_encoder *encoder, const double *theta, const double *window, double *z,
                      double *Z) {
  const int w = encoder->window, p = encoder->spec.size, h = encoder->spec.hidden, n = encoder->n;
  const double *const W1 = theta, *const W2 = theta + encoder->W2;
  double *const in = encoder->work, *const out = in + w + 1;
  memcpy(in, window, (size_t)w * sizeof *in);
  in[w] = 1;
  for (int l = 0; l < h; l++) {
    double sum = 0;
    for (int j = 0; j <= w; j++) sum += W1[l * (w + 1) + j] * in[j];
    out[l] = tanh(sum);
  }
  out[h] = 1;
  if (Z != NULL) memset(Z, 0, (size_t)p * (size_t)n * sizeof *Z);
  for (int i = 0; i < p; i++) {
    const double *const row = W2 + i * (h + 1);
    z[i] = i < w ? window[i] : 0;
    for (int l = 0; l <= h; l++) z[i] += row[l] * out[l];
    if (Z == NULL) continue;
    double *const to = Z + (int64_t)i * n;
    memcpy(to + encoder->W2 + i * (h + 1), out, (size_t)(h + 1) * sizeof *out);
    for (int l = 0; l < h; l++) {
      const double back = row[l] * (1 - out[l] * out[l]);
      for (int j = 0; j <= w; j++) to[l * (w + 1) + j] = back * in[j];
    }
  }
}

void kwm_encoder_read(const struct kwm_encoder *encoder, const double *theta, const double *z, double *y, double *Yz,
                      double *Yt) {
  const int m = encoder->spec.m, p = encoder->spec.size, g = encoder->spec.decoder, n = encoder->n;
  const double *const V1 = theta + encoder->V1, *const V2 = theta + encoder->V2, *const C = theta + encoder->C;
  double *const in = encoder->work, *const out = in + p + 1;
  memcpy(in, z, (size_t)p * sizeof *in);
  in[p] = 1;
  for (int l = 0; l < g; l++) {
    double sum = 0;
    for (int j = 0; j <= p; j++) sum += V1[l * (p + 1) + j] * in[j];
    out[l] = tanh(sum);
  }
  for (int i = 0; i < m; i++) {
    const double *const c = C + i * (p + 1), *const v = V2 + i * g;
    y[i] = 0;
    for (int j = 0; j <= p; j++) y[i] += c[j] * in[j];
    for (int l = 0; l < g; l++) y[i] += v[l] * out[l];
    if (Yz != NULL) memcpy(Yz + i * p, c, (size_t)p * sizeof *c);
    double *const to = Yt != NULL ? Yt + (int64_t)i * n : NULL;
    for (int j = 0; to != NULL && j <= p; j++) to[encoder->C + i * (p + 1) + j] += in[j];
    for (int l = 0; l < g; l++) {
      const double back = v[l] * (1 - out[l] * out[l]);
      for (int j = 0; Yz != NULL && j < p; j++) Yz[i * p + j] += back * V1[l * (p + 1) + j];
      for (int j = 0; to != NULL && j <= p; j++) to[encoder->V1 + l * (p + 1) + j] += back * in[j];
      if (to != NULL) to[encoder->V2 + i * g + l] += out[l];
    }
  }
}
