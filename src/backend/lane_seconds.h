/* Private to backend: the clock of marks that no device keeps. */
#pragma once

#include <time.h>

static inline double lane_seconds(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}
