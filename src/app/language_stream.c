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
  KWM_CHECK(world.size == 1, KWM_ERR_USAGE, "ranks: wanted 1 with correction, shift, baseline or generate, found %d",
            world.size);
  kwm_language_run_fit(config);
  config->train.batch = streams;
  config->train.chunks = 1;
  config->model.dropout = config->model.dropout_embedding = config->model.dropout_readout = 0;
  return KWM_OK;
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
  const int64_t rows = stream->text.streams * model->context, d = model->width;
  const int64_t room = kwm_tensor_read_room(READ_ROWS, model->types, d, false);
  const struct {
    void *at;
    int64_t count;
    kwm_device *device;
  } pieces[] = {{&stream->shifted, 2 * stream->text.n, NULL},
                {&stream->inputs, rows, NULL},
                {&stream->targets, rows, NULL},
                {&stream->aims, rows, NULL},
                {&stream->y, rows * d, NULL},
                {&stream->turned, rows * d, NULL},
                {&stream->facts, rows * KWM_TOKEN_FACTS, NULL},
                {&stream->rows, READ_ROWS * d, device},
                {&stream->row_facts, rows * KWM_TOKEN_FACTS, device},
                {&stream->row_targets, READ_ROWS, device},
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
  return KWM_OK;
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
  KWM_TRY(allocate(stream));
  KWM_TRY(apply_shift(stream, topics ? stream->domains.ids : tokens->ids, first));
  stream->text.ids = stream->shifted;
  stream->text.targets = stream->shifted + n;
  return KWM_OK;
}

kwm_status kwm_language_stream_init(struct kwm_language_stream *stream, struct kwm_language_run *run,
                                    const struct kwm_tokens *tokens, bool first) {
  *stream = (struct kwm_language_stream){.run = run, .means = kwm_language_means(run->learner, true)};
  const kwm_status status = init(stream, tokens, first);
  kwm_language_share(run->language, stream->means);
  return status;
}

void kwm_language_stream_fini(struct kwm_language_stream *stream) {
  void *const owned[] = {stream->shifted, stream->inputs, stream->targets, stream->aims,
                         stream->y,       stream->turned, stream->facts,   stream->W};
  void *const there[] = {stream->rows, stream->row_facts, stream->row_targets, stream->room, stream->E};
  for (size_t k = 0; k < sizeof owned / sizeof owned[0]; k++) kwm_free(owned[k]);
  for (size_t k = 0; k < sizeof there / sizeof there[0] && stream->run != NULL; k++)
    kwm_device_free(stream->run->run->device, there[k]);
  kwm_domains_fini(&stream->domains);
}

void kwm_language_stream_take(struct kwm_language_stream *stream, int64_t step) {
  const int64_t streams = stream->text.streams, context = stream->text.context;
  kwm_streams_batch(&stream->text, step, 0, streams, stream->inputs, stream->targets);
  for (int64_t s = 0; s < streams; s++)
    for (int64_t t = 0; t < context; t++) stream->aims[t * streams + s] = stream->targets[s * context + t];
}

void kwm_language_stream_turn(struct kwm_language_stream *stream) {
  const int64_t streams = stream->text.streams, context = stream->text.context, d = stream->run->model.width;
  for (int64_t s = 0; s < streams; s++)
    for (int64_t t = 0; t < context; t++)
      memcpy(stream->turned + (t * streams + s) * d, stream->y + (s * context + t) * d, (size_t)d * sizeof(float));
}

void kwm_language_stream_read(struct kwm_language_stream *stream) {
  const int64_t rows = stream->text.streams * stream->text.context;
  kwm_language_states(stream->run->language, stream->means, rows, stream->inputs, stream->y);
  kwm_language_stream_turn(stream);
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
  const int64_t all = stream->text.streams * stream->text.context, d = stream->run->model.width;
  for (int64_t first = 0; first < all; first += READ_ROWS) {
    const int64_t n = all - first < READ_ROWS ? all - first : READ_ROWS;
    const struct kwm_read read = {.n = n,
                                  .classes = stream->run->model.types,
                                  .width = d,
                                  .y = stream->rows,
                                  .E = E,
                                  .padded = device != NULL,
                                  .targets = stream->row_targets,
                                  .facts = stream->row_facts + first * KWM_TOKEN_FACTS,
                                  .room = stream->room};
    kwm_device_put(device, stream->rows, stream->turned + first * d, (size_t)(n * d) * sizeof(float));
    kwm_device_put(device, stream->row_targets, stream->aims + first, (size_t)n * sizeof(int32_t));
    kwm_tensor_of(device)->read(device, &read);
  }
  kwm_device_get(device, stream->facts, stream->row_facts, (size_t)(all * KWM_TOKEN_FACTS) * sizeof(float));
}

double kwm_language_stream_operations(const struct kwm_transformer *model) {
  double sum = 0;
  for (int stage = 0; stage < model->stages; stage++)
    sum += kwm_transformer_operations(model, stage) - 2 * (double)(model->width * model->types);
  return sum;
}

struct kwm_correct_spec kwm_language_correct_spec(const struct kwm_language_run *run, int64_t streams, const float *W,
                                                  const double *often) {
  const struct kwm_config *const config = &run->run->config;
  const char *const kind = config->correction.kind, *const form = config->correction.form;
  return (struct kwm_correct_spec){.kind = is(kind, "full")      ? KWM_CORRECT_FULL
                                           : is(kind, "lowrank") ? KWM_CORRECT_LOWRANK
                                           : is(kind, "diag")    ? KWM_CORRECT_DIAG
                                                                 : KWM_CORRECT_BIAS,
                                   .form = is(form, "observed") ? KWM_CORRECT_OBSERVED
                                           : is(form, "topk")   ? KWM_CORRECT_TOPK
                                                                : KWM_CORRECT_EXACT,
                                   .streams = streams,
                                   .width = run->model.width,
                                   .classes = run->model.types,
                                   .rank = config->correction.rank,
                                   .top = config->correction.top,
                                   .readout = config->correction.readout,
                                   .half = is(config->precision, "bfloat16"),
                                   .adapt = config->correction.adapt,
                                   .every = config->correction.every,
                                   .rows = config->correction.rows,
                                   .cut = config->correction.cut,
                                   .prior = config->correction.prior,
                                   .noise = config->correction.noise,
                                   .decay = config->correction.decay,
                                   .bound = config->correction.bound,
                                   .bias = config->correction.bias,
                                   .bias_decay = config->correction.bias_decay,
                                   .window = config->correction.window,
                                   .W = W,
                                   .often = often};
}

kwm_status kwm_language_stream_correct(struct kwm_language_stream *stream, kwm_correct **correct) {
  kwm_device *const device = stream->run->run->device;
  float *const mean = stream->means[KWM_TENSOR_EMBED];
  double *often;
  if (device != NULL) {
    const size_t bytes = (size_t)(stream->run->model.types * stream->run->model.width) * sizeof *mean;
    kwm_device_get(device, stream->W, mean, bytes);
  }
  KWM_TRY(kwm_language_often(stream->run, &often));
  struct kwm_correct_spec spec =
      kwm_language_correct_spec(stream->run, stream->text.streams, device != NULL ? stream->W : mean, often);
  spec.device = device;
  spec.device_W = mean;
  const kwm_status status = kwm_correct_create(correct, &spec);
  kwm_free(often);
  return status;
}

void kwm_language_stream_fetch(struct kwm_language_stream *stream, const kwm_correct *correct) {
  kwm_device *const device = stream->run->run->device;
  const size_t bytes = (size_t)(stream->run->model.types * stream->run->model.width) * sizeof(float);
  if (correct == NULL || device == NULL || kwm_correct_on_device(kwm_correct_spec_of(correct))) return;
  kwm_device_get(device, stream->W, stream->means[KWM_TENSOR_EMBED], bytes);
}

kwm_status kwm_language_often(const struct kwm_language_run *run, double **often) {
  const struct kwm_tokens *const text = &run->text[KWM_TRAIN];
  KWM_TRY(kwm_alloc((void **)often, (size_t)run->model.types * sizeof **often, "counts of words"));
  for (int64_t i = 0; i < text->n; i++) (*often)[text->ids[i]]++;
  return KWM_OK;
}
