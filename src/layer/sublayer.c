/* One layer of a transformer, forward and back. */
#include "kwm/sublayer.h"

/* out (n, d_o) <- a Wᵀ for W (d_o, d_i) */
static void apply(const struct kwm_sublayer *s, int64_t d_o, int64_t d_i, const float *W, const float *a, float *out) {
  kwm_device_gemm(s->device, false, true, s->n, d_o, d_i, 1, a, d_i, W, d_i, 0, out, d_o);
}

/* back (n, d_i) <- score W */
static void pull(const struct kwm_sublayer *s, int64_t d_o, int64_t d_i, const float *W, const float *score,
                 float *back) {
  kwm_device_gemm(s->device, false, false, s->n, d_i, d_o, 1, score, d_o, W, d_i, 0, back, d_i);
}

static struct kwm_dropout site_of(const struct kwm_dropout *drop, uint32_t offset) {
  struct kwm_dropout at = *drop;
  at.site += offset;
  return at;
}

void kwm_layer_forward(const struct kwm_sublayer *shape, const struct kwm_layer_means *means,
                       const struct kwm_dropout *drop, const float *x, const struct kwm_layer_kept *kept,
                       const struct kwm_sublayer_room *room, float *y) {
  const struct kwm_tensor_ops *const ops = kwm_tensor_of(shape->device);
  const int64_t n = shape->n, d = shape->width, inner = shape->inner;
  const struct kwm_dropout first = site_of(drop, 0), second = site_of(drop, 1);
  ops->norm(shape->device, n, d, x, means->norm_a, kept->a, kept->inv_a);
  apply(shape, 3 * d, d, means->qkv, kept->a, kept->qkv);
  ops->attention(shape->device, &shape->a, kept->qkv, kept->weights, kept->out);
  apply(shape, d, d, means->mix, kept->out, room->narrow);
  ops->residual(shape->device, n, d, &first, x, room->narrow, kept->middle);
  ops->norm(shape->device, n, d, kept->middle, means->norm_f, kept->f, kept->inv_f);
  apply(shape, inner, d, means->up, kept->f, kept->u);
  ops->gelu(shape->device, n * inner, kept->u, kept->gelu);
  apply(shape, d, inner, means->down, kept->gelu, room->narrow);
  ops->residual(shape->device, n, d, &second, kept->middle, room->narrow, y);
}

/* The score of what was dropped and added: s itself without a dropout. */
static const float *undrop(const struct kwm_sublayer *shape, const struct kwm_dropout *drop, const float *s,
                           float *room) {
  if (!(drop->rate > 0)) return s;
  kwm_tensor_of(shape->device)->residual(shape->device, shape->n, shape->width, drop, NULL, s, room);
  return room;
}

static void feed_forward_adjoint(const struct kwm_sublayer *shape, const struct kwm_layer_means *means,
                                 const struct kwm_dropout *drop, const struct kwm_layer_kept *kept,
                                 const struct kwm_sublayer_room *room, int tensor, const struct kwm_sink *sink,
                                 float *s) {
  const struct kwm_tensor_ops *const ops = kwm_tensor_of(shape->device);
  const int64_t n = shape->n, d = shape->width, inner = shape->inner;
  const float *const added = undrop(shape, drop, s, room->narrow);
  sink->matrix(sink->context, tensor + 5, n, d, inner, added, kept->gelu);
  pull(shape, d, inner, means->down, added, room->wide);
  ops->gelu_adjoint(shape->device, n * inner, kept->u, room->wide, room->wide);
  sink->matrix(sink->context, tensor + 4, n, inner, d, room->wide, kept->f);
  pull(shape, inner, d, means->up, room->wide, room->narrow);
  ops->norm_adjoint(shape->device, n, d, kept->middle, means->norm_f, kept->inv_f, room->narrow, s, s,
                    sink->vector(sink->context, tensor + 3), room->norm);
}

static void attention_adjoint(const struct kwm_sublayer *shape, const struct kwm_layer_means *means,
                              const struct kwm_dropout *drop, const float *x, const struct kwm_layer_kept *kept,
                              const struct kwm_sublayer_room *room, int tensor, const struct kwm_sink *sink, float *s) {
  const struct kwm_tensor_ops *const ops = kwm_tensor_of(shape->device);
  const int64_t n = shape->n, d = shape->width;
  const float *const added = undrop(shape, drop, s, room->narrow);
  sink->matrix(sink->context, tensor + 2, n, d, d, added, kept->out);
  pull(shape, d, d, means->mix, added, room->other);
  ops->attention_adjoint(shape->device, &shape->a, kept->qkv, kept->weights, room->other, room->wide);
  sink->matrix(sink->context, tensor + 1, n, 3 * d, d, room->wide, kept->a);
  pull(shape, 3 * d, d, means->qkv, room->wide, room->narrow);
  ops->norm_adjoint(shape->device, n, d, x, means->norm_a, kept->inv_a, room->narrow, s, s,
                    sink->vector(sink->context, tensor), room->norm);
}

void kwm_layer_adjoint(const struct kwm_sublayer *shape, const struct kwm_layer_means *means,
                       const struct kwm_dropout *drop, const float *x, const struct kwm_layer_kept *kept,
                       const struct kwm_sublayer_room *room, int first_tensor, const struct kwm_sink *sink, float *s) {
  const struct kwm_dropout first = site_of(drop, 0), second = site_of(drop, 1);
  feed_forward_adjoint(shape, means, &second, kept, room, first_tensor, sink, s);
  attention_adjoint(shape, means, &first, x, kept, room, first_tensor, sink, s);
}

enum { PARTS = 10 };

/* Floats of each array of kept, in the order of its members, each rounded up to whole vectors. */
static void sizes_of(const struct kwm_sublayer *shape, int64_t sizes[PARTS]) {
  const int64_t n = shape->n, d = shape->width;
  const int64_t weights = shape->a.sequences * shape->a.heads * shape->a.context * shape->a.context;
  const int64_t floats[PARTS] = {n,     n * d, 3 * n * d, weights,          n * d,
                                 n * d, n,     n * d,     n * shape->inner, n * shape->inner};
  for (int k = 0; k < PARTS; k++) sizes[k] = (floats[k] + 63) / 64 * 64;
}

int64_t kwm_layer_kept_floats(const struct kwm_sublayer *shape) {
  int64_t sizes[PARTS], sum = 0;
  sizes_of(shape, sizes);
  for (int k = 0; k < PARTS; k++) sum += sizes[k];
  return sum;
}

struct kwm_layer_kept kwm_layer_keep(const struct kwm_sublayer *shape, float *memory) {
  int64_t sizes[PARTS];
  float *at[PARTS];
  sizes_of(shape, sizes);
  for (int k = 0; k < PARTS; k++) at[k] = memory, memory += sizes[k];
  return (struct kwm_layer_kept){.inv_a = at[0],
                                 .a = at[1],
                                 .qkv = at[2],
                                 .weights = at[3],
                                 .out = at[4],
                                 .middle = at[5],
                                 .inv_f = at[6],
                                 .f = at[7],
                                 .u = at[8],
                                 .gelu = at[9]};
}
