/* The grid of ranks, agreement on errors, and the count of communication time; for any number of ranks that is a power
   of two. Ranks assert only together. */
#include "grids.h"

static void assert_layout_refused(int64_t replicas, int64_t stages, int64_t owners, const char *words) {
  struct kwm_layout layout;
  const kwm_status status = kwm_layout_init(&layout, replicas, stages, owners);
  assert_all(status == KWM_ERR_USAGE);
  assert_all(strstr(kwm_error_message(), words) != NULL);
  kwm_layout_fini(&layout);
}

static void layout_refuses(void **state) {
  (void)state;
  char words[128];
  const int size = world_size();
  snprintf(words, sizeof words, "layout: replicas 1 x stages 3 x owners %d needs %d ranks, found %d", size, 3 * size,
           size);
  assert_layout_refused(1, 3, size, words);
  snprintf(words, sizeof words, "layout: replicas %d x stages 1 x owners 1 needs %d ranks, found %d", 2 * size,
           2 * size, size);
  assert_layout_refused(2 * size, 1, 1, words);
  assert_layout_refused(3, 1, 1, "layout: wanted replicas a power of two, found 3");
  assert_layout_refused(0, 1, 1, "layout: wanted replicas 1 to 1048576, found 0");
  assert_layout_refused(1, -2, 1, "layout: wanted stages 1 to 1048576, found -2");
  assert_layout_refused(1, 1, 0, "layout: wanted owners 1 to 1048576, found 0");
  assert_layout_refused(1, INT64_MAX, INT64_MAX, "layout: wanted stages 1 to 1048576, found 9223372036854775807");
}

static void check_places(struct kwm_layout *layout) {
  const int place = (layout->replica * layout->stages + layout->stage) * layout->owners + layout->owner;
  assert_all(layout->rank == world_rank() && layout->size == world_size() && layout->rank == place);
  assert_all(layout->stage >= 0 && layout->stage < layout->stages);
  assert_all(layout->owner >= 0 && layout->owner < layout->owners);
  int same = MPI_UNEQUAL, rank = -1, size = -1;
  MPI_Comm_compare(layout->world, MPI_COMM_WORLD, &same);
  assert_all(same == MPI_CONGRUENT);
  MPI_Comm_rank(layout->group, &rank);
  MPI_Comm_size(layout->group, &size);
  assert_all(rank == layout->stage * layout->owners + layout->owner && size == layout->stages * layout->owners);
  MPI_Comm_rank(layout->peers, &rank);
  MPI_Comm_size(layout->peers, &size);
  assert_all(rank == layout->replica && size == layout->replicas);
  int replica = layout->replica, column = layout->stage * layout->owners + layout->owner;
  MPI_Bcast(&replica, 1, MPI_INT, 0, layout->group);
  MPI_Bcast(&column, 1, MPI_INT, 0, layout->peers);
  assert_all(replica == layout->replica && column == layout->stage * layout->owners + layout->owner);
}

static void layouts_place_ranks(void **state) {
  (void)state;
  for_each_layout(check_places);
}

static void agrees_on_success(void **state) {
  (void)state;
  kwm_error_set("untouched");
  const kwm_status status = kwm_agree(MPI_COMM_WORLD, KWM_OK);
  assert_all(status == KWM_OK && strcmp(kwm_error_message(), "untouched") == 0);
}

static kwm_status fail_from(int lowest) {
  kwm_error_set("stale");
  if (world_rank() < lowest) return KWM_OK;
  return kwm_raise(world_rank() == lowest ? KWM_ERR_DATA : KWM_ERR_NUMERIC, "here.c", 1, "trouble %d", world_rank());
}

static void agrees_on_lowest_failure(void **state) {
  (void)state;
  for (int lowest = 0; lowest < world_size(); lowest++) {
    const kwm_status status = kwm_agree(MPI_COMM_WORLD, fail_from(lowest));
    char wanted[64];
    snprintf(wanted, sizeof wanted, "trouble %d [here.c:1] [rank %d]", lowest, lowest);
    assert_all(status == KWM_ERR_DATA);
    assert_all(strcmp(kwm_error_message(), wanted) == 0);
    const kwm_status outer = kwm_agree(MPI_COMM_WORLD, status);
    assert_all(outer == KWM_ERR_DATA);
    assert_all(strcmp(kwm_error_message(), wanted) == 0);
  }
}

static void agrees_on_one_rank_alone(void **state) {
  (void)state;
  const int last = world_size() - 1;
  const kwm_status mine = world_rank() == last ? kwm_raise(KWM_STOPPED, "here.c", 2, "stop") : KWM_OK;
  const kwm_status status = kwm_agree(MPI_COMM_WORLD, mine);
  char wanted[64];
  snprintf(wanted, sizeof wanted, "stop [here.c:2] [rank %d]", last);
  assert_all(status == KWM_STOPPED && strcmp(kwm_error_message(), wanted) == 0);
}

static void agreement_keeps_rank_of_long_message(void **state) {
  (void)state;
  char text[4000];
  memset(text, 'x', sizeof text - 1);
  text[sizeof text - 1] = '\0';
  kwm_error_set(text);
  const kwm_status status = kwm_agree(MPI_COMM_WORLD, KWM_ERR_SYSTEM);
  const char *tail = strrchr(kwm_error_message(), '[');
  assert_all(status == KWM_ERR_SYSTEM && tail != NULL && strcmp(tail, "[rank 0]") == 0);
}

static void check_any(struct kwm_layout *layout) {
  assert_all(!kwm_par_any(layout, false));
  for (int r = 0; r < layout->size; r++) {
    const bool any = kwm_par_any(layout, layout->rank == r);
    assert_all(any);
  }
}

static void any_is_everybodys(void **state) {
  (void)state;
  for_each_layout(check_any);
}

static void call_receive(struct kwm_layout *layout) {
  uint8_t sent = 1, got = 0;
  MPI_Request request = kwm_par_send(layout, group_rank(layout), 1, &sent, 1);
  kwm_par_receive(layout, group_rank(layout), 1, &got, 1);
  MPI_Wait(&request, MPI_STATUS_IGNORE);
}

static void call_wait(struct kwm_layout *layout) {
  kwm_par_wait(layout, 0, NULL);
}

static void call_any(struct kwm_layout *layout) {
  kwm_par_any(layout, false);
}

static void call_sum_group(struct kwm_layout *layout) {
  double value = 1;
  kwm_par_sum_group(layout, 1, &value);
}

static void call_sum_replicas(struct kwm_layout *layout) {
  double value = 1, scratch = 0;
  kwm_par_sum_replicas_f64(layout, 1, &value, &scratch);
}

static void call_max_world(struct kwm_layout *layout) {
  double value = 1;
  kwm_par_max_world(layout, 1, &value);
}

static void call_broadcast(struct kwm_layout *layout) {
  uint8_t byte = 1;
  kwm_par_broadcast_world(layout, &byte, 1);
}

/* Every blocking call adds to the communication time; many calls, because a clock may tick coarsely. */
static void counts_communication(void **state) {
  (void)state;
  enum { CALLS = 500 };
  void (*const calls[])(struct kwm_layout *) = {call_receive,      call_wait,      call_any,      call_sum_group,
                                                call_sum_replicas, call_max_world, call_broadcast};
  struct kwm_layout layout;
  const kwm_status status = kwm_layout_init(&layout, 1, 1, world_size());
  assert_all(status == KWM_OK);
  for (size_t c = 0; c < sizeof calls / sizeof *calls; c++) {
    const double before = layout.comm_seconds;
    for (int i = 0; i < CALLS; i++) calls[c](&layout);
    assert_all(layout.comm_seconds > before);
  }
  kwm_layout_fini(&layout);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(layout_refuses),           cmocka_unit_test(layouts_place_ranks),
    cmocka_unit_test(agrees_on_success),        cmocka_unit_test(agrees_on_lowest_failure),
    cmocka_unit_test(agrees_on_one_rank_alone), cmocka_unit_test(agreement_keeps_rank_of_long_message),
    cmocka_unit_test(any_is_everybodys),        cmocka_unit_test(counts_communication),
};

KWM_TEST_MAIN(tests)
