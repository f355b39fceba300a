/* Every way in which image files can be wrong, and what the message then says. */
#include "idx_files.h"

#include <sys/stat.h>

#include "kwm/data.h"

/* The read fails with KWM_ERR_DATA, says all of the words, and leaves nothing allocated. */
static void assert_refused(const char *where, const char *words) {
  struct kwm_images images;
  const size_t before = kwm_mem_bytes();
  assert_int_equal(kwm_images_read(&images, where, KWM_TRAIN), KWM_ERR_DATA);
  if (strstr(kwm_error_message(), words) == NULL) fail_msg("\"%s\" lacks \"%s\"", kwm_error_message(), words);
  assert_null(strchr(kwm_error_message(), '\n'));
  assert_null(images.pixels);
  assert_null(images.labels);
  assert_int_equal(kwm_mem_bytes(), before);
}

/* The same, by the header alone. */
static void assert_probe_refused(const char *words) {
  int64_t n = -1, length = -1;
  assert_int_equal(kwm_images_probe(folder, KWM_TRAIN, &n, &length), KWM_ERR_DATA);
  if (strstr(kwm_error_message(), words) == NULL) fail_msg("\"%s\" lacks \"%s\"", kwm_error_message(), words);
  assert_int_equal(n, -1);
}

static void replace_plain(const char *name, const struct bytes *bytes) {
  write_file(name, "", bytes);
}

static void refuses_missing(void **state) {
  (void)state;
  char where[1024];
  snprintf(where, sizeof where, "%s/nowhere", folder);
  assert_refused(where, "nowhere: wanted a folder, found: ");
  snprintf(where, sizeof where, "%s", path_of(images_name, ""));
  assert_refused(where, "wanted a folder, found a file");
  assert_int_equal(remove(path_of(labels_name, "")), 0);
  assert_refused(folder, "wanted train-labels-idx1-ubyte or train-labels-idx1-ubyte.gz, found neither");
  assert_probe_refused("found neither");
  assert_int_equal(mkdir(path_of(labels_name, ""), 0700), 0);
  assert_refused(folder, "train-labels-idx1-ubyte: wanted a regular file");
  assert_int_equal(rmdir(path_of(labels_name, "")), 0);
  assert_int_equal(symlink(labels_name, path_of(labels_name, "")), 0);
  assert_refused(folder, "train-labels-idx1-ubyte: wanted to open it, found: ");
}

/* A file that opens and then fails to read: the kernel's /proc/self/mem. */
static void reports_read_errors(void **state) {
  (void)state;
  assert_int_equal(remove(path_of(images_name, "")), 0);
  assert_int_equal(symlink("/proc/self/mem", path_of(images_name, "")), 0);
  assert_refused(folder, "train-images-idx3-ubyte: wanted to read on, found: ");
  assert_int_equal(remove(path_of(images_name, "")), 0);
  assert_int_equal(symlink("/proc/self/mem", path_of(images_name, ".gz")), 0);
  assert_refused(folder, "train-images-idx3-ubyte.gz: wanted to read on, found: ");
}

static void refuses_long_path(void **state) {
  (void)state;
  char where[8192];
  int length = snprintf(where, sizeof where, "%s", folder);
  while (length < 4080) length += snprintf(where + length, sizeof where - (size_t)length, "/.");
  assert_refused(where, "data: wanted a path shorter than 4096 bytes for train-images-idx3-ubyte");
}

static void refuses_plain_of_wrong_size(void **state) {
  (void)state;
  struct bytes image = image_bytes();
  image.count--;
  replace_plain(images_name, &image);
  assert_refused(folder, "wanted 58 bytes (its header says 7 samples of 6), found 57");
  assert_probe_refused("train-images-idx3-ubyte: wanted 58 bytes");
  image.count += 4;
  replace_plain(images_name, &image);
  assert_refused(folder, "wanted 58 bytes (its header says 7 samples of 6), found 61");
  image.count = 15;
  replace_plain(images_name, &image);
  assert_refused(folder, "wanted 16 bytes of header, found 15");
  image.count = 0;
  replace_plain(images_name, &image);
  assert_refused(folder, "wanted 16 bytes of header, found 0");
}

static void refuses_wrong_magic(void **state) {
  (void)state;
  const struct bytes image = image_bytes();
  replace_plain(labels_name, &image);
  assert_refused(folder, "train-labels-idx1-ubyte: wanted magic 0x00000801, found 0x00000803");
  struct bytes floats = image;
  floats.at[0] = 0xff;
  floats.at[2] = 0x0d;
  replace_plain(images_name, &floats);
  assert_refused(folder, "train-images-idx3-ubyte: wanted magic 0x00000803, found 0xff000d03");
}

static void refuses_bad_counts(void **state) {
  (void)state;
  struct bytes label = label_bytes();
  label.at[7] = N - 1;
  label.count--;
  replace_plain(labels_name, &label);
  assert_refused(folder, "wanted 7 labels (one for each image in train-images-idx3-ubyte), found 6");
  assert_probe_refused("wanted 7 labels");
  label.at[7] = 0;
  label.count = 8;
  replace_plain(labels_name, &label);
  assert_refused(folder, "wanted 1 to 2147483647 samples, found 0");
  label.at[4] = 0x80;
  replace_plain(labels_name, &label);
  assert_refused(folder, "wanted 1 to 2147483647 samples, found 2147483648");
}

static void refuses_absurd_sizes(void **state) {
  (void)state;
  struct bytes image = image_bytes();
  image.at[11] = 0;
  replace_plain(images_name, &image);
  assert_refused(folder, "wanted images of 1 to 16777216 pixels, found side 1 of length 0");
  memset(image.at + 8, 0xff, 8);
  replace_plain(images_name, &image);
  assert_refused(folder, "found side 1 of length 4294967295");
  memcpy(image.at + 8, (const uint8_t[]){0, 1, 0, 0, 0, 0, 1, 1}, 8);
  replace_plain(images_name, &image);
  assert_refused(folder, "found side 2 of length 257");
  memcpy(image.at + 4, (const uint8_t[]){0x7f, 0xff, 0xff, 0xff, 0, 0, 0x10, 0, 0, 0, 0x10, 0}, 12);
  replace_plain(images_name, &image);
  assert_refused(folder, "wanted 36028797002186768 bytes");
  const struct bytes gz = compressed(&image);
  replace_by_gz(images_name, &gz);
  assert_refused(folder, "compressed bytes, which can't hold them");
  assert_probe_refused("compressed bytes, which can't hold them");
}

static void refuses_bad_label(void **state) {
  (void)state;
  struct bytes label = label_bytes();
  label.at[8 + 5] = 12;
  const struct bytes gz = compressed(&label);
  replace_by_gz(labels_name, &gz);
  assert_refused(folder, "train-labels-idx1-ubyte.gz: wanted label 0 to 9, found 12 at sample 5");
  label.at[8 + 5] = 10;
  write_gz(labels_name, &label);
  assert_refused(folder, "found 10 at sample 5");
}

static void refuses_corrupt_gz(void **state) {
  (void)state;
  const struct bytes image = image_bytes();
  const struct bytes good = compressed(&image);
  struct bytes gz = good;
  gz.at[gz.count - 8] ^= 1;
  replace_by_gz(images_name, &gz);
  assert_refused(folder,
                 "train-images-idx3-ubyte.gz: wanted a sound gzip stream, found it corrupt (incorrect data check)");
  gz = good;
  gz.at[gz.count - 1] ^= 1;
  write_file(images_name, ".gz", &gz);
  assert_refused(folder, "found it corrupt (incorrect length check)");
  write_file(images_name, ".gz", &image);
  assert_refused(folder, "found it corrupt (incorrect header check)");
  gz = good;
  memset(gz.at + gz.count, 0x55, 30);
  gz.count += 30;
  write_file(images_name, ".gz", &gz);
  assert_refused(folder, "found it corrupt (incorrect header check)");
}

static void refuses_truncated_gz(void **state) {
  (void)state;
  const struct bytes image = image_bytes();
  struct bytes gz = compressed(&image);
  (void)remove(path_of(images_name, ""));
  for (size_t count = 0; count < gz.count; count++) {
    const size_t whole = gz.count;
    gz.count = count;
    write_file(images_name, ".gz", &gz);
    char words[128];
    snprintf(words, sizeof words, "wanted a whole gzip stream, found it truncated at compressed byte %zu", count);
    assert_refused(folder, words);
    gz.count = whole;
  }
}

static void refuses_gz_of_wrong_length(void **state) {
  (void)state;
  struct bytes image = image_bytes();
  (void)remove(path_of(images_name, ""));
  image.count -= 2;
  write_gz(images_name, &image);
  assert_refused(folder, "wanted 42 bytes of samples, found 40");
  image.count += 3;
  write_gz(images_name, &image);
  assert_refused(folder, "wanted the end after 58 bytes, found trailing bytes");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup(refuses_missing, good_files),
      cmocka_unit_test_setup(reports_read_errors, good_files),
      cmocka_unit_test_setup(refuses_long_path, good_files),
      cmocka_unit_test_setup(refuses_plain_of_wrong_size, good_files),
      cmocka_unit_test_setup(refuses_wrong_magic, good_files),
      cmocka_unit_test_setup(refuses_bad_counts, good_files),
      cmocka_unit_test_setup(refuses_absurd_sizes, good_files),
      cmocka_unit_test_setup(refuses_bad_label, good_files),
      cmocka_unit_test_setup(refuses_corrupt_gz, good_files),
      cmocka_unit_test_setup(refuses_truncated_gz, good_files),
      cmocka_unit_test_setup(refuses_gz_of_wrong_length, good_files),
  };
  return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
