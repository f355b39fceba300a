/* Private to pipe/language*.c: what a rank of the language model's pipe holds. */
#pragma once

#include "kwm/language.h"
#include "kwm/link.h"

enum language_kind { LANGUAGE_FORWARD, LANGUAGE_BACK, LANGUAGE_EMBEDDED, LANGUAGE_KINDS };

/* Rows of one micro-batch that are read at once: bounds the logits. */
enum { LANGUAGE_ROWS = 2048 };

/* One micro-batch on its way through this rank's layers. */
struct language_slot {
  struct kwm_layer_kept *kept; /* (layers) owned */
  float **x;                   /* (layers + 1): inputs of the layers, and what leaves the last; owned */
};

struct kwm_language {
  struct kwm_layout *layout;
  const struct kwm_transformer *model;
  struct kwm_language_spec spec;
  struct kwm_language_place place;
  int rank, ranks;         /* of the layout's stages: where this rank stands in its pipe */
  int64_t worker, workers; /* of those that run this stage on sequences of their own: all owners of all replicas */
  int first_layer, layers, first_stage, stages; /* here */
  int64_t micros, n, rows;                      /* micro-batches here, rows of one, rows read at once */
  struct kwm_sublayer shape;
  int n_slots, depth; /* micro-batches kept at once, layers kept of each */
  struct language_slot *slots;
  float *memory; /* the device's; owned: all of the following up to the next blank line */
  struct kwm_sublayer_room room;
  float *s, *y, *inv, *logits, *facts; /* (n, width), (n, width), (n), (rows, types), (stages, micros n, FACTS) */
  float *copy; /* (types, width): the embedding for all but the last stage's reading; NULL: it is here */

  int32_t *numbers;                  /* the device's, owned: */
  int32_t *ids, *targets;            /* (n) each */
  int32_t *kinds, *begin, *places;   /* (n), (n + 1), (n) */
  float *host_facts;                 /* as facts; owned */
  int32_t *host_begin, *host_kinds;  /* (n + 1), (n); owned */
  int32_t *host_places, *host_order; /* (n), (types); owned */
  int32_t *padded;                   /* (2, n): ids and targets of windows; owned */
  kwm_links *links;                  /* owned; NULL: one rank alone */
  bool shares;                       /* the embedding is on its way to its copies */
  struct kwm_language_traffic sent;
  double idle; /* seconds of waiting for messages, less what the host waited for them */
};

/* language_memory.c: sizes from layout, model and spec; then the memory. */
kwm_status language_measure(struct kwm_language *language);
kwm_status language_allocate(struct kwm_language *language);
int64_t language_floats(const struct kwm_language *language);

/* language_messages.c: rows (n, width) of one micro-batch after the other. What was sent may be changed after settle;
   flush: all of it is on its way. links: all of a pipe, at most LANGUAGE_LINKS_MAX. member: the pipe's r-th rank in the
   replica's group. */
enum { LANGUAGE_LINKS_MAX = 3 * KWM_TRANSFORMER_LAYERS_MAX + 1 };
int language_member(const struct kwm_language *language, int r);
int language_links(const struct kwm_language *language, bool on_device, struct kwm_link_spec specs[LANGUAGE_LINKS_MAX]);
void language_send(struct kwm_language *language, enum language_kind kind, float *rows);
void language_settle(struct kwm_language *language, enum language_kind kind);
void language_receive(struct kwm_language *language, enum language_kind kind, float *rows);
void language_flush(struct kwm_language *language);
void language_count_waits(struct kwm_language *language); /* after a wait for the device */

/* language_pass.c: micro-batch j of a step, or windows. `sink` NULL: nothing is learned, nothing dropped. */
struct language_pass {
  float *const *means;
  const struct kwm_language_batch *batch;
  const struct kwm_sink *sink;
};
/* Tokens of micro-batch j to the device. */
void language_tokens(struct kwm_language *language, const int32_t *ids, const int32_t *targets);
/* Where sequence 0 of micro-batch j is in the step's. */
int64_t language_sequence(const struct kwm_language *language, int64_t j);
void language_input(struct kwm_language *language, const struct language_pass *pass, int64_t j, float *x);
/* Layers [first, end) of the model, the slot's arrays counting from `first`. */
void language_forward(struct kwm_language *language, const struct language_pass *pass, int64_t j,
                      const struct language_slot *slot, int first, int end);
void language_adjoint(struct kwm_language *language, const struct language_pass *pass, int64_t j,
                      const struct language_slot *slot, int first, int end);
/* Reads stage's prediction from x; with a sink, s <- the score of x. Facts of micro-batch j. */
void language_read(struct kwm_language *language, const struct language_pass *pass, int64_t j, int stage,
                   const float *x);
/* The score s of the embedded tokens: to positions, and to whoever holds the embedding. */
void language_embedded(struct kwm_language *language, const struct language_pass *pass, int64_t j);
/* rows (n, width) of micro-batch j -> sums for each token in the embedding's score. */
void language_gather(struct kwm_language *language, const struct language_pass *pass, int64_t j, const float *rows);
