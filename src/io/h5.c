/* HDF5: the only file that knows the library. Metadata carries checksums (latest format), arrays are contiguous (the
   seal sums them; in parallel HDF5 1.10 writes filtered chunks twice), texts are UTF-8 attributes of any length
   (h5py: bytes). */
#include "h5.h"

#include <hdf5.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { REASON = 256, NAME = 1024 };

struct kwm_h5 {
  hid_t file;
  MPI_Comm comm;
  enum kwm_h5_mode mode;
  const char *path;
};

static herr_t keep_innermost(unsigned n, const H5E_error2_t *error, void *text) {
  if (n == 0) snprintf(text, REASON, "%.*s", (int)strcspn(error->desc, "\n"), error->desc);
  return 0;
}

const char *kwm_h5_reason(void) {
  static char text[REASON];
  snprintf(text, sizeof text, "an HDF5 error without words");
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, keep_innermost, text);
  return text;
}

static herr_t find_write_error(unsigned n, const H5E_error2_t *error, void *found) {
  (void)n;
  if (error->min_num == H5E_WRITEERROR || error->min_num == H5E_MPI) *(bool *)found = true;
  return 0;
}

/* The status of the HDF5 call that has just failed. If that is because this rank could not write, the others may not
   know: they wait for it inside HDF5. */
static kwm_status failure(const kwm_h5 *h5) {
  int size = 1, rank = 0;
  bool alone_knows = false;
  if (h5->mode == KWM_H5_READ) return KWM_ERR_DATA;
  MPI_Comm_size(h5->comm, &size);
  MPI_Comm_rank(h5->comm, &rank);
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, find_write_error, &alone_knows);
  if (size == 1 || !alone_knows) return KWM_ERR_SYSTEM;
  fprintf(stderr, "kwm: checkpoint %s: rank %d can't write (%s) nor tell the ranks that wait for it: ending the job\n",
          h5->path, rank, kwm_h5_reason());
  MPI_Abort(h5->comm, KWM_ERR_SYSTEM);
  return KWM_ERR_SYSTEM;
}

/* ---- files */

static hid_t open_file(MPI_Comm comm, const char *path, bool writing, int64_t skip) {
  const hid_t access = H5Pcreate(H5P_FILE_ACCESS), creation = H5Pcreate(H5P_FILE_CREATE);
  H5Pset_fapl_mpio(access, comm, MPI_INFO_NULL);
  H5Pset_libver_bounds(access, H5F_LIBVER_LATEST, H5F_LIBVER_LATEST);
  H5Pset_coll_metadata_write(access, writing);
  H5Pset_fclose_degree(access, H5F_CLOSE_STRONG);
  if (writing) H5Pset_userblock(creation, (hsize_t)skip);
  const hid_t file = writing ? H5Fcreate(path, H5F_ACC_TRUNC, creation, access) : H5Fopen(path, H5F_ACC_RDONLY, access);
  if (file < 0) KWM_RAISE(KWM_ERR_SYSTEM, "checkpoint %s: wanted an HDF5 file, found: %s", path, kwm_h5_reason());
  H5Pclose(creation);
  H5Pclose(access);
  return file;
}

kwm_status kwm_h5_open(kwm_h5 **h5, MPI_Comm comm, const char *path, enum kwm_h5_mode mode, int64_t skip) {
  H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
  kwm_h5 *made = calloc(1, sizeof *made);
  KWM_ASSERT(made != NULL);
  *made = (kwm_h5){.file = open_file(comm, path, mode == KWM_H5_WRITE, skip), .comm = comm, .mode = mode, .path = path};
  const kwm_status status = made->file >= 0 ? KWM_OK : failure(made);
  if (status != KWM_OK) free(made);
  *h5 = status == KWM_OK ? made : NULL;
  return status;
}

kwm_status kwm_h5_close(kwm_h5 **h5) {
  const kwm_h5 closing = **h5;
  free(*h5);
  *h5 = NULL;
  KWM_CHECK(H5Fclose(closing.file) >= 0, failure(&closing), "checkpoint %s: wanted to close it, found: %s",
            closing.path, kwm_h5_reason());
  return KWM_OK;
}

kwm_status kwm_h5_flush(kwm_h5 *h5) {
  KWM_CHECK(H5Fflush(h5->file, H5F_SCOPE_GLOBAL) >= 0, failure(h5), "checkpoint %s: wanted it flushed, found: %s",
            h5->path, kwm_h5_reason());
  return KWM_OK;
}

kwm_status kwm_h5_probe(const char *path) {
  const hid_t access = H5Pcreate(H5P_FILE_ACCESS);
  H5Pset_file_locking(access, false, true);
  const hid_t file = H5Fopen(path, H5F_ACC_RDONLY, access);
  H5Pclose(access);
  KWM_CHECK(file >= 0, KWM_ERR_SYSTEM, "checkpoint %s: wanted it whole on the disk, found: %s", path, kwm_h5_reason());
  H5Fclose(file);
  return KWM_OK;
}

/* ---- arrays */

static hid_t memory_type(enum kwm_type type) {
  return type == KWM_F32 ? H5T_NATIVE_FLOAT : type == KWM_F64 ? H5T_NATIVE_DOUBLE : H5T_NATIVE_INT64;
}

static hid_t file_type(enum kwm_type type) {
  return type == KWM_F32 ? H5T_IEEE_F32LE : type == KWM_F64 ? H5T_IEEE_F64LE : H5T_STD_I64LE;
}

static hid_t create_dataset(const kwm_h5 *h5, const struct kwm_h5_array *array) {
  hsize_t dims[KWM_SLAB_DIMS];
  for (int d = 0; d < array->n_dims; d++) dims[d] = (hsize_t)array->dims[d];
  const hid_t space = H5Screate_simple(array->n_dims, dims, NULL);
  const hid_t links = H5Pcreate(H5P_LINK_CREATE), properties = H5Pcreate(H5P_DATASET_CREATE);
  H5Pset_create_intermediate_group(links, 1);
  H5Pset_layout(properties, H5D_CONTIGUOUS);
  H5Pset_alloc_time(properties, H5D_ALLOC_TIME_EARLY); /* so that any rank may write when it likes */
  H5Pset_fill_time(properties, H5D_FILL_TIME_NEVER);
  const hid_t dataset =
      H5Dcreate2(h5->file, array->name, file_type(array->type), space, links, properties, H5P_DEFAULT);
  if (dataset < 0)
    KWM_RAISE(failure(h5), "checkpoint %s: wanted to make array %s, found: %s", h5->path, array->name, kwm_h5_reason());
  H5Pclose(properties);
  H5Pclose(links);
  H5Sclose(space);
  return dataset;
}

kwm_status kwm_h5_array_create(kwm_h5 *h5, const struct kwm_slab *slab, struct kwm_h5_array *array) {
  *array = (struct kwm_h5_array){.h5 = h5, .name = slab->name, .type = slab->type, .n_dims = slab->n_dims};
  memcpy(array->dims, slab->dims, (size_t)slab->n_dims * sizeof *slab->dims);
  array->chunk_rows = 1;
  array->id = create_dataset(h5, array);
  array->offset = array->id >= 0 ? (int64_t)H5Dget_offset(array->id) : -1; /* empty: HADDR_UNDEF, -1 */
  return array->id >= 0 ? KWM_OK : KWM_ERR_SYSTEM;
}

/* Type and shape of an open dataset; false if it is none of ours. */
static bool inspect(struct kwm_h5_array *array) {
  const hid_t space = H5Dget_space(array->id), element = H5Dget_type(array->id);
  const hid_t properties = H5Dget_create_plist(array->id);
  hsize_t dims[KWM_SLAB_DIMS] = {0}, chunk[KWM_SLAB_DIMS] = {0};
  array->n_dims = H5Sget_simple_extent_ndims(space);
  const bool shaped =
      array->n_dims >= 1 && array->n_dims <= KWM_SLAB_DIMS && H5Sget_simple_extent_dims(space, dims, NULL) >= 0;
  chunk[0] = 1;
  const bool chunked = H5Pget_layout(properties) == H5D_CHUNKED; /* format 1 */
  const bool laid_out = shaped && (!chunked || H5Pget_chunk(properties, array->n_dims, chunk) == array->n_dims);
  const H5T_class_t class = H5Tget_class(element);
  const size_t size = H5Tget_size(element);
  H5Pclose(properties);
  H5Tclose(element);
  H5Sclose(space);
  array->type = class == H5T_INTEGER ? KWM_I64 : size == 4 ? KWM_F32 : KWM_F64;
  for (int d = 0; d < KWM_SLAB_DIMS; d++) {
    array->dims[d] = (int64_t)dims[d];
  }
  array->chunk_rows = (int64_t)chunk[0];
  return laid_out && ((class == H5T_FLOAT && (size == 4 || size == 8)) || (class == H5T_INTEGER && size == 8));
}

kwm_status kwm_h5_array_open(kwm_h5 *h5, const char *name, struct kwm_h5_array *array) {
  *array = (struct kwm_h5_array){.id = H5Dopen2(h5->file, name, H5P_DEFAULT), .h5 = h5, .name = name, .offset = -1};
  KWM_CHECK(array->id >= 0, failure(h5), "checkpoint %s: wanted array %s, found: %s", h5->path, name, kwm_h5_reason());
  KWM_CHECK(inspect(array), failure(h5),
            "checkpoint %s: %s: wanted an array of f32, f64 or i64 with 1 to %d dimensions, found another", h5->path,
            name, KWM_SLAB_DIMS);
  array->offset = (int64_t)H5Dget_offset(array->id);
  return KWM_OK;
}

void kwm_h5_array_close(struct kwm_h5_array *array) {
  if (array->id >= 0) H5Dclose(array->id);
  array->id = H5I_INVALID_HID;
}

static hid_t select_box(const struct kwm_h5_array *array, const int64_t *start, const int64_t *extent, hid_t space) {
  hsize_t from[KWM_SLAB_DIMS], count[KWM_SLAB_DIMS], n = 1;
  for (int d = 0; d < array->n_dims; d++) {
    from[d] = (hsize_t)start[d];
    count[d] = (hsize_t)extent[d];
    n *= count[d];
  }
  const hid_t memory = H5Screate_simple(array->n_dims, count, NULL);
  if (n > 0) {
    H5Sselect_hyperslab(space, H5S_SELECT_SET, from, NULL, count, NULL);
  } else {
    H5Sselect_none(space);
    H5Sselect_none(memory);
  }
  return memory;
}

kwm_status kwm_h5_move(const struct kwm_h5_array *array, const int64_t *start, const int64_t *extent, bool writing,
                       void *data) {
  const hid_t dataset = array->id, type = memory_type(array->type), transfer = H5Pcreate(H5P_DATASET_XFER);
  const hid_t space = H5Dget_space(dataset), memory = select_box(array, start, extent, space);
  H5Pset_dxpl_mpio(transfer, writing ? H5FD_MPIO_INDEPENDENT : H5FD_MPIO_COLLECTIVE);
  const herr_t done = writing ? H5Dwrite(dataset, type, memory, space, transfer, data)
                              : H5Dread(dataset, type, memory, space, transfer, data);
  kwm_status status = KWM_OK;
  if (done < 0)
    status = KWM_RAISE(failure(array->h5), "checkpoint %s: wanted to %s %s, found: %s", array->h5->path,
                       writing ? "write" : "read", array->name, kwm_h5_reason());
  H5Sclose(memory);
  H5Sclose(space);
  H5Pclose(transfer);
  return status;
}

/* ---- attributes */

/* A text of so many bytes with its end. Of fixed length: the heap in which HDF5 keeps texts of any length has no
   checksum, and a damaged one makes it loop. */
static hid_t make_text_type(size_t bytes) {
  const hid_t type = H5Tcopy(H5T_C_S1);
  H5Tset_size(type, bytes);
  H5Tset_cset(type, H5T_CSET_UTF8);
  return type;
}

static kwm_status put_attribute(kwm_h5 *h5, const char *group, const char *name, hid_t file, hid_t memory,
                                const void *value) {
  const hid_t links = H5Pcreate(H5P_LINK_CREATE), space = H5Screate(H5S_SCALAR);
  H5Pset_create_intermediate_group(links, 1);
  hid_t object = H5Oopen(h5->file, group, H5P_DEFAULT), attribute = H5I_INVALID_HID;
  if (object < 0) object = H5Gcreate2(h5->file, group, links, H5P_DEFAULT, H5P_DEFAULT);
  if (object >= 0) attribute = H5Acreate2(object, name, file, space, H5P_DEFAULT, H5P_DEFAULT);
  kwm_status status = KWM_OK;
  if (attribute < 0 || H5Awrite(attribute, memory, value) < 0)
    status = KWM_RAISE(failure(h5), "checkpoint %s: wanted to make attribute %s of %s, found: %s", h5->path, name,
                       group, kwm_h5_reason());
  if (attribute >= 0) H5Aclose(attribute);
  if (object >= 0) H5Oclose(object);
  H5Sclose(space);
  H5Pclose(links);
  return status;
}

kwm_status kwm_h5_put_i64(kwm_h5 *h5, const char *group, const char *name, int64_t value) {
  return put_attribute(h5, group, name, H5T_STD_I64LE, H5T_NATIVE_INT64, &value);
}

kwm_status kwm_h5_put_f64(kwm_h5 *h5, const char *group, const char *name, double value) {
  return put_attribute(h5, group, name, H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, &value);
}

kwm_status kwm_h5_put_text(kwm_h5 *h5, const char *group, const char *name, const char *value) {
  const hid_t type = make_text_type(strlen(value) + 1);
  const kwm_status status = put_attribute(h5, group, name, type, type, value);
  H5Tclose(type);
  return status;
}

static bool holds(hid_t attribute, H5T_class_t class) {
  const hid_t type = H5Aget_type(attribute), space = H5Aget_space(attribute);
  const bool right = H5Tget_class(type) == class && H5Sget_simple_extent_npoints(space) == 1 &&
                     (class == H5T_STRING || H5Tget_size(type) == 8);
  H5Sclose(space);
  H5Tclose(type);
  return right;
}

/* Format 1: HDF5 hands out a text of its own; ours is an ordinary malloc'ed one. */
static bool read_variable_text(hid_t attribute, hid_t type, char **value) {
  const hid_t space = H5Screate(H5S_SCALAR);
  char *text = NULL;
  const bool read = H5Aread(attribute, type, &text) >= 0;
  if (read) *value = strdup(text != NULL ? text : "");
  if (read) H5Dvlen_reclaim(type, space, H5P_DEFAULT, &text);
  H5Sclose(space);
  return read && *value != NULL;
}

static bool read_text(hid_t attribute, char **value) {
  const hid_t type = H5Aget_type(attribute);
  const bool variable = H5Tis_variable_str(type) > 0;
  *value = variable ? NULL : calloc(1, H5Tget_size(type) + 1);
  const bool fixed = !variable && *value != NULL && H5Aread(attribute, type, *value) >= 0;
  const bool read = variable ? read_variable_text(attribute, type, value) : fixed;
  H5Tclose(type);
  if (!variable && !read) free(*value), *value = NULL;
  return read;
}

/* value: int64_t, double or char * by class. */
static kwm_status read_attribute(const kwm_h5 *h5, hid_t attribute, const char *name, H5T_class_t class, void *value) {
  KWM_CHECK(attribute >= 0, failure(h5), "checkpoint %s: wanted attribute %s, found: %s", h5->path, name,
            kwm_h5_reason());
  const char *const words = class == H5T_STRING    ? "one text"
                            : class == H5T_INTEGER ? "one 64-bit integer"
                                                   : "one 64-bit number";
  KWM_CHECK(holds(attribute, class), failure(h5), "checkpoint %s: attribute %s: wanted %s, found another type",
            h5->path, name, words);
  const bool read = class == H5T_STRING
                        ? read_text(attribute, value)
                        : H5Aread(attribute, class == H5T_INTEGER ? H5T_NATIVE_INT64 : H5T_NATIVE_DOUBLE, value) >= 0;
  KWM_CHECK(read, failure(h5), "checkpoint %s: attribute %s: wanted %s, found: %s", h5->path, name, words,
            kwm_h5_reason());
  return KWM_OK;
}

static kwm_status get_attribute(kwm_h5 *h5, const char *group, const char *name, H5T_class_t class, void *value) {
  char full[NAME];
  snprintf(full, sizeof full, "%s of %s", name, group);
  const hid_t attribute = H5Aopen_by_name(h5->file, group, name, H5P_DEFAULT, H5P_DEFAULT);
  const kwm_status status = read_attribute(h5, attribute, full, class, value);
  if (attribute >= 0) H5Aclose(attribute);
  return status;
}

kwm_status kwm_h5_get_i64(kwm_h5 *h5, const char *group, const char *name, int64_t *value) {
  return get_attribute(h5, group, name, H5T_INTEGER, value);
}

kwm_status kwm_h5_get_f64(kwm_h5 *h5, const char *group, const char *name, double *value) {
  return get_attribute(h5, group, name, H5T_FLOAT, value);
}

kwm_status kwm_h5_get_text(kwm_h5 *h5, const char *group, const char *name, char **value) {
  *value = NULL;
  return get_attribute(h5, group, name, H5T_STRING, value);
}

/* ---- the whole file */

struct walk {
  kwm_h5 *h5;
  kwm_status status;
  void (*visit)(void *context, const char *name, enum kwm_type type, int n_dims, const int64_t *dims);
  void *context;
};

static herr_t walk_link(hid_t root, const char *name, const H5L_info_t *info, void *context) {
  (void)info;
  struct walk *walk = context;
  struct kwm_h5_array array;
  char full[NAME];
  snprintf(full, sizeof full, "/%s", name);
  const hid_t object = H5Oopen(root, name, H5P_DEFAULT);
  const bool is_array = object >= 0 && H5Iget_type(object) == H5I_DATASET;
  if (object >= 0) H5Oclose(object);
  if (!is_array) return object >= 0 ? 0 : -1;
  walk->status = kwm_h5_array_open(walk->h5, full, &array);
  if (walk->status == KWM_OK) walk->visit(walk->context, full, array.type, array.n_dims, array.dims);
  kwm_h5_array_close(&array);
  return walk->status == KWM_OK ? 0 : -1;
}

kwm_status kwm_h5_list(kwm_h5 *h5,
                       void (*visit)(void *context, const char *name, enum kwm_type type, int n_dims,
                                     const int64_t *dims),
                       void *context) {
  struct walk walk = {.h5 = h5, .visit = visit, .context = context};
  const herr_t done = H5Lvisit(h5->file, H5_INDEX_NAME, H5_ITER_INC, walk_link, &walk);
  KWM_TRY(walk.status);
  KWM_CHECK(done >= 0, failure(h5), "checkpoint %s: wanted what is in it, found: %s", h5->path, kwm_h5_reason());
  return KWM_OK;
}

const char *kwm_ckpt_version(void) {
  static char text[32];
  unsigned major = 0, minor = 0, release = 0;
  H5get_libversion(&major, &minor, &release);
  snprintf(text, sizeof text, "%u.%u.%u", major, minor, release);
  return text;
}
