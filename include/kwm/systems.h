/* Dynamical systems that the program knows, and series that it makes of them: seeded, with process and observation
   noise. Local. */
#pragma once

#include "kwm/series.h"
#include "kwm/space.h"

enum { KWM_SYSTEM_PARAMETERS = 4 };

struct kwm_system_spec {
  const char *kind;       /* oscillator | slow | duffing | vanderpol | lorenz63 | pendulum | lorenz96 */
  int size;               /* lorenz96: states */
  double dt;              /* 0: the system's own */
  int64_t steps, episode; /* episode: steps of a trajectory, 0: one long one */
  double process;         /* deviation of every state's noise a step, in units of the state's own scale; below 0: the
                             system's own */
  double observation;     /* deviation of an output's noise, in units of that output's spread */
  int first, observed;    /* outputs: states first .. first + observed - 1; observed 0: all from there on */
  double missing;         /* share of outputs that are not there */
  double jump,
      jump_factor; /* the first parameter is multiplied by the factor after this share of the steps; 0: never */
  uint64_t seed;
};

struct kwm_system {
  const struct kwm_system_kind *kind;
  int d, k, m, first;
  double dt;
  double parameters[KWM_SYSTEM_PARAMETERS];
  double *process;        /* (d) variances of the noise a step */
  double *observation;    /* (m) variances; known once a series was made */
  double *start, *spread; /* (d) mean and deviation of a trajectory's first state */
  double *work;
};

/* KWM_ERR_USAGE: no such system, or outputs that it does not have. fini accepts a zeroed one. */
kwm_status kwm_system_init(struct kwm_system *system, const struct kwm_system_spec *spec);
void kwm_system_fini(struct kwm_system *system);

/* The true model, as its parameters stand. space borrows system. */
void kwm_system_space(const struct kwm_system *system, struct kwm_space *space);

/* A series of it; outputs' noise variances are left in system. */
kwm_status kwm_system_series(struct kwm_system *system, const struct kwm_system_spec *spec, struct kwm_series *series);

/* Eigenvalues that an exact finite Koopman lift of the system has, or a linear system its own; returns their number, 0
   if none is known. values: (count, 2), real and imaginary parts; at most 4. */
int kwm_system_eigenvalues(const struct kwm_system *system, double *values);
