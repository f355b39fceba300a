/* Numerical trouble is a verdict: counted by the kinds of runs, said and acted on here. */
#include "failure.h"

#include <stdio.h>
#include <string.h>

#include "kwm/log.h"

static bool is(const char *policy, const char *word) {
  return strcmp(policy, word) == 0;
}

bool kwm_failure_inflates(const struct kwm_config *config) {
  return is(config->failure.indefinite, "inflate") || is(config->failure.diverging, "inflate");
}

kwm_status kwm_failure_check(const struct kwm_config *config) {
  const bool inflates = kwm_failure_inflates(config), transformer = is(config->model.kind, "transformer");
  KWM_CHECK(!inflates || is(config->cov.joint, "none"), KWM_ERR_USAGE,
            "config: wanted cov.joint none with failure.indefinite or failure.diverging inflate, found %s",
            config->cov.joint);
  KWM_CHECK(!inflates || !transformer || is(config->filter.riccati, "recursive"), KWM_ERR_USAGE,
            "config: wanted filter.riccati recursive with failure.indefinite or failure.diverging inflate (at their "
            "fixed point variances forget at once), found %s",
            config->filter.riccati);
  KWM_CHECK(!inflates || !is(config->model.kind, "koopman"), KWM_ERR_USAGE,
            "config: wanted another model.kind with failure.indefinite or failure.diverging inflate (a regression has "
            "no gain), found koopman");
  return KWM_OK;
}

static const char *policy_of(const struct kwm_config *config, enum kwm_verdict verdict) {
  switch (verdict) {
  case KWM_STEP_NOT_FINITE: return config->failure.not_finite;
  case KWM_STEP_INDEFINITE: return config->failure.indefinite;
  case KWM_STEP_GATED:
  case KWM_STEP_DONE: break;
  }
  return "skip";
}

static void inflate(const struct kwm_loop *loop) {
  if (loop->kind->inflate != NULL) loop->kind->inflate(loop->self);
}

kwm_status kwm_failure_step(const struct kwm_loop *loop, const struct kwm_loop_place *place,
                            const struct kwm_loop_step *step) {
  static const char *const why[] = {"", "not finite", "not positive definite", "surprisal beyond the gate"};
  const struct kwm_config *const config = &loop->run->config;
  const char *const policy = policy_of(config, step->verdict);
  const long long most = config->filter.max_skips;
  char where[128] = "";
  if (step->verdict == KWM_STEP_DONE) return KWM_OK;
  if (step->verdict != KWM_STEP_GATED) snprintf(where, sizeof where, " (rank %d, %s)", step->rank, step->place);
  KWM_CHECK(!is(policy, "stop"), KWM_ERR_NUMERIC, "step %lld: wanted a step that can be applied, found %s%s: %s",
            (long long)place->step, why[step->verdict], where, step->numbers);
  kwm_log(KWM_LOG_WARNING, "step %lld skipped: %s%s: %s%s", (long long)place->step, why[step->verdict], where,
          step->numbers, is(policy, "inflate") ? ": P inflated" : "");
  KWM_CHECK(place->skips_in_a_row < (double)most, KWM_ERR_NUMERIC,
            "step %lld: wanted a step that can be applied, found %lld skipped in a row", (long long)place->step, most);
  if (is(policy, "inflate")) inflate(loop);
  return KWM_OK;
}

kwm_status kwm_failure_row(const struct kwm_loop *loop, const struct kwm_loop_place *place) {
  const struct kwm_config *const config = &loop->run->config;
  const double limit = config->failure.nis;
  const char *const policy = config->failure.diverging;
  if (!(limit > 0 && place->nis > limit)) return KWM_OK;
  KWM_CHECK(!is(policy, "stop"), KWM_ERR_NUMERIC,
            "step %lld: wanted a filter whose mean nis stays within failure.nis %g, found %.3g over %.0f steps",
            (long long)place->step, limit, place->nis, place->row_steps);
  kwm_log(KWM_LOG_WARNING, "step %lld: diverging: mean nis %.3g over %.0f steps, failure.nis %g%s",
          (long long)place->step, place->nis, place->row_steps, limit, is(policy, "inflate") ? ": P inflated" : "");
  if (is(policy, "inflate")) inflate(loop);
  return KWM_OK;
}
