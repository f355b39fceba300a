/* Streams of tasks over small data sets whose pixels tell which sample, which pixel and which set they come from. */
#include "idx_files.h"

#include <sys/stat.h>

#include "kwm/rng.h"
#include "kwm/stream.h"

enum { SIDE = 5, PIXELS = SIDE * SIDE, TRAIN = 60, TEST = 20, TEST_FIRST = 80, TRAIN_B = 50, SETS = 5, CODES = 113 };

static const char *const set_names[SETS] = {"a", "b", "even", "wide", "poor"};
static const char *const file_names[4] = {"train-images-idx3-ubyte", "train-labels-idx1-ubyte",
                                          "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"};

/* Sample i, pixel j; the lowest bit is the set's. Different for all i (or all j) below CODES. */
static uint8_t value(int64_t i, int64_t j, int set) {
  return (uint8_t)(2 * ((7 * i + 11 * j) % CODES) + set % 2);
}

static int class_of(int64_t i) {
  return (int)(3 * i % 10);
}

/* The sample whose pixel j has this value. */
static int64_t sample_of(uint8_t found, int64_t j) {
  for (int64_t i = 0; i < CODES; i++)
    if (value(i, j, found % 2) == found) return i;
  return -1;
}

static void write_pair(int set, bool test, int n, int rows, int columns, int classes) {
  struct bytes images = {0}, labels = {0};
  char name[64];
  const int first = test ? TEST_FIRST : 0;
  put_word(&images, 0x803);
  put_word(&images, (uint32_t)n);
  put_word(&images, (uint32_t)rows);
  put_word(&images, (uint32_t)columns);
  put_word(&labels, 0x801);
  put_word(&labels, (uint32_t)n);
  for (int i = 0; i < n; i++) {
    for (int j = 0; j < rows * columns; j++) images.at[images.count++] = value(first + i, j, set);
    labels.at[labels.count++] = (uint8_t)(class_of(first + i) % classes);
  }
  snprintf(name, sizeof name, "%s/%s", set_names[set], file_names[test ? 2 : 0]);
  write_file(name, "", &images);
  snprintf(name, sizeof name, "%s/%s", set_names[set], file_names[test ? 3 : 1]);
  write_file(name, "", &labels);
}

static int make_sets(void **state) {
  if (make_folder(state) != 0) return 1;
  for (int k = 0; k < SETS; k++)
    if (mkdir(path_of(set_names[k], ""), 0700) != 0) return 1;
  write_pair(0, false, TRAIN, SIDE, SIDE, 10);
  write_pair(0, true, TEST, SIDE, SIDE, 10);
  write_pair(1, false, TRAIN_B, SIDE, SIDE, 10);
  write_pair(1, true, TEST + 2, SIDE, SIDE, 10);
  write_pair(2, false, TRAIN, 4, 4, 10);
  write_pair(2, true, TEST, 4, 4, 10);
  write_pair(3, false, TRAIN, 3, 2, 10);
  write_pair(3, true, TEST, 3, 2, 10);
  write_pair(4, false, TRAIN, SIDE, SIDE, 10);
  write_pair(4, true, TEST, SIDE, SIDE, 5);
  return 0;
}

static int remove_sets(void **state) {
  for (int k = 0; k < SETS; k++) {
    for (int i = 0; i < 4; i++) {
      char name[64];
      snprintf(name, sizeof name, "%s/%s", set_names[k], file_names[i]);
      (void)remove(path_of(name, ""));
    }
    (void)rmdir(path_of(set_names[k], ""));
  }
  return remove_folder(state);
}

static const char *set_path(const char *name) {
  static char path[1024];
  snprintf(path, sizeof path, "%s/%s", folder, name);
  return path;
}

static const char *two_sets(const char *separator) {
  static char paths[2048];
  snprintf(paths, sizeof paths, "%s/a%s%s/b", folder, separator, folder);
  return paths;
}

static struct kwm_stream_spec spec_of(enum kwm_stream_kind kind, int64_t tasks) {
  return (struct kwm_stream_spec){.kind = kind,
                                  .tasks = tasks,
                                  .passes = 2,
                                  .batch = 16,
                                  .seed = 7,
                                  .path = kind == KWM_STREAM_LIST ? NULL : set_path("a"),
                                  .paths = kind == KWM_STREAM_LIST ? two_sets(", ") : NULL};
}

static kwm_stream *made(const struct kwm_stream_spec *spec) {
  kwm_stream *stream = NULL;
  assert_ok(kwm_stream_create(&stream, spec));
  assert_non_null(stream);
  return stream;
}

/* ---- permuted, and what all kinds share */

/* order[j]: where pixel j of the task comes from, read off the first test sample. */
static void read_order(kwm_stream *stream, int64_t task, int order[PIXELS]) {
  struct kwm_images images;
  bool seen[PIXELS] = {false};
  kwm_stream_split(stream, task, KWM_TEST, &images);
  assert_int_equal(images.n, TEST);
  assert_int_equal(images.length, PIXELS);
  for (int j = 0; j < PIXELS; j++) {
    order[j] = -1;
    for (int from = 0; from < PIXELS; from++)
      if (value(TEST_FIRST, from, 0) == images.pixels[j]) order[j] = from;
    assert_in_range(order[j], 0, PIXELS - 1);
    assert_false(seen[order[j]]);
    seen[order[j]] = true;
  }
  for (int64_t i = 0; i < TEST; i++) {
    assert_int_equal(images.labels[i], class_of(TEST_FIRST + i));
    for (int j = 0; j < PIXELS; j++)
      assert_int_equal(images.pixels[i * PIXELS + j], value(TEST_FIRST + i, order[j], 0));
  }
}

static void permutes(void **state) {
  (void)state;
  struct kwm_stream_spec spec = spec_of(KWM_STREAM_PERMUTED, 4);
  kwm_stream *const stream = made(&spec);
  spec.seed = 8;
  kwm_stream *const other = made(&spec);
  int order[4][PIXELS], another[PIXELS];
  int32_t keyed[PIXELS];
  for (int t = 3; t >= 0; t--) read_order(stream, t, order[t]);
  for (int j = 0; j < PIXELS; j++) assert_int_equal(order[0][j], j);
  for (int t = 1; t < 4; t++) {
    kwm_rng_permutation(7, KWM_RNG_TASK, (uint64_t)t, PIXELS, keyed);
    for (int j = 0; j < PIXELS; j++) assert_int_equal(order[t][j], keyed[j]);
    assert_memory_not_equal(order[t], order[t - 1], sizeof order[t]);
    read_order(other, t, another);
    assert_memory_not_equal(order[t], another, sizeof another);
  }
  for (int64_t step = 0; step < kwm_stream_steps(stream, 4); step++) {
    struct kwm_images batch;
    kwm_stream_batch(stream, step, &batch);
    const int64_t t = kwm_stream_place(stream, step).task;
    for (int64_t i = 0; i < batch.n; i++) {
      const int64_t sample = sample_of(batch.pixels[i * PIXELS], order[t][0]);
      assert_int_equal(batch.labels[i], class_of(sample));
      for (int j = 0; j < PIXELS; j++) assert_int_equal(batch.pixels[i * PIXELS + j], value(sample, order[t][j], 0));
    }
  }
  kwm_stream_destroy(stream);
  kwm_stream_destroy(other);
}

/* Places follow one another without a gap, the last batch of a pass is short, a pass meets every sample once, and the
   first task's passes are ordinary epochs. */
static void goes_through_passes(void **state) {
  (void)state;
  const struct kwm_stream_spec spec = spec_of(KWM_STREAM_PERMUTED, 3);
  kwm_stream *const stream = made(&spec);
  assert_int_equal(kwm_stream_samples(stream, 2), TRAIN);
  assert_int_equal(kwm_stream_steps(stream, 0), 0);
  assert_int_equal(kwm_stream_steps(stream, 1), 2 * 4);
  assert_int_equal(kwm_stream_steps(stream, 3), 3 * 2 * 4);
  int32_t order[TRAIN];
  for (int64_t step = 0; step < 8; step++) {
    const struct kwm_stream_place place = kwm_stream_place(stream, step);
    struct kwm_images batch;
    assert_int_equal(place.task, 0);
    assert_int_equal(place.pass, step / 4);
    assert_int_equal(place.first, step % 4 * 16);
    assert_int_equal(place.n, step % 4 == 3 ? 12 : 16);
    kwm_stream_batch(stream, step, &batch);
    assert_int_equal(batch.n, place.n);
    assert_int_equal(batch.classes, 10);
    kwm_order(7, place.pass, TRAIN, order);
    for (int64_t i = 0; i < batch.n; i++)
      assert_int_equal(sample_of(batch.pixels[i * PIXELS], 0), order[place.first + i]);
  }
  assert_int_equal(kwm_stream_place(stream, 8).task, 1);
  assert_int_equal(kwm_stream_place(stream, 23).task, 2);
  assert_int_equal(kwm_stream_place(stream, 23).first, 48);
  kwm_stream_destroy(stream);
}

/* Which samples a pass of a task of a stream with one folder shows; the number of different ones. */
static int seen_in(kwm_stream *stream, int64_t task, int64_t pass, bool seen[CODES]) {
  int64_t total = 0;
  int different = 0;
  memset(seen, 0, CODES * sizeof seen[0]);
  for (int64_t step = kwm_stream_steps(stream, task); step < kwm_stream_steps(stream, task + 1); step++) {
    struct kwm_images batch;
    if (kwm_stream_place(stream, step).pass != pass) continue;
    kwm_stream_batch(stream, step, &batch);
    for (int64_t i = 0; i < batch.n; i++) seen[sample_of(batch.pixels[i * batch.length], 0)] = true;
    total += batch.n;
  }
  for (int i = 0; i < CODES; i++) different += seen[i];
  assert_int_equal(total, kwm_stream_samples(stream, task));
  return different;
}

/* Every pass of every task has an order of its own. */
static void orders_each_task_anew(void **state) {
  (void)state;
  struct kwm_stream_spec spec = spec_of(KWM_STREAM_LIST, 3);
  spec.paths = set_path("a");
  spec.batch = TRAIN;
  kwm_stream *const stream = made(&spec);
  int32_t order[TRAIN];
  for (int64_t step = 0; step < kwm_stream_steps(stream, 3); step++) {
    struct kwm_images batch;
    kwm_stream_batch(stream, step, &batch);
    kwm_order(7, (step / 2) << 32 | step % 2, TRAIN, order);
    for (int64_t i = 0; i < TRAIN; i++) assert_int_equal(sample_of(batch.pixels[i * PIXELS], 0), order[i]);
  }
  kwm_stream_destroy(stream);
}

static void draws_fewer_samples(void **state) {
  (void)state;
  struct kwm_stream_spec spec = spec_of(KWM_STREAM_LIST, 3);
  spec.paths = set_path("a");
  spec.samples = 24;
  kwm_stream *const stream = made(&spec);
  bool first[CODES], again[CODES], other[CODES];
  assert_int_equal(kwm_stream_steps(stream, 3), 3 * 2 * 2);
  assert_int_equal(seen_in(stream, 1, 0, first), 24);
  assert_int_equal(seen_in(stream, 1, 1, again), 24);
  assert_int_equal(seen_in(stream, 2, 0, other), 24);
  assert_memory_equal(first, again, sizeof first);
  assert_memory_not_equal(first, other, sizeof first);
  kwm_stream_destroy(stream);
}

/* As many samples as there are: the same as all; a batch beyond the task: one short step. */
static void takes_all_alike(void **state) {
  (void)state;
  struct kwm_stream_spec spec = spec_of(KWM_STREAM_PERMUTED, 2);
  spec.batch = 1000;
  kwm_stream *const all = made(&spec);
  spec.samples = TRAIN;
  kwm_stream *const counted = made(&spec);
  assert_int_equal(kwm_stream_steps(all, 2), 4);
  for (int64_t step = 0; step < 4; step++) {
    struct kwm_images a, b;
    kwm_stream_batch(all, step, &a);
    kwm_stream_batch(counted, step, &b);
    assert_int_equal(a.n, TRAIN);
    assert_memory_equal(a.pixels, b.pixels, TRAIN * PIXELS);
  }
  kwm_stream_destroy(all);
  kwm_stream_destroy(counted);
}

/* Every step again, in an order that jumps between tasks, with other reads between: the same bytes. */
static void assert_random_access(const struct kwm_stream_spec *spec) {
  kwm_stream *const stream = made(spec), *const jumping = made(spec);
  const int64_t steps = kwm_stream_steps(stream, spec->tasks);
  assert_int_not_equal(steps % 13, 0);
  for (int64_t step = 0; step < steps; step++) {
    struct kwm_images ahead, again;
    const int64_t far = step * 13 % steps;
    kwm_stream_batch(jumping, far, &ahead);
    kwm_stream *const fresh = made(spec);
    kwm_stream_batch(fresh, far, &again);
    assert_int_equal(ahead.n, again.n);
    assert_memory_equal(ahead.pixels, again.pixels, (size_t)(again.n * again.length));
    assert_memory_equal(ahead.labels, again.labels, (size_t)again.n);
    kwm_stream_destroy(fresh);
    kwm_stream_split(jumping, far % spec->tasks, KWM_TEST, &again);
    kwm_stream_batch(stream, step, &ahead);
    kwm_stream_batch(jumping, step, &again);
    assert_memory_equal(ahead.pixels, again.pixels, (size_t)(again.n * again.length));
  }
  kwm_stream_destroy(stream);
  kwm_stream_destroy(jumping);
}

static void makes_any_step(void **state) {
  (void)state;
  for (int kind = KWM_STREAM_PERMUTED; kind <= KWM_STREAM_LIST; kind++) {
    struct kwm_stream_spec spec = spec_of((enum kwm_stream_kind)kind, 5);
    spec.angle = 123.0;
    assert_random_access(&spec);
    spec.blend = 0.7;
    spec.samples = kind == KWM_STREAM_SPLIT ? 9 : 33;
    spec.batch = 10;
    assert_random_access(&spec);
  }
}

/* ---- rotated */

static void assert_turned(const char *set, int side, double angle, int quarters) {
  struct kwm_stream_spec spec = spec_of(KWM_STREAM_ROTATED, 3);
  spec.path = set_path(set);
  spec.angle = 2.0 * angle;
  kwm_stream *const stream = made(&spec);
  struct kwm_images images;
  for (int t = 0; t < 2; t++) {
    kwm_stream_split(stream, t, KWM_TEST, &images);
    assert_int_equal(images.length, side * side);
    for (int64_t i = 0; i < TEST; i++) {
      assert_int_equal(images.labels[i], class_of(TEST_FIRST + i));
      for (int r = 0; r < side; r++)
        for (int c = 0; c < side; c++) {
          int row = r, column = c;
          for (int k = 0; k < t * quarters; k++) {
            const int old = row;
            row = column;
            column = side - 1 - old;
          }
          assert_int_equal(images.pixels[(i * side + r) * side + c], value(TEST_FIRST + i, row * side + column, 0));
        }
    }
  }
  kwm_stream_destroy(stream);
}

static void turns_by_quarters(void **state) {
  (void)state;
  assert_turned("a", SIDE, 0.0, 0);
  assert_turned("a", SIDE, 90.0, 1);
  assert_turned("a", SIDE, 180.0, 2);
  assert_turned("a", SIDE, -90.0, 3);
  assert_turned("even", 4, 90.0, 1);
  assert_turned("even", 4, 180.0, 2);
  assert_turned("even", 4, 270.0, 3);
  assert_turned("even", 4, 360.0, 4);
}

static double pixel_or_zero(int64_t i, int row, int column) {
  const bool inside = row >= 0 && row < SIDE && column >= 0 && column < SIDE;
  return inside ? value(i, row * SIDE + column, 0) : 0.0;
}

/* Any angle: the bilinear mean in floating point, to rounding; half of it at the task in the middle. */
static void turns_between(void **state) {
  (void)state;
  struct kwm_stream_spec spec = spec_of(KWM_STREAM_ROTATED, 3);
  spec.angle = 74.0;
  kwm_stream *const stream = made(&spec);
  for (int t = 0; t < 3; t++) {
    struct kwm_images images;
    kwm_stream_split(stream, t, KWM_TEST, &images);
    const double turn = 37.0 * t * acos(-1.0) / 180.0;
    for (int r = 0; r < SIDE; r++)
      for (int c = 0; c < SIDE; c++) {
        const double x = c - 2, y = 2 - r;
        const double row = 2 - (y * cos(turn) - x * sin(turn)), column = 2 + x * cos(turn) + y * sin(turn);
        const int top = (int)floor(row), left = (int)floor(column);
        const double down = row - top, right = column - left;
        for (int i = 0; i < TEST; i++) {
          const int64_t s = TEST_FIRST + i;
          const double mean =
              (1 - down) * ((1 - right) * pixel_or_zero(s, top, left) + right * pixel_or_zero(s, top, left + 1)) +
              down * ((1 - right) * pixel_or_zero(s, top + 1, left) + right * pixel_or_zero(s, top + 1, left + 1));
          assert_close(images.pixels[(i * SIDE + r) * SIDE + c], mean, 0.0, 0.7);
        }
      }
  }
  kwm_stream_destroy(stream);
}

/* ---- split */

static void splits_classes(void **state) {
  (void)state;
  for (int relabel = 0; relabel < 2; relabel++)
    for (int64_t tasks = 1; tasks <= 5; tasks += 4) {
      struct kwm_stream_spec spec = spec_of(KWM_STREAM_SPLIT, tasks);
      spec.relabel = relabel;
      spec.validation = 20;
      kwm_stream *const stream = made(&spec);
      const int width = 10 / (int)tasks;
      assert_int_equal(kwm_stream_facts(stream).classes, relabel ? width : 10);
      assert_int_equal(kwm_stream_samples(stream, tasks - 1), 40 / tasks);
      for (int64_t t = 0; t < tasks; t++) {
        bool seen[CODES];
        assert_int_equal(seen_in(stream, t, 1, seen), 40 / tasks);
        for (int64_t i = 0; i < CODES; i++) assert_int_equal(seen[i], i < 40 && class_of(i) / width == t);
        for (int s = KWM_VALID; s <= KWM_TEST; s++) {
          struct kwm_images images;
          kwm_stream_split(stream, t, (enum kwm_split)s, &images);
          assert_int_equal(images.n, 20 / tasks);
          for (int64_t i = 0; i < images.n; i++) {
            const int64_t sample = sample_of(images.pixels[i * PIXELS], 0);
            assert_int_equal(class_of(sample) / width, t);
            assert_int_equal(images.labels[i], class_of(sample) - (relabel ? width * t : 0));
            assert_in_range(sample, s == KWM_TEST ? TEST_FIRST : 40, s == KWM_TEST ? TEST_FIRST + TEST - 1 : 59);
          }
        }
      }
      struct kwm_images batch;
      kwm_stream_batch(stream, kwm_stream_steps(stream, tasks) - 1, &batch);
      for (int64_t i = 0; i < batch.n; i++)
        assert_int_equal(batch.labels[i],
                         class_of(sample_of(batch.pixels[i * PIXELS], 0)) - (relabel ? width * (tasks - 1) : 0));
      kwm_stream_destroy(stream);
    }
}

/* ---- list and blend */

static void lists_folders(void **state) {
  (void)state;
  static const char *const ways[] = {",", " ", " , "};
  for (int w = 0; w < 3; w++) {
    struct kwm_stream_spec spec = spec_of(KWM_STREAM_LIST, 3);
    spec.paths = two_sets(ways[w]);
    kwm_stream *const stream = made(&spec);
    assert_int_equal(kwm_stream_samples(stream, 0), TRAIN);
    assert_int_equal(kwm_stream_samples(stream, 1), TRAIN_B);
    assert_int_equal(kwm_stream_samples(stream, 2), TRAIN);
    for (int64_t step = 0; step < kwm_stream_steps(stream, 3); step++) {
      struct kwm_images batch;
      kwm_stream_batch(stream, step, &batch);
      for (int64_t i = 0; i < batch.n * PIXELS; i++)
        assert_int_equal(batch.pixels[i] % 2, kwm_stream_place(stream, step).task % 2);
    }
    struct kwm_images images;
    kwm_stream_split(stream, 1, KWM_TEST, &images);
    assert_int_equal(images.n, TEST + 2);
    assert_int_equal(images.pixels[3], value(TEST_FIRST, 3, 1));
    kwm_stream_split(stream, 1, KWM_VALID, &images);
    assert_int_equal(images.n, 0);
    assert_int_equal(kwm_stream_files(stream), 8);
    for (int64_t i = 0; i < 8; i++) assert_string_equal(kwm_stream_file(stream, i)->name, file_names[i % 4]);
    assert_int_equal(kwm_stream_file(stream, 4)->bytes, 16 + TRAIN_B * PIXELS);
    assert_int_equal(kwm_stream_file(stream, 7)->bytes, 8 + TEST + 2);
    kwm_stream_destroy(stream);
  }
}

/* A list longer than the stream: the folders that it doesn't reach are not read. */
static void reads_folders_of_tasks_only(void **state) {
  (void)state;
  struct kwm_stream_spec spec = spec_of(KWM_STREAM_LIST, 1);
  char paths[2048];
  snprintf(paths, sizeof paths, " %s/b,nowhere", folder);
  spec.paths = paths;
  kwm_stream *const stream = made(&spec);
  assert_int_equal(kwm_stream_files(stream), 4);
  assert_int_equal(kwm_stream_samples(stream, 0), TRAIN_B);
  kwm_stream_destroy(stream);
}

/* Task 1 of three has the window's share at both its ends; each sample there is the own one of this place or the
   neighbour's, and how often is linear in the distance. */
static void blends(void **state) {
  (void)state;
  enum { PASSES = 200, BINS = 10 };
  struct kwm_stream_spec spec = spec_of(KWM_STREAM_LIST, 3);
  spec.passes = PASSES;
  kwm_stream *const abrupt = made(&spec);
  spec.blend = 0.5;
  kwm_stream *const blended = made(&spec);
  int64_t from_other[3][BINS] = {{0}}, total[3][BINS] = {{0}};
  for (int64_t step = 0; step < kwm_stream_steps(blended, 3); step++) {
    struct kwm_images batch, own;
    const struct kwm_stream_place place = kwm_stream_place(blended, step);
    const int64_t n = kwm_stream_samples(blended, place.task);
    kwm_stream_batch(blended, step, &batch);
    kwm_stream_batch(abrupt, step, &own);
    for (int64_t i = 0; i < batch.n; i++) {
      const uint8_t *const pixels = batch.pixels + i * PIXELS;
      const int bin = (int)((place.pass * n + place.first + i) * BINS / (PASSES * n));
      total[place.task][bin]++;
      if (pixels[0] % 2 != place.task % 2)
        from_other[place.task][bin]++;
      else
        assert_memory_equal(pixels, own.pixels + i * PIXELS, PIXELS);
      assert_int_equal(batch.labels[i], class_of(sample_of(pixels[0], 0)));
    }
  }
  /* tenths of a task; the window ends at a quarter, so that the third tenth is half in it */
  static const double expected[BINS] = {0.4, 0.2, 0.025, 0, 0, 0, 0, 0.025, 0.2, 0.4};
  for (int t = 0; t < 3; t++)
    for (int bin = 0; bin < BINS; bin++) {
      const bool outer = (t == 0 && bin < 5) || (t == 2 && bin >= 5);
      const double p = outer ? 0.0 : expected[bin], count = (double)total[t][bin];
      const double share = (double)from_other[t][bin] / count;
      assert_close(share, p, 0.0, 5.0 * sqrt(p / count));
    }
  kwm_stream_destroy(abrupt);
  kwm_stream_destroy(blended);
}

/* The neighbour's sample at (pass, place), its place counted round when it has fewer samples. */
static void blends_same_places(void **state) {
  (void)state;
  struct kwm_stream_spec spec = spec_of(KWM_STREAM_LIST, 2);
  spec.passes = 6;
  spec.batch = 1;
  kwm_stream *const abrupt = made(&spec);
  spec.blend = 1.0;
  kwm_stream *const blended = made(&spec);
  int64_t others = 0;
  for (int64_t step = 0; step < kwm_stream_steps(blended, 2); step++) {
    struct kwm_images batch, there;
    const struct kwm_stream_place place = kwm_stream_place(blended, step);
    const int64_t other = 1 - place.task, n = kwm_stream_samples(blended, other);
    kwm_stream_batch(blended, step, &batch);
    if (batch.pixels[0] % 2 == place.task) continue;
    kwm_stream_batch(abrupt, kwm_stream_steps(abrupt, other) + place.pass * n + place.first % n, &there);
    assert_memory_equal(batch.pixels, there.pixels, PIXELS);
    others++;
  }
  assert_true(others > 50);
  kwm_stream_destroy(abrupt);
  kwm_stream_destroy(blended);
}

/* ---- held out, bytes, refusals */

static void holds_out_the_end(void **state) {
  (void)state;
  struct kwm_stream_spec spec = spec_of(KWM_STREAM_ROTATED, 2);
  spec.validation = 13;
  kwm_stream *const stream = made(&spec);
  bool seen[CODES];
  struct kwm_images images;
  assert_int_equal(seen_in(stream, 0, 0, seen), TRAIN - 13);
  for (int i = TRAIN - 13; i < CODES; i++) assert_false(seen[i]);
  kwm_stream_split(stream, 0, KWM_VALID, &images);
  assert_int_equal(images.n, 13);
  for (int64_t i = 0; i < 13; i++) {
    assert_int_equal(images.labels[i], class_of(TRAIN - 13 + i));
    for (int j = 0; j < PIXELS; j++) assert_int_equal(images.pixels[i * PIXELS + j], value(TRAIN - 13 + i, j, 0));
  }
  kwm_stream_destroy(stream);
}

static size_t assert_bytes(const struct kwm_stream_spec *spec) {
  const size_t before = kwm_mem_bytes();
  struct kwm_stream_facts facts;
  assert_ok(kwm_stream_probe(spec, &facts));
  assert_int_equal(kwm_mem_bytes(), before);
  kwm_stream *const stream = made(spec);
  const struct kwm_stream_facts found = kwm_stream_facts(stream);
  assert_int_equal(kwm_mem_bytes() - before, facts.bytes);
  assert_int_equal(facts.bytes, found.bytes);
  assert_int_equal(facts.tasks, spec->tasks);
  assert_int_equal(found.tasks, spec->tasks);
  assert_int_equal(facts.length, PIXELS);
  assert_int_equal(found.length, PIXELS);
  assert_int_equal(facts.classes, found.classes);
  kwm_stream_destroy(stream);
  assert_int_equal(kwm_mem_bytes(), before);
  return facts.bytes;
}

static void counts_bytes(void **state) {
  (void)state;
  for (int kind = KWM_STREAM_PERMUTED; kind <= KWM_STREAM_LIST; kind++) {
    struct kwm_stream_spec spec = spec_of((enum kwm_stream_kind)kind, 5);
    const size_t few = assert_bytes(&spec);
    spec.tasks = kind == KWM_STREAM_SPLIT ? 10 : 60000;
    const size_t many = assert_bytes(&spec);
    if (kind != KWM_STREAM_SPLIT) assert_int_equal(few, many);
    spec.tasks = 2;
    spec.validation = 25;
    spec.samples = 11;
    spec.batch = 1000;
    spec.relabel = true;
    assert_bytes(&spec);
  }
  kwm_stream_destroy(NULL);
}

static void assert_refused(const struct kwm_stream_spec *spec, kwm_status wanted, const char *words, bool by_probe) {
  kwm_stream *stream = (kwm_stream *)&stream;
  struct kwm_stream_facts facts;
  const size_t before = kwm_mem_bytes();
  assert_int_equal(kwm_stream_create(&stream, spec), wanted);
  if (strstr(kwm_error_message(), words) == NULL) fail_msg("\"%s\" lacks \"%s\"", kwm_error_message(), words);
  assert_null(strchr(kwm_error_message(), '\n'));
  assert_null(stream);
  kwm_error_set("");
  assert_int_equal(kwm_stream_probe(spec, &facts), by_probe ? wanted : KWM_OK);
  if (by_probe && strstr(kwm_error_message(), words) == NULL) fail_msg("\"%s\"", kwm_error_message());
  assert_int_equal(kwm_mem_bytes(), before);
}

/* Refused as a usage error if one field of a permuted stream has this value. */
#define ASSERT_FIELD_REFUSED(field, value, words)                                                                      \
  do {                                                                                                                 \
    struct kwm_stream_spec spec_ = spec_of(KWM_STREAM_PERMUTED, 2);                                                    \
    spec_.field = (value);                                                                                             \
    assert_refused(&spec_, KWM_ERR_USAGE, (words), true);                                                              \
  } while (0)

static void refuses_specs(void **state) {
  (void)state;
  ASSERT_FIELD_REFUSED(tasks, 0, "wanted 1 to 65536 tasks, found 0");
  ASSERT_FIELD_REFUSED(tasks, 65537, "wanted 1 to 65536 tasks, found 65537");
  ASSERT_FIELD_REFUSED(passes, 0, "wanted 1 to 65536 passes, found 0");
  ASSERT_FIELD_REFUSED(batch, 0, "wanted 1 to 2147483647 samples in a batch, found 0");
  ASSERT_FIELD_REFUSED(samples, -1, "samples in a task, found -1");
  ASSERT_FIELD_REFUSED(validation, -1, "samples held out, found -1");
  ASSERT_FIELD_REFUSED(blend, 1.01, "wanted blend from 0 to 1, found 1.01");
  ASSERT_FIELD_REFUSED(blend, (double)NAN, "wanted blend from 0 to 1, found nan");
  ASSERT_FIELD_REFUSED(angle, (double)INFINITY, "wanted a finite angle, found inf");
  ASSERT_FIELD_REFUSED(path, NULL, "wanted a folder, found none");
  ASSERT_FIELD_REFUSED(path, "", "wanted a folder, found none");
  ASSERT_FIELD_REFUSED(samples, TRAIN + 1, "/a: wanted 61 training samples, found 60");
  ASSERT_FIELD_REFUSED(validation, TRAIN, "/a: wanted more training samples than the 60 held out, found 60");
  struct kwm_stream_spec spec = spec_of(KWM_STREAM_SPLIT, 4);
  assert_refused(&spec, KWM_ERR_USAGE, "wanted tasks that share 10 classes evenly, found 4", true);
  spec = spec_of(KWM_STREAM_ROTATED, 4);
  spec.path = set_path("wide");
  assert_refused(&spec, KWM_ERR_USAGE, "/wide: wanted square images to rotate, found 6 pixels", true);
  spec = spec_of(KWM_STREAM_LIST, 4);
  spec.paths = NULL;
  assert_refused(&spec, KWM_ERR_USAGE, "wanted folders separated by commas or spaces, found none", true);
  spec.paths = " , ,";
  assert_refused(&spec, KWM_ERR_USAGE, "wanted folders separated by commas or spaces, found \" , ,\"", true);
}

static void refuses_data(void **state) {
  (void)state;
  struct kwm_stream_spec spec = spec_of(KWM_STREAM_PERMUTED, 2);
  spec.path = set_path("nowhere");
  assert_refused(&spec, KWM_ERR_DATA, "nowhere: wanted a folder, found: ", true);
  spec = spec_of(KWM_STREAM_LIST, 2);
  char paths[2048];
  snprintf(paths, sizeof paths, "%s/a,%s/wide", folder, folder);
  spec.paths = paths;
  assert_refused(&spec, KWM_ERR_DATA, "/wide: wanted images of 25 pixels, found 6 for training and 6 for testing",
                 true);
  spec.paths = two_sets(",");
  spec.samples = TRAIN_B + 1;
  assert_refused(&spec, KWM_ERR_USAGE, "/b: wanted 51 training samples, found 50", true);
  write_pair(3, false, TRAIN, SIDE, SIDE, 10);
  spec = spec_of(KWM_STREAM_PERMUTED, 2);
  spec.path = set_path("wide");
  assert_refused(&spec, KWM_ERR_DATA, "/wide: wanted images of 25 pixels, found 25 for training and 6 for", true);
  write_pair(3, false, TRAIN, 3, 2, 10);
}

/* What only labels tell: the headers alone are good. */
static void refuses_tasks_without_samples(void **state) {
  (void)state;
  struct kwm_stream_spec spec = spec_of(KWM_STREAM_SPLIT, 5);
  spec.samples = 13;
  assert_refused(&spec, KWM_ERR_USAGE, "/a: wanted 13 training samples of classes 0 to 1, found 12", false);
  spec.samples = 0;
  spec.validation = 2;
  assert_refused(&spec, KWM_ERR_USAGE, "/a: wanted 1 held-out samples of classes 0 to 1, found 0", false);
  spec.validation = TRAIN - 1;
  assert_refused(&spec, KWM_ERR_USAGE, "/a: wanted 1 training samples of classes 2 to 3, found 0", false);
  spec.validation = 0;
  spec.path = set_path("poor");
  assert_refused(&spec, KWM_ERR_USAGE, "/poor: wanted 1 test samples of classes 6 to 7, found 0", false);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(permutes),
      cmocka_unit_test(goes_through_passes),
      cmocka_unit_test(orders_each_task_anew),
      cmocka_unit_test(draws_fewer_samples),
      cmocka_unit_test(takes_all_alike),
      cmocka_unit_test(makes_any_step),
      cmocka_unit_test(turns_by_quarters),
      cmocka_unit_test(turns_between),
      cmocka_unit_test(splits_classes),
      cmocka_unit_test(lists_folders),
      cmocka_unit_test(reads_folders_of_tasks_only),
      cmocka_unit_test(blends),
      cmocka_unit_test(blends_same_places),
      cmocka_unit_test(holds_out_the_end),
      cmocka_unit_test(counts_bytes),
      cmocka_unit_test(refuses_specs),
      cmocka_unit_test(refuses_data),
      cmocka_unit_test(refuses_tasks_without_samples),
  };
  return cmocka_run_group_tests(tests, make_sets, remove_sets);
}
