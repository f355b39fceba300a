/* The filter on the dense model, one rank: the textbook's extended Kalman filter where the exact covariance is kept, or
   its diagonal in the basis; and a first layer whose mean is kept in the eigenbasis is the same network. */
#include "cov_case.h"
#include "dense_model.h"

enum { SAMPLES = 4, ROWS = SAMPLES * SMALL_CLASSES, STEPS = 4, REFRESH = 3 };
static const double PRIOR = 20;

/* ---- the textbook */

struct bench {
  struct net net;
  struct kwm_filter filter;
  struct kwm_lin lin;
  int64_t first[KWM_GROUPS_MAX + 1], width;
};

static struct kwm_cov_spec cov_spec(const struct net *net, int g, enum kwm_form form) {
  const struct kwm_group *const group = &net->model.groups[g];
  return (struct kwm_cov_spec){.name = "group",
                               .form = form,
                               .real = KWM_REAL_FLOAT,
                               .count = 1,
                               .total = 1,
                               .params = group->params,
                               .d_o = group->d_o,
                               .d_i = group->d_i,
                               .prior_precision = PRIOR,
                               .forgetting = 1,
                               .refresh = REFRESH,
                               .n_max = SAMPLES,
                               .m = SMALL_CLASSES};
}

static const struct kwm_filter_spec whole_steps = {.gain_factor = 1, .forgetting = 1, .batch = SAMPLES, .chunks = 1};

static void bench_net(struct bench *bench, int n_layers) {
  const struct kwm_layout alone = small_alone();
  const struct net_shape shape = {
      .n_layers = n_layers, .widths = {5, 4, 6}, .evidence = KWM_EVIDENCE_EXACT, .batch = SAMPLES, .chunks = 1};
  memset(bench, 0, sizeof *bench);
  net_init(&bench->net, &alone, &shape);
  for (int g = 0; g < bench->net.model.n_groups; g++)
    bench->first[g + 1] = bench->width += bench->net.model.groups[g].params;
}

/* A kron of every group's own, with plain means. */
static void bench_groups(struct bench *bench, int n_layers, enum kwm_form form) {
  kwm_cov cov[KWM_GROUPS_MAX];
  bench_net(bench, n_layers);
  const int n_groups = bench->net.model.n_groups;
  for (int g = 0; g < n_groups; g++) {
    const struct kwm_cov_spec spec = cov_spec(&bench->net, g, form);
    assert_ok(kwm_cov_create(&cov[g], &kwm_cov_kron, &spec));
  }
  assert_ok(kwm_filter_init(&bench->filter, &bench->net.layout, &whole_steps, n_groups, cov, bench->net.params.mean));
}

static void bench_joint(struct bench *bench, int n_layers) {
  struct kwm_filter_part parts[KWM_GROUPS_MAX];
  bench_net(bench, n_layers);
  const int n_groups = bench->net.model.n_groups;
  for (int g = 0; g < n_groups; g++) {
    const struct kwm_cov_spec spec = cov_spec(&bench->net, g, KWM_FORM_INNOVATION);
    parts[g] = kwm_filter_part_of(&spec, bench->net.params.mean[g]);
    parts[g].name = bench->net.model.groups[g].name;
  }
  assert_ok(kwm_filter_init_joint(&bench->filter, &bench->net.layout, &whole_steps, n_groups, parts));
}

static void bench_fini(struct bench *bench) {
  kwm_filter_fini(&bench->filter);
  net_fini(&bench->net);
}

static double *all_means(const struct bench *bench) {
  double *const theta = dense_new(bench->width);
  for (int g = 0; g < bench->net.model.n_groups; g++)
    for (int64_t k = bench->first[g]; k < bench->first[g + 1]; k++)
      theta[k] = (double)bench->net.params.mean[g][k - bench->first[g]];
  return theta;
}

static void innovate_and_update(struct bench *bench, struct kwm_step *step) {
  *step = (struct kwm_step){0};
  kwm_filter_innovate(&bench->filter, &bench->lin);
  kwm_filter_gain(&bench->filter, &bench->lin, step);
  kwm_filter_update(&bench->filter, step);
  assert_int_equal(step->verdict, KWM_STEP_DONE);
}

/* One step of the filter, and of the textbook's from P (width, width) <- the posterior. */
static void step_against(struct bench *bench, double *P) {
  const int64_t n = bench->width;
  double *const before = all_means(bench), *const delta = dense_new(n), *const H = dense_new(ROWS * n);
  struct kwm_step step;
  for (int g = 0; g < bench->net.model.n_groups; g++) jac_rows_into(&bench->lin.jac[g], n, bench->first[g], H);
  double *const e = jac_innovation(&bench->lin.jac[0]);
  innovate_and_update(bench, &step);
  dense_update(n, ROWS, P, H, e, delta);
  double *const after = all_means(bench);
  for (int64_t k = 0; k < n; k++) after[k] -= before[k];
  assert_below(dense_error(n, after, delta), 5e-5);
  assert_true(step.rows == ROWS);
  free(before), free(delta), free(H), free(e), free(after);
}

/* Of the dense posterior every group keeps the diagonal in its basis. */
static void check_diagonal(const struct bench *bench, int g, const double *P) {
  const int64_t n = bench->width, at = bench->first[g];
  struct cov_state found = cov_state_of(&bench->filter.group[g].cov);
  for (int64_t k = 0; k < found.n; k++) {
    double variance = 0;
    for (int64_t i = 0; i < found.n; i++)
      for (int64_t j = 0; j < found.n; j++)
        variance += found.basis[i * found.n + k] * P[(at + i) * n + at + j] * found.basis[j * found.n + k];
    assert_close(1 / found.D[k], variance, 5e-5, 0);
  }
  cov_state_drop(&found);
}

/* P before the measurement is what the state says after a predict, which may only turn the basis here. */
static void test_innovation(void **state) {
  (void)state;
  for (int n_layers = 1; n_layers <= NET_LAYERS_MAX; n_layers += 2) {
    struct bench bench;
    bench_groups(&bench, n_layers, KWM_FORM_INNOVATION);
    const int64_t n = bench.width;
    for (int64_t t = 0; t < STEPS; t++) {
      double *const P = dense_new(n * n);
      kwm_filter_predict(&bench.filter);
      net_linearise(&bench.net, t * SAMPLES, SAMPLES, &bench.lin);
      for (int g = 0; g < bench.net.model.n_groups; g++) {
        struct cov_state own = cov_state_of(&bench.filter.group[g].cov);
        for (int64_t k = 0; k < own.n * own.n; k++)
          P[(bench.first[g] + k / own.n) * n + bench.first[g] + k % own.n] = own.P[k];
        cov_state_drop(&own);
      }
      step_against(&bench, P);
      for (int g = 0; g < bench.net.model.n_groups; g++) check_diagonal(&bench, g, P);
      free(P);
    }
    bench_fini(&bench);
  }
}

static void test_joint(void **state) {
  (void)state;
  for (int n_layers = 1; n_layers <= NET_LAYERS_MAX; n_layers += 2) {
    struct bench bench;
    bench_joint(&bench, n_layers);
    const int64_t n = bench.width;
    double *const P = dense_new(n * n), *const found = dense_new(n * n);
    for (int64_t k = 0; k < n; k++) P[k * n + k] = 1 / PRIOR;
    for (int64_t t = 0; t < STEPS; t++) {
      kwm_filter_predict(&bench.filter);
      net_linearise(&bench.net, t * SAMPLES, SAMPLES, &bench.lin);
      step_against(&bench, P);
    }
    kwm_filter_covariance(&bench.filter, found);
    assert_below(dense_error(n * n, found, P), 1e-5);
    free(P), free(found);
    bench_fini(&bench);
  }
}

/* ---- the framed first layer */

enum { LONG = 10 };

static struct kwm_learn_spec learn_spec(enum kwm_evidence evidence) {
  const struct kwm_cov_choice kron = {
      .structure = "kron", .form = KWM_FORM_INFORMATION, .real = KWM_REAL_FLOAT, .prior = PRIOR, .refresh = REFRESH};
  return (struct kwm_learn_spec){.filter = whole_steps,
                                 .rows = evidence == KWM_EVIDENCE_SAMPLED ? 1 : SMALL_CLASSES,
                                 .cov = {[KWM_ROLE_HIDDEN] = kron, [KWM_ROLE_OUTPUT] = kron},
                                 .group_ranks = 1};
}

struct framed {
  struct net net, other; /* other: a pipe of its own, for plain means */
  kwm_learner learner;
  struct kwm_lin lin;
};

static void framed_init(struct framed *made, enum kwm_evidence evidence, bool readouts) {
  const struct kwm_layout alone = small_alone();
  const struct kwm_learn_spec spec = learn_spec(evidence);
  const struct net_shape shape = {
      .n_layers = 2, .widths = {5, 4}, .readouts = readouts, .evidence = evidence, .batch = SAMPLES, .chunks = 1};
  net_init(&made->net, &alone, &shape);
  net_init(&made->other, &alone, &shape);
  const size_t before = kwm_mem_bytes();
  assert_ok(kwm_learner_create(&made->learner, &kwm_learn_kalman, &made->net.layout, &made->net.params, &spec));
  assert_int_equal(kwm_mem_bytes() - before, kwm_learner_bytes(&kwm_learn_kalman, &spec, &made->net.params, 1));
}

static void framed_fini(struct framed *made) {
  kwm_learner_destroy(&made->learner);
  net_fini(&made->net), net_fini(&made->other);
}

/* The learner's means with the first layer's as a matrix. */
static struct kwm_means plain_means(struct framed *made) {
  struct kwm_means means = kwm_learner_means(&made->learner);
  kwm_cov_unframe(&kwm_learner_filter(&made->learner)->group[0].cov, means.at[0], made->other.params.mean[0]);
  means.at[0] = made->other.params.mean[0];
  means.frame[0] = (struct kwm_frame){0};
  return means;
}

static void same_floats(int64_t n, const float *found, const float *wanted) {
  double *const wide = small_widen(n, wanted);
  assert_below(dense_error_f32(n, found, wide), 1e-5);
  free(wide);
}

/* The network that the frame hides: outputs, rows, inputs and predictions. */
static void check_same_network(struct framed *made, int64_t t) {
  const struct kwm_means framed = kwm_learner_means(&made->learner), plain = plain_means(made);
  struct kwm_innovation sums, plain_sums;
  struct kwm_lin lin;
  assert_non_null(framed.frame[0].U);
  for (int g = 1; g < made->net.model.n_groups; g++) assert_null(framed.frame[g].U);
  made->net.step = made->other.step = (uint64_t)t;
  kwm_pipe_predict(made->net.pipe, &framed, &made->net.data->images, &sums);
  kwm_pipe_predict(made->other.pipe, &plain, &made->net.data->images, &plain_sums);
  assert_close(sums.surprisal, plain_sums.surprisal, 1e-5, 0);
  assert_true(sums.samples == SMALL_IMAGES && sums.correct == plain_sums.correct);
  net_linearise_at(&made->net, &framed, t * SAMPLES, SAMPLES, &made->lin);
  net_linearise_at(&made->other, &plain, t * SAMPLES, SAMPLES, &lin);
  same_floats(ROWS, kwm_pipe_outputs(made->net.pipe), kwm_pipe_outputs(made->other.pipe));
  for (int g = 0; g < made->net.model.n_groups; g++) {
    const struct kwm_jac *const a = &made->lin.jac[g], *const b = &lin.jac[g];
    same_floats(a->n * a->m * a->d_o, a->J, b->J);
    same_floats(a->n * a->d_i, a->a, b->a);
    if (a->g != NULL) same_floats(a->n * a->d_o, a->g, b->g);
    assert_true((a->aU != NULL) == (g == 0) && b->aU == NULL);
  }
}

/* aU is what it says. */
static void check_turned(const struct framed *made) {
  const struct kwm_jac *const jac = &made->lin.jac[0];
  const float *const U = kwm_learner_means(&made->learner).frame[0].U;
  double *const wanted = dense_new(jac->n * jac->d_i);
  for (int64_t k = 0; k < jac->n * jac->d_i; k++)
    for (int64_t j = 0; j < jac->d_i; j++)
      wanted[k] += (double)jac->a[k / jac->d_i * jac->d_i + j] * (double)U[j * jac->d_i + k % jac->d_i];
  assert_below(dense_error_f32(jac->n * jac->d_i, jac->aU, wanted), 1e-5);
  free(wanted);
}

static void check_framed(enum kwm_evidence evidence, bool readouts) {
  struct framed made;
  struct kwm_step step;
  int turns = 0;
  float corner = 1;
  framed_init(&made, evidence, readouts);
  check_same_network(&made, 0);
  for (int64_t t = 0; t < LONG; t++) {
    kwm_learner_predict(&made.learner);
    check_same_network(&made, t);
    check_turned(&made);
    const float now = kwm_learner_means(&made.learner).frame[0].U[0];
    turns += now != corner;
    corner = now;
    kwm_learner_step(&made.learner, &made.lin, &step);
    assert_int_equal(step.verdict, KWM_STEP_DONE);
  }
  assert_true(turns >= 2);
  framed_fini(&made);
}

static void test_framed(void **state) {
  (void)state;
  check_framed(KWM_EVIDENCE_EXACT, false);
  check_framed(KWM_EVIDENCE_SAMPLED, false);
  check_framed(KWM_EVIDENCE_EXACT, true);
  check_framed(KWM_EVIDENCE_SAMPLED, true);
}

/* Framed or plain, the same filter: it moves the means alike. */
static void test_same_filter(void **state) {
  (void)state;
  struct framed made;
  struct bench bench;
  struct kwm_step step;
  framed_init(&made, KWM_EVIDENCE_EXACT, false);
  bench_groups(&bench, 2, KWM_FORM_INFORMATION);
  for (int64_t t = 0; t < LONG; t++) {
    kwm_learner_predict(&made.learner);
    const struct kwm_means means = kwm_learner_means(&made.learner);
    net_linearise_at(&made.net, &means, t * SAMPLES, SAMPLES, &made.lin);
    kwm_learner_step(&made.learner, &made.lin, &step);
    kwm_filter_predict(&bench.filter);
    net_linearise(&bench.net, t * SAMPLES, SAMPLES, &bench.lin);
    innovate_and_update(&bench, &step);
  }
  const struct kwm_means means = plain_means(&made);
  for (int g = 0; g < bench.net.model.n_groups; g++) {
    double *const wanted = small_widen(bench.net.model.groups[g].params, bench.net.params.mean[g]);
    assert_below(dense_error_f32(bench.net.model.groups[g].params, means.at[g], wanted), 1e-4);
    free(wanted);
  }
  bench_fini(&bench), framed_fini(&made);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_innovation),
    cmocka_unit_test(test_joint),
    cmocka_unit_test(test_framed),
    cmocka_unit_test(test_same_filter),
};
KWM_TEST_MAIN(tests)
