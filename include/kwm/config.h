/* A run's configuration: YAML, checked against one schema table, overridden by key=value. Local: every rank loads the
   same text (rank 0 reads the file, the text is broadcast by the caller).
   size: a member for every key, group by group. */
#pragma once

#include "kwm/base.h"

/* One parameter group's keys: cov.<group>.* */
struct kwm_config_cov {
  char *structure; /* block | kron | diag | lowrank, as the group's shape allows */
  char *form;      /* information | innovation */
  char *real;      /* double | float: what the state is kept in */
  double prior;    /* recurrence: factor on the built-in prior variances; hidden, output: prior precision 1/p0 */
  int64_t refresh; /* kron: steps between refreshes of the eigenbasis */
  int64_t delay;   /* kron: steps from a refresh's factors until their basis is taken */
  int64_t exact;   /* kron of a transformer: every so many refreshes an exact one, 0: only the first */
  int64_t rank;    /* lowrank: columns kept */
  char *kind;      /* lowrank: precision | covariance | subspace | diagonal */
};

struct kwm_config {
  uint64_t seed;
  char *output;      /* run directory; "" until given */
  char *backend;     /* cpu | cuda | shadow: where training runs */
  char *precision;   /* float | tf32: of the matrix products on a device */
  bool graphs;       /* calls that come again go to a GPU as one */
  char *learner;     /* kalman | sgd | adam | kfac | ewc | si */
  char *sensitivity; /* forward (gated) | stage | adjoint (dense) */
  bool reproducible;
  struct {
    char *path;                 /* folder with the four IDX files (plain or .gz), or with texts */
    char *train, *valid, *test; /* texts: their files; "": found by name in the folder */
    bool permute;               /* the pixels in one fixed random order (permuted task) */
    int64_t validation;         /* samples held out from the end of the training file, 0 for none */
    int64_t shift;              /* training images are moved by up to so many pixels each way */
  } data;
  struct {
    char *kind; /* permuted | rotated | split | list; none: no stream */
    int64_t tasks;
    int64_t seed;     /* of the tasks: permutations */
    int64_t samples;  /* training samples of each task, 0: all */
    double angle;     /* rotated: degrees from the first task to the last */
    bool relabel;     /* split: labels count within the task */
    char *paths;      /* list: folders, one a task */
    char *boundaries; /* unknown | known (the learner is told) | blended */
    double blend;     /* blended: share of a task over which it gives way to the next */
  } stream;
  struct {
    double threshold; /* alarm level of the innovation statistic's cumulative sum, 0: off */
    double slack;     /* deviations that are let pass */
    char *reaction;   /* none | inflate */
    double inflation; /* inflate: P <- inflation P, at most P0 */
  } change;
  struct {
    char *kind;                            /* gated | dense | transformer | statespace | koopman */
    int64_t layers, heads, context, ratio; /* transformer: tokens a sequence; feed-forward units per column of width */
    int64_t readouts;                      /* transformer, sensitivity stage: stages with a reading of their own */
    double dropout, dropout_embedding,
        dropout_readout;         /* shares dropped: of hidden units; transformer: of embedded tokens, of what is read */
    char *widths;                /* dense: units of the hidden layers, "256 256" */
    int64_t width;               /* gated: recurrent complex units */
    int64_t hidden;              /* gated: read-out hidden units */
    double decay_min, decay_max; /* initial |a| of the units is spread over [min, max] at gate 1/2 */
    double phase_max;            /* initial phases are spread over (0, max], radians */
    char *observation;           /* categorical | gaussian */
    double noise_variance;       /* gaussian: R of every output */
  } model;
  struct {
    int64_t epochs, max_steps; /* max_steps 0: no limit */
    int64_t batch;             /* samples per filter step */
    char *schedule;            /* baselines, transformer: cosine | constant */
    int64_t copy_every; /* transformer: steps between copies of the embedding for all but the last stage's reading */
    int64_t warmup;     /* transformer: steps over which rate or process noise rise */
    double floor;       /* transformer: what the cosine leaves of them */
    double average;     /* transformer: rate of the running mean of the means, 0: none */
    int64_t chunks;     /* a batch is summed in this many chunks (a power of two) in a fixed tree */
  } train;
  struct {
    int64_t stages, owners, replicas;
    char *messages;   /* device | host: between stages, owners and replicas on devices of one host */
    double memory_gb; /* what a rank may take; 0: its share of what its host has */
  } layout;
  struct {
    char *evidence;   /* exact | sampled: Fisher information of the outputs, or a draw; innovations (transformer) */
    char *riccati;    /* transformer: steady | recursive */
    double smoothing; /* transformer: what is kept of the running score in a step */
    double evidence_rate, factor_rate; /* transformer: of the running information, of the bases' factors */
    int64_t factor_every;              /* transformer: steps between observations of the factors */
    bool spread_bases;                 /* transformer: refreshed in turn */
    double stage_noise;    /* transformer: the root of q of stages before the last, share of the last one's */
    double pull;           /* transformer: the mean decays by this times the root of q */
    double gain_factor;    /* innovation noise R is counted 1/gain_factor times */
    double trust_region;   /* bound on the predicted KL per sample of one step, per group; 0: none */
    double trust_expected; /* the same in units of its expectation under the model; 0: none */
    bool line_search;      /* step length from one more forward pass of the mini-batch */
    double process_noise;  /* Q = process_noise * P0 per step */
    double adapt_process;  /* rate at which it follows the innovations, 0: fixed */
    double adapt_noise;    /* rate at which R's scale does */
    bool score_test;       /* successive-score test in metrics.tsv */
    double forgetting;     /* stabilised forgetting factor lambda towards the prior */
    double gate;           /* a step whose mean surprisal exceeds this many nats is skipped; 0: none */
    int64_t max_skips;     /* this many skipped steps in a row stop the run with code 4 */
  } filter;
  struct {
    char *joint;      /* none | full: one exact covariance of all parameters in place of the groups' */
    char *joint_real; /* double | float: what it is kept in */
    struct kwm_config_cov recurrence, hidden, output;
  } cov;
  struct {
    double rate, momentum;
  } sgd;
  struct {
    double rate, beta1, beta2, epsilon;
    double decay, clip; /* transformer: weights decay by decay times rate; bound on the mean gradient's norm, 0: none */
  } adam;               /* also the rule within ewc and si */
  struct {
    double rate, damping, decay;
    int64_t refresh; /* steps between inverses */
  } kfac;
  struct {
    double strength, decay; /* weight of the penalty; of the tasks before in it */
  } ewc;
  struct {
    double strength, damping;
  } si;
  struct { /* kwm eval, kwm generate of a transformer: an offset on the last hidden state (kwm/correct.h) */
    char *kind, *form, *split;
    int64_t rank, top, streams, window, every, rows, layer;
    double prior, noise, decay, bound, cut, bias, bias_decay, adapt, readout;
    bool curve;
  } correction;
  struct { /* kwm eval of a transformer: text that is not what it was (kwm/shift.h) */
    char *kind, *schedule;
    int64_t seed;
    double rate, share;
  } shift;
  struct { /* kwm eval of a transformer: what correction is compared with */
    char *kind;
    int64_t window;
    double theta, share, rate, pull, epsilon;
  } baseline;
  struct { /* kwm eval of a transformer: predictions averaged over draws from the posterior */
    int64_t draws;
    double scale;
  } predictive;
  struct {
    int64_t tokens, seed;
    double temperature;
  } generate;
  struct {
    char *kind; /* none, or a system that the program knows (kwm/systems.h) */
    int64_t size, steps, episode, first, observed;
    double dt, process_noise, observation_noise, missing, jump, jump_factor;
  } system;
  struct {
    char *path, *outputs, *inputs, *time, *episode; /* kwm/series.h */
    double train, valid;
  } series;
  struct {
    int64_t states;   /* statespace: 0: as many as outputs */
    char *transition; /* linear | polynomial | mlp */
    int64_t degree, hidden, near;
    int64_t segments, reach; /* 0: the ring of states is not cut (kwm/ring.h) */
    char *readout;           /* identity | linear */
    char *method;            /* joint | unscented | dual */
    char *cov;               /* joint: dense | block | lowrank */
    int64_t rank;            /* lowrank: 0: as many as states */
    int64_t iterations;
    double prior, walk, forgetting;
    char *noise; /* adapt | given | fit */
    double process_noise, observation_noise, adapt, gate;
    char *lift; /* koopman: dictionary | network (kwm/lift.h, kwm/encoder.h) */
    int64_t decoder, ahead;
    char *correction; /* koopman: outputs | lift */
    double linearity;
    int64_t horizon, ar, delays, radials;
    bool stable, refit, online;
    int64_t streams;
  } world;
  struct {
    int64_t every;      /* steps between checkpoints, 0: at the end of each epoch only */
    int64_t keep;       /* good checkpoints kept */
    bool background;    /* written while the run goes on, from a copy */
    int64_t keep_every; /* steps whose multiples' checkpoints stay besides, 0: none */
  } checkpoint;
  struct {
    char *not_finite, *indefinite, *diverging; /* what is done; words in config_keys.c */
    double nis;                                /* of a row of metrics.tsv, beyond it the filter diverges; 0: never */
  } failure;
  struct {
    double seconds; /* without progress of any rank that end the run, 0: none */
  } watchdog;
  struct {
    int64_t every;       /* steps per row of metrics.tsv */
    int64_t evaluations; /* transformer: passes between evaluations */
  } report;
};

/* Fills `config` from YAML text and overrides ("a.b=value", later ones win). `name` is the file's name for messages.
   Raises KWM_ERR_USAGE: "config FILE:LINE: key `x.y`: wanted ..., found ..." (override: "config argument `x.y=v`:
   ..."); an unknown key names the nearest known one. Owns its strings: kwm_config_fini. */
kwm_status kwm_config_load(struct kwm_config *config, const char *name, const char *text, int n_overrides,
                           char *const *overrides);
void kwm_config_fini(struct kwm_config *config);

/* The resolved configuration as YAML that kwm_config_load reads back to the same values; *text is malloc'ed. */
kwm_status kwm_config_text(const struct kwm_config *config, char **text);

/* Prints the schema: key, type, default, range, help; one line each. */
void kwm_config_help(void);
