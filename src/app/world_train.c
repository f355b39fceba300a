/* kwm train of a world model: one pass over the training part, its run directory, its signals; then the forecasts of
   the test part. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kwm/consistency.h"
#include "kwm/log.h"
#include "rundir.h"
#include "world.h"

enum { PARAMETERS_SHOWN = 24, COLUMNS = 13 };

struct tables {
  kwm_metrics *metrics, *parameters;
  int shown;
};

void world_count(struct world_counts *counts, const struct kwm_track *track, int m) {
  counts->row_steps++;
  if (track->verdict == KWM_TRACKED_NOTHING) return;
  if (track->verdict != KWM_TRACKED) {
    counts->skipped++;
    return;
  }
  counts->observed++;
  counts->nis += track->nis, counts->row_nis += track->nis;
  counts->nis_dof += track->observed, counts->row_dof += track->observed;
  counts->likelihood += track->likelihood, counts->row_likelihood += track->likelihood;
  for (int i = 0; i < m; i++) {
    if (isnan(track->e[i])) continue;
    counts->squares += track->e[i] * track->e[i], counts->row_squares += track->e[i] * track->e[i];
    counts->outputs++, counts->row_outputs++;
  }
}

/* ---- tables, rank 0 */

static kwm_status open_tables(struct world *world, struct tables *tables, const char *dir) {
  static const char *const columns[COLUMNS] = {"step", "epoch",   "seconds",  "steps_per_s", "rmse",
                                               "nis",  "nis_low", "nis_high", "loss",        "q",
                                               "r",    "skipped", "trace"};
  char names[PARAMETERS_SHOWN][64], deviations[PARAMETERS_SHOWN][72];
  const char *list[2 * PARAMETERS_SHOWN + 1] = {"step"};
  KWM_TRY(kwm_metrics_open(&tables->metrics, dir, "metrics.tsv", COLUMNS, columns, world->step));
  if (world->koopman) return KWM_OK;
  tables->shown = world->model.n < PARAMETERS_SHOWN ? world->model.n : PARAMETERS_SHOWN;
  for (int i = 0; i < tables->shown; i++) {
    list[2 * i + 1] = kwm_statespace_name(&world->model, i, names[i]);
    snprintf(deviations[i], sizeof deviations[i], "sd_%.63s", names[i]);
    list[2 * i + 2] = deviations[i];
  }
  return kwm_metrics_open(&tables->parameters, dir, "parameters.tsv", 2 * tables->shown + 1, list, world->step);
}

static void close_tables(struct tables *tables) {
  kwm_metrics_close(&tables->metrics);
  kwm_metrics_close(&tables->parameters);
}

static double mean_of(int n, const double *values) {
  double sum = 0;
  for (int i = 0; i < n; i++) sum += values[i];
  return n > 0 ? sum / n : NAN;
}

/* What is left of the parameters' prior variance. */
static double trace_left(struct world *world, const double *variances) {
  double left = 0, prior = 0;
  const struct kwm_tracker *const learner = world_learner(world);
  for (int i = 0; i < learner->n; i++) left += variances[i], prior += learner->prior[i];
  return left / prior; /* NaN: there is no prior */
}

static kwm_status write_rows(struct world *world, struct tables *tables, double rate, const double *variances) {
  const struct world_counts *const c = &world->counts;
  const struct kwm_tracker *const tracker = &world->tracker;
  const struct kwm_nis nis = {.sum = c->row_nis, .dof = c->row_dof, .steps = c->row_steps};
  const bool judged = c->row_dof > 0;
  const struct kwm_band band = judged ? kwm_nis_band(&nis, 0.95) : (struct kwm_band){NAN, NAN};
  const double values[COLUMNS] = {(double)world->step,
                                  (double)world->step / (double)world->series.train,
                                  c->seconds,
                                  rate,
                                  sqrt(c->row_squares / c->row_outputs),
                                  judged ? c->row_nis / c->row_dof : NAN,
                                  band.lower,
                                  band.upper,
                                  judged ? -c->row_likelihood / c->row_dof : NAN,
                                  world->koopman ? NAN : sqrt(mean_of(tracker->d, tracker->q)),
                                  world->koopman ? NAN : sqrt(mean_of(tracker->m, tracker->r)),
                                  c->skipped,
                                  trace_left(world, variances)};
  if (tables->metrics != NULL) KWM_TRY(kwm_metrics_row(tables->metrics, values));
  if (tables->parameters == NULL) return KWM_OK;
  double row[2 * PARAMETERS_SHOWN + 1] = {(double)world->step};
  for (int i = 0; i < tables->shown; i++) {
    row[2 * i + 1] = tracker->z[i];
    row[2 * i + 2] = sqrt(variances[i]);
  }
  return kwm_metrics_row(tables->parameters, row);
}

static void clock_on(struct world *world) {
  struct kwm_layout *const layout = &world->run->layout;
  const double now = kwm_par_seconds(), comm = layout->comm_seconds;
  world->counts.seconds += now - world->started;
  world->counts.row_seconds += now - world->started;
  world->counts.comm_seconds += comm - world->comm_started;
  world->started = now, world->comm_started = comm;
}

static kwm_status report(struct world *world, struct tables *tables, int64_t before) {
  struct world_counts *const c = &world->counts;
  if (world->koopman && !world->network) {
    KWM_TRY(world_merge(world));
    if (world->regression.count > world->regression.k) KWM_TRY(world_solve(world));
  }
  clock_on(world);
  const double rate = (double)(world->step - before) / c->row_seconds;
  const struct kwm_tracker *const learner = world_learner(world);
  double *variances;
  KWM_TRY(kwm_alloc((void **)&variances, (size_t)(learner->n + 1) * sizeof *variances, "variances"));
  kwm_tracker_variances(learner, variances);
  const kwm_status written = write_rows(world, tables, rate, variances);
  kwm_free(variances);
  const int64_t left = world->steps - world->step;
  char nis[32] = "";
  if (c->row_dof > 0) snprintf(nis, sizeof nis, "  nis %.2f", c->row_nis / c->row_dof);
  kwm_log_progress(left == 0, "step %lld/%lld  rmse %.4f%s  %.0f steps/s  eta %.0f s", (long long)world->step,
                   (long long)world->steps, sqrt(c->row_squares / c->row_outputs), nis, rate, (double)left / rate);
  c->row_seconds = c->row_steps = c->row_nis = c->row_dof = c->row_squares = c->row_outputs = c->row_likelihood = 0;
  return kwm_agree(world->run->layout.world, written);
}

/* ---- the loop */

static kwm_status one_step(struct world *world) {
  const int64_t t = world->step % world->series.train;
  world->step++;
  if (world->koopman && !world->network) {
    world_regress(world, &world->streams[0], t);
    world->counts.row_steps++;
    return KWM_OK;
  }
  const struct kwm_track track = world_learn(world, world_learner(world), t);
  world_count(&world->counts, &track, world->series.m);
  KWM_CHECK(track.verdict != KWM_TRACKED_NUMERIC, KWM_ERR_NUMERIC,
            "step %lld: wanted a finite state and a positive definite S, found others (world.prior, "
            "world.process_noise and world.gate may help)",
            (long long)world->step);
  return KWM_OK;
}

/* A multiple of `every` lies in (before, now]. */
static bool passed(int64_t before, int64_t now, int64_t every) {
  return every > 0 && now / every > before / every;
}

static kwm_status train_loop(struct world *world, struct tables *tables, bool *stop) {
  const struct kwm_config *const config = world->config;
  int64_t last_row = world->step;
  if (world->step == 0 && !world->koopman && strcmp(config->world.noise, "fit") == 0) KWM_TRY(world_fit(world));
  while (world->step < world->steps && !*stop) {
    const int64_t before = world->step;
    int64_t done = 0;
    if (config->world.streams == 1) {
      KWM_TRY(one_step(world));
    } else {
      KWM_TRY(world_round(world, &done));
      world->step += done;
    }
    const bool last = world->step >= world->steps, lap = passed(before, world->step, world->series.train);
    const bool row = last || passed(before, world->step, config->report.every);
    if (row) {
      KWM_TRY(report(world, tables, last_row));
      last_row = world->step;
    }
    /* Asking all ranks at every step would cost more than the step. */
    const bool ask = world->run->layout.size == 1 || row || config->world.streams > 1;
    if (ask) *stop = kwm_par_any(&world->run->layout, kwm_rundir_stop_requested()) && !last;
    const bool due = config->checkpoint.every > 0 ? passed(before, world->step, config->checkpoint.every) : lap;
    if (!due && !last && !*stop) continue;
    clock_on(world);
    KWM_TRY(world_save(world, config->output));
  }
  return KWM_OK;
}

static kwm_status finish(struct world *world, struct world_result *result) {
  const struct kwm_config *const config = world->config;
  if (world->koopman) {
    KWM_TRY(world_merge(world));
    KWM_TRY(world_solve(world));
  }
  if (world->koopman && strcmp(config->world.noise, "given") != 0) KWM_TRY(world_fit(world));
  KWM_TRY(world_save(world, config->output));
  kwm_status status = KWM_OK;
  if (world->run->layout.rank == 0) status = world_evaluate(world, config->output, false, result);
  return kwm_agree(world->run->layout.world, status);
}

static kwm_status write_summary(struct world *world, const struct world_result *result, const char *word) {
  const struct world_counts *const c = &world->counts;
  double peak = (double)kwm_mem_peak_resident();
  double truth[2] = {NAN, NAN};
  kwm_par_max_world(&world->run->layout, 1, &peak);
  if (world->known) world_true_noise(world, truth);
#define NUMBER(label, value)                                                                                           \
  { .name = label, .kind = KWM_FIELD_NUMBER, .number = (value) }
#define INTEGER(label, value)                                                                                          \
  { .name = label, .kind = KWM_FIELD_INTEGER, .integer = (int64_t)(value) }
  const struct kwm_field fields[] = {{.name = "status", .kind = KWM_FIELD_TEXT, .text = word},
                                     {.name = "model", .kind = KWM_FIELD_TEXT, .text = world->config->model.kind},
                                     INTEGER("step", world->step),
                                     NUMBER("epoch", (double)world->step / (double)world->series.train),
                                     NUMBER("seconds", c->seconds),
                                     INTEGER("samples_seen", world->step),
                                     NUMBER("steps_per_second", (double)world->step / c->seconds),
                                     NUMBER("train_rmse", sqrt(c->squares / c->outputs)),
                                     NUMBER("train_loss", c->nis_dof > 0 ? -c->likelihood / c->nis_dof : NAN),
                                     NUMBER("nis_mean", c->nis_dof > 0 ? c->nis / c->nis_dof : NAN),
                                     INTEGER("skipped_steps", c->skipped),
                                     INTEGER("parameters", world_parameters(world)),
                                     NUMBER("test_filtered_rmse", result->filtered),
                                     NUMBER("test_rmse", result->rmse_1),
                                     NUMBER("test_rmse_10", result->rmse_10),
                                     NUMBER("test_nis", result->nis),
                                     NUMBER("test_coverage_50", result->coverage50),
                                     NUMBER("test_coverage_90", result->coverage90),
                                     NUMBER("noise_log_q", world->noise[0]),
                                     NUMBER("noise_log_r", world->noise[1]),
                                     NUMBER("noise_log_q_sd", world->noise[2]),
                                     NUMBER("noise_log_r_sd", world->noise[3]),
                                     NUMBER("true_log_q", truth[0]),
                                     NUMBER("true_log_r", truth[1]),
                                     NUMBER("comm_fraction", c->comm_seconds / c->seconds),
                                     INTEGER("peak_bytes_per_rank", peak),
                                     INTEGER("ranks", world->run->layout.size)};
#undef NUMBER
#undef INTEGER
  kwm_status written = KWM_OK;
  const int n = sizeof fields / sizeof fields[0];
  if (world->run->layout.rank == 0) written = kwm_report_fields(world->config->output, "summary.json", n, fields);
  return kwm_agree(world->run->layout.world, written);
}

static kwm_status resume(struct world *world) {
  kwm_ckpt *ckpt = NULL;
  if (!kwm_rundir_has_checkpoint(world->run)) {
    kwm_log(KWM_LOG_INFO, "no checkpoint in %s yet: starting at the beginning", world->config->output);
    return KWM_OK;
  }
  KWM_TRY(kwm_run_open_checkpoint(&ckpt, &world->run->layout, world->config->output));
  kwm_log(KWM_LOG_INFO, "resuming from %s", kwm_ckpt_path(ckpt));
  const kwm_status status = world_load(world, ckpt);
  kwm_ckpt_close(&ckpt);
  return status;
}

static kwm_status train(struct world *world, bool resumes) {
  struct kwm_run *const run = world->run;
  const bool first = run->layout.rank == 0;
  struct tables tables = {0};
  struct world_result result = {NAN, NAN, NAN, NAN, NAN, NAN, NAN};
  bool stop = false;
  KWM_TRY(kwm_agree(run->layout.world, first ? kwm_rundir_check(run, resumes) : KWM_OK));
  if (resumes) KWM_TRY(resume(world));
  KWM_TRY(kwm_agree(run->layout.world, first ? kwm_rundir_make(run) : KWM_OK));
  KWM_TRY(kwm_rundir_manifest(run, world->known ? 0 : 1, &world->series.file));
  kwm_status status = kwm_agree(run->layout.world, first ? open_tables(world, &tables, run->config.output) : KWM_OK);
  kwm_log(KWM_LOG_INFO, "%s: %lld steps of %d outputs and %d inputs on %d ranks", run->config.model.kind,
          (long long)world->steps, world->series.m, world->series.k, run->layout.size);
  world->started = kwm_par_seconds();
  world->comm_started = run->layout.comm_seconds;
  if (status == KWM_OK) status = train_loop(world, &tables, &stop);
  close_tables(&tables);
  if (status == KWM_OK && !stop) status = finish(world, &result);
  if (status == KWM_OK && stop) status = KWM_STOPPED;
  const kwm_status written = write_summary(world, &result, kwm_rundir_word(status));
  if (status == KWM_STOPPED)
    kwm_log(KWM_LOG_INFO, "stopped on request at step %lld, checkpoint written", (long long)world->step);
  return status != KWM_OK ? status : written;
}

kwm_status kwm_world_train(struct kwm_run *run, const struct kwm_arguments *arguments) {
  struct world *world;
  KWM_TRY(kwm_alloc((void **)&world, sizeof *world, "world model"));
  kwm_status status = world_open(world, run);
  if (status == KWM_OK) status = train(world, arguments->resume);
  world_close(world);
  kwm_free(world);
  return status;
}
