/* Theorem 3, time-varying H: constants of persistent excitation measured on a run, contraction over windows in the
   norm of 1/P against the bound that follows from them, and cases that must not contract. */
#include <math.h>

#include "matrix.h"
#include "subject.h"

enum { N = 3, STEPS = 240, WINDOW = 6 };
static const double NOISE = 0.05;

enum { A_MEASURED, CONTRACTS, EXPONENTIAL, ISS, UNEXCITED, BOUNDED_P, CLAIMS };
static const struct kwm_claim claims[CLAIMS] = {
    [A_MEASURED] = {"thm3-excitation", "(87)", KWM_CLAIM_TRUE, KWM_AT_LEAST, NAN, 0,
                    "every window informs all directions", "measured a, against 1e-6 of the measured b"},
    [CONTRACTS] = {"thm3-window", "(86),(89)", KWM_CLAIM_TRUE, KWM_AT_MOST, NAN, 0,
                   "V over a window <= 1-g, g = 2 a p1/((1+p2 b) w(w+1))", "worst ratio of 234 windows"},
    [EXPONENTIAL] = {"thm3-exponential", "(89)", KWM_CLAIM_TRUE, KWM_AT_MOST, 0.9, 0,
                     "Q > 0: windows contract at any time", "worst ratio of the last 60 windows"},
    [ISS] = {"thm3-noise", "(85)", KWM_CLAIM_TRUE, KWM_WITHIN, N, 0.3, "right Q, R: mean of V is n (NEES)",
             "mean of V over 8000 steps"},
    [UNEXCITED] = {"thm3-unexcited", "(87)", KWM_CLAIM_TRUE, KWM_WITHIN, 1, 1e-12,
                   "no excitation: the unseen direction does not contract", "length of its error after 240 steps"},
    [BOUNDED_P] = {"thm3-paper", "(81),(86)", KWM_CLAIM_PAPER, KWM_WITHIN, 13, 1,
                   "false as stated: bounded P suffices (1..100 here)", "radius of a period of 2, scalar H"},
};

/* What a run leaves: P⁻, its inverse, H and I - KH of every step. */
struct run {
  double *P, *L, *H, *A;
};

static kwm_status travel(struct theory *t, bool excited, struct run *run) {
  const struct subject_spec spec = {
      .structure = "block", .form = KWM_FORM_INNOVATION, .n = N, .rows = 1, .precision = 1, .noise = NOISE};
  struct subject s = {0};
  const double e = 0;
  *run = (struct run){theory_new(t, (STEPS + 1) * N * N), theory_new(t, (STEPS + 1) * N * N),
                      theory_floats(t, (STEPS + 1) * N, 1), theory_new(t, (STEPS + 1) * N * N)};
  KWM_TRY(subject_open(&s, t, &spec));
  for (int k = 0; k <= STEPS; k++) {
    const int64_t mark = t->used;
    double *const H = run->H + k * N;
    if (!excited) H[N - 1] = 0;
    const double *const P = subject_covariance(&s), *const L = mat_inverse(t, N, P);
    const double *const A = mat_transition(t, 1, N, subject_gain(&s, H), H);
    for (int i = 0; i < N * N; i++)
      run->P[k * N * N + i] = P[i], run->L[k * N * N + i] = L[i], run->A[k * N * N + i] = A[i];
    subject_measure(&s, H, &e);
    subject_predict(&s);
    t->used = mark;
  }
  subject_close(&s);
  return KWM_OK;
}

/* Newest on the left. */
static double *product(struct theory *t, const struct run *run, int64_t first, int64_t steps) {
  double *phi = mat_identity(t, N, 1);
  for (int64_t k = first; k < first + steps; k++) phi = mat_product(t, false, false, N, N, N, run->A + k * N * N, phi);
  return phi;
}

/* Largest V after the window over V before: eigenvalue of C'Phi'L'Phi C, P = CC'. */
static double ratio(struct theory *t, const struct run *run, int64_t first) {
  const int64_t mark = t->used;
  const double *const C = mat_cholesky(t, N, run->P + first * N * N);
  const double *const phi = mat_product(t, false, false, N, N, N, product(t, run, first, WINDOW), C);
  const double *const after = run->L + (first + WINDOW) * N * N;
  const double *const V = mat_between(t, N, N, mat_transpose(t, N, N, phi), after);
  const double largest = mat_eigenvalues(t, N, V, NULL)[N - 1];
  t->used = mark;
  return largest;
}

/* a, b of (87) and p1, p2 of all P⁻. */
struct constants {
  double a, b, p1, p2;
};

static struct constants measure(struct theory *t, const struct run *run) {
  struct constants c = {INFINITY, 0, INFINITY, 0};
  for (int64_t k = 0; k + WINDOW <= STEPS; k++) {
    const int64_t mark = t->used;
    const double *const f = mat_eigenvalues(t, N, mat_gram(t, WINDOW, N, run->H + k * N), NULL);
    c.a = fmin(c.a, f[0]), c.b = fmax(c.b, f[N - 1]);
    t->used = mark;
  }
  for (int64_t k = 0; k <= STEPS; k++) {
    const int64_t mark = t->used;
    const double *const p = mat_eigenvalues(t, N, run->P + k * N * N, NULL);
    c.p1 = fmin(c.p1, p[0]), c.p2 = fmax(c.p2, p[N - 1]);
    t->used = mark;
  }
  return c;
}

static void windows(struct theory *t, const struct run *run, struct kwm_finding *found) {
  const struct constants c = measure(t, run);
  double worst = 0, late = 0;
  for (int64_t k = 0; k + WINDOW <= STEPS; k++) {
    const double value = ratio(t, run, k);
    worst = mat_worse(worst, value);
    if (k + WINDOW > STEPS - 60) late = mat_worse(late, value);
  }
  found[A_MEASURED].number = c.a;
  found[A_MEASURED].bound = 1e-6 * c.b;
  found[CONTRACTS].number = worst;
  found[CONTRACTS].bound = 1 - 2 * c.a * c.p1 / ((1 + c.p2 * c.b) * WINDOW * (WINDOW + 1));
  found[EXPONENTIAL].number = late;
}

static double unexcited(struct theory *t, const struct run *run) {
  const double *const phi = product(t, run, 0, STEPS);
  double sum = 0;
  for (int k = 0; k < N; k++) sum += phi[k * N + N - 1] * phi[k * N + N - 1];
  return sqrt(sum);
}

/* Mean of V⁻ = εᵀP⁻¹ε with noises as the filter believes. */
static kwm_status believed(struct theory *t, double *mean) {
  enum { LONG = 8000, BURN = 200 };
  const struct subject_spec spec = {
      .structure = "block", .form = KWM_FORM_INNOVATION, .n = N, .rows = 1, .precision = 1, .noise = NOISE};
  struct subject s = {0};
  double *const truth = theory_normals(t, N), sum = 0;
  KWM_TRY(subject_open(&s, t, &spec));
  for (int step = 0; step < LONG; step++) {
    const int64_t mark = t->used;
    const double *const error = mat_sum(t, N, 1, s.mean, -1, truth);
    if (step >= BURN) sum += mat_form(t, N, mat_inverse(t, N, subject_covariance(&s)), error);
    const double *const H = theory_floats(t, N, 1), y = mat_dot(N, H, truth) + theory_normal(t);
    subject_observe(&s, H, &y);
    subject_predict(&s);
    for (int k = 0; k < N; k++) truth[k] += sqrt(NOISE) * theory_normal(t);
    t->used = mark;
  }
  *mean = sum / (LONG - BURN);
  subject_close(&s);
  return KWM_OK;
}

/* I - KH for P = diag(1, 100) turned by `turn` degrees and a unit H at `at` degrees, R = 1. */
static double *turned(struct theory *t, double turn, double at) {
  const double degree = acos(-1) / 180, c = cos(turn * degree), s = sin(turn * degree);
  const double H[2] = {cos(at * degree), sin(at * degree)};
  const double P[4] = {c * c + 100 * s * s, -99 * c * s, -99 * c * s, s * s + 100 * c * c};
  const double PH[2] = {P[0] * H[0] + P[1] * H[1], P[2] * H[0] + P[3] * H[1]};
  const double S = H[0] * PH[0] + H[1] * PH[1] + 1, K[2] = {PH[0] / S, PH[1] / S};
  return mat_transition(t, 1, 2, K, H);
}

static kwm_status compute(struct theory *t, struct kwm_finding *found) {
  struct run run;
  KWM_TRY(travel(t, true, &run));
  windows(t, &run, found);
  KWM_TRY(travel(t, false, &run));
  found[UNEXCITED].number = unexcited(t, &run);
  const double *const period = mat_product(t, false, false, 2, 2, 2, turned(t, 93, 102), turned(t, 9, 0));
  found[BOUNDED_P].number = mat_radius(t, 2, period);
  return believed(t, &found[ISS].number);
}

const struct theory_group theory_excitation = {CLAIMS, claims, compute, false, false};
