/* Private to the CUDA backend: launchers of cuda_large.cu and cuda_large_solve.cu, which say what they do. */
#pragma once

#include "cuda_kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

/* How Z = H P is cut: blocks of threads, and parts (m, n) that are added; strips of P, for few rows. */
enum { CUDA_LARGE_FEW = 16, CUDA_LARGE_ROWS = 128 };
struct cuda_large_cut {
  int64_t strips, blocks, parts;
};

/* Z (m, n) <- H P for symmetric P (n, n), upper triangle read; parts (cut's parts, m, n) scratch. m <= CUDA_LARGE_FEW,
   or, by cuda_large_rows, CUDA_LARGE_ROWS. */
struct cuda_large_cut cuda_large_cut_of(int64_t n, int processors);
void cuda_large_symm(const struct cuda_large_cut *cut, int64_t m, int64_t n, const double *P, const double *H,
                     double *parts, double *Z, cudaStream_t stream);
struct cuda_large_cut cuda_large_rows_cut(int64_t n, int processors);
void cuda_large_rows(const struct cuda_large_cut *cut, int64_t m, int64_t n, const double *P, const double *H,
                     double *parts, double *Z, cudaStream_t stream);

/* S (m, m) <- keep S + Z Hᵀ for Z, H (m, n), m <= CUDA_LARGE_FEW; parts (cuda_large_share_parts) scratch; done: zero,
   as afterwards. */
int64_t cuda_large_share_parts(int64_t n);
void cuda_large_share(int64_t m, int64_t n, const double *Z, const double *H, double keep, double *S, double *parts,
                      unsigned *done, cudaStream_t stream);

/* Rows J ⊗ a (kwm/device_ops.h), o at most CUDA_OUTER_BLOCKS. widen: wide (n) <- a. weigh: Z (n·m, p) <- keep Z + J U
   for U (o, n, p). less: Z (m, p) -= G Y for G (m, k), Y (k, p), m at most CUDA_LARGE_FEW. times: G (n·m, k) <- keep G
   + H Yᵀ for Y (k, o·i), n at most CUDA_OUTER_FEW. mirror: lower triangle of A (n, n) <- upper. */
enum { CUDA_OUTER_FEW = 16, CUDA_OUTER_BLOCKS = 128 };
void cuda_outer_widen(int64_t n, const float *a, double *wide, cudaStream_t stream);
void cuda_outer_weigh(const struct kwm_device_outer *rows, int64_t p, const double *U, double keep, double *Z,
                      cudaStream_t stream);
void cuda_outer_less(int64_t m, int64_t p, int64_t k, const double *G, const double *Y, double *Z, cudaStream_t stream);
void cuda_outer_times(const struct kwm_device_outer *rows, int64_t k, const double *Y, double keep, double *G,
                      cudaStream_t stream);
void cuda_mirror_f64(int64_t n, double *A, cudaStream_t stream);

/* Upper triangle of C (n, n) <- alpha AᵀA + beta C for A (k, n), and both: the other, too; alpha may be 0 only if k is.
 */
void cuda_large_gram(int64_t n, int64_t k, double alpha, const double *A, double beta, bool both, double *C,
                     cudaStream_t stream);

/* `count` lower triangles L (n, n), n <= CUDA_LARGE_SOLVE, ld numbers from row to row, apart from one to the next. */
enum { CUDA_LARGE_SOLVE = 128 };
struct cuda_large_lower {
  int64_t n, count;
  const double *L;
  int64_t ld, apart;
};

/* Each B (n, k) <- L⁻¹B */
void cuda_large_solve(const struct cuda_large_lower *lower, int64_t k, double *B, int64_t ldb, int64_t apart,
                      cudaStream_t stream);

/* to (N, N) <- L (n, n), zeros above the diagonal, ones on the rest of it; units (N, N) <- the unit matrix */
void cuda_large_frame(int64_t n, const double *L, int64_t N, double *to, double *units, cudaStream_t stream);

#ifdef __cplusplus
}
#endif
