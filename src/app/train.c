/* kwm train: the loop, its run directory, its signals. */
#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "checkpoint.h"
#include "kwm/app.h"
#include "kwm/log.h"
#include "kwm_version.h"
#include "plan.h"

static volatile sig_atomic_t stop_requested;

static void on_signal(int signal) {
  (void)signal;
  stop_requested = 1;
}

static void catch_signals(void) {
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_handler = on_signal;
  action.sa_flags = SA_RESTART;
  sigaction(SIGUSR1, &action, NULL);
  sigaction(SIGTERM, &action, NULL);
}

/* mkdir -p */
static kwm_status make_folders(const char *path) {
  char part[4096];
  KWM_CHECK(strlen(path) < sizeof part, KWM_ERR_USAGE, "output: wanted a shorter path");
  for (size_t k = 1; k <= strlen(path); k++) {
    if (path[k] != '/' && path[k] != '\0') continue;
    snprintf(part, sizeof part, "%.*s", (int)k, path);
    KWM_CHECK(mkdir(part, 0777) == 0 || errno == EEXIST, KWM_ERR_USAGE,
              "output %s: wanted a folder that can be made, found: %s", part, strerror(errno));
  }
  return KWM_OK;
}

static kwm_status open_log(const char *dir) {
  char path[4096];
  snprintf(path, sizeof path, "%s/kwm.log", dir);
  return kwm_log_open(path);
}

/* Rank 0: the run directory is new, or the run resumes. Nothing is written yet, but for the log of a run that goes on.
 */
static kwm_status check_directory(const struct kwm_run *run, bool resume) {
  struct stat info;
  const char *const dir = run->config.output;
  KWM_CHECK(dir[0] != '\0', KWM_ERR_USAGE, "output: wanted a run directory (--output DIR or key output), found none");
  const bool exists = stat(dir, &info) == 0;
  KWM_CHECK(!exists || resume, KWM_ERR_USAGE, "output %s: wanted a new folder, found one (go on with it: --resume)",
            dir);
  KWM_CHECK(!exists || S_ISDIR(info.st_mode), KWM_ERR_USAGE, "output %s: wanted a folder, found something else", dir);
  return exists ? open_log(dir) : KWM_OK;
}

/* Rank 0: after everything that can refuse the run. */
static kwm_status make_directory(const struct kwm_run *run) {
  struct stat info;
  const char *const dir = run->config.output;
  if (stat(dir, &info) != 0) {
    KWM_TRY(make_folders(dir));
    KWM_TRY(open_log(dir));
  }
  return kwm_report_text(dir, "config.yaml", run->config_text);
}

/* Rank 0. names: (ranks, KWM_HOST_BYTES). */
static kwm_status write_manifest(const struct kwm_run *run, const char *names) {
  enum { LIBRARIES_MAX = 8, FILES_MAX = 4 };
  const int ranks = run->layout.size;
  const char **hosts = calloc((size_t)ranks, sizeof *hosts);
  KWM_CHECK(hosts != NULL, KWM_ERR_SYSTEM, "memory: no room for %d host names", ranks);
  for (int r = 0; r < ranks; r++) hosts[r] = names + r * KWM_HOST_BYTES;
  const char *libraries[LIBRARIES_MAX][2];
  const int n_libraries = kwm_run_libraries(libraries, LIBRARIES_MAX);
  const struct kwm_file_facts files[FILES_MAX] = {run->train.files[0], run->train.files[1], run->test.files[0],
                                                  run->test.files[1]};
  const struct kwm_manifest manifest = {.version = KWM_VERSION,
                                        .git = KWM_GIT,
                                        .command = "train",
                                        .ranks = ranks,
                                        .stages = run->layout.stages,
                                        .owners = run->layout.owners,
                                        .replicas = run->layout.replicas,
                                        .seed = run->config.seed,
                                        .n_hosts = ranks,
                                        .hosts = hosts,
                                        .n_files = FILES_MAX,
                                        .files = files};
  const kwm_status status =
      kwm_report_manifest(run->config.output, &manifest, n_libraries, (const char *const(*)[2])libraries);
  free(hosts);
  return status;
}

static kwm_status gather_manifest(struct kwm_run *run) {
  char *names = NULL;
  kwm_status status = KWM_OK;
  if (run->layout.rank == 0) {
    names = calloc((size_t)run->layout.size, KWM_HOST_BYTES);
    if (names == NULL) status = KWM_RAISE(KWM_ERR_SYSTEM, "memory: no room for host names");
  }
  status = kwm_agree(run->layout.world, status);
  if (status == KWM_OK) {
    kwm_par_hosts(&run->layout, names);
    status = kwm_agree(run->layout.world, run->layout.rank == 0 ? write_manifest(run, names) : KWM_OK);
  }
  free(names);
  return status;
}

/* True if DIR holds at least one finished checkpoint, good or not. Collective. */
static bool has_checkpoint(struct kwm_run *run) {
  char dir[4096];
  snprintf(dir, sizeof dir, "%s/checkpoints", run->config.output);
  return kwm_par_any(&run->layout, run->layout.rank == 0 && kwm_ckpt_exists(dir));
}

static kwm_status resume_run(struct kwm_run *run, struct kwm_progress *progress) {
  if (!has_checkpoint(run)) {
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
  struct kwm_innovation sums;
  kwm_pipe_predict(run->pipe, run->params.mean, &run->test, &sums);
  counts->test_accuracy = sums.correct / sums.samples;
  counts->test_loss = sums.surprisal / sums.samples;
  if (run->valid.n == 0) return;
  kwm_pipe_predict(run->pipe, run->params.mean, &run->valid, &sums);
  counts->valid_accuracy = sums.correct / sums.samples;
  counts->valid_loss = sums.surprisal / sums.samples;
}

static void train_step(struct kwm_run *run, struct kwm_progress *progress, const int32_t *order, int64_t n_train) {
  const int64_t batch = run->config.train.batch, at = progress->step % progress->epoch_steps * batch;
  const int64_t n = n_train - at < batch ? n_train - at : batch;
  struct kwm_lin lin;
  struct kwm_step step;
  kwm_learner_predict(&run->learner);
  kwm_pipe_linearise(run->pipe, run->params.mean, &run->train, n, order + at, &lin);
  kwm_learner_step(&run->learner, &lin, &step);
  kwm_progress_step(progress, &step);
  if (step.verdict == KWM_STEP_DONE) return;
  static const char *const why[] = {"", "not finite", "not positive definite", "surprisal beyond filter.gate"};
  kwm_log(KWM_LOG_WARNING, "step %lld skipped: %s", (long long)progress->step, why[step.verdict]);
}

/* After a step: rows, evaluation, checkpoints. *stop: leave the loop with the returned status. */
static kwm_status after_step(struct kwm_run *run, struct kwm_progress *progress, bool *stop) {
  const struct kwm_config *const config = &run->config;
  const int64_t step = progress->step;
  const bool epoch_end = step % progress->epoch_steps == 0, last = step == progress->steps;
  /* At an epoch's end the evaluation comes first, so that a resumed run's table lacks no row. */
  *stop = kwm_par_any(&run->layout, stop_requested != 0) && !last && !epoch_end;
  KWM_CHECK(progress->counts.skips_in_a_row < (double)config->filter.max_skips, KWM_ERR_NUMERIC,
            "step %lld: wanted a step that can be applied, found %lld skipped in a row", (long long)step,
            (long long)config->filter.max_skips);
  if (epoch_end || last) {
    kwm_progress_clock(progress);
    evaluate(run, &progress->counts);
    progress->started = kwm_par_seconds();
    progress->comm_started = run->layout.comm_seconds;
    KWM_TRY(kwm_progress_row(progress, true));
  } else if (step % config->report.every == 0) {
    KWM_TRY(kwm_progress_row(progress, false));
  }
  const bool due = config->checkpoint.every > 0 ? step % config->checkpoint.every == 0 : epoch_end;
  if (!due && !last && !*stop) return KWM_OK;
  kwm_progress_clock(progress);
  KWM_TRY(kwm_checkpoint_save(run, progress, config->output));
  return KWM_OK;
}

static kwm_status train_loop(struct kwm_run *run, struct kwm_progress *progress) {
  const int64_t n_train = run->train.n;
  int32_t *order;
  kwm_status status =
      kwm_agree(run->layout.world, kwm_alloc((void **)&order, (size_t)n_train * sizeof *order, "order"));
  int64_t epoch = -1;
  bool stop = false;
  while (status == KWM_OK && progress->step < progress->steps && !stop) {
    if (epoch != progress->step / progress->epoch_steps) {
      epoch = progress->step / progress->epoch_steps;
      kwm_order(run->config.seed, epoch, n_train, order);
    }
    train_step(run, progress, order, n_train);
    status = after_step(run, progress, &stop);
  }
  kwm_free(order);
  return status == KWM_OK && stop ? KWM_STOPPED : status;
}

static const char *word_for(kwm_status status) {
  switch (status) {
  case KWM_OK: return "done";
  case KWM_STOPPED: return "stopped";
  case KWM_ERR_NUMERIC: return "numerical stop";
  default: return "failed";
  }
}

static kwm_status train(struct kwm_run *run, const struct kwm_arguments *arguments) {
  struct kwm_probe probe;
  KWM_TRY(kwm_run_configure(run, arguments));
  KWM_TRY(kwm_run_probe(run, &probe));
  KWM_TRY(kwm_run_lay_out(run, probe.length));
  KWM_TRY(kwm_agree(run->layout.world, run->layout.rank == 0 ? check_directory(run, arguments->resume) : KWM_OK));
  kwm_plan_measure(run);
  KWM_TRY(kwm_plan_check(run, &probe, false));
  KWM_TRY(kwm_run_read_data(run, true, true));
  KWM_TRY(kwm_run_build(run));
  struct kwm_progress progress;
  const int64_t epoch_steps = kwm_run_epoch_steps(&run->config, run->train.n);
  kwm_progress_init(&progress, run, 0, run->learner.spec.total_steps, epoch_steps);
  if (arguments->resume) KWM_TRY(resume_run(run, &progress));
  KWM_TRY(kwm_agree(run->layout.world, run->layout.rank == 0 ? make_directory(run) : KWM_OK));
  KWM_TRY(gather_manifest(run));
  KWM_TRY(
      kwm_agree(run->layout.world, run->layout.rank == 0 ? kwm_progress_open(&progress, run->config.output) : KWM_OK));
  kwm_log(KWM_LOG_INFO, "%s: %lld steps of %lld samples on %d ranks (%d replicas x %d stages x %d owners)",
          run->config.learner, (long long)progress.steps, (long long)run->config.train.batch, run->layout.size,
          run->layout.replicas, run->layout.stages, run->layout.owners);
  progress.started = kwm_par_seconds();
  const kwm_status status = train_loop(run, &progress);
  kwm_progress_close(&progress);
  const kwm_status written = kwm_progress_summary(&progress, run->config.output, word_for(status));
  if (status == KWM_STOPPED)
    kwm_log(KWM_LOG_INFO, "stopped on request at step %lld, checkpoint written", (long long)progress.step);
  return status != KWM_OK ? status : written;
}

kwm_status kwm_command_train(int argc, char **argv) {
  struct kwm_arguments arguments;
  struct kwm_run run;
  memset(&run, 0, sizeof run);
  catch_signals();
  kwm_status status = kwm_arguments_read(&arguments, argc, argv);
  if (status == KWM_OK) status = train(&run, &arguments);
  kwm_run_fini(&run);
  kwm_arguments_fini(&arguments);
  return status;
}
