/* The filter's step, in the order of the algorithm box.

     predict    P <- λ, q                                  on every owner
     innovate   s_b, F_b of its blocks, or Z_b = P_b H_bᵀ, S = R + sum_b H_b Z_b
     gain       δ_b = (P_b⁻¹ + F_b)⁻¹ s_b, or Z_b S⁻¹ e; shortened to the trust region
     update     θ_b += η c δ_b, P_b <- P_b⁺

   R = I throughout: innovations and Jacobians come whitened. */
#include "kwm/filter.h"

#include <math.h>
#include <string.h>

#include "joint.h"
#include "kwm/backend.h"

static bool innovation_form(const struct kwm_filter_group *group) {
  return group->cov.spec.form == KWM_FORM_INNOVATION;
}

static int64_t rows_of(const struct kwm_filter_spec *spec, const struct kwm_cov_spec *cov) {
  return spec->batch * cov->m;
}

static size_t group_bytes(const struct kwm_filter_spec *spec, int64_t replicas, const struct kwm_cov_ops *ops,
                          const struct kwm_cov_spec *cov) {
  size_t bytes = 0;
  if (cov->form == KWM_FORM_INFORMATION) {
    const int64_t length = ops->evidence_length(cov);
    bytes += kwm_treesum_bytes(length, spec->chunks / replicas) + kwm_mem_rounded((size_t)length * sizeof(float));
  }
  return bytes;
}

size_t kwm_filter_bytes(const struct kwm_filter_spec *spec, int64_t replicas, int n_groups,
                        const struct kwm_cov_ops *const *ops, const struct kwm_cov_spec *covs) {
  size_t bytes = 0, blocks = 0;
  bool innovation = false;
  for (int g = 0; g < n_groups; g++) {
    bytes += group_bytes(spec, replicas, ops[g], &covs[g]);
    blocks += (size_t)covs[g].total;
    innovation = innovation || covs[g].form == KWM_FORM_INNOVATION;
  }
  const size_t rows = innovation ? (size_t)rows_of(spec, &covs[0]) : 0;
  return bytes + kwm_mem_rounded(rows * rows * sizeof(float)) + kwm_mem_rounded(rows * sizeof(float)) +
         kwm_mem_rounded(rows * (rows + 1) * sizeof(double)) + kwm_mem_rounded(blocks * sizeof(double));
}

static kwm_status init_group(struct kwm_filter *filter, struct kwm_filter_group *group) {
  if (innovation_form(group)) {
    filter->any_innovation = true;
    return KWM_OK;
  }
  const int64_t length = kwm_cov_evidence_length(&group->cov);
  KWM_TRY(kwm_treesum_init(&group->sum, length, filter->spec.chunks / filter->layout->replicas));
  return kwm_alloc((void **)&group->scratch, (size_t)length * sizeof(float), "evidence");
}

kwm_status kwm_filter_init(struct kwm_filter *filter, struct kwm_layout *layout, const struct kwm_filter_spec *spec,
                           int n_groups, kwm_cov *cov, float *const *mean) {
  KWM_ASSERT(n_groups <= KWM_FILTER_GROUPS && spec->chunks % layout->replicas == 0);
  memset(filter, 0, sizeof *filter);
  filter->layout = layout;
  filter->spec = *spec;
  filter->n_groups = n_groups;
  for (int g = 0; g < n_groups; g++) {
    filter->group[g].cov = cov[g];
    filter->group[g].mean = mean[g];
    filter->blocks += cov[g].spec.total;
    KWM_TRY(init_group(filter, &filter->group[g]));
  }
  KWM_CHECK(!filter->any_innovation || layout->replicas == 1, KWM_ERR_USAGE,
            "config: wanted layout.replicas 1 with the innovation form (one S couples all samples), found %d",
            layout->replicas);
  KWM_TRY(kwm_alloc((void **)&filter->kl, (size_t)filter->blocks * sizeof(double), "KL of blocks"));
  double *at = filter->kl;
  for (int g = 0; g < n_groups; at += cov[g].spec.total, g++) filter->group[g].kl = at;
  const size_t rows = filter->any_innovation ? (size_t)rows_of(spec, &cov[0].spec) : 0;
  filter->rows_max = (int64_t)rows;
  KWM_TRY(kwm_alloc((void **)&filter->S, rows * rows * sizeof(float), "S"));
  KWM_TRY(kwm_alloc((void **)&filter->w, rows * sizeof(float), "S⁻¹e"));
  return kwm_alloc((void **)&filter->factor, rows * (rows + 1) * sizeof(double), "factor of S");
}

kwm_status kwm_filter_init_joint(struct kwm_filter *filter, struct kwm_layout *layout,
                                 const struct kwm_filter_spec *spec, int n_groups,
                                 const struct kwm_joint_group *groups) {
  KWM_ASSERT(n_groups <= KWM_FILTER_GROUPS);
  memset(filter, 0, sizeof *filter);
  filter->layout = layout;
  filter->spec = *spec;
  KWM_CHECK(layout->replicas == 1, KWM_ERR_USAGE,
            "config: wanted layout.replicas 1 with cov.joint full (one S couples all samples), found %d",
            layout->replicas);
  return kwm_joint_create(&filter->joint, layout, spec, n_groups, groups);
}

size_t kwm_filter_joint_bytes(const struct kwm_filter_spec *spec, int ranks, int rank, int n_groups,
                              const struct kwm_joint_group *groups) {
  return kwm_joint_bytes(spec, ranks, rank, n_groups, groups);
}

void kwm_filter_fini(struct kwm_filter *filter) {
  kwm_joint_destroy(filter->joint);
  for (int g = 0; g < filter->n_groups; g++) {
    kwm_cov_destroy(&filter->group[g].cov);
    kwm_treesum_fini(&filter->group[g].sum);
    kwm_free(filter->group[g].scratch);
  }
  kwm_free(filter->kl);
  kwm_free(filter->S);
  kwm_free(filter->w);
  kwm_free(filter->factor);
  memset(filter, 0, sizeof *filter);
}

void kwm_filter_predict(struct kwm_filter *filter) {
  filter->failed_here = filter->joint != NULL && !kwm_joint_predict(filter->joint);
  for (int g = 0; g < filter->n_groups; g++)
    if (!kwm_cov_predict(&filter->group[g].cov, filter->steps)) filter->failed_here = true;
}

static void sum_evidence(struct kwm_filter *filter, struct kwm_filter_group *group, const struct kwm_jac *jac,
                         const struct kwm_lin *lin) {
  for (int64_t c = 0; c < lin->chunks; c++) {
    const struct kwm_jac chunk = kwm_jac_part(jac, lin->bounds[c], lin->bounds[c + 1] - lin->bounds[c]);
    kwm_cov_evidence(&group->cov, &chunk, kwm_treesum_leaf(&group->sum));
    kwm_treesum_push(&group->sum);
  }
  group->evidence = kwm_treesum_finish(&group->sum);
  kwm_par_sum_replicas(filter->layout, group->sum.n, group->evidence, group->scratch);
}

/* S <- I + sum over all owners' blocks of H P Hᵀ. */
static void sum_innovation_covariance(struct kwm_filter *filter, const struct kwm_lin *lin) {
  const int64_t rows = lin->batch * lin->jac[0].m;
  KWM_ASSERT(rows <= filter->rows_max);
  memset(filter->S, 0, (size_t)(rows * rows) * sizeof(float));
  for (int g = 0; g < filter->n_groups; g++)
    if (innovation_form(&filter->group[g])) kwm_cov_project(&filter->group[g].cov, &lin->jac[g], filter->S);
  kwm_par_sum_group_f32(filter->layout, rows * rows, filter->S);
  for (int64_t k = 0; k < rows; k++) filter->S[k * rows + k] += 1;
}

void kwm_filter_innovate(struct kwm_filter *filter, const struct kwm_lin *lin) {
  if (filter->joint != NULL) kwm_joint_innovate(filter->joint, lin);
  for (int g = 0; g < filter->n_groups; g++)
    if (!innovation_form(&filter->group[g])) sum_evidence(filter, &filter->group[g], &lin->jac[g], lin);
  if (filter->any_innovation) sum_innovation_covariance(filter, lin);
}

/* S -> its factor L, w = S⁻¹e; *change = |(S - I)w|²/samples: the KL that the shared step predicts. */
static bool solve_innovation(struct kwm_filter *filter, const struct kwm_lin *lin, double *change) {
  const int64_t rows = lin->batch * lin->jac[0].m;
  const float *const e = lin->jac[0].e;
  double *const L = filter->factor, *const w = filter->factor + rows * rows;
  for (int64_t k = 0; k < rows * rows; k++) L[k] = (double)filter->S[k];
  if (!kwm_cholesky_f64(rows, L, rows)) return false;
  for (int64_t k = 0; k < rows; k++) w[k] = (double)e[k];
  kwm_cholesky_solve_f64(rows, L, rows, w);
  double moved = 0;
  for (int64_t k = 0; k < rows; k++) {
    const double left = (double)e[k] - w[k]; /* Sw - w = e - w */
    moved += left * left;
    filter->w[k] = (float)w[k];
  }
  for (int64_t k = 0; k < rows * rows; k++) filter->S[k] = (float)L[k];
  *change = moved / (double)lin->batch;
  return isfinite(moved);
}

static bool gain_of(struct kwm_filter *filter, int g, const struct kwm_lin *lin, double change) {
  struct kwm_filter_group *const group = &filter->group[g];
  const struct kwm_cov_spec *const spec = &group->cov.spec;
  if (!innovation_form(group)) return kwm_cov_absorb(&group->cov, group->evidence, lin->batch, group->kl + spec->first);
  for (int64_t b = 0; b < spec->count; b++) group->kl[spec->first + b] = change / (double)spec->total;
  return kwm_cov_condition(&group->cov, &lin->jac[g], filter->S, filter->w);
}

/* What of a step that predicts a change of `kl` stays within the trust region, times the gain factor. */
static double scale_for(const struct kwm_filter_spec *spec, double kl) {
  const bool bound = spec->trust_region > 0 && kl > spec->trust_region;
  return spec->gain_factor * (bound ? sqrt(spec->trust_region / kl) : 1);
}

/* The group's KL, added in block order whoever owns the blocks. */
static double total_of(const struct kwm_filter_group *group) {
  double total = 0;
  for (int64_t b = 0; b < group->cov.spec.total; b++) total += group->kl[b];
  return total;
}

void kwm_filter_gain(struct kwm_filter *filter, const struct kwm_lin *lin, struct kwm_step *step) {
  double change = 0;
  bool good = !filter->failed_here;
  for (int64_t b = 0; b < filter->blocks; b++) filter->kl[b] = 0;
  if (filter->any_innovation && good) good = solve_innovation(filter, lin, &change);
  if (filter->joint != NULL && good) good = kwm_joint_gain(filter->joint, lin, &change);
  for (int g = 0; g < filter->n_groups && good; g++) good = gain_of(filter, g, lin, change);
  kwm_par_sum_group(filter->layout, filter->blocks, filter->kl);
  kwm_filter_judge(filter->layout, lin, filter->spec.gate, !good, step);
  for (int g = 0; g < KWM_FILTER_GROUPS; g++) {
    step->kl[g] = g < filter->n_groups ? total_of(&filter->group[g]) : change;
    step->scale[g] = scale_for(&filter->spec, step->kl[g]);
  }
}

void kwm_filter_update(struct kwm_filter *filter, const struct kwm_step *step) {
  filter->steps++;
  if (step->verdict != KWM_STEP_DONE) return;
  if (filter->joint != NULL) kwm_joint_update(filter->joint, step->scale[0]);
  for (int g = 0; g < filter->n_groups; g++)
    kwm_cov_apply(&filter->group[g].cov, step->scale[g], filter->group[g].mean);
}

void kwm_filter_health(const struct kwm_filter *filter, int g, struct kwm_health *health) {
  if (g < filter->n_groups) kwm_cov_health(&filter->group[g].cov, health);
  if (filter->joint != NULL && g == 0) kwm_joint_health(filter->joint, health);
}

kwm_status kwm_filter_save(const struct kwm_filter *filter, kwm_ckpt *ckpt, bool writes) {
  for (int g = 0; g < filter->n_groups; g++) KWM_TRY(kwm_cov_save(&filter->group[g].cov, ckpt, writes));
  if (filter->joint != NULL) KWM_TRY(kwm_joint_save(filter->joint, ckpt, writes));
  return kwm_ckpt_put_i64(ckpt, "/filter", "steps", filter->steps);
}

kwm_status kwm_filter_load(struct kwm_filter *filter, kwm_ckpt *ckpt) {
  for (int g = 0; g < filter->n_groups; g++) KWM_TRY(kwm_cov_load(&filter->group[g].cov, ckpt));
  if (filter->joint != NULL) KWM_TRY(kwm_joint_load(filter->joint, ckpt));
  return kwm_ckpt_get_i64(ckpt, "/filter", "steps", &filter->steps);
}
