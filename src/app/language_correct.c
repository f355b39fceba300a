/* The observer that the configuration asks for, at a stream's means. */
#include <string.h>

#include "kwm/tensor.h"
#include "language_stream.h"

static bool is(const char *word, const char *wanted) {
  return strcmp(word, wanted) == 0;
}

struct kwm_correct_spec kwm_language_correct_spec(const struct kwm_language_run *run, int64_t streams, const float *W,
                                                  const double *often) {
  const struct kwm_config *const config = &run->run->config;
  const char *const kind = config->correction.kind, *const form = config->correction.form;
  return (struct kwm_correct_spec){.kind = is(kind, "full")      ? KWM_CORRECT_FULL
                                           : is(kind, "lowrank") ? KWM_CORRECT_LOWRANK
                                           : is(kind, "diag")    ? KWM_CORRECT_DIAG
                                                                 : KWM_CORRECT_BIAS,
                                   .form = is(form, "observed")  ? KWM_CORRECT_OBSERVED
                                           : is(form, "topk")    ? KWM_CORRECT_TOPK
                                           : is(form, "sampled") ? KWM_CORRECT_SAMPLED
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
                                   .seed = config->seed,
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
      kwm_language_correct_spec(stream->run, stream->own, device != NULL ? stream->W : mean, often);
  spec.device = device;
  spec.first = stream->first;
  spec.shared = stream->run->run->layout.owners > 1 ? &stream->shared : NULL;
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
