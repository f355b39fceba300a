/* kwm eval, plan and spectra of a world model. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "kwm/log.h"
#include "world.h"

/* ---- scores of all methods */

static kwm_status open_trajectory(const struct world *world, const char *dir, kwm_metrics **table) {
  enum { OUTPUTS_SHOWN = 4 };
  static const char *const words[] = {"observed", "truth", "filtered", "sd"};
  char names[4 * OUTPUTS_SHOWN][KWM_SERIES_NAME + 16];
  const char *columns[1 + 4 * OUTPUTS_SHOWN] = {"step"};
  int n = 1;
  for (int i = 0; i < world->series.m && i < OUTPUTS_SHOWN; i++)
    for (int w = 0; w < 4; w++, n++) {
      snprintf(names[n - 1], sizeof names[0], "%s_%s", world->series.names[i], words[w]);
      columns[n] = names[n - 1];
    }
  return kwm_metrics_open(table, dir, "trajectory.tsv", n, columns, -1);
}

struct share {
  double first, tenth, inside50, inside90;
};

/* Numbers over the first 10 horizons. */
static struct share share_of(const struct world *world, const struct world_score *score) {
  const int64_t horizon = world->config->world.horizon, last = horizon < 10 ? horizon : 10;
  double in50 = 0, in90 = 0, count = 0;
  for (int64_t h = 0; h < last; h++) in50 += score->inside50[h], in90 += score->inside90[h], count += score->count[h];
  return (struct share){.first = sqrt(score->errors[0] / score->count[0]),
                        .tenth = horizon >= 10 ? sqrt(score->errors[9] / score->count[9]) : NAN,
                        .inside50 = in50 / count,
                        .inside90 = in90 / count};
}

static double filtered_of(const struct world_score *score) {
  return score->filtered_n > 0 ? sqrt(score->filtered / score->filtered_n) : NAN;
}

/* One method: scored, printed, its horizons appended to text. */
static kwm_status one_method(struct world *world, struct world_method *method, const char *dir, bool prints,
                             double *memory, FILE *forecasts, struct world_result *result) {
  const int64_t horizon = world->config->world.horizon, first = world->series.train + world->series.valid;
  struct world_score score = {
      .errors = memory, .inside50 = memory + horizon, .inside90 = memory + 2 * horizon, .count = memory + 3 * horizon};
  kwm_metrics *trajectory = NULL;
  memset(memory, 0, (size_t)(4 * horizon) * sizeof *memory);
  kwm_status status = KWM_OK;
  if (result != NULL && dir[0] != '\0') status = open_trajectory(world, dir, &trajectory);
  if (method->kind == WORLD_RING) status = kwm_agree(world->run->layout.world, status);
  if (status == KWM_OK) status = world_score(world, method, first, world->series.n, &score, trajectory);
  kwm_metrics_close(&trajectory);
  KWM_TRY(status);
  const struct share share = share_of(world, &score);
  const double nis = score.nis_dof > 0 ? score.nis / score.nis_dof : NAN;
  const double nees = score.nees_dof > 0 ? score.nees / score.nees_dof : NAN;
  if (prints)
    printf("%s\t%.6g\t%.6g\t%.6g\t%.4g\t%.4g\t%.3f\t%.3f\n", method->name, filtered_of(&score), share.first,
           share.tenth, nis, nees, share.inside50, share.inside90);
  for (int64_t h = 0; h < horizon && forecasts != NULL; h++)
    fprintf(forecasts, "%s\t%lld\t%.9g\t%.6g\t%.6g\t%.0f\n", method->name, (long long)h + 1,
            sqrt(score.errors[h] / score.count[h]), score.inside50[h] / score.count[h],
            score.inside90[h] / score.count[h], score.count[h]);
  if (result != NULL)
    *result = (struct world_result){.filtered = filtered_of(&score),
                                    .nis = nis,
                                    .nees = nees,
                                    .rmse_1 = share.first,
                                    .rmse_10 = share.tenth,
                                    .coverage50 = share.inside50,
                                    .coverage90 = share.inside90};
  return KWM_OK;
}

/* A method that fails is said so and left out; only the learned one's failure is the run's. */
static kwm_status all_methods(struct world *world, struct world_methods *methods, const char *dir, bool prints,
                              FILE *forecasts, struct world_result *result) {
  double *memory;
  kwm_status status = KWM_OK;
  KWM_TRY(kwm_alloc((void **)&memory, (size_t)(4 * world->config->world.horizon) * sizeof *memory, "scores"));
  if (prints) printf("method\tfiltered_rmse\trmse_1\trmse_10\tnis\tnees\tcoverage_50\tcoverage_90\n");
  for (int i = 0; i < methods->n && status == KWM_OK; i++) {
    const kwm_status one =
        one_method(world, &methods->method[i], dir, prints, memory, forecasts, i == 0 ? result : NULL);
    if (one == KWM_ERR_NUMERIC && i > 0)
      kwm_log(KWM_LOG_WARNING, "%s", kwm_error_message());
    else
      status = one;
  }
  kwm_free(memory);
  return status;
}

/* ---- spectrum */

/* K's, or that of the transition's Jacobian at the middle of the series. */
static kwm_status spectrum(struct world *world, FILE *to, const char *lead) {
  const int size = world->koopman ? world->lift.size : world->space.d;
  struct kwm_lift_facts facts;
  double *values;
  KWM_TRY(kwm_alloc((void **)&values, (size_t)(4 * size) * sizeof *values, "spectrum"));
  struct kwm_lift linear = world->lift;
  kwm_status status = KWM_OK;
  if (!world->koopman) {
    linear = (struct kwm_lift){.spec = {.m = world->series.m < size ? world->series.m : size}, .size = size};
    status = kwm_alloc((void **)&linear.A, (size_t)(size * (size + 2 + world->series.k)) * sizeof(double), "Jacobian");
    double *const x = status == KWM_OK ? linear.A + size * size : NULL;
    const double *const theta = world->is_split ? world->split.theta : world->tracker.z;
    if (status == KWM_OK) world->space.step(world->space.context, x, x + 2 * size, theta, x + size, linear.A, NULL);
  }
  if (status == KWM_OK) status = kwm_lift_spectrum(&linear, values, values + 2 * size, &facts);
  if (status == KWM_OK) {
    const double dt = world->series.dt;
    fprintf(to, "%seigenvalue\treal\timaginary\tmodulus\tgrowth_rate\tfrequency\tmode\tphase\n", lead);
    for (int j = 0; j < size; j++) {
      const double re = values[2 * j], im = values[2 * j + 1], modulus = hypot(re, im);
      fprintf(to, "%d\t%.16g\t%.16g\t%.16g\t%.9g\t%.9g\t%.6g\t%.6g\n", j + 1, re, im, modulus, log(modulus) / dt,
              atan2(im, re) / (2 * M_PI * dt), values[2 * size + 2 * j], values[2 * size + 2 * j + 1]);
    }
    if (to == stdout)
      printf("spectral_radius\t%.9g\nunstable\t%d\nobservability\t%.3g\n", facts.radius, facts.unstable,
             facts.observability);
  }
  if (!world->koopman) kwm_free(linear.A);
  kwm_free(values);
  return status;
}

/* ---- files */

static kwm_status open_part(const char *dir, const char *name, FILE **file) {
  char path[4096];
  *file = NULL;
  if (dir[0] == '\0') return KWM_OK;
  snprintf(path, sizeof path, "%s/%s", dir, name);
  *file = fopen(path, "w");
  KWM_CHECK(*file != NULL, KWM_ERR_SYSTEM, "report %s: wanted a file to write", path);
  return KWM_OK;
}

static kwm_status close_part(const char *dir, const char *name, FILE *file) {
  if (file == NULL) return KWM_OK;
  const bool broken = ferror(file) != 0, closed = fclose(file) == 0;
  KWM_CHECK(!broken && closed, KWM_ERR_SYSTEM, "report %s/%s: wanted to write it, the disk refused", dir, name);
  return KWM_OK;
}

kwm_status world_evaluate(struct world *world, const char *dir, bool prints, struct world_result *result) {
  struct world_methods *methods;
  FILE *forecasts = NULL, *values = NULL;
  if (world->is_split) KWM_TRY(world_split_theta(world));
  KWM_TRY(kwm_alloc((void **)&methods, sizeof *methods, "methods"));
  kwm_status status = open_part(dir, "forecast.tsv", &forecasts);
  if (status == KWM_OK) status = world_methods_open(methods, world);
  if (world->is_split) status = kwm_agree(world->run->layout.world, status);
  if (forecasts != NULL) fprintf(forecasts, "method\thorizon\trmse\tcoverage_50\tcoverage_90\tcount\n");
  if (status == KWM_OK) status = all_methods(world, methods, dir, prints, forecasts, result);
  const kwm_status closed = close_part(dir, "forecast.tsv", forecasts);
  if (status == KWM_OK) status = closed;
  world_methods_close(methods);
  kwm_free(methods);
  if (status != KWM_OK || dir[0] == '\0') return status;
  KWM_TRY(open_part(dir, "spectrum.tsv", &values));
  status = spectrum(world, values, "");
  const kwm_status ended = close_part(dir, "spectrum.tsv", values);
  return status != KWM_OK ? status : ended;
}

/* ---- commands */

/* A world as the checkpoint has it. */
static kwm_status open_at(struct world *world, struct kwm_run *run, kwm_ckpt *ckpt) {
  struct kwm_layout all;
  kwm_par_world(&all);
  const bool split = strcmp(run->config.model.kind, "statespace") == 0 && run->config.world.segments > 0;
  const bool block = split || strcmp(run->config.world.cov, "dense") != 0;
  run->config.layout.replicas = block ? 1 : all.size; /* rank 0 works; the others hold the file open with it */
  run->config.layout.owners = block ? all.size : 1;
  if (!block && run->config.world.streams < all.size) run->config.layout.replicas = 1;
  KWM_CHECK(block || run->config.layout.replicas == all.size, KWM_ERR_USAGE,
            "layout: wanted at most world.streams %lld ranks, found %d", (long long)run->config.world.streams,
            all.size);
  KWM_TRY(world_open(world, run));
  KWM_TRY(world_load(world, ckpt));
  if (world->is_split) return world_split_theta(world);
  if (!world->koopman) return KWM_OK;
  KWM_TRY(world_merge(world));
  KWM_TRY(world_solve(world));
  world_apply_noise(world, &world->tracker, world->noise);
  return KWM_OK;
}

static kwm_status evaluate(struct world *world, kwm_ckpt *ckpt, const char *dir) {
  struct world_result result;
  if (world->run->layout.rank != 0) return world->is_split ? world_evaluate(world, "", false, &result) : KWM_OK;
  printf("checkpoint\t%s\nstep\t%lld\n", kwm_ckpt_path(ckpt), (long long)world->step);
  return world_evaluate(world, dir, true, &result);
}

kwm_status kwm_world_eval(struct kwm_run *run, kwm_ckpt *ckpt, const char *subject) {
  struct stat info;
  struct world *world;
  const bool folder = stat(subject, &info) == 0 && S_ISDIR(info.st_mode);
  KWM_TRY(kwm_alloc((void **)&world, sizeof *world, "world model"));
  kwm_status status = open_at(world, run, ckpt);
  if (status == KWM_OK) status = kwm_agree(run->layout.world, evaluate(world, ckpt, folder ? subject : ""));
  world_close(world);
  kwm_free(world);
  return status;
}

kwm_status kwm_world_spectra(struct kwm_run *run, kwm_ckpt *ckpt) {
  struct world *world;
  KWM_TRY(kwm_alloc((void **)&world, sizeof *world, "world model"));
  kwm_status status = open_at(world, run, ckpt);
  if (status == KWM_OK && run->layout.rank == 0) status = spectrum(world, stdout, "");
  if (run->layout.size > 0 && status == KWM_OK) status = kwm_agree(run->layout.world, status);
  world_close(world);
  kwm_free(world);
  return status;
}

kwm_status kwm_world_plan(struct kwm_run *run) {
  struct world *world;
  KWM_TRY(kwm_alloc((void **)&world, sizeof *world, "world model"));
  const kwm_status status = world_open(world, run);
  double filter = 0, bytes = (double)kwm_mem_bytes(); /* of the rank that has most */
  if (status == KWM_OK) {
    filter = (double)(world->is_split ? kwm_ring_bytes(&world->split.ring) : world_learner(world)->bytes);
    kwm_par_max_world(&run->layout, 1, &filter);
    kwm_par_max_world(&run->layout, 1, &bytes);
  }
  if (status == KWM_OK && run->layout.rank == 0) {
    printf("steps\t%lld\noutputs\t%d\ninputs\t%d\nstates\t%d\nparameters\t%d\n", (long long)world->steps,
           world->series.m, world->series.k, world->koopman ? world->lift.size : world->space.d,
           world_parameters(world));
    if (world->is_split)
      printf("segments\t%lld\nwindow\t%d\nsegments_per_rank\t%d\n", (long long)run->config.world.segments,
             world->split.cuts[0].size, world->split.count);
    printf("filter_bytes\t%.0f\nbytes\t%.0f\n", filter, bytes);
  }
  world_close(world);
  kwm_free(world);
  return status;
}
