/* liblzma's stream decoder. The memory it takes is what the file's dictionary asks for (64 MB at xz -9): bounded, so
   that a damaged or hostile header can't ask for more. */
#include "xz.h"

#include <lzma.h>

static const uint64_t memory_limit = 512ull << 20;

struct kwm_xz {
  lzma_stream stream;
  const char *path;
};

kwm_status kwm_xz_open(kwm_xz **xz, const char *path) {
  void *memory = NULL;
  *xz = NULL;
  KWM_TRY(kwm_alloc(&memory, sizeof **xz, "an .xz file's decoder"));
  kwm_xz *const self = memory;
  self->path = path;
  self->stream = (lzma_stream)LZMA_STREAM_INIT;
  if (lzma_stream_decoder(&self->stream, memory_limit, LZMA_CONCATENATED) != LZMA_OK) {
    kwm_free(self);
    return KWM_RAISE(KWM_ERR_SYSTEM, "data %s: wanted memory for liblzma, the machine gave none", path);
  }
  *xz = self;
  return KWM_OK;
}

static kwm_status raise_for(const kwm_xz *xz, lzma_ret result) {
  const unsigned long long at = xz->stream.total_in;
  switch (result) {
  case LZMA_BUF_ERROR:
    return KWM_RAISE(KWM_ERR_DATA, "data %s: wanted a whole xz stream, found it truncated at compressed byte %llu",
                     xz->path, at);
  case LZMA_MEM_ERROR:
    return KWM_RAISE(KWM_ERR_SYSTEM, "data %s: wanted memory for liblzma, the machine gave none", xz->path);
  case LZMA_MEMLIMIT_ERROR:
    return KWM_RAISE(KWM_ERR_DATA,
                     "data %s: wanted an xz stream that unpacks in %llu bytes of memory, found it asks for more",
                     xz->path, (unsigned long long)memory_limit);
  case LZMA_FORMAT_ERROR:
    return KWM_RAISE(KWM_ERR_DATA, "data %s: wanted an xz stream, found no xz header before compressed byte %llu",
                     xz->path, at);
  default:
    return KWM_RAISE(KWM_ERR_DATA, "data %s: wanted a sound xz stream, found it corrupt before compressed byte %llu",
                     xz->path, at);
  }
}

kwm_status kwm_xz_unpack(kwm_xz *xz, struct kwm_span *span, bool last, bool *ended) {
  lzma_stream *const stream = &xz->stream;
  stream->next_in = span->in;
  stream->avail_in = span->n_in;
  stream->next_out = span->out;
  stream->avail_out = span->n_out;
  lzma_ret result = LZMA_OK;
  while (result == LZMA_OK && stream->avail_out > 0 && (stream->avail_in > 0 || last))
    result = lzma_code(stream, last ? LZMA_FINISH : LZMA_RUN);
  if (result != LZMA_OK && result != LZMA_STREAM_END) return raise_for(xz, result);
  *ended = result == LZMA_STREAM_END;
  *span = (struct kwm_span){stream->next_in, stream->avail_in, stream->next_out, stream->avail_out};
  return KWM_OK;
}

void kwm_xz_close(kwm_xz *xz) {
  if (xz == NULL) return;
  lzma_end(&xz->stream);
  kwm_free(xz);
}
