/* learner: ewc. Online elastic weight consolidation (Schwarz et al. 2018): Adam on the gradient less a penalty for
   leaving the last task's parameters, weighed by the Fisher information of the tasks so far,

     score/N - strength F (θ - anchor),    of this task:  Ft <- .99 Ft + .01 diag(HᵀH)/N;

   at a boundary F <- decay F + Ft, Ft <- 0, anchor <- θ, and Adam's first moment, which points where the old task
   wanted to go, <- 0. */
#include "gradient.h"

static const double KEPT = 0.99; /* of the running Fisher information of a task, a step */

enum { MOMENT1, MOMENT2, FISHER, TASK_FISHER, ANCHOR };

static const struct gradient_kind ewc = {
    .state_bytes = sizeof(struct gradient_state),
    .evidence = GRADIENT_DIAGONAL,
    .n_arrays = 5,
    .array = {[MOMENT1] = {"moment1", GRADIENT_PARAMS},
              [MOMENT2] = {"moment2", GRADIENT_PARAMS},
              [FISHER] = {"fisher", GRADIENT_PARAMS},
              [TASK_FISHER] = {"task_fisher", GRADIENT_PARAMS},
              [ANCHOR] = {"anchor", GRADIENT_PARAMS}},
};

static size_t ewc_saved(const struct kwm_params *params) {
  return gradient_kind_saved(&ewc, params);
}

static size_t ewc_bytes(const struct kwm_learn_spec *spec, const struct kwm_params *params, int64_t replicas) {
  return gradient_kind_bytes(&ewc, spec, params, replicas);
}

static kwm_status ewc_create(kwm_learner *learner) {
  KWM_TRY(gradient_kind_create(&ewc, learner));
  gradient_anchor(learner, ANCHOR);
  return KWM_OK;
}

static void step_group(kwm_learner *learner, int g, int64_t batch) {
  const struct gradient_state *const state = learner->state;
  const float strength = (float)learner->spec.strength, kept = (float)KEPT, taken = (float)((1 - KEPT) / (double)batch);
  const float *const mean = learner->params->mean[g], *const F = state->array[FISHER][g];
  const float *const anchor = state->array[ANCHOR][g], *const diagonal = state->more[g];
  float *const Ft = state->array[TASK_FISHER][g], *const gradient = state->scratch[g];
  for (int64_t k = 0; k < gradient_length(learner->params, g); k++) {
    gradient[k] = gradient_at(learner, g, k, batch) - strength * F[k] * (mean[k] - anchor[k]);
    Ft[k] = kept * Ft[k] + taken * diagonal[gradient_place(learner, g, k)];
  }
  gradient_adam(learner, g, gradient);
}

static void ewc_step(kwm_learner *learner, const struct kwm_lin *lin, struct kwm_step *step) {
  gradient_sum(learner, lin, step);
  if (step->verdict != KWM_STEP_DONE) return;
  for (int g = 0; g < learner->params->model->n_groups; g++) step_group(learner, g, lin->batch);
}

static void ewc_boundary(kwm_learner *learner) {
  const struct gradient_state *const state = learner->state;
  const float decay = (float)learner->spec.decay;
  for (int g = 0; g < learner->params->model->n_groups; g++) {
    float *const F = state->array[FISHER][g], *const Ft = state->array[TASK_FISHER][g];
    for (int64_t k = 0; k < gradient_length(learner->params, g); k++) {
      F[k] = decay * F[k] + Ft[k];
      Ft[k] = 0;
    }
  }
  gradient_anchor(learner, ANCHOR);
}

const struct kwm_learner_ops kwm_learn_ewc = {
    .name = "ewc",
    .bytes = ewc_bytes,
    .saved = ewc_saved,
    .create = ewc_create,
    .boundary = ewc_boundary,
    .step = ewc_step,
    .save = gradient_save,
    .load = gradient_load,
    .destroy = gradient_destroy,
};
