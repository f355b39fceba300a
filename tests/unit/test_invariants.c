/* The filter's identities (equations.md part 5, by their numbers and tolerances) for one step and for many, as every
   exact structure shows them through the interface. R = I: innovations and rows come whitened. */
#include "cov_shapes.h"

enum { ROWS = COV_ROWS };

static bool is_information(const struct cov_shape *shape) {
  return shape->form == KWM_FORM_INFORMATION;
}

/* One measurement: before, after, and the gain. */
struct one {
  int64_t n, rows;
  struct jac_case made;
  double *H, *Ht, *before, *after, *K;
  float *mean;
  kwm_cov cov;
};

static struct one one_of(const struct cov_shape *shape, int64_t samples, float factor) {
  struct one one = {.n = cov_numbers(shape), .rows = samples * COV_OUTPUTS, .mean = cov_zeros(shape)};
  one.cov = cov_mild(shape, one.mean);
  one.made = cov_mild_jac(shape, 810);
  cov_scale_jac(&one.made, factor);
  const struct kwm_jac jac = kwm_jac_part(&one.made.jac, 0, samples);
  const int64_t width = cov_J_numbers(&jac) / one.rows;
  /* Three rows of one sample and one unit have rank two. */
  if (samples == 1) memset(one.made.J + 2 * width, 0, (size_t)width * sizeof *one.made.J);
  one.H = jac_rows(&jac);
  one.Ht = dense_new(one.n * one.rows);
  dense_transpose(one.rows, one.n, one.H, one.Ht);
  one.before = cov_dense(&one.cov);
  one.K = cov_gain(&one.cov, &jac);
  cov_measure(&one.cov, &jac, 1, one.mean);
  one.after = cov_dense(&one.cov);
  return one;
}

static void one_drop(struct one *one) {
  free(one->H), free(one->Ht), free(one->before), free(one->after), free(one->K), free(one->mean);
  jac_drop(&one->made), kwm_cov_destroy(&one->cov);
}

/* A (n, n) <- I + sign A */
static void from_identity(int64_t n, double sign, double *A) {
  for (int64_t k = 0; k < n * n; k++) A[k] = sign * A[k] + (k % (n + 1) == 0);
}

/* (P⁻¹ + HᵀH)⁻¹ */
static double *information_posterior(const struct one *one) {
  double *const P = dense_copy(one->n * one->n, one->before), *const F = dense_new(one->n * one->n);
  dense_multiply(one->n, one->n, one->rows, one->Ht, one->H, F);
  dense_invert(one->n, P);
  for (int64_t k = 0; k < one->n * one->n; k++) P[k] += F[k];
  dense_invert(one->n, P);
  free(F);
  return P;
}

/* 1: P⁺ = (Λ⁻ + F)⁻¹; 2: K = P⁺Hᵀ; 5: P⁺ ⪯ P⁻; 6: P⁺ symmetric and positive. */
static void check_posterior(const struct cov_shape *shape) {
  struct one one = one_of(shape, COV_SAMPLES, 1);
  const int64_t n = one.n;
  double *const P = information_posterior(&one), *const K = dense_new(n * ROWS), *const Pt = dense_new(n * n);
  const double size = dense_trace(n, one.before);
  assert_below(dense_error(n * n, one.after, P), cov_either(shape, 1e-12, 2e-5));
  dense_multiply(n, ROWS, n, one.after, one.Ht, K);
  assert_below(dense_error(n * ROWS, one.K, K), cov_either(shape, 1e-12, 2e-5));
  assert_below(-dense_excess(n, one.before, one.after) / size, cov_either(shape, 1e-13, 2e-6));
  dense_transpose(n, n, one.after, Pt);
  assert_below(dense_error(n * n, Pt, one.after), cov_either(shape, 1e-13, 1e-6));
  assert_true(dense_smallest(n, one.after) > 0);
  free(P), free(K), free(Pt), one_drop(&one);
}
EXACT_TEST(posterior)

/* 3: I - KH = P⁺Λ⁻ = (I + P⁻F)⁻¹ */
static void check_transition(const struct cov_shape *shape) {
  struct one one = one_of(shape, COV_SAMPLES, 1);
  const int64_t n = one.n;
  double *const IKH = dense_new(n * n), *const ratio = dense_new(n * n), *const F = dense_new(n * n);
  double *const inverse = dense_new(n * n), *const prior = dense_copy(n * n, one.before);
  dense_multiply(n, n, ROWS, one.K, one.H, IKH);
  from_identity(n, -1, IKH);
  dense_invert(n, prior);
  dense_multiply(n, n, n, one.after, prior, ratio);
  assert_below(dense_error(n * n, IKH, ratio), cov_either(shape, 1e-12, 1e-5));
  dense_multiply(n, n, ROWS, one.Ht, one.H, F);
  dense_multiply(n, n, n, one.before, F, inverse);
  from_identity(n, 1, inverse);
  dense_invert(n, inverse);
  assert_below(dense_error(n * n, IKH, inverse), cov_either(shape, 1e-12, 1e-5));
  free(IKH), free(ratio), free(F), free(inverse), free(prior), one_drop(&one);
}
EXACT_TEST(transition)

/* 4: HP⁺Hᵀ = R - RS⁻¹R = I - (what is left by) (I - HK)S(I - HK)ᵀ */
static void check_residual(const struct cov_shape *shape) {
  struct one one = one_of(shape, COV_SAMPLES, 1);
  const int64_t n = one.n, m = ROWS;
  double *const S = dense_new(m * m), *const left = dense_new(m * m), *const PHt = dense_new(n * m);
  double *const HPH = dense_new(m * m), *const IHK = dense_new(m * m), *const T = dense_new(m * m);
  dense_innovation_covariance(n, m, one.before, one.H, S);
  dense_multiply(n, m, n, one.after, one.Ht, PHt);
  dense_multiply(m, m, n, one.H, PHt, HPH);
  memcpy(left, S, (size_t)(m * m) * sizeof *S);
  dense_invert(m, left);
  from_identity(m, -1, left);
  assert_below(dense_error(m * m, HPH, left), cov_either(shape, 1e-12, 2e-5));
  dense_multiply(m, m, n, one.H, one.K, IHK);
  from_identity(m, -1, IHK);
  dense_multiply(m, m, m, IHK, S, T);
  dense_transpose(m, m, IHK, left);
  dense_multiply(m, m, m, T, left, S);
  from_identity(m, -1, HPH);
  assert_below(dense_error(m * m, S, HPH), cov_either(shape, 1e-12, 2e-5));
  free(S), free(left), free(PHt), free(HPH), free(IHK), free(T), one_drop(&one);
}
EXACT_TEST(residual)

/* total += δ of the samples of made in that order, each with the innovation that is left of e. */
static void sequential(kwm_cov *cov, const struct jac_case *made, const int64_t *order, float *mean, double *total) {
  const int64_t n = cov->spec.count * cov->spec.params;
  double *const delta = dense_new(n), e[COV_OUTPUTS];
  for (int64_t s = 0; s < COV_SAMPLES; s++) {
    const struct kwm_jac jac = kwm_jac_part(&made->jac, order[s], 1);
    double *const H = jac_rows(&jac);
    for (int64_t r = 0; r < COV_OUTPUTS; r++) {
      e[r] = (double)jac.e[r];
      for (int64_t k = 0; k < n; k++) e[r] -= H[r * n + k] * total[k];
    }
    cov_measure_f64(cov, &jac, e, mean, delta);
    for (int64_t k = 0; k < n; k++) total[k] += delta[k];
    free(H);
  }
  free(delta);
}

/* 10: sample by sample, in any order, is the batch. What is left of e is not of few bits, and the information form's
   score is a float sum of it: δ to single precision there. */
static void check_order(const struct cov_shape *shape) {
  static const int64_t orders[3][COV_SAMPLES] = {{0, 1, 2, 3}, {3, 2, 1, 0}, {2, 0, 3, 1}};
  const int64_t n = cov_numbers(shape);
  float *const mean = cov_zeros(shape);
  kwm_cov batch = cov_mild(shape, mean);
  struct jac_case made = cov_mild_jac(shape, 820);
  double *const e = jac_innovation(&made.jac), *const delta = dense_new(n);
  cov_measure_f64(&batch, &made.jac, e, mean, delta);
  double *const P = cov_dense(&batch);
  for (int o = 0; o < 3; o++) {
    kwm_cov cov = cov_mild(shape, mean);
    double *const total = dense_new(n);
    sequential(&cov, &made, orders[o], mean, total);
    double *const after = cov_dense(&cov);
    assert_below(dense_error(n * n, after, P), cov_either(shape, 1e-12, 1e-5));
    assert_below(dense_error(n, total, delta), is_information(shape) ? 1e-5 : cov_either(shape, 1e-12, 1e-5));
    free(after), free(total), kwm_cov_destroy(&cov);
  }
  free(mean), free(e), free(delta), free(P), jac_drop(&made), kwm_cov_destroy(&batch);
}
EXACT_TEST(order)

/* One step towards y = Hθ* + v from the estimate; Λ (n, n) += HᵀH, b (n) += Hᵀy. */
static void regress(kwm_cov *cov, int64_t step, float *mean, double *estimate, double *Lambda, double *b) {
  const int64_t n = cov->spec.count * cov->spec.params;
  const struct cov_shape shape = {
      .count = cov->spec.count, .params = cov->spec.params, .d_o = cov->spec.d_o, .d_i = cov->spec.d_i};
  struct jac_case made = cov_mild_jac(&shape, (uint64_t)(830 + step));
  double *const H = jac_rows(&made.jac), *const F = jac_dense_fisher(&made.jac), *const delta = dense_new(n), e[ROWS];
  for (int64_t r = 0; r < ROWS; r++) {
    double y = test_normal(829, step * ROWS + r), known = 0;
    for (int64_t k = 0; k < n; k++) y += H[r * n + k] * test_normal(828, k), known += H[r * n + k] * estimate[k];
    for (int64_t k = 0; k < n; k++) b[k] += H[r * n + k] * y;
    e[r] = y - known;
  }
  cov_measure_f64(cov, &made.jac, e, mean, delta);
  for (int64_t k = 0; k < n; k++) estimate[k] += delta[k];
  for (int64_t k = 0; k < n * n; k++) Lambda[k] += F[k];
  free(H), free(F), free(delta), jac_drop(&made);
}

/* 11: after 400 samples θ̂ is the ridge solution. θ̂ is δ summed in double; the program's own means are float, and
   float are the innovations of the information form: a hundred roundings of theirs. */
static void check_regression(const struct cov_shape *shape) {
  const int64_t n = cov_numbers(shape);
  float *const mean = cov_zeros(shape);
  double *const prior = cov_prior(shape), *const b = dense_new(n), *const estimate = dense_new(n);
  double *const Lambda = dense_diagonal(n, prior), *const ridge = dense_new(n);
  kwm_cov cov = cov_new(shape, 1, 0);
  dense_invert(n, Lambda);
  for (int64_t step = 0; step < 400 / COV_SAMPLES; step++) regress(&cov, step, mean, estimate, Lambda, b);
  double *const P = cov_dense(&cov);
  dense_invert(n, Lambda);
  dense_multiply(n, 1, n, Lambda, b, ridge);
  assert_below(dense_error(n * n, P, Lambda), cov_either(shape, 1e-11, 2e-5));
  assert_below(dense_error(n, estimate, ridge), cov_either(shape, is_information(shape) ? 1e-6 : 1e-11, 2e-5));
  assert_below(dense_error_f32(n, mean, ridge), cov_either(shape, 1e-6, 2e-5));
  free(mean), free(prior), free(b), free(estimate), free(Lambda), free(ridge), free(P), kwm_cov_destroy(&cov);
}
EXACT_TEST(regression)

/* 12: Φ(t,0) = P_t P_0⁻¹ after 50 scalar updates: one sample, one output that is not zero. */
static void check_transitions(const struct cov_shape *shape) {
  const int64_t n = cov_numbers(shape);
  float *const mean = cov_zeros(shape);
  double *const prior = cov_prior(shape), *const Phi = dense_new(n * n), *const T = dense_new(n * n);
  kwm_cov cov = cov_new(shape, 1, 0);
  for (int64_t k = 0; k < n; k++) Phi[k * n + k] = 1;
  for (int64_t step = 0; step < 50; step++) {
    struct jac_case made = cov_mild_jac(shape, (uint64_t)(940 + step));
    const struct kwm_jac jac = kwm_jac_part(&made.jac, 0, 1);
    const int64_t width = cov_J_numbers(&jac) / COV_OUTPUTS;
    memset(made.J + width, 0, (size_t)(width * (COV_OUTPUTS - 1)) * sizeof *made.J);
    double *const K = cov_gain(&cov, &jac), *const H = jac_rows(&jac), *const IKH = dense_new(n * n);
    dense_multiply(n, n, COV_OUTPUTS, K, H, IKH);
    from_identity(n, -1, IKH);
    dense_multiply(n, n, n, IKH, Phi, T);
    memcpy(Phi, T, (size_t)(n * n) * sizeof *Phi);
    cov_measure(&cov, &jac, 1, mean);
    free(K), free(H), free(IKH), jac_drop(&made);
  }
  double *const P = cov_dense(&cov);
  for (int64_t k = 0; k < n * n; k++) P[k] /= prior[k % n];
  assert_below(dense_error(n * n, Phi, P), cov_either(shape, 1e-11, 1e-4));
  free(mean), free(prior), free(Phi), free(T), free(P), kwm_cov_destroy(&cov);
}
EXACT_TEST(transitions)

/* 16: R = 2.7e8: K ≈ P⁻Hᵀ. 17: R = 6e-11, half as many rows as parameters or fewer: HK ≈ I, in double; seen as
   HKH ≈ H, since one row is zero. */
static void check_noise_limits(const struct cov_shape *shape) {
  struct one loud = one_of(shape, COV_SAMPLES, 1.0f / 16384), quiet = one_of(shape, 1, 131072);
  const int64_t n = loud.n, m = COV_OUTPUTS;
  double *const K = dense_new(n * ROWS), *const HK = dense_new(m * m), *const HKH = dense_new(m * n);
  dense_multiply(n, ROWS, n, loud.before, loud.Ht, K);
  assert_below(dense_error(n * ROWS, loud.K, K), cov_either(shape, 1e-6, 1e-5));
  dense_multiply(m, m, n, quiet.H, quiet.K, HK);
  dense_multiply(m, n, m, HK, quiet.H, HKH);
  if (shape->real == KWM_REAL_DOUBLE) assert_below(dense_error(m * n, HKH, quiet.H), 1e-7);
  free(K), free(HK), free(HKH), one_drop(&loud), one_drop(&quiet);
}
EXACT_TEST(noise_limits)

/* xᵀ A x for A (n, n) */
static double quadratic(int64_t n, const double *A, const double *x) {
  double sum = 0;
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = 0; j < n; j++) sum += x[i] * A[i * n + j] * x[j];
  return sum;
}

/* 18: e = Hε, no noise: V⁺ = V⁻ - eᵀS⁻¹e for V = εᵀP⁻¹ε. ε of few bits, so that float holds e. */
static void check_lyapunov(const struct cov_shape *shape) {
  const int64_t n = cov_numbers(shape);
  float *const mean = cov_zeros(shape);
  kwm_cov cov = cov_mild(shape, mean);
  struct jac_case made = cov_mild_jac(shape, 850);
  double *const H = jac_rows(&made.jac), *const S = dense_new(ROWS * ROWS), *const error = dense_new(n), e[ROWS] = {0};
  double *const before = cov_dense(&cov), *const delta = dense_new(n);
  for (int64_t k = 0; k < n; k++) error[k] = round(4 * test_normal(851, k)) / 8;
  dense_multiply(ROWS, 1, n, H, error, e);
  dense_innovation_covariance(n, ROWS, before, H, S);
  cov_measure_f64(&cov, &made.jac, e, mean, delta);
  double *const after = cov_dense(&cov);
  dense_invert(n, before), dense_invert(n, after), dense_invert(ROWS, S);
  const double V = quadratic(n, before, error), drop = quadratic(ROWS, S, e);
  for (int64_t k = 0; k < n; k++) error[k] -= delta[k];
  assert_true(drop > 0.01 * V);
  assert_close(quadratic(n, after, error), V - drop, 0, cov_either(shape, 1e-12, 1e-5) * V);
  free(mean), free(H), free(S), free(error), free(before), free(delta), free(after);
  jac_drop(&made), kwm_cov_destroy(&cov);
}
EXACT_TEST(lyapunov)

static const struct CMUnitTest tests[] = {
    cov_unit_test(posterior),  cov_unit_test(transition),  cov_unit_test(residual),     cov_unit_test(order),
    cov_unit_test(regression), cov_unit_test(transitions), cov_unit_test(noise_limits), cov_unit_test(lyapunov),
};
KWM_TEST_MAIN(tests)
