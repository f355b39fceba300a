/* The filter's step on a small model, one rank: in the innovation form the textbook's decoupled extended Kalman filter
   over all parameters; in every form gain factor, trust region and gate do what they say. */
#include "cov_case.h"
#include "small_model.h"

#include "kwm/filter.h"

enum { UNITS = 16, SAMPLES = 4, ROWS = SAMPLES * SMALL_CLASSES };

/* A pipe, its parameters and a filter over their groups. */
struct bench {
  struct small small;
  struct kwm_filter filter;
  struct kwm_lin lin;
  int64_t first[KWM_GROUPS_MAX], width;
};

static struct kwm_cov_spec group_spec(const struct small *small, int g, enum kwm_form form, const double *variance) {
  const struct kwm_group *const group = &small->model.groups[g];
  const bool matrix = group->d_o > 0;
  return (struct kwm_cov_spec){.name = "group",
                               .form = form,
                               .real = matrix ? KWM_REAL_FLOAT : KWM_REAL_DOUBLE,
                               .count = group->total,
                               .total = group->total,
                               .params = group->params,
                               .d_o = group->d_o,
                               .d_i = group->d_i,
                               .prior_variance = matrix ? NULL : variance,
                               .prior_precision = matrix ? 20 : 0,
                               .forgetting = 1,
                               .refresh = 100,
                               .n_max = SAMPLES,
                               .m = SMALL_CLASSES};
}

static void bench_init(struct bench *bench, enum kwm_form form, const struct kwm_filter_spec *spec) {
  const struct kwm_layout alone = small_alone();
  double variance[KWM_GATED_PARAMS];
  kwm_cov cov[KWM_GROUPS_MAX];
  memset(bench, 0, sizeof *bench);
  small_init(&bench->small, &alone, UNITS, SAMPLES, form == KWM_FORM_INFORMATION ? 2 : 1);
  kwm_model_prior_variance(20, variance);
  for (int g = 0; g < SMALL_GROUPS; g++) {
    const struct kwm_cov_spec cov_spec = group_spec(&bench->small, g, form, variance);
    assert_ok(kwm_cov_create(&cov[g], g == KWM_GROUP_RECURRENCE ? &kwm_cov_block : &kwm_cov_kron, &cov_spec));
    bench->first[g] = bench->width;
    bench->width += cov_spec.count * cov_spec.params;
  }
  struct kwm_filter_spec full = *spec;
  full.batch = SAMPLES;
  full.chunks = form == KWM_FORM_INFORMATION ? 2 : 1;
  assert_ok(kwm_filter_init(&bench->filter, &bench->small.layout, &full, SMALL_GROUPS, cov, bench->small.params.mean));
}

static void bench_fini(struct bench *bench) {
  kwm_filter_fini(&bench->filter);
  small_fini(&bench->small);
}

static void bench_step(struct bench *bench, int64_t first, struct kwm_step *step) {
  *step = (struct kwm_step){0};
  kwm_filter_predict(&bench->filter);
  small_linearise(&bench->small, first, SAMPLES, &bench->lin);
  kwm_filter_innovate(&bench->filter, &bench->lin);
  kwm_filter_gain(&bench->filter, &bench->lin, step);
  kwm_filter_update(&bench->filter, step);
}

static double *all_means(const struct bench *bench) {
  double *const theta = dense_new(bench->width);
  for (int g = 0; g < SMALL_GROUPS; g++)
    for (int64_t k = bench->first[g]; k < (g + 1 < SMALL_GROUPS ? bench->first[g + 1] : bench->width); k++)
      theta[k] = (double)bench->small.params.mean[g][k - bench->first[g]];
  return theta;
}

static double *all_rows(const struct bench *bench) {
  double *const H = dense_new(ROWS * bench->width);
  for (int g = 0; g < SMALL_GROUPS; g++) jac_rows_into(&bench->lin.jac[g], bench->width, bench->first[g], H);
  return H;
}

/* Block-diagonal over groups, from what each covariance saves. */
static double *all_covariances(const struct bench *bench) {
  const int64_t n = bench->width;
  double *const P = dense_new(n * n);
  for (int g = 0; g < SMALL_GROUPS; g++) {
    struct cov_state state = cov_state_of(&bench->filter.group[g].cov);
    for (int64_t i = 0; i < state.n; i++)
      for (int64_t j = 0; j < state.n; j++)
        P[(bench->first[g] + i) * n + bench->first[g] + j] = state.P[i * state.n + j];
    cov_state_drop(&state);
  }
  return P;
}

/* Of the dense posterior, group g keeps its blocks (recurrence) or its diagonal in the basis (matrices). */
static void check_posterior(const struct bench *bench, const double *P, int g) {
  const int64_t n = bench->width, first = bench->first[g];
  const struct kwm_cov *const cov = &bench->filter.group[g].cov;
  struct cov_state found = cov_state_of(cov);
  double *const own = dense_new(found.n * found.n);
  for (int64_t i = 0; i < found.n; i++)
    for (int64_t j = 0; j < found.n; j++) own[i * found.n + j] = P[(first + i) * n + first + j];
  if (g == KWM_GROUP_RECURRENCE) {
    dense_decouple(found.n, cov->spec.params, own);
    assert_below(dense_error(found.n * found.n, found.P, own), 2e-5);
  } else {
    double *const basis_t = dense_new(found.n * found.n), *const product = dense_new(found.n * found.n);
    dense_transpose(found.n, found.n, found.basis, basis_t);
    dense_multiply(found.n, found.n, found.n, own, found.basis, product);
    dense_multiply(found.n, found.n, found.n, basis_t, product, own);
    for (int64_t k = 0; k < found.n; k++) assert_close(1 / found.D[k], own[k * found.n + k], 5e-5, 0);
    free(basis_t), free(product);
  }
  free(own), cov_state_drop(&found);
}

/* Three steps, a new basis before the second. predict changes nothing else here (no forgetting, no noise), so P before
   the measurement is what the state says after a predict of its own. */
static void test_textbook(void **state) {
  (void)state;
  const struct kwm_filter_spec spec = {.gain_factor = 1, .forgetting = 1};
  struct bench bench;
  bench_init(&bench, KWM_FORM_INNOVATION, &spec);
  for (int64_t t = 0; t < 3; t++) {
    struct kwm_step step = {0};
    double *const before = all_means(&bench), *const delta = dense_new(bench.width);
    small_linearise(&bench.small, t * SAMPLES, SAMPLES, &bench.lin);
    kwm_filter_predict(&bench.filter);
    double *const P = all_covariances(&bench), *const H = all_rows(&bench);
    double *const e = jac_innovation(&bench.lin.jac[KWM_GROUP_OUTPUT]);
    kwm_filter_innovate(&bench.filter, &bench.lin);
    kwm_filter_gain(&bench.filter, &bench.lin, &step);
    kwm_filter_update(&bench.filter, &step);
    assert_int_equal(step.verdict, KWM_STEP_DONE);
    dense_update(bench.width, ROWS, P, H, e, delta);
    double *const after = all_means(&bench), moved = 0;
    for (int64_t k = 0; k < bench.width; k++) after[k] -= before[k];
    assert_below(dense_error(bench.width, after, delta), 5e-5);
    for (int g = 0; g < SMALL_GROUPS; g++) check_posterior(&bench, P, g);
    for (int64_t row = 0; row < ROWS; row++) {
      double change = 0;
      for (int64_t k = 0; k < bench.width; k++) change += H[row * bench.width + k] * delta[k];
      moved += change * change / SAMPLES;
    }
    for (int g = 0; g < SMALL_GROUPS; g++) assert_close(step.kl[g], moved, 1e-4, 0);
    free(before), free(after), free(delta), free(P), free(H), free(e);
  }
  bench_fini(&bench);
}

/* The first step of a filter with this spec: what moved, by how much. */
static double *first_move(enum kwm_form form, const struct kwm_filter_spec *spec, struct bench *bench,
                          struct kwm_step *step) {
  bench_init(bench, form, spec);
  double *const before = all_means(bench);
  bench_step(bench, 0, step);
  double *const move = all_means(bench);
  for (int64_t k = 0; k < bench->width; k++) move[k] -= before[k];
  free(before);
  return move;
}

/* δᵀFδ per sample of group g's move, F of the group's blocks. */
static double moved_kl(const struct bench *bench, int g, const double *move) {
  const struct kwm_jac *const jac = &bench->lin.jac[g];
  const int64_t p = g == KWM_GROUP_RECURRENCE ? jac->params : jac_columns(jac);
  double *const H = jac_rows(jac), sum = 0;
  for (int64_t row = 0; row < ROWS; row++)
    for (int64_t b = 0; b < jac_columns(jac) / p; b++) {
      double change = 0;
      for (int64_t k = b * p; k < (b + 1) * p; k++) change += H[row * jac_columns(jac) + k] * move[bench->first[g] + k];
      sum += change * change / SAMPLES;
    }
  free(H);
  return sum;
}

/* Gain factor η, then a bound that binds: the move is scaled by η and by √(bound/kl), group by group, so that what the
   scaled move would change, before η, is the bound. */
static void test_scaling(void **state) {
  (void)state;
  const struct kwm_filter_spec plain = {.gain_factor = 1, .forgetting = 1},
                               half = {.gain_factor = 0.5, .forgetting = 1};
  const struct kwm_filter_spec loose = {.gain_factor = 1, .trust_region = 1e6, .forgetting = 1};
  for (int f = 0; f < 2; f++) {
    const enum kwm_form form = f == 0 ? KWM_FORM_INFORMATION : KWM_FORM_INNOVATION;
    struct bench bench[4];
    struct kwm_step step[4];
    double *const full = first_move(form, &plain, &bench[0], &step[0]), *const halved = first_move(form, &half,
                                                                                                   &bench[1], &step[1]);
    const double least = fmin(fmin(step[0].kl[0], step[0].kl[1]), step[0].kl[2]) / 4;
    const struct kwm_filter_spec bound = {.gain_factor = 0.5, .trust_region = least, .forgetting = 1};
    double *const bounded = first_move(form, &bound, &bench[2], &step[2]), *const free_move = first_move(
                                                                               form, &loose, &bench[3], &step[3]);
    assert_memory_equal(full, free_move, (size_t)bench[0].width * sizeof *full);
    for (int g = 0; g < SMALL_GROUPS; g++) {
      const double scale = 0.5 * sqrt(least / step[0].kl[g]);
      assert_true(step[0].scale[g] == 1 && step[1].scale[g] == 0.5);
      assert_close(step[2].kl[g], step[0].kl[g], 1e-12, 0);
      assert_close(step[2].scale[g], scale, 1e-12, 0);
      const int64_t n = (g + 1 < SMALL_GROUPS ? bench[0].first[g + 1] : bench[0].width) - bench[0].first[g];
      double *const wanted = dense_new(n), *const half_wanted = dense_new(n);
      for (int64_t k = 0; k < n; k++)
        wanted[k] = scale * full[bench[0].first[g] + k], half_wanted[k] = full[bench[0].first[g] + k] / 2;
      /* Moves are differences of single-precision means of order one. */
      assert_below(dense_error(n, bounded + bench[0].first[g], wanted), 1e-3);
      assert_below(dense_error(n, halved + bench[0].first[g], half_wanted), 1e-4);
      if (form == KWM_FORM_INFORMATION && g == KWM_GROUP_RECURRENCE)
        assert_close(moved_kl(&bench[2], g, bounded), 0.25 * least, 5e-3, 0);
      free(wanted), free(half_wanted);
    }
    free(full), free(halved), free(bounded), free(free_move);
    for (int k = 0; k < 4; k++) bench_fini(&bench[k]);
  }
}

/* A skipped step counts, and changes neither means nor covariances. */
static void test_gate(void **state) {
  (void)state;
  for (int f = 0; f < 2; f++) {
    const struct kwm_filter_spec spec = {.gain_factor = 1, .gate = 0.01, .forgetting = 1};
    struct bench bench;
    struct kwm_step step;
    double *const move = first_move(f == 0 ? KWM_FORM_INFORMATION : KWM_FORM_INNOVATION, &spec, &bench, &step);
    assert_int_equal(step.verdict, KWM_STEP_GATED);
    assert_true(step.innovation.surprisal > 0.01 * SAMPLES && bench.filter.steps == 1);
    for (int64_t k = 0; k < bench.width; k++) assert_true(move[k] == 0);
    for (int g = 0; g < SMALL_GROUPS; g++) {
      struct kwm_health health = {0};
      kwm_cov_health(&bench.filter.group[g].cov, &health);
      assert_close(health.trace, health.prior_trace, 1e-12, 0);
    }
    free(move), bench_fini(&bench);
  }
}

/* Standard score of the surprisal, and the ratio that nis is. */
static void test_consistency(void **state) {
  (void)state;
  const struct kwm_innovation facts = {.samples = 4, .surprisal = 7, .entropy = 5, .variance = 16};
  assert_close(kwm_innovation_score(&facts), 0.5, 1e-15, 0);
  const struct kwm_innovation certain = {.samples = 4};
  assert_true(isfinite(kwm_innovation_score(&certain)));
  const struct kwm_filter_spec spec = {.gain_factor = 1, .forgetting = 1};
  struct bench bench;
  struct kwm_step step;
  double *const move = first_move(KWM_FORM_INFORMATION, &spec, &bench, &step);
  assert_close(step.nis, step.innovation.squared / step.innovation.expected, 1e-15, 0);
  assert_true(step.nis > 0.2 && step.nis < 5 && step.innovation.samples == SAMPLES);
  free(move), bench_fini(&bench);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_textbook),
    cmocka_unit_test(test_scaling),
    cmocka_unit_test(test_gate),
    cmocka_unit_test(test_consistency),
};
KWM_TEST_MAIN(tests)
