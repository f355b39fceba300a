/* Private to filter: the facts that are kept of every block, in this order in filter->facts (parts.c). */
#pragma once

#include "kwm/filter.h"

enum { FILTER_KL, FILTER_EXPECTED, FILTER_SLOPE, FILTER_MOVED, FILTER_PRODUCT, FILTER_GAIN, FILTER_FACTS };

/* A group's fact, added in block order whoever owns the blocks. */
static inline double total_of(const struct kwm_filter_group *group, const double *fact) {
  double total = 0;
  for (int64_t b = 0; b < group->part.total; b++) total += fact[b];
  return total;
}
