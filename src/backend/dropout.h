/* Which elements a dropout keeps (kwm/tensor.h): for the host's compiler and for CUDA's, so that all backends drop the
   same. One draw of Philox4x32-10 serves four columns of a row. */
#pragma once

#include <Random123/philox.h>

#include "kwm/rng.h"
#include "kwm/tensor.h"

#ifdef __CUDACC__
#define DROPOUT_DEVICE __host__ __device__
#else
#define DROPOUT_DEVICE
#endif

/* Words of the draw for columns 4 quad .. 4 quad + 3 of row `row`. */
static DROPOUT_DEVICE inline philox4x32_ctr_t dropout_words(const struct kwm_dropout *drop, int64_t row, int64_t quad) {
  const philox4x32_ctr_t counter = {{(uint32_t)(drop->first + row), (uint32_t)quad, (uint32_t)drop->step,
                                     (uint32_t)KWM_RNG_DROPOUT ^ (drop->site << 8)}};
  const philox4x32_key_t key = {{(uint32_t)drop->seed, (uint32_t)(drop->seed >> 32)}};
  return philox4x32(counter, key);
}

/* A word below this drops its element. */
static DROPOUT_DEVICE inline uint32_t dropout_threshold(const struct kwm_dropout *drop) {
  return (uint32_t)((double)drop->rate * 4294967296.0);
}

static DROPOUT_DEVICE inline float dropout_scale(const struct kwm_dropout *drop) {
  return 1.0f / (1.0f - drop->rate);
}

/* x (n, m, w), rows ld floats apart, on the host (kwm/device.h). */
void dropout_rows(int64_t n, int64_t m, int64_t w, int64_t ld, const struct kwm_dropout *drop, float *x);
