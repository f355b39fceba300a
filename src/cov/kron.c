/* A weight matrix W (d_o, d_i) with P = (V⊗U) diag(1/D) (V⊗U)ᵀ: a scalar Riccati recursion per coordinate of the
   Kronecker eigenbasis (equations.md 3(a), continual.md 4).

     A += aᵀa/N,  G += JᵀJ/N       sums over all data, never decayed; U, V their eigenvectors, refreshed now and then:
                                   D <- (V'ᵀV)² D ((U'ᵀU)²)ᵀ elementwise squares, which keeps the trace of D
     f_ij = (VᵀJᵀJV)_ii (UᵀaᵀaU)_jj / N,   X = Vᵀ(gᵀa)U,   g_n = sum_r e_nr J_nr
     δ = V (X / (D + f)) Uᵀ,   D <- D + f          i.e. p <- p/(1 + p f), p = 1/D

   The projection it makes: F is taken as diagonal in that basis, and the mean of products as the product of means. The
   innovation form uses the same P exactly in Z and S and keeps the diagonal of the exact posterior in the basis. */
#include "kron.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "kwm/backend.h"

/* Evidence of a chunk: A (d_i,d_i) upper, G (d_o,d_o) upper, X (d_o,d_i) in the basis, at2 (d_i). */
struct kron_evidence {
  int64_t A, G, X, at2, length;
};

static struct kron_evidence evidence_of(const struct kwm_cov_spec *spec) {
  struct kron_evidence at = {0};
  at.G = at.A + spec->d_i * spec->d_i;
  at.X = at.G + spec->d_o * spec->d_o;
  at.at2 = at.X + spec->d_o * spec->d_i;
  at.length = at.at2 + spec->d_i;
  return at;
}

static int64_t kron_evidence_length(const struct kwm_cov_spec *spec) {
  return spec->count == 0 ? 0 : evidence_of(spec).length;
}

/* The state's arrays as (pointer, floats) pairs: one list for allocation, size and release. */
enum { KRON_ARRAYS = 17 };
struct kron_array {
  void **at;
  int64_t floats;
};

static int arrays_of(struct kron_state *state, const struct kwm_cov_spec *spec, struct kron_array *arrays) {
  const int64_t o = spec->d_o, i = spec->d_i, d = o > i ? o : i, n = spec->n_max;
  const bool innovation = spec->form == KWM_FORM_INNOVATION;
  const struct kron_array list[] = {
      {(void **)&state->D, o * i},
      {(void **)&state->A, i * i},
      {(void **)&state->G, o * o},
      {(void **)&state->U, i * i},
      {(void **)&state->V, o * o},
      {(void **)&state->X, o * i},
      {(void **)&state->f, o * i},
      {(void **)&state->T, o * i},
      {(void **)&state->square, d * d},
      {(void **)&state->eigen, 2 * (d * d + d)},
      {(void **)&state->aU, n * i},
      {(void **)&state->g, n * o},
      {(void **)&state->gV, n * o},
      {(void **)&state->JV, innovation ? n * spec->m * o : 0},
      {(void **)&state->pair, innovation ? 2 * n * n + n * i : 0},
      {(void **)&state->inverse, innovation ? n * spec->m * n * spec->m : 0},
      {(void **)&state->factor, innovation ? n * spec->m * n * spec->m : 0},
  };
  memcpy(arrays, list, sizeof list);
  return (int)(sizeof list / sizeof list[0]);
}

static size_t kron_bytes(const struct kwm_cov_spec *spec) {
  if (spec->count == 0) return kwm_mem_rounded(sizeof(struct kron_state));
  struct kron_state none;
  struct kron_array arrays[KRON_ARRAYS];
  const int n = arrays_of(&none, spec, arrays);
  size_t bytes = kwm_mem_rounded(sizeof(struct kron_state));
  for (int k = 0; k < n; k++)
    if (arrays[k].floats > 0) bytes += kwm_mem_rounded((size_t)arrays[k].floats * sizeof(float));
  return bytes;
}

static void identity(int64_t n, float *E) {
  for (int64_t k = 0; k < n * n; k++) E[k] = 0;
  for (int64_t k = 0; k < n; k++) E[k * n + k] = 1;
}

static kwm_status kron_create(kwm_cov *cov) {
  const struct kwm_cov_spec *const spec = &cov->spec;
  KWM_ASSERT(spec->count <= 1 && spec->prior_precision > 0);
  KWM_TRY(kwm_alloc(&cov->state, sizeof(struct kron_state), "kron covariance"));
  if (spec->count == 0) return KWM_OK;
  struct kron_state *state = cov->state;
  struct kron_array arrays[KRON_ARRAYS];
  const int n = arrays_of(state, spec, arrays);
  for (int k = 0; k < n; k++)
    if (arrays[k].floats > 0)
      KWM_TRY(kwm_alloc(arrays[k].at, (size_t)arrays[k].floats * sizeof(float), "kron covariance"));
  identity(spec->d_i, state->U);
  identity(spec->d_o, state->V);
  for (int64_t k = 0; k < spec->d_o * spec->d_i; k++) state->D[k] = (float)spec->prior_precision;
  return KWM_OK;
}

static void kron_destroy(kwm_cov *cov) {
  if (cov->state == NULL) return;
  struct kron_array arrays[KRON_ARRAYS];
  const int n = arrays_of(cov->state, &cov->spec, arrays);
  for (int k = 0; k < n; k++) kwm_free(*arrays[k].at);
  kwm_free(cov->state);
}

/* E (n, n) <- eigenvectors of the symmetric matrix whose upper triangle is C; overlap (n, n) <- (E'ᵀE)² elementwise. */
static bool new_basis(struct kron_state *state, int64_t n, const float *C, float *E, float *overlap) {
  double *const W = state->eigen;
  for (int64_t k = 0; k < n * n; k++) W[k] = (double)C[k];
  if (!kwm_eigen_f64(n, W, W + n * n)) return false;
  float *const fresh = state->square;
  for (int64_t k = 0; k < n * n; k++) fresh[k] = (float)W[k];
  kwm_gemm(true, false, n, n, n, 1.0f, fresh, n, E, n, 0.0f, overlap, n);
  for (int64_t k = 0; k < n * n; k++) overlap[k] *= overlap[k];
  memcpy(E, fresh, (size_t)(n * n) * sizeof(float));
  return true;
}

static bool refresh(kwm_cov *cov) {
  const int64_t o = cov->spec.d_o, i = cov->spec.d_i;
  struct kron_state *state = cov->state;
  float *const overlap = (float *)(state->eigen);
  if (!new_basis(state, i, state->A, state->U, overlap)) return false;
  kwm_gemm(false, true, o, i, i, 1.0f, state->D, i, overlap, i, 0.0f, state->T, i);
  if (!new_basis(state, o, state->G, state->V, overlap)) return false;
  kwm_gemm(false, false, o, i, o, 1.0f, overlap, o, state->T, i, 0.0f, state->D, i);
  return true;
}

/* Early on the factors change fast; later a fixed interval does. */
static bool refresh_due(int64_t step, int64_t interval) {
  return step == 1 || step == 5 || step == 10 || step == 20 || step == 40 || (step > 0 && step % interval == 0);
}

static bool kron_predict(kwm_cov *cov, int64_t step) {
  const struct kwm_cov_spec *const spec = &cov->spec;
  struct kron_state *state = cov->state;
  const float lambda = (float)spec->forgetting, d0 = (float)spec->prior_precision;
  const float q = (float)(spec->process_noise / spec->prior_precision);
  const int64_t n = spec->d_o * spec->d_i;
  if (lambda < 1)
    for (int64_t k = 0; k < n; k++) state->D[k] = lambda * state->D[k] + (1 - lambda) * d0;
  if (q > 0)
    for (int64_t k = 0; k < n; k++) state->D[k] = state->D[k] / (1 + q * state->D[k]);
  return !refresh_due(step, spec->refresh) || refresh(cov);
}

static void kron_evidence(kwm_cov *cov, const struct kwm_jac *jac, float *evidence) {
  const int64_t o = cov->spec.d_o, i = cov->spec.d_i, n = jac->n;
  struct kron_state *state = cov->state;
  const struct kron_evidence at = evidence_of(&cov->spec);
  kwm_gram(i, n, 1.0f, jac->a, i, 1.0f, evidence + at.A, i);
  kwm_gram(o, n * jac->m, 1.0f, jac->J, o, 1.0f, evidence + at.G, o);
  kwm_jac_output_score(jac, state->g);
  kwm_gemm(false, false, n, i, i, 1.0f, jac->a, i, state->U, i, 0.0f, state->aU, i);
  kwm_gemm(false, false, n, o, o, 1.0f, state->g, o, state->V, o, 0.0f, state->gV, o);
  kwm_gemm(true, false, o, i, n, 1.0f, state->gV, o, state->aU, i, 1.0f, evidence + at.X, i);
  for (int64_t s = 0; s < n; s++)
    for (int64_t j = 0; j < i; j++) evidence[at.at2 + j] += state->aU[s * i + j] * state->aU[s * i + j];
}

/* gt2[k] <- (VᵀGV)_kk for the upper triangle G. */
static void rotated_diagonal(struct kron_state *state, int64_t o, const float *G, double *gt2) {
  float *const full = state->square, *const GV = (float *)(state->eigen + o);
  memcpy(full, G, (size_t)(o * o) * sizeof(float));
  kwm_mirror(o, full, o);
  kwm_gemm(false, false, o, o, o, 1.0f, full, o, state->V, o, 0.0f, GV, o);
  for (int64_t k = 0; k < o; k++) gt2[k] = 0;
  for (int64_t j = 0; j < o; j++)
    for (int64_t k = 0; k < o; k++) gt2[k] += (double)state->V[j * o + k] * (double)GV[j * o + k];
}

static bool kron_absorb(kwm_cov *cov, const float *evidence, int64_t batch, double *kl) {
  const int64_t o = cov->spec.d_o, i = cov->spec.d_i;
  struct kron_state *state = cov->state;
  const struct kron_evidence at = evidence_of(&cov->spec);
  double *const gt2 = state->eigen;
  rotated_diagonal(state, o, evidence + at.G, gt2);
  double sum = 0;
  for (int64_t k = 0; k < o; k++) {
    const float weight = (float)(fmax(gt2[k], 0) / (double)batch);
    double row = 0;
    for (int64_t j = 0; j < i; j++) {
      const float f = weight * evidence[at.at2 + j];
      const float x = evidence[at.X + k * i + j] / (state->D[k * i + j] + f);
      state->f[k * i + j] = f;
      state->X[k * i + j] = x;
      row += (double)(f * x * x);
    }
    sum += row;
  }
  kl[0] = sum / (double)batch;
  state->evidence = evidence;
  state->batch = (double)batch;
  return isfinite(kl[0]);
}

static void kron_apply(kwm_cov *cov, double scale, float *mean) {
  const int64_t o = cov->spec.d_o, i = cov->spec.d_i;
  struct kron_state *state = cov->state;
  kwm_gemm(false, true, o, i, i, (float)scale, state->X, i, state->U, i, 0.0f, state->T, i);
  kwm_gemm(false, false, o, i, o, 1.0f, state->V, o, state->T, i, 1.0f, mean, i);
  if (cov->spec.form == KWM_FORM_INNOVATION) {
    kron_take_posterior(cov);
    return;
  }
  const struct kron_evidence at = evidence_of(&cov->spec);
  const float share = (float)(1 / state->batch);
  for (int64_t k = 0; k < i * i; k++) state->A[k] += share * state->evidence[at.A + k];
  for (int64_t k = 0; k < o * o; k++) state->G[k] += share * state->evidence[at.G + k];
  for (int64_t k = 0; k < o * i; k++) state->D[k] += state->f[k];
  state->evidence = NULL;
}

static void kron_health(const kwm_cov *cov, struct kwm_health *health) {
  const struct kron_state *state = cov->state;
  const int64_t n = cov->spec.d_o * cov->spec.d_i;
  double trace = 0;
  for (int64_t k = 0; k < n; k++) trace += 1 / (double)state->D[k];
  health->trace += trace;
  health->prior_trace += (double)n / cov->spec.prior_precision;
  health->parameters += (double)n;
}

/* Calls put or get for every array that belongs to the state; the owner holds all rows. */
struct kron_file {
  const char *leaf;
  float *data;
  int64_t rows, cols;
};

static void files_of(const kwm_cov *cov, struct kron_file files[5]) {
  const int64_t o = cov->spec.d_o, i = cov->spec.d_i;
  const struct kron_state *state = cov->state;
  const struct kron_file list[5] = {{"precision", state->D, o, i},
                                    {"input_factor", state->A, i, i},
                                    {"output_factor", state->G, o, o},
                                    {"input_basis", state->U, i, i},
                                    {"output_basis", state->V, o, o}};
  memcpy(files, list, sizeof list);
}

static kwm_status kron_save(const kwm_cov *cov, kwm_ckpt *ckpt, bool writes) {
  struct kron_file files[5];
  files_of(cov, files);
  for (int k = 0; k < 5; k++) {
    char name[128];
    snprintf(name, sizeof name, "/cov/%s/%s", cov->spec.name, files[k].leaf);
    const int64_t dims[2] = {files[k].rows, files[k].cols};
    KWM_TRY(kwm_ckpt_put(ckpt, name, KWM_F32, 2, dims, 0, writes && cov->spec.count > 0 ? dims[0] : 0, files[k].data));
  }
  return KWM_OK;
}

static kwm_status kron_load(kwm_cov *cov, kwm_ckpt *ckpt) {
  struct kron_file files[5];
  files_of(cov, files);
  for (int k = 0; k < 5; k++) {
    char name[128];
    snprintf(name, sizeof name, "/cov/%s/%s", cov->spec.name, files[k].leaf);
    const int64_t dims[2] = {files[k].rows, files[k].cols};
    KWM_TRY(kwm_ckpt_get(ckpt, name, KWM_F32, 2, dims, 0, cov->spec.count > 0 ? dims[0] : 0, files[k].data));
  }
  return KWM_OK;
}

const struct kwm_cov_ops kwm_cov_kron = {
    .name = "kron",
    .bytes = kron_bytes,
    .evidence_length = kron_evidence_length,
    .create = kron_create,
    .predict = kron_predict,
    .evidence = kron_evidence,
    .absorb = kron_absorb,
    .project = kron_project,
    .condition = kron_condition,
    .apply = kron_apply,
    .health = kron_health,
    .save = kron_save,
    .load = kron_load,
    .destroy = kron_destroy,
};
