/* What can be seen of a low-rank covariance, and its checkpoints: the factor by rows, wherever they are. */
#include "lowrank.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "kwm/backend.h"

/* This rank's part of the trace of P, exact from the factor, in the parameters' units. */
static double trace_here(const kwm_cov *cov) {
  const struct lowrank_state *const state = cov->state;
  const int64_t r = state->r;
  double *const G = lowrank_square(state, 0), *const M = lowrank_square(state, 1);
  if (cov->spec.kind == KWM_LOWRANK_DIAGONAL) return lowrank_diagonal_trace(cov);
  const double prior = state->n > 0 ? prior_trace(&cov->spec, state->prior) : 0;
  double sum = 0;
  lowrank_gram_here(cov, 0, lowrank_prior_weights(cov), G);
  if (cov->spec.kind != KWM_LOWRANK_PRECISION) {
    for (int64_t j = 0; j < r; j++) sum += G[j * r + j];
    return state->floor * prior + sum;
  }
  lowrank_gram(cov, 0, lowrank_plain, M);
  for (int64_t j = 0; j < r; j++) M[j * r + j] += state->floor;
  if (!kwm_cholesky_f64(r, M, r) || !kwm_cholesky_invert_f64(r, M, r)) return NAN;
  for (int64_t k = 0; k < r * r; k++) sum += M[k] * G[k];
  return (prior - sum) / state->floor;
}

void lowrank_health(const kwm_cov *cov, struct kwm_health *health) {
  const struct lowrank_state *const state = cov->state;
  health->trace += trace_here(cov);
  if (state->n > 0) health->prior_trace += prior_trace(&cov->spec, state->prior);
  health->parameters += (double)state->n;
}

int64_t lowrank_spectrum_length(const struct kwm_cov_spec *spec) {
  return lowrank_here(spec) ? lowrank_columns(spec) + 1 : 0;
}

bool lowrank_spectrum(const kwm_cov *cov, double *values) {
  const struct lowrank_state *const state = cov->state;
  const int64_t r = state->r;
  const bool precision = cov->spec.kind == KWM_LOWRANK_PRECISION;
  double *const G = lowrank_square(state, 0), *const lengths = state->values;
  if (cov->spec.kind == KWM_LOWRANK_DIAGONAL) return lowrank_diagonal_spectrum(cov, values);
  lowrank_gram(cov, 0, lowrank_plain, G);
  if (!lowrank_finite(r * r, G) || !kwm_eigen_f64(r, G, lengths)) return false;
  for (int64_t j = 0; j < r; j++) lengths[j] = state->floor + fmax(lengths[j], 0);
  for (int64_t j = 0; j < r; j++) values[j] = precision ? 1 / lengths[r - 1 - j] : lengths[j];
  values[r] = precision ? 1 / state->floor : state->floor;
  return lowrank_finite(r + 1, values);
}

bool lowrank_covariance(const kwm_cov *cov, double *P) {
  const bool diagonal = cov->spec.kind == KWM_LOWRANK_DIAGONAL;
  const struct lowrank_state *const state = cov->state;
  const int64_t n = state->n, r = state->r, period = prior_period(&cov->spec);
  const double *const root = lowrank_root(cov);
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = 0; j <= i; j++) {
      double sum = i != j ? 0 : diagonal ? reals_get(&state->diagonal, i) : state->floor;
      for (int64_t k = 0; k < r; k++)
        sum += reals_get(&state->factor, i * r + k) * reals_get(&state->factor, j * r + k);
      P[i * n + j] = P[j * n + i] = sum;
    }
  if (lowrank_is_precision(cov->spec.kind) && !(kwm_cholesky_f64(n, P, n) && kwm_cholesky_invert_f64(n, P, n)))
    return false;
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = 0; j < n; j++) P[i * n + j] *= root[i % period] * root[j % period];
  return lowrank_finite(n * n, P);
}

static const char *dataset(const struct kwm_cov_spec *spec, const char *leaf, char *name, size_t size) {
  snprintf(name, size, "/cov/%s%s%s", spec->name, leaf[0] != 0 ? "/" : "", leaf);
  return name;
}

kwm_status lowrank_save(const kwm_cov *cov, kwm_ckpt *ckpt, bool writes) {
  const struct kwm_cov_spec *const spec = &cov->spec;
  const struct lowrank_state *const state = cov->state;
  const int64_t dims[2] = {spec->total * spec->params, state->r}, one[1] = {1};
  const int64_t rows = writes ? state->n : 0;
  char name[128];
  KWM_TRY(kwm_ckpt_put(ckpt, dataset(spec, "factor", name, sizeof name), reals_type(spec->real), 2, dims,
                       rows > 0 ? spec->first * spec->params : 0, rows, reals_data(&state->factor)));
  if (spec->kind == KWM_LOWRANK_DIAGONAL)
    KWM_TRY(kwm_ckpt_put(ckpt, dataset(spec, "diagonal", name, sizeof name), reals_type(spec->real), 1, dims,
                         rows > 0 ? spec->first * spec->params : 0, rows, reals_data(&state->diagonal)));
  else
    KWM_TRY(kwm_ckpt_put(ckpt, dataset(spec, "floor", name, sizeof name), KWM_F64, 1, one, 0,
                         rows > 0 && spec->first == 0 ? 1 : 0, &state->floor));
  return kwm_ckpt_put_i64(ckpt, dataset(spec, "", name, sizeof name), "kind", spec->kind);
}

kwm_status lowrank_load(kwm_cov *cov, kwm_ckpt *ckpt) {
  const struct kwm_cov_spec *const spec = &cov->spec;
  struct lowrank_state *state = cov->state;
  const int64_t dims[2] = {spec->total * spec->params, state->r}, one[1] = {1};
  int64_t kind;
  char name[128];
  KWM_TRY(kwm_ckpt_get_i64(ckpt, dataset(spec, "", name, sizeof name), "kind", &kind));
  KWM_CHECK(kind == (int64_t)spec->kind, KWM_ERR_DATA, "%s: lowrank %s: wanted kind %d, found %lld",
            kwm_ckpt_path(ckpt), name, (int)spec->kind, (long long)kind);
  KWM_TRY(kwm_ckpt_get(ckpt, dataset(spec, "factor", name, sizeof name), reals_type(spec->real), 2, dims,
                       state->n > 0 ? spec->first * spec->params : 0, state->n, reals_data(&state->factor)));
  if (spec->kind == KWM_LOWRANK_DIAGONAL)
    return kwm_ckpt_get(ckpt, dataset(spec, "diagonal", name, sizeof name), reals_type(spec->real), 1, dims,
                        state->n > 0 ? spec->first * spec->params : 0, state->n, reals_data(&state->diagonal));
  return kwm_ckpt_get(ckpt, dataset(spec, "floor", name, sizeof name), KWM_F64, 1, one, 0, lowrank_here(spec) ? 1 : 0,
                      &state->floor);
}
