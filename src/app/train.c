/* kwm train: the loop, its run directory, its signals. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "checkpoint.h"
#include "failure.h"
#include "feed.h"
#include "kwm/app.h"
#include "kwm/log.h"
#include "language_commands.h"
#include "language_run.h"
#include "plan.h"
#include "rundir.h"
#include "task_table.h"
#include "world_run.h"

static kwm_status resume_run(struct kwm_run *run, struct kwm_progress *progress) {
  if (!kwm_rundir_has_checkpoint(run)) {
    kwm_log(KWM_LOG_INFO, "no checkpoint in %s yet: starting at the beginning", run->config.output);
    return KWM_OK;
  }
  kwm_ckpt *ckpt = NULL;
  KWM_TRY(kwm_run_open_checkpoint(&ckpt, &run->layout, run->config.output));
  kwm_log(KWM_LOG_INFO, "resuming from %s", kwm_ckpt_path(ckpt));
  const kwm_status status = kwm_checkpoint_load(run, progress, ckpt);
  kwm_ckpt_close(&ckpt);
  return status;
}

static void evaluate(struct kwm_run *run, struct kwm_counts *counts) {
  const struct kwm_means means = kwm_learner_means(&run->learner);
  struct kwm_innovation sums;
  kwm_pipe_predict(run->pipe, &means, &run->test, &sums);
  counts->test_accuracy = sums.correct / sums.samples;
  counts->test_loss = sums.surprisal / sums.samples;
  if (run->valid.n == 0) return;
  kwm_pipe_predict(run->pipe, &means, &run->valid, &sums);
  counts->valid_accuracy = sums.correct / sums.samples;
  counts->valid_loss = sums.surprisal / sums.samples;
}

/* Of one data set, or after a task of the stream. */
static kwm_status evaluate_lap(struct kwm_run *run, struct kwm_progress *progress) {
  if (progress->tasks != NULL) return kwm_task_table_row(progress->tasks, progress);
  evaluate(run, &progress->counts);
  return KWM_OK;
}

static kwm_status train_step(struct kwm_run *run, struct kwm_progress *progress, struct kwm_feed *feed) {
  struct kwm_lin lin;
  struct kwm_step step;
  bool changed = false;
  const struct kwm_batch batch = kwm_feed_take(feed, run, progress->step);
  kwm_watch_phase(run->watch, "predict", progress->step);
  kwm_learner_predict(&run->learner);
  const struct kwm_means means = kwm_learner_means(&run->learner);
  kwm_watch_phase(run->watch, "linearise", progress->step);
  kwm_pipe_linearise(run->pipe, &means, &batch, &lin);
  kwm_feed_ahead(feed, run, progress->step);
  kwm_watch_phase(run->watch, "learn", progress->step);
  kwm_learner_search(&run->learner, &lin, run->pipe, &batch, &step);
  KWM_TRY(kwm_progress_step(progress, &step, &changed));
  if (changed && strcmp(run->config.change.reaction, "inflate") == 0) kwm_learner_inflate(&run->learner);
  return kwm_failure_step(run, progress, &step);
}

/* After a step: rows, evaluation, checkpoints. *stop: leave the loop with the returned status. */
static kwm_status after_step(struct kwm_run *run, struct kwm_progress *progress, bool *stop) {
  const struct kwm_config *const config = &run->config;
  const int64_t step = progress->step;
  const struct kwm_lap lap = kwm_run_lap(run, step - 1);
  const bool lap_end = step == lap.first + lap.steps, last = step == progress->steps;
  kwm_watch_phase(run->watch, "agree", step);
  /* At a pass's end the evaluation comes first, so that a resumed run's table lacks no row. */
  *stop = kwm_par_any(&run->layout, kwm_rundir_stop_requested()) && !last && !lap_end;
  KWM_CHECK(progress->counts.skips_in_a_row < (double)config->filter.max_skips, KWM_ERR_NUMERIC,
            "step %lld: wanted a step that can be applied, found %lld skipped in a row", (long long)step,
            (long long)config->filter.max_skips);
  if (lap_end || last || step % config->report.every == 0) KWM_TRY(kwm_failure_row(run, progress));
  if (lap_end || (last && run->stream == NULL)) {
    kwm_watch_phase(run->watch, "evaluate", step);
    kwm_progress_clock(progress);
    KWM_TRY(evaluate_lap(run, progress));
    progress->started = kwm_par_seconds();
    progress->comm_started = run->layout.comm_seconds;
    if (strcmp(config->stream.boundaries, "known") == 0) kwm_learner_boundary(&run->learner);
    KWM_TRY(kwm_progress_row(progress, true));
  } else if (last || step % config->report.every == 0) {
    KWM_TRY(kwm_progress_row(progress, false));
  }
  const bool due = config->checkpoint.every > 0 ? step % config->checkpoint.every == 0 : lap_end;
  if (!due && !last && !*stop) return KWM_OK;
  kwm_watch_phase(run->watch, "checkpoint", step);
  kwm_progress_clock(progress);
  KWM_TRY(kwm_checkpoint_save(run, progress, config->output));
  return KWM_OK;
}

static kwm_status run_steps(struct kwm_run *run, struct kwm_progress *progress, struct kwm_feed *feed, bool *stop) {
  while (progress->step < progress->steps && !*stop) {
    KWM_TRY(train_step(run, progress, feed));
    KWM_TRY(after_step(run, progress, stop));
  }
  return KWM_OK;
}

static kwm_status train_loop(struct kwm_run *run, struct kwm_progress *progress) {
  struct kwm_feed feed;
  bool stop = false;
  kwm_status status = kwm_agree(run->layout.world, kwm_feed_init(&feed, run));
  if (status == KWM_OK && progress->tasks != NULL && progress->tasks->rows == 0)
    status = kwm_task_table_row(progress->tasks, progress);
  if (status == KWM_OK) status = run_steps(run, progress, &feed, &stop);
  kwm_feed_fini(&feed);
  return status == KWM_OK && stop ? KWM_STOPPED : status;
}

/* Rank 0. */
static kwm_status open_tables(struct kwm_progress *progress, const char *dir) {
  KWM_TRY(kwm_progress_open(progress, dir));
  return progress->tasks != NULL ? kwm_task_table_open(progress->tasks, progress, dir) : KWM_OK;
}

static kwm_status write_manifest(struct kwm_run *run) {
  enum { FILES_MAX = 64 };
  struct kwm_file_facts files[FILES_MAX] = {run->train.files[0], run->train.files[1], run->test.files[0],
                                            run->test.files[1]};
  int n_files = 4;
  if (run->stream != NULL)
    for (n_files = 0; n_files < FILES_MAX && n_files < kwm_stream_files(run->stream); n_files++)
      files[n_files] = *kwm_stream_file(run->stream, n_files);
  return kwm_rundir_manifest(run, n_files, files);
}

/* tasks: NULL without a stream. */
static kwm_status train_built(struct kwm_run *run, const struct kwm_arguments *arguments,
                              struct kwm_task_table *tasks) {
  const bool first = run->layout.rank == 0;
  struct kwm_progress progress;
  kwm_progress_init(&progress, run);
  progress.tasks = tasks;
  if (arguments->resume) KWM_TRY(resume_run(run, &progress));
  KWM_TRY(kwm_agree(run->layout.world, first ? kwm_rundir_make(run) : KWM_OK));
  KWM_TRY(write_manifest(run));
  KWM_TRY(kwm_agree(run->layout.world, first ? open_tables(&progress, run->config.output) : KWM_OK));
  kwm_log(KWM_LOG_INFO, "%s: %lld steps of %lld samples on %d ranks (%d replicas x %d stages x %d owners)",
          run->config.learner, (long long)progress.steps, (long long)run->config.train.batch, run->layout.size,
          run->layout.replicas, run->layout.stages, run->layout.owners);
  kwm_run_say_device(run);
  KWM_TRY(kwm_watch_start(&run->watch, &run->layout, run->config.output, progress.steps, run->config.watchdog.seconds));
  progress.started = kwm_par_seconds();
  const kwm_status status = train_loop(run, &progress);
  kwm_progress_close(&progress);
  const kwm_status written = kwm_progress_summary(&progress, run->config.output, kwm_rundir_word(status));
  kwm_watch_stop(&run->watch);
  if (status == KWM_STOPPED)
    kwm_log(KWM_LOG_INFO, "stopped on request at step %lld, checkpoint written", (long long)progress.step);
  return status != KWM_OK ? status : written;
}

static kwm_status train(struct kwm_run *run, const struct kwm_arguments *arguments) {
  struct kwm_probe probe;
  KWM_TRY(kwm_run_configure(run, arguments));
  if (kwm_language_is(&run->config)) return kwm_language_train(run, arguments);
  if (kwm_world_wanted(&run->config)) return kwm_world_train(run, arguments);
  KWM_TRY(kwm_run_probe(run, &probe));
  KWM_TRY(kwm_run_lay_out(run, probe.length, probe.classes));
  KWM_TRY(kwm_agree(run->layout.world, run->layout.rank == 0 ? kwm_rundir_check(run, arguments->resume) : KWM_OK));
  kwm_plan_measure(run);
  KWM_TRY(kwm_plan_check(run, &probe, false));
  KWM_TRY(kwm_run_read_data(run, true, true));
  KWM_TRY(kwm_run_open_device(run));
  KWM_TRY(kwm_run_build(run));
  struct kwm_task_table tasks = {0};
  kwm_status status = KWM_OK;
  if (run->stream != NULL) status = kwm_task_table_init(&tasks, probe.tasks);
  status = kwm_agree(run->layout.world, status);
  if (status == KWM_OK) status = train_built(run, arguments, run->stream != NULL ? &tasks : NULL);
  kwm_task_table_fini(&tasks);
  return status;
}

kwm_status kwm_command_train(int argc, char **argv) {
  struct kwm_arguments arguments;
  struct kwm_run run;
  memset(&run, 0, sizeof run);
  kwm_rundir_catch_signals();
  kwm_status status = kwm_arguments_read(&arguments, argc, argv);
  if (status == KWM_OK) status = train(&run, &arguments);
  kwm_run_fini(&run);
  kwm_arguments_fini(&arguments);
  return status;
}
