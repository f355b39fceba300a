/* A transformer's sub-layers: x + attention(norm x) and x + feed-forward(norm x), forward, and the score carried back
   to x (kwm/tensor.h: what a score is). Local. All arrays are where the device says; rows are tokens.

   What a matrix W sees on the way back, its output's score s (n, d_o) and its input a (n, d_i), is all that there is to
   know of it: its score is sᵀa, and the second moments of a and s span its Kronecker eigenbasis (equations.md 3(a)).
   Both go to a sink. */
#pragma once

#include "kwm/tensor.h"

/* Takes what the tensors see. matrix: s (n, d_o), a (n, d_i) of one matrix, valid during the call. vector: where to add
   the score of a norm, of positions or of the embedding. */
struct kwm_sink {
  void *context;
  void (*matrix)(void *context, int tensor, int64_t n, int64_t d_o, int64_t d_i, const float *s, const float *a);
  float *(*vector)(void *context, int tensor);
  /* What the embedding is read with, y (n, width), on the rank that holds it; its score is added by way of vector. */
  void (*reading)(void *context, int tensor, int64_t n, const float *y);
};

struct kwm_sublayer {
  kwm_device *device; /* borrowed; NULL: host */
  struct kwm_attention a;
  int64_t n, width, inner; /* rows; heads * size; feed-forward's */
};

/* Means of one layer, what its forward pass keeps for the way back, and the numbers of its tensors for the sink. */
struct kwm_layer_means {
  const float *norm_a, *qkv, *mix, *norm_f, *up, *down;
};
struct kwm_layer_kept {
  float *inv_a, *a, *qkv, *weights, *out; /* (n), (n, width), (n, 3 width), (sequences, heads, context²), (n, width) */
  float *middle;                          /* (n, width): x between the sub-layers */
  float *inv_f, *f, *u, *gelu;            /* (n), (n, width), (n, inner), (n, inner) */
};

/* Room for the way: `wide` (n, max(3 width, inner)), `narrow`, `other` (n, width), norm: kwm_tensor_norm_scratch. */
struct kwm_sublayer_room {
  float *wide, *narrow, *other, *norm;
};

/* One layer: y (n, width) from x (n, width); both sub-layers drop with the sites drop.site and drop.site + 1. kept may
   be reused by the next layer if the way back is not gone. y may be x only then. */
void kwm_layer_forward(const struct kwm_sublayer *shape, const struct kwm_layer_means *means,
                       const struct kwm_dropout *drop, const float *x, const struct kwm_layer_kept *kept,
                       const struct kwm_sublayer_room *room, float *y);

/* s (n, width): in the score of y, out that of x. first_tensor: number of the layer's first tensor for the sink. */
void kwm_layer_adjoint(const struct kwm_sublayer *shape, const struct kwm_layer_means *means,
                       const struct kwm_dropout *drop, const float *x, const struct kwm_layer_kept *kept,
                       const struct kwm_sublayer_room *room, int first_tensor, const struct kwm_sink *sink, float *s);

/* Floats of one layer's kept for `n` rows. */
int64_t kwm_layer_kept_floats(const struct kwm_sublayer *shape);
/* kept within memory of that many floats. */
struct kwm_layer_kept kwm_layer_keep(const struct kwm_sublayer *shape, float *memory);
