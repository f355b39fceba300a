/* The time update of kron, for a state in float and in double: part of kron_real.h, which says what is defined for it.

   Framed: the mean is kept as VᵀWU. Then the pull towards the anchor is elementwise, and it is the mean that turns with
   the basis: M <- (V'ᵀV) M (U'ᵀU)ᵀ, by the same products whose squares turn D. */
#pragma once

#include "kron.h"

#include <string.h>

#include "kwm/backend.h"

/* fresh (n, n) <- eigenvectors of the symmetric matrix whose upper triangle is C; W: (n, n) + (n) scratch. */
static bool eigenvectors(int64_t n, const REAL *C, double *W, REAL *fresh) {
  for (int64_t k = 0; k < n * n; k++) W[k] = (double)C[k];
  if (!kwm_eigen_f64(n, W, W + n * n)) return false;
  for (int64_t k = 0; k < n * n; k++) fresh[k] = (REAL)W[k];
  return true;
}

/* overlap (n, n) <- freshᵀE; E <- fresh */
static void take_basis(int64_t n, const REAL *fresh, REAL *E, REAL *overlap) {
  GEMM(true, false, n, n, n, 1, fresh, n, E, n, 0, overlap, n);
  memcpy(E, fresh, (size_t)(n * n) * sizeof *E);
}

static void square(int64_t n, REAL *values) {
  for (int64_t k = 0; k < n; k++) values[k] *= values[k];
}

/* D, U, V <- in the basis new_U, new_V: D <- (V'ᵀV)² D ((U'ᵀU)²)ᵀ; a framed mean likewise. */
static void turn(kwm_cov *cov, float *mean) {
  const int64_t o = cov->spec.d_o, i = cov->spec.d_i;
  const bool framed = cov->spec.framed;
  struct kron_state *state = cov->state;
  REAL *const D = NUMBERS(state->D), *const T = NUMBERS(state->T), *const overlap = (REAL *)state->eigen;
  REAL *const M = NUMBERS(state->X), *const MU = NUMBERS(state->f);
  for (int64_t k = 0; k < o * i && framed; k++) M[k] = (REAL)mean[k];
  take_basis(i, NUMBERS(state->new_U), NUMBERS(state->U), overlap);
  if (framed) GEMM(false, true, o, i, i, 1, M, i, overlap, i, 0, MU, i);
  square(i * i, overlap);
  GEMM(false, true, o, i, i, 1, D, i, overlap, i, 0, T, i);
  take_basis(o, NUMBERS(state->new_V), NUMBERS(state->V), overlap);
  if (framed) GEMM(false, false, o, i, o, 1, overlap, o, MU, i, 0, M, i);
  square(o * o, overlap);
  GEMM(false, false, o, i, o, 1, overlap, o, T, i, 0, D, i);
  for (int64_t k = 0; k < o * i && framed; k++) mean[k] = (float)M[k];
}

/* out (d_o, d_i) <- V Y Uᵀ; T is overwritten. */
static void rotate_back(const kwm_cov *cov, const REAL *Y, REAL *out) {
  const int64_t o = cov->spec.d_o, i = cov->spec.d_i;
  const struct kron_state *const state = cov->state;
  REAL *const T = NUMBERS(state->T);
  GEMM(false, true, o, i, i, 1, Y, i, NUMBERS(state->U), i, 0, T, i);
  GEMM(false, false, o, i, o, 1, NUMBERS(state->V), o, T, i, 0, out, i);
}

/* mean += weight V (D0 Vᵀ(anchor - mean)U / D) Uᵀ for the D that was just weighted; framed: with the mean already in
   the basis, and no way back. */
static void pull(kwm_cov *cov, REAL weight, const float *anchor, float *mean) {
  const int64_t o = cov->spec.d_o, i = cov->spec.d_i, n = o * i;
  const bool framed = cov->spec.framed;
  struct kron_state *state = cov->state;
  REAL *const X = NUMBERS(state->X), *const T = NUMBERS(state->T), *const f = NUMBERS(state->f);
  const REAL *const D = NUMBERS(state->D), share = weight * (REAL)cov->spec.prior_precision;
  for (int64_t k = 0; k < n; k++) X[k] = (REAL)anchor[k] - (framed ? 0 : (REAL)mean[k]);
  GEMM(true, false, o, i, o, 1, NUMBERS(state->V), o, X, i, 0, T, i);
  GEMM(false, false, o, i, i, 1, T, i, NUMBERS(state->U), i, 0, X, i);
  for (int64_t k = 0; k < n; k++) X[k] = share / D[k] * (X[k] - (framed ? (REAL)mean[k] : 0));
  if (!framed) rotate_back(cov, X, f);
  const REAL *const moved = framed ? X : f;
  for (int64_t k = 0; k < n; k++) mean[k] = (float)((REAL)mean[k] + moved[k]);
}

/* The next basis comes first: it is all that can fail. */
static bool predict(kwm_cov *cov, bool refresh, const float *anchor, float *mean) {
  const struct kwm_cov_spec *const spec = &cov->spec;
  struct kron_state *state = cov->state;
  const REAL lambda = (REAL)spec->forgetting, d0 = (REAL)spec->prior_precision;
  const REAL q = (REAL)(spec->process_noise / spec->prior_precision);
  const int64_t n = spec->d_o * spec->d_i;
  REAL *const D = NUMBERS(state->D);
  const struct reals *const A = spec->delay > 0 ? &state->past_A : &state->A;
  const struct reals *const G = spec->delay > 0 ? &state->past_G : &state->G;
  if (refresh && !(eigenvectors(spec->d_i, NUMBERS(*A), state->eigen, NUMBERS(state->new_U)) &&
                   eigenvectors(spec->d_o, NUMBERS(*G), state->eigen, NUMBERS(state->new_V))))
    return false;
  if (lambda < 1) {
    for (int64_t k = 0; k < n; k++) D[k] = lambda * D[k] + (1 - lambda) * d0;
    if (anchor != mean) pull(cov, 1 - lambda, anchor, mean);
  }
  if (q > 0)
    for (int64_t k = 0; k < n; k++) D[k] = D[k] / (1 + q * D[k]);
  if (refresh) turn(cov, mean);
  return true;
}
