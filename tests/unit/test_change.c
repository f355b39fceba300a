/* The change test on made series: abrupt rises are found at the 2nd or 3rd step and nothing else is; the running
   numbers against sums formed anew. Every draw is keyed, so a result never varies. */
#include "kwm_test.h"

#include "kwm/change.h"
#include "kwm/consistency.h"
#include "kwm/rng.h"

enum { MOST_ALARMS = 16 };

static double noise(uint64_t seed, int64_t t) {
  return kwm_rng_normal(seed, KWM_RNG_TEST, 0, (uint64_t)t);
}

/* One step of a series whose level jumps at each multiple of `period` and falls again as learning goes on, with a slow
   drift below. */
struct series {
  uint64_t seed;
  int64_t steps, period; /* period 0: no jumps */
  double jump, fall;     /* height; steps in which it falls by 1/e */
  double drift, spread;  /* a step; standard deviation */
  int64_t spike;         /* a lone bad step, 0: none */
};

static double value(const struct series *how, int64_t t) {
  const int64_t since = how->period > 0 ? t % how->period : t;
  const double level = 1 + how->jump * exp(-(double)since / how->fall) + how->drift * (double)t;
  return level + how->spread * noise(how->seed, t) + (how->spike > 0 && t == how->spike ? 100 : 0);
}

struct alarms {
  int64_t count, at[MOST_ALARMS];
  double highest; /* CUSUM */
};

static struct alarms watch(const struct series *how, const struct kwm_change_spec *spec) {
  struct kwm_change change = {0};
  struct alarms found = {0};
  for (int64_t t = 0; t < how->steps; t++) {
    if (kwm_change_add(&change, spec, value(how, t))) {
      assert_true(found.count < MOST_ALARMS);
      found.at[found.count++] = t;
      assert_true(change.alarm_step == (double)(t + 1) && change.sum == 0);
    }
    assert_true(change.steps == (double)(t + 1) && change.alarms == (double)found.count);
    found.highest = fmax(found.highest, change.sum);
  }
  return found;
}

static const struct series learning = {.steps = 1200, .period = 120, .jump = 2, .fall = 8, .spread = 0.1};

static void test_finds_every_jump(void **state) {
  (void)state;
  for (uint64_t seed = 0; seed < 10; seed++) {
    struct series stream = learning;
    stream.seed = seed;
    const struct alarms found = watch(&stream, &kwm_change_default);
    assert_int_equal(found.count, 9);
    for (int64_t k = 0; k < found.count; k++) {
      const int64_t delay = found.at[k] - (k + 1) * stream.period;
      assert_true(delay == 1 || delay == 2);
    }
  }
}

static void test_silent_without_jumps(void **state) {
  (void)state;
  for (uint64_t seed = 0; seed < 10; seed++) {
    struct series stream = learning;
    stream.seed = seed, stream.period = 0, stream.steps = 5000;
    assert_int_equal(watch(&stream, &kwm_change_default).count, 0);
    stream.drift = 0.0005; /* a quarter of a deviation over the memory, 25 deviations in all */
    assert_int_equal(watch(&stream, &kwm_change_default).count, 0);
    stream.drift = -0.0002;
    assert_int_equal(watch(&stream, &kwm_change_default).count, 0);
  }
}

/* A jump within the spread takes more steps, as the sum of its evidence says. */
static void test_small_jump(void **state) {
  (void)state;
  struct kwm_change change = {0};
  int64_t alarm = 0;
  for (int64_t t = 0; t < 300 && alarm == 0; t++)
    if (kwm_change_add(&change, &kwm_change_default, 1 + 0.1 * noise(5, t) + (t < 200 ? 0 : 0.3))) alarm = t;
  assert_in_range(alarm, 202, 210);
}

static void test_lone_step_is_no_alarm(void **state) {
  (void)state;
  struct series stream = learning;
  stream.period = 0, stream.spike = 300;
  const struct alarms found = watch(&stream, &kwm_change_default);
  assert_int_equal(found.count, 0);
  assert_true(found.highest >= 5);
  /* The spike is not learned from: what follows is as without it, but for the sum, which fades. */
  struct kwm_change with = {0}, without = {0};
  for (int64_t t = 0; t < 400; t++) {
    kwm_change_add(&with, &kwm_change_default, value(&stream, t));
    if (t != stream.spike) kwm_change_add(&without, &kwm_change_default, value(&stream, t));
  }
  assert_true(with.mean == without.mean && with.variance == without.variance && with.count == without.count);
}

static void test_only_for_the_worse(void **state) {
  (void)state;
  struct kwm_change change = {0};
  for (int64_t t = 0; t < 200; t++)
    assert_false(kwm_change_add(&change, &kwm_change_default, (t < 100 ? 2 : 1) + 0.1 * noise(3, t)));
}

static void test_warm_up(void **state) {
  (void)state;
  struct kwm_change change = {0};
  for (int64_t t = 0; t < KWM_CHANGE_WARMUP; t++)
    assert_false(kwm_change_add(&change, &kwm_change_default, t < 5 ? 1 : 1e6));
  assert_true(change.sum == 0 && change.count == KWM_CHANGE_WARMUP);
  /* The next value is the first that counts. */
  struct kwm_change taught = {0};
  for (int64_t t = 0; t < KWM_CHANGE_WARMUP; t++) kwm_change_add(&taught, &kwm_change_default, 1);
  assert_false(kwm_change_add(&taught, &kwm_change_default, 2));
  assert_true(kwm_change_add(&taught, &kwm_change_default, 2));
  /* After an alarm the same number of values is needed again, the alarm's own being the first. */
  struct kwm_change again = {0};
  int64_t first = 0, second = 0;
  for (int64_t t = 0; t < 60 && second == 0; t++)
    if (kwm_change_add(&again, &kwm_change_default, t < 20 ? 1 : t < 40 ? 2 : 4)) *(first == 0 ? &first : &second) = t;
  assert_true(first == 21 && second == 41 && again.alarms == 2 && again.count == 1 && again.mean == 4);
}

/* Plain averages up to the memory, exponential ones after it. */
static void test_running_numbers(void **state) {
  (void)state;
  const struct kwm_change_spec spec = {.threshold = 1e9, .slack = 1, .memory = 30};
  struct kwm_change change = {0};
  double mean = 0, variance = 0, x[100];
  for (int64_t t = 0; t < 100; t++) {
    x[t] = 3 + 0.1 * noise(7, t);
    kwm_change_add(&change, &spec, x[t]);
    if (t == 29) {
      for (int k = 0; k <= t; k++) mean += x[k] / 30;
      for (int k = 1; k <= t; k++) variance += (x[k] - x[k - 1]) * (x[k] - x[k - 1]) / 2 / 29;
      assert_close(change.mean, mean, 1e-13, 0);
      assert_close(change.variance, variance, 1e-12, 0);
    } else if (t > 30) {
      const double z = (x[t] - mean) / sqrt(variance) - spec.slack;
      if (z > 0) assert_true(change.sum >= z * (1 - 1e-9));
    }
    if (t >= 30) {
      mean += (x[t] - mean) / 30;
      variance += ((x[t] - x[t - 1]) * (x[t] - x[t - 1]) / 2 - variance) / 30;
      assert_close(change.mean, mean, 1e-13, 0);
      assert_close(change.variance, variance, 1e-12, 0);
    }
  }
  assert_true(change.previous == x[99]);
}

/* One step written out: mean 2, variance 1/2, so 5 lies 3√2 deviations away. */
static void test_cusum(void **state) {
  (void)state;
  const struct kwm_change_spec spec = {.threshold = 100, .slack = 0.5, .memory = 50};
  const struct kwm_change start = {.steps = 40, .count = 40, .mean = 2, .variance = 0.5, .previous = 2, .sum = 1};
  struct kwm_change change = start;
  kwm_change_add(&change, &spec, 5);
  assert_close(change.sum, 1 + 3 * sqrt(2) - 0.5, 1e-14, 0);
  change = start;
  kwm_change_add(&change, &spec, 2);
  assert_close(change.sum, 0.5, 1e-14, 0);
  change = start;
  kwm_change_add(&change, &spec, 1);
  assert_true(change.sum == 0);
  change = start;
  kwm_change_add(&change, &spec, 1e9);
  assert_true(change.sum == 51 && change.mean == 2);
}

/* A statistic without any spread: rounding is no change, two per cent and more soon are one. */
static void test_constant(void **state) {
  (void)state;
  struct kwm_change change = {0}, zero = {0};
  for (int t = 0; t < 100; t++) {
    assert_false(kwm_change_add(&change, &kwm_change_default, 1 + (t % 2) * 1e-15));
    assert_false(kwm_change_add(&zero, &kwm_change_default, 0));
  }
  assert_true(change.sum == 0 && zero.sum == 0);
  assert_false(kwm_change_add(&change, &kwm_change_default, 1.009));
  assert_true(change.sum < 1e-9);
  assert_false(kwm_change_add(&change, &kwm_change_default, 1.2));
  assert_true(kwm_change_add(&change, &kwm_change_default, 1.2));
  assert_false(kwm_change_add(&zero, &kwm_change_default, 0.1));
  assert_true(kwm_change_add(&zero, &kwm_change_default, 0.1));
}

static void test_not_finite(void **state) {
  (void)state;
  const double useless[] = {NAN, INFINITY, -INFINITY};
  struct kwm_change clean = {0}, change = {0};
  for (int64_t t = 0; t < 100; t++) {
    const double x = 1 + 0.1 * noise(11, t);
    kwm_change_add(&clean, &kwm_change_default, x);
    kwm_change_add(&change, &kwm_change_default, x);
    assert_false(kwm_change_add(&change, &kwm_change_default, useless[t % 3]));
  }
  assert_true(change.steps == 200);
  change.steps = clean.steps;
  assert_memory_equal(&change, &clean, sizeof change);
}

static void test_off(void **state) {
  (void)state;
  struct kwm_change_spec off = kwm_change_default;
  off.threshold = 0;
  const struct kwm_change zero = {0};
  struct kwm_change change = {0};
  for (int t = 0; t < 50; t++) assert_false(kwm_change_add(&change, &off, t < 25 ? 0 : 1e6));
  assert_memory_equal(&change, &zero, sizeof change);
}

/* Through an array of doubles, as a checkpoint keeps it, in the middle of a rise. */
static void test_restored(void **state) {
  (void)state;
  double stored[KWM_DOUBLES(struct kwm_change)];
  struct kwm_change straight = {0};
  for (int64_t t = 0; t <= 120; t++) kwm_change_add(&straight, &kwm_change_default, value(&learning, t));
  assert_true(straight.sum > 0);
  memcpy(stored, &straight, sizeof stored);
  struct kwm_change resumed = {0};
  memcpy(&resumed, stored, sizeof stored);
  for (int64_t t = 121; t < 400; t++) {
    const bool one = kwm_change_add(&straight, &kwm_change_default, value(&learning, t));
    assert_true(kwm_change_add(&resumed, &kwm_change_default, value(&learning, t)) == one);
  }
  assert_memory_equal(&straight, &resumed, sizeof straight);
  assert_true(resumed.alarms == 3);
}

static void test_statistic(void **state) {
  (void)state;
  assert_close(kwm_change_statistic(9, 4), 1.5, 1e-15, 0);
  assert_true(kwm_change_statistic(0, 3) == 0 && kwm_change_statistic(-1e-12, 3) == 0);
  assert_true(isnan(kwm_change_statistic(1, 0)));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_finds_every_jump),
      cmocka_unit_test(test_silent_without_jumps),
      cmocka_unit_test(test_small_jump),
      cmocka_unit_test(test_lone_step_is_no_alarm),
      cmocka_unit_test(test_only_for_the_worse),
      cmocka_unit_test(test_warm_up),
      cmocka_unit_test(test_running_numbers),
      cmocka_unit_test(test_cusum),
      cmocka_unit_test(test_constant),
      cmocka_unit_test(test_not_finite),
      cmocka_unit_test(test_off),
      cmocka_unit_test(test_restored),
      cmocka_unit_test(test_statistic),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
