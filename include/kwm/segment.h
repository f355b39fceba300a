/* A ring of states cut into segments that are filtered apart: which states a segment has, and which it sees beside
   them. Segments are the unit of work: ranks share them, and the answer depends on their number, not on the ranks'.
   Local. */
#pragma once

#include "kwm/base.h"

struct kwm_segment {
  int d, first, count; /* of d states around the ring its own are first .. first + count - 1 */
  int reach, near;     /* it sees `reach` states more on either side; a state moves by `near` on either side */
  int size;            /* of this window: count + 2 reach; its own states are window states reach .. */
  int m, own;          /* outputs that the window shows; of these its own states', which come first */
  int *outputs;        /* (m) the window's states that they show */
};

/* First state of segment s of so many; s = segments: d. */
int kwm_segment_first(int d, int segments, int s);

/* Segment s where the first `outputs` of the d states are observed. KWM_ERR_USAGE: fewer than three segments, or one
   shorter than reach + near, whose neighbours would not be enough. fini accepts a zeroed one. */
kwm_status kwm_segment_init(struct kwm_segment *segment, int d, int outputs, int segments, int s, int reach, int near);
void kwm_segment_fini(struct kwm_segment *segment);

/* The ring's number of window state i. */
static inline int kwm_segment_state(const struct kwm_segment *segment, int i) {
  return (segment->first - segment->reach + i + segment->d) % segment->d;
}
