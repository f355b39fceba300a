/* Numerical trouble is a verdict: counted by progress.c, said and acted on here. */
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
  KWM_CHECK(!kwm_failure_inflates(config) || strcmp(config->cov.joint, "none") == 0, KWM_ERR_USAGE,
            "config: wanted cov.joint none with failure.indefinite or failure.diverging inflate, found %s",
            config->cov.joint);
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

/* text <- rank, group and numbers of a step that was skipped. */
static void describe(const struct kwm_run *run, const struct kwm_step *step, char *text, size_t bytes) {
  static const char *const why[] = {"", "not finite", "not positive definite", "surprisal beyond filter.gate"};
  const int part = step->failed_part;
  const bool placed = step->verdict == KWM_STEP_NOT_FINITE || step->verdict == KWM_STEP_INDEFINITE;
  const bool grouped = part >= 0 && part < run->model.n_groups;
  const char *const beside = step->verdict == KWM_STEP_NOT_FINITE ? "outputs" : "S";
  char place[96] = "", group[64] = "";
  if (placed)
    snprintf(place, sizeof place, " (rank %d, %s)", step->failed_rank, grouped ? run->model.groups[part].name : beside);
  if (grouped) snprintf(group, sizeof group, ", its kl %.3g, scale %.3g", step->kl[part], step->scale[part]);
  snprintf(text, bytes, "%s%s: surprisal %.4g a sample, nis %.3g%s", why[step->verdict], place,
           step->innovation.surprisal / step->innovation.samples, step->nis, group);
}

kwm_status kwm_failure_step(struct kwm_run *run, const struct kwm_progress *progress, const struct kwm_step *step) {
  char text[512];
  if (step->verdict == KWM_STEP_DONE) return KWM_OK;
  const char *const policy = policy_of(&run->config, step->verdict);
  describe(run, step, text, sizeof text);
  KWM_CHECK(!is(policy, "stop"), KWM_ERR_NUMERIC, "step %lld: wanted a step that can be applied, found %s",
            (long long)progress->step, text);
  kwm_log(KWM_LOG_WARNING, "step %lld skipped: %s", (long long)progress->step, text);
  if (is(policy, "inflate")) kwm_learner_inflate(&run->learner);
  return KWM_OK;
}

kwm_status kwm_failure_row(struct kwm_run *run, const struct kwm_progress *progress) {
  const struct kwm_counts *const c = &progress->counts;
  const double limit = run->config.failure.nis, nis = c->row_nis / (c->row_steps - c->row_skipped);
  if (!(limit > 0 && nis > limit)) return KWM_OK;
  const char *const policy = run->config.failure.diverging;
  KWM_CHECK(!is(policy, "stop"), KWM_ERR_NUMERIC,
            "step %lld: wanted a filter whose mean nis stays within failure.nis %g, found %.3g over %.0f steps",
            (long long)progress->step, limit, nis, c->row_steps);
  kwm_log(KWM_LOG_WARNING, "step %lld: diverging: mean nis %.3g over %.0f steps, failure.nis %g%s",
          (long long)progress->step, nis, c->row_steps, limit, is(policy, "inflate") ? ": P inflated" : "");
  if (is(policy, "inflate")) kwm_learner_inflate(&run->learner);
  return KWM_OK;
}
