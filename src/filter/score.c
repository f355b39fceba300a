/* Scores are kept as (params, count), the layout of kwm_jac_score; a matrix is one block. */
#include "score.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static int64_t numbers(const struct kwm_filter_part *part) {
  return part->count * part->params;
}

kwm_status score_init(struct kwm_score *score, const struct kwm_filter_part *part, int64_t chunks) {
  const size_t bytes = (size_t)numbers(part) * sizeof(float);
  KWM_TRY(kwm_treesum_init(&score->sum, NULL, numbers(part), chunks));
  KWM_TRY(kwm_alloc((void **)&score->before, bytes, "last score"));
  KWM_TRY(kwm_alloc((void **)&score->scratch, bytes, "score"));
  return kwm_alloc((void **)&score->g, (size_t)(part->n_max * part->d_o) * sizeof(float), "score of the outputs");
}

size_t score_bytes(const struct kwm_filter_part *part, int64_t chunks) {
  return kwm_treesum_bytes(numbers(part), chunks) + 2 * kwm_mem_rounded((size_t)numbers(part) * sizeof(float)) +
         kwm_mem_rounded((size_t)(part->n_max * part->d_o) * sizeof(float));
}

void score_fini(struct kwm_score *score) {
  kwm_treesum_fini(&score->sum);
  kwm_free(score->before);
  kwm_free(score->scratch);
  kwm_free(score->g);
}

void score_take(struct kwm_score *score, struct kwm_layout *layout, const struct kwm_jac *jac,
                const struct kwm_lin *lin) {
  for (int64_t c = 0; c < lin->chunks; c++) {
    const struct kwm_jac chunk = kwm_jac_part(jac, lin->bounds[c], lin->bounds[c + 1] - lin->bounds[c]);
    float *const leaf = kwm_treesum_leaf(&score->sum);
    if (score->sum.n > 0 && chunk.n > 0) kwm_jac_score(&chunk, leaf, score->g);
    kwm_treesum_push(&score->sum);
  }
  float *const now = kwm_treesum_finish(&score->sum);
  kwm_par_sum_replicas(layout, score->sum.n, now, score->scratch);
  score->now = now;
}

void score_product(const struct kwm_score *score, const struct kwm_filter_part *part, double *product) {
  for (int64_t b = 0; b < part->count; b++) product[b] = 0;
  for (int64_t k = 0; k < part->params; k++) {
    const double prior = part->prior_variance != NULL ? part->prior_variance[k] : 1 / part->prior_precision;
    for (int64_t b = 0; b < part->count; b++) {
      const int64_t at = k * part->count + b;
      product[b] += score->known ? prior * (double)score->now[at] * (double)score->before[at] : NAN;
    }
  }
}

void score_next(struct kwm_score *score, const struct kwm_filter_part *part, bool keep) {
  score->known = keep;
  if (keep && numbers(part) > 0) memcpy(score->before, score->now, (size_t)numbers(part) * sizeof(float));
}

static const char *dataset(const struct kwm_filter_part *part, char *name, size_t size) {
  snprintf(name, size, "/filter/score/%s", part->name);
  return name;
}

/* In the file (total, params), like the means. */
static void turn(const struct kwm_filter_part *part, const float *from, float *to, bool to_blocks) {
  for (int64_t b = 0; b < part->count; b++)
    for (int64_t k = 0; k < part->params; k++) {
      const int64_t block = b * part->params + k, column = k * part->count + b;
      to[to_blocks ? block : column] = from[to_blocks ? column : block];
    }
}

kwm_status score_save(const struct kwm_score *score, const struct kwm_filter_part *part, kwm_ckpt *ckpt, bool writes) {
  const int64_t dims[2] = {part->total, part->params};
  char name[128];
  turn(part, score->before, score->scratch, true);
  return kwm_ckpt_put(ckpt, dataset(part, name, sizeof name), KWM_F32, 2, dims, writes ? part->first : 0,
                      writes ? part->count : 0, score->scratch);
}

kwm_status score_load(struct kwm_score *score, const struct kwm_filter_part *part, bool known, kwm_ckpt *ckpt) {
  const int64_t dims[2] = {part->total, part->params};
  char name[128];
  KWM_TRY(
      kwm_ckpt_get(ckpt, dataset(part, name, sizeof name), KWM_F32, 2, dims, part->first, part->count, score->scratch));
  turn(part, score->scratch, score->before, false);
  score->known = known;
  return KWM_OK;
}
