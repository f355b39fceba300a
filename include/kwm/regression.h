/* Recursive least squares for a matrix K in z' = K z + w, in square-root information form: the Kalman filter of K's
   rows, which share one precision Λ = UᵀU, U upper triangular (equations.md Sec. 11, 3(c)). Each row of data is turned
   into [U b] by plane rotations; K = (U⁻¹ b)ᵀ. No prior is inverted, so a vanishing one is exact. Local. */
#pragma once

#include "kwm/base.h"

struct kwm_regression {
  int k, d;        /* regressors, targets */
  double count;    /* data, weighted by forgetting */
  double *U;       /* (k, k + d) [U b], row-major; below U's diagonal nothing is read */
  double *squares; /* (d, d) residuals' second moments: what the rotations leave of the targets */
  double *row;     /* (k + d) */
};

/* precision: of the prior, of every element; its mean is zero. */
kwm_status kwm_regression_create(struct kwm_regression *regression, int k, int d, double precision);
void kwm_regression_destroy(struct kwm_regression *regression);

/* Old data count `forgetting` times, in (0, 1]. */
void kwm_regression_add(struct kwm_regression *regression, const double *z, const double *target, double forgetting);

/* The other's data, too (the other's prior with them). */
void kwm_regression_merge(struct kwm_regression *regression, const struct kwm_regression *other);

/* K (d, k); variances (d, k) of its elements, NULL: not wanted. False: singular. */
bool kwm_regression_solve(const struct kwm_regression *regression, double *K, double *variances);

/* Q (d, d) <- covariance of the residuals. */
void kwm_regression_noise(const struct kwm_regression *regression, double *Q);
