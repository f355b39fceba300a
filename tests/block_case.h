/* A small learned state-space model and a series for it: what filters with a block-diagonal covariance of the
   parameters are compared on. */
#pragma once

#include "dense.h"
#include "kwm/statespace.h"
#include "kwm/tracker.h"

enum { BLOCK_D = 4, BLOCK_M = 3 };

struct block_case {
  struct kwm_statespace model;
  struct kwm_space space;
  int n_blocks, sizes[64];
};

/* Quadratic in a state and its two neighbours; outputs: the first states, or linear in all with parameters. */
static inline void block_case_begin(struct block_case *it, enum kwm_readout readout) {
  const struct kwm_statespace_spec spec = {
      .transition = KWM_TRANSITION_POLYNOMIAL, .readout = readout, .d = BLOCK_D, .m = BLOCK_M, .degree = 2, .near = 1};
  assert_ok(kwm_statespace_init(&it->model, &spec));
  kwm_statespace_space(&it->model, &it->space);
  it->n_blocks = kwm_statespace_blocks(&it->model, NULL);
  assert_true(it->n_blocks <= 64);
  kwm_statespace_blocks(&it->model, it->sizes);
}

static inline void block_case_tracker(struct block_case *it, const struct kwm_tracker_spec *spec,
                                      struct kwm_tracker *tracker) {
  assert_ok(kwm_tracker_create(tracker, spec));
  kwm_statespace_prior(&it->model, 3, 0.3, tracker->z, tracker->prior);
  for (int i = 0; i < BLOCK_D; i++) tracker->q[i] = 0.01, tracker->start[i] = 0.2 * i, tracker->spread[i] = 0.5;
  for (int i = 0; i < BLOCK_M; i++) tracker->r[i] = 0.05;
  kwm_tracker_prior(tracker);
  kwm_tracker_begin(tracker);
}

static inline void block_case_outputs(int t, double *y) {
  for (int i = 0; i < BLOCK_M; i++) y[i] = sin(0.3 * t + 2 * i) + 0.2 * test_normal(41, BLOCK_M * t + i);
  if (t % 5 == 2) y[t % BLOCK_M] = NAN;
  if (t % 17 == 9)
    for (int i = 0; i < BLOCK_M; i++) y[i] = NAN;
}

/* Both take y in, and agree on all that they say of it and on their n parameters and states. */
static inline void block_case_agree(struct kwm_tracker *joint, struct kwm_tracker *other, int64_t n, const double *y) {
  const struct kwm_track a = kwm_tracker_update(joint, y), b = kwm_tracker_update(other, y);
  double *const variances = dense_new(n), *const wanted = dense_new(n);
  assert_true(a.verdict == b.verdict && a.observed == b.observed);
  assert_close(b.nis, a.nis, 1e-8, 1e-8);
  assert_close(b.likelihood, a.likelihood, 1e-8, 1e-8);
  for (int i = 0; i < BLOCK_M && a.observed > 0; i++)
    if (!isnan(y[i])) assert_close(b.s[i], a.s[i], 1e-8, 1e-10);
  kwm_tracker_variances(joint, wanted);
  kwm_tracker_variances(other, variances);
  assert_below(dense_error(joint->N, other->z, joint->z), 1e-8);
  assert_below(dense_error(n, variances, wanted), 1e-8);
  assert_below(dense_error(BLOCK_D, other->q, joint->q), 1e-8);
  free(variances), free(wanted);
}
