/* Rows between the ranks of a pipe, those of one replica and owner, over links (kwm/link.h). Of R ranks: activations
   from each to the next, with the reverse sweep scores back, scores of the embedded tokens from the first to the last,
   and from there, on devices, the embedding. */
#include "language_state.h"

static int back_links(const struct kwm_language *language) {
  return language->model->stages == 1 ? language->ranks - 1 : 0;
}

/* The link by which rows of this kind leave (arrive on) this rank. */
static int link_of(const struct kwm_language *language, enum language_kind kind, bool leaves) {
  const int ahead = language->ranks - 1, r = language->rank;
  switch (kind) {
  case LANGUAGE_FORWARD: return leaves ? r : r - 1;
  case LANGUAGE_BACK: return ahead + (leaves ? r - 1 : r);
  default: return ahead + back_links(language);
  }
}

static int copy_link(const struct kwm_language *language, int to) {
  return link_of(language, LANGUAGE_EMBEDDED, true) + 1 + to;
}

int language_member(const struct kwm_language *language, int r) {
  return r * language->layout->owners + language->layout->owner;
}

static struct kwm_link_spec link_between(const struct kwm_language *language, int from, int to, int slots,
                                         int64_t floats) {
  return (struct kwm_link_spec){
      .from = language_member(language, from), .to = language_member(language, to), .slots = slots, .floats = floats};
}

int language_links(const struct kwm_language *language, bool on_device,
                   struct kwm_link_spec specs[LANGUAGE_LINKS_MAX]) {
  const int ahead = language->ranks - 1, slots = (int)language->micros;
  const int64_t rows = language->n * language->model->width, copy = language->model->types * language->model->width;
  int n = 0;
  for (int r = 0; r < ahead; r++) specs[n++] = link_between(language, r, r + 1, slots, rows);
  for (int r = 0; r < back_links(language); r++) specs[n++] = link_between(language, r + 1, r, slots, rows);
  if (ahead > 0) specs[n++] = link_between(language, 0, ahead, slots, rows);
  for (int r = 0; r < ahead && on_device; r++) specs[n++] = link_between(language, ahead, r, 1, copy);
  return n;
}

static double *counter(struct kwm_language *language, enum language_kind kind) {
  double *const counters[LANGUAGE_KINDS] = {&language->sent.forward, &language->sent.back, &language->sent.embedded};
  return counters[kind];
}

static struct kwm_link_part rows_of(const struct kwm_language *language, float *rows) {
  return (struct kwm_link_part){rows, language->n * language->model->width};
}

static struct kwm_link_part embedding_at(const struct kwm_language *language, float *at) {
  return (struct kwm_link_part){at, language->model->types * language->model->width};
}

void language_send(struct kwm_language *language, enum language_kind kind, float *rows) {
  const struct kwm_link_part part = rows_of(language, rows);
  kwm_link_send(language->links, link_of(language, kind, true), 1, &part);
  if (language->layout->owners > 1) kwm_links_drain(language->links); /* they wait for each other in other ways, too */
  *counter(language, kind) += (double)(language->n * language->model->width) * sizeof *rows;
}

void language_settle(struct kwm_language *language, enum language_kind kind) {
  kwm_link_settle(language->links, link_of(language, kind, true));
}

void language_receive(struct kwm_language *language, enum language_kind kind, float *rows) {
  const struct kwm_link_part part = rows_of(language, rows);
  kwm_link_receive(language->links, link_of(language, kind, false), 1, &part);
}

void language_flush(struct kwm_language *language) {
  kwm_links_drain(language->links);
}

void language_count_waits(struct kwm_language *language) {
  const struct kwm_links_waits waits = kwm_links_waited(language->links);
  language->idle += waits.device - waits.host;
}

const char *kwm_language_ways(const kwm_language *language) {
  return kwm_links_words(language->links);
}

double kwm_language_idle(const kwm_language *language) {
  return language->idle + language->layout->comm_seconds;
}

static bool holds_embedding(const struct kwm_language *language) {
  return language->rank == language->ranks - 1;
}

void kwm_language_share_begin(kwm_language *language, float *const *means) {
  if (!holds_embedding(language) || language->ranks == 1 || language->spec.device == NULL) return;
  const struct kwm_link_part part = embedding_at(language, means[KWM_TENSOR_EMBED]);
  for (int r = 0; r < language->ranks - 1; r++) kwm_link_send(language->links, copy_link(language, r), 1, &part);
  language->shares = true;
}

/* Over links, between devices. */
static void pass_copies(struct kwm_language *language, float *const *means) {
  if (!holds_embedding(language)) {
    const struct kwm_link_part part = embedding_at(language, language->copy);
    kwm_link_receive(language->links, copy_link(language, language->rank), 1, &part);
    return;
  }
  if (!language->shares) kwm_language_share_begin(language, means);
  for (int r = 0; r < language->ranks - 1; r++) kwm_link_settle(language->links, copy_link(language, r));
  language->shares = false;
  language_flush(language);
}

void kwm_language_share(kwm_language *language, float *const *means) {
  kwm_device *const device = language->spec.device;
  const size_t bytes = (size_t)(language->model->types * language->model->width) * sizeof(float);
  const bool holds = holds_embedding(language);
  if (holds && language->copy != NULL) kwm_device_copy(device, language->copy, means[KWM_TENSOR_EMBED], bytes);
  if (language->ranks == 1) return;
  if (holds) language->sent.copies += (double)bytes * (language->ranks - 1);
  if (device != NULL)
    pass_copies(language, means);
  else
    kwm_par_broadcast_group(language->layout, (language->ranks - 1) * language->layout->owners,
                            holds ? means[KWM_TENSOR_EMBED] : language->copy, (int64_t)bytes);
}

bool kwm_language_share_due(const kwm_language *language, int64_t steps) {
  return steps % language->spec.copy_every == 0;
}
