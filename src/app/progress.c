/* metrics.tsv rows, the live line and summary.json from one set of counts. */
#include "progress.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "kwm/log.h"
#include "task_table.h"

/* The table's columns: facts of the step, facts of every group, and how the run goes. */
static const char *const step_columns[] = {"step",
                                           "epoch",
                                           "seconds",
                                           "samples",
                                           "train_loss",
                                           "train_accuracy",
                                           "nis",
                                           "surprisal_z",
                                           "calibration_error",
                                           "chi2",
                                           "chi2_low",
                                           "chi2_high",
                                           "score_z",
                                           "skipped",
                                           "skipped_not_finite",
                                           "skipped_indefinite",
                                           "skipped_gated",
                                           "changes",
                                           "search"};
static const char *const group_columns[] = {"kl", "scale", "gain", "trace", "q"};
static const char *const run_columns[] = {"noise",      "samples_per_s", "comm_fraction", "valid_accuracy",
                                          "valid_loss", "test_accuracy", "test_loss"};
#define LENGTH(list) ((int)(sizeof(list) / sizeof(list)[0]))
enum { COLUMNS_MAX = 32 + 5 * KWM_GROUPS_MAX, COLUMN_BYTES = 48 };
static const double BAND = 0.95;

void kwm_progress_init(struct kwm_progress *progress, struct kwm_run *run) {
  memset(progress, 0, sizeof *progress);
  progress->run = run;
  progress->steps = kwm_run_steps(run);
  struct kwm_counts *const c = &progress->counts;
  c->test_accuracy = c->test_loss = c->valid_accuracy = c->valid_loss = c->train_loss = NAN;
  c->noise = 1;
  for (int g = 0; g < progress->run->model.n_groups; g++) c->process_noise[g] = run->config.filter.process_noise;
}

double kwm_progress_epoch(const struct kwm_progress *progress) {
  if (progress->step == 0) return 0;
  const struct kwm_lap lap = kwm_run_lap(progress->run, progress->step - 1);
  return (double)lap.lap + (double)(progress->step - lap.first) / (double)lap.steps;
}

static kwm_status open_alarms(struct kwm_progress *progress, const char *dir) {
  static const char *const columns[] = {"step", "epoch", "statistic"};
  if (progress->run->config.change.threshold == 0) return KWM_OK;
  return kwm_metrics_open(&progress->alarms, dir, "changes.tsv", LENGTH(columns), columns, progress->step);
}

kwm_status kwm_progress_open(struct kwm_progress *progress, const char *dir) {
  const struct kwm_model *const model = &progress->run->model;
  char text[LENGTH(group_columns) * KWM_GROUPS_MAX][COLUMN_BYTES];
  const char *columns[COLUMNS_MAX];
  int n = 0, n_text = 0;
  for (int k = 0; k < LENGTH(step_columns); k++) columns[n++] = step_columns[k];
  for (int k = 0; k < LENGTH(group_columns); k++)
    for (int g = 0; g < model->n_groups; g++, n_text++) {
      snprintf(text[n_text], COLUMN_BYTES, "%s_%s", group_columns[k], model->groups[g].name);
      columns[n++] = text[n_text];
    }
  for (int k = 0; k < LENGTH(run_columns); k++) columns[n++] = run_columns[k];
  progress->n_columns = n;
  KWM_TRY(open_alarms(progress, dir));
  return kwm_metrics_open(&progress->metrics, dir, "metrics.tsv", n, columns, progress->step);
}

void kwm_progress_close(struct kwm_progress *progress) {
  kwm_metrics_close(&progress->metrics);
  kwm_metrics_close(&progress->alarms);
}

static void count_skip(struct kwm_counts *c, enum kwm_verdict verdict) {
  c->skipped_steps++;
  c->row_skipped++;
  c->skips_in_a_row++;
  switch (verdict) {
  case KWM_STEP_DONE: break;
  case KWM_STEP_NOT_FINITE: c->skipped_not_finite++; break;
  case KWM_STEP_INDEFINITE: c->skipped_indefinite++; break;
  case KWM_STEP_GATED: c->skipped_gated++; break;
  }
}

/* eᵀS⁻¹e follows a χ² only for Gaussian outputs. */
static void count_consistency(struct kwm_progress *progress, const struct kwm_step *step) {
  struct kwm_counts *const c = &progress->counts;
  if (progress->run->model.noise_variance > 0 && step->rows > 0) kwm_nis_add(&c->row_chi2, step->chi2, step->rows);
  if (progress->run->config.filter.score_test && isfinite(step->product)) kwm_score_test_add(&c->score, step->product);
  kwm_ljung_box_add(&c->surprisal, kwm_innovation_score(&step->innovation));
}

/* NIS at the beginning and at the end of a pass or task, and how often the trust region was met. */
static void count_lap(struct kwm_progress *progress, const struct kwm_step *step) {
  enum { FIRST = 5, LAST = 100 };
  struct kwm_counts *const c = &progress->counts;
  const struct kwm_lap lap = kwm_run_lap(progress->run, progress->step - 1);
  const int64_t done = progress->step - lap.first;
  const bool trusts = strcmp(progress->run->config.learner, "kalman") == 0;
  bool shortened = false;
  if (done == 1) c->lap_nis_first = c->lap_first = c->lap_nis_last = c->lap_last = c->lap_shortened = 0;
  if (step->verdict != KWM_STEP_DONE) return;
  if (done <= FIRST) c->lap_nis_first += step->nis, c->lap_first++;
  if (lap.steps - done < LAST) c->lap_nis_last += step->nis, c->lap_last++;
  for (int g = 0; trusts && g < progress->run->model.n_groups; g++)
    shortened = shortened || step->scale[g] < progress->run->config.filter.gain_factor;
  c->lap_shortened += shortened;
}

static kwm_status detect(struct kwm_progress *progress, const struct kwm_step *step, bool *changed) {
  const struct kwm_config *const config = &progress->run->config;
  const struct kwm_change_spec spec = {
      .threshold = config->change.threshold, .slack = config->change.slack, .memory = kwm_change_default.memory};
  const double statistic = kwm_change_statistic(step->innovation.surprisal, step->innovation.samples);
  *changed = spec.threshold > 0 && kwm_change_add(&progress->counts.change, &spec, statistic);
  if (!*changed) return KWM_OK;
  const double row[] = {(double)progress->step, kwm_progress_epoch(progress), statistic};
  kwm_log(KWM_LOG_INFO, "step %lld: change detected", (long long)progress->step);
  const kwm_status written = progress->alarms != NULL ? kwm_metrics_row(progress->alarms, row) : KWM_OK;
  return kwm_agree(progress->run->layout.world, written);
}

kwm_status kwm_progress_step(struct kwm_progress *progress, const struct kwm_step *step, bool *changed) {
  struct kwm_counts *const c = &progress->counts;
  progress->step++;
  c->samples_seen += step->innovation.samples;
  c->row_steps++;
  count_lap(progress, step);
  if (step->verdict != KWM_STEP_DONE) {
    count_skip(c, step->verdict);
    return detect(progress, step, changed);
  }
  c->skips_in_a_row = 0;
  c->nis_sum += step->nis;
  c->nis_steps++;
  c->row_nis += step->nis;
  c->row_search += step->search;
  c->noise = step->noise;
  kwm_innovation_add(&c->row, &step->innovation);
  count_consistency(progress, step);
  for (int g = 0; g < progress->run->model.n_groups; g++) {
    c->row_kl[g] += step->kl[g];
    c->row_scale[g] += step->scale[g];
    const double scale = step->search * step->scale[g];
    c->row_moved[g] += step->moved[g] * scale * scale;
    c->process_noise[g] = step->process_noise[g];
  }
  return detect(progress, step, changed);
}

void kwm_progress_describe(const struct kwm_progress *progress, const struct kwm_step *step,
                           struct kwm_loop_step *taken) {
  const struct kwm_model *const model = &progress->run->model;
  const int part = step->failed_part;
  const bool grouped = step->verdict == KWM_STEP_INDEFINITE && part >= 0 && part < model->n_groups;
  char group[64] = "";
  if (grouped) snprintf(group, sizeof group, ", its kl %.3g, scale %.3g", step->kl[part], step->scale[part]);
  taken->verdict = step->verdict;
  taken->rank = step->failed_rank;
  taken->place = grouped ? model->groups[part].name : step->verdict == KWM_STEP_INDEFINITE ? "S" : "outputs";
  snprintf(taken->numbers, sizeof taken->numbers, "surprisal %.4g a sample, nis %.3g%s",
           step->innovation.surprisal / step->innovation.samples, step->nis, group);
}

/* trace P / trace P0 of each group: what is left of the prior uncertainty. Collective. */
static void trace_ratios(const struct kwm_progress *progress, double ratio[KWM_GROUPS_MAX]) {
  struct kwm_health health[KWM_GROUPS_MAX];
  const int n_groups = progress->run->model.n_groups;
  double sums[2 * KWM_GROUPS_MAX];
  kwm_learner_health(&progress->run->learner, health);
  for (int g = 0; g < n_groups; g++) {
    sums[2 * g] = health[g].trace;
    sums[2 * g + 1] = health[g].prior_trace;
  }
  kwm_par_sum_world(&progress->run->layout, 2 * n_groups, sums);
  for (int g = 0; g < n_groups; g++) ratio[g] = sums[2 * g] / sums[2 * g + 1];
}

static void live_line(const struct kwm_progress *progress, double rate, double comm, bool evaluated) {
  const struct kwm_counts *const c = &progress->counts;
  const struct kwm_run *const run = progress->run;
  const struct kwm_config *const config = &run->config;
  const int64_t left = progress->steps - progress->step;
  char tested[64] = "";
  if (evaluated) snprintf(tested, sizeof tested, "  test %.2f %%", 100 * c->test_accuracy);
  kwm_log_progress(evaluated || left == 0,
                   "%s %.2f/%lld  step %lld/%lld  loss %.4f  accuracy %.2f %%  nis %.2f  %.0f samples/s  eta %.0f s"
                   "  comm %.0f %%%s",
                   run->stream != NULL ? "task" : "epoch", kwm_progress_epoch(progress),
                   (long long)(run->stream != NULL ? kwm_stream_facts(run->stream).tasks : config->train.epochs),
                   (long long)progress->step, (long long)progress->steps, c->train_loss,
                   100 * c->row.correct / c->row.samples, c->row_nis / (c->row_steps - c->row_skipped), rate,
                   (double)left * (double)config->train.batch / rate, 100 * comm, tested);
}

/* values (COLUMNS_MAX) from the counts, in the order of the columns. */
static void fill_row(const struct kwm_progress *progress, bool evaluated, const double ratio[KWM_GROUPS_MAX],
                     double rate, double comm, double *values) {
  const struct kwm_counts *const c = &progress->counts;
  const int n_groups = progress->run->model.n_groups;
  const double done = c->row_steps - c->row_skipped;
  const bool chi2 = c->row_chi2.steps > 0;
  const struct kwm_band band = chi2 ? kwm_nis_band(&c->row_chi2, BAND) : (struct kwm_band){NAN, NAN};
  double *at = values, moved = 0;
  for (int g = 0; g < n_groups; g++) moved += c->row_moved[g];
  *at++ = (double)progress->step;
  *at++ = kwm_progress_epoch(progress);
  *at++ = c->seconds;
  *at++ = c->samples_seen;
  *at++ = c->train_loss;
  *at++ = c->row.correct / c->row.samples;
  *at++ = c->row_nis / done;
  *at++ = kwm_innovation_score(&c->row);
  *at++ = progress->run->model.noise_variance > 0 ? NAN : kwm_calibration_error(&c->row.calibration);
  *at++ = chi2 ? kwm_nis_mean(&c->row_chi2) : NAN;
  *at++ = band.lower;
  *at++ = band.upper;
  *at++ = progress->run->config.filter.score_test ? kwm_score_test_z(&c->score) : NAN;
  *at++ = c->skipped_steps;
  *at++ = c->skipped_not_finite;
  *at++ = c->skipped_indefinite;
  *at++ = c->skipped_gated;
  *at++ = c->change.alarms;
  *at++ = c->row_search / done;
  for (int g = 0; g < n_groups; g++) *at++ = c->row_kl[g] / done;
  for (int g = 0; g < n_groups; g++) *at++ = c->row_scale[g] / done;
  for (int g = 0; g < n_groups; g++) *at++ = c->row_moved[g] / moved;
  for (int g = 0; g < n_groups; g++) *at++ = ratio[g];
  for (int g = 0; g < n_groups; g++) *at++ = c->process_noise[g];
  *at++ = c->noise;
  *at++ = rate;
  *at++ = comm;
  *at++ = evaluated ? c->valid_accuracy : NAN;
  *at++ = evaluated ? c->valid_loss : NAN;
  *at++ = evaluated ? c->test_accuracy : NAN;
  *at++ = evaluated ? c->test_loss : NAN;
  KWM_ASSERT(progress->metrics == NULL || at == values + progress->n_columns);
}

static void begin_row(struct kwm_counts *c) {
  c->row_steps = c->row_skipped = c->row_seconds = c->row_nis = c->row_search = 0;
  memset(&c->row, 0, sizeof c->row);
  memset(&c->row_chi2, 0, sizeof c->row_chi2);
  memset(c->row_kl, 0, sizeof c->row_kl);
  memset(c->row_scale, 0, sizeof c->row_scale);
  memset(c->row_moved, 0, sizeof c->row_moved);
}

kwm_status kwm_progress_row(struct kwm_progress *progress, bool evaluated) {
  struct kwm_counts *const c = &progress->counts;
  double ratio[KWM_GROUPS_MAX], values[COLUMNS_MAX];
  trace_ratios(progress, ratio);
  const double rate = c->row.samples / c->row_seconds, comm = c->comm_seconds / c->seconds;
  c->train_loss = c->row.surprisal / c->row.samples;
  fill_row(progress, evaluated, ratio, rate, comm, values);
  kwm_status status = KWM_OK;
  if (progress->metrics != NULL) status = kwm_metrics_row(progress->metrics, values);
  live_line(progress, rate, comm, evaluated);
  begin_row(c);
  return kwm_agree(progress->run->layout.world, status);
}

kwm_status kwm_progress_summary(struct kwm_progress *progress, const char *dir, const char *status) {
  enum { FIELDS_MAX = 40 };
  struct kwm_run *const run = progress->run;
  const struct kwm_counts *const c = &progress->counts;
  const double score_z = run->config.filter.score_test ? kwm_score_test_z(&c->score) : NAN;
  double peak = (double)kwm_mem_peak_resident();
  kwm_par_max_world(&run->layout, 1, &peak);
#define NUMBER(label, value)                                                                                           \
  { .name = label, .kind = KWM_FIELD_NUMBER, .number = (value) }
#define INTEGER(label, value)                                                                                          \
  { .name = label, .kind = KWM_FIELD_INTEGER, .integer = (int64_t)(value) }
  struct kwm_field fields[FIELDS_MAX] = {{.name = "status", .kind = KWM_FIELD_TEXT, .text = status},
                                         {.name = "learner", .kind = KWM_FIELD_TEXT, .text = run->config.learner},
                                         INTEGER("step", progress->step),
                                         NUMBER("epoch", kwm_progress_epoch(progress)),
                                         NUMBER("seconds", c->seconds),
                                         INTEGER("samples_seen", c->samples_seen),
                                         NUMBER("samples_per_second", c->samples_seen / c->seconds),
                                         NUMBER("train_loss", c->train_loss),
                                         NUMBER("valid_accuracy", c->valid_accuracy),
                                         NUMBER("valid_loss", c->valid_loss),
                                         NUMBER("test_accuracy", c->test_accuracy),
                                         NUMBER("test_loss", c->test_loss),
                                         NUMBER("nis_mean", c->nis_sum / c->nis_steps),
                                         INTEGER("skipped_steps", c->skipped_steps),
                                         INTEGER("skipped_not_finite", c->skipped_not_finite),
                                         INTEGER("skipped_indefinite", c->skipped_indefinite),
                                         INTEGER("skipped_gated", c->skipped_gated),
                                         INTEGER("changes", c->change.alarms),
                                         NUMBER("surprisal_ljung_box_p", kwm_ljung_box_p(&c->surprisal)),
                                         NUMBER("score_z", score_z),
                                         NUMBER("comm_fraction", c->comm_seconds / c->seconds),
                                         INTEGER("peak_bytes_per_rank", peak),
                                         INTEGER("ranks", run->layout.size)};
  int n = 0;
  while (fields[n].name != NULL) n++;
  if (progress->tasks != NULL && progress->tasks->rows > 1) {
    const struct kwm_tasks scores = kwm_task_table_scores(progress->tasks, false);
    const struct kwm_field of_tasks[] = {
        INTEGER("tasks", progress->tasks->rows - 1),  NUMBER("average_accuracy", scores.average),
        NUMBER("forgetting", scores.forgetting),      NUMBER("forgetting_best", scores.forgetting_best),
        NUMBER("backward_transfer", scores.backward), NUMBER("forward_transfer", scores.forward),
        NUMBER("plasticity", scores.plasticity)};
    memcpy(fields + n, of_tasks, sizeof of_tasks);
    n += LENGTH(of_tasks);
  }
#undef NUMBER
#undef INTEGER
  KWM_ASSERT(n <= FIELDS_MAX);
  kwm_status written = KWM_OK;
  if (run->layout.rank == 0) written = kwm_report_fields(dir, "summary.json", n, fields);
  return kwm_agree(run->layout.world, written);
}
