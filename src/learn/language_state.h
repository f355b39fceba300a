/* Private to learn/language*.c: what a learner of the language model holds. */
#pragma once

#include "kwm/language_learn.h"

/* Floats that pass between ranks at once. */
enum { LANGUAGE_PIECE = 1 << 22 };

struct kwm_language_learner {
  struct kwm_layout *layout;
  const struct kwm_transformer *model;
  kwm_language *language;
  kwm_device *device;
  struct kwm_language_learn_spec spec;
  bool holds[KWM_TENSORS_MAX];                             /* it is this stage's: its mean is here */
  bool owns[KWM_TENSORS_MAX];                              /* and its covariance */
  int owner[KWM_TENSORS_MAX];                              /* of those of its stage */
  float *mean[KWM_TENSORS_MAX], *average[KWM_TENSORS_MAX]; /* the device's, owned; NULL: not held */
  float *score[KWM_TENSORS_MAX];
  struct kwm_riccati cov[KWM_TENSORS_MAX];                 /* kalman; spec set for all tensors, arrays where owned */
  float *first[KWM_TENSORS_MAX], *second[KWM_TENSORS_MAX]; /* adam: running means of scores and their squares */
  struct kwm_riccati_room room;
  float *sums;    /* (piece) of the device, if several ranks add; piece: the largest tensor's or LANGUAGE_PIECE */
  float *staging; /* (2 piece) of the host for the same, with a device */
  float *host;    /* (largest) of the host, with a device: on the way to and from checkpoints */
  double *norms;  /* (n_tensors) kwm_device_share */
  int64_t steps;  /* finished, skipped ones included */
  int64_t seen, observed, skipped;
  bool observes;                 /* this step observes the factors */
  bool touched[KWM_TENSORS_MAX]; /* in this step, so that its running means decayed */
};

static inline int64_t language_size(const struct kwm_transformer *model, int t) {
  return model->tensors[t].rows * model->tensors[t].columns;
}

/* language_memory.c */
struct kwm_riccati_spec language_riccati_spec(const struct kwm_transformer *model,
                                              const struct kwm_language_learn_spec *spec, kwm_device *device, int t);

/* language_owners.c. replicas: values (n) of an owner, summed over its peers; to_owner: of tensor t, summed over mates.
   scores: summed over all ranks of a stage, with the owner of each tensor. means: the owner's to all of the stage in
   the replica. */
void language_sum_replicas(kwm_language_learner *learner, int64_t n, float *values);
void language_sum_to_owner(kwm_language_learner *learner, int t, int64_t n, float *values);
void language_sum_scores(kwm_language_learner *learner);
void language_spread_means(kwm_language_learner *learner, float *const *means);

/* language_factors.c. observe: what a micro-batch shows of tensor t, s NULL without a basis of outputs; collective over
   mates. Each replica adds to A and G what its own sequences show. sum: all have the whole sums; drop: only the first
   one keeps them, the others begin anew. Between steps it is always so that the shares add up; bases and checkpoints
   want them whole. sum is collective over peers. */
void language_observe(kwm_language_learner *learner, int t, int64_t n, const float *s, const float *a);
void language_sum_factors(kwm_language_learner *learner, int t);
void language_drop_shares(kwm_language_learner *learner, int t);
void language_gather_factors(kwm_language_learner *learner); /* both, of all tensors */

/* language_bases.c: new bases of this rank's tensors, if it is time for any. A tensor without eigenvectors, or -1. */
int language_refresh(kwm_language_learner *learner);

/* language_trust.c: with norms (n_tensors) the δᵀFδ of what this rank owns, the scale of each stage's step, on the
   ranks that hold it. Collective over the replica's group, or over mates with sensitivity stage. */
void language_trust(kwm_language_learner *learner, struct kwm_language_result *result,
                    double scale[KWM_TRANSFORMER_STAGES_MAX]);

/* language_failure.c. result's failed_rank and failed_tensor <- those of the lowest rank that failed. Collective over
   world, called by all ranks or by none. */
void language_locate(const kwm_language_learner *learner, bool failed, int tensor, struct kwm_language_result *result);
