/* Private to theory: reference mathematics on small row-major matrices, from the pool. Where there is no result
   (singular, not finite), results are NAN. */
#pragma once

#include "theory.h"

double *mat_identity(struct theory *t, int64_t n, double scale);
double *mat_copy(struct theory *t, int64_t n, const double *A);
double *mat_transpose(struct theory *t, int64_t m, int64_t n, const double *A);

/* op(A) op(B): (m, k) times (k, n); A and B stored densely. */
double *mat_product(struct theory *t, bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k,
                    const double *A, const double *B);
/* HᵀH (n, n) of H (m, n); A P Aᵀ (m, m) of A (m, n). */
double *mat_gram(struct theory *t, int64_t m, int64_t n, const double *H);
double *mat_between(struct theory *t, int64_t m, int64_t n, const double *A, const double *P);
/* a A + b B, n numbers. */
double *mat_sum(struct theory *t, int64_t n, double a, const double *A, double b, const double *B);
double *mat_inverse(struct theory *t, int64_t n, const double *A);
/* I - K H of K (n, m), H (m, n). */
double *mat_transition(struct theory *t, int64_t m, int64_t n, const double *K, const double *H);
/* Lower Cholesky factor. */
double *mat_cholesky(struct theory *t, int64_t n, const double *A);

/* Eigenvalues of a symmetric matrix, ascending, and vectors in columns (NULL: not wanted). */
double *mat_eigenvalues(struct theory *t, int64_t n, const double *A, double *vectors);
/* Real and imaginary parts of any matrix's eigenvalues, (2, n). */
double *mat_poles(struct theory *t, int64_t n, const double *A);
double mat_radius(struct theory *t, int64_t n, const double *A); /* largest |eigenvalue| */

double mat_worse(double a, double b); /* the larger one; NAN if either is */
double mat_trace(int64_t n, const double *A);
double mat_norm(int64_t n, const double *A);                               /* Frobenius, n numbers */
double mat_norm2(struct theory *t, int64_t m, int64_t n, const double *A); /* 2-norm */
double mat_distance(int64_t n, const double *A, const double *B);          /* |A - B| / |B|, Frobenius */
double mat_dot(int64_t n, const double *a, const double *b);
/* aᵀ M a */
double mat_form(struct theory *t, int64_t n, const double *M, const double *a);
