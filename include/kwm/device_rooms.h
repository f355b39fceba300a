/* How a room in a device's memory is divided, in which the devices of a sum meet (kwm/device_ops.h: sum_rooms): terms
   that the others write there, sums that they made, and words that say that either is whole.

   n numbers are cut into shares, one a device. Each device writes its terms of every share into the room of the share's
   device, which adds them and writes the sum into all rooms: every number crosses once each way, whatever the number of
   devices. Terms and sums have places for two turns: who begins a turn has all sums of the one before, so all have read
   what was written in the last but one. */
#pragma once

#include <stdint.h>

#ifdef __CUDACC__
#define ROOM_DEVICE __host__ __device__
#else
#define ROOM_DEVICE
#endif

/* Devices of a sum; pieces into which a share is cut that are waited for one by one. */
enum { KWM_ROOMS_MAX = 8, KWM_ROOM_LINES = 128 };

struct kwm_device_rooms {
  int rank, size;           /* this device's place; size: a power of two */
  uint32_t turn;            /* 1, 2, ...; what words say */
  int64_t share;            /* floats of the longest share */
  double *seconds;          /* of shared memory: how long sums took here, waiting for others with it, is added */
  float *at[KWM_ROOMS_MAX]; /* each device's room, as this device sees it; 16-byte aligned */
};

/* Of n floats; whole vectors of four. */
static ROOM_DEVICE inline int64_t kwm_room_share(int64_t n, int size) {
  return (n + 4 * size - 1) / (4 * size) * 4;
}

static ROOM_DEVICE inline int64_t kwm_room_floats(const struct kwm_device_rooms *rooms) {
  return 4 * rooms->size * rooms->share + 2 * rooms->size * KWM_ROOM_LINES;
}

/* Where in a room, in floats: the terms of `place` of the room's own share; the sum of `place`'s share; the words of
   `place` about the one or the other (KWM_ROOM_LINES words of 32 bits). */
static ROOM_DEVICE inline int64_t kwm_room_term(const struct kwm_device_rooms *rooms, int place) {
  return ((int64_t)(rooms->turn % 2) * rooms->size + place) * rooms->share;
}
static ROOM_DEVICE inline int64_t kwm_room_sum(const struct kwm_device_rooms *rooms, int place) {
  return ((int64_t)(2 + rooms->turn % 2) * rooms->size + place) * rooms->share;
}
static ROOM_DEVICE inline int64_t kwm_room_words(const struct kwm_device_rooms *rooms, int place, int of_sums) {
  return 4 * rooms->size * rooms->share + (int64_t)(of_sums * rooms->size + place) * KWM_ROOM_LINES;
}
