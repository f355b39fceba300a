/* Private to app: what is done about numbers gone bad, by the keys failure.* and filter.max_skips. The same answer on
   all ranks. */
#pragma once

#include "loop.h"

/* Some policy inflates P: the filter has to be made for it. */
bool kwm_failure_inflates(const struct kwm_config *config);

/* What the policies ask of the other keys. Local. */
kwm_status kwm_failure_check(const struct kwm_config *config);

/* After a step: if it was skipped, one warning that names rank, place, step and numbers; KWM_ERR_NUMERIC with the same
   words where the policy is to stop, or after filter.max_skips in a row. */
kwm_status kwm_failure_step(const struct kwm_loop *loop, const struct kwm_loop_place *place,
                            const struct kwm_loop_step *step);

/* Before a row of metrics.tsv: is its mean NIS beyond failure.nis? */
kwm_status kwm_failure_row(const struct kwm_loop *loop, const struct kwm_loop_place *place);
