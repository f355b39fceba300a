/* sensitivity: forward. */
#include "kwm/sens.h"

#include "kwm/layer.h"

void kwm_sens_facts(kwm_device *device, const struct kwm_model *model, int64_t n, const float *logits,
                    const struct kwm_sens_seen *seen) {
  if (device == NULL)
    kwm_observe(model, n, logits, seen->labels, NULL, NULL, seen->sums);
  else
    kwm_observe_on(device, model, n, logits, seen->labels, NULL, NULL, seen->facts);
}

void kwm_sens_output(kwm_device *device, const struct kwm_model *model, int64_t n, const float *W, const float *act,
                     const struct kwm_sens_seen *seen, const struct kwm_sens_output *out) {
  const int64_t classes = model->classes, d_i = model->hidden + 1;
  kwm_dense_forward(device, n, d_i, classes, W, act, out->logits, classes);
  if (device == NULL)
    kwm_observe(model, n, out->logits, seen->labels, out->e, out->J, seen->sums);
  else
    kwm_observe_on(device, model, n, out->logits, seen->labels, out->e, out->J, seen->facts);
  kwm_dense_pull_back(device, n * classes, d_i, classes, W, out->J, out->J_act);
}

void kwm_sens_hidden(kwm_device *device, const struct kwm_model *model, int64_t n, const float *W, const float *u,
                     float *J_act, float *J_state) {
  kwm_relu_pull_back(device, n, model->classes, model->hidden, u, J_act);
  kwm_dense_pull_back(device, n * model->classes, KWM_GATED_CHANNELS * model->width + 1, model->hidden, W, J_act,
                      J_state);
}

struct kwm_jac kwm_sens_jac(const struct kwm_model *model, int group, int64_t n, int64_t count, const float *J,
                            const float *inputs, const float *e) {
  struct kwm_jac jac = {.n = n, .m = model->classes, .J = J, .e = e};
  if (group == KWM_GROUP_RECURRENCE) {
    jac.shape = KWM_JAC_UNITS;
    jac.count = count;
    jac.channels = KWM_GATED_CHANNELS;
    jac.params = KWM_GATED_PARAMS;
    jac.S = inputs;
  } else {
    jac.shape = KWM_JAC_OUTER;
    jac.d_o = model->groups[group].d_o;
    jac.d_i = model->groups[group].d_i;
    jac.a = inputs;
  }
  return jac;
}
