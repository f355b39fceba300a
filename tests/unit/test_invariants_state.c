/* The filter's identities, continued (equations.md part 5): what a projected covariance does to the gain, the diagonal
   filter's bounds, forgetting, units of measurement, and steps that must not change a bit. */
#include "cov_shapes.h"

enum { ROWS = COV_ROWS };

/* Projections, in the innovation form, where the gain is that of the structure's own P under its own S. */
#define NEAR(...)                                                                                                      \
  {.form = KWM_FORM_INNOVATION, .real = KWM_REAL_DOUBLE, __VA_ARGS__}, {                                               \
    .form = KWM_FORM_INNOVATION, .real = KWM_REAL_FLOAT, __VA_ARGS__                                                   \
  }
#define TEN_UNITS .count = 10, .params = 3
static const struct cov_shape near_shapes[] = {
    NEAR(.structure = "block", TEN_UNITS),      NEAR(.structure = "diag", TEN_UNITS),
    NEAR(.structure = "diag", COV_MATRIX),      NEAR(.structure = "kron", COV_MATRIX),
    NEAR(COV_LOWRANK(PRECISION, 4), TEN_UNITS), NEAR(COV_LOWRANK(COVARIANCE, 4), TEN_UNITS),
    NEAR(COV_LOWRANK(SUBSPACE, 4), TEN_UNITS),  NEAR(COV_LOWRANK(PRECISION, 4), COV_MATRIX),
    NEAR(COV_LOWRANK(DIAGONAL, 4), TEN_UNITS),  NEAR(COV_LOWRANK(DIAGONAL, 4), COV_MATRIX),
};
enum { NEAR_SHAPES = sizeof near_shapes / sizeof near_shapes[0] };

/* |A|₂ of a symmetric A (n, n), and its smallest eigenvalue. */
static double largest(int64_t n, const double *A, double *smallest) {
  double *const values = dense_new(n), *const E = dense_new(n * n);
  dense_spectrum(n, A, values, E);
  const double norm = fmax(fabs(values[0]), fabs(values[n - 1]));
  *smallest = values[n - 1];
  free(values), free(E);
  return norm;
}

/* |A|₂ of A (m, n) */
static double norm_of(int64_t m, int64_t n, const double *A) {
  double *const At = dense_new(m * n), *const AAt = dense_new(m * m), none;
  dense_transpose(m, n, A, At);
  dense_multiply(m, m, n, A, At, AAt);
  const double squared = largest(m, AAt, &none);
  free(At), free(AAt);
  return sqrt(squared);
}

/* L_K = |H| min(√κ(P), 1 + |P||H|²) for R = I. */
static double gain_bound(int64_t n, const double *P, const double *H) {
  double low;
  const double high = largest(n, P, &low), size = norm_of(ROWS, n, H);
  return size * fmin(sqrt(high / low), 1 + high * size * size);
}

/* (I - KH)(P̃ - P)HᵀS̃⁻¹ */
static double *gain_map(int64_t n, const double *K, const double *H, const double *apart, const double *near) {
  double *const S = dense_new(ROWS * ROWS), *const HtS = dense_new(n * ROWS), *const Ht = dense_new(n * ROWS);
  double *const moved = dense_new(n * ROWS), *const seen = dense_new(ROWS * ROWS), *const map = dense_new(n * ROWS);
  dense_innovation_covariance(n, ROWS, near, H, S);
  dense_invert(ROWS, S);
  dense_transpose(ROWS, n, H, Ht);
  dense_multiply(n, ROWS, ROWS, Ht, S, HtS);
  dense_multiply(n, ROWS, n, apart, HtS, moved);
  dense_multiply(ROWS, ROWS, n, H, moved, seen);
  dense_multiply(n, ROWS, ROWS, K, seen, map);
  for (int64_t k = 0; k < n * ROWS; k++) map[k] = moved[k] - map[k];
  free(S), free(HtS), free(Ht), free(moved), free(seen);
  return map;
}

/* 20: K̃ - K = (I - KH)(P̃ - P)HᵀS̃⁻¹, and |K̃ - K| <= L_K |P̃ - P|. */
static void check_gain_map(const struct cov_shape *shape) {
  const int64_t n = cov_numbers(shape);
  float *const mean = cov_zeros(shape);
  double *const prior = cov_prior(shape), *const exact = dense_diagonal(n, prior), *const delta = dense_new(n), none;
  kwm_cov cov = cov_ready(shape, 1, 0, mean);
  for (int64_t step = 0; step < 2; step++) {
    struct jac_case seen = cov_mild_jac(shape, (uint64_t)(860 + step));
    cov_measure(&cov, &seen.jac, 1, mean);
    dense_measure(n, exact, &seen.jac, delta);
    jac_drop(&seen);
  }
  struct jac_case made = cov_mild_jac(shape, 865);
  double *const H = jac_rows(&made.jac), *const near = cov_dense(&cov), *const K = dense_gain(n, ROWS, exact, H);
  double *const apart = dense_copy(n * n, near), *const found = cov_gain(&cov, &made.jac);
  for (int64_t k = 0; k < n * n; k++) apart[k] -= exact[k];
  for (int64_t k = 0; k < n * ROWS; k++) found[k] -= K[k];
  double *const map = gain_map(n, K, H, apart, near);
  assert_below(dense_error(n * ROWS, found, map), cov_either(shape, 1e-12, 2e-5));
  assert_true(norm_of(n, ROWS, found) <= gain_bound(n, exact, H) * largest(n, apart, &none));
  free(mean), free(prior), free(exact), free(delta), free(H), free(near), free(K), free(apart), free(found), free(map);
  jac_drop(&made), kwm_cov_destroy(&cov);
}

static void test_gain_map(void **state) {
  (void)state;
  cov_each_of(near_shapes, NEAR_SHAPES, check_gain_map);
}

/* Nothing is seen of parameter 0 of every unit, of column 0 of a matrix. */
static void hide_first(struct jac_case *made) {
  const struct kwm_jac *const jac = &made->jac;
  for (int64_t s = 0; s < jac->n && jac->shape == KWM_JAC_OUTER; s++) made->a[s * jac->d_i] = 0;
  if (jac->shape == KWM_JAC_OUTER) return;
  for (int64_t s = 0; s < jac->n * jac->channels; s++)
    memset(made->S + s * jac->params * jac->count, 0, (size_t)jac->count * sizeof *made->S);
}

/* 22: 0 < p⁺ <= p⁻, without information p⁺ = p⁻ to the last bit; information form: p⁺ <= 1/f too (with one S for all
   parameters, others take their share of what is seen). */
static void check_diagonal(const struct cov_shape *shape) {
  const int64_t n = cov_numbers(shape), inner = shape->d_o > 0 ? shape->d_i : shape->params;
  const double ulp = cov_either(shape, 0, 1.2e-7) + 4e-16;
  float *const mean = cov_zeros(shape);
  kwm_cov cov = cov_warm(shape, 1, 0, mean);
  struct jac_case made = cov_mild_jac(shape, 870);
  hide_first(&made);
  double *const before = cov_dense(&cov), *const F = jac_dense_fisher(&made.jac);
  cov_measure(&cov, &made.jac, 1, mean);
  double *const after = cov_dense(&cov);
  for (int64_t k = 0; k < n; k++) {
    const double p = after[k * n + k], f = F[k * n + k];
    assert_true(p > 0 && (k % inner == 0 ? p == before[k * n + k] : p < before[k * n + k]));
    assert_true((f == 0) == (k % inner == 0));
    if (shape->form == KWM_FORM_INFORMATION) assert_true(p * f <= 1 + ulp);
  }
  free(mean), free(before), free(F), free(after), jac_drop(&made), kwm_cov_destroy(&cov);
}

static void test_diagonal(void **state) {
  static const struct cov_shape shapes[] = {COV_WAYS(.structure = "diag", COV_UNITS),
                                            COV_WAYS(.structure = "diag", COV_MATRIX)};
  (void)state;
  cov_each_of(shapes, sizeof shapes / sizeof shapes[0], check_diagonal);
}

/* 33: units under one S keep the diagonal blocks of the dense posterior. */
static void check_blocks(const struct cov_shape *shape) {
  const int64_t n = cov_numbers(shape);
  float *const mean = cov_zeros(shape);
  kwm_cov cov = cov_mild(shape, mean);
  struct jac_case made = cov_mild_jac(shape, 875);
  double *const P = cov_dense(&cov), *const delta = dense_new(n), *const found = dense_new(n);
  double *const e = jac_innovation(&made.jac);
  dense_measure(n, P, &made.jac, delta);
  dense_decouple(n, shape->params, P);
  cov_measure_f64(&cov, &made.jac, e, mean, found);
  double *const after = cov_dense(&cov);
  assert_below(dense_error(n * n, after, P), cov_either(shape, 1e-13, 1e-5));
  assert_below(dense_error(n, found, delta), cov_either(shape, 1e-12, 1e-5));
  free(mean), free(P), free(delta), free(found), free(e), free(after), jac_drop(&made), kwm_cov_destroy(&cov);
}

static void test_blocks(void **state) {
  static const struct cov_shape shapes[] = {NEAR(.structure = "block", TEN_UNITS)};
  (void)state;
  cov_each_of(shapes, sizeof shapes / sizeof shapes[0], check_blocks);
}

/* 38, first half: λ = 1 is a no-op to the last bit; λ -> 0 gives the anchor. */
static void check_forgetting(const struct cov_shape *shape) {
  const int64_t n = cov_numbers(shape);
  for (int c = 0; c < 2; c++) {
    float *const mean = cov_zeros(shape), *const anchor = cov_zeros(shape);
    kwm_cov cov = cov_new(shape, c == 0 ? 1 : 1e-15, 0);
    struct jac_case made = cov_mild_jac(shape, 880);
    double *const prior = cov_prior(shape), *const P0 = dense_diagonal(n, prior);
    lowrank_anchor(n, anchor);
    cov_measure(&cov, &made.jac, 1, mean);
    float *const keep = cov_zeros(shape);
    memcpy(keep, mean, (size_t)n * sizeof *mean);
    double *const before = cov_dense(&cov);
    assert_true(kwm_cov_predict(&cov, 2, anchor, mean));
    double *const after = cov_dense(&cov);
    if (c == 0) {
      assert_memory_equal(mean, keep, (size_t)n * sizeof *mean);
      assert_memory_equal(after, before, (size_t)(n * n) * sizeof *after);
    } else {
      assert_below(dense_error(n * n, after, P0), cov_either(shape, 1e-12, 1e-5));
      for (int64_t k = 0; k < n; k++) assert_close((double)mean[k], (double)anchor[k], 1e-6, 1e-6);
    }
    free(mean), free(anchor), free(prior), free(P0), free(keep), free(before), free(after);
    jac_drop(&made), kwm_cov_destroy(&cov);
  }
}
EXACT_TEST(forgetting)

/* 38, second half: with the same information every step Λ⁺ -> Λ0 + F/(1-λ), and P ⪯ Λ0⁻¹/(1-λ) all the way (P ⪯ Λ0⁻¹
   is what holds). */
static void check_fixed_point(const struct cov_shape *shape) {
  const int64_t n = cov_numbers(shape);
  const double lambda = 0.9;
  float *const mean = cov_zeros(shape), *const anchor = cov_zeros(shape);
  kwm_cov cov = cov_new(shape, lambda, 0);
  struct jac_case made = cov_mild_jac(shape, 885);
  double *const prior = cov_prior(shape), *const P0 = dense_diagonal(n, prior), *const wanted = dense_copy(n * n, P0);
  double *const F = jac_dense_fisher(&made.jac);
  dense_invert(n, wanted);
  for (int64_t k = 0; k < n * n; k++) wanted[k] += F[k] / (1 - lambda);
  dense_invert(n, wanted);
  for (int64_t step = 0; step < 300; step++) {
    assert_true(kwm_cov_predict(&cov, 2, anchor, mean));
    cov_measure(&cov, &made.jac, 1, mean);
    if (step % 100 != 0) continue;
    double *const now = cov_dense(&cov);
    assert_below(-dense_excess(n, P0, now), cov_either(shape, 1e-12, 1e-5));
    free(now);
  }
  double *const P = cov_dense(&cov);
  assert_below(dense_error(n * n, P, wanted), cov_either(shape, 1e-12, 1e-5));
  free(mean), free(anchor), free(prior), free(P0), free(wanted), free(F), free(P);
  jac_drop(&made), kwm_cov_destroy(&cov);
}
EXACT_TEST(fixed_point)

/* Parameter k in other units: a power of two, so that floats scale exactly; one for all of a matrix. */
static double unit_of(const struct cov_shape *shape, int64_t k) {
  return cov_is_matrix(shape) ? 4 : ldexp(1, (int)(k % 3) - 1);
}

static kwm_cov rescaled(const struct cov_shape *shape) {
  double variance[COV_PARAMS_MAX];
  struct kwm_cov_spec spec = cov_spec_of(shape, 1, 0);
  kwm_cov cov;
  for (int64_t k = 0; k < COV_PARAMS_MAX; k++) {
    const double unit = unit_of(shape, k);
    variance[k] = cov_prior_variance[k] * unit * unit;
  }
  if (cov_is_matrix(shape))
    spec.prior_precision /= unit_of(shape, 0) * unit_of(shape, 0);
  else
    spec.prior_variance = variance;
  assert_ok(kwm_cov_create(&cov, kwm_cov_find(shape->structure), &spec));
  return cov;
}

/* H <- H D⁻¹ */
static void rescale_jac(const struct cov_shape *shape, struct jac_case *made) {
  const struct kwm_jac *const jac = &made->jac;
  for (int64_t k = 0; cov_is_matrix(shape) && k < jac->n * jac->d_i; k++) made->a[k] /= (float)unit_of(shape, 0);
  for (int64_t k = 0; !cov_is_matrix(shape) && k < jac->n * jac->channels * jac->params * jac->count; k++)
    made->S[k] /= (float)unit_of(shape, k / jac->count % jac->params);
}

/* 49: θ -> Dθ, H -> HD⁻¹, P0 -> DP0Dᵀ gives δ -> Dδ and P -> DPDᵀ. (Its other half, y -> cy with R -> c²R, is not to be
   seen in whitened rows.) */
static void check_units(const struct cov_shape *shape) {
  const int64_t n = cov_numbers(shape), p = n / shape->count;
  float *const mean = cov_zeros(shape);
  kwm_cov cov = cov_new(shape, 1, 0), other = rescaled(shape);
  double *const delta = dense_new(n), *const delta_other = dense_new(n);
  for (int64_t step = 0; step < 3; step++) {
    struct jac_case made = cov_mild_jac(shape, (uint64_t)(890 + step)),
                    same = cov_mild_jac(shape, (uint64_t)(890 + step));
    rescale_jac(shape, &same);
    lowrank_measure(&cov, &made.jac, mean, delta);
    lowrank_measure(&other, &same.jac, mean, delta_other);
    for (int64_t k = 0; k < n; k++) delta[k] *= unit_of(shape, k % p);
    assert_below(dense_error(n, delta_other, delta), cov_either(shape, 1e-12, 2e-5));
    jac_drop(&made), jac_drop(&same);
  }
  double *const P = cov_dense(&cov), *const P_other = cov_dense(&other);
  for (int64_t k = 0; k < n * n; k++) P[k] *= unit_of(shape, k / n % p) * unit_of(shape, k % n % p);
  assert_below(dense_error(n * n, P_other, P), cov_either(shape, 1e-12, 2e-5));
  free(mean), free(delta), free(delta_other), free(P), free(P_other), kwm_cov_destroy(&cov), kwm_cov_destroy(&other);
}
EXACT_TEST(units)

/* 50: e = 0: the mean stays to the last bit, and P shrinks; H = 0: both stay to the last bit. */
static void check_nothing(const struct cov_shape *shape) {
  const int64_t n = cov_numbers(shape);
  float *const mean = cov_zeros(shape), *const keep = cov_zeros(shape);
  kwm_cov cov = cov_mild(shape, mean);
  struct jac_case made = cov_mild_jac(shape, 895);
  memcpy(keep, mean, (size_t)n * sizeof *mean);
  double *const before = cov_dense(&cov);
  memset(made.e, 0, ROWS * sizeof *made.e);
  cov_measure(&cov, &made.jac, 1, mean);
  double *const after = cov_dense(&cov);
  assert_memory_equal(mean, keep, (size_t)n * sizeof *mean);
  assert_true(dense_trace(n, after) < 0.99 * dense_trace(n, before));
  cov_scale_jac(&made, 0);
  for (int64_t k = 0; k < ROWS; k++) made.e[k] = 1;
  cov_measure(&cov, &made.jac, 1, mean);
  double *const still = cov_dense(&cov);
  assert_memory_equal(mean, keep, (size_t)n * sizeof *mean);
  assert_memory_equal(still, after, (size_t)(n * n) * sizeof *after);
  free(mean), free(keep), free(before), free(after), free(still), jac_drop(&made), kwm_cov_destroy(&cov);
}
EXACT_TEST(nothing)

/* Some whole steps. */
static void walk(kwm_cov *cov, const struct cov_shape *shape, int64_t from, int64_t to, float *mean) {
  float *const anchor = cov_zeros(shape);
  lowrank_anchor(cov_numbers(shape), anchor);
  for (int64_t step = from; step < to; step++) {
    struct jac_case made = cov_jac(shape, (uint64_t)(900 + step));
    assert_true(kwm_cov_predict(cov, step, anchor, mean));
    cov_measure(cov, &made.jac, 1, mean);
    jac_drop(&made);
  }
  free(anchor);
}

/* 51: the same again gives the same bits, and so does a walk that is saved and loaded on its way. */
static void check_determinism(const struct cov_shape *shape) {
  const int64_t n = cov_numbers(shape);
  float *const mean[3] = {cov_zeros(shape), cov_zeros(shape), cov_zeros(shape)};
  double *P[3];
  for (int c = 0; c < 3; c++) {
    kwm_cov cov = cov_new(shape, 0.99, 1e-3);
    walk(&cov, shape, 0, 4, mean[c]);
    if (c == 2) {
      struct cov_file file;
      cov_write(&cov, &file);
      kwm_cov_destroy(&cov);
      cov = cov_new(shape, 0.99, 1e-3);
      assert_ok(kwm_cov_load(&cov, file.ckpt));
      cov_file_drop(&file);
    }
    walk(&cov, shape, 4, 8, mean[c]);
    P[c] = cov_dense(&cov);
    assert_memory_equal(mean[c], mean[0], (size_t)n * sizeof *mean[0]);
    assert_memory_equal(P[c], P[0], (size_t)(n * n) * sizeof *P[0]);
    kwm_cov_destroy(&cov);
  }
  for (int c = 0; c < 3; c++) free(mean[c]), free(P[c]);
}
COV_TEST(determinism)

static const struct CMUnitTest tests[] = {
    cov_unit_test(gain_map),    cov_unit_test(diagonal), cov_unit_test(blocks),  cov_unit_test(forgetting),
    cov_unit_test(fixed_point), cov_unit_test(units),    cov_unit_test(nothing), cov_unit_test(determinism),
};
KWM_TEST_MAIN(tests)
