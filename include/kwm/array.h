/* Arrays in other people's HDF5 files. Local: the file is opened by the calling process alone. */
#pragma once

#include "kwm/base.h"

/* *values (rows, columns) <- dataset `name` of one or two dimensions and any number type, as doubles; kwm_free it.
   KWM_ERR_DATA: no such file or dataset, or of another kind. */
kwm_status kwm_array_read(const char *path, const char *name, int64_t *rows, int64_t *columns, double **values);
