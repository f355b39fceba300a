/* Evidence summed in the same fixed tree as the filter's, arrays made, saved and loaded from one list. */
#include "gradient.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "kwm/backend.h"

static const struct gradient_kind moments = {
    .state_bytes = sizeof(struct gradient_state),
    .evidence = GRADIENT_SCORE,
    .n_arrays = GRADIENT_MOMENTS,
    .array = {{"moment1", GRADIENT_PARAMS}, {"moment2", GRADIENT_PARAMS}},
};

/* ---- sizes */

int64_t gradient_length(const struct kwm_params *params, int g) {
  return params->share[g].count * params->model->groups[g].params;
}

/* Numbers beside the score. */
static int64_t more_length(const struct gradient_kind *kind, const struct kwm_params *params, int g) {
  const struct kwm_group *const group = &params->model->groups[g];
  if (kind->evidence == GRADIENT_SCORE) return 0;
  if (kind->evidence == GRADIENT_DIAGONAL || group->d_o == 0) return gradient_length(params, g);
  return params->share[g].count * (group->d_i * group->d_i + group->d_o * group->d_o);
}

static int64_t sum_length(const struct gradient_kind *kind, const struct kwm_params *params, int g) {
  return gradient_length(params, g) + more_length(kind, params, g);
}

/* Room for the replicas' sum and for what kwm/lin.h wants: d_o a sample, and d_i where it makes the diagonal. */
static int64_t scratch_length(const struct gradient_kind *kind, const struct kwm_learn_spec *spec,
                              const struct kwm_params *params, int g, int64_t replicas) {
  const struct kwm_group *const group = &params->model->groups[g];
  const int64_t width = group->d_o + (kind->evidence == GRADIENT_DIAGONAL ? group->d_i : 0);
  const int64_t length = sum_length(kind, params, g);
  const int64_t rows = kwm_pipe_samples_max(spec->filter.batch, replicas) * width;
  return length > rows ? length : rows;
}

/* An array of one group: a part of (rows, cols) that this rank owns `owned` rows of; rows 0 if the group has none. */
struct extent {
  int64_t rows, cols, owned;
};

static struct extent extent_of(enum gradient_shape shape, const struct kwm_params *params, int g) {
  const struct kwm_group *const group = &params->model->groups[g];
  const int64_t count = params->share[g].count;
  const bool matrix = group->d_o > 0;
  if (shape == GRADIENT_PARAMS || (shape == GRADIENT_UNITS && !matrix))
    return (struct extent){group->total, group->params, count};
  if (shape == GRADIENT_UNITS || !matrix) return (struct extent){0, 0, 0};
  const int64_t d = shape == GRADIENT_INPUTS ? group->d_i : group->d_o;
  return (struct extent){d, d, count * d};
}

static size_t array_bytes(enum gradient_shape shape, const struct kwm_params *params, int g) {
  const struct extent extent = extent_of(shape, params, g);
  return (size_t)(extent.owned * extent.cols) * sizeof(float);
}

/* ---- life */

size_t gradient_kind_bytes(const struct gradient_kind *kind, const struct kwm_learn_spec *spec,
                           const struct kwm_params *params, int64_t replicas) {
  size_t bytes = kwm_mem_rounded(kind->state_bytes);
  for (int g = 0; g < params->model->n_groups; g++) {
    bytes += kwm_treesum_bytes(sum_length(kind, params, g), spec->filter.chunks / replicas) +
             kwm_mem_rounded((size_t)scratch_length(kind, spec, params, g, replicas) * sizeof(float));
    for (int k = 0; k < kind->n_arrays; k++) bytes += kwm_mem_rounded(array_bytes(kind->array[k].shape, params, g));
  }
  return bytes;
}

size_t gradient_kind_saved(const struct gradient_kind *kind, const struct kwm_params *params) {
  size_t bytes = 0;
  for (int g = 0; g < params->model->n_groups; g++)
    for (int k = 0; k < kind->n_arrays; k++) bytes += array_bytes(kind->array[k].shape, params, g);
  return bytes;
}

size_t gradient_saved(const struct kwm_params *params) {
  return gradient_kind_saved(&moments, params);
}

size_t gradient_bytes(const struct kwm_learn_spec *spec, const struct kwm_params *params, int64_t replicas) {
  return gradient_kind_bytes(&moments, spec, params, replicas);
}

kwm_status gradient_kind_create(const struct gradient_kind *kind, kwm_learner *learner) {
  const struct kwm_params *const params = learner->params;
  const int64_t replicas = learner->layout->replicas;
  KWM_TRY(kwm_alloc(&learner->state, kind->state_bytes, "gradient learner"));
  struct gradient_state *state = learner->state;
  state->kind = kind;
  for (int g = 0; g < params->model->n_groups; g++) {
    const int64_t scratch = scratch_length(kind, &learner->spec, params, g, replicas);
    KWM_TRY(
        kwm_treesum_init(&state->sum[g], NULL, sum_length(kind, params, g), learner->spec.filter.chunks / replicas));
    KWM_TRY(kwm_alloc((void **)&state->scratch[g], (size_t)scratch * sizeof(float), "scores"));
    for (int k = 0; k < kind->n_arrays; k++)
      KWM_TRY(
          kwm_alloc((void **)&state->array[k][g], array_bytes(kind->array[k].shape, params, g), kind->array[k].name));
  }
  return KWM_OK;
}

kwm_status gradient_create(kwm_learner *learner) {
  return gradient_kind_create(&moments, learner);
}

void gradient_destroy(kwm_learner *learner) {
  struct gradient_state *state = learner->state;
  for (int g = 0; g < learner->params->model->n_groups && state != NULL; g++) {
    kwm_treesum_fini(&state->sum[g]);
    kwm_free(state->scratch[g]);
    for (int k = 0; k < GRADIENT_ARRAYS; k++) kwm_free(state->array[k][g]);
  }
  kwm_free(state);
}

/* ---- a step */

/* leaf <- one chunk's score and what stands behind it. */
static void chunk_evidence(const kwm_learner *learner, int g, const struct kwm_jac *chunk, float *leaf) {
  const struct gradient_state *const state = learner->state;
  float *const more = leaf + gradient_length(learner->params, g);
  const enum gradient_evidence evidence = state->kind->evidence;
  const bool matrix = chunk->shape == KWM_JAC_OUTER;
  if (evidence == GRADIENT_DIAGONAL || (evidence == GRADIENT_FACTORS && !matrix)) {
    kwm_jac_diagonal(chunk, more, leaf, matrix ? state->scratch[g] : NULL);
    return;
  }
  kwm_jac_score(chunk, leaf, state->scratch[g]);
  if (evidence == GRADIENT_SCORE) return;
  kwm_gram(chunk->d_i, chunk->n, 1.0f, chunk->a, chunk->d_i, 1.0f, more, chunk->d_i);
  kwm_gram(chunk->d_o, chunk->n * chunk->m, 1.0f, chunk->J, chunk->d_o, 1.0f, more + chunk->d_i * chunk->d_i,
           chunk->d_o);
}

/* Not finite if any of the numbers is not. */
static double total(int64_t n, const float *numbers) {
  double sum = 0;
  for (int64_t k = 0; k < n; k++) sum += (double)numbers[k];
  return sum;
}

bool gradient_collect(kwm_learner *learner, const struct kwm_lin *lin) {
  struct gradient_state *state = learner->state;
  bool finite = true;
  for (int g = 0; g < learner->params->model->n_groups; g++) {
    for (int64_t c = 0; c < lin->chunks; c++) {
      const struct kwm_jac chunk = kwm_jac_part(&lin->jac[g], lin->bounds[c], lin->bounds[c + 1] - lin->bounds[c]);
      float *const leaf = kwm_treesum_leaf(&state->sum[g]);
      if (learner->params->share[g].count > 0 && chunk.n > 0) chunk_evidence(learner, g, &chunk, leaf);
      kwm_treesum_push(&state->sum[g]);
    }
    state->score[g] = kwm_treesum_finish(&state->sum[g]);
    state->more[g] = state->score[g] + gradient_length(learner->params, g);
    kwm_par_sum_replicas(learner->layout, state->sum[g].n, state->score[g], state->scratch[g]);
    finite = finite && isfinite(total(state->sum[g].n, state->score[g]));
  }
  return finite;
}

void gradient_sum(kwm_learner *learner, const struct kwm_lin *lin, struct kwm_step *step) {
  const bool finite = gradient_collect(learner, lin);
  step->failed_part = -1;
  kwm_filter_judge(learner->layout, lin, learner->spec.filter.gate, !finite, step);
}

int64_t gradient_place(const kwm_learner *learner, int g, int64_t k) {
  const struct kwm_group *const group = &learner->params->model->groups[g];
  /* Units' scores come with the unit as the fast index, means with the parameter. */
  return group->d_o > 0 ? k : k % group->params * learner->params->share[g].count + k / group->params;
}

float gradient_at(const kwm_learner *learner, int g, int64_t k, int64_t batch) {
  const struct gradient_state *state = learner->state;
  return state->score[g][gradient_place(learner, g, k)] / (float)batch;
}

double gradient_schedule(const kwm_learner *learner) {
  if (learner->spec.total_steps == 0) return 1;
  const double done = (double)learner->steps / (double)learner->spec.total_steps;
  return 0.5 * (1 + cos(M_PI * fmin(done, 1)));
}

void gradient_adam(kwm_learner *learner, int g, float *gradient) {
  const struct gradient_state *const state = learner->state;
  const struct kwm_learn_spec *const spec = &learner->spec;
  const double t = (double)learner->steps + 1;
  const float b1 = (float)spec->beta1, b2 = (float)spec->beta2, epsilon = (float)spec->epsilon;
  const float correct1 = (float)(1 / (1 - pow(spec->beta1, t))), correct2 = (float)(1 / (1 - pow(spec->beta2, t)));
  const float rate = (float)(spec->rate * gradient_schedule(learner));
  float *const first = state->moment[0][g], *const second = state->moment[1][g], *const mean = learner->params->mean[g];
  for (int64_t k = 0; k < gradient_length(learner->params, g); k++) {
    const float before = mean[k];
    first[k] = b1 * first[k] + (1 - b1) * gradient[k];
    second[k] = b2 * second[k] + (1 - b2) * gradient[k] * gradient[k];
    mean[k] += rate * (first[k] * correct1) / (sqrtf(second[k] * correct2) + epsilon);
    gradient[k] = mean[k] - before;
  }
}

void gradient_anchor(kwm_learner *learner, int anchor) {
  const struct gradient_state *const state = learner->state;
  for (int g = 0; g < learner->params->model->n_groups; g++) {
    const size_t bytes = (size_t)gradient_length(learner->params, g) * sizeof(float);
    memcpy(state->array[anchor][g], learner->params->mean[g], bytes);
    memset(state->moment[0][g], 0, bytes);
  }
}

/* ---- checkpoints */

/* Array k of group g, to or from the checkpoint. */
static kwm_status transfer(const kwm_learner *learner, int k, int g, kwm_ckpt *ckpt, bool loads, bool writes) {
  const struct gradient_state *const state = learner->state;
  const struct kwm_params *const params = learner->params;
  const struct gradient_array *const array = &state->kind->array[k];
  const struct extent extent = extent_of(array->shape, params, g);
  const int64_t dims[2] = {extent.rows, extent.cols};
  float *const data = state->array[k][g];
  char prefix[64], name[128];
  if (extent.rows == 0) return KWM_OK;
  snprintf(prefix, sizeof prefix, "/learner/%s/%s", learner->ops->name, array->name);
  snprintf(name, sizeof name, "%s/%s", prefix, params->model->groups[g].name);
  if (array->shape == GRADIENT_PARAMS || array->shape == GRADIENT_UNITS)
    return loads ? kwm_group_load(params->model, g, params->share[g], prefix, data, ckpt)
                 : kwm_group_save(params->model, g, params->share[g], prefix, data, ckpt, writes);
  return loads ? kwm_ckpt_get(ckpt, name, KWM_F32, 2, dims, 0, extent.owned, data)
               : kwm_ckpt_put(ckpt, name, KWM_F32, 2, dims, 0, writes ? extent.owned : 0, data);
}

static kwm_status transfer_all(const kwm_learner *learner, kwm_ckpt *ckpt, bool loads, bool writes) {
  const struct gradient_state *const state = learner->state;
  for (int k = 0; k < state->kind->n_arrays; k++)
    for (int g = 0; g < learner->params->model->n_groups; g++) KWM_TRY(transfer(learner, k, g, ckpt, loads, writes));
  return KWM_OK;
}

kwm_status gradient_save(const kwm_learner *learner, kwm_ckpt *ckpt, bool writes) {
  return transfer_all(learner, ckpt, false, writes);
}

kwm_status gradient_load(kwm_learner *learner, kwm_ckpt *ckpt) {
  return transfer_all(learner, ckpt, true, false);
}
