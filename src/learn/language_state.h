/* Private to learn/language*.c: what a learner of the language model holds. */
#pragma once

#include "kwm/language_learn.h"

struct kwm_language_learner {
  struct kwm_layout *layout;
  const struct kwm_transformer *model;
  kwm_language *language;
  kwm_device *device;
  struct kwm_language_learn_spec spec;
  bool holds[KWM_TENSORS_MAX];
  float *mean[KWM_TENSORS_MAX], *average[KWM_TENSORS_MAX]; /* the device's, owned; NULL: not held */
  float *score[KWM_TENSORS_MAX];
  struct kwm_riccati cov[KWM_TENSORS_MAX];                 /* kalman; spec set for all tensors, arrays where held */
  float *first[KWM_TENSORS_MAX], *second[KWM_TENSORS_MAX]; /* adam: running means of scores and their squares */
  struct kwm_riccati_room room;
  float *sums, *staging; /* replicas: (largest) of the device, (2 largest) of the host */
  float *host;           /* (largest) of the host, with a device: on the way to and from checkpoints */
  double *norms;         /* (n_tensors) kwm_device_share */
  int64_t steps;         /* finished, skipped ones included */
  int64_t seen, observed, skipped;
  bool observes;                 /* this step observes the factors */
  bool touched[KWM_TENSORS_MAX]; /* in this step, so that its running means decayed */
};

static inline int64_t language_size(const struct kwm_transformer *model, int t) {
  return model->tensors[t].rows * model->tensors[t].columns;
}

/* language_factors.c. Each replica adds to A and G what its own sequences show. sum: all have the whole sums; drop:
   only the first one keeps them, the others begin anew. Between steps it is always so that the shares add up; bases
   and checkpoints want them whole. The first is collective over peers. */
void language_sum_replicas(kwm_language_learner *learner, int64_t n, float *values);
void language_sum_factors(kwm_language_learner *learner, int t);
void language_drop_shares(kwm_language_learner *learner, int t);
void language_gather_factors(kwm_language_learner *learner); /* both, of all tensors */

/* language_bases.c: new bases of this rank's tensors, if it is time for any. A tensor without eigenvectors, or -1. */
int language_refresh(kwm_language_learner *learner);

/* language_failure.c. result's failed_rank and failed_tensor <- those of the lowest rank that failed. Collective over
   world, called by all ranks or by none. */
void language_locate(const kwm_language_learner *learner, bool failed, int tensor, struct kwm_language_result *result);
