/* The Kalman filter over parameters: predict (which may move the means: linearise after it), innovate, gain, update, in
   that order, each collective over the layout.
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
  double trust_expected;            /* the same in units of its expectation under the model; 0: none */
  bool line_search;                 /* kwm_filter_move and kwm_filter_search stand between gain and update */
  double gate;                      /* mean surprisal in nats beyond which a step is skipped; 0: none */
  int64_t batch, chunks;            /* samples and chunks of a full step over all replicas */
  double forgetting, process_noise; /* of all groups; the process noise is where an adaptive one starts */
  double adapt_process; /* β of q <- (1-β)q + β δᵀP0⁻¹δ/n a step, each group its own; 0: q is fixed */
  double adapt_noise;   /* β of the same for R's scale ρ, from S; 0: ρ = 1 */
  double inflation;     /* kwm_filter_inflate's factor, >= 1; 0: it is never called */
  bool score_test;      /* keep the last score for the successive-score test */
  enum kwm_real real;   /* joint covariance only; a group's own stands in its kwm_cov_spec */
};

/* One parameter group's blocks on this rank. */
struct kwm_filter_part {
  const char *name;                    /* static */
  int64_t total, params, first, count; /* blocks of the group, parameters of each, this rank's blocks */
  int64_t d_o;                         /* output side of a matrix block, else 0 */
  int64_t n_max, m;                    /* samples of a step on this rank, outputs per sample */
  const double *prior_variance;        /* (params) of every block, borrowed; NULL: 1/prior_precision */
  double prior_precision;
  float *mean; /* (count, params) borrowed */
};

/* The part of which this is the covariance; borrows the prior. */
struct kwm_filter_part kwm_filter_part_of(const struct kwm_cov_spec *cov, float *mean);

/* A score and the one before it: s_tᵀ P0 s_{t-1} has mean zero for the right filter (equations.md 3(f)). */
struct kwm_score {
  struct kwm_treesum sum;
  float *before, *scratch, *g; /* (params, count) the last score; its replicas' sum; (samples, d_o) outputs' score */
  const float *now;            /* the step's score, borrowed from sum */
  bool known;                  /* before holds one */
};

/* What the filter keeps of one parameter group. kl to product are (total), all owners', the same everywhere. */
struct kwm_filter_group {
  struct kwm_filter_part part;
  kwm_cov cov;         /* zeroed with a joint covariance */
  float *anchor;       /* (count, params) initial means; NULL without forgetting */
  float *kept;         /* (count, params) means before kwm_filter_move; NULL without line_search */
  int64_t evidence_at; /* information form: where in the filter's sums this group's evidence begins */
  float *evidence;     /* summed; borrowed from the filter's sums */
  struct kwm_score score;
  double *kl;           /* predicted KL of every block */
  double *expected;     /* its expectation under the model, if trust_expected asks for it */
  double *slope;        /* sᵀδ of every block, if line_search does */
  double *moved;        /* δᵀP0⁻¹δ of every block */
  double *product;      /* s_tᵀP0 s_{t-1} of every block */
  double *gain;         /* the sum of moved over all steps that were done */
  double process_noise; /* q of the next step */
};

struct kwm_filter {
  struct kwm_layout *layout; /* borrowed */
  kwm_device *device;        /* borrowed from the covariances: where they, means, anchors and evidence are */
  struct kwm_filter_spec spec;
  int n_groups;
  struct kwm_filter_group group[KWM_FILTER_GROUPS];
  struct kwm_treesum sum; /* information form: evidence of all groups, one behind the other, over chunks */
  struct kwm_sum over;    /* what the sum over replicas needs: rooms or scratch; device: staging, unless devices talk */
  struct kwm_joint *joint;    /* one exact covariance of everything, in place of the groups' */
  bool shared;                /* one S for all groups, or for those in the innovation form */
  int64_t blocks, rows_max;   /* of all groups; rows of S */
  double *facts;              /* (6, blocks): kl, expected, slope, moved, product, gain */
  double *S, *w, *w_there;    /* (rows, rows), (rows): S, later its factor L; S⁻¹e; on the device, too */
  struct kwm_sum_f64 S_there; /* S, L on the device, over the ranks; values NULL: the host's (shared_device.c) */
  float *e;                   /* (rows) device: the innovations, brought to the host */
  double *inverse;            /* (rows, rows) S⁻¹, if R adapts */
  double noise;               /* ρ: R = ρ I */
  int64_t steps;              /* finished steps (skipped ones included) */
  bool inflates;              /* at the next predict */
  bool failed_here;           /* something on this rank lost definiteness or finiteness in this step: */
  int failed_part;            /* this group first; -1: S */
};

/* Takes ownership of the covariances in cov[] (this rank's shares), all on one device, without score_test, or on the
   host; mean[] is borrowed for the filter's lifetime, what it holds now is the anchor of forgetting. Local. */
kwm_status kwm_filter_init(struct kwm_filter *filter, struct kwm_layout *layout, const struct kwm_filter_spec *spec,
                           int n_groups, kwm_cov *cov, float *const *mean);
/* After init: rooms for the replicas' sum, if layout->direct. Collective over world, fini then over peers. */
kwm_status kwm_filter_open_rooms(struct kwm_filter *filter);
void kwm_filter_fini(struct kwm_filter *filter);

/* The same with one exact covariance of all parameters, on all ranks (kwm/full.h). Collective; USAGE with replicas. */
kwm_status kwm_filter_init_joint(struct kwm_filter *filter, struct kwm_layout *layout,
                                 const struct kwm_filter_spec *spec, int n_groups, const struct kwm_filter_part *parts);

/* Bytes that init holds; beside the covariances, or, joint, with them. device: what lies on a device, with them;
   alone: one rank has all blocks. */
size_t kwm_filter_bytes(const struct kwm_filter_spec *spec, int64_t replicas, int n_groups,
                        const struct kwm_cov_ops *const *ops, const struct kwm_cov_spec *covs);
size_t kwm_filter_device_bytes(const struct kwm_filter_spec *spec, int64_t replicas, bool alone, int n_groups,
                               const struct kwm_cov_ops *const *ops, const struct kwm_cov_spec *covs);
size_t kwm_filter_joint_bytes(const struct kwm_filter_spec *spec, int ranks, int rank, int n_groups,
                              const struct kwm_filter_part *parts);

/* Covariance facts of group g (joint: all as group 0), to and from a checkpoint; collective like kwm_cov_*. */
void kwm_filter_health(const struct kwm_filter *filter, int g, struct kwm_health *health);
kwm_status kwm_filter_save(const struct kwm_filter *filter, kwm_ckpt *ckpt, bool writes);
kwm_status kwm_filter_load(struct kwm_filter *filter, kwm_ckpt *ckpt);

/* P (n, n) <- the joint covariance, one rank; values (n), on every rank <- its eigenvalues, collective. */
void kwm_filter_covariance(const struct kwm_filter *filter, double *P);
kwm_status kwm_filter_spectrum(const struct kwm_filter *filter, double *values);

/* C (n, m, m) <- sum of H_i P H_iᵀ over all groups, n: this replica's samples; a jac without samples adds nothing.
   Collective, false on all ranks if it fails on one: joint, lowrank, or no positive definite P. */
bool kwm_filter_predictive(struct kwm_filter *filter, const struct kwm_lin *lin, double *C);

void kwm_filter_predict(struct kwm_filter *filter); /* P <- time update of every block */

/* The world has changed: the next predict forgets spec.inflation times what was learned, Λ <- Λ0 + (Λ - Λ0)/inflation,
   and leaves the means where they are. Not with a joint covariance. Local, the same on all ranks. */
void kwm_filter_inflate(struct kwm_filter *filter);

/* Evidence of all chunks, summed over chunks and replicas; S = R + sum of H P Hᵀ over all owners where it is shared. */
void kwm_filter_innovate(struct kwm_filter *filter, const struct kwm_lin *lin);
/* Gains, each on its owner; agrees on the verdict and on every group's trust region (one small sum over all ranks). */
void kwm_filter_gain(struct kwm_filter *filter, const struct kwm_lin *lin, struct kwm_step *step);

/* A line search (search.c): after a gain that is to be done, the means go to θ + scale K e; local. Then, with the
   surprisal of the step's chunks there (kwm_pipe_surprisal), they go back, and step->search is found; collective. */
void kwm_filter_move(struct kwm_filter *filter, const struct kwm_step *step);
void kwm_filter_search(struct kwm_filter *filter, const struct kwm_lin *lin, const double *there,
                       struct kwm_step *step);

/* θ <- θ + search scale K e, P <- P⁺, unless the verdict is to skip; q and R adapt. */
void kwm_filter_update(struct kwm_filter *filter, const struct kwm_step *step);

/* Sums the step's facts over all ranks, judges them; failed: this rank can't apply it, because of step->failed_part. */
void kwm_filter_judge(struct kwm_layout *layout, const struct kwm_lin *lin, double gate, bool failed,
                      struct kwm_step *step);

/* Standard score of the mean surprisal: 0 expected, +-1 its deviation, if the predictive distribution is calibrated. */
double kwm_innovation_score(const struct kwm_innovation *innovation);
