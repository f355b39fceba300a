/* Checkpoints written while the run goes on: what is put is copied, and a thread of each rank puts the copies into a
   file, over a communicator of their own, by the same calls as without it: the same bits, and the same steps in which
   nothing can be lost. HDF5 is no library for two threads: as long as one writes nobody else may call it. */
#include "ckpt_later.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "kwm/par.h"

enum { NAME = 256, MESSAGE = 1024 };

/* One put. Its room stays for the next checkpoint, which puts the same again. */
struct entry {
  enum ckpt_put put;
  char group[NAME], name[NAME];
  enum kwm_type type;
  int n_dims;
  int64_t dims[KWM_SLAB_DIMS], first, count;
  void *data;
  size_t room;
};

struct kwm_ckpt_writer {
  MPI_Comm comm; /* of the threads alone */
  int64_t n, n_room;
  struct entry *entry;
  kwm_status status; /* of the keeping, then of the writing */
  char message[MESSAGE], dir[KWM_FILE_PATH];
  int64_t step, keep, keep_every;
  pthread_t thread;
  bool writes; /* the thread is there and not yet waited for */
};

static atomic_bool taken; /* HDF5, by a thread that writes */
static _Thread_local bool mine;

bool ckpt_may_call_hdf5(void) {
  return mine || !taken;
}

kwm_status kwm_ckpt_writer_create(kwm_ckpt_writer **writer, MPI_Comm comm) {
  int level = MPI_THREAD_SINGLE;
  *writer = NULL;
  MPI_Query_thread(&level);
  if (level < MPI_THREAD_MULTIPLE) return KWM_OK;
  kwm_ckpt_writer *const made = calloc(1, sizeof *made);
  KWM_TRY(kwm_agree(comm, made != NULL ? KWM_OK : KWM_RAISE(KWM_ERR_SYSTEM, "memory: no room for a writer")));
  MPI_Comm_dup(comm, &made->comm);
  *writer = made;
  return KWM_OK;
}

/* True if there was something to wait for. */
static bool join(kwm_ckpt_writer *writer) {
  const bool wrote = writer->writes;
  kwm_par_follow(true);
  if (wrote) pthread_join(writer->thread, NULL);
  kwm_par_follow(false);
  writer->writes = false;
  return wrote;
}

void kwm_ckpt_writer_destroy(kwm_ckpt_writer **writer) {
  kwm_ckpt_writer *const done = *writer;
  if (done == NULL) return;
  (void)join(done);
  for (int64_t k = 0; k < done->n_room; k++) kwm_free(done->entry[k].data);
  free(done->entry);
  MPI_Comm_free(&done->comm);
  free(done);
  *writer = NULL;
}

kwm_status kwm_ckpt_writer_wait(kwm_ckpt_writer *writer) {
  if (writer == NULL || !join(writer)) return KWM_OK;
  if (writer->status != KWM_OK) kwm_error_set(writer->message);
  return writer->status;
}

/* ---- keeping */

static struct entry *next_entry(kwm_ckpt_writer *writer) {
  if (writer->n == writer->n_room) {
    const int64_t room = 2 * writer->n_room + 32;
    struct entry *const more = realloc(writer->entry, (size_t)room * sizeof *more);
    if (more == NULL) return NULL;
    memset(more + writer->n_room, 0, (size_t)(room - writer->n_room) * sizeof *more);
    writer->entry = more;
    writer->n_room = room;
  }
  return &writer->entry[writer->n++];
}

static kwm_status copy(struct entry *entry, const void *data, size_t bytes) {
  if (entry->room < bytes) {
    kwm_free(entry->data);
    entry->data = NULL;
    entry->room = 0;
    KWM_TRY(kwm_alloc(&entry->data, bytes, "a copy for a checkpoint (checkpoint.background false needs none)"));
    entry->room = bytes;
  }
  if (bytes > 0) memcpy(entry->data, data, bytes);
  return KWM_OK;
}

static void keep(kwm_ckpt_writer *writer, const struct entry *facts, const void *data, int64_t bytes) {
  struct entry *const entry = next_entry(writer);
  kwm_status status = KWM_ERR_SYSTEM;
  if (entry == NULL) {
    KWM_RAISE(status, "memory: no room for a list of arrays");
  } else {
    struct entry made = *facts;
    made.data = entry->data;
    made.room = entry->room;
    *entry = made;
    status = copy(entry, data, (size_t)bytes);
  }
  if (writer->status == KWM_OK) writer->status = status;
}

void ckpt_keep_slab(kwm_ckpt_writer *writer, enum ckpt_put put, const struct kwm_slab *slab, const void *data) {
  struct entry facts = {
      .put = put, .type = slab->type, .n_dims = slab->n_dims, .first = slab->first, .count = slab->count};
  KWM_ASSERT(strlen(slab->name) < sizeof facts.name);
  strcpy(facts.name, slab->name);
  memcpy(facts.dims, slab->dims, (size_t)slab->n_dims * sizeof *slab->dims);
  keep(writer, &facts, data, slab->count * kwm_slab_row_bytes(slab));
}

void ckpt_keep_value(kwm_ckpt_writer *writer, enum ckpt_put put, const char *group, const char *name, const void *value,
                     int64_t bytes) {
  struct entry facts = {.put = put};
  KWM_ASSERT(strlen(group) < sizeof facts.group && strlen(name) < sizeof facts.name);
  strcpy(facts.group, group);
  strcpy(facts.name, name);
  keep(writer, &facts, value, bytes);
}

/* ---- writing */

static kwm_status put(kwm_ckpt *ckpt, const struct entry *e) {
  int64_t whole;
  double number;
  switch (e->put) {
  case CKPT_ARRAY: return kwm_ckpt_put(ckpt, e->name, e->type, e->n_dims, e->dims, e->first, e->count, e->data);
  case CKPT_MORE: return kwm_ckpt_put_more(ckpt, e->name, e->type, e->n_dims, e->dims, e->first, e->count, e->data);
  case CKPT_I64: memcpy(&whole, e->data, sizeof whole); return kwm_ckpt_put_i64(ckpt, e->group, e->name, whole);
  case CKPT_F64: memcpy(&number, e->data, sizeof number); return kwm_ckpt_put_f64(ckpt, e->group, e->name, number);
  case CKPT_TEXT: break;
  }
  return kwm_ckpt_put_text(ckpt, e->group, e->name, e->data);
}

static kwm_status write_kept(kwm_ckpt_writer *writer) {
  kwm_ckpt *ckpt;
  KWM_TRY(kwm_ckpt_create(&ckpt, writer->comm, writer->dir, writer->step));
  kwm_status status = KWM_OK;
  for (int64_t k = 0; k < writer->n && status == KWM_OK; k++) status = put(ckpt, &writer->entry[k]);
  kwm_ckpt_keep_every(ckpt, writer->keep_every);
  if (status == KWM_OK) return kwm_ckpt_commit(&ckpt, writer->keep);
  kwm_ckpt_abort(&ckpt);
  return status;
}

static void *write_aside(void *context) {
  kwm_ckpt_writer *const writer = context;
  mine = true;
  kwm_par_aside(true);
  writer->status = write_kept(writer);
  if (writer->status != KWM_OK) {
    strncpy(writer->message, kwm_error_message(), sizeof writer->message - 1);
    writer->message[sizeof writer->message - 1] = '\0';
  }
  kwm_par_aside(false);
  taken = mine = false;
  return NULL;
}

kwm_status kwm_ckpt_create_later(kwm_ckpt **ckpt, MPI_Comm comm, kwm_ckpt_writer *writer, const char *dir,
                                 int64_t step) {
  *ckpt = NULL;
  KWM_TRY(kwm_ckpt_writer_wait(writer));
  KWM_CHECK(strlen(dir) < sizeof writer->dir, KWM_ERR_SYSTEM, "checkpoint folder %.200s...: wanted a shorter path",
            dir);
  *ckpt = ckpt_make(comm, true);
  (*ckpt)->writer = writer;
  writer->n = 0;
  writer->status = KWM_OK;
  writer->step = step;
  strcpy(writer->dir, dir);
  return KWM_OK;
}

/* Signals are for the thread that asks for them. */
static void begin(kwm_ckpt_writer *writer) {
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  taken = true;
  writer->writes = pthread_create(&writer->thread, NULL, write_aside, writer) == 0;
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (!writer->writes) write_aside(writer); /* the others' threads wait for this rank's part */
}

kwm_status ckpt_start(kwm_ckpt **ckpt, int64_t keep) {
  kwm_ckpt_writer *const writer = (*ckpt)->writer;
  const kwm_status status = kwm_agree((*ckpt)->comm, writer->status);
  writer->keep = keep;
  writer->keep_every = (*ckpt)->keep_every;
  ckpt_destroy(ckpt);
  KWM_TRY(status);
  begin(writer);
  return KWM_OK;
}
