/* Private to io: a folder of checkpoints, step-XXXXXXXXXX.h5. Local: rank 0 calls what touches the folder. */
#pragma once

#include "kwm/base.h"

/* path holds KWM_FILE_PATH bytes. */
kwm_status kwm_steps_path(char *path, const char *dir, int64_t step, const char *suffix);

/* The steps that have a checkpoint, newest first; *steps is malloc'ed. KWM_ERR_DATA if there is none. */
kwm_status kwm_steps_list(const char *dir, int64_t **steps, int64_t *n);

/* Of the checkpoints up to `step`, removes all but the newest `keep`; removes .part files. Later ones stay and do not
   count: a run that resumed before them passed them over because they are damaged. Neither do multiples of `every` (0:
   none). Warns of what it can't remove. clean: removes .part files only. */
void kwm_steps_prune(const char *dir, int64_t step, int64_t keep, int64_t every);
void kwm_steps_clean(const char *dir);

/* Length of the newest checkpoint, 0 if there is none. */
int64_t kwm_steps_newest_bytes(const char *dir);
