/* What a learner of the language model holds. */
#include <stdio.h>
#include <string.h>

#include "language_state.h"

struct kwm_riccati_spec language_riccati_spec(const struct kwm_transformer *model,
                                              const struct kwm_language_learn_spec *spec, kwm_device *device, int t) {
  const struct kwm_tensor *const tensor = &model->tensors[t];
  return (struct kwm_riccati_spec){.name = tensor->name,
                                   .rows = tensor->rows,
                                   .columns = tensor->columns,
                                   .left = spec->left[tensor->role],
                                   .right = spec->right[tensor->role],
                                   .prior = spec->prior[tensor->role],
                                   .rate_f = spec->rate_f,
                                   .rate_m = spec->rate_m,
                                   .rate_factor = spec->rate_factor,
                                   .steady = spec->steady,
                                   .device = device};
}

static struct kwm_riccati_spec riccati_spec(const kwm_language_learner *learner, int t) {
  return language_riccati_spec(learner->model, &learner->spec, learner->device, t);
}

static int64_t larger(int64_t a, int64_t b) {
  return a > b ? a : b;
}

/* Of the tensors held and their factors. */
static int64_t largest(const kwm_language_learner *learner) {
  int64_t most = 0;
  for (int t = 0; t < learner->model->n_tensors; t++) {
    const struct kwm_riccati_spec spec = riccati_spec(learner, t);
    if (!learner->holds[t]) continue;
    most = larger(most, spec.rows * spec.columns);
    if (spec.left) most = larger(most, spec.rows * spec.rows);
    if (spec.right) most = larger(most, spec.columns * spec.columns);
  }
  return most;
}

static kwm_status take(kwm_device *device, float **at, int64_t floats, const char *what) {
  KWM_TRY(kwm_device_alloc(device, (void **)at, (size_t)floats * sizeof **at, what));
  kwm_device_zero(device, *at, (size_t)floats * sizeof **at);
  return KWM_OK;
}

/* Initial means are made on the host. */
static kwm_status begin_mean(kwm_language_learner *learner, int t) {
  const size_t bytes = (size_t)language_size(learner->model, t) * sizeof(float);
  float *const way = learner->device == NULL ? learner->mean[t] : learner->host;
  kwm_transformer_initial(learner->model, t, learner->spec.seed, way);
  if (way == learner->host) kwm_device_put(learner->device, learner->mean[t], way, bytes);
  return KWM_OK;
}

static kwm_status create_tensor(kwm_language_learner *learner, int t) {
  const char *const name = learner->model->tensors[t].name;
  const int64_t n = language_size(learner->model, t);
  KWM_TRY(take(learner->device, &learner->mean[t], n, name));
  KWM_TRY(take(learner->device, &learner->score[t], n, name));
  if (learner->spec.average > 0) KWM_TRY(take(learner->device, &learner->average[t], n, name));
  if (learner->owns[t] && learner->spec.adam) {
    KWM_TRY(take(learner->device, &learner->first[t], n, name));
    KWM_TRY(take(learner->device, &learner->second[t], n, name));
  } else if (learner->owns[t]) {
    const struct kwm_riccati_spec spec = riccati_spec(learner, t);
    KWM_TRY(kwm_riccati_create(&learner->cov[t], &spec));
  }
  return begin_mean(learner, t);
}

/* The largest of every part of the room over the tensors owned, and room for a share of the others' factors. */
static void room_floats(const kwm_language_learner *learner, int64_t floats[3]) {
  memset(floats, 0, 3 * sizeof *floats);
  for (int t = 0; t < learner->model->n_tensors && !learner->spec.adam; t++) {
    int64_t wants[3];
    const struct kwm_riccati_spec spec = riccati_spec(learner, t);
    kwm_riccati_room_floats(&spec, wants);
    for (int k = 0; k < 3; k++)
      if (learner->owns[t]) floats[k] = larger(floats[k], wants[k]);
    if (!learner->holds[t]) continue;
    if (spec.left) floats[1] = larger(floats[1], spec.rows * spec.rows);
    if (spec.right) floats[1] = larger(floats[1], spec.columns * spec.columns);
  }
}

/* What passes between ranks at once; 0: nobody to pass it to. */
static int64_t piece_floats(const kwm_language_learner *learner) {
  const int64_t most = largest(learner);
  if (learner->layout->replicas == 1 && learner->layout->owners == 1) return 0;
  return most < LANGUAGE_PIECE ? most : LANGUAGE_PIECE;
}

static kwm_status create_room(kwm_language_learner *learner) {
  const int64_t most = largest(learner), piece = piece_floats(learner);
  int64_t floats[3];
  room_floats(learner, floats);
  KWM_TRY(kwm_device_alloc(learner->device, (void **)&learner->room.matrix, (size_t)floats[0] * sizeof(float), "room"));
  KWM_TRY(kwm_device_alloc(learner->device, (void **)&learner->room.square, (size_t)floats[1] * sizeof(float), "room"));
  KWM_TRY(kwm_device_alloc(learner->device, (void **)&learner->room.line, (size_t)floats[2] * sizeof(float), "room"));
  KWM_TRY(kwm_device_share(learner->device, (void **)&learner->norms,
                           (size_t)learner->model->n_tensors * sizeof *learner->norms, "norms"));
  if (learner->device != NULL) KWM_TRY(kwm_alloc((void **)&learner->host, (size_t)most * sizeof(float), "room"));
  KWM_TRY(kwm_device_alloc(learner->device, (void **)&learner->sums, (size_t)piece * sizeof(float), "sums"));
  if (learner->device == NULL) return KWM_OK;
  return kwm_alloc((void **)&learner->staging, (size_t)(2 * piece) * sizeof(float), "sums");
}

/* Who has what; specifications of all. */
static void deal_out(kwm_language_learner *learner, const struct kwm_language_place *place) {
  const struct kwm_layout *const layout = learner->layout;
  kwm_language_owners(learner->model, place, layout->owners, &learner->spec, learner->owner);
  for (int t = 0; t < learner->model->n_tensors; t++) {
    learner->holds[t] = kwm_language_holder(place, learner->model, t) == layout->stage;
    learner->owns[t] = learner->holds[t] && learner->owner[t] == layout->owner;
    learner->cov[t].spec = riccati_spec(learner, t);
  }
}

static kwm_status create_all(kwm_language_learner *learner) {
  deal_out(learner, kwm_language_places(learner->language));
  KWM_TRY(create_room(learner));
  for (int t = 0; t < learner->model->n_tensors; t++)
    if (learner->holds[t]) KWM_TRY(create_tensor(learner, t));
  return KWM_OK;
}

kwm_status kwm_language_learner_create(kwm_language_learner **learner, struct kwm_layout *layout,
                                       const struct kwm_transformer *model, kwm_language *language, kwm_device *device,
                                       const struct kwm_language_learn_spec *spec) {
  kwm_language_learner *made;
  *learner = NULL;
  kwm_status status = kwm_alloc((void **)&made, sizeof *made, "learner");
  if (status == KWM_OK) {
    made->layout = layout, made->model = model, made->language = language, made->device = device, made->spec = *spec;
    status = create_all(made);
  }
  status = kwm_agree(layout->world, status);
  if (status == KWM_OK) {
    kwm_language_share(language, made->mean);
    *learner = made;
  } else {
    kwm_language_learner_destroy(made);
  }
  return status;
}

void kwm_language_learner_destroy(kwm_language_learner *learner) {
  if (learner == NULL) return;
  for (int t = 0; t < learner->model->n_tensors; t++) {
    kwm_device_free(learner->device, learner->mean[t]);
    kwm_device_free(learner->device, learner->average[t]);
    kwm_device_free(learner->device, learner->score[t]);
    kwm_device_free(learner->device, learner->first[t]);
    kwm_device_free(learner->device, learner->second[t]);
    kwm_riccati_destroy(&learner->cov[t]);
  }
  kwm_device_free(learner->device, learner->room.matrix);
  kwm_device_free(learner->device, learner->room.square);
  kwm_device_free(learner->device, learner->room.line);
  kwm_device_free(learner->device, learner->sums);
  kwm_device_free(learner->device, learner->norms);
  kwm_free(learner->staging);
  kwm_free(learner->host);
  kwm_free(learner);
}

struct kwm_language_bytes kwm_language_learner_bytes(const struct kwm_transformer *model,
                                                     const struct kwm_language_place *place,
                                                     const struct kwm_layout *at, bool on_device,
                                                     const struct kwm_language_learn_spec *spec) {
  struct kwm_layout layout = *at;
  kwm_language_learner learner = {.model = model, .layout = &layout, .spec = *spec};
  double floats = 0, stored = 0;
  int64_t room[3];
  deal_out(&learner, place);
  for (int t = 0; t < model->n_tensors; t++) {
    const struct kwm_riccati_spec riccati = riccati_spec(&learner, t);
    const double n = (double)language_size(model, t);
    if (learner.holds[t]) floats += n * (2 + (spec->average > 0));
    if (!learner.owns[t]) continue;
    const double state = spec->adam ? 2 * n : (double)kwm_riccati_floats(&riccati);
    floats += state;
    if (at->replica == 0) stored += state + n * (1 + (spec->average > 0));
  }
  room_floats(&learner, room);
  const int64_t piece = piece_floats(&learner);
  return (struct kwm_language_bytes){.arrays = (floats + (double)(room[0] + room[1] + room[2] + piece)) * sizeof(float),
                                     .host = on_device ? (double)(2 * piece + largest(&learner)) * sizeof(float) : 0,
                                     .stored = stored * sizeof(float)};
}

void kwm_language_health(const kwm_language_learner *learner, double trace[KWM_TENSOR_ROLES],
                         double prior[KWM_TENSOR_ROLES]) {
  memset(trace, 0, KWM_TENSOR_ROLES * sizeof *trace);
  memset(prior, 0, KWM_TENSOR_ROLES * sizeof *prior);
  for (int t = 0; t < learner->model->n_tensors && !learner->spec.adam; t++) {
    if (!learner->owns[t]) continue;
    const int64_t n = language_size(learner->model, t);
    const float *p = learner->cov[t].p;
    if (learner->device != NULL) {
      kwm_device_get(learner->device, learner->host, p, (size_t)n * sizeof *p);
      p = learner->host;
    }
    double sum = 0;
    for (int64_t k = 0; k < n; k++) sum += p[k];
    trace[learner->model->tensors[t].role] += sum;
    prior[learner->model->tensors[t].role] += (double)n / learner->cov[t].spec.prior;
  }
}
