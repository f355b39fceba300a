/* The covariance of the outputs, H_i P H_iᵀ of every sample, against dense rows and the dense P of the same state. */
#include "cov_case.h"

enum { O = 3, I_ = 5, UNITS = 16, PARAMS = 4, WARM = 7 };

static struct cov_shape matrix(const char *structure, enum kwm_form form, enum kwm_real real) {
  return (struct cov_shape){.structure = structure, .form = form, .real = real, .count = 1, .d_o = O, .d_i = I_};
}

static struct cov_shape units(const char *structure, enum kwm_form form, enum kwm_real real) {
  return (struct cov_shape){.structure = structure, .form = form, .real = real, .count = UNITS, .params = PARAMS};
}

/* A covariance some steps old. */
static void warm(kwm_cov *cov, const struct cov_shape *shape) {
  float *const mean = normal_floats(cov_numbers(shape), 9);
  for (int64_t step = 0; step < WARM; step++) {
    struct jac_case made = cov_jac(shape, (uint64_t)(400 + step));
    assert_true(kwm_cov_predict(cov, step, NULL, mean));
    cov_measure(cov, &made.jac, 1, mean);
    jac_drop(&made);
  }
  free(mean);
}

/* wanted (n, m, m) <- 1 + H_i P H_iᵀ */
static double *dense_outputs(const kwm_cov *cov, const struct kwm_jac *jac) {
  const int64_t width = jac_columns(jac), m = jac->m;
  double *const P = dense_new(width * width), *const H = jac_rows(jac), *const wanted = dense_new(jac->n * m * m);
  assert_true(kwm_cov_covariance(cov, P));
  for (int64_t i = 0; i < jac->n; i++)
    for (int64_t at = 0; at < m * m; at++) {
      const double *const left = H + (i * m + at / m) * width, *const right = H + (i * m + at % m) * width;
      double sum = 1;
      for (int64_t k = 0; k < width; k++)
        for (int64_t l = 0; l < width; l++) sum += left[k] * P[k * width + l] * right[l];
      wanted[i * m * m + at] = sum;
    }
  free(P), free(H);
  return wanted;
}

static void check_jac(kwm_cov *cov, const struct kwm_jac *jac, double close) {
  const int64_t n = jac->n * jac->m * jac->m;
  double *const C = dense_new(n), *const wanted = dense_outputs(cov, jac);
  const size_t held = kwm_mem_bytes();
  for (int64_t k = 0; k < n; k++) C[k] = 1;
  assert_true(kwm_cov_predictive(cov, jac, C));
  assert_int_equal(kwm_mem_bytes(), held);
  assert_below(dense_error(n, C, wanted), close);
  free(C), free(wanted);
}

/* All samples and some, as many outputs as the filter has and others. The state is as it was. */
static void check(const struct cov_shape *shape) {
  static const struct { int64_t n, m; } sizes[] = {{COV_SAMPLES, COV_OUTPUTS}, {2, COV_OUTPUTS}, {3, 1}, {1, 5}};
  kwm_cov cov = cov_new(shape, 1, 0.05);
  warm(&cov, shape);
  struct cov_state before = cov_state_of(&cov);
  for (int c = 0; c < 4; c++) {
    struct jac_case made = cov_is_matrix(shape) ? jac_outer(sizes[c].n, sizes[c].m, O, I_, (uint64_t)(420 + c))
                                                : jac_units(sizes[c].n, sizes[c].m, UNITS, PARAMS, (uint64_t)(420 + c));
    made.jac.e = NULL;
    check_jac(&cov, &made.jac, shape->real == KWM_REAL_FLOAT ? 2e-6 : 1e-12);
    jac_drop(&made);
  }
  struct cov_state after = cov_state_of(&cov);
  assert_true(cov_same_state(&before, &after));
  cov_state_drop(&before), cov_state_drop(&after), kwm_cov_destroy(&cov);
}

static void each(const char *structure, struct cov_shape (*shape_of)(const char *, enum kwm_form, enum kwm_real)) {
  for (int c = 0; c < 4; c++) {
    const struct cov_shape shape = shape_of(structure, c / 2 == 0 ? KWM_FORM_INFORMATION : KWM_FORM_INNOVATION,
                                            c % 2 == 0 ? KWM_REAL_DOUBLE : KWM_REAL_FLOAT);
    check(&shape);
  }
}

static void test_kron(void **state) {
  (void)state;
  each("kron", matrix);
}

static void test_diag(void **state) {
  (void)state;
  each("diag", matrix);
  each("diag", units);
}

static void test_block(void **state) {
  (void)state;
  each("block", matrix);
  each("block", units);
}

/* Inputs that come in the frame are taken as they are. */
static void test_framed(void **state) {
  (void)state;
  const struct cov_shape shape = matrix("kron", KWM_FORM_INFORMATION, KWM_REAL_FLOAT);
  struct kwm_cov_spec spec = cov_spec_of(&shape, 1, 0.05);
  kwm_cov cov;
  spec.framed = true;
  assert_ok(kwm_cov_create(&cov, &kwm_cov_kron, &spec));
  warm(&cov, &shape);
  const struct kwm_frame frame = kwm_cov_frame(&cov);
  struct jac_case made = cov_jac(&shape, 430);
  float aU[COV_SAMPLES * I_] = {0}, *const nowhere = normal_floats(COV_SAMPLES * I_, 431);
  double C[COV_SAMPLES * COV_OUTPUTS * COV_OUTPUTS], *const wanted = dense_outputs(&cov, &made.jac);
  for (int64_t k = 0; k < COV_SAMPLES * I_; k++)
    for (int64_t j = 0; j < I_; j++) aU[k] += made.a[k / I_ * I_ + j] * frame.U[j * I_ + k % I_];
  for (size_t k = 0; k < sizeof C / sizeof *C; k++) C[k] = 1;
  made.jac.a = nowhere, made.jac.aU = aU;
  assert_true(kwm_cov_predictive(&cov, &made.jac, C));
  assert_below(dense_error(sizeof C / sizeof *C, C, wanted), 2e-6);
  free(nowhere), free(wanted), jac_drop(&made), kwm_cov_destroy(&cov);
}

/* All numbers of the precision <- value. */
static void load_precision(kwm_cov *cov, int n_dims, double value) {
  struct cov_file file;
  const int64_t width = cov->spec.params, dims[3] = {1, width, width};
  const int64_t o = cov->spec.d_o, i = cov->spec.d_i, kron[2] = {o, i};
  const bool is_kron = cov->ops == &kwm_cov_kron;
  double *const numbers = dense_new(width * width);
  const char *const base = getenv("TMPDIR");
  for (int64_t k = 0; k < width * width; k++) numbers[k] = value;
  snprintf(file.dir, sizeof file.dir, "%s/kwm-cov-XXXXXX", base != NULL ? base : P_tmpdir);
  assert_non_null(mkdtemp(file.dir));
  assert_ok(kwm_ckpt_create(&file.ckpt, MPI_COMM_SELF, file.dir, 1));
  assert_ok(kwm_ckpt_put(file.ckpt, "/cov/group/precision", KWM_F64, n_dims, is_kron ? kron : dims, 0, is_kron ? o : 1,
                         numbers));
  const struct {
    const char *name;
    int64_t n;
  } rest[] = {{"/cov/group/input_factor", i},
              {"/cov/group/output_factor", o},
              {"/cov/group/input_basis", i},
              {"/cov/group/output_basis", o}};
  for (int k = 0; k < 4 && is_kron; k++) {
    const int64_t square[2] = {rest[k].n, rest[k].n};
    assert_ok(kwm_ckpt_put(file.ckpt, rest[k].name, KWM_F64, 2, square, 0, rest[k].n, numbers));
  }
  assert_ok(kwm_ckpt_commit(&file.ckpt, 1));
  assert_ok(kwm_ckpt_open_newest(&file.ckpt, MPI_COMM_SELF, file.dir));
  assert_ok(kwm_cov_load(cov, file.ckpt));
  cov_file_drop(&file);
  free(numbers);
}

/* No P, no covariance of the outputs; nothing is added. */
static void test_not_definite(void **state) {
  (void)state;
  static const struct {
    const char *structure;
    int n_dims;
  } cases[] = {{"kron", 2}, {"diag", 2}, {"block", 3}};
  for (int c = 0; c < 3; c++) {
    const struct cov_shape shape = matrix(cases[c].structure, KWM_FORM_INFORMATION, KWM_REAL_DOUBLE);
    struct jac_case made = cov_jac(&shape, 440);
    kwm_cov cov = cov_new(&shape, 1, 0);
    double C[COV_SAMPLES * COV_OUTPUTS * COV_OUTPUTS] = {0};
    load_precision(&cov, cases[c].n_dims, -1);
    assert_false(kwm_cov_predictive(&cov, &made.jac, C));
    for (size_t k = 0; k < sizeof C / sizeof *C; k++) assert_true(C[k] == 0);
    jac_drop(&made), kwm_cov_destroy(&cov);
  }
}

/* A structure without it says so; a rank that owns nothing adds nothing. */
static void test_refused(void **state) {
  (void)state;
  struct cov_shape lowrank = units("lowrank", KWM_FORM_INFORMATION, KWM_REAL_DOUBLE);
  lowrank.rank = 4;
  struct jac_case made = cov_jac(&lowrank, 441);
  kwm_cov cov = cov_new(&lowrank, 1, 0);
  double C[COV_SAMPLES * COV_OUTPUTS * COV_OUTPUTS] = {0};
  assert_false(kwm_cov_predictive(&cov, &made.jac, C));
  kwm_cov_destroy(&cov);
  struct cov_shape none = units("diag", KWM_FORM_INFORMATION, KWM_REAL_DOUBLE);
  none.count = 0;
  cov = cov_new(&none, 1, 0);
  assert_true(kwm_cov_predictive(&cov, &made.jac, C));
  for (size_t k = 0; k < sizeof C / sizeof *C; k++) assert_true(C[k] == 0);
  kwm_cov_destroy(&cov), jac_drop(&made);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_kron),   cmocka_unit_test(test_diag),         cmocka_unit_test(test_block),
    cmocka_unit_test(test_framed), cmocka_unit_test(test_not_definite), cmocka_unit_test(test_refused),
};
KWM_TEST_MAIN(tests)
