/* Learners: one training step each, from the same linearised step. kalman is the filter; sgd, adam, kfac, ewc and si
   are baselines on the same gradients, the score divided by the number of samples. All calls are collective over the
   layout unless said. */
#pragma once

#include "kwm/ckpt.h"
#include "kwm/filter.h"
#include "kwm/model.h"
#include "kwm/pipe.h"

/* The means of the blocks that this rank owns: on the host, or, after a move, on a device. */
struct kwm_params {
  const struct kwm_model *model; /* borrowed */
  struct kwm_share share[KWM_GROUPS_MAX];
  kwm_device *device;          /* borrowed: where mean is; NULL: host */
  float *mean[KWM_GROUPS_MAX]; /* (count, params), owned */
  float *home[KWM_GROUPS_MAX]; /* the same on the host, as of the last kwm_params_home; NULLs if mean is there */
};

/* Initial means keyed by seed. Local. */
kwm_status kwm_params_create(struct kwm_params *params, const struct kwm_model *model, const struct kwm_stages *stages,
                             int group_rank, uint64_t seed);
void kwm_params_destroy(struct kwm_params *params);

/* Moves the means to the device. home: group g's means on the host, brought there if need be, to read or to change;
   send: what is there now are the means. Local. */
kwm_status kwm_params_move(struct kwm_params *params, kwm_device *device);
float *kwm_params_home(const struct kwm_params *params, int g);
void kwm_params_send(struct kwm_params *params, int g);

size_t kwm_params_bytes(const struct kwm_model *model, const struct kwm_stages *stages, int group_rank);

/* PREFIX/GROUP in the checkpoint: (total, params), a matrix block as (d_o, d_i). */
kwm_status kwm_group_save(const struct kwm_model *model, int group, struct kwm_share share, const char *prefix,
                          const float *data, kwm_ckpt *ckpt, bool writes);
kwm_status kwm_group_load(const struct kwm_model *model, int group, struct kwm_share share, const char *prefix,
                          float *data, kwm_ckpt *ckpt);

/* What to learn with. */
struct kwm_cov_choice {
  const char *structure; /* a name of kwm/cov.h's table */
  enum kwm_form form;
  enum kwm_real real;
  double prior; /* recurrence: factor on the prior variances; matrices: prior precision */
  int64_t refresh, delay;
  int64_t rank;
  enum kwm_lowrank_kind kind;
};
struct kwm_learn_spec {
  struct kwm_filter_spec filter;
  kwm_device *device; /* borrowed: the pipe's, NULL the host's; a learner that cannot work there works on the host */
  int64_t rows;       /* of the Jacobian for each sample (kwm_pipe_rows) */
  uint64_t seed;
  struct kwm_cov_choice cov[KWM_ROLES];
  bool joint;                   /* one exact covariance of all parameters instead (priors as in cov) */
  int group_rank, group_ranks;  /* this rank's place in its replica, for the joint covariance's share */
  double rate, momentum;        /* of the baselines; sgd */
  double beta1, beta2, epsilon; /* adam, ewc, si */
  double damping, decay;        /* kfac: of the factors; ewc: decay of the penalty; si: damping of the importance */
  double strength;              /* ewc, si: weight of the penalty */
  int64_t refresh;              /* kfac: steps between inverses */
  int64_t total_steps;          /* the baselines' cosine schedule ends here; 0: the rate is constant */
};

struct kwm_learner_ops;
typedef struct kwm_learner {
  const struct kwm_learner_ops *ops;
  struct kwm_layout *layout; /* borrowed */
  struct kwm_params *params; /* borrowed */
  struct kwm_learn_spec spec;
  kwm_device *device;           /* where means and state are: spec.device or NULL */
  struct kwm_lin_mirror mirror; /* spec.device, but not here: the step's rows on the host */
  float *sent[KWM_GROUPS_MAX];  /* likewise: the means on the device, for the pipe; owned */
  float *sent_frame;            /* likewise: U and V of the framed group; NULL: nothing is framed */
  int64_t steps;                /* finished steps, skipped ones included */
  void *state;
} kwm_learner;

struct kwm_learner_ops {
  const char *name;
  bool (*on_device)(const struct kwm_learn_spec *spec, const struct kwm_model *model); /* NULL: on the host only */
  size_t (*bytes)(const struct kwm_learn_spec *spec, const struct kwm_params *params, int64_t replicas);
  size_t (*device_bytes)(const struct kwm_learn_spec *spec, const struct kwm_params *params,
                         int64_t replicas);         /* goes with on_device: beside the means */
  size_t (*saved)(const struct kwm_params *params); /* of this rank in a checkpoint; NULL: what cov.* say */
  kwm_status (*create)(kwm_learner *learner);
  void (*predict)(kwm_learner *learner);  /* NULL: nothing to do */
  void (*boundary)(kwm_learner *learner); /* NULL: nothing to do */
  void (*step)(kwm_learner *learner, const struct kwm_lin *lin, struct kwm_step *step);
  void (*search)(kwm_learner *learner, const struct kwm_lin *lin, kwm_pipe *pipe, const struct kwm_batch *batch,
                 struct kwm_step *step); /* NULL: as step */
  const float *(*plain)(const kwm_learner *learner,
                        int g); /* NULL: no mean is framed; else, on the host, as a matrix */
  void (*health)(const kwm_learner *learner, struct kwm_health health[KWM_GROUPS_MAX]);
  kwm_status (*save)(const kwm_learner *learner, kwm_ckpt *ckpt, bool writes);
  kwm_status (*load)(kwm_learner *learner, kwm_ckpt *ckpt);
  void (*destroy)(kwm_learner *learner);
};
extern const struct kwm_learner_ops kwm_learn_kalman, kwm_learn_sgd, kwm_learn_adam, kwm_learn_kfac, kwm_learn_ewc,
    kwm_learn_si;

/* The learner of that name, NULL if there is none. */
const struct kwm_learner_ops *kwm_learner_find(const char *name);

kwm_status kwm_learner_create(kwm_learner *learner, const struct kwm_learner_ops *ops, struct kwm_layout *layout,
                              struct kwm_params *params, const struct kwm_learn_spec *spec);
void kwm_learner_destroy(kwm_learner *learner); /* accepts a zeroed learner */

/* Bytes that kwm_learner_create holds; params needs model and share only. Local. */
size_t kwm_learner_bytes(const struct kwm_learner_ops *ops, const struct kwm_learn_spec *spec,
                         const struct kwm_params *params, int64_t replicas);

/* The same on the device of a run with one: the learner's state and means, or the means that are sent to the pipe. */
size_t kwm_learner_device_bytes(const struct kwm_learner_ops *ops, const struct kwm_learn_spec *spec,
                                const struct kwm_params *params, int64_t replicas);

/* Before the mini-batch is linearised: the time update, which may move the means. */
void kwm_learner_predict(kwm_learner *learner);

/* Learns from one linearised mini-batch: means and covariance change on their owners, unless the verdict is to skip.
   search: the same, with the line search of a filter whose spec asks for one; pipe and batch are those that made lin,
   whose rows may be gone afterwards. */
void kwm_learner_step(kwm_learner *learner, const struct kwm_lin *lin, struct kwm_step *step);
void kwm_learner_search(kwm_learner *learner, const struct kwm_lin *lin, kwm_pipe *pipe, const struct kwm_batch *batch,
                        struct kwm_step *step);

/* The task that was learned is over and another one begins: only for learners that are told (stream.boundaries). */
void kwm_learner_boundary(kwm_learner *learner);

/* The means of this rank's parts as they are kept, where the pipe is; means of a learner on the host are sent to the
   pipe's device by every call. Frames valid until the next predict. Local. */
struct kwm_means kwm_learner_means(const kwm_learner *learner);

/* An alarm of the change detection: kwm_filter_inflate; nothing for learners without a covariance. */
void kwm_learner_inflate(kwm_learner *learner);

/* The filter of a Kalman learner, borrowed. Local. */
struct kwm_filter *kwm_learner_filter(const kwm_learner *learner);

/* Covariance facts of this rank's blocks by group (zero for learners without one). Local. */
void kwm_learner_health(const kwm_learner *learner, struct kwm_health health[KWM_GROUPS_MAX]);

/* Means and learner state, to and from a checkpoint of any layout. */
kwm_status kwm_learner_save(const kwm_learner *learner, kwm_ckpt *ckpt);
kwm_status kwm_learner_load(kwm_learner *learner, kwm_ckpt *ckpt);
