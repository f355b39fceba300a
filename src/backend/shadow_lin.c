/* The shadow device's matrix algebra, elementwise loops and products of Jacobians (src/lin/jac.c). */
#include "shadow.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kwm/backend.h"

enum { PARAMS_MAX = 16, PACKED_MAX = PARAMS_MAX * (PARAMS_MAX + 1) / 2 };

void shadow_gemm(kwm_device *d, bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, float alpha,
                 const float *A, int64_t lda, const float *B, int64_t ldb, float beta, float *C, int64_t ldc) {
  const float *const left = SHADOW_MATRIX(d, A, transpose_a ? k : m, transpose_a ? m : k, lda);
  const float *const right = SHADOW_MATRIX(d, B, transpose_b ? n : k, transpose_b ? k : n, ldb);
  kwm_gemm(transpose_a, transpose_b, m, n, k, alpha, left, lda, right, ldb, beta, SHADOW_MATRIX(d, C, m, n, ldc), ldc);
}

/* What was begun, and what of it may not change meanwhile. */
struct eigen {
  struct kwm_device_eigen of;
  bool good;
  float *A;  /* (n, n) as it was */
  double *W; /* (n, n) + (n) */
};

void *shadow_eigen_begin(kwm_device *d, const struct kwm_device_eigen *of) {
  const int64_t n = of->n;
  const float *const from = shadow_array(d, of->A, n * n, sizeof *from);
  struct eigen *const begun = malloc(sizeof *begun);
  float *const A = malloc((size_t)(n * n) * sizeof *A);
  double *const W = malloc((size_t)(n * n + n) * sizeof *W);
  if (begun == NULL || A == NULL || W == NULL) {
    free(begun), free(A), free(W);
    return NULL;
  }
  *begun = (struct eigen){*of, true, A, W};
  memcpy(A, from, (size_t)(n * n) * sizeof *A);
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = i; j < n; j++) {
      W[i * n + j] = (double)A[i * n + j];
      begun->good = begun->good && isfinite(A[i * n + j]);
    }
  begun->good = begun->good && kwm_eigen_f64(n, W, W + n * n);
  return begun;
}

bool shadow_eigen_end(kwm_device *d, void *at) {
  struct eigen *const begun = at;
  if (begun == NULL) return false;
  const int64_t n = begun->of.n;
  const bool good = begun->good;
  const float *const now = shadow_array(d, begun->of.A, n * n, sizeof *now);
  float *const V = shadow_array(d, begun->of.V, n * n, sizeof *V);
  KWM_ASSERT(memcmp(now, begun->A, (size_t)(n * n) * sizeof *now) == 0 && "a matrix as it was begun with");
  for (int64_t k = 0; k < n * n && good; k++) V[k] = (float)begun->W[k];
  free(begun->A), free(begun->W), free(begun);
  shadow_wait(d);
  return good;
}

void shadow_gemm_f64(kwm_device *d, bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, double alpha,
                     const double *A, int64_t lda, const double *B, int64_t ldb, double beta, double *C, int64_t ldc) {
  const double *const left = SHADOW_MATRIX(d, A, transpose_a ? k : m, transpose_a ? m : k, lda);
  const double *const right = SHADOW_MATRIX(d, B, transpose_b ? n : k, transpose_b ? k : n, ldb);
  kwm_gemm_f64(transpose_a, transpose_b, m, n, k, alpha, left, lda, right, ldb, beta, SHADOW_MATRIX(d, C, m, n, ldc),
               ldc);
}

void shadow_gram_f64(kwm_device *d, int64_t n, int64_t k, double alpha, const double *A, double beta, double *C) {
  kwm_gram_f64(n, k, alpha, shadow_array(d, A, k * n, sizeof *A), n, beta, shadow_array(d, C, n * n, sizeof *C), n);
}

void shadow_symm_f64(kwm_device *d, int64_t m, int64_t n, const double *A, const double *B, double *C) {
  kwm_symm_f64(m, n, 1, shadow_array(d, A, n * n, sizeof *A), n, shadow_array(d, B, m * n, sizeof *B), n, 0,
               shadow_array(d, C, m * n, sizeof *C), n);
}

/* What nobody may read is not a number. */
void shadow_gemmt_f64(kwm_device *d, int64_t m, int64_t k, const double *A, const double *B, double beta, double *C) {
  double *const to = shadow_array(d, C, m * m, sizeof *C);
  kwm_gemm_f64(false, true, m, m, k, 1, shadow_array(d, A, m * k, sizeof *A), k, shadow_array(d, B, m * k, sizeof *B),
               k, beta, to, m);
  for (int64_t i = 0; i < m; i++)
    for (int64_t j = i + 1; j < m; j++) to[i * m + j] = NAN;
}

void shadow_solve_lower_f64(kwm_device *d, int64_t n, int64_t k, const double *L, double *B) {
  kwm_triangular_solve_f64(n, k, shadow_array(d, L, n * n, sizeof *L), n, shadow_array(d, B, n * k, sizeof *B), k);
}

bool shadow_factor_f64(kwm_device *d, int64_t n, double *W) {
  shadow_wait(d);
  return kwm_factor_f64(n, shadow_array(d, W, n * n, sizeof *W), n);
}

bool shadow_factor_solve_f64(kwm_device *d, int64_t n, double *S, double *x, double *x_host) {
  double *const L = shadow_array(d, S, n * n, sizeof *S), *const values = shadow_array(d, x, n, sizeof *x);
  shadow_wait(d);
  if (!kwm_cholesky_f64(n, L, n)) return false;
  kwm_cholesky_solve_f64(n, L, n, values);
  memcpy(x_host, values, (size_t)n * sizeof *values);
  return true;
}

void shadow_add_scaled(kwm_device *d, int64_t n, float scale, const float *x, float *y) {
  const float *const from = shadow_array(d, x, n, sizeof *x);
  float *const to = shadow_array(d, y, n, sizeof *y);
  for (int64_t k = 0; k < n; k++) to[k] = scale * from[k] + to[k];
}

void shadow_square(kwm_device *d, int64_t n, float *x) {
  float *const values = shadow_array(d, x, n, sizeof *x);
  for (int64_t k = 0; k < n; k++) values[k] *= values[k];
}

void shadow_column_dots(kwm_device *d, int64_t n, int64_t width, const float *x, const float *y, float *dots) {
  const float *const left = shadow_array(d, x, n * width, sizeof *x);
  const float *const right = shadow_array(d, y, n * width, sizeof *y);
  float *const to = shadow_array(d, dots, width, sizeof *dots);
  for (int64_t k = 0; k < width; k++) {
    double sum = 0;
    for (int64_t row = 0; row < n; row++) sum += (double)left[row * width + k] * (double)right[row * width + k];
    to[k] = (float)sum;
  }
}

void shadow_add_squares(kwm_device *d, int64_t n, int64_t width, const float *rows, float *sums) {
  const float *const from = shadow_array(d, rows, n * width, sizeof *rows);
  float *const to = shadow_array(d, sums, width, sizeof *sums);
  for (int64_t k = 0; k < width; k++) {
    double sum = 0;
    for (int64_t row = 0; row < n; row++) sum += (double)from[row * width + k] * (double)from[row * width + k];
    to[k] += (float)sum;
  }
}

void shadow_mirror(kwm_device *d, int64_t n, float *C) {
  kwm_mirror(n, shadow_array(d, C, n * n, sizeof *C), n);
}

/* One unit's sums over samples: the packed triangle of HᵀH, and Hᵀe. */
struct unit_sums {
  double F[PACKED_MAX], s[PARAMS_MAX];
};

/* sums += sample i of unit u: S (2, p) between the outputs' rows J (m, 2). */
static void add_sample(const struct kwm_device_units *units, int64_t i, int64_t u, struct unit_sums *sums) {
  const int64_t m = units->m, count = units->count, p = units->params;
  double rr = 0, ri = 0, ii = 0, cr = 0, ci = 0;
  for (int64_t r = 0; r < m; r++) {
    const double re = (double)units->J[((i * m + r) * 2) * count + u];
    const double im = (double)units->J[((i * m + r) * 2 + 1) * count + u], e = (double)units->e[i * m + r];
    rr += re * re, ri += re * im, ii += im * im, cr += re * e, ci += im * e;
  }
  const float *const S = units->S + i * 2 * p * count + u;
  int64_t index = 0;
  for (int64_t k = 0; k < p; k++) {
    const double a = (double)S[k * count], b = (double)S[(p + k) * count];
    sums->s[k] += cr * a + ci * b;
    for (int64_t l = k; l < p; l++, index++) {
      const double c = (double)S[l * count], z = (double)S[(p + l) * count];
      sums->F[index] += (rr * a + ri * b) * c + (ri * a + ii * b) * z;
    }
  }
}

static struct kwm_device_units opened(kwm_device *d, const struct kwm_device_units *units) {
  const int64_t n = units->n, m = units->m;
  KWM_ASSERT(units->params <= PARAMS_MAX);
  struct kwm_device_units open = *units;
  open.J = shadow_array(d, units->J, n * m * 2 * units->count, sizeof *units->J);
  open.S = shadow_array(d, units->S, n * 2 * units->params * units->count, sizeof *units->S);
  open.e = shadow_array(d, units->e, n * m, sizeof *units->e);
  return open;
}

void shadow_units_fisher(kwm_device *d, const struct kwm_device_units *units, float *F, float *s) {
  const int64_t p = units->params, count = units->count, packed = p * (p + 1) / 2;
  const struct kwm_device_units open = opened(d, units);
  float *const to_F = shadow_array(d, F, packed * count, sizeof *F), *const to_s =
                                                                         shadow_array(d, s, p * count, sizeof *s);
  for (int64_t u = 0; u < count; u++) {
    struct unit_sums sums = {{0}, {0}};
    for (int64_t i = 0; i < units->n; i++) add_sample(&open, i, u, &sums);
    for (int64_t k = 0; k < packed; k++) to_F[k * count + u] += (float)sums.F[k];
    for (int64_t k = 0; k < p; k++) to_s[k * count + u] += (float)sums.s[k];
  }
}

void shadow_units_diagonal(kwm_device *d, const struct kwm_device_units *units, float *f, float *s) {
  const int64_t p = units->params, count = units->count;
  const struct kwm_device_units open = opened(d, units);
  float *const to_f = shadow_array(d, f, p * count, sizeof *f), *const to_s = shadow_array(d, s, p * count, sizeof *s);
  for (int64_t u = 0; u < count; u++) {
    struct unit_sums sums = {{0}, {0}};
    for (int64_t i = 0; i < units->n; i++) add_sample(&open, i, u, &sums);
    int64_t diagonal = 0;
    for (int64_t k = 0; k < p; diagonal += p - k, k++) {
      to_f[k * count + u] += (float)sums.F[diagonal];
      to_s[k * count + u] += (float)sums.s[k];
    }
  }
}

void shadow_output_score(kwm_device *d, int64_t n, int64_t m, int64_t w, const float *e, const float *J, float *g) {
  const float *const errors = shadow_array(d, e, n * m, sizeof *e);
  const float *const rows = shadow_array(d, J, n * m * w, sizeof *J);
  float *const to = shadow_array(d, g, n * w, sizeof *g);
  for (int64_t i = 0; i < n; i++)
    for (int64_t k = 0; k < w; k++) {
      double sum = 0;
      for (int64_t r = 0; r < m; r++) sum += (double)errors[i * m + r] * (double)rows[(i * m + r) * w + k];
      to[i * w + k] = (float)sum;
    }
}

void shadow_output_squares(kwm_device *d, int64_t n, int64_t m, int64_t w, const float *J, float *squares) {
  const float *const rows = shadow_array(d, J, n * m * w, sizeof *J);
  float *const to = shadow_array(d, squares, n * w, sizeof *squares);
  for (int64_t i = 0; i < n; i++)
    for (int64_t k = 0; k < w; k++) {
      double sum = 0;
      for (int64_t r = 0; r < m; r++) sum += (double)rows[(i * m + r) * w + k] * (double)rows[(i * m + r) * w + k];
      to[i * w + k] = (float)sum;
    }
}

void shadow_add_diagonal(kwm_device *d, int64_t n, double value, double *A) {
  double *const to = shadow_array(d, A, n * n, sizeof *A);
  for (int64_t k = 0; k < n; k++) to[k * n + k] += value;
}

void shadow_add_f64(kwm_device *d, int64_t n, const double *x, double *y) {
  const double *const from = shadow_array(d, x, n, sizeof *x);
  double *const to = shadow_array(d, y, n, sizeof *y);
  for (int64_t k = 0; k < n; k++) to[k] += from[k];
}
