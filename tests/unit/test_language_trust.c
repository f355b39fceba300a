/* The language model's trust region against a dense computation: the predicted KL of a step of all tensors together,
   and how far the step goes within a bound. */
#include <math.h>
#include <string.h>

#include "language_case.h"

enum { FLOATS_MAX = 8192 };
static const double PRIOR = 10, NOISE = 0.02, SMOOTHED = 0.25;

/* Scores of all tensors, one after the other. */
struct scores {
  const struct kwm_transformer *model;
  int64_t at[KWM_TENSORS_MAX];
  float of[FLOATS_MAX];
};

static void take_matrix(void *context, int t, int64_t n, int64_t d_o, int64_t d_i, const float *s, const float *a) {
  struct scores *const scores = context;
  for (int64_t r = 0; r < n; r++)
    for (int64_t o = 0; o < d_o; o++)
      for (int64_t i = 0; i < d_i; i++) scores->of[scores->at[t] + o * d_i + i] += s[r * d_o + o] * a[r * d_i + i];
}

static float *take_vector(void *context, int t) {
  struct scores *const scores = context;
  return scores->of + scores->at[t];
}

static void take_reading(void *context, int t, int64_t n, const float *y) {
  (void)context, (void)t, (void)n, (void)y;
}

static int64_t size_of(const struct kwm_transformer *model, int t) {
  return model->tensors[t].rows * model->tensors[t].columns;
}

/* Every tensor's covariance diagonal, so that F is, too. */
static struct kwm_language_learn_spec learn_spec(double trust) {
  return (struct kwm_language_learn_spec){.seed = 3,
                                          .tokens = CASE_TOKENS,
                                          .prior = {PRIOR, PRIOR, PRIOR},
                                          .step = {NOISE, NOISE, NOISE},
                                          .stage_noise = 1,
                                          .rate_f = 0.1,
                                          .rate_m = SMOOTHED,
                                          .rate_factor = 0.1,
                                          .refresh = 4,
                                          .factor_every = 1,
                                          .steady = true,
                                          .trust = trust};
}

static void read_scores(struct language_case *c, float *const *means, struct scores *scores) {
  const struct kwm_sink sink = {
      .context = scores, .matrix = take_matrix, .vector = take_vector, .reading = take_reading};
  struct kwm_reading reading;
  int64_t at = 0;
  memset(scores, 0, sizeof *scores);
  scores->model = &c->model;
  for (int t = 0; t < c->model.n_tensors; t++) scores->at[t] = at, at += size_of(&c->model, t);
  assert_true(at <= FLOATS_MAX);
  kwm_language_step(c->language, means, &c->batch, &sink, &reading);
}

/* The first step: f = s², m = SMOOTHED s, p the fixed point of p + q, p / (1 + p f), at most p0. delta (all) <- p m;
   kl (stages) <- δᵀFδ / 2 a token. */
static void dense_step(const struct scores *scores, double *delta, double *kl) {
  const double q = NOISE * NOISE;
  memset(kl, 0, KWM_TRANSFORMER_STAGES_MAX * sizeof *kl);
  for (int t = 0; t < scores->model->n_tensors; t++)
    for (int64_t k = scores->at[t]; k < scores->at[t] + size_of(scores->model, t); k++) {
      const double s = (double)scores->of[k], f = s * s;
      const double p = f > 0 ? fmin((sqrt(q * q + 4 * q / f) - q) / 2, 1 / PRIOR) : 1 / PRIOR;
      delta[k] = p * SMOOTHED * s;
      kl[scores->model->tensors[t].stage] += delta[k] * f * delta[k] / (2 * CASE_TOKENS);
    }
}

/* Means before and after one step with this bound, against the dense step, each stage's by itself. */
static void compare(int readings, double share) {
  struct language_case c;
  struct kwm_language_result result;
  static struct scores scores;
  static double delta[FLOATS_MAX];
  static float before[FLOATS_MAX];
  double kl[KWM_TRANSFORMER_STAGES_MAX];
  kwm_language_learner *learner;
  language_case_open(&c, (struct language_way){0}, readings, CASE_ALONE, 4);
  struct kwm_language_learn_spec spec = learn_spec(1);
  assert_ok(kwm_language_learner_create(&learner, &c.layout, &c.model, c.language, NULL, &spec));
  read_scores(&c, kwm_language_means(learner, false), &scores);
  dense_step(&scores, delta, kl);
  kwm_language_learner_destroy(learner);
  spec = learn_spec(share * kl[0]);
  assert_ok(kwm_language_learner_create(&learner, &c.layout, &c.model, c.language, NULL, &spec));
  float *const *const means = kwm_language_means(learner, false);
  for (int t = 0; t < c.model.n_tensors; t++)
    memcpy(before + scores.at[t], means[t], (size_t)size_of(&c.model, t) * sizeof(float));
  kwm_language_learn(learner, &c.batch, &result);
  assert_int_equal(result.verdict, KWM_STEP_DONE);
  for (int t = 0; t < c.model.n_tensors; t++) {
    const int stage = c.model.tensors[t].stage;
    const double scale = fmin(1, sqrt(share * kl[0] / kl[stage]));
    assert_true(close_to(result.kl[stage], kl[stage], 1e-4, 0));
    assert_true(close_to(result.scale[stage], scale, 1e-4, 0));
    for (int64_t k = 0; k < size_of(&c.model, t); k++)
      assert_true(close_to((double)means[t][k] - (double)before[scores.at[t] + k], scale * delta[scores.at[t] + k],
                           1e-3, 3e-7));
  }
  kwm_language_learner_destroy(learner);
  language_case_close(&c);
}

/* All tensors together, and stage by stage; bounds below and above what the step would be. */
static void test_bound(void **state) {
  (void)state;
  for (int readings = 1; readings <= 2; readings++) {
    compare(readings, 1.0 / 9);
    compare(readings, 1e6);
  }
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_bound),
};
KWM_TEST_MAIN(tests)
