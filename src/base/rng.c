/* Philox4x32-10 with counter (index low, index high, step, purpose) and the seed as key. Normals by Box-Muller. */
#include "kwm/rng.h"

#include <Random123/philox.h>
#include <math.h>

static philox4x32_ctr_t draw(uint64_t seed, enum kwm_rng_purpose purpose, uint64_t step, uint64_t index) {
  const philox4x32_ctr_t counter = {
      {(uint32_t)index, (uint32_t)(index >> 32), (uint32_t)step, (uint32_t)purpose ^ (uint32_t)((step >> 32) << 8)}};
  const philox4x32_key_t key = {{(uint32_t)seed, (uint32_t)(seed >> 32)}};
  return philox4x32(counter, key);
}

static double unit(uint32_t high, uint32_t low) {
  const uint64_t bits = ((uint64_t)high << 32 | low) >> 11;
  return ((double)bits + 0.5) * 0x1p-53;
}

double kwm_rng_uniform(uint64_t seed, enum kwm_rng_purpose purpose, uint64_t step, uint64_t index) {
  const philox4x32_ctr_t words = draw(seed, purpose, step, index);
  return unit(words.v[0], words.v[1]);
}

double kwm_rng_normal(uint64_t seed, enum kwm_rng_purpose purpose, uint64_t step, uint64_t index) {
  const philox4x32_ctr_t words = draw(seed, purpose, step, index);
  const double radius = sqrt(-2.0 * log(unit(words.v[0], words.v[1])));
  return radius * cos(2.0 * M_PI * unit(words.v[2], words.v[3]));
}

uint64_t kwm_rng_below(uint64_t seed, enum kwm_rng_purpose purpose, uint64_t step, uint64_t index, uint64_t bound) {
  return (uint64_t)(kwm_rng_uniform(seed, purpose, step, index) * (double)bound);
}

void kwm_rng_permutation(uint64_t seed, enum kwm_rng_purpose purpose, uint64_t step, int64_t n, int32_t *order) {
  for (int64_t i = 0; i < n; i++) order[i] = (int32_t)i;
  kwm_rng_shuffle(seed, purpose, step, n, 0, order);
}

void kwm_rng_shuffle(uint64_t seed, enum kwm_rng_purpose purpose, uint64_t step, int64_t from, int64_t to,
                     int32_t *order) {
  for (int64_t i = from - 1; i >= to; i--) {
    const int64_t j = (int64_t)kwm_rng_below(seed, purpose, step, (uint64_t)i, (uint64_t)i + 1);
    const int32_t swap = order[i];
    order[i] = order[j];
    order[j] = swap;
  }
}
