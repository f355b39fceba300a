/* A matrix block in the innovation form on a device against itself on the host: the same Jacobians, side by side,
   through steps of changing size, some of them given up, with looks at P in between. Everything is in double precision
   but the mean: 1e-9 leaves room for some 30 updates in another order of sums. */
#include "cov_case.h"
#include "device_case.h"

#include "kwm/backend.h"

enum { STEPS = 30, N_MAX = 9 };
static const double CLOSE = 1e-9;

/* Fewer parameters than a step has rows, about as many, and more than a tile of a kernel, none of them a round number.
 */
static const struct subject { int64_t d_o, d_i, m; } subjects[] = {{3, 5, 2}, {1, 1, 1}, {7, 19, 3}, {10, 33, 15}};
enum { SUBJECTS = sizeof subjects / sizeof *subjects };

static struct kwm_cov_spec spec_of(const struct subject *subject, double noise, kwm_device *device) {
  const struct cov_shape shape = {
      .structure = "block", .form = KWM_FORM_INNOVATION, .count = 1, .d_o = subject->d_o, .d_i = subject->d_i};
  struct kwm_cov_spec spec = cov_spec_of(&shape, 1, noise);
  spec.n_max = N_MAX;
  spec.m = subject->m;
  spec.device = device;
  return spec;
}

static kwm_cov new_cov(const struct subject *subject, double noise, kwm_device *device) {
  kwm_cov cov;
  const struct kwm_cov_spec spec = spec_of(subject, noise, device);
  const size_t before = kwm_mem_bytes();
  assert_ok(kwm_cov_create(&cov, &kwm_cov_block, &spec));
  assert_int_equal(kwm_mem_bytes() - before, cov.ops->bytes(&spec));
  return cov;
}

/* The same block in both places. */
struct sides {
  const struct subject *subject;
  kwm_cov here, there;
  int64_t p;
  float *mean, *mean_there;
};

static struct sides sides_of(const struct subject *subject, double noise) {
  struct sides sides = {.subject = subject, .p = subject->d_o * subject->d_i};
  const size_t bytes = (size_t)sides.p * sizeof(float);
  sides.here = new_cov(subject, noise, NULL), sides.there = new_cov(subject, noise, test_device);
  sides.mean = normal_floats(sides.p, 800);
  assert_ok(kwm_device_alloc(test_device, (void **)&sides.mean_there, bytes, "test"));
  kwm_device_put(test_device, sides.mean_there, sides.mean, bytes);
  return sides;
}

static void sides_drop(struct sides *sides) {
  kwm_cov_destroy(&sides->here), kwm_cov_destroy(&sides->there), free(sides->mean);
  kwm_device_free(test_device, sides->mean_there);
}

/* Rows in both places, S, its factor and w. */
struct rows {
  struct jac_case made;
  struct kwm_jac there;
  int64_t count;
  double *S, *w;
};

static const float *device_floats(int64_t n, const float *values) {
  void *at = NULL;
  assert_ok(kwm_device_alloc(test_device, &at, (size_t)n * sizeof *values, "test"));
  kwm_device_put(test_device, at, values, (size_t)n * sizeof *values);
  return at;
}

static struct rows rows_new(const struct subject *subject, int64_t n, uint64_t stream) {
  struct rows rows = {.made = jac_outer(n, subject->m, subject->d_o, subject->d_i, stream), .count = n * subject->m};
  rows.there = rows.made.jac;
  rows.there.J = device_floats(rows.count * subject->d_o, rows.made.J);
  rows.there.a = device_floats(n * subject->d_i, rows.made.a);
  rows.there.e = NULL;
  rows.S = dense_new(rows.count * rows.count), rows.w = dense_new(rows.count);
  return rows;
}

static void rows_drop(struct rows *rows) {
  kwm_device_free(test_device, (void *)(uintptr_t)rows->there.J);
  kwm_device_free(test_device, (void *)(uintptr_t)rows->there.a);
  free(rows->S), free(rows->w), jac_drop(&rows->made);
}

/* Both shares of S, each added to what is there. */
static void project(struct sides *sides, struct rows *rows) {
  const int64_t n = rows->count;
  double *const S = dense_new(n * n);
  for (int64_t k = 0; k < n * n; k++) S[k] = rows->S[k] = k % (n + 1) == 0;
  kwm_cov_project(&sides->here, &rows->made.jac, rows->S);
  kwm_cov_project(&sides->there, &rows->there, S);
  assert_below(dense_error(n * n, S, rows->S), CLOSE);
  cov_factor(n, rows->S, rows->made.e, rows->w);
  free(S);
}

static void check_prepared(const struct sides *sides) {
  double here = 0, there = 0, *const delta = dense_new(sides->p), *const wanted = dense_new(sides->p);
  kwm_cov_delta(&sides->here, wanted), kwm_cov_delta(&sides->there, delta);
  assert_below(dense_error(sides->p, delta, wanted), CLOSE);
  kwm_cov_moved(&sides->here, &here), kwm_cov_moved(&sides->there, &there);
  assert_close(there, here, CLOSE, 0);
  free(delta), free(wanted);
}

static void check_means(const struct sides *sides) {
  float *const mean = normal_floats(sides->p, 1);
  kwm_device_get(test_device, mean, sides->mean_there, (size_t)sides->p * sizeof *mean);
  for (int64_t k = 0; k < sides->p; k++) assert_close((double)mean[k], (double)sides->mean[k], 1e-5, 1e-6);
  free(mean);
}

/* The step with S, L and w on the device: its S is that of the host, and with the host's w it prepares the same. */
static void condition_there(struct sides *sides, struct rows *rows) {
  const int64_t n = rows->count;
  double *const S = dense_new(n * n), *there[2] = {NULL, NULL};
  for (int64_t k = 0; k < n * n; k++) S[k] = k % (n + 1) == 0;
  for (int k = 0; k < 2; k++)
    assert_ok(kwm_device_alloc(test_device, (void **)&there[k], (size_t)(k == 0 ? n * n : n) * sizeof(double), "test"));
  kwm_device_put(test_device, there[0], S, (size_t)(n * n) * sizeof *S);
  sides->there.ops->project_there(&sides->there, &rows->there, there[0]);
  kwm_device_get(test_device, S, there[0], (size_t)(n * n) * sizeof *S);
  assert_true(kwm_cholesky_f64(n, S, n));
  for (int64_t k = 0; k < n * n; k++)
    if (k % n <= k / n) assert_close(S[k], rows->S[k], 1e-7, 1e-9);
  kwm_device_put(test_device, there[0], rows->S, (size_t)(n * n) * sizeof *S);
  kwm_device_put(test_device, there[1], rows->w, (size_t)n * sizeof *S);
  assert_true(sides->there.ops->condition_there(&sides->there, &rows->there, there[0], there[1]));
  kwm_device_free(test_device, there[0]), kwm_device_free(test_device, there[1]), free(S);
}

static void step_both(struct sides *sides, int64_t step) {
  struct rows rows = rows_new(sides->subject, 1 + (5 * step + 3) % N_MAX, (uint64_t)(810 + step));
  assert_true(kwm_cov_predict(&sides->here, step, NULL, NULL) && kwm_cov_predict(&sides->there, step, NULL, NULL));
  project(sides, &rows);
  assert_true(kwm_cov_condition(&sides->here, &rows.made.jac, rows.S, rows.w));
  if (step % 3 == 1)
    condition_there(sides, &rows);
  else
    assert_true(kwm_cov_condition(&sides->there, &rows.there, rows.S, rows.w));
  check_prepared(sides);
  if (step % 4 != 3) {
    const double scale = step % 2 == 0 ? 1 : 0.6;
    kwm_cov_apply(&sides->here, scale, sides->mean), kwm_cov_apply(&sides->there, scale, sides->mean_there);
  }
  rows_drop(&rows);
}

static double *covariance_of(const kwm_cov *cov) {
  const int64_t p = cov->spec.params;
  double *const P = dense_new(p * p);
  assert_true(kwm_cov_covariance(cov, P));
  return P;
}

static void check_states(struct sides *sides) {
  const int64_t p = sides->p, outputs = N_MAX * sides->subject->m * sides->subject->m;
  double *const here = covariance_of(&sides->here), *const there = covariance_of(&sides->there);
  double *const values = dense_new(2 * p), *const C = dense_new(2 * outputs);
  struct kwm_health health = {0}, health_there = {.trace = 1};
  assert_below(dense_error(p * p, there, here), CLOSE);
  assert_true(kwm_cov_spectrum(&sides->here, values) && kwm_cov_spectrum(&sides->there, values + p));
  assert_int_equal(kwm_cov_spectrum_length(&sides->there), p);
  assert_below(dense_error(p, values + p, values), CLOSE);
  struct rows rows = rows_new(sides->subject, N_MAX, 805);
  assert_true(kwm_cov_predictive(&sides->here, &rows.made.jac, C));
  assert_true(kwm_cov_predictive(&sides->there, &rows.there, C + outputs));
  assert_below(dense_error(outputs, C + outputs, C), CLOSE);
  kwm_cov_health(&sides->here, &health), kwm_cov_health(&sides->there, &health_there);
  assert_close(health_there.trace - 1, health.trace, CLOSE, 0);
  assert_close(health_there.prior_trace, health.prior_trace, 1e-12, 0);
  assert_true(health_there.parameters == health.parameters && health_there.floor_hits == health.floor_hits);
  rows_drop(&rows), free(here), free(there), free(values), free(C);
}

static void test_runs(void **state) {
  (void)state;
  for (int s = 0; s < SUBJECTS; s++)
    for (int noisy = 0; noisy < 2; noisy++) {
      struct sides sides = sides_of(&subjects[s], noisy ? 0.03 : 0);
      check_states(&sides);
      for (int64_t step = 0; step < STEPS; step++) step_both(&sides, step);
      check_states(&sides), check_means(&sides);
      sides_drop(&sides);
    }
}

/* What is not finite is seen, and what was not applied leaves the state. */
static void test_not_finite(void **state) {
  (void)state;
  struct sides sides = sides_of(&subjects[2], 0);
  for (int64_t step = 0; step < 3; step++) step_both(&sides, step);
  double *const before = covariance_of(&sides.there);
  static const double bad[] = {NAN, INFINITY, -INFINITY};
  for (size_t b = 0; b < sizeof bad / sizeof *bad; b++) {
    struct rows rows = rows_new(&subjects[2], N_MAX, 806);
    project(&sides, &rows);
    rows.w[b] = bad[b];
    assert_false(kwm_cov_condition(&sides.there, &rows.there, rows.S, rows.w));
    rows_drop(&rows);
  }
  double *const after = covariance_of(&sides.there);
  assert_memory_equal(after, before, (size_t)(sides.p * sides.p) * sizeof *after);
  for (int64_t step = 3; step < 6; step++) step_both(&sides, step);
  check_means(&sides);
  free(before), free(after), sides_drop(&sides);
}

/* A factor that is too small takes more than there is: after as many rows as parameters P is lifted, and counted. */
static void test_lifted(void **state) {
  (void)state;
  const struct subject *const subject = &subjects[0];
  struct sides sides = sides_of(subject, 0);
  struct rows rows = rows_new(subject, N_MAX, 807);
  struct kwm_health health = {0};
  double *const values = dense_new(sides.p);
  assert_true(rows.count >= sides.p);
  project(&sides, &rows);
  for (int64_t k = 0; k < rows.count * rows.count; k++) rows.S[k] = k % (rows.count + 1) == 0 ? 0.7 : 0;
  assert_true(kwm_cov_condition(&sides.there, &rows.there, rows.S, rows.w));
  kwm_cov_apply(&sides.there, 1, sides.mean_there);
  kwm_cov_health(&sides.there, &health);
  assert_true(health.floor_hits > 0 && isfinite(health.trace));
  assert_true(kwm_cov_spectrum(&sides.there, values));
  assert_true(values[0] > 0);
  rows_drop(&rows), free(values), sides_drop(&sides);
}

/* What one side saved the other goes on with. */
static void test_handed_over(void **state) {
  (void)state;
  for (int up = 0; up < 2; up++) {
    struct sides sides = sides_of(&subjects[2], 0.03);
    struct cov_file file;
    for (int64_t step = 0; step < 5; step++) step_both(&sides, step);
    kwm_cov *const from = up ? &sides.here : &sides.there, *const to = up ? &sides.there : &sides.here;
    kwm_cov_destroy(to);
    *to = new_cov(&subjects[2], 0.03, up ? test_device : NULL);
    cov_write(from, &file);
    assert_ok(kwm_cov_load(to, file.ckpt));
    cov_file_drop(&file);
    double *const saved = covariance_of(from), *const loaded = covariance_of(to);
    assert_memory_equal(loaded, saved, (size_t)(sides.p * sides.p) * sizeof *saved);
    for (int64_t step = 5; step < 10; step++) step_both(&sides, step);
    check_states(&sides), check_means(&sides);
    free(saved), free(loaded), sides_drop(&sides);
  }
}

/* Rows are pending when the one is looked at, saved and goes on from its checkpoint: bit for bit as the other, at which
   nobody looked. */
static void test_goes_on(void **state) {
  (void)state;
  for (int64_t stop = 1; stop < 6; stop += 2) {
    struct sides one = sides_of(&subjects[2], 0.03), other = sides_of(&subjects[2], 0.03);
    struct cov_file file;
    for (int64_t step = 0; step < stop; step++) step_both(&one, step), step_both(&other, step);
    check_states(&one);
    cov_write(&one.there, &file);
    kwm_cov_destroy(&one.there);
    one.there = new_cov(&subjects[2], 0.03, test_device);
    assert_ok(kwm_cov_load(&one.there, file.ckpt));
    cov_file_drop(&file);
    for (int64_t step = stop; step < STEPS; step++) step_both(&one, step), step_both(&other, step);
    double *const found = covariance_of(&one.there), *const wanted = covariance_of(&other.there);
    assert_memory_equal(found, wanted, (size_t)(one.p * one.p) * sizeof *found);
    check_states(&one);
    free(found), free(wanted), sides_drop(&one), sides_drop(&other);
  }
}

/* Only so is a matrix block on a device; a rank without it is there too. */
static void test_offered(void **state) {
  (void)state;
  struct kwm_cov_spec spec = spec_of(&subjects[0], 0.03, test_device), other = spec;
  assert_true(kwm_cov_on_device(&kwm_cov_block, &spec));
  other.forgetting = 0.9;
  assert_false(kwm_cov_on_device(&kwm_cov_block, &other));
  other = spec, other.real = KWM_REAL_FLOAT;
  assert_false(kwm_cov_on_device(&kwm_cov_block, &other));
  other = spec, other.form = KWM_FORM_INFORMATION;
  assert_false(kwm_cov_on_device(&kwm_cov_block, &other));
  kwm_cov cov;
  spec.count = 0;
  assert_ok(kwm_cov_create(&cov, &kwm_cov_block, &spec));
  assert_true(kwm_cov_predict(&cov, 1, NULL, NULL));
  kwm_cov_destroy(&cov);
}

/* Checkpoints want MPI. */
int main(int argc, char **argv) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_runs),    cmocka_unit_test(test_not_finite),
                                     cmocka_unit_test(test_lifted),  cmocka_unit_test(test_handed_over),
                                     cmocka_unit_test(test_goes_on), cmocka_unit_test(test_offered)};
  const char *const name = getenv("KWM_TEST_BACKEND");
  const struct kwm_device_spec spec = {.graphs = true};
  MPI_Init(&argc, &argv);
  int failed = CASE_SKIPPED;
  if (kwm_device_open(&test_device, name != NULL ? name : "shadow", &spec) != KWM_OK) {
    printf("skipped: %s\n", kwm_error_message());
  } else {
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    kwm_device_close(test_device);
  }
  MPI_Finalize();
  return failed;
}
