/* Opening and closing links. */
#include <string.h>

#include "link_state.h"
#include "wait.h"

enum { FIRST_TAG = 16 };

/* What the receiver says first, and what the sender answers. */
struct offer {
  bool good;
  char host[KWM_HOST_BYTES];
  struct kwm_ticket memory, marks[KWM_LINK_SLOTS_MAX];
};

static size_t slots_bytes(const struct kwm_link_spec *spec) {
  return (size_t)(spec->slots * spec->floats) * sizeof(float);
}

/* Windows are whole pieces. */
static size_t window_bytes(const struct kwm_link_spec *spec) {
  return (slots_bytes(spec) + KWM_WINDOW_BYTES - 1) / KWM_WINDOW_BYTES * KWM_WINDOW_BYTES;
}

static void tell(struct kwm_links *links, int to, int tag, const void *data, size_t bytes) {
  MPI_Request request = kwm_par_send(links->layout, to, tag, data, (int64_t)bytes);
  kwm_par_wait(links->layout, 1, &request);
}

static void hear(struct kwm_links *links, int from, int tag, void *data, size_t bytes) {
  kwm_par_receive(links->layout, from, tag, data, (int64_t)bytes);
}

static void offer_marks(kwm_device *device, const struct link_end *end, kwm_mark *const *marks, struct offer *offer) {
  for (int s = 0; s < end->spec.slots && offer->good; s++)
    offer->good = marks[s] != NULL && kwm_mark_offer(device, marks[s], &offer->marks[s]);
}

/* Another's marks, all of them or none. */
static bool see_marks(kwm_device *device, const struct link_end *end, const struct offer *offer, kwm_mark **marks) {
  bool good = offer->good;
  for (int s = 0; s < end->spec.slots && good; s++) {
    marks[s] = kwm_mark_see(device, &offer->marks[s]);
    good = marks[s] != NULL;
  }
  for (int s = 0; s < end->spec.slots && !good; s++) {
    kwm_mark_close(device, marks[s]);
    marks[s] = NULL;
  }
  return good;
}

static bool shake_as_receiver(struct kwm_links *links, struct link_end *end, bool wanted) {
  struct offer offer = {.good = wanted && end->device_slots != NULL}, answer;
  par_host_name(offer.host);
  if (offer.good) offer.good = kwm_lane_offer(links->device, end->device_slots, &offer.memory);
  offer_marks(links->device, end, end->taken, &offer);
  tell(links, end->spec.from, end->tag, &offer, sizeof offer);
  hear(links, end->spec.from, end->tag, &answer, sizeof answer);
  const bool good = see_marks(links->device, end, &answer, end->written);
  tell(links, end->spec.from, end->tag, &good, sizeof good);
  return good;
}

static bool shake_as_sender(struct kwm_links *links, struct link_end *end, bool wanted) {
  kwm_device *const device = links->device;
  struct offer offer, answer = {.good = wanted};
  bool good = false;
  hear(links, end->spec.to, end->tag, &offer, sizeof offer);
  par_host_name(answer.host);
  answer.good = answer.good && offer.good && memcmp(offer.host, answer.host, sizeof offer.host) == 0;
  if (answer.good) end->window = kwm_lane_see(device, &offer.memory);
  answer.good = answer.good && end->window != NULL && see_marks(device, end, &offer, end->taken);
  offer_marks(device, end, end->written, &answer);
  tell(links, end->spec.to, end->tag, &answer, sizeof answer);
  hear(links, end->spec.to, end->tag, &good, sizeof good);
  return good;
}

bool link_shake(struct kwm_links *links, struct link_end *end, bool wanted) {
  return end->sends ? shake_as_sender(links, end, wanted) : shake_as_receiver(links, end, wanted);
}

static kwm_status open_marks(kwm_device *device, int slots, kwm_mark **marks, bool timed) {
  for (int s = 0; s < slots; s++) KWM_TRY(kwm_mark_open(device, &marks[s], timed));
  return KWM_OK;
}

/* What an end has of its own. */
static kwm_status equip(struct kwm_links *links, struct link_end *end, bool wanted) {
  kwm_device *const device = links->device;
  KWM_TRY(kwm_lane_open(device, &end->lane));
  if (end->sends) return open_marks(device, end->spec.slots, end->written, false);
  KWM_TRY(open_marks(device, end->spec.slots, end->taken, false));
  KWM_TRY(open_marks(device, end->spec.slots, end->begun, true));
  KWM_TRY(open_marks(device, end->spec.slots, end->arrived, true));
  if (!wanted) return KWM_OK;
  return kwm_device_alloc(device, (void **)&end->device_slots, window_bytes(&end->spec), "messages");
}

static void give_up_window(struct kwm_links *links, struct link_end *end) {
  kwm_lane_unsee(links->device, end->window);
  kwm_device_free(links->device, end->device_slots);
  end->window = end->device_slots = NULL;
}

static kwm_status open_end(struct kwm_links *links, struct link_end *end, bool wanted) {
  kwm_status status = equip(links, end, wanted);
  end->direct = link_shake(links, end, wanted && status == KWM_OK);
  if (end->direct) return status;
  give_up_window(links, end);
  if (status == KWM_OK && (end->sends || links->device != NULL))
    status = kwm_lane_pin(links->device, (void **)&end->host_slots, slots_bytes(&end->spec), "messages");
  return status;
}

kwm_status kwm_links_open(kwm_links **links, struct kwm_layout *layout, kwm_device *device, bool direct, int n,
                          const struct kwm_link_spec *specs) {
  kwm_links *made = NULL;
  *links = NULL;
  kwm_status status = kwm_alloc((void **)&made, sizeof *made, "links");
  if (status == KWM_OK) status = kwm_alloc((void **)&made->ends, (size_t)n * sizeof *made->ends, "links");
  KWM_TRY(kwm_agree(layout->world, status));
  made->layout = layout, made->device = device, made->n = n;
  made->rank = layout->stage * layout->owners + layout->owner;
  for (int k = 0; k < n; k++) {
    struct link_end *const end = &made->ends[k];
    KWM_ASSERT(specs[k].from != specs[k].to && specs[k].slots >= 1 && specs[k].slots <= KWM_LINK_SLOTS_MAX);
    *end = (struct link_end){.spec = specs[k],
                             .tag = FIRST_TAG + 2 * k,
                             .sends = specs[k].from == made->rank,
                             .receives = specs[k].to == made->rank};
    for (int s = 0; s < KWM_LINK_SLOTS_MAX; s++) end->requests[s] = MPI_REQUEST_NULL;
    if (!end->sends && !end->receives) continue;
    const kwm_status opened = open_end(made, end, direct && device != NULL);
    if (status == KWM_OK) status = opened;
  }
  status = kwm_agree(layout->world, status);
  if (status == KWM_OK)
    *links = made;
  else
    kwm_links_close(made);
  return status;
}

/* Words about messages that were taken, which nobody will wait for any more. */
static void hear_the_rest(struct kwm_links *links, struct link_end *end) {
  int there = end->sends && end->direct;
  while (there) {
    MPI_Iprobe(end->spec.to, end->tag + 1, links->layout->group, &there, MPI_STATUS_IGNORE);
    if (there) hear(links, end->spec.to, end->tag + 1, NULL, 0);
  }
  for (int s = 0; s < end->spec.slots; s++) {
    int done = 1;
    if (end->requests[s] != MPI_REQUEST_NULL) MPI_Test(&end->requests[s], &done, MPI_STATUS_IGNORE);
    if (!done) MPI_Request_free(&end->requests[s]);
  }
}

static void close_end(struct kwm_links *links, struct link_end *end) {
  kwm_device *const device = links->device;
  hear_the_rest(links, end);
  kwm_lane_close(device, end->lane);
  for (int s = 0; s < end->spec.slots; s++) {
    kwm_mark_close(device, end->written[s]);
    kwm_mark_close(device, end->taken[s]);
    kwm_mark_close(device, end->begun[s]);
    kwm_mark_close(device, end->arrived[s]);
  }
  give_up_window(links, end);
  kwm_lane_unpin(device, end->host_slots);
}

void kwm_links_close(kwm_links *links) {
  if (links == NULL) return;
  kwm_device_wait(links->device);
  for (int k = 0; k < links->n; k++)
    if (links->ends[k].sends || links->ends[k].receives) close_end(links, &links->ends[k]);
  kwm_free(links->ends);
  kwm_free(links);
}

struct kwm_link_bytes kwm_links_bytes(int rank, bool on_device, int n, const struct kwm_link_spec *specs) {
  struct kwm_link_bytes bytes = {0, (double)n * sizeof(struct link_end)};
  for (int k = 0; k < n; k++) {
    if (on_device && specs[k].to == rank) bytes.device += (double)window_bytes(&specs[k]);
    if (!on_device && specs[k].from == rank) bytes.host += (double)slots_bytes(&specs[k]);
  }
  return bytes;
}
