/* Groups, initial means and priors of the gated-recurrence classifier. */
#include "kwm/model.h"

#include <math.h>

#include "kwm/layer.h"
#include "kwm/rng.h"

void kwm_model_lay_out(struct kwm_model *model) {
  const int64_t state = KWM_GATED_CHANNELS * model->width + 1, hidden = model->hidden, classes = model->classes;
  model->groups[KWM_GROUP_RECURRENCE] =
      (struct kwm_group){.name = "recurrence", .total = model->width, .params = KWM_GATED_PARAMS};
  model->groups[KWM_GROUP_HIDDEN] =
      (struct kwm_group){.name = "hidden", .total = 1, .params = hidden * state, .d_o = hidden, .d_i = state};
  model->groups[KWM_GROUP_OUTPUT] = (struct kwm_group){
      .name = "output", .total = 1, .params = classes * (hidden + 1), .d_o = classes, .d_i = hidden + 1};
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

void kwm_model_initial_mean(const struct kwm_model *model, enum kwm_group_id group, uint64_t seed, int64_t first,
                            int64_t count, float *mean) {
  if (group == KWM_GROUP_RECURRENCE) {
    for (int64_t u = 0; u < count; u++) initial_unit(model, seed, first + u, mean + u * KWM_GATED_PARAMS);
    return;
  }
  const struct kwm_group *const g = &model->groups[group];
  const double scale = 1 / sqrt((double)(g->d_i - 1));
  for (int64_t k = 0; k < count * g->params; k++)
    mean[k] = (float)(scale * kwm_rng_normal(seed, KWM_RNG_INIT, (uint64_t)group, (uint64_t)k));
}

void kwm_model_prior_variance(double factor, double *variance) {
  static const double deviation[KWM_GATED_PARAMS] = {0.05, 0.01, 0.3, 0.3, 0.3, 0.3, 0.05, 0.05, 0.05, 0.05};
  for (int k = 0; k < KWM_GATED_PARAMS; k++) variance[k] = factor * deviation[k] * deviation[k];
}
