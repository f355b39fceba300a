/* One low-rank matrix for all blocks of a group together, on one owner or spread over several (equations.md Sec. 12).
   Works in z, θ = P0^½ z with H scaled by P0^½ to match, where the prior is the identity, so that the scalar floors of
   the forms hold for any diagonal prior.

     form B   Λ = λ0 I + B Bᵀ   the r directions that data pinned down best
     form A   P = σ² I + U Uᵀ   the r directions that are known least; from the prior P = I it remembers nothing
     form S   P = U Uᵀ          the prior on a random subspace of r dimensions, where the mean then moves
     diagonal Λ = D + B Bᵀ      form B with D = diag(d), which keeps of all other directions what is on the diagonal

   With T = H U or H B:   H P Hᵀ = σ² HHᵀ + TTᵀ,  δ = σ² Hᵀw + U Tᵀw;
   form B:                H P Hᵀ = (HHᵀ - T M⁻¹ Tᵀ)/λ0,  δ = (Hᵀw - B M⁻¹ Tᵀw)/λ0,  M = λ0 I + BᵀB;
   diagonal: form B with HD⁻¹Hᵀ, T = HD⁻¹B, M = I + BᵀD⁻¹B and D⁻¹ for 1/λ0.
   All of them are entries of ZᵀZ, Z = [factor, Hᵀ], accumulated in double precision (lowrank_factor.c); the posterior's
   factor is Z times a small matrix (lowrank_posterior.c), in place. The time update rescales columns (lowrank_time.c).

   Rows of different samples do not add up to a vector of fixed length, so that the information form is the innovation
   form with an S of the group's own, I + H P Hᵀ, from all rows of the step at once.

   Several owners: each holds its parameters' rows of Z. What they exchange is ZᵀZ, summed, and the squared lengths of
   columns; all that follows from it is computed on every rank of the group alike, so that no rank waits for another's
   verdict. */
#include "lowrank.h"

#include <math.h>
#include <string.h>

#include "kwm/backend.h"

/* The state's arrays as (pointer, bytes) pairs: one list for allocation, size and release. */
enum { LOWRANK_ARRAYS = 15 };
struct lowrank_array {
  void **at;
  int64_t numbers;
  size_t size;
};

static struct lowrank_array array_of(struct reals *reals, enum kwm_real real, int64_t numbers) {
  void **const at = real == KWM_REAL_DOUBLE ? (void **)&reals->f64 : (void **)&reals->f32;
  return (struct lowrank_array){at, numbers, reals_size(real)};
}

static void arrays_of(struct lowrank_state *state, const struct kwm_cov_spec *spec,
                      struct lowrank_array arrays[LOWRANK_ARRAYS]) {
  const int64_t n = spec->count * spec->params, r = lowrank_columns(spec), rows = spec->n_max * spec->m, s = r + rows;
  const bool precision = lowrank_is_precision(spec->kind), information = spec->form == KWM_FORM_INFORMATION;
  const bool diagonal = spec->kind == KWM_LOWRANK_DIAGONAL;
  const int64_t columns = r + lowrank_given_up(spec->kind, rows);
  const struct lowrank_array list[LOWRANK_ARRAYS] = {
      array_of(&state->factor, spec->real, n * r),
      array_of(&state->rows, spec->real, rows * n),
      array_of(&state->diagonal, spec->real, diagonal ? n : 0),
      {(void **)&state->metric, diagonal ? n : 0, sizeof(double)},
      {(void **)&state->prior, n > 0 ? 2 * prior_period(spec) : 0, sizeof(double)},
      {(void **)&state->delta, n, sizeof(double)},
      {(void **)&state->panel, n > 0 ? LOWRANK_PANEL * (s + columns) : 0, sizeof(double)},
      {(void **)&state->gram, s * s, sizeof(double)},
      {(void **)&state->own, rows * rows, sizeof(double)},
      {(void **)&state->core, precision ? r * r : 0, sizeof(double)},
      {(void **)&state->white, rows * rows, sizeof(double)},
      {(void **)&state->square, lowrank_squares(spec) * s * s, sizeof(double)},
      {(void **)&state->mix, s * columns, sizeof(double)},
      {(void **)&state->values, 2 * s, sizeof(double)},
      {(void **)&state->w, information ? rows : 0, sizeof(double)},
  };
  memcpy(arrays, list, sizeof list);
}

static size_t lowrank_bytes(const struct kwm_cov_spec *spec) {
  struct lowrank_state none;
  struct lowrank_array arrays[LOWRANK_ARRAYS];
  size_t bytes = kwm_mem_rounded(sizeof none);
  if (!lowrank_here(spec)) return bytes;
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

static void lowrank_evidence(kwm_cov *cov, const struct kwm_jac *jac, float *evidence) {
  (void)cov, (void)jac, (void)evidence;
}

static kwm_status check(const struct kwm_cov_spec *spec) {
  KWM_CHECK(spec->rank >= 1, KWM_ERR_USAGE, "cov.%s: lowrank: wanted rank >= 1, found %lld", spec->name,
            (long long)spec->rank);
  KWM_CHECK(spec->layout != NULL || spec->count == 0 || spec->count == spec->total, KWM_ERR_USAGE,
            "cov.%s: lowrank keeps the group's blocks together: wanted them on one owner, found %lld of %lld here",
            spec->name, (long long)spec->count, (long long)spec->total);
  return KWM_OK;
}

/* Local: the arrays and the prior. */
static kwm_status allocate(kwm_cov *cov) {
  const struct kwm_cov_spec *const spec = &cov->spec;
  KWM_TRY(check(spec));
  KWM_TRY(kwm_alloc(&cov->state, sizeof(struct lowrank_state), "low-rank covariance"));
  struct lowrank_state *state = cov->state;
  state->r = lowrank_columns(spec);
  if (!lowrank_here(spec)) return KWM_OK;
  struct lowrank_array arrays[LOWRANK_ARRAYS];
  arrays_of(state, spec, arrays);
  for (int k = 0; k < LOWRANK_ARRAYS; k++)
    if (arrays[k].numbers > 0)
      KWM_TRY(kwm_alloc(arrays[k].at, (size_t)arrays[k].numbers * arrays[k].size, "low-rank covariance"));
  state->n = spec->count * spec->params;
  state->s_max = state->r + spec->n_max * spec->m;
  state->floor = spec->kind == KWM_LOWRANK_SUBSPACE ? 0 : 1;
  if (state->n == 0) return KWM_OK;
  for (int64_t k = 0; spec->kind == KWM_LOWRANK_DIAGONAL && k < state->n; k++) reals_set(&state->diagonal, k, 1);
  prior_fill(spec, state->prior);
  for (int64_t k = 0; k < prior_period(spec); k++) state->prior[prior_period(spec) + k] = sqrt(state->prior[k]);
  return KWM_OK;
}

/* Collective: the owners' blocks make the group. */
static kwm_status check_owners(const kwm_cov *cov) {
  double found = (double)cov->spec.count;
  lowrank_sum(cov, 1, &found);
  KWM_CHECK(found == (double)cov->spec.total, KWM_ERR_USAGE,
            "cov.%s: lowrank: wanted the group's %lld blocks on its owners, found %.0f", cov->spec.name,
            (long long)cov->spec.total, found);
  return KWM_OK;
}

static kwm_status lowrank_create(kwm_cov *cov) {
  const bool spread = cov->spec.layout != NULL;
  const kwm_status status = allocate(cov);
  KWM_TRY(spread ? kwm_agree(cov->spec.layout->group, status) : status);
  const struct lowrank_state *const state = cov->state;
  cov->spec.prior_variance = state->prior;
  if (spread) KWM_TRY(check_owners(cov));
  return cov->spec.kind == KWM_LOWRANK_SUBSPACE && lowrank_here(&cov->spec) ? lowrank_draw(cov) : KWM_OK;
}

static void lowrank_destroy(kwm_cov *cov) {
  if (cov->state == NULL) return;
  struct lowrank_array arrays[LOWRANK_ARRAYS];
  arrays_of(cov->state, &cov->spec, arrays);
  for (int k = 0; k < LOWRANK_ARRAYS; k++) kwm_free(*arrays[k].at);
  kwm_free(cov->state);
}

/* own <- HPHᵀ in form B and on a diagonal, whose gram has d in it; false if it cannot be had. */
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

/* Collective: rows, gram and own of the step; false if HPHᵀ cannot be had, alike on all ranks. */
static bool observe(kwm_cov *cov, const struct kwm_jac *jac) {
  struct lowrank_state *state = cov->state;
  const int64_t n = state->n, rows = jac->n * jac->m, period = prior_period(&cov->spec);
  const double *const root = lowrank_root(cov);
  const bool diagonal = cov->spec.kind == KWM_LOWRANK_DIAGONAL;
  KWM_ASSERT(rows <= cov->spec.n_max * cov->spec.m);
  if (n > 0 && cov->spec.real == KWM_REAL_DOUBLE) kwm_jac_dense_f64(jac, state->rows.f64);
  if (n > 0 && cov->spec.real == KWM_REAL_FLOAT) kwm_jac_dense(jac, state->rows.f32);
  for (int64_t a = 0; a < rows; a++)
    for (int64_t k = 0; k < n; k++)
      reals_set(&state->rows, a * n + k, reals_get(&state->rows, a * n + k) * root[k % period]);
  state->step_rows = rows;
  lowrank_gram(cov, rows, diagonal ? lowrank_diagonal_weights(cov) : lowrank_plain, state->gram);
  if (lowrank_is_precision(cov->spec.kind)) return own_precision(state);
  own_covariance(state);
  return true;
}

/* The caller sums S over the group, so that one rank alone speaks for all. */
static bool speaks(const struct kwm_cov_spec *spec) {
  return spec->layout == NULL || (spec->layout->stage == 0 && spec->layout->owner == 0);
}

static void lowrank_project(kwm_cov *cov, const struct kwm_jac *jac, double *S) {
  const struct lowrank_state *const state = cov->state;
  const bool good = observe(cov, jac);
  if (!speaks(&cov->spec)) return;
  for (int64_t k = 0; k < state->step_rows * state->step_rows; k++) S[k] += good ? state->own[k] : (double)NAN;
}

/* δ = P0^½ (α Hᵀw + factor c), c from Tᵀw. */
static void prepare_step(kwm_cov *cov, const double *w) {
  struct lowrank_state *state = cov->state;
  const int64_t n = state->n, r = state->r, rows = state->step_rows, s = r + rows, period = prior_period(&cov->spec);
  const double *const root = lowrank_root(cov);
  const bool precision = lowrank_is_precision(cov->spec.kind), diagonal = cov->spec.kind == KWM_LOWRANK_DIAGONAL;
  double *const c = state->values;
  for (int64_t j = 0; j < r; j++) c[j] = 0;
  for (int64_t a = 0; a < rows; a++)
    for (int64_t j = 0; j < r; j++) c[j] += state->gram[(r + a) * s + j] * w[a];
  if (precision) kwm_cholesky_solve_f64(r, state->core, r, c);
  for (int64_t k = 0; k < n; k++) state->delta[k] = 0;
  for (int64_t a = 0; a < rows; a++)
    for (int64_t k = 0; k < n; k++) state->delta[k] += reals_get(&state->rows, a * n + k) * w[a];
  for (int64_t k = 0; k < n; k++) {
    double sum = 0;
    for (int64_t j = 0; j < r; j++) sum += reals_get(&state->factor, k * r + j) * c[j];
    const double d = diagonal ? reals_get(&state->diagonal, k) : state->floor;
    const double z = precision ? (state->delta[k] - sum) / d : d * state->delta[k] + sum;
    state->delta[k] = root[k % period] * z;
  }
}

/* True if δ and the posterior can be had: the rows in hand are finite. */
static bool observed(struct lowrank_state *state) {
  const int64_t s = state->r + state->step_rows;
  double seen = 0;
  for (int64_t k = state->r; k < s; k++) seen += state->gram[k * s + k];
  state->blind = seen == 0;
  return isfinite(seen) && lowrank_finite(state->n, state->delta);
}

static bool lowrank_condition(kwm_cov *cov, const struct kwm_jac *jac, const double *L, const double *w) {
  struct lowrank_state *state = cov->state;
  KWM_ASSERT(state->step_rows == jac->n * jac->m);
  prepare_step(cov, w);
  if (!observed(state)) return false;
  return state->blind || (lowrank_whiten(state, L) && lowrank_posterior(state, cov->spec.kind));
}

/* w <- S⁻¹e with S = I + own, factored in place of W; e: NULL on ranks without parameters, which need no w. False: not
   positive definite. */
static bool solve_own(struct lowrank_state *state, const float *e) {
  const int64_t rows = state->step_rows;
  double *const S = state->white;
  memcpy(S, state->own, (size_t)(rows * rows) * sizeof *S);
  for (int64_t k = 0; k < rows; k++) S[k * rows + k] += 1;
  if (!kwm_cholesky_f64(rows, S, rows)) return false;
  for (int64_t k = 0; k < rows; k++) state->w[k] = e != NULL ? (double)e[k] : 0;
  kwm_cholesky_solve_f64(rows, S, rows, state->w);
  return true;
}

/* The group's predicted change |Hδ|² = |H P Hᵀw|² is one number; its blocks share it evenly. */
static void share_change(const kwm_cov *cov, int64_t batch, double *kl) {
  const struct lowrank_state *const state = cov->state;
  const int64_t rows = state->step_rows;
  double squared = 0;
  for (int64_t a = 0; a < rows; a++) {
    double sum = 0;
    for (int64_t b = 0; b < rows; b++) sum += state->own[a * rows + b] * state->w[b];
    squared += sum * sum;
  }
  for (int64_t b = 0; b < cov->spec.count; b++) kl[b] = squared / ((double)batch * (double)cov->spec.total);
}

static bool lowrank_absorb(kwm_cov *cov, const struct kwm_jac *jac, const float *evidence, int64_t batch, double *kl) {
  (void)evidence;
  struct lowrank_state *state = cov->state;
  const int64_t rows = jac->n * jac->m;
  if (!observe(cov, jac) || !solve_own(state, state->n > 0 ? jac->e : NULL)) return false;
  prepare_step(cov, state->w);
  share_change(cov, batch, kl);
  if (!observed(state)) return false;
  /* S_o = I: nothing but the noise is in S beside this group. */
  for (int64_t k = 0; k < rows * rows; k++) state->white[k] = k / rows == k % rows;
  return state->blind || lowrank_posterior(state, cov->spec.kind);
}

static void lowrank_delta(const kwm_cov *cov, double *delta) {
  const struct lowrank_state *const state = cov->state;
  memcpy(delta, state->delta, (size_t)state->n * sizeof *delta);
}

static void lowrank_moved(const kwm_cov *cov, double *moved) {
  const struct lowrank_state *const state = cov->state;
  prior_moved(&cov->spec, state->prior, state->delta, moved);
}

static void lowrank_apply(kwm_cov *cov, double scale, float *mean) {
  struct lowrank_state *state = cov->state;
  for (int64_t k = 0; k < state->n; k++) mean[k] += (float)(scale * state->delta[k]);
  if (!state->blind) lowrank_recombine(cov, state->step_rows);
}

const struct kwm_cov_ops kwm_cov_lowrank = {
    .name = "lowrank",
    .collective = true,
    .bytes = lowrank_bytes,
    .evidence_length = lowrank_evidence_length,
    .create = lowrank_create,
    .predict = lowrank_predict,
    .evidence = lowrank_evidence,
    .absorb = lowrank_absorb,
    .project = lowrank_project,
    .condition = lowrank_condition,
    .delta = lowrank_delta,
    .moved = lowrank_moved,
    .apply = lowrank_apply,
    .health = lowrank_health,
    .spectrum_length = lowrank_spectrum_length,
    .spectrum = lowrank_spectrum,
    .covariance = lowrank_covariance,
    .save = lowrank_save,
    .load = lowrank_load,
    .destroy = lowrank_destroy,
};
