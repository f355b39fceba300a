/* A variance per parameter, for units and for matrices: the scalar Riccati recursion p <- p / (1 + p f) on each, kept
   as precision D = 1/p in double precision (equations.md 3(a) in the standard basis).

     information   f = diag(HᵀH) exactly;  D <- D + f,  δ = s / D
     innovation    Y = H P^½;  S += Y Yᵀ;  δ = P^½ Yᵀ w;  p <- p (1 - sum over rows of (L⁻¹Y)²)

   What it drops is all coupling between parameters, which the innovation form keeps in the gain through the shared S:
   there the diagonal of the exact posterior is kept. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "prior.h"

#include "kwm/backend.h"

/* A step leaves a variance at least this part of itself (innovation form: 1 - sum is a difference). */
static const double SMALLEST_SHARE = 1e-6;

struct diag_state {
  double *D;                  /* (count, params) precision */
  double *next;               /* (count, params) D after the step in hand */
  double *delta;              /* (count, params) prepared step */
  double *prior;              /* (period) prior variances */
  float *scratch;             /* information, matrix: (n_max, d_o + d_i) */
  float *Y;                   /* innovation: (n·m, count·params) rows times P^½, later L⁻¹ of them */
  double floor_hits, floored; /* so far, and of the step in hand */
};

static bool innovation(const struct kwm_cov_spec *spec) {
  return spec->form == KWM_FORM_INNOVATION;
}

static int64_t numbers(const struct kwm_cov_spec *spec) {
  return spec->count * spec->params;
}

/* The state's arrays as (pointer, bytes) pairs: one list for allocation, size and release. */
enum { DIAG_ARRAYS = 6 };
struct diag_array {
  void **at;
  size_t bytes;
};

static void arrays_of(struct diag_state *state, const struct kwm_cov_spec *spec,
                      struct diag_array arrays[DIAG_ARRAYS]) {
  const size_t n = (size_t)numbers(spec);
  const int64_t outer = innovation(spec) ? 0 : spec->n_max * (spec->d_o + spec->d_i) * spec->count;
  const int64_t rows = innovation(spec) ? spec->n_max * spec->m : 0;
  const struct diag_array list[DIAG_ARRAYS] = {
      {(void **)&state->D, n * sizeof(double)},
      {(void **)&state->next, n * sizeof(double)},
      {(void **)&state->delta, n * sizeof(double)},
      {(void **)&state->prior, (size_t)prior_period(spec) * sizeof(double)},
      {(void **)&state->scratch, (size_t)outer * sizeof(float)},
      {(void **)&state->Y, (size_t)rows * n * sizeof(float)},
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
  return 2 * numbers(spec);
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
  for (int64_t k = 0; k < numbers(spec); k++) state->D[k] = 1 / state->prior[k % prior_period(spec)];
  return KWM_OK;
}

static void diag_destroy(kwm_cov *cov) {
  if (cov->state == NULL) return;
  struct diag_array arrays[DIAG_ARRAYS];
  arrays_of(cov->state, &cov->spec, arrays);
  for (int k = 0; k < DIAG_ARRAYS; k++) kwm_free(*arrays[k].at);
  kwm_free(cov->state);
}

static bool diag_predict(kwm_cov *cov, int64_t step) {
  (void)step;
  const double lambda = cov->spec.forgetting, q = cov->spec.process_noise;
  const int64_t period = prior_period(&cov->spec);
  struct diag_state *state = cov->state;
  if (lambda == 1 && q == 0) return true;
  for (int64_t k = 0; k < numbers(&cov->spec); k++) {
    const double p0 = state->prior[k % period], D = lambda * state->D[k] + (1 - lambda) / p0;
    state->D[k] = D / (1 + q * p0 * D);
  }
  return true;
}

static void diag_evidence(kwm_cov *cov, const struct kwm_jac *jac, float *evidence) {
  const struct diag_state *const state = cov->state;
  kwm_jac_diagonal(jac, evidence, evidence + numbers(&cov->spec), state->scratch);
}

/* Evidence is (params, count) for both shapes, since a matrix is one block. */
static bool diag_absorb(kwm_cov *cov, const float *evidence, int64_t batch, double *kl) {
  const int64_t p = cov->spec.params, count = cov->spec.count;
  const float *const score = evidence + numbers(&cov->spec);
  struct diag_state *state = cov->state;
  for (int64_t b = 0; b < count; b++) {
    double sum = 0;
    for (int64_t k = 0; k < p; k++) {
      /* A sum of squares that was rounded below zero counts as zero; NaN stays. */
      const double found = (double)evidence[k * count + b], f = found < 0 ? 0 : found;
      double *const delta = &state->delta[b * p + k];
      state->next[b * p + k] = state->D[b * p + k] + f;
      *delta = (double)score[k * count + b] / state->next[b * p + k];
      sum += f * *delta * *delta;
    }
    kl[b] = sum / (double)batch;
    if (!isfinite(kl[b])) return false;
  }
  return true;
}

static void diag_project(kwm_cov *cov, const struct kwm_jac *jac, float *S) {
  const int64_t n = numbers(&cov->spec), nm = jac->n * jac->m;
  struct diag_state *state = cov->state;
  kwm_jac_dense(jac, state->Y);
  for (int64_t k = 0; k < n; k++) state->delta[k] = 1 / sqrt(state->D[k]);
  for (int64_t row = 0; row < nm; row++)
    for (int64_t k = 0; k < n; k++) state->Y[row * n + k] *= (float)state->delta[k];
  kwm_gemm(false, true, nm, nm, n, 1.0f, state->Y, n, state->Y, n, 1.0f, S, nm);
}

/* next <- the posterior's precision from L⁻¹Y. */
static void take_shares(struct diag_state *state, int64_t n, int64_t nm) {
  for (int64_t k = 0; k < n; k++) state->next[k] = 0;
  for (int64_t row = 0; row < nm; row++)
    for (int64_t k = 0; k < n; k++) state->next[k] += (double)state->Y[row * n + k] * (double)state->Y[row * n + k];
  state->floored = 0;
  for (int64_t k = 0; k < n; k++) {
    const double left = 1 - state->next[k];
    state->floored += left < SMALLEST_SHARE;
    state->next[k] = state->D[k] / (left < SMALLEST_SHARE ? SMALLEST_SHARE : left);
  }
}

static bool diag_condition(kwm_cov *cov, const struct kwm_jac *jac, const float *L, const float *w) {
  const int64_t n = numbers(&cov->spec), nm = jac->n * jac->m;
  struct diag_state *state = cov->state;
  double sum = 0;
  for (int64_t k = 0; k < n; k++) state->delta[k] = 0;
  for (int64_t row = 0; row < nm; row++)
    for (int64_t k = 0; k < n; k++) state->delta[k] += (double)state->Y[row * n + k] * (double)w[row];
  for (int64_t k = 0; k < n; k++) state->delta[k] /= sqrt(state->D[k]);
  kwm_triangular_solve(nm, n, L, nm, state->Y, n);
  take_shares(state, n, nm);
  for (int64_t k = 0; k < n; k++) sum += state->delta[k] + state->next[k];
  return isfinite(sum);
}

static void diag_apply(kwm_cov *cov, double scale, float *mean) {
  const int64_t n = numbers(&cov->spec);
  struct diag_state *state = cov->state;
  for (int64_t k = 0; k < n; k++) mean[k] += (float)(scale * state->delta[k]);
  memcpy(state->D, state->next, (size_t)n * sizeof *state->D);
  state->floor_hits += state->floored;
}

static void diag_health(const kwm_cov *cov, struct kwm_health *health) {
  const struct diag_state *const state = cov->state;
  for (int64_t k = 0; k < numbers(&cov->spec); k++) health->trace += 1 / state->D[k];
  health->prior_trace += prior_trace(&cov->spec, state->prior);
  health->parameters += (double)numbers(&cov->spec);
  health->floor_hits += state->floor_hits;
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
  return kwm_ckpt_put(ckpt, dataset(spec, name, sizeof name), KWM_F64, 2, dims, writes ? spec->first : 0,
                      writes ? spec->count : 0, state->D);
}

static kwm_status diag_load(kwm_cov *cov, kwm_ckpt *ckpt) {
  const struct kwm_cov_spec *const spec = &cov->spec;
  const struct diag_state *const state = cov->state;
  const int64_t dims[2] = {spec->total, spec->params};
  char name[128];
  return kwm_ckpt_get(ckpt, dataset(spec, name, sizeof name), KWM_F64, 2, dims, spec->first, spec->count, state->D);
}

const struct kwm_cov_ops kwm_cov_diag = {
    .name = "diag",
    .bytes = diag_bytes,
    .evidence_length = diag_evidence_length,
    .create = diag_create,
    .predict = diag_predict,
    .evidence = diag_evidence,
    .absorb = diag_absorb,
    .project = diag_project,
    .condition = diag_condition,
    .apply = diag_apply,
    .health = diag_health,
    .save = diag_save,
    .load = diag_load,
    .destroy = diag_destroy,
};
