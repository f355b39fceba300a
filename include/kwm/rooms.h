/* Sums over replicas whose devices are on one host and see each other's memory: one kernel on each device, which meets
   the others' in rooms there (kwm/device_rooms.h). No host, library or copy stands between them. */
#pragma once

#include "kwm/par.h"

typedef struct kwm_rooms kwm_rooms;

/* Collective over world. For sums of at most n floats, the same n with all peers. *rooms NULL, and all is well: peers
   are one or too many, on several hosts, ranks share a device, or devices cannot. Layout and device are borrowed.
   close: collective over peers, accepts NULL. */
kwm_status kwm_rooms_open(kwm_rooms **rooms, struct kwm_layout *layout, kwm_device *device, int64_t n);
void kwm_rooms_close(kwm_rooms *rooms);

/* Collective over peers: values (n), the device's, 16-byte aligned, n a multiple of 4, <- their sums in the tree of
   kwm_par_sum_replicas. How long the devices took, waiting for each other with it, counts as communication; of one sum
   when the next begins. */
void kwm_rooms_sum(kwm_rooms *rooms, int64_t n, float *values);

/* Bytes of a room on the device. */
size_t kwm_rooms_bytes(int64_t replicas, int64_t n);
