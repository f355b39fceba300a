/* The transformer language model: its parameter tensors, initial means, and how its layers are cut into stages. Local;
   knows nothing of ranks, filters or covariance structures.

   x = E[token] + position; every layer adds attention(norm x), then feed-forward(norm x) (kwm/sublayer.h); logits =
   E norm(x), the embedding E read both ways. With more than one stage (sensitivity: stage), the layers are cut into as
   many runs of consecutive layers, and each stage reads its own prediction of the same target from its last layer
   through a norm of its own and the common E, which the last stage alone corrects (equations.md 3(i)). */
#pragma once

#include "kwm/base.h"

/* What a tensor is, and so how its covariance is built: a matrix of a layer; the embedding; positions and norms. */
enum kwm_tensor_role { KWM_TENSOR_MATRIX, KWM_TENSOR_EMBEDDING, KWM_TENSOR_VECTOR, KWM_TENSOR_ROLES };

struct kwm_tensor {
  char name[24]; /* in checkpoints: /params/NAME */
  enum kwm_tensor_role role;
  int64_t rows, columns; /* outputs, inputs of a matrix */
  int stage;             /* whose it is */
  float middle, spread;  /* initial mean: middle + spread * normal */
};

/* The tensors of a layer, in order. */
enum kwm_layer_tensor {
  KWM_LAYER_NORM_A, /* (1, width) */
  KWM_LAYER_QKV,    /* (3 width, width) */
  KWM_LAYER_MIX,    /* (width, width) */
  KWM_LAYER_NORM_F, /* (1, width) */
  KWM_LAYER_UP,     /* (ratio width, width) */
  KWM_LAYER_DOWN,   /* (width, ratio width) */
  KWM_LAYER_TENSORS
};
enum { KWM_TENSOR_EMBED, KWM_TENSOR_POSITION, KWM_TENSOR_FIRST_LAYER };
enum {
  KWM_TRANSFORMER_LAYERS_MAX = 64,
  KWM_TRANSFORMER_STAGES_MAX = 16,
  KWM_TENSORS_MAX = KWM_TENSOR_FIRST_LAYER + KWM_TRANSFORMER_LAYERS_MAX * KWM_LAYER_TENSORS + KWM_TRANSFORMER_STAGES_MAX
};

struct kwm_transformer {
  int64_t types, context, width, heads, ratio; /* vocabulary; tokens a sequence; columns; feed-forward widening */
  int layers, stages;
  double dropout, dropout_embedding, dropout_readout; /* shares dropped: of what sub-layers add, of the embedded tokens,
                                                         of what a prediction is read from */
  int n_tensors;
  struct kwm_tensor tensors[KWM_TENSORS_MAX];
};

/* Fills `tensors` from the other fields. KWM_ERR_USAGE: heads do not divide width, more stages than layers. */
kwm_status kwm_transformer_lay_out(struct kwm_transformer *model);

int kwm_transformer_tensor(int layer, enum kwm_layer_tensor which);
int kwm_transformer_readout(const struct kwm_transformer *model, int stage); /* its norm's tensor */

/* Layers [first, first of the next stage) of a stage; stage `stages`: the number of layers. */
int kwm_transformer_first(const struct kwm_transformer *model, int stage);

int64_t kwm_transformer_parameters(const struct kwm_transformer *model);

/* mean (rows, columns) <- initial mean of tensor t, keyed by (seed, t, element). */
void kwm_transformer_initial(const struct kwm_transformer *model, int t, uint64_t seed, float *mean);

/* Operations of one token: forward through a stage's layers and its read-out. */
double kwm_transformer_operations(const struct kwm_transformer *model, int stage);
