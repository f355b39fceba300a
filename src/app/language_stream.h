/* Private to app: a text read as parallel streams by a trained language model on one rank, for what learns while it
   reads: correction of activations, neural cache, dynamic evaluation. Every method scores the same tokens. */
#pragma once

#include "kwm/correct.h"
#include "kwm/shift.h"
#include "language_run.h"

struct kwm_language_stream {
  struct kwm_language_run *run; /* borrowed */
  float *const *means;          /* borrowed */
  const float *W;               /* (types, width) on the host: the read-out; fetched, if the means are a device's */
  struct kwm_text_streams text;
  int64_t steps;              /* windows of every stream */
  int32_t *shifted;           /* (2, n): inputs, targets; owned */
  int32_t *inputs, *targets;  /* (streams, context) of one step; owned */
  int32_t *now;               /* (streams): targets of one token of each; owned */
  float *y, *turned, *logits; /* (streams, context, width), (context, streams, width), rows of logits; owned */
  float *facts, *fetched;     /* owned */
  struct kwm_shift_counts counts;
  struct kwm_shift_facts words;
};

/* What a method made of the text. */
struct kwm_language_sum {
  double surprisal, seconds, operations; /* summed; summed; a token */
  int64_t tokens;
  struct kwm_correct_facts facts; /* of a correction */
};

/* True if the configuration asks for any of it. Then kwm_language_stream_fit, before the layout: a step is a window of
   each of `streams` streams, and nothing is dropped. KWM_ERR_USAGE: more than one rank. */
bool kwm_language_stream_is(const struct kwm_config *config);
kwm_status kwm_language_stream_fit(struct kwm_config *config, int64_t streams);

/* KWM_ERR_USAGE: a text too short. fini accepts a zeroed one. */
kwm_status kwm_language_stream_init(struct kwm_language_stream *stream, struct kwm_language_run *run);
void kwm_language_stream_fini(struct kwm_language_stream *stream);

/* inputs, targets, y and turned of one step. */
void kwm_language_stream_read(struct kwm_language_stream *stream, int64_t step);

/* Time steps of a window whose logits are worked out at once: rows [t * streams, ...) of `turned` -> logits. */
int64_t kwm_language_stream_block(const struct kwm_language_stream *stream);
void kwm_language_stream_logits(struct kwm_language_stream *stream, int64_t t, int64_t count);
/* now <- each stream's target at place t of the window */
void kwm_language_stream_now(struct kwm_language_stream *stream, int64_t t);

/* Operations of a token up to y. */
double kwm_language_stream_operations(const struct kwm_transformer *model);

/* The observer's settings. often: (types) or NULL. */
struct kwm_correct_spec kwm_language_correct_spec(const struct kwm_language_run *run, int64_t streams, const float *W,
                                                  const double *often);
/* *often (types; kwm_free) <- how often each word comes in the training text. */
kwm_status kwm_language_often(const struct kwm_language_run *run, double **often);

/* The methods. */
kwm_status kwm_language_static(struct kwm_language_stream *stream, struct kwm_language_sum *sum);
kwm_status kwm_language_corrected(struct kwm_language_stream *stream, struct kwm_language_sum *sum);
/* corrected: the model's part of the mixture is */
kwm_status kwm_language_cache(struct kwm_language_stream *stream, bool corrected, struct kwm_language_sum *sum);
kwm_status kwm_language_dynamic(struct kwm_language_stream *stream, struct kwm_language_sum *sum);

/* All that the configuration asks for, printed. */
kwm_status kwm_language_stream_eval(struct kwm_language_run *run);
