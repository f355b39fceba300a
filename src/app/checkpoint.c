/* What a run puts into a checkpoint beside the learner: configuration, cursor, counts. The order of samples and all
   random numbers are keyed by (seed, epoch, index), so step and seed are the whole cursor. */
#include "checkpoint.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kwm/log.h"
#include "task_table.h"

enum { N_COUNTS = sizeof(struct kwm_counts) / sizeof(double) };

/* The names of struct kwm_counts' numbers in order, for readers of the file; name[n]: n numbers. */
static const char count_names[] =
    "seconds comm_seconds samples_seen skipped_steps skips_in_a_row skipped_not_finite skipped_indefinite "
    "skipped_gated nis_sum nis_steps test_accuracy test_loss valid_accuracy valid_loss change[8] train_loss row_steps "
    "row_skipped row_seconds row_nis row_search row_kl[32] row_scale[32] row_moved[32] process_noise[32] noise "
    "row_chi2[3] "
    "score_test[3] surprisal_ljung_box[34] row_samples row_surprisal row_entropy row_variance row_correct row_squared "
    "row_expected row_calibration[45] lap_nis_first lap_first lap_nis_last lap_last lap_shortened";
_Static_assert(KWM_GROUPS_MAX == 32 && KWM_DOUBLES(struct kwm_change) == 8 &&
                   N_COUNTS == 18 + 8 + 1 + 6 + 4 * KWM_GROUPS_MAX + 1 + 3 + 3 + KWM_DOUBLES(struct kwm_ljung_box) +
                                   KWM_INNOVATION_FIELDS &&
                   KWM_DOUBLES(struct kwm_ljung_box) == 34 && KWM_DOUBLES(struct kwm_calibration) == 45,
               "count_names lists the numbers of struct kwm_counts");

bool kwm_checkpoint_finite(const struct kwm_run *run) {
  const struct kwm_params *const params = &run->params;
  for (int g = 0; g < params->model->n_groups; g++) {
    const float *const mean = kwm_params_home(params, g);
    for (int64_t k = 0; k < params->share[g].count * params->model->groups[g].params; k++)
      if (!isfinite(mean[k])) return false;
  }
  return true;
}

/* Samples of the pass or task in hand that are behind. */
static int64_t cursor_of(const struct kwm_run *run, int64_t step) {
  if (step == 0) return 0;
  const struct kwm_lap lap = kwm_run_lap(run, step - 1);
  return (step - lap.first) % lap.steps * run->config.train.batch;
}

kwm_status kwm_checkpoint_put(const struct kwm_run *run, const struct kwm_progress *progress, kwm_ckpt *ckpt) {
  KWM_TRY(kwm_ckpt_put_i64(ckpt, "/meta", "epoch", (int64_t)kwm_progress_epoch(progress)));
  KWM_TRY(kwm_ckpt_put_i64(ckpt, "/meta", "cursor", cursor_of(run, progress->step)));
  KWM_TRY(kwm_ckpt_put_i64(ckpt, "/meta", "epoch_steps", kwm_run_lap(run, 0).steps));
  KWM_TRY(kwm_ckpt_put_i64(ckpt, "/meta", "pixels", run->model.length));
  KWM_TRY(kwm_ckpt_put_i64(ckpt, "/meta", "classes", run->model.classes));
  const int64_t dims[1] = {N_COUNTS};
  KWM_TRY(kwm_ckpt_put_text(ckpt, "/history", "names", count_names));
  KWM_TRY(kwm_ckpt_put(ckpt, "/history/counts", KWM_F64, 1, dims, 0, run->layout.rank == 0 ? N_COUNTS : 0,
                       &progress->counts));
  if (progress->tasks != NULL) KWM_TRY(kwm_task_table_save(progress->tasks, ckpt, run->layout.rank == 0));
  return kwm_learner_save(&run->learner, ckpt);
}

/* The keys that make a model what it is: a checkpoint fits only a configuration that agrees in them. */
static kwm_status compare(const struct kwm_config *ours, const struct kwm_config *theirs, const char *path) {
  const struct {
    const char *key;
    double ours, theirs;
  } keys[] = {{"model.width", (double)ours->model.width, (double)theirs->model.width},
              {"model.hidden", (double)ours->model.hidden, (double)theirs->model.hidden},
              {"train.batch", (double)ours->train.batch, (double)theirs->train.batch},
              {"data.validation", (double)ours->data.validation, (double)theirs->data.validation},
              {"data.permute", ours->data.permute, theirs->data.permute},
              {"stream.tasks", (double)ours->stream.tasks, (double)theirs->stream.tasks},
              {"stream.seed", (double)ours->stream.seed, (double)theirs->stream.seed},
              {"stream.samples", (double)ours->stream.samples, (double)theirs->stream.samples},
              {"stream.angle", ours->stream.angle, theirs->stream.angle},
              {"stream.blend", ours->stream.blend, theirs->stream.blend},
              {"stream.relabel", ours->stream.relabel, theirs->stream.relabel}};
  const struct {
    const char *key, *ours, *theirs;
  } words[] = {{"learner", ours->learner, theirs->learner},
               {"model.kind", ours->model.kind, theirs->model.kind},
               {"model.widths", ours->model.widths, theirs->model.widths},
               {"sensitivity", ours->sensitivity, theirs->sensitivity},
               {"filter.evidence", ours->filter.evidence, theirs->filter.evidence},
               {"stream.kind", ours->stream.kind, theirs->stream.kind},
               {"stream.paths", ours->stream.paths, theirs->stream.paths},
               {"stream.boundaries", ours->stream.boundaries, theirs->stream.boundaries}};
  for (size_t k = 0; k < sizeof keys / sizeof keys[0]; k++)
    KWM_CHECK(keys[k].ours == keys[k].theirs, KWM_ERR_DATA, "checkpoint %s is of another run: wanted %s %g, found %g",
              path, keys[k].key, keys[k].ours, keys[k].theirs);
  KWM_CHECK(ours->seed == theirs->seed, KWM_ERR_DATA, "checkpoint %s is of another run: wanted seed %llu, found %llu",
            path, (unsigned long long)ours->seed, (unsigned long long)theirs->seed);
  for (size_t k = 0; k < sizeof words / sizeof words[0]; k++)
    KWM_CHECK(strcmp(words[k].ours, words[k].theirs) == 0, KWM_ERR_DATA,
              "checkpoint %s is of another run: wanted %s %s, found %s", path, words[k].key, words[k].ours,
              words[k].theirs);
  return KWM_OK;
}

kwm_status kwm_checkpoint_matches(const struct kwm_run *run, kwm_ckpt *ckpt) {
  char *text = NULL;
  struct kwm_config theirs;
  KWM_TRY(kwm_ckpt_get_text(ckpt, "/meta", "config", &text));
  kwm_status status = kwm_config_load(&theirs, kwm_ckpt_path(ckpt), text, 0, NULL);
  if (status == KWM_OK) {
    status = compare(&run->config, &theirs, kwm_ckpt_path(ckpt));
    kwm_config_fini(&theirs);
  }
  free(text);
  return kwm_agree(run->layout.world, status);
}

kwm_status kwm_checkpoint_load(struct kwm_run *run, struct kwm_progress *progress, kwm_ckpt *ckpt) {
  const int64_t dims[1] = {N_COUNTS};
  int64_t step = 0, epoch_steps = 0;
  KWM_TRY(kwm_checkpoint_matches(run, ckpt));
  KWM_TRY(kwm_ckpt_get_i64(ckpt, "/meta", "step", &step));
  KWM_TRY(kwm_ckpt_get_i64(ckpt, "/meta", "epoch_steps", &epoch_steps));
  KWM_CHECK(epoch_steps == kwm_run_lap(run, 0).steps, KWM_ERR_DATA,
            "checkpoint %s is of other data: wanted %lld steps an epoch, found %lld", kwm_ckpt_path(ckpt),
            (long long)kwm_run_lap(run, 0).steps, (long long)epoch_steps);
  KWM_TRY(kwm_ckpt_get(ckpt, "/history/counts", KWM_F64, 1, dims, 0, N_COUNTS, &progress->counts));
  if (progress->tasks != NULL) KWM_TRY(kwm_task_table_load(progress->tasks, ckpt));
  KWM_TRY(kwm_learner_load(&run->learner, ckpt));
  progress->step = step;
  return KWM_OK;
}
