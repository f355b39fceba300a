#include "root.h"

#include <math.h>
#include <string.h>

void root_add(int N, double *Y, int from, double *v) {
  for (int j = from; j < N; j++) {
    if (v[j] == 0) continue;
    double *const column = Y + (int64_t)j * N;
    const double r = hypot(column[j], v[j]), c = column[j] / r, s = v[j] / r;
    for (int i = j; i < N; i++) {
      const double y = column[i], t = v[i];
      column[i] = c * y + s * t;
      v[i] = c * t - s * y;
    }
  }
}

void root_project(int N, const double *Y, int from, const double *h, double *f) {
  for (int j = 0; j < N; j++) {
    const double *const column = Y + (int64_t)j * N;
    double sum = 0;
    for (int i = j > from ? j : from; i < N; i++) sum += column[i] * h[i];
    f[j] = sum;
  }
}

void root_apply(int N, const double *Y, const double *a, double *v) {
  memset(v, 0, (size_t)N * sizeof *v);
  for (int j = 0; j < N; j++) {
    const double *const column = Y + (int64_t)j * N;
    for (int i = j; i < N; i++) v[i] += column[i] * a[j];
  }
}

void root_observe(int N, double *Y, int from, const double *h, double *f, double *b) {
  double alpha = 1;
  root_project(N, Y, from, h, f);
  memset(b, 0, (size_t)N * sizeof *b);
  for (int j = N - 1; j >= 0; j--) {
    if (f[j] == 0) continue;
    double *const column = Y + (int64_t)j * N;
    const double next = alpha + f[j] * f[j], beta = sqrt(alpha / next), gamma = f[j] / sqrt(alpha * next);
    const double fj = f[j];
    for (int i = j; i < N; i++) {
      const double t = column[i];
      column[i] = beta * t - gamma * b[i];
      b[i] += fj * t;
    }
    alpha = next;
  }
}

/* Reflects row `i` from column i on to (norm, 0, ...), and the rows below with it. */
static void reflect(int d, int k, double *A, int i) {
  double *const row = A + (int64_t)i * k;
  double squares = 0;
  for (int j = i + 1; j < k; j++) squares += row[j] * row[j];
  if (squares > 0) {
    const double norm = sqrt(row[i] * row[i] + squares), head = row[i] > 0 ? row[i] + norm : row[i] - norm;
    const double scale = 2 / (head * head + squares), image = row[i] > 0 ? -norm : norm;
    row[i] = head;
    for (int l = i + 1; l < d; l++) {
      double *const other = A + (int64_t)l * k;
      double dot = 0;
      for (int j = i; j < k; j++) dot += row[j] * other[j];
      dot *= scale;
      for (int j = i; j < k; j++) other[j] -= dot * row[j];
    }
    row[i] = image;
    memset(row + i + 1, 0, (size_t)(k - i - 1) * sizeof *row);
  }
  if (row[i] >= 0) return;
  for (int l = i; l < d; l++) A[(int64_t)l * k + i] = -A[(int64_t)l * k + i];
}

void root_lower(int d, int k, double *A) {
  for (int i = 0; i < d; i++) reflect(d, k, A, i);
}

bool root_cholesky(int m, double *A) {
  for (int j = 0; j < m; j++)
    for (int i = j; i < m; i++) {
      double sum = A[(int64_t)i * m + j];
      for (int l = 0; l < j; l++) sum -= A[(int64_t)i * m + l] * A[(int64_t)j * m + l];
      if (i == j && !(sum > 0)) return false;
      A[(int64_t)i * m + j] = i == j ? sqrt(sum) : sum / A[(int64_t)j * m + j];
    }
  return true;
}

void root_forward(int m, const double *L, double *x) {
  for (int i = 0; i < m; i++) {
    double sum = x[i];
    for (int j = 0; j < i; j++) sum -= L[(int64_t)i * m + j] * x[j];
    x[i] = sum / L[(int64_t)i * m + i];
  }
}

void root_backward(int m, const double *L, double *x) {
  for (int i = m - 1; i >= 0; i--) {
    double sum = x[i];
    for (int j = i + 1; j < m; j++) sum -= L[(int64_t)j * m + i] * x[j];
    x[i] = sum / L[(int64_t)i * m + i];
  }
}
