/* The filter's step with one exact covariance of all parameters: S = I + H P Hᵀ, w = S⁻¹e, θ += P Hᵀ w.

   Every rank forms the columns of H that belong to its parameters, group after group, and corrects those parameters. */
#include "joint.h"

#include <math.h>
#include <string.h>

#include "kwm/backend.h"
#include "kwm/full.h"

struct kwm_joint {
  kwm_full *full;
  struct kwm_filter_spec spec;
  int n_groups;
  struct kwm_joint_group group[KWM_FILTER_GROUPS]; /* mean is borrowed, prior_variance is not kept */
  int64_t n_local, rows_max;
  float *H, *part;   /* (rows, n_local); (rows, widest group) scratch */
  float *mean;       /* (n_local) */
  double *S, *L, *w; /* (rows, rows) each, (rows) */
};

static int64_t width_of(const struct kwm_joint_group *group) {
  return group->count * group->params;
}

static int64_t local_of(int n_groups, const struct kwm_joint_group *groups, int64_t *widest) {
  int64_t n_local = 0;
  *widest = 0;
  for (int g = 0; g < n_groups; g++) {
    n_local += width_of(&groups[g]);
    if (width_of(&groups[g]) > *widest) *widest = width_of(&groups[g]);
  }
  return n_local;
}

static int64_t all_of(int n_groups, const struct kwm_joint_group *groups) {
  int64_t n = 0;
  for (int g = 0; g < n_groups; g++) n += groups[g].total * groups[g].params;
  return n;
}

size_t kwm_joint_bytes(const struct kwm_filter_spec *spec, int ranks, int rank, int n_groups,
                       const struct kwm_joint_group *groups) {
  int64_t widest;
  const int64_t n_local = local_of(n_groups, groups, &widest), rows = spec->batch * groups[0].m;
  return kwm_mem_rounded(sizeof(struct kwm_joint)) + kwm_mem_rounded((size_t)(rows * n_local) * sizeof(float)) +
         kwm_mem_rounded((size_t)(rows * widest) * sizeof(float)) + kwm_mem_rounded((size_t)n_local * sizeof(float)) +
         2 * kwm_mem_rounded((size_t)(rows * rows) * sizeof(double)) + kwm_mem_rounded((size_t)rows * sizeof(double)) +
         kwm_full_bytes(all_of(n_groups, groups), ranks, rank, n_local, rows, 0);
}

static kwm_status create_full(struct kwm_joint *joint, struct kwm_layout *layout, double *variance) {
  struct kwm_full_segment segments[KWM_FILTER_GROUPS];
  int64_t n_segments = 0, offset = 0, at = 0;
  for (int g = 0; g < joint->n_groups; g++) {
    const struct kwm_joint_group *const group = &joint->group[g];
    if (group->count > 0)
      segments[n_segments++] = (struct kwm_full_segment){offset + group->first * group->params, width_of(group)};
    for (int64_t k = 0; k < width_of(group); k++)
      variance[at++] =
          group->prior_variance != NULL ? group->prior_variance[k % group->params] : 1 / group->prior_precision;
    offset += group->total * group->params;
  }
  const struct kwm_full_spec spec = {.comm = layout->group,
                                     .n = offset,
                                     .n_segments = n_segments,
                                     .segments = segments,
                                     .prior_variance = variance,
                                     .rows_max = joint->rows_max};
  return kwm_full_create(&joint->full, &spec);
}

static kwm_status allocate(struct kwm_joint *joint, int64_t widest, double **variance) {
  const size_t rows = (size_t)joint->rows_max, n = (size_t)joint->n_local;
  KWM_TRY(kwm_alloc((void **)&joint->H, rows * n * sizeof(float), "Jacobian rows"));
  KWM_TRY(kwm_alloc((void **)&joint->part, rows * (size_t)widest * sizeof(float), "Jacobian rows"));
  KWM_TRY(kwm_alloc((void **)&joint->mean, n * sizeof(float), "means"));
  KWM_TRY(kwm_alloc((void **)&joint->S, rows * rows * sizeof(double), "S"));
  KWM_TRY(kwm_alloc((void **)&joint->L, rows * rows * sizeof(double), "factor of S"));
  KWM_TRY(kwm_alloc((void **)&joint->w, rows * sizeof(double), "S⁻¹e"));
  return kwm_alloc((void **)variance, n * sizeof(double), "prior variances");
}

kwm_status kwm_joint_create(struct kwm_joint **joint, struct kwm_layout *layout, const struct kwm_filter_spec *spec,
                            int n_groups, const struct kwm_joint_group *groups) {
  int64_t widest;
  double *variance = NULL;
  kwm_status status = kwm_alloc((void **)joint, sizeof **joint, "joint covariance");
  struct kwm_joint *const j = *joint;
  if (status == KWM_OK) {
    j->spec = *spec;
    j->n_groups = n_groups;
    memcpy(j->group, groups, (size_t)n_groups * sizeof *groups);
    j->n_local = local_of(n_groups, groups, &widest);
    j->rows_max = spec->batch * groups[0].m;
    status = allocate(j, widest, &variance);
  }
  status = kwm_agree(layout->group, status);
  if (status == KWM_OK) status = create_full(j, layout, variance);
  kwm_free(variance);
  return status;
}

void kwm_joint_destroy(struct kwm_joint *joint) {
  if (joint == NULL) return;
  kwm_full_destroy(&joint->full);
  kwm_free(joint->H);
  kwm_free(joint->part);
  kwm_free(joint->mean);
  kwm_free(joint->S);
  kwm_free(joint->L);
  kwm_free(joint->w);
  kwm_free(joint);
}

bool kwm_joint_predict(struct kwm_joint *joint) {
  if (joint->spec.forgetting == 1 && joint->spec.process_noise == 0) return true;
  return kwm_full_predict(joint->full, joint->spec.forgetting, joint->spec.process_noise);
}

void kwm_joint_innovate(struct kwm_joint *joint, const struct kwm_lin *lin) {
  const int64_t rows = lin->batch * lin->jac[0].m;
  int64_t at = 0;
  KWM_ASSERT(rows <= joint->rows_max);
  for (int g = 0; g < joint->n_groups; g++) {
    const int64_t width = width_of(&joint->group[g]);
    if (width == 0) continue;
    kwm_jac_dense(&lin->jac[g], joint->part);
    for (int64_t row = 0; row < rows; row++)
      memcpy(joint->H + row * joint->n_local + at, joint->part + row * width, (size_t)width * sizeof(float));
    at += width;
  }
  memset(joint->S, 0, (size_t)(rows * rows) * sizeof(double));
  kwm_full_project(joint->full, rows, joint->H, joint->S);
}

bool kwm_joint_gain(struct kwm_joint *joint, const struct kwm_lin *lin, double *change) {
  const int64_t rows = lin->batch * lin->jac[0].m;
  const float *const e = lin->jac[0].e;
  memcpy(joint->L, joint->S, (size_t)(rows * rows) * sizeof(double));
  for (int64_t k = 0; k < rows; k++) {
    joint->L[k * rows + k] += 1;
    joint->w[k] = (double)e[k];
  }
  if (!kwm_cholesky_f64(rows, joint->L, rows)) return false; /* the same bits, so the same answer, on every rank */
  kwm_cholesky_solve_f64(rows, joint->L, rows, joint->w);
  *change = 0;
  for (int64_t k = 0; k < rows; k++) {
    const double moved = (double)e[k] - joint->w[k]; /* H P Hᵀw = Sw - w */
    *change += moved * moved / (double)lin->batch;
  }
  return isfinite(*change) && kwm_full_condition(joint->full, rows, joint->L, joint->w);
}

void kwm_joint_update(struct kwm_joint *joint, double scale) {
  float *at = joint->mean;
  for (int g = 0; g < joint->n_groups; at += width_of(&joint->group[g]), g++)
    memcpy(at, joint->group[g].mean, (size_t)width_of(&joint->group[g]) * sizeof(float));
  kwm_full_apply(joint->full, scale, joint->mean);
  at = joint->mean;
  for (int g = 0; g < joint->n_groups; at += width_of(&joint->group[g]), g++)
    memcpy(joint->group[g].mean, at, (size_t)width_of(&joint->group[g]) * sizeof(float));
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
