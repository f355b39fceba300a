/* The part of kron that reads the same for a state in float and in double: included once by kron_f32.c and once by
   kron_f64.c, which define

     REAL          the type of the state's numbers
     NUMBERS(r)    the numbers of a struct reals as REAL *
     GEMM, MIRROR  the matrix product and the mirrored triangle for REAL */
#pragma once

#include "kron.h"

#include <math.h>
#include <string.h>

#include "kwm/backend.h"

/* fresh (n, n) <- eigenvectors of the symmetric matrix whose upper triangle is C; W: (n, n) + (n) scratch. */
static bool eigenvectors(int64_t n, const REAL *C, double *W, REAL *fresh) {
  for (int64_t k = 0; k < n * n; k++) W[k] = (double)C[k];
  if (!kwm_eigen_f64(n, W, W + n * n)) return false;
  for (int64_t k = 0; k < n * n; k++) fresh[k] = (REAL)W[k];
  return true;
}

/* E (n, n) <- fresh; overlap (n, n) <- (freshᵀE)² elementwise. */
static void take_basis(int64_t n, const REAL *fresh, REAL *E, REAL *overlap) {
  GEMM(true, false, n, n, n, 1, fresh, n, E, n, 0, overlap, n);
  for (int64_t k = 0; k < n * n; k++) overlap[k] *= overlap[k];
  memcpy(E, fresh, (size_t)(n * n) * sizeof *E);
}

/* D, U, V <- in the basis new_U, new_V: D <- (V'ᵀV)² D ((U'ᵀU)²)ᵀ. */
static void turn(kwm_cov *cov) {
  const int64_t o = cov->spec.d_o, i = cov->spec.d_i;
  struct kron_state *state = cov->state;
  REAL *const D = NUMBERS(state->D), *const T = NUMBERS(state->T), *const overlap = (REAL *)state->eigen;
  take_basis(i, NUMBERS(state->new_U), NUMBERS(state->U), overlap);
  GEMM(false, true, o, i, i, 1, D, i, overlap, i, 0, T, i);
  take_basis(o, NUMBERS(state->new_V), NUMBERS(state->V), overlap);
  GEMM(false, false, o, i, o, 1, overlap, o, T, i, 0, D, i);
}

/* out (d_o, d_i) <- V Y Uᵀ; T is overwritten. */
static void rotate_back(const kwm_cov *cov, const REAL *Y, REAL *out) {
  const int64_t o = cov->spec.d_o, i = cov->spec.d_i;
  const struct kron_state *const state = cov->state;
  REAL *const T = NUMBERS(state->T);
  GEMM(false, true, o, i, i, 1, Y, i, NUMBERS(state->U), i, 0, T, i);
  GEMM(false, false, o, i, o, 1, NUMBERS(state->V), o, T, i, 0, out, i);
}

/* mean += weight V (D0 Vᵀ(anchor - mean)U / D) Uᵀ for the D that was just weighted. */
static void pull(kwm_cov *cov, REAL weight, const float *anchor, float *mean) {
  const int64_t o = cov->spec.d_o, i = cov->spec.d_i, n = o * i;
  struct kron_state *state = cov->state;
  REAL *const X = NUMBERS(state->X), *const T = NUMBERS(state->T), *const f = NUMBERS(state->f);
  const REAL *const D = NUMBERS(state->D), share = weight * (REAL)cov->spec.prior_precision;
  for (int64_t k = 0; k < n; k++) X[k] = (REAL)anchor[k] - (REAL)mean[k];
  GEMM(true, false, o, i, o, 1, NUMBERS(state->V), o, X, i, 0, T, i);
  GEMM(false, false, o, i, i, 1, T, i, NUMBERS(state->U), i, 0, X, i);
  for (int64_t k = 0; k < n; k++) X[k] *= share / D[k];
  rotate_back(cov, X, f);
  for (int64_t k = 0; k < n; k++) mean[k] = (float)((REAL)mean[k] + f[k]);
}

/* The next basis comes first: it is all that can fail. */
static bool predict(kwm_cov *cov, bool refresh, const float *anchor, float *mean) {
  const struct kwm_cov_spec *const spec = &cov->spec;
  struct kron_state *state = cov->state;
  const REAL lambda = (REAL)spec->forgetting, d0 = (REAL)spec->prior_precision;
  const REAL q = (REAL)(spec->process_noise / spec->prior_precision);
  const int64_t n = spec->d_o * spec->d_i;
  REAL *const D = NUMBERS(state->D);
  if (refresh && !(eigenvectors(spec->d_i, NUMBERS(state->A), state->eigen, NUMBERS(state->new_U)) &&
                   eigenvectors(spec->d_o, NUMBERS(state->G), state->eigen, NUMBERS(state->new_V))))
    return false;
  if (lambda < 1) {
    for (int64_t k = 0; k < n; k++) D[k] = lambda * D[k] + (1 - lambda) * d0;
    pull(cov, 1 - lambda, anchor, mean);
  }
  if (q > 0)
    for (int64_t k = 0; k < n; k++) D[k] = D[k] / (1 + q * D[k]);
  if (refresh) turn(cov);
  return true;
}

/* diagonal[k] <- (EᵀCE)_kk for the upper triangle C (n, n); full, product: (n, n) scratch. */
static void rotated_diagonal(int64_t n, const REAL *E, const float *C, REAL *full, REAL *product, double *diagonal) {
  for (int64_t k = 0; k < n * n; k++) full[k] = (REAL)C[k];
  MIRROR(n, full, n);
  GEMM(false, false, n, n, n, 1, full, n, E, n, 0, product, n);
  for (int64_t k = 0; k < n; k++) diagonal[k] = 0;
  for (int64_t j = 0; j < n; j++)
    for (int64_t k = 0; k < n; k++) diagonal[k] += (double)E[j * n + k] * (double)product[j * n + k];
}

/* f and X of the step from the rotated score Y (d_o, d_i) and the factors' diagonals in the basis; returns sum f X²,
   not finite if D + f is not. A diagonal that was rounded below zero counts as zero; NaN stays. */
static double gain(kwm_cov *cov, const double *gt2, const REAL *at2, const REAL *Y) {
  const int64_t o = cov->spec.d_o, i = cov->spec.d_i;
  struct kron_state *state = cov->state;
  const REAL *const D = NUMBERS(state->D);
  REAL *const information = NUMBERS(state->f), *const X = NUMBERS(state->X), largest = 0;
  double sum = 0;
  for (int64_t k = 0; k < o; k++) {
    const REAL weight = (REAL)((gt2[k] < 0 ? 0 : gt2[k]) / state->batch);
    double row = 0;
    for (int64_t j = 0; j < i; j++) {
      const REAL f = weight * at2[j], next = D[k * i + j] + f;
      const REAL x = Y[k * i + j] / next;
      information[k * i + j] = f;
      X[k * i + j] = x;
      largest = next > largest ? next : largest;
      row += (double)(f * x * x);
    }
    sum += row;
  }
  return isfinite(largest) ? sum : INFINITY;
}

static void delta_of(const kwm_cov *cov, double *delta) {
  const struct kron_state *const state = cov->state;
  REAL *const out = (REAL *)state->eigen;
  rotate_back(cov, NUMBERS(state->X), out);
  for (int64_t k = 0; k < cov->spec.d_o * cov->spec.d_i; k++) delta[k] = (double)out[k];
}

/* C (n) += share·evidence (n) */
static void add(int64_t n, REAL share, const float *evidence, REAL *C) {
  for (int64_t k = 0; k < n; k++) C[k] += share * (REAL)evidence[k];
}

static void take(kwm_cov *cov) {
  const int64_t o = cov->spec.d_o, i = cov->spec.d_i;
  struct kron_state *state = cov->state;
  const struct kron_evidence at = kron_evidence_of(&cov->spec);
  const REAL share = (REAL)(1 / state->batch), *const f = NUMBERS(state->f);
  REAL *const D = NUMBERS(state->D);
  add(i * i, share, state->evidence + at.A, NUMBERS(state->A));
  add(o * o, share, state->evidence + at.G, NUMBERS(state->G));
  for (int64_t k = 0; k < o * i; k++) D[k] += f[k];
  state->evidence = NULL;
}
