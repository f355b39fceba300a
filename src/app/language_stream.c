/* A text as parallel streams: shift, topics, windows, states, and what the weights predict. */
#include "language_stream.h"

#include <string.h>

#include "kwm/tensor.h"

enum { READ_ROWS = 512 };

static bool is(const char *word, const char *wanted) {
  return strcmp(word, wanted) == 0;
}

bool kwm_language_stream_is(const struct kwm_config *config) {
  return !is(config->correction.kind, "off") || !is(config->shift.kind, "none") || !is(config->baseline.kind, "none") ||
         is(config->stream.kind, "topics");
}

kwm_status kwm_language_stream_fit(struct kwm_config *config, int64_t streams) {
  struct kwm_layout world;
  kwm_par_world(&world);
  KWM_CHECK(world.size <= streams, KWM_ERR_USAGE,
            "ranks: wanted at most correction.streams %lld, a stream each, found %d", (long long)streams, world.size);
  config->layout.stages = config->layout.replicas = 1;
  config->layout.owners = world.size;
  config->train.batch = streams;
  config->train.chunks = 1;
  config->model.dropout = config->model.dropout_embedding = config->model.dropout_readout = 0;
  return KWM_OK;
}

/* The first of `owners` shares' streams. */
static int64_t share_begin(int64_t streams, int owner, int owners) {
  return streams * owner / owners;
}

/* Stream by stream on the host, so that products of matrices are alike on any number of ranks; a GPU wants them large,
   and owners of a tensor sum after each micro-batch. */
void kwm_language_stream_divide(struct kwm_language_run *run, int64_t streams) {
  const struct kwm_layout *const layout = &run->run->layout;
  const struct kwm_config *const config = &run->run->config;
  run->own =
      share_begin(streams, layout->owner + 1, layout->owners) - share_begin(streams, layout->owner, layout->owners);
  run->micro = is(config->backend, "cuda") || is(config->baseline.kind, "learner") ? run->own : 1;
}

/* shifted <- ids as inputs and targets; held-out text of the first domain stays what it was. */
static kwm_status apply_shift(struct kwm_language_stream *stream, const int32_t *ids, bool first) {
  const struct kwm_config *const config = &stream->run->run->config;
  const struct kwm_vocabulary_facts facts = kwm_vocabulary_facts(stream->run->vocabulary);
  struct kwm_shift_spec spec = {.dropout = config->shift.rate,
                                .share = config->shift.share,
                                .seed = (uint64_t)config->shift.seed,
                                .schedule = config->shift.schedule};
  kwm_shift *shift;
  KWM_TRY(kwm_shift_kind_of(&spec.kind, first ? "none" : config->shift.kind));
  KWM_TRY(kwm_shift_create(&shift, &spec, &facts));
  stream->counts = kwm_shift_apply(shift, ids, stream->text.n, stream->text.n / stream->text.streams, stream->shifted,
                                   stream->shifted + stream->text.n);
  stream->words = kwm_shift_facts(shift);
  kwm_shift_destroy(shift);
  return KWM_OK;
}

static kwm_status allocate(struct kwm_language_stream *stream) {
  const struct kwm_transformer *const model = &stream->run->model;
  kwm_device *const device = stream->run->run->device;
  const int64_t rows = stream->own * model->context, d = model->width, reads = stream->reads;
  const int64_t room = kwm_tensor_read_room(reads, model->types, d, false);
  const struct {
    void *at;
    int64_t count;
    kwm_device *device;
  } pieces[] = {{&stream->shifted, 2 * stream->text.n, NULL},
                {&stream->batch, 2 * stream->run->run->layout.owners * rows, NULL},
                {&stream->aims, rows, NULL},
                {&stream->y, rows * d, NULL},
                {&stream->turned, rows * d, NULL},
                {&stream->facts, rows * KWM_TOKEN_FACTS, NULL},
                {&stream->host_facts, rows * KWM_TOKEN_FACTS, NULL},
                {&stream->rows, reads * d, device},
                {&stream->row_facts, rows * KWM_TOKEN_FACTS, device},
                {&stream->row_targets, reads, device},
                {&stream->room, room, device},
                {&stream->E, device != NULL ? kwm_tensor_read_rows(model->types) * d : 0, device},
                {&stream->W, device != NULL ? model->types * d : 0, NULL}};
  for (size_t k = 0; k < sizeof pieces / sizeof pieces[0]; k++) {
    void *at = NULL;
    if (pieces[k].count > 0)
      KWM_TRY(kwm_device_alloc(pieces[k].device, &at, (size_t)pieces[k].count * 4, "text as streams"));
    memcpy(pieces[k].at, &at, sizeof at);
  }
  if (device != NULL)
    kwm_device_zero(device, stream->E, (size_t)(kwm_tensor_read_rows(model->types) * d) * sizeof(float));
  const int owner = stream->run->run->layout.owner, owners = stream->run->run->layout.owners;
  stream->inputs = stream->batch + owner * rows;
  stream->targets = stream->batch + (owners + owner) * rows;
  return kwm_shared_init(&stream->shared, &stream->run->run->layout, device, model->types * d);
}

/* The first domain alone. */
static void cut_domains(struct kwm_domains *domains, int64_t streams) {
  const int64_t length = domains->start[1];
  for (int64_t s = 0; s < streams; s++)
    memmove(domains->ids + s * length, domains->ids + s * domains->length, (size_t)length * sizeof *domains->ids);
  domains->length = length;
  domains->n = streams * length;
}

static kwm_status arrange(struct kwm_language_stream *stream, const struct kwm_tokens *tokens, bool first) {
  const struct kwm_config *const config = &stream->run->run->config;
  const struct kwm_topics_spec spec = {.domains = (int)config->stream.tasks, .seed = (uint64_t)config->stream.seed};
  kwm_topics *topics;
  KWM_TRY(kwm_topics_create(&topics, &spec, &stream->run->text[KWM_TRAIN], stream->run->vocabulary));
  const kwm_status status = kwm_topics_arrange(topics, &stream->domains, tokens, config->correction.streams);
  kwm_topics_destroy(topics);
  if (status == KWM_OK && first) cut_domains(&stream->domains, config->correction.streams);
  return status;
}

static kwm_status init(struct kwm_language_stream *stream, const struct kwm_tokens *tokens, bool first) {
  const struct kwm_config *const config = &stream->run->run->config;
  const int64_t streams = config->correction.streams, context = stream->run->model.context;
  const bool topics = is(config->stream.kind, "topics");
  if (topics) KWM_TRY(arrange(stream, tokens, first));
  const int64_t n = topics ? stream->domains.n : tokens->n / streams * streams;
  stream->steps = kwm_streams_steps(n, streams, context);
  KWM_CHECK(stream->steps > 0, KWM_ERR_USAGE,
            "eval: wanted a text of at least correction.streams %lld times %lld tokens, found %lld of %s%s",
            (long long)streams, (long long)context + 1, (long long)n, config->correction.split,
            first ? "'s first topic" : "");
  stream->text = (struct kwm_text_streams){.n = n, .streams = streams, .context = context};
  stream->first = share_begin(streams, stream->run->run->layout.owner, stream->run->run->layout.owners);
  stream->own = stream->run->own;
  stream->reads = is(config->backend, "cuda") ? READ_ROWS : context;
  KWM_TRY(allocate(stream));
  KWM_TRY(apply_shift(stream, topics ? stream->domains.ids : tokens->ids, first));
  stream->text.ids = stream->shifted;
  stream->text.targets = stream->shifted + n;
  return KWM_OK;
}

kwm_status kwm_language_stream_init(struct kwm_language_stream *stream, struct kwm_language_run *run,
                                    const struct kwm_tokens *tokens, bool first) {
  *stream = (struct kwm_language_stream){.run = run, .means = kwm_language_means(run->learner, true)};
  const kwm_status status = kwm_agree(run->run->layout.world, init(stream, tokens, first));
  kwm_language_share(run->language, stream->means);
  return status;
}

void kwm_language_stream_fini(struct kwm_language_stream *stream) {
  void *const owned[] = {stream->shifted, stream->batch, stream->aims, stream->y,
                         stream->turned,  stream->facts, stream->W,    stream->host_facts};
  void *const there[] = {stream->rows, stream->row_facts, stream->row_targets, stream->room, stream->E};
  for (size_t k = 0; k < sizeof owned / sizeof owned[0]; k++) kwm_free(owned[k]);
  for (size_t k = 0; k < sizeof there / sizeof there[0] && stream->run != NULL; k++)
    kwm_device_free(stream->run->run->device, there[k]);
  kwm_shared_fini(&stream->shared);
  kwm_domains_fini(&stream->domains);
}

struct kwm_language_batch kwm_language_stream_batch(const struct kwm_language_stream *stream) {
  const int64_t rows = stream->run->run->layout.owners * stream->own * stream->text.context;
  return (struct kwm_language_batch){.ids = stream->batch, .targets = stream->batch + rows};
}

void kwm_language_stream_take(struct kwm_language_stream *stream, int64_t step) {
  const int64_t own = stream->own, context = stream->text.context;
  kwm_streams_batch(&stream->text, step, stream->first, own, stream->inputs, stream->targets);
  for (int64_t s = 0; s < own; s++)
    for (int64_t t = 0; t < context; t++) stream->aims[t * own + s] = stream->targets[s * context + t];
}

void kwm_language_stream_turn(struct kwm_language_stream *stream) {
  const int64_t own = stream->own, context = stream->text.context, d = stream->run->model.width;
  for (int64_t s = 0; s < own; s++)
    for (int64_t t = 0; t < context; t++)
      memcpy(stream->turned + (t * own + s) * d, stream->y + (s * context + t) * d, (size_t)d * sizeof(float));
}

void kwm_language_stream_read(struct kwm_language_stream *stream) {
  const int64_t rows = stream->own * stream->text.context;
  kwm_language_states(stream->run->language, stream->means, rows, stream->inputs, stream->y);
  kwm_language_stream_turn(stream);
}

/* facts, time by time, <- host_facts, stream by stream. */
static void turn_facts(struct kwm_language_stream *stream) {
  const int64_t own = stream->own, context = stream->text.context;
  for (int64_t s = 0; s < own; s++)
    for (int64_t t = 0; t < context; t++)
      memcpy(stream->facts + (t * own + s) * KWM_TOKEN_FACTS, stream->host_facts + (s * context + t) * KWM_TOKEN_FACTS,
             KWM_TOKEN_FACTS * sizeof(float));
}

/* The read-out of the means, on a device a copy with the rows that it wants. */
static const float *readout(struct kwm_language_stream *stream) {
  const struct kwm_transformer *const model = &stream->run->model;
  kwm_device *const device = stream->run->run->device;
  const int64_t size = model->types * model->width;
  if (device == NULL) return stream->means[KWM_TENSOR_EMBED];
  if (!stream->copied)
    kwm_device_copy(device, stream->E, stream->means[KWM_TENSOR_EMBED], (size_t)size * sizeof(float));
  stream->copied = !stream->moves;
  return stream->E;
}

void kwm_language_stream_score(struct kwm_language_stream *stream) {
  kwm_device *const device = stream->run->run->device;
  const float *const E = readout(stream);
  const int64_t all = stream->own * stream->text.context, d = stream->run->model.width;
  for (int64_t first = 0; first < all; first += stream->reads) {
    const int64_t n = all - first < stream->reads ? all - first : stream->reads;
    const struct kwm_read read = {.n = n,
                                  .classes = stream->run->model.types,
                                  .width = d,
                                  .y = stream->rows,
                                  .E = E,
                                  .padded = device != NULL,
                                  .targets = stream->row_targets,
                                  .facts = stream->row_facts + first * KWM_TOKEN_FACTS,
                                  .room = stream->room};
    kwm_device_put(device, stream->rows, stream->y + first * d, (size_t)(n * d) * sizeof(float));
    kwm_device_put(device, stream->row_targets, stream->targets + first, (size_t)n * sizeof(int32_t));
    kwm_tensor_of(device)->read(device, &read);
  }
  kwm_device_get(device, stream->host_facts, stream->row_facts, (size_t)(all * KWM_TOKEN_FACTS) * sizeof(float));
  turn_facts(stream);
}

double kwm_language_stream_operations(const struct kwm_transformer *model) {
  double sum = 0;
  for (int stage = 0; stage < model->stages; stage++)
    sum += kwm_transformer_operations(model, stage) - 2 * (double)(model->width * model->types);
  return sum;
}
