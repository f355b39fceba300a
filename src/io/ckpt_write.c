/* Writing a checkpoint: room is reserved on the disk before HDF5 writes into it (an error in the middle of a collective
   write can't be agreed on), all goes to a .part file, which is closed, synced, sealed and renamed. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ckpt_later.h"
#include "kwm/fault.h"
#include "kwm/par.h"
#include "room.h"
#include "seal.h"
#include "steps.h"

enum {
  SLACK_BYTES = 1 << 12, /* more than a group with an attribute, or a file's head, takes */
  STEP_BYTES = 1 << 16,  /* room is reserved by at least so much */
  MESSAGE = 1024,
};

static kwm_status may_write(const kwm_ckpt *ckpt) {
  KWM_ASSERT(ckpt->writing);
  KWM_CHECK(ckpt->status == KWM_OK, KWM_ERR_SYSTEM, "checkpoint %s: wanted an unbroken file, an earlier write failed",
            ckpt->part);
  return KWM_OK;
}

/* What this rank has done since the last agreement, and its status: all agree. */
static kwm_status settle(kwm_ckpt *ckpt, kwm_status status) {
  if (ckpt->local == KWM_OK) ckpt->local = status;
  ckpt->status = kwm_agree(ckpt->comm, ckpt->local);
  return ckpt->status;
}

/* Before each write: room for it on the disk. */
static kwm_status begin_put(kwm_ckpt *ckpt, int64_t bytes) {
  KWM_TRY(may_write(ckpt));
  ckpt->needed += bytes;
  if (ckpt->needed <= ckpt->reserved) return KWM_OK;
  int64_t reserved = ckpt->reserved;
  const int64_t more = ckpt->needed - reserved > STEP_BYTES ? ckpt->needed - reserved : STEP_BYTES;
  ckpt->reserved += more;
  return settle(ckpt, ckpt->rank == 0 ? kwm_room_take(ckpt->room, ckpt->part, more, &reserved) : KWM_OK);
}

/* After a write of every rank alike, which fails for want of memory at most: agreed on with the next array. */
static kwm_status end_put(kwm_ckpt *ckpt, kwm_status status) {
  if (ckpt->local == KWM_OK) ckpt->local = status;
  return KWM_OK;
}

kwm_status kwm_ckpt_create(kwm_ckpt **ckpt, MPI_Comm comm, const char *dir, int64_t step) {
  KWM_ASSERT(ckpt_may_call_hdf5());
  kwm_ckpt *made = *ckpt = ckpt_make(comm, true);
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
  if (status == KWM_OK) status = kwm_ckpt_put_text(made, "/", "format", CKPT_FORMAT);
  if (status == KWM_OK) status = kwm_ckpt_put_i64(made, "/", "format_version", CKPT_VERSION);
  if (status != KWM_OK) kwm_ckpt_abort(ckpt);
  return status;
}

/* Local: the sum that the seal tells is that of memory, so that whatever goes wrong on the way to the disk is found. */
static kwm_status write_slab(kwm_ckpt *ckpt, const struct kwm_h5_array *array, const struct kwm_slab *slab,
                             char *data) {
  const struct ckpt_window window = ckpt_window_of(array, slab);
  const int64_t row = kwm_slab_row_bytes(slab);
  for (int64_t round = 0; round < window.rounds; round++)
    KWM_TRY(ckpt_move_window(array, slab, &window, round, true, data));
  if (slab->count > 0) ckpt->sum += kwm_seal_add(array->offset + slab->first * row, data, slab->count * row);
  return KWM_OK;
}

/* Rank 0 keeps in mind where the array lies. */
static kwm_status hold(kwm_ckpt *ckpt, const struct kwm_h5_array *array, int64_t bytes) {
  if (ckpt->rank != 0 || bytes == 0) return KWM_OK;
  int64_t(*const more)[2] = realloc(ckpt->held, (size_t)(ckpt->n_held + 1) * sizeof *more);
  KWM_CHECK(more != NULL, KWM_ERR_SYSTEM, "memory: no room for a list of arrays");
  ckpt->held = more;
  int64_t k = ckpt->n_held++;
  for (; k > 0 && more[k - 1][0] > array->offset; k--) memcpy(more[k], more[k - 1], sizeof *more);
  more[k][0] = array->offset;
  more[k][1] = bytes;
  return KWM_OK;
}

kwm_status kwm_ckpt_put(kwm_ckpt *ckpt, const char *name, enum kwm_type type, int n_dims, const int64_t *dims,
                        int64_t first, int64_t count, const void *data) {
  const struct kwm_slab slab = {name, type, n_dims, dims, first, count};
  struct kwm_h5_array array = {.id = -1};
  ckpt_check_slab(&slab);
  if (ckpt->writer != NULL) return ckpt_keep_slab(ckpt->writer, CKPT_ARRAY, &slab, data), KWM_OK;
  KWM_TRY(begin_put(ckpt, kwm_slab_file_bytes(&slab)));
  kwm_status status = kwm_h5_array_create(ckpt->h5, &slab, &array);
  if (status == KWM_OK) status = hold(ckpt, &array, dims[0] * kwm_slab_row_bytes(&slab));
  kwm_fault(name, ckpt->step, ckpt->rank);
  /* Writing does not touch the data: the cast lets both directions share the way. */
  if (status == KWM_OK) status = write_slab(ckpt, &array, &slab, (char *)(uintptr_t)data);
  kwm_h5_array_close(&array);
  return settle(ckpt, status);
}

kwm_status kwm_ckpt_put_more(kwm_ckpt *ckpt, const char *name, enum kwm_type type, int n_dims, const int64_t *dims,
                             int64_t first, int64_t count, const void *data) {
  const struct kwm_slab slab = {name, type, n_dims, dims, first, count};
  struct kwm_h5_array array = {.id = -1};
  ckpt_check_slab(&slab);
  if (ckpt->writer != NULL) return ckpt_keep_slab(ckpt->writer, CKPT_MORE, &slab, data), KWM_OK;
  KWM_TRY(may_write(ckpt));
  kwm_status status = ckpt_open_as(ckpt, &slab, &array);
  if (status == KWM_OK) status = write_slab(ckpt, &array, &slab, (char *)(uintptr_t)data);
  kwm_h5_array_close(&array);
  return settle(ckpt, status);
}

kwm_status kwm_ckpt_put_i64(kwm_ckpt *ckpt, const char *group, const char *name, int64_t value) {
  if (ckpt->writer != NULL) return ckpt_keep_value(ckpt->writer, CKPT_I64, group, name, &value, sizeof value), KWM_OK;
  KWM_TRY(begin_put(ckpt, SLACK_BYTES));
  return end_put(ckpt, kwm_h5_put_i64(ckpt->h5, group, name, value));
}

kwm_status kwm_ckpt_put_f64(kwm_ckpt *ckpt, const char *group, const char *name, double value) {
  if (ckpt->writer != NULL) return ckpt_keep_value(ckpt->writer, CKPT_F64, group, name, &value, sizeof value), KWM_OK;
  KWM_TRY(begin_put(ckpt, SLACK_BYTES));
  return end_put(ckpt, kwm_h5_put_f64(ckpt->h5, group, name, value));
}

kwm_status kwm_ckpt_put_text(kwm_ckpt *ckpt, const char *group, const char *name, const char *value) {
  if (ckpt->writer != NULL)
    return ckpt_keep_value(ckpt->writer, CKPT_TEXT, group, name, value, (int64_t)strlen(value) + 1), KWM_OK;
  KWM_TRY(begin_put(ckpt, SLACK_BYTES + (int64_t)strlen(value)));
  return end_put(ckpt, kwm_h5_put_text(ckpt->h5, group, name, value));
}

/* Flushes and closes the file, then each rank syncs it: on a network file system each host holds its own unwritten
   pages. */
static kwm_status finish(kwm_ckpt *ckpt) {
  KWM_TRY(begin_put(ckpt, SLACK_BYTES));
  KWM_TRY(settle(ckpt, kwm_h5_flush(ckpt->h5)));
  kwm_fault("flush", ckpt->step, ckpt->rank);
  KWM_TRY(settle(ckpt, kwm_h5_close(&ckpt->h5)));
  kwm_fault("sync", ckpt->step, ckpt->rank);
  kwm_status status = kwm_file_sync(ckpt->part);
  if (status == KWM_OK && ckpt->rank == 0) status = kwm_h5_probe(ckpt->part);
  return settle(ckpt, status);
}

static kwm_status seal(kwm_ckpt *ckpt) {
  int64_t bytes = 0;
  struct kwm_seal found = {KWM_SEAL_MIXED, 0};
  kwm_status status = KWM_OK;
  if (ckpt->rank == 0) status = kwm_seal_sum_around(ckpt->part, ckpt->n_held, ckpt->held, &bytes, &found);
  found.sum += ckpt->sum;
  MPI_Allreduce(MPI_IN_PLACE, &found.sum, 1, MPI_UINT64_T, MPI_SUM, ckpt->comm);
  if (status == KWM_OK && ckpt->rank == 0) status = kwm_seal_write(ckpt->part, bytes, &found);
  return settle(ckpt, status == KWM_ERR_DATA ? KWM_ERR_SYSTEM : status);
}

int64_t kwm_ckpt_largest(const kwm_ckpt *ckpt, int64_t value) {
  MPI_Allreduce(MPI_IN_PLACE, &value, 1, MPI_INT64_T, MPI_MAX, ckpt->comm);
  return value;
}

void kwm_ckpt_keep_every(kwm_ckpt *ckpt, int64_t steps) {
  ckpt->keep_every = steps;
}

kwm_status kwm_ckpt_commit(kwm_ckpt **ckpt, int64_t keep) {
  kwm_ckpt *done = *ckpt;
  KWM_ASSERT(keep >= 1);
  if (done->writer != NULL) return ckpt_start(ckpt, keep);
  kwm_status status = finish(done);
  kwm_fault("seal", done->step, done->rank);
  if (status == KWM_OK) status = seal(done);
  kwm_fault("publish", done->step, done->rank);
  if (status == KWM_OK)
    status = kwm_agree(done->comm, done->rank == 0 ? kwm_file_publish(done->dir, done->part, done->path) : KWM_OK);
  kwm_fault("prune", done->step, done->rank);
  if (status == KWM_OK && done->rank == 0) kwm_steps_prune(done->dir, done->step, keep, done->keep_every);
  if (status == KWM_OK)
    ckpt_destroy(ckpt);
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
  if ((*ckpt)->writer == NULL) MPI_Barrier((*ckpt)->comm);
  if ((*ckpt)->room >= 0) unlink((*ckpt)->part);
  ckpt_destroy(ckpt);
  kwm_error_set(message);
}
