/* The means: made from keyed draws, saved and loaded by group, whoever owns which block. */
#include <stdio.h>
#include <string.h>

#include "kwm/learn.h"

static size_t mean_bytes(const struct kwm_model *model, int g, struct kwm_share share) {
  return (size_t)(share.count * model->groups[g].params) * sizeof(float);
}

size_t kwm_params_bytes(const struct kwm_model *model, const struct kwm_stages *stages, int group_rank) {
  size_t bytes = 0;
  for (int g = 0; g < model->n_groups; g++)
    bytes += kwm_mem_rounded(mean_bytes(model, g, stages->share[g][group_rank]));
  return bytes;
}

kwm_status kwm_params_create(struct kwm_params *params, const struct kwm_model *model, const struct kwm_stages *stages,
                             int group_rank, uint64_t seed) {
  memset(params, 0, sizeof *params);
  params->model = model;
  for (int g = 0; g < model->n_groups; g++) {
    params->share[g] = stages->share[g][group_rank];
    KWM_TRY(kwm_alloc((void **)&params->mean[g], mean_bytes(model, g, params->share[g]), "means"));
    kwm_model_initial_mean(model, g, seed, params->share[g].first, params->share[g].count, params->mean[g]);
  }
  return KWM_OK;
}

kwm_status kwm_params_move(struct kwm_params *params, kwm_device *device) {
  KWM_ASSERT(params->device == NULL);
  params->device = device;
  for (int g = 0; g < params->model->n_groups; g++) {
    params->home[g] = params->mean[g];
    params->mean[g] = NULL;
  }
  for (int g = 0; g < params->model->n_groups; g++) {
    KWM_TRY(
        kwm_device_alloc(device, (void **)&params->mean[g], mean_bytes(params->model, g, params->share[g]), "means"));
    kwm_params_send(params, g);
  }
  return KWM_OK;
}

float *kwm_params_home(const struct kwm_params *params, int g) {
  if (params->device == NULL) return params->mean[g];
  kwm_device_get(params->device, params->home[g], params->mean[g], mean_bytes(params->model, g, params->share[g]));
  return params->home[g];
}

void kwm_params_send(struct kwm_params *params, int g) {
  if (params->device == NULL) return;
  kwm_device_put(params->device, params->mean[g], params->home[g], mean_bytes(params->model, g, params->share[g]));
}

void kwm_params_destroy(struct kwm_params *params) {
  for (int g = 0; g < KWM_GROUPS_MAX; g++) {
    kwm_device_free(params->device, params->mean[g]);
    kwm_free(params->home[g]);
  }
  memset(params, 0, sizeof *params);
}

/* Where a group lies in the file: blocks are rows, a matrix block is a matrix. */
struct place {
  char name[128];
  int64_t dims[2], first, count;
};

static struct place place_of(const struct kwm_model *model, int g, struct kwm_share share, const char *prefix) {
  const struct kwm_group *const group = &model->groups[g];
  const bool matrix = group->d_o > 0;
  struct place place = {.dims = {matrix ? group->d_o : group->total, matrix ? group->d_i : group->params},
                        .first = matrix ? 0 : share.first,
                        .count = matrix ? share.count * group->d_o : share.count};
  snprintf(place.name, sizeof place.name, "%s/%s", prefix, group->name);
  return place;
}

kwm_status kwm_group_save(const struct kwm_model *model, int group, struct kwm_share share, const char *prefix,
                          const float *data, kwm_ckpt *ckpt, bool writes) {
  const struct place place = place_of(model, group, share, prefix);
  return kwm_ckpt_put(ckpt, place.name, KWM_F32, 2, place.dims, writes ? place.first : 0, writes ? place.count : 0,
                      data);
}

kwm_status kwm_group_load(const struct kwm_model *model, int group, struct kwm_share share, const char *prefix,
                          float *data, kwm_ckpt *ckpt) {
  const struct place place = place_of(model, group, share, prefix);
  return kwm_ckpt_get(ckpt, place.name, KWM_F32, 2, place.dims, place.first, place.count, data);
}
