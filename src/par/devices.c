/* Ranks and their devices: who takes which, and sums over replicas and owners of what lies on devices. */
#include <string.h>

#include "kwm/par.h"

int kwm_par_local_rank(void) {
  MPI_Comm host;
  int rank = 0;
  MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &host);
  MPI_Comm_rank(host, &rank);
  MPI_Comm_free(&host);
  return rank;
}

struct seat {
  char host[KWM_HOST_BYTES];
  int index;
};

/* Two processes of one set on one device: a group of devices cannot hold both. */
static bool is_shared(MPI_Comm comm, const kwm_device *device) {
  char name[MPI_MAX_PROCESSOR_NAME] = "";
  struct seat mine = {.index = device->index}, other;
  int length = 0, rank = 0, size = 0;
  bool shared = false;
  MPI_Comm_rank(comm, &rank);
  MPI_Comm_size(comm, &size);
  MPI_Get_processor_name(name, &length);
  memcpy(mine.host, name, sizeof mine.host - 1);
  for (int r = 0; r < size; r++) {
    other = mine;
    MPI_Bcast(&other, (int)sizeof other, MPI_BYTE, r, comm);
    shared = shared || (r != rank && memcmp(&other, &mine, sizeof mine) == 0);
  }
  return shared;
}

bool kwm_par_share_devices(struct kwm_layout *layout, const kwm_device *device) {
  return is_shared(layout->world, device);
}

kwm_status kwm_par_join_devices(struct kwm_layout *layout, kwm_device *device, bool owners) {
  unsigned char identity[KWM_DEVICE_IDENTITY] = {0};
  const bool all = owners && layout->owners > 1, offers = !kwm_par_any(layout, !kwm_device_offers(device));
  const MPI_Comm comm = all ? layout->world : layout->peers;
  int rank = 0, size = 0;
  MPI_Comm_rank(comm, &rank);
  MPI_Comm_size(comm, &size);
  if (size == 1 || !offers) return KWM_OK;
  if (kwm_par_any(layout, is_shared(comm, device))) return KWM_OK;
  kwm_status status = rank == 0 ? kwm_device_identity(device, identity) : KWM_OK;
  KWM_TRY(kwm_agree(layout->world, status));
  MPI_Bcast(identity, KWM_DEVICE_IDENTITY, MPI_BYTE, 0, comm);
  KWM_TRY(kwm_agree(layout->world, kwm_device_join(device, identity, rank, size)));
  layout->devices_talk = layout->replicas > 1;
  layout->owners_talk = all;
  return KWM_OK;
}

/* The number in the group of devices of a rank of this stage. */
static int device_number(const struct kwm_layout *layout, int replica, int owner) {
  return layout->owners_talk ? (replica * layout->stages + layout->stage) * layout->owners + owner : replica;
}

static void sum_through_host(struct kwm_layout *layout, kwm_device *device, const struct kwm_sum *sum) {
  const size_t bytes = (size_t)sum->n * sizeof(float);
  if (device == NULL) {
    kwm_par_sum_replicas(layout, sum->n, sum->values, sum->scratch);
    return;
  }
  kwm_device_get(device, sum->staging, sum->values, bytes);
  kwm_par_sum_replicas(layout, sum->n, sum->staging, sum->staging + sum->n);
  kwm_device_put(device, sum->values, sum->staging, bytes);
}

/* Level by level with the partner of the same tree: a + b and b + a are the same bits. */
static void sum_between(struct kwm_layout *layout, kwm_device *device, const struct kwm_sum *sum) {
  const struct kwm_device_message message = {sum->n, sum->values, sum->scratch};
  for (int half = 1; half < layout->replicas && sum->n > 0; half *= 2) {
    kwm_device_exchange(device, device_number(layout, layout->replica ^ half, layout->owner), &message);
    kwm_device_add(device, sum->n, sum->scratch, sum->values);
  }
}

void kwm_par_sum_replicas_device(struct kwm_layout *layout, kwm_device *device, const struct kwm_sum *sum) {
  if (device != NULL && layout->replicas == 1) return;
  if (device != NULL && layout->devices_talk)
    sum_between(layout, device, sum);
  else
    sum_through_host(layout, device, sum);
}

/* Between two owners, places counted from `root`; each sends as much as it gets, wanted or not. */
static void exchange_mates(struct kwm_layout *layout, kwm_device *device, int root, int place, int64_t n,
                           const float *send, float *receive) {
  const struct kwm_device_message message = {n, send, receive};
  kwm_device_exchange(device, device_number(layout, layout->replica, (place + root) % layout->owners), &message);
}

/* kwm_par_sum_mates' tree. */
static void sum_to_between(struct kwm_layout *layout, kwm_device *device, int owner, const struct kwm_sum *sum) {
  const int owners = layout->owners, place = (layout->owner - owner + owners) % owners;
  for (int half = 1; half < owners; half *= 2) {
    const bool adds = place % (2 * half) == 0;
    const int other = adds ? place + half : place - half;
    if (other >= owners) continue;
    exchange_mates(layout, device, owner, other, sum->n, sum->values, sum->scratch);
    if (!adds) return;
    kwm_device_add(device, sum->n, sum->scratch, sum->values);
  }
}

void kwm_par_sum_to_owner(struct kwm_layout *layout, kwm_device *device, int owner, const struct kwm_sum *sum) {
  const size_t bytes = (size_t)sum->n * sizeof(float);
  if (device == NULL) {
    kwm_par_sum_mates(layout, owner, sum->n, sum->values, sum->scratch);
  } else if (layout->owners_talk) {
    sum_to_between(layout, device, owner, sum);
  } else {
    kwm_device_get(device, sum->staging, sum->values, bytes);
    kwm_par_sum_mates(layout, owner, sum->n, sum->staging, sum->staging + sum->n);
    if (layout->owner == owner) kwm_device_put(device, sum->values, sum->staging, bytes);
  }
}

/* The tree the other way: who has the values gives them on to the place half a level behind. */
static void spread_between(struct kwm_layout *layout, kwm_device *device, int owner, const struct kwm_sum *sum) {
  const int owners = layout->owners, place = (layout->owner - owner + owners) % owners;
  int half = 1;
  while (2 * half < owners) half *= 2;
  for (; half >= 1; half /= 2) {
    const bool gives = place % (2 * half) == 0;
    const int other = gives ? place + half : place - half;
    if (place % half != 0 || other >= owners) continue;
    exchange_mates(layout, device, owner, other, sum->n, gives ? sum->values : sum->scratch,
                   gives ? sum->scratch : sum->values);
  }
}

void kwm_par_spread_from_owner(struct kwm_layout *layout, kwm_device *device, int owner, const struct kwm_sum *sum) {
  const size_t bytes = (size_t)sum->n * sizeof(float);
  if (device == NULL) {
    kwm_par_broadcast_mates(layout, owner, sum->values, (int64_t)bytes);
  } else if (layout->owners_talk) {
    spread_between(layout, device, owner, sum);
  } else {
    if (layout->owner == owner) kwm_device_get(device, sum->staging, sum->values, bytes);
    kwm_par_broadcast_mates(layout, owner, sum->staging, (int64_t)bytes);
    if (layout->owner != owner) kwm_device_put(device, sum->values, sum->staging, bytes);
  }
}
