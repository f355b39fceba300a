/* Weights that move while they read: after a window is scored, all of them follow its mean gradient, shared by the
   streams. dynamic: Krause, Kahembwe, Murray, Renals 2018 in its SGD form. rms: theirs with the gradient over the root
   of its running mean square, which starts from windows of the training text. Both are drawn back to the trained
   weights. learner: the run's own learner goes on, from its own state. */
#include <string.h>

#include "kwm/tensor.h"
#include "language_stream.h"

enum { MEASURED = 100 /* windows of the training text */ };
static const float SQUARES = 0.99f; /* memory of the mean square */

enum kind { DYNAMIC, RMS, LEARNER };

struct kwm_language_moving {
  struct kwm_language_stream *stream; /* borrowed */
  kwm_device *device;
  enum kind kind;
  float *mean[KWM_TENSORS_MAX], *score[KWM_TENSORS_MAX], *first[KWM_TENSORS_MAX], *square[KWM_TENSORS_MAX];
  float *const *trained; /* borrowed */
  int64_t steps, seen;   /* seen: rows of the window's states so far */
};

static void take_matrix(void *context, int t, int64_t n, int64_t d_o, int64_t d_i, const float *s, const float *a) {
  struct kwm_language_moving *const moving = context;
  kwm_device_gemm(moving->device, true, false, d_o, d_i, n, 1, s, d_o, a, d_i, 1, moving->score[t], d_i);
}

static float *take_vector(void *context, int t) {
  return ((struct kwm_language_moving *)context)->score[t];
}

/* The states that the read-out sees, in the order of the window's rows. */
static void take_reading(void *context, int t, int64_t n, const float *y) {
  struct kwm_language_moving *const moving = context;
  const int64_t d = moving->stream->run->model.width;
  (void)t;
  kwm_device_get(moving->device, moving->stream->y + moving->seen * d, y, (size_t)(n * d) * sizeof *y);
  moving->seen += n;
}

static int64_t size_of(const struct kwm_transformer *model, int t) {
  return model->tensors[t].rows * model->tensors[t].columns;
}

static kwm_status allocate(struct kwm_language_moving *moving) {
  const struct kwm_transformer *const model = &moving->stream->run->model;
  for (int t = 0; t < model->n_tensors; t++) {
    const size_t bytes = (size_t)size_of(model, t) * sizeof(float);
    float **const at[] = {&moving->mean[t], &moving->score[t], &moving->first[t], &moving->square[t]};
    for (int k = 0; k < (moving->kind == RMS ? 4 : 2); k++) {
      KWM_TRY(kwm_device_alloc(moving->device, (void **)at[k], bytes, "moving weights"));
      kwm_device_zero(moving->device, *at[k], bytes);
    }
    kwm_device_copy(moving->device, moving->mean[t], moving->trained[t], bytes);
  }
  return KWM_OK;
}

/* The gradient of the window in the stream's inputs and targets, of all ranks' streams. */
static void differentiate(struct kwm_language_moving *moving, struct kwm_reading *reading) {
  struct kwm_language_run *const run = moving->stream->run;
  const struct kwm_sink sink = {
      .context = moving, .matrix = take_matrix, .vector = take_vector, .reading = take_reading};
  const struct kwm_language_batch batch = kwm_language_stream_batch(moving->stream);
  for (int t = 0; t < run->model.n_tensors; t++)
    kwm_device_zero(moving->device, moving->score[t], (size_t)size_of(&run->model, t) * sizeof(float));
  moving->seen = 0;
  kwm_language_share(run->language, moving->mean);
  kwm_language_step(run->language, moving->mean, &batch, &sink, reading);
  for (int t = 0; t < run->model.n_tensors; t++)
    kwm_shared_sum(&moving->stream->shared, size_of(&run->model, t), moving->score[t]);
}

/* mean += rate gradient over the root of its mean square, which the gradient moves first. */
static void divide(struct kwm_language_moving *moving, double rate) {
  const struct kwm_language_stream *const stream = moving->stream;
  const struct kwm_adam_step step = {.rate = (float)rate,
                                     .beta2 = SQUARES,
                                     .epsilon = (float)stream->run->run->config.baseline.epsilon,
                                     .scale = (float)(1 / (double)(stream->text.streams * stream->text.context)),
                                     .t = ++moving->steps};
  for (int t = 0; t < stream->run->model.n_tensors; t++)
    kwm_tensor_of(moving->device)
        ->adam(moving->device, size_of(&stream->run->model, t), &step, moving->score[t], moving->first[t],
               moving->square[t], moving->mean[t]);
}

/* The mean square of the training text's gradients, the weights standing still. */
static kwm_status measure(struct kwm_language_moving *moving) {
  const struct kwm_language_stream *const stream = moving->stream;
  const struct kwm_tokens *const training = &stream->run->text[KWM_TRAIN];
  struct kwm_text_streams text = stream->text;
  text.ids = training->ids, text.n = training->n, text.targets = NULL;
  const int64_t steps = kwm_streams_steps(text.n, text.streams, text.context);
  for (int64_t step = 0; step < MEASURED && step < steps; step++) {
    struct kwm_reading reading;
    kwm_streams_batch(&text, step * steps / MEASURED % steps, stream->first, stream->own, stream->inputs,
                      stream->targets);
    differentiate(moving, &reading);
    divide(moving, 0);
  }
  return KWM_OK;
}

kwm_status kwm_language_moving_create(struct kwm_language_moving **moving, struct kwm_language_stream *stream) {
  const char *const kind = stream->run->run->config.baseline.kind;
  KWM_TRY(kwm_alloc((void **)moving, sizeof **moving, "moving weights"));
  struct kwm_language_moving *const made = *moving;
  made->stream = stream;
  made->device = stream->run->run->device;
  made->kind = strcmp(kind, "dynamic") == 0 ? DYNAMIC : strcmp(kind, "rms") == 0 ? RMS : LEARNER;
  made->trained = stream->means;
  if (made->kind == LEARNER) return KWM_OK;
  KWM_TRY(kwm_agree(stream->run->run->layout.world, allocate(made)));
  return made->kind == RMS ? measure(made) : KWM_OK;
}

void kwm_language_moving_destroy(struct kwm_language_moving *moving) {
  if (moving == NULL) return;
  for (int t = 0; t < moving->stream->run->model.n_tensors; t++) {
    kwm_device_free(moving->device, moving->mean[t]);
    kwm_device_free(moving->device, moving->score[t]);
    kwm_device_free(moving->device, moving->first[t]);
    kwm_device_free(moving->device, moving->square[t]);
  }
  kwm_free(moving);
}

float *const *kwm_language_moving_means(const struct kwm_language_moving *moving) {
  return moving->kind == LEARNER ? kwm_language_means(moving->stream->run->learner, false) : moving->mean;
}

void kwm_language_moving_score(struct kwm_language_moving *moving, double reading[KWM_READ_SUMS]) {
  struct kwm_language_stream *const stream = moving->stream;
  struct kwm_reading sums;
  if (moving->kind == LEARNER) {
    kwm_language_stream_read(stream);
    kwm_language_stream_score(stream);
    memset(reading, 0, KWM_READ_SUMS * sizeof *reading);
    for (int64_t r = 0; r < stream->own * stream->text.context; r++) {
      reading[KWM_READ_SURPRISAL] += (double)stream->facts[r * KWM_TOKEN_FACTS + KWM_TOKEN_SURPRISAL];
      reading[KWM_READ_ENTROPY] += (double)stream->facts[r * KWM_TOKEN_FACTS + KWM_TOKEN_ENTROPY];
    }
    return;
  }
  differentiate(moving, &sums);
  memcpy(reading, sums.of[stream->run->model.stages - 1], KWM_READ_SUMS * sizeof *reading);
  kwm_language_stream_turn(stream);
}

void kwm_language_moving_move(struct kwm_language_moving *moving) {
  struct kwm_language_stream *const stream = moving->stream;
  const struct kwm_config *const config = &stream->run->run->config;
  const struct kwm_transformer *const model = &stream->run->model;
  const struct kwm_tensor_ops *const ops = kwm_tensor_of(moving->device);
  const float pull = (float)config->baseline.pull;
  const float rate = (float)(config->baseline.rate / (double)(stream->text.streams * stream->text.context));
  if (moving->kind == LEARNER) {
    const struct kwm_language_batch batch = kwm_language_stream_batch(stream);
    struct kwm_language_result result;
    kwm_language_learn(stream->run->learner, &batch, &result);
    kwm_language_share(stream->run->language, kwm_language_moving_means(moving));
    return;
  }
  if (moving->kind == RMS) divide(moving, config->baseline.rate);
  for (int t = 0; t < model->n_tensors; t++) {
    const int64_t n = size_of(model, t);
    if (moving->kind == DYNAMIC) ops->drift(moving->device, n, 1, rate, moving->score[t], moving->mean[t]);
    if (pull > 0) ops->drift(moving->device, n, 1 - pull, pull, moving->trained[t], moving->mean[t]);
  }
  kwm_language_share(stream->run->language, moving->mean);
}

/* Of this rank: forward and back; learner: once more forward; per parameter and window what each kind does there, all
   of it by every rank, the learner's by owners. */
double kwm_language_moving_operations(const struct kwm_language_moving *moving) {
  const struct kwm_language_stream *const stream = moving->stream;
  const struct kwm_transformer *const model = &stream->run->model;
  const double forward = kwm_language_stream_operations(model) + 2 * (double)(model->types * model->width);
  const double rows = (double)(stream->own * stream->text.context), owners = stream->run->run->layout.owners;
  const double each[] = {[DYNAMIC] = 4, [RMS] = 10, [LEARNER] = 10};
  return (moving->kind == LEARNER ? 4 : 3) * forward +
         each[moving->kind] * (double)kwm_transformer_parameters(model) / (moving->kind == LEARNER ? owners : 1) / rows;
}

double kwm_language_moving_bytes(const struct kwm_language_moving *moving) {
  const double numbers = (double)kwm_transformer_parameters(&moving->stream->run->model) * sizeof(float);
  const double owned = moving->kind == LEARNER ? 1 / (double)moving->stream->run->run->layout.owners : 1;
  return (moving->kind == DYNAMIC ? 2 : 2 + 2 * owned) * numbers;
}
