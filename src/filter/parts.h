/* Private to filter: the facts that are kept of every block, in this order in filter->facts (parts.c). */
#pragma once

#include "kwm/filter.h"

enum { FILTER_KL, FILTER_EXPECTED, FILTER_SLOPE, FILTER_MOVED, FILTER_PRODUCT, FILTER_GAIN, FILTER_FACTS };

/* shared_device.c. bytes: of an S that is on the device, alone or summed over ranks. init: after all groups; S_there
   stays empty where it is the host's. form: S and e, collective; solve: L in S_there, S⁻¹e in w and w_there, false: not
   positive definite. */
size_t shared_there_bytes(const struct kwm_filter_spec *spec, bool alone, int64_t m);
kwm_status shared_there_init(struct kwm_filter *filter);
void shared_there_form(struct kwm_filter *filter, const struct kwm_lin *lin);
bool shared_there_solve(struct kwm_filter *filter, int64_t rows);
bool shared_there_condition(struct kwm_filter *filter, struct kwm_filter_group *group, const struct kwm_jac *jac);

/* A group's fact, added in block order whoever owns the blocks. */
static inline double total_of(const struct kwm_filter_group *group, const double *fact) {
  double total = 0;
  for (int64_t b = 0; b < group->part.total; b++) total += fact[b];
  return total;
}
