/* What the files of block on a device share for a matrix: its state, P = P0 - YᵀY.

   P0 is a triangle, and Y the rows L⁻¹H P of the last steps: a step reads P0 once and adds rows to Y, and only when
   there is no room for another step's are they subtracted from P0 (deferred downdates: delayed rank-k updates in
   quantum Monte Carlo, the postponed update in SLAM). Process noise is on the diagonal of P0 right away, which is
   exact.

   When rows are subtracted depends on the steps alone. Who looks at P sees P0 - YᵀY formed elsewhere, and a checkpoint
   has P, and P0 and Y besides: so neither looks nor stops change a later bit. */
#pragma once

#include "block.h"
#include "device_home.h"

struct block_matrix {
  struct device_home home;
  double *P, *W;                   /* (p, p), upper triangles: P0 (see mirror), and scratch */
  double *whole;                   /* P0 or, where rows are pending, W: what is fetched and sent */
  double *Y;                       /* (capacity, p): pending rows, then H P of the step in hand, later L⁻¹H P */
  double *scratch;                 /* of struct kwm_device_outer */
  double *S, *w;                   /* (n·m, n·m) own share of S, later L; (n·m) */
  double *delta;                   /* (p) prepared step */
  double *diagonal;                /* (p) scratch */
  double *seen;                    /* shared memory: a share of S, a diagonal, δ */
  int64_t most, capacity, pending; /* rows: of a step at most, and of Y */
  int64_t rows;                    /* n·m of the step in hand */
  int64_t unchecked;               /* rows since P was last seen to be positive definite */
  double prior, moved;             /* variance; δᵀP0⁻¹δ */
  double floor_hits;
};

/* Rows that Y has room for. */
int64_t block_matrix_capacity(const struct kwm_cov_spec *spec);

/* P0 <- P0 - YᵀY, and none is pending. */
void block_matrix_subtract(kwm_cov *cov);

/* P0's other triangle, where steps of many rows need it, too. */
void block_matrix_mirror(const kwm_cov *cov);

/* The host's view of n numbers of the device, until the next. */
const double *block_matrix_look(const kwm_cov *cov, const double *at, int64_t n);

/* P <- positive definite, if rows since the last look are as many as parameters, see block_check. */
void block_matrix_check(kwm_cov *cov);

/* Operations (see kwm/cov.h). */
void block_matrix_health(const kwm_cov *cov, struct kwm_health *health);
bool block_matrix_spectrum(const kwm_cov *cov, double *values);
bool block_matrix_covariance(const kwm_cov *cov, double *P);
bool block_matrix_predictive(kwm_cov *cov, const struct kwm_jac *jac, double *C);
kwm_status block_matrix_save(const kwm_cov *cov, kwm_ckpt *ckpt, bool writes);
kwm_status block_matrix_load(kwm_cov *cov, kwm_ckpt *ckpt);
