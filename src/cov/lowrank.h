/* What the files of lowrank share: the state of one group in z, sums over parameters, and small matrices of a step in
   double. The factor's rows and those of H stand where the parameters are; all that is of order s = r + rows is the
   same on all ranks of the group. */
#pragma once

#include "kwm/cov_ops.h"

#include "prior.h"
#include "reals.h"

/* Z = [factor, rowsᵀ] (n, s) with s = r + rows: the factor's columns, then the step's rows. */
struct lowrank_state {
  int64_t n, r;          /* parameters of the group on this rank, columns kept */
  double floor;          /* λ0 (form B), σ² (form A), 0 (form S), 1 (diagonal) */
  struct reals factor;   /* (n, r) B or U, columns orthogonal over the whole group (diagonal: no matter) */
  struct reals diagonal; /* (n) d of kind diagonal */
  struct reals rows;     /* (n_max·m, n) H of the step */
  double *prior;         /* (period) prior variances, then (period) their square roots */
  double *delta;         /* (n) prepared step in the parameters' units */
  double *metric;        /* (n) kind diagonal, scratch: weights of the parameters in a sum */
  double *panel;         /* (PANEL, s + columns of mix) scratch: some parameters' part of Z and of the new factor */
  double *gram;          /* (s, s) ZᵀZ; kind diagonal: Zᵀ diag(d)⁻¹ Z */
  double *own;           /* (rows, rows) H P Hᵀ */
  double *core;          /* (r, r) form B: Cholesky factor of λ0 I + BᵀB; diagonal: of I + Bᵀ diag(d)⁻¹ B */
  double *white;         /* (rows, rows) W with WᵀW = S_o⁻¹ */
  double *square;        /* scratch matrices of s_max² numbers each */
  double *mix;           /* (s, r) the posterior's factor is Z mix; diagonal: (s, s), the last r columns are that */
  double *values;        /* (2 s_max) scratch */
  double *w;             /* (rows) information form: S⁻¹e of the own S */
  int64_t s_max;
  int64_t step_rows; /* rows of the step in hand */
  bool blind;        /* the step's H is zero: the posterior is the prior */
};

/* True where the state is kept: on ranks with blocks, and on all ranks of a group that is spread over them. */
static inline bool lowrank_here(const struct kwm_cov_spec *spec) {
  return spec->count > 0 || spec->layout != NULL;
}

static inline int64_t lowrank_columns(const struct kwm_cov_spec *spec) {
  const int64_t most = spec->total * spec->params;
  return spec->rank < most ? spec->rank : most;
}

/* Kinds that keep P⁻¹. */
static inline bool lowrank_is_precision(enum kwm_lowrank_kind kind) {
  return kind == KWM_LOWRANK_PRECISION || kind == KWM_LOWRANK_DIAGONAL;
}

/* Columns that mix has beside the factor's: those that a step gives up, where their squares are kept. */
static inline int64_t lowrank_given_up(enum kwm_lowrank_kind kind, int64_t rows) {
  return kind == KWM_LOWRANK_DIAGONAL ? rows : 0;
}

/* Square roots of the prior variances, parameter k has number k % prior_period; NULL on ranks without parameters. */
static inline const double *lowrank_root(const kwm_cov *cov) {
  const double *const prior = ((const struct lowrank_state *)cov->state)->prior;
  return prior != NULL ? prior + prior_period(&cov->spec) : NULL;
}

/* Scratch matrix k of s_max² numbers; form A uses 4, kind diagonal 3, the others 2. */
static inline double *lowrank_square(const struct lowrank_state *state, int64_t k) {
  return state->square + k * state->s_max * state->s_max;
}

static inline int64_t lowrank_squares(const struct kwm_cov_spec *spec) {
  return spec->kind == KWM_LOWRANK_COVARIANCE ? 4 : spec->kind == KWM_LOWRANK_DIAGONAL ? 3 : 2;
}

enum { LOWRANK_PANEL = 64 };

/* Collective where the group is spread: values (n) <- their sum over the group. */
void lowrank_sum(const kwm_cov *cov, int64_t n, double *values);

/* Row k of Z counts at[k % period] times in a sum; at NULL: once. */
struct lowrank_weights {
  const double *at;
  int64_t period;
};
static const struct lowrank_weights lowrank_plain = {NULL, 1};

static inline struct lowrank_weights lowrank_prior_weights(const kwm_cov *cov) {
  return (struct lowrank_weights){lowrank_root(cov), prior_period(&cov->spec)};
}

/* G (s, s) <- ZᵀZ of weighted rows over this rank's parameters, with the first `rows` rows of the step. */
void lowrank_gram_here(const kwm_cov *cov, int64_t rows, struct lowrank_weights weights, double *G);

/* Collective: the same over all parameters of the group. */
void lowrank_gram(const kwm_cov *cov, int64_t rows, struct lowrank_weights weights, double *G);

/* factor <- Z mix with the first `rows` rows of the step; kind diagonal: d <- d + squares of what mix gives up. */
void lowrank_recombine(kwm_cov *cov, int64_t rows);

/* Collective. Form S: factor <- r random orthonormal columns, the same on any number of ranks. */
kwm_status lowrank_draw(kwm_cov *cov);

/* Collective. Time update; false: not finite, nothing is changed then. */
bool lowrank_predict(kwm_cov *cov, int64_t step, const float *anchor, float *mean);

/* W from the factor L of the shared S and this group's own part of S. False: not finite. */
bool lowrank_whiten(struct lowrank_state *state, const double *L);

/* mix of the posterior from gram and W, re-compressed to r columns. False: not finite. */
bool lowrank_posterior(struct lowrank_state *state, enum kwm_lowrank_kind kind);

bool lowrank_finite(int64_t n, const double *x);

/* Kind diagonal (lowrank_diagonal.c): d^-½ as weights; time update; this rank's part of the trace of P; Ritz values.
   All but the first are collective. */
struct lowrank_weights lowrank_diagonal_weights(const kwm_cov *cov);
bool lowrank_diagonal_predict(kwm_cov *cov, const float *anchor, float *mean);
double lowrank_diagonal_trace(const kwm_cov *cov);
bool lowrank_diagonal_spectrum(const kwm_cov *cov, double *values);

/* What can be seen of a state, and its way into checkpoints (lowrank_view.c). All but covariance are collective. */
void lowrank_health(const kwm_cov *cov, struct kwm_health *health);
int64_t lowrank_spectrum_length(const struct kwm_cov_spec *spec);
bool lowrank_spectrum(const kwm_cov *cov, double *values);
bool lowrank_covariance(const kwm_cov *cov, double *P);
kwm_status lowrank_save(const kwm_cov *cov, kwm_ckpt *ckpt, bool writes);
kwm_status lowrank_load(kwm_cov *cov, kwm_ckpt *ckpt);
