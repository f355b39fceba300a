/* Rooms for sums over replicas (kwm/rooms.h): how they are opened, seen and used. */
#include "kwm/rooms.h"

#include <string.h>

#include "kwm/device_ops.h"
#include "kwm/lane.h"
#include "wait.h"

struct kwm_rooms {
  struct kwm_layout *layout;
  kwm_device *device;
  struct kwm_device_rooms of;
  double counted; /* of the seconds that its sums took */
};

/* What every peer says of its device and room. */
struct offer {
  bool good;
  char host[KWM_HOST_BYTES];
  struct kwm_ticket room;
};

size_t kwm_rooms_bytes(int64_t replicas, int64_t n) {
  const struct kwm_device_rooms of = {.size = (int)replicas, .share = kwm_room_share(n, (int)replicas)};
  const size_t bytes = (size_t)kwm_room_floats(&of) * sizeof(float);
  if (replicas < 2 || replicas > KWM_ROOMS_MAX || n == 0) return 0;
  return (bytes + KWM_WINDOW_BYTES - 1) / KWM_WINDOW_BYTES * KWM_WINDOW_BYTES;
}

/* This device's own room, empty. */
static bool furnish(kwm_rooms *rooms, size_t bytes) {
  kwm_device *const device = rooms->device;
  float **const own = &rooms->of.at[rooms->of.rank];
  if (kwm_device_alloc(device, (void **)own, bytes, "rooms") != KWM_OK) return false;
  if (kwm_device_share(device, (void **)&rooms->of.seconds, sizeof(double), "rooms") != KWM_OK) return false;
  kwm_device_zero(device, *own, bytes);
  kwm_device_zero(device, rooms->of.seconds, sizeof(double));
  kwm_device_wait(device);
  return true;
}

static void make_offer(const kwm_rooms *rooms, struct offer *offer) {
  par_host_name(offer->host);
  if (offer->good) offer->good = kwm_lane_offer(rooms->device, rooms->of.at[rooms->of.rank], &offer->room);
}

/* All good, on one host. */
static bool agrees(const struct offer *offers, int size) {
  bool good = true;
  for (int r = 0; r < size; r++)
    good = good && offers[r].good && memcmp(offers[r].host, offers[0].host, sizeof offers[r].host) == 0;
  return good;
}

static bool see_all(kwm_rooms *rooms, const struct offer *offers) {
  bool good = true;
  for (int r = 0; r < rooms->of.size && good; r++) {
    if (r == rooms->of.rank) continue;
    rooms->of.at[r] = kwm_lane_see(rooms->device, &offers[r].room);
    good = rooms->of.at[r] != NULL;
  }
  return good;
}

static bool all_of(MPI_Comm comm, bool good) {
  int all = good;
  MPI_Allreduce(MPI_IN_PLACE, &all, 1, MPI_INT, MPI_LAND, comm);
  return all != 0;
}

/* The same answer with all peers. */
static bool shake(kwm_rooms *rooms, bool good) {
  const MPI_Comm peers = rooms->layout->peers;
  struct offer mine = {.good = good}, offers[KWM_ROOMS_MAX];
  make_offer(rooms, &mine);
  MPI_Allgather(&mine, (int)sizeof mine, MPI_BYTE, offers, (int)sizeof mine, MPI_BYTE, peers);
  if (!all_of(peers, agrees(offers, rooms->of.size))) return false;
  return all_of(peers, see_all(rooms, offers));
}

kwm_status kwm_rooms_open(kwm_rooms **rooms, struct kwm_layout *layout, kwm_device *device, int64_t n) {
  const size_t bytes = kwm_rooms_bytes(layout->replicas, n);
  kwm_rooms *made = NULL;
  *rooms = NULL;
  if (layout->replicas == 1 || device == NULL || kwm_par_share_devices(layout, device) || bytes == 0) return KWM_OK;
  KWM_TRY(kwm_agree(layout->peers, kwm_alloc((void **)&made, sizeof *made, "rooms")));
  *made = (kwm_rooms){.layout = layout, .device = device};
  made->of.rank = layout->replica, made->of.size = layout->replicas;
  made->of.share = kwm_room_share(n, layout->replicas);
  if (shake(made, furnish(made, bytes)))
    *rooms = made;
  else
    kwm_rooms_close(made);
  return KWM_OK;
}

/* A sum that has ended here has ended in this room; it stays until nobody sees it any more. */
void kwm_rooms_close(kwm_rooms *rooms) {
  if (rooms == NULL) return;
  kwm_device *const device = rooms->device;
  kwm_device_wait(device);
  for (int r = 0; r < rooms->of.size; r++)
    if (r != rooms->of.rank) kwm_lane_unsee(device, rooms->of.at[r]);
  MPI_Barrier(rooms->layout->peers);
  kwm_device_free(device, rooms->of.seconds);
  kwm_device_free(device, rooms->of.at[rooms->of.rank]);
  kwm_free(rooms);
}

/* What the sums took that the host knows to be done; on the shadow device not a number before the next wait. */
static void count_seconds(kwm_rooms *rooms) {
  const double seconds = *(const volatile double *)rooms->of.seconds;
  if (!(seconds > rooms->counted)) return;
  rooms->layout->comm_seconds += seconds - rooms->counted;
  rooms->counted = seconds;
}

void kwm_rooms_sum(kwm_rooms *rooms, int64_t n, float *values) {
  kwm_device *const device = rooms->device;
  KWM_ASSERT(n % 4 == 0 && kwm_room_share(n, rooms->of.size) <= rooms->of.share);
  count_seconds(rooms);
  if (n == 0) return;
  rooms->of.turn++;
  device->ops->sum_rooms(device, &rooms->of, n, values);
}
