/* A method over a part of the series: filtered outputs against the truth, innovations, and from every step a forecast
   of mean and variance against what is then observed. */
#include <math.h>
#include <string.h>

#include "world.h"

static const double Z50 = 0.67448975019608171, Z90 = 1.6448536269514722;

struct scorer {
  const struct world *world;
  struct world_method *method;
  struct world_score *score;
  double *y, *variance, *window, *z, *next;
};

static const double *input(const struct kwm_series *series, int64_t t) {
  return series->k > 0 ? series->u + t * series->k : NULL;
}

/* Forecast number h of the outputs at step t: error and whether the intervals hold it. */
static void judge(struct scorer *s, int64_t t, int64_t h, bool interval) {
  const struct kwm_series *const series = &s->world->series;
  struct world_score *const score = s->score;
  for (int i = 0; i < series->m; i++) {
    const double error = series->y[t * series->m + i] - s->y[i];
    if (isnan(series->y[t * series->m + i])) continue;
    score->errors[h] += error * error;
    score->count[h]++;
    const double deviation = interval ? sqrt(s->variance[i]) : NAN;
    score->inside50[h] += interval ? fabs(error) <= Z50 * deviation : NAN;
    score->inside90[h] += interval ? fabs(error) <= Z90 * deviation : NAN;
  }
}

static bool same_trajectory(const struct world *world, int64_t t, int64_t end) {
  return t < end && !world->series.starts[t];
}

static void forecast_tracker(struct scorer *s, int64_t t, int64_t end) {
  struct kwm_tracker *const ahead = &s->method->scratch;
  kwm_tracker_copy(ahead, &s->method->tracker);
  for (int64_t h = 0; h < s->world->config->world.horizon && same_trajectory(s->world, t + h + 1, end); h++) {
    kwm_tracker_predict(ahead, input(&s->world->series, t + h));
    kwm_tracker_outputs(ahead, true, s->y, s->variance);
    judge(s, t + h + 1, h, true);
  }
}

static void forecast_ring(struct scorer *s, int64_t t, int64_t end) {
  struct kwm_ring *const ahead = &s->method->ahead;
  kwm_ring_copy(ahead, &s->method->ring);
  for (int64_t h = 0; h < s->world->config->world.horizon && same_trajectory(s->world, t + h + 1, end); h++) {
    if (h > 0) kwm_ring_share(ahead, true);
    kwm_ring_predict(ahead, input(&s->world->series, t + h));
    kwm_ring_outputs(ahead, true, s->y, s->variance);
    judge(s, t + h + 1, h, true);
  }
}

static void forecast_lift(struct scorer *s, int64_t t, int64_t end) {
  const struct kwm_lift *const lift = &s->method->lift;
  const struct kwm_series *const series = &s->world->series;
  kwm_lift_window(lift, series->y, t, s->world->begin[t], s->window);
  kwm_lift_apply(lift, s->window, s->z);
  for (int64_t h = 0; h < s->world->config->world.horizon && same_trajectory(s->world, t + h + 1, end); h++) {
    kwm_lift_step(lift, s->z, input(series, t + h), s->next);
    memcpy(s->z, s->next, (size_t)lift->size * sizeof *s->z);
    kwm_lift_read(lift, s->z, s->y, NULL);
    judge(s, t + h + 1, h, false);
  }
}

/* The newest value of every output that the trajectory has by step t; its mean where there is none. */
static void last_values(const struct scorer *s, int64_t t) {
  const struct kwm_series *const series = &s->world->series;
  for (int i = 0; i < series->m; i++) {
    s->y[i] = 0;
    for (int64_t back = t; back >= s->world->begin[t]; back--) {
      if (isnan(series->y[back * series->m + i])) continue;
      s->y[i] = series->y[back * series->m + i];
      break;
    }
  }
}

static void forecast_last(struct scorer *s, int64_t t, int64_t end) {
  last_values(s, t);
  for (int64_t h = 0; h < s->world->config->world.horizon && same_trajectory(s->world, t + h + 1, end); h++)
    judge(s, t + h + 1, h, false);
}

/* The tracker over step t; what it says of the present. */
static bool track(struct scorer *s, int64_t t, bool first) {
  const struct kwm_series *const series = &s->world->series;
  struct kwm_tracker *const tracker = &s->method->tracker;
  struct world_score *const score = s->score;
  bool sound = true;
  if (s->method->lifts && world_lift_begin(s->world, tracker, t, first)) return true;
  if (first || series->starts[t])
    kwm_tracker_begin(tracker);
  else
    sound = kwm_tracker_predict(tracker, input(series, t - 1));
  const struct kwm_track track = s->method->lifts ? world_observe(s->world, tracker, &s->method->scratch, t)
                                                  : kwm_tracker_update(tracker, series->y + t * series->m);
  score->numeric += !sound || track.verdict == KWM_TRACKED_NUMERIC;
  if (track.verdict == KWM_TRACKED) score->nis += track.nis, score->nis_dof += track.observed;
  if (s->method->states && series->states != NULL) {
    const double nees = kwm_tracker_nees(tracker, series->states + t * series->d);
    if (isfinite(nees)) score->nees += nees, score->nees_dof += series->d;
  }
  return sound && track.verdict != KWM_TRACKED_NUMERIC;
}

/* The same of a split model. */
static bool track_ring(struct scorer *s, int64_t t, bool first) {
  const struct kwm_series *const series = &s->world->series;
  struct kwm_ring *const ring = &s->method->ring;
  if (first || series->starts[t])
    kwm_ring_begin(ring);
  else
    kwm_ring_predict(ring, input(series, t - 1));
  const struct kwm_track track = kwm_ring_update(ring, series->y + t * series->m).track;
  if (track.verdict == KWM_TRACKED) s->score->nis += track.nis, s->score->nis_dof += track.observed;
  return track.verdict != KWM_TRACKED_NUMERIC;
}

/* s->y: the filtered outputs, or the observed ones. */
static void judge_filtered(struct scorer *s, int64_t t) {
  const struct kwm_series *const series = &s->world->series;
  for (int i = 0; i < series->m && series->truth != NULL; i++) {
    const double error = s->y[i] - series->truth[t * series->m + i];
    s->score->filtered += error * error, s->score->filtered_n++;
  }
}

/* step, then per output observed, truth, filtered, deviation. */
static kwm_status write_step(struct scorer *s, int64_t t, kwm_metrics *table) {
  enum { OUTPUTS_SHOWN = 4 };
  const struct kwm_series *const series = &s->world->series;
  double row[1 + 4 * OUTPUTS_SHOWN] = {(double)t};
  for (int i = 0; i < series->m && i < OUTPUTS_SHOWN; i++) {
    const double scale = series->scale[i], mean = series->mean[i];
    row[4 * i + 1] = mean + scale * series->y[t * series->m + i];
    row[4 * i + 2] = series->truth != NULL ? mean + scale * series->truth[t * series->m + i] : NAN;
    row[4 * i + 3] = mean + scale * s->y[i];
    row[4 * i + 4] = scale * sqrt(s->variance[i]);
  }
  return kwm_metrics_row(table, row);
}

/* Ranks that share a method leave together: a table that can't be written is said in the end. */
static kwm_status score_steps(struct scorer *s, int64_t first, int64_t end, kwm_metrics *trajectory) {
  enum { SHOWN = 400 };
  const bool ring = s->method->kind == WORLD_RING;
  kwm_status written = KWM_OK;
  for (int64_t t = first; t < end; t++) {
    if (ring || s->method->kind == WORLD_TRACKER) {
      KWM_CHECK(ring ? track_ring(s, t, t == first) : track(s, t, t == first), KWM_ERR_NUMERIC,
                "%s: step %lld: wanted a finite state, found another", s->method->name, (long long)t);
      if (ring)
        kwm_ring_outputs(&s->method->ring, false, s->y, s->variance);
      else
        kwm_tracker_outputs(&s->method->tracker, false, s->y, s->variance);
      judge_filtered(s, t);
      if (trajectory != NULL && t < first + SHOWN && written == KWM_OK) written = write_step(s, t, trajectory);
      if (ring)
        forecast_ring(s, t, end);
      else
        forecast_tracker(s, t, end);
    } else {
      last_values(s, t);
      judge_filtered(s, t);
      if (s->method->kind == WORLD_LIFT)
        forecast_lift(s, t, end);
      else
        forecast_last(s, t, end);
    }
  }
  return written;
}

kwm_status world_score(const struct world *world, struct world_method *method, int64_t first, int64_t end,
                       struct world_score *score, kwm_metrics *trajectory) {
  const size_t m = (size_t)world->series.m, size = (size_t)method->lift.size, window = (size_t)method->lift.window;
  struct scorer s = {.world = world, .method = method, .score = score};
  double *memory;
  KWM_TRY(kwm_alloc((void **)&memory, (2 * m + window + 2 * size) * sizeof *memory, "forecasts"));
  s.y = memory, s.variance = s.y + m, s.window = s.variance + m, s.z = s.window + window, s.next = s.z + size;
  const kwm_status status = score_steps(&s, first, end, trajectory);
  kwm_free(memory);
  return status;
}
