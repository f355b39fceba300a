/* learner: kalman. The filter is the optimiser: predict, innovate, gain, update. */
#include <math.h>
#include <string.h>

#include "kwm/layer.h"
#include "kwm/learn.h"

struct kalman_state {
  struct kwm_filter filter;
  double variance[KWM_GATED_PARAMS]; /* prior of the recurrent units, borrowed by the filter */
  float *plain;                      /* (count, params) room for the mean of the framed group, as a matrix */
};

/* Nothing is pulled back through the first layer of a dense model, the largest: kept in the covariance's frame it is
   spared the rotation of every step. */
static bool framed(const struct kwm_learn_spec *spec, const struct kwm_model *model, int g) {
  const struct kwm_cov_choice *const choice = &spec->cov[model->groups[g].role];
  return model->kind == KWM_MODEL_DENSE && g == 0 && !spec->joint && strcmp(choice->structure, "kron") == 0 &&
         choice->form == KWM_FORM_INFORMATION && choice->real == KWM_REAL_FLOAT;
}

static struct kwm_cov_spec cov_spec(const struct kwm_learn_spec *spec, const struct kwm_params *params, int g,
                                    int64_t replicas, const double *prior_variance) {
  const struct kwm_group *const group = &params->model->groups[g];
  const bool recurrence = group->role == KWM_ROLE_RECURRENCE;
  const struct kwm_cov_choice *const choice = &spec->cov[group->role];
  return (struct kwm_cov_spec){.name = group->name,
                               .form = choice->form,
                               .real = choice->real,
                               .first = params->share[g].first,
                               .count = params->share[g].count,
                               .total = group->total,
                               .params = group->params,
                               .d_o = group->d_o,
                               .d_i = group->d_i,
                               .prior_variance = recurrence ? prior_variance : NULL,
                               .prior_precision = recurrence ? 0 : choice->prior,
                               .forgetting = spec->filter.forgetting / fmax(spec->filter.inflation, 1),
                               .process_noise = spec->filter.process_noise,
                               .refresh = choice->refresh,
                               .delay = choice->delay,
                               .rank = choice->rank,
                               .kind = choice->kind,
                               .seed = spec->seed + (uint64_t)g,
                               .n_max = kwm_pipe_samples_max(spec->filter.batch, replicas),
                               .m = spec->rows,
                               .framed = framed(spec, params->model, g)};
}

static const struct kwm_cov_ops *structure_of(const struct kwm_learn_spec *spec, const struct kwm_params *params,
                                              int g) {
  return kwm_cov_find(spec->cov[params->model->groups[g].role].structure);
}

static bool kalman_on_device(const struct kwm_learn_spec *spec, const struct kwm_model *model) {
  bool good = !spec->joint && !spec->filter.score_test;
  for (int g = 0; g < model->n_groups && good; g++) {
    const struct kwm_group *const group = &model->groups[g];
    const struct kwm_cov_choice *const choice = &spec->cov[group->role];
    const struct kwm_cov_spec cov = {.form = choice->form,
                                     .real = choice->real,
                                     .total = group->total,
                                     .params = group->params,
                                     .d_o = group->d_o,
                                     .d_i = group->d_i,
                                     .forgetting = spec->filter.forgetting / fmax(spec->filter.inflation, 1)};
    const struct kwm_cov_ops *const ops = kwm_cov_find(choice->structure);
    good = ops != NULL && kwm_cov_on_device(ops, &cov);
  }
  return good;
}

static size_t plain_bytes(const struct kwm_learn_spec *spec, const struct kwm_params *params) {
  if (!framed(spec, params->model, 0)) return 0;
  return (size_t)(params->share[0].count * params->model->groups[0].params) * sizeof(float);
}

static size_t kalman_device_bytes(const struct kwm_learn_spec *spec, const struct kwm_params *params,
                                  int64_t replicas) {
  const int n_groups = params->model->n_groups;
  double variance[KWM_GATED_PARAMS];
  struct kwm_cov_spec covs[KWM_GROUPS_MAX];
  const struct kwm_cov_ops *ops[KWM_GROUPS_MAX];
  for (int g = 0; g < n_groups; g++) {
    ops[g] = structure_of(spec, params, g);
    covs[g] = cov_spec(spec, params, g, replicas, variance);
  }
  return kwm_filter_device_bytes(&spec->filter, replicas, spec->group_ranks <= 1, n_groups, ops, covs);
}

static size_t kalman_bytes(const struct kwm_learn_spec *spec, const struct kwm_params *params, int64_t replicas) {
  const int n_groups = params->model->n_groups;
  double variance[KWM_GATED_PARAMS];
  struct kwm_layout spread; /* as in create: what is spread is held by ranks without blocks, too */
  struct kwm_cov_spec covs[KWM_GROUPS_MAX];
  struct kwm_filter_part joint[KWM_GROUPS_MAX];
  const struct kwm_cov_ops *ops[KWM_GROUPS_MAX];
  size_t bytes = kwm_mem_rounded(sizeof(struct kalman_state)), groups = 0;
  kwm_model_prior_variance(spec->cov[KWM_ROLE_RECURRENCE].prior, variance);
  for (int g = 0; g < n_groups; g++) {
    ops[g] = structure_of(spec, params, g);
    covs[g] = cov_spec(spec, params, g, replicas, variance);
    covs[g].layout = &spread;
    joint[g] = kwm_filter_part_of(&covs[g], NULL);
    groups += kwm_cov_bytes(ops[g], &covs[g]);
  }
  bytes += kwm_mem_rounded(plain_bytes(spec, params));
  if (spec->joint)
    return bytes + kwm_filter_joint_bytes(&spec->filter, spec->group_ranks, spec->group_rank, n_groups, joint);
  return bytes + groups + kwm_filter_bytes(&spec->filter, replicas, n_groups, ops, covs);
}

static kwm_status create_joint(kwm_learner *learner) {
  struct kalman_state *const state = learner->state;
  const int n_groups = learner->params->model->n_groups;
  struct kwm_filter_part parts[KWM_GROUPS_MAX];
  for (int g = 0; g < n_groups; g++) {
    const struct kwm_cov_spec cov =
        cov_spec(&learner->spec, learner->params, g, learner->layout->replicas, state->variance);
    parts[g] = kwm_filter_part_of(&cov, learner->params->mean[g]);
  }
  return kwm_filter_init_joint(&state->filter, learner->layout, &learner->spec.filter, n_groups, parts);
}

static kwm_status init_groups(kwm_learner *learner) {
  struct kalman_state *const state = learner->state;
  const int n_groups = learner->params->model->n_groups;
  kwm_cov covs[KWM_GROUPS_MAX];
  for (int g = 0; g < n_groups; g++) {
    struct kwm_cov_spec spec = cov_spec(&learner->spec, learner->params, g, learner->layout->replicas, state->variance);
    const struct kwm_cov_ops *const ops = structure_of(&learner->spec, learner->params, g);
    KWM_CHECK(ops != NULL, KWM_ERR_USAGE, "cov: wanted a known structure for group %s", spec.name);
    spec.layout = learner->layout;
    spec.device = learner->device;
    KWM_TRY(kwm_cov_create(&covs[g], ops, &spec));
  }
  return kwm_filter_init(&state->filter, learner->layout, &learner->spec.filter, n_groups, covs, learner->params->mean);
}

static kwm_status create_groups(kwm_learner *learner) {
  struct kalman_state *const state = learner->state;
  KWM_TRY(kwm_agree(learner->layout->world, init_groups(learner)));
  return kwm_filter_open_rooms(&state->filter);
}

static kwm_status kalman_create(kwm_learner *learner) {
  KWM_TRY(kwm_agree(learner->layout->world, kwm_alloc(&learner->state, sizeof(struct kalman_state), "filter")));
  struct kalman_state *const state = learner->state;
  kwm_model_prior_variance(learner->spec.cov[KWM_ROLE_RECURRENCE].prior, state->variance);
  const size_t bytes = plain_bytes(&learner->spec, learner->params);
  KWM_TRY(kwm_agree(learner->layout->world, kwm_alloc((void **)&state->plain, bytes, "means")));
  return learner->spec.joint ? create_joint(learner) : create_groups(learner);
}

static void kalman_predict(kwm_learner *learner) {
  kwm_filter_predict(&((struct kalman_state *)learner->state)->filter);
}

static void kalman_step(kwm_learner *learner, const struct kwm_lin *lin, struct kwm_step *step) {
  struct kwm_filter *const filter = &((struct kalman_state *)learner->state)->filter;
  kwm_filter_innovate(filter, lin);
  kwm_filter_gain(filter, lin, step);
  kwm_filter_update(filter, step);
}

static void kalman_search(kwm_learner *learner, const struct kwm_lin *lin, kwm_pipe *pipe,
                          const struct kwm_batch *batch, struct kwm_step *step) {
  struct kwm_filter *const filter = &((struct kalman_state *)learner->state)->filter;
  kwm_filter_innovate(filter, lin);
  kwm_filter_gain(filter, lin, step);
  if (step->verdict == KWM_STEP_DONE) {
    double there[KWM_CHUNKS_MAX];
    const struct kwm_means means = kwm_learner_means(learner);
    kwm_filter_move(filter, step);
    kwm_pipe_surprisal(pipe, &means, batch, there);
    kwm_filter_search(filter, lin, there, step);
  }
  kwm_filter_update(filter, step);
}

struct kwm_filter *kwm_learner_filter(const kwm_learner *learner) {
  KWM_ASSERT(learner->ops == &kwm_learn_kalman);
  return &((struct kalman_state *)learner->state)->filter;
}

static void kalman_health(const kwm_learner *learner, struct kwm_health health[KWM_GROUPS_MAX]) {
  const struct kwm_filter *const filter = &((struct kalman_state *)learner->state)->filter;
  for (int g = 0; g < learner->params->model->n_groups; g++) kwm_filter_health(filter, g, &health[g]);
}

static const float *kalman_plain(const kwm_learner *learner, int g) {
  const struct kalman_state *const state = learner->state;
  float *const mean = kwm_params_home(learner->params, g);
  if (!framed(&learner->spec, learner->params->model, g) || learner->params->share[g].count == 0) return mean;
  kwm_cov_unframe(&state->filter.group[g].cov, mean, state->plain);
  return state->plain;
}

/* A framed mean as it is kept, so that a resumed run goes on with the same bits. */
static const char framed_prefix[] = "/filter/framed";

static kwm_status kalman_save(const kwm_learner *learner, kwm_ckpt *ckpt, bool writes) {
  const struct kwm_params *const params = learner->params;
  if (framed(&learner->spec, params->model, 0))
    KWM_TRY(
        kwm_group_save(params->model, 0, params->share[0], framed_prefix, kwm_params_home(params, 0), ckpt, writes));
  return kwm_filter_save(&((struct kalman_state *)learner->state)->filter, ckpt, writes);
}

static kwm_status kalman_load(kwm_learner *learner, kwm_ckpt *ckpt) {
  struct kwm_params *const params = learner->params;
  if (framed(&learner->spec, params->model, 0)) {
    KWM_TRY(kwm_group_load(params->model, 0, params->share[0], framed_prefix, kwm_params_home(params, 0), ckpt));
    kwm_params_send(params, 0);
  }
  return kwm_filter_load(&((struct kalman_state *)learner->state)->filter, ckpt);
}

static void kalman_destroy(kwm_learner *learner) {
  struct kalman_state *const state = learner->state;
  if (state == NULL) return;
  kwm_filter_fini(&state->filter);
  kwm_free(state->plain);
  kwm_free(state);
}

const struct kwm_learner_ops kwm_learn_kalman = {
    .name = "kalman",
    .on_device = kalman_on_device,
    .bytes = kalman_bytes,
    .device_bytes = kalman_device_bytes,
    .create = kalman_create,
    .predict = kalman_predict,
    .step = kalman_step,
    .search = kalman_search,
    .plain = kalman_plain,
    .health = kalman_health,
    .save = kalman_save,
    .load = kalman_load,
    .destroy = kalman_destroy,
};
