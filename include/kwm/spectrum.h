/* What the eigenvalues of P0^-½ P P0^-½ say: 1 is the prior uncertainty, 0 is certainty. Without noise and forgetting
   the product of all I - K H is P P0⁻¹, so that 1 - eigenvalue is the gain that the data have had in a direction.
   Local.
 */
#pragma once

#include "kwm/cov.h"

enum kwm_spectrum_fact {
  KWM_SPECTRUM_TRACE,                /* sum of the eigenvalues */
  KWM_SPECTRUM_EFFECTIVE_RANK,       /* exp of the entropy of eigenvalue/trace; 0 if the trace is */
  KWM_SPECTRUM_EFFECTIVE_PARAMETERS, /* sum of 1 - eigenvalue: parameters that the data determine */
  KWM_SPECTRUM_CONDITION,            /* largest over smallest */
  KWM_SPECTRUM_LARGEST,
  KWM_SPECTRUM_SMALLEST,
  KWM_SPECTRUM_KNOWN, /* share of the directions with eigenvalue < 1/2 */
  KWM_SPECTRUM_FACTS
};

/* In that order: words for tables and files. */
extern const char *const kwm_spectrum_words[KWM_SPECTRUM_FACTS];

/* Directions that the last value of kwm_cov_spectrum stands for: 1; lowrank: all that are not a column's, may be 0. */
int64_t kwm_cov_spectrum_last(const kwm_cov *cov);

/* facts of one block's values (n), ascending or not, the last of which stands for `last` directions, the others for 1.
 */
void kwm_spectrum_facts(int64_t n, const double *values, int64_t last, double facts[KWM_SPECTRUM_FACTS]);

/* whole <- the facts of all blocks as one matrix, from those of each: facts (KWM_SPECTRUM_FACTS, blocks), every block
   of as many directions. */
void kwm_spectrum_join(int64_t blocks, const double *facts, double whole[KWM_SPECTRUM_FACTS]);
