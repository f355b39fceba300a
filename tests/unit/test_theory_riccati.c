/* The algebraic Riccati equation by doubling against plain iteration, the scalar closed form, and what has no solution;
   and the solver and eigenvalues of any matrix that it and the theory stand on. */
#include "dense.h"

#include "kwm/backend.h"
#include "kwm/theory.h"

enum { N = 6, M = 2 };

struct system {
  double A[N * N], C[M * N], Q[N * N], R[M * M];
};

/* Stable or not, as `scale` says; Q of full rank, R dense. */
static struct system make(uint64_t what, double scale) {
  struct system s;
  double root[N * N], transposed[N * N];
  for (int k = 0; k < N * N; k++) s.A[k] = scale * test_normal(what, k), root[k] = test_normal(what, 100 + k);
  for (int k = 0; k < M * N; k++) s.C[k] = test_normal(what, 200 + k);
  dense_transpose(N, N, root, transposed);
  dense_multiply(N, N, N, root, transposed, s.Q);
  s.R[0] = 0.5, s.R[1] = s.R[2] = 0.2, s.R[3] = 1;
  return s;
}

/* P <- A P Aᵀ - A P Cᵀ(C P Cᵀ + R)⁻¹C P Aᵀ + Q, `steps` times from 0. */
static void iterate(const struct system *s, int64_t steps, double *P) {
  double PC[N * M], S[M * M], Ct[N * M], At[N * N], K[N * M], KPC[N * N], PCt[M * N], T[N * N];
  memset(P, 0, N * N * sizeof *P);
  dense_transpose(M, N, s->C, Ct), dense_transpose(N, N, s->A, At);
  for (int64_t step = 0; step < steps; step++) {
    dense_multiply(N, M, N, P, Ct, PC);
    dense_multiply(M, M, N, s->C, PC, S);
    for (int k = 0; k < M * M; k++) S[k] += s->R[k];
    dense_invert(M, S);
    dense_multiply(N, M, M, PC, S, K);
    dense_transpose(N, M, PC, PCt);
    dense_multiply(N, N, M, K, PCt, KPC);
    for (int k = 0; k < N * N; k++) P[k] -= KPC[k];
    dense_multiply(N, N, N, s->A, P, T);
    dense_multiply(N, N, N, T, At, P);
    for (int k = 0; k < N * N; k++) P[k] += s->Q[k];
    for (int i = 0; i < N; i++)
      for (int j = 0; j < i; j++) P[i * N + j] = P[j * N + i] = (P[i * N + j] + P[j * N + i]) / 2;
  }
}

static void test_against_plain_iteration(void **state) {
  (void)state;
  const double scales[] = {0.2, 0.6};
  for (int k = 0; k < 2; k++) {
    const struct system s = make(70 + (uint64_t)k, scales[k]);
    struct kwm_riccati_report report;
    double X[N * N], P[N * N];
    const size_t before = kwm_mem_bytes();
    assert_ok(kwm_riccati_doubling(N, M, s.A, s.C, s.Q, s.R, 30, X, &report));
    assert_int_equal(kwm_mem_bytes(), before);
    assert_int_equal(report.verdict, KWM_RICCATI_CONVERGED);
    assert_true(report.doublings <= 12 && report.change <= 1e-13 && report.residual <= 1e-12);
    iterate(&s, 2000, P);
    assert_true(dense_error(N * N, X, P) <= 1e-11);
  }
}

static void test_doublings_are_powers_of_two(void **state) {
  (void)state;
  const struct system s = make(72, 0.6);
  for (int k = 1; k <= 4; k++) {
    struct kwm_riccati_report report;
    double X[N * N], P[N * N];
    assert_ok(kwm_riccati_doubling(N, M, s.A, s.C, s.Q, s.R, k, X, &report));
    assert_int_equal(report.doublings, k);
    iterate(&s, (int64_t)1 << k, P);
    assert_true(dense_error(N * N, X, P) <= 1e-11);
  }
}

static void test_scalar_closed_form(void **state) {
  (void)state;
  const double one = 1, f = 4, R = 1 / f, products[] = {1e-6, 0.3, 50};
  for (int k = 0; k < 3; k++) {
    const double q = products[k] / f, after = (-q + sqrt(q * q + 4 * q / f)) / 2;
    struct kwm_riccati_report report;
    double X = 0;
    assert_ok(kwm_riccati_doubling(1, 1, &one, &one, &q, &R, 30, &X, &report));
    assert_int_equal(report.verdict, KWM_RICCATI_CONVERGED);
    assert_close(X, after + q, 1e-9, 0);
    assert_close(X / (1 + X * f), after, 1e-9, 0);
  }
}

/* The second state of diag(0.5, a) is not observed. */
static enum kwm_riccati_verdict unseen(double a, double noise, int doublings) {
  const double A[4] = {0.5, 0, 0, a}, C[2] = {1, 0}, Q[4] = {1, 0, 0, noise}, R = 1;
  struct kwm_riccati_report report;
  double X[4];
  assert_ok(kwm_riccati_doubling(2, 1, A, C, Q, &R, doublings, X, &report));
  return report.verdict;
}

static void test_without_solution(void **state) {
  (void)state;
  assert_int_equal(unseen(0.9, 1, 30), KWM_RICCATI_CONVERGED); /* detectable: it decays by itself */
  assert_int_equal(unseen(1, 1, 30), KWM_RICCATI_UNDETECTABLE);
  assert_int_equal(unseen(1.5, 1, 30), KWM_RICCATI_UNDETECTABLE);
  assert_int_equal(unseen(0.9, 1, 4), KWM_RICCATI_SLOW);
  assert_int_equal(unseen(1, 1, 4), KWM_RICCATI_SLOW); /* too early to say more */
  const double one = 1, none = 0, bad = NAN;
  struct kwm_riccati_report report;
  double X = 0;
  assert_ok(kwm_riccati_doubling(1, 1, &one, &one, &one, &none, 30, &X, &report));
  assert_int_equal(report.verdict, KWM_RICCATI_NUMERIC);
  assert_ok(kwm_riccati_doubling(1, 1, &bad, &one, &one, &one, 30, &X, &report));
  assert_int_equal(report.verdict, KWM_RICCATI_NUMERIC);
  /* No noise at all: nothing moves. */
  assert_ok(kwm_riccati_doubling(1, 1, &one, &one, &none, &one, 30, &X, &report));
  assert_true(report.verdict == KWM_RICCATI_CONVERGED && X <= 0 && X >= 0 && report.residual <= 0);
}

static void test_words(void **state) {
  (void)state;
  for (int a = KWM_RICCATI_CONVERGED; a <= KWM_RICCATI_NUMERIC; a++)
    for (int b = a + 1; b <= KWM_RICCATI_NUMERIC; b++)
      assert_string_not_equal(kwm_riccati_words((enum kwm_riccati_verdict)a),
                              kwm_riccati_words((enum kwm_riccati_verdict)b));
}

static void test_any_matrix(void **state) {
  (void)state;
  double A[4] = {1, 2, 3, 4}, B[4] = {5, 6, 11, 12}, real[2], imaginary[2];
  assert_true(kwm_solve_f64(2, 2, A, B));
  assert_close(B[0], 1, 1e-14, 0);
  assert_close(B[1], 0, 0, 1e-14);
  assert_close(B[2], 2, 1e-14, 0);
  assert_close(B[3], 3, 1e-14, 0);
  double singular[4] = {1, 2, 2, 4}, right[2] = {1, 1}, turn[4] = {0, -2, 2, 0};
  assert_false(kwm_solve_f64(2, 1, singular, right));
  assert_true(kwm_poles_f64(2, turn, real, imaginary));
  assert_close(real[0], 0, 0, 1e-14);
  assert_close(fabs(imaginary[0]), 2, 1e-14, 0);
  assert_close(imaginary[0] + imaginary[1], 0, 0, 1e-14);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_against_plain_iteration),
      cmocka_unit_test(test_doublings_are_powers_of_two),
      cmocka_unit_test(test_scalar_closed_form),
      cmocka_unit_test(test_without_solution),
      cmocka_unit_test(test_words),
      cmocka_unit_test(test_any_matrix),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
