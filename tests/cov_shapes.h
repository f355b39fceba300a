/* Every covariance structure in every form and real that it has, for tests of what they all promise; and states and
   inputs to start such tests from. */
#pragma once

#include "lowrank_case.h"

#define COV_WAYS(...)                                                                                                  \
  {.form = KWM_FORM_INFORMATION, .real = KWM_REAL_DOUBLE, __VA_ARGS__},                                                \
      {.form = KWM_FORM_INFORMATION, .real = KWM_REAL_FLOAT, __VA_ARGS__},                                             \
      {.form = KWM_FORM_INNOVATION, .real = KWM_REAL_DOUBLE, __VA_ARGS__}, {                                           \
    .form = KWM_FORM_INNOVATION, .real = KWM_REAL_FLOAT, __VA_ARGS__                                                   \
  }
#define COV_UNITS .count = 16, .params = 3
#define COV_MATRIX .count = 1, .d_o = 3, .d_i = 5
#define COV_LOWRANK(of, columns) .structure = "lowrank", .kind = KWM_LOWRANK_##of, .rank = columns

static const struct cov_shape cov_shapes[] = {
    COV_WAYS(.structure = "block", COV_UNITS),        COV_WAYS(.structure = "block", COV_MATRIX),
    COV_WAYS(.structure = "kron", COV_MATRIX),        COV_WAYS(.structure = "diag", COV_UNITS),
    COV_WAYS(.structure = "diag", COV_MATRIX),        COV_WAYS(COV_LOWRANK(PRECISION, 48), COV_UNITS),
    COV_WAYS(COV_LOWRANK(COVARIANCE, 7), COV_UNITS),  COV_WAYS(COV_LOWRANK(SUBSPACE, 48), COV_UNITS),
    COV_WAYS(COV_LOWRANK(PRECISION, 15), COV_MATRIX), COV_WAYS(COV_LOWRANK(COVARIANCE, 4), COV_MATRIX),
    COV_WAYS(COV_LOWRANK(SUBSPACE, 99), COV_MATRIX),  COV_WAYS(COV_LOWRANK(DIAGONAL, 48), COV_UNITS),
    COV_WAYS(COV_LOWRANK(DIAGONAL, 15), COV_MATRIX),
};
enum { COV_SHAPES = sizeof cov_shapes / sizeof cov_shapes[0], COV_WARM = 3, COV_ROWS = COV_SAMPLES * COV_OUTPUTS };

/* The shape in hand, for the message of a test that fails. */
static const struct cov_shape *cov_shape_now;

static inline void cov_each_of(const struct cov_shape *shapes, int n, void (*check)(const struct cov_shape *shape)) {
  for (int s = 0; s < n; s++) {
    cov_shape_now = &shapes[s];
    check(cov_shape_now);
  }
  cov_shape_now = NULL;
}

/* Teardown of a test that walks over shapes. */
static inline int cov_tell(void **state) {
  static const char *const kinds[] = {"precision", "covariance", "subspace", "diagonal"};
  (void)state;
  const struct cov_shape *const at = cov_shape_now;
  if (at != NULL)
    print_error("%s %s, %s, %s, count %d params %d, matrix %d x %d, rank %d\n", at->structure,
                cov_is_lowrank(at) ? kinds[at->kind] : "",
                at->form == KWM_FORM_INFORMATION ? "information" : "innovation",
                at->real == KWM_REAL_FLOAT ? "float" : "double", (int)at->count, (int)at->params, (int)at->d_o,
                (int)at->d_i, (int)at->rank);
  cov_shape_now = NULL;
  return 0;
}

/* name walks over all shapes with check_name. */
#define COV_TEST(name)                                                                                                 \
  static void test_##name(void **state) {                                                                              \
    (void)state;                                                                                                       \
    cov_each_of(cov_shapes, COV_SHAPES, check_##name);                                                                 \
  }
#define cov_unit_test(name) cmocka_unit_test_teardown(test_##name, cov_tell)

static inline double cov_either(const struct cov_shape *shape, double in_double, double in_float) {
  return shape->real == KWM_REAL_DOUBLE ? in_double : in_float;
}

/* A float for every parameter, zero. */
static inline float *cov_zeros(const struct cov_shape *shape) {
  float *const mean = calloc((size_t)cov_numbers(shape) + 1, sizeof *mean);
  assert_non_null(mean);
  return mean;
}

/* A covariance some steps old: neither its prior nor in its first basis. Anchored at zero. */
static inline kwm_cov cov_warm(const struct cov_shape *shape, double forgetting, double process_noise, float *mean) {
  kwm_cov cov = cov_new(shape, forgetting, process_noise);
  float *const anchor = cov_zeros(shape);
  for (int64_t step = 0; step < COV_WARM; step++) {
    struct jac_case made = cov_jac(shape, (uint64_t)(500 + step));
    assert_true(kwm_cov_predict(&cov, step, anchor, mean));
    cov_measure(&cov, &made.jac, 1, mean);
    jac_drop(&made);
  }
  free(anchor);
  return cov;
}

/* The same, but form A of lowrank, which forgets what it learns from its prior, with columns that it can learn on. */
static inline kwm_cov cov_ready(const struct cov_shape *shape, double forgetting, double process_noise, float *mean) {
  static const double lengths[4] = {2, 1, 0.5, 0.25};
  if (cov_learns(shape)) return cov_warm(shape, forgetting, process_noise, mean);
  kwm_cov cov = cov_new(shape, forgetting, process_noise);
  lowrank_plant(&cov, 0.1, 4, lengths);
  return cov;
}

/* P (n, n), dense. */
static inline double *cov_dense(const kwm_cov *cov) {
  const int64_t n = cov->spec.count * cov->spec.params;
  double *const P = dense_new(n * n);
  assert_true(kwm_cov_covariance(cov, P));
  return P;
}

static inline int64_t cov_J_numbers(const struct kwm_jac *jac) {
  return jac->n * jac->m * (jac->shape == KWM_JAC_OUTER ? jac->d_o : jac->channels * jac->count);
}

/* H <- factor H */
static inline void cov_scale_jac(struct jac_case *made, float factor) {
  for (int64_t k = 0; k < cov_J_numbers(&made->jac); k++) made->J[k] *= factor;
}

/* Multiples of 1/8, at most 2 (J: `most`): sums of their products are exact in float. */
static inline void cov_few_bits(struct jac_case *made, float most) {
  const struct kwm_jac *const jac = &made->jac;
  struct {
    float *at;
    int64_t n;
    float most;
  } const arrays[] = {
      {made->J, cov_J_numbers(jac), most},
      {made->S, jac->shape == KWM_JAC_UNITS ? jac->n * jac->channels * jac->params * jac->count : 0, 2},
      {made->a, jac->shape == KWM_JAC_OUTER ? jac->n * jac->d_i : 0, 2},
      {made->e, jac->n * jac->m, 2},
  };
  for (size_t a = 0; a < sizeof arrays / sizeof arrays[0]; a++)
    for (int64_t k = 0; k < arrays[a].n; k++) {
      const float value = roundf(4 * arrays[a].most * arrays[a].at[k]) / 8;
      arrays[a].at[k] = fmaxf(-arrays[a].most, fminf(arrays[a].most, value));
    }
}

/* K (n, rows) <- P Hᵀ (H P Hᵀ + I)⁻¹ */
static inline double *dense_gain(int64_t n, int64_t rows, const double *P, const double *H) {
  double *const S = dense_new(rows * rows), *const Ht = dense_new(n * rows), *const PHt = dense_new(n * rows);
  double *const K = dense_new(n * rows);
  dense_innovation_covariance(n, rows, P, H, S);
  dense_invert(rows, S);
  dense_transpose(rows, n, H, Ht);
  dense_multiply(n, rows, n, P, Ht, PHt);
  dense_multiply(n, rows, rows, PHt, S, K);
  free(S), free(Ht), free(PHt);
  return K;
}

/* Structures that are the exact filter. */
static const struct cov_shape exact_shapes[] = {
    {.structure = "block", .form = KWM_FORM_INNOVATION, .real = KWM_REAL_DOUBLE, .count = 1, .params = 10},
    {.structure = "block", .form = KWM_FORM_INNOVATION, .real = KWM_REAL_FLOAT, .count = 1, .params = 10},
    COV_WAYS(.structure = "block", COV_MATRIX),
    COV_WAYS(COV_LOWRANK(PRECISION, 15), COV_MATRIX),
    COV_WAYS(COV_LOWRANK(PRECISION, 30), .count = 10, .params = 3),
    COV_WAYS(COV_LOWRANK(SUBSPACE, 15), COV_MATRIX),
    COV_WAYS(COV_LOWRANK(SUBSPACE, 30), .count = 10, .params = 3),
    COV_WAYS(COV_LOWRANK(DIAGONAL, 15), COV_MATRIX),
    COV_WAYS(COV_LOWRANK(DIAGONAL, 30), .count = 10, .params = 3),
};
enum { EXACT_SHAPES = sizeof exact_shapes / sizeof exact_shapes[0] };

#define EXACT_TEST(name)                                                                                               \
  static void test_##name(void **state) {                                                                              \
    (void)state;                                                                                                       \
    cov_each_of(exact_shapes, EXACT_SHAPES, check_##name);                                                             \
  }

/* Moderate rows with few bits: after some of them κ(P) is below 100. */
static inline struct jac_case cov_mild_jac(const struct cov_shape *shape, uint64_t stream) {
  struct jac_case made = cov_jac(shape, stream);
  cov_few_bits(&made, 0.5f);
  return made;
}

/* A covariance after one mild step. */
static inline kwm_cov cov_mild(const struct cov_shape *shape, float *mean) {
  kwm_cov cov = cov_new(shape, 1, 0);
  struct jac_case made = cov_mild_jac(shape, 800);
  cov_measure(&cov, &made.jac, 1, mean);
  jac_drop(&made);
  return cov;
}

/* K (n, rows) of a structure, a column from each unit innovation; the steps are given up. */
static inline double *cov_gain(kwm_cov *cov, const struct kwm_jac *jac) {
  const int64_t n = cov->spec.count * cov->spec.params, rows = jac->n * jac->m;
  double *const K = dense_new(n * rows), *const delta = dense_new(n);
  float e[COV_ROWS] = {0};
  struct kwm_jac probe = *jac;
  probe.e = e;
  for (int64_t row = 0; row < rows; row++) {
    struct cov_step step;
    e[row] = 1;
    assert_true(cov_prepare(cov, &probe, &step));
    kwm_cov_delta(cov, delta);
    for (int64_t k = 0; k < n; k++) K[k * rows + row] = delta[k];
    e[row] = 0;
    cov_step_drop(&step);
  }
  free(delta);
  return K;
}

/* w <- S⁻¹e; S -> its factor. */
static inline void cov_factor_f64(int64_t rows, double *S, const double *e, double *w) {
  double *const inverse = dense_copy(rows * rows, S);
  dense_invert(rows, inverse);
  dense_multiply(rows, 1, rows, inverse, e, w);
  dense_cholesky(rows, S);
  free(inverse);
}

/* A measurement with innovations in double: exact in the innovation form, rounded to float in the information form. */
static inline void cov_measure_f64(kwm_cov *cov, const struct kwm_jac *jac, const double *e, float *mean,
                                   double *delta) {
  const int64_t rows = jac->n * jac->m;
  float narrow[COV_ROWS];
  struct kwm_jac with = *jac;
  struct cov_step step = {0};
  for (int64_t k = 0; k < rows; k++) narrow[k] = (float)e[k];
  with.e = narrow;
  if (cov->spec.form == KWM_FORM_INNOVATION) {
    double S[COV_ROWS * COV_ROWS] = {0}, w[COV_ROWS];
    kwm_cov_project(cov, &with, S);
    for (int64_t k = 0; k < rows; k++) S[k * rows + k] += 1;
    cov_factor_f64(rows, S, e, w);
    assert_true(kwm_cov_condition(cov, &with, S, w));
  } else {
    assert_true(cov_prepare(cov, &with, &step));
  }
  kwm_cov_delta(cov, delta);
  kwm_cov_apply(cov, 1, mean);
  cov_step_drop(&step);
}
