/* `lowrank`, what it shares and what it shows: S, kl and moved of a step, several groups under one S (invariant 33),
   other units (49), the spectrum. */
#include "lowrank_case.h"

enum { STEPS = 5, ROWS = COV_SAMPLES * COV_OUTPUTS, WIDTH_MAX = 48 };
static const double LAMBDA = 0.95, NOISE = 0.02;

/* S is I + H P Hᵀ, and what one step says of itself: kl, moved. */
static void check_numbers(const struct cov_shape *shape) {
  const int64_t n = cov_numbers(shape);
  kwm_cov cov = cov_new(shape, 1, 0);
  struct jac_case made = cov_jac(shape, 1205);
  double *const prior = cov_prior(shape), *const H = jac_rows(&made.jac);
  double delta[WIDTH_MAX], moved[16], S[ROWS * ROWS], Hd[ROWS], change = 0, kl = 0;
  struct cov_step step;
  struct cov_state before = cov_state_of(&cov);
  dense_innovation_covariance(n, ROWS, before.P, H, S);
  assert_int_equal(kwm_cov_evidence_length(&cov), 0);
  assert_true(cov_prepare(&cov, &made.jac, &step));
  kwm_cov_delta(&cov, delta);
  kwm_cov_moved(&cov, moved);
  if (shape->form == KWM_FORM_INNOVATION) {
    double fresh[ROWS * ROWS] = {0};
    kwm_cov_project(&cov, &made.jac, fresh);
    for (int64_t k = 0; k < ROWS; k++) fresh[k * ROWS + k] += 1;
    assert_below(dense_error(ROWS * ROWS, fresh, S), shape->real == KWM_REAL_DOUBLE ? 1e-12 : 5e-6);
  } else {
    dense_multiply(ROWS, 1, n, H, delta, Hd);
    for (int64_t k = 0; k < ROWS; k++) change += Hd[k] * Hd[k] / COV_SAMPLES;
    for (int64_t b = 0; b < shape->count; b++) kl += step.kl[b];
    assert_close(kl, change, lowrank_close(shape), 0);
  }
  for (int64_t b = 0; b < shape->count; b++) {
    double wanted = 0;
    for (int64_t k = b * cov.spec.params; k < (b + 1) * cov.spec.params; k++) wanted += delta[k] * delta[k] / prior[k];
    assert_close(moved[b], wanted, 1e-12, 0);
  }
  free(prior), free(H), cov_state_drop(&before), cov_step_drop(&step), jac_drop(&made), kwm_cov_destroy(&cov);
}

static void test_numbers(void **state) {
  (void)state;
  static const enum kwm_lowrank_kind kinds[] = {KWM_LOWRANK_PRECISION, KWM_LOWRANK_SUBSPACE, KWM_LOWRANK_DIAGONAL};
  for (int c = 0; c < 3 * LOWRANK_WAYS; c++) {
    const struct cov_shape units = lowrank_way(lowrank_units(kinds[c % 3], 20), c / 3);
    const struct cov_shape matrix = lowrank_way(lowrank_matrix(kinds[c % 3], 4, 3, 5), c / 3);
    check_numbers(&units);
    check_numbers(&matrix);
  }
}

/* Two groups under one S: each posterior is the marginal block of the dense one (33). */
static void check_shared(enum kwm_lowrank_kind kind, enum kwm_real real) {
  const struct cov_shape shapes[2] = {lowrank_as(lowrank_units(kind, 48), KWM_FORM_INNOVATION, real),
                                      lowrank_as(lowrank_matrix(kind, 15, 3, 5), KWM_FORM_INNOVATION, real)};
  enum { N = 48 + 15 };
  kwm_cov cov[2] = {cov_new(&shapes[0], 1, 0), cov_new(&shapes[1], 1, 0)};
  struct jac_case made[2] = {cov_jac(&shapes[0], 1260), cov_jac(&shapes[1], 1261)};
  double *const H = dense_new(ROWS * N), *const e = jac_innovation(&made[0].jac), *const P = dense_new(N * N);
  double delta[N], found_delta[N], S[ROWS * ROWS] = {0}, w[ROWS];
  float mean[N] = {0};
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
    kwm_cov_delta(&cov[g], found_delta + g * 48);
    kwm_cov_apply(&cov[g], 1, mean + g * 48);
    struct cov_state found = cov_state_of(&cov[g]);
    double *const block = dense_new(found.n * found.n);
    for (int64_t k = 0; k < found.n * found.n; k++) block[k] = P[(g * 48 + k / found.n) * N + g * 48 + k % found.n];
    assert_below(dense_error(found.n * found.n, found.P, block), lowrank_close(&shapes[g]));
    free(block), cov_state_drop(&found), jac_drop(&made[g]), kwm_cov_destroy(&cov[g]);
  }
  assert_below(dense_error(N, found_delta, delta), lowrank_close(&shapes[0]));
  assert_below(dense_error_f32(N, mean, delta), 5e-5);
  free(H), free(e), free(P);
}

static void test_shared(void **state) {
  (void)state;
  for (int real = 0; real < 2; real++) {
    check_shared(KWM_LOWRANK_PRECISION, (enum kwm_real)real);
    check_shared(KWM_LOWRANK_SUBSPACE, (enum kwm_real)real);
    check_shared(KWM_LOWRANK_DIAGONAL, (enum kwm_real)real);
  }
}

/* Invariant 49: other units for the parameters change the step with them and nothing else, truncated or not. */
static void check_equivariance(const struct cov_shape *shape) {
  static const double units[3] = {4, 0.25, 16};
  struct kwm_cov_spec spec = cov_spec_of(shape, LAMBDA, NOISE);
  double variance[3], a[WIDTH_MAX], b[WIDTH_MAX];
  float anchor[2][WIDTH_MAX], mean[2][WIDTH_MAX] = {{0}};
  for (int k = 0; k < 3; k++) variance[k] = cov_prior_variance[k] * units[k] * units[k];
  spec.prior_variance = variance;
  kwm_cov plain = cov_new(shape, LAMBDA, NOISE), scaled;
  assert_ok(kwm_cov_create(&scaled, &kwm_cov_lowrank, &spec));
  lowrank_anchor(48, anchor[0]);
  for (int64_t k = 0; k < 48; k++) anchor[1][k] = anchor[0][k] * (float)units[k % 3];
  for (int64_t step = 0; step < STEPS; step++) {
    struct jac_case made = cov_jac(shape, (uint64_t)(1270 + step));
    assert_true(kwm_cov_predict(&plain, step, anchor[0], mean[0]));
    assert_true(kwm_cov_predict(&scaled, step, anchor[1], mean[1]));
    lowrank_measure(&plain, &made.jac, mean[0], a);
    for (int64_t k = 0; k < COV_SAMPLES * 2 * 3 * 16; k++) made.S[k] /= (float)units[k / 16 % 3];
    lowrank_measure(&scaled, &made.jac, mean[1], b);
    for (int64_t k = 0; k < 48; k++) a[k] *= units[k % 3];
    assert_below(dense_error(48, b, a), shape->real == KWM_REAL_DOUBLE ? 1e-12 : 2e-5);
    for (int64_t k = 0; k < 48; k++) a[k] = (double)mean[0][k] * units[k % 3];
    assert_below(dense_error_f32(48, mean[1], a), 2e-5);
    jac_drop(&made);
  }
  kwm_cov_destroy(&plain), kwm_cov_destroy(&scaled);
}

static void test_scale_equivariance(void **state) {
  (void)state;
  for (int w = 0; w < LOWRANK_WAYS; w++) {
    const struct cov_shape shape = lowrank_way(lowrank_units(KWM_LOWRANK_PRECISION, 10), w);
    const struct cov_shape diagonal = lowrank_way(lowrank_units(KWM_LOWRANK_DIAGONAL, 10), w);
    check_equivariance(&shape);
    check_equivariance(&diagonal);
  }
}

/* The columns' eigenvalues of P0^-½ P P0^-½ and the floor's against those of the dense matrix. */
static void check_spectrum(const struct cov_shape *shape) {
  static const double lengths[4] = {4, 3, 2, 1.5};
  const int64_t n = cov_numbers(shape), r = shape->rank < n ? shape->rank : n;
  kwm_cov cov = cov_new(shape, 1, NOISE);
  double *const found = dense_new(r + 1), *const values = dense_new(n), *const E = dense_new(n * n);
  double *const prior = cov_prior(shape);
  float mean[WIDTH_MAX] = {0};
  struct jac_case made = cov_jac(shape, 1280);
  if (shape->kind == KWM_LOWRANK_COVARIANCE) lowrank_plant(&cov, 0.3, 4, lengths);
  assert_true(kwm_cov_predict(&cov, 0, NULL, NULL));
  cov_measure(&cov, &made.jac, 1, mean);
  struct cov_state after = cov_state_of(&cov);
  lowrank_scale(n, after.P, prior, -0.5);
  dense_spectrum(n, after.P, values, E);
  assert_int_equal(kwm_cov_spectrum_length(&cov), r + 1);
  assert_true(kwm_cov_spectrum(&cov, found));
  const int64_t skipped =
      shape->kind == KWM_LOWRANK_PRECISION ? 0 : n - r; /* the columns' are above the floor, or below */
  for (int64_t j = 0; j < r; j++) assert_close(found[j], values[n - 1 - skipped - j], 1e-9, 1e-12);
  for (int64_t j = 0; r < n && j < n - r; j++)
    assert_close(found[r], values[skipped == 0 ? j : n - 1 - j], 1e-9, 1e-12);
  assert_true(shape->kind != KWM_LOWRANK_SUBSPACE || found[r] == 0);
  free(found), free(values), free(E), free(prior), cov_state_drop(&after), jac_drop(&made), kwm_cov_destroy(&cov);
}

static void test_spectrum(void **state) {
  (void)state;
  for (int c = 0; c < 3 * LOWRANK_WAYS; c++) {
    const enum kwm_lowrank_kind kind = (enum kwm_lowrank_kind)(c % 3);
    const struct cov_shape units = lowrank_way(lowrank_units(kind, 6), c / 3);
    const struct cov_shape matrix = lowrank_way(lowrank_matrix(kind, 15, 2, 3), c / 3);
    check_spectrum(&units);
    check_spectrum(&matrix);
  }
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_numbers),
    cmocka_unit_test(test_shared),
    cmocka_unit_test(test_scale_equivariance),
    cmocka_unit_test(test_spectrum),
};
KWM_TEST_MAIN(tests)
