/* A sum over chunks has the same bits whether one rank adds all chunks or each replica its share and the replicas their
   sums. */
#include "grids.h"

#include "kwm/rng.h"
#include "kwm/treesum.h"

enum { LENGTH = 29, CHUNKS_MAX = 64 };

static void add_chunks(struct kwm_treesum *sum, int64_t first, int64_t n) {
  for (int64_t c = first; c < first + n; c++) {
    float *const leaf = kwm_treesum_leaf(sum);
    for (int64_t k = 0; k < LENGTH; k++)
      leaf[k] = (float)(kwm_rng_normal(1, KWM_RNG_TEST, (uint64_t)c, (uint64_t)k) *
                        exp(3 * kwm_rng_normal(2, KWM_RNG_TEST, (uint64_t)c, (uint64_t)k)));
    kwm_treesum_push(sum);
  }
}

static void same_bits(struct kwm_layout *layout) {
  for (int64_t chunks = layout->replicas; chunks <= CHUNKS_MAX; chunks *= 2) {
    struct kwm_treesum whole, share;
    const int64_t local = chunks / layout->replicas;
    float scratch[LENGTH];
    assert_all(kwm_treesum_init(&whole, NULL, LENGTH, chunks) == KWM_OK);
    assert_all(kwm_treesum_init(&share, NULL, LENGTH, local) == KWM_OK);
    add_chunks(&whole, 0, chunks);
    add_chunks(&share, local * layout->replica, local);
    const float *const wanted = kwm_treesum_finish(&whole);
    float *const found = kwm_treesum_finish(&share);
    kwm_par_sum_replicas(layout, LENGTH, found, scratch);
    assert_all(memcmp(wanted, found, LENGTH * sizeof *found) == 0);
    kwm_treesum_fini(&whole);
    kwm_treesum_fini(&share);
  }
}

static void test_replicas(void **state) {
  (void)state;
  for_each_layout(same_bits);
}

static const struct CMUnitTest tests[] = {cmocka_unit_test(test_replicas)};
KWM_TEST_MAIN(tests)
