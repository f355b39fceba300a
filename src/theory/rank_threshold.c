/* Theorem 4's threshold: with |Phi(t,s)| <= c g^(t-s) for the exact transition and delta = |P̃ - P| below
   (1-g)/(c L_K |H|), the low-rank transition contracts by g + c L_K |H| delta at least. Each rank's P̃ and the exact P
   after the same data are held fixed, and one H of all rows repeats. */
#include <math.h>

#include "matrix.h"
#include "subject.h"

enum { N = 12, POWERS = 60 };

enum { BOUNDED, THRESHOLD, LOOSE, CLAIMS };
static const struct kwm_claim claims[CLAIMS] = {
    [BOUNDED] = {"thm4-below", "(96)", KWM_CLAIM_TRUE, KWM_AT_MOST, 1 + 1e-9, 0,
                 "below the threshold: |Phi~| <= c (g + c L_K |H| d)^t", "largest ratio, ranks below, t <= 60"},
    [THRESHOLD] = {"thm4-threshold", "(96)", KWM_CLAIM_TRUE, KWM_WITHIN, (1 + N) / 2.0, (N - 1) / 2.0 - 0.5,
                   "rank carries d below (1-g)/(c L_K |H|)", "smallest rank below it, of 1 .. 12"},
    [LOOSE] = {"thm4-above", "(96),(153)", KWM_CLAIM_TRUE, KWM_AT_MOST, 1, 0,
               "P~ >= P: contracts above the threshold too (Theorem 3)", "spectral radius of I - K~H, rank 1"},
};

static kwm_status open(struct theory *t, struct subject *s, int64_t rank) {
  const struct subject_spec spec = {.structure = rank > 0 ? "lowrank" : "block",
                                    .form = KWM_FORM_INNOVATION,
                                    .n = N,
                                    .rows = N,
                                    .precision = 1,
                                    .rank = rank,
                                    .kind = KWM_LOWRANK_PRECISION};
  return subject_open(s, t, &spec);
}

/* Covariance after one step with `past`, and I - KH for `H`. */
static kwm_status learn(struct theory *t, int64_t rank, const double *past, const double *H, double **P, double **A) {
  const double e[N] = {0};
  struct subject s = {0};
  KWM_TRY(open(t, &s, rank));
  subject_measure(&s, past, e);
  *P = subject_covariance(&s);
  *A = mat_transition(t, N, N, subject_gain(&s, H), H);
  subject_close(&s);
  return KWM_OK;
}

/* Largest |A^t| / (c g^t) for t = 1 .. POWERS. */
static double overshoot(struct theory *t, const double *A, double c, double g) {
  const int64_t mark = t->used;
  const double *power = A;
  double worst = 0;
  for (int step = 1; step <= POWERS; step++) {
    worst = mat_worse(worst, mat_norm2(t, N, N, power) / (c * pow(g, step)));
    power = mat_product(t, false, false, N, N, N, A, power);
  }
  t->used = mark;
  return worst;
}

/* Rows diag(scale) turned: information most² in the first direction, falls² times less in each next. */
static double *rows(struct theory *t, double most, double falls) {
  double *const V = theory_new(t, N * N), *const H = theory_new(t, N * N);
  mat_eigenvalues(t, N, mat_gram(t, N, N, theory_normals(t, N * N)), V);
  for (int i = 0; i < N; i++)
    for (int k = 0; k < N; k++) H[i * N + k] = (double)(float)(most * pow(falls, i) * V[k * N + i]);
  return H;
}

static kwm_status compute(struct theory *t, struct kwm_finding *found) {
  const double *const past = rows(t, 3, 0.3), *const H = rows(t, 0.5, 1);
  double *P, *A, *low, *moves, worst = 0;
  int64_t smallest = 0;
  KWM_TRY(learn(t, 0, past, H, &P, &A));
  const double *const p = mat_eigenvalues(t, N, P, NULL), h = mat_norm2(t, N, N, H);
  const double c = sqrt(p[N - 1] / p[0]), g = mat_radius(t, N, A), L = h * fmin(c, 1 + p[N - 1] * h * h);
  for (int64_t rank = N; rank >= 1; rank--) {
    KWM_TRY(learn(t, rank, past, H, &low, &moves));
    const double delta = mat_norm2(t, N, N, mat_sum(t, N * N, 1, low, -1, P));
    if (rank == 1) found[LOOSE].number = mat_radius(t, N, moves);
    if (!(delta < (1 - g) / (c * L * h))) continue;
    smallest = rank;
    worst = mat_worse(worst, overshoot(t, moves, c, g + c * L * h * delta));
  }
  found[BOUNDED].number = smallest > 0 ? worst : NAN;
  found[THRESHOLD].number = (double)smallest;
  return KWM_OK;
}

const struct theory_group theory_rank_threshold = {CLAIMS, claims, compute, false, false};
