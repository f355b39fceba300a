/* Private to cov/full*.c: BLACS, PBLAS and ScaLAPACK as used here; no C header of them is installed. All integers are
   32 bits, indices begin at 1, matrices are column-major and described by 9 integers. A Fortran routine takes the
   length of each character argument at its end; the others are C. */
#pragma once

#include <mpi.h>
#include <stddef.h>

/* BLACS: process grids. */
int Csys2blacs_handle(MPI_Comm comm);
void Cfree_blacs_system_handle(int handle);
void Cblacs_gridmap(int *context, int *ranks, int ld, int n_rows, int n_columns);
void Cblacs_gridexit(int context);

/* B(ib.., jb..) (m, n) <- A(ia.., ja..) between any two layouts; `context` holds all ranks of both. */
void Cpdgemr2d(int m, int n, const double *A, int ia, int ja, const int *desc_a, double *B, int ib, int jb,
               const int *desc_b, int context);
void Cpsgemr2d(int m, int n, const float *A, int ia, int ja, const int *desc_a, float *B, int ib, int jb,
               const int *desc_b, int context);

/* PBLAS: C <- alpha op(A) op(B) + beta C and its symmetric relatives, on submatrices. */
void pdgemm_(const char *op_a, const char *op_b, const int *m, const int *n, const int *k, const double *alpha,
             const double *A, const int *ia, const int *ja, const int *desc_a, const double *B, const int *ib,
             const int *jb, const int *desc_b, const double *beta, double *C, const int *ic, const int *jc,
             const int *desc_c);
void psgemm_(const char *op_a, const char *op_b, const int *m, const int *n, const int *k, const float *alpha,
             const float *A, const int *ia, const int *ja, const int *desc_a, const float *B, const int *ib,
             const int *jb, const int *desc_b, const float *beta, float *C, const int *ic, const int *jc,
             const int *desc_c);
void pdsymm_(const char *side, const char *uplo, const int *m, const int *n, const double *alpha, const double *A,
             const int *ia, const int *ja, const int *desc_a, const double *B, const int *ib, const int *jb,
             const int *desc_b, const double *beta, double *C, const int *ic, const int *jc, const int *desc_c);
void pdsyrk_(const char *uplo, const char *op, const int *n, const int *k, const double *alpha, const double *A,
             const int *ia, const int *ja, const int *desc_a, const double *beta, double *C, const int *ic,
             const int *jc, const int *desc_c);
void pdtrsm_(const char *side, const char *uplo, const char *op, const char *diagonal, const int *m, const int *n,
             const double *alpha, const double *A, const int *ia, const int *ja, const int *desc_a, double *B,
             const int *ib, const int *jb, const int *desc_b);
void pssyrk_(const char *uplo, const char *op, const int *n, const int *k, const float *alpha, const float *A,
             const int *ia, const int *ja, const int *desc_a, const float *beta, float *C, const int *ic, const int *jc,
             const int *desc_c);
void pstrsm_(const char *side, const char *uplo, const char *op, const char *diagonal, const int *m, const int *n,
             const float *alpha, const float *A, const int *ia, const int *ja, const int *desc_a, float *B,
             const int *ib, const int *jb, const int *desc_b);
void pdtran_(const int *m, const int *n, const double *alpha, const double *A, const int *ia, const int *ja,
             const int *desc_a, const double *beta, double *C, const int *ic, const int *jc, const int *desc_c);

/* ScaLAPACK: Cholesky factor, and inverse from it; *info > 0: not positive definite. */
void pdpotrf_(const char *uplo, const int *n, double *A, const int *ia, const int *ja, const int *desc_a, int *info,
              size_t uplo_length);
void pdpotri_(const char *uplo, const int *n, double *A, const int *ia, const int *ja, const int *desc_a, int *info,
              size_t uplo_length);
void pspotrf_(const char *uplo, const int *n, float *A, const int *ia, const int *ja, const int *desc_a, int *info,
              size_t uplo_length);

/* A (m, n) <- L of its LQ factorisation in the lower triangle, reflectors above. */
void psgelqf_(const int *m, const int *n, float *A, const int *ia, const int *ja, const int *desc_a, float *tau,
              float *work, const int *work_length, int *info);

/* Eigenvalues (job "N") of A (n, n), which is destroyed; work_length -1 asks for the length in work[0]. */
void pdsyev_(const char *job, const char *uplo, const int *n, double *A, const int *ia, const int *ja,
             const int *desc_a, double *values, double *Z, const int *iz, const int *jz, const int *desc_z,
             double *work, const int *work_length, int *info, size_t job_length, size_t uplo_length);

/* The same by divide and conquer, with vectors ("V") in Z only. */
void pdsyevd_(const char *job, const char *uplo, const int *n, double *A, const int *ia, const int *ja,
              const int *desc_a, double *values, double *Z, const int *iz, const int *jz, const int *desc_z,
              double *work, const int *work_length, int *index_work, const int *index_length, int *info,
              size_t job_length, size_t uplo_length);
