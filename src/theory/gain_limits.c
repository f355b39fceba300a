/* Theorem 1 for any prior: K = P⁺HᵀR⁻¹ always; limits of large and small noise; a whole run as natural gradient with
   rate 1/(t+1) and running-average Fisher matrix. */
#include <math.h>

#include "matrix.h"
#include "subject.h"

enum { N = 7, ROWS = 3, STEPS = 40 };

enum { POSTERIOR, METRIC, LARGE, SMALL, RUN, CLAIMS };
static const struct kwm_claim claims[CLAIMS] = {
    [POSTERIOR] = {"thm1-posterior", "(17)", KWM_CLAIM_TRUE, KWM_AT_MOST, 1e-11, 0, "any P: K = P+ H'/R",
                   "relative distance"},
    [METRIC] = {"thm1-exact", "(21),(22)", KWM_CLAIM_TRUE, KWM_AT_MOST, 1e-11, 0,
                "any P: unit natural step in the metric 1/P + F", "relative distance of the steps"},
    [LARGE] = {"thm1-large-R", "(20)", KWM_CLAIM_TRUE, KWM_AT_MOST, 1e-6, 0, "R -> infinity at fixed P: K -> P H'/R",
               "relative distance, R = 3e8"},
    [SMALL] = {"thm1-zero-R", "(20)", KWM_CLAIM_TRUE, KWM_AT_MOST, 1e-7, 0, "R -> 0, m < n: K interpolates, HK -> I",
               "distance of HK from I, R = 6e-11"},
    [RUN] = {"thm1-run", "(8),(16)", KWM_CLAIM_TRUE, KWM_AT_MOST, 1e-10, 0,
             "Q = 0: a run is natural gradient, rate 1/(t+1)", "largest relative distance of means, 40 steps"},
};

static struct subject_spec spec_of(double noise) {
  return (struct subject_spec){
      .structure = "block", .form = KWM_FORM_INNOVATION, .n = N, .rows = ROWS, .precision = 0.5, .noise = noise};
}

/* A prior that the filter earned: dense, no multiple of anything. */
static void earn(struct subject *s) {
  for (int k = 0; k < 4; k++) {
    subject_predict(s);
    subject_measure(s, theory_floats(s->t, ROWS * N, 1), theory_normals(s->t, ROWS));
  }
}

static void limits(struct theory *t, struct subject *s, const double *H, const double *P, struct kwm_finding *found) {
  const double *const weak = mat_sum(t, ROWS * N, ldexp(1, -14), H, 0, H);
  const double *const strong = mat_sum(t, ROWS * N, ldexp(1, 17), H, 0, H);
  const double *const PH = mat_product(t, false, true, N, ROWS, N, P, weak);
  found[LARGE].number = mat_distance(N * ROWS, subject_gain(s, weak), PH);
  const double *const HK = mat_product(t, false, false, ROWS, ROWS, N, strong, subject_gain(s, strong));
  found[SMALL].number = mat_distance(ROWS * ROWS, HK, mat_identity(t, ROWS, 1));
}

static void one_step(struct theory *t, struct subject *s, struct kwm_finding *found) {
  earn(s);
  const double *const H = theory_floats(t, ROWS * N, 1), *const e = theory_normals(t, ROWS);
  const double *const P = subject_covariance(s), *const K = subject_gain(s, H);
  limits(t, s, H, P, found);
  subject_measure(s, H, e);
  const double *const after = subject_covariance(s);
  found[POSTERIOR].number = mat_distance(N * ROWS, K, mat_product(t, false, true, N, ROWS, N, after, H));
  const double *const metric = mat_sum(t, N * N, 1, mat_inverse(t, N, P), 1, mat_gram(t, ROWS, N, H));
  const double *const score = mat_product(t, true, false, N, 1, ROWS, H, e);
  const double *const step = mat_product(t, false, false, N, 1, N, mat_inverse(t, N, metric), score);
  found[METRIC].number = mat_distance(N, s->delta, step);
}

/* mean += F̄⁻¹ Hᵀ(y - H mean) / (t+1), F̄ = Λ/(t+1), Λ += HᵀH */
static void natural_step(struct theory *t, int64_t step, const double *H, const double *y, double *precision,
                         double *mean) {
  const int64_t mark = t->used;
  const double *const F = mat_gram(t, ROWS, N, H);
  for (int k = 0; k < N * N; k++) precision[k] += F[k];
  const double rate = 1 / (double)(step + 1);
  const double *const inverse = mat_inverse(t, N, mat_sum(t, N * N, rate, precision, 0, precision));
  const double *const e = mat_sum(t, ROWS, 1, y, -1, mat_product(t, false, false, ROWS, 1, N, H, mean));
  const double *const score = mat_product(t, true, false, N, 1, ROWS, H, e);
  const double *const natural = mat_product(t, false, false, N, 1, N, inverse, score);
  for (int k = 0; k < N; k++) mean[k] += rate * natural[k];
  t->used = mark;
}

static void run(struct theory *t, struct subject *s, struct kwm_finding *found) {
  double *const precision = mat_identity(t, N, s->spec.precision), *const mean = theory_new(t, N), worst = 0;
  for (int64_t step = 0; step < STEPS; step++) {
    const double *const H = theory_floats(t, ROWS * N, 1), *const y = theory_normals(t, ROWS);
    subject_predict(s);
    subject_observe(s, H, y);
    natural_step(t, step, H, y, precision, mean);
    worst = mat_worse(worst, mat_distance(N, s->mean, mean));
  }
  found[RUN].number = worst;
}

static kwm_status compute(struct theory *t, struct kwm_finding *found) {
  const struct subject_spec noisy = spec_of(0.05), still = spec_of(0);
  struct subject s = {0};
  kwm_status status = subject_open(&s, t, &noisy);
  if (status == KWM_OK) one_step(t, &s, found);
  subject_close(&s);
  KWM_TRY(status);
  status = subject_open(&s, t, &still);
  if (status == KWM_OK) run(t, &s, found);
  subject_close(&s);
  return status;
}

const struct theory_group theory_gain_limits = {CLAIMS, claims, compute, false, false};
