/* Covariance of one parameter group's blocks, one structure a file: block (dense per block), kron (diagonal in a
   Kronecker eigenbasis), diag (a variance per parameter), lowrank (one low-rank matrix for all blocks together). Each
   works in one of two forms of the same filter (equations.md I1, I2):

   information  evidence F = HᵀH, score s = Hᵀe of every chunk, summed; δ = (P⁻¹ + F)⁻¹ s; P⁻¹ <- P⁻¹ + F
   innovation   Z = P Hᵀ, S += H Z; then, with S factored and w = S⁻¹e, δ = Z w; P <- P - Z S⁻¹ Zᵀ

   A step is predict; evidence* and absorb, or project and condition; apply. Nothing but predict and apply changes the
   state, so a step can be given up at any time before apply.

   All calls are local: sums over ranks are the caller's. The exception is a structure that keeps blocks of several
   owners together (ops->collective: lowrank) when spec.layout is given: then create, predict, absorb, project,
   condition, apply, health and spectrum are collective over layout->group, ranks that own nothing included. */
#pragma once

#include "kwm/base.h"
#include "kwm/ckpt.h"
#include "kwm/device.h"
#include "kwm/health.h"
#include "kwm/lin.h"
#include "kwm/par.h"

enum kwm_form { KWM_FORM_INFORMATION, KWM_FORM_INNOVATION };

/* What the state is kept in between steps. In float the state is positive definite whatever rounding does: a variance
   or precision per coordinate, or a factor. A step's evidence (information form) is a float sum in both. */
enum kwm_real { KWM_REAL_DOUBLE, KWM_REAL_FLOAT };

/* lowrank: which of the forms of equations.md Sec. 12. */
enum kwm_lowrank_kind {
  KWM_LOWRANK_PRECISION,  /* form B: Λ = λ0 I + B Bᵀ */
  KWM_LOWRANK_COVARIANCE, /* form A: P = σ² I + U Uᵀ */
  KWM_LOWRANK_SUBSPACE,   /* form S: P = U Uᵀ */
  KWM_LOWRANK_DIAGONAL,   /* form B on a diagonal: Λ = diag(d) + B Bᵀ */
};

/* What to build. The prior is diagonal: variances `prior_variance` (params) of each block, or, for a matrix block, the
   same precision `prior_precision` for all elements. */
struct kwm_cov_spec {
  const char *name; /* group name, for checkpoints and messages; static */
  enum kwm_form form;
  enum kwm_real real;
  int64_t first, count; /* this rank's blocks of the group's `total` */
  int64_t total;
  int64_t params;               /* per block; d_o * d_i for a matrix block */
  int64_t d_o, d_i;             /* matrix block (count is 0 or 1), else 0 */
  const double *prior_variance; /* (params) borrowed during create; NULL for a matrix block */
  double prior_precision;
  bool framed;          /* matrix block: the mean is kept in the eigenbasis (kwm_cov_frame); kron, information, float */
  double forgetting;    /* λ: Λ <- λΛ + (1-λ)Λ0 a step (equations.md 3(d)); 1 = none */
  double process_noise; /* q: P <- P + q P0 a step; 0 = none */
  int64_t refresh, delay; /* kron: steps between refreshes of the eigenbasis, and from one until its basis is taken */
  int64_t rank;           /* lowrank: columns kept, >= 1; at most the group's parameters are used */
  enum kwm_lowrank_kind kind;
  uint64_t seed;             /* lowrank, form S: key of the first subspace, another one for each group */
  int64_t n_max, m;          /* samples of a step on this rank, outputs per sample */
  kwm_device *device;        /* borrowed: where the state, the Jacobians, the evidence and the means are; NULL: host */
  struct kwm_layout *layout; /* borrowed; collective: the group's blocks lie over layout->group; NULL: all here */
};

struct kwm_cov_ops;
typedef struct kwm_cov {
  const struct kwm_cov_ops *ops;
  struct kwm_cov_spec spec;
  int64_t step; /* of the last time update, on every rank */
  void *state;  /* the structure's own */
} kwm_cov;
extern const struct kwm_cov_ops kwm_cov_block, kwm_cov_kron, kwm_cov_diag, kwm_cov_lowrank;

/* The structure of that name, NULL if there is none. */
const struct kwm_cov_ops *kwm_cov_find(const char *structure);
/* True if it can be made so on a device: kron in float, diag, block's units in double, information; block's matrix in
   double, innovation, no forgetting. There jac, evidence, anchor, mean, frame are the device's, all else the host's. */
bool kwm_cov_on_device(const struct kwm_cov_ops *ops, const struct kwm_cov_spec *spec);
kwm_status kwm_cov_create(kwm_cov *cov, const struct kwm_cov_ops *ops, const struct kwm_cov_spec *spec);
void kwm_cov_destroy(kwm_cov *cov); /* accepts a zeroed cov */

/* Bytes that kwm_cov_create holds, also on a device; operations of a step (cost.c); false: beyond libraries' ints. */
size_t kwm_cov_bytes(const struct kwm_cov_ops *ops, const struct kwm_cov_spec *spec);
size_t kwm_cov_device_bytes(const struct kwm_cov_ops *ops, const struct kwm_cov_spec *spec);
double kwm_cov_operations(const struct kwm_cov_ops *ops, const struct kwm_cov_spec *spec);
bool kwm_cov_countable(const struct kwm_cov_ops *ops, const struct kwm_cov_spec *spec);

/* Floats of one chunk's evidence. */
int64_t kwm_cov_evidence_length(const kwm_cov *cov);

/* Time update after `step` finished steps: forgetting towards the anchor N(anchor, P0), process noise, refresh of a
   basis (equations.md 3(d)): Λ' = λΛ + (1-λ)Λ0, mean += (1-λ) Λ'⁻¹ Λ0 (anchor - mean), then P' = Λ'⁻¹ + q P0. anchor
   and mean (count, params): NULL if forgetting is 1. A framed mean is always given and turns with its basis; the anchor
   is plain. False: not positive definite; P and mean are then as before. */
bool kwm_cov_predict(kwm_cov *cov, int64_t step, const float *anchor, float *mean);

/* Information form. evidence (evidence_length) += one chunk's evidence and score; zeroed by the caller. Structures
   whose evidence does not add up (lowrank) have length 0 and take the rows in absorb. */
void kwm_cov_evidence(kwm_cov *cov, const struct kwm_jac *jac, float *evidence);

/* Takes the evidence summed over the step's `batch` samples and prepares δ; kl[b] (count) <- predicted change of block
   b in KL per sample, δᵀFδ/batch. jac: all rows of the step on this rank; with evidence of length 0 they are all rows
   there are (no replicas). False: not positive definite or not finite; nothing may be applied. prepare: begins it where
   that runs beside the host, absorb with the same arguments then waits. */
void kwm_cov_prepare(kwm_cov *cov, const struct kwm_jac *jac, const float *evidence, int64_t batch);
bool kwm_cov_absorb(kwm_cov *cov, const struct kwm_jac *jac, const float *evidence, int64_t batch, double *kl);

/* Innovation form. S (n·m, n·m) += H P Hᵀ over this rank's blocks, both triangles; jac holds all rows of the step. A
   collective structure adds to S only what the caller's sum over layout->group then makes whole. */
void kwm_cov_project(kwm_cov *cov, const struct kwm_jac *jac, double *S);

/* Prepares δ = P Hᵀ w and the posterior from S's Cholesky factor L (n·m, n·m), lower triangle read, and w = S⁻¹e (n·m),
   where S = R + sum of all projections and R = I. False: not finite. */
bool kwm_cov_condition(kwm_cov *cov, const struct kwm_jac *jac, const double *L, const double *w);

/* After absorb or condition. delta (count, params) <- the prepared δ. */
void kwm_cov_delta(const kwm_cov *cov, double *delta);

/* After absorb or condition. moved[b] (count) <- δᵀP0⁻¹δ of block b: its share of the gain, and, over its parameters,
   what the step says about q (equations.md 3(f): E[K e eᵀKᵀ] = P⁻ - P⁺). */
void kwm_cov_moved(const kwm_cov *cov, double *moved);

/* After absorb; kron and diag. slope[b] (count) <- sᵀδ of block b. expected[b] <- the mean of kl[b] if the model is
   right, the score's covariance then being F: tr(F P⁺ F P⁺)/batch, with F as the structure takes it. */
void kwm_cov_slope(const kwm_cov *cov, double *slope);
void kwm_cov_expected(const kwm_cov *cov, double *expected);

/* mean (count, params) += scale δ, and P becomes the posterior; move: and P stays (kron, diag). */
void kwm_cov_apply(kwm_cov *cov, double scale, float *mean);
void kwm_cov_move(kwm_cov *cov, double scale, float *mean);
void kwm_cov_health(const kwm_cov *cov, struct kwm_health *health);

/* values (spectrum_length) <- eigenvalues of P0^-½ P P0^-½: ascending in each block, (count, params); lowrank: columns'
   ascending, then that of all else (kind diagonal: Ritz values, mean). False: not positive definite, no convergence. */
int64_t kwm_cov_spectrum_length(const kwm_cov *cov);
bool kwm_cov_spectrum(const kwm_cov *cov, double *values);

/* P (n, n) <- the dense covariance of this rank's n = count·params parameters, for small n: tests and comparisons. A
   group spread over several owners is refused (assertion). False: not positive definite. */
bool kwm_cov_covariance(const kwm_cov *cov, double *P);

/* C (n, m, m) += H_i P H_iᵀ of every sample i: the block's share of the covariance of the outputs whose rows jac holds.
   False: the structure does not offer it, or P is not positive definite. */
bool kwm_cov_predictive(kwm_cov *cov, const struct kwm_jac *jac, double *C);

/* The frame in which the means of a framed block are: U, V valid until the next predict; NULLs if it is not framed.
   plain (count, params) <- V M Uᵀ for a mean M in the frame; its copy if it is not framed. The host's; may be one. */
struct kwm_frame kwm_cov_frame(const kwm_cov *cov);
void kwm_cov_unframe(const kwm_cov *cov, const float *framed, float *plain);

/* Collective over the checkpoint's ranks; every rank calls it for every group, ranks that own nothing with count 0.
   writes: false on replicas other than the first, whose blocks are copies. */
kwm_status kwm_cov_save(const kwm_cov *cov, kwm_ckpt *ckpt, bool writes);
kwm_status kwm_cov_load(kwm_cov *cov, kwm_ckpt *ckpt);
