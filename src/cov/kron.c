/* A weight matrix W (d_o, d_i) with P = (V⊗U) diag(1/D) (V⊗U)ᵀ: a scalar Riccati recursion per coordinate of the
   Kronecker eigenbasis (equations.md 3(a), continual.md 4).

     A += aᵀa/N,  G += JᵀJ/N       sums over all data, never decayed; U, V their eigenvectors, refreshed now and then:
                                   D <- (V'ᵀV)² D ((U'ᵀU)²)ᵀ elementwise squares, which keeps the trace of D
     f_ij = (VᵀJᵀJV)_ii (UᵀaᵀaU)_jj / N,   X = Vᵀ(gᵀa)U,   g_n = sum_r e_nr J_nr
     δ = V (X / (D + f)) Uᵀ,   D <- D + f          i.e. p <- p/(1 + p f), p = 1/D

   The projection it makes: F is taken as diagonal in that basis, and the mean of products as the product of means. The
   innovation form uses the same P exactly in Z and S and keeps the diagonal of the exact posterior in the basis.

   Framed (float, information): the mean is kept as VᵀWU, and a step is X / (D + f) itself; it turns with the basis.

   Here is what does not depend on the form or on the type of the numbers; kron.h says where the rest is. */
#include "kron.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static bool innovation(const struct kwm_cov_spec *spec) {
  return spec->form == KWM_FORM_INNOVATION;
}

static const struct kron_numbers *numbers_of(const kwm_cov *cov) {
  return cov->spec.real == KWM_REAL_DOUBLE ? &kron_f64 : &kron_f32;
}

static int64_t kron_evidence_length(const struct kwm_cov_spec *spec) {
  return spec->count == 0 ? 0 : kron_evidence_of(spec).length;
}

/* The state's arrays as (pointer, bytes) pairs: one list for allocation, size and release. */
enum { KRON_ARRAYS = 24 };
struct kron_array {
  void **at;
  size_t bytes;
};

static struct kron_array real_array(struct reals *reals, enum kwm_real real, int64_t n) {
  return (struct kron_array){real == KWM_REAL_DOUBLE ? (void **)&reals->f64 : (void **)&reals->f32,
                             (size_t)n * reals_size(real)};
}

static struct kron_array float_array(float **at, bool wanted, int64_t n) {
  return (struct kron_array){(void **)at, wanted ? (size_t)n * sizeof(float) : 0};
}

static struct kron_array double_array(double **at, bool wanted, int64_t n) {
  return (struct kron_array){(void **)at, wanted ? (size_t)n * sizeof(double) : 0};
}

static int64_t larger(int64_t a, int64_t b) {
  return a > b ? a : b;
}

static void arrays_of(struct kron_state *state, const struct kwm_cov_spec *spec,
                      struct kron_array arrays[KRON_ARRAYS]) {
  const int64_t o = spec->d_o, i = spec->d_i, d = larger(o, i), n = spec->n_max, nm = n * spec->m;
  const enum kwm_real real = spec->real;
  const bool rows = innovation(spec), sums = !rows, narrow = real == KWM_REAL_FLOAT;
  const struct kron_array list[KRON_ARRAYS] = {
      real_array(&state->D, real, o * i),
      real_array(&state->A, real, i * i),
      real_array(&state->G, real, o * o),
      real_array(&state->U, real, i * i),
      real_array(&state->V, real, o * o),
      real_array(&state->past_A, real, spec->delay > 0 ? i * i : 0),
      real_array(&state->past_G, real, spec->delay > 0 ? o * o : 0),
      real_array(&state->X, real, o * i),
      real_array(&state->f, real, o * i),
      real_array(&state->T, real, o * i),
      real_array(&state->new_U, real, i * i),
      real_array(&state->new_V, real, o * o),
      double_array(&state->eigen, true, d * d + 2 * d),
      float_array(&state->aU, sums && narrow, n * i),
      float_array(&state->g, sums, n * o),
      float_array(&state->gV, sums && narrow, n * o),
      double_array(&state->rotated_a, rows, n * i),
      double_array(&state->rotated_J, rows, nm * o),
      double_array(&state->rows, rows, larger(larger(n * i, nm * o), o * i)),
      double_array(&state->pair, rows, 2 * n * n + n * i),
      double_array(&state->score, rows, n * o),
      double_array(&state->inverse, rows, nm * nm),
      double_array(&state->factor, rows, nm * nm),
      double_array(&state->wide, rows && narrow, o * i + i * i + o * o),
  };
  memcpy(arrays, list, sizeof list);
}

static size_t kron_bytes(const struct kwm_cov_spec *spec) {
  struct kron_state none;
  struct kron_array arrays[KRON_ARRAYS];
  size_t bytes = kwm_mem_rounded(sizeof none);
  if (spec->count == 0) return bytes;
  arrays_of(&none, spec, arrays);
  for (int k = 0; k < KRON_ARRAYS; k++)
    if (arrays[k].bytes > 0) bytes += kwm_mem_rounded(arrays[k].bytes);
  return bytes;
}

static void identity(struct reals *E, int64_t n) {
  for (int64_t k = 0; k < n; k++) reals_set(E, k * n + k, 1);
}

static kwm_status kron_create(kwm_cov *cov) {
  const struct kwm_cov_spec *const spec = &cov->spec;
  KWM_ASSERT(spec->count <= 1 && spec->prior_precision > 0);
  KWM_ASSERT(!spec->framed || (!innovation(spec) && spec->real == KWM_REAL_FLOAT));
  KWM_TRY(kwm_alloc(&cov->state, sizeof(struct kron_state), "kron covariance"));
  if (spec->count == 0) return KWM_OK;
  struct kron_state *state = cov->state;
  struct kron_array arrays[KRON_ARRAYS];
  arrays_of(state, spec, arrays);
  for (int k = 0; k < KRON_ARRAYS; k++)
    if (arrays[k].bytes > 0) KWM_TRY(kwm_alloc(arrays[k].at, arrays[k].bytes, "kron covariance"));
  identity(&state->U, spec->d_i);
  identity(&state->V, spec->d_o);
  for (int64_t k = 0; k < spec->d_o * spec->d_i; k++) reals_set(&state->D, k, spec->prior_precision);
  return KWM_OK;
}

static void kron_destroy(kwm_cov *cov) {
  if (cov->state == NULL) return;
  struct kron_array arrays[KRON_ARRAYS];
  arrays_of(cov->state, &cov->spec, arrays);
  for (int k = 0; k < KRON_ARRAYS; k++) kwm_free(*arrays[k].at);
  kwm_free(cov->state);
}

/* What is due is asked for also where the basis before it could not be had. */
static bool kron_predict(kwm_cov *cov, int64_t step, const float *anchor, float *mean) {
  const struct kwm_cov_spec *const spec = &cov->spec;
  struct kron_state *const state = cov->state;
  const size_t one = reals_size(spec->real);
  KWM_ASSERT(!spec->framed || mean != NULL); /* it turns with the basis */
  const bool turns = kron_turns(spec, state->since, step);
  const bool good = numbers_of(cov)->predict(cov, turns, anchor, mean);
  if (turns) state->since = 0;
  if (kron_sets_aside(spec, state->since, step)) {
    memcpy(reals_data(&state->past_A), reals_data(&state->A), (size_t)(spec->d_i * spec->d_i) * one);
    memcpy(reals_data(&state->past_G), reals_data(&state->G), (size_t)(spec->d_o * spec->d_o) * one);
    state->since = step;
  }
  return good;
}

static void kron_evidence(kwm_cov *cov, const struct kwm_jac *jac, float *evidence) {
  numbers_of(cov)->evidence(cov, jac, evidence);
}

static bool kron_absorb(kwm_cov *cov, const struct kwm_jac *jac, const float *evidence, int64_t batch, double *kl) {
  (void)jac;
  return numbers_of(cov)->absorb(cov, evidence, batch, kl);
}

static void kron_delta(const kwm_cov *cov, double *delta) {
  numbers_of(cov)->delta(cov, delta);
}

/* A rotation changes no norm, and P0 is the same in any basis. */
static void kron_moved(const kwm_cov *cov, double *moved) {
  moved[0] = numbers_of(cov)->size(cov) * cov->spec.prior_precision;
}

static void kron_slope(const kwm_cov *cov, double *slope) {
  slope[0] = numbers_of(cov)->slope(cov);
}

static void kron_expected(const kwm_cov *cov, double *expected) {
  const struct kron_state *const state = cov->state;
  expected[0] = numbers_of(cov)->expected(cov) / state->batch;
}

static void kron_move(kwm_cov *cov, double scale, float *mean) {
  numbers_of(cov)->move(cov, scale, mean);
}

static void kron_apply(kwm_cov *cov, double scale, float *mean) {
  numbers_of(cov)->move(cov, scale, mean);
  if (innovation(&cov->spec))
    kron_take_posterior(cov);
  else
    numbers_of(cov)->take(cov);
}

static void kron_health(const kwm_cov *cov, struct kwm_health *health) {
  const struct kron_state *const state = cov->state;
  const int64_t n = cov->spec.params;
  double trace = 0;
  for (int64_t k = 0; k < n; k++) trace += 1 / reals_get(&state->D, k);
  health->trace += trace;
  health->prior_trace += (double)n / cov->spec.prior_precision;
  health->parameters += (double)n;
  health->floor_hits += state->floor_hits;
}

static int64_t kron_spectrum_length(const struct kwm_cov_spec *spec) {
  return spec->count * spec->params;
}

static bool positive(const kwm_cov *cov) {
  const struct kron_state *const state = cov->state;
  for (int64_t k = 0; k < cov->spec.params; k++) {
    const double D = reals_get(&state->D, k);
    if (!(D > 0 && isfinite(D))) return false;
  }
  return true;
}

static int ascending(const void *a, const void *b) {
  const double left = *(const double *)a, right = *(const double *)b;
  return (left > right) - (left < right);
}

static bool kron_spectrum(const kwm_cov *cov, double *values) {
  const struct kron_state *const state = cov->state;
  if (!positive(cov)) return false;
  for (int64_t k = 0; k < cov->spec.params; k++) values[k] = cov->spec.prior_precision / reals_get(&state->D, k);
  qsort(values, (size_t)cov->spec.params, sizeof *values, ascending);
  return true;
}

/* C (d_i, d_i) <- U diag(1/D[k][:]) Uᵀ */
static void input_covariance(const kwm_cov *cov, int64_t k, double *C) {
  const int64_t i = cov->spec.d_i;
  const struct kron_state *const state = cov->state;
  for (int64_t row = 0; row < i; row++)
    for (int64_t col = 0; col < i; col++) {
      double sum = 0;
      for (int64_t j = 0; j < i; j++)
        sum += reals_get(&state->U, row * i + j) * reals_get(&state->U, col * i + j) / reals_get(&state->D, k * i + j);
      C[row * i + col] = sum;
    }
}

static bool kron_covariance(const kwm_cov *cov, double *P) {
  const int64_t o = cov->spec.d_o, i = cov->spec.d_i, n = o * i;
  const struct kron_state *const state = cov->state;
  if (!positive(cov)) return false;
  memset(P, 0, (size_t)(n * n) * sizeof *P);
  for (int64_t k = 0; k < o; k++) {
    input_covariance(cov, k, state->eigen);
    for (int64_t a = 0; a < n; a++) {
      const double left = reals_get(&state->V, a / i * o + k);
      for (int64_t b = 0; b < n; b++)
        P[a * n + b] += left * reals_get(&state->V, b / i * o + k) * state->eigen[a % i * i + b % i];
    }
  }
  return true;
}

static bool kron_predictive(kwm_cov *cov, const struct kwm_jac *jac, double *C) {
  return positive(cov) && numbers_of(cov)->predictive(cov, jac, C);
}

static struct kwm_frame kron_frame(const kwm_cov *cov) {
  const struct kron_state *const state = cov->state;
  return (struct kwm_frame){.U = state->U.f32, .V = state->V.f32};
}

const struct kwm_cov_ops kwm_cov_kron = {
    .name = "kron",
    .device = &kwm_cov_kron_device,
    .on_device = kron_on_device,
    .bytes = kron_bytes,
    .evidence_length = kron_evidence_length,
    .create = kron_create,
    .predict = kron_predict,
    .evidence = kron_evidence,
    .absorb = kron_absorb,
    .project = kron_project,
    .condition = kron_condition,
    .delta = kron_delta,
    .moved = kron_moved,
    .slope = kron_slope,
    .expected = kron_expected,
    .apply = kron_apply,
    .move = kron_move,
    .health = kron_health,
    .spectrum_length = kron_spectrum_length,
    .spectrum = kron_spectrum,
    .covariance = kron_covariance,
    .predictive = kron_predictive,
    .frame = kron_frame,
    .unframe = kron_unframe,
    .save = kron_save,
    .load = kron_load,
    .destroy = kron_destroy,
};
