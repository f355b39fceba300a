/* Conformance of covariance structures: what every structure promises in every form it has. */
#include "cov_shapes.h"

/* The state as far as it shows itself without a checkpoint. */
static struct cov_state view_of(const kwm_cov *cov) {
  return (struct cov_state){.n = cov->spec.count * cov->spec.params, .P = cov_dense(cov)};
}

/* The prior is what the spec says, in the state and in its health. */
static void check_prior(const struct cov_shape *shape) {
  kwm_cov cov = cov_new(shape, 1, 0);
  struct cov_state state = view_of(&cov);
  double *const prior = cov_prior(shape), trace = 0;
  /* A first subspace is as orthogonal as its numbers can say. */
  const double close = cov_either(shape, 1e-12, 1e-6), zero = shape->kind == KWM_LOWRANK_SUBSPACE ? close : 0;
  for (int64_t i = 0; i < state.n; i++)
    for (int64_t j = 0; j < state.n; j++) assert_close(state.P[i * state.n + j], i == j ? prior[i] : 0, close, zero);
  for (int64_t k = 0; k < state.n; k++) trace += prior[k];
  struct kwm_health health = {0};
  kwm_cov_health(&cov, &health);
  assert_close(health.prior_trace, trace, 1e-12, 0);
  assert_close(health.trace, trace, close, 0);
  free(prior), cov_state_drop(&state), kwm_cov_destroy(&cov);
}

/* Forgetting alone, noise alone, both: against the dense time update from the same P. */
static void check_predict(const struct cov_shape *shape) {
  static const double dynamics[][2] = {{0.9, 0}, {1, 0.3}, {0.7, 0.2}, {1, 0}};
  float *const mean = cov_zeros(shape), *const anchor = cov_zeros(shape);
  double *const prior = cov_prior(shape);
  for (size_t d = 0; d < sizeof dynamics / sizeof dynamics[0]; d++) {
    kwm_cov cov = cov_warm(shape, dynamics[d][0], dynamics[d][1], mean);
    struct cov_state before = view_of(&cov);
    assert_true(kwm_cov_predict(&cov, COV_WARM, anchor, mean));
    struct cov_state after = view_of(&cov);
    if (dynamics[d][0] == 1 && dynamics[d][1] == 0) assert_true(cov_same_state(&before, &after));
    dense_predict(before.n, before.P, prior, dynamics[d][0], dynamics[d][1]);
    assert_below(dense_error(before.n * before.n, after.P, before.P), cov_accuracy(shape));
    cov_state_drop(&before), cov_state_drop(&after), kwm_cov_destroy(&cov);
  }
  free(mean), free(anchor), free(prior);
}

/* Two thousand steps without evidence: forgetting ends at the prior, mean and all, not at
   infinity (invariant 38). */
static void check_no_windup(const struct cov_shape *shape) {
  float *const mean = cov_zeros(shape), *const anchor = cov_zeros(shape);
  kwm_cov cov = cov_warm(shape, 0.99, 0, mean);
  double *const prior = cov_prior(shape);
  for (int64_t k = 0; k < cov_numbers(shape); k++) anchor[k] = (float)test_normal(505, k);
  for (int step = 0; step < 2000; step++) assert_true(kwm_cov_predict(&cov, COV_WARM, anchor, mean));
  struct cov_state state = view_of(&cov);
  double *const wanted = dense_new(state.n * state.n);
  for (int64_t k = 0; k < state.n; k++) wanted[k * state.n + k] = prior[k];
  assert_below(dense_error(state.n * state.n, state.P, wanted), 1e-5);
  for (int64_t k = 0; k < state.n; k++) assert_close((double)mean[k], (double)anchor[k], 1e-5, 1e-5);
  free(mean), free(anchor), free(prior), free(wanted), cov_state_drop(&state), kwm_cov_destroy(&cov);
}

/* A step given up before apply leaves no trace: the next one is what it would have been. */
static void check_skip(const struct cov_shape *shape) {
  float *const mean = cov_zeros(shape), *const same = cov_zeros(shape);
  kwm_cov cov = cov_warm(shape, 1, 0, mean), twin = cov_warm(shape, 1, 0, same);
  struct jac_case bad = cov_jac(shape, 510), good = cov_jac(shape, 511);
  struct cov_state before = view_of(&cov);
  struct cov_step step;
  assert_true(cov_prepare(&cov, &bad.jac, &step));
  cov_step_drop(&step);
  struct cov_state after = view_of(&cov);
  assert_true(cov_same_state(&before, &after));
  cov_measure(&cov, &good.jac, 0.5, mean);
  cov_measure(&twin, &good.jac, 0.5, same);
  assert_memory_equal(mean, same, (size_t)cov_numbers(shape) * sizeof *mean);
  struct cov_state a = view_of(&cov), b = view_of(&twin);
  assert_true(cov_same_state(&a, &b));
  assert_true(cov_same_state(&a, &before) != cov_learns(shape));
  cov_state_drop(&before), cov_state_drop(&after), cov_state_drop(&a), cov_state_drop(&b);
  jac_drop(&bad), jac_drop(&good), free(mean), free(same), kwm_cov_destroy(&cov), kwm_cov_destroy(&twin);
}

/* Invariant 50: no innovation, no step, bit for bit; P shrinks all the same. No Jacobian: P stays, bit for bit. */
static void check_nothing_new(const struct cov_shape *shape) {
  float *const mean = cov_zeros(shape), *const keep = cov_zeros(shape);
  kwm_cov cov = cov_warm(shape, 1, 0, mean);
  memcpy(keep, mean, (size_t)cov_numbers(shape) * sizeof *mean);
  struct jac_case made = cov_jac(shape, 520);
  memset(made.e, 0, (size_t)(made.jac.n * made.jac.m) * sizeof *made.e);
  struct cov_state before = view_of(&cov);
  cov_measure(&cov, &made.jac, 1, mean);
  struct cov_state after = view_of(&cov);
  assert_memory_equal(mean, keep, (size_t)cov_numbers(shape) * sizeof *mean);
  for (int64_t k = 0; k < before.n && cov_learns(shape); k++)
    assert_true(after.P[k * before.n + k] < before.P[k * before.n + k]);
  assert_true((dense_trace(after.n, after.P) < 0.99 * dense_trace(before.n, before.P)) == cov_learns(shape));
  memset(made.J, 0,
         (size_t)(made.jac.n * made.jac.m * (shape->d_o > 0 ? shape->d_o : 2 * shape->count)) * sizeof *made.J);
  for (int64_t k = 0; k < made.jac.n * made.jac.m; k++) made.e[k] = 1;
  cov_measure(&cov, &made.jac, 1, mean);
  struct cov_state still = view_of(&cov);
  assert_memory_equal(mean, keep, (size_t)cov_numbers(shape) * sizeof *mean);
  assert_true(cov_same_state(&after, &still));
  cov_state_drop(&before), cov_state_drop(&after), cov_state_drop(&still);
  jac_drop(&made), free(mean), free(keep), kwm_cov_destroy(&cov);
}

/* Scale multiplies the step and nothing else. */
static void check_scale(const struct cov_shape *shape) {
  float *const full = cov_zeros(shape), *const half = cov_zeros(shape);
  kwm_cov a = cov_new(shape, 1, 0), b = cov_new(shape, 1, 0);
  struct jac_case made = cov_jac(shape, 530);
  cov_measure(&a, &made.jac, 1, full);
  cov_measure(&b, &made.jac, 0.5, half);
  for (int64_t k = 0; k < cov_numbers(shape); k++) assert_close((double)half[k], 0.5 * (double)full[k], 1e-6, 1e-9);
  struct cov_state p = view_of(&a), q = view_of(&b);
  assert_true(cov_same_state(&p, &q));
  cov_state_drop(&p), cov_state_drop(&q);
  jac_drop(&made), free(full), free(half), kwm_cov_destroy(&a), kwm_cov_destroy(&b);
}

/* A rank that owns nothing takes part in everything. */
static void check_none(const struct cov_shape *shape) {
  struct cov_shape empty = *shape;
  empty.count = 0;
  kwm_cov cov = cov_new(&empty, 0.9, 0.1);
  struct jac_case made = cov_jac(shape, 540);
  struct kwm_jac jac = made.jac;
  if (jac.shape == KWM_JAC_UNITS) jac.count = 0;
  struct cov_step step;
  float mean[1] = {1};
  double none[1] = {1};
  assert_true(kwm_cov_predict(&cov, 0, NULL, NULL));
  if (shape->form == KWM_FORM_INFORMATION) assert_int_equal(kwm_cov_evidence_length(&cov), 0);
  assert_true(cov_prepare(&cov, &jac, &step));
  for (int64_t k = 0; shape->form == KWM_FORM_INNOVATION && k < jac.n * jac.m; k++)
    assert_true(step.S[k * jac.n * jac.m + k] == 1);
  kwm_cov_delta(&cov, none), kwm_cov_moved(&cov, none);
  kwm_cov_apply(&cov, 1, mean);
  assert_true(mean[0] == 1);
  assert_true(kwm_cov_covariance(&cov, none) && kwm_cov_spectrum_length(&cov) == 0 && kwm_cov_spectrum(&cov, none));
  assert_true(none[0] == 1);
  struct kwm_health health = {0};
  kwm_cov_health(&cov, &health);
  assert_true(health.trace == 0 && health.parameters == 0);
  cov_step_drop(&step), jac_drop(&made), kwm_cov_destroy(&cov);
}

static void check_health(const struct cov_shape *shape) {
  float *const mean = cov_zeros(shape);
  kwm_cov cov = cov_warm(shape, 1, 0, mean);
  struct cov_state state = view_of(&cov);
  struct kwm_health health = {.trace = 100, .prior_trace = 10, .parameters = 1};
  double *const prior = cov_prior(shape), prior_trace = 0;
  for (int64_t k = 0; k < state.n; k++) prior_trace += prior[k];
  kwm_cov_health(&cov, &health);
  /* The basis is orthogonal to single precision only. */
  assert_close(health.trace - 100, dense_trace(state.n, state.P), 1e-5, 0);
  assert_close(health.prior_trace - 10, prior_trace, 1e-12, 0);
  assert_true(health.parameters == 1 + (double)state.n && health.floor_hits == 0);
  free(prior), cov_state_drop(&state), free(mean), kwm_cov_destroy(&cov);
}

/* The dense covariance is what the checkpoint amounts to. */
static void check_covariance(const struct cov_shape *shape) {
  float *const mean = cov_zeros(shape);
  kwm_cov cov = cov_ready(shape, 0.9, 0.1, mean);
  struct cov_state state = cov_state_of(&cov);
  double *const P = cov_dense(&cov);
  assert_below(dense_error(state.n * state.n, P, state.P), 1e-11);
  free(P), free(mean), cov_state_drop(&state), kwm_cov_destroy(&cov);
}

/* Saved and loaded into a fresh one: the same state, and the same steps from there on, through a new basis too. */
static void check_round_trip(const struct cov_shape *shape) {
  float *const mean = cov_zeros(shape), *const same = cov_zeros(shape), *const anchor = cov_zeros(shape);
  kwm_cov cov = cov_warm(shape, 0.9, 0.1, mean), twin = cov_new(shape, 0.9, 0.1);
  memcpy(same, mean, (size_t)cov_numbers(shape) * sizeof *mean);
  struct cov_file file;
  cov_write(&cov, &file);
  assert_ok(kwm_cov_load(&twin, file.ckpt));
  cov_file_drop(&file);
  for (int64_t step = COV_REFRESH; step < COV_REFRESH + 2; step++) {
    struct jac_case made = cov_jac(shape, (uint64_t)(550 + step));
    struct cov_state a = view_of(&cov), b = view_of(&twin);
    assert_true(cov_same_state(&a, &b));
    assert_true(kwm_cov_predict(&cov, step, anchor, mean) && kwm_cov_predict(&twin, step, anchor, same));
    cov_measure(&cov, &made.jac, 1, mean);
    cov_measure(&twin, &made.jac, 1, same);
    assert_memory_equal(mean, same, (size_t)cov_numbers(shape) * sizeof *mean);
    cov_state_drop(&a), cov_state_drop(&b), jac_drop(&made);
  }
  free(mean), free(same), free(anchor), kwm_cov_destroy(&cov), kwm_cov_destroy(&twin);
}

/* What is not finite is refused before apply. */
static void check_not_finite(const struct cov_shape *shape) {
  for (int where = 0; where < 2 && shape->form == KWM_FORM_INFORMATION; where++) {
    kwm_cov cov = cov_new(shape, 1, 0);
    struct jac_case made = cov_jac(shape, 560);
    (where == 0 ? made.J : made.e)[1] = NAN;
    struct cov_step step;
    assert_false(cov_prepare(&cov, &made.jac, &step));
    cov_step_drop(&step), jac_drop(&made), kwm_cov_destroy(&cov);
  }
  if (shape->form == KWM_FORM_INFORMATION) return;
  kwm_cov cov = cov_new(shape, 1, 0);
  struct jac_case made = cov_jac(shape, 561);
  struct cov_step step;
  assert_true(cov_prepare(&cov, &made.jac, &step));
  step.w[2] = NAN;
  assert_false(kwm_cov_condition(&cov, &made.jac, step.S, step.w));
  cov_step_drop(&step), jac_drop(&made), kwm_cov_destroy(&cov);
}

COV_TEST(prior)
COV_TEST(predict)
COV_TEST(no_windup)
COV_TEST(skip)
COV_TEST(nothing_new)
COV_TEST(scale)
COV_TEST(none)
COV_TEST(health)
COV_TEST(covariance)
COV_TEST(round_trip)
COV_TEST(not_finite)

static void test_find(void **state) {
  (void)state;
  assert_ptr_equal(kwm_cov_find("block"), &kwm_cov_block);
  assert_ptr_equal(kwm_cov_find("kron"), &kwm_cov_kron);
  assert_ptr_equal(kwm_cov_find("diag"), &kwm_cov_diag);
  assert_ptr_equal(kwm_cov_find("lowrank"), &kwm_cov_lowrank);
  assert_null(kwm_cov_find("blocks"));
}

static const struct CMUnitTest tests[] = {
    cov_unit_test(prior),       cov_unit_test(predict),    cov_unit_test(no_windup),  cov_unit_test(skip),
    cov_unit_test(nothing_new), cov_unit_test(scale),      cov_unit_test(none),       cov_unit_test(health),
    cov_unit_test(covariance),  cov_unit_test(round_trip), cov_unit_test(not_finite), cmocka_unit_test(test_find),
};
KWM_TEST_MAIN(tests)
