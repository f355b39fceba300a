/* One pass over a text by everything that reads it at the same weights: the model, the model corrected, either beside a
   cache. */
#include <math.h>
#include <string.h>

#include "kwm/tensor.h"
#include "language_stream.h"

struct pass {
  struct kwm_language_stream *stream;
  struct kwm_language_moving *moving;
  struct kwm_language_stream *probe;
  kwm_correct *correct;
  struct kwm_language_deep *deep; /* of an offset within the model; else NULL */
  struct kwm_language_cache *cache;
  float *facts; /* (context, own, FACTS) of the correction */
  struct kwm_language_sum *sums;
};

/* Surprisal of the window's tokens of stream s. */
static double total(const struct kwm_language_stream *stream, int64_t s, const float *facts) {
  double sum = 0;
  for (int64_t t = 0; t < stream->text.context; t++)
    sum += (double)facts[(t * stream->own + s) * KWM_TOKEN_FACTS + KWM_TOKEN_SURPRISAL];
  return sum;
}

/* The model's own predictions of the window at hand, and its states. */
static void plain_window(struct pass *pass, int64_t step) {
  struct kwm_language_stream *const stream = pass->stream;
  struct kwm_language_sum *const sum = &pass->sums[KWM_METHOD_PLAIN];
  const double started = kwm_par_seconds();
  if (pass->moving != NULL) {
    double reading[KWM_READ_SUMS];
    kwm_language_moving_score(pass->moving, reading);
    kwm_language_sum_window(sum, stream->first, step, reading[KWM_READ_SURPRISAL], reading[KWM_READ_ENTROPY]);
    sum->seconds += kwm_par_seconds() - started;
    return;
  }
  kwm_language_stream_read(stream);
  const double read = kwm_par_seconds();
  kwm_language_stream_score(stream);
  kwm_language_sum_facts(sum, stream, step, stream->facts);
  sum->seconds += kwm_par_seconds() - started;
  for (int k = KWM_METHOD_CORRECTED; k < KWM_METHODS; k++) pass->sums[k].seconds += read - started;
  pass->sums[KWM_METHOD_CACHE].seconds += kwm_par_seconds() - read;
}

static void corrected_window(struct pass *pass, int64_t step) {
  const struct kwm_language_stream *const stream = pass->stream;
  const double started = kwm_par_seconds();
  if (pass->correct == NULL) return;
  if (pass->deep != NULL) {
    kwm_language_deep_run(pass->deep, pass->correct, stream, pass->facts);
  } else {
    kwm_language_stream_fetch(pass->stream, pass->moving != NULL ? pass->correct : NULL);
    if (pass->moving != NULL) kwm_correct_moved(pass->correct);
    kwm_correct_run(pass->correct, stream->text.context, stream->turned, stream->aims, pass->facts);
  }
  kwm_language_sum_facts(&pass->sums[KWM_METHOD_CORRECTED], stream, step, pass->facts);
  pass->sums[KWM_METHOD_CORRECTED].seconds += kwm_par_seconds() - started;
  pass->sums[KWM_METHOD_CACHE_CORRECTED].seconds += kwm_par_seconds() - started;
}

static void mix(struct pass *pass, int method, int64_t step, const float *facts) {
  const struct kwm_language_stream *const stream = pass->stream;
  for (int64_t s = 0; s < stream->own; s++)
    kwm_language_sum_window(&pass->sums[method], stream->first + s, step,
                            kwm_language_cache_mix(pass->cache, stream, s, facts), 0);
}

static void cached_window(struct pass *pass, int64_t step) {
  const double started = kwm_par_seconds();
  if (pass->cache == NULL) return;
  kwm_language_cache_recall(pass->cache, pass->stream);
  mix(pass, KWM_METHOD_CACHE, step, pass->stream->facts);
  if (pass->correct != NULL) mix(pass, KWM_METHOD_CACHE_CORRECTED, step, pass->facts);
  pass->sums[KWM_METHOD_CACHE].seconds += kwm_par_seconds() - started;
  pass->sums[KWM_METHOD_CACHE_CORRECTED].seconds += kwm_par_seconds() - started;
}

/* The weights move after the window; a moving method with correction does all that one without does. */
static void move(struct pass *pass) {
  const double started = kwm_par_seconds();
  if (pass->moving == NULL) return;
  kwm_language_moving_move(pass->moving);
  kwm_device_wait(pass->stream->run->run->device);
  pass->sums[KWM_METHOD_PLAIN].seconds += kwm_par_seconds() - started;
}

/* first[at] of a method: more of the probe's window. */
static void add_first(struct pass *pass, int method, int64_t at, const float *facts) {
  const struct kwm_language_stream *const probe = pass->probe;
  const double tokens = (double)(probe->steps * probe->text.streams * probe->text.context);
  for (int64_t s = 0; s < probe->own; s++)
    kwm_language_sum_first(&pass->sums[method], probe->first + s, at, total(probe, s, facts) / tokens);
}

/* first[at] of the plain and the corrected method <- the mean surprisal of the probe's text at the weights as they are,
   an observer beginning anew. */
static kwm_status look_back(struct pass *pass, int64_t at) {
  struct kwm_language_stream *const probe = pass->probe;
  kwm_correct *correct = NULL;
  if (probe == NULL) return KWM_OK;
  probe->means = pass->stream->means;
  probe->copied = false;
  const kwm_status status = pass->correct != NULL ? kwm_language_stream_correct(probe, &correct) : KWM_OK;
  KWM_TRY(kwm_agree(probe->run->run->layout.world, status));
  for (int64_t step = 0; step < probe->steps; step++) {
    kwm_language_stream_take(probe, step);
    kwm_language_stream_read(probe);
    kwm_language_stream_score(probe);
    add_first(pass, KWM_METHOD_PLAIN, at, probe->facts);
    if (correct == NULL) continue;
    kwm_correct_run(correct, probe->text.context, probe->turned, probe->aims, probe->facts);
    add_first(pass, KWM_METHOD_CORRECTED, at, probe->facts);
  }
  kwm_correct_destroy(correct);
  return KWM_OK;
}

static kwm_status read_text(struct pass *pass) {
  struct kwm_language_stream *const stream = pass->stream;
  int domain = 0;
  KWM_TRY(look_back(pass, 0));
  for (int64_t step = 0; step < stream->steps; step++) {
    kwm_language_stream_take(stream, step);
    plain_window(pass, step);
    corrected_window(pass, step);
    cached_window(pass, step);
    move(pass);
    for (int k = 0; k < KWM_METHODS && step == 0 && stream->steps > 1; k++) pass->sums[k].seconds = 0;
    const int64_t next = (step + 1) * stream->text.context;
    while (domain < stream->domains.count && (step + 1 == stream->steps || next >= stream->domains.start[domain + 1]))
      KWM_TRY(look_back(pass, ++domain));
  }
  return KWM_OK;
}

static kwm_status open_pass(struct pass *pass) {
  struct kwm_language_stream *const stream = pass->stream;
  const struct kwm_config *const config = &stream->run->run->config;
  const bool corrects = strcmp(config->correction.kind, "off") != 0;
  const bool caches = pass->moving == NULL && strcmp(config->baseline.kind, "cache") == 0;
  const bool wanted[KWM_METHODS] = {true, corrects, caches, caches && corrects};
  for (int k = 0; k < KWM_METHODS; k++) KWM_TRY(kwm_language_sum_open(&pass->sums[k], stream, wanted[k]));
  if (corrects && config->correction.layer > 0)
    KWM_TRY(kwm_language_deep_create(&pass->deep, stream, &pass->correct));
  else if (corrects)
    KWM_TRY(kwm_language_stream_correct(stream, &pass->correct));
  if (caches) KWM_TRY(kwm_language_cache_create(&pass->cache, stream));
  return kwm_alloc((void **)&pass->facts,
                   (size_t)(stream->own * stream->text.context * KWM_TOKEN_FACTS) * sizeof *pass->facts, "facts");
}

/* This rank's costs, and what a method with correction shares with the one without. */
static void count_costs(struct pass *pass) {
  const struct kwm_language_stream *const stream = pass->stream;
  const struct kwm_transformer *const model = &stream->run->model;
  struct kwm_language_sum *const sums = pass->sums;
  const double y = kwm_language_stream_operations(model), read = 2 * (double)(model->types * model->width);
  const double moved = pass->moving != NULL ? kwm_language_moving_operations(pass->moving) : y;
  const double cached = pass->cache != NULL ? (double)model->width * kwm_language_cache_operations(pass->cache) : 0;
  const double held = pass->cache != NULL ? cached / 2 * sizeof(float) * (double)stream->own : 0;
  sums[KWM_METHOD_PLAIN].operations = pass->moving != NULL ? moved : y + read;
  sums[KWM_METHOD_PLAIN].bytes = pass->moving != NULL ? kwm_language_moving_bytes(pass->moving) : 0;
  sums[KWM_METHOD_CACHE].operations = y + read + cached;
  sums[KWM_METHOD_CACHE].bytes = held;
  if (pass->correct == NULL) return;
  const double deep = pass->deep != NULL ? kwm_language_deep_operations(pass->deep) : 0;
  sums[KWM_METHOD_CORRECTED].operations = moved + deep + kwm_correct_operations(pass->correct);
  sums[KWM_METHOD_CORRECTED].bytes = sums[KWM_METHOD_PLAIN].bytes +
                                     kwm_correct_bytes(kwm_correct_spec_of(pass->correct)) +
                                     (pass->deep != NULL ? kwm_language_deep_bytes(pass->deep) : 0);
  sums[KWM_METHOD_CORRECTED].facts = kwm_correct_facts(pass->correct);
  if (pass->moving != NULL) sums[KWM_METHOD_CORRECTED].seconds += sums[KWM_METHOD_PLAIN].seconds;
  sums[KWM_METHOD_CACHE_CORRECTED].operations = sums[KWM_METHOD_CORRECTED].operations + cached;
  sums[KWM_METHOD_CACHE_CORRECTED].bytes = sums[KWM_METHOD_CORRECTED].bytes + held;
}

kwm_status kwm_language_methods(struct kwm_language_stream *stream, struct kwm_language_moving *moving,
                                struct kwm_language_stream *probe, struct kwm_language_sum sums[KWM_METHODS]) {
  struct pass pass = {.stream = stream, .moving = moving, .probe = probe, .sums = sums};
  float *const *const before = stream->means;
  if (moving != NULL) stream->means = kwm_language_moving_means(moving);
  stream->moves = moving != NULL, stream->copied = false;
  kwm_language_share(stream->run->language, stream->means);
  kwm_status status = kwm_agree(stream->run->run->layout.world, open_pass(&pass));
  if (status == KWM_OK) status = read_text(&pass);
  if (status == KWM_OK) count_costs(&pass);
  for (int k = 0; k < KWM_METHODS && status == KWM_OK; k++) kwm_language_sum_ranks(&sums[k], stream);
  stream->means = before;
  kwm_correct_destroy(pass.correct);
  kwm_language_deep_destroy(pass.deep);
  kwm_language_cache_destroy(pass.cache);
  kwm_free(pass.facts);
  return status;
}
