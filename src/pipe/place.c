/* A pipe on a device: its samples' way there. */
#include "place.h"

#include <string.h>

#include "kwm/device_ops.h"
#include "pipe_ops.h"

enum { NOBODY = -1 };

static size_t larger(size_t a, size_t b) {
  return a > b ? a : b;
}

static size_t pixel_bytes(const struct kwm_model *model, const struct kwm_stages *stages, int group_rank,
                          int64_t n_max) {
  return stages->share[0][group_rank].count > 0 ? (size_t)(n_max * model->length) : 0;
}

static size_t draw_bytes(const struct kwm_model *model, int64_t n_max, const struct kwm_pipe_spec *spec) {
  const bool sampled = spec->evidence == KWM_EVIDENCE_SAMPLED;
  return sampled ? (size_t)(n_max * kwm_draws_width(model)) * sizeof(double) : 0;
}

size_t pipe_place_bytes(const struct kwm_model *model, const struct kwm_stages *stages, int group_rank, int64_t n_max,
                        const struct kwm_pipe_spec *spec) {
  return 2 * pixel_bytes(model, stages, group_rank, n_max) + (size_t)n_max + draw_bytes(model, n_max, spec);
}

kwm_status pipe_place_init(struct kwm_pipe *pipe) {
  kwm_device *const device = pipe->spec.device;
  const struct kwm_model *const model = pipe->model;
  struct pipe_place *const place = &pipe->place;
  const size_t n = (size_t)pipe->n_max, facts = n * KWM_FACTS * sizeof(double);
  if (device == NULL) return KWM_OK;
  const size_t pixels = pixel_bytes(model, pipe->stages, pipe->me, pipe->n_max);
  const size_t draws = draw_bytes(model, pipe->n_max, &pipe->spec);
  place->ahead_step = place->held_step = NOBODY;
  if (pixels > 0) KWM_TRY(kwm_device_alloc(device, (void **)&place->pixels, pixels, "pixels"));
  if (pixels > 0) KWM_TRY(kwm_device_alloc(device, (void **)&place->ahead, pixels, "pixels"));
  KWM_TRY(kwm_device_alloc(device, (void **)&place->ahead_labels, n, "labels"));
  if (draws > 0) KWM_TRY(kwm_device_alloc(device, (void **)&place->draws, draws, "draws"));
  if (pipe->stages->owner[model->n_groups - 1] == pipe->me) {
    KWM_TRY(kwm_device_share(device, (void **)&place->facts, facts, "facts"));
    KWM_TRY(kwm_device_share(device, (void **)&place->seen, facts, "facts"));
  }
  if (model->readouts) KWM_TRY(kwm_device_share(device, (void **)&place->unread, facts, "facts"));
  return kwm_alloc(&place->gathered, larger(larger(pixels, draws), n), "samples");
}

void pipe_place_fini(struct kwm_pipe *pipe) {
  kwm_device *const device = pipe->spec.device;
  struct pipe_place *const place = &pipe->place;
  void *const theirs[] = {place->pixels, place->ahead, place->ahead_labels, place->draws,
                          place->facts,  place->seen,  place->unread};
  for (size_t k = 0; k < sizeof theirs / sizeof theirs[0]; k++) kwm_device_free(device, theirs[k]);
  kwm_free(place->gathered);
}

/* Samples images[index[0..n)] on their way to pixels and labels, which are the device's. */
static void bring(struct kwm_pipe *pipe, int64_t n, const struct kwm_images *images, const int32_t *index,
                  uint8_t *pixels, uint8_t *labels) {
  kwm_device *const device = pipe->spec.device;
  const int64_t length = pipe->model->length;
  uint8_t *const rows = pipe->place.gathered;
  if (pipe->place.pixels != NULL) {
    for (int64_t i = 0; i < n; i++) memcpy(rows + i * length, images->pixels + index[i] * length, (size_t)length);
    kwm_device_put(device, pixels, rows, (size_t)(n * length));
  }
  for (int64_t i = 0; i < n; i++) rows[i] = images->labels[index[i]];
  kwm_device_put(device, labels, rows, (size_t)n);
}

void pipe_gather(struct kwm_pipe *pipe, struct pipe_span span, const struct kwm_images *images, const int32_t *index) {
  uint8_t *const pixels = pipe->place.pixels;
  pipe->place.held_step = NOBODY;
  bring(pipe, span.n, images, index, pixels == NULL ? NULL : pixels + span.at * pipe->model->length,
        pipe->labels + span.at);
}

static void swap(uint8_t **a, uint8_t **b) {
  uint8_t *const kept = *a;
  *a = *b;
  *b = kept;
}

void pipe_gather_step(struct kwm_pipe *pipe, struct pipe_span span, const struct kwm_batch *batch,
                      const int32_t *index) {
  struct pipe_place *const place = &pipe->place;
  if (place->ahead_step == (int64_t)batch->step) {
    swap(&place->pixels, &place->ahead);
    swap(&pipe->labels, &place->ahead_labels);
  } else {
    pipe_gather(pipe, span, batch->images, index);
  }
  place->ahead_step = NOBODY;
  place->held_step = (int64_t)batch->step;
}

void kwm_pipe_ahead(kwm_pipe *pipe, const struct kwm_batch *next) {
  const int64_t chunks = pipe->spec.chunks, local = chunks / pipe->layout->replicas;
  const int64_t start = kwm_pipe_chunk_start(next->n, chunks, local * pipe->layout->replica);
  const int64_t end = kwm_pipe_chunk_start(next->n, chunks, local * (pipe->layout->replica + 1));
  struct pipe_place *const place = &pipe->place;
  if (pipe->spec.device == NULL) return;
  bring(pipe, end - start, next->images, next->order + start, place->ahead, place->ahead_labels);
  place->ahead_step = (int64_t)next->step;
}

void pipe_draw(struct kwm_pipe *pipe, int64_t n, const struct kwm_draw *draw) {
  if (pipe->place.draws == NULL) return;
  kwm_draws(pipe->model, n, draw, pipe->place.gathered);
  kwm_device_put(pipe->spec.device, pipe->place.draws, pipe->place.gathered,
                 (size_t)(n * kwm_draws_width(pipe->model)) * sizeof(double));
}

kwm_status pipe_append_ones(const struct kwm_pipe *pipe, int64_t width, float *a) {
  kwm_device *const device = pipe->spec.device;
  const int64_t n = pipe->n_max;
  const size_t bytes = (size_t)n * sizeof(float);
  float *here = NULL, *there = NULL;
  kwm_status status = kwm_alloc((void **)&here, bytes, "ones");
  if (status == KWM_OK) status = kwm_device_alloc(device, (void **)&there, bytes, "ones");
  if (status == KWM_OK) {
    for (int64_t i = 0; i < n; i++) here[i] = 1;
    kwm_device_put(device, there, here, bytes);
    kwm_device_copy_rows(device, n, 1, a + width - 1, width, there, 1);
  }
  kwm_device_free(device, there);
  kwm_free(here);
  return status;
}
