/* Sums of what lies on devices over owners, replicas and the ranks of a replica: the same bits as on the host, between
   devices that talk as through the host. */
#include "grids.h"

#include "device_case.h"

enum { TERMS = 1000 };

/* Term i of a rank of this stage, of very different sizes, so that the order of a sum shows in its bits. */
static float term(int replica, int owner, int64_t i) {
  const int place = 64 * replica + owner;
  return (float)kwm_rng_normal(98, KWM_RNG_TEST, (uint64_t)place, (uint64_t)i) * ((place + i) % 3 == 1 ? 1e5F : 1.0F);
}

/* The owners' tree, counted from the one who gets the sum, then that of the replicas. */
static float owners_tree(const struct kwm_layout *layout, int replica, int first, int count, int64_t i) {
  if (count == 1) return term(replica, first % layout->owners, i);
  int left = 1;
  while (2 * left < count) left *= 2;
  return owners_tree(layout, replica, first, left, i) + owners_tree(layout, replica, first + left, count - left, i);
}

static float replicas_tree(const struct kwm_layout *layout, int owner, int first, int count, int64_t i) {
  if (count == 1) return owners_tree(layout, first, owner, layout->owners, i);
  return replicas_tree(layout, owner, first, count / 2, i) +
         replicas_tree(layout, owner, first + count / 2, count / 2, i);
}

static bool are(const struct kwm_sum *sum, kwm_device *device, const float *wanted) {
  float found[TERMS];
  kwm_device_get(device, found, sum->values, sizeof found);
  return memcmp(found, wanted, sizeof found) == 0;
}

/* To every owner in turn, there over replicas, and from it to all. */
static void check_on(struct kwm_layout *layout, kwm_device *device) {
  float mine[TERMS], wanted[TERMS], staging[2 * TERMS];
  struct kwm_sum sum = {.n = TERMS, .staging = staging};
  assert_ok(kwm_device_alloc(device, (void **)&sum.values, sizeof mine, "values"));
  assert_ok(kwm_device_alloc(device, (void **)&sum.scratch, sizeof mine, "scratch"));
  for (int i = 0; i < TERMS; i++) mine[i] = term(layout->replica, layout->owner, i);
  for (int owner = 0; owner < layout->owners; owner++) {
    kwm_device_put(device, sum.values, mine, sizeof mine);
    kwm_device_put(device, sum.scratch, mine, sizeof mine);
    for (int i = 0; i < TERMS; i++) wanted[i] = owners_tree(layout, layout->replica, owner, layout->owners, i);
    kwm_par_sum_to_owner(layout, device, owner, &sum);
    assert_all(layout->owner != owner || are(&sum, device, wanted));
    for (int i = 0; i < TERMS; i++) wanted[i] = replicas_tree(layout, owner, 0, layout->replicas, i);
    if (layout->owner == owner) kwm_par_sum_replicas_device(layout, device, &sum);
    assert_all(layout->owner != owner || are(&sum, device, wanted));
    kwm_par_spread_from_owner(layout, device, owner, &sum);
    assert_all(are(&sum, device, wanted));
  }
  kwm_device_free(device, sum.values);
  kwm_device_free(device, sum.scratch);
}

/* The tree over a replica's ranks, from the first. */
static double group_tree(const struct kwm_layout *layout, int first, int count, int64_t i) {
  if (count == 1) return 1e-9 * (double)term(layout->replica, first, i) + (double)term(layout->replica, first, i + 1);
  int left = 1;
  while (2 * left < count) left *= 2;
  return group_tree(layout, first, left, i) + group_tree(layout, first + left, count - left, i);
}

static void check_group(struct kwm_layout *layout, kwm_device *device) {
  double wanted[TERMS], mine[TERMS], found[TERMS], staging[2 * TERMS];
  struct kwm_sum_f64 sum = {.n = TERMS, .staging = staging};
  assert_ok(kwm_device_alloc(device, (void **)&sum.values, sizeof mine, "values"));
  assert_ok(kwm_device_alloc(device, (void **)&sum.scratch, sizeof mine, "scratch"));
  for (int i = 0; i < TERMS; i++) {
    mine[i] = group_tree(layout, group_rank(layout), 1, i);
    wanted[i] = group_tree(layout, 0, group_size(layout), i);
  }
  kwm_device_put(device, sum.values, mine, sizeof mine);
  kwm_device_put(device, sum.scratch, mine, sizeof mine);
  kwm_par_sum_group_device(layout, device, &sum);
  kwm_device_get(device, found, sum.values, sizeof found);
  assert_all(memcmp(found, wanted, sizeof found) == 0);
  kwm_device_free(device, sum.values);
  kwm_device_free(device, sum.scratch);
}

/* Shadow devices that talk, by MPI, as those of GPUs do by NCCL; `group` is that of the last join. */
static MPI_Comm group = MPI_COMM_NULL;

static bool identify(kwm_device *d, unsigned char identity[KWM_DEVICE_IDENTITY]) {
  (void)d;
  memset(identity, 0, KWM_DEVICE_IDENTITY);
  memcpy(identity, &(int){world_rank()}, sizeof(int));
  return true;
}

static bool join(kwm_device *d, const unsigned char identity[KWM_DEVICE_IDENTITY], int rank, int size) {
  int first, joined;
  (void)d;
  memcpy(&first, identity, sizeof first);
  if (group != MPI_COMM_NULL) MPI_Comm_free(&group);
  MPI_Comm_split(MPI_COMM_WORLD, first, rank, &group);
  MPI_Comm_size(group, &joined);
  return joined == size;
}

static void exchange(kwm_device *d, int peer, const struct kwm_device_message *message) {
  const size_t bytes = (size_t)message->n * sizeof(float);
  float *const out = malloc(bytes), *const in = malloc(bytes);
  if (out == NULL || in == NULL) abort();
  kwm_device_get(d, out, message->send, bytes);
  MPI_Sendrecv(out, (int)bytes, MPI_BYTE, peer, 0, in, (int)bytes, MPI_BYTE, peer, 0, group, MPI_STATUS_IGNORE);
  kwm_device_put(d, message->receive, in, bytes);
  free(out), free(in);
}

static void let_talk(kwm_device *device) {
  static struct kwm_device_ops talking;
  if (device->ops->exchange != NULL) return;
  talking = *device->ops;
  talking.identity = identify, talking.join = join, talking.exchange = exchange;
  device->ops = &talking;
  device->index = world_rank();
}

static void check(struct kwm_layout *layout) {
  check_on(layout, NULL);
  check_on(layout, test_device);
  check_group(layout, test_device);
  let_talk(test_device);
  for (int all = 0; all < 2; all++) {
    layout->devices_talk = layout->owners_talk = false;
    assert_ok(kwm_par_join_devices(layout, test_device, all));
    if (strcmp(kwm_device_name(test_device), "shadow") == 0) {
      assert_all(layout->owners_talk == (all && group_size(layout) > 1));
      assert_all(layout->devices_talk == (layout->replicas > 1));
    }
    check_on(layout, test_device);
    check_group(layout, test_device);
  }
  double ones[2] = {1, layout->stage};
  kwm_par_sum_mates_f64(layout, 2, ones);
  assert_all(ones[0] == layout->owners && ones[1] == layout->owners * layout->stage);
}

static void test_grids(void **state) {
  (void)state;
  for_each_layout(check);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_grids),
};

/* A device each as far as there are some. */
int main(int argc, char **argv) {
  const char *const name = getenv("KWM_TEST_BACKEND") != NULL ? getenv("KWM_TEST_BACKEND") : "shadow";
  MPI_Init(&argc, &argv);
  const struct kwm_device_spec spec = {.local_rank = kwm_par_local_rank(), .graphs = true};
  const int missing = kwm_device_open(&test_device, name, &spec) != KWM_OK;
  int all = 0;
  if (world_rank() != 0 && freopen("/dev/null", "w", stdout) == NULL) return 1;
  MPI_Allreduce(&missing, &all, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD);
  if (missing) printf("skipped: %s\n", kwm_error_message());
  const int mine = all ? CASE_SKIPPED : cmocka_run_group_tests(tests, NULL, NULL);
  MPI_Allreduce(&mine, &all, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD);
  kwm_device_close(test_device);
  MPI_Finalize();
  return all;
}
