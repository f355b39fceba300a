/* IDX reading, plain and gzip; slicing, the pixel permutation, the order of samples. */
#include "idx_files.h"

#include "kwm/data.h"

static void assert_good(const struct kwm_images *images) {
  assert_int_equal(images->n, N);
  assert_int_equal(images->length, LENGTH);
  assert_int_equal(images->classes, 10);
  for (int i = 0; i < N; i++) {
    assert_int_equal(images->labels[i], 9 - i);
    for (int j = 0; j < LENGTH; j++) assert_int_equal(images->pixels[i * LENGTH + j], pixel(i, j));
  }
}

static void reads_plain(void **state) {
  (void)state;
  struct kwm_images images;
  const size_t before = kwm_mem_bytes();
  assert_ok(kwm_images_read(&images, folder, KWM_TRAIN));
  assert_good(&images);
  assert_int_equal(kwm_mem_bytes() - before, kwm_images_bytes(N, LENGTH));
  const struct bytes image = image_bytes(), label = label_bytes();
  assert_string_equal(images.files[0].name, images_name);
  assert_int_equal(images.files[0].bytes, image.count);
  assert_int_equal(images.files[0].crc32, crc32(0, image.at, (uInt)image.count));
  assert_string_equal(images.files[1].name, labels_name);
  assert_int_equal(images.files[1].bytes, label.count);
  assert_int_equal(images.files[1].crc32, crc32(0, label.at, (uInt)label.count));
  kwm_images_fini(&images);
  kwm_images_fini(&images);
  assert_int_equal(kwm_mem_bytes(), before);
}

static void reads_gz_like_plain(void **state) {
  (void)state;
  const struct bytes image = image_bytes(), label = label_bytes();
  remove_all();
  write_gz(images_name, &image);
  write_gz(labels_name, &label);
  struct kwm_images images;
  assert_ok(kwm_images_read(&images, folder, KWM_VALID));
  assert_good(&images);
  assert_string_equal(images.files[0].name, "train-images-idx3-ubyte.gz");
  assert_int_equal(images.files[0].bytes, image.count);
  assert_int_equal(images.files[0].crc32, crc32(0, image.at, (uInt)image.count));
  assert_string_equal(images.files[1].name, "train-labels-idx1-ubyte.gz");
  kwm_images_fini(&images);
}

static void reads_gz_in_members(void **state) {
  (void)state;
  const struct bytes image = image_bytes();
  struct bytes head = image, tail = {.count = image.count - 20};
  head.count = 20;
  memcpy(tail.at, image.at + 20, tail.count);
  struct bytes gz = compressed(&head);
  const struct bytes second = compressed(&tail);
  memcpy(gz.at + gz.count, second.at, second.count);
  gz.count += second.count;
  replace_by_gz(images_name, &gz);
  struct kwm_images images;
  assert_ok(kwm_images_read(&images, folder, KWM_TRAIN));
  assert_good(&images);
  kwm_images_fini(&images);
}

static void prefers_plain(void **state) {
  (void)state;
  const struct bytes rubbish = {.count = 3};
  write_file(images_name, ".gz", &rubbish);
  struct kwm_images images;
  assert_ok(kwm_images_read(&images, folder, KWM_TRAIN));
  assert_string_equal(images.files[0].name, images_name);
  kwm_images_fini(&images);
}

/* More than one chunk and many refills of the input buffer: 3 MB of noise. */
static void reads_long_gz(void **state) {
  (void)state;
  enum { MANY = 500000 };
  remove_all();
  struct bytes head = {0}, label_head = {0};
  put_word(&head, 0x803);
  put_word(&head, MANY);
  put_word(&head, ROWS);
  put_word(&head, COLS);
  put_word(&label_head, 0x801);
  put_word(&label_head, MANY);
  gzFile image_file = gzopen(path_of(images_name, ".gz"), "wb1"),
         label_file = gzopen(path_of(labels_name, ".gz"), "wb");
  assert_int_equal(gzwrite(image_file, head.at, (unsigned)head.count), head.count);
  assert_int_equal(gzwrite(label_file, label_head.at, (unsigned)label_head.count), label_head.count);
  for (uint32_t i = 0; i < MANY * LENGTH; i++) gzputc(image_file, (uint8_t)(i * 2654435761u >> 24));
  for (uint32_t i = 0; i < MANY; i++) gzputc(label_file, (int)(i % 10));
  assert_int_equal(gzclose(image_file), Z_OK);
  assert_int_equal(gzclose(label_file), Z_OK);
  struct kwm_images images;
  assert_ok(kwm_images_read(&images, folder, KWM_TRAIN));
  bool same = true;
  for (uint32_t i = 0; i < MANY * LENGTH; i++) same = same && images.pixels[i] == (uint8_t)(i * 2654435761u >> 24);
  for (uint32_t i = 0; i < MANY; i++) same = same && images.labels[i] == i % 10;
  assert_true(same);
  kwm_images_fini(&images);
}

static void test_split_has_its_own_files(void **state) {
  (void)state;
  struct kwm_images images;
  assert_int_equal(kwm_images_read(&images, folder, KWM_TEST), KWM_ERR_DATA);
  assert_non_null(strstr(kwm_error_message(), "t10k-images-idx3-ubyte"));
  const struct bytes image = image_bytes(), label = label_bytes();
  write_gz("t10k-images-idx3-ubyte", &image);
  write_file("t10k-labels-idx1-ubyte", "", &label);
  assert_ok(kwm_images_read(&images, folder, KWM_TEST));
  assert_good(&images);
  kwm_images_fini(&images);
}

static void probes(void **state) {
  (void)state;
  int64_t n = 0, length = 0;
  const size_t before = kwm_mem_bytes();
  assert_ok(kwm_images_probe(folder, KWM_TRAIN, &n, &length));
  assert_int_equal(n, N);
  assert_int_equal(length, LENGTH);
  assert_int_equal(kwm_mem_bytes(), before);
}

static void slices(void **state) {
  (void)state;
  struct kwm_images images;
  const size_t before = kwm_mem_bytes();
  assert_ok(kwm_images_read(&images, folder, KWM_TRAIN));
  const int64_t wrong[][2] = {{-1, 2}, {0, 0}, {0, N + 1}, {N, 1}, {5, 3}, {1, INT64_MAX}, {INT64_MAX, 1}};
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
    assert_int_equal(kwm_images_slice(&images, wrong[i][0], wrong[i][1]), KWM_ERR_USAGE);
  assert_non_null(strstr(kwm_error_message(), "found 7 samples in all"));
  assert_ok(kwm_images_slice(&images, 0, N));
  assert_good(&images);
  assert_ok(kwm_images_slice(&images, 4, 3));
  assert_int_equal(images.n, 3);
  assert_int_equal(kwm_mem_bytes() - before, kwm_images_bytes(3, LENGTH));
  for (int i = 0; i < 3; i++) {
    assert_int_equal(images.labels[i], 9 - (i + 4));
    for (int j = 0; j < LENGTH; j++) assert_int_equal(images.pixels[i * LENGTH + j], pixel(i + 4, j));
  }
  kwm_images_fini(&images);
  assert_int_equal(kwm_mem_bytes(), before);
}

/* Pixels of sample 0 are distinct, so they reveal the permutation; all samples must share it. */
static void permutes_all_alike(void **state) {
  (void)state;
  struct kwm_images first, again, other;
  const size_t before = kwm_mem_bytes();
  assert_ok(kwm_images_read(&first, folder, KWM_TRAIN));
  assert_ok(kwm_images_read(&again, folder, KWM_TRAIN));
  assert_ok(kwm_images_read(&other, folder, KWM_TRAIN));
  assert_ok(kwm_images_permute(&first, 11));
  assert_ok(kwm_images_permute(&again, 11));
  assert_ok(kwm_images_permute(&other, 12));
  bool seen[LENGTH] = {false}, moved = false;
  for (int j = 0; j < LENGTH; j++) {
    const int from = first.pixels[j] / 5;
    assert_false(seen[from]);
    seen[from] = true;
    moved = moved || from != j;
    for (int i = 0; i < N; i++) assert_int_equal(first.pixels[i * LENGTH + j], pixel(i, from));
  }
  assert_true(moved);
  assert_memory_equal(first.pixels, again.pixels, N * LENGTH);
  assert_memory_not_equal(first.pixels, other.pixels, N * LENGTH);
  kwm_images_fini(&first);
  kwm_images_fini(&again);
  kwm_images_fini(&other);
  assert_int_equal(kwm_mem_bytes(), before);
}

static void orders(void **state) {
  (void)state;
  enum { MANY = 1000 };
  int32_t order[MANY], again[MANY], other[MANY];
  kwm_order(5, 3, MANY, order);
  kwm_order(5, 3, MANY, again);
  assert_memory_equal(order, again, sizeof order);
  const int64_t parts[] = {MANY, MANY - 1, MANY - 1, 400, 1, 0};
  for (int k = 0; k < 5; k++) kwm_order_part(5, 3, MANY, parts[k], parts[k + 1], other);
  assert_memory_equal(order, other, sizeof order);
  kwm_order(5, 4, MANY, other);
  assert_memory_not_equal(order, other, sizeof order);
  kwm_order(6, 3, MANY, other);
  assert_memory_not_equal(order, other, sizeof order);
  bool seen[MANY] = {false};
  for (int i = 0; i < MANY; i++) {
    assert_in_range(order[i], 0, MANY - 1);
    assert_false(seen[order[i]]);
    seen[order[i]] = true;
  }
}

/* Each image of the mini-batch is the original moved by some (down, right), background behind it; all places occur, two
   steps differ, and the same step gives the same again. */
static void shifts(void **state) {
  (void)state;
  enum { SIDE = 5, MOST = 2, IMAGES = 200, WIDE = 2 * MOST + 1 };
  static uint8_t pixels[IMAGES * SIDE * SIDE], moved[3][IMAGES * SIDE * SIDE], labels[IMAGES], taken[3][IMAGES];
  static int32_t order[IMAGES];
  bool seen[WIDE * WIDE] = {false};
  for (int k = 0; k < IMAGES * SIDE * SIDE; k++) pixels[k] = (uint8_t)(1 + (k * 7 + k / 25) % 255);
  for (int i = 0; i < IMAGES; i++) labels[i] = (uint8_t)(i % 10), order[i] = (int32_t)(IMAGES - 1 - i);
  const struct kwm_images images = {
      .n = IMAGES, .length = SIDE * SIDE, .classes = 10, .pixels = pixels, .labels = labels};
  for (int k = 0; k < 3; k++) {
    struct kwm_images to = {.pixels = moved[k], .labels = taken[k]};
    const struct kwm_batch batch = {&images, order, IMAGES, k == 2 ? 5 : 4};
    kwm_images_move(&batch, MOST, 1, &to);
    assert_int_equal(to.n, IMAGES);
    assert_int_equal(to.length, SIDE * SIDE);
  }
  assert_memory_equal(moved[0], moved[1], sizeof moved[0]);
  assert_true(memcmp(moved[0], moved[2], sizeof moved[0]) != 0);
  for (int i = 0; i < IMAGES; i++) {
    const uint8_t *const from = pixels + order[i] * SIDE * SIDE;
    int fits = 0;
    assert_int_equal(taken[0][i], labels[order[i]]);
    for (int where = 0; where < WIDE * WIDE; where++) {
      const int down = where / WIDE - MOST, right = where % WIDE - MOST;
      bool same = true;
      for (int p = 0; p < SIDE * SIDE; p++) {
        const int r = p / SIDE - down, c = p % SIDE - right;
        const bool inside = r >= 0 && r < SIDE && c >= 0 && c < SIDE;
        same = same && moved[0][i * SIDE * SIDE + p] == (inside ? from[r * SIDE + c] : 0);
      }
      fits += same;
      if (same) seen[where] = true;
    }
    assert_int_equal(fits, 1);
  }
  for (int where = 0; where < WIDE * WIDE; where++) assert_true(seen[where]);
  assert_true(kwm_images_square(25) && kwm_images_square(784) && !kwm_images_square(30));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup(reads_plain, good_files),
      cmocka_unit_test_setup(reads_gz_like_plain, good_files),
      cmocka_unit_test_setup(reads_gz_in_members, good_files),
      cmocka_unit_test_setup(prefers_plain, good_files),
      cmocka_unit_test_setup(reads_long_gz, good_files),
      cmocka_unit_test_setup(test_split_has_its_own_files, good_files),
      cmocka_unit_test_setup(probes, good_files),
      cmocka_unit_test_setup(slices, good_files),
      cmocka_unit_test_setup(permutes_all_alike, good_files),
      cmocka_unit_test_setup(orders, good_files),
      cmocka_unit_test(shifts),
  };
  return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
