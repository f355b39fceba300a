/* The gated recurrence: runs of background pixels and table look-ups give what the plain recurrence gives, state and
   sensitivities.

   Tolerance of the single-precision kernel: every symbol rounds a trace by some 2^-24 of its largest value on the way,
   and rounding errors decay like the trace itself, with a memory of at most 1/(1-|a|) = 100 pixels here: a few times
   100 * 6e-8. */
#include "gated_reference.h"

#include "kwm/layer.h"

enum { LENGTH = 200, SEQUENCES = 8, UNITS_MAX = 48, RUN = 48 };
static const double KERNEL = 5e-5;

/* Decays |a| at gate 1/2 of 0.6 to 0.99, phases of 0.05 to 1.5, everything else of order one. */
static void make_theta(int64_t count, float *theta) {
  for (int64_t u = 0; u < count; u++) {
    float *const t = theta + u * KWM_GATED_PARAMS;
    for (int k = 0; k < KWM_GATED_PARAMS; k++) t[k] = (float)(0.4 * test_normal(1, u * KWM_GATED_PARAMS + k));
    const double decay = 0.6 + 0.39 * (double)u / (double)(count - 1);
    t[0] = (float)log(-2 * log(decay));
    t[1] = (float)log(0.05 + 1.45 * kwm_rng_uniform(7, KWM_RNG_TEST, 2, (uint64_t)u));
  }
}

/* Row i of pixels: 0 digits-like with runs of all lengths, 1 ink only, 2 background only, 3 runs of one, 4 a run longer
   than any table entry in the middle, 5 ends and begins with such runs, 6 runs of exactly the table's longest, 7 ink
   once. */
static void make_pixels(uint8_t *pixels) {
  memset(pixels, 0, SEQUENCES * LENGTH);
  for (int t = 0; t < LENGTH; t++) {
    const uint8_t ink = (uint8_t)(1 + kwm_rng_below(7, KWM_RNG_TEST, 3, (uint64_t)t, 255));
    if (kwm_rng_uniform(7, KWM_RNG_TEST, 4, (uint64_t)t) < 0.3) pixels[t] = ink;
    pixels[LENGTH + t] = ink;
    pixels[3 * LENGTH + t] = t % 2 == 0 ? ink : 0;
    pixels[4 * LENGTH + t] = t < 30 || t > 30 + 2 * RUN + 7 ? ink : 0;
    pixels[5 * LENGTH + t] = t > RUN + 5 && t < LENGTH - RUN - 9 ? ink : 0;
    pixels[6 * LENGTH + t] = t % (RUN + 1) == RUN ? ink : 0;
  }
  pixels[7 * LENGTH + LENGTH / 2] = 255;
}

struct run {
  float *theta, *h, *S;
  uint8_t *pixels;
  int64_t count, length, n;
};

static float *new_floats(int64_t n) {
  float *const array = calloc((size_t)n, sizeof *array);
  assert_non_null(array);
  return array;
}

/* The kernel over all sequences, in the order that index names. */
static struct run run_kernel(int64_t count, int64_t length, int64_t n, const int32_t *index, bool sensitivities) {
  struct run run = {.count = count, .length = length, .n = n};
  run.theta = new_floats(count * KWM_GATED_PARAMS);
  run.h = new_floats(n * 2 * count);
  run.S = new_floats(n * 2 * KWM_GATED_PARAMS * count);
  run.pixels = calloc(SEQUENCES, LENGTH);
  assert_non_null(run.pixels);
  make_theta(count, run.theta);
  make_pixels(run.pixels);
  kwm_gated *gated = NULL;
  const size_t before = kwm_mem_bytes();
  assert_ok(kwm_gated_create(&gated, NULL, count, length, n));
  assert_int_equal(kwm_mem_bytes() - before, kwm_gated_bytes(count, length, n));
  kwm_gated_refresh(gated, run.theta);
  kwm_gated_forward(gated, n, run.pixels, index, run.h, sensitivities ? run.S : NULL);
  kwm_gated_destroy(gated);
  assert_int_equal(kwm_mem_bytes(), before);
  return run;
}

static void drop(struct run *run) {
  free(run->theta), free(run->h), free(run->S), free(run->pixels);
}

static void theta_of(const struct run *run, int64_t u, double *theta) {
  for (int k = 0; k < REF_PARAMS; k++) theta[k] = (double)run->theta[u * REF_PARAMS + k];
}

static void compare(const struct run *run, const int32_t *index) {
  for (int64_t i = 0; i < run->n; i++)
    for (int64_t u = 0; u < run->count; u++) {
      double theta[REF_PARAMS], peak[REF_PARAMS + 1];
      double complex S[REF_PARAMS];
      theta_of(run, u, theta);
      const double complex h = ref_unit(theta, run->length, run->pixels + index[i] * run->length, S, peak);
      const float *const at = run->h + i * 2 * run->count + u;
      const double complex found = (double)at[0] + I * (double)at[run->count];
      assert_below(cabs(found - h), KERNEL * peak[REF_PARAMS]);
      for (int k = 0; k < REF_PARAMS; k++) {
        const float *const s = run->S + (i * 2 * REF_PARAMS + k) * run->count + u;
        const double complex found_s = (double)s[0] + I * (double)s[REF_PARAMS * run->count];
        assert_below(cabs(found_s - S[k]), KERNEL * peak[k] + 1e-12);
      }
    }
}

static const int32_t all_in_some_order[SEQUENCES] = {3, 0, 7, 1, 6, 2, 5, 4};

static void test_against_recurrence(void **state) {
  (void)state;
  for (int64_t count = 16; count <= UNITS_MAX; count += 32) {
    struct run run = run_kernel(count, LENGTH, SEQUENCES, all_in_some_order, true);
    compare(&run, all_in_some_order);
    drop(&run);
  }
}

/* Sequences of one pixel, ink or background: the same array read with another length. */
static void test_length_one(void **state) {
  (void)state;
  int32_t index[SEQUENCES];
  for (int i = 0; i < SEQUENCES; i++) index[i] = 5 * i;
  struct run run = run_kernel(16, 1, SEQUENCES, index, true);
  compare(&run, index);
  drop(&run);
}

/* Equations 3(h) against central differences of the recurrence itself, so that the reference is not its own witness.
   The difference quotient is good to step² and to 1e-16 / step of the state. */
static void test_reference(void **state) {
  (void)state;
  struct run run = run_kernel(16, LENGTH, SEQUENCES, all_in_some_order, true);
  const double step = 1e-6;
  for (int64_t i = 0; i < SEQUENCES; i++)
    for (int64_t u = 0; u < run.count; u++) {
      double theta[REF_PARAMS], peak[REF_PARAMS + 1];
      double complex S[REF_PARAMS];
      const uint8_t *const pixels = run.pixels + i * LENGTH;
      theta_of(&run, u, theta);
      ref_unit(theta, LENGTH, pixels, S, peak);
      for (int k = 0; k < REF_PARAMS; k++) {
        const double keep = theta[k];
        theta[k] = keep + step;
        const double complex above = ref_unit(theta, LENGTH, pixels, NULL, NULL);
        theta[k] = keep - step;
        const double complex below = ref_unit(theta, LENGTH, pixels, NULL, NULL);
        theta[k] = keep;
        assert_below(cabs((above - below) / (2 * step) - S[k]), 1e-7 * fmax(1, peak[k]));
      }
    }
  drop(&run);
}

static void test_state_alone(void **state) {
  (void)state;
  struct run with = run_kernel(48, LENGTH, SEQUENCES, all_in_some_order, true);
  struct run without = run_kernel(48, LENGTH, SEQUENCES, all_in_some_order, false);
  assert_memory_equal(with.h, without.h, (size_t)(SEQUENCES * 2 * 48) * sizeof(float));
  drop(&with), drop(&without);
}

/* New parameters count from the next refresh on, and only then. */
static void test_refresh(void **state) {
  (void)state;
  const int32_t index[1] = {0};
  struct run run = run_kernel(16, LENGTH, 1, index, true);
  kwm_gated *gated = NULL;
  assert_ok(kwm_gated_create(&gated, NULL, 16, LENGTH, 1));
  kwm_gated_refresh(gated, run.theta);
  run.theta[8] += 1;
  float *const h = new_floats(32);
  kwm_gated_forward(gated, 1, run.pixels, index, h, NULL);
  assert_memory_equal(h, run.h, 32 * sizeof(float));
  kwm_gated_refresh(gated, run.theta);
  kwm_gated_forward(gated, 1, run.pixels, index, run.h, run.S);
  compare(&run, index);
  assert_memory_not_equal(h, run.h, 32 * sizeof(float));
  kwm_gated_destroy(gated);
  free(h), drop(&run);
}

static double executed_for(kwm_gated *gated, const uint8_t *pixels, int32_t sequence, double *plain) {
  double executed = 0;
  kwm_gated_operations(gated, 1, pixels, &sequence, &executed, plain);
  return executed;
}

/* Work counts symbols: one a pixel of ink, one a run of up to RUN pixels of background. */
static void test_operations(void **state) {
  (void)state;
  struct run run = run_kernel(16, LENGTH, SEQUENCES, all_in_some_order, true);
  kwm_gated *gated = NULL;
  assert_ok(kwm_gated_create(&gated, NULL, 16, LENGTH, SEQUENCES));
  double plain = 0, plain_ink = 0, executed = 0;
  const double ink = executed_for(gated, run.pixels, 1, &plain_ink), symbol = ink / LENGTH;
  assert_close(plain_ink, 11.0 * 12 * 16 * LENGTH, 1e-15, 0);
  assert_close(executed_for(gated, run.pixels, 2, &plain), symbol * ((LENGTH + RUN - 1) / RUN), 1e-12, 0);
  assert_close(plain, plain_ink, 1e-15, 0);
  assert_close(executed_for(gated, run.pixels, 3, &plain), ink, 1e-12, 0);
  assert_close(executed_for(gated, run.pixels, 4, &plain), symbol * (LENGTH - (2 * RUN + 8) + 3), 1e-12, 0);
  assert_close(executed_for(gated, run.pixels, 7, &plain), symbol * (3 + 1 + 3), 1e-12, 0);
  double sum = 0;
  for (int32_t i = 0; i < SEQUENCES; i++) sum += executed_for(gated, run.pixels, i, &plain);
  kwm_gated_operations(gated, SEQUENCES, run.pixels, all_in_some_order, &executed, &plain);
  assert_close(executed, sum, 1e-12, 0);
  assert_close(plain, SEQUENCES * plain_ink, 1e-12, 0);
  kwm_gated_destroy(gated);
  drop(&run);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_reference),  cmocka_unit_test(test_against_recurrence),
      cmocka_unit_test(test_length_one), cmocka_unit_test(test_state_alone),
      cmocka_unit_test(test_refresh),    cmocka_unit_test(test_operations),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
