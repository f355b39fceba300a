/* IDX over zlib: magic 0x00000800 + number of dimensions (unsigned bytes), the dimensions as 32-bit big-endian words,
   then the bytes. A .gz file may be several gzip members in a row; whatever follows the last one must be one too, so
   that bytes appended by accident are found. */
#include "idx.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

enum { MAX_DIMS = 3, WORD = 4, CHUNK = 1 << 20 };

static const int64_t max_samples = INT32_MAX; /* the order of samples is held in int32_t */
static const int64_t max_item_bytes = 1 << 24;
static const int64_t max_deflate_ratio = 1032; /* no deflate stream expands further */

static kwm_status refill(struct kwm_idx *idx) {
  idx->inflater.next_in = idx->buffer;
  idx->inflater.avail_in = (uInt)fread(idx->buffer, 1, sizeof idx->buffer, idx->file);
  KWM_CHECK(!ferror(idx->file), KWM_ERR_DATA, "data %s: wanted to read on, found: %s", idx->path, strerror(errno));
  return KWM_OK;
}

static kwm_status inflate_some(struct kwm_idx *idx) {
  z_stream *z = &idx->inflater;
  const int result = inflate(z, Z_NO_FLUSH);
  const long where = ftell(idx->file) - (long)z->avail_in;
  KWM_CHECK(result == Z_OK || result == Z_STREAM_END, KWM_ERR_DATA,
            "data %s: wanted a sound gzip stream, found it corrupt (%s) before compressed byte %ld", idx->path,
            z->msg != NULL ? z->msg : zError(result), where);
  idx->member_ended = result == Z_STREAM_END;
  if (idx->member_ended) inflateReset(z);
  return KWM_OK;
}

static kwm_status read_gz(struct kwm_idx *idx, uint8_t *data, size_t count, size_t *got) {
  z_stream *z = &idx->inflater;
  z->next_out = data;
  z->avail_out = (uInt)count;
  while (z->avail_out > 0) {
    if (z->avail_in == 0) KWM_TRY(refill(idx));
    if (z->avail_in == 0) {
      KWM_CHECK(idx->member_ended, KWM_ERR_DATA,
                "data %s: wanted a whole gzip stream, found it truncated at compressed byte %lld", idx->path,
                (long long)idx->file_bytes);
      break;
    }
    KWM_TRY(inflate_some(idx));
  }
  *got = count - z->avail_out;
  return KWM_OK;
}

static kwm_status read_plain(struct kwm_idx *idx, uint8_t *data, size_t count, size_t *got) {
  *got = fread(data, 1, count, idx->file);
  KWM_CHECK(!ferror(idx->file), KWM_ERR_DATA, "data %s: wanted to read on, found: %s", idx->path, strerror(errno));
  return KWM_OK;
}

/* *got < count (at most CHUNK) only at the end of the file. */
static kwm_status read_some(struct kwm_idx *idx, uint8_t *data, size_t count, size_t *got) {
  KWM_TRY(idx->gz ? read_gz(idx, data, count, got) : read_plain(idx, data, count, got));
  idx->crc32 = (uint32_t)crc32(idx->crc32, data, (uInt)*got);
  idx->bytes += (int64_t)*got;
  return KWM_OK;
}

static kwm_status read_exactly(struct kwm_idx *idx, uint8_t *data, int64_t count, const char *what) {
  int64_t done = 0;
  while (done < count) {
    const int64_t left = count - done;
    const size_t want = left < CHUNK ? (size_t)left : CHUNK;
    size_t got = 0;
    KWM_TRY(read_some(idx, data + done, want, &got));
    done += (int64_t)got;
    KWM_CHECK(got == want, KWM_ERR_DATA, "data %s: wanted %lld bytes of %s, found %lld", idx->path, (long long)count,
              what, (long long)done);
  }
  return KWM_OK;
}

static kwm_status set_path(struct kwm_idx *idx, const char *folder, const char *name, const char *suffix) {
  const int length = snprintf(idx->path, sizeof idx->path, "%s/%s%s", folder, name, suffix);
  KWM_CHECK(length > 0 && (size_t)length < sizeof idx->path, KWM_ERR_DATA,
            "data: wanted a path shorter than %zu bytes for %s%s, found %d", sizeof idx->path, name, suffix, length);
  idx->name = idx->path + strlen(folder) + 1;
  return KWM_OK;
}

static kwm_status check_folder(const char *folder) {
  struct stat found;
  KWM_CHECK(stat(folder, &found) == 0, KWM_ERR_DATA, "data %s: wanted a folder, found: %s", folder, strerror(errno));
  KWM_CHECK(S_ISDIR(found.st_mode), KWM_ERR_DATA, "data %s: wanted a folder, found a file", folder);
  return KWM_OK;
}

static kwm_status open_either(struct kwm_idx *idx, const char *folder, const char *name, bool *gz) {
  static const char *const suffixes[] = {"", ".gz"};
  for (int i = 0; i < 2; i++) {
    KWM_TRY(set_path(idx, folder, name, suffixes[i]));
    *gz = i == 1;
    idx->file = fopen(idx->path, "rb");
    if (idx->file != NULL) return KWM_OK;
    KWM_CHECK(errno == ENOENT, KWM_ERR_DATA, "data %s: wanted to open it, found: %s", idx->path, strerror(errno));
  }
  return KWM_RAISE(KWM_ERR_DATA, "data %s: wanted %s or %s.gz, found neither", folder, name, name);
}

static kwm_status open_stream(struct kwm_idx *idx, const char *folder, const char *name) {
  bool gz = false;
  KWM_TRY(check_folder(folder));
  KWM_TRY(open_either(idx, folder, name, &gz));
  struct stat found;
  KWM_CHECK(fstat(fileno(idx->file), &found) == 0, KWM_ERR_DATA, "data %s: wanted its size, found: %s", idx->path,
            strerror(errno));
  KWM_CHECK(S_ISREG(found.st_mode), KWM_ERR_DATA, "data %s: wanted a regular file, found another kind", idx->path);
  idx->file_bytes = found.st_size;
  if (!gz) return KWM_OK;
  const int gzip_only = MAX_WBITS + 16;
  KWM_CHECK(inflateInit2(&idx->inflater, gzip_only) == Z_OK, KWM_ERR_SYSTEM,
            "data %s: wanted memory for zlib, the machine gave none", idx->path);
  idx->gz = true;
  return KWM_OK;
}

/* A damaged header must not make the program ask for absurd memory: the size it states has to fit the file. */
static kwm_status check_size(const struct kwm_idx *idx, int64_t header_bytes) {
  const int64_t wanted = header_bytes + idx->n * idx->item_bytes;
  if (!idx->gz) {
    KWM_CHECK(wanted == idx->file_bytes, KWM_ERR_DATA,
              "data %s: wanted %lld bytes (its header says %lld samples of %lld), found %lld", idx->path,
              (long long)wanted, (long long)idx->n, (long long)idx->item_bytes, (long long)idx->file_bytes);
  } else {
    KWM_CHECK(wanted / max_deflate_ratio <= idx->file_bytes, KWM_ERR_DATA,
              "data %s: wanted %lld bytes (its header says %lld samples of %lld), found %lld compressed bytes, which "
              "can't hold them",
              idx->path, (long long)wanted, (long long)idx->n, (long long)idx->item_bytes, (long long)idx->file_bytes);
  }
  return KWM_OK;
}

static int64_t big_endian(const uint8_t *word) {
  return (int64_t)((uint32_t)word[0] << 24 | (uint32_t)word[1] << 16 | (uint32_t)word[2] << 8 | (uint32_t)word[3]);
}

static kwm_status read_header(struct kwm_idx *idx, int n_dims) {
  uint8_t header[WORD * (1 + MAX_DIMS)];
  const int64_t header_bytes = WORD * (1 + n_dims);
  KWM_TRY(read_exactly(idx, header, header_bytes, "header"));
  const int64_t magic = 0x800 + n_dims, found = big_endian(header);
  KWM_CHECK(found == magic, KWM_ERR_DATA, "data %s: wanted magic 0x%08llx, found 0x%08llx", idx->path,
            (unsigned long long)magic, (unsigned long long)found);
  idx->n = big_endian(header + WORD);
  KWM_CHECK(idx->n >= 1 && idx->n <= max_samples, KWM_ERR_DATA, "data %s: wanted 1 to %lld samples, found %lld",
            idx->path, (long long)max_samples, (long long)idx->n);
  idx->item_bytes = 1;
  for (int i = 1; i < n_dims; i++) {
    const int64_t dim = big_endian(header + WORD * (1 + i));
    KWM_CHECK(dim >= 1 && dim <= max_item_bytes / idx->item_bytes, KWM_ERR_DATA,
              "data %s: wanted images of 1 to %lld pixels, found side %d of length %lld", idx->path,
              (long long)max_item_bytes, i, (long long)dim);
    idx->item_bytes *= dim;
  }
  return check_size(idx, header_bytes);
}

kwm_status kwm_idx_open(struct kwm_idx *idx, const char *folder, const char *name, int n_dims) {
  KWM_ASSERT(n_dims >= 1 && n_dims <= MAX_DIMS);
  memset(idx, 0, sizeof *idx);
  kwm_status status = open_stream(idx, folder, name);
  if (status == KWM_OK) status = read_header(idx, n_dims);
  if (status != KWM_OK) kwm_idx_close(idx);
  return status;
}

kwm_status kwm_idx_read(struct kwm_idx *idx, uint8_t *data) {
  KWM_TRY(read_exactly(idx, data, idx->n * idx->item_bytes, "samples"));
  const int64_t wanted = idx->bytes;
  uint8_t beyond;
  size_t got = 0;
  KWM_TRY(read_some(idx, &beyond, 1, &got)); /* also makes zlib reach and check the trailer */
  KWM_CHECK(got == 0, KWM_ERR_DATA, "data %s: wanted the end after %lld bytes, found trailing bytes", idx->path,
            (long long)wanted);
  return KWM_OK;
}

void kwm_idx_close(struct kwm_idx *idx) {
  if (idx->gz) inflateEnd(&idx->inflater);
  if (idx->file != NULL) fclose(idx->file);
  idx->gz = false;
  idx->file = NULL;
}
