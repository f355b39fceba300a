/* One low-rank matrix for all blocks of a group together, on the group's one owner; innovation form (equations.md
   Sec. 12). Works in z, θ = P0^½ z with H scaled by P0^½ to match, where the prior is the identity, so that the scalar
   floors of the forms hold for any diagonal prior.

     form B   Λ = λ0 I + B Bᵀ   the r directions that data pinned down best
     form A   P = σ² I + U Uᵀ   the r directions that are known least; from the prior P = I it remembers nothing
     form S   P = U Uᵀ          the prior on a random subspace of r dimensions, where the mean then moves

   With T = H U or H B:   H P Hᵀ = σ² HHᵀ + TTᵀ,  δ = σ² Hᵀw + U Tᵀw;
   form B:                H P Hᵀ = (HHᵀ - T M⁻¹ Tᵀ)/λ0,  δ = (Hᵀw - B M⁻¹ Tᵀw)/λ0,  M = λ0 I + BᵀB.
   All of them are entries of ZᵀZ, Z = [factor, Hᵀ], accumulated in double precision over panels of parameters; the
   posterior's factor is Z times a small matrix (lowrank_posterior.c), again panel by panel and in place.

   Time update, columns being orthogonal (form S: within its subspace):  the eigenvalue x of Λ or P that belongs to a
   column goes where the whole filter's would go, the floor too, and the column is rescaled. */
#include "lowrank.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "kwm/backend.h"
#include "kwm/rng.h"

#include "prior.h"

enum { PANEL = 64 };

/* The state's arrays as (pointer, bytes) pairs: one list for allocation, size and release. */
enum { LOWRANK_ARRAYS = 12 };
struct lowrank_array {
  void **at;
  int64_t numbers;
  size_t size;
};

static int64_t columns(const struct kwm_cov_spec *spec) {
  const int64_t most = spec->total * spec->params;
  return spec->rank < most ? spec->rank : most;
}

static void arrays_of(struct lowrank_state *state, const struct kwm_cov_spec *spec,
                      struct lowrank_array arrays[LOWRANK_ARRAYS]) {
  const int64_t n = spec->count * spec->params, r = columns(spec), rows = spec->n_max * spec->m, s = r + rows;
  const bool precision = spec->kind == KWM_LOWRANK_PRECISION;
  const struct lowrank_array list[LOWRANK_ARRAYS] = {
      {(void **)&state->factor, n * r, sizeof(float)},
      {(void **)&state->rows, rows * n, sizeof(float)},
      {(void **)&state->prior, 2 * prior_period(spec), sizeof(double)},
      {(void **)&state->delta, n, sizeof(double)},
      {(void **)&state->panel, PANEL * (s + r), sizeof(double)},
      {(void **)&state->gram, s * s, sizeof(double)},
      {(void **)&state->own, rows * rows, sizeof(double)},
      {(void **)&state->core, precision ? r * r : 0, sizeof(double)},
      {(void **)&state->white, rows * rows, sizeof(double)},
      {(void **)&state->square, lowrank_squares(spec) * s * s, sizeof(double)},
      {(void **)&state->mix, s * r, sizeof(double)},
      {(void **)&state->values, s, sizeof(double)},
  };
  memcpy(arrays, list, sizeof list);
}

static size_t lowrank_bytes(const struct kwm_cov_spec *spec) {
  struct lowrank_state none;
  struct lowrank_array arrays[LOWRANK_ARRAYS];
  size_t bytes = kwm_mem_rounded(sizeof none);
  if (spec->count == 0) return bytes;
  arrays_of(&none, spec, arrays);
  for (int k = 0; k < LOWRANK_ARRAYS; k++)
    if (arrays[k].numbers > 0) bytes += kwm_mem_rounded((size_t)arrays[k].numbers * arrays[k].size);
  return bytes;
}

/* No evidence: rows do not add up to a vector of fixed length. */
static int64_t lowrank_evidence_length(const struct kwm_cov_spec *spec) {
  (void)spec;
  return 0;
}

/* panel (count, s) <- parameters [first, first + count) of Z, with the first `rows` rows of the step. */
static void load_panel(const struct lowrank_state *state, int64_t first, int64_t count, int64_t rows) {
  const int64_t r = state->r, s = r + rows;
  for (int64_t i = 0; i < count; i++)
    for (int64_t j = 0; j < r; j++) state->panel[i * s + j] = (double)state->factor[(first + i) * r + j];
  for (int64_t a = 0; a < rows; a++) {
    const float *const row = state->rows + a * state->n + first;
    for (int64_t i = 0; i < count; i++) state->panel[i * s + r + a] = (double)row[i];
  }
}

static int64_t panel_count(const struct lowrank_state *state, int64_t first) {
  return state->n - first < PANEL ? state->n - first : PANEL;
}

/* G (s, s) <- ZᵀZ with the first `rows` rows of the step; weighted by the prior variances if asked. */
static void gram(const kwm_cov *cov, int64_t rows, bool weighted, double *G) {
  const struct lowrank_state *const state = cov->state;
  const int64_t s = state->r + rows, period = prior_period(&cov->spec);
  const double *const root = state->prior + period;
  memset(G, 0, (size_t)(s * s) * sizeof *G);
  for (int64_t first = 0; first < state->n; first += PANEL) {
    const int64_t count = panel_count(state, first);
    load_panel(state, first, count, rows);
    for (int64_t k = 0; weighted && k < count * s; k++) state->panel[k] *= root[(first + k / s) % period];
    kwm_gram_f64(s, count, 1, state->panel, s, 1, G, s);
  }
  for (int64_t i = 0; i < s; i++)
    for (int64_t j = i + 1; j < s; j++) G[j * s + i] = G[i * s + j];
}

/* factor <- Z mix with the first `rows` rows of the step. */
static void recombine(struct lowrank_state *state, int64_t rows) {
  const int64_t r = state->r, s = r + rows;
  double *const fresh = state->panel + PANEL * s;
  for (int64_t first = 0; first < state->n; first += PANEL) {
    const int64_t count = panel_count(state, first);
    load_panel(state, first, count, rows);
    kwm_gemm_f64(false, false, count, r, s, 1, state->panel, s, state->mix, r, 0, fresh, r);
    for (int64_t k = 0; k < count * r; k++) state->factor[first * r + k] = (float)fresh[k];
  }
}

/* factor <- r random orthonormal columns. */
static kwm_status draw_subspace(kwm_cov *cov) {
  struct lowrank_state *state = cov->state;
  const int64_t r = state->r;
  double *const G = state->gram, *const N = lowrank_square(state, 0);
  for (int64_t k = 0; k < state->n * r; k++)
    state->factor[k] = (float)kwm_rng_normal(cov->spec.seed, KWM_RNG_SUBSPACE, 0, (uint64_t)k);
  gram(cov, 0, false, G);
  const int64_t t = lowrank_orthonormal(r, G, N, state->values);
  KWM_CHECK(t == r, KWM_ERR_NUMERIC, "cov.%s: lowrank: wanted %lld independent random directions, found %lld",
            cov->spec.name, (long long)r, (long long)t);
  memcpy(state->mix, N, (size_t)(r * r) * sizeof *N);
  recombine(state, 0);
  return KWM_OK;
}

static kwm_status lowrank_create(kwm_cov *cov) {
  const struct kwm_cov_spec *const spec = &cov->spec;
  KWM_CHECK(spec->form == KWM_FORM_INNOVATION, KWM_ERR_USAGE,
            "cov.%s: lowrank: wanted form innovation, found information", spec->name);
  KWM_CHECK(spec->rank >= 1, KWM_ERR_USAGE, "cov.%s: lowrank: wanted rank >= 1, found %lld", spec->name,
            (long long)spec->rank);
  KWM_CHECK(spec->count == 0 || spec->count == spec->total, KWM_ERR_USAGE,
            "cov.%s: lowrank keeps the group's blocks together: wanted them on one owner, found %lld of %lld here",
            spec->name, (long long)spec->count, (long long)spec->total);
  KWM_TRY(kwm_alloc(&cov->state, sizeof(struct lowrank_state), "low-rank covariance"));
  struct lowrank_state *state = cov->state;
  state->r = columns(spec);
  if (spec->count == 0) return KWM_OK;
  struct lowrank_array arrays[LOWRANK_ARRAYS];
  arrays_of(state, spec, arrays);
  for (int k = 0; k < LOWRANK_ARRAYS; k++)
    if (arrays[k].numbers > 0)
      KWM_TRY(kwm_alloc(arrays[k].at, (size_t)arrays[k].numbers * arrays[k].size, "low-rank covariance"));
  state->n = spec->count * spec->params;
  state->s_max = state->r + spec->n_max * spec->m;
  prior_fill(spec, state->prior);
  for (int64_t k = 0; k < prior_period(spec); k++) state->prior[prior_period(spec) + k] = sqrt(state->prior[k]);
  cov->spec.prior_variance = state->prior;
  state->floor = spec->kind == KWM_LOWRANK_SUBSPACE ? 0 : 1;
  return spec->kind == KWM_LOWRANK_SUBSPACE ? draw_subspace(cov) : KWM_OK;
}

static void lowrank_destroy(kwm_cov *cov) {
  if (cov->state == NULL) return;
  struct lowrank_array arrays[LOWRANK_ARRAYS];
  arrays_of(cov->state, &cov->spec, arrays);
  for (int k = 0; k < LOWRANK_ARRAYS; k++) kwm_free(*arrays[k].at);
  kwm_free(cov->state);
}

/* λ, q on the floor; values (r), the squared lengths of the columns <- factors for the columns. */
static void predict_values(const struct kwm_cov_spec *spec, struct lowrank_state *state) {
  const double lambda = spec->forgetting, q = spec->process_noise, before = state->floor;
  const double forgotten = lambda + (1 - lambda) * before;
  if (spec->kind == KWM_LOWRANK_PRECISION) state->floor = (lambda * before + 1 - lambda);
  const double floor = state->floor;
  for (int64_t j = 0; j < state->r; j++) {
    const double length = state->values[j], x = before + length, part = lambda + (1 - lambda) * x;
    double square = 0;
    switch (spec->kind) {
    case KWM_LOWRANK_PRECISION: square = lambda / ((1 + q * floor) * (1 + q * (floor + lambda * length))); break;
    case KWM_LOWRANK_COVARIANCE: square = lambda / (part * forgotten); break;
    case KWM_LOWRANK_SUBSPACE: square = length > 0 ? 1 / part + q / length : 0; break;
    }
    state->values[j] = sqrt(square);
  }
  if (spec->kind == KWM_LOWRANK_PRECISION) state->floor = floor / (1 + q * floor);
  if (spec->kind == KWM_LOWRANK_COVARIANCE) state->floor = before / forgotten + q;
}

static bool lowrank_predict(kwm_cov *cov, int64_t step) {
  (void)step;
  struct lowrank_state *state = cov->state;
  const int64_t n = state->n, r = state->r;
  if (cov->spec.forgetting == 1 && cov->spec.process_noise == 0) return true;
  for (int64_t j = 0; j < r; j++) state->values[j] = 0;
  for (int64_t k = 0; k < n; k++)
    for (int64_t j = 0; j < r; j++) {
      const double value = (double)state->factor[k * r + j];
      state->values[j] += value * value;
    }
  predict_values(&cov->spec, state);
  for (int64_t k = 0; k < n; k++)
    for (int64_t j = 0; j < r; j++)
      state->factor[k * r + j] = (float)((double)state->factor[k * r + j] * state->values[j]);
  return true;
}

/* own <- HPHᵀ in form B; false if it cannot be had. */
static bool own_precision(struct lowrank_state *state) {
  const int64_t r = state->r, rows = state->step_rows, s = r + rows;
  const double *const G = state->gram;
  double *const solved = state->values;
  for (int64_t i = 0; i < r; i++) {
    memcpy(state->core + i * r, G + i * s, (size_t)r * sizeof *G);
    state->core[i * r + i] += state->floor;
  }
  if (!kwm_cholesky_f64(r, state->core, r)) return false;
  for (int64_t a = 0; a < rows; a++) {
    const double *const Ga = G + (r + a) * s;
    memcpy(solved, Ga, (size_t)r * sizeof *solved);
    kwm_cholesky_solve_f64(r, state->core, r, solved);
    for (int64_t b = 0; b < rows; b++) {
      double sum = Ga[r + b];
      for (int64_t j = 0; j < r; j++) sum -= G[(r + b) * s + j] * solved[j];
      state->own[a * rows + b] = sum / state->floor;
    }
    /* What rounding may have taken too much, so that S stays positive definite where B knows H to all digits. */
    state->own[a * rows + a] += 2.2e-16 * (double)s * Ga[r + a] / state->floor;
  }
  return true;
}

/* own <- HPHᵀ in forms A and S. */
static void own_covariance(struct lowrank_state *state) {
  const int64_t r = state->r, rows = state->step_rows, s = r + rows;
  const double *const G = state->gram;
  kwm_gemm_f64(false, true, rows, rows, r, 1, G + r * s, s, G + r * s, s, 0, state->own, rows);
  for (int64_t a = 0; a < rows; a++)
    for (int64_t b = 0; b < rows; b++) state->own[a * rows + b] += state->floor * G[(r + a) * s + r + b];
}

static void lowrank_project(kwm_cov *cov, const struct kwm_jac *jac, float *S) {
  struct lowrank_state *state = cov->state;
  const int64_t n = state->n, rows = jac->n * jac->m, period = prior_period(&cov->spec);
  const double *const root = state->prior + period;
  bool good = true;
  kwm_jac_dense(jac, state->rows);
  for (int64_t a = 0; a < rows; a++)
    for (int64_t k = 0; k < n; k++) state->rows[a * n + k] = (float)((double)state->rows[a * n + k] * root[k % period]);
  state->step_rows = rows;
  gram(cov, rows, false, state->gram);
  if (cov->spec.kind == KWM_LOWRANK_PRECISION)
    good = own_precision(state);
  else
    own_covariance(state);
  for (int64_t k = 0; k < rows * rows; k++) S[k] += good ? (float)state->own[k] : NAN;
}

/* δ = P0^½ (α Hᵀw + factor c), c from Tᵀw. */
static void prepare_step(kwm_cov *cov, const float *w) {
  struct lowrank_state *state = cov->state;
  const int64_t n = state->n, r = state->r, rows = state->step_rows, s = r + rows, period = prior_period(&cov->spec);
  const double *const root = state->prior + period;
  const bool precision = cov->spec.kind == KWM_LOWRANK_PRECISION;
  const double share = precision ? 1 : state->floor;
  double *const c = state->values;
  for (int64_t j = 0; j < r; j++) c[j] = 0;
  for (int64_t a = 0; a < rows; a++)
    for (int64_t j = 0; j < r; j++) c[j] += state->gram[(r + a) * s + j] * (double)w[a];
  if (precision) kwm_cholesky_solve_f64(r, state->core, r, c);
  for (int64_t k = 0; k < n; k++) state->delta[k] = 0;
  for (int64_t a = 0; a < rows; a++)
    for (int64_t k = 0; k < n; k++) state->delta[k] += (double)state->rows[a * n + k] * (double)w[a];
  for (int64_t k = 0; k < n; k++) {
    double sum = 0;
    for (int64_t j = 0; j < r; j++) sum += (double)state->factor[k * r + j] * c[j];
    const double z = precision ? (state->delta[k] - sum) / state->floor : share * state->delta[k] + sum;
    state->delta[k] = root[k % period] * z;
  }
}

static bool lowrank_condition(kwm_cov *cov, const struct kwm_jac *jac, const float *L, const float *w) {
  struct lowrank_state *state = cov->state;
  const int64_t rows = state->step_rows, s = state->r + rows;
  double sum = 0, seen = 0;
  KWM_ASSERT(rows == jac->n * jac->m);
  prepare_step(cov, w);
  for (int64_t k = 0; k < state->n; k++) sum += state->delta[k];
  for (int64_t k = state->r; k < s; k++) seen += state->gram[k * s + k];
  state->blind = seen == 0;
  if (!isfinite(sum + seen)) return false;
  return state->blind || (lowrank_whiten(state, L) && lowrank_posterior(state, cov->spec.kind));
}

static void lowrank_apply(kwm_cov *cov, double scale, float *mean) {
  struct lowrank_state *state = cov->state;
  for (int64_t k = 0; k < state->n; k++) mean[k] += (float)(scale * state->delta[k]);
  if (state->blind) return;
  recombine(state, state->step_rows);
}

/* Trace of P, exact from the factors, in the parameters' units. */
static double trace(const kwm_cov *cov) {
  const struct lowrank_state *const state = cov->state;
  const int64_t r = state->r;
  double *const Gp = lowrank_square(state, 0), *const M = lowrank_square(state, 1);
  double sum = 0;
  gram(cov, 0, true, Gp);
  if (cov->spec.kind != KWM_LOWRANK_PRECISION) {
    for (int64_t j = 0; j < r; j++) sum += Gp[j * r + j];
    return state->floor * prior_trace(&cov->spec, state->prior) + sum;
  }
  gram(cov, 0, false, M);
  for (int64_t j = 0; j < r; j++) M[j * r + j] += state->floor;
  if (!kwm_cholesky_f64(r, M, r) || !kwm_cholesky_invert_f64(r, M, r)) return NAN;
  for (int64_t k = 0; k < r * r; k++) sum += M[k] * Gp[k];
  return (prior_trace(&cov->spec, state->prior) - sum) / state->floor;
}

static void lowrank_health(const kwm_cov *cov, struct kwm_health *health) {
  const struct lowrank_state *const state = cov->state;
  health->trace += trace(cov);
  health->prior_trace += prior_trace(&cov->spec, state->prior);
  health->parameters += (double)state->n;
}

static const char *dataset(const struct kwm_cov_spec *spec, const char *leaf, char *name, size_t size) {
  snprintf(name, size, "/cov/%s%s%s", spec->name, leaf[0] != 0 ? "/" : "", leaf);
  return name;
}

static kwm_status lowrank_save(const kwm_cov *cov, kwm_ckpt *ckpt, bool writes) {
  const struct kwm_cov_spec *const spec = &cov->spec;
  const struct lowrank_state *const state = cov->state;
  const int64_t dims[2] = {spec->total * spec->params, state->r}, one[1] = {1};
  const bool mine = writes && spec->count > 0;
  char name[128];
  KWM_TRY(kwm_ckpt_put(ckpt, dataset(spec, "factor", name, sizeof name), KWM_F32, 2, dims, 0, mine ? dims[0] : 0,
                       state->factor));
  KWM_TRY(
      kwm_ckpt_put(ckpt, dataset(spec, "floor", name, sizeof name), KWM_F64, 1, one, 0, mine ? 1 : 0, &state->floor));
  return kwm_ckpt_put_i64(ckpt, dataset(spec, "", name, sizeof name), "kind", spec->kind);
}

static kwm_status lowrank_load(kwm_cov *cov, kwm_ckpt *ckpt) {
  const struct kwm_cov_spec *const spec = &cov->spec;
  struct lowrank_state *state = cov->state;
  const int64_t dims[2] = {spec->total * spec->params, state->r}, one[1] = {1};
  const bool mine = spec->count > 0;
  int64_t kind;
  char name[128];
  KWM_TRY(kwm_ckpt_get_i64(ckpt, dataset(spec, "", name, sizeof name), "kind", &kind));
  KWM_CHECK(kind == (int64_t)spec->kind, KWM_ERR_DATA, "%s: lowrank %s: wanted kind %d, found %lld",
            kwm_ckpt_path(ckpt), name, (int)spec->kind, (long long)kind);
  KWM_TRY(kwm_ckpt_get(ckpt, dataset(spec, "factor", name, sizeof name), KWM_F32, 2, dims, 0, mine ? dims[0] : 0,
                       state->factor));
  return kwm_ckpt_get(ckpt, dataset(spec, "floor", name, sizeof name), KWM_F64, 1, one, 0, mine ? 1 : 0, &state->floor);
}

const struct kwm_cov_ops kwm_cov_lowrank = {
    .name = "lowrank",
    .bytes = lowrank_bytes,
    .evidence_length = lowrank_evidence_length,
    .create = lowrank_create,
    .predict = lowrank_predict,
    .project = lowrank_project,
    .condition = lowrank_condition,
    .apply = lowrank_apply,
    .health = lowrank_health,
    .save = lowrank_save,
    .load = lowrank_load,
    .destroy = lowrank_destroy,
};
