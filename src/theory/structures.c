/* Structured covariance, Sec. 12: blocks that share one S, the diagonal filter's closed form, the Kronecker filter
   where it is exact. */
#include <math.h>

#include "matrix.h"
#include "subject.h"

enum { PARTS = 4, N = 12, ROWS = 5, LAYERS = 10, SIDE = 4 };

enum { DIAGONAL_BLOCKS, GLOBAL, LOCAL, DIAG, KRON, CLAIMS };
static const struct kwm_claim claims[CLAIMS] = {
    [DIAGONAL_BLOCKS] = {"block-marginal", "(140)", KWM_CLAIM_TRUE, KWM_AT_MOST, 1e-12, 0,
                         "blocks under one S: the exact posterior's blocks and step", "relative distance, 4 blocks"},
    [GLOBAL] = {"block-correction", "(140)", KWM_CLAIM_TRUE, KWM_WITHIN, 10.0 / 10.1, 1e-6,
                "10 equal blocks, one S: outputs move by 0.990 e", "sum of H K over blocks, P = 1, R = 0.1"},
    [LOCAL] = {"block-local-S", "(140)", KWM_CLAIM_PAPER, KWM_WITHIN, 10 / 1.1, 1e-6,
               "false as stated: each block with its own S (outputs move 9.09 e)", "sum of H K over blocks"},
    [DIAG] = {"diag-rest", "(72)", KWM_CLAIM_TRUE, KWM_AT_MOST, 1e-6, 0,
              "diag: p rests at 2/(f (1 + sqrt(1 + 4/(qf))))", "largest relative distance, 6 parameters"},
    [KRON] = {"kron-exact", "(148)-(151)", KWM_CLAIM_TRUE, KWM_AT_MOST, 1e-5, 0,
              "kron is the exact filter where F = G x A is diagonal", "relative distance of P after 10 steps, Q > 0"},
};

/* The filter's blocks against the dense posterior's, from the same block-diagonal prior. */
static kwm_status marginal(struct theory *t, struct kwm_finding *found) {
  const struct subject_spec spec = {
      .structure = "block", .form = KWM_FORM_INNOVATION, .n = N, .rows = ROWS, .parts = PARTS, .precision = 1};
  const double *const H = theory_floats(t, ROWS * N, 1), *const e = theory_normals(t, ROWS);
  const double *const I = mat_identity(t, ROWS, 1);
  struct subject s = {0};
  KWM_TRY(subject_open(&s, t, &spec));
  subject_measure(&s, theory_floats(t, ROWS * N, 1), e);
  const double *const P = subject_covariance(&s);
  subject_measure(&s, H, e);
  const double *const S = mat_sum(t, ROWS * ROWS, 1, mat_between(t, ROWS, N, H, P), 1, I);
  const double *const PH = mat_product(t, false, true, N, ROWS, N, P, H);
  const double *const K = mat_product(t, false, false, N, ROWS, ROWS, PH, mat_inverse(t, ROWS, S));
  double *const after = mat_sum(t, N * N, 1, P, -1, mat_product(t, false, true, N, N, ROWS, K, PH));
  for (int i = 0; i < N; i++)
    for (int j = 0; j < N; j++)
      if (i / (N / PARTS) != j / (N / PARTS)) after[i * N + j] = 0;
  const double *const step = mat_product(t, false, false, N, 1, ROWS, K, e);
  found[DIAGONAL_BLOCKS].number =
      mat_worse(mat_distance(N * N, subject_covariance(&s), after), mat_distance(N, s.delta, step));
  subject_close(&s);
  return KWM_OK;
}

/* H = 1/sqrt(R) for every block: whitened, output and innovation both count 1/sqrt(R). */
static kwm_status correction(struct theory *t, struct kwm_finding *found) {
  const struct subject_spec spec = {
      .structure = "block", .form = KWM_FORM_INNOVATION, .n = LAYERS, .rows = 1, .parts = LAYERS, .precision = 1};
  struct subject s = {0};
  double H[LAYERS], local = 0;
  for (int k = 0; k < LAYERS; k++) H[k] = (double)(float)sqrt(10);
  KWM_TRY(subject_open(&s, t, &spec));
  found[GLOBAL].number = mat_dot(LAYERS, H, subject_gain(&s, H));
  for (int k = 0; k < LAYERS; k++) local += H[k] * H[k] / (1 + H[k] * H[k]);
  found[LOCAL].number = local;
  subject_close(&s);
  return KWM_OK;
}

/* One row a parameter: F is diagonal. */
static kwm_status diagonal(struct theory *t, struct kwm_finding *found) {
  enum { COUNT = 6 };
  const double q = 0.02, e[COUNT] = {0};
  const struct subject_spec spec = {
      .structure = "diag", .form = KWM_FORM_INFORMATION, .n = COUNT, .rows = COUNT, .precision = 1, .noise = q};
  struct subject s = {0};
  double *const H = theory_new(t, COUNT * COUNT), worst = 0;
  for (int k = 0; k < COUNT; k++) H[k * COUNT + k] = 0.5 * (k + 1);
  KWM_TRY(subject_open(&s, t, &spec));
  for (int step = 0; step < 500; step++) {
    subject_predict(&s);
    subject_measure(&s, H, e);
  }
  const double *const P = subject_covariance(&s);
  for (int k = 0; k < COUNT; k++) {
    const double f = H[k * COUNT + k] * H[k * COUNT + k];
    worst = mat_worse(worst, fabs(P[k * COUNT + k] * f * (1 + sqrt(1 + 4 / (q * f))) / 2 - 1));
  }
  found[DIAG].number = worst;
  subject_close(&s);
  return KWM_OK;
}

/* Sample j excites input j alone, outputs as diag(0.5, 1, 1.5, 2): F = diag(G) x diag(A). */
static struct kwm_jac crossed(struct theory *t) {
  float *const J = (float *)theory_new(t, SIDE * SIDE * SIDE), *const a = (float *)theory_new(t, SIDE * SIDE);
  for (int j = 0; j < SIDE; j++) {
    a[j * SIDE + j] = 0.25f * (float)(j + 2);
    for (int r = 0; r < SIDE; r++) J[(j * SIDE + r) * SIDE + r] = 0.5f * (float)(r + 1);
  }
  return (struct kwm_jac){.shape = KWM_JAC_OUTER,
                          .n = SIDE,
                          .m = SIDE,
                          .d_o = SIDE,
                          .d_i = SIDE,
                          .J = J,
                          .a = a,
                          .e = (const float *)theory_new(t, SIDE * SIDE)};
}

static kwm_status kronecker(struct theory *t, struct kwm_finding *found) {
  enum { COUNT = SIDE * SIDE };
  const double q = 0.02, e[COUNT] = {0};
  const struct subject_spec spec = {.structure = "kron",
                                    .form = KWM_FORM_INFORMATION,
                                    .n = COUNT,
                                    .rows = COUNT,
                                    .d_i = SIDE,
                                    .samples = SIDE,
                                    .precision = 1,
                                    .noise = q};
  const struct kwm_jac jac = crossed(t);
  struct subject s = {0};
  double *const H = theory_new(t, COUNT * COUNT), *P = mat_identity(t, COUNT, 1);
  kwm_jac_dense_f64(&jac, H);
  const double *const F = mat_gram(t, COUNT, COUNT, H);
  KWM_TRY(subject_open(&s, t, &spec));
  for (int step = 0; step < 10; step++) {
    subject_predict(&s);
    subject_prepare_jac(&s, &jac, e);
    subject_apply(&s);
    P = mat_sum(t, COUNT * COUNT, 1, P, 1, mat_identity(t, COUNT, q));
    P = mat_inverse(t, COUNT, mat_sum(t, COUNT * COUNT, 1, mat_inverse(t, COUNT, P), 1, F));
  }
  found[KRON].number = mat_distance(COUNT * COUNT, subject_covariance(&s), P);
  subject_close(&s);
  return KWM_OK;
}

static kwm_status compute(struct theory *t, struct kwm_finding *found) {
  KWM_TRY(marginal(t, found));
  KWM_TRY(correction(t, found));
  KWM_TRY(diagonal(t, found));
  return kronecker(t, found);
}

const struct theory_group theory_structures = {CLAIMS, claims, compute, false, false};
