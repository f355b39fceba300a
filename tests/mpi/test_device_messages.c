/* What a step of the gated model over several ranks asks of hosts: nobody waits for its device before all of a
   linearisation is asked for, a chunk's rows are one message each way between two ranks, and the filter's step waits as
   often as on one rank. Waits are counted where the device's table is entered, messages where MPI is. */
#include "grids.h"

#include "kwm/lane.h"
#include "pipe_pair.h"

enum { WIDTH = 64, BATCH = 24, CHUNKS = 4, STEPS = 3 };

/* gets and waits: of the device's work; asked: whether a copy to pinned memory is done. */
static struct { int64_t gets, waits, asked, sends; } count;
static const struct kwm_device_ops *under;

int MPI_Isend(const void *data, int n, MPI_Datatype type, int to, int tag, MPI_Comm comm, MPI_Request *request) {
  count.sends++;
  return PMPI_Isend(data, n, type, to, tag, comm, request);
}

static void count_get(kwm_device *d, void *to_host, const void *from, size_t bytes) {
  count.gets++;
  under->get(d, to_host, from, bytes);
}

static void count_wait(kwm_device *d) {
  count.waits++;
  under->wait(d);
}

static bool count_passed(kwm_device *d, kwm_mark *mark) {
  count.asked++;
  return under->lane->passed(d, mark);
}

static void begin_counting(void) {
  static struct kwm_device_ops counting;
  static struct kwm_lane_ops lane;
  if (under != NULL) return;
  under = test_device->ops;
  counting = *under, lane = *under->lane;
  counting.get = count_get, counting.wait = count_wait, lane.passed = count_passed;
  counting.lane = &lane;
  test_device->ops = &counting;
}

/* Messages of a chunk that this rank sends, and as many that it gets. */
static int64_t chunk_messages(const struct kwm_stages *stages, int me) {
  const int hidden = stages->owner[KWM_GROUP_HIDDEN], output = stages->owner[KWM_GROUP_OUTPUT];
  int64_t n = hidden != output && (hidden == me || output == me);
  for (int q = 0; q < stages->ranks; q++)
    n += q != hidden && stages->share[KWM_GROUP_RECURRENCE][q].count > 0 && (q == me || hidden == me);
  return n;
}

/* From device to device a message is a word, and one that it was taken. */
static void check_linearisation(const struct small *small, bool direct) {
  const int me = group_rank(&small->layout);
  const int64_t messages = CHUNKS / small->layout.replicas * chunk_messages(&small->stages, me);
  assert_all(count.gets == 0 && count.waits == 0);
  assert_all(count.asked == 0 || !direct);
  assert_all(count.sends == (direct ? 2 : 1) * messages);
}

/* Each group's gain, and what the output saw. */
static void check_step(const struct small *small) {
  const bool sees = small->stages.owner[KWM_GROUP_OUTPUT] == group_rank(&small->layout);
  int64_t groups = 0;
  for (int g = 0; g < SMALL_GROUPS; g++) groups += small->params.share[g].count > 0;
  assert_all(count.waits == groups + sees);
  assert_all(count.gets == (small->layout.replicas > 1)); /* evidence, where devices do not talk */
}

static void take_step(struct small *small, kwm_learner *learner, int64_t t, bool direct) {
  const struct kwm_batch batch = {
      .images = &small->data->images, .order = small->order + t, .n = BATCH, .step = (uint64_t)t};
  struct kwm_lin lin;
  struct kwm_step step;
  kwm_learner_predict(learner);
  const struct kwm_means means = kwm_learner_means(learner);
  memset(&count, 0, sizeof count);
  kwm_pipe_linearise(small->pipe, &means, &batch, &lin);
  check_linearisation(small, direct);
  memset(&count, 0, sizeof count);
  kwm_learner_step(learner, &lin, &step);
  check_step(small);
  assert_all(step.verdict == KWM_STEP_DONE);
}

static void check(struct kwm_layout *layout, bool direct) {
  const struct kwm_cov_choice units = {.structure = "block", .prior = 1};
  const struct kwm_cov_choice matrix = {.structure = "kron", .real = KWM_REAL_FLOAT, .prior = 5, .refresh = 100};
  const struct kwm_learn_spec spec = {.filter = {.gain_factor = 0.7, .forgetting = 1, .batch = BATCH, .chunks = CHUNKS},
                                      .rows = SMALL_CLASSES,
                                      .cov = {units, matrix, matrix},
                                      .device = test_device};
  const struct kwm_pipe_spec pipe = {
      .batch = BATCH, .chunks = CHUNKS, .evidence = KWM_EVIDENCE_EXACT, .device = test_device, .direct = direct};
  struct small small;
  kwm_learner learner;
  small_init(&small, layout, WIDTH, BATCH, CHUNKS);
  small_pipe(&small, &pipe);
  assert_ok(kwm_learner_create(&learner, &kwm_learn_kalman, &small.layout, &small.params, &spec));
  const char *const ways = kwm_pipe_ways(small.pipe);
  const bool went_direct = strcmp(ways, "messages from device to device") == 0;
  if (strcmp(kwm_device_name(test_device), "shadow") == 0) assert_all(*ways == '\0' || went_direct == direct);
  for (int64_t t = 0; t < STEPS; t++) take_step(&small, &learner, t, went_direct);
  kwm_learner_destroy(&learner);
  small_fini(&small);
}

static void on_grid(struct kwm_layout *layout) {
  if (layout->stages > 2) return; /* two blocks of read-out at most */
  begin_counting();
  for (int direct = 0; direct < 2; direct++) check(layout, direct);
}

static void test_counts(void **state) {
  (void)state;
  for_each_layout(on_grid);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_counts),
};
PIPE_TEST_MAIN(tests)
