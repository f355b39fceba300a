/* CUSUM of the standardised statistic: S <- max(0, S + min(z - slack, threshold/2)), alarm if S >= threshold, where
   z = (x - mean)/deviation by the numbers before this step. */
#include "kwm/change.h"

#include <math.h>

/* Less than this part of the mean is no change, however steady the statistic was. */
static const double least_deviation = 0.01;

double kwm_change_statistic(double surprisal, double samples) {
  return samples > 0 ? sqrt(fmax(surprisal, 0) / samples) : NAN;
}

/* Exponential averages whose first steps are plain ones; there is one difference fewer than there are values. */
static void learn(struct kwm_change *change, double memory, double x) {
  const double difference = x - change->previous;
  if (change->count > 0)
    change->variance += fmax(1 / change->count, 1 / memory) * (difference * difference / 2 - change->variance);
  change->count++;
  change->mean += fmax(1 / change->count, 1 / memory) * (x - change->mean);
  change->previous = x;
}

/* What this step adds to the CUSUM, before the bound on one step. */
static double evidence(const struct kwm_change *change, double slack, double x) {
  const double deviation = fmax(sqrt(change->variance), least_deviation * fabs(change->mean));
  const double away = x - change->mean;
  return away == 0 ? -slack : away / deviation - slack;
}

static void restart(struct kwm_change *change, double x) {
  *change = (struct kwm_change){.steps = change->steps,
                                .alarms = change->alarms + 1,
                                .alarm_step = change->steps,
                                .count = 1,
                                .mean = x,
                                .previous = x};
}

bool kwm_change_add(struct kwm_change *change, const struct kwm_change_spec *spec, double statistic) {
  KWM_ASSERT(spec->threshold >= 0 && spec->slack >= 0 && spec->memory >= 1);
  if (spec->threshold == 0) return false;
  change->steps++;
  if (!isfinite(statistic)) return false;
  if (change->count < KWM_CHANGE_WARMUP) {
    learn(change, spec->memory, statistic);
    return false;
  }
  const double most = spec->threshold / 2, more = evidence(change, spec->slack, statistic);
  change->sum = fmax(0, change->sum + fmin(more, most));
  if (change->sum >= spec->threshold) {
    restart(change, statistic);
    return true;
  }
  if (more <= most) learn(change, spec->memory, statistic);
  return false;
}
