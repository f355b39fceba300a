/* What a rank holds of the dense model's layers: one list of arrays for allocation, release and `kwm plan`. */
#include "dense_layers.h"

#include <string.h>

/* Floats of a layer's arrays on rank `me`, 0 where it does not hold one: one list for allocation and `kwm plan`. */
enum { LAYER_ARRAYS = 9 };
struct layer_array {
  float **at;
  size_t floats;
};

static void layer_arrays(const struct kwm_model *model, const struct kwm_stages *stages, int me, int l, int64_t n_max,
                         const struct kwm_pipe_spec *spec, struct dense_layer *layer,
                         struct layer_array arrays[LAYER_ARRAYS]) {
  const struct kwm_group *const g = dense_group(model, l);
  const bool here = dense_owner(stages, model, l) == me, before = l > 0 && dense_owner(stages, model, l - 1) == me;
  const bool sampled = spec->evidence == KWM_EVIDENCE_SAMPLED, first = l == 0;
  const bool sends = here && l > 0 && !before && dense_follows(model, l - 1);
  const size_t n = (size_t)n_max, rows = n * (size_t)kwm_pipe_rows(model, spec->evidence);
  const size_t d_i = (size_t)g->d_i, d_o = (size_t)g->d_o;
  const struct layer_array list[LAYER_ARRAYS] = {
      {&layer->a, here || before ? n * d_i : 0},
      {&layer->aU, here && first ? n * d_i : 0},
      {&layer->y, here && first ? n * d_o : 0},
      {&layer->u, here ? n * d_o : 0},
      {&layer->e, here && spec->evidence == KWM_EVIDENCE_EXACT ? n * (size_t)model->classes : 0},
      {&layer->rows.J, here ? rows * d_o : 0},
      {&layer->rows.g, here && sampled ? n * d_o : 0},
      {&layer->below.J, sends ? rows * (d_i - 1) : 0},
      {&layer->below.g, sends && sampled ? n * (d_i - 1) : 0},
  };
  memcpy(arrays, list, sizeof list);
}

/* The same for a hidden layer's own read-out, whose inputs are the next layer's. */
enum { READOUT_ARRAYS = 4 };
static void readout_arrays(const struct kwm_model *model, const struct kwm_stages *stages, int me, int l, int64_t n_max,
                           const struct kwm_pipe_spec *spec, struct dense_layer *readout,
                           struct layer_array arrays[READOUT_ARRAYS]) {
  const bool here = dense_has_readout(model, l) && dense_owner(stages, model, l) == me;
  const size_t n = here ? (size_t)n_max : 0, m = (size_t)model->classes;
  const struct layer_array list[READOUT_ARRAYS] = {
      {&readout->u, n * m},
      {&readout->e, spec->evidence == KWM_EVIDENCE_EXACT ? n * m : 0},
      {&readout->rows.J, n * (size_t)kwm_pipe_rows(model, spec->evidence) * m},
      {&readout->rows.g, spec->evidence == KWM_EVIDENCE_SAMPLED ? n * m : 0},
  };
  memcpy(arrays, list, sizeof list);
}

/* Each rounded; exact: as they are. */
static size_t sum_of(int n, const struct layer_array *arrays, bool exact) {
  size_t bytes = 0;
  for (int k = 0; k < n; k++) {
    const size_t of_array = arrays[k].floats * sizeof(float);
    if (arrays[k].floats > 0) bytes += exact ? of_array : kwm_mem_rounded(of_array);
  }
  return bytes;
}

static size_t all_arrays(const struct kwm_model *model, const struct kwm_stages *stages, int group_rank, int64_t n_max,
                         const struct kwm_pipe_spec *spec, bool exact) {
  struct dense_layer none;
  struct layer_array layers[LAYER_ARRAYS], readouts[READOUT_ARRAYS];
  size_t bytes = 0;
  for (int l = 0; l <= model->n_layers; l++) {
    layer_arrays(model, stages, group_rank, l, n_max, spec, &none, layers);
    readout_arrays(model, stages, group_rank, l, n_max, spec, &none, readouts);
    bytes += sum_of(LAYER_ARRAYS, layers, exact) + sum_of(READOUT_ARRAYS, readouts, exact);
  }
  return bytes;
}

size_t dense_bytes(const struct kwm_model *model, const struct kwm_stages *stages, int group_rank, int64_t n_max,
                   const struct kwm_pipe_spec *spec) {
  return kwm_mem_rounded(sizeof(struct dense_pipe)) + kwm_mem_rounded((size_t)n_max) +
         all_arrays(model, stages, group_rank, n_max, spec, false);
}

size_t dense_device_bytes(const struct kwm_model *model, const struct kwm_stages *stages, int group_rank, int64_t n_max,
                          const struct kwm_pipe_spec *spec) {
  return all_arrays(model, stages, group_rank, n_max, spec, true);
}

/* ---- making */

static kwm_status allocate(kwm_device *device, int n, const struct layer_array *arrays) {
  for (int k = 0; k < n; k++)
    if (arrays[k].floats > 0)
      KWM_TRY(kwm_device_alloc(device, (void **)arrays[k].at, arrays[k].floats * sizeof(float), "activations"));
  return KWM_OK;
}

kwm_status dense_create(struct kwm_pipe **common, const struct kwm_pipe *filled) {
  const struct kwm_model *const model = filled->model;
  kwm_device *const device = filled->spec.device;
  struct layer_array layers[LAYER_ARRAYS], readouts[READOUT_ARRAYS];
  KWM_TRY(kwm_alloc((void **)common, sizeof(struct dense_pipe), "pipe"));
  struct dense_pipe *const pipe = (struct dense_pipe *)*common;
  pipe->common = *filled;
  pipe->per_sample = kwm_pipe_rows(model, filled->spec.evidence);
  for (int l = 0; l <= model->n_layers; l++) {
    layer_arrays(model, filled->stages, filled->me, l, filled->n_max, &filled->spec, &pipe->layer[l], layers);
    KWM_TRY(allocate(device, LAYER_ARRAYS, layers));
    if (!dense_has_readout(model, l)) continue;
    readout_arrays(model, filled->stages, filled->me, l, filled->n_max, &filled->spec, &pipe->readout[l], readouts);
    KWM_TRY(allocate(device, READOUT_ARRAYS, readouts));
  }
  /* The 1 that layer 0's inputs end in; the others' come from kwm_relu_forward. */
  if (pipe->layer[0].a != NULL) KWM_TRY(pipe_append_ones(&pipe->common, model->length + 1, pipe->layer[0].a));
  return kwm_device_alloc(device, (void **)&pipe->common.labels, (size_t)filled->n_max, "labels");
}

void dense_destroy(struct kwm_pipe *common) {
  struct dense_pipe *const pipe = (struct dense_pipe *)common;
  kwm_device *const device = common->spec.device;
  for (int l = 0; l <= common->model->n_layers; l++) {
    struct layer_array layers[LAYER_ARRAYS], readouts[READOUT_ARRAYS];
    layer_arrays(common->model, common->stages, common->me, l, 0, &common->spec, &pipe->layer[l], layers);
    for (int k = 0; k < LAYER_ARRAYS; k++) kwm_device_free(device, *layers[k].at);
    if (!dense_has_readout(common->model, l)) continue;
    readout_arrays(common->model, common->stages, common->me, l, 0, &common->spec, &pipe->readout[l], readouts);
    for (int k = 0; k < READOUT_ARRAYS; k++) kwm_device_free(device, *readouts[k].at);
  }
}
