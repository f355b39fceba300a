/* learner: adam. Kingma & Ba 2015 with bias correction and a cosine schedule. A baseline on the filter's own gradients.
 */
#include <math.h>

#include "gradient.h"

static void adam_step(kwm_learner *learner, const struct kwm_lin *lin, struct kwm_step *step) {
  gradient_sum(learner, lin, step);
  if (step->verdict != KWM_STEP_DONE) return;
  struct gradient_state *state = learner->state;
  const struct kwm_learn_spec *const spec = &learner->spec;
  const double t = (double)learner->steps + 1;
  const float b1 = (float)spec->beta1, b2 = (float)spec->beta2, epsilon = (float)spec->epsilon;
  const float correct1 = (float)(1 / (1 - pow(spec->beta1, t))), correct2 = (float)(1 / (1 - pow(spec->beta2, t)));
  const float rate = (float)(spec->rate * gradient_schedule(learner));
  for (int g = 0; g < KWM_GROUPS; g++)
    for (int64_t k = 0; k < gradient_length(learner->params, g); k++) {
      const float gradient = gradient_at(learner, g, k, lin->batch);
      float *const first = &state->moment[0][g][k], *const second = &state->moment[1][g][k];
      *first = b1 * *first + (1 - b1) * gradient;
      *second = b2 * *second + (1 - b2) * gradient * gradient;
      learner->params->mean[g][k] += rate * (*first * correct1) / (sqrtf(*second * correct2) + epsilon);
    }
}

const struct kwm_learner_ops kwm_learn_adam = {
    .name = "adam",
    .bytes = gradient_bytes,
    .create = gradient_create,
    .step = adam_step,
    .save = gradient_save,
    .load = gradient_load,
    .destroy = gradient_destroy,
};
