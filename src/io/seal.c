/* The sum of a file: its 64-bit words w_i, each times the odd number 2i + 1, modulo 2^64. Any change within one word
   changes it for certain, any other damage (zeros, shifted or swapped blocks) all but certainly; and it can be added up
   from pieces in any order. */
#include "seal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PIECE_BYTES = 1 << 20, WORD_BYTES = 8 };

static const char magic[] = "kwm-checkpoint\n";

static void write_block(char *block, int64_t bytes, uint64_t sum) {
  memset(block, 0, KWM_SEAL_BYTES);
  snprintf(block, KWM_SEAL_BYTES,
           "%sbytes %" PRId64 "\nsum %016" PRIx64 "\nHDF5 begins at byte %d of this file; h5dump and h5py read it.\n",
           magic, bytes, sum, KWM_SEAL_BYTES);
}

/* Opens for reading and tells the length. */
static kwm_status open_file(const char *path, int *file, int64_t *bytes) {
  struct stat about;
  *file = open(path, O_RDONLY | O_CLOEXEC);
  KWM_CHECK(*file >= 0, KWM_ERR_DATA, "checkpoint %s: wanted to read it, found: %s", path, strerror(errno));
  if (fstat(*file, &about) == 0 && S_ISREG(about.st_mode)) {
    *bytes = about.st_size;
    return KWM_OK;
  }
  close(*file);
  return KWM_RAISE(KWM_ERR_DATA, "checkpoint %s: wanted a file, found something else", path);
}

/* As many of the n bytes at `offset` as there are. */
static int64_t read_bytes(int file, int64_t offset, int64_t n, char *bytes) {
  int64_t done = 0;
  while (done < n) {
    const ssize_t got = pread(file, bytes + done, (size_t)(n - done), offset + done);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    done += got;
  }
  return done;
}

/* One byte of the word that holds it. */
static uint64_t byte_term(int64_t offset, unsigned char byte) {
  return ((uint64_t)byte << (8 * (offset % WORD_BYTES))) * (2 * (uint64_t)(offset / WORD_BYTES) + 1);
}

uint64_t kwm_seal_add(int64_t offset, const void *data, int64_t n) {
  const unsigned char *const bytes = data;
  uint64_t sum = 0;
  int64_t i = 0;
  for (; i < n && (offset + i) % WORD_BYTES != 0; i++) sum += byte_term(offset + i, bytes[i]);
  for (; i + WORD_BYTES <= n; i += WORD_BYTES) {
    uint64_t word;
    memcpy(&word, bytes + i, sizeof word);
    sum += word * (2 * (uint64_t)((offset + i) / WORD_BYTES) + 1);
  }
  for (; i < n; i++) sum += byte_term(offset + i, bytes[i]);
  return sum;
}

/* Adds bytes [first, last). */
static kwm_status sum_bytes(const char *path, int file, int64_t first, int64_t last, uint64_t *sum) {
  void *buffer = NULL;
  KWM_TRY(kwm_alloc(&buffer, PIECE_BYTES, "a piece of a checkpoint"));
  kwm_status status = KWM_OK;
  for (; first < last && status == KWM_OK; first += PIECE_BYTES) {
    const int64_t n = last - first < PIECE_BYTES ? last - first : PIECE_BYTES;
    if (read_bytes(file, first, n, buffer) == n)
      *sum += kwm_seal_add(first, buffer, n);
    else
      status = KWM_RAISE(KWM_ERR_DATA, "checkpoint %s: wanted %" PRId64 " bytes at %" PRId64 ", the disk gave fewer",
                         path, n, first);
  }
  kwm_free(buffer);
  return status;
}

kwm_status kwm_seal_sum(const char *path, int part, int parts, int64_t *bytes, uint64_t *sum) {
  int file;
  *sum = 0;
  KWM_TRY(open_file(path, &file, bytes));
  const int64_t n = *bytes - KWM_SEAL_BYTES, share = n > 0 ? (n / parts + WORD_BYTES) / WORD_BYTES * WORD_BYTES : 0;
  const int64_t first = KWM_SEAL_BYTES + share * part, last = first + share;
  const kwm_status status = sum_bytes(path, file, first, last < *bytes ? last : *bytes, sum);
  close(file);
  return status;
}

kwm_status kwm_seal_sum_around(const char *path, int64_t n, const int64_t (*held)[2], int64_t *bytes, uint64_t *sum) {
  int file;
  *sum = 0;
  KWM_TRY(open_file(path, &file, bytes));
  kwm_status status = KWM_OK;
  int64_t at = KWM_SEAL_BYTES;
  for (int64_t k = 0; k < n && status == KWM_OK; k++) {
    status = sum_bytes(path, file, at, held[k][0], sum);
    at = held[k][0] + held[k][1];
  }
  if (status == KWM_OK) status = sum_bytes(path, file, at, *bytes, sum);
  close(file);
  return status;
}

kwm_status kwm_seal_write(const char *path, int64_t bytes, uint64_t sum) {
  char block[KWM_SEAL_BYTES];
  write_block(block, bytes, sum);
  const int file = open(path, O_WRONLY | O_CLOEXEC);
  KWM_CHECK(file >= 0, KWM_ERR_SYSTEM, "checkpoint %s: wanted to seal it, found: %s", path, strerror(errno));
  const bool written = pwrite(file, block, sizeof block, 0) == (ssize_t)sizeof block && fsync(file) == 0;
  const int error = errno;
  close(file);
  KWM_CHECK(written, KWM_ERR_SYSTEM, "checkpoint %s: wanted to seal it, found: %s", path, strerror(error));
  return KWM_OK;
}

kwm_status kwm_seal_read(const char *path, uint64_t *sum) {
  char block[KWM_SEAL_BYTES + 1] = "", wanted[KWM_SEAL_BYTES];
  int file;
  int64_t bytes, length = -1;
  KWM_TRY(open_file(path, &file, &bytes));
  const bool whole = read_bytes(file, 0, KWM_SEAL_BYTES, block) == KWM_SEAL_BYTES;
  close(file);
  KWM_CHECK(whole && strncmp(block, magic, strlen(magic)) == 0, KWM_ERR_DATA,
            "checkpoint %s: wanted a sealed checkpoint, found a file of %" PRId64 " bytes that does not begin like one",
            path, bytes);
  const int fields = sscanf(block + strlen(magic), "bytes %" SCNd64 "\nsum %" SCNx64, &length, sum);
  write_block(wanted, length, *sum);
  KWM_CHECK(fields == 2 && memcmp(block, wanted, sizeof wanted) == 0, KWM_ERR_DATA,
            "checkpoint %s: wanted an unbroken seal in the first %d bytes, found other bytes", path, KWM_SEAL_BYTES);
  KWM_CHECK(length == bytes, KWM_ERR_DATA, "checkpoint %s: wanted %" PRId64 " bytes, found %" PRId64, path, length,
            bytes);
  return KWM_OK;
}
