/* Covariance structures under test: how to build one, step it, and read its state as a dense matrix. The state is read
   through a checkpoint, the one door that is documented. */
#pragma once

#include <unistd.h>

#include "jac_case.h"

#include "kwm/cov_ops.h"

/* One structure in one form, with the shape of its blocks: units (count, params) or a matrix (d_o, d_i). */
struct cov_shape {
  const char *structure;
  enum kwm_form form;
  enum kwm_real real;
  int64_t count, params, d_o, d_i;
  int64_t rank; /* lowrank */
  enum kwm_lowrank_kind kind;
};

enum { COV_SAMPLES = 4, COV_OUTPUTS = 3, COV_PARAMS_MAX = 16, COV_REFRESH = 100 };

/* Prior variances of a unit's parameters, spread over a factor of 10; a matrix has precision 2. */
static const double cov_prior_variance[COV_PARAMS_MAX] = {0.5, 1, 2, 0.3, 3, 1, 0.7, 0.4, 1.5, 2.5, 1, 1, 1, 1, 1, 1};
static const double cov_prior_precision = 2;

static inline bool cov_is_matrix(const struct cov_shape *shape) {
  return shape->d_o > 0;
}

static inline int64_t cov_numbers(const struct cov_shape *shape) {
  return shape->count * (cov_is_matrix(shape) ? shape->d_o * shape->d_i : shape->params);
}

static inline bool cov_is_lowrank(const struct cov_shape *shape) {
  return strcmp(shape->structure, "lowrank") == 0;
}

/* False for the form of lowrank that forgets whatever it learns. */
static inline bool cov_learns(const struct cov_shape *shape) {
  return !cov_is_lowrank(shape) || shape->kind != KWM_LOWRANK_COVARIANCE;
}

/* Relative accuracy of the numbers that the state is kept in. */
static inline double cov_accuracy(const struct cov_shape *shape) {
  return shape->real == KWM_REAL_FLOAT ? 2e-5 : 1e-11;
}

static inline struct kwm_cov_spec cov_spec_of(const struct cov_shape *shape, double forgetting, double process_noise) {
  const bool matrix = cov_is_matrix(shape);
  return (struct kwm_cov_spec){.name = "group",
                               .form = shape->form,
                               .real = shape->real,
                               .count = shape->count,
                               .total = shape->count > 0 ? shape->count : 1,
                               .params = matrix ? shape->d_o * shape->d_i : shape->params,
                               .d_o = shape->d_o,
                               .d_i = shape->d_i,
                               .prior_variance = matrix ? NULL : cov_prior_variance,
                               .prior_precision = matrix ? cov_prior_precision : 0,
                               .forgetting = forgetting,
                               .process_noise = process_noise,
                               .refresh = COV_REFRESH,
                               .rank = shape->rank,
                               .kind = shape->kind,
                               .seed = 3,
                               .n_max = COV_SAMPLES,
                               .m = COV_OUTPUTS};
}

static inline kwm_cov cov_new(const struct cov_shape *shape, double forgetting, double process_noise) {
  kwm_cov cov;
  const struct kwm_cov_ops *const ops = kwm_cov_find(shape->structure);
  assert_non_null(ops);
  const struct kwm_cov_spec spec = cov_spec_of(shape, forgetting, process_noise);
  const size_t before = kwm_mem_bytes();
  assert_ok(kwm_cov_create(&cov, ops, &spec));
  assert_int_equal(kwm_mem_bytes() - before, kwm_cov_bytes(ops, &spec));
  return cov;
}

/* Diagonal of the prior covariance. */
static inline double *cov_prior(const struct cov_shape *shape) {
  double *const prior = dense_new(cov_numbers(shape));
  for (int64_t k = 0; k < cov_numbers(shape); k++)
    prior[k] = cov_is_matrix(shape) ? 1 / cov_prior_precision : cov_prior_variance[k % shape->params];
  return prior;
}

static inline struct jac_case cov_jac(const struct cov_shape *shape, uint64_t stream) {
  return cov_is_matrix(shape) ? jac_outer(COV_SAMPLES, COV_OUTPUTS, shape->d_o, shape->d_i, stream)
                              : jac_units(COV_SAMPLES, COV_OUTPUTS, shape->count, shape->params, stream);
}

/* A step's scratch: evidence of the information form, S of the innovation form. */
struct cov_step {
  float *evidence;
  double *S, *w, kl[64];
};

static inline void cov_step_drop(struct cov_step *step) {
  free(step->evidence), free(step->S), free(step->w);
}

/* S -> its factor; w <- S⁻¹e. */
static inline void cov_factor(int64_t rows, double *S, const float *e, double *w) {
  double *const inverse = dense_copy(rows * rows, S);
  dense_cholesky(rows, S);
  dense_invert(rows, inverse);
  for (int64_t i = 0; i < rows; i++) {
    double sum = 0;
    for (int64_t j = 0; j < rows; j++) sum += inverse[i * rows + j] * (double)e[j];
    w[i] = sum;
  }
  free(inverse);
}

/* Everything of a step up to apply. The information form takes the samples in two chunks. */
static inline bool cov_prepare(kwm_cov *cov, const struct kwm_jac *jac, struct cov_step *step) {
  *step = (struct cov_step){0};
  if (cov->spec.form == KWM_FORM_INFORMATION) {
    step->evidence = calloc((size_t)kwm_cov_evidence_length(cov) + 1, sizeof *step->evidence);
    const int64_t half = jac->n / 2;
    const struct kwm_jac first = kwm_jac_part(jac, 0, half), second = kwm_jac_part(jac, half, jac->n - half);
    kwm_cov_evidence(cov, &first, step->evidence);
    kwm_cov_evidence(cov, &second, step->evidence);
    return kwm_cov_absorb(cov, jac, step->evidence, jac->n, step->kl);
  }
  const int64_t rows = jac->n * jac->m;
  step->S = dense_new(rows * rows);
  step->w = dense_new(rows);
  kwm_cov_project(cov, jac, step->S);
  for (int64_t k = 0; k < rows; k++) step->S[k * rows + k] += 1;
  cov_factor(rows, step->S, jac->e, step->w);
  return kwm_cov_condition(cov, jac, step->S, step->w);
}

/* A whole measurement update. */
static inline void cov_measure(kwm_cov *cov, const struct kwm_jac *jac, double scale, float *mean) {
  struct cov_step step;
  assert_true(cov_prepare(cov, jac, &step));
  kwm_cov_apply(cov, scale, mean);
  cov_step_drop(&step);
}

/* A finished checkpoint of cov alone in a fresh folder. */
struct cov_file {
  char dir[256];
  kwm_ckpt *ckpt;
};

static inline void cov_write(const kwm_cov *cov, struct cov_file *file) {
  const char *const base = getenv("TMPDIR");
  snprintf(file->dir, sizeof file->dir, "%s/kwm-cov-XXXXXX", base != NULL ? base : P_tmpdir);
  assert_non_null(mkdtemp(file->dir));
  assert_ok(kwm_ckpt_create(&file->ckpt, MPI_COMM_SELF, file->dir, 1));
  assert_ok(kwm_cov_save(cov, file->ckpt, true));
  assert_ok(kwm_ckpt_commit(&file->ckpt, 1));
  assert_ok(kwm_ckpt_open_newest(&file->ckpt, MPI_COMM_SELF, file->dir));
}

static inline void cov_file_drop(struct cov_file *file) {
  unlink(kwm_ckpt_path(file->ckpt));
  kwm_ckpt_close(&file->ckpt);
  assert_int_equal(rmdir(file->dir), 0);
}

/* An array of the checkpoint in double precision. */
static inline double *cov_read(struct cov_file *file, const char *leaf, enum kwm_type type, int n_dims,
                               const int64_t *dims) {
  char name[128];
  snprintf(name, sizeof name, "/cov/group/%s", leaf);
  int64_t length = 1;
  for (int d = 0; d < n_dims; d++) length *= dims[d];
  double *const array = dense_new(length);
  if (type == KWM_F64) {
    assert_ok(kwm_ckpt_get(file->ckpt, name, type, n_dims, dims, 0, dims[0], array));
    return array;
  }
  float *const narrow = calloc((size_t)length, sizeof *narrow);
  assert_ok(kwm_ckpt_get(file->ckpt, name, type, n_dims, dims, 0, dims[0], narrow));
  for (int64_t k = 0; k < length; k++) array[k] = (double)narrow[k];
  free(narrow);
  return array;
}

/* What a structure's state amounts to. */
struct cov_state {
  int64_t n;
  double *P;     /* (n, n) dense covariance */
  double *basis; /* (n, n) its vectors in columns; NULL but for kron */
  double *D;     /* (n) precision in the basis; NULL but for kron */
};

static inline void cov_state_drop(struct cov_state *state) {
  free(state->P), free(state->basis), free(state->D);
}

/* The type of the arrays that are kept in spec.real. */
static inline enum kwm_type cov_type(const kwm_cov *cov) {
  return cov->spec.real == KWM_REAL_FLOAT ? KWM_F32 : KWM_F64;
}

static inline void cov_read_diag(const kwm_cov *cov, struct cov_file *file, struct cov_state *state) {
  double *const D = cov_read(file, "precision", cov_type(cov), 2, (const int64_t[]){cov->spec.total, cov->spec.params});
  for (int64_t k = 0; k < state->n; k++) state->P[k * state->n + k] = 1 / D[k];
  free(D);
}

/* From the factor and the floor in z to P in the parameters' units. */
static inline void cov_read_lowrank(const kwm_cov *cov, struct cov_file *file, struct cov_state *state) {
  const int64_t n = state->n, r = cov->spec.rank < n ? cov->spec.rank : n;
  double *const factor = cov_read(file, "factor", cov_type(cov), 2, (const int64_t[]){n, r});
  const bool diagonal = cov->spec.kind == KWM_LOWRANK_DIAGONAL;
  double *const floor = diagonal ? cov_read(file, "diagonal", cov_type(cov), 1, (const int64_t[]){n})
                                 : cov_read(file, "floor", KWM_F64, 1, (const int64_t[]){1});
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = 0; j < n; j++) {
      double sum = i != j ? 0 : floor[diagonal ? i : 0];
      for (int64_t k = 0; k < r; k++) sum += factor[i * r + k] * factor[j * r + k];
      state->P[i * n + j] = sum;
    }
  if (diagonal || cov->spec.kind == KWM_LOWRANK_PRECISION) dense_invert(n, state->P);
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = 0; j < n; j++)
      state->P[i * n + j] *=
          cov->spec.d_o > 0
              ? 1 / cov->spec.prior_precision
              : sqrt(cov->spec.prior_variance[i % cov->spec.params] * cov->spec.prior_variance[j % cov->spec.params]);
  free(factor), free(floor);
}

/* Y (p, p) <- Y Yᵀ */
static inline void cov_square(int64_t p, double *Y) {
  double *const copy = dense_copy(p * p, Y), *const transposed = dense_new(p * p);
  dense_transpose(p, p, copy, transposed);
  dense_multiply(p, p, p, copy, transposed, Y);
  free(copy), free(transposed);
}

static inline void cov_read_block(const kwm_cov *cov, struct cov_file *file, struct cov_state *state) {
  const int64_t count = cov->spec.count, p = cov->spec.params, dims[3] = {cov->spec.total, p, p};
  const bool covariance = cov->spec.form == KWM_FORM_INNOVATION, factored = cov->spec.real == KWM_REAL_FLOAT;
  char leaf[32];
  snprintf(leaf, sizeof leaf, "%s%s", covariance ? "covariance" : "precision", factored ? "_factor" : "");
  double *const blocks = cov_read(file, leaf, cov_type(cov), 3, dims);
  for (int64_t b = 0; b < count; b++) {
    double *const block = blocks + b * p * p;
    if (factored) cov_square(p, block);
    if (!covariance) dense_invert(p, block);
    for (int64_t i = 0; i < p; i++)
      for (int64_t j = 0; j < p; j++) state->P[(b * p + i) * state->n + b * p + j] = block[i * p + j];
  }
  free(blocks);
}

static inline void cov_read_kron(const kwm_cov *cov, struct cov_file *file, struct cov_state *state) {
  const int64_t o = cov->spec.d_o, i = cov->spec.d_i, n = state->n;
  state->D = cov_read(file, "precision", cov_type(cov), 2, (const int64_t[]){o, i});
  double *const U = cov_read(file, "input_basis", cov_type(cov), 2, (const int64_t[]){i, i});
  double *const V = cov_read(file, "output_basis", cov_type(cov), 2, (const int64_t[]){o, o});
  state->basis = dense_new(n * n);
  for (int64_t row = 0; row < n; row++)
    for (int64_t k = 0; k < n; k++) state->basis[row * n + k] = V[row / i * o + k / i] * U[row % i * i + k % i];
  for (int64_t a = 0; a < n; a++)
    for (int64_t b = 0; b < n; b++)
      for (int64_t k = 0; k < n; k++)
        state->P[a * n + b] += state->basis[a * n + k] * state->basis[b * n + k] / state->D[k];
  free(U), free(V);
}

static inline struct cov_state cov_state_of(const kwm_cov *cov) {
  struct cov_file file;
  struct cov_state state = {.n = cov->spec.count * cov->spec.params};
  state.P = dense_new(state.n * state.n);
  cov_write(cov, &file);
  if (cov->ops == &kwm_cov_kron) cov_read_kron(cov, &file, &state);
  if (cov->ops == &kwm_cov_block) cov_read_block(cov, &file, &state);
  if (cov->ops == &kwm_cov_diag) cov_read_diag(cov, &file, &state);
  if (cov->ops == &kwm_cov_lowrank) cov_read_lowrank(cov, &file, &state);
  cov_file_drop(&file);
  return state;
}

/* Bit for bit, as far as two states show themselves. */
static inline bool cov_same_state(const struct cov_state *a, const struct cov_state *b) {
  const size_t n = (size_t)a->n;
  if (a->n != b->n || memcmp(a->P, b->P, n * n * sizeof *a->P) != 0) return false;
  if (a->D == NULL) return true;
  return memcmp(a->D, b->D, n * sizeof *a->D) == 0 && memcmp(a->basis, b->basis, n * n * sizeof *a->basis) == 0;
}
