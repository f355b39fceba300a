/* Private to data: what a kind of system is. */
#pragma once

#include "kwm/systems.h"

struct kwm_system_kind {
  const char *name;
  int d, k; /* states (0: as many as asked for), inputs (0 or 1) */
  bool map; /* rate is the step itself */
  /* rate (d) <- dx/dt, J (d, d) its Jacobian or NULL */
  void (*rate)(const double *parameters, int d, const double *x, const double *u, double *rate, double *J);
  double (*input)(uint64_t seed, int64_t t, double dt);
  double dt, parameters[KWM_SYSTEM_PARAMETERS];
  double process, scale, spread; /* noise a step in units of scale, a state's size; spread of first states */
  int64_t warm_up;               /* steps before the first that counts */
};

/* What a draw of KWM_RNG_SERIES is for: upper half of its index. */
enum { KWM_SERIES_START, KWM_SERIES_PROCESS, KWM_SERIES_OBSERVATION, KWM_SERIES_INPUT, KWM_SERIES_MISSING };

/* next (d) <- the step without noise; Fx (d, d) its Jacobian or NULL. */
void kwm_system_step(const struct kwm_system *system, const double *x, const double *u, double *next, double *Fx);
