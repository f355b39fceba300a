/* Private to app/world*.c: a world model with the series it learns from. Everything is in units of the series'
   normalisation (mean 0, deviation 1 of every output and input in the training part). */
#pragma once

#include "kwm/ckpt.h"
#include "kwm/lift.h"
#include "kwm/regression.h"
#include "kwm/report.h"
#include "kwm/ring.h"
#include "kwm/statespace.h"
#include "kwm/systems.h"
#include "kwm/tracker.h"
#include "run.h"
#include "world_run.h"

/* Doubles only: what a checkpoint keeps. Those of a row begin anew with each. */
struct world_counts {
  double seconds, comm_seconds, observed, skipped, nis, nis_dof, squares, outputs, likelihood;
  double row_seconds, row_steps, row_nis, row_dof, row_squares, row_outputs, row_likelihood;
};

/* world.segments: the ring of states cut, one tracker a segment in place of world.tracker. */
struct world_split {
  int count; /* this rank's segments */
  struct kwm_segment *cuts;
  struct kwm_statespace_window *windows;
  struct kwm_space *spaces;
  struct kwm_ring ring;
  double *theta; /* (n) all segments', once world_split_theta has gathered them */
};

struct world {
  struct kwm_run *run;
  const struct kwm_config *config;
  bool koopman, network, known; /* koopman with a learned lift; a system of the program's own */
  struct kwm_series series;
  int64_t *begin; /* (n) where the trajectory of a step began */
  struct kwm_system system;
  struct kwm_statespace model;
  int *blocks; /* statespace: sizes of θ's blocks */
  bool is_split;
  struct world_split split;
  struct kwm_lift lift;
  struct kwm_encoder encoder; /* network: what learner filters the parameters of, by losses */
  struct kwm_space space, losses;
  struct kwm_tracker tracker;       /* joint; koopman: of z, made when K is known */
  struct kwm_tracker learner;       /* network: of its parameters */
  struct kwm_tracker meeting;       /* koopman: scratch of world_observe */
  struct kwm_regression *streams;   /* koopman: (world.streams), this rank's filled */
  struct kwm_regression regression; /* koopman: all streams' */
  bool solved;                      /* koopman: lift.A is K */
  double noise[4];                  /* fit: log scales of q and r, their deviations; NAN: not fitted */
  int64_t step, steps;              /* of the whole run */
  struct world_counts counts;
  double skips_in_a_row;           /* steps whose numbers were bad; a resumed run counts anew */
  double *scratch;                 /* koopman: windows, lifts */
  double *residual, *lifted_noise; /* koopman: (size, size) covariance of φ(x') - K φ(x) - B u; the tracker's Q */
  double *sample;                  /* network: targets, two windows */
};

/* Series, model and filter from the configuration. Collective. */
kwm_status world_open(struct world *world, struct kwm_run *run);
void world_close(struct world *world);

/* Mean and variance (d) of a first state: of `values` (n, d) over where trajectories begin in the training part if
   these are 20 or more, else over all of it. */
void world_first_state(const struct world *world, const double *values, int d, double *mean, double *variance);

/* koopman, world_lift.c: the lift with what learns it; K, its noise and a tracker of z. */
kwm_status world_lift_open(struct world *world);
kwm_status world_solve(struct world *world);

/* koopman: the tracker's process noise <- factor times the residuals' covariance. */
void world_lift_noise(struct world *world, struct kwm_tracker *tracker, double factor);

/* koopman: z' = K z + B u learns from step t; false: nothing to learn from. */
bool world_regress(struct world *world, struct kwm_regression *regression, int64_t t);

/* koopman: at the first step of a trajectory whose window is whole, and wherever `first` holds, z and its covariance
   come from the window and its noise; false: there is none, or not yet. */
bool world_lift_begin(const struct world *world, struct kwm_tracker *tracker, int64_t t, bool first);

/* The tracker, predicted, takes the outputs of step t: by themselves, or (world.correction lift, where the window is
   whole) as N(φ, its covariance) of world_lift_begin; what it returns is about the outputs either way. meeting: scratch
   of the same sizes. */
struct kwm_track world_observe(const struct world *world, struct kwm_tracker *tracker, struct kwm_tracker *meeting,
                               int64_t t);

/* The tracker over step t of the series. */
struct kwm_track world_track(struct world *world, struct kwm_tracker *tracker, int64_t t);

/* q (d), r (m) <- as configured; of a known system whose states the outputs are, its own if they are to be given. */
void world_noises(const struct world *world, int d, double *q, double *r);
void world_set_noises(const struct world *world, struct kwm_tracker *tracker);

/* world_split.c: the trackers of this rank's segments, on the model at hand. step t of the series; collective. theta:
   split.theta <- all segments' parameters; collective. */
kwm_status world_split_open(struct world *world, const struct kwm_tracker_spec *tracker);
void world_split_close(struct world *world);
struct kwm_ring_track world_split_learn(struct world *world, struct kwm_ring *ring, int64_t t);
kwm_status world_split_theta(struct world *world);

/* All parameters and noises as a table shows them, whoever has them. values belong to the view; collective. */
struct world_view {
  int n, d, m; /* parameters of what learns; states and outputs of the filter of states */
  const double *theta, *prior, *variances, *q, *r;
  double *memory;
};
kwm_status world_look(struct world *world, struct world_view *view);

/* world_fit.c: log scales of q and r by the filter's own likelihood over at most 2000 training steps (statespace: the
   first ones, from the prior on; koopman: the last ones), with deviations from its curvature: world->noise. */
kwm_status world_fit(struct world *world);
/* They take effect: on q and r as configured, or on koopman's residual covariance as it was solved. */
void world_apply_noise(struct world *world, struct kwm_tracker *tracker, const double *noise);

/* The same of a known system, as means over the outputs: what a fit should find. */
void world_true_noise(const struct world *world, double *logs);

/* What a tracked step adds to the counts and their row; squares of its m innovations. */
void world_count(struct world_counts *counts, const struct kwm_track *track, double squares);
double world_squares(const struct kwm_track *track, int m);

/* world_encoder.c: koopman with world.lift network. learn: the losses of the steps t - ahead .. t, every few steps.
   solve: lift.A <- [K B] as learned or (world.refit) by least squares on the learned lift, Q (size, size) <- the lifts'
   mean square distance from K z + B u over the training part. */
bool world_is_network(const struct kwm_config *config);
kwm_status world_encoder_open(struct world *world);
struct kwm_track world_encoder_learn(struct world *world, struct kwm_tracker *tracker, int64_t t);
kwm_status world_encoder_solve(struct world *world, double *Q);

/* lift.A <- [K B] by least squares over the training part. KWM_ERR_NUMERIC: its data do not determine them. */
kwm_status world_regress_lift(const struct world *world, struct kwm_lift *lift);

/* The filter that learns and one step of it; koopman's dictionaries have none (world_regress). */
struct kwm_tracker *world_learner(struct world *world);
struct kwm_track world_learn(struct world *world, struct kwm_tracker *tracker, int64_t t);

/* Parameters of the model. */
int world_parameters(const struct world *world);

/* world_store.c */
kwm_status world_put(struct world *world, kwm_ckpt *ckpt);
bool world_finite(const struct world *world);
kwm_status world_load(struct world *world, kwm_ckpt *ckpt);

/* world_rounds.c: trajectories side by side, world.streams at a time, and their posteriors made one. *done: steps of
   the series that this round took. Collective. */
kwm_status world_round(struct world *world, int64_t *done);
/* koopman: regression <- all streams'. Collective. */
kwm_status world_merge(struct world *world);

/* The known system in the series' units. context is world_known's, which holds the system. */
struct world_known {
  const struct world *world;
  struct kwm_space inner;
  double *physical; /* (k) inputs */
};
void world_known_space(struct world_known *known, const struct world *world, double *scratch, struct kwm_space *space);

/* The learned model with its parameters held. */
struct world_frozen {
  struct kwm_space inner;
  const double *theta;
};
void world_frozen_space(struct world_frozen *frozen, const struct kwm_space *inner, const double *theta,
                        struct kwm_space *space);

/* One way of predicting: a filter, a lift from the raw window, or the last value. */
enum world_kind { WORLD_TRACKER, WORLD_RING, WORLD_LIFT, WORLD_LAST };
struct world_method {
  const char *name;
  enum world_kind kind;
  struct kwm_tracker tracker, scratch;
  struct kwm_ring ring, ahead; /* of all ranks */
  struct kwm_lift lift;
  bool states; /* the tracker's states are the true ones, or (normalised) those of the series */
  bool lifts;  /* begins from the window */
  bool lends;  /* lift is the world's */
};

/* Scores of a method over the test part. */
struct world_score {
  double filtered, filtered_n; /* squared error of the filtered outputs against the truth */
  double nis, nis_dof, nees, nees_dof, numeric;
  double *errors, *inside50, *inside90, *count; /* (horizon) */
};

/* world_methods.c: the learned model, then, on rank 0, what it is compared with. */
enum { WORLD_METHODS_MAX = 8 };
struct world_methods {
  int n;
  struct world_method method[WORLD_METHODS_MAX];
  struct world_known known;
  struct world_frozen frozen, *windows; /* windows, held: (split.ring.count) */
  struct kwm_space *held;
  struct kwm_space spaces[WORLD_METHODS_MAX];
  double *memory;
};
kwm_status world_methods_open(struct world_methods *methods, struct world *world);
void world_methods_close(struct world_methods *methods);

/* world_score.c: filter and forecasts over the steps [first, end). trajectory: table of the first steps, NULL: none. */
kwm_status world_score(const struct world *world, struct world_method *method, int64_t first, int64_t end,
                       struct world_score *score, kwm_metrics *trajectory);

/* world_eval.c: all methods over the test part: forecast.tsv, trajectory.tsv, spectrum.tsv in dir ("": none); printed
   if `prints`. result <- the learned model's numbers. Rank 0 alone, or, with a split model, all, of which the others
   filter and write nothing. */
struct world_result {
  double filtered, nis, nees, rmse_1, rmse_10, coverage50, coverage90;
};
kwm_status world_evaluate(struct world *world, const char *dir, bool prints, struct world_result *result);
