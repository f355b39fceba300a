/* Arithmetic on shapes. */
#include "slab.h"

#include <stdio.h>

enum {
  ARRAY_OVERHEAD_BYTES = 1 << 13, /* headers of the array and its parent groups */
};

static int64_t element_bytes(enum kwm_type type) {
  return type == KWM_F32 ? 4 : 8;
}

int64_t kwm_slab_row_bytes(const struct kwm_slab *slab) {
  int64_t bytes = element_bytes(slab->type);
  for (int d = 1; d < slab->n_dims; d++) bytes *= slab->dims[d];
  return bytes;
}

int64_t kwm_slab_file_bytes(const struct kwm_slab *slab) {
  return ARRAY_OVERHEAD_BYTES + slab->dims[0] * kwm_slab_row_bytes(slab);
}

const char *kwm_slab_words(char *text, enum kwm_type type, int n_dims, const int64_t *dims) {
  static const char *const names[] = {[KWM_F32] = "f32", [KWM_F64] = "f64", [KWM_I64] = "i64"};
  int used = snprintf(text, KWM_SLAB_WORDS, "%s (", names[type]);
  for (int d = 0; d < n_dims; d++)
    used += snprintf(text + used, (size_t)(KWM_SLAB_WORDS - used), "%s%lld", d > 0 ? ", " : "", (long long)dims[d]);
  snprintf(text + used, (size_t)(KWM_SLAB_WORDS - used), ")");
  return text;
}
