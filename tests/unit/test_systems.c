/* Known systems and learned models: Jacobians against central differences, and what a generated series must be. */
#include "dense.h"
#include "kwm/monomials.h"
#include "kwm/statespace.h"
#include "kwm/systems.h"

/* |analytic - central difference| of both functions at a point, relative to 1 + |derivative|. */
static void check_jacobians(const struct kwm_space *space, const double *x, const double *u, double *theta,
                            double tolerance) {
  const int d = space->d, n = space->n, m = space->m;
  const double h = 1e-5;
  double *const Fx = dense_new(d * d), *const Ft = dense_new(d * n), *const Hx = dense_new(m * d);
  double *const Ht = dense_new(m * n), *const next = dense_new(d), *const y = dense_new(m);
  double *const up = dense_new(d > m ? d : m), *const down = dense_new(d > m ? d : m), *const at = dense_copy(d, x);
  space->step(space->context, x, u, theta, next, Fx, Ft);
  space->observe(space->context, x, theta, y, Hx, Ht);
  for (int j = 0; j < d + n; j++) {
    double *const moved = j < d ? at + j : theta + j - d, keep = *moved;
    for (int what = 0; what < 2; what++) {
      const int rows = what == 0 ? d : m;
      const double *const mine = what == 0 ? (j < d ? Fx : Ft) : (j < d ? Hx : Ht);
      *moved = keep + h;
      if (what == 0) space->step(space->context, at, u, theta, up, NULL, NULL);
      if (what == 1) space->observe(space->context, at, theta, up, NULL, NULL);
      *moved = keep - h;
      if (what == 0) space->step(space->context, at, u, theta, down, NULL, NULL);
      if (what == 1) space->observe(space->context, at, theta, down, NULL, NULL);
      *moved = keep;
      for (int i = 0; i < rows; i++) {
        const double slope = (up[i] - down[i]) / (2 * h);
        assert_close(j < d ? mine[i * d + j] : mine[i * n + j - d], slope, tolerance, tolerance);
      }
    }
  }
  free(Fx), free(Ft), free(Hx), free(Ht), free(next), free(y), free(up), free(down), free(at);
}

static struct kwm_system_spec spec_of(const char *kind) {
  return (struct kwm_system_spec){.kind = kind, .size = 7, .steps = 400, .process = -1, .observation = 0.1, .seed = 5};
}

static const char *const kinds[] = {"oscillator", "slow", "duffing", "vanderpol", "lorenz63", "pendulum", "lorenz96"};

static void test_system_jacobians(void **state) {
  (void)state;
  for (size_t k = 0; k < sizeof kinds / sizeof kinds[0]; k++) {
    const struct kwm_system_spec spec = spec_of(kinds[k]);
    struct kwm_system system;
    struct kwm_space space;
    double x[7], u = 0.7;
    assert_ok(kwm_system_init(&system, &spec));
    kwm_system_space(&system, &space);
    for (int i = 0; i < system.d; i++) x[i] = test_normal(20, i);
    check_jacobians(&space, x, &u, NULL, 1e-8);
    kwm_system_fini(&system);
  }
}

static void check_model(struct kwm_statespace_spec spec) {
  struct kwm_statespace model;
  struct kwm_space space;
  assert_ok(kwm_statespace_init(&model, &spec));
  kwm_statespace_space(&model, &space);
  double *const mean = dense_new(space.n), *const variance = dense_new(space.n);
  const double x[5] = {0.3, -0.8, 1.1, 0.6, -0.4}, u[2] = {0.5, -0.2};
  kwm_statespace_prior(&model, 3, 0.5, mean, variance);
  for (int i = 0; i < space.n; i++) {
    assert_true(variance[i] > 0);
    mean[i] += 0.3 * test_normal(21, i);
  }
  check_jacobians(&space, x, u, mean, 1e-8);
  free(mean), free(variance);
  kwm_statespace_fini(&model);
}

static void test_model_jacobians(void **state) {
  (void)state;
  check_model((struct kwm_statespace_spec){.transition = KWM_TRANSITION_LINEAR, .d = 2, .m = 2, .k = 1});
  check_model(
      (struct kwm_statespace_spec){.transition = KWM_TRANSITION_POLYNOMIAL, .d = 3, .m = 2, .k = 2, .degree = 4});
  check_model((struct kwm_statespace_spec){
      .transition = KWM_TRANSITION_POLYNOMIAL, .d = 5, .m = 5, .k = 1, .degree = 2, .near = 1});
  check_model((struct kwm_statespace_spec){
      .transition = KWM_TRANSITION_MLP, .readout = KWM_READOUT_LINEAR, .d = 3, .m = 2, .k = 1, .hidden = 5});
  check_model((struct kwm_statespace_spec){
      .transition = KWM_TRANSITION_LINEAR, .readout = KWM_READOUT_LINEAR, .d = 2, .m = 3, .k = 0});
}

static void test_refused(void **state) {
  (void)state;
  struct kwm_statespace model;
  const struct kwm_statespace_spec few = {.d = 1, .m = 2},
                                   many = {.transition = KWM_TRANSITION_POLYNOMIAL, .d = 40, .m = 40, .degree = 5};
  assert_int_equal(kwm_statespace_init(&model, &few), KWM_ERR_USAGE);
  assert_int_equal(kwm_statespace_init(&model, &many), KWM_ERR_USAGE);
  struct kwm_system system;
  struct kwm_system_spec spec = spec_of("duffing");
  spec.first = 1, spec.observed = 2;
  assert_int_equal(kwm_system_init(&system, &spec), KWM_ERR_USAGE);
  spec = spec_of("nothing");
  assert_int_equal(kwm_system_init(&system, &spec), KWM_ERR_USAGE);
}

static void make(struct kwm_system *system, const struct kwm_system_spec *spec, struct kwm_series *series) {
  assert_ok(kwm_system_init(system, spec));
  assert_ok(kwm_system_series(system, spec, series));
}

/* Finite, keyed by the seed, and a longer series begins as a shorter one. */
static void test_series(void **state) {
  (void)state;
  for (size_t k = 0; k < sizeof kinds / sizeof kinds[0]; k++) {
    struct kwm_system_spec spec = spec_of(kinds[k]);
    struct kwm_system system;
    struct kwm_series series, longer, other;
    make(&system, &spec, &series);
    kwm_system_fini(&system);
    spec.steps = 600;
    make(&system, &spec, &longer);
    kwm_system_fini(&system);
    spec.seed = 6;
    make(&system, &spec, &other);
    assert_memory_equal(series.states, longer.states, (size_t)(series.n * series.d) * sizeof(double));
    assert_memory_not_equal(longer.states, other.states, (size_t)(longer.n * longer.d) * sizeof(double));
    for (int64_t i = 0; i < series.n * series.m; i++) assert_true(isfinite(series.y[i]));
    kwm_series_fini(&series), kwm_series_fini(&longer), kwm_series_fini(&other);
    kwm_system_fini(&system);
  }
}

/* Without noise a state is the step from the one before. */
static void test_without_noise(void **state) {
  (void)state;
  struct kwm_system_spec spec = spec_of("slow");
  struct kwm_system system;
  struct kwm_series series;
  struct kwm_space space;
  double next[2];
  spec.process = spec.observation = 0, spec.episode = 25;
  make(&system, &spec, &series);
  kwm_system_space(&system, &space);
  for (int64_t t = 0; t + 1 < series.n; t++) {
    assert_int_equal(series.starts[t], t % 25 == 0);
    space.step(space.context, series.states + 2 * t, NULL, NULL, next, NULL, NULL);
    if (!series.starts[t + 1]) assert_memory_equal(next, series.states + 2 * (t + 1), sizeof next);
    assert_memory_equal(series.y + 2 * t, series.states + 2 * t, sizeof next);
  }
  kwm_series_fini(&series);
  kwm_system_fini(&system);
}

/* Noise as large as it is said to be, gaps as many, a jump where and as large as asked for. */
static void test_noise_gaps_jump(void **state) {
  (void)state;
  struct kwm_system_spec spec = spec_of("vanderpol");
  struct kwm_system system;
  struct kwm_series series;
  spec.steps = 20000, spec.missing = 0.25, spec.observed = 1, spec.jump = 0.5, spec.jump_factor = 3;
  make(&system, &spec, &series);
  double squares = 0, count = 0;
  for (int64_t t = 0; t < series.n; t++)
    if (!isnan(series.y[t])) squares += pow(series.y[t] - series.truth[t], 2), count++;
  assert_close(count / (double)series.n, 0.75, 0.02, 0);
  assert_close(squares / count, system.observation[0], 0.05, 0);
  assert_close(system.parameters[0], 3, 1e-15, 0);
  kwm_series_fini(&series);
  kwm_system_fini(&system);
}

static void test_monomials(void **state) {
  (void)state;
  uint8_t powers[3 * 64];
  const double x[3] = {2, 3, 5};
  double values[64];
  assert_int_equal(kwm_monomials_count(3, 0, 3), 20);
  assert_int_equal(kwm_monomials_count(2, 2, 2), 3);
  assert_int_equal(kwm_monomials_count(100, 0, 9), -1);
  kwm_monomials_list(3, 0, 3, powers);
  kwm_monomials_value(3, 20, powers, x, values, NULL);
  assert_close(values[0], 1, 0, 0);
  assert_close(values[19], 125, 0, 0);
  for (int a = 0; a < 20; a++)
    for (int b = 0; b < a; b++) assert_true(fabs(values[a] - values[b]) > 0); /* 2, 3, 5: every monomial another */
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_system_jacobians), cmocka_unit_test(test_model_jacobians),
      cmocka_unit_test(test_refused),          cmocka_unit_test(test_series),
      cmocka_unit_test(test_without_noise),    cmocka_unit_test(test_noise_gaps_jump),
      cmocka_unit_test(test_monomials),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
