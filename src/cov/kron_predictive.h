/* What kron's P says of the outputs, for a state in float and in double: part of kron_real.h.

     H_i P H_iᵀ = sum_k (J_i V)_k w_ik (J_i V)_kᵀ,  w_ik = sum_j (a_i U)_j² / D_kj */
#pragma once

#include "kron.h"

#include "kwm/backend.h"

static const REAL *as_reals(int64_t n, const float *values, REAL *copy) {
  for (int64_t k = 0; k < n; k++) copy[k] = (REAL)values[k];
  return copy;
}

/* w (n, d_o); input: (n, d_i) scratch. T is overwritten. */
static void output_weights(kwm_cov *cov, const struct kwm_jac *jac, REAL *input, REAL *aU, REAL *w) {
  const int64_t o = cov->spec.d_o, i = cov->spec.d_i, n = jac->n;
  const struct kron_state *const state = cov->state;
  const REAL *const D = NUMBERS(state->D);
  REAL *const variance = NUMBERS(state->T);
  if (jac->aU != NULL)
    as_reals(n * i, jac->aU, aU);
  else
    GEMM(false, false, n, i, i, 1, as_reals(n * i, jac->a, input), i, NUMBERS(state->U), i, 0, aU, i);
  for (int64_t k = 0; k < n * i; k++) aU[k] *= aU[k];
  for (int64_t k = 0; k < o * i; k++) variance[k] = 1 / D[k];
  GEMM(false, true, n, o, i, 1, aU, i, variance, i, 0, w, o);
}

/* C (m, m) += sum_k w_k JV_k JV_kᵀ for one sample's JV (m, o). */
static void add_outputs(int64_t m, int64_t o, const REAL *JV, const REAL *w, double *C) {
  for (int64_t r = 0; r < m; r++)
    for (int64_t s = r; s < m; s++) {
      double sum = 0;
      for (int64_t k = 0; k < o; k++) sum += (double)w[k] * (double)JV[r * o + k] * (double)JV[s * o + k];
      C[r * m + s] += sum;
      if (s > r) C[s * m + r] += sum;
    }
}

/* Not a part of a training step: its scratch is its own. */
static bool predictive(kwm_cov *cov, const struct kwm_jac *jac, double *C) {
  const int64_t o = cov->spec.d_o, i = cov->spec.d_i, n = jac->n, m = jac->m, rows = n * m * o;
  const struct kron_state *const state = cov->state;
  REAL *scratch = NULL;
  if (kwm_alloc((void **)&scratch, (size_t)(2 * n * i + n * o + 2 * rows) * sizeof *scratch, "outputs' covariance") !=
      KWM_OK)
    return false;
  REAL *const aU = scratch, *const input = aU + n * i, *const w = input + n * i, *const J = w + n * o;
  REAL *const JV = J + rows;
  output_weights(cov, jac, input, aU, w);
  GEMM(false, false, n * m, o, o, 1, as_reals(rows, jac->J, J), o, NUMBERS(state->V), o, 0, JV, o);
  for (int64_t s = 0; s < n; s++) add_outputs(m, o, JV + s * m * o, w + s * o, C + s * m * m);
  kwm_free(scratch);
  return true;
}
