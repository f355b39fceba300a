/* kwm train: runs on images and streams of tasks; the command. */
#include <string.h>

#include "checkpoint.h"
#include "feed.h"
#include "kwm/app.h"
#include "kwm/log.h"
#include "language_commands.h"
#include "language_run.h"
#include "loop.h"
#include "plan.h"
#include "rundir.h"
#include "task_table.h"
#include "world_run.h"

/* A run on images or a stream of tasks. */
struct training {
  struct kwm_run *run;
  struct kwm_progress progress;
  struct kwm_feed feed;
};

static kwm_status load(void *self, kwm_ckpt *ckpt) {
  struct training *const training = self;
  return kwm_checkpoint_load(training->run, &training->progress, ckpt);
}

static kwm_status put(void *self, kwm_ckpt *ckpt) {
  const struct training *const training = self;
  return kwm_checkpoint_put(training->run, &training->progress, ckpt);
}

static bool means_finite(void *self) {
  return kwm_checkpoint_finite(((struct training *)self)->run);
}

static kwm_status open_tables(void *self, const char *dir) {
  struct kwm_progress *const progress = &((struct training *)self)->progress;
  KWM_TRY(kwm_progress_open(progress, dir));
  return progress->tasks != NULL ? kwm_task_table_open(progress->tasks, progress, dir) : KWM_OK;
}

static void say(const void *self) {
  const struct kwm_run *const run = ((const struct training *)self)->run;
  kwm_log(KWM_LOG_INFO, "%s: %lld steps of %lld samples on %d ranks (%d replicas x %d stages x %d owners)",
          run->config.learner, (long long)kwm_run_steps(run), (long long)run->config.train.batch, run->layout.size,
          run->layout.replicas, run->layout.stages, run->layout.owners);
  kwm_run_say_device(run);
}

static kwm_status begin(void *self) {
  struct training *const training = self;
  struct kwm_task_table *const tasks = training->progress.tasks;
  KWM_TRY(kwm_agree(training->run->layout.world, kwm_feed_init(&training->feed, training->run)));
  return tasks != NULL && tasks->rows == 0 ? kwm_task_table_row(tasks, &training->progress) : KWM_OK;
}

static void end(void *self) {
  struct training *const training = self;
  kwm_progress_close(&training->progress);
  kwm_feed_fini(&training->feed);
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
static kwm_status evaluate_lap(void *self) {
  struct training *const training = self;
  struct kwm_run *const run = training->run;
  struct kwm_progress *const progress = &training->progress;
  if (progress->tasks != NULL)
    KWM_TRY(kwm_task_table_row(progress->tasks, progress));
  else
    evaluate(run, &progress->counts);
  if (strcmp(run->config.stream.boundaries, "known") == 0) kwm_learner_boundary(&run->learner);
  return KWM_OK;
}

static kwm_status train_step(void *self, struct kwm_loop_step *taken) {
  struct training *const training = self;
  struct kwm_run *const run = training->run;
  struct kwm_progress *const progress = &training->progress;
  struct kwm_lin lin;
  struct kwm_step step;
  bool changed = false;
  const struct kwm_batch batch = kwm_feed_take(&training->feed, run, progress->step);
  kwm_watch_phase(run->watch, "predict", progress->step);
  kwm_learner_predict(&run->learner);
  const struct kwm_means means = kwm_learner_means(&run->learner);
  kwm_watch_phase(run->watch, "linearise", progress->step);
  kwm_pipe_linearise(run->pipe, &means, &batch, &lin);
  kwm_feed_ahead(&training->feed, run, progress->step);
  kwm_watch_phase(run->watch, "learn", progress->step);
  kwm_learner_search(&run->learner, &lin, run->pipe, &batch, &step);
  KWM_TRY(kwm_progress_step(progress, &step, &changed));
  if (changed && strcmp(run->config.change.reaction, "inflate") == 0) kwm_learner_inflate(&run->learner);
  kwm_progress_describe(progress, &step, taken);
  return KWM_OK;
}

static struct kwm_loop_place place(const void *self, int64_t before) {
  (void)before;
  const struct training *const training = self;
  const struct kwm_progress *const progress = &training->progress;
  const struct kwm_counts *const c = &progress->counts;
  const struct kwm_lap lap = kwm_run_lap(training->run, progress->step > 0 ? progress->step - 1 : 0);
  const bool lap_end = progress->step == lap.first + lap.steps, last = progress->step == progress->steps;
  return (struct kwm_loop_place){.step = progress->step,
                                 .evaluates = lap_end || (last && training->run->stream == NULL),
                                 .ends_lap = lap_end,
                                 .skips_in_a_row = c->skips_in_a_row,
                                 .nis = c->row_nis / (c->row_steps - c->row_skipped),
                                 .row_steps = c->row_steps};
}

static kwm_status row(void *self, bool evaluated) {
  return kwm_progress_row(&((struct training *)self)->progress, evaluated);
}

static void inflate(void *self) {
  kwm_learner_inflate(&((struct training *)self)->run->learner);
}

static kwm_status summary(void *self, const char *dir, const char *word) {
  return kwm_progress_summary(&((struct training *)self)->progress, dir, word);
}

static const struct kwm_loop_kind images = {.load = load,
                                            .open = open_tables,
                                            .say = say,
                                            .begin = begin,
                                            .step = train_step,
                                            .place = place,
                                            .evaluate = evaluate_lap,
                                            .row = row,
                                            .inflate = inflate,
                                            .finite = means_finite,
                                            .put = put,
                                            .close = end,
                                            .summary = summary};

/* tasks: NULL without a stream. */
static kwm_status train_built(struct kwm_run *run, const struct kwm_arguments *arguments,
                              struct kwm_task_table *tasks) {
  enum { FILES_MAX = 64 };
  struct kwm_file_facts files[FILES_MAX] = {run->train.files[0], run->train.files[1], run->test.files[0],
                                            run->test.files[1]};
  int n_files = 4;
  if (run->stream != NULL)
    for (n_files = 0; n_files < FILES_MAX && n_files < kwm_stream_files(run->stream); n_files++)
      files[n_files] = *kwm_stream_file(run->stream, n_files);
  struct training training = {.run = run};
  struct kwm_counts *const counts = &training.progress.counts;
  kwm_progress_init(&training.progress, run);
  training.progress.tasks = tasks;
  struct kwm_loop loop = {.kind = &images,
                          .self = &training,
                          .run = run,
                          .steps = training.progress.steps,
                          .resumes = arguments->resume,
                          .n_files = n_files,
                          .files = files,
                          .seconds = &counts->seconds,
                          .comm_seconds = &counts->comm_seconds,
                          .row_seconds = &counts->row_seconds};
  return kwm_loop_run(&loop);
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
