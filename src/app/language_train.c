/* kwm train of a language model: the loop. */
#include <math.h>
#include <stdio.h>

#include "kwm/log.h"
#include "language_checkpoint.h"
#include "language_commands.h"
#include "rundir.h"

/* ids and targets (batch, context) of one step. */
struct buffers {
  int32_t *ids, *targets;
};

static void train_step(struct kwm_language_progress *progress, const struct buffers *buffers) {
  struct kwm_language_run *const run = progress->run;
  const struct kwm_config *const config = &run->run->config;
  const struct kwm_text_streams text = {.ids = run->text[KWM_TRAIN].ids,
                                        .n = run->text[KWM_TRAIN].n,
                                        .streams = config->train.batch,
                                        .context = config->model.context};
  const struct kwm_language_batch batch = {
      .ids = buffers->ids, .targets = buffers->targets, .step = (uint64_t)progress->step};
  struct kwm_language_result result;
  kwm_streams_batch(&text, progress->step % run->pass_steps, 0, config->train.batch, buffers->ids, buffers->targets);
  kwm_watch_phase(run->run->watch, "learn", progress->step);
  kwm_language_learn(run->learner, &batch, &result);
  kwm_language_progress_step(progress, &result);
}

/* A pass is over, or the run: perplexities, outside the training clock. */
static kwm_status evaluate(struct kwm_language_progress *progress) {
  kwm_language_progress_clock(progress);
  KWM_TRY(kwm_language_progress_evaluate(progress));
  progress->started = kwm_par_seconds();
  progress->comm_started = progress->run->run->layout.comm_seconds;
  progress->idle_started = kwm_language_idle(progress->run->language);
  return kwm_language_progress_row(progress, true);
}

/* After a step: rows, evaluation, checkpoints. *stop: leave the loop. */
static kwm_status after_step(struct kwm_language_progress *progress, bool *stop) {
  struct kwm_language_run *const run = progress->run;
  const struct kwm_config *const config = &run->run->config;
  const int64_t step = progress->step;
  const bool last = step == run->steps, pass_end = step % run->pass_steps == 0;
  kwm_watch_phase(run->run->watch, "agree", step);
  const bool evaluates = last || (pass_end && step / run->pass_steps % config->report.evaluations == 0);
  *stop = kwm_par_any(&run->run->layout, kwm_rundir_stop_requested()) && !last && !evaluates;
  KWM_CHECK(progress->counts.skips_in_a_row < (double)config->filter.max_skips, KWM_ERR_NUMERIC,
            "step %lld: wanted a step that can be applied, found %lld skipped in a row", (long long)step,
            (long long)config->filter.max_skips);
  if (evaluates) kwm_watch_phase(run->run->watch, "evaluate", step);
  if (evaluates)
    KWM_TRY(evaluate(progress));
  else if (step % config->report.every == 0)
    KWM_TRY(kwm_language_progress_row(progress, false));
  const bool due = config->checkpoint.every > 0 ? step % config->checkpoint.every == 0 : evaluates;
  if (!due && !last && !*stop) return KWM_OK;
  kwm_watch_phase(run->run->watch, "checkpoint", step);
  kwm_language_progress_clock(progress);
  KWM_TRY(kwm_language_checkpoint_save(progress, config->output, "checkpoints", config->checkpoint.keep));
  progress->started = kwm_par_seconds();
  return KWM_OK;
}

static kwm_status train_loop(struct kwm_language_progress *progress) {
  const struct kwm_config *const config = &progress->run->run->config;
  const size_t tokens = (size_t)(config->train.batch * config->model.context);
  struct buffers buffers = {NULL, NULL};
  bool stop = false;
  kwm_status status = kwm_alloc((void **)&buffers.ids, tokens * sizeof *buffers.ids, "tokens");
  if (status == KWM_OK) status = kwm_alloc((void **)&buffers.targets, tokens * sizeof *buffers.targets, "tokens");
  status = kwm_agree(progress->run->run->layout.world, status);
  while (status == KWM_OK && progress->step < progress->run->steps && !stop) {
    train_step(progress, &buffers);
    status = after_step(progress, &stop);
  }
  kwm_free(buffers.ids);
  kwm_free(buffers.targets);
  return status == KWM_OK && stop ? KWM_STOPPED : status;
}

static kwm_status resume(struct kwm_language_progress *progress) {
  struct kwm_run *const run = progress->run->run;
  if (!kwm_rundir_has_checkpoint(run)) {
    kwm_log(KWM_LOG_INFO, "no checkpoint in %s yet: starting at the beginning", run->config.output);
    return KWM_OK;
  }
  kwm_ckpt *ckpt = NULL;
  KWM_TRY(kwm_run_open_checkpoint(&ckpt, &run->layout, run->config.output));
  kwm_log(KWM_LOG_INFO, "resuming from %s", kwm_ckpt_path(ckpt));
  const kwm_status status = kwm_language_checkpoint_load(progress, ckpt);
  kwm_ckpt_close(&ckpt);
  return status;
}

static void say_what(const struct kwm_language_run *language) {
  const struct kwm_run *const run = language->run;
  const struct kwm_layout *const layout = &run->layout;
  kwm_log(
      KWM_LOG_INFO, "%s: %lld steps of %lld tokens, %lld parameters, %lld words; %d ranks (%d replicas x %d stages)",
      run->config.learner, (long long)language->steps, (long long)(run->config.train.batch * run->config.model.context),
      (long long)kwm_transformer_parameters(&language->model), (long long)language->model.types, layout->size,
      layout->replicas, layout->stages);
  if (run->device != NULL) kwm_log(KWM_LOG_INFO, "backend %s: %s", kwm_device_name(run->device), run->device->words);
}

static kwm_status train_built(struct kwm_language_run *language, const struct kwm_arguments *arguments) {
  struct kwm_run *const run = language->run;
  const bool first = run->layout.rank == 0;
  struct kwm_file_facts files[3];
  struct kwm_language_progress progress;
  int n_files = 0;
  for (int split = 0; split < 3; split++)
    if (language->text[split].n > 0) files[n_files++] = language->text[split].file;
  kwm_language_progress_init(&progress, language);
  if (arguments->resume) KWM_TRY(resume(&progress));
  KWM_TRY(kwm_agree(run->layout.world, first ? kwm_rundir_make(run) : KWM_OK));
  KWM_TRY(kwm_rundir_manifest(run, n_files, files));
  KWM_TRY(kwm_agree(run->layout.world, first ? kwm_language_progress_open(&progress, run->config.output) : KWM_OK));
  say_what(language);
  KWM_TRY(
      kwm_watch_start(&run->watch, &run->layout, run->config.output, language->steps, run->config.watchdog.seconds));
  progress.started = kwm_par_seconds();
  const kwm_status status = train_loop(&progress);
  kwm_metrics_close(&progress.metrics);
  const kwm_status written = kwm_language_progress_summary(&progress, run->config.output, kwm_rundir_word(status));
  kwm_watch_stop(&run->watch);
  if (status == KWM_STOPPED)
    kwm_log(KWM_LOG_INFO, "stopped on request at step %lld, checkpoint written", (long long)progress.step);
  return status != KWM_OK ? status : written;
}

static kwm_status train(struct kwm_language_run *language, const struct kwm_arguments *arguments) {
  struct kwm_run *const run = language->run;
  KWM_TRY(kwm_language_run_layout(language));
  KWM_TRY(kwm_agree(run->layout.world, run->layout.rank == 0 ? kwm_rundir_check(run, arguments->resume) : KWM_OK));
  KWM_TRY(kwm_language_run_read(language));
  KWM_TRY(kwm_run_open_device(run));
  KWM_TRY(kwm_language_run_build(language));
  return train_built(language, arguments);
}

kwm_status kwm_language_train(struct kwm_run *run, const struct kwm_arguments *arguments) {
  struct kwm_language_run language = {.run = run};
  const kwm_status status = train(&language, arguments);
  kwm_language_run_fini(&language);
  return status;
}
