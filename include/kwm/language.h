/* The pipe of the language model: which rank holds which layers, and how one step's tokens pass through the ranks of a
   replica, micro-batch after micro-batch.

   Activations go forward by non-blocking messages. sensitivity stage: each stage reads its own prediction, carries the
   score back through its own layers at once, and is done with the micro-batch: nothing comes back over a stage's
   boundary, and nothing is kept beyond one stage and one micro-batch. adjoint: scores come back through all ranks, one
   forward and one backward in turn; rank r of R keeps the activations of up to R - r micro-batches. The score of the
   embedded tokens goes from the first rank to the last, which owns the embedding; all but the last stage's reading use
   a copy of it, sent anew after every correction or, so that nobody waits for the last rank, after several; one rank
   alone does the same. Ranks: layout.stages of them hold consecutive layers; the owners of a stage, of all replicas,
   take other sequences of the step, each a pipe of its own with the same owner of the other stages. */
#pragma once

#include "kwm/par.h"
#include "kwm/sublayer.h"
#include "kwm/transformer.h"

typedef struct kwm_language kwm_language;

struct kwm_language_spec {
  int64_t batch;      /* sequences of a step over all ranks of a stage */
  int64_t micro;      /* micro-batches of a step over all ranks of a stage; divides batch, their number divides it */
  uint64_t seed;      /* of what is dropped */
  int64_t copy_every; /* steps after which the embedding's copies are sent anew */
  bool half;          /* cuda: predictions are read in 16 bits (kwm/tensor.h, kwm_read) */
  double reading;     /* what an operation of a reading costs, in those of a layer: for where layers go */
  bool direct;        /* messages from device to device where that can be (kwm/link.h) */
  kwm_device *device; /* borrowed: where means and activations are; NULL: host */
};

/* Which rank of a replica holds what. */
struct kwm_language_place {
  int ranks;
  int first_layer[KWM_TRANSFORMER_LAYERS_MAX + 1], first_stage[KWM_TRANSFORMER_LAYERS_MAX + 1]; /* (ranks + 1) */
};

/* Stages and layers spread over `ranks`, whole stages if there are several, so that ranks have alike to compute; a
   layer with the reading counts for what it costs. KWM_ERR_USAGE: more ranks than that. */
kwm_status kwm_language_spread(struct kwm_language_place *place, const struct kwm_transformer *model, double reading,
                               int ranks);
/* The stage of the layout whose ranks hold tensor t, correct it and write it. */
int kwm_language_holder(const struct kwm_language_place *place, const struct kwm_transformer *model, int t);

/* Collective over the layout. Layout and model are borrowed. KWM_ERR_USAGE: micro-batches that do not divide. */
kwm_status kwm_language_create(kwm_language **language, struct kwm_layout *layout, const struct kwm_transformer *model,
                               const struct kwm_language_spec *spec);
void kwm_language_destroy(kwm_language *language); /* accepts NULL */
const struct kwm_language_place *kwm_language_places(const kwm_language *language);

/* Memory of a rank. arrays: on the device, or on the host if there is none; host: beside them, on the host; stored: of
   the arrays, what this rank writes into a checkpoint. */
struct kwm_language_bytes {
  double arrays, host, stored;
};
/* What create takes on the rank that is at->stage of at->stages, at->owners and at->replicas. Local. */
struct kwm_language_bytes kwm_language_pipe_bytes(const struct kwm_transformer *model,
                                                  const struct kwm_language_spec *spec, const struct kwm_layout *at,
                                                  bool on_device);

/* Sums over a stage's tokens. Squared innovation |y - p|² and its expectation 1 - sum p² (their ratio is the NIS of a
   categorical, kwm/lin.h). */
enum {
  KWM_READ_TOKENS,
  KWM_READ_SURPRISAL,
  KWM_READ_ENTROPY,
  KWM_READ_SQUARED,
  KWM_READ_EXPECTED,
  KWM_READ_CORRECT,
  KWM_READ_SUMS
};
struct kwm_reading {
  double of[KWM_TRANSFORMER_STAGES_MAX][KWM_READ_SUMS];
};

/* One step's tokens, the same on all ranks: ids and targets (batch, context). */
struct kwm_language_batch {
  const int32_t *ids, *targets;
  uint64_t step; /* keys what is dropped */
};

/* Collective over the replica's group: forward and back for this pipe's sequences at the means (n_tensors pointers,
   where the device says, NULL for what is not held). What tensors see goes to the sink. reading <- sums over this
   rank's stages and its pipe's tokens, 0 elsewhere. Waits for the device at its end. */
void kwm_language_step(kwm_language *language, float *const *means, const struct kwm_language_batch *batch,
                       const struct kwm_sink *sink, struct kwm_reading *reading);

/* Collective over the replica's group: the embedding's copies <- its holder's mean. begin: its holder may call it
   before, once the mean is what will be shared, so that it is on its way while others are corrected. due: after so many
   steps. */
void kwm_language_share_begin(kwm_language *language, float *const *means);
void kwm_language_share(kwm_language *language, float *const *means);
bool kwm_language_share_due(const kwm_language *language, int64_t steps);

/* Collective over world: surprisal (stages, n - 1) <- that of tokens ids[1 .. n) in windows of `context` that do not
   overlap, by each stage's reading; the same on all ranks. Nothing is dropped. */
void kwm_language_predict(kwm_language *language, float *const *means, int64_t n, const int32_t *ids,
                          double *surprisal);

/* Collective over the replica's group: y (n, width), on the host of its last stage's ranks, <- what the last stage
   reads the token after ids[i] from, i in [0, n), in windows of `context` that do not overlap. Nothing is dropped;
   every pipe does all of it. */
void kwm_language_states(kwm_language *language, float *const *means, int64_t n, const int32_t *ids, float *y);

/* Bytes that this rank sent since create, by kind. */
struct kwm_language_traffic {
  double forward, back, embedded, copies;
};
struct kwm_language_traffic kwm_language_sent(const kwm_language *language);
/* In words, how this rank's messages go: static storage, empty for one rank alone. Local. */
const char *kwm_language_ways(const kwm_language *language);
/* Seconds since create for which this rank had nothing to compute: its device waited for messages, or its host, with
   nothing left to compute, for other ranks. */
double kwm_language_idle(const kwm_language *language);
