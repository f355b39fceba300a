/* `diag` against its definition in double precision, against the dense filter where it is exact, and against the closed
   form of the scalar Riccati recursion (equations.md 3(a), invariants 21, 22, 33). In both forms, with its state in
   double and in float. */
#include "cov_case.h"

enum { STEPS = 5, ROWS = COV_SAMPLES * COV_OUTPUTS, WIDTH_MAX = 288, WARM = 3 };
static const double LAMBDA = 0.95, NOISE = 0.02;

static struct cov_shape units_of(enum kwm_form form, enum kwm_real real) {
  return (struct cov_shape){.structure = "diag", .form = form, .real = real, .count = 16, .params = 3};
}

static struct cov_shape matrix_of(enum kwm_form form, enum kwm_real real, int64_t d_o, int64_t d_i) {
  return (struct cov_shape){.structure = "diag", .form = form, .real = real, .count = 1, .d_o = d_o, .d_i = d_i};
}

static void each_of(enum kwm_form form, void (*check)(const struct cov_shape *shape)) {
  for (int r = 0; r < 2; r++) {
    const enum kwm_real real = r == 0 ? KWM_REAL_DOUBLE : KWM_REAL_FLOAT;
    const struct cov_shape units = units_of(form, real), matrix = matrix_of(form, real, 3, 5);
    check(&units), check(&matrix);
  }
}

static void each(void (*check)(const struct cov_shape *shape)) {
  each_of(KWM_FORM_INFORMATION, check);
  each_of(KWM_FORM_INNOVATION, check);
}

static double either(const struct cov_shape *shape, double in_double, double in_float) {
  return shape->real == KWM_REAL_DOUBLE ? in_double : in_float;
}

/* The information form's evidence is a float sum: multiples of 1/8 up to 2 make it exact. */
static void coarsen(int64_t n, float *values) {
  for (int64_t k = 0; k < n && values != NULL; k++) values[k] = fmaxf(-2, fminf(2, roundf(8 * values[k]) / 8));
}

static struct jac_case coarse(const struct cov_shape *shape, uint64_t stream) {
  struct jac_case made = cov_jac(shape, stream);
  const struct kwm_jac *const jac = &made.jac;
  const bool units = jac->shape == KWM_JAC_UNITS;
  coarsen(ROWS * (units ? 2 * jac->count : jac->d_o), made.J);
  coarsen(COV_SAMPLES * 2 * jac->params * jac->count, made.S);
  coarsen(COV_SAMPLES * jac->d_i, made.a);
  coarsen(ROWS, made.e);
  return made;
}

/* A time update without a pull: the anchor is where the mean is. */
static void predict_in_place(kwm_cov *cov, int64_t step) {
  float nowhere[WIDTH_MAX] = {0};
  const float anchor[WIDTH_MAX] = {0};
  assert_true(kwm_cov_predict(cov, step, anchor, nowhere));
}

/* A covariance some steps old. */
static kwm_cov warm(const struct cov_shape *shape, double forgetting, double process_noise) {
  kwm_cov cov = cov_new(shape, forgetting, process_noise);
  float mean[WIDTH_MAX] = {0};
  for (int64_t step = 0; step < WARM; step++) {
    struct jac_case made = cov_jac(shape, (uint64_t)(1200 + step));
    predict_in_place(&cov, step);
    cov_measure(&cov, &made.jac, 1, mean);
    jac_drop(&made);
  }
  return cov;
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

/* A step of the filter and of the dense P: δ and P agree. */
static void check_step(kwm_cov *cov, const struct cov_shape *shape, const struct kwm_jac *jac, const double *delta,
                       const double *P) {
  const int64_t n = cov_numbers(shape);
  double found[WIDTH_MAX], *const covariance = dense_new(n * n);
  float mean[WIDTH_MAX] = {0};
  struct cov_step prepared;
  assert_true(cov_prepare(cov, jac, &prepared));
  kwm_cov_delta(cov, found);
  kwm_cov_apply(cov, 0.5, mean);
  assert_true(kwm_cov_covariance(cov, covariance));
  assert_below(dense_error(n, found, delta), either(shape, 1e-10, 2e-5));
  assert_below(dense_error(n * n, covariance, P), either(shape, 1e-10, 2e-5));
  for (int64_t k = 0; k < n; k++) assert_close((double)mean[k], 0.5 * found[k], 1e-6, 0);
  free(covariance), cov_step_drop(&prepared);
}

static void check_definition(const struct cov_shape *shape) {
  const int64_t n = cov_numbers(shape);
  kwm_cov cov = cov_new(shape, LAMBDA, NOISE);
  double delta[WIDTH_MAX], *const P = prior_matrix(shape), *const prior = cov_prior(shape);
  for (int64_t step = 0; step < STEPS; step++) {
    struct jac_case made = coarse(shape, (uint64_t)(1100 + step));
    dense_predict(n, P, prior, LAMBDA, NOISE);
    (shape->form == KWM_FORM_INFORMATION ? definition : decoupled)(n, P, &made.jac, delta);
    predict_in_place(&cov, step);
    check_step(&cov, shape, &made.jac, delta, P);
    jac_drop(&made);
  }
  free(P), free(prior), kwm_cov_destroy(&cov);
}

/* More parameters than are taken at a time. */
static void test_many(void **state) {
  (void)state;
  for (int r = 0; r < 2; r++) {
    struct cov_shape shape = units_of(KWM_FORM_INNOVATION, r == 0 ? KWM_REAL_DOUBLE : KWM_REAL_FLOAT);
    shape.count = WIDTH_MAX / shape.params;
    check_definition(&shape);
  }
}

/* Rows that see one number each: HᵀH is diagonal, and both forms are the dense filter. */
static void check_exact(const struct cov_shape *any) {
  enum { O = COV_OUTPUTS, I_ = COV_SAMPLES, N = O * I_ };
  const struct cov_shape shape = matrix_of(any->form, any->real, O, I_);
  kwm_cov cov = cov_new(&shape, LAMBDA, NOISE);
  double delta[N], *const P = prior_matrix(&shape), *const prior = cov_prior(&shape);
  for (int64_t step = 0; step < STEPS; step++) {
    struct jac_case made = coarse(&shape, (uint64_t)(1120 + step));
    for (int64_t k = 0; k < ROWS * O; k++)
      if (k / O % O != k % O) made.J[k] = 0;
    for (int64_t k = 0; k < COV_SAMPLES * I_; k++)
      if (k / I_ != k % I_) made.a[k] = 0;
    double *const H = jac_rows(&made.jac), *const e = jac_innovation(&made.jac);
    dense_predict(N, P, prior, LAMBDA, NOISE);
    dense_update(N, ROWS, P, H, e, delta);
    predict_in_place(&cov, step);
    check_step(&cov, &shape, &made.jac, delta, P);
    free(H), free(e), jac_drop(&made);
  }
  free(P), free(prior), kwm_cov_destroy(&cov);
}

/* kl of a block is sum f δ² over the samples. */
static void check_kl(const struct cov_shape *shape) {
  const int64_t n = cov_numbers(shape), p = n / shape->count;
  kwm_cov cov = cov_new(shape, 1, 0);
  struct jac_case made = coarse(shape, 1130);
  struct cov_step step;
  double delta[WIDTH_MAX];
  assert_true(cov_prepare(&cov, &made.jac, &step));
  kwm_cov_delta(&cov, delta);
  double *const F = jac_dense_fisher(&made.jac);
  for (int64_t b = 0; b < shape->count && shape->form == KWM_FORM_INFORMATION; b++) {
    double kl = 0;
    for (int64_t k = b * p; k < (b + 1) * p; k++) kl += F[k * n + k] * delta[k] * delta[k] / COV_SAMPLES;
    assert_close(step.kl[b], kl, 1e-12, 0);
  }
  free(F), cov_step_drop(&step), jac_drop(&made), kwm_cov_destroy(&cov);
}

/* Invariant 21: one number with h² = f every step. */
static void check_steady_state(const struct cov_shape *any) {
  static const double qf[3] = {1e-6, 0.3, 50};
  const struct cov_shape shape = matrix_of(any->form, any->real, 1, 1);
  for (int c = 0; c < 3; c++) {
    const double f = 4, q = qf[c] / f, wanted = 2 / (f * (1 + sqrt(1 + 4 / qf[c])));
    kwm_cov cov = cov_new(&shape, 1, q * cov_prior_precision);
    struct jac_case made = jac_outer(1, 1, 1, 1, 1140);
    float mean = 0;
    made.J[0] = 2, made.a[0] = 1;
    for (int64_t step = 0; step < (c == 0 ? 20000 : 100); step++) {
      assert_true(kwm_cov_predict(&cov, step, NULL, NULL));
      cov_measure(&cov, &made.jac, 1, &mean);
    }
    struct kwm_health health = {0};
    kwm_cov_health(&cov, &health);
    assert_close(health.trace, wanted, either(&shape, 1e-10, 1e-4), 0);
    jac_drop(&made), kwm_cov_destroy(&cov);
  }
}

/* Invariant 22: 0 < p⁺ <= min(p⁻, 1/f), and p⁺ = p⁻ exactly where f = 0: in units, or columns, that see nothing. */
static void check_bounds(const struct cov_shape *shape) {
  kwm_cov cov = cov_new(shape, 1, 0);
  const int64_t n = cov_numbers(shape), columns = shape->d_o > 0 ? shape->d_o : shape->count;
  float mean[WIDTH_MAX] = {0};
  for (int64_t step = 0; step < STEPS; step++) {
    struct jac_case made = cov_jac(shape, (uint64_t)(1150 + step));
    for (int64_t k = 0; k < ROWS * (shape->d_o > 0 ? 1 : 2) * columns; k++)
      if (k % columns % 2 == 1) made.J[k] = 0;
    struct cov_state before = cov_state_of(&cov);
    cov_measure(&cov, &made.jac, 1, mean);
    struct cov_state after = cov_state_of(&cov);
    double *const F = jac_dense_fisher(&made.jac);
    for (int64_t k = 0; k < n; k++) {
      const double old = before.P[k * n + k], new = after.P[k * n + k], information = F[k * n + k];
      assert_true(new > 0 && new <= old && (information > 0 ? new < old : new == old));
      if (shape->form == KWM_FORM_INFORMATION && information > 0) assert_true(new *information <= 1 + 1e-6);
    }
    free(F), cov_state_drop(&before), cov_state_drop(&after), jac_drop(&made);
  }
  kwm_cov_destroy(&cov);
}

/* Forgetting pulls the mean: (1-λ) Λ'⁻¹ Λ0 (anchor - mean), before noise; without forgetting there is no pull. */
static void check_anchor(const struct cov_shape *shape) {
  static const double lambdas[3] = {0.9, 0.3, 1};
  const int64_t n = cov_numbers(shape);
  double *const prior = cov_prior(shape);
  for (int c = 0; c < 3; c++) {
    kwm_cov cov = warm(shape, lambdas[c], 0.1);
    struct cov_state before = cov_state_of(&cov);
    float anchor[WIDTH_MAX], mean[WIDTH_MAX];
    double wanted[WIDTH_MAX], apart[WIDTH_MAX], moved[WIDTH_MAX];
    dense_predict(n, before.P, prior, lambdas[c], 0);
    for (int64_t k = 0; k < n; k++) {
      anchor[k] = (float)test_normal(1210, k), mean[k] = (float)test_normal(1211, k);
      apart[k] = (1 - lambdas[c]) / prior[k] * ((double)anchor[k] - (double)mean[k]);
    }
    dense_multiply(n, 1, n, before.P, apart, moved);
    for (int64_t k = 0; k < n; k++) wanted[k] = (double)mean[k] + moved[k];
    assert_true(kwm_cov_predict(&cov, WARM, anchor, mean));
    /* The mean itself is kept in float. */
    for (int64_t k = 0; k < n; k++) assert_close((double)mean[k], wanted[k], c == 2 ? 0 : 1e-7, c == 2 ? 0 : 1e-7);
    cov_state_drop(&before), kwm_cov_destroy(&cov);
  }
  free(prior);
}

/* A sum of squares that rounding left below zero is none; what float can't add up any more is refused. */
static void check_evidence(const struct cov_shape *any) {
  if (any->form != KWM_FORM_INFORMATION) return;
  const struct cov_shape shape = matrix_of(any->form, any->real, 1, 2);
  kwm_cov cov = cov_new(&shape, 1, 0);
  const float evidence[4] = {-1e-3f, 2, 1, 1}, huge[4] = {3e38f, 1, 1, 1};
  float mean[2] = {0};
  double kl;
  assert_true(kwm_cov_absorb(&cov, NULL, evidence, 1, &kl));
  kwm_cov_apply(&cov, 1, mean);
  struct cov_state found = cov_state_of(&cov);
  assert_true(found.P[0] == 1 / cov_prior_precision && found.P[3] == 1 / (cov_prior_precision + 2));
  assert_true(mean[0] == 0.5f && mean[1] == 0.25f);
  assert_close(kl, 2 * 0.25 * 0.25, 1e-15, 0);
  assert_true(kwm_cov_absorb(&cov, NULL, huge, 1, &kl));
  kwm_cov_apply(&cov, 1, mean);
  assert_true(kwm_cov_absorb(&cov, NULL, huge, 1, &kl) == (shape.real == KWM_REAL_DOUBLE));
  cov_state_drop(&found), kwm_cov_destroy(&cov);
}

/* Every sample and output is the first one. */
static void repeat_rows(struct jac_case *made) {
  const struct kwm_jac *const jac = &made->jac;
  const int64_t row = jac->shape == KWM_JAC_UNITS ? 2 * jac->count : jac->d_o, S = 2 * jac->params * jac->count;
  for (int64_t k = 0; k < ROWS * row; k++) made->J[k] = made->J[k % row];
  for (int64_t k = 0; k < COV_SAMPLES * S; k++) made->S[k] = made->S[k % S];
  for (int64_t k = 0; k < COV_SAMPLES * jac->d_i; k++) made->a[k] = made->a[k % jac->d_i];
}

/* No rows that say anything, the same row many times, large and small ones, more of them than parameters (where columns
   are pinned down, the innovation form stops at a millionth, and the health says how often). */
static void check_degenerate(const struct cov_shape *full) {
  static const float sizes[5] = {0, 1e-15f, 1e-4f, 1, 1e4f};
  const struct cov_shape shapes[2] = {*full, matrix_of(full->form, full->real, 1, 2)};
  for (int c = 0; c < 20; c++) {
    const struct cov_shape *const shape = &shapes[c / 10];
    const int64_t n = cov_numbers(shape);
    const float size = sizes[c % 5];
    kwm_cov cov = cov_new(shape, 1, 0);
    double *const prior = cov_prior(shape);
    float mean[WIDTH_MAX] = {0};
    struct kwm_health health = {0};
    struct jac_case made = cov_jac(shape, 1160);
    if (c / 5 % 2 == 1) repeat_rows(&made);
    for (int64_t k = 0; k < ROWS * (shape->d_o > 0 ? shape->d_o : 2 * shape->count); k++) made.J[k] *= size;
    predict_in_place(&cov, 0);
    cov_measure(&cov, &made.jac, 1, mean);
    kwm_cov_health(&cov, &health);
    struct cov_state found = cov_state_of(&cov);
    for (int64_t k = 0; k < n; k++) {
      const double p = found.P[k * n + k], rounded = 1 + either(shape, 1e-15, 1e-7);
      assert_true(isfinite(mean[k]) && p > 0 && p <= prior[k] * rounded);
      if (size == 0) assert_true(mean[k] == 0 && p >= prior[k] / rounded);
      if (shape->form == KWM_FORM_INNOVATION) assert_true(p >= 0.999e-6 * prior[k]);
    }
    assert_true((health.floor_hits > 0) == (shape->form == KWM_FORM_INNOVATION && c == 14));
    cov_state_drop(&found), jac_drop(&made), free(prior), kwm_cov_destroy(&cov);
  }
}

/* moved and spectrum are what delta and the covariance say. */
static void check_views(const struct cov_shape *shape) {
  const int64_t n = cov_numbers(shape), p = n / shape->count;
  kwm_cov cov = warm(shape, LAMBDA, NOISE);
  struct jac_case made = cov_jac(shape, 1170);
  struct cov_step step;
  double delta[WIDTH_MAX], moved[WIDTH_MAX], values[WIDTH_MAX], *const prior = cov_prior(shape);
  assert_true(cov_prepare(&cov, &made.jac, &step));
  kwm_cov_delta(&cov, delta);
  kwm_cov_moved(&cov, moved);
  struct cov_state state = cov_state_of(&cov);
  assert_int_equal(kwm_cov_spectrum_length(&cov), n);
  assert_true(kwm_cov_spectrum(&cov, values));
  for (int64_t b = 0; b < shape->count; b++) {
    double share = 0, found = 0, wanted = 0;
    for (int64_t k = b * p; k < (b + 1) * p; k++) {
      const double left = state.P[k * n + k] / prior[k];
      int64_t same = 0;
      share += delta[k] * delta[k] / prior[k];
      for (int64_t j = b * p; j < (b + 1) * p; j++) same += close_to(values[j], left, 1e-14, 0);
      assert_true(same > 0 && (k == b * p || values[k] >= values[k - 1]));
      found += values[k], wanted += left;
    }
    assert_close(moved[b], share, 1e-14, 0);
    assert_close(found, wanted, 1e-14, 0);
  }
  free(prior), cov_state_drop(&state), cov_step_drop(&step), jac_drop(&made), kwm_cov_destroy(&cov);
}

/* A hundred thousand steps in float: all variances stay finite and positive. */
static void test_long_run(void **state) {
  (void)state;
  enum { POOL = 64, LONG = 100000 };
  struct jac_case pool[POOL];
  for (int k = 0; k < POOL; k++) pool[k] = jac_outer(1, 2, 2, 3, (uint64_t)(2000 + k));
  for (int c = 0; c < 6; c++) {
    const double lambda = c < 4 ? 1 : 0.999, q = c < 2 ? 0 : 1e-3;
    const struct cov_shape shape =
        matrix_of(c % 2 == 0 ? KWM_FORM_INFORMATION : KWM_FORM_INNOVATION, KWM_REAL_FLOAT, 2, 3);
    kwm_cov cov = cov_new(&shape, lambda, q);
    const float anchor[6] = {0};
    float mean[6] = {0};
    double left[6];
    for (int64_t step = 0; step < LONG; step++) {
      assert_true(kwm_cov_predict(&cov, step, anchor, mean));
      cov_measure(&cov, &pool[step % POOL].jac, 0.1, mean);
      if (step % 500 == 1) assert_true(kwm_cov_spectrum(&cov, left) && left[0] > 0 && isfinite(left[5]));
    }
    assert_true(kwm_cov_spectrum(&cov, left));
    for (int k = 0; k < 6; k++) assert_true(isfinite(mean[k]));
    assert_true(c < 2 ? left[5] < 1e-4 : left[0] > 1e-4 && left[5] < 0.2);
    kwm_cov_destroy(&cov);
  }
  for (int k = 0; k < POOL; k++) jac_drop(&pool[k]);
}

#define FOR_EACH(name)                                                                                                 \
  static void test_##name(void **state) {                                                                              \
    (void)state;                                                                                                       \
    each(check_##name);                                                                                                \
  }
FOR_EACH(definition)
FOR_EACH(exact)
FOR_EACH(kl)
FOR_EACH(steady_state)
FOR_EACH(bounds)
FOR_EACH(anchor)
FOR_EACH(evidence)
FOR_EACH(degenerate)
FOR_EACH(views)

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_definition), cmocka_unit_test(test_exact),        cmocka_unit_test(test_kl),
    cmocka_unit_test(test_evidence),   cmocka_unit_test(test_steady_state), cmocka_unit_test(test_bounds),
    cmocka_unit_test(test_anchor),     cmocka_unit_test(test_degenerate),   cmocka_unit_test(test_views),
    cmocka_unit_test(test_long_run),   cmocka_unit_test(test_many),
};
KWM_TEST_MAIN(tests)
