/* `block` at the edges: inputs that say nothing, the same thing twice, next to nothing or next to everything, and
   states that were broken before they came. */
#include "cov_case.h"

enum { ROWS = COV_SAMPLES * COV_OUTPUTS, COUNT = 16 };

/* Inputs of few bits, times a power of two. */
static struct jac_case scaled_jac(const struct cov_shape *shape, uint64_t stream, float scale) {
  struct jac_case made = cov_jac(shape, stream);
  const int64_t n = made.jac.n, m = made.jac.m;
  for (int64_t k = 0; k < n * m * shape->d_o; k++) made.J[k] = scale * roundf(4 * made.J[k]);
  for (int64_t k = 0; k < n * shape->d_i; k++) made.a[k] = roundf(4 * made.a[k]) / 16;
  return made;
}

/* All rows are the first one. */
static void repeat_first(struct jac_case *made) {
  const int64_t n = made->jac.n, m = made->jac.m, o = made->jac.d_o, d = made->jac.d_i;
  for (int64_t k = o; k < n * m * o; k++) made->J[k] = made->J[k % o];
  for (int64_t k = d; k < n * d; k++) made->a[k] = made->a[k % d];
}

/* (Λ0 + HᵀH)⁻¹ */
static double *posterior_of(const struct cov_shape *shape, const struct kwm_jac *jac) {
  const int64_t n = cov_numbers(shape);
  double *const P = jac_dense_fisher(jac), *const prior = cov_prior(shape);
  for (int64_t k = 0; k < n; k++) P[k * (n + 1)] += 1 / prior[k];
  dense_invert(n, P);
  free(prior);
  return P;
}

enum { FORMS = 4 };
static struct cov_shape matrix_of(int which, int64_t d_o, int64_t d_i) {
  static const enum kwm_form forms[FORMS] = {KWM_FORM_INFORMATION, KWM_FORM_INFORMATION, KWM_FORM_INNOVATION,
                                             KWM_FORM_INNOVATION};
  static const enum kwm_real reals[FORMS] = {KWM_REAL_DOUBLE, KWM_REAL_FLOAT, KWM_REAL_DOUBLE, KWM_REAL_FLOAT};
  return (struct cov_shape){
      .structure = "block", .form = forms[which], .real = reals[which], .count = 1, .d_o = d_o, .d_i = d_i};
}

/* One step from the prior; the posterior is positive definite and close to the exact one. */
static void check_step(int which, int64_t d_o, int64_t d_i, float scale, bool repeated, double close) {
  const struct cov_shape shape = matrix_of(which, d_o, d_i);
  const int64_t n = d_o * d_i;
  kwm_cov cov = cov_new(&shape, 1, 0);
  struct jac_case made = scaled_jac(&shape, 720, scale);
  if (repeated) repeat_first(&made);
  float mean[64] = {0};
  double *const wanted = posterior_of(&shape, &made.jac), *const values = dense_new(n);
  cov_measure(&cov, &made.jac, 1, mean);
  struct cov_state found = cov_state_of(&cov);
  assert_below(dense_error(n * n, found.P, wanted), close);
  assert_true(kwm_cov_spectrum(&cov, values) && values[0] > 0);
  for (int64_t k = 0; k < n; k++) assert_true(isfinite(mean[k]));
  free(wanted), free(values), jac_drop(&made), cov_state_drop(&found), kwm_cov_destroy(&cov);
}

/* More parameters than rows, R = I against huge, tiny and repeated rows. A factor in float knows a direction to
   rounding times the root of the condition number. */
static void test_degenerate(void **state) {
  (void)state;
  for (int which = 0; which < FORMS; which++) {
    const bool narrow = which % 2 == 1;
    check_step(which, 3, 5, 8192, false, narrow ? 1e-2 : 1e-6);
    check_step(which, 3, 5, 1.0f / 8192, false, narrow ? 2e-5 : 1e-10);
    check_step(which, 3, 5, 1, true, narrow ? 2e-5 : 1e-10);
    check_step(which, 3, 5, 8192, true, narrow ? 1e-2 : 1e-6);
    check_step(which, 2, 3, 1, false, narrow ? 2e-5 : 1e-10);
    check_step(which, 2, 3, 1.0f / 8192, false, narrow ? 2e-5 : 1e-10);
  }
}

/* A finite lower triangle with a positive diagonal: its square is positive definite, though beyond what eigenvalues in
   double precision could show. */
static void check_factor(const kwm_cov *cov) {
  const int64_t count = cov->spec.count, p = cov->spec.params;
  const bool information = cov->spec.form == KWM_FORM_INFORMATION;
  struct cov_file file;
  cov_write(cov, &file);
  double *const factor = cov_read(&file, information ? "precision_factor" : "covariance_factor", KWM_F32, 3,
                                  (const int64_t[]){count, p, p});
  for (int64_t k = 0; k < count * p * p; k++) {
    const int64_t i = k / p % p, j = k % p;
    assert_true(isfinite(factor[k]) && (j <= i || factor[k] == 0) && (j != i || factor[k] > 0));
  }
  free(factor), cov_file_drop(&file);
}

/* A signal so strong that S drowns R in double precision: nothing is exact, but the state stays positive definite. */
static void test_drowned(void **state) {
  (void)state;
  for (int which = 1; which < FORMS; which++) {
    for (int units = 0; units < 2; units++) {
      struct cov_shape shape = matrix_of(which, 2, 3);
      if (units) shape.d_o = shape.d_i = 0, shape.count = COUNT, shape.params = 3;
      const int64_t n = cov_numbers(&shape);
      kwm_cov cov = cov_new(&shape, 1, 0);
      float mean[64] = {0};
      double *const values = dense_new(n);
      struct kwm_health health = {0};
      struct jac_case made = cov_jac(&shape, 725);
      const int64_t row = units ? 2 * shape.count : shape.d_o;
      /* One row of each sample; of units, the first unit and two samples. */
      for (int64_t k = 0; k < ROWS * row; k++) {
        const int64_t r = k / row;
        const bool seen = r % COV_OUTPUTS == 0 && (!units || (k % COUNT == 0 && r < 2 * COV_OUTPUTS));
        made.J[k] *= seen ? 3e9f : 0;
      }
      cov_measure(&cov, &made.jac, 1, mean);
      jac_drop(&made);
      if (which == 2) assert_true(kwm_cov_spectrum(&cov, values) && values[0] > 0 && values[n - 1] < 1 + 1e-6);
      if (which != 2) check_factor(&cov);
      kwm_cov_health(&cov, &health);
      assert_true(health.floor_hits > 0 || which == 1);
      free(values), kwm_cov_destroy(&cov);
    }
  }
}

/* No rows that say anything: every form keeps its state to the last bit. */
static void test_silent(void **state) {
  (void)state;
  for (int which = 0; which < FORMS; which++) {
    const struct cov_shape shape = matrix_of(which, 3, 5);
    kwm_cov cov = cov_new(&shape, 1, 0);
    float mean[64] = {0};
    struct jac_case made = cov_jac(&shape, 730), silent = cov_jac(&shape, 731);
    memset(silent.J, 0, (size_t)(ROWS * shape.d_o) * sizeof *silent.J);
    cov_measure(&cov, &made.jac, 1, mean);
    struct cov_state before = cov_state_of(&cov);
    cov_measure(&cov, &silent.jac, 1, mean);
    struct cov_state after = cov_state_of(&cov);
    assert_true(cov_same_state(&before, &after));
    cov_state_drop(&before), cov_state_drop(&after), jac_drop(&made), jac_drop(&silent), kwm_cov_destroy(&cov);
  }
}

/* Evidence that leaves less than a millionth of a variance: variances stop there, and the health says how often. */
static void test_floor(void **state) {
  (void)state;
  enum { PARAMS = 3, WIDTH = COUNT * PARAMS };
  const struct cov_shape shape = {
      .structure = "block", .form = KWM_FORM_INNOVATION, .count = COUNT, .params = PARAMS, .real = KWM_REAL_DOUBLE};
  kwm_cov cov = cov_new(&shape, 1, 0);
  float mean[WIDTH] = {0};
  struct kwm_health health = {0};
  struct jac_case made = cov_jac(&shape, 640);
  for (int64_t k = 0; k < ROWS * 2 * COUNT; k++) made.J[k] = k % COUNT == 0 ? 5000 * made.J[k] : 0;
  cov_measure(&cov, &made.jac, 1, mean);
  kwm_cov_health(&cov, &health);
  struct cov_state found = cov_state_of(&cov);
  int at_floor = 0;
  for (int64_t k = 0; k < WIDTH; k++) {
    const double prior = cov_prior_variance[k % PARAMS], left = found.P[k * WIDTH + k];
    assert_true(left >= 1e-6 * prior * (1 - 1e-12) && (k < PARAMS || left == prior));
    at_floor += left <= 1e-6 * prior * (1 + 1e-12);
  }
  assert_true(at_floor > 0 && health.floor_hits >= at_floor);
  double *const values = dense_new(WIDTH);
  assert_true(kwm_cov_spectrum(&cov, values) && values[0] > 0);
  free(values), cov_state_drop(&found), jac_drop(&made), kwm_cov_destroy(&cov);
}

/* cov's state <- matrices (count, p, p), by way of a checkpoint. */
static void put_state(kwm_cov *cov, const void *matrices, enum kwm_type type, const char *leaf) {
  struct cov_file file;
  const char *const base = getenv("TMPDIR");
  char name[64];
  snprintf(file.dir, sizeof file.dir, "%s/kwm-block-XXXXXX", base != NULL ? base : P_tmpdir);
  snprintf(name, sizeof name, "/cov/group/%s", leaf);
  assert_non_null(mkdtemp(file.dir));
  const int64_t p = cov->spec.params, dims[3] = {cov->spec.total, p, p};
  assert_ok(kwm_ckpt_create(&file.ckpt, MPI_COMM_SELF, file.dir, 1));
  assert_ok(kwm_ckpt_put(file.ckpt, name, type, 3, dims, 0, dims[0], matrices));
  assert_ok(kwm_ckpt_commit(&file.ckpt, 1));
  assert_ok(kwm_ckpt_open_newest(&file.ckpt, MPI_COMM_SELF, file.dir));
  assert_ok(kwm_cov_load(cov, file.ckpt));
  cov_file_drop(&file);
}

/* The last of 16 blocks is indefinite (a factor: not a number): predict fails and leaves the others and the mean. */
static void check_broken_predict(int which) {
  enum { PARAMS = 3, SIZE = PARAMS * PARAMS };
  struct cov_shape shape = matrix_of(which, 0, 0);
  shape.count = COUNT, shape.params = PARAMS;
  const bool narrow = shape.real == KWM_REAL_FLOAT;
  kwm_cov cov = cov_new(&shape, 0.9, 0.1);
  double wide[COUNT * SIZE] = {0};
  float single[COUNT * SIZE] = {0}, mean[COUNT * PARAMS] = {0}, anchor[COUNT * PARAMS];
  for (int64_t k = 0; k < COUNT * SIZE; k++) wide[k] = k % SIZE % (PARAMS + 1) == 0 ? 2 : 0;
  for (int64_t k = 0; k < COUNT * PARAMS; k++) anchor[k] = 1;
  wide[COUNT * SIZE - 1] = narrow ? NAN : -1e9;
  for (int64_t k = 0; k < COUNT * SIZE; k++) single[k] = (float)wide[k];
  char leaf[32];
  snprintf(leaf, sizeof leaf, "%s%s", which < 2 ? "precision" : "covariance", narrow ? "_factor" : "");
  put_state(&cov, narrow ? (void *)single : (void *)wide, narrow ? KWM_F32 : KWM_F64, leaf);
  assert_false(kwm_cov_predict(&cov, 0, anchor, mean));
  for (int64_t k = 0; k < COUNT * PARAMS; k++) assert_true(mean[k] == 0);
  struct cov_file file;
  cov_write(&cov, &file);
  double *const left = cov_read(&file, leaf, narrow ? KWM_F32 : KWM_F64, 3, (const int64_t[]){COUNT, PARAMS, PARAMS});
  for (int64_t k = 0; k < COUNT * SIZE - 1; k++) assert_true(left[k] == wide[k]);
  double values[COUNT * PARAMS], P[COUNT * PARAMS * COUNT * PARAMS];
  struct kwm_health health = {0};
  assert_false(kwm_cov_spectrum(&cov, values));
  if (which < 2) {
    assert_false(kwm_cov_covariance(&cov, P));
    kwm_cov_health(&cov, &health);
    assert_true(isnan(health.trace));
  }
  free(left), cov_file_drop(&file), kwm_cov_destroy(&cov);
}

static void test_broken_predict(void **state) {
  (void)state;
  for (int which = 0; which < FORMS; which++) check_broken_predict(which);
}

/* A large P is looked at once as many rows have come as it has parameters, whether steps were taken or given up. */
static void test_looked_at(void **state) {
  (void)state;
  for (int taken = 0; taken < 2; taken++) {
    const struct cov_shape shape = matrix_of(2, 3, 5);
    enum { SIZE = 15 };
    kwm_cov cov = cov_new(&shape, 1, 0);
    double P[SIZE * SIZE] = {0}, values[SIZE];
    float mean[SIZE] = {0};
    for (int64_t k = 0; k < SIZE; k++) P[k * (SIZE + 1)] = k == 7 ? -1e-9 : 1;
    put_state(&cov, P, KWM_F64, "covariance");
    for (int step = 0; step < 2; step++) {
      struct jac_case made = scaled_jac(&shape, (uint64_t)(740 + step), 1.0f / 8192);
      struct cov_step prepared;
      assert_true(kwm_cov_predict(&cov, step, NULL, mean));
      assert_true(cov_prepare(&cov, &made.jac, &prepared));
      struct kwm_health health = {0};
      kwm_cov_health(&cov, &health);
      assert_true(health.floor_hits <= 1);
      if (taken) kwm_cov_apply(&cov, 1, mean);
      cov_step_drop(&prepared), jac_drop(&made);
    }
    assert_true(kwm_cov_predict(&cov, 2, NULL, mean));
    assert_true(kwm_cov_spectrum(&cov, values) && values[0] > 0);
    struct kwm_health health = {0};
    kwm_cov_health(&cov, &health);
    assert_true(health.floor_hits > 0);
    kwm_cov_destroy(&cov);
  }
}

/* Evidence with a direction that a float sum's rounding has made negative: double refuses it, float lifts and counts.
 */
static void test_evidence_lifted(void **state) {
  (void)state;
  for (int which = 0; which < 2; which++) {
    const struct cov_shape shape = matrix_of(which, 2, 3);
    kwm_cov cov = cov_new(&shape, 1, 0);
    struct jac_case made = cov_jac(&shape, 750);
    float mean[6] = {0}, *const evidence = calloc((size_t)kwm_cov_evidence_length(&cov), sizeof *evidence);
    double kl, values[6];
    struct kwm_health health = {0};
    for (int64_t i = 0; i < 6; i++)
      for (int64_t j = i; j < 6; j++) evidence[i * 6 + j] = i == j && i > 0 ? 1e8f * 0.999999f : 1e8f;
    assert_true(kwm_cov_absorb(&cov, &made.jac, evidence, 1, &kl) == (which == 1));
    if (which == 1) {
      kwm_cov_health(&cov, &health);
      assert_true(health.floor_hits == 0);
      kwm_cov_apply(&cov, 1, mean);
      kwm_cov_health(&cov, &health);
      assert_true(health.floor_hits > 0);
      assert_true(kwm_cov_spectrum(&cov, values) && values[0] > 0);
    }
    evidence[0] = NAN;
    assert_false(kwm_cov_absorb(&cov, &made.jac, evidence, 1, &kl));
    free(evidence), jac_drop(&made), kwm_cov_destroy(&cov);
  }
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_degenerate),      cmocka_unit_test(test_drowned),        cmocka_unit_test(test_silent),
    cmocka_unit_test(test_floor),           cmocka_unit_test(test_broken_predict), cmocka_unit_test(test_looked_at),
    cmocka_unit_test(test_evidence_lifted),
};
KWM_TEST_MAIN(tests)
