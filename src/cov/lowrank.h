/* What lowrank.c and lowrank_posterior.c share: the state of one group in z, and small matrices of a step in double. */
#pragma once

#include "kwm/cov.h"

/* Z = [factor, rowsᵀ] (n, s) with s = r + rows: the factor's columns, then the step's rows. */
struct lowrank_state {
  int64_t n, r;   /* parameters of the group (0 on ranks without it), columns kept */
  double floor;   /* λ0 (form B), σ² (form A), 0 (form S) */
  float *factor;  /* (n, r) B or U, columns orthogonal */
  float *rows;    /* (n_max·m, n) H of the step */
  double *prior;  /* (period) prior variances, then (period) their square roots */
  double *delta;  /* (n) prepared step in the parameters' units */
  double *panel;  /* (PANEL, s + r) scratch: some parameters' part of Z and of the new factor */
  double *gram;   /* (s, s) ZᵀZ */
  double *own;    /* (rows, rows) H P Hᵀ */
  double *core;   /* (r, r) form B: Cholesky factor of λ0 I + BᵀB */
  double *white;  /* (rows, rows) W with WᵀW = S_o⁻¹ */
  double *square; /* scratch matrices of s_max² numbers each */
  double *mix;    /* (s, r) the posterior's factor is Z mix */
  double *values; /* (s) scratch */
  int64_t s_max;
  int64_t step_rows; /* rows of the step in hand */
  bool blind;        /* the step's H is zero: the posterior is the prior */
};

/* Scratch matrix k of s_max² numbers; forms B and S use 2, form A uses 5. */
static inline double *lowrank_square(const struct lowrank_state *state, int64_t k) {
  return state->square + k * state->s_max * state->s_max;
}

static inline int64_t lowrank_squares(const struct kwm_cov_spec *spec) {
  return spec->kind == KWM_LOWRANK_COVARIANCE ? 5 : 2;
}

/* W from the factor L of the shared S and this group's own part of S. False: not finite. */
bool lowrank_whiten(struct lowrank_state *state, const float *L);

/* mix of the posterior from gram and W, re-compressed to r columns. False: not finite. */
bool lowrank_posterior(struct lowrank_state *state, enum kwm_lowrank_kind kind);

/* mix (s, t <= s) <- G^(-½) in the directions that Z has: Z mix is orthonormal; returns t. G (s, s) is the Gram matrix
   of Z; K (s, s): scratch. 0: not finite, or Z = 0. */
int64_t lowrank_orthonormal(int64_t s, const double *G, double *K, double *values);
