/* Filters of time series on request, for world_peers.py, so that others can take turns on the same series. usage:
   bench_world STEPS FILE: writes observations (STEPS, 2) of a Van der Pol oscillator to FILE as doubles and prints its
   μ, step of time, variances of the process and observation noise. Then reads lines and answers each with the seconds
   of a pass and the final mean:

     ekf     2 states, the true model, from x = 0, P = I
     joint   2 states and the 20 parameters of a cubic model, prior mean 0 and variance 1/4 */
#include <stdio.h>
#include <string.h>

#include "kwm/par.h"
#include "kwm/statespace.h"
#include "kwm/systems.h"
#include "kwm/tracker.h"

static int check(kwm_status status) {
  if (status != KWM_OK) fprintf(stderr, "bench_world: %s\n", kwm_error_message());
  return status == KWM_OK ? 0 : 1;
}

static void begin(struct kwm_tracker *tracker, const struct kwm_system *system) {
  memset(tracker->z, 0, (size_t)tracker->N * sizeof(double));
  for (int i = 0; i < 2; i++) tracker->q[i] = system->process[i], tracker->r[i] = system->observation[i];
  for (int i = 0; i < 2; i++) tracker->start[i] = 0, tracker->spread[i] = 1;
  for (int i = 0; i < tracker->n; i++) tracker->prior[i] = 0.25;
  kwm_tracker_prior(tracker);
  kwm_tracker_begin(tracker);
}

static void pass(struct kwm_tracker *tracker, const struct kwm_system *system, const struct kwm_series *series) {
  begin(tracker, system);
  const double started = kwm_par_seconds();
  for (int64_t t = 0; t < series->n; t++) {
    kwm_tracker_predict(tracker, NULL);
    kwm_tracker_update(tracker, series->y + 2 * t);
  }
  printf("%.9g", kwm_par_seconds() - started);
  for (int i = 0; i < tracker->N; i++) printf(" %.17g", tracker->z[i]);
  printf("\n");
  fflush(stdout);
}

int main(int argc, char **argv) {
  long long steps = 0;
  if (argc != 3 || sscanf(argv[1], "%lld", &steps) != 1 || steps < 1) return 2;
  const struct kwm_system_spec spec = {
      .kind = "vanderpol", .steps = steps, .process = -1, .observation = 0.05, .seed = 1};
  const struct kwm_statespace_spec cubic = {.transition = KWM_TRANSITION_POLYNOMIAL, .d = 2, .m = 2, .degree = 3};
  struct kwm_system system;
  struct kwm_series series;
  struct kwm_statespace model;
  struct kwm_space spaces[2];
  struct kwm_tracker trackers[2];
  if (check(kwm_system_init(&system, &spec)) || check(kwm_system_series(&system, &spec, &series)) ||
      check(kwm_statespace_init(&model, &cubic)))
    return 1;
  kwm_system_space(&system, &spaces[0]);
  kwm_statespace_space(&model, &spaces[1]);
  for (int k = 0; k < 2; k++) {
    const struct kwm_tracker_spec of = {.space = &spaces[k], .iterations = 1};
    if (check(kwm_tracker_create(&trackers[k], &of))) return 1;
  }
  FILE *const file = fopen(argv[2], "wb");
  if (file == NULL || fwrite(series.y, sizeof(double), (size_t)(2 * steps), file) != (size_t)(2 * steps)) return 1;
  fclose(file);
  printf("%.17g %.17g %.17g %.17g %.17g %.17g\n", system.parameters[0], system.dt, system.process[0], system.process[1],
         system.observation[0], system.observation[1]);
  fflush(stdout);
  char word[16];
  while (scanf("%15s", word) == 1) pass(&trackers[strcmp(word, "joint") == 0], &system, &series);
  return 0;
}
