/* Private to pipe: the layers of the dense model that a rank holds. */
#pragma once

#include "kwm/sens.h"
#include "pipe_ops.h"

/* A hidden layer or the output on this rank; NULL: not here. */
struct dense_layer {
  float *a;                   /* (n, d_i) inputs with 1 appended; where the layer is, and where the one before it is */
  float *aU;                  /* (n, d_i) of a framed layer */
  float *y;                   /* (n, d_o) outputs in the frame of a framed layer */
  float *u;                   /* (n, d_o) outputs: pre-activations or logits */
  float *e;                   /* (n, classes) innovations, exact */
  struct kwm_sens_rows rows;  /* at u */
  struct kwm_sens_rows below; /* at the inputs, on their way to another rank */
};

struct dense_pipe {
  struct kwm_pipe common;
  struct dense_layer layer[KWM_LAYERS_MAX + 1];
  struct dense_layer readout[KWM_LAYERS_MAX]; /* of hidden layers that have one of their own */
  int64_t per_sample;                         /* rows of the Jacobian */
};

static inline int dense_owner(const struct kwm_stages *stages, const struct kwm_model *model, int l) {
  return l >= 0 && l <= model->n_layers ? stages->owner[kwm_model_layer(model, l)] : -1;
}

static inline const struct kwm_group *dense_group(const struct kwm_model *model, int l) {
  return &model->groups[kwm_model_layer(model, l)];
}

/* Rows come back to layer l from the layer behind it. */
static inline bool dense_follows(const struct kwm_model *model, int l) {
  return l < model->n_layers && (!model->readouts || l + 1 == model->n_layers);
}

static inline bool dense_has_readout(const struct kwm_model *model, int l) {
  return model->readouts && l + 1 < model->n_layers;
}

/* struct pipe_ops' bytes, create and destroy. */
size_t dense_bytes(const struct kwm_model *model, const struct kwm_stages *stages, int group_rank, int64_t n_max,
                   const struct kwm_pipe_spec *spec);
size_t dense_device_bytes(const struct kwm_model *model, const struct kwm_stages *stages, int group_rank, int64_t n_max,
                          const struct kwm_pipe_spec *spec);
kwm_status dense_create(struct kwm_pipe **common, const struct kwm_pipe *filled);
void dense_destroy(struct kwm_pipe *common);
