/* Private to io: HDF5 without its types. A status here is this rank's own, to be agreed on by the caller. Writing fails
   with KWM_ERR_SYSTEM, reading with KWM_ERR_DATA. */
#pragma once

#include <mpi.h>

#include "slab.h"

typedef struct kwm_h5 kwm_h5;

enum kwm_h5_mode {
  KWM_H5_WRITE, /* new file, through MPI-IO: every call is collective */
  KWM_H5_READ,  /* through MPI-IO: kwm_h5_move is collective */
  KWM_H5_ALONE, /* read by each rank for itself: nothing is collective */
};

/* comm and path are borrowed until the file is closed; opening through MPI-IO is collective. *h5 is NULL on failure. */
kwm_status kwm_h5_open(kwm_h5 **h5, MPI_Comm comm, const char *path, enum kwm_h5_mode mode);

/* Frees *h5 also on failure. */
kwm_status kwm_h5_close(kwm_h5 **h5);
kwm_status kwm_h5_flush(kwm_h5 *h5);

/* Where the file ends now. */
int64_t kwm_h5_end(const kwm_h5 *h5);

/* An open array. */
struct kwm_h5_array {
  int64_t id; /* HDF5's; below 0 if not open */
  const kwm_h5 *h5;
  const char *name;
  enum kwm_type type;
  int n_dims;
  int64_t dims[KWM_SLAB_DIMS], chunk[KWM_SLAB_DIMS];
};

/* Fill `array` (to be closed also on failure); name is borrowed. Parent groups are made. */
kwm_status kwm_h5_array_create(kwm_h5 *h5, const struct kwm_slab *slab, struct kwm_h5_array *array);
kwm_status kwm_h5_array_open(kwm_h5 *h5, const char *name, struct kwm_h5_array *array);
void kwm_h5_array_close(struct kwm_h5_array *array);

/* Writes or reads the box [start, start + extent) of the array; an extent of 0 moves nothing (data then ignored). */
kwm_status kwm_h5_move(const struct kwm_h5_array *array, const int64_t *start, const int64_t *extent, bool writing,
                       void *data);

/* Attributes; a missing group is made. */
kwm_status kwm_h5_put_i64(kwm_h5 *h5, const char *group, const char *name, int64_t value);
kwm_status kwm_h5_put_f64(kwm_h5 *h5, const char *group, const char *name, double value);
kwm_status kwm_h5_put_text(kwm_h5 *h5, const char *group, const char *name, const char *value);
kwm_status kwm_h5_get_i64(kwm_h5 *h5, const char *group, const char *name, int64_t *value);
kwm_status kwm_h5_get_f64(kwm_h5 *h5, const char *group, const char *name, double *value);
kwm_status kwm_h5_get_text(kwm_h5 *h5, const char *group, const char *name, char **value); /* malloc'ed */

/* Calls array for every array, in name order, and text for the value of every text attribute; either may be NULL. The
   first status other than KWM_OK ends the walk and is returned. */
struct kwm_h5_visitor {
  kwm_status (*array)(void *context, const struct kwm_h5_array *array);
  kwm_status (*text)(void *context, const char *value);
  void *context;
};
kwm_status kwm_h5_walk(kwm_h5 *h5, const struct kwm_h5_visitor *visitor);
