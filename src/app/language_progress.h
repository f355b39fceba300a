/* Private to app: what a language model's training counts, and how it is shown. */
#pragma once

#include "kwm/report.h"
#include "language_run.h"
#include "loop.h"

/* Everything counted, all doubles: saved in checkpoints as one array, so that a resumed run's tables read on. The same
   on all ranks but for row_kl and row_scale, to which each stage adds its own. */
struct kwm_language_counts {
  double seconds, comm_seconds; /* training time over all resumes; of it in communication, mean over ranks */
  double tokens_seen;
  double skipped, skips_in_a_row;
  double nis_sum, nis_steps;
  double train_loss;                           /* of the last row's interval */
  double valid, valid_fused, test, test_fused; /* perplexities of the last evaluation, NAN before */
  double best_valid, best_epoch, best_test, best_test_fused;
  double weights[KWM_TRANSFORMER_STAGES_MAX]; /* of the stages' mixture, as last fitted */
  double trace[KWM_TENSOR_ROLES];             /* share of the prior's trace at the last evaluation */
  double row_seconds, row_steps, row_norm;    /* since the last row of metrics.tsv */
  struct kwm_reading row;
  double row_kl[KWM_TRANSFORMER_STAGES_MAX], row_scale[KWM_TRANSFORMER_STAGES_MAX]; /* of all ranks together */
};

struct kwm_language_progress {
  struct kwm_language_run *run; /* borrowed */
  struct kwm_language_counts counts;
  kwm_metrics *metrics; /* rank 0 */
  int n_columns;
  int64_t step;
  double schedule;
  double seconds,
      idle; /* of this rank since the run was started or resumed: in steps, and of that with nothing to compute */
};

void kwm_language_progress_init(struct kwm_language_progress *progress, struct kwm_language_run *run);
double kwm_language_progress_epoch(const struct kwm_language_progress *progress);

/* metrics.tsv in DIR with the rows up to the current step. Rank 0. */
kwm_status kwm_language_progress_open(struct kwm_language_progress *progress, const char *dir);

/* Counts one step, and says how it went: taken. Local. */
void kwm_language_progress_step(struct kwm_language_progress *progress, const struct kwm_language_result *result,
                                struct kwm_loop_step *taken);

/* What each stage counts for itself goes to the first rank; after a load only that one keeps it. The first is
   collective, the second local. */
void kwm_language_progress_gather(struct kwm_language_progress *progress);
void kwm_language_progress_own(struct kwm_language_progress *progress);

/* Perplexities of validation and test text, traces. Collective. */
kwm_status kwm_language_progress_evaluate(struct kwm_language_progress *progress);

/* A step took so long on this rank, and of that it had nothing to compute. Local. */
void kwm_language_progress_time(struct kwm_language_progress *progress, double seconds, double idle);

/* A row of metrics.tsv and the live line; summary.json. Collective; rank 0 writes. */
kwm_status kwm_language_progress_row(struct kwm_language_progress *progress, bool evaluated);
kwm_status kwm_language_progress_summary(struct kwm_language_progress *progress, const char *dir, const char *status);
