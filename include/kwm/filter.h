/* The Kalman filter over parameters: predict, innovate, gain, update, in that order, each collective over the layout.
   It knows covariances and Jacobian blocks, nothing of the model or of the pipe. */
#pragma once

#include "kwm/cov.h"
#include "kwm/lin.h"
#include "kwm/par.h"
#include "kwm/treesum.h"

enum { KWM_FILTER_GROUPS = KWM_LIN_PARTS };

struct kwm_filter_spec {
  double gain_factor;               /* η: the step is η K e; innovation noise counts 1/η times */
  double trust_region;              /* bound on a group's predicted KL per sample and step; 0: none */
  double gate;                      /* mean surprisal in nats beyond which a step is skipped; 0: none */
  int64_t batch, chunks;            /* samples and chunks of a full step over all replicas */
  double forgetting, process_noise; /* joint covariance only; a group's own stand in its kwm_cov_spec */
};

/* One parameter group on this rank: `cov.spec.count` of its blocks, their means and covariance. */
struct kwm_filter_group {
  kwm_cov cov;
  float *mean;               /* (count, params) borrowed */
  struct kwm_treesum sum;    /* information form: evidence over chunks */
  float *evidence, *scratch; /* summed evidence (borrowed from sum), and room for the replicas' sum */
  double *kl;                /* (total) predicted KL of every block of the group, all owners'; in filter->kl */
};

/* One parameter group's place in a joint covariance. */
struct kwm_joint_group {
  int64_t total, params, first, count; /* blocks of the group, parameters of each, this rank's blocks */
  int64_t m;                           /* outputs per sample */
  const double *prior_variance;        /* (params) of every block, borrowed during creation; NULL: 1/prior_precision */
  double prior_precision;
  float *mean; /* (count, params) borrowed */
};
struct kwm_joint;

struct kwm_filter {
  struct kwm_layout *layout; /* borrowed */
  struct kwm_filter_spec spec;
  int n_groups;
  struct kwm_filter_group group[KWM_FILTER_GROUPS];
  struct kwm_joint *joint; /* one exact covariance of everything, in place of the groups' (n_groups is 0 then) */
  bool any_innovation;     /* some group is in the innovation form: one shared S */
  int64_t blocks;          /* of all groups */
  double *kl;              /* (blocks) */
  int64_t rows_max;
  float *S, *w;     /* (rows, rows), (rows): S, later its factor L; S⁻¹e */
  double *factor;   /* (rows, rows) scratch */
  int64_t steps;    /* finished steps (skipped ones included) */
  bool failed_here; /* something lost definiteness or finiteness on this rank in this step */
};

/* What one step did. The same on all ranks. */
struct kwm_step {
  enum kwm_verdict verdict;
  struct kwm_innovation innovation; /* summed over the step's samples */
  double nis;                       /* squared innovation over its expectation, summed over samples; 1 expected */
  double kl[KWM_FILTER_GROUPS];     /* predicted KL per sample before the trust region */
  double scale[KWM_FILTER_GROUPS];  /* what was applied of each group's step */
};

/* Takes ownership of the covariances in cov[] (this rank's shares); mean[] is borrowed for the filter's lifetime.
 * Local. */
kwm_status kwm_filter_init(struct kwm_filter *filter, struct kwm_layout *layout, const struct kwm_filter_spec *spec,
                           int n_groups, kwm_cov *cov, float *const *mean);
void kwm_filter_fini(struct kwm_filter *filter);

/* The same with one exact covariance of all parameters, distributed over all ranks (kwm/full.h). Collective.
   KWM_ERR_USAGE with replicas: one S couples all samples. */
kwm_status kwm_filter_init_joint(struct kwm_filter *filter, struct kwm_layout *layout,
                                 const struct kwm_filter_spec *spec, int n_groups,
                                 const struct kwm_joint_group *groups);
size_t kwm_filter_joint_bytes(const struct kwm_filter_spec *spec, int ranks, int rank, int n_groups,
                              const struct kwm_joint_group *groups);

/* Covariance facts of group g (joint: all of them as group 0), and to and from a checkpoint; collective like kwm_cov_*.
 */
void kwm_filter_health(const struct kwm_filter *filter, int g, struct kwm_health *health);
kwm_status kwm_filter_save(const struct kwm_filter *filter, kwm_ckpt *ckpt, bool writes);
kwm_status kwm_filter_load(struct kwm_filter *filter, kwm_ckpt *ckpt);

/* Bytes that kwm_filter_init holds beside the covariances. */
size_t kwm_filter_bytes(const struct kwm_filter_spec *spec, int64_t replicas, int n_groups,
                        const struct kwm_cov_ops *const *ops, const struct kwm_cov_spec *covs);

/* P <- time update of every block. */
void kwm_filter_predict(struct kwm_filter *filter);

/* Evidence of all chunks, summed over chunks and replicas; S = R + sum of H P Hᵀ over all owners where it is shared. */
void kwm_filter_innovate(struct kwm_filter *filter, const struct kwm_lin *lin);

/* Gains, each on its owner; agrees on the verdict and on every group's trust region (one small sum over all ranks). */
void kwm_filter_gain(struct kwm_filter *filter, const struct kwm_lin *lin, struct kwm_step *step);

/* θ <- θ + scale K e, P <- P⁺, unless the verdict is to skip. */
void kwm_filter_update(struct kwm_filter *filter, const struct kwm_step *step);

/* Sums the step's scalar facts over all ranks and judges them; failed: this rank cannot apply the step. */
void kwm_filter_judge(struct kwm_layout *layout, const struct kwm_lin *lin, double gate, bool failed,
                      struct kwm_step *step);

/* Standard score of the mean surprisal: 0 expected, +-1 its deviation, if the predictive distribution is calibrated. */
double kwm_innovation_score(const struct kwm_innovation *innovation);
