/* A variance per parameter, for units and for matrices: the scalar Riccati recursion p <- p / (1 + p f) on each, kept
   as precision D = 1/p in spec.real; arithmetic on it is in double precision (equations.md 3(a) in the standard basis).

     information   f = diag(HᵀH), a float sum;  D <- D + f,  δ = s / D
     innovation    Y = H P^½;  S += Y Yᵀ;  δ = P^½ Yᵀ w;  p <- p (1 - sum over rows of (L⁻¹Y)²)

   What it drops is all coupling between parameters, which the innovation form keeps in the gain through the shared S:
   there the diagonal of the exact posterior is kept. The rows Y are kept in spec.real too; what is made of them is
   made in double precision, a tile of columns at a time: only so is S positive definite for large and repeated rows. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "diag.h"
#include "prior.h"

#include "kwm/backend.h"

/* A step leaves a variance at least this part of itself (innovation form: 1 - sum is a difference). */
static const double SMALLEST_SHARE = 1e-6;

enum { TILE = 256 };

static bool innovation(const struct kwm_cov_spec *spec) {
  return spec->form == KWM_FORM_INNOVATION;
}

/* The state's arrays as (pointer, bytes) pairs: one list for allocation, size and release. */
enum { DIAG_ARRAYS = 7 };
struct diag_array {
  void **at;
  size_t bytes;
};

static struct diag_array real_array(struct reals *reals, enum kwm_real real, int64_t n) {
  return (struct diag_array){real == KWM_REAL_DOUBLE ? (void **)&reals->f64 : (void **)&reals->f32,
                             (size_t)n * reals_size(real)};
}

static void arrays_of(struct diag_state *state, const struct kwm_cov_spec *spec,
                      struct diag_array arrays[DIAG_ARRAYS]) {
  const int64_t n = diag_numbers(spec);
  const int64_t outer = innovation(spec) ? 0 : spec->n_max * (spec->d_o + spec->d_i) * spec->count;
  const int64_t rows = innovation(spec) ? spec->n_max * spec->m : 0;
  const struct diag_array list[DIAG_ARRAYS] = {
      real_array(&state->D, spec->real, n),
      real_array(&state->next, spec->real, n),
      {(void **)&state->delta, (size_t)n * sizeof(double)},
      {(void **)&state->prior, (size_t)prior_period(spec) * sizeof(double)},
      {(void **)&state->scratch, (size_t)outer * sizeof(float)},
      real_array(&state->Y, spec->real, rows * n),
      {(void **)&state->tile, (size_t)(rows * (n < TILE ? n : TILE)) * sizeof(double)},
  };
  memcpy(arrays, list, sizeof list);
}

static size_t diag_bytes(const struct kwm_cov_spec *spec) {
  struct diag_state none;
  struct diag_array arrays[DIAG_ARRAYS];
  size_t bytes = kwm_mem_rounded(sizeof none);
  arrays_of(&none, spec, arrays);
  for (int k = 0; k < DIAG_ARRAYS; k++) bytes += kwm_mem_rounded(arrays[k].bytes);
  return bytes;
}

static int64_t diag_evidence_length(const struct kwm_cov_spec *spec) {
  return 2 * diag_numbers(spec);
}

static kwm_status diag_create(kwm_cov *cov) {
  const struct kwm_cov_spec *const spec = &cov->spec;
  KWM_TRY(kwm_alloc(&cov->state, sizeof(struct diag_state), "diagonal covariance"));
  struct diag_state *state = cov->state;
  struct diag_array arrays[DIAG_ARRAYS];
  arrays_of(state, spec, arrays);
  for (int k = 0; k < DIAG_ARRAYS; k++) KWM_TRY(kwm_alloc(arrays[k].at, arrays[k].bytes, "diagonal covariance"));
  prior_fill(spec, state->prior);
  cov->spec.prior_variance = state->prior;
  for (int64_t k = 0; k < diag_numbers(spec); k++) reals_set(&state->D, k, 1 / state->prior[k % prior_period(spec)]);
  return KWM_OK;
}

static void diag_destroy(kwm_cov *cov) {
  if (cov->state == NULL) return;
  struct diag_array arrays[DIAG_ARRAYS];
  arrays_of(cov->state, &cov->spec, arrays);
  for (int k = 0; k < DIAG_ARRAYS; k++) kwm_free(*arrays[k].at);
  kwm_free(cov->state);
}

static bool diag_predict(kwm_cov *cov, int64_t step, const float *anchor, float *mean) {
  (void)step;
  const double lambda = cov->spec.forgetting, q = cov->spec.process_noise;
  const int64_t period = prior_period(&cov->spec);
  struct diag_state *state = cov->state;
  if (lambda == 1 && q == 0) return true;
  for (int64_t k = 0; k < diag_numbers(&cov->spec); k++) {
    const double p0 = state->prior[k % period], D = lambda * reals_get(&state->D, k) + (1 - lambda) / p0;
    if (lambda < 1) {
      const double apart = (double)anchor[k] - (double)mean[k];
      mean[k] = (float)((double)mean[k] + (1 - lambda) / (p0 * D) * apart);
    }
    reals_set(&state->D, k, D / (1 + q * p0 * D));
  }
  return true;
}

static void diag_evidence(kwm_cov *cov, const struct kwm_jac *jac, float *evidence) {
  const struct diag_state *const state = cov->state;
  kwm_jac_diagonal(jac, evidence, evidence + diag_numbers(&cov->spec), state->scratch);
}

/* A sum of squares that was rounded below zero counts as zero; NaN stays. */
static double information(float found) {
  return found < 0 ? 0 : (double)found;
}

/* Evidence is (params, count) for both shapes, since a matrix is one block. */
static bool diag_absorb(kwm_cov *cov, const struct kwm_jac *jac, const float *evidence, int64_t batch, double *kl) {
  (void)jac;
  const int64_t p = cov->spec.params, count = cov->spec.count;
  const float *const score = evidence + diag_numbers(&cov->spec);
  struct diag_state *state = cov->state;
  state->evidence = evidence;
  state->batch = (double)batch;
  for (int64_t b = 0; b < count; b++) {
    double sum = 0;
    for (int64_t k = 0; k < p; k++) {
      const double f = information(evidence[k * count + b]);
      double *const delta = &state->delta[b * p + k];
      reals_set(&state->next, b * p + k, reals_get(&state->D, b * p + k) + f);
      *delta = (double)score[k * count + b] / reals_get(&state->next, b * p + k);
      sum += f * *delta * *delta;
      if (!isfinite(reals_get(&state->next, b * p + k))) return false;
    }
    kl[b] = sum / (double)batch;
    if (!isfinite(kl[b])) return false;
  }
  return true;
}

/* Y <- H P^½. The step is not prepared yet: its place holds P^½. */
static void fill_rows(kwm_cov *cov, const struct kwm_jac *jac) {
  const int64_t n = diag_numbers(&cov->spec), nm = jac->n * jac->m;
  struct diag_state *state = cov->state;
  double *const root = state->delta;
  for (int64_t k = 0; k < n; k++) root[k] = 1 / sqrt(reals_get(&state->D, k));
  if (cov->spec.real == KWM_REAL_DOUBLE) {
    kwm_jac_dense_f64(jac, state->Y.f64);
    for (int64_t row = 0; row < nm; row++)
      for (int64_t k = 0; k < n; k++) state->Y.f64[row * n + k] *= root[k];
  } else {
    kwm_jac_dense(jac, state->Y.f32);
    for (int64_t row = 0; row < nm; row++)
      for (int64_t k = 0; k < n; k++) state->Y.f32[row * n + k] *= (float)root[k];
  }
}

/* tile (nm, width) <- columns of Y (nm, n) from `first` on; returns their number. */
static int64_t take_tile(struct diag_state *state, int64_t n, int64_t nm, int64_t first) {
  const int64_t width = n - first < TILE ? n - first : TILE;
  for (int64_t row = 0; row < nm; row++)
    for (int64_t k = 0; k < width; k++) state->tile[row * width + k] = reals_get(&state->Y, row * n + first + k);
  return width;
}

static void diag_project(kwm_cov *cov, const struct kwm_jac *jac, double *S) {
  const int64_t n = diag_numbers(&cov->spec), nm = jac->n * jac->m;
  struct diag_state *state = cov->state;
  fill_rows(cov, jac);
  for (int64_t first = 0; first < n; first += TILE) {
    const int64_t width = take_tile(state, n, nm, first);
    kwm_gemm_f64(false, true, nm, nm, width, 1, state->tile, width, state->tile, width, 1, S, nm);
  }
}

/* delta <- P^½Yᵀw */
static void take_step(struct diag_state *state, int64_t n, int64_t nm, const double *w) {
  for (int64_t k = 0; k < n; k++) state->delta[k] = 0;
  for (int64_t row = 0; row < nm; row++)
    for (int64_t k = 0; k < n; k++) state->delta[k] += reals_get(&state->Y, row * n + k) * w[row];
  for (int64_t k = 0; k < n; k++) state->delta[k] /= sqrt(reals_get(&state->D, k));
}

/* sums (width) <- column sums of squares of the tile. */
static void sum_squares(const double *tile, int64_t nm, int64_t width, double *sums) {
  for (int64_t k = 0; k < width; k++) sums[k] = 0;
  for (int64_t row = 0; row < nm; row++)
    for (int64_t k = 0; k < width; k++) sums[k] += tile[row * width + k] * tile[row * width + k];
}

/* next <- the posterior's precision; returns a sum that is finite if all of it is. */
static double take_shares(struct diag_state *state, int64_t n, int64_t nm, const double *L) {
  double total = 0, sums[TILE];
  state->floored = 0;
  for (int64_t first = 0; first < n; first += TILE) {
    const int64_t width = take_tile(state, n, nm, first);
    kwm_triangular_solve_f64(nm, width, L, nm, state->tile, width);
    sum_squares(state->tile, nm, width, sums);
    for (int64_t k = 0; k < width; k++) {
      const double left = 1 - sums[k];
      state->floored += left < SMALLEST_SHARE;
      reals_set(&state->next, first + k,
                reals_get(&state->D, first + k) / (left < SMALLEST_SHARE ? SMALLEST_SHARE : left));
      total += reals_get(&state->next, first + k);
    }
  }
  return total;
}

static bool diag_condition(kwm_cov *cov, const struct kwm_jac *jac, const double *L, const double *w) {
  const int64_t n = diag_numbers(&cov->spec), nm = jac->n * jac->m;
  struct diag_state *state = cov->state;
  take_step(state, n, nm, w);
  double sum = take_shares(state, n, nm, L);
  for (int64_t k = 0; k < n; k++) sum += state->delta[k];
  return isfinite(sum);
}

static void diag_delta(const kwm_cov *cov, double *delta) {
  const struct diag_state *const state = cov->state;
  memcpy(delta, state->delta, (size_t)diag_numbers(&cov->spec) * sizeof *delta);
}

static void diag_moved(const kwm_cov *cov, double *moved) {
  const struct diag_state *const state = cov->state;
  prior_moved(&cov->spec, state->prior, state->delta, moved);
}

/* sum of score times step */
static void diag_slope(const kwm_cov *cov, double *slope) {
  const int64_t p = cov->spec.params, count = cov->spec.count;
  const struct diag_state *const state = cov->state;
  const float *const score = state->evidence + diag_numbers(&cov->spec);
  for (int64_t b = 0; b < count; b++) {
    slope[b] = 0;
    for (int64_t k = 0; k < p; k++) slope[b] += (double)score[k * count + b] * state->delta[b * p + k];
  }
}

/* sum f²/(D + f)² a sample */
static void diag_expected(const kwm_cov *cov, double *expected) {
  const int64_t p = cov->spec.params, count = cov->spec.count;
  const struct diag_state *const state = cov->state;
  for (int64_t b = 0; b < count; b++) {
    double sum = 0;
    for (int64_t k = 0; k < p; k++) {
      const double share = information(state->evidence[k * count + b]) / reals_get(&state->next, b * p + k);
      sum += share * share;
    }
    expected[b] = sum / state->batch;
  }
}

static void diag_move(kwm_cov *cov, double scale, float *mean) {
  const struct diag_state *const state = cov->state;
  for (int64_t k = 0; k < diag_numbers(&cov->spec); k++) mean[k] += (float)(scale * state->delta[k]);
}

static void diag_apply(kwm_cov *cov, double scale, float *mean) {
  const int64_t n = diag_numbers(&cov->spec);
  struct diag_state *state = cov->state;
  diag_move(cov, scale, mean);
  memcpy(reals_data(&state->D), reals_data(&state->next), (size_t)n * reals_size(cov->spec.real));
  state->floor_hits += state->floored;
}

static void diag_health(const kwm_cov *cov, struct kwm_health *health) {
  const struct diag_state *const state = cov->state;
  for (int64_t k = 0; k < diag_numbers(&cov->spec); k++) health->trace += 1 / reals_get(&state->D, k);
  health->prior_trace += prior_trace(&cov->spec, state->prior);
  health->parameters += (double)diag_numbers(&cov->spec);
  health->floor_hits += state->floor_hits;
}

static bool positive(const kwm_cov *cov) {
  const struct diag_state *const state = cov->state;
  for (int64_t k = 0; k < diag_numbers(&cov->spec); k++) {
    const double D = reals_get(&state->D, k);
    if (!(D > 0 && isfinite(D))) return false;
  }
  return true;
}

static int ascending(const void *a, const void *b) {
  const double left = *(const double *)a, right = *(const double *)b;
  return (left > right) - (left < right);
}

static int64_t diag_spectrum_length(const struct kwm_cov_spec *spec) {
  return diag_numbers(spec);
}

static bool diag_spectrum(const kwm_cov *cov, double *values) {
  const int64_t p = cov->spec.params, period = prior_period(&cov->spec);
  const struct diag_state *const state = cov->state;
  if (!positive(cov)) return false;
  for (int64_t k = 0; k < diag_numbers(&cov->spec); k++)
    values[k] = 1 / (state->prior[k % period] * reals_get(&state->D, k));
  for (int64_t b = 0; b < cov->spec.count; b++) qsort(values + b * p, (size_t)p, sizeof *values, ascending);
  return true;
}

static bool diag_covariance(const kwm_cov *cov, double *P) {
  const int64_t n = diag_numbers(&cov->spec);
  const struct diag_state *const state = cov->state;
  if (!positive(cov)) return false;
  memset(P, 0, (size_t)(n * n) * sizeof *P);
  for (int64_t k = 0; k < n; k++) P[k * n + k] = 1 / reals_get(&state->D, k);
  return true;
}

static bool diag_predictive(kwm_cov *cov, const struct kwm_jac *jac, double *C) {
  return positive(cov) && diag_outputs(cov, jac, C);
}

static const char *dataset(const struct kwm_cov_spec *spec, char *name, size_t size) {
  snprintf(name, size, "/cov/%s/precision", spec->name);
  return name;
}

static kwm_status diag_save(const kwm_cov *cov, kwm_ckpt *ckpt, bool writes) {
  const struct kwm_cov_spec *const spec = &cov->spec;
  const struct diag_state *const state = cov->state;
  const int64_t dims[2] = {spec->total, spec->params};
  char name[128];
  return kwm_ckpt_put(ckpt, dataset(spec, name, sizeof name), reals_type(spec->real), 2, dims, writes ? spec->first : 0,
                      writes ? spec->count : 0, reals_data(&state->D));
}

static kwm_status diag_load(kwm_cov *cov, kwm_ckpt *ckpt) {
  const struct kwm_cov_spec *const spec = &cov->spec;
  const struct diag_state *const state = cov->state;
  const int64_t dims[2] = {spec->total, spec->params};
  char name[128];
  return kwm_ckpt_get(ckpt, dataset(spec, name, sizeof name), reals_type(spec->real), 2, dims, spec->first, spec->count,
                      reals_data(&state->D));
}

const struct kwm_cov_ops kwm_cov_diag = {
    .name = "diag",
    .device = &kwm_cov_diag_device,
    .on_device = diag_on_device,
    .bytes = diag_bytes,
    .evidence_length = diag_evidence_length,
    .create = diag_create,
    .predict = diag_predict,
    .evidence = diag_evidence,
    .absorb = diag_absorb,
    .project = diag_project,
    .condition = diag_condition,
    .delta = diag_delta,
    .moved = diag_moved,
    .slope = diag_slope,
    .expected = diag_expected,
    .apply = diag_apply,
    .move = diag_move,
    .health = diag_health,
    .spectrum_length = diag_spectrum_length,
    .spectrum = diag_spectrum,
    .covariance = diag_covariance,
    .predictive = diag_predictive,
    .save = diag_save,
    .load = diag_load,
    .destroy = diag_destroy,
};
