/* Scores of a task stream against sums written out by hand, in the middle of a stream and with entries missing; the
   area under the ROC curve against its definition over all pairs. */
#include "kwm_test.h"

#include "kwm/rng.h"
#include "kwm/tasks.h"

enum { TASKS = 3, MOST = 200 };

static const double full[(TASKS + 1) * TASKS] = {0.10, 0.12, 0.08,  /* before training */
                                                 0.90, 0.20, 0.11,  /* after task 1 */
                                                 0.92, 0.85, 0.30,  /* 2 */
                                                 0.80, 0.88, 0.95}; /* 3 */

static void test_whole_stream(void **state) {
  (void)state;
  const struct kwm_tasks score = kwm_tasks_score(TASKS + 1, TASKS, full);
  assert_close(score.average, (0.80 + 0.88 + 0.95) / 3, 1e-14, 0);
  assert_close(score.forgetting, ((0.90 - 0.80) + (0.85 - 0.88)) / 2, 1e-13, 0);
  assert_close(score.forgetting_best, ((0.92 - 0.80) + 0) / 2, 1e-13, 0);
  assert_close(score.backward, -score.forgetting, 0, 0);
  assert_close(score.forward, ((0.20 - 0.12) + (0.30 - 0.08)) / 2, 1e-13, 0);
  assert_close(score.plasticity, (0.90 + 0.85 + 0.95) / 3, 1e-14, 0);
}

/* Rows that are not filled yet must not be read: here they are poisoned. */
static void test_middle(void **state) {
  (void)state;
  double R[(TASKS + 1) * TASKS];
  memcpy(R, full, sizeof R);
  for (int k = 3 * TASKS; k < (TASKS + 1) * TASKS; k++) R[k] = NAN;
  const struct kwm_tasks two = kwm_tasks_score(3, TASKS, R);
  assert_close(two.average, (0.92 + 0.85) / 2, 1e-14, 0);
  assert_close(two.forgetting, 0.90 - 0.92, 1e-13, 0);
  assert_true(two.forgetting_best == 0);
  assert_close(two.backward, 0.92 - 0.90, 1e-13, 0);
  assert_close(two.forward, 0.20 - 0.12, 1e-13, 0);
  assert_close(two.plasticity, (0.90 + 0.85) / 2, 1e-14, 0);
  const struct kwm_tasks one = kwm_tasks_score(2, TASKS, R);
  assert_true(one.average == 0.90 && one.plasticity == 0.90);
  assert_true(isnan(one.forgetting) && isnan(one.forgetting_best) && isnan(one.backward) && isnan(one.forward));
  const struct kwm_tasks none = kwm_tasks_score(1, TASKS, R);
  assert_true(isnan(none.average) && isnan(none.plasticity) && isnan(none.forgetting) && isnan(none.forward));
}

/* Only what was learned so far is evaluated: everything but the forward transfer is known. */
static void test_lower_triangle(void **state) {
  (void)state;
  double R[(TASKS + 1) * TASKS];
  memcpy(R, full, sizeof R);
  for (int t = 0; t <= TASKS; t++)
    for (int i = t; i < TASKS; i++) R[t * TASKS + i] = NAN;
  const struct kwm_tasks whole = kwm_tasks_score(TASKS + 1, TASKS, full), half = kwm_tasks_score(TASKS + 1, TASKS, R);
  assert_true(isnan(half.forward));
  assert_true(half.average == whole.average && half.forgetting == whole.forgetting && half.backward == whole.backward);
  assert_true(half.forgetting_best == whole.forgetting_best && half.plasticity == whole.plasticity);
}

static void test_missing(void **state) {
  (void)state;
  double R[(TASKS + 1) * TASKS];
  memcpy(R, full, sizeof R);
  R[2 * TASKS] = NAN; /* task 1 after task 2: only one of the maximum's rows */
  struct kwm_tasks score = kwm_tasks_score(TASKS + 1, TASKS, R);
  assert_close(score.forgetting_best, ((0.90 - 0.80) + 0) / 2, 1e-13, 0);
  assert_false(isnan(score.average) || isnan(score.forgetting) || isnan(score.forward) || isnan(score.plasticity));
  R[TASKS] = NAN; /* task 1 right after learning it */
  score = kwm_tasks_score(TASKS + 1, TASKS, R);
  assert_true(isnan(score.forgetting) && isnan(score.backward) && isnan(score.plasticity));
  assert_true(score.forgetting_best == 0 && !isnan(score.average) && !isnan(score.forward));
  R[TASKS * TASKS] = NAN; /* task 1 at the end */
  score = kwm_tasks_score(TASKS + 1, TASKS, R);
  assert_true(isnan(score.average) && isnan(score.forgetting_best) && !isnan(score.forward));
}

/* The best is sought from the row right after learning on. */
static void test_best_before_learning(void **state) {
  (void)state;
  double R[(TASKS + 1) * TASKS];
  memcpy(R, full, sizeof R);
  R[TASKS + 1] = R[1] = 0.99;
  assert_true(kwm_tasks_score(TASKS + 1, TASKS, R).forgetting_best ==
              kwm_tasks_score(TASKS + 1, TASKS, full).forgetting_best);
}

static double auroc_by_definition(int64_t n_a, const double *a, int64_t n_b, const double *b) {
  double sum = 0;
  for (int64_t i = 0; i < n_a; i++)
    for (int64_t j = 0; j < n_b; j++) sum += b[j] > a[i] ? 1 : b[j] == a[i] ? 0.5 : 0;
  return sum / (double)(n_a * n_b);
}

/* Few different values make many ties; many make none. */
static void test_auroc_definition(void **state) {
  (void)state;
  static const int64_t sizes[][2] = {{1, 1}, {1, MOST}, {MOST, 1}, {17, 33}, {MOST, 150}};
  static const uint64_t values[] = {1, 2, 7, 1000000000};
  double a[MOST], b[MOST], scratch[2 * MOST];
  for (uint64_t s = 0; s < 5; s++)
    for (uint64_t v = 0; v < 4; v++) {
      const int64_t n_a = sizes[s][0], n_b = sizes[s][1];
      for (int64_t k = 0; k < n_a; k++)
        a[k] = (double)kwm_rng_below(s, KWM_RNG_TEST, 10 + v, (uint64_t)k, values[v]) - 3;
      for (int64_t k = 0; k < n_b; k++)
        b[k] = (double)kwm_rng_below(s, KWM_RNG_TEST, 20 + v, (uint64_t)k, values[v]) - 2;
      double first[MOST];
      memcpy(first, a, sizeof first);
      assert_true(kwm_auroc(n_a, a, n_b, b, scratch) == auroc_by_definition(n_a, a, n_b, b));
      assert_close(kwm_auroc(n_b, b, n_a, a, scratch), 1 - auroc_by_definition(n_a, a, n_b, b), 1e-14, 1e-15);
      assert_memory_equal(first, a, (size_t)n_a * sizeof *a);
    }
}

static void test_auroc_edges(void **state) {
  (void)state;
  const double low[] = {-INFINITY, -1, 0}, high[] = {0.5, INFINITY}, zeros[] = {-0.0, 0.0}, bad[] = {1, NAN};
  double scratch[8];
  assert_true(kwm_auroc(3, low, 2, high, scratch) == 1);
  assert_true(kwm_auroc(2, high, 3, low, scratch) == 0);
  assert_true(kwm_auroc(2, zeros, 1, &zeros[1], scratch) == 0.5);
  assert_true(kwm_auroc(3, low, 3, low, scratch) == 0.5);
  assert_true(isnan(kwm_auroc(0, NULL, 2, high, scratch)) && isnan(kwm_auroc(2, high, 0, NULL, scratch)));
  assert_true(isnan(kwm_auroc(2, bad, 2, high, scratch)) && isnan(kwm_auroc(2, high, 2, bad, scratch)));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_whole_stream),         cmocka_unit_test(test_middle),
      cmocka_unit_test(test_lower_triangle),       cmocka_unit_test(test_missing),
      cmocka_unit_test(test_best_before_learning), cmocka_unit_test(test_auroc_definition),
      cmocka_unit_test(test_auroc_edges),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
