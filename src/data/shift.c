/* A map of the vocabulary, and a keyed draw for each token. */
#include "kwm/shift.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kwm/rng.h"

/* The step of KWM_RNG_SHIFT's draws. */
enum use { USE_DROPPED, USE_DRAWN, USE_ORDER };

struct interval {
  int64_t from, to;
};

struct kwm_shift {
  double dropout;
  uint64_t seed;
  int32_t size, unk, drawn;
  int32_t *map;          /* (size) what each word becomes */
  int64_t n_intervals;   /* 0: always on */
  struct interval *when; /* (n_intervals) ascending */
  size_t bytes;          /* held */
};

static const char *const names[] = {[KWM_SHIFT_NONE] = "none",
                                    [KWM_SHIFT_TOKEN_DROPOUT] = "token-dropout",
                                    [KWM_SHIFT_VOCAB_PERMUTE] = "vocab-permute",
                                    [KWM_SHIFT_BOTH] = "both",
                                    [KWM_SHIFT_RANDOM] = "random"};
enum { KINDS = sizeof names / sizeof *names };

kwm_status kwm_shift_kind_of(enum kwm_shift_kind *kind, const char *name) {
  for (int k = 0; k < KINDS; k++) {
    if (strcmp(name, names[k]) != 0) continue;
    *kind = (enum kwm_shift_kind)k;
    return KWM_OK;
  }
  return KWM_RAISE(KWM_ERR_USAGE, "shift: wanted none, token-dropout, vocab-permute, both or random, found \"%s\"",
                   name);
}

/* A number of tokens; *at moves behind it. */
static bool read_count(const char **at, int64_t *count) {
  if (**at < '0' || **at > '9') return false;
  char *end = NULL;
  errno = 0;
  *count = strtoll(*at, &end, 10);
  *at = end;
  return errno == 0;
}

/* strchr finds the end of the text too: what may follow an interval is a separator or nothing. */
static bool read_interval(const char **at, struct interval *interval) {
  if (!read_count(at, &interval->from) || **at != '-') return false;
  ++*at;
  interval->to = INT64_MAX;
  if (strchr(", ", **at) == NULL && !read_count(at, &interval->to)) return false;
  return strchr(", ", **at) != NULL && interval->to > interval->from;
}

static const char *skip_separators(const char *at) {
  return at + strspn(at, ", ");
}

/* An interval takes at least two characters, the separator included. */
static kwm_status set_schedule(kwm_shift *shift, const char *schedule) {
  const char *at = skip_separators(schedule != NULL ? schedule : "");
  if (*at == '\0') return KWM_OK;
  void *memory = NULL;
  const size_t bytes = (strlen(at) / 2 + 1) * sizeof *shift->when;
  KWM_TRY(kwm_alloc(&memory, bytes, "schedule of a shift"));
  shift->when = memory;
  shift->bytes += kwm_mem_rounded(bytes);
  for (int64_t last = 0; *at != '\0'; at = skip_separators(at)) {
    struct interval *const interval = &shift->when[shift->n_intervals++];
    KWM_CHECK(read_interval(&at, interval) && interval->from >= last, KWM_ERR_USAGE,
              "shift: wanted a schedule of ascending intervals, as \"1000-2000 5000-\", found \"%s\"", schedule);
    last = interval->to;
  }
  return KWM_OK;
}

/* Draws words and permutes them: the first `drawn` of one permutation are taken by another one of themselves. */
static kwm_status set_map(kwm_shift *shift) {
  const size_t bytes = (size_t)shift->size * sizeof *shift->map;
  void *memory = NULL, *drawn_memory = NULL, *order_memory = NULL;
  KWM_TRY(kwm_alloc(&memory, bytes, "map of words"));
  shift->map = memory;
  shift->bytes += kwm_mem_rounded(sizeof *shift) + kwm_mem_rounded(bytes);
  for (int32_t id = 0; id < shift->size; id++) shift->map[id] = id;
  if (shift->drawn == 0) return KWM_OK;
  kwm_status status = kwm_alloc(&drawn_memory, bytes, "words drawn");
  if (status == KWM_OK) status = kwm_alloc(&order_memory, (size_t)shift->drawn * sizeof(int32_t), "order of words");
  if (status != KWM_OK) goto out;
  int32_t *const drawn = drawn_memory, *const order = order_memory;
  kwm_rng_permutation(shift->seed, KWM_RNG_SHIFT, USE_DRAWN, shift->size, drawn);
  kwm_rng_permutation(shift->seed, KWM_RNG_SHIFT, USE_ORDER, shift->drawn, order);
  for (int32_t i = 0; i < shift->drawn; i++) shift->map[drawn[i]] = drawn[order[i]];
out:
  kwm_free(drawn_memory);
  kwm_free(order_memory);
  return status;
}

static kwm_status check_share(const char *name, double share) {
  KWM_CHECK(share >= 0.0 && share <= 1.0, KWM_ERR_USAGE, "shift: wanted %s from 0 to 1, found %g", name, share);
  return KWM_OK;
}

static kwm_status set_shift(kwm_shift *shift, const struct kwm_shift_spec *spec,
                            const struct kwm_vocabulary_facts *vocabulary) {
  const enum kwm_shift_kind kind = spec->kind;
  double share = kind == KWM_SHIFT_RANDOM ? 1.0 : 0.0;
  if (kind == KWM_SHIFT_VOCAB_PERMUTE || kind == KWM_SHIFT_BOTH) share = spec->share;
  if (kind == KWM_SHIFT_TOKEN_DROPOUT || kind == KWM_SHIFT_BOTH) shift->dropout = spec->dropout;
  KWM_TRY(check_share("a share of words", share));
  KWM_TRY(check_share("a chance of dropout", shift->dropout));
  shift->seed = spec->seed;
  shift->size = vocabulary->size;
  shift->unk = vocabulary->unk;
  shift->drawn = (int32_t)lround(share * (double)vocabulary->size);
  KWM_TRY(set_schedule(shift, spec->schedule));
  return set_map(shift);
}

kwm_status kwm_shift_create(kwm_shift **shift, const struct kwm_shift_spec *spec,
                            const struct kwm_vocabulary_facts *vocabulary) {
  void *memory = NULL;
  *shift = NULL;
  KWM_TRY(kwm_alloc(&memory, sizeof **shift, "shift"));
  const kwm_status status = set_shift(memory, spec, vocabulary);
  if (status == KWM_OK)
    *shift = memory;
  else
    kwm_shift_destroy(memory);
  return status;
}

void kwm_shift_destroy(kwm_shift *shift) {
  if (shift == NULL) return;
  kwm_free(shift->map);
  kwm_free(shift->when);
  kwm_free(shift);
}

struct kwm_shift_facts kwm_shift_facts(const kwm_shift *shift) {
  struct kwm_shift_facts facts = {.drawn = shift->drawn, .bytes = shift->bytes};
  for (int32_t id = 0; id < shift->size; id++) facts.moved += shift->map[id] != id;
  return facts;
}

bool kwm_shift_on(const kwm_shift *shift, int64_t time) {
  for (int64_t i = 0; i < shift->n_intervals; i++)
    if (time >= shift->when[i].from && time < shift->when[i].to) return true;
  return shift->n_intervals == 0;
}

struct kwm_shift_counts kwm_shift_apply(const kwm_shift *shift, const int32_t *ids, int64_t n, int64_t length,
                                        int32_t *inputs, int32_t *targets) {
  KWM_ASSERT(length >= 1 && ids != inputs && ids != targets);
  struct kwm_shift_counts counts = {.tokens = n};
  for (int64_t i = 0; i < n; i++) {
    inputs[i] = targets[i] = ids[i];
    if (!kwm_shift_on(shift, i % length)) continue;
    counts.on++;
    inputs[i] = targets[i] = shift->map[ids[i]];
    if (shift->dropout > 0.0 &&
        kwm_rng_uniform(shift->seed, KWM_RNG_SHIFT, USE_DROPPED, (uint64_t)i) < shift->dropout) {
      inputs[i] = shift->unk;
      counts.dropped++;
    }
    counts.inputs += inputs[i] != ids[i];
    counts.targets += targets[i] != ids[i];
  }
  return counts;
}
