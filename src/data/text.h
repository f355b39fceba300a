/* A text file, plain, .xz or .gz by its name, read piece by piece. Private to the data room; local. */
#pragma once

#include <stdio.h>
#include <zlib.h>

#include "kwm/base.h"
#include "kwm/tokens.h"

#include "xz.h"

enum { KWM_TEXT_PATH = 4096, KWM_TEXT_BUFFER = 1 << 16 };

struct kwm_text {
  char path[KWM_TEXT_PATH];
  const char *name; /* the file's name inside path */
  int64_t bytes;    /* uncompressed bytes read so far */
  uint32_t crc32;   /* of those bytes */
  FILE *file;       /* NULL: closed */
  bool gz, member_ended, ended;
  z_stream inflater;
  kwm_xz *xz;
  struct kwm_span left; /* of the buffer */
  uint8_t buffer[KWM_TEXT_BUFFER];
};

/* The path of a split's file: KWM_ERR_DATA if it can't be told. Found by name and there is none: *path is "" if
   `may_lack`. */
kwm_status kwm_text_find(char path[KWM_TEXT_PATH], const struct kwm_text_source *source, enum kwm_split split,
                         bool may_lack);

/* Opens a file; also on failure the caller closes. `text` comes zeroed. */
kwm_status kwm_text_open(struct kwm_text *text, const char *path);

/* The next *got <= count bytes, fewer than count only at the end, which is checked as its format allows. */
kwm_status kwm_text_read(struct kwm_text *text, uint8_t *data, size_t count, size_t *got);
void kwm_text_close(struct kwm_text *text); /* accepts a zeroed or closed one */
