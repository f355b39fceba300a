/* A step that can't be applied says where: the lowest rank that has a reason, and its group. */
#include "grids.h"
#include "kwm_test.h"

#include "kwm/filter.h"

struct trouble {
  bool failed; /* on this rank, in `part` */
  int part;
  double surprisal; /* of this rank's samples */
};

static struct kwm_step judged(struct kwm_layout *layout, struct trouble mine) {
  struct kwm_lin lin = {.innovation = {.samples = 1, .surprisal = mine.surprisal, .expected = 1}};
  struct kwm_step step = {.failed_part = mine.part};
  kwm_filter_judge(layout, &lin, 0, mine.failed, &step);
  return step;
}

static void in_order(struct kwm_layout *layout) {
  const struct kwm_step step = judged(layout, (struct trouble){.part = 5, .surprisal = 1});
  assert_all(step.verdict == KWM_STEP_DONE);
}

/* On every rank in turn and all behind it. */
static void indefinite(struct kwm_layout *layout) {
  for (int first = 0; first < layout->size; first++)
    for (int part = -1; part < KWM_LIN_PARTS; part += 4) {
      const bool failed = layout->rank >= first;
      const struct kwm_step step =
          judged(layout, (struct trouble){failed, part + layout->rank - first, .surprisal = 1});
      assert_all(step.verdict == KWM_STEP_INDEFINITE && step.failed_rank == first && step.failed_part == part);
    }
}

static void not_finite(struct kwm_layout *layout) {
  for (int first = 0; first < layout->size; first++) {
    const struct trouble mine = {.part = 2, .surprisal = layout->rank >= first ? NAN : 1};
    const struct kwm_step step = judged(layout, mine);
    assert_all(step.verdict == KWM_STEP_NOT_FINITE && step.failed_rank == first && step.failed_part == -1);
  }
}

static void test_in_order(void **state) {
  (void)state;
  for_each_layout(in_order);
}

static void test_indefinite(void **state) {
  (void)state;
  for_each_layout(indefinite);
}

static void test_not_finite(void **state) {
  (void)state;
  for_each_layout(not_finite);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_in_order),
    cmocka_unit_test(test_indefinite),
    cmocka_unit_test(test_not_finite),
};
KWM_TEST_MAIN(tests)
