/* Filters of state and parameters against textbook filters in dense matrices. */
#include "dense.h"
#include "kwm/tracker.h"

/* ---- a linear system with inputs: n = 0 */

enum { D = 3, M = 2, STEPS = 300 };
static const double A[D * D] = {0.9, 0.2, 0, -0.3, 0.8, 0.1, 0.05, 0, 0.7}, B[D] = {0.5, -1, 0.2};
static const double C[M * D] = {1, 0, 0.5, 0, 1, -1}, Q[D] = {0.02, 0.1, 0.05}, R[M] = {0.3, 0.04};

static void linear_step(const void *context, const double *x, const double *u, const double *theta, double *next,
                        double *Fx, double *Ft) {
  (void)context, (void)theta, (void)Ft;
  dense_multiply(D, 1, D, A, x, next);
  for (int i = 0; i < D; i++) next[i] += B[i] * u[0];
  if (Fx != NULL) memcpy(Fx, A, sizeof A);
}

static void linear_observe(const void *context, const double *x, const double *theta, double *y, double *Hx,
                           double *Ht) {
  (void)context, (void)theta, (void)Ht;
  dense_multiply(M, 1, D, C, x, y);
  if (Hx != NULL) memcpy(Hx, C, sizeof C);
}

static const struct kwm_space linear = {.d = D, .m = M, .k = 1, .step = linear_step, .observe = linear_observe};

/* P <- A P Aᵀ + diag(Q), x <- A x + B u: as in a textbook. */
static void textbook_predict(double *x, double *P, double u) {
  double *const T = dense_new(D * D), *const At = dense_new(D * D), *const next = dense_new(D);
  linear_step(NULL, x, &u, NULL, next, NULL, NULL);
  memcpy(x, next, D * sizeof *x);
  dense_transpose(D, D, A, At);
  dense_multiply(D, D, D, A, P, T);
  dense_multiply(D, D, D, T, At, P);
  for (int i = 0; i < D; i++) P[i * D + i] += Q[i];
  free(T), free(At), free(next);
}

/* Rows of y that are there, whitened, through dense_update (R = I). Returns eᵀS⁻¹e. */
static double textbook_update(double *x, double *P, const double *y) {
  double H[M * D], e[M], delta[D], S[M * M];
  int64_t rows = 0;
  for (int i = 0; i < M; i++) {
    if (isnan(y[i])) continue;
    double predicted = 0;
    for (int j = 0; j < D; j++) predicted += C[i * D + j] * x[j], H[rows * D + j] = C[i * D + j] / sqrt(R[i]);
    e[rows++] = (y[i] - predicted) / sqrt(R[i]);
  }
  if (rows == 0) return 0;
  dense_innovation_covariance(D, rows, P, H, S);
  dense_invert(rows, S);
  double nis = 0;
  for (int64_t i = 0; i < rows; i++)
    for (int64_t j = 0; j < rows; j++) nis += e[i] * S[i * rows + j] * e[j];
  dense_update(D, rows, P, H, e, delta);
  for (int i = 0; i < D; i++) x[i] += delta[i];
  return nis;
}

static void begin(struct kwm_tracker *tracker, const struct kwm_tracker_spec *spec) {
  assert_ok(kwm_tracker_create(tracker, spec));
  memcpy(tracker->q, Q, sizeof Q);
  memcpy(tracker->r, R, sizeof R);
  for (int i = 0; i < D; i++) tracker->start[i] = 0.3 * i, tracker->spread[i] = 2 + i;
  kwm_tracker_prior(tracker);
  kwm_tracker_begin(tracker);
}

static void compare_linear(enum kwm_tracker_method method, double tolerance) {
  const struct kwm_tracker_spec spec = {.space = &linear, .method = method, .iterations = 1};
  struct kwm_tracker tracker;
  double x[D], P[D * D] = {0}, mine[D * D];
  begin(&tracker, &spec);
  for (int i = 0; i < D; i++) x[i] = tracker.start[i], P[i * D + i] = tracker.spread[i];
  for (int t = 0; t < STEPS; t++) {
    const double u = sin(0.3 * t);
    double y[M] = {3 * test_normal(1, t), test_normal(2, t)};
    if (t % 5 == 1) y[t % 2] = NAN;
    if (t % 11 == 3) y[0] = y[1] = NAN;
    assert_true(kwm_tracker_predict(&tracker, &u));
    textbook_predict(x, P, u);
    const struct kwm_track track = kwm_tracker_update(&tracker, y);
    const double nis = textbook_update(x, P, y);
    assert_close(track.nis, nis, tolerance, tolerance);
    kwm_tracker_covariance(&tracker, mine);
    assert_below(dense_error(D, tracker.z, x), tolerance);
    assert_below(dense_error(D * D, mine, P), tolerance);
  }
  kwm_tracker_destroy(&tracker);
}

static void test_exact_filter(void **state) {
  (void)state;
  compare_linear(KWM_TRACKER_JOINT, 1e-10);
}

static void test_unscented_is_exact_for_linear(void **state) {
  (void)state;
  compare_linear(KWM_TRACKER_UNSCENTED, 1e-10);
}

static void test_dual_without_parameters(void **state) {
  (void)state;
  compare_linear(KWM_TRACKER_DUAL, 1e-10);
}

/* ---- a nonlinear model with parameters in both f and h */

enum { N = 3, NL = N + 2 };

static void bent_step(const void *context, const double *x, const double *u, const double *theta, double *next,
                      double *Fx, double *Ft) {
  (void)context, (void)u;
  const double s = sin(x[1]), c = cos(x[1]);
  next[0] = 0.9 * x[0] + theta[0] * s;
  next[1] = 0.8 * x[1] + theta[1] * x[0];
  if (Fx != NULL) Fx[0] = 0.9, Fx[1] = theta[0] * c, Fx[2] = theta[1], Fx[3] = 0.8;
  if (Ft != NULL) Ft[0] = s, Ft[1] = 0, Ft[2] = 0, Ft[3] = 0, Ft[4] = x[0], Ft[5] = 0;
}

static void bent_observe(const void *context, const double *x, const double *theta, double *y, double *Hx, double *Ht) {
  (void)context;
  y[0] = x[0] + theta[2] * x[1] * x[1];
  if (Hx != NULL) Hx[0] = 1, Hx[1] = 2 * theta[2] * x[1];
  if (Ht != NULL) Ht[0] = 0, Ht[1] = 0, Ht[2] = x[1] * x[1];
}

static const struct kwm_space bent = {.d = 2, .n = N, .m = 1, .step = bent_step, .observe = bent_observe};

static void begin_bent(struct kwm_tracker *tracker, enum kwm_tracker_method method, int iterations) {
  const struct kwm_tracker_spec spec = {.space = &bent, .method = method, .iterations = iterations, .walk = 1e-3};
  assert_ok(kwm_tracker_create(tracker, &spec));
  tracker->q[0] = 0.01, tracker->q[1] = 0.02, tracker->r[0] = 0.05;
  for (int i = 0; i < N; i++) tracker->z[i] = 0.2 + 0.1 * i, tracker->prior[i] = 0.3 + 0.1 * i;
  for (int i = 0; i < 2; i++) tracker->start[i] = 0.5, tracker->spread[i] = 0.4;
  kwm_tracker_prior(tracker);
  kwm_tracker_begin(tracker);
}

/* P <- 𝔽 P 𝔽ᵀ + blkdiag(Q_θ, Q), the textbook's, at z. */
static void dense_joint_predict(const struct kwm_tracker *tracker, const double *z, double *P) {
  double next[2], Fx[4], Ft[2 * N], F[NL * NL] = {0}, Transposed[NL * NL], T[NL * NL];
  bent_step(NULL, z + N, NULL, z, next, Fx, Ft);
  for (int i = 0; i < N; i++) F[i * NL + i] = 1;
  for (int i = 0; i < 2; i++) {
    memcpy(F + (N + i) * NL, Ft + i * N, N * sizeof(double));
    memcpy(F + (N + i) * NL + N, Fx + i * 2, 2 * sizeof(double));
  }
  dense_transpose(NL, NL, F, Transposed);
  dense_multiply(NL, NL, NL, F, P, T);
  dense_multiply(NL, NL, NL, T, Transposed, P);
  for (int i = 0; i < N; i++) P[i * NL + i] += tracker->spec.walk * tracker->prior[i];
  for (int i = 0; i < 2; i++) P[(N + i) * NL + N + i] += tracker->q[i];
}

/* Joint block filter = dense filter of [θ; x] (invariant 43), over many steps. */
static void test_joint(void **state) {
  (void)state;
  struct kwm_tracker tracker;
  double P[NL * NL], mine[NL * NL], z[NL], next[2], Hx[2], Ht[N], H[NL], delta[NL], predicted;
  begin_bent(&tracker, KWM_TRACKER_JOINT, 1);
  kwm_tracker_covariance(&tracker, P);
  memcpy(z, tracker.z, sizeof z);
  for (int t = 0; t < 60; t++) {
    dense_joint_predict(&tracker, z, P);
    bent_step(NULL, z + N, NULL, z, next, NULL, NULL);
    memcpy(z + N, next, sizeof next);
    assert_true(kwm_tracker_predict(&tracker, NULL));
    const double y = test_normal(3, t);
    bent_observe(NULL, z + N, z, &predicted, Hx, Ht);
    for (int i = 0; i < NL; i++) H[i] = (i < N ? Ht[i] : Hx[i - N]) / sqrt(tracker.r[0]);
    const double e = (y - predicted) / sqrt(tracker.r[0]);
    dense_update(NL, 1, P, H, &e, delta);
    for (int i = 0; i < NL; i++) z[i] += delta[i];
    assert_int_equal(kwm_tracker_update(&tracker, &y).verdict, KWM_TRACKED);
    kwm_tracker_covariance(&tracker, mine);
    assert_below(dense_error(NL, tracker.z, z), 1e-9);
    assert_below(dense_error(NL * NL, mine, P), 1e-9);
  }
  kwm_tracker_destroy(&tracker);
}

/* The iterated update ends at the maximum a posteriori: Λ⁻(z - z⁻) = HᵀR⁻¹(y - h(z)) (invariant 45). */
static void test_iterated(void **state) {
  (void)state;
  struct kwm_tracker tracker;
  double P[NL * NL], before[NL], Hx[2], Ht[N], predicted;
  begin_bent(&tracker, KWM_TRACKER_JOINT, 60);
  for (int t = 0; t < 5; t++) {
    kwm_tracker_predict(&tracker, NULL);
    kwm_tracker_covariance(&tracker, P);
    memcpy(before, tracker.z, sizeof before);
    const double y = 1.5 + test_normal(4, t);
    assert_int_equal(kwm_tracker_update(&tracker, &y).verdict, KWM_TRACKED);
    dense_invert(NL, P);
    bent_observe(NULL, tracker.z + N, tracker.z, &predicted, Hx, Ht);
    for (int i = 0; i < NL; i++) {
      double pull = 0;
      for (int j = 0; j < NL; j++) pull += P[i * NL + j] * (tracker.z[j] - before[j]);
      const double score = (i < N ? Ht[i] : Hx[i - N]) * (y - predicted) / tracker.r[0];
      assert_close(pull, score, 1e-5, 1e-5);
    }
  }
  kwm_tracker_destroy(&tracker);
}

/* A small deviation leaves sigma points and Jacobians with one answer. */
static void test_unscented_is_near(void **state) {
  (void)state;
  struct kwm_tracker joint, unscented;
  begin_bent(&joint, KWM_TRACKER_JOINT, 1);
  begin_bent(&unscented, KWM_TRACKER_UNSCENTED, 1);
  struct kwm_tracker *const both[] = {&joint, &unscented};
  for (int b = 0; b < 2; b++) {
    for (int i = 0; i < N; i++) both[b]->prior[i] = 1e-8;
    for (int i = 0; i < 2; i++) both[b]->spread[i] = 1e-8, both[b]->q[i] = 1e-8;
    both[b]->r[0] = 1e-8;
    kwm_tracker_prior(both[b]);
    kwm_tracker_begin(both[b]);
    kwm_tracker_predict(both[b], NULL);
    double y;
    double variance;
    kwm_tracker_outputs(both[b], true, &y, &variance);
    y += 1e-4;
    kwm_tracker_update(both[b], &y);
  }
  for (int i = 0; i < NL; i++) {
    assert_close(unscented.z[i], joint.z[i], 1e-7, 0);
    assert_close(kwm_tracker_variance(&unscented, i), kwm_tracker_variance(&joint, i), 1e-3, 0);
  }
  kwm_tracker_destroy(&joint);
  kwm_tracker_destroy(&unscented);
}

/* The dual filter finds what the joint one finds, from data of the model itself. */
static void test_dual_learns(void **state) {
  (void)state;
  const double truth[N] = {0.5, 0.4, 0.3};
  struct kwm_tracker joint, dual;
  begin_bent(&joint, KWM_TRACKER_JOINT, 1);
  begin_bent(&dual, KWM_TRACKER_DUAL, 1);
  double x[2] = {0.5, 0.5}, next[2], y;
  joint.spec.walk = dual.spec.walk = 0;
  for (int t = 0; t < 4000; t++) {
    bent_step(NULL, x, NULL, truth, next, NULL, NULL);
    for (int i = 0; i < 2; i++) x[i] = next[i] + 0.2 * test_normal(5, 2 * t + i);
    bent_observe(NULL, x, truth, &y, NULL, NULL);
    y += 0.1 * test_normal(6, t);
    struct kwm_tracker *const both[] = {&joint, &dual};
    for (int b = 0; b < 2; b++) {
      both[b]->q[0] = both[b]->q[1] = 0.04, both[b]->r[0] = 0.01;
      kwm_tracker_predict(both[b], NULL);
      assert_int_equal(kwm_tracker_update(both[b], &y).verdict, KWM_TRACKED);
    }
  }
  for (int i = 0; i < N; i++) {
    assert_close(joint.z[i], truth[i], 0, 0.1);
    assert_close(dual.z[i], truth[i], 0, 0.1);
  }
  kwm_tracker_destroy(&joint);
  kwm_tracker_destroy(&dual);
}

/* ---- y = θ + v: parts of the data make the posterior of all */

static void still_step(const void *context, const double *x, const double *u, const double *theta, double *next,
                       double *Fx, double *Ft) {
  (void)context, (void)u, (void)theta;
  next[0] = x[0];
  if (Fx != NULL) Fx[0] = 1;
  if (Ft != NULL) memset(Ft, 0, 2 * sizeof *Ft);
}

static void still_observe(const void *context, const double *x, const double *theta, double *y, double *Hx,
                          double *Ht) {
  (void)context, (void)x;
  y[0] = theta[0] + 0.5 * theta[1], y[1] = theta[1];
  if (Hx != NULL) Hx[0] = Hx[1] = 0;
  if (Ht != NULL) Ht[0] = 1, Ht[1] = 0.5, Ht[2] = 0, Ht[3] = 1;
}

static void test_parts(void **state) {
  (void)state;
  const struct kwm_space space = {.d = 1, .n = 2, .m = 2, .step = still_step, .observe = still_observe};
  const struct kwm_tracker_spec spec = {.space = &space, .iterations = 1};
  struct kwm_tracker whole, half;
  double before[6], sum[6] = {0}, part[6];
  assert_ok(kwm_tracker_create(&whole, &spec));
  assert_ok(kwm_tracker_create(&half, &spec));
  whole.r[0] = 0.5, whole.r[1] = 2, whole.prior[0] = 3, whole.prior[1] = 4, whole.spread[0] = 1, whole.q[0] = 1;
  whole.z[0] = 1;
  kwm_tracker_prior(&whole);
  kwm_tracker_begin(&whole);
  assert_true(kwm_tracker_part(&whole, before));
  struct kwm_tracker start;
  assert_ok(kwm_tracker_create(&start, &spec));
  kwm_tracker_copy(&start, &whole);
  for (int p = 0; p < 2; p++) {
    kwm_tracker_copy(&half, &start);
    for (int t = 0; t < 7; t++) {
      const double y[2] = {test_normal(8, 7 * p + t), 2 + test_normal(9, 7 * p + t)};
      kwm_tracker_update(&half, y);
      kwm_tracker_update(&whole, y);
    }
    assert_true(kwm_tracker_part(&half, part));
    for (int i = 0; i < 6; i++) sum[i] += part[i];
  }
  assert_true(kwm_tracker_fuse(&start, 2, before, sum));
  assert_below(dense_error(2, start.z, whole.z), 1e-12);
  double P[9], wanted[9];
  kwm_tracker_covariance(&start, P);
  kwm_tracker_covariance(&whole, wanted);
  for (int i = 0; i < 2; i++)
    for (int j = 0; j < 2; j++) assert_close(P[i * 3 + j], wanted[i * 3 + j], 1e-12, 1e-14);
  kwm_tracker_destroy(&whole);
  kwm_tracker_destroy(&half);
  kwm_tracker_destroy(&start);
}

/* ---- consistency and adaptation on data of the system itself */

static void run_linear(struct kwm_tracker *tracker, int steps, double *nis, double *nees) {
  double x[D] = {0}, next[D], y[M];
  *nis = *nees = 0;
  for (int t = 0; t < steps; t++) {
    const double u = test_normal(10, t);
    linear_step(NULL, x, &u, NULL, next, NULL, NULL);
    for (int i = 0; i < D; i++) x[i] = next[i] + sqrt(Q[i]) * test_normal(11, D * t + i);
    linear_observe(NULL, x, NULL, y, NULL, NULL);
    for (int i = 0; i < M; i++) y[i] += sqrt(R[i]) * test_normal(12, M * t + i);
    kwm_tracker_predict(tracker, &u);
    *nis += kwm_tracker_update(tracker, y).nis / (M * steps);
    *nees += kwm_tracker_nees(tracker, x) / (D * steps);
  }
}

static void test_consistent(void **state) {
  (void)state;
  const struct kwm_tracker_spec spec = {.space = &linear, .iterations = 1};
  struct kwm_tracker tracker;
  double nis, nees;
  begin(&tracker, &spec);
  run_linear(&tracker, 5000, &nis, &nees);
  assert_close(nis, 1, 0, 0.05);
  assert_close(nees, 1, 0, 0.1);
  kwm_tracker_destroy(&tracker);
}

/* Innovations say how large S is, not how it divides into Q and R: what adaptation must reach is NIS 1. */
static void test_adapts(void **state) {
  (void)state;
  for (int adapts = 0; adapts < 2; adapts++) {
    const struct kwm_tracker_spec spec = {.space = &linear, .iterations = 1, .adapt = adapts ? 0.01 : 0};
    struct kwm_tracker tracker;
    double nis, nees;
    begin(&tracker, &spec);
    for (int i = 0; i < M; i++) tracker.r[i] *= 6;
    run_linear(&tracker, 20000, &nis, &nees);
    if (adapts)
      assert_close(nis, 1, 0, 0.05);
    else
      assert_true(nis < 0.6);
    for (int i = 0; i < D; i++) assert_true(tracker.q[i] > 0);
    kwm_tracker_destroy(&tracker);
  }
}

/* e = 0 moves nothing, and without an observation P is a prediction's. */
static void test_nothing_to_learn(void **state) {
  (void)state;
  struct kwm_tracker tracker;
  double z[NL], y, variance;
  begin_bent(&tracker, KWM_TRACKER_JOINT, 1);
  kwm_tracker_predict(&tracker, NULL);
  memcpy(z, tracker.z, sizeof z);
  kwm_tracker_outputs(&tracker, false, &y, &variance);
  kwm_tracker_update(&tracker, &y);
  assert_memory_equal(z, tracker.z, sizeof z);
  const double missing = NAN, before = kwm_tracker_variance(&tracker, NL - 1);
  assert_int_equal(kwm_tracker_update(&tracker, &missing).verdict, KWM_TRACKED_NOTHING);
  assert_true(before == kwm_tracker_variance(&tracker, NL - 1)); /* bit for bit */
  tracker.spec.gate = 4;
  y += 100;
  assert_int_equal(kwm_tracker_update(&tracker, &y).verdict, KWM_TRACKED_GATED);
  assert_memory_equal(z, tracker.z, sizeof z);
  kwm_tracker_destroy(&tracker);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_exact_filter),
      cmocka_unit_test(test_unscented_is_exact_for_linear),
      cmocka_unit_test(test_dual_without_parameters),
      cmocka_unit_test(test_joint),
      cmocka_unit_test(test_iterated),
      cmocka_unit_test(test_unscented_is_near),
      cmocka_unit_test(test_dual_learns),
      cmocka_unit_test(test_parts),
      cmocka_unit_test(test_consistent),
      cmocka_unit_test(test_adapts),
      cmocka_unit_test(test_nothing_to_learn),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
