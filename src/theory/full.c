/* The exact covariance distributed over all ranks (cov.joint=full) against the dense textbook on each of them. */
#include <math.h>

#include "kwm/backend.h"
#include "kwm/full.h"
#include "matrix.h"

enum { N = 48, ROWS = 6, STEPS = 5 };
static const double NOISE = 0.03;

enum { STEP, SPECTRUM, CLAIMS };
static const struct kwm_claim claims[CLAIMS] = {
    [STEP] = {"full-step", "(33)-(35)", KWM_CLAIM_TRUE, KWM_AT_MOST, 1e-11, 0,
              "P distributed over the ranks: K e is the dense one", "largest relative distance, 5 steps, Q > 0"},
    [SPECTRUM] = {"full-spectrum", "(35),(23)", KWM_CLAIM_TRUE, KWM_AT_MOST, 1e-11, 0, "and P has the same eigenvalues",
                  "relative distance after 5 steps"},
};

struct part {
  kwm_full *full;
  int64_t first, count; /* this rank's parameters */
  float *mean, *H;
};

static kwm_status open(struct theory *t, struct part *part) {
  const int64_t rank = t->world->rank, size = t->world->size;
  part->first = N * rank / size;
  part->count = N * (rank + 1) / size - part->first;
  double *const prior = theory_new(t, N);
  for (int k = 0; k < N; k++) prior[k] = 1;
  part->mean = (float *)theory_new(t, N), part->H = (float *)theory_new(t, ROWS * N);
  const struct kwm_full_segment segment = {part->first, part->count};
  const struct kwm_full_spec spec = {.comm = t->world->world,
                                     .n = N,
                                     .n_segments = part->count > 0,
                                     .segments = &segment,
                                     .prior_variance = prior,
                                     .rows_max = ROWS,
                                     .block = 8,
                                     .dynamics = true};
  return kwm_full_create(&part->full, &spec);
}

/* delta (N) <- the step of all ranks. */
static bool step_full(struct theory *t, struct part *part, const double *H, const double *e, double *delta) {
  double *const S = mat_identity(t, ROWS, 1), *const w = mat_copy(t, ROWS, e);
  for (int64_t row = 0; row < ROWS; row++)
    for (int64_t k = 0; k < part->count; k++) part->H[row * part->count + k] = (float)H[row * N + part->first + k];
  const double noise = t->fault == KWM_FAULT_Q_DROPPED ? 0 : NOISE;
  if (!kwm_full_predict(part->full, 1, noise, NULL, NULL)) return false;
  kwm_full_project(part->full, ROWS, part->H, S);
  if (!kwm_cholesky_f64(ROWS, S, ROWS)) return false;
  kwm_cholesky_solve_f64(ROWS, S, ROWS, w);
  if (!kwm_full_condition(part->full, ROWS, S, w)) return false;
  const double *const own = kwm_full_delta(part->full);
  for (int64_t k = 0; k < N; k++) delta[k] = 0;
  for (int64_t k = 0; k < part->count; k++) delta[part->first + k] = own[k];
  kwm_full_apply(part->full, 1, part->mean);
  kwm_par_sum_world(t->world, N, delta);
  for (int64_t k = 0; k < N; k++) delta[k] *= t->fault == KWM_FAULT_GAIN_HALVED ? 0.5 : 1;
  return true;
}

/* P <- posterior of P + Q; the step. */
static double *step_dense(struct theory *t, double **P, const double *H, const double *e) {
  const double *const before = mat_sum(t, N * N, 1, *P, 1, mat_identity(t, N, NOISE));
  const double *const precision = mat_sum(t, N * N, 1, mat_inverse(t, N, before), 1, mat_gram(t, ROWS, N, H));
  *P = mat_inverse(t, N, precision);
  return mat_product(t, false, false, N, 1, N, *P, mat_product(t, true, false, N, 1, ROWS, H, e));
}

static kwm_status compute(struct theory *t, struct kwm_finding *found) {
  struct part part = {0};
  double *P = mat_identity(t, N, 1), *const delta = theory_new(t, N), worst = 0;
  kwm_status status = kwm_agree(t->world->world, open(t, &part));
  for (int step = 0; step < STEPS && status == KWM_OK; step++) {
    const double *const H = theory_floats(t, ROWS * N, 0.5), *const e = theory_normals(t, ROWS);
    const bool good = step_full(t, &part, H, e, delta);
    const double distance = mat_distance(N, delta, step_dense(t, &P, H, e));
    worst = mat_worse(worst, good ? distance : NAN);
  }
  found[STEP].number = worst;
  double *const values = theory_new(t, N);
  if (status == KWM_OK) status = kwm_full_spectrum(part.full, values);
  if (status == KWM_OK) found[SPECTRUM].number = mat_distance(N, values, mat_eigenvalues(t, N, P, NULL));
  kwm_full_destroy(&part.full);
  return status;
}

const struct theory_group theory_full = {CLAIMS, claims, compute, true, false};
