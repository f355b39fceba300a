/* The paper's theory, checked by numbers: each claim is computed with the program's own filter and held against its
   bound. What the paper states wrongly is computed too, and its line passes if the paper's form fails as predicted. */
#pragma once

#include "kwm/base.h"
#include "kwm/par.h"

enum kwm_claim_kind {
  KWM_CLAIM_TRUE,  /* what holds */
  KWM_CLAIM_PAPER, /* the paper's form, which does not: the statement says what is false */
};

/* number against bound */
enum kwm_claim_relation { KWM_AT_MOST, KWM_AT_LEAST, KWM_WITHIN };

struct kwm_claim {
  const char *id, *equations; /* unique; numbers of the paper's equations */
  enum kwm_claim_kind kind;
  enum kwm_claim_relation relation;
  double bound, tolerance;          /* tolerance: KWM_WITHIN only. A bound of NAN is computed beside the number */
  const char *statement, *computed; /* what is claimed; what the number is */
};

struct kwm_finding {
  const struct kwm_claim *claim; /* static */
  double number, bound;
  double spread; /* half the range between the quartiles of a fitted exponent; NAN: not a fit */
  bool timed;    /* depends on the machine's speed: differs from run to run */
  bool pass;     /* false if the number or the bound is NAN */
};

/* Filters that are wrong in one known way, for tests of the verification itself. */
enum kwm_fault {
  KWM_FAULT_NONE,
  KWM_FAULT_GAIN_HALVED, /* the mean moves by K e / 2 */
  KWM_FAULT_Q_DROPPED,   /* no process noise */
  KWM_FAULT_LOCAL_S,     /* every block forms S from its own rows alone */
};

struct kwm_theory_spec {
  uint64_t seed;
  enum kwm_fault fault;
  bool timed; /* also the lines that measure time and bytes */
};

/* Number of findings with such a spec. Local. */
int kwm_theory_count(bool timed);

/* findings (kwm_theory_count) <- all claims in the table's order, on every rank. Collective over world: groups of
   claims are dealt over the ranks; numbers do not depend on how many there are, but for those of the distributed filter
   (its rounding) and timings. */
kwm_status kwm_theory_verify(struct kwm_layout *world, const struct kwm_theory_spec *spec,
                             struct kwm_finding *findings);

/* Whether number stands in the claim's relation to bound. Local. */
bool kwm_claim_holds(const struct kwm_claim *claim, double number, double bound);

/* Filter's discrete algebraic Riccati equation by structured doubling (equations.md 3(b)):
   P = A P Aᵀ - A P Cᵀ (C P Cᵀ + R)⁻¹ C P Aᵀ + Q, the steady state of the predicted covariance. */
enum kwm_riccati_verdict {
  KWM_RICCATI_CONVERGED,
  KWM_RICCATI_SLOW,         /* still moving after the last doubling: a closed-loop pole on or next to the unit circle */
  KWM_RICCATI_UNDETECTABLE, /* grows without bound: what grows is not observed */
  KWM_RICCATI_NUMERIC,      /* R is not positive definite, or numbers are not finite */
};
struct kwm_riccati_report {
  enum kwm_riccati_verdict verdict;
  int doublings;
  double change;   /* |X' - X| / |X'| of the last doubling, Frobenius */
  double residual; /* of the equation, relative to |X| */
};

/* X (n, n) <- the solution, or the iterate after 2^doublings steps from P = 0 if it did not converge within `doublings`
   (at most 30 make sense). A, Q (n, n), C (m, n), R (m, m), row-major. KWM_ERR_SYSTEM: no memory. Local. */
kwm_status kwm_riccati_doubling(int64_t n, int64_t m, const double *A, const double *C, const double *Q,
                                const double *R, int doublings, double *X, struct kwm_riccati_report *report);

/* One sentence on the verdict; static storage. */
const char *kwm_riccati_words(enum kwm_riccati_verdict verdict);
