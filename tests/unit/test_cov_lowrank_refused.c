/* `lowrank`, what it refuses: numbers that are not finite, in the rows or in the state, wrong use, other states. And
   what must leave a state alone. */
#include "lowrank_case.h"

enum { ROWS = COV_SAMPLES * COV_OUTPUTS };

static struct cov_shape shape_of(int c) {
  return lowrank_way(lowrank_matrix((enum kwm_lowrank_kind)(c % 4), 4, 3, 5), c / 4);
}

/* Absorb, or project and condition, with rows that hold a number that is not one. */
static bool prepares(kwm_cov *cov, const struct kwm_jac *jac, const struct cov_step *good) {
  double S[ROWS * ROWS] = {0}, kl[1];
  if (cov->spec.form == KWM_FORM_INFORMATION) return kwm_cov_absorb(cov, jac, NULL, jac->n, kl);
  kwm_cov_project(cov, jac, S);
  assert_true(isnan(S[0]));
  return kwm_cov_condition(cov, jac, good->S, good->w);
}

/* An observation that is not finite is refused, and a step that was begun is given up without a trace. */
static void test_not_finite(void **state) {
  (void)state;
  for (int c = 0; c < 4 * LOWRANK_WAYS; c++) {
    const struct cov_shape shape = shape_of(c);
    kwm_cov cov = cov_new(&shape, 1, 0);
    struct jac_case made = cov_jac(&shape, 1340);
    struct cov_step step;
    double S[ROWS * ROWS] = {0}, kl[1];
    float mean[15] = {0};
    cov_measure(&cov, &made.jac, 1, mean);
    struct cov_state before = cov_state_of(&cov);
    assert_true(cov_prepare(&cov, &made.jac, &step));
    const float J = made.J[1], e = made.e[0];
    made.J[1] = NAN;
    assert_false(prepares(&cov, &made.jac, &step));
    made.J[1] = J, made.e[0] = INFINITY;
    if (shape.form == KWM_FORM_INNOVATION) {
      kwm_cov_project(&cov, &made.jac, S);
      step.S[ROWS] = NAN;
      assert_false(kwm_cov_condition(&cov, &made.jac, step.S, step.w));
    } else {
      assert_false(kwm_cov_absorb(&cov, &made.jac, NULL, COV_SAMPLES, kl));
    }
    made.e[0] = e;
    struct cov_state after = cov_state_of(&cov);
    assert_true(cov_same_state(&before, &after));
    cov_state_drop(&before), cov_state_drop(&after);
    cov_step_drop(&step), jac_drop(&made), kwm_cov_destroy(&cov);
  }
}

/* A state that is not finite shows wherever one looks, and moves no mean. */
static void test_broken_state(void **state) {
  (void)state;
  static const double lengths[1] = {NAN};
  for (int c = 0; c < 4 * LOWRANK_WAYS; c++) {
    const struct cov_shape shape = shape_of(c);
    kwm_cov cov = cov_new(&shape, 0.9, 0.1);
    struct jac_case made = cov_jac(&shape, 1390);
    struct cov_step none = {.S = dense_new(ROWS * ROWS), .w = dense_new(ROWS)};
    struct kwm_health health = {0};
    float mean[15] = {0}, anchor[15];
    double P[15 * 15], values[16];
    lowrank_anchor(15, anchor);
    lowrank_plant(&cov, 1, 1, lengths);
    assert_false(prepares(&cov, &made.jac, &none));
    assert_false(kwm_cov_predict(&cov, 0, anchor, mean));
    for (int k = 0; k < 15; k++) assert_true(mean[k] == 0);
    assert_true(lowrank_floor(&cov) == 1);
    assert_false(kwm_cov_covariance(&cov, P));
    assert_false(kwm_cov_spectrum(&cov, values));
    kwm_cov_health(&cov, &health);
    assert_true(isnan(health.trace));
    cov_step_drop(&none), jac_drop(&made), kwm_cov_destroy(&cov);
  }
}

/* No rows to see: nothing changes, bit for bit. No innovation: the mean does not (50). */
static void test_nothing_seen(void **state) {
  (void)state;
  for (int c = 0; c < 4 * LOWRANK_WAYS; c++) {
    const struct cov_shape shape = shape_of(c);
    kwm_cov cov = cov_new(&shape, 1, 0);
    struct jac_case made = cov_jac(&shape, 1395);
    float mean[15], first[15];
    lowrank_anchor(15, mean), lowrank_anchor(15, first);
    struct cov_state before = cov_state_of(&cov);
    for (int k = 0; k < ROWS; k++) made.e[k] = 0;
    cov_measure(&cov, &made.jac, 1, mean);
    assert_memory_equal(mean, first, sizeof mean);
    struct cov_state after = cov_state_of(&cov);
    assert_true(!cov_learns(&shape) || dense_trace(15, after.P) < dense_trace(15, before.P));
    for (int k = 0; k < ROWS * 3; k++) made.J[k] = 0;
    for (int k = 0; k < ROWS; k++) made.e[k] = 1;
    cov_measure(&cov, &made.jac, 1, mean);
    assert_memory_equal(mean, first, sizeof mean);
    struct cov_state last = cov_state_of(&cov);
    assert_true(cov_same_state(&after, &last));
    cov_state_drop(&before), cov_state_drop(&after), cov_state_drop(&last), jac_drop(&made), kwm_cov_destroy(&cov);
  }
}

static void refused(const struct kwm_cov_spec *spec, const char *words) {
  kwm_cov cov;
  const size_t before = kwm_mem_bytes();
  assert_int_equal(kwm_cov_create(&cov, &kwm_cov_lowrank, spec), KWM_ERR_USAGE);
  assert_non_null(strstr(kwm_error_message(), words));
  kwm_cov_destroy(&cov);
  assert_int_equal(kwm_mem_bytes(), before);
}

static void test_refused(void **state) {
  (void)state;
  const struct cov_shape shape = lowrank_units(KWM_LOWRANK_PRECISION, 4);
  struct kwm_cov_spec spec = cov_spec_of(&shape, 1, 0);
  spec.total = 32;
  refused(&spec, "lowrank keeps the group's blocks together: wanted them on one owner, found 16 of 32");
  spec = cov_spec_of(&shape, 1, 0);
  spec.rank = 0;
  refused(&spec, "wanted rank >= 1, found 0");
}

/* A state of another kind, rank or real is not taken. */
static void test_other_state(void **state) {
  (void)state;
  const struct cov_shape shape = lowrank_units(KWM_LOWRANK_PRECISION, 4);
  struct cov_shape others[3] = {shape, shape, shape};
  static const char *const words[3] = {"wanted kind 1, found 0", "/cov/group/factor", "/cov/group/factor"};
  struct cov_file file;
  kwm_cov cov = cov_new(&shape, 1, 0);
  cov_write(&cov, &file);
  others[0].kind = KWM_LOWRANK_COVARIANCE, others[1].rank = 5, others[2].real = KWM_REAL_FLOAT;
  for (int c = 0; c < 3; c++) {
    kwm_cov twin = cov_new(&others[c], 1, 0);
    assert_int_equal(kwm_cov_load(&twin, file.ckpt), KWM_ERR_DATA);
    assert_non_null(strstr(kwm_error_message(), words[c]));
    kwm_cov_destroy(&twin);
  }
  kwm_cov_destroy(&cov), cov_file_drop(&file);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_not_finite), cmocka_unit_test(test_broken_state), cmocka_unit_test(test_nothing_seen),
    cmocka_unit_test(test_refused),    cmocka_unit_test(test_other_state),
};
KWM_TEST_MAIN(tests)
