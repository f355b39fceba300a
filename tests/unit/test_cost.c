/* Estimated operations of every structure: their leading terms, how they grow, and the sizes that cannot be taken. */
#include "kwm_test.h"

#include "kwm/cov_ops.h"
#include "kwm/full.h"

static const double NEAR = 0.05; /* what the terms that are not leading may add */

static struct kwm_cov_spec units(enum kwm_form form) {
  return (struct kwm_cov_spec){.form = form,
                               .count = 64,
                               .total = 64,
                               .params = 10,
                               .forgetting = 1,
                               .refresh = 100,
                               .rank = 16,
                               .n_max = 100,
                               .m = 10};
}

static struct kwm_cov_spec matrix(enum kwm_form form, int64_t d_o, int64_t d_i) {
  struct kwm_cov_spec spec = units(form);
  spec.count = spec.total = 1;
  spec.d_o = d_o;
  spec.d_i = d_i;
  spec.params = d_o * d_i;
  return spec;
}

static double cube(double x) {
  return x * x * x;
}

static void test_leading_terms(void **state) {
  (void)state;
  const double p = 40 * 200, R = 1000, n = 100;
  struct kwm_cov_spec spec = matrix(KWM_FORM_INFORMATION, 40, 200);
  assert_close(kwm_cov_operations(&kwm_cov_block, &spec), R * p * p + cube(p) / 3, NEAR, 0);
  spec.real = KWM_REAL_FLOAT;
  assert_close(kwm_cov_operations(&kwm_cov_block, &spec), R * p * p + 2 * cube(p) / 3, NEAR, 0);
  spec = matrix(KWM_FORM_INNOVATION, 40, 200);
  assert_close(kwm_cov_operations(&kwm_cov_block, &spec), 3 * R * p * p + 3 * R * R * p + R / p * cube(p) / 3, NEAR, 0);
  spec.real = KWM_REAL_FLOAT;
  assert_close(kwm_cov_operations(&kwm_cov_block, &spec),
               3 * R * p * p + 64 * p * p + 9 * R * R * p + p * cube(R) / 192, NEAR, 0);
  assert_close(kwm_cov_operations(&kwm_cov_kron, &spec), 40 * (4 * n * n * 200 + 6 * R * R) + 2 * cube(R), NEAR, 0);
  assert_close(kwm_cov_operations(&kwm_cov_diag, &spec), 3 * R * R * p, NEAR, 0);
  spec.rank = 4000;
  const double s = 4000 + R;
  assert_close(kwm_cov_operations(&kwm_cov_lowrank, &spec), p * (s * s + 2 * s * 4000 + 6 * R) + 6 * cube(s), 2 * NEAR,
               0);
}

/* With the defaults' sizes, what the pipe's balance of ranks takes kron and units for is about the same. */
static void test_small_terms(void **state) {
  (void)state;
  const double o = 256, i = 513, n = 100, m = 10;
  struct kwm_cov_spec spec = matrix(KWM_FORM_INFORMATION, 256, 513);
  spec.real = KWM_REAL_FLOAT;
  spec.refresh = 1000000000;
  assert_close(kwm_cov_operations(&kwm_cov_kron, &spec),
               n * (m * o * o + 3 * i * i + 2 * o * o + 2 * o * i + 2 * m * o) + 2 * o * i * (o + i) + 2 * cube(o),
               NEAR, 0);
  spec = units(KWM_FORM_INFORMATION);
  assert_close(kwm_cov_operations(&kwm_cov_block, &spec), n * 64 * (10 * m + 2 * 100 + 120), NEAR, 0);
}

/* Twice the blocks, twice the work; none, none; a time update and refreshes are not for nothing. */
static void test_growth(void **state) {
  (void)state;
  const struct kwm_cov_ops *const all[] = {&kwm_cov_block, &kwm_cov_kron, &kwm_cov_diag, &kwm_cov_lowrank};
  for (int k = 0; k < 8; k++) {
    const struct kwm_cov_ops *const ops = all[k % 4];
    const enum kwm_form form = k < 4 ? KWM_FORM_INFORMATION : KWM_FORM_INNOVATION;
    struct kwm_cov_spec spec = matrix(form, 20, 50), none = spec;
    const double still = kwm_cov_operations(ops, &spec);
    none.count = 0;
    assert_true(still > 0);
    assert_true(kwm_cov_operations(ops, &none) == 0);
    spec.forgetting = 0.99;
    spec.process_noise = 0.01;
    assert_true(kwm_cov_operations(ops, &spec) >=
                still * (ops == &kwm_cov_block && form == KWM_FORM_INNOVATION ? 1.1 : 1));
    spec = units(form);
    if (ops == &kwm_cov_kron || ops == &kwm_cov_lowrank) continue;
    const double once = kwm_cov_operations(ops, &spec);
    spec.count = spec.total = 128;
    assert_close(kwm_cov_operations(ops, &spec), 2 * once, 1e-12, 0);
  }
  struct kwm_layout elsewhere = {.size = 2};
  struct kwm_cov_spec spread = matrix(KWM_FORM_INFORMATION, 20, 50);
  spread.count = 0;
  spread.layout = &elsewhere;
  assert_true(kwm_cov_operations(&kwm_cov_lowrank, &spread) > 0); /* every rank of the group mixes columns */
  struct kwm_cov_spec kron = matrix(KWM_FORM_INFORMATION, 20, 50);
  const double seldom = kwm_cov_operations(&kwm_cov_kron, &kron);
  kron.refresh = 1;
  assert_true(kwm_cov_operations(&kwm_cov_kron, &kron) > seldom);
}

static void test_kinds_of_lowrank(void **state) {
  (void)state;
  struct kwm_cov_spec spec = matrix(KWM_FORM_INFORMATION, 2, 5);
  double work[4];
  spec.rank = 10;
  for (int kind = 0; kind < 4; kind++) {
    spec.kind = (enum kwm_lowrank_kind)kind;
    work[kind] = kwm_cov_operations(&kwm_cov_lowrank, &spec);
  }
  assert_true(work[KWM_LOWRANK_SUBSPACE] < work[KWM_LOWRANK_PRECISION]);
  assert_true(work[KWM_LOWRANK_PRECISION] < work[KWM_LOWRANK_COVARIANCE]);
  assert_true(work[KWM_LOWRANK_PRECISION] < work[KWM_LOWRANK_DIAGONAL]);
  const double most = kwm_cov_operations(&kwm_cov_lowrank, &spec);
  spec.rank = 1000; /* more than there are parameters */
  assert_true(kwm_cov_operations(&kwm_cov_lowrank, &spec) == most);
}

static void test_full(void **state) {
  (void)state;
  struct kwm_full_spec spec = {.n = 20000, .rows_max = 100, .real = KWM_REAL_DOUBLE};
  const double n2R = 20000. * 20000 * 100, n3 = cube(20000);
  assert_close(kwm_full_operations(&spec, 1, false, false), 3 * n2R, NEAR, 0);
  assert_close(kwm_full_operations(&spec, 4, false, false), 3 * n2R / 4, NEAR, 0);
  assert_close(kwm_full_operations(&spec, 1, true, true), 3 * n2R + 2 * n3, NEAR, 0);
  spec.real = KWM_REAL_FLOAT;
  assert_close(kwm_full_operations(&spec, 1, false, false), 6 * n2R, NEAR, 0);
  assert_close(kwm_full_operations(&spec, 1, true, false), 6 * n2R + 7 * n3 / 3, NEAR, 0);
  assert_close(kwm_full_operations(&spec, 1, false, true), 6 * n2R + 10 * n3 / 3, NEAR, 0);
}

static void test_countable(void **state) {
  (void)state;
  struct kwm_cov_spec spec = matrix(KWM_FORM_INFORMATION, 2, 16383);
  assert_true(kwm_cov_countable(&kwm_cov_block, &spec));
  spec = matrix(KWM_FORM_INFORMATION, 2, 16384);
  assert_false(kwm_cov_countable(&kwm_cov_block, &spec));
  assert_true(kwm_cov_countable(&kwm_cov_kron, &spec) && kwm_cov_countable(&kwm_cov_diag, &spec));
  spec = matrix(KWM_FORM_INFORMATION, 2, 32767);
  assert_false(kwm_cov_countable(&kwm_cov_kron, &spec));
  spec.rank = 32766 - 1000;
  assert_true(kwm_cov_countable(&kwm_cov_lowrank, &spec));
  spec.rank++;
  assert_false(kwm_cov_countable(&kwm_cov_lowrank, &spec));
  struct kwm_full_spec full = {.n = 46340, .rows_max = 100};
  assert_true(kwm_full_countable(&full, 1));
  full.n++;
  assert_false(kwm_full_countable(&full, 1));
  assert_true(kwm_full_countable(&full, 4));
  full.rows_max = 46341;
  assert_false(kwm_full_countable(&full, 4));
  full = (struct kwm_full_spec){.n = (int64_t)1 << 40, .rows_max = 100};
  assert_false(kwm_full_countable(&full, 4));
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_leading_terms), cmocka_unit_test(test_small_terms),
                                     cmocka_unit_test(test_growth),        cmocka_unit_test(test_kinds_of_lowrank),
                                     cmocka_unit_test(test_full),          cmocka_unit_test(test_countable)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
