/* Small IDX files for the tests of the data room: 7 samples of 3 x 2 pixels, plain or gzip, in a folder of their own,
   so that nothing depends on a data set. */
#pragma once

#include "../kwm_test.h"

#include <unistd.h>
#include <zlib.h>

enum { N = 7, ROWS = 3, COLS = 2, LENGTH = ROWS * COLS, FILE_MAX_BYTES = 4096 };

static const char images_name[] = "train-images-idx3-ubyte";
static const char labels_name[] = "train-labels-idx1-ubyte";
static char folder[512];

struct bytes {
  size_t count;
  uint8_t at[FILE_MAX_BYTES];
};

static inline void put_word(struct bytes *bytes, uint32_t word) {
  for (int shift = 24; shift >= 0; shift -= 8) bytes->at[bytes->count++] = (uint8_t)(word >> shift);
}

static inline uint8_t pixel(int i, int j) {
  return (uint8_t)(31 * i + 5 * j);
}

static inline struct bytes image_bytes(void) {
  struct bytes bytes = {0};
  put_word(&bytes, 0x803);
  put_word(&bytes, N);
  put_word(&bytes, ROWS);
  put_word(&bytes, COLS);
  for (int i = 0; i < N; i++)
    for (int j = 0; j < LENGTH; j++) bytes.at[bytes.count++] = pixel(i, j);
  return bytes;
}

static inline struct bytes label_bytes(void) {
  struct bytes bytes = {0};
  put_word(&bytes, 0x801);
  put_word(&bytes, N);
  for (int i = 0; i < N; i++) bytes.at[bytes.count++] = (uint8_t)(9 - i);
  return bytes;
}

static inline const char *path_of(const char *name, const char *suffix) {
  static char path[1024];
  snprintf(path, sizeof path, "%s/%s%s", folder, name, suffix);
  return path;
}

static inline void write_file(const char *name, const char *suffix, const struct bytes *bytes) {
  FILE *file = fopen(path_of(name, suffix), "wb");
  assert_non_null(file);
  assert_int_equal(fwrite(bytes->at, 1, bytes->count, file), bytes->count);
  assert_int_equal(fclose(file), 0);
}

static inline struct bytes compressed(const struct bytes *bytes) {
  struct bytes gz = {0};
  z_stream z = {0};
  assert_int_equal(deflateInit2(&z, 9, Z_DEFLATED, MAX_WBITS + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
  z.next_in = (Bytef *)bytes->at;
  z.avail_in = (uInt)bytes->count;
  z.next_out = gz.at;
  z.avail_out = sizeof gz.at;
  assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
  gz.count = z.total_out;
  deflateEnd(&z);
  return gz;
}

static inline void write_gz(const char *name, const struct bytes *bytes) {
  const struct bytes gz = compressed(bytes);
  write_file(name, ".gz", &gz);
}

static inline void remove_all(void) {
  static const char *const names[] = {"train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte",
                                      "t10k-labels-idx1-ubyte"};
  for (int i = 0; i < 4; i++) {
    (void)remove(path_of(names[i], ""));
    (void)remove(path_of(names[i], ".gz"));
  }
}

static inline int make_folder(void **state) {
  (void)state;
  const char *parent = getenv("TMPDIR");
  snprintf(folder, sizeof folder, "%s/kwm-images-XXXXXX", parent != NULL ? parent : P_tmpdir);
  return mkdtemp(folder) == NULL;
}

static inline int remove_folder(void **state) {
  (void)state;
  remove_all();
  return rmdir(folder);
}

/* Every test starts with a good pair of plain training files. */
static inline int good_files(void **state) {
  (void)state;
  remove_all();
  const struct bytes images = image_bytes(), labels = label_bytes();
  write_file(images_name, "", &images);
  write_file(labels_name, "", &labels);
  return 0;
}

static inline void replace_by_gz(const char *name, const struct bytes *gz) {
  assert_int_equal(remove(path_of(name, "")), 0);
  write_file(name, ".gz", gz);
}
