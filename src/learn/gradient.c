/* Scores summed in the same fixed tree as the filter's evidence. */
#include "gradient.h"

#include <math.h>
#include <stdio.h>

int64_t gradient_length(const struct kwm_params *params, int g) {
  return params->share[g].count * params->model->groups[g].params;
}

static int64_t scratch_length(const struct kwm_learn_spec *spec, const struct kwm_params *params, int g,
                              int64_t replicas) {
  const int64_t length = gradient_length(params, g);
  const int64_t scores = kwm_pipe_samples_max(spec->filter.batch, replicas) * params->model->groups[g].d_o;
  return length > scores ? length : scores;
}

size_t gradient_bytes(const struct kwm_learn_spec *spec, const struct kwm_params *params, int64_t replicas) {
  size_t bytes = kwm_mem_rounded(sizeof(struct gradient_state));
  for (int g = 0; g < KWM_GROUPS; g++) {
    const int64_t length = gradient_length(params, g);
    bytes += kwm_treesum_bytes(length, spec->filter.chunks / replicas) +
             kwm_mem_rounded((size_t)scratch_length(spec, params, g, replicas) * sizeof(float)) +
             GRADIENT_MOMENTS * kwm_mem_rounded((size_t)length * sizeof(float));
  }
  return bytes;
}

kwm_status gradient_create(kwm_learner *learner) {
  const int64_t replicas = learner->layout->replicas;
  KWM_TRY(kwm_alloc(&learner->state, sizeof(struct gradient_state), "gradient learner"));
  struct gradient_state *state = learner->state;
  for (int g = 0; g < KWM_GROUPS; g++) {
    const size_t bytes = (size_t)gradient_length(learner->params, g) * sizeof(float);
    const int64_t scratch = scratch_length(&learner->spec, learner->params, g, replicas);
    KWM_TRY(
        kwm_treesum_init(&state->sum[g], gradient_length(learner->params, g), learner->spec.filter.chunks / replicas));
    KWM_TRY(kwm_alloc((void **)&state->scratch[g], (size_t)scratch * sizeof(float), "scores"));
    for (int k = 0; k < GRADIENT_MOMENTS; k++) KWM_TRY(kwm_alloc((void **)&state->moment[k][g], bytes, "moments"));
  }
  return KWM_OK;
}

void gradient_destroy(kwm_learner *learner) {
  struct gradient_state *state = learner->state;
  for (int g = 0; g < KWM_GROUPS && state != NULL; g++) {
    kwm_treesum_fini(&state->sum[g]);
    kwm_free(state->scratch[g]);
    for (int k = 0; k < GRADIENT_MOMENTS; k++) kwm_free(state->moment[k][g]);
  }
  kwm_free(state);
}

void gradient_sum(kwm_learner *learner, const struct kwm_lin *lin, struct kwm_step *step) {
  struct gradient_state *state = learner->state;
  for (int g = 0; g < KWM_GROUPS; g++) {
    for (int64_t c = 0; c < lin->chunks; c++) {
      const struct kwm_jac chunk = kwm_jac_part(&lin->jac[g], lin->bounds[c], lin->bounds[c + 1] - lin->bounds[c]);
      float *const leaf = kwm_treesum_leaf(&state->sum[g]);
      if (learner->params->share[g].count > 0) kwm_jac_score(&chunk, leaf, state->scratch[g]);
      kwm_treesum_push(&state->sum[g]);
    }
    state->score[g] = kwm_treesum_finish(&state->sum[g]);
    kwm_par_sum_replicas(learner->layout, state->sum[g].n, state->score[g], state->scratch[g]);
  }
  kwm_filter_judge(learner->layout, lin, learner->spec.filter.gate, false, step);
}

float gradient_at(const kwm_learner *learner, int g, int64_t k, int64_t batch) {
  const struct gradient_state *state = learner->state;
  const struct kwm_group *const group = &learner->params->model->groups[g];
  /* Units' scores come with the unit as the fast index, means with the parameter. */
  const int64_t at = group->d_o > 0 ? k : k % group->params * learner->params->share[g].count + k / group->params;
  return state->score[g][at] / (float)batch;
}

double gradient_schedule(const kwm_learner *learner) {
  const double done = (double)learner->steps / (double)(learner->spec.total_steps > 0 ? learner->spec.total_steps : 1);
  return 0.5 * (1 + cos(M_PI * fmin(done, 1)));
}

static void moment_prefix(const kwm_learner *learner, int k, char *prefix, size_t size) {
  snprintf(prefix, size, "/learner/%s/moment%d", learner->ops->name, k + 1);
}

kwm_status gradient_save(const kwm_learner *learner, kwm_ckpt *ckpt, bool writes) {
  const struct gradient_state *state = learner->state;
  const struct kwm_params *const params = learner->params;
  for (int k = 0; k < GRADIENT_MOMENTS; k++)
    for (int g = 0; g < KWM_GROUPS; g++) {
      char prefix[64];
      moment_prefix(learner, k, prefix, sizeof prefix);
      KWM_TRY(kwm_group_save(params->model, g, params->share[g], prefix, state->moment[k][g], ckpt, writes));
    }
  return KWM_OK;
}

kwm_status gradient_load(kwm_learner *learner, kwm_ckpt *ckpt) {
  const struct gradient_state *state = learner->state;
  const struct kwm_params *const params = learner->params;
  for (int k = 0; k < GRADIENT_MOMENTS; k++)
    for (int g = 0; g < KWM_GROUPS; g++) {
      char prefix[64];
      moment_prefix(learner, k, prefix, sizeof prefix);
      KWM_TRY(kwm_group_load(params->model, g, params->share[g], prefix, state->moment[k][g], ckpt));
    }
  return KWM_OK;
}
