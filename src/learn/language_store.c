/* A learner of the language model to and from checkpoints: keyed by tensor, so that any layout reads what another one
   wrote. On replicas beyond the first nothing is written, their state being a copy. */
#include <stdio.h>

#include "language_state.h"

/* Owners write what they own, of the means too. */
static bool writes(const kwm_language_learner *learner, int t) {
  return learner->owns[t] && learner->layout->replica == 0;
}

/* PREFIX/TENSOR <- the device's array. */
static kwm_status put(kwm_language_learner *learner, kwm_ckpt *ckpt, const char *prefix, int t, const float *at) {
  const struct kwm_tensor *const tensor = &learner->model->tensors[t];
  const int64_t dims[2] = {tensor->rows, tensor->columns};
  const bool mine = writes(learner, t);
  char name[64];
  snprintf(name, sizeof name, "%s/%s", prefix, tensor->name);
  if (mine && learner->device != NULL) {
    kwm_device_get(learner->device, learner->host, at, (size_t)(dims[0] * dims[1]) * sizeof *at);
    at = learner->host;
  }
  return kwm_ckpt_put(ckpt, name, KWM_F32, 2, dims, 0, mine ? dims[0] : 0, at);
}

static kwm_status get(kwm_language_learner *learner, kwm_ckpt *ckpt, const char *prefix, int t, bool mine, float *at) {
  const struct kwm_tensor *const tensor = &learner->model->tensors[t];
  const int64_t dims[2] = {tensor->rows, tensor->columns};
  float *const way = learner->device == NULL ? at : learner->host;
  char name[64];
  snprintf(name, sizeof name, "%s/%s", prefix, tensor->name);
  KWM_TRY(kwm_ckpt_get(ckpt, name, KWM_F32, 2, dims, 0, mine ? dims[0] : 0, way));
  if (mine && learner->device != NULL)
    kwm_device_put(learner->device, at, way, (size_t)(dims[0] * dims[1]) * sizeof *at);
  return KWM_OK;
}

kwm_status kwm_language_learner_save(kwm_language_learner *learner, kwm_ckpt *ckpt) {
  language_gather_factors(learner);
  kwm_language_share(learner->language, learner->mean); /* as a resumed run begins */
  for (int t = 0; t < learner->model->n_tensors; t++) {
    KWM_TRY(put(learner, ckpt, "/params", t, learner->mean[t]));
    if (learner->spec.average > 0) KWM_TRY(put(learner, ckpt, "/average", t, learner->average[t]));
    if (learner->spec.adam) {
      KWM_TRY(put(learner, ckpt, "/learner/first", t, learner->first[t]));
      KWM_TRY(put(learner, ckpt, "/learner/second", t, learner->second[t]));
    } else {
      KWM_TRY(kwm_riccati_save(&learner->cov[t], ckpt, writes(learner, t), learner->host));
    }
  }
  KWM_TRY(kwm_ckpt_put_i64(ckpt, "/learner", "steps", learner->steps));
  KWM_TRY(kwm_ckpt_put_i64(ckpt, "/learner", "seen", learner->seen));
  KWM_TRY(kwm_ckpt_put_i64(ckpt, "/learner", "observed", learner->observed));
  return kwm_ckpt_put_i64(ckpt, "/learner", "skipped", learner->skipped);
}

static kwm_status load_counts(kwm_language_learner *learner, kwm_ckpt *ckpt) {
  KWM_TRY(kwm_ckpt_get_i64(ckpt, "/learner", "steps", &learner->steps));
  KWM_TRY(kwm_ckpt_get_i64(ckpt, "/learner", "seen", &learner->seen));
  KWM_TRY(kwm_ckpt_get_i64(ckpt, "/learner", "observed", &learner->observed));
  KWM_TRY(kwm_ckpt_get_i64(ckpt, "/learner", "skipped", &learner->skipped));
  for (int t = 0; t < learner->model->n_tensors; t++) {
    learner->cov[t].seen = learner->seen;
    learner->cov[t].observed = learner->observed;
    learner->cov[t].refreshes = learner->seen; /* that is, since the first step, some */
  }
  return KWM_OK;
}

kwm_status kwm_language_learner_load(kwm_language_learner *learner, kwm_ckpt *ckpt) {
  for (int t = 0; t < learner->model->n_tensors; t++) {
    KWM_TRY(get(learner, ckpt, "/params", t, learner->holds[t], learner->mean[t]));
    if (learner->spec.average > 0) KWM_TRY(get(learner, ckpt, "/average", t, learner->holds[t], learner->average[t]));
    if (learner->spec.adam) {
      KWM_TRY(get(learner, ckpt, "/learner/first", t, learner->owns[t], learner->first[t]));
      KWM_TRY(get(learner, ckpt, "/learner/second", t, learner->owns[t], learner->second[t]));
    } else {
      KWM_TRY(kwm_riccati_load(&learner->cov[t], ckpt, learner->owns[t], learner->host));
    }
  }
  KWM_TRY(load_counts(learner, ckpt));
  for (int t = 0; t < learner->model->n_tensors; t++) language_drop_shares(learner, t);
  kwm_language_share(learner->language, learner->mean);
  return KWM_OK;
}

kwm_status kwm_language_learner_load_means(kwm_language_learner *learner, kwm_ckpt *ckpt) {
  const char *const prefix = learner->spec.average > 0 ? "/average" : "/params";
  for (int t = 0; t < learner->model->n_tensors; t++)
    KWM_TRY(get(learner, ckpt, prefix, t, learner->holds[t], learner->mean[t]));
  kwm_language_share(learner->language, learner->mean);
  return KWM_OK;
}
