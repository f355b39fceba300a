/* Messages over links (kwm/link.h). */
#include <string.h>

#include "link_state.h"
#include "wait.h"

static int slot_of(const struct link_end *end, int64_t message) {
  return (int)(message % end->spec.slots);
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
      end->requests[slot] =
          kwm_par_send(links->layout, end->spec.to, end->tag, slot_in(end->host_slots, end, slot), end->lengths[slot]);
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

struct parts {
  int n;
  const struct kwm_link_part *of;
};

static size_t bytes_of(const struct kwm_link_part *part) {
  return (size_t)part->floats * sizeof *part->at;
}

static int64_t length_of(const struct link_end *end, const struct parts *parts) {
  int64_t floats = 0;
  for (int i = 0; i < parts->n; i++) floats += parts->of[i].floats;
  KWM_ASSERT(floats <= end->spec.floats);
  return floats * (int64_t)sizeof(float);
}

/* slot <- the message. */
static void copy_in(kwm_links *links, struct link_end *end, float *slot, const struct parts *parts) {
  for (int i = 0; i < parts->n; slot += parts->of[i++].floats)
    kwm_lane_copy(links->device, end->lane, slot, parts->of[i].at, bytes_of(&parts->of[i]));
}

static void send_direct(kwm_links *links, struct link_end *end, int slot, const struct parts *parts) {
  if (end->count >= end->spec.slots) {
    await_message(links, end->spec.to, end->tag + 1, NULL, 0);
    kwm_mark_follow(links->device, end->lane, end->taken[slot]);
  }
  await(links, &end->requests[slot]);
  copy_in(links, end, slot_in(end->window, end, slot), parts);
  kwm_mark_set(links->device, end->lane, end->written[slot]);
  end->requests[slot] = kwm_par_send(links->layout, end->spec.to, end->tag, NULL, 0);
  end->posted++;
}

static void send_through_host(kwm_links *links, struct link_end *end, int slot, const struct parts *parts) {
  if (end->count >= end->spec.slots) await_mark(links, end->written[slot]);
  progress(links);
  await(links, &end->requests[slot]);
  copy_in(links, end, slot_in(end->host_slots, end, slot), parts);
  kwm_mark_set(links->device, end->lane, end->written[slot]);
}

void kwm_link_send(kwm_links *links, int k, int n, const struct kwm_link_part *parts) {
  struct link_end *const end = &links->ends[k];
  const struct parts all = {n, parts};
  const int slot = slot_of(end, end->count);
  const int64_t length = length_of(end, &all);
  KWM_ASSERT(end->sends);
  if (end->direct)
    send_direct(links, end, slot, &all);
  else
    send_through_host(links, end, slot, &all);
  end->lengths[slot] = length;
  end->count++;
  progress(links);
}

void kwm_link_settle(kwm_links *links, int k) {
  struct link_end *const end = &links->ends[k];
  KWM_ASSERT(end->sends);
  if (end->settled == end->count) return;
  kwm_mark_follow(links->device, NULL, end->written[slot_of(end, end->count - 1)]);
  end->settled = end->count;
}

void kwm_links_settle(kwm_links *links) {
  for (int k = 0; links != NULL && k < links->n; k++)
    if (links->ends[k].sends) kwm_link_settle(links, k);
}

/* The device waits from the mark `begun` to the mark `arrived`. */
static void receive_direct(kwm_links *links, struct link_end *end, int slot, const struct parts *parts) {
  kwm_device *const device = links->device;
  const float *from = slot_in(end->device_slots, end, slot);
  kwm_mark_set(device, NULL, end->begun[slot]);
  await_message(links, end->spec.from, end->tag, NULL, 0);
  kwm_mark_follow(device, NULL, end->written[slot]);
  kwm_mark_set(device, NULL, end->arrived[slot]);
  for (int i = 0; i < parts->n; from += parts->of[i++].floats)
    kwm_device_copy(device, parts->of[i].at, from, bytes_of(&parts->of[i]));
  kwm_mark_set(device, NULL, end->taken[slot]);
  await(links, &end->requests[slot]);
  end->requests[slot] = kwm_par_send(links->layout, end->spec.from, end->tag + 1, NULL, 0);
}

static void receive_through_host(kwm_links *links, struct link_end *end, int slot, const struct parts *parts) {
  kwm_device *const device = links->device;
  float *at = device == NULL ? parts->of[0].at : slot_in(end->host_slots, end, slot);
  KWM_ASSERT(device != NULL || parts->n == 1);
  if (end->count >= end->spec.slots) await_mark(links, end->taken[slot]);
  kwm_mark_set(device, NULL, end->begun[slot]);
  await_message(links, end->spec.from, end->tag, at, (size_t)length_of(end, parts));
  for (int i = 0; device != NULL && i < parts->n; at += parts->of[i++].floats)
    kwm_lane_copy(device, end->lane, parts->of[i].at, at, bytes_of(&parts->of[i]));
  kwm_mark_set(device, end->lane, end->taken[slot]);
  kwm_mark_follow(device, NULL, end->taken[slot]);
  kwm_mark_set(device, NULL, end->arrived[slot]);
}

void kwm_link_receive(kwm_links *links, int k, int n, const struct kwm_link_part *parts) {
  struct link_end *const end = &links->ends[k];
  const struct parts all = {n, parts};
  const int slot = slot_of(end, end->count);
  KWM_ASSERT(end->receives);
  if (end->direct)
    receive_direct(links, end, slot, &all);
  else
    receive_through_host(links, end, slot, &all);
  end->posted = ++end->count;
}

void kwm_links_drain(kwm_links *links) {
  if (links == NULL) return;
  const double start = par_begin_wait();
  while (!progress(links)) continue;
  end_wait(links, start);
}

void kwm_links_finish(kwm_links *links) {
  kwm_links_drain(links);
  for (int k = 0; links != NULL && k < links->n; k++) {
    struct link_end *const end = &links->ends[k];
    for (int s = 0; end->sends && !end->direct && s < end->spec.slots; s++) await(links, &end->requests[s]);
  }
}

void kwm_links_count(const kwm_links *links, int *direct, int *all) {
  *direct = *all = 0;
  for (int k = 0; links != NULL && k < links->n; k++) {
    *all += links->ends[k].sends || links->ends[k].receives;
    *direct += links->ends[k].direct;
  }
}

const char *kwm_links_words(const kwm_links *links) {
  int direct, all;
  kwm_links_count(links, &direct, &all);
  if (all == 0) return "";
  return direct == all ? "messages from device to device" : "messages through the host";
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
