/* What the files of the shadow device share. Memory of the device is named by addresses that nobody may touch; what
   they stand for lies elsewhere, and a kernel asks for it here, which is where its arguments are checked.

     shadow.c         memory, and the table
     shadow_lin.c     matrix products and the products of Jacobians
     shadow_layer.c   layers, the gated recurrence
     shadow_model.c   the observation
     shadow_kron.c    kron and diag
     shadow_block.c   blocks of units
     shadow_tensor.c  a transformer's operations
     shadow_rooms.c   sums over devices that meet
     shadow_lane.c    copies beside kernels, and what other processes see

   The loops are the definition of each kernel, written as plainly as can be. */
#pragma once

#include "kwm/device_ops.h"

/* What lies behind n numbers of `size` bytes at the device's address: they must be within one live piece. Aborts if
   not, or if n is not positive. */
void *shadow_array(kwm_device *d, const void *at, int64_t n, size_t size);

/* The same for n doubles of shared memory, about to be written: the host sees NaN until the next wait. */
double *shadow_facts(kwm_device *d, double *at, int64_t n);

/* Aborts if these bytes are not the host's. */
void shadow_host(kwm_device *d, const void *at, size_t bytes);

/* Whether this is an address of the device. */
bool shadow_is_ours(kwm_device *d, const void *at);

/* The file that holds the device's memory, and where in it the piece that begins at `at` lies. */
void shadow_place_of(kwm_device *d, const void *at, int *file, size_t *offset, size_t *bytes);

/* Memory of other processes, mapped here (shadow_lane.c). */
struct shadow_window {
  struct shadow_window *next;
  char *base;
  size_t bytes;
};
struct shadow_window **shadow_windows(kwm_device *d);
void shadow_drop_window(kwm_device *d, void *at); /* any address in one */

/* The host sees what kernels wrote to shared memory. */
void shadow_wait(kwm_device *d);

#define SHADOW_MATRIX(d, at, rows, columns, ld) shadow_array((d), (at), ((rows)-1) * (ld) + (columns), sizeof *(at))

/* shadow_lin.c */
void shadow_gemm(kwm_device *d, bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, float alpha,
                 const float *A, int64_t lda, const float *B, int64_t ldb, float beta, float *C, int64_t ldc);
void *shadow_eigen_begin(kwm_device *d, const struct kwm_device_eigen *of);
bool shadow_eigen_end(kwm_device *d, void *begun);
void shadow_gemm_f64(kwm_device *d, bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, double alpha,
                     const double *A, int64_t lda, const double *B, int64_t ldb, double beta, double *C, int64_t ldc);
void shadow_gram_f64(kwm_device *d, int64_t n, int64_t k, double alpha, const double *A, double beta, double *C);
void shadow_symm_f64(kwm_device *d, int64_t m, int64_t n, const double *A, const double *B, double *C);
void shadow_gemmt_f64(kwm_device *d, int64_t m, int64_t k, const double *A, const double *B, double beta, double *C);
void shadow_solve_lower_f64(kwm_device *d, int64_t n, int64_t k, const double *L, double *B);
bool shadow_factor_f64(kwm_device *d, int64_t n, double *W);
bool shadow_factor_solve_f64(kwm_device *d, int64_t n, double *S, double *x, double *x_host);
void shadow_add_scaled(kwm_device *d, int64_t n, float scale, const float *x, float *y);
void shadow_square(kwm_device *d, int64_t n, float *x);
void shadow_add_squares(kwm_device *d, int64_t n, int64_t width, const float *rows, float *sums);
void shadow_column_dots(kwm_device *d, int64_t n, int64_t width, const float *x, const float *y, float *dots);
void shadow_mirror(kwm_device *d, int64_t n, float *C);
void shadow_units_fisher(kwm_device *d, const struct kwm_device_units *units, float *F, float *s);
void shadow_units_diagonal(kwm_device *d, const struct kwm_device_units *units, float *f, float *s);
void shadow_output_score(kwm_device *d, int64_t n, int64_t m, int64_t w, const float *e, const float *J, float *g);
void shadow_output_squares(kwm_device *d, int64_t n, int64_t m, int64_t w, const float *J, float *squares);
void shadow_mirror_f64(kwm_device *d, int64_t n, double *A);
void shadow_downdate_both(kwm_device *d, int64_t n, int64_t k, const double *Y, double *P);
void shadow_outer_symm(kwm_device *d, const struct kwm_device_outer *rows, const double *P, int64_t k, const double *Y,
                       double *Z);
void shadow_outer_share(kwm_device *d, const struct kwm_device_outer *rows, const double *Z, double keep, double *S);
void shadow_outer_rows(kwm_device *d, int64_t n, int64_t m, int64_t o, int64_t i, const float *J, const float *a,
                       double *H);
void shadow_add_diagonal(kwm_device *d, int64_t n, double value, double *A);
void shadow_add_f64(kwm_device *d, int64_t n, const double *x, double *y);

/* shadow_layer.c */
void shadow_pixels(kwm_device *d, int64_t n, int64_t length, const uint8_t *pixels, float *a);
void shadow_relu(kwm_device *d, int64_t n, int64_t w, const float *u, float *act);
void shadow_relu_mask(kwm_device *d, int64_t n, int64_t m, int64_t w, const float *u, float *J);
void shadow_drop(kwm_device *d, int64_t n, int64_t m, int64_t w, int64_t ld, const struct kwm_dropout *drop, float *x);
void shadow_gated_tables(kwm_device *d, int64_t count, const float *theta, float *tables);
void shadow_gated_encode(kwm_device *d, int64_t n, int64_t length, const uint8_t *pixels, uint16_t *symbols,
                         int32_t *n_symbols);
void shadow_gated_forward(kwm_device *d, int64_t n, int64_t length, int64_t count, const float *tables,
                          const uint16_t *symbols, const int32_t *n_symbols, float *h, float *S);

/* shadow_model.c */
void shadow_observe(kwm_device *d, const struct kwm_device_observation *o, float *e, float *J);
void shadow_observe_sampled(kwm_device *d, const struct kwm_device_observation *o, const double *draws, float *g,
                            float *h);

/* shadow_kron.c */
void shadow_kron_gain(kwm_device *d, int64_t o, int64_t i, double batch, const float *gt2, const float *at2,
                      const float *Y, const float *D, float *f, float *X, double *facts);
void shadow_kron_forget(kwm_device *d, int64_t n, float lambda, float d0, float *D);
void shadow_kron_diffuse(kwm_device *d, int64_t n, float q, float *D);
void shadow_kron_pull(kwm_device *d, int64_t n, float share, const float *D, const float *mean, float *X);
void shadow_sum_inverse(kwm_device *d, int64_t n, const float *D, double *facts);
void shadow_move_f64(kwm_device *d, int64_t n, double scale, const double *delta, float *mean);
void shadow_diag_absorb(kwm_device *d, bool wide, int64_t count, int64_t p, int64_t period, const double *prior,
                        const float *evidence, const void *D, void *next, double *delta, double *facts);
void shadow_diag_predict(kwm_device *d, bool wide, int64_t count, int64_t p, int64_t period, double lambda, double q,
                         const double *prior, const float *anchor, void *D, float *mean);
void shadow_diag_trace(kwm_device *d, bool wide, int64_t n, const void *D, double *facts);

/* shadow_block.c */
void shadow_block_absorb(kwm_device *d, int64_t count, int64_t p, const double *M, const double *prior,
                         const float *evidence, double *delta, double *facts);
void shadow_block_take(kwm_device *d, int64_t count, int64_t p, const float *evidence, double *M);
void shadow_block_predict(kwm_device *d, int64_t count, int64_t p, double lambda, double q, const double *prior,
                          const float *anchor, double *M, double *W, float *mean, double *facts);
void shadow_block_trace(kwm_device *d, int64_t count, int64_t p, const double *M, double *facts);

/* shadow_tensor.c */
extern const struct kwm_tensor_ops shadow_tensor;

/* shadow_rooms.c */
void shadow_sum_rooms(kwm_device *d, const struct kwm_device_rooms *rooms, int64_t n, float *values);

/* shadow_lane.c */
extern const struct kwm_lane_ops shadow_lane;
