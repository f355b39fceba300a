/* The host's table of a transformer's operations; dropout, embedding, and sums over places and sequences. */
#include "tensor_host.h"

#include "dropout.h"
#include "kwm/device_ops.h"

void tensor_keep4(const struct kwm_dropout *drop, int64_t row, int64_t quad, float factors[4]) {
  const philox4x32_ctr_t words = dropout_words(drop, row, quad);
  const uint32_t threshold = dropout_threshold(drop);
  const float scale = dropout_scale(drop);
  for (int k = 0; k < 4; k++) factors[k] = words.v[k] < threshold ? 0 : scale;
}

float kwm_tensor_keep(const struct kwm_dropout *drop, int64_t row, int64_t column) {
  if (!(drop->rate > 0)) return 1;
  float factors[4];
  tensor_keep4(drop, row, column / 4, factors);
  return factors[column % 4];
}

int64_t kwm_tensor_norm_scratch(int64_t n, int64_t width) {
  return (n < TENSOR_NORM_PARTS ? n : TENSOR_NORM_PARTS) * width;
}

int64_t kwm_tensor_read_rows(int64_t classes) {
  return tensor_read_ld(classes);
}

int64_t kwm_tensor_read_room(int64_t n, int64_t classes, int64_t width, bool half) {
  const int64_t ld = tensor_read_ld(classes);
  return TENSOR_READ_COLUMNS + n * ld + (half ? (n * ld + ld * width + n * width + 1) / 2 : ld * width);
}

static void drop_row(const struct kwm_dropout *drop, int64_t row, int64_t width, float *x) {
  if (!(drop->rate > 0)) return;
  for (int64_t first = 0; first < width; first += 4) {
    float factors[4];
    tensor_keep4(drop, row, first / 4, factors);
    for (int64_t k = first; k < width && k < first + 4; k++) x[k] *= factors[k - first];
  }
}

static void embed(kwm_device *d, int64_t n, int64_t width, int64_t context, const int32_t *ids, const float *E,
                  const float *pos, const struct kwm_dropout *drop, float *x) {
  (void)d;
  for (int64_t r = 0; r < n; r++) {
    const float *const token = E + ids[r] * width, *const place = pos + r % context * width;
    float *const to = x + r * width;
    for (int64_t k = 0; k < width; k++) to[k] = token[k] + place[k];
    drop_row(drop, r, width, to);
  }
}

static void gather(kwm_device *d, int64_t width, const struct kwm_gather *gather, const float *x, float *table) {
  (void)d;
  for (int64_t kind = 0; kind < gather->count; kind++) {
    float *const to = table + gather->kinds[kind] * width;
    for (int64_t at = gather->begin[kind]; at < gather->begin[kind + 1]; at++) {
      const float *const from = x + gather->places[at] * width;
      for (int64_t k = 0; k < width; k++) to[k] += from[k];
    }
  }
}

static void fold(kwm_device *d, int64_t n, int64_t width, int64_t context, const float *x, float *sums) {
  (void)d;
  for (int64_t r = 0; r < n; r++) {
    float *const to = sums + r % context * width;
    for (int64_t k = 0; k < width; k++) to[k] += x[r * width + k];
  }
}

const struct kwm_tensor_ops kwm_tensor_host = {
    .embed = embed,
    .gather = gather,
    .fold = fold,
    .norm = tensor_norm,
    .norm_adjoint = tensor_norm_adjoint,
    .attention = tensor_attention,
    .attention_adjoint = tensor_attention_adjoint,
    .gelu = tensor_gelu,
    .gelu_adjoint = tensor_gelu_adjoint,
    .residual = tensor_residual,
    .categorical = tensor_categorical,
    .riccati = tensor_riccati,
    .adam = tensor_adam,
    .drift = tensor_drift,
    .norm2 = tensor_norm2,
    .quadratic = tensor_quadratic,
    .basis = tensor_basis,
    .read = tensor_read,
    .likely = tensor_likely,
    .inform = tensor_inform,
    .inform_low = tensor_inform_low,
    .shrink_low = tensor_shrink_low,
    .tally = tensor_tally,
    .lean = tensor_lean,
    .steer = tensor_steer,
    .shift = tensor_shift,
};

const struct kwm_tensor_ops *kwm_tensor_of(const kwm_device *device) {
  return device == NULL ? &kwm_tensor_host : device->ops->tensor;
}
