/* A state-space model whose ring of states is cut into segments: their windows, their trackers. */
#include <string.h>

#include "world.h"

/* ---- making */

static kwm_status open_windows(struct world *world) {
  const struct kwm_config *const config = world->config;
  const int d = world->model.spec.d, segments = (int)config->world.segments;
  struct world_split *const split = &world->split;
  struct kwm_layout *const layout = &world->run->layout;
  struct kwm_segment whole; /* segment 0, for what is asked of all of them */
  int begin = 0, count = 0;
  KWM_TRY(kwm_segment_init(&whole, d, world->series.m, segments, 0, (int)config->world.reach, world->model.spec.near));
  kwm_segment_fini(&whole);
  kwm_ring_range(layout, segments, &begin, &count);
  KWM_TRY(kwm_alloc((void **)&split->cuts, (size_t)count * sizeof *split->cuts, "segments"));
  KWM_TRY(kwm_alloc((void **)&split->windows, (size_t)count * sizeof *split->windows, "segments"));
  KWM_TRY(kwm_alloc((void **)&split->spaces, (size_t)count * sizeof *split->spaces, "segments"));
  for (int s = 0; s < count; s++, split->count++) {
    KWM_TRY(kwm_segment_init(&split->cuts[s], d, world->series.m, segments, begin + s, (int)config->world.reach,
                             world->model.spec.near));
    KWM_TRY(kwm_statespace_window_init(&split->windows[s], &world->model, &split->cuts[s]));
    kwm_statespace_window_space(&split->windows[s], &split->spaces[s]);
  }
  return KWM_OK;
}

/* Means, priors, noises and first states of the whole. */
struct whole {
  double *mean, *prior;           /* (n) */
  double *q, *r, *start, *spread; /* (d), (m), (d), (d) */
};

static void fill_tracker(const struct kwm_segment *cut, int params, const struct whole *whole,
                         struct kwm_tracker *tracker) {
  const size_t own = (size_t)tracker->n * sizeof(double);
  memcpy(tracker->z, whole->mean + (int64_t)cut->first * params, own);
  memcpy(tracker->prior, whole->prior + (int64_t)cut->first * params, own);
  for (int i = 0; i < cut->size; i++) {
    const int state = kwm_segment_state(cut, i);
    tracker->q[i] = whole->q[state];
    tracker->start[i] = whole->start[state], tracker->spread[i] = whole->spread[state];
  }
  for (int i = 0; i < cut->m; i++) tracker->r[i] = whole->r[kwm_segment_state(cut, cut->outputs[i])];
}

static kwm_status fill(struct world *world) {
  struct kwm_ring *const ring = &world->split.ring;
  const int64_t n = world->model.n, d = world->model.spec.d;
  double *memory;
  KWM_TRY(kwm_alloc((void **)&memory, (size_t)(2 * n + 4 * d) * sizeof *memory, "segments"));
  struct whole whole = {.mean = memory, .prior = memory + n, .q = memory + 2 * n};
  whole.r = whole.q + d, whole.start = whole.r + d, whole.spread = whole.start + d;
  kwm_statespace_prior(&world->model, world->config->seed, world->config->world.prior, whole.mean, whole.prior);
  for (int64_t i = 0; i < d; i++) whole.spread[i] = 1;
  world_first_state(world, world->series.y, world->series.m, whole.start, whole.spread);
  world_noises(world, (int)d, whole.q, whole.r);
  for (int s = 0; s < ring->count; s++)
    fill_tracker(&world->split.cuts[s], world->model.features, &whole, &ring->trackers[s]);
  kwm_free(memory);
  return KWM_OK;
}

kwm_status world_split_open(struct world *world, const struct kwm_tracker_spec *tracker) {
  struct world_split *const split = &world->split;
  struct kwm_layout *const layout = &world->run->layout;
  const int segments = (int)world->config->world.segments;
  KWM_CHECK(layout->owners <= segments, KWM_ERR_USAGE, "layout.owners: wanted at most the %d segments, found %d",
            segments, layout->owners);
  KWM_TRY(open_windows(world));
  const struct kwm_ring_spec spec = {.d = world->model.spec.d,
                                     .m = world->series.m,
                                     .k = world->series.k,
                                     .params = world->model.features,
                                     .segments = segments,
                                     .cuts = split->cuts,
                                     .spaces = split->spaces,
                                     .tracker = *tracker,
                                     .layout = layout};
  KWM_TRY(kwm_ring_create(&split->ring, &spec));
  KWM_TRY(fill(world));
  kwm_ring_prior(&split->ring);
  kwm_ring_begin(&split->ring);
  return KWM_OK;
}

void world_split_close(struct world *world) {
  struct world_split *const split = &world->split;
  for (int s = 0; s < split->count; s++) {
    kwm_segment_fini(&split->cuts[s]);
    kwm_statespace_window_fini(&split->windows[s]);
  }
  kwm_ring_destroy(&split->ring);
  kwm_free(split->cuts);
  kwm_free(split->windows);
  kwm_free(split->spaces);
  kwm_free(split->theta);
}

/* ---- a step, and what is seen of all */

struct kwm_ring_track world_split_learn(struct world *world, struct kwm_ring *ring, int64_t t) {
  const struct kwm_series *const series = &world->series;
  if (series->starts[t])
    kwm_ring_begin(ring);
  else
    kwm_ring_predict(ring, series->k > 0 && t > 0 ? series->u + (t - 1) * series->k : series->u);
  return kwm_ring_update(ring, series->y + t * series->m);
}

kwm_status world_split_theta(struct world *world) {
  struct world_split *const split = &world->split;
  kwm_status status = KWM_OK;
  if (split->theta == NULL)
    status = kwm_alloc((void **)&split->theta, (size_t)world->model.n * sizeof(double), "parameters");
  KWM_TRY(kwm_agree(world->run->layout.world, status));
  const struct kwm_ring_view view = {.theta = split->theta};
  kwm_ring_gather(&split->ring, &view);
  return KWM_OK;
}

static void look_at_segments(struct world *world, struct world_view *view) {
  const int64_t n = view->n;
  const struct kwm_ring_view all = {.theta = view->memory,
                                    .prior = view->memory + n,
                                    .variances = view->memory + 2 * n,
                                    .q = view->memory + 3 * n,
                                    .r = view->memory + 3 * n + view->d};
  kwm_ring_gather(&world->split.ring, &all);
  view->theta = all.theta, view->prior = all.prior, view->variances = all.variances, view->q = all.q, view->r = all.r;
}

kwm_status world_look(struct world *world, struct world_view *view) {
  const struct kwm_tracker *const tracker = &world->tracker, *const learner = world_learner(world);
  const bool split = world->is_split;
  *view = (struct world_view){.n = split ? world->model.n : learner->n,
                              .d = split ? world->model.spec.d : tracker->d,
                              .m = split ? world->series.m : tracker->m,
                              .theta = tracker->z,
                              .prior = learner->prior,
                              .q = tracker->q,
                              .r = tracker->r};
  const int64_t numbers = split ? 3 * (int64_t)view->n + view->d + view->m : view->n + 1;
  const kwm_status status = kwm_alloc((void **)&view->memory, (size_t)numbers * sizeof(double), "variances");
  KWM_TRY(kwm_agree(world->run->layout.world, status));
  if (split) {
    look_at_segments(world, view);
    return KWM_OK;
  }
  kwm_tracker_variances(learner, view->memory);
  view->variances = view->memory;
  return KWM_OK;
}
