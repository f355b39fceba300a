/* Scores of a task stream: means over entries of the accuracy matrix. The area under the ROC curve is the Mann-Whitney
   count over all pairs, found by merging two sorted lists. */
#include "kwm/tasks.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* R with tasks counted from 1, as in the definitions. */
struct accuracies {
  int64_t tasks, last; /* last: the row that is judged, t */
  const double *R;
};

static double at(const struct accuracies *acc, int64_t row, int64_t task) {
  return acc->R[row * acc->tasks + task - 1];
}

static double final(const struct accuracies *acc, int64_t i) {
  return at(acc, acc->last, i);
}

static double learned(const struct accuracies *acc, int64_t i) {
  return at(acc, i, i);
}

static double transferred(const struct accuracies *acc, int64_t i) {
  return final(acc, i) - learned(acc, i);
}

static double foreseen(const struct accuracies *acc, int64_t i) {
  return at(acc, i - 1, i) - at(acc, 0, i);
}

/* fmax passes over NaN, the subtraction doesn't: the last row is needed. */
static double lost_from_best(const struct accuracies *acc, int64_t i) {
  double best = NAN;
  for (int64_t j = i; j <= acc->last; j++) best = fmax(best, at(acc, j, i));
  return best - final(acc, i);
}

/* Mean of term(i) over first <= i <= last; 0/0 = NaN if there are none. */
static double mean(const struct accuracies *acc, int64_t first, int64_t last,
                   double (*term)(const struct accuracies *, int64_t)) {
  double sum = 0, count = 0;
  for (int64_t i = first; i <= last; i++, count++) sum += term(acc, i);
  return count > 0 ? sum / count : NAN;
}

struct kwm_tasks kwm_tasks_score(int64_t rows, int64_t tasks, const double *R) {
  KWM_ASSERT(rows >= 1 && rows <= tasks + 1);
  const int64_t t = rows - 1;
  const struct accuracies acc = {.tasks = tasks, .last = t, .R = R};
  const double backward = mean(&acc, 1, t - 1, transferred);
  return (struct kwm_tasks){.average = mean(&acc, 1, t, final),
                            .forgetting = -backward,
                            .forgetting_best = mean(&acc, 1, t - 1, lost_from_best),
                            .backward = backward,
                            .forward = mean(&acc, 2, t, foreseen),
                            .plasticity = mean(&acc, 1, t, learned)};
}

static int ascending(const void *left, const void *right) {
  const double l = *(const double *)left, r = *(const double *)right;
  return (l > r) - (l < r);
}

/* Copies n > 0 scores in ascending order; false if one is NaN, which has no place in an order. */
static bool sort_into(double *sorted, int64_t n, const double *scores) {
  for (int64_t k = 0; k < n; k++)
    if (isnan(scores[k])) return false;
  memcpy(sorted, scores, (size_t)n * sizeof *sorted);
  qsort(sorted, (size_t)n, sizeof *sorted, ascending);
  return true;
}

double kwm_auroc(int64_t n_a, const double *a, int64_t n_b, const double *b, double *scratch) {
  KWM_ASSERT(n_a >= 0 && n_b >= 0);
  double *const low = scratch, *const high = scratch + n_a;
  if (n_a == 0 || n_b == 0 || !sort_into(low, n_a, a) || !sort_into(high, n_b, b)) return NAN;
  /* Every element of b counts 2 for each of a below it and 1 for each equal to it. */
  double halves = 0;
  int64_t below = 0, not_above = 0;
  for (int64_t k = 0; k < n_b; k++) {
    while (below < n_a && low[below] < high[k]) below++;
    while (not_above < n_a && low[not_above] <= high[k]) not_above++;
    halves += (double)(below + not_above);
  }
  return halves / (2 * (double)n_a * (double)n_b);
}
