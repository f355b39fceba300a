/* Devices that talk to each other without the host, by NCCL. A build without it leaves this file out. */
#include <nccl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cuda_state.h"

_Static_assert(sizeof(ncclUniqueId) == KWM_DEVICE_IDENTITY, "an identity is NCCL's");

static const char *cuda_words_nccl(int error) {
  return ncclGetErrorString((ncclResult_t)error);
}

/* Setting up may fail where the host's way still works: the caller decides. */
static bool done(const char *what, ncclResult_t result) {
  if (result == ncclSuccess) return true;
  fprintf(stderr, "kwm: NCCL: wanted %s, found: %s\n", what, cuda_words_nccl((int)result));
  return false;
}

bool cuda_identity(kwm_device *d, unsigned char identity[KWM_DEVICE_IDENTITY]) {
  (void)d;
  ncclUniqueId id;
  if (!done("an identity", ncclGetUniqueId(&id))) return false;
  memcpy(identity, &id, sizeof id);
  return true;
}

/* Multicast in the switch serves sums, which are not asked for here: it would only take memory. */
bool cuda_join(kwm_device *d, const unsigned char identity[KWM_DEVICE_IDENTITY], int rank, int size) {
  ncclUniqueId id;
  ncclComm_t group = NULL;
  memcpy(&id, identity, sizeof id);
  setenv("NCCL_NVLS_ENABLE", "0", 0);
  cuda_leave(d);
  if (!done("a group of devices", ncclCommInitRank(&group, size, id, rank))) return false;
  cuda_state_of(d)->group = group;
  return true;
}

void cuda_exchange(kwm_device *d, int peer, const struct kwm_device_message *message) {
  const struct cuda_state *const state = cuda_state_of(d);
  const ncclComm_t group = state->group;
  CUDA_MUST(nccl, ncclGroupStart());
  CUDA_MUST(nccl, ncclSend(message->send, (size_t)message->n, ncclFloat, peer, group, cuda_stream(d)));
  CUDA_MUST(nccl, ncclRecv(message->receive, (size_t)message->n, ncclFloat, peer, group, cuda_stream(d)));
  CUDA_MUST(nccl, ncclGroupEnd());
}

void cuda_leave(kwm_device *d) {
  struct cuda_state *const state = cuda_state_of(d);
  if (state->group != NULL) ncclCommDestroy(state->group);
  state->group = NULL;
}
