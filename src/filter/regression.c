#include "kwm/regression.h"

#include <math.h>
#include <string.h>

kwm_status kwm_regression_create(struct kwm_regression *regression, int k, int d, double precision) {
  const int64_t width = k + d, numbers = k * width + (int64_t)d * d + width;
  memset(regression, 0, sizeof *regression);
  *regression = (struct kwm_regression){.k = k, .d = d};
  KWM_TRY(kwm_alloc((void **)&regression->U, (size_t)numbers * sizeof(double), "regression"));
  regression->squares = regression->U + k * width;
  regression->row = regression->squares + (int64_t)d * d;
  for (int i = 0; i < k; i++) regression->U[i * width + i] = sqrt(precision);
  return KWM_OK;
}

void kwm_regression_destroy(struct kwm_regression *regression) {
  kwm_free(regression->U);
  memset(regression, 0, sizeof *regression);
}

/* Rotates regression->row into [U b] from column `from` on; what is left of the targets adds to the residuals. */
static void absorb(struct kwm_regression *regression, int from) {
  const int k = regression->k, d = regression->d, width = k + d;
  double *const row = regression->row, *const left = row + k;
  for (int j = from; j < k; j++) {
    if (row[j] == 0) continue;
    double *const upper = regression->U + (int64_t)j * width;
    const double r = hypot(upper[j], row[j]), c = upper[j] / r, s = row[j] / r;
    for (int i = j; i < width; i++) {
      const double a = upper[i], b = row[i];
      upper[i] = c * a + s * b;
      row[i] = c * b - s * a;
    }
  }
  for (int i = 0; i < d; i++)
    for (int j = 0; j < d; j++) regression->squares[(int64_t)i * d + j] += left[i] * left[j];
}

void kwm_regression_add(struct kwm_regression *regression, const double *z, const double *target, double forgetting) {
  const int64_t k = regression->k, d = regression->d;
  if (forgetting < 1) {
    const double root = sqrt(forgetting);
    for (int64_t i = 0; i < k * (k + d); i++) regression->U[i] *= root;
    for (int64_t i = 0; i < d * d; i++) regression->squares[i] *= forgetting;
    regression->count *= forgetting;
  }
  memcpy(regression->row, z, (size_t)k * sizeof *z);
  memcpy(regression->row + k, target, (size_t)d * sizeof *target);
  absorb(regression, 0);
  regression->count++;
}

void kwm_regression_merge(struct kwm_regression *regression, const struct kwm_regression *other) {
  const int k = regression->k, d = regression->d, width = k + d;
  KWM_ASSERT(other->k == k && other->d == d);
  for (int j = 0; j < k; j++) {
    memset(regression->row, 0, (size_t)width * sizeof(double));
    memcpy(regression->row + j, other->U + (int64_t)j * width + j, (size_t)(width - j) * sizeof(double));
    absorb(regression, j);
  }
  for (int i = 0; i < d * d; i++) regression->squares[i] += other->squares[i];
  regression->count += other->count;
}

bool kwm_regression_solve(const struct kwm_regression *regression, double *K, double *variances) {
  const int k = regression->k, d = regression->d, width = k + d;
  for (int j = k - 1; j >= 0; j--) {
    const double *const row = regression->U + (int64_t)j * width;
    if (!(fabs(row[j]) > 0)) return false;
    for (int t = 0; t < d; t++) {
      double sum = row[k + t];
      for (int l = j + 1; l < k; l++) sum -= row[l] * K[(int64_t)t * k + l];
      K[(int64_t)t * k + j] = sum / row[j];
    }
  }
  if (variances == NULL) return true;
  /* diag Λ⁻¹ = row sums of squares of U⁻¹, column by column of it. */
  double *const column = regression->row;
  memset(variances, 0, (size_t)k * sizeof *variances);
  for (int c = 0; c < k; c++) {
    for (int j = c; j >= 0; j--) {
      const double *const row = regression->U + (int64_t)j * width;
      double sum = j == c;
      for (int l = j + 1; l <= c; l++) sum -= row[l] * column[l];
      column[j] = sum / row[j];
      variances[j] += column[j] * column[j];
    }
  }
  for (int t = d - 1; t >= 0; t--) {
    const double noise = regression->squares[(int64_t)t * d + t] / (regression->count > 1 ? regression->count : 1);
    for (int j = 0; j < k; j++) variances[(int64_t)t * k + j] = noise * variances[j]; /* row 0 last */
  }
  return true;
}

void kwm_regression_noise(const struct kwm_regression *regression, double *Q) {
  const int64_t square = (int64_t)regression->d * regression->d;
  const double left = regression->count - regression->k, dof = left > 1 ? left : 1;
  for (int64_t i = 0; i < square; i++) Q[i] = regression->squares[i] / dof;
}
