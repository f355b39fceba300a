/* Trajectories side by side. Streams, not ranks, make the result: stream s of a round takes the round's s-th
   trajectory, rank s mod replicas works on it, and parts are made one in the streams' order, so that any number of
   ranks gives the same bits. */
#include <math.h>
#include <string.h>

#include "world.h"

/* A stream's share of the round: posterior in information form, noises, counts. */
struct parts {
  int64_t size, streams;
  double *values; /* (streams, size) */
};

static int64_t counts_size(void) {
  return (int64_t)(sizeof(struct world_counts) / sizeof(double));
}

/* [first, end) of the trajectory that begins at or behind `first` in the training part. */
static int64_t end_of(const struct world *world, int64_t first) {
  int64_t end = first + 1;
  while (end < world->series.train && !world->series.starts[end]) end++;
  return end;
}

static kwm_status track_stream(struct world *world, struct kwm_tracker *tracker, int64_t first, int64_t end,
                               double *part) {
  const int64_t n = tracker->n, information = n * (n + 1);
  struct world_counts counts = {0};
  for (int64_t t = first; t < end; t++) {
    const struct kwm_track track = world_learn(world, tracker, t);
    world_count(&counts, &track, world_squares(&track, world->series.m));
  }
  const bool sound = kwm_tracker_part(tracker, part);
  memcpy(part + information, tracker->q, (size_t)tracker->d * sizeof(double));
  memcpy(part + information + tracker->d, tracker->r, (size_t)tracker->m * sizeof(double));
  memcpy(part + information + tracker->d + tracker->m, &counts, sizeof counts);
  KWM_CHECK(sound, KWM_ERR_NUMERIC, "trajectory at step %lld: wanted a covariance of full rank, found another",
            (long long)first);
  return KWM_OK;
}

/* parts' sum in the streams' order -> the tracker, the counts. */
static kwm_status fuse(struct world *world, struct parts *parts, int64_t taken, const double *before) {
  struct kwm_tracker *const tracker = world_learner(world);
  const int64_t n = tracker->n, d = tracker->d, m = tracker->m, information = n * (n + 1);
  double *const sum = parts->values;
  for (int64_t s = 1; s < taken; s++)
    for (int64_t i = 0; i < parts->size; i++) sum[i] += parts->values[s * parts->size + i];
  double *const counts = (double *)&world->counts;
  for (int64_t i = 0; i < counts_size(); i++) counts[i] += sum[information + d + m + i];
  for (int64_t i = 0; i < d; i++) tracker->q[i] = sum[information + i] / (double)taken;
  for (int64_t i = 0; i < m; i++) tracker->r[i] = sum[information + d + i] / (double)taken;
  KWM_CHECK(kwm_tracker_fuse(tracker, (double)taken, before, sum), KWM_ERR_NUMERIC,
            "round at step %lld: wanted a positive definite sum of the trajectories' evidence, found another",
            (long long)world->step);
  kwm_tracker_begin(tracker);
  return KWM_OK;
}

static kwm_status track_round(struct world *world, struct parts *parts, double *before, int64_t *done) {
  struct kwm_layout *const layout = &world->run->layout;
  struct kwm_tracker work, *const learner = world_learner(world);
  int64_t first = world->step % world->series.train, taken = 0;
  kwm_status status = kwm_tracker_create(&work, &learner->spec);
  if (!kwm_tracker_part(learner, before) && status == KWM_OK)
    status = KWM_RAISE(KWM_ERR_NUMERIC, "world: wanted a prior of full rank, found another");
  for (*done = 0; taken < parts->streams && first < world->series.train; taken++) {
    const int64_t end = end_of(world, first);
    if (taken % layout->replicas == layout->replica && status == KWM_OK) {
      kwm_tracker_copy(&work, learner);
      status = track_stream(world, &work, first, end, parts->values + taken * parts->size);
    }
    *done += end - first;
    first = end;
  }
  kwm_tracker_destroy(&work);
  KWM_TRY(kwm_agree(layout->world, status));
  kwm_par_sum_world(layout, parts->streams * parts->size, parts->values);
  learner->steps += (double)*done;
  return fuse(world, parts, taken, before);
}

static kwm_status regress_round(struct world *world, int64_t *done) {
  struct kwm_layout *const layout = &world->run->layout;
  const struct world_counts before = world->counts;
  int64_t first = world->step % world->series.train, taken = 0;
  for (*done = 0; taken < world->config->world.streams && first < world->series.train; taken++) {
    const int64_t end = end_of(world, first);
    for (int64_t t = first; t < end && taken % layout->replicas == layout->replica; t++)
      world_regress(world, &world->streams[taken], t);
    *done += end - first;
    first = end;
  }
  double *const counts = (double *)&world->counts;
  for (int64_t i = 0; i < counts_size(); i++) counts[i] -= ((const double *)&before)[i];
  kwm_par_sum_world(layout, counts_size(), counts);
  for (int64_t i = 0; i < counts_size(); i++) counts[i] += ((const double *)&before)[i];
  return KWM_OK;
}

kwm_status world_round(struct world *world, int64_t *done) {
  if (world->koopman && !world->network) return regress_round(world, done);
  const struct kwm_tracker *const tracker = world_learner(world);
  const int64_t n = tracker->n, information = n * (n + 1);
  struct parts parts = {.size = information + tracker->d + tracker->m + counts_size(),
                        .streams = world->config->world.streams};
  const int64_t numbers = parts.streams * parts.size;
  kwm_status status = kwm_alloc((void **)&parts.values, (size_t)(numbers + information) * sizeof(double), "streams");
  status = kwm_agree(world->run->layout.world, status);
  if (status == KWM_OK) status = track_round(world, &parts, parts.values + numbers, done);
  kwm_free(parts.values);
  return status;
}

kwm_status world_merge(struct world *world) {
  struct kwm_layout *const layout = &world->run->layout;
  if (world->network) return KWM_OK;
  const struct kwm_regression *const into = &world->regression;
  const int64_t numbers = (int64_t)into->k * (into->k + into->d) + (int64_t)into->d * into->d;
  for (int64_t s = 0; s < world->config->world.streams; s++) {
    struct kwm_regression *const stream = &world->streams[s];
    if (layout->size > 1) { /* where it is at home it is as it was: the others' are zero */
      const bool mine = s % layout->replicas == layout->replica;
      if (!mine) memset(stream->U, 0, (size_t)numbers * sizeof(double)), stream->count = 0;
      kwm_par_sum_world(layout, numbers, stream->U);
      kwm_par_sum_world(layout, 1, &stream->count);
    }
    if (s == 0) {
      memcpy(into->U, stream->U, (size_t)numbers * sizeof(double));
      world->regression.count = stream->count;
    } else {
      kwm_regression_merge(&world->regression, stream);
    }
  }
  return KWM_OK;
}
