/* Batches of tokens: parallel streams to train on, windows to evaluate on. */
#include "kwm/tokens.h"

#include <string.h>

int64_t kwm_streams_steps(int64_t n, int64_t streams, int64_t context) {
  KWM_ASSERT(n >= 0 && streams >= 1 && context >= 1);
  const int64_t length = n / streams;
  return length > 0 ? (length - 1) / context : 0;
}

static const int32_t *targets_of(const struct kwm_text_streams *text) {
  return text->targets != NULL ? text->targets : text->ids;
}

void kwm_streams_batch(const struct kwm_text_streams *text, int64_t step, int64_t first, int64_t rows, int32_t *inputs,
                       int32_t *targets) {
  const int64_t length = text->n / text->streams, context = text->context;
  KWM_ASSERT(step >= 0 && step < kwm_streams_steps(text->n, text->streams, context));
  KWM_ASSERT(first >= 0 && rows >= 0 && first + rows <= text->streams);
  const size_t bytes = (size_t)context * sizeof *inputs;
  for (int64_t row = 0; row < rows; row++) {
    const int64_t from = (first + row) * length + step * context;
    memcpy(inputs + row * context, text->ids + from, bytes);
    memcpy(targets + row * context, targets_of(text) + from + 1, bytes);
  }
}

int64_t kwm_windows_count(int64_t n, int64_t context) {
  KWM_ASSERT(n >= 0 && context >= 1);
  return n > 1 ? (n - 2) / context + 1 : 0;
}

int64_t kwm_windows_batch(const struct kwm_text_streams *text, int64_t first, int64_t stride, int64_t rows,
                          int32_t *inputs, int32_t *targets) {
  KWM_ASSERT(first >= 0 && stride >= 1 && rows >= 0);
  const int64_t context = text->context, count = kwm_windows_count(text->n, context);
  int64_t predicted = 0;
  for (int64_t row = 0; row < rows; row++) {
    const int64_t window = first + row * stride;
    const int64_t from = window < count ? window * context : text->n;
    for (int64_t i = 0; i < context; i++) {
      const int64_t at = from + i;
      const bool target = at + 1 < text->n;
      inputs[row * context + i] = at < text->n ? text->ids[at] : 0;
      targets[row * context + i] = target ? targets_of(text)[at + 1] : KWM_NO_TARGET;
      predicted += target;
    }
  }
  return predicted;
}
