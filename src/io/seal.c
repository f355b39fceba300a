/* Verification goes around MPI-IO, each rank for itself: damage that only some ranks meet can't leave the others
   waiting in a collective read, and a file that passed holds no surprise for collective ones. */
#include "seal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kwm/par.h"

static const char format_name[] = "kwm-checkpoint";
static const int64_t format_version = 1;

uint64_t kwm_seal_text(const char *text) {
  uint64_t hash = 0xcbf29ce484222325u; /* FNV-1a */
  for (; *text != '\0'; text++) hash = (hash ^ (unsigned char)*text) * 0x100000001b3u;
  return hash;
}

kwm_status kwm_seal_begin(kwm_h5 *h5, int rank, uint64_t *sum) {
  *sum = rank == 0 ? kwm_seal_text(format_name) : 0;
  KWM_TRY(kwm_h5_put_text(h5, "/", "format", format_name));
  return kwm_h5_put_i64(h5, "/", "format_version", format_version);
}

kwm_status kwm_seal_end(kwm_h5 *h5, MPI_Comm comm, uint64_t sum) {
  uint64_t total = 0;
  MPI_Allreduce(&sum, &total, 1, MPI_UINT64_T, MPI_SUM, comm);
  return kwm_h5_put_i64(h5, "/", "sum", (int64_t)total);
}

struct survey {
  int rank, size;
  uint64_t sum; /* of this rank's share */
};

static kwm_status add_text(void *context, const char *value) {
  struct survey *survey = context;
  if (survey->rank == 0) survey->sum += kwm_seal_text(value);
  return KWM_OK;
}

/* Reads chunk number `index` (row-major in the grid of chunks) into buffer and adds it up. */
static kwm_status add_chunk(struct survey *survey, const struct kwm_h5_array *array, int64_t index, void *buffer) {
  int64_t start[KWM_SLAB_DIMS], extent[KWM_SLAB_DIMS], n = 1;
  for (int d = array->n_dims - 1; d >= 0; d--) {
    const int64_t chunk = array->chunk[d], across = (array->dims[d] + chunk - 1) / chunk;
    start[d] = index % across * chunk;
    extent[d] = array->dims[d] - start[d] < chunk ? array->dims[d] - start[d] : chunk;
    n *= extent[d];
    index /= across;
  }
  KWM_TRY(kwm_h5_move(array, start, extent, false, buffer));
  survey->sum += kwm_slab_sum(array->type, n, buffer);
  return KWM_OK;
}

static kwm_status add_array(void *context, const struct kwm_h5_array *array) {
  struct survey *survey = context;
  const int64_t n = kwm_slab_chunks(array->n_dims, array->dims, array->chunk);
  const int64_t first = n * survey->rank / survey->size, last = n * (survey->rank + 1) / survey->size;
  int64_t bytes = kwm_slab_element_bytes(array->type);
  for (int d = 0; d < array->n_dims; d++) bytes *= array->chunk[d];
  void *buffer = NULL;
  if (first < last) KWM_TRY(kwm_alloc(&buffer, (size_t)bytes, "one chunk of a checkpoint"));
  kwm_status status = KWM_OK;
  for (int64_t index = first; index < last && status == KWM_OK; index++)
    status = add_chunk(survey, array, index, buffer);
  kwm_free(buffer);
  return status;
}

static kwm_status check_format(kwm_h5 *h5, const char *path) {
  char *name = NULL;
  int64_t version = 0;
  KWM_TRY(kwm_h5_get_text(h5, "/", "format", &name));
  const bool ours = strcmp(name, format_name) == 0;
  free(name);
  KWM_CHECK(ours, KWM_ERR_DATA, "checkpoint %s: wanted format %s, found another", path, format_name);
  KWM_TRY(kwm_h5_get_i64(h5, "/", "format_version", &version));
  KWM_CHECK(version == format_version, KWM_ERR_DATA, "checkpoint %s: wanted format version %lld, found %lld", path,
            (long long)format_version, (long long)version);
  return KWM_OK;
}

static kwm_status verify_share(struct survey *survey, MPI_Comm comm, const char *path, int64_t *sum) {
  kwm_h5 *h5 = NULL;
  KWM_CHECK(access(path, R_OK) == 0, KWM_ERR_DATA, "checkpoint %s: wanted to read it, found: %s", path,
            strerror(errno));
  KWM_TRY(kwm_h5_open(&h5, comm, path, KWM_H5_ALONE));
  const struct kwm_h5_visitor visitor = {.array = add_array, .text = add_text, .context = survey};
  kwm_status status = check_format(h5, path);
  if (status == KWM_OK) status = kwm_h5_get_i64(h5, "/", "sum", sum);
  if (status == KWM_OK) status = kwm_h5_walk(h5, &visitor);
  const kwm_status closed = kwm_h5_close(&h5);
  return status != KWM_OK ? status : closed;
}

kwm_status kwm_seal_verify(MPI_Comm comm, const char *path) {
  struct survey survey = {0};
  MPI_Comm_rank(comm, &survey.rank);
  MPI_Comm_size(comm, &survey.size);
  int64_t wanted = 0;
  uint64_t found = 0;
  KWM_TRY(kwm_agree(comm, verify_share(&survey, comm, path, &wanted)));
  MPI_Allreduce(&survey.sum, &found, 1, MPI_UINT64_T, MPI_SUM, comm);
  KWM_CHECK((uint64_t)wanted == found, KWM_ERR_DATA, "checkpoint %s: wanted contents with sum %016llx, found %016llx",
            path, (unsigned long long)wanted, (unsigned long long)found);
  return KWM_OK;
}
