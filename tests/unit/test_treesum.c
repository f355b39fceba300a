/* Sums in a fixed tree: the bits of pairwise addition, whatever the buffers did before. */
#include "dense.h"

#include "kwm/treesum.h"

enum { LENGTH = 37, CHUNKS_MAX = 64 };

/* Contributions of very different sizes, so that another order of additions shows. */
static float contribution(int64_t chunk, int64_t k) {
  return (float)(test_normal(40, chunk * LENGTH + k) * exp(4 * test_normal(41, chunk * LENGTH + k)));
}

/* (c_first + ...) + (... + c_first+n-1), halving. */
static float pairwise(int64_t first, int64_t n, int64_t k) {
  if (n == 1) return contribution(first, k);
  const float left = pairwise(first, n / 2, k), right = pairwise(first + n / 2, n / 2, k);
  return left + right;
}

static void push_all(struct kwm_treesum *sum, int64_t first, int64_t n) {
  for (int64_t c = 0; c < n; c++) {
    float *const leaf = kwm_treesum_leaf(sum);
    for (int64_t k = 0; k < LENGTH; k++) {
      assert_true(leaf[k] == 0);
      leaf[k] += contribution(first + c, k);
    }
    kwm_treesum_push(sum);
  }
}

static void test_powers_of_two(void **state) {
  (void)state;
  for (int64_t chunks = 1; chunks <= CHUNKS_MAX; chunks *= 2) {
    struct kwm_treesum sum;
    const size_t before = kwm_mem_bytes();
    assert_ok(kwm_treesum_init(&sum, NULL, LENGTH, chunks));
    assert_int_equal(kwm_mem_bytes() - before, kwm_treesum_bytes(LENGTH, chunks));
    for (int round = 0; round < 2; round++) {
      push_all(&sum, round, chunks);
      const float *const total = kwm_treesum_finish(&sum);
      for (int64_t k = 0; k < LENGTH; k++) {
        const float wanted = pairwise(round, chunks, k);
        assert_memory_equal(&total[k], &wanted, sizeof wanted);
      }
    }
    kwm_treesum_fini(&sum);
    assert_int_equal(kwm_mem_bytes(), before);
  }
}

/* The order matters at all: else the test above could not fail. */
static void test_order_shows(void **state) {
  (void)state;
  int differ = 0;
  for (int64_t k = 0; k < LENGTH; k++) {
    float running = 0;
    for (int64_t c = 0; c < CHUNKS_MAX; c++) running += contribution(c, k);
    differ += running != pairwise(0, CHUNKS_MAX, k);
  }
  assert_true(differ > LENGTH / 4);
}

/* Fewer pushes than announced, powers of two or not: the older, larger half first. */
static void test_fewer(void **state) {
  (void)state;
  struct kwm_treesum sum;
  assert_ok(kwm_treesum_init(&sum, NULL, LENGTH, 8));
  push_all(&sum, 0, 7);
  const float *const total = kwm_treesum_finish(&sum);
  for (int64_t k = 0; k < LENGTH; k++) {
    const float right = pairwise(4, 2, k) + contribution(6, k), wanted = pairwise(0, 4, k) + right;
    assert_memory_equal(&total[k], &wanted, sizeof wanted);
  }
  kwm_treesum_fini(&sum);
}

static void test_empty(void **state) {
  (void)state;
  struct kwm_treesum sum;
  assert_ok(kwm_treesum_init(&sum, NULL, 0, 4));
  for (int c = 0; c < 4; c++) {
    kwm_treesum_leaf(&sum);
    kwm_treesum_push(&sum);
  }
  assert_non_null(kwm_treesum_finish(&sum));
  kwm_treesum_fini(&sum);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_powers_of_two),
      cmocka_unit_test(test_order_shows),
      cmocka_unit_test(test_fewer),
      cmocka_unit_test(test_empty),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
