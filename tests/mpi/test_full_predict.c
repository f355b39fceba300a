/* The full covariance's time update: failures that leave no trace, where forgetting ends, the pull of the mean to the
   anchor; and the spectrum. */
#include "full_case.h"

/* Forgetting that fails leaves P as it was, bit for bit, and is no obstacle to later success. */
static void test_indefinite(void **state) {
  (void)state;
  enum { N = 50 };
  struct fixture f;
  assert_ok(make(&f, MPI_COMM_WORLD, 0, N, N, 8));
  double *const P = dense_new(N * N);
  const float anchor[N] = {3};
  float mean[N];
  memcpy(mean, f.mean, sizeof mean);
  for (int way = 0; way < 4; way++) {
    for (int64_t i = 0; i < N; i++)
      for (int64_t j = 0; j < N; j++) P[i * N + j] = i == j ? 2 : 1.0 / (double)(1 + i + j);
    if (way == 0) P[(N - 3) * (N + 1)] = -1e-3;
    if (way == 1) P[3 * (N + 1)] = 0;
    if (way == 2) P[40 * N + 2] = P[2 * N + 40] = NAN;
    if (way == 3) P[45 * N + 44] = P[44 * N + 45] = 5;
    put_state(&f, P);
    assert_all(!kwm_full_predict(f.full, 0.9, 0.1, anchor, f.mean));
    double *const after = saved(&f);
    assert_all(same_bits(N * N, P, after) && memcmp(mean, f.mean, sizeof mean) == 0);
    free(after);
  }
  for (int64_t i = 0; i < N; i++)
    for (int64_t j = 0; j < N; j++) P[i * N + j] = i == j ? 2 : 1.0 / (double)(1 + i + j);
  put_state(&f, P);
  age(&f, 0.9, 0.1);
  dense_predict(N, P, f.prior, 0.9, 0.1);
  double *const found = saved(&f);
  assert_all(dense_error(N * N, found, P) <= same);
  free(found), free(P);
  drop(&f);
}

/* Unexcited, forgetting ends at the prior; with evidence in every step at Λ0 + F/(1-λ) (equations.md 3(d)). */
static void assert_forgetting_ends(enum kwm_real real, double bound) {
  enum { N = 30, ROWS = 4 };
  struct fixture f;
  bool good;
  assert_ok(make_real(&f, real, MPI_COMM_WORLD, 2, N, N, 4));
  double *const H = jacobian(1, ROWS, N), *const Ht = dense_new(N * ROWS), *const F = dense_new(N * N);
  dense_transpose(ROWS, N, H, Ht);
  dense_multiply(N, N, ROWS, Ht, H, F);
  for (int64_t k = 0; k < N * N; k++) F[k] = F[k] / 0.5 + (k % (N + 1) == 0 ? 1 / f.prior[k / N] : 0);
  dense_invert(N, F);
  for (int t = 0; t < 50; t++) {
    age(&f, 0.5, 0);
    struct step step = prepare(&f, 1, ROWS, 0, &good);
    kwm_full_apply(f.full, 1, f.mean);
    drop_step(&step);
  }
  double *const excited = saved(&f);
  assert_all(dense_error(N * N, excited, F) <= bound);
  for (int t = 0; t < 50; t++) age(&f, 0.5, 0);
  double *const calm = saved(&f);
  for (int64_t k = 0; k < N * N; k++) F[k] = k % (N + 1) == 0 ? f.prior[k / N] : 0;
  assert_all(dense_error(N * N, calm, F) <= bound);
  free(H), free(Ht), free(F), free(excited), free(calm);
  drop(&f);
}

static void test_forgetting_ends(void **state) {
  (void)state;
  assert_forgetting_ends(KWM_REAL_DOUBLE, same);
  assert_forgetting_ends(KWM_REAL_FLOAT, 2e-5);
}

/* The same for the square root: a number that is not finite, or so large that its square is not. */
static void test_root_not_finite(void **state) {
  (void)state;
  enum { N = 50 };
  struct fixture f;
  assert_ok(make_real(&f, KWM_REAL_FLOAT, MPI_COMM_WORLD, 0, N, N, 8));
  double *const Y = dense_new(N * N), *const P = dense_new(N * N), *const Yt = dense_new(N * N);
  const float anchor[N] = {3};
  float mean[N];
  memcpy(mean, f.mean, sizeof mean);
  for (int way = 0; way < 5; way++) {
    for (int64_t k = 0; k < N * N; k++) Y[k] = (double)(float)(test_normal(3, k) + (k % (N + 1) == 0 ? 10 : 0));
    if (way == 0) Y[40 * N + 2] = NAN;
    if (way == 1) Y[2 * N + 40] = NAN;
    if (way == 2) Y[7 * N + 7] = INFINITY;
    if (way == 3) Y[7 * N + 8] = (double)1e30f;
    put_state(&f, Y);
    if (way == 4) break;
    assert_all(!kwm_full_predict(f.full, 0.9, 0.1, anchor, f.mean));
    assert_all(way == 3 || !kwm_full_predict(f.full, 1, 0.1, NULL, NULL));
    double *const after = saved_state(&f);
    assert_all(same_bits(N * N, Y, after) && memcmp(mean, f.mean, sizeof mean) == 0);
    free(after);
  }
  dense_transpose(N, N, Y, Yt);
  dense_multiply(N, N, N, Y, Yt, P);
  age(&f, 0.9, 0.1);
  dense_predict(N, P, f.prior, 0.9, 0.1);
  double *const found = saved(&f);
  assert_all(dense_error(N * N, found, P) <= 2e-5);
  free(Y), free(P), free(Yt), free(found);
  drop(&f);
}

/* mean + (1-λ) P' P0⁻¹ (anchor - mean), P' before the process noise. */
static void pull(int64_t n, const double *P, const double *prior, double lambda, const double *anchor, double *mean) {
  double *const weighted = dense_new(n), *const moved = dense_new(n);
  for (int64_t g = 0; g < n; g++) weighted[g] = (anchor[g] - mean[g]) / prior[g];
  dense_multiply(n, 1, n, P, weighted, moved);
  for (int64_t g = 0; g < n; g++) mean[g] += (1 - lambda) * moved[g];
  free(weighted), free(moved);
}

static void assert_pulled(enum kwm_real real, int deal, int64_t n, double q) {
  struct fixture f;
  bool good;
  assert_ok(make_real(&f, real, MPI_COMM_WORLD, deal, n, n, 6));
  struct step step = prepare(&f, 1, 9, 1, &good);
  kwm_full_apply(f.full, 1, f.mean);
  double *const P = saved(&f), *const wanted = dense_new(n), *const anchor = dense_new(n), *const wide = dense_new(n);
  float *const mine = calloc((size_t)n, sizeof *mine);
  for (int64_t g = 0; g < n; g++) anchor[g] = (double)(float)test_normal(60, g);
  for (int64_t k = 0; k < f.n_local; k++) mine[k] = (float)anchor[f.place[k]], wide[k] = (double)f.mean[k];
  join(&f, wide, wanted);
  dense_predict(n, P, f.prior, 0.6, 0);
  pull(n, P, f.prior, 0.6, anchor, wanted);
  assert_all(kwm_full_predict(f.full, 0.6, q, mine, f.mean));
  bool close = true;
  for (int64_t k = 0; k < f.n_local; k++)
    close = close && close_to((double)f.mean[k], wanted[f.place[k]], 1e-7, real == KWM_REAL_FLOAT ? 1e-5 : 1e-7);
  assert_all(close);
  for (int64_t g = 0; g < n; g++) P[g * n + g] += q * f.prior[g];
  double *const found = saved(&f);
  assert_all(dense_error(n * n, found, P) <= (real == KWM_REAL_FLOAT ? 2e-5 : same));
  free(P), free(wanted), free(anchor), free(wide), free(mine), free(found);
  drop_step(&step);
  drop(&f);
}

static void test_anchor(void **state) {
  (void)state;
  for (int deal = 0; deal < DEALS; deal++) {
    assert_pulled(KWM_REAL_DOUBLE, deal, 45, deal % 2 == 0 ? 0.3 : 0);
    assert_pulled(KWM_REAL_FLOAT, deal, 45, deal % 2 == 0 ? 0.3 : 0);
  }
  assert_pulled(KWM_REAL_DOUBLE, 0, 9, 0.3);
  assert_pulled(KWM_REAL_FLOAT, 0, 9, 0.3);
}

/* ---- the spectrum */

static void assert_spectrum(enum kwm_real real, int deal, int64_t n, int64_t block, int steps) {
  struct fixture f;
  assert_ok(make_real(&f, real, MPI_COMM_WORLD, deal, n, n > 10 ? n : 10, block));
  double *const values = dense_new(n), *const first = dense_new(n), *const E = dense_new(n * n);
  for (uint64_t t = 0; t < (uint64_t)steps; t++) advance(&f, t);
  const size_t held = kwm_mem_bytes();
  assert_ok(kwm_full_spectrum(f.full, values));
  assert_all(kwm_mem_bytes() == held);
  memcpy(first, values, (size_t)n * sizeof *first);
  MPI_Bcast(first, (int)n, MPI_DOUBLE, 0, MPI_COMM_WORLD);
  assert_all(same_bits(n, first, values));
  double *const P = saved(&f);
  for (int64_t k = 0; k < n * n; k++) P[k] /= sqrt(f.prior[k / n] * f.prior[k % n]);
  dense_eigenvectors(n, P, E);
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = i; j > 0 && P[j * (n + 1)] < P[(j - 1) * (n + 1)]; j--) {
      const double larger = P[(j - 1) * (n + 1)];
      P[(j - 1) * (n + 1)] = P[j * (n + 1)], P[j * (n + 1)] = larger;
    }
  bool close = true;
  for (int64_t i = 0; i < n; i++) close = close && close_to(values[i], P[i * (n + 1)], 1e-10, 1e-12);
  assert_all(close && values[0] > 0);
  assert_all(steps > 0 ? values[0] < 0.9 : close_to(values[0], 1, 1e-6, 0) && close_to(values[n - 1], 1, 1e-6, 0));
  free(values), free(first), free(E), free(P);
  drop(&f);
}

static void test_spectrum(void **state) {
  (void)state;
  for (int real = 0; real < 2; real++) {
    const enum kwm_real kept = real == 0 ? KWM_REAL_DOUBLE : KWM_REAL_FLOAT;
    assert_spectrum(kept, 2, 57, 8, 3);
    assert_spectrum(kept, 0, 40, 64, 2);
    assert_spectrum(kept, 3, 33, 5, 0);
    assert_spectrum(kept, 0, 1, 4, 1);
  }
}

static void test_spectrum_refused(void **state) {
  (void)state;
  enum { N = 30 };
  for (int real = 0; real < 2; real++) {
    struct fixture f;
    double values[N], *const X = dense_new(N * N);
    assert_ok(make_real(&f, real == 0 ? KWM_REAL_DOUBLE : KWM_REAL_FLOAT, MPI_COMM_WORLD, 0, N, N, 8));
    for (int64_t k = 0; k < N * N; k++) X[k] = k % (N + 1) == 0;
    X[20 * N + 3] = X[3 * N + 20] = NAN;
    put_state(&f, X);
    const size_t held = kwm_mem_bytes();
    assert_refused(kwm_full_spectrum(f.full, values), KWM_ERR_NUMERIC, "wanted its eigenvalues, found it not finite");
    assert_all(kwm_mem_bytes() == held);
    free(X);
    drop(&f);
  }
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_indefinite), cmocka_unit_test(test_root_not_finite), cmocka_unit_test(test_forgetting_ends),
    cmocka_unit_test(test_anchor),     cmocka_unit_test(test_spectrum),        cmocka_unit_test(test_spectrum_refused),
};

KWM_TEST_MAIN(tests)
