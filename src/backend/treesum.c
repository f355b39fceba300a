/* A binary counter of partial sums: adding a chunk carries upwards as adding one to a number does. */
#include "kwm/treesum.h"

#include <string.h>

static int levels_for(int64_t chunks) {
  int levels = 1;
  while ((INT64_C(1) << (levels - 1)) < chunks) levels++;
  return levels;
}

size_t kwm_treesum_bytes(int64_t n, int64_t chunks) {
  return (size_t)(levels_for(chunks) + 1) * kwm_mem_rounded((size_t)n * sizeof(float));
}

kwm_status kwm_treesum_init(struct kwm_treesum *sum, kwm_device *device, int64_t n, int64_t chunks) {
  memset(sum, 0, sizeof *sum);
  sum->device = device;
  sum->n = n;
  sum->levels = levels_for(chunks);
  KWM_ASSERT(sum->levels <= KWM_TREESUM_LEVELS);
  KWM_TRY(kwm_device_alloc(device, (void **)&sum->leaf, (size_t)n * sizeof(float), "chunk sums"));
  for (int i = 0; i < sum->levels; i++)
    KWM_TRY(kwm_device_alloc(device, (void **)&sum->level[i], (size_t)n * sizeof(float), "chunk sums"));
  return KWM_OK;
}

void kwm_treesum_fini(struct kwm_treesum *sum) {
  kwm_device_free(sum->device, sum->leaf);
  for (int i = 0; i < KWM_TREESUM_LEVELS; i++) kwm_device_free(sum->device, sum->level[i]);
  memset(sum, 0, sizeof *sum);
}

float *kwm_treesum_leaf(struct kwm_treesum *sum) {
  kwm_device_zero(sum->device, sum->leaf, (size_t)sum->n * sizeof(float));
  return sum->leaf;
}

static void swap(float **a, float **b) {
  float *const keep = *a;
  *a = *b;
  *b = keep;
}

void kwm_treesum_push(struct kwm_treesum *sum) {
  int i = 0;
  for (; sum->filled & (1u << i); i++) {
    kwm_device_add(sum->device, sum->n, sum->level[i], sum->leaf);
    sum->filled &= ~(1u << i);
  }
  KWM_ASSERT(i < sum->levels);
  swap(&sum->leaf, &sum->level[i]);
  sum->filled |= 1u << i;
}

float *kwm_treesum_finish(struct kwm_treesum *sum) {
  float *total = NULL;
  for (int i = 0; i < sum->levels; i++) {
    if (!(sum->filled & (1u << i))) continue;
    if (total != NULL)
      kwm_device_add(sum->device, sum->n, sum->level[i], total);
    else
      total = sum->level[i];
  }
  KWM_ASSERT(total != NULL);
  sum->filled = 0;
  return total;
}
