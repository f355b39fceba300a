/* The part of kron that reads the same for a state in float and in double: included once by kron_f32.c and once by
   kron_f64.c, which define

     REAL          the type of the state's numbers
     NUMBERS(r)    the numbers of a struct reals as REAL *
     GEMM, MIRROR  the matrix product and the mirrored triangle for REAL

   kron_time.h and kron_predictive.h go on with it. */
#pragma once

#include "kron.h"

#include <math.h>
#include <string.h>

#include "kron_predictive.h"
#include "kron_time.h"

#include "kwm/backend.h"

enum { KRON_LANES = 16 };

/* Upper triangle of C (n, n) += share times the packed one. */
static void add_packed(int64_t n, REAL share, const float *packed, REAL *C) {
  for (int64_t first = 0; first < n; first += KRON_PANEL) {
    const int64_t width = kron_panel(n, first), left = n - first;
    for (int64_t k = 0; k < width; k++)
      for (int64_t j = k; j < left; j++) C[(first + k) * n + first + j] += share * (REAL)packed[k * left + j];
    packed += width * left;
  }
}

/* diagonal[k] <- (EᵀCE)_kk for the packed C; full, product: (n, n) scratch. */
static void rotated_diagonal(int64_t n, const REAL *E, const float *C, REAL *full, REAL *product, double *diagonal) {
  memset(full, 0, (size_t)(n * n) * sizeof *full);
  add_packed(n, 1, C, full);
  MIRROR(n, full, n);
  GEMM(false, false, n, n, n, 1, full, n, E, n, 0, product, n);
  for (int64_t k = 0; k < n; k++) diagonal[k] = 0;
  for (int64_t j = 0; j < n; j++)
    for (int64_t k = 0; k < n; k++) diagonal[k] += (double)E[j * n + k] * (double)product[j * n + k];
}

/* One row of f, X and D + f: f <- weight at2, X <- Y / (D + f); largest (KRON_LANES) <- at least every D + f; returns
   sum f X². Lanes, since a sum in one order would keep the processor waiting. */
static double gain_row(int64_t n, REAL weight, const REAL *restrict at2, const REAL *restrict Y, const REAL *restrict D,
                       REAL *restrict f, REAL *restrict X, REAL *restrict largest) {
  REAL change[KRON_LANES] = {0};
  double sum = 0;
  for (int64_t first = 0; first < n; first += KRON_LANES) {
    const int64_t width = n - first < KRON_LANES ? n - first : KRON_LANES;
    for (int64_t l = 0; l < width; l++) {
      const REAL information = weight * at2[first + l], next = D[first + l] + information, x = Y[first + l] / next;
      f[first + l] = information;
      X[first + l] = x;
      change[l] += information * x * x;
      largest[l] = next > largest[l] ? next : largest[l];
    }
  }
  for (int l = 0; l < KRON_LANES; l++) sum += (double)change[l];
  return sum;
}

/* f and X of the step from the rotated score Y (d_o, d_i) and the factors' diagonals in the basis; returns sum f X²,
   not finite if D + f is not. A diagonal that was rounded below zero counts as zero; NaN stays. */
static double gain(kwm_cov *cov, const double *gt2, const REAL *at2, const REAL *Y) {
  const int64_t o = cov->spec.d_o, i = cov->spec.d_i;
  struct kron_state *state = cov->state;
  const REAL *const D = NUMBERS(state->D);
  REAL *const f = NUMBERS(state->f), *const X = NUMBERS(state->X), largest[KRON_LANES] = {0};
  double sum = 0;
  for (int64_t k = 0; k < o; k++) {
    const REAL weight = (REAL)((gt2[k] < 0 ? 0 : gt2[k]) / state->batch);
    sum += gain_row(i, weight, at2, Y + k * i, D + k * i, f + k * i, X + k * i, largest);
  }
  for (int l = 0; l < KRON_LANES; l++)
    if (!isfinite(largest[l])) return INFINITY;
  return sum;
}

/* sum X² */
static double size_of(const kwm_cov *cov) {
  const struct kron_state *const state = cov->state;
  const int64_t n = cov->spec.params;
  const REAL *const X = NUMBERS(state->X);
  double lanes[KRON_LANES] = {0}, sum = 0;
  for (int64_t first = 0; first < n; first += KRON_LANES) {
    const int64_t width = n - first < KRON_LANES ? n - first : KRON_LANES;
    for (int64_t l = 0; l < width; l++) lanes[l] += (double)X[first + l] * (double)X[first + l];
  }
  for (int l = 0; l < KRON_LANES; l++) sum += lanes[l];
  return sum;
}

/* sum (D + f) X²: the score is (D + f) X. */
static double slope_of(const kwm_cov *cov) {
  const struct kron_state *const state = cov->state;
  const int64_t n = cov->spec.params;
  const REAL *const D = NUMBERS(state->D), *const f = NUMBERS(state->f), *const X = NUMBERS(state->X);
  double lanes[KRON_LANES] = {0}, sum = 0;
  for (int64_t first = 0; first < n; first += KRON_LANES) {
    const int64_t width = n - first < KRON_LANES ? n - first : KRON_LANES;
    for (int64_t l = 0; l < width; l++) {
      const double x = (double)X[first + l];
      lanes[l] += (double)(D[first + l] + f[first + l]) * x * x;
    }
  }
  for (int l = 0; l < KRON_LANES; l++) sum += lanes[l];
  return sum;
}

/* sum f²/(D + f)² */
static double expected_of(const kwm_cov *cov) {
  const struct kron_state *const state = cov->state;
  const int64_t n = cov->spec.params;
  const REAL *const D = NUMBERS(state->D), *const f = NUMBERS(state->f);
  double lanes[KRON_LANES] = {0}, sum = 0;
  for (int64_t first = 0; first < n; first += KRON_LANES) {
    const int64_t width = n - first < KRON_LANES ? n - first : KRON_LANES;
    for (int64_t l = 0; l < width; l++) {
      const double share = (double)(f[first + l] / (D[first + l] + f[first + l]));
      lanes[l] += share * share;
    }
  }
  for (int l = 0; l < KRON_LANES; l++) sum += lanes[l];
  return sum;
}

static void delta_of(const kwm_cov *cov, double *delta) {
  const struct kron_state *const state = cov->state;
  REAL *const out = (REAL *)state->eigen;
  rotate_back(cov, NUMBERS(state->X), out);
  for (int64_t k = 0; k < cov->spec.d_o * cov->spec.d_i; k++) delta[k] = (double)out[k];
}

static void take(kwm_cov *cov) {
  const int64_t o = cov->spec.d_o, i = cov->spec.d_i;
  struct kron_state *state = cov->state;
  const struct kron_evidence at = kron_evidence_of(&cov->spec);
  const REAL share = (REAL)(1 / state->batch), *const f = NUMBERS(state->f);
  REAL *const D = NUMBERS(state->D);
  add_packed(i, share, state->evidence + at.A, NUMBERS(state->A));
  add_packed(o, share, state->evidence + at.G, NUMBERS(state->G));
  for (int64_t k = 0; k < o * i; k++) D[k] += f[k];
  state->evidence = NULL;
}
