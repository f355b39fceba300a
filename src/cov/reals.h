/* Numbers kept in double or in float (cov.GROUP.real), read and written in double. */
#pragma once

#include "kwm/cov_ops.h"

struct reals {
  double *f64; /* one of the two is NULL */
  float *f32;
};

static inline size_t reals_size(enum kwm_real real) {
  return real == KWM_REAL_DOUBLE ? sizeof(double) : sizeof(float);
}

/* Bytes that reals_alloc takes from kwm_alloc's account. */
static inline size_t reals_bytes(enum kwm_real real, int64_t n) {
  return kwm_mem_rounded((size_t)n * reals_size(real));
}

/* n zeros; freed by reals_free. */
static inline kwm_status reals_alloc(struct reals *reals, enum kwm_real real, int64_t n, const char *what) {
  return kwm_alloc(real == KWM_REAL_DOUBLE ? (void **)&reals->f64 : (void **)&reals->f32, (size_t)n * reals_size(real),
                   what);
}

static inline void reals_free(struct reals *reals) {
  kwm_free(reals->f64);
  kwm_free(reals->f32);
}

static inline double reals_get(const struct reals *reals, int64_t k) {
  return reals->f64 != NULL ? reals->f64[k] : (double)reals->f32[k];
}

static inline void reals_set(struct reals *reals, int64_t k, double value) {
  if (reals->f64 != NULL)
    reals->f64[k] = value;
  else
    reals->f32[k] = (float)value;
}

/* For checkpoints. */
static inline void *reals_data(const struct reals *reals) {
  return reals->f64 != NULL ? (void *)reals->f64 : (void *)reals->f32;
}

static inline enum kwm_type reals_type(enum kwm_real real) {
  return real == KWM_REAL_DOUBLE ? KWM_F64 : KWM_F32;
}
