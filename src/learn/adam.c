/* learner: adam. Kingma & Ba 2015 with bias correction and a cosine schedule. A baseline on the filter's own gradients.
 */
#include "gradient.h"

static void adam_step(kwm_learner *learner, const struct kwm_lin *lin, struct kwm_step *step) {
  gradient_sum(learner, lin, step);
  if (step->verdict != KWM_STEP_DONE) return;
  const struct gradient_state *const state = learner->state;
  for (int g = 0; g < learner->params->model->n_groups; g++) {
    float *const gradient = state->scratch[g];
    for (int64_t k = 0; k < gradient_length(learner->params, g); k++)
      gradient[k] = gradient_at(learner, g, k, lin->batch);
    gradient_adam(learner, g, gradient);
  }
}

const struct kwm_learner_ops kwm_learn_adam = {
    .name = "adam",
    .bytes = gradient_bytes,
    .saved = gradient_saved,
    .create = gradient_create,
    .step = adam_step,
    .save = gradient_save,
    .load = gradient_load,
    .destroy = gradient_destroy,
};
