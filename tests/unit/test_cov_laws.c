/* What every covariance structure owes to linear algebra: its spectrum, its step and the length of it, the pull towards
   the anchor; and that degenerate observations leave it positive definite. */
#include "cov_shapes.h"

/* Fewer parameters than a step has rows. */
#define FEW .count = 1, .d_o = 2, .d_i = 3
static const struct cov_shape few_shapes[] = {
    COV_WAYS(.structure = "block", FEW),      COV_WAYS(.structure = "kron", FEW),
    COV_WAYS(.structure = "diag", FEW),       COV_WAYS(COV_LOWRANK(PRECISION, 6), FEW),
    COV_WAYS(COV_LOWRANK(PRECISION, 2), FEW), COV_WAYS(COV_LOWRANK(COVARIANCE, 4), FEW),
    COV_WAYS(COV_LOWRANK(SUBSPACE, 6), FEW),  COV_WAYS(COV_LOWRANK(DIAGONAL, 6), FEW),
};
enum { FEW_SHAPES = sizeof few_shapes / sizeof few_shapes[0], ROUNDS = 5 };

static int ascending(const void *a, const void *b) {
  const double left = *(const double *)a, right = *(const double *)b;
  return (left > right) - (left < right);
}

/* values (width) <- eigenvalues of the width parameters from `first` on of A (n, n), ascending. */
static void part_spectrum(int64_t n, const double *A, int64_t first, int64_t width, double *values) {
  double *const part = dense_new(width * width), *const E = dense_new(width * width);
  for (int64_t i = 0; i < width; i++)
    for (int64_t j = 0; j < width; j++) part[i * width + j] = A[(first + i) * n + first + j];
  dense_eigenvectors(width, part, E);
  for (int64_t k = 0; k < width; k++) values[k] = part[k * width + k];
  qsort(values, (size_t)width, sizeof *values, ascending);
  free(part), free(E);
}

/* In each block ascending; of lowrank the columns', then that of all other directions. */
static void check_spectrum(const struct cov_shape *shape) {
  const int64_t n = cov_numbers(shape);
  float *const mean = cov_zeros(shape);
  kwm_cov cov = cov_ready(shape, 0.9, 0.1, mean);
  double *const P = cov_dense(&cov), *const prior = cov_prior(shape), *const wanted = dense_new(n);
  const int64_t length = kwm_cov_spectrum_length(&cov), width = cov_is_lowrank(shape) ? n : cov.spec.params;
  double *const found = dense_new(length + n);
  lowrank_scale(n, P, prior, -0.5);
  for (int64_t first = 0; first < n; first += width) part_spectrum(n, P, first, width, wanted + first);
  assert_true(kwm_cov_spectrum(&cov, found));
  if (cov_is_lowrank(shape)) {
    for (int64_t k = 1; k + 1 < length; k++) assert_true(found[k - 1] <= found[k]);
    for (int64_t k = length; k < n; k++) found[k] = found[length - 1];
    qsort(found, (size_t)n, sizeof *found, ascending);
  } else {
    assert_int_equal(length, n);
  }
  const double close = cov_either(shape, 1e-10, 2e-5);
  for (int64_t k = 0; k < n; k++) assert_close(found[k], wanted[k], close, close * wanted[k - k % width + width - 1]);
  free(mean), free(P), free(prior), free(wanted), free(found), kwm_cov_destroy(&cov);
}

/* S += H P Hᵀ, all of it. */
static void check_project(const struct cov_shape *shape) {
  const int64_t n = cov_numbers(shape), rows = COV_ROWS;
  float *const mean = cov_zeros(shape);
  kwm_cov cov = cov_ready(shape, 1, 0, mean);
  struct jac_case made = cov_jac(shape, 605);
  double *const P = cov_dense(&cov), *const H = jac_rows(&made.jac), *const wanted = dense_new(rows * rows);
  double *const S = dense_new(rows * rows);
  for (int64_t k = 0; k < rows * rows && shape->form == KWM_FORM_INNOVATION; k++) S[k] = test_normal(606, k);
  if (shape->form == KWM_FORM_INNOVATION) {
    kwm_cov_project(&cov, &made.jac, S);
    dense_innovation_covariance(n, rows, P, H, wanted);
    for (int64_t k = 0; k < rows * rows; k++) wanted[k] += test_normal(606, k) - (k % (rows + 1) == 0);
    assert_below(dense_error(rows * rows, S, wanted), cov_either(shape, 1e-12, 2e-6));
  }
  free(mean), free(P), free(H), free(wanted), free(S), jac_drop(&made), kwm_cov_destroy(&cov);
}

/* Information form: kl is δᵀFδ per sample with the F that the structure sees; lowrank: all blocks' together. kron sees
   another F, see test_cov_kron.c. */
static void check_change(const struct cov_shape *shape, const struct kwm_jac *jac, const double *delta,
                         const double *kl) {
  const bool scalar = strcmp(shape->structure, "diag") == 0, kron = strcmp(shape->structure, "kron") == 0;
  const int64_t n = cov_numbers(shape), width = scalar ? 1 : cov_is_lowrank(shape) ? n : n / shape->count;
  double *const F = jac_dense_fisher(jac), found = 0, wanted = 0;
  if (shape->form == KWM_FORM_INFORMATION && !kron) {
    dense_decouple(n, width, F);
    for (int64_t b = 0; b < shape->count; b++) found += kl[b];
    for (int64_t k = 0; k < n * n; k++) wanted += delta[k / n] * F[k] * delta[k % n] / (double)jac->n;
    assert_close(found, wanted, 1e-5, 0);
  }
  free(F);
}

/* delta is what apply adds, scaled; moved is its length in the prior's units. */
static void check_delta(const struct cov_shape *shape) {
  const int64_t n = cov_numbers(shape), p = n / shape->count;
  float *const mean = cov_zeros(shape);
  kwm_cov cov = cov_ready(shape, 1, 0, mean);
  struct jac_case made = cov_jac(shape, 610);
  struct cov_step step;
  double *const delta = dense_new(n), *const moved = dense_new(shape->count), *const prior = cov_prior(shape);
  assert_true(cov_prepare(&cov, &made.jac, &step));
  kwm_cov_delta(&cov, delta);
  kwm_cov_moved(&cov, moved);
  check_change(shape, &made.jac, delta, step.kl);
  for (int64_t b = 0; b < shape->count; b++) {
    double length = 0;
    for (int64_t k = b * p; k < (b + 1) * p; k++) length += delta[k] * delta[k] / prior[k];
    assert_true(length > 0);
    assert_close(moved[b], length, cov_either(shape, 1e-12, 1e-5), 0);
  }
  memset(mean, 0, (size_t)n * sizeof *mean);
  kwm_cov_apply(&cov, 0.7, mean);
  for (int64_t k = 0; k < n; k++) delta[k] *= 0.7;
  assert_below(dense_error_f32(n, mean, delta), 2e-6);
  free(mean), free(delta), free(moved), free(prior), cov_step_drop(&step), jac_drop(&made), kwm_cov_destroy(&cov);
}

/* mean += (1-λ) Λ'⁻¹ Λ0 (anchor - mean), with and without a new basis; P' = Λ'⁻¹ + q P0 in the old one. */
static void check_pull(const struct cov_shape *shape) {
  static const double dynamics[][2] = {{0.9, 0}, {0.3, 0.2}, {1, 0.2}};
  const int64_t n = cov_numbers(shape), steps[2] = {COV_WARM, COV_REFRESH};
  double *const prior = cov_prior(shape), *const wanted = dense_new(n);
  float *const anchor = cov_zeros(shape);
  lowrank_anchor(n, anchor);
  for (int c = 0; c < 6; c++) {
    float *const mean = cov_zeros(shape), *const start = cov_zeros(shape);
    kwm_cov cov = cov_ready(shape, dynamics[c / 2][0], dynamics[c / 2][1], mean);
    double *const P = cov_dense(&cov);
    memcpy(start, mean, (size_t)n * sizeof *mean);
    for (int64_t k = 0; k < n; k++) wanted[k] = (double)mean[k];
    dense_time(n, P, prior, dynamics[c / 2][0], dynamics[c / 2][1], anchor, wanted);
    assert_true(kwm_cov_predict(&cov, steps[c % 2], anchor, mean));
    double *const after = cov_dense(&cov);
    assert_below(dense_error_f32(n, mean, wanted), cov_either(shape, 1e-6, 2e-5));
    if (dynamics[c / 2][0] == 1) assert_memory_equal(mean, start, (size_t)n * sizeof *mean);
    if (c % 2 == 0) assert_below(dense_error(n * n, after, P), cov_accuracy(shape));
    free(P), free(after), free(mean), free(start), kwm_cov_destroy(&cov);
  }
  free(prior), free(wanted), free(anchor);
}

/* Finite, symmetric, positive definite. */
static bool is_covariance(int64_t n, const double *P) {
  double *const L = dense_copy(n * n, P);
  bool good = true;
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = 0; j < n; j++)
      good = good && fabs(P[i * n + j] - P[j * n + i]) <= 1e-10 * sqrt(P[i * n + i] * P[j * n + j]);
  for (int64_t j = 0; j < n && good; j++)
    for (int64_t i = j; i < n; i++) {
      double sum = L[i * n + j];
      for (int64_t l = 0; l < j; l++) sum -= L[i * n + l] * L[j * n + l];
      if (i == j) good = good && sum > 0;
      L[i * n + j] = i == j ? sqrt(sum) : sum / L[j * n + j];
    }
  free(L);
  return good;
}

enum { NOTHING, TWICE, TINY_NOISE, TWICE_TINY_NOISE, HUGE_NOISE, DEGENERATE };

/* The first row in place of all others. */
static void repeat_row(struct jac_case *made) {
  const struct kwm_jac *const jac = &made->jac;
  const bool units = jac->shape == KWM_JAC_UNITS;
  float *const input = units ? made->S : made->a;
  const int64_t width = cov_J_numbers(jac) / (jac->n * jac->m);
  const int64_t length = units ? jac->channels * jac->params * jac->count : jac->d_i;
  for (int64_t k = width; k < cov_J_numbers(jac); k++) made->J[k] = made->J[k - width];
  for (int64_t k = length; k < jac->n * length; k++) input[k] = input[k - length];
}

/* Few bits, so that the information form's float sums are exact: what it may refuse otherwise is their rounding. */
static struct jac_case degenerate(const struct cov_shape *shape, int which, uint64_t stream) {
  struct jac_case made = cov_jac(shape, stream);
  cov_few_bits(&made, 2);
  if (which == NOTHING) cov_scale_jac(&made, 0);
  if (which == TWICE || which == TWICE_TINY_NOISE) repeat_row(&made);
  if (which == TINY_NOISE || which == TWICE_TINY_NOISE) cov_scale_jac(&made, 8192);
  if (which == HUGE_NOISE) cov_scale_jac(&made, 1.0f / 8192);
  return made;
}

/* Rounds of it, with time updates between them or without. */
static void run_degenerate(const struct cov_shape *shape, int which, bool moves) {
  const int64_t n = cov_numbers(shape);
  float *const mean = cov_zeros(shape), *const anchor = cov_zeros(shape);
  kwm_cov cov = cov_ready(shape, moves ? 0.99 : 1, moves ? 1e-3 : 0, mean);
  for (int64_t round = 0; round < ROUNDS; round++) {
    struct jac_case made = degenerate(shape, which, (uint64_t)(620 + round));
    assert_true(kwm_cov_predict(&cov, round, anchor, mean));
    cov_measure(&cov, &made.jac, 1, mean);
    double *const P = cov_dense(&cov);
    assert_true(is_covariance(n, P));
    for (int64_t k = 0; k < n; k++) assert_true(isfinite(mean[k]));
    free(P), jac_drop(&made);
  }
  struct kwm_health health = {0};
  kwm_cov_health(&cov, &health);
  assert_true(health.trace > 0 && health.floor_hits >= 0 && isfinite(health.trace + health.floor_hits));
  assert_true(health.floor_hits == 0 || which == TINY_NOISE || which == TWICE_TINY_NOISE);
  free(mean), free(anchor), kwm_cov_destroy(&cov);
}

static void check_degenerate(const struct cov_shape *shape) {
  for (int which = 0; which < DEGENERATE; which++)
    run_degenerate(shape, which, false), run_degenerate(shape, which, true);
}

COV_TEST(spectrum)
COV_TEST(project)
COV_TEST(delta)
COV_TEST(pull)
COV_TEST(degenerate)

/* All of it with more rows than parameters. */
static void test_more_rows(void **state) {
  (void)state;
  cov_each_of(few_shapes, FEW_SHAPES, check_spectrum);
  cov_each_of(few_shapes, FEW_SHAPES, check_project);
  cov_each_of(few_shapes, FEW_SHAPES, check_delta);
  cov_each_of(few_shapes, FEW_SHAPES, check_pull);
  cov_each_of(few_shapes, FEW_SHAPES, check_degenerate);
}

static const struct CMUnitTest tests[] = {
    cov_unit_test(spectrum), cov_unit_test(project),    cov_unit_test(delta),
    cov_unit_test(pull),     cov_unit_test(degenerate), cov_unit_test(more_rows),
};
KWM_TEST_MAIN(tests)
