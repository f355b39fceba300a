/* Information of blocks of tokens (kwm/inform.h) against plain loops in double. */
#include "tensor_case.h"

#include "kwm/backend.h"
#include "kwm/inform.h"

static const double CLOSE = 5e-5;

/* The number of 16 bits at `at`: the upper half of a float. */
static double widened(const uint16_t *at) {
  const uint32_t bits = (uint32_t)*at << 16;
  float value;
  memcpy(&value, &bits, sizeof value);
  return (double)value;
}

/* The sums in 16 bits alone. */
static void compare_half(struct device_case *c, const struct kwm_tally *tally, const double *sums) {
  const int64_t all = tally->n * tally->groups * tally->ld;
  const uint16_t *const none = case_host(c, all, sizeof *none);
  struct kwm_tally of = *tally;
  of.sums = NULL;
  of.half = case_copy(c, all, none);
  case_ops(c)->tally(c->device, &of);
  const uint16_t *const found = case_get(c, all, sizeof *found, of.half);
  for (int64_t k = 0; k < all; k++) assert_close(widened(found + k), sums[k], 5e-3, CLOSE);
}

/* size: rows, columns, inner. */
static void body_half(struct device_case *c, const int64_t *size) {
  const int64_t m = size[0], n = size[1], k = size[2];
  const float *const A = case_normals(c, m * k, 1, 1), *const B = case_normals(c, k * n, 2, 1);
  const float *const there_A = case_copy(c, m * k, A), *const there_B = case_copy(c, k * n, B);
  uint16_t *const half_A = case_new(c, m * k, sizeof *half_A), *const half_B = case_new(c, k * n, sizeof *half_B);
  double *const wanted = case_zeros(c, m * n);
  float *const C = case_floats(c, m * n);
  if (case_ops(c)->half_gemm == NULL) return;
  for (int64_t i = 0; i < m * n; i++)
    for (int64_t j = 0; j < k; j++) wanted[i] += (double)A[i / n * k + j] * (double)B[j * n + i % n];
  case_ops(c)->narrow(c->device, m * k, there_A, half_A);
  case_ops(c)->narrow(c->device, k * n, there_B, half_B);
  case_ops(c)->half_gemm(c->device, m, n, k, half_A, half_B, C);
  assert_below(dense_error_f32(m * n, case_get(c, m * n, sizeof *C, C), wanted), 5e-3);
}

static void test_half(void **state) {
  (void)state;
  static const int64_t sizes[][3] = {{1, 8, 8}, {24, 64, 512}};
  tensor_run_all(body_half, sizes);
}

/* size: streams, steps, groups, classes. */
static void body_tally(struct device_case *c, const int64_t *size) {
  const int64_t n = size[0], steps = size[1], groups = size[2], v = size[3], ld = v + 3, rows = steps * n;
  const float *const logits = case_normals(c, rows * ld, 1, 2);
  const int32_t *const targets = case_indices(c, rows, v, 2);
  float *const facts = case_host(c, rows * KWM_TOKEN_FACTS, sizeof *facts);
  double *const sums = case_zeros(c, n * groups * ld), *const told = case_zeros(c, n * groups * ld);
  for (int64_t row = 0; row < rows; row++) {
    const int64_t at = (row % n * groups + row / n * groups / steps) * ld;
    double all = 0;
    for (int64_t i = 0; i < v; i++) all += exp((double)logits[row * ld + i]);
    facts[row * KWM_TOKEN_FACTS + KWM_TOKEN_SURPRISAL] = (float)(log(all) - (double)logits[row * ld + targets[row]]);
    for (int64_t i = 0; i < v; i++) {
      const double p = exp((double)logits[row * ld + i]) / all;
      sums[at + i] += (i == targets[row]) - p;
      told[at + i] += p * (1 - p);
    }
  }
  const float *const none = case_host(c, n * groups * ld, sizeof *none);
  const struct kwm_tally of = {.n = n,
                               .steps = steps,
                               .groups = groups,
                               .classes = v,
                               .ld = ld,
                               .logits = case_copy(c, rows * ld, logits),
                               .facts = case_copy(c, rows * KWM_TOKEN_FACTS, facts),
                               .targets = case_copy(c, rows, targets),
                               .sums = case_copy(c, n * groups * ld, none),
                               .told = case_copy(c, n * groups * ld, none)};
  case_ops(c)->tally(c->device, &of);
  assert_floats(c, n * groups * ld, of.sums, sums, CLOSE);
  assert_floats(c, n * groups * ld, of.told, told, CLOSE);
  if (case_ops(c)->half_gemm != NULL) compare_half(c, &of, sums);
}

static void test_tally(void **state) {
  (void)state;
  static const int64_t sizes[][4] = {{1, 1, 1, 2}, {3, 7, 3, 41}, {2, 32, 8, 3001}};
  tensor_run_all(body_tally, sizes);
}

static void body_lean(struct device_case *c, const int64_t *size) {
  const int64_t n = size[0], groups = size[1], v = size[2], all = n * v;
  const float *const e = case_normals(c, all * groups, 1, 1), *const told = case_positive(c, all * groups, 2);
  const float *const start = case_normals(c, all, 3, 1), *const spread = case_positive(c, all, 4);
  double *const wanted = case_zeros(c, all), *const variance = case_zeros(c, all);
  for (int64_t k = 0; k < all; k++) {
    double sum = 0, information = 0;
    for (int64_t j = 0; j < groups; j++) {
      sum += (double)e[(k / v * groups + j) * v + k % v];
      information += (double)told[(k / v * groups + j) * v + k % v];
    }
    const double after = (double)spread[k] / (1 + (double)spread[k] * information), a = (double)0.9f;
    wanted[k] = a * ((double)start[k] + after * sum);
    variance[k] = a * a * after + (1 - a * a) * 0.7;
  }
  const struct kwm_lean of = {.n = n,
                              .classes = v,
                              .groups = groups,
                              .e = case_copy(c, all * groups, e),
                              .told = case_copy(c, all * groups, told),
                              .decay = 0.9f,
                              .prior = 0.7f,
                              .c = case_copy(c, all, start),
                              .v = case_copy(c, all, spread)};
  case_ops(c)->lean(c->device, &of);
  assert_floats(c, all, of.c, wanted, CLOSE);
  assert_floats(c, all, of.v, variance, CLOSE);
}

static void test_lean(void **state) {
  (void)state;
  static const int64_t sizes[][3] = {{1, 1, 2}, {3, 4, 41}, {16, 8, 300}};
  tensor_run_all(body_lean, sizes);
}

static void body_steer(struct device_case *c, const int64_t *size) {
  const int64_t rows = size[0], width = size[1], groups = size[2], all = rows * width;
  const float *const score = case_normals(c, all, 1, 1), *const told = case_positive(c, groups * rows, 2);
  const float *const spread = case_positive(c, rows, 3), *const change = case_normals(c, all, 4, 1);
  const float *const W = case_normals(c, all, 5, 1);
  double *const variance = case_zeros(c, rows), *const changed = case_zeros(c, all), *const after = case_zeros(c, all);
  for (int64_t i = 0; i < rows; i++) {
    double sum = 0;
    for (int64_t g = 0; g < groups; g++) sum += (double)told[g * rows + i];
    variance[i] = (double)spread[i] / (1 + (double)spread[i] * 0.25 * sum);
  }
  for (int64_t k = 0; k < all; k++) {
    changed[k] = (double)change[k] + variance[k / width] * (double)score[k];
    after[k] = (double)W[k] + variance[k / width] * (double)score[k];
  }
  const struct kwm_steer of = {.rows = rows,
                               .width = width,
                               .groups = groups,
                               .score = case_copy(c, all, score),
                               .told = case_copy(c, groups * rows, told),
                               .scale = 0.25f,
                               .variance = case_copy(c, rows, spread),
                               .change = case_copy(c, all, change),
                               .W = case_copy(c, all, W)};
  case_ops(c)->steer(c->device, &of);
  assert_floats(c, rows, of.variance, variance, CLOSE);
  assert_floats(c, all, of.change, changed, CLOSE);
  assert_floats(c, all, of.W, after, CLOSE);
}

static void test_steer(void **state) {
  (void)state;
  static const int64_t sizes[][3] = {{1, 1, 1}, {41, 5, 3}, {300, 33, 16}};
  tensor_run_all(body_steer, sizes);
}

static void body_shift(struct device_case *c, const int64_t *size) {
  const int64_t n = size[0], width = size[1];
  const float *const x = case_normals(c, n * width, 1, 1), *const by = case_normals(c, width, 2, 1);
  double *const wanted = case_zeros(c, n * width);
  float *const there = case_copy(c, n * width, x);
  for (int64_t k = 0; k < n * width; k++) wanted[k] = (double)x[k] + (double)by[k % width];
  case_ops(c)->shift(c->device, n, width, case_copy(c, width, by), there);
  assert_floats(c, n * width, there, wanted, CLOSE);
}

static void test_shift(void **state) {
  (void)state;
  static const int64_t sizes[][2] = {{1, 1}, {5, 33}, {32, 8192}};
  tensor_run_all(body_shift, sizes);
}

/* What the double filter keeps of stream 0: P⁻¹ as a dense matrix F, the mean, the watched direction. */
struct book {
  double *F, *c, *v;
};

/* One block: rows A (m, r) of `tokens` tokens. */
static void book_take(struct device_case *c, const struct kwm_inform_low *of, const float *A, struct book *book) {
  const int64_t r = of->r, m = of->rows;
  double *const L = case_zeros(c, r * r), *const x = case_zeros(c, 2 * r), *const y = x + r;
  double promised = 0;
  const double a = pow((double)of->decay, (double)of->tokens), bound = (double)of->bound;
  for (int64_t j = 0; j < m; j++) {
    double seen = 0;
    for (int64_t k = 0; k < r; k++) seen += (double)A[j * r + k] * book->v[k];
    for (int64_t k = 0; k < r; k++) {
      x[k] += (double)A[j * r + k];
      y[k] += seen * (double)A[j * r + k];
      for (int64_t i = 0; i < r; i++) book->F[k * r + i] += (double)A[j * r + k] * (double)A[j * r + i];
    }
  }
  double *const sum = case_zeros(c, r);
  memcpy(sum, x, (size_t)r * sizeof *sum);
  memcpy(L, book->F, (size_t)(r * r) * sizeof *L);
  assert_true(kwm_solve_f64(r, 1, L, x));
  memcpy(L, book->F, (size_t)(r * r) * sizeof *L);
  assert_true(kwm_solve_f64(r, 1, L, y));
  for (int64_t k = 0; k < r; k++) promised += x[k] * sum[k];
  for (int64_t k = 0; k < r; k++) {
    book->c[k] = a * (book->c[k] + (bound > 0 && promised > bound ? bound / promised : 1) * x[k]);
    book->v[k] = a * (book->v[k] - y[k]);
  }
}

/* F <- I / prior + Σ over the `keep` leading directions of F - I / prior, with the noise of the time since. */
static void book_compress(struct device_case *c, const struct kwm_inform_low *of, double tokens, struct book *book) {
  const int64_t r = of->r, keep = kwm_inform_keep(of->rank, of->rows);
  const double lambda = 1 / (double)of->prior, a2 = pow((double)of->decay, 2 * tokens);
  double *const Q = case_zeros(c, r * r), *const values = case_zeros(c, r);
  memcpy(Q, book->F, (size_t)(r * r) * sizeof *Q);
  assert_true(kwm_eigen_f64(r, Q, values));
  memset(book->F, 0, (size_t)(r * r) * sizeof *Q);
  for (int64_t k = 0; k < r; k++) book->F[k * (r + 1)] = lambda;
  for (int64_t j = r - 1; j >= r - keep && j >= 0; j--) {
    const double has = 1 / (a2 / values[j] + tokens * (double)of->noise) - lambda;
    for (int64_t k = 0; k < r * r && has > 0; k++) book->F[k] += has * Q[k / r * r + j] * Q[k % r * r + j];
  }
}

/* F (r, r) <- I / prior + UᵀU of stream s */
static void found_information(struct device_case *c, const struct kwm_inform_low *of, int64_t s, double *F) {
  const int64_t r = of->r;
  const int32_t *const known = case_get(c, of->n, sizeof *known, of->known);
  const float *const U = case_get(c, of->n * of->rank * r, sizeof *U, of->U);
  for (int64_t k = 0; k < r * r; k++) {
    F[k] = k % (r + 1) == 0 ? 1 / (double)of->prior : 0;
    for (int64_t j = 0; j < known[s]; j++)
      F[k] += (double)U[(s * of->rank + j) * r + k / r] * (double)U[(s * of->rank + j) * r + k % r];
  }
}

/* size: streams, r, rows, rank, blocks; the bound in tenths. The first and the last stream are compared. */
static void body_low(struct device_case *c, const int64_t *size) {
  const int64_t n = size[0], r = size[1], m = size[2], rank = size[3];
  const int32_t *const none = case_host(c, n, sizeof *none);
  const float *const start = case_normals(c, n * r, 1, 1), *const v = case_normals(c, r, 2, 1);
  const float *const U = case_host(c, n * rank * r, sizeof *U);
  float *const A = case_floats(c, n * m * r);
  const struct kwm_inform_low of = {.n = n,
                                    .r = r,
                                    .rows = m,
                                    .rank = rank,
                                    .tokens = 4,
                                    .A = A,
                                    .decay = 0.98f,
                                    .noise = 0.01f,
                                    .prior = 1.5f,
                                    .bound = (float)size[5] / 10,
                                    .c = case_copy(c, n * r, start),
                                    .U = case_copy(c, n * rank * r, U),
                                    .watched = case_copy(c, r, v),
                                    .known = case_copy(c, n, none),
                                    .since = case_copy(c, n, none),
                                    .broken = case_copy(c, n, none)};
  struct book book[2];
  for (int at = 0; at < 2; at++) {
    const int64_t s = at * (n - 1);
    book[at] = (struct book){case_zeros(c, r * r), case_wide(c, r, start + s * r), case_wide(c, r, v)};
    for (int64_t k = 0; k < r; k++) book[at].F[k * (r + 1)] = 1 / (double)of.prior;
  }
  int64_t rows = 0, tokens = 0;
  for (int64_t b = 0; b < size[4]; b++) {
    const float *const now = case_normals(c, n * m * r, 10 + (uint64_t)b, 1 / sqrt((double)r));
    kwm_device_put(c->device, A, now, (size_t)(n * m * r) * sizeof *now);
    kwm_device_rejoin(c->device);
    case_ops(c)->inform_low(c->device, &of);
    kwm_device_aside(c->device, true);
    case_ops(c)->shrink_low(c->device, &of);
    kwm_device_aside(c->device, false);
    rows += m, tokens += of.tokens;
    for (int at = 0; at < 2; at++) book_take(c, &of, now + at * (n - 1) * m * r, &book[at]);
    if (rows + m <= rank) continue;
    for (int at = 0; at < 2; at++) book_compress(c, &of, (double)tokens, &book[at]);
    rows = kwm_inform_keep(rank, m), tokens = 0;
  }
  const float *const found = case_get(c, n * r, sizeof *found, of.c);
  kwm_device_rejoin(c->device);
  for (int at = 0; at < 2; at++) {
    double *const F = case_zeros(c, r * r);
    found_information(c, &of, at * (n - 1), F);
    for (int64_t k = 0; k < r * r; k++) assert_close(F[k], book[at].F[k], 1e-3, 1e-3);
    assert_below(dense_error_f32(r, found + at * (n - 1) * r, book[at].c), 1e-3);
  }
  assert_floats(c, r, of.watched, book[0].v, 1e-3);
  assert_same(c, n, of.broken, none);
}

static void test_low(void **state) {
  (void)state;
  static const int64_t sizes[][6] = {{1, 1, 1, 1, 3, 0},    {2, 9, 1, 4, 9, 3},    {3, 40, 3, 7, 5, 0},
                                     {2, 96, 8, 16, 6, 10}, {2, 70, 12, 64, 9, 0}, {16, 512, 8, 16, 3, 0},
                                     {2, 33, 1, 5, 9, 0},   {1, 520, 3, 9, 5, 0}};
  tensor_run_all(body_low, sizes);
}

/* A stream whose numbers are not finite begins anew and is counted, the others go on. */
static void body_broken(struct device_case *c, const int64_t *size) {
  enum { N = 3, BAD = 1, RANK = 8 };
  const int64_t r = size[0], m = size[1];
  float *const A = case_normals(c, N * m * r, 1, 1);
  const float *const U = case_host(c, N * RANK * r, sizeof *U), *const start = case_normals(c, N * r, 2, 1);
  const int32_t *const none = case_host(c, N, sizeof *none);
  A[BAD * m * r] = NAN;
  const struct kwm_inform_low of = {.n = N,
                                    .r = r,
                                    .rows = m,
                                    .rank = RANK,
                                    .tokens = 1,
                                    .A = case_copy(c, N * m * r, A),
                                    .decay = 1,
                                    .prior = 1,
                                    .c = case_copy(c, N * r, start),
                                    .U = case_copy(c, N * RANK * r, U),
                                    .watched = case_copy(c, r, start),
                                    .known = case_copy(c, N, none),
                                    .since = case_copy(c, N, none),
                                    .broken = case_copy(c, N, none)};
  case_ops(c)->inform_low(c->device, &of);
  const int32_t *const broken = case_get(c, N, sizeof *broken, of.broken);
  const int32_t *const known = case_get(c, N, sizeof *known, of.known);
  const float *const offset = case_get(c, N * r, sizeof *offset, of.c);
  for (int s = 0; s < N; s++) {
    assert_int_equal(broken[s], s == BAD);
    assert_int_equal(known[s], s == BAD ? 0 : m);
    for (int64_t k = 0; k < r; k++) assert_true(s == BAD ? offset[s * r + k] == 0 : isfinite(offset[s * r + k]));
  }
}

static void test_broken(void **state) {
  (void)state;
  static const int64_t sizes[][2] = {{8, 1}, {40, 4}};
  tensor_run_all(body_broken, sizes);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_tally),  cmocka_unit_test(test_half),  cmocka_unit_test(test_lean),
    cmocka_unit_test(test_shift),  cmocka_unit_test(test_steer), cmocka_unit_test(test_low),
    cmocka_unit_test(test_broken),
};
DEVICE_TEST_MAIN(tests)
