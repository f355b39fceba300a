/* The categorical observation: whitened rows carry the exact Fisher information and score of a softmax, whatever the
   logits; what is not a number stays visible. */
#include "gated_reference.h"

#include "kwm/model.h"

enum { SAMPLES = 6, CLASSES = 10 };

static const struct kwm_model softmax_model = {.classes = CLASSES};

/* Logits are multiples of 1/64, so that a shift by 8 is exact. */
static void make_logits(float scale, float *logits, uint8_t *labels) {
  for (int i = 0; i < SAMPLES * CLASSES; i++) logits[i] = scale * roundf((float)(64 * test_normal(20, i))) / 64;
  for (int i = 0; i < SAMPLES; i++) labels[i] = (uint8_t)(3 * i % CLASSES);
}

static void probabilities(const float *logits, double *p) {
  double wide[CLASSES];
  for (int k = 0; k < CLASSES; k++) wide[k] = (double)logits[k];
  ref_softmax(CLASSES, wide, p);
}

/* sum_r J_rj J_rk = diag(p) - ppᵀ and sum_r J_rk e_r = y - p, to `tolerance`. */
static void check_fisher_and_score(const float *logits, int label, const float *e, const float *J, double tolerance) {
  double p[CLASSES];
  probabilities(logits, p);
  for (int j = 0; j < CLASSES; j++) {
    double score = 0;
    for (int r = 0; r < CLASSES; r++) score += (double)J[r * CLASSES + j] * (double)e[r];
    assert_close(score, (j == label) - p[j], 0, tolerance);
    for (int k = 0; k < CLASSES; k++) {
      double fisher = 0;
      for (int r = 0; r < CLASSES; r++) fisher += (double)J[r * CLASSES + j] * (double)J[r * CLASSES + k];
      assert_close(fisher, (j == k ? p[j] : 0) - p[j] * p[k], 0, tolerance);
    }
  }
}

static void test_fisher(void **state) {
  (void)state;
  float logits[SAMPLES * CLASSES], e[SAMPLES * CLASSES], J[SAMPLES * CLASSES * CLASSES];
  uint8_t labels[SAMPLES];
  struct kwm_innovation sums = {0};
  make_logits(1, logits, labels);
  kwm_observe(&softmax_model, SAMPLES, logits, labels, e, J, &sums);
  for (int i = 0; i < SAMPLES; i++)
    check_fisher_and_score(logits + i * CLASSES, labels[i], e + i * CLASSES, J + i * CLASSES * CLASSES, 1e-6);
}

/* Probabilities down to exp(-1000): everything finite, and the score of a sure and wrong prediction is still y - p. */
static void test_sure_and_wrong(void **state) {
  (void)state;
  float logits[CLASSES] = {0}, e[CLASSES], J[CLASSES * CLASSES];
  const float tops[] = {20, 100, 1000, 1e30f};
  for (size_t t = 0; t < sizeof tops / sizeof tops[0]; t++) {
    const uint8_t label = 4;
    struct kwm_innovation sums = {0};
    logits[2] = tops[t];
    logits[7] = -tops[t];
    kwm_observe(&softmax_model, 1, logits, &label, e, J, &sums);
    for (int k = 0; k < CLASSES; k++) assert_true(isfinite(e[k]));
    for (int k = 0; k < CLASSES * CLASSES; k++) assert_true(isfinite(J[k]));
    assert_true(isfinite(sums.surprisal) && isfinite(sums.entropy) && isfinite(sums.variance));
    assert_true(sums.surprisal >= 19.9);
    check_fisher_and_score(logits, label, e, J, 1e-6);
  }
}

static void test_shift(void **state) {
  (void)state;
  float logits[SAMPLES * CLASSES], e[2][SAMPLES * CLASSES], J[2][SAMPLES * CLASSES * CLASSES];
  uint8_t labels[SAMPLES];
  struct kwm_innovation sums[2];
  memset(sums, 0, sizeof sums);
  make_logits(1, logits, labels);
  for (int s = 0; s < 2; s++) {
    kwm_observe(&softmax_model, SAMPLES, logits, labels, e[s], J[s], &sums[s]);
    for (int i = 0; i < SAMPLES * CLASSES; i++) logits[i] += 8;
  }
  assert_memory_equal(e[0], e[1], sizeof e[0]);
  assert_memory_equal(J[0], J[1], sizeof J[0]);
  assert_memory_equal(&sums[0], &sums[1], sizeof sums[0]);
}

/* Sums of the facts against their definitions; they add to what is there, with and without e and J. */
static void test_facts(void **state) {
  (void)state;
  float logits[SAMPLES * CLASSES], e[SAMPLES * CLASSES], J[SAMPLES * CLASSES * CLASSES];
  uint8_t labels[SAMPLES];
  make_logits(2, logits, labels);
  struct kwm_innovation wanted = {.samples = 100 + SAMPLES}, sums = {.samples = 100}, alone = {.samples = 100};
  for (int i = 0; i < SAMPLES; i++) {
    double p[CLASSES], mean = 0, second = 0;
    int best = 0;
    probabilities(logits + i * CLASSES, p);
    for (int k = 0; k < CLASSES; k++) {
      mean -= p[k] * log(p[k]);
      second += p[k] * log(p[k]) * log(p[k]);
      wanted.squared += ((k == labels[i]) - p[k]) * ((k == labels[i]) - p[k]);
      wanted.expected += p[k] * (1 - p[k]);
      if (p[k] > p[best]) best = k;
    }
    wanted.surprisal -= log(p[labels[i]]);
    wanted.entropy += mean;
    wanted.variance += second - mean * mean;
    wanted.correct += best == labels[i];
    kwm_calibration_add(&wanted.calibration, p[best], best == labels[i]);
  }
  kwm_observe(&softmax_model, SAMPLES, logits, labels, e, J, &sums);
  kwm_observe(&softmax_model, SAMPLES, logits, labels, NULL, NULL, &alone);
  assert_memory_equal(&sums, &alone, sizeof sums);
  const double *const a = (const double *)&sums, *const b = (const double *)&wanted;
  for (int k = 0; k < KWM_INNOVATION_FIELDS; k++) assert_close(a[k], b[k], 1e-5, 0);
}

/* A logit that is not a number, or no largest logit, must not pass for a small probability. */
static void test_not_finite(void **state) {
  (void)state;
  const float bad[] = {NAN, INFINITY};
  for (int b = 0; b < 2; b++)
    for (int at = 0; at < CLASSES; at += 3) {
      float logits[CLASSES] = {0}, e[CLASSES], J[CLASSES * CLASSES];
      const uint8_t label = 5;
      struct kwm_innovation sums = {0};
      logits[at] = bad[b];
      kwm_observe(&softmax_model, 1, logits, &label, e, J, &sums);
      assert_true(!isfinite(sums.surprisal));
    }
}

/* Of the outputs' density around the target, by hand. */
static void test_gaussian(void **state) {
  (void)state;
  const struct kwm_model model = {.classes = CLASSES, .noise_variance = 0.25};
  float outputs[SAMPLES * CLASSES], e[SAMPLES * CLASSES], J[SAMPLES * CLASSES * CLASSES];
  uint8_t labels[SAMPLES];
  struct kwm_innovation sums = {0}, alone = {0};
  double surprisal = 0, squared = 0;
  make_logits(1, outputs, labels);
  kwm_observe(&model, SAMPLES, outputs, labels, e, J, &sums);
  kwm_observe(&model, SAMPLES, outputs, labels, NULL, NULL, &alone);
  assert_memory_equal(&sums, &alone, sizeof sums);
  for (int k = 0; k < SAMPLES * CLASSES; k++) {
    const double error = (k % CLASSES == labels[k / CLASSES]) - (double)outputs[k];
    squared += error * error;
    surprisal -= log(exp(-0.5 * error * error / 0.25) / sqrt(2 * acos(-1) * 0.25));
    assert_close((double)e[k], error / 0.5, 1e-6, 0);
    for (int j = 0; j < CLASSES; j++) assert_true(J[k * CLASSES + j] == (j == k % CLASSES ? 2.0f : 0.0f));
  }
  assert_close(sums.surprisal, surprisal, 1e-9, 0);
  assert_close(sums.entropy, SAMPLES * CLASSES * 0.5 * log(2 * acos(-1) * exp(1) * 0.25), 1e-12, 0);
  assert_true(sums.variance == 0.5 * SAMPLES * CLASSES && sums.expected == 0.25 * SAMPLES * CLASSES);
  assert_close(sums.squared, squared, 1e-12, 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_fisher), cmocka_unit_test(test_sure_and_wrong), cmocka_unit_test(test_shift),
      cmocka_unit_test(test_facts),  cmocka_unit_test(test_not_finite),     cmocka_unit_test(test_gaussian),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
