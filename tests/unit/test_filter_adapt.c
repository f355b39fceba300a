/* What the filter learns of its own noises: q and R's scale from one step against the textbook, the statistics that a
   step reports, and a checkpoint that carries all of it. */
#include "cov_case.h"
#include "small_model.h"

#include "kwm/filter.h"

enum { UNITS = 16, SAMPLES = 3, ROWS = SAMPLES * SMALL_CLASSES, CHUNKS = 1 };

struct adapting {
  struct small small;
  struct kwm_filter filter;
  struct kwm_lin lin;
  int64_t n[KWM_GROUPS_MAX], first[KWM_GROUPS_MAX], width;
  double *prior; /* (width) */
  double variance[KWM_GATED_PARAMS];
};

static const struct kwm_filter_spec both = {.gain_factor = 0.7,
                                            .batch = SAMPLES,
                                            .chunks = CHUNKS,
                                            .forgetting = 1,
                                            .process_noise = 0.02,
                                            .adapt_process = 0.3,
                                            .adapt_noise = 0.2,
                                            .score_test = true};

/* diag for every group: P stays known in closed form; or the joint covariance. */
static void adapting_init(struct adapting *made, bool joint, enum kwm_form form, const struct kwm_filter_spec *spec) {
  const struct kwm_layout alone = small_alone();
  struct kwm_filter_part parts[KWM_GROUPS_MAX];
  kwm_cov cov[KWM_GROUPS_MAX];
  memset(made, 0, sizeof *made);
  small_init(&made->small, &alone, UNITS, SAMPLES, CHUNKS);
  kwm_model_prior_variance(20, made->variance);
  for (int g = 0; g < SMALL_GROUPS; g++) {
    const struct kwm_group *const group = &made->small.model.groups[g];
    const bool matrix = group->d_o > 0;
    made->first[g] = made->width;
    made->width += made->n[g] = group->total * group->params;
    const struct kwm_cov_spec cov_spec = {.name = group->name,
                                          .form = form,
                                          .count = group->total,
                                          .total = group->total,
                                          .params = group->params,
                                          .d_o = group->d_o,
                                          .d_i = group->d_i,
                                          .prior_variance = matrix ? NULL : made->variance,
                                          .prior_precision = matrix ? 20 : 0,
                                          .forgetting = 1,
                                          .n_max = SAMPLES,
                                          .m = SMALL_CLASSES};
    parts[g] = (struct kwm_filter_part){.name = group->name,
                                        .total = group->total,
                                        .params = group->params,
                                        .count = group->total,
                                        .d_o = group->d_o,
                                        .n_max = SAMPLES,
                                        .m = SMALL_CLASSES,
                                        .prior_variance = matrix ? NULL : made->variance,
                                        .prior_precision = 20,
                                        .mean = made->small.params.mean[g]};
    if (!joint) assert_ok(kwm_cov_create(&cov[g], &kwm_cov_diag, &cov_spec));
  }
  made->prior = dense_new(made->width);
  for (int64_t k = 0; k < made->width; k++)
    made->prior[k] = k < made->first[1] ? made->variance[k % KWM_GATED_PARAMS] : 1.0 / 20;
  if (joint)
    assert_ok(kwm_filter_init_joint(&made->filter, &made->small.layout, spec, SMALL_GROUPS, parts));
  else
    assert_ok(kwm_filter_init(&made->filter, &made->small.layout, spec, SMALL_GROUPS, cov, made->small.params.mean));
}

static void adapting_fini(struct adapting *made) {
  kwm_filter_fini(&made->filter);
  small_fini(&made->small);
  free(made->prior);
}

static void step_once(struct adapting *made, int64_t t, struct kwm_step *step) {
  *step = (struct kwm_step){0};
  kwm_filter_predict(&made->filter);
  small_linearise(&made->small, t * SAMPLES, SAMPLES, &made->lin);
  kwm_filter_innovate(&made->filter, &made->lin);
  kwm_filter_gain(&made->filter, &made->lin, step);
  kwm_filter_update(&made->filter, step);
}

static double *rows_of(const struct adapting *made) {
  double *const H = dense_new(ROWS * made->width);
  for (int g = 0; g < SMALL_GROUPS; g++) jac_rows_into(&made->lin.jac[g], made->width, made->first[g], H);
  return H;
}

/* One step with R = ρ I from P (n, n): delta, eᵀS⁻¹e and the mean of r⁺² + diag(HP⁺Hᵀ), by the textbook: scaled by √ρ
   it is a step with R = I. */
static void textbook(const struct adapting *made, double rho, double *P, double *delta, double *chi2, double *level) {
  const int64_t n = made->width;
  double *const H = rows_of(made), *const e = jac_innovation(&made->lin.jac[0]), *const left = dense_new(ROWS);
  double *const S = dense_new(ROWS * ROWS), *const w = dense_new(ROWS), *const post = dense_new(ROWS * ROWS);
  for (int64_t k = 0; k < ROWS * n; k++) H[k] /= sqrt(rho);
  for (int64_t k = 0; k < ROWS; k++) e[k] /= sqrt(rho);
  dense_innovation_covariance(n, ROWS, P, H, S);
  dense_invert(ROWS, S);
  dense_multiply(ROWS, 1, ROWS, S, e, w);
  *chi2 = *level = 0;
  for (int64_t k = 0; k < ROWS; k++) *chi2 += e[k] * w[k];
  dense_update(n, ROWS, P, H, e, delta);
  dense_innovation_covariance(n, ROWS, P, H, post);
  dense_multiply(ROWS, 1, n, H, delta, left);
  for (int64_t k = 0; k < ROWS; k++)
    *level += rho * ((e[k] - left[k]) * (e[k] - left[k]) + post[k * ROWS + k] - 1) / ROWS;
  free(H), free(e), free(left), free(S), free(w), free(post);
}

static double moved_by(const struct adapting *made, const double *delta, int64_t first, int64_t count) {
  double sum = 0;
  for (int64_t k = first; k < first + count; k++) sum += delta[k] * delta[k] / made->prior[k];
  return sum;
}

/* Two steps of the joint filter: the second with the noises that the first left. */
static void test_joint(void **state) {
  (void)state;
  struct adapting made;
  adapting_init(&made, true, KWM_FORM_INNOVATION, &both);
  const int64_t n = made.width;
  double *const P = dense_new(n * n), *const delta = dense_new(n), q = 0.02, rho = 1;
  for (int64_t k = 0; k < n; k++) P[k * n + k] = made.prior[k];
  for (int64_t t = 0; t < 2; t++) {
    struct kwm_step step;
    double chi2, level;
    step_once(&made, t, &step);
    assert_int_equal(step.verdict, KWM_STEP_DONE);
    assert_close(step.noise, rho, 1e-6, 0);
    for (int g = 0; g < SMALL_GROUPS; g++) assert_close(step.process_noise[g], q, 1e-4, 0);
    dense_predict(n, P, made.prior, 1, q);
    textbook(&made, rho, P, delta, &chi2, &level);
    assert_close(step.chi2, chi2, 1e-4, 0);
    assert_true(step.rows == ROWS);
    for (int g = 0; g < SMALL_GROUPS; g++)
      assert_close(step.moved[g], moved_by(&made, delta, made.first[g], made.n[g]), 1e-3, 0);
    rho = 0.8 * rho + 0.2 * level;
    q = 0.7 * q + 0.3 * moved_by(&made, delta, 0, n) / (double)n;
    assert_close(made.filter.noise, rho, 1e-5, 0);
    assert_close(made.filter.group[1].process_noise, q, 1e-3, 0);
  }
  free(P), free(delta), adapting_fini(&made);
}

/* Groups: each has a q of its own; gain adds up what was applied. */
static void test_groups(void **state) {
  (void)state;
  for (int f = 0; f < 2; f++) {
    struct kwm_filter_spec spec = both;
    struct adapting made;
    struct kwm_step step;
    if (f == 0) spec.adapt_noise = 0;
    adapting_init(&made, false, f == 0 ? KWM_FORM_INFORMATION : KWM_FORM_INNOVATION, &spec);
    step_once(&made, 0, &step);
    assert_true(isnan(step.product));
    assert_true(f == 0 ? step.rows == 0 && made.filter.noise == 1 : step.rows == ROWS && made.filter.noise != 1);
    for (int g = 0; g < SMALL_GROUPS; g++) {
      const struct kwm_filter_group *const group = &made.filter.group[g];
      double gain = 0;
      for (int64_t b = 0; b < group->part.total; b++) gain += group->gain[b];
      assert_close(gain, 0.7 * 0.7 * step.moved[g], 1e-12, 0);
      assert_close(group->process_noise, 0.7 * 0.02 + 0.3 * step.moved[g] / (double)made.n[g], 1e-12, 0);
    }
    assert_true(made.filter.group[0].process_noise != made.filter.group[1].process_noise);
    adapting_fini(&made);
  }
}

/* s_tᵀP0 s_{t-1} over all parameters, from dense rows. */
static void test_product(void **state) {
  (void)state;
  struct adapting made;
  struct kwm_step step;
  double *score[3];
  adapting_init(&made, false, KWM_FORM_INNOVATION, &both);
  for (int64_t t = 0; t < 3; t++) {
    step_once(&made, t, &step);
    double *const H = rows_of(&made), *const e = jac_innovation(&made.lin.jac[0]), wanted = 0;
    score[t] = dense_new(made.width);
    dense_multiply(1, made.width, ROWS, e, H, score[t]);
    for (int64_t k = 0; k < made.width && t > 0; k++) wanted += made.prior[k] * score[t][k] * score[t - 1][k];
    if (t > 0) assert_close(step.product, wanted, 1e-4, 1e-6);
    free(H), free(e);
  }
  for (int t = 0; t < 3; t++) free(score[t]);
  adapting_fini(&made);
}

/* Saved and loaded: the same noises, gains and last score, so the same next step, bit for bit. */
static void test_round_trip(void **state) {
  (void)state;
  struct adapting made, twin;
  struct kwm_step step, same;
  struct cov_file file;
  const char *const base = getenv("TMPDIR");
  adapting_init(&made, false, KWM_FORM_INNOVATION, &both);
  adapting_init(&twin, false, KWM_FORM_INNOVATION, &both);
  step_once(&made, 0, &step);
  snprintf(file.dir, sizeof file.dir, "%s/kwm-adapt-XXXXXX", base != NULL ? base : P_tmpdir);
  assert_non_null(mkdtemp(file.dir));
  assert_ok(kwm_ckpt_create(&file.ckpt, MPI_COMM_SELF, file.dir, 1));
  assert_ok(kwm_filter_save(&made.filter, file.ckpt, true));
  assert_ok(kwm_ckpt_commit(&file.ckpt, 1));
  assert_ok(kwm_ckpt_open_newest(&file.ckpt, MPI_COMM_SELF, file.dir));
  assert_ok(kwm_filter_load(&twin.filter, file.ckpt));
  cov_file_drop(&file);
  for (int g = 0; g < SMALL_GROUPS; g++)
    memcpy(twin.small.params.mean[g], made.small.params.mean[g], (size_t)made.n[g] * sizeof(float));
  assert_true(twin.filter.noise == made.filter.noise && twin.filter.steps == 1);
  step_once(&made, 1, &step);
  step_once(&twin, 1, &same);
  assert_memory_equal(&step, &same, sizeof step);
  assert_memory_equal(made.filter.facts, twin.filter.facts, (size_t)(4 * made.filter.blocks) * sizeof(double));
  adapting_fini(&made), adapting_fini(&twin);
}

/* R is judged by S: without one for all groups there is nothing to adapt it to. */
static void test_refused(void **state) {
  (void)state;
  const struct kwm_layout alone = small_alone();
  struct kwm_layout layout = alone;
  struct kwm_filter filter;
  double variance[2] = {1, 1};
  const struct kwm_cov_spec spec = {.name = "units",
                                    .form = KWM_FORM_INFORMATION,
                                    .count = 1,
                                    .total = 1,
                                    .params = 2,
                                    .prior_variance = variance,
                                    .forgetting = 1,
                                    .n_max = 1,
                                    .m = 1};
  float mean[2] = {0}, *means[1] = {mean};
  kwm_cov cov[1];
  struct kwm_filter_spec wrong = both;
  assert_ok(kwm_cov_create(&cov[0], &kwm_cov_diag, &spec));
  assert_int_equal(kwm_filter_init(&filter, &layout, &wrong, 1, cov, means), KWM_ERR_USAGE);
  assert_non_null(strstr(kwm_error_message(), "filter.adapt_noise"));
  kwm_filter_fini(&filter);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_joint),      cmocka_unit_test(test_groups),  cmocka_unit_test(test_product),
    cmocka_unit_test(test_round_trip), cmocka_unit_test(test_refused),
};
KWM_TEST_MAIN(tests)
