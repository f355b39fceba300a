/* The posterior of one group under a shared S, as the columns of Z = [factor, Hᵀ] mixed by a small matrix, and its
   re-compression to r columns (equations.md Sec. 12). Z itself is not touched: all here is of order s = r + rows.

   P⁺ = P - P Hᵀ S⁻¹ H P = (P⁻¹ + Hᵀ S_o⁻¹ H)⁻¹ with S_o = S - H P Hᵀ, the noise and the other groups' share, so that
   the group sees the rows W H, WᵀW = S_o⁻¹. S_o = I + the others' H P Hᵀ: eigenvalues below 1 are rounding, and are
   lifted to 1.

     form B   ZᵀZ = E diag(δ) Eᵀ of the whitened Z; B' = Z E_r, the r largest; Λ' ⪯ Λ⁺, so P' ⪰ P⁺
     form A   𝒬 = Z N orthonormal; Y0 = σ² I + XXᵀ = LLᵀ, X = 𝒬ᵀU, C = H𝒬;  Y = L (I + (WCL)ᵀ(WCL))⁻¹ Lᵀ, positive by
              construction; U' = 𝒬 E_r diag(√max(y - σ², 0)), and all other y are at most σ²: P' ⪰ P⁺
     form S   I + (WT)ᵀ(WT) = E D Eᵀ, T = HU;  U' = U E D^-½ E1, where E1 makes the columns orthogonal

   The floors stay. In form A too: P⁺ ⪯ P and P has only r eigenvalues above σ², so that y_{r+1} <= σ² always. */
#include "lowrank.h"

#include <math.h>
#include <string.h>

#include "kwm/backend.h"

/* Directions of normalised columns whose squared length is below this part of the largest are rounding. */
static const double DEPENDENT = 1e-12;

bool lowrank_whiten(struct lowrank_state *state, const float *L) {
  const int64_t rows = state->step_rows;
  double *const W = state->white, *const values = state->values;
  for (int64_t i = 0; i < rows; i++)
    for (int64_t j = i; j < rows; j++) {
      double sum = i == j ? -1 : 0;
      for (int64_t k = 0; k <= i; k++) sum += (double)L[i * rows + k] * (double)L[j * rows + k];
      W[i * rows + j] = W[j * rows + i] = sum - state->own[i * rows + j];
    }
  if (!kwm_eigen_f64(rows, W, values)) return false;
  for (int64_t k = 0; k < rows; k++) values[k] = 1 / sqrt(1 + (values[k] > 0 ? values[k] : 0));
  for (int64_t i = 0; i < rows; i++)
    for (int64_t j = i; j < rows; j++) {
      const double upper = W[i * rows + j];
      W[i * rows + j] = W[j * rows + i] * values[i];
      W[j * rows + i] = upper * values[j];
    }
  return true;
}

static bool finite_sum(int64_t n, const double *x) {
  double sum = 0;
  for (int64_t k = 0; k < n; k++) sum += x[k];
  return isfinite(sum);
}

static bool precision_posterior(struct lowrank_state *state) {
  const int64_t r = state->r, rows = state->step_rows, s = r + rows;
  const double *const G = state->gram, *const W = state->white;
  double *const E = lowrank_square(state, 0), *const WH = lowrank_square(state, 1);
  for (int64_t i = 0; i < r; i++) memcpy(E + i * s, G + i * s, (size_t)r * sizeof *E);
  kwm_gemm_f64(false, true, r, rows, rows, 1, G + r, s, W, rows, 0, E + r, s);
  kwm_gemm_f64(false, false, rows, rows, rows, 1, W, rows, G + r * s + r, s, 0, WH, rows);
  kwm_gemm_f64(false, true, rows, rows, rows, 1, WH, rows, W, rows, 0, E + r * s + r, s);
  if (!kwm_eigen_f64(s, E, state->values)) return false;
  const double *const kept = E + s - r;
  for (int64_t i = 0; i < r; i++) memcpy(state->mix + i * r, kept + i * s, (size_t)r * sizeof *E);
  kwm_gemm_f64(true, false, rows, r, rows, 1, W, rows, kept + r * s, s, 0, state->mix + r * r, r);
  return true;
}

int64_t lowrank_orthonormal(int64_t s, const double *G, double *K, double *values) {
  int64_t t = 0;
  for (int64_t i = 0; i < s; i++)
    for (int64_t j = 0; j < s; j++) {
      const double lengths = sqrt(G[i * s + i]) * sqrt(G[j * s + j]);
      K[i * s + j] = lengths > 0 ? G[i * s + j] / lengths : 0;
    }
  if (!kwm_eigen_f64(s, K, values) || !(values[s - 1] > 0)) return 0;
  while (t < s && values[s - 1 - t] > DEPENDENT * values[s - 1]) t++;
  for (int64_t i = 0; i < s; i++) {
    const double length = sqrt(G[i * s + i]);
    for (int64_t j = 0; j < t; j++) {
      const double element = K[i * s + s - t + j] / sqrt(values[s - t + j]);
      K[i * s + j] = length > 0 ? element / length : 0;
    }
  }
  return t;
}

/* L (t, t), its lower triangle a Cholesky factor: zeros above. */
static void clear_upper(int64_t t, double *L) {
  for (int64_t i = 0; i < t; i++)
    for (int64_t j = i + 1; j < t; j++) L[i * t + j] = 0;
}

/* Y (t, t) <- L (I + (WCL)ᵀ(WCL))⁻¹ Lᵀ, all in a basis of t orthonormal columns; QZ (t, s) = 𝒬ᵀZ = [X, Cᵀ] is used up.
   False: not positive definite. */
static bool posterior_in_basis(const struct lowrank_state *state, int64_t t, double *QZ, double *Y) {
  const int64_t r = state->r, rows = state->step_rows, s = r + rows;
  double *const L = lowrank_square(state, 2), *const WC = lowrank_square(state, 3), *const M = QZ;
  kwm_gemm_f64(false, true, t, t, r, 1, QZ, s, QZ, s, 0, L, t);
  for (int64_t k = 0; k < t; k++) L[k * t + k] += state->floor;
  if (!kwm_cholesky_f64(t, L, t)) return false;
  clear_upper(t, L);
  kwm_gemm_f64(false, true, rows, t, rows, 1, state->white, rows, QZ + r, s, 0, WC, t);
  kwm_gemm_f64(false, false, rows, t, t, 1, WC, t, L, t, 0, Y, t);
  kwm_gemm_f64(true, false, t, t, rows, 1, Y, t, Y, t, 0, M, t);
  for (int64_t k = 0; k < t; k++) M[k * t + k] += 1;
  if (!kwm_cholesky_f64(t, M, t) || !kwm_cholesky_invert_f64(t, M, t)) return false;
  kwm_gemm_f64(false, false, t, t, t, 1, L, t, M, t, 0, WC, t);
  kwm_gemm_f64(false, true, t, t, t, 1, WC, t, L, t, 0, Y, t);
  return true;
}

static bool covariance_posterior(struct lowrank_state *state) {
  const int64_t r = state->r, s = r + state->step_rows;
  double *const N = lowrank_square(state, 0), *const QZ = lowrank_square(state, 1), *const Y = lowrank_square(state, 4);
  const int64_t t = lowrank_orthonormal(s, state->gram, N, state->values), kept = t < r ? t : r;
  if (t == 0) return false;
  kwm_gemm_f64(true, false, t, s, s, 1, N, s, state->gram, s, 0, QZ, s);
  if (!posterior_in_basis(state, t, QZ, Y) || !kwm_eigen_f64(t, Y, state->values)) return false;
  const double *const y = state->values;
  memset(state->mix, 0, (size_t)(s * r) * sizeof *state->mix);
  kwm_gemm_f64(false, false, s, kept, t, 1, N, s, Y + t - kept, t, 0, state->mix, r);
  for (int64_t i = 0; i < s; i++)
    for (int64_t j = 0; j < kept; j++) state->mix[i * r + j] *= sqrt(fmax(y[t - kept + j] - state->floor, 0));
  return true;
}

static bool subspace_posterior(struct lowrank_state *state) {
  const int64_t r = state->r, rows = state->step_rows, s = r + rows;
  double *const A = lowrank_square(state, 0), *const E = lowrank_square(state, 1), *const values = state->values;
  kwm_gemm_f64(false, false, rows, r, rows, 1, state->white, rows, state->gram + r * s, s, 0, E, r);
  kwm_gemm_f64(true, false, r, r, rows, 1, E, r, E, r, 0, A, r);
  for (int64_t k = 0; k < r; k++) A[k * r + k] += 1;
  if (!kwm_eigen_f64(r, A, values)) return false;
  for (int64_t k = 0; k < r * r; k++) A[k] /= sqrt(values[k % r]);
  kwm_gemm_f64(false, false, r, r, r, 1, state->gram, s, A, r, 0, state->mix, r);
  kwm_gemm_f64(true, false, r, r, r, 1, A, r, state->mix, r, 0, E, r);
  if (!kwm_eigen_f64(r, E, values)) return false;
  memset(state->mix, 0, (size_t)(s * r) * sizeof *state->mix);
  kwm_gemm_f64(false, false, r, r, r, 1, A, r, E, r, 0, state->mix, r);
  return true;
}

bool lowrank_posterior(struct lowrank_state *state, enum kwm_lowrank_kind kind) {
  bool good = false;
  switch (kind) {
  case KWM_LOWRANK_PRECISION: good = precision_posterior(state); break;
  case KWM_LOWRANK_COVARIANCE: good = covariance_posterior(state); break;
  case KWM_LOWRANK_SUBSPACE: good = subspace_posterior(state); break;
  }
  return good && finite_sum((state->r + state->step_rows) * state->r, state->mix);
}
