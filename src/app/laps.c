/* How a run is cut into laps: passes over one data set, or tasks of a stream; and what its words must agree on. */
#include <string.h>

#include "run.h"

bool kwm_run_streams(const struct kwm_config *config) {
  return strcmp(config->stream.kind, "none") != 0;
}

static enum kwm_stream_kind kind_of(const char *word) {
  if (strcmp(word, "rotated") == 0) return KWM_STREAM_ROTATED;
  if (strcmp(word, "split") == 0) return KWM_STREAM_SPLIT;
  return strcmp(word, "list") == 0 ? KWM_STREAM_LIST : KWM_STREAM_PERMUTED;
}

struct kwm_stream_spec kwm_run_stream_spec(const struct kwm_config *config, const char *path) {
  const bool blended = strcmp(config->stream.boundaries, "blended") == 0;
  return (struct kwm_stream_spec){.kind = kind_of(config->stream.kind),
                                  .tasks = config->stream.tasks,
                                  .passes = config->train.epochs,
                                  .batch = config->train.batch,
                                  .samples = config->stream.samples,
                                  .validation = config->data.validation,
                                  .seed = (uint64_t)config->stream.seed,
                                  .angle = config->stream.angle,
                                  .blend = blended ? config->stream.blend : 0,
                                  .relabel = config->stream.relabel,
                                  .path = path,
                                  .paths = config->stream.paths};
}

int64_t kwm_run_epoch_steps(const struct kwm_config *config, int64_t n) {
  return (n + config->train.batch - 1) / config->train.batch;
}

struct kwm_lap kwm_run_lap(const struct kwm_run *run, int64_t step) {
  if (run->stream == NULL) {
    const int64_t steps = kwm_run_epoch_steps(&run->config, run->train.n);
    return (struct kwm_lap){step / steps, step / steps * steps, steps};
  }
  const int64_t task = kwm_stream_place(run->stream, step).task, first = kwm_stream_steps(run->stream, task);
  return (struct kwm_lap){task, first, kwm_stream_steps(run->stream, task + 1) - first};
}

int64_t kwm_run_steps(const struct kwm_run *run) {
  const struct kwm_config *const config = &run->config;
  const int64_t all = run->stream == NULL ? config->train.epochs * kwm_run_epoch_steps(config, run->train.n)
                                          : kwm_stream_steps(run->stream, kwm_stream_facts(run->stream).tasks);
  const int64_t most = config->train.max_steps;
  return most > 0 && most < all ? most : all;
}

/* Where there are rows of several innovations, or of drawn labels, no S = R + H P Hᵀ says how they agree. */
static kwm_status check_form(const struct kwm_config *config, const char *key, const char *word) {
  const bool information = strcmp(config->cov.hidden.form, "information") == 0 &&
                           strcmp(config->cov.output.form, "information") == 0 &&
                           strcmp(config->cov.joint, "none") == 0;
  KWM_CHECK(information || strcmp(config->learner, "kalman") != 0, KWM_ERR_USAGE,
            "config: wanted the information form and cov.joint none with %s %s, found another", key, word);
  return KWM_OK;
}

/* The step lengths that are derived need what kron and diag know of a step in the information form. */
static kwm_status check_derived(const struct kwm_config *config) {
  const bool search = config->filter.line_search, dense = strcmp(config->model.kind, "dense") == 0;
  const char *const key = search ? "filter.line_search true" : "filter.trust_expected above 0";
  const struct kwm_config_cov *const covs[KWM_ROLES] = {[KWM_ROLE_RECURRENCE] = &config->cov.recurrence,
                                                        [KWM_ROLE_HIDDEN] = &config->cov.hidden,
                                                        [KWM_ROLE_OUTPUT] = &config->cov.output};
  if ((!search && config->filter.trust_expected == 0) || strcmp(config->learner, "kalman") != 0) return KWM_OK;
  KWM_CHECK(strcmp(config->cov.joint, "none") == 0, KWM_ERR_USAGE, "config: wanted cov.joint none with %s, found %s",
            key, config->cov.joint);
  for (int role = 0; role < KWM_ROLES; role++) {
    const char *const word = kwm_run_role_words(role), *const structure = covs[role]->structure;
    if (role == KWM_ROLE_RECURRENCE && dense) continue;
    KWM_CHECK(strcmp(structure, "kron") == 0 || strcmp(structure, "diag") == 0, KWM_ERR_USAGE,
              "config: wanted cov.%s.structure %s with %s, found %s", word,
              role == KWM_ROLE_RECURRENCE ? "diag" : "kron or diag", key, structure);
    KWM_CHECK(strcmp(covs[role]->form, "information") == 0, KWM_ERR_USAGE,
              "config: wanted cov.%s.form information with %s, found %s", word, key, covs[role]->form);
  }
  KWM_CHECK(
      !search || strcmp(config->sensitivity, "stage") != 0, KWM_ERR_USAGE,
      "config: wanted sensitivity adjoint or forward with %s (read-outs have surprisals of their own), found stage",
      key);
  return KWM_OK;
}

static kwm_status check_change(const struct kwm_config *config) {
  if (strcmp(config->change.reaction, "none") == 0) return KWM_OK;
  KWM_CHECK(config->change.threshold > 0, KWM_ERR_USAGE,
            "config: wanted change.threshold above 0 with change.reaction %s, found 0", config->change.reaction);
  KWM_CHECK(strcmp(config->cov.joint, "none") == 0, KWM_ERR_USAGE,
            "config: wanted cov.joint none with change.reaction %s, found %s", config->change.reaction,
            config->cov.joint);
  return KWM_OK;
}

kwm_status kwm_run_check_words(const struct kwm_config *config) {
  const bool dense = strcmp(config->model.kind, "dense") == 0, stage = strcmp(config->sensitivity, "stage") == 0;
  const bool forward = strcmp(config->sensitivity, "forward") == 0;
  const bool sampled = strcmp(config->filter.evidence, "sampled") == 0;
  KWM_CHECK(dense != forward, KWM_ERR_USAGE, "config: wanted sensitivity %s with model.kind %s, found %s",
            dense ? "adjoint or stage" : "forward", config->model.kind, config->sensitivity);
  KWM_CHECK(dense || !sampled, KWM_ERR_USAGE,
            "config: wanted filter.evidence exact with model.kind gated, found sampled");
  if (stage) KWM_TRY(check_form(config, "sensitivity", "stage"));
  if (sampled) KWM_TRY(check_form(config, "filter.evidence", "sampled"));
  KWM_CHECK(strcmp(config->stream.kind, "topics") != 0, KWM_ERR_USAGE,
            "config: wanted stream.kind topics with model.kind transformer, found %s", config->model.kind);
  KWM_CHECK(!config->data.permute || !kwm_run_streams(config), KWM_ERR_USAGE,
            "config: wanted data.permute false with a stream (stream.kind %s makes its own tasks), found true",
            config->stream.kind);
  KWM_CHECK(config->data.shift == 0 || !(config->data.permute || kwm_run_streams(config)), KWM_ERR_USAGE,
            "config: wanted data.shift 0 with data.permute or a stream, found %lld", (long long)config->data.shift);
  KWM_CHECK(strcmp(config->stream.boundaries, "blended") != 0 || kwm_run_streams(config), KWM_ERR_USAGE,
            "config: wanted a stream (stream.kind) with stream.boundaries blended, found none");
  KWM_TRY(check_derived(config));
  return check_change(config);
}
