/* Arithmetic on shapes: chunks do not depend on the split over ranks, so a file's bytes mean the same on any layout. */
#include "slab.h"

#include <stdio.h>

enum {
  CHUNK_BYTES = 1 << 20,
  CHUNK_OVERHEAD_BYTES = 32,      /* checksum and index entry */
  ARRAY_OVERHEAD_BYTES = 1 << 14, /* headers of the array, its index and its parent groups */
};

static int64_t element_bytes(enum kwm_type type) {
  return type == KWM_F32 ? 4 : 8;
}

int64_t kwm_slab_row_bytes(const struct kwm_slab *slab) {
  int64_t bytes = element_bytes(slab->type);
  for (int d = 1; d < slab->n_dims; d++) bytes *= slab->dims[d];
  return bytes;
}

static int64_t chunk_bytes(const struct kwm_slab *slab, const int64_t *chunk) {
  int64_t bytes = element_bytes(slab->type);
  for (int d = 0; d < slab->n_dims; d++) bytes *= chunk[d];
  return bytes;
}

void kwm_slab_chunk(const struct kwm_slab *slab, int64_t *chunk) {
  for (int d = 0; d < slab->n_dims; d++) chunk[d] = slab->dims[d] > 0 ? slab->dims[d] : 1;
  for (int d = 0; d < slab->n_dims; d++)
    while (chunk[d] > 1 && chunk_bytes(slab, chunk) > CHUNK_BYTES) chunk[d] = (chunk[d] + 1) / 2;
}

int64_t kwm_slab_file_bytes(const struct kwm_slab *slab) {
  int64_t chunk[KWM_SLAB_DIMS];
  kwm_slab_chunk(slab, chunk);
  int64_t n = 1;
  for (int d = 0; d < slab->n_dims; d++) n *= (slab->dims[d] + chunk[d] - 1) / chunk[d];
  return ARRAY_OVERHEAD_BYTES + n * (chunk_bytes(slab, chunk) + CHUNK_OVERHEAD_BYTES);
}

const char *kwm_slab_words(char *text, enum kwm_type type, int n_dims, const int64_t *dims) {
  static const char *const names[] = {[KWM_F32] = "f32", [KWM_F64] = "f64", [KWM_I64] = "i64"};
  int used = snprintf(text, KWM_SLAB_WORDS, "%s (", names[type]);
  for (int d = 0; d < n_dims; d++)
    used += snprintf(text + used, (size_t)(KWM_SLAB_WORDS - used), "%s%lld", d > 0 ? ", " : "", (long long)dims[d]);
  snprintf(text + used, (size_t)(KWM_SLAB_WORDS - used), ")");
  return text;
}
