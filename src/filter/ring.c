#include "kwm/ring.h"

#include <math.h>
#include <string.h>

enum { NUMERIC, LOST, GATED, OBSERVED, NIS, LIKELIHOOD, SQUARES, FACTS };
enum { LEFT, RIGHT };

void kwm_ring_range(const struct kwm_layout *layout, int segments, int *begin, int *count) {
  *begin = kwm_segment_first(segments, layout->owners, layout->owner);
  *count = kwm_segment_first(segments, layout->owners, layout->owner + 1) - *begin;
}

/* ---- making */

static kwm_status create_tracker(struct kwm_ring *ring, int s) {
  struct kwm_tracker_spec spec = ring->spec.tracker;
  const struct kwm_segment *const cut = &ring->spec.cuts[s];
  spec.space = &ring->spec.spaces[s];
  spec.n_blocks = cut->count;
  spec.blocks = ring->sizes;
  spec.judged = cut->own;
  spec.layout = NULL;
  return kwm_tracker_create(&ring->trackers[s], &spec);
}

static kwm_status create_scratch(struct kwm_ring *ring) {
  const struct kwm_ring_spec *const spec = &ring->spec;
  const struct kwm_segment *const cut = spec->cuts;
  int longest = 0, widest = 0;
  for (int s = 0; s < ring->count; s++) {
    if (cut[s].count > longest) longest = cut[s].count;
    if (cut[s].size > widest) widest = cut[s].size;
  }
  ring->inputs_size = spec->k + 2 * cut->near + 2 * cut->reach * spec->params;
  ring->edge = 2 * (cut->reach + cut->near) + cut->reach * spec->params;
  const int64_t inputs = (int64_t)ring->count * ring->inputs_size, edges = 2 * (int64_t)(ring->count + 2) * ring->edge;
  const int64_t facts = (int64_t)spec->segments * FACTS, wide = (int64_t)longest * spec->params;
  double *at;
  KWM_TRY(kwm_alloc((void **)&ring->sizes, (size_t)longest * sizeof(int), "ring"));
  for (int i = 0; i < longest; i++) ring->sizes[i] = spec->params;
  KWM_TRY(kwm_alloc((void **)&at, (size_t)(inputs + edges + facts + 2 * widest + wide) * sizeof *at, "ring"));
  ring->inputs = at, at += inputs, ring->edges = at, at += edges, ring->facts = at, at += facts;
  ring->y = at, at += widest, ring->variance = at, at += widest, ring->wide = at;
  return kwm_alloc((void **)&ring->trackers, (size_t)ring->count * sizeof *ring->trackers, "ring");
}

kwm_status kwm_ring_create(struct kwm_ring *ring, const struct kwm_ring_spec *spec) {
  memset(ring, 0, sizeof *ring);
  KWM_CHECK(spec->layout->owners <= spec->segments, KWM_ERR_USAGE,
            "layout.owners: wanted at most the %d segments, found %d", spec->segments, spec->layout->owners);
  ring->spec = *spec;
  ring->sound = true;
  kwm_ring_range(spec->layout, spec->segments, &ring->begin, &ring->count);
  KWM_TRY(create_scratch(ring));
  for (int s = 0; s < ring->count; s++) KWM_TRY(create_tracker(ring, s));
  return KWM_OK;
}

void kwm_ring_destroy(struct kwm_ring *ring) {
  for (int s = 0; ring->trackers != NULL && s < ring->count; s++) kwm_tracker_destroy(&ring->trackers[s]);
  kwm_free(ring->trackers);
  kwm_free(ring->inputs);
  kwm_free(ring->sizes);
  memset(ring, 0, sizeof *ring);
}

void kwm_ring_prior(struct kwm_ring *ring) {
  for (int s = 0; s < ring->count; s++) kwm_tracker_prior(&ring->trackers[s]);
}

void kwm_ring_begin(struct kwm_ring *ring) {
  for (int s = 0; s < ring->count; s++) kwm_tracker_begin(&ring->trackers[s]);
}

void kwm_ring_inflate(struct kwm_ring *ring, double factor) {
  for (int s = 0; s < ring->count; s++) kwm_tracker_inflate(&ring->trackers[s], factor);
}

void kwm_ring_copy(struct kwm_ring *to, const struct kwm_ring *from) {
  KWM_ASSERT(to->begin == from->begin && to->count == from->count && to->inputs_size == from->inputs_size);
  for (int s = 0; s < to->count; s++) kwm_tracker_copy(&to->trackers[s], &from->trackers[s]);
  memcpy(to->inputs, from->inputs, (size_t)(to->count * (int64_t)to->inputs_size) * sizeof(double));
  to->sound = from->sound;
}

/* ---- neighbours */

/* What segment s's neighbour on that side gets of it, s from -1 (the rank before's last) to count. */
static double *edge_of(const struct kwm_ring *ring, int side, int s) {
  return ring->edges + ((int64_t)side * (ring->count + 2) + s + 1) * ring->edge;
}

/* [x; their variances; θ of those within reach] of the segment's first or last states. */
static void fill_edge(const struct kwm_ring *ring, int s, int side) {
  const struct kwm_segment *const cut = &ring->spec.cuts[s];
  const struct kwm_tracker *const tracker = &ring->trackers[s];
  const double *const theta = ring->spec.held != NULL ? ring->spec.held->trackers[s].z : tracker->z;
  const int wide = cut->reach + cut->near, params = ring->spec.params;
  const int first = side == LEFT ? 0 : cut->count - wide, row = side == LEFT ? 0 : cut->count - cut->reach;
  double *const edge = edge_of(ring, side, s);
  for (int i = 0; i < wide; i++) {
    const int state = cut->reach + first + i;
    edge[i] = tracker->z[tracker->n + state];
    edge[wide + i] = kwm_tracker_variance(tracker, tracker->n + state);
  }
  memcpy(edge + 2 * wide, theta + (int64_t)row * params, (size_t)(cut->reach * params) * sizeof *edge);
}

static void exchange(struct kwm_ring *ring) {
  enum { TO_LEFT = 1, TO_RIGHT };
  struct kwm_layout *const layout = ring->spec.layout;
  const int64_t bytes = ring->edge * (int64_t)sizeof(double);
  const int before = (layout->owner + layout->owners - 1) % layout->owners, next = (layout->owner + 1) % layout->owners;
  const double *const first = edge_of(ring, LEFT, 0), *const last = edge_of(ring, RIGHT, ring->count - 1);
  if (layout->owners == 1) {
    memcpy(edge_of(ring, LEFT, ring->count), first, (size_t)bytes);
    memcpy(edge_of(ring, RIGHT, -1), last, (size_t)bytes);
    return;
  }
  MPI_Request requests[2] = {kwm_par_send(layout, before, TO_LEFT, first, bytes),
                             kwm_par_send(layout, next, TO_RIGHT, last, bytes)};
  kwm_par_receive(layout, next, TO_LEFT, edge_of(ring, LEFT, ring->count), bytes);
  kwm_par_receive(layout, before, TO_RIGHT, edge_of(ring, RIGHT, -1), bytes);
  kwm_par_wait(layout, 2, requests);
}

/* Segment s's inputs and, if it adopts, its window's outer states from both neighbours' edges. */
static void take_edges(struct kwm_ring *ring, int s, bool adopts) {
  const struct kwm_segment *const cut = &ring->spec.cuts[s];
  const int near = cut->near, reach = cut->reach, wide = reach + near, k = ring->spec.k;
  const size_t ghosts = (size_t)near * sizeof(double), rows = (size_t)(reach * ring->spec.params) * sizeof(double);
  const double *const before = edge_of(ring, RIGHT, s - 1), *const next = edge_of(ring, LEFT, s + 1);
  double *const to = ring->inputs + (int64_t)s * ring->inputs_size + k;
  memcpy(to, before, ghosts);
  memcpy(to + near, next + reach, ghosts);
  memcpy(to + 2 * near, before + 2 * wide, rows);
  memcpy(to + 2 * near + reach * ring->spec.params, next + 2 * wide, rows);
  for (int i = 0; i < reach && adopts; i++) {
    kwm_tracker_adopt(&ring->trackers[s], i, before[near + i], before[wide + near + i]);
    kwm_tracker_adopt(&ring->trackers[s], reach + cut->count + i, next[i], next[wide + i]);
  }
}

void kwm_ring_share(struct kwm_ring *ring, bool adopts) {
  for (int s = 0; s < ring->count; s++) fill_edge(ring, s, LEFT), fill_edge(ring, s, RIGHT);
  exchange(ring);
  for (int s = 0; s < ring->count; s++) take_edges(ring, s, adopts);
}

/* ---- a step */

bool kwm_ring_predict(struct kwm_ring *ring, const double *u) {
  bool sound = true;
  for (int s = 0; s < ring->count; s++) {
    double *const inputs = ring->inputs + (int64_t)s * ring->inputs_size;
    if (ring->spec.k > 0) memcpy(inputs, u, (size_t)ring->spec.k * sizeof *u);
    sound = kwm_tracker_predict(&ring->trackers[s], inputs) && sound;
  }
  ring->sound = ring->sound && sound;
  return sound;
}

static bool all_finite(const struct kwm_tracker *tracker) {
  double all = 0;
  for (int i = 0; i < tracker->N; i++) all += fabs(tracker->z[i]);
  return isfinite(all);
}

/* One segment's facts. */
static void update_segment(struct kwm_ring *ring, int s, const double *y, double *facts) {
  const struct kwm_segment *const cut = &ring->spec.cuts[s];
  for (int i = 0; i < cut->m; i++) ring->y[i] = y[kwm_segment_state(cut, cut->outputs[i])];
  const struct kwm_track track = kwm_tracker_update(&ring->trackers[s], ring->y);
  facts[NUMERIC] = track.verdict == KWM_TRACKED_NUMERIC || !ring->sound;
  facts[LOST] = facts[NUMERIC] > 0 && !all_finite(&ring->trackers[s]);
  facts[GATED] = track.verdict == KWM_TRACKED_GATED;
  if (track.verdict != KWM_TRACKED) return;
  facts[OBSERVED] = track.observed;
  facts[NIS] = track.nis;
  facts[LIKELIHOOD] = track.likelihood;
  for (int i = 0; i < cut->own; i++)
    if (!isnan(track.e[i])) facts[SQUARES] += track.e[i] * track.e[i];
}

struct kwm_ring_track kwm_ring_update(struct kwm_ring *ring, const double *y) {
  const int segments = ring->spec.segments;
  double sum[FACTS] = {0};
  memset(ring->facts, 0, (size_t)(segments * FACTS) * sizeof(double));
  for (int s = 0; s < ring->count; s++) update_segment(ring, s, y, ring->facts + (int64_t)(ring->begin + s) * FACTS);
  kwm_par_sum_group(ring->spec.layout, (int64_t)segments * FACTS, ring->facts);
  for (int i = 0; i < segments * FACTS; i++) sum[i % FACTS] += ring->facts[i];
  ring->sound = true;
  kwm_ring_share(ring, true);
  const enum kwm_tracked verdict = sum[NUMERIC] > 0    ? KWM_TRACKED_NUMERIC
                                   : sum[OBSERVED] > 0 ? KWM_TRACKED
                                   : sum[GATED] > 0    ? KWM_TRACKED_GATED
                                                       : KWM_TRACKED_NOTHING;
  return (struct kwm_ring_track){
      .track = {.verdict = verdict, .observed = (int)sum[OBSERVED], .nis = sum[NIS], .likelihood = sum[LIKELIHOOD]},
      .squares = sum[SQUARES],
      .lost = sum[LOST] > 0};
}

bool kwm_ring_finite(const struct kwm_ring *ring) {
  bool all = true;
  for (int s = 0; s < ring->count; s++) all = all && all_finite(&ring->trackers[s]);
  return all;
}
