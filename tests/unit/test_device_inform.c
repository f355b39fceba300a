/* Information of tokens (kwm/inform.h) against the textbook's filter in double. */
#include "tensor_case.h"

#include "kwm/backend.h"
#include "kwm/inform.h"

static const double CLOSE = 2e-5;

/* Probabilities (n, classes) that fall steeply, of which two are equal. */
static double *make_chances(struct device_case *c, int64_t n, int64_t classes) {
  double *const p = case_zeros(c, n * classes);
  for (int64_t s = 0; s < n; s++) {
    double sum = 0;
    for (int64_t i = 0; i < classes; i++) p[s * classes + i] = exp(3 * (double)(float)test_normal(20 + (uint64_t)s, i));
    if (classes > 3) p[s * classes + 3] = p[s * classes + 1];
    for (int64_t i = 0; i < classes; i++) sum += p[s * classes + i];
    for (int64_t i = 0; i < classes; i++) p[s * classes + i] /= sum;
  }
  return p;
}

static int order(const void *a, const void *b) {
  const double *const x = *(const double *const *)a, *const y = *(const double *const *)b;
  const float p = (float)*x, q = (float)*y;
  return p > q ? -1 : p < q ? 1 : x < y ? -1 : 1;
}

/* F (r, r) <- the information of all classes, those after the first `top` as one. */
static void merged_information(int64_t classes, int64_t r, int64_t top, const double *p, const float *M, double *F) {
  const double **const at = malloc((size_t)classes * sizeof *at);
  double *const rest = calloc((size_t)(2 * r + 1), sizeof *rest), *const mean = rest + r;
  assert_non_null(at);
  assert_non_null(rest);
  for (int64_t i = 0; i < classes; i++) at[i] = p + i;
  qsort(at, (size_t)classes, sizeof *at, order);
  memset(F, 0, (size_t)(r * r) * sizeof *F);
  for (int64_t j = 0; j < classes; j++)
    for (int64_t k = 0; k < r; k++) {
      const float *const row = M + (at[j] - p) * r;
      mean[k] += *at[j] * (double)row[k];
      if (j >= top) rest[k] += *at[j] * (double)row[k];
      for (int64_t l = 0; l < r && j < top; l++) F[k * r + l] += *at[j] * (double)row[k] * (double)row[l];
    }
  for (int64_t j = top; j < classes; j++) rest[2 * r] += *at[j];
  for (int64_t k = 0; k < r * r; k++) F[k] += rest[k / r] * rest[k % r] / rest[2 * r] - mean[k / r] * mean[k % r];
  free(at);
  free(rest);
}

static void body_likely(struct device_case *c, const int64_t *size) {
  const int64_t n = size[0], classes = size[1], r = size[2], top = size[3];
  const double *const p = make_chances(c, n, classes);
  const float *const M = case_normals(c, classes * r, 3, 1);
  int32_t *const targets = case_indices(c, n, classes, 4);
  float *const e = case_host(c, n * classes, sizeof *e), *const g = case_host(c, n * r, sizeof *g);
  for (int64_t k = 0; k < n * classes; k++) e[k] = (float)((k % classes == targets[k / classes]) - p[k]);
  for (int64_t k = 0; k < n * r; k++) {
    double sum = 0;
    for (int64_t i = 0; i < classes; i++) sum += (double)e[k / r * classes + i] * (double)M[i * r + k % r];
    g[k] = (float)sum;
  }
  const struct kwm_likely of = {.n = n,
                                .classes = classes,
                                .r = r,
                                .top = top,
                                .e = case_copy(c, n * classes, e),
                                .targets = case_copy(c, n, targets),
                                .M = case_copy(c, classes * r, M),
                                .g = case_copy(c, n * r, g),
                                .A = case_floats(c, n * (top + 1) * r),
                                .listed = case_new(c, n * top, sizeof(int32_t))};
  case_ops(c)->likely(c->device, &of);
  const float *const A = case_get(c, n * (top + 1) * r, sizeof *A, of.A);
  const int32_t *const listed = case_get(c, n * top, sizeof *listed, of.listed);
  for (int64_t s = 0; s < n; s++) {
    double *const wanted = case_zeros(c, r * r);
    float *const found = case_host(c, r * r, sizeof *found);
    const float *const rows = A + s * (top + 1) * r;
    merged_information(classes, r, top, p + s * classes, M, wanted);
    for (int64_t k = 0; k < r * r; k++)
      for (int64_t j = 0; j <= top; j++) found[k] += rows[j * r + k / r] * rows[j * r + k % r];
    assert_below(dense_error_f32(r * r, found, wanted), CLOSE);
    for (int64_t j = 1; j < top; j++) {
      const float before = (float)p[s * classes + listed[s * top + j - 1]],
                  now = (float)p[s * classes + listed[s * top + j]];
      assert_true(before > now - 1e-6f);
    }
  }
}

static void test_likely(void **state) {
  (void)state;
  static const int64_t sizes[][4] = {{1, 2, 1, 1}, {3, 40, 5, 4}, {2, 3000, 33, 16}, {4, 1500, 64, 35}};
  tensor_run_all(body_likely, sizes);
}

/* P⁺ (r, r) <- P - PAᵀ(I + APAᵀ)⁻¹AP */
static void textbook_update(struct device_case *c, int64_t r, int64_t m, const double *A, double *P) {
  double *const G = case_zeros(c, m * r), *const N = case_zeros(c, m * m), *const X = case_zeros(c, m * r);
  for (int64_t j = 0; j < m; j++)
    for (int64_t k = 0; k < r; k++)
      for (int64_t i = 0; i < r; i++) G[j * r + k] += A[j * r + i] * P[i * r + k];
  for (int64_t i = 0; i < m; i++)
    for (int64_t j = 0; j < m; j++) {
      N[i * m + j] = i == j;
      for (int64_t k = 0; k < r; k++) N[i * m + j] += G[i * r + k] * A[j * r + k];
    }
  memcpy(X, G, (size_t)(m * r) * sizeof *X);
  assert_true(kwm_solve_f64(m, r, N, X));
  for (int64_t k = 0; k < r * r; k++)
    for (int64_t j = 0; j < m; j++) P[k] -= G[j * r + k / r] * X[j * r + k % r];
}

struct textbook {
  const double *A, *g;
  double *c, *P, *watched;
};

static void textbook_take(struct device_case *c, const struct kwm_inform *of, const struct textbook *book, bool first) {
  const int64_t r = of->r, m = of->rows;
  double *const step = case_zeros(c, r), *const along = case_zeros(c, r);
  double promised = 0, trace = 0;
  const double a = (double)of->decay, q = (double)of->noise, bound = (double)of->bound;
  textbook_update(c, r, m, book->A, book->P);
  for (int64_t k = 0; k < r; k++)
    for (int64_t i = 0; i < r; i++) step[k] += book->P[k * r + i] * book->g[i];
  for (int64_t k = 0; k < r; k++) promised += step[k] * book->g[k];
  for (int64_t k = 0; k < r; k++)
    book->c[k] = a * (book->c[k] + (bound > 0 && promised > bound ? bound / promised : 1) * step[k]);
  for (int64_t j = 0; j < m && first; j++) {
    double seen = 0;
    for (int64_t k = 0; k < r; k++) seen += book->A[j * r + k] * book->watched[k];
    for (int64_t k = 0; k < r; k++) along[k] += book->A[j * r + k] * seen;
  }
  for (int64_t k = 0; k < r && first; k++) {
    for (int64_t i = 0; i < r; i++) book->watched[k] -= book->P[k * r + i] * along[i];
    book->watched[k] *= a;
  }
  for (int64_t k = 0; k < r; k++) trace += a * a * book->P[k * r + k] + q;
  const double most = (double)r * (double)of->prior, t = trace > most ? most / trace : 1;
  for (int64_t k = 0; k < r * r; k++) book->P[k] = t * (a * a * book->P[k] + (k % (r + 1) == 0 ? q : 0));
}

/* size: streams, r, rows; the bound in thousandths. Two tokens, one after the other. */
static void body_inform(struct device_case *c, const int64_t *size) {
  const int64_t n = size[0], r = size[1], m = size[2];
  const double spread = 1 / sqrt((double)r);
  const float *const A = case_normals(c, n * m * r, 1, spread), *const g = case_normals(c, n * r, 2, spread);
  const float *const start = case_normals(c, n * r, 3, 1), *const v = case_normals(c, r, 4, 1);
  float *const P = case_host(c, n * r * r, sizeof *P);
  const int32_t *const none = case_host(c, n, sizeof *none);
  for (int64_t k = 0; k < n * r * r; k++) P[k] = k % (r * r) % (r + 1) == 0 ? 2 : 0;
  const struct kwm_inform of = {.n = n,
                                .r = r,
                                .rows = m,
                                .A = case_copy(c, n * m * r, A),
                                .g = case_copy(c, n * r, g),
                                .weight = 1,
                                .decay = 0.9f,
                                .noise = 0.25f,
                                .prior = 1.8f,
                                .bound = (float)size[3] / 1000,
                                .c = case_copy(c, n * r, start),
                                .P = case_copy(c, n * r * r, P),
                                .watched = case_copy(c, r, v),
                                .broken = case_copy(c, n, none),
                                .room = case_floats(c, m * r)};
  double *const wide_A = case_wide(c, n * m * r, A), *const wide_g = case_wide(c, n * r, g);
  double *const wide_c = case_wide(c, n * r, start), *const wide_P = case_wide(c, n * r * r, P);
  double *const wide_v = case_wide(c, r, v);
  for (int token = 0; token < 2; token++) {
    case_ops(c)->inform(c->device, &of);
    for (int64_t s = 0; s < n; s++) {
      const struct textbook book = {wide_A + s * m * r, wide_g + s * r, wide_c + s * r, wide_P + s * r * r, wide_v};
      textbook_take(c, &of, &book, s == 0);
    }
  }
  assert_floats(c, n * r, of.c, wide_c, CLOSE);
  assert_floats(c, n * r * r, of.P, wide_P, CLOSE);
  assert_floats(c, r, of.watched, wide_v, CLOSE);
  assert_same(c, n, of.broken, none);
}

static void test_inform(void **state) {
  (void)state;
  static const int64_t sizes[][4] = {{1, 1, 1, 0},   {3, 7, 1, 100},   {2, 40, 5, 50},
                                     {2, 96, 17, 0}, {1, 64, 36, 300}, {2, 512, 17, 100}};
  tensor_run_all(body_inform, sizes);
}

/* A stream whose numbers are not finite begins anew and is counted, the others go on. */
static void body_broken(struct device_case *c, const int64_t *size) {
  enum { N = 3, BAD = 1 };
  const int64_t r = size[0], m = size[1];
  float *const A = case_normals(c, N * m * r, 1, 1), *const g = case_normals(c, N * r, 2, 1);
  float *const P = case_host(c, N * r * r, sizeof *P), *const v = case_normals(c, r, 3, 1);
  const int32_t *const none = case_host(c, N, sizeof *none);
  for (int64_t k = 0; k < N * r * r; k++) P[k] = k % (r * r) % (r + 1) == 0 ? 1 : 0;
  if (size[2] == 0)
    A[BAD * m * r] = NAN;
  else
    g[BAD * r] = INFINITY;
  const struct kwm_inform of = {.n = N,
                                .r = r,
                                .rows = m,
                                .A = case_copy(c, N * m * r, A),
                                .g = case_copy(c, N * r, g),
                                .weight = 1,
                                .decay = 1,
                                .prior = 1,
                                .c = case_copy(c, N * r, g),
                                .P = case_copy(c, N * r * r, P),
                                .watched = case_copy(c, r, v),
                                .broken = case_copy(c, N, none),
                                .room = case_floats(c, m * r)};
  case_ops(c)->inform(c->device, &of);
  const int32_t *const broken = case_get(c, N, sizeof *broken, of.broken);
  const float *const after = case_get(c, N * r * r, sizeof *after, of.P);
  const float *const offset = case_get(c, N * r, sizeof *offset, of.c);
  for (int s = 0; s < N; s++) assert_int_equal(broken[s], s == BAD);
  assert_memory_equal(after + BAD * r * r, P + BAD * r * r, (size_t)(r * r) * sizeof *P);
  for (int64_t k = 0; k < r; k++) assert_true(offset[BAD * r + k] == 0);
  for (int64_t k = 0; k < N * r * r; k++) assert_true(isfinite(after[k]));
}

static void test_broken(void **state) {
  (void)state;
  static const int64_t sizes[][3] = {{8, 1, 0}, {8, 1, 1}, {40, 9, 0}, {40, 17, 1}};
  tensor_run_all(body_broken, sizes);
}

static void body_lean(struct device_case *c, const int64_t *size) {
  const int64_t n = size[0], classes = size[1], all = n * classes;
  const double *const p = make_chances(c, n, classes), a = 0.9;
  const int32_t *const targets = case_indices(c, n, classes, 4);
  const float *const start = case_normals(c, all, 5, 1), *const spread = case_positive(c, all, 6);
  float *const e = case_host(c, all, sizeof *e);
  double *const wanted = case_zeros(c, all), *const variance = case_zeros(c, all);
  for (int64_t k = 0; k < all; k++) {
    const double told = (double)spread[k] / (1 + (double)spread[k] * p[k] * (1 - p[k]));
    e[k] = (float)((k % classes == targets[k / classes]) - p[k]);
    wanted[k] = (double)(float)a * ((double)start[k] + told * (double)e[k]);
    variance[k] = a * a * told + (1 - a * a) * 0.7;
  }
  const struct kwm_lean of = {.n = n,
                              .classes = classes,
                              .e = case_copy(c, all, e),
                              .targets = case_copy(c, n, targets),
                              .decay = (float)a,
                              .prior = 0.7f,
                              .c = case_copy(c, all, start),
                              .v = case_copy(c, all, spread)};
  case_ops(c)->lean(c->device, &of);
  assert_floats(c, all, of.c, wanted, CLOSE);
  assert_floats(c, all, of.v, variance, CLOSE);
}

static void test_lean(void **state) {
  (void)state;
  static const int64_t sizes[][2] = {{1, 2}, {3, 41}, {16, 3000}};
  tensor_run_all(body_lean, sizes);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_likely),
    cmocka_unit_test(test_inform),
    cmocka_unit_test(test_broken),
    cmocka_unit_test(test_lean),
};
DEVICE_TEST_MAIN(tests)
