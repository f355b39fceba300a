/* Links: every message arrives whole and in order, from device to device, through the host, and without a device,
   though its buffer is used again as soon as it is settled; also shorter ones and those of two parts; with more
   messages than slots, on a ring, where every rank sends before it receives, and to one rank that listens late. */
#include "grids.h"

#include "kwm/link.h"
#include "pipe_pair.h"

enum { FLOATS = 37, SLOTS = 3, MESSAGES = 11 };

struct way {
  kwm_device *device;
  bool direct;
};

static float value_of(int from, int message, int k) {
  return (float)(1000 * from + 50 * message + k);
}

static float *device_rows(kwm_device *device) {
  float *rows;
  assert_ok(kwm_device_alloc(device, (void **)&rows, FLOATS * sizeof *rows, "test"));
  return rows;
}

static int64_t length_of(int message) {
  return FLOATS - message % 3;
}

/* On a device two parts that lie the other way round. */
static int parts_of(const struct way *way, int message, float *rows, struct kwm_link_part parts[2]) {
  const int64_t length = length_of(message), first = message % 4 + 1;
  if (way->device == NULL) {
    parts[0] = (struct kwm_link_part){rows, length};
    return 1;
  }
  parts[0] = (struct kwm_link_part){rows + FLOATS - first, first};
  parts[1] = (struct kwm_link_part){rows, length - first};
  return 2;
}

/* Settles what was sent before, as it uses the same rows. */
static void send_one(kwm_links *links, const struct way *way, int k, int from, int message, float *rows) {
  float values[FLOATS];
  struct kwm_link_part parts[2];
  for (int i = 0; i < FLOATS; i++) values[i] = value_of(from, message, i);
  kwm_links_settle(links);
  kwm_device_put(way->device, rows, values, sizeof values);
  kwm_link_send(links, k, parts_of(way, message, rows, parts), parts);
}

static bool arrives(kwm_links *links, const struct way *way, int k, int from, int message, float *rows) {
  float values[FLOATS];
  struct kwm_link_part parts[2];
  const int n = parts_of(way, message, rows, parts);
  bool same = true;
  kwm_link_receive(links, k, n, parts);
  kwm_device_get(way->device, values, rows, sizeof values);
  for (int p = 0; p < n; p++)
    for (int64_t i = parts[p].at - rows; i < parts[p].at - rows + parts[p].floats; i++)
      same = same && values[i] == value_of(from, message, (int)i);
  return same;
}

static void check_ways(const kwm_links *links, const struct way *way) {
  int direct, all;
  kwm_links_count(links, &direct, &all);
  assert_all(way->direct && way->device != NULL ? direct == all : direct == 0);
}

/* Round the ring. */
static void ring(struct kwm_layout *layout, const struct way *way) {
  const int size = group_size(layout), rank = group_rank(layout), before = (rank + size - 1) % size;
  struct kwm_link_spec specs[8];
  kwm_links *links;
  bool same = true;
  for (int r = 0; r < size; r++) specs[r] = (struct kwm_link_spec){r, (r + 1) % size, SLOTS, FLOATS};
  assert_ok(kwm_links_open(&links, layout, way->device, way->direct, size, specs));
  check_ways(links, way);
  float *const sent = device_rows(way->device), *const got = device_rows(way->device);
  for (int m = 0; m < MESSAGES; m++) {
    send_one(links, way, rank, rank, m, sent);
    same = arrives(links, way, before, before, m, got) && same;
  }
  kwm_links_drain(links);
  assert_all(same);
  kwm_links_close(links);
  kwm_device_free(way->device, sent);
  kwm_device_free(way->device, got);
}

/* From all to the last, which receives when the others have filled all slots. */
static void gather(struct kwm_layout *layout, const struct way *way) {
  const int size = group_size(layout), rank = group_rank(layout), last = size - 1;
  struct kwm_link_spec specs[8];
  kwm_links *links;
  bool same = true;
  for (int r = 0; r < last; r++) specs[r] = (struct kwm_link_spec){r, last, MESSAGES, FLOATS};
  assert_ok(kwm_links_open(&links, layout, way->device, way->direct, last, specs));
  float *const rows = device_rows(way->device);
  for (int m = 0; m < MESSAGES && rank < last; m++) send_one(links, way, rank, rank, m, rows);
  kwm_links_drain(links);
  MPI_Barrier(layout->group);
  for (int m = 0; m < MESSAGES && rank == last; m++)
    for (int r = 0; r < last; r++) same = arrives(links, way, r, r, m, rows) && same;
  assert_all(same);
  kwm_device_wait(way->device);
  assert_all((kwm_links_waited(links).device > 0) == (rank == last));
  assert_all(kwm_links_waited(links).device == 0);
  kwm_links_close(links);
  kwm_device_free(way->device, rows);
}

static void all_ways(struct kwm_layout *layout) {
  const struct way ways[] = {{test_device, true}, {test_device, false}, {NULL, true}};
  for (size_t k = 0; k < sizeof ways / sizeof ways[0] && group_size(layout) > 1; k++) {
    ring(layout, &ways[k]);
    gather(layout, &ways[k]);
  }
}

static void test_links(void **state) {
  (void)state;
  for_each_layout(all_ways);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_links),
};
PIPE_TEST_MAIN(tests)
