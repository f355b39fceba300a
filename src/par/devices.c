/* Ranks and their devices: who takes which, and sums over replicas and owners of what lies on devices. */
#include <string.h>

#include "kwm/device_ops.h"
#include "kwm/rooms.h"
#include "wait.h"

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
  struct seat mine, other;
  int rank = 0, size = 0;
  bool shared = false;
  MPI_Comm_rank(comm, &rank);
  MPI_Comm_size(comm, &size);
  memset(&mine, 0, sizeof mine);
  mine.index = device->index;
  par_host_name(mine.host);
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

kwm_status kwm_par_join_devices(struct kwm_layout *layout, kwm_device *device, bool all) {
  unsigned char identity[KWM_DEVICE_IDENTITY] = {0};
  const bool groups = all && layout->stages * layout->owners > 1;
  const bool offers = !kwm_par_any(layout, !kwm_device_offers(device));
  const MPI_Comm comm = groups ? layout->world : layout->peers;
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
  layout->owners_talk = groups;
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
  if (device != NULL && sum->rooms != NULL)
    kwm_rooms_sum(sum->rooms, sum->n, sum->values);
  else if (device != NULL && layout->devices_talk)
    sum_between(layout, device, sum);
  else
    sum_through_host(layout, device, sum);
}

/* Ranks whose devices are numbered one after the other, places counted from `root`. */
struct circle {
  int first, size, root, place;
};

static struct circle mates_from(const struct kwm_layout *layout, int owner) {
  return (struct circle){.first = device_number(layout, layout->replica, 0),
                         .size = layout->owners,
                         .root = owner,
                         .place = (layout->owner - owner + layout->owners) % layout->owners};
}

static struct circle group_of(const struct kwm_layout *layout) {
  const int size = layout->stages * layout->owners;
  return (struct circle){
      .first = layout->replica * size, .size = size, .place = layout->stage * layout->owners + layout->owner};
}

/* Each sends as much as it gets, wanted or not. */
static void exchange_with(const struct circle *circle, kwm_device *device, int place, int64_t floats, const void *send,
                          void *receive) {
  const struct kwm_device_message message = {floats, send, receive};
  kwm_device_exchange(device, circle->first + (place + circle->root) % circle->size, &message);
}

/* A tree over a circle; values and scratch: floats, or, wide, doubles, n of them. */
struct tree {
  int64_t n;
  void *values, *scratch;
  bool wide;
};

static int64_t floats_of(const struct tree *tree) {
  return tree->wide ? tree->n * (int64_t)(sizeof(double) / sizeof(float)) : tree->n;
}

static void add_scratch(kwm_device *device, const struct tree *tree) {
  if (tree->wide)
    device->ops->add_f64(device, tree->n, tree->scratch, tree->values);
  else
    kwm_device_add(device, tree->n, tree->scratch, tree->values);
}

/* kwm_par_sum_mates' tree. */
static void sum_to_between(const struct circle *circle, kwm_device *device, const struct tree *tree) {
  for (int half = 1; half < circle->size; half *= 2) {
    const bool adds = circle->place % (2 * half) == 0;
    const int other = adds ? circle->place + half : circle->place - half;
    if (other >= circle->size) continue;
    exchange_with(circle, device, other, floats_of(tree), tree->values, tree->scratch);
    if (!adds) return;
    add_scratch(device, tree);
  }
}

/* The tree the other way: who has the values gives them on to the place half a level behind. */
static void spread_between(const struct circle *circle, kwm_device *device, const struct tree *tree) {
  int half = 1;
  while (2 * half < circle->size) half *= 2;
  for (; half >= 1; half /= 2) {
    const bool gives = circle->place % (2 * half) == 0;
    const int other = gives ? circle->place + half : circle->place - half;
    if (circle->place % half != 0 || other >= circle->size) continue;
    exchange_with(circle, device, other, floats_of(tree), gives ? tree->values : tree->scratch,
                  gives ? tree->scratch : tree->values);
  }
}

static struct tree tree_of(const struct kwm_sum *sum) {
  return (struct tree){sum->n, sum->values, sum->scratch, false};
}

void kwm_par_sum_to_owner(struct kwm_layout *layout, kwm_device *device, int owner, const struct kwm_sum *sum) {
  const size_t bytes = (size_t)sum->n * sizeof(float);
  if (device == NULL) {
    kwm_par_sum_mates(layout, owner, sum->n, sum->values, sum->scratch);
  } else if (layout->owners_talk) {
    const struct circle mates = mates_from(layout, owner);
    const struct tree tree = tree_of(sum);
    sum_to_between(&mates, device, &tree);
  } else {
    kwm_device_get(device, sum->staging, sum->values, bytes);
    kwm_par_sum_mates(layout, owner, sum->n, sum->staging, sum->staging + sum->n);
    if (layout->owner == owner) kwm_device_put(device, sum->values, sum->staging, bytes);
  }
}

void kwm_par_spread_from_owner(struct kwm_layout *layout, kwm_device *device, int owner, const struct kwm_sum *sum) {
  const size_t bytes = (size_t)sum->n * sizeof(float);
  if (device == NULL) {
    kwm_par_broadcast_mates(layout, owner, sum->values, (int64_t)bytes);
  } else if (layout->owners_talk) {
    const struct circle mates = mates_from(layout, owner);
    const struct tree tree = tree_of(sum);
    spread_between(&mates, device, &tree);
  } else {
    if (layout->owner == owner) kwm_device_get(device, sum->staging, sum->values, bytes);
    kwm_par_broadcast_mates(layout, owner, sum->staging, (int64_t)bytes);
    if (layout->owner != owner) kwm_device_put(device, sum->values, sum->staging, bytes);
  }
}

void kwm_par_sum_group_device(struct kwm_layout *layout, kwm_device *device, const struct kwm_sum_f64 *sum) {
  const size_t bytes = (size_t)sum->n * sizeof *sum->values;
  if (layout->owners_talk) {
    const struct circle group = group_of(layout);
    const struct tree tree = {sum->n, sum->values, sum->scratch, true};
    sum_to_between(&group, device, &tree);
    spread_between(&group, device, &tree);
  } else if (layout->stages * layout->owners > 1) {
    kwm_device_get(device, sum->staging, sum->values, bytes);
    par_sum_group_pairs(layout, sum->n, sum->staging, sum->staging + sum->n);
    kwm_device_put(device, sum->values, sum->staging, bytes);
  }
}
