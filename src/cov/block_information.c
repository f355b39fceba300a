/* Information form: Λ <- Λ + F, δ = (Λ + F)⁻¹ s.

   Evidence of units: packed F (packed(p), count), then s (p, count). Of a matrix: F (p, p), upper triangle, then s (p):
   rows of H are formed a piece at a time and squared by the matrix product, p² rows flops.

   In float the posterior's factor is made in double scratch, p³/3 for L Lᵀ and p³/3 for its factor. F is a float sum
   and may lack a little of being positive definite: where Λ + F does, its diagonal is lifted, and the health says so.
 */
#include "block.h"

#include <math.h>
#include <string.h>

#include "kwm/backend.h"

static int64_t triangle(const struct kwm_cov_spec *spec) {
  return block_is_matrix(spec) ? spec->params * spec->params : kwm_packed(spec->params);
}

int64_t block_evidence_length(const struct kwm_cov_spec *spec) {
  return (triangle(spec) + spec->params) * spec->count;
}

void block_evidence(kwm_cov *cov, const struct kwm_jac *jac, float *evidence) {
  const struct kwm_cov_spec *const spec = &cov->spec;
  const struct block_state *const state = cov->state;
  const int64_t p = spec->params, piece = BLOCK_PIECE / jac->m > 0 ? BLOCK_PIECE / jac->m : 1;
  if (!block_is_matrix(spec)) {
    kwm_jac_fisher(jac, evidence, evidence + triangle(spec) * spec->count);
    return;
  }
  for (int64_t first = 0; first < jac->n; first += piece) {
    const struct kwm_jac part = kwm_jac_part(jac, first, jac->n - first < piece ? jac->n - first : piece);
    kwm_jac_dense(&part, state->narrow);
    kwm_gram(p, part.n * part.m, 1.0f, state->narrow, p, 1.0f, evidence, p);
  }
  kwm_jac_score(jac, evidence + triangle(spec), state->g);
}

/* W (p, p) += F of block b; a matrix: in the upper triangle. */
static void add_evidence(const struct kwm_cov_spec *spec, const float *evidence, int64_t b, double *W) {
  const int64_t p = spec->params;
  if (block_is_matrix(spec)) {
    for (int64_t k = 0; k < p; k++)
      for (int64_t j = k; j < p; j++) W[k * p + j] += (double)evidence[k * p + j];
    return;
  }
  int64_t index = 0;
  for (int64_t k = 0; k < p; k++)
    for (int64_t j = k; j < p; j++, index++) {
      const double value = (double)evidence[index * spec->count + b];
      W[k * p + j] += value;
      if (j != k) W[j * p + k] += value;
    }
}

static bool is_silent(const struct kwm_cov_spec *spec, const float *evidence, int64_t b) {
  for (int64_t k = 0; k < triangle(spec); k++)
    if (evidence[k * spec->count + b] != 0) return false;
  return true;
}

/* δᵀFδ of block b. */
static double change_of(const kwm_cov *cov, const float *evidence, int64_t b, const double *x) {
  const struct block_state *const state = cov->state;
  const int64_t p = cov->spec.params;
  double sum = 0;
  if (block_is_matrix(&cov->spec)) {
    for (int64_t k = 0; k < p; k++) {
      double row = 0.5 * (double)evidence[k * p + k] * x[k];
      for (int64_t j = k + 1; j < p; j++) row += (double)evidence[k * p + j] * x[j];
      sum += 2 * x[k] * row;
    }
    return sum;
  }
  memset(state->square, 0, (size_t)(p * p) * sizeof *state->square);
  add_evidence(&cov->spec, evidence, b, state->square);
  for (int64_t k = 0; k < p; k++)
    for (int64_t j = 0; j < p; j++) sum += x[k] * state->square[k * p + j] * x[j];
  return sum;
}

/* Double: W (p, p) <- factor of Λ + F, x (p) <- solution for x. */
static bool solve_exact(const kwm_cov *cov, const float *evidence, int64_t b, double *W, double *x) {
  const int64_t p = cov->spec.params;
  block_expand(cov, b, W);
  add_evidence(&cov->spec, evidence, b, W);
  if (block_is_matrix(&cov->spec)) {
    if (!kwm_factor_f64(p, W, p)) return false;
    kwm_factor_solve_f64(p, 1, W, p, x, 1);
    return true;
  }
  if (!kwm_cholesky_f64(p, W, p)) return false;
  kwm_cholesky_solve_f64(p, W, p, x);
  return true;
}

/* Float: W (p, p) <- factor of Λ + F, lifted as little as it takes; false if it is not finite. */
static bool factor_lifted(const kwm_cov *cov, const float *evidence, int64_t b, double *W) {
  struct block_state *const state = cov->state;
  const int64_t p = cov->spec.params;
  for (double share = 0; share < 1; share = share == 0 ? 1e-8 : 10 * share) {
    block_expand(cov, b, W);
    add_evidence(&cov->spec, evidence, b, W);
    double mean = 0;
    for (int64_t k = 0; k < p; k++) mean += W[k * p + k] / (double)p;
    for (int64_t k = 0; k < p; k++) W[k * p + k] += share * mean;
    if (!isfinite(mean)) return false;
    if (kwm_factor_f64(p, W, p)) return true;
    state->lifted++;
  }
  return false;
}

bool block_absorb(kwm_cov *cov, const struct kwm_jac *jac, const float *evidence, int64_t batch, double *kl) {
  (void)jac;
  const struct kwm_cov_spec *const spec = &cov->spec;
  struct block_state *const state = cov->state;
  const int64_t p = spec->params;
  const float *const score = evidence + triangle(spec) * spec->count;
  state->lifted = 0;
  for (int64_t b = 0; b < spec->count; b++) {
    double *const delta = state->delta + b * p, *const W = state->W + b * p * p;
    for (int64_t k = 0; k < p; k++) delta[k] = (double)score[k * spec->count + b];
    if (block_is_float(spec)) {
      if (!factor_lifted(cov, evidence, b, W)) return false;
      kwm_factor_solve_f64(p, 1, W, p, delta, 1);
    } else if (!solve_exact(cov, evidence, b, W, delta)) {
      return false;
    }
    kl[b] = change_of(cov, evidence, b, delta) / (double)batch;
    if (!isfinite(kl[b])) return false;
  }
  state->evidence = evidence;
  state->factored = true;
  return true;
}

void block_take_evidence(kwm_cov *cov) {
  const struct kwm_cov_spec *const spec = &cov->spec;
  struct block_state *const state = cov->state;
  const int64_t p = spec->params;
  const double lifted = state->lifted;
  for (int64_t b = 0; b < spec->count; b++) {
    double *const W = state->W + b * p * p;
    if (!block_is_float(spec)) {
      add_evidence(spec, state->evidence, b, state->M.f64 + b * p * p);
    } else if (!is_silent(spec, state->evidence, b)) { /* else it stays, to the last bit */
      const bool good = state->factored || factor_lifted(cov, state->evidence, b, W);
      KWM_ASSERT(good); /* as in absorb */
      block_store_factor(cov, b, W);
    }
  }
  state->floor_hits += lifted;
  state->evidence = NULL;
  state->factored = false;
}
