/* Checkpoints: named global arrays and values in one HDF5 file, written and read collectively by all ranks of `comm`,
   on any number of ranks. Format and guarantees: written to DIR/step-XXXXXXXXXX.h5.part, closed, synced, sealed,
   renamed. Every dataset lies in one piece; readable with h5py and h5dump. The seal is the file's first 512 bytes
   (HDF5's user block): its length and a sum of all its bytes; a changed file is refused. Every function is collective
   over the comm given at create/open (borrowed till commit, abort or close) and returns the same status on all ranks.
 */
#pragma once

#include <mpi.h>

#include "kwm/base.h"

typedef struct kwm_ckpt kwm_ckpt;

enum kwm_type { KWM_F32, KWM_F64, KWM_I64 };

/* Opens a new checkpoint for writing in folder `dir` (made if missing). KWM_ERR_SYSTEM if it can't be written. */
kwm_status kwm_ckpt_create(kwm_ckpt **ckpt, MPI_Comm comm, const char *dir, int64_t step);

/* Writes this rank's rows [first, first + count) of the global array `name` ("/params/recurrence"; parent groups are
   made) with global shape dims[0..n_dims). count may be 0 (data then ignored). Ranks' row ranges are disjoint and
   together cover dims[0]. Row-major. */
kwm_status kwm_ckpt_put(kwm_ckpt *ckpt, const char *name, enum kwm_type type, int n_dims, const int64_t *dims,
                        int64_t first, int64_t count, const void *data);

/* Further rows of an array that kwm_ckpt_put began, with the same name, type and dims: for arrays too large to be held
   as rows at once. */
kwm_status kwm_ckpt_put_more(kwm_ckpt *ckpt, const char *name, enum kwm_type type, int n_dims, const int64_t *dims,
                             int64_t first, int64_t count, const void *data);

/* The largest of the ranks' values: for a shape that not every rank knows. */
int64_t kwm_ckpt_largest(const kwm_ckpt *ckpt, int64_t value);

/* Attributes of a group ("/meta"), made if missing; the same value on all ranks. */
kwm_status kwm_ckpt_put_i64(kwm_ckpt *ckpt, const char *group, const char *name, int64_t value);
kwm_status kwm_ckpt_put_f64(kwm_ckpt *ckpt, const char *group, const char *name, double value);
kwm_status kwm_ckpt_put_text(kwm_ckpt *ckpt, const char *group, const char *name, const char *value);

/* Closes, syncs, seals and renames; then removes the oldest ones beyond the `keep` >= 1 newest, and stale .part files.
   Checkpoints of later steps (a resume passed them over: they are damaged) stay and do not count. Frees *ckpt also on
   failure, which leaves no .part file and all earlier checkpoints (KWM_ERR_SYSTEM: e.g. the disk is full). */
void kwm_ckpt_keep_every(kwm_ckpt *ckpt,
                         int64_t steps); /* before: multiples of `steps` stay, too, and don't count; 0: none */
kwm_status kwm_ckpt_commit(kwm_ckpt **ckpt, int64_t keep);

/* Checkpoints that are written while the run goes on: each put copies, commit lets a thread of every rank write the
   copies, and the next create waits for it. The file holds the same bits, and no fault costs more than without. The
   writer duplicates comm; *writer is NULL, and all is well, where MPI does not grant MPI_THREAD_MULTIPLE. While one
   writes, no other checkpoint may be opened and no HDF5 file read: wait first. Collective over comm. */
typedef struct kwm_ckpt_writer kwm_ckpt_writer;
kwm_status kwm_ckpt_writer_create(kwm_ckpt_writer **writer, MPI_Comm comm);
kwm_status kwm_ckpt_create_later(kwm_ckpt **ckpt, MPI_Comm comm, kwm_ckpt_writer *writer, const char *dir,
                                 int64_t step);

/* Until the last commit's file is there: its status, told once; accepts NULL. destroy waits, too. */
kwm_status kwm_ckpt_writer_wait(kwm_ckpt_writer *writer);
void kwm_ckpt_writer_destroy(kwm_ckpt_writer **writer); /* accepts a NULL writer */

/* Gives up writing: closes and removes the .part file. Accepts NULL. */
void kwm_ckpt_abort(kwm_ckpt **ckpt);

/* Opens the checkpoint file at `path` and verifies it (every byte is read once, the work spread over the ranks).
   KWM_ERR_DATA if it is missing, damaged, truncated or of another format version. */
kwm_status kwm_ckpt_open(kwm_ckpt **ckpt, MPI_Comm comm, const char *path);

/* Opens the newest good checkpoint in folder `dir`; each damaged one is named in a warning and passed over.
   KWM_ERR_DATA if none is good. */
kwm_status kwm_ckpt_open_newest(kwm_ckpt **ckpt, MPI_Comm comm, const char *dir);

/* The steps that have a checkpoint in folder `dir`, good or not, newest first, and one of them opened. *steps is
   malloc'ed; KWM_ERR_DATA if there is none. */
kwm_status kwm_ckpt_steps(MPI_Comm comm, const char *dir, int64_t **steps, int64_t *n);
kwm_status kwm_ckpt_open_step(kwm_ckpt **ckpt, MPI_Comm comm, const char *dir, int64_t step);

/* Path of the open file; borrowed. */
const char *kwm_ckpt_path(const kwm_ckpt *ckpt);

/* Shape of a dataset; n_dims in: capacity, out: its number. KWM_ERR_DATA if it does not exist. */
kwm_status kwm_ckpt_shape(kwm_ckpt *ckpt, const char *name, int *n_dims, int64_t *dims);

/* Reads rows [first, first + count) into data. KWM_ERR_DATA if missing, of another type, or of other shape than dims.
 */
kwm_status kwm_ckpt_get(kwm_ckpt *ckpt, const char *name, enum kwm_type type, int n_dims, const int64_t *dims,
                        int64_t first, int64_t count, void *data);
kwm_status kwm_ckpt_get_i64(kwm_ckpt *ckpt, const char *group, const char *name, int64_t *value);
kwm_status kwm_ckpt_get_f64(kwm_ckpt *ckpt, const char *group, const char *name, double *value);
kwm_status kwm_ckpt_get_text(kwm_ckpt *ckpt, const char *group, const char *name, char **value); /* malloc'ed */

/* Calls visit for every dataset (name, type, shape), in name order, on every rank. */
kwm_status kwm_ckpt_list(kwm_ckpt *ckpt,
                         void (*visit)(void *context, const char *name, enum kwm_type type, int n_dims,
                                       const int64_t *dims),
                         void *context);

void kwm_ckpt_close(kwm_ckpt **ckpt);

/* True if the folder holds at least one finished checkpoint, good or not. Local. */
bool kwm_ckpt_exists(const char *dir);

/* Version of the HDF5 library in use; static storage. */
const char *kwm_ckpt_version(void);
