/* Groups, initial means and priors of the two classifiers. */
#include "kwm/model.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "kwm/layer.h"
#include "kwm/rng.h"

static void add_matrix(struct kwm_model *model, const char *name, enum kwm_role role, int64_t d_o, int64_t d_i) {
  KWM_ASSERT(model->n_groups < KWM_GROUPS_MAX);
  struct kwm_group *const group = &model->groups[model->n_groups++];
  *group = (struct kwm_group){.role = role, .total = 1, .params = d_o * d_i, .d_o = d_o, .d_i = d_i};
  snprintf(group->name, sizeof group->name, "%s", name);
}

static void lay_out_gated(struct kwm_model *model) {
  model->groups[model->n_groups++] = (struct kwm_group){
      .name = "recurrence", .role = KWM_ROLE_RECURRENCE, .total = model->width, .params = KWM_GATED_PARAMS};
  add_matrix(model, "hidden", KWM_ROLE_HIDDEN, model->hidden, KWM_GATED_CHANNELS * model->width + 1);
  add_matrix(model, "output", KWM_ROLE_OUTPUT, model->classes, model->hidden + 1);
}

static void lay_out_dense(struct kwm_model *model) {
  int64_t d_i = model->length + 1;
  char name[32];
  KWM_ASSERT(model->n_layers >= 1 && model->n_layers <= KWM_LAYERS_MAX);
  for (int l = 0; l < model->n_layers; l++) {
    snprintf(name, sizeof name, "layer%d", l + 1);
    add_matrix(model, name, KWM_ROLE_HIDDEN, model->widths[l], d_i);
    d_i = model->widths[l] + 1;
    snprintf(name, sizeof name, "readout%d", l + 1);
    if (model->readouts && l + 1 < model->n_layers) add_matrix(model, name, KWM_ROLE_OUTPUT, model->classes, d_i);
  }
  add_matrix(model, "output", KWM_ROLE_OUTPUT, model->classes, d_i);
}

void kwm_model_lay_out(struct kwm_model *model) {
  model->n_groups = 0;
  memset(model->groups, 0, sizeof model->groups);
  if (model->kind == KWM_MODEL_DENSE)
    lay_out_dense(model);
  else
    lay_out_gated(model);
}

int kwm_model_layer(const struct kwm_model *model, int l) {
  return model->readouts && l < model->n_layers ? 2 * l : model->readouts ? 2 * l - 1 : l;
}

int kwm_model_readout(const struct kwm_model *model, int l) {
  return l + 1 == model->n_layers ? model->n_groups - 1 : kwm_model_layer(model, l) + 1;
}

int64_t kwm_model_parameters(const struct kwm_model *model) {
  int64_t n = 0;
  for (int g = 0; g < model->n_groups; g++) n += model->groups[g].total * model->groups[g].params;
  return n;
}

/* |a| at gate 1/2 uniform in its square over [min², max²] (long memories are common), phases uniform, input weights
   scaled so that every unit's state has about the same power, gates nearly open to begin with. */
static void initial_unit(const struct kwm_model *model, uint64_t seed, int64_t unit, float *theta) {
  const uint64_t at = (uint64_t)unit * 16;
  const double low = model->decay_min * model->decay_min, high = model->decay_max * model->decay_max;
  const double decay = sqrt(low + (high - low) * kwm_rng_uniform(seed, KWM_RNG_INIT, KWM_GROUP_RECURRENCE, at));
  const double phase = model->phase_max * kwm_rng_uniform(seed, KWM_RNG_INIT, KWM_GROUP_RECURRENCE, at + 1) + 1e-3;
  const double power = 2 * sqrt(1 - decay * decay);
  double normal[4];
  for (uint64_t k = 0; k < 4; k++) normal[k] = kwm_rng_normal(seed, KWM_RNG_INIT, KWM_GROUP_RECURRENCE, at + 2 + k);
  const double values[KWM_GATED_PARAMS] = {log(-2 * log(decay)),
                                           log(phase),
                                           0.1 * normal[0],
                                           0,
                                           0.1 * normal[1],
                                           0,
                                           power * normal[2],
                                           power * normal[3],
                                           0,
                                           0};
  for (int k = 0; k < KWM_GATED_PARAMS; k++) theta[k] = (float)values[k];
}

/* ReLU layers keep the activations' power (He et al. 2015), biases start at zero. A layer's draws are the same with and
   without read-outs. */
static void initial_layer(const struct kwm_model *model, int group, uint64_t seed, float *mean) {
  enum { READOUTS = 1000 };
  const struct kwm_group *const g = &model->groups[group];
  const bool output = group == model->n_groups - 1, readout = g->role == KWM_ROLE_OUTPUT && !output;
  const int layer = output ? model->n_layers : model->readouts ? group / 2 : group;
  const uint64_t key = (uint64_t)(readout ? READOUTS + layer : layer);
  const double scale = sqrt(2 / (double)(g->d_i - 1));
  for (int64_t k = 0; k < g->params; k++) {
    const bool bias = k % g->d_i == g->d_i - 1;
    mean[k] = bias ? 0 : (float)(scale * kwm_rng_normal(seed, KWM_RNG_INIT, key, (uint64_t)k));
  }
}

void kwm_model_initial_mean(const struct kwm_model *model, int group, uint64_t seed, int64_t first, int64_t count,
                            float *mean) {
  const struct kwm_group *const g = &model->groups[group];
  if (g->role == KWM_ROLE_RECURRENCE) {
    for (int64_t u = 0; u < count; u++) initial_unit(model, seed, first + u, mean + u * KWM_GATED_PARAMS);
    return;
  }
  if (model->kind == KWM_MODEL_DENSE) {
    if (count > 0) initial_layer(model, group, seed, mean);
    return;
  }
  const double scale = 1 / sqrt((double)(g->d_i - 1));
  for (int64_t k = 0; k < count * g->params; k++)
    mean[k] = (float)(scale * kwm_rng_normal(seed, KWM_RNG_INIT, (uint64_t)group, (uint64_t)k));
}

void kwm_model_prior_variance(double factor, double *variance) {
  static const double deviation[KWM_GATED_PARAMS] = {0.05, 0.01, 0.3, 0.3, 0.3, 0.3, 0.05, 0.05, 0.05, 0.05};
  for (int k = 0; k < KWM_GATED_PARAMS; k++) variance[k] = factor * deviation[k] * deviation[k];
}
