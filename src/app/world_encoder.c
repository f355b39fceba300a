/* Koopman models with a learned lift: the parameters' filter over the series, and what the lifted filter takes of it.
 */
#include <math.h>
#include <string.h>

#include "world.h"

bool world_is_network(const struct kwm_config *config) {
  return strcmp(config->model.kind, "koopman") == 0 && strcmp(config->world.lift, "network") == 0;
}

/* Steps between samples: each output is then predicted `uses` times, and its noise is taken for so much larger. */
static int64_t stride_of(const struct world *world) {
  const int64_t uses = 4, stride = world->encoder.spec.ahead / uses;
  return stride > 1 ? stride : 1;
}

kwm_status world_encoder_open(struct world *world) {
  const struct kwm_config *const config = world->config;
  const int m = world->series.m, states = (int)config->world.states;
  const struct kwm_encoder_spec spec = {.m = m,
                                        .k = world->series.k,
                                        .delays = (int)config->world.delays,
                                        .size = states > 0 ? states : 4 * m,
                                        .hidden = (int)config->world.hidden,
                                        .decoder = (int)config->world.decoder,
                                        .ahead = (int)config->world.ahead,
                                        .stable = config->world.stable};
  KWM_TRY(kwm_encoder_init(&world->encoder, &spec));
  kwm_encoder_space(&world->encoder, &world->losses);
  const struct kwm_tracker_spec tracker = {.space = &world->losses,
                                           .iterations = (int)config->world.iterations,
                                           .walk = config->world.walk,
                                           .forgetting = config->world.forgetting,
                                           .gate = config->world.gate};
  KWM_TRY(kwm_tracker_create(&world->learner, &tracker));
  kwm_encoder_prior(&world->encoder, config->seed, config->world.prior, world->learner.z, world->learner.prior);
  const double variance = pow(config->world.observation_noise, 2) * (double)(spec.ahead / stride_of(world));
  for (int i = 0; i < world->losses.m; i++)
    world->learner.r[i] = i < m * (spec.ahead + 1) ? variance : variance / config->world.linearity;
  kwm_tracker_prior(&world->learner);
  const size_t numbers = (size_t)(world->losses.m + 2 * world->encoder.window);
  return kwm_alloc((void **)&world->sample, numbers * sizeof(double), "losses");
}

struct kwm_track world_encoder_learn(struct world *world, struct kwm_tracker *tracker, int64_t t) {
  const struct kwm_series *const series = &world->series;
  const struct kwm_encoder_spec *const spec = &world->encoder.spec;
  const int m = spec->m, w = world->encoder.window, rows = world->losses.m;
  const int64_t first = t - spec->ahead, begin = world->begin[t];
  double *const y = world->sample, *const now = y + rows, *const then = now + w;
  const struct kwm_track nothing = {.verdict = KWM_TRACKED_NOTHING};
  if ((t - begin) % stride_of(world) != 0 || first < begin) return nothing;
  if (!kwm_lift_window(&world->lift, series->y, first, begin, now)) return nothing;
  const bool whole = kwm_lift_window(&world->lift, series->y, t, begin, then);
  world->encoder.sample =
      (struct kwm_encoder_sample){.first = now, .last = whole ? then : NULL, .inputs = series->u + first * spec->k};
  memcpy(y, series->y + (first + 1) * m, (size_t)(spec->ahead * m) * sizeof *y);
  memcpy(y + spec->ahead * m, series->y + first * m, (size_t)m * sizeof *y);
  for (int i = m * (spec->ahead + 1); i < rows; i++) y[i] = whole ? 0 : NAN;
  if (!kwm_tracker_predict(tracker, NULL)) return (struct kwm_track){.verdict = KWM_TRACKED_NUMERIC};
  return kwm_tracker_update(tracker, y);
}

/* Q (size, size) <- mean square of φ(x') - K φ(x) - B u over the training part. */
static void residuals(struct world *world, double *Q) {
  const struct kwm_series *const series = &world->series;
  const struct kwm_lift *const lift = &world->lift;
  const int size = lift->size, k = lift->spec.k;
  double *const window = world->scratch, *const z = window + lift->window, *const next = z + size + k;
  double *const predicted = next + size;
  double count = 0;
  memset(Q, 0, (size_t)size * (size_t)size * sizeof *Q);
  for (int64_t t = 1; t < series->train; t++) {
    if (series->starts[t] || !kwm_lift_window(lift, series->y, t - 1, world->begin[t], window)) continue;
    kwm_lift_apply(lift, window, z);
    if (!kwm_lift_window(lift, series->y, t, world->begin[t], window)) continue;
    kwm_lift_apply(lift, window, next);
    kwm_lift_step(lift, z, series->u + (t - 1) * k, predicted);
    for (int i = 0; i < size; i++) next[i] -= predicted[i];
    for (int i = 0; i < size; i++)
      for (int j = 0; j < size; j++) Q[i * size + j] += next[i] * next[j];
    count++;
  }
  for (int i = 0; i < size * size && count > 0; i++) Q[i] /= count;
}

kwm_status world_encoder_solve(struct world *world, double *Q) {
  if (world->config->world.refit)
    KWM_TRY(world_regress_lift(world, &world->lift));
  else
    kwm_encoder_matrix(&world->encoder, world->learner.z, world->lift.A, NULL);
  residuals(world, Q);
  return KWM_OK;
}
