/* Lanes of devices (kwm/lane.h), and what stands for them on the host: copies at once, marks that tell the time. */
#include "kwm/lane.h"

#include <string.h>

#include "kwm/device_ops.h"
#include "lane_seconds.h"

/* The host's mark: when it was last set. */
struct host_mark {
  double seconds;
};

static const struct kwm_lane_ops *ops_of(const kwm_device *device) {
  return device->ops->lane;
}

kwm_status kwm_lane_open(kwm_device *device, kwm_lane **lane) {
  *lane = NULL;
  if (device == NULL) return KWM_OK;
  *lane = ops_of(device)->open(device);
  KWM_CHECK(*lane != NULL, KWM_ERR_SYSTEM, "backend %s: wanted one more lane for copies, could not have it",
            device->ops->name);
  return KWM_OK;
}

void kwm_lane_close(kwm_device *device, kwm_lane *lane) {
  if (lane != NULL) ops_of(device)->close(device, lane);
}

kwm_status kwm_lane_pin(kwm_device *device, void **at, size_t bytes, const char *what) {
  if (device == NULL) return kwm_alloc(at, bytes, what);
  *at = ops_of(device)->pin(device, bytes);
  KWM_CHECK(*at != NULL, KWM_ERR_SYSTEM, "backend %s: wanted %zu bytes of pinned memory for %s, found no room",
            device->ops->name, bytes, what);
  return KWM_OK;
}

void kwm_lane_unpin(kwm_device *device, void *at) {
  if (device == NULL)
    kwm_free(at);
  else if (at != NULL)
    ops_of(device)->unpin(device, at);
}

void kwm_lane_copy(kwm_device *device, kwm_lane *lane, void *to, const void *from, size_t bytes) {
  if (device == NULL)
    memcpy(to, from, bytes);
  else
    ops_of(device)->copy(device, lane, to, from, bytes);
}

kwm_status kwm_mark_open(kwm_device *device, kwm_mark **mark, bool timed) {
  *mark = NULL;
  if (device == NULL) return kwm_alloc((void **)mark, sizeof(struct host_mark), "mark");
  *mark = ops_of(device)->mark(device, timed);
  KWM_CHECK(*mark != NULL, KWM_ERR_SYSTEM, "backend %s: wanted one more mark, could not have it", device->ops->name);
  return KWM_OK;
}

void kwm_mark_close(kwm_device *device, kwm_mark *mark) {
  if (device == NULL)
    kwm_free(mark);
  else if (mark != NULL)
    ops_of(device)->unmark(device, mark);
}

void kwm_mark_set(kwm_device *device, kwm_lane *lane, kwm_mark *mark) {
  if (device == NULL)
    ((struct host_mark *)(void *)mark)->seconds = lane_seconds();
  else
    ops_of(device)->set(device, lane, mark);
}

void kwm_mark_follow(kwm_device *device, kwm_lane *lane, kwm_mark *mark) {
  if (device != NULL) ops_of(device)->follow(device, lane, mark);
}

bool kwm_mark_passed(kwm_device *device, kwm_mark *mark) {
  return device == NULL || ops_of(device)->passed(device, mark);
}

double kwm_mark_between(kwm_device *device, kwm_mark *from, kwm_mark *to) {
  if (device == NULL) return ((struct host_mark *)(void *)to)->seconds - ((struct host_mark *)(void *)from)->seconds;
  return ops_of(device)->between(device, from, to);
}

bool kwm_lane_offer(kwm_device *device, void *memory, struct kwm_ticket *ticket) {
  return device != NULL && ops_of(device)->offer(device, memory, ticket);
}

bool kwm_mark_offer(kwm_device *device, kwm_mark *mark, struct kwm_ticket *ticket) {
  return device != NULL && ops_of(device)->offer_mark(device, mark, ticket);
}

void *kwm_lane_see(kwm_device *device, const struct kwm_ticket *ticket) {
  return device == NULL ? NULL : ops_of(device)->see(device, ticket);
}

kwm_mark *kwm_mark_see(kwm_device *device, const struct kwm_ticket *ticket) {
  return device == NULL ? NULL : ops_of(device)->see_mark(device, ticket);
}

void kwm_lane_unsee(kwm_device *device, void *window) {
  if (window != NULL) ops_of(device)->unsee(device, window);
}
