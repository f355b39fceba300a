/* Making a filter, its memory, and its way into a checkpoint and out of it. */
#include "parts.h"

#include <stdio.h>
#include <string.h>

#include "joint.h"
#include "kwm/cov_ops.h"
#include "kwm/rooms.h"
#include "score.h"

/* ---- memory */

static size_t matrix_bytes(const struct kwm_filter_spec *spec, bool shared, int64_t m, int64_t blocks) {
  const size_t rows = shared ? (size_t)(spec->batch * m) : 0;
  return kwm_mem_rounded(rows * rows * sizeof(double)) + kwm_mem_rounded(rows * sizeof(double)) +
         kwm_mem_rounded(spec->adapt_noise > 0 ? rows * rows * sizeof(double) : 0) +
         kwm_mem_rounded((size_t)(FILTER_FACTS * blocks) * sizeof(double));
}

/* Beside evidence and covariance. */
static size_t part_bytes(const struct kwm_filter_spec *spec, const struct kwm_filter_part *part, int64_t replicas) {
  size_t bytes = 0;
  const size_t means = kwm_mem_rounded((size_t)(part->count * part->params) * sizeof(float));
  if (spec->forgetting < 1) bytes += means;
  if (spec->line_search) bytes += means;
  if (spec->score_test) bytes += score_bytes(part, spec->chunks / replicas);
  return bytes;
}

struct kwm_filter_part kwm_filter_part_of(const struct kwm_cov_spec *cov, float *mean) {
  return (struct kwm_filter_part){.name = cov->name,
                                  .total = cov->total,
                                  .params = cov->params,
                                  .first = cov->first,
                                  .count = cov->count,
                                  .d_o = cov->d_o,
                                  .n_max = cov->n_max,
                                  .m = cov->m,
                                  .prior_variance = cov->d_o > 0 ? NULL : cov->prior_variance,
                                  .prior_precision = cov->prior_precision,
                                  .mean = mean};
}

/* Groups begin where wide loads may. */
static int64_t aligned(int64_t floats) {
  return (floats + 31) / 32 * 32;
}

/* Of all groups; on a device by its own structures. */
static size_t evidence_bytes(const struct kwm_filter_spec *spec, int64_t replicas, bool on_device, int n_groups,
                             const struct kwm_cov_ops *const *ops, const struct kwm_cov_spec *covs) {
  int64_t length = 0;
  bool any = false;
  for (int g = 0; g < n_groups; g++) {
    if (covs[g].form == KWM_FORM_INNOVATION) continue;
    length += aligned((on_device ? ops[g]->device : ops[g])->evidence_length(&covs[g]));
    any = true;
  }
  if (!any) return 0;
  return kwm_treesum_bytes(length, spec->chunks / replicas) + kwm_mem_rounded((size_t)length * sizeof(float)) +
         (on_device ? kwm_rooms_bytes(replicas, length) : 0);
}

size_t kwm_filter_bytes(const struct kwm_filter_spec *spec, int64_t replicas, int n_groups,
                        const struct kwm_cov_ops *const *ops, const struct kwm_cov_spec *covs) {
  size_t bytes = 0;
  int64_t blocks = 0;
  bool shared = false;
  for (int g = 0; g < n_groups; g++) {
    const struct kwm_filter_part part = kwm_filter_part_of(&covs[g], NULL);
    bytes += part_bytes(spec, &part, replicas);
    blocks += covs[g].total;
    shared = shared || covs[g].form == KWM_FORM_INNOVATION;
  }
  return bytes + evidence_bytes(spec, replicas, false, n_groups, ops, covs) +
         matrix_bytes(spec, shared, covs[0].m, blocks);
}

size_t kwm_filter_device_bytes(const struct kwm_filter_spec *spec, int64_t replicas, bool alone, int n_groups,
                               const struct kwm_cov_ops *const *ops, const struct kwm_cov_spec *covs) {
  bool shared = false;
  size_t bytes = 0;
  for (int g = 0; g < n_groups; g++) {
    const struct kwm_filter_part part = kwm_filter_part_of(&covs[g], NULL);
    bytes += kwm_cov_device_bytes(ops[g], &covs[g]) + part_bytes(spec, &part, replicas);
    shared = shared || covs[g].form == KWM_FORM_INNOVATION;
  }
  return bytes + evidence_bytes(spec, replicas, true, n_groups, ops, covs) +
         (shared ? shared_there_bytes(spec, alone, covs[0].m) : 0);
}

size_t kwm_filter_joint_bytes(const struct kwm_filter_spec *spec, int ranks, int rank, int n_groups,
                              const struct kwm_filter_part *parts) {
  size_t bytes = kwm_joint_bytes(spec, ranks, rank, n_groups, parts);
  int64_t blocks = 0;
  for (int g = 0; g < n_groups; g++) {
    bytes += part_bytes(spec, &parts[g], 1);
    blocks += parts[g].total;
  }
  return bytes + matrix_bytes(spec, true, parts[0].m, blocks);
}

/* ---- making */

/* After all parts. */
static kwm_status init_evidence(struct kwm_filter *filter) {
  const bool staged = filter->device != NULL && !filter->layout->devices_talk && filter->layout->replicas > 1;
  int64_t length = 0;
  bool any = false;
  for (int g = 0; g < filter->n_groups; g++) {
    struct kwm_filter_group *const group = &filter->group[g];
    if (group->cov.spec.form == KWM_FORM_INNOVATION) continue;
    group->evidence_at = length;
    length += aligned(kwm_cov_evidence_length(&group->cov));
    any = true;
  }
  if (!any) return KWM_OK;
  const size_t bytes = (size_t)length * sizeof(float);
  KWM_TRY(kwm_treesum_init(&filter->sum, filter->device, length, filter->spec.chunks / filter->layout->replicas));
  if (staged) KWM_TRY(kwm_alloc((void **)&filter->over.staging, 2 * bytes, "evidence on its way"));
  return kwm_device_alloc(filter->device, (void **)&filter->over.scratch, bytes, "evidence");
}

kwm_status kwm_filter_open_rooms(struct kwm_filter *filter) {
  if (!filter->layout->direct || filter->sum.levels == 0) return KWM_OK;
  return kwm_rooms_open(&filter->over.rooms, filter->layout, filter->device, filter->sum.n);
}

static kwm_status init_part(struct kwm_filter *filter, struct kwm_filter_group *group,
                            const struct kwm_filter_part *part) {
  const size_t bytes = (size_t)(part->count * part->params) * sizeof(float);
  group->part = *part;
  group->process_noise = filter->spec.process_noise;
  filter->blocks += part->total;
  if (filter->spec.forgetting < 1) {
    KWM_TRY(kwm_device_alloc(filter->device, (void **)&group->anchor, bytes, "anchor"));
    kwm_device_copy(filter->device, group->anchor, part->mean, bytes);
  }
  if (filter->spec.line_search)
    KWM_TRY(kwm_device_alloc(filter->device, (void **)&group->kept, bytes, "means before a line search"));
  if (!filter->spec.score_test) return KWM_OK;
  return score_init(&group->score, part, filter->spec.chunks / filter->layout->replicas);
}

/* After all parts. */
static kwm_status init_matrices(struct kwm_filter *filter) {
  const size_t rows = filter->shared ? (size_t)(filter->spec.batch * filter->group[0].part.m) : 0;
  const size_t inverse = filter->spec.adapt_noise > 0 ? rows * rows * sizeof(double) : 0;
  filter->rows_max = (int64_t)rows;
  filter->noise = 1;
  KWM_TRY(
      kwm_alloc((void **)&filter->facts, (size_t)(FILTER_FACTS * filter->blocks) * sizeof(double), "facts of blocks"));
  double *at = filter->facts;
  for (int g = 0; g < filter->n_groups; at += filter->group[g].part.total, g++) {
    filter->group[g].kl = at + FILTER_KL * filter->blocks;
    filter->group[g].expected = at + FILTER_EXPECTED * filter->blocks;
    filter->group[g].slope = at + FILTER_SLOPE * filter->blocks;
    filter->group[g].moved = at + FILTER_MOVED * filter->blocks;
    filter->group[g].product = at + FILTER_PRODUCT * filter->blocks;
    filter->group[g].gain = at + FILTER_GAIN * filter->blocks;
  }
  KWM_TRY(kwm_alloc((void **)&filter->S, rows * rows * sizeof(double), "S"));
  KWM_TRY(kwm_alloc((void **)&filter->w, rows * sizeof(double), "S⁻¹e"));
  if (filter->device != NULL) KWM_TRY(kwm_alloc((void **)&filter->e, rows * sizeof(float), "innovations"));
  KWM_TRY(shared_there_init(filter));
  return kwm_alloc((void **)&filter->inverse, inverse, "S⁻¹");
}

static void init_empty(struct kwm_filter *filter, struct kwm_layout *layout, const struct kwm_filter_spec *spec) {
  memset(filter, 0, sizeof *filter);
  filter->layout = layout;
  filter->spec = *spec;
}

/* One S couples all samples; R's scale is known from S, so S must cover all groups. */
static kwm_status check_forms(const struct kwm_filter *filter, bool covers_all) {
  KWM_CHECK(!filter->shared || filter->layout->replicas == 1, KWM_ERR_USAGE,
            "config: wanted layout.replicas 1 with the innovation form or cov.joint full (one S couples all samples), "
            "found %d",
            filter->layout->replicas);
  KWM_CHECK(filter->spec.adapt_noise == 0 || covers_all, KWM_ERR_USAGE,
            "config: wanted the innovation form for every group, or cov.joint full, with filter.adapt_noise %g (R is "
            "judged by S), found the information form",
            filter->spec.adapt_noise);
  return KWM_OK;
}

/* What the derived step lengths ask of a group. */
static kwm_status check_group(const struct kwm_filter_spec *spec, const kwm_cov *cov) {
  const char *const key = spec->line_search ? "filter.line_search" : "filter.trust_expected";
  const bool wanted = spec->line_search || spec->trust_expected > 0;
  const bool known = cov->ops->slope != NULL && cov->spec.form == KWM_FORM_INFORMATION;
  KWM_CHECK(!wanted || known, KWM_ERR_USAGE,
            "config: wanted kron or diag in the information form for group %s with %s, found another structure or form",
            cov->spec.name, key);
  return KWM_OK;
}

kwm_status kwm_filter_init(struct kwm_filter *filter, struct kwm_layout *layout, const struct kwm_filter_spec *spec,
                           int n_groups, kwm_cov *cov, float *const *mean) {
  KWM_ASSERT(n_groups <= KWM_FILTER_GROUPS && spec->chunks % layout->replicas == 0);
  bool covers_all = true, rows = false;
  init_empty(filter, layout, spec);
  filter->device = cov[0].spec.device;
  KWM_ASSERT(filter->device == NULL || !spec->score_test);
  filter->n_groups = n_groups;
  for (int g = 0; g < n_groups; g++) filter->group[g].cov = cov[g]; /* owned from here on, whatever fails */
  for (int g = 0; g < n_groups; g++) {
    struct kwm_filter_group *const group = &filter->group[g];
    const struct kwm_filter_part part = kwm_filter_part_of(&group->cov.spec, mean[g]);
    const bool innovation = group->cov.spec.form == KWM_FORM_INNOVATION;
    KWM_TRY(check_group(spec, &group->cov));
    KWM_TRY(init_part(filter, group, &part));
    filter->shared = filter->shared || innovation;
    covers_all = covers_all && innovation;
    rows = rows || (!innovation && group->cov.ops->collective);
  }
  KWM_CHECK(!rows || layout->replicas == 1, KWM_ERR_USAGE,
            "config: wanted layout.replicas 1 with lowrank (its evidence is the rows of all samples), found %d",
            layout->replicas);
  KWM_TRY(check_forms(filter, covers_all));
  KWM_TRY(init_evidence(filter));
  return init_matrices(filter);
}

kwm_status kwm_filter_init_joint(struct kwm_filter *filter, struct kwm_layout *layout,
                                 const struct kwm_filter_spec *spec, int n_groups,
                                 const struct kwm_filter_part *parts) {
  KWM_ASSERT(n_groups <= KWM_FILTER_GROUPS);
  init_empty(filter, layout, spec);
  filter->n_groups = n_groups;
  filter->shared = true;
  kwm_status status = check_forms(filter, true);
  if (status == KWM_OK && (spec->line_search || spec->trust_expected > 0))
    status = KWM_RAISE(KWM_ERR_USAGE, "config: wanted cov.joint none with %s, found full",
                       spec->line_search ? "filter.line_search" : "filter.trust_expected");
  for (int g = 0; g < n_groups && status == KWM_OK; g++) status = init_part(filter, &filter->group[g], &parts[g]);
  if (status == KWM_OK) status = init_matrices(filter);
  KWM_TRY(kwm_agree(layout->group, status));
  return kwm_joint_create(&filter->joint, layout, spec, n_groups, parts);
}

void kwm_filter_fini(struct kwm_filter *filter) {
  kwm_joint_destroy(filter->joint);
  kwm_rooms_close(filter->over.rooms);
  for (int g = 0; g < filter->n_groups; g++) {
    struct kwm_filter_group *const group = &filter->group[g];
    kwm_cov_destroy(&group->cov);
    score_fini(&group->score);
    kwm_device_free(filter->device, group->anchor);
    kwm_device_free(filter->device, group->kept);
  }
  kwm_treesum_fini(&filter->sum);
  kwm_device_free(filter->device, filter->over.scratch);
  kwm_free(filter->over.staging);
  kwm_device_free(filter->device, filter->S_there.values);
  kwm_device_free(filter->device, filter->w_there);
  kwm_device_free(filter->device, filter->S_there.scratch);
  kwm_free(filter->S_there.staging);
  kwm_free(filter->facts);
  kwm_free(filter->S);
  kwm_free(filter->w);
  kwm_free(filter->e);
  kwm_free(filter->inverse);
  memset(filter, 0, sizeof *filter);
}

/* ---- what it says about itself, and checkpoints */

void kwm_filter_health(const struct kwm_filter *filter, int g, struct kwm_health *health) {
  if (filter->joint == NULL && g < filter->n_groups) kwm_cov_health(&filter->group[g].cov, health);
  if (filter->joint != NULL && g == 0) kwm_joint_health(filter->joint, health);
}

void kwm_filter_covariance(const struct kwm_filter *filter, double *P) {
  KWM_ASSERT(filter->joint != NULL);
  kwm_joint_covariance(filter->joint, P);
}

kwm_status kwm_filter_spectrum(const struct kwm_filter *filter, double *values) {
  KWM_ASSERT(filter->joint != NULL);
  return kwm_joint_spectrum(filter->joint, values);
}

static const char *label(char *name, size_t size, const char *what, const char *group) {
  snprintf(name, size, "%s%s", what, group);
  return name;
}

/* /filter/gain/GROUP (total): the gain that every block has had; q as an attribute. */
static kwm_status save_group(const struct kwm_filter *filter, const struct kwm_filter_group *group, kwm_ckpt *ckpt,
                             bool writes) {
  const struct kwm_filter_part *const part = &group->part;
  char name[128];
  KWM_TRY(kwm_ckpt_put(ckpt, label(name, sizeof name, "/filter/gain/", part->name), KWM_F64, 1, &part->total,
                       writes ? part->first : 0, writes ? part->count : 0, group->gain + part->first));
  KWM_TRY(
      kwm_ckpt_put_f64(ckpt, "/filter", label(name, sizeof name, "process_noise_", part->name), group->process_noise));
  return filter->spec.score_test ? score_save(&group->score, part, ckpt, writes) : KWM_OK;
}

kwm_status kwm_filter_save(const struct kwm_filter *filter, kwm_ckpt *ckpt, bool writes) {
  for (int g = 0; g < filter->n_groups; g++) {
    if (filter->joint == NULL) KWM_TRY(kwm_cov_save(&filter->group[g].cov, ckpt, writes));
    KWM_TRY(save_group(filter, &filter->group[g], ckpt, writes));
  }
  if (filter->joint != NULL) KWM_TRY(kwm_joint_save(filter->joint, ckpt, writes));
  KWM_TRY(kwm_ckpt_put_f64(ckpt, "/filter", "noise", filter->noise));
  if (filter->spec.score_test) KWM_TRY(kwm_ckpt_put_i64(ckpt, "/filter", "scores", filter->group[0].score.known));
  KWM_TRY(kwm_ckpt_put_i64(ckpt, "/filter", "inflates", filter->inflates));
  return kwm_ckpt_put_i64(ckpt, "/filter", "steps", filter->steps);
}

/* An adaptive noise goes on where it was; a fixed one is the configuration's. */
static kwm_status load_group(struct kwm_filter *filter, struct kwm_filter_group *group, kwm_ckpt *ckpt) {
  const struct kwm_filter_part *const part = &group->part;
  double process_noise;
  int64_t known = 0;
  char name[128];
  KWM_TRY(kwm_ckpt_get(ckpt, label(name, sizeof name, "/filter/gain/", part->name), KWM_F64, 1, &part->total, 0,
                       part->total, group->gain));
  KWM_TRY(kwm_ckpt_get_f64(ckpt, "/filter", label(name, sizeof name, "process_noise_", part->name), &process_noise));
  if (filter->spec.adapt_process > 0) group->process_noise = process_noise;
  if (!filter->spec.score_test) return KWM_OK;
  KWM_TRY(kwm_ckpt_get_i64(ckpt, "/filter", "scores", &known));
  return score_load(&group->score, part, known != 0, ckpt);
}

kwm_status kwm_filter_load(struct kwm_filter *filter, kwm_ckpt *ckpt) {
  double noise;
  int64_t inflates;
  for (int g = 0; g < filter->n_groups; g++) {
    if (filter->joint == NULL) KWM_TRY(kwm_cov_load(&filter->group[g].cov, ckpt));
    KWM_TRY(load_group(filter, &filter->group[g], ckpt));
  }
  if (filter->joint != NULL) KWM_TRY(kwm_joint_load(filter->joint, ckpt));
  KWM_TRY(kwm_ckpt_get_f64(ckpt, "/filter", "noise", &noise));
  if (filter->spec.adapt_noise > 0) filter->noise = noise;
  KWM_TRY(kwm_ckpt_get_i64(ckpt, "/filter", "inflates", &inflates));
  filter->inflates = inflates != 0;
  return kwm_ckpt_get_i64(ckpt, "/filter", "steps", &filter->steps);
}
