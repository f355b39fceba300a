/* Private to par/link*.c: what a rank holds of its links. */
#pragma once

#include "kwm/link.h"

/* One end of a link. Messages count from 0; message m is in slot m % slots. `written`, set by the sender: the slot
   holds it; `taken`, set by the receiver: it has been read. Of a direct link each end sees the other's. */
struct link_end {
  struct kwm_link_spec spec;
  int tag; /* of its messages; those that say that one was taken have the next */
  bool sends, receives, direct;
  int64_t count, posted, collected;    /* messages begun; handed to MPI (sender); whose waits were counted (receiver) */
  int64_t settled;                     /* sender: messages that the device waits for before what is asked later */
  int64_t lengths[KWM_LINK_SLOTS_MAX]; /* bytes of what is in a slot */
  kwm_lane *lane;
  float *device_slots; /* (slots, floats), the device's: of a direct link's receiver; owned */
  float *host_slots;   /* (slots, floats), pinned: of both ends of another link; owned */
  float *window;       /* a direct link's sender: the other's device_slots */
  kwm_mark *written[KWM_LINK_SLOTS_MAX], *taken[KWM_LINK_SLOTS_MAX];
  kwm_mark *begun[KWM_LINK_SLOTS_MAX], *arrived[KWM_LINK_SLOTS_MAX]; /* receiver, timed: its device's wait */
  MPI_Request requests[KWM_LINK_SLOTS_MAX];
};

struct kwm_links {
  struct kwm_layout *layout;
  kwm_device *device;
  int rank, n; /* in the group; ends, those of others included */
  struct link_end *ends;
  double host_waits; /* seconds since they were asked for */
};

/* link_open.c: both ends find out together whether the link is direct. Collective over the two; false: it is not. */
bool link_shake(struct kwm_links *links, struct link_end *end, bool wanted);
