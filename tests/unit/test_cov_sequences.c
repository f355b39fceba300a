/* Random sequences of time updates, measurements and steps that are given up, against a dense double filter that makes
   the same projection as the structure, by itself: none (block of a matrix, one unit, lowrank of full rank), or its
   diagonal blocks (units), or its diagonal in a basis (diag, kron). And what a projection costs against the exact
   filter. */
#include "cov_shapes.h"

/* The information form takes units sixteen at a time. */
#define ONE_UNIT .structure = "block", .form = KWM_FORM_INNOVATION, .count = 1, .params = 10
static const struct cov_shape known_shapes[] = {
    {ONE_UNIT, .real = KWM_REAL_DOUBLE},
    {ONE_UNIT, .real = KWM_REAL_FLOAT},
    COV_WAYS(.structure = "block", COV_UNITS),
    COV_WAYS(.structure = "block", COV_MATRIX),
    COV_WAYS(.structure = "diag", .count = 16, .params = 1),
    COV_WAYS(.structure = "diag", COV_UNITS),
    COV_WAYS(.structure = "diag", COV_MATRIX),
    COV_WAYS(.structure = "kron", COV_MATRIX),
    COV_WAYS(COV_LOWRANK(PRECISION, 48), COV_UNITS),
    COV_WAYS(COV_LOWRANK(PRECISION, 20), COV_MATRIX),
    COV_WAYS(COV_LOWRANK(SUBSPACE, 48), COV_UNITS),
    COV_WAYS(COV_LOWRANK(SUBSPACE, 15), COV_MATRIX),
    COV_WAYS(COV_LOWRANK(DIAGONAL, 48), COV_UNITS),
    COV_WAYS(COV_LOWRANK(DIAGONAL, 20), COV_MATRIX),
};
enum { KNOWN_SHAPES = sizeof known_shapes / sizeof known_shapes[0], RUN_STEPS = 60, DYNAMICS = 4 };
static const double dynamics[DYNAMICS][2] = {{1, 0}, {0.99, 0}, {1, 1e-3}, {0.99, 1e-3}};

static bool is_kron(const struct cov_shape *shape) {
  return strcmp(shape->structure, "kron") == 0;
}

static bool is_information(const struct cov_shape *shape) {
  return shape->form == KWM_FORM_INFORMATION;
}

/* The dense filter of one shape. */
struct reference {
  const struct cov_shape *shape;
  int64_t n, width; /* parameters; those of a block that is kept whole */
  double *P, *prior, *basis, *mean, *delta;
  float *anchor;
};

static struct reference reference_of(const struct cov_shape *shape) {
  const int64_t n = cov_numbers(shape), p = n / shape->count;
  const bool scalar = is_kron(shape) || strcmp(shape->structure, "diag") == 0;
  struct reference made = {.shape = shape, .n = n, .width = scalar ? 1 : cov_is_lowrank(shape) ? n : p};
  made.prior = cov_prior(shape);
  made.P = dense_diagonal(n, made.prior);
  made.basis = dense_new(n * n);
  made.mean = dense_new(n);
  made.delta = dense_new(n);
  made.anchor = cov_zeros(shape);
  for (int64_t k = 0; k < n; k++) made.basis[k * n + k] = 1;
  lowrank_anchor(n, made.anchor);
  return made;
}

static void reference_drop(struct reference *of) {
  free(of->P), free(of->prior), free(of->basis), free(of->mean), free(of->delta), free(of->anchor);
}

/* A (n, n) <- its diagonal blocks in the basis. */
static void project(const struct reference *of, double *A) {
  const int64_t n = of->n;
  double *const Et = dense_new(n * n), *const T = dense_new(n * n);
  if (is_kron(of->shape)) {
    dense_transpose(n, n, of->basis, Et);
    dense_multiply(n, n, n, Et, A, T);
    dense_multiply(n, n, n, T, of->basis, A);
  }
  dense_decouple(n, of->width, A);
  if (is_kron(of->shape)) {
    dense_multiply(n, n, n, of->basis, A, T);
    dense_multiply(n, n, n, T, Et, A);
  }
  free(Et), free(T);
}

/* Information form of kron: F is (sum JᵀJ) ⊗ (sum aᵀa)/samples, as far as it is diagonal in the basis. */
static void absorb_factors(struct reference *of, const struct kwm_jac *jac) {
  const int64_t n = of->n, i = jac->d_i;
  double *const F = dense_new(n * n), *const score = jac_dense_score(jac);
  for (int64_t k = 0; k < n * n; k++) {
    const int64_t row = k / n, col = k % n;
    double G = 0, A = 0;
    for (int64_t r = 0; r < jac->n * jac->m; r++)
      G += (double)jac->J[r * jac->d_o + row / i] * (double)jac->J[r * jac->d_o + col / i];
    for (int64_t s = 0; s < jac->n; s++) A += (double)jac->a[s * i + row % i] * (double)jac->a[s * i + col % i];
    F[k] = G * A / (double)jac->n;
  }
  project(of, F);
  dense_invert(n, of->P);
  for (int64_t k = 0; k < n * n; k++) of->P[k] += F[k];
  dense_invert(n, of->P);
  dense_multiply(n, 1, n, of->P, score, of->delta);
  free(F), free(score);
}

/* Information form: every block for itself, as if all the innovation were its own. */
static void absorb_blocks(struct reference *of, const double *H, const double *e) {
  const int64_t n = of->n, p = of->width;
  double *const part = dense_new(p * p), *const rows = dense_new(COV_ROWS * p);
  for (int64_t first = 0; first < n; first += p) {
    for (int64_t k = 0; k < p * p; k++) part[k] = of->P[(first + k / p) * n + first + k % p];
    for (int64_t k = 0; k < COV_ROWS * p; k++) rows[k] = H[k / p * n + first + k % p];
    dense_update(p, COV_ROWS, part, rows, e, of->delta + first);
    for (int64_t k = 0; k < p * p; k++) of->P[(first + k / p) * n + first + k % p] = part[k];
  }
  free(part), free(rows);
}

static void reference_measure(struct reference *of, const struct kwm_jac *jac) {
  double *const H = jac_rows(jac), *const e = jac_innovation(jac);
  if (!is_information(of->shape)) {
    dense_update(of->n, COV_ROWS, of->P, H, e, of->delta);
    project(of, of->P);
  } else if (is_kron(of->shape)) {
    absorb_factors(of, jac);
  } else {
    absorb_blocks(of, H, e);
  }
  for (int64_t k = 0; k < of->n; k++) of->mean[k] += of->delta[k];
  free(H), free(e);
}

/* The basis is what cov says; the precision is projected to it. */
static void reference_turn(struct reference *of, const kwm_cov *cov, int64_t step) {
  if (!is_kron(of->shape) || !(step == 1 || step == 5 || step == 10 || step == 20 || step == 40)) return;
  struct cov_state state = cov_state_of(cov);
  memcpy(of->basis, state.basis, (size_t)(of->n * of->n) * sizeof *of->basis);
  dense_invert(of->n, of->P);
  project(of, of->P);
  dense_invert(of->n, of->P);
  cov_state_drop(&state);
}

static struct jac_case few_bit_jac(const struct cov_shape *shape, uint64_t stream) {
  struct jac_case made = cov_jac(shape, stream);
  if (is_information(shape)) cov_few_bits(&made, 2);
  return made;
}

/* One of four: a whole step, one that is given up, a time update alone, a measurement alone. */
static void run_step(struct reference *of, kwm_cov *cov, int64_t step, int d, float *mean) {
  const int64_t what = (int64_t)kwm_rng_below(7, KWM_RNG_TEST, 700 + (uint64_t)d, (uint64_t)step, 4), n = of->n;
  struct jac_case made = few_bit_jac(of->shape, (uint64_t)(710 + 100 * d + step));
  struct cov_step prepared;
  double *const delta = dense_new(n);
  if (what != 3) {
    assert_true(kwm_cov_predict(cov, step, of->anchor, mean));
    dense_time(n, of->P, of->prior, dynamics[d][0], dynamics[d][1], of->anchor, of->mean);
    reference_turn(of, cov, step);
  }
  if (what != 2) {
    assert_true(cov_prepare(cov, &made.jac, &prepared));
    cov_step_drop(&prepared);
  }
  if (what == 0 || what == 3) {
    assert_true(cov_prepare(cov, &made.jac, &prepared));
    kwm_cov_delta(cov, delta);
    kwm_cov_apply(cov, 1, mean);
    reference_measure(of, &made.jac);
    assert_below(dense_error(n, delta, of->delta), cov_either(of->shape, 1e-10, 1e-4));
    cov_step_drop(&prepared);
  }
  free(delta), jac_drop(&made);
}

static void check_sequences(const struct cov_shape *shape) {
  for (int d = 0; d < DYNAMICS; d++) {
    struct reference of = reference_of(shape);
    kwm_cov cov = cov_new(shape, dynamics[d][0], dynamics[d][1]);
    float *const mean = cov_zeros(shape);
    for (int64_t step = 0; step < RUN_STEPS; step++) run_step(&of, &cov, step, d, mean);
    double *const P = cov_dense(&cov);
    assert_below(dense_error(of.n * of.n, P, of.P), cov_either(shape, 1e-10, 1e-4));
    /* Means are float: 60 roundings of theirs. */
    assert_below(dense_error_f32(of.n, mean, of.mean), cov_either(shape, 1e-6, 1e-4));
    free(P), free(mean), reference_drop(&of), kwm_cov_destroy(&cov);
  }
}

static void test_sequences(void **state) {
  (void)state;
  cov_each_of(known_shapes, KNOWN_SHAPES, check_sequences);
}

/* ---- what a projection costs */

enum { GAP_STEPS = 10 };
struct gap {
  double kl, gain, excess; /* KL(P̃ || P); |K̃ - K| / |K|; λ_min(P̃ - P) / |P| */
};

static double gain_error(int64_t n, const double *near, const double *exact, const struct kwm_jac *jac) {
  double *const H = jac_rows(jac), *const a = dense_gain(n, COV_ROWS, near, H),
                *const b = dense_gain(n, COV_ROWS, exact, H);
  const double error = dense_error(n * COV_ROWS, a, b);
  free(H), free(a), free(b);
  return error;
}

/* After some steps of both filters. */
static struct gap gap_of(const struct cov_shape *shape) {
  const int64_t n = cov_numbers(shape);
  double *const prior = cov_prior(shape), *const delta = dense_new(n), *const mean_exact = dense_new(n);
  float *const mean = cov_zeros(shape), *const anchor = cov_zeros(shape);
  kwm_cov cov = cov_new(shape, 0.99, 1e-3);
  double *const exact = dense_diagonal(n, prior);
  for (int64_t step = 0; step < GAP_STEPS; step++) {
    struct jac_case made = few_bit_jac(shape, (uint64_t)(1500 + step));
    assert_true(kwm_cov_predict(&cov, step, anchor, mean));
    dense_time(n, exact, prior, 0.99, 1e-3, anchor, mean_exact);
    cov_measure(&cov, &made.jac, 1, mean);
    dense_measure(n, exact, &made.jac, delta);
    jac_drop(&made);
  }
  struct jac_case next = cov_jac(shape, 1550);
  double *const near = cov_dense(&cov);
  struct gap gap = {.gain = gain_error(n, near, exact, &next.jac),
                    .excess = dense_excess(n, near, exact) / dense_trace(n, exact)};
  const bool singular = shape->kind == KWM_LOWRANK_SUBSPACE && shape->rank < n;
  gap.kl = singular ? 0 : dense_kl(n, near, exact);
  free(prior), free(delta), free(mean_exact), free(mean), free(anchor), free(exact), free(near);
  jac_drop(&next), kwm_cov_destroy(&cov);
  return gap;
}

static void check_gap(const struct cov_shape *shape) {
  const struct gap gap = gap_of(shape);
  assert_true(isfinite(gap.kl) && gap.kl >= -1e-9 && isfinite(gap.gain));
}
COV_TEST(gap)

/* The columns of a lower rank of form B are never surer than those of a higher, and never surer than the truth. */
static void check_ranks(const struct cov_shape *shape) {
  static const int64_t ranks[] = {1, 2, 4, 8, 16, 32, 48};
  double before = INFINITY;
  for (size_t k = 0; k < sizeof ranks / sizeof ranks[0]; k++) {
    struct cov_shape of = *shape;
    of.rank = ranks[k];
    const struct gap gap = gap_of(&of);
    assert_true(gap.kl < before);
    assert_true(gap.excess >= -cov_either(shape, 1e-12, 1e-5));
    before = gap.kl;
    if (k + 1 == sizeof ranks / sizeof ranks[0]) assert_below(gap.gain, cov_either(shape, 1e-10, 1e-4));
  }
  assert_below(before, cov_either(shape, 1e-9, 1e-6));
}

static void test_ranks(void **state) {
  static const struct cov_shape shapes[] = {COV_WAYS(COV_LOWRANK(PRECISION, 1), COV_UNITS)};
  (void)state;
  cov_each_of(shapes, sizeof shapes / sizeof shapes[0], check_ranks);
}

static const struct CMUnitTest tests[] = {
    cov_unit_test(sequences),
    cov_unit_test(gap),
    cov_unit_test(ranks),
};
KWM_TEST_MAIN(tests)
