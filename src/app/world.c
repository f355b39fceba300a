/* Assembly of a world model: series, model, filter. */
#include "failure.h"
#include "world.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kwm/rng.h"

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
                                      .hidden = (int)config->world.hidden};
}

void world_set_noises(const struct world *world, struct kwm_tracker *tracker) {
  const struct kwm_config *const config = world->config;
  const struct kwm_series *const series = &world->series;
  const bool given = strcmp(config->world.noise, "given") == 0 && world->known;
  const double q = config->world.process_noise, r = config->world.observation_noise;
  const double least = 1e-24; /* a noise of zero has no inverse */
  for (int i = 0; i < tracker->d; i++) {
    const bool mine = given && i < series->m && !world->koopman;
    const double own = mine ? world->system.process[world->system.first + i] / pow(series->scale[i], 2) : q * q;
    tracker->q[i] = fmax(own, least);
  }
  for (int i = 0; i < tracker->m; i++)
    tracker->r[i] = fmax(given ? world->system.observation[i] / pow(series->scale[i], 2) : r * r, least);
}

static kwm_status open_statespace(struct world *world) {
  const struct kwm_config *const config = world->config;
  const struct kwm_statespace_spec spec = model_spec(world);
  KWM_TRY(kwm_statespace_init(&world->model, &spec));
  kwm_statespace_space(&world->model, &world->space);
  const struct kwm_tracker_spec tracker = {.space = &world->space,
                                           .method = method_of(config->world.method),
                                           .iterations = (int)config->world.iterations,
                                           .walk = config->world.walk,
                                           .forgetting = config->world.forgetting,
                                           .adapt = strcmp(config->world.noise, "adapt") == 0 ? config->world.adapt : 0,
                                           .gate = config->world.gate};
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
  return kwm_tracker_update(tracker, series->y + t * series->m);
}

/* ---- koopman */

/* Centres: windows of the training part, drawn; width: the mean distance to the nearest other centre, twice. */
static void place_radials(struct world *world) {
  struct kwm_lift *const lift = &world->lift;
  const int w = lift->window, count = lift->spec.radials;
  double sum = 0;
  for (int c = 0; c < count; c++) {
    const uint64_t t = kwm_rng_below(world->config->seed, KWM_RNG_WORLD, 1, (uint64_t)c, (uint64_t)world->series.train);
    kwm_lift_window(lift, world->series.y, (int64_t)t, world->begin[t], lift->centres + (int64_t)c * w);
  }
  for (int c = 0; c < count; c++) {
    double nearest = INFINITY;
    for (int o = 0; o < count; o++) {
      double distance = 0;
      for (int i = 0; i < w; i++) distance += pow(lift->centres[c * w + i] - lift->centres[o * w + i], 2);
      if (o != c && distance < nearest) nearest = distance;
    }
    sum += isfinite(nearest) ? sqrt(nearest) : 1;
  }
  if (count > 0) lift->width = fmax(2 * sum / count, 1e-3);
}

static kwm_status open_koopman(struct world *world) {
  const struct kwm_config *const config = world->config;
  const double precision = 1e-20; /* of K's prior: none to speak of */
  const struct kwm_lift_spec spec = {.m = world->series.m,
                                     .k = world->series.k,
                                     .delays = (int)config->world.delays,
                                     .degree = (int)config->world.degree,
                                     .radials = (int)config->world.radials};
  KWM_TRY(kwm_lift_init(&world->lift, &spec));
  place_radials(world);
  kwm_lift_space(&world->lift, &world->space);
  const int size = world->lift.size, k = size + spec.k;
  const size_t streams = (size_t)config->world.streams;
  KWM_TRY(kwm_regression_create(&world->regression, k, size, precision));
  KWM_TRY(kwm_alloc((void **)&world->streams, streams * sizeof *world->streams, "regressions"));
  for (size_t s = 0; s < streams; s++)
    KWM_TRY(kwm_regression_create(&world->streams[s], k, size, s == 0 ? precision : 0));
  return kwm_alloc((void **)&world->scratch,
                   (size_t)(2 * world->lift.window + 3 * k + size * (size + 1)) * sizeof(double), "lift");
}

bool world_regress(struct world *world, struct kwm_regression *regression, int64_t t) {
  struct kwm_lift *const lift = &world->lift;
  const struct kwm_series *const series = &world->series;
  const int k = series->k, size = lift->size, w = lift->window;
  double *const window = world->scratch, *const z = window + w, *const next = z + size + k;
  if (series->starts[t]) return false;
  if (!kwm_lift_window(lift, series->y, t - 1, world->begin[t], window)) return false;
  kwm_lift_apply(lift, window, z);
  for (int j = 0; j < k; j++) z[size + j] = series->u[(t - 1) * k + j];
  if (!kwm_lift_window(lift, series->y, t, world->begin[t], window)) return false;
  kwm_lift_apply(lift, window, next);
  for (int i = 0; i < series->m && world->solved; i++) {
    double sum = next[i];
    for (int j = 0; j < size + k; j++) sum -= lift->A[(int64_t)i * (size + k) + j] * z[j];
    world->counts.row_squares += sum * sum, world->counts.squares += sum * sum;
    world->counts.row_outputs++, world->counts.outputs++;
  }
  kwm_regression_add(regression, z, next, world->config->world.forgetting);
  return true;
}

/* Y <- lower root of the covariance Q (d, d), a little more on the diagonal where it is singular. */
static bool root_of(int d, double *Q) {
  double trace = 0;
  for (int i = 0; i < d; i++) trace += Q[(int64_t)i * d + i];
  for (int j = 0; j < d; j++)
    for (int i = j; i < d; i++) {
      double sum = Q[(int64_t)i * d + j];
      for (int l = 0; l < j; l++) sum -= Q[(int64_t)i * d + l] * Q[(int64_t)j * d + l];
      const bool flat = i == j && !(sum > 1e-14 * trace / d);
      if (i == j) {
        Q[(int64_t)i * d + j] = flat ? 0 : sqrt(sum);
      } else {
        const double pivot = Q[(int64_t)j * d + j];
        Q[(int64_t)i * d + j] = pivot > 0 ? sum / pivot : 0;
      }
    }
  for (int i = 0; i < d; i++)
    for (int j = i + 1; j < d; j++) Q[(int64_t)i * d + j] = 0;
  return isfinite(trace);
}

/* Mean and variance of z where trajectories begin. */
static kwm_status first_lift(struct world *world) {
  const int64_t size = world->lift.size, n = world->series.train;
  double *all;
  KWM_TRY(kwm_alloc((void **)&all, (size_t)(n * size) * sizeof *all, "lift"));
  for (int64_t t = 0; t < n; t++) {
    kwm_lift_window(&world->lift, world->series.y, t, world->begin[t], world->scratch);
    kwm_lift_apply(&world->lift, world->scratch, all + t * size);
  }
  world_first_state(world, all, (int)size, world->tracker.start, world->tracker.spread);
  kwm_free(all);
  return KWM_OK;
}

kwm_status world_solve(struct world *world) {
  const int d = world->lift.size;
  KWM_CHECK(kwm_regression_solve(&world->regression, world->lift.A, NULL), KWM_ERR_NUMERIC,
            "koopman: wanted data that determine K, found a singular regression after %.0f steps",
            world->regression.count);
  if (world->config->world.stable) KWM_TRY(kwm_lift_stabilise(&world->lift, 1));
  world->solved = true;
  double *const Q = world->scratch + 2 * world->lift.window + 3 * (d + world->lift.spec.k);
  kwm_regression_noise(&world->regression, Q);
  KWM_CHECK(root_of(d, Q), KWM_ERR_NUMERIC, "koopman: wanted finite residuals, found others");
  if (world->tracker.z == NULL) {
    const struct kwm_tracker_spec spec = {.space = &world->space, .iterations = 1, .gate = world->config->world.gate};
    KWM_TRY(kwm_tracker_create(&world->tracker, &spec));
    world_set_noises(world, &world->tracker);
    KWM_TRY(first_lift(world));
  }
  world->tracker.Q = Q;
  kwm_tracker_prior(&world->tracker);
  kwm_tracker_begin(&world->tracker);
  return KWM_OK;
}

/* The outputs y = x + v with v ~ N(0, r) give x, and φ(x) by second differences along every axis of the window: mean
   φ + Σ c_i, covariance Σ l_i l_iᵀ + 2 c_i c_iᵀ, l_i and c_i the odd and even part of φ(window ± √r e_i) - φ(window).
   Exact for monomials of degree two. */
bool world_lift_begin(const struct world *world, struct kwm_tracker *tracker, int64_t t, bool first) {
  const struct kwm_lift *const lift = &world->lift;
  const int size = lift->size, w = lift->window;
  if (!first && t != world->begin[t] + lift->spec.delays) return false;
  double *const window = world->scratch, *const middle = window + w, *const odd = middle + size,
                *const even = odd + size;
  if (!kwm_lift_window(lift, world->series.y, t, world->begin[t], window)) return false;
  kwm_lift_apply(lift, window, middle);
  memcpy(tracker->z, middle, (size_t)size * sizeof *middle);
  memset(tracker->Y, 0, (size_t)size * (size_t)size * sizeof *tracker->Y);
  for (int i = 0; i < w; i++) {
    const double value = window[i], deviation = sqrt(tracker->r[i % lift->spec.m]);
    window[i] = value + deviation;
    kwm_lift_apply(lift, window, odd);
    window[i] = value - deviation;
    kwm_lift_apply(lift, window, even);
    window[i] = value;
    for (int j = 0; j < size; j++) {
      const double up = odd[j] - middle[j], down = even[j] - middle[j];
      odd[j] = (up - down) / 2;
      even[j] = (up + down) / 2;
      tracker->z[j] += even[j];
      even[j] *= sqrt(2);
    }
    kwm_tracker_widen(tracker, odd);
    kwm_tracker_widen(tracker, even);
  }
  return true;
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
  KWM_CHECK(strcmp(config->learner, "kalman") == 0, KWM_ERR_USAGE,
            "learner: wanted kalman with model.kind %s, found %s", config->model.kind, config->learner);
  return KWM_OK;
}

static kwm_status open_all(struct world *world) {
  KWM_TRY(read_series(world));
  KWM_TRY(check(world));
  KWM_TRY(kwm_failure_check(world->config));
  KWM_TRY(world->koopman ? open_koopman(world) : open_statespace(world));
  const int64_t all = world->series.train * world->config->train.epochs, most = world->config->train.max_steps;
  world->steps = most > 0 && most < all ? most : all;
  return KWM_OK;
}

kwm_status world_open(struct world *world, struct kwm_run *run) {
  memset(world, 0, sizeof *world);
  world->run = run;
  world->config = &run->config;
  world->koopman = strcmp(run->config.model.kind, "koopman") == 0;
  for (int i = 0; i < 4; i++) world->noise[i] = NAN;
  run->config.layout.stages = run->config.layout.owners = 1; /* there is nothing to split in another way */
  KWM_TRY(kwm_layout_init(&run->layout, run->config.layout.replicas, 1, 1));
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
  kwm_tracker_destroy(&world->tracker);
  kwm_statespace_fini(&world->model);
  kwm_lift_fini(&world->lift);
  kwm_system_fini(&world->system);
  kwm_series_fini(&world->series);
  kwm_free(world->begin);
  kwm_free(world->scratch);
  memset(world, 0, sizeof *world);
}
