/* Learners of the language model: kalman (kwm/riccati.h) and adam, on the same scores. The ranks of a stage hold its
   tensors' means; they work on sequences of their own. Inside a replica every tensor has one owner, who alone keeps its
   covariance (adam: running means) and corrects it: scores and second moments are summed to the owner, and the new mean
   goes to all owners of the stage. Replicas sum scores and factors and correct alike. Collective over the layout unless
   said. */
#pragma once

#include "kwm/health.h"
#include "kwm/language.h"
#include "kwm/riccati.h"

struct kwm_language_learn_spec {
  bool adam; /* else kalman */
  uint64_t seed;
  int64_t tokens;                 /* of a step over all replicas */
  int64_t total_steps, warmup;    /* the schedule rises over `warmup` steps, then falls as a cosine to */
  double floor;                   /* this share; total_steps 0: it stays */
  double average;                 /* rate of the running mean of the means; 0: none */
  double prior[KWM_TENSOR_ROLES]; /* kalman: precision 1/p0 */
  bool left[KWM_TENSOR_ROLES], right[KWM_TENSOR_ROLES]; /* bases */
  double step[KWM_TENSOR_ROLES];                        /* root of the process noise q a step, before the schedule */
  double stage_noise;                                   /* factor on the step of stages before the last */
  double pull;                                          /* the mean decays by pull * step: dynamics of an AR(1) */
  double rate_f, rate_m, rate_factor;
  int64_t refresh, factor_every,
      anew;    /* steps between refreshes and observations; every anew-th refresh is exact, 0: first only */
  bool spread; /* tensors are refreshed in turn */
  bool steady;
  double trust; /* kalman: bound on the predicted KL per token of a step, of each stage with a reading; 0: none */
  double gate;  /* skip a step of a larger mean surprisal; 0: never */
  double rate, beta1, beta2, epsilon, decay, clip; /* adam; decay: times rate; clip: bound on the mean score's norm */
};

typedef struct kwm_language_learner kwm_language_learner;

/* layout, model and language are borrowed. */
kwm_status kwm_language_learner_create(kwm_language_learner **learner, struct kwm_layout *layout,
                                       const struct kwm_transformer *model, kwm_language *language, kwm_device *device,
                                       const struct kwm_language_learn_spec *spec);
void kwm_language_learner_destroy(kwm_language_learner *learner); /* accepts NULL */

/* Which of a stage's owners keeps each tensor: the costliest first, each to whom has least so far, cost being a
   tensor's share of operations and of memory. Local. */
void kwm_language_owners(const struct kwm_transformer *model, const struct kwm_language_place *place, int owners,
                         const struct kwm_language_learn_spec *spec, int owner[KWM_TENSORS_MAX]);

/* Bytes that create takes on the rank that is at->stage and ->owner of at->stages, ->owners and ->replicas. Local. */
struct kwm_language_bytes kwm_language_learner_bytes(const struct kwm_transformer *model,
                                                     const struct kwm_language_place *place,
                                                     const struct kwm_layout *at, bool on_device,
                                                     const struct kwm_language_learn_spec *spec);

/* What one step did; the same on all ranks, but for kl and scale. */
struct kwm_language_result {
  enum kwm_verdict verdict;
  struct kwm_reading reading; /* summed over the step's tokens */
  double score_norm;          /* norm of the mean score over all tensors */
  double schedule;
  /* With a trust region, of each stage's step: predicted KL per token, and what of the step was taken. On one of the
     ranks that hold the stage, 0 elsewhere, so that stages need not wait for each other. */
  double kl[KWM_TRANSFORMER_STAGES_MAX], scale[KWM_TRANSFORMER_STAGES_MAX];
  int failed_rank, failed_tensor; /* not finite or indefinite: the first rank that found it; there, -1: the outputs */
};
/* One step at the means: pipe, sums over replicas, correction, embedding's copies. */
void kwm_language_learn(kwm_language_learner *learner, const struct kwm_language_batch *batch,
                        struct kwm_language_result *result);

/* P <- factor P, at most the prior's, of the recursive kalman; nothing for adam and at the fixed point. Local. */
void kwm_language_inflate(kwm_language_learner *learner, double factor);

/* The means of this rank's tensors (n_tensors; NULL: not held); averaged: their running mean, if there is one. Local.
   After an evaluation at averaged means the embedding's copies must be shared again. */
float *const *kwm_language_means(const kwm_language_learner *learner, bool averaged);
/* The same (n_tensors) drawn from the posterior: averaged means plus a normal draw of covariance scale P, keyed by seed
   and `draw`, alike on all layouts to rounding. They lie where a step's scores do, and the smoothed scores are lost:
   for evaluation only, after load. Not for adam. Collective over a stage's owners. */
float *const *kwm_language_draw(kwm_language_learner *learner, double scale, uint64_t draw);
/* True if all means of all ranks are finite. */
bool kwm_language_finite(kwm_language_learner *learner);
int64_t kwm_language_steps(const kwm_language_learner *learner);

/* Sums of p and p0 over this rank's own tensors of each role; zeros for adam. Local. */
void kwm_language_health(const kwm_language_learner *learner, double trace[KWM_TENSOR_ROLES],
                         double prior[KWM_TENSOR_ROLES]);

/* /params, /cov (adam: /learner), /learner; load shares the embedding's copies. */
kwm_status kwm_language_learner_save(kwm_language_learner *learner, kwm_ckpt *ckpt);
kwm_status kwm_language_learner_load(kwm_language_learner *learner, kwm_ckpt *ckpt);
/* The means alone (averaged ones if there are): for evaluation. */
kwm_status kwm_language_learner_load_means(kwm_language_learner *learner, kwm_ckpt *ckpt);
