/* learner: sgd. v <- μ v + ∇, θ <- θ + rate v, rate on a cosine schedule. A baseline on the filter's own gradients. */
#include "gradient.h"

static void sgd_step(kwm_learner *learner, const struct kwm_lin *lin, struct kwm_step *step) {
  gradient_sum(learner, lin, step);
  if (step->verdict != KWM_STEP_DONE) return;
  struct gradient_state *state = learner->state;
  const float rate = (float)(learner->spec.rate * gradient_schedule(learner)), mu = (float)learner->spec.momentum;
  for (int g = 0; g < learner->params->model->n_groups; g++)
    for (int64_t k = 0; k < gradient_length(learner->params, g); k++) {
      float *const v = &state->moment[0][g][k];
      *v = mu * *v + gradient_at(learner, g, k, lin->batch);
      learner->params->mean[g][k] += rate * *v;
    }
}

const struct kwm_learner_ops kwm_learn_sgd = {
    .name = "sgd",
    .bytes = gradient_bytes,
    .saved = gradient_saved,
    .create = gradient_create,
    .step = sgd_step,
    .save = gradient_save,
    .load = gradient_load,
    .destroy = gradient_destroy,
};
