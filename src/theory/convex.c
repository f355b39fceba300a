/* Theorem 2, strong convexity: θ <- θ - α P g for ridge least squares and ridge logistic regression. The filter
   prepares its step P⁺s from the whole batch's rows; with s = -M g that is -(M P⁺) g, so the theorem's P is M P⁺. The
   penalty |θ|²/8 is N rows more, of I/2. */
#include <math.h>

#include "matrix.h"
#include "subject.h"

enum { N = 5, M = 40, ROWS = M + N };

enum { SQUARES, LOGISTIC, PROOF, FLOOR, DIMINISHING, OWN, CLAIMS };
static const struct kwm_claim claims[CLAIMS] = {
    [SQUARES] = {"thm2-squares", "(84)", KWM_CLAIM_TRUE, KWM_AT_MOST, NAN, 0,
                 "least squares: loss contracts by 1 - a mu m_P", "worst factor of a step, the filter's P+"},
    [LOGISTIC] = {"thm2-logistic", "(84)", KWM_CLAIM_TRUE, KWM_AT_MOST, NAN, 0,
                  "logistic regression: loss contracts by 1 - a mu m_P", "worst factor of a step, the filter's P+"},
    [PROOF] = {"thm2-proof", "(80)-(83)", KWM_CLAIM_PAPER, KWM_WITHIN, -399, 1,
               "false as stated: e'P grad >= m_P e'grad (>= 1 here)", "e'P grad, Hessian diag(1,100), P 1..100"},
    [FLOOR] = {"thm2-floor", "(84)", KWM_CLAIM_TRUE, KWM_AT_MOST, NAN, 0,
               "constant step: loss stays below L a M_P^2 s^2/(2 mu m_P)", "mean loss above its least, 20000 steps"},
    [DIMINISHING] = {"thm2-diminishing", "(80)", KWM_CLAIM_TRUE, KWM_AT_MOST, 0.2, 0, "diminishing step converges",
                     "its loss at the end over the constant step's"},
    [OWN] = {"thm2-filter", "(80)", KWM_CLAIM_TRUE, KWM_WITHIN, -1, 0.15,
             "Q = 0: the filter is a diminishing step, squared error 1/t", "exponent of t, 50 to 800 steps, 64 runs"},
};

struct problem {
  bool logistic;
  double *X, *y;
};

static struct problem make(struct theory *t, bool logistic) {
  struct problem p = {logistic, theory_coarse(t, M * N), theory_new(t, M)};
  const double *const truth = theory_normals(t, N);
  for (int i = 0; i < M; i++) {
    const double mean = mat_dot(N, p.X + i * N, truth), noise = theory_normal(t);
    p.y[i] = logistic ? mean + 1.5 * noise > 0 : mean + noise;
  }
  return p;
}

static double sigmoid(double x) {
  return 1 / (1 + exp(-x));
}

/* Mean over the M samples, penalty included. */
static double loss(const struct problem *p, const double *theta) {
  double sum = mat_dot(N, theta, theta) / 8;
  for (int i = 0; i < M; i++) {
    const double x = mat_dot(N, p->X + i * N, theta);
    sum += p->logistic ? log1p(exp(x)) - p->y[i] * x : (p->y[i] - x) * (p->y[i] - x) / 2;
  }
  return sum / M;
}

/* Whitened rows and innovations at theta: Hᵀe = -M grad. The rows' weights have 12 bits, so that floats hold them. */
static void linearise(const struct problem *p, const double *theta, double *H, double *e) {
  for (int i = 0; i < M; i++) {
    const double x = mat_dot(N, p->X + i * N, theta), mean = p->logistic ? sigmoid(x) : x;
    const double weight = p->logistic ? (1 + floor(4096 * sqrt(mean * (1 - mean)))) / 4096 : 1;
    for (int k = 0; k < N; k++) H[i * N + k] = weight * p->X[i * N + k];
    e[i] = (p->y[i] - mean) / weight;
  }
  for (int k = 0; k < N; k++) {
    for (int j = 0; j < N; j++) H[(M + k) * N + j] = j == k ? 0.5 : 0;
    e[M + k] = -theta[k] / 2;
  }
}

/* Newton's method from 0. */
static double *minimiser(struct theory *t, const struct problem *p) {
  double *const theta = theory_new(t, N);
  for (int step = 0; step < 60; step++) {
    const int64_t mark = t->used;
    double *const H = theory_new(t, ROWS * N), *const e = theory_new(t, ROWS);
    linearise(p, theta, H, e);
    const double *const score = mat_product(t, true, false, N, 1, ROWS, H, e);
    const double *const inverse = mat_inverse(t, N, mat_gram(t, ROWS, N, H));
    const double *const move = mat_product(t, false, false, N, 1, N, inverse, score);
    for (int k = 0; k < N; k++) theta[k] += move[k];
    t->used = mark;
  }
  return theta;
}

/* Constants of the theorem: loss between mu and smooth, M P⁺ between least and most. */
struct constants {
  double mu, smooth, least, most, step;
};

static struct constants constants_of(struct theory *t, const struct problem *p, const double *prior) {
  const double *const F = mat_gram(t, M, N, p->X), *const f = mat_eigenvalues(t, N, F, NULL);
  const double *const high = mat_sum(t, N * N, 1, prior, p->logistic ? 0.25 : 1, F);
  const double *const low = mat_sum(t, N * N, 1, prior, p->logistic ? 0 : 1, F);
  struct constants c = {.mu = (0.25 + (p->logistic ? 0 : f[0])) / M,
                        .smooth = (0.25 + (p->logistic ? 0.25 : 1) * f[N - 1]) / M,
                        /* weights are rounded up by at most 1/4096 of a half */
                        .least = M / (1.001 * mat_eigenvalues(t, N, high, NULL)[N - 1] + 0.25),
                        .most = M / (mat_eigenvalues(t, N, low, NULL)[0] + 0.25)};
  c.step = c.least / (c.smooth * c.most * c.most);
  return c;
}

/* Worst ratio of the loss above its least, step to step, while it is well above rounding. */
static kwm_status contract(struct theory *t, const struct problem *p, struct kwm_finding *found) {
  const struct subject_spec spec = {
      .structure = "block", .form = KWM_FORM_INNOVATION, .n = N, .rows = ROWS, .precision = 20};
  struct subject s = {0};
  double *const theta = theory_normals(t, N), *const H = theory_new(t, ROWS * N), *const e = theory_new(t, ROWS);
  const double least = loss(p, minimiser(t, p)), start = loss(p, theta) - least;
  const struct constants c = constants_of(t, p, mat_identity(t, N, spec.precision));
  double worst = 0, before = start;
  KWM_TRY(subject_open(&s, t, &spec));
  for (int step = 0; step < 2000 && before > 1e-8 * start; step++) {
    linearise(p, theta, H, e);
    subject_prepare(&s, H, e);
    for (int k = 0; k < N; k++) theta[k] += c.step * s.delta[k];
    const double after = loss(p, theta) - least;
    worst = mat_worse(worst, after / before);
    before = after;
  }
  found->number = worst;
  found->bound = 1 - c.step * c.mu * c.least;
  subject_close(&s);
  return KWM_OK;
}

static double proof(void) {
  const double P[4] = {50.5, 49.5, 49.5, 50.5}, error[2] = {1, -0.1}, gradient[2] = {1, -10};
  return error[0] * (P[0] * gradient[0] + P[1] * gradient[1]) + error[1] * (P[2] * gradient[0] + P[3] * gradient[1]);
}

/* One sample's gradient, penalty shared out. */
static void gradient_of(const struct problem *p, int64_t i, const double *theta, double *g) {
  const double error = mat_dot(N, p->X + i * N, theta) - p->y[i];
  for (int k = 0; k < N; k++) g[k] = error * p->X[i * N + k] + theta[k] / (4 * M);
}

/* E|g - grad|² over the samples. */
static double variance(const struct problem *p, const double *theta) {
  double mean[N] = {0}, g[N], squares = 0;
  for (int i = 0; i < M; i++) {
    gradient_of(p, i, theta, g);
    for (int k = 0; k < N; k++) mean[k] += g[k] / M;
    squares += mat_dot(N, g, g) / M;
  }
  return squares - mat_dot(N, mean, mean);
}

/* Mean loss over the last tenth of 20000 steps of single samples; largest gradient variance on the way. */
static double wander(struct theory *t, const struct problem *p, const double *P, double rate, double decay,
                     const double *best, double *most) {
  enum { STEPS = 20000 };
  const int64_t mark = t->used;
  double *const theta = mat_copy(t, N, best), g[N], sum = 0;
  const double least = loss(p, best);
  for (int step = 0; step < STEPS; step++) {
    const double alpha = rate / (1 + decay * step);
    gradient_of(p, theory_below(t, M), theta, g);
    for (int i = 0; i < N; i++) theta[i] -= alpha * mat_dot(N, P + i * N, g);
    if (step % 10 == 0) *most = mat_worse(*most, variance(p, theta));
    if (step >= STEPS - STEPS / 10) sum += (loss(p, theta) - least) / (STEPS / 10);
  }
  t->used = mark;
  return sum;
}

/* Longest row, squared: steps of single samples are stable well below 2/(M_P |x|²). */
static double longest(const struct problem *p) {
  double most = 0;
  for (int i = 0; i < M; i++) most = fmax(most, mat_dot(N, p->X + i * N, p->X + i * N));
  return most;
}

/* P is the filter's after the whole batch, times M: known before any sample's noise. */
static kwm_status stochastic(struct theory *t, const struct problem *p, struct kwm_finding *found) {
  const struct subject_spec spec = {
      .structure = "block", .form = KWM_FORM_INNOVATION, .n = N, .rows = ROWS, .precision = 20};
  struct subject s = {0};
  double *const H = theory_new(t, ROWS * N), *const e = theory_new(t, ROWS), most = 0;
  const double *const best = minimiser(t, p);
  KWM_TRY(subject_open(&s, t, &spec));
  linearise(p, best, H, e);
  subject_measure(&s, H, e);
  const double *const P = mat_sum(t, N * N, M, subject_covariance(&s), 0, s.delta);
  subject_close(&s);
  struct constants c = constants_of(t, p, mat_identity(t, N, spec.precision));
  c.step = fmin(c.step, 0.2 / (c.most * longest(p)));
  const double constant = wander(t, p, P, c.step, 0, best, &most);
  found[FLOOR].number = constant;
  found[FLOOR].bound = c.smooth * c.step * c.most * c.most * most / (2 * c.mu * c.least);
  found[DIMINISHING].number = wander(t, p, P, c.step, 0.002, best, &most) / constant;
  return KWM_OK;
}

/* Squared errors of the filter's mean after 50 and 800 scalar observations of noise 1. */
static kwm_status own_run(struct theory *t, double squares[2]) {
  const struct subject_spec spec = {
      .structure = "block", .form = KWM_FORM_INNOVATION, .n = N, .rows = 1, .precision = 1, .noise = 0};
  struct subject s = {0};
  const double *const truth = theory_normals(t, N);
  KWM_TRY(subject_open(&s, t, &spec));
  for (int step = 1; step <= 800; step++) {
    const int64_t mark = t->used;
    const double *const H = theory_floats(t, N, 1), y = mat_dot(N, H, truth) + theory_normal(t);
    subject_observe(&s, H, &y);
    const double *const error = mat_sum(t, N, 1, s.mean, -1, truth);
    if (step == 50) squares[0] += mat_dot(N, error, error);
    if (step == 800) squares[1] += mat_dot(N, error, error);
    t->used = mark;
  }
  subject_close(&s);
  return KWM_OK;
}

static kwm_status own(struct theory *t, struct kwm_finding *found) {
  double squares[2] = {0};
  for (int run = 0; run < 64; run++) {
    const int64_t mark = t->used;
    KWM_TRY(own_run(t, squares));
    t->used = mark;
  }
  found[OWN].number = log(squares[1] / squares[0]) / log(800.0 / 50.0);
  return KWM_OK;
}

static kwm_status compute(struct theory *t, struct kwm_finding *found) {
  const struct problem squares = make(t, false), logistic = make(t, true);
  KWM_TRY(contract(t, &squares, &found[SQUARES]));
  KWM_TRY(contract(t, &logistic, &found[LOGISTIC]));
  found[PROOF].number = proof();
  KWM_TRY(stochastic(t, &squares, found));
  return own(t, found);
}

const struct theory_group theory_convex = {CLAIMS, claims, compute, false, false};
