/* The derived step lengths: what kron and diag say about a step (its slope, and its predicted change's expectation)
   against dense algebra and brute force; the bounds that follow from it; and the line search against the minimum of its
   own model, found by trying, and against the network in double precision. */
#include "cov_case.h"
#include "dense_model.h"

enum { O = 3, I_ = 5, UNITS = 16, SHAPES = 8 };

static const struct cov_shape shapes[SHAPES] = {
    {.structure = "kron", .real = KWM_REAL_DOUBLE, .count = 1, .d_o = O, .d_i = I_},
    {.structure = "kron", .real = KWM_REAL_FLOAT, .count = 1, .d_o = O, .d_i = I_},
    {.structure = "kron", .real = KWM_REAL_FLOAT, .count = 1, .d_o = 2, .d_i = 17},
    {.structure = "diag", .real = KWM_REAL_DOUBLE, .count = 1, .d_o = O, .d_i = I_},
    {.structure = "diag", .real = KWM_REAL_FLOAT, .count = 1, .d_o = O, .d_i = I_},
    {.structure = "diag", .real = KWM_REAL_DOUBLE, .count = UNITS, .params = 4},
    {.structure = "diag", .real = KWM_REAL_FLOAT, .count = UNITS, .params = 4},
    {.structure = "kron", .real = KWM_REAL_DOUBLE, .count = 1, .d_o = 1, .d_i = 1},
};

/* ---- what a structure says about its step */

/* Λ of what the covariance says now. */
static double *precision_of(const kwm_cov *cov, int64_t n) {
  double *const P = dense_new(n * n);
  assert_true(kwm_cov_covariance(cov, P));
  dense_invert(n, P);
  return P;
}

/* uᵀAv over block b. */
static double form(int64_t n, int64_t p, int64_t b, const double *A, const double *u, const double *v) {
  double sum = 0;
  for (int64_t i = b * p; i < (b + 1) * p; i++)
    for (int64_t j = b * p; j < (b + 1) * p; j++) sum += u[i] * A[i * n + j] * v[j];
  return sum;
}

/* tr(F P F P) over block b. */
static double squared_gain(int64_t n, int64_t p, int64_t b, const double *F, const double *P) {
  double *const FP = dense_new(n * n), *const FPFP = dense_new(n * n), sum = 0;
  dense_multiply(n, n, n, F, P, FP);
  dense_multiply(n, n, n, FP, FP, FPFP);
  for (int64_t k = b * p; k < (b + 1) * p; k++) sum += FPFP[k * n + k];
  free(FP), free(FPFP);
  return sum;
}

static void check_facts(const struct cov_shape *shape) {
  const int64_t n = cov_numbers(shape), p = n / shape->count;
  /* Evidence is a float sum, whatever the state is. */
  const double close = shape->real == KWM_REAL_FLOAT ? 2e-4 : 2e-6;
  kwm_cov cov = cov_new(shape, 1, 0);
  float *const mean = calloc((size_t)n, sizeof *mean);
  for (int64_t t = 0; t < 7; t++) {
    struct jac_case made = cov_jac(shape, (uint64_t)(40 + t));
    struct cov_step prepared;
    double slope[UNITS], expected[UNITS], *const delta = dense_new(n), *const s = jac_dense_score(&made.jac);
    assert_true(kwm_cov_predict(&cov, t, NULL, NULL));
    double *const old = precision_of(&cov, n), *const ones = dense_new(n * n);
    assert_true(cov_prepare(&cov, &made.jac, &prepared));
    kwm_cov_delta(&cov, delta);
    kwm_cov_slope(&cov, slope);
    kwm_cov_expected(&cov, expected);
    kwm_cov_apply(&cov, 1, mean);
    double *const F = precision_of(&cov, n), *const P = dense_new(n * n);
    assert_true(kwm_cov_covariance(&cov, P));
    for (int64_t k = 0; k < n * n; k++) F[k] -= old[k], ones[k] = k % (n + 1) == 0;
    for (int64_t b = 0; b < shape->count; b++) {
      assert_close(slope[b], form(n, p, b, ones, s, delta), close, 0);
      assert_close(prepared.kl[b], form(n, p, b, F, delta, delta) / COV_SAMPLES, close, 0);
      assert_close(slope[b] - COV_SAMPLES * prepared.kl[b], form(n, p, b, old, delta, delta), close, 0);
      assert_close(expected[b], squared_gain(n, p, b, F, P) / COV_SAMPLES, close, 0);
    }
    free(delta), free(s), free(old), free(ones), free(F), free(P), jac_drop(&made), cov_step_drop(&prepared);
  }
  free(mean), kwm_cov_destroy(&cov);
}

static void test_facts(void **state) {
  (void)state;
  for (int k = 0; k < SHAPES; k++) check_facts(&shapes[k]);
}

/* All samples of a matrix have the same J: then kron's F has the diagonal of HᵀH in any basis, as diag's always has. */
static struct jac_case even_rows(const struct cov_shape *shape, uint64_t stream) {
  struct jac_case made = cov_jac(shape, stream);
  for (int64_t k = 0; k < COV_SAMPLES * COV_OUTPUTS * shape->d_o; k++)
    made.J[k] = made.J[k % (COV_OUTPUTS * shape->d_o)];
  return made;
}

/* Innovations of all signs are just what the model expects: E[e eᵀ] = I. */
static void check_expectation(const struct cov_shape *shape) {
  enum { ROWS = COV_SAMPLES * COV_OUTPUTS, SIGNS = 1 << ROWS };
  kwm_cov cov = cov_new(shape, 1, 0);
  float *const mean = calloc((size_t)cov_numbers(shape), sizeof *mean);
  double expected[UNITS], sum[UNITS] = {0};
  struct jac_case first = even_rows(shape, 70), made = even_rows(shape, 71);
  cov_measure(&cov, &first.jac, 1, mean);
  assert_true(kwm_cov_predict(&cov, 1, NULL, NULL));
  for (int signs = 0; signs < SIGNS; signs++) {
    struct cov_step prepared;
    for (int k = 0; k < ROWS; k++) made.e[k] = signs >> k & 1 ? 1 : -1;
    assert_true(cov_prepare(&cov, &made.jac, &prepared));
    kwm_cov_expected(&cov, expected);
    for (int64_t b = 0; b < shape->count; b++) sum[b] += prepared.kl[b] / SIGNS;
    cov_step_drop(&prepared);
  }
  for (int64_t b = 0; b < shape->count; b++)
    assert_close(sum[b], expected[b], shape->real == KWM_REAL_FLOAT ? 1e-5 : 2e-6, 0);
  free(mean), jac_drop(&first), jac_drop(&made), kwm_cov_destroy(&cov);
}

static void test_expectation(void **state) {
  (void)state;
  for (int k = 0; k < SHAPES; k++) check_expectation(&shapes[k]);
}

/* move is the mean's part of apply, and leaves everything else as it is. */
static void test_move(void **state) {
  (void)state;
  for (int k = 0; k < SHAPES; k++) {
    const int64_t n = cov_numbers(&shapes[k]);
    kwm_cov cov = cov_new(&shapes[k], 1, 0);
    float *const moved = normal_floats(n, 90), *const applied = normal_floats(n, 90);
    struct jac_case made = cov_jac(&shapes[k], 91);
    struct cov_step prepared;
    assert_true(cov_prepare(&cov, &made.jac, &prepared));
    struct cov_state before = cov_state_of(&cov);
    kwm_cov_move(&cov, 0.3, moved);
    struct cov_state after = cov_state_of(&cov);
    assert_true(cov_same_state(&before, &after));
    kwm_cov_apply(&cov, 0.3, applied);
    assert_memory_equal(moved, applied, (size_t)n * sizeof *moved);
    free(moved), free(applied), jac_drop(&made), cov_step_drop(&prepared);
    cov_state_drop(&before), cov_state_drop(&after), kwm_cov_destroy(&cov);
  }
}

/* ---- a network and its learner */

enum { BATCH = 12, CHUNKS = 4, STEPS = 6 };

struct program {
  struct net net;
  kwm_learner learner;
  struct kwm_lin lin;
  struct kwm_batch batch;
};

static const struct kwm_filter_spec searching = {
    .gain_factor = 1, .forgetting = 1, .line_search = true, .batch = BATCH, .chunks = CHUNKS};

static struct kwm_cov_choice choice(const char *structure, enum kwm_form form) {
  return (struct kwm_cov_choice){
      .structure = structure, .form = form, .real = KWM_REAL_FLOAT, .prior = 5, .refresh = 3};
}

static struct kwm_learn_spec learn_spec(const struct kwm_filter_spec *filter, const char *hidden) {
  return (struct kwm_learn_spec){.filter = *filter,
                                 .rows = 1,
                                 .cov = {[KWM_ROLE_HIDDEN] = choice(hidden, KWM_FORM_INFORMATION),
                                         [KWM_ROLE_OUTPUT] = choice("kron", KWM_FORM_INFORMATION)},
                                 .group_ranks = 1,
                                 .rate = 0.1,
                                 .momentum = 0.9};
}

static void program_init(struct program *program, const struct kwm_learner_ops *ops,
                         const struct kwm_filter_spec *filter, const char *hidden) {
  const struct kwm_layout alone = small_alone();
  const struct net_shape shape = {
      .n_layers = 2, .widths = {6, 5}, .evidence = KWM_EVIDENCE_SAMPLED, .batch = BATCH, .chunks = CHUNKS};
  const struct kwm_learn_spec spec = learn_spec(filter, hidden);
  memset(program, 0, sizeof *program);
  net_init(&program->net, &alone, &shape);
  const size_t before = kwm_mem_bytes();
  assert_ok(kwm_learner_create(&program->learner, ops, &program->net.layout, &program->net.params, &spec));
  assert_int_equal(kwm_mem_bytes() - before, kwm_learner_bytes(ops, &spec, &program->net.params, 1));
}

static void program_fini(struct program *program) {
  kwm_learner_destroy(&program->learner);
  net_fini(&program->net);
}

/* Time update and linearisation of step t. */
static void program_linearise(struct program *program, int64_t t) {
  struct net *const net = &program->net;
  kwm_learner_predict(&program->learner);
  const struct kwm_means means = kwm_learner_means(&program->learner);
  program->batch = (struct kwm_batch){.images = &net->data->images,
                                      .order = net->order + t * BATCH % (SMALL_IMAGES - BATCH),
                                      .n = BATCH,
                                      .step = (uint64_t)t};
  kwm_pipe_linearise(net->pipe, &means, &program->batch, &program->lin);
}

static void program_step(struct program *program, int64_t t, struct kwm_step *step) {
  program_linearise(program, t);
  kwm_learner_search(&program->learner, &program->lin, program->net.pipe, &program->batch, step);
}

/* All groups' means, plain or as they are kept, one after the other. */
static double *means_of(const struct program *program, bool plain) {
  const struct kwm_model *const model = &program->net.model;
  double *const all = dense_new(kwm_model_parameters(model)), *at = all;
  for (int g = 0; g < model->n_groups; g++) {
    const bool as_matrix = plain && program->learner.ops->plain != NULL;
    const float *const mean =
        as_matrix ? program->learner.ops->plain(&program->learner, g) : program->net.params.mean[g];
    for (int64_t k = 0; k < model->groups[g].params; k++) *at++ = (double)mean[k];
  }
  return all;
}

/* Negative log-likelihood of the batch in double precision. */
static double surprisal_at(const struct program *program, const double *all) {
  struct net_reference made = {.model = &program->net.model};
  double sum = 0;
  for (int g = 0; g < made.model->n_groups; all += made.model->groups[g].params, g++)
    made.W[g] = dense_copy(made.model->groups[g].params, all);
  for (int64_t i = 0; i < BATCH; i++) {
    const int32_t at = program->batch.order[i];
    sum -= net_log_likelihood(&made, made.model->n_groups - 1, program->net.data->pixels + at * SMALL_LENGTH,
                              program->net.data->labels[at]);
  }
  net_reference_drop(&made);
  return sum;
}

/* ---- the bounds */

static double bound(double most, double kl) {
  return most > 0 && kl > most ? sqrt(most / kl) : 1;
}

static void check_scales(double region, double expected) {
  struct program program;
  struct kwm_filter_spec spec = searching;
  spec.gain_factor = 0.6, spec.trust_region = region, spec.trust_expected = expected;
  program_init(&program, &kwm_learn_kalman, &spec, "kron");
  for (int64_t t = 0; t < STEPS; t++) {
    struct kwm_step step;
    program_step(&program, t, &step);
    const struct kwm_filter *const filter = kwm_learner_filter(&program.learner);
    for (int g = 0; g < program.net.model.n_groups; g++) {
      const double own = filter->group[g].expected[0];
      assert_true(step.expected[g] == own && (own > 0) == (expected > 0));
      const double wanted = fmin(bound(region, step.kl[g]), bound(expected * own, step.kl[g]));
      assert_close(step.scale[g], 0.6 * wanted, 1e-14, 0);
      if (expected == 1e-3) assert_true(wanted < 1);
    }
  }
  program_fini(&program);
}

static void test_scales(void **state) {
  (void)state;
  const double values[] = {0, 1e-3, 0.3, 1e6};
  for (int k = 0; k < 4; k++)
    for (int j = 0; j < 4; j++) check_scales(values[k], values[j]);
}

/* ---- the line search */

/* Of L(c) = n0 - c S + c²(B + Q)/2 on [0, 1], by trying. */
static double least_at(double slope, double prior, double n0, double n1) {
  enum { POINTS = 200000 };
  const double curvature = 2 * (n1 - n0 + slope);
  double best = INFINITY, at = 0;
  for (int k = 0; k <= POINTS; k++) {
    const double c = (double)k / POINTS, value = n0 - c * slope + c * c * (curvature + prior) / 2;
    if (value < best) best = value, at = c;
  }
  return at;
}

/* Slope S and ΔᵀΛΔ of the prepared step from dense vectors and matrices. */
static void dense_line(const struct program *program, const struct kwm_step *step, double *slope, double *prior) {
  const struct kwm_filter *const filter = kwm_learner_filter(&program->learner);
  *slope = *prior = 0;
  for (int g = 0; g < filter->n_groups; g++) {
    const int64_t n = program->net.model.groups[g].params;
    double *const delta = dense_new(n), *const score = dense_new(n),
                  *const old = precision_of(&filter->group[g].cov, n);
    const struct kwm_jac *const jac = &program->lin.jac[g];
    for (int64_t i = 0; i < jac->n; i++)
      for (int64_t k = 0; k < n; k++)
        score[k] += (double)jac->g[i * jac->d_o + k / jac->d_i] * (double)jac->a[i * jac->d_i + k % jac->d_i];
    kwm_cov_delta(&filter->group[g].cov, delta);
    for (int64_t k = 0; k < n; k++) *slope += step->scale[g] * score[k] * delta[k];
    *prior += step->scale[g] * step->scale[g] * form(n, n, 0, old, delta, delta);
    free(delta), free(score), free(old);
  }
}

/* The chunks' surprisals at the full step are made up, so that every case is met. */
static void check_lengths(struct program *program) {
  struct kwm_filter *const filter = kwm_learner_filter(&program->learner);
  struct kwm_step step = {0};
  double slope, prior, n0 = 0;
  kwm_filter_innovate(filter, &program->lin);
  kwm_filter_gain(filter, &program->lin, &step);
  assert_true(step.verdict == KWM_STEP_DONE && step.search == 1);
  dense_line(program, &step, &slope, &prior);
  for (int c = 0; c < CHUNKS; c++) n0 += program->lin.surprisal[c];
  const double rises[] = {-2, -1.001 - prior / slope, -0.9 - prior / slope / 2, -0.7, -0.5, 0, 1, 30};
  double *const before = means_of(program, false);
  for (int k = 0; k < 8; k++) {
    const double there[CHUNKS] = {n0 + rises[k] * slope - 3, 1, 2, 0};
    kwm_filter_move(filter, &step);
    kwm_filter_search(filter, &program->lin, there, &step);
    assert_close(step.search, least_at(slope, prior, n0, n0 + rises[k] * slope), 1e-4, 1e-4);
    if (k < 2) assert_true(step.search == 1);
    if (k > 2) assert_true(step.search > 0 && step.search < 1);
  }
  const double lost[] = {NAN, INFINITY};
  for (int k = 0; k < 2; k++) {
    const double there[CHUNKS] = {1, 1, lost[k], 1};
    kwm_filter_move(filter, &step);
    kwm_filter_search(filter, &program->lin, there, &step);
    assert_true(step.search == 0);
  }
  double *const after = means_of(program, false);
  assert_memory_equal(before, after, (size_t)kwm_model_parameters(&program->net.model) * sizeof *before);
  free(before), free(after);
  kwm_filter_update(filter, &step);
}

static void test_lengths(void **state) {
  (void)state;
  const char *const structures[] = {"kron", "diag"};
  for (int k = 0; k < 2; k++) {
    struct program program;
    struct kwm_filter_spec spec = searching;
    spec.gain_factor = 0.8, spec.trust_expected = 1;
    program_init(&program, &kwm_learn_kalman, &spec, structures[k]);
    for (int64_t t = 0; t < STEPS; t++) {
      program_linearise(&program, t);
      check_lengths(&program);
    }
    program_fini(&program);
  }
}

static bool same_covariances(const struct program *a, const struct program *b) {
  const struct kwm_filter *const one = kwm_learner_filter(&a->learner), *const other = kwm_learner_filter(&b->learner);
  bool same = true;
  for (int g = 0; g < one->n_groups; g++) {
    const int64_t n = a->net.model.groups[g].params;
    double *const P = dense_new(n * n), *const Q = dense_new(n * n);
    assert_true(kwm_cov_covariance(&one->group[g].cov, P) && kwm_cov_covariance(&other->group[g].cov, Q));
    same = same && memcmp(P, Q, (size_t)(n * n) * sizeof *P) == 0;
    free(P), free(Q);
  }
  return same;
}

/* Beside a learner that takes the whole step from the same state: its means are where the search looked, its covariance
   is the same. The first layer's mean is kept in the eigenbasis with kron, plain with diag. */
static void check_step(const char *hidden, int64_t t) {
  struct program program, whole;
  struct kwm_step step, full;
  double slope, prior;
  const struct kwm_filter_spec plain = {.gain_factor = 1, .forgetting = 1, .batch = BATCH, .chunks = CHUNKS};
  program_init(&program, &kwm_learn_kalman, &searching, hidden),
      program_init(&whole, &kwm_learn_kalman, &plain, hidden);
  for (int64_t k = 0; k < t; k++) {
    program_linearise(&program, k), program_linearise(&whole, k);
    kwm_learner_step(&program.learner, &program.lin, &step), kwm_learner_step(&whole.learner, &whole.lin, &full);
    assert_true(step.search == 1 && full.search == 1); /* without a pipe there is nothing to look at */
  }
  program_linearise(&program, t), program_linearise(&whole, t);
  double *const before = means_of(&program, true);
  kwm_learner_search(&whole.learner, &whole.lin, whole.net.pipe, &whole.batch, &full);
  kwm_learner_search(&program.learner, &program.lin, program.net.pipe, &program.batch, &step);
  assert_true(full.search == 1 && step.verdict == KWM_STEP_DONE && program.learner.steps == t + 1);
  double *const there = means_of(&whole, true), *const found = means_of(&program, true);
  const int64_t n = kwm_model_parameters(&program.net.model);
  const double n0 = surprisal_at(&program, before), n1 = surprisal_at(&program, there);
  slope = prior = 0;
  for (int g = 0; g < program.net.model.n_groups; g++) {
    const struct kwm_filter_group *const group = &kwm_learner_filter(&program.learner)->group[g];
    slope += group->slope[0], prior += group->slope[0] - BATCH * group->kl[0];
  }
  assert_close(step.search, fmin(1, slope / (2 * (n1 - n0 + slope) + prior)), 1e-4, 1e-6);
  assert_true(step.search > 0);
  for (int64_t k = 0; k < n; k++) there[k] = before[k] + step.search * (there[k] - before[k]);
  assert_below(dense_error(n, found, there), 1e-6);
  assert_true(same_covariances(&program, &whole));
  free(before), free(there), free(found), program_fini(&program), program_fini(&whole);
}

static void test_steps(void **state) {
  (void)state;
  for (int64_t t = 0; t < STEPS; t++) check_step("kron", t), check_step("diag", t);
}

/* A step so long that nothing is finite at its end: the means stay, bit for bit, and the evidence is taken. */
static void test_too_far(void **state) {
  (void)state;
  struct program program, whole;
  struct kwm_step step, full;
  struct kwm_filter_spec spec = searching;
  spec.gain_factor = 1e30;
  program_init(&program, &kwm_learn_kalman, &spec, "kron"), program_init(&whole, &kwm_learn_kalman, &searching, "kron");
  double *const before = means_of(&program, false);
  program_step(&program, 0, &step), program_step(&whole, 0, &full);
  double *const after = means_of(&program, false);
  assert_true(step.verdict == KWM_STEP_DONE && step.search == 0 && full.search > 0);
  assert_memory_equal(before, after, (size_t)kwm_model_parameters(&program.net.model) * sizeof *before);
  assert_true(same_covariances(&program, &whole));
  free(before), free(after), program_fini(&program), program_fini(&whole);
}

/* A step that is skipped is not searched, either. */
static void test_skipped(void **state) {
  (void)state;
  struct program program;
  struct kwm_step step;
  struct kwm_filter_spec spec = searching;
  spec.gate = 1e-9;
  program_init(&program, &kwm_learn_kalman, &spec, "kron");
  double *const before = means_of(&program, false);
  program_step(&program, 0, &step);
  double *const after = means_of(&program, false);
  assert_true(step.verdict == KWM_STEP_GATED && step.search == 1);
  assert_memory_equal(before, after, (size_t)kwm_model_parameters(&program.net.model) * sizeof *before);
  free(before), free(after), program_fini(&program);
}

/* A baseline has nothing to search: the same step either way. */
static void test_baseline(void **state) {
  (void)state;
  struct program program, other;
  struct kwm_step step, plain;
  program_init(&program, &kwm_learn_sgd, &searching, "kron"), program_init(&other, &kwm_learn_sgd, &searching, "kron");
  program_step(&program, 0, &step);
  program_linearise(&other, 0);
  kwm_learner_step(&other.learner, &other.lin, &plain);
  double *const one = means_of(&program, false), *const two = means_of(&other, false);
  assert_true(step.search == 1 && plain.search == 1 && program.learner.steps == 1 && other.learner.steps == 1);
  assert_memory_equal(one, two, (size_t)kwm_model_parameters(&program.net.model) * sizeof *one);
  free(one), free(two), program_fini(&program), program_fini(&other);
}

/* ---- refused */

static void check_refused(const struct kwm_filter_spec *filter, struct kwm_cov_choice hidden, bool joint,
                          const char *key) {
  const struct kwm_layout alone = small_alone();
  const struct net_shape shape = {
      .n_layers = 1, .widths = {6}, .evidence = KWM_EVIDENCE_EXACT, .batch = BATCH, .chunks = CHUNKS};
  struct net net;
  kwm_learner learner;
  struct kwm_learn_spec spec = learn_spec(filter, "kron");
  spec.rows = SMALL_CLASSES, spec.cov[KWM_ROLE_HIDDEN] = hidden, spec.joint = joint;
  net_init(&net, &alone, &shape);
  assert_int_equal(kwm_learner_create(&learner, &kwm_learn_kalman, &net.layout, &net.params, &spec), KWM_ERR_USAGE);
  assert_non_null(strstr(kwm_error_message(), key));
  assert_non_null(strstr(kwm_error_message(), joint ? "cov.joint none" : "kron or diag"));
  kwm_learner_destroy(&learner);
  net_fini(&net);
}

static void test_refused(void **state) {
  (void)state;
  struct kwm_filter_spec expecting = searching;
  expecting.line_search = false, expecting.trust_expected = 1;
  const struct kwm_filter_spec *const specs[] = {&searching, &expecting};
  const char *const keys[] = {"filter.line_search", "filter.trust_expected"};
  struct kwm_cov_choice lowrank = choice("lowrank", KWM_FORM_INFORMATION);
  lowrank.rank = 2;
  for (int k = 0; k < 2; k++) {
    check_refused(specs[k], choice("block", KWM_FORM_INFORMATION), false, keys[k]);
    check_refused(specs[k], choice("kron", KWM_FORM_INNOVATION), false, keys[k]);
    check_refused(specs[k], choice("diag", KWM_FORM_INNOVATION), false, keys[k]);
    check_refused(specs[k], lowrank, false, keys[k]);
    check_refused(specs[k], choice("kron", KWM_FORM_INFORMATION), true, keys[k]);
  }
}

static const struct CMUnitTest tests[] = {cmocka_unit_test(test_facts),    cmocka_unit_test(test_expectation),
                                          cmocka_unit_test(test_move),     cmocka_unit_test(test_scales),
                                          cmocka_unit_test(test_lengths),  cmocka_unit_test(test_steps),
                                          cmocka_unit_test(test_too_far),  cmocka_unit_test(test_skipped),
                                          cmocka_unit_test(test_baseline), cmocka_unit_test(test_refused)};
KWM_TEST_MAIN(tests)
