/* The Riccati recursion and its steady state: one step of the filter against (23), (35), (71); the filter run to rest
   against the algebraic equation (36), (72), solved by doubling; and what has no steady state. */
#include <math.h>

#include "matrix.h"
#include "subject.h"

enum { N = 4, ROWS = 12, FEW = 2 };
static const double NOISE = 0.03, PRECISION = 0.8;

enum {
  PREDICTED,
  SHORT,
  JOSEPH,
  OTHER,
  REST,
  RESIDUAL,
  ITERATE,
  PLAIN,
  SCALAR,
  WIND_UP,
  UNDETECTABLE,
  UNEXCITED,
  CLAIMS
};
static const struct kwm_claim claims[CLAIMS] = {
    [PREDICTED] = {"riccati-step", "(23)", KWM_CLAIM_TRUE, KWM_AT_MOST, 1e-11, 0, "P' = P - KHP + Q",
                   "relative distance, the filter's K and P'"},
    [SHORT] = {"riccati-short", "(35)", KWM_CLAIM_TRUE, KWM_AT_MOST, 1e-11, 0, "P+ = (I - KH) P-", "relative distance"},
    [JOSEPH] = {"riccati-joseph", "(71)", KWM_CLAIM_TRUE, KWM_AT_MOST, 1e-11, 0,
                "error covariance (I-KH)P(I-KH)' + KRK' + Q is the filter's P", "relative distance"},
    [OTHER] = {"joseph-other-K", "(71)", KWM_CLAIM_TRUE, KWM_AT_LEAST, -1e-13, 0,
               "any other K does worse: error covariance >= P+", "smallest eigenvalue of the excess over |P|"},
    [REST] = {"riccati-rest", "(36),(72)", KWM_CLAIM_TRUE, KWM_AT_MOST, 1e-10, 0,
              "rank H = n, Q > 0: the filter comes to rest at the DARE's P", "relative distance after 300 steps"},
    [RESIDUAL] = {"dare-residual", "(72)", KWM_CLAIM_TRUE, KWM_AT_MOST, 1e-12, 0,
                  "doubling solves the DARE, unstable A", "relative residual"},
    [ITERATE] = {"dare-doubling", "(72)", KWM_CLAIM_TRUE, KWM_AT_MOST, 1e-11, 0,
                 "k doublings are 2^k steps of the recursion", "relative distance, k = 1 .. 4"},
    [PLAIN] = {"dare-iteration", "(72)", KWM_CLAIM_TRUE, KWM_AT_MOST, 1e-11, 0, "the recursion ends at the DARE's P",
               "relative distance after 2000 steps"},
    [SCALAR] = {"dare-scalar", "(72)", KWM_CLAIM_TRUE, KWM_AT_MOST, 1e-10, 0, "scalar closed form, qf = 1e-6, 0.3, 50",
                "largest relative distance"},
    [WIND_UP] = {"riccati-wind-up", "(36)", KWM_CLAIM_PAPER, KWM_WITHIN, 1, 1e-6,
                 "false as stated: rank H < n has no steady state", "growth of P's largest eigenvalue, Q a step"},
    [UNDETECTABLE] = {"dare-undetected", "(36)", KWM_CLAIM_PAPER, KWM_WITHIN, 0.5, 0.01,
                      "false as stated: its DARE has no solution (not detectable)",
                      "relative change of P in the last doubling"},
    [UNEXCITED] = {"dare-no-Q", "(72)", KWM_CLAIM_PAPER, KWM_WITHIN, 0.5, 0.01,
                   "false as stated: Q = 0 has no P > 0 at rest, P ~ 1/t", "trace of P after 800 steps, after 400"},
};

static struct subject_spec spec_of(int64_t rows, double noise) {
  return (struct subject_spec){
      .structure = "block", .form = KWM_FORM_INNOVATION, .n = N, .rows = rows, .precision = PRECISION, .noise = noise};
}

/* (I - KH) P (I - KH)ᵀ + K Kᵀ */
static double *joseph(struct theory *t, int64_t rows, const double *K, const double *H, const double *P) {
  const double *const A = mat_transition(t, rows, N, K, H);
  return mat_sum(t, N * N, 1, mat_between(t, N, N, A, P), 1, mat_product(t, false, true, N, N, rows, K, K));
}

/* One step after a few: P, K from it, P⁺, and P' after the time update. */
static void one_step(struct theory *t, struct subject *s, struct kwm_finding *found) {
  const double e[FEW] = {0}, *const Q = mat_identity(t, N, NOISE);
  for (int k = 0; k < 3; k++) {
    subject_measure(s, theory_floats(t, FEW * N, 1), e);
    subject_predict(s);
  }
  const double *const H = theory_floats(t, FEW * N, 1);
  const double *const P = subject_covariance(s), *const K = subject_gain(s, H);
  subject_measure(s, H, e);
  const double *const after = subject_covariance(s);
  subject_predict(s);
  const double *const next = subject_covariance(s);
  const double *const KHP = mat_product(t, false, false, N, N, N, mat_product(t, false, false, N, N, FEW, K, H), P);
  const double *const left = mat_sum(t, N * N, 1, P, -1, KHP);
  found[PREDICTED].number = mat_distance(N * N, next, mat_sum(t, N * N, 1, left, 1, Q));
  found[SHORT].number = mat_distance(N * N, after, left);
  found[JOSEPH].number = mat_distance(N * N, next, mat_sum(t, N * N, 1, joseph(t, FEW, K, H, P), 1, Q));
  const double *const other = mat_sum(t, N * FEW, 1, K, 0.3, theory_normals(t, N * FEW));
  const double *const excess = mat_sum(t, N * N, 1, joseph(t, FEW, other, H, P), -1, after);
  found[OTHER].number = mat_eigenvalues(t, N, excess, NULL)[0] / mat_norm(N * N, P);
}

static kwm_status with_subject(struct theory *t, int64_t rows, double noise, struct kwm_finding *found,
                               void (*work)(struct theory *, struct subject *, struct kwm_finding *)) {
  struct subject s = {0};
  const struct subject_spec spec = spec_of(rows, noise);
  const kwm_status status = subject_open(&s, t, &spec);
  if (status == KWM_OK) work(t, &s, found);
  subject_close(&s);
  return status;
}

/* Steps of measurement with one H, then time update. */
static void repeat(struct subject *s, const double *H, int64_t steps) {
  const double e[ROWS] = {0};
  for (int64_t k = 0; k < steps; k++) {
    subject_measure(s, H, e);
    subject_predict(s);
  }
}

static void rest(struct theory *t, struct subject *s, struct kwm_finding *found) {
  const double *const H = theory_floats(t, ROWS * N, 0.5);
  struct kwm_riccati_report report;
  double *const X = theory_new(t, N * N);
  repeat(s, H, 300);
  if (kwm_riccati_doubling(N, ROWS, mat_identity(t, N, 1), H, mat_identity(t, N, NOISE), mat_identity(t, ROWS, 1), 30,
                           X, &report) == KWM_OK &&
      report.verdict == KWM_RICCATI_CONVERGED)
    found[REST].number = mat_distance(N * N, subject_covariance(s), X);
}

/* The direction that H does not see gains Q a step, in the filter and in the equation. */
static void wind_up(struct theory *t, struct subject *s, struct kwm_finding *found) {
  const double *const H = theory_floats(t, FEW * N, 1);
  struct kwm_riccati_report report;
  double largest[2];
  for (int k = 0; k < 2; k++) {
    repeat(s, H, 200);
    largest[k] = mat_eigenvalues(t, N, subject_covariance(s), NULL)[N - 1];
  }
  found[WIND_UP].number = (largest[1] - largest[0]) / (200 * NOISE);
  if (kwm_riccati_doubling(N, FEW, mat_identity(t, N, 1), H, mat_identity(t, N, NOISE), mat_identity(t, FEW, 1), 30,
                           theory_new(t, N * N), &report) == KWM_OK &&
      report.verdict == KWM_RICCATI_UNDETECTABLE)
    found[UNDETECTABLE].number = report.change;
}

static void no_noise(struct theory *t, struct subject *s, struct kwm_finding *found) {
  const double *const H = theory_floats(t, ROWS * N, 1);
  repeat(s, H, 400);
  const double before = mat_trace(N, subject_covariance(s));
  repeat(s, H, 400);
  found[UNEXCITED].number = mat_trace(N, subject_covariance(s)) / before;
}

/* P <- A P (I + G P)⁻¹ Aᵀ + Q, `steps` times. */
static void recurse(struct theory *t, int64_t n, const double *A, const double *G, const double *Q, int64_t steps,
                    double *P) {
  for (int64_t k = 0; k < steps; k++) {
    const int64_t mark = t->used;
    double *const M = mat_product(t, false, false, n, n, n, G, P);
    for (int64_t i = 0; i < n; i++) M[i * n + i] += 1;
    const double *const after = mat_product(t, false, false, n, n, n, P, mat_inverse(t, n, M));
    const double *const next = mat_sum(t, n * n, 1, mat_between(t, n, n, A, after), 1, Q);
    for (int64_t i = 0; i < n * n; i++) P[i] = (next[i] + next[i % n * n + i / n]) / 2;
    t->used = mark;
  }
}

static kwm_status equation(struct theory *t, struct kwm_finding *found) {
  enum { STATES = 6, OUTPUTS = 2 };
  struct kwm_riccati_report report;
  double *const A = theory_normals(t, STATES * STATES), *const C = theory_normals(t, OUTPUTS * STATES);
  const double *const Q = mat_gram(t, STATES, STATES, theory_normals(t, STATES * STATES));
  double *const R = mat_identity(t, OUTPUTS, 0.3), *const X = theory_new(t, STATES * STATES), worst = 0;
  const double *const G = mat_sum(t, STATES * STATES, 1 / 0.3, mat_gram(t, OUTPUTS, STATES, C), 0, C);
  const double scale = 1.1 / mat_radius(t, STATES, A);
  double *const P = theory_new(t, STATES * STATES);
  for (int k = 0; k < STATES * STATES; k++) A[k] *= scale;
  for (int k = 1, done = 0; k <= 4; k++) {
    recurse(t, STATES, A, G, Q, (1 << k) - done, P);
    done = 1 << k;
    KWM_TRY(kwm_riccati_doubling(STATES, OUTPUTS, A, C, Q, R, k, X, &report));
    worst = mat_worse(worst, mat_distance(STATES * STATES, X, P));
  }
  found[ITERATE].number = worst;
  KWM_TRY(kwm_riccati_doubling(STATES, OUTPUTS, A, C, Q, R, 30, X, &report));
  found[RESIDUAL].number = report.verdict == KWM_RICCATI_CONVERGED ? report.residual : NAN;
  recurse(t, STATES, A, G, Q, 2000, P);
  found[PLAIN].number = mat_distance(STATES * STATES, P, X);
  return KWM_OK;
}

/* f p² + f q p - q = 0 for p⁺ = p - q */
static kwm_status scalar(struct kwm_finding *found) {
  const double one = 1, f = 2, products[] = {1e-6, 0.3, 50};
  double worst = 0;
  for (int k = 0; k < 3; k++) {
    const double q = products[k] / f, R = 1 / f, after = 2 / (f * (1 + sqrt(1 + 4 / (q * f))));
    struct kwm_riccati_report report;
    double X = NAN;
    KWM_TRY(kwm_riccati_doubling(1, 1, &one, &one, &q, &R, 30, &X, &report));
    worst = mat_worse(worst, fabs(X / (after + q) - 1));
  }
  found[SCALAR].number = worst;
  return KWM_OK;
}

static kwm_status compute(struct theory *t, struct kwm_finding *found) {
  KWM_TRY(with_subject(t, FEW, NOISE, found, one_step));
  KWM_TRY(with_subject(t, ROWS, NOISE, found, rest));
  KWM_TRY(with_subject(t, FEW, NOISE, found, wind_up));
  KWM_TRY(with_subject(t, ROWS, 0, found, no_noise));
  KWM_TRY(equation(t, found));
  return scalar(found);
}

const struct theory_group theory_steady = {CLAIMS, claims, compute, false, false};
