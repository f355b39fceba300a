/* The sum of a file: each half of its 64-bit words w_i times an odd number of i's own, modulo 2^64. Any change within
   one half changes it for certain, any other damage (zeros, shifted or swapped blocks, signs) all but certainly; and it
   can be added up from pieces in any order. Before, it was w_i times 2i + 1, which two changes of a highest bit leave
   as it is: files with such a seal are read. */
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

static const char *const names[] = {[KWM_SEAL_ODD] = "sum", [KWM_SEAL_MIXED] = "mixed"};

static void write_block(char *block, int64_t bytes, const struct kwm_seal *seal) {
  memset(block, 0, KWM_SEAL_BYTES);
  snprintf(block, KWM_SEAL_BYTES,
           "%sbytes %" PRId64 "\n%s %016" PRIx64 "\nHDF5 begins at byte %d of this file; h5dump and h5py read it.\n",
           magic, bytes, names[seal->rule], seal->sum, KWM_SEAL_BYTES);
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

static uint64_t word_term(enum kwm_seal_rule rule, uint64_t i, uint64_t word) {
  if (rule == KWM_SEAL_ODD) return word * (2 * i + 1);
  uint64_t x = (i + 1) * UINT64_C(0x9E3779B97F4A7C15);
  x ^= x >> 32;
  return (word & UINT32_MAX) * (x | 1) + (word >> 32) * ((x >> 17 | x << 47) | 1);
}

/* One byte of the word that holds it. */
static uint64_t byte_term(enum kwm_seal_rule rule, int64_t offset, unsigned char byte) {
  return word_term(rule, (uint64_t)(offset / WORD_BYTES), (uint64_t)byte << (8 * (offset % WORD_BYTES)));
}

/* What n bytes at `offset` add. Inline: a loop for each rule. */
static inline uint64_t add(enum kwm_seal_rule rule, int64_t offset, const unsigned char *bytes, int64_t n) {
  uint64_t sum = 0;
  int64_t i = 0;
  for (; i < n && (offset + i) % WORD_BYTES != 0; i++) sum += byte_term(rule, offset + i, bytes[i]);
  uint64_t at = (uint64_t)((offset + i) / WORD_BYTES);
  for (; i + WORD_BYTES <= n; i += WORD_BYTES, at++) {
    uint64_t word;
    memcpy(&word, bytes + i, sizeof word);
    sum += word_term(rule, at, word);
  }
  for (; i < n; i++) sum += byte_term(rule, offset + i, bytes[i]);
  return sum;
}

uint64_t kwm_seal_add(int64_t offset, const void *data, int64_t n) {
  return add(KWM_SEAL_MIXED, offset, data, n);
}

/* Adds bytes [first, last). */
static kwm_status sum_bytes(const char *path, int file, int64_t first, int64_t last, struct kwm_seal *seal) {
  void *buffer = NULL;
  KWM_TRY(kwm_alloc(&buffer, PIECE_BYTES, "a piece of a checkpoint"));
  kwm_status status = KWM_OK;
  for (; first < last && status == KWM_OK; first += PIECE_BYTES) {
    const int64_t n = last - first < PIECE_BYTES ? last - first : PIECE_BYTES;
    if (read_bytes(file, first, n, buffer) == n)
      seal->sum += seal->rule == KWM_SEAL_ODD ? add(KWM_SEAL_ODD, first, buffer, n) : kwm_seal_add(first, buffer, n);
    else
      status = KWM_RAISE(KWM_ERR_DATA, "checkpoint %s: wanted %" PRId64 " bytes at %" PRId64 ", the disk gave fewer",
                         path, n, first);
  }
  kwm_free(buffer);
  return status;
}

kwm_status kwm_seal_sum(const char *path, int part, int parts, int64_t *bytes, struct kwm_seal *seal) {
  int file;
  seal->sum = 0;
  KWM_TRY(open_file(path, &file, bytes));
  const int64_t n = *bytes - KWM_SEAL_BYTES, share = n > 0 ? (n / parts + WORD_BYTES) / WORD_BYTES * WORD_BYTES : 0;
  const int64_t first = KWM_SEAL_BYTES + share * part, last = first + share;
  const kwm_status status = sum_bytes(path, file, first, last < *bytes ? last : *bytes, seal);
  close(file);
  return status;
}

kwm_status kwm_seal_sum_around(const char *path, int64_t n, const int64_t (*held)[2], int64_t *bytes,
                               struct kwm_seal *seal) {
  int file;
  *seal = (struct kwm_seal){KWM_SEAL_MIXED, 0};
  KWM_TRY(open_file(path, &file, bytes));
  kwm_status status = KWM_OK;
  int64_t at = KWM_SEAL_BYTES;
  for (int64_t k = 0; k < n && status == KWM_OK; k++) {
    status = sum_bytes(path, file, at, held[k][0], seal);
    at = held[k][0] + held[k][1];
  }
  if (status == KWM_OK) status = sum_bytes(path, file, at, *bytes, seal);
  close(file);
  return status;
}

kwm_status kwm_seal_write(const char *path, int64_t bytes, const struct kwm_seal *seal) {
  char block[KWM_SEAL_BYTES];
  write_block(block, bytes, seal);
  const int file = open(path, O_WRONLY | O_CLOEXEC);
  KWM_CHECK(file >= 0, KWM_ERR_SYSTEM, "checkpoint %s: wanted to seal it, found: %s", path, strerror(errno));
  const bool written = pwrite(file, block, sizeof block, 0) == (ssize_t)sizeof block && fsync(file) == 0;
  const int error = errno;
  close(file);
  KWM_CHECK(written, KWM_ERR_SYSTEM, "checkpoint %s: wanted to seal it, found: %s", path, strerror(error));
  return KWM_OK;
}

kwm_status kwm_seal_read(const char *path, struct kwm_seal *seal) {
  char block[KWM_SEAL_BYTES + 1] = "", wanted[KWM_SEAL_BYTES];
  int file;
  int64_t bytes, length = -1;
  KWM_TRY(open_file(path, &file, &bytes));
  const bool whole = read_bytes(file, 0, KWM_SEAL_BYTES, block) == KWM_SEAL_BYTES;
  close(file);
  KWM_CHECK(whole && strncmp(block, magic, strlen(magic)) == 0, KWM_ERR_DATA,
            "checkpoint %s: wanted a sealed checkpoint, found a file of %" PRId64 " bytes that does not begin like one",
            path, bytes);
  const char *const fields = block + strlen(magic);
  char name[8] = "";
  const int n = sscanf(fields, "bytes %" SCNd64 "\n%7s %" SCNx64, &length, name, &seal->sum);
  seal->rule = strcmp(name, names[KWM_SEAL_ODD]) == 0 ? KWM_SEAL_ODD : KWM_SEAL_MIXED;
  write_block(wanted, length, seal);
  KWM_CHECK(n == 3 && memcmp(block, wanted, sizeof wanted) == 0, KWM_ERR_DATA,
            "checkpoint %s: wanted an unbroken seal in the first %d bytes, found other bytes", path, KWM_SEAL_BYTES);
  KWM_CHECK(length == bytes, KWM_ERR_DATA, "checkpoint %s: wanted %" PRId64 " bytes, found %" PRId64, path, length,
            bytes);
  return KWM_OK;
}
