/* `diag` against its definition in double precision, against the dense filter where it is exact, and against the closed
   form of the scalar Riccati recursion (equations.md 3(a), invariants 21, 22, 33). */
#include "cov_case.h"

enum { STEPS = 5, ROWS = COV_SAMPLES * COV_OUTPUTS, WIDTH_MAX = 48 };
static const double SINGLE = 2e-5, LAMBDA = 0.95, NOISE = 0.02;

static struct cov_shape units_of(enum kwm_form form) {
  return (struct cov_shape){.structure = "diag", .form = form, .count = 16, .params = 3};
}

static struct cov_shape matrix_of(enum kwm_form form, int64_t d_o, int64_t d_i) {
  return (struct cov_shape){.structure = "diag", .form = form, .count = 1, .d_o = d_o, .d_i = d_i};
}

static double *prior_matrix(const struct cov_shape *shape) {
  const int64_t n = cov_numbers(shape);
  double *const P = dense_new(n * n), *const prior = cov_prior(shape);
  for (int64_t k = 0; k < n; k++) P[k * n + k] = prior[k];
  free(prior);
  return P;
}

/* p <- 1 / (1/p + f), δ = p s with the exact diagonal f of HᵀH. */
static void definition(int64_t n, double *P, const struct kwm_jac *jac, double *delta) {
  double *const F = jac_dense_fisher(jac), *const s = jac_dense_score(jac);
  for (int64_t k = 0; k < n; k++) {
    P[k * n + k] = 1 / (1 / P[k * n + k] + F[k * n + k]);
    delta[k] = P[k * n + k] * s[k];
  }
  free(F), free(s);
}

/* The dense filter with a diagonal P, cut back to its diagonal. */
static void decoupled(int64_t n, double *P, const struct kwm_jac *jac, double *delta) {
  double *const H = jac_rows(jac), *const e = jac_innovation(jac);
  dense_update(n, jac->n * jac->m, P, H, e, delta);
  dense_decouple(n, 1, P);
  free(H), free(e);
}

static void check_against(const struct cov_shape *shape,
                          void (*wanted_step)(int64_t n, double *P, const struct kwm_jac *jac, double *delta)) {
  const int64_t n = cov_numbers(shape);
  kwm_cov cov = cov_new(shape, LAMBDA, NOISE);
  float mean[WIDTH_MAX] = {0};
  double wanted[WIDTH_MAX] = {0}, delta[WIDTH_MAX], *const P = prior_matrix(shape), *const prior = cov_prior(shape);
  for (int64_t step = 0; step < STEPS; step++) {
    struct jac_case made = cov_jac(shape, (uint64_t)(1100 + step));
    dense_predict(n, P, prior, LAMBDA, NOISE);
    wanted_step(n, P, &made.jac, delta);
    for (int64_t k = 0; k < n; k++) wanted[k] += delta[k];
    assert_true(kwm_cov_predict(&cov, step));
    cov_measure(&cov, &made.jac, 1, mean);
    struct cov_state found = cov_state_of(&cov);
    assert_below(dense_error_f32(n, mean, wanted), SINGLE);
    assert_below(dense_error(n * n, found.P, P), SINGLE);
    cov_state_drop(&found), jac_drop(&made);
  }
  free(P), free(prior), kwm_cov_destroy(&cov);
}

static void test_information(void **state) {
  (void)state;
  const struct cov_shape units = units_of(KWM_FORM_INFORMATION), matrix = matrix_of(KWM_FORM_INFORMATION, 3, 5);
  check_against(&units, definition);
  check_against(&matrix, definition);
}

static void test_innovation(void **state) {
  (void)state;
  const struct cov_shape units = units_of(KWM_FORM_INNOVATION), matrix = matrix_of(KWM_FORM_INNOVATION, 3, 5);
  check_against(&units, decoupled);
  check_against(&matrix, decoupled);
}

/* Rows that see one number each: HᵀH is diagonal, and both forms are the dense filter. */
static void test_exact(void **state) {
  (void)state;
  enum { O = COV_OUTPUTS, I_ = COV_SAMPLES, N = O * I_ };
  for (int f = 0; f < 2; f++) {
    const struct cov_shape shape = matrix_of(f == 0 ? KWM_FORM_INFORMATION : KWM_FORM_INNOVATION, O, I_);
    kwm_cov cov = cov_new(&shape, LAMBDA, NOISE);
    float mean[N] = {0};
    double wanted[N] = {0}, delta[N], *const P = prior_matrix(&shape), *const prior = cov_prior(&shape);
    for (int64_t step = 0; step < STEPS; step++) {
      struct jac_case made = cov_jac(&shape, (uint64_t)(1120 + step));
      for (int64_t k = 0; k < ROWS * O; k++)
        if (k / O % O != k % O) made.J[k] = 0;
      for (int64_t k = 0; k < COV_SAMPLES * I_; k++)
        if (k / I_ != k % I_) made.a[k] = 0;
      double *const H = jac_rows(&made.jac), *const e = jac_innovation(&made.jac);
      dense_predict(N, P, prior, LAMBDA, NOISE);
      dense_update(N, ROWS, P, H, e, delta);
      for (int64_t k = 0; k < N; k++) wanted[k] += delta[k];
      assert_true(kwm_cov_predict(&cov, step));
      cov_measure(&cov, &made.jac, 1, mean);
      struct cov_state found = cov_state_of(&cov);
      assert_below(dense_error_f32(N, mean, wanted), SINGLE);
      assert_below(dense_error(N * N, found.P, P), SINGLE);
      free(H), free(e), cov_state_drop(&found), jac_drop(&made);
    }
    free(P), free(prior), kwm_cov_destroy(&cov);
  }
}

/* kl of a block is sum f δ² over the samples. */
static void test_kl(void **state) {
  (void)state;
  const struct cov_shape shape = units_of(KWM_FORM_INFORMATION);
  kwm_cov cov = cov_new(&shape, 1, 0);
  struct jac_case made = cov_jac(&shape, 1130);
  struct cov_step step;
  float delta[WIDTH_MAX] = {0};
  assert_true(cov_prepare(&cov, &made.jac, &step));
  kwm_cov_apply(&cov, 1, delta);
  double *const F = jac_dense_fisher(&made.jac);
  for (int64_t b = 0; b < shape.count; b++) {
    double kl = 0;
    for (int64_t k = b * shape.params; k < (b + 1) * shape.params; k++)
      kl += F[k * cov_numbers(&shape) + k] * (double)delta[k] * (double)delta[k] / COV_SAMPLES;
    assert_close(step.kl[b], kl, SINGLE, 0);
  }
  free(F), cov_step_drop(&step), jac_drop(&made), kwm_cov_destroy(&cov);
}

/* One number with h = √f every step. */
static double steady_variance(enum kwm_form form, double q, double f, int64_t steps) {
  const struct cov_shape shape = matrix_of(form, 1, 1);
  kwm_cov cov = cov_new(&shape, 1, q * cov_prior_precision);
  struct jac_case made = jac_outer(1, 1, 1, 1, 1140);
  float mean = 0;
  made.J[0] = (float)sqrt(f), made.a[0] = 1;
  for (int64_t step = 0; step < steps; step++) {
    assert_true(kwm_cov_predict(&cov, step));
    cov_measure(&cov, &made.jac, 1, &mean);
  }
  struct kwm_health health = {0};
  kwm_cov_health(&cov, &health);
  jac_drop(&made), kwm_cov_destroy(&cov);
  return health.trace;
}

/* Invariant 21. */
static void test_steady_state(void **state) {
  (void)state;
  static const double qf[3] = {1e-6, 0.3, 50};
  for (int c = 0; c < 3; c++) {
    const double f = 2, q = qf[c] / f, wanted = 2 / (f * (1 + sqrt(1 + 4 / qf[c])));
    assert_close(steady_variance(KWM_FORM_INFORMATION, q, f, c == 0 ? 20000 : 100), wanted, 1e-4, 0);
    assert_close(steady_variance(KWM_FORM_INNOVATION, q, f, c == 0 ? 20000 : 100), wanted, 1e-4, 0);
  }
}

/* Invariant 22: 0 < p⁺ <= min(p⁻, 1/f), and p⁺ = p⁻ exactly where f = 0; here in units that see nothing. */
static void test_bounds(void **state) {
  (void)state;
  for (int f = 0; f < 2; f++) {
    const struct cov_shape shape = units_of(f == 0 ? KWM_FORM_INFORMATION : KWM_FORM_INNOVATION);
    kwm_cov cov = cov_new(&shape, 1, 0);
    const int64_t n = cov_numbers(&shape);
    float mean[WIDTH_MAX] = {0};
    for (int64_t step = 0; step < STEPS; step++) {
      struct jac_case made = cov_jac(&shape, (uint64_t)(1150 + step));
      for (int64_t k = 0; k < ROWS * 2 * shape.count; k++)
        if (k % shape.count % 2 == 1) made.J[k] = 0;
      struct cov_state before = cov_state_of(&cov);
      cov_measure(&cov, &made.jac, 1, mean);
      struct cov_state after = cov_state_of(&cov);
      double *const F = jac_dense_fisher(&made.jac);
      for (int64_t k = 0; k < n; k++) {
        const double old = before.P[k * n + k], new = after.P[k * n + k], information = F[k * n + k];
        assert_true(new > 0 && new <= old && (information > 0 ? new < old : new == old));
        if (f == 0 && information > 0) assert_true(new *information <= 1 + 1e-6);
      }
      free(F), cov_state_drop(&before), cov_state_drop(&after), jac_drop(&made);
    }
    kwm_cov_destroy(&cov);
  }
}

/* A sum of squares that rounding left below zero is none. */
static void test_rounded_evidence(void **state) {
  (void)state;
  const struct cov_shape shape = matrix_of(KWM_FORM_INFORMATION, 1, 2);
  kwm_cov cov = cov_new(&shape, 1, 0);
  const float evidence[4] = {-1e-3f, 2, 1, 1};
  float mean[2] = {0};
  double kl;
  assert_true(kwm_cov_absorb(&cov, evidence, 1, &kl));
  kwm_cov_apply(&cov, 1, mean);
  struct cov_state found = cov_state_of(&cov);
  assert_true(found.P[0] == 1 / cov_prior_precision && found.P[3] == 1 / (cov_prior_precision + 2));
  assert_true(mean[0] == 0.5f && mean[1] == 0.25f);
  assert_close(kl, 2 * 0.25 * 0.25, 1e-15, 0);
  cov_state_drop(&found), kwm_cov_destroy(&cov);
}

/* Information form: any size of evidence. Innovation form: what single precision cannot tell from zero stops at a
   millionth, and the health says how often. */
static void test_sizes(void **state) {
  (void)state;
  static const float sizes[3] = {1e-15f, 1, 1500};
  for (int f = 0; f < 2; f++)
    for (int c = 0; c < 3; c++) {
      const struct cov_shape shape = matrix_of(f == 0 ? KWM_FORM_INFORMATION : KWM_FORM_INNOVATION, 1, 3);
      kwm_cov cov = cov_new(&shape, 1, 0);
      const int64_t n = cov_numbers(&shape);
      float mean[WIDTH_MAX] = {0};
      struct kwm_health health = {0};
      struct jac_case made = cov_jac(&shape, 1160);
      for (int64_t k = 0; k < ROWS; k++) made.J[k] *= sizes[c];
      for (int64_t k = 0; k < COV_SAMPLES * 3; k++) made.a[k] = k % 3 == 0 ? made.a[k] : 0;
      cov_measure(&cov, &made.jac, 1, mean);
      kwm_cov_health(&cov, &health);
      struct cov_state found = cov_state_of(&cov);
      for (int64_t k = 0; k < n; k++) {
        assert_true(isfinite(mean[k]));
        assert_true(found.P[k * n + k] > 0 && found.P[k * n + k] <= 1 / cov_prior_precision);
        if (f == 1) assert_true(found.P[k * n + k] >= 0.999e-6 / cov_prior_precision);
      }
      assert_true((health.floor_hits > 0) == (f == 1 && c == 2));
      cov_state_drop(&found), jac_drop(&made), kwm_cov_destroy(&cov);
    }
}

static void test_long_run(void **state) {
  (void)state;
  for (int f = 0; f < 4; f++) {
    const enum kwm_form form = f % 2 == 0 ? KWM_FORM_INFORMATION : KWM_FORM_INNOVATION;
    const struct cov_shape shape = f < 2 ? units_of(form) : matrix_of(form, 2, 3);
    kwm_cov cov = cov_new(&shape, f < 2 ? 0.999 : 1, 1e-3);
    float mean[WIDTH_MAX] = {0};
    for (int64_t step = 0; step < 2000; step++) {
      struct jac_case made = cov_jac(&shape, (uint64_t)(2000 + step));
      assert_true(kwm_cov_predict(&cov, step));
      cov_measure(&cov, &made.jac, 0.1, mean);
      jac_drop(&made);
    }
    struct cov_state found = cov_state_of(&cov);
    for (int64_t k = 0; k < cov_numbers(&shape); k++)
      assert_true(isfinite(mean[k]) && found.P[k * found.n + k] > 1e-4 && found.P[k * found.n + k] < 0.1);
    cov_state_drop(&found), kwm_cov_destroy(&cov);
  }
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_information),
    cmocka_unit_test(test_innovation),
    cmocka_unit_test(test_exact),
    cmocka_unit_test(test_kl),
    cmocka_unit_test(test_rounded_evidence),
    cmocka_unit_test(test_steady_state),
    cmocka_unit_test(test_bounds),
    cmocka_unit_test(test_sizes),
    cmocka_unit_test(test_long_run),
};
KWM_TEST_MAIN(tests)
