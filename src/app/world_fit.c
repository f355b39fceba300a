/* Noises by maximum likelihood. The filter gives the density of every observation given those before it; what is
   maximised are the logarithms of one factor on q and one on r, by the simplex of Nelder and Mead, and the curvature at
   the top says how well they are known.

   Held to the lift of its window a filter forgets its state, and one step ahead does not say how noise divides into q
   and r. There the densities of forecasts 2 to AHEAD steps ahead, from every AHEADth step, count too (a composite
   likelihood; its curvature overrates what is known). */
#include <math.h>
#include <string.h>

#include "kwm/log.h"
#include "world.h"

enum { STEPS = 2000, EVALUATIONS = 160, AHEAD = 10 };

struct fit {
  struct world *world;
  struct kwm_tracker tracker, ahead;
  double *y, *variance; /* (m) of a forecast; NULL: they don't count */
  int64_t first, end;
};

void world_apply_noise(struct world *world, struct kwm_tracker *tracker, const double *noise) {
  if (isnan(noise[0])) return;
  world_set_noises(world, tracker);
  for (int i = 0; i < tracker->d; i++) tracker->q[i] *= exp(noise[0]);
  for (int i = 0; i < tracker->m; i++) tracker->r[i] *= exp(noise[1]);
  if (world->koopman) world_lift_noise(world, tracker, exp(noise[0]));
}

/* -log density of the observations 2 to AHEAD steps after t, each by itself, in the same trajectory. */
static double forecast_cost(struct fit *fit, int64_t t) {
  const struct kwm_series *const series = &fit->world->series;
  struct kwm_tracker *const ahead = &fit->ahead;
  double sum = 0;
  kwm_tracker_copy(ahead, &fit->tracker);
  for (int64_t h = 1; h <= AHEAD && t + h < fit->end && !series->starts[t + h]; h++) {
    if (!kwm_tracker_predict(ahead, series->k > 0 ? series->u + (t + h - 1) * series->k : NULL)) return INFINITY;
    kwm_tracker_outputs(ahead, true, fit->y, fit->variance);
    for (int i = 0; i < series->m && h > 1; i++) {
      const double e = series->y[(t + h) * series->m + i] - fit->y[i];
      if (!isnan(e)) sum += (e * e / fit->variance[i] + log(2 * M_PI * fit->variance[i])) / 2;
    }
  }
  return sum;
}

/* -log density of the observations in [first, end); infinite where the filter breaks down. */
static double cost(struct fit *fit, const double *logs) {
  struct kwm_tracker *const tracker = &fit->tracker;
  double sum = 0;
  if (fabs(logs[0]) > 40 || fabs(logs[1]) > 40) return INFINITY;
  world_apply_noise(fit->world, tracker, logs);
  if (!fit->world->koopman)
    kwm_statespace_prior(&fit->world->model, fit->world->config->seed, fit->world->config->world.prior, tracker->z,
                         tracker->prior);
  kwm_tracker_prior(tracker);
  kwm_tracker_begin(tracker);
  tracker->steps = 0;
  for (int64_t t = fit->first; t < fit->end; t++) {
    const struct kwm_track track = world_track(fit->world, tracker, t);
    if (track.verdict == KWM_TRACKED_NUMERIC) return INFINITY;
    if (track.verdict == KWM_TRACKED) sum -= track.likelihood;
    if (fit->y != NULL && t % AHEAD == 0) sum += forecast_cost(fit, t);
  }
  return isfinite(sum) ? sum : INFINITY;
}

void world_true_noise(const struct world *world, double *logs) {
  const struct kwm_series *const series = &world->series;
  const struct kwm_system *const system = &world->system;
  const double q = pow(world->config->world.process_noise, 2), r = pow(world->config->world.observation_noise, 2);
  logs[0] = logs[1] = 0;
  for (int i = 0; i < series->m && world->known; i++) {
    const double scale = pow(series->scale[i], 2);
    logs[0] += log(system->process[system->first + i] / scale / q) / series->m;
    logs[1] += log(system->observation[i] / scale / r) / series->m;
  }
}

struct corner {
  double at[2], cost;
};

static void order(struct corner *corners) {
  for (int i = 1; i < 3; i++)
    for (int j = i; j > 0 && corners[j].cost < corners[j - 1].cost; j--) {
      const struct corner keep = corners[j];
      corners[j] = corners[j - 1];
      corners[j - 1] = keep;
    }
}

static struct corner at(struct fit *fit, const struct corner *corners, double share) {
  struct corner new;
  for (int i = 0; i < 2; i++) {
    const double middle = (corners[0].at[i] + corners[1].at[i]) / 2;
    new.at[i] = middle + share *(middle - corners[2].at[i]);
  }
  new.cost = cost(fit, new.at);
  return new;
}

static void simplex(struct fit *fit, struct corner *corners) {
  int evaluations = 3;
  while (evaluations < EVALUATIONS) {
    order(corners);
    if (corners[2].cost - corners[0].cost < 1e-7 * fabs(corners[0].cost)) break;
    struct corner new = at(fit, corners, 1);
    evaluations++;
    if (new.cost < corners[0].cost) {
      const struct corner further = at(fit, corners, 2);
      evaluations++;
      if (further.cost < new.cost) new = further;
    } else if (!(new.cost < corners[1].cost)) {
      new = at(fit, corners, new.cost < corners[2].cost ? 0.5 : -0.5);
      evaluations++;
    }
    if (new.cost < corners[2].cost) {
      corners[2] = new;
      continue;
    }
    for (int c = 1; c < 3; c++, evaluations++) { /* shrink */
      for (int i = 0; i < 2; i++) corners[c].at[i] = (corners[c].at[i] + corners[0].at[i]) / 2;
      corners[c].cost = cost(fit, corners[c].at);
    }
  }
  order(corners);
}

/* Deviations from the inverse of the cost's second differences. */
static void curvature(struct fit *fit, const struct corner *top, double *deviations) {
  const double h = 0.05;
  double H[2][2];
  for (int i = 0; i < 2; i++)
    for (int j = 0; j <= i; j++) {
      double sum = 0;
      for (int s = 0; s < 4; s++) {
        double point[2] = {top->at[0], top->at[1]};
        point[i] += s & 1 ? h : -h;
        point[j] += s & 2 ? h : -h;
        sum += ((s & 1) > 0) == ((s & 2) > 0) ? cost(fit, point) : -cost(fit, point);
      }
      H[i][j] = H[j][i] = sum / (4 * h * h);
    }
  const double determinant = H[0][0] * H[1][1] - H[0][1] * H[1][0];
  deviations[0] = determinant > 0 ? sqrt(H[1][1] / determinant) : NAN;
  deviations[1] = determinant > 0 ? sqrt(H[0][0] / determinant) : NAN;
}

static kwm_status prepare(struct fit *fit) {
  struct world *const world = fit->world;
  struct kwm_tracker_spec spec = world->tracker.spec;
  const int64_t N = world->tracker.N, work = 4 * N * N * N + 50 * N * N, budget = 100000000;
  int64_t steps = budget / work < 100 ? 100 : budget / work > STEPS ? STEPS : budget / work;
  if (steps > world->series.train) steps = world->series.train;
  spec.adapt = 0;
  KWM_TRY(kwm_tracker_create(&fit->tracker, &spec));
  kwm_tracker_copy(&fit->tracker, &world->tracker);
  if (world->koopman && strcmp(world->config->world.correction, "lift") == 0) {
    KWM_TRY(kwm_tracker_create(&fit->ahead, &spec));
    KWM_TRY(kwm_alloc((void **)&fit->y, 2 * (size_t)world->series.m * sizeof(double), "forecasts"));
    fit->variance = fit->y + world->series.m;
  }
  fit->first = world->koopman ? world->series.train - steps : 0;
  fit->end = fit->first + steps;
  return KWM_OK;
}

kwm_status world_fit(struct world *world) {
  struct fit fit = {.world = world};
  struct corner corners[3] = {{.at = {-1, 0}}, {.at = {-2, 1}}, {.at = {-1, 1.5}}};
  kwm_status status = prepare(&fit);
  for (int c = 0; c < 3 && status == KWM_OK; c++) corners[c].cost = cost(&fit, corners[c].at);
  if (status == KWM_OK) {
    simplex(&fit, corners);
    memcpy(world->noise, corners[0].at, 2 * sizeof(double));
    curvature(&fit, &corners[0], world->noise + 2);
    world_apply_noise(world, &world->tracker, world->noise);
    kwm_log(KWM_LOG_INFO, "noise by likelihood over %lld steps: factor %.3g on q, %.3g on r",
            (long long)(fit.end - fit.first), exp(world->noise[0]), exp(world->noise[1]));
  }
  kwm_tracker_destroy(&fit.tracker);
  kwm_tracker_destroy(&fit.ahead);
  kwm_free(fit.y);
  return status;
}
