/* The distributed full covariance under test: one dealt to ranks in several ways, its steps, its state as the filter
   sees it and as it is saved. */
#pragma once

#include "ckpt_files.h"

#include "dense.h"
#include "kwm/full.h"

enum { DEALS = 5, SEGMENTS = 64 };
static const double same = 1e-10;

struct fixture {
  kwm_full *full;
  MPI_Comm comm;
  int size, me;
  int64_t n, n_local, n_segments;
  struct kwm_full_segment segments[SEGMENTS];
  int64_t *place; /* (n_local) canonical index of each local parameter */
  enum kwm_real real;
  double *prior; /* (n) */
  float *mean;   /* (n_local) */
  size_t before; /* bytes held before it was made */
};

static inline int owner_of(int deal, int size, int64_t n, int64_t g) {
  if (deal == 0) return (int)(g * size / n);            /* equal parts */
  if (deal == 1) return g < n / 12 ? 0 : size - 1;      /* little and much; nothing for those between */
  if (deal == 2) return (int)(g / (n / 29 + 1) % size); /* stripes: many segments */
  if (deal == 3) return size - 1;                       /* all on the last */
  return size - 1 - (int)(g * size / n);                /* in reverse */
}

static inline double prior_of(int64_t g) {
  return 0.2 + 0.1 * (double)(g * 7 % 23);
}

/* A covariance kept in `real`; in float, able to predict. */
static inline kwm_status make_real(struct fixture *f, enum kwm_real real, MPI_Comm comm, int deal, int64_t n,
                                   int64_t rows_max, int64_t block) {
  *f = (struct fixture){.comm = comm, .n = n, .real = real};
  MPI_Comm_size(comm, &f->size);
  MPI_Comm_rank(comm, &f->me);
  f->place = calloc((size_t)n, sizeof *f->place);
  for (int64_t g = 0; g < n; g++) {
    if (owner_of(deal, f->size, n, g) != f->me) continue;
    const bool goes_on = f->n_local > 0 && f->place[f->n_local - 1] == g - 1;
    if (!goes_on) f->segments[f->n_segments++] = (struct kwm_full_segment){g, 0};
    f->segments[f->n_segments - 1].count++;
    f->place[f->n_local++] = g;
  }
  f->prior = dense_new(n);
  f->mean = calloc((size_t)n, sizeof *f->mean);
  double *const mine = dense_new(n);
  for (int64_t g = 0; g < n; g++) f->prior[g] = prior_of(g);
  for (int64_t k = 0; k < f->n_local; k++) {
    mine[k] = f->prior[f->place[k]];
    f->mean[k] = (float)test_normal(50, f->place[k]);
  }
  const struct kwm_full_spec spec = {.comm = comm,
                                     .n = n,
                                     .n_segments = f->n_segments,
                                     .segments = f->segments,
                                     .prior_variance = mine,
                                     .rows_max = rows_max,
                                     .block = block,
                                     .real = real,
                                     .dynamics = true};
  f->before = kwm_mem_bytes();
  const kwm_status status = kwm_full_create(&f->full, &spec);
  const size_t held = kwm_mem_bytes() - f->before;
  assert_all(held == (status == KWM_OK ? kwm_full_bytes(&spec, f->size, f->me, f->n_local) : 0));
  free(mine);
  return status;
}

static inline kwm_status make(struct fixture *f, MPI_Comm comm, int deal, int64_t n, int64_t rows_max, int64_t block) {
  return make_real(f, KWM_REAL_DOUBLE, comm, deal, n, rows_max, block);
}

static inline void drop(struct fixture *f) {
  kwm_full_destroy(&f->full);
  assert_null(f->full);
  kwm_full_destroy(&f->full);
  free(f->place), free(f->prior), free(f->mean);
  assert_all(kwm_mem_bytes() == f->before);
}

/* all (n) <- the ranks' local values. */
static inline void join(const struct fixture *f, const double *mine, double *all) {
  for (int64_t g = 0; g < f->n; g++) all[g] = 0;
  for (int64_t k = 0; k < f->n_local; k++) all[f->place[k]] = mine[k];
  MPI_Allreduce(MPI_IN_PLACE, all, (int)f->n, MPI_DOUBLE, MPI_SUM, f->comm);
}

/* H (rows, n), exact in float. */
static inline double *jacobian(uint64_t step, int64_t rows, int64_t n) {
  double *const H = dense_new(rows * n);
  for (int64_t k = 0; k < rows * n; k++) H[k] = (double)(float)(0.4 * test_normal(100 + step, k));
  return H;
}

static inline float *local_columns(const struct fixture *f, int64_t rows, const double *H) {
  float *const mine = calloc((size_t)(rows * f->n_local + 1), sizeof *mine);
  for (int64_t r = 0; r < rows; r++)
    for (int64_t k = 0; k < f->n_local; k++) mine[r * f->n_local + k] = (float)H[r * f->n + f->place[k]];
  return mine;
}

/* S (rows, rows) += H P Hᵀ */
static inline void project(struct fixture *f, int64_t rows, const double *H, double *S) {
  float *const mine = local_columns(f, rows, H);
  kwm_full_project(f->full, rows, mine, S);
  free(mine);
}

/* P (n, n) as the filter sees it: H = I. */
static inline double *seen(struct fixture *f) {
  double *const H = dense_new(f->n * f->n), *const P = dense_new(f->n * f->n);
  for (int64_t k = 0; k < f->n; k++) H[k * f->n + k] = 1;
  project(f, f->n, H, P);
  free(H);
  return P;
}

/* Y (n, n) as it is saved, widened; in double P. */
static inline double *saved_state(struct fixture *f) {
  const int64_t dims[2] = {f->n, f->n};
  char *dir = make_dir();
  double *const P = dense_new(f->n * f->n);
  float *const Y = calloc((size_t)(f->n * f->n), sizeof *Y);
  kwm_ckpt *ckpt;
  assert_ok(kwm_ckpt_create(&ckpt, MPI_COMM_WORLD, dir, 1));
  assert_ok(kwm_full_save(f->full, ckpt, true));
  assert_ok(kwm_ckpt_commit(&ckpt, 1));
  assert_ok(kwm_ckpt_open(&ckpt, MPI_COMM_WORLD, step_path(dir, 1)));
  if (f->real == KWM_REAL_FLOAT)
    assert_ok(kwm_ckpt_get(ckpt, "/cov/full/covariance_factor", KWM_F32, 2, dims, 0, f->n, Y));
  else
    assert_ok(kwm_ckpt_get(ckpt, "/cov/full/covariance", KWM_F64, 2, dims, 0, f->n, P));
  kwm_ckpt_close(&ckpt);
  for (int64_t k = 0; f->real == KWM_REAL_FLOAT && k < f->n * f->n; k++) P[k] = (double)Y[k];
  free(Y);
  drop_dir(dir);
  return P;
}

/* P (n, n) as it is saved, formed from Y in float. */
static inline double *saved(struct fixture *f) {
  double *const Y = saved_state(f);
  if (f->real == KWM_REAL_DOUBLE) return Y;
  double *const Yt = dense_new(f->n * f->n), *const P = dense_new(f->n * f->n);
  dense_transpose(f->n, f->n, Y, Yt);
  dense_multiply(f->n, f->n, f->n, Y, Yt, P);
  free(Y), free(Yt);
  return P;
}

static inline bool same_bits(int64_t n, const double *a, const double *b) {
  return memcmp(a, b, (size_t)n * sizeof *a) == 0;
}

/* L <- factor of S + I, w <- (S + I)⁻¹e. */
static inline void solve(int64_t rows, const double *S, const double *e, double *L, double *w) {
  double *const inverse = dense_copy(rows * rows, S);
  for (int64_t k = 0; k < rows; k++) inverse[k * rows + k] += 1;
  memcpy(L, inverse, (size_t)(rows * rows) * sizeof *L);
  dense_cholesky(rows, L);
  dense_invert(rows, inverse);
  dense_multiply(rows, 1, rows, inverse, e, w);
  free(inverse);
}

struct step {
  int64_t rows;
  double *H, *e, *S, *L, *w;
};

/* Projects and conditions step t. */
static inline struct step prepare(struct fixture *f, uint64_t t, int64_t rows, double e_scale, bool *good) {
  struct step step = {
      rows, jacobian(t, rows, f->n), dense_new(rows), dense_new(rows * rows), dense_new(rows * rows), dense_new(rows)};
  for (int64_t k = 0; k < rows; k++) step.e[k] = e_scale * test_normal(200 + t, k);
  project(f, rows, step.H, step.S);
  solve(rows, step.S, step.e, step.L, step.w);
  *good = kwm_full_condition(f->full, rows, step.L, step.w);
  return step;
}

static inline void drop_step(struct step *step) {
  free(step->H), free(step->e), free(step->S), free(step->L), free(step->w);
}

/* f's P, in float Y, <- X (n, n), through a checkpoint. */
static inline void put_state(struct fixture *f, const double *X) {
  const int64_t dims[2] = {f->n, f->n}, mine = rank() == 0 ? f->n : 0;
  char *dir = make_dir();
  float *const Y = calloc((size_t)(f->n * f->n), sizeof *Y);
  kwm_ckpt *ckpt;
  for (int64_t k = 0; k < f->n * f->n; k++) Y[k] = (float)X[k];
  assert_ok(kwm_ckpt_create(&ckpt, MPI_COMM_WORLD, dir, 1));
  if (f->real == KWM_REAL_FLOAT)
    assert_ok(kwm_ckpt_put(ckpt, "/cov/full/covariance_factor", KWM_F32, 2, dims, 0, mine, Y));
  else
    assert_ok(kwm_ckpt_put(ckpt, "/cov/full/covariance", KWM_F64, 2, dims, 0, mine, X));
  assert_ok(kwm_ckpt_commit(&ckpt, 1));
  assert_ok(kwm_ckpt_open(&ckpt, MPI_COMM_WORLD, step_path(dir, 1)));
  assert_ok(kwm_full_load(f->full, ckpt));
  kwm_ckpt_close(&ckpt);
  free(Y);
  drop_dir(dir);
}

/* Time update that must succeed, with the mean as its own anchor. */
static inline void age(struct fixture *f, double lambda, double q) {
  float *const anchor = calloc((size_t)f->n, sizeof *anchor);
  memcpy(anchor, f->mean, (size_t)f->n_local * sizeof *anchor);
  assert_all(kwm_full_predict(f->full, lambda, q, anchor, f->mean));
  assert_all(memcmp(anchor, f->mean, (size_t)f->n_local * sizeof *anchor) == 0);
  free(anchor);
}

/* Step t: time update, ten rows. */
static inline void advance(struct fixture *f, uint64_t t) {
  bool good;
  age(f, 0.98, 0.001);
  struct step step = prepare(f, t, 10, 1, &good);
  assert_all(good);
  kwm_full_apply(f->full, 1, f->mean);
  drop_step(&step);
}
