/* The table of the CUDA device: every operation that is one of our own kernels starts it on the device's stream. */
#include "cuda_state.h"

static void add_scaled(kwm_device *d, int64_t n, float scale, const float *x, float *y) {
  CUDA_LAUNCH(d, add_scaled, n, scale, x, y);
}

static void square(kwm_device *d, int64_t n, float *x) {
  CUDA_LAUNCH(d, square, n, x);
}

static void add_squares(kwm_device *d, int64_t n, int64_t width, const float *rows, float *sums) {
  CUDA_LAUNCH(d, add_squares, n, width, rows, sums);
}

static void column_dots(kwm_device *d, int64_t n, int64_t width, const float *x, const float *y, float *dots) {
  CUDA_LAUNCH(d, column_dots, n, width, x, y, dots);
}

static void mirror(kwm_device *d, int64_t n, float *C) {
  CUDA_LAUNCH(d, mirror, n, C);
}

static void pixels_of(kwm_device *d, int64_t n, int64_t length, const uint8_t *pixels, float *a) {
  CUDA_LAUNCH(d, pixels, n, length, pixels, a);
}

static void relu(kwm_device *d, int64_t n, int64_t w, const float *u, float *act) {
  CUDA_LAUNCH(d, relu, n, w, u, act);
}

static void relu_mask(kwm_device *d, int64_t n, int64_t m, int64_t w, const float *u, float *J) {
  CUDA_LAUNCH(d, relu_mask, n, m, w, u, J);
}

static void drop_rows(kwm_device *d, int64_t n, int64_t m, int64_t w, int64_t ld, const struct kwm_dropout *drop,
                      float *x) {
  CUDA_LAUNCH(d, drop, n, m, w, ld, drop, x);
}

static void gated_tables(kwm_device *d, int64_t count, const float *theta, float *tables) {
  CUDA_LAUNCH(d, gated_tables, count, theta, tables);
}

static void gated_encode(kwm_device *d, int64_t n, int64_t length, const uint8_t *pixels, uint16_t *symbols,
                         int32_t *n_symbols) {
  CUDA_LAUNCH(d, gated_encode, n, length, pixels, symbols, n_symbols);
}

static void gated_forward(kwm_device *d, int64_t n, int64_t length, int64_t count, const float *tables,
                          const uint16_t *symbols, const int32_t *n_symbols, float *h, float *S) {
  CUDA_LAUNCH(d, gated_forward, n, length, count, tables, symbols, n_symbols, h, S);
}

static void observe(kwm_device *d, const struct kwm_device_observation *o, float *e, float *J) {
  CUDA_LAUNCH(d, observe, o, e, J);
}

static void observe_sampled(kwm_device *d, const struct kwm_device_observation *o, const double *draws, float *g,
                            float *h) {
  CUDA_LAUNCH(d, observe_sampled, o, draws, g, h);
}

static void units_fisher(kwm_device *d, const struct kwm_device_units *units, float *F, float *s) {
  CUDA_LAUNCH(d, units_fisher, units, F, s);
}

static void units_diagonal(kwm_device *d, const struct kwm_device_units *units, float *f, float *s) {
  CUDA_LAUNCH(d, units_diagonal, units, f, s);
}

static void output_score(kwm_device *d, int64_t n, int64_t m, int64_t w, const float *e, const float *J, float *g) {
  CUDA_LAUNCH(d, output_score, n, m, w, e, J, g);
}

static void output_squares(kwm_device *d, int64_t n, int64_t m, int64_t w, const float *J, float *squares) {
  CUDA_LAUNCH(d, output_squares, n, m, w, J, squares);
}

static void outer_rows(kwm_device *d, int64_t n, int64_t m, int64_t o, int64_t i, const float *J, const float *a,
                       double *H) {
  CUDA_LAUNCH(d, outer_rows, n, m, o, i, J, a, H);
}

static void add_diagonal(kwm_device *d, int64_t n, double value, double *A) {
  CUDA_LAUNCH(d, add_diagonal, n, value, A);
}

static void kron_gain(kwm_device *d, int64_t o, int64_t i, double batch, const float *gt2, const float *at2,
                      const float *Y, const float *D, float *f, float *X, double *facts) {
  CUDA_LAUNCH(d, kron_gain, o, i, batch, gt2, at2, Y, D, f, X, facts, &cuda_state_of(d)->scratch);
}

static void kron_forget(kwm_device *d, int64_t n, float lambda, float d0, float *D) {
  CUDA_LAUNCH(d, kron_forget, n, lambda, d0, D);
}

static void kron_diffuse(kwm_device *d, int64_t n, float q, float *D) {
  CUDA_LAUNCH(d, kron_diffuse, n, q, D);
}

static void kron_pull(kwm_device *d, int64_t n, float share, const float *D, const float *mean, float *X) {
  CUDA_LAUNCH(d, kron_pull, n, share, D, mean, X);
}

static void sum_inverse(kwm_device *d, int64_t n, const float *D, double *facts) {
  CUDA_LAUNCH(d, sum_inverse, n, D, facts, &cuda_state_of(d)->scratch);
}

static void block_absorb(kwm_device *d, int64_t count, int64_t p, const double *M, const double *prior,
                         const float *evidence, double *delta, double *facts) {
  CUDA_LAUNCH(d, block_absorb, count, p, M, prior, evidence, delta, facts);
}

static void block_take(kwm_device *d, int64_t count, int64_t p, const float *evidence, double *M) {
  CUDA_LAUNCH(d, block_take, count, p, evidence, M);
}

static void block_predict(kwm_device *d, int64_t count, int64_t p, double lambda, double q, const double *prior,
                          const float *anchor, double *M, double *W, float *mean, double *facts) {
  CUDA_LAUNCH(d, block_predict, count, p, lambda, q, prior, anchor, M, W, mean, facts);
}

static void block_trace(kwm_device *d, int64_t count, int64_t p, const double *M, double *facts) {
  CUDA_LAUNCH(d, block_trace, count, p, M, facts);
}

static void move_f64(kwm_device *d, int64_t n, double scale, const double *delta, float *mean) {
  CUDA_LAUNCH(d, move_f64, n, scale, delta, mean);
}

static void diag_absorb(kwm_device *d, bool wide, int64_t count, int64_t p, int64_t period, const double *prior,
                        const float *evidence, const void *D, void *next, double *delta, double *facts) {
  CUDA_LAUNCH(d, diag_absorb, wide, count, p, period, prior, evidence, D, next, delta, facts,
              &cuda_state_of(d)->scratch);
}

static void diag_predict(kwm_device *d, bool wide, int64_t count, int64_t p, int64_t period, double lambda, double q,
                         const double *prior, const float *anchor, void *D, float *mean) {
  CUDA_LAUNCH(d, diag_predict, wide, count, p, period, lambda, q, prior, anchor, D, mean);
}

static void diag_trace(kwm_device *d, bool wide, int64_t n, const void *D, double *facts) {
  CUDA_LAUNCH(d, diag_trace, wide, n, D, facts, &cuda_state_of(d)->scratch);
}

const struct kwm_device_ops cuda_ops = {
    .name = "cuda",
    .tensor = &cuda_tensor,
    .lane = &cuda_lane,
    .close = cuda_close,
    .alloc = cuda_alloc,
    .free = cuda_free,
    .put = cuda_put,
    .get = cuda_get,
    .copy_rows = cuda_copy_rows,
    .zero = cuda_zero,
    .wait = cuda_wait,
#ifdef KWM_NCCL
    .identity = cuda_identity,
    .join = cuda_join,
    .exchange = cuda_exchange,
#endif
    .gemm = cuda_gemm,
    .eigen = cuda_eigen,
    .gemm_f64 = cuda_gemm_f64,
    .gram_f64 = cuda_gram_f64,
    .symm_f64 = cuda_symm_f64,
    .solve_lower_f64 = cuda_solve_lower_f64,
    .factor_f64 = cuda_factor_f64,
    .factor_solve_f64 = cuda_factor_solve_f64,
    .add_scaled = add_scaled,
    .square = square,
    .add_squares = add_squares,
    .column_dots = column_dots,
    .mirror = mirror,
    .pixels = pixels_of,
    .relu = relu,
    .relu_mask = relu_mask,
    .drop = drop_rows,
    .gated_tables = gated_tables,
    .gated_encode = gated_encode,
    .gated_forward = gated_forward,
    .observe = observe,
    .observe_sampled = observe_sampled,
    .units_fisher = units_fisher,
    .units_diagonal = units_diagonal,
    .output_score = output_score,
    .output_squares = output_squares,
    .outer_rows = outer_rows,
    .add_diagonal = add_diagonal,
    .kron_gain = kron_gain,
    .kron_forget = kron_forget,
    .kron_diffuse = kron_diffuse,
    .kron_pull = kron_pull,
    .sum_inverse = sum_inverse,
    .block_absorb = block_absorb,
    .block_take = block_take,
    .block_predict = block_predict,
    .block_trace = block_trace,
    .move_f64 = move_f64,
    .diag_absorb = diag_absorb,
    .diag_predict = diag_predict,
    .diag_trace = diag_trace,
};
