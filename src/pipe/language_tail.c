/* The layers after one of them: the whole window forward, and its score back, for every read. */
#include <string.h>

#include "kwm/sublayer.h"
#include "kwm/tail.h"

enum { ALIGNED = 64 };

struct kwm_tail {
  struct kwm_tail_spec spec;
  struct kwm_sublayer shape;
  float *const *means;                      /* borrowed */
  float *memory;                            /* all floats below; owned */
  int32_t *ids, *targets;                   /* (sequences, context) each; owned */
  float *x[KWM_TRANSFORMER_LAYERS_MAX + 1]; /* after the layer and each one after it */
  float *base, *y, *inv, *s, *facts, *vector, *read_room;
  struct kwm_layer_kept first, kept[KWM_TRANSFORMER_LAYERS_MAX]; /* first: shared by those before */
  struct kwm_sublayer_room room;
};

static struct kwm_sublayer shape_of(const struct kwm_tail_spec *spec) {
  const struct kwm_transformer *const model = spec->model;
  const struct kwm_attention a = {spec->sequences, model->context, model->heads, model->width / model->heads};
  return (struct kwm_sublayer){.device = spec->device,
                               .a = a,
                               .n = spec->sequences * model->context,
                               .width = model->width,
                               .inner = model->ratio * model->width};
}

static int later_layers(const struct kwm_tail_spec *spec) {
  return spec->model->layers - spec->layer;
}

static float *cut(float **memory, int64_t *sum, int64_t floats) {
  float *const at = *memory;
  const int64_t whole = (floats + ALIGNED - 1) / ALIGNED * ALIGNED;
  *sum += whole;
  if (at != NULL) *memory += whole;
  return at;
}

/* Places in tail->memory, unless that is NULL; floats wanted. */
static int64_t lay_out(struct kwm_tail *tail) {
  const struct kwm_sublayer *const shape = &tail->shape;
  const int64_t n = shape->n, d = shape->width, wide = 3 * d > shape->inner ? 3 * d : shape->inner;
  const int64_t kept = kwm_layer_kept_floats(shape);
  float *memory = tail->memory;
  int64_t sum = 0;
  for (int k = 0; k <= later_layers(&tail->spec); k++) tail->x[k] = cut(&memory, &sum, n * d);
  for (int k = -1; k < later_layers(&tail->spec); k++) {
    float *const at = cut(&memory, &sum, kept);
    if (at != NULL) *(k < 0 ? &tail->first : &tail->kept[k]) = kwm_layer_keep(shape, at);
  }
  tail->base = cut(&memory, &sum, n * d);
  tail->y = cut(&memory, &sum, n * d);
  tail->inv = cut(&memory, &sum, n);
  tail->s = cut(&memory, &sum, n * d);
  tail->facts = cut(&memory, &sum, n * KWM_TOKEN_FACTS);
  tail->vector = cut(&memory, &sum, d);
  tail->read_room = cut(&memory, &sum, kwm_tensor_read_room(shape->a.context, tail->spec.model->types, d, false));
  tail->room.wide = cut(&memory, &sum, n * wide);
  tail->room.narrow = cut(&memory, &sum, n * d);
  tail->room.other = cut(&memory, &sum, n * d);
  tail->room.norm = cut(&memory, &sum, kwm_tensor_norm_scratch(n, d));
  return sum;
}

static kwm_status allocate(struct kwm_tail *tail) {
  kwm_device *const device = tail->spec.device;
  const size_t bytes = (size_t)tail->shape.n * sizeof(int32_t);
  void *at;
  KWM_TRY(kwm_device_alloc(device, &at, (size_t)lay_out(tail) * sizeof(float), "layers after an offset"));
  tail->memory = at;
  KWM_TRY(kwm_device_alloc(device, &at, bytes, "tokens"));
  tail->ids = at;
  KWM_TRY(kwm_device_alloc(device, &at, bytes, "tokens"));
  tail->targets = at;
  lay_out(tail);
  kwm_device_zero(device, tail->vector, (size_t)tail->shape.width * sizeof(float));
  return KWM_OK;
}

kwm_status kwm_tail_create(kwm_tail **tail, const struct kwm_tail_spec *spec) {
  KWM_ASSERT(spec->layer >= 1 && spec->layer <= spec->model->layers);
  KWM_TRY(kwm_alloc((void **)tail, sizeof **tail, "layers after an offset"));
  (*tail)->spec = *spec;
  (*tail)->shape = shape_of(spec);
  const kwm_status status = allocate(*tail);
  if (status == KWM_OK) return KWM_OK;
  kwm_tail_destroy(*tail);
  *tail = NULL;
  return status;
}

void kwm_tail_destroy(kwm_tail *tail) {
  if (tail == NULL) return;
  kwm_device_free(tail->spec.device, tail->memory);
  kwm_device_free(tail->spec.device, tail->ids);
  kwm_device_free(tail->spec.device, tail->targets);
  kwm_free(tail);
}

static struct kwm_layer_means means_of(const struct kwm_tail *tail, int layer) {
  float *const *const m = tail->means + kwm_transformer_tensor(layer, KWM_LAYER_NORM_A);
  return (struct kwm_layer_means){m[KWM_LAYER_NORM_A], m[KWM_LAYER_QKV], m[KWM_LAYER_MIX],
                                  m[KWM_LAYER_NORM_F], m[KWM_LAYER_UP],  m[KWM_LAYER_DOWN]};
}

static void forward(struct kwm_tail *tail, int layer, const float *x, const struct kwm_layer_kept *kept, float *y) {
  const struct kwm_dropout none = {.rate = 0};
  const struct kwm_layer_means means = means_of(tail, layer);
  kwm_layer_forward(&tail->shape, &means, &none, x, kept, &tail->room, y);
}

void kwm_tail_open(kwm_tail *tail, float *const *means, const int32_t *ids, const int32_t *targets) {
  kwm_device *const device = tail->spec.device;
  const struct kwm_sublayer *const shape = &tail->shape;
  const struct kwm_dropout none = {.rate = 0};
  const size_t bytes = (size_t)shape->n * sizeof *ids;
  tail->means = means;
  kwm_device_put(device, tail->ids, ids, bytes);
  kwm_device_put(device, tail->targets, targets, bytes);
  kwm_tensor_of(device)->embed(device, shape->n, shape->width, shape->a.context, tail->ids, means[KWM_TENSOR_EMBED],
                               means[KWM_TENSOR_POSITION], &none, tail->base);
  for (int layer = 0; layer < tail->spec.layer; layer++) forward(tail, layer, tail->base, &tail->first, tail->base);
  kwm_device_copy(device, tail->x[0], tail->base, (size_t)(shape->n * shape->width) * sizeof(float));
}

void kwm_tail_offset(kwm_tail *tail, int64_t first, const float *offsets) {
  kwm_device *const device = tail->spec.device;
  const int64_t d = tail->shape.width, context = tail->shape.a.context, rows = context - first;
  for (int64_t s = 0; s < tail->spec.sequences && rows > 0; s++) {
    const int64_t at = (s * context + first) * d;
    kwm_device_copy(device, tail->x[0] + at, tail->base + at, (size_t)(rows * d) * sizeof(float));
    kwm_tensor_of(device)->shift(device, rows, d, offsets + s * d, tail->x[0] + at);
  }
}

/* y <- what is read; facts of the tokens wanted, and the score of y, zeros elsewhere, to room.narrow. */
static void read_out(kwm_tail *tail, int64_t first, int64_t n) {
  kwm_device *const device = tail->spec.device;
  const struct kwm_tensor_ops *const ops = kwm_tensor_of(device);
  const struct kwm_transformer *const model = tail->spec.model;
  const struct kwm_sublayer *const shape = &tail->shape;
  const float *const norm = tail->means[kwm_transformer_readout(model, model->stages - 1)];
  ops->norm(device, shape->n, shape->width, tail->x[later_layers(&tail->spec)], norm, tail->y, tail->inv);
  kwm_device_zero(device, tail->room.narrow, (size_t)(shape->n * shape->width) * sizeof(float));
  for (int64_t s = 0; s < tail->spec.sequences; s++) {
    const int64_t at = s * model->context + first;
    const struct kwm_read read = {.n = n,
                                  .classes = model->types,
                                  .width = shape->width,
                                  .y = tail->y + at * shape->width,
                                  .E = tail->means[KWM_TENSOR_EMBED],
                                  .targets = tail->targets + at,
                                  .facts = tail->facts + s * n * KWM_TOKEN_FACTS,
                                  .sy = tail->room.narrow + at * shape->width,
                                  .room = tail->read_room};
    ops->read(device, &read);
  }
}

static void no_matrix(void *context, int t, int64_t n, int64_t d_o, int64_t d_i, const float *s, const float *a) {
  (void)context, (void)t, (void)n, (void)d_o, (void)d_i, (void)s, (void)a;
}

static float *any_vector(void *context, int t) {
  (void)t;
  return ((struct kwm_tail *)context)->vector;
}

/* s <- the score of the layer's output, at all tokens. */
static void carry_back(kwm_tail *tail) {
  const struct kwm_transformer *const model = tail->spec.model;
  const struct kwm_sublayer *const shape = &tail->shape;
  const struct kwm_sink sink = {.context = tail, .matrix = no_matrix, .vector = any_vector};
  const struct kwm_dropout none = {.rate = 0};
  const float *const norm = tail->means[kwm_transformer_readout(model, model->stages - 1)];
  kwm_tensor_of(shape->device)
      ->norm_adjoint(shape->device, shape->n, shape->width, tail->x[later_layers(&tail->spec)], norm, tail->inv,
                     tail->room.narrow, NULL, tail->s, tail->vector, tail->room.norm);
  for (int k = later_layers(&tail->spec) - 1; k >= 0; k--) {
    const struct kwm_layer_means means = means_of(tail, tail->spec.layer + k);
    kwm_layer_adjoint(shape, &means, &none, tail->x[k], &tail->kept[k], &tail->room,
                      kwm_transformer_tensor(tail->spec.layer + k, KWM_LAYER_NORM_A), &sink, tail->s);
  }
}

/* rows (sequences, groups, width) <- sums of s. */
static void sum_groups(kwm_tail *tail, int64_t first, int64_t n, int64_t groups, float *rows) {
  kwm_device *const device = tail->spec.device;
  const int64_t d = tail->shape.width, context = tail->shape.a.context;
  kwm_device_zero(device, rows, (size_t)(tail->spec.sequences * groups * d) * sizeof *rows);
  for (int64_t s = 0; s < tail->spec.sequences; s++)
    for (int64_t j = 0; j < groups; j++) {
      const int64_t from = (j * n + groups - 1) / groups, end = ((j + 1) * n + groups - 1) / groups;
      kwm_tensor_of(device)->fold(device, end - from, d, 1, tail->s + (s * context + first + from) * d,
                                  rows + (s * groups + j) * d);
    }
}

/* facts (n, sequences, FACTS) <- those of (sequences, n, FACTS) */
static void fetch_facts(kwm_tail *tail, int64_t n, float *facts) {
  for (int64_t s = 0; s < tail->spec.sequences; s++)
    for (int64_t t = 0; t < n; t++)
      kwm_device_get(tail->spec.device, facts + (t * tail->spec.sequences + s) * KWM_TOKEN_FACTS,
                     tail->facts + (s * n + t) * KWM_TOKEN_FACTS, KWM_TOKEN_FACTS * sizeof *facts);
}

void kwm_tail_read(kwm_tail *tail, int64_t first, int64_t n, float *facts, int64_t groups, float *rows) {
  for (int k = 0; k < later_layers(&tail->spec); k++)
    forward(tail, tail->spec.layer + k, tail->x[k], &tail->kept[k], tail->x[k + 1]);
  read_out(tail, first, n);
  fetch_facts(tail, n, facts);
  carry_back(tail);
  sum_groups(tail, first, n, groups, rows);
}

double kwm_tail_operations(const struct kwm_tail_spec *spec, int64_t n) {
  const struct kwm_transformer *const model = spec->model;
  const double d = (double)model->width, tokens = (double)(spec->sequences * model->context);
  const double layer = d * d * (8 + 4 * (double)model->ratio) + 4 * d * (double)model->context;
  return tokens * 2 * (double)later_layers(spec) * layer + (double)(spec->sequences * n) * 4 * d * (double)model->types;
}

double kwm_tail_bytes(const struct kwm_tail_spec *spec) {
  struct kwm_tail tail = {.spec = *spec, .shape = shape_of(spec)};
  return (double)lay_out(&tail) * sizeof(float);
}
