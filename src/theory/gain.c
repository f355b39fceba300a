/* Theorem 1: the factor between the Kalman step and the natural-gradient step. For H of full column rank K H is that
   factor times I when K = factor F⁻¹Hᵀ, so the factors are K H's eigenvalues. The filter comes to each prior by itself:
   from a vague one by equal observations, (N F + δI)⁻¹, and by forgetting. Evidence is exact: H in multiples of 1/8. */
#include <math.h>

#include "matrix.h"
#include "subject.h"

enum { N = 5, ROWS = 8, LOW = 3 };
static const double VAGUE = 1e-9;

enum { HALF, PAPER, SCALED, MULTIPLE, COUNTED, DEFICIENT, DAMPED, DAMPED_RANGE, PROJECTOR, CLAIMS };
static const struct kwm_claim claims[CLAIMS] = {
    [HALF] = {"thm1-half", "(18)-(22)", KWM_CLAIM_TRUE, KWM_WITHIN, 0.5, 1e-7,
              "P = 1/F: the step is 1/2 natural gradient", "eigenvalue of KH farthest from 1/2"},
    [PAPER] = {"thm1-paper", "(20)-(22)", KWM_CLAIM_PAPER, KWM_WITHIN, 0.5, 1e-7,
               "false as stated: P = 1/F gives factor 1", "distance of the factor from 1"},
    [SCALED] = {"thm1-noise", "(20)", KWM_CLAIM_TRUE, KWM_WITHIN, 0.5, 1e-7, "still 1/2 for R times 1e-6 .. 1e6",
                "factor farthest from 1/2"},
    [MULTIPLE] = {"thm1-multiple", "(18)-(22)", KWM_CLAIM_TRUE, KWM_AT_MOST, 1e-7, 0, "P = c/F: factor c/(1+c)",
                  "largest deviation, c = 2, 10, 100"},
    [COUNTED] = {"thm1-counted", "(18)-(22)", KWM_CLAIM_TRUE, KWM_AT_MOST, 1e-7, 0, "P = 1/(NF): factor 1/(N+1)",
                 "largest deviation, N = 1 .. 16"},
    [DEFICIENT] = {"thm1-deficient", "(18)-(22)", KWM_CLAIM_TRUE, KWM_AT_MOST, 1e-5, 0,
                   "F of rank 3 of 5: 1/2 on its range, 0 elsewhere", "largest deviation of a factor"},
    [DAMPED] = {"thm1-damped", "(18)-(22)", KWM_CLAIM_TRUE, KWM_AT_MOST, 1e-12, 0, "P = 1/(F+dI): K = (2F+dI)^-1 H'",
                "relative distance"},
    [DAMPED_RANGE] = {"thm1-damped-range", "(18)-(22)", KWM_CLAIM_TRUE, KWM_AT_MOST, 1e-10, 0,
                      "damped: factors (f+d)/(2f+d), in [1/2, 1)", "largest deviation of a factor"},
    [PROJECTOR] = {"thm1-small-R", "(18),(19)", KWM_CLAIM_PAPER, KWM_WITHIN, 1, 1e-6,
                   "false as stated: HPH' >> R cannot be under (18)", "largest eigenvalue of HPH'/R"},
};

/* How the filter comes to its prior: `times` observations of H, then forgetting. */
struct way {
  double precision;
  int64_t times;
  double forgetting;
};

static kwm_status come(struct theory *t, struct subject *s, const struct way *way, const double *H) {
  const struct subject_spec spec = {.structure = "block",
                                    .form = KWM_FORM_INFORMATION,
                                    .n = N,
                                    .rows = ROWS,
                                    .precision = way->precision,
                                    .forgetting = way->forgetting};
  const double e[ROWS] = {0};
  KWM_TRY(subject_open(s, t, &spec));
  for (int64_t k = 0; k < way->times; k++) subject_measure(s, H, e);
  if (way->forgetting > 0) subject_predict(s);
  return KWM_OK;
}

/* The gain K (N, ROWS) at the end of the way. */
static kwm_status gain_after(struct theory *t, const struct way *way, const double *H, double **K) {
  struct subject s = {0};
  const kwm_status status = come(t, &s, way, H);
  if (status == KWM_OK) *K = subject_gain(&s, H);
  subject_close(&s);
  return status;
}

/* *worst <- the eigenvalue of K H farthest from `expected`, if it is farther than what *worst holds. */
static kwm_status factor_after(struct theory *t, const struct way *way, const double *H, double expected,
                               double *worst) {
  double *K = NULL;
  const int64_t mark = t->used;
  KWM_TRY(gain_after(t, way, H, &K));
  const double *const poles = mat_poles(t, N, mat_product(t, false, false, N, N, ROWS, K, H));
  for (int k = 0; k < N; k++) {
    const double factor = poles[k] + fabs(poles[N + k]);
    if (!(fabs(factor - expected) <= fabs(*worst - expected))) *worst = factor;
  }
  t->used = mark;
  return KWM_OK;
}

static kwm_status equal(struct theory *t, const double *H, struct kwm_finding *found) {
  found[HALF].number = found[SCALED].number = 0.5;
  KWM_TRY(factor_after(t, &(struct way){VAGUE, 1, 0}, H, 0.5, &found[HALF].number));
  found[PAPER].number = fabs(found[HALF].number - 1);
  for (int power = -10; power <= 10; power += 5) {
    const int64_t mark = t->used;
    const double *const scaled = mat_sum(t, ROWS * N, ldexp(1, power), H, 0, H);
    KWM_TRY(factor_after(t, &(struct way){ldexp(VAGUE, 2 * power), 1, 0}, scaled, 0.5, &found[SCALED].number));
    t->used = mark;
  }
  return KWM_OK;
}

static kwm_status deviate(struct theory *t, const struct way *way, const double *H, double expected, double *largest) {
  double worst = expected;
  KWM_TRY(factor_after(t, way, H, expected, &worst));
  if (!(fabs(worst - expected) <= *largest)) *largest = fabs(worst - expected);
  return KWM_OK;
}

static kwm_status unequal(struct theory *t, const double *H, struct kwm_finding *found) {
  const double multiples[] = {2, 10, 100};
  found[MULTIPLE].number = found[COUNTED].number = 0;
  for (int k = 0; k < 3; k++) {
    const double c = multiples[k];
    KWM_TRY(deviate(t, &(struct way){VAGUE, 1, 1 / c}, H, c / (1 + c), &found[MULTIPLE].number));
  }
  for (int64_t times = 1; times <= 16; times *= 2)
    KWM_TRY(deviate(t, &(struct way){VAGUE, times, 0}, H, 1 / (double)(times + 1), &found[COUNTED].number));
  return KWM_OK;
}

/* H = [H_3 0]: the directions without information are the last two. */
static kwm_status deficient(struct theory *t, const double *H, struct kwm_finding *found) {
  double *const thin = mat_copy(t, ROWS * N, H), *K = NULL, largest = 0;
  for (int64_t k = 0; k < ROWS * N; k++)
    if (k % N >= LOW) thin[k] = 0;
  KWM_TRY(gain_after(t, &(struct way){1e-7, 1, 0}, thin, &K));
  const double *const KH = mat_product(t, false, false, N, N, ROWS, K, thin);
  for (int64_t k = 0; k < N * N; k++) {
    const double wanted = k % (N + 1) == 0 && k % N < LOW ? 0.5 : 0;
    largest = mat_worse(largest, fabs(KH[k] - wanted));
  }
  found[DEFICIENT].number = largest;
  return KWM_OK;
}

/* In F's eigenbasis K H is diagonal, and its ratio to that of the damped step, f/(f+d), is the factor. */
static kwm_status damped(struct theory *t, const double *H, struct kwm_finding *found) {
  const double d = 3;
  double *K = NULL, *const V = theory_new(t, N * N), largest = 0;
  KWM_TRY(gain_after(t, &(struct way){d, 1, 0}, H, &K));
  const double *const F = mat_gram(t, ROWS, N, H), *const f = mat_eigenvalues(t, N, F, V);
  const double *const M = mat_inverse(t, N, mat_sum(t, N * N, 2, F, 1, mat_identity(t, N, d)));
  found[DAMPED].number = mat_distance(N * ROWS, K, mat_product(t, false, true, N, ROWS, N, M, H));
  const double *const turned = mat_product(t, true, false, N, N, N, V, mat_product(t, false, false, N, N, ROWS, K, H));
  const double *const D = mat_product(t, false, false, N, N, N, turned, V);
  for (int k = 0; k < N; k++) {
    const double ratio = D[k * N + k] * (f[k] + d) / f[k], wanted = (f[k] + d) / (2 * f[k] + d);
    largest = mat_worse(largest, ratio < 1 ? fabs(ratio - wanted) : INFINITY);
  }
  found[DAMPED_RANGE].number = largest;
  return KWM_OK;
}

static kwm_status projector(struct theory *t, const double *H, struct kwm_finding *found) {
  struct subject s = {0};
  const kwm_status status = come(t, &s, &(struct way){VAGUE, 1, 0}, H);
  if (status == KWM_OK) {
    const double *const HPH = mat_between(t, ROWS, N, H, subject_covariance(&s));
    found[PROJECTOR].number = mat_eigenvalues(t, ROWS, HPH, NULL)[ROWS - 1];
  }
  subject_close(&s);
  return status;
}

static kwm_status compute(struct theory *t, struct kwm_finding *found) {
  const double *const H = theory_coarse(t, ROWS * N);
  KWM_TRY(equal(t, H, found));
  KWM_TRY(unequal(t, H, found));
  KWM_TRY(deficient(t, H, found));
  KWM_TRY(damped(t, H, found));
  return projector(t, H, found);
}

const struct theory_group theory_gain = {CLAIMS, claims, compute, false, false};
