/* Eigenvectors, found anew and followed. */
#include "tensor_case.h"

static const double ORTHONORMAL = 2e-6, DIAGONAL = 3e-6;

/* A random orthonormal matrix in double: Gram and Schmidt, twice. */
static double *rotation(struct device_case *c, int64_t n, uint64_t stream) {
  double *const Q = case_zeros(c, n * n);
  for (int64_t k = 0; k < n * n; k++) Q[k] = test_normal(stream, k);
  for (int64_t i = 0; i < n; i++) {
    for (int pass = 0; pass < 2; pass++)
      for (int64_t j = 0; j < i; j++) {
        double along = 0;
        for (int64_t k = 0; k < n; k++) along += Q[i * n + k] * Q[j * n + k];
        for (int64_t k = 0; k < n; k++) Q[i * n + k] -= along * Q[j * n + k];
      }
    double norm = 0;
    for (int64_t k = 0; k < n; k++) norm += Q[i * n + k] * Q[i * n + k];
    for (int64_t k = 0; k < n; k++) Q[i * n + k] /= sqrt(norm);
  }
  return Q;
}

/* A (n, n) with the rows of Q for eigenvectors; values falling from 1 by `ratio` each, none below `least`; ratio 0:
   evenly down to 1 / n. */
static void spectrum(int64_t n, const double *Q, double ratio, double least, double *A) {
  double *const turned = dense_new(n * n), *const scaled = dense_copy(n * n, Q);
  for (int64_t k = 0; k < n; k++) {
    const double value = ratio > 0 ? fmax(pow(ratio, (double)k), least) : (double)(n - k) / (double)n;
    for (int64_t j = 0; j < n; j++) scaled[k * n + j] *= value;
  }
  dense_transpose(n, n, Q, turned);
  dense_multiply(n, n, n, turned, scaled, A);
  free(turned), free(scaled);
}

static float *narrow(struct device_case *c, int64_t n, const double *from) {
  float *const to = case_host(c, n, sizeof *to);
  for (int64_t k = 0; k < n; k++) to[k] = (float)from[k];
  return to;
}

/* |UᵀU - I| a column, and what of UᵀAU lies off the diagonal, over |A|. Of U on the device. */
static void look(struct device_case *c, int64_t n, const double *A, const float *U, double *skew, double *off) {
  double *const wide = case_wide(c, n * n, case_get(c, n * n, sizeof *U, U));
  double *const turned = dense_new(n * n), *const product = dense_new(n * n), *const R = dense_new(n * n), norm = 0;
  dense_transpose(n, n, wide, turned);
  dense_multiply(n, n, n, turned, wide, R);
  *skew = *off = 0;
  for (int64_t k = 0; k < n * n; k++) *skew += pow(R[k] - (k % (n + 1) == 0), 2);
  dense_multiply(n, n, n, A, wide, product);
  dense_multiply(n, n, n, turned, product, R);
  for (int64_t k = 0; k < n * n; k++) {
    norm += A[k] * A[k];
    *off += k % (n + 1) == 0 ? 0 : R[k] * R[k];
  }
  *skew = sqrt(*skew / (double)n);
  *off = sqrt(*off / norm);
  free(turned), free(product), free(R);
}

static void body_anew(struct device_case *c, const int64_t *size) {
  const int64_t n = size[0];
  double *const A = case_zeros(c, n * n), skew, off;
  spectrum(n, rotation(c, n, 1), 0.9, 1e-7, A);
  float *const from = case_copy(c, n * n, narrow(c, n * n, A)), *const U = case_floats(c, n * n);
  assert_true(case_ops(c)->basis(c->device, n, true, from, U, case_floats(c, 4 * n * n)));
  look(c, n, A, U, &skew, &off);
  assert_below(skew, ORTHONORMAL);
  assert_below(off, DIAGONAL);
  const float *const found = case_get(c, n * n, sizeof *found, U);
  double last = -1;
  for (int64_t j = 0; j < n; j++) {
    double value = 0;
    for (int64_t i = 0; i < n * n; i++) value += A[i] * (double)found[i / n * n + j] * (double)found[i % n * n + j];
    assert_below(last, value + 1e-5);
    last = value;
  }
}

static void body_refused(struct device_case *c, const int64_t *size) {
  const int64_t n = size[0];
  double *const A = case_zeros(c, n * n);
  spectrum(n, rotation(c, n, 1), 0.9, 0, A);
  float *const narrowed = narrow(c, n * n, A), *const before = case_normals(c, n * n, 2, 1);
  narrowed[n * n / 2] = NAN;
  float *const U = case_copy(c, n * n, before);
  assert_true(!case_ops(c)->basis(c->device, n, true, case_copy(c, n * n, narrowed), U, case_floats(c, 4 * n * n)));
  assert_same(c, n * n, U, before);
}

/* From eigenvectors of a neighbour, A turned by a little: what is off the diagonal falls to what single precision can
   tell, by half at least in every step until then; the first only makes U orthonormal, which it was not (in TF32 the
   first two). TF32 ends later: what its products leave off the diagonal falls by a quarter a step below 1e-4. */
static void body_converges(struct device_case *c, const int64_t *size) {
  const int64_t n = size[0];
  double *const Q = rotation(c, n, 1), *const A = case_zeros(c, n * n), *const near = case_zeros(c, n * n);
  double *const turned = case_zeros(c, n * n), end = case_tf32() ? 1e-4 : 1e-5, skew, off, before = 0;
  spectrum(n, Q, 0, 0, A);
  for (int64_t k = 0; k < n * n; k++) near[k] = Q[k] + 0.02 * test_normal(3, k) / sqrt((double)n);
  dense_transpose(n, n, near, turned); /* eigenvectors in columns, not yet orthonormal */
  float *const from = case_copy(c, n * n, narrow(c, n * n, A)), *const U =
                                                                    case_copy(c, n * n, narrow(c, n * n, turned));
  float *const scratch = case_floats(c, 4 * n * n);
  for (int turn = 0; turn < 12; turn++) {
    assert_true(case_ops(c)->basis(c->device, n, false, from, U, scratch));
    look(c, n, A, U, &skew, &off);
    if (turn > 1 || !case_tf32()) assert_below(skew, ORTHONORMAL);
    if (turn > 0) assert_below(off, fmax(before / 2, end));
    before = off;
  }
  assert_below(off, end);
}

/* A turns on and on, by a rotation of neighbouring rows of Q in each step: one improvement a step keeps up, also where
   most values are too small to be told apart. */
static void tracks(struct device_case *c, int64_t n, double ratio) {
  double *const Q = rotation(c, n, 1), *const A = case_zeros(c, n * n), skew, off;
  float *const U = case_floats(c, n * n), *const scratch = case_floats(c, 4 * n * n), *const to = case_floats(c, n * n);
  for (int step = 0; step < 15; step++) {
    spectrum(n, Q, ratio, 0, A);
    kwm_device_put(c->device, to, narrow(c, n * n, A), (size_t)(n * n) * sizeof *to);
    assert_true(case_ops(c)->basis(c->device, n, step == 0, to, U, scratch));
    look(c, n, A, U, &skew, &off);
    assert_below(skew, ORTHONORMAL);
    assert_below(off, 2e-3);
    for (int64_t i = step % 2; i + 1 < n; i += 2)
      for (int64_t k = 0; k < n; k++) {
        const double a = Q[i * n + k], b = Q[(i + 1) * n + k];
        Q[i * n + k] = cos(0.03) * a + sin(0.03) * b;
        Q[(i + 1) * n + k] = cos(0.03) * b - sin(0.03) * a;
      }
  }
}

static void body_tracks(struct device_case *c, const int64_t *size) {
  tracks(c, size[0], 0);
  tracks(c, size[0], 0.85);
}

/* From anywhere, with many values alike and with all zero: U stays orthonormal, and gets no worse in the end. */
static void body_wild(struct device_case *c, const int64_t *size) {
  const int64_t n = size[0];
  double *const Q = rotation(c, n, 1), *const A = case_zeros(c, n * n), *const start = rotation(c, n, 2);
  float *const scratch = case_floats(c, 4 * n * n), *const U = case_copy(c, n * n, narrow(c, n * n, start));
  double skew, off, before;
  for (int kind = 0; kind < 3; kind++) {
    spectrum(n, Q, kind == 0 ? 0.97 : 0.5, 0.1, A);
    for (int64_t k = 0; k < n * n && kind == 2; k++) A[k] = 0;
    float *const from = case_copy(c, n * n, narrow(c, n * n, A));
    if (kind < 2) look(c, n, A, U, &skew, &before);
    for (int turn = 0; turn < 15; turn++) case_ops(c)->basis(c->device, n, false, from, U, scratch);
    look(c, n, A, U, &skew, &off);
    assert_below(skew, ORTHONORMAL);
    if (kind < 2) assert_below(off, before + 1e-5);
  }
}

static void test_basis(void **state) {
  (void)state;
  static const int64_t sizes[][1] = {{1}, {2}, {5}, {33}, {64}, {130}};
  tensor_run_all(body_anew, sizes);
  tensor_run_all(body_refused, sizes);
  tensor_run_all(body_converges, sizes);
  tensor_run_all(body_tracks, sizes);
  tensor_run_all(body_wild, sizes);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_basis),
};

DEVICE_TEST_MAIN(tests)
