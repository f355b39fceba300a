/* Private to io: what makes an HDF5 file a checkpoint: root attributes `format`, `format_version` and `sum`. `sum` is the
   element bits of all arrays and the hashes of all texts, added modulo 2^64: no split over ranks changes it. It covers
   what no checksum of HDF5 does: texts, and a chunk that never reached the disk (zeros are their own Fletcher-32). */
#pragma once

#include "h5.h"

/* Puts the format; *sum becomes this rank's share so far. This rank's status. */
kwm_status kwm_seal_begin(kwm_h5 *h5, int rank, uint64_t *sum);

/* What a text adds to the sum. */
uint64_t kwm_seal_text(const char *text);

/* Collective over comm: puts the ranks' shares, added up. This rank's status. */
kwm_status kwm_seal_end(kwm_h5 *h5, MPI_Comm comm, uint64_t sum);

/* Collective, agreed: reads the file at `path` once, the work spread over the ranks, and checks everything there is to
   check. KWM_ERR_DATA if it is missing, damaged, truncated, of another format or version, or was never sealed. */
kwm_status kwm_seal_verify(MPI_Comm comm, const char *path);
