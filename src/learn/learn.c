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

static size_t mean_bytes(const struct kwm_params *params, int g) {
  return (size_t)(params->share[g].count * params->model->groups[g].params) * sizeof(float);
}

/* Floats of U and V on the device, for a learner on the host. */
static int64_t frame_floats(const struct kwm_params *params) {
  const struct kwm_group *const first = &params->model->groups[0];
  if (params->model->kind != KWM_MODEL_DENSE || params->share[0].count == 0) return 0;
  return first->d_i * first->d_i + first->d_o * first->d_o;
}

/* With a device: the learner moves there, or stays on the host and keeps room for its means there. */
static kwm_status take_place(kwm_learner *learner) {
  const struct kwm_learn_spec *const spec = &learner->spec;
  const struct kwm_params *const params = learner->params;
  if (learner->ops->on_device != NULL && learner->ops->on_device(spec, params->model)) {
    learner->device = spec->device;
    return kwm_params_move(learner->params, spec->device);
  }
  for (int g = 0; g < params->model->n_groups; g++)
    KWM_TRY(kwm_device_alloc(spec->device, (void **)&learner->sent[g], mean_bytes(params, g), "means"));
  const int64_t frame = frame_floats(params);
  if (frame == 0) return KWM_OK;
  return kwm_device_alloc(spec->device, (void **)&learner->sent_frame, (size_t)frame * sizeof(float), "frame");
}

kwm_status kwm_learner_create(kwm_learner *learner, const struct kwm_learner_ops *ops, struct kwm_layout *layout,
                              struct kwm_params *params, const struct kwm_learn_spec *spec) {
  memset(learner, 0, sizeof *learner);
  learner->ops = ops;
  learner->layout = layout;
  learner->params = params;
  learner->spec = *spec;
  if (spec->device != NULL) KWM_TRY(kwm_agree(layout->world, take_place(learner)));
  return ops->create(learner);
}

void kwm_learner_destroy(kwm_learner *learner) {
  if (learner->ops != NULL) learner->ops->destroy(learner);
  for (int g = 0; g < KWM_GROUPS_MAX; g++) kwm_device_free(learner->spec.device, learner->sent[g]);
  kwm_device_free(learner->spec.device, learner->sent_frame);
  kwm_lin_mirror_fini(&learner->mirror);
  memset(learner, 0, sizeof *learner);
}

size_t kwm_learner_bytes(const struct kwm_learner_ops *ops, const struct kwm_learn_spec *spec,
                         const struct kwm_params *params, int64_t replicas) {
  return ops->bytes(spec, params, replicas);
}

size_t kwm_learner_device_bytes(const struct kwm_learner_ops *ops, const struct kwm_learn_spec *spec,
                                const struct kwm_params *params, int64_t replicas) {
  const struct kwm_model *const model = params->model;
  size_t bytes = 0;
  for (int g = 0; g < model->n_groups; g++) bytes += mean_bytes(params, g);
  if (ops->on_device != NULL && ops->on_device(spec, model)) return bytes + ops->device_bytes(spec, params, replicas);
  return bytes + (size_t)frame_floats(params) * sizeof(float);
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

/* A learner on the host: what the pipe on the device needs of group 0's frame. */
static struct kwm_frame send_frame(const kwm_learner *learner, struct kwm_frame frame) {
  const struct kwm_group *const group = &learner->params->model->groups[0];
  const int64_t U = group->d_i * group->d_i, V = group->d_o * group->d_o;
  kwm_device_put(learner->spec.device, learner->sent_frame, frame.U, (size_t)U * sizeof(float));
  kwm_device_put(learner->spec.device, learner->sent_frame + U, frame.V, (size_t)V * sizeof(float));
  return (struct kwm_frame){learner->sent_frame, learner->sent_frame + U};
}

struct kwm_means kwm_learner_means(const kwm_learner *learner) {
  const bool frames = learner->ops == &kwm_learn_kalman && !learner->spec.joint;
  struct kwm_means means = {0};
  for (int g = 0; g < learner->params->model->n_groups; g++) {
    means.at[g] = learner->params->mean[g];
    if (frames) means.frame[g] = kwm_cov_frame(&kwm_learner_filter(learner)->group[g].cov);
    if (learner->sent[g] == NULL) continue;
    kwm_device_put(learner->spec.device, learner->sent[g], means.at[g], mean_bytes(learner->params, g));
    means.at[g] = learner->sent[g];
    if (means.frame[g].U != NULL) means.frame[g] = send_frame(learner, means.frame[g]);
  }
  return means;
}

/* The step's rows where the learner is. */
static const struct kwm_lin *rows_here(kwm_learner *learner, const struct kwm_lin *lin, struct kwm_lin *on_host) {
  if (lin->device == learner->device) return lin;
  KWM_ASSERT(learner->device == NULL);
  const kwm_status status = kwm_lin_fetch(&learner->mirror, lin, on_host);
  KWM_ASSERT(status == KWM_OK); /* the same few arrays at every step: it can only fail at the first */
  return on_host;
}

void kwm_learner_step(kwm_learner *learner, const struct kwm_lin *lin, struct kwm_step *step) {
  struct kwm_lin on_host;
  memset(step, 0, sizeof *step);
  step->search = 1;
  learner->ops->step(learner, rows_here(learner, lin, &on_host), step);
  learner->steps++;
}

void kwm_learner_search(kwm_learner *learner, const struct kwm_lin *lin, kwm_pipe *pipe, const struct kwm_batch *batch,
                        struct kwm_step *step) {
  if (learner->ops->search == NULL || !learner->spec.filter.line_search) {
    kwm_learner_step(learner, lin, step);
    return;
  }
  struct kwm_lin on_host;
  memset(step, 0, sizeof *step);
  learner->ops->search(learner, rows_here(learner, lin, &on_host), pipe, batch, step);
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
    const float *const mean =
        learner->ops->plain != NULL ? learner->ops->plain(learner, g) : kwm_params_home(params, g);
    KWM_TRY(kwm_group_save(params->model, g, params->share[g], "/params", mean, ckpt, writes));
  }
  KWM_TRY(kwm_ckpt_put_i64(ckpt, "/learner", "steps", learner->steps));
  KWM_TRY(kwm_ckpt_put_text(ckpt, "/learner", "name", learner->ops->name));
  return learner->ops->save(learner, ckpt, writes);
}

kwm_status kwm_learner_load(kwm_learner *learner, kwm_ckpt *ckpt) {
  struct kwm_params *const params = learner->params;
  for (int g = 0; g < learner->params->model->n_groups; g++) {
    KWM_TRY(kwm_group_load(params->model, g, params->share[g], "/params", kwm_params_home(params, g), ckpt));
    kwm_params_send(params, g);
  }
  KWM_TRY(kwm_ckpt_get_i64(ckpt, "/learner", "steps", &learner->steps));
  return learner->ops->load(learner, ckpt);
}
