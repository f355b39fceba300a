/* sensitivity: forward. */
#include "kwm/sens.h"

#include "kwm/layer.h"

void kwm_sens_output(const struct kwm_model *model, int64_t n, const float *W, const float *act, const uint8_t *labels,
                     const struct kwm_sens_output *out, struct kwm_innovation *sums) {
  const int64_t classes = model->classes, d_i = model->hidden + 1;
  kwm_dense_forward(n, d_i, classes, W, act, out->logits, classes);
  kwm_observe(model, n, out->logits, labels, out->e, out->J, sums);
  kwm_dense_pull_back(n * classes, d_i, classes, W, out->J, out->J_act);
}

void kwm_sens_hidden(const struct kwm_model *model, int64_t n, const float *W, const float *u, float *J_act,
                     float *J_state) {
  kwm_relu_pull_back(n, model->classes, model->hidden, u, J_act);
  kwm_dense_pull_back(n * model->classes, KWM_GATED_CHANNELS * model->width + 1, model->hidden, W, J_act, J_state);
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
