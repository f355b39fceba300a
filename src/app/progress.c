/* metrics.tsv rows, the live line and summary.json from one set of counts. */
#include "progress.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "kwm/log.h"

static const char *const columns[] = {"step",
                                      "epoch",
                                      "seconds",
                                      "samples",
                                      "train_loss",
                                      "train_accuracy",
                                      "nis",
                                      "surprisal_z",
                                      "skipped",
                                      "kl_recurrence",
                                      "kl_hidden",
                                      "kl_output",
                                      "scale_recurrence",
                                      "scale_hidden",
                                      "scale_output",
                                      "trace_recurrence",
                                      "trace_hidden",
                                      "trace_output",
                                      "samples_per_s",
                                      "comm_fraction",
                                      "valid_accuracy",
                                      "valid_loss",
                                      "test_accuracy",
                                      "test_loss"};
enum { N_COLUMNS = sizeof columns / sizeof columns[0] };

void kwm_progress_init(struct kwm_progress *progress, struct kwm_run *run, int64_t step, int64_t steps,
                       int64_t epoch_steps) {
  memset(progress, 0, sizeof *progress);
  progress->run = run;
  progress->step = step;
  progress->steps = steps;
  progress->epoch_steps = epoch_steps;
  struct kwm_counts *const c = &progress->counts;
  c->test_accuracy = c->test_loss = c->valid_accuracy = c->valid_loss = c->train_loss = NAN;
  progress->started = kwm_par_seconds();
  progress->comm_started = run->layout.comm_seconds;
}

kwm_status kwm_progress_open(struct kwm_progress *progress, const char *dir) {
  return kwm_metrics_open(&progress->metrics, dir, N_COLUMNS, columns, progress->step);
}

void kwm_progress_close(struct kwm_progress *progress) {
  if (progress->metrics != NULL) kwm_metrics_close(&progress->metrics);
}

void kwm_progress_clock(struct kwm_progress *progress) {
  struct kwm_layout *const layout = &progress->run->layout;
  const double now = kwm_par_seconds(), comm = layout->comm_seconds;
  double times[2] = {now - progress->started, comm - progress->comm_started};
  kwm_par_sum_world(layout, 2, times);
  progress->started = now;
  progress->comm_started = comm;
  progress->counts.seconds += times[0] / layout->size;
  progress->counts.row_seconds += times[0] / layout->size;
  progress->counts.comm_seconds += times[1] / layout->size;
}

static void add_innovation(struct kwm_innovation *sum, const struct kwm_innovation *more) {
  sum->samples += more->samples;
  sum->surprisal += more->surprisal;
  sum->entropy += more->entropy;
  sum->variance += more->variance;
  sum->correct += more->correct;
  sum->squared += more->squared;
  sum->expected += more->expected;
}

void kwm_progress_step(struct kwm_progress *progress, const struct kwm_step *step) {
  struct kwm_counts *const c = &progress->counts;
  progress->step++;
  c->samples_seen += step->innovation.samples;
  c->row_steps++;
  if (step->verdict != KWM_STEP_DONE) {
    c->skipped_steps++;
    c->row_skipped++;
    c->skips_in_a_row++;
    return;
  }
  c->skips_in_a_row = 0;
  c->nis_sum += step->nis;
  c->nis_steps++;
  c->row_nis += step->nis;
  add_innovation(&c->row, &step->innovation);
  for (int g = 0; g < KWM_GROUPS; g++) {
    c->row_kl[g] += step->kl[g];
    c->row_scale[g] += step->scale[g];
  }
}

/* trace P / trace P0 of each group: what is left of the prior uncertainty. Collective. */
static void trace_ratios(const struct kwm_progress *progress, double ratio[KWM_GROUPS]) {
  struct kwm_health health[KWM_GROUPS];
  double sums[2 * KWM_GROUPS];
  kwm_learner_health(&progress->run->learner, health);
  for (int g = 0; g < KWM_GROUPS; g++) {
    sums[2 * g] = health[g].trace;
    sums[2 * g + 1] = health[g].prior_trace;
  }
  kwm_par_sum_world(&progress->run->layout, 2 * KWM_GROUPS, sums);
  for (int g = 0; g < KWM_GROUPS; g++) ratio[g] = sums[2 * g] / sums[2 * g + 1];
}

static void live_line(const struct kwm_progress *progress, double rate, double comm, bool evaluated) {
  const struct kwm_counts *const c = &progress->counts;
  const struct kwm_config *const config = &progress->run->config;
  const int64_t left = progress->steps - progress->step;
  char tested[64] = "";
  if (evaluated) snprintf(tested, sizeof tested, "  test %.2f %%", 100 * c->test_accuracy);
  kwm_log_progress(evaluated || left == 0,
                   "epoch %.2f/%lld  step %lld/%lld  loss %.4f  accuracy %.2f %%  nis %.2f  %.0f samples/s  eta %.0f s"
                   "  comm %.0f %%%s",
                   (double)progress->step / (double)progress->epoch_steps, (long long)config->train.epochs,
                   (long long)progress->step, (long long)progress->steps, c->train_loss,
                   100 * c->row.correct / c->row.samples, c->row_nis / (c->row_steps - c->row_skipped), rate,
                   (double)left * (double)config->train.batch / rate, 100 * comm, tested);
}

kwm_status kwm_progress_row(struct kwm_progress *progress, bool evaluated) {
  struct kwm_counts *const c = &progress->counts;
  double ratio[KWM_GROUPS];
  kwm_progress_clock(progress);
  trace_ratios(progress, ratio);
  const double done = c->row_steps - c->row_skipped, rate = c->row.samples / c->row_seconds;
  const double comm = c->comm_seconds / c->seconds;
  c->train_loss = c->row.surprisal / c->row.samples;
  const double values[N_COLUMNS] = {(double)progress->step,
                                    (double)progress->step / (double)progress->epoch_steps,
                                    c->seconds,
                                    c->samples_seen,
                                    c->train_loss,
                                    c->row.correct / c->row.samples,
                                    c->row_nis / done,
                                    kwm_innovation_score(&c->row),
                                    c->skipped_steps,
                                    c->row_kl[0] / done,
                                    c->row_kl[1] / done,
                                    c->row_kl[2] / done,
                                    c->row_scale[0] / done,
                                    c->row_scale[1] / done,
                                    c->row_scale[2] / done,
                                    ratio[0],
                                    ratio[1],
                                    ratio[2],
                                    rate,
                                    comm,
                                    evaluated ? c->valid_accuracy : NAN,
                                    evaluated ? c->valid_loss : NAN,
                                    evaluated ? c->test_accuracy : NAN,
                                    evaluated ? c->test_loss : NAN};
  kwm_status status = KWM_OK;
  if (progress->metrics != NULL) status = kwm_metrics_row(progress->metrics, values);
  live_line(progress, rate, comm, evaluated);
  c->row_steps = c->row_skipped = c->row_seconds = c->row_nis = 0;
  memset(&c->row, 0, sizeof c->row);
  memset(c->row_kl, 0, sizeof c->row_kl);
  memset(c->row_scale, 0, sizeof c->row_scale);
  return kwm_agree(progress->run->layout.world, status);
}

kwm_status kwm_progress_summary(struct kwm_progress *progress, const char *dir, const char *status) {
  struct kwm_run *const run = progress->run;
  const struct kwm_counts *const c = &progress->counts;
  double peak = (double)kwm_mem_peak_resident();
  kwm_par_max_world(&run->layout, 1, &peak);
#define NUMBER(label, value)                                                                                           \
  { .name = label, .kind = KWM_FIELD_NUMBER, .number = (value) }
#define INTEGER(label, value)                                                                                          \
  { .name = label, .kind = KWM_FIELD_INTEGER, .integer = (int64_t)(value) }
  const struct kwm_field fields[] = {{.name = "status", .kind = KWM_FIELD_TEXT, .text = status},
                                     {.name = "learner", .kind = KWM_FIELD_TEXT, .text = run->config.learner},
                                     INTEGER("step", progress->step),
                                     NUMBER("epoch", (double)progress->step / (double)progress->epoch_steps),
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
                                     NUMBER("comm_fraction", c->comm_seconds / c->seconds),
                                     INTEGER("peak_bytes_per_rank", peak),
                                     INTEGER("ranks", run->layout.size)};
#undef NUMBER
#undef INTEGER
  kwm_status written = KWM_OK;
  if (run->layout.rank == 0)
    written = kwm_report_fields(dir, "summary.json", (int)(sizeof fields / sizeof fields[0]), fields);
  return kwm_agree(run->layout.world, written);
}
