/* Sums in rooms of the replicas' devices: the bits of the tree on the host, sum after sum, of different lengths, also
   where a rank comes late; none where devices are shared or there is one replica. Ranks that do share one take turns
   there: slow, but as right, so they are told that they do not. */
#include "grids.h"

#include <unistd.h>

#include "kwm/rooms.h"
#include "pipe_pair.h"

enum { LONGEST = 5000, TURNS = 9 };

/* Of very different sizes, so that the order of a sum shows in its bits. */
static float term(const struct kwm_layout *layout, int replica, int turn, int64_t i) {
  const uint64_t place = (uint64_t)(64 * replica + group_rank(layout));
  const float size = (replica + turn + i) % 3 == 1 ? 1e5F : 1.0F;
  return size * (float)kwm_rng_normal(97, KWM_RNG_TEST, 100 * (uint64_t)turn + place, (uint64_t)i);
}

static float tree(const struct kwm_layout *layout, int first, int count, int turn, int64_t i) {
  if (count == 1) return term(layout, first, turn, i);
  return tree(layout, first, count / 2, turn, i) + tree(layout, first + count / 2, count / 2, turn, i);
}

static bool sum_is_right(struct kwm_layout *layout, kwm_device *device, struct kwm_sum *sum, int turn) {
  float mine[LONGEST], wanted[LONGEST], found[LONGEST];
  for (int64_t i = 0; i < sum->n; i++) {
    mine[i] = term(layout, layout->replica, turn, i);
    wanted[i] = tree(layout, 0, layout->replicas, turn, i);
  }
  kwm_device_put(device, sum->values, mine, (size_t)sum->n * sizeof *mine);
  if (turn % layout->size == layout->rank) usleep(2000);
  kwm_par_sum_replicas_device(layout, device, sum);
  kwm_device_get(device, found, sum->values, (size_t)sum->n * sizeof *found);
  return memcmp(found, wanted, (size_t)sum->n * sizeof *found) == 0;
}

static void check(struct kwm_layout *layout) {
  const int lengths[TURNS] = {LONGEST, 4, LONGEST, 64, 0, 4096, 12, LONGEST, 1000};
  struct kwm_sum sum = {.n = LONGEST};
  const int index = test_device->index;
  test_device->index = world_rank();
  assert_ok(kwm_rooms_open(&sum.rooms, layout, test_device, LONGEST));
  test_device->index = index;
  assert_all((sum.rooms != NULL) == (layout->replicas > 1));
  if (sum.rooms == NULL) return;
  assert_ok(kwm_device_alloc(test_device, (void **)&sum.values, LONGEST * sizeof(float), "values"));
  for (int turn = 0; turn < TURNS; turn++) {
    sum.n = lengths[turn];
    assert_all(sum.n == 0 || sum_is_right(layout, test_device, &sum, turn));
  }
  assert_all(layout->comm_seconds > 0);
  kwm_device_free(test_device, sum.values);
  kwm_rooms_close(sum.rooms);
}

static void test_sums(void **state) {
  (void)state;
  for_each_layout(check);
}

static void check_shared(struct kwm_layout *layout) {
  const int index = test_device->index;
  kwm_rooms *rooms;
  test_device->index = 0;
  assert_ok(kwm_rooms_open(&rooms, layout, test_device, LONGEST));
  assert_all(rooms == NULL);
  test_device->index = index;
}

static void test_one_device(void **state) {
  (void)state;
  for_each_layout(check_shared);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_sums),
    cmocka_unit_test(test_one_device),
};
PIPE_TEST_MAIN(tests)
