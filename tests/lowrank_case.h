/* `lowrank` under test: handmade states, and what a step of it should do, by eigenvalues of dense matrices. */
#pragma once

#include "cov_case.h"

#include "kwm/backend.h"

static inline struct cov_shape lowrank_units(enum kwm_lowrank_kind kind, int64_t rank) {
  return (struct cov_shape){
      .structure = "lowrank", .form = KWM_FORM_INNOVATION, .count = 16, .params = 3, .rank = rank, .kind = kind};
}

static inline struct cov_shape lowrank_matrix(enum kwm_lowrank_kind kind, int64_t rank, int64_t d_o, int64_t d_i) {
  return (struct cov_shape){.structure = "lowrank",
                            .form = KWM_FORM_INNOVATION,
                            .count = 1,
                            .d_o = d_o,
                            .d_i = d_i,
                            .rank = rank,
                            .kind = kind};
}

/* The same in another form and another real. */
static inline struct cov_shape lowrank_as(struct cov_shape shape, enum kwm_form form, enum kwm_real real) {
  shape.form = form, shape.real = real;
  return shape;
}

/* Way w of the four in which a shape can be run: both forms, both reals. */
enum { LOWRANK_WAYS = 4 };
static inline struct cov_shape lowrank_way(struct cov_shape shape, int w) {
  return lowrank_as(shape, w % 2 == 0 ? KWM_FORM_INNOVATION : KWM_FORM_INFORMATION,
                    w / 2 == 0 ? KWM_REAL_DOUBLE : KWM_REAL_FLOAT);
}

/* For P and δ against the dense filter. */
static inline double lowrank_close(const struct cov_shape *shape) {
  return shape->real == KWM_REAL_DOUBLE ? 1e-10 : 5e-5;
}

static inline double *dense_diagonal(int64_t n, const double *values) {
  double *const P = dense_new(n * n);
  for (int64_t k = 0; k < n; k++) P[k * n + k] = values[k];
  return P;
}

/* P (n, n) <- D P D for D = diag(prior^power). */
static inline void lowrank_scale(int64_t n, double *P, const double *prior, double power) {
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = 0; j < n; j++) P[i * n + j] *= pow(prior[i] * prior[j], power);
}

/* values (n) descending and E (n, n) their vectors in rows. */
static inline void dense_spectrum(int64_t n, const double *A, double *values, double *E) {
  double *const copy = dense_copy(n * n, A), *const V = dense_new(n * n);
  dense_eigenvectors(n, copy, V);
  for (int64_t rank = 0; rank < n; rank++) {
    int64_t best = 0;
    for (int64_t k = 0; k < n; k++)
      if (copy[k * n + k] > copy[best * n + best]) best = k;
    values[rank] = copy[best * n + best];
    copy[best * n + best] = -INFINITY;
    for (int64_t i = 0; i < n; i++) E[rank * n + i] = V[i * n + best];
  }
  free(copy), free(V);
}

static inline double dense_smallest(int64_t n, const double *A) {
  double *const values = dense_new(n), *const E = dense_new(n * n);
  dense_spectrum(n, A, values, E);
  const double smallest = values[n - 1];
  free(values), free(E);
  return smallest;
}

/* λ_min(A - B) */
static inline double dense_excess(int64_t n, const double *A, const double *B) {
  double *const difference = dense_copy(n * n, A);
  for (int64_t k = 0; k < n * n; k++) difference[k] -= B[k];
  const double smallest = dense_smallest(n, difference);
  free(difference);
  return smallest;
}

/* P⁺ (n, n) <- its conservative compression to r columns: of Λ (form B) or P (form A) in z the r largest eigenvalues
   stay if they are above the floor, all others become the floor. */
static inline void dense_compress(int64_t n, double *P, const double *prior, enum kwm_lowrank_kind kind, int64_t r,
                                  double floor) {
  double *const values = dense_new(n), *const E = dense_new(n * n);
  lowrank_scale(n, P, prior, -0.5);
  if (kind == KWM_LOWRANK_PRECISION) dense_invert(n, P);
  dense_spectrum(n, P, values, E);
  for (int64_t k = 0; k < n; k++) values[k] = k < r ? fmax(values[k], floor) : floor;
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = 0; j < n; j++) {
      double sum = 0;
      for (int64_t k = 0; k < n; k++) sum += E[k * n + i] * values[k] * E[k * n + j];
      P[i * n + j] = sum;
    }
  if (kind == KWM_LOWRANK_PRECISION) dense_invert(n, P);
  lowrank_scale(n, P, prior, 0.5);
  free(values), free(E);
}

/* d (n) of kind diagonal. */
static inline double *lowrank_d(const kwm_cov *cov) {
  struct cov_file file;
  cov_write(cov, &file);
  double *const d =
      cov_read(&file, "diagonal", cov_type(cov), 1, (const int64_t[]){cov->spec.count * cov->spec.params});
  cov_file_drop(&file);
  return d;
}

/* Kind diagonal: of the first parameter. */
static inline double lowrank_floor(const kwm_cov *cov) {
  if (cov->spec.kind == KWM_LOWRANK_DIAGONAL) {
    double *const d = lowrank_d(cov), first = d[0];
    free(d);
    return first;
  }
  struct cov_file file;
  cov_write(cov, &file);
  double *const floor = cov_read(&file, "floor", KWM_F64, 1, (const int64_t[]){1}), value = floor[0];
  free(floor), cov_file_drop(&file);
  return value;
}

/* The floor into a checkpoint, as kind diagonal keeps it or as all others do. */
static inline void lowrank_plant_floor(const kwm_cov *cov, kwm_ckpt *ckpt, double floor) {
  const int64_t n = cov->spec.count * cov->spec.params;
  const bool diagonal = cov->spec.kind == KWM_LOWRANK_DIAGONAL, narrow = diagonal && cov->spec.real == KWM_REAL_FLOAT;
  double *const d = dense_new(n);
  float *const d_f32 = calloc((size_t)n, sizeof *d_f32);
  for (int64_t k = 0; k < n; k++) d[k] = floor, d_f32[k] = (float)floor;
  assert_ok(kwm_ckpt_put(ckpt, diagonal ? "/cov/group/diagonal" : "/cov/group/floor", narrow ? KWM_F32 : KWM_F64, 1,
                         (const int64_t[]){diagonal ? n : 1}, 0, diagonal ? n : 1, narrow ? (void *)d_f32 : (void *)d));
  free(d), free(d_f32);
}

/* Loads a state with `used` orthogonal columns of squared lengths lengths[0..used) in random directions. */
static inline void lowrank_plant(kwm_cov *cov, double floor, int64_t used, const double *lengths) {
  const int64_t n = cov->spec.count * cov->spec.params, r = cov->spec.rank < n ? cov->spec.rank : n;
  const bool narrow = cov->spec.real == KWM_REAL_FLOAT;
  double *const factor = dense_new(n * r);
  float *const factor_f32 = calloc((size_t)(n * r), sizeof *factor_f32);
  double *const A = dense_new(n * n), *const values = dense_new(n), *const E = dense_new(n * n);
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = 0; j <= i; j++) A[i * n + j] = A[j * n + i] = test_normal(99, i * n + j);
  dense_spectrum(n, A, values, E);
  for (int64_t j = 0; j < used; j++)
    for (int64_t i = 0; i < n; i++) factor[i * r + j] = sqrt(lengths[j]) * E[j * n + i];
  for (int64_t k = 0; k < n * r; k++) factor_f32[k] = (float)factor[k];
  struct cov_file file;
  const char *const base = getenv("TMPDIR");
  snprintf(file.dir, sizeof file.dir, "%s/kwm-cov-XXXXXX", base != NULL ? base : P_tmpdir);
  assert_non_null(mkdtemp(file.dir));
  assert_ok(kwm_ckpt_create(&file.ckpt, MPI_COMM_SELF, file.dir, 1));
  assert_ok(kwm_ckpt_put(file.ckpt, "/cov/group/factor", cov_type(cov), 2, (const int64_t[]){n, r}, 0, n,
                         narrow ? (void *)factor_f32 : (void *)factor));
  lowrank_plant_floor(cov, file.ckpt, floor);
  assert_ok(kwm_ckpt_put_i64(file.ckpt, "/cov/group", "kind", cov->spec.kind));
  assert_ok(kwm_ckpt_commit(&file.ckpt, 1));
  assert_ok(kwm_ckpt_open_newest(&file.ckpt, MPI_COMM_SELF, file.dir));
  assert_ok(kwm_cov_load(cov, file.ckpt));
  cov_file_drop(&file);
  free(factor), free(factor_f32), free(A), free(values), free(E);
}

/* KL(N(0, P) || N(0, Q)) */
static inline double dense_kl(int64_t n, const double *P, const double *Q) {
  double *const A = dense_copy(n * n, P), *const B = dense_copy(n * n, Q), *const M = dense_new(n * n), logs = 0;
  dense_cholesky(n, A);
  dense_cholesky(n, B);
  for (int64_t k = 0; k < n; k++) logs += 2 * log(B[k * n + k] / A[k * n + k]);
  memcpy(B, Q, (size_t)(n * n) * sizeof *B);
  dense_invert(n, B);
  dense_multiply(n, n, n, B, P, M);
  const double kl = 0.5 * (dense_trace(n, M) - (double)n + logs);
  free(A), free(B), free(M);
  return kl;
}

/* A measurement with the dense filter: P (n, n) and delta (n) from jac. */
static inline void dense_measure(int64_t n, double *P, const struct kwm_jac *jac, double *delta) {
  double *const H = jac_rows(jac), *const e = jac_innovation(jac);
  dense_update(n, jac->n * jac->m, P, H, e, delta);
  free(H), free(e);
}

/* Forgetting with its pull of the mean, then process noise, of the dense filter. */
static inline void dense_time(int64_t n, double *P, const double *prior, double lambda, double q, const float *anchor,
                              double *mean) {
  double *const pull = dense_new(n);
  dense_predict(n, P, prior, lambda, 0);
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = 0; j < n; j++) pull[i] += (1 - lambda) * P[i * n + j] / prior[j] * ((double)anchor[j] - mean[j]);
  for (int64_t i = 0; i < n; i++) mean[i] += pull[i], P[i * n + i] += q * prior[i];
  free(pull);
}

/* A measurement update that also gives δ. */
static inline void lowrank_measure(kwm_cov *cov, const struct kwm_jac *jac, float *mean, double *delta) {
  struct cov_step step;
  assert_true(cov_prepare(cov, jac, &step));
  kwm_cov_delta(cov, delta);
  kwm_cov_apply(cov, 1, mean);
  cov_step_drop(&step);
}

/* Normal numbers, to be pulled towards. */
static inline void lowrank_anchor(int64_t n, float *anchor) {
  for (int64_t k = 0; k < n; k++) anchor[k] = (float)test_normal(77, k);
}
