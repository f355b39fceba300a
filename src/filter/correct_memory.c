/* Memory of an observer that works in blocks or on a device, and its priors there. */
#include <math.h>
#include <string.h>

#include "correct_state.h"

/* Priors, and a direction to watch. */
static kwm_status put_start(kwm_correct *correct, int64_t ld) {
  const struct kwm_correct_spec *const spec = &correct->spec;
  const int64_t r = correct->r, n = spec->streams, most = r * r > ld ? r * r : ld;
  float *start;
  KWM_TRY(kwm_alloc((void **)&start, (size_t)most * sizeof *start, "correction of activations"));
  for (int64_t k = 0; k < r; k++) start[k * r + k] = (float)spec->prior;
  for (int64_t s = 0; s < n && spec->kind == KWM_CORRECT_FULL; s++)
    kwm_device_put(spec->device, correct->dev.P + s * r * r, start, (size_t)(r * r) * sizeof *start);
  for (int64_t i = 0; i < ld; i++) start[i] = (float)spec->readout;
  if (spec->readout > 0) kwm_device_put(spec->device, correct->dev.vary, start, (size_t)ld * sizeof *start);
  for (int64_t i = 0; i < ld; i++) start[i] = (float)spec->bias;
  for (int64_t s = 0; s < n && spec->bias > 0; s++)
    kwm_device_put(spec->device, correct->spread + s * ld, start, (size_t)ld * sizeof *start);
  for (int64_t k = 0; k < r; k++) start[k] = (float)(1 / sqrt((double)r));
  if (r > 0) kwm_device_put(spec->device, correct->dev.watched, start, (size_t)r * sizeof *start);
  kwm_free(start);
  return KWM_OK;
}

kwm_status correct_open(kwm_correct *correct, int64_t ld, size_t n, const struct correct_piece *pieces) {
  kwm_device *const device = correct->spec.device;
  for (size_t k = 0; k < n; k++) {
    const size_t bytes = (size_t)pieces[k].count * sizeof(float);
    void *at;
    KWM_TRY(kwm_device_alloc(device, &at, bytes, "correction of activations"));
    memcpy(pieces[k].at, &at, sizeof at);
    if (bytes > 0) kwm_device_zero(device, at, bytes);
  }
  const size_t r = correct->r > 0 ? (size_t)correct->r : 1;
  KWM_TRY(kwm_alloc((void **)&correct->watched, r * sizeof *correct->watched, "correction"));
  return put_start(correct, ld);
}
