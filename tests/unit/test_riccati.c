/* kron with evidence from innovations against a dense textbook filter in double precision: in an orthonormal basis U
   the covariance U diag(p) Uᵀ and the information U diag(f) Uᵀ are dense matrices like any other. */
#include "kwm/riccati.h"
#include "kwm/rng.h"
#include "kwm_test.h"

enum { ROWS = 3, COLUMNS = 4, SIZE = ROWS * COLUMNS, TOKENS = 50 };
static const double PRIOR = 4, Q = 0.03;

struct filtered {
  struct kwm_riccati cov;
  struct kwm_riccati_room room;
  float matrix[2 * SIZE], square[6 * COLUMNS * COLUMNS], line[ROWS + COLUMNS];
};

static float draw(uint64_t key, uint64_t index) {
  return (float)kwm_rng_normal(11, KWM_RNG_TEST, key, index);
}

static void open_filter(struct filtered *f, bool left, bool right, bool steady) {
  const struct kwm_riccati_spec spec = {.name = "case",
                                        .rows = ROWS,
                                        .columns = COLUMNS,
                                        .left = left,
                                        .right = right,
                                        .prior = PRIOR,
                                        .rate_f = 0.25,
                                        .rate_m = 1,
                                        .rate_factor = 0.5,
                                        .steady = steady};
  memset(f, 0, sizeof *f);
  assert_ok(kwm_riccati_create(&f->cov, &spec));
  f->room = (struct kwm_riccati_room){f->matrix, f->square, f->line};
}

/* Tokens of scores and inputs whose second moments are not diagonal; step: which ones. */
static void observe(struct filtered *f, uint64_t step) {
  float s[TOKENS * ROWS], a[TOKENS * COLUMNS];
  for (int r = 0; r < TOKENS; r++) {
    for (int o = 0; o < ROWS; o++)
      s[r * ROWS + o] = (1 + (float)o) * draw(100 + step, (uint64_t)(r * ROWS + o)) + draw(200 + step, (uint64_t)r);
    for (int i = 0; i < COLUMNS; i++)
      a[r * COLUMNS + i] =
          (1 + (float)i) * draw(300 + step, (uint64_t)(r * COLUMNS + i)) + draw(400 + step, (uint64_t)r);
  }
  kwm_riccati_observe(&f->cov, true, TOKENS, TOKENS, s, a);
}

/* B (SIZE, SIZE): column (o, i) is the basis vector of coordinate (o, i), U_G[:, o] ⊗ U_A[:, i]. */
static void basis_of(const struct filtered *f, double *B) {
  for (int ro = 0; ro < ROWS; ro++)
    for (int ri = 0; ri < COLUMNS; ri++)
      for (int o = 0; o < ROWS; o++)
        for (int i = 0; i < COLUMNS; i++) {
          const double g = f->cov.U_G != NULL ? f->cov.U_G[ro * ROWS + o] : ro == o;
          const double a = f->cov.U_A != NULL ? f->cov.U_A[ri * COLUMNS + i] : ri == i;
          B[(ro * COLUMNS + ri) * SIZE + o * COLUMNS + i] = g * a;
        }
}

/* M (SIZE, SIZE) <- B diag(d) Bᵀ */
static void spread(const double *B, const float *d, double *M) {
  for (int r = 0; r < SIZE; r++)
    for (int c = 0; c < SIZE; c++) {
      double sum = 0;
      for (int k = 0; k < SIZE; k++) sum += B[r * SIZE + k] * d[k] * B[c * SIZE + k];
      M[r * SIZE + c] = sum;
    }
}

static double largest_difference(int n, const double *a, const double *b) {
  double most = 0;
  for (int k = 0; k < n; k++) most = fmax(most, fabs(a[k] - b[k]));
  return most;
}

/* X (n, n) <- A⁻¹ by Gauss-Jordan in double, without a pivot: A is positive definite. */
static void invert(int n, const double *A, double *X) {
  double *const W = malloc((size_t)(n * n) * sizeof *W);
  assert_non_null(W);
  memcpy(W, A, (size_t)(n * n) * sizeof *W);
  for (int r = 0; r < n; r++)
    for (int c = 0; c < n; c++) X[r * n + c] = r == c;
  for (int k = 0; k < n; k++) {
    const double pivot = W[k * n + k];
    for (int c = 0; c < n; c++) W[k * n + c] /= pivot, X[k * n + c] /= pivot;
    for (int r = 0; r < n; r++) {
      const double factor = W[r * n + k];
      if (r == k) continue;
      for (int c = 0; c < n; c++) W[r * n + c] -= factor * W[k * n + c], X[r * n + c] -= factor * X[k * n + c];
    }
  }
  free(W);
}

/* Predict P + QI, correct with information F and score s: (P⁻¹ + F)⁻¹, δ = P⁺ s. P (SIZE, SIZE) in and out. */
static void textbook(const double *F, const float *score, double *P, double *delta) {
  double predicted[SIZE * SIZE], information[SIZE * SIZE];
  for (int k = 0; k < SIZE * SIZE; k++) predicted[k] = P[k] + (k % (SIZE + 1) == 0 ? Q : 0);
  invert(SIZE, predicted, information);
  for (int k = 0; k < SIZE * SIZE; k++) information[k] += F[k];
  invert(SIZE, information, P);
  for (int r = 0; r < SIZE; r++) {
    delta[r] = 0;
    for (int c = 0; c < SIZE; c++) delta[r] += P[r * SIZE + c] * score[c];
  }
}

/* xᵀF x */
static double quadratic(const double *F, const double *x) {
  double sum = 0;
  for (int r = 0; r < SIZE; r++)
    for (int c = 0; c < SIZE; c++) sum += x[r] * F[r * SIZE + c] * x[c];
  return sum;
}

/* The recursive filter, with and without bases; the change predicted is δᵀFδ; f is what the filter itself measured.
   First some steps away from the prior, which bounds p: there the textbook has no bound. */
static void compare_with_textbook(bool left, bool right) {
  struct filtered f;
  double B[SIZE * SIZE], F[SIZE * SIZE], P[SIZE * SIZE], ours[SIZE * SIZE], delta[SIZE];
  open_filter(&f, left, right, false);
  if (left || right) {
    observe(&f, 0);
    assert_true(kwm_riccati_refresh(&f.cov, true, TOKENS, &f.room));
  }
  basis_of(&f, B);
  for (uint64_t step = 0; step < 8; step++) {
    float score[SIZE], given[SIZE];
    for (uint64_t k = 0; k < SIZE; k++) given[k] = score[k] = 4 * draw(step, k);
    spread(B, f.cov.p, P);
    double change;
    const float *const result = kwm_riccati_gain(&f.cov, Q, score, &f.room, &change);
    spread(B, f.cov.f, F);
    textbook(F, given, P, delta);
    spread(B, f.cov.p, ours);
    if (step < 4) continue;
    assert_close(change, quadratic(F, delta), 1e-4, 0);
    for (int k = 0; k < SIZE; k++) assert_true(f.cov.p[k] < 0.99 / PRIOR);
    assert_true(largest_difference(SIZE * SIZE, ours, P) < 1e-5);
    for (int k = 0; k < SIZE; k++) assert_close(result[k], delta[k], 1e-4, 1e-5);
  }
  kwm_riccati_destroy(&f.cov);
}

static void test_textbook(void **state) {
  (void)state;
  compare_with_textbook(true, true);
  compare_with_textbook(false, true);
  compare_with_textbook(true, false);
  compare_with_textbook(false, false);
}

/* steady: p is where the recursion p + q, p / (1 + p f) goes for the f of the moment, bounded by the prior. */
static void test_steady(void **state) {
  (void)state;
  struct filtered f;
  open_filter(&f, false, false, true);
  for (uint64_t step = 0; step < 3; step++) {
    float score[SIZE];
    for (uint64_t k = 0; k < SIZE; k++) score[k] = (float)k * draw(step, k); /* k = 0: no information at all */
    kwm_riccati_gain(&f.cov, Q, score, &f.room, NULL);
    for (int k = 0; k < SIZE; k++) {
      double p = 1 / PRIOR;
      for (int round = 0; round < 20000 && f.cov.f[k] > 0; round++) p = (p + Q) / (1 + (p + Q) * (double)f.cov.f[k]);
      assert_close(f.cov.p[k], fmin(p, 1 / PRIOR), 1e-4, 1e-7);
    }
  }
  kwm_riccati_destroy(&f.cov);
}

/* f begins with the product of the eigenvalues times the tokens: its sum is that of the factors' traces. */
static void test_first_information(void **state) {
  (void)state;
  struct filtered f;
  double sum = 0, traces[2] = {0, 0};
  open_filter(&f, true, true, false);
  observe(&f, 1);
  assert_true(kwm_riccati_refresh(&f.cov, true, TOKENS, &f.room));
  for (int k = 0; k < SIZE; k++) sum += f.cov.f[k];
  for (int o = 0; o < ROWS; o++) traces[0] += f.cov.G[o * (ROWS + 1)];
  for (int i = 0; i < COLUMNS; i++) traces[1] += f.cov.A[i * (COLUMNS + 1)];
  assert_close(sum, TOKENS * traces[0] * traces[1], 1e-4, 0);
  kwm_riccati_destroy(&f.cov);
}

/* A refresh turns P and the smoothed score: the trace of P stays, m is the same matrix in another basis. */
static void test_refresh(void **state) {
  (void)state;
  struct filtered f;
  double B[SIZE * SIZE], before[SIZE], after[SIZE], traces[2] = {0, 0};
  open_filter(&f, true, true, false);
  for (uint64_t step = 0; step < 3; step++) {
    float score[SIZE];
    observe(&f, step);
    if (step == 0) assert_true(kwm_riccati_refresh(&f.cov, true, TOKENS, &f.room));
    for (uint64_t k = 0; k < SIZE; k++) score[k] = draw(step, k);
    kwm_riccati_gain(&f.cov, Q, score, &f.room, NULL);
  }
  for (int pass = 0; pass < 2; pass++) {
    double *const m = pass == 0 ? before : after;
    basis_of(&f, B);
    for (int r = 0; r < SIZE; r++) {
      m[r] = 0;
      for (int k = 0; k < SIZE; k++) m[r] += B[r * SIZE + k] * f.cov.m[k];
      traces[pass] += f.cov.p[r];
    }
    if (pass == 0) assert_true(kwm_riccati_refresh(&f.cov, false, TOKENS, &f.room));
  }
  assert_true(largest_difference(SIZE, before, after) < 1e-4);
  assert_close(traces[0], traces[1], 1e-5, 0);
  kwm_riccati_destroy(&f.cov);
}

/* Draws around a mean have the covariance scale B diag(p) Bᵀ, and a key's draw is always the same. */
static void draws_spread(bool left, bool right) {
  enum { DRAWS = 20000 };
  const double scale = 2.5;
  struct filtered f;
  double B[SIZE * SIZE], wanted[SIZE * SIZE], found[SIZE * SIZE] = {0};
  float score[SIZE], first[SIZE] = {0}, again[SIZE] = {0};
  open_filter(&f, left, right, false);
  observe(&f, 0);
  assert_true(kwm_riccati_refresh(&f.cov, true, TOKENS, &f.room));
  for (uint64_t k = 0; k < SIZE; k++) score[k] = 3 * draw(1, k);
  kwm_riccati_gain(&f.cov, Q, score, &f.room, NULL);
  basis_of(&f, B);
  spread(B, f.cov.p, wanted);
  for (uint64_t k = 0; k < DRAWS; k++) {
    float x[SIZE] = {0};
    kwm_riccati_draw(&f.cov, scale, &(struct kwm_riccati_key){7, k, 100}, NULL, &f.room, x);
    for (int r = 0; r < SIZE; r++)
      for (int c = 0; c < SIZE; c++) found[r * SIZE + c] += (double)x[r] * (double)x[c] / (scale * DRAWS);
  }
  const double most = largest_difference(SIZE * SIZE, wanted, (double[SIZE * SIZE]){0});
  assert_true(most > 0 && largest_difference(SIZE * SIZE, found, wanted) < 5 * sqrt(2.0 / DRAWS) * most);
  kwm_riccati_draw(&f.cov, scale, &(struct kwm_riccati_key){7, 3, 100}, NULL, &f.room, first);
  kwm_riccati_draw(&f.cov, scale, &(struct kwm_riccati_key){7, 3, 100}, NULL, &f.room, again);
  assert_memory_equal(first, again, sizeof first);
  kwm_riccati_draw(&f.cov, scale, &(struct kwm_riccati_key){7, 4, 100}, NULL, &f.room, again);
  assert_memory_not_equal(first, again, sizeof first);
  kwm_riccati_destroy(&f.cov);
}

static void test_draws(void **state) {
  (void)state;
  for (int sides = 0; sides < 4; sides++) draws_spread(sides & 1, sides & 2);
}

/* Many steps in float: variances stay positive and under the prior, whatever the scores. */
static void test_many_steps(void **state) {
  (void)state;
  struct filtered f;
  open_filter(&f, true, true, false);
  for (uint64_t step = 0; step < 3000; step++) {
    float score[SIZE];
    if (step % 50 == 0) observe(&f, step);
    if (step % 100 == 0) assert_true(kwm_riccati_refresh(&f.cov, step == 0, TOKENS, &f.room));
    for (uint64_t k = 0; k < SIZE; k++) score[k] = powf(10, (float)(step % 13) - 6) * draw(step, k);
    const float *const delta = kwm_riccati_gain(&f.cov, 1e-4, score, &f.room, NULL);
    for (int k = 0; k < SIZE; k++) {
      assert_true(isfinite(delta[k]));
      assert_true(f.cov.p[k] > 0 && f.cov.p[k] <= (float)(1 / PRIOR) * 1.00001f);
    }
  }
  kwm_riccati_destroy(&f.cov);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_textbook), cmocka_unit_test(test_steady),     cmocka_unit_test(test_first_information),
    cmocka_unit_test(test_refresh),  cmocka_unit_test(test_many_steps), cmocka_unit_test(test_draws),
};
KWM_TEST_MAIN(tests)
