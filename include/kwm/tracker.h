/* Filters that track the state of a state-space model and, with it, the model's parameters (equations.md part 4).

   `joint`: z = [θ; x] has one mean and one covariance P = YYᵀ, Y lower triangular and never formed into P: positive
   semidefinite by construction. With n = 0 it is the extended, for a linear model the exact Kalman filter. The order of
   z makes a prediction cheap: only x's rows of Y change. Observations come one output at a time (Carlson), after the
   gain for all of them; h may be iterated to the maximum a posteriori. `unscented`: sigma points in place of Jacobians,
   in array form. `dual`: x and θ apart, θ corrected with the total derivative dŷ/dθ carried through the state filter.
   `block`: joint, with P_θθ block-diagonal and all of P_xθ and P_xx: memory Σ n_b (n_b + d) in place of (n + d)²; ranks
   that share the blocks call predict, update and variances together. `lowrank`: P = blkdiag(P_b, D) + UUᵀ with `rank`
   columns in U, which hold all covariance of θ with x, and of blocks with each other: memory Σ n_b (n_b + rank), shared
   likewise; outputs without parameters of their own. All else local; numerical trouble is a verdict. */
#pragma once

#include "kwm/par.h"
#include "kwm/space.h"

enum kwm_tracker_method {
  KWM_TRACKER_JOINT,
  KWM_TRACKER_UNSCENTED,
  KWM_TRACKER_DUAL,
  KWM_TRACKER_BLOCK,
  KWM_TRACKER_LOWRANK
};

struct kwm_tracker_spec {
  const struct kwm_space *space; /* borrowed */
  enum kwm_tracker_method method;
  int iterations;    /* joint: of the update, 1: the extended filter */
  double walk;       /* variance that every parameter gains a step, in units of its prior's */
  double forgetting; /* θ's covariance is divided by this a step, as long as it is below the prior's; 1: never */
  double adapt;      /* rate at which process and observation noise follow the innovations; 0: fixed */
  double gate;       /* steps with a NIS beyond this many times the outputs are not used; 0: never */
  int judged;        /* joint, block: NIS and likelihood are of the first so many outputs; 0: of all */
  int n_blocks;
  const int *blocks;         /* block, lowrank: sizes (n_blocks), in θ's order; borrowed */
  struct kwm_layout *layout; /* likewise: its owners share the blocks; NULL: this rank has all; borrowed */
  int rank;                  /* lowrank: 1 to d */
};

struct kwm_tracker {
  struct kwm_tracker_spec spec;
  int n, d, m, N; /* θ, x, y; N = n + d */
  double *z,
      *Y;    /* mean [θ; x] (N); Y (N, N): column j at Y + j N, rows j .. N - 1; block, lowrank: this rank's roots */
  double *D; /* block: (d, d); lowrank: Z (src/filter/factors.c) */
  double *q, *r;          /* variances of the noises (d), (m) */
  double *Q;              /* (d, d) lower root of a full process noise in place of q; NULL: q */
  double *prior;          /* (n) variances */
  double *start, *spread; /* (d) a trajectory's first state: mean and variance */
  double *S;              /* dual: dx/dθ (d, n) */
  double steps;           /* observed so far, for the adaptation's first rates */
  double *work, *blocks_work;
  int64_t kept; /* numbers from z on that make the state */
  size_t bytes;
};

enum kwm_tracked { KWM_TRACKED, KWM_TRACKED_NOTHING, KWM_TRACKED_GATED, KWM_TRACKED_NUMERIC };

struct kwm_track {
  enum kwm_tracked verdict;
  int observed;      /* outputs that were there */
  double nis;        /* eᵀS⁻¹e of these */
  double likelihood; /* log density of them */
  double *e, *s;     /* (m) innovation (NaN: missing) and its variance before the update; borrowed from the tracker */
};

/* Everything zero but spec and sizes: the caller fills mean, prior, noises and begins. KWM_ERR_SYSTEM: no memory. */
kwm_status kwm_tracker_create(struct kwm_tracker *tracker, const struct kwm_tracker_spec *spec);
void kwm_tracker_destroy(struct kwm_tracker *tracker);

/* Y's block of θ <- the prior's; a trajectory begins: x and its covariance are the start's, uncorrelated with θ. */
void kwm_tracker_prior(struct kwm_tracker *tracker);
void kwm_tracker_begin(struct kwm_tracker *tracker);

/* One step of time with input u (k, or NULL), and its observation y (m, NaN: missing). False: not finite any more. */
bool kwm_tracker_predict(struct kwm_tracker *tracker, const double *u);
struct kwm_track kwm_tracker_update(struct kwm_tracker *tracker, const double *y);

/* ŷ (m) and the variance of every output, with (noise) or without the observation's own. */
void kwm_tracker_outputs(struct kwm_tracker *tracker, bool noise, double *y, double *variance);

/* θ's deviations grow by √factor, none beyond the prior's; correlations stay. */
void kwm_tracker_inflate(struct kwm_tracker *tracker, double factor);

/* P <- P + vvᵀ; v (N) is overwritten. */
void kwm_tracker_widen(struct kwm_tracker *tracker, double *v);

/* z, P <- those of the product of both Gaussians, as if other's mean had been observed with its covariance, of full
   rank; n = 0. False: not finite, or other's P singular. */
bool kwm_tracker_meet(struct kwm_tracker *tracker, const struct kwm_tracker *other);

/* P (N, N), row-major, in the order [θ; x]; variance of element i of z (block: of a state; its ranks have them apart).
 */
void kwm_tracker_covariance(const struct kwm_tracker *tracker, double *P);
double kwm_tracker_variance(const struct kwm_tracker *tracker, int i);

/* State i takes a mean and a variance that others know better: a smaller variance scales its row and column of P, a
   larger one is added to, so that P stays positive semidefinite. joint; block, where this rank has all blocks. */
void kwm_tracker_adopt(struct kwm_tracker *tracker, int i, double mean, double variance);

/* variances (n) of all parameters; block, lowrank: collective. */
void kwm_tracker_variances(const struct kwm_tracker *tracker, double *variances);

/* block, lowrank: this rank's roots as a piece of all ranks', in one order whoever has them. */
struct kwm_tracker_roots {
  double *values;
  int64_t first, count, all;
};
struct kwm_tracker_roots kwm_tracker_roots(const struct kwm_tracker *tracker);

/* to <- from: mean, root, noises, counts; the same sizes. */
void kwm_tracker_copy(struct kwm_tracker *to, const struct kwm_tracker *from);

/* εᵀP⁻¹ε of the state for the true x (d); NaN if P is singular. */
double kwm_tracker_nees(struct kwm_tracker *tracker, const double *x);

/* The parameters' posteriors given `count` disjoint parts of the data, each from the same prior, as one: Λ = Λ_0 +
   Σ(Λ_i - Λ_0). Writes this tracker's part, in information form, to part (n + 1) n numbers; from the sum of all parts
   and from before, this of the prior, takes the fused posterior; sum is overwritten. False: not positive definite. */
bool kwm_tracker_part(const struct kwm_tracker *tracker, double *part);
bool kwm_tracker_fuse(struct kwm_tracker *tracker, double count, const double *before, double *sum);
