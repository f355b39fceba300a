/* kron with its state in float: the information form's step, all of it in single precision, where the rows of a chunk
   are rotated into the basis as they come. */
#define REAL float
#define NUMBERS(reals) ((reals).f32)
#define GEMM kwm_gemm
#define MIRROR kwm_mirror
#include "kron_real.h"

/* sums (width) += column sums of squares of rows (n, width). */
static void add_squares(int64_t n, int64_t width, const float *rows, float *sums) {
  for (int64_t s = 0; s < n; s++)
    for (int64_t k = 0; k < width; k++) sums[k] += rows[s * width + k] * rows[s * width + k];
}

/* Rows (n, d_o) in the basis. */
static const float *turned_outputs(kwm_cov *cov, int64_t n, const float *rows) {
  const int64_t o = cov->spec.d_o;
  struct kron_state *state = cov->state;
  kwm_gemm(false, false, n, o, o, 1.0f, rows, o, state->V.f32, o, 0.0f, state->gV, o);
  return state->gV;
}

/* The layer's inputs in the basis: a framed layer's forward pass has made them. */
static const float *turned_inputs(kwm_cov *cov, const struct kwm_jac *jac) {
  const int64_t i = cov->spec.d_i;
  struct kron_state *state = cov->state;
  if (jac->aU != NULL) return jac->aU;
  kwm_gemm(false, false, jac->n, i, i, 1.0f, jac->a, i, state->U.f32, i, 0.0f, state->aU, i);
  return state->aU;
}

static void evidence_f32(kwm_cov *cov, const struct kwm_jac *jac, float *evidence) {
  const int64_t o = cov->spec.d_o, i = cov->spec.d_i, n = jac->n;
  const bool turns_rows = kron_turns_rows(&cov->spec);
  struct kron_state *state = cov->state;
  const struct kron_evidence at = kron_evidence_of(&cov->spec);
  KWM_ASSERT(jac->m <= cov->spec.m);
  const float *const aU = turned_inputs(cov, jac);
  kron_add_gram(i, n, jac->a, evidence + at.A);
  kron_add_gram(o, n * jac->m, jac->J, evidence + at.G);
  if (jac->g == NULL) kwm_jac_output_score(jac, state->g);
  const float *const gV = turned_outputs(cov, n, jac->g != NULL ? jac->g : state->g);
  kwm_gemm(true, false, o, i, n, 1.0f, gV, o, aU, i, 1.0f, evidence + at.X, i);
  add_squares(n, i, aU, evidence + at.at2);
  if (turns_rows) add_squares(n, o, turned_outputs(cov, n, jac->J), evidence + at.gt2);
}

static bool absorb_f32(kwm_cov *cov, const float *evidence, int64_t batch, double *kl) {
  const int64_t o = cov->spec.d_o;
  struct kron_state *state = cov->state;
  const struct kron_evidence at = kron_evidence_of(&cov->spec);
  double *const gt2 = state->eigen;
  state->evidence = evidence;
  state->batch = (double)batch;
  if (kron_turns_rows(&cov->spec))
    for (int64_t k = 0; k < o; k++) gt2[k] = (double)evidence[at.gt2 + k];
  else
    rotated_diagonal(o, state->V.f32, evidence + at.G, state->new_V.f32, (float *)(state->eigen + o), gt2);
  kl[0] = gain(cov, gt2, evidence + at.at2, evidence + at.X) / (double)batch;
  return isfinite(kl[0]);
}

static void move_f32(kwm_cov *cov, double scale, float *mean) {
  const int64_t o = cov->spec.d_o, i = cov->spec.d_i;
  struct kron_state *state = cov->state;
  if (cov->spec.framed) {
    const float share = (float)scale;
    for (int64_t k = 0; k < o * i; k++) mean[k] += share * state->X.f32[k];
    return;
  }
  kwm_gemm(false, true, o, i, i, (float)scale, state->X.f32, i, state->U.f32, i, 0.0f, state->T.f32, i);
  kwm_gemm(false, false, o, i, o, 1.0f, state->V.f32, o, state->T.f32, i, 1.0f, mean, i);
}

void kron_unframe(const kwm_cov *cov, const float *framed, float *plain) {
  rotate_back(cov, framed, plain);
}

const struct kron_numbers kron_f32 = {.predict = predict,
                                      .evidence = evidence_f32,
                                      .absorb = absorb_f32,
                                      .delta = delta_of,
                                      .size = size_of,
                                      .slope = slope_of,
                                      .expected = expected_of,
                                      .move = move_f32,
                                      .take = take,
                                      .predictive = predictive};
