/* What learners do with each number of a transformer: Riccati, Adam, drift, sums of squares. */
#include "tensor_case.h"

static const double CLOSE = 2e-6;

/* The host's fixed point without cancellation, the header's formula in double. */
static double next_variance(const struct kwm_riccati_step *step, double f, double p) {
  const double q = (double)step->q, wide = p + q;
  const double next = step->steady ? 2 * (q / f) / (sqrt(q * q + 4 * q / f) + q) : wide / (1 + wide * f);
  return fmin(next, (double)step->p0);
}

static void riccati_case(struct device_case *c, int64_t n, const struct kwm_riccati_step *step) {
  float *const y = case_normals(c, n, 1, 30);
  const float *const f = case_positive(c, n, 2), *const m = case_normals(c, n, 3, 1);
  const float *const p = case_positive(c, n, 4);
  double *const wf = case_zeros(c, n), *const wm = case_zeros(c, n), *const wp = case_zeros(c, n);
  double *const wx = case_zeros(c, n);
  for (int64_t k = 0; k < n; k++) {
    const double square = (double)y[k] * (double)y[k];
    wf[k] = step->first ? square : (double)f[k] + (double)step->rate_f * (square - (double)f[k]);
    wm[k] = (double)m[k] + (double)step->rate_m * ((double)y[k] - (double)m[k]);
    wp[k] = next_variance(step, wf[k], (double)p[k]);
    wx[k] = wp[k] * wm[k];
  }
  float *const to_y = case_copy(c, n, y), *const to_f = case_copy(c, n, f), *const to_m = case_copy(c, n, m);
  float *const to_p = case_copy(c, n, p);
  case_ops(c)->riccati(c->device, n, step, to_y, to_f, to_m, to_p, to_y);
  assert_floats(c, n, to_f, wf, CLOSE);
  assert_floats(c, n, to_m, wm, CLOSE);
  assert_floats(c, n, to_p, wp, 1e-5);
  assert_floats(c, n, to_y, wx, 1e-5);
}

static void body_riccati(struct device_case *c, const int64_t *size) {
  const struct kwm_riccati_step steps[] = {
      {.q = 1e-4f, .p0 = 0.5f, .rate_f = 0.05f, .rate_m = 0.1f, .first = true, .steady = true},
      {.q = 1e-9f, .p0 = 1, .rate_f = 0.02f, .rate_m = 0.1f, .steady = true},
      {.q = 3, .p0 = 10, .rate_f = 0.3f, .rate_m = 1, .steady = true},
      {.q = 1e-3f, .p0 = 0.7f, .rate_f = 0.02f, .rate_m = 0.1f}};
  for (size_t k = 0; k < sizeof steps / sizeof *steps; k++) riccati_case(c, size[0], &steps[k]);
}

/* A score that was always zero says nothing: the variance is the prior's, and nothing moves. */
static void body_silent(struct device_case *c, const int64_t *size) {
  const int64_t n = size[0];
  const float *const zeros = case_host(c, n, sizeof *zeros);
  float *const y = case_copy(c, n, zeros), *const f = case_copy(c, n, zeros), *const m = case_copy(c, n, zeros);
  float *const p = case_copy(c, n, zeros), *const x = case_floats(c, n);
  const struct kwm_riccati_step step = {.q = 1e-4f, .p0 = 0.25f, .rate_f = 0.1f, .rate_m = 0.1f, .steady = true};
  case_ops(c)->riccati(c->device, n, &step, y, f, m, p, x);
  const float *const found = case_get(c, n, sizeof *found, p);
  for (int64_t k = 0; k < n; k++) assert_true(found[k] == 0.25f);
  assert_same(c, n, x, zeros);
}

static void body_adam(struct device_case *c, const int64_t *size) {
  const int64_t n = size[0];
  const float *const score = case_normals(c, n, 1, 5), *const start = case_normals(c, n, 2, 1);
  double *const m = case_zeros(c, n), *const v = case_zeros(c, n), *const mean = case_wide(c, n, start);
  const float *const zeros = case_host(c, n, sizeof *zeros);
  float *const to_score = case_copy(c, n, score), *const to_m = case_copy(c, n, zeros);
  float *const to_v = case_copy(c, n, zeros), *const to_mean = case_copy(c, n, start);
  for (int t = 1; t <= 3; t++) {
    const struct kwm_adam_step step = {.rate = 0.01f,
                                       .beta1 = 0.9f,
                                       .beta2 = 0.98f,
                                       .epsilon = 1e-8f,
                                       .decay = 1e-3f,
                                       .scale = t == 2 ? 0.5f : 1,
                                       .t = t};
    const double beta1 = (double)step.beta1, beta2 = (double)step.beta2;
    for (int64_t k = 0; k < n; k++) {
      const double g = (double)step.scale * (double)score[k];
      m[k] = beta1 * m[k] + (1 - beta1) * g;
      v[k] = beta2 * v[k] + (1 - beta2) * g * g;
      mean[k] = (1 - (double)step.decay) * mean[k] + (double)step.rate * m[k] / (1 - pow(beta1, t)) /
                                                         (sqrt(v[k] / (1 - pow(beta2, t))) + (double)step.epsilon);
    }
    case_ops(c)->adam(c->device, n, &step, to_score, to_m, to_v, to_mean);
  }
  assert_floats(c, n, to_m, m, CLOSE);
  assert_floats(c, n, to_v, v, CLOSE);
  assert_floats(c, n, to_mean, mean, CLOSE);
}

static void body_drift(struct device_case *c, const int64_t *size) {
  const int64_t n = size[0];
  const float *const x = case_normals(c, n, 1, 1), *const mean = case_normals(c, n, 2, 1);
  double *const wanted = case_zeros(c, n), *const kept = case_zeros(c, n);
  for (int64_t k = 0; k < n; k++) {
    wanted[k] = 0.75 * (double)mean[k] - 0.5 * (double)x[k];
    kept[k] = 0.75 * wanted[k];
  }
  float *const to = case_copy(c, n, mean);
  case_ops(c)->drift(c->device, n, 0.75f, -0.5f, case_copy(c, n, x), to);
  assert_floats(c, n, to, wanted, CLOSE);
  case_ops(c)->drift(c->device, n, 0.75f, 2, NULL, to);
  assert_floats(c, n, to, kept, CLOSE);
}

static void body_norm2(struct device_case *c, const int64_t *size) {
  const int64_t n = size[0];
  const float *const x = case_normals(c, n, 1, 1e3);
  double wanted = 0, *const sums = case_facts(c, 1);
  for (int64_t k = 0; k < n; k++) wanted += (double)x[k] * (double)x[k];
  case_ops(c)->norm2(c->device, n, case_copy(c, n, x), sums);
  assert_facts(c, 1, sums, &wanted, 1e-12);
}

static void body_quadratic(struct device_case *c, const int64_t *size) {
  const int64_t n = size[0];
  const float *const w = case_positive(c, n, 1), *const x = case_normals(c, n, 2, 1e3);
  double wanted = 0, *const sums = case_facts(c, 1);
  for (int64_t k = 0; k < n; k++) wanted += (double)w[k] * (double)x[k] * (double)x[k];
  case_ops(c)->quadratic(c->device, n, case_copy(c, n, w), case_copy(c, n, x), sums);
  assert_facts(c, 1, sums, &wanted, 1e-12);
}

static void test_elements(void **state) {
  (void)state;
  static const int64_t sizes[][1] = {{1}, {7}, {1023}, {300001}};
  tensor_run_all(body_riccati, sizes);
  tensor_run_all(body_silent, sizes);
  tensor_run_all(body_adam, sizes);
  tensor_run_all(body_drift, sizes);
  tensor_run_all(body_norm2, sizes);
  tensor_run_all(body_quadratic, sizes);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_elements),
};

DEVICE_TEST_MAIN(tests)
