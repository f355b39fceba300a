/* Rows J ⊗ a of a matrix on a device: their products with P - YᵀY and with others, against sums over the rows formed.
 */
#include "device_case.h"

#include "kwm/lin.h"

static const double EXACT = 1e-12;

/* n, m, o, i, k: with one sample and with groups of them, blocks larger and smaller than a tile of a kernel, more of
   them than a kernel takes, few rows and many, none of them a round number. */
static const int64_t sizes[][5] = {{1, 1, 1, 1, 0},   {1, 10, 3, 64, 7},  {10, 10, 4, 97, 50}, {16, 2, 5, 33, 3},
                                   {17, 4, 3, 70, 9}, {40, 2, 2, 50, 5},  {3, 10, 20, 17, 30}, {1, 3, 1, 300, 0},
                                   {2, 1, 130, 3, 2}, {2, 5, 5, 120, 12}, {1, 10, 5, 130, 20}};

struct made {
  int64_t count, p, k;
  struct kwm_device_outer there;
  double *H; /* (count, p), the host's */
};

static struct made make(struct device_case *c, const int64_t *size) {
  const int64_t n = size[0], m = size[1], o = size[2], i = size[3], k = size[4];
  const float *const J = case_normals(c, n * m * o, 1, 1), *const a = case_normals(c, n * i, 2, 1);
  const struct kwm_jac jac = {.shape = KWM_JAC_OUTER, .n = n, .m = m, .d_o = o, .d_i = i, .J = J, .a = a};
  struct made made = {.count = n * m, .p = o * i, .k = k, .H = case_host(c, n * m * o * i, sizeof(double))};
  made.there = (struct kwm_device_outer){
      n, m, o, i, case_copy(c, n * m * o, J), case_copy(c, n * i, a), case_doubles(c, n * m * (o * i + k))};
  kwm_jac_dense_f64(&jac, made.H);
  return made;
}

/* Z (count, p) += factor X (count, l) A (l, p) */
static void add_product(const struct made *made, int64_t l, double factor, const double *X, const double *A,
                        double *Z) {
  for (int64_t r = 0; r < made->count; r++)
    for (int64_t t = 0; t < l; t++) {
      const double x = factor * X[r * l + t];
      for (int64_t j = 0; j < made->p; j++) Z[r * made->p + j] += x * A[t * made->p + j];
    }
}

static double *symmetric(struct device_case *c, int64_t p) {
  double *const P = case_host(c, p * p, sizeof *P);
  for (int64_t i = 0; i < p; i++)
    for (int64_t j = i; j < p; j++)
      P[i * p + j] = P[j * p + i] = (double)((uint64_t)(i * p + j) * 2654435761u >> 8 & 1023) / 512 - 1;
  return P;
}

/* Of few rows the upper triangle is read: NaN below must not matter. */
static void body_symm(struct device_case *c, const int64_t *size) {
  const struct made made = make(c, size);
  const int64_t p = made.p, k = made.k;
  double *const P = symmetric(c, p), *const Y = case_wide(c, (k + 1) * p, case_normals(c, (k + 1) * p, 4, 1));
  double *const wanted = case_host(c, made.count * p, sizeof *wanted), *const G = case_host(c, made.count * (k + 1),
                                                                                            sizeof *G);
  add_product(&made, p, 1, made.H, P, wanted);
  for (int64_t r = 0; r < made.count; r++)
    for (int64_t y = 0; y < k; y++)
      for (int64_t j = 0; j < p; j++) G[r * k + y] += made.H[r * p + j] * Y[y * p + j];
  add_product(&made, k, -1, G, Y, wanted);
  for (int64_t i = 0; i < p; i++)
    for (int64_t j = 0; j < i; j++) P[i * p + j] = NAN;
  double *const to = case_doubles(c, made.count * p), *const there = case_copy(c, p * p, P);
  if (made.count > KWM_OUTER_FEW) c->device->ops->mirror_f64(c->device, p, there);
  c->device->ops->outer_symm(c->device, &made.there, there, k, case_copy(c, (k + 1) * p, Y), to);
  assert_doubles(c, made.count * p, to, wanted, EXACT);
}

static void body_mirror(struct device_case *c, const int64_t *size) {
  const int64_t p = size[2] * size[3];
  double *const wanted = symmetric(c, p), *const P = case_host(c, p * p, sizeof *P);
  for (int64_t k = 0; k < p * p; k++) P[k] = k % p < k / p ? NAN : wanted[k];
  double *const there = case_copy(c, p * p, P);
  c->device->ops->mirror_f64(c->device, p, there);
  assert_same(c, p * p, there, wanted);
}

/* Z = H P for a diagonal P; the lower triangle of Z Hᵀ, added to what is there or not. */
static void body_share(struct device_case *c, const int64_t *size) {
  const struct made made = make(c, size);
  const int64_t p = made.p, n = made.count;
  double *const Z = case_host(c, n * p, sizeof *Z), *const S = case_wide(c, n * n, case_normals(c, n * n, 5, 1));
  for (int64_t k = 0; k < n * p; k++) Z[k] = made.H[k] * (1 + (double)(k % p) / (double)p);
  for (int keep = 0; keep < 2; keep++) {
    double *const to = case_copy(c, n * n, S), *const wanted = case_host(c, n * n, sizeof *wanted);
    c->device->ops->outer_share(c->device, &made.there, case_copy(c, n * p, Z), keep, to);
    double *const found = case_host(c, n * n, sizeof *found);
    const double *const got = case_get(c, n * n, sizeof *got, to);
    for (int64_t i = 0; i < n; i++)
      for (int64_t j = 0; j <= i; j++) {
        found[i * n + j] = got[i * n + j];
        wanted[i * n + j] = keep * S[i * n + j];
        for (int64_t l = 0; l < p; l++) wanted[i * n + j] += Z[i * p + l] * made.H[j * p + l];
      }
    assert_below(dense_error(n * n, found, wanted), EXACT);
  }
}

/* Both triangles of P - YᵀY; NaN below must not matter. */
static void body_downdate(struct device_case *c, const int64_t *size) {
  const int64_t p = size[2] * size[3], k = size[4] + 1;
  double *const P = symmetric(c, p), *const Y = case_wide(c, k * p, case_normals(c, k * p, 4, 1));
  double *const wanted = case_host(c, p * p, sizeof *wanted);
  memcpy(wanted, P, (size_t)(p * p) * sizeof *P);
  for (int64_t y = 0; y < k; y++)
    for (int64_t i = 0; i < p; i++)
      for (int64_t j = 0; j < p; j++) wanted[i * p + j] -= Y[y * p + i] * Y[y * p + j];
  for (int64_t e = 0; e < p * p; e++)
    if (e % p < e / p) P[e] = NAN;
  double *const there = case_copy(c, p * p, P);
  c->device->ops->downdate_both(c->device, p, k, case_copy(c, k * p, Y), there);
  assert_doubles(c, p * p, there, wanted, EXACT);
}

static void test_symm(void **state) {
  (void)state;
  case_run_all(body_symm, sizes);
  case_run_all(body_mirror, sizes);
  case_run_all(body_downdate, sizes);
}

static void test_share(void **state) {
  (void)state;
  case_run_all(body_share, sizes);
}

static const struct CMUnitTest tests[] = {cmocka_unit_test(test_symm), cmocka_unit_test(test_share)};

DEVICE_TEST_MAIN(tests)
