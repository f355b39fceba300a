/* Calls that come again give the bits that they gave one by one: sequences on one device that captures what it has seen
   before, against the same on a device that never does; with other numbers, other arrays and after scratch has moved.
 */
#include "device_case.h"

enum { M = 33, N = 65, K = 40, ROWS = 5, TURNS = 12 };

struct arrays {
  float *A, *B, *C, *sums;
  double *P, *H, *Z;
};

/* `length` numbers of a stream on the device, in double if asked for. */
static void *numbers(kwm_device *device, int64_t length, uint64_t stream, bool wide) {
  const size_t bytes = (size_t)length * (wide ? sizeof(double) : sizeof(float));
  void *there = NULL, *const here = malloc(bytes);
  assert_non_null(here);
  for (int64_t k = 0; k < length; k++) {
    const double value = kwm_rng_normal(55, KWM_RNG_TEST, stream, (uint64_t)k);
    if (wide)
      ((double *)here)[k] = value;
    else
      ((float *)here)[k] = (float)value;
  }
  assert_ok(kwm_device_alloc(device, &there, bytes, "test"));
  kwm_device_put(device, there, here, bytes);
  free(here);
  return there;
}

static struct arrays arrays_new(kwm_device *device, uint64_t stream) {
  return (struct arrays){.A = numbers(device, M * K, stream, false),
                         .B = numbers(device, K * N, stream + 1, false),
                         .C = numbers(device, M * N, stream + 2, false),
                         .sums = numbers(device, N, stream + 3, false),
                         .P = numbers(device, N * N, stream + 4, true),
                         .H = numbers(device, 2 * N * N, stream + 5, true),
                         .Z = numbers(device, 2 * N * N, stream + 6, true)};
}

static void arrays_drop(kwm_device *device, struct arrays *arrays) {
  void *const all[] = {arrays->A, arrays->B, arrays->C, arrays->sums, arrays->P, arrays->H, arrays->Z};
  for (size_t k = 0; k < sizeof all / sizeof all[0]; k++) kwm_device_free(device, all[k]);
}

/* A step: its results stand in C, sums and P, and depend on what they held before. */
static void step(kwm_device *d, const struct arrays *a, float scale, int64_t rows) {
  kwm_device_zero(d, a->sums, N / 2 * sizeof *a->sums);
  kwm_device_gemm(d, false, false, M, N, K, scale, a->A, K, a->B, N, 0.5f, a->C, N);
  d->ops->add_squares(d, M, N, a->C, a->sums);
  d->ops->symm_f64(d, rows, N, a->P, a->H, a->Z);
  d->ops->gram_f64(d, N, rows, 1e-3, a->Z, 0.5, a->P);
  d->ops->add_scaled(d, M * K, 0.25f, a->C, a->A);
  kwm_device_copy(d, a->B, a->C, N * sizeof *a->B);
}

static void look(kwm_device *d, const struct arrays *a, float C[M * N], float sums[N], double P[N * N]) {
  kwm_device_get(d, C, a->C, M * N * sizeof *C);
  kwm_device_get(d, sums, a->sums, N * sizeof *sums);
  kwm_device_get(d, P, a->P, N * N * sizeof *P);
}

static void assert_alike(kwm_device *one, const struct arrays *a, kwm_device *other, const struct arrays *b) {
  static float C[2][M * N], sums[2][N];
  static double P[2][N * N];
  look(one, a, C[0], sums[0], P[0]), look(other, b, C[1], sums[1], P[1]);
  assert_memory_equal(C[0], C[1], sizeof C[0]);
  assert_memory_equal(sums[0], sums[1], sizeof sums[0]);
  for (int64_t k = 0; k < N * N; k++)
    if (k / N <= k % N) assert_memory_equal(&P[0][k], &P[1][k], sizeof P[0][k]);
}

/* Two sets of arrays in turn; some turns have a number of their own, some ask for more scratch than there was. */
static void test_again(void **state) {
  (void)state;
  const struct kwm_device_spec plainly = {.tf32 = case_tf32()};
  kwm_device *plain = NULL;
  assert_ok(kwm_device_open(&plain, kwm_device_name(test_device), &plainly));
  kwm_device *const devices[] = {test_device, plain};
  struct arrays arrays[2][2];
  for (int d = 0; d < 2; d++)
    for (uint64_t set = 0; set < 2; set++) arrays[d][set] = arrays_new(devices[d], 100 * set);
  for (int turn = 0; turn < TURNS; turn++) {
    const float scale = turn % 5 == 4 ? 0.1f * (float)turn : 0.125f;
    const int64_t rows = turn == 7 ? 2 * ROWS : ROWS;
    for (int d = 0; d < 2; d++) step(devices[d], &arrays[d][turn % 2], scale, rows);
    assert_alike(devices[0], &arrays[0][turn % 2], devices[1], &arrays[1][turn % 2]);
  }
  for (int d = 0; d < 2; d++)
    for (int set = 0; set < 2; set++) arrays_drop(devices[d], &arrays[d][set]);
  kwm_device_close(plain);
}

/* More calls than are kept: a number that counts them. */
static void test_many(void **state) {
  (void)state;
  enum { CALLS = 1000 };
  float start[2] = {0, 1}, *const at = numbers(test_device, 2, 300, false), found = 0;
  for (int turn = 0; turn < 3; turn++) {
    kwm_device_put(test_device, at, start, sizeof start);
    for (int k = 0; k < CALLS; k++) test_device->ops->add_scaled(test_device, 1, 1, at + 1, at);
    kwm_device_get(test_device, &found, at, sizeof found);
    assert_true(found == CALLS);
  }
  kwm_device_free(test_device, at);
}

static const struct CMUnitTest tests[] = {cmocka_unit_test(test_again), cmocka_unit_test(test_many)};
DEVICE_TEST_MAIN(tests)
