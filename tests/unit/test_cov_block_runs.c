/* `block` in float over a hundred thousand steps of a stiff problem, in every form: the state stays symmetric and
   positive definite and close to the double filter. Bounds, with all variances scaled to 1: 5e-4 without process noise,
   where errors add up, 2e-5 with it, where they are forgotten. */
#include "cov_case.h"
#include "kwm/backend.h"

enum { N = 12, LONG = 100000, RUN_ROWS = 2 };

/* Stiff: what the data say of a parameter spans six decades. */
static float stiff(int64_t k) {
  return (float)pow(10, 1.5 - 3 * (double)(k % N) / (N - 1));
}

/* One block of N parameters: two rows a step, drawn from a pool. */
static struct kwm_cov_spec run_spec(enum kwm_form form, bool matrix, double q) {
  static const double variance[N] = {1, 2, 0.5, 1, 3, 1, 0.7, 1, 1, 2, 1, 0.5};
  return (struct kwm_cov_spec){.name = "group",
                               .form = form,
                               .real = KWM_REAL_FLOAT,
                               .count = 1,
                               .total = 1,
                               .params = N,
                               .d_o = matrix ? 1 : 0,
                               .d_i = matrix ? N : 0,
                               .prior_variance = matrix ? NULL : variance,
                               .prior_precision = matrix ? 1 : 0,
                               .forgetting = 1,
                               .process_noise = q,
                               .n_max = RUN_ROWS,
                               .m = 1};
}

/* Step's rows: a (RUN_ROWS, N) as outer rows with J = 1, S the same as units' rows. */
struct run_rows {
  float J[2 * RUN_ROWS], S[2 * RUN_ROWS * N], a[RUN_ROWS * N], e[RUN_ROWS];
};

static struct kwm_jac run_jac(struct run_rows *rows, bool matrix, int64_t step) {
  for (int64_t i = 0; i < RUN_ROWS; i++) {
    rows->e[i] = (float)test_normal(41, step * RUN_ROWS + i);
    rows->J[2 * i] = 1, rows->J[2 * i + 1] = 0;
    if (matrix) rows->J[i] = 1;
    for (int64_t k = 0; k < N; k++) {
      const float a = stiff(k) * (float)test_normal(42, (step % 997 * RUN_ROWS + i) * N + k);
      rows->a[i * N + k] = rows->S[2 * i * N + k] = a;
      rows->S[(2 * i + 1) * N + k] = 0;
    }
  }
  if (matrix) rows->J[0] = rows->J[1] = 1;
  return (struct kwm_jac){.shape = matrix ? KWM_JAC_OUTER : KWM_JAC_UNITS,
                          .n = RUN_ROWS,
                          .m = 1,
                          .count = 1,
                          .channels = 2,
                          .params = N,
                          .d_o = 1,
                          .d_i = N,
                          .J = rows->J,
                          .S = rows->S,
                          .a = rows->a,
                          .e = rows->e};
}

/* The double filter, one row after the other: K = P h/(hᵀPh + 1), P <- P - K (P h)ᵀ. */
static void textbook(double *P, const float *h) {
  double Ph[N], alpha = 1;
  for (int64_t i = 0; i < N; i++) {
    Ph[i] = 0;
    for (int64_t j = 0; j < N; j++) Ph[i] += P[i * N + j] * (double)h[j];
  }
  for (int64_t i = 0; i < N; i++) alpha += (double)h[i] * Ph[i];
  for (int64_t i = 0; i < N; i++)
    for (int64_t j = 0; j < N; j++) P[i * N + j] -= Ph[i] * Ph[j] / alpha;
}

static void measure(kwm_cov *cov, const struct kwm_jac *jac, float *mean) {
  double S[RUN_ROWS * RUN_ROWS] = {0}, w[RUN_ROWS], kl;
  if (cov->spec.form == KWM_FORM_INFORMATION) {
    float evidence[N * N + N] = {0};
    kwm_cov_evidence(cov, jac, evidence);
    assert_true(kwm_cov_absorb(cov, jac, evidence, RUN_ROWS, &kl));
    kwm_cov_apply(cov, 1, mean);
    return;
  }
  kwm_cov_project(cov, jac, S);
  for (int64_t k = 0; k < RUN_ROWS; k++) S[k * RUN_ROWS + k] += 1, w[k] = (double)jac->e[k];
  assert_true(kwm_cholesky_f64(RUN_ROWS, S, RUN_ROWS));
  kwm_cholesky_solve_f64(RUN_ROWS, S, RUN_ROWS, w);
  assert_true(kwm_cov_condition(cov, jac, S, w));
  kwm_cov_apply(cov, 1, mean);
}

/* Smallest eigenvalue of P (N, N) scaled to unit diagonal. */
static double smallest(const double *P) {
  double A[N * N], E[N * N], least = INFINITY;
  for (int64_t k = 0; k < N * N; k++) A[k] = P[k] / sqrt(P[k / N * (N + 1)] * P[k % N * (N + 1)]);
  dense_eigenvectors(N, A, E);
  for (int64_t k = 0; k < N; k++) least = fmin(least, A[k * (N + 1)]);
  return least;
}

/* |P - wanted| with both scaled to wanted's unit diagonal: small variances count as much as large ones. */
static double scaled_error(const double *P, const double *wanted) {
  double a[N * N], b[N * N];
  for (int64_t k = 0; k < N * N; k++) {
    const double scale = sqrt(wanted[k / N * (N + 1)] * wanted[k % N * (N + 1)]);
    a[k] = P[k] / scale, b[k] = wanted[k] / scale;
  }
  return dense_error(N * N, a, b);
}

static void check_long_run(enum kwm_form form, bool matrix, double q, double bound) {
  const struct kwm_cov_spec spec = run_spec(form, matrix, q);
  struct run_rows rows;
  kwm_cov cov;
  float mean[N] = {0};
  double wanted[N * N] = {0}, prior[N];
  assert_ok(kwm_cov_create(&cov, &kwm_cov_block, &spec));
  for (int64_t k = 0; k < N; k++) wanted[k * (N + 1)] = prior[k] = matrix ? 1 : spec.prior_variance[k];
  for (int64_t step = 0; step < LONG; step++) {
    const struct kwm_jac jac = run_jac(&rows, matrix, step);
    assert_true(kwm_cov_predict(&cov, step, NULL, mean));
    measure(&cov, &jac, mean);
    for (int64_t k = 0; k < N; k++) wanted[k * (N + 1)] += q * prior[k];
    for (int64_t i = 0; i < RUN_ROWS; i++) textbook(wanted, rows.a + i * N);
    if (step % 10000 != 9999) continue;
    struct cov_state found = cov_state_of(&cov);
    for (int64_t k = 0; k < N * N; k++) /* an information state is read through an inverse */
      assert_close(found.P[k], found.P[k % N * N + k / N], form == KWM_FORM_INNOVATION ? 0 : 1e-6, 1e-12);
    const double least = smallest(wanted);
    assert_true(smallest(found.P) > 0.5 * least && least > 0);
    assert_below(scaled_error(found.P, wanted), bound);
    cov_state_drop(&found);
  }
  struct kwm_health health = {0};
  kwm_cov_health(&cov, &health);
  assert_true(health.floor_hits == 0);
  for (int64_t k = 0; k < N; k++) assert_true(isfinite(mean[k]));
  kwm_cov_destroy(&cov);
}

static void test_long_innovation(void **state) {
  (void)state;
  check_long_run(KWM_FORM_INNOVATION, false, 0, 5e-4);
  check_long_run(KWM_FORM_INNOVATION, true, 0, 5e-4);
}

static void test_long_innovation_noisy(void **state) {
  (void)state;
  check_long_run(KWM_FORM_INNOVATION, false, 1e-4, 2e-5);
  check_long_run(KWM_FORM_INNOVATION, true, 1e-4, 2e-5);
}

static void test_long_information(void **state) {
  (void)state;
  check_long_run(KWM_FORM_INFORMATION, true, 0, 5e-4);
  check_long_run(KWM_FORM_INFORMATION, true, 1e-4, 2e-5);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_long_innovation),
    cmocka_unit_test(test_long_innovation_noisy),
    cmocka_unit_test(test_long_information),
};
KWM_TEST_MAIN(tests)
