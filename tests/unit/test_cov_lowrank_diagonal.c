/* `lowrank` of kind diagonal where its rank is not enough: time update, S and δ are exact for the Λ = diag(d) + BBᵀ at
   hand; what compression gives up stays on the diagonal, so that with no columns it would be `diag`. */
#include "lowrank_case.h"

enum { STEPS = 5, N_MAX = 48 };
static const double LAMBDA = 0.95, NOISE = 0.02;

static const float zeros[N_MAX] = {0};

/* P (n, n) in the parameters' units <-> Λ in z. */
static void to_precision(int64_t n, double *P, const double *prior) {
  lowrank_scale(n, P, prior, -0.5);
  dense_invert(n, P);
}

static void to_covariance(int64_t n, double *L, const double *prior) {
  dense_invert(n, L);
  lowrank_scale(n, L, prior, 0.5);
}

/* L = Λ⁺ (n, n) <- D + D^½ A_r D^½ + diag(D^½ (A - A_r) D^½), A = D^-½ (Λ⁺ - D) D^-½, A_r its r largest directions. */
static void compress(int64_t n, double *L, const double *d, int64_t r) {
  double *const A = dense_new(n * n), *const values = dense_new(n), *const E = dense_new(n * n);
  for (int64_t k = 0; k < n * n; k++) A[k] = (L[k] - (k / n == k % n ? d[k / n] : 0)) / sqrt(d[k / n] * d[k % n]);
  dense_spectrum(n, A, values, E);
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = 0; j < n; j++) {
      double sum = 0;
      for (int64_t k = 0; k < r; k++) sum += values[k] * E[k * n + i] * E[k * n + j];
      if (i != j) L[i * n + j] = sqrt(d[i] * d[j]) * sum;
    }
  free(A), free(values), free(E);
}

/* Time update and measurement of a state with a d of its own, against the dense ones and the compression above. */
static void check_step(kwm_cov *cov, const struct cov_shape *shape, int64_t step) {
  const int64_t n = cov_numbers(shape), r = shape->rank < n ? shape->rank : n;
  const double close = lowrank_close(shape);
  struct jac_case made = cov_jac(shape, (uint64_t)(1500 + step));
  double *const prior = cov_prior(shape), wanted[N_MAX], delta[N_MAX], found[N_MAX];
  float anchor[N_MAX], mean[N_MAX] = {0};
  lowrank_anchor(n, anchor);
  struct cov_state before = cov_state_of(cov);
  for (int64_t k = 0; k < n; k++) wanted[k] = 0;
  dense_time(n, before.P, prior, LAMBDA, NOISE, anchor, wanted);
  assert_true(kwm_cov_predict(cov, step, anchor, mean));
  struct cov_state predicted = cov_state_of(cov);
  assert_below(dense_error(n * n, predicted.P, before.P), close);
  assert_below(dense_error_f32(n, mean, wanted), shape->real == KWM_REAL_DOUBLE ? 2e-7 : 2e-5);
  double *const d = lowrank_d(cov);
  dense_measure(n, predicted.P, &made.jac, delta);
  lowrank_measure(cov, &made.jac, mean, found);
  struct cov_state after = cov_state_of(cov);
  assert_below(dense_error(n, found, delta), close);
  assert_true(dense_smallest(n, after.P) > 0);
  to_precision(n, predicted.P, prior);
  double *const full = dense_copy(n * n, predicted.P), *const kept = dense_copy(n * n, after.P);
  to_precision(n, kept, prior);
  for (int64_t k = 0; k < n; k++) assert_close(kept[k * n + k], full[k * n + k], close / 10, 0);
  compress(n, predicted.P, d, r);
  to_covariance(n, predicted.P, prior);
  assert_below(dense_error(n * n, after.P, predicted.P), close);
  struct kwm_health health = {0};
  kwm_cov_health(cov, &health);
  assert_close(health.trace, dense_trace(n, after.P), 1e-6, 0);
  free(prior), free(d), free(full), free(kept), jac_drop(&made);
  cov_state_drop(&before), cov_state_drop(&predicted), cov_state_drop(&after);
}

static void test_compression(void **state) {
  (void)state;
  const struct cov_shape shapes[] = {lowrank_units(KWM_LOWRANK_DIAGONAL, 1), lowrank_units(KWM_LOWRANK_DIAGONAL, 10),
                                     lowrank_matrix(KWM_LOWRANK_DIAGONAL, 4, 3, 5)};
  for (size_t c = 0; c < LOWRANK_WAYS * sizeof shapes / sizeof shapes[0]; c++) {
    const struct cov_shape shape = lowrank_way(shapes[c / LOWRANK_WAYS], (int)(c % LOWRANK_WAYS));
    kwm_cov cov = cov_new(&shape, LAMBDA, NOISE);
    for (int64_t step = 0; step < STEPS; step++) check_step(&cov, &shape, step);
    kwm_cov_destroy(&cov);
  }
}

/* Whatever the rank, the diagonal of Λ is the precision of diag's information form: to it the rows are all there is. */
static void check_as_diag(const struct cov_shape *shape) {
  const int64_t n = cov_numbers(shape);
  struct cov_shape scalar = *shape;
  scalar.structure = "diag";
  kwm_cov cov = cov_new(shape, LAMBDA, 0), plain = cov_new(&scalar, LAMBDA, 0);
  double *const prior = cov_prior(shape);
  float mean[N_MAX] = {0}, other[N_MAX] = {0};
  for (int64_t step = 0; step < STEPS; step++) {
    struct jac_case made = cov_jac(shape, (uint64_t)(1510 + step));
    assert_true(kwm_cov_predict(&cov, step, zeros, mean) && kwm_cov_predict(&plain, step, zeros, other));
    cov_measure(&cov, &made.jac, 1, mean);
    cov_measure(&plain, &made.jac, 1, other);
    struct cov_state found = cov_state_of(&cov), wanted = cov_state_of(&plain);
    to_precision(n, found.P, prior);
    /* diag's evidence is a float sum. */
    for (int64_t k = 0; k < n; k++) assert_close(found.P[k * n + k], prior[k] / wanted.P[k * n + k], 2e-5, 0);
    cov_state_drop(&found), cov_state_drop(&wanted), jac_drop(&made);
  }
  free(prior), kwm_cov_destroy(&cov), kwm_cov_destroy(&plain);
}

static void test_as_diag(void **state) {
  (void)state;
  const struct cov_shape shapes[] = {lowrank_units(KWM_LOWRANK_DIAGONAL, 1), lowrank_units(KWM_LOWRANK_DIAGONAL, 9),
                                     lowrank_matrix(KWM_LOWRANK_DIAGONAL, 2, 3, 5)};
  for (int c = 0; c < 6; c++) {
    const struct cov_shape shape = lowrank_as(shapes[c / 2], KWM_FORM_INFORMATION, (enum kwm_real)(c % 2));
    check_as_diag(&shape);
  }
}

/* KL(exact posterior || a structure's) after some steps. */
static double gap(const struct cov_shape *shape) {
  const int64_t n = cov_numbers(shape);
  kwm_cov cov = cov_new(shape, 1, 0.001);
  double *const prior = cov_prior(shape), *const P = dense_diagonal(n, prior), delta[N_MAX];
  float mean[N_MAX] = {0};
  for (int64_t step = 0; step < 8; step++) {
    struct jac_case made = cov_jac(shape, (uint64_t)(1520 + step));
    dense_predict(n, P, prior, 1, 0.001);
    dense_measure(n, P, &made.jac, delta);
    assert_true(kwm_cov_predict(&cov, step, zeros, mean));
    cov_measure(&cov, &made.jac, 1, mean);
    jac_drop(&made);
  }
  struct cov_state found = cov_state_of(&cov);
  const double kl = dense_kl(n, P, found.P);
  free(prior), free(P), cov_state_drop(&found), kwm_cov_destroy(&cov);
  return kl;
}

/* Nearer to the exact filter than form B of the same rank, and the nearer, the more columns. */
static void test_nearer(void **state) {
  (void)state;
  static const int64_t ranks[] = {2, 10, 20, 40, 48};
  for (int w = 0; w < LOWRANK_WAYS; w++) {
    double last = INFINITY;
    for (size_t k = 0; k < sizeof ranks / sizeof ranks[0]; k++) {
      const struct cov_shape diagonal = lowrank_way(lowrank_units(KWM_LOWRANK_DIAGONAL, ranks[k]), w);
      const struct cov_shape precision = lowrank_way(lowrank_units(KWM_LOWRANK_PRECISION, ranks[k]), w);
      const double kl = gap(&diagonal);
      assert_below(kl, last);
      if (ranks[k] < 40) assert_below(kl, gap(&precision));
      last = kl;
    }
    assert_below(last, w / 2 == KWM_REAL_DOUBLE ? 1e-10 : 1e-5);
  }
}

/* Ritz values of P0^-½ P P0^-½ in the span of the columns, then the mean in all other directions. */
static void check_spectrum(const struct cov_shape *shape) {
  const int64_t n = cov_numbers(shape), r = shape->rank;
  kwm_cov cov = cov_new(shape, LAMBDA, NOISE);
  double *const prior = cov_prior(shape), *const BBt = dense_new(n * n), *const values = dense_new(n);
  double *const Q = dense_new(n * n), *const inner = dense_new(r * r), *const E = dense_new(r * r), found[N_MAX],
                sum = 0;
  float mean[N_MAX] = {0};
  for (int64_t step = 0; step < 3; step++) {
    struct jac_case made = cov_jac(shape, (uint64_t)(1530 + step));
    assert_true(kwm_cov_predict(&cov, step, zeros, mean));
    cov_measure(&cov, &made.jac, 1, mean);
    jac_drop(&made);
  }
  struct cov_file file;
  cov_write(&cov, &file);
  double *const B = cov_read(&file, "factor", cov_type(&cov), 2, (const int64_t[]){n, r});
  cov_file_drop(&file);
  for (int64_t k = 0; k < n * n * r; k++) BBt[k / r] += B[k / r / n * r + k % r] * B[k / r % n * r + k % r];
  dense_spectrum(n, BBt, values, Q);
  struct cov_state now = cov_state_of(&cov);
  lowrank_scale(n, now.P, prior, -0.5);
  for (int64_t a = 0; a < r * r; a++)
    for (int64_t k = 0; k < n * n; k++) inner[a] += Q[a / r * n + k / n] * now.P[k] * Q[a % r * n + k % n];
  dense_spectrum(r, inner, values, E);
  assert_int_equal(kwm_cov_spectrum_length(&cov), r + 1);
  assert_true(kwm_cov_spectrum(&cov, found));
  const double close = 1e-9;
  for (int64_t j = 0; j < r; j++) assert_close(found[j], values[r - 1 - j], close, 0);
  for (int64_t j = 0; j < r; j++) sum += found[j];
  assert_close(sum + (double)(n - r) * found[r], dense_trace(n, now.P), close, 0);
  free(prior), free(BBt), free(values), free(Q), free(inner), free(E), free(B);
  cov_state_drop(&now), kwm_cov_destroy(&cov);
}

static void test_spectrum(void **state) {
  (void)state;
  for (int w = 0; w < LOWRANK_WAYS; w++) {
    const struct cov_shape units = lowrank_way(lowrank_units(KWM_LOWRANK_DIAGONAL, 6), w);
    const struct cov_shape matrix = lowrank_way(lowrank_matrix(KWM_LOWRANK_DIAGONAL, 4, 3, 5), w);
    check_spectrum(&units);
    check_spectrum(&matrix);
  }
}

/* Without columns: P0 in every direction. */
static void test_first_spectrum(void **state) {
  (void)state;
  const struct cov_shape shape = lowrank_units(KWM_LOWRANK_DIAGONAL, 6);
  kwm_cov cov = cov_new(&shape, 1, 0);
  double values[7];
  assert_true(kwm_cov_spectrum(&cov, values));
  for (int j = 0; j < 7; j++) assert_close(values[j], 1, 1e-14, 0);
  kwm_cov_destroy(&cov);
}

/* Loaded into a fresh one: the same d and factor, bit for bit, and the same step from there. */
static void test_round_trip(void **state) {
  (void)state;
  for (int w = 0; w < LOWRANK_WAYS; w++) {
    const struct cov_shape shape = lowrank_way(lowrank_units(KWM_LOWRANK_DIAGONAL, 7), w);
    kwm_cov cov = cov_new(&shape, LAMBDA, NOISE), twin = cov_new(&shape, LAMBDA, NOISE);
    for (int64_t step = 0; step < 3; step++) check_step(&cov, &shape, step);
    struct cov_file file;
    cov_write(&cov, &file);
    assert_ok(kwm_cov_load(&twin, file.ckpt));
    cov_file_drop(&file);
    check_step(&cov, &shape, 3), check_step(&twin, &shape, 3);
    struct cov_state a = cov_state_of(&cov), b = cov_state_of(&twin);
    assert_true(cov_same_state(&a, &b));
    cov_state_drop(&a), cov_state_drop(&b), kwm_cov_destroy(&cov), kwm_cov_destroy(&twin);
  }
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_compression), cmocka_unit_test(test_as_diag),        cmocka_unit_test(test_nearer),
    cmocka_unit_test(test_spectrum),    cmocka_unit_test(test_first_spectrum), cmocka_unit_test(test_round_trip),
};
KWM_TEST_MAIN(tests)
