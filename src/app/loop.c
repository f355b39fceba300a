/* The loop of all training runs. */
#include "loop.h"

#include <stdio.h>

#include "failure.h"
#include "kwm/log.h"
#include "kwm_version.h"
#include "rundir.h"

static const int64_t STEP_MAX = (int64_t)1 << 40;

/* ---- clock: seconds of training, evaluations apart */

static void start_clock(struct kwm_loop *loop) {
  loop->started = kwm_par_seconds();
  loop->comm_started = loop->run->layout.comm_seconds;
}

/* Moves the clock's time into the counts. */
static void take_clock(struct kwm_loop *loop) {
  struct kwm_layout *const layout = &loop->run->layout;
  double times[2] = {kwm_par_seconds() - loop->started, layout->comm_seconds - loop->comm_started};
  start_clock(loop);
  kwm_par_sum_world(layout, 2, times);
  *loop->seconds += times[0] / layout->size;
  *loop->row_seconds += times[0] / layout->size;
  *loop->comm_seconds += times[1] / layout->size;
}

/* ---- checkpoints */

static kwm_status resume(struct kwm_loop *loop) {
  struct kwm_run *const run = loop->run;
  kwm_ckpt *ckpt = NULL;
  if (!kwm_rundir_has_checkpoint(run)) {
    kwm_log(KWM_LOG_INFO, "no checkpoint in %s yet: starting at the beginning", run->config.output);
    return KWM_OK;
  }
  KWM_TRY(kwm_run_open_checkpoint(&ckpt, &run->layout, run->config.output));
  kwm_log(KWM_LOG_INFO, "resuming from %s", kwm_ckpt_path(ckpt));
  int64_t step = 0;
  kwm_status status = kwm_ckpt_get_i64(ckpt, "/meta", "step", &step);
  if (status == KWM_OK && (step < 0 || step > STEP_MAX))
    status = KWM_RAISE(KWM_ERR_DATA, "checkpoint %s: wanted a step from 0 to %lld, found %lld", kwm_ckpt_path(ckpt),
                       (long long)STEP_MAX, (long long)step);
  if (status == KWM_OK) status = loop->kind->load(loop->self, ckpt);
  kwm_ckpt_close(&ckpt);
  return status;
}

static kwm_status put_all(struct kwm_loop *loop, int64_t step, kwm_ckpt *ckpt) {
  const struct kwm_run *const run = loop->run;
  KWM_TRY(kwm_ckpt_put_text(ckpt, "/meta", "config", run->config_text));
  KWM_TRY(kwm_ckpt_put_text(ckpt, "/meta", "version", KWM_VERSION));
  KWM_TRY(kwm_ckpt_put_text(ckpt, "/meta", "git", KWM_GIT));
  KWM_TRY(kwm_ckpt_put_i64(ckpt, "/meta", "step", step));
  KWM_TRY(kwm_ckpt_put_i64(ckpt, "/meta", "seed", (int64_t)run->config.seed));
  return loop->kind->put(loop->self, ckpt);
}

static kwm_status create(struct kwm_loop *loop, kwm_ckpt **ckpt, const char *folder, int64_t step) {
  MPI_Comm world = loop->run->layout.world;
  return loop->writer != NULL ? kwm_ckpt_create_later(ckpt, world, loop->writer, folder, step)
                              : kwm_ckpt_create(ckpt, world, folder, step);
}

/* Once nothing else reads HDF5. */
static kwm_status open_writer(struct kwm_loop *loop) {
  if (!loop->run->config.checkpoint.background) return KWM_OK;
  KWM_TRY(kwm_ckpt_writer_create(&loop->writer, loop->run->layout.world));
  if (loop->writer == NULL)
    kwm_log(KWM_LOG_INFO, "checkpoint.background: MPI grants no threads, the run waits for its checkpoints");
  return KWM_OK;
}

/* The last checkpoint is there, too. */
static kwm_status close_writer(struct kwm_loop *loop, kwm_status status) {
  kwm_watch_phase(loop->run->watch, "checkpoint", loop->kind->place(loop->self, 0).step);
  const bool failed = status != KWM_OK && status != KWM_STOPPED;
  const kwm_status written = failed ? KWM_OK : kwm_ckpt_writer_wait(loop->writer);
  kwm_ckpt_writer_destroy(&loop->writer);
  return written != KWM_OK ? written : status;
}

kwm_status kwm_loop_save(struct kwm_loop *loop, int64_t step) {
  const struct kwm_config *const config = &loop->run->config;
  char folder[4096];
  kwm_ckpt *ckpt = NULL;
  kwm_status status = KWM_OK;
  snprintf(folder, sizeof folder, "%s/checkpoints", config->output);
  if (!loop->kind->finite(loop->self))
    status = KWM_RAISE(KWM_ERR_NUMERIC, "checkpoint at step %lld: wanted finite means", (long long)step);
  KWM_TRY(kwm_agree(loop->run->layout.world, status));
  KWM_TRY(create(loop, &ckpt, folder, step));
  status = put_all(loop, step, ckpt);
  kwm_ckpt_keep_every(ckpt, config->checkpoint.keep_every);
  if (status == KWM_OK) return kwm_ckpt_commit(&ckpt, config->checkpoint.keep);
  kwm_ckpt_abort(&ckpt);
  return status;
}

/* ---- steps */

/* A multiple of `every` lies in (before, now]. */
static bool passed(int64_t before, int64_t now, int64_t every) {
  return every > 0 && now / every > before / every;
}

static kwm_status row(struct kwm_loop *loop, const struct kwm_loop_place *place) {
  KWM_TRY(kwm_failure_row(loop, place));
  take_clock(loop);
  if (place->evaluates) {
    kwm_watch_phase(loop->run->watch, "evaluate", place->step);
    KWM_TRY(loop->kind->evaluate(loop->self));
    start_clock(loop);
  }
  return loop->kind->row(loop->self, place->evaluates);
}

/* *stop: leave the loop. At a pass's end the evaluation comes first, so that a resumed run's table lacks no row. */
static kwm_status after_step(struct kwm_loop *loop, int64_t before, const struct kwm_loop_step *step, bool *stop) {
  const struct kwm_config *const config = &loop->run->config;
  const struct kwm_loop_place place = loop->kind->place(loop->self, before);
  const bool last = place.step >= loop->steps;
  const bool rows = last || place.evaluates || passed(before, place.step, config->report.every);
  KWM_TRY(kwm_failure_step(loop, &place, step));
  if (!loop->seldom || rows || loop->run->layout.size == 1) {
    kwm_watch_phase(loop->run->watch, "agree", place.step);
    *stop = kwm_par_any(&loop->run->layout, kwm_rundir_stop_requested()) && !last && !place.evaluates;
  }
  if (rows) KWM_TRY(row(loop, &place));
  const bool due = config->checkpoint.every > 0 ? passed(before, place.step, config->checkpoint.every) : place.ends_lap;
  if (!due && !last && !*stop) return KWM_OK;
  kwm_watch_phase(loop->run->watch, "checkpoint", place.step);
  take_clock(loop);
  return kwm_loop_save(loop, place.step);
}

static kwm_status run_steps(struct kwm_loop *loop) {
  bool stop = false;
  int64_t before = loop->kind->place(loop->self, 0).step;
  if (loop->kind->begin != NULL) KWM_TRY(loop->kind->begin(loop->self));
  start_clock(loop);
  while (before < loop->steps && !stop) {
    struct kwm_loop_step step = {.place = ""};
    KWM_TRY(loop->kind->step(loop->self, &step));
    KWM_TRY(after_step(loop, before, &step, &stop));
    before = loop->kind->place(loop->self, before).step;
  }
  if (stop) return KWM_STOPPED;
  return loop->kind->conclude != NULL ? loop->kind->conclude(loop->self) : KWM_OK;
}

kwm_status kwm_loop_run(struct kwm_loop *loop) {
  struct kwm_run *const run = loop->run;
  const struct kwm_config *const config = &run->config;
  const bool first = run->layout.rank == 0;
  if (loop->resumes) KWM_TRY(resume(loop));
  KWM_TRY(kwm_agree(run->layout.world, first ? kwm_rundir_make(run) : KWM_OK));
  KWM_TRY(kwm_rundir_manifest(run, loop->n_files, loop->files));
  kwm_status status = kwm_agree(run->layout.world, first ? loop->kind->open(loop->self, config->output) : KWM_OK);
  if (status == KWM_OK) {
    loop->kind->say(loop->self);
    status = kwm_watch_start(&run->watch, &run->layout, config->output, loop->steps, config->watchdog.seconds);
  }
  if (status == KWM_OK) status = open_writer(loop);
  if (status == KWM_OK) status = close_writer(loop, run_steps(loop));
  loop->kind->close(loop->self);
  const kwm_status written = loop->kind->summary(loop->self, config->output, kwm_rundir_word(status));
  kwm_watch_stop(&run->watch);
  if (status == KWM_STOPPED)
    kwm_log(KWM_LOG_INFO, "stopped on request at step %lld, checkpoint written",
            (long long)loop->kind->place(loop->self, 0).step);
  return status != KWM_OK ? status : written;
}
