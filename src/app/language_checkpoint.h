/* Private to app: a language model's run to and from its checkpoints. */
#pragma once

#include "language_progress.h"

/* The learner, the counts, and where the run is. Collective. */
kwm_status kwm_language_checkpoint_put(const struct kwm_language_progress *progress, kwm_ckpt *ckpt);

/* Refuses a checkpoint of another model, text or order of steps. Collective. */
kwm_status kwm_language_checkpoint_matches(const struct kwm_language_run *run, kwm_ckpt *ckpt);
kwm_status kwm_language_checkpoint_load(struct kwm_language_progress *progress, kwm_ckpt *ckpt);
