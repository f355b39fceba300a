/* Theorem 4, low rank: the filter `lowrank` (form B, Λ = λ0 I + BBᵀ) of growing rank and the exact one (`block`) learn
   from the same rows, whose information falls off over directions. */
#include <math.h>

#include "matrix.h"
#include "subject.h"

enum { N = 16, ROWS = 2, STEPS = 24, RANKS = 5 };
static const int64_t ranks[RANKS] = {2, 4, 8, 12, 16};

enum { MAP, LIPSCHITZ, GROWING, MEANS, WHOLE, CONSERVATIVE, FORM_A, CLAIMS };
static const struct kwm_claim claims[CLAIMS] = {
    [MAP] = {"thm4-gain-map", "(93),(94)", KWM_CLAIM_TRUE, KWM_AT_MOST, 1e-9, 0, "K~ - K = (I-KH)(P~-P)H'/S~",
             "largest relative distance over ranks"},
    [LIPSCHITZ] = {"thm4-lipschitz", "(94)", KWM_CLAIM_TRUE, KWM_AT_MOST, 1, 0, "|K~-K| <= L_K |P~-P|",
                   "largest ratio of the sides over ranks"},
    [GROWING] = {"thm4-growing-rank", "(95)", KWM_CLAIM_TRUE, KWM_AT_MOST, 1, 0, "|P~-P| falls as the rank grows",
                 "largest ratio to the rank before: 2,4,8,12,16"},
    [MEANS] = {"thm4-error", "(96)", KWM_CLAIM_TRUE, KWM_AT_LEAST, 0.9, 0, "error of the mean falls with |P~-P|",
               "correlation of their ranks' logarithms"},
    [WHOLE] = {"thm4-full-rank", "(95)", KWM_CLAIM_TRUE, KWM_AT_MOST, 1e-9, 0, "rank n: the exact filter",
               "relative distance of P~ from P"},
    [CONSERVATIVE] = {"thm4-conservative", "(90),(153)", KWM_CLAIM_TRUE, KWM_AT_LEAST, -1e-10, 0,
                      "form B never claims to know more: P~ >= P", "smallest eigenvalue of P~-P over ranks"},
    [FORM_A] = {"thm4-form-A", "(141),(147)", KWM_CLAIM_PAPER, KWM_AT_LEAST, 2, 0,
                "false as stated: P = UU'+s^2 I keeps the top of F", "its |K~-K| over form B's, rank 8"},
};

static kwm_status open(struct theory *t, struct subject *s, int64_t rank, enum kwm_lowrank_kind kind) {
  const struct subject_spec spec = {.structure = rank > 0 ? "lowrank" : "block",
                                    .form = KWM_FORM_INNOVATION,
                                    .n = N,
                                    .rows = ROWS,
                                    .precision = 1,
                                    .rank = rank,
                                    .kind = kind};
  return subject_open(s, t, &spec);
}

/* Rows and targets of all steps, one more for the gain; direction k has scale 2^(1 - k/2). */
struct data {
  double *H, *y;
};

static struct data make(struct theory *t) {
  struct data data = {theory_floats(t, (STEPS + 1) * ROWS * N, 1), theory_normals(t, STEPS * ROWS)};
  for (int64_t k = 0; k < (STEPS + 1) * ROWS * N; k++)
    data.H[k] = (double)(float)(data.H[k] * pow(2, 1 - (double)(k % N) / 2));
  const double *const truth = theory_normals(t, N);
  for (int64_t row = 0; row < STEPS * ROWS; row++) data.y[row] += mat_dot(N, data.H + row * N, truth);
  return data;
}

/* What a filter knows after all steps. */
struct known {
  double *P, *K, *mean;
};

static kwm_status learn(struct theory *t, const struct data *data, int64_t rank, enum kwm_lowrank_kind kind,
                        struct known *known) {
  struct subject s = {0};
  KWM_TRY(open(t, &s, rank, kind));
  for (int64_t step = 0; step < STEPS; step++) subject_observe(&s, data->H + step * ROWS * N, data->y + step * ROWS);
  known->P = subject_covariance(&s);
  known->K = subject_gain(&s, data->H + STEPS * ROWS * N);
  known->mean = s.mean;
  subject_close(&s);
  return KWM_OK;
}

/* |K̃ - K - (I-KH)(P̃-P)Hᵀ/S̃| over |K̃ - K|, and |K̃ - K| over L_K|P̃ - P|; R = I. */
static void compare(struct theory *t, const double *H, const struct known *exact, const struct known *low, double *map,
                    double *lipschitz) {
  const double *const gap = mat_sum(t, N * N, 1, low->P, -1, exact->P);
  const double *const difference = mat_sum(t, N * ROWS, 1, low->K, -1, exact->K);
  const double *const I = mat_identity(t, ROWS, 1);
  const double *const S = mat_sum(t, ROWS * ROWS, 1, mat_between(t, ROWS, N, H, low->P), 1, I);
  const double *const A = mat_transition(t, ROWS, N, exact->K, H);
  const double *const left = mat_product(t, false, true, N, ROWS, N, mat_product(t, false, false, N, N, N, A, gap), H);
  const double *const formula = mat_product(t, false, false, N, ROWS, ROWS, left, mat_inverse(t, ROWS, S));
  const double *const p = mat_eigenvalues(t, N, exact->P, NULL);
  const double h = mat_norm2(t, ROWS, N, H), constant = h * fmin(sqrt(p[N - 1] / p[0]), 1 + p[N - 1] * h * h);
  const double size = mat_norm(N * ROWS, exact->K);
  *map = mat_norm(N * ROWS, mat_sum(t, N * ROWS, 1, difference, -1, formula)) / size;
  *lipschitz = mat_norm2(t, N, ROWS, difference) / (constant * mat_norm2(t, N, N, gap));
}

/* Of log gap and log error over the ranks below n. */
static double correlation(int n, const double *gap, const double *error) {
  double x = 0, y = 0, xx = 0, yy = 0, xy = 0;
  for (int k = 0; k < n; k++) x += log(gap[k]) / n, y += log(error[k]) / n;
  for (int k = 0; k < n; k++) {
    const double dx = log(gap[k]) - x, dy = log(error[k]) - y;
    xx += dx * dx, yy += dy * dy, xy += dx * dy;
  }
  return xy / sqrt(xx * yy);
}

static kwm_status form_a(struct theory *t, const struct data *data, const struct known *exact, const struct known *b,
                         struct kwm_finding *found) {
  struct known a;
  KWM_TRY(learn(t, data, 8, KWM_LOWRANK_COVARIANCE, &a));
  found[FORM_A].number = mat_distance(N * ROWS, a.K, exact->K) / mat_distance(N * ROWS, b->K, exact->K);
  return KWM_OK;
}

static kwm_status compute(struct theory *t, struct kwm_finding *found) {
  const struct data data = make(t);
  struct known exact, low;
  double gap[RANKS], error[RANKS], map = 0, lipschitz = 0, growth = 0, least = 0;
  KWM_TRY(learn(t, &data, 0, KWM_LOWRANK_PRECISION, &exact));
  for (int k = 0; k < RANKS; k++) {
    double sides[2];
    KWM_TRY(learn(t, &data, ranks[k], KWM_LOWRANK_PRECISION, &low));
    gap[k] = mat_distance(N * N, low.P, exact.P);
    error[k] = mat_distance(N, low.mean, exact.mean);
    if (k > 0) growth = mat_worse(growth, gap[k] / gap[k - 1]);
    least = -mat_worse(-least, -mat_eigenvalues(t, N, mat_sum(t, N * N, 1, low.P, -1, exact.P), NULL)[0]);
    compare(t, data.H + STEPS * ROWS * N, &exact, &low, &sides[0], &sides[1]);
    map = mat_worse(map, sides[0]);
    if (ranks[k] < N) lipschitz = mat_worse(lipschitz, sides[1]);
    if (ranks[k] == 8) KWM_TRY(form_a(t, &data, &exact, &low, found));
  }
  found[MAP].number = map;
  found[LIPSCHITZ].number = lipschitz;
  found[GROWING].number = growth;
  found[MEANS].number = correlation(RANKS - 1, gap, error);
  found[WHOLE].number = gap[RANKS - 1];
  found[CONSERVATIVE].number = least;
  return KWM_OK;
}

const struct theory_group theory_rank = {CLAIMS, claims, compute, false, false};
