/* `lowrank` over many steps and with awkward input: the gap to the dense filter closes with the rank, long runs stay
   finite and positive, degenerate rows do no harm. */
#include "lowrank_case.h"

enum { ROWS = COV_SAMPLES * COV_OUTPUTS, N = 48 };

/* KL(posterior || dense filter's) and error of the gain of form B with that many columns, summed over eight steps. */
static void gap(int64_t rank, int way, double *kl, double *gain) {
  const struct cov_shape shape = lowrank_way(lowrank_units(KWM_LOWRANK_PRECISION, rank), way);
  kwm_cov cov = cov_new(&shape, 0.98, 0.001);
  double *const prior = cov_prior(&shape), *const P = dense_diagonal(N, prior), delta[N], found_delta[N];
  const float anchor[N] = {0};
  *kl = *gain = 0;
  for (int64_t step = 0; step < 8; step++) {
    struct jac_case made = cov_jac(&shape, (uint64_t)(1300 + step));
    /* Outputs of very different weight, so that directions of all strengths occur. */
    for (int64_t k = 0; k < ROWS * 2 * 16; k++) made.J[k] *= (float)pow(0.5, (double)(k / 32 % COV_OUTPUTS * 2));
    float mean[N] = {0};
    dense_predict(N, P, prior, 0.98, 0.001);
    dense_measure(N, P, &made.jac, delta);
    assert_true(kwm_cov_predict(&cov, step, anchor, mean));
    lowrank_measure(&cov, &made.jac, mean, found_delta);
    struct cov_state found = cov_state_of(&cov);
    *kl += dense_kl(N, P, found.P);
    *gain += dense_error(N, found_delta, delta);
    cov_state_drop(&found), jac_drop(&made);
  }
  free(prior), free(P), kwm_cov_destroy(&cov);
}

static void test_gap(void **state) {
  (void)state;
  static const int64_t ranks[] = {1, 2, 4, 8, 16, 24, 32, 40, 48};
  for (int way = 0; way < LOWRANK_WAYS; way++) {
    double last_kl = INFINITY, last_gain = INFINITY;
    for (size_t k = 0; k < sizeof ranks / sizeof ranks[0]; k++) {
      double kl, gain;
      gap(ranks[k], way, &kl, &gain);
      assert_below(kl, last_kl);
      assert_below(gain, last_gain);
      last_kl = kl, last_gain = gain;
    }
    assert_below(last_kl, way / 2 == KWM_REAL_DOUBLE ? 1e-11 : 1e-6);
    assert_below(last_gain, way / 2 == KWM_REAL_DOUBLE ? 1e-11 : 1e-4);
  }
}

/* After a long run: finite, positive, symmetric, never above what forgetting and noise allow; within its subspace form
   S is positive, too: all its columns are there. */
static void check_survived(const kwm_cov *cov, const struct cov_shape *shape, const float *mean, double most) {
  const int64_t n = cov_numbers(shape), r = shape->rank < n ? shape->rank : n;
  double *const P = dense_new(n * n), *const values = dense_new(n + 1);
  struct kwm_health health = {0};
  kwm_cov_health(cov, &health);
  for (int64_t k = 0; k < n; k++) assert_true(isfinite(mean[k]));
  assert_true(kwm_cov_covariance(cov, P));
  for (int64_t k = 0; k < n * n; k++) assert_true(P[k] == P[k % n * n + k / n]);
  assert_true(health.trace > 0 && health.trace <= health.prior_trace * most);
  assert_close(health.trace, dense_trace(n, P), 1e-5, 0);
  assert_true(kwm_cov_spectrum(cov, values));
  assert_true(values[0] > 0);
  const double lowest = dense_smallest(n, P);
  assert_true(shape->kind == KWM_LOWRANK_SUBSPACE && r < n ? lowest > -1e-6 : lowest > 0);
  free(P), free(values);
}

/* Data of all sizes. */
static void check_long(const struct cov_shape *shape, double lambda, double q) {
  enum { LONG = 1500 };
  kwm_cov cov = cov_new(shape, lambda, q);
  float mean[N] = {0};
  const float anchor[N] = {0};
  for (int64_t step = 0; step < LONG; step++) {
    struct jac_case made = cov_jac(shape, (uint64_t)(3000 + step));
    const int64_t numbers = made.jac.n * made.jac.m * (shape->d_o > 0 ? shape->d_o : 2 * shape->count);
    const float size = (float)pow(10, (double)(step % 5 - 3));
    for (int64_t k = 0; k < numbers; k++) made.J[k] *= size;
    assert_true(kwm_cov_predict(&cov, step, anchor, mean));
    cov_measure(&cov, &made.jac, 0.1, mean);
    jac_drop(&made);
  }
  check_survived(&cov, shape, mean, (1 + LONG * q) * (1 + 1e-6));
  kwm_cov_destroy(&cov);
}

static void test_long(void **state) {
  (void)state;
  const struct cov_shape shapes[] = {
      lowrank_matrix(KWM_LOWRANK_PRECISION, 4, 3, 5),  lowrank_matrix(KWM_LOWRANK_PRECISION, 15, 3, 5),
      lowrank_matrix(KWM_LOWRANK_COVARIANCE, 4, 3, 5), lowrank_matrix(KWM_LOWRANK_SUBSPACE, 4, 3, 5),
      lowrank_matrix(KWM_LOWRANK_SUBSPACE, 6, 2, 3),   lowrank_matrix(KWM_LOWRANK_DIAGONAL, 4, 3, 5),
      lowrank_matrix(KWM_LOWRANK_DIAGONAL, 15, 3, 5)};
  for (size_t c = 0; c < sizeof shapes / sizeof shapes[0]; c++) {
    const struct cov_shape wide = lowrank_way(shapes[c], 0), narrow = lowrank_way(shapes[c], 2 + (int)c % 2);
    check_long(&wide, 0.99, 1e-3);
    check_long(&narrow, 0.99, 1e-3);
    check_long(&narrow, 1, 0);
  }
}

/* A hundred thousand steps of a state in float, by a few rows that come again and again. */
static void check_very_long(const struct cov_shape *shape, double lambda, double q) {
  enum { LONG = 100000, CASES = 16 };
  struct jac_case made[CASES];
  struct kwm_cov_spec spec = cov_spec_of(shape, lambda, q);
  kwm_cov cov;
  float mean[N] = {0};
  const float anchor[N] = {0};
  spec.n_max = spec.m = 1;
  assert_ok(kwm_cov_create(&cov, &kwm_cov_lowrank, &spec));
  for (int c = 0; c < CASES; c++) made[c] = jac_outer(1, 1, shape->d_o, shape->d_i, (uint64_t)(5000 + c));
  for (int64_t step = 0; step < LONG; step++) {
    double kl;
    assert_true(kwm_cov_predict(&cov, step, anchor, mean));
    assert_true(kwm_cov_absorb(&cov, &made[step % CASES].jac, NULL, 1, &kl));
    kwm_cov_apply(&cov, 1, mean);
  }
  check_survived(&cov, shape, mean, 1 / lambda + q / (1 - lambda + 1e-12));
  for (int c = 0; c < CASES; c++) jac_drop(&made[c]);
  kwm_cov_destroy(&cov);
}

static void test_very_long(void **state) {
  (void)state;
  for (int c = 0; c < 4; c++) {
    const struct cov_shape shape =
        lowrank_as(lowrank_matrix((enum kwm_lowrank_kind)c, 3, 2, 3), KWM_FORM_INFORMATION, KWM_REAL_FLOAT);
    check_very_long(&shape, 1, 0);
    check_very_long(&shape, 0.999, 1e-4);
  }
}

/* Rows twice, rows scaled from tiny to huge, more rows than parameters: still the dense posterior, as far as the
   state's precision can tell it. */
static void test_degenerate(void **state) {
  (void)state;
  static const float sizes[] = {1e-12f, 1e-3f, 1, 30};
  static const enum kwm_lowrank_kind kinds[] = {KWM_LOWRANK_PRECISION, KWM_LOWRANK_SUBSPACE, KWM_LOWRANK_DIAGONAL};
  for (int c = 0; c < 12 * LOWRANK_WAYS; c++)
    for (int twice = 0; twice < 2; twice++) {
      const struct cov_shape shape = lowrank_way(lowrank_matrix(kinds[c % 3], 6, 2, 3), c / 12);
      const double close = shape.real == KWM_REAL_DOUBLE ? 1e-9 : 5e-4;
      kwm_cov cov = cov_new(&shape, 1, 0);
      struct jac_case made = cov_jac(&shape, 1320);
      for (int64_t k = 0; k < ROWS * 2; k++) made.J[k] *= sizes[c / 3 % 4];
      for (int64_t k = 0; twice && k < ROWS * 2; k++) made.J[k] = made.J[k % 6];
      for (int64_t k = 0; twice && k < COV_SAMPLES * 3; k++) made.a[k] = made.a[k % 3];
      double *const prior = cov_prior(&shape), *const P = dense_diagonal(6, prior), delta[6], found_delta[6];
      float mean[6] = {0};
      dense_measure(6, P, &made.jac, delta);
      lowrank_measure(&cov, &made.jac, mean, found_delta);
      struct cov_state found = cov_state_of(&cov);
      assert_below(dense_error(36, found.P, P), close);
      assert_below(dense_error(6, found_delta, delta), close);
      assert_true(dense_smallest(6, found.P) > 0);
      free(prior), free(P), cov_state_drop(&found), jac_drop(&made), kwm_cov_destroy(&cov);
    }
}

/* Beyond what any precision can hold: no accuracy, but finite, positive, and the next step works. */
static void test_huge(void **state) {
  (void)state;
  for (int c = 0; c < 4 * LOWRANK_WAYS; c++) {
    static const double lengths[2] = {2, 1};
    const struct cov_shape shape = lowrank_way(lowrank_matrix((enum kwm_lowrank_kind)(c % 4), 4, 3, 5), c / 4);
    kwm_cov cov = cov_new(&shape, 1, 0);
    float mean[15] = {0};
    if (shape.kind == KWM_LOWRANK_COVARIANCE) lowrank_plant(&cov, 1, 2, lengths);
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
      double S[1] = {1};
      kwm_cov_project(&cov, &made.jac, S);
      assert_true(S[0] > 0);
      cov_measure(&cov, &made.jac, 1, mean);
    }
    kwm_cov_destroy(&cov);
    const struct cov_shape alone = lowrank_as(shape, KWM_FORM_INFORMATION, KWM_REAL_FLOAT);
    cov = cov_new(&alone, 1, 0);
    for (int step = 0; step < 3; step++) cov_measure(&cov, &made.jac, 1, mean);
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

/* Directions drawn at random, as many as there are parameters, may be nearly dependent; they become orthonormal all the
   same, to the state's own precision. */
static void test_drawn(void **state) {
  (void)state;
  const struct cov_shape shape = lowrank_units(KWM_LOWRANK_SUBSPACE, N);
  double *const prior = cov_prior(&shape), *const wanted = dense_diagonal(N, prior), *const P = dense_new(N * N);
  for (uint64_t seed = 0; seed < 40; seed++) {
    struct kwm_cov_spec spec = cov_spec_of(&shape, 1, 0);
    kwm_cov cov;
    spec.seed = seed;
    assert_ok(kwm_cov_create(&cov, &kwm_cov_lowrank, &spec));
    assert_true(kwm_cov_covariance(&cov, P));
    assert_below(dense_error(N * N, P, wanted), 1e-13);
    kwm_cov_destroy(&cov);
  }
  free(prior), free(wanted), free(P);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_gap),        cmocka_unit_test(test_long),  cmocka_unit_test(test_very_long),
    cmocka_unit_test(test_degenerate), cmocka_unit_test(test_huge),  cmocka_unit_test(test_known_row),
    cmocka_unit_test(test_seed),       cmocka_unit_test(test_drawn),
};
KWM_TEST_MAIN(tests)
