/* Private to app: what is done about numbers gone bad, by the keys failure.*. The same answer on all ranks. */
#pragma once

#include "progress.h"

/* Some policy inflates P: the filter has to be made for it. */
bool kwm_failure_inflates(const struct kwm_config *config);

/* What the policies ask of the other keys. Local. */
kwm_status kwm_failure_check(const struct kwm_config *config);

/* After a step was counted: one warning that names rank, group, step and numbers if it was skipped; KWM_ERR_NUMERIC
   with the same words where the policy is to stop. */
kwm_status kwm_failure_step(struct kwm_run *run, const struct kwm_progress *progress, const struct kwm_step *step);

/* Before a row of metrics.tsv: is its mean NIS beyond failure.nis? */
kwm_status kwm_failure_row(struct kwm_run *run, const struct kwm_progress *progress);
