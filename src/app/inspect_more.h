/* Private to app: kwm inspect --verify and --diff. Collective over world. */
#pragma once

#include "run.h"

/* Every checkpoint of the subjects, folders or files: a line each, good or damaged; KWM_ERR_DATA if one is damaged. */
kwm_status kwm_inspect_verify(struct kwm_layout *world, int n, char **subjects);

/* Arrays of two checkpoints (of a folder the newest good one) beside each other: the largest difference of each. */
kwm_status kwm_inspect_diff(struct kwm_layout *world, const char *one, const char *other);
