/* P_θθ block-diagonal: with one block the joint filter, with several a dense textbook filter whose P_bb' is set to zero
   after every row. */
#include "block_case.h"

enum { STEPS = 60 };

/* ---- one block */

static void check_one(enum kwm_readout readout, double walk, double forgetting, double adapt) {
  struct block_case it;
  struct kwm_tracker joint, block;
  block_case_begin(&it, readout);
  const int n = it.model.n;
  struct kwm_tracker_spec spec = {.space = &it.space,
                                  .method = KWM_TRACKER_JOINT,
                                  .iterations = 1,
                                  .walk = walk,
                                  .forgetting = forgetting,
                                  .adapt = adapt,
                                  .n_blocks = 1,
                                  .blocks = &n};
  block_case_tracker(&it, &spec, &joint);
  spec.method = KWM_TRACKER_BLOCK;
  block_case_tracker(&it, &spec, &block);
  for (int t = 0; t < STEPS; t++) {
    double y[BLOCK_M];
    block_case_outputs(t, y);
    /* Up to the prior, where rounding would decide what is forgotten next. */
    if (t == STEPS / 2 && forgetting == 1) kwm_tracker_inflate(&joint, 3), kwm_tracker_inflate(&block, 3);
    for (int i = 0; i < 2 && t % 7 == 3; i++) { /* others know the first state better, the second one worse */
      const double mean = joint.z[n + i] + 0.1, variance = kwm_tracker_variance(&joint, n + i) * (i == 0 ? 0.7 : 1.2);
      kwm_tracker_adopt(&joint, i, mean, variance);
      kwm_tracker_adopt(&block, i, mean, variance);
      assert_close(kwm_tracker_variance(&block, n + i), variance, 1e-10, 0);
    }
    assert_true(kwm_tracker_predict(&joint, NULL) && kwm_tracker_predict(&block, NULL));
    block_case_agree(&joint, &block, n, y);
  }
  kwm_tracker_destroy(&joint);
  kwm_tracker_destroy(&block);
  kwm_statespace_fini(&it.model);
}

static void test_one_block_is_joint(void **state) {
  (void)state;
  check_one(KWM_READOUT_IDENTITY, 0, 1, 0);
  check_one(KWM_READOUT_LINEAR, 0, 1, 0);
  check_one(KWM_READOUT_LINEAR, 1e-3, 1, 0.01);
  check_one(KWM_READOUT_IDENTITY, 0, 0.99, 0);
}

/* ---- several */

static void cut(const struct block_case *it, int64_t N, double *P) {
  int first = 0;
  for (int b = 0; b < it->n_blocks; first += it->sizes[b], b++)
    for (int i = 0; i < it->model.n; i++)
      for (int j = first; j < first + it->sizes[b]; j++)
        if (i < first || i >= first + it->sizes[b]) P[i * N + j] = 0;
}

/* P_xx <- Σ P_xb P_bb⁻¹ P_bx + the positive part of what is left; the share of what was negative. */
static double settle(const struct block_case *it, int64_t N, double *P) {
  const int64_t n = it->model.n, d = BLOCK_D;
  double crossed[BLOCK_D * BLOCK_D] = {0}, rest[BLOCK_D * BLOCK_D], E[BLOCK_D * BLOCK_D], cut_off = 0, whole = 0;
  for (int64_t b = 0, first = 0; b < it->n_blocks; first += it->sizes[b], b++) {
    const int64_t size = it->sizes[b];
    double *const inverse = dense_new(size * size);
    for (int64_t k = 0; k < size * size; k++) inverse[k] = P[(first + k / size) * N + first + k % size];
    dense_invert(size, inverse);
    for (int64_t k = 0; k < d * d * size * size; k++) {
      const int64_t i = k / (d * size * size), j = k / (size * size) % d, l = k / size % size, m = k % size;
      crossed[i * d + j] += P[(n + i) * N + first + l] * inverse[l * size + m] * P[(n + j) * N + first + m];
    }
    free(inverse);
  }
  for (int64_t k = 0; k < d * d; k++) rest[k] = P[(n + k / d) * N + n + k % d] - crossed[k];
  double copy[BLOCK_D * BLOCK_D];
  memcpy(copy, rest, sizeof rest);
  dense_eigenvectors(d, copy, E);
  for (int64_t l = 0; l < d; l++) {
    double value = 0;
    for (int64_t k = 0; k < d * d; k++) value += E[k / d * d + l] * rest[k] * E[k % d * d + l];
    for (int64_t k = 0; k < d * d; k++) crossed[k] += fmax(value, 0) * E[k / d * d + l] * E[k % d * d + l];
    cut_off += fmax(-value, 0), whole += fabs(value);
  }
  for (int64_t k = 0; k < d * d; k++) P[(n + k / d) * N + n + k % d] = crossed[k];
  return cut_off / whole;
}

/* P <- 𝔽 P 𝔽ᵀ + blkdiag(0, Q), x <- f. */
static void textbook_predict(const struct block_case *it, const struct kwm_tracker *tracker, double *z, double *P) {
  const int64_t n = it->model.n, d = BLOCK_D, N = n + d;
  double *const F = dense_new(N * N), *const Ft = dense_new(N * N), *const T = dense_new(N * N),
                *const slopes = dense_new(d * n), next[BLOCK_D], Fx[BLOCK_D * BLOCK_D];
  it->space.step(it->space.context, z + n, NULL, z, next, Fx, slopes);
  for (int64_t i = 0; i < n; i++) F[i * N + i] = 1;
  for (int64_t i = 0; i < d; i++) {
    memcpy(F + (n + i) * N, slopes + i * n, (size_t)n * sizeof *F);
    memcpy(F + (n + i) * N + n, Fx + i * d, (size_t)d * sizeof *F);
    z[n + i] = next[i];
  }
  dense_transpose(N, N, F, Ft);
  dense_multiply(N, N, N, F, P, T);
  dense_multiply(N, N, N, T, Ft, P);
  for (int64_t i = 0; i < d; i++) P[(n + i) * (N + 1)] += tracker->q[i];
  free(F), free(Ft), free(T), free(slopes);
}

static void textbook_update(const struct block_case *it, const struct kwm_tracker *tracker, double *z, double *P,
                            const double *y) {
  const int64_t n = it->model.n, d = BLOCK_D, N = n + d;
  double *const H = dense_new(BLOCK_M * N), *const Ht = dense_new(BLOCK_M * n), *const delta = dense_new(N),
                *const before = dense_copy(N, z), Hx[BLOCK_M * BLOCK_D], predicted[BLOCK_M];
  it->space.observe(it->space.context, z + n, z, predicted, Hx, Ht);
  for (int i = 0; i < BLOCK_M; i++) {
    if (isnan(y[i])) continue;
    const double scale = 1 / sqrt(tracker->r[i]);
    double *const h = H + i * N, e = scale * (y[i] - predicted[i]);
    for (int64_t j = 0; j < n; j++) h[j] = scale * Ht[i * n + j];
    for (int64_t j = 0; j < d; j++) h[n + j] = scale * Hx[i * d + j];
    for (int64_t j = 0; j < N; j++) e -= h[j] * (z[j] - before[j]);
    dense_update(N, 1, P, h, &e, delta);
    for (int64_t j = 0; j < N; j++) z[j] += delta[j];
    cut(it, N, P);
  }
  free(H), free(Ht), free(delta), free(before);
}

static void check_several(enum kwm_readout readout) {
  struct block_case it;
  struct kwm_tracker block;
  block_case_begin(&it, readout);
  const int64_t n = it.model.n, N = n + BLOCK_D;
  const struct kwm_tracker_spec spec = {
      .space = &it.space, .method = KWM_TRACKER_BLOCK, .iterations = 1, .n_blocks = it.n_blocks, .blocks = it.sizes};
  block_case_tracker(&it, &spec, &block);
  double *const z = dense_copy(N, block.z), *const P = dense_new(N * N), *const variances = dense_new(n);
  for (int64_t i = 0; i < n; i++) P[i * (N + 1)] = block.prior[i];
  for (int64_t i = 0; i < BLOCK_D; i++) P[(n + i) * (N + 1)] = block.spread[i];
  double most = 0;
  for (int t = 0; t < STEPS; t++) {
    double y[BLOCK_M];
    block_case_outputs(t, y);
    assert_true(kwm_tracker_predict(&block, NULL));
    const struct kwm_track track = kwm_tracker_update(&block, y);
    assert_true(track.verdict == (track.observed > 0 ? KWM_TRACKED : KWM_TRACKED_NOTHING));
    textbook_predict(&it, &block, z, P);
    textbook_update(&it, &block, z, P, y);
    if (track.observed > 0) most = fmax(most, settle(&it, N, P));
    kwm_tracker_variances(&block, variances);
    assert_below(dense_error(N, block.z, z), 1e-9);
    for (int64_t i = 0; i < n; i++) assert_close(variances[i], P[i * (N + 1)], 1e-8, 1e-12);
  }
  assert_true(most > 1e-3); /* it happens here */
  kwm_tracker_destroy(&block);
  kwm_statespace_fini(&it.model);
  free(z), free(P), free(variances);
}

static void test_blocks_against_textbook(void **state) {
  (void)state;
  check_several(KWM_READOUT_IDENTITY);
  check_several(KWM_READOUT_LINEAR);
}

/* What others know of a state: P <- s P s of its row and column, or P_ii + what is more. */
static void test_adopt(void **state) {
  (void)state;
  struct block_case it;
  struct kwm_tracker joint;
  block_case_begin(&it, KWM_READOUT_IDENTITY);
  const int n = it.model.n, N = n + BLOCK_D;
  const struct kwm_tracker_spec spec = {.space = &it.space, .method = KWM_TRACKER_JOINT, .iterations = 1};
  block_case_tracker(&it, &spec, &joint);
  double *const P = dense_new(N * N), *const found = dense_new(N * N), y[BLOCK_M];
  for (int t = 0; t < 5; t++) {
    block_case_outputs(t, y);
    assert_true(kwm_tracker_predict(&joint, NULL));
    kwm_tracker_update(&joint, y);
  }
  for (int i = 0; i < 2; i++) {
    const int row = n + 2 * i;
    kwm_tracker_covariance(&joint, P);
    const double before = P[row * (N + 1)], share = i == 0 ? 0.5 : 1;
    kwm_tracker_adopt(&joint, 2 * i, 3, i == 0 ? before / 4 : before + 2);
    kwm_tracker_covariance(&joint, found);
    for (int j = 0; j < N; j++) P[row * N + j] *= share, P[j * N + row] *= share;
    if (i == 1) P[row * (N + 1)] += 2;
    assert_below(dense_error(N * N, found, P), 1e-13);
    assert_true(joint.z[row] == 3);
  }
  kwm_tracker_destroy(&joint);
  kwm_statespace_fini(&it.model);
  free(P), free(found);
}

/* NIS and likelihood of the first two outputs, whatever the third shows. */
static void test_judged(void **state) {
  (void)state;
  struct block_case it;
  struct kwm_tracker some, first;
  double y[BLOCK_M];
  block_case_begin(&it, KWM_READOUT_IDENTITY);
  struct kwm_tracker_spec spec = {
      .space = &it.space, .method = KWM_TRACKER_BLOCK, .iterations = 1, .n_blocks = it.n_blocks, .blocks = it.sizes};
  block_case_tracker(&it, &spec, &first);
  spec.judged = 2;
  block_case_tracker(&it, &spec, &some);
  assert_true(kwm_tracker_predict(&some, NULL) && kwm_tracker_predict(&first, NULL));
  block_case_outputs(0, y);
  const struct kwm_track a = kwm_tracker_update(&some, y);
  y[2] = NAN;
  const struct kwm_track b = kwm_tracker_update(&first, y);
  assert_true(a.verdict == KWM_TRACKED && a.observed == 2 && b.observed == 2);
  assert_close(a.nis, b.nis, 1e-12, 0);
  assert_close(a.likelihood, b.likelihood, 1e-12, 0);
  kwm_tracker_destroy(&some);
  kwm_tracker_destroy(&first);
  kwm_statespace_fini(&it.model);
}

/* Memory without the blocks' coupling, and blocks that make up θ whatever the model. */
static void test_sizes(void **state) {
  (void)state;
  const struct kwm_statespace_spec specs[] = {
      {.transition = KWM_TRANSITION_MLP, .readout = KWM_READOUT_LINEAR, .d = 3, .m = 2, .k = 1, .hidden = 5},
      {.transition = KWM_TRANSITION_POLYNOMIAL, .d = 12, .m = 12, .degree = 2, .near = 2},
      {.transition = KWM_TRANSITION_LINEAR, .d = 3, .m = 3, .k = 2}};
  const int wanted[] = {5 + 3 + 3 + 2, 12, 3};
  for (int s = 0; s < 3; s++) {
    struct kwm_statespace model;
    int sizes[64], sum = 0;
    assert_ok(kwm_statespace_init(&model, &specs[s]));
    const int count = kwm_statespace_blocks(&model, sizes);
    assert_int_equal(count, wanted[s]);
    for (int b = 0; b < count; b++) sum += sizes[b];
    assert_int_equal(sum, model.n);
    kwm_statespace_fini(&model);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_one_block_is_joint),
                                     cmocka_unit_test(test_blocks_against_textbook), cmocka_unit_test(test_adopt),
                                     cmocka_unit_test(test_judged), cmocka_unit_test(test_sizes)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
