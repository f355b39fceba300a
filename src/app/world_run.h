/* Private to app: commands on world models (model.kind statespace or koopman), called once the configuration is read.
 */
#pragma once

#include "run.h"

bool kwm_world_wanted(const struct kwm_config *config);
kwm_status kwm_world_train(struct kwm_run *run, const struct kwm_arguments *arguments);
kwm_status kwm_world_plan(struct kwm_run *run);
/* dir: of the run, "" for a checkpoint alone. */
kwm_status kwm_world_eval(struct kwm_run *run, kwm_ckpt *ckpt, const char *dir);
kwm_status kwm_world_spectra(struct kwm_run *run, kwm_ckpt *ckpt);
