/* The host's norm, GELU and residual. */
#include "tensor_host.h"

#include <math.h>

enum { COLUMNS = 256 };
static const double FLOOR = 1e-6;
static const float ROOT_HALF = 0.70710678f, DENSITY_0 = 0.39894228f;

void tensor_norm(kwm_device *d, int64_t n, int64_t width, const float *x, const float *g, float *y, float *inv) {
  (void)d;
  for (int64_t r = 0; r < n; r++) {
    const float *const from = x + r * width;
    float *const to = y + r * width;
    double sum = 0;
    for (int64_t k = 0; k < width; k++) sum += (double)from[k] * (double)from[k];
    const float over = (float)(1 / sqrt(sum / (double)width + FLOOR));
    inv[r] = over;
    for (int64_t k = 0; k < width; k++) to[k] = from[k] * over * g[k];
  }
}

/* sg (columns) += sum over the rows of sy x inv, in double. */
static void add_score(int64_t n, int64_t width, int64_t columns, const float *x, const float *inv, const float *sy,
                      float *sg) {
  double sums[COLUMNS] = {0};
  for (int64_t r = 0; r < n; r++)
    for (int64_t k = 0; k < columns; k++) sums[k] += (double)(sy[r * width + k] * x[r * width + k] * inv[r]);
  for (int64_t k = 0; k < columns; k++) sg[k] += (float)sums[k];
}

void tensor_norm_adjoint(kwm_device *d, int64_t n, int64_t width, const float *x, const float *g, const float *inv,
                         const float *sy, const float *more, float *sx, float *sg, float *scratch) {
  (void)d, (void)scratch;
  for (int64_t first = 0; first < width; first += COLUMNS)
    add_score(n, width, width - first < COLUMNS ? width - first : COLUMNS, x + first, inv, sy + first, sg + first);
  for (int64_t r = 0; r < n; r++) {
    const float *const from = x + r * width, *const score = sy + r * width;
    float *const to = sx + r * width;
    double sum = 0;
    for (int64_t k = 0; k < width; k++) sum += (double)(score[k] * g[k]) * (double)from[k];
    const float over = inv[r], along = (float)(sum / (double)width) * over * over;
    for (int64_t k = 0; k < width; k++)
      to[k] = over * (score[k] * g[k] - along * from[k]) + (more == NULL ? 0 : more[r * width + k]);
  }
}

static float share(float u) {
  return 0.5f * erfcf(-u * ROOT_HALF);
}

void tensor_gelu(kwm_device *d, int64_t n, const float *u, float *y) {
  (void)d;
  for (int64_t k = 0; k < n; k++) y[k] = u[k] * share(u[k]);
}

void tensor_gelu_adjoint(kwm_device *d, int64_t n, const float *u, const float *sy, float *su) {
  (void)d;
  for (int64_t k = 0; k < n; k++) su[k] = sy[k] * (share(u[k]) + u[k] * DENSITY_0 * expf(-0.5f * u[k] * u[k]));
}

void tensor_residual(kwm_device *d, int64_t n, int64_t width, const struct kwm_dropout *drop, const float *x,
                     const float *f, float *y) {
  (void)d;
  for (int64_t r = 0; r < n; r++)
    for (int64_t first = 0; first < width; first += 4) {
      float factors[4] = {1, 1, 1, 1};
      if (drop->rate > 0) tensor_keep4(drop, r, first / 4, factors);
      for (int64_t k = first; k < width && k < first + 4; k++) {
        const int64_t at = r * width + k;
        y[at] = (x == NULL ? 0 : x[at]) + f[at] * factors[k - first];
      }
    }
}
