/* A device's blocks of units in double precision: steps, evidence, time update and trace, block by block against
   textbook algebra; a block that is not positive definite is seen. */
#include "device_case.h"

#include "kwm/lin.h"

static const double CLOSE = 1e-9;

/* count blocks of order p with evidence, a prior and means. */
struct block_case {
  int64_t count, p;
  double *M, *prior; /* (count, p, p), (p) */
  float *evidence;   /* (packed(p) + p, count) */
  float *mean, *anchor;
};

/* C (p, p) += A Aᵀ for A (p, p + 3) of normal numbers. */
static void add_square(int64_t p, uint64_t stream, double *C) {
  const int64_t width = p + 3;
  for (int64_t k = 0; k < p; k++)
    for (int64_t l = 0; l <= k; l++) {
      double sum = 0;
      for (int64_t j = 0; j < width; j++)
        sum += test_normal(stream, k * width + j) * test_normal(stream, l * width + j);
      C[k * p + l] += sum;
      if (l < k) C[l * p + k] += sum;
    }
}

static struct block_case make_block(struct device_case *c, const int64_t *size) {
  const int64_t count = size[0], p = size[1];
  struct block_case made = {.count = count, .p = p, .M = case_host(c, count * p * p, sizeof(double))};
  made.prior = case_wide(c, p, case_positive(c, p, 1));
  made.evidence = case_normals(c, (kwm_packed(p) + p) * count, 2, 1);
  made.mean = case_normals(c, count * p, 3, 1);
  made.anchor = case_normals(c, count * p, 4, 1);
  double *const F = case_host(c, p * p, sizeof *F);
  for (int64_t b = 0; b < count; b++) {
    add_square(p, 1000 + (uint64_t)b, made.M + b * p * p);
    memset(F, 0, (size_t)(p * p) * sizeof *F);
    add_square(p, 5000 + (uint64_t)b, F);
    for (int64_t k = 0, index = 0; k < p; k++)
      for (int64_t l = k; l < p; l++, index++) made.evidence[index * count + b] = (float)F[k * p + l];
  }
  return made;
}

/* F (p, p) of block b. */
static void unpack(const struct block_case *from, int64_t b, double *F) {
  for (int64_t k = 0, index = 0; k < from->p; k++)
    for (int64_t l = k; l < from->p; l++, index++)
      F[k * from->p + l] = F[l * from->p + k] = (double)from->evidence[index * from->count + b];
}

static double quadratic(int64_t p, const double *A, const double *x) {
  double sum = 0;
  for (int64_t k = 0; k < p * p; k++) sum += x[k / p] * A[k] * x[k % p];
  return sum;
}

static double *run_absorb(struct device_case *c, const struct block_case *from, double *delta) {
  const int64_t count = from->count, p = from->p;
  double *const facts = case_facts(c, count * KWM_GAINS);
  c->device->ops->block_absorb(c->device, count, p, case_copy(c, count * p * p, from->M), case_copy(c, p, from->prior),
                               case_copy(c, (kwm_packed(p) + p) * count, from->evidence), delta, facts);
  return facts;
}

static void body_absorb(struct device_case *c, const int64_t *size) {
  const struct block_case from = make_block(c, size);
  const int64_t count = from.count, p = from.p;
  double *const delta = case_host(c, count * p, sizeof *delta), *const F = case_host(c, p * p, sizeof *F);
  double *const P = case_host(c, p * p, sizeof *P), *const s = case_host(c, p, sizeof *s);
  double *const gains = case_host(c, count * KWM_GAINS, sizeof *gains);
  for (int64_t b = 0; b < count; b++) {
    double *const x = delta + b * p, *const gain = gains + b * KWM_GAINS;
    unpack(&from, b, F);
    for (int64_t k = 0; k < p; k++) s[k] = (double)from.evidence[(kwm_packed(p) + k) * count + b];
    for (int64_t k = 0; k < p * p; k++) P[k] = from.M[b * p * p + k] + F[k];
    dense_invert(p, P);
    dense_multiply(p, 1, p, P, s, x);
    gain[KWM_GAIN_CHANGE] = quadratic(p, F, x);
    for (int64_t k = 0; k < p; k++) gain[KWM_GAIN_MOVED] += x[k] * x[k] / from.prior[k];
    for (int64_t k = 0; k < p; k++) gain[KWM_GAIN_SLOPE] += s[k] * x[k];
  }
  double *const to = case_doubles(c, count * p);
  const double *const found = case_seen(c, count * KWM_GAINS, run_absorb(c, &from, to));
  for (int64_t k = 0; k < count * KWM_GAINS; k++) assert_close(found[k], gains[k], CLOSE, 1e-12);
  assert_doubles(c, count * p, to, delta, CLOSE);
}

/* A negative direction, a NaN in M and one in F: seen in that block and in no other. */
static void body_absorb_refused(struct device_case *c, const int64_t *size) {
  for (int which = 0; which < 3; which++) {
    const struct block_case from = make_block(c, size);
    const int64_t count = from.count, p = from.p, bad = count / 2;
    if (which == 0) from.M[(bad + 1) * p * p - 1] = -1e6;
    if (which == 1) from.M[(bad + 1) * p * p - 1] = NAN;
    if (which == 2) from.evidence[(kwm_packed(p) - 1) * count + bad] = NAN;
    const double *const facts = run_absorb(c, &from, case_doubles(c, count * p));
    kwm_device_wait(c->device);
    for (int64_t b = 0; b < count; b++) assert_true(isfinite(facts[b * KWM_GAINS + KWM_GAIN_CHANGE]) == (b != bad));
  }
}

/* Both triangles. */
static void body_take(struct device_case *c, const int64_t *size) {
  const struct block_case from = make_block(c, size);
  const int64_t count = from.count, p = from.p;
  double *const to = case_copy(c, count * p * p, from.M), *const F = case_host(c, p * p, sizeof *F);
  for (int64_t b = 0; b < count; b++) {
    unpack(&from, b, F);
    for (int64_t k = 0; k < p * p; k++) from.M[b * p * p + k] += F[k];
  }
  c->device->ops->block_take(c->device, count, p, case_copy(c, (kwm_packed(p) + p) * count, from.evidence), to);
  assert_same(c, count * p * p, to, from.M);
}

static void body_trace(struct device_case *c, const int64_t *size) {
  const struct block_case from = make_block(c, size);
  const int64_t n = from.count * from.p * from.p;
  double *const P = dense_copy(n, from.M), *const facts = case_facts(c, 1), wanted = 0;
  for (int64_t b = 0; b < from.count; b++) {
    dense_invert(from.p, P + b * from.p * from.p);
    wanted += dense_trace(from.p, P + b * from.p * from.p);
  }
  free(P);
  c->device->ops->block_trace(c->device, from.count, from.p, case_copy(c, n, from.M), facts);
  assert_facts(c, 1, facts, &wanted, CLOSE);
}

/* blocks, parameters */
static void test_step(void **state) {
  (void)state;
  static const int64_t sizes[][4] = {{1, 1}, {3, 10}, {33, 3}, {100, 10}, {257, 10}, {16, 16}};
  case_run_all(body_absorb, sizes);
  case_run_all(body_absorb_refused, sizes);
  case_run_all(body_take, sizes);
  case_run_all(body_trace, sizes);
}

/* Where the device's state is. */
struct block_state {
  double *M, *facts;
  float *mean;
};

static struct block_state run_predict(struct device_case *c, const struct block_case *from, double lambda, double q) {
  const int64_t count = from->count, p = from->p;
  const struct block_state state = {case_copy(c, count * p * p, from->M), case_facts(c, 1),
                                    case_copy(c, count * p, from->mean)};
  const float *const anchor = lambda < 1 ? case_copy(c, count * p, from->anchor) : NULL;
  c->device->ops->block_predict(c->device, count, p, lambda, q, case_copy(c, p, from->prior), anchor, state.M,
                                case_doubles(c, count * p * p), state.mean, state.facts);
  return state;
}

/* mean += (1-λ) Λ'⁻¹ Λ0 (anchor - mean) for Λ' = λΛ + (1-λ)Λ0, then P <- P + q P0. */
static void check_predict(struct device_case *c, const int64_t *size, double lambda, double q) {
  const struct block_case from = make_block(c, size);
  const int64_t count = from.count, p = from.p, n = count * p * p;
  double *const wanted = case_host(c, n, sizeof *wanted), *const mean = case_wide(c, count * p, from.mean);
  double *const P = case_host(c, p * p, sizeof *P), *const apart = case_host(c, p, sizeof *apart);
  double *const pull = case_host(c, p, sizeof *pull), none = 0;
  memcpy(wanted, from.M, (size_t)n * sizeof *wanted);
  for (int64_t b = 0; b < count; b++) {
    double *const W = wanted + b * p * p;
    for (int64_t k = 0; k < p * p; k++)
      W[k] = lambda * W[k] + (k % (p + 1) == 0 ? (1 - lambda) / from.prior[k % p] : 0);
    memcpy(P, W, (size_t)(p * p) * sizeof *P);
    dense_invert(p, P);
    for (int64_t k = 0; k < p; k++)
      apart[k] = (1 - lambda) / from.prior[k] * ((double)from.anchor[b * p + k] - (double)from.mean[b * p + k]);
    dense_multiply(p, 1, p, P, apart, pull);
    for (int64_t k = 0; k < p; k++) mean[b * p + k] += pull[k];
    for (int64_t k = 0; k < p; k++) P[k * p + k] += q * from.prior[k];
    if (q == 0) continue;
    dense_invert(p, P);
    memcpy(W, P, (size_t)(p * p) * sizeof *P);
  }
  const struct block_state state = run_predict(c, &from, lambda, q);
  assert_facts(c, 1, state.facts, &none, 0);
  assert_doubles(c, n, state.M, wanted, CLOSE);
  assert_floats(c, count * p, state.mean, mean, 1e-6);
}

static void body_predict(struct device_case *c, const int64_t *size) {
  check_predict(c, size, 0.9, 0);
  check_predict(c, size, 0.95, 0.02);
  check_predict(c, size, 1, 0.05);
}

/* Two bad blocks are counted, and no block or mean changes, good ones neither. */
static void body_predict_refused(struct device_case *c, const int64_t *size) {
  for (int which = 0; which < 3; which++) {
    const struct block_case from = make_block(c, size);
    const int64_t count = from.count, p = from.p;
    const double bad = count > 1 ? 2 : 1;
    from.M[p * p - 1] = -1e6;
    from.M[count * p * p - 1] = which == 2 ? NAN : -1e6;
    const struct block_state state = run_predict(c, &from, which == 0 ? 1 : 0.9, which == 1 ? 0 : 0.05);
    assert_facts(c, 1, state.facts, &bad, 0);
    assert_same(c, count * p * p, state.M, from.M);
    assert_same(c, count * p, state.mean, from.mean);
  }
}

static void test_predict(void **state) {
  (void)state;
  static const int64_t sizes[][4] = {{1, 1}, {3, 10}, {33, 3}, {100, 10}, {257, 10}, {16, 16}};
  case_run_all(body_predict, sizes);
  case_run_all(body_predict_refused, sizes);
}

static const struct CMUnitTest tests[] = {cmocka_unit_test(test_step), cmocka_unit_test(test_predict)};

DEVICE_TEST_MAIN(tests)
