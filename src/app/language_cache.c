/* Neural cache (Grave, Joulin, Usunier 2017): p = (1 - share) model + share cache, the cache weighing each of the last
   tokens by exp(theta yᵀy_i). */
#include <math.h>
#include <string.h>

#include "kwm/backend.h"
#include "kwm/tensor.h"
#include "language_stream.h"

struct kwm_language_cache {
  int64_t size, kept, at; /* kept: so far, at most size; at: where the next goes */
  double theta, share;
  float *y;        /* (own, size, width), a ring */
  int32_t *tokens; /* (own, size): what came after y */
  float *weights;  /* (size) */
  double *recalls; /* (context, own): the cache's probability of a window's tokens; -1: it was empty */
};

kwm_status kwm_language_cache_create(struct kwm_language_cache **cache, const struct kwm_language_stream *stream) {
  const struct kwm_config *const config = &stream->run->run->config;
  const int64_t own = stream->own, d = stream->run->model.width, size = config->baseline.window;
  KWM_TRY(kwm_alloc((void **)cache, sizeof **cache, "cache"));
  struct kwm_language_cache *const made = *cache;
  made->size = size, made->theta = config->baseline.theta, made->share = config->baseline.share;
  KWM_TRY(kwm_alloc((void **)&made->y, (size_t)(own * size * d) * sizeof *made->y, "cache"));
  KWM_TRY(kwm_alloc((void **)&made->tokens, (size_t)(own * size) * sizeof *made->tokens, "cache"));
  KWM_TRY(kwm_alloc((void **)&made->weights, (size_t)size * sizeof *made->weights, "cache"));
  return kwm_alloc((void **)&made->recalls, (size_t)(own * stream->text.context) * sizeof *made->recalls, "cache");
}

void kwm_language_cache_destroy(struct kwm_language_cache *cache) {
  if (cache == NULL) return;
  kwm_free(cache->y);
  kwm_free(cache->tokens);
  kwm_free(cache->weights);
  kwm_free(cache->recalls);
  kwm_free(cache);
}

static double recall(struct kwm_language_cache *cache, int64_t s, int64_t d, const float *y, int32_t token) {
  const int32_t *const tokens = cache->tokens + s * cache->size;
  double all = 0, its = 0;
  float top = -INFINITY;
  kwm_gemm(false, true, 1, cache->kept, d, (float)cache->theta, y, d, cache->y + s * cache->size * d, d, 0,
           cache->weights, cache->kept);
  for (int64_t k = 0; k < cache->kept; k++) top = fmaxf(top, cache->weights[k]);
  for (int64_t k = 0; k < cache->kept; k++) {
    const double weight = exp((double)(cache->weights[k] - top));
    all += weight;
    if (tokens[k] == token) its += weight;
  }
  return its / all;
}

void kwm_language_cache_recall(struct kwm_language_cache *cache, const struct kwm_language_stream *stream) {
  const int64_t own = stream->own, d = stream->run->model.width;
  for (int64_t t = 0; t < stream->text.context; t++) {
    for (int64_t s = 0; s < own; s++) {
      const int64_t at = t * own + s, to = s * cache->size + cache->at;
      const float *const y = stream->turned + at * d;
      cache->recalls[at] = cache->kept > 0 ? recall(cache, s, d, y, stream->aims[at]) : -1;
      memcpy(cache->y + to * d, y, (size_t)d * sizeof *y);
      cache->tokens[to] = stream->aims[at];
    }
    cache->at = (cache->at + 1) % cache->size;
    if (cache->kept < cache->size) cache->kept++;
  }
}

double kwm_language_cache_mix(const struct kwm_language_cache *cache, const struct kwm_language_stream *stream,
                              int64_t s, const float *facts) {
  double sum = 0;
  for (int64_t t = 0; t < stream->text.context; t++) {
    const int64_t at = t * stream->own + s;
    const double p = exp(-(double)facts[at * KWM_TOKEN_FACTS + KWM_TOKEN_SURPRISAL]);
    const double share = cache->recalls[at] >= 0 ? cache->share : 0;
    sum -= log((1 - share) * p + share * cache->recalls[at]);
  }
  return sum;
}

double kwm_language_cache_operations(const struct kwm_language_cache *cache) {
  return 2 * (double)cache->size;
}
