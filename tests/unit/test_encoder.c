/* Koopman models with a learned lift: losses against their definition, Jacobians against central differences, the
   parameters' filter against a dense textbook filter, K a contraction where it is to be one. */
#include "dense.h"
#include "kwm/encoder.h"
#include "kwm/lift.h"
#include "kwm/tracker.h"

enum { M = 2, WINDOW = 4, AHEAD = 3 };

static const double windows[2][WINDOW] = {{0.3, -0.7, 0.4, 0.2}, {-0.5, 0.9, 0.1, -0.3}};
static const double inputs[AHEAD] = {0.4, -1, 0.3};

static struct kwm_encoder_spec spec_of(int decoder, bool stable) {
  return (struct kwm_encoder_spec){
      .m = M, .k = 1, .delays = 1, .size = 5, .hidden = 3, .decoder = decoder, .ahead = AHEAD, .stable = stable};
}

/* θ drawn around its prior. */
static double *begin(struct kwm_encoder *encoder, struct kwm_space *space, const struct kwm_encoder_spec *spec) {
  assert_ok(kwm_encoder_init(encoder, spec));
  encoder->sample = (struct kwm_encoder_sample){.first = windows[0], .last = windows[1], .inputs = inputs};
  kwm_encoder_space(encoder, space);
  double *const theta = dense_new(2 * encoder->n);
  kwm_encoder_prior(encoder, 7, 0.5, theta, theta + encoder->n);
  for (int i = 0; i < encoder->n; i++) theta[i] += 0.3 * sqrt(theta[encoder->n + i]) * test_normal(3, i);
  return theta;
}

static void test_losses(void **state) {
  (void)state;
  struct kwm_encoder encoder;
  struct kwm_space space;
  const struct kwm_encoder_spec spec = spec_of(2, false);
  double *const theta = begin(&encoder, &space, &spec), *const y = dense_new(space.m), z[5], next[5], A[5 * 6], read[M];
  space.observe(space.context, NULL, theta, y, NULL, NULL);
  kwm_encoder_matrix(&encoder, theta, A, NULL);
  kwm_encoder_lift(&encoder, theta, windows[0], z, NULL);
  kwm_encoder_read(&encoder, theta, z, read, NULL, NULL);
  assert_below(dense_error(M, y + M * AHEAD, read), 1e-15);
  for (int j = 0; j < AHEAD; j++) {
    for (int i = 0; i < 5; i++) {
      next[i] = A[i * 6 + 5] * inputs[j];
      for (int l = 0; l < 5; l++) next[i] += A[i * 6 + l] * z[l];
    }
    memcpy(z, next, sizeof z);
    kwm_encoder_read(&encoder, theta, z, read, NULL, NULL);
    assert_below(dense_error(M, y + M * j, read), 1e-14);
  }
  kwm_encoder_lift(&encoder, theta, windows[1], next, NULL);
  for (int i = 0; i < 5; i++) assert_close(y[M * (AHEAD + 1) + i], z[i] - next[i], 1e-14, 1e-14);
  encoder.sample.last = NULL;
  space.observe(space.context, NULL, theta, y, NULL, NULL);
  for (int i = 0; i < 5; i++) assert_true(y[M * (AHEAD + 1) + i] == 0);
  kwm_encoder_fini(&encoder);
  free(theta), free(y);
}

static void check_jacobian(int decoder, bool stable) {
  const double h = 1e-6;
  struct kwm_encoder encoder;
  struct kwm_space space;
  const struct kwm_encoder_spec spec = spec_of(decoder, stable);
  double *const theta = begin(&encoder, &space, &spec);
  const int n = encoder.n, m = space.m;
  double *const H = dense_new((int64_t)m * n), *const wanted = dense_new((int64_t)m * n), *const up = dense_new(m),
                *const down = dense_new(m);
  space.observe(space.context, NULL, theta, up, NULL, H);
  for (int j = 0; j < n; j++) {
    const double value = theta[j];
    theta[j] = value + h;
    space.observe(space.context, NULL, theta, up, NULL, NULL);
    theta[j] = value - h;
    space.observe(space.context, NULL, theta, down, NULL, NULL);
    theta[j] = value;
    for (int i = 0; i < m; i++) wanted[(int64_t)i * n + j] = (up[i] - down[i]) / (2 * h);
  }
  assert_below(dense_error((int64_t)m * n, H, wanted), 1e-8);
  kwm_encoder_fini(&encoder);
  free(theta), free(H), free(wanted), free(up), free(down);
}

static void test_jacobians(void **state) {
  (void)state;
  check_jacobian(2, false);
  check_jacobian(2, true);
  check_jacobian(0, false);
  check_jacobian(0, true);
}

static void test_decoder_slope(void **state) {
  (void)state;
  const double h = 1e-6;
  struct kwm_encoder encoder;
  struct kwm_space space;
  const struct kwm_encoder_spec spec = spec_of(2, false);
  double *const theta = begin(&encoder, &space, &spec), z[5], y[M], up[M], down[M], C[M * 5], wanted[M * 5];
  kwm_encoder_lift(&encoder, theta, windows[0], z, NULL);
  kwm_encoder_read(&encoder, theta, z, y, C, NULL);
  for (int j = 0; j < 5; j++) {
    const double value = z[j];
    z[j] = value + h;
    kwm_encoder_read(&encoder, theta, z, up, NULL, NULL);
    z[j] = value - h;
    kwm_encoder_read(&encoder, theta, z, down, NULL, NULL);
    z[j] = value;
    for (int i = 0; i < M; i++) wanted[i * 5 + j] = (up[i] - down[i]) / (2 * h);
  }
  assert_below(dense_error(M * 5, C, wanted), 1e-8);
  kwm_encoder_fini(&encoder);
  free(theta);
}

/* The losses through kwm_tracker and through dense matrices, step after step, gaps among them. */
static void test_filter(void **state) {
  (void)state;
  struct kwm_encoder encoder;
  struct kwm_space space;
  struct kwm_tracker tracker;
  const struct kwm_encoder_spec spec = spec_of(2, false);
  double *const theta = begin(&encoder, &space, &spec);
  const int n = encoder.n, m = space.m;
  const struct kwm_tracker_spec how = {.space = &space, .iterations = 1};
  assert_ok(kwm_tracker_create(&tracker, &how));
  double *const P = dense_new((int64_t)n * n), *const mine = dense_new((int64_t)n * n), *const y = dense_new(m),
                *const H = dense_new((int64_t)m * n), *const rows = dense_new((int64_t)m * n), *const e = dense_new(m),
                *const delta = dense_new(n), *const seen = dense_new(m);
  memcpy(tracker.z, theta, (size_t)n * sizeof *theta);
  for (int i = 0; i < n; i++) tracker.prior[i] = P[(int64_t)i * (n + 1)] = theta[n + i];
  for (int i = 0; i < m; i++) tracker.r[i] = 0.04 + 0.01 * i;
  kwm_tracker_prior(&tracker);
  for (int t = 0; t < 8; t++) {
    int64_t count = 0;
    for (int i = 0; i < m; i++) seen[i] = t % 3 == 1 && i % 4 == 2 ? NAN : 0.3 * test_normal(5, m * t + i);
    space.observe(space.context, NULL, theta, y, NULL, H);
    for (int i = 0; i < m; i++) {
      if (isnan(seen[i])) continue;
      e[count] = (seen[i] - y[i]) / sqrt(tracker.r[i]);
      for (int j = 0; j < n; j++) rows[count * n + j] = H[(int64_t)i * n + j] / sqrt(tracker.r[i]);
      count++;
    }
    dense_update(n, count, P, rows, e, delta);
    for (int j = 0; j < n; j++) theta[j] += delta[j];
    assert_true(kwm_tracker_predict(&tracker, NULL));
    assert_true(kwm_tracker_update(&tracker, seen).verdict == KWM_TRACKED);
    kwm_tracker_covariance(&tracker, mine);
    assert_below(dense_error(n, tracker.z, theta), 1e-10);
    assert_below(dense_error((int64_t)n * n, mine, P), 1e-10);
  }
  kwm_tracker_destroy(&tracker);
  kwm_encoder_fini(&encoder);
  free(theta), free(P), free(mine), free(y), free(H), free(rows), free(e), free(delta), free(seen);
}

/* |K v| <= |v| whatever θ is, and the lift's spectrum says so too. */
static void test_contraction(void **state) {
  (void)state;
  for (int draw = 0; draw < 20; draw++) {
    struct kwm_encoder encoder;
    struct kwm_space space;
    struct kwm_lift lift;
    struct kwm_lift_facts facts;
    const struct kwm_encoder_spec spec = spec_of(0, true);
    double *const theta = begin(&encoder, &space, &spec), v[5], values[10], modes[10], before = 0, after = 0;
    for (int i = 0; i < 25; i++) theta[encoder.K + i] = (1 + draw) * test_normal(11, 25 * draw + i);
    const struct kwm_lift_spec how = {.m = M, .k = 1, .delays = 1, .encoder = &encoder, .theta = theta};
    assert_ok(kwm_lift_init(&lift, &how));
    assert_int_equal(lift.size, 5);
    kwm_encoder_matrix(&encoder, theta, lift.A, NULL);
    for (int i = 0; i < 5; i++) v[i] = test_normal(12, 5 * draw + i), before += v[i] * v[i];
    for (int i = 0; i < 5; i++) {
      double sum = 0;
      for (int j = 0; j < 5; j++) sum += lift.A[i * 6 + j] * v[j];
      after += sum * sum;
    }
    assert_true(after <= before * (1 + 1e-12));
    assert_ok(kwm_lift_spectrum(&lift, values, modes, &facts));
    assert_true(facts.radius <= 1 + 1e-12 && facts.unstable == 0);
    kwm_lift_fini(&lift);
    kwm_encoder_fini(&encoder);
    free(theta);
  }
}

/* The product of two Gaussians against the sum of their precisions. */
static void test_meet(void **state) {
  (void)state;
  enum { D = 5 };
  struct kwm_encoder encoder;
  struct kwm_space losses, space;
  struct kwm_lift lift;
  struct kwm_tracker one, two;
  const struct kwm_encoder_spec spec = spec_of(0, false);
  double *const theta = begin(&encoder, &losses, &spec), P[D * D], R[D * D], sum[D * D], x[D], mine[D * D];
  const struct kwm_lift_spec how = {.m = M, .k = 1, .delays = 1, .encoder = &encoder, .theta = theta};
  assert_ok(kwm_lift_init(&lift, &how));
  kwm_lift_space(&lift, &space);
  const struct kwm_tracker_spec tracked = {.space = &space, .iterations = 1};
  assert_ok(kwm_tracker_create(&one, &tracked));
  assert_ok(kwm_tracker_create(&two, &tracked));
  for (int j = 0; j < D; j++)
    for (int i = j; i < D; i++) {
      one.Y[j * D + i] = test_normal(21, D * i + j) + 2 * (i == j);
      two.Y[j * D + i] = 0.3 * test_normal(22, D * i + j) + (i == j);
    }
  for (int i = 0; i < D; i++) one.z[i] = test_normal(23, i), two.z[i] = test_normal(24, i);
  kwm_tracker_covariance(&one, P);
  kwm_tracker_covariance(&two, R);
  dense_invert(D, P);
  dense_invert(D, R);
  for (int i = 0; i < D; i++) {
    x[i] = 0;
    for (int j = 0; j < D; j++) {
      sum[i * D + j] = P[i * D + j] + R[i * D + j];
      x[i] += P[i * D + j] * one.z[j] + R[i * D + j] * two.z[j];
    }
  }
  dense_invert(D, sum);
  double mean[D];
  dense_multiply(D, 1, D, sum, x, mean);
  assert_true(kwm_tracker_meet(&one, &two));
  kwm_tracker_covariance(&one, mine);
  assert_below(dense_error(D, one.z, mean), 1e-11);
  assert_below(dense_error(D * D, mine, sum), 1e-11);
  two.Y[0] = 0;
  assert_false(kwm_tracker_meet(&one, &two));
  kwm_tracker_destroy(&one);
  kwm_tracker_destroy(&two);
  kwm_lift_fini(&lift);
  kwm_encoder_fini(&encoder);
  free(theta);
}

static void test_refused(void **state) {
  (void)state;
  struct kwm_encoder encoder;
  struct kwm_encoder_spec spec = spec_of(2, false);
  spec.size = 1;
  assert_int_equal(kwm_encoder_init(&encoder, &spec), KWM_ERR_USAGE);
  spec.size = 200;
  assert_int_equal(kwm_encoder_init(&encoder, &spec), KWM_ERR_USAGE);
  kwm_encoder_fini(&encoder);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_losses),        cmocka_unit_test(test_jacobians),
                                     cmocka_unit_test(test_decoder_slope), cmocka_unit_test(test_filter),
                                     cmocka_unit_test(test_contraction),   cmocka_unit_test(test_meet),
                                     cmocka_unit_test(test_refused)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
