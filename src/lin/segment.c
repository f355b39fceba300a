#include "kwm/segment.h"

#include <string.h>

int kwm_segment_first(int d, int segments, int s) {
  return (int)((int64_t)s * d / segments);
}

/* The window's states from `from` on, if they are observed. */
static void add_outputs(struct kwm_segment *segment, int outputs, int from, int count) {
  for (int i = from; i < from + count; i++)
    if (kwm_segment_state(segment, i) < outputs) segment->outputs[segment->m++] = i;
}

kwm_status kwm_segment_init(struct kwm_segment *segment, int d, int outputs, int segments, int s, int reach, int near) {
  memset(segment, 0, sizeof *segment);
  KWM_CHECK(segments >= 3 && segments <= d, KWM_ERR_USAGE, "world.segments: wanted 3 to the %d states, found %d", d,
            segments);
  KWM_CHECK(reach + near <= d / segments, KWM_ERR_USAGE,
            "world.segments: wanted segments of at least world.reach + world.near = %d states, found %d states in %d "
            "segments",
            reach + near, d, segments);
  const int first = kwm_segment_first(d, segments, s), count = kwm_segment_first(d, segments, s + 1) - first;
  *segment = (struct kwm_segment){
      .d = d, .first = first, .count = count, .reach = reach, .near = near, .size = count + 2 * reach};
  KWM_TRY(kwm_alloc((void **)&segment->outputs, (size_t)segment->size * sizeof(int), "segment"));
  add_outputs(segment, outputs, reach, count);
  segment->own = segment->m;
  add_outputs(segment, outputs, 0, reach);
  add_outputs(segment, outputs, reach + count, reach);
  return KWM_OK;
}

void kwm_segment_fini(struct kwm_segment *segment) {
  kwm_free(segment->outputs);
  memset(segment, 0, sizeof *segment);
}
