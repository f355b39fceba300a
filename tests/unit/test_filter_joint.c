/* The filter with one exact covariance of all parameters, one rank: step for step the textbook's extended Kalman
   filter, with process noise and forgetting, and nothing moves when a step is skipped. */
#include "cov_case.h"
#include "small_model.h"

#include "kwm/filter.h"

enum { UNITS = 16, SAMPLES = 4, ROWS = SAMPLES * SMALL_CLASSES, STEPS = 4 };

struct joint_case {
  struct small small;
  struct kwm_filter filter;
  struct kwm_lin lin;
  int64_t first[KWM_GROUPS_MAX], width;
  double *prior; /* (width) */
  double variance[KWM_GATED_PARAMS];
};

static void joint_init(struct joint_case *made, const struct kwm_filter_spec *spec) {
  const struct kwm_layout alone = small_alone();
  struct kwm_filter_part groups[KWM_GROUPS_MAX];
  memset(made, 0, sizeof *made);
  small_init(&made->small, &alone, UNITS, SAMPLES, 1);
  double *const variance = made->variance;
  kwm_model_prior_variance(20, variance);
  for (int g = 0; g < SMALL_GROUPS; g++) {
    const struct kwm_group *const group = &made->small.model.groups[g];
    groups[g] = (struct kwm_filter_part){.total = group->total,
                                         .name = group->name,
                                         .params = group->params,
                                         .d_o = group->d_o,
                                         .n_max = SAMPLES,
                                         .count = group->total,
                                         .m = SMALL_CLASSES,
                                         .prior_variance = g == KWM_GROUP_RECURRENCE ? variance : NULL,
                                         .prior_precision = 20,
                                         .mean = made->small.params.mean[g]};
    made->first[g] = made->width;
    made->width += group->total * group->params;
  }
  made->prior = dense_new(made->width);
  for (int g = 0; g < SMALL_GROUPS; g++)
    for (int64_t k = made->first[g]; k < (g + 1 < SMALL_GROUPS ? made->first[g + 1] : made->width); k++)
      made->prior[k] = g == KWM_GROUP_RECURRENCE ? variance[k % KWM_GATED_PARAMS] : 1.0 / 20;
  struct kwm_filter_spec full = *spec;
  full.batch = SAMPLES;
  full.chunks = 1;
  assert_ok(kwm_filter_init_joint(&made->filter, &made->small.layout, &full, SMALL_GROUPS, groups));
}

static void joint_fini(struct joint_case *made) {
  kwm_filter_fini(&made->filter);
  small_fini(&made->small);
  free(made->prior);
}

static double *means_of(const struct joint_case *made) {
  double *const theta = dense_new(made->width);
  for (int g = 0; g < SMALL_GROUPS; g++)
    for (int64_t k = made->first[g]; k < (g + 1 < SMALL_GROUPS ? made->first[g + 1] : made->width); k++)
      theta[k] = (double)made->small.params.mean[g][k - made->first[g]];
  return theta;
}

static void step_once(struct joint_case *made, int64_t t, struct kwm_step *step) {
  *step = (struct kwm_step){0};
  kwm_filter_predict(&made->filter);
  small_linearise(&made->small, t * SAMPLES, SAMPLES, &made->lin);
  kwm_filter_innovate(&made->filter, &made->lin);
  kwm_filter_gain(&made->filter, &made->lin, step);
  kwm_filter_update(&made->filter, step);
}

static double trace_of(const struct joint_case *made) {
  struct kwm_health health = {0};
  kwm_filter_health(&made->filter, 0, &health);
  assert_true(health.parameters == (double)made->width);
  return health.trace;
}

/* mean (n) += (1-λ) Λ'⁻¹ Λ0 (anchor - mean) with P (n, n) before the time update. */
static void pull(const struct joint_case *made, const double *P, double forgetting, const double *anchor,
                 double *mean) {
  const int64_t n = made->width;
  double *const next = dense_copy(n * n, P), *const way = dense_new(n), *const moved = dense_new(n);
  dense_predict(n, next, made->prior, forgetting, 0);
  for (int64_t k = 0; k < n; k++) way[k] = (1 - forgetting) * (anchor[k] - mean[k]) / made->prior[k];
  dense_multiply(n, 1, n, next, way, moved);
  for (int64_t k = 0; k < n; k++) mean[k] += moved[k];
  free(next), free(way), free(moved);
}

static void run_textbook(enum kwm_real real, double forgetting, double noise) {
  const struct kwm_filter_spec spec = {
      .gain_factor = 1, .forgetting = forgetting, .process_noise = noise, .real = real};
  struct joint_case made;
  joint_init(&made, &spec);
  const int64_t n = made.width;
  double *const P = dense_new(n * n), *const anchor = means_of(&made);
  for (int64_t k = 0; k < n; k++) P[k * n + k] = made.prior[k];
  for (int64_t t = 0; t < STEPS; t++) {
    struct kwm_step step;
    double *const mean = means_of(&made), *const delta = dense_new(n), *const H = dense_new(ROWS * n);
    step_once(&made, t, &step);
    assert_int_equal(step.verdict, KWM_STEP_DONE);
    for (int g = 0; g < SMALL_GROUPS; g++) jac_rows_into(&made.lin.jac[g], n, made.first[g], H);
    double *const e = jac_innovation(&made.lin.jac[KWM_GROUP_OUTPUT]), *const after = means_of(&made);
    pull(&made, P, forgetting, anchor, mean);
    dense_predict(n, P, made.prior, forgetting, noise);
    dense_update(n, ROWS, P, H, e, delta);
    for (int64_t k = 0; k < n; k++) after[k] -= mean[k];
    assert_below(dense_error(n, after, delta), real == KWM_REAL_FLOAT ? 5e-4 : 5e-5);
    assert_close(trace_of(&made), dense_trace(n, P), real == KWM_REAL_FLOAT ? 1e-4 : 1e-5, 0);
    free(mean), free(delta), free(H), free(e), free(after);
  }
  free(P), free(anchor);
  joint_fini(&made);
}

static void test_textbook(void **state) {
  (void)state;
  for (int r = 0; r < 2; r++) {
    const enum kwm_real real = r == 0 ? KWM_REAL_DOUBLE : KWM_REAL_FLOAT;
    run_textbook(real, 1, 0);
    run_textbook(real, 0.9, 0.01);
  }
}

/* A gate that no step passes: means and covariance stay as they are, bit for bit. */
static void test_skip(void **state) {
  (void)state;
  const struct kwm_filter_spec spec = {.gain_factor = 1, .forgetting = 1, .gate = 1e-9};
  struct joint_case made;
  struct kwm_step step;
  joint_init(&made, &spec);
  double *const before = means_of(&made);
  const double trace = trace_of(&made);
  step_once(&made, 0, &step);
  double *const after = means_of(&made);
  assert_int_equal(step.verdict, KWM_STEP_GATED);
  assert_memory_equal(before, after, (size_t)made.width * sizeof *before);
  assert_true(trace_of(&made) == trace);
  free(before), free(after);
  joint_fini(&made);
}

/* The trust region shortens the whole step: its change of the whitened outputs, HP Hᵀw, is what is bounded. */
static void test_trust_region(void **state) {
  (void)state;
  const struct kwm_filter_spec plain = {.gain_factor = 1, .forgetting = 1};
  struct joint_case made;
  struct kwm_step free_step, step;
  joint_init(&made, &plain);
  step_once(&made, 0, &free_step);
  joint_fini(&made);
  const struct kwm_filter_spec bound = {.gain_factor = 1, .forgetting = 1, .trust_region = free_step.kl[0] / 9};
  joint_init(&made, &bound);
  step_once(&made, 0, &step);
  assert_close(free_step.scale[0], 1, 0, 0);
  assert_close(step.scale[0], 1.0 / 3, 1e-9, 0);
  joint_fini(&made);
}

static const struct CMUnitTest tests[] = {cmocka_unit_test(test_textbook), cmocka_unit_test(test_skip),
                                          cmocka_unit_test(test_trust_region)};
KWM_TEST_MAIN(tests)
