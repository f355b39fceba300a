/* Time update of a low-rank covariance, columns being orthogonal: Λ' = λΛ + (1-λ)I and P' = Λ'⁻¹ + qI in z move each
   eigenvalue alone, so that columns are rescaled and the floor moves (form S: within its subspace, towards the prior
   that was drawn). With b_j a column, l its squared length, x = floor + l, f the floor after forgetting:

     form B   f = λ λ0 + 1 - λ;           l <- λ l / ((1 + q f)(1 + q (f + λ l)));          λ0 <- f / (1 + q f)
     form A   f = σ² / (λ + (1-λ) σ²);    l <- λ l / ((λ + (1-λ) x)(λ + (1-λ) σ²));         σ² <- f + q
     form S                               l <- l / (λ + (1-λ) l) + q
     diagonal                             lowrank_diagonal.c

   The mean moves by (1-λ) P0^½ Λ'⁻¹ d, d = P0^-½ (anchor - mean):

     form B   Λ'⁻¹ d = (d - λ B (f I + λ BᵀB)⁻¹ Bᵀd) / f, which does not count on orthogonal columns
     form A   Λ'⁻¹ d = f d + U' U'ᵀd with the columns U' after forgetting
     form S   the same with f = 0: P is singular, and so is what Λ' can pull at: the part of d in the subspace, where Λ'
              is its precision; outside nothing ever moved the mean, and nothing moves it now */
#include "lowrank.h"

#include <math.h>
#include <string.h>

#include "kwm/backend.h"

/* What a time update does: column j times scale[j]; in z the mean += (1-λ)(share d + Σ_j column_j pull[j]). */
struct change {
  double *scale, *pull; /* (r) each */
  double share, floor;
};

/* scale <- squared lengths of the columns, pull <- Bᵀd. */
static void column_sums(const kwm_cov *cov, const float *anchor, const float *mean, struct change *change) {
  const struct lowrank_state *const state = cov->state;
  const int64_t r = state->r, period = prior_period(&cov->spec);
  const double *const root = lowrank_root(cov);
  const bool pulls = cov->spec.forgetting < 1;
  memset(state->values, 0, (size_t)(2 * r) * sizeof *state->values);
  for (int64_t k = 0; k < state->n; k++) {
    const double d = pulls ? ((double)anchor[k] - (double)mean[k]) / root[k % period] : 0;
    for (int64_t j = 0; j < r; j++) {
      const double value = reals_get(&state->factor, k * r + j);
      change->scale[j] += value * value;
      change->pull[j] += value * d;
    }
  }
  lowrank_sum(cov, 2 * r, state->values);
}

static bool change_precision(const kwm_cov *cov, struct change *change) {
  const struct lowrank_state *const state = cov->state;
  const double lambda = cov->spec.forgetting, q = cov->spec.process_noise;
  const double f = lambda * state->floor + (1 - lambda);
  const int64_t r = state->r;
  if (lambda < 1) {
    double *const M = state->core;
    lowrank_gram(cov, 0, lowrank_plain, M);
    for (int64_t k = 0; k < r * r; k++) M[k] = lambda * M[k] + (k / r == k % r ? f : 0);
    if (!kwm_cholesky_f64(r, M, r)) return false;
    kwm_cholesky_solve_f64(r, M, r, change->pull);
    for (int64_t j = 0; j < r; j++) change->pull[j] *= -lambda / f;
  }
  for (int64_t j = 0; j < r; j++)
    change->scale[j] = sqrt(lambda / ((1 + q * f) * (1 + q * (f + lambda * change->scale[j]))));
  change->share = 1 / f;
  change->floor = f / (1 + q * f);
  return true;
}

static void change_covariance(const kwm_cov *cov, struct change *change) {
  const struct lowrank_state *const state = cov->state;
  const double lambda = cov->spec.forgetting, forgotten = lambda + (1 - lambda) * state->floor;
  for (int64_t j = 0; j < state->r; j++) {
    const double square = lambda / ((lambda + (1 - lambda) * (state->floor + change->scale[j])) * forgotten);
    change->pull[j] *= square;
    change->scale[j] = sqrt(square);
  }
  change->share = state->floor / forgotten;
  change->floor = change->share + cov->spec.process_noise;
}

static void change_subspace(const kwm_cov *cov, struct change *change) {
  const struct lowrank_state *const state = cov->state;
  const double lambda = cov->spec.forgetting, q = cov->spec.process_noise;
  for (int64_t j = 0; j < state->r; j++) {
    const double length = change->scale[j], square = 1 / (lambda + (1 - lambda) * length);
    change->pull[j] *= square;
    change->scale[j] = length > 0 ? sqrt(square + q / length) : 0;
  }
  change->share = change->floor = 0;
}

/* change from the sums that it holds; false: not positive definite or not finite. */
static bool find_change(const kwm_cov *cov, struct change *change) {
  const struct lowrank_state *const state = cov->state;
  bool good = true;
  switch (cov->spec.kind) {
  case KWM_LOWRANK_PRECISION: good = change_precision(cov, change); break;
  case KWM_LOWRANK_COVARIANCE: change_covariance(cov, change); break;
  case KWM_LOWRANK_SUBSPACE: change_subspace(cov, change); break;
  case KWM_LOWRANK_DIAGONAL: return false; /* lowrank_diagonal.c */
  }
  return good && isfinite(change->share + change->floor) && lowrank_finite(2 * state->r, state->values);
}

static void pull_mean(const kwm_cov *cov, const struct change *change, const float *anchor, float *mean) {
  const struct lowrank_state *const state = cov->state;
  const int64_t r = state->r, period = prior_period(&cov->spec);
  const double *const root = lowrank_root(cov);
  for (int64_t k = 0; k < state->n; k++) {
    const double scale = root[k % period];
    double z = change->share * ((double)anchor[k] - (double)mean[k]) / scale;
    for (int64_t j = 0; j < r; j++) z += reals_get(&state->factor, k * r + j) * change->pull[j];
    mean[k] += (float)((1 - cov->spec.forgetting) * scale * z);
  }
}

bool lowrank_predict(kwm_cov *cov, int64_t step, const float *anchor, float *mean) {
  (void)step;
  struct lowrank_state *state = cov->state;
  const int64_t r = state->r;
  struct change change = {.scale = state->values, .pull = state->values + r};
  if (cov->spec.forgetting == 1 && cov->spec.process_noise == 0) return true;
  if (cov->spec.kind == KWM_LOWRANK_DIAGONAL) return lowrank_diagonal_predict(cov, anchor, mean);
  column_sums(cov, anchor, mean, &change);
  if (!find_change(cov, &change)) return false;
  if (cov->spec.forgetting < 1) pull_mean(cov, &change, anchor, mean);
  for (int64_t k = 0; k < state->n * r; k++)
    reals_set(&state->factor, k, reals_get(&state->factor, k) * change.scale[k % r]);
  state->floor = change.floor;
  return true;
}
