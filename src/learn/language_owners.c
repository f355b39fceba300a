/* Owners inside a stage: who keeps which tensor's covariance, and what goes to owners and comes back from them. */
#include <string.h>

#include "language_state.h"

/* A tensor's operations and memory; for adam both are its size. */
struct burden {
  double operations, floats;
};

static struct burden burden_of(const struct kwm_transformer *model, const struct kwm_language_learn_spec *spec, int t) {
  const struct kwm_riccati_spec riccati = language_riccati_spec(model, spec, NULL, t);
  const double size = (double)language_size(model, t);
  if (spec->adam) return (struct burden){size, size};
  return (struct burden){kwm_riccati_operations(&riccati, spec->refresh), (double)kwm_riccati_floats(&riccati)};
}

/* shares (n_tensors) <- of a stage's operations plus that of its memory, 0 for tensors of other stages. */
static void burden_shares(const struct kwm_transformer *model, const struct kwm_language_place *place, int stage,
                          const struct kwm_language_learn_spec *spec, double *shares) {
  struct burden all = {0};
  for (int t = 0; t < model->n_tensors; t++) {
    if (kwm_language_holder(place, model, t) != stage) continue;
    const struct burden burden = burden_of(model, spec, t);
    all.operations += burden.operations;
    all.floats += burden.floats;
  }
  for (int t = 0; t < model->n_tensors; t++) {
    const struct burden burden = burden_of(model, spec, t);
    const bool here = kwm_language_holder(place, model, t) == stage;
    shares[t] = here ? burden.operations / all.operations + burden.floats / all.floats : 0;
  }
}

static int heaviest(int n, const double *shares) {
  int most = 0;
  for (int t = 1; t < n; t++)
    if (shares[t] > shares[most]) most = t;
  return most;
}

/* The owner with the least of loads (owners), the first of several. */
static int lightest(int owners, const double *loads) {
  int least = 0;
  for (int k = 1; k < owners; k++)
    if (loads[k] < loads[least]) least = k;
  return least;
}

void kwm_language_owners(const struct kwm_transformer *model, const struct kwm_language_place *place, int owners,
                         const struct kwm_language_learn_spec *spec, int owner[KWM_TENSORS_MAX]) {
  const int most = owners < model->n_tensors ? owners : model->n_tensors; /* the others own nothing */
  memset(owner, 0, KWM_TENSORS_MAX * sizeof *owner);
  for (int stage = 0; stage < place->ranks && most > 1; stage++) {
    double shares[KWM_TENSORS_MAX], loads[KWM_TENSORS_MAX] = {0};
    burden_shares(model, place, stage, spec, shares);
    for (int t = heaviest(model->n_tensors, shares); shares[t] > 0; t = heaviest(model->n_tensors, shares)) {
      owner[t] = lightest(most, loads);
      loads[owner[t]] += shares[t];
      shares[t] = 0;
    }
  }
}

/* What passes between owners or replicas: of the device, by way of the learner's room. */
static struct kwm_sum passing(const kwm_language_learner *learner, int64_t n, float *values) {
  return (struct kwm_sum){.n = n, .values = values, .scratch = learner->sums, .staging = learner->staging};
}

void language_sum_replicas(kwm_language_learner *learner, int64_t n, float *values) {
  const struct kwm_sum sum = passing(learner, n, values);
  if (learner->layout->replicas > 1) kwm_par_sum_replicas_device(learner->layout, learner->device, 1, &sum);
}

void language_sum_scores(kwm_language_learner *learner) {
  for (int t = 0; t < learner->model->n_tensors; t++) {
    const struct kwm_sum sum = passing(learner, language_size(learner->model, t), learner->score[t]);
    if (learner->holds[t] && learner->layout->owners > 1)
      kwm_par_sum_to_owner(learner->layout, learner->device, learner->owner[t], &sum);
    if (learner->owns[t]) language_sum_replicas(learner, sum.n, sum.values);
  }
}

void language_spread_means(kwm_language_learner *learner) {
  for (int t = 0; t < learner->model->n_tensors && learner->layout->owners > 1; t++) {
    const struct kwm_sum sum = passing(learner, language_size(learner->model, t), learner->mean[t]);
    if (learner->holds[t]) kwm_par_spread_from_owner(learner->layout, learner->device, learner->owner[t], &sum);
  }
}
