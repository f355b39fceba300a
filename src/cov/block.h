/* What the files of block share: the state of one dense matrix per block, many small ones (units) or one large one (a
   matrix).

     block.c              create, read and write, what does not depend on a step
     block_predict.c      the time update in every form
     block_information.c  Λ <- Λ + HᵀH
     block_innovation.c   P <- P - Z S⁻¹ Zᵀ: double, and the factors of units
     block_root.c         the same on the float factor of a matrix
     block_device.c       units in the information form, in double, on a device
     block_matrix_device.c    a matrix in the innovation form, in double, on a device
     block_matrix_looks.c     who looks at its P, checkpoints

   A symmetric matrix is its upper triangle; what stands below the diagonal counts for nothing, except in the precisions
   of units, which have both. */
#pragma once

#include "prior.h"
#include "reals.h"

struct block_state {
  struct reals M;   /* (count, p, p) double: Λ or P; float: its factor, lower triangle and zeros above */
  double *W;        /* (count, p, p) scratch: the next Λ or P, or a factor of it */
  double *square;   /* (p, p) scratch; NULL where nothing needs it */
  double *panel;    /* float: (BLOCK_PANEL, p) scratch */
  double *prior;    /* (period) prior variances */
  double *delta;    /* (count, p) prepared step */
  double *vector;   /* (p) scratch */
  float *narrow;    /* matrix: rows of H as float: a piece of them (information), or all, later times Y (innovation) */
  float *g;         /* information, matrix: (n_max, d_o) scratch */
  double *H, *Z;    /* innovation: (n·m, count·p) rows, and HP, later L⁻¹HP; float: HY, later L⁻¹HY */
  double *root_f64; /* innovation, matrix, float: scratch, see block_root.c */
  float *root_f32;
  const float *evidence;     /* information: borrowed until apply */
  int64_t rows;              /* innovation: n·m of the step in hand */
  int64_t unchecked;         /* innovation, double: rows since P was last seen to be positive definite */
  bool factored;             /* information, float: W holds the posterior's factors */
  double floor_hits, lifted; /* lifts so far, and of the step in hand */
};

enum { BLOCK_PANEL = 64, BLOCK_PIECE = 256, BLOCK_LANES = 8 };

static inline bool block_innovation(const struct kwm_cov_spec *spec) {
  return spec->form == KWM_FORM_INNOVATION;
}

static inline bool block_is_matrix(const struct kwm_cov_spec *spec) {
  return spec->d_o > 0;
}

static inline bool block_is_float(const struct kwm_cov_spec *spec) {
  return spec->real == KWM_REAL_FLOAT;
}

/* P = Y Yᵀ in float for one large block. */
static inline bool block_is_root(const struct kwm_cov_spec *spec) {
  return block_innovation(spec) && block_is_matrix(spec) && block_is_float(spec);
}

/* W (p, p) <- block b's Λ or P, dense. */
void block_expand(const kwm_cov *cov, int64_t b, double *W);

/* Float: block b <- the factor whose transpose is in the upper triangle of W (p, p), as kwm_factor_f64 leaves it. */
void block_store_factor(kwm_cov *cov, int64_t b, const double *W);

/* Keeps the diagonal of the factor Y (p, p) away from zero, where float would end; returns how many it lifted. */
int64_t block_lift_factor(const struct kwm_cov_spec *spec, const double *prior, float *Y);

/* W (p, p), symmetric -> its inverse; false if it is not positive definite. */
bool block_invert(const struct kwm_cov_spec *spec, double *W);

/* Operations (see kwm/cov.h). */
bool block_predict(kwm_cov *cov, int64_t step, const float *anchor, float *mean);
int64_t block_evidence_length(const struct kwm_cov_spec *spec);
void block_evidence(kwm_cov *cov, const struct kwm_jac *jac, float *evidence);
bool block_absorb(kwm_cov *cov, const struct kwm_jac *jac, const float *evidence, int64_t batch, double *kl);
void block_take_evidence(kwm_cov *cov);
void block_project(kwm_cov *cov, const struct kwm_jac *jac, double *S);
bool block_condition(kwm_cov *cov, const struct kwm_jac *jac, const double *L, const double *w);
void block_take_posterior(kwm_cov *cov);

/* P <- positive definite, if rows since the last look are as many as parameters: a look costs p³/3. */
void block_check(kwm_cov *cov);

/* block_root.c: P = Y Yᵀ of a matrix in float. */
int64_t block_root_f64(const struct kwm_cov_spec *spec); /* numbers of root_f64, root_f32 */
int64_t block_root_f32(const struct kwm_cov_spec *spec);
void block_root_project(kwm_cov *cov, const struct kwm_jac *jac, double *S);
void block_root_condition(kwm_cov *cov, const double *L);
void block_root_apply(kwm_cov *cov);

/* block_device.c; for a matrix its create turns cov to the second table, block_matrix_device.c. */
extern const struct kwm_cov_ops kwm_cov_block_device, kwm_cov_block_matrix_device;
bool block_on_device(const struct kwm_cov_spec *spec);
