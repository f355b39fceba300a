/* One IDX file (plain or gzip) read as a stream: big-endian header, then bytes. Nothing is held but a small input
   buffer, so a file's peak memory is the array that its caller reads into. Local. */
#pragma once

#include <stdio.h>
#include <zlib.h>

#include "kwm/base.h"

enum { KWM_IDX_PATH = 4096, KWM_IDX_BUFFER = 1 << 15 };

struct kwm_idx {
  int64_t n, item_bytes; /* samples; bytes per sample */
  int64_t bytes;         /* uncompressed bytes read so far, header included */
  uint32_t crc32;        /* of those bytes */
  char path[KWM_IDX_PATH];
  const char *name; /* the file's name inside path */
  FILE *file;       /* NULL: closed */
  int64_t file_bytes;
  bool gz, member_ended; /* member_ended: the last gzip member was complete */
  z_stream inflater;
  uint8_t buffer[KWM_IDX_BUFFER];
};

/* Opens FOLDER/NAME, or FOLDER/NAME.gz if there is no plain one, and reads its header of 1 (labels) or 3 (images)
   dimensions. KWM_ERR_DATA if there is no such file or the header is not believable; *idx is then closed. */
kwm_status kwm_idx_open(struct kwm_idx *idx, const char *folder, const char *name, int n_dims);

/* Reads all n * item_bytes bytes into data and makes sure that nothing follows and the gzip checksum holds. */
kwm_status kwm_idx_read(struct kwm_idx *idx, uint8_t *data);

/* Accepts a closed or zeroed one. */
void kwm_idx_close(struct kwm_idx *idx);
