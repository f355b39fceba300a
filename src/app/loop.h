/* Private to app: what every training run does, whatever its model. It begins anew or goes on from a checkpoint, takes
   steps, and looks after each for what is due: a request to stop, failures, rows, evaluations, checkpoints. */
#pragma once

#include "kwm/health.h"
#include "run.h"

/* How a step went; where and why it was skipped, in words. */
struct kwm_loop_step {
  enum kwm_verdict verdict;
  int rank;          /* not finite, indefinite: the first one that found it */
  const char *place; /* there: group, tensor, outputs; static storage or the model's */
  char numbers[256];
};

/* Where the run is after a step. */
struct kwm_loop_place {
  int64_t step; /* finished ones */
  bool evaluates, ends_lap;
  double skips_in_a_row;
  double nis, row_steps; /* mean over the steps since the last row; their number; NAN: not known */
};

/* A kind of run; `self` is its own. Collective unless said; NULL: nothing to do. */
struct kwm_loop_kind {
  kwm_status (*load)(void *self, kwm_ckpt *ckpt);
  kwm_status (*open)(void *self, const char *dir); /* rank 0: tables, with their rows up to the step */
  void (*say)(const void *self);                   /* to the log: what is trained, on what */
  kwm_status (*begin)(void *self);                 /* before the first step of this process */
  kwm_status (*step)(void *self, struct kwm_loop_step *step);
  struct kwm_loop_place (*place)(const void *self, int64_t before); /* local; before: finished before the step */
  kwm_status (*evaluate)(void *self);
  kwm_status (*row)(void *self, bool evaluated); /* ends with the ranks' agreement */
  void (*inflate)(void *self);                   /* P <- change.inflation P, at most the prior's */
  bool (*finite)(void *self);                    /* all means */
  kwm_status (*put)(void *self, kwm_ckpt *ckpt); /* all but what kwm_loop_save puts */
  kwm_status (*conclude)(void *self);            /* after the last step */
  void (*close)(void *self);                     /* tables, and what begin made; local */
  kwm_status (*summary)(void *self, const char *dir, const char *word);
};

struct kwm_loop {
  const struct kwm_loop_kind *kind;
  void *self;
  struct kwm_run *run; /* borrowed */
  int64_t steps;       /* of the whole run */
  bool resumes;
  bool seldom; /* a step is shorter than a question to all ranks: they are asked with rows only */
  int n_files; /* that were read, for the manifest; borrowed */
  const struct kwm_file_facts *files;
  double *seconds, *comm_seconds, *row_seconds; /* where the clock's time goes: of the run, of the row; means over ranks
                                                 */
  double started, comm_started;                 /* the loop's own, like the next */
  kwm_ckpt_writer *writer;                      /* NULL: the run waits for its checkpoints */
};

/* The whole run in a folder that kwm_rundir_check has passed; KWM_STOPPED if it was asked to stop. Collective. */
kwm_status kwm_loop_run(struct kwm_loop *loop);

/* DIR/checkpoints gets one of the current step; checkpoint.keep and keep_every say which stay. A run whose means are
   not finite is never saved (KWM_ERR_NUMERIC). Collective. */
kwm_status kwm_loop_save(struct kwm_loop *loop, int64_t step);
