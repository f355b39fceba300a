/* The model: parameter groups cut into blocks, their initial means and priors, and the observation model. Local; it
   knows nothing of ranks, filters or covariance structures.

   gated: recurrence over a pixel sequence (kwm/layer.h), final state [Re h, Im h, 1] -> hidden layer with ReLU ->
   output logits. dense: all pixels at once, [x, 1] -> hidden layers with ReLU -> output logits; with `readouts`, each
   hidden layer but the last has logits of its own (sensitivity: stage). Categorical likelihood, or Gaussian around the
   outputs.
   */
#pragma once

#include "kwm/base.h"
#include "kwm/lin.h"

/* What the rows of the Jacobian are: the whitened outputs; one sampled score (kwm/lin.h); or, for predictions'
   covariance, the plain outputs, without innovations. Gated: exact only. */
enum kwm_evidence { KWM_EVIDENCE_EXACT, KWM_EVIDENCE_SAMPLED, KWM_EVIDENCE_OUTPUTS };

enum kwm_model_kind { KWM_MODEL_GATED, KWM_MODEL_DENSE };

/* What a group is for: its keys in the configuration, cov.ROLE.* */
enum kwm_role { KWM_ROLE_RECURRENCE, KWM_ROLE_HIDDEN, KWM_ROLE_OUTPUT, KWM_ROLES };

enum { KWM_LAYERS_MAX = 16, KWM_GROUPS_MAX = 2 * KWM_LAYERS_MAX };

/* The groups of the gated model. */
enum { KWM_GROUP_RECURRENCE, KWM_GROUP_HIDDEN, KWM_GROUP_OUTPUT };

/* A named array of `total` equal blocks of `params` parameters; a matrix block has d_o, d_i > 0 and total 1. */
struct kwm_group {
  char name[32]; /* in checkpoints: /params/NAME */
  enum kwm_role role;
  int64_t total, params, d_o, d_i;
};

struct kwm_model {
  enum kwm_model_kind kind;
  int64_t classes, length;                /* classes, pixels per sample */
  int64_t width, hidden;                  /* gated: units, hidden units */
  double decay_min, decay_max, phase_max; /* gated: initial |a| at gate 1/2 and phases of the units */
  int n_layers;                           /* dense: hidden layers */
  int64_t widths[KWM_LAYERS_MAX];         /* dense: units of each */
  bool readouts;                          /* dense: hidden layers have read-outs of their own */
  double noise_variance; /* > 0: Gaussian observation of one-hot targets, R = this times I; 0: categorical */
  int n_groups;
  struct kwm_group groups[KWM_GROUPS_MAX];
};

/* Fills `groups` from the other fields. dense: layer1, [readout1,] layer2, ..., output. */
void kwm_model_lay_out(struct kwm_model *model);

/* dense: the group of hidden layer l (0-based; n_layers: the output), and of its own read-out (the output's for the
   last one). */
int kwm_model_layer(const struct kwm_model *model, int l);
int kwm_model_readout(const struct kwm_model *model, int l);

/* All parameters. */
int64_t kwm_model_parameters(const struct kwm_model *model);

/* mean (count, params) <- initial means of blocks [first, first + count), keyed by (seed, group, element). */
void kwm_model_initial_mean(const struct kwm_model *model, int group, uint64_t seed, int64_t first, int64_t count,
                            float *mean);

/* Prior variances of a recurrent unit's parameters (KWM_GATED_PARAMS), `factor` times the built-in scale. */
void kwm_model_prior_variance(double factor, double *variance);

/* Observation of `logits` (n, classes).
   Categorical, whitened with its exact Fisher information diag(p) - ppᵀ = LLᵀ, L = diag(√p) - p√pᵀ:
   e (n, classes) <- (y - p)/√p, so that Le = y - p; J (n, classes, classes) <- Lᵀ, the rows ∂(whitened ŷ)/∂logits;
   Gaussian with R = noise_variance I and one-hot targets y: e <- (y - logits)/√R, J <- I/√R.
   sums <- sums + the innovation's scalar facts. e, J may be NULL (prediction only). */
void kwm_observe(const struct kwm_model *model, int64_t n, const float *logits, const uint8_t *labels, float *e,
                 float *J, struct kwm_innovation *sums);

/* The same observation by scores with respect to the logits: g (n, classes) <- that of the labels, h (n, classes) <-
   that of labels (Gaussian: targets) drawn from the model, keyed by (seed, step, index), E[hhᵀ] = the Fisher
   information. index: the first sample's place in the step's mini-batch. */
struct kwm_draw {
  uint64_t seed, step, index;
};
void kwm_observe_sampled(const struct kwm_model *model, int64_t n, const float *logits, const uint8_t *labels,
                         const struct kwm_draw *draw, float *g, float *h, struct kwm_innovation *sums);

/* The numbers that a draw takes, made on the host: draws (n, kwm_draws_width), uniform for a class, normal for targets.
 */
int64_t kwm_draws_width(const struct kwm_model *model);
void kwm_draws(const struct kwm_model *model, int64_t n, const struct kwm_draw *draw, double *draws);

/* The same two on a device, where all arrays are; facts (n, KWM_FACTS), in memory of kwm_device_share, <- what is added
   to sums on the host, sample by sample (kwm_innovation_facts). */
void kwm_observe_on(kwm_device *device, const struct kwm_model *model, int64_t n, const float *logits,
                    const uint8_t *labels, float *e, float *J, double *facts);
void kwm_observe_sampled_on(kwm_device *device, const struct kwm_model *model, int64_t n, const float *logits,
                            const uint8_t *labels, const double *draws, float *g, float *h, double *facts);
