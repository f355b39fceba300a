/* The order of training samples: a permutation keyed by (seed, epoch), so that a resumed run, or one on another number
   of ranks, meets the same samples in the same steps. */
#include "kwm/data.h"

#include "kwm/rng.h"

void kwm_order(uint64_t seed, int64_t epoch, int64_t n, int32_t *order) {
  KWM_ASSERT(epoch >= 0 && n <= INT32_MAX);
  kwm_rng_permutation(seed, KWM_RNG_ORDER, (uint64_t)epoch, n, order);
}
