/* Messages over links (kwm/link.h). */
#include <string.h>

#include "link_state.h"
#include "wait.h"

static int slot_of(const struct link_end *end, int64_t message) {
  return (int)(message % end->spec.slots);
}

static size_t bytes_of(const struct link_end *end) {
  return (size_t)end->spec.floats * sizeof(float);
}

static float *slot_in(float *slots, const struct link_end *end, int slot) {
  return slots + slot * end->spec.floats;
}

/* What the lanes have brought to the host goes on. True if nothing is left. */
static bool progress(kwm_links *links) {
  bool done = true;
  for (int k = 0; k < links->n; k++) {
    struct link_end *const end = &links->ends[k];
    while (end->posted < end->count && kwm_mark_passed(links->device, end->written[slot_of(end, end->posted)])) {
      const int slot = slot_of(end, end->posted++);
      end->requests[slot] = kwm_par_send(links->layout, end->spec.to, end->tag, slot_in(end->host_slots, end, slot),
                                         (int64_t)bytes_of(end));
    }
    done = done && end->posted == end->count;
  }
  return done;
}

static void end_wait(kwm_links *links, double start) {
  links->host_waits += kwm_par_seconds() - start;
  par_end_wait(links->layout, start);
}

/* Waits for MPI, while what others wait for goes on. */
static void await(kwm_links *links, MPI_Request *request) {
  const double start = par_begin_wait();
  int done = 0;
  while (!progress(links) && !done) MPI_Test(request, &done, MPI_STATUS_IGNORE);
  if (!done) MPI_Wait(request, MPI_STATUS_IGNORE);
  end_wait(links, start);
}

static void await_message(kwm_links *links, int from, int tag, void *data, size_t bytes) {
  MPI_Request request = par_receive(links->layout->group, from, tag, data, (int64_t)bytes);
  await(links, &request);
}

static void await_mark(kwm_links *links, kwm_mark *mark) {
  const double start = par_begin_wait();
  while (!kwm_mark_passed(links->device, mark)) progress(links);
  end_wait(links, start);
}

static void send_direct(kwm_links *links, struct link_end *end, int slot, const float *rows) {
  if (end->count >= end->spec.slots) {
    await_message(links, end->spec.to, end->tag + 1, NULL, 0);
    kwm_mark_follow(links->device, end->lane, end->taken[slot]);
  }
  await(links, &end->requests[slot]);
  kwm_lane_copy(links->device, end->lane, slot_in(end->window, end, slot), rows, bytes_of(end));
  kwm_mark_set(links->device, end->lane, end->written[slot]);
  end->requests[slot] = kwm_par_send(links->layout, end->spec.to, end->tag, NULL, 0);
  end->posted++;
}

static void send_through_host(kwm_links *links, struct link_end *end, int slot, const float *rows) {
  if (end->count >= end->spec.slots) await_mark(links, end->written[slot]);
  progress(links);
  await(links, &end->requests[slot]);
  kwm_lane_copy(links->device, end->lane, slot_in(end->host_slots, end, slot), rows, bytes_of(end));
  kwm_mark_set(links->device, end->lane, end->written[slot]);
}

void kwm_link_send(kwm_links *links, int k, const float *rows) {
  struct link_end *const end = &links->ends[k];
  const int slot = slot_of(end, end->count);
  KWM_ASSERT(end->sends);
  if (end->direct)
    send_direct(links, end, slot, rows);
  else
    send_through_host(links, end, slot, rows);
  end->count++;
  progress(links);
}

void kwm_link_settle(kwm_links *links, int k) {
  struct link_end *const end = &links->ends[k];
  KWM_ASSERT(end->sends);
  if (end->count > 0) kwm_mark_follow(links->device, NULL, end->written[slot_of(end, end->count - 1)]);
}

/* The device waits from the mark `begun` to the mark `arrived`. */
static void receive_direct(kwm_links *links, struct link_end *end, int slot, float *rows) {
  kwm_device *const device = links->device;
  kwm_mark_set(device, NULL, end->begun[slot]);
  await_message(links, end->spec.from, end->tag, NULL, 0);
  kwm_mark_follow(device, NULL, end->written[slot]);
  kwm_mark_set(device, NULL, end->arrived[slot]);
  kwm_device_copy(device, rows, slot_in(end->device_slots, end, slot), bytes_of(end));
  kwm_mark_set(device, NULL, end->taken[slot]);
  await(links, &end->requests[slot]);
  end->requests[slot] = kwm_par_send(links->layout, end->spec.from, end->tag + 1, NULL, 0);
}

static void receive_through_host(kwm_links *links, struct link_end *end, int slot, float *rows) {
  kwm_device *const device = links->device;
  float *const at = device == NULL ? rows : slot_in(end->host_slots, end, slot);
  if (end->count >= end->spec.slots) await_mark(links, end->taken[slot]);
  kwm_mark_set(device, NULL, end->begun[slot]);
  await_message(links, end->spec.from, end->tag, at, bytes_of(end));
  if (at != rows) kwm_lane_copy(device, end->lane, rows, at, bytes_of(end));
  kwm_mark_set(device, end->lane, end->taken[slot]);
  kwm_mark_follow(device, NULL, end->taken[slot]);
  kwm_mark_set(device, NULL, end->arrived[slot]);
}

void kwm_link_receive(kwm_links *links, int k, float *rows) {
  struct link_end *const end = &links->ends[k];
  const int slot = slot_of(end, end->count);
  KWM_ASSERT(end->receives);
  if (end->direct)
    receive_direct(links, end, slot, rows);
  else
    receive_through_host(links, end, slot, rows);
  end->posted = ++end->count;
}

void kwm_links_drain(kwm_links *links) {
  if (links == NULL) return;
  const double start = par_begin_wait();
  while (!progress(links)) continue;
  end_wait(links, start);
}

void kwm_links_count(const kwm_links *links, int *direct, int *all) {
  *direct = *all = 0;
  for (int k = 0; links != NULL && k < links->n; k++) {
    *all += links->ends[k].sends || links->ends[k].receives;
    *direct += links->ends[k].direct;
  }
}

struct kwm_links_waits kwm_links_waited(kwm_links *links) {
  struct kwm_links_waits waits = {0, 0};
  if (links == NULL) return waits;
  waits.host = links->host_waits;
  links->host_waits = 0;
  for (int k = 0; k < links->n; k++) {
    struct link_end *const end = &links->ends[k];
    const int64_t kept = end->count - end->spec.slots;
    if (!end->receives) continue;
    for (int64_t m = end->collected > kept ? end->collected : kept; m < end->count; m++)
      waits.device += kwm_mark_between(links->device, end->begun[slot_of(end, m)], end->arrived[slot_of(end, m)]);
    end->collected = end->count;
  }
  return waits;
}
