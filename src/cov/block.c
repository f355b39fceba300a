/* One dense matrix per block, in double precision: the precision Λ_b in the information form, the covariance P_b in the
   innovation form. Exact for each block; what it drops is the coupling between blocks, which the innovation form keeps
   in the gain through the shared S (equations.md (140)) and the information form leaves to the trust region.

   Q = q P0 and stabilised forgetting Λ <- λΛ + (1-λ)Λ0 act on their own form directly and on the other through a small
   inverse. */
#include "kwm/cov.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "kwm/backend.h"

enum { PARAMS_MAX = 64 };

struct block_state {
  double *M;             /* (count, p, p) symmetric: Λ or P */
  double *prior;         /* (p) prior variances */
  double *delta;         /* (count, p) prepared step */
  const float *evidence; /* borrowed until apply: packed F (packed(p), count), then s (p, count) */
  float *H, *Z;          /* innovation: (n·m, count·p) rows, and rows times P, later L⁻¹(HP) */
  int64_t rows;          /* innovation: n·m of the step in hand */
  double floor_hits;
};

static bool innovation(const struct kwm_cov_spec *spec) {
  return spec->form == KWM_FORM_INNOVATION;
}

static size_t matrices(const struct kwm_cov_spec *spec) {
  return (size_t)(spec->count * spec->params * spec->params) * sizeof(double);
}

static size_t row_bytes(const struct kwm_cov_spec *spec) {
  return (size_t)(spec->n_max * spec->m * spec->count * spec->params) * sizeof(float);
}

static int64_t block_evidence_length(const struct kwm_cov_spec *spec) {
  return (kwm_packed(spec->params) + spec->params) * spec->count;
}

static size_t block_bytes(const struct kwm_cov_spec *spec) {
  size_t bytes = kwm_mem_rounded(sizeof(struct block_state)) + kwm_mem_rounded(matrices(spec)) +
                 kwm_mem_rounded((size_t)spec->params * sizeof(double)) +
                 kwm_mem_rounded((size_t)(spec->count * spec->params) * sizeof(double));
  if (innovation(spec)) bytes += 2 * kwm_mem_rounded(row_bytes(spec));
  return bytes;
}

static kwm_status block_create(kwm_cov *cov) {
  const struct kwm_cov_spec *const spec = &cov->spec;
  KWM_ASSERT(spec->params <= PARAMS_MAX && spec->prior_variance != NULL);
  struct block_state *state;
  KWM_TRY(kwm_alloc(&cov->state, sizeof *state, "block covariance"));
  state = cov->state;
  const int64_t p = spec->params;
  KWM_TRY(kwm_alloc((void **)&state->M, matrices(spec), "block covariance"));
  KWM_TRY(kwm_alloc((void **)&state->prior, (size_t)p * sizeof(double), "block prior"));
  KWM_TRY(kwm_alloc((void **)&state->delta, (size_t)(spec->count * p) * sizeof(double), "block step"));
  if (innovation(spec)) {
    KWM_TRY(kwm_alloc((void **)&state->H, row_bytes(spec), "Jacobian rows"));
    KWM_TRY(kwm_alloc((void **)&state->Z, row_bytes(spec), "projected rows"));
  }
  memcpy(state->prior, spec->prior_variance, (size_t)p * sizeof(double));
  cov->spec.prior_variance = state->prior;
  for (int64_t b = 0; b < spec->count; b++)
    for (int64_t k = 0; k < p; k++)
      state->M[(b * p + k) * p + k] = innovation(spec) ? state->prior[k] : 1 / state->prior[k];
  return KWM_OK;
}

static void block_destroy(kwm_cov *cov) {
  struct block_state *state = cov->state;
  if (state == NULL) return;
  kwm_free(state->M);
  kwm_free(state->prior);
  kwm_free(state->delta);
  kwm_free(state->H);
  kwm_free(state->Z);
  kwm_free(state);
}

/* M <- weight M + diag(add·prior^power). */
static void scale_and_add(double *M, int64_t p, double weight, double add, const double *prior, bool inverse) {
  for (int64_t k = 0; k < p * p; k++) M[k] *= weight;
  for (int64_t k = 0; k < p; k++) M[k * p + k] += add * (inverse ? 1 / prior[k] : prior[k]);
}

static bool invert(double *M, int64_t p) {
  return kwm_cholesky_f64(p, M, p) && kwm_cholesky_invert_f64(p, M, p);
}

/* M (p, p) <- its time update; false if it is not positive definite. */
static bool predict_one(const struct kwm_cov_spec *spec, const double *prior, double *M) {
  const double lambda = spec->forgetting, q = spec->process_noise;
  const bool P = innovation(spec);
  if (lambda < 1) {
    if (P && !invert(M, spec->params)) return false;
    scale_and_add(M, spec->params, lambda, 1 - lambda, prior, true);
    if (P && !invert(M, spec->params)) return false;
  }
  if (q > 0) {
    if (!P && !invert(M, spec->params)) return false;
    scale_and_add(M, spec->params, 1, q, prior, false);
    if (!P && !invert(M, spec->params)) return false;
  }
  return true;
}

static bool block_predict(kwm_cov *cov, int64_t step) {
  (void)step;
  const struct kwm_cov_spec *const spec = &cov->spec;
  struct block_state *state = cov->state;
  const size_t bytes = (size_t)(spec->params * spec->params) * sizeof(double);
  if (spec->forgetting == 1 && spec->process_noise == 0) return true;
  for (int64_t b = 0; b < spec->count; b++) {
    double *const M = state->M + b * spec->params * spec->params;
    double next[PARAMS_MAX * PARAMS_MAX];
    memcpy(next, M, bytes);
    if (!predict_one(spec, state->prior, next)) return false;
    memcpy(M, next, bytes);
  }
  return true;
}

static void block_evidence(kwm_cov *cov, const struct kwm_jac *jac, float *evidence) {
  kwm_jac_fisher(jac, evidence, evidence + kwm_packed(cov->spec.params) * cov->spec.count);
}

/* F of block b from the packed evidence, added to M (p, p). */
static void add_evidence(const struct kwm_cov_spec *spec, const float *evidence, int64_t b, double *M) {
  const int64_t p = spec->params;
  int64_t index = 0;
  for (int64_t k = 0; k < p; k++)
    for (int64_t j = k; j < p; j++, index++) {
      const double value = (double)evidence[index * spec->count + b];
      M[k * p + j] += value;
      if (j != k) M[j * p + k] += value;
    }
}

static double quadratic(const double *F, int64_t p, const double *x) {
  double sum = 0;
  for (int64_t k = 0; k < p; k++)
    for (int64_t j = 0; j < p; j++) sum += x[k] * F[k * p + j] * x[j];
  return sum;
}

static bool block_absorb(kwm_cov *cov, const float *evidence, int64_t batch, double *kl) {
  const struct kwm_cov_spec *const spec = &cov->spec;
  struct block_state *state = cov->state;
  const int64_t p = spec->params;
  const float *const score = evidence + kwm_packed(p) * spec->count;
  for (int64_t b = 0; b < spec->count; b++) {
    double F[PARAMS_MAX * PARAMS_MAX] = {0}, L[PARAMS_MAX * PARAMS_MAX];
    double *const delta = state->delta + b * p;
    add_evidence(spec, evidence, b, F);
    for (int64_t k = 0; k < p * p; k++) L[k] = state->M[b * p * p + k] + F[k];
    if (!kwm_cholesky_f64(p, L, p)) return false;
    for (int64_t k = 0; k < p; k++) delta[k] = (double)score[k * spec->count + b];
    kwm_cholesky_solve_f64(p, L, p, delta);
    kl[b] = quadratic(F, p, delta) / (double)batch;
    if (!isfinite(kl[b])) return false;
  }
  state->evidence = evidence;
  return true;
}

static void block_project(kwm_cov *cov, const struct kwm_jac *jac, float *S) {
  struct block_state *state = cov->state;
  const int64_t p = cov->spec.params, count = cov->spec.count, nm = jac->n * jac->m, width = count * p;
  kwm_jac_dense(jac, state->H);
  for (int64_t row = 0; row < nm; row++)
    for (int64_t b = 0; b < count; b++) {
      const float *const h = state->H + row * width + b * p;
      float *const z = state->Z + row * width + b * p;
      const double *const P = state->M + b * p * p;
      for (int64_t k = 0; k < p; k++) {
        double sum = 0;
        for (int64_t j = 0; j < p; j++) sum += P[k * p + j] * (double)h[j];
        z[k] = (float)sum;
      }
    }
  kwm_gemm(false, true, nm, nm, width, 1.0f, state->H, width, state->Z, width, 1.0f, S, nm);
}

static bool block_condition(kwm_cov *cov, const struct kwm_jac *jac, const float *L, const float *w) {
  struct block_state *state = cov->state;
  const int64_t nm = jac->n * jac->m, width = cov->spec.count * cov->spec.params;
  state->rows = nm;
  for (int64_t k = 0; k < width; k++) state->delta[k] = 0;
  for (int64_t row = 0; row < nm; row++)
    for (int64_t k = 0; k < width; k++) state->delta[k] += (double)state->Z[row * width + k] * (double)w[row];
  kwm_triangular_solve(nm, width, L, nm, state->Z, width);
  double sum = 0;
  for (int64_t k = 0; k < width; k++) sum += state->delta[k];
  return isfinite(sum);
}

/* Lifts the diagonal of P (p, p), a little at first and tenfold each time, until P is positive definite. */
static void lift(struct block_state *state, double *P, int64_t p) {
  double L[PARAMS_MAX * PARAMS_MAX], jitter = 0;
  for (int64_t k = 0; k < p; k++) jitter += 1e-12 * fabs(P[k * p + k]) / (double)p;
  for (memcpy(L, P, (size_t)(p * p) * sizeof(double)); !kwm_cholesky_f64(p, L, p); jitter *= 10) {
    for (int64_t k = 0; k < p; k++) P[k * p + k] += jitter;
    memcpy(L, P, (size_t)(p * p) * sizeof(double));
    state->floor_hits++;
    if (!isfinite(jitter) || jitter == 0) return;
  }
}

/* P_b <- P_b - Y_bᵀY_b with Y = L⁻¹HP (rows, width), kept positive definite; a step leaves a variance at least a
   millionth of itself. */
static void downdate(struct block_state *state, int64_t b, int64_t p, int64_t width) {
  double *const P = state->M + b * p * p;
  double G[PARAMS_MAX * PARAMS_MAX] = {0};
  for (int64_t row = 0; row < state->rows; row++) {
    const float *const y = state->Z + row * width + b * p;
    for (int64_t k = 0; k < p; k++)
      for (int64_t j = k; j < p; j++) G[k * p + j] += (double)y[k] * (double)y[j];
  }
  for (int64_t k = 0; k < p; k++) {
    const double floor = 1e-6 * P[k * p + k];
    for (int64_t j = k; j < p; j++) P[j * p + k] = P[k * p + j] -= G[k * p + j];
    if (P[k * p + k] >= floor) continue;
    P[k * p + k] = floor;
    state->floor_hits++;
  }
  lift(state, P, p);
}

static void block_apply(kwm_cov *cov, double scale, float *mean) {
  const struct kwm_cov_spec *const spec = &cov->spec;
  struct block_state *state = cov->state;
  const int64_t p = spec->params;
  for (int64_t k = 0; k < spec->count * p; k++) mean[k] += (float)(scale * state->delta[k]);
  for (int64_t b = 0; b < spec->count; b++) {
    if (innovation(spec))
      downdate(state, b, p, spec->count * p);
    else
      add_evidence(spec, state->evidence, b, state->M + b * p * p);
  }
  state->evidence = NULL;
}

static void block_health(const kwm_cov *cov, struct kwm_health *health) {
  const struct block_state *state = cov->state;
  const int64_t p = cov->spec.params;
  for (int64_t b = 0; b < cov->spec.count; b++) {
    double P[PARAMS_MAX * PARAMS_MAX];
    memcpy(P, state->M + b * p * p, (size_t)(p * p) * sizeof(double));
    const bool good = innovation(&cov->spec) || invert(P, p);
    for (int64_t k = 0; k < p; k++) health->trace += good ? P[k * p + k] : NAN;
    for (int64_t k = 0; k < p; k++) health->prior_trace += state->prior[k];
  }
  health->parameters += (double)(cov->spec.count * p);
  health->floor_hits += state->floor_hits;
}

static const char *dataset(const struct kwm_cov_spec *spec, char *name, size_t size) {
  snprintf(name, size, "/cov/%s/%s", spec->name, innovation(spec) ? "covariance" : "precision");
  return name;
}

static kwm_status block_save(const kwm_cov *cov, kwm_ckpt *ckpt, bool writes) {
  const struct kwm_cov_spec *const spec = &cov->spec;
  const struct block_state *state = cov->state;
  const int64_t dims[3] = {spec->total, spec->params, spec->params};
  char name[128];
  return kwm_ckpt_put(ckpt, dataset(spec, name, sizeof name), KWM_F64, 3, dims, writes ? spec->first : 0,
                      writes ? spec->count : 0, state->M);
}

static kwm_status block_load(kwm_cov *cov, kwm_ckpt *ckpt) {
  const struct kwm_cov_spec *const spec = &cov->spec;
  struct block_state *state = cov->state;
  const int64_t dims[3] = {spec->total, spec->params, spec->params};
  char name[128];
  return kwm_ckpt_get(ckpt, dataset(spec, name, sizeof name), KWM_F64, 3, dims, spec->first, spec->count, state->M);
}

const struct kwm_cov_ops kwm_cov_block = {
    .name = "block",
    .bytes = block_bytes,
    .evidence_length = block_evidence_length,
    .create = block_create,
    .predict = block_predict,
    .evidence = block_evidence,
    .absorb = block_absorb,
    .project = block_project,
    .condition = block_condition,
    .apply = block_apply,
    .health = block_health,
    .save = block_save,
    .load = block_load,
    .destroy = block_destroy,
};
