/* Private to io: the first bytes of a checkpoint file, HDF5's user block, as plain text: what the file is, its length and
   the sum of all other bytes. HDF5's own checksums stay silent about texts, and about a chunk of zeros where data should
   be; and HDF5 can crash or loop on a damaged file. So it opens only what carries an unbroken seal. */
#pragma once

#include <mpi.h>

#include "kwm/base.h"

enum { KWM_SEAL_BYTES = 512 };

/* Collective, agreed: seals the closed and synced file at `path`, forcing the seal to the disk. */
kwm_status kwm_seal_put(MPI_Comm comm, const char *path);

/* Collective, agreed: reads every byte once, the work spread over the ranks. KWM_ERR_DATA if the file is missing, was
   never sealed, is truncated or differs in any byte. */
kwm_status kwm_seal_check(MPI_Comm comm, const char *path);
