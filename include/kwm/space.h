/* A state-space model as a filter sees it: x⁺ = f(x, u; θ), y = h(x; θ), both with exact Jacobians (equations (3),
   (4)). Whoever makes one (a system that the program knows, a model that it learns) and whoever filters with it meet
   here. Functions are local and pure; matrices row-major. */
#pragma once

#include "kwm/base.h"

struct kwm_space {
  int d, n, m, k;      /* states, parameters, outputs, inputs */
  const void *context; /* borrowed; first argument of both */
  /* next (d) <- f(x, u; θ) and its Jacobians Fx (d, d), Ft (d, n); NULL: not wanted. u may be NULL if k is 0. */
  void (*step)(const void *context, const double *x, const double *u, const double *theta, double *next, double *Fx,
               double *Ft);
  /* y (m) <- h(x; θ) and its Jacobians Hx (m, d), Ht (m, n); NULL: not wanted. */
  void (*observe)(const void *context, const double *x, const double *theta, double *y, double *Hx, double *Ht);
};
