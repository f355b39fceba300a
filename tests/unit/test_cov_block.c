/* `block` against the dense textbook filter in random sequences of steps: many units and whole matrices, in both forms
   and both types. Each block alone in the information form, all blocks through one S in the innovation form
   (equations.md (140), invariant 33). Evidence is a float sum by contract: inputs of few bits make it exact. */
#include "cov_case.h"

enum { COUNT = 16, PARAMS = 3, STEPS = 6, ROWS = COV_SAMPLES * COV_OUTPUTS };
static const double LAMBDA = 0.95, NOISE = 0.02;

/* 3 x 5 is less than a panel of columns, 10 x 13 two and a part. */
#define SHAPES_OF(form_, real_)                                                                                        \
  {.structure = "block", .form = form_, .real = real_, .count = COUNT, .params = PARAMS},                              \
      {.structure = "block", .form = form_, .real = real_, .count = 1, .d_o = 3, .d_i = 5}, {                          \
    .structure = "block", .form = form_, .real = real_, .count = 1, .d_o = 10, .d_i = 13                               \
  }
static const struct cov_shape shapes[] = {
    SHAPES_OF(KWM_FORM_INFORMATION, KWM_REAL_DOUBLE),
    SHAPES_OF(KWM_FORM_INFORMATION, KWM_REAL_FLOAT),
    SHAPES_OF(KWM_FORM_INNOVATION, KWM_REAL_DOUBLE),
    SHAPES_OF(KWM_FORM_INNOVATION, KWM_REAL_FLOAT),
};
enum { SHAPES = sizeof shapes / sizeof shapes[0] };

static int64_t params_of(const struct cov_shape *shape) {
  return cov_is_matrix(shape) ? shape->d_o * shape->d_i : shape->params;
}

/* Steps in float add up their errors. */
static double close_of(const struct cov_shape *shape, int64_t steps) {
  return shape->real == KWM_REAL_FLOAT ? 2e-5 * (double)steps : 1e-10;
}

static void coarsen(float *array, int64_t n) {
  for (int64_t k = 0; k < n; k++) array[k] = fminf(fmaxf(roundf(8 * array[k]) / 8, -2), 2);
}

/* A step's rows in multiples of 1/8. */
static struct jac_case coarse_jac(const struct cov_shape *shape, uint64_t stream) {
  struct jac_case made = cov_jac(shape, stream);
  const struct kwm_jac *const jac = &made.jac;
  coarsen(made.e, jac->n * jac->m);
  if (cov_is_matrix(shape)) {
    coarsen(made.J, jac->n * jac->m * jac->d_o), coarsen(made.a, jac->n * jac->d_i);
  } else {
    coarsen(made.J, jac->n * jac->m * 2 * jac->count), coarsen(made.S, jac->n * 2 * jac->params * jac->count);
  }
  return made;
}

/* The textbook filter. */
struct reference {
  int64_t n, p;
  double *P, *prior, *mean, *delta;
};

static struct reference reference_new(const struct cov_shape *shape) {
  struct reference r = {.n = cov_numbers(shape), .p = params_of(shape), .prior = cov_prior(shape)};
  r.P = dense_new(r.n * r.n), r.mean = dense_new(r.n), r.delta = dense_new(r.n);
  for (int64_t k = 0; k < r.n; k++) r.P[k * r.n + k] = r.prior[k];
  return r;
}

static void reference_drop(struct reference *r) {
  free(r->P), free(r->prior), free(r->mean), free(r->delta);
}

/* mean += (1-λ) Λ'⁻¹ Λ0 (anchor - mean) between forgetting and noise. */
static void reference_predict(struct reference *r, const float *anchor, double lambda, double q) {
  dense_predict(r->n, r->P, r->prior, lambda, 0);
  double *const gap = dense_new(r->n);
  for (int64_t k = 0; k < r->n; k++) gap[k] = ((double)anchor[k] - r->mean[k]) / r->prior[k];
  for (int64_t i = 0; i < r->n; i++)
    for (int64_t k = 0; k < r->n; k++) r->mean[i] += (1 - lambda) * r->P[i * r->n + k] * gap[k];
  for (int64_t k = 0; k < r->n; k++) r->P[k * r->n + k] += q * r->prior[k];
  free(gap);
}

/* Information form: each block alone, blind to what the others see. */
static void reference_alone(struct reference *r, const double *H, const double *e) {
  const int64_t p = r->p;
  double *const own = dense_new(p * p), *const rows = dense_new(ROWS * p);
  for (int64_t first = 0; first < r->n; first += p) {
    for (int64_t k = 0; k < p * p; k++) own[k] = r->P[(first + k / p) * r->n + first + k % p];
    for (int64_t k = 0; k < ROWS * p; k++) rows[k] = H[k / p * r->n + first + k % p];
    dense_update(p, ROWS, own, rows, e, r->delta + first);
    for (int64_t k = 0; k < p * p; k++) r->P[(first + k / p) * r->n + first + k % p] = own[k];
  }
  free(own), free(rows);
}

static void reference_update(struct reference *r, const struct cov_shape *shape, const struct kwm_jac *jac,
                             double scale) {
  double *const H = jac_rows(jac), *const e = jac_innovation(jac);
  if (shape->form == KWM_FORM_INFORMATION) {
    reference_alone(r, H, e);
  } else {
    dense_update(r->n, ROWS, r->P, H, e, r->delta);
    dense_decouple(r->n, r->p, r->P);
  }
  for (int64_t k = 0; k < r->n; k++) r->mean[k] += scale * r->delta[k];
  free(H), free(e);
}

static float *floats(int64_t n) {
  float *const array = calloc((size_t)n, sizeof *array);
  assert_non_null(array);
  return array;
}

/* delta and moved of the step in hand. */
static void check_prepared(const kwm_cov *cov, const struct reference *r, double close) {
  double *const delta = dense_new(r->n), *const moved = dense_new(r->n / r->p), *const wanted = dense_new(r->n / r->p);
  kwm_cov_delta(cov, delta);
  kwm_cov_moved(cov, moved);
  for (int64_t k = 0; k < r->n; k++) wanted[k / r->p] += r->delta[k] * r->delta[k] / r->prior[k];
  assert_below(dense_error(r->n, delta, r->delta), close);
  assert_below(dense_error(r->n / r->p, moved, wanted), 2 * close);
  free(delta), free(moved), free(wanted);
}

static int ascending(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

/* Covariance, spectrum and health say what the checkpoint says. */
static void check_state(const kwm_cov *cov, const struct reference *r, double close) {
  const int64_t n = r->n, p = r->p;
  struct cov_state state = cov_state_of(cov);
  double *const P = dense_new(n * n), *const values = dense_new(n), *const own = dense_new(p * p);
  double *const vectors = dense_new(p * p), *const wanted = dense_new(n);
  struct kwm_health health = {0};
  assert_below(dense_error(n * n, state.P, r->P), close);
  assert_true(kwm_cov_covariance(cov, P) && kwm_cov_spectrum(cov, values));
  assert_int_equal(kwm_cov_spectrum_length(cov), n);
  assert_below(dense_error(n * n, P, state.P), 1e-11);
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = 0; j < n; j++) assert_true(P[i * n + j] == P[j * n + i]);
  for (int64_t first = 0; first < n; first += p) {
    for (int64_t k = 0; k < p * p; k++)
      own[k] = r->P[(first + k / p) * n + first + k % p] / sqrt(r->prior[first + k / p] * r->prior[first + k % p]);
    dense_eigenvectors(p, own, vectors);
    for (int64_t k = 0; k < p; k++) wanted[first + k] = own[k * p + k];
    qsort(wanted + first, (size_t)p, sizeof *wanted, ascending);
  }
  assert_below(dense_error(n, values, wanted), close);
  kwm_cov_health(cov, &health);
  assert_close(health.trace, dense_trace(n, r->P), close, 0);
  free(P), free(values), free(own), free(vectors), free(wanted), cov_state_drop(&state);
}

/* predict or not, a step given up or not, a step taken: in an order drawn at random. */
static void check_sequence(const struct cov_shape *shape, double lambda, double q) {
  kwm_cov cov = cov_new(shape, lambda, q);
  struct reference r = reference_new(shape);
  float *const mean = floats(r.n), *const anchor = normal_floats(r.n, 99);
  for (int64_t step = 0; step < STEPS; step++) {
    const uint64_t stream = (uint64_t)(700 + step);
    struct jac_case made = coarse_jac(shape, stream), other = coarse_jac(shape, stream + 50);
    struct cov_step given_up, taken;
    if (test_normal(98, step) > -0.5) {
      reference_predict(&r, anchor, lambda, q);
      assert_true(kwm_cov_predict(&cov, step, anchor, mean));
    }
    if (test_normal(97, step) > 0) {
      assert_true(cov_prepare(&cov, &other.jac, &given_up));
      cov_step_drop(&given_up);
    }
    const double scale = step % 2 == 0 ? 1 : 0.7, close = close_of(shape, step + 1);
    reference_update(&r, shape, &made.jac, scale);
    assert_true(cov_prepare(&cov, &made.jac, &taken));
    check_prepared(&cov, &r, close);
    kwm_cov_apply(&cov, scale, mean);
    cov_step_drop(&taken), jac_drop(&made), jac_drop(&other);
    assert_below(dense_error_f32(r.n, mean, r.mean), 1e-6 + close);
    if (step == STEPS - 1 || (step == 1 && r.p < 100)) check_state(&cov, &r, close);
  }
  free(mean), free(anchor), reference_drop(&r), kwm_cov_destroy(&cov);
}

static void test_sequences(void **state) {
  (void)state;
  for (int s = 0; s < SHAPES; s++) check_sequence(&shapes[s], LAMBDA, NOISE);
}

static void test_plain_sequences(void **state) {
  (void)state;
  for (int s = 0; s < SHAPES; s++) check_sequence(&shapes[s], 1, 0);
}

static void test_noisy_sequences(void **state) {
  (void)state;
  for (int s = 0; s < SHAPES; s++) check_sequence(&shapes[s], 1, NOISE);
}

static void test_forgetful_sequences(void **state) {
  (void)state;
  for (int s = 0; s < SHAPES; s++) check_sequence(&shapes[s], LAMBDA, 0);
}

/* The float's rounding of inputs of any bits: one step of the information form. */
static void test_float_evidence(void **state) {
  (void)state;
  for (int s = 0; s < SHAPES; s++) {
    kwm_cov cov = cov_new(&shapes[s], 1, 0);
    struct reference r = reference_new(&shapes[s]);
    struct jac_case made = cov_jac(&shapes[s], 600);
    float *const mean = floats(r.n);
    reference_update(&r, &shapes[s], &made.jac, 1);
    cov_measure(&cov, &made.jac, 1, mean);
    check_state(&cov, &r, 2e-5);
    assert_below(dense_error_f32(r.n, mean, r.mean), 2e-5);
    free(mean), jac_drop(&made), reference_drop(&r), kwm_cov_destroy(&cov);
  }
}

/* kl of a block is δᵀFδ over the samples, with its own F and δ. */
static void test_kl(void **state) {
  (void)state;
  for (int s = 0; s < SHAPES; s++) {
    if (shapes[s].form == KWM_FORM_INNOVATION) continue;
    kwm_cov cov = cov_new(&shapes[s], 1, 0);
    struct jac_case made = cov_jac(&shapes[s], 610);
    const int64_t n = cov_numbers(&shapes[s]), p = params_of(&shapes[s]);
    double *const delta = dense_new(n), *const F = jac_dense_fisher(&made.jac);
    struct cov_step step;
    assert_true(cov_prepare(&cov, &made.jac, &step));
    kwm_cov_delta(&cov, delta);
    for (int64_t first = 0; first < n; first += p) {
      double kl = 0;
      for (int64_t i = first; i < first + p; i++)
        for (int64_t j = first; j < first + p; j++) kl += delta[i] * F[i * n + j] * delta[j] / COV_SAMPLES;
      assert_close(step.kl[first / p], kl, 2e-5, 0);
    }
    free(F), free(delta), cov_step_drop(&step), jac_drop(&made), kwm_cov_destroy(&cov);
  }
}

/* One block that sees the data, the others blind: both forms are the same filter (identities I1, I2). */
static void test_forms_agree(void **state) {
  (void)state;
  const struct cov_shape *const pair[2] = {&shapes[0], &shapes[6]};
  enum { WIDTH = COUNT * PARAMS };
  kwm_cov cov[2] = {cov_new(pair[0], LAMBDA, NOISE), cov_new(pair[1], LAMBDA, NOISE)};
  float mean[2][WIDTH] = {{0}, {0}};
  const float anchor[WIDTH] = {0};
  assert_true(pair[0]->form != pair[1]->form && pair[0]->count == COUNT && pair[1]->count == COUNT);
  for (int64_t step = 0; step < STEPS; step++) {
    struct jac_case made = coarse_jac(pair[0], (uint64_t)(630 + step));
    for (int64_t k = 0; k < COV_SAMPLES * COV_OUTPUTS * 2 * COUNT; k++)
      if (k % COUNT != 5) made.J[k] = 0;
    for (int f = 0; f < 2; f++) {
      assert_true(kwm_cov_predict(&cov[f], step, anchor, mean[f]));
      cov_measure(&cov[f], &made.jac, 1, mean[f]);
    }
    struct cov_state a = cov_state_of(&cov[0]), b = cov_state_of(&cov[1]);
    for (int64_t k = 0; k < WIDTH; k++) assert_close((double)mean[0][k], (double)mean[1][k], 1e-5, 1e-7);
    assert_below(dense_error(WIDTH * WIDTH, b.P, a.P), 1e-10);
    assert_true(fabsf(mean[0][5 * PARAMS]) > 0.01f && mean[0][0] == 0 && mean[1][0] == 0);
    jac_drop(&made), cov_state_drop(&a), cov_state_drop(&b);
  }
  kwm_cov_destroy(&cov[0]), kwm_cov_destroy(&cov[1]);
}

/* A look at the state between preparing and applying takes nothing from the step. */
static void test_look_between(void **state) {
  (void)state;
  for (int s = 0; s < SHAPES; s++) {
    const int64_t n = cov_numbers(&shapes[s]);
    kwm_cov cov = cov_new(&shapes[s], 1, 0), twin = cov_new(&shapes[s], 1, 0);
    struct jac_case made = cov_jac(&shapes[s], 640);
    struct cov_step step;
    float *const mean = floats(n), *const same = floats(n);
    double *const values = dense_new(n);
    struct kwm_health health = {0};
    assert_true(cov_prepare(&cov, &made.jac, &step));
    assert_true(kwm_cov_spectrum(&cov, values));
    kwm_cov_health(&cov, &health);
    kwm_cov_apply(&cov, 1, mean);
    cov_measure(&twin, &made.jac, 1, same);
    struct cov_state a = cov_state_of(&cov), b = cov_state_of(&twin);
    assert_true(cov_same_state(&a, &b));
    assert_memory_equal(mean, same, (size_t)n * sizeof *mean);
    free(values), free(mean), free(same), cov_step_drop(&step), jac_drop(&made);
    cov_state_drop(&a), cov_state_drop(&b), kwm_cov_destroy(&cov), kwm_cov_destroy(&twin);
  }
}

/* More parameters than LAPACK counts: refused with a line, before memory is asked for. */
static void test_too_large(void **state) {
  (void)state;
  const struct cov_shape large = {
      .structure = "block", .form = KWM_FORM_INNOVATION, .count = 1, .d_o = 200, .d_i = 200};
  const struct kwm_cov_spec spec = cov_spec_of(&large, 1, 0);
  kwm_cov cov;
  const size_t before = kwm_mem_bytes();
  assert_int_equal(kwm_cov_create(&cov, &kwm_cov_block, &spec), KWM_ERR_USAGE);
  assert_non_null(strstr(kwm_error_message(), "40000"));
  assert_non_null(strstr(kwm_error_message(), "group"));
  kwm_cov_destroy(&cov);
  assert_int_equal(kwm_mem_bytes(), before);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_sequences),       cmocka_unit_test(test_plain_sequences),
    cmocka_unit_test(test_noisy_sequences), cmocka_unit_test(test_forgetful_sequences),
    cmocka_unit_test(test_float_evidence),  cmocka_unit_test(test_kl),
    cmocka_unit_test(test_forms_agree),     cmocka_unit_test(test_look_between),
    cmocka_unit_test(test_too_large),
};
KWM_TEST_MAIN(tests)
