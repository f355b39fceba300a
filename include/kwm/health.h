/* What a covariance and a step say about themselves. Plain data. */
#pragma once

#include <stdint.h>

/* Outcome of one step: never an error (those are kwm_status), always counted and reported. */
enum kwm_verdict {
  KWM_STEP_DONE,
  KWM_STEP_NOT_FINITE, /* loss, score or evidence is not finite: step skipped */
  KWM_STEP_INDEFINITE, /* a precision or S lost positive definiteness: step skipped */
  KWM_STEP_GATED,      /* surprisal beyond filter.gate: step skipped */
};

/* Sums over the blocks that a rank owns, so that they add over ranks. */
struct kwm_health {
  double trace;       /* trace of P */
  double prior_trace; /* trace of the prior P0 */
  double parameters;
  double floor_hits; /* variances that had to be lifted to stay positive, since the start */
};
