/* `kron` against the dense filter where it is exact, and against its own definition in double precision where it is an
   approximation (equations.md 3(a), continual.md 4). In both forms, with its state in float and in double. */
#include "cov_case.h"

enum { O = 3, I_ = 5, N = O * I_, ROWS = COV_SAMPLES * COV_OUTPUTS };

static struct cov_shape shape_of(enum kwm_form form, enum kwm_real real) {
  return (struct cov_shape){.structure = "kron", .form = form, .real = real, .count = 1, .d_o = O, .d_i = I_};
}

static void each(void (*check)(enum kwm_form form, enum kwm_real real)) {
  check(KWM_FORM_INFORMATION, KWM_REAL_DOUBLE);
  check(KWM_FORM_INFORMATION, KWM_REAL_FLOAT);
  check(KWM_FORM_INNOVATION, KWM_REAL_DOUBLE);
  check(KWM_FORM_INNOVATION, KWM_REAL_FLOAT);
}

/* `in_double` or `in_float`, as the state is kept. */
static double either(enum kwm_real real, double in_double, double in_float) {
  return real == KWM_REAL_DOUBLE ? in_double : in_float;
}

/* Multiples of 1/8 up to 2: their products' sums are exact in single precision. */
static void coarsen(int64_t n, float *values) {
  for (int64_t k = 0; k < n; k++) values[k] = fmaxf(-2, fminf(2, roundf(8 * values[k]) / 8));
}

static struct jac_case coarse(uint64_t stream) {
  struct jac_case made = jac_outer(COV_SAMPLES, COV_OUTPUTS, O, I_, stream);
  coarsen(ROWS * O, made.J), coarsen(COV_SAMPLES * I_, made.a), coarsen(ROWS, made.e);
  return made;
}

/* One row a sample in place of the outputs', and the score beside it. */
struct sampled {
  struct jac_case made;
  float *g;
};

static struct sampled sampled_rows(int64_t n, uint64_t stream) {
  struct sampled rows = {.made = jac_outer(n, 1, O, I_, stream), .g = normal_floats(n * O, 4 * stream + 3)};
  coarsen(n * O, rows.made.J), coarsen(n * I_, rows.made.a), coarsen(n * O, rows.g);
  rows.made.jac.e = NULL, rows.made.jac.g = rows.g;
  return rows;
}

static void sampled_drop(struct sampled *rows) {
  free(rows->g), jac_drop(&rows->made);
}

/* A covariance whose samples have m rows. */
static kwm_cov cov_rows(const struct cov_shape *shape, int64_t m, int64_t delay) {
  kwm_cov cov;
  struct kwm_cov_spec spec = cov_spec_of(shape, 1, 0);
  spec.m = m;
  spec.delay = delay;
  const size_t before = kwm_mem_bytes();
  assert_ok(kwm_cov_create(&cov, &kwm_cov_kron, &spec));
  assert_int_equal(kwm_mem_bytes() - before, kwm_cov_bytes(&kwm_cov_kron, &spec));
  return cov;
}

/* The same J for every sample: HᵀH = (JᵀJ) ⊗ (sum a aᵀ) exactly. Only e differs from step to step. The first step has
   next to no information: it gives the eigenbasis without touching P = cI. */
static struct jac_case factorising(int64_t step) {
  struct jac_case made = coarse(700), other = coarse((uint64_t)(800 + step));
  const float size = step == 0 ? 0x1p-24f : 1;
  for (int64_t k = 0; k < COV_OUTPUTS * O; k++) made.J[k] *= size;
  for (int64_t k = 0; k < ROWS * O; k++) made.J[k] = made.J[k % (COV_OUTPUTS * O)];
  memcpy(made.e, other.e, ROWS * sizeof *made.e);
  jac_drop(&other);
  return made;
}

/* Invariant 30, and 29: δ is the dense one. */
static void check_exact(enum kwm_form form, enum kwm_real real) {
  const struct cov_shape shape = shape_of(form, real);
  const double close = either(real, 1e-11, 5e-5);
  kwm_cov cov = cov_new(&shape, 1, 0.05);
  float mean[N] = {0};
  double wanted[N] = {0}, delta[N], found[N], *const P = dense_new(N * N), *const prior = cov_prior(&shape);
  double *const covariance = dense_new(N * N);
  for (int64_t k = 0; k < N; k++) P[k * N + k] = prior[k];
  for (int64_t step = 0; step < 11; step++) {
    struct jac_case made = factorising(step);
    struct cov_step prepared;
    double *const H = jac_rows(&made.jac), *const e = jac_innovation(&made.jac);
    dense_predict(N, P, prior, 1, 0.05);
    dense_update(N, ROWS, P, H, e, delta);
    for (int64_t k = 0; k < N; k++) wanted[k] += delta[k];
    assert_true(kwm_cov_predict(&cov, step, NULL, NULL));
    assert_true(cov_prepare(&cov, &made.jac, &prepared));
    kwm_cov_delta(&cov, found);
    kwm_cov_apply(&cov, 1, mean);
    assert_true(kwm_cov_covariance(&cov, covariance));
    assert_below(dense_error(N, found, delta), close);
    assert_below(dense_error(N * N, covariance, P), close);
    if (step > 0) assert_below(dense_error_f32(N, mean, wanted), either(real, 1e-6, 5e-5));
    free(H), free(e), jac_drop(&made), cov_step_drop(&prepared);
  }
  free(P), free(prior), free(covariance), kwm_cov_destroy(&cov);
}

/* A single number, a single sample: the scalar Kalman filter. */
static void check_scalar(enum kwm_form form, enum kwm_real real) {
  const struct cov_shape shape = {.structure = "kron", .form = form, .real = real, .count = 1, .d_o = 1, .d_i = 1};
  kwm_cov cov = cov_new(&shape, 1, 0.1);
  double p = 1 / cov_prior_precision, theta = 0;
  float mean = 0;
  for (int64_t step = 0; step < 12; step++) {
    struct jac_case made = jac_outer(1, 1, 1, 1, (uint64_t)(710 + step));
    coarsen(1, made.J), coarsen(1, made.a), coarsen(1, made.e);
    const double h = (double)made.J[0] * (double)made.a[0], e = (double)made.e[0];
    p += 0.1 / cov_prior_precision;
    theta += p * h / (h * p * h + 1) * e;
    p /= 1 + p * h * h;
    assert_true(kwm_cov_predict(&cov, step, NULL, NULL));
    cov_measure(&cov, &made.jac, 1, &mean);
    struct kwm_health health = {0};
    kwm_cov_health(&cov, &health);
    assert_close((double)mean, theta, 1e-5, 1e-6);
    assert_close(health.trace, p, either(real, 1e-13, 1e-5), 0);
    jac_drop(&made);
  }
  kwm_cov_destroy(&cov);
}

/* 1 / diagonal of basisᵀ P basis. */
static void wanted_precision(const struct cov_state *state, double *D) {
  for (int64_t k = 0; k < N; k++) {
    double left = 0;
    for (int64_t i = 0; i < N; i++)
      for (int64_t j = 0; j < N; j++) left += state->basis[i * N + k] * state->P[i * N + j] * state->basis[j * N + k];
    D[k] = 1 / left;
  }
}

/* In any basis and with any data: S and δ are the dense filter's with the same P, and of the dense posterior the
   diagonal in the basis is kept. */
static void check_innovation(enum kwm_form form, enum kwm_real real) {
  if (form != KWM_FORM_INNOVATION) return;
  const struct cov_shape shape = shape_of(form, real);
  const double close = either(real, 1e-10, 2e-5);
  const float anchor[N] = {0};
  kwm_cov cov = cov_new(&shape, 0.95, 0.02);
  for (int64_t step = 0; step < 7; step++) {
    struct jac_case made = cov_jac(&shape, (uint64_t)(730 + step));
    double *const H = jac_rows(&made.jac), *const e = jac_innovation(&made.jac), delta[N], found[N], D[N];
    double S[ROWS * ROWS], found_S[ROWS * ROWS] = {0};
    float mean[N] = {0};
    struct cov_step prepared;
    assert_true(kwm_cov_predict(&cov, step, anchor, mean));
    struct cov_state before = cov_state_of(&cov);
    dense_innovation_covariance(N, ROWS, before.P, H, S);
    dense_update(N, ROWS, before.P, H, e, delta);
    kwm_cov_project(&cov, &made.jac, found_S);
    for (int64_t k = 0; k < ROWS; k++) found_S[k * ROWS + k] += 1;
    assert_below(dense_error(ROWS * ROWS, found_S, S), 1e-12);
    assert_true(cov_prepare(&cov, &made.jac, &prepared));
    kwm_cov_delta(&cov, found);
    assert_below(dense_error(N, found, delta), close);
    kwm_cov_apply(&cov, 0.5, mean);
    for (int64_t k = 0; k < N; k++) assert_close((double)mean[k], 0.5 * found[k], 1e-5, 1e-7);
    struct cov_state after = cov_state_of(&cov);
    assert_memory_equal(before.basis, after.basis, N * N * sizeof *after.basis);
    wanted_precision(&before, D);
    /* A basis kept in float is orthogonal to 1e-6 only. */
    for (int64_t k = 0; k < N; k++) assert_close(after.D[k], D[k], close, 0);
    free(H), free(e), jac_drop(&made), cov_step_drop(&prepared), cov_state_drop(&before), cov_state_drop(&after);
  }
  kwm_cov_destroy(&cov);
}

/* continual.md 4 in double precision. */
struct algorithm {
  double W[N], D[N], A[I_ * I_], G[O * O], U[I_ * I_], V[O * O];
  double past_A[I_ * I_], past_G[O * O]; /* of these the next basis comes */
};

static void overlap(int64_t n, const double *fresh, const double *old, double *R) {
  double *const transposed = dense_new(n * n);
  dense_transpose(n, n, fresh, transposed);
  dense_multiply(n, n, n, transposed, old, R);
  for (int64_t k = 0; k < n * n; k++) R[k] *= R[k];
  free(transposed);
}

static void algorithm_refresh(struct algorithm *a) {
  double A[I_ * I_], G[O * O], U[I_ * I_], V[O * O], RU[I_ * I_], RUt[I_ * I_], RV[O * O], T[N];
  memcpy(A, a->past_A, sizeof A), memcpy(G, a->past_G, sizeof G);
  dense_eigenvectors(I_, A, U);
  dense_eigenvectors(O, G, V);
  overlap(I_, U, a->U, RU);
  overlap(O, V, a->V, RV);
  dense_transpose(I_, I_, RU, RUt);
  dense_multiply(O, I_, I_, a->D, RUt, T);
  dense_multiply(O, I_, O, RV, T, a->D);
  memcpy(a->U, U, sizeof U), memcpy(a->V, V, sizeof V);
}

static void set_aside(struct algorithm *a) {
  memcpy(a->past_A, a->A, sizeof a->A), memcpy(a->past_G, a->G, sizeof a->G);
}

static void algorithm_step(struct algorithm *a, const struct kwm_jac *jac) {
  double at2[I_] = {0}, ht2[O] = {0}, X[N] = {0}, step[N], U_step[N], dW[N], Ut[I_ * I_];
  for (int64_t i = 0; i < jac->n; i++) {
    double at[I_] = {0}, gt[O] = {0};
    for (int64_t j = 0; j < I_ * I_; j++) at[j % I_] += (double)jac->a[i * I_ + j / I_] * a->U[j];
    for (int64_t j = 0; j < I_; j++) at2[j] += at[j] * at[j];
    for (int64_t j = 0; j < I_ * I_; j++)
      a->A[j] += (double)jac->a[i * I_ + j / I_] * (double)jac->a[i * I_ + j % I_] / (double)jac->n;
    for (int64_t k = 0; k < O * O && jac->g != NULL; k++) gt[k % O] += (double)jac->g[i * O + k / O] * a->V[k];
    for (int64_t r = 0; r < jac->m; r++) {
      const float *const J = jac->J + (i * jac->m + r) * O;
      double ht[O] = {0};
      for (int64_t k = 0; k < O * O; k++) ht[k % O] += (double)J[k / O] * a->V[k];
      for (int64_t k = 0; k < O; k++) ht2[k] += ht[k] * ht[k];
      for (int64_t k = 0; k < O && jac->g == NULL; k++) gt[k] += ht[k] * (double)jac->e[i * jac->m + r];
      for (int64_t k = 0; k < O * O; k++) a->G[k] += (double)J[k / O] * (double)J[k % O] / (double)jac->n;
    }
    for (int64_t k = 0; k < N; k++) X[k] += gt[k / I_] * at[k % I_];
  }
  for (int64_t k = 0; k < N; k++) {
    a->D[k] += at2[k % I_] / (double)jac->n * ht2[k / I_];
    step[k] = X[k] / a->D[k];
  }
  dense_transpose(I_, I_, a->U, Ut);
  dense_multiply(O, I_, I_, step, Ut, U_step);
  dense_multiply(O, I_, O, a->V, U_step, dW);
  for (int64_t k = 0; k < N; k++) a->W[k] += dW[k];
}

/* Bases at steps 1, 5, 10, 20, 40 and every COV_REFRESH. */
static bool basis_due(int64_t step) {
  return step == 1 || step == 5 || step == 10 || step == 20 || step == 40 || (step > 0 && step % COV_REFRESH == 0);
}

/* With a delay of 7: bases asked for at 1, 5, 10, ... are taken then, the first two when the next one is due. */
static bool basis_taken(int64_t step, int64_t delay) {
  static const int64_t late[] = {5, 10, 17, 27, 47, COV_REFRESH + 7, 2 * COV_REFRESH + 7};
  bool taken = delay == 0 && basis_due(step);
  for (size_t k = 0; k < sizeof late / sizeof *late && delay > 0; k++) taken = taken || step == late[k];
  return taken;
}

static void identity(int64_t n, double *E) {
  for (int64_t k = 0; k < n * n; k++) E[k] = k % (n + 1) == 0;
}

/* δ is summed, not the mean, which is kept in float. */
static void run_algorithm(enum kwm_real real, bool sampled, int64_t delay) {
  const struct cov_shape shape = shape_of(KWM_FORM_INFORMATION, real);
  kwm_cov cov = cov_rows(&shape, sampled ? 1 : COV_OUTPUTS, delay);
  struct algorithm *const wanted = calloc(1, sizeof *wanted);
  double W[N] = {0}, delta[N];
  float mean[N] = {0};
  assert_non_null(wanted);
  identity(I_, wanted->U), identity(O, wanted->V);
  for (int64_t k = 0; k < N; k++) wanted->D[k] = cov_prior_precision;
  for (int64_t step = 0; step < 2 * COV_REFRESH + 3 + delay; step++) {
    struct sampled rows = sampled_rows(COV_SAMPLES, (uint64_t)(900 + step));
    struct jac_case plain = coarse((uint64_t)(900 + step));
    const struct kwm_jac jac = sampled ? rows.made.jac : plain.jac;
    struct cov_step prepared;
    if (delay == 0) set_aside(wanted);
    if (basis_taken(step, delay)) algorithm_refresh(wanted);
    if (basis_due(step)) set_aside(wanted);
    algorithm_step(wanted, &jac);
    assert_true(kwm_cov_predict(&cov, step, NULL, NULL));
    assert_true(cov_prepare(&cov, &jac, &prepared));
    kwm_cov_delta(&cov, delta);
    for (int64_t k = 0; k < N; k++) W[k] += delta[k];
    kwm_cov_apply(&cov, 1, mean);
    cov_step_drop(&prepared), jac_drop(&plain), sampled_drop(&rows);
    if (step % 20 > 1 && step > 12) continue;
    double P_trace = 0, D_sum = 0, wanted_trace = 0, wanted_sum = 0;
    struct cov_state found = cov_state_of(&cov);
    for (int64_t k = 0; k < N; k++) {
      P_trace += 1 / found.D[k], D_sum += found.D[k];
      wanted_trace += 1 / wanted->D[k], wanted_sum += wanted->D[k];
    }
    /* Eigenvectors are good to the rounding of the factors over the gap of their eigenvalues, about 0.1 here. */
    assert_close(P_trace, wanted_trace, either(real, 1e-10, 1e-4), 0);
    assert_close(D_sum, wanted_sum, either(real, 1e-11, 1e-5), 0);
    assert_below(dense_error(N, W, wanted->W), either(real, 1e-10, 1e-4));
    cov_state_drop(&found);
  }
  free(wanted), kwm_cov_destroy(&cov);
}

static void check_algorithm(enum kwm_form form, enum kwm_real real) {
  if (form != KWM_FORM_INFORMATION) return;
  run_algorithm(real, false, 0);
  run_algorithm(real, true, 0);
  run_algorithm(real, false, 7);
}

/* One sample and no basis yet: a scalar Kalman filter for each parameter. The caller may keep room for more rows. */
static void check_one_sample(enum kwm_form form, enum kwm_real real) {
  if (form != KWM_FORM_INFORMATION) return;
  const struct cov_shape shape = shape_of(form, real);
  for (int64_t m = 1; m <= COV_OUTPUTS; m += COV_OUTPUTS - 1) {
    kwm_cov cov = cov_rows(&shape, m, 0);
    struct sampled rows = sampled_rows(1, 950);
    struct cov_step prepared;
    float mean[N] = {0};
    double theta[N], p[N], kl = 0;
    assert_true(kwm_cov_predict(&cov, 0, NULL, NULL));
    assert_true(cov_prepare(&cov, &rows.made.jac, &prepared));
    kwm_cov_apply(&cov, 1, mean);
    struct cov_state found = cov_state_of(&cov);
    for (int64_t k = 0; k < N; k++) {
      const double a = (double)rows.made.a[k % I_], h = (double)rows.made.J[k / I_] * a,
                   prior = 1 / cov_prior_precision;
      p[k] = prior - prior * h * h * prior / (h * prior * h + 1);
      theta[k] = p[k] * a * (double)rows.g[k / I_];
      kl += h * h * theta[k] * theta[k];
      assert_close(1 / found.D[k], p[k], either(real, 1e-13, 1e-6), 0);
    }
    assert_below(dense_error_f32(N, mean, theta), 1e-6);
    assert_close(prepared.kl[0], kl, either(real, 1e-12, 1e-5), 0);
    cov_step_drop(&prepared), cov_state_drop(&found), sampled_drop(&rows), kwm_cov_destroy(&cov);
  }
}

static double sum_of(const double *values) {
  double sum = 0;
  for (int64_t k = 0; k < N; k++) sum += values[k];
  return sum;
}

/* Invariant 31, and: precision only grows between changes of basis (q = 0, nothing forgotten). */
static void run_precision(enum kwm_form form, enum kwm_real real, bool sampled) {
  const struct cov_shape shape = shape_of(form, real);
  const double close = either(real, 1e-13, 1e-6);
  kwm_cov cov = cov_rows(&shape, sampled ? 1 : COV_OUTPUTS, 0);
  float mean[N] = {0};
  struct cov_state last = cov_state_of(&cov);
  for (int64_t step = 0; step < 22; step++) {
    struct sampled rows = sampled_rows(COV_SAMPLES, (uint64_t)(740 + step));
    struct jac_case made = cov_jac(&shape, (uint64_t)(740 + step));
    assert_true(kwm_cov_predict(&cov, step, NULL, NULL));
    struct cov_state turned = cov_state_of(&cov);
    assert_true((memcmp(last.basis, turned.basis, N * N * sizeof *last.basis) != 0) == basis_due(step));
    assert_close(sum_of(turned.D), sum_of(last.D), close, 0);
    for (int64_t k = 0; k < N; k++) assert_true(turned.D[k] > 0);
    cov_measure(&cov, sampled ? &rows.made.jac : &made.jac, 1, mean);
    cov_state_drop(&last), jac_drop(&made), sampled_drop(&rows);
    last = cov_state_of(&cov);
    for (int64_t k = 0; k < N; k++) assert_true(last.D[k] >= turned.D[k]);
    cov_state_drop(&turned);
  }
  /* The basis of the same factors is the same. */
  assert_true(kwm_cov_predict(&cov, 5, NULL, NULL));
  struct cov_state once = cov_state_of(&cov);
  assert_true(kwm_cov_predict(&cov, 10, NULL, NULL));
  struct cov_state twice = cov_state_of(&cov);
  assert_memory_equal(once.basis, twice.basis, N * N * sizeof *once.basis);
  assert_below(dense_error(N, twice.D, once.D), close);
  cov_state_drop(&once), cov_state_drop(&twice), cov_state_drop(&last), kwm_cov_destroy(&cov);
}

static void check_precision(enum kwm_form form, enum kwm_real real) {
  run_precision(form, real, false);
  if (form == KWM_FORM_INFORMATION) run_precision(form, real, true);
}

/* kl = sum f δ² / samples in the basis; with evidence that factorises that is δᵀFδ / samples. */
static void check_kl(enum kwm_form form, enum kwm_real real) {
  if (form != KWM_FORM_INFORMATION) return;
  const struct cov_shape shape = shape_of(form, real);
  kwm_cov cov = cov_new(&shape, 1, 0);
  float mean[N] = {0};
  for (int64_t step = 0; step < 3; step++) {
    struct jac_case made = factorising(step);
    struct cov_step prepared;
    double delta[N], kl = 0;
    assert_true(kwm_cov_predict(&cov, step, NULL, NULL));
    assert_true(cov_prepare(&cov, &made.jac, &prepared));
    kwm_cov_delta(&cov, delta);
    kwm_cov_apply(&cov, 1, mean);
    double *const F = jac_dense_fisher(&made.jac);
    for (int64_t k = 0; k < N * N; k++) kl += delta[k / N] * F[k] * delta[k % N] / COV_SAMPLES;
    if (step > 0) assert_close(prepared.kl[0], kl, either(real, 1e-10, 1e-4), 0);
    free(F), cov_step_drop(&prepared), jac_drop(&made);
  }
  kwm_cov_destroy(&cov);
}

#define FOR_EACH(name)                                                                                                 \
  static void test_##name(void **state) {                                                                              \
    (void)state;                                                                                                       \
    each(check_##name);                                                                                                \
  }
FOR_EACH(exact)
FOR_EACH(scalar)
FOR_EACH(innovation)
FOR_EACH(algorithm)
FOR_EACH(one_sample)
FOR_EACH(precision)
FOR_EACH(kl)

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_exact),      cmocka_unit_test(test_scalar),    cmocka_unit_test(test_innovation),
    cmocka_unit_test(test_algorithm),  cmocka_unit_test(test_precision), cmocka_unit_test(test_kl),
    cmocka_unit_test(test_one_sample),
};
KWM_TEST_MAIN(tests)
