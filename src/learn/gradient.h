/* What the gradient baselines share: summed scores, moment arrays, a cosine schedule. */
#pragma once

#include "kwm/learn.h"

enum { GRADIENT_MOMENTS = 2 };

struct gradient_state {
  struct kwm_treesum sum[KWM_GROUPS];
  float *scratch[KWM_GROUPS];                  /* replicas' sum; also the matrix layers' output scores */
  float *score[KWM_GROUPS];                    /* this step's sum over all samples; borrowed from sum */
  float *moment[GRADIENT_MOMENTS][KWM_GROUPS]; /* (count, params) each */
};

size_t gradient_bytes(const struct kwm_learn_spec *spec, const struct kwm_params *params, int64_t replicas);
kwm_status gradient_create(kwm_learner *learner);
void gradient_destroy(kwm_learner *learner);

/* Sums the scores of the step over chunks and replicas and agrees on the verdict. */
void gradient_sum(kwm_learner *learner, const struct kwm_lin *lin, struct kwm_step *step);

/* Parameters of group g in the order of their means: gradient of the mean log-likelihood at k. */
float gradient_at(const kwm_learner *learner, int g, int64_t k, int64_t batch);
int64_t gradient_length(const struct kwm_params *params, int g);

/* Share of the initial rate at the current step: half a cosine from 1 to 0. */
double gradient_schedule(const kwm_learner *learner);

kwm_status gradient_save(const kwm_learner *learner, kwm_ckpt *ckpt, bool writes);
kwm_status gradient_load(kwm_learner *learner, kwm_ckpt *ckpt);
