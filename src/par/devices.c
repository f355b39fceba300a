/* Ranks and their devices: who takes which, and sums over replicas of what lies on devices. */
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

/* Two processes of one set of peers on one device: a group of devices cannot hold both. */
static bool is_shared(const struct kwm_layout *layout, const kwm_device *device) {
  char name[MPI_MAX_PROCESSOR_NAME] = "";
  struct seat mine = {.index = device->index}, other;
  int length = 0;
  bool shared = false;
  MPI_Get_processor_name(name, &length);
  memcpy(mine.host, name, sizeof mine.host - 1);
  for (int r = 0; r < layout->replicas; r++) {
    other = mine;
    MPI_Bcast(&other, (int)sizeof other, MPI_BYTE, r, layout->peers);
    shared = shared || (r != layout->replica && memcmp(&other, &mine, sizeof mine) == 0);
  }
  return shared;
}

kwm_status kwm_par_join_devices(struct kwm_layout *layout, kwm_device *device) {
  unsigned char identity[KWM_DEVICE_IDENTITY] = {0};
  const bool offers = !kwm_par_any(layout, !kwm_device_offers(device));
  if (layout->replicas == 1 || !offers) return KWM_OK;
  if (kwm_par_any(layout, is_shared(layout, device))) return KWM_OK;
  kwm_status status = layout->replica == 0 ? kwm_device_identity(device, identity) : KWM_OK;
  KWM_TRY(kwm_agree(layout->world, status));
  MPI_Bcast(identity, KWM_DEVICE_IDENTITY, MPI_BYTE, 0, layout->peers);
  KWM_TRY(kwm_agree(layout->world, kwm_device_join(device, identity, layout->replica, layout->replicas)));
  layout->devices_talk = true;
  return KWM_OK;
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
static void sum_between(struct kwm_layout *layout, kwm_device *device, int count, const struct kwm_sum *sums) {
  struct kwm_device_message messages[KWM_SUMS_MAX];
  int n = 0;
  for (int k = 0; k < count; k++)
    if (sums[k].n > 0) messages[n++] = (struct kwm_device_message){sums[k].n, sums[k].values, sums[k].scratch};
  for (int half = 1; half < layout->replicas && n > 0; half *= 2) {
    kwm_device_exchange(device, layout->replica ^ half, n, messages);
    for (int k = 0; k < count; k++) kwm_device_add(device, sums[k].n, sums[k].scratch, sums[k].values);
  }
}

void kwm_par_sum_replicas_device(struct kwm_layout *layout, kwm_device *device, int count, const struct kwm_sum *sums) {
  KWM_ASSERT(count <= KWM_SUMS_MAX);
  if (device != NULL && layout->replicas == 1) return;
  if (device != NULL && layout->devices_talk) {
    sum_between(layout, device, count, sums);
    return;
  }
  for (int k = 0; k < count; k++) sum_through_host(layout, device, &sums[k]);
}
