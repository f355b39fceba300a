/* Innovation form: Z = H P, S += Z Hᵀ, δ = Zᵀw.

   double  Y = L⁻¹Z, P <- P - YᵀY on the upper triangle. A difference: a variance is left at least a millionth of
   itself, and P is looked at from time to time, its diagonal lifted until it is positive definite; the health counts
   both. float   (units; a matrix: block_root.c) G = H Y, Z = G Yᵀ; with A = L⁻¹G the posterior is P = Y (I - AᵀA) Yᵀ,
   and Y <- Y V, V Vᵀ = I - AᵀA, V lower triangular. AAᵀ = I - L⁻¹(S - GGᵀ)L⁻ᵀ < I, so V exists; rounding is double. */
#include "block.h"

#include <math.h>
#include <string.h>

#include "kwm/backend.h"

void block_project(kwm_cov *cov, const struct kwm_jac *jac, double *S) {
  const struct kwm_cov_spec *const spec = &cov->spec;
  struct block_state *const state = cov->state;
  const int64_t p = spec->params, rows = jac->n * jac->m, width = spec->count * p;
  state->rows = rows;
  state->unchecked += rows;
  if (block_is_root(spec)) {
    block_root_project(cov, jac, S);
    return;
  }
  kwm_jac_dense_f64(jac, state->H);
  for (int64_t b = 0; b < spec->count; b++) {
    const double *const H = state->H + b * p;
    double *const Z = state->Z + b * p, *const W = state->W + b * p * p;
    if (block_is_float(spec)) {
      for (int64_t k = 0; k < p * p; k++) W[k] = (double)state->M.f32[b * p * p + k];
      kwm_gemm_f64(false, false, rows, p, p, 1, H, width, W, p, 0, Z, width);
    } else {
      kwm_symm_f64(rows, p, 1, state->M.f64 + b * p * p, p, H, width, 0, Z, width);
    }
  }
  const double *const other = block_is_float(spec) ? state->Z : state->H;
  kwm_gemm_f64(false, true, rows, rows, width, 1, state->Z, width, other, width, 1, S, rows);
}

bool block_condition(kwm_cov *cov, const struct kwm_jac *jac, const double *L, const double *w) {
  (void)jac;
  const struct kwm_cov_spec *const spec = &cov->spec;
  struct block_state *const state = cov->state;
  const int64_t p = spec->params, rows = state->rows, width = spec->count * p;
  for (int64_t k = 0; k < width; k++) state->delta[k] = 0;
  for (int64_t row = 0; row < rows; row++)
    for (int64_t k = 0; k < width; k++) state->delta[k] += state->Z[row * width + k] * w[row];
  for (int64_t i = width - 1; i >= 0 && block_is_float(spec); i--) {
    /* δ = Y Gᵀw in place: from the last row up, each needs only what is above it. */
    const float *const row = state->M.f32 + i * p;
    double *const x = state->delta + i / p * p, lanes[BLOCK_LANES] = {0}, sum = 0;
    const int64_t length = i % p + 1, whole = length / BLOCK_LANES * BLOCK_LANES;
    for (int64_t k = 0; k < whole; k += BLOCK_LANES)
      for (int l = 0; l < BLOCK_LANES; l++) lanes[l] += (double)row[k + l] * x[k + l];
    for (int64_t k = whole; k < length; k++) sum += (double)row[k] * x[k];
    for (int l = 0; l < BLOCK_LANES; l++) sum += lanes[l];
    x[i % p] = sum;
  }
  if (block_is_root(spec))
    block_root_condition(cov, L);
  else
    kwm_triangular_solve_f64(rows, width, L, rows, state->Z, width);
  double sum = 0;
  for (int64_t k = 0; k < width; k++) sum += state->delta[k];
  return isfinite(sum);
}

/* Lifts the diagonal of P (p, p), a little at first and tenfold each time, until P is positive definite. */
static void lift(kwm_cov *cov, int64_t b) {
  struct block_state *const state = cov->state;
  const int64_t p = cov->spec.params;
  double *const P = state->M.f64 + b * p * p, *const W = state->W + b * p * p, jitter = 0;
  for (int64_t k = 0; k < p; k++) jitter += 1e-12 * fabs(P[k * p + k]) / (double)p;
  for (block_expand(cov, b, W); !kwm_factor_f64(p, W, p); jitter *= 10) {
    if (!isfinite(jitter) || jitter == 0) return;
    for (int64_t k = 0; k < p; k++) P[k * p + k] += jitter;
    block_expand(cov, b, W);
    state->floor_hits++;
  }
}

void block_check(kwm_cov *cov) {
  struct block_state *const state = cov->state;
  if (block_is_matrix(&cov->spec) && state->unchecked < cov->spec.params) return;
  if (state->unchecked == 0) return;
  for (int64_t b = 0; b < cov->spec.count; b++) lift(cov, b);
  state->unchecked = 0;
}

/* P_b <- P_b - Y_bᵀY_b with Y = L⁻¹HP (rows, width). */
static void downdate(kwm_cov *cov, int64_t b) {
  struct block_state *const state = cov->state;
  const int64_t p = cov->spec.params, width = cov->spec.count * p;
  double *const P = state->M.f64 + b * p * p, *const floor = state->vector;
  for (int64_t k = 0; k < p; k++) floor[k] = 1e-6 * P[k * p + k];
  kwm_gram_f64(p, state->rows, -1, state->Z + b * p, width, 1, P, p);
  for (int64_t k = 0; k < p; k++) {
    if (P[k * p + k] >= floor[k]) continue;
    P[k * p + k] = floor[k];
    state->floor_hits++;
  }
}

/* Upper triangle of W (p, p) <- factor of I - AᵀA, lifted as little as it takes; below it zeros. */
static void factor_rest(kwm_cov *cov, int64_t b, double *W) {
  struct block_state *const state = cov->state;
  const int64_t p = cov->spec.params, width = cov->spec.count * p;
  for (double jitter = 0;; jitter = jitter == 0 ? 1e-15 : 10 * jitter) {
    memset(W, 0, (size_t)(p * p) * sizeof *W);
    for (int64_t k = 0; k < p; k++) W[k * p + k] = 1 + jitter;
    kwm_gram_f64(p, state->rows, -1, state->Z + b * p, width, 1, W, p);
    if (kwm_factor_f64(p, W, p)) return;
    KWM_ASSERT(jitter < 1e15); /* AᵀA is finite: δ was */
    state->floor_hits++;
  }
}

/* Y_b <- Y_b V with V = Uᵀ, in place: element (i, j) needs what is right of it. */
static void shrink(kwm_cov *cov, int64_t b) {
  struct block_state *const state = cov->state;
  const int64_t p = cov->spec.params;
  double *const U = state->W + b * p * p;
  float *const Y = state->M.f32 + b * p * p;
  factor_rest(cov, b, U);
  for (int64_t i = 0; i < p; i++)
    for (int64_t j = 0; j <= i; j++) {
      double sum = 0;
      for (int64_t k = j; k <= i; k++) sum += (double)Y[i * p + k] * U[j * p + k];
      Y[i * p + j] = (float)sum;
    }
  state->floor_hits += (double)block_lift_factor(&cov->spec, state->prior, Y);
}

void block_take_posterior(kwm_cov *cov) {
  const struct kwm_cov_spec *const spec = &cov->spec;
  if (block_is_root(spec)) {
    block_root_apply(cov);
    return;
  }
  for (int64_t b = 0; b < spec->count; b++) {
    if (block_is_float(spec))
      shrink(cov, b);
    else
      downdate(cov, b);
  }
  if (!block_is_float(spec)) block_check(cov);
}
