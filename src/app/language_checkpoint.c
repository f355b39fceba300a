/* What a language model's run puts into a checkpoint beside the learner. Steps and dropped elements are keyed by
   (seed, step), so step and seed are the whole cursor. */
#include "language_checkpoint.h"

#include <stdlib.h>
#include <string.h>

enum { N_COUNTS = sizeof(struct kwm_language_counts) / sizeof(double) };

static const char count_names[] =
    "seconds comm_seconds tokens_seen skipped skips_in_a_row nis_sum nis_steps train_loss valid valid_fused test "
    "test_fused best_valid best_epoch best_test best_test_fused weights[16] trace[3] row_seconds row_steps row_norm "
    "row[96] row_kl[16] row_scale[16]";
_Static_assert(N_COUNTS == 16 + KWM_TRANSFORMER_STAGES_MAX + KWM_TENSOR_ROLES + 3 +
                               KWM_TRANSFORMER_STAGES_MAX * (KWM_READ_SUMS + 2) &&
                   KWM_TRANSFORMER_STAGES_MAX == 16 && KWM_TENSOR_ROLES == 3 && KWM_READ_SUMS == 6,
               "count_names lists the numbers of struct kwm_language_counts");

kwm_status kwm_language_checkpoint_put(const struct kwm_language_progress *progress, kwm_ckpt *ckpt) {
  const struct kwm_language_run *const language = progress->run;
  const struct kwm_config *const config = &language->run->config;
  const int64_t dims[1] = {N_COUNTS}, pass = progress->step / language->pass_steps;
  KWM_TRY(kwm_ckpt_put_i64(ckpt, "/meta", "epoch", pass));
  KWM_TRY(kwm_ckpt_put_i64(ckpt, "/meta", "cursor", progress->step - pass * language->pass_steps));
  KWM_TRY(kwm_ckpt_put_i64(ckpt, "/meta", "epoch_steps", language->pass_steps));
  KWM_TRY(kwm_ckpt_put_i64(ckpt, "/meta", "types", language->model.types));
  KWM_TRY(kwm_ckpt_put_i64(ckpt, "/meta", "vocabulary_crc32", kwm_vocabulary_facts(language->vocabulary).crc32));
  KWM_TRY(kwm_ckpt_put_text(ckpt, "/learner", "name", config->learner));
  KWM_TRY(kwm_ckpt_put_text(ckpt, "/history", "names", count_names));
  KWM_TRY(kwm_ckpt_put(ckpt, "/history/counts", KWM_F64, 1, dims, 0, language->run->layout.rank == 0 ? N_COUNTS : 0,
                       &progress->counts));
  return kwm_language_learner_save(language->learner, ckpt);
}

/* The keys that make a model what it is. */
static kwm_status compare(const struct kwm_config *ours, const struct kwm_config *theirs, const char *path) {
  const struct {
    const char *key;
    int64_t ours, theirs;
  } keys[] = {{"seed", (int64_t)ours->seed, (int64_t)theirs->seed},
              {"model.layers", ours->model.layers, theirs->model.layers},
              {"model.width", ours->model.width, theirs->model.width},
              {"model.heads", ours->model.heads, theirs->model.heads},
              {"model.ratio", ours->model.ratio, theirs->model.ratio},
              {"model.context", ours->model.context, theirs->model.context},
              {"model.readouts", ours->model.readouts, theirs->model.readouts}};
  const struct {
    const char *key, *ours, *theirs;
  } words[] = {{"model.kind", ours->model.kind, theirs->model.kind},
               {"learner", ours->learner, theirs->learner},
               {"sensitivity", ours->sensitivity, theirs->sensitivity},
               {"cov.hidden.structure", ours->cov.hidden.structure, theirs->cov.hidden.structure},
               {"cov.output.structure", ours->cov.output.structure, theirs->cov.output.structure}};
  for (size_t k = 0; k < sizeof keys / sizeof keys[0]; k++)
    KWM_CHECK(keys[k].ours == keys[k].theirs, KWM_ERR_DATA,
              "checkpoint %s is of another run: wanted %s %lld, found %lld", path, keys[k].key, (long long)keys[k].ours,
              (long long)keys[k].theirs);
  for (size_t k = 0; k < sizeof words / sizeof words[0]; k++)
    KWM_CHECK(strcmp(words[k].ours, words[k].theirs) == 0, KWM_ERR_DATA,
              "checkpoint %s is of another run: wanted %s %s, found %s", path, words[k].key, words[k].ours,
              words[k].theirs);
  return KWM_OK;
}

static kwm_status compare_texts(const struct kwm_language_run *run, kwm_ckpt *ckpt) {
  const struct kwm_vocabulary_facts facts = kwm_vocabulary_facts(run->vocabulary);
  int64_t types = 0, crc = 0;
  KWM_TRY(kwm_ckpt_get_i64(ckpt, "/meta", "types", &types));
  KWM_TRY(kwm_ckpt_get_i64(ckpt, "/meta", "vocabulary_crc32", &crc));
  KWM_CHECK(types == facts.size && crc == (int64_t)facts.crc32, KWM_ERR_DATA,
            "checkpoint %s is of other text: wanted %d words with CRC-32 %08x, found %lld with %08llx",
            kwm_ckpt_path(ckpt), facts.size, facts.crc32, (long long)types, (unsigned long long)crc);
  return KWM_OK;
}

kwm_status kwm_language_checkpoint_matches(const struct kwm_language_run *run, kwm_ckpt *ckpt) {
  char *text = NULL;
  struct kwm_config theirs;
  KWM_TRY(kwm_ckpt_get_text(ckpt, "/meta", "config", &text));
  kwm_status status = kwm_config_load(&theirs, kwm_ckpt_path(ckpt), text, 0, NULL);
  if (status == KWM_OK) {
    status = compare(&run->run->config, &theirs, kwm_ckpt_path(ckpt));
    kwm_config_fini(&theirs);
  }
  free(text);
  KWM_TRY(kwm_agree(run->run->layout.world, status));
  return compare_texts(run, ckpt);
}

kwm_status kwm_language_checkpoint_load(struct kwm_language_progress *progress, kwm_ckpt *ckpt) {
  const struct kwm_language_run *const run = progress->run;
  const int64_t dims[1] = {N_COUNTS};
  int64_t step = 0, epoch_steps = 0;
  KWM_TRY(kwm_language_checkpoint_matches(run, ckpt));
  KWM_TRY(kwm_ckpt_get_i64(ckpt, "/meta", "step", &step));
  KWM_TRY(kwm_ckpt_get_i64(ckpt, "/meta", "epoch_steps", &epoch_steps));
  KWM_CHECK(epoch_steps == run->pass_steps, KWM_ERR_DATA,
            "checkpoint %s is of other steps: wanted %lld a pass, found %lld", kwm_ckpt_path(ckpt),
            (long long)run->pass_steps, (long long)epoch_steps);
  KWM_TRY(kwm_ckpt_get(ckpt, "/history/counts", KWM_F64, 1, dims, 0, N_COUNTS, &progress->counts));
  kwm_language_progress_own(progress);
  KWM_TRY(kwm_language_learner_load(run->learner, ckpt));
  progress->step = step;
  return KWM_OK;
}
