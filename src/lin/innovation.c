/* Sums of innovations' facts, of a host's chunks or of a device's samples. */
#include "kwm/lin.h"

#include <string.h>

#include "kwm/device_ops.h"

void kwm_innovation_add(struct kwm_innovation *sum, const struct kwm_innovation *more) {
  union facts {
    struct kwm_innovation innovation;
    double values[KWM_INNOVATION_FIELDS];
  };
  union facts total = {.innovation = *sum};
  const union facts part = {.innovation = *more};
  for (int k = 0; k < KWM_INNOVATION_FIELDS; k++) total.values[k] += part.values[k];
  *sum = total.innovation;
}

void kwm_innovation_facts(struct kwm_innovation *sum, bool categorical, int64_t n, const double *facts) {
  for (int64_t i = 0; i < n; i++) {
    const double *const of = facts + i * KWM_FACTS;
    sum->samples += 1;
    sum->surprisal += of[KWM_FACT_SURPRISAL];
    sum->entropy += of[KWM_FACT_ENTROPY];
    sum->variance += of[KWM_FACT_VARIANCE];
    sum->correct += of[KWM_FACT_CORRECT];
    sum->squared += of[KWM_FACT_SQUARED];
    sum->expected += of[KWM_FACT_EXPECTED];
    if (categorical) kwm_calibration_add(&sum->calibration, of[KWM_FACT_TOP], of[KWM_FACT_CORRECT] > 0);
  }
}

static struct kwm_innovation of_chunk(const struct kwm_lin *lin, int64_t c) {
  struct kwm_innovation sum = {0};
  kwm_innovation_facts(&sum, lin->categorical, lin->bounds[c + 1] - lin->bounds[c],
                       lin->facts + lin->bounds[c] * KWM_FACTS);
  return sum;
}

struct kwm_innovation kwm_lin_innovation(const struct kwm_lin *lin) {
  if (lin->facts == NULL) return lin->innovation;
  struct kwm_innovation sum = {0};
  kwm_device_wait(lin->device);
  for (int64_t c = 0; c < lin->chunks; c++) {
    const struct kwm_innovation more = of_chunk(lin, c);
    kwm_innovation_add(&sum, &more);
  }
  return sum;
}

void kwm_lin_surprisals(const struct kwm_lin *lin, double *surprisal) {
  if (lin->facts == NULL) {
    memcpy(surprisal, lin->surprisal, (size_t)lin->chunks * sizeof *surprisal);
    return;
  }
  kwm_device_wait(lin->device);
  for (int64_t c = 0; c < lin->chunks; c++) surprisal[c] = of_chunk(lin, c).surprisal;
}
