/* What a stream of tasks learned and kept, from accuracies; and how well a score tells two populations apart. All
   functions are local and allocate nothing.

   The accuracies are R (rows, tasks), row-major: R[t][i] is the test accuracy on task i after learning task t, tasks
   counted from 1, row 0 before any training. Entries that were not evaluated are NaN. */
#pragma once

#include "kwm/base.h"

/* After t tasks; in a whole stream t = T. Average, backward and forward transfer: Lopez-Paz & Ranzato, Gradient
   episodic memory for continual learning, 2017. Forgetting against the best: Chaudhry et al., Riemannian walk for
   incremental learning, 2018; but the maximum here takes in row t as well, so that a task that still improves counts as
   0, not as negative. */
struct kwm_tasks {
  double average;         /* mean over i <= t of R[t][i] */
  double forgetting;      /* mean over i < t of R[i][i] - R[t][i]: lost since learning it */
  double forgetting_best; /* mean over i < t of max over j in i..t of R[j][i] - R[t][i] */
  double backward;        /* mean over i < t of R[t][i] - R[i][i] */
  double forward;         /* mean over 2 <= i <= t of R[i-1][i] - R[0][i]: known before learning it */
  double plasticity;      /* mean over i <= t of R[i][i] */
};

/* Scores after the last of the rows filled so far, row 0 among them: 1 <= rows <= tasks + 1. A score that needs an
   entry that is NaN, or that has no terms (t = 0, or t = 1 where it wants an earlier task), is NaN; only the maximum
   passes over rows that were not evaluated. */
struct kwm_tasks kwm_tasks_score(int64_t rows, int64_t tasks, const double *R);

/* Area under the ROC curve: the probability that a random one of b scores higher than a random one of a, ties counting
   half; 0.5 if the scores say nothing, 1 if all of b lie above all of a. Infinite scores are ordered as usual; NaN if a
   score is NaN or a side is empty. Sorts copies in the caller's scratch (n_a + n_b), O(n log n). */
double kwm_auroc(int64_t n_a, const double *a, int64_t n_b, const double *b, double *scratch);
