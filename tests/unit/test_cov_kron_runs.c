/* `kron` over many steps and at the edges: the steady state, degenerate rows, the pull towards an anchor, a basis that
   can't be had, and what it tells of itself. In both forms, with its state in float and in double. */
#include "cov_case.h"

enum { O = 3, I_ = 5, N = O * I_, ROWS = COV_SAMPLES * COV_OUTPUTS, WARM = 3 };

static struct cov_shape shape_of(enum kwm_form form, enum kwm_real real) {
  return (struct cov_shape){.structure = "kron", .form = form, .real = real, .count = 1, .d_o = O, .d_i = I_};
}

static void each(void (*check)(enum kwm_form form, enum kwm_real real)) {
  check(KWM_FORM_INFORMATION, KWM_REAL_DOUBLE);
  check(KWM_FORM_INFORMATION, KWM_REAL_FLOAT);
  check(KWM_FORM_INNOVATION, KWM_REAL_DOUBLE);
  check(KWM_FORM_INNOVATION, KWM_REAL_FLOAT);
}

static double either(enum kwm_real real, double in_double, double in_float) {
  return real == KWM_REAL_DOUBLE ? in_double : in_float;
}

static void fill(uint64_t stream, float *values) {
  for (int64_t k = 0; k < N; k++) values[k] = (float)test_normal(stream, k);
}

/* A covariance some steps old, in a basis of its own. */
static kwm_cov warm(const struct cov_shape *shape, double forgetting, double process_noise) {
  kwm_cov cov = cov_new(shape, forgetting, process_noise);
  float mean[N] = {0};
  const float anchor[N] = {0};
  for (int64_t step = 0; step < WARM; step++) {
    struct jac_case made = cov_jac(shape, (uint64_t)(500 + step));
    assert_true(kwm_cov_predict(&cov, step, anchor, mean));
    cov_measure(&cov, &made.jac, 1, mean);
    jac_drop(&made);
  }
  return cov;
}

/* Invariant 21. */
static void check_steady_state(enum kwm_form form, enum kwm_real real) {
  static const double qf[3] = {1e-6, 0.3, 50};
  const struct cov_shape shape = {.structure = "kron", .form = form, .real = real, .count = 1, .d_o = 1, .d_i = 1};
  for (int c = 0; c < 3; c++) {
    const double f = 4, q = qf[c] / f, wanted = 2 / (f * (1 + sqrt(1 + 4 / qf[c])));
    kwm_cov cov = cov_new(&shape, 1, q * cov_prior_precision);
    struct jac_case made = jac_outer(1, 1, 1, 1, 510);
    float mean = 0;
    made.J[0] = 2, made.a[0] = 1;
    for (int64_t step = 0; step < (c == 0 ? 20000 : 100); step++) {
      assert_true(kwm_cov_predict(&cov, step, NULL, NULL));
      cov_measure(&cov, &made.jac, 1, &mean);
    }
    struct kwm_health health = {0};
    kwm_cov_health(&cov, &health);
    assert_close(health.trace, wanted, either(real, 1e-10, 1e-4), 0);
    jac_drop(&made), kwm_cov_destroy(&cov);
  }
}

/* mean <- mean + (1-λ) Λ'⁻¹ Λ0 (anchor - mean), Λ' = λΛ + (1-λ)Λ0, by dense matrices. */
static void dense_pull(double *P, const double *prior, double lambda, const float *anchor, double *mean) {
  double apart[N], moved[N];
  dense_predict(N, P, prior, lambda, 0);
  for (int64_t k = 0; k < N; k++) apart[k] = (1 - lambda) / prior[k] * ((double)anchor[k] - mean[k]);
  dense_multiply(N, 1, N, P, apart, moved);
  for (int64_t k = 0; k < N; k++) mean[k] += moved[k];
}

/* The pull sees the forgotten Λ, before noise and before a new basis; without forgetting there is none. */
static void check_anchor(enum kwm_form form, enum kwm_real real) {
  static const double lambdas[3] = {0.9, 0.3, 1};
  const struct cov_shape shape = shape_of(form, real);
  double *const prior = cov_prior(&shape);
  float anchor[N], mean[N];
  fill(520, anchor);
  for (int c = 0; c < 3; c++)
    for (int64_t step = WARM; step < 6; step += 2) {
      kwm_cov cov = warm(&shape, lambdas[c], 0.1);
      struct cov_state before = cov_state_of(&cov);
      double wanted[N];
      fill(521, mean);
      for (int64_t k = 0; k < N; k++) wanted[k] = (double)mean[k];
      dense_pull(before.P, prior, lambdas[c], anchor, wanted);
      assert_true(kwm_cov_predict(&cov, step, anchor, mean));
      for (int64_t k = 0; k < N && c == 2; k++) assert_true((double)mean[k] == wanted[k]);
      /* The mean itself is kept in float. */
      assert_below(dense_error_f32(N, mean, wanted), either(real, 1e-7, 2e-6));
      cov_state_drop(&before), kwm_cov_destroy(&cov);
    }
  free(prior);
}

static void put(const struct cov_file *file, const char *leaf, enum kwm_real real, int64_t n, int64_t width,
                bool broken, double diagonal) {
  const int64_t dims[2] = {n, width};
  double wide[N * N] = {0};
  float narrow[N * N] = {0};
  char name[128];
  snprintf(name, sizeof name, "/cov/group/%s", leaf);
  for (int64_t k = 0; k < n * width; k++) wide[k] = n != width || k % (n + 1) == 0 ? diagonal : 0;
  if (broken) wide[0] = NAN;
  for (int64_t k = 0; k < n * width; k++) narrow[k] = (float)wide[k];
  assert_ok(kwm_ckpt_put(file->ckpt, name, real == KWM_REAL_DOUBLE ? KWM_F64 : KWM_F32, 2, dims, 0, n,
                         real == KWM_REAL_DOUBLE ? (void *)wide : (void *)narrow));
}

/* A state with precision 3, in the plain basis, with one factor that has no eigenvectors. */
static void load_broken(kwm_cov *cov, bool input) {
  struct cov_file file;
  const enum kwm_real real = cov->spec.real;
  const char *const base = getenv("TMPDIR");
  snprintf(file.dir, sizeof file.dir, "%s/kwm-cov-XXXXXX", base != NULL ? base : P_tmpdir);
  assert_non_null(mkdtemp(file.dir));
  assert_ok(kwm_ckpt_create(&file.ckpt, MPI_COMM_SELF, file.dir, 1));
  put(&file, "precision", real, O, I_, false, 3);
  put(&file, "input_factor", real, I_, I_, input, 1);
  put(&file, "output_factor", real, O, O, !input, 1);
  put(&file, "input_basis", real, I_, I_, false, 1);
  put(&file, "output_basis", real, O, O, false, 1);
  assert_ok(kwm_ckpt_commit(&file.ckpt, 1));
  assert_ok(kwm_ckpt_open_newest(&file.ckpt, MPI_COMM_SELF, file.dir));
  assert_ok(kwm_cov_load(cov, file.ckpt));
  cov_file_drop(&file);
}

/* A basis that can't be had leaves all as it was; a step that needs none goes on. */
static void check_no_basis(enum kwm_form form, enum kwm_real real) {
  const struct cov_shape shape = shape_of(form, real);
  for (int input = 0; input < 2; input++) {
    kwm_cov cov = cov_new(&shape, 0.9, 0.1);
    float anchor[N], mean[N], keep[N];
    fill(530, anchor), fill(531, mean);
    memcpy(keep, mean, sizeof keep);
    load_broken(&cov, input == 1);
    struct cov_state before = cov_state_of(&cov);
    assert_false(kwm_cov_predict(&cov, 5, anchor, mean));
    struct cov_state after = cov_state_of(&cov);
    assert_true(cov_same_state(&before, &after));
    assert_memory_equal(mean, keep, sizeof mean);
    assert_true(kwm_cov_predict(&cov, 6, anchor, mean));
    assert_true(memcmp(mean, keep, sizeof mean) != 0);
    cov_state_drop(&before), cov_state_drop(&after), kwm_cov_destroy(&cov);
  }
}

static void scale_rows(struct jac_case *made, float size) {
  for (int64_t k = 0; k < made->jac.n * made->jac.m * made->jac.d_o; k++) made->J[k] *= size;
}

/* Every sample and output is the first one. */
static void repeat_rows(struct jac_case *made) {
  const struct kwm_jac *const jac = &made->jac;
  for (int64_t k = 0; k < jac->n * jac->m * jac->d_o; k++) made->J[k] = made->J[k % jac->d_o];
  for (int64_t k = 0; k < jac->n * jac->d_i; k++) made->a[k] = made->a[k % jac->d_i];
}

/* One step from the prior: the dense δ where it can be had, variances between 0 and what they were. */
static void check_rows(const struct cov_shape *shape, struct jac_case *made, bool dense, bool lifted) {
  const int64_t n = cov_numbers(shape), rows = made->jac.n * made->jac.m;
  kwm_cov cov = cov_new(shape, 1, 0);
  double delta[N], wanted[N], *const prior = cov_prior(shape), *const P = dense_new(n * n);
  float mean[N] = {0};
  struct cov_step prepared;
  struct kwm_health health = {0};
  double *const H = jac_rows(&made->jac), *const e = jac_innovation(&made->jac);
  for (int64_t k = 0; k < n; k++) P[k * n + k] = prior[k];
  assert_true(kwm_cov_predict(&cov, 0, NULL, NULL));
  assert_true(cov_prepare(&cov, &made->jac, &prepared));
  kwm_cov_delta(&cov, delta);
  kwm_cov_apply(&cov, 1, mean);
  dense_update(n, rows, P, H, e, wanted);
  if (dense) assert_below(dense_error(n, delta, wanted), either(shape->real, 1e-10, 2e-5));
  struct cov_state found = cov_state_of(&cov);
  for (int64_t k = 0; k < n; k++) {
    assert_true(isfinite(delta[k]) && isfinite(mean[k]));
    assert_true(isfinite(found.D[k]) && found.D[k] >= cov_prior_precision);
  }
  kwm_cov_health(&cov, &health);
  assert_true((health.floor_hits > 0) == lifted);
  free(H), free(e), free(P), free(prior), cov_step_drop(&prepared), cov_state_drop(&found), kwm_cov_destroy(&cov);
}

/* No rows that say anything, the same row many times, large and small ones, more of them than parameters. */
static void check_degenerate(enum kwm_form form, enum kwm_real real) {
  static const float sizes[4] = {0, 1, 1e4f, 1e-4f};
  const struct cov_shape few = {.structure = "kron", .form = form, .real = real, .count = 1, .d_o = 1, .d_i = 2};
  const struct cov_shape shapes[2] = {shape_of(form, real), few};
  const bool innovation = form == KWM_FORM_INNOVATION;
  for (int s = 0; s < 2; s++)
    for (int c = 0; c < 4; c++)
      for (int repeated = 0; repeated < 2; repeated++) {
        struct jac_case made = cov_jac(&shapes[s], 540);
        if (repeated == 1) repeat_rows(&made);
        scale_rows(&made, sizes[c]);
        /* Only more rows than parameters can pin all of a variance down; the product of means is not F. */
        check_rows(&shapes[s], &made, innovation && c != 2, innovation && c == 2 && s == 1 && repeated == 0);
        jac_drop(&made);
      }
}

static int ascending(const void *a, const void *b) {
  const double left = *(const double *)a, right = *(const double *)b;
  return (left > right) - (left < right);
}

/* delta, moved, covariance and spectrum of a step agree with each other and with the state in the checkpoint. */
static void check_views(enum kwm_form form, enum kwm_real real) {
  const struct cov_shape shape = shape_of(form, real);
  const double close = either(real, 1e-12, 1e-5);
  kwm_cov cov = warm(&shape, 0.9, 0.1);
  struct jac_case made = cov_jac(&shape, 550);
  struct cov_step prepared;
  float mean[N] = {0};
  double delta[N], moved, share = 0, found[N], values[N], *const P = dense_new(N * N), *const E = dense_new(N * N);
  assert_true(cov_prepare(&cov, &made.jac, &prepared));
  kwm_cov_delta(&cov, delta);
  kwm_cov_moved(&cov, &moved);
  for (int64_t k = 0; k < N; k++) share += delta[k] * delta[k] * cov_prior_precision;
  assert_close(moved, share, close, 0);
  kwm_cov_apply(&cov, 0.5, mean);
  for (int64_t k = 0; k < N; k++) assert_close((double)mean[k], 0.5 * delta[k], 1e-5, 1e-7);
  struct cov_state state = cov_state_of(&cov);
  assert_true(kwm_cov_covariance(&cov, P));
  assert_below(dense_error(N * N, P, state.P), 1e-13);
  assert_int_equal(kwm_cov_spectrum_length(&cov), N);
  assert_true(kwm_cov_spectrum(&cov, found));
  dense_eigenvectors(N, P, E);
  for (int64_t k = 0; k < N; k++) values[k] = P[k * N + k] * cov_prior_precision;
  qsort(values, N, sizeof *values, ascending);
  for (int64_t k = 0; k < N; k++) assert_close(found[k], values[k], close, 0);
  free(P), free(E), cov_state_drop(&state), cov_step_drop(&prepared), jac_drop(&made), kwm_cov_destroy(&cov);
}

/* C (width, width) <- rowsᵀrows/samples */
static double *dense_gram(int64_t width, int64_t n, const float *rows) {
  double *const C = dense_new(width * width);
  for (int64_t s = 0; s < n; s++)
    for (int64_t k = 0; k < width * width; k++)
      C[k] += (double)rows[s * width + k / width] * (double)rows[s * width + k % width] / COV_SAMPLES;
  return C;
}

/* The upper triangle of a factor that the state keeps. */
static void check_factor(struct cov_file *file, const char *leaf, enum kwm_type type, int64_t n, double *wanted) {
  double *const found = cov_read(file, leaf, type, 2, (const int64_t[]){n, n});
  for (int64_t k = 0; k < n; k++)
    for (int64_t j = 0; j < k; j++) found[k * n + j] = wanted[k * n + j] = 0;
  assert_below(dense_error(n * n, found, wanted), 1e-6);
  free(found);
}

/* Layers wider than the pieces in which evidence is kept: one step, all of A, G and D. */
static void check_wide(enum kwm_form form, enum kwm_real real) {
  enum { WIDE = 131, DEEP = 290 };
  const struct cov_shape shape = {
      .structure = "kron", .form = form, .real = real, .count = 1, .d_o = WIDE, .d_i = DEEP};
  if (form != KWM_FORM_INFORMATION) return;
  for (int64_t m = 1; m <= COV_OUTPUTS; m += COV_OUTPUTS - 1) {
    struct kwm_cov_spec spec = cov_spec_of(&shape, 1, 0);
    struct jac_case made = jac_outer(COV_SAMPLES, m, WIDE, DEEP, 560);
    struct cov_file file;
    float *const mean = normal_floats(WIDE * DEEP, 561);
    kwm_cov cov;
    spec.m = m;
    assert_ok(kwm_cov_create(&cov, &kwm_cov_kron, &spec));
    cov_measure(&cov, &made.jac, 1, mean);
    cov_write(&cov, &file);
    double *const D = cov_read(&file, "precision", cov_type(&cov), 2, (const int64_t[]){WIDE, DEEP});
    double *const A = dense_gram(DEEP, COV_SAMPLES, made.a), *const G = dense_gram(WIDE, COV_SAMPLES * m, made.J);
    for (int64_t k = 0; k < WIDE * DEEP; k++) {
      const double f = COV_SAMPLES * G[k / DEEP * (WIDE + 1)] * A[k % DEEP * (DEEP + 1)];
      assert_close(D[k], cov_prior_precision + f, 1e-6, 0);
    }
    check_factor(&file, "input_factor", cov_type(&cov), DEEP, A);
    check_factor(&file, "output_factor", cov_type(&cov), WIDE, G);
    free(A), free(G), free(D), free(mean), cov_file_drop(&file), jac_drop(&made), kwm_cov_destroy(&cov);
  }
}

/* Evidence that float can't add up any more is refused, and leaves the state. */
static void test_overflow(void **state) {
  (void)state;
  const struct cov_shape shape = {
      .structure = "kron", .real = KWM_REAL_FLOAT, .count = 1, .d_o = 1, .d_i = 1, .form = KWM_FORM_INFORMATION};
  kwm_cov cov = cov_new(&shape, 1, 0);
  float mean = 0, evidence[4] = {1, 2e38f, 1, 1}; /* A, G, X, at2 */
  double kl;
  assert_int_equal(kwm_cov_evidence_length(&cov), 4);
  assert_true(kwm_cov_absorb(&cov, NULL, evidence, 1, &kl));
  kwm_cov_apply(&cov, 1, &mean);
  assert_false(kwm_cov_absorb(&cov, NULL, evidence, 1, &kl));
  struct cov_state found = cov_state_of(&cov);
  assert_true(found.D[0] == (double)2e38f);
  cov_state_drop(&found), kwm_cov_destroy(&cov);
}

/* A hundred thousand steps in float with a new basis every hundred: all precisions stay finite and positive. */
static void test_long_run(void **state) {
  (void)state;
  enum { POOL = 64, STEPS = 100000 };
  struct jac_case pool[POOL];
  for (int k = 0; k < POOL; k++) pool[k] = jac_outer(1, 2, 2, 3, (uint64_t)(600 + k));
  for (int c = 0; c < 4; c++) {
    const enum kwm_form form = c % 2 == 0 ? KWM_FORM_INFORMATION : KWM_FORM_INNOVATION;
    const struct cov_shape shape = {
        .structure = "kron", .form = form, .real = KWM_REAL_FLOAT, .count = 1, .d_o = 2, .d_i = 3};
    kwm_cov cov = cov_new(&shape, 1, c < 2 ? 0 : 1e-3);
    float mean[6] = {0};
    double left[6];
    for (int64_t step = 0; step < STEPS; step++) {
      assert_true(kwm_cov_predict(&cov, step, NULL, NULL));
      cov_measure(&cov, &pool[step % POOL].jac, 0.1, mean);
      if (step % 500 == 1) assert_true(kwm_cov_spectrum(&cov, left) && left[0] > 0 && isfinite(left[5]));
    }
    assert_true(kwm_cov_spectrum(&cov, left));
    for (int k = 0; k < 6; k++) assert_true(isfinite(mean[k]));
    assert_true(c < 2 ? left[5] < 1e-4 : left[0] > 1e-3 && left[5] < 1);
    kwm_cov_destroy(&cov);
  }
  for (int k = 0; k < POOL; k++) jac_drop(&pool[k]);
}

#define FOR_EACH(name)                                                                                                 \
  static void test_##name(void **state) {                                                                              \
    (void)state;                                                                                                       \
    each(check_##name);                                                                                                \
  }
FOR_EACH(steady_state)
FOR_EACH(anchor)
FOR_EACH(no_basis)
FOR_EACH(degenerate)
FOR_EACH(views)
FOR_EACH(wide)

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_steady_state), cmocka_unit_test(test_anchor), cmocka_unit_test(test_no_basis),
    cmocka_unit_test(test_degenerate),   cmocka_unit_test(test_views),  cmocka_unit_test(test_overflow),
    cmocka_unit_test(test_long_run),     cmocka_unit_test(test_wide),
};
KWM_TEST_MAIN(tests)
