/* The accuracy matrix of a stream: rows by tasks learned, columns by tasks tested. */
#include "task_table.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static const char *const facts[] = {"step",
                                    "tasks",
                                    "seconds",
                                    "average_accuracy",
                                    "forgetting",
                                    "forgetting_best",
                                    "backward_transfer",
                                    "forward_transfer",
                                    "plasticity",
                                    "average_held_out",
                                    "nis_first",
                                    "nis_last",
                                    "shortened"};
enum { FACTS = sizeof facts / sizeof facts[0], NAME_BYTES = 32 };

static int64_t numbers(int64_t tasks) {
  return (tasks + 1) * tasks;
}

kwm_status kwm_task_table_init(struct kwm_task_table *table, int64_t tasks) {
  const size_t bytes = (size_t)numbers(tasks) * sizeof(double);
  *table = (struct kwm_task_table){.tasks = tasks};
  KWM_TRY(kwm_alloc((void **)&table->R, bytes, "accuracies"));
  KWM_TRY(kwm_alloc((void **)&table->held_out, bytes, "accuracies"));
  for (int64_t k = 0; k < numbers(tasks); k++) table->R[k] = table->held_out[k] = NAN;
  return KWM_OK;
}

void kwm_task_table_fini(struct kwm_task_table *table) {
  kwm_metrics_close(&table->metrics);
  kwm_free(table->R);
  kwm_free(table->held_out);
  *table = (struct kwm_task_table){0};
}

size_t kwm_task_table_bytes(int64_t tasks) {
  return 2 * kwm_mem_rounded((size_t)numbers(tasks) * sizeof(double));
}

kwm_status kwm_task_table_open(struct kwm_task_table *table, const struct kwm_progress *progress, const char *dir) {
  const size_t n = FACTS + (size_t)table->tasks;
  char(*const names)[NAME_BYTES] = calloc((size_t)table->tasks, sizeof *names);
  const char **const columns = calloc(n, sizeof *columns);
  kwm_status status = names != NULL && columns != NULL ? KWM_OK : KWM_ERR_SYSTEM;
  if (status != KWM_OK) status = KWM_RAISE(status, "memory: no room for %zu columns", n);
  for (size_t k = 0; k < n && status == KWM_OK; k++) {
    columns[k] = k < FACTS ? facts[k] : names[k - FACTS];
    if (k >= FACTS) snprintf(names[k - FACTS], NAME_BYTES, "task%zu", k - FACTS + 1);
  }
  /* Row 0 stands at step 0. */
  const int64_t keep = progress->step == 0 ? -1 : progress->step;
  if (status == KWM_OK) status = kwm_metrics_open(&table->metrics, dir, "tasks.tsv", (int)n, columns, keep);
  free(names);
  free(columns);
  return status;
}

static void evaluate(struct kwm_task_table *table, struct kwm_progress *progress, int64_t task, double *losses) {
  static const enum kwm_split splits[] = {KWM_TEST, KWM_VALID};
  struct kwm_run *const run = progress->run;
  const struct kwm_means means = kwm_learner_means(&run->learner);
  for (int k = 0; k < 2; k++) {
    struct kwm_images images;
    struct kwm_innovation sums;
    double *const R = (k == 0 ? table->R : table->held_out) + table->rows * table->tasks + task;
    kwm_stream_split(run->stream, task, splits[k], &images);
    if (images.n == 0) continue;
    kwm_pipe_predict(run->pipe, &means, &images, &sums);
    *R = sums.correct / sums.samples;
    losses[k] += sums.surprisal / sums.samples;
  }
}

/* values: (FACTS + tasks) */
static void fill(const struct kwm_task_table *table, const struct kwm_progress *progress, double *values) {
  const struct kwm_counts *const c = &progress->counts;
  const struct kwm_tasks scores = kwm_task_table_scores(table, false), held = kwm_task_table_scores(table, true);
  const double row[FACTS] = {(double)progress->step,
                             (double)table->rows - 1,
                             c->seconds,
                             scores.average,
                             scores.forgetting,
                             scores.forgetting_best,
                             scores.backward,
                             scores.forward,
                             scores.plasticity,
                             held.average,
                             c->lap_nis_first / c->lap_first,
                             c->lap_nis_last / c->lap_last,
                             c->lap_shortened};
  for (int k = 0; k < FACTS; k++) values[k] = row[k];
  for (int64_t i = 0; i < table->tasks; i++) values[FACTS + i] = table->R[(table->rows - 1) * table->tasks + i];
}

static kwm_status write_row(struct kwm_task_table *table, const struct kwm_progress *progress) {
  if (table->metrics == NULL) return KWM_OK;
  double *const values = calloc(FACTS + (size_t)table->tasks, sizeof *values);
  KWM_CHECK(values != NULL, KWM_ERR_SYSTEM, "memory: no room for a row of tasks.tsv");
  fill(table, progress, values);
  const kwm_status status = kwm_metrics_row(table->metrics, values);
  free(values);
  return status;
}

kwm_status kwm_task_table_row(struct kwm_task_table *table, struct kwm_progress *progress) {
  struct kwm_counts *const c = &progress->counts;
  const int64_t learned = table->rows, last = learned == 0 || learned == table->tasks ? table->tasks : learned + 1;
  double losses[2] = {0}, next[2] = {0};
  KWM_ASSERT(learned <= table->tasks);
  for (int64_t i = 0; i < last; i++) evaluate(table, progress, i, i < learned ? losses : next);
  table->rows++;
  if (learned > 0) {
    c->test_accuracy = kwm_task_table_scores(table, false).average;
    c->test_loss = losses[0] / (double)learned;
    c->valid_accuracy = kwm_task_table_scores(table, true).average;
    c->valid_loss = isnan(c->valid_accuracy) ? NAN : losses[1] / (double)learned;
  }
  return kwm_agree(progress->run->layout.world, write_row(table, progress));
}

struct kwm_tasks kwm_task_table_scores(const struct kwm_task_table *table, bool held_out) {
  return kwm_tasks_score(table->rows, table->tasks, held_out ? table->held_out : table->R);
}

static const char *const datasets[] = {"/history/tasks", "/history/tasks_held_out"};

kwm_status kwm_task_table_save(const struct kwm_task_table *table, kwm_ckpt *ckpt, bool writes) {
  const int64_t dims[2] = {table->tasks + 1, table->tasks};
  KWM_TRY(kwm_ckpt_put_i64(ckpt, "/history", "task_rows", table->rows));
  for (int k = 0; k < 2; k++)
    KWM_TRY(kwm_ckpt_put(ckpt, datasets[k], KWM_F64, 2, dims, 0, writes ? dims[0] : 0,
                         k == 0 ? table->R : table->held_out));
  return KWM_OK;
}

kwm_status kwm_task_table_load(struct kwm_task_table *table, kwm_ckpt *ckpt) {
  const int64_t dims[2] = {table->tasks + 1, table->tasks};
  KWM_TRY(kwm_ckpt_get_i64(ckpt, "/history", "task_rows", &table->rows));
  KWM_CHECK(table->rows >= 0 && table->rows <= dims[0], KWM_ERR_DATA,
            "checkpoint %s: wanted at most %lld rows of tasks, found %lld", kwm_ckpt_path(ckpt), (long long)dims[0],
            (long long)table->rows);
  for (int k = 0; k < 2; k++)
    KWM_TRY(kwm_ckpt_get(ckpt, datasets[k], KWM_F64, 2, dims, 0, dims[0], k == 0 ? table->R : table->held_out));
  return KWM_OK;
}
