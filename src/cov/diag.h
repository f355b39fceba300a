/* What the files of diag share: the state of a group's blocks, a variance per parameter.

     diag.c          the structure and its steps
     diag_outputs.c  the outputs' covariance
     diag_device.c   the information form, on a device */
#pragma once

#include "reals.h"

struct diag_state {
  struct reals D;             /* (count, params) precision */
  struct reals next;          /* (count, params) D after the step in hand */
  double *delta;              /* (count, params) prepared step */
  double *prior;              /* (period) prior variances */
  float *scratch;             /* information, matrix: (n_max, d_o + d_i) */
  struct reals Y;             /* innovation: (n·m, count·params) rows times P^½ */
  double *tile;               /* innovation: (n·m, tile width) scratch */
  double floor_hits, floored; /* so far, and of the step in hand */
  const float *evidence;      /* information: of the step in hand, borrowed until apply */
  double batch;               /* its samples */
};

static inline int64_t diag_numbers(const struct kwm_cov_spec *spec) {
  return spec->count * spec->params;
}

/* diag_outputs.c: see kwm_cov_predictive; all of D is positive. */
bool diag_outputs(const kwm_cov *cov, const struct kwm_jac *jac, double *C);

/* diag_device.c */
extern const struct kwm_cov_ops kwm_cov_diag_device;
bool diag_on_device(const struct kwm_cov_spec *spec);
