/* Sums of innovations' facts. */
#include "kwm/lin.h"

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
