/* Every step is a function of the spec and the step alone: which samples, in which order, from which side of a blended
   boundary, all are keyed draws. What is kept (the order and the pixels' map of a task and of its neighbour, by the
   parity of the task) is only a copy of what the keys say, made anew when another task or pass is asked for.

   A pool is where a task's samples come from: a data set, or the part of it that holds the task's classes. Tasks go
   through the pools in turn. */
#include "kwm/stream.h"

#include <math.h>
#include <string.h>

#include "kwm/rng.h"

#include "rotate.h"
#include "sets.h"

enum { CLASSES = 10, TASKS_MAX = 65536, SPLITS = KWM_TEST + 1, NEIGHBOURS = 2, VIEWS = NEIGHBOURS + 1 };

/* What KWM_RNG_TASK's draws are for: the high half of the step; the low half is the task. */
enum use { USE_PIXELS, USE_SAMPLES, USE_BLEND };

struct pool {
  const struct kwm_set *set;
  int64_t first[SPLITS], n[SPLITS]; /* in the set, or in the index by class; train: all that may be drawn */
  int64_t samples, steps;           /* of a task */
  int label_first;
};

struct order {
  int64_t task, pass; /* -1: none yet */
  int32_t *at;        /* place in the pool of each sample of the pass */
};

struct view {
  int64_t task;
  int32_t *pixels;      /* permuted: (length) where each pixel comes from */
  struct kwm_tap *taps; /* rotated: (length) */
};

struct buffer {
  uint8_t *pixels, *labels;
};

/* Everything held besides the data sets, each piece one allocation. */
enum piece {
  SELF,
  POOLS,
  INDEX,                       /* split: samples by class, training, held out, test */
  ORDERS,                      /* one for each neighbour */
  DRAWN = ORDERS + NEIGHBOURS, /* samples > 0: scratch */
  MAPS,                        /* one for each view */
  BATCH_PIXELS = MAPS + VIEWS,
  BATCH_LABELS,
  SPLIT_PIXELS,
  SPLIT_LABELS,
  PIECES
};

struct kwm_stream {
  struct kwm_stream_spec spec; /* without its strings */
  struct kwm_stream_facts facts;
  struct kwm_sets sets;
  void *memory[PIECES];
  int64_t n_pools, cycle; /* steps of one task from each pool */
  struct pool *pools;
  int32_t *index;
  int32_t *drawn;
  struct order orders[NEIGHBOURS];
  struct view views[VIEWS]; /* the last: kwm_stream_split's */
  struct buffer batch, split;
};

/* ---- setup */

static kwm_status check_count(const char *what, int64_t count, int64_t least, int64_t most) {
  KWM_CHECK(count >= least && count <= most, KWM_ERR_USAGE, "stream: wanted %lld to %lld %s, found %lld",
            (long long)least, (long long)most, what, (long long)count);
  return KWM_OK;
}

static kwm_status check_spec(const struct kwm_stream_spec *spec) {
  KWM_TRY(check_count("tasks", spec->tasks, 1, TASKS_MAX));
  KWM_TRY(check_count("passes", spec->passes, 1, TASKS_MAX));
  KWM_TRY(check_count("samples in a batch", spec->batch, 1, INT32_MAX));
  KWM_TRY(check_count("samples in a task", spec->samples, 0, INT32_MAX));
  KWM_TRY(check_count("samples held out", spec->validation, 0, INT32_MAX));
  KWM_CHECK(spec->blend >= 0.0 && spec->blend <= 1.0, KWM_ERR_USAGE, "stream: wanted blend from 0 to 1, found %g",
            spec->blend);
  KWM_CHECK(isfinite(spec->angle), KWM_ERR_USAGE, "stream: wanted a finite angle, found %g", spec->angle);
  KWM_CHECK(spec->kind != KWM_STREAM_SPLIT || CLASSES % spec->tasks == 0, KWM_ERR_USAGE,
            "stream: wanted tasks that share %d classes evenly, found %lld", CLASSES, (long long)spec->tasks);
  return KWM_OK;
}

static int64_t side_of(int64_t length) {
  return llround(sqrt((double)length));
}

static kwm_status open_sets(struct kwm_sets *sets, const struct kwm_stream_spec *spec, bool whole) {
  KWM_TRY(check_spec(spec));
  KWM_TRY(kwm_sets_open(sets, spec, whole));
  const int64_t side = side_of(sets->length);
  KWM_CHECK(spec->kind != KWM_STREAM_ROTATED || side * side == sets->length, KWM_ERR_USAGE,
            "stream %s: wanted square images to rotate, found %lld pixels", sets->at[0].folder,
            (long long)sets->length);
  return KWM_OK;
}

static int64_t larger(int64_t a, int64_t b) {
  return a > b ? a : b;
}

static int64_t pools_of(const struct kwm_stream_spec *spec, const struct kwm_sets *sets) {
  return spec->kind == KWM_STREAM_SPLIT ? spec->tasks : sets->count;
}

/* Bounds from the file headers: what the labels say can only be less. */
static void measure(const struct kwm_stream_spec *spec, const struct kwm_sets *sets, size_t bytes[PIECES]) {
  const bool split = spec->kind == KWM_STREAM_SPLIT;
  int64_t pass = spec->samples, whole = 0;
  for (int64_t i = 0; i < sets->count; i++) {
    if (spec->samples == 0) pass = larger(pass, sets->at[i].n_train);
    whole = larger(whole, larger(spec->validation, sets->at[i].test.n));
  }
  const size_t batch = (size_t)(pass < spec->batch ? pass : spec->batch), length = (size_t)sets->length;
  const size_t map = spec->kind == KWM_STREAM_PERMUTED  ? sizeof(int32_t)
                     : spec->kind == KWM_STREAM_ROTATED ? sizeof(struct kwm_tap)
                                                        : 0;
  bytes[SELF] = sizeof(struct kwm_stream);
  bytes[POOLS] = (size_t)pools_of(spec, sets) * sizeof(struct pool);
  bytes[INDEX] = split ? (size_t)(sets->at[0].train.n + sets->at[0].test.n) * sizeof(int32_t) : 0;
  for (int k = 0; k < NEIGHBOURS; k++) bytes[ORDERS + k] = (size_t)pass * sizeof(int32_t);
  bytes[DRAWN] = 0;
  for (int64_t i = 0; i < sets->count && spec->samples > 0; i++)
    bytes[DRAWN] = (size_t)larger((int64_t)bytes[DRAWN], sets->at[i].n_train * (int64_t)sizeof(int32_t));
  for (int k = 0; k < VIEWS; k++) bytes[MAPS + k] = length * map;
  bytes[BATCH_PIXELS] = batch * length;
  bytes[BATCH_LABELS] = batch;
  bytes[SPLIT_PIXELS] = (size_t)whole * length;
  bytes[SPLIT_LABELS] = (size_t)whole;
}

static struct kwm_stream_facts facts_of(const struct kwm_stream_spec *spec, const struct kwm_sets *sets) {
  const bool relabels = spec->kind == KWM_STREAM_SPLIT && spec->relabel;
  struct kwm_stream_facts facts = {.tasks = spec->tasks,
                                   .length = sets->length,
                                   .classes = relabels ? CLASSES / (int)spec->tasks : CLASSES,
                                   .bytes = kwm_sets_bytes(sets, spec)};
  size_t bytes[PIECES];
  measure(spec, sets, bytes);
  for (int p = 0; p < PIECES; p++) facts.bytes += bytes[p] > 0 ? kwm_mem_rounded(bytes[p]) : 0;
  return facts;
}

kwm_status kwm_stream_probe(const struct kwm_stream_spec *spec, struct kwm_stream_facts *facts) {
  struct kwm_sets sets = {0};
  const kwm_status status = open_sets(&sets, spec, false);
  if (status == KWM_OK) *facts = facts_of(spec, &sets);
  kwm_sets_close(&sets);
  return status;
}

static kwm_status allocate(struct kwm_stream *stream) {
  size_t bytes[PIECES];
  measure(&stream->spec, &stream->sets, bytes);
  for (int p = SELF + 1; p < PIECES; p++)
    if (bytes[p] > 0) KWM_TRY(kwm_alloc(&stream->memory[p], bytes[p], "stream of tasks"));
  void *const *const memory = stream->memory;
  stream->pools = memory[POOLS];
  stream->index = memory[INDEX];
  stream->drawn = memory[DRAWN];
  for (int k = 0; k < NEIGHBOURS; k++) stream->orders[k] = (struct order){-1, -1, memory[ORDERS + k]};
  const bool permuted = stream->spec.kind == KWM_STREAM_PERMUTED;
  for (int k = 0; k < VIEWS; k++)
    stream->views[k] = (struct view){-1, permuted ? memory[MAPS + k] : NULL, permuted ? NULL : memory[MAPS + k]};
  stream->batch = (struct buffer){memory[BATCH_PIXELS], memory[BATCH_LABELS]};
  stream->split = (struct buffer){memory[SPLIT_PIXELS], memory[SPLIT_LABELS]};
  return KWM_OK;
}

/* Appends to the index those of the images [first, first + n) whose class is in [low, high). */
static int64_t select_classes(const struct kwm_images *images, int64_t first, int64_t n, int low, int high,
                              int32_t *index) {
  int64_t found = 0;
  for (int64_t i = first; i < first + n; i++)
    if (images->labels[i] >= low && images->labels[i] < high) index[found++] = (int32_t)i;
  return found;
}

/* Sends each split of the pool through the index, which holds `used` samples so far. */
static kwm_status narrow(const struct kwm_stream *stream, struct pool *pool, int64_t task, int64_t *used) {
  static const char *const names[SPLITS] = {"training", "held-out", "test"};
  const int width = CLASSES / (int)stream->spec.tasks, low = width * (int)task;
  for (int s = 0; s < SPLITS; s++) {
    const struct kwm_images *const images = s == KWM_TEST ? &pool->set->test : &pool->set->train;
    const int64_t wanted = s == KWM_TRAIN ? larger(stream->spec.samples, 1) : pool->n[s] > 0;
    const int64_t found = select_classes(images, pool->first[s], pool->n[s], low, low + width, stream->index + *used);
    KWM_CHECK(found >= wanted, KWM_ERR_USAGE, "stream %s: wanted %lld %s samples of classes %d to %d, found %lld",
              pool->set->folder, (long long)wanted, names[s], low, low + width - 1, (long long)found);
    pool->first[s] = *used;
    pool->n[s] = found;
    *used += found;
  }
  if (stream->spec.relabel) pool->label_first = low;
  return KWM_OK;
}

static kwm_status fill_pools(struct kwm_stream *stream) {
  const struct kwm_stream_spec *const spec = &stream->spec;
  int64_t used = 0;
  stream->n_pools = pools_of(spec, &stream->sets);
  for (int64_t k = 0; k < stream->n_pools; k++) {
    const bool split = spec->kind == KWM_STREAM_SPLIT;
    struct pool *const pool = &stream->pools[k];
    const struct kwm_set *const set = &stream->sets.at[split ? 0 : k];
    *pool =
        (struct pool){.set = set, .first = {0, set->n_train, 0}, .n = {set->n_train, spec->validation, set->test.n}};
    if (split) KWM_TRY(narrow(stream, pool, k, &used));
    pool->samples = spec->samples > 0 ? spec->samples : pool->n[KWM_TRAIN];
    pool->steps = spec->passes * ((pool->samples + spec->batch - 1) / spec->batch);
    stream->cycle += pool->steps;
  }
  return KWM_OK;
}

static kwm_status fill(struct kwm_stream *stream, const struct kwm_stream_spec *spec) {
  KWM_TRY(open_sets(&stream->sets, spec, true));
  stream->facts = facts_of(spec, &stream->sets);
  stream->spec = *spec;
  stream->spec.path = stream->spec.paths = NULL;
  KWM_TRY(allocate(stream));
  return fill_pools(stream);
}

kwm_status kwm_stream_create(kwm_stream **created, const struct kwm_stream_spec *spec) {
  void *memory = NULL;
  *created = NULL;
  KWM_TRY(kwm_alloc(&memory, sizeof(struct kwm_stream), "stream of tasks"));
  const kwm_status status = fill(memory, spec);
  if (status == KWM_OK)
    *created = memory;
  else
    kwm_stream_destroy(memory);
  return status;
}

void kwm_stream_destroy(kwm_stream *stream) {
  if (stream == NULL) return;
  for (int p = 0; p < PIECES; p++) kwm_free(stream->memory[p]);
  kwm_sets_close(&stream->sets);
  kwm_free(stream);
}

/* ---- facts and places */

struct kwm_stream_facts kwm_stream_facts(const kwm_stream *stream) {
  return stream->facts;
}

int64_t kwm_stream_files(const kwm_stream *stream) {
  return 4 * stream->sets.count;
}

const struct kwm_file_facts *kwm_stream_file(const kwm_stream *stream, int64_t i) {
  KWM_ASSERT(i >= 0 && i < kwm_stream_files(stream));
  const struct kwm_set *const set = &stream->sets.at[i / 4];
  return &(i % 4 < 2 ? &set->train : &set->test)->files[i % 2];
}

static const struct pool *pool_of(const kwm_stream *stream, int64_t task) {
  KWM_ASSERT(task >= 0 && task < stream->spec.tasks);
  return &stream->pools[task % stream->n_pools];
}

int64_t kwm_stream_samples(const kwm_stream *stream, int64_t task) {
  return pool_of(stream, task)->samples;
}

int64_t kwm_stream_steps(const kwm_stream *stream, int64_t tasks) {
  KWM_ASSERT(tasks >= 0 && tasks <= stream->spec.tasks);
  int64_t steps = tasks / stream->n_pools * stream->cycle;
  for (int64_t k = 0; k < tasks % stream->n_pools; k++) steps += stream->pools[k].steps;
  return steps;
}

struct kwm_stream_place kwm_stream_place(const kwm_stream *stream, int64_t step) {
  KWM_ASSERT(step >= 0 && step < kwm_stream_steps(stream, stream->spec.tasks));
  int64_t task = step / stream->cycle * stream->n_pools, rest = step % stream->cycle;
  while (rest >= pool_of(stream, task)->steps) rest -= pool_of(stream, task++)->steps;
  const struct pool *const pool = pool_of(stream, task);
  const int64_t pass_steps = pool->steps / stream->spec.passes, batch = stream->spec.batch;
  const int64_t first = rest % pass_steps * batch, left = pool->samples - first;
  return (struct kwm_stream_place){task, rest / pass_steps, first, left < batch ? left : batch};
}

/* ---- samples */

static uint64_t key_of(enum use use, int64_t task) {
  return (uint64_t)use << 32 | (uint64_t)task;
}

static const int32_t *order_of(kwm_stream *stream, int64_t task, int64_t pass) {
  struct order *const order = &stream->orders[task % NEIGHBOURS];
  if (order->task == task && order->pass == pass) return order->at;
  const struct pool *const pool = pool_of(stream, task);
  const int64_t n = pool->n[KWM_TRAIN];
  kwm_order(stream->spec.seed, task << 32 | pass, pool->samples, order->at);
  if (pool->samples < n) {
    kwm_rng_permutation(stream->spec.seed, KWM_RNG_TASK, key_of(USE_SAMPLES, task), n, stream->drawn);
    for (int64_t i = 0; i < pool->samples; i++) order->at[i] = stream->drawn[order->at[i]];
  }
  order->task = task;
  order->pass = pass;
  return order->at;
}

static const struct view *view_of(const kwm_stream *stream, struct view *view, int64_t task) {
  const struct kwm_stream_spec *const spec = &stream->spec;
  const int64_t length = stream->sets.length;
  if (view->task == task) return view;
  if (view->pixels != NULL && task > 0)
    kwm_rng_permutation(spec->seed, KWM_RNG_TASK, key_of(USE_PIXELS, task), length, view->pixels);
  else if (view->pixels != NULL)
    for (int64_t j = 0; j < length; j++) view->pixels[j] = (int32_t)j;
  if (view->taps != NULL)
    kwm_rotate_taps(side_of(length), task > 0 ? spec->angle * (double)task / (double)(spec->tasks - 1) : 0.0,
                    view->taps);
  view->task = task;
  return view;
}

static void show(const struct view *view, int64_t length, const uint8_t *in, uint8_t *out) {
  if (view->taps != NULL)
    kwm_rotate_image(view->taps, length, in, out);
  else if (view->pixels != NULL)
    for (int64_t j = 0; j < length; j++) out[j] = in[view->pixels[j]];
  else
    memcpy(out, in, (size_t)length);
}

/* Sample `at` of the task's pool becomes sample i of the buffer. */
static void take(const kwm_stream *stream, const struct view *view, enum kwm_split split, int64_t at,
                 const struct buffer *buffer, int64_t i) {
  const struct pool *const pool = pool_of(stream, view->task);
  const struct kwm_images *const images = split == KWM_TEST ? &pool->set->test : &pool->set->train;
  const int64_t listed = pool->first[split] + at, length = stream->sets.length;
  const int64_t sample = stream->index != NULL ? stream->index[listed] : listed;
  show(view, length, images->pixels + sample * length, buffer->pixels + i * length);
  buffer->labels[i] = (uint8_t)(images->labels[sample] - pool->label_first);
}

static void lend(const kwm_stream *stream, const struct buffer *buffer, int64_t n, struct kwm_images *images) {
  *images = (struct kwm_images){.n = n,
                                .length = stream->sets.length,
                                .classes = stream->facts.classes,
                                .pixels = buffer->pixels,
                                .labels = buffer->labels};
}

/* Whose sample comes at this place of this task and pass: the task's own, or near a boundary the neighbour's. */
static int64_t source_of(const kwm_stream *stream, int64_t task, int64_t pass, int64_t at) {
  const double blend = stream->spec.blend;
  const int64_t samples = pool_of(stream, task)->samples, place = pass * samples + at;
  const double begun = ((double)place + 0.5) / (double)(stream->spec.passes * samples), left = 1.0 - begun;
  const bool late = left < begun;
  const int64_t neighbour = late ? task + 1 : task - 1;
  const double away = late ? left : begun;
  if (away >= 0.5 * blend || neighbour < 0 || neighbour >= stream->spec.tasks) return task;
  const double draw = kwm_rng_uniform(stream->spec.seed, KWM_RNG_TASK, key_of(USE_BLEND, task), (uint64_t)place);
  return draw < 0.5 - away / blend ? neighbour : task;
}

void kwm_stream_batch(kwm_stream *stream, int64_t step, struct kwm_images *batch) {
  const struct kwm_stream_place place = kwm_stream_place(stream, step);
  for (int64_t i = 0; i < place.n; i++) {
    const int64_t task = source_of(stream, place.task, place.pass, place.first + i);
    const int32_t *const order = order_of(stream, task, place.pass);
    const struct view *const view = view_of(stream, &stream->views[task % NEIGHBOURS], task);
    take(stream, view, KWM_TRAIN, order[(place.first + i) % pool_of(stream, task)->samples], &stream->batch, i);
  }
  lend(stream, &stream->batch, place.n, batch);
}

void kwm_stream_split(kwm_stream *stream, int64_t task, enum kwm_split split, struct kwm_images *images) {
  KWM_ASSERT(split == KWM_VALID || split == KWM_TEST);
  const struct view *const view = view_of(stream, &stream->views[VIEWS - 1], task);
  const int64_t n = pool_of(stream, task)->n[split];
  for (int64_t i = 0; i < n; i++) take(stream, view, split, i, &stream->split, i);
  lend(stream, &stream->split, n, images);
}
