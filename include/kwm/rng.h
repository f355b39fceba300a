/* Counter-based random numbers (Philox4x32-10, Random123), keyed by meaning: the same key gives the same draw on every
   rank, whatever was drawn before. All functions are local and pure. */
#pragma once

#include <stdint.h>

/* What a draw is for: two purposes never share a stream. Values are part of the checkpoint's meaning: append only. */
enum kwm_rng_purpose {
  KWM_RNG_ORDER = 1,      /* order of samples; index = position, step = epoch */
  KWM_RNG_PIXELS = 2,     /* permutation of pixels; index = position */
  KWM_RNG_INIT = 3,       /* initial means; step = parameter group, index = element */
  KWM_RNG_TEST = 4,       /* instances that tests make */
  KWM_RNG_SUBSPACE = 5,   /* first subspace of a low-rank covariance; step = 0, index = element */
  KWM_RNG_THEORY = 6,     /* instances of kwm verify; step = group of claims, index = draw */
  KWM_RNG_TASK = 7,       /* tasks of a stream; step = use << 32 | task, index = position */
  KWM_RNG_LABELS = 8,     /* labels drawn from the model; step = step of the run, index = place in the mini-batch */
  KWM_RNG_PREDICTIVE = 9, /* logits drawn from their posterior; step = task << 32 | sample, index = draw and class */
  KWM_RNG_DROPOUT = 10,   /* what is dropped; site in the purpose's word; counter: step, row, column (kwm/tensor.h) */
  KWM_RNG_SHIFT = 11,     /* shifted text; step = use, index = token or word */
  KWM_RNG_SERIES = 20,    /* series of a known system; step = step of the series, index = use << 32 | component */
  KWM_RNG_WORLD = 21,     /* a world model's initial means and centres; step = use, index = element */
  KWM_RNG_TOPIC = 12,     /* topics of documents; step 0: hash of word index; step = attempt, index = centre */
  KWM_RNG_MOVE = 13,      /* how images are moved; step = step of the run, index = place in the mini-batch */
  KWM_RNG_SAMPLE = 14,    /* sampled text; step 0, index = position */
  KWM_RNG_CORRECT = 15,   /* classes drawn by a correction; step = token of a stream, index = stream and draw */
};

/* One draw of (seed, purpose, step, index): uniform on (0,1), or normal with mean 0 and variance 1. */
double kwm_rng_uniform(uint64_t seed, enum kwm_rng_purpose purpose, uint64_t step, uint64_t index);
double kwm_rng_normal(uint64_t seed, enum kwm_rng_purpose purpose, uint64_t step, uint64_t index);

/* Uniform integer in [0, bound), bound >= 1. */
uint64_t kwm_rng_below(uint64_t seed, enum kwm_rng_purpose purpose, uint64_t step, uint64_t index, uint64_t bound);

/* Fills order[0..n) with a permutation of 0..n-1 (Fisher-Yates over keyed draws, from the last place to the first). */
void kwm_rng_permutation(uint64_t seed, enum kwm_rng_purpose purpose, uint64_t step, int64_t n, int32_t *order);

/* Its part that settles places from - 1 down to `to`: from 0..n-1, several calls from n down to 0 make the whole. */
void kwm_rng_shuffle(uint64_t seed, enum kwm_rng_purpose purpose, uint64_t step, int64_t from, int64_t to,
                     int32_t *order);
