/* A series of a known system. Every draw is keyed by step and use, so that a longer series begins as a shorter one. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "kwm/rng.h"
#include "systems_kinds.h"

static double draw(uint64_t seed, int64_t t, int use, int component) {
  return kwm_rng_normal(seed, KWM_RNG_SERIES, (uint64_t)t, (uint64_t)use << 32 | (uint64_t)component);
}

/* x <- the step from x; next (d): scratch. */
static void move(const struct kwm_system *system, const double *u, double *x, double *next) {
  kwm_system_step(system, x, u, next, NULL);
  memcpy(x, next, (size_t)system->d * sizeof *x);
}

static void start(const struct kwm_system *system, uint64_t seed, int64_t t, double *x) {
  for (int i = 0; i < system->d; i++) x[i] = system->start[i] + system->spread[i] * draw(seed, t, KWM_SERIES_START, i);
}

/* states (n, d) and inputs. */
static void simulate(struct kwm_system *system, const struct kwm_system_spec *spec, struct kwm_series *series) {
  const int d = system->d;
  const int64_t jump = spec->jump > 0 ? (int64_t)(spec->jump * (double)spec->steps) : INT64_MAX;
  double *const x = system->work + 4 * d, *const next = x + d;
  const double none = 0;
  for (int64_t t = 0; t < series->n; t++) {
    if (t == jump) system->parameters[0] *= spec->jump_factor;
    series->starts[t] = t == 0 || (spec->episode > 0 && t % spec->episode == 0);
    if (system->k > 0) series->u[t] = system->kind->input(spec->seed, t, system->dt);
    if (series->starts[t]) {
      start(system, spec->seed, t, x);
      for (int64_t w = 0; w < system->kind->warm_up; w++) move(system, &none, x, next);
    }
    memcpy(series->states + t * d, x, (size_t)d * sizeof *x);
    move(system, system->k > 0 ? series->u + t : &none, x, next);
    for (int i = 0; i < d; i++) x[i] += sqrt(system->process[i]) * draw(spec->seed, t, KWM_SERIES_PROCESS, i);
  }
}

/* Variance of output i over the series. */
static double variance(const struct kwm_series *series, int i) {
  double sum = 0, squares = 0;
  for (int64_t t = 0; t < series->n; t++) {
    const double value = series->truth[t * series->m + i];
    sum += value, squares += value * value;
  }
  const double mean = sum / (double)series->n;
  return squares / (double)series->n - mean * mean;
}

static void observe(struct kwm_system *system, const struct kwm_system_spec *spec, struct kwm_series *series) {
  const int m = series->m;
  for (int64_t t = 0; t < series->n; t++)
    memcpy(series->truth + t * m, series->states + t * system->d + system->first, (size_t)m * sizeof(double));
  for (int i = 0; i < m; i++) {
    system->observation[i] = spec->observation * spec->observation * variance(series, i);
    const double deviation = sqrt(system->observation[i]);
    for (int64_t t = 0; t < series->n; t++) {
      const uint64_t index = (uint64_t)KWM_SERIES_MISSING << 32 | (uint64_t)i;
      const bool missing =
          spec->missing > 0 && kwm_rng_uniform(spec->seed, KWM_RNG_SERIES, (uint64_t)t, index) < spec->missing;
      const double noise = deviation * draw(spec->seed, t, KWM_SERIES_OBSERVATION, i);
      series->y[t * m + i] = missing ? NAN : series->truth[t * m + i] + noise;
    }
  }
}

kwm_status kwm_system_series(struct kwm_system *system, const struct kwm_system_spec *spec, struct kwm_series *series) {
  KWM_TRY(kwm_series_alloc(series, spec->steps, system->m, system->k, system->d));
  series->dt = system->dt;
  for (int i = 0; i < system->m; i++) snprintf(series->names[i], KWM_SERIES_NAME, "x%d", system->first + i + 1);
  if (system->k > 0) snprintf(series->names[system->m], KWM_SERIES_NAME, "u");
  simulate(system, spec, series);
  for (int64_t t = 0; t < series->n * system->d; t++)
    KWM_CHECK(isfinite(series->states[t]), KWM_ERR_USAGE, "system %s: wanted finite states, found others at step %lld",
              system->kind->name, (long long)(t / system->d));
  observe(system, spec, series);
  return KWM_OK;
}
