/* Reference mathematics: plain, dense, in double precision. */
#include "matrix.h"

#include <math.h>
#include <string.h>

#include "kwm/backend.h"

static void fill_nan(int64_t n, double *A) {
  for (int64_t k = 0; k < n; k++) A[k] = NAN;
}

double *mat_copy(struct theory *t, int64_t n, const double *A) {
  double *const copy = theory_new(t, n);
  memcpy(copy, A, (size_t)n * sizeof *copy);
  return copy;
}

double *mat_identity(struct theory *t, int64_t n, double scale) {
  double *const I = theory_new(t, n * n);
  for (int64_t k = 0; k < n; k++) I[k * n + k] = scale;
  return I;
}

double *mat_transpose(struct theory *t, int64_t m, int64_t n, const double *A) {
  double *const T = theory_new(t, m * n);
  for (int64_t i = 0; i < m; i++)
    for (int64_t j = 0; j < n; j++) T[j * m + i] = A[i * n + j];
  return T;
}

double *mat_product(struct theory *t, bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k,
                    const double *A, const double *B) {
  double *const C = theory_new(t, m * n);
  kwm_gemm_f64(transpose_a, transpose_b, m, n, k, 1, A, transpose_a ? m : k, B, transpose_b ? k : n, 0, C, n);
  return C;
}

double *mat_gram(struct theory *t, int64_t m, int64_t n, const double *H) {
  return mat_product(t, true, false, n, n, m, H, H);
}

double *mat_between(struct theory *t, int64_t m, int64_t n, const double *A, const double *P) {
  return mat_product(t, false, true, m, m, n, mat_product(t, false, false, m, n, n, A, P), A);
}

double *mat_sum(struct theory *t, int64_t n, double a, const double *A, double b, const double *B) {
  double *const C = theory_new(t, n);
  for (int64_t k = 0; k < n; k++) C[k] = a * A[k] + b * B[k];
  return C;
}

double *mat_inverse(struct theory *t, int64_t n, const double *A) {
  double *const B = mat_identity(t, n, 1);
  const int64_t mark = t->used;
  if (!kwm_solve_f64(n, n, mat_copy(t, n * n, A), B)) fill_nan(n * n, B);
  t->used = mark;
  return B;
}

double *mat_transition(struct theory *t, int64_t m, int64_t n, const double *K, const double *H) {
  double *const A = mat_product(t, false, false, n, n, m, K, H);
  for (int64_t k = 0; k < n * n; k++) A[k] = (k % (n + 1) == 0) - A[k];
  return A;
}

double *mat_cholesky(struct theory *t, int64_t n, const double *A) {
  double *const L = mat_copy(t, n * n, A);
  if (!kwm_cholesky_f64(n, L, n)) fill_nan(n * n, L);
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = i + 1; j < n; j++) L[i * n + j] = 0;
  return L;
}

double *mat_eigenvalues(struct theory *t, int64_t n, const double *A, double *vectors) {
  double *const values = theory_new(t, n), *const V = vectors != NULL ? vectors : theory_new(t, n * n);
  memcpy(V, A, (size_t)(n * n) * sizeof *V);
  bool finite = true;
  for (int64_t k = 0; k < n * n; k++) finite = finite && isfinite(A[k]);
  if (!finite || !kwm_eigen_f64(n, V, values)) fill_nan(n, values);
  return values;
}

double *mat_poles(struct theory *t, int64_t n, const double *A) {
  double *const poles = theory_new(t, 2 * n);
  bool finite = true;
  for (int64_t k = 0; k < n * n; k++) finite = finite && isfinite(A[k]);
  if (!finite || !kwm_poles_f64(n, mat_copy(t, n * n, A), poles, poles + n)) fill_nan(2 * n, poles);
  return poles;
}

double mat_radius(struct theory *t, int64_t n, const double *A) {
  const int64_t mark = t->used;
  const double *const poles = mat_poles(t, n, A);
  double radius = isnan(poles[0]) ? NAN : 0;
  for (int64_t k = 0; k < n; k++)
    if (hypot(poles[k], poles[n + k]) > radius) radius = hypot(poles[k], poles[n + k]);
  t->used = mark;
  return radius;
}

double mat_worse(double a, double b) {
  return a >= b || isnan(a) ? a : b;
}

double mat_trace(int64_t n, const double *A) {
  double sum = 0;
  for (int64_t k = 0; k < n; k++) sum += A[k * n + k];
  return sum;
}

double mat_dot(int64_t n, const double *a, const double *b) {
  double sum = 0;
  for (int64_t k = 0; k < n; k++) sum += a[k] * b[k];
  return sum;
}

double mat_norm(int64_t n, const double *A) {
  return sqrt(mat_dot(n, A, A));
}

double mat_norm2(struct theory *t, int64_t m, int64_t n, const double *A) {
  const int64_t mark = t->used;
  const double largest = mat_eigenvalues(t, n, mat_gram(t, m, n, A), NULL)[n - 1];
  t->used = mark;
  return sqrt(largest);
}

double mat_distance(int64_t n, const double *A, const double *B) {
  double sum = 0;
  for (int64_t k = 0; k < n; k++) sum += (A[k] - B[k]) * (A[k] - B[k]);
  return sqrt(sum) / mat_norm(n, B);
}

double mat_form(struct theory *t, int64_t n, const double *M, const double *a) {
  const int64_t mark = t->used;
  const double form = mat_dot(n, a, mat_product(t, false, false, n, 1, n, M, a));
  t->used = mark;
  return form;
}
