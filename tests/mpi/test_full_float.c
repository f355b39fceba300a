/* The full covariance as a square root in float against the textbook filter in double: one step, random sequences,
   degenerate rows, thousands of steps; and what must change nothing. */
#include "full_case.h"

static const double near = 2e-5; /* one step in float */

static kwm_status make_float(struct fixture *f, int deal, int64_t n, int64_t rows_max, int64_t block) {
  return make_real(f, KWM_REAL_FLOAT, MPI_COMM_WORLD, deal, n, rows_max, block);
}

static double *prior_covariance(const struct fixture *f) {
  double *const P = dense_new(f->n * f->n);
  for (int64_t g = 0; g < f->n; g++) P[g * f->n + g] = f->prior[g];
  return P;
}

struct shape {
  int64_t n, block, rows;
  double lambda, q;
};
static const struct shape shapes[] = {
    {53, 16, 5, 1, 0},     {53, 1, 70, 1, 0.02}, {53, 3, 7, 0.9, 0},     {97, 64, 120, 0.97, 0.01},
    {61, 200, 30, 0.8, 0}, {1, 2, 3, 0.9, 0.1},  {40, 8, 40, 0.5, 1e-9},
};
enum { SHAPES = sizeof shapes / sizeof shapes[0] };

/* One update from the prior, then a time update and another: S, δ, P after each. */
static void assert_two_steps(const struct shape *shape, int deal) {
  const int64_t n = shape->n, rows = shape->rows;
  struct fixture f;
  bool good;
  assert_ok(make_float(&f, deal, n, n > rows ? n : rows, shape->block));
  double *const P = prior_covariance(&f), *const S = dense_new(rows * rows), *const delta = dense_new(n);
  double *const all = dense_new(n);
  for (uint64_t t = 0; t < 2; t++) {
    if (t == 1) age(&f, shape->lambda, shape->q);
    if (t == 1) dense_predict(n, P, f.prior, shape->lambda, shape->q);
    struct step step = prepare(&f, t, rows, 1, &good);
    assert_all(good);
    dense_innovation_covariance(n, rows, P, step.H, S);
    for (int64_t k = 0; k < rows; k++) S[k * rows + k] -= 1;
    assert_all(dense_error(rows * rows, step.S, S) <= near);
    dense_update(n, rows, P, step.H, step.e, delta);
    join(&f, kwm_full_delta(f.full), all);
    assert_all(dense_error(n, all, delta) <= (double)(1 + t) * near);
    kwm_full_apply(f.full, 1, f.mean);
    double *const found = saved(&f), *const through = seen(&f);
    assert_all(dense_error(n * n, found, P) <= (double)(1 + t) * near);
    assert_all(dense_error(n * n, through, found) <= near);
    free(found), free(through);
    drop_step(&step);
  }
  free(P), free(S), free(delta), free(all);
  drop(&f);
}

static void test_textbook(void **state) {
  (void)state;
  for (int s = 0; s < SHAPES; s++)
    for (int deal = 0; deal < DEALS; deal++) assert_two_steps(&shapes[s], deal);
}

/* Time and measurement updates of random kind and size. */
static void test_random_sequences(void **state) {
  (void)state;
  enum { N = 34, STEPS = 40 };
  static const double lambdas[] = {1, 0.95, 1, 0.7}, noises[] = {0, 1e-4, 0.05};
  for (uint64_t run = 0; run < 4; run++) {
    struct fixture f;
    bool good;
    assert_ok(make_float(&f, (int)run, N, 48, 5));
    double *const P = prior_covariance(&f), *const delta = dense_new(N);
    for (uint64_t t = 0; t < STEPS; t++) {
      const uint64_t draw = (uint64_t)(fabs(test_normal(300 + run, (int64_t)t)) * 1e6);
      const double lambda = lambdas[draw % 4], q = noises[draw / 4 % 3];
      age(&f, lambda, q);
      dense_predict(N, P, f.prior, lambda, q);
      if (draw / 12 % 5 == 0) continue;
      const int64_t rows = 1 + (int64_t)(draw / 60 % 48);
      struct step step = prepare(&f, 40 * run + t, rows, 1, &good);
      assert_all(good);
      kwm_full_apply(f.full, 1, f.mean);
      dense_update(N, rows, P, step.H, step.e, delta);
      drop_step(&step);
    }
    double *const found = saved(&f);
    const double error = dense_error(N * N, found, P);
    assert_all(error <= near);
    free(P), free(delta), free(found);
    drop(&f);
  }
}

/* S of a prepared step, factored and solved, from rows that are no normal numbers. */
static bool update(struct fixture *f, int64_t rows, const double *H) {
  double *const S = dense_new(rows * rows), *const L = dense_new(rows * rows), *const w = dense_new(rows);
  double *const e = dense_new(rows);
  for (int64_t k = 0; k < rows; k++) e[k] = 1;
  project(f, rows, H, S);
  solve(rows, S, e, L, w);
  const bool good = kwm_full_condition(f->full, rows, L, w);
  if (good) kwm_full_apply(f->full, 1, f->mean);
  free(S), free(L), free(w), free(e);
  return good;
}

/* Smallest of the variances over their priors, and no mean that is not finite. */
static void assert_sound(struct fixture *f) {
  double *const variance = dense_new(f->n), *const values = dense_new(f->n);
  bool sound = true;
  kwm_full_diagonal(f->full, variance);
  for (int64_t k = 0; k < f->n_local; k++)
    sound = sound && variance[k] > 0 && isfinite(variance[k]) && isfinite(f->mean[k]);
  assert_ok(kwm_full_spectrum(f->full, values));
  assert_all(sound && values[0] > 0 && isfinite(values[f->n - 1]));
  free(variance), free(values);
}

/* P (n, n) <- (P⁻¹ + HᵀH)⁻¹: where S is ill conditioned, the textbook's difference says nothing. */
static void add_information(int64_t n, int64_t rows, const double *H, double *P) {
  double *const Ht = dense_new(n * rows), *const F = dense_new(n * n);
  dense_transpose(rows, n, H, Ht);
  dense_multiply(n, n, rows, Ht, H, F);
  dense_invert(n, P);
  for (int64_t k = 0; k < n * n; k++) P[k] += F[k];
  dense_invert(n, P);
  free(Ht), free(F);
}

enum { WAYS = 7 };

/* Rows of one degenerate kind. */
static double *degenerate(int way, int64_t rows, int64_t n) {
  double *const H = jacobian(77, rows, n), *const first = jacobian(77, 1, n);
  const double scale[WAYS] = {0, 1, 1e4, 1e-4, 1e4, 1, 1e4};
  for (int64_t r = 0; r < rows; r++)
    for (int64_t k = 0; k < n; k++) {
      if (way == 1 || way == 4) H[r * n + k] = first[k]; /* all rows the same */
      if (way == 5 && k > 0) H[r * n + k] = 0;           /* one parameter only */
      H[r * n + k] = (double)(float)(scale[way] * H[r * n + k]);
    }
  free(first);
  return H;
}

static void test_degenerate(void **state) {
  (void)state;
  enum { N = 21 };
  static const int64_t rows_of[WAYS] = {5, 8, 6, 6, 30, 9, 30};
  for (int way = 0; way < WAYS; way++) {
    struct fixture f;
    assert_ok(make_float(&f, 2, N, 32, 4));
    double *const H = degenerate(way, rows_of[way], N), *const P = prior_covariance(&f);
    double *const before = saved_state(&f);
    assert_all(update(&f, rows_of[way], H));
    add_information(N, rows_of[way], H, P);
    double *const after = saved_state(&f), *const found = saved(&f);
    if (way == 0) assert_all(same_bits(N * N, before, after));
    assert_all(dense_error(N * N, found, P) <= (way == 6 ? 1e-2 : near)); /* 6: all of P 1e-5 of what it was */
    assert_sound(&f);
    for (int again = 0; again < 20; again++) {
      if (again % 5 == 4) age(&f, 0.99, 1e-6);
      assert_all(update(&f, rows_of[way], H));
    }
    assert_sound(&f);
    free(H), free(P), free(before), free(after), free(found);
    drop(&f);
  }
}

/* Thousands of steps without and with time updates: positive at any time, and near the sum of all information. */
static void test_long_run(void **state) {
  (void)state;
  enum { N = 12, ROWS = 2 };
  static const uint64_t steps[2] = {2500, 600};
  for (int ages = 0; ages < 2; ages++) {
    struct fixture f;
    assert_ok(make_float(&f, 0, N, ROWS, 4));
    double *const Lambda = dense_new(N * N), *const Ht = dense_new(N * ROWS), *const F = dense_new(N * N);
    for (int64_t g = 0; g < N; g++) Lambda[g * N + g] = 1 / f.prior[g];
    for (uint64_t t = 0; t < steps[ages]; t++) {
      double *const H = jacobian(1000 + t, ROWS, N);
      if (ages == 1 && t % 10 == 9) {
        age(&f, 0.9, 0.001);
        dense_invert(N, Lambda);
        dense_predict(N, Lambda, f.prior, 0.9, 0.001);
        dense_invert(N, Lambda);
      }
      assert_all(update(&f, ROWS, H));
      dense_transpose(ROWS, N, H, Ht);
      dense_multiply(N, N, ROWS, Ht, H, F);
      for (int64_t k = 0; k < N * N; k++) Lambda[k] += F[k];
      if (t % 300 == 299) assert_sound(&f);
      free(H);
    }
    dense_invert(N, Lambda);
    double *const found = saved(&f);
    assert_all(dense_error(N * N, found, Lambda) <= near);
    free(Lambda), free(Ht), free(F), free(found);
    drop(&f);
  }
}

/* Y, S and δ after two steps do not depend on who owns which parameter, to the last bit. */
static void test_dealing_changes_no_bit(void **state) {
  (void)state;
  enum { N = 75, ROWS = 11 };
  double *first[3] = {NULL};
  for (int deal = 0; deal < DEALS; deal++) {
    struct fixture f;
    bool good;
    assert_ok(make_float(&f, deal, N, N, 8));
    for (uint64_t t = 0; t < 2; t++) advance(&f, t);
    struct step step = prepare(&f, 2, ROWS, 1, &good);
    double *const now[3] = {dense_copy(ROWS * ROWS, step.S), dense_new(N), saved_state(&f)};
    join(&f, kwm_full_delta(f.full), now[1]);
    const int64_t lengths[3] = {ROWS * ROWS, N, N * N};
    for (int i = 0; i < 3; i++) {
      if (deal == 0) first[i] = now[i];
      assert_all(same_bits(lengths[i], first[i], now[i]));
      if (deal > 0) free(now[i]);
    }
    drop_step(&step);
    drop(&f);
  }
  for (int i = 0; i < 3; i++) free(first[i]);
}

/* A step given up at any point leaves no trace; a predict that does nothing neither. */
static void test_gives_up(void **state) {
  (void)state;
  enum { N = 60, ROWS = 9 };
  struct fixture f;
  bool good;
  assert_ok(make_float(&f, 2, N, N, 7));
  struct step step = prepare(&f, 1, ROWS, 1, &good);
  kwm_full_apply(f.full, 1, f.mean);
  double *const before = saved_state(&f);
  float *const mean = calloc(N, sizeof *mean);
  memcpy(mean, f.mean, N * sizeof *mean);
  for (int way = 0; way < 6; way++) {
    double S[ROWS * ROWS] = {0}, L[ROWS * ROWS], w[ROWS];
    project(&f, ROWS, step.H, S);
    if (way == 3) continue;
    memcpy(L, step.L, sizeof L);
    memcpy(w, step.w, sizeof w);
    if (way == 0) L[ROWS + 1] = 1e-9; /* S far too small: P would turn indefinite */
    if (way == 1) L[(ROWS - 1) * ROWS] = NAN;
    if (way == 2) w[ROWS - 1] = INFINITY;
    for (int64_t k = 0; way == 4 && k < ROWS * ROWS; k++) L[k] *= 0.01;
    assert_all(kwm_full_condition(f.full, ROWS, L, w) == (way == 5));
  }
  assert_all(kwm_full_predict(f.full, 1, 0, NULL, NULL));
  struct kwm_health health = {.trace = 0};
  kwm_full_health(f.full, &health);
  double *const after = saved_state(&f), *const P = saved(&f);
  MPI_Allreduce(MPI_IN_PLACE, &health.trace, 1, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);
  assert_all(same_bits(N * N, before, after) && memcmp(mean, f.mean, N * sizeof *mean) == 0);
  assert_all(close_to(health.trace, dense_trace(N, P), 1e-12, 0));
  free(before), free(after), free(P), free(mean);
  drop_step(&step);
  drop(&f);
}

/* Y at the end of a float's range: H Y is finite, Y Bᵀ is not. */
static void test_overflow(void **state) {
  (void)state;
  enum { N = 30 };
  struct fixture f;
  double *const Y = dense_new(N * N), H[N] = {1e-30};
  assert_ok(make_float(&f, 0, N, 1, 4));
  for (int64_t k = 0; k < N * N; k++) Y[k] = (double)2e38f;
  put_state(&f, Y);
  assert_all(!update(&f, 1, H));
  double *const after = saved_state(&f);
  assert_all(same_bits(N * N, Y, after));
  free(Y), free(after);
  drop(&f);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_textbook), cmocka_unit_test(test_random_sequences),       cmocka_unit_test(test_degenerate),
    cmocka_unit_test(test_long_run), cmocka_unit_test(test_dealing_changes_no_bit), cmocka_unit_test(test_gives_up),
    cmocka_unit_test(test_overflow),
};

KWM_TEST_MAIN(tests)
