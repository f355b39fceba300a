/* When the eigenbasis of kron is refreshed: early on, while the factors change fast, after a few steps each time, later
   at a fixed interval. With a delay the basis that is taken is that of the factors as they stood `delay` steps before,
   or as they stood at the refresh before this one if that is not so long ago: one basis is awaited at a time. */
#include "kron.h"

static const int64_t early[] = {1, 5, 10, 20, 40};
enum { EARLY = sizeof early / sizeof *early };

/* The last step not after this one at which a refresh is due, 0: none; the first one after it. */
static int64_t last_due(int64_t step, int64_t interval) {
  int64_t due = step / interval * interval;
  for (int k = 0; k < EARLY; k++)
    if (early[k] <= step && early[k] > due) due = early[k];
  return due;
}

static int64_t next_due(int64_t step, int64_t interval) {
  int64_t due = (step / interval + 1) * interval;
  for (int k = 0; k < EARLY; k++)
    if (early[k] > step && early[k] < due) due = early[k];
  return due;
}

bool kron_refresh_due(int64_t step, int64_t interval) {
  return step > 0 && last_due(step, interval) == step;
}

int64_t kron_turn_due(const struct kwm_cov_spec *spec, int64_t since) {
  const int64_t gap = next_due(since, spec->refresh) - since;
  return since + (spec->delay < gap ? spec->delay : gap);
}

int64_t kron_awaited(const struct kwm_cov_spec *spec, int64_t step) {
  const int64_t since = last_due(step, spec->refresh);
  return since > 0 && step < kron_turn_due(spec, since) ? since : 0;
}
