/* Time update: Λ <- λΛ + (1-λ)Λ0 with the pull of the mean towards the anchor, then P <- P + q P0. Each acts on its own
   form directly and on the other through an inverse; a factor is squared, and made anew at the end. Cost of a block,
   where λ < 1 or q > 0, beyond O(p²):

     double  information  λ: p³/3 (the pull), q: 2 p³          innovation  λ: 2 p³, q: nothing
     float   the same and 2/3 p³ */
#include "block.h"

#include <string.h>

#include "kwm/backend.h"

/* W <- weight W + diag(add·prior^power). */
static void scale_and_add(const kwm_cov *cov, double *W, double weight, double add, bool inverse) {
  const struct block_state *const state = cov->state;
  const int64_t p = cov->spec.params, period = prior_period(&cov->spec);
  for (int64_t k = 0; k < p * p; k++) W[k] *= weight;
  for (int64_t k = 0; k < p; k++)
    W[k * p + k] += add * (inverse ? 1 / state->prior[k % period] : state->prior[k % period]);
}

/* vector (p) <- (1-λ) Λ0 (anchor - mean) of block b. */
static void pull_of(const kwm_cov *cov, int64_t b, const float *anchor, const float *mean) {
  const struct block_state *const state = cov->state;
  const int64_t p = cov->spec.params, period = prior_period(&cov->spec);
  for (int64_t k = 0; k < p; k++)
    state->vector[k] =
        (1 - cov->spec.forgetting) * ((double)anchor[b * p + k] - (double)mean[b * p + k]) / state->prior[k % period];
}

/* pull (p) <- Λ'⁻¹ vector from Λ'; what is left of W is Λ'. */
static bool solve_pull(const kwm_cov *cov, const double *W, double *pull) {
  const struct block_state *const state = cov->state;
  const int64_t p = cov->spec.params;
  memcpy(state->square, W, (size_t)(p * p) * sizeof *W);
  memcpy(pull, state->vector, (size_t)p * sizeof *pull);
  if (!kwm_factor_f64(p, state->square, p)) return false;
  kwm_factor_solve_f64(p, 1, state->square, p, pull, 1);
  return true;
}

/* W (p, p): Λ or P of block b -> its time update, pull (p) <- what the mean moves by. */
static bool predict_one(const kwm_cov *cov, double *W, double *pull) {
  const struct kwm_cov_spec *const spec = &cov->spec;
  const struct block_state *const state = cov->state;
  const bool P = block_innovation(spec);
  if (spec->forgetting < 1) {
    if (P && !block_invert(spec, W)) return false;
    scale_and_add(cov, W, spec->forgetting, 1 - spec->forgetting, true);
    if (!P && !solve_pull(cov, W, pull)) return false;
    if (P && !block_invert(spec, W)) return false;
    if (P) kwm_symm_f64(1, spec->params, 1, W, spec->params, state->vector, spec->params, 0, pull, spec->params);
  }
  if (spec->process_noise > 0) {
    if (!P && !block_invert(spec, W)) return false;
    scale_and_add(cov, W, 1, spec->process_noise, false);
    if (!P && !block_invert(spec, W)) return false;
  }
  return !block_is_float(spec) || kwm_factor_f64(spec->params, W, spec->params);
}

/* The state <- W, all blocks of it. */
static void commit(kwm_cov *cov, float *mean) {
  const struct kwm_cov_spec *const spec = &cov->spec;
  struct block_state *const state = cov->state;
  const int64_t p = spec->params;
  for (int64_t k = 0; k < spec->count * p && spec->forgetting < 1; k++) mean[k] += (float)state->delta[k];
  for (int64_t b = 0; b < spec->count && block_is_float(spec); b++) block_store_factor(cov, b, state->W + b * p * p);
  if (block_is_float(spec)) return;
  double *const old = state->M.f64;
  state->M.f64 = state->W;
  state->W = old;
}

bool block_predict(kwm_cov *cov, int64_t step, const float *anchor, float *mean) {
  (void)step;
  const struct kwm_cov_spec *const spec = &cov->spec;
  struct block_state *const state = cov->state;
  const int64_t p = spec->params;
  if (block_innovation(spec) && !block_is_float(spec)) block_check(cov);
  if (spec->forgetting == 1 && spec->process_noise == 0) return true;
  state->factored = false;
  for (int64_t b = 0; b < spec->count; b++) {
    block_expand(cov, b, state->W + b * p * p);
    if (spec->forgetting < 1) pull_of(cov, b, anchor, mean);
    if (!predict_one(cov, state->W + b * p * p, state->delta + b * p)) return false;
  }
  commit(cov, mean);
  return true;
}
