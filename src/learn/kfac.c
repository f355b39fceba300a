/* learner: kfac. K-FAC (Martens & Grosse 2015) without memory of tasks. Of a matrix block, running means of the Fisher
   information's factors and a step along the gradient turned by their damped inverses,

     A <- b A + (1-b) aᵀa/N,  G <- b G + (1-b) JᵀJ/N,  b = min(decay, 1 - 1/t)
     W += rate (G + √damping/π I)⁻¹ (score/N) (A + π √damping I)⁻¹,  π² = (tr A/d_i) / (tr G/d_o),

   the inverses made anew in the first steps and every `refresh` steps. Units have the same with a diagonal: F <- b F +
   (1-b) diag(HᵀH)/N, θ += rate (score/N) / (F + damping). t counts the steps that were done. */
#include "gradient.h"

#include <math.h>

#include "kwm/backend.h"

enum { FACTOR_A, FACTOR_G, INVERSE_A, INVERSE_G, DIAGONAL };
enum { FIRST_STEPS = 10 };

/* Added to a factor's mean eigenvalue, so that π has a value for rows that are all zero. */
static const double TINY = 1e-30;

struct kfac_state {
  struct gradient_state gradient;
  double *wide; /* (d, d) scratch, d the largest side of the matrix blocks here */
  int64_t done; /* steps that were not skipped */
};

static const struct gradient_kind kfac = {
    .state_bytes = sizeof(struct kfac_state),
    .evidence = GRADIENT_FACTORS,
    .n_arrays = 5,
    .array = {[FACTOR_A] = {"input_factor", GRADIENT_INPUTS},
              [FACTOR_G] = {"output_factor", GRADIENT_OUTPUTS},
              [INVERSE_A] = {"input_inverse", GRADIENT_INPUTS},
              [INVERSE_G] = {"output_inverse", GRADIENT_OUTPUTS},
              [DIAGONAL] = {"fisher", GRADIENT_UNITS}},
};

static size_t wide_bytes(const struct kwm_params *params) {
  int64_t d = 0;
  for (int g = 0; g < params->model->n_groups; g++) {
    const struct kwm_group *const group = &params->model->groups[g];
    const int64_t side = params->share[g].count * (group->d_i > group->d_o ? group->d_i : group->d_o);
    if (group->d_o > 0 && side > d) d = side;
  }
  return (size_t)(d * d) * sizeof(double);
}

static size_t kfac_saved(const struct kwm_params *params) {
  return gradient_kind_saved(&kfac, params);
}

static size_t kfac_bytes(const struct kwm_learn_spec *spec, const struct kwm_params *params, int64_t replicas) {
  return gradient_kind_bytes(&kfac, spec, params, replicas) + kwm_mem_rounded(wide_bytes(params));
}

static kwm_status kfac_create(kwm_learner *learner) {
  KWM_CHECK(learner->spec.refresh >= 1, KWM_ERR_USAGE, "kfac: wanted refresh >= 1, found %lld",
            (long long)learner->spec.refresh);
  KWM_TRY(gradient_kind_create(&kfac, learner));
  struct kfac_state *const state = learner->state;
  return kwm_alloc((void **)&state->wide, wide_bytes(learner->params), "factors' inverses");
}

static void kfac_destroy(kwm_learner *learner) {
  const struct kfac_state *const state = learner->state;
  if (state != NULL) kwm_free(state->wide);
  gradient_destroy(learner);
}

/* A factor of group g as it will be after the step: b times the old one plus `share` times the step's sum. */
struct factor {
  int64_t d;
  float *old;       /* (d, d) upper triangle, and so is sum */
  const float *sum; /* over the step's samples */
  double b, share;
  float *inverse; /* (d, d) */
};

static struct factor factor_of(const kwm_learner *learner, int g, int64_t batch, bool output) {
  const struct kfac_state *const state = learner->state;
  const struct kwm_group *const group = &learner->params->model->groups[g];
  const double b = fmin(learner->spec.decay, 1 - 1 / ((double)state->done + 1));
  return (struct factor){.d = output ? group->d_o : group->d_i,
                         .old = state->gradient.array[output ? FACTOR_G : FACTOR_A][g],
                         .sum = state->gradient.more[g] + (output ? group->d_i * group->d_i : 0),
                         .b = b,
                         .share = (1 - b) / (double)batch,
                         .inverse = state->gradient.array[output ? INVERSE_G : INVERSE_A][g]};
}

static double next(const struct factor *factor, int64_t k) {
  return factor->b * (double)factor->old[k] + factor->share * (double)factor->sum[k];
}

static double mean_eigenvalue(const struct factor *factor) {
  double trace = 0;
  for (int64_t k = 0; k < factor->d; k++) trace += next(factor, k * factor->d + k);
  return trace / (double)factor->d;
}

/* wide <- the Cholesky factor of the next, damped factor, upper triangle. False: not positive definite, not finite. */
static bool decompose(const struct factor *factor, double damping, double *wide) {
  const int64_t d = factor->d;
  for (int64_t k = 0; k < d; k++) {
    for (int64_t j = k; j < d; j++) wide[k * d + j] = next(factor, k * d + j);
    wide[k * d + k] += damping;
  }
  return kwm_factor_f64(d, wide, d);
}

static void invert(const struct factor *factor, double damping, double *wide) {
  const int64_t d = factor->d;
  const bool good = decompose(factor, damping, wide) && kwm_factor_invert_f64(d, wide, d);
  KWM_ASSERT(good); /* invertible() has seen it */
  for (int64_t k = 0; k < d; k++)
    for (int64_t j = k; j < d; j++) factor->inverse[j * d + k] = factor->inverse[k * d + j] = (float)wide[k * d + j];
}

static void take(const struct factor *factor) {
  for (int64_t k = 0; k < factor->d; k++)
    for (int64_t j = k; j < factor->d; j++) {
      const int64_t at = k * factor->d + j;
      factor->old[at] = (float)next(factor, at);
    }
}

static bool is_matrix(const kwm_learner *learner, int g) {
  return learner->params->model->groups[g].d_o > 0 && learner->params->share[g].count > 0;
}

static bool refreshes(const kwm_learner *learner) {
  const struct kfac_state *const state = learner->state;
  return state->done < FIRST_STEPS || state->done % learner->spec.refresh == 0;
}

/* Both factors of a matrix block and what is added to their diagonals. */
struct pair {
  struct factor A, G;
  double damping_A, damping_G;
};

static struct pair pair_of(const kwm_learner *learner, int g, int64_t batch) {
  struct pair pair = {.A = factor_of(learner, g, batch, false), .G = factor_of(learner, g, batch, true)};
  const double pi = sqrt((mean_eigenvalue(&pair.A) + TINY) / (mean_eigenvalue(&pair.G) + TINY));
  pair.damping_A = pi * sqrt(learner->spec.damping);
  pair.damping_G = sqrt(learner->spec.damping) / pi;
  return pair;
}

/* Whether all inverses that are due can be made. Nothing is kept yet: another rank may have to skip the step. */
static bool invertible(const kwm_learner *learner, int64_t batch) {
  const struct kfac_state *const state = learner->state;
  bool good = true;
  for (int g = 0; g < learner->params->model->n_groups && refreshes(learner); g++) {
    if (!is_matrix(learner, g)) continue;
    const struct pair pair = pair_of(learner, g, batch);
    good = good && decompose(&pair.A, pair.damping_A, state->wide) && decompose(&pair.G, pair.damping_G, state->wide);
  }
  return good;
}

static void step_matrix(kwm_learner *learner, int g, int64_t batch, double rate) {
  const struct kfac_state *const state = learner->state;
  const struct pair pair = pair_of(learner, g, batch);
  const int64_t o = pair.G.d, i = pair.A.d;
  float *const half = state->gradient.scratch[g];
  if (refreshes(learner)) {
    invert(&pair.A, pair.damping_A, state->wide);
    invert(&pair.G, pair.damping_G, state->wide);
  }
  take(&pair.A);
  take(&pair.G);
  kwm_gemm(false, false, o, i, o, (float)(rate / (double)batch), pair.G.inverse, o, state->gradient.score[g], i, 0.0f,
           half, i);
  kwm_gemm(false, false, o, i, i, 1.0f, half, i, pair.A.inverse, i, 1.0f, learner->params->mean[g], i);
}

static void step_units(kwm_learner *learner, int g, int64_t batch, double rate) {
  const struct kfac_state *const state = learner->state;
  const double b = fmin(learner->spec.decay, 1 - 1 / ((double)state->done + 1));
  const float kept = (float)b, share = (float)((1 - b) / (double)batch), damping = (float)learner->spec.damping;
  float *const F = state->gradient.array[DIAGONAL][g];
  for (int64_t k = 0; k < gradient_length(learner->params, g); k++) {
    F[k] = kept * F[k] + share * state->gradient.more[g][gradient_place(learner, g, k)];
    learner->params->mean[g][k] += (float)rate * gradient_at(learner, g, k, batch) / (F[k] + damping);
  }
}

static void kfac_step(kwm_learner *learner, const struct kwm_lin *lin, struct kwm_step *step) {
  struct kfac_state *const state = learner->state;
  const double rate = learner->spec.rate * gradient_schedule(learner);
  const bool good = gradient_collect(learner, lin) && invertible(learner, lin->batch);
  step->failed_part = -1;
  kwm_filter_judge(learner->layout, lin, learner->spec.filter.gate, !good, step);
  if (step->verdict != KWM_STEP_DONE) return;
  for (int g = 0; g < learner->params->model->n_groups; g++) {
    if (is_matrix(learner, g))
      step_matrix(learner, g, lin->batch, rate);
    else
      step_units(learner, g, lin->batch, rate);
  }
  state->done++;
}

static kwm_status kfac_save(const kwm_learner *learner, kwm_ckpt *ckpt, bool writes) {
  const struct kfac_state *const state = learner->state;
  KWM_TRY(gradient_save(learner, ckpt, writes));
  return kwm_ckpt_put_i64(ckpt, "/learner/kfac", "done", state->done);
}

static kwm_status kfac_load(kwm_learner *learner, kwm_ckpt *ckpt) {
  struct kfac_state *const state = learner->state;
  KWM_TRY(gradient_load(learner, ckpt));
  return kwm_ckpt_get_i64(ckpt, "/learner/kfac", "done", &state->done);
}

const struct kwm_learner_ops kwm_learn_kfac = {
    .name = "kfac",
    .bytes = kfac_bytes,
    .saved = kfac_saved,
    .create = kfac_create,
    .step = kfac_step,
    .save = kfac_save,
    .load = kfac_load,
    .destroy = kfac_destroy,
};
