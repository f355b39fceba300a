/* Private to app: the spectrum of one parameter group, from a filter to a file and a table. */
#pragma once

#include "kwm/filter.h"
#include "kwm/spectrum.h"

struct kwm_group_spectrum {
  const char *name;              /* the group's, or `full` */
  int64_t blocks, width, last;   /* of the group; values of a block; directions that its last value stands for */
  int64_t first, count;          /* blocks that this rank writes */
  double *values, *facts, *gain; /* (count, width); (KWM_SPECTRUM_FACTS, blocks) and (blocks), the same on all ranks */
};

/* Spectra that a filter has: one for each group, or one in all. */
int kwm_group_spectra(const struct kwm_filter *filter);

/* The spectrum of group g. fini also after a failure. Collective over the layout's world. KWM_ERR_NUMERIC: the
   covariance is not positive definite. */
kwm_status kwm_group_spectrum_init(struct kwm_group_spectrum *spectrum, const struct kwm_filter *filter, int g);
void kwm_group_spectrum_fini(struct kwm_group_spectrum *spectrum); /* accepts a zeroed one */

/* The two steps of init for values that come from elsewhere: room, for shapes that are set; facts of all ranks' values,
   collective over the layout's group. */
kwm_status kwm_group_spectrum_allocate(struct kwm_group_spectrum *spectrum);
void kwm_group_spectrum_share(struct kwm_group_spectrum *spectrum, struct kwm_layout *layout);

/* /spectra/NAME/... in an open file; overwrites values. Collective over the layout's world. */
kwm_status kwm_group_spectrum_put(struct kwm_group_spectrum *spectrum, const struct kwm_layout *layout, kwm_ckpt *file);

/* Column names; one line for the group, and three of what is least, in the middle and most among its blocks if it has
   many. Local. */
void kwm_group_spectrum_head(void);
void kwm_group_spectrum_print(const struct kwm_group_spectrum *spectrum);
