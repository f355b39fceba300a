/* Where a step of the language model failed, and what can be done about it. */
#include "language_state.h"

void language_locate(const kwm_language_learner *learner, bool failed, int tensor, struct kwm_language_result *result) {
  struct kwm_layout *const layout = learner->layout;
  double code = failed ? (double)(layout->size - layout->rank) * (KWM_TENSORS_MAX + 1) + 1 + tensor : 0;
  kwm_par_max_world(layout, 1, &code);
  const int64_t found = (int64_t)code;
  result->failed_tensor = (int)(found % (KWM_TENSORS_MAX + 1)) - 1;
  result->failed_rank = found == 0 ? 0 : layout->size - (int)(found / (KWM_TENSORS_MAX + 1));
}

void kwm_language_inflate(kwm_language_learner *learner, double factor) {
  if (learner->spec.adam || learner->spec.steady) return;
  for (int t = 0; t < learner->model->n_tensors; t++)
    if (learner->owns[t]) kwm_riccati_inflate(&learner->cov[t], factor, learner->host);
}
