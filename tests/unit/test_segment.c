/* Segments of a ring: their cuts, and their windows' models against the whole's. */
#include "dense.h"

#include "kwm/statespace.h"

enum { D = 17, M = 15, NEAR = 2, REACH = 2, SEGMENTS = 4 };

static void test_cuts(void **state) {
  (void)state;
  int next = 0, outputs = 0;
  for (int s = 0; s < SEGMENTS; s++) {
    struct kwm_segment cut;
    assert_ok(kwm_segment_init(&cut, D, M, SEGMENTS, s, REACH, NEAR));
    assert_int_equal(cut.first, next);
    assert_int_equal(cut.size, cut.count + 2 * REACH);
    for (int i = 0; i < cut.m; i++) {
      const int w = cut.outputs[i];
      assert_true(kwm_segment_state(&cut, w) < M);
      assert_true((w >= REACH && w < REACH + cut.count) == (i < cut.own));
    }
    next += cut.count, outputs += cut.own;
    kwm_segment_fini(&cut);
  }
  assert_int_equal(next, D);
  assert_int_equal(outputs, M);
}

static void test_bad_cuts(void **state) {
  (void)state;
  struct kwm_segment cut;
  const int bad[][2] = {{2, 1}, {D + 1, 1}, {SEGMENTS, 3}, {5, 2}}; /* segments, reach */
  for (int i = 0; i < 4; i++) {
    assert_int_equal(kwm_segment_init(&cut, D, M, bad[i][0], 0, bad[i][1], NEAR), KWM_ERR_USAGE);
    assert_non_null(strstr(kwm_error_message(), "world.segments"));
    kwm_segment_fini(&cut);
  }
}

/* Inputs of a window from the whole: u, x beside it, θ of what it reaches. */
static void fill_inputs(const struct kwm_segment *cut, int features, const double *u, const double *x,
                        const double *theta, double *inputs) {
  *inputs++ = *u;
  for (int i = 0; i < NEAR; i++) inputs[i] = x[kwm_segment_state(cut, i - NEAR + D)];
  for (int i = 0; i < NEAR; i++) inputs[NEAR + i] = x[kwm_segment_state(cut, cut->size + i)];
  for (int i = 0; i < 2 * REACH; i++) {
    const int w = i < REACH ? i : cut->count + i;
    memcpy(inputs + 2 * NEAR + i * features, theta + kwm_segment_state(cut, w) * features, (size_t)features * 8);
  }
}

/* next, F_x and F_θ of every window state are the whole's, as far as the window shows them. */
static void test_windows_against_whole(void **state) {
  (void)state;
  const struct kwm_statespace_spec spec = {
      .transition = KWM_TRANSITION_POLYNOMIAL, .d = D, .m = M, .k = 1, .degree = 2, .near = NEAR};
  struct kwm_statespace model;
  struct kwm_space whole;
  assert_ok(kwm_statespace_init(&model, &spec));
  kwm_statespace_space(&model, &whole);
  const int n = model.n, features = model.features;
  double *const theta = dense_new(n), x[D], u = 0.7,
                next[D], *const Fx = dense_new(D * D), *const Ft = dense_new(D * n);
  for (int i = 0; i < n; i++) theta[i] = test_normal(3, i);
  for (int i = 0; i < D; i++) x[i] = test_normal(4, i);
  whole.step(whole.context, x, &u, theta, next, Fx, Ft);
  for (int s = 0; s < SEGMENTS; s++) {
    struct kwm_segment cut;
    struct kwm_statespace_window window;
    struct kwm_space space;
    assert_ok(kwm_segment_init(&cut, D, M, SEGMENTS, s, REACH, NEAR));
    assert_ok(kwm_statespace_window_init(&window, &model, &cut));
    kwm_statespace_window_space(&window, &space);
    double *const inputs = dense_new(space.k), *const own = theta + cut.first * features, wx[D], wnext[D], y[D];
    double *const wFx = dense_new(cut.size * cut.size), *const wFt = dense_new((int64_t)cut.size * space.n);
    fill_inputs(&cut, features, &u, x, theta, inputs);
    for (int i = 0; i < cut.size; i++) wx[i] = x[kwm_segment_state(&cut, i)];
    space.step(space.context, wx, inputs, own, wnext, wFx, wFt);
    space.observe(space.context, wx, own, y, NULL, NULL);
    for (int i = 0; i < cut.m; i++) assert_true(y[i] == wx[cut.outputs[i]]);
    for (int i = 0; i < cut.size; i++) {
      const int64_t g = kwm_segment_state(&cut, i);
      assert_close(wnext[i], next[g], 1e-14, 1e-14);
      for (int j = 0; j < cut.size; j++)
        assert_close(wFx[i * cut.size + j], Fx[g * D + kwm_segment_state(&cut, j)], 1e-13, 1e-13);
      for (int j = 0; j < space.n; j++)
        assert_close(wFt[(int64_t)i * space.n + j], Ft[g * n + cut.first * features + j], 1e-14, 0);
    }
    free(inputs), free(wFx), free(wFt);
    kwm_statespace_window_fini(&window);
    kwm_segment_fini(&cut);
  }
  kwm_statespace_fini(&model);
  free(theta), free(Fx), free(Ft);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_cuts), cmocka_unit_test(test_bad_cuts),
                                     cmocka_unit_test(test_windows_against_whole)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
