/* What the tests of a transformer's operations (kwm/tensor.h) share: each case runs on the device under test and once
   more on the host's table, against plain loops in double precision that stand in the tests. */
#pragma once

#include "device_case.h"

#include "kwm/tensor.h"

/* NULL device, the host's: memory is the host's and the table is the host's. */
static inline const struct kwm_tensor_ops *case_ops(const struct device_case *c) {
  return kwm_tensor_of(c->device);
}

static inline double *case_zeros(struct device_case *c, int64_t n) {
  return case_host(c, n, sizeof(double));
}

/* Indices (n), each below `count`. */
static inline int32_t *case_indices(struct device_case *c, int64_t n, int64_t count, uint64_t stream) {
  int32_t *const to = case_host(c, n, sizeof *to);
  for (int64_t k = 0; k < n; k++) to[k] = (int32_t)kwm_rng_below(7, KWM_RNG_TEST, stream, (uint64_t)k, (uint64_t)count);
  return to;
}

/* A derivative of `of` in its k-th argument at x (n), by central differences. */
typedef double (*case_function)(const void *arguments, const double *x);
static inline double case_slope(case_function of, const void *arguments, double *x, int64_t k) {
  const double step = 1e-5, at = x[k];
  x[k] = at + step;
  const double above = of(arguments, x);
  x[k] = at - step;
  const double below = of(arguments, x);
  x[k] = at;
  return (above - below) / (2 * step);
}

/* Where central differences lie: at every argument, or at some 40 of them. */
static inline int64_t case_stride(int64_t n) {
  return n > 40 ? n / 40 : 1;
}

/* On the device, then on the host. */
static inline void tensor_run(void (*body)(struct device_case *c, const int64_t *sizes), const int64_t *sizes) {
  kwm_device *const device = test_device;
  case_run(body, sizes);
  test_device = NULL;
  case_run(body, sizes);
  test_device = device;
}

#define tensor_run_all(body, table)                                                                                    \
  for (size_t case_row_ = 0; case_row_ < sizeof(table) / sizeof *(table); case_row_++)                                 \
  tensor_run((body), (table)[case_row_])
