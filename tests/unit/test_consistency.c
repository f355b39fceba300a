/* Consistency statistics and adaptation of noises (equations.md 3(f), invariants 46-48): numbers from statistics
   tables, sums formed anew in two passes, and textbook filters that are right or wrong in a known way. Every draw is
   keyed, so a result never varies; the bounds are those of the invariants. */
#include "dense.h"

#include "kwm/consistency.h"

/* A linear-Gaussian world and the filter that believes something about it. Noises are variances. */
struct scenario {
  uint64_t seed;
  int64_t n, m, steps;
  bool random_inputs; /* H drawn anew each step, or once */
  double true_q, q;
  double true_R, R;
  const struct kwm_adaptation *adapt_R, *adapt_q; /* NULL: keep what is believed */
  int64_t last;                                   /* steps that the averages of R and q are over */
};

enum { MOST_OUTPUTS = 3 };

struct outcome {
  struct kwm_nis nis, nees; /* NEES after the last step only */
  struct kwm_ljung_box box[MOST_OUTPUTS];
  struct kwm_score_test score;
  double mean_R, mean_q, least; /* averages; smallest R, q, or variance in P */
};

static double dot(int64_t n, const double *a, const double *b) {
  double sum = 0;
  for (int64_t k = 0; k < n; k++) sum += a[k] * b[k];
  return sum;
}

/* aᵀ M⁻¹ a */
static double squared_length(int64_t n, const double *M, const double *a) {
  double *const inverse = dense_copy(n * n, M), *const b = dense_new(n);
  dense_invert(n, inverse);
  dense_multiply(n, 1, n, inverse, a, b);
  const double sum = dot(n, a, b);
  free(inverse), free(b);
  return sum;
}

struct run {
  double *truth, *mean, *P, *H, *e, *delta, *score, *before; /* H, e whitened by the believed R */
  double R, q;
  int64_t drawn;
};

static double draw(struct run *run, const struct scenario *world) {
  return test_normal(world->seed, run->drawn++);
}

static void open_run(struct run *run, const struct scenario *world) {
  const int64_t n = world->n, m = world->m;
  *run = (struct run){.truth = dense_new(n),
                      .mean = dense_new(n),
                      .P = dense_new(n * n),
                      .H = dense_new(m * n),
                      .e = dense_new(m),
                      .delta = dense_new(n),
                      .score = dense_new(n),
                      .before = dense_new(n),
                      .R = world->R,
                      .q = world->q};
  for (int64_t k = 0; k < n; k++) run->P[k * n + k] = 1;
  for (int64_t k = 0; k < n; k++) run->truth[k] = draw(run, world);
  for (int64_t k = 0; k < m * n; k++) run->H[k] = draw(run, world) / sqrt(run->R);
}

static void close_run(struct run *run) {
  free(run->truth), free(run->mean), free(run->P), free(run->H);
  free(run->e), free(run->delta), free(run->score), free(run->before);
}

/* The target walks, P grows by qI, and a measurement is made; e and H whitened by the believed R, which may change. */
static void measure(struct run *run, const struct scenario *world, double scale) {
  const int64_t n = world->n, m = world->m;
  for (int64_t k = 0; k < n; k++) run->truth[k] += sqrt(world->true_q) * draw(run, world);
  for (int64_t k = 0; k < n; k++) run->P[k * n + k] += run->q;
  for (int64_t k = 0; k < m * n; k++)
    run->H[k] = world->random_inputs ? draw(run, world) / sqrt(run->R) : run->H[k] * scale;
  for (int64_t i = 0; i < m; i++) {
    run->e[i] = sqrt(world->true_R / run->R) * draw(run, world);
    for (int64_t k = 0; k < n; k++) run->e[i] += run->H[i * n + k] * (run->truth[k] - run->mean[k]);
  }
}

/* What the innovation says before the update. */
static void judge(struct run *run, const struct scenario *world, int64_t t, struct outcome *outcome) {
  const int64_t n = world->n, m = world->m;
  double *const S = dense_new(m * m), *const white = dense_copy(m, run->e);
  dense_innovation_covariance(n, m, run->P, run->H, S);
  kwm_nis_add(&outcome->nis, squared_length(m, S, run->e), (double)m);
  dense_cholesky(m, S);
  for (int64_t i = 0; i < m; i++) {
    for (int64_t j = 0; j < i; j++) white[i] -= S[i * m + j] * white[j];
    white[i] /= S[i * m + i];
    kwm_ljung_box_add(&outcome->box[i], white[i]);
  }
  dense_multiply(1, n, m, run->e, run->H, run->score);
  if (t > 0) kwm_score_test_add(&outcome->score, dot(n, run->score, run->before));
  memcpy(run->before, run->score, (size_t)n * sizeof *run->score);
  free(S), free(white);
}

/* Over thousands of steps P - KSKᵀ drifts away from symmetry and then from positivity, unless it is made symmetric. */
static void update(struct run *run, const struct scenario *world) {
  const int64_t n = world->n;
  dense_update(n, world->m, run->P, run->H, run->e, run->delta);
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = 0; j < i; j++) run->P[i * n + j] = run->P[j * n + i] = (run->P[i * n + j] + run->P[j * n + i]) / 2;
  for (int64_t k = 0; k < n; k++) run->mean[k] += run->delta[k];
}

/* Mean over rows of r⁺² + (HP⁺Hᵀ)_ii, after the update. */
static double noise_ratio(const struct run *run, const struct scenario *world) {
  const int64_t n = world->n, m = world->m;
  double *const S = dense_new(m * m), *const moved = dense_new(m);
  dense_innovation_covariance(n, m, run->P, run->H, S);
  dense_multiply(m, 1, n, run->H, run->delta, moved);
  double sum = 0;
  for (int64_t i = 0; i < m; i++) sum += (run->e[i] - moved[i]) * (run->e[i] - moved[i]) + S[i * m + i] - 1;
  free(S), free(moved);
  return sum / (double)m;
}

static struct outcome simulate(const struct scenario *world) {
  struct outcome outcome = {.least = INFINITY};
  struct run run;
  open_run(&run, world);
  const int64_t n = world->n;
  double scale = 1;
  for (int64_t t = 0; t < world->steps; t++) {
    measure(&run, world, scale);
    judge(&run, world, t, &outcome);
    update(&run, world);
    const double R = run.R;
    if (world->adapt_R != NULL) run.R = kwm_adapt_noise(world->adapt_R, R, noise_ratio(&run, world));
    if (world->adapt_q != NULL)
      run.q = kwm_adapt_process(world->adapt_q, run.q, dot(n, run.delta, run.delta), (double)n);
    scale = sqrt(R / run.R);
    outcome.least = fmin(outcome.least, fmin(run.R, run.q));
    for (int64_t k = 0; k < n; k++) outcome.least = fmin(outcome.least, run.P[k * n + k]);
    if (t < world->steps - world->last) continue;
    outcome.mean_R += run.R / (double)world->last;
    outcome.mean_q += run.q / (double)world->last;
  }
  for (int64_t k = 0; k < n; k++) run.mean[k] -= run.truth[k];
  kwm_nis_add(&outcome.nees, squared_length(n, run.P, run.mean), (double)n);
  close_run(&run);
  return outcome;
}

static void add_doubles(int64_t n, const void *from, void *into) {
  double a[64], b[64];
  assert_true(n <= 64);
  memcpy(a, from, (size_t)n * sizeof *a);
  memcpy(b, into, (size_t)n * sizeof *b);
  for (int64_t k = 0; k < n; k++) b[k] += a[k];
  memcpy(into, b, (size_t)n * sizeof *b);
}

static void test_normal_quantile(void **state) {
  (void)state;
  assert_close(kwm_normal_quantile(0.975), 1.959963984540054, 4e-15, 0);
  assert_close(kwm_normal_quantile(0.995), 2.5758293035489004, 4e-15, 0);
  assert_close(kwm_normal_quantile(0.9), 1.2815515655446004, 4e-15, 0);
  assert_close(kwm_normal_quantile(0.001), -3.090232306167813, 4e-15, 0);
  assert_close(kwm_normal_quantile(1e-6), -4.753424308822899, 4e-15, 0);
  assert_true(kwm_normal_quantile(0.5) == 0);
  assert_true(kwm_normal_quantile(0) == -INFINITY && kwm_normal_quantile(1) == INFINITY);
}

static void test_chi2_quantile(void **state) {
  (void)state;
  assert_close(kwm_chi2_quantile(10, 0.975), 20.48318, 2e-4, 0);
  assert_close(kwm_chi2_quantile(10, 0.025), 3.246973, 0.008, 0);
  assert_close(kwm_chi2_quantile(100, 0.975), 129.56120, 3e-5, 0);
  assert_close(kwm_chi2_quantile(100, 0.025), 74.22193, 1e-4, 0);
  assert_close(kwm_chi2_quantile(1000, 0.975), 1089.530915, 3e-6, 0);
  assert_close(kwm_chi2_quantile(1000, 0.025), 914.257155, 3e-6, 0);
  assert_true(kwm_chi2_quantile(1, 0.001) == 0);
}

/* Percentage points as tabulated to seven digits, closed forms, and quantiles of the other function. */
static void test_chi2_survival(void **state) {
  (void)state;
  assert_close(kwm_chi2_survival(1, 3.841459), 0.05, 1e-6, 0);
  assert_close(kwm_chi2_survival(10, 18.30704), 0.05, 1e-6, 0);
  assert_close(kwm_chi2_survival(10, 3.940299), 0.95, 1e-6, 0);
  assert_close(kwm_chi2_survival(30, 43.77297), 0.05, 1e-6, 0);
  assert_close(kwm_chi2_survival(100, 124.3421), 0.05, 3e-6, 0);
  for (double x = 0.01; x < 1400; x *= 1.7) {
    assert_close(kwm_chi2_survival(2, x), exp(-x / 2), 1e-12, 0);
    assert_close(kwm_chi2_survival(4, x), exp(-x / 2) * (1 + x / 2), 1e-12, 0);
    assert_close(kwm_chi2_survival(1, x), erfc(sqrt(x / 2)), 1e-12, 0);
  }
  for (int half = 5; half <= 200; half += 13) {
    const double x = half + 2;
    double sum = 0, term = exp(-x);
    for (int i = 0; i < half; term *= x / ++i) sum += term;
    assert_close(kwm_chi2_survival(2 * half, 2 * x), sum, 5e-13, 0);
  }
  assert_close(kwm_chi2_survival(1e6, 1e6), 0.4998119368033945, 1e-12, 0); /* by quadrature in 40 digits */
  assert_close(kwm_chi2_survival(1e6, 1.004e6), 0.0023630282386838922, 1e-12, 0);
  for (double p = 0.01; p < 1; p += 0.07)
    assert_close(kwm_chi2_survival(1e6, kwm_chi2_quantile(1e6, p)), 1 - p, 2e-6, 0);
  assert_true(kwm_chi2_survival(3, 0) == 1 && kwm_chi2_survival(3, -1) == 1 && kwm_chi2_survival(3, INFINITY) == 0);
  assert_true(kwm_chi2_survival(10, 1e5) == 0 && isnan(kwm_chi2_survival(3, NAN)));
}

static const struct scenario right = {.seed = 46,
                                      .n = 3,
                                      .m = 2,
                                      .steps = 4000,
                                      .random_inputs = true,
                                      .true_q = 0.01,
                                      .q = 0.01,
                                      .true_R = 0.5,
                                      .R = 0.5};

/* Invariant 46. */
static void test_nis(void **state) {
  (void)state;
  struct scenario world = right;
  const struct outcome good = simulate(&world);
  assert_true(good.nis.steps == 4000 && good.nis.dof == 8000);
  assert_int_equal(kwm_nis_verdict(&good.nis, 0.95), KWM_CONFIDENCE_RIGHT);
  const struct kwm_band band = kwm_nis_band(&good.nis, 0.95);
  assert_close(band.lower, 1 - 1.96 * sqrt(2 / 8000.0), 1e-3, 0);
  assert_close(band.upper, 1 + 1.96 * sqrt(2 / 8000.0), 1e-3, 0);
  world.R *= 2;
  const struct outcome doubled = simulate(&world);
  assert_int_equal(kwm_nis_verdict(&doubled.nis, 0.95), KWM_CONFIDENCE_TOO_LOW);
  assert_below(kwm_nis_mean(&doubled.nis), 0.7);
  world.R /= 4;
  const struct outcome halved = simulate(&world);
  assert_int_equal(kwm_nis_verdict(&halved.nis, 0.95), KWM_CONFIDENCE_TOO_HIGH);
}

static void test_nees(void **state) {
  (void)state;
  enum { RUNS = 500 };
  struct kwm_nis right_runs = {0}, doubled_runs = {0}, halves[2] = {0};
  for (int i = 0; i < RUNS; i++) {
    struct scenario world = right;
    world.seed = (uint64_t)(1000 + i);
    world.steps = 30;
    const struct outcome good = simulate(&world);
    add_doubles(KWM_DOUBLES(good.nees), &good.nees, &right_runs);
    add_doubles(KWM_DOUBLES(good.nees), &good.nees, &halves[i >= RUNS / 3]);
    world.R *= 2;
    const struct outcome doubled = simulate(&world);
    add_doubles(KWM_DOUBLES(doubled.nees), &doubled.nees, &doubled_runs);
  }
  assert_true(right_runs.steps == RUNS && right_runs.dof == 3 * RUNS);
  assert_int_equal(kwm_nis_verdict(&right_runs, 0.95), KWM_CONFIDENCE_RIGHT);
  assert_int_equal(kwm_nis_verdict(&doubled_runs, 0.95), KWM_CONFIDENCE_TOO_LOW);
  add_doubles(KWM_DOUBLES(halves[0]), &halves[1], &halves[0]);
  assert_true(halves[0].steps == RUNS && halves[0].dof == right_runs.dof);
  assert_close(halves[0].sum, right_runs.sum, 1e-13, 0);
}

static void test_nis_undecided(void **state) {
  (void)state;
  struct kwm_nis nis = {0};
  assert_int_equal(kwm_nis_verdict(&nis, 0.95), KWM_CONFIDENCE_UNDECIDED);
  assert_true(isnan(kwm_nis_mean(&nis)) && isnan(kwm_nis_band(&nis, 0.95).upper));
  kwm_nis_add(&nis, NAN, 2);
  assert_int_equal(kwm_nis_verdict(&nis, 0.95), KWM_CONFIDENCE_UNDECIDED);
}

/* An autoregressive series far from zero. */
static void make_series(int64_t N, double *x) {
  double now = 0;
  for (int64_t t = 0; t < N; t++) {
    now = 0.4 * now + test_normal(47, t);
    x[t] = 1e6 + now;
  }
}

static double two_pass_correlation(int64_t N, const double *x, int64_t j) {
  double mean = 0, products = 0, squares = 0;
  for (int64_t t = 0; t < N; t++) mean += (x[t] - 1e6) / (double)N;
  for (int64_t t = 0; t < N; t++) squares += (x[t] - 1e6 - mean) * (x[t] - 1e6 - mean);
  for (int64_t t = j; t < N; t++) products += (x[t] - 1e6 - mean) * (x[t - j] - 1e6 - mean);
  return products / squares;
}

static void test_ljung_box_sums(void **state) {
  (void)state;
  for (int64_t N = 12; N <= 1200; N *= 10) {
    double x[1200], statistic = 0;
    make_series(N, x);
    struct kwm_ljung_box box = {0};
    for (int64_t t = 0; t < N; t++) kwm_ljung_box_add(&box, x[t]);
    for (int j = 0; j <= KWM_LAGS; j++) {
      const double correlation = two_pass_correlation(N, x, j);
      assert_close(kwm_ljung_box_correlation(&box, j), correlation, 0, 1e-11);
      if (j > 0) statistic += (double)(N * (N + 2)) * correlation * correlation / (double)(N - j);
    }
    assert_close(kwm_ljung_box_statistic(&box), statistic, 1e-9, 0);
    assert_close(kwm_ljung_box_p(&box), kwm_chi2_survival(KWM_LAGS, statistic), 1e-7, 0);
  }
}

static void test_ljung_box_edges(void **state) {
  (void)state;
  struct kwm_ljung_box box = {0};
  assert_true(kwm_ljung_box_correlation(&box, 0) == 0);
  for (int t = 0; t < KWM_LAGS + 1; t++) kwm_ljung_box_add(&box, t);
  assert_true(kwm_ljung_box_statistic(&box) == 0 && kwm_ljung_box_p(&box) == 1);
  kwm_ljung_box_add(&box, 0);
  assert_true(kwm_ljung_box_statistic(&box) > 0 && kwm_ljung_box_p(&box) < 1);
  struct kwm_ljung_box constant = {0};
  for (int t = 0; t < 50; t++) kwm_ljung_box_add(&constant, 0.1);
  assert_true(kwm_ljung_box_statistic(&constant) == 0 && kwm_ljung_box_p(&constant) == 1);
  kwm_ljung_box_add(&constant, NAN);
  assert_true(isnan(kwm_ljung_box_p(&constant)));
}

/* Stored as doubles and restored in the middle, it ends with the same bits. */
static void test_ljung_box_restored(void **state) {
  (void)state;
  for (int64_t cut = 0; cut <= 200; cut += 4) {
    double x[200], stored[sizeof(struct kwm_ljung_box) / sizeof(double)];
    make_series(200, x);
    struct kwm_ljung_box whole = {0}, part = {0}, restored;
    assert_int_equal(KWM_DOUBLES(whole), sizeof stored / sizeof *stored);
    for (int64_t t = 0; t < 200; t++) kwm_ljung_box_add(&whole, x[t]);
    for (int64_t t = 0; t < cut; t++) kwm_ljung_box_add(&part, x[t]);
    memcpy(stored, &part, sizeof part);
    memcpy(&restored, stored, sizeof stored);
    for (int64_t t = cut; t < 200; t++) kwm_ljung_box_add(&restored, x[t]);
    assert_memory_equal(&restored, &whole, sizeof whole);
  }
}

static double least_p(const struct scenario *world) {
  const struct outcome outcome = simulate(world);
  double least = 1;
  for (int64_t i = 0; i < world->m; i++) least = fmin(least, kwm_ljung_box_p(&outcome.box[i]));
  return least;
}

/* Invariant 47, constant H; and why the score test is there. */
static void test_whiteness(void **state) {
  (void)state;
  struct scenario world = right;
  world.m = 3;
  world.random_inputs = false;
  const double right_p = least_p(&world);
  assert_true(right_p > 0.001 && right_p <= 1);
  world.true_q = 100 * world.q;
  assert_below(least_p(&world), 1e-6);
  world.random_inputs = true;
  assert_true(least_p(&world) > 0.001);
}

static double score_z(double true_q, double q) {
  struct scenario world = right;
  world.true_q = true_q, world.q = q;
  const struct outcome outcome = simulate(&world);
  assert_true(outcome.score.count == 3999);
  return kwm_score_test_z(&outcome.score);
}

/* Invariant 47, random H. */
static void test_scores(void **state) {
  (void)state;
  assert_below(fabs(score_z(0.01, 0.01)), 3);
  assert_true(score_z(0.01, 0.01 / 100) > 10);
  assert_true(score_z(0.01, 0.01 * 100) < -10);
}

static void test_score_sums(void **state) {
  (void)state;
  struct kwm_score_test whole = {0}, half[2] = {0};
  assert_true(kwm_score_test_z(&whole) == 0);
  const double products[] = {1, 2, 4, -3};
  for (int t = 0; t < 4; t++) {
    kwm_score_test_add(&whole, products[t]);
    kwm_score_test_add(&half[t / 2], products[t]);
    if (t == 0) assert_true(kwm_score_test_z(&whole) == 0);
  }
  add_doubles(KWM_DOUBLES(whole), &half[1], &half[0]);
  assert_memory_equal(&half[0], &whole, sizeof whole);
  assert_close(kwm_score_test_z(&whole), 1 / sqrt(26.0 / 3 / 4), 1e-14, 0);
  struct kwm_score_test zeros = {0};
  kwm_score_test_add(&zeros, 0), kwm_score_test_add(&zeros, 0);
  assert_true(kwm_score_test_z(&zeros) == 0);
}

/* Predictions whose confidence is spread over [0.2, 1] and right with the probability confidence - gap. */
static struct kwm_calibration predictions(int64_t from, int64_t to, double gap) {
  struct kwm_calibration table = {0};
  for (int64_t i = from; i < to; i++) {
    const double confidence = 0.2 + 0.8 * kwm_rng_uniform(7, KWM_RNG_TEST, 51, (uint64_t)i);
    kwm_calibration_add(&table, confidence, kwm_rng_uniform(7, KWM_RNG_TEST, 52, (uint64_t)i) < confidence - gap);
  }
  return table;
}

static void test_calibration(void **state) {
  (void)state;
  enum { N = 200000 };
  const struct kwm_calibration good = predictions(0, N, 0), boastful = predictions(0, N, 0.15);
  assert_below(kwm_calibration_error(&good), 0.005);
  assert_close(kwm_calibration_error(&boastful), 0.15, 0, 0.005);
  struct kwm_calibration first = predictions(0, N / 3, 0.15);
  const struct kwm_calibration second = predictions(N / 3, N, 0.15);
  add_doubles(KWM_DOUBLES(first), &second, &first);
  assert_memory_equal(first.count, boastful.count, sizeof first.count);
  assert_memory_equal(first.correct, boastful.correct, sizeof first.correct);
  assert_close(kwm_calibration_error(&first), kwm_calibration_error(&boastful), 1e-12, 0);
}

static void test_calibration_edges(void **state) {
  (void)state;
  struct kwm_calibration table = {0};
  assert_true(kwm_calibration_error(&table) == 0);
  kwm_calibration_add(&table, 0, false);
  kwm_calibration_add(&table, 0.999 / 15, true);
  kwm_calibration_add(&table, 1.001 / 15, false);
  kwm_calibration_add(&table, 1, true);
  kwm_calibration_add(&table, 1 + 1e-7, true);
  kwm_calibration_add(&table, -0.5, false);
  assert_true(table.count[0] == 3 && table.count[1] == 1 && table.count[KWM_CALIBRATION_BINS - 1] == 2);
  assert_true(table.correct[0] == 1 && table.correct[1] == 0 && table.correct[KWM_CALIBRATION_BINS - 1] == 2);
  assert_close(kwm_calibration_error(&table), (1.5 - 0.999 / 15 + 1.001 / 15) / 6, 0, 1e-6);
  kwm_calibration_add(&table, NAN, true);
  assert_true(isnan(kwm_calibration_error(&table)));
}

/* Invariant 48: each noise alone from ten times off, then both from five times. */
static void test_adaptation(void **state) {
  (void)state;
  const struct kwm_adaptation how = {.rate = 0.005, .lower = 1e-8, .upper = 1e4};
  struct scenario world = right;
  world.seed = 48, world.steps = 40000, world.last = 5000;
  world.R = 10 * world.true_R, world.adapt_R = &how;
  const struct outcome noise = simulate(&world);
  assert_close(noise.mean_R, world.true_R, 0.1, 0);
  assert_close(noise.mean_q, world.q, 1e-10, 0);
  world.R = world.true_R, world.adapt_R = NULL;
  world.q = world.true_q / 10, world.adapt_q = &how;
  const struct outcome process = simulate(&world);
  assert_close(process.mean_q, world.true_q, 0.3, 0);
  world.R = 5 * world.true_R, world.adapt_R = &how;
  world.q = 5 * world.true_q;
  const struct outcome both = simulate(&world);
  assert_close(both.mean_R, world.true_R, 0.1, 0);
  assert_close(both.mean_q, world.true_q, 0.3, 0);
  assert_true(noise.least > 0 && process.least > 0 && both.least > 0);
  assert_true(isfinite(kwm_nis_mean(&both.nis)));
}

static void test_adaptation_guards(void **state) {
  (void)state;
  const struct kwm_adaptation how = {.rate = 0.25, .lower = 0.5, .upper = 8};
  assert_close(kwm_adapt_noise(&how, 2, 3), 0.75 * 2 + 0.25 * 6, 1e-15, 0);
  assert_close(kwm_adapt_process(&how, 2, 40, 10), 0.75 * 2 + 0.25 * 4, 1e-15, 0);
  assert_true(kwm_adapt_noise(&how, 2, 1) == 2);
  assert_true(kwm_adapt_noise(&how, 0.5, 0) == 0.5 && kwm_adapt_process(&how, 0.5, 0, 3) == 0.5);
  assert_true(kwm_adapt_noise(&how, 2, 1e300) == 8 && kwm_adapt_process(&how, 2, 1e300, 1) == 8);
  const double useless[] = {NAN, INFINITY, -INFINITY, -1};
  for (int i = 0; i < 4; i++)
    assert_true(kwm_adapt_noise(&how, 2, useless[i]) == 2 && kwm_adapt_process(&how, 3, useless[i], 5) == 3);
  assert_true(kwm_adapt_process(&how, NAN, 1, 1) == 0.5 && kwm_adapt_process(&how, 100, NAN, 1) == 8);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_normal_quantile),
      cmocka_unit_test(test_chi2_quantile),
      cmocka_unit_test(test_chi2_survival),
      cmocka_unit_test(test_nis),
      cmocka_unit_test(test_nees),
      cmocka_unit_test(test_nis_undecided),
      cmocka_unit_test(test_ljung_box_sums),
      cmocka_unit_test(test_ljung_box_edges),
      cmocka_unit_test(test_ljung_box_restored),
      cmocka_unit_test(test_whiteness),
      cmocka_unit_test(test_scores),
      cmocka_unit_test(test_score_sums),
      cmocka_unit_test(test_calibration),
      cmocka_unit_test(test_calibration_edges),
      cmocka_unit_test(test_adaptation),
      cmocka_unit_test(test_adaptation_guards),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
