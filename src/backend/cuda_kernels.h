/* The CUDA kernels' launchers: what the host code calls, in C, and the .cu files hold. Arguments and meaning are those
   of the operations of the same name (kwm/device_ops.h); each starts its kernels on `stream` and returns at once. A
   launch that fails shows in cudaPeekAtLastError. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cuda_runtime_api.h>

#ifdef __cplusplus
extern "C" {
#endif

#include "kwm/device_ops.h"

/* Sums over many elements: at most CUDA_PARTS blocks, each with up to CUDA_SUMS sums; whichever block ends last adds
   the blocks' sums, in the blocks' order. One such kernel at a time: those of a device share its scratch. */
enum { CUDA_PARTS = 1024, CUDA_SUMS = 4 };
struct cuda_scratch {
  double *parts;  /* (CUDA_PARTS, CUDA_SUMS) */
  unsigned *done; /* blocks that ended; zero before and after every kernel */
};

/* cuda_elements.cu */
void cuda_add_scaled(int64_t n, float scale, const float *x, float *y, cudaStream_t stream);
void cuda_square(int64_t n, float *x, cudaStream_t stream);
void cuda_add_squares(int64_t n, int64_t width, const float *rows, float *sums, cudaStream_t stream);
void cuda_column_dots(int64_t n, int64_t width, const float *x, const float *y, float *dots, cudaStream_t stream);
void cuda_mirror(int64_t n, float *C, cudaStream_t stream);
void cuda_pixels(int64_t n, int64_t length, const uint8_t *pixels, float *a, cudaStream_t stream);
void cuda_relu(int64_t n, int64_t w, const float *u, float *act, cudaStream_t stream);
void cuda_relu_mask(int64_t n, int64_t m, int64_t w, const float *u, float *J, cudaStream_t stream);
void cuda_drop(int64_t n, int64_t m, int64_t w, int64_t ld, const struct kwm_dropout *drop, float *x,
               cudaStream_t stream);
void cuda_output_score(int64_t n, int64_t m, int64_t w, const float *e, const float *J, float *g, cudaStream_t stream);
void cuda_output_squares(int64_t n, int64_t m, int64_t w, const float *J, float *squares, cudaStream_t stream);
void cuda_outer_rows(int64_t n, int64_t m, int64_t o, int64_t i, const float *J, const float *a, double *H,
                     cudaStream_t stream);
void cuda_add_diagonal(int64_t n, double value, double *A, cudaStream_t stream);
void cuda_add_f64(int64_t n, const double *x, double *y, cudaStream_t stream);

/* cuda_rooms.cu */
void cuda_sum_rooms(const struct kwm_device_rooms *rooms, int64_t n, float *values, cudaStream_t stream);

/* Around cuSOLVER; *not_finite <- 1 if what was read is not finite, else left alone. widen: B (n, n) <- the upper
   triangle of A, 0 below it. narrow: V (n, n) <- transposed B. check_factor: reads the diagonal of W (n, n), where a
   factor that is not finite shows. */
void cuda_widen(int64_t n, const float *A, double *B, int *not_finite, cudaStream_t stream);
void cuda_narrow(int64_t n, const double *B, float *V, int *not_finite, cudaStream_t stream);
void cuda_check_factor(int64_t n, const double *W, int *not_finite, cudaStream_t stream);

/* cuda_observe.cu */
void cuda_observe(const struct kwm_device_observation *o, float *e, float *J, cudaStream_t stream);
void cuda_observe_sampled(const struct kwm_device_observation *o, const double *draws, float *g, float *h,
                          cudaStream_t stream);

/* cuda_cov.cu */
void cuda_kron_gain(int64_t o, int64_t i, double batch, const float *gt2, const float *at2, const float *Y,
                    const float *D, float *f, float *X, double *facts, const struct cuda_scratch *scratch,
                    cudaStream_t stream);
void cuda_kron_forget(int64_t n, float lambda, float d0, float *D, cudaStream_t stream);
void cuda_kron_diffuse(int64_t n, float q, float *D, cudaStream_t stream);
void cuda_kron_pull(int64_t n, float share, const float *D, const float *mean, float *X, cudaStream_t stream);
void cuda_sum_inverse(int64_t n, const float *D, double *facts, const struct cuda_scratch *scratch,
                      cudaStream_t stream);
void cuda_move_f64(int64_t n, double scale, const double *delta, float *mean, cudaStream_t stream);
void cuda_diag_absorb(bool wide, int64_t count, int64_t p, int64_t period, const double *prior, const float *evidence,
                      const void *D, void *next, double *delta, double *facts, const struct cuda_scratch *scratch,
                      cudaStream_t stream);
void cuda_diag_predict(bool wide, int64_t count, int64_t p, int64_t period, double lambda, double q,
                       const double *prior, const float *anchor, void *D, float *mean, cudaStream_t stream);
void cuda_diag_trace(bool wide, int64_t n, const void *D, double *facts, const struct cuda_scratch *scratch,
                     cudaStream_t stream);

/* Gated units and their blocks: cuda_gated.cu, cuda_units.cu, cuda_block.cu */
void cuda_gated_tables(int64_t count, const float *theta, float *tables, cudaStream_t stream);
void cuda_gated_encode(int64_t n, int64_t length, const uint8_t *pixels, uint16_t *symbols, int32_t *n_symbols,
                       cudaStream_t stream);
void cuda_gated_forward(int64_t n, int64_t length, int64_t count, const float *tables, const uint16_t *symbols,
                        const int32_t *n_symbols, float *h, float *S, cudaStream_t stream);
void cuda_units_fisher(const struct kwm_device_units *units, float *F, float *s, cudaStream_t stream);
void cuda_units_diagonal(const struct kwm_device_units *units, float *f, float *s, cudaStream_t stream);
void cuda_block_absorb(int64_t count, int64_t p, const double *M, const double *prior, const float *evidence,
                       double *delta, double *facts, cudaStream_t stream);
void cuda_block_take(int64_t count, int64_t p, const float *evidence, double *M, cudaStream_t stream);
void cuda_block_predict(int64_t count, int64_t p, double lambda, double q, const double *prior, const float *anchor,
                        double *M, double *W, float *mean, double *facts, cudaStream_t stream);
void cuda_block_trace(int64_t count, int64_t p, const double *M, double *facts, cudaStream_t stream);

#ifdef __cplusplus
}
#endif
