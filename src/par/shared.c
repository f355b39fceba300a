/* What ranks share that work side by side: sums over owners, piece by piece. */
#include <string.h>

#include "kwm/par.h"

enum { PIECE = 1 << 22 /* numbers summed at once */ };

kwm_status kwm_shared_init(struct kwm_shared *shared, struct kwm_layout *layout, kwm_device *device, int64_t longest) {
  const int64_t piece = longest < PIECE ? longest : PIECE;
  *shared = (struct kwm_shared){.layout = layout, .device = device, .piece = piece};
  if (layout->owners == 1) return KWM_OK;
  const size_t bytes = (size_t)piece * sizeof(float);
  KWM_TRY(kwm_device_alloc(device, (void **)&shared->scratch, bytes, "sums over ranks"));
  return kwm_alloc((void **)&shared->staging, 2 * bytes, "sums over ranks");
}

void kwm_shared_fini(struct kwm_shared *shared) {
  kwm_device_free(shared->device, shared->scratch);
  kwm_free(shared->staging);
  memset(shared, 0, sizeof *shared);
}

void kwm_shared_sum(struct kwm_shared *shared, int64_t n, float *values) {
  for (int64_t from = 0; from < n && shared->layout->owners > 1; from += shared->piece) {
    const struct kwm_sum sum = {.n = n - from < shared->piece ? n - from : shared->piece,
                                .values = values + from,
                                .scratch = shared->scratch,
                                .staging = shared->staging};
    kwm_par_sum_to_owner(shared->layout, shared->device, 0, &sum);
    kwm_par_spread_from_owner(shared->layout, shared->device, 0, &sum);
  }
}
