/* kron with its state in double: the information form's step, whose evidence is a plain float sum and is rotated into
   the basis once a step, in double precision: d_o d_i (d_o + d_i) + d_i³ + d_o³ multiplications. */
#define REAL double
#define NUMBERS(reals) ((reals).f64)
#define GEMM kwm_gemm_f64
#define MIRROR kwm_mirror_f64
#include "kron_real.h"

static void evidence_f64(kwm_cov *cov, const struct kwm_jac *jac, float *evidence) {
  const int64_t o = cov->spec.d_o, i = cov->spec.d_i;
  struct kron_state *state = cov->state;
  const struct kron_evidence at = kron_evidence_of(&cov->spec);
  kron_add_gram(i, jac->n, jac->a, evidence + at.A);
  kron_add_gram(o, jac->n * jac->m, jac->J, evidence + at.G);
  kwm_jac_score(jac, evidence + at.X, state->g);
}

/* X <- Vᵀ score U */
static void rotate_score(kwm_cov *cov, const float *score) {
  const int64_t o = cov->spec.d_o, i = cov->spec.d_i;
  struct kron_state *state = cov->state;
  for (int64_t k = 0; k < o * i; k++) state->f.f64[k] = (double)score[k];
  kwm_gemm_f64(true, false, o, i, o, 1, state->V.f64, o, state->f.f64, i, 0, state->T.f64, i);
  kwm_gemm_f64(false, false, o, i, i, 1, state->T.f64, i, state->U.f64, i, 0, state->X.f64, i);
}

static bool absorb_f64(kwm_cov *cov, const float *evidence, int64_t batch, double *kl) {
  const int64_t o = cov->spec.d_o, i = cov->spec.d_i, d = o > i ? o : i;
  struct kron_state *state = cov->state;
  const struct kron_evidence at = kron_evidence_of(&cov->spec);
  double *const product = state->eigen, *const gt2 = state->eigen + d * d, *const at2 = gt2 + d;
  state->evidence = evidence;
  state->batch = (double)batch;
  rotated_diagonal(o, state->V.f64, evidence + at.G, state->new_V.f64, product, gt2);
  rotated_diagonal(i, state->U.f64, evidence + at.A, state->new_U.f64, product, at2);
  for (int64_t j = 0; j < i; j++) at2[j] = at2[j] < 0 ? 0 : at2[j];
  rotate_score(cov, evidence + at.X);
  kl[0] = gain(cov, gt2, at2, state->X.f64) / (double)batch;
  return isfinite(kl[0]);
}

static void move_f64(kwm_cov *cov, double scale, float *mean) {
  const struct kron_state *const state = cov->state;
  rotate_back(cov, state->X.f64, state->eigen);
  for (int64_t k = 0; k < cov->spec.d_o * cov->spec.d_i; k++)
    mean[k] = (float)((double)mean[k] + scale * state->eigen[k]);
}

const struct kron_numbers kron_f64 = {.predict = predict,
                                      .evidence = evidence_f64,
                                      .absorb = absorb_f64,
                                      .delta = delta_of,
                                      .size = size_of,
                                      .slope = slope_of,
                                      .expected = expected_of,
                                      .move = move_f64,
                                      .take = take,
                                      .predictive = predictive};
