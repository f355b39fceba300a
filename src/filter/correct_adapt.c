/* The observer's noises follow its innovations (kwm/correct.h says how). */
#include <math.h>

#include "correct_state.h"

static const double FARTHEST = 3;            /* standard deviations of the correlation that one run believes */
static const double LEAST = 1e-9;            /* of the prior: the least process noise */
static const double NARROW = 0.25, WIDE = 4; /* bounds of R's scale */

kwm_status correct_adapt_open(kwm_correct *correct) {
  const struct kwm_correct_spec *const spec = &correct->spec;
  const size_t n = (size_t)(spec->streams * correct->r);
  if (spec->adapt == 0) return KWM_OK;
  correct->noise = fmax(correct->noise, LEAST * spec->prior);
  if (!correct_in_blocks(spec) && !kwm_correct_on_device(spec))
    return kwm_alloc((void **)&correct->trend, n * sizeof *correct->trend, "correction of activations");
  void *trend, *pull;
  KWM_TRY(kwm_device_alloc(spec->device, &trend, n * sizeof(float), "correction of activations"));
  correct->dev.trend = trend;
  KWM_TRY(
      kwm_device_alloc(spec->device, &pull, (size_t)(2 * spec->streams) * sizeof(float), "correction of activations"));
  correct->dev.pull = pull;
  kwm_device_zero(spec->device, trend, n * sizeof(float));
  kwm_device_zero(spec->device, pull, (size_t)(2 * spec->streams) * sizeof(float));
  return KWM_OK;
}

/* pull <- what the device summed, which begins anew. */
static void fetch(kwm_correct *correct) {
  const struct kwm_correct_spec *const spec = &correct->spec;
  for (int64_t s = 0; s < spec->streams; s++) {
    float some[2];
    kwm_device_get(spec->device, some, correct->dev.pull + 2 * s, sizeof some);
    correct->pull[0] += (double)some[0];
    correct->pull[1] += (double)some[1];
  }
  kwm_device_zero(spec->device, correct->dev.pull, (size_t)(2 * spec->streams) * sizeof(float));
}

void correct_adapt(kwm_correct *correct, double squared, double expected) {
  const double rate = correct->spec.adapt, prior = correct->spec.prior;
  if (correct->dev.pull != NULL) fetch(correct);
  correct_share_noises(correct, &squared, &expected);
  const double x = correct->pull[1] > 0 ? correct->pull[0] / sqrt(correct->pull[1]) : 0;
  const double q = correct->noise * exp(rate * fmax(-FARTHEST, fmin(FARTHEST, x)));
  const double scale = (1 - rate) / correct->weight + rate * squared / expected;
  if (isfinite(q)) correct->noise = fmax(LEAST * prior, fmin(prior, q));
  if (isfinite(scale)) correct->weight = 1 / fmax(NARROW, fmin(WIDE, scale));
  correct->pull[0] = correct->pull[1] = 0;
}
