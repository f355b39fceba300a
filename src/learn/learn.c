/* The table of learners and what they have in common. */
#include "kwm/learn.h"

#include <stdio.h>
#include <string.h>

static const struct kwm_learner_ops *const learners[] = {
    &kwm_learn_kalman, &kwm_learn_sgd, &kwm_learn_adam, &kwm_learn_kfac, &kwm_learn_ewc, &kwm_learn_si, NULL};

const struct kwm_learner_ops *kwm_learner_find(const char *name) {
  for (int i = 0; learners[i] != NULL; i++)
    if (strcmp(learners[i]->name, name) == 0) return learners[i];
  return NULL;
}

kwm_status kwm_learner_create(kwm_learner *learner, const struct kwm_learner_ops *ops, struct kwm_layout *layout,
                              struct kwm_params *params, const struct kwm_learn_spec *spec) {
  memset(learner, 0, sizeof *learner);
  learner->ops = ops;
  learner->layout = layout;
  learner->params = params;
  learner->spec = *spec;
  return ops->create(learner);
}

void kwm_learner_destroy(kwm_learner *learner) {
  if (learner->ops != NULL) learner->ops->destroy(learner);
  memset(learner, 0, sizeof *learner);
}

size_t kwm_learner_bytes(const struct kwm_learner_ops *ops, const struct kwm_learn_spec *spec,
                         const struct kwm_params *params, int64_t replicas) {
  return ops->bytes(spec, params, replicas);
}

void kwm_learner_predict(kwm_learner *learner) {
  if (learner->ops->predict != NULL) learner->ops->predict(learner);
}

void kwm_learner_inflate(kwm_learner *learner) {
  if (learner->ops == &kwm_learn_kalman) kwm_filter_inflate(kwm_learner_filter(learner));
}

void kwm_learner_boundary(kwm_learner *learner) {
  if (learner->ops->boundary != NULL) learner->ops->boundary(learner);
}

struct kwm_means kwm_learner_means(const kwm_learner *learner) {
  const bool frames = learner->ops == &kwm_learn_kalman && !learner->spec.joint;
  struct kwm_means means = {0};
  for (int g = 0; g < learner->params->model->n_groups; g++) {
    means.at[g] = learner->params->mean[g];
    if (frames) means.frame[g] = kwm_cov_frame(&kwm_learner_filter(learner)->group[g].cov);
  }
  return means;
}

void kwm_learner_step(kwm_learner *learner, const struct kwm_lin *lin, struct kwm_step *step) {
  memset(step, 0, sizeof *step);
  step->search = 1;
  learner->ops->step(learner, lin, step);
  learner->steps++;
}

void kwm_learner_search(kwm_learner *learner, const struct kwm_lin *lin, kwm_pipe *pipe, const struct kwm_batch *batch,
                        struct kwm_step *step) {
  if (learner->ops->search == NULL || !learner->spec.filter.line_search) {
    kwm_learner_step(learner, lin, step);
    return;
  }
  memset(step, 0, sizeof *step);
  learner->ops->search(learner, lin, pipe, batch, step);
  learner->steps++;
}

void kwm_learner_health(const kwm_learner *learner, struct kwm_health health[KWM_GROUPS_MAX]) {
  memset(health, 0, KWM_GROUPS_MAX * sizeof *health);
  if (learner->ops->health != NULL) learner->ops->health(learner, health);
}

kwm_status kwm_learner_save(const kwm_learner *learner, kwm_ckpt *ckpt) {
  const struct kwm_params *const params = learner->params;
  const bool writes = learner->layout->replica == 0;
  for (int g = 0; g < params->model->n_groups; g++) {
    const float *const mean = learner->ops->plain != NULL ? learner->ops->plain(learner, g) : params->mean[g];
    KWM_TRY(kwm_group_save(params->model, g, params->share[g], "/params", mean, ckpt, writes));
  }
  KWM_TRY(kwm_ckpt_put_i64(ckpt, "/learner", "steps", learner->steps));
  KWM_TRY(kwm_ckpt_put_text(ckpt, "/learner", "name", learner->ops->name));
  return learner->ops->save(learner, ckpt, writes);
}

kwm_status kwm_learner_load(kwm_learner *learner, kwm_ckpt *ckpt) {
  struct kwm_params *const params = learner->params;
  for (int g = 0; g < learner->params->model->n_groups; g++)
    KWM_TRY(kwm_group_load(params->model, g, params->share[g], "/params", params->mean[g], ckpt));
  KWM_TRY(kwm_ckpt_get_i64(ckpt, "/learner", "steps", &learner->steps));
  return learner->ops->load(learner, ckpt);
}
