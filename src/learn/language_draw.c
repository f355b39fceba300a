/* Draws from the posterior of a language model's parameters, for predictions that average over it. */
#include "language_state.h"

float *const *kwm_language_draw(kwm_language_learner *learner, double scale, uint64_t draw) {
  float *const *const means = kwm_language_means(learner, true);
  struct kwm_riccati_key key = {.seed = learner->spec.seed, .draw = draw};
  for (int t = 0; t < learner->model->n_tensors; t++) {
    const int64_t n = language_size(learner->model, t);
    if (learner->owns[t]) {
      kwm_device_copy(learner->device, learner->score[t], means[t], (size_t)n * sizeof(float));
      kwm_riccati_draw(&learner->cov[t], scale, &key, learner->host, &learner->room, learner->score[t]);
    }
    key.first += (uint64_t)n;
  }
  language_spread_means(learner, learner->score);
  return learner->score;
}
