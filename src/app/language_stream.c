/* A text as parallel streams: shift, windows, states, and the methods that read them. */
#include "language_stream.h"

#include <math.h>
#include <string.h>

#include "kwm/backend.h"

enum { LOGIT_ROWS = 512 };

static bool is(const char *word, const char *wanted) {
  return strcmp(word, wanted) == 0;
}

bool kwm_language_stream_is(const struct kwm_config *config) {
  return !is(config->correction.kind, "off") || !is(config->shift.kind, "none") || !is(config->baseline.kind, "none");
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

static kwm_status apply_shift(struct kwm_language_stream *stream, const struct kwm_tokens *tokens) {
  const struct kwm_config *const config = &stream->run->run->config;
  const struct kwm_vocabulary_facts facts = kwm_vocabulary_facts(stream->run->vocabulary);
  struct kwm_shift_spec spec = {.dropout = config->shift.rate,
                                .share = config->shift.share,
                                .seed = (uint64_t)config->shift.seed,
                                .schedule = config->shift.schedule};
  kwm_shift *shift;
  KWM_TRY(kwm_shift_kind_of(&spec.kind, config->shift.kind));
  KWM_TRY(kwm_shift_create(&shift, &spec, &facts));
  stream->counts = kwm_shift_apply(shift, tokens->ids, stream->text.n, stream->text.n / stream->text.streams,
                                   stream->shifted, stream->shifted + stream->text.n);
  stream->words = kwm_shift_facts(shift);
  kwm_shift_destroy(shift);
  return KWM_OK;
}

static kwm_status allocate(struct kwm_language_stream *stream) {
  const struct kwm_transformer *const model = &stream->run->model;
  const int64_t streams = stream->text.streams, rows = streams * model->context;
  const struct {
    void **at;
    int64_t count;
  } pieces[] = {{(void **)&stream->shifted, 2 * stream->text.n},
                {(void **)&stream->inputs, rows},
                {(void **)&stream->targets, rows},
                {(void **)&stream->now, streams},
                {(void **)&stream->y, rows * model->width},
                {(void **)&stream->turned, rows * model->width},
                {(void **)&stream->logits, kwm_language_stream_block(stream) * streams * model->types},
                {(void **)&stream->facts, kwm_language_stream_block(stream) * streams * KWM_TOKEN_FACTS},
                {(void **)&stream->fetched, stream->run->run->device != NULL ? model->types * model->width : 0}};
  for (size_t k = 0; k < sizeof pieces / sizeof pieces[0]; k++)
    if (pieces[k].count > 0) KWM_TRY(kwm_alloc(pieces[k].at, (size_t)pieces[k].count * 4, "text as streams"));
  return KWM_OK;
}

kwm_status kwm_language_stream_init(struct kwm_language_stream *stream, struct kwm_language_run *run) {
  const struct kwm_config *const config = &run->run->config;
  const bool valid = is(config->correction.split, "valid");
  const struct kwm_tokens *const tokens = &run->text[valid ? KWM_VALID : KWM_TEST];
  const int64_t streams = config->correction.streams, context = run->model.context;
  *stream = (struct kwm_language_stream){.run = run, .means = kwm_language_means(run->learner, true)};
  stream->steps = kwm_streams_steps(tokens->n, streams, context);
  KWM_CHECK(stream->steps > 0, KWM_ERR_USAGE,
            "eval: wanted a %s text of at least correction.streams %lld times %lld tokens, found %lld",
            config->correction.split, (long long)streams, (long long)context + 1, (long long)tokens->n);
  stream->text = (struct kwm_text_streams){.n = tokens->n / streams * streams, .streams = streams, .context = context};
  KWM_TRY(allocate(stream));
  KWM_TRY(apply_shift(stream, tokens));
  stream->text.ids = stream->shifted;
  stream->text.targets = stream->shifted + stream->text.n;
  stream->W = stream->means[KWM_TENSOR_EMBED];
  if (stream->fetched != NULL) {
    kwm_device_get(run->run->device, stream->fetched, stream->W,
                   (size_t)(run->model.types * run->model.width) * sizeof(float));
    stream->W = stream->fetched;
  }
  kwm_language_share(run->language, stream->means);
  return KWM_OK;
}

void kwm_language_stream_fini(struct kwm_language_stream *stream) {
  void *const owned[] = {stream->shifted, stream->inputs, stream->targets, stream->now,    stream->y,
                         stream->turned,  stream->logits, stream->facts,   stream->fetched};
  for (size_t k = 0; k < sizeof owned / sizeof owned[0]; k++) kwm_free(owned[k]);
}

void kwm_language_stream_read(struct kwm_language_stream *stream, int64_t step) {
  const int64_t streams = stream->text.streams, context = stream->text.context, d = stream->run->model.width;
  kwm_streams_batch(&stream->text, step, 0, streams, stream->inputs, stream->targets);
  kwm_language_states(stream->run->language, stream->means, streams * context, stream->inputs, stream->y);
  for (int64_t s = 0; s < streams; s++)
    for (int64_t t = 0; t < context; t++)
      memcpy(stream->turned + (t * streams + s) * d, stream->y + (s * context + t) * d, (size_t)d * sizeof(float));
}

int64_t kwm_language_stream_block(const struct kwm_language_stream *stream) {
  const int64_t most = LOGIT_ROWS / stream->text.streams, context = stream->text.context;
  return most < 1 ? 1 : most < context ? most : context;
}

void kwm_language_stream_logits(struct kwm_language_stream *stream, int64_t t, int64_t count) {
  const int64_t streams = stream->text.streams, d = stream->run->model.width, v = stream->run->model.types;
  kwm_gemm(false, true, count * streams, v, d, 1, stream->turned + t * streams * d, d, stream->W, d, 0, stream->logits,
           v);
}

void kwm_language_stream_now(struct kwm_language_stream *stream, int64_t t) {
  for (int64_t s = 0; s < stream->text.streams; s++) stream->now[s] = stream->targets[s * stream->text.context + t];
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
                                                                 : KWM_CORRECT_DIAG,
                                   .form = is(form, "observed") ? KWM_CORRECT_OBSERVED
                                           : is(form, "topk")   ? KWM_CORRECT_TOPK
                                                                : KWM_CORRECT_EXACT,
                                   .streams = streams,
                                   .width = run->model.width,
                                   .classes = run->model.types,
                                   .rank = config->correction.rank,
                                   .top = config->correction.top,
                                   .prior = config->correction.prior,
                                   .noise = config->correction.noise,
                                   .decay = config->correction.decay,
                                   .bound = config->correction.bound,
                                   .window = config->correction.window,
                                   .W = W,
                                   .often = often};
}

kwm_status kwm_language_often(const struct kwm_language_run *run, double **often) {
  const struct kwm_tokens *const text = &run->text[KWM_TRAIN];
  KWM_TRY(kwm_alloc((void **)often, (size_t)run->model.types * sizeof **often, "counts of words"));
  for (int64_t i = 0; i < text->n; i++) (*often)[text->ids[i]]++;
  return KWM_OK;
}

kwm_status kwm_language_static(struct kwm_language_stream *stream, struct kwm_language_sum *sum) {
  const int64_t streams = stream->text.streams, context = stream->text.context, v = stream->run->model.types;
  const int64_t rows = kwm_language_stream_block(stream) * streams;
  const double started = kwm_par_seconds();
  *sum = (struct kwm_language_sum){.tokens = stream->steps * streams * context};
  for (int64_t step = 0; step < stream->steps; step++) {
    kwm_language_stream_read(stream, step);
    for (int64_t first = 0; first < streams * context; first += rows) {
      const int64_t n = streams * context - first < rows ? streams * context - first : rows;
      const struct kwm_read read = {.n = n,
                                    .classes = v,
                                    .width = stream->run->model.width,
                                    .y = stream->y + first * stream->run->model.width,
                                    .E = stream->W,
                                    .targets = stream->targets + first,
                                    .facts = stream->facts,
                                    .room = stream->logits};
      kwm_tensor_host.read(NULL, &read);
      for (int64_t r = 0; r < n; r++) sum->surprisal += stream->facts[r * KWM_TOKEN_FACTS + KWM_TOKEN_SURPRISAL];
    }
  }
  sum->seconds = kwm_par_seconds() - started;
  sum->operations = kwm_language_stream_operations(&stream->run->model) + 2 * (double)(v * stream->run->model.width);
  return KWM_OK;
}

/* One window of every stream, place by place. */
static void correct_window(struct kwm_language_stream *stream, kwm_correct *correct, bool fixed, double *surprisal,
                           struct kwm_language_sum *sum) {
  const int64_t streams = stream->text.streams, context = stream->text.context, d = stream->run->model.width;
  const int64_t block = kwm_language_stream_block(stream);
  for (int64_t t = 0; t < context; t++) {
    const int64_t at = t % block;
    if (fixed && at == 0) kwm_language_stream_logits(stream, t, context - t < block ? context - t : block);
    const struct kwm_correct_input input = {.y = stream->turned + t * streams * d,
                                            .ld = d,
                                            .fixed = fixed ? stream->logits + at * streams * stream->run->model.types
                                                           : NULL};
    kwm_language_stream_now(stream, t);
    kwm_correct_step(correct, &input, stream->now, surprisal);
    for (int64_t s = 0; s < streams; s++) sum->surprisal += surprisal[s];
  }
}

kwm_status kwm_language_corrected(struct kwm_language_stream *stream, struct kwm_language_sum *sum) {
  const int64_t streams = stream->text.streams;
  double *often = NULL, *surprisal = NULL;
  kwm_correct *correct = NULL;
  *sum = (struct kwm_language_sum){.tokens = stream->steps * streams * stream->text.context};
  kwm_status status = kwm_language_often(stream->run, &often);
  if (status == KWM_OK) status = kwm_alloc((void **)&surprisal, (size_t)streams * sizeof *surprisal, "surprisals");
  const struct kwm_correct_spec spec = kwm_language_correct_spec(stream->run, streams, stream->W, often);
  if (status == KWM_OK) status = kwm_correct_create(&correct, &spec);
  const double started = kwm_par_seconds();
  for (int64_t step = 0; step < stream->steps && status == KWM_OK; step++) {
    kwm_language_stream_read(stream, step);
    correct_window(stream, correct, spec.kind == KWM_CORRECT_LOWRANK, surprisal, sum);
  }
  sum->seconds = kwm_par_seconds() - started;
  if (status == KWM_OK) {
    sum->facts = kwm_correct_facts(correct);
    sum->operations = kwm_language_stream_operations(&stream->run->model) + kwm_correct_operations(&spec);
  }
  kwm_correct_destroy(correct);
  kwm_free(surprisal);
  kwm_free(often);
  return status;
}
