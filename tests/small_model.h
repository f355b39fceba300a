/* A small classifier, its images, and one rank's worth of program around them: layout, pipe and parameters. */
#pragma once

#include "gated_reference.h"
#include "jac_case.h"

#include "kwm/layer.h"
#include "kwm/learn.h"
#include "kwm/pipe.h"

enum { SMALL_IMAGES = 64, SMALL_LENGTH = 30, SMALL_HIDDEN = 5, SMALL_CLASSES = 10, SMALL_GROUPS = 3 };

static inline struct kwm_model small_model(int64_t width) {
  struct kwm_model model = {.width = width,
                            .hidden = SMALL_HIDDEN,
                            .classes = SMALL_CLASSES,
                            .length = SMALL_LENGTH,
                            .decay_min = 0.5,
                            .decay_max = 0.95,
                            .phase_max = 1.5};
  kwm_model_lay_out(&model);
  return model;
}

/* Images with runs of background of many lengths; labels are the ink's place, roughly. */
struct small_images {
  struct kwm_images images;
  uint8_t pixels[SMALL_IMAGES * SMALL_LENGTH], labels[SMALL_IMAGES];
};

static inline struct small_images *small_images_new(void) {
  struct small_images *const made = calloc(1, sizeof *made);
  assert_non_null(made);
  for (int i = 0; i < SMALL_IMAGES; i++) {
    made->labels[i] = (uint8_t)kwm_rng_below(7, KWM_RNG_TEST, 50, (uint64_t)i, SMALL_CLASSES);
    for (int t = 0; t < SMALL_LENGTH; t++) {
      const uint64_t at = (uint64_t)(i * SMALL_LENGTH + t);
      const bool ink = abs(t - 3 * made->labels[i]) < 4 || kwm_rng_uniform(7, KWM_RNG_TEST, 51, at) < 0.1;
      made->pixels[at] = ink ? (uint8_t)(1 + kwm_rng_below(7, KWM_RNG_TEST, 52, at, 255)) : 0;
    }
  }
  made->images = (struct kwm_images){.n = SMALL_IMAGES,
                                     .length = SMALL_LENGTH,
                                     .classes = SMALL_CLASSES,
                                     .pixels = made->pixels,
                                     .labels = made->labels};
  return made;
}

/* This process alone, whatever the number of ranks in the world. */
static inline struct kwm_layout small_alone(void) {
  return (struct kwm_layout){.size = 1,
                             .replicas = 1,
                             .stages = 1,
                             .owners = 1,
                             .world = MPI_COMM_SELF,
                             .group = MPI_COMM_SELF,
                             .peers = MPI_COMM_SELF};
}

struct small {
  struct kwm_model model;
  struct kwm_layout layout;
  struct kwm_stages stages;
  struct kwm_params params;
  kwm_pipe *pipe;
  struct small_images *data;
  int32_t order[SMALL_IMAGES];
};

/* Everything on this process. small: lives at one place from here on. */
static inline void small_init(struct small *small, const struct kwm_layout *layout, int64_t width, int64_t batch,
                              int64_t chunks) {
  memset(small, 0, sizeof *small);
  small->model = small_model(width);
  small->layout = *layout;
  small->data = small_images_new();
  for (int i = 0; i < SMALL_IMAGES; i++) small->order[i] = (17 * i + 5) % SMALL_IMAGES;
  assert_ok(kwm_stage_assign(&small->stages, &small->model, layout->stages, layout->owners));
  const int me = layout->stage * layout->owners + layout->owner;
  assert_ok(kwm_params_create(&small->params, &small->model, &small->stages, me, 3));
  const struct kwm_pipe_spec spec = {.batch = batch, .chunks = chunks, .evidence = KWM_EVIDENCE_EXACT};
  assert_ok(kwm_pipe_create(&small->pipe, &small->layout, &small->model, &small->stages, &spec));
}

/* Another pipe in the place of small_init's. */
static inline void small_pipe(struct small *small, const struct kwm_pipe_spec *spec) {
  kwm_pipe_destroy(small->pipe);
  assert_ok(kwm_pipe_create(&small->pipe, &small->layout, &small->model, &small->stages, spec));
}

static inline void small_fini(struct small *small) {
  kwm_pipe_destroy(small->pipe);
  kwm_params_destroy(&small->params);
  free(small->data);
}

static inline struct kwm_means small_means(const struct small *small) {
  struct kwm_means means = {0};
  memcpy(means.at, small->params.mean, sizeof means.at);
  return means;
}

static inline void small_linearise(struct small *small, int64_t first, int64_t n, struct kwm_lin *lin) {
  const struct kwm_batch batch = {.images = &small->data->images, .order = small->order + first, .n = n};
  const struct kwm_means means = small_means(small);
  kwm_pipe_linearise(small->pipe, &means, &batch, lin);
}

static inline double *small_widen(int64_t n, const float *from) {
  double *const to = dense_new(n);
  for (int64_t k = 0; k < n; k++) to[k] = (double)from[k];
  return to;
}

/* The same model in double precision, for a rank that owns everything. */
static inline struct ref_model small_reference(const struct small *small) {
  const struct kwm_group *const groups = small->model.groups;
  return (struct ref_model){.width = small->model.width,
                            .hidden = SMALL_HIDDEN,
                            .classes = SMALL_CLASSES,
                            .length = SMALL_LENGTH,
                            .theta =
                                small_widen(small->model.width * REF_PARAMS, small->params.mean[KWM_GROUP_RECURRENCE]),
                            .W1 = small_widen(groups[KWM_GROUP_HIDDEN].params, small->params.mean[KWM_GROUP_HIDDEN]),
                            .W2 = small_widen(groups[KWM_GROUP_OUTPUT].params, small->params.mean[KWM_GROUP_OUTPUT])};
}

static inline void small_reference_drop(struct ref_model *reference) {
  free(reference->theta), free(reference->W1), free(reference->W2);
}
