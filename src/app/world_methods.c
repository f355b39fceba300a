/* The learned model and what it is compared with: EKF and UKF with the true model, the last value, autoregression,
   dynamic mode decomposition. */
#include <math.h>
#include <string.h>

#include "world.h"

/* ---- the known system in the series' units */

static void known_step(const void *context, const double *x, const double *u, const double *theta, double *next,
                       double *Fx, double *Ft) {
  const struct world_known *const known = context;
  const struct kwm_series *const series = &known->world->series;
  const double *const mean = series->mean + series->m, *const scale = series->scale + series->m;
  for (int j = 0; j < known->inner.k; j++) known->physical[j] = mean[j] + scale[j] * u[j];
  known->inner.step(known->inner.context, x, known->physical, theta, next, Fx, Ft);
}

static void known_observe(const void *context, const double *x, const double *theta, double *y, double *Hx,
                          double *Ht) {
  const struct world_known *const known = context;
  const struct kwm_series *const series = &known->world->series;
  known->inner.observe(known->inner.context, x, theta, y, Hx, Ht);
  for (int i = 0; i < series->m; i++) {
    y[i] = (y[i] - series->mean[i]) / series->scale[i];
    for (int j = 0; Hx != NULL && j < known->inner.d; j++) Hx[i * known->inner.d + j] /= series->scale[i];
  }
}

void world_known_space(struct world_known *known, const struct world *world, double *scratch, struct kwm_space *space) {
  known->world = world;
  known->physical = scratch;
  kwm_system_space(&world->system, &known->inner);
  *space = known->inner;
  space->context = known;
  space->step = known_step;
  space->observe = known_observe;
}

/* ---- the learned model, its parameters held */

static void frozen_step(const void *context, const double *x, const double *u, const double *theta, double *next,
                        double *Fx, double *Ft) {
  const struct world_frozen *const frozen = context;
  (void)theta, (void)Ft;
  frozen->inner.step(frozen->inner.context, x, u, frozen->theta, next, Fx, NULL);
}

static void frozen_observe(const void *context, const double *x, const double *theta, double *y, double *Hx,
                           double *Ht) {
  const struct world_frozen *const frozen = context;
  (void)theta, (void)Ht;
  frozen->inner.observe(frozen->inner.context, x, frozen->theta, y, Hx, NULL);
}

void world_frozen_space(struct world_frozen *frozen, const struct kwm_space *inner, const double *theta,
                        struct kwm_space *space) {
  *frozen = (struct world_frozen){.inner = *inner, .theta = theta};
  *space = *inner;
  space->n = 0;
  space->context = frozen;
  space->step = frozen_step;
  space->observe = frozen_observe;
}

/* ---- methods */

static kwm_status add_tracker(struct world_methods *methods, const char *name, const struct kwm_tracker_spec *spec,
                              struct world_method **method) {
  *method = &methods->method[methods->n++];
  (*method)->name = name;
  (*method)->kind = WORLD_TRACKER;
  KWM_TRY(kwm_tracker_create(&(*method)->tracker, spec));
  return kwm_tracker_create(&(*method)->scratch, spec);
}

static kwm_status add_learned(struct world_methods *methods, struct world *world) {
  const bool online = world->koopman || world->config->world.online;
  struct kwm_space *const space = &methods->spaces[methods->n];
  struct kwm_tracker_spec spec = world->tracker.spec;
  struct world_method *method;
  *space = world->space;
  if (!online) world_frozen_space(&methods->frozen, &world->space, world->tracker.z, space);
  spec.space = space;
  if (!online && spec.method != KWM_TRACKER_UNSCENTED) spec.method = KWM_TRACKER_JOINT;
  if (!online) spec.adapt = spec.walk = 0, spec.forgetting = 1;
  KWM_TRY(add_tracker(methods, world->koopman ? "koopman" : "learned", &spec, &method));
  method->lifts = world->koopman;
  if (online) {
    kwm_tracker_copy(&method->tracker, &world->tracker);
    return KWM_OK;
  }
  const struct kwm_tracker *const from = &world->tracker;
  memcpy(method->tracker.q, from->q, (size_t)from->d * sizeof(double));
  memcpy(method->tracker.r, from->r, (size_t)from->m * sizeof(double));
  memcpy(method->tracker.start, from->start, (size_t)from->d * sizeof(double));
  memcpy(method->tracker.spread, from->spread, (size_t)from->d * sizeof(double));
  return KWM_OK;
}

/* The segments' models with the parameters that they have learned, noises and first states with them. */
static kwm_status add_split(struct world_methods *methods, struct world *world) {
  const struct kwm_ring *const from = &world->split.ring;
  struct world_method *const method = &methods->method[methods->n++];
  const size_t count = (size_t)from->count;
  struct kwm_ring_spec spec = from->spec;
  method->name = "learned";
  method->kind = WORLD_RING;
  KWM_TRY(kwm_alloc((void **)&methods->windows, count * sizeof *methods->windows, "held segments"));
  KWM_TRY(kwm_alloc((void **)&methods->held, count * sizeof *methods->held, "held segments"));
  for (int s = 0; s < from->count; s++)
    world_frozen_space(&methods->windows[s], &from->spec.spaces[s], from->trackers[s].z, &methods->held[s]);
  spec.spaces = methods->held;
  spec.held = from;
  spec.tracker = (struct kwm_tracker_spec){.method = KWM_TRACKER_JOINT, .iterations = 1};
  KWM_TRY(kwm_ring_create(&method->ring, &spec));
  KWM_TRY(kwm_ring_create(&method->ahead, &spec));
  for (int s = 0; s < from->count; s++) {
    const struct kwm_tracker *const learned = &from->trackers[s];
    struct kwm_tracker *const tracker = &method->ring.trackers[s];
    memcpy(tracker->q, learned->q, (size_t)learned->d * sizeof(double));
    memcpy(tracker->r, learned->r, (size_t)learned->m * sizeof(double));
    memcpy(tracker->start, learned->start, (size_t)learned->d * sizeof(double));
    memcpy(tracker->spread, learned->spread, (size_t)learned->d * sizeof(double));
  }
  return KWM_OK;
}

static kwm_status add_known(struct world_methods *methods, struct world *world, const char *name,
                            enum kwm_tracker_method kind) {
  const int most = kind == KWM_TRACKER_UNSCENTED ? 50 : 200; /* sigma points, states of a dense filter */
  const struct kwm_system *const system = &world->system;
  struct kwm_space *const space = &methods->spaces[methods->n];
  if (!world->known || system->d > most) return KWM_OK;
  world_known_space(&methods->known, world, methods->memory, space);
  const struct kwm_tracker_spec spec = {.space = space, .method = kind, .iterations = 1};
  struct world_method *method;
  KWM_TRY(add_tracker(methods, name, &spec, &method));
  method->states = true;
  world_first_state(world, world->series.states, system->d, method->tracker.start, method->tracker.spread);
  memcpy(method->tracker.q, system->process, (size_t)system->d * sizeof(double));
  for (int i = 0; i < system->m; i++)
    method->tracker.r[i] = fmax(system->observation[i] / pow(world->series.scale[i], 2), 1e-24);
  return KWM_OK;
}

kwm_status world_regress_lift(const struct world *world, struct kwm_lift *lift) {
  const struct kwm_series *const series = &world->series;
  const int size = lift->size, k = series->k;
  struct kwm_regression regression;
  double *memory;
  KWM_TRY(
      kwm_alloc((void **)&memory, (size_t)(lift->window + 2 * size + k) * sizeof *memory, "least squares on a lift"));
  kwm_status status = kwm_regression_create(&regression, size + k, size, 1e-12);
  double *const window = memory, *const z = window + lift->window, *const next = z + size + k;
  for (int64_t t = 1; t < series->train && status == KWM_OK; t++) {
    if (series->starts[t] || !kwm_lift_window(lift, series->y, t - 1, world->begin[t], window)) continue;
    kwm_lift_apply(lift, window, z);
    for (int j = 0; j < k; j++) z[size + j] = series->u[(t - 1) * k + j];
    if (!kwm_lift_window(lift, series->y, t, world->begin[t], window)) continue;
    kwm_lift_apply(lift, window, next);
    kwm_regression_add(&regression, z, next, 1);
  }
  if (status == KWM_OK && !kwm_regression_solve(&regression, lift->A, NULL))
    status = KWM_RAISE(KWM_ERR_NUMERIC,
                       "least squares on a lift: wanted data that determine K, found a singular regression");
  kwm_regression_destroy(&regression);
  kwm_free(memory);
  return status;
}

static kwm_status add_lift(struct world_methods *methods, const struct world *world, const char *name, int delays) {
  enum { ELEMENTS_MAX = 1000 };
  const struct kwm_lift_spec spec = {.m = world->series.m, .k = world->series.k, .delays = delays, .degree = 1};
  if ((int64_t)spec.m * (delays + 1) > ELEMENTS_MAX) return KWM_OK;
  struct world_method *const method = &methods->method[methods->n++];
  method->name = name;
  method->kind = WORLD_LIFT;
  KWM_TRY(kwm_lift_init(&method->lift, &spec));
  return world_regress_lift(world, &method->lift);
}

kwm_status world_methods_open(struct world_methods *methods, struct world *world) {
  memset(methods, 0, sizeof *methods);
  KWM_TRY(kwm_alloc((void **)&methods->memory, (size_t)(world->series.k + 1) * sizeof(double), "inputs"));
  KWM_TRY(world->is_split ? add_split(methods, world) : add_learned(methods, world));
  if (world->run->layout.rank > 0) return KWM_OK;
  if (world->network)
    methods->method[methods->n++] =
        (struct world_method){.name = "window", .kind = WORLD_LIFT, .lift = world->lift, .lends = true};
  KWM_TRY(add_known(methods, world, "ekf", KWM_TRACKER_JOINT));
  KWM_TRY(add_known(methods, world, "ukf", KWM_TRACKER_UNSCENTED));
  KWM_TRY(add_lift(methods, world, "ar", (int)world->config->world.ar - 1));
  KWM_TRY(add_lift(methods, world, "dmd", 0));
  methods->method[methods->n++] = (struct world_method){.name = "persistence", .kind = WORLD_LAST};
  return KWM_OK;
}

void world_methods_close(struct world_methods *methods) {
  for (int i = 0; i < methods->n; i++) {
    kwm_tracker_destroy(&methods->method[i].tracker);
    kwm_tracker_destroy(&methods->method[i].scratch);
    kwm_ring_destroy(&methods->method[i].ring);
    kwm_ring_destroy(&methods->method[i].ahead);
    if (!methods->method[i].lends) kwm_lift_fini(&methods->method[i].lift);
  }
  kwm_free(methods->windows);
  kwm_free(methods->held);
  kwm_free(methods->memory);
  memset(methods, 0, sizeof *methods);
}
