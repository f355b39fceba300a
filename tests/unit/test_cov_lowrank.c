/* `lowrank` against the dense textbook filter: where the rank is enough it is that filter; where it is not, S and δ are
   exact for the P at hand and the compression is the one of equations.md Sec. 12 (invariants 24 to 28, 49). */
#include "lowrank_case.h"

enum { STEPS = 5, ROWS = COV_SAMPLES * COV_OUTPUTS, WIDTH_MAX = 48 };
static const double SINGLE = 5e-5, LAMBDA = 0.95, NOISE = 0.02;

/* Several steps of the whole filter, time updates included (25, 28). */
static void check_exact(const struct cov_shape *shape) {
  const int64_t n = cov_numbers(shape);
  kwm_cov cov = cov_new(shape, LAMBDA, NOISE);
  float mean[WIDTH_MAX] = {0};
  double wanted[WIDTH_MAX] = {0}, delta[WIDTH_MAX], S[ROWS * ROWS];
  double *const prior = cov_prior(shape), *const P = dense_diagonal(n, prior);
  for (int64_t step = 0; step < STEPS; step++) {
    struct jac_case made = cov_jac(shape, (uint64_t)(1200 + step));
    double *const H = jac_rows(&made.jac);
    float found_S[ROWS * ROWS] = {0};
    dense_predict(n, P, prior, LAMBDA, NOISE);
    dense_innovation_covariance(n, ROWS, P, H, S);
    dense_measure(n, P, &made.jac, delta);
    for (int64_t k = 0; k < n; k++) wanted[k] += delta[k];
    assert_true(kwm_cov_predict(&cov, step));
    kwm_cov_project(&cov, &made.jac, found_S);
    for (int64_t k = 0; k < ROWS; k++) found_S[k * ROWS + k] += 1;
    assert_below(dense_error_f32(ROWS * ROWS, found_S, S), 5e-6);
    cov_measure(&cov, &made.jac, 1, mean);
    struct cov_state found = cov_state_of(&cov);
    assert_below(dense_error_f32(n, mean, wanted), SINGLE);
    assert_below(dense_error(n * n, found.P, P), SINGLE);
    cov_state_drop(&found), jac_drop(&made), free(H);
  }
  free(P), free(prior), kwm_cov_destroy(&cov);
}

static void test_exact(void **state) {
  (void)state;
  const struct cov_shape shapes[] = {
      lowrank_units(KWM_LOWRANK_PRECISION, 48),        lowrank_units(KWM_LOWRANK_SUBSPACE, 48),
      lowrank_matrix(KWM_LOWRANK_PRECISION, 15, 3, 5), lowrank_matrix(KWM_LOWRANK_SUBSPACE, 15, 3, 5),
      lowrank_matrix(KWM_LOWRANK_PRECISION, 9, 2, 3),  lowrank_matrix(KWM_LOWRANK_SUBSPACE, 9, 1, 1),
  };
  for (size_t c = 0; c < sizeof shapes / sizeof shapes[0]; c++) check_exact(&shapes[c]);
}

/* r >= columns + rows: no loss though r < n (26); trace of Λ in z then grows by that of HᵀH (27). */
static void test_lossless(void **state) {
  (void)state;
  const struct cov_shape shape = lowrank_units(KWM_LOWRANK_PRECISION, 2 * ROWS);
  const int64_t n = cov_numbers(&shape);
  kwm_cov cov = cov_new(&shape, 1, 0);
  double *const prior = cov_prior(&shape), *const P = dense_diagonal(n, prior), delta[WIDTH_MAX];
  float mean[WIDTH_MAX] = {0};
  for (int64_t step = 0; step < 2; step++) {
    struct jac_case made = cov_jac(&shape, (uint64_t)(1210 + step));
    cov_measure(&cov, &made.jac, 1, mean);
    dense_measure(n, P, &made.jac, delta);
    struct cov_state found = cov_state_of(&cov);
    assert_below(dense_error(n * n, found.P, P), 1e-5);
    double *const wanted = dense_copy(n * n, P);
    lowrank_scale(n, found.P, prior, -0.5), lowrank_scale(n, wanted, prior, -0.5);
    dense_invert(n, found.P), dense_invert(n, wanted);
    assert_close(dense_trace(n, found.P), dense_trace(n, wanted), 1e-5, 0);
    free(wanted), cov_state_drop(&found), jac_drop(&made);
  }
  free(prior), free(P), kwm_cov_destroy(&cov);
}

/* One step from the state at hand: S, δ, then the posterior's compression; never below the exact posterior. */
static void check_compression(kwm_cov *cov, const struct cov_shape *shape, uint64_t stream) {
  const int64_t n = cov_numbers(shape);
  struct jac_case made = cov_jac(shape, stream);
  double *const prior = cov_prior(shape), delta[WIDTH_MAX];
  float mean[WIDTH_MAX] = {0};
  struct cov_state before = cov_state_of(cov);
  const double floor = lowrank_floor(cov);
  dense_measure(n, before.P, &made.jac, delta);
  cov_measure(cov, &made.jac, 1, mean);
  struct cov_state after = cov_state_of(cov);
  assert_below(dense_error_f32(n, mean, delta), SINGLE);
  assert_true(dense_excess(n, after.P, before.P) >= -1e-5 * dense_trace(n, before.P));
  dense_compress(n, before.P, prior, shape->kind, shape->rank, floor);
  assert_below(dense_error(n * n, after.P, before.P), SINGLE);
  struct kwm_health health = {0};
  kwm_cov_health(cov, &health);
  assert_close(health.trace, dense_trace(n, after.P), 1e-6, 0);
  free(prior), jac_drop(&made), cov_state_drop(&before), cov_state_drop(&after);
}

static void test_compression_precision(void **state) {
  (void)state;
  const struct cov_shape shapes[] = {lowrank_units(KWM_LOWRANK_PRECISION, 1), lowrank_units(KWM_LOWRANK_PRECISION, 10),
                                     lowrank_matrix(KWM_LOWRANK_PRECISION, 4, 3, 5)};
  for (size_t c = 0; c < sizeof shapes / sizeof shapes[0]; c++) {
    kwm_cov cov = cov_new(&shapes[c], LAMBDA, NOISE);
    for (int64_t step = 0; step < STEPS; step++) {
      assert_true(kwm_cov_predict(&cov, step));
      check_compression(&cov, &shapes[c], (uint64_t)(1220 + step));
    }
    kwm_cov_destroy(&cov);
  }
}

/* Form A from a state with variances above its floor (24): the time update, then the step. */
static void test_covariance(void **state) {
  (void)state;
  static const double lengths[6] = {5, 3, 2, 1, 0.5, 0.1};
  const struct cov_shape shapes[] = {
      lowrank_units(KWM_LOWRANK_COVARIANCE, 6), lowrank_units(KWM_LOWRANK_COVARIANCE, 20),
      lowrank_matrix(KWM_LOWRANK_COVARIANCE, 6, 3, 5), lowrank_matrix(KWM_LOWRANK_COVARIANCE, 15, 3, 5)};
  for (size_t c = 0; c < sizeof shapes / sizeof shapes[0]; c++) {
    const int64_t n = cov_numbers(&shapes[c]);
    kwm_cov cov = cov_new(&shapes[c], LAMBDA, NOISE);
    double *const prior = cov_prior(&shapes[c]);
    lowrank_plant(&cov, 0.01, 6, lengths);
    for (int64_t step = 0; step < 3; step++) {
      struct cov_state before = cov_state_of(&cov);
      dense_predict(n, before.P, prior, LAMBDA, NOISE);
      assert_true(kwm_cov_predict(&cov, step));
      struct cov_state after = cov_state_of(&cov);
      assert_below(dense_error(n * n, after.P, before.P), 1e-5);
      check_compression(&cov, &shapes[c], (uint64_t)(1230 + step));
      cov_state_drop(&before), cov_state_drop(&after);
    }
    free(prior), kwm_cov_destroy(&cov);
  }
}

/* All variances stay above the floor: nothing is lost (26), and the trace is the dense filter's (27). */
static void test_covariance_lossless(void **state) {
  (void)state;
  double lengths[15];
  for (int k = 0; k < 15; k++) lengths[k] = 0.5 + 0.1 * k;
  const struct cov_shape shape = lowrank_matrix(KWM_LOWRANK_COVARIANCE, 15, 3, 5);
  kwm_cov cov = cov_new(&shape, 1, 0);
  float mean[WIDTH_MAX] = {0};
  double delta[WIDTH_MAX];
  lowrank_plant(&cov, 1e-4, 15, lengths);
  struct cov_state before = cov_state_of(&cov);
  struct jac_case made = cov_jac(&shape, 1240);
  dense_measure(15, before.P, &made.jac, delta);
  cov_measure(&cov, &made.jac, 1, mean);
  struct cov_state after = cov_state_of(&cov);
  assert_true(lowrank_floor(&cov) == 1e-4);
  assert_below(dense_error(225, after.P, before.P), SINGLE);
  assert_close(dense_trace(15, after.P), dense_trace(15, before.P), 1e-5, 0);
  cov_state_drop(&before), cov_state_drop(&after), jac_drop(&made), kwm_cov_destroy(&cov);
}

/* Form S with r < n: the dense filter of that singular P; the mean moves within the subspace only. The time update is
   the dense one within the subspace, towards the prior that was drawn. */
static void test_subspace(void **state) {
  (void)state;
  const struct cov_shape shape = lowrank_units(KWM_LOWRANK_SUBSPACE, 10);
  const int64_t n = cov_numbers(&shape);
  kwm_cov cov = cov_new(&shape, LAMBDA, NOISE);
  double *const values = dense_new(n), *const E = dense_new(n * n), *const prior = cov_prior(&shape), delta[WIDTH_MAX];
  struct cov_state first = cov_state_of(&cov);
  lowrank_scale(n, first.P, prior, -0.5);
  dense_spectrum(n, first.P, values, E);
  for (int64_t k = 0; k < n; k++) assert_close(values[k], k < 10 ? 1 : 0, 1e-6, 1e-6);
  for (int64_t step = 0; step < STEPS; step++) {
    struct jac_case made = cov_jac(&shape, (uint64_t)(1250 + step));
    struct cov_state before = cov_state_of(&cov);
    double inner[100] = {0}, ones[10];
    lowrank_scale(n, before.P, prior, -0.5);
    for (int64_t a = 0; a < 10; a++)
      for (int64_t b = 0; b < 10; b++)
        for (int64_t k = 0; k < n * n; k++) inner[a * 10 + b] += E[a * n + k / n] * before.P[k] * E[b * n + k % n];
    for (int k = 0; k < 10; k++) ones[k] = 1;
    dense_predict(10, inner, ones, LAMBDA, NOISE);
    for (int64_t k = 0; k < n * n; k++) {
      before.P[k] = 0;
      for (int64_t a = 0; a < 100; a++) before.P[k] += E[a / 10 * n + k / n] * inner[a] * E[a % 10 * n + k % n];
    }
    lowrank_scale(n, before.P, prior, 0.5);
    assert_true(kwm_cov_predict(&cov, step));
    struct cov_state predicted = cov_state_of(&cov);
    assert_below(dense_error(n * n, predicted.P, before.P), SINGLE);
    float mean[WIDTH_MAX] = {0};
    dense_measure(n, predicted.P, &made.jac, delta);
    cov_measure(&cov, &made.jac, 1, mean);
    struct cov_state after = cov_state_of(&cov);
    assert_below(dense_error_f32(n, mean, delta), SINGLE);
    assert_below(dense_error(n * n, after.P, predicted.P), SINGLE);
    for (int64_t k = 10; k < n; k++) {
      double outside = 0;
      for (int64_t i = 0; i < n; i++) outside += E[k * n + i] * (double)mean[i] / sqrt(prior[i]);
      assert_close(outside, 0, 0, 1e-5);
    }
    cov_state_drop(&before), cov_state_drop(&predicted), cov_state_drop(&after), jac_drop(&made);
  }
  free(values), free(E), free(prior), cov_state_drop(&first), kwm_cov_destroy(&cov);
}

/* Two groups under one S: each posterior is the marginal block of the dense one (33). */
static void check_shared(enum kwm_lowrank_kind kind) {
  const struct cov_shape shapes[2] = {lowrank_units(kind, 48), lowrank_matrix(kind, 15, 3, 5)};
  enum { N = 48 + 15 };
  kwm_cov cov[2] = {cov_new(&shapes[0], 1, 0), cov_new(&shapes[1], 1, 0)};
  struct jac_case made[2] = {cov_jac(&shapes[0], 1260), cov_jac(&shapes[1], 1261)};
  double *const H = dense_new(ROWS * N), *const e = jac_innovation(&made[0].jac), *const P = dense_new(N * N);
  double delta[N];
  float S[ROWS * ROWS] = {0}, w[ROWS], mean[N] = {0};
  for (int g = 0; g < 2; g++) {
    jac_rows_into(&made[g].jac, N, g * 48, H);
    double *const prior = cov_prior(&shapes[g]);
    for (int64_t k = 0; k < cov_numbers(&shapes[g]); k++) P[(g * 48 + k) * N + g * 48 + k] = prior[k];
    free(prior);
    kwm_cov_project(&cov[g], &made[g].jac, S);
  }
  for (int64_t k = 0; k < ROWS; k++) S[k * ROWS + k] += 1;
  cov_factor(ROWS, S, made[0].e, w);
  for (int64_t k = 1; k < ROWS; k++) S[k] = NAN; /* above the diagonal of L nothing is promised */
  dense_update(N, ROWS, P, H, e, delta);
  for (int g = 0; g < 2; g++) {
    assert_true(kwm_cov_condition(&cov[g], &made[g].jac, S, w));
    kwm_cov_apply(&cov[g], 1, mean + g * 48);
    struct cov_state found = cov_state_of(&cov[g]);
    double *const block = dense_new(found.n * found.n);
    for (int64_t k = 0; k < found.n * found.n; k++) block[k] = P[(g * 48 + k / found.n) * N + g * 48 + k % found.n];
    assert_below(dense_error(found.n * found.n, found.P, block), SINGLE);
    free(block), cov_state_drop(&found), jac_drop(&made[g]), kwm_cov_destroy(&cov[g]);
  }
  assert_below(dense_error_f32(N, mean, delta), SINGLE);
  free(H), free(e), free(P);
}

static void test_shared(void **state) {
  (void)state;
  check_shared(KWM_LOWRANK_PRECISION);
  check_shared(KWM_LOWRANK_SUBSPACE);
}

/* Invariant 49: other units for the parameters change the step with them and nothing else, truncated or not. */
static void test_scale_equivariance(void **state) {
  (void)state;
  static const double units[3] = {4, 0.25, 16};
  const struct cov_shape shape = lowrank_units(KWM_LOWRANK_PRECISION, 10);
  struct kwm_cov_spec spec = cov_spec_of(&shape, LAMBDA, NOISE);
  double variance[3];
  for (int k = 0; k < 3; k++) variance[k] = cov_prior_variance[k] * units[k] * units[k];
  spec.prior_variance = variance;
  kwm_cov plain = cov_new(&shape, LAMBDA, NOISE), scaled;
  assert_ok(kwm_cov_create(&scaled, &kwm_cov_lowrank, &spec));
  float a[WIDTH_MAX] = {0}, b[WIDTH_MAX] = {0};
  double wanted[WIDTH_MAX];
  for (int64_t step = 0; step < STEPS; step++) {
    struct jac_case made = cov_jac(&shape, (uint64_t)(1270 + step));
    assert_true(kwm_cov_predict(&plain, step) && kwm_cov_predict(&scaled, step));
    cov_measure(&plain, &made.jac, 1, a);
    for (int64_t k = 0; k < COV_SAMPLES * 2 * 3 * 16; k++) made.S[k] /= (float)units[k / 16 % 3];
    cov_measure(&scaled, &made.jac, 1, b);
    for (int64_t k = 0; k < 48; k++) wanted[k] = (double)a[k] * units[k % 3];
    assert_below(dense_error_f32(48, b, wanted), 2e-5);
    jac_drop(&made);
  }
  kwm_cov_destroy(&plain), kwm_cov_destroy(&scaled);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_exact),
    cmocka_unit_test(test_lossless),
    cmocka_unit_test(test_compression_precision),
    cmocka_unit_test(test_covariance),
    cmocka_unit_test(test_covariance_lossless),
    cmocka_unit_test(test_subspace),
    cmocka_unit_test(test_shared),
    cmocka_unit_test(test_scale_equivariance),
};
KWM_TEST_MAIN(tests)
