/* A device's memory: what is put comes back, rows go where they should, nothing else is touched, shared memory is read
   after a wait; and what stands for the host where no device is given. */
#include "device_case.h"

static uint8_t *random_bytes(struct device_case *c, int64_t n, uint64_t stream) {
  uint8_t *const to = case_host(c, n, 1);
  for (int64_t k = 0; k < n; k++) to[k] = (uint8_t)kwm_rng_below(7, KWM_RNG_TEST, stream, (uint64_t)k, 256);
  return to;
}

/* There, within and back; what was put may change at once. */
static void body_round(struct device_case *c, const int64_t *size) {
  const int64_t n = size[0];
  uint8_t *const from = random_bytes(c, n, 1), *const wanted = random_bytes(c, n, 1);
  uint8_t *const a = case_copy(c, n, from), *const b = case_new(c, n, 1), *const z = case_copy(c, n, from);
  memset(from, 0x11, (size_t)n);
  kwm_device_copy(c->device, b, a, (size_t)n);
  kwm_device_zero(c->device, z, (size_t)n);
  assert_same(c, n, a, wanted);
  assert_same(c, n, b, wanted);
  memset(from, 0, (size_t)n);
  assert_same(c, n, z, from);
}

static void test_round(void **state) {
  (void)state;
  static const int64_t sizes[][4] = {{1}, {3}, {16}, {33}, {257}, {100000}};
  case_run_all(body_round, sizes);
}

/* rows, width, pitches */
static void body_rows(struct device_case *c, const int64_t *size) {
  const int64_t rows = size[0], width = size[1], ld_from = size[2], ld_to = size[3];
  const float *const from = case_normals(c, rows * ld_from, 1, 1);
  float *const wanted = case_normals(c, rows * ld_to, 2, 1), *const to = case_copy(c, rows * ld_to, wanted);
  for (int64_t k = 0; k < rows * width; k++)
    wanted[k / width * ld_to + k % width] = from[k / width * ld_from + k % width];
  kwm_device_copy_rows(c->device, rows, width, to, ld_to, case_copy(c, rows * ld_from, from), ld_from);
  assert_same(c, rows * ld_to, to, wanted);
}

static void test_rows(void **state) {
  (void)state;
  static const int64_t sizes[][4] = {{1, 1, 1, 1}, {3, 16, 17, 16}, {100, 33, 33, 40}, {257, 512, 513, 600}};
  case_run_all(body_rows, sizes);
}

/* Columns of one matrix to other columns of it. */
static void body_columns(struct device_case *c, const int64_t *size) {
  const int64_t rows = size[0], width = size[1], ld = 2 * width + 1;
  float *const wanted = case_normals(c, rows * ld, 1, 1), *const to = case_copy(c, rows * ld, wanted);
  for (int64_t k = 0; k < rows * width; k++)
    wanted[k / width * ld + width + 1 + k % width] = wanted[k / width * ld + k % width];
  kwm_device_copy_rows(c->device, rows, width, to + width + 1, ld, to, ld);
  assert_same(c, rows * ld, to, wanted);
}

static void test_columns(void **state) {
  (void)state;
  static const int64_t sizes[][4] = {{1, 1}, {33, 16}, {100, 257}};
  case_run_all(body_columns, sizes);
}

/* In the order in which they were asked for, though nobody waits in between. */
static void body_order(struct device_case *c, const int64_t *size) {
  const int64_t n = size[0];
  float *const one = case_host(c, n, sizeof *one), *const wanted = case_host(c, n, sizeof *wanted);
  float *const x = case_floats(c, n), *const y = case_floats(c, n);
  kwm_device_zero(c->device, y, (size_t)n * sizeof *y);
  for (int step = 1; step <= 20; step++)
    for (int64_t k = 0; k < n; k++) wanted[k] += (float)step;
  for (int step = 1; step <= 20; step++) {
    for (int64_t k = 0; k < n; k++) one[k] = (float)step;
    kwm_device_put(c->device, x, one, (size_t)n * sizeof *x);
    kwm_device_add(c->device, n, x, y);
  }
  assert_same(c, n, y, wanted);
}

static void test_order(void **state) {
  (void)state;
  static const int64_t sizes[][4] = {{1}, {1000}, {300001}};
  case_run_all(body_order, sizes);
}

/* Facts: after a wait and after a get, and again for the next ones. */
static void body_shared(struct device_case *c, const int64_t *size) {
  const int64_t n = size[0];
  const float *const D = case_positive(c, n, 1);
  double *const facts = case_facts(c, 2), wanted = 0;
  for (int64_t k = 0; k < n; k++) wanted += 1 / (double)D[k];
  float *const from = case_copy(c, n, D);
  c->device->ops->sum_inverse(c->device, n, from, facts + 1);
  kwm_device_wait(c->device);
  assert_close(facts[1], wanted, 1e-6, 0);
  kwm_device_add(c->device, n, case_copy(c, n, D), from);
  c->device->ops->sum_inverse(c->device, n, from, facts);
  (void)case_get(c, n, sizeof *from, from);
  assert_close(facts[0], wanted / 2, 1e-6, 0);
}

static void test_shared(void **state) {
  (void)state;
  static const int64_t sizes[][4] = {{1}, {33}, {1000}};
  case_run_all(body_shared, sizes);
}

/* Nothing is allowed; too much is refused in words. */
static void test_edges(void **state) {
  (void)state;
  void *at = NULL, *shared = NULL;
  assert_ok(kwm_device_alloc(test_device, &at, 0, "nothing"));
  assert_ok(kwm_device_share(test_device, &shared, 0, "nothing"));
  assert_non_null(at);
  assert_non_null(shared);
  kwm_device_put(test_device, at, NULL, 0);
  kwm_device_get(test_device, NULL, at, 0);
  kwm_device_copy(test_device, at, NULL, 0);
  kwm_device_zero(test_device, at, 0);
  kwm_device_copy_rows(test_device, 0, 3, at, 3, NULL, 3);
  kwm_device_copy_rows(test_device, 3, 0, at, 3, NULL, 3);
  kwm_device_add(test_device, 0, NULL, at);
  kwm_device_gemm(test_device, false, false, 0, 3, 3, 1, NULL, 3, NULL, 3, 0, at, 3);
  kwm_device_wait(test_device);
  kwm_device_free(test_device, at);
  kwm_device_free(test_device, shared);
  kwm_device_free(test_device, NULL);
  assert_int_equal(kwm_device_alloc(test_device, &at, (size_t)1 << 50, "far too much"), KWM_ERR_SYSTEM);
  assert_non_null(strstr(kwm_error_message(), "far too much"));
  assert_null(at);
}

/* Many pieces at once, freed in another order, and handed out again. */
static void test_pieces(void **state) {
  (void)state;
  enum { PIECES = 50 };
  float *piece[PIECES] = {NULL};
  for (int round = 0; round < 3; round++)
    for (int k = 0; k < PIECES; k++) {
      const int which = (k * 7 + round) % PIECES, n = 1 + (k * 37 + 11 * round) % 999;
      kwm_device_free(test_device, piece[which]);
      assert_ok(kwm_device_alloc(test_device, (void **)&piece[which], (size_t)(n + 1) * sizeof(float), "piece"));
      const float mark = (float)which;
      kwm_device_put(test_device, piece[which] + n, &mark, sizeof mark);
      kwm_device_put(test_device, piece[which], &mark, sizeof mark);
    }
  for (int which = 0; which < PIECES; which++) {
    float mark = -1;
    kwm_device_get(test_device, &mark, piece[which], sizeof mark);
    assert_int_equal((int)mark, which);
    kwm_device_free(test_device, piece[which]);
  }
}

static void test_names(void **state) {
  (void)state;
  const struct kwm_device_spec spec = {0};
  const char *const name = getenv("KWM_TEST_BACKEND");
  kwm_device *none = test_device;
  assert_string_equal(kwm_device_name(test_device), name == NULL ? "shadow" : name);
  assert_true(test_device->memory > 0 && test_device->words[0] != '\0');
  assert_string_equal(kwm_device_name(NULL), "cpu");
  assert_ok(kwm_device_open(&none, "cpu", &spec));
  assert_null(none);
  assert_int_equal(kwm_device_open(&none, "abacus", &spec), KWM_ERR_USAGE);
  assert_non_null(strstr(kwm_error_message(), "abacus"));
  assert_false(kwm_device_offers(NULL));
  kwm_device_close(NULL);
}

/* The host's part of the same calls. */
static void test_host(void **state) {
  (void)state;
  enum { N = 6 };
  const float from[N] = {1, 2, 3, 4, 5, 6};
  float *at = NULL, *to = NULL, found[N];
  assert_ok(kwm_device_alloc(NULL, (void **)&at, sizeof from, "host"));
  assert_ok(kwm_device_share(NULL, (void **)&to, sizeof from, "host"));
  for (int k = 0; k < N; k++) assert_true(at[k] == 0 && to[k] == 0);
  kwm_device_put(NULL, at, from, sizeof from);
  kwm_device_copy(NULL, to, at, sizeof from);
  kwm_device_add(NULL, N, at, to);
  kwm_device_copy_rows(NULL, 2, 2, at, 3, to, 3);
  kwm_device_get(NULL, found, at, sizeof from);
  const float wanted[N] = {2, 4, 3, 8, 10, 6};
  assert_memory_equal(found, wanted, sizeof found);
  kwm_device_gemm(NULL, false, true, 2, 2, 3, 1, from, 3, from, 3, 0, found, 2);
  const float product[4] = {14, 32, 32, 77};
  assert_memory_equal(found, product, sizeof product);
  kwm_device_zero(NULL, at, sizeof from);
  for (int k = 0; k < N; k++) assert_true(at[k] == 0);
  kwm_device_wait(NULL);
  kwm_device_free(NULL, at);
  kwm_device_free(NULL, to);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_round),  cmocka_unit_test(test_rows),   cmocka_unit_test(test_columns),
    cmocka_unit_test(test_order),  cmocka_unit_test(test_shared), cmocka_unit_test(test_edges),
    cmocka_unit_test(test_pieces), cmocka_unit_test(test_names),  cmocka_unit_test(test_host),
};

DEVICE_TEST_MAIN(tests)
