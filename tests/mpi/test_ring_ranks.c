/* A ring of states cut into segments: the same bits on any number of ranks, also from a checkpoint's rows; exact where
   states do not touch; nearer to the filter of all the further segments reach; never indefinite. */
#include "grids.h"

#include "../ring_case.h"
#include "kwm/backend.h"

enum { STEPS = 40 };

/* Every rank for itself. */
static struct kwm_layout alone(void) {
  return (struct kwm_layout){
      .size = 1, .replicas = 1, .stages = 1, .owners = 1, .world = MPI_COMM_SELF, .group = MPI_COMM_SELF};
}

enum { NUMBERS = 3 * RING_D * 10 + 2 * RING_D + RING_M };

/* All of a ring that can be gathered. */
static void gather(struct kwm_ring *ring, double *numbers) {
  const int n = RING_D * ring->spec.params;
  assert_true(3 * n + 2 * RING_D + RING_M == NUMBERS);
  const struct kwm_ring_view view = {.theta = numbers,
                                     .prior = numbers + n,
                                     .variances = numbers + 2 * n,
                                     .x = numbers + 3 * n,
                                     .q = numbers + 3 * n + RING_D,
                                     .r = numbers + 3 * n + 2 * RING_D};
  kwm_ring_gather(ring, &view);
}

static void step(struct kwm_ring *ring, int t, struct kwm_ring_track *track) {
  double y[RING_M];
  ring_case_outputs(t, y);
  assert_all(kwm_ring_predict(ring, NULL));
  *track = kwm_ring_update(ring, y);
}

/* From t = 0; halfway it goes on in another ring from the rows of a checkpoint. */
static void check_same_bits(enum kwm_tracker_method method) {
  struct kwm_layout spread, self = alone();
  struct ring_case it, again, one;
  const kwm_status status = kwm_layout_init(&spread, 1, 1, world_size());
  assert_all(status == KWM_OK);
  ring_case_begin(&it, &spread, method, 2);
  ring_case_begin(&again, &spread, method, 2);
  ring_case_begin(&one, &self, method, 2);
  struct kwm_ring *ring = &it.ring;
  double mine[NUMBERS], wanted[NUMBERS];
  for (int t = 0; t < STEPS; t++) {
    struct kwm_ring_track a, b;
    if (t == STEPS / 2) {
      const int64_t width = kwm_ring_width(ring);
      double *const rows = dense_new(ring->count * width);
      assert_all(width == kwm_ring_width(&one.ring));
      kwm_ring_pack(ring, width, rows);
      ring = &again.ring;
      kwm_ring_unpack(ring, width, rows);
      kwm_ring_share(ring, false);
      free(rows);
    }
    step(ring, t, &a);
    step(&one.ring, t, &b);
    assert_all(a.track.verdict == (t % 11 == 7 ? KWM_TRACKED_NOTHING : KWM_TRACKED) && a.squares == b.squares);
    assert_all(a.track.nis == b.track.nis && a.track.likelihood == b.track.likelihood);
    assert_all(a.track.observed == b.track.observed);
    gather(ring, mine);
    gather(&one.ring, wanted);
    assert_all(memcmp(mine, wanted, sizeof mine) == 0 && kwm_ring_finite(ring));
  }
  ring_case_end(&it);
  ring_case_end(&again);
  ring_case_end(&one);
  kwm_layout_fini(&spread);
}

static void test_same_bits(void **state) {
  (void)state;
  check_same_bits(KWM_TRACKER_BLOCK);
  check_same_bits(KWM_TRACKER_JOINT);
}

/* Where θ is known to be zero every state is a random walk: scalar Kalman filters, and forecasts that widen by q. */
static void test_exact_where_states_do_not_touch(void **state) {
  (void)state;
  struct kwm_layout spread;
  struct ring_case it, ahead;
  double x[RING_D] = {0}, p[RING_D], y[RING_M], mean[RING_M], variance[RING_M];
  const double q = 0.01, r = 0.05;
  const kwm_status status = kwm_layout_init(&spread, 1, 1, world_size());
  assert_all(status == KWM_OK);
  ring_case_begin(&it, &spread, KWM_TRACKER_JOINT, 2);
  ring_case_begin(&ahead, &spread, KWM_TRACKER_JOINT, 2);
  for (int s = 0; s < it.count; s++) {
    struct kwm_tracker *const tracker = &it.ring.trackers[s];
    memset(tracker->prior, 0, (size_t)tracker->n * sizeof(double));
    tracker->spec.adapt = 0;
  }
  kwm_ring_prior(&it.ring);
  kwm_ring_begin(&it.ring);
  for (int i = 0; i < RING_D; i++) p[i] = 0.5;
  for (int t = 0; t < STEPS; t++) {
    struct kwm_ring_track track;
    step(&it.ring, t, &track);
    ring_case_outputs(t, y);
    for (int i = 0; i < RING_M; i++) {
      p[i] += q;
      if (isnan(y[i])) continue;
      const double gain = p[i] / (p[i] + r);
      x[i] += gain * (y[i] - x[i]), p[i] *= 1 - gain;
    }
    kwm_ring_outputs(&it.ring, false, mean, variance);
    assert_all(dense_error(RING_M, mean, x) < 1e-12 && dense_error(RING_M, variance, p) < 1e-12);
    kwm_ring_copy(&ahead.ring, &it.ring);
    kwm_ring_predict(&ahead.ring, NULL);
    kwm_ring_share(&ahead.ring, true);
    kwm_ring_predict(&ahead.ring, NULL);
    kwm_ring_outputs(&ahead.ring, true, mean, variance);
    for (int i = 0; i < RING_M; i++) variance[i] -= 2 * q + r;
    assert_all(dense_error(RING_M, mean, x) < 1e-12 && dense_error(RING_M, variance, p) < 1e-12);
  }
  ring_case_end(&it);
  ring_case_end(&ahead);
  kwm_layout_fini(&spread);
}

/* θ's mean: neighbours pull a state to theirs. */
static void fill_theta(int n, int features, double prior, double *theta, double *priors) {
  for (int i = 0; i < n; i++) {
    theta[i] = (const double[]){0, 0.2, -0.45, 0.2, 0}[i % features < 4 ? i % features : 4];
    priors[i] = prior;
  }
}

/* Σ over steps of the squared distance of states from those of one filter of all. */
static double distance(int reach, double prior) {
  struct kwm_layout self = alone();
  struct ring_case it;
  struct kwm_tracker all;
  struct kwm_space space;
  double sum = 0;
  ring_case_begin(&it, &self, KWM_TRACKER_JOINT, reach);
  kwm_statespace_space(&it.model, &space);
  struct kwm_tracker_spec spec = it.ring.spec.tracker;
  spec.space = &space;
  assert_ok(kwm_tracker_create(&all, &spec));
  for (int s = 0; s < it.count; s++) {
    struct kwm_tracker *const tracker = &it.ring.trackers[s];
    fill_theta(tracker->n, it.model.features, prior, tracker->z, tracker->prior);
  }
  fill_theta(all.n, it.model.features, prior, all.z, all.prior);
  for (int i = 0; i < all.d; i++) all.q[i] = 0.01, all.spread[i] = 0.5;
  for (int i = 0; i < all.m; i++) all.r[i] = 0.05;
  kwm_tracker_prior(&all), kwm_ring_prior(&it.ring);
  kwm_tracker_begin(&all), kwm_ring_begin(&it.ring);
  for (int t = 0; t < STEPS; t++) {
    double numbers[NUMBERS], y[RING_M];
    struct kwm_ring_track track;
    step(&it.ring, t, &track);
    ring_case_outputs(t, y);
    assert_true(kwm_tracker_predict(&all, NULL));
    assert_true(kwm_tracker_update(&all, y).verdict == track.track.verdict);
    gather(&it.ring, numbers);
    for (int i = 0; i < RING_D; i++) sum += pow(numbers[3 * all.n + i] - all.z[all.n + i], 2);
  }
  kwm_tracker_destroy(&all);
  ring_case_end(&it);
  return sum;
}

/* With parameters known what is left out is covariance between states; else that between parameters too. */
static void test_nearer_the_further_it_reaches(void **state) {
  (void)state;
  const double none = distance(0, 0), one = distance(1, 0), two = distance(2, 0);
  assert_true(two > 0 && two < 0.3 * one && one < 0.3 * none);
  assert_true(distance(2, 0.01) < 0.6 * distance(0, 0.01));
}

/* block keeps D apart: with it, and with roots, the window's covariance is positive semidefinite. */
static void test_windows_stay_positive(void **state) {
  (void)state;
  struct kwm_layout self = alone();
  struct ring_case it;
  ring_case_begin(&it, &self, KWM_TRACKER_BLOCK, 2);
  for (int t = 0; t < 400; t++) {
    struct kwm_ring_track track;
    step(&it.ring, t, &track);
    for (int s = 0; s < it.count; s++) {
      const struct kwm_tracker *const tracker = &it.ring.trackers[s];
      double *const D = dense_copy((int64_t)tracker->d * tracker->d, tracker->D), values[RING_D];
      assert_true(kwm_eigen_f64(tracker->d, D, values));
      assert_true(values[0] > -1e-14);
      free(D);
    }
  }
  ring_case_end(&it);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_same_bits), cmocka_unit_test(test_exact_where_states_do_not_touch),
    cmocka_unit_test(test_nearer_the_further_it_reaches), cmocka_unit_test(test_windows_stay_positive)};
KWM_TEST_MAIN(tests)
