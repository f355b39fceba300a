/* Spectral radii of the error's transition I - KH: what (60), (65), (66) say of one step, and what they do not say of
   many. */
#include <math.h>

#include "matrix.h"
#include "subject.h"

enum { N = 6, FULL = 7, FEW = 2 };

enum { RADIUS, EIGENVALUES, PARTIAL, NORM, METRIC, PRODUCT, HISTORY, DECAY, CLAIMS };
static const struct kwm_claim claims[CLAIMS] = {
    [RADIUS] = {"radius-full-rank", "(60),(66)", KWM_CLAIM_TRUE, KWM_AT_MOST, 1e-11, 0,
                "rank H = n: radius of I-KH is 1/(1+f_min) < 1", "distance from 1/(1+f_min)"},
    [EIGENVALUES] = {"radius-ones", "(64),(65)", KWM_CLAIM_TRUE, KWM_WITHIN, N - FEW, 0,
                     "eigenvalues 1/(1+f) in (0,1], n - rank H of them 1", "how many are 1, n - rank H = 4"},
    [PARTIAL] = {"radius-partial", "(60)", KWM_CLAIM_PAPER, KWM_WITHIN, 1, 1e-9,
                 "false as stated: radius < 1 (m < n: nothing contracts in one step)", "spectral radius of I-KH"},
    [NORM] = {"radius-2-norm", "(61)", KWM_CLAIM_PAPER, KWM_AT_LEAST, 1.01, 0,
              "false as stated: I-KH contracts in the 2-norm", "largest 2-norm over 40 steps"},
    [METRIC] = {"radius-P-norm", "(60)", KWM_CLAIM_TRUE, KWM_AT_MOST, 1 + 1e-10, 0, "I-KH contracts in the norm of 1/P",
                "largest such norm over 40 steps"},
    [PRODUCT] = {"radius-product", "(55)", KWM_CLAIM_PAPER, KWM_WITHIN, 4, 1e-12,
                 "false as stated: radius < 1 at every step suffices", "radius of a product of two of radius 0"},
    [HISTORY] = {"radius-history", "(59)", KWM_CLAIM_TRUE, KWM_AT_MOST, 1e-10, 0,
                 "Q = 0: product of all I-KH is P_t / P_0", "relative distance after 50 steps"},
    [DECAY] = {"radius-decay", "(61)", KWM_CLAIM_PAPER, KWM_WITHIN, -1, 0.1,
               "false as stated: errors decay as g^t (Q = 0: as 1/t)", "exponent of t between 200 and 800 steps"},
};

static kwm_status open(struct theory *t, struct subject *s, int64_t rows, double noise) {
  const struct subject_spec spec = {
      .structure = "block", .form = KWM_FORM_INNOVATION, .n = N, .rows = rows, .precision = 1, .noise = noise};
  return subject_open(s, t, &spec);
}

/* Phi(P F): eigenvalues of L'FL for P = LL'. */
static const double *informations(struct theory *t, int64_t rows, const double *H, const double *P) {
  const double *const HL = mat_product(t, false, false, rows, N, N, H, mat_cholesky(t, N, P));
  return mat_eigenvalues(t, N, mat_gram(t, rows, N, HL), NULL);
}

static kwm_status full_rank(struct theory *t, struct kwm_finding *found) {
  const double e[FULL] = {0};
  struct subject s = {0};
  KWM_TRY(open(t, &s, FULL, 0));
  subject_measure(&s, theory_floats(t, FULL * N, 0.4), e);
  const double *const H = theory_floats(t, FULL * N, 0.4);
  const double least = informations(t, FULL, H, subject_covariance(&s))[0];
  const double radius = mat_radius(t, N, mat_transition(t, FULL, N, subject_gain(&s, H), H));
  found[RADIUS].number = radius < 1 ? fabs(radius - 1 / (1 + least)) : NAN;
  subject_close(&s);
  return KWM_OK;
}

/* How many eigenvalues of I - KH are 1, if all are those of (I + PF)⁻¹. */
static double ones(struct theory *t, const double *A, const double *H, const double *P) {
  const double *const poles = mat_poles(t, N, A), *const f = informations(t, FEW, H, P);
  double count = 0;
  for (int k = 0; k < N; k++) {
    double nearest = INFINITY;
    for (int j = 0; j < N; j++) nearest = fmin(nearest, fabs(poles[k] - 1 / (1 + f[j])) + fabs(poles[N + k]));
    if (!(nearest <= 1e-9)) return NAN;
    count += fabs(poles[k] - 1) < 1e-9;
  }
  return count;
}

/* Largest norms of I - KH over steps of a run: Euclidean, and of L⁻¹(I-KH)L with P = LLᵀ. */
static void norms(struct theory *t, struct subject *s, struct kwm_finding *found) {
  double plain = 0, metric = 0;
  for (int step = 0; step < 40; step++) {
    const int64_t mark = t->used;
    const double *const H = theory_floats(t, FEW * N, 2), e[FEW] = {0};
    const double *const P = subject_covariance(s), *const L = mat_cholesky(t, N, P);
    const double *const A = mat_transition(t, FEW, N, subject_gain(s, H), H);
    plain = mat_worse(plain, mat_norm2(t, N, N, A));
    const double *const AL = mat_product(t, false, false, N, N, N, A, L);
    metric = mat_worse(metric, mat_norm2(t, N, N, mat_product(t, false, false, N, N, N, mat_inverse(t, N, L), AL)));
    subject_measure(s, H, e);
    subject_predict(s);
    t->used = mark;
  }
  found[NORM].number = plain;
  found[METRIC].number = metric;
}

static kwm_status partial(struct theory *t, struct kwm_finding *found) {
  struct subject s = {0};
  const double e[FEW] = {0};
  KWM_TRY(open(t, &s, FEW, 0.05));
  subject_measure(&s, theory_floats(t, FEW * N, 1), e);
  const double *const H = theory_floats(t, FEW * N, 1);
  const double *const A = mat_transition(t, FEW, N, subject_gain(&s, H), H);
  found[PARTIAL].number = mat_radius(t, N, A);
  found[EIGENVALUES].number = ones(t, A, H, subject_covariance(&s));
  norms(t, &s, found);
  subject_close(&s);
  return KWM_OK;
}

/* Phi <- (I - KH) Phi over `steps` steps with new H. */
static void travel(struct theory *t, struct subject *s, int64_t steps, double *phi) {
  const double e[FEW] = {0};
  for (int64_t k = 0; k < steps; k++) {
    const int64_t mark = t->used;
    const double *const H = theory_floats(t, FEW * N, 1);
    const double *const A = mat_transition(t, FEW, N, subject_gain(s, H), H);
    const double *const next = mat_product(t, false, false, N, N, N, A, phi);
    for (int i = 0; i < N * N; i++) phi[i] = next[i];
    subject_measure(s, H, e);
    t->used = mark;
  }
}

static kwm_status history(struct theory *t, struct kwm_finding *found) {
  struct subject s = {0};
  KWM_TRY(open(t, &s, FEW, 0));
  double *const phi = mat_identity(t, N, 1);
  travel(t, &s, 50, phi);
  found[HISTORY].number = mat_distance(N * N, phi, subject_covariance(&s));
  travel(t, &s, 150, phi);
  const double early = mat_norm(N * N, phi);
  travel(t, &s, 600, phi);
  found[DECAY].number = log(mat_norm(N * N, phi) / early) / log(800.0 / 200.0);
  subject_close(&s);
  return KWM_OK;
}

static kwm_status compute(struct theory *t, struct kwm_finding *found) {
  const double first[4] = {0, 2, 0, 0}, second[4] = {0, 0, 2, 0};
  const double *const product = mat_product(t, false, false, 2, 2, 2, first, second);
  const double each = mat_radius(t, 2, first) + mat_radius(t, 2, second);
  found[PRODUCT].number = each < 1e-7 ? mat_radius(t, 2, product) : NAN;
  KWM_TRY(full_rank(t, found));
  KWM_TRY(partial(t, found));
  return history(t, found);
}

const struct theory_group theory_radius = {CLAIMS, claims, compute, false, false};
