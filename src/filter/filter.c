/* The filter's step, in the order of the algorithm box.

     predict    P <- λ, q; mean towards its anchor         on every owner
     innovate   s_b, F_b of its blocks, or Z_b = P_b H_bᵀ, S = R + sum_b H_b Z_b
     gain       δ_b = (P_b⁻¹ + F_b)⁻¹ s_b, or Z_b S⁻¹ e; shortened to the trust region
     search     the length of all groups' steps together (search.c), if asked for
     update     θ_b += η c δ_b, P_b <- P_b⁺; q, R

   Innovations and Jacobians come whitened: R = ρ I, and ρ = 1 unless it adapts. */
#include "kwm/filter.h"

#include <math.h>
#include <string.h>

#include "joint.h"
#include "kwm/backend.h"
#include "kwm/consistency.h"
#include "kwm/fault.h"
#include "parts.h"
#include "score.h"

/* An adaptive q or ρ stays within these. */
static const double NOISE_MIN = 1e-12, NOISE_MAX = 1e12;

static bool innovation_form(const struct kwm_filter_group *group) {
  return group->cov.spec.form == KWM_FORM_INNOVATION;
}

/* ---- predict, innovate */

static void failed(struct kwm_filter *filter, int g) {
  if (!filter->failed_here) filter->failed_part = g;
  filter->failed_here = true;
}

/* A mean that is its own anchor stays where it is. */
void kwm_filter_predict(struct kwm_filter *filter) {
  filter->failed_here = filter->joint != NULL && !kwm_joint_predict(filter->joint, filter->group);
  filter->failed_part = -1;
  for (int g = 0; g < filter->n_groups && filter->joint == NULL; g++) {
    struct kwm_filter_group *const group = &filter->group[g];
    const float *const anchor = filter->inflates ? group->part.mean : group->anchor;
    group->cov.spec.process_noise = group->process_noise;
    group->cov.spec.forgetting = filter->spec.forgetting / (filter->inflates ? filter->spec.inflation : 1);
    if (!kwm_cov_predict(&group->cov, filter->steps, anchor, group->part.mean)) failed(filter, g);
  }
  filter->inflates = false;
}

void kwm_filter_inflate(struct kwm_filter *filter) {
  KWM_ASSERT(filter->joint == NULL && filter->spec.inflation >= 1);
  filter->inflates = true;
}

/* One chunk's, of all groups, into a leaf. */
static void take_evidence(struct kwm_filter *filter, const struct kwm_lin *lin, int64_t chunk, float *leaf) {
  const int64_t first = lin->bounds[chunk], n = lin->bounds[chunk + 1] - first;
  for (int g = 0; g < filter->n_groups; g++) {
    struct kwm_filter_group *const group = &filter->group[g];
    const struct kwm_jac jac = kwm_jac_part(&lin->jac[g], first, n);
    if (!innovation_form(group)) kwm_cov_evidence(&group->cov, &jac, leaf + group->evidence_at);
  }
}

/* Over chunks, then over replicas. */
static void sum_evidence(struct kwm_filter *filter, const struct kwm_lin *lin) {
  if (filter->sum.levels == 0) return;
  for (int64_t c = 0; c < lin->chunks; c++) {
    take_evidence(filter, lin, c, kwm_treesum_leaf(&filter->sum));
    kwm_treesum_push(&filter->sum);
  }
  float *const total = kwm_treesum_finish(&filter->sum);
  filter->over.n = filter->sum.n;
  filter->over.values = total;
  kwm_par_sum_replicas_device(filter->layout, filter->device, &filter->over);
  for (int g = 0; g < filter->n_groups; g++) filter->group[g].evidence = total + filter->group[g].evidence_at;
}

/* S <- ρ I + sum over all owners' blocks of H P Hᵀ. */
static void form_innovation_covariance(struct kwm_filter *filter, const struct kwm_lin *lin) {
  const int64_t rows = lin->batch * lin->jac[0].m;
  KWM_ASSERT(rows <= filter->rows_max);
  if (filter->S_there.values != NULL) {
    shared_there_form(filter, lin);
    return;
  }
  memset(filter->S, 0, (size_t)(rows * rows) * sizeof(double));
  if (filter->joint != NULL) {
    kwm_joint_project(filter->joint, lin, filter->S); /* whole, with the same bits, on every rank */
  } else {
    for (int g = 0; g < filter->n_groups; g++)
      if (innovation_form(&filter->group[g])) kwm_cov_project(&filter->group[g].cov, &lin->jac[g], filter->S);
    kwm_par_sum_group(filter->layout, rows * rows, filter->S);
  }
  for (int64_t k = 0; k < rows; k++) filter->S[k * rows + k] += filter->noise;
}

void kwm_filter_innovate(struct kwm_filter *filter, const struct kwm_lin *lin) {
  for (int g = 0; g < filter->n_groups; g++) {
    struct kwm_filter_group *const group = &filter->group[g];
    if (filter->spec.score_test) score_take(&group->score, filter->layout, &lin->jac[g], lin);
  }
  sum_evidence(filter, lin);
  if (filter->shared) form_innovation_covariance(filter, lin);
}

/* ---- predictions */

bool kwm_filter_predictive(struct kwm_filter *filter, const struct kwm_lin *lin, double *C) {
  const int64_t m = lin->jac[0].m, n = lin->bounds[lin->chunks] * m * m;
  bool good = filter->joint == NULL;
  memset(C, 0, (size_t)n * sizeof *C);
  for (int g = 0; g < filter->n_groups && good; g++)
    if (lin->jac[g].n > 0) good = kwm_cov_predictive(&filter->group[g].cov, &lin->jac[g], C);
  kwm_par_sum_group(filter->layout, n, C);
  return !kwm_par_any(filter->layout, !good);
}

/* ---- gain */

/* On the host: S -> its factor L in the lower triangle, w = S⁻¹e. */
static bool solve_here(struct kwm_filter *filter, const float *e, int64_t rows) {
  if (!kwm_cholesky_f64(rows, filter->S, rows)) return false;
  for (int64_t k = 0; k < rows; k++) filter->w[k] = (double)e[k];
  kwm_cholesky_solve_f64(rows, filter->S, rows, filter->w);
  return true;
}

/* S -> L, w = S⁻¹e; chi2 <- eᵀw; *change = |(S - ρI)w|²/(ρ samples): the KL that the shared step predicts. False: S is
   not positive definite. The same bits, so the same answer, on every rank. */
static bool solve_innovation(struct kwm_filter *filter, const struct kwm_lin *lin, double *chi2, double *change) {
  const int64_t rows = lin->batch * lin->jac[0].m;
  const float *const e = filter->device != NULL ? filter->e : lin->jac[0].e;
  const double *const w = filter->w;
  if (filter->device != NULL && filter->S_there.values == NULL)
    kwm_device_get(filter->device, filter->e, lin->jac[0].e, (size_t)rows * sizeof *e);
  const bool solved = filter->S_there.values != NULL ? shared_there_solve(filter, rows) : solve_here(filter, e, rows);
  if (!solved) return false;
  double moved = 0;
  for (int64_t k = 0; k < rows; k++) {
    const double left = (double)e[k] - filter->noise * w[k]; /* (S - ρI)w */
    moved += left * left;
    *chi2 += (double)e[k] * w[k];
  }
  *change = moved / (filter->noise * (double)lin->batch);
  return isfinite(moved);
}

static bool joint_gain(struct kwm_filter *filter, const struct kwm_lin *lin, double change) {
  const bool good = kwm_joint_condition(filter->joint, lin, filter->S, filter->w);
  for (int g = 0; g < filter->n_groups; g++) {
    struct kwm_filter_group *const group = &filter->group[g];
    for (int64_t b = 0; b < group->part.count; b++) group->kl[group->part.first + b] = change / (double)filter->blocks;
    kwm_joint_moved(filter->joint, g, &group->part, group->moved + group->part.first);
  }
  return good;
}

/* solved: S is factored, on all ranks. */
static bool group_gain(struct kwm_filter *filter, int g, const struct kwm_lin *lin, bool solved, double change) {
  struct kwm_filter_group *const group = &filter->group[g];
  const struct kwm_filter_part *const part = &group->part;
  bool good = false;
  if (!innovation_form(group)) {
    good = kwm_cov_absorb(&group->cov, &lin->jac[g], group->evidence, lin->batch, group->kl + part->first);
  } else if (solved) {
    for (int64_t b = 0; b < part->count; b++) group->kl[part->first + b] = change / (double)part->total;
    good = filter->S_there.values != NULL ? shared_there_condition(filter, group, &lin->jac[g])
                                          : kwm_cov_condition(&group->cov, &lin->jac[g], filter->S, filter->w);
  }
  if (!good) return false;
  kwm_cov_moved(&group->cov, group->moved + part->first);
  if (filter->spec.trust_expected > 0) kwm_cov_expected(&group->cov, group->expected + part->first);
  if (filter->spec.line_search) kwm_cov_slope(&group->cov, group->slope + part->first);
  return true;
}

static double shortened(double bound, double kl) {
  return kl > bound ? sqrt(bound / kl) : 1;
}

/* What of a step that predicts a change of `kl` stays within the trust region, times the gain factor. */
static double scale_for(const struct kwm_filter_spec *spec, double kl, double expected) {
  double scale = 1;
  if (spec->trust_region > 0) scale = shortened(spec->trust_region, kl);
  if (spec->trust_expected > 0) scale = fmin(scale, shortened(spec->trust_expected * expected, kl));
  return spec->gain_factor * scale;
}

static void describe(const struct kwm_filter *filter, double change, struct kwm_step *step) {
  step->product = filter->spec.score_test ? 0 : NAN;
  step->noise = filter->noise;
  step->search = 1;
  for (int g = 0; g < filter->n_groups; g++) {
    const struct kwm_filter_group *const group = &filter->group[g];
    step->kl[g] = filter->joint != NULL ? change : total_of(group, group->kl);
    step->expected[g] = total_of(group, group->expected);
    step->scale[g] = scale_for(&filter->spec, step->kl[g], step->expected[g]);
    step->moved[g] = total_of(group, group->moved);
    step->process_noise[g] = group->process_noise;
    if (filter->spec.score_test) step->product += total_of(group, group->product);
  }
}

/* Where a group's work runs beside the host, all of it is begun before the first is waited for. */
static void begin_gain(struct kwm_filter *filter, const struct kwm_lin *lin) {
  for (int g = 0; g < filter->n_groups && filter->joint == NULL; g++) {
    struct kwm_filter_group *const group = &filter->group[g];
    if (!innovation_form(group)) kwm_cov_prepare(&group->cov, &lin->jac[g], group->evidence, lin->batch);
  }
}

void kwm_filter_gain(struct kwm_filter *filter, const struct kwm_lin *lin, struct kwm_step *step) {
  double change = 0, chi2 = 0;
  bool covers_all = filter->joint != NULL || filter->shared;
  memset(filter->facts, 0, (size_t)(FILTER_GAIN * filter->blocks) * sizeof(double));
  begin_gain(filter, lin);
  const bool solved = filter->shared && solve_innovation(filter, lin, &chi2, &change);
  if (filter->joint != NULL && !(solved && joint_gain(filter, lin, change))) failed(filter, -1);
  for (int g = 0; g < filter->n_groups; g++) {
    struct kwm_filter_group *const group = &filter->group[g];
    if (filter->joint == NULL) {
      if (!group_gain(filter, g, lin, solved, change)) failed(filter, innovation_form(group) && !solved ? -1 : g);
      covers_all = covers_all && innovation_form(group);
    }
    if (filter->spec.score_test) score_product(&group->score, &group->part, group->product + group->part.first);
  }
  if (kwm_fault_ordered("indefinite", "learn", filter->steps, filter->layout->rank)) failed(filter, 0);
  kwm_par_sum_group(filter->layout, FILTER_GAIN * filter->blocks, filter->facts);
  step->failed_part = filter->failed_part;
  kwm_filter_judge(filter->layout, lin, filter->spec.gate, filter->failed_here, step);
  describe(filter, change, step);
  step->chi2 = covers_all ? chi2 : 0;
  step->rows = covers_all ? (double)(lin->batch * lin->jac[0].m) : 0;
}

/* ---- update */

/* ρ <- (1-β)ρ + β mean(r⁺² + diag(HP⁺Hᵀ)) with r⁺ = ρ S⁻¹e, HP⁺Hᵀ = ρI - ρ²S⁻¹ (equations.md 3(f)). */
static void adapt_noise(struct kwm_filter *filter, int64_t rows) {
  memcpy(filter->inverse, filter->S, (size_t)(rows * rows) * sizeof(double));
  if (!kwm_cholesky_invert_f64(rows, filter->inverse, rows)) return;
  double sum = 0;
  for (int64_t k = 0; k < rows; k++) sum += filter->w[k] * filter->w[k] - filter->inverse[k * rows + k];
  const double ratio = 1 + filter->noise * sum / (double)rows;
  filter->noise =
      kwm_adapt_noise(&(struct kwm_adaptation){filter->spec.adapt_noise, NOISE_MIN, NOISE_MAX}, filter->noise, ratio);
}

/* q of one group, or of all of them together in a joint covariance. */
static void adapt_process(struct kwm_filter *filter, int g, const struct kwm_step *step) {
  const struct kwm_adaptation how = {filter->spec.adapt_process, NOISE_MIN, NOISE_MAX};
  double moved = 0, n = 0;
  for (int k = 0; k < filter->n_groups; k++) {
    if (k != g && filter->joint == NULL) continue;
    moved += step->moved[k];
    n += (double)(filter->group[k].part.total * filter->group[k].part.params);
  }
  filter->group[g].process_noise = kwm_adapt_process(&how, filter->group[g].process_noise, moved, n);
}

static void update_group(struct kwm_filter *filter, int g, const struct kwm_step *step) {
  struct kwm_filter_group *const group = &filter->group[g];
  const double scale = step->search * step->scale[g], square = scale * scale;
  if (filter->joint == NULL) kwm_cov_apply(&group->cov, scale, group->part.mean);
  for (int64_t b = 0; b < group->part.total; b++) group->gain[b] += square * group->moved[b];
  if (filter->spec.adapt_process > 0) adapt_process(filter, g, step);
}

void kwm_filter_update(struct kwm_filter *filter, const struct kwm_step *step) {
  const bool done = step->verdict == KWM_STEP_DONE;
  filter->steps++;
  if (done && filter->joint != NULL) kwm_joint_update(filter->joint, filter->group, step->scale[0]);
  for (int g = 0; g < filter->n_groups; g++) {
    if (filter->spec.score_test) score_next(&filter->group[g].score, &filter->group[g].part, done);
    if (done) update_group(filter, g, step);
  }
  if (done && filter->spec.adapt_noise > 0) adapt_noise(filter, (int64_t)step->rows);
}
