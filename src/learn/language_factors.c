/* Factors of the Kronecker eigenbases over replicas. */
#include "language_state.h"

void language_sum_replicas(kwm_language_learner *learner, int64_t n, float *values) {
  const struct kwm_sum sum = {.n = n, .values = values, .scratch = learner->sums, .staging = learner->staging};
  if (learner->layout->replicas > 1) kwm_par_sum_replicas_device(learner->layout, learner->device, 1, &sum);
}

void language_sum_factors(kwm_language_learner *learner, int t) {
  const struct kwm_riccati *const cov = &learner->cov[t];
  const int64_t i = cov->spec.columns, o = cov->spec.rows;
  if (cov->A != NULL) language_sum_replicas(learner, i * i, cov->A);
  if (cov->G != NULL) language_sum_replicas(learner, o * o, cov->G);
}

void language_drop_shares(kwm_language_learner *learner, int t) {
  const struct kwm_riccati *const cov = &learner->cov[t];
  const int64_t i = cov->spec.columns, o = cov->spec.rows;
  if (learner->layout->replica == 0) return;
  if (cov->A != NULL) kwm_device_zero(learner->device, cov->A, (size_t)(i * i) * sizeof(float));
  if (cov->G != NULL) kwm_device_zero(learner->device, cov->G, (size_t)(o * o) * sizeof(float));
}

void language_gather_factors(kwm_language_learner *learner) {
  for (int t = 0; t < learner->model->n_tensors; t++) {
    language_sum_factors(learner, t);
    language_drop_shares(learner, t);
  }
}
