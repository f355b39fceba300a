/* Private to app: what a run on a stream knows of every task. */
#pragma once

#include "kwm/tasks.h"
#include "progress.h"

struct kwm_task_table {
  int64_t tasks, rows;  /* rows of R that are filled */
  double *R, *held_out; /* (tasks + 1, tasks) test accuracies, and held-out ones; NAN: not evaluated */
  kwm_metrics *metrics; /* rank 0: tasks.tsv, one row a task */
};

kwm_status kwm_task_table_init(struct kwm_task_table *table, int64_t tasks);
void kwm_task_table_fini(struct kwm_task_table *table); /* accepts a zeroed table */
size_t kwm_task_table_bytes(int64_t tasks);

/* Opens tasks.tsv in DIR, keeping rows up to the current step. Rank 0. */
kwm_status kwm_task_table_open(struct kwm_task_table *table, const struct kwm_progress *progress, const char *dir);

/* Evaluates the tasks seen so far and the next one (before the first: all of them), and writes a row. counts get the
   average over tasks seen as their test accuracy. Collective. */
kwm_status kwm_task_table_row(struct kwm_task_table *table, struct kwm_progress *progress);

/* Scores after the rows filled so far, on test data or on held-out data. */
struct kwm_tasks kwm_task_table_scores(const struct kwm_task_table *table, bool held_out);

/* /history/tasks, /history/tasks_held_out (tasks + 1, tasks). Collective. */
kwm_status kwm_task_table_save(const struct kwm_task_table *table, kwm_ckpt *ckpt, bool writes);
kwm_status kwm_task_table_load(struct kwm_task_table *table, kwm_ckpt *ckpt);
