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

/* Values pass between ranks piece by piece, so that the room for it is small. */
enum pass { TO_OWNER, FROM_OWNER, OVER_REPLICAS };

static void pass(kwm_language_learner *learner, enum pass what, int owner, int64_t n, float *values) {
  struct kwm_layout *const layout = learner->layout;
  for (int64_t from = 0; from < n; from += LANGUAGE_PIECE) {
    const struct kwm_sum piece = {.n = n - from < LANGUAGE_PIECE ? n - from : LANGUAGE_PIECE,
                                  .values = values + from,
                                  .scratch = learner->sums,
                                  .staging = learner->staging};
    if (what == TO_OWNER) kwm_par_sum_to_owner(layout, learner->device, owner, &piece);
    if (what == FROM_OWNER) kwm_par_spread_from_owner(layout, learner->device, owner, &piece);
    if (what == OVER_REPLICAS) kwm_par_sum_replicas_device(layout, learner->device, &piece);
  }
}

void language_sum_replicas(kwm_language_learner *learner, int64_t n, float *values) {
  if (learner->layout->replicas > 1) pass(learner, OVER_REPLICAS, 0, n, values);
}

void language_sum_to_owner(kwm_language_learner *learner, int t, int64_t n, float *values) {
  if (learner->layout->owners > 1) pass(learner, TO_OWNER, learner->owner[t], n, values);
}

void language_sum_scores(kwm_language_learner *learner) {
  for (int t = 0; t < learner->model->n_tensors; t++) {
    const int64_t n = language_size(learner->model, t);
    if (learner->holds[t]) language_sum_to_owner(learner, t, n, learner->score[t]);
    if (learner->owns[t]) language_sum_replicas(learner, n, learner->score[t]);
  }
}

void language_spread_means(kwm_language_learner *learner, float *const *means) {
  for (int t = 0; t < learner->model->n_tensors && learner->layout->owners > 1; t++)
    if (learner->holds[t]) pass(learner, FROM_OWNER, learner->owner[t], language_size(learner->model, t), means[t]);
}
