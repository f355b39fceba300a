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
                                      "calibration_error",
                                      "chi2",
                                      "chi2_low",
                                      "chi2_high",
                                      "score_z",
                                      "skipped",
                                      "skipped_not_finite",
                                      "skipped_indefinite",
                                      "skipped_gated",
                                      "kl_recurrence",
                                      "kl_hidden",
                                      "kl_output",
                                      "scale_recurrence",
                                      "scale_hidden",
                                      "scale_output",
                                      "gain_recurrence",
                                      "gain_hidden",
                                      "gain_output",
                                      "trace_recurrence",
                                      "trace_hidden",
                                      "trace_output",
                                      "q_recurrence",
                                      "q_hidden",
                                      "q_output",
                                      "noise",
                                      "samples_per_s",
                                      "comm_fraction",
                                      "valid_accuracy",
                                      "valid_loss",
                                      "test_accuracy",
                                      "test_loss"};
enum { N_COLUMNS = sizeof columns / sizeof columns[0] };
static const double BAND = 0.95;

void kwm_progress_init(struct kwm_progress *progress, struct kwm_run *run, int64_t step, int64_t steps,
                       int64_t epoch_steps) {
  memset(progress, 0, sizeof *progress);
  progress->run = run;
  progress->step = step;
  progress->steps = steps;
  progress->epoch_steps = epoch_steps;
  struct kwm_counts *const c = &progress->counts;
  c->test_accuracy = c->test_loss = c->valid_accuracy = c->valid_loss = c->train_loss = NAN;
  c->noise = 1;
  for (int g = 0; g < KWM_GROUPS; g++) c->process_noise[g] = run->config.filter.process_noise;
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

void kwm_progress_step(struct kwm_progress *progress, const struct kwm_step *step) {
  struct kwm_counts *const c = &progress->counts;
  progress->step++;
  c->samples_seen += step->innovation.samples;
  c->row_steps++;
  if (step->verdict != KWM_STEP_DONE) {
    count_skip(c, step->verdict);
    return;
  }
  c->skips_in_a_row = 0;
  c->nis_sum += step->nis;
  c->nis_steps++;
  c->row_nis += step->nis;
  c->noise = step->noise;
  kwm_innovation_add(&c->row, &step->innovation);
  count_consistency(progress, step);
  for (int g = 0; g < KWM_GROUPS; g++) {
    c->row_kl[g] += step->kl[g];
    c->row_scale[g] += step->scale[g];
    c->row_moved[g] += step->moved[g] * step->scale[g] * step->scale[g];
    c->process_noise[g] = step->process_noise[g];
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

/* values (N_COLUMNS) from the counts, in the order of the columns. */
static void fill_row(const struct kwm_progress *progress, bool evaluated, const double ratio[KWM_GROUPS], double rate,
                     double comm, double *values) {
  const struct kwm_counts *const c = &progress->counts;
  const double done = c->row_steps - c->row_skipped, moved = c->row_moved[0] + c->row_moved[1] + c->row_moved[2];
  const bool chi2 = c->row_chi2.steps > 0;
  const struct kwm_band band = chi2 ? kwm_nis_band(&c->row_chi2, BAND) : (struct kwm_band){NAN, NAN};
  double *at = values;
  *at++ = (double)progress->step;
  *at++ = (double)progress->step / (double)progress->epoch_steps;
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
  for (int g = 0; g < KWM_GROUPS; g++) *at++ = c->row_kl[g] / done;
  for (int g = 0; g < KWM_GROUPS; g++) *at++ = c->row_scale[g] / done;
  for (int g = 0; g < KWM_GROUPS; g++) *at++ = c->row_moved[g] / moved;
  for (int g = 0; g < KWM_GROUPS; g++) *at++ = ratio[g];
  for (int g = 0; g < KWM_GROUPS; g++) *at++ = c->process_noise[g];
  *at++ = c->noise;
  *at++ = rate;
  *at++ = comm;
  *at++ = evaluated ? c->valid_accuracy : NAN;
  *at++ = evaluated ? c->valid_loss : NAN;
  *at++ = evaluated ? c->test_accuracy : NAN;
  *at++ = evaluated ? c->test_loss : NAN;
  KWM_ASSERT(at == values + N_COLUMNS);
}

static void begin_row(struct kwm_counts *c) {
  c->row_steps = c->row_skipped = c->row_seconds = c->row_nis = 0;
  memset(&c->row, 0, sizeof c->row);
  memset(&c->row_chi2, 0, sizeof c->row_chi2);
  memset(c->row_kl, 0, sizeof c->row_kl);
  memset(c->row_scale, 0, sizeof c->row_scale);
  memset(c->row_moved, 0, sizeof c->row_moved);
}

kwm_status kwm_progress_row(struct kwm_progress *progress, bool evaluated) {
  struct kwm_counts *const c = &progress->counts;
  double ratio[KWM_GROUPS], values[N_COLUMNS];
  kwm_progress_clock(progress);
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
  struct kwm_run *const run = progress->run;
  const struct kwm_counts *const c = &progress->counts;
  const double score_z = run->config.filter.score_test ? kwm_score_test_z(&c->score) : NAN;
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
                                     INTEGER("skipped_not_finite", c->skipped_not_finite),
                                     INTEGER("skipped_indefinite", c->skipped_indefinite),
                                     INTEGER("skipped_gated", c->skipped_gated),
                                     NUMBER("surprisal_ljung_box_p", kwm_ljung_box_p(&c->surprisal)),
                                     NUMBER("score_z", score_z),
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
