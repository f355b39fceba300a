/* Sums over parameters and new factors, panel by panel of parameters, in double whatever the factor is kept in; summed
   over the ranks that hold the parameters. And the first subspace of form S. */
#include "lowrank.h"

#include <math.h>
#include <string.h>

#include "kwm/backend.h"
#include "kwm/rng.h"

/* Directions of normalised columns whose squared length is below this part of the largest are rounding. */
static const double DEPENDENT = 1e-12;

void lowrank_sum(const kwm_cov *cov, int64_t n, double *values) {
  if (cov->spec.layout != NULL) kwm_par_sum_group(cov->spec.layout, n, values);
}

bool lowrank_finite(int64_t n, const double *x) {
  double sum = 0;
  for (int64_t k = 0; k < n; k++) sum += x[k];
  return isfinite(sum);
}

/* panel (count, s) <- parameters [first, first + count) of Z, with the first `rows` rows of the step. */
static void load_panel(const struct lowrank_state *state, int64_t first, int64_t count, int64_t rows) {
  const int64_t r = state->r, s = r + rows;
  for (int64_t i = 0; i < count; i++)
    for (int64_t j = 0; j < r; j++) state->panel[i * s + j] = reals_get(&state->factor, (first + i) * r + j);
  for (int64_t a = 0; a < rows; a++)
    for (int64_t i = 0; i < count; i++) state->panel[i * s + r + a] = reals_get(&state->rows, a * state->n + first + i);
}

static int64_t panel_count(const struct lowrank_state *state, int64_t first) {
  return state->n - first < LOWRANK_PANEL ? state->n - first : LOWRANK_PANEL;
}

void lowrank_gram_here(const kwm_cov *cov, int64_t rows, struct lowrank_weights weights, double *G) {
  const struct lowrank_state *const state = cov->state;
  const int64_t s = state->r + rows;
  memset(G, 0, (size_t)(s * s) * sizeof *G);
  for (int64_t first = 0; first < state->n; first += LOWRANK_PANEL) {
    const int64_t count = panel_count(state, first);
    load_panel(state, first, count, rows);
    for (int64_t k = 0; weights.at != NULL && k < count * s; k++)
      state->panel[k] *= weights.at[(first + k / s) % weights.period];
    kwm_gram_f64(s, count, 1, state->panel, s, 1, G, s);
  }
  kwm_mirror_f64(s, G, s);
}

void lowrank_gram(const kwm_cov *cov, int64_t rows, struct lowrank_weights weights, double *G) {
  const struct lowrank_state *const state = cov->state;
  const int64_t s = state->r + rows;
  lowrank_gram_here(cov, rows, weights, G);
  lowrank_sum(cov, s * s, G);
}

/* Row k of fresh: `given` numbers that are given up, then r of the factor. */
static void store_row(struct lowrank_state *state, int64_t k, int64_t given, const double *fresh) {
  double squares = 0;
  for (int64_t j = 0; j < given; j++) squares += fresh[j] * fresh[j];
  if (given > 0) reals_set(&state->diagonal, k, reals_get(&state->diagonal, k) + squares);
  for (int64_t j = 0; j < state->r; j++) reals_set(&state->factor, k * state->r + j, fresh[given + j]);
}

void lowrank_recombine(kwm_cov *cov, int64_t rows) {
  struct lowrank_state *state = cov->state;
  const int64_t s = state->r + rows, given = lowrank_given_up(cov->spec.kind, rows), columns = given + state->r;
  double *const fresh = state->panel + LOWRANK_PANEL * s;
  for (int64_t first = 0; first < state->n; first += LOWRANK_PANEL) {
    const int64_t count = panel_count(state, first);
    load_panel(state, first, count, rows);
    kwm_gemm_f64(false, false, count, columns, s, 1, state->panel, s, state->mix, columns, 0, fresh, columns);
    for (int64_t k = 0; k < count; k++) store_row(state, first + k, given, fresh + k * columns);
  }
}

/* mix (r, r) <- such that factor mix is orthonormal, from the Gram matrix G; the number of independent columns. */
static int64_t orthonormal(struct lowrank_state *state, const double *G) {
  const int64_t r = state->r;
  double *const K = lowrank_square(state, 0), *const values = state->values;
  int64_t found = 0;
  for (int64_t k = 0; k < r * r; k++) K[k] = G[k] / (sqrt(G[k / r * r + k / r]) * sqrt(G[k % r * r + k % r]));
  if (!kwm_eigen_f64(r, K, values)) return 0;
  while (found < r && values[r - 1 - found] > DEPENDENT * values[r - 1]) found++;
  for (int64_t k = 0; k < r * r; k++) state->mix[k] = K[k] / (sqrt(values[k % r]) * sqrt(G[k / r * r + k / r]));
  return found;
}

kwm_status lowrank_draw(kwm_cov *cov) {
  struct lowrank_state *state = cov->state;
  const int64_t r = state->r, before = cov->spec.first * cov->spec.params * r;
  /* Once leaves columns orthogonal as far as they were independent; a second time, to all digits. */
  const int passes = cov->spec.real == KWM_REAL_DOUBLE ? 2 : 1;
  for (int64_t k = 0; k < state->n * r; k++)
    reals_set(&state->factor, k, kwm_rng_normal(cov->spec.seed, KWM_RNG_SUBSPACE, 0, (uint64_t)(before + k)));
  for (int pass = 0; pass < passes; pass++) {
    lowrank_gram(cov, 0, lowrank_plain, state->gram);
    const int64_t found = orthonormal(state, state->gram);
    KWM_CHECK(found == r, KWM_ERR_NUMERIC, "cov.%s: lowrank: wanted %lld independent random directions, found %lld",
              cov->spec.name, (long long)r, (long long)found);
    lowrank_recombine(cov, 0);
  }
  return KWM_OK;
}
