/* kwm eval and kwm plan of a language model. */
#include <stdio.h>

#include "language_checkpoint.h"
#include "language_commands.h"
#include "language_stream.h"

static void print_score(const struct kwm_language_run *run, const char *split, const struct kwm_language_score *score) {
  if (score->tokens == 0) return;
  printf("%s_tokens\t%lld\n", split, (long long)score->tokens);
  printf("%s_perplexity\t%.3f\n", split, score->stage[run->model.stages - 1]);
  if (run->model.stages == 1) return;
  printf("%s_perplexity_fused\t%.3f\n", split, score->fused);
  for (int s = 0; s < run->model.stages; s++) printf("%s_perplexity_stage%d\t%.3f\n", split, s + 1, score->stage[s]);
}

static kwm_status eval(struct kwm_language_run *language, kwm_ckpt *ckpt) {
  double weights[KWM_TRANSFORMER_STAGES_MAX];
  struct kwm_language_score valid, test;
  struct kwm_run *const run = language->run;
  KWM_TRY(kwm_language_run_layout(language));
  KWM_TRY(kwm_language_run_read(language));
  KWM_TRY(kwm_run_open_device(run));
  KWM_TRY(kwm_language_run_build(language));
  KWM_TRY(kwm_language_checkpoint_matches(language, ckpt));
  KWM_TRY(kwm_language_learner_load_means(language->learner, ckpt));
  if (kwm_language_stream_is(&run->config)) return kwm_language_stream_eval(language);
  KWM_TRY(kwm_language_score(language, KWM_VALID, true, weights, &valid));
  KWM_TRY(kwm_language_score(language, KWM_TEST, valid.tokens == 0, weights, &test));
  if (run->layout.rank > 0) return KWM_OK;
  print_score(language, "valid", &valid);
  print_score(language, "test", &test);
  for (int s = 0; s < language->model.stages && language->model.stages > 1; s++)
    printf("fusion_weight_stage%d\t%.4f\n", s + 1, weights[s]);
  return KWM_OK;
}

kwm_status kwm_language_eval(struct kwm_run *run, kwm_ckpt *ckpt) {
  struct kwm_language_run language = {.run = run};
  if (kwm_language_stream_is(&run->config))
    KWM_TRY(kwm_language_stream_fit(&run->config, run->config.correction.streams));
  else
    kwm_language_run_fit(&run->config);
  const kwm_status status = eval(&language, ckpt);
  kwm_language_run_fini(&language);
  return status;
}

static void print_plan(const struct kwm_language_run *language) {
  const struct kwm_config *const config = &language->run->config;
  const struct kwm_layout *const layout = &language->run->layout;
  const struct kwm_language_spec spec = kwm_language_run_spec(language);
  const struct kwm_language_learn_spec learn = kwm_language_run_learn_spec(language);
  const double mega = 1e6, rows = (double)(config->train.batch * config->model.context) * (double)config->model.width;
  struct kwm_language_place place;
  if (kwm_language_spread(&place, &language->model, spec.reading, layout->stages) != KWM_OK) return;
  printf("# %lld parameters, %lld words, %lld tokens of training text, %lld steps a pass; %d ranks = %d replicas x %d "
         "stages\n",
         (long long)kwm_transformer_parameters(&language->model), (long long)language->model.types,
         (long long)language->text[KWM_TRAIN].n, (long long)language->pass_steps, layout->size, layout->replicas,
         layout->stages);
  printf("rank\tlayers\treadings\tmeans_covariance_MB\tactivations_MB\ttotal_MB\n");
  for (int rank = 0; rank < layout->size; rank++) {
    const int r = rank % layout->stages;
    const double learner = kwm_language_learner_bytes(&language->model, &place, r, &learn) / mega;
    const double pipe = kwm_language_bytes(&language->model, &spec, layout->stages, r, layout->replicas) / mega;
    printf("%d\t%d to %d\t%d\t%.1f\t%.1f\t%.1f\n", rank, place.first_layer[r] + 1, place.first_layer[r + 1],
           place.first_stage[r + 1] - place.first_stage[r], learner, pipe, learner + pipe);
  }
  const double boundaries = layout->stages - 1, copies = (double)(language->model.types * language->model.width);
  printf("# messages of a step, MB: forward %.1f, back %.1f, embedded tokens %.1f, the embedding's copies %.1f\n",
         4 * rows * boundaries / mega, language->model.stages > 1 ? 0 : 4 * rows * boundaries / mega,
         boundaries > 0 ? 4 * rows / mega : 0, 4 * copies * boundaries * layout->replicas / mega);
}

static kwm_status plan(struct kwm_language_run *language) {
  struct kwm_language_place place;
  KWM_TRY(kwm_language_run_layout(language));
  KWM_TRY(kwm_language_run_read(language));
  KWM_TRY(kwm_language_spread(&place, &language->model, 0, language->run->layout.stages));
  if (language->run->layout.rank == 0) print_plan(language);
  return KWM_OK;
}

kwm_status kwm_language_plan(struct kwm_run *run) {
  struct kwm_language_run language = {.run = run};
  const kwm_status status = plan(&language);
  kwm_language_run_fini(&language);
  return status;
}
