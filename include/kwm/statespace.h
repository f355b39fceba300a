/* State-space models whose parameters are learned: x⁺ = x + g(x, u; θ), y = h(x; θ), with exact Jacobians. Local. */
#pragma once

#include "kwm/segment.h"
#include "kwm/space.h"

enum kwm_transition {
  KWM_TRANSITION_LINEAR,     /* g = A x + B u + c */
  KWM_TRANSITION_POLYNOMIAL, /* every monomial of x up to a degree, and u; near: of x's neighbours around a circle */
  KWM_TRANSITION_MLP,        /* A x + B u + c + W₂ tanh(W₁ [x; u; 1]) */
};
enum kwm_readout {
  KWM_READOUT_IDENTITY, /* y: the first states */
  KWM_READOUT_LINEAR,   /* y = C x + c */
};

struct kwm_statespace_spec {
  enum kwm_transition transition;
  enum kwm_readout readout;
  int d, m, k; /* states, outputs, inputs */
  int degree, hidden;
  int near; /* polynomial: state i moves by the states i - near .. i + near, indices around a circle; 0: by all */
};

struct kwm_statespace {
  struct kwm_statespace_spec spec;
  int n, features; /* parameters; features of a linear-in-parameters g */
  int inner;       /* states that a row's monomials are of: d, or 2 near + 1 */
  uint8_t *powers; /* polynomial: (features, inner) exponents */
  double *work;
};

/* KWM_ERR_USAGE: outputs that the states can't hold, or too many features. fini accepts a zeroed one. */
kwm_status kwm_statespace_init(struct kwm_statespace *model, const struct kwm_statespace_spec *spec);
void kwm_statespace_fini(struct kwm_statespace *model);

/* space borrows model. */
void kwm_statespace_space(const struct kwm_statespace *model, struct kwm_space *space);

/* Sizes of θ's blocks, in its order: rows of Θ; of W₁, W₂ and the linear part; of the read-out. Returns their number;
   sizes NULL: only that. */
int kwm_statespace_blocks(const struct kwm_statespace *model, int *sizes);

/* Prior: mean (n) keyed by seed, and variance (n) in units of `scale`². */
void kwm_statespace_prior(const struct kwm_statespace *model, uint64_t seed, double scale, double *mean,
                          double *variance);

/* What parameter i is, for tables: "x1: x1^2 x2"; text holds 64 bytes. */
const char *kwm_statespace_name(const struct kwm_statespace *model, int i, char *text);

/* A segment of a local polynomial model (near > 0) as a model of its own: states of its window, parameters of its own
   states. Its inputs are [u; x of `near` states before and behind the window; θ of the states within reach, before and
   behind]. space borrows window, which borrows the others. KWM_ERR_USAGE: another model. */
struct kwm_statespace_window {
  const struct kwm_statespace *model;
  const struct kwm_segment *segment;
  double *padded, *values;
};
kwm_status kwm_statespace_window_init(struct kwm_statespace_window *window, const struct kwm_statespace *model,
                                      const struct kwm_segment *segment);
void kwm_statespace_window_fini(struct kwm_statespace_window *window);
void kwm_statespace_window_space(const struct kwm_statespace_window *window, struct kwm_space *space);
