/* Keyed draws: known answers (Philox4x32-10 computed apart from this code), independence of order and of key, moments.
 */
#include "kwm_test.h"

#include "kwm/rng.h"

static void known_answers(void **state) {
  (void)state;
  assert_true(kwm_rng_uniform(0, KWM_RNG_TEST, 0, 0) == 0x1.c9548b6f255ecp-4);
  assert_true(kwm_rng_uniform(1, KWM_RNG_INIT, 2, 5) == 0x1.e9b740d6930e9p-2);
  assert_true(kwm_rng_uniform(0x123456789abcdef0, KWM_RNG_ORDER, 7, 0x100000002) == 0x1.346008a2a3e00p-11);
  assert_true(kwm_rng_uniform(42, KWM_RNG_PIXELS, UINT64_C(1) << 32, 9) == 0x1.331c0e0ccbdc8p-1);
  assert_close(kwm_rng_normal(0, KWM_RNG_TEST, 0, 0), -2.0459729172057295, 1e-14, 0.0);
  assert_close(kwm_rng_normal(1, KWM_RNG_INIT, 2, 5), -0.5498731035939076, 1e-14, 0.0);
  assert_close(kwm_rng_normal(0x123456789abcdef0, KWM_RNG_ORDER, 7, 0x100000002), -3.7307649497321704, 1e-14, 0.0);
  assert_close(kwm_rng_normal(42, KWM_RNG_PIXELS, UINT64_C(1) << 32, 9), 0.6390409214807432, 1e-14, 0.0);
}

static void a_draw_depends_on_its_key_only(void **state) {
  (void)state;
  const double first = kwm_rng_normal(3, KWM_RNG_TEST, 1, 8);
  for (uint64_t i = 0; i < 10; i++) kwm_rng_uniform(3, KWM_RNG_TEST, 1, i);
  assert_true(kwm_rng_normal(3, KWM_RNG_TEST, 1, 8) == first);
}

static void every_part_of_the_key_counts(void **state) {
  (void)state;
  const uint64_t high = UINT64_C(1) << 32;
  const double draws[] = {
      kwm_rng_uniform(3, KWM_RNG_TEST, 1, 8),        kwm_rng_uniform(4, KWM_RNG_TEST, 1, 8),
      kwm_rng_uniform(3 + high, KWM_RNG_TEST, 1, 8), kwm_rng_uniform(3, KWM_RNG_INIT, 1, 8),
      kwm_rng_uniform(3, KWM_RNG_ORDER, 1, 8),       kwm_rng_uniform(3, KWM_RNG_PIXELS, 1, 8),
      kwm_rng_uniform(3, KWM_RNG_TEST, 2, 8),        kwm_rng_uniform(3, KWM_RNG_TEST, 1 + high, 8),
      kwm_rng_uniform(3, KWM_RNG_TEST, 1, 9),        kwm_rng_uniform(3, KWM_RNG_TEST, 1, 8 + high),
  };
  const size_t n = sizeof draws / sizeof draws[0];
  for (size_t i = 0; i < n; i++) {
    for (size_t j = 0; j < i; j++) assert_true(draws[i] != draws[j]);
  }
}

/* Sample moments of n draws lie within six standard errors of the true ones (the draws are fixed: no chance is left).
 */
static void uniform_moments(void **state) {
  (void)state;
  const int n = 100000;
  double sum = 0.0, square = 0.0, low = 1.0, high = 0.0;
  for (int i = 0; i < n; i++) {
    const double x = kwm_rng_uniform(11, KWM_RNG_TEST, 0, (uint64_t)i);
    sum += x;
    square += x * x;
    low = fmin(low, x);
    high = fmax(high, x);
  }
  assert_true(low > 0.0 && low < 1e-3 && high < 1.0 && high > 1.0 - 1e-3);
  assert_close(sum / n, 0.5, 0.0, 6.0 * sqrt(1.0 / 12.0 / n));
  assert_close(square / n, 1.0 / 3.0, 0.0, 6.0 * sqrt(4.0 / 45.0 / n));
}

static void normal_moments(void **state) {
  (void)state;
  const int n = 100000;
  double sum = 0.0, square = 0.0, fourth = 0.0, neighbour = 0.0, before = 0.0;
  for (int i = 0; i < n; i++) {
    const double x = kwm_rng_normal(12, KWM_RNG_TEST, 0, (uint64_t)i);
    assert_true(isfinite(x));
    sum += x;
    square += x * x;
    fourth += x * x * x * x;
    neighbour += x * before;
    before = x;
  }
  assert_close(sum / n, 0.0, 0.0, 6.0 * sqrt(1.0 / n));
  assert_close(square / n, 1.0, 0.0, 6.0 * sqrt(2.0 / n));
  assert_close(fourth / n, 3.0, 0.0, 6.0 * sqrt(96.0 / n));
  assert_close(neighbour / n, 0.0, 0.0, 6.0 * sqrt(1.0 / n));
}

static void below_is_in_range_and_even(void **state) {
  (void)state;
  enum { BOUND = 7, N = 70000 };
  int counts[BOUND] = {0};
  for (uint64_t i = 0; i < N; i++) {
    const uint64_t value = kwm_rng_below(5, KWM_RNG_TEST, 3, i, BOUND);
    assert_true(value < BOUND);
    counts[value]++;
    assert_int_equal(kwm_rng_below(5, KWM_RNG_TEST, 3, i, 1), 0);
  }
  for (int i = 0; i < BOUND; i++) assert_close(counts[i], N / BOUND, 0.0, 6.0 * sqrt(N / BOUND));
}

static void assert_permutation(int64_t n, const int32_t *order) {
  bool seen[1000] = {false};
  for (int64_t i = 0; i < n; i++) {
    assert_in_range(order[i], 0, n - 1);
    assert_false(seen[order[i]]);
    seen[order[i]] = true;
  }
}

static void permutation(void **state) {
  (void)state;
  enum { N = 1000 };
  int32_t a[N], b[N];
  kwm_rng_permutation(1, KWM_RNG_ORDER, 0, N, a);
  assert_permutation(N, a);
  kwm_rng_permutation(1, KWM_RNG_ORDER, 0, N, b);
  assert_memory_equal(a, b, sizeof a);
  kwm_rng_permutation(1, KWM_RNG_ORDER, 1, N, b);
  assert_permutation(N, b);
  assert_memory_not_equal(a, b, sizeof a);
  kwm_rng_permutation(2, KWM_RNG_ORDER, 0, N, b);
  assert_memory_not_equal(a, b, sizeof a);
  kwm_rng_permutation(1, KWM_RNG_ORDER, 0, 1, b);
  assert_int_equal(b[0], 0);
  b[0] = -5;
  kwm_rng_permutation(1, KWM_RNG_ORDER, 0, 0, b);
  assert_int_equal(b[0], -5);
}

/* All 24 orders of four elements come equally often. */
static void permutations_are_even(void **state) {
  (void)state;
  enum { N = 24000 };
  int counts[256] = {0}, kinds = 0;
  for (uint64_t step = 0; step < N; step++) {
    int32_t order[4];
    kwm_rng_permutation(9, KWM_RNG_TEST, step, 4, order);
    counts[order[0] | order[1] << 2 | order[2] << 4 | order[3] << 6]++;
  }
  for (int i = 0; i < 256; i++) {
    if (counts[i] == 0) continue;
    kinds++;
    assert_close(counts[i], N / 24, 0.0, 6.0 * sqrt(N / 24));
  }
  assert_int_equal(kinds, 24);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(known_answers),
      cmocka_unit_test(a_draw_depends_on_its_key_only),
      cmocka_unit_test(every_part_of_the_key_counts),
      cmocka_unit_test(uniform_moments),
      cmocka_unit_test(normal_moments),
      cmocka_unit_test(below_is_in_range_and_even),
      cmocka_unit_test(permutation),
      cmocka_unit_test(permutations_are_even),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
