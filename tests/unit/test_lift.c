/* Koopman models: least squares by rotations against normal equations, an exact finite lift, spectrum, observability.
 */
#include "dense.h"
#include "kwm/lift.h"
#include "kwm/regression.h"

enum { K = 4, T = 2, ROWS = 60 };

static void row_of(int t, double *z, double *target) {
  for (int j = 0; j < K; j++) z[j] = test_normal(30, K * t + j);
  for (int i = 0; i < T; i++) target[i] = (i + 1) * z[0] - z[2] + 0.3 * test_normal(31, T * t + i);
}

/* (ZᵀZ + δI)⁻¹ Zᵀ Y */
static void ridge(double precision, double forgetting, double *wanted) {
  double G[K * K] = {0}, b[K * T] = {0}, z[K], target[T];
  for (int t = 0; t < ROWS; t++) {
    row_of(t, z, target);
    for (int i = 0; i < K; i++)
      for (int j = 0; j < K; j++) G[i * K + j] = forgetting * G[i * K + j] + z[i] * z[j];
    for (int i = 0; i < K; i++)
      for (int j = 0; j < T; j++) b[i * T + j] = forgetting * b[i * T + j] + z[i] * target[j];
  }
  for (int i = 0; i < K; i++) G[i * K + i] += precision * pow(forgetting, ROWS);
  dense_invert(K, G);
  double W[K * T];
  dense_multiply(K, T, K, G, b, W);
  dense_transpose(K, T, W, wanted);
}

static void test_recursive_is_ridge(void **state) {
  (void)state;
  const double forgettings[] = {1, 0.97};
  for (int f = 0; f < 2; f++) {
    struct kwm_regression regression;
    double mine[T * K], wanted[T * K], z[K], target[T];
    assert_ok(kwm_regression_create(&regression, K, T, 0.7));
    for (int t = 0; t < ROWS; t++) {
      row_of(t, z, target);
      kwm_regression_add(&regression, z, target, forgettings[f]);
    }
    ridge(0.7, forgettings[f], wanted);
    assert_true(kwm_regression_solve(&regression, mine, NULL));
    assert_below(dense_error(T * K, mine, wanted), 1e-12);
    kwm_regression_destroy(&regression);
  }
}

static void test_merge(void **state) {
  (void)state;
  struct kwm_regression whole, parts[3];
  double mine[T * K], wanted[T * K], variances[T * K], same[T * K], z[K], target[T], Q[T * T], Q2[T * T];
  assert_ok(kwm_regression_create(&whole, K, T, 1e-3));
  for (int p = 0; p < 3; p++) assert_ok(kwm_regression_create(&parts[p], K, T, p == 0 ? 1e-3 : 0));
  for (int t = 0; t < ROWS; t++) {
    row_of(t, z, target);
    kwm_regression_add(&whole, z, target, 1);
    kwm_regression_add(&parts[t % 3], z, target, 1);
  }
  for (int p = 1; p < 3; p++) kwm_regression_merge(&parts[0], &parts[p]);
  assert_true(kwm_regression_solve(&whole, wanted, same));
  assert_true(kwm_regression_solve(&parts[0], mine, variances));
  assert_below(dense_error(T * K, mine, wanted), 1e-12);
  assert_below(dense_error(T * K, variances, same), 1e-12);
  kwm_regression_noise(&whole, Q);
  kwm_regression_noise(&parts[0], Q2);
  assert_below(dense_error(T * T, Q2, Q), 1e-12);
  assert_close(Q[0], 0.09, 0.5, 0);
  struct kwm_regression empty;
  assert_ok(kwm_regression_create(&empty, K, T, 0));
  assert_false(kwm_regression_solve(&empty, mine, NULL));
  for (int p = 0; p < 3; p++) kwm_regression_destroy(&parts[p]);
  kwm_regression_destroy(&whole), kwm_regression_destroy(&empty);
}

/* x1⁺ = a x1, x2⁺ = b x2 + c (b - a²) x1²: eigenvalues a, b, a² are among those of K on all monomials of degree two. */
static void test_invariant_dictionary(void **state) {
  (void)state;
  const double a = 0.9, b = 0.5, c = 2;
  const struct kwm_lift_spec spec = {.m = 2, .degree = 2};
  struct kwm_lift lift;
  struct kwm_regression regression;
  struct kwm_lift_facts facts;
  assert_ok(kwm_lift_init(&lift, &spec));
  assert_int_equal(lift.size, 6);
  assert_ok(kwm_regression_create(&regression, lift.size, lift.size, 1e-20));
  for (int e = 0; e < 30; e++) {
    double x[2] = {test_normal(32, 2 * e), test_normal(32, 2 * e + 1)}, z[6], next[6];
    for (int t = 0; t < 8; t++) {
      kwm_lift_apply(&lift, x, z);
      const double moved[2] = {a * x[0], b * x[1] + c * (b - a * a) * x[0] * x[0]};
      kwm_lift_apply(&lift, moved, next);
      kwm_regression_add(&regression, z, next, 1);
      memcpy(x, moved, sizeof x);
    }
  }
  assert_true(kwm_regression_solve(&regression, lift.A, NULL));
  const double exact[2][6] = {{a, 0, 0, 0, 0, 0}, {0, b, 0, c * (b - a * a), 0, 0}}; /* x1 x2 1 x1² x1x2 x2² */
  for (int i = 0; i < 2; i++)
    for (int j = 0; j < 6; j++) assert_close(lift.A[i * 6 + j], exact[i][j], 0, 1e-11);
  double values[12], modes[12];
  assert_ok(kwm_lift_spectrum(&lift, values, modes, &facts));
  const double wanted[] = {1, a, a * a, b};
  for (int w = 0; w < 4; w++) {
    double nearest = INFINITY;
    for (int j = 0; j < 6; j++) nearest = fmin(nearest, hypot(values[2 * j] - wanted[w], values[2 * j + 1]));
    assert_below(nearest, 1e-8);
  }
  kwm_regression_destroy(&regression);
  kwm_lift_fini(&lift);
}

/* A rotation of modulus 1.2 beside a decaying state that no output sees. */
static void test_spectrum(void **state) {
  (void)state;
  const struct kwm_lift_spec spec = {.m = 1, .delays = 1, .degree = 1};
  struct kwm_lift lift;
  struct kwm_lift_facts facts;
  double values[6], modes[6];
  assert_ok(kwm_lift_init(&lift, &spec));
  const double A[9] = {1.2 * cos(0.4), -1.2 * sin(0.4), 0, 1.2 * sin(0.4), 1.2 * cos(0.4), 0, 0, 0, 0.5};
  memcpy(lift.A, A, sizeof A);
  assert_ok(kwm_lift_spectrum(&lift, values, modes, &facts));
  assert_close(facts.radius, 1.2, 1e-12, 0);
  assert_int_equal(facts.unstable, 2);
  assert_close(fabs(values[1]), 1.2 * sin(0.4), 1e-12, 0);
  assert_close(values[4], 0.5, 1e-12, 0);
  assert_close(facts.observability, 0, 0, 1e-12);
  assert_close(modes[0], sqrt(0.5), 1e-12, 0); /* half of the mode's square in either state */
  assert_close(modes[4], 0, 0, 1e-12);
  assert_ok(kwm_lift_stabilise(&lift, 1));
  assert_ok(kwm_lift_spectrum(&lift, values, modes, &facts));
  assert_close(facts.radius, 1, 1e-12, 0);
  assert_int_equal(facts.unstable, 0);
  assert_close(lift.A[0], cos(0.4), 1e-12, 0);
  assert_close(lift.A[8], 0.5, 1e-12, 0);
  kwm_lift_fini(&lift);
}

static void test_window(void **state) {
  (void)state;
  const struct kwm_lift_spec spec = {.m = 2, .delays = 2, .degree = 1};
  struct kwm_lift lift;
  const double y[] = {1, 2, 3, NAN, 5, 6, 7, 8};
  double window[6];
  assert_ok(kwm_lift_init(&lift, &spec));
  assert_false(
      kwm_lift_window(&lift, y, 3, 0, window)); /* output 2 is missing at step 1: the newer value stands for it */
  const double filled[] = {7, 8, 5, 6, 3, 6};
  assert_memory_equal(window, filled, sizeof filled);
  assert_false(kwm_lift_window(&lift, y, 3, 2, window)); /* the trajectory begins at step 2 */
  const double begun[] = {7, 8, 5, 6, 5, 6};
  assert_memory_equal(window, begun, sizeof begun);
  kwm_lift_fini(&lift);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_recursive_is_ridge),
      cmocka_unit_test(test_merge),
      cmocka_unit_test(test_invariant_dictionary),
      cmocka_unit_test(test_spectrum),
      cmocka_unit_test(test_window),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
