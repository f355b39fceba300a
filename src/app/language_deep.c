/* An offset on the output of one layer: later layers see it, and so do the attention caches of the tokens to come. */
#include "kwm/tail.h"
#include "kwm/tensor.h"
#include "language_stream.h"

struct kwm_language_deep {
  kwm_tail *tail;
  struct kwm_tail_spec spec;
  int64_t every;
};

static kwm_status open_correct(const struct kwm_language_stream *stream, kwm_correct **correct) {
  struct kwm_correct_spec spec = kwm_language_correct_spec(stream->run, stream->own, NULL, NULL);
  spec.outside = true;
  spec.device = stream->run->run->device;
  return kwm_correct_create(correct, &spec);
}

kwm_status kwm_language_deep_create(struct kwm_language_deep **deep, const struct kwm_language_stream *stream,
                                    kwm_correct **correct) {
  const struct kwm_config *const config = &stream->run->run->config;
  const struct kwm_transformer *const model = &stream->run->model;
  const long long layer = (long long)config->correction.layer;
  KWM_CHECK(layer <= model->layers, KWM_ERR_USAGE, "correction.layer: wanted at most the model's %d, found %lld",
            model->layers, layer);
  KWM_CHECK(stream->domains.count == 0, KWM_ERR_USAGE,
            "correction.layer: wanted no topics beside an offset within the model, found %s", config->stream.kind);
  KWM_TRY(kwm_alloc((void **)deep, sizeof **deep, "offset within the model"));
  (*deep)->every = config->correction.every;
  (*deep)->spec = (struct kwm_tail_spec){
      .device = stream->run->run->device, .model = model, .sequences = stream->own, .layer = (int)layer};
  KWM_TRY(kwm_tail_create(&(*deep)->tail, &(*deep)->spec));
  return open_correct(stream, correct);
}

void kwm_language_deep_destroy(struct kwm_language_deep *deep) {
  if (deep == NULL) return;
  kwm_tail_destroy(deep->tail);
  kwm_free(deep);
}

void kwm_language_deep_run(struct kwm_language_deep *deep, kwm_correct *correct,
                           const struct kwm_language_stream *stream, float *facts) {
  const int64_t context = stream->text.context, own = stream->own;
  kwm_tail_open(deep->tail, stream->means, stream->inputs, stream->targets);
  for (int64_t first = 0; first < context; first += deep->every) {
    const int64_t n = context - first < deep->every ? context - first : deep->every;
    float *const of = facts + first * own * KWM_TOKEN_FACTS;
    int64_t groups;
    float *const rows = kwm_correct_rows(correct, n, &groups);
    kwm_tail_offset(deep->tail, first, kwm_correct_offsets(correct));
    kwm_tail_read(deep->tail, first, n, of, groups, rows);
    kwm_correct_take(correct, n, of);
  }
}

double kwm_language_deep_operations(const struct kwm_language_deep *deep) {
  return kwm_tail_operations(&deep->spec, deep->every) / (double)(deep->spec.sequences * deep->every);
}

double kwm_language_deep_bytes(const struct kwm_language_deep *deep) {
  return kwm_tail_bytes(&deep->spec);
}
