/* The trust region of the language model's filter. Every tensor's step is the best for itself, but they move what is
   predicted together, and may go too far where each would not. To second order a step δ moves a token's predictive
   distribution by a KL of δᵀFδ/2, F the Fisher information of a token; the filter's own is f/tokens, diagonal in every
   tensor's eigenbasis and without what couples tensors. The sum over the tensors of what learns together, all, or with
   sensitivity stage those of a stage, is kept below the bound: the whole step is shortened, the covariance is not. */
#include <math.h>
#include <string.h>

#include "language_state.h"

/* kl (stages) <- of the tensors that this rank owns, then of all. Stages wait for nobody: a stage of the model with a
   reading of its own is on one stage of the layout. */
static void predicted_change(kwm_language_learner *learner, double *kl) {
  const int stages = learner->model->stages;
  memset(kl, 0, (size_t)stages * sizeof *kl);
  kwm_device_wait(learner->device);
  for (int t = 0; t < learner->model->n_tensors; t++)
    if (learner->owns[t])
      kl[learner->model->tensors[t].stage] += learner->norms[t] / (2 * (double)learner->spec.tokens);
  if (stages == 1)
    kwm_par_sum_group(learner->layout, 1, kl);
  else if (learner->layout->owners > 1)
    kwm_par_sum_mates_f64(learner->layout, stages, kl);
}

void language_trust(kwm_language_learner *learner, struct kwm_language_result *result,
                    double scale[KWM_TRANSFORMER_STAGES_MAX]) {
  const struct kwm_layout *const layout = learner->layout;
  const struct kwm_language_place *const place = kwm_language_places(learner->language);
  const int first = place->first_stage[layout->stage], end = place->first_stage[layout->stage + 1];
  const bool tells = layout->replica == 0 && layout->owner == 0;
  const double bound = learner->spec.trust;
  double kl[KWM_TRANSFORMER_STAGES_MAX];
  predicted_change(learner, kl);
  for (int s = 0; s < learner->model->stages; s++) {
    scale[s] = kl[s] > bound ? sqrt(bound / kl[s]) : 1;
    if (!tells || s < first || s >= end) continue;
    result->kl[s] = kl[s];
    result->scale[s] = scale[s];
  }
}
