/* The table of the CUDA device. Of our own kernels those of a step are kept (cuda_replay.h), others start at once. */
#include "cuda_state.h"

/* The kernel of a kept call. Of numbers of less than 8 bytes wider ones are kept: nothing lies between them. */
#define KEPT(name, ...)                                                                                                \
  static void play_##name(kwm_device *d, const void *call) {                                                           \
    const struct name##_call *const c = call;                                                                          \
    CUDA_LAUNCH(d, name, __VA_ARGS__);                                                                                 \
  }

struct add_scaled_call {
  int64_t n;
  double scale;
  const float *x;
  float *y;
};
KEPT(add_scaled, c->n, (float)c->scale, c->x, c->y)
static void add_scaled(kwm_device *d, int64_t n, float scale, const float *x, float *y) {
  CUDA_ASK(d, add_scaled, n, (double)scale, x, y);
}

static void square(kwm_device *d, int64_t n, float *x) {
  CUDA_LAUNCH(d, square, n, x);
}

struct add_squares_call {
  int64_t n, width;
  const float *rows;
  float *sums;
};
KEPT(add_squares, c->n, c->width, c->rows, c->sums)
static void add_squares(kwm_device *d, int64_t n, int64_t width, const float *rows, float *sums) {
  CUDA_ASK(d, add_squares, n, width, rows, sums);
}

struct column_dots_call {
  int64_t n, width;
  const float *x, *y;
  float *dots;
};
KEPT(column_dots, c->n, c->width, c->x, c->y, c->dots)
static void column_dots(kwm_device *d, int64_t n, int64_t width, const float *x, const float *y, float *dots) {
  CUDA_ASK(d, column_dots, n, width, x, y, dots);
}

static void mirror(kwm_device *d, int64_t n, float *C) {
  CUDA_LAUNCH(d, mirror, n, C);
}

static void pixels_of(kwm_device *d, int64_t n, int64_t length, const uint8_t *pixels, float *a) {
  CUDA_LAUNCH(d, pixels, n, length, pixels, a);
}

struct relu_call {
  int64_t n, w;
  const float *u;
  float *act;
};
KEPT(relu, c->n, c->w, c->u, c->act)
static void relu(kwm_device *d, int64_t n, int64_t w, const float *u, float *act) {
  CUDA_ASK(d, relu, n, w, u, act);
}

struct relu_mask_call {
  int64_t n, m, w;
  const float *u;
  float *J;
};
KEPT(relu_mask, c->n, c->m, c->w, c->u, c->J)
static void relu_mask(kwm_device *d, int64_t n, int64_t m, int64_t w, const float *u, float *J) {
  CUDA_ASK(d, relu_mask, n, m, w, u, J);
}

static void drop_rows(kwm_device *d, int64_t n, int64_t m, int64_t w, int64_t ld, const struct kwm_dropout *drop,
                      float *x) {
  CUDA_LAUNCH(d, drop, n, m, w, ld, drop, x);
}

struct gated_tables_call {
  int64_t count;
  const float *theta;
  float *tables;
};
KEPT(gated_tables, c->count, c->theta, c->tables)
static void gated_tables(kwm_device *d, int64_t count, const float *theta, float *tables) {
  CUDA_ASK(d, gated_tables, count, theta, tables);
}

struct gated_encode_call {
  int64_t n, length;
  const uint8_t *pixels;
  uint16_t *symbols;
  int32_t *n_symbols;
};
KEPT(gated_encode, c->n, c->length, c->pixels, c->symbols, c->n_symbols)
static void gated_encode(kwm_device *d, int64_t n, int64_t length, const uint8_t *pixels, uint16_t *symbols,
                         int32_t *n_symbols) {
  CUDA_ASK(d, gated_encode, n, length, pixels, symbols, n_symbols);
}

struct gated_forward_call {
  int64_t n, length, count;
  const float *tables;
  const uint16_t *symbols;
  const int32_t *n_symbols;
  float *h, *S;
};
KEPT(gated_forward, c->n, c->length, c->count, c->tables, c->symbols, c->n_symbols, c->h, c->S)
static void gated_forward(kwm_device *d, int64_t n, int64_t length, int64_t count, const float *tables,
                          const uint16_t *symbols, const int32_t *n_symbols, float *h, float *S) {
  CUDA_ASK(d, gated_forward, n, length, count, tables, symbols, n_symbols, h, S);
}

struct observe_call {
  struct kwm_device_observation o;
  float *e, *J;
};
KEPT(observe, &c->o, c->e, c->J)
static void observe(kwm_device *d, const struct kwm_device_observation *o, float *e, float *J) {
  CUDA_ASK(d, observe, *o, e, J);
}

static void observe_sampled(kwm_device *d, const struct kwm_device_observation *o, const double *draws, float *g,
                            float *h) {
  CUDA_LAUNCH(d, observe_sampled, o, draws, g, h);
}

struct units_fisher_call {
  struct kwm_device_units units;
  float *F, *s;
};
KEPT(units_fisher, &c->units, c->F, c->s)
static void units_fisher(kwm_device *d, const struct kwm_device_units *units, float *F, float *s) {
  CUDA_ASK(d, units_fisher, *units, F, s);
}

struct units_diagonal_call {
  struct kwm_device_units units;
  float *f, *s;
};
KEPT(units_diagonal, &c->units, c->f, c->s)
static void units_diagonal(kwm_device *d, const struct kwm_device_units *units, float *f, float *s) {
  CUDA_ASK(d, units_diagonal, *units, f, s);
}

struct output_score_call {
  int64_t n, m, w;
  const float *e, *J;
  float *g;
};
KEPT(output_score, c->n, c->m, c->w, c->e, c->J, c->g)
static void output_score(kwm_device *d, int64_t n, int64_t m, int64_t w, const float *e, const float *J, float *g) {
  CUDA_ASK(d, output_score, n, m, w, e, J, g);
}

struct output_squares_call {
  int64_t n, m, w;
  const float *J;
  float *squares;
};
KEPT(output_squares, c->n, c->m, c->w, c->J, c->squares)
static void output_squares(kwm_device *d, int64_t n, int64_t m, int64_t w, const float *J, float *squares) {
  CUDA_ASK(d, output_squares, n, m, w, J, squares);
}

struct add_diagonal_call {
  int64_t n;
  double value;
  double *A;
};
KEPT(add_diagonal, c->n, c->value, c->A)
static void add_diagonal(kwm_device *d, int64_t n, double value, double *A) {
  CUDA_ASK(d, add_diagonal, n, value, A);
}

static void sum_rooms(kwm_device *d, const struct kwm_device_rooms *rooms, int64_t n, float *values) {
  CUDA_LAUNCH(d, sum_rooms, rooms, n, values);
}

static void add_f64(kwm_device *d, int64_t n, const double *x, double *y) {
  CUDA_LAUNCH(d, add_f64, n, x, y);
}

struct kron_gain_call {
  int64_t o, i;
  double batch;
  const float *gt2, *at2, *Y, *D;
  float *f, *X;
  double *facts;
};
KEPT(kron_gain, c->o, c->i, c->batch, c->gt2, c->at2, c->Y, c->D, c->f, c->X, c->facts, &cuda_state_of(d)->scratch)
static void kron_gain(kwm_device *d, int64_t o, int64_t i, double batch, const float *gt2, const float *at2,
                      const float *Y, const float *D, float *f, float *X, double *facts) {
  CUDA_ASK(d, kron_gain, o, i, batch, gt2, at2, Y, D, f, X, facts);
}

struct kron_forget_call {
  int64_t n;
  double lambda, d0;
  float *D;
};
KEPT(kron_forget, c->n, (float)c->lambda, (float)c->d0, c->D)
static void kron_forget(kwm_device *d, int64_t n, float lambda, float d0, float *D) {
  CUDA_ASK(d, kron_forget, n, (double)lambda, (double)d0, D);
}

struct kron_diffuse_call {
  int64_t n;
  double q;
  float *D;
};
KEPT(kron_diffuse, c->n, (float)c->q, c->D)
static void kron_diffuse(kwm_device *d, int64_t n, float q, float *D) {
  CUDA_ASK(d, kron_diffuse, n, (double)q, D);
}

struct kron_pull_call {
  int64_t n;
  double share;
  const float *D, *mean;
  float *X;
};
KEPT(kron_pull, c->n, (float)c->share, c->D, c->mean, c->X)
static void kron_pull(kwm_device *d, int64_t n, float share, const float *D, const float *mean, float *X) {
  CUDA_ASK(d, kron_pull, n, (double)share, D, mean, X);
}

struct sum_inverse_call {
  int64_t n;
  const float *D;
  double *facts;
};
KEPT(sum_inverse, c->n, c->D, c->facts, &cuda_state_of(d)->scratch)
static void sum_inverse(kwm_device *d, int64_t n, const float *D, double *facts) {
  CUDA_ASK(d, sum_inverse, n, D, facts);
}

struct block_absorb_call {
  int64_t count, p;
  const double *M, *prior;
  const float *evidence;
  double *delta, *facts;
};
KEPT(block_absorb, c->count, c->p, c->M, c->prior, c->evidence, c->delta, c->facts)
static void block_absorb(kwm_device *d, int64_t count, int64_t p, const double *M, const double *prior,
                         const float *evidence, double *delta, double *facts) {
  CUDA_ASK(d, block_absorb, count, p, M, prior, evidence, delta, facts);
}

struct block_take_call {
  int64_t count, p;
  const float *evidence;
  double *M;
};
KEPT(block_take, c->count, c->p, c->evidence, c->M)
static void block_take(kwm_device *d, int64_t count, int64_t p, const float *evidence, double *M) {
  CUDA_ASK(d, block_take, count, p, evidence, M);
}

struct block_predict_call {
  int64_t count, p;
  double lambda, q;
  const double *prior;
  const float *anchor;
  double *M, *W;
  float *mean;
  double *facts;
};
KEPT(block_predict, c->count, c->p, c->lambda, c->q, c->prior, c->anchor, c->M, c->W, c->mean, c->facts)
static void block_predict(kwm_device *d, int64_t count, int64_t p, double lambda, double q, const double *prior,
                          const float *anchor, double *M, double *W, float *mean, double *facts) {
  CUDA_ASK(d, block_predict, count, p, lambda, q, prior, anchor, M, W, mean, facts);
}

static void block_trace(kwm_device *d, int64_t count, int64_t p, const double *M, double *facts) {
  CUDA_LAUNCH(d, block_trace, count, p, M, facts);
}

struct move_f64_call {
  int64_t n;
  double scale;
  const double *delta;
  float *mean;
};
KEPT(move_f64, c->n, c->scale, c->delta, c->mean)
static void move_f64(kwm_device *d, int64_t n, double scale, const double *delta, float *mean) {
  CUDA_ASK(d, move_f64, n, scale, delta, mean);
}

struct diag_absorb_call {
  int64_t wide, count, p, period;
  const double *prior;
  const float *evidence;
  const void *D;
  void *next;
  double *delta, *facts;
};
KEPT(diag_absorb, c->wide != 0, c->count, c->p, c->period, c->prior, c->evidence, c->D, c->next, c->delta, c->facts,
     &cuda_state_of(d)->scratch)
static void diag_absorb(kwm_device *d, bool wide, int64_t count, int64_t p, int64_t period, const double *prior,
                        const float *evidence, const void *D, void *next, double *delta, double *facts) {
  CUDA_ASK(d, diag_absorb, wide, count, p, period, prior, evidence, D, next, delta, facts);
}

struct diag_predict_call {
  int64_t wide, count, p, period;
  double lambda, q;
  const double *prior;
  const float *anchor;
  void *D;
  float *mean;
};
KEPT(diag_predict, c->wide != 0, c->count, c->p, c->period, c->lambda, c->q, c->prior, c->anchor, c->D, c->mean)
static void diag_predict(kwm_device *d, bool wide, int64_t count, int64_t p, int64_t period, double lambda, double q,
                         const double *prior, const float *anchor, void *D, float *mean) {
  CUDA_ASK(d, diag_predict, wide, count, p, period, lambda, q, prior, anchor, D, mean);
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
    .begin = cuda_flush,
    .wait = cuda_wait,
    .aside = cuda_aside,
    .rejoin = cuda_rejoin,
#ifdef KWM_NCCL
    .identity = cuda_identity,
    .join = cuda_join,
    .exchange = cuda_exchange,
#endif
    .sum_rooms = sum_rooms,
    .gemm = cuda_gemm,
    .eigen_wake = cuda_eigen_wake,
    .eigen_begin = cuda_eigen_begin,
    .eigen_end = cuda_eigen_end,
    .gemm_f64 = cuda_gemm_f64,
    .gram_f64 = cuda_gram_f64,
    .symm_f64 = cuda_symm_f64,
    .gemmt_f64 = cuda_gemmt_f64,
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
    .outer_rows = cuda_form_rows,
    .mirror_f64 = cuda_mirror_upper,
    .downdate_both = cuda_downdate_both,
    .outer_symm = cuda_outer_symm,
    .outer_share = cuda_outer_share,
    .add_diagonal = add_diagonal,
    .add_f64 = add_f64,
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
