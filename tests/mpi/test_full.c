/* The distributed full covariance against the textbook filter in dense double precision, over sequences of steps, ways
   of dealing the parameters to ranks, blocks and numbers of rows; its state through a checkpoint; and what must change
   nothing. */
#include "ckpt_files.h"

#include "dense.h"
#include "kwm/full.h"

enum { DEALS = 5, SEGMENTS = 64 };
static const double same = 1e-10;

/* ---- one covariance under test */

struct fixture {
  kwm_full *full;
  MPI_Comm comm;
  int size, me;
  int64_t n, n_local, n_segments;
  struct kwm_full_segment segments[SEGMENTS];
  int64_t *place; /* (n_local) canonical index of each local parameter */
  double *prior;  /* (n) */
  float *mean;    /* (n_local) */
  size_t before;  /* bytes held before it was made */
};

static int owner_of(int deal, int size, int64_t n, int64_t g) {
  if (deal == 0) return (int)(g * size / n);            /* equal parts */
  if (deal == 1) return g < n / 12 ? 0 : size - 1;      /* little and much; nothing for those between */
  if (deal == 2) return (int)(g / (n / 29 + 1) % size); /* stripes: many segments */
  if (deal == 3) return size - 1;                       /* all on the last */
  return size - 1 - (int)(g * size / n);                /* in reverse */
}

static double prior_of(int64_t g) {
  return 0.2 + 0.1 * (double)(g * 7 % 23);
}

static kwm_status make(struct fixture *f, MPI_Comm comm, int deal, int64_t n, int64_t rows_max, int64_t block) {
  *f = (struct fixture){.comm = comm, .n = n};
  MPI_Comm_size(comm, &f->size);
  MPI_Comm_rank(comm, &f->me);
  f->place = calloc((size_t)n, sizeof *f->place);
  for (int64_t g = 0; g < n; g++) {
    if (owner_of(deal, f->size, n, g) != f->me) continue;
    const bool goes_on = f->n_local > 0 && f->place[f->n_local - 1] == g - 1;
    if (!goes_on) f->segments[f->n_segments++] = (struct kwm_full_segment){g, 0};
    f->segments[f->n_segments - 1].count++;
    f->place[f->n_local++] = g;
  }
  f->prior = dense_new(n);
  f->mean = calloc((size_t)n, sizeof *f->mean);
  double *const mine = dense_new(n);
  for (int64_t g = 0; g < n; g++) f->prior[g] = prior_of(g);
  for (int64_t k = 0; k < f->n_local; k++) {
    mine[k] = f->prior[f->place[k]];
    f->mean[k] = (float)test_normal(50, f->place[k]);
  }
  const struct kwm_full_spec spec = {.comm = comm,
                                     .n = n,
                                     .n_segments = f->n_segments,
                                     .segments = f->segments,
                                     .prior_variance = mine,
                                     .rows_max = rows_max,
                                     .block = block};
  f->before = kwm_mem_bytes();
  const kwm_status status = kwm_full_create(&f->full, &spec);
  const size_t held = kwm_mem_bytes() - f->before;
  assert_all(held == (status == KWM_OK ? kwm_full_bytes(n, f->size, f->me, f->n_local, rows_max, block) : 0));
  free(mine);
  return status;
}

static void drop(struct fixture *f) {
  kwm_full_destroy(&f->full);
  assert_null(f->full);
  kwm_full_destroy(&f->full);
  free(f->place), free(f->prior), free(f->mean);
  assert_all(kwm_mem_bytes() == f->before);
}

/* all (n) <- the ranks' local values. */
static void join(const struct fixture *f, const double *mine, double *all) {
  for (int64_t g = 0; g < f->n; g++) all[g] = 0;
  for (int64_t k = 0; k < f->n_local; k++) all[f->place[k]] = mine[k];
  MPI_Allreduce(MPI_IN_PLACE, all, (int)f->n, MPI_DOUBLE, MPI_SUM, f->comm);
}

/* H (rows, n), exact in float. */
static double *jacobian(uint64_t step, int64_t rows, int64_t n) {
  double *const H = dense_new(rows * n);
  for (int64_t k = 0; k < rows * n; k++) H[k] = (double)(float)(0.4 * test_normal(100 + step, k));
  return H;
}

static float *local_columns(const struct fixture *f, int64_t rows, const double *H) {
  float *const mine = calloc((size_t)(rows * f->n_local + 1), sizeof *mine);
  for (int64_t r = 0; r < rows; r++)
    for (int64_t k = 0; k < f->n_local; k++) mine[r * f->n_local + k] = (float)H[r * f->n + f->place[k]];
  return mine;
}

/* S (rows, rows) += H P Hᵀ */
static void project(struct fixture *f, int64_t rows, const double *H, double *S) {
  float *const mine = local_columns(f, rows, H);
  kwm_full_project(f->full, rows, mine, S);
  free(mine);
}

/* P (n, n) as the filter sees it: H = I. */
static double *seen(struct fixture *f) {
  double *const H = dense_new(f->n * f->n), *const P = dense_new(f->n * f->n);
  for (int64_t k = 0; k < f->n; k++) H[k * f->n + k] = 1;
  project(f, f->n, H, P);
  free(H);
  return P;
}

/* P (n, n) as it is saved. */
static double *saved(struct fixture *f) {
  const int64_t dims[2] = {f->n, f->n};
  char *dir = make_dir();
  double *const P = dense_new(f->n * f->n);
  kwm_ckpt *ckpt;
  assert_ok(kwm_ckpt_create(&ckpt, MPI_COMM_WORLD, dir, 1));
  assert_ok(kwm_full_save(f->full, ckpt, true));
  assert_ok(kwm_ckpt_commit(&ckpt, 1));
  assert_ok(kwm_ckpt_open(&ckpt, MPI_COMM_WORLD, step_path(dir, 1)));
  assert_ok(kwm_ckpt_get(ckpt, "/cov/full/covariance", KWM_F64, 2, dims, 0, f->n, P));
  kwm_ckpt_close(&ckpt);
  drop_dir(dir);
  return P;
}

static bool same_bits(int64_t n, const double *a, const double *b) {
  return memcmp(a, b, (size_t)n * sizeof *a) == 0;
}

/* L <- factor of S + I, w <- (S + I)⁻¹e. */
static void solve(int64_t rows, const double *S, const double *e, double *L, double *w) {
  double *const inverse = dense_copy(rows * rows, S);
  for (int64_t k = 0; k < rows; k++) inverse[k * rows + k] += 1;
  memcpy(L, inverse, (size_t)(rows * rows) * sizeof *L);
  dense_cholesky(rows, L);
  dense_invert(rows, inverse);
  dense_multiply(rows, 1, rows, inverse, e, w);
  free(inverse);
}

struct step {
  int64_t rows;
  double *H, *e, *S, *L, *w;
};

/* Projects and conditions step t. */
static struct step prepare(struct fixture *f, uint64_t t, int64_t rows, double e_scale, bool *good) {
  struct step step = {
      rows, jacobian(t, rows, f->n), dense_new(rows), dense_new(rows * rows), dense_new(rows * rows), dense_new(rows)};
  for (int64_t k = 0; k < rows; k++) step.e[k] = e_scale * test_normal(200 + t, k);
  project(f, rows, step.H, step.S);
  solve(rows, step.S, step.e, step.L, step.w);
  *good = kwm_full_condition(f->full, rows, step.L, step.w);
  return step;
}

static void drop_step(struct step *step) {
  free(step->H), free(step->e), free(step->S), free(step->L), free(step->w);
}

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
    assert_all(kwm_full_predict(f.full, sequence->lambda, sequence->q));
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
      assert_all(kwm_full_predict(f.full, 0.95, 0.01));
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

  assert_all(kwm_full_predict(f.full, 1, 0));
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

/* f's covariance <- P (n, n), through a checkpoint. */
static void put_covariance(struct fixture *f, const double *P) {
  const int64_t dims[2] = {f->n, f->n};
  char *dir = make_dir();
  kwm_ckpt *ckpt;
  assert_ok(kwm_ckpt_create(&ckpt, MPI_COMM_WORLD, dir, 1));
  assert_ok(kwm_ckpt_put(ckpt, "/cov/full/covariance", KWM_F64, 2, dims, 0, rank() == 0 ? f->n : 0, P));
  assert_ok(kwm_ckpt_commit(&ckpt, 1));
  assert_ok(kwm_ckpt_open(&ckpt, MPI_COMM_WORLD, step_path(dir, 1)));
  assert_ok(kwm_full_load(f->full, ckpt));
  kwm_ckpt_close(&ckpt);
  drop_dir(dir);
}

/* Forgetting that fails leaves P as it was, bit for bit, and is no obstacle to later success. */
static void test_indefinite(void **state) {
  (void)state;
  enum { N = 50 };
  struct fixture f;
  assert_ok(make(&f, MPI_COMM_WORLD, 0, N, N, 8));
  double *const P = dense_new(N * N);
  for (int way = 0; way < 4; way++) {
    for (int64_t i = 0; i < N; i++)
      for (int64_t j = 0; j < N; j++) P[i * N + j] = i == j ? 2 : 1.0 / (double)(1 + i + j);
    if (way == 0) P[(N - 3) * (N + 1)] = -1e-3;
    if (way == 1) P[3 * (N + 1)] = 0;
    if (way == 2) P[40 * N + 2] = P[2 * N + 40] = NAN;
    if (way == 3) P[45 * N + 44] = P[44 * N + 45] = 5;
    put_covariance(&f, P);
    assert_all(!kwm_full_predict(f.full, 0.9, 0.1));
    double *const after = saved(&f);
    assert_all(same_bits(N * N, P, after));
    free(after);
  }
  for (int64_t i = 0; i < N; i++)
    for (int64_t j = 0; j < N; j++) P[i * N + j] = i == j ? 2 : 1.0 / (double)(1 + i + j);
  put_covariance(&f, P);
  assert_all(kwm_full_predict(f.full, 0.9, 0.1));
  dense_predict(N, P, f.prior, 0.9, 0.1);
  double *const found = saved(&f);
  assert_all(dense_error(N * N, found, P) <= same);
  free(found), free(P);
  drop(&f);
}

/* Unexcited, forgetting ends at the prior; with evidence in every step at Λ0 + F/(1-λ) (equations.md 3(d)). */
static void test_forgetting_ends(void **state) {
  (void)state;
  enum { N = 30, ROWS = 4 };
  struct fixture f;
  bool good;
  assert_ok(make(&f, MPI_COMM_WORLD, 2, N, N, 4));
  double *const H = jacobian(1, ROWS, N), *const Ht = dense_new(N * ROWS), *const F = dense_new(N * N);
  dense_transpose(ROWS, N, H, Ht);
  dense_multiply(N, N, ROWS, Ht, H, F);
  for (int64_t k = 0; k < N * N; k++) F[k] = F[k] / 0.5 + (k % (N + 1) == 0 ? 1 / f.prior[k / N] : 0);
  dense_invert(N, F);
  for (int t = 0; t < 50; t++) {
    assert_all(kwm_full_predict(f.full, 0.5, 0));
    struct step step = prepare(&f, 1, ROWS, 0, &good);
    kwm_full_apply(f.full, 1, f.mean);
    drop_step(&step);
  }
  double *const excited = saved(&f);
  assert_all(dense_error(N * N, excited, F) <= same);
  for (int t = 0; t < 50; t++) assert_all(kwm_full_predict(f.full, 0.5, 0));
  double *const calm = saved(&f);
  for (int64_t k = 0; k < N * N; k++) F[k] = k % (N + 1) == 0 ? f.prior[k / N] : 0;
  assert_all(dense_error(N * N, calm, F) <= same);
  free(H), free(Ht), free(F), free(excited), free(calm);
  drop(&f);
}

/* ---- checkpoints */

static void advance(struct fixture *f, uint64_t t) {
  bool good;
  assert_all(kwm_full_predict(f->full, 0.98, 0.001));
  struct step step = prepare(f, t, 10, 1, &good);
  kwm_full_apply(f->full, 1, f->mean);
  drop_step(&step);
}

/* Goes on from a checkpoint as if there had been none, to the last bit; on another block and dealing to rounding. */
static void test_resumes(void **state) {
  (void)state;
  enum { N = 83 };
  struct fixture f, g, h;
  char *dir = make_dir();
  kwm_ckpt *ckpt;
  assert_ok(make(&f, MPI_COMM_WORLD, 0, N, N, 8));
  assert_ok(make(&g, MPI_COMM_WORLD, 0, N, N, 8));
  assert_ok(make(&h, MPI_COMM_WORLD, 4, N, N, 5));
  for (uint64_t t = 0; t < 3; t++) advance(&f, t);
  assert_ok(kwm_ckpt_create(&ckpt, MPI_COMM_WORLD, dir, 3));
  assert_ok(kwm_full_save(f.full, ckpt, true));
  assert_ok(kwm_ckpt_commit(&ckpt, 1));
  assert_ok(kwm_ckpt_open(&ckpt, MPI_COMM_WORLD, step_path(dir, 3)));
  assert_ok(kwm_full_load(g.full, ckpt));
  assert_ok(kwm_full_load(h.full, ckpt));
  kwm_ckpt_close(&ckpt);
  double *const here = saved(&f), *const there = saved(&h);
  assert_all(same_bits(N * N, here, there));
  advance(&f, 3), advance(&g, 3), advance(&h, 3);
  double *const plain = saved(&f), *const resumed = saved(&g), *const elsewhere = saved(&h);
  assert_all(same_bits(N * N, plain, resumed) && !same_bits(N * N, here, plain));
  assert_all(dense_error(N * N, elsewhere, plain) <= same);
  free(here), free(there), free(plain), free(resumed), free(elsewhere);
  drop(&h), drop(&g), drop(&f);
  drop_dir(dir);
}

/* Two replicas, each a covariance of its own over half of the ranks; the first writes, both read; then all ranks read.
 */
static void test_replicas(void **state) {
  (void)state;
  enum { N = 47 };
  struct fixture half, all;
  int size;
  char *dir = make_dir();
  kwm_ckpt *ckpt;
  MPI_Comm comm;
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  const int replicas = size > 1 ? 2 : 1, replica = rank() * replicas / size;
  MPI_Comm_split(MPI_COMM_WORLD, replica, 0, &comm);
  assert_ok(make(&half, comm, 0, N, N, 6));
  advance(&half, (uint64_t)replica);
  double *const mine = seen(&half), *const first = dense_copy(N * N, mine);
  MPI_Bcast(first, N * N, MPI_DOUBLE, 0, MPI_COMM_WORLD);
  assert_all(replica == 0 || !same_bits(N * N, mine, first));
  assert_ok(kwm_ckpt_create(&ckpt, MPI_COMM_WORLD, dir, 1));
  assert_ok(kwm_full_save(half.full, ckpt, replica == 0));
  assert_ok(kwm_ckpt_commit(&ckpt, 1));
  assert_ok(kwm_ckpt_open(&ckpt, MPI_COMM_WORLD, step_path(dir, 1)));
  assert_ok(kwm_full_load(half.full, ckpt));
  double *const loaded = seen(&half);
  assert_all(same_bits(N * N, loaded, first));
  drop(&half);
  MPI_Comm_free(&comm);
  assert_ok(make(&all, MPI_COMM_WORLD, 2, N, N, 4));
  assert_ok(kwm_full_load(all.full, ckpt));
  double *const wide = seen(&all);
  assert_all(dense_error(N * N, wide, first) <= 1e-15);
  kwm_ckpt_close(&ckpt);
  free(mine), free(first), free(loaded), free(wide);
  drop(&all);
  drop_dir(dir);
}

/* ---- errors */

static void test_refused_files(void **state) {
  (void)state;
  struct fixture f;
  char *dir = make_dir();
  kwm_ckpt *ckpt;
  assert_ok(make(&f, MPI_COMM_WORLD, 0, 30, 30, 8));
  const int64_t dims[2] = {29, 30};
  double *const wrong = dense_new(29 * 30);
  for (int64_t step = 0; step < 2; step++) {
    assert_ok(kwm_ckpt_create(&ckpt, MPI_COMM_WORLD, dir, step));
    const char *const name = step == 0 ? "/cov/other" : "/cov/full/covariance";
    assert_ok(kwm_ckpt_put(ckpt, name, KWM_F64, 2, dims, 0, rank() == 0 ? 29 : 0, wrong));
    assert_ok(kwm_ckpt_commit(&ckpt, 2));
    assert_ok(kwm_ckpt_open(&ckpt, MPI_COMM_WORLD, step_path(dir, step)));
    assert_refused(kwm_full_load(f.full, ckpt), KWM_ERR_DATA,
                   step == 0 ? "wanted array /cov/full/covariance" : "wanted f64 (30, 30), found f64 (29, 30)");
    kwm_ckpt_close(&ckpt);
  }
  free(wrong);
  drop(&f);
  drop_dir(dir);
}

/* Rank 0 owns what is given, the others nothing. */
static kwm_status create_with(int64_t n, int64_t n_segments, const struct kwm_full_segment *segments) {
  int64_t count = 0;
  for (int64_t s = 0; s < n_segments; s++) count += segments[s].count;
  double *const prior = dense_new(count);
  for (int64_t k = 0; k < count; k++) prior[k] = 1;
  kwm_full *full;
  const size_t before = kwm_mem_bytes();
  const struct kwm_full_spec spec = {.comm = MPI_COMM_WORLD,
                                     .n = n,
                                     .n_segments = rank() == 0 ? n_segments : 0,
                                     .segments = segments,
                                     .prior_variance = prior,
                                     .rows_max = 4,
                                     .block = 8};
  const kwm_status status = kwm_full_create(&full, &spec);
  assert_all(status == KWM_OK || full == NULL);
  kwm_full_destroy(&full);
  free(prior);
  assert_all(kwm_mem_bytes() == before);
  return status;
}

static void test_refused_segments(void **state) {
  (void)state;
  const struct kwm_full_segment whole[] = {{0, 10}, {10, 0}, {10, 20}}, gap[] = {{0, 17}, {18, 12}};
  const struct kwm_full_segment twice[] = {{0, 20}, {12, 18}}, beyond[] = {{0, 20}, {20, 11}}, below[] = {{-1, 31}};
  const struct kwm_full_segment huge[] = {{0, 120000}};
  assert_ok(create_with(30, 3, whole));
  assert_refused(create_with(30, 2, gap), KWM_ERR_USAGE, "wanted parameter 17 in the segments of one rank");
  assert_refused(create_with(30, 2, twice), KWM_ERR_USAGE, "found it 2 times");
  assert_refused(create_with(30, 2, beyond), KWM_ERR_USAGE, "wanted segments within 30 parameters, found [20, 31)");
  assert_refused(create_with(30, 1, below), KWM_ERR_USAGE, "wanted segments within 30 parameters, found [-1, 30)");
  assert_refused(create_with(30, 0, NULL), KWM_ERR_USAGE, "found it 0 times");
  assert_refused(create_with(120000, 1, huge), KWM_ERR_USAGE, "found 120000 parameters and 4 rows");
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_textbook),         cmocka_unit_test(test_dealing_changes_no_bit),
    cmocka_unit_test(test_batch_of_steps),   cmocka_unit_test(test_large),
    cmocka_unit_test(test_prior_and_health), cmocka_unit_test(test_no_innovation_no_evidence),
    cmocka_unit_test(test_gives_up),         cmocka_unit_test(test_indefinite),
    cmocka_unit_test(test_forgetting_ends),  cmocka_unit_test(test_resumes),
    cmocka_unit_test(test_replicas),         cmocka_unit_test(test_refused_files),
    cmocka_unit_test(test_refused_segments),
};

KWM_TEST_MAIN(tests)
