/* Koopman models: the lift, its regression or its network's filter, and the filter in lifted space (kwm/lift.h). */
#include <math.h>
#include <string.h>

#include "kwm/rng.h"
#include "world.h"

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

kwm_status world_lift_open(struct world *world) {
  const struct kwm_config *const config = world->config;
  const double precision = 1e-20; /* of K's prior: none to speak of */
  if (world->network) KWM_TRY(world_encoder_open(world));
  const struct kwm_lift_spec spec = {.m = world->series.m,
                                     .k = world->series.k,
                                     .delays = (int)config->world.delays,
                                     .degree = (int)config->world.degree,
                                     .radials = world->network ? 0 : (int)config->world.radials,
                                     .encoder = world->network ? &world->encoder : NULL,
                                     .theta = world->learner.z};
  KWM_TRY(kwm_lift_init(&world->lift, &spec));
  place_radials(world);
  kwm_lift_space(&world->lift, &world->space);
  const int size = world->lift.size, k = size + spec.k;
  const size_t square = (size_t)(size * size), small = (size_t)(2 * world->lift.window + 3 * k) + square;
  KWM_TRY(kwm_alloc((void **)&world->scratch, (small + 2 * square) * sizeof(double), "lift"));
  world->residual = world->scratch + small;
  world->lifted_noise = world->residual + square;
  if (world->network) return KWM_OK;
  const size_t streams = (size_t)config->world.streams;
  KWM_TRY(kwm_regression_create(&world->regression, k, size, precision));
  KWM_TRY(kwm_alloc((void **)&world->streams, streams * sizeof *world->streams, "regressions"));
  for (size_t s = 0; s < streams; s++)
    KWM_TRY(kwm_regression_create(&world->streams[s], k, size, s == 0 ? precision : 0));
  return KWM_OK;
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

/* Y <- lower root of the covariance Q (d, d); zero columns where it is singular. */
static void root_of(int d, double *Q) {
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
}

void world_lift_noise(struct world *world, struct kwm_tracker *tracker, double factor) {
  const int size = world->lift.size;
  for (int64_t k = 0; k < (int64_t)size * size; k++) world->lifted_noise[k] = factor * world->residual[k];
  root_of(size, world->lifted_noise);
  tracker->Q = world->lifted_noise;
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

/* K of a dictionary, Q <- its residuals. */
static kwm_status solve_dictionary(struct world *world, double *Q) {
  KWM_CHECK(kwm_regression_solve(&world->regression, world->lift.A, NULL), KWM_ERR_NUMERIC,
            "koopman: wanted data that determine K, found a singular regression after %.0f steps",
            world->regression.count);
  if (world->config->world.stable) KWM_TRY(kwm_lift_stabilise(&world->lift, 1));
  kwm_regression_noise(&world->regression, Q);
  return KWM_OK;
}

kwm_status world_solve(struct world *world) {
  const int d = world->lift.size;
  double trace = 0;
  if (world->network)
    KWM_TRY(world_encoder_solve(world, world->residual));
  else
    KWM_TRY(solve_dictionary(world, world->residual));
  world->solved = true;
  for (int i = 0; i < d; i++) trace += world->residual[(int64_t)i * (d + 1)];
  KWM_CHECK(isfinite(trace), KWM_ERR_NUMERIC, "koopman: wanted finite residuals, found others");
  if (world->tracker.z == NULL) {
    const struct kwm_tracker_spec spec = {.space = &world->space, .iterations = 1, .gate = world->config->world.gate};
    KWM_TRY(kwm_tracker_create(&world->tracker, &spec));
    KWM_TRY(kwm_tracker_create(&world->meeting, &spec));
    KWM_TRY(first_lift(world));
  }
  world_set_noises(world, &world->tracker);
  world_lift_noise(world, &world->tracker, 1);
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

struct kwm_track world_observe(const struct world *world, struct kwm_tracker *tracker, struct kwm_tracker *meeting,
                               int64_t t) {
  const double *const y = world->series.y + t * world->series.m;
  if (!world->koopman || strcmp(world->config->world.correction, "lift") != 0) return kwm_tracker_update(tracker, y);
  const double floor = 1e-4; /* share of the mean variance that φ's covariance, of less than full rank, gets besides */
  const int size = world->lift.size;
  double *const v = world->scratch + 2 * world->lift.window, trace = 0;
  kwm_tracker_copy(meeting, tracker);
  struct kwm_track track = kwm_tracker_update(meeting, y);
  if (track.verdict != KWM_TRACKED || !world_lift_begin(world, meeting, t, true))
    return track.verdict == KWM_TRACKED_NUMERIC ? track : kwm_tracker_update(tracker, y);
  for (int i = 0; i < size; i++) trace += kwm_tracker_variance(meeting, i);
  for (int i = 0; i < size; i++) {
    memset(v, 0, (size_t)size * sizeof *v);
    v[i] = sqrt(floor * trace / size);
    kwm_tracker_widen(meeting, v);
  }
  if (!kwm_tracker_meet(tracker, meeting)) track.verdict = KWM_TRACKED_NUMERIC;
  return track;
}
