/* Kind diagonal of lowrank: Λ = D + B Bᵀ in z, D = diag(d). What its other files cannot share with form B.

   Time update, exact: Λ' = λΛ + (1-λ)I is the same shape with f = λ d + 1 - λ and √λ B, and the inverse of such a
   matrix is a diagonal less a low rank, so that adding q I and inverting again stays in the family:

     Λ' = diag(f / (1 + q f)) + C N⁻¹ Cᵀ,  C = diag(1 + q f)⁻¹ √λ B,  N = I + λ q Bᵀ diag(1 + q f)⁻¹ B = LLᵀ

   hence B' = C L⁻ᵀ. The mean moves by (1-λ) P0^½ (v - λ B M⁻¹ Bᵀ(v/f)) / f, v = P0^-½ (anchor - mean),
   M = I + λ Bᵀ diag(f)⁻¹ B.

   P = D⁻¹ - D⁻¹ B M⁻¹ Bᵀ D⁻¹ gives the trace without P. Its eigenvalues would take P; instead the spectrum has the Ritz
   values of P in the span of the columns, where Bᵀ P B = M⁻¹ (Bᵀ D⁻¹ B), and for all other directions their mean. The
   sum is the trace; where d is the same everywhere these are the eigenvalues. */
#include "lowrank.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kwm/backend.h"

/* Directions of columns whose squared length is below this part of the largest are rounding. */
static const double DEPENDENT = 1e-13;

static struct lowrank_weights metric_of(const struct lowrank_state *state) {
  return (struct lowrank_weights){state->metric, state->n};
}

struct lowrank_weights lowrank_diagonal_weights(const kwm_cov *cov) {
  const struct lowrank_state *const state = cov->state;
  for (int64_t k = 0; k < state->n; k++) state->metric[k] = 1 / sqrt(reals_get(&state->diagonal, k));
  return metric_of(state);
}

/* ---- time update */

/* f of parameter k */
static double forgotten(const kwm_cov *cov, int64_t k) {
  const struct lowrank_state *const state = cov->state;
  return cov->spec.forgetting * reals_get(&state->diagonal, k) + (1 - cov->spec.forgetting);
}

/* M (r, r) <- Cholesky factor of I + the columns' Gram matrix with those weights; false: not finite. */
static bool factor_gram(const kwm_cov *cov, struct lowrank_weights weights, double *M) {
  const int64_t r = ((const struct lowrank_state *)cov->state)->r;
  lowrank_gram(cov, 0, weights, M);
  for (int64_t j = 0; j < r; j++) M[j * r + j] += 1;
  return lowrank_finite(r * r, M) && kwm_cholesky_f64(r, M, r);
}

/* v of parameter k */
static double distance(const kwm_cov *cov, int64_t k, const float *anchor, const float *mean) {
  return ((double)anchor[k] - (double)mean[k]) / lowrank_root(cov)[k % prior_period(&cov->spec)];
}

/* pull (r) <- -λ M⁻¹ Bᵀ(v/f) */
static bool find_pull(const kwm_cov *cov, const float *anchor, const float *mean, double *pull) {
  const struct lowrank_state *const state = cov->state;
  const double lambda = cov->spec.forgetting;
  const int64_t r = state->r;
  memset(pull, 0, (size_t)r * sizeof *pull);
  for (int64_t k = 0; k < state->n; k++) {
    const double f = forgotten(cov, k), share = distance(cov, k, anchor, mean) / f;
    state->metric[k] = sqrt(lambda / f);
    for (int64_t j = 0; j < r; j++) pull[j] += reals_get(&state->factor, k * r + j) * share;
  }
  lowrank_sum(cov, r, pull);
  if (!factor_gram(cov, metric_of(state), state->core) || !lowrank_finite(r, pull)) return false;
  kwm_cholesky_solve_f64(r, state->core, r, pull);
  for (int64_t j = 0; j < r; j++) pull[j] *= -lambda;
  return true;
}

static void pull_mean(const kwm_cov *cov, const double *pull, const float *anchor, float *mean) {
  const struct lowrank_state *const state = cov->state;
  const int64_t r = state->r, period = prior_period(&cov->spec);
  for (int64_t k = 0; k < state->n; k++) {
    double z = distance(cov, k, anchor, mean);
    for (int64_t j = 0; j < r; j++) z += reals_get(&state->factor, k * r + j) * pull[j];
    mean[k] += (float)((1 - cov->spec.forgetting) * lowrank_root(cov)[k % period] * z / forgotten(cov, k));
  }
}

/* mix (r, r) <- √λ L⁻ᵀ */
static bool find_noise(const kwm_cov *cov) {
  const struct lowrank_state *const state = cov->state;
  const double lambda = cov->spec.forgetting, q = cov->spec.process_noise;
  const int64_t r = state->r;
  double *const L = lowrank_square(state, 0), *const inverse = lowrank_square(state, 1);
  for (int64_t k = 0; k < state->n; k++) state->metric[k] = sqrt(lambda * q / (1 + q * forgotten(cov, k)));
  if (!factor_gram(cov, metric_of(state), L)) return false;
  memset(inverse, 0, (size_t)(r * r) * sizeof *inverse);
  for (int64_t j = 0; j < r; j++) inverse[j * r + j] = sqrt(lambda);
  kwm_triangular_solve_f64(r, r, L, r, inverse, r);
  for (int64_t k = 0; k < r * r; k++) state->mix[k] = inverse[k % r * r + k / r];
  return lowrank_finite(r * r, state->mix);
}

bool lowrank_diagonal_predict(kwm_cov *cov, const float *anchor, float *mean) {
  struct lowrank_state *state = cov->state;
  const double lambda = cov->spec.forgetting, q = cov->spec.process_noise;
  const int64_t r = state->r;
  if (lambda < 1 && !find_pull(cov, anchor, mean, state->values)) return false;
  if (q > 0 && !find_noise(cov)) return false;
  if (lambda < 1) pull_mean(cov, state->values, anchor, mean);
  if (q > 0) lowrank_recombine(cov, 0);
  for (int64_t k = 0; k < state->n; k++) {
    const double f = forgotten(cov, k), scale = q > 0 ? 1 / (1 + q * f) : sqrt(lambda);
    reals_set(&state->diagonal, k, f / (1 + q * f));
    for (int64_t j = 0; j < r; j++) reals_set(&state->factor, k * r + j, reals_get(&state->factor, k * r + j) * scale);
  }
  return true;
}

/* ---- views */

/* This rank's part of the trace of P with those weights. */
static double trace_here(const kwm_cov *cov, struct lowrank_weights weights) {
  const struct lowrank_state *const state = cov->state;
  const int64_t r = state->r;
  double *const G = lowrank_square(state, 0), *const M = lowrank_square(state, 1), sum = 0;
  const bool good = factor_gram(cov, lowrank_diagonal_weights(cov), M) && kwm_cholesky_invert_f64(r, M, r);
  for (int64_t k = 0; k < state->n; k++) {
    const double weight = weights.at != NULL ? weights.at[k % weights.period] : 1, d = reals_get(&state->diagonal, k);
    state->metric[k] = weight / d;
    sum += weight * weight / d;
  }
  lowrank_gram_here(cov, 0, metric_of(state), G);
  for (int64_t k = 0; k < r * r; k++) sum -= M[k] * G[k];
  return good ? sum : (double)NAN;
}

double lowrank_diagonal_trace(const kwm_cov *cov) {
  return trace_here(cov, lowrank_prior_weights(cov));
}

/* Ritz (found) of the columns' independent directions, ascending; how many there are, -1: not finite. */
static int64_t ritz_values(const kwm_cov *cov, double *values) {
  const struct lowrank_state *const state = cov->state;
  const int64_t r = state->r;
  double *const V = lowrank_square(state, 0), *const X = lowrank_square(state, 1), *const M = lowrank_square(state, 2);
  int64_t found = 0;
  lowrank_gram(cov, 0, lowrank_plain, V);
  if (!lowrank_finite(r * r, V) || !kwm_eigen_f64(r, V, values)) return -1;
  while (found < r && values[r - 1 - found] > DEPENDENT * values[r - 1]) found++;
  if (found == 0) return 0;
  for (int64_t k = 0; k < r * r; k++) V[k] /= k % r >= r - found ? sqrt(values[k % r]) : 1;
  lowrank_gram(cov, 0, lowrank_diagonal_weights(cov), X);
  memcpy(M, X, (size_t)(r * r) * sizeof *M);
  for (int64_t j = 0; j < r; j++) M[j * r + j] += 1;
  if (!lowrank_finite(r * r, M) || !kwm_cholesky_f64(r, M, r)) return -1;
  for (int64_t j = 0; j < r; j++) kwm_cholesky_solve_f64(r, M, r, X + j * r);
  kwm_gemm_f64(false, false, r, found, r, 1, X, r, V + r - found, r, 0, M, found);
  kwm_gemm_f64(true, false, found, found, r, 1, V + r - found, r, M, found, 0, X, found);
  return kwm_eigen_f64(found, X, values) ? found : -1;
}

static int ascending(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

bool lowrank_diagonal_spectrum(const kwm_cov *cov, double *values) {
  const struct lowrank_state *const state = cov->state;
  const int64_t r = state->r, n = cov->spec.total * cov->spec.params;
  double rest = trace_here(cov, lowrank_plain);
  lowrank_sum(cov, 1, &rest);
  const int64_t found = ritz_values(cov, values);
  if (found < 0) return false;
  for (int64_t j = 0; j < found; j++) rest -= values[j];
  rest = found < n ? rest / (double)(n - found) : values[r - 1];
  for (int64_t j = found; j <= r; j++) values[j] = rest;
  qsort(values, (size_t)r, sizeof *values, ascending);
  return lowrank_finite(r + 1, values);
}
