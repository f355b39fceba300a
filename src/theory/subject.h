/* Private to theory: the program's own filter under test. Steps go through kwm_cov as in the filter; the mean is kept
   here in double, so that claims about trajectories are not about the rounding of a float mean. */
#pragma once

#include "kwm/cov.h"
#include "theory.h"

enum { SUBJECT_PARTS = 10 };

struct subject_spec {
  const char *structure;
  enum kwm_form form;
  int64_t n, rows;   /* parameters; rows of H in a step */
  int64_t parts;     /* blocks of n/parts parameters that share S; 0: one */
  int64_t d_i;       /* matrix blocks of n/d_i times d_i; 0: 1 */
  int64_t samples;   /* of a step, which share its rows; 0: one */
  double precision;  /* of the prior, for every parameter */
  double noise;      /* Q = noise I a step */
  double forgetting; /* 0: none */
  int64_t rank;      /* lowrank */
  enum kwm_lowrank_kind kind;
};

struct subject {
  struct subject_spec spec;
  struct theory *t;
  kwm_cov cov[SUBJECT_PARTS];
  struct kwm_jac jac[SUBJECT_PARTS]; /* of the step in hand */
  int64_t step;
  bool good;            /* false after a numerical failure: what is asked then is NAN */
  double *mean, *delta; /* (n) */
  double *S, *w;        /* (rows, rows), (rows) */
  float *J, *one, *still, *evidence;
};

/* Memory is the pool's, but for the covariances'. close accepts a zeroed subject. */
kwm_status subject_open(struct subject *s, struct theory *t, const struct subject_spec *spec);
void subject_close(struct subject *s);

/* Time update. */
void subject_predict(struct subject *s);

/* Prepares δ from innovations e (rows) and whitened H (rows, n), whose elements are floats; a step may be given up. */
void subject_prepare(struct subject *s, const double *H, const double *e);
/* The same from a matrix block's Jacobian (kron), whose e it holds. */
void subject_prepare_jac(struct subject *s, const struct kwm_jac *jac, const double *e);
/* mean += δ, posterior. */
void subject_apply(struct subject *s);
/* prepare and apply */
void subject_measure(struct subject *s, const double *H, const double *e);
/* The same with e = y - H mean. */
void subject_observe(struct subject *s, const double *H, const double *y);

/* K (n, rows), column by column from unit innovations; P (n, n). From the pool. */
double *subject_gain(struct subject *s, const double *H);
double *subject_covariance(struct subject *s);
