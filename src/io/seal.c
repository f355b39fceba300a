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

#include "kwm/par.h"

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

static uint64_t sum_words(const char *bytes, int64_t n_words, int64_t first) {
  uint64_t sum = 0;
  for (int64_t i = 0; i < n_words; i++) {
    uint64_t word;
    memcpy(&word, bytes + i * WORD_BYTES, sizeof word);
    sum += word * (2 * (uint64_t)(first + i) + 1);
  }
  return sum;
}

/* Adds words [first, last), the file's last one filled up with zeros. */
static kwm_status sum_share(const char *path, int file, int64_t bytes, int64_t first, int64_t last, uint64_t *sum) {
  const int64_t piece = PIECE_BYTES / WORD_BYTES;
  void *buffer = NULL;
  KWM_TRY(kwm_alloc(&buffer, PIECE_BYTES, "a piece of a checkpoint"));
  kwm_status status = KWM_OK;
  for (; first < last && status == KWM_OK; first += piece) {
    const int64_t n = last - first < piece ? last - first : piece, offset = first * WORD_BYTES;
    const int64_t wanted = bytes - offset < n * WORD_BYTES ? bytes - offset : n * WORD_BYTES;
    memset(buffer, 0, PIECE_BYTES);
    if (read_bytes(file, offset, wanted, buffer) == wanted)
      *sum += sum_words(buffer, n, first);
    else
      status = KWM_RAISE(KWM_ERR_DATA, "checkpoint %s: wanted %" PRId64 " bytes at %" PRId64 ", the disk gave fewer",
                         path, wanted, offset);
  }
  kwm_free(buffer);
  return status;
}

/* Collective: length, and sum of all bytes behind the block. */
static kwm_status sum_file(MPI_Comm comm, const char *path, int64_t *bytes, uint64_t *sum) {
  int rank = 0, size = 0, file = -1;
  MPI_Comm_rank(comm, &rank);
  MPI_Comm_size(comm, &size);
  *sum = 0;
  kwm_status status = open_file(path, &file, bytes);
  if (status == KWM_OK) {
    const int64_t begin = KWM_SEAL_BYTES / WORD_BYTES, n = (*bytes + WORD_BYTES - 1) / WORD_BYTES - begin;
    status = sum_share(path, file, *bytes, begin + n * rank / size, begin + n * (rank + 1) / size, sum);
    close(file);
  }
  KWM_TRY(kwm_agree(comm, status));
  MPI_Allreduce(MPI_IN_PLACE, sum, 1, MPI_UINT64_T, MPI_SUM, comm);
  return KWM_OK;
}

static kwm_status put_block(const char *path, int64_t bytes, uint64_t sum) {
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

kwm_status kwm_seal_put(MPI_Comm comm, const char *path) {
  int rank = 0;
  int64_t bytes = 0;
  uint64_t sum = 0;
  MPI_Comm_rank(comm, &rank);
  kwm_status status = sum_file(comm, path, &bytes, &sum);
  if (status == KWM_OK) status = kwm_agree(comm, rank == 0 ? put_block(path, bytes, sum) : KWM_OK);
  return status == KWM_ERR_DATA ? KWM_ERR_SYSTEM : status;
}

/* The sum that the block tells, if the block is as it was written and the file has the length that it tells. */
static kwm_status read_block(const char *path, uint64_t *sum) {
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

kwm_status kwm_seal_check(MPI_Comm comm, const char *path) {
  uint64_t wanted = 0, found = 0;
  int64_t bytes = 0;
  KWM_TRY(kwm_agree(comm, read_block(path, &wanted)));
  KWM_TRY(sum_file(comm, path, &bytes, &found));
  KWM_CHECK(wanted == found, KWM_ERR_DATA,
            "checkpoint %s: wanted contents with sum %016" PRIx64 ", found %016" PRIx64 " (damaged)", path, wanted,
            found);
  return KWM_OK;
}
