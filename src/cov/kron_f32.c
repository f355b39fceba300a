/* kron with its state in float: the information form's step, all of it in single precision, where the rows of a chunk
   are rotated into the basis as they come. */
#define REAL float
#define NUMBERS(reals) ((reals).f32)
#define GEMM kwm_gemm
#define MIRROR kwm_mirror
#include "kron_real.h"

static void evidence_f32(kwm_cov *cov, const struct kwm_jac *jac, float *evidence) {
  const int64_t o = cov->spec.d_o, i = cov->spec.d_i, n = jac->n;
  struct kron_state *state = cov->state;
  const struct kron_evidence at = kron_evidence_of(&cov->spec);
  kwm_gram(i, n, 1.0f, jac->a, i, 1.0f, evidence + at.A, i);
  kwm_gram(o, n * jac->m, 1.0f, jac->J, o, 1.0f, evidence + at.G, o);
  kwm_jac_output_score(jac, state->g);
  kwm_gemm(false, false, n, i, i, 1.0f, jac->a, i, state->U.f32, i, 0.0f, state->aU, i);
  kwm_gemm(false, false, n, o, o, 1.0f, state->g, o, state->V.f32, o, 0.0f, state->gV, o);
  kwm_gemm(true, false, o, i, n, 1.0f, state->gV, o, state->aU, i, 1.0f, evidence + at.X, i);
  for (int64_t s = 0; s < n; s++)
    for (int64_t j = 0; j < i; j++) evidence[at.at2 + j] += state->aU[s * i + j] * state->aU[s * i + j];
}

static bool absorb_f32(kwm_cov *cov, const float *evidence, int64_t batch, double *kl) {
  const int64_t o = cov->spec.d_o;
  struct kron_state *state = cov->state;
  const struct kron_evidence at = kron_evidence_of(&cov->spec);
  double *const gt2 = state->eigen;
  state->evidence = evidence;
  state->batch = (double)batch;
  rotated_diagonal(o, state->V.f32, evidence + at.G, state->new_V.f32, (float *)(state->eigen + o), gt2);
  kl[0] = gain(cov, gt2, evidence + at.at2, evidence + at.X) / (double)batch;
  return isfinite(kl[0]);
}

static void move_f32(kwm_cov *cov, double scale, float *mean) {
  const int64_t o = cov->spec.d_o, i = cov->spec.d_i;
  struct kron_state *state = cov->state;
  kwm_gemm(false, true, o, i, i, (float)scale, state->X.f32, i, state->U.f32, i, 0.0f, state->T.f32, i);
  kwm_gemm(false, false, o, i, o, 1.0f, state->V.f32, o, state->T.f32, i, 1.0f, mean, i);
}

const struct kron_numbers kron_f32 = {.predict = predict,
                                      .evidence = evidence_f32,
                                      .absorb = absorb_f32,
                                      .delta = delta_of,
                                      .move = move_f32,
                                      .take = take};
