/* kwm train of a world model: passes over the training part, then the forecasts of the test part. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kwm/consistency.h"
#include "kwm/fault.h"
#include "kwm/log.h"
#include "loop.h"
#include "rundir.h"
#include "world.h"

enum { PARAMETERS_SHOWN = 24, COLUMNS = 13 };

struct tables {
  kwm_metrics *metrics, *parameters;
  int shown;
};

struct training {
  struct world *world;
  struct tables tables;
  struct world_result result;
  int64_t last_row; /* the step of the last row */
  struct kwm_loop loop;
};

double world_squares(const struct kwm_track *track, int m) {
  double sum = 0;
  for (int i = 0; i < m && track->verdict == KWM_TRACKED; i++)
    if (!isnan(track->e[i])) sum += track->e[i] * track->e[i];
  return sum;
}

void world_count(struct world_counts *counts, const struct kwm_track *track, double squares) {
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
  counts->squares += squares, counts->row_squares += squares;
  counts->outputs += track->observed, counts->row_outputs += track->observed;
}

/* ---- tables, rank 0 */

static kwm_status open_tables(void *self, const char *dir) {
  struct training *const training = self;
  struct world *const world = training->world;
  struct tables *const tables = &training->tables;
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

static void close_tables(void *self) {
  struct tables *const tables = &((struct training *)self)->tables;
  kwm_metrics_close(&tables->metrics);
  kwm_metrics_close(&tables->parameters);
}

static double mean_of(int n, const double *values) {
  double sum = 0;
  for (int i = 0; i < n; i++) sum += values[i];
  return n > 0 ? sum / n : NAN;
}

/* What is left of the parameters' prior variance. */
static double trace_left(const struct world_view *view) {
  double left = 0, prior = 0;
  for (int i = 0; i < view->n; i++) left += view->variances[i], prior += view->prior[i];
  return left / prior; /* NaN: there is no prior */
}

static kwm_status write_rows(const struct world *world, struct tables *tables, double rate,
                             const struct world_view *view) {
  const struct world_counts *const c = &world->counts;
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
                                  world->koopman ? NAN : sqrt(mean_of(view->d, view->q)),
                                  world->koopman ? NAN : sqrt(mean_of(view->m, view->r)),
                                  c->skipped,
                                  trace_left(view)};
  if (tables->metrics != NULL) KWM_TRY(kwm_metrics_row(tables->metrics, values));
  if (tables->parameters == NULL) return KWM_OK;
  double row[2 * PARAMETERS_SHOWN + 1] = {(double)world->step};
  for (int i = 0; i < tables->shown; i++) {
    row[2 * i + 1] = view->theta[i];
    row[2 * i + 2] = sqrt(view->variances[i]);
  }
  return kwm_metrics_row(tables->parameters, row);
}

static kwm_status row(void *self, bool evaluated) {
  (void)evaluated;
  struct training *const training = self;
  struct world *const world = training->world;
  struct world_counts *const c = &world->counts;
  if (world->koopman && !world->network) {
    KWM_TRY(world_merge(world));
    if (world->regression.count > world->regression.k) KWM_TRY(world_solve(world));
  }
  const double rate = (double)(world->step - training->last_row) / c->row_seconds;
  struct world_view view;
  KWM_TRY(world_look(world, &view));
  const kwm_status written = write_rows(world, &training->tables, rate, &view);
  kwm_free(view.memory);
  const int64_t left = world->steps - world->step;
  char nis[32] = "";
  if (c->row_dof > 0) snprintf(nis, sizeof nis, "  nis %.2f", c->row_nis / c->row_dof);
  kwm_log_progress(left == 0, "step %lld/%lld  rmse %.4f%s  %.0f steps/s  eta %.0f s", (long long)world->step,
                   (long long)world->steps, sqrt(c->row_squares / c->row_outputs), nis, rate, (double)left / rate);
  c->row_seconds = c->row_steps = c->row_nis = c->row_dof = c->row_squares = c->row_outputs = c->row_likelihood = 0;
  training->last_row = world->step;
  return kwm_agree(world->run->layout.world, written);
}

/* ---- the loop */

/* Everything is the same on all ranks. A gated step is counted, and no trouble. */
static void describe(struct world *world, const struct kwm_ring_track *one, struct kwm_loop_step *step) {
  const struct kwm_track *const track = &one->track;
  const bool bad = track->verdict == KWM_TRACKED_NUMERIC;
  world->skips_in_a_row = bad ? world->skips_in_a_row + 1 : 0;
  if (!bad) return;
  step->verdict = one->lost ? KWM_STEP_NOT_FINITE : KWM_STEP_INDEFINITE;
  step->place = step->verdict == KWM_STEP_INDEFINITE ? "S" : "the state";
  snprintf(step->numbers, sizeof step->numbers,
           "nis %.3g of %d outputs (world.prior, world.process_noise and world.gate may help)", track->nis,
           track->observed);
}

/* Whatever the model, as of a ring. */
static struct kwm_ring_track learn(struct world *world, int64_t t) {
  if (world->is_split) return world_split_learn(world, &world->split.ring, t);
  const struct kwm_track track = world_learn(world, world_learner(world), t);
  return (struct kwm_ring_track){.track = track,
                                 .squares = world_squares(&track, world->series.m),
                                 .lost = track.verdict == KWM_TRACKED_NUMERIC && !world_finite(world)};
}

static kwm_status one_step(void *self, struct kwm_loop_step *step) {
  struct world *const world = ((struct training *)self)->world;
  const int64_t t = world->step % world->series.train;
  int64_t done = 1;
  kwm_watch_phase(world->run->watch, "learn", world->step);
  if (world->config->world.streams > 1) {
    KWM_TRY(world_round(world, &done));
  } else if (world->koopman && !world->network) {
    world_regress(world, &world->streams[0], t);
    world->counts.row_steps++;
  } else {
    struct kwm_ring_track one = learn(world, t);
    if (kwm_fault_ordered("indefinite", "learn", world->step, world->run->layout.rank))
      one.track.verdict = KWM_TRACKED_NUMERIC;
    world_count(&world->counts, &one.track, one.squares);
    describe(world, &one, step);
  }
  world->step += done;
  return KWM_OK;
}

static struct kwm_loop_place place(const void *self, int64_t before) {
  const struct world *const world = ((const struct training *)self)->world;
  const struct world_counts *const c = &world->counts;
  return (struct kwm_loop_place){.step = world->step,
                                 .ends_lap = world->step / world->series.train > before / world->series.train,
                                 .skips_in_a_row = world->skips_in_a_row,
                                 .nis = c->row_nis / c->row_dof,
                                 .row_steps = c->row_steps};
}

static kwm_status load(void *self, kwm_ckpt *ckpt) {
  struct training *const training = self;
  KWM_TRY(world_load(training->world, ckpt));
  training->last_row = training->world->step;
  return KWM_OK;
}

static kwm_status put(void *self, kwm_ckpt *ckpt) {
  return world_put(((struct training *)self)->world, ckpt);
}

static bool means_finite(void *self) {
  return world_finite(((struct training *)self)->world);
}

static void inflate(void *self) {
  struct world *const world = ((struct training *)self)->world;
  const double factor = world->config->change.inflation;
  if (world->is_split)
    kwm_ring_inflate(&world->split.ring, factor);
  else
    kwm_tracker_inflate(world_learner(world), factor);
}

static kwm_status begin(void *self) {
  struct world *const world = ((struct training *)self)->world;
  const bool fits = strcmp(world->config->world.noise, "fit") == 0;
  return world->step == 0 && !world->koopman && fits ? world_fit(world) : KWM_OK;
}

static kwm_status conclude(void *self) {
  struct training *const training = self;
  struct world *const world = training->world;
  const struct kwm_config *const config = world->config;
  kwm_watch_phase(world->run->watch, "fit", world->step);
  if (world->koopman) {
    KWM_TRY(world_merge(world));
    KWM_TRY(world_solve(world));
  }
  if (world->koopman && strcmp(config->world.noise, "given") != 0) KWM_TRY(world_fit(world));
  KWM_TRY(kwm_loop_save(&training->loop, world->step));
  kwm_watch_phase(world->run->watch, "evaluate", world->step);
  kwm_status status = KWM_OK;
  const bool first = world->run->layout.rank == 0;
  if (first || world->is_split) status = world_evaluate(world, first ? config->output : "", false, &training->result);
  return kwm_agree(world->run->layout.world, status);
}

static kwm_status summary(void *self, const char *dir, const char *word) {
  const struct training *const training = self;
  struct world *const world = training->world;
  const struct world_result *const result = &training->result;
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
  if (world->run->layout.rank == 0) written = kwm_report_fields(dir, "summary.json", n, fields);
  return kwm_agree(world->run->layout.world, written);
}

static void say(const void *self) {
  const struct world *const world = ((const struct training *)self)->world;
  kwm_log(KWM_LOG_INFO, "%s: %lld steps of %d outputs and %d inputs on %d ranks", world->config->model.kind,
          (long long)world->steps, world->series.m, world->series.k, world->run->layout.size);
}

static const struct kwm_loop_kind worlds = {.load = load,
                                            .open = open_tables,
                                            .say = say,
                                            .begin = begin,
                                            .step = one_step,
                                            .place = place,
                                            .row = row,
                                            .inflate = inflate,
                                            .finite = means_finite,
                                            .put = put,
                                            .conclude = conclude,
                                            .close = close_tables,
                                            .summary = summary};

static kwm_status train(struct world *world, bool resumes) {
  struct kwm_run *const run = world->run;
  struct training training = {.world = world,
                              .result = {NAN, NAN, NAN, NAN, NAN, NAN, NAN},
                              .loop = {.kind = &worlds,
                                       .run = run,
                                       .steps = world->steps,
                                       .resumes = resumes,
                                       .seldom = run->config.world.streams == 1,
                                       .n_files = world->known ? 0 : 1,
                                       .files = &world->series.file,
                                       .seconds = &world->counts.seconds,
                                       .comm_seconds = &world->counts.comm_seconds,
                                       .row_seconds = &world->counts.row_seconds}};
  training.loop.self = &training;
  KWM_TRY(kwm_agree(run->layout.world, run->layout.rank == 0 ? kwm_rundir_check(run, resumes) : KWM_OK));
  return kwm_loop_run(&training.loop);
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
