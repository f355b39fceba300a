/* learner: si. Synaptic intelligence (Zenke et al. 2017) around Adam. A parameter's importance is the likelihood that
   its way through a task has won, the path integral of the unpenalised gradient, over the square of that way:

     ω += score/N (θ - θ before the step),    gradient  score/N - 2 strength Ω (θ - anchor);

   at a boundary Ω += max(ω, 0) / ((θ - anchor)² + damping), ω <- 0, anchor <- θ (where the next way starts), and Adam's
   first moment <- 0. */
#include "gradient.h"

enum { MOMENT1, MOMENT2, PATH, IMPORTANCE, ANCHOR };

static const struct gradient_kind si = {
    .state_bytes = sizeof(struct gradient_state),
    .evidence = GRADIENT_SCORE,
    .n_arrays = 5,
    .array = {[MOMENT1] = {"moment1", GRADIENT_PARAMS},
              [MOMENT2] = {"moment2", GRADIENT_PARAMS},
              [PATH] = {"path", GRADIENT_PARAMS},
              [IMPORTANCE] = {"importance", GRADIENT_PARAMS},
              [ANCHOR] = {"anchor", GRADIENT_PARAMS}},
};

static size_t si_saved(const struct kwm_params *params) {
  return gradient_kind_saved(&si, params);
}

static size_t si_bytes(const struct kwm_learn_spec *spec, const struct kwm_params *params, int64_t replicas) {
  return gradient_kind_bytes(&si, spec, params, replicas);
}

static kwm_status si_create(kwm_learner *learner) {
  KWM_TRY(gradient_kind_create(&si, learner));
  gradient_anchor(learner, ANCHOR);
  return KWM_OK;
}

static void step_group(kwm_learner *learner, int g, int64_t batch) {
  const struct gradient_state *const state = learner->state;
  const int64_t n = gradient_length(learner->params, g);
  const float weight = (float)(2 * learner->spec.strength);
  const float *const mean = learner->params->mean[g], *const anchor = state->array[ANCHOR][g];
  const float *const importance = state->array[IMPORTANCE][g];
  float *const change = state->scratch[g];
  for (int64_t k = 0; k < n; k++)
    change[k] = gradient_at(learner, g, k, batch) - weight * importance[k] * (mean[k] - anchor[k]);
  gradient_adam(learner, g, change);
  for (int64_t k = 0; k < n; k++) state->array[PATH][g][k] += gradient_at(learner, g, k, batch) * change[k];
}

static void si_step(kwm_learner *learner, const struct kwm_lin *lin, struct kwm_step *step) {
  gradient_sum(learner, lin, step);
  if (step->verdict != KWM_STEP_DONE) return;
  for (int g = 0; g < learner->params->model->n_groups; g++) step_group(learner, g, lin->batch);
}

static void si_boundary(kwm_learner *learner) {
  const struct gradient_state *const state = learner->state;
  const float damping = (float)learner->spec.damping;
  for (int g = 0; g < learner->params->model->n_groups; g++) {
    float *const path = state->array[PATH][g];
    for (int64_t k = 0; k < gradient_length(learner->params, g); k++) {
      const float way = learner->params->mean[g][k] - state->array[ANCHOR][g][k];
      if (path[k] > 0) state->array[IMPORTANCE][g][k] += path[k] / (way * way + damping);
      path[k] = 0;
    }
  }
  gradient_anchor(learner, ANCHOR);
}

const struct kwm_learner_ops kwm_learn_si = {
    .name = "si",
    .bytes = si_bytes,
    .saved = si_saved,
    .create = si_create,
    .boundary = si_boundary,
    .step = si_step,
    .save = gradient_save,
    .load = gradient_load,
    .destroy = gradient_destroy,
};
