/* Messages between the ranks of a replica, each link of one direction, from device to device beside what both compute.
   Where the sender's device sees the receiver's (kwm/lane.h: one host), it copies there itself and MPI carries a word
   of it; else rows pass through pinned memory and MPI. Nobody's device waits for its host, nor is anything of it taken
   for waiting, unless processes share it: then they take turns, also to wait. A host waits only for what another has
   not asked its device for yet, so a schedule that holds with messages that block until they are sent holds here.
   Copies keep every bit. */
#pragma once

#include "kwm/lane.h"
#include "kwm/par.h"

enum { KWM_LINK_SLOTS_MAX = 64 };

/* from, to: ranks in the group. slots: messages under way before a sender waits for the receiver. floats: of the
   longest message. */
struct kwm_link_spec {
  int from, to, slots;
  int64_t floats;
};

typedef struct kwm_links kwm_links;

/* Collective over world; the ranks that a link joins have the same list; device and layout are borrowed. direct: device
   to device where that can be. Link k is specs[k]. close is local and accepts NULL; what was sent and not received is
   lost. */
kwm_status kwm_links_open(kwm_links **links, struct kwm_layout *layout, kwm_device *device, bool direct, int n,
                          const struct kwm_link_spec *specs);
void kwm_links_close(kwm_links *links);

/* A message is n arrays of the device's, one behind the other, of the lengths with which it is received; without a
   device it is one. send: as they are when all that was asked of the device before is done; they may be changed by what
   is asked after settle. receive: parts <- the next message, for what is asked after it. */
struct kwm_link_part {
  float *at; /* borrowed until then; send only reads */
  int64_t floats;
};
void kwm_link_send(kwm_links *links, int k, int n, const struct kwm_link_part *parts);
void kwm_link_settle(kwm_links *links, int k);
void kwm_link_receive(kwm_links *links, int k, int n, const struct kwm_link_part *parts);

/* Settles all links, waits for nothing. */
void kwm_links_settle(kwm_links *links);

/* drain: all that was sent is on its way without this host: before it waits for others in another way. finish: what was
   sent through the host has arrived, too, so that nobody waits for this host to go on with it. Both accept NULL. */
void kwm_links_drain(kwm_links *links);
void kwm_links_finish(kwm_links *links);

/* How many of the links that end here are direct, and how many there are; in words, "" without links. */
void kwm_links_count(const kwm_links *links, int *direct, int *all);
const char *kwm_links_words(const kwm_links *links);

/* Seconds since the call before for which this rank's device waited for messages, and for which its host did, which
   may have been while the device worked. After kwm_device_wait. */
struct kwm_links_waits {
  double device, host;
};
struct kwm_links_waits kwm_links_waited(kwm_links *links);

/* Bytes that a rank of the group takes for these links: on its device, if all are direct, and on its host. */
struct kwm_link_bytes {
  double device, host;
};
struct kwm_link_bytes kwm_links_bytes(int rank, bool on_device, int n, const struct kwm_link_spec *specs);
