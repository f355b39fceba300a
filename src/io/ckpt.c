/* The life of a checkpoint file. Writing: room is reserved on the disk before HDF5 writes into it (an error in the
   middle of a collective write can't be agreed on), all goes to a .part file, which is closed, synced, sealed and
   renamed. Reading: HDF5 opens only a file whose seal is unbroken. */
#include "kwm/ckpt.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "file.h"
#include "h5.h"
#include "kwm/fault.h"
#include "kwm/log.h"
#include "kwm/par.h"
#include "room.h"
#include "seal.h"
#include "steps.h"

enum {
  WINDOW_BYTES = 16 << 20, /* per rank and collective call: HDF5 copies what one call moves */
  SLACK_BYTES = 1 << 13,   /* more than a group with an attribute, or a file's head, takes */
  MESSAGE = 1024,
};

static const char format_name[] = "kwm-checkpoint";
static const int64_t format_version = 1;

struct kwm_ckpt {
  MPI_Comm comm;
  int rank;
  bool writing;
  kwm_h5 *h5;
  kwm_status status; /* of the writing so far */
  int room;          /* rank 0: descriptor through which room is reserved */
  int64_t reserved;  /* bytes from the file's start: what HDF5 has used of them, and more */
  int64_t step;
  int64_t keep_every; /* 0, or commit keeps the steps that are its multiples */
  char dir[KWM_FILE_PATH], path[KWM_FILE_PATH], part[KWM_FILE_PATH];
};

static kwm_ckpt *make(MPI_Comm comm, bool writing) {
  kwm_ckpt *ckpt = calloc(1, sizeof *ckpt);
  KWM_ASSERT(ckpt != NULL);
  ckpt->comm = comm;
  ckpt->writing = writing;
  ckpt->room = -1;
  MPI_Comm_rank(comm, &ckpt->rank);
  return ckpt;
}

static void destroy(kwm_ckpt **ckpt) {
  if ((*ckpt)->room >= 0) close((*ckpt)->room);
  free(*ckpt);
  *ckpt = NULL;
}

/* Length, and sum of all bytes behind the seal; the work is spread over the ranks. */
static kwm_status sum_file(MPI_Comm comm, const char *path, int64_t *bytes, uint64_t *sum) {
  int rank = 0, size = 0;
  MPI_Comm_rank(comm, &rank);
  MPI_Comm_size(comm, &size);
  KWM_TRY(kwm_agree(comm, kwm_seal_sum(path, rank, size, bytes, sum)));
  MPI_Allreduce(MPI_IN_PLACE, sum, 1, MPI_UINT64_T, MPI_SUM, comm);
  return KWM_OK;
}

/* ---- writing */

static kwm_status may_write(const kwm_ckpt *ckpt) {
  KWM_ASSERT(ckpt->writing);
  KWM_CHECK(ckpt->status == KWM_OK, KWM_ERR_SYSTEM, "checkpoint %s: wanted an unbroken file, an earlier write failed",
            ckpt->part);
  return KWM_OK;
}

/* Before each write; ends with the ranks' agreement. */
static kwm_status begin_put(kwm_ckpt *ckpt, int64_t bytes) {
  KWM_TRY(may_write(ckpt));
  ckpt->status =
      kwm_agree(ckpt->comm, ckpt->rank == 0 ? kwm_room_take(ckpt->room, ckpt->part, bytes, &ckpt->reserved) : KWM_OK);
  return ckpt->status;
}

static kwm_status end_put(kwm_ckpt *ckpt, kwm_status status) {
  ckpt->status = kwm_agree(ckpt->comm, status);
  return ckpt->status;
}

kwm_status kwm_ckpt_create(kwm_ckpt **ckpt, MPI_Comm comm, const char *dir, int64_t step) {
  kwm_ckpt *made = *ckpt = make(comm, true);
  made->step = step;
  kwm_status status = kwm_steps_path(made->path, dir, step, "");
  if (status == KWM_OK) status = kwm_steps_path(made->part, dir, step, ".part");
  if (status == KWM_OK) strcpy(made->dir, dir); /* shorter than a path in it */
  if (made->rank == 0) kwm_steps_clean(dir);    /* before its room is counted */
  if (status == KWM_OK && made->rank == 0)
    status = kwm_room_open(&made->room, dir, made->part, kwm_steps_newest_bytes(dir));
  status = kwm_agree(comm, status);
  kwm_fault("create", step, made->rank);
  if (status == KWM_OK)
    status = kwm_agree(comm, kwm_h5_open(&made->h5, comm, made->part, KWM_H5_WRITE, KWM_SEAL_BYTES));
  if (status == KWM_OK) status = kwm_ckpt_put_text(made, "/", "format", format_name);
  if (status == KWM_OK) status = kwm_ckpt_put_i64(made, "/", "format_version", format_version);
  if (status != KWM_OK) kwm_ckpt_abort(ckpt);
  return status;
}

/* Moves this rank's rows window by window (whole chunk rows), in as many collective calls on every rank. */
static kwm_status move_slab(const kwm_ckpt *ckpt, const struct kwm_h5_array *array, const struct kwm_slab *slab,
                            char *data) {
  const int64_t chunk = array->chunk[0], row = kwm_slab_row_bytes(slab), fit = WINDOW_BYTES / (chunk * row);
  const int64_t window = chunk * (fit > 1 ? fit : 1), last = slab->first + slab->count, begin = slab->first / window;
  int64_t rounds = slab->count > 0 ? (last + window - 1) / window - begin : 0;
  MPI_Allreduce(MPI_IN_PLACE, &rounds, 1, MPI_INT64_T, MPI_MAX, ckpt->comm);
  for (int64_t round = 0; round < rounds; round++) {
    const int64_t low = (begin + round) * window, high = low + window;
    int64_t start[KWM_SLAB_DIMS] = {low > slab->first ? low : slab->first}, extent[KWM_SLAB_DIMS];
    memcpy(extent, slab->dims, (size_t)slab->n_dims * sizeof *extent);
    extent[0] = (high < last ? high : last) - start[0];
    if (extent[0] <= 0) start[0] = extent[0] = 0;
    char *rows = extent[0] > 0 ? data + (start[0] - slab->first) * row : NULL;
    KWM_TRY(kwm_agree(ckpt->comm, kwm_h5_move(array, start, extent, ckpt->writing, rows)));
  }
  return KWM_OK;
}

static void check_slab(const struct kwm_slab *slab) {
  KWM_ASSERT(slab->n_dims >= 1 && slab->n_dims <= KWM_SLAB_DIMS && slab->dims[0] >= 0);
  for (int d = 1; d < slab->n_dims; d++) KWM_ASSERT(slab->dims[d] >= 1);
  KWM_ASSERT(slab->first >= 0 && slab->count >= 0 && slab->first + slab->count <= slab->dims[0]);
}

kwm_status kwm_ckpt_put(kwm_ckpt *ckpt, const char *name, enum kwm_type type, int n_dims, const int64_t *dims,
                        int64_t first, int64_t count, const void *data) {
  const struct kwm_slab slab = {name, type, n_dims, dims, first, count};
  struct kwm_h5_array array = {.id = -1};
  check_slab(&slab);
  KWM_TRY(begin_put(ckpt, kwm_slab_file_bytes(&slab)));
  kwm_status status = end_put(ckpt, kwm_h5_array_create(ckpt->h5, &slab, &array));
  kwm_fault(name, ckpt->step, ckpt->rank);
  /* Writing does not touch the data: the cast lets both directions share the way. */
  if (status == KWM_OK) status = ckpt->status = move_slab(ckpt, &array, &slab, (char *)(uintptr_t)data);
  kwm_h5_array_close(&array);
  return status;
}

kwm_status kwm_ckpt_put_i64(kwm_ckpt *ckpt, const char *group, const char *name, int64_t value) {
  KWM_TRY(begin_put(ckpt, SLACK_BYTES));
  return end_put(ckpt, kwm_h5_put_i64(ckpt->h5, group, name, value));
}

kwm_status kwm_ckpt_put_f64(kwm_ckpt *ckpt, const char *group, const char *name, double value) {
  KWM_TRY(begin_put(ckpt, SLACK_BYTES));
  return end_put(ckpt, kwm_h5_put_f64(ckpt->h5, group, name, value));
}

kwm_status kwm_ckpt_put_text(kwm_ckpt *ckpt, const char *group, const char *name, const char *value) {
  KWM_TRY(begin_put(ckpt, SLACK_BYTES + (int64_t)strlen(value)));
  return end_put(ckpt, kwm_h5_put_text(ckpt->h5, group, name, value));
}

/* Flushes and closes the file, then each rank syncs it: on a network file system each host holds its own unwritten
   pages. */
static kwm_status finish(kwm_ckpt *ckpt) {
  KWM_TRY(begin_put(ckpt, SLACK_BYTES));
  KWM_TRY(end_put(ckpt, kwm_h5_flush(ckpt->h5)));
  kwm_fault("flush", ckpt->step, ckpt->rank);
  KWM_TRY(end_put(ckpt, kwm_h5_close(&ckpt->h5)));
  kwm_fault("sync", ckpt->step, ckpt->rank);
  kwm_status status = kwm_file_sync(ckpt->part);
  if (status == KWM_OK && ckpt->rank == 0) status = kwm_h5_probe(ckpt->part);
  return kwm_agree(ckpt->comm, status);
}

static kwm_status seal(const kwm_ckpt *ckpt) {
  int64_t bytes = 0;
  uint64_t sum = 0;
  const kwm_status summed = sum_file(ckpt->comm, ckpt->part, &bytes, &sum);
  if (summed != KWM_OK) return KWM_ERR_SYSTEM;
  return kwm_agree(ckpt->comm, ckpt->rank == 0 ? kwm_seal_write(ckpt->part, bytes, sum) : KWM_OK);
}

void kwm_ckpt_keep_every(kwm_ckpt *ckpt, int64_t steps) {
  ckpt->keep_every = steps;
}

kwm_status kwm_ckpt_commit(kwm_ckpt **ckpt, int64_t keep) {
  kwm_ckpt *done = *ckpt;
  KWM_ASSERT(keep >= 1);
  kwm_status status = finish(done);
  kwm_fault("seal", done->step, done->rank);
  if (status == KWM_OK) status = seal(done);
  kwm_fault("publish", done->step, done->rank);
  if (status == KWM_OK)
    status = kwm_agree(done->comm, done->rank == 0 ? kwm_file_publish(done->dir, done->part, done->path) : KWM_OK);
  kwm_fault("prune", done->step, done->rank);
  if (status == KWM_OK && done->rank == 0) kwm_steps_prune(done->dir, done->step, keep, done->keep_every);
  if (status == KWM_OK)
    destroy(ckpt);
  else
    kwm_ckpt_abort(ckpt);
  return status;
}

void kwm_ckpt_abort(kwm_ckpt **ckpt) {
  if (*ckpt == NULL) return;
  char message[MESSAGE]; /* why it is given up matters more than what closing says */
  strncpy(message, kwm_error_message(), sizeof message - 1);
  message[sizeof message - 1] = '\0';
  /* HDF5 still writes when it closes, and crashes at exit if that failed: on a full disk this gives it room. */
  if ((*ckpt)->room >= 0 && (*ckpt)->status != KWM_OK) (void)!ftruncate((*ckpt)->room, 0);
  if ((*ckpt)->h5 != NULL) (void)kwm_h5_close(&(*ckpt)->h5);
  MPI_Barrier((*ckpt)->comm);
  if ((*ckpt)->room >= 0) unlink((*ckpt)->part);
  destroy(ckpt);
  kwm_error_set(message);
}

/* ---- reading */

static kwm_status check_seal(MPI_Comm comm, const char *path) {
  uint64_t wanted = 0, found = 0;
  int64_t bytes = 0;
  KWM_TRY(kwm_agree(comm, kwm_seal_read(path, &wanted)));
  KWM_TRY(sum_file(comm, path, &bytes, &found));
  KWM_CHECK(wanted == found, KWM_ERR_DATA, "checkpoint %s: wanted contents with sum %016llx, found %016llx (damaged)",
            path, (unsigned long long)wanted, (unsigned long long)found);
  return KWM_OK;
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

kwm_status kwm_ckpt_open(kwm_ckpt **ckpt, MPI_Comm comm, const char *path) {
  *ckpt = NULL;
  KWM_CHECK(strlen(path) < KWM_FILE_PATH, KWM_ERR_DATA, "checkpoint %.200s...: wanted a path below %d bytes", path,
            KWM_FILE_PATH);
  KWM_TRY(check_seal(comm, path));
  kwm_ckpt *made = make(comm, false);
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

static kwm_status open_as(const kwm_ckpt *ckpt, const struct kwm_slab *slab, struct kwm_h5_array *array) {
  char wanted[KWM_SLAB_WORDS], found[KWM_SLAB_WORDS];
  KWM_TRY(kwm_h5_array_open(ckpt->h5, slab->name, array));
  kwm_slab_words(wanted, slab->type, slab->n_dims, slab->dims);
  kwm_slab_words(found, array->type, array->n_dims, array->dims);
  KWM_CHECK(strcmp(wanted, found) == 0, KWM_ERR_DATA, "checkpoint %s: %s: wanted %s, found %s", ckpt->path, slab->name,
            wanted, found);
  return KWM_OK;
}

/* Moves rows of an array that is there. */
static kwm_status move_existing(kwm_ckpt *ckpt, const struct kwm_slab *slab, void *data) {
  struct kwm_h5_array array;
  check_slab(slab);
  kwm_status status = kwm_agree(ckpt->comm, open_as(ckpt, slab, &array));
  if (status == KWM_OK) status = move_slab(ckpt, &array, slab, data);
  kwm_h5_array_close(&array);
  return status;
}

kwm_status kwm_ckpt_put_more(kwm_ckpt *ckpt, const char *name, enum kwm_type type, int n_dims, const int64_t *dims,
                             int64_t first, int64_t count, const void *data) {
  const struct kwm_slab slab = {name, type, n_dims, dims, first, count};
  KWM_TRY(may_write(ckpt));
  return ckpt->status = move_existing(ckpt, &slab, (char *)(uintptr_t)data);
}

kwm_status kwm_ckpt_get(kwm_ckpt *ckpt, const char *name, enum kwm_type type, int n_dims, const int64_t *dims,
                        int64_t first, int64_t count, void *data) {
  const struct kwm_slab slab = {name, type, n_dims, dims, first, count};
  KWM_ASSERT(!ckpt->writing);
  return move_existing(ckpt, &slab, data);
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
  destroy(ckpt);
}
