/* metrics.tsv rows, the live line and summary.json of a language model's run. */
#include "language_progress.h"

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
                                      "train_entropy",
                                      "nis",
                                      "score_norm",
                                      "schedule",
                                      "skipped",
                                      "trace_matrix",
                                      "trace_embedding",
                                      "trace_vector",
                                      "samples_per_s",
                                      "comm_fraction",
                                      "valid_perplexity",
                                      "valid_fused",
                                      "test_perplexity",
                                      "test_fused",
                                      "idle_fraction"};
/* Then, for every stage, its loss, and with a trust region its step's predicted KL and scale. */
enum { COLUMNS = sizeof columns / sizeof columns[0], STAGE_COLUMNS = 3, NAME_BYTES = 32 };

void kwm_language_progress_init(struct kwm_language_progress *progress, struct kwm_language_run *run) {
  memset(progress, 0, sizeof *progress);
  progress->run = run;
  struct kwm_language_counts *const c = &progress->counts;
  c->train_loss = c->valid = c->valid_fused = c->test = c->test_fused = NAN;
  c->best_valid = c->best_epoch = c->best_test = c->best_test_fused = NAN;
  for (int role = 0; role < KWM_TENSOR_ROLES; role++) c->trace[role] = NAN;
  for (int s = 0; s < run->model.stages; s++) c->weights[s] = 1.0 / run->model.stages;
}

double kwm_language_progress_epoch(const struct kwm_language_progress *progress) {
  return (double)progress->step / (double)progress->run->pass_steps;
}

kwm_status kwm_language_progress_open(struct kwm_language_progress *progress, const char *dir) {
  const int stages = progress->run->model.stages;
  static const char *const of_stage[STAGE_COLUMNS] = {"train_loss", "kl", "scale"};
  char text[STAGE_COLUMNS * KWM_TRANSFORMER_STAGES_MAX][NAME_BYTES];
  const char *all[COLUMNS + STAGE_COLUMNS * KWM_TRANSFORMER_STAGES_MAX];
  memcpy(all, columns, sizeof columns);
  for (int k = 0; k < STAGE_COLUMNS * stages; k++) {
    snprintf(text[k], NAME_BYTES, "%s_stage%d", of_stage[k / stages], k % stages + 1);
    all[COLUMNS + k] = text[k];
  }
  progress->n_columns = COLUMNS + STAGE_COLUMNS * stages;
  return kwm_metrics_open(&progress->metrics, dir, "metrics.tsv", progress->n_columns, all, progress->step);
}

static const double *last_of(const struct kwm_language_progress *progress, const struct kwm_reading *reading) {
  return reading->of[progress->run->model.stages - 1];
}

/* Of a step that was skipped. */
static void describe(const struct kwm_language_progress *progress, const struct kwm_language_result *result,
                     struct kwm_loop_step *taken) {
  const struct kwm_transformer *const model = &progress->run->model;
  const double *const last = last_of(progress, &result->reading);
  const int t = result->failed_tensor;
  taken->verdict = result->verdict;
  taken->rank = result->failed_rank;
  taken->place = t >= 0 && t < model->n_tensors ? model->tensors[t].name : "outputs";
  snprintf(taken->numbers, sizeof taken->numbers, "surprisal %.4g a token, nis %.3g, mean score's norm %.3g",
           last[KWM_READ_SURPRISAL] / last[KWM_READ_TOKENS], last[KWM_READ_SQUARED] / last[KWM_READ_EXPECTED],
           result->score_norm);
}

void kwm_language_progress_step(struct kwm_language_progress *progress, const struct kwm_language_result *result,
                                struct kwm_loop_step *taken) {
  struct kwm_language_counts *const c = &progress->counts;
  const double *const last = last_of(progress, &result->reading);
  progress->step++;
  progress->schedule = result->schedule;
  c->tokens_seen += last[KWM_READ_TOKENS];
  describe(progress, result, taken);
  if (result->verdict != KWM_STEP_DONE) {
    c->skipped++, c->skips_in_a_row++;
    return;
  }
  c->skips_in_a_row = 0;
  c->nis_sum += last[KWM_READ_SQUARED] / last[KWM_READ_EXPECTED];
  c->nis_steps++;
  c->row_steps++;
  c->row_norm += result->score_norm;
  for (int s = 0; s < progress->run->model.stages; s++) {
    for (int k = 0; k < KWM_READ_SUMS; k++) c->row.of[s][k] += result->reading.of[s][k];
    c->row_kl[s] += result->kl[s];
    c->row_scale[s] += result->scale[s];
  }
}

void kwm_language_progress_own(struct kwm_language_progress *progress) {
  struct kwm_language_counts *const c = &progress->counts;
  if (progress->run->run->layout.rank == 0) return;
  memset(c->row_kl, 0, sizeof c->row_kl);
  memset(c->row_scale, 0, sizeof c->row_scale);
}

void kwm_language_progress_gather(struct kwm_language_progress *progress) {
  struct kwm_layout *const layout = &progress->run->run->layout;
  kwm_par_sum_world(layout, progress->run->model.stages, progress->counts.row_kl);
  kwm_par_sum_world(layout, progress->run->model.stages, progress->counts.row_scale);
  kwm_language_progress_own(progress);
}

static void take_traces(struct kwm_language_progress *progress) {
  double sums[2 * KWM_TENSOR_ROLES];
  struct kwm_layout *const layout = &progress->run->run->layout;
  kwm_language_health(progress->run->learner, sums, sums + KWM_TENSOR_ROLES);
  kwm_par_sum_world(layout, 2 * KWM_TENSOR_ROLES, sums);
  for (int role = 0; role < KWM_TENSOR_ROLES; role++)
    progress->counts.trace[role] = sums[KWM_TENSOR_ROLES + role] > 0 ? sums[role] / sums[KWM_TENSOR_ROLES + role] : NAN;
}

static double or_nan(const struct kwm_language_score *score, double value) {
  return score->tokens > 0 ? value : NAN;
}

kwm_status kwm_language_progress_evaluate(struct kwm_language_progress *progress) {
  struct kwm_language_counts *const c = &progress->counts;
  const int last = progress->run->model.stages - 1;
  struct kwm_language_score valid, test;
  KWM_TRY(kwm_language_score(progress->run, KWM_VALID, true, c->weights, &valid));
  KWM_TRY(kwm_language_score(progress->run, KWM_TEST, valid.tokens == 0, c->weights, &test));
  c->valid = or_nan(&valid, valid.stage[last]);
  c->valid_fused = or_nan(&valid, valid.fused);
  c->test = or_nan(&test, test.stage[last]);
  c->test_fused = or_nan(&test, test.fused);
  if (valid.tokens > 0 && !(c->best_valid <= c->valid)) {
    c->best_valid = c->valid;
    c->best_epoch = kwm_language_progress_epoch(progress);
    c->best_test = c->test;
    c->best_test_fused = c->test_fused;
  }
  take_traces(progress);
  return KWM_OK;
}

static void live_line(const struct kwm_language_progress *progress, double rate, bool evaluated) {
  const struct kwm_language_counts *const c = &progress->counts;
  const struct kwm_config *const config = &progress->run->run->config;
  const int64_t left = progress->run->steps - progress->step;
  const double *const last = last_of(progress, &c->row);
  char tested[96] = "";
  if (evaluated && isfinite(c->valid)) snprintf(tested, sizeof tested, "  valid %.2f  test %.2f", c->valid, c->test);
  kwm_log_progress(evaluated || left == 0,
                   "epoch %.2f/%lld  step %lld/%lld  loss %.4f  perplexity %.1f  nis %.2f  %.0f tokens/s  eta %.0f s"
                   "  comm %.0f %%%s",
                   kwm_language_progress_epoch(progress), (long long)config->train.epochs, (long long)progress->step,
                   (long long)progress->run->steps, c->train_loss, exp(c->train_loss),
                   last[KWM_READ_SQUARED] / last[KWM_READ_EXPECTED], rate,
                   (double)(left * config->train.batch * config->model.context) / rate,
                   100 * c->comm_seconds / c->seconds, tested);
}

static bool is_kalman(const struct kwm_language_progress *progress) {
  return strcmp(progress->run->run->config.learner, "kalman") == 0;
}

void kwm_language_progress_time(struct kwm_language_progress *progress, double seconds, double idle) {
  progress->seconds += seconds;
  progress->idle += idle;
}

/* Of all ranks. */
static double idle_fraction(struct kwm_language_progress *progress) {
  double sums[2] = {progress->idle, progress->seconds};
  kwm_par_sum_world(&progress->run->run->layout, 2, sums);
  return sums[0] / sums[1];
}

kwm_status kwm_language_progress_row(struct kwm_language_progress *progress, bool evaluated) {
  struct kwm_language_counts *const c = &progress->counts;
  const double *const last = last_of(progress, &c->row);
  const double rate = last[KWM_READ_TOKENS] / c->row_seconds;
  if (last[KWM_READ_TOKENS] > 0) c->train_loss = last[KWM_READ_SURPRISAL] / last[KWM_READ_TOKENS];
  kwm_language_progress_gather(progress);
  double values[COLUMNS + STAGE_COLUMNS * KWM_TRANSFORMER_STAGES_MAX] = {
      (double)progress->step,
      kwm_language_progress_epoch(progress),
      c->seconds,
      c->tokens_seen,
      c->train_loss,
      last[KWM_READ_CORRECT] / last[KWM_READ_TOKENS],
      last[KWM_READ_ENTROPY] / last[KWM_READ_TOKENS],
      last[KWM_READ_SQUARED] / last[KWM_READ_EXPECTED],
      c->row_norm / c->row_steps,
      progress->schedule,
      c->skipped,
      evaluated ? c->trace[KWM_TENSOR_MATRIX] : NAN,
      evaluated ? c->trace[KWM_TENSOR_EMBEDDING] : NAN,
      evaluated ? c->trace[KWM_TENSOR_VECTOR] : NAN,
      rate,
      c->comm_seconds / c->seconds,
      evaluated ? c->valid : NAN,
      evaluated ? c->valid_fused : NAN,
      evaluated ? c->test : NAN,
      evaluated ? c->test_fused : NAN,
      idle_fraction(progress)};
  const bool trusts = progress->run->run->config.filter.trust_region > 0 && is_kalman(progress);
  const int stages = progress->run->model.stages;
  for (int s = 0; s < stages; s++) {
    values[COLUMNS + s] = c->row.of[s][KWM_READ_SURPRISAL] / c->row.of[s][KWM_READ_TOKENS];
    values[COLUMNS + stages + s] = trusts ? c->row_kl[s] / c->row_steps : NAN;
    values[COLUMNS + 2 * stages + s] = trusts ? c->row_scale[s] / c->row_steps : NAN;
  }
  kwm_status status = KWM_OK;
  if (progress->metrics != NULL) status = kwm_metrics_row(progress->metrics, values);
  live_line(progress, rate, evaluated);
  memset(&c->row, 0, sizeof c->row);
  memset(c->row_kl, 0, sizeof c->row_kl);
  memset(c->row_scale, 0, sizeof c->row_scale);
  c->row_seconds = c->row_steps = c->row_norm = 0;
  return kwm_agree(progress->run->run->layout.world, status);
}

/* A field for each stage rank: the share of time since the start for which it had nothing to compute, over replicas. */
static void add_idle(struct kwm_language_progress *progress, struct kwm_field *fields, char (*names)[NAME_BYTES]) {
  struct kwm_layout *const layout = &progress->run->run->layout;
  double share[KWM_TRANSFORMER_LAYERS_MAX] = {0};
  share[layout->stage] = progress->idle / progress->seconds / layout->replicas;
  kwm_par_sum_world(layout, layout->stages, share);
  for (int r = 0; r < layout->stages; r++) {
    snprintf(names[r], NAME_BYTES, "idle_fraction_stage%d", r + 1);
    fields[r] = (struct kwm_field){.name = names[r], .kind = KWM_FIELD_NUMBER, .number = share[r]};
  }
}

kwm_status kwm_language_progress_summary(struct kwm_language_progress *progress, const char *dir, const char *status) {
  const struct kwm_language_run *const language = progress->run;
  struct kwm_layout *const layout = &language->run->layout;
  const struct kwm_language_counts *const c = &progress->counts;
  const struct kwm_language_traffic sent = kwm_language_sent(language->language);
  double peak = (double)kwm_mem_peak_resident(), traffic[4] = {sent.forward, sent.back, sent.embedded, sent.copies};
  kwm_par_max_world(layout, 1, &peak);
  kwm_par_sum_world(layout, 4, traffic);
#define NUMBER(label, value)                                                                                           \
  { .name = label, .kind = KWM_FIELD_NUMBER, .number = (value) }
#define INTEGER(label, value)                                                                                          \
  { .name = label, .kind = KWM_FIELD_INTEGER, .integer = (int64_t)(value) }
  const struct kwm_field fields[] = {{.name = "status", .kind = KWM_FIELD_TEXT, .text = status},
                                     {.name = "learner", .kind = KWM_FIELD_TEXT, .text = language->run->config.learner},
                                     INTEGER("step", progress->step),
                                     NUMBER("epoch", kwm_language_progress_epoch(progress)),
                                     NUMBER("seconds", c->seconds),
                                     INTEGER("samples_seen", c->tokens_seen),
                                     NUMBER("samples_per_second", c->tokens_seen / c->seconds),
                                     INTEGER("parameters", kwm_transformer_parameters(&language->model)),
                                     INTEGER("types", language->model.types),
                                     NUMBER("train_loss", c->train_loss),
                                     NUMBER("valid_perplexity", c->valid),
                                     NUMBER("valid_perplexity_fused", c->valid_fused),
                                     NUMBER("test_perplexity", c->test),
                                     NUMBER("test_perplexity_fused", c->test_fused),
                                     NUMBER("best_valid_perplexity", c->best_valid),
                                     NUMBER("best_epoch", c->best_epoch),
                                     NUMBER("best_test_perplexity", c->best_test),
                                     NUMBER("best_test_perplexity_fused", c->best_test_fused),
                                     NUMBER("nis_mean", c->nis_sum / c->nis_steps),
                                     INTEGER("skipped_steps", c->skipped),
                                     NUMBER("comm_fraction", c->comm_seconds / c->seconds),
                                     NUMBER("bytes_forward", traffic[0]),
                                     NUMBER("bytes_back", traffic[1]),
                                     NUMBER("bytes_embedded", traffic[2]),
                                     NUMBER("bytes_copies", traffic[3]),
                                     INTEGER("peak_bytes_per_rank", peak),
                                     INTEGER("ranks", layout->size)};
#undef NUMBER
#undef INTEGER
  enum { FIELDS = sizeof fields / sizeof fields[0] };
  struct kwm_field all[FIELDS + KWM_TRANSFORMER_LAYERS_MAX];
  char names[KWM_TRANSFORMER_LAYERS_MAX][NAME_BYTES];
  kwm_status written = KWM_OK;
  memcpy(all, fields, sizeof fields);
  add_idle(progress, all + FIELDS, names);
  if (layout->rank == 0) written = kwm_report_fields(dir, "summary.json", FIELDS + layout->stages, all);
  return kwm_agree(layout->world, written);
}
