/* Three kinds of file behind one read. A .gz file may be several members in a row; whatever follows the last one must
   be one too. */
#include "text.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

static bool ends_in(const char *name, const char *suffix) {
  const size_t n = strlen(name), m = strlen(suffix);
  return n > m && strcmp(name + n - m, suffix) == 0;
}

static kwm_status start_gz(struct kwm_text *text) {
  const int gzip_only = MAX_WBITS + 16;
  KWM_CHECK(inflateInit2(&text->inflater, gzip_only) == Z_OK, KWM_ERR_SYSTEM,
            "data %s: wanted memory for zlib, the machine gave none", text->path);
  text->gz = true;
  return KWM_OK;
}

kwm_status kwm_text_open(struct kwm_text *text, const char *path) {
  snprintf(text->path, sizeof text->path, "%s", path);
  const char *const slash = strrchr(text->path, '/');
  text->name = slash != NULL ? slash + 1 : text->path;
  text->file = fopen(path, "rb");
  KWM_CHECK(text->file != NULL, KWM_ERR_DATA, "data %s: wanted to open it, found: %s", path, strerror(errno));
  struct stat found;
  KWM_CHECK(fstat(fileno(text->file), &found) == 0, KWM_ERR_DATA, "data %s: wanted its kind, found: %s", path,
            strerror(errno));
  KWM_CHECK(!S_ISDIR(found.st_mode), KWM_ERR_DATA, "data %s: wanted a file, found a folder", path);
  if (ends_in(text->name, ".gz")) return start_gz(text);
  if (ends_in(text->name, ".xz")) return kwm_xz_open(&text->xz, text->path);
  return KWM_OK;
}

static kwm_status fill(struct kwm_text *text, uint8_t *data, size_t count, size_t *got) {
  *got = fread(data, 1, count, text->file);
  KWM_CHECK(!ferror(text->file), KWM_ERR_DATA, "data %s: wanted to read on, found: %s", text->path, strerror(errno));
  return KWM_OK;
}

static kwm_status unpack_gz(struct kwm_text *text) {
  z_stream *const z = &text->inflater;
  struct kwm_span *const left = &text->left;
  z->next_in = (Bytef *)left->in;
  z->avail_in = (uInt)left->n_in;
  z->next_out = left->out;
  z->avail_out = (uInt)left->n_out;
  const int result = inflate(z, Z_NO_FLUSH);
  KWM_CHECK(result == Z_OK || result == Z_STREAM_END, KWM_ERR_DATA,
            "data %s: wanted a sound gzip stream, found it corrupt (%s) before compressed byte %lld", text->path,
            z->msg != NULL ? z->msg : zError(result), (long long)ftello(text->file) - (long long)z->avail_in);
  text->member_ended = result == Z_STREAM_END;
  if (text->member_ended) inflateReset(z);
  *left = (struct kwm_span){z->next_in, z->avail_in, z->next_out, z->avail_out};
  return KWM_OK;
}

static kwm_status end_gz(struct kwm_text *text) {
  KWM_CHECK(text->member_ended, KWM_ERR_DATA,
            "data %s: wanted a whole gzip stream, found it truncated at compressed byte %lld", text->path,
            (long long)ftello(text->file));
  text->ended = true;
  return KWM_OK;
}

static kwm_status read_packed(struct kwm_text *text, uint8_t *data, size_t count, size_t *got) {
  struct kwm_span *const left = &text->left;
  left->out = data;
  left->n_out = count;
  while (left->n_out > 0 && !text->ended) {
    if (left->n_in == 0) {
      left->in = text->buffer;
      KWM_TRY(fill(text, text->buffer, sizeof text->buffer, &left->n_in));
    }
    const bool last = left->n_in == 0;
    if (text->xz != NULL)
      KWM_TRY(kwm_xz_unpack(text->xz, left, last, &text->ended));
    else
      KWM_TRY(last ? end_gz(text) : unpack_gz(text));
  }
  *got = count - left->n_out;
  return KWM_OK;
}

kwm_status kwm_text_read(struct kwm_text *text, uint8_t *data, size_t count, size_t *got) {
  KWM_TRY(text->gz || text->xz != NULL ? read_packed(text, data, count, got) : fill(text, data, count, got));
  text->crc32 = (uint32_t)crc32(text->crc32, data, (uInt)*got);
  text->bytes += (int64_t)*got;
  return KWM_OK;
}

void kwm_text_close(struct kwm_text *text) {
  if (text->gz) inflateEnd(&text->inflater);
  kwm_xz_close(text->xz);
  if (text->file != NULL) fclose(text->file);
  text->gz = false;
  text->xz = NULL;
  text->file = NULL;
}
