/* One group's spectrum. Blocks lie where their owners are; a joint or low-rank covariance has one spectrum, which every
   rank knows and the first one writes. */
#include "spectra_group.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kwm/cov_ops.h"

int kwm_group_spectra(const struct kwm_filter *filter) {
  return filter->joint != NULL ? 1 : filter->n_groups;
}

/* All ranks compute the one spectrum together. */
static bool together(const struct kwm_filter *filter, int g) {
  return filter->joint != NULL || filter->group[g].cov.ops->collective;
}

static void shape(struct kwm_group_spectrum *spectrum, const struct kwm_filter *filter, int g) {
  const struct kwm_filter_group *const group = &filter->group[g];
  const bool first_rank = filter->layout->stage == 0 && filter->layout->owner == 0;
  *spectrum = (struct kwm_group_spectrum){
      .name = filter->joint != NULL ? "full" : group->part.name, .blocks = 1, .last = 1, .count = first_rank};
  if (filter->joint != NULL) {
    for (int k = 0; k < filter->n_groups; k++)
      spectrum->width += filter->group[k].part.total * filter->group[k].part.params;
  } else if (together(filter, g)) {
    spectrum->width = kwm_cov_spectrum_length(&group->cov);
    spectrum->last = kwm_cov_spectrum_last(&group->cov);
  } else {
    spectrum->blocks = group->part.total;
    spectrum->width = group->part.params;
    spectrum->first = group->part.first;
    spectrum->count = group->part.count;
  }
}

static kwm_status allocate(struct kwm_group_spectrum *spectrum, int64_t rows) {
  const size_t held = (size_t)(rows * spectrum->width), blocks = (size_t)spectrum->blocks;
  KWM_TRY(kwm_alloc((void **)&spectrum->values, held * sizeof(double), "eigenvalues"));
  KWM_TRY(kwm_alloc((void **)&spectrum->facts, KWM_SPECTRUM_FACTS * blocks * sizeof(double), "facts of spectra"));
  return kwm_alloc((void **)&spectrum->gain, blocks * sizeof(double), "gains");
}

kwm_status kwm_group_spectrum_allocate(struct kwm_group_spectrum *spectrum) {
  return allocate(spectrum, spectrum->count);
}

static kwm_status compute(struct kwm_group_spectrum *spectrum, const struct kwm_filter *filter, int g) {
  if (filter->joint != NULL) return kwm_filter_spectrum(filter, spectrum->values);
  const bool good = kwm_cov_spectrum(&filter->group[g].cov, spectrum->values);
  KWM_CHECK(good, KWM_ERR_NUMERIC, "spectra: group %s: wanted a positive definite covariance, found another",
            spectrum->name);
  return KWM_OK;
}

void kwm_group_spectrum_share(struct kwm_group_spectrum *spectrum, struct kwm_layout *layout) {
  const int64_t width = spectrum->width, blocks = spectrum->blocks;
  for (int64_t b = 0; b < spectrum->count; b++) {
    double facts[KWM_SPECTRUM_FACTS];
    kwm_spectrum_facts(width, spectrum->values + b * width, spectrum->last, facts);
    for (int k = 0; k < KWM_SPECTRUM_FACTS; k++) spectrum->facts[k * blocks + spectrum->first + b] = facts[k];
  }
  kwm_par_sum_group(layout, KWM_SPECTRUM_FACTS * blocks, spectrum->facts);
}

/* What the filter keeps of blocks that have one spectrum adds up. */
static void take_gain(struct kwm_group_spectrum *spectrum, const struct kwm_filter *filter, int g) {
  const int end = filter->joint != NULL ? filter->n_groups : g + 1;
  for (int k = g; k < end; k++)
    for (int64_t b = 0; b < filter->group[k].part.total; b++)
      spectrum->gain[spectrum->blocks > 1 ? b : 0] += filter->group[k].gain[b];
}

kwm_status kwm_group_spectrum_init(struct kwm_group_spectrum *spectrum, const struct kwm_filter *filter, int g) {
  shape(spectrum, filter, g);
  KWM_TRY(kwm_agree(filter->layout->world, allocate(spectrum, together(filter, g) ? 1 : spectrum->count)));
  KWM_TRY(kwm_agree(filter->layout->world, compute(spectrum, filter, g)));
  kwm_group_spectrum_share(spectrum, filter->layout);
  take_gain(spectrum, filter, g);
  return KWM_OK;
}

void kwm_group_spectrum_fini(struct kwm_group_spectrum *spectrum) {
  kwm_free(spectrum->values);
  kwm_free(spectrum->facts);
  kwm_free(spectrum->gain);
  memset(spectrum, 0, sizeof *spectrum);
}

/* ---- to a file */

static const char *label(char name[128], const struct kwm_group_spectrum *spectrum, const char *leaf) {
  snprintf(name, 128, "/spectra/%s/%s", spectrum->name, leaf);
  return name;
}

kwm_status kwm_group_spectrum_put(struct kwm_group_spectrum *spectrum, const struct kwm_layout *layout,
                                  kwm_ckpt *file) {
  char name[128];
  const int64_t blocks = spectrum->blocks, width = spectrum->width, dims[2] = {blocks, width};
  const int64_t count = layout->replica == 0 ? spectrum->count : 0, first = count > 0 ? spectrum->first : 0;
  KWM_TRY(kwm_ckpt_put(file, label(name, spectrum, "eigenvalues"), KWM_F64, 2, dims, first, count, spectrum->values));
  /* The first block's writer has room for a row of any width. */
  const bool mine = count > 0 && first == 0;
  for (int64_t k = 0; k < width && mine; k++) spectrum->values[k] = k + 1 < width ? 1 : (double)spectrum->last;
  KWM_TRY(kwm_ckpt_put(file, label(name, spectrum, "multiplicity"), KWM_F64, 1, &width, 0, mine ? width : 0,
                       spectrum->values));
  const int64_t rows = layout->rank == 0 ? blocks : 0;
  for (int k = 0; k < KWM_SPECTRUM_FACTS; k++)
    KWM_TRY(kwm_ckpt_put(file, label(name, spectrum, kwm_spectrum_words[k]), KWM_F64, 1, &blocks, 0, rows,
                         spectrum->facts + k * blocks));
  return kwm_ckpt_put(file, label(name, spectrum, "gain"), KWM_F64, 1, &blocks, 0, rows, spectrum->gain);
}

/* ---- to a table */

void kwm_group_spectrum_head(void) {
  printf("group\tblocks\tdirections");
  for (int k = 0; k < KWM_SPECTRUM_FACTS; k++) printf("\t%s", kwm_spectrum_words[k]);
  printf("\n");
}

/* The trace as a share of the prior's. */
static void print_line(const char *name, const char *which, int64_t blocks, int64_t directions,
                       const double facts[KWM_SPECTRUM_FACTS]) {
  printf("%s%s\t%lld\t%lld", name, which, (long long)blocks, (long long)directions);
  for (int k = 0; k < KWM_SPECTRUM_FACTS; k++)
    printf("\t%.6g", k == KWM_SPECTRUM_TRACE ? facts[k] / (double)directions : facts[k]);
  printf("\n");
}

static int ascending(const void *a, const void *b) {
  const double left = *(const double *)a, right = *(const double *)b;
  return (left > right) - (left < right);
}

void kwm_group_spectrum_print(const struct kwm_group_spectrum *spectrum) {
  const int64_t blocks = spectrum->blocks, each = spectrum->width - 1 + spectrum->last;
  double whole[KWM_SPECTRUM_FACTS], least[KWM_SPECTRUM_FACTS], middle[KWM_SPECTRUM_FACTS], most[KWM_SPECTRUM_FACTS];
  kwm_spectrum_join(blocks, spectrum->facts, whole);
  print_line(spectrum->name, "", blocks, blocks * each, whole);
  if (blocks == 1) return;
  for (int k = 0; k < KWM_SPECTRUM_FACTS; k++) {
    double *const fact = spectrum->facts + k * blocks;
    qsort(fact, (size_t)blocks, sizeof *fact, ascending);
    least[k] = fact[0];
    middle[k] = (fact[(blocks - 1) / 2] + fact[blocks / 2]) / 2;
    most[k] = fact[blocks - 1];
  }
  print_line(spectrum->name, " min", blocks, each, least);
  print_line(spectrum->name, " median", blocks, each, middle);
  print_line(spectrum->name, " max", blocks, each, most);
}
