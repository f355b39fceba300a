/* Private to io: room on the disk for a file that HDF5 is going to write. Local. */
#pragma once

#include "kwm/base.h"

/* Makes `dir` and the empty file `part` in it; KWM_ERR_SYSTEM if either can't be, or if the disk has less than `bytes`
 * free. */
kwm_status kwm_room_open(int *file, const char *dir, const char *part, int64_t bytes);

/* Makes sure that the next `bytes` of the file behind *reserved have a place on the disk, and counts them. */
kwm_status kwm_room_take(int file, const char *part, int64_t bytes, int64_t *reserved);
