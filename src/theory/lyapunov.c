/* V = εᵀP⁻¹ε over one step, (75), (76): exact without noise and in expectation with it; the time update's bound. */
#include <math.h>

#include "matrix.h"
#include "subject.h"

enum { N = 5, ROWS = 2, TRIES = 30 };
static const double NOISE = 0.04;

enum { DROP, EXPECTED, BOUND, PREDICTION, CLAIMS };
static const struct kwm_claim claims[CLAIMS] = {
    [DROP] = {"lyapunov-drop", "(75),(76)", KWM_CLAIM_TRUE, KWM_AT_MOST, 1e-11, 0, "no noise: V+ = V - e'H'(1/S)He",
              "largest distance over V, 30 steps"},
    [EXPECTED] = {"lyapunov-noise", "(76)", KWM_CLAIM_TRUE, KWM_AT_MOST, 1e-11, 0,
                  "noise: E[V+] = V - e'H'(1/S)He + tr((1/S)HPH')", "largest distance over V, 30 steps"},
    [BOUND] = {"lyapunov-noise-max", "(76)", KWM_CLAIM_TRUE, KWM_AT_MOST, ROWS, 0,
               "the noise's part is at most min(m, n)", "largest tr(K'(1/P+)K), 30 steps"},
    [PREDICTION] = {"lyapunov-predict", "(76)", KWM_CLAIM_TRUE, KWM_AT_MOST, 1 + 1e-11, 0,
                    "E[V-] <= V+ + tr(1/(P+ + Q) Q) <= V+ + n", "largest ratio of the two sides, 30 steps"},
};

/* E[V] of ε + w, w ~ N(0, Q), is εᵀΛε + tr(ΛQ). */
static double after_noise(struct theory *t, const double *precision, const double *error) {
  return mat_form(t, N, precision, error) + NOISE * mat_trace(N, precision);
}

static void one_step(struct theory *t, struct subject *s, struct kwm_finding *found) {
  const double *const H = theory_floats(t, ROWS * N, 1), *const error = theory_normals(t, N), e[ROWS] = {0};
  const double *const P = subject_covariance(s), *const K = subject_gain(s, H);
  const double *const HPH = mat_between(t, ROWS, N, H, P);
  const double *const inverse = mat_inverse(t, ROWS, mat_sum(t, ROWS * ROWS, 1, HPH, 1, mat_identity(t, ROWS, 1)));
  const double before = mat_form(t, N, mat_inverse(t, N, P), error);
  const double drop = mat_form(t, ROWS, inverse, mat_product(t, false, false, ROWS, 1, N, H, error));
  subject_measure(s, H, e);
  const double *const precision = mat_inverse(t, N, subject_covariance(s));
  const double *const left = mat_product(t, false, false, N, 1, N, mat_transition(t, ROWS, N, K, H), error);
  const double after = mat_form(t, N, precision, left);
  const double noise = mat_trace(ROWS, mat_between(t, ROWS, N, mat_transpose(t, N, ROWS, K), precision));
  const double wanted = mat_trace(ROWS, mat_product(t, false, false, ROWS, ROWS, ROWS, inverse, HPH));
  found[DROP].number = mat_worse(found[DROP].number, fabs(after - (before - drop)) / before);
  found[EXPECTED].number = mat_worse(found[EXPECTED].number, fabs(after + noise - (before - drop + wanted)) / before);
  found[BOUND].number = mat_worse(found[BOUND].number, noise);
  subject_predict(s);
  const double *const predicted = mat_inverse(t, N, subject_covariance(s));
  const double *const sum = mat_sum(t, N * N, 1, mat_inverse(t, N, precision), 1, mat_identity(t, N, NOISE));
  const double most = after + NOISE * mat_trace(N, mat_inverse(t, N, sum));
  found[PREDICTION].number = mat_worse(found[PREDICTION].number, after_noise(t, predicted, left) / most);
}

static kwm_status compute(struct theory *t, struct kwm_finding *found) {
  const struct subject_spec spec = {
      .structure = "block", .form = KWM_FORM_INNOVATION, .n = N, .rows = ROWS, .precision = 1, .noise = NOISE};
  struct subject s = {0};
  KWM_TRY(subject_open(&s, t, &spec));
  for (int i = 0; i < CLAIMS; i++) found[i].number = 0;
  for (int k = 0; k < TRIES; k++) {
    const int64_t mark = t->used;
    one_step(t, &s, found);
    t->used = mark;
  }
  subject_close(&s);
  return KWM_OK;
}

const struct theory_group theory_lyapunov = {CLAIMS, claims, compute, false, false};
