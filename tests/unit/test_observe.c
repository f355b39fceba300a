/* The observation: whitened rows carry the exact Fisher information and score of a softmax, whatever the logits, and
   sampled ones carry them on average; what is not a number stays visible. */
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

/* ---- sampled */

enum { STEPS = 20000, DRAW_SEED = 5 };

/* Far beyond what chance does: five deviations of the mean of STEPS draws of a variable with this variance. */
static double by_chance(double variance) {
  return 5 * sqrt(variance / STEPS) + 1e-6;
}

static struct kwm_draw draw_at(uint64_t step, uint64_t index) {
  return (struct kwm_draw){.seed = DRAW_SEED, .step = step, .index = index};
}

/* M (samples, classes, classes), mean (samples, classes) <- averages of hhᵀ and h over the draws of many steps. */
static void average(const struct kwm_model *model, const float *logits, const uint8_t *labels, double *M,
                    double *mean) {
  float g[SAMPLES * CLASSES], h[SAMPLES * CLASSES];
  for (uint64_t step = 0; step < STEPS; step++) {
    struct kwm_innovation sums = {0};
    const struct kwm_draw draw = draw_at(step, 0);
    kwm_observe_sampled(model, SAMPLES, logits, labels, &draw, g, h, &sums);
    for (int k = 0; k < SAMPLES * CLASSES; k++) {
      mean[k] += (double)h[k] / STEPS;
      for (int j = 0; j < CLASSES; j++)
        M[k * CLASSES + j] += (double)h[k] * (double)h[k / CLASSES * CLASSES + j] / STEPS;
    }
  }
}

/* E[hhᵀ] = diag(p) - ppᵀ, E[h] = 0. */
static void test_sampled_fisher(void **state) {
  (void)state;
  float logits[SAMPLES * CLASSES];
  double M[SAMPLES * CLASSES * CLASSES] = {0}, mean[SAMPLES * CLASSES] = {0};
  uint8_t labels[SAMPLES];
  make_logits(1, logits, labels);
  average(&softmax_model, logits, labels, M, mean);
  for (int k = 0; k < SAMPLES * CLASSES; k++) {
    const int i = k / CLASSES, a = k % CLASSES;
    double p[CLASSES];
    probabilities(logits + i * CLASSES, p);
    assert_close(mean[k], 0, 0, by_chance(p[a] * (1 - p[a])));
    for (int b = 0; b < CLASSES; b++) {
      const double fisher = (a == b ? p[a] : 0) - p[a] * p[b];
      double square = 0;
      for (int c = 0; c < CLASSES; c++) square += p[c] * pow(((a == c) - p[a]) * ((b == c) - p[b]), 2);
      assert_close(M[k * CLASSES + b], fisher, 0, by_chance(square - fisher * fisher));
    }
  }
}

/* E[hhᵀ] = I/R, where E[h_a²h_b²] = (1 + 2 (a = b))/R². */
static void test_sampled_gaussian(void **state) {
  (void)state;
  const double R = 0.25;
  const struct kwm_model model = {.classes = CLASSES, .noise_variance = R};
  float outputs[SAMPLES * CLASSES], g[SAMPLES * CLASSES], h[SAMPLES * CLASSES];
  double M[SAMPLES * CLASSES * CLASSES] = {0}, mean[SAMPLES * CLASSES] = {0};
  uint8_t labels[SAMPLES];
  struct kwm_innovation sums = {0}, exact = {0};
  const struct kwm_draw draw = draw_at(0, 0);
  make_logits(1, outputs, labels);
  average(&model, outputs, labels, M, mean);
  for (int k = 0; k < SAMPLES * CLASSES; k++) {
    assert_close(mean[k], 0, 0, by_chance(1 / R));
    for (int b = 0; b < CLASSES; b++) {
      const bool same = b == k % CLASSES;
      assert_close(M[k * CLASSES + b], same / R, 0, by_chance((1 + same) / (R * R)));
    }
  }
  kwm_observe_sampled(&model, SAMPLES, outputs, labels, &draw, g, h, &sums);
  kwm_observe(&model, SAMPLES, outputs, labels, NULL, NULL, &exact);
  assert_memory_equal(&sums, &exact, sizeof sums);
  for (int k = 0; k < SAMPLES * CLASSES; k++)
    for (int j = 0; j < k; j++) assert_true(h[j] != h[k]); /* no two samples share a draw */
  for (int k = 0; k < SAMPLES * CLASSES; k++)
    assert_close((double)g[k], ((k % CLASSES == labels[k / CLASSES]) - (double)outputs[k]) / R, 1e-6, 0);
}

/* g is y - p; the facts are those of the exact observation. */
static void test_sampled_score(void **state) {
  (void)state;
  float logits[SAMPLES * CLASSES], g[SAMPLES * CLASSES], h[SAMPLES * CLASSES];
  uint8_t labels[SAMPLES];
  struct kwm_innovation sums = {0}, exact = {0};
  const struct kwm_draw draw = draw_at(3, 0);
  make_logits(2, logits, labels);
  kwm_observe_sampled(&softmax_model, SAMPLES, logits, labels, &draw, g, h, &sums);
  kwm_observe(&softmax_model, SAMPLES, logits, labels, NULL, NULL, &exact);
  assert_memory_equal(&sums, &exact, sizeof sums);
  for (int k = 0; k < SAMPLES * CLASSES; k++) {
    double p[CLASSES];
    probabilities(logits + k / CLASSES * CLASSES, p);
    assert_close((double)g[k], (k % CLASSES == labels[k / CLASSES]) - p[k % CLASSES], 0, 1e-6);
  }
}

/* A draw is its sample's own: the same whatever chunk the sample is in, another one in another step and with another
   seed. */
static void test_sampled_keys(void **state) {
  (void)state;
  const struct kwm_model gaussian = {.classes = CLASSES, .noise_variance = 1};
  const struct kwm_model *const models[] = {&softmax_model, &gaussian};
  float logits[SAMPLES * CLASSES], g[SAMPLES * CLASSES], whole[SAMPLES * CLASSES], part[SAMPLES * CLASSES];
  uint8_t labels[SAMPLES];
  struct kwm_innovation sums = {0};
  make_logits(1, logits, labels);
  for (int m = 0; m < 2; m++) {
    struct kwm_draw draw = draw_at(7, 11);
    kwm_observe_sampled(models[m], SAMPLES, logits, labels, &draw, g, whole, &sums);
    for (int first = 0, n = 1; first < SAMPLES; first += n, n++) {
      const struct kwm_draw from = draw_at(7, 11 + (uint64_t)first);
      const int at = first * CLASSES, count = first + n > SAMPLES ? SAMPLES - first : n;
      kwm_observe_sampled(models[m], count, logits + at, labels + first, &from, g + at, part + at, &sums);
    }
    assert_memory_equal(part, whole, sizeof whole);
    const struct kwm_draw others[] = {{DRAW_SEED, 8, 11}, {DRAW_SEED + 1, 7, 11}, {DRAW_SEED, 7, 11 + SAMPLES}};
    for (size_t k = 0; k < sizeof others / sizeof others[0]; k++) {
      kwm_observe_sampled(models[m], SAMPLES, logits, labels, &others[k], g, part, &sums);
      assert_true(memcmp(part, whole, sizeof whole) != 0);
    }
  }
}

/* What is sure is drawn; what is not a number stays visible, in the facts and in both scores. */
static void test_sampled_edges(void **state) {
  (void)state;
  float logits[CLASSES] = {0}, g[CLASSES], h[CLASSES];
  const uint8_t label = 4;
  const struct kwm_draw draw = draw_at(0, 0);
  struct kwm_innovation sums = {0};
  logits[2] = 1000;
  kwm_observe_sampled(&softmax_model, 1, logits, &label, &draw, g, h, &sums);
  for (int k = 0; k < CLASSES; k++) {
    assert_close((double)h[k], 0, 0, 1e-12);
    assert_close((double)g[k], (k == 4) - (k == 2), 0, 1e-12);
  }
  logits[2] = NAN;
  kwm_observe_sampled(&softmax_model, 1, logits, &label, &draw, g, h, &sums);
  assert_true(!isfinite(sums.surprisal) && !isfinite(g[0]) && !isfinite(h[0]));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_fisher),         cmocka_unit_test(test_sure_and_wrong),
      cmocka_unit_test(test_shift),          cmocka_unit_test(test_facts),
      cmocka_unit_test(test_not_finite),     cmocka_unit_test(test_gaussian),
      cmocka_unit_test(test_sampled_fisher), cmocka_unit_test(test_sampled_gaussian),
      cmocka_unit_test(test_sampled_score),  cmocka_unit_test(test_sampled_keys),
      cmocka_unit_test(test_sampled_edges),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
