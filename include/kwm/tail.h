/* The layers of a transformer after one of them, on one rank: what an offset on that layer's output does to what is
   read, and the score of what is read with respect to it. Windows are there as a whole; an offset may change from token
   to token, and what attention keeps of earlier tokens has the offsets that these had. Local. Arrays are where the
   device says unless they are the host's. */
#pragma once

#include "kwm/device.h"
#include "kwm/transformer.h"

struct kwm_tail_spec {
  kwm_device *device;                  /* borrowed; NULL: host */
  const struct kwm_transformer *model; /* borrowed */
  int64_t sequences;
  int layer; /* 1 to layers: whose output is offset; `layers`: what the last norm reads */
};

typedef struct kwm_tail kwm_tail;

kwm_status kwm_tail_create(kwm_tail **tail, const struct kwm_tail_spec *spec);
void kwm_tail_destroy(kwm_tail *tail); /* accepts NULL */

/* The layer's output for the host's ids (sequences, context); the host's targets (sequences, context) are kept, and the
   means borrowed until the next open. */
void kwm_tail_open(kwm_tail *tail, float *const *means, const int32_t *ids, const int32_t *targets);

/* From token `first` of each sequence on, its output is the layer's plus offsets (sequences, width). */
void kwm_tail_offset(kwm_tail *tail, int64_t first, const float *offsets);

/* The host's facts (n, sequences, KWM_TOKEN_FACTS) <- of tokens [first, first + n) of each sequence. rows (sequences,
   groups, width) <- the score of all of them with respect to the output at the tokens of each group, summed over these;
   token t belongs to group t groups / n. The sum over the groups is the derivative with respect to an offset that all
   of the n tokens have. */
void kwm_tail_read(kwm_tail *tail, int64_t first, int64_t n, float *facts, int64_t groups, float *rows);

/* Operations of one read with its score, and bytes kept. */
double kwm_tail_operations(const struct kwm_tail_spec *spec, int64_t n);
double kwm_tail_bytes(const struct kwm_tail_spec *spec);
