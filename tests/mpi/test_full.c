/* The distributed full covariance in double against the textbook filter, over sequences of steps, ways of dealing the
   parameters to ranks, blocks and numbers of rows; and what must change nothing. */
#include "full_case.h"

/* ---- against the textbook */

struct sequence {
  int64_t n, block;
  int64_t rows[4]; /* of each step */
  double lambda, q;
};

static const struct sequence sequences[] = {
    {53, 16, {5, 1, 20, 12}, 1, 0},       /* static parameters */
    {53, 1, {3, 70, 1, 9}, 1, 0.02},      /* random walk; more rows than parameters */
    {53, 3, {7, 7, 7, 7}, 0.9, 0},        /* forgetting; uneven blocks */
    {97, 64, {1, 1, 120, 4}, 0.97, 0.01}, /* both; ranks without a block */
    {61, 200, {40, 2, 61, 30}, 0.8, 0},   /* all in one block */
    {1, 2, {3, 1, 2, 1}, 0.9, 0.1},       /* one parameter: most ranks have nothing */
};
enum { SEQUENCES = sizeof sequences / sizeof sequences[0] };

static void assert_step(struct fixture *f, double *P, float *mean, const struct step *step) {
  const int64_t n = f->n, rows = step->rows;
  double *const S = dense_new(rows * rows), *const delta = dense_new(n), *const all = dense_new(n);
  dense_innovation_covariance(n, rows, P, step->H, S);
  for (int64_t k = 0; k < rows; k++) S[k * rows + k] -= 1;
  assert_all(dense_error(rows * rows, step->S, S) <= same);
  dense_update(n, rows, P, step->H, step->e, delta);
  join(f, kwm_full_delta(f->full), all);
  assert_all(dense_error(n, all, delta) <= same);
  kwm_full_apply(f->full, 0.5, f->mean);
  bool close = true;
  for (int64_t g = 0; g < n; g++) mean[g] += (float)(0.5 * delta[g]);
  for (int64_t k = 0; k < f->n_local; k++)
    close = close && close_to((double)f->mean[k], (double)mean[f->place[k]], 1e-6, 1e-6);
  assert_all(close);
  free(S), free(delta), free(all);
}

static void assert_sequence(const struct sequence *sequence, int deal) {
  const int64_t n = sequence->n;
  struct fixture f;
  bool good;
  assert_ok(make(&f, MPI_COMM_WORLD, deal, n, 120, sequence->block));
  double *const P = dense_new(n * n);
  float *const mean = calloc((size_t)n, sizeof *mean);
  for (int64_t g = 0; g < n; g++) P[g * n + g] = f.prior[g], mean[g] = (float)test_normal(50, g);
  for (uint64_t t = 0; t < 4; t++) {
    age(&f, sequence->lambda, sequence->q);
    dense_predict(n, P, f.prior, sequence->lambda, sequence->q);
    struct step step = prepare(&f, t, sequence->rows[t], 1, &good);
    assert_all(good);
    assert_step(&f, P, mean, &step);
    drop_step(&step);
    double *const found = seen(&f);
    assert_all(dense_error(n * n, found, P) <= same);
    free(found);
  }
  free(P), free(mean);
  drop(&f);
}

static void test_textbook(void **state) {
  (void)state;
  for (int s = 0; s < SEQUENCES; s++)
    for (int deal = 0; deal < DEALS; deal++) assert_sequence(&sequences[s], deal);
}

/* P, S and δ after two steps do not depend on who owns which parameter, to the last bit. */
static void test_dealing_changes_no_bit(void **state) {
  (void)state;
  enum { N = 75, ROWS = 11 };
  double *first[3] = {NULL};
  for (int deal = 0; deal < DEALS; deal++) {
    struct fixture f;
    bool good;
    assert_ok(make(&f, MPI_COMM_WORLD, deal, N, N, 8));
    for (uint64_t t = 0; t < 2; t++) {
      age(&f, 0.95, 0.01);
      struct step step = prepare(&f, t, ROWS, 1, &good);
      kwm_full_apply(f.full, 1, f.mean);
      drop_step(&step);
    }
    struct step step = prepare(&f, 2, ROWS, 1, &good);
    double *const now[3] = {dense_copy(ROWS * ROWS, step.S), dense_new(N), saved(&f)};
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

/* (Λ0 + ΣHᵀH)⁻¹ after many steps, and S is added to what is there, symmetric and the same on all ranks. */
static void test_batch_of_steps(void **state) {
  (void)state;
  enum { N = 40, ROWS = 6, STEPS = 30 };
  struct fixture f;
  bool good;
  assert_ok(make(&f, MPI_COMM_WORLD, 2, N, N, 5));
  double *const P = dense_new(N * N), *const Ht = dense_new(N * ROWS), *const F = dense_new(N * N);
  for (int64_t g = 0; g < N; g++) P[g * N + g] = 1 / f.prior[g];
  for (uint64_t t = 0; t < STEPS; t++) {
    struct step step = prepare(&f, t, ROWS, 1, &good);
    kwm_full_apply(f.full, 1, f.mean);
    dense_transpose(ROWS, N, step.H, Ht);
    dense_multiply(N, N, ROWS, Ht, step.H, F);
    for (int64_t k = 0; k < N * N; k++) P[k] += F[k];
    drop_step(&step);
  }
  dense_invert(N, P);
  double *const found = saved(&f), *const H = jacobian(99, ROWS, N), *const S = dense_new(2 * ROWS * ROWS);
  assert_all(dense_error(N * N, found, P) <= same);
  bool symmetric = true;
  for (int64_t k = 0; k < N * N; k++) symmetric = symmetric && found[k] == found[k % N * N + k / N];
  assert_all(symmetric);

  double *const again = S + ROWS * ROWS, *const root = dense_new(ROWS * ROWS);
  for (int64_t k = 0; k < ROWS * ROWS; k++) again[k] = 3;
  project(&f, ROWS, H, S);
  project(&f, ROWS, H, again);
  bool right = true;
  for (int64_t k = 0; k < ROWS * ROWS; k++)
    right = right && again[k] == 3 + S[k] && S[k] == S[k % ROWS * ROWS + k / ROWS];
  memcpy(root, S, ROWS * ROWS * sizeof *S);
  MPI_Bcast(root, ROWS * ROWS, MPI_DOUBLE, 0, MPI_COMM_WORLD);
  assert_all(right && same_bits(ROWS * ROWS, root, S));
  free(P), free(Ht), free(F), free(found), free(H), free(S), free(root);
  drop(&f);
}

/* More than one exchange of rows, more than one slab of the file: with P = P0, S is a weighted product. */
static void test_large(void **state) {
  (void)state;
  enum { N = 1500, ROWS = 710 };
  struct fixture f;
  assert_ok(make(&f, MPI_COMM_WORLD, 2, N, ROWS, 0));
  double *const H = jacobian(1, ROWS, N), *const S = dense_new(ROWS * ROWS);
  project(&f, ROWS, H, S);
  bool close = true;
  for (int64_t i = 0; i < ROWS; i += 13)
    for (int64_t j = 0; j < ROWS; j += 7) {
      double sum = 0;
      for (int64_t k = 0; k < N; k++) sum += H[i * N + k] * f.prior[k] * H[j * N + k];
      close = close && close_to(sum, S[i * ROWS + j], 1e-11, 1e-11);
    }
  assert_all(close);
  double *const P = saved(&f);
  bool prior = true;
  for (int64_t k = 0; k < N * N; k++) prior = prior && P[k] == (k % (N + 1) == 0 ? f.prior[k / N] : 0);
  assert_all(prior);
  free(H), free(S), free(P);
  drop(&f);
}

/* ---- what must change nothing */

static void test_prior_and_health(void **state) {
  (void)state;
  enum { N = 70 };
  for (int deal = 0; deal < DEALS; deal++) {
    struct fixture f;
    bool good;
    assert_ok(make(&f, MPI_COMM_WORLD, deal, N, N, 6));
    struct kwm_health health = {.trace = 0};
    double *const variance = dense_new(N), *const all = dense_new(N), sum[3] = {0};
    kwm_full_diagonal(f.full, variance);
    join(&f, variance, all);
    assert_all(same_bits(N, all, f.prior));
    struct step step = prepare(&f, 1, 30, 1, &good);
    kwm_full_apply(f.full, 1, f.mean);
    kwm_full_health(f.full, &health);
    kwm_full_diagonal(f.full, variance);
    join(&f, variance, all);
    double *const P = saved(&f);
    bool diagonal = true;
    for (int64_t g = 0; g < N; g++) diagonal = diagonal && all[g] == P[g * N + g];
    assert_all(diagonal);
    double mine[3] = {health.trace, health.prior_trace, health.parameters};
    MPI_Allreduce(MPI_IN_PLACE, mine, 3, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);
    for (int64_t g = 0; g < N; g++) sum[0] += all[g], sum[1] += f.prior[g];
    assert_all(close_to(mine[0], sum[0], 1e-13, 0) && close_to(mine[1], sum[1], 1e-13, 0) && mine[2] == N);
    assert_all(mine[0] < mine[1] && health.floor_hits == 0);
    free(variance), free(all), free(P);
    drop_step(&step);
    drop(&f);
  }
}

static void test_no_innovation_no_evidence(void **state) {
  (void)state;
  enum { N = 60, ROWS = 8 };
  struct fixture f;
  bool good;
  assert_ok(make(&f, MPI_COMM_WORLD, 1, N, N, 7));
  float *const mean = calloc(N, sizeof *mean);
  memcpy(mean, f.mean, N * sizeof *mean);
  double *const before = saved(&f);
  struct step step = prepare(&f, 1, ROWS, 0, &good);
  assert_all(good);
  kwm_full_apply(f.full, 1, f.mean);
  double *const shrunk = saved(&f);
  assert_all(memcmp(mean, f.mean, N * sizeof *mean) == 0);
  assert_all(dense_trace(N, shrunk) < 0.99 * dense_trace(N, before));

  double zeros[ROWS * N] = {0}, S[ROWS * ROWS] = {0};
  project(&f, ROWS, zeros, S);
  for (int64_t k = 0; k < ROWS * ROWS; k++) step.L[k] = k % (ROWS + 1) == 0;
  for (int64_t k = 0; k < ROWS; k++) step.w[k] = 1;
  assert_all(kwm_full_condition(f.full, ROWS, step.L, step.w));
  kwm_full_apply(f.full, 1, f.mean);
  double *const after = saved(&f);
  assert_all(memcmp(mean, f.mean, N * sizeof *mean) == 0 && same_bits(N * N, shrunk, after));
  assert_all(same_bits(ROWS * ROWS, S, zeros));

  age(&f, 1, 0);
  double *const unmoved = saved(&f);
  assert_all(same_bits(N * N, after, unmoved));
  free(mean), free(before), free(shrunk), free(after), free(unmoved);
  drop_step(&step);
  drop(&f);
}

/* A step given up at any point leaves no trace, whether it went well or not. */
static void test_gives_up(void **state) {
  (void)state;
  enum { N = 60, ROWS = 9 };
  struct fixture f;
  bool good;
  assert_ok(make(&f, MPI_COMM_WORLD, 2, N, N, 7));
  struct step step = prepare(&f, 1, ROWS, 1, &good);
  kwm_full_apply(f.full, 1, f.mean);
  double *const before = saved(&f);
  float *const mean = calloc(N, sizeof *mean);
  memcpy(mean, f.mean, N * sizeof *mean);
  for (int way = 0; way < 4; way++) {
    double S[ROWS * ROWS] = {0}, L[ROWS * ROWS], w[ROWS];
    project(&f, ROWS, step.H, S);
    if (way == 3) break;
    memcpy(L, step.L, sizeof L);
    memcpy(w, step.w, sizeof w);
    if (way == 0) L[ROWS + 1] = 1e-9; /* S far too small: a variance would turn negative */
    if (way == 1) L[(ROWS - 1) * ROWS] = NAN;
    if (way == 2) w[ROWS - 1] = INFINITY;
    assert_all(!kwm_full_condition(f.full, ROWS, L, w));
  }
  struct step other = prepare(&f, 2, ROWS, 1, &good);
  assert_all(good);
  double *const after = saved(&f);
  assert_all(same_bits(N * N, before, after) && memcmp(mean, f.mean, N * sizeof *mean) == 0);
  free(before), free(after), free(mean);
  drop_step(&step);
  drop_step(&other);
  drop(&f);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_textbook),         cmocka_unit_test(test_dealing_changes_no_bit),
    cmocka_unit_test(test_batch_of_steps),   cmocka_unit_test(test_large),
    cmocka_unit_test(test_prior_and_health), cmocka_unit_test(test_no_innovation_no_evidence),
    cmocka_unit_test(test_gives_up),
};

KWM_TEST_MAIN(tests)
