/* The model: parameter groups cut into blocks, their initial means and priors, and the observation model. Local; it
   knows nothing of ranks, filters or covariance structures.

   Gated recurrence over a pixel sequence (kwm/layer.h), final state [Re h, Im h, 1] -> hidden layer with ReLU -> output
   logits, categorical likelihood, or Gaussian around the outputs. */
#pragma once

#include "kwm/base.h"
#include "kwm/lin.h"

enum kwm_group_id { KWM_GROUP_RECURRENCE, KWM_GROUP_HIDDEN, KWM_GROUP_OUTPUT, KWM_GROUPS };

/* A named array of `total` equal blocks of `params` parameters; a matrix block has d_o, d_i > 0 and total 1. */
struct kwm_group {
  const char *name; /* in checkpoints: /params/NAME */
  int64_t total, params, d_o, d_i;
};

struct kwm_model {
  int64_t width, hidden, classes, length; /* units, hidden units, classes, pixels per sequence */
  double decay_min, decay_max, phase_max; /* initial |a| at gate 1/2 and phases of the units */
  double noise_variance; /* > 0: Gaussian observation of one-hot targets, R = this times I; 0: categorical */
  struct kwm_group groups[KWM_GROUPS];
};

/* Fills `groups` from the other fields. */
void kwm_model_lay_out(struct kwm_model *model);

/* mean (count, params) <- initial means of blocks [first, first + count), keyed by (seed, group, element). */
void kwm_model_initial_mean(const struct kwm_model *model, enum kwm_group_id group, uint64_t seed, int64_t first,
                            int64_t count, float *mean);

/* Prior variances of a recurrent unit's parameters (KWM_GATED_PARAMS), `factor` times the built-in scale. */
void kwm_model_prior_variance(double factor, double *variance);

/* Observation of `logits` (n, classes).
   Categorical, whitened with its exact Fisher information diag(p) - ppᵀ = LLᵀ, L = diag(√p) - p√pᵀ:
   e (n, classes) <- (y - p)/√p, so that Le = y - p; J (n, classes, classes) <- Lᵀ, the rows ∂(whitened ŷ)/∂logits;
   Gaussian with R = noise_variance I and one-hot targets y: e <- (y - logits)/√R, J <- I/√R.
   sums <- sums + the innovation's scalar facts. e, J may be NULL (prediction only). */
void kwm_observe(const struct kwm_model *model, int64_t n, const float *logits, const uint8_t *labels, float *e,
                 float *J, struct kwm_innovation *sums);
