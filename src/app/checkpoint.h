/* Private to app: a training run to and from its checkpoints. */
#pragma once

#include "progress.h"

/* DIR/checkpoints gets one of the current step; the last checkpoint.keep are kept. Collective. A run whose means are
   not finite is never saved (KWM_ERR_NUMERIC). */
kwm_status kwm_checkpoint_save(struct kwm_run *run, const struct kwm_progress *progress, const char *dir);

/* Learner and counts from an open checkpoint. KWM_ERR_DATA if it is of another model. Collective. */
kwm_status kwm_checkpoint_load(struct kwm_run *run, struct kwm_progress *progress, kwm_ckpt *ckpt);

/* Refuses a checkpoint whose model or data keys differ from the run's configuration. Collective. */
kwm_status kwm_checkpoint_matches(const struct kwm_run *run, kwm_ckpt *ckpt);
