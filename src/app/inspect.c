/* kwm inspect: what a checkpoint holds. Opening it has already verified every checksum; here each array is read once
   more for its own statistics. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "inspect_more.h"
#include "kwm/app.h"
#include "run.h"

enum { DIMS_MAX = 8 };

struct listing {
  kwm_ckpt *ckpt;
  bool prints;
  kwm_status status;
  double bytes;
};

struct array_facts {
  double min, max, sum_squares, broken;
};

static double element(enum kwm_type type, const void *data, int64_t k) {
  switch (type) {
  case KWM_F32: return (double)((const float *)data)[k];
  case KWM_F64: return ((const double *)data)[k];
  case KWM_I64: return (double)((const int64_t *)data)[k];
  }
  return NAN;
}

static struct array_facts facts_of(enum kwm_type type, const void *data, int64_t n) {
  struct array_facts facts = {.min = INFINITY, .max = -INFINITY};
  for (int64_t k = 0; k < n; k++) {
    const double value = element(type, data, k);
    if (!isfinite(value)) {
      facts.broken++;
      continue;
    }
    facts.min = fmin(facts.min, value);
    facts.max = fmax(facts.max, value);
    facts.sum_squares += value * value;
  }
  return facts;
}

static void visit(void *context, const char *name, enum kwm_type type, int n_dims, const int64_t *dims) {
  struct listing *const listing = context;
  static const char *const types[] = {"float32", "float64", "int64"};
  const size_t width = type == KWM_F32 ? 4 : 8;
  int64_t n = 1;
  char shape[128] = "";
  for (int d = 0; d < n_dims; d++) {
    const size_t at = strlen(shape);
    snprintf(shape + at, sizeof shape - at, "%s%lld", d > 0 ? "x" : "", (long long)dims[d]);
    n *= dims[d];
  }
  void *data = NULL;
  kwm_status status = kwm_alloc(&data, (size_t)n * width, name);
  if (status == KWM_OK) status = kwm_ckpt_get(listing->ckpt, name, type, n_dims, dims, 0, dims[0], data);
  if (status == KWM_OK && listing->prints) {
    const struct array_facts facts = facts_of(type, data, n);
    /* In the history a number that was not measured yet is nan. */
    const bool sound = facts.broken == 0 || strncmp(name, "/history/", strlen("/history/")) == 0;
    printf("%s\t%s\t%s\t%.0f\t%.6g\t%.6g\t%.6g\t%s\n", name, types[type], shape, (double)n * (double)width, facts.min,
           facts.max, sqrt(facts.sum_squares / (double)n), sound ? "ok" : "not finite");
  }
  kwm_free(data);
  listing->bytes += (double)n * (double)width;
  if (listing->status == KWM_OK) listing->status = status;
}

static kwm_status print_meta(kwm_ckpt *ckpt, bool prints) {
  int64_t step = 0, epoch = 0, seed = 0;
  char *learner = NULL, *git = NULL;
  kwm_status status = kwm_ckpt_get_i64(ckpt, "/meta", "step", &step);
  if (status == KWM_OK) status = kwm_ckpt_get_i64(ckpt, "/meta", "epoch", &epoch);
  if (status == KWM_OK) status = kwm_ckpt_get_i64(ckpt, "/meta", "seed", &seed);
  if (status == KWM_OK) status = kwm_ckpt_get_text(ckpt, "/learner", "name", &learner);
  if (status == KWM_OK) status = kwm_ckpt_get_text(ckpt, "/meta", "git", &git);
  if (status == KWM_OK && prints)
    printf("checkpoint\t%s\nstep\t%lld\nepoch\t%lld\nseed\t%lld\nlearner\t%s\ncommit\t%s\nchecksums\tgood\n\n",
           kwm_ckpt_path(ckpt), (long long)step, (long long)epoch, (long long)seed, learner, git);
  free(learner);
  free(git);
  return status;
}

static kwm_status inspect(struct kwm_layout *world, const char *subject, kwm_ckpt **ckpt) {
  KWM_TRY(kwm_run_open_checkpoint(ckpt, world, subject));
  struct listing listing = {.ckpt = *ckpt, .prints = world->rank == 0};
  KWM_TRY(print_meta(*ckpt, listing.prints));
  if (listing.prints) printf("array\ttype\tshape\tbytes\tmin\tmax\trms\thealth\n");
  KWM_TRY(kwm_ckpt_list(*ckpt, visit, &listing));
  if (listing.prints) printf("total\t\t\t%.0f\n", listing.bytes);
  return listing.status;
}

kwm_status kwm_command_inspect(int argc, char **argv) {
  struct kwm_layout world;
  kwm_ckpt *ckpt = NULL;
  kwm_par_world(&world);
  if (argc >= 2 && strcmp(argv[0], "--verify") == 0) return kwm_inspect_verify(&world, argc - 1, argv + 1);
  if (argc == 3 && strcmp(argv[0], "--diff") == 0) return kwm_inspect_diff(&world, argv[1], argv[2]);
  KWM_CHECK(argc == 1 && argv[0][0] != '-', KWM_ERR_USAGE,
            "arguments: wanted one run directory or checkpoint, --verify and some, or --diff and two, found %d words",
            argc);
  const kwm_status status = inspect(&world, argv[0], &ckpt);
  kwm_ckpt_close(&ckpt);
  return status;
}
