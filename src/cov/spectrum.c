/* Facts of a spectrum, and those of a block-diagonal matrix from its blocks': sums add, and so does entropy, after the
   entropy of how the trace is divided among the blocks. */
#include "kwm/spectrum.h"

#include <math.h>

#include "kwm/cov_ops.h"

const char *const kwm_spectrum_words[KWM_SPECTRUM_FACTS] = {
    [KWM_SPECTRUM_TRACE] = "trace",
    [KWM_SPECTRUM_EFFECTIVE_RANK] = "effective_rank",
    [KWM_SPECTRUM_EFFECTIVE_PARAMETERS] = "effective_parameters",
    [KWM_SPECTRUM_CONDITION] = "condition",
    [KWM_SPECTRUM_LARGEST] = "largest",
    [KWM_SPECTRUM_SMALLEST] = "smallest",
    [KWM_SPECTRUM_KNOWN] = "known",
};

int64_t kwm_cov_spectrum_last(const kwm_cov *cov) {
  const struct kwm_cov_spec *const spec = &cov->spec;
  return cov->ops->collective ? spec->total * spec->params - (kwm_cov_spectrum_length(cov) - 1) : 1;
}

void kwm_spectrum_facts(int64_t n, const double *values, int64_t last, double facts[KWM_SPECTRUM_FACTS]) {
  double trace = 0, certain = 0, known = 0, spread = 0, largest = -INFINITY, smallest = INFINITY;
  for (int64_t k = 0; k < n; k++) {
    const double v = values[k], times = k + 1 < n ? 1 : (double)last;
    if (times == 0) continue;
    trace += times * v;
    certain += times * (1 - v);
    known += v < 0.5 ? times : 0;
    largest = fmax(largest, v);
    smallest = fmin(smallest, v);
  }
  for (int64_t k = 0; k < n && trace > 0; k++) {
    const double share = values[k] / trace, times = k + 1 < n ? 1 : (double)last;
    if (share > 0) spread -= times * share * log(share);
  }
  facts[KWM_SPECTRUM_TRACE] = trace;
  facts[KWM_SPECTRUM_EFFECTIVE_RANK] = trace > 0 ? exp(spread) : 0;
  facts[KWM_SPECTRUM_EFFECTIVE_PARAMETERS] = certain;
  facts[KWM_SPECTRUM_CONDITION] = largest / smallest;
  facts[KWM_SPECTRUM_LARGEST] = largest;
  facts[KWM_SPECTRUM_SMALLEST] = smallest;
  facts[KWM_SPECTRUM_KNOWN] = known / (double)(n - 1 + last);
}

static double sum_of(int64_t n, const double *values) {
  double sum = 0;
  for (int64_t k = 0; k < n; k++) sum += values[k];
  return sum;
}

void kwm_spectrum_join(int64_t blocks, const double *facts, double whole[KWM_SPECTRUM_FACTS]) {
  const double *const traces = facts + KWM_SPECTRUM_TRACE * blocks;
  const double *const ranks = facts + KWM_SPECTRUM_EFFECTIVE_RANK * blocks;
  const double trace = sum_of(blocks, traces);
  double spread = 0, largest = -INFINITY, smallest = INFINITY;
  for (int64_t b = 0; b < blocks; b++) {
    if (traces[b] > 0) spread += traces[b] / trace * log(ranks[b] * trace / traces[b]);
    largest = fmax(largest, facts[KWM_SPECTRUM_LARGEST * blocks + b]);
    smallest = fmin(smallest, facts[KWM_SPECTRUM_SMALLEST * blocks + b]);
  }
  whole[KWM_SPECTRUM_TRACE] = trace;
  whole[KWM_SPECTRUM_EFFECTIVE_RANK] = trace > 0 ? exp(spread) : 0;
  whole[KWM_SPECTRUM_EFFECTIVE_PARAMETERS] = sum_of(blocks, facts + KWM_SPECTRUM_EFFECTIVE_PARAMETERS * blocks);
  whole[KWM_SPECTRUM_CONDITION] = largest / smallest;
  whole[KWM_SPECTRUM_LARGEST] = largest;
  whole[KWM_SPECTRUM_SMALLEST] = smallest;
  whole[KWM_SPECTRUM_KNOWN] = sum_of(blocks, facts + KWM_SPECTRUM_KNOWN * blocks) / (double)blocks;
}
