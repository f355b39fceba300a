/* Factors of the Kronecker eigenbases: observed by all ranks of a stage, kept by owners, in shares over replicas. */
#include "language_state.h"

/* One side of a tensor whose factor its owner keeps: the shares of a micro-batch are summed as soon as they are there,
   so that nobody else needs room for it. */
static void observe_side(kwm_language_learner *learner, int t, bool left, bool first, int64_t n, const float *x) {
  struct kwm_riccati *const cov = &learner->cov[t];
  const int64_t d = left ? cov->spec.rows : cov->spec.columns;
  float *const share = learner->room.square;
  kwm_riccati_share(cov, left, n, learner->spec.tokens, x, share);
  language_sum_to_owner(learner, t, d * d, share);
  if (learner->owns[t]) kwm_riccati_add_share(cov, left, first, share);
}

void language_observe(kwm_language_learner *learner, int t, int64_t n, const float *s, const float *a) {
  struct kwm_riccati *const cov = &learner->cov[t];
  const bool first = !learner->touched[t];
  if (!learner->observes) return;
  learner->touched[t] = true;
  if (learner->layout->owners == 1) {
    kwm_riccati_observe(cov, first, n, learner->spec.tokens, s, a);
    return;
  }
  cov->observed += first;
  if (cov->spec.right) observe_side(learner, t, false, first, n, a);
  if (cov->spec.left) observe_side(learner, t, true, first, n, s);
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
