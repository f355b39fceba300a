/* An array of anybody's HDF5 file. */
#include "kwm/array.h"

#include <hdf5.h>

#include "h5.h"

static kwm_status read_array(hid_t file, const char *path, const char *name, int64_t *rows, int64_t *columns,
                             double **values) {
  hsize_t dims[2] = {0, 1};
  const hid_t set = H5Dopen2(file, name, H5P_DEFAULT);
  KWM_CHECK(set >= 0, KWM_ERR_DATA, "data %s: wanted dataset %s, found: %s", path, name, kwm_h5_reason());
  const hid_t space = H5Dget_space(set), type = H5Dget_type(set);
  const int n_dims = H5Sget_simple_extent_ndims(space);
  const bool numbers = H5Tget_class(type) == H5T_FLOAT || H5Tget_class(type) == H5T_INTEGER;
  const bool right = numbers && n_dims >= 1 && n_dims <= 2 && H5Sget_simple_extent_dims(space, dims, NULL) >= 0;
  H5Tclose(type);
  H5Sclose(space);
  kwm_status status =
      right ? KWM_OK : KWM_RAISE(KWM_ERR_DATA, "data %s: %s: wanted numbers in one or two dimensions", path, name);
  *rows = (int64_t)dims[0], *columns = (int64_t)dims[1];
  if (status == KWM_OK) status = kwm_alloc((void **)values, (size_t)(dims[0] * dims[1] + 1) * sizeof(double), name);
  if (status == KWM_OK && H5Dread(set, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, *values) < 0)
    status = KWM_RAISE(KWM_ERR_DATA, "data %s: wanted to read %s, found: %s", path, name, kwm_h5_reason());
  H5Dclose(set);
  return status;
}

kwm_status kwm_array_read(const char *path, const char *name, int64_t *rows, int64_t *columns, double **values) {
  H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
  *values = NULL;
  const hid_t file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
  KWM_CHECK(file >= 0, KWM_ERR_DATA, "data %s: wanted an HDF5 file, found: %s", path, kwm_h5_reason());
  const kwm_status status = read_array(file, path, name, rows, columns, values);
  H5Fclose(file);
  if (status == KWM_OK) return KWM_OK;
  kwm_free(*values);
  *values = NULL;
  return status;
}
