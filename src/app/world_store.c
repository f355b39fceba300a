/* A world model to and from its checkpoints. Everything is small and the same on all ranks but for koopman's streams,
   which are brought together before: rank 0 writes. Segments of a split model are written by their owners. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "world.h"

enum { N_COUNTS = sizeof(struct world_counts) / sizeof(double) };

static const char count_names[] = "seconds comm_seconds observed skipped nis nis_dof squares outputs likelihood "
                                  "row_seconds row_steps row_nis row_dof "
                                  "row_squares row_outputs row_likelihood";

_Static_assert(N_COUNTS == 16, "count_names lists the numbers of struct world_counts");

struct file {
  kwm_ckpt *ckpt;
  bool writes, first;
};

/* rows x columns doubles; columns 0: a vector. */
static kwm_status array(const struct file *file, const char *name, int64_t rows, int64_t columns, double *data) {
  const int64_t dims[2] = {rows, columns};
  const int n_dims = columns == 0 ? 1 : 2;
  if (rows == 0) return KWM_OK;
  if (!file->writes) return kwm_ckpt_get(file->ckpt, name, KWM_F64, n_dims, dims, 0, rows, data);
  return kwm_ckpt_put(file->ckpt, name, KWM_F64, n_dims, dims, 0, file->first ? rows : 0, data);
}

/* Roots of all blocks one after the other, each rank's own: of a block of n parameters Y_b (n, n), then X_b (d, n), or,
   in low rank, C_b (n, rank). /cov/block/state: D, or Z (src/filter/factors.c). */
static kwm_status blocks(struct kwm_tracker *tracker, const struct file *file) {
  const struct kwm_tracker_roots roots = kwm_tracker_roots(tracker);
  const char *const name = "/cov/block/factors";
  if (!file->writes)
    return kwm_ckpt_get(file->ckpt, name, KWM_F64, 1, &roots.all, roots.first, roots.count, roots.values);
  return kwm_ckpt_put(file->ckpt, name, KWM_F64, 1, &roots.all, roots.first, roots.count, roots.values);
}

static kwm_status statespace(struct world *world, const struct file *file) {
  struct kwm_tracker *const tracker = &world->tracker;
  KWM_TRY(array(file, "/params/theta", tracker->n, 0, tracker->z));
  KWM_TRY(array(file, "/state/mean", tracker->d, 0, tracker->z + tracker->n));
  if (strcmp(world->config->world.cov, "dense") != 0) {
    KWM_TRY(blocks(tracker, file));
    KWM_TRY(array(file, "/cov/block/state", tracker->d, tracker->d, tracker->D));
    KWM_TRY(array(file, "/filter/process_noise", tracker->d, 0, tracker->q));
    KWM_TRY(array(file, "/filter/observation_noise", tracker->m, 0, tracker->r));
    return array(file, "/filter/tracked", 1, 0, &tracker->steps);
  }
  KWM_TRY(array(file, "/state/sensitivity", tracker->n > 0 ? tracker->d : 0, tracker->n, tracker->S));
  KWM_TRY(array(file, "/cov/joint/covariance_factor", tracker->N, tracker->N, tracker->Y)); /* transposed: rows of Yᵀ */
  KWM_TRY(array(file, "/filter/process_noise", tracker->d, 0, tracker->q));
  KWM_TRY(array(file, "/filter/observation_noise", tracker->m, 0, tracker->r));
  return array(file, "/filter/tracked", 1, 0, &tracker->steps);
}

/* A row of every segment, each rank's own, and for those who read it what it has of all. */
static kwm_status split(struct world *world, const struct file *file) {
  struct kwm_ring *const ring = &world->split.ring;
  const int64_t width = kwm_ring_width(ring), dims[2] = {ring->spec.segments, width};
  const char *const name = "/cov/segments/trackers";
  double *rows;
  kwm_status status = kwm_alloc((void **)&rows, (size_t)(ring->count * width) * sizeof *rows, "segments");
  KWM_TRY(kwm_agree(world->run->layout.world, status));
  if (file->writes) {
    kwm_ring_pack(ring, width, rows);
    status = kwm_ckpt_put(file->ckpt, name, KWM_F64, 2, dims, ring->begin, ring->count, rows);
  } else {
    status = kwm_ckpt_get(file->ckpt, name, KWM_F64, 2, dims, ring->begin, ring->count, rows);
    if (status == KWM_OK) kwm_ring_unpack(ring, width, rows);
    if (status == KWM_OK) kwm_ring_share(ring, false);
  }
  kwm_free(rows);
  return status;
}

static kwm_status split_means(struct world *world, const struct file *file) {
  struct kwm_ring *const ring = &world->split.ring;
  const int64_t d = ring->spec.d, m = ring->spec.m, n = d * ring->spec.params;
  double *memory;
  if (!file->writes) return KWM_OK;
  kwm_status status = kwm_alloc((void **)&memory, (size_t)(n + 2 * d + m) * sizeof *memory, "segments");
  KWM_TRY(kwm_agree(world->run->layout.world, status));
  const struct kwm_ring_view view = {.theta = memory, .x = memory + n, .q = memory + n + d, .r = memory + n + 2 * d};
  kwm_ring_gather(ring, &view);
  status = array(file, "/params/theta", n, 0, view.theta);
  if (status == KWM_OK) status = array(file, "/state/mean", d, 0, view.x);
  if (status == KWM_OK) status = array(file, "/filter/process_noise", d, 0, view.q);
  if (status == KWM_OK) status = array(file, "/filter/observation_noise", m, 0, view.r);
  kwm_free(memory);
  return status;
}

static kwm_status network(struct world *world, const struct file *file) {
  struct kwm_tracker *const learner = &world->learner;
  KWM_TRY(array(file, "/params/theta", learner->n, 0, learner->z));
  KWM_TRY(array(file, "/cov/joint/covariance_factor", learner->n, learner->n, learner->Y)); /* as above */
  KWM_TRY(array(file, "/filter/observation_noise", learner->m, 0, learner->r));
  return array(file, "/filter/tracked", 1, 0, &learner->steps);
}

static kwm_status koopman(struct world *world, const struct file *file) {
  for (int64_t s = 0; s < world->config->world.streams; s++) {
    struct kwm_regression *const stream = &world->streams[s];
    char name[64];
    snprintf(name, sizeof name, "/cov/koopman/precision_factor_%lld", (long long)s);
    KWM_TRY(array(file, name, stream->k, stream->k + stream->d, stream->U));
    snprintf(name, sizeof name, "/cov/koopman/residuals_%lld", (long long)s);
    KWM_TRY(array(file, name, stream->d, stream->d, stream->squares));
    snprintf(name, sizeof name, "/cov/koopman/count_%lld", (long long)s);
    KWM_TRY(array(file, name, 1, 0, &stream->count));
  }
  const int64_t size = world->lift.size, width = size + world->lift.spec.k;
  KWM_TRY(array(file, "/params/koopman", size, width, world->lift.A));
  double solved = world->solved;
  KWM_TRY(array(file, "/params/solved", 1, 0, &solved));
  world->solved = solved > 0;
  return KWM_OK;
}

static kwm_status all(struct world *world, const struct file *file) {
  if (world->is_split) {
    KWM_TRY(split(world, file));
    KWM_TRY(split_means(world, file));
  } else {
    KWM_TRY(world->network ? network(world, file) : world->koopman ? koopman(world, file) : statespace(world, file));
  }
  KWM_TRY(array(file, "/history/noise", 4, 0, world->noise));
  KWM_TRY(array(file, "/series/mean", world->series.m + world->series.k, 0, world->series.mean));
  KWM_TRY(array(file, "/series/scale", world->series.m + world->series.k, 0, world->series.scale));
  return array(file, "/history/counts", N_COUNTS, 0, (double *)&world->counts);
}

static kwm_status meta(struct world *world, kwm_ckpt *ckpt) {
  const int64_t train = world->series.train;
  KWM_TRY(kwm_ckpt_put_i64(ckpt, "/meta", "epoch", world->step / train));
  KWM_TRY(kwm_ckpt_put_i64(ckpt, "/meta", "cursor", world->step % train));
  KWM_TRY(kwm_ckpt_put_i64(ckpt, "/meta", "epoch_steps", train));
  KWM_TRY(kwm_ckpt_put_i64(ckpt, "/meta", "pixels", 0)); /* as every checkpoint has them; no images here */
  KWM_TRY(kwm_ckpt_put_i64(ckpt, "/meta", "classes", 0));
  KWM_TRY(kwm_ckpt_put_text(ckpt, "/learner", "name", world->config->model.kind));
  return kwm_ckpt_put_text(ckpt, "/history", "names", count_names);
}

bool world_finite(const struct world *world) {
  if (world->is_split) return kwm_ring_finite(&world->split.ring);
  double sum = 0;
  const struct kwm_tracker *const learner = world->network ? &world->learner : &world->tracker;
  for (int i = 0; i < learner->N && (world->network || !world->koopman); i++) sum += fabs(learner->z[i]);
  return isfinite(sum);
}

kwm_status world_put(struct world *world, kwm_ckpt *ckpt) {
  const struct file file = {.ckpt = ckpt, .writes = true, .first = world->run->layout.rank == 0};
  if (world->koopman) KWM_TRY(world_merge(world)); /* every rank has every stream then */
  KWM_TRY(meta(world, ckpt));
  return all(world, &file);
}

/* The keys that make a run what it is. */
static kwm_status compare(const struct world *world, kwm_ckpt *ckpt) {
  static const char *const free_keys[] = {
      "output:", "every:",  "keep:",      "max_steps:", "replicas:", "owners:", "horizon:",
      "ar:",     "online:", "memory_gb:", "noise:",     "path:",     "epochs:", "correction:"};
  char *theirs = NULL;
  KWM_TRY(kwm_ckpt_get_text(ckpt, "/meta", "config", &theirs));
  const char *a = world->run->config_text, *b = theirs;
  kwm_status status = KWM_OK;
  while (*a != '\0' && *b != '\0' && status == KWM_OK) {
    const size_t la = strcspn(a, "\n"), lb = strcspn(b, "\n");
    const char *const key = a + strspn(a, " ");
    bool free_key = false;
    for (size_t k = 0; k < sizeof free_keys / sizeof free_keys[0]; k++)
      free_key = free_key || strncmp(key, free_keys[k], strlen(free_keys[k])) == 0;
    if (!free_key && (la != lb || strncmp(a, b, la) != 0))
      status =
          KWM_RAISE(KWM_ERR_DATA, "checkpoint %s is of another run: wanted `%.*s`, found `%.*s`", kwm_ckpt_path(ckpt),
                    (int)(la - (size_t)(key - a)), key, (int)(lb - strspn(b, " ")), b + strspn(b, " "));
    a += la + (a[la] != '\0');
    b += lb + (b[lb] != '\0');
  }
  free(theirs);
  return status;
}

kwm_status world_load(struct world *world, kwm_ckpt *ckpt) {
  const struct file file = {.ckpt = ckpt};
  const int64_t train = world->series.train;
  int64_t steps = 0;
  KWM_TRY(kwm_agree(world->run->layout.world, compare(world, ckpt)));
  KWM_TRY(kwm_ckpt_get_i64(ckpt, "/meta", "step", &world->step));
  KWM_TRY(kwm_ckpt_get_i64(ckpt, "/meta", "epoch_steps", &steps));
  KWM_CHECK(steps == train, KWM_ERR_DATA, "checkpoint %s is of other data: wanted %lld training steps, found %lld",
            kwm_ckpt_path(ckpt), (long long)train, (long long)steps);
  return all(world, &file); /* koopman: K as of the last row, as an uninterrupted run has it */
}
