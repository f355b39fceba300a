/* What the language model's pipe holds, and how much that is. */
#include <stdlib.h>
#include <string.h>

#include "language_state.h"

static int64_t padded(int64_t floats) {
  return (floats + 63) / 64 * 64;
}

/* Layers of the largest stage on this rank. */
static int largest_stage(const struct kwm_language *language) {
  int most = 0;
  for (int s = language->first_stage; s < language->first_stage + language->stages; s++) {
    const int layers = kwm_transformer_first(language->model, s + 1) - kwm_transformer_first(language->model, s);
    most = layers > most ? layers : most;
  }
  return most;
}

static void measure_place(struct kwm_language *language) {
  const struct kwm_language_place *const place = &language->place;
  const int r = language->rank;
  language->first_layer = place->first_layer[r];
  language->layers = place->first_layer[r + 1] - language->first_layer;
  language->first_stage = place->first_stage[r];
  language->stages = place->first_stage[r + 1] - language->first_stage;
  const bool adjoint = language->model->stages == 1;
  const int64_t behind = language->ranks - r;
  language->n_slots = (int)(!adjoint ? 1 : behind < language->micros ? behind : language->micros);
  language->depth = adjoint ? language->layers : largest_stage(language);
}

kwm_status language_measure(struct kwm_language *language) {
  const struct kwm_transformer *const model = language->model;
  const struct kwm_language_spec *const spec = &language->spec;
  const struct kwm_layout *const layout = language->layout;
  language->worker = (int64_t)layout->replica * layout->owners + layout->owner;
  language->workers = (int64_t)layout->replicas * layout->owners;
  KWM_CHECK(spec->batch % spec->micro == 0 && spec->micro % language->workers == 0, KWM_ERR_USAGE,
            "config: wanted train.chunks to divide train.batch %lld, and layout.owners times .replicas, %lld, to "
            "divide it, found %lld",
            (long long)spec->batch, (long long)language->workers, (long long)spec->micro);
  KWM_TRY(kwm_language_spread(&language->place, model, spec->reading, language->ranks));
  language->micros = spec->micro / language->workers;
  const int64_t sequences = spec->batch / spec->micro;
  language->n = sequences * model->context;
  language->rows = language->n < LANGUAGE_ROWS ? language->n : LANGUAGE_ROWS;
  language->shape = (struct kwm_sublayer){.device = spec->device,
                                          .a = {.sequences = sequences,
                                                .context = model->context,
                                                .heads = model->heads,
                                                .size = model->width / model->heads},
                                          .n = language->n,
                                          .width = model->width,
                                          .inner = model->ratio * model->width};
  measure_place(language);
  return KWM_OK;
}

static int64_t wide_columns(const struct kwm_transformer *model) {
  return (model->ratio > 3 ? model->ratio : 3) * model->width;
}

/* Rows of facts; prediction reads one micro-batch. */
static int64_t facts_floats(const struct kwm_language *language) {
  return (int64_t)language->stages * language->micros * language->n * KWM_TOKEN_FACTS;
}

/* The pieces of `memory`, in order. */
enum { WIDE, NARROW, OTHER, NORM, SCORE, NORMED, INVERSE, LOGITS, FACTS, COPY, PIECES };

static void pieces_of(const struct kwm_language *language, int64_t pieces[PIECES]) {
  const struct kwm_transformer *const model = language->model;
  const int64_t n = language->n, d = model->width;
  const bool reads = language->stages > 0, holds = language->rank == language->ranks - 1;
  const int64_t floats[PIECES] = {
      [WIDE] = n * wide_columns(model),
      [NARROW] = n * d,
      [OTHER] = n * d,
      [NORM] = kwm_tensor_norm_scratch(n, d),
      [SCORE] = n * d,
      [NORMED] = reads ? n * d : 0,
      [INVERSE] = reads ? n : 0,
      [LOGITS] = reads ? kwm_tensor_read_room(language->rows, model->types, d, language->spec.half) : 0,
      [FACTS] = facts_floats(language),
      [COPY] = holds && language->spec.copy_every == 1 ? 0 : model->types * d};
  for (int k = 0; k < PIECES; k++) pieces[k] = padded(floats[k]);
}

static int64_t slot_floats(const struct kwm_language *language) {
  return language->depth * kwm_layer_kept_floats(&language->shape) +
         (language->depth + 1) * padded(language->n * language->model->width);
}

int64_t language_floats(const struct kwm_language *language) {
  int64_t pieces[PIECES], sum = language->n_slots * slot_floats(language);
  pieces_of(language, pieces);
  for (int k = 0; k < PIECES; k++) sum += pieces[k];
  return sum;
}

static kwm_status allocate_slots(struct kwm_language *language, float *at) {
  const int64_t kept = kwm_layer_kept_floats(&language->shape), row = padded(language->n * language->model->width);
  KWM_TRY(kwm_alloc((void **)&language->slots, (size_t)language->n_slots * sizeof *language->slots, "slots"));
  for (int k = 0; k < language->n_slots; k++) {
    struct language_slot *const slot = &language->slots[k];
    KWM_TRY(kwm_alloc((void **)&slot->kept, (size_t)language->depth * sizeof *slot->kept, "layers"));
    KWM_TRY(kwm_alloc((void **)&slot->x, (size_t)(language->depth + 1) * sizeof *slot->x, "layers"));
    for (int l = 0; l < language->depth; l++, at += kept) slot->kept[l] = kwm_layer_keep(&language->shape, at);
    for (int l = 0; l <= language->depth; l++, at += row) slot->x[l] = at;
  }
  return KWM_OK;
}

static void set_pieces(struct kwm_language *language, float *at) {
  int64_t pieces[PIECES];
  float *pointer[PIECES];
  pieces_of(language, pieces);
  for (int k = 0; k < PIECES; k++) pointer[k] = pieces[k] > 0 ? at : NULL, at += pieces[k];
  language->room = (struct kwm_sublayer_room){pointer[WIDE], pointer[NARROW], pointer[OTHER], pointer[NORM]};
  language->s = pointer[SCORE];
  language->y = pointer[NORMED];
  language->inv = pointer[INVERSE];
  language->logits = pointer[LOGITS];
  language->facts = pointer[FACTS];
  language->copy = pointer[COPY];
}

static kwm_status allocate_host(struct kwm_language *language) {
  const int64_t n = language->n, types = language->model->types;
  const size_t number = sizeof(int32_t);
  KWM_TRY(kwm_alloc((void **)&language->host_facts, (size_t)facts_floats(language) * sizeof(float), "facts"));
  KWM_TRY(kwm_alloc((void **)&language->host_begin, (size_t)(n + 1) * number, "tokens"));
  KWM_TRY(kwm_alloc((void **)&language->host_kinds, (size_t)n * number, "tokens"));
  KWM_TRY(kwm_alloc((void **)&language->host_places, (size_t)n * number, "tokens"));
  KWM_TRY(kwm_alloc((void **)&language->host_order, (size_t)types * number, "tokens"));
  return kwm_alloc((void **)&language->padded, (size_t)(2 * n) * number, "tokens");
}

kwm_status language_allocate(struct kwm_language *language) {
  kwm_device *const device = language->spec.device;
  const int64_t n = language->n;
  KWM_TRY(kwm_device_alloc(device, (void **)&language->memory, (size_t)language_floats(language) * sizeof(float),
                           "activations"));
  KWM_TRY(kwm_device_alloc(device, (void **)&language->numbers, (size_t)(5 * n + 1) * sizeof(int32_t), "tokens"));
  set_pieces(language, language->memory + language->n_slots * slot_floats(language));
  language->ids = language->numbers;
  language->targets = language->ids + n;
  language->kinds = language->targets + n;
  language->places = language->kinds + n;
  language->begin = language->places + n;
  KWM_TRY(allocate_slots(language, language->memory));
  return allocate_host(language);
}

/* status: how this rank fared before. Collective over the layout. */
static kwm_status open_links(struct kwm_language *language, kwm_status status) {
  struct kwm_link_spec specs[LANGUAGE_LINKS_MAX];
  KWM_TRY(kwm_agree(language->layout->world, status));
  const int n = language_links(language, language->spec.device != NULL, specs);
  return kwm_links_open(&language->links, language->layout, language->spec.device, language->spec.direct, n, specs);
}

kwm_status kwm_language_create(kwm_language **language, struct kwm_layout *layout, const struct kwm_transformer *model,
                               const struct kwm_language_spec *spec) {
  kwm_language *made;
  *language = NULL;
  KWM_TRY(kwm_alloc((void **)&made, sizeof *made, "language model"));
  *made = (struct kwm_language){
      .layout = layout, .model = model, .spec = *spec, .rank = layout->stage, .ranks = layout->stages};
  kwm_status status = language_measure(made);
  if (status == KWM_OK) status = language_allocate(made);
  if (layout->stages > 1) status = open_links(made, status);
  if (status == KWM_OK)
    *language = made;
  else
    kwm_language_destroy(made);
  return status;
}

void kwm_language_destroy(kwm_language *language) {
  if (language == NULL) return;
  kwm_links_close(language->links);
  for (int k = 0; language->slots != NULL && k < language->n_slots; k++) {
    kwm_free(language->slots[k].kept);
    kwm_free(language->slots[k].x);
  }
  kwm_free(language->slots);
  kwm_device_free(language->spec.device, language->memory);
  kwm_device_free(language->spec.device, language->numbers);
  kwm_free(language->host_facts);
  kwm_free(language->host_begin);
  kwm_free(language->host_kinds);
  kwm_free(language->host_places);
  kwm_free(language->host_order);
  kwm_free(language->padded);
  kwm_free(language);
}

/* What allocate_host takes. */
static double host_bytes(const struct kwm_language *language, bool on_device) {
  const double n = (double)language->n, types = (double)language->model->types;
  const double numbers = 6 * n + types;
  const double floats = (double)facts_floats(language);
  struct kwm_link_spec specs[LANGUAGE_LINKS_MAX];
  const struct kwm_link_bytes links = kwm_links_bytes(language_member(language, language->rank), on_device,
                                                      language_links(language, on_device, specs), specs);
  return (floats + numbers) * sizeof(float) + links.host;
}

struct kwm_language_bytes kwm_language_pipe_bytes(const struct kwm_transformer *model,
                                                  const struct kwm_language_spec *spec, const struct kwm_layout *at,
                                                  bool on_device) {
  struct kwm_layout layout = *at;
  struct kwm_language language = {
      .layout = &layout, .model = model, .spec = *spec, .rank = at->stage, .ranks = at->stages};
  if (language_measure(&language) != KWM_OK) return (struct kwm_language_bytes){0};
  struct kwm_link_spec specs[LANGUAGE_LINKS_MAX];
  const struct kwm_link_bytes links = kwm_links_bytes(language_member(&language, language.rank), on_device,
                                                      language_links(&language, on_device, specs), specs);
  const double arrays = (double)(language_floats(&language) + 5 * language.n + 1) * sizeof(float);
  return (struct kwm_language_bytes){.arrays = arrays + links.device, .host = host_bytes(&language, on_device)};
}
