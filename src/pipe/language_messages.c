/* Rows between the ranks of a pipe, those of one replica and owner: through host memory, which a device's rows are
 * brought to first. */
#include "language_state.h"

static double *counter(struct kwm_language *language, enum language_kind kind) {
  double *const counters[LANGUAGE_KINDS] = {&language->sent.forward, &language->sent.back, &language->sent.embedded};
  return counters[kind];
}

/* The rank of the pipe's r-th in the replica's group. */
static int in_group(const struct kwm_language *language, int r) {
  return r * language->layout->owners + language->layout->owner;
}

void language_send(struct kwm_language *language, enum language_kind kind, int to, int64_t j, const float *rows) {
  const int64_t floats = language->n * language->model->width;
  float *const staged = language->out[kind] + j * floats;
  const int64_t bytes = floats * (int64_t)sizeof *rows;
  kwm_device_get(language->spec.device, staged, rows, (size_t)bytes);
  language->requests[language->n_requests++] =
      kwm_par_send(language->layout, in_group(language, to), (int)kind, staged, bytes);
  *counter(language, kind) += (double)bytes;
}

void language_receive(struct kwm_language *language, enum language_kind kind, int from, float *rows) {
  const int64_t bytes = language->n * language->model->width * (int64_t)sizeof *rows;
  if (language->spec.device == NULL) {
    kwm_par_receive(language->layout, in_group(language, from), (int)kind, rows, bytes);
    return;
  }
  kwm_par_receive(language->layout, in_group(language, from), (int)kind, language->in, bytes);
  kwm_device_put(language->spec.device, rows, language->in, (size_t)bytes);
}

void language_flush(struct kwm_language *language) {
  kwm_par_wait(language->layout, language->n_requests, language->requests);
  language->n_requests = 0;
}

void kwm_language_share(kwm_language *language, float *const *means) {
  kwm_device *const device = language->spec.device;
  const int64_t bytes = language->model->types * language->model->width * (int64_t)sizeof(float);
  const int holder = language->ranks - 1;
  if (language->rank == holder && language->copy != NULL)
    kwm_device_copy(device, language->copy, means[KWM_TENSOR_EMBED], (size_t)bytes);
  if (language->ranks == 1) return;
  float *const here = language->rank == holder ? means[KWM_TENSOR_EMBED] : language->copy;
  float *const staged = device == NULL ? here : language->staged;
  const struct kwm_layout *const layout = language->layout;
  const bool root = language->rank == holder && layout->owner == 0;
  if (root) language->sent.copies += (double)bytes * (language->ranks - 1) * layout->owners;
  if (root && device != NULL) kwm_device_get(device, staged, here, (size_t)bytes);
  kwm_par_broadcast_group(language->layout, holder * layout->owners, staged, bytes);
  if (language->rank != holder && device != NULL) kwm_device_put(device, here, staged, (size_t)bytes);
}

bool kwm_language_share_due(const kwm_language *language, int64_t steps) {
  return steps % language->spec.copy_every == 0;
}
