/* Sums, broadcasts and messages, short and longer than one MPI piece; for any number of ranks that is a power of two.
   Ranks assert only together. */
#include "grids.h"

#include "kwm/rng.h"

/* More than one piece of 16 MiB, and an odd rest. */
enum { LONG_BYTES = (1 << 24) + 12345, LONG_F32 = (1 << 22) + 77, LONG_F64 = (1 << 21) + 33, SHORT = 1000 };

static void *memory_for(int64_t bytes) {
  void *memory = malloc((size_t)bytes);
  assert_all(memory != NULL);
  return memory;
}

/* The same bytes on every rank of comm. */
static bool same_bytes(MPI_Comm comm, const void *data, int bytes) {
  char *first = malloc((size_t)bytes);
  if (first == NULL) abort();
  memcpy(first, data, (size_t)bytes);
  MPI_Bcast(first, bytes, MPI_BYTE, 0, comm);
  const bool same = memcmp(first, data, (size_t)bytes) == 0;
  free(first);
  return same;
}

/* Term i of a replica, of very different sizes, so that the order of a sum shows in its bits. */
static double term(const struct kwm_layout *layout, int replica, int64_t i) {
  const uint64_t column = (uint64_t)group_rank(layout);
  return kwm_rng_normal(99, KWM_RNG_TEST, (uint64_t)replica * 1000 + column, (uint64_t)i) *
         ((replica + (int)(i % 7)) % 3 == 0 ? 1e5 : 1.0);
}

/* The tree written as a recursion: the sum of replicas [first, first + count). */
static float tree_f32(const struct kwm_layout *layout, int first, int count, int64_t i) {
  if (count == 1) return (float)term(layout, first, i);
  return tree_f32(layout, first, count / 2, i) + tree_f32(layout, first + count / 2, count / 2, i);
}

static double tree_f64(const struct kwm_layout *layout, int first, int count, int64_t i) {
  if (count == 1) return term(layout, first, i);
  return tree_f64(layout, first, count / 2, i) + tree_f64(layout, first + count / 2, count / 2, i);
}

/* Terms repeat every SHORT elements, so that long sums cost little to check. */
static void check_sum_f32(struct kwm_layout *layout, int64_t n) {
  float *values = memory_for(n * 4), *scratch = memory_for(n * 4), wanted[SHORT];
  for (int i = 0; i < SHORT; i++) wanted[i] = (float)term(layout, layout->replica, i);
  for (int64_t i = 0; i < n; i++) values[i] = wanted[i % SHORT];
  for (int i = 0; i < SHORT; i++) wanted[i] = tree_f32(layout, 0, layout->replicas, i);
  kwm_par_sum_replicas(layout, n, values, scratch);
  bool same = true;
  for (int64_t i = 0; i < n; i++) same = same && memcmp(&values[i], &wanted[i % SHORT], sizeof *values) == 0;
  assert_all(same);
  free(values), free(scratch);
}

static void check_sum_f64(struct kwm_layout *layout, int64_t n) {
  double *values = memory_for(n * 8), *scratch = memory_for(n * 8), wanted[SHORT];
  for (int i = 0; i < SHORT; i++) wanted[i] = term(layout, layout->replica, i);
  for (int64_t i = 0; i < n; i++) values[i] = wanted[i % SHORT];
  for (int i = 0; i < SHORT; i++) wanted[i] = tree_f64(layout, 0, layout->replicas, i);
  kwm_par_sum_replicas_f64(layout, n, values, scratch);
  bool same = true;
  for (int64_t i = 0; i < n; i++) same = same && memcmp(&values[i], &wanted[i % SHORT], sizeof *values) == 0;
  assert_all(same);
  free(values), free(scratch);
}

static void check_short_replica_sums(struct kwm_layout *layout) {
  check_sum_f32(layout, SHORT);
  check_sum_f64(layout, SHORT);
  check_sum_f32(layout, 1);
  check_sum_f64(layout, 1);
  kwm_par_sum_replicas(layout, 0, NULL, NULL);
  kwm_par_sum_replicas_f64(layout, 0, NULL, NULL);
}

static void replica_sums_are_a_tree(void **state) {
  (void)state;
  for_each_layout(check_short_replica_sums);
}

/* The test above is worth something only if another order gives other bits. */
static void order_of_summands_shows(void **state) {
  (void)state;
  const struct kwm_layout layout = {.owners = 1};
  int different = 0;
  for (int64_t i = 0; i < SHORT; i++) {
    float line = (float)term(&layout, 0, i);
    for (int r = 1; r < 4; r++) line += (float)term(&layout, r, i);
    different += line != tree_f32(&layout, 0, 4, i);
  }
  assert_all(different > SHORT / 10);
}

static void long_replica_sums(void **state) {
  (void)state;
  struct kwm_layout layout;
  const kwm_status status = kwm_layout_init(&layout, world_size(), 1, 1);
  assert_all(status == KWM_OK);
  check_sum_f32(&layout, LONG_F32);
  check_sum_f64(&layout, LONG_F64);
  kwm_layout_fini(&layout);
}

/* Element i lives on one rank of the group only: the sum is exact. */
static void check_disjoint_sums(struct kwm_layout *layout, int64_t n_f32, int64_t n_f64) {
  float *a = memory_for(n_f32 * 4);
  double *b = memory_for(n_f64 * 8);
  const int rank = group_rank(layout), size = group_size(layout);
  for (int64_t i = 0; i < n_f32; i++) a[i] = i % size == rank ? (float)i / 3.0F : 0;
  for (int64_t i = 0; i < n_f64; i++) b[i] = i % size == rank ? (double)i / 3.0 + layout->replica : 0;
  kwm_par_sum_group_f32(layout, n_f32, a);
  kwm_par_sum_group(layout, n_f64, b);
  bool same = true;
  for (int64_t i = 0; i < n_f32; i++) same = same && !(a[i] < (float)i / 3.0F) && !(a[i] > (float)i / 3.0F);
  for (int64_t i = 0; i < n_f64; i++) {
    const double wanted = (double)i / 3.0 + layout->replica;
    same = same && !(b[i] < wanted) && !(b[i] > wanted);
  }
  assert_all(same);
  free(a), free(b);
}

static void check_group_sums(struct kwm_layout *layout) {
  check_disjoint_sums(layout, SHORT, SHORT);
  double values[SHORT];
  float values_f32[SHORT];
  for (int i = 0; i < SHORT; i++) {
    values[i] = kwm_rng_normal(7, KWM_RNG_TEST, (uint64_t)layout->rank, (uint64_t)i);
    values_f32[i] = (float)values[i];
  }
  kwm_par_sum_group(layout, SHORT, values);
  kwm_par_sum_group_f32(layout, SHORT, values_f32);
  assert_all(same_bytes(layout->group, values, sizeof values));
  assert_all(same_bytes(layout->group, values_f32, sizeof values_f32));
  bool close = true;
  for (int i = 0; i < SHORT; i++) {
    double wanted = 0;
    for (int r = 0; r < group_size(layout); r++)
      wanted += kwm_rng_normal(7, KWM_RNG_TEST, (uint64_t)(layout->replica * group_size(layout) + r), (uint64_t)i);
    close = close && close_to(values[i], wanted, 0, 1e-13) && close_to((double)values_f32[i], wanted, 0, 1e-5);
  }
  assert_all(close);
}

static void group_sums(void **state) {
  (void)state;
  for_each_layout(check_group_sums);
}

static void long_group_sums(void **state) {
  (void)state;
  struct kwm_layout layout;
  const kwm_status status = kwm_layout_init(&layout, 1, world_size(), 1);
  assert_all(status == KWM_OK);
  check_disjoint_sums(&layout, LONG_F32, LONG_F64);
  kwm_layout_fini(&layout);
}

static void check_world_statistics(struct kwm_layout *layout) {
  double sums[2] = {layout->rank, 0.1 * (layout->rank + 1)}, largest[3] = {layout->rank, -layout->rank - 5.0, 2.0};
  kwm_par_sum_world(layout, 2, sums);
  kwm_par_max_world(layout, 3, largest);
  const int size = layout->size;
  assert_all(close_to(sums[0], size * (size - 1) / 2.0, 0, 0));
  assert_all(close_to(sums[1], 0.1 * size * (size + 1) / 2.0, 1e-14, 0));
  assert_all(same_bytes(layout->world, sums, sizeof sums));
  assert_all(close_to(largest[0], size - 1, 0, 0) && close_to(largest[1], -5, 0, 0) && close_to(largest[2], 2, 0, 0));
}

static void world_statistics(void **state) {
  (void)state;
  for_each_layout(check_world_statistics);
}

static uint8_t mark(int source, int64_t i) {
  return (uint8_t)(i * 7 + (i >> 24) + 31 * source + 1);
}

static void fill(uint8_t *data, int64_t bytes, int source) {
  for (int64_t i = 0; i < bytes; i++) data[i] = mark(source, i);
}

static bool holds(const uint8_t *data, int64_t bytes, int source) {
  bool same = true;
  for (int64_t i = 0; i < bytes; i++) same = same && data[i] == mark(source, i);
  return same;
}

static void check_broadcasts(struct kwm_layout *layout) {
  uint8_t data[SHORT];
  for (int root = 0; root < group_size(layout); root++) {
    fill(data, SHORT, layout->rank);
    kwm_par_broadcast_group(layout, root, data, SHORT);
    assert_all(holds(data, SHORT, layout->replica * group_size(layout) + root));
  }
  fill(data, SHORT, layout->rank);
  kwm_par_broadcast_world(layout, data, SHORT);
  assert_all(holds(data, SHORT, 0));
  kwm_par_broadcast_world(layout, NULL, 0);
}

static void broadcasts(void **state) {
  (void)state;
  for_each_layout(check_broadcasts);
}

static void long_broadcast(void **state) {
  (void)state;
  struct kwm_layout layout;
  const kwm_status status = kwm_layout_init(&layout, 1, 1, world_size());
  assert_all(status == KWM_OK);
  uint8_t *data = memory_for(LONG_BYTES);
  const int root = layout.size - 1;
  fill(data, LONG_BYTES, layout.rank);
  kwm_par_broadcast_group(&layout, root, data, LONG_BYTES);
  assert_all(holds(data, LONG_BYTES, root));
  free(data);
  kwm_layout_fini(&layout);
}

/* Round the group (to itself if alone): in order within a tag, by tag whatever the order of receives. */
static void check_messages(struct kwm_layout *layout) {
  enum { MESSAGES = 3 };
  const int size = group_size(layout), rank = group_rank(layout);
  const int to = (rank + 1) % size, from = (rank + size - 1) % size;
  uint8_t sent[MESSAGES][SHORT], got[MESSAGES][SHORT];
  MPI_Request requests[MESSAGES + 1];
  const int tags[MESSAGES] = {4, 4, 5};
  for (int m = 0; m < MESSAGES; m++) {
    fill(sent[m], SHORT, 10 * layout->rank + m);
    requests[m] = kwm_par_send(layout, to, tags[m], sent[m], SHORT);
  }
  requests[MESSAGES] = kwm_par_send(layout, to, 6, NULL, 0);
  kwm_par_receive(layout, from, 6, NULL, 0);
  const int order[MESSAGES] = {2, 0, 1};
  for (int m = 0; m < MESSAGES; m++) kwm_par_receive(layout, from, tags[order[m]], got[order[m]], SHORT);
  kwm_par_wait(layout, MESSAGES + 1, requests);
  kwm_par_wait(layout, 0, NULL);
  const int source = layout->replica * size + from;
  for (int m = 0; m < MESSAGES; m++) assert_all(holds(got[m], SHORT, 10 * source + m));
}

static void messages(void **state) {
  (void)state;
  for_each_layout(check_messages);
}

static void long_messages(void **state) {
  (void)state;
  struct kwm_layout layout;
  const kwm_status status = kwm_layout_init(&layout, 1, world_size(), 1);
  assert_all(status == KWM_OK);
  const int to = (layout.rank + 1) % layout.size, from = (layout.rank + layout.size - 1) % layout.size;
  uint8_t *sent = memory_for(LONG_BYTES), *got = memory_for(LONG_BYTES + 1);
  fill(sent, LONG_BYTES, layout.rank);
  got[LONG_BYTES] = 201;
  MPI_Request request = kwm_par_send(&layout, to, 0, sent, LONG_BYTES);
  kwm_par_receive(&layout, from, 0, got, LONG_BYTES);
  kwm_par_wait(&layout, 1, &request);
  assert_all(request == MPI_REQUEST_NULL);
  assert_all(holds(got, LONG_BYTES, from) && got[LONG_BYTES] == 201);
  free(sent), free(got);
  kwm_layout_fini(&layout);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(replica_sums_are_a_tree),
    cmocka_unit_test(order_of_summands_shows),
    cmocka_unit_test(long_replica_sums),
    cmocka_unit_test(group_sums),
    cmocka_unit_test(long_group_sums),
    cmocka_unit_test(world_statistics),
    cmocka_unit_test(broadcasts),
    cmocka_unit_test(long_broadcast),
    cmocka_unit_test(messages),
    cmocka_unit_test(long_messages),
};

KWM_TEST_MAIN(tests)
