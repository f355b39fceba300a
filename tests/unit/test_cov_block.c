/* `block` against the dense textbook filter: each block alone in the information form, all blocks through one S in the
   innovation form (equations.md (140), invariant 33), and both forms against each other (identities I1, I2). */
#include "cov_case.h"
#include "kwm/backend.h"

enum { COUNT = 16, PARAMS = 3, WIDTH = COUNT * PARAMS, STEPS = 4, ROWS = COV_SAMPLES * COV_OUTPUTS };
static const double SINGLE = 2e-5, LAMBDA = 0.95, NOISE = 0.02;

static struct cov_shape shape_of(enum kwm_form form) {
  return (struct cov_shape){.structure = "block", .form = form, .count = COUNT, .params = PARAMS};
}

static void test_information(void **state) {
  (void)state;
  const struct cov_shape shape = shape_of(KWM_FORM_INFORMATION);
  kwm_cov cov = cov_new(&shape, LAMBDA, NOISE);
  float mean[WIDTH] = {0};
  double wanted[WIDTH] = {0}, *const P = dense_new(WIDTH * WIDTH), *const prior = cov_prior(&shape);
  for (int64_t k = 0; k < WIDTH; k++) P[k * WIDTH + k] = prior[k];
  for (int64_t step = 0; step < STEPS; step++) {
    struct jac_case made = cov_jac(&shape, (uint64_t)(600 + step));
    double *const H = jac_rows(&made.jac), *const e = jac_innovation(&made.jac);
    assert_true(kwm_cov_predict(&cov, step));
    cov_measure(&cov, &made.jac, 1, mean);
    for (int64_t b = 0; b < COUNT; b++) {
      double own[PARAMS * PARAMS], rows[ROWS * PARAMS], delta[PARAMS];
      for (int64_t k = 0; k < PARAMS * PARAMS; k++)
        own[k] = P[(b * PARAMS + k / PARAMS) * WIDTH + b * PARAMS + k % PARAMS];
      for (int64_t k = 0; k < ROWS * PARAMS; k++) rows[k] = H[k / PARAMS * WIDTH + b * PARAMS + k % PARAMS];
      dense_predict(PARAMS, own, cov_prior_variance, LAMBDA, NOISE);
      dense_update(PARAMS, ROWS, own, rows, e, delta);
      for (int64_t k = 0; k < PARAMS; k++) wanted[b * PARAMS + k] += delta[k];
      for (int64_t k = 0; k < PARAMS * PARAMS; k++)
        P[(b * PARAMS + k / PARAMS) * WIDTH + b * PARAMS + k % PARAMS] = own[k];
    }
    free(H), free(e), jac_drop(&made);
    struct cov_state found = cov_state_of(&cov);
    assert_below(dense_error_f32(WIDTH, mean, wanted), SINGLE);
    assert_below(dense_error(WIDTH * WIDTH, found.P, P), SINGLE);
    cov_state_drop(&found);
  }
  free(P), free(prior), kwm_cov_destroy(&cov);
}

/* kl of a block is δᵀFδ over the samples, with its own F and δ. */
static void test_information_kl(void **state) {
  (void)state;
  const struct cov_shape shape = shape_of(KWM_FORM_INFORMATION);
  kwm_cov cov = cov_new(&shape, 1, 0);
  struct jac_case made = cov_jac(&shape, 610);
  struct cov_step step;
  float delta[WIDTH] = {0};
  assert_true(cov_prepare(&cov, &made.jac, &step));
  kwm_cov_apply(&cov, 1, delta);
  double *const F = jac_dense_fisher(&made.jac);
  for (int64_t b = 0; b < COUNT; b++) {
    double kl = 0;
    for (int64_t i = b * PARAMS; i < (b + 1) * PARAMS; i++)
      for (int64_t j = b * PARAMS; j < (b + 1) * PARAMS; j++)
        kl += (double)delta[i] * F[i * WIDTH + j] * (double)delta[j] / COV_SAMPLES;
    assert_close(step.kl[b], kl, SINGLE, 0);
  }
  free(F), cov_step_drop(&step), jac_drop(&made), kwm_cov_destroy(&cov);
}

/* The dense filter with a block-diagonal P, cut back to its blocks after every step. */
static void test_innovation(void **state) {
  (void)state;
  const struct cov_shape shape = shape_of(KWM_FORM_INNOVATION);
  kwm_cov cov = cov_new(&shape, LAMBDA, NOISE);
  float mean[WIDTH] = {0};
  double wanted[WIDTH] = {0}, delta[WIDTH], *const P = dense_new(WIDTH * WIDTH), *const prior = cov_prior(&shape);
  for (int64_t k = 0; k < WIDTH; k++) P[k * WIDTH + k] = prior[k];
  for (int64_t step = 0; step < STEPS; step++) {
    struct jac_case made = cov_jac(&shape, (uint64_t)(620 + step));
    double *const H = jac_rows(&made.jac), *const e = jac_innovation(&made.jac), S[ROWS * ROWS];
    dense_predict(WIDTH, P, prior, LAMBDA, NOISE);
    dense_innovation_covariance(WIDTH, ROWS, P, H, S);
    dense_update(WIDTH, ROWS, P, H, e, delta);
    dense_decouple(WIDTH, PARAMS, P);
    for (int64_t k = 0; k < WIDTH; k++) wanted[k] += delta[k];
    float found_S[ROWS * ROWS] = {0};
    assert_true(kwm_cov_predict(&cov, step));
    kwm_cov_project(&cov, &made.jac, found_S);
    for (int64_t k = 0; k < ROWS; k++) found_S[k * ROWS + k] += 1;
    assert_below(dense_error_f32(ROWS * ROWS, found_S, S), 2e-6);
    cov_measure(&cov, &made.jac, 1, mean);
    struct cov_state found = cov_state_of(&cov);
    assert_below(dense_error_f32(WIDTH, mean, wanted), SINGLE);
    assert_below(dense_error(WIDTH * WIDTH, found.P, P), SINGLE);
    free(H), free(e), jac_drop(&made), cov_state_drop(&found);
  }
  free(P), free(prior), kwm_cov_destroy(&cov);
}

/* One block that sees the data, the others blind: both forms are the same filter. */
static void test_forms_agree(void **state) {
  (void)state;
  const struct cov_shape shapes[2] = {shape_of(KWM_FORM_INFORMATION), shape_of(KWM_FORM_INNOVATION)};
  kwm_cov cov[2] = {cov_new(&shapes[0], LAMBDA, NOISE), cov_new(&shapes[1], LAMBDA, NOISE)};
  float mean[2][WIDTH] = {{0}, {0}};
  for (int64_t step = 0; step < STEPS; step++) {
    struct jac_case made = cov_jac(&shapes[0], (uint64_t)(630 + step));
    for (int64_t k = 0; k < COV_SAMPLES * COV_OUTPUTS * 2 * COUNT; k++)
      if (k % COUNT != 5) made.J[k] = 0;
    for (int f = 0; f < 2; f++) {
      assert_true(kwm_cov_predict(&cov[f], step));
      cov_measure(&cov[f], &made.jac, 1, mean[f]);
    }
    struct cov_state a = cov_state_of(&cov[0]), b = cov_state_of(&cov[1]);
    double *const wide = dense_new(WIDTH);
    for (int64_t k = 0; k < WIDTH; k++) wide[k] = (double)mean[0][k];
    assert_below(dense_error_f32(WIDTH, mean[1], wide), SINGLE);
    assert_below(dense_error(WIDTH * WIDTH, b.P, a.P), SINGLE);
    assert_true(fabsf(mean[0][5 * PARAMS]) > 0.01f && mean[0][0] == 0 && mean[1][0] == 0);
    free(wide), jac_drop(&made), cov_state_drop(&a), cov_state_drop(&b);
  }
  kwm_cov_destroy(&cov[0]), kwm_cov_destroy(&cov[1]);
}

/* Evidence that leaves less than a millionth of a variance (and an S that single precision still holds): variances stop
   at a millionth of what they were, and the health says how often. */
static void test_floor(void **state) {
  (void)state;
  const struct cov_shape shape = shape_of(KWM_FORM_INNOVATION);
  kwm_cov cov = cov_new(&shape, 1, 0);
  float mean[WIDTH] = {0};
  struct kwm_health health = {0};
  struct jac_case made = cov_jac(&shape, 640);
  for (int64_t k = 0; k < COV_SAMPLES * COV_OUTPUTS * 2 * COUNT; k++) made.J[k] = k % COUNT == 0 ? 500 * made.J[k] : 0;
  cov_measure(&cov, &made.jac, 1, mean);
  kwm_cov_health(&cov, &health);
  struct cov_state found = cov_state_of(&cov);
  int at_floor = 0;
  for (int64_t k = 0; k < WIDTH; k++) {
    const double prior = cov_prior_variance[k % PARAMS], left = found.P[k * WIDTH + k];
    assert_true(left >= 1e-6 * prior * (1 - 1e-12) && (k < PARAMS || left == prior));
    at_floor += left <= 1e-6 * prior * (1 + 1e-12);
  }
  assert_true(at_floor > 0 && health.floor_hits >= at_floor);
  for (int64_t b = 0; b < WIDTH / PARAMS; b++) {
    double block[PARAMS * PARAMS];
    for (int64_t k = 0; k < PARAMS * PARAMS; k++)
      block[k] = found.P[(b * PARAMS + k / PARAMS) * WIDTH + b * PARAMS + k % PARAMS];
    assert_true(kwm_cholesky_f64(PARAMS, block, PARAMS));
  }
  cov_state_drop(&found), jac_drop(&made), kwm_cov_destroy(&cov);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_information), cmocka_unit_test(test_information_kl), cmocka_unit_test(test_innovation),
    cmocka_unit_test(test_forms_agree), cmocka_unit_test(test_floor),
};
KWM_TEST_MAIN(tests)
