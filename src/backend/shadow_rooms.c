/* The shadow device's sum over devices that meet in rooms (kwm/device_rooms.h); a share has one piece. */
#include <sched.h>
#include <string.h>

#include "lane_seconds.h"
#include "shadow.h"

/* A room as this process sees it: its own is the device's, others are windows. */
static float *room_of(kwm_device *d, const struct kwm_device_rooms *rooms, int place) {
  if (place != rooms->rank) return rooms->at[place];
  return shadow_array(d, rooms->at[place], kwm_room_floats(rooms), sizeof(float));
}

static uint32_t *word_of(float *room, const struct kwm_device_rooms *rooms, int place, int of_sums) {
  return (uint32_t *)(void *)(room + kwm_room_words(rooms, place, of_sums));
}

/* Tells every other device that what it waits for is whole, and waits for the same of it. */
static void meet(kwm_device *d, const struct kwm_device_rooms *rooms, int of_sums) {
  float *const own = room_of(d, rooms, rooms->rank);
  for (int place = 0; place < rooms->size; place++)
    if (place != rooms->rank)
      __atomic_store_n(word_of(room_of(d, rooms, place), rooms, rooms->rank, of_sums), rooms->turn, __ATOMIC_RELEASE);
  for (int place = 0; place < rooms->size; place++)
    while (place != rooms->rank &&
           (int32_t)(__atomic_load_n(word_of(own, rooms, place, of_sums), __ATOMIC_ACQUIRE) - rooms->turn) < 0)
      sched_yield();
}

/* Numbers of a place's share. */
static size_t count_of(int64_t n, int64_t share, int place) {
  const int64_t left = n - place * share;
  return (size_t)(left < 0 ? 0 : left < share ? left : share);
}

static float tree_sum(const float *const *terms, int first, int count, size_t k) {
  if (count == 1) return terms[first][k];
  return tree_sum(terms, first, count / 2, k) + tree_sum(terms, first + count / 2, count / 2, k);
}

void shadow_sum_rooms(kwm_device *d, const struct kwm_device_rooms *rooms, int64_t n, float *values) {
  const int64_t share = kwm_room_share(n, rooms->size);
  const double begun = lane_seconds();
  const int me = rooms->rank;
  const size_t mine = count_of(n, share, me);
  float *const all = shadow_array(d, values, n, sizeof *values), *const own = room_of(d, rooms, me);
  const float *terms[KWM_ROOMS_MAX];
  for (int p = 0; p < rooms->size; p++) {
    terms[p] = p == me ? all + me * share : own + kwm_room_term(rooms, p);
    if (p != me)
      memcpy(room_of(d, rooms, p) + kwm_room_term(rooms, me), all + p * share, count_of(n, share, p) * sizeof(float));
  }
  meet(d, rooms, 0);
  for (size_t k = 0; k < mine; k++) all[(size_t)(me * share) + k] = tree_sum(terms, 0, rooms->size, k);
  for (int p = 0; p < rooms->size; p++)
    if (p != me) memcpy(room_of(d, rooms, p) + kwm_room_sum(rooms, me), all + me * share, mine * sizeof(float));
  meet(d, rooms, 1);
  for (int p = 0; p < rooms->size; p++)
    if (p != me) memcpy(all + p * share, own + kwm_room_sum(rooms, p), count_of(n, share, p) * sizeof(float));
  *shadow_facts(d, rooms->seconds, 1) += lane_seconds() - begun;
}
