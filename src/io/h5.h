/* Private to io: parallel HDF5 without its types. A status here is this rank's own, to be agreed on by the caller.
   Writing fails with KWM_ERR_SYSTEM, reading with KWM_ERR_DATA. A rank that meets an I/O error in the middle of a
   collective write (headers; arrays are each rank's own to write) can't tell the others, who wait inside HDF5: it ends
   the job with a message. */
#pragma once

#include <mpi.h>

#include "slab.h"

typedef struct kwm_h5 kwm_h5;

/* Why the last HDF5 call failed, in its own words; static storage. */
const char *kwm_h5_reason(void);

enum kwm_h5_mode {
  KWM_H5_WRITE, /* a new file; every call but kwm_h5_move is collective */
  KWM_H5_READ,  /* opening, closing and kwm_h5_move are collective */
};

/* comm and path are borrowed until the file is closed. A new file begins with `skip` bytes (512 or a larger power
   of two) that HDF5 leaves alone. *h5 is NULL on failure. */
kwm_status kwm_h5_open(kwm_h5 **h5, MPI_Comm comm, const char *path, enum kwm_h5_mode mode, int64_t skip);

/* Frees *h5 also on failure. */
kwm_status kwm_h5_close(kwm_h5 **h5);
kwm_status kwm_h5_flush(kwm_h5 *h5);

/* Local: opens the closed file at `path` once more, without MPI-IO: HDF5 compares its length with what was written. */
kwm_status kwm_h5_probe(const char *path);

/* An open array. */
struct kwm_h5_array {
  int64_t id; /* HDF5's; below 0 if not open */
  const kwm_h5 *h5;
  const char *name;
  enum kwm_type type;
  int n_dims;
  int64_t dims[KWM_SLAB_DIMS], chunk_rows; /* rows of a chunk, 1 if there are none */
  int64_t offset;                          /* of its first byte in the file; below 0: in chunks, or empty */
};

/* Fill `array` (to be closed also on failure); name is borrowed. Parent groups are made. */
kwm_status kwm_h5_array_create(kwm_h5 *h5, const struct kwm_slab *slab, struct kwm_h5_array *array);
kwm_status kwm_h5_array_open(kwm_h5 *h5, const char *name, struct kwm_h5_array *array);
void kwm_h5_array_close(struct kwm_h5_array *array);

/* Writes (each rank for itself) or reads (collective) the box [start, start + extent) of the array; an extent of 0
   moves nothing (data then ignored). */
kwm_status kwm_h5_move(const struct kwm_h5_array *array, const int64_t *start, const int64_t *extent, bool writing,
                       void *data);

/* Attributes; a missing group is made. */
kwm_status kwm_h5_put_i64(kwm_h5 *h5, const char *group, const char *name, int64_t value);
kwm_status kwm_h5_put_f64(kwm_h5 *h5, const char *group, const char *name, double value);
kwm_status kwm_h5_put_text(kwm_h5 *h5, const char *group, const char *name, const char *value);
kwm_status kwm_h5_get_i64(kwm_h5 *h5, const char *group, const char *name, int64_t *value);
kwm_status kwm_h5_get_f64(kwm_h5 *h5, const char *group, const char *name, double *value);
kwm_status kwm_h5_get_text(kwm_h5 *h5, const char *group, const char *name, char **value); /* malloc'ed */

/* Calls visit for every array, in name order. */
kwm_status kwm_h5_list(kwm_h5 *h5,
                       void (*visit)(void *context, const char *name, enum kwm_type type, int n_dims,
                                     const int64_t *dims),
                       void *context);
