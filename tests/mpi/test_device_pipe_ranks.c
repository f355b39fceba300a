/* The pipe on devices against the pipe on the host over the same grid of ranks: what passes between ranks is the same.
   The grids are those of owners and stages of two, as far as the ranks go; messages from device to device and through
   the host. */
#include "grids.h"

#include "pipe_pair.h"

static const char *what_differs(const char *differs) {
  if (differs != NULL) printf("differ: %s\n", differs);
  return differs;
}

static void gated(struct kwm_layout *layout) {
  if (layout->stages > 2) return;
  for (int direct = 0; direct < 2; direct++) {
    const char *differs = NULL;
    pair_direct = direct;
    const bool same = pair_gated(layout, 64, 24, 4, 0, &differs);
    assert_all(same && what_differs(differs) == NULL);
  }
}

static void dense(struct kwm_layout *layout) {
  for (int k = 0; k < 8; k++) {
    const struct net_shape shape = {.n_layers = 3,
                                    .widths = {8, 6, 5},
                                    .readouts = k / 4 % 2,
                                    .evidence = k / 2 % 2 == 1 ? KWM_EVIDENCE_SAMPLED : KWM_EVIDENCE_EXACT,
                                    .batch = 24,
                                    .chunks = 4};
    const char *differs = NULL;
    pair_direct = k % 3 > 0;
    const bool same = pair_dense(layout, &shape, k % 2, &differs);
    assert_all(same && what_differs(differs) == NULL);
  }
}

static void test_gated(void **state) {
  (void)state;
  for_each_layout(gated);
}

static void test_dense(void **state) {
  (void)state;
  for_each_layout(dense);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_gated),
    cmocka_unit_test(test_dense),
};
PIPE_TEST_MAIN(tests)
