/* `lowrank` over many steps and with awkward input: the gap to the dense filter closes with the rank, long runs stay
   finite and positive, degenerate rows do no harm, wrong use is refused. */
#include "lowrank_case.h"

enum { ROWS = COV_SAMPLES * COV_OUTPUTS, N = 48 };

/* Posterior and gain of form B with that many columns against the dense filter, after eight steps. */
static void gap(int64_t rank, double *kl, double *gain) {
  const struct cov_shape shape = lowrank_units(KWM_LOWRANK_PRECISION, rank);
  kwm_cov cov = cov_new(&shape, 0.98, 0.001);
  double *const prior = cov_prior(&shape), *const P = dense_diagonal(N, prior), delta[N];
  *kl = *gain = 0;
  for (int64_t step = 0; step < 8; step++) {
    struct jac_case made = cov_jac(&shape, (uint64_t)(1300 + step));
    /* Outputs of very different weight, so that directions of all strengths occur. */
    for (int64_t k = 0; k < ROWS * 2 * 16; k++) made.J[k] *= (float)pow(0.5, (double)(k / 32 % COV_OUTPUTS * 2));
    float mean[N] = {0};
    dense_predict(N, P, prior, 0.98, 0.001);
    dense_measure(N, P, &made.jac, delta);
    assert_true(kwm_cov_predict(&cov, step));
    cov_measure(&cov, &made.jac, 1, mean);
    struct cov_state found = cov_state_of(&cov);
    *kl += dense_kl(N, P, found.P);
    *gain += dense_error_f32(N, mean, delta);
    cov_state_drop(&found), jac_drop(&made);
  }
  free(prior), free(P), kwm_cov_destroy(&cov);
}

static void test_gap(void **state) {
  (void)state;
  static const int64_t ranks[] = {1, 2, 4, 8, 16, 24, 32, 40, 48};
  double last_kl = INFINITY, last_gain = INFINITY;
  for (size_t k = 0; k < sizeof ranks / sizeof ranks[0]; k++) {
    double kl, gain;
    gap(ranks[k], &kl, &gain);
    assert_below(kl, last_kl);
    assert_below(gain, last_gain);
    last_kl = kl, last_gain = gain;
  }
  assert_below(last_kl, 1e-6);
  assert_below(last_gain, 1e-4);
}

/* Two thousand steps, data of all sizes: finite, positive, symmetric, never above what forgetting and noise allow. */
static void check_long(const struct cov_shape *shape, double lambda, double q) {
  const int64_t n = cov_numbers(shape);
  kwm_cov cov = cov_new(shape, lambda, q);
  float mean[N] = {0};
  for (int64_t step = 0; step < 2000; step++) {
    struct jac_case made = cov_jac(shape, (uint64_t)(3000 + step));
    const int64_t numbers = made.jac.n * made.jac.m * (shape->d_o > 0 ? shape->d_o : 2 * shape->count);
    const float size = (float)pow(10, (double)(step % 5 - 3));
    for (int64_t k = 0; k < numbers; k++) made.J[k] *= size;
    assert_true(kwm_cov_predict(&cov, step));
    cov_measure(&cov, &made.jac, 0.1, mean);
    jac_drop(&made);
  }
  struct cov_state found = cov_state_of(&cov);
  struct kwm_health health = {0};
  kwm_cov_health(&cov, &health);
  for (int64_t k = 0; k < n; k++) assert_true(isfinite(mean[k]));
  assert_true(health.trace > 0 && health.trace <= health.prior_trace * (1 + 2000 * q) * (1 + 1e-6));
  assert_close(health.trace, dense_trace(n, found.P), 1e-5, 0);
  const double lowest = dense_smallest(n, found.P);
  assert_true(shape->kind == KWM_LOWRANK_SUBSPACE && shape->rank < n ? lowest > -1e-6 : lowest > 0);
  cov_state_drop(&found), kwm_cov_destroy(&cov);
}

static void test_long(void **state) {
  (void)state;
  const struct cov_shape shapes[] = {
      lowrank_matrix(KWM_LOWRANK_PRECISION, 4, 3, 5), lowrank_matrix(KWM_LOWRANK_PRECISION, 15, 3, 5),
      lowrank_matrix(KWM_LOWRANK_COVARIANCE, 4, 3, 5), lowrank_matrix(KWM_LOWRANK_SUBSPACE, 4, 3, 5),
      lowrank_matrix(KWM_LOWRANK_SUBSPACE, 6, 2, 3)};
  for (size_t c = 0; c < sizeof shapes / sizeof shapes[0]; c++) {
    check_long(&shapes[c], 0.99, 1e-3);
    check_long(&shapes[c], 1, 0);
  }
}

/* Rows twice, rows scaled from tiny to huge, more rows than parameters: still the dense posterior, as far as S in
   single precision can tell it. */
static void test_degenerate(void **state) {
  (void)state;
  static const float sizes[] = {1e-12f, 1e-3f, 1, 30};
  static const enum kwm_lowrank_kind kinds[] = {KWM_LOWRANK_PRECISION, KWM_LOWRANK_SUBSPACE};
  for (int c = 0; c < 8; c++)
    for (int twice = 0; twice < 2; twice++) {
      const struct cov_shape shape = lowrank_matrix(kinds[c % 2], 6, 2, 3);
      kwm_cov cov = cov_new(&shape, 1, 0);
      struct jac_case made = cov_jac(&shape, 1320);
      for (int64_t k = 0; k < ROWS * 2; k++) made.J[k] *= sizes[c / 2];
      for (int64_t k = 0; twice && k < ROWS * 2; k++) made.J[k] = made.J[k % 6];
      for (int64_t k = 0; twice && k < COV_SAMPLES * 3; k++) made.a[k] = made.a[k % 3];
      double *const prior = cov_prior(&shape), *const P = dense_diagonal(6, prior), delta[6];
      float mean[6] = {0};
      dense_measure(6, P, &made.jac, delta);
      cov_measure(&cov, &made.jac, 1, mean);
      struct cov_state found = cov_state_of(&cov);
      assert_below(dense_error(36, found.P, P), 5e-4);
      assert_below(dense_error_f32(6, mean, delta), 5e-4);
      assert_true(dense_smallest(6, found.P) > 0);
      free(prior), free(P), cov_state_drop(&found), jac_drop(&made), kwm_cov_destroy(&cov);
    }
}

/* Beyond what S can hold in single precision: no accuracy, but finite, positive, and the next step works. */
static void test_huge(void **state) {
  (void)state;
  for (int c = 0; c < 3; c++) {
    static const double lengths[2] = {2, 1};
    const struct cov_shape shape = lowrank_matrix((enum kwm_lowrank_kind)c, 4, 3, 5);
    kwm_cov cov = cov_new(&shape, 1, 0);
    float mean[15] = {0};
    if (c == KWM_LOWRANK_COVARIANCE) lowrank_plant(&cov, 1, 2, lengths);
    for (int64_t step = 0; step < 6; step++) {
      struct jac_case made = jac_outer(1, 1, 3, 5, (uint64_t)(1330 + step / 2));
      for (int k = 0; k < 3; k++) made.J[k] *= step % 2 == 0 ? 1e7f : 1;
      cov_measure(&cov, &made.jac, 1, mean);
      jac_drop(&made);
      struct kwm_health health = {0};
      kwm_cov_health(&cov, &health);
      assert_true(isfinite(health.trace) && health.trace > 0 && health.trace <= 1.5 * health.prior_trace);
      for (int k = 0; k < 15; k++) assert_true(isfinite(mean[k]));
    }
    kwm_cov_destroy(&cov);
  }
}

/* Form B knows a huge row to all digits: what is left of HPHᵀ is rounding, and S stays positive all the same. */
static void test_known_row(void **state) {
  (void)state;
  for (int64_t stream = 0; stream < 40; stream++) {
    const struct cov_shape shape = lowrank_matrix(KWM_LOWRANK_PRECISION, 4, 3, 5);
    kwm_cov cov = cov_new(&shape, 1, 0);
    float mean[15] = {0};
    struct jac_case made = jac_outer(1, 1, 3, 5, (uint64_t)(1350 + stream));
    for (int k = 0; k < 3; k++) made.J[k] *= 1e9f;
    for (int step = 0; step < 3; step++) {
      float S[1] = {1};
      kwm_cov_project(&cov, &made.jac, S);
      assert_true(S[0] > 0);
      cov_measure(&cov, &made.jac, 1, mean);
    }
    jac_drop(&made), kwm_cov_destroy(&cov);
  }
}

/* An observation that is not finite is refused: S is not, then. */
static void test_not_finite(void **state) {
  (void)state;
  for (int c = 0; c < 3; c++) {
    const struct cov_shape shape = lowrank_matrix((enum kwm_lowrank_kind)c, 4, 3, 5);
    kwm_cov cov = cov_new(&shape, 1, 0);
    struct jac_case made = cov_jac(&shape, 1340);
    struct cov_step step;
    float S[ROWS * ROWS] = {0};
    assert_true(cov_prepare(&cov, &made.jac, &step));
    struct cov_state before = cov_state_of(&cov);
    made.J[1] = NAN;
    kwm_cov_project(&cov, &made.jac, S);
    assert_true(isnan(S[0]));
    assert_false(kwm_cov_condition(&cov, &made.jac, step.S, step.w));
    made.J[1] = 1;
    kwm_cov_project(&cov, &made.jac, S);
    step.S[ROWS] = NAN;
    assert_false(kwm_cov_condition(&cov, &made.jac, step.S, step.w));
    struct cov_state after = cov_state_of(&cov);
    assert_true(cov_same_state(&before, &after));
    cov_state_drop(&before), cov_state_drop(&after);
    cov_step_drop(&step), jac_drop(&made), kwm_cov_destroy(&cov);
  }
}

/* A state that is not finite shows in S, too. */
static void test_broken_state(void **state) {
  (void)state;
  static const double lengths[1] = {NAN};
  for (int c = 0; c < 3; c++) {
    const struct cov_shape shape = lowrank_matrix((enum kwm_lowrank_kind)c, 4, 3, 5);
    kwm_cov cov = cov_new(&shape, 1, 0);
    struct jac_case made = cov_jac(&shape, 1390);
    float S[ROWS * ROWS] = {0};
    lowrank_plant(&cov, 1, 1, lengths);
    kwm_cov_project(&cov, &made.jac, S);
    assert_true(isnan(S[0]));
    jac_drop(&made), kwm_cov_destroy(&cov);
  }
}

/* The subspace is a function of the seed. */
static void test_seed(void **state) {
  (void)state;
  const struct cov_shape shape = lowrank_units(KWM_LOWRANK_SUBSPACE, 4);
  struct kwm_cov_spec spec = cov_spec_of(&shape, 1, 0);
  kwm_cov a = cov_new(&shape, 1, 0), b = cov_new(&shape, 1, 0), other;
  spec.seed++;
  assert_ok(kwm_cov_create(&other, &kwm_cov_lowrank, &spec));
  struct cov_state x = cov_state_of(&a), y = cov_state_of(&b), z = cov_state_of(&other);
  assert_true(cov_same_state(&x, &y));
  assert_below(0.5, dense_error(N * N, z.P, x.P));
  cov_state_drop(&x), cov_state_drop(&y), cov_state_drop(&z);
  kwm_cov_destroy(&a), kwm_cov_destroy(&b), kwm_cov_destroy(&other);
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
  spec.form = KWM_FORM_INFORMATION;
  refused(&spec, "lowrank: wanted form innovation");
  spec = cov_spec_of(&shape, 1, 0);
  spec.total = 32;
  refused(&spec, "lowrank keeps the group's blocks together: wanted them on one owner, found 16 of 32");
  spec = cov_spec_of(&shape, 1, 0);
  spec.rank = 0;
  refused(&spec, "wanted rank >= 1, found 0");
}

/* A state of another kind or rank is not taken. */
static void test_other_state(void **state) {
  (void)state;
  const struct cov_shape shape = lowrank_units(KWM_LOWRANK_PRECISION, 4);
  struct cov_shape other = shape;
  struct cov_file file;
  kwm_cov cov = cov_new(&shape, 1, 0);
  cov_write(&cov, &file);
  other.kind = KWM_LOWRANK_COVARIANCE;
  kwm_cov twin = cov_new(&other, 1, 0);
  assert_int_equal(kwm_cov_load(&twin, file.ckpt), KWM_ERR_DATA);
  assert_non_null(strstr(kwm_error_message(), "wanted kind 1, found 0"));
  kwm_cov_destroy(&twin);
  other = shape, other.rank = 5;
  twin = cov_new(&other, 1, 0);
  assert_int_equal(kwm_cov_load(&twin, file.ckpt), KWM_ERR_DATA);
  kwm_cov_destroy(&twin), kwm_cov_destroy(&cov), cov_file_drop(&file);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_gap),          cmocka_unit_test(test_long),      cmocka_unit_test(test_degenerate),
    cmocka_unit_test(test_huge),         cmocka_unit_test(test_known_row), cmocka_unit_test(test_not_finite),
    cmocka_unit_test(test_broken_state), cmocka_unit_test(test_seed),      cmocka_unit_test(test_refused),
    cmocka_unit_test(test_other_state),
};
KWM_TEST_MAIN(tests)
