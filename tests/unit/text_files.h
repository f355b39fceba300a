/* Small text files for the tests of the data room, plain, .xz or .gz, in a folder of their own. */
#pragma once

#include "../kwm_test.h"

#include <dirent.h>
#include <lzma.h>
#include <unistd.h>
#include <zlib.h>

#include "kwm/tokens.h"

static char folder[512];

static inline const char *path_of(const char *name) {
  static char path[1024];
  snprintf(path, sizeof path, "%s/%s", folder, name);
  return path;
}

static inline void write_bytes(const char *name, const void *bytes, size_t count) {
  FILE *file = fopen(path_of(name), "wb");
  assert_non_null(file);
  assert_int_equal(fwrite(bytes, 1, count, file), count);
  assert_int_equal(fclose(file), 0);
}

static inline void write_text(const char *name, const char *text) {
  write_bytes(name, text, strlen(text));
}

enum { PACKED_MAX = 1 << 20 };

/* Packed bytes of `text`; malloc'ed. */
static inline uint8_t *xz_of(const char *text, size_t count, size_t *packed) {
  uint8_t *const bytes = malloc(PACKED_MAX);
  assert_non_null(bytes);
  *packed = 0;
  assert_int_equal(
      lzma_easy_buffer_encode(6, LZMA_CHECK_CRC64, NULL, (const uint8_t *)text, count, bytes, packed, PACKED_MAX),
      LZMA_OK);
  return bytes;
}

static inline uint8_t *gz_of(const char *text, size_t count, size_t *packed) {
  uint8_t *const bytes = malloc(PACKED_MAX);
  assert_non_null(bytes);
  z_stream z = {0};
  assert_int_equal(deflateInit2(&z, 9, Z_DEFLATED, MAX_WBITS + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
  z.next_in = (Bytef *)text;
  z.avail_in = (uInt)count;
  z.next_out = bytes;
  z.avail_out = PACKED_MAX;
  assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
  *packed = z.total_out;
  deflateEnd(&z);
  return bytes;
}

static inline void write_xz(const char *name, const char *text) {
  size_t count = 0;
  uint8_t *const bytes = xz_of(text, strlen(text), &count);
  write_bytes(name, bytes, count);
  free(bytes);
}

static inline void write_gz(const char *name, const char *text) {
  size_t count = 0;
  uint8_t *const bytes = gz_of(text, strlen(text), &count);
  write_bytes(name, bytes, count);
  free(bytes);
}

static inline int empty_folder(void **state) {
  (void)state;
  DIR *const files = opendir(folder);
  if (files == NULL) return 1;
  for (const struct dirent *entry = readdir(files); entry != NULL; entry = readdir(files))
    if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) (void)remove(path_of(entry->d_name));
  return closedir(files);
}

static inline int make_folder(void **state) {
  (void)state;
  const char *parent = getenv("TMPDIR");
  snprintf(folder, sizeof folder, "%s/kwm-text-XXXXXX", parent != NULL ? parent : P_tmpdir);
  return mkdtemp(folder) == NULL;
}

static inline int remove_folder(void **state) {
  (void)empty_folder(state);
  return rmdir(folder);
}

static inline struct kwm_text_source source_of_folder(void) {
  return (struct kwm_text_source){.folder = folder};
}
