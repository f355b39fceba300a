#include "dense.h"

double *dense_new(int64_t n) {
  double *const array = calloc((size_t)(n > 0 ? n : 1), sizeof *array);
  assert_non_null(array);
  return array;
}

double *dense_copy(int64_t n, const double *from) {
  double *const array = dense_new(n);
  memcpy(array, from, (size_t)n * sizeof *array);
  return array;
}

void dense_multiply(int64_t m, int64_t n, int64_t k, const double *A, const double *B, double *C) {
  memset(C, 0, (size_t)(m * n) * sizeof *C);
  for (int64_t i = 0; i < m; i++)
    for (int64_t l = 0; l < k; l++)
      for (int64_t j = 0; j < n; j++) C[i * n + j] += A[i * k + l] * B[l * n + j];
}

void dense_transpose(int64_t m, int64_t n, const double *A, double *B) {
  for (int64_t i = 0; i < m; i++)
    for (int64_t j = 0; j < n; j++) B[j * m + i] = A[i * n + j];
}

static void dense_swap_rows(int64_t n, double *A, int64_t a, int64_t b) {
  for (int64_t j = 0; j < n; j++) {
    const double keep = A[a * n + j];
    A[a * n + j] = A[b * n + j];
    A[b * n + j] = keep;
  }
}

void dense_invert(int64_t n, double *A) {
  double *const B = dense_new(n * n);
  for (int64_t k = 0; k < n; k++) B[k * n + k] = 1;
  for (int64_t k = 0; k < n; k++) {
    int64_t pivot = k;
    for (int64_t i = k + 1; i < n; i++)
      if (fabs(A[i * n + k]) > fabs(A[pivot * n + k])) pivot = i;
    assert_true(A[pivot * n + k] != 0);
    dense_swap_rows(n, A, k, pivot);
    dense_swap_rows(n, B, k, pivot);
    const double scale = 1 / A[k * n + k];
    for (int64_t j = 0; j < n; j++) A[k * n + j] *= scale, B[k * n + j] *= scale;
    for (int64_t i = 0; i < n; i++) {
      const double factor = A[i * n + k];
      if (i == k || factor == 0) continue;
      for (int64_t j = 0; j < n; j++) A[i * n + j] -= factor * A[k * n + j], B[i * n + j] -= factor * B[k * n + j];
    }
  }
  memcpy(A, B, (size_t)(n * n) * sizeof *A);
  free(B);
}

void dense_cholesky(int64_t n, double *A) {
  for (int64_t j = 0; j < n; j++) {
    for (int64_t i = j; i < n; i++) {
      double sum = A[i * n + j];
      for (int64_t l = 0; l < j; l++) sum -= A[i * n + l] * A[j * n + l];
      if (i == j) assert_true(sum > 0);
      A[i * n + j] = i == j ? sqrt(sum) : sum / A[j * n + j];
    }
    for (int64_t i = 0; i < j; i++) A[i * n + j] = 0;
  }
}

void dense_eigenvectors(int64_t n, double *A, double *E) {
  for (int64_t k = 0; k < n * n; k++) E[k] = k % (n + 1) == 0;
  for (int sweep = 0; sweep < 50; sweep++)
    for (int64_t p = 0; p < n; p++)
      for (int64_t q = p + 1; q < n; q++) {
        if (A[p * n + q] == 0) continue;
        const double angle = 0.5 * atan2(2 * A[p * n + q], A[q * n + q] - A[p * n + p]);
        const double c = cos(angle), s = sin(angle);
        for (int64_t i = 0; i < n; i++) {
          const double a = A[i * n + p], b = A[i * n + q], u = E[i * n + p], v = E[i * n + q];
          A[i * n + p] = c * a - s * b, A[i * n + q] = s * a + c * b;
          E[i * n + p] = c * u - s * v, E[i * n + q] = s * u + c * v;
        }
        for (int64_t j = 0; j < n; j++) {
          const double a = A[p * n + j], b = A[q * n + j];
          A[p * n + j] = c * a - s * b, A[q * n + j] = s * a + c * b;
        }
      }
}

void dense_predict(int64_t n, double *P, const double *prior, double lambda, double q) {
  dense_invert(n, P);
  for (int64_t k = 0; k < n * n; k++) P[k] *= lambda;
  for (int64_t k = 0; k < n; k++) P[k * n + k] += (1 - lambda) / prior[k];
  dense_invert(n, P);
  for (int64_t k = 0; k < n; k++) P[k * n + k] += q * prior[k];
}

void dense_innovation_covariance(int64_t n, int64_t m, const double *P, const double *H, double *S) {
  double *const Ht = dense_new(n * m), *const PHt = dense_new(n * m);
  dense_transpose(m, n, H, Ht);
  dense_multiply(n, m, n, P, Ht, PHt);
  dense_multiply(m, m, n, H, PHt, S);
  for (int64_t k = 0; k < m; k++) S[k * m + k] += 1;
  free(Ht), free(PHt);
}

void dense_update(int64_t n, int64_t m, double *P, const double *H, const double *e, double *delta) {
  double *const S = dense_new(m * m), *const Ht = dense_new(n * m), *const PHt = dense_new(n * m);
  double *const K = dense_new(n * m), *const HP = dense_new(n * m), *const KHP = dense_new(n * n);
  dense_innovation_covariance(n, m, P, H, S);
  dense_invert(m, S);
  dense_transpose(m, n, H, Ht);
  dense_multiply(n, m, n, P, Ht, PHt);
  dense_multiply(n, m, m, PHt, S, K);
  dense_multiply(n, 1, m, K, e, delta);
  dense_transpose(n, m, PHt, HP);
  dense_multiply(n, n, m, K, HP, KHP);
  for (int64_t k = 0; k < n * n; k++) P[k] -= KHP[k];
  free(S), free(Ht), free(PHt), free(K), free(HP), free(KHP);
}

void dense_decouple(int64_t n, int64_t p, double *P) {
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = 0; j < n; j++)
      if (i / p != j / p) P[i * n + j] = 0;
}

double dense_trace(int64_t n, const double *P) {
  double sum = 0;
  for (int64_t k = 0; k < n; k++) sum += P[k * n + k];
  return sum;
}

double test_normal(uint64_t what, int64_t index) {
  return kwm_rng_normal(7, KWM_RNG_TEST, what, (uint64_t)index);
}
