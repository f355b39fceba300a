/* Private to app: what a training run counts, and how it is shown. */
#pragma once

#include "kwm/change.h"
#include "kwm/report.h"
#include "loop.h"

struct kwm_task_table;

/* Everything counted, all doubles: saved in checkpoints as one array, so that a resumed run's tables read on. */
struct kwm_counts {
  double seconds;      /* training time over all resumes */
  double comm_seconds; /* of it in communication, mean over ranks */
  double samples_seen;
  double skipped_steps, skips_in_a_row;
  double skipped_not_finite, skipped_indefinite, skipped_gated; /* the skipped steps by kind */
  double nis_sum, nis_steps;                                    /* steps that were done */
  double test_accuracy, test_loss, valid_accuracy, valid_loss;  /* last evaluation, NAN before */
  struct kwm_change change;                                     /* detection over the whole run */
  double train_loss;                                            /* mean surprisal of the last row's interval */
  double row_steps, row_skipped, row_seconds;                   /* since the last row of metrics.tsv */
  double row_nis, row_search, row_kl[KWM_GROUPS_MAX], row_scale[KWM_GROUPS_MAX], row_moved[KWM_GROUPS_MAX];
  double process_noise[KWM_GROUPS_MAX], noise; /* q and R's scale in the last step that was done */
  struct kwm_nis row_chi2;                     /* eᵀS⁻¹e, Gaussian observation */
  struct kwm_score_test score;                 /* over the whole run, like the next */
  struct kwm_ljung_box surprisal;              /* of the steps' surprisal scores */
  struct kwm_innovation row;
  double lap_nis_first, lap_first; /* of this pass or task: its first steps, its last ones, and shortened steps */
  double lap_nis_last, lap_last, lap_shortened;
};

struct kwm_progress {
  struct kwm_run *run; /* borrowed */
  struct kwm_counts counts;
  kwm_metrics *metrics; /* rank 0 */
  kwm_metrics *alarms;  /* rank 0; changes.tsv, with change.threshold */
  int n_columns;
  struct kwm_task_table *tasks; /* borrowed; NULL without a stream */
  int64_t step, steps;          /* finished, planned */
};

void kwm_progress_init(struct kwm_progress *progress, struct kwm_run *run);

/* Passes or tasks finished, as a number with a fraction. */
double kwm_progress_epoch(const struct kwm_progress *progress);

/* Opens metrics.tsv in DIR, keeping rows up to the current step. Rank 0. */
kwm_status kwm_progress_open(struct kwm_progress *progress, const char *dir);
void kwm_progress_close(struct kwm_progress *progress);

/* Counts one step; *changed: the change detection gave an alarm. The same on all ranks; rank 0 writes. Collective. */
kwm_status kwm_progress_step(struct kwm_progress *progress, const struct kwm_step *step, bool *changed);

/* The step for kwm_failure_step. Local. */
void kwm_progress_describe(const struct kwm_progress *progress, const struct kwm_step *step,
                           struct kwm_loop_step *taken);

/* Writes a row of metrics.tsv and the progress line for the interval since the last row. evaluated: the row carries the
   evaluation just made. Collective; rank 0 writes. */
kwm_status kwm_progress_row(struct kwm_progress *progress, bool evaluated);

/* summary.json and the closing lines. Collective; rank 0 writes. */
kwm_status kwm_progress_summary(struct kwm_progress *progress, const char *dir, const char *status);
