/* Lanes of the CUDA device: streams beside its own; marks are events; windows and their marks are CUDA's own memory and
   events shared between processes of a host, so that what one GPU copies to another passes through nobody's hands. No
   kernel waits in them: what a GPU waits for is an event, which takes nothing of it. */
#include <stdlib.h>
#include <string.h>

#include "cuda_state.h"
#include "kwm/lane.h"

_Static_assert(sizeof(cudaIpcMemHandle_t) == KWM_TICKET_BYTES, "a ticket holds a handle of memory");
_Static_assert(sizeof(cudaIpcEventHandle_t) == KWM_TICKET_BYTES, "a ticket holds a handle of an event");

/* asked: what the device was asked before a copy. */
struct cuda_lane {
  cudaStream_t stream;
  cudaEvent_t asked;
};

static struct cuda_lane *lane_of(kwm_lane *lane) {
  return (struct cuda_lane *)(void *)lane;
}

static cudaEvent_t event_of(kwm_mark *mark) {
  return (cudaEvent_t)(void *)mark;
}

static cudaStream_t stream_of(kwm_device *d, kwm_lane *lane) {
  return lane == NULL ? cuda_stream(d) : lane_of(lane)->stream;
}

/* What may fail and did is forgotten, so that later checks do not find it. */
static bool went(cudaError_t error) {
  if (error != cudaSuccess) (void)cudaGetLastError();
  return error == cudaSuccess;
}

static void lane_close(kwm_device *d, kwm_lane *lane) {
  (void)d;
  cudaStreamSynchronize(lane_of(lane)->stream);
  cudaStreamDestroy(lane_of(lane)->stream);
  if (lane_of(lane)->asked != NULL) cudaEventDestroy(lane_of(lane)->asked);
  free(lane);
}

static kwm_lane *lane_open(kwm_device *d) {
  struct cuda_lane *const lane = calloc(1, sizeof *lane);
  if (lane == NULL) return NULL;
  if (!went(cudaStreamCreateWithFlags(&lane->stream, cudaStreamNonBlocking))) {
    free(lane);
    return NULL;
  }
  if (!went(cudaEventCreateWithFlags(&lane->asked, cudaEventDisableTiming))) {
    lane_close(d, (kwm_lane *)(void *)lane);
    return NULL;
  }
  return (kwm_lane *)(void *)lane;
}

static void *pin(kwm_device *d, size_t bytes) {
  (void)d;
  void *at = NULL;
  return went(cudaHostAlloc(&at, bytes, cudaHostAllocDefault)) ? at : NULL;
}

static void unpin(kwm_device *d, void *at) {
  (void)d;
  CUDA_MUST(cuda, cudaFreeHost(at));
}

static void copy(kwm_device *d, kwm_lane *lane, void *to, const void *from, size_t bytes) {
  const struct cuda_lane *const its = lane_of(lane);
  CUDA_MUST(cuda, cudaEventRecord(its->asked, cuda_stream(d)));
  CUDA_MUST(cuda, cudaStreamWaitEvent(its->stream, its->asked, 0));
  CUDA_MUST(cuda, cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, its->stream));
}

static kwm_mark *mark_open(kwm_device *d, bool timed) {
  (void)d;
  const unsigned flags = timed ? cudaEventDefault : cudaEventDisableTiming | cudaEventInterprocess;
  cudaEvent_t event = NULL;
  return went(cudaEventCreateWithFlags(&event, flags)) ? (kwm_mark *)(void *)event : NULL;
}

static void mark_close(kwm_device *d, kwm_mark *mark) {
  (void)d;
  (void)went(cudaEventDestroy(event_of(mark)));
}

static void mark_set(kwm_device *d, kwm_lane *lane, kwm_mark *mark) {
  CUDA_MUST(cuda, cudaEventRecord(event_of(mark), stream_of(d, lane)));
}

static void mark_follow(kwm_device *d, kwm_lane *lane, kwm_mark *mark) {
  CUDA_MUST(cuda, cudaStreamWaitEvent(stream_of(d, lane), event_of(mark), 0));
}

static bool mark_passed(kwm_device *d, kwm_mark *mark) {
  (void)d;
  const cudaError_t error = cudaEventQuery(event_of(mark));
  if (error == cudaErrorNotReady) {
    (void)cudaGetLastError();
    return false;
  }
  CUDA_MUST(cuda, error);
  return true;
}

static double mark_between(kwm_device *d, kwm_mark *from, kwm_mark *to) {
  (void)d;
  float milliseconds = 0;
  CUDA_MUST(cuda, cudaEventElapsedTime(&milliseconds, event_of(from), event_of(to)));
  return 1e-3 * (double)milliseconds;
}

static bool offer(kwm_device *d, void *memory, struct kwm_ticket *ticket) {
  (void)d;
  cudaIpcMemHandle_t handle;
  if (!went(cudaIpcGetMemHandle(&handle, memory))) return false;
  memcpy(ticket, &handle, sizeof handle);
  return true;
}

static bool offer_mark(kwm_device *d, kwm_mark *mark, struct kwm_ticket *ticket) {
  (void)d;
  cudaIpcEventHandle_t handle;
  if (!went(cudaIpcGetEventHandle(&handle, event_of(mark)))) return false;
  memcpy(ticket, &handle, sizeof handle);
  return true;
}

static void *see(kwm_device *d, const struct kwm_ticket *ticket) {
  (void)d;
  void *window = NULL;
  cudaIpcMemHandle_t handle;
  memcpy(&handle, ticket, sizeof handle);
  return went(cudaIpcOpenMemHandle(&window, handle, cudaIpcMemLazyEnablePeerAccess)) ? window : NULL;
}

static kwm_mark *see_mark(kwm_device *d, const struct kwm_ticket *ticket) {
  (void)d;
  cudaEvent_t event = NULL;
  cudaIpcEventHandle_t handle;
  memcpy(&handle, ticket, sizeof handle);
  return went(cudaIpcOpenEventHandle(&event, handle)) ? (kwm_mark *)(void *)event : NULL;
}

static void unsee(kwm_device *d, void *window) {
  (void)d;
  (void)went(cudaIpcCloseMemHandle(window));
}

const struct kwm_lane_ops cuda_lane = {
    .open = lane_open,
    .close = lane_close,
    .pin = pin,
    .unpin = unpin,
    .copy = copy,
    .mark = mark_open,
    .unmark = mark_close,
    .set = mark_set,
    .follow = mark_follow,
    .passed = mark_passed,
    .between = mark_between,
    .offer = offer,
    .offer_mark = offer_mark,
    .see = see,
    .see_mark = see_mark,
    .unsee = unsee,
};
