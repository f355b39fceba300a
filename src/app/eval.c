/* kwm eval: the metrics of a checkpoint on the test split (and the held-out one), on any layout; of a run on a stream
   of tasks those of every task (eval_stream.c). */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoint.h"
#include "eval_stream.h"
#include "kwm/app.h"
#include "language_commands.h"
#include "language_run.h"
#include "language_stream.h"
#include "world_run.h"

/* One "name<TAB>value" line per metric. */
static void print_metrics(const char *split, bool gaussian, const struct kwm_innovation *sums) {
  printf("%s_samples\t%.0f\n", split, sums->samples);
  printf("%s_accuracy\t%.6f\n", split, sums->correct / sums->samples);
  printf("%s_loss\t%.6f\n", split, sums->surprisal / sums->samples);
  printf("%s_entropy\t%.6f\n", split, sums->entropy / sums->samples);
  printf("%s_surprisal_z\t%.3f\n", split, kwm_innovation_score(sums));
  if (gaussian) return;
  printf("%s_calibration_error\t%.6f\n", split, kwm_calibration_error(&sums->calibration));
}

static kwm_status evaluate(struct kwm_run *run, kwm_ckpt *ckpt) {
  struct kwm_innovation sums;
  KWM_TRY(kwm_run_read_data(run, run->config.data.validation > 0, true));
  KWM_TRY(kwm_run_build(run));
  KWM_TRY(kwm_checkpoint_matches(run, ckpt));
  KWM_TRY(kwm_learner_load(&run->learner, ckpt));
  const struct kwm_means means = kwm_learner_means(&run->learner);
  kwm_pipe_predict(run->pipe, &means, &run->test, &sums);
  if (run->layout.rank == 0) print_metrics("test", run->model.noise_variance > 0, &sums);
  if (run->valid.n == 0) return KWM_OK;
  kwm_pipe_predict(run->pipe, &means, &run->valid, &sums);
  if (run->layout.rank == 0) print_metrics("valid", run->model.noise_variance > 0, &sums);
  return KWM_OK;
}

static kwm_status eval(struct kwm_run *run, const struct kwm_arguments *arguments, kwm_ckpt **ckpt) {
  struct kwm_layout world;
  char *text = NULL;
  int64_t step = 0, pixels = 0, classes = 0;
  KWM_CHECK(arguments->subject != NULL, KWM_ERR_USAGE, "arguments: wanted a run directory or checkpoint, found none");
  KWM_CHECK(!arguments->resume, KWM_ERR_USAGE, "arguments: wanted no --resume with eval");
  kwm_par_world(&world);
  KWM_TRY(kwm_run_open_checkpoint(ckpt, &world, arguments->subject));
  KWM_TRY(kwm_ckpt_get_text(*ckpt, "/meta", "config", &text));
  const kwm_status status = kwm_run_configure_text(run, arguments->subject, text, arguments);
  free(text);
  KWM_TRY(status);
  if (kwm_world_wanted(&run->config)) return kwm_world_eval(run, *ckpt, arguments->subject);
  KWM_TRY(kwm_ckpt_get_i64(*ckpt, "/meta", "step", &step));
  if (kwm_language_is(&run->config)) {
    if (world.rank == 0) printf("checkpoint\t%s\nstep\t%lld\n", kwm_ckpt_path(*ckpt), (long long)step);
    return kwm_language_eval(run, *ckpt);
  }
  KWM_CHECK(!kwm_language_stream_is(&run->config), KWM_ERR_USAGE,
            "eval: wanted correction, shift, baseline and topics of a language model only, found model.kind %s",
            run->config.model.kind);
  KWM_TRY(kwm_ckpt_get_i64(*ckpt, "/meta", "pixels", &pixels));
  kwm_run_fit_layout(&run->config, false);
  KWM_TRY(kwm_ckpt_get_i64(*ckpt, "/meta", "classes", &classes));
  KWM_TRY(kwm_run_lay_out(run, pixels, (int)classes));
  if (world.rank == 0) printf("checkpoint\t%s\nstep\t%lld\n", kwm_ckpt_path(*ckpt), (long long)step);
  return kwm_run_streams(&run->config) ? kwm_eval_stream(run, *ckpt, step) : evaluate(run, *ckpt);
}

kwm_status kwm_command_eval(int argc, char **argv) {
  struct kwm_arguments arguments;
  struct kwm_run run;
  kwm_ckpt *ckpt = NULL;
  memset(&run, 0, sizeof run);
  kwm_status status = kwm_arguments_read(&arguments, argc, argv);
  if (status == KWM_OK) status = eval(&run, &arguments, &ckpt);
  kwm_ckpt_close(&ckpt);
  kwm_run_fini(&run);
  kwm_arguments_fini(&arguments);
  return status;
}
