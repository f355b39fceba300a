/* Low-rank cross terms: with one block and full rank the joint filter; with several a dense textbook filter that is
   projected, after every step of time, on what r functions of the state explain; the nearer to the joint filter the
   larger r; positive definite all along. */
#include "block_case.h"

#include "kwm/backend.h"

enum { STEPS = 60, SEVERAL_STEPS = 35, D = BLOCK_D };

static void check_full(double walk, double forgetting, double adapt) {
  struct block_case it;
  struct kwm_tracker joint, low;
  block_case_begin(&it, KWM_READOUT_IDENTITY);
  const int n = it.model.n;
  struct kwm_tracker_spec spec = {.space = &it.space,
                                  .method = KWM_TRACKER_JOINT,
                                  .iterations = 1,
                                  .walk = walk,
                                  .forgetting = forgetting,
                                  .adapt = adapt,
                                  .n_blocks = 1,
                                  .blocks = &n,
                                  .rank = D};
  block_case_tracker(&it, &spec, &joint);
  spec.method = KWM_TRACKER_LOWRANK;
  block_case_tracker(&it, &spec, &low);
  for (int i = 0; i < n; i++) joint.prior[i] *= 4, low.prior[i] *= 4; /* rounding should not decide what is at it */
  for (int t = 0; t < STEPS; t++) {
    double y[BLOCK_M];
    block_case_outputs(t, y);
    if (t == STEPS / 2 && forgetting == 1) kwm_tracker_inflate(&joint, 3), kwm_tracker_inflate(&low, 3);
    if (t == STEPS / 3) { /* another trajectory: x and θ are uncorrelated, θ's covariance stays */
      kwm_tracker_begin(&joint), kwm_tracker_begin(&low);
    } else {
      assert_true(kwm_tracker_predict(&joint, NULL) && kwm_tracker_predict(&low, NULL));
    }
    block_case_agree(&joint, &low, n, y);
  }
  kwm_tracker_destroy(&joint);
  kwm_tracker_destroy(&low);
  kwm_statespace_fini(&it.model);
}

static void test_full_rank_is_joint(void **state) {
  (void)state;
  check_full(0, 1, 0);
  check_full(1e-3, 1, 0.01);
  check_full(0, 0.99, 0);
}

/* ---- the same projection as in a textbook */

/* P (N, N) of the tracker: [C; Z₁][C; Z₁]ᵀ + blkdiag(Y_bY_bᵀ, Z₂Z₂ᵀ). */
static void assemble(const struct block_case *it, const struct kwm_tracker *low, double *P) {
  const int64_t n = it->model.n, N = n + D, r = low->spec.rank;
  double *const U = dense_new(N * r);
  const double *at = low->Y;
  memset(P, 0, (size_t)(N * N) * sizeof *P);
  for (int64_t b = 0, first = 0; b < low->spec.n_blocks; first += low->spec.blocks[b], b++) {
    const int64_t size = low->spec.blocks[b];
    for (int64_t k = 0; k < size * size * size; k++) {
      const int64_t i = k / (size * size), j = k / size % size, l = k % size;
      P[(first + i) * N + first + j] += at[i * size + l] * at[j * size + l];
    }
    memcpy(U + first * r, at + size * size, (size_t)(size * r) * sizeof *U);
    at += size * (size + r);
  }
  for (int64_t i = 0; i < D; i++) {
    for (int64_t j = 0; j < D; j++)
      for (int64_t l = r; l < D; l++) P[(n + i) * N + n + j] += low->D[i * D + l] * low->D[j * D + l];
    memcpy(U + (n + i) * r, low->D + i * D, (size_t)r * sizeof *U);
  }
  for (int64_t k = 0; k < N * N * r; k++) P[k / r] += U[k / r / N * r + k % r] * U[k / r % N * r + k % r];
  free(U);
}

/* P_aI P_II⁻¹ P_Ib of elements a, b, for I the first `count` of `picked`. */
static double explained(int64_t N, const double *P, int count, const int64_t *picked, int64_t a, int64_t b) {
  double inverse[D * D], sum = 0;
  for (int i = 0; i < count; i++)
    for (int j = 0; j < count; j++) inverse[i * count + j] = P[picked[i] * N + picked[j]];
  if (count > 0) dense_invert(count, inverse);
  for (int i = 0; i < count; i++)
    for (int j = 0; j < count; j++) sum += P[a * N + picked[i]] * inverse[i * count + j] * P[picked[j] * N + b];
  return sum;
}

/* Σ over θ of the squared correlation with state i, given those picked. */
static double score(int64_t n, int64_t N, const double *P, int count, const int64_t *picked, int64_t i) {
  double sum = 0;
  for (int64_t k = 0; k < n; k++) {
    const double left = P[i * N + k] - explained(N, P, count, picked, i, k);
    sum += left * left / P[k * (N + 1)];
  }
  return sum / (P[i * (N + 1)] - explained(N, P, count, picked, i, i));
}

/* P_xθ <- P_xI P_II⁻¹ P_Iθ, P_bb' <- P_bI P_II⁻¹ P_Ib'. */
static void project(const struct block_case *it, const struct kwm_tracker_spec *spec, int64_t N, double *P) {
  const int64_t n = it->model.n;
  int64_t picked[D], *const block = malloc((size_t)N * sizeof *block);
  for (int count = 0; count < spec->rank; count++) {
    double most = -1;
    for (int64_t i = n; i < N; i++) {
      bool taken = false;
      for (int j = 0; j < count; j++) taken = taken || picked[j] == i;
      const double now = taken ? -1 : score(n, N, P, count, picked, i);
      if (now > most) most = now, picked[count] = i;
    }
  }
  for (int64_t b = 0, i = 0; b < spec->n_blocks; b++)
    for (int64_t l = 0; l < spec->blocks[b]; l++) block[i++] = b;
  for (int64_t i = n; i < N; i++) block[i] = spec->n_blocks;
  double *const next = dense_copy(N * N, P);
  for (int64_t k = 0; k < N * N; k++)
    if (block[k / N] != block[k % N]) next[k] = explained(N, P, spec->rank, picked, k / N, k % N);
  memcpy(P, next, (size_t)(N * N) * sizeof *P);
  free(block), free(next);
}

/* P <- 𝔽 P 𝔽ᵀ + blkdiag(0, Q), x <- f. */
static void textbook_predict(const struct block_case *it, const struct kwm_tracker *tracker, double *z, double *P) {
  const int64_t n = it->model.n, N = n + D;
  double *const F = dense_new(N * N), *const Ft = dense_new(N * N), *const T = dense_new(N * N),
                *const slopes = dense_new(D * n), next[D], Fx[D * D];
  it->space.step(it->space.context, z + n, NULL, z, next, Fx, slopes);
  for (int64_t i = 0; i < n; i++) F[i * N + i] = 1;
  for (int64_t i = 0; i < D; i++) {
    memcpy(F + (n + i) * N, slopes + i * n, (size_t)n * sizeof *F);
    memcpy(F + (n + i) * N + n, Fx + i * D, (size_t)D * sizeof *F);
    z[n + i] = next[i];
  }
  dense_transpose(N, N, F, Ft);
  dense_multiply(N, N, N, F, P, T);
  dense_multiply(N, N, N, T, Ft, P);
  for (int64_t i = 0; i < D; i++) P[(n + i) * (N + 1)] += tracker->q[i];
  free(F), free(Ft), free(T), free(slopes);
}

static void textbook_update(const struct block_case *it, const struct kwm_tracker *tracker, double *z, double *P,
                            const double *y) {
  const int64_t n = it->model.n, N = n + D;
  double *const delta = dense_new(N), *const h = dense_new(N), *const before = dense_copy(N, z);
  for (int i = 0; i < BLOCK_M; i++) {
    if (isnan(y[i])) continue;
    const double scale = 1 / sqrt(tracker->r[i]), e = scale * (y[i] - z[n + i]);
    h[n + i] = scale;
    dense_update(N, 1, P, h, &e, delta);
    for (int64_t j = 0; j < N; j++) z[j] += delta[j];
    h[n + i] = 0;
  }
  free(delta), free(h), free(before);
}

struct judged {
  double mean, variance; /* Σ over steps of the relative distances from the joint filter's */
};

/* Tracker and textbook side by side, both beside the textbook without a projection. */
static struct judged check_several(int rank) {
  struct block_case it;
  struct kwm_tracker low;
  block_case_begin(&it, KWM_READOUT_IDENTITY);
  const int64_t n = it.model.n, N = n + D;
  const struct kwm_tracker_spec spec = {.space = &it.space,
                                        .method = KWM_TRACKER_LOWRANK,
                                        .iterations = 1,
                                        .n_blocks = it.n_blocks,
                                        .blocks = it.sizes,
                                        .rank = rank};
  block_case_tracker(&it, &spec, &low);
  double *const z = dense_copy(N, low.z), *const P = dense_new(N * N), *const mine = dense_new(N * N);
  for (int64_t i = 0; i < n; i++) P[i * (N + 1)] = low.prior[i];
  for (int64_t i = 0; i < D; i++) P[(n + i) * (N + 1)] = low.spread[i];
  double *const exact_z = dense_copy(N, z), *const exact_P = dense_copy(N * N, P);
  struct judged judged = {0, 0};
  for (int t = 0; t < SEVERAL_STEPS; t++) {
    double y[BLOCK_M];
    block_case_outputs(t, y);
    assert_true(kwm_tracker_predict(&low, NULL));
    kwm_tracker_update(&low, y);
    textbook_predict(&it, &low, z, P);
    project(&it, &spec, N, P);
    textbook_update(&it, &low, z, P, y);
    assemble(&it, &low, mine);
    assert_below(dense_error(N, low.z, z), 1e-8);
    assert_below(dense_error(N * N, mine, P), 1e-8);
    textbook_predict(&it, &low, exact_z, exact_P);
    textbook_update(&it, &low, exact_z, exact_P, y);
    judged.mean += dense_error(n, z, exact_z);
    for (int64_t i = 0; i < n; i++) judged.variance += fabs(P[i * (N + 1)] / exact_P[i * (N + 1)] - 1);
  }
  kwm_tracker_destroy(&low);
  kwm_statespace_fini(&it.model);
  free(z), free(P), free(mine), free(exact_z), free(exact_P);
  return judged;
}

static void test_against_textbook(void **state) {
  (void)state;
  struct judged last = {INFINITY, INFINITY};
  for (int rank = 1; rank <= D; rank++) {
    const struct judged now = check_several(rank);
    assert_true(now.mean < last.mean && now.variance < last.variance);
    last = now;
  }
}

static void test_stays_positive(void **state) {
  (void)state;
  struct block_case it;
  struct kwm_tracker low;
  block_case_begin(&it, KWM_READOUT_IDENTITY);
  const int64_t N = it.model.n + D;
  const struct kwm_tracker_spec spec = {.space = &it.space,
                                        .method = KWM_TRACKER_LOWRANK,
                                        .iterations = 1,
                                        .n_blocks = it.n_blocks,
                                        .blocks = it.sizes,
                                        .rank = 2};
  block_case_tracker(&it, &spec, &low);
  double *const P = dense_new(N * N), *const values = dense_new(N);
  for (int t = 0; t < 5000; t++) {
    double y[BLOCK_M];
    block_case_outputs(t, y);
    assert_true(kwm_tracker_predict(&low, NULL));
    assert_true(kwm_tracker_update(&low, y).verdict != KWM_TRACKED_NUMERIC);
    if (t % 100 != 99) continue;
    assemble(&it, &low, P);
    assert_true(kwm_eigen_f64(N, P, values));
    assert_true(values[0] > 0);
  }
  kwm_tracker_destroy(&low);
  kwm_statespace_fini(&it.model);
  free(P), free(values);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_full_rank_is_joint), cmocka_unit_test(test_against_textbook),
                                     cmocka_unit_test(test_stays_positive)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
