/* What the files of kron share: the state of one matrix block in its Kronecker eigenbasis.

     kron.c             what does not depend on the form or on the numbers' type
     kron_schedule.c    when the basis is refreshed
     kron_store.c       checkpoints
     kron_f32.c         state in float:  the information form's step
     kron_f64.c         state in double: the same
     kron_real.h        what these two have in common, written once for both types
     kron_time.h        its part for the time update
     kron_predictive.h  its part for the outputs' covariance
     kron_packed.c      the evidence's sums of squares
     kron_innovation.c  the innovation form, in double precision for both
     kron_device.c      the information form in float, on a device */
#pragma once

#include "reals.h"

struct kron_state {
  struct reals D;              /* (d_o, d_i) precision in the eigenbasis */
  struct reals A, G;           /* (d_i, d_i), (d_o, d_o) factor sums, upper triangles */
  struct reals U, V;           /* (d_i, d_i), (d_o, d_o) eigenvectors in columns */
  struct reals past_A, past_G; /* with a delay: A, G as they stood when the basis that is awaited was asked for */
  int64_t since;               /* the step at which that was, 0: none is awaited */
  struct reals X;              /* (d_o, d_i) prepared step in the basis */
  struct reals f;              /* (d_o, d_i) information of the step in hand (innovation: the new D) */
  struct reals T;              /* (d_o, d_i) scratch */
  struct reals new_U, new_V;   /* like U, V: the next basis; scratch of a step */
  double *eigen;               /* (d, d) + 2·(d), d = max(d_o, d_i) scratch */
  /* information */
  float *aU, *g, *gV;    /* (n_max, d_i), (n_max, d_o), (n_max, d_o) scratch; double: g only */
  const float *evidence; /* borrowed until apply */
  /* innovation; the rotated rows hold from project to condition */
  double *rotated_a, *rotated_J; /* (n_max, d_i), (n_max·m, d_o): the rows in the basis */
  double *rows;                  /* (n_max, d_i) or (n_max·m, d_o) scratch */
  double *pair;                  /* 2·(n_max, n_max) + (n_max, d_i) scratch */
  double *score;                 /* (n_max, d_o) scratch */
  double *inverse, *factor;      /* (n_max·m, n_max·m) each, S⁻¹ and scratch */
  double *wide;                  /* float: D, U, V in double precision, one after the other */
  struct kwm_jac jac;            /* the step's rows, borrowed until apply */
  double batch;                  /* samples of the step in hand */
  double floor_hits, floored;    /* variances lifted so far, and by the step in hand */
};

/* The upper triangle of a symmetric matrix (n, n) by panels of KRON_PANEL rows, one after the other: rows first... of
   it are (kron_panel, n - first), their part below the diagonal unused. */
enum { KRON_PANEL = 128 };

static inline int64_t kron_panel(int64_t n, int64_t first) {
  return n - first < KRON_PANEL ? n - first : KRON_PANEL;
}

/* kron_packed.c: numbers of such a triangle; packed += valuesᵀvalues for values (rows, n). */
int64_t kron_packed(int64_t n);
void kron_add_gram(int64_t n, int64_t rows, const float *values, float *packed);

/* Evidence of a chunk: A (d_i, d_i) and G (d_o, d_o) packed, X (d_o, d_i), at2 (d_i), gt2 (d_o). Float: X is in the
   basis, at2 is the diagonal of A in it, and, with one row a sample, gt2 that of G: with more rows it costs less to
   turn G once a step. Double: X is the plain score, and there is neither: a float sum of plain numbers is all that is
   lost, the rotation is done once a step and in double precision. */
struct kron_evidence {
  int64_t A, G, X, at2, gt2, length;
};

/* Float, and one row a sample. */
static inline bool kron_turns_rows(const struct kwm_cov_spec *spec) {
  return spec->real == KWM_REAL_FLOAT && spec->m == 1;
}

static inline struct kron_evidence kron_evidence_of(const struct kwm_cov_spec *spec) {
  struct kron_evidence at = {0};
  at.G = at.A + kron_packed(spec->d_i);
  at.X = at.G + kron_packed(spec->d_o);
  at.at2 = at.X + spec->d_o * spec->d_i;
  at.gt2 = at.at2 + (spec->real == KWM_REAL_FLOAT ? spec->d_i : 0);
  at.length = at.gt2 + (kron_turns_rows(spec) ? spec->d_o : 0);
  return at;
}

/* What depends on the type of the state's numbers (see kwm/cov.h for evidence, absorb and delta). */
struct kron_numbers {
  bool (*predict)(kwm_cov *cov, bool refresh, const float *anchor, float *mean);
  void (*evidence)(kwm_cov *cov, const struct kwm_jac *jac, float *evidence);
  bool (*absorb)(kwm_cov *cov, const float *evidence, int64_t batch, double *kl);
  void (*delta)(const kwm_cov *cov, double *delta);
  double (*size)(const kwm_cov *cov);                    /* sum X² */
  double (*slope)(const kwm_cov *cov);                   /* sum (D + f) X², the score times X */
  double (*expected)(const kwm_cov *cov);                /* sum f²/(D + f)² */
  void (*move)(kwm_cov *cov, double scale, float *mean); /* mean += scale δ */
  void (*take)(kwm_cov *cov);                            /* A, G, D <- with the evidence prepared by absorb */
  bool (*predictive)(kwm_cov *cov, const struct kwm_jac *jac, double *C);
};
extern const struct kron_numbers kron_f32, kron_f64;

/* kron_f32.c: see kwm_cov_unframe. */
void kron_unframe(const kwm_cov *cov, const float *framed, float *plain);

/* kron_innovation.c: the innovation form's operations (see kwm/cov.h). */
void kron_project(kwm_cov *cov, const struct kwm_jac *jac, double *S);
bool kron_condition(kwm_cov *cov, const struct kwm_jac *jac, const double *L, const double *w);

/* A += aᵀa/n, G += JᵀJ/n and D <- the posterior prepared by kron_condition. */
void kron_take_posterior(kwm_cov *cov);

/* kron_schedule.c. refresh_due: a refresh of the basis is due with the time update after `step` steps. turn_due: when
   the basis asked for at step `since` is taken. awaited: the step at which the basis was asked for that is still
   awaited after the time update of `step`, 0: none. */
bool kron_refresh_due(int64_t step, int64_t interval);
int64_t kron_turn_due(const struct kwm_cov_spec *spec, int64_t since);
int64_t kron_awaited(const struct kwm_cov_spec *spec, int64_t step);

/* What the time update of `step` does with a basis asked for at `since` (0: none is awaited): turns takes it, or,
   without a delay, the one that is due, and if it can't be had does without; sets_aside, after that, asks for another.
 */
static inline bool kron_turns(const struct kwm_cov_spec *spec, int64_t since, int64_t step) {
  if (spec->delay == 0) return kron_refresh_due(step, spec->refresh);
  return since > 0 && step >= kron_turn_due(spec, since);
}

static inline bool kron_sets_aside(const struct kwm_cov_spec *spec, int64_t since, int64_t step) {
  return spec->delay > 0 && since != step && kron_refresh_due(step, spec->refresh);
}

/* kron_store.c */
kwm_status kron_save(const kwm_cov *cov, kwm_ckpt *ckpt, bool writes);
kwm_status kron_load(kwm_cov *cov, kwm_ckpt *ckpt);

/* kron_device.c */
extern const struct kwm_cov_ops kwm_cov_kron_device;
bool kron_on_device(const struct kwm_cov_spec *spec);
