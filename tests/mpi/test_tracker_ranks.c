/* Blocks of parameters spread over ranks: the same filter as on one rank, which every rank also runs. */
#include "grids.h"

#include "../block_case.h"

enum { STEPS = 40 };

static void check(enum kwm_tracker_method method, enum kwm_readout readout) {
  struct block_case it;
  struct kwm_tracker spread, alone;
  struct kwm_layout layout;
  const kwm_status status = kwm_layout_init(&layout, 1, 1, world_size());
  assert_all(status == KWM_OK);
  block_case_begin(&it, readout);
  const int n = it.model.n, N = n + BLOCK_D;
  struct kwm_tracker_spec spec = {.space = &it.space,
                                  .method = method,
                                  .rank = 2,
                                  .iterations = 1,
                                  .walk = 1e-4,
                                  .adapt = 0.01,
                                  .n_blocks = it.n_blocks,
                                  .blocks = it.sizes};
  block_case_tracker(&it, &spec, &alone);
  spec.layout = &layout;
  block_case_tracker(&it, &spec, &spread);
  const struct kwm_tracker_roots mine = kwm_tracker_roots(&spread), all = kwm_tracker_roots(&alone);
  assert_all(mine.all == all.count && (world_size() == 1 || mine.count < all.count));
  double *const variances = dense_new(n), *const wanted = dense_new(n);
  for (int t = 0; t < STEPS; t++) {
    double y[BLOCK_M];
    block_case_outputs(t, y);
    assert_all(kwm_tracker_predict(&alone, NULL) && kwm_tracker_predict(&spread, NULL));
    const struct kwm_track a = kwm_tracker_update(&alone, y), b = kwm_tracker_update(&spread, y);
    assert_all(a.verdict == b.verdict && fabs(a.nis - b.nis) <= 1e-9 * (1 + a.nis));
    kwm_tracker_variances(&alone, wanted);
    kwm_tracker_variances(&spread, variances);
    assert_all(dense_error(N, spread.z, alone.z) < 1e-10);
    assert_all(dense_error(n, variances, wanted) < 1e-10);
    assert_all(dense_error(BLOCK_D, spread.q, alone.q) < 1e-10);
    assert_all(dense_error(mine.count, mine.values, all.values + mine.first) < 1e-8);
  }
  kwm_tracker_destroy(&spread);
  kwm_tracker_destroy(&alone);
  kwm_statespace_fini(&it.model);
  kwm_layout_fini(&layout);
  free(variances), free(wanted);
}

static void test_same_filter(void **state) {
  (void)state;
  check(KWM_TRACKER_BLOCK, KWM_READOUT_IDENTITY);
  check(KWM_TRACKER_BLOCK, KWM_READOUT_LINEAR);
  check(KWM_TRACKER_LOWRANK, KWM_READOUT_IDENTITY);
}

static const struct CMUnitTest tests[] = {cmocka_unit_test(test_same_filter)};
KWM_TEST_MAIN(tests)
