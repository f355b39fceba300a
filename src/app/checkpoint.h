/* Private to app: a training run to and from its checkpoints. */
#pragma once

#include "progress.h"

/* The learner, the counts, and where the run is. Collective. */
kwm_status kwm_checkpoint_put(const struct kwm_run *run, const struct kwm_progress *progress, kwm_ckpt *ckpt);

/* All means of this rank are finite. Local. */
bool kwm_checkpoint_finite(const struct kwm_run *run);

/* Learner and counts from an open checkpoint. KWM_ERR_DATA if it is of another model. Collective. */
kwm_status kwm_checkpoint_load(struct kwm_run *run, struct kwm_progress *progress, kwm_ckpt *ckpt);

/* Refuses a checkpoint whose model or data keys differ from the run's configuration. Collective. */
kwm_status kwm_checkpoint_matches(const struct kwm_run *run, kwm_ckpt *ckpt);
