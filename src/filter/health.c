/* Consistency of the innovations (equations.md 3(f)) and the verdict on a step.

   For categorical outputs eᵀR⁺e = 1/p_y - 1 has a tail so heavy that its mean says nothing. Reported instead: the
   squared innovation over its predicted expectation, |y - p|² / tr(R) summed over the step (1 expected, bounded), and
   the standard score of the surprisal -log p(y) against the entropy. */
#include <math.h>

#include "kwm/filter.h"

double kwm_innovation_score(const struct kwm_innovation *innovation) {
  return (innovation->surprisal - innovation->entropy) / sqrt(fmax(innovation->variance, 1e-300));
}

static enum kwm_verdict verdict_of(const struct kwm_innovation *innovation, double failures, double gate) {
  if (!isfinite(innovation->surprisal)) return KWM_STEP_NOT_FINITE;
  if (failures > 0) return KWM_STEP_INDEFINITE;
  if (gate > 0 && innovation->surprisal > gate * innovation->samples) return KWM_STEP_GATED;
  return KWM_STEP_DONE;
}

/* The lowest rank that has a reason for the verdict, and its part. Collective, called by all ranks or by none. */
static void find_failure(struct kwm_layout *layout, bool failed, struct kwm_step *step) {
  const int part = step->failed_part >= 0 && step->failed_part < KWM_LIN_PARTS ? step->failed_part : -1;
  double code = failed ? (double)(layout->size - layout->rank) * (KWM_LIN_PARTS + 1) + 1 + part : 0;
  kwm_par_max_world(layout, 1, &code);
  const int found = (int)code;
  step->failed_part = found % (KWM_LIN_PARTS + 1) - 1;
  step->failed_rank = found == 0 ? 0 : layout->size - found / (KWM_LIN_PARTS + 1);
}

void kwm_filter_judge(struct kwm_layout *layout, const struct kwm_lin *lin, double gate, bool failed,
                      struct kwm_step *step) {
  enum { FACTS = KWM_INNOVATION_FIELDS + 1 };
  union {
    struct kwm_innovation innovation;
    double values[KWM_INNOVATION_FIELDS];
  } facts = {.innovation = kwm_lin_innovation(lin)};
  double sums[FACTS], scratch[FACTS];
  const bool finite = isfinite(facts.innovation.surprisal);
  for (int k = 0; k < KWM_INNOVATION_FIELDS; k++) sums[k] = facts.values[k];
  sums[FACTS - 1] = failed;
  kwm_par_sum_replicas_f64(layout, FACTS, sums, scratch);
  kwm_par_sum_group(layout, FACTS, sums);
  for (int k = 0; k < KWM_INNOVATION_FIELDS; k++) facts.values[k] = sums[k];
  step->innovation = facts.innovation;
  step->verdict = verdict_of(&step->innovation, sums[FACTS - 1], gate);
  step->nis = step->innovation.squared / step->innovation.expected;
  if (step->verdict == KWM_STEP_NOT_FINITE) step->failed_part = -1;
  if (step->verdict == KWM_STEP_NOT_FINITE) find_failure(layout, !finite, step);
  if (step->verdict == KWM_STEP_INDEFINITE) find_failure(layout, failed, step);
}
