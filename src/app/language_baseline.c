/* What a correction of activations is compared with. cache: Grave, Joulin, Usunier 2017: p = (1 - share) model + share
   cache, the cache weighing each of the last tokens by exp(theta yᵀy_i). dynamic: Krause, Kahembwe, Murray, Renals 2018
   in its SGD form: all weights follow a window's mean gradient after the window is scored, and are drawn back to the
   trained ones; all streams share the moving weights, and a segment is a whole window. */
#include <math.h>
#include <string.h>

#include "kwm/backend.h"
#include "language_stream.h"

/* The last tokens of every stream, in a ring. */
struct cache {
  int64_t size, kept, at; /* kept: so far, at most size; at: where the next goes */
  float *y;               /* (streams, size, width) */
  int32_t *tokens;        /* (streams, size): what came after y */
  float *weights;         /* (size) */
  double *surprisal;      /* (streams): the model's of a token */
  kwm_correct *correct;   /* what corrects the model; NULL: nothing */
};

/* The cache's probability of `token` after y. */
static double recall(struct cache *cache, int64_t s, int64_t d, float theta, const float *y, int32_t token) {
  const int32_t *const tokens = cache->tokens + s * cache->size;
  double all = 0, its = 0;
  float top = -INFINITY;
  kwm_gemm(false, true, 1, cache->kept, d, theta, y, d, cache->y + s * cache->size * d, d, 0, cache->weights,
           cache->kept);
  for (int64_t k = 0; k < cache->kept; k++) top = fmaxf(top, cache->weights[k]);
  for (int64_t k = 0; k < cache->kept; k++) {
    const double weight = exp((double)(cache->weights[k] - top));
    all += weight;
    if (tokens[k] == token) its += weight;
  }
  return its / all;
}

static void cache_token(struct kwm_language_stream *stream, struct cache *cache, int64_t t,
                        struct kwm_language_sum *sum) {
  const struct kwm_config *const config = &stream->run->run->config;
  const int64_t streams = stream->text.streams, d = stream->run->model.width;
  const double share = cache->kept > 0 ? config->baseline.share : 0;
  for (int64_t s = 0; s < streams; s++) {
    const float *const y = stream->turned + (t * streams + s) * d;
    const double p = exp(-cache->surprisal[s]);
    const double q = share > 0 ? recall(cache, s, d, (float)config->baseline.theta, y, stream->now[s]) : 0;
    sum->surprisal -= log((1 - share) * p + share * q);
    memcpy(cache->y + (s * cache->size + cache->at) * d, y, (size_t)d * sizeof *y);
    cache->tokens[s * cache->size + cache->at] = stream->now[s];
  }
  cache->at = (cache->at + 1) % cache->size;
  if (cache->kept < cache->size) cache->kept++;
}

/* Surprisals by the model at place t, corrected or not. */
static void model_token(struct kwm_language_stream *stream, struct cache *cache, int64_t t) {
  const int64_t streams = stream->text.streams, context = stream->text.context, v = stream->run->model.types;
  const int64_t block = kwm_language_stream_block(stream), at = t % block, d = stream->run->model.width;
  float *const logits = stream->logits + at * streams * v;
  kwm_language_stream_now(stream, t);
  if (cache->correct != NULL) {
    const struct kwm_correct_input input = {.y = stream->turned + t * streams * d, .ld = d};
    kwm_correct_step(cache->correct, &input, stream->now, cache->surprisal);
    return;
  }
  if (at == 0) kwm_language_stream_logits(stream, t, context - t < block ? context - t : block);
  kwm_tensor_host.categorical(NULL, streams, v, v, stream->now, false, logits, stream->facts);
  for (int64_t s = 0; s < streams; s++) cache->surprisal[s] = stream->facts[s * KWM_TOKEN_FACTS + KWM_TOKEN_SURPRISAL];
}

static kwm_status open_cache(struct kwm_language_stream *stream, struct cache *cache, bool corrected) {
  const int64_t streams = stream->text.streams, d = stream->run->model.width;
  KWM_TRY(kwm_alloc((void **)&cache->y, (size_t)(streams * cache->size * d) * sizeof *cache->y, "cache"));
  KWM_TRY(kwm_alloc((void **)&cache->tokens, (size_t)(streams * cache->size) * sizeof *cache->tokens, "cache"));
  KWM_TRY(kwm_alloc((void **)&cache->weights, (size_t)cache->size * sizeof *cache->weights, "cache"));
  KWM_TRY(kwm_alloc((void **)&cache->surprisal, (size_t)streams * sizeof *cache->surprisal, "cache"));
  if (!corrected) return KWM_OK;
  double *often;
  KWM_TRY(kwm_language_often(stream->run, &often));
  const struct kwm_correct_spec spec = kwm_language_correct_spec(stream->run, streams, stream->W, often);
  const kwm_status status = kwm_correct_create(&cache->correct, &spec);
  kwm_free(often);
  return status;
}

kwm_status kwm_language_cache(struct kwm_language_stream *stream, bool corrected, struct kwm_language_sum *sum) {
  const struct kwm_transformer *const model = &stream->run->model;
  const struct kwm_correct_spec spec = kwm_language_correct_spec(stream->run, stream->text.streams, stream->W, NULL);
  struct cache cache = {.size = stream->run->run->config.baseline.window};
  const double read = corrected ? kwm_correct_operations(&spec) : 2 * (double)(model->width * model->types);
  *sum = (struct kwm_language_sum){.tokens = stream->steps * stream->text.streams * stream->text.context};
  sum->operations = kwm_language_stream_operations(model) + read + 2 * (double)(model->width * cache.size);
  const kwm_status status = open_cache(stream, &cache, corrected);
  const double started = kwm_par_seconds();
  for (int64_t step = 0; step < stream->steps && status == KWM_OK; step++) {
    kwm_language_stream_read(stream, step);
    for (int64_t t = 0; t < stream->text.context; t++) {
      model_token(stream, &cache, t);
      cache_token(stream, &cache, t, sum);
    }
  }
  sum->seconds = kwm_par_seconds() - started;
  kwm_free(cache.y);
  kwm_free(cache.tokens);
  kwm_free(cache.weights);
  kwm_free(cache.surprisal);
  kwm_correct_destroy(cache.correct);
  return status;
}

/* Weights that move, and the scores of a window; where the device says. */
struct moving {
  kwm_device *device;
  float *mean[KWM_TENSORS_MAX], *score[KWM_TENSORS_MAX];
};

static void take_matrix(void *context, int t, int64_t n, int64_t d_o, int64_t d_i, const float *s, const float *a) {
  struct moving *const moving = context;
  kwm_device_gemm(moving->device, true, false, d_o, d_i, n, 1, s, d_o, a, d_i, 1, moving->score[t], d_i);
}

static float *take_vector(void *context, int t) {
  return ((struct moving *)context)->score[t];
}

static void take_reading(void *context, int t, int64_t n, const float *y) {
  (void)context, (void)t, (void)n, (void)y;
}

static int64_t size_of(const struct kwm_transformer *model, int t) {
  return model->tensors[t].rows * model->tensors[t].columns;
}

static kwm_status open_moving(struct moving *moving, const struct kwm_language_stream *stream) {
  const struct kwm_transformer *const model = &stream->run->model;
  for (int t = 0; t < model->n_tensors; t++) {
    const size_t bytes = (size_t)size_of(model, t) * sizeof(float);
    KWM_TRY(kwm_device_alloc(moving->device, (void **)&moving->mean[t], bytes, "moving weights"));
    KWM_TRY(kwm_device_alloc(moving->device, (void **)&moving->score[t], bytes, "moving weights"));
    kwm_device_copy(moving->device, moving->mean[t], stream->means[t], bytes);
  }
  return KWM_OK;
}

static void move(struct moving *moving, const struct kwm_language_stream *stream) {
  const struct kwm_config *const config = &stream->run->run->config;
  const struct kwm_transformer *const model = &stream->run->model;
  const struct kwm_tensor_ops *const ops = kwm_tensor_of(moving->device);
  const float pull = (float)config->baseline.pull;
  const float rate = (float)(config->baseline.rate / (double)(stream->text.streams * stream->text.context));
  for (int t = 0; t < model->n_tensors; t++) {
    const int64_t n = size_of(model, t);
    ops->drift(moving->device, n, 1, rate, moving->score[t], moving->mean[t]);
    if (pull > 0) ops->drift(moving->device, n, 1 - pull, pull, stream->means[t], moving->mean[t]);
    kwm_device_zero(moving->device, moving->score[t], (size_t)n * sizeof(float));
  }
}

kwm_status kwm_language_dynamic(struct kwm_language_stream *stream, struct kwm_language_sum *sum) {
  const struct kwm_transformer *const model = &stream->run->model;
  const int64_t rows = stream->text.streams * stream->text.context;
  struct moving moving = {.device = stream->run->run->device};
  const struct kwm_sink sink = {
      .context = &moving, .matrix = take_matrix, .vector = take_vector, .reading = take_reading};
  *sum = (struct kwm_language_sum){.tokens = stream->steps * rows};
  const kwm_status status = open_moving(&moving, stream);
  if (status == KWM_OK)
    for (int t = 0; t < model->n_tensors; t++)
      kwm_device_zero(moving.device, moving.score[t], (size_t)size_of(model, t) * sizeof(float));
  const double started = kwm_par_seconds();
  for (int64_t step = 0; step < stream->steps && status == KWM_OK; step++) {
    const struct kwm_language_batch batch = {.ids = stream->inputs, .targets = stream->targets};
    struct kwm_reading reading;
    kwm_streams_batch(&stream->text, step, 0, stream->text.streams, stream->inputs, stream->targets);
    kwm_language_share(stream->run->language, moving.mean);
    kwm_language_step(stream->run->language, moving.mean, &batch, &sink, &reading);
    sum->surprisal += reading.of[model->stages - 1][KWM_READ_SURPRISAL];
    move(&moving, stream);
  }
  kwm_device_wait(moving.device);
  sum->seconds = kwm_par_seconds() - started;
  sum->operations = 3 * (kwm_language_stream_operations(model) + 2 * (double)(model->types * model->width)) +
                    4 * (double)kwm_transformer_parameters(model) / (double)rows;
  for (int t = 0; t < model->n_tensors; t++) {
    kwm_device_free(moving.device, moving.mean[t]);
    kwm_device_free(moving.device, moving.score[t]);
  }
  kwm_language_share(stream->run->language, stream->means);
  return status;
}
