/* Private to filter: lower-triangular roots of covariances, P = YYᵀ, column j of Y (N, N) at Y + j N. In double; plain
   loops over columns: N is tens to hundreds here, and a step is a few microseconds. */
#pragma once

#include "kwm/base.h"

/* YYᵀ <- YYᵀ + vvᵀ, v (N) zero before row `from`; v is overwritten. By plane rotations. */
void root_add(int N, double *Y, int from, double *v);

/* Y <- root of P - P h (hᵀP h + 1)⁻¹ hᵀP, by Carlson's recursion; h (N) zero before row `from`. f, b (N): scratch, b
   holds P h afterwards. */
void root_observe(int N, double *Y, int from, const double *h, double *f, double *b);

/* f (N) <- Yᵀh */
void root_project(int N, const double *Y, int from, const double *h, double *f);

/* v (N) <- Y a */
void root_apply(int N, const double *Y, const double *a, double *v);

/* A (d, k), row-major, k >= d: A <- [L 0] with the same AAᵀ, L lower triangular with a diagonal >= 0. By Householder.
 */
void root_lower(int d, int k, double *A);

/* A (m, m), row-major, lower triangle read <- its Cholesky factor. False if not positive definite. */
bool root_cholesky(int m, double *A);
/* x (m) <- L⁻¹x; L⁻ᵀx */
void root_forward(int m, const double *L, double *x);
void root_backward(int m, const double *L, double *x);
