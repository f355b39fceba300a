/* The innovation form of kron: Z and S from the exact P; of the exact posterior the diagonal in the basis is kept.
   Costs d_o (n² d_i + (nm)²) a step: for small observations and for checking the information form. */
#include "kron.h"

#include <math.h>
#include <string.h>

#include "kwm/backend.h"

/* Rows of the innovation form in the basis: aU (n, d_i), JV (n·m, d_o). */
static void rotate_rows(kwm_cov *cov, const struct kwm_jac *jac) {
  const int64_t o = cov->spec.d_o, i = cov->spec.d_i;
  struct kron_state *state = cov->state;
  kwm_gemm(false, false, jac->n, i, i, 1.0f, jac->a, i, state->U, i, 0.0f, state->aU, i);
  kwm_gemm(false, false, jac->n * jac->m, o, o, 1.0f, jac->J, o, state->V, o, 0.0f, state->JV, o);
}

/* S_(nr)(n'r') += sum_k (JV)_nr,k (JV)_n'r',k [aU diag(1/D_k) aUᵀ]_nn' */
void kron_project(kwm_cov *cov, const struct kwm_jac *jac, float *S) {
  const int64_t o = cov->spec.d_o, i = cov->spec.d_i, n = jac->n, m = jac->m, nm = n * m;
  struct kron_state *state = cov->state;
  rotate_rows(cov, jac);
  float *const C = state->pair, *const scaled = state->pair + 2 * n * n;
  for (int64_t k = 0; k < o; k++) {
    for (int64_t s = 0; s < n; s++)
      for (int64_t j = 0; j < i; j++) scaled[s * i + j] = state->aU[s * i + j] / state->D[k * i + j];
    kwm_gemm(false, true, n, n, i, 1.0f, scaled, i, state->aU, i, 0.0f, C, n);
    for (int64_t row = 0; row < nm; row++) {
      const float left = state->JV[row * o + k];
      if (left == 0) continue;
      for (int64_t col = 0; col < nm; col++)
        S[row * nm + col] += left * state->JV[col * o + k] * C[row / m * n + col / m];
    }
  }
}

/* f[k][:] <- diag of the exact posterior in the basis, as the new precision: p - p² sum hᵀS⁻¹h. */
static void posterior_row(kwm_cov *cov, const struct kwm_jac *jac, int64_t k) {
  const int64_t o = cov->spec.d_o, i = cov->spec.d_i, n = jac->n, m = jac->m, nm = n * m;
  struct kron_state *state = cov->state;
  float *const M = state->pair, *const Ma = state->pair + 2 * n * n;
  memset(M, 0, (size_t)(n * n) * sizeof(float));
  for (int64_t row = 0; row < nm; row++)
    for (int64_t col = 0; col < nm; col++)
      M[row / m * n + col / m] += state->JV[row * o + k] * state->inverse[row * nm + col] * state->JV[col * o + k];
  kwm_gemm(false, false, n, i, n, 1.0f, M, n, state->aU, i, 0.0f, Ma, i);
  for (int64_t j = 0; j < i; j++) {
    double drop = 0;
    for (int64_t s = 0; s < n; s++) drop += (double)(state->aU[s * i + j] * Ma[s * i + j]);
    const double p = 1 / (double)state->D[k * i + j], left = fmax(1 - p * drop, 1e-6);
    state->f[k * i + j] = (float)(1 / (p * left));
  }
}

/* inverse (n, n) <- L⁻ᵀL⁻¹; factor (n, n): scratch. */
static void invert(int64_t n, const float *L, float *factor, float *inverse) {
  memset(factor, 0, (size_t)(n * n) * sizeof(float));
  for (int64_t k = 0; k < n; k++) factor[k * n + k] = 1;
  kwm_triangular_solve(n, n, L, n, factor, n);
  kwm_gram(n, n, 1.0f, factor, n, 0.0f, inverse, n);
  kwm_mirror(n, inverse, n);
}

bool kron_condition(kwm_cov *cov, const struct kwm_jac *jac, const float *L, const float *w) {
  const int64_t o = cov->spec.d_o, i = cov->spec.d_i, nm = jac->n * jac->m;
  struct kron_state *state = cov->state;
  state->jac = *jac;
  state->batch = (double)jac->n;
  invert(nm, L, state->factor, state->inverse);
  struct kwm_jac rotated = *jac;
  rotated.J = state->JV;
  rotated.e = w;
  kwm_jac_output_score(&rotated, state->gV);
  kwm_gemm(true, false, o, i, jac->n, 1.0f, state->gV, o, state->aU, i, 0.0f, state->X, i);
  for (int64_t k = 0; k < o; k++) posterior_row(cov, jac, k);
  double sum = 0;
  for (int64_t k = 0; k < o * i; k++) sum += (double)(state->X[k] /= state->D[k]);
  return isfinite(sum);
}

void kron_take_posterior(kwm_cov *cov) {
  const int64_t o = cov->spec.d_o, i = cov->spec.d_i;
  struct kron_state *state = cov->state;
  const struct kwm_jac *const jac = &state->jac;
  const float share = (float)(1 / state->batch);
  kwm_gram(i, jac->n, share, jac->a, i, 1.0f, state->A, i);
  kwm_gram(o, jac->n * jac->m, share, jac->J, o, 1.0f, state->G, o);
  memcpy(state->D, state->f, (size_t)(o * i) * sizeof(float));
}
