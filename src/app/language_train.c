/* kwm train of a language model. */
#include <math.h>
#include <stdio.h>

#include "kwm/log.h"
#include "language_checkpoint.h"
#include "language_commands.h"
#include "loop.h"
#include "rundir.h"

struct training {
  struct kwm_language_progress progress;
  int32_t *ids, *targets; /* (batch, context) of one step */
};

static kwm_status load(void *self, kwm_ckpt *ckpt) {
  return kwm_language_checkpoint_load(&((struct training *)self)->progress, ckpt);
}

static kwm_status put(void *self, kwm_ckpt *ckpt) {
  struct kwm_language_progress *const progress = &((struct training *)self)->progress;
  kwm_language_progress_gather(progress);
  return kwm_language_checkpoint_put(progress, ckpt);
}

static bool means_finite(void *self) {
  return kwm_language_finite(((struct training *)self)->progress.run->learner);
}

static kwm_status open_tables(void *self, const char *dir) {
  return kwm_language_progress_open(&((struct training *)self)->progress, dir);
}

static kwm_status begin(void *self) {
  struct training *const training = self;
  const struct kwm_run *const run = training->progress.run->run;
  const size_t bytes = (size_t)(run->config.train.batch * run->config.model.context) * sizeof *training->ids;
  kwm_status status = kwm_alloc((void **)&training->ids, bytes, "a step's tokens");
  if (status == KWM_OK) status = kwm_alloc((void **)&training->targets, bytes, "a step's targets");
  return kwm_agree(run->layout.world, status);
}

static void end(void *self) {
  struct training *const training = self;
  kwm_metrics_close(&training->progress.metrics);
  kwm_free(training->ids);
  kwm_free(training->targets);
}

static kwm_status train_step(void *self, struct kwm_loop_step *step) {
  struct training *const training = self;
  struct kwm_language_progress *const progress = &training->progress;
  struct kwm_language_run *const run = progress->run;
  const struct kwm_config *const config = &run->run->config;
  const struct kwm_text_streams text = {.ids = run->text[KWM_TRAIN].ids,
                                        .n = run->text[KWM_TRAIN].n,
                                        .streams = config->train.batch,
                                        .context = config->model.context};
  const struct kwm_language_batch batch = {
      .ids = training->ids, .targets = training->targets, .step = (uint64_t)progress->step};
  struct kwm_language_result result;
  kwm_streams_batch(&text, progress->step % run->pass_steps, 0, config->train.batch, training->ids, training->targets);
  kwm_watch_phase(run->run->watch, "learn", progress->step);
  const double started = kwm_par_seconds(), idle = kwm_language_idle(run->language);
  kwm_language_learn(run->learner, &batch, &result);
  kwm_language_progress_time(progress, kwm_par_seconds() - started, kwm_language_idle(run->language) - idle);
  kwm_language_progress_step(progress, &result, step);
  return KWM_OK;
}

static struct kwm_loop_place place(const void *self, int64_t before) {
  (void)before;
  const struct kwm_language_progress *const progress = &((const struct training *)self)->progress;
  const struct kwm_language_run *const run = progress->run;
  const struct kwm_language_counts *const c = &progress->counts;
  const double *const read = c->row.of[run->model.stages - 1];
  const int64_t step = progress->step, passes = step / run->pass_steps;
  const bool ends =
      step == run->steps || (step % run->pass_steps == 0 && passes % run->run->config.report.evaluations == 0);
  return (struct kwm_loop_place){.step = step,
                                 .evaluates = ends,
                                 .ends_lap = ends,
                                 .skips_in_a_row = c->skips_in_a_row,
                                 .nis = read[KWM_READ_SQUARED] / read[KWM_READ_EXPECTED],
                                 .row_steps = c->row_steps};
}

static kwm_status evaluate(void *self) {
  return kwm_language_progress_evaluate(&((struct training *)self)->progress);
}

static kwm_status row(void *self, bool evaluated) {
  return kwm_language_progress_row(&((struct training *)self)->progress, evaluated);
}

static void inflate(void *self) {
  struct kwm_language_run *const run = ((struct training *)self)->progress.run;
  kwm_language_inflate(run->learner, run->run->config.change.inflation);
}

static kwm_status summary(void *self, const char *dir, const char *word) {
  return kwm_language_progress_summary(&((struct training *)self)->progress, dir, word);
}

static void say(const void *self) {
  const struct kwm_language_run *const language = ((const struct training *)self)->progress.run;
  const struct kwm_run *const run = language->run;
  const struct kwm_layout *const layout = &run->layout;
  kwm_log(KWM_LOG_INFO,
          "%s: %lld steps of %lld tokens, %lld parameters, %lld words; %d ranks (%d replicas x %d stages x %d owners)",
          run->config.learner, (long long)language->steps,
          (long long)(run->config.train.batch * run->config.model.context),
          (long long)kwm_transformer_parameters(&language->model), (long long)language->model.types, layout->size,
          layout->replicas, layout->stages, layout->owners);
  const bool sums = layout->owners * layout->replicas > 1, talk = layout->devices_talk || layout->owners_talk;
  const char *const ways = kwm_language_ways(language->language);
  if (run->device != NULL)
    kwm_log(KWM_LOG_INFO, "backend %s: %s%s%s%s", kwm_device_name(run->device), run->device->words, *ways ? "; " : "",
            ways,
            !sums  ? ""
            : talk ? "; sums of a stage between devices"
                   : "; sums of a stage through the host");
}

static const struct kwm_loop_kind texts = {.load = load,
                                           .open = open_tables,
                                           .say = say,
                                           .begin = begin,
                                           .step = train_step,
                                           .place = place,
                                           .evaluate = evaluate,
                                           .row = row,
                                           .inflate = inflate,
                                           .finite = means_finite,
                                           .put = put,
                                           .close = end,
                                           .summary = summary};

static kwm_status train_built(struct kwm_language_run *language, const struct kwm_arguments *arguments) {
  struct training training = {0};
  struct kwm_file_facts files[3];
  int n_files = 0;
  for (int split = 0; split < 3; split++)
    if (language->text[split].n > 0) files[n_files++] = language->text[split].file;
  kwm_language_progress_init(&training.progress, language);
  struct kwm_language_counts *const counts = &training.progress.counts;
  struct kwm_loop loop = {.kind = &texts,
                          .self = &training,
                          .run = language->run,
                          .steps = language->steps,
                          .resumes = arguments->resume,
                          .n_files = n_files,
                          .files = files,
                          .seconds = &counts->seconds,
                          .comm_seconds = &counts->comm_seconds,
                          .row_seconds = &counts->row_seconds};
  return kwm_loop_run(&loop);
}

static kwm_status train(struct kwm_language_run *language, const struct kwm_arguments *arguments) {
  struct kwm_run *const run = language->run;
  KWM_TRY(kwm_language_run_layout(language));
  KWM_TRY(kwm_agree(run->layout.world, run->layout.rank == 0 ? kwm_rundir_check(run, arguments->resume) : KWM_OK));
  KWM_TRY(kwm_language_run_read(language));
  KWM_TRY(kwm_run_open_device(run));
  KWM_TRY(kwm_language_plan_check(language, false));
  KWM_TRY(kwm_language_run_build(language));
  return train_built(language, arguments);
}

kwm_status kwm_language_train(struct kwm_run *run, const struct kwm_arguments *arguments) {
  struct kwm_language_run language = {.run = run};
  const kwm_status status = train(&language, arguments);
  kwm_language_run_fini(&language);
  return status;
}
