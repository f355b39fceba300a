/* The shadow device's lanes. A copy to the host is done as late as may be: its target is NaN until somebody waits, or
   has asked often, and what is copied is what its source holds then; so a buffer that is changed too early is found.
   Copies within and between devices are done at once. A window is the other process's storage, opened by its file. */
#include "kwm/lane.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lane_seconds.h"
#include "shadow.h"

enum { POISON = 0xFF, ASKED_BEFORE_PASSED = 16 };

struct late {
  struct late *next;
  char *to;
  const char *from;
  size_t bytes;
};

/* asked, done: copies so far. */
struct lane {
  struct late *first, **end;
  int64_t asked, done;
};

struct mark {
  struct lane *lane; /* NULL: the device's, or another process's */
  int64_t at;
  int asked;
  double seconds;
};

/* What a ticket says. */
struct place {
  int process, file;
  size_t offset, bytes;
};
_Static_assert(sizeof(struct place) <= KWM_TICKET_BYTES, "a ticket holds a place");

static struct mark *mark_of(kwm_mark *mark) {
  return (struct mark *)(void *)mark;
}

static void run_until(struct lane *lane, int64_t at) {
  while (lane->done < at) {
    struct late *const late = lane->first;
    memcpy(late->to, late->from, late->bytes);
    lane->first = late->next;
    if (lane->first == NULL) lane->end = &lane->first;
    free(late);
    lane->done++;
  }
}

static kwm_lane *lane_open(kwm_device *d) {
  (void)d;
  struct lane *const lane = calloc(1, sizeof *lane);
  if (lane != NULL) lane->end = &lane->first;
  return (kwm_lane *)(void *)lane;
}

static void lane_close(kwm_device *d, kwm_lane *lane) {
  (void)d;
  struct lane *const its = (struct lane *)(void *)lane;
  run_until(its, its->asked);
  free(its);
}

static void *pin(kwm_device *d, size_t bytes) {
  (void)d;
  void *const at = malloc(bytes > 0 ? bytes : 1);
  if (at != NULL) memset(at, POISON, bytes);
  return at;
}

static void unpin(kwm_device *d, void *at) {
  (void)d;
  free(at);
}

static void copy_late(struct lane *lane, char *to, const char *from, size_t bytes) {
  struct late *const late = malloc(sizeof *late);
  KWM_ASSERT(late != NULL && "memory for a copy");
  *late = (struct late){.to = to, .from = from, .bytes = bytes};
  memset(to, POISON, bytes);
  *lane->end = late;
  lane->end = &late->next;
  lane->asked++;
}

static struct shadow_window **window_of(kwm_device *d, const void *at, size_t bytes) {
  struct shadow_window **link = shadow_windows(d);
  for (; *link != NULL; link = &(*link)->next)
    if ((uintptr_t)at >= (uintptr_t)(*link)->base && (uintptr_t)at + bytes <= (uintptr_t)(*link)->base + (*link)->bytes)
      break;
  return link;
}

static void copy(kwm_device *d, kwm_lane *lane, void *to, const void *from, size_t bytes) {
  struct lane *const its = (struct lane *)(void *)lane;
  const bool ours = shadow_is_ours(d, from);
  char *const window = *window_of(d, to, bytes) == NULL ? NULL : to;
  const char *const source = ours ? shadow_array(d, from, (int64_t)bytes, 1) : from;
  if (window == NULL && !shadow_is_ours(d, to)) {
    copy_late(its, to, source, bytes);
    return;
  }
  run_until(its, its->asked);
  memcpy(window != NULL ? window : (char *)shadow_array(d, to, (int64_t)bytes, 1), source, bytes);
}

static kwm_mark *mark_open(kwm_device *d, bool timed) {
  (void)d, (void)timed;
  return (kwm_mark *)calloc(1, sizeof(struct mark));
}

static void mark_close(kwm_device *d, kwm_mark *mark) {
  (void)d;
  free(mark);
}

static void mark_set(kwm_device *d, kwm_lane *lane, kwm_mark *mark) {
  struct lane *const its = (struct lane *)(void *)lane;
  (void)d;
  *mark_of(mark) = (struct mark){.lane = its, .at = its == NULL ? 0 : its->asked, .seconds = lane_seconds()};
}

static void mark_follow(kwm_device *d, kwm_lane *lane, kwm_mark *mark) {
  (void)d, (void)lane;
  if (mark_of(mark)->lane != NULL) run_until(mark_of(mark)->lane, mark_of(mark)->at);
}

static bool mark_passed(kwm_device *d, kwm_mark *mark) {
  struct mark *const its = mark_of(mark);
  if (its->lane == NULL || its->lane->done >= its->at) return true;
  if (++its->asked < ASKED_BEFORE_PASSED) return false;
  mark_follow(d, NULL, mark);
  return true;
}

static double mark_between(kwm_device *d, kwm_mark *from, kwm_mark *to) {
  (void)d;
  return mark_of(to)->seconds - mark_of(from)->seconds;
}

static bool offer(kwm_device *d, void *memory, struct kwm_ticket *ticket) {
  struct place place = {.process = (int)getpid()};
  shadow_place_of(d, memory, &place.file, &place.offset, &place.bytes);
  memset(ticket, 0, sizeof *ticket);
  memcpy(ticket, &place, sizeof place);
  return true;
}

/* Marks of a process that copies at once are passed when it says that they are set. */
static bool offer_mark(kwm_device *d, kwm_mark *mark, struct kwm_ticket *ticket) {
  (void)d, (void)mark;
  memset(ticket, 0, sizeof *ticket);
  return true;
}

static void add_window(kwm_device *d, char *base, size_t bytes) {
  struct shadow_window *const window = malloc(sizeof *window), **const first = shadow_windows(d);
  KWM_ASSERT(window != NULL && "memory for a window");
  *window = (struct shadow_window){.next = *first, .base = base, .bytes = bytes};
  *first = window;
}

void shadow_drop_window(kwm_device *d, void *at) {
  struct shadow_window **const link = window_of(d, at, 1), *const gone = *link;
  KWM_ASSERT(gone != NULL && "a window");
  munmap(gone->base, gone->bytes);
  *link = gone->next;
  free(gone);
}

static void *see(kwm_device *d, const struct kwm_ticket *ticket) {
  struct place place;
  char name[64];
  memcpy(&place, ticket, sizeof place);
  snprintf(name, sizeof name, "/proc/%d/fd/%d", place.process, place.file);
  const int file = open(name, O_RDWR | O_CLOEXEC);
  if (file < 0) return NULL;
  const size_t page = (size_t)sysconf(_SC_PAGESIZE), lead = place.offset % page, mapped = lead + place.bytes;
  char *const base = mmap(NULL, mapped, PROT_READ | PROT_WRITE, MAP_SHARED, file, (off_t)(place.offset - lead));
  close(file);
  if (base == MAP_FAILED) return NULL;
  add_window(d, base, mapped);
  return base + lead;
}

static kwm_mark *see_mark(kwm_device *d, const struct kwm_ticket *ticket) {
  (void)ticket;
  return mark_open(d, false);
}

const struct kwm_lane_ops shadow_lane = {
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
    .unsee = shadow_drop_window,
};
