/* kwm eval of a language model. */
#include <stdio.h>
#include <string.h>

#include "language_checkpoint.h"
#include "language_commands.h"
#include "language_stream.h"

static void print_score(const struct kwm_language_run *run, const char *split, const struct kwm_language_score *score,
                        const struct kwm_language_score *drawn) {
  if (score->tokens == 0) return;
  printf("%s_tokens\t%lld\n", split, (long long)score->tokens);
  printf("%s_perplexity\t%.3f\n", split, score->stage[run->model.stages - 1]);
  if (drawn->tokens > 0) printf("%s_perplexity_posterior\t%.3f\n", split, drawn->stage[run->model.stages - 1]);
  if (run->model.stages == 1) return;
  printf("%s_perplexity_fused\t%.3f\n", split, score->fused);
  for (int s = 0; s < run->model.stages; s++) printf("%s_perplexity_stage%d\t%.3f\n", split, s + 1, score->stage[s]);
}

static kwm_status check_draws(const struct kwm_config *config) {
  const bool draws = config->predictive.draws > 0;
  KWM_CHECK(!draws || strcmp(config->learner, "kalman") == 0, KWM_ERR_USAGE,
            "config: wanted learner kalman with predictive.draws, found %s, which has no posterior", config->learner);
  KWM_CHECK(!draws || !kwm_language_stream_is(config), KWM_ERR_USAGE,
            "config: wanted predictive.draws 0 with a text read as streams, found %lld",
            (long long)config->predictive.draws);
  return KWM_OK;
}

/* What the evaluation needs of the checkpoint. */
static kwm_status load(struct kwm_language_run *language, kwm_ckpt *ckpt) {
  const struct kwm_config *const config = &language->run->config;
  KWM_TRY(kwm_agree(language->run->layout.world, check_draws(config)));
  if (config->predictive.draws > 0 || strcmp(config->baseline.kind, "learner") == 0)
    return kwm_language_learner_load(language->learner, ckpt);
  return kwm_language_learner_load_means(language->learner, ckpt);
}

static kwm_status eval(struct kwm_language_run *language, kwm_ckpt *ckpt) {
  double weights[KWM_TRANSFORMER_STAGES_MAX];
  struct kwm_language_score valid, test, drawn[2] = {{0}};
  struct kwm_run *const run = language->run;
  KWM_TRY(kwm_language_run_layout(language));
  if (kwm_language_stream_is(&run->config)) kwm_language_stream_divide(language, run->config.correction.streams);
  KWM_TRY(kwm_language_run_read(language));
  KWM_TRY(kwm_run_open_device(run));
  KWM_TRY(kwm_language_run_build(language));
  KWM_TRY(kwm_language_checkpoint_matches(language, ckpt));
  KWM_TRY(load(language, ckpt));
  if (kwm_language_stream_is(&run->config)) return kwm_language_stream_eval(language);
  KWM_TRY(kwm_language_score(language, KWM_VALID, true, weights, &valid));
  KWM_TRY(kwm_language_score(language, KWM_TEST, valid.tokens == 0, weights, &test));
  for (int k = 0; k < 2 && run->config.predictive.draws > 0; k++)
    KWM_TRY(kwm_language_score_draws(language, k == 0 ? KWM_VALID : KWM_TEST, weights, &drawn[k]));
  if (run->layout.rank > 0) return KWM_OK;
  print_score(language, "valid", &valid, &drawn[0]);
  print_score(language, "test", &test, &drawn[1]);
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
