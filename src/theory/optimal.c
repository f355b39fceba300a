/* Linear-Gaussian optimality: the filter against batch least squares, of which it is the recursive form; and that
   sequences, batches and both forms of the update are one filter. */
#include <math.h>

#include "matrix.h"
#include "subject.h"

enum { N = 8, ROWS = 4, STEPS = 100 };

enum { MEAN, COVARIANCE, SEQUENCE, FORMS, FORGETTING, NEES, CLAIMS };
static const struct kwm_claim claims[CLAIMS] = {
    [MEAN] = {"batch-mean", "(26),(34)", KWM_CLAIM_TRUE, KWM_AT_MOST, 1e-10, 0,
              "Q = 0: the filter's mean is batch ridge regression", "relative distance after 400 rows"},
    [COVARIANCE] = {"batch-covariance", "(28),(35)", KWM_CLAIM_TRUE, KWM_AT_MOST, 1e-10, 0,
                    "its P is the batch posterior", "relative distance after 400 rows"},
    [SEQUENCE] = {"batch-sequence", "(37)", KWM_CLAIM_TRUE, KWM_AT_MOST, 1e-11, 0, "rows one by one are rows together",
                  "relative distance of means and P"},
    [FORMS] = {"batch-forms", "(33)-(35)", KWM_CLAIM_TRUE, KWM_AT_MOST, 1e-11, 0, "information form = innovation form",
               "relative distance of P after 20 steps"},
    [FORGETTING] = {"forgetting-rest", "(86)", KWM_CLAIM_TRUE, KWM_AT_MOST, 1e-9, 0,
                    "anchored forgetting rests at 1/P = L0 + F/(1-l)", "relative distance of 1/P+"},
    [NEES] = {"batch-calibrated", "(28)", KWM_CLAIM_TRUE, KWM_WITHIN, N, 0.8,
              "P is the error's covariance: mean of e'(1/P)e is n", "mean over 400 runs of 24 rows"},
};

static kwm_status open(struct theory *t, struct subject *s, enum kwm_form form, int64_t rows, double forgetting) {
  const struct subject_spec spec = {
      .structure = "block", .form = form, .n = N, .rows = rows, .precision = 0.7, .forgetting = forgetting};
  return subject_open(s, t, &spec);
}

static kwm_status batch(struct theory *t, struct kwm_finding *found) {
  const double *const H = theory_floats(t, STEPS * ROWS * N, 1), *const truth = theory_normals(t, N);
  double *const y = theory_normals(t, STEPS * ROWS);
  struct subject s = {0};
  KWM_TRY(open(t, &s, KWM_FORM_INNOVATION, ROWS, 0));
  for (int64_t row = 0; row < STEPS * ROWS; row++) y[row] += mat_dot(N, H + row * N, truth);
  for (int64_t step = 0; step < STEPS; step++) {
    subject_predict(&s);
    subject_observe(&s, H + step * ROWS * N, y + step * ROWS);
  }
  const double *const precision =
      mat_sum(t, N * N, 1, mat_gram(t, STEPS * ROWS, N, H), 1, mat_identity(t, N, s.spec.precision));
  const double *const P = mat_inverse(t, N, precision);
  const double *const score = mat_product(t, true, false, N, 1, STEPS * ROWS, H, y);
  found[MEAN].number = mat_distance(N, s.mean, mat_product(t, false, false, N, 1, N, P, score));
  found[COVARIANCE].number = mat_distance(N * N, subject_covariance(&s), P);
  subject_close(&s);
  return KWM_OK;
}

static kwm_status sequence(struct theory *t, struct kwm_finding *found) {
  const double *const H = theory_floats(t, ROWS * N, 1), *const y = theory_normals(t, ROWS);
  struct subject together = {0}, single = {0};
  kwm_status status = open(t, &together, KWM_FORM_INNOVATION, ROWS, 0);
  if (status == KWM_OK) status = open(t, &single, KWM_FORM_INNOVATION, 1, 0);
  if (status == KWM_OK) {
    subject_observe(&together, H, y);
    for (int64_t row = 0; row < ROWS; row++) subject_observe(&single, H + row * N, y + row);
    const double *const P = subject_covariance(&together);
    found[SEQUENCE].number =
        mat_worse(mat_distance(N, single.mean, together.mean), mat_distance(N * N, subject_covariance(&single), P));
  }
  subject_close(&together), subject_close(&single);
  return status;
}

static kwm_status forms(struct theory *t, struct kwm_finding *found) {
  const double e[ROWS] = {0};
  struct subject one = {0}, other = {0};
  kwm_status status = open(t, &one, KWM_FORM_INNOVATION, ROWS, 0.97);
  if (status == KWM_OK) status = open(t, &other, KWM_FORM_INFORMATION, ROWS, 0.97);
  for (int step = 0; step < 20 && status == KWM_OK; step++) {
    const double *const H = theory_coarse(t, ROWS * N);
    subject_predict(&one), subject_predict(&other);
    subject_measure(&one, H, e), subject_measure(&other, H, e);
  }
  if (status == KWM_OK) found[FORMS].number = mat_distance(N * N, subject_covariance(&one), subject_covariance(&other));
  subject_close(&one), subject_close(&other);
  return status;
}

static kwm_status forget(struct theory *t, struct kwm_finding *found) {
  const double lambda = 0.9, e[ROWS] = {0}, *const H = theory_coarse(t, ROWS * N);
  struct subject s = {0};
  KWM_TRY(open(t, &s, KWM_FORM_INFORMATION, ROWS, lambda));
  for (int step = 0; step < 400; step++) {
    subject_predict(&s);
    subject_measure(&s, H, e);
  }
  const double *const wanted =
      mat_sum(t, N * N, 1 / (1 - lambda), mat_gram(t, ROWS, N, H), 1, mat_identity(t, N, s.spec.precision));
  found[FORGETTING].number = mat_distance(N * N, mat_inverse(t, N, subject_covariance(&s)), wanted);
  subject_close(&s);
  return KWM_OK;
}

/* Truth drawn from the prior: the error's covariance is then P itself. */
static kwm_status calibrated_run(struct theory *t, double *sum) {
  struct subject s = {0};
  KWM_TRY(open(t, &s, KWM_FORM_INNOVATION, ROWS, 0));
  const double *const truth = mat_sum(t, N, 1 / sqrt(s.spec.precision), theory_normals(t, N), 0, s.mean);
  for (int step = 0; step < 6; step++) {
    const double *const H = theory_floats(t, ROWS * N, 1);
    const double *const clean = mat_product(t, false, false, ROWS, 1, N, H, truth);
    subject_observe(&s, H, mat_sum(t, ROWS, 1, clean, 1, theory_normals(t, ROWS)));
  }
  const double *const error = mat_sum(t, N, 1, s.mean, -1, truth);
  *sum += mat_form(t, N, mat_inverse(t, N, subject_covariance(&s)), error);
  subject_close(&s);
  return KWM_OK;
}

static kwm_status compute(struct theory *t, struct kwm_finding *found) {
  enum { RUNS = 400 };
  double sum = 0;
  KWM_TRY(batch(t, found));
  KWM_TRY(sequence(t, found));
  KWM_TRY(forms(t, found));
  KWM_TRY(forget(t, found));
  for (int run = 0; run < RUNS; run++) {
    const int64_t mark = t->used;
    KWM_TRY(calibrated_run(t, &sum));
    t->used = mark;
  }
  found[NEES].number = sum / RUNS;
  return KWM_OK;
}

const struct theory_group theory_optimal = {CLAIMS, claims, compute, false, false};
