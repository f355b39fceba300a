/* A device's matrix algebra, elementwise kernels and products of Jacobians give what the host's give. */
#include "device_case.h"

#include "kwm/backend.h"
#include "kwm/lin.h"

static const double CLOSE = 1e-5, EXACT = 1e-13;

/* op(A) (m, k) op(B) (k, n) in double precision. */
static double element(const int64_t *size, bool ta, bool tb, const double *A, int64_t lda, const double *B, int64_t ldb,
                      int64_t i, int64_t j) {
  double sum = 0;
  for (int64_t l = 0; l < size[2]; l++) sum += A[ta ? l * lda + i : i * lda + l] * B[tb ? j * ldb + l : l * ldb + j];
  return sum;
}

/* beta 0 takes no notice of what was there. */
static void check_gemm(struct device_case *c, const int64_t *size, bool ta, bool tb, float beta, int64_t pad) {
  const int64_t m = size[0], n = size[1], k = size[2], ldc = n + pad;
  const int64_t lda = (ta ? m : k) + pad, ldb = (tb ? k : n) + pad, na = (ta ? k : m) * lda, nb = (tb ? n : k) * ldb;
  float *const A = case_normals(c, na, 1, 1), *const B = case_normals(c, nb, 2, 1), *C = case_normals(c, m * ldc, 3, 1);
  double *const wa = case_wide(c, na, A), *const wb = case_wide(c, nb, B), *const wanted = case_wide(c, m * ldc, C);
  for (int64_t i = 0; i < m; i++)
    for (int64_t j = 0; j < n; j++) {
      const double found = 0.5 * element(size, ta, tb, wa, lda, wb, ldb, i, j);
      wanted[i * ldc + j] = found + (beta == 0 ? 0 : (double)beta * wanted[i * ldc + j]);
      if (beta == 0) C[i * ldc + j] = NAN;
    }
  float *const to = case_copy(c, m * ldc, C);
  kwm_device_gemm(c->device, ta, tb, m, n, k, 0.5f, case_copy(c, na, A), lda, case_copy(c, nb, B), ldb, beta, to, ldc);
  assert_floats(c, m * ldc, to, wanted, CLOSE);
}

static void body_gemm(struct device_case *c, const int64_t *size) {
  check_gemm(c, size, false, false, 0, 0);
  check_gemm(c, size, false, true, 1, 0);
  check_gemm(c, size, true, false, -0.5f, 3);
  check_gemm(c, size, true, true, 0, 5);
}

static void test_gemm(void **state) {
  (void)state;
  static const int64_t sizes[][4] = {{1, 1, 1},   {3, 1, 16},     {16, 33, 100}, {100, 10, 257},
                                     {33, 65, 3}, {10, 10, 1000}, {90, 140, 350}};
  case_run_all(body_gemm, sizes);
}

static void check_gemm_f64(struct device_case *c, const int64_t *size, bool ta, bool tb, double beta) {
  const int64_t m = size[0], n = size[1], k = size[2], lda = (ta ? m : k) + 2, ldb = (tb ? k : n) + 1, ldc = n + 3;
  const int64_t na = (ta ? k : m) * lda, nb = (tb ? n : k) * ldb;
  double *const A = case_wide(c, na, case_normals(c, na, 1, 1)), *const B = case_wide(c, nb, case_normals(c, nb, 2, 1));
  double *const wanted = case_wide(c, m * ldc, case_normals(c, m * ldc, 3, 1));
  double *const to = case_copy(c, m * ldc, wanted);
  for (int64_t i = 0; i < m; i++)
    for (int64_t j = 0; j < n; j++)
      wanted[i * ldc + j] = 2 * element(size, ta, tb, A, lda, B, ldb, i, j) + beta * wanted[i * ldc + j];
  c->device->ops->gemm_f64(c->device, ta, tb, m, n, k, 2, case_copy(c, na, A), lda, case_copy(c, nb, B), ldb, beta, to,
                           ldc);
  assert_doubles(c, m * ldc, to, wanted, EXACT);
}

static void body_gemm_f64(struct device_case *c, const int64_t *size) {
  check_gemm_f64(c, size, false, false, 0);
  check_gemm_f64(c, size, false, true, 1);
  check_gemm_f64(c, size, true, false, -1);
  check_gemm_f64(c, size, true, true, 0.25);
}

static void test_gemm_f64(void **state) {
  (void)state;
  static const int64_t sizes[][4] = {{1, 1, 1}, {3, 33, 16}, {100, 10, 57}, {10, 17, 2100}, {100, 150, 300}};
  case_run_all(body_gemm_f64, sizes);
}

/* Upper triangle only: the rest stays as it was. */
static void body_gram(struct device_case *c, const int64_t *size) {
  const int64_t n = size[0], k = size[1];
  double *const A = case_wide(c, k * n, case_normals(c, k * n, 1, 1));
  double *const wanted = case_wide(c, n * n, case_normals(c, n * n, 2, 1)), *const to = case_copy(c, n * n, wanted);
  const int64_t shape[] = {n, n, k};
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = i; j < n; j++)
      wanted[i * n + j] = 0.5 * element(shape, true, false, A, n, A, n, i, j) + 2 * wanted[i * n + j];
  c->device->ops->gram_f64(c->device, n, k, 0.5, case_copy(c, k * n, A), 2, to);
  assert_doubles(c, n * n, to, wanted, EXACT);
}

/* The upper triangle is read; NaN below must not matter. */
static void body_symm(struct device_case *c, const int64_t *size) {
  const int64_t n = size[0], m = size[1];
  double *const A = case_wide(c, n * n, case_normals(c, n * n, 1, 1));
  double *const B = case_wide(c, m * n, case_normals(c, m * n, 2, 1)), *const wanted = case_host(c, m * n, sizeof *B);
  for (int64_t i = 0; i < m; i++)
    for (int64_t j = 0; j < n; j++)
      for (int64_t l = 0; l < n; l++) wanted[i * n + j] += B[i * n + l] * A[l < j ? l * n + j : j * n + l];
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = 0; j < i; j++) A[i * n + j] = NAN;
  double *const to = case_doubles(c, m * n);
  c->device->ops->symm_f64(c->device, m, n, case_copy(c, n * n, A), case_copy(c, m * n, B), to);
  assert_doubles(c, m * n, to, wanted, EXACT);
}

/* Z Hᵀ for Z = H A is symmetric: its lower triangle, added to what is there or not. */
static void body_gemmt(struct device_case *c, const int64_t *size) {
  const int64_t k = size[0], m = size[1];
  double *const A = case_wide(c, m * k, case_normals(c, m * k, 1, 1)), *const B = case_host(c, m * k, sizeof *B);
  double *const C = case_wide(c, m * m, case_normals(c, m * m, 2, 1)), *const wanted = case_host(c, m * m, sizeof *C);
  for (int64_t i = 0; i < m * k; i++) B[i] = A[i] * (1 + (double)(i % k) / (double)k);
  for (int beta = 0; beta < 2; beta++) {
    double *const to = case_copy(c, m * m, C);
    c->device->ops->gemmt_f64(c->device, m, k, case_copy(c, m * k, A), case_copy(c, m * k, B), beta, to);
    double *const found = case_host(c, m * m, sizeof *found);
    const double *const got = case_get(c, m * m, sizeof *got, to);
    for (int64_t i = 0; i < m; i++)
      for (int64_t j = 0; j <= i; j++) {
        found[i * m + j] = got[i * m + j];
        wanted[i * m + j] = beta * C[i * m + j];
        for (int64_t l = 0; l < k; l++) wanted[i * m + j] += A[i * k + l] * B[j * k + l];
      }
    assert_below(dense_error(m * m, found, wanted), 1e-12);
  }
}

/* L times the solution is what was there; NaN above L's diagonal must not matter. */
static void body_solve(struct device_case *c, const int64_t *size) {
  const int64_t n = size[0], k = size[1];
  double *const L = case_wide(c, n * n, case_normals(c, n * n, 1, 0.5 / sqrt((double)n)));
  double *const B = case_wide(c, n * k, case_normals(c, n * k, 2, 1)), *const found = case_host(c, n * k, sizeof *B);
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = i; j < n; j++) L[i * n + j] = j == i ? 1 + fabs(L[i * n + i]) : NAN;
  double *const to = case_copy(c, n * k, B);
  c->device->ops->solve_lower_f64(c->device, n, k, case_copy(c, n * n, L), to);
  const double *const X = case_get(c, n * k, sizeof *X, to);
  for (int64_t i = 0; i < n; i++)
    for (int64_t l = 0; l <= i; l++)
      for (int64_t j = 0; j < k; j++) found[i * k + j] += L[i * n + l] * X[l * k + j];
  assert_below(dense_error(n * k, found, B), 1e-12);
}

static void test_algebra_f64(void **state) {
  (void)state;
  static const int64_t sizes[][4] = {{1, 1},    {3, 16},   {33, 10},  {100, 3},   {65, 130},
                                     {300, 20}, {20, 420}, {450, 16}, {346, 112}, {130, 257}};
  case_run_all(body_gram, sizes);
  case_run_all(body_symm, sizes);
  case_run_all(body_gemmt, sizes);
  case_run_all(body_solve, sizes);
}

/* Positive definite, or not in its last number, or not finite there. */
static void body_factor(struct device_case *c, const int64_t *size) {
  const int64_t n = size[0], shape[] = {n, n, 2 * n};
  double *const A = case_wide(c, 2 * n * n, case_normals(c, 2 * n * n, 1, 1)), *const W =
                                                                                   case_host(c, n * n, sizeof *W);
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = i; j < n; j++) W[i * n + j] = element(shape, true, false, A, n, A, n, i, j);
  assert_true(c->device->ops->factor_f64(c->device, n, case_copy(c, n * n, W)));
  W[n * n - 1] = -1;
  assert_false(c->device->ops->factor_f64(c->device, n, case_copy(c, n * n, W)));
  W[n * n - 1] = NAN;
  assert_false(c->device->ops->factor_f64(c->device, n, case_copy(c, n * n, W)));
}

/* Only the lower triangle is read; x may be anything. */
static void body_factor_solve(struct device_case *c, const int64_t *size) {
  const int64_t n = size[0], shape[] = {n, n, 2 * n};
  double *const A = case_wide(c, 2 * n * n, case_normals(c, 2 * n * n, 1, 1));
  double *const S = case_host(c, n * n, sizeof *S), *const x = case_wide(c, n, case_normals(c, n, 2, 1));
  double *const b = case_host(c, n, sizeof *b), *const L = case_host(c, n * n, sizeof *L);
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = 0; j < n; j++) {
      const double value = element(shape, true, false, A, n, A, n, i < j ? i : j, i < j ? j : i) + (i == j ? 1 : 0);
      S[i * n + j] = L[i * n + j] = j > i ? NAN : value;
      b[i] += value * x[j];
    }
  assert_true(kwm_cholesky_f64(n, L, n));
  double *const there = case_copy(c, n * n, S), *const solved = case_copy(c, n, b);
  double *const on_host = case_host(c, n, sizeof *on_host);
  assert_true(c->device->ops->factor_solve_f64(c->device, n, there, solved, on_host));
  assert_doubles(c, n, solved, x, 1e-7);
  assert_doubles(c, n, solved, on_host, 0);
  const double *const found = case_get(c, n * n, sizeof *found, there);
  for (int64_t k = 0; k < n * n; k++)
    if (k % n <= k / n) assert_close(found[k], L[k], 1e-9, 1e-9);
  static const double bad[] = {-1, NAN};
  for (int k = 0; k < 2; k++) {
    S[n * n - 1] = bad[k];
    assert_false(c->device->ops->factor_solve_f64(c->device, n, case_copy(c, n * n, S), case_copy(c, n, b), on_host));
  }
}

static void test_factor(void **state) {
  (void)state;
  static const int64_t sizes[][4] = {{1}, {3}, {33}, {100}, {128}, {140}};
  case_run_all(body_factor, sizes);
  case_run_all(body_factor_solve, sizes);
}

/* All of them beside each other. */
static bool eigen(kwm_device *device, int count, const struct kwm_device_eigen *of) {
  void *begun[2];
  bool good = true;
  if (device->ops->eigen_wake != NULL) device->ops->eigen_wake(device, of[0].n);
  for (int k = 0; k < count; k++) begun[k] = device->ops->eigen_begin(device, &of[k]);
  for (int k = 0; k < count; k++) good = device->ops->eigen_end(device, begun[k]) && good;
  return good;
}

/* Orthonormal, A V = V diag(values), values ascending. Only A's upper triangle is read. */
static void body_eigen(struct device_case *c, const int64_t *size) {
  const int64_t n = size[0], shape[] = {n, n, n};
  float *const A = case_normals(c, n * n, 1, 1), *const to = case_floats(c, n * n), *const twin = case_floats(c, n * n);
  double *const whole = case_wide(c, n * n, A), *const one = case_host(c, n * n, sizeof *one);
  double *const gram = case_host(c, n * n, sizeof *gram), *const AV = case_host(c, n * n, sizeof *AV);
  double *const scaled = case_host(c, n * n, sizeof *scaled), last = -INFINITY;
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = 0; j < i; j++) A[i * n + j] = NAN, whole[i * n + j] = whole[j * n + i];
  const struct kwm_device_eigen problem = {n, case_copy(c, n * n, A), twin};
  assert_true(eigen(c->device, 1, &problem));
  const struct kwm_device_eigen both[] = {{n, problem.A, to}, problem};
  assert_true(eigen(c->device, 2, both));
  assert_same(c, n * n, twin, case_get(c, n * n, sizeof(float), to));
  const double *const V = case_wide(c, n * n, case_get(c, n * n, sizeof(float), to));
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = 0; j < n; j++) {
      one[i * n + j] = i == j;
      gram[i * n + j] = element(shape, true, false, V, n, V, n, i, j);
      AV[i * n + j] = element(shape, false, false, whole, n, V, n, i, j);
    }
  for (int64_t j = 0; j < n; j++) {
    double value = 0;
    for (int64_t i = 0; i < n; i++) value += V[i * n + j] * AV[i * n + j];
    for (int64_t i = 0; i < n; i++) scaled[i * n + j] = value * V[i * n + j];
    assert_true(value > last - 1e-4);
    last = value;
  }
  assert_below(dense_error(n * n, gram, one), CLOSE);
  assert_below(dense_error(n * n, AV, scaled), CLOSE);
}

static void body_eigen_refused(struct device_case *c, const int64_t *size) {
  const int64_t n = size[0];
  float *const A = case_normals(c, n * n, 1, 1);
  static const float bad[] = {NAN, INFINITY};
  const struct kwm_device_eigen good = {n, case_copy(c, n * n, A), case_floats(c, n * n)};
  for (int k = 0; k < 4; k++) {
    A[n - 1] = bad[k / 2];
    struct kwm_device_eigen problems[] = {good, good};
    problems[k % 2].A = case_copy(c, n * n, A);
    assert_false(eigen(c->device, 2, problems));
  }
}

static void test_eigen(void **state) {
  (void)state;
  static const int64_t sizes[][4] = {{1}, {3}, {33}, {100}};
  case_run_all(body_eigen, sizes);
  case_run_all(body_eigen_refused, sizes);
}

static void body_elementwise(struct device_case *c, const int64_t *size) {
  const int64_t n = size[0];
  const float *const x = case_normals(c, n, 1, 1), *const y = case_normals(c, n, 2, 1);
  double *const moved = case_wide(c, n, y), *const added = case_wide(c, n, y), *const squared = case_wide(c, n, x);
  for (int64_t k = 0; k < n; k++) {
    added[k] += (double)x[k];
    moved[k] -= 0.75 * (double)x[k];
    squared[k] *= squared[k];
  }
  float *const from = case_copy(c, n, x), *const to = case_copy(c, n, y), *const sum = case_copy(c, n, y);
  c->device->ops->add_scaled(c->device, n, -0.75f, from, to);
  kwm_device_add(c->device, n, from, sum);
  assert_same(c, n, from, x);
  double *const wide = case_copy(c, n, moved), *const wide_sum = case_copy(c, n, added);
  c->device->ops->add_f64(c->device, n, wide, wide_sum);
  assert_same(c, n, wide, moved);
  double *const wanted = case_host(c, n, sizeof *wanted);
  for (int64_t k = 0; k < n; k++) wanted[k] = added[k] + moved[k];
  assert_same(c, n, wide_sum, wanted);
  c->device->ops->square(c->device, n, from);
  assert_floats(c, n, to, moved, CLOSE);
  assert_floats(c, n, sum, added, CLOSE);
  assert_floats(c, n, from, squared, CLOSE);
}

static void test_elementwise(void **state) {
  (void)state;
  static const int64_t sizes[][4] = {{1}, {3}, {16}, {33}, {257}, {70001}};
  case_run_all(body_elementwise, sizes);
}

static void body_columns(struct device_case *c, const int64_t *size) {
  const int64_t n = size[0], w = size[1];
  const float *const x = case_normals(c, n * w, 1, 1), *const y = case_normals(c, n * w, 2, 1);
  const float *const before = case_normals(c, w, 3, 1);
  double *const sums = case_wide(c, w, before), *const dots = case_host(c, w, sizeof *dots);
  for (int64_t k = 0; k < n * w; k++) {
    sums[k % w] += (double)x[k] * (double)x[k];
    dots[k % w] += (double)x[k] * (double)y[k];
  }
  float *const X = case_copy(c, n * w, x), *const to_sums = case_copy(c, w, before), *const to_dots = case_floats(c, w);
  c->device->ops->add_squares(c->device, n, w, X, to_sums);
  c->device->ops->column_dots(c->device, n, w, X, case_copy(c, n * w, y), to_dots);
  assert_floats(c, w, to_sums, sums, CLOSE);
  assert_floats(c, w, to_dots, dots, CLOSE);
}

static void test_columns(void **state) {
  (void)state;
  static const int64_t sizes[][4] = {{1, 1}, {3, 16}, {100, 33}, {257, 257}, {16, 1}, {1000, 10}};
  case_run_all(body_columns, sizes);
}

static void body_mirror(struct device_case *c, const int64_t *size) {
  const int64_t n = size[0];
  float *const C = case_normals(c, n * n, 1, 1), *const to = case_copy(c, n * n, C);
  kwm_mirror(n, C, n);
  c->device->ops->mirror(c->device, n, to);
  assert_same(c, n * n, to, C);
}

static void test_mirror(void **state) {
  (void)state;
  static const int64_t sizes[][4] = {{1}, {3}, {16}, {33}, {100}, {257}};
  case_run_all(body_mirror, sizes);
}

/* n, m, count, params; counts that the host can do, and those it cannot, by the rows themselves. */
static double row_number(const struct kwm_device_units *h, int64_t row, int64_t u, int64_t k) {
  const int64_t s = row / h->m;
  double sum = 0;
  for (int64_t ch = 0; ch < 2; ch++)
    sum += (double)h->J[(row * 2 + ch) * h->count + u] * (double)h->S[((s * 2 + ch) * h->params + k) * h->count + u];
  return sum;
}

static void body_units(struct device_case *c, const int64_t *size) {
  const int64_t n = size[0], m = size[1], count = size[2], p = size[3], packed = kwm_packed(p);
  const struct kwm_device_units h = {.n = n,
                                     .m = m,
                                     .count = count,
                                     .params = p,
                                     .J = case_normals(c, n * m * 2 * count, 1, 1),
                                     .S = case_normals(c, n * 2 * p * count, 2, 1),
                                     .e = case_normals(c, n * m, 3, 1)};
  struct kwm_device_units d = h;
  d.J = case_copy(c, n * m * 2 * count, h.J), d.S = case_copy(c, n * 2 * p * count, h.S),
  d.e = case_copy(c, n * m, h.e);
  const float *const before = case_normals(c, packed * count, 4, 1);
  float *const F = case_copy(c, packed * count, before), *const s = case_copy(c, p * count, before);
  float *const f = case_copy(c, p * count, before), *const t = case_copy(c, p * count, before);
  double *const wanted_F = case_wide(c, packed * count, before), *const wanted_s = case_wide(c, p * count, before);
  double *const wanted_f = case_wide(c, p * count, before);
  for (int64_t row = 0; row < n * m; row++)
    for (int64_t u = 0; u < count; u++)
      for (int64_t k = 0, index = 0; k < p; k++) {
        const double left = row_number(&h, row, u, k);
        wanted_s[k * count + u] += left * (double)h.e[row];
        wanted_f[k * count + u] += left * left;
        for (int64_t l = k; l < p; l++, index++) wanted_F[index * count + u] += left * row_number(&h, row, u, l);
      }
  c->device->ops->units_fisher(c->device, &d, F, s);
  c->device->ops->units_diagonal(c->device, &d, f, t);
  assert_floats(c, packed * count, F, wanted_F, CLOSE);
  assert_floats(c, p * count, s, wanted_s, CLOSE);
  assert_floats(c, p * count, f, wanted_f, CLOSE);
  assert_floats(c, p * count, t, wanted_s, CLOSE);
}

static void test_units(void **state) {
  (void)state;
  static const int64_t sizes[][4] = {{1, 1, 1, 1}, {3, 10, 33, 10}, {33, 3, 16, 10}, {7, 2, 257, 3}, {100, 10, 5, 10}};
  case_run_all(body_units, sizes);
}

/* The host's own loops, where they apply. */
static void body_units_host(struct device_case *c, const int64_t *size) {
  const int64_t n = size[0], m = size[1], count = size[2], p = size[3], packed = kwm_packed(p);
  struct kwm_jac jac = {.shape = KWM_JAC_UNITS, .n = n, .m = m, .count = count, .channels = 2, .params = p};
  jac.J = case_normals(c, n * m * 2 * count, 1, 1);
  jac.S = case_normals(c, n * 2 * p * count, 2, 1);
  jac.e = case_normals(c, n * m, 3, 1);
  const struct kwm_device_units d = {.n = n,
                                     .m = m,
                                     .count = count,
                                     .params = p,
                                     .J = case_copy(c, n * m * 2 * count, jac.J),
                                     .S = case_copy(c, n * 2 * p * count, jac.S),
                                     .e = case_copy(c, n * m, jac.e)};
  float *const host = case_host(c, (packed + p) * count, sizeof *host), *const to =
                                                                            case_copy(c, (packed + p) * count, host);
  kwm_jac_fisher(&jac, host, host + packed * count);
  c->device->ops->units_fisher(c->device, &d, to, to + packed * count);
  assert_floats(c, (packed + p) * count, to, case_wide(c, (packed + p) * count, host), CLOSE);
}

static void test_units_host(void **state) {
  (void)state;
  static const int64_t sizes[][4] = {{100, 10, 64, 10}, {25, 10, 256, 10}};
  case_run_all(body_units_host, sizes);
}

static void body_outputs(struct device_case *c, const int64_t *size) {
  const int64_t n = size[0], m = size[1], w = size[2];
  const float *const J = case_normals(c, n * m * w, 1, 1), *const e = case_normals(c, n * m, 2, 1);
  double *const score = case_host(c, n * w, sizeof *score), *const squares = case_host(c, n * w, sizeof *squares);
  for (int64_t row = 0; row < n * m; row++)
    for (int64_t k = 0; k < w; k++) {
      score[row / m * w + k] += (double)e[row] * (double)J[row * w + k];
      squares[row / m * w + k] += (double)J[row * w + k] * (double)J[row * w + k];
    }
  float *const rows = case_copy(c, n * m * w, J), *const to = case_floats(c, n * w), *const to2 = case_floats(c, n * w);
  c->device->ops->output_score(c->device, n, m, w, case_copy(c, n * m, e), rows, to);
  c->device->ops->output_squares(c->device, n, m, w, rows, to2);
  assert_floats(c, n * w, to, score, CLOSE);
  assert_floats(c, n * w, to2, squares, CLOSE);
}

static void test_outputs(void **state) {
  (void)state;
  static const int64_t sizes[][4] = {{1, 1, 1}, {3, 10, 33}, {100, 10, 256}, {33, 1, 257}, {16, 3, 10}};
  case_run_all(body_outputs, sizes);
}

static void body_rows(struct device_case *c, const int64_t *size) {
  const int64_t n = size[0], m = size[1], o = size[2], i = size[3];
  const float *const J = case_normals(c, n * m * o, 1, 1), *const a = case_normals(c, n * i, 2, 1);
  const struct kwm_jac jac = {.shape = KWM_JAC_OUTER, .n = n, .m = m, .d_o = o, .d_i = i, .J = J, .a = a};
  double *const wanted = case_host(c, n * m * o * i, sizeof *wanted), *const to = case_doubles(c, n * m * o * i);
  kwm_jac_dense_f64(&jac, wanted);
  c->device->ops->outer_rows(c->device, n, m, o, i, case_copy(c, n * m * o, J), case_copy(c, n * i, a), to);
  assert_same(c, n * m * o * i, to, wanted);
}

static void body_diagonal(struct device_case *c, const int64_t *size) {
  const int64_t n = size[0] * size[2];
  double *const A = case_wide(c, n * n, case_normals(c, n * n, 1, 1)), *const to = case_copy(c, n * n, A);
  for (int64_t k = 0; k < n; k++) A[k * n + k] += 0.3;
  c->device->ops->add_diagonal(c->device, n, 0.3, to);
  assert_same(c, n * n, to, A);
}

static void test_rows(void **state) {
  (void)state;
  static const int64_t sizes[][4] = {{1, 1, 1, 1}, {3, 10, 16, 33}, {33, 1, 3, 257}, {16, 2, 10, 17}};
  case_run_all(body_rows, sizes);
  case_run_all(body_diagonal, sizes);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_gemm),    cmocka_unit_test(test_gemm_f64),   cmocka_unit_test(test_algebra_f64),
    cmocka_unit_test(test_factor),  cmocka_unit_test(test_eigen),      cmocka_unit_test(test_elementwise),
    cmocka_unit_test(test_columns), cmocka_unit_test(test_mirror),     cmocka_unit_test(test_units),
    cmocka_unit_test(test_outputs), cmocka_unit_test(test_units_host), cmocka_unit_test(test_rows),
};

DEVICE_TEST_MAIN(tests)
