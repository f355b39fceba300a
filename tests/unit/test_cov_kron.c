/* `kron` against the dense filter where it is exact, and against its own definition in double precision where it is an
   approximation (equations.md 3(a), continual.md 4). */
#include "cov_case.h"

enum { O = 3, I_ = 5, N = O * I_, ROWS = COV_SAMPLES * COV_OUTPUTS };

static struct cov_shape shape_of(enum kwm_form form) {
  return (struct cov_shape){.structure = "kron", .form = form, .count = 1, .d_o = O, .d_i = I_};
}

/* The same J for every sample: HᵀH = (JᵀJ) ⊗ (sum a aᵀ) exactly. Only e differs from step to step. */
static struct jac_case factorising(const struct cov_shape *shape, int64_t step, float size) {
  struct jac_case made = cov_jac(shape, 700);
  for (int64_t k = 0; k < COV_SAMPLES * COV_OUTPUTS * O; k++) made.J[k] = size * made.J[k % (COV_OUTPUTS * O)];
  for (int64_t k = 0; k < ROWS; k++) made.e[k] = (float)test_normal((uint64_t)(800 + step), k);
  return made;
}

/* Invariant 30. A first step with next to no information gives the eigenbasis without touching P = cI. */
static void test_exact(void **state) {
  (void)state;
  const struct cov_shape shape = shape_of(KWM_FORM_INFORMATION);
  kwm_cov cov = cov_new(&shape, 1, 0.05);
  float mean[N] = {0};
  double wanted[N] = {0}, delta[N], *const P = dense_new(N * N), *const prior = cov_prior(&shape);
  for (int64_t k = 0; k < N; k++) P[k * N + k] = prior[k];
  for (int64_t step = 0; step < 11; step++) {
    struct jac_case made = factorising(&shape, step, step == 0 ? 1e-7f : 1.0f);
    double *const H = jac_rows(&made.jac), *const e = jac_innovation(&made.jac);
    dense_predict(N, P, prior, 1, 0.05);
    dense_update(N, ROWS, P, H, e, delta);
    for (int64_t k = 0; k < N; k++) wanted[k] += delta[k];
    assert_true(kwm_cov_predict(&cov, step));
    cov_measure(&cov, &made.jac, 1, mean);
    struct cov_state found = cov_state_of(&cov);
    assert_below(dense_error(N * N, found.P, P), 5e-5);
    if (step > 0) assert_below(dense_error_f32(N, mean, wanted), 5e-5);
    free(H), free(e), jac_drop(&made), cov_state_drop(&found);
  }
  free(P), free(prior), kwm_cov_destroy(&cov);
}

/* A single number, a single sample: the scalar Kalman filter, in both forms. */
static void test_scalar(void **state) {
  (void)state;
  for (int f = 0; f < 2; f++) {
    const struct cov_shape shape = {.structure = "kron",
                                    .form = f == 0 ? KWM_FORM_INFORMATION : KWM_FORM_INNOVATION,
                                    .count = 1,
                                    .d_o = 1,
                                    .d_i = 1};
    kwm_cov cov = cov_new(&shape, 1, 0.1);
    double p = 1 / cov_prior_precision, theta = 0;
    float mean = 0;
    for (int64_t step = 0; step < 12; step++) {
      struct jac_case made = jac_outer(1, 1, 1, 1, (uint64_t)(710 + step));
      const double h = (double)made.J[0] * (double)made.a[0], e = (double)made.e[0];
      p += 0.1 / cov_prior_precision;
      theta += p * h / (h * p * h + 1) * e;
      p /= 1 + p * h * h;
      assert_true(kwm_cov_predict(&cov, step));
      cov_measure(&cov, &made.jac, 1, &mean);
      struct kwm_health health = {0};
      kwm_cov_health(&cov, &health);
      assert_close((double)mean, theta, 1e-5, 1e-6);
      assert_close(health.trace, p, 1e-5, 0);
      jac_drop(&made);
    }
    kwm_cov_destroy(&cov);
  }
}

/* In any basis and with any data: S and δ are the dense filter's with the same P, and of the dense posterior the
   diagonal in the basis is kept. */
static void test_innovation(void **state) {
  (void)state;
  const struct cov_shape shape = shape_of(KWM_FORM_INNOVATION);
  kwm_cov cov = cov_new(&shape, 0.95, 0.02);
  for (int64_t step = 0; step < 7; step++) {
    struct jac_case made = cov_jac(&shape, (uint64_t)(730 + step));
    double *const H = jac_rows(&made.jac), *const e = jac_innovation(&made.jac), delta[N], S[ROWS * ROWS];
    assert_true(kwm_cov_predict(&cov, step));
    struct cov_state before = cov_state_of(&cov);
    float mean[N] = {0}, found_S[ROWS * ROWS] = {0};
    dense_innovation_covariance(N, ROWS, before.P, H, S);
    dense_update(N, ROWS, before.P, H, e, delta);
    kwm_cov_project(&cov, &made.jac, found_S);
    for (int64_t k = 0; k < ROWS; k++) found_S[k * ROWS + k] += 1;
    assert_below(dense_error_f32(ROWS * ROWS, found_S, S), 5e-6);
    cov_measure(&cov, &made.jac, 1, mean);
    assert_below(dense_error_f32(N, mean, delta), 2e-5);
    struct cov_state after = cov_state_of(&cov);
    assert_memory_equal(before.basis, after.basis, N * N * sizeof *after.basis);
    for (int64_t k = 0; k < N; k++) {
      double left = 0;
      for (int64_t i = 0; i < N; i++)
        for (int64_t j = 0; j < N; j++) left += before.basis[i * N + k] * before.P[i * N + j] * before.basis[j * N + k];
      assert_close(1 / after.D[k], left, 5e-5, 0);
    }
    free(H), free(e), jac_drop(&made), cov_state_drop(&before), cov_state_drop(&after);
  }
  kwm_cov_destroy(&cov);
}

/* continual.md 4 in double precision. */
struct algorithm {
  double W[N], D[N], A[I_ * I_], G[O * O], U[I_ * I_], V[O * O];
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
  memcpy(A, a->A, sizeof A), memcpy(G, a->G, sizeof G);
  dense_eigenvectors(I_, A, U);
  dense_eigenvectors(O, G, V);
  overlap(I_, U, a->U, RU);
  overlap(O, V, a->V, RV);
  dense_transpose(I_, I_, RU, RUt);
  dense_multiply(O, I_, I_, a->D, RUt, T);
  dense_multiply(O, I_, O, RV, T, a->D);
  memcpy(a->U, U, sizeof U), memcpy(a->V, V, sizeof V);
}

static void algorithm_step(struct algorithm *a, const struct kwm_jac *jac) {
  double at2[I_] = {0}, ht2[O] = {0}, X[N] = {0}, step[N], U_step[N], dW[N], Ut[I_ * I_];
  for (int64_t i = 0; i < jac->n; i++) {
    double at[I_] = {0}, gt[O] = {0};
    for (int64_t j = 0; j < I_ * I_; j++) at[j % I_] += (double)jac->a[i * I_ + j / I_] * a->U[j];
    for (int64_t j = 0; j < I_; j++) at2[j] += at[j] * at[j];
    for (int64_t j = 0; j < I_ * I_; j++)
      a->A[j] += (double)jac->a[i * I_ + j / I_] * (double)jac->a[i * I_ + j % I_] / (double)jac->n;
    for (int64_t r = 0; r < jac->m; r++) {
      const float *const J = jac->J + (i * jac->m + r) * O;
      double ht[O] = {0};
      for (int64_t k = 0; k < O * O; k++) ht[k % O] += (double)J[k / O] * a->V[k];
      for (int64_t k = 0; k < O; k++) ht2[k] += ht[k] * ht[k], gt[k] += ht[k] * (double)jac->e[i * jac->m + r];
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

static void identity(int64_t n, double *E) {
  for (int64_t k = 0; k < n * n; k++) E[k] = k % (n + 1) == 0;
}

static void test_algorithm(void **state) {
  (void)state;
  const struct cov_shape shape = shape_of(KWM_FORM_INFORMATION);
  kwm_cov cov = cov_new(&shape, 1, 0);
  struct algorithm *const wanted = calloc(1, sizeof *wanted);
  float mean[N] = {0};
  assert_non_null(wanted);
  identity(I_, wanted->U), identity(O, wanted->V);
  for (int64_t k = 0; k < N; k++) wanted->D[k] = cov_prior_precision;
  for (int64_t step = 0; step < 2 * COV_REFRESH + 3; step++) {
    struct jac_case made = cov_jac(&shape, (uint64_t)(900 + step));
    if (basis_due(step)) algorithm_refresh(wanted);
    algorithm_step(wanted, &made.jac);
    assert_true(kwm_cov_predict(&cov, step));
    cov_measure(&cov, &made.jac, 1, mean);
    jac_drop(&made);
    if (step % 20 > 1 && step > 12) continue;
    double P_trace = 0, D_sum = 0, wanted_trace = 0, wanted_sum = 0;
    struct cov_state found = cov_state_of(&cov);
    for (int64_t k = 0; k < N; k++) {
      P_trace += 1 / found.D[k], D_sum += found.D[k];
      wanted_trace += 1 / wanted->D[k], wanted_sum += wanted->D[k];
    }
    /* Eigenvectors are good to 6e-8 over the gap of their eigenvalues, about 0.1 here. */
    assert_close(P_trace, wanted_trace, 1e-4, 0);
    assert_close(D_sum, wanted_sum, 1e-5, 0);
    assert_below(dense_error_f32(N, mean, wanted->W), 1e-4);
    cov_state_drop(&found);
  }
  free(wanted), kwm_cov_destroy(&cov);
}

/* Invariant 31, and: precision only grows between changes of basis (q = 0, nothing forgotten). */
static void test_precision(void **state) {
  (void)state;
  for (int f = 0; f < 2; f++) {
    const struct cov_shape shape = shape_of(f == 0 ? KWM_FORM_INFORMATION : KWM_FORM_INNOVATION);
    kwm_cov cov = cov_new(&shape, 1, 0);
    float mean[N] = {0};
    struct cov_state last = cov_state_of(&cov);
    for (int64_t step = 0; step < 22; step++) {
      struct jac_case made = cov_jac(&shape, (uint64_t)(740 + step));
      assert_true(kwm_cov_predict(&cov, step));
      struct cov_state turned = cov_state_of(&cov);
      double before = 0, after = 0;
      for (int64_t k = 0; k < N; k++) before += last.D[k], after += turned.D[k];
      assert_true((memcmp(last.basis, turned.basis, N * N * sizeof *last.basis) != 0) == basis_due(step));
      assert_close(after, before, 1e-6, 0);
      for (int64_t k = 0; k < N; k++) assert_true(turned.D[k] > 0);
      cov_measure(&cov, &made.jac, 1, mean);
      cov_state_drop(&last), jac_drop(&made);
      last = cov_state_of(&cov);
      for (int64_t k = 0; k < N; k++) assert_true(last.D[k] >= turned.D[k]);
      cov_state_drop(&turned);
    }
    cov_state_drop(&last), kwm_cov_destroy(&cov);
  }
}

/* kl = sum f δ² / samples in the basis; with evidence that factorises that is δᵀFδ / samples. */
static void test_kl(void **state) {
  (void)state;
  const struct cov_shape shape = shape_of(KWM_FORM_INFORMATION);
  kwm_cov cov = cov_new(&shape, 1, 0);
  for (int64_t step = 0; step < 3; step++) {
    struct jac_case made = factorising(&shape, step, step == 0 ? 1e-7f : 1.0f);
    struct cov_step prepared;
    float delta[N] = {0};
    assert_true(kwm_cov_predict(&cov, step));
    assert_true(cov_prepare(&cov, &made.jac, &prepared));
    kwm_cov_apply(&cov, 1, delta);
    double *const F = jac_dense_fisher(&made.jac), kl = 0;
    for (int64_t k = 0; k < N * N; k++) kl += (double)delta[k / N] * F[k] * (double)delta[k % N] / COV_SAMPLES;
    if (step > 0) assert_close(prepared.kl[0], kl, 1e-4, 0);
    free(F), cov_step_drop(&prepared), jac_drop(&made);
  }
  kwm_cov_destroy(&cov);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_exact),     cmocka_unit_test(test_scalar),    cmocka_unit_test(test_innovation),
    cmocka_unit_test(test_algorithm), cmocka_unit_test(test_precision), cmocka_unit_test(test_kl),
};
KWM_TEST_MAIN(tests)
