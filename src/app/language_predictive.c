/* A language model's predictions averaged over its posterior: p(word) = mean over draws θ ~ N(mean, scale P) of p(word
 * | θ). */
#include <math.h>
#include <string.h>

#include "kwm/log.h"
#include "language_run.h"

/* mean += exp(-surprisal) */
static void add(int64_t n, const double *surprisal, double *mean) {
  for (int64_t t = 0; t < n; t++) mean[t] += exp(-surprisal[t]);
}

static void finish(int64_t n, int64_t draws, double *mean) {
  for (int64_t t = 0; t < n; t++) mean[t] = -log(mean[t] / (double)draws);
}

static void draw_all(struct kwm_language_run *run, const struct kwm_tokens *text, const double *weights,
                     double *surprisal, double *mean) {
  const int64_t n = text->n - 1, draws = run->run->config.predictive.draws;
  const int stages = run->model.stages;
  for (int64_t k = 0; k < draws; k++) {
    struct kwm_language_score one;
    float *const *const means = kwm_language_draw(run->learner, run->run->config.predictive.scale, (uint64_t)k);
    kwm_language_share(run->language, means);
    kwm_language_predict(run->language, means, text->n, text->ids, surprisal);
    add(stages * n, surprisal, mean);
    kwm_language_score_text(stages, n, surprisal, weights, &one);
    if (run->run->layout.rank == 0)
      kwm_log(KWM_LOG_INFO, "draw %lld of %lld: perplexity %.3f", (long long)k + 1, (long long)draws,
              one.stage[stages - 1]);
  }
  finish(stages * n, draws, mean);
}

kwm_status kwm_language_score_draws(struct kwm_language_run *run, enum kwm_split split, const double *weights,
                                    struct kwm_language_score *score) {
  const struct kwm_tokens *const text = &run->text[split];
  const size_t bytes = (size_t)run->model.stages * (size_t)(text->n < 1 ? 0 : text->n - 1) * sizeof(double);
  double *surprisal = NULL, *mean = NULL;
  memset(score, 0, sizeof *score);
  if (bytes == 0) return KWM_OK;
  kwm_status status = kwm_alloc((void **)&surprisal, bytes, "surprisal");
  if (status == KWM_OK) status = kwm_alloc((void **)&mean, bytes, "surprisal");
  status = kwm_agree(run->run->layout.world, status);
  if (status == KWM_OK) {
    draw_all(run, text, weights, surprisal, mean);
    kwm_language_score_text(run->model.stages, text->n - 1, mean, weights, score);
  }
  kwm_free(surprisal);
  kwm_free(mean);
  return status;
}
