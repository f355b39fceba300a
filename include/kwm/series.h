/* Time series: outputs y (NaN: not observed), inputs u, on a regular grid of time, in one or more trajectories. Local:
   every rank holds all of it. */
#pragma once

#include "kwm/base.h"

enum { KWM_SERIES_COLUMNS = 512, KWM_SERIES_NAME = 48 };

struct kwm_series {
  int64_t n;                      /* steps */
  int m, k, d;                    /* outputs, inputs; states, 0 if the truth is not known */
  double dt;                      /* time of a step; 1 if none is given */
  double *y;                      /* (n, m), NaN: missing */
  double *u;                      /* (n, k) */
  double *truth;                  /* (n, m) outputs without noise; NULL: not known */
  double *states;                 /* (n, d); NULL: not known */
  uint8_t *starts;                /* (n) 1: a trajectory begins */
  int64_t train, valid;           /* steps of the parts, in this order; the rest is the test part */
  double *mean, *scale;           /* (m + k): what outputs and inputs are normalised with, from the training part */
  char (*names)[KWM_SERIES_NAME]; /* (m + k) */
  double *memory;
  struct kwm_file_facts file;
};

struct kwm_series_spec {
  const char *path;             /* .h5, .hdf5: HDF5; else CSV with a header */
  const char *outputs, *inputs; /* names of columns or datasets, by commas; no outputs: all columns left, dataset `y` */
  const char *time, *episode;   /* names; "": none. Where episode's value changes, a trajectory begins */
};

/* KWM_ERR_DATA, with file and line: not readable, not numbers, rows of unequal length, times that are not equally
   spaced, inputs that are missing. KWM_ERR_USAGE: columns that are not there. */
kwm_status kwm_series_read(struct kwm_series *series, const struct kwm_series_spec *spec);

/* An empty series of this shape: all zero, no trajectory begins. */
kwm_status kwm_series_alloc(struct kwm_series *series, int64_t n, int m, int k, int d);
void kwm_series_fini(struct kwm_series *series);

/* Cuts by time into shares train and valid (each moved to where a trajectory begins if one does within the part) and
   measures the training part. KWM_ERR_USAGE: a part without a step, or an output that is never observed or never
   moves in the training part. */
kwm_status kwm_series_split(struct kwm_series *series, double train, double valid);

/* y (n, m), u (n, k), truth <- (value - mean) / scale. */
void kwm_series_normalise(struct kwm_series *series);
