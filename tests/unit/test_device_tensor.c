/* Embedding, dropout, sums over places, norm and GELU of a transformer, with their adjoints. */
#include "tensor_case.h"

static const double CLOSE = 2e-6;

static const struct kwm_dropout none = {0}, dropping = {.seed = 9, .step = 5, .site = 3, .first = 1000, .rate = 0.2f};

/* ---- dropout ---- */

/* Of every fourth column by the generator itself. */
static void test_keep(void **state) {
  (void)state;
  for (int64_t row = 0; row < 200; row++)
    for (int64_t quad = 0; quad < 20; quad++) {
      const double u = kwm_rng_uniform(dropping.seed, KWM_RNG_DROPOUT, (uint64_t)dropping.site << 32 | dropping.step,
                                       (uint64_t)quad << 32 | (uint64_t)(dropping.first + row));
      const float wanted = u < (double)dropping.rate ? 0 : 1 / (1 - dropping.rate);
      assert_true(kwm_tensor_keep(&dropping, row, 4 * quad) == wanted);
    }
  assert_true(kwm_tensor_keep(&none, 3, 4) == 1);
}

/* How often two rules both keep an element, of `count`, over what independence wants. */
static double together(const struct kwm_dropout *a, int64_t rows, int64_t columns, const struct kwm_dropout *b) {
  const int64_t width = 64, count = 4000 * width;
  int64_t both = 0;
  for (int64_t k = 0; k < count; k++)
    both +=
        kwm_tensor_keep(a, k / width, k % width) > 0 && kwm_tensor_keep(b, k / width + rows, k % width + columns) > 0;
  const double keep = 1 - (double)a->rate;
  return (double)both / (double)count / (keep * keep);
}

/* Neighbours in rows, columns, sites and steps are independent; deviations of five times the standard one fail. */
static void test_keep_statistics(void **state) {
  (void)state;
  struct kwm_dropout site = dropping, step = dropping, seed = dropping;
  site.site++, step.step++, seed.seed++;
  const double keep = 1 - (double)dropping.rate, bound = 5 * sqrt((1 / (keep * keep) - 1) / (4000.0 * 64));
  assert_below(fabs(together(&dropping, 0, 1, &dropping) - 1), bound);
  assert_below(fabs(together(&dropping, 1, 0, &dropping) - 1), bound);
  assert_below(fabs(together(&dropping, 0, 0, &site) - 1), bound);
  assert_below(fabs(together(&dropping, 0, 0, &step) - 1), bound);
  assert_below(fabs(together(&dropping, 0, 0, &seed) - 1), bound);
  assert_below(fabs(together(&dropping, 0, 0, &dropping) * keep - 1), bound);
}

static void body_residual(struct device_case *c, const int64_t *size) {
  const int64_t n = size[0], w = size[1], all = n * w;
  const float *const x = case_normals(c, all, 1, 1), *const f = case_normals(c, all, 2, 1);
  double *const wanted = case_zeros(c, all), *const alone = case_zeros(c, all), *const plain = case_zeros(c, all);
  for (int64_t k = 0; k < all; k++) {
    alone[k] = (double)f[k] * (double)kwm_tensor_keep(&dropping, k / w, k % w);
    wanted[k] = (double)x[k] + alone[k];
    plain[k] = (double)x[k] + (double)f[k];
  }
  const struct kwm_tensor_ops *const ops = case_ops(c);
  float *const to_x = case_copy(c, all, x), *const to_f = case_copy(c, all, f), *const y = case_floats(c, all);
  ops->residual(c->device, n, w, &dropping, to_x, to_f, y);
  assert_floats(c, all, y, wanted, CLOSE);
  ops->residual(c->device, n, w, &none, to_x, to_f, y);
  assert_floats(c, all, y, plain, CLOSE);
  ops->residual(c->device, n, w, &dropping, to_x, to_f, to_x);
  assert_floats(c, all, to_x, wanted, CLOSE);
  ops->residual(c->device, n, w, &dropping, NULL, to_f, to_f);
  const float *const found = case_get(c, all, sizeof *found, to_f);
  for (int64_t k = 0; k < all; k++) assert_true((found[k] == 0) == (alone[k] == 0));
  assert_below(dense_error_f32(all, found, alone), CLOSE);
}

/* Rows in two halves, the second with its own number of its first row: the same bits. */
static void body_halves(struct device_case *c, const int64_t *size) {
  const int64_t n = size[0], w = size[1], all = n * w, half = n / 2;
  const float *const f = case_normals(c, all, 2, 1);
  float *const from = case_copy(c, all, f), *const whole = case_floats(c, all), *const parts = case_floats(c, all);
  const struct kwm_tensor_ops *const ops = case_ops(c);
  ops->residual(c->device, n, w, &dropping, NULL, from, whole);
  struct kwm_dropout rest = dropping;
  rest.first += half;
  if (half > 0) ops->residual(c->device, half, w, &dropping, NULL, from, parts);
  ops->residual(c->device, n - half, w, &rest, NULL, from + half * w, parts + half * w);
  const float *const wanted = case_get(c, all, sizeof *wanted, whole);
  assert_same(c, all, parts, wanted);
}

static void test_dropout(void **state) {
  (void)state;
  static const int64_t sizes[][2] = {{1, 1}, {7, 3}, {33, 64}, {128, 65}, {300, 512}, {5, 1030}};
  tensor_run_all(body_residual, sizes);
  tensor_run_all(body_halves, sizes);
}

/* ---- embedding ---- */

static void body_embed(struct device_case *c, const int64_t *size) {
  const int64_t n = size[0], w = size[1], context = size[2], types = size[3];
  const float *const E = case_normals(c, types * w, 1, 1), *const pos = case_normals(c, context * w, 2, 0.3);
  int32_t *const ids = case_indices(c, n, types, 3);
  ids[n - 1] = (int32_t)types - 1;
  double *const wanted = case_zeros(c, n * w);
  for (int64_t k = 0; k < n * w; k++)
    wanted[k] = ((double)E[ids[k / w] * w + k % w] + (double)pos[k / w % context * w + k % w]) *
                (double)kwm_tensor_keep(&dropping, k / w, k % w);
  float *const x = case_floats(c, n * w);
  case_ops(c)->embed(c->device, n, w, context, case_copy(c, n, ids), case_copy(c, types * w, E),
                     case_copy(c, context * w, pos), &dropping, x);
  assert_floats(c, n * w, x, wanted, CLOSE);
}

/* Kinds of ids, each with its places; the first kind takes half of them, as a frequent word would. */
static void body_gather(struct device_case *c, const int64_t *size) {
  const int64_t n = size[0], w = size[1], types = size[3];
  int32_t *const ids = case_indices(c, n, types, 3), *const places = case_host(c, n, sizeof *places);
  int32_t *const kinds = case_host(c, types, sizeof *kinds), *const begin = case_host(c, types + 1, sizeof *begin);
  int64_t count = 0, at = 0;
  for (int64_t k = 0; k < n / 2; k++) ids[k] = (int32_t)types / 2;
  for (int32_t type = 0; type < types; type++) {
    const int64_t first = at;
    for (int64_t k = 0; k < n; k++)
      if (ids[k] == type) places[at++] = (int32_t)k;
    if (at > first) kinds[count] = type, begin[count++] = (int32_t)first;
  }
  begin[count] = (int32_t)n;
  const float *const x = case_normals(c, n * w, 1, 1), *const table = case_normals(c, types * w, 2, 1);
  double *const wanted = case_wide(c, types * w, table);
  for (int64_t k = 0; k < n * w; k++) wanted[ids[k / w] * w + k % w] += (double)x[k];
  const struct kwm_gather gather = {count, n, case_copy(c, count, kinds), case_copy(c, count + 1, begin),
                                    case_copy(c, n, places)};
  float *const to = case_copy(c, types * w, table);
  case_ops(c)->gather(c->device, w, &gather, case_copy(c, n * w, x), to);
  assert_floats(c, types * w, to, wanted, CLOSE);
}

static void body_fold(struct device_case *c, const int64_t *size) {
  const int64_t w = size[1], context = size[2], n = (size[0] + context - 1) / context * context;
  const float *const x = case_normals(c, n * w, 1, 1), *const sums = case_normals(c, context * w, 2, 1);
  double *const wanted = case_wide(c, context * w, sums);
  for (int64_t k = 0; k < n * w; k++) wanted[k % (context * w)] += (double)x[k];
  float *const to = case_copy(c, context * w, sums);
  case_ops(c)->fold(c->device, n, w, context, case_copy(c, n * w, x), to);
  assert_floats(c, context * w, to, wanted, CLOSE);
}

static void test_embedding(void **state) {
  (void)state;
  static const int64_t sizes[][4] = {
      {1, 1, 1, 1}, {24, 3, 8, 5}, {99, 33, 11, 40}, {256, 512, 32, 17}, {640, 64, 128, 300}};
  tensor_run_all(body_embed, sizes);
  tensor_run_all(body_gather, sizes);
  tensor_run_all(body_fold, sizes);
}

/* ---- norm ---- */

static double inverse_rms(int64_t w, const double *x) {
  double sum = 0;
  for (int64_t k = 0; k < w; k++) sum += x[k] * x[k];
  return 1 / sqrt(sum / (double)w + 1e-6);
}

/* One row's. */
struct norm_row {
  int64_t w;
  const double *x, *g, *sy;
};

static double norm_by_x(const void *arguments, const double *x) {
  const struct norm_row *const row = arguments;
  const double inv = inverse_rms(row->w, x);
  double sum = 0;
  for (int64_t k = 0; k < row->w; k++) sum += row->sy[k] * x[k] * inv * row->g[k];
  return sum;
}

/* sx (w) of a row. */
static void norm_score(const struct norm_row *row, double *sx) {
  const double inv = inverse_rms(row->w, row->x);
  double along = 0;
  for (int64_t k = 0; k < row->w; k++) along += row->sy[k] * row->g[k] * row->x[k];
  for (int64_t k = 0; k < row->w; k++)
    sx[k] = inv * row->sy[k] * row->g[k] - inv * inv * inv * along / (double)row->w * row->x[k];
}

static void body_norm(struct device_case *c, const int64_t *size) {
  const int64_t n = size[0], w = size[1], all = n * w;
  float *const x = case_normals(c, all, 1, 2);
  const float *const g = case_positive(c, w, 2), *const sy = case_normals(c, all, 3, 1);
  const float *const more = case_normals(c, all, 4, 1), *const sg = case_normals(c, w, 5, 1);
  for (int64_t k = 0; k < w && n > 1; k++) x[(n - 1) * w + k] *= 1e-3f; /* where the floor shows */
  double *const y = case_zeros(c, all), *const inv = case_zeros(c, n), *const sx = case_zeros(c, all);
  double *const with = case_zeros(c, all), *const score = case_wide(c, w, sg);
  double *const wide_x = case_wide(c, all, x), *const wide_g = case_wide(c, w, g),
                *const wide_sy = case_wide(c, all, sy);
  for (int64_t r = 0; r < n; r++) {
    const struct norm_row row = {w, wide_x + r * w, wide_g, wide_sy + r * w};
    inv[r] = inverse_rms(w, row.x);
    norm_score(&row, sx + r * w);
    for (int64_t k = 0; k < w; k++) {
      y[r * w + k] = row.x[k] * inv[r] * row.g[k];
      score[k] += row.sy[k] * row.x[k] * inv[r];
      with[r * w + k] = sx[r * w + k] + (double)more[r * w + k];
    }
    for (int64_t k = 0; k < w && r == 0; k += case_stride(w))
      assert_close(case_slope(norm_by_x, &row, wide_x, k), sx[k], 1e-5, 1e-7);
  }
  const struct kwm_tensor_ops *const ops = case_ops(c);
  float *const to_x = case_copy(c, all, x), *const to_g = case_copy(c, w, g), *const to_sy = case_copy(c, all, sy);
  float *const to_y = case_floats(c, all), *const to_inv = case_floats(c, n), *const to_sx = case_floats(c, all);
  float *const to_sg = case_copy(c, w, sg), *const scratch = case_floats(c, kwm_tensor_norm_scratch(n, w));
  ops->norm(c->device, n, w, to_x, to_g, to_y, to_inv);
  assert_floats(c, all, to_y, y, CLOSE);
  assert_floats(c, n, to_inv, inv, CLOSE);
  ops->norm_adjoint(c->device, n, w, to_x, to_g, to_inv, to_sy, NULL, to_sx, to_sg, scratch);
  assert_floats(c, all, to_sx, sx, CLOSE);
  assert_floats(c, w, to_sg, score, CLOSE);
  float *const to_more = case_copy(c, all, more);
  ops->norm_adjoint(c->device, n, w, to_x, to_g, to_inv, to_sy, to_more, to_more, to_sg, scratch);
  assert_floats(c, all, to_more, with, CLOSE);
}

static void test_norm(void **state) {
  (void)state;
  static const int64_t sizes[][2] = {{1, 3},     {3, 7},    {40, 64},  {9, 130},  {300, 512},
                                     {33, 1024}, {530, 36}, {5, 2052}, {270, 333}};
  tensor_run_all(body_norm, sizes);
}

/* ---- GELU ---- */

static double gelu_at(const void *arguments, const double *u) {
  (void)arguments;
  return *u * 0.5 * erfc(-*u / sqrt(2));
}

static void body_gelu(struct device_case *c, const int64_t *size) {
  const int64_t n = size[0];
  const float *const u = case_normals(c, n, 1, 2), *const sy = case_normals(c, n, 2, 1);
  double *const y = case_zeros(c, n), *const su = case_zeros(c, n);
  for (int64_t k = 0; k < n; k++) {
    double at = (double)u[k];
    y[k] = gelu_at(NULL, &at);
    su[k] = (double)sy[k] * case_slope(gelu_at, NULL, &at, 0);
  }
  float *const to_u = case_copy(c, n, u), *const to_sy = case_copy(c, n, sy), *const to = case_floats(c, n);
  case_ops(c)->gelu(c->device, n, to_u, to);
  assert_floats(c, n, to, y, CLOSE);
  case_ops(c)->gelu_adjoint(c->device, n, to_u, to_sy, to);
  assert_floats(c, n, to, su, CLOSE);
  case_ops(c)->gelu_adjoint(c->device, n, to_u, to_sy, to_sy);
  assert_floats(c, n, to_sy, su, CLOSE);
}

static void test_gelu(void **state) {
  (void)state;
  static const int64_t sizes[][1] = {{1}, {5}, {1000}, {262147}};
  tensor_run_all(body_gelu, sizes);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_keep),    cmocka_unit_test(test_keep_statistics),
    cmocka_unit_test(test_dropout), cmocka_unit_test(test_embedding),
    cmocka_unit_test(test_norm),    cmocka_unit_test(test_gelu),
};

DEVICE_TEST_MAIN(tests)
