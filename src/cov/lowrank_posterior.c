/* The posterior of one group under a shared S, as the columns of Z = [factor, Hᵀ] mixed by a small matrix, and its
   re-compression to r columns (equations.md Sec. 12). Z itself is not touched: all here is of order s = r + rows.

   P⁺ = P - P Hᵀ S⁻¹ H P = (P⁻¹ + Hᵀ S_o⁻¹ H)⁻¹ with S_o = S - H P Hᵀ, the noise and the other groups' share, so that
   the group sees the rows W H, WᵀW = S_o⁻¹. S_o = I + the others' H P Hᵀ: eigenvalues below 1 are rounding, and are
   lifted to 1. From here on Z = [factor, (WH)ᵀ], G = ZᵀZ.

     form B   G = E diag(δ) Eᵀ; B' = Z E_r, the r largest; Λ' ⪯ Λ⁺, so P' ⪰ P⁺
     form A   P⁺ = σ² I + Z C Zᵀ, C = diag(I, 0) - Vᵀ V, V = L⁻¹ [T, σ² I], T = WHU, LLᵀ = I + σ² WH(WH)ᵀ + TTᵀ.
              With G = RᵀR, R C Rᵀ = X diag(μ) Xᵀ has the eigenvalues of Z C Zᵀ, the vectors being Z C Rᵀ x / μ:
              U' = Z C Rᵀ X_r diag(μ)^-½, the r largest of μ > 0; all else becomes σ², and was at most that: P' ⪰ P⁺.
              No division by what is small in G, so that columns may depend on each other
     diagonal G = Zᵀ diag(d)⁻¹ Z = E diag(δ) Eᵀ; B' = Z E_r, d' = d + Σ_{i>r} (Z E_i)⊙(Z E_i): the r directions that
   stand out most against d stay, of all others what is on the diagonal: that of Λ' is that of Λ⁺. With no columns at
   all this is the information form of diag. It is not conservative, as diag is not form S   I + (WT)ᵀ(WT) = E D Eᵀ, T =
   HU;  U' = U E D^-½ E1, where E1 makes the columns orthogonal

   The floors stay (diagonal: d grows). In form A too: P⁺ ⪯ P and P has only r eigenvalues above σ², so that y_{r+1} <=
   σ² always. What rounding has done to Z mix, the new P is positive all the same: a floor and a square. */
#include "lowrank.h"

#include <math.h>
#include <string.h>

#include "kwm/backend.h"

/* A (rows, rows) <- its eigenvectors times diag(f) in columns, transposed. */
static void scaled_transpose(int64_t rows, double *A, const double *f) {
  for (int64_t i = 0; i < rows; i++)
    for (int64_t j = i; j < rows; j++) {
      const double upper = A[i * rows + j];
      A[i * rows + j] = A[j * rows + i] * f[i];
      A[j * rows + i] = upper * f[j];
    }
}

bool lowrank_whiten(struct lowrank_state *state, const double *L) {
  const int64_t rows = state->step_rows;
  double *const W = state->white, *const values = state->values;
  for (int64_t i = 0; i < rows; i++)
    for (int64_t j = i; j < rows; j++) {
      double sum = i == j ? -1 : 0;
      for (int64_t k = 0; k <= i; k++) sum += L[i * rows + k] * L[j * rows + k];
      W[i * rows + j] = W[j * rows + i] = sum - state->own[i * rows + j];
    }
  if (!lowrank_finite(rows * rows, W) || !kwm_eigen_f64(rows, W, values)) return false;
  for (int64_t k = 0; k < rows; k++) values[k] = 1 / sqrt(1 + (values[k] > 0 ? values[k] : 0));
  scaled_transpose(rows, W, values);
  return true;
}

/* G (s, s) <- ZᵀZ with whitened rows; scratch: (rows, rows). */
static void whitened_gram(const struct lowrank_state *state, double *G, double *scratch) {
  const int64_t r = state->r, rows = state->step_rows, s = r + rows;
  const double *const raw = state->gram, *const W = state->white;
  for (int64_t i = 0; i < r; i++) memcpy(G + i * s, raw + i * s, (size_t)r * sizeof *G);
  kwm_gemm_f64(false, true, r, rows, rows, 1, raw + r, s, W, rows, 0, G + r, s);
  kwm_gemm_f64(false, false, rows, rows, rows, 1, W, rows, raw + r * s + r, s, 0, scratch, rows);
  kwm_gemm_f64(false, true, rows, rows, rows, 1, scratch, rows, W, rows, 0, G + r * s + r, s);
  kwm_mirror_f64(s, G, s);
}

/* mix <- columns (s, count; row stride ld) that mix Z with whitened rows, for Z with the rows as they are. */
static void unwhiten(struct lowrank_state *state, int64_t count, const double *columns, int64_t ld) {
  const int64_t r = state->r, rows = state->step_rows;
  double *const mix = state->mix;
  for (int64_t i = 0; i < r; i++) memcpy(mix + i * count, columns + i * ld, (size_t)count * sizeof *columns);
  kwm_gemm_f64(true, false, rows, count, rows, 1, state->white, rows, columns + r * ld, ld, 0, mix + r * count, count);
}

static bool precision_posterior(struct lowrank_state *state) {
  const int64_t r = state->r, s = r + state->step_rows;
  double *const E = lowrank_square(state, 0);
  whitened_gram(state, E, lowrank_square(state, 1));
  if (!kwm_eigen_f64(s, E, state->values)) return false;
  unwhiten(state, r, E + s - r, s);
  return true;
}

/* As form B, but what is given up stays in mix, for d. Lengths that are rounding of the largest tell nothing. */
static bool diagonal_posterior(struct lowrank_state *state) {
  const int64_t s = state->r + state->step_rows, given = state->step_rows;
  double *const E = lowrank_square(state, 0), *const values = state->values;
  whitened_gram(state, E, lowrank_square(state, 1));
  if (!kwm_eigen_f64(s, E, values)) return false;
  const double least = 2.2e-16 * (double)s * values[s - 1];
  for (int64_t k = 0; k < s * s; k++)
    if (k % s < given && values[k % s] <= least) E[k] = 0;
  unwhiten(state, s, E, s);
  return true;
}

/* C (s, s) of form A from the whitened G; V: scratch (s, s). False: not positive definite. */
static bool correction(const struct lowrank_state *state, const double *G, double *V, double *C) {
  const int64_t r = state->r, rows = state->step_rows, s = r + rows;
  double *const L = C;
  kwm_gemm_f64(false, true, rows, rows, r, 1, G + r * s, s, G + r * s, s, 0, L, rows);
  for (int64_t a = 0; a < rows; a++) {
    for (int64_t b = 0; b < rows; b++) L[a * rows + b] += state->floor * G[(r + a) * s + r + b];
    L[a * rows + a] += 1;
    for (int64_t j = 0; j < s; j++) V[a * s + j] = j < r ? G[(r + a) * s + j] : (j == r + a ? state->floor : 0);
  }
  if (!kwm_cholesky_f64(rows, L, rows)) return false;
  kwm_triangular_solve_f64(rows, s, L, rows, V, s);
  memset(C, 0, (size_t)(s * s) * sizeof *C);
  for (int64_t j = 0; j < r; j++) C[j * s + j] = 1;
  kwm_gram_f64(s, rows, -1, V, s, 1, C, s);
  kwm_mirror_f64(s, C, s);
  return true;
}

/* Unit columns of Z, so that rows of any size do no harm: lengths (s) <- theirs; G and C follow. */
static void normalise(int64_t s, double *G, double *C, double *lengths) {
  for (int64_t i = 0; i < s; i++) lengths[i] = sqrt(fmax(G[i * s + i], 0)); /* rounding may go below */
  for (int64_t k = 0; k < s * s; k++) {
    const double both = lengths[k / s] * lengths[k % s];
    G[k] = both > 0 ? G[k] / both : 0;
    C[k] *= both;
  }
}

/* X (s, r) <- columns C Rᵀ x / √μ of the r largest μ, zero where μ is not above rounding, for columns of Z of those
   lengths. */
static void scale_columns(const struct lowrank_state *state, const double *values, const double *lengths, double *X) {
  const int64_t r = state->r, s = r + state->step_rows;
  double size = fabs(values[0]);
  for (int64_t j = 0; j < r; j++) size = fmax(size, lengths[j] * lengths[j]);
  for (int64_t k = 0; k < s * r; k++) {
    const double mu = values[s - r + k % r], length = lengths[k / r];
    X[k] = mu > 1e-15 * (double)s * size && length > 0 ? X[k] / (sqrt(mu) * length) : 0;
  }
}

static bool covariance_posterior(struct lowrank_state *state) {
  const int64_t r = state->r, s = r + state->step_rows;
  double *const F = lowrank_square(state, 0), *const C = lowrank_square(state, 1), *const FC = lowrank_square(state, 2);
  double *const X = lowrank_square(state, 3), *const values = state->values, *const lengths = values + state->s_max;
  whitened_gram(state, F, FC);
  if (!correction(state, F, FC, C)) return false;
  normalise(s, F, C, lengths);
  if (!kwm_eigen_f64(s, F, values)) return false;
  for (int64_t k = 0; k < s * s; k++) F[k] *= sqrt(fmax(values[k % s], 0)); /* Rᵀ */
  kwm_gemm_f64(true, false, s, s, s, 1, F, s, C, s, 0, FC, s);
  kwm_gemm_f64(false, false, s, s, s, 1, FC, s, F, s, 0, X, s);
  if (!kwm_eigen_f64(s, X, values)) return false;
  kwm_gemm_f64(true, false, s, r, s, 1, FC, s, X + s - r, s, 0, C, r);
  scale_columns(state, values, lengths, C);
  unwhiten(state, r, C, r);
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
  case KWM_LOWRANK_DIAGONAL: good = diagonal_posterior(state); break;
  }
  const int64_t rows = state->step_rows, columns = state->r + lowrank_given_up(kind, rows);
  return good && lowrank_finite((state->r + rows) * columns, state->mix);
}
