/* Assembly of a world model: series, model, filter. */
#include "failure.h"
#include "world.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

bool kwm_world_wanted(const struct kwm_config *config) {
  return strcmp(config->model.kind, "statespace") == 0 || strcmp(config->model.kind, "koopman") == 0;
}

/* ---- series */

static struct kwm_system_spec system_spec(const struct kwm_config *config) {
  return (struct kwm_system_spec){.kind = config->system.kind,
                                  .size = (int)config->system.size,
                                  .dt = config->system.dt,
                                  .steps = config->system.steps,
                                  .episode = config->system.episode,
                                  .process = config->system.process_noise,
                                  .observation = config->system.observation_noise,
                                  .first = (int)config->system.first,
                                  .observed = (int)config->system.observed,
                                  .missing = config->system.missing,
                                  .jump = config->system.jump,
                                  .jump_factor = config->system.jump_factor,
                                  .seed = config->seed};
}

static kwm_status read_series(struct world *world) {
  const struct kwm_config *const config = world->config;
  world->known = strcmp(config->system.kind, "none") != 0;
  const bool file = config->series.path[0] != '\0';
  KWM_CHECK(world->known != file, KWM_ERR_USAGE,
            "config: wanted system.kind or series.path with model.kind %s, found %s", config->model.kind,
            file ? "both" : "neither");
  if (world->known) {
    const struct kwm_system_spec spec = system_spec(config);
    KWM_TRY(kwm_system_init(&world->system, &spec));
    KWM_TRY(kwm_system_series(&world->system, &spec, &world->series));
  } else {
    const struct kwm_series_spec spec = {.path = config->series.path,
                                         .outputs = config->series.outputs,
                                         .inputs = config->series.inputs,
                                         .time = config->series.time,
                                         .episode = config->series.episode};
    KWM_TRY(kwm_series_read(&world->series, &spec));
  }
  KWM_TRY(kwm_series_split(&world->series, config->series.train, config->series.valid));
  kwm_series_normalise(&world->series);
  KWM_TRY(kwm_alloc((void **)&world->begin, (size_t)world->series.n * sizeof *world->begin, "trajectories"));
  for (int64_t t = 1; t < world->series.n; t++) world->begin[t] = world->series.starts[t] ? t : world->begin[t - 1];
  return KWM_OK;
}

void world_first_state(const struct world *world, const double *values, int d, double *mean, double *variance) {
  const struct kwm_series *const series = &world->series;
  enum { ENOUGH = 20 };
  int64_t starts = 0;
  for (int64_t t = 0; t < series->train; t++) starts += series->starts[t];
  for (int i = 0; i < d; i++) {
    double sum = 0, squares = 0, count = 0;
    for (int64_t t = 0; t < series->train; t++) {
      const double value = values[t * d + i];
      if (isnan(value) || (starts >= ENOUGH && !series->starts[t])) continue;
      sum += value, squares += value * value, count++;
    }
    mean[i] = count > 0 ? sum / count : 0;
    variance[i] = count > 0 ? fmax(squares / count - mean[i] * mean[i], 0) : 1;
  }
}

/* ---- statespace */

static enum kwm_tracker_method method_of(const char *word) {
  if (strcmp(word, "unscented") == 0) return KWM_TRACKER_UNSCENTED;
  return strcmp(word, "dual") == 0 ? KWM_TRACKER_DUAL : KWM_TRACKER_JOINT;
}

static bool is_low(const struct kwm_config *config) {
  return strcmp(config->world.cov, "lowrank") == 0;
}

static struct kwm_statespace_spec model_spec(const struct world *world) {
  const struct kwm_config *const config = world->config;
  const char *const word = config->world.transition;
  return (struct kwm_statespace_spec){.transition = strcmp(word, "linear") == 0 ? KWM_TRANSITION_LINEAR
                                                    : strcmp(word, "mlp") == 0  ? KWM_TRANSITION_MLP
                                                                                : KWM_TRANSITION_POLYNOMIAL,
                                      .readout = strcmp(config->world.readout, "linear") == 0 ? KWM_READOUT_LINEAR
                                                                                              : KWM_READOUT_IDENTITY,
                                      .d = config->world.states > 0 ? (int)config->world.states : world->series.m,
                                      .m = world->series.m,
                                      .k = world->series.k,
                                      .degree = (int)config->world.degree,
                                      .hidden = (int)config->world.hidden,
                                      .near = (int)config->world.near};
}

void world_noises(const struct world *world, int d, double *state, double *output) {
  const struct kwm_config *const config = world->config;
  const struct kwm_series *const series = &world->series;
  const bool given = strcmp(config->world.noise, "given") == 0 && world->known;
  const double q = config->world.process_noise, r = config->world.observation_noise;
  const double least = 1e-24; /* a noise of zero has no inverse */
  for (int i = 0; i < d; i++) {
    const bool mine = given && i < series->m && !world->koopman;
    const double own = mine ? world->system.process[world->system.first + i] / pow(series->scale[i], 2) : q * q;
    state[i] = fmax(own, least);
  }
  for (int i = 0; i < series->m; i++)
    output[i] = fmax(given ? world->system.observation[i] / pow(series->scale[i], 2) : r * r, least);
}

void world_set_noises(const struct world *world, struct kwm_tracker *tracker) {
  world_noises(world, tracker->d, tracker->q, tracker->r);
}

static kwm_status open_statespace(struct world *world) {
  const struct kwm_config *const config = world->config;
  const struct kwm_statespace_spec spec = model_spec(world);
  KWM_CHECK(!is_low(config) || config->world.rank <= spec.d, KWM_ERR_USAGE,
            "world.rank: wanted at most the %d states, found %lld", spec.d, (long long)config->world.rank);
  KWM_TRY(kwm_statespace_init(&world->model, &spec));
  kwm_statespace_space(&world->model, &world->space);
  const bool block = strcmp(config->world.cov, "block") == 0, low = is_low(config);
  const int n_blocks = kwm_statespace_blocks(&world->model, NULL);
  KWM_TRY(kwm_alloc((void **)&world->blocks, (size_t)n_blocks * sizeof(int), "blocks"));
  kwm_statespace_blocks(&world->model, world->blocks);
  const struct kwm_tracker_spec tracker = {.space = &world->space,
                                           .method = block ? KWM_TRACKER_BLOCK
                                                     : low ? KWM_TRACKER_LOWRANK
                                                           : method_of(config->world.method),
                                           .rank = config->world.rank > 0 ? (int)config->world.rank : spec.d,
                                           .n_blocks = n_blocks,
                                           .blocks = world->blocks,
                                           .layout = &world->run->layout,
                                           .iterations = (int)config->world.iterations,
                                           .walk = config->world.walk,
                                           .forgetting = config->world.forgetting,
                                           .adapt = strcmp(config->world.noise, "adapt") == 0 ? config->world.adapt : 0,
                                           .gate = config->world.gate};
  if (world->is_split) return world_split_open(world, &tracker);
  KWM_TRY(kwm_tracker_create(&world->tracker, &tracker));
  kwm_statespace_prior(&world->model, config->seed, config->world.prior, world->tracker.z, world->tracker.prior);
  for (int i = 0; i < world->tracker.d; i++) world->tracker.spread[i] = 1;
  if (spec.readout == KWM_READOUT_IDENTITY)
    world_first_state(world, world->series.y, spec.m, world->tracker.start, world->tracker.spread);
  world_set_noises(world, &world->tracker);
  kwm_tracker_prior(&world->tracker);
  kwm_tracker_begin(&world->tracker);
  return KWM_OK;
}

struct kwm_track world_track(struct world *world, struct kwm_tracker *tracker, int64_t t) {
  const struct kwm_series *const series = &world->series;
  if (world->koopman && world_lift_begin(world, tracker, t, false))
    return (struct kwm_track){.verdict = KWM_TRACKED_NOTHING};
  const double *const u = series->k > 0 && t > 0 ? series->u + (t - 1) * series->k : series->u;
  if (series->starts[t])
    kwm_tracker_begin(tracker);
  else if (!kwm_tracker_predict(tracker, u))
    return (struct kwm_track){.verdict = KWM_TRACKED_NUMERIC};
  return world_observe(world, tracker, &world->meeting, t);
}

struct kwm_tracker *world_learner(struct world *world) {
  return world->network ? &world->learner : &world->tracker;
}

struct kwm_track world_learn(struct world *world, struct kwm_tracker *tracker, int64_t t) {
  return world->network ? world_encoder_learn(world, tracker, t) : world_track(world, tracker, t);
}

int world_parameters(const struct world *world) {
  if (world->network) return world->encoder.n;
  return world->koopman ? world->lift.size * (world->lift.size + world->lift.spec.k) : world->model.n;
}

/* ---- both */

static kwm_status check(const struct world *world) {
  const struct kwm_config *const config = world->config;
  const long long streams = config->world.streams, replicas = config->layout.replicas;
  int64_t trajectories = 0;
  for (int64_t t = 0; t < world->series.train; t++) trajectories += world->series.starts[t];
  KWM_CHECK(streams % replicas == 0, KWM_ERR_USAGE,
            "world.streams: wanted a multiple of layout.replicas %lld, found %lld", replicas, streams);
  KWM_CHECK(streams <= trajectories, KWM_ERR_USAGE,
            "world.streams: wanted at most the %lld trajectories of the training part, found %lld",
            (long long)trajectories, streams);
  KWM_CHECK(streams == 1 || world->koopman || strcmp(config->world.method, "joint") == 0, KWM_ERR_USAGE,
            "world.streams: wanted world.method joint with more than one stream, found %s", config->world.method);
  const bool block = strcmp(config->world.cov, "dense") != 0;
  KWM_CHECK(!block || (!world->koopman && strcmp(config->world.method, "joint") == 0 && streams == 1 &&
                       config->world.iterations == 1 && !config->world.online),
            KWM_ERR_USAGE,
            "world.cov %s: wanted model.kind statespace, world.method joint, world.streams 1, world.iterations 1 and "
            "world.online false, found others",
            config->world.cov);
  KWM_CHECK(!is_low(config) || (strcmp(config->world.readout, "identity") == 0 && !world->is_split), KWM_ERR_USAGE,
            "world.cov lowrank: wanted world.readout identity and world.segments 0, found others");
  KWM_CHECK(!config->world.refit || (world->network && !config->world.stable), KWM_ERR_USAGE,
            "world.refit: wanted world.lift network and world.stable false, found others");
  KWM_CHECK(!world->is_split || (strcmp(config->world.method, "joint") == 0 && streams == 1 && !config->world.online &&
                                 strcmp(config->world.noise, "fit") != 0),
            KWM_ERR_USAGE,
            "world.segments: wanted world.method joint, world.streams 1, world.online false and world.noise adapt or "
            "given, found others");
  KWM_CHECK(block || world->is_split || config->layout.owners == 1, KWM_ERR_USAGE,
            "layout.owners: wanted 1 with world.cov dense and world.segments 0, found %lld",
            (long long)config->layout.owners);
  KWM_CHECK(strcmp(config->learner, "kalman") == 0, KWM_ERR_USAGE,
            "learner: wanted kalman with model.kind %s, found %s", config->model.kind, config->learner);
  return KWM_OK;
}

static kwm_status open_all(struct world *world) {
  KWM_TRY(read_series(world));
  KWM_TRY(check(world));
  KWM_TRY(kwm_failure_check(world->config));
  KWM_TRY(world->koopman ? world_lift_open(world) : open_statespace(world));
  const int64_t all = world->series.train * world->config->train.epochs, most = world->config->train.max_steps;
  world->steps = most > 0 && most < all ? most : all;
  return KWM_OK;
}

kwm_status world_open(struct world *world, struct kwm_run *run) {
  memset(world, 0, sizeof *world);
  world->run = run;
  world->config = &run->config;
  world->koopman = strcmp(run->config.model.kind, "koopman") == 0;
  world->network = world_is_network(&run->config);
  world->is_split = !world->koopman && run->config.world.segments > 0;
  for (int i = 0; i < 4; i++) world->noise[i] = NAN;
  run->config.layout.stages = 1; /* there is nothing to split in this way */
  KWM_TRY(kwm_layout_init(&run->layout, run->config.layout.replicas, 1, run->config.layout.owners));
  free(run->config_text);
  run->config_text = NULL;
  kwm_status status = kwm_config_text(&run->config, &run->config_text);
  if (status == KWM_OK) status = open_all(world);
  return kwm_agree(run->layout.world, status);
}

void world_close(struct world *world) {
  for (int64_t s = 0; world->streams != NULL && s < world->config->world.streams; s++)
    kwm_regression_destroy(&world->streams[s]);
  kwm_free(world->streams);
  kwm_regression_destroy(&world->regression);
  world_split_close(world);
  kwm_tracker_destroy(&world->tracker);
  kwm_tracker_destroy(&world->learner);
  kwm_tracker_destroy(&world->meeting);
  kwm_encoder_fini(&world->encoder);
  kwm_statespace_fini(&world->model);
  kwm_lift_fini(&world->lift);
  kwm_system_fini(&world->system);
  kwm_series_fini(&world->series);
  kwm_free(world->begin);
  kwm_free(world->blocks);
  kwm_free(world->scratch);
  kwm_free(world->sample);
  memset(world, 0, sizeof *world);
}
