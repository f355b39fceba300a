/* Tensors, initial means and stages of the transformer. Matrices begin with deviation 0.02, those that write into the
   residual stream with 0.02 / sqrt(2 layers), so that depth does not change its power (Radford et al. 2019). */
#include "kwm/transformer.h"

#include <math.h>
#include <stdio.h>

#include "kwm/rng.h"

static const float SPREAD = 0.02f;

static struct kwm_tensor *add(struct kwm_transformer *model, enum kwm_tensor_role role, int64_t rows, int64_t columns) {
  KWM_ASSERT(model->n_tensors < KWM_TENSORS_MAX);
  struct kwm_tensor *const tensor = &model->tensors[model->n_tensors++];
  *tensor = (struct kwm_tensor){.role = role, .rows = rows, .columns = columns, .spread = SPREAD};
  return tensor;
}

static void add_layer(struct kwm_transformer *model, int layer, int stage) {
  static const char *const names[KWM_LAYER_TENSORS] = {"norm_a", "qkv", "mix", "norm_f", "up", "down"};
  const int64_t d = model->width;
  const struct {
    int64_t rows, columns;
  } shapes[KWM_LAYER_TENSORS] = {{1, d}, {3 * d, d}, {d, d}, {1, d}, {model->ratio * d, d}, {d, model->ratio * d}};
  for (int k = 0; k < KWM_LAYER_TENSORS; k++) {
    const bool norm = k == KWM_LAYER_NORM_A || k == KWM_LAYER_NORM_F;
    struct kwm_tensor *const tensor =
        add(model, norm ? KWM_TENSOR_VECTOR : KWM_TENSOR_MATRIX, shapes[k].rows, shapes[k].columns);
    tensor->stage = stage;
    snprintf(tensor->name, sizeof tensor->name, "layer%d_%s", layer + 1, names[k]);
    if (norm) tensor->middle = 1, tensor->spread = 0;
    if (k == KWM_LAYER_MIX || k == KWM_LAYER_DOWN) tensor->spread = SPREAD / sqrtf(2 * (float)model->layers);
  }
}

int kwm_transformer_first(const struct kwm_transformer *model, int stage) {
  return (int)((int64_t)stage * model->layers / model->stages);
}

kwm_status kwm_transformer_lay_out(struct kwm_transformer *model) {
  KWM_CHECK(model->width % model->heads == 0, KWM_ERR_USAGE,
            "config: wanted model.heads to divide model.width %lld, found %lld", (long long)model->width,
            (long long)model->heads);
  KWM_CHECK(model->layers >= 1 && model->layers <= KWM_TRANSFORMER_LAYERS_MAX && model->stages >= 1 &&
                model->stages <= model->layers && model->stages <= KWM_TRANSFORMER_STAGES_MAX,
            KWM_ERR_USAGE, "config: wanted 1 to %d stages, at most one a layer of 1 to %d, found %d of %d layers",
            KWM_TRANSFORMER_STAGES_MAX, KWM_TRANSFORMER_LAYERS_MAX, model->stages, model->layers);
  model->n_tensors = 0;
  struct kwm_tensor *tensor = add(model, KWM_TENSOR_EMBEDDING, model->types, model->width);
  snprintf(tensor->name, sizeof tensor->name, "embedding");
  tensor->stage = model->stages - 1;
  tensor = add(model, KWM_TENSOR_VECTOR, model->context, model->width);
  snprintf(tensor->name, sizeof tensor->name, "position");
  for (int stage = 0; stage < model->stages; stage++)
    for (int layer = kwm_transformer_first(model, stage); layer < kwm_transformer_first(model, stage + 1); layer++)
      add_layer(model, layer, stage);
  for (int stage = 0; stage < model->stages; stage++) {
    tensor = add(model, KWM_TENSOR_VECTOR, 1, model->width);
    tensor->stage = stage;
    tensor->middle = 1, tensor->spread = 0;
    snprintf(tensor->name, sizeof tensor->name, "readout%d_norm", stage + 1);
  }
  return KWM_OK;
}

int kwm_transformer_tensor(int layer, enum kwm_layer_tensor which) {
  return KWM_TENSOR_FIRST_LAYER + layer * KWM_LAYER_TENSORS + (int)which;
}

int kwm_transformer_readout(const struct kwm_transformer *model, int stage) {
  return KWM_TENSOR_FIRST_LAYER + model->layers * KWM_LAYER_TENSORS + stage;
}

int64_t kwm_transformer_parameters(const struct kwm_transformer *model) {
  int64_t n = 0;
  for (int t = 0; t < model->n_tensors; t++) n += model->tensors[t].rows * model->tensors[t].columns;
  return n;
}

void kwm_transformer_initial(const struct kwm_transformer *model, int t, uint64_t seed, float *mean) {
  const struct kwm_tensor *const tensor = &model->tensors[t];
  for (int64_t k = 0; k < tensor->rows * tensor->columns; k++)
    mean[k] =
        tensor->middle +
        (tensor->spread > 0 ? tensor->spread * (float)kwm_rng_normal(seed, KWM_RNG_INIT, (uint64_t)t, (uint64_t)k) : 0);
}

double kwm_transformer_operations(const struct kwm_transformer *model, int stage) {
  const double d = (double)model->width,
               layers = kwm_transformer_first(model, stage + 1) - kwm_transformer_first(model, stage);
  const double layer = 2 * d * d * (4 + 2 * (double)model->ratio) + 4 * d * (double)model->context;
  return layers * layer + 2 * d * (double)model->types;
}
