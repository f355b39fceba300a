/* One dense matrix per block: the precision Λ_b in the information form, the covariance P_b in the innovation form.
   Exact for each block; what it drops is the coupling between blocks, which the innovation form keeps in the gain
   through the shared S (equations.md (140)) and the information form leaves to the trust region. A matrix group is one
   block, and the filter is exact for it.

   double  Λ or P itself
   float   a lower triangular factor, Λ = L Lᵀ or P = Y Yᵀ: symmetric and positive definite whatever rounding does */
#include "block.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "kwm/backend.h"

/* The spectrum's workspace of 2p² + 6p + 1 numbers is counted in an int. */
enum { PARAMS_MAX = 32766 };

/* The state's arrays: one list for allocation, size and release. */
enum { BLOCK_ARRAYS = 13 };
struct block_array {
  void **at;
  int64_t length;
  size_t size;
};

/* Rows of H that are formed at a time. */
static int64_t piece_rows(const struct kwm_cov_spec *spec) {
  const int64_t rows = spec->n_max * spec->m, piece = spec->m > BLOCK_PIECE ? spec->m : BLOCK_PIECE;
  return block_innovation(spec) || rows < piece ? rows : piece;
}

static void arrays_of(struct block_state *state, const struct kwm_cov_spec *spec,
                      struct block_array arrays[BLOCK_ARRAYS]) {
  const bool innovates = block_innovation(spec), matrix = block_is_matrix(spec), narrow = block_is_float(spec);
  const bool root = block_is_root(spec), squares = !innovates && (!matrix || spec->forgetting < 1);
  const int64_t here = spec->count > 0, p = spec->params, n = spec->count * p, rows = spec->n_max * spec->m;
  void **const M = narrow ? (void **)&state->M.f32 : (void **)&state->M.f64;
  const struct block_array list[BLOCK_ARRAYS] = {
      {M, n * p, reals_size(spec->real)},
      {(void **)&state->W, n * p, sizeof(double)},
      {(void **)&state->square, here && squares ? p * p : 0, sizeof(double)},
      {(void **)&state->panel, here && narrow ? BLOCK_PANEL * p : 0, sizeof(double)},
      {(void **)&state->prior, prior_period(spec), sizeof(double)},
      {(void **)&state->delta, n, sizeof(double)},
      {(void **)&state->vector, here ? p : 0, sizeof(double)},
      {(void **)&state->narrow, root || (matrix && !innovates) ? n * piece_rows(spec) : 0, sizeof(float)},
      {(void **)&state->g, here && matrix && !innovates ? spec->n_max * spec->d_o : 0, sizeof(float)},
      {(void **)&state->H, innovates && !root ? n * rows : 0, sizeof(double)},
      {(void **)&state->Z, innovates ? n * rows : 0, sizeof(double)},
      {(void **)&state->root_f64, here && root ? block_root_f64(spec) : 0, sizeof(double)},
      {(void **)&state->root_f32, here && root ? block_root_f32(spec) : 0, sizeof(float)},
  };
  memcpy(arrays, list, sizeof list);
}

static size_t block_bytes(const struct kwm_cov_spec *spec) {
  struct block_state none;
  struct block_array arrays[BLOCK_ARRAYS];
  size_t bytes = kwm_mem_rounded(sizeof none);
  arrays_of(&none, spec, arrays);
  for (int k = 0; k < BLOCK_ARRAYS; k++) bytes += kwm_mem_rounded((size_t)arrays[k].length * arrays[k].size);
  return bytes;
}

/* Λ0 or P0, or its factor. */
static void set_prior(kwm_cov *cov) {
  const struct kwm_cov_spec *const spec = &cov->spec;
  struct block_state *const state = cov->state;
  const int64_t p = spec->params, period = prior_period(spec);
  for (int64_t b = 0; b < spec->count; b++)
    for (int64_t k = 0; k < p; k++) {
      const double variance = state->prior[k % period], value = block_innovation(spec) ? variance : 1 / variance;
      reals_set(&state->M, (b * p + k) * p + k, block_is_float(spec) ? sqrt(value) : value);
    }
}

static kwm_status block_create(kwm_cov *cov) {
  const struct kwm_cov_spec *const spec = &cov->spec;
  KWM_CHECK(spec->params <= PARAMS_MAX, KWM_ERR_USAGE,
            "config: wanted at most %d parameters in a dense block, found %lld in group %s", PARAMS_MAX,
            (long long)spec->params, spec->name);
  KWM_TRY(kwm_alloc(&cov->state, sizeof(struct block_state), "block covariance"));
  struct block_state *const state = cov->state;
  struct block_array arrays[BLOCK_ARRAYS];
  arrays_of(state, spec, arrays);
  for (int k = 0; k < BLOCK_ARRAYS; k++)
    KWM_TRY(kwm_alloc(arrays[k].at, (size_t)arrays[k].length * arrays[k].size, "block covariance"));
  prior_fill(spec, state->prior);
  cov->spec.prior_variance = state->prior;
  set_prior(cov);
  return KWM_OK;
}

static void block_destroy(kwm_cov *cov) {
  if (cov->state == NULL) return;
  struct block_array arrays[BLOCK_ARRAYS];
  arrays_of(cov->state, &cov->spec, arrays);
  for (int k = 0; k < BLOCK_ARRAYS; k++) kwm_free(*arrays[k].at);
  kwm_free(cov->state);
}

/* Upper triangle of W (p, p) <- L Lᵀ, panel by panel of L's columns: p³/3 instead of p³ for the triangle alone. */
static void square_factor(int64_t p, const float *L, double *panel, double *W) {
  memset(W, 0, (size_t)(p * p) * sizeof *W);
  for (int64_t first = 0; first < p; first += BLOCK_PANEL) {
    const int64_t width = p - first < BLOCK_PANEL ? p - first : BLOCK_PANEL, left = p - first;
    for (int64_t i = 0; i < left; i++)
      for (int64_t k = 0; k < width; k++) panel[k * left + i] = (double)L[(first + i) * p + first + k];
    kwm_gram_f64(left, width, 1, panel, left, 1, W + first * (p + 1), p);
  }
}

void block_expand(const kwm_cov *cov, int64_t b, double *W) {
  const struct block_state *const state = cov->state;
  const int64_t p = cov->spec.params;
  if (block_is_float(&cov->spec)) {
    square_factor(p, state->M.f32 + b * p * p, state->panel, W);
    if (!block_is_matrix(&cov->spec)) kwm_mirror_f64(p, W, p);
  } else {
    memcpy(W, state->M.f64 + b * p * p, (size_t)(p * p) * sizeof *W);
  }
}

int64_t block_lift_factor(const struct kwm_cov_spec *spec, const double *prior, float *Y) {
  const int64_t p = spec->params, period = prior_period(spec);
  int64_t lifted = 0;
  for (int64_t k = 0; k < p; k++) {
    const double unit = prior[k % period];
    const float least = (float)(1e-15 * sqrt(block_innovation(spec) ? unit : 1 / unit));
    if (Y[k * p + k] >= least) continue;
    Y[k * p + k] = least;
    lifted++;
  }
  return lifted;
}

void block_store_factor(kwm_cov *cov, int64_t b, const double *W) {
  enum { TILE = 16 };
  struct block_state *const state = cov->state;
  const int64_t p = cov->spec.params;
  float *const factor = state->M.f32 + b * p * p;
  for (int64_t i = 0; i < p; i += TILE)
    for (int64_t j = 0; j <= i; j += TILE)
      for (int64_t k = i; k < p && k < i + TILE; k++)
        for (int64_t l = j; l <= k && l < j + TILE; l++) factor[k * p + l] = (float)W[l * p + k];
  state->floor_hits += (double)block_lift_factor(&cov->spec, state->prior, factor);
}

/* Precisions of units go through the row-major door, which gives both triangles. */
bool block_invert(const struct kwm_cov_spec *spec, double *W) {
  const int64_t p = spec->params;
  if (!block_is_matrix(spec) && !block_innovation(spec))
    return kwm_cholesky_f64(p, W, p) && kwm_cholesky_invert_f64(p, W, p);
  return kwm_factor_f64(p, W, p) && kwm_factor_invert_f64(p, W, p);
}

/* W (p, p) <- P of block b. */
static bool covariance_of(const kwm_cov *cov, int64_t b, double *W) {
  block_expand(cov, b, W);
  return block_innovation(&cov->spec) || block_invert(&cov->spec, W);
}

/* Scratch between steps. The factors of a step in hand are lost, and made again when it is applied. */
static double *scratch_of(const kwm_cov *cov) {
  struct block_state *const state = cov->state;
  state->factored = false;
  return state->W;
}

static void block_delta(const kwm_cov *cov, double *delta) {
  const struct block_state *const state = cov->state;
  memcpy(delta, state->delta, (size_t)(cov->spec.count * cov->spec.params) * sizeof *delta);
}

static void block_moved(const kwm_cov *cov, double *moved) {
  const struct block_state *const state = cov->state;
  prior_moved(&cov->spec, state->prior, state->delta, moved);
}

static void block_apply(kwm_cov *cov, double scale, float *mean) {
  struct block_state *const state = cov->state;
  for (int64_t k = 0; k < cov->spec.count * cov->spec.params; k++) mean[k] += (float)(scale * state->delta[k]);
  if (block_innovation(&cov->spec))
    block_take_posterior(cov);
  else
    block_take_evidence(cov);
}

static void block_health(const kwm_cov *cov, struct kwm_health *health) {
  const struct block_state *const state = cov->state;
  const int64_t p = cov->spec.params;
  double *const W = scratch_of(cov);
  for (int64_t b = 0; b < cov->spec.count; b++) {
    const bool good = covariance_of(cov, b, W);
    for (int64_t k = 0; k < p; k++) health->trace += good ? W[k * p + k] : NAN;
  }
  health->prior_trace += prior_trace(&cov->spec, state->prior);
  health->parameters += (double)(cov->spec.count * p);
  health->floor_hits += state->floor_hits;
}

static int64_t block_spectrum_length(const struct kwm_cov_spec *spec) {
  return spec->count * spec->params;
}

static bool block_spectrum(const kwm_cov *cov, double *values) {
  const struct block_state *const state = cov->state;
  const int64_t p = cov->spec.params, period = prior_period(&cov->spec);
  double *const W = scratch_of(cov);
  for (int64_t b = 0; b < cov->spec.count; b++) {
    if (!covariance_of(cov, b, W)) return false;
    for (int64_t i = 0; i < p; i++)
      for (int64_t j = i; j < p; j++) W[i * p + j] /= sqrt(state->prior[i % period] * state->prior[j % period]);
    if (!kwm_eigen_f64(p, W, values + b * p) || !(values[b * p] > 0)) return false;
  }
  return true;
}

static bool block_covariance(const kwm_cov *cov, double *P) {
  const int64_t p = cov->spec.params, n = cov->spec.count * p;
  double *const W = scratch_of(cov);
  memset(P, 0, (size_t)(n * n) * sizeof *P);
  for (int64_t b = 0; b < cov->spec.count; b++) {
    if (!covariance_of(cov, b, W)) return false;
    for (int64_t i = 0; i < p; i++)
      for (int64_t j = i; j < p; j++) P[(b * p + i) * n + b * p + j] = P[(b * p + j) * n + b * p + i] = W[i * p + j];
  }
  return true;
}

/* C (m, m) += H P Hᵀ of one sample, block by block; H, Z: (m, count·p). */
static void add_outputs(const kwm_cov *cov, int64_t m, const double *H, double *Z, double *C) {
  const struct block_state *const state = cov->state;
  const int64_t p = cov->spec.params, n = cov->spec.count * p;
  for (int64_t b = 0; b < cov->spec.count; b++)
    kwm_symm_f64(m, p, 1, state->W + b * p * p, p, H + b * p, n, 0, Z + b * p, n);
  kwm_gemm_f64(false, true, m, m, n, 1, H, n, Z, n, 1, C, m);
}

static bool block_predictive(kwm_cov *cov, const struct kwm_jac *jac, double *C) {
  const int64_t p = cov->spec.params, m = jac->m, size = m * cov->spec.count * p;
  double *const W = scratch_of(cov), *H = NULL;
  for (int64_t b = 0; b < cov->spec.count; b++)
    if (!covariance_of(cov, b, W + b * p * p)) return false;
  if (kwm_alloc((void **)&H, (size_t)(2 * size) * sizeof *H, "outputs' covariance") != KWM_OK) return false;
  for (int64_t i = 0; i < jac->n; i++) {
    const struct kwm_jac one = kwm_jac_part(jac, i, 1);
    kwm_jac_dense_f64(&one, H);
    add_outputs(cov, m, H, H + size, C + i * m * m);
  }
  kwm_free(H);
  return true;
}

static const char *dataset(const struct kwm_cov_spec *spec, char *name, size_t size) {
  snprintf(name, size, "/cov/%s/%s%s", spec->name, block_innovation(spec) ? "covariance" : "precision",
           block_is_float(spec) ? "_factor" : "");
  return name;
}

static kwm_status block_save(const kwm_cov *cov, kwm_ckpt *ckpt, bool writes) {
  const struct kwm_cov_spec *const spec = &cov->spec;
  struct block_state *const state = cov->state;
  const int64_t p = spec->params, dims[3] = {spec->total, p, p};
  char name[128];
  for (int64_t b = 0; b < spec->count && !block_is_float(spec); b++) kwm_mirror_f64(p, state->M.f64 + b * p * p, p);
  return kwm_ckpt_put(ckpt, dataset(spec, name, sizeof name), reals_type(spec->real), 3, dims, writes ? spec->first : 0,
                      writes ? spec->count : 0, reals_data(&state->M));
}

static kwm_status block_load(kwm_cov *cov, kwm_ckpt *ckpt) {
  const struct kwm_cov_spec *const spec = &cov->spec;
  struct block_state *const state = cov->state;
  const int64_t dims[3] = {spec->total, spec->params, spec->params};
  char name[128];
  return kwm_ckpt_get(ckpt, dataset(spec, name, sizeof name), reals_type(spec->real), 3, dims, spec->first, spec->count,
                      reals_data(&state->M));
}

const struct kwm_cov_ops kwm_cov_block = {
    .name = "block",
    .device = &kwm_cov_block_device,
    .on_device = block_on_device,
    .bytes = block_bytes,
    .evidence_length = block_evidence_length,
    .create = block_create,
    .predict = block_predict,
    .evidence = block_evidence,
    .absorb = block_absorb,
    .project = block_project,
    .condition = block_condition,
    .delta = block_delta,
    .moved = block_moved,
    .apply = block_apply,
    .health = block_health,
    .spectrum_length = block_spectrum_length,
    .spectrum = block_spectrum,
    .covariance = block_covariance,
    .predictive = block_predictive,
    .save = block_save,
    .load = block_load,
    .destroy = block_destroy,
};
