/* Private to app: a text read as parallel streams by a trained language model, for what learns while it reads:
   correction of activations, neural cache, moving weights. Every method scores the same tokens. Each rank has the whole
   model and some of the streams; what streams share is summed over ranks. Collective over the layout where it says. */
#pragma once

#include "kwm/correct.h"
#include "kwm/shift.h"
#include "language_run.h"

struct kwm_language_stream {
  struct kwm_language_run *run; /* borrowed */
  float *const *means;          /* borrowed: the weights that read, which may move */
  struct kwm_text_streams text;
  int64_t steps;                 /* windows of every stream */
  int64_t first, own;            /* streams [first, first + own) are this rank's */
  int32_t *shifted;              /* (2, n): inputs, targets; owned */
  int32_t *batch;                /* (2, ranks own, context): of one step, of which this rank's are */
  int32_t *inputs, *targets;     /* (own, context) of it; borrowed */
  int32_t *aims;                 /* (context, own): its targets, time by time; owned */
  float *y, *turned;             /* (own, context, width), (context, own, width); owned */
  float *facts, *W;              /* (context, own, FACTS); (types, width): a device's read-out; owned */
  int64_t reads;                 /* rows that are read at once */
  float *rows, *room, *E;        /* what is read at once; (types, width), padded: the read-out as it was copied */
  int32_t *row_targets;          /* all where the device says; owned */
  float *row_facts, *host_facts; /* (own, context, FACTS), where the device says, and here; owned */
  bool moves, copied;            /* the means may be others with every window; E is of them as they are */
  struct kwm_shared shared;      /* over ranks; unused by one alone */
  struct kwm_shift_counts counts;
  struct kwm_shift_facts words;
  struct kwm_domains domains; /* stream.kind topics; else count 0 */
};

enum { KWM_LANGUAGE_BINS = 15 };

/* What a method made of the text. Sums of each stream by itself, this rank's until kwm_language_sum_ranks, then of all
   streams together, in their order: the same bits on any number of ranks. */
struct kwm_language_sum {
  double surprisal, entropy;      /* summed */
  double seconds;                 /* this rank's without the first window, in which a device gets its kernels; then
                                     the slowest one's */
  double operations, bytes;       /* a token; kept beside weights and states; then of all ranks together */
  int64_t tokens, timed;          /* of all ranks; of the seconds */
  int64_t n;                      /* numbers of a part */
  double *parts;                  /* (streams, n); owned. Of the first, which ends with all of them: */
  double *curve;                  /* (steps, 2) surprisal and entropy of each window */
  double *count, *sure, *hit;     /* (BINS) by the largest probability */
  double *first;                  /* (domains + 1) mean surprisal of the first domain's held-out text, before all
                                     and after each */
  struct kwm_correct_facts facts; /* of a correction */
};

/* language_sum.c: nothing yet; tokens 0 unless wanted. `stream`: its number in the text. window, first: more of a
   window, of first[at]; facts: of a window (context, own, FACTS). ranks: collective. close accepts a zeroed one. */
kwm_status kwm_language_sum_open(struct kwm_language_sum *sum, const struct kwm_language_stream *stream, bool wanted);
void kwm_language_sum_close(struct kwm_language_sum *sum);
void kwm_language_sum_window(struct kwm_language_sum *sum, int64_t stream, int64_t step, double surprisal,
                             double entropy);
void kwm_language_sum_facts(struct kwm_language_sum *sum, const struct kwm_language_stream *stream, int64_t step,
                            const float *facts);
void kwm_language_sum_first(struct kwm_language_sum *sum, int64_t stream, int64_t at, double surprisal);
void kwm_language_sum_ranks(struct kwm_language_sum *sum, const struct kwm_language_stream *stream);

/* True if the configuration asks for any of it. Then kwm_language_stream_fit, before the layout: a step is a window of
   each of `streams` streams, which ranks divide as owners, and nothing is dropped; divide: this rank's share, after the
   layout. KWM_ERR_USAGE: more ranks than streams. Local. */
bool kwm_language_stream_is(const struct kwm_config *config);
kwm_status kwm_language_stream_fit(struct kwm_config *config, int64_t streams);
void kwm_language_stream_divide(struct kwm_language_run *run, int64_t streams);

/* Collective. A text, shifted, or by topics in all of its documents or, `first`, in those of the first topic alone.
   KWM_ERR_USAGE: a text too short. fini accepts a zeroed one. */
kwm_status kwm_language_stream_init(struct kwm_language_stream *stream, struct kwm_language_run *run,
                                    const struct kwm_tokens *tokens, bool first);
void kwm_language_stream_fini(struct kwm_language_stream *stream);

/* All ranks' rows of a step, of which this rank's are there. */
struct kwm_language_batch kwm_language_stream_batch(const struct kwm_language_stream *stream);
/* inputs, targets, aims of one step; y and turned, by the means. turn: from y, which somebody else filled. */
void kwm_language_stream_take(struct kwm_language_stream *stream, int64_t step);
void kwm_language_stream_read(struct kwm_language_stream *stream);
void kwm_language_stream_turn(struct kwm_language_stream *stream);
/* facts of the window <- as the means predict. */
void kwm_language_stream_score(struct kwm_language_stream *stream);

/* Operations of a token up to y. */
double kwm_language_stream_operations(const struct kwm_transformer *model);

/* language_correct.c: the observer's settings at the stream's means. often: (types) or NULL. fetch: W anew, if the
   observer works on the host and the weights on a device. */
struct kwm_correct_spec kwm_language_correct_spec(const struct kwm_language_run *run, int64_t streams, const float *W,
                                                  const double *often);
kwm_status kwm_language_stream_correct(struct kwm_language_stream *stream, kwm_correct **correct);
void kwm_language_stream_fetch(struct kwm_language_stream *stream, const kwm_correct *correct);
/* *often (types; kwm_free) <- how often each word comes in the training text. */
kwm_status kwm_language_often(const struct kwm_language_run *run, double **often);

/* language_deep.c: an offset on the output of correction.layer. KWM_ERR_USAGE: there is no such layer. run: the window
   at hand, block by block; facts (context, streams, FACTS). operations: of a token. */
struct kwm_language_deep;
kwm_status kwm_language_deep_create(struct kwm_language_deep **deep, const struct kwm_language_stream *stream,
                                    kwm_correct **correct);
void kwm_language_deep_destroy(struct kwm_language_deep *deep); /* accepts NULL */
void kwm_language_deep_run(struct kwm_language_deep *deep, kwm_correct *correct,
                           const struct kwm_language_stream *stream, float *facts);
double kwm_language_deep_operations(const struct kwm_language_deep *deep);
double kwm_language_deep_bytes(const struct kwm_language_deep *deep);

/* language_cache.c: the last tokens of every stream. mix: sum, of this rank's stream s and surprisals
   facts[KWM_TOKEN_SURPRISAL], with the cache's recall (context, streams) of a window, which recall fills and then
   remembers. */
struct kwm_language_cache;
kwm_status kwm_language_cache_create(struct kwm_language_cache **cache, const struct kwm_language_stream *stream);
void kwm_language_cache_destroy(struct kwm_language_cache *cache); /* accepts NULL */
void kwm_language_cache_recall(struct kwm_language_cache *cache, const struct kwm_language_stream *stream);
double kwm_language_cache_mix(const struct kwm_language_cache *cache, const struct kwm_language_stream *stream,
                              int64_t s, const float *facts);
double kwm_language_cache_operations(const struct kwm_language_cache *cache);

/* language_moving.c: weights that move while they read. step: a window scored by them, its states to stream->y, then
   they move; *reading <- its sums. */
struct kwm_language_moving;
kwm_status kwm_language_moving_create(struct kwm_language_moving **moving, struct kwm_language_stream *stream);
void kwm_language_moving_destroy(struct kwm_language_moving *moving); /* accepts NULL */
float *const *kwm_language_moving_means(const struct kwm_language_moving *moving);
void kwm_language_moving_score(struct kwm_language_moving *moving, double reading[KWM_READ_SUMS]);
void kwm_language_moving_move(struct kwm_language_moving *moving);
double kwm_language_moving_operations(const struct kwm_language_moving *moving);
double kwm_language_moving_bytes(const struct kwm_language_moving *moving);

/* language_method.c: collective; all methods that share one pass over the text, by standing weights or (moving not
   NULL) by those. sums: plain, corrected, cache, cache_corrected; tokens 0: not asked for. probe: held-out text of the
   first domain, or NULL. */
enum { KWM_METHOD_PLAIN, KWM_METHOD_CORRECTED, KWM_METHOD_CACHE, KWM_METHOD_CACHE_CORRECTED, KWM_METHODS };
kwm_status kwm_language_methods(struct kwm_language_stream *stream, struct kwm_language_moving *moving,
                                struct kwm_language_stream *probe, struct kwm_language_sum sums[KWM_METHODS]);

/* Collective. All that the configuration asks for, printed by rank 0. */
kwm_status kwm_language_stream_eval(struct kwm_language_run *run);
