/* The innovation form of kron: Z and S from the exact P; of the exact posterior the diagonal in the basis is kept. In
   double precision whatever the state is kept in. Costs d_o (n² d_i + (nm)²) a step: for small observations and for
   checking the information form. */
#include "kron.h"

#include <math.h>
#include <string.h>

#include "kwm/backend.h"

/* A step leaves a variance at least this part of itself (what is left is computed as a difference). */
static const double SMALLEST_SHARE = 1e-6;

/* The state in double precision. */
struct wide {
  const double *D, *U, *V;
};

static const double *widened(const struct reals *reals, int64_t n, double *copy) {
  if (reals->f64 != NULL) return reals->f64;
  for (int64_t k = 0; k < n; k++) copy[k] = (double)reals->f32[k];
  return copy;
}

static struct wide wide_state(const kwm_cov *cov) {
  const int64_t o = cov->spec.d_o, i = cov->spec.d_i;
  const struct kron_state *const state = cov->state;
  if (cov->spec.real == KWM_REAL_DOUBLE) return (struct wide){state->D.f64, state->U.f64, state->V.f64};
  return (struct wide){.D = widened(&state->D, o * i, state->wide),
                       .U = widened(&state->U, i * i, state->wide + o * i),
                       .V = widened(&state->V, o * o, state->wide + o * i + i * i)};
}

static const double *wide_rows(struct kron_state *state, int64_t n, const float *rows) {
  for (int64_t k = 0; k < n; k++) state->rows[k] = (double)rows[k];
  return state->rows;
}

static void rotate_rows(kwm_cov *cov, const struct kwm_jac *jac, const struct wide *in) {
  const int64_t o = cov->spec.d_o, i = cov->spec.d_i, n = jac->n, nm = n * jac->m;
  struct kron_state *state = cov->state;
  kwm_gemm_f64(false, false, n, i, i, 1, wide_rows(state, n * i, jac->a), i, in->U, i, 0, state->rotated_a, i);
  kwm_gemm_f64(false, false, nm, o, o, 1, wide_rows(state, nm * o, jac->J), o, in->V, o, 0, state->rotated_J, o);
}

/* S_(nr)(n'r') += sum_k (JV)_nr,k (JV)_n'r',k [aU diag(1/D_k) (aU)ᵀ]_nn' */
void kron_project(kwm_cov *cov, const struct kwm_jac *jac, double *S) {
  const int64_t o = cov->spec.d_o, i = cov->spec.d_i, n = jac->n, m = jac->m, nm = n * m;
  struct kron_state *state = cov->state;
  const struct wide in = wide_state(cov);
  rotate_rows(cov, jac, &in);
  const double *const aU = state->rotated_a, *const JV = state->rotated_J;
  double *const C = state->pair, *const scaled = state->pair + 2 * n * n;
  for (int64_t k = 0; k < o; k++) {
    for (int64_t s = 0; s < n; s++)
      for (int64_t j = 0; j < i; j++) scaled[s * i + j] = aU[s * i + j] / in.D[k * i + j];
    kwm_gemm_f64(false, true, n, n, i, 1, scaled, i, aU, i, 0, C, n);
    for (int64_t row = 0; row < nm; row++) {
      const double left = JV[row * o + k];
      if (left == 0) continue;
      for (int64_t s = 0; s < n; s++)
        for (int64_t r = s * m; r < (s + 1) * m; r++) S[row * nm + r] += left * JV[r * o + k] * C[row / m * n + s];
    }
  }
}

/* M (n, n) <- sum over outputs of (JV)_.k S⁻¹ (JV)_.k */
static void pairs(const struct kron_state *state, int64_t o, const struct kwm_jac *jac, int64_t k, double *M) {
  const int64_t n = jac->n, m = jac->m, nm = n * m;
  memset(M, 0, (size_t)(n * n) * sizeof *M);
  for (int64_t row = 0; row < nm; row++)
    for (int64_t s = 0; s < n; s++)
      for (int64_t r = s * m; r < (s + 1) * m; r++)
        M[row / m * n + s] +=
            state->rotated_J[row * o + k] * state->inverse[row * nm + r] * state->rotated_J[r * o + k];
}

/* f[k][:] <- diag of the exact posterior in the basis, as the new precision: 1 / (p - p² sum hᵀS⁻¹h). */
static void posterior_row(kwm_cov *cov, const struct kwm_jac *jac, const double *D, int64_t k) {
  const int64_t i = cov->spec.d_i, n = jac->n;
  struct kron_state *state = cov->state;
  double *const M = state->pair, *const Ma = state->pair + 2 * n * n;
  pairs(state, cov->spec.d_o, jac, k, M);
  kwm_gemm_f64(false, false, n, i, n, 1, M, n, state->rotated_a, i, 0, Ma, i);
  for (int64_t j = 0; j < i; j++) {
    double drop = 0;
    for (int64_t s = 0; s < n; s++) drop += state->rotated_a[s * i + j] * Ma[s * i + j];
    const double before = D[k * i + j], left = 1 - drop / before;
    state->floored += left < SMALLEST_SHARE;
    reals_set(&state->f, k * i + j, before / (left < SMALLEST_SHARE ? SMALLEST_SHARE : left > 1 ? 1 : left));
  }
}

/* inverse (n, n) <- L⁻ᵀL⁻¹; factor (n, n): scratch. */
static void invert(int64_t n, const double *L, double *factor, double *inverse) {
  memset(factor, 0, (size_t)(n * n) * sizeof *factor);
  for (int64_t k = 0; k < n; k++) factor[k * n + k] = 1;
  kwm_triangular_solve_f64(n, n, L, n, factor, n);
  kwm_gram_f64(n, n, 1, factor, n, 0, inverse, n);
  kwm_mirror_f64(n, inverse, n);
}

/* X <- (JV)ᵀ(w ∘ aU) / D; false if it is not finite. */
static bool prepare_step(kwm_cov *cov, const struct kwm_jac *jac, const double *D, const double *w) {
  const int64_t o = cov->spec.d_o, i = cov->spec.d_i, n = jac->n, m = jac->m;
  struct kron_state *state = cov->state;
  double *const X = state->rows, sum = 0;
  memset(state->score, 0, (size_t)(n * o) * sizeof *state->score);
  for (int64_t row = 0; row < n * m; row++)
    for (int64_t k = 0; k < o; k++) state->score[row / m * o + k] += w[row] * state->rotated_J[row * o + k];
  kwm_gemm_f64(true, false, o, i, n, 1, state->score, o, state->rotated_a, i, 0, X, i);
  for (int64_t k = 0; k < o * i; k++) {
    reals_set(&state->X, k, X[k] / D[k]);
    sum += reals_get(&state->X, k);
  }
  return isfinite(sum);
}

bool kron_condition(kwm_cov *cov, const struct kwm_jac *jac, const double *L, const double *w) {
  struct kron_state *state = cov->state;
  const struct wide in = wide_state(cov);
  double sum = 0;
  state->jac = *jac;
  state->batch = (double)jac->n;
  state->floored = 0;
  invert(jac->n * jac->m, L, state->factor, state->inverse);
  for (int64_t k = 0; k < cov->spec.d_o; k++) posterior_row(cov, jac, in.D, k);
  for (int64_t k = 0; k < cov->spec.d_o * cov->spec.d_i; k++) sum += reals_get(&state->f, k);
  return prepare_step(cov, jac, in.D, w) && isfinite(sum);
}

/* C (width, width) += share rowsᵀrows in its upper triangle. */
static void add_gram(struct kron_state *state, int64_t width, int64_t n, double share, const float *rows,
                     struct reals *C) {
  kwm_gram_f64(width, n, share, wide_rows(state, n * width, rows), width, 0, state->eigen, width);
  for (int64_t k = 0; k < width; k++)
    for (int64_t j = k; j < width; j++)
      reals_set(C, k * width + j, reals_get(C, k * width + j) + state->eigen[k * width + j]);
}

void kron_take_posterior(kwm_cov *cov) {
  const int64_t o = cov->spec.d_o, i = cov->spec.d_i;
  struct kron_state *state = cov->state;
  const struct kwm_jac *const jac = &state->jac;
  add_gram(state, i, jac->n, 1 / state->batch, jac->a, &state->A);
  add_gram(state, o, jac->n * jac->m, 1 / state->batch, jac->J, &state->G);
  for (int64_t k = 0; k < o * i; k++) reals_set(&state->D, k, reals_get(&state->f, k));
  state->floor_hits += state->floored;
}
