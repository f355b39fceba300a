/* Private to app: the commands on language models, called by those of the same name once the configuration is read. */
#pragma once

#include "run.h"

kwm_status kwm_language_train(struct kwm_run *run, const struct kwm_arguments *arguments);
kwm_status kwm_language_plan(struct kwm_run *run);
kwm_status kwm_language_eval(struct kwm_run *run, kwm_ckpt *ckpt);
kwm_status kwm_language_generate(struct kwm_run *run, kwm_ckpt *ckpt, const char *text, size_t bytes);
