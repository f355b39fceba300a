/* A device's kron and diag: the scalar recursions of src/cov, against loops in double precision. */
#include "device_case.h"

static const double CLOSE = 1e-5, TIGHT = 1e-12;

/* gains of n numbers of precision D + f: see KWM_GAIN_*; prior NULL: 1. */
static void reference_gains(int64_t n, const double *f, const double *next, const double *score, const double *prior,
                            int64_t period, double *gains) {
  for (int k = 0; k < KWM_GAINS; k++) gains[k] = 0;
  for (int64_t k = 0; k < n; k++) {
    const double x = score[k] / next[k];
    gains[KWM_GAIN_CHANGE] += f[k] * x * x;
    gains[KWM_GAIN_MOVED] += x * x / (prior == NULL ? 1 : prior[k % period]);
    gains[KWM_GAIN_SLOPE] += score[k] * x;
    gains[KWM_GAIN_EXPECTED] += f[k] * f[k] / (next[k] * next[k]);
  }
}

/* Each fact to itself: they differ by orders of magnitude. */
static void check_gains(struct device_case *c, int64_t count, const double *facts, const double *wanted) {
  const double *const found = case_seen(c, count * KWM_GAINS, facts);
  for (int64_t k = 0; k < count * KWM_GAINS; k++) assert_close(found[k], wanted[k], CLOSE, 1e-12);
}

/* What a step of kron is made from. */
struct gain_case {
  float *gt2, *at2, *Y, *D;
};

static struct gain_case make_gain(struct device_case *c, int64_t o, int64_t i) {
  return (struct gain_case){case_positive(c, o, 1), case_positive(c, i, 2), case_normals(c, o * i, 3, 1),
                            case_positive(c, o * i, 4)};
}

static double *run_gain(struct device_case *c, int64_t o, int64_t i, const struct gain_case *from, float *f, float *X) {
  double *const facts = case_facts(c, KWM_GAINS);
  c->device->ops->kron_gain(c->device, o, i, 100, case_copy(c, o, from->gt2), case_copy(c, i, from->at2),
                            case_copy(c, o * i, from->Y), case_copy(c, o * i, from->D), f, X, facts);
  return facts;
}

/* A diagonal that was rounded below zero counts as zero. */
static void body_gain(struct device_case *c, const int64_t *size) {
  const int64_t o = size[0], i = size[1], n = o * i;
  const struct gain_case from = make_gain(c, o, i);
  from.gt2[o / 2] = o > 2 ? -1e-3f : from.gt2[o / 2];
  double *const f = case_host(c, n, sizeof *f), *const next = case_host(c, n, sizeof *next);
  double *const X = case_host(c, n, sizeof *X), wanted[KWM_GAINS];
  for (int64_t k = 0; k < n; k++) {
    f[k] = fmax((double)from.gt2[k / i], 0) / 100 * (double)from.at2[k % i];
    next[k] = (double)from.D[k] + f[k];
    X[k] = (double)from.Y[k] / next[k];
  }
  reference_gains(n, f, next, case_wide(c, n, from.Y), NULL, 1, wanted);
  float *const to_f = case_floats(c, n), *const to_X = case_floats(c, n);
  const double *const facts = run_gain(c, o, i, &from, to_f, to_X);
  check_gains(c, 1, facts, wanted);
  assert_floats(c, n, to_f, f, CLOSE);
  assert_floats(c, n, to_X, X, CLOSE);
}

/* NaN or infinity anywhere: no finite change. */
static void body_gain_refused(struct device_case *c, const int64_t *size) {
  const int64_t o = size[0], i = size[1], n = o * i;
  for (int which = 0; which < 6; which++) {
    const struct gain_case from = make_gain(c, o, i);
    if (which == 0) from.gt2[o - 1] = NAN;
    if (which == 1) from.at2[i - 1] = NAN;
    if (which == 2) from.Y[n / 2] = NAN;
    if (which == 3) from.D[0] = NAN;
    if (which == 4) from.D[n - 1] = INFINITY;
    if (which == 5) from.at2[i / 2] = INFINITY;
    const double *const facts = run_gain(c, o, i, &from, case_floats(c, n), case_floats(c, n));
    kwm_device_wait(c->device);
    assert_true(!isfinite(facts[KWM_GAIN_CHANGE]));
  }
}

static void test_gain(void **state) {
  (void)state;
  static const int64_t sizes[][4] = {{1, 1}, {3, 16}, {10, 257}, {33, 100}, {256, 513}, {257, 3}};
  static const int64_t few[][4] = {{1, 1}, {10, 257}, {100, 33}};
  case_run_all(body_gain, sizes);
  case_run_all(body_gain_refused, few);
}

static void body_time(struct device_case *c, const int64_t *size) {
  const int64_t n = size[0];
  const float lambda = 0.97f, d0 = 3.5f, q = 0.02f, share = 0.105f;
  const float *const D = case_positive(c, n, 1), *const mean = case_normals(c, n, 2, 1),
                     *const X = case_normals(c, n, 3, 1);
  double *const forgot = case_wide(c, n, D), *const diffused = case_wide(c, n, D), *const pulled = case_wide(c, n, X);
  double *const plain = case_wide(c, n, X), trace = 0;
  for (int64_t k = 0; k < n; k++) {
    const double d = (double)D[k];
    trace += 1 / d;
    forgot[k] = (double)lambda * d + (1 - (double)lambda) * (double)d0;
    diffused[k] = d / (1 + (double)q * d);
    pulled[k] = (double)share / d * ((double)X[k] - (double)mean[k]);
    plain[k] = (double)share / d * (double)X[k];
  }
  float *const a = case_copy(c, n, D), *const b = case_copy(c, n, D), *const x = case_copy(c, n, X);
  float *const y = case_copy(c, n, X), *const from = case_copy(c, n, D), *const home = case_copy(c, n, mean);
  double *const facts = case_facts(c, 1);
  c->device->ops->kron_forget(c->device, n, lambda, d0, a);
  c->device->ops->kron_diffuse(c->device, n, q, b);
  c->device->ops->kron_pull(c->device, n, share, from, home, x);
  c->device->ops->kron_pull(c->device, n, share, from, NULL, y);
  c->device->ops->sum_inverse(c->device, n, from, facts);
  assert_floats(c, n, a, forgot, CLOSE);
  assert_floats(c, n, b, diffused, CLOSE);
  assert_floats(c, n, x, pulled, CLOSE);
  assert_floats(c, n, y, plain, CLOSE);
  assert_same(c, n, from, D);
  assert_same(c, n, home, mean);
  assert_facts(c, 1, facts, &trace, CLOSE);
}

static void test_time(void **state) {
  (void)state;
  static const int64_t sizes[][4] = {{1}, {3}, {33}, {257}, {2570}, {131328}};
  case_run_all(body_time, sizes);
}

static void body_move(struct device_case *c, const int64_t *size) {
  const int64_t n = size[0];
  const float *const mean = case_normals(c, n, 1, 1);
  const double *const delta = case_wide(c, n, case_normals(c, n, 2, 1));
  double *const wanted = case_wide(c, n, mean);
  for (int64_t k = 0; k < n; k++) wanted[k] -= 0.7 * delta[k];
  float *const to = case_copy(c, n, mean);
  c->device->ops->move_f64(c->device, n, -0.7, case_copy(c, n, delta), to);
  assert_floats(c, n, to, wanted, CLOSE);
}

static void test_move(void **state) {
  (void)state;
  static const int64_t sizes[][4] = {{1}, {33}, {2560}, {70001}};
  case_run_all(body_move, sizes);
}

/* diag: precisions (count, p) in float or double on the device. */
static void *put_numbers(struct device_case *c, bool wide, int64_t n, const double *from) {
  if (wide) return case_copy(c, n, from);
  float *const narrow = case_host(c, n, sizeof *narrow);
  for (int64_t k = 0; k < n; k++) narrow[k] = (float)from[k];
  return case_copy(c, n, narrow);
}

static const double *get_numbers(struct device_case *c, bool wide, int64_t n, const void *at) {
  void *const found = case_get(c, n, wide ? sizeof(double) : sizeof(float), at);
  return wide ? found : case_wide(c, n, found);
}

struct diag_case {
  int64_t count, p, period;
  bool wide;
  double *prior, *D;
  float *evidence; /* (2 p, count) */
};

static struct diag_case make_diag(struct device_case *c, const int64_t *size, bool wide) {
  struct diag_case made = {.count = size[0], .p = size[1], .period = size[2], .wide = wide};
  const int64_t n = made.count * made.p;
  made.prior = case_wide(c, made.period, case_positive(c, made.period, 1));
  made.D = case_wide(c, n, case_positive(c, n, 2));
  made.evidence = case_normals(c, 2 * n, 3, 1);
  for (int64_t k = 0; k < n; k++) made.evidence[k] = k % 13 == 5 ? -1e-4f : fabsf(made.evidence[k]);
  return made;
}

/* Where the device's answers are. */
struct diag_answer {
  void *next;
  double *delta, *facts;
};

static struct diag_answer run_diag(struct device_case *c, const struct diag_case *from) {
  const int64_t n = from->count * from->p;
  const struct diag_answer answer = {case_new(c, n, from->wide ? sizeof(double) : sizeof(float)), case_doubles(c, n),
                                     case_facts(c, from->count * KWM_GAINS)};
  c->device->ops->diag_absorb(c->device, from->wide, from->count, from->p, from->period,
                              case_copy(c, from->period, from->prior), case_copy(c, 2 * n, from->evidence),
                              put_numbers(c, from->wide, n, from->D), answer.next, answer.delta, answer.facts);
  return answer;
}

static void check_diag(struct device_case *c, const int64_t *size, bool wide) {
  const struct diag_case from = make_diag(c, size, wide);
  const int64_t p = from.p, count = from.count, n = count * p;
  double *const f = case_host(c, n, sizeof *f), *const s = case_host(c, n, sizeof *s);
  double *const next = case_host(c, n, sizeof *next), *const delta = case_host(c, n, sizeof *delta);
  double *const gains = case_host(c, count * KWM_GAINS, sizeof *gains);
  for (int64_t k = 0; k < n; k++) {
    f[k] = fmax((double)from.evidence[k % p * count + k / p], 0);
    s[k] = (double)from.evidence[n + k % p * count + k / p];
    next[k] = from.D[k] + f[k];
    delta[k] = s[k] / next[k];
  }
  for (int64_t b = 0; b < count; b++)
    reference_gains(p, f + b * p, next + b * p, s + b * p, from.prior, from.period, gains + b * KWM_GAINS);
  const struct diag_answer answer = run_diag(c, &from);
  check_gains(c, count, answer.facts, gains);
  assert_below(dense_error(n, get_numbers(c, wide, n, answer.next), next), wide ? TIGHT : CLOSE);
  assert_doubles(c, n, answer.delta, delta, wide ? TIGHT : CLOSE);
}

static void body_diag(struct device_case *c, const int64_t *size) {
  check_diag(c, size, false);
  check_diag(c, size, true);
}

/* NaN or infinity in one block's evidence or precision: not finite there, finite elsewhere. */
static void body_diag_refused(struct device_case *c, const int64_t *size) {
  for (int which = 0; which < 6; which++) {
    const struct diag_case from = make_diag(c, size, which % 2 == 1);
    const int64_t n = from.count * from.p, bad = from.count / 2;
    if (which < 2) from.evidence[(from.p - 1) * from.count + bad] = NAN;
    if (which == 2 || which == 3) from.D[bad * from.p] = INFINITY;
    if (which > 3) from.evidence[n + bad] = NAN;
    const struct diag_answer answer = run_diag(c, &from);
    kwm_device_wait(c->device);
    for (int64_t b = 0; b < from.count; b++)
      assert_true(isfinite(answer.facts[b * KWM_GAINS + KWM_GAIN_CHANGE]) == (b != bad));
  }
}

/* blocks, parameters, period of the prior: units, matrices. */
static void test_diag(void **state) {
  (void)state;
  static const int64_t sizes[][4] = {{1, 1, 1}, {33, 10, 10}, {257, 3, 3}, {1, 2570, 1}, {1, 131328, 1}, {256, 10, 10}};
  static const int64_t few[][4] = {{1, 1, 1}, {33, 10, 10}, {1, 2570, 1}};
  case_run_all(body_diag, sizes);
  case_run_all(body_diag_refused, few);
}

static void check_diag_predict(struct device_case *c, const int64_t *size, bool wide, double lambda, double q) {
  const struct diag_case from = make_diag(c, size, wide);
  const int64_t n = from.count * from.p;
  const float *const mean = case_normals(c, n, 5, 1), *const anchor = case_normals(c, n, 6, 1);
  double *const moved = case_wide(c, n, mean), *const next = case_host(c, n, sizeof *next), trace = 0;
  for (int64_t k = 0; k < n; k++) {
    const double p0 = from.prior[k % from.p % from.period], kept = lambda * from.D[k] + (1 - lambda) / p0;
    moved[k] += (1 - lambda) / (p0 * kept) * ((double)anchor[k] - (double)mean[k]);
    next[k] = kept / (1 + q * p0 * kept);
    trace += 1 / next[k];
  }
  void *const D = put_numbers(c, wide, n, from.D);
  float *const to = case_copy(c, n, mean);
  double *const facts = case_facts(c, 1);
  c->device->ops->diag_predict(c->device, wide, from.count, from.p, from.period, lambda, q,
                               case_copy(c, from.period, from.prior), lambda < 1 ? case_copy(c, n, anchor) : NULL, D,
                               to);
  c->device->ops->diag_trace(c->device, wide, n, D, facts);
  assert_below(dense_error(n, get_numbers(c, wide, n, D), next), wide ? TIGHT : CLOSE);
  assert_floats(c, n, to, moved, CLOSE);
  assert_facts(c, 1, facts, &trace, wide ? TIGHT : CLOSE);
  if (lambda == 1) assert_same(c, n, to, mean);
}

static void body_diag_predict(struct device_case *c, const int64_t *size) {
  check_diag_predict(c, size, false, 0.98, 0);
  check_diag_predict(c, size, true, 0.98, 0.01);
  check_diag_predict(c, size, false, 1, 0.01);
}

static void test_diag_predict(void **state) {
  (void)state;
  static const int64_t sizes[][4] = {{1, 1, 1}, {33, 10, 10}, {257, 3, 3}, {1, 2570, 1}, {1, 131328, 1}};
  case_run_all(body_diag_predict, sizes);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_gain), cmocka_unit_test(test_time),         cmocka_unit_test(test_move),
    cmocka_unit_test(test_diag), cmocka_unit_test(test_diag_predict),
};

DEVICE_TEST_MAIN(tests)
