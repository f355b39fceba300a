/* Private to app: the run directory of a training run, and the signals that ask it to stop. */
#pragma once

#include "run.h"

/* SIGUSR1 and SIGTERM: finish the step, write a checkpoint, leave. Local; the loop agrees on it. */
void kwm_rundir_catch_signals(void);
bool kwm_rundir_stop_requested(void);

/* Rank 0: the run directory is new, or the run resumes. Nothing is written yet, but for the log of a run that goes on.
 */
kwm_status kwm_rundir_check(const struct kwm_run *run, bool resume);

/* Rank 0, after everything that can refuse the run: the folder, its log, config.yaml. */
kwm_status kwm_rundir_make(const struct kwm_run *run);

/* manifest.json, with the files that were read. Collective. */
kwm_status kwm_rundir_manifest(struct kwm_run *run, int n_files, const struct kwm_file_facts *files);

/* True if the run directory holds at least one finished checkpoint, good or not. Collective. */
bool kwm_rundir_has_checkpoint(struct kwm_run *run);

/* summary.json's word for how a run ended; static storage. */
const char *kwm_rundir_word(kwm_status status);
