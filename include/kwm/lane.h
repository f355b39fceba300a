/* Copies beside a device's own work, and memory of one process's device that another process of the host writes. NULL
   for the device: the host, where every copy is done at once. Local; what cannot be had is NULL or false.

   A lane does copies in the order in which they were asked for. A mark is a place in the order of a lane or of the
   device: both wait there, without the host. Pinned memory is the host's, and what copies there and back should use. A
   window is memory of a device that the device of another process copies to; its marks are seen there too. */
#pragma once

#include "kwm/device.h"

typedef struct kwm_lane kwm_lane;
typedef struct kwm_mark kwm_mark;

/* What another process on the host needs to see memory or a mark; plain bytes. */
enum { KWM_TICKET_BYTES = 64 };
struct kwm_ticket {
  unsigned char bytes[KWM_TICKET_BYTES];
};

/* Windows are whole pieces of kwm_device_alloc of a multiple of so many bytes. */
enum { KWM_WINDOW_BYTES = 2 << 20 };

struct kwm_lane_ops {
  kwm_lane *(*open)(kwm_device *d);
  void (*close)(kwm_device *d, kwm_lane *lane);
  void *(*pin)(kwm_device *d, size_t bytes);
  void (*unpin)(kwm_device *d, void *at);
  void (*copy)(kwm_device *d, kwm_lane *lane, void *to, const void *from, size_t bytes);
  kwm_mark *(*mark)(kwm_device *d, bool timed);
  void (*unmark)(kwm_device *d, kwm_mark *mark);
  void (*set)(kwm_device *d, kwm_lane *lane, kwm_mark *mark);
  void (*follow)(kwm_device *d, kwm_lane *lane, kwm_mark *mark);
  bool (*passed)(kwm_device *d, kwm_mark *mark);
  double (*between)(kwm_device *d, kwm_mark *from, kwm_mark *to);
  bool (*offer)(kwm_device *d, void *memory, struct kwm_ticket *ticket);
  bool (*offer_mark)(kwm_device *d, kwm_mark *mark, struct kwm_ticket *ticket);
  void *(*see)(kwm_device *d, const struct kwm_ticket *ticket);
  kwm_mark *(*see_mark)(kwm_device *d, const struct kwm_ticket *ticket);
  void (*unsee)(kwm_device *d, void *window);
};

/* close waits for the lane's copies; both closing calls accept NULL. */
kwm_status kwm_lane_open(kwm_device *device, kwm_lane **lane);
void kwm_lane_close(kwm_device *device, kwm_lane *lane);
kwm_status kwm_lane_pin(kwm_device *device, void **at, size_t bytes, const char *what);
void kwm_lane_unpin(kwm_device *device, void *at);

/* to <- from, each the device's, pinned, or a window's, when all that was asked of the device before is done; until a
   mark that the lane sets after it is passed, nobody may change `from` or touch `to`. */
void kwm_lane_copy(kwm_device *device, kwm_lane *lane, void *to, const void *from, size_t bytes);

/* Marks. `timed` ones tell seconds and stay in their process, others can be offered. set: at all that was asked of the
   lane (NULL: the device) so far. follow: what is asked of the lane (NULL: the device) later waits for the mark's last
   place. passed, between: as the host sees it; between: both passed. */
kwm_status kwm_mark_open(kwm_device *device, kwm_mark **mark, bool timed);
void kwm_mark_close(kwm_device *device, kwm_mark *mark);
void kwm_mark_set(kwm_device *device, kwm_lane *lane, kwm_mark *mark);
void kwm_mark_follow(kwm_device *device, kwm_lane *lane, kwm_mark *mark);
bool kwm_mark_passed(kwm_device *device, kwm_mark *mark);
double kwm_mark_between(kwm_device *device, kwm_mark *from, kwm_mark *to);

/* offer: this process's memory (start of a piece) or mark. see: another's on this host; a mark is then closed as one's
   own, a window by unsee, before its owner frees it. */
bool kwm_lane_offer(kwm_device *device, void *memory, struct kwm_ticket *ticket);
bool kwm_mark_offer(kwm_device *device, kwm_mark *mark, struct kwm_ticket *ticket);
void *kwm_lane_see(kwm_device *device, const struct kwm_ticket *ticket);
kwm_mark *kwm_mark_see(kwm_device *device, const struct kwm_ticket *ticket);
void kwm_lane_unsee(kwm_device *device, void *window);
