/* Centres are first drawn one after the other, each point with a chance in proportion to 1 - cosine to the nearest
   centre so far (k-means++, Arthur and Vassilvitskii 2007); then Lloyd's steps: points to the nearest centres, centres
   to the direction of the sum of their points, which never makes the sum of cosines smaller. */
#include "kmeans.h"

#include <math.h>
#include <string.h>

#include "kwm/rng.h"

enum { ATTEMPTS = 16, STEPS_MAX = 100, LANES = 8 };

struct work {
  const struct kwm_points *points;
  int k;
  uint64_t seed, attempt;
  float *centres;   /* (k, d) */
  int32_t *nearest; /* (n) */
  double *cosine;   /* (n) to the nearest centre */
};

static double dot(const float *a, const float *b, int64_t d) {
  float lanes[LANES] = {0.0f};
  int64_t i = 0;
  for (; i + LANES <= d; i += LANES)
    for (int j = 0; j < LANES; j++) lanes[j] += a[i + j] * b[i + j];
  double sum = 0.0;
  for (; i < d; i++) sum += (double)a[i] * (double)b[i];
  for (int j = 0; j < LANES; j++) sum += (double)lanes[j];
  return sum;
}

int kwm_kmeans_nearest(const float *point, const float *centres, int k, int64_t d, double *cosine) {
  int best = 0;
  double highest = -INFINITY;
  for (int j = 0; j < k; j++) {
    const double value = dot(point, centres + j * d, d);
    if (value <= highest) continue;
    highest = value;
    best = j;
  }
  if (cosine != NULL) *cosine = highest;
  return best;
}

static const float *point_of(const struct work *work, int64_t i) {
  return work->points->at + i * work->points->d;
}

/* Puts every point to its nearest of the first k centres; whether any moved. */
static bool assign(struct work *work, int k) {
  bool moved = false;
  for (int64_t i = 0; i < work->points->n; i++) {
    const int nearest = kwm_kmeans_nearest(point_of(work, i), work->centres, k, work->points->d, &work->cosine[i]);
    moved = moved || nearest != work->nearest[i];
    work->nearest[i] = nearest;
  }
  return moved;
}

static void set_centre(struct work *work, int j, int64_t i) {
  memcpy(work->centres + j * work->points->d, point_of(work, i), (size_t)work->points->d * sizeof(float));
}

/* The point at a uniform place on the line of all points' chances. */
static int64_t draw_far_point(const struct work *work, double uniform) {
  double total = 0.0, sum = 0.0;
  for (int64_t i = 0; i < work->points->n; i++) total += fmax(0.0, 1.0 - work->cosine[i]);
  for (int64_t i = 0; i < work->points->n; i++) {
    sum += fmax(0.0, 1.0 - work->cosine[i]);
    if (sum > uniform * total) return i;
  }
  return (int64_t)(uniform * (double)work->points->n); /* all points are centres */
}

static void draw_centres(struct work *work) {
  for (int j = 0; j < work->k; j++) {
    const double uniform = kwm_rng_uniform(work->seed, KWM_RNG_TOPIC, work->attempt + 1, (uint64_t)j);
    set_centre(work, j, j == 0 ? (int64_t)(uniform * (double)work->points->n) : draw_far_point(work, uniform));
    assign(work, j + 1);
  }
}

/* A centre without a point stays where it is. */
static void move_centre(struct work *work, int j) {
  const int64_t d = work->points->d;
  float *const centre = work->centres + j * d;
  bool moved = false;
  for (int64_t i = 0; i < work->points->n; i++) {
    const float *const point = point_of(work, i);
    if (work->nearest[i] != j) continue;
    if (!moved) memset(centre, 0, (size_t)d * sizeof *centre);
    moved = true;
    for (int64_t c = 0; c < d; c++) centre[c] += point[c];
  }
  const double length = sqrt(dot(centre, centre, d));
  for (int64_t c = 0; c < d && length > 0.0; c++) centre[c] = (float)((double)centre[c] / length);
}

/* One attempt: the sum of cosines that it reaches. */
static double attempt(struct work *work) {
  draw_centres(work);
  for (int step = 0; step < STEPS_MAX; step++) {
    for (int j = 0; j < work->k; j++) move_centre(work, j);
    if (!assign(work, work->k)) break;
  }
  double sum = 0.0;
  for (int64_t i = 0; i < work->points->n; i++) sum += work->cosine[i];
  return sum;
}

kwm_status kwm_kmeans(const struct kwm_points *points, int k, uint64_t seed, float *centres, int32_t *nearest) {
  KWM_ASSERT(k >= 1 && points->n >= k && points->d >= 1);
  const size_t centre_bytes = (size_t)k * (size_t)points->d * sizeof *centres;
  const size_t nearest_bytes = (size_t)points->n * sizeof *nearest;
  void *memory[3] = {NULL};
  kwm_status status = kwm_alloc(&memory[0], centre_bytes, "centres of topics");
  if (status == KWM_OK) status = kwm_alloc(&memory[1], nearest_bytes, "topics of documents");
  if (status == KWM_OK) status = kwm_alloc(&memory[2], (size_t)points->n * sizeof(double), "cosines of documents");
  struct work work = {points, k, seed, 0, memory[0], memory[1], memory[2]};
  double best = -INFINITY;
  for (; status == KWM_OK && work.attempt < ATTEMPTS; work.attempt++) {
    const double sum = attempt(&work);
    if (sum <= best) continue;
    best = sum;
    memcpy(centres, work.centres, centre_bytes);
    memcpy(nearest, work.nearest, nearest_bytes);
  }
  for (int i = 0; i < 3; i++) kwm_free(memory[i]);
  return status;
}
