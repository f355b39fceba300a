/* Schedules of the language model's pipe: one step, and prediction. */
#include "kwm/language.h"

#include <math.h>
#include <string.h>

#include "kwm/tokens.h"
#include "language_state.h"

static void put_micro(struct kwm_language *language, const struct kwm_language_batch *batch, int64_t j) {
  const int64_t at = language_sequence(language, j) * language->model->context;
  language_tokens(language, batch->ids + at, batch->targets + at);
}

static float *leaving(const struct language_slot *slot, int layers) {
  return slot->x[layers];
}

/* What was sent lies where the next activations (scores) will be. */
static void settle_activations(struct kwm_language *language) {
  if (language->rank < language->ranks - 1) language_settle(language, LANGUAGE_FORWARD);
}

static void settle_scores(struct kwm_language *language) {
  if (language->rank > 0 && language->model->stages == 1) language_settle(language, LANGUAGE_BACK);
  if (language->rank == 0 && language->ranks > 1) language_settle(language, LANGUAGE_EMBEDDED);
}

/* sensitivity stage: each stage here learns from its own reading before the next one begins; the next rank gets its
   input before that. */
static void stage_micro(struct kwm_language *language, const struct language_pass *pass, int64_t j) {
  const struct language_slot *const slot = &language->slots[0];
  const bool last = language->rank == language->ranks - 1;
  settle_activations(language);
  put_micro(language, pass->batch, j);
  language_input(language, pass, j, slot->x[0]);
  for (int s = language->first_stage; s < language->first_stage + language->stages; s++) {
    const int first = kwm_transformer_first(language->model, s), end = kwm_transformer_first(language->model, s + 1);
    language_forward(language, pass, j, slot, first, end);
    if (s + 1 == language->first_stage + language->stages && !last)
      language_send(language, LANGUAGE_FORWARD, leaving(slot, end - first));
    settle_scores(language);
    language_read(language, pass, j, s, leaving(slot, end - first));
    language_adjoint(language, pass, j, slot, first, end);
    if (s == 0) language_embedded(language, pass, j);
    kwm_device_copy(language->spec.device, slot->x[0], leaving(slot, end - first),
                    (size_t)(language->n * language->model->width) * sizeof(float));
  }
}

/* sensitivity adjoint: forward of micro-batch j through this rank's layers, the last rank's reading included. */
static void forward_micro(struct kwm_language *language, const struct language_pass *pass, int64_t j) {
  const struct language_slot *const slot = &language->slots[j % language->n_slots];
  settle_activations(language);
  put_micro(language, pass->batch, j);
  language_input(language, pass, j, slot->x[0]);
  language_forward(language, pass, j, slot, language->first_layer, language->first_layer + language->layers);
  if (language->rank < language->ranks - 1) language_send(language, LANGUAGE_FORWARD, leaving(slot, language->layers));
  if (language->rank < language->ranks - 1) return;
  settle_scores(language);
  language_read(language, pass, j, 0, leaving(slot, language->layers));
}

static void backward_micro(struct kwm_language *language, const struct language_pass *pass, int64_t j) {
  const struct language_slot *const slot = &language->slots[j % language->n_slots];
  settle_scores(language);
  if (language->rank < language->ranks - 1) language_receive(language, LANGUAGE_BACK, language->s);
  language_adjoint(language, pass, j, slot, language->first_layer, language->first_layer + language->layers);
  if (language->rank > 0)
    language_send(language, LANGUAGE_BACK, language->s);
  else
    language_embedded(language, pass, j);
}

/* One forward, one backward, after as many forwards as there are ranks behind this one. */
static void adjoint_step(struct kwm_language *language, const struct language_pass *pass) {
  const int64_t micros = language->micros, ahead = language->n_slots - 1;
  for (int64_t j = 0; j < micros + ahead; j++) {
    if (j < micros) forward_micro(language, pass, j);
    if (j >= ahead) backward_micro(language, pass, j - ahead);
  }
}

/* The last rank: scores of the embedded tokens from the first one. */
static void receive_embedded(struct kwm_language *language, const struct language_pass *pass) {
  if (language->ranks == 1 || language->rank < language->ranks - 1) return;
  settle_scores(language);
  for (int64_t j = 0; j < language->micros; j++) {
    language_receive(language, LANGUAGE_EMBEDDED, language->s);
    language_gather(language, pass, j, language->s);
  }
}

static void add_token(double of[KWM_READ_SUMS], const float *facts) {
  of[KWM_READ_TOKENS]++;
  of[KWM_READ_SURPRISAL] += facts[KWM_TOKEN_SURPRISAL];
  of[KWM_READ_ENTROPY] += facts[KWM_TOKEN_ENTROPY];
  of[KWM_READ_SQUARED] += 1 - 2 * exp(-facts[KWM_TOKEN_SURPRISAL]) + facts[KWM_TOKEN_SQUARES];
  of[KWM_READ_EXPECTED] += 1 - facts[KWM_TOKEN_SQUARES];
  of[KWM_READ_CORRECT] += facts[KWM_TOKEN_CORRECT];
}

/* Facts (stages here, tokens, FACTS) to the host. */
static void fetch_facts(struct kwm_language *language) {
  const int64_t floats = language->stages * language->micros * language->n * KWM_TOKEN_FACTS;
  kwm_device_get(language->spec.device, language->host_facts, language->facts, (size_t)floats * sizeof(float));
}

void kwm_language_step(kwm_language *language, float *const *means, const struct kwm_language_batch *batch,
                       const struct kwm_sink *sink, struct kwm_reading *reading) {
  const struct language_pass pass = {.means = means, .batch = batch, .sink = sink};
  memset(reading, 0, sizeof *reading);
  if (language->model->stages > 1)
    for (int64_t j = 0; j < language->micros; j++) stage_micro(language, &pass, j);
  else
    adjoint_step(language, &pass);
  receive_embedded(language, &pass);
  language_flush(language);
  kwm_device_wait(language->spec.device);
  language_count_waits(language);
  if (language->stages == 0) return;
  fetch_facts(language);
  const int64_t tokens = language->micros * language->n;
  for (int s = 0; s < language->stages; s++)
    for (int64_t r = 0; r < tokens; r++)
      add_token(reading->of[language->first_stage + s], language->host_facts + (s * tokens + r) * KWM_TOKEN_FACTS);
}

/* Windows [first, first + sequences) of ids (n); where there is no target, token 0, whose facts nobody reads. */
static void pad_windows(struct kwm_language *language, int64_t n, const int32_t *ids, int64_t first) {
  int32_t *const inputs = language->padded, *const targets = inputs + language->n;
  const struct kwm_text_streams text = {.ids = ids, .n = n, .streams = 1, .context = language->model->context};
  kwm_windows_batch(&text, first, 1, language->shape.a.sequences, inputs, targets);
  for (int64_t r = 0; r < language->n; r++)
    if (targets[r] == KWM_NO_TARGET) targets[r] = 0;
}

static void predict_windows(struct kwm_language *language, const struct language_pass *pass, int64_t from, int64_t n,
                            double *surprisal) {
  const struct language_slot *const slot = &language->slots[0];
  settle_activations(language);
  language_tokens(language, language->padded, language->padded + language->n);
  language_input(language, pass, 0, slot->x[0]);
  for (int layer = language->first_layer; layer < language->first_layer + language->layers; layer++) {
    language_forward(language, pass, 0, slot, layer, layer + 1);
    kwm_device_copy(language->spec.device, slot->x[0], slot->x[1],
                    (size_t)(language->n * language->model->width) * sizeof(float));
    for (int s = language->first_stage; s < language->first_stage + language->stages; s++)
      if (kwm_transformer_first(language->model, s + 1) == layer + 1) language_read(language, pass, 0, s, slot->x[0]);
  }
  if (language->rank < language->ranks - 1) language_send(language, LANGUAGE_FORWARD, slot->x[0]);
  if (language->stages > 0) fetch_facts(language);
  for (int s = 0; s < language->stages; s++)
    for (int64_t r = 0; r < language->n && from + r + 1 < n; r++)
      surprisal[(language->first_stage + s) * (n - 1) + from + r] =
          language->host_facts[(s * language->micros * language->n + r) * KWM_TOKEN_FACTS + KWM_TOKEN_SURPRISAL];
  language_flush(language);
}

void kwm_language_predict(kwm_language *language, float *const *means, int64_t n, const int32_t *ids,
                          double *surprisal) {
  const struct language_pass pass = {.means = means};
  const int64_t context = language->model->context, sequences = language->shape.a.sequences;
  const int64_t windows = kwm_windows_count(n, context);
  memset(surprisal, 0, (size_t)(language->model->stages * (n - 1)) * sizeof *surprisal);
  for (int64_t first = language->worker * sequences; first < windows; first += language->workers * sequences) {
    pad_windows(language, n, ids, first);
    predict_windows(language, &pass, first * context, n, surprisal);
  }
  kwm_device_wait(language->spec.device);
  language_count_waits(language);
  kwm_par_sum_world(language->layout, language->model->stages * (n - 1), surprisal);
}

static void states_of_windows(struct kwm_language *language, const struct language_pass *pass, int64_t rows, float *y) {
  const struct kwm_transformer *const model = language->model;
  kwm_device *const device = language->spec.device;
  const struct language_slot *const slot = &language->slots[0];
  settle_activations(language);
  language_tokens(language, language->padded, language->padded + language->n);
  language_input(language, pass, 0, slot->x[0]);
  for (int layer = language->first_layer; layer < language->first_layer + language->layers; layer++) {
    language_forward(language, pass, 0, slot, layer, layer + 1);
    kwm_device_copy(device, slot->x[0], slot->x[1], (size_t)(language->n * model->width) * sizeof(float));
  }
  if (language->rank < language->ranks - 1) {
    language_send(language, LANGUAGE_FORWARD, slot->x[0]);
  } else {
    const float *const scale = pass->means[kwm_transformer_readout(model, model->stages - 1)];
    kwm_tensor_of(device)->norm(device, language->n, model->width, slot->x[0], scale, language->y, language->inv);
    kwm_device_get(device, y, language->y, (size_t)(rows * model->width) * sizeof(float));
  }
  language_flush(language);
}

void kwm_language_states(kwm_language *language, float *const *means, int64_t n, const int32_t *ids, float *y) {
  const struct language_pass pass = {.means = means};
  int32_t *const inputs = language->padded;
  memset(inputs, 0, (size_t)(2 * language->n) * sizeof *inputs);
  for (int64_t from = 0; from < n; from += language->n) {
    const int64_t rows = n - from < language->n ? n - from : language->n;
    memset(inputs, 0, (size_t)language->n * sizeof *inputs);
    memcpy(inputs, ids + from, (size_t)rows * sizeof *inputs);
    states_of_windows(language, &pass, rows, y + from * language->model->width);
  }
}

const struct kwm_language_place *kwm_language_places(const kwm_language *language) {
  return &language->place;
}

struct kwm_language_traffic kwm_language_sent(const kwm_language *language) {
  return language->sent;
}
