/* Reading a checkpoint: HDF5 opens only a file whose seal is unbroken. */
#include <stdlib.h>
#include <string.h>

#include "ckpt_state.h"
#include "kwm/log.h"
#include "kwm/par.h"
#include "seal.h"
#include "steps.h"

/* Length, and sum of all bytes behind the seal; the work is spread over the ranks. */
static kwm_status sum_file(MPI_Comm comm, const char *path, int64_t *bytes, struct kwm_seal *seal) {
  int rank = 0, size = 0;
  MPI_Comm_rank(comm, &rank);
  MPI_Comm_size(comm, &size);
  KWM_TRY(kwm_agree(comm, kwm_seal_sum(path, rank, size, bytes, seal)));
  MPI_Allreduce(MPI_IN_PLACE, &seal->sum, 1, MPI_UINT64_T, MPI_SUM, comm);
  return KWM_OK;
}

static kwm_status check_seal(MPI_Comm comm, const char *path) {
  struct kwm_seal wanted = {0};
  int64_t bytes = 0;
  KWM_TRY(kwm_agree(comm, kwm_seal_read(path, &wanted)));
  struct kwm_seal found = wanted;
  KWM_TRY(sum_file(comm, path, &bytes, &found));
  KWM_CHECK(wanted.sum == found.sum, KWM_ERR_DATA,
            "checkpoint %s: wanted contents with sum %016llx, found %016llx (damaged)", path,
            (unsigned long long)wanted.sum, (unsigned long long)found.sum);
  return KWM_OK;
}

static kwm_status check_format(kwm_h5 *h5, const char *path) {
  char *name = NULL;
  int64_t version = 0;
  KWM_TRY(kwm_h5_get_text(h5, "/", "format", &name));
  const bool ours = strcmp(name, CKPT_FORMAT) == 0;
  free(name);
  KWM_CHECK(ours, KWM_ERR_DATA, "checkpoint %s: wanted format %s, found another", path, CKPT_FORMAT);
  KWM_TRY(kwm_h5_get_i64(h5, "/", "format_version", &version));
  KWM_CHECK(version == 1 || version == CKPT_VERSION, KWM_ERR_DATA,
            "checkpoint %s: wanted format version %lld, found %lld", path, (long long)CKPT_VERSION, (long long)version);
  return KWM_OK;
}

kwm_status kwm_ckpt_open(kwm_ckpt **ckpt, MPI_Comm comm, const char *path) {
  *ckpt = NULL;
  KWM_CHECK(strlen(path) < KWM_FILE_PATH, KWM_ERR_DATA, "checkpoint %.200s...: wanted a path below %d bytes", path,
            KWM_FILE_PATH);
  KWM_ASSERT(ckpt_may_call_hdf5());
  KWM_TRY(check_seal(comm, path));
  kwm_ckpt *made = ckpt_make(comm, false);
  strncpy(made->path, path, sizeof made->path - 1);
  kwm_status status = kwm_agree(comm, kwm_h5_open(&made->h5, comm, made->path, KWM_H5_READ, 0));
  if (status == KWM_OK) status = kwm_agree(comm, check_format(made->h5, path));
  if (status != KWM_OK) kwm_ckpt_close(&made);
  *ckpt = made;
  return status;
}

/* The folder as rank 0 sees it, on every rank. */
kwm_status kwm_ckpt_steps(MPI_Comm comm, const char *dir, int64_t **steps, int64_t *n) {
  int rank = 0;
  MPI_Comm_rank(comm, &rank);
  *steps = NULL;
  *n = 0;
  KWM_TRY(kwm_agree(comm, rank == 0 ? kwm_steps_list(dir, steps, n) : KWM_OK));
  MPI_Bcast(n, 1, MPI_INT64_T, 0, comm);
  if (rank != 0) *steps = calloc((size_t)*n, sizeof **steps);
  KWM_ASSERT(*steps != NULL);
  MPI_Bcast(*steps, kwm_int(*n), MPI_INT64_T, 0, comm);
  return KWM_OK;
}

kwm_status kwm_ckpt_open_step(kwm_ckpt **ckpt, MPI_Comm comm, const char *dir, int64_t step) {
  char path[KWM_FILE_PATH];
  *ckpt = NULL;
  KWM_TRY(kwm_steps_path(path, dir, step, ""));
  return kwm_ckpt_open(ckpt, comm, path);
}

kwm_status kwm_ckpt_open_newest(kwm_ckpt **ckpt, MPI_Comm comm, const char *dir) {
  int64_t *steps, n;
  *ckpt = NULL;
  KWM_TRY(kwm_ckpt_steps(comm, dir, &steps, &n));
  kwm_status status = KWM_ERR_DATA;
  for (int64_t i = 0; i < n && status == KWM_ERR_DATA; i++) {
    status = kwm_ckpt_open_step(ckpt, comm, dir, steps[i]);
    if (status == KWM_ERR_DATA) kwm_log(KWM_LOG_WARNING, "damaged, passed over: %s", kwm_error_message());
  }
  free(steps);
  if (status != KWM_ERR_DATA) return status;
  return KWM_RAISE(KWM_ERR_DATA, "checkpoint folder %s: wanted one good step-*.h5, found %lld, all damaged", dir,
                   (long long)n);
}

const char *kwm_ckpt_path(const kwm_ckpt *ckpt) {
  return ckpt->path;
}

kwm_status kwm_ckpt_shape(kwm_ckpt *ckpt, const char *name, int *n_dims, int64_t *dims) {
  struct kwm_h5_array array;
  kwm_status status = kwm_h5_array_open(ckpt->h5, name, &array);
  if (status == KWM_OK && array.n_dims > *n_dims)
    status = KWM_RAISE(KWM_ERR_DATA, "checkpoint %s: %s: wanted at most %d dimensions, found %d", ckpt->path, name,
                       *n_dims, array.n_dims);
  kwm_h5_array_close(&array);
  KWM_TRY(kwm_agree(ckpt->comm, status));
  *n_dims = array.n_dims;
  memcpy(dims, array.dims, (size_t)array.n_dims * sizeof *dims);
  return KWM_OK;
}

/* In as many collective calls on every rank. */
static kwm_status read_slab(const kwm_ckpt *ckpt, const struct kwm_h5_array *array, const struct kwm_slab *slab,
                            char *data) {
  const struct ckpt_window window = ckpt_window_of(array, slab);
  int64_t rounds = window.rounds;
  MPI_Allreduce(MPI_IN_PLACE, &rounds, 1, MPI_INT64_T, MPI_MAX, ckpt->comm);
  for (int64_t round = 0; round < rounds; round++)
    KWM_TRY(kwm_agree(ckpt->comm, ckpt_move_window(array, slab, &window, round, false, data)));
  return KWM_OK;
}

kwm_status kwm_ckpt_get(kwm_ckpt *ckpt, const char *name, enum kwm_type type, int n_dims, const int64_t *dims,
                        int64_t first, int64_t count, void *data) {
  const struct kwm_slab slab = {name, type, n_dims, dims, first, count};
  struct kwm_h5_array array = {.id = -1};
  KWM_ASSERT(!ckpt->writing);
  ckpt_check_slab(&slab);
  kwm_status status = kwm_agree(ckpt->comm, ckpt_open_as(ckpt, &slab, &array));
  if (status == KWM_OK) status = read_slab(ckpt, &array, &slab, data);
  kwm_h5_array_close(&array);
  return status;
}

kwm_status kwm_ckpt_get_i64(kwm_ckpt *ckpt, const char *group, const char *name, int64_t *value) {
  return kwm_agree(ckpt->comm, kwm_h5_get_i64(ckpt->h5, group, name, value));
}

kwm_status kwm_ckpt_get_f64(kwm_ckpt *ckpt, const char *group, const char *name, double *value) {
  return kwm_agree(ckpt->comm, kwm_h5_get_f64(ckpt->h5, group, name, value));
}

kwm_status kwm_ckpt_get_text(kwm_ckpt *ckpt, const char *group, const char *name, char **value) {
  const kwm_status status = kwm_agree(ckpt->comm, kwm_h5_get_text(ckpt->h5, group, name, value));
  if (status == KWM_OK) return KWM_OK;
  free(*value);
  *value = NULL;
  return status;
}

kwm_status kwm_ckpt_list(kwm_ckpt *ckpt,
                         void (*visit)(void *context, const char *name, enum kwm_type type, int n_dims,
                                       const int64_t *dims),
                         void *context) {
  return kwm_agree(ckpt->comm, kwm_h5_list(ckpt->h5, visit, context));
}

void kwm_ckpt_close(kwm_ckpt **ckpt) {
  if (*ckpt == NULL) return;
  if ((*ckpt)->h5 != NULL) (void)kwm_h5_close(&(*ckpt)->h5);
  ckpt_destroy(ckpt);
}
