/* The order of training samples: a permutation keyed by (seed, epoch), so that a resumed run, or one on another number
   of ranks, meets the same samples in the same steps. */
#include "kwm/data.h"

#include "kwm/rng.h"

void kwm_order(uint64_t seed, int64_t epoch, int64_t n, int32_t *order) {
  kwm_order_part(seed, epoch, n, n, 0, order);
}

void kwm_order_part(uint64_t seed, int64_t epoch, int64_t n, int64_t from, int64_t to, int32_t *order) {
  KWM_ASSERT(epoch >= 0 && n <= INT32_MAX && 0 <= to && to <= from && from <= n);
  for (int64_t i = 0; from == n && i < n; i++) order[i] = (int32_t)i;
  kwm_rng_shuffle(seed, KWM_RNG_ORDER, (uint64_t)epoch, from, to, order);
}
