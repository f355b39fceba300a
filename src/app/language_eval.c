/* kwm eval of a language model. */
#include <stdio.h>
#include <string.h>

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
  if (strcmp(run->config.baseline.kind, "learner") == 0)
    KWM_TRY(kwm_language_learner_load(language->learner, ckpt));
  else
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
