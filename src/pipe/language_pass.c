/* What one micro-batch does on one rank. */
#include "language_state.h"

#include <string.h>

/* Sites of dropout: the embedded tokens, then two a layer, then the stages' readings. */
enum { EMBEDDED = 0, FIRST_LAYER = 1 };

static struct kwm_dropout dropout_at(const struct kwm_language *language, const struct language_pass *pass, int64_t j,
                                     uint32_t site, double rate) {
  return (struct kwm_dropout){.seed = language->spec.seed,
                              .step = pass->sink != NULL ? pass->batch->step : 0,
                              .site = site,
                              .first = language_sequence(language, j) * language->model->context,
                              .rate = pass->sink != NULL ? (float)rate : 0};
}

static struct kwm_dropout layer_dropout(const struct kwm_language *language, const struct language_pass *pass,
                                        int64_t j, int layer) {
  return dropout_at(language, pass, j, (uint32_t)(FIRST_LAYER + 2 * layer), language->model->dropout);
}

static struct kwm_dropout embedded_dropout(const struct kwm_language *language, const struct language_pass *pass,
                                           int64_t j) {
  return dropout_at(language, pass, j, EMBEDDED, language->model->dropout_embedding);
}

static const float *embedding_of(const struct kwm_language *language, const struct language_pass *pass) {
  return language->copy != NULL ? language->copy : pass->means[KWM_TENSOR_EMBED];
}

int64_t language_sequence(const struct kwm_language *language, int64_t j) {
  return (language->worker * language->micros + j) * language->shape.a.sequences;
}

void language_tokens(struct kwm_language *language, const int32_t *ids, const int32_t *targets) {
  const size_t bytes = (size_t)language->n * sizeof *ids;
  kwm_device_put(language->spec.device, language->ids, ids, bytes);
  kwm_device_put(language->spec.device, language->targets, targets, bytes);
}

void language_input(struct kwm_language *language, const struct language_pass *pass, int64_t j, float *x) {
  if (language->rank > 0) {
    language_receive(language, LANGUAGE_FORWARD, x);
    return;
  }
  const struct kwm_dropout drop = embedded_dropout(language, pass, j);
  kwm_tensor_of(language->spec.device)
      ->embed(language->spec.device, language->n, language->model->width, language->model->context, language->ids,
              embedding_of(language, pass), pass->means[KWM_TENSOR_POSITION], &drop, x);
}

static struct kwm_layer_means means_of(const struct language_pass *pass, int layer) {
  float *const *const m = pass->means + kwm_transformer_tensor(layer, KWM_LAYER_NORM_A);
  return (struct kwm_layer_means){m[KWM_LAYER_NORM_A], m[KWM_LAYER_QKV], m[KWM_LAYER_MIX],
                                  m[KWM_LAYER_NORM_F], m[KWM_LAYER_UP],  m[KWM_LAYER_DOWN]};
}

void language_forward(struct kwm_language *language, const struct language_pass *pass, int64_t j,
                      const struct language_slot *slot, int first, int end) {
  for (int layer = first; layer < end; layer++) {
    const struct kwm_layer_means means = means_of(pass, layer);
    const struct kwm_dropout drop = layer_dropout(language, pass, j, layer);
    const int k = layer - first;
    kwm_layer_forward(&language->shape, &means, &drop, slot->x[k], &slot->kept[k], &language->room, slot->x[k + 1]);
  }
}

void language_adjoint(struct kwm_language *language, const struct language_pass *pass, int64_t j,
                      const struct language_slot *slot, int first, int end) {
  for (int layer = end - 1; layer >= first; layer--) {
    const struct kwm_layer_means means = means_of(pass, layer);
    const struct kwm_dropout drop = layer_dropout(language, pass, j, layer);
    const int k = layer - first;
    kwm_layer_adjoint(&language->shape, &means, &drop, slot->x[k], &slot->kept[k], &language->room,
                      kwm_transformer_tensor(layer, KWM_LAYER_NORM_A), pass->sink, language->s);
  }
}

/* Rows [from, from + n) of the normed x: logits, innovation, and the score of those rows. */
static void read_rows(struct kwm_language *language, const struct language_pass *pass, int stage, int64_t from,
                      int64_t n, float *facts) {
  const int64_t d = language->model->width;
  const struct kwm_sink *const sink = pass->sink;
  const bool learns = sink != NULL, corrects = learns && stage == language->model->stages - 1;
  const struct kwm_read read = {.n = n,
                                .classes = language->model->types,
                                .width = d,
                                .y = language->y + from * d,
                                .E = stage == language->model->stages - 1 ? pass->means[KWM_TENSOR_EMBED]
                                                                          : embedding_of(language, pass),
                                .targets = language->targets + from,
                                .facts = facts + from * KWM_TOKEN_FACTS,
                                .sy = learns ? language->room.narrow + from * d : NULL,
                                .sE = corrects ? sink->vector(sink->context, KWM_TENSOR_EMBED) : NULL,
                                .half = language->spec.half,
                                .room = language->logits};
  kwm_tensor_of(language->spec.device)->read(language->spec.device, &read);
  if (corrects) sink->reading(sink->context, KWM_TENSOR_EMBED, n, read.y);
}

void language_read(struct kwm_language *language, const struct language_pass *pass, int64_t j, int stage,
                   const float *x) {
  kwm_device *const device = language->spec.device;
  const struct kwm_tensor_ops *const ops = kwm_tensor_of(device);
  const int64_t n = language->n, d = language->model->width, rows = language->rows;
  const int norm = kwm_transformer_readout(language->model, stage);
  float *const facts = language->facts + ((stage - language->first_stage) * language->micros + j) * n * KWM_TOKEN_FACTS;
  const struct kwm_dropout drop =
      dropout_at(language, pass, j, (uint32_t)(FIRST_LAYER + 2 * language->model->layers + stage),
                 language->model->dropout_readout);
  ops->norm(device, n, d, x, pass->means[norm], language->y, language->inv);
  if (drop.rate > 0) ops->residual(device, n, d, &drop, NULL, language->y, language->y);
  for (int64_t from = 0; from < n; from += rows)
    read_rows(language, pass, stage, from, n - from < rows ? n - from : rows, facts);
  if (pass->sink == NULL) return;
  if (drop.rate > 0) ops->residual(device, n, d, &drop, NULL, language->room.narrow, language->room.narrow);
  ops->norm_adjoint(device, n, d, x, pass->means[norm], language->inv, language->room.narrow, NULL, language->s,
                    pass->sink->vector(pass->sink->context, norm), language->room.norm);
}

/* Places of each token, token by token: a counting sort. */
static int64_t sort_places(struct kwm_language *language, const int32_t *ids) {
  int32_t *const count = language->host_order;
  int64_t kinds = 0;
  memset(count, 0, (size_t)language->model->types * sizeof *count);
  for (int64_t r = 0; r < language->n; r++) count[ids[r]]++;
  int32_t at = 0;
  for (int64_t t = 0; t < language->model->types; t++) {
    if (count[t] == 0) continue;
    language->host_kinds[kinds] = (int32_t)t;
    language->host_begin[kinds++] = at;
    at += count[t];
    count[t] = at - count[t];
  }
  language->host_begin[kinds] = at;
  for (int32_t r = 0; r < (int32_t)language->n; r++) language->host_places[count[ids[r]]++] = r;
  return kinds;
}

void language_gather(struct kwm_language *language, const struct language_pass *pass, int64_t j, const float *rows) {
  kwm_device *const device = language->spec.device;
  const int32_t *const ids = pass->batch->ids + language_sequence(language, j) * language->model->context;
  const int64_t n = language->n, kinds = sort_places(language, ids);
  kwm_device_put(device, language->kinds, language->host_kinds, (size_t)kinds * sizeof(int32_t));
  kwm_device_put(device, language->begin, language->host_begin, (size_t)(kinds + 1) * sizeof(int32_t));
  kwm_device_put(device, language->places, language->host_places, (size_t)n * sizeof(int32_t));
  const struct kwm_gather gather = {
      .count = kinds, .n = n, .kinds = language->kinds, .begin = language->begin, .places = language->places};
  kwm_tensor_of(device)->gather(device, language->model->width, &gather, rows,
                                pass->sink->vector(pass->sink->context, KWM_TENSOR_EMBED));
}

void language_embedded(struct kwm_language *language, const struct language_pass *pass, int64_t j) {
  kwm_device *const device = language->spec.device;
  const struct kwm_tensor_ops *const ops = kwm_tensor_of(device);
  const int64_t n = language->n, d = language->model->width;
  const struct kwm_dropout drop = embedded_dropout(language, pass, j);
  if (drop.rate > 0) ops->residual(device, n, d, &drop, NULL, language->s, language->s);
  ops->fold(device, n, d, language->model->context, language->s,
            pass->sink->vector(pass->sink->context, KWM_TENSOR_POSITION));
  if (language->rank == language->ranks - 1)
    language_gather(language, pass, j, language->s);
  else
    language_send(language, LANGUAGE_EMBEDDED, language->s);
}
