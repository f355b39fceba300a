/* `lowrank` against the dense textbook filter: where the rank is enough it is that filter; where it is not, S and δ are
   exact for the P at hand and the compression is the one of equations.md Sec. 12 (invariants 24 to 28).
   Trace-preserving modes (27) there are none; where nothing is lost the traces agree. */
#include "lowrank_case.h"

enum { STEPS = 5, ROWS = COV_SAMPLES * COV_OUTPUTS, WIDTH_MAX = 48 };
static const double LAMBDA = 0.95, NOISE = 0.02;

/* Several steps of the whole filter, time updates included (24, 25, 28). */
static void check_exact(const struct cov_shape *shape) {
  const int64_t n = cov_numbers(shape);
  kwm_cov cov = cov_new(shape, LAMBDA, NOISE);
  float mean[WIDTH_MAX] = {0}, anchor[WIDTH_MAX];
  double wanted[WIDTH_MAX] = {0}, delta[WIDTH_MAX], found_delta[WIDTH_MAX];
  double *const prior = cov_prior(shape), *const P = dense_diagonal(n, prior), *const dense = dense_new(n * n);
  lowrank_anchor(n, anchor);
  for (int64_t step = 0; step < STEPS; step++) {
    struct jac_case made = cov_jac(shape, (uint64_t)(1200 + step));
    for (int64_t k = 0; k < n; k++) wanted[k] = (double)mean[k];
    dense_time(n, P, prior, LAMBDA, NOISE, anchor, wanted);
    assert_true(kwm_cov_predict(&cov, step, anchor, mean));
    assert_below(dense_error_f32(n, mean, wanted), shape->real == KWM_REAL_DOUBLE ? 2e-7 : 2e-5);
    dense_measure(n, P, &made.jac, delta);
    lowrank_measure(&cov, &made.jac, mean, found_delta);
    struct cov_state found = cov_state_of(&cov);
    assert_true(kwm_cov_covariance(&cov, dense));
    assert_below(dense_error(n, found_delta, delta), lowrank_close(shape));
    assert_below(dense_error(n * n, found.P, P), lowrank_close(shape));
    assert_below(dense_error(n * n, dense, found.P), 1e-12);
    cov_state_drop(&found), jac_drop(&made);
  }
  free(P), free(prior), free(dense), kwm_cov_destroy(&cov);
}

static void test_exact(void **state) {
  (void)state;
  const struct cov_shape shapes[] = {
      lowrank_units(KWM_LOWRANK_PRECISION, 48),        lowrank_units(KWM_LOWRANK_SUBSPACE, 48),
      lowrank_matrix(KWM_LOWRANK_PRECISION, 15, 3, 5), lowrank_matrix(KWM_LOWRANK_SUBSPACE, 15, 3, 5),
      lowrank_matrix(KWM_LOWRANK_PRECISION, 9, 2, 3),  lowrank_matrix(KWM_LOWRANK_SUBSPACE, 9, 1, 1),
      lowrank_units(KWM_LOWRANK_DIAGONAL, 48),         lowrank_matrix(KWM_LOWRANK_DIAGONAL, 15, 3, 5),
  };
  for (size_t c = 0; c < LOWRANK_WAYS * sizeof shapes / sizeof shapes[0]; c++) {
    const struct cov_shape shape = lowrank_way(shapes[c / LOWRANK_WAYS], (int)(c % LOWRANK_WAYS));
    check_exact(&shape);
  }
}

/* r >= columns + rows: no loss though r < n (26); trace of Λ in z then grows by that of HᵀH (27). */
static void check_lossless(const struct cov_shape *shape) {
  const int64_t n = cov_numbers(shape);
  const double close = shape->real == KWM_REAL_DOUBLE ? 1e-12 : 1e-5;
  kwm_cov cov = cov_new(shape, 1, 0);
  double *const prior = cov_prior(shape), *const P = dense_diagonal(n, prior), delta[WIDTH_MAX];
  float mean[WIDTH_MAX] = {0};
  for (int64_t step = 0; step < 2; step++) {
    struct jac_case made = cov_jac(shape, (uint64_t)(1210 + step));
    cov_measure(&cov, &made.jac, 1, mean);
    dense_measure(n, P, &made.jac, delta);
    struct cov_state found = cov_state_of(&cov);
    assert_below(dense_error(n * n, found.P, P), close);
    double *const wanted = dense_copy(n * n, P);
    lowrank_scale(n, found.P, prior, -0.5), lowrank_scale(n, wanted, prior, -0.5);
    dense_invert(n, found.P), dense_invert(n, wanted);
    assert_close(dense_trace(n, found.P), dense_trace(n, wanted), 10 * close, 0);
    free(wanted), cov_state_drop(&found), jac_drop(&made);
  }
  free(prior), free(P), kwm_cov_destroy(&cov);
}

static void test_lossless(void **state) {
  (void)state;
  for (int w = 0; w < LOWRANK_WAYS; w++) {
    const struct cov_shape shape = lowrank_way(lowrank_units(KWM_LOWRANK_PRECISION, 2 * ROWS), w);
    const struct cov_shape diagonal = lowrank_way(lowrank_units(KWM_LOWRANK_DIAGONAL, 2 * ROWS), w);
    check_lossless(&shape);
    check_lossless(&diagonal);
  }
}

/* One step from the state at hand: S, δ, then the posterior's compression; never below the exact posterior. */
static void check_compression(kwm_cov *cov, const struct cov_shape *shape, uint64_t stream) {
  const int64_t n = cov_numbers(shape);
  struct jac_case made = cov_jac(shape, stream);
  double *const prior = cov_prior(shape), delta[WIDTH_MAX], found[WIDTH_MAX];
  float mean[WIDTH_MAX] = {0};
  struct cov_state before = cov_state_of(cov);
  const double floor = lowrank_floor(cov);
  dense_measure(n, before.P, &made.jac, delta);
  lowrank_measure(cov, &made.jac, mean, found);
  struct cov_state after = cov_state_of(cov);
  assert_below(dense_error(n, found, delta), lowrank_close(shape));
  assert_true(dense_excess(n, after.P, before.P) >=
              (shape->real == KWM_REAL_DOUBLE ? -1e-12 : -1e-5) * dense_trace(n, before.P));
  dense_compress(n, before.P, prior, shape->kind, shape->rank, floor);
  assert_below(dense_error(n * n, after.P, before.P), lowrank_close(shape));
  struct kwm_health health = {0};
  kwm_cov_health(cov, &health);
  assert_close(health.trace, dense_trace(n, after.P), 1e-6, 0);
  free(prior), jac_drop(&made), cov_state_drop(&before), cov_state_drop(&after);
}

static void test_compression_precision(void **state) {
  (void)state;
  const struct cov_shape shapes[] = {lowrank_units(KWM_LOWRANK_PRECISION, 1), lowrank_units(KWM_LOWRANK_PRECISION, 10),
                                     lowrank_matrix(KWM_LOWRANK_PRECISION, 4, 3, 5)};
  const float anchor[WIDTH_MAX] = {0};
  for (size_t c = 0; c < LOWRANK_WAYS * sizeof shapes / sizeof shapes[0]; c++) {
    const struct cov_shape shape = lowrank_way(shapes[c / LOWRANK_WAYS], (int)(c % LOWRANK_WAYS));
    kwm_cov cov = cov_new(&shape, LAMBDA, NOISE);
    for (int64_t step = 0; step < STEPS; step++) {
      float mean[WIDTH_MAX] = {0};
      assert_true(kwm_cov_predict(&cov, step, anchor, mean));
      check_compression(&cov, &shape, (uint64_t)(1220 + step));
    }
    kwm_cov_destroy(&cov);
  }
}

/* Form A from a state with variances above its floor (24): the time update, then the step. */
static void check_covariance(const struct cov_shape *shape) {
  static const double lengths[6] = {5, 3, 2, 1, 0.5, 0.1};
  const int64_t n = cov_numbers(shape);
  kwm_cov cov = cov_new(shape, LAMBDA, NOISE);
  double *const prior = cov_prior(shape), wanted[WIDTH_MAX];
  float anchor[WIDTH_MAX], mean[WIDTH_MAX] = {0};
  lowrank_anchor(n, anchor);
  lowrank_plant(&cov, 0.01, 6, lengths);
  for (int64_t step = 0; step < 3; step++) {
    struct cov_state before = cov_state_of(&cov);
    for (int64_t k = 0; k < n; k++) wanted[k] = (double)mean[k];
    dense_time(n, before.P, prior, LAMBDA, NOISE, anchor, wanted);
    assert_true(kwm_cov_predict(&cov, step, anchor, mean));
    struct cov_state after = cov_state_of(&cov);
    assert_below(dense_error(n * n, after.P, before.P), shape->real == KWM_REAL_DOUBLE ? 1e-12 : 1e-5);
    assert_below(dense_error_f32(n, mean, wanted), shape->real == KWM_REAL_DOUBLE ? 2e-7 : 2e-5);
    check_compression(&cov, shape, (uint64_t)(1230 + step));
    cov_state_drop(&before), cov_state_drop(&after);
  }
  free(prior), kwm_cov_destroy(&cov);
}

static void test_covariance(void **state) {
  (void)state;
  const struct cov_shape shapes[] = {
      lowrank_units(KWM_LOWRANK_COVARIANCE, 6), lowrank_units(KWM_LOWRANK_COVARIANCE, 20),
      lowrank_matrix(KWM_LOWRANK_COVARIANCE, 6, 3, 5), lowrank_matrix(KWM_LOWRANK_COVARIANCE, 15, 3, 5)};
  for (size_t c = 0; c < LOWRANK_WAYS * sizeof shapes / sizeof shapes[0]; c++) {
    const struct cov_shape shape = lowrank_way(shapes[c / LOWRANK_WAYS], (int)(c % LOWRANK_WAYS));
    check_covariance(&shape);
  }
}

/* All variances stay above the floor: nothing is lost (26), and the trace is the dense filter's (27). */
static void test_covariance_lossless(void **state) {
  (void)state;
  double lengths[15];
  for (int k = 0; k < 15; k++) lengths[k] = 0.5 + 0.1 * k;
  for (int w = 0; w < LOWRANK_WAYS; w++) {
    const struct cov_shape shape = lowrank_way(lowrank_matrix(KWM_LOWRANK_COVARIANCE, 15, 3, 5), w);
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
    assert_below(dense_error(225, after.P, before.P), shape.real == KWM_REAL_DOUBLE ? 1e-12 : 1e-5);
    assert_close(dense_trace(15, after.P), dense_trace(15, before.P), shape.real == KWM_REAL_DOUBLE ? 1e-12 : 1e-5, 0);
    cov_state_drop(&before), cov_state_drop(&after), jac_drop(&made), kwm_cov_destroy(&cov);
  }
}

/* Form A where rows lie almost in the columns' span, 1e-7 beside it: no digit is lost to that. */
static void test_covariance_dependent(void **state) {
  (void)state;
  static const double lengths[3] = {3, 2, 1};
  for (int form = 0; form < 2; form++) {
    const struct cov_shape shape =
        lowrank_as(lowrank_matrix(KWM_LOWRANK_COVARIANCE, 3, 1, 8), (enum kwm_form)form, KWM_REAL_DOUBLE);
    kwm_cov cov = cov_new(&shape, 1, 0);
    lowrank_plant(&cov, 0.01, 3, lengths);
    struct cov_state before = cov_state_of(&cov);
    struct jac_case made = cov_jac(&shape, 1245);
    for (int64_t i = 0; i < COV_SAMPLES; i++)
      for (int64_t k = 0; k < 8; k++)
        made.a[i * 8 + k] = (float)(before.P[(i % 2) * 8 + k] + 1e-7 * (double)made.a[i * 8 + k]);
    double delta[8], found[8];
    float mean[8] = {0};
    dense_measure(8, before.P, &made.jac, delta);
    lowrank_measure(&cov, &made.jac, mean, found);
    struct cov_state after = cov_state_of(&cov);
    double *const prior = cov_prior(&shape);
    dense_compress(8, before.P, prior, shape.kind, 3, 0.01);
    assert_below(dense_error(8, found, delta), 1e-10);
    assert_below(dense_error(64, after.P, before.P), 1e-10);
    free(prior), cov_state_drop(&before), cov_state_drop(&after), jac_drop(&made), kwm_cov_destroy(&cov);
  }
}

/* Form S with r < n: the dense filter of that singular P; the mean moves within the subspace only. The time update is
   the dense one within the subspace, towards the prior that was drawn. */
static void check_subspace(const struct cov_shape *shape) {
  const int64_t n = cov_numbers(shape);
  const double close = lowrank_close(shape);
  kwm_cov cov = cov_new(shape, LAMBDA, NOISE);
  double *const values = dense_new(n), *const E = dense_new(n * n), *const prior = cov_prior(shape), delta[WIDTH_MAX],
                found[WIDTH_MAX];
  float anchor[WIDTH_MAX];
  lowrank_anchor(n, anchor);
  struct cov_state first = cov_state_of(&cov);
  lowrank_scale(n, first.P, prior, -0.5);
  dense_spectrum(n, first.P, values, E);
  for (int64_t k = 0; k < n; k++) assert_close(values[k], k < 10 ? 1 : 0, 1e-6, 1e-6);
  for (int64_t step = 0; step < STEPS; step++) {
    struct jac_case made = cov_jac(shape, (uint64_t)(1250 + step));
    struct cov_state before = cov_state_of(&cov);
    double inner[100] = {0}, ones[10], pulled[10] = {0}, wanted[WIDTH_MAX] = {0};
    float inside[10] = {0}, mean[WIDTH_MAX] = {0};
    lowrank_scale(n, before.P, prior, -0.5);
    for (int64_t a = 0; a < 10; a++) {
      double sum = 0;
      for (int64_t k = 0; k < n; k++) sum += E[a * n + k] * (double)anchor[k] / sqrt(prior[k]);
      inside[a] = (float)sum, ones[a] = 1;
      for (int64_t b = 0; b < 10; b++)
        for (int64_t k = 0; k < n * n; k++) inner[a * 10 + b] += E[a * n + k / n] * before.P[k] * E[b * n + k % n];
    }
    dense_time(10, inner, ones, LAMBDA, NOISE, inside, pulled);
    for (int64_t k = 0; k < n * n; k++) {
      before.P[k] = 0;
      for (int64_t a = 0; a < 100; a++) before.P[k] += E[a / 10 * n + k / n] * inner[a] * E[a % 10 * n + k % n];
    }
    for (int64_t k = 0; k < 10 * n; k++) wanted[k % n] += sqrt(prior[k % n]) * E[k] * pulled[k / n];
    lowrank_scale(n, before.P, prior, 0.5);
    assert_true(kwm_cov_predict(&cov, step, anchor, mean));
    struct cov_state predicted = cov_state_of(&cov);
    assert_below(dense_error(n * n, predicted.P, before.P), close);
    assert_below(dense_error_f32(n, mean, wanted), 2e-5);
    dense_measure(n, predicted.P, &made.jac, delta);
    lowrank_measure(&cov, &made.jac, mean, found);
    struct cov_state after = cov_state_of(&cov);
    assert_below(dense_error(n, found, delta), close);
    assert_below(dense_error(n * n, after.P, predicted.P), close);
    for (int64_t k = 10; k < n; k++) {
      double outside = 0;
      for (int64_t i = 0; i < n; i++) outside += E[k * n + i] * (double)mean[i] / sqrt(prior[i]);
      assert_close(outside, 0, 0, 1e-5);
    }
    cov_state_drop(&before), cov_state_drop(&predicted), cov_state_drop(&after), jac_drop(&made);
  }
  free(values), free(E), free(prior), cov_state_drop(&first), kwm_cov_destroy(&cov);
}

static void test_subspace(void **state) {
  (void)state;
  for (int w = 0; w < LOWRANK_WAYS; w++) {
    const struct cov_shape shape = lowrank_way(lowrank_units(KWM_LOWRANK_SUBSPACE, 10), w);
    check_subspace(&shape);
  }
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_exact),
    cmocka_unit_test(test_lossless),
    cmocka_unit_test(test_compression_precision),
    cmocka_unit_test(test_covariance),
    cmocka_unit_test(test_covariance_lossless),
    cmocka_unit_test(test_covariance_dependent),
    cmocka_unit_test(test_subspace),
};
KWM_TEST_MAIN(tests)
