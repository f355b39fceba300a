#include "inspect_more.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { DIMS_MAX = 8, PATH_BYTES = 4096, WINDOW_BYTES = 64 << 20 };

/* ---- verify */

struct tally {
  int64_t good, damaged;
};

/* The status of the opening; another one than KWM_OK and KWM_ERR_DATA ends the command. */
static kwm_status verify_one(struct kwm_layout *world, const char *path, struct tally *tally) {
  kwm_ckpt *ckpt = NULL;
  const kwm_status status = kwm_ckpt_open(&ckpt, world->world, path);
  kwm_ckpt_close(&ckpt);
  if (status != KWM_OK && status != KWM_ERR_DATA) return status;
  if (world->rank == 0)
    printf("%s\t%s\t%s\n", status == KWM_OK ? "good" : "damaged", path, status == KWM_OK ? "" : kwm_error_message());
  *(status == KWM_OK ? &tally->good : &tally->damaged) += 1;
  return KWM_OK;
}

static kwm_status verify_folder(struct kwm_layout *world, const char *dir, struct tally *tally) {
  char path[PATH_BYTES + 32];
  int64_t *steps, n;
  KWM_TRY(kwm_ckpt_steps(world->world, dir, &steps, &n));
  kwm_status status = KWM_OK;
  for (int64_t i = 0; i < n && status == KWM_OK; i++) {
    snprintf(path, sizeof path, "%s/step-%010lld.h5", dir, (long long)steps[i]);
    status = verify_one(world, path, tally);
  }
  free(steps);
  return status;
}

kwm_status kwm_inspect_verify(struct kwm_layout *world, int n, char **subjects) {
  struct tally tally = {0};
  for (int i = 0; i < n; i++) {
    char path[PATH_BYTES];
    if (kwm_run_checkpoint_folder(subjects[i], path, sizeof path))
      KWM_TRY(verify_folder(world, path, &tally));
    else
      KWM_TRY(verify_one(world, subjects[i], &tally));
  }
  if (world->rank == 0) printf("total\t%lld good\t%lld damaged\n", (long long)tally.good, (long long)tally.damaged);
  KWM_CHECK(tally.damaged == 0, KWM_ERR_DATA, "checkpoints: wanted all of them good, found %lld of %lld damaged",
            (long long)tally.damaged, (long long)(tally.good + tally.damaged));
  return KWM_OK;
}

/* ---- diff */

struct shape {
  enum kwm_type type;
  int n_dims;
  int64_t dims[DIMS_MAX];
};

struct pair {
  kwm_ckpt *one, *other;
  bool prints, reversed; /* reversed: only what `one` lacks is of interest */
  kwm_status status;
  int64_t arrays, differ;
};

struct difference {
  double largest, scale; /* of |a - b|, of |a| and |b| */
  int64_t at, elements;  /* where; how many are not the same */
};

static double element(enum kwm_type type, const void *data, int64_t k) {
  if (type == KWM_F32) return (double)((const float *)data)[k];
  return type == KWM_F64 ? ((const double *)data)[k] : (double)((const int64_t *)data)[k];
}

static void add(struct difference *found, const struct shape *shape, int64_t before, int64_t n, const char *a,
                const char *b) {
  const size_t width = shape->type == KWM_F32 ? 4 : 8;
  for (int64_t k = 0; k < n; k++) {
    const double x = element(shape->type, a, k), y = element(shape->type, b, k);
    found->scale = fmax(found->scale, fmax(fabs(x), fabs(y)));
    if (memcmp(a + (size_t)k * width, b + (size_t)k * width, width) == 0) continue;
    const double apart = isnan(x - y) ? INFINITY : fabs(x - y);
    if (found->elements++ == 0 || apart > found->largest) {
      found->largest = apart;
      found->at = before + k;
    }
  }
}

/* Window by window of whole rows, so that two arrays of any size fit. */
static kwm_status compare(const struct pair *pair, const char *name, const struct shape *shape,
                          struct difference *found) {
  int64_t row = 1;
  for (int d = 1; d < shape->n_dims; d++) row *= shape->dims[d];
  const int64_t width = shape->type == KWM_F32 ? 4 : 8, fit = WINDOW_BYTES / (row * width);
  const int64_t rows = fit < 1 ? 1 : fit > shape->dims[0] ? shape->dims[0] : fit;
  char *buffer = NULL;
  KWM_TRY(kwm_alloc((void **)&buffer, (size_t)(2 * rows * row * width), name));
  kwm_status status = KWM_OK;
  for (int64_t first = 0; first < shape->dims[0] && status == KWM_OK; first += rows) {
    const int64_t n = shape->dims[0] - first < rows ? shape->dims[0] - first : rows;
    char *const second = buffer + rows * row * width;
    status = kwm_ckpt_get(pair->one, name, shape->type, shape->n_dims, shape->dims, first, n, buffer);
    if (status == KWM_OK)
      status = kwm_ckpt_get(pair->other, name, shape->type, shape->n_dims, shape->dims, first, n, second);
    if (status == KWM_OK) add(found, shape, first * row, n * row, buffer, second);
  }
  kwm_free(buffer);
  return status;
}

/* The other's array of that name; the type shows only when it is read. */
static bool has_shape(kwm_ckpt *ckpt, const char *name, int n_dims, const int64_t *dims) {
  int64_t theirs[DIMS_MAX];
  int n = DIMS_MAX;
  return kwm_ckpt_shape(ckpt, name, &n, theirs) == KWM_OK && n == n_dims &&
         memcmp(theirs, dims, (size_t)n * sizeof *dims) == 0;
}

static void visit(void *context, const char *name, enum kwm_type type, int n_dims, const int64_t *dims) {
  struct pair *const pair = context;
  if (pair->status != KWM_OK || n_dims > DIMS_MAX) return;
  struct shape shape = {.type = type, .n_dims = n_dims};
  struct difference found = {0};
  memcpy(shape.dims, dims, (size_t)n_dims * sizeof *dims);
  const bool there = has_shape(pair->other, name, n_dims, dims);
  if (there && pair->reversed) return;
  pair->arrays++;
  const kwm_status read = there ? compare(pair, name, &shape, &found) : KWM_ERR_DATA;
  if (read != KWM_OK && read != KWM_ERR_DATA) pair->status = read;
  pair->differ += read != KWM_OK || found.elements > 0;
  if (!pair->prints) return;
  if (read != KWM_OK)
    printf("%s\t-\t-\t-\t-\t%s\n", name, pair->reversed ? "only in the second" : "no such array in the second");
  else
    printf("%s\t%.6g\t%.6g\t%lld\t%lld\t%s\n", name, found.largest, found.scale > 0 ? found.largest / found.scale : 0,
           (long long)found.at, (long long)found.elements, found.elements == 0 ? "same" : "differs");
}

static kwm_status diff(struct kwm_layout *world, struct pair *pair) {
  struct pair back = {.one = pair->other, .other = pair->one, .prints = pair->prints, .reversed = true};
  if (pair->prints) printf("array\tlargest\trelative\tat\telements\tverdict\n");
  KWM_TRY(kwm_ckpt_list(pair->one, visit, pair));
  KWM_TRY(kwm_ckpt_list(pair->other, visit, &back));
  KWM_TRY(kwm_agree(world->world, pair->status));
  if (pair->prints)
    printf("total\t%lld arrays\t%lld differ\n", (long long)(pair->arrays + back.arrays),
           (long long)(pair->differ + back.differ));
  return KWM_OK;
}

kwm_status kwm_inspect_diff(struct kwm_layout *world, const char *one, const char *other) {
  struct pair pair = {.prints = world->rank == 0};
  kwm_status status = kwm_run_open_checkpoint(&pair.one, world, one);
  if (status == KWM_OK) status = kwm_run_open_checkpoint(&pair.other, world, other);
  if (status == KWM_OK && pair.prints) printf("%s\t%s\n", kwm_ckpt_path(pair.one), kwm_ckpt_path(pair.other));
  if (status == KWM_OK) status = diff(world, &pair);
  kwm_ckpt_close(&pair.other);
  kwm_ckpt_close(&pair.one);
  return status;
}
