/* The filter's step with one exact covariance of all parameters: θ += P Hᵀ S⁻¹e.

   Every rank forms the columns of H that belong to its parameters, group after group, and corrects those parameters. */
#include "joint.h"

#include <math.h>
#include <string.h>

#include "kwm/full.h"

struct kwm_joint {
  kwm_full *full;
  double forgetting;
  int n_parts;
  int64_t width[KWM_FILTER_GROUPS]; /* parameters of each part on this rank */
  int64_t n_local, rows_max;
  float *H, *rows;      /* (rows, n_local); (rows, widest part) scratch */
  float *mean, *anchor; /* (n_local) each */
};

/* ---- making */

static int64_t width_of(const struct kwm_filter_part *part) {
  return part->count * part->params;
}

static int64_t local_of(int n_parts, const struct kwm_filter_part *parts, int64_t *widest) {
  int64_t n_local = 0;
  *widest = 0;
  for (int g = 0; g < n_parts; g++) {
    n_local += width_of(&parts[g]);
    if (width_of(&parts[g]) > *widest) *widest = width_of(&parts[g]);
  }
  return n_local;
}

static int64_t all_of(int n_parts, const struct kwm_filter_part *parts) {
  int64_t n = 0;
  for (int g = 0; g < n_parts; g++) n += parts[g].total * parts[g].params;
  return n;
}

static bool has_dynamics(const struct kwm_filter_spec *spec) {
  return spec->forgetting < 1 || spec->process_noise > 0 || spec->adapt_process > 0;
}

size_t kwm_joint_bytes(const struct kwm_filter_spec *spec, int ranks, int rank, int n_parts,
                       const struct kwm_filter_part *parts) {
  int64_t widest;
  const int64_t n_local = local_of(n_parts, parts, &widest), rows = spec->batch * parts[0].m;
  const struct kwm_full_spec full = {
      .n = all_of(n_parts, parts), .rows_max = rows, .real = spec->real, .dynamics = has_dynamics(spec)};
  return kwm_mem_rounded(sizeof(struct kwm_joint)) + kwm_mem_rounded((size_t)(rows * n_local) * sizeof(float)) +
         kwm_mem_rounded((size_t)(rows * widest) * sizeof(float)) +
         2 * kwm_mem_rounded((size_t)n_local * sizeof(float)) + kwm_full_bytes(&full, ranks, rank, n_local);
}

static kwm_status create_full(struct kwm_joint *joint, struct kwm_layout *layout, const struct kwm_filter_spec *spec,
                              const struct kwm_filter_part *parts, double *variance) {
  struct kwm_full_segment segments[KWM_FILTER_GROUPS];
  int64_t n_segments = 0, offset = 0, at = 0;
  for (int g = 0; g < joint->n_parts; g++) {
    const struct kwm_filter_part *const part = &parts[g];
    if (part->count > 0)
      segments[n_segments++] = (struct kwm_full_segment){offset + part->first * part->params, width_of(part)};
    for (int64_t k = 0; k < width_of(part); k++)
      variance[at++] =
          part->prior_variance != NULL ? part->prior_variance[k % part->params] : 1 / part->prior_precision;
    offset += part->total * part->params;
  }
  const struct kwm_full_spec full = {.comm = layout->group,
                                     .n = offset,
                                     .n_segments = n_segments,
                                     .segments = segments,
                                     .prior_variance = variance,
                                     .rows_max = joint->rows_max,
                                     .real = spec->real,
                                     .dynamics = has_dynamics(spec)};
  return kwm_full_create(&joint->full, &full);
}

static kwm_status allocate(struct kwm_joint *joint, int64_t widest, double **variance) {
  const size_t rows = (size_t)joint->rows_max, n = (size_t)joint->n_local;
  KWM_TRY(kwm_alloc((void **)&joint->H, rows * n * sizeof(float), "Jacobian rows"));
  KWM_TRY(kwm_alloc((void **)&joint->rows, rows * (size_t)widest * sizeof(float), "Jacobian rows"));
  KWM_TRY(kwm_alloc((void **)&joint->mean, n * sizeof(float), "means"));
  KWM_TRY(kwm_alloc((void **)&joint->anchor, n * sizeof(float), "anchors"));
  return kwm_alloc((void **)variance, n * sizeof(double), "prior variances");
}

kwm_status kwm_joint_create(struct kwm_joint **joint, struct kwm_layout *layout, const struct kwm_filter_spec *spec,
                            int n_parts, const struct kwm_filter_part *parts) {
  int64_t widest;
  double *variance = NULL;
  kwm_status status = kwm_alloc((void **)joint, sizeof **joint, "joint covariance");
  struct kwm_joint *const j = *joint;
  if (status == KWM_OK) {
    j->forgetting = spec->forgetting;
    j->n_parts = n_parts;
    for (int g = 0; g < n_parts; g++) j->width[g] = width_of(&parts[g]);
    j->n_local = local_of(n_parts, parts, &widest);
    j->rows_max = spec->batch * parts[0].m;
    status = allocate(j, widest, &variance);
  }
  status = kwm_agree(layout->group, status);
  if (status == KWM_OK) status = create_full(j, layout, spec, parts, variance);
  kwm_free(variance);
  return status;
}

void kwm_joint_destroy(struct kwm_joint *joint) {
  if (joint == NULL) return;
  kwm_full_destroy(&joint->full);
  kwm_free(joint->H);
  kwm_free(joint->rows);
  kwm_free(joint->mean);
  kwm_free(joint->anchor);
  kwm_free(joint);
}

/* ---- the step */

/* joint->mean <- the groups' means, or back. */
static void carry_means(struct kwm_joint *joint, struct kwm_filter_group *groups, bool back) {
  float *at = joint->mean;
  for (int g = 0; g < joint->n_parts; at += joint->width[g], g++) {
    const size_t bytes = (size_t)joint->width[g] * sizeof(float);
    if (bytes == 0) continue;
    memcpy(back ? groups[g].part.mean : at, back ? at : groups[g].part.mean, bytes);
  }
}

bool kwm_joint_predict(struct kwm_joint *joint, struct kwm_filter_group *groups) {
  const double q = groups[0].process_noise;
  if (joint->forgetting == 1) return q == 0 || kwm_full_predict(joint->full, 1, q, NULL, NULL);
  float *at = joint->anchor;
  for (int g = 0; g < joint->n_parts; at += joint->width[g], g++)
    if (joint->width[g] > 0) memcpy(at, groups[g].anchor, (size_t)joint->width[g] * sizeof(float));
  carry_means(joint, groups, false);
  if (!kwm_full_predict(joint->full, joint->forgetting, q, joint->anchor, joint->mean)) return false;
  carry_means(joint, groups, true);
  return true;
}

void kwm_joint_project(struct kwm_joint *joint, const struct kwm_lin *lin, double *S) {
  const int64_t rows = lin->batch * lin->jac[0].m;
  int64_t at = 0;
  KWM_ASSERT(rows <= joint->rows_max);
  for (int g = 0; g < joint->n_parts; g++) {
    const int64_t width = joint->width[g];
    if (width == 0) continue;
    kwm_jac_dense(&lin->jac[g], joint->rows);
    for (int64_t row = 0; row < rows; row++)
      memcpy(joint->H + row * joint->n_local + at, joint->rows + row * width, (size_t)width * sizeof(float));
    at += width;
  }
  kwm_full_project(joint->full, rows, joint->H, S);
}

bool kwm_joint_condition(struct kwm_joint *joint, const struct kwm_lin *lin, const double *L, const double *w) {
  return kwm_full_condition(joint->full, lin->batch * lin->jac[0].m, L, w);
}

void kwm_joint_moved(const struct kwm_joint *joint, int g, const struct kwm_filter_part *part, double *moved) {
  const double *delta = kwm_full_delta(joint->full);
  for (int k = 0; k < g; k++) delta += joint->width[k];
  for (int64_t b = 0; b < part->count; b++) {
    moved[b] = 0;
    for (int64_t k = 0; k < part->params; k++) {
      const double d = delta[b * part->params + k];
      moved[b] += d * d * (part->prior_variance != NULL ? 1 / part->prior_variance[k] : part->prior_precision);
    }
  }
}

void kwm_joint_update(struct kwm_joint *joint, struct kwm_filter_group *groups, double scale) {
  carry_means(joint, groups, false);
  kwm_full_apply(joint->full, scale, joint->mean);
  carry_means(joint, groups, true);
}

void kwm_joint_covariance(const struct kwm_joint *joint, double *P) {
  kwm_full_covariance(joint->full, P);
}

kwm_status kwm_joint_spectrum(const struct kwm_joint *joint, double *values) {
  return kwm_full_spectrum(joint->full, values);
}

void kwm_joint_health(const struct kwm_joint *joint, struct kwm_health *health) {
  kwm_full_health(joint->full, health);
}

kwm_status kwm_joint_save(struct kwm_joint *joint, kwm_ckpt *ckpt, bool writes) {
  return kwm_full_save(joint->full, ckpt, writes);
}

kwm_status kwm_joint_load(struct kwm_joint *joint, kwm_ckpt *ckpt) {
  return kwm_full_load(joint->full, ckpt);
}
