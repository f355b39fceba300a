/* The file has one line of fixed length for the run and one for each rank, so that ranks write without meeting. */
#include "kwm/watch.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "file.h"
#include "kwm/fault.h"
#include "watch_line.h"

struct kwm_watch {
  struct kwm_watch_facts facts;
  char dir[KWM_FILE_PATH], host[KWM_HOST_BYTES];
  int file, rank;
  pthread_t thread;
  pthread_mutex_t lock; /* guards all below */
  pthread_cond_t ending;
  bool ends;
  const char *phase;
  int64_t step, phases;
  double since;
};

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_REALTIME, &time);
  return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

/* With the lock held. */
static struct kwm_beat beat_of(const kwm_watch *watch) {
  struct kwm_beat beat = {.rank = watch->rank,
                          .pid = getpid(),
                          .step = watch->step,
                          .phases = watch->phases,
                          .beat = now(),
                          .since = watch->since,
                          .waits = kwm_par_waiting()};
  snprintf(beat.host, sizeof beat.host, "%s", watch->host);
  snprintf(beat.phase, sizeof beat.phase, "%s", watch->phase);
  return beat;
}

/* Without the lock: a slow disk is not to hold up the run. A line that can't be written is missed by whoever looks. */
static void write_beat(const kwm_watch *watch, const struct kwm_beat *beat) {
  char line[WATCH_LINE];
  kwm_watch_beat_line(line, beat);
  (void)!pwrite(watch->file, line, WATCH_LINE, (off_t)(1 + watch->rank) * WATCH_LINE);
}

/* To standard error, where the launcher collects it, and to the run's log. */
static void say(const kwm_watch *watch, const char *text) {
  char path[KWM_FILE_PATH];
  dprintf(STDERR_FILENO, "kwm: error: %s (exit %d: %s)\n", text, (int)KWM_STALLED, kwm_status_words(KWM_STALLED));
  if (kwm_file_path(path, watch->dir, "kwm.log", "") != KWM_OK) return;
  const int file = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);
  if (file < 0) return;
  dprintf(file, "error: %s\n", text);
  close(file);
}

/* The lowest rank that still beats speaks for all; the others give the launcher time to end them. */
static void give_up(const kwm_watch *watch, const struct kwm_beat *mine) {
  struct kwm_watch_facts facts;
  struct kwm_beat *beats = NULL;
  char text[1024];
  int speaker = watch->rank;
  if (kwm_watch_read(watch->dir, &facts, &beats) == KWM_OK) {
    for (int r = watch->rank - 1; r >= 0; r--)
      if (now() - beats[r].beat < 5 * facts.interval + 1) speaker = r;
    kwm_watch_blame(text, sizeof text, &facts, beats, now());
  } else {
    snprintf(text, sizeof text, "step %" PRId64 ": stood still for %g s in %s", mine->step, watch->facts.limit,
             mine->phase);
  }
  free(beats);
  if (speaker != watch->rank) nanosleep(&(struct timespec){.tv_sec = 5 + (time_t)(2 * watch->facts.interval)}, NULL);
  say(watch, text);
  struct kwm_beat last = *mine;
  snprintf(last.phase, sizeof last.phase, "gave up");
  write_beat(watch, &last);
  _exit((int)KWM_STALLED);
}

/* Counts its own ticks, none of them longer than two intervals: a process that was suspended did not stand still. */
static void *beat_on(void *context) {
  kwm_watch *const watch = context;
  const double interval = watch->facts.interval;
  int64_t phases = -1;
  double still = 0, before = now();
  pthread_mutex_lock(&watch->lock);
  while (!watch->ends) {
    const struct kwm_beat beat = beat_of(watch);
    pthread_mutex_unlock(&watch->lock);
    still = beat.phases == phases ? still + fmin(fmax(beat.beat - before, 0), 2 * interval) : 0;
    phases = beat.phases;
    before = beat.beat;
    write_beat(watch, &beat);
    if (watch->facts.limit > 0 && still > watch->facts.limit) give_up(watch, &beat);
    struct timespec until;
    const double end = beat.beat + interval;
    pthread_mutex_lock(&watch->lock);
    if (watch->ends) break;
    until.tv_sec = (time_t)end;
    until.tv_nsec = (long)(1e9 * (end - floor(end)));
    pthread_cond_timedwait(&watch->ending, &watch->lock, &until);
  }
  pthread_mutex_unlock(&watch->lock);
  return NULL;
}

static kwm_status make_file(const char *dir, const struct kwm_watch_facts *facts) {
  char *text = calloc((size_t)facts->ranks + 1, WATCH_LINE);
  KWM_CHECK(text != NULL, KWM_ERR_SYSTEM, "memory: no room for %d lines of %s/watch", facts->ranks, dir);
  kwm_watch_facts_line(text, facts);
  for (int r = 0; r < facts->ranks; r++) {
    const struct kwm_beat beat = {.rank = r, .host = "-", .phase = "starts", .beat = now(), .since = now()};
    kwm_watch_beat_line(text + (r + 1) * WATCH_LINE, &beat);
  }
  const kwm_status status = kwm_file_replace(dir, "watch", text, (size_t)(facts->ranks + 1) * WATCH_LINE);
  free(text);
  return status;
}

static kwm_status open_file(kwm_watch *watch) {
  char path[KWM_FILE_PATH];
  KWM_TRY(kwm_file_path(path, watch->dir, "watch", ""));
  watch->file = open(path, O_WRONLY | O_CLOEXEC);
  KWM_CHECK(watch->file >= 0, KWM_ERR_SYSTEM, "file %s: wanted to write it, found: %s", path, strerror(errno));
  return KWM_OK;
}

static kwm_status begin(kwm_watch *watch) {
  KWM_TRY(open_file(watch));
  const int error = pthread_create(&watch->thread, NULL, beat_on, watch);
  KWM_CHECK(error == 0, KWM_ERR_SYSTEM, "watch: wanted a thread, found: %s", strerror(error));
  return KWM_OK;
}

kwm_status kwm_watch_start(kwm_watch **watch, struct kwm_layout *layout, const char *dir, int64_t steps, double limit) {
  const double interval = limit > 0 ? fmin(fmax(limit / 20, 0.05), 2) : 2;
  const struct kwm_watch_facts facts = {layout->size, steps, limit, interval};
  *watch = NULL;
  KWM_TRY(kwm_agree(layout->world, layout->rank == 0 ? make_file(dir, &facts) : KWM_OK));
  kwm_watch *made = calloc(1, sizeof *made);
  KWM_ASSERT(made != NULL && strlen(dir) < sizeof made->dir);
  made->facts = facts;
  strcpy(made->dir, dir);
  gethostname(made->host, sizeof made->host - 1);
  made->rank = layout->rank;
  made->phase = "starts";
  made->since = now();
  pthread_mutex_init(&made->lock, NULL);
  pthread_cond_init(&made->ending, NULL);
  const kwm_status status = begin(made);
  if (status == KWM_OK)
    *watch = made;
  else
    free(made);
  return kwm_agree(layout->world, status);
}

void kwm_watch_phase(kwm_watch *watch, const char *phase, int64_t step) {
  if (watch == NULL) return;
  pthread_mutex_lock(&watch->lock);
  watch->phase = phase;
  watch->step = step;
  watch->phases++;
  watch->since = now();
  pthread_mutex_unlock(&watch->lock);
  kwm_fault(phase, step, watch->rank);
}

void kwm_watch_stop(kwm_watch **watch) {
  kwm_watch *const done = *watch;
  if (done == NULL) return;
  pthread_mutex_lock(&done->lock);
  done->ends = true;
  pthread_cond_signal(&done->ending);
  pthread_mutex_unlock(&done->lock);
  pthread_join(done->thread, NULL);
  done->since = now();
  done->phase = "ended";
  const struct kwm_beat last = beat_of(done);
  write_beat(done, &last);
  close(done->file);
  pthread_cond_destroy(&done->ending);
  pthread_mutex_destroy(&done->lock);
  free(done);
  *watch = NULL;
}
