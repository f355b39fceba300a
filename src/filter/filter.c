/* The filter's step, in the order of the algorithm box.

     predict    P <- λ, q                                  on every owner
     innovate   s_b, F_b of its blocks, or Z_b = P_b H_bᵀ, S = R + sum_b H_b Z_b
     gain       δ_b = (P_b⁻¹ + F_b)⁻¹ s_b, or Z_b S⁻¹ e; shortened to the trust region
     update     θ_b += η c δ_b, P_b <- P_b⁺

   R = I throughout: innovations and Jacobians come whitened. */
#include "kwm/filter.h"

#include <math.h>
#include <string.h>

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

void kwm_filter_fini(struct kwm_filter *filter) {
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
  filter->failed_here = false;
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

/* The group's KL, added in block order whoever owns the blocks, and the scale that keeps it within the trust region. */
static void shorten(const struct kwm_filter_spec *spec, struct kwm_filter_group *group, double *total) {
  *total = 0;
  for (int64_t b = 0; b < group->cov.spec.total; b++) *total += group->kl[b];
  const bool bound = spec->trust_region > 0 && *total > spec->trust_region;
  group->scale = spec->gain_factor * (bound ? sqrt(spec->trust_region / *total) : 1);
}

void kwm_filter_gain(struct kwm_filter *filter, const struct kwm_lin *lin, struct kwm_step *step) {
  double change = 0;
  bool good = !filter->failed_here;
  memset(filter->kl, 0, (size_t)filter->blocks * sizeof(double));
  if (filter->any_innovation && good) good = solve_innovation(filter, lin, &change);
  for (int g = 0; g < filter->n_groups && good; g++) good = gain_of(filter, g, lin, change);
  kwm_par_sum_group(filter->layout, filter->blocks, filter->kl);
  kwm_filter_judge(filter->layout, lin, filter->spec.gate, !good, step);
  for (int g = 0; g < filter->n_groups; g++) {
    shorten(&filter->spec, &filter->group[g], &step->kl[g]);
    step->scale[g] = filter->group[g].scale;
  }
}

void kwm_filter_update(struct kwm_filter *filter, const struct kwm_step *step) {
  filter->steps++;
  if (step->verdict != KWM_STEP_DONE) return;
  for (int g = 0; g < filter->n_groups; g++)
    kwm_cov_apply(&filter->group[g].cov, filter->group[g].scale, filter->group[g].mean);
}
