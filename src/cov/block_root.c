/* One large block in float: P = Y Yᵀ with Y lower triangular, conditioned on a whole S at once: Carlson's update
   (equations.md 3(c)) with panels of columns in place of columns and all rows in place of one.

   With G = H Y, S = L Lᵀ and Q = S - G Gᵀ (R and the other blocks: >= I), P⁺ = Y (I - Gᵀ S⁻¹ G) Yᵀ. From the last panel
   J of columns to the first, with B = sum of Y_K G_Kᵀ over the panels K behind,

     E = I + G_Jᵀ Q⁻¹ G_J,  V Vᵀ = E⁻¹ with V lower triangular
     Y_J <- Y_J V - B Q⁻¹ G_J V;   B <- B + Y_J G_Jᵀ (the old Y_J);   Q <- Q + G_J G_Jᵀ

   Nothing is subtracted that could make P indefinite: E >= I. Q and V are double; what is of order p² is float: G p² m
   flops, B p² m, the panel's products p² (m + BLOCK_PANEL/2), together about the 3 p² m of the short form. */
#include <string.h>

#include "block.h"

#include "kwm/backend.h"

enum { STRIP = 512 };

/* Scratch. X = [Y_J, B]: the panel's old columns end where B begins. */
struct root {
  double *Q, *C;        /* (R, R) Q and its factor */
  double *A, *N;        /* (R, PANEL): C⁻ᵀG_J, Q⁻¹G_J V */
  double *E, *half, *V; /* (PANEL, PANEL) */
  float *X, *T;         /* (p, PANEL + R), (PANEL + R, PANEL) */
  int64_t p, R, ldx;    /* R: rows of the step in hand */
};

int64_t block_root_f64(const struct kwm_cov_spec *spec) {
  const int64_t R = spec->n_max * spec->m;
  return 2 * R * R + 2 * R * BLOCK_PANEL + 3 * BLOCK_PANEL * BLOCK_PANEL;
}

int64_t block_root_f32(const struct kwm_cov_spec *spec) {
  const int64_t R = spec->n_max * spec->m;
  return (spec->params + BLOCK_PANEL) * (BLOCK_PANEL + R);
}

static struct root root_of(const kwm_cov *cov) {
  const struct block_state *const state = cov->state;
  struct root root = {.p = cov->spec.params, .R = state->rows, .ldx = BLOCK_PANEL + state->rows};
  root.Q = state->root_f64;
  root.C = root.Q + root.R * root.R;
  root.A = root.C + root.R * root.R;
  root.N = root.A + root.R * BLOCK_PANEL;
  root.E = root.N + root.R * BLOCK_PANEL;
  root.half = root.E + BLOCK_PANEL * BLOCK_PANEL;
  root.V = root.half + BLOCK_PANEL * BLOCK_PANEL;
  root.X = state->root_f32;
  root.T = root.X + root.p * root.ldx;
  return root;
}

void block_root_project(kwm_cov *cov, const struct kwm_jac *jac, double *S) {
  struct block_state *const state = cov->state;
  const int64_t p = cov->spec.params, rows = state->rows;
  kwm_jac_dense(jac, state->narrow);
  kwm_multiply_lower(rows, p, state->M.f32, p, state->narrow, p);
  for (int64_t k = 0; k < rows * p; k++) state->Z[k] = (double)state->narrow[k];
  double *const Q = root_of(cov).Q;
  kwm_gemm_f64(false, true, rows, rows, p, 1, state->Z, p, state->Z, p, 0, Q, rows);
  for (int64_t k = 0; k < rows * rows; k++) S[k] += Q[k];
}

/* Q: G Gᵀ -> L Lᵀ - G Gᵀ */
void block_root_condition(kwm_cov *cov, const double *L) {
  const struct root root = root_of(cov);
  const int64_t R = root.R;
  for (int64_t i = 0; i < R; i++)
    for (int64_t j = 0; j < R; j++) root.C[i * R + j] = j <= i ? L[i * R + j] : 0;
  kwm_gemm_f64(false, true, R, R, R, 1, root.C, R, root.C, R, -1, root.Q, R);
}

/* Q is at least I but for the rounding of an S that is large beyond double precision: then it is lifted. */
static void factor_others(struct block_state *state, const struct root *root) {
  const int64_t R = root->R;
  double scale = 0, jitter = 0;
  for (int64_t k = 0; k < R * R; k++) scale = scale < root->Q[k] ? root->Q[k] : scale;
  for (;; jitter = jitter == 0 ? 1e-15 * (1 + scale) : 10 * jitter) {
    memcpy(root->C, root->Q, (size_t)(R * R) * sizeof *root->C);
    for (int64_t k = 0; k < R; k++) root->C[k * R + k] += jitter;
    if (kwm_factor_f64(R, root->C, R)) break;
    KWM_ASSERT(jitter < 1e300); /* G is finite: δ was */
    state->floor_hits++;
  }
  for (int64_t k = 0; k < R; k++) root->Q[k * R + k] += jitter;
}

/* T (width + R, width) <- [V; -Q⁻¹ G_J V] for the panel of G (R, p) at column `first`; C holds Q's factor. */
static void panel_gain(const struct block_state *state, const struct root *root, int64_t first, int64_t width) {
  const int64_t R = root->R;
  const double *const G = state->Z + first;
  for (int64_t r = 0; r < R; r++) memcpy(root->A + r * width, G + r * root->p, (size_t)width * sizeof *G);
  kwm_factor_half_f64(R, width, root->C, R, root->A, width);
  kwm_gram_f64(width, R, 1, root->A, width, 0, root->half, width);
  /* The upper factor of E with rows and columns reversed gives the lower one of E⁻¹. */
  for (int64_t i = 0; i < width; i++)
    for (int64_t j = i; j < width; j++)
      root->E[(width - 1 - j) * width + width - 1 - i] = (i == j) + root->half[i * width + j];
  const bool good = kwm_factor_f64(width, root->E, width);
  KWM_ASSERT(good); /* E >= I */
  for (int64_t k = 0; k < width * width; k++) root->half[k] = k % (width + 1) == 0;
  kwm_factor_half_f64(width, width, root->E, width, root->half, width);
  for (int64_t i = 0; i < width; i++)
    for (int64_t j = 0; j < width; j++) root->V[i * width + j] = root->half[(width - 1 - j) * width + width - 1 - i];
  kwm_gemm_f64(false, false, R, width, width, 1, root->A, width, root->V, width, 0, root->N, width);
  kwm_factor_back_f64(R, width, root->C, R, root->N, width);
  for (int64_t k = 0; k < width * width; k++) root->T[k] = (float)root->V[k];
  for (int64_t k = 0; k < R * width; k++) root->T[width * width + k] = (float)-root->N[k];
}

/* A strip of rows at a time, so that its part of X stays in the cache. */
static void update_panel(const struct block_state *state, const struct root *root, int64_t first, int64_t width) {
  const int64_t p = root->p, R = root->R, ldx = root->ldx;
  for (int64_t top = first; top < p; top += STRIP) {
    const int64_t strip = p - top < STRIP ? p - top : STRIP;
    float *const Y = state->M.f32 + top * p + first, *const B = root->X + top * ldx + BLOCK_PANEL;
    float *const old = B - width;
    for (int64_t i = 0; i < strip; i++) memcpy(old + i * ldx, Y + i * p, (size_t)width * sizeof *Y);
    kwm_multiply_lower(strip, width, root->T, width, Y, p);
    kwm_gemm(false, false, strip, width, R, 1, B, ldx, root->T + width * width, width, 1, Y, p);
    kwm_gemm(false, true, strip, R, width, 1, old, ldx, state->narrow + first, p, 1, B, ldx);
  }
}

void block_root_apply(kwm_cov *cov) {
  struct block_state *const state = cov->state;
  const struct root root = root_of(cov);
  const int64_t p = root.p, R = root.R;
  memset(root.X, 0, (size_t)(p * root.ldx) * sizeof *root.X);
  for (int64_t first = (p - 1) / BLOCK_PANEL * BLOCK_PANEL; first >= 0; first -= BLOCK_PANEL) {
    const int64_t width = p - first < BLOCK_PANEL ? p - first : BLOCK_PANEL;
    const double *const G = state->Z + first;
    factor_others(state, &root);
    panel_gain(state, &root, first, width);
    update_panel(state, &root, first, width);
    kwm_gemm_f64(false, true, R, R, width, 1, G, p, G, p, 1, root.Q, R);
  }
  state->floor_hits += (double)block_lift_factor(&cov->spec, state->prior, state->M.f32);
}
