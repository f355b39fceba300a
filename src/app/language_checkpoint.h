/* Private to app: a language model's run to and from its checkpoints. */
#pragma once

#include "language_progress.h"

/* DIR/FOLDER gets one of the current step, of which the last `keep` stay. Collective. */
kwm_status kwm_language_checkpoint_save(struct kwm_language_progress *progress, const char *dir, const char *folder,
                                        int64_t keep);
/* Refuses a checkpoint of another model, text or order of steps. Collective. */
kwm_status kwm_language_checkpoint_matches(const struct kwm_language_run *run, kwm_ckpt *ckpt);
kwm_status kwm_language_checkpoint_load(struct kwm_language_progress *progress, kwm_ckpt *ckpt);
