/* Messages between the ranks of a replica, each link of one length and one direction, from device to device beside what
   both compute. Where the sender's device sees the receiver's (kwm/lane.h: one host), it copies there itself and MPI
   carries a word of it; else rows pass through pinned memory and MPI. Nobody's device waits for its host, nor takes
   anything of it for waiting; a host waits only for what another has not asked its device for yet, so a schedule that
   holds with messages that block until they are sent holds here. Copies keep every bit. */
#pragma once

#include "kwm/lane.h"
#include "kwm/par.h"

enum { KWM_LINK_SLOTS_MAX = 64 };

/* from, to: ranks in the group. slots: messages under way before a sender waits for the receiver. */
struct kwm_link_spec {
  int from, to, slots;
  int64_t floats;
};

typedef struct kwm_links kwm_links;

/* Collective over world, the same link k on both of its ranks; device and layout are borrowed. direct: device to device
   where that can be. Link k is specs[k]. close is local and accepts NULL; what was sent and not received is
   lost. */
kwm_status kwm_links_open(kwm_links **links, struct kwm_layout *layout, kwm_device *device, bool direct, int n,
                          const struct kwm_link_spec *specs);
void kwm_links_close(kwm_links *links);

/* rows (floats) are the device's. send: as they are when all that was asked of the device before is done; they may be
   changed by what is asked after settle. receive: rows <- the next message, for what is asked after it. */
void kwm_link_send(kwm_links *links, int k, const float *rows);
void kwm_link_settle(kwm_links *links, int k);
void kwm_link_receive(kwm_links *links, int k, float *rows);

/* All that was sent is on its way without this host: before it waits for others in another way. */
void kwm_links_drain(kwm_links *links);

/* How many of the links that end here are direct, and how many there are. */
void kwm_links_count(const kwm_links *links, int *direct, int *all);

/* Seconds since the call before for which this rank's device waited for messages, and for which its host did, which
   may have been while the device worked. After kwm_device_wait. */
struct kwm_links_waits {
  double device, host;
};
struct kwm_links_waits kwm_links_waited(kwm_links *links);

/* Bytes that a rank's device gives to links that end there, if all are direct. */
double kwm_links_bytes(int rank, int n, const struct kwm_link_spec *specs);
