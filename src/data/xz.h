/* The .xz format by liblzma, as a stream. Private to the data room; local. */
#pragma once

#include "kwm/base.h"

typedef struct kwm_xz kwm_xz;

/* What is left of the input and of the output. */
struct kwm_span {
  const uint8_t *in;
  size_t n_in;
  uint8_t *out;
  size_t n_out;
};

/* `path` is for messages and is borrowed until kwm_xz_close. */
kwm_status kwm_xz_open(kwm_xz **xz, const char *path);

/* Unpacks until the input or the output is used up, and moves both on; `last`: no input comes after this. *ended: the
   file is whole and its checksums hold (several streams in a row are one file). KWM_ERR_DATA if it is corrupt or
   truncated. */
kwm_status kwm_xz_unpack(kwm_xz *xz, struct kwm_span *span, bool last, bool *ended);
void kwm_xz_close(kwm_xz *xz); /* accepts NULL */
