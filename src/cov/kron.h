/* What kron.c and kron_innovation.c share: the state of one matrix block in its Kronecker eigenbasis. */
#pragma once

#include "kwm/cov.h"

struct kron_state {
  float *D;                /* (d_o, d_i) precision in the eigenbasis */
  float *A, *G;            /* (d_i, d_i), (d_o, d_o) factor sums, upper triangles */
  float *U, *V;            /* (d_i, d_i), (d_o, d_o) eigenvectors in columns */
  float *X;                /* (d_o, d_i) prepared step in the basis */
  float *f;                /* (d_o, d_i) information of the step in hand (innovation: the new D) */
  float *T;                /* (d_o, d_i) scratch; with square scratch below also for the refresh */
  float *square;           /* (d, d), d = max(d_o, d_i) scratch */
  double *eigen;           /* (d, d) + (d) scratch */
  float *aU, *g, *gV;      /* (n_max, d_i), (n_max, d_o), (n_max, d_o) scratch */
  float *JV;               /* innovation: (n_max·m, d_o) */
  float *pair;             /* innovation: 2·(n_max, n_max) + (n_max, d_i) scratch */
  float *inverse, *factor; /* innovation: (n_max·m, n_max·m) each, S⁻¹ and scratch */
  const float *evidence;   /* information: borrowed until apply */
  struct kwm_jac jac;      /* innovation: the step's rows, borrowed until apply */
  double batch;            /* samples of the step in hand */
};

/* kron_innovation.c: the innovation form's operations (see kwm/cov.h). */
void kron_project(kwm_cov *cov, const struct kwm_jac *jac, float *S);
bool kron_condition(kwm_cov *cov, const struct kwm_jac *jac, const float *L, const float *w);

/* A += aᵀa/n, G += JᵀJ/n and D <- the posterior prepared by kron_condition. */
void kron_take_posterior(kwm_cov *cov);
