/* A ring of states with a series for it, cut into segments: what filters of segments are compared on. */
#pragma once

#include "dense.h"

#include "kwm/ring.h"
#include "kwm/statespace.h"

enum { RING_D = 17, RING_M = 16, RING_SEGMENTS = 5, RING_NEAR = 1 };

struct ring_case {
  struct kwm_statespace model;
  int count;
  struct kwm_segment cuts[RING_SEGMENTS];
  struct kwm_statespace_window windows[RING_SEGMENTS];
  struct kwm_space spaces[RING_SEGMENTS];
  struct kwm_ring ring;
};

static inline void ring_case_begin(struct ring_case *it, struct kwm_layout *layout, enum kwm_tracker_method method,
                                   int reach) {
  const struct kwm_statespace_spec model = {
      .transition = KWM_TRANSITION_POLYNOMIAL, .d = RING_D, .m = RING_M, .degree = 2, .near = RING_NEAR};
  int begin;
  memset(it, 0, sizeof *it);
  assert_ok(kwm_statespace_init(&it->model, &model));
  kwm_ring_range(layout, RING_SEGMENTS, &begin, &it->count);
  for (int s = 0; s < it->count; s++) {
    assert_ok(kwm_segment_init(&it->cuts[s], RING_D, RING_M, RING_SEGMENTS, begin + s, reach, RING_NEAR));
    assert_ok(kwm_statespace_window_init(&it->windows[s], &it->model, &it->cuts[s]));
    kwm_statespace_window_space(&it->windows[s], &it->spaces[s]);
  }
  const struct kwm_ring_spec spec = {
      .d = RING_D,
      .m = RING_M,
      .params = it->model.features,
      .segments = RING_SEGMENTS,
      .cuts = it->cuts,
      .spaces = it->spaces,
      .tracker = {.method = method, .iterations = 1, .adapt = 0.01, .walk = method == KWM_TRACKER_BLOCK ? 1e-4 : 0},
      .layout = layout};
  assert_ok(kwm_ring_create(&it->ring, &spec));
  for (int s = 0; s < it->count; s++) {
    struct kwm_tracker *const tracker = &it->ring.trackers[s];
    for (int i = 0; i < tracker->n; i++) tracker->prior[i] = 0.01;
    for (int i = 0; i < tracker->d; i++) tracker->q[i] = 0.01, tracker->spread[i] = 0.5;
    for (int i = 0; i < tracker->m; i++) tracker->r[i] = 0.05;
  }
  kwm_ring_prior(&it->ring);
  kwm_ring_begin(&it->ring);
}

static inline void ring_case_end(struct ring_case *it) {
  kwm_ring_destroy(&it->ring);
  for (int s = 0; s < it->count; s++) {
    kwm_statespace_window_fini(&it->windows[s]);
    kwm_segment_fini(&it->cuts[s]);
  }
  kwm_statespace_fini(&it->model);
}

/* A wave around the ring, with noise; some outputs are missing. */
static inline void ring_case_outputs(int t, double *y) {
  for (int i = 0; i < RING_M; i++) y[i] = sin(0.3 * t + 0.8 * i) + 0.2 * test_normal(51, RING_M * t + i);
  if (t % 3 == 1) y[t % RING_M] = NAN;
  for (int i = 0; i < RING_M && t % 11 == 7; i++) y[i] = NAN;
}
