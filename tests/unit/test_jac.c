/* Products of Jacobian blocks against dense rows. Tolerance: sums of some 50 single-precision products of order one. */
#include "jac_case.h"

static const double SUM = 2e-6;

/* Units in both shapes that occur: one bundle and several, few and all of the largest number of parameters. */
static const struct {
  int64_t n, m, count, params;
} units[] = {{1, 1, 16, 1}, {5, 4, 16, 10}, {3, 10, 48, 10}, {4, 2, 32, 16}};
enum { UNITS = sizeof units / sizeof units[0] };

static const struct { int64_t n, m, d_o, d_i; } outers[] = {{1, 1, 1, 1}, {5, 4, 3, 6}, {7, 10, 10, 5}};
enum { OUTERS = sizeof outers / sizeof outers[0] };

static struct jac_case units_case(int c) {
  return jac_units(units[c].n, units[c].m, units[c].count, units[c].params, (uint64_t)(100 + c));
}

static struct jac_case outer_case(int c) {
  return jac_outer(outers[c].n, outers[c].m, outers[c].d_o, outers[c].d_i, (uint64_t)(200 + c));
}

/* Packed triangle and scores, both added to what is there (1 everywhere). */
static void test_fisher(void **state) {
  (void)state;
  for (int c = 0; c < UNITS; c++) {
    struct jac_case made = units_case(c);
    const int64_t p = units[c].params, count = units[c].count, packed = kwm_packed(p), width = count * p;
    assert_int_equal(packed, p * (p + 1) / 2);
    float *const F = calloc((size_t)((packed + p) * count), sizeof *F), *const s = F + packed * count;
    for (int64_t k = 0; k < (packed + p) * count; k++) F[k] = 1;
    kwm_jac_fisher(&made.jac, F, s);
    double *const fisher = jac_dense_fisher(&made.jac), *const score = jac_dense_score(&made.jac);
    double *const wanted = dense_new((packed + p) * count);
    for (int64_t u = 0; u < count; u++) {
      int64_t at = 0;
      for (int64_t k = 0; k < p; k++)
        for (int64_t l = k; l < p; l++, at++) wanted[at * count + u] = 1 + fisher[(u * p + k) * width + u * p + l];
      for (int64_t k = 0; k < p; k++) wanted[(packed + k) * count + u] = 1 + score[u * p + k];
    }
    assert_below(dense_error_f32(packed * count, F, wanted), SUM);
    assert_below(dense_error_f32(p * count, s, wanted + packed * count), SUM);
    free(F), free(fisher), free(score), free(wanted), jac_drop(&made);
  }
}

static void test_score_units(void **state) {
  (void)state;
  for (int c = 0; c < UNITS; c++) {
    struct jac_case made = units_case(c);
    const int64_t p = units[c].params, count = units[c].count;
    float *const s = calloc((size_t)(p * count), sizeof *s);
    for (int64_t k = 0; k < p * count; k++) s[k] = 1;
    kwm_jac_score(&made.jac, s, NULL);
    double *const score = jac_dense_score(&made.jac), *const wanted = dense_new(p * count);
    for (int64_t k = 0; k < p; k++)
      for (int64_t u = 0; u < count; u++) wanted[k * count + u] = 1 + score[u * p + k];
    assert_below(dense_error_f32(p * count, s, wanted), SUM);
    free(s), free(score), free(wanted), jac_drop(&made);
  }
}

static void test_score_outer(void **state) {
  (void)state;
  for (int c = 0; c < OUTERS; c++) {
    struct jac_case made = outer_case(c);
    const int64_t width = outers[c].d_o * outers[c].d_i;
    float *const s = calloc((size_t)width, sizeof *s), *const g = normal_floats(outers[c].n * outers[c].d_o, 9);
    for (int64_t k = 0; k < width; k++) s[k] = 1;
    kwm_jac_score(&made.jac, s, g);
    double *const wanted = jac_dense_score(&made.jac);
    for (int64_t k = 0; k < width; k++) wanted[k] += 1;
    assert_below(dense_error_f32(width, s, wanted), SUM);
    for (int64_t i = 0; i < outers[c].n; i++)
      for (int64_t o = 0; o < outers[c].d_o; o++) {
        double sum = 0;
        for (int64_t r = 0; r < outers[c].m; r++) {
          const int64_t row = i * outers[c].m + r;
          sum += (double)made.e[row] * (double)made.J[row * outers[c].d_o + o];
        }
        assert_close((double)g[i * outers[c].d_o + o], sum, 1e-5, 1e-5);
      }
    free(s), free(g), free(wanted), jac_drop(&made);
  }
}

static void test_dense(void **state) {
  (void)state;
  for (int c = 0; c < UNITS; c++) {
    struct jac_case made = units_case(c);
    const int64_t elements = units[c].n * units[c].m * units[c].count * units[c].params;
    float *const H = normal_floats(elements, 9);
    kwm_jac_dense(&made.jac, H);
    double *const wanted = jac_rows(&made.jac);
    for (int64_t k = 0; k < elements; k++) assert_close((double)H[k], wanted[k], 1e-6, 1e-6);
    free(H), free(wanted), jac_drop(&made);
  }
}

static void test_dense_outer(void **state) {
  (void)state;
  for (int c = 0; c < OUTERS; c++) {
    struct jac_case made = outer_case(c);
    const int64_t elements = outers[c].n * outers[c].m * outers[c].d_o * outers[c].d_i;
    float *const H = normal_floats(elements, 9);
    kwm_jac_dense(&made.jac, H);
    double *const wanted = jac_rows(&made.jac);
    for (int64_t k = 0; k < elements; k++) assert_close((double)H[k], wanted[k], 1e-6, 1e-30);
    free(H), free(wanted), jac_drop(&made);
  }
}

/* A score that comes with the rows is taken as it is: g, and gᵀa, in parts as in whole; e is not looked at. The
   information is the rows' alone. */
static void test_given_score(void **state) {
  (void)state;
  enum { SAMPLES = 6, WIDE = 4, DEEP = 5, WIDTH = WIDE * DEEP };
  struct jac_case made = jac_outer(SAMPLES, 1, WIDE, DEEP, 310);
  float *const g = normal_floats(SAMPLES * WIDE, 311), found[SAMPLES * WIDE], s[WIDTH], f[2 * WIDTH];
  float scratch[SAMPLES * (WIDE + DEEP)];
  double *const F = jac_dense_fisher(&made.jac), wanted[WIDTH], information[WIDTH];
  made.jac.e = NULL, made.jac.g = g;
  for (int64_t k = 0; k < WIDTH; k++) {
    s[k] = f[k] = f[WIDTH + k] = 1, wanted[k] = 1, information[k] = 1 + F[k * WIDTH + k];
    for (int64_t i = 0; i < SAMPLES; i++)
      wanted[k] += (double)g[i * WIDE + k / DEEP] * (double)made.a[i * DEEP + k % DEEP];
  }
  const struct kwm_jac first = kwm_jac_part(&made.jac, 0, 2), rest = kwm_jac_part(&made.jac, 2, SAMPLES - 2);
  assert_ptr_equal(rest.g, g + 2 * WIDE);
  assert_null(rest.e);
  kwm_jac_output_score(&made.jac, found);
  assert_memory_equal(found, g, sizeof found);
  kwm_jac_score(&first, s, found);
  kwm_jac_score(&rest, s, found);
  assert_below(dense_error_f32(WIDTH, s, wanted), SUM);
  kwm_jac_diagonal(&made.jac, f, f + WIDTH, scratch);
  assert_below(dense_error_f32(WIDTH, f, information), SUM);
  assert_below(dense_error_f32(WIDTH, f + WIDTH, wanted), SUM);
  free(g), free(F), jac_drop(&made);
}

/* Inputs in a frame are cut like the others. */
static void test_part_framed(void **state) {
  (void)state;
  struct jac_case made = jac_outer(6, 3, 4, 5, 312);
  float *const aU = normal_floats(6 * 5, 313);
  assert_null(kwm_jac_part(&made.jac, 2, 3).aU);
  made.jac.aU = aU;
  assert_ptr_equal(kwm_jac_part(&made.jac, 2, 3).aU, aU + 2 * 5);
  free(aU), jac_drop(&made);
}

/* diag(HᵀH) and Hᵀe, both added to what is there (1 everywhere); a matrix is one block. */
static void check_diagonal(const struct kwm_jac *jac) {
  const bool outer = jac->shape == KWM_JAC_OUTER;
  const int64_t width = jac_columns(jac), p = outer ? width : jac->params, count = width / p;
  float *const f = normal_floats(2 * width, 9), *const s = f + width;
  float *const scratch = outer ? normal_floats(jac->n * (jac->d_o + jac->d_i), 10) : NULL;
  for (int64_t k = 0; k < 2 * width; k++) f[k] = 1;
  kwm_jac_diagonal(jac, f, s, scratch);
  double *const F = jac_dense_fisher(jac), *const score = jac_dense_score(jac), *const wanted = dense_new(2 * width);
  for (int64_t k = 0; k < width; k++) {
    const int64_t at = k % p * count + k / p;
    wanted[at] = 1 + F[k * width + k], wanted[width + at] = 1 + score[k];
  }
  assert_below(dense_error_f32(width, f, wanted), SUM);
  assert_below(dense_error_f32(width, s, wanted + width), SUM);
  free(f), free(scratch), free(F), free(score), free(wanted);
}

static void test_diagonal(void **state) {
  (void)state;
  for (int c = 0; c < UNITS; c++) {
    struct jac_case made = units_case(c);
    check_diagonal(&made.jac);
    jac_drop(&made);
  }
  for (int c = 0; c < OUTERS; c++) {
    struct jac_case made = outer_case(c);
    check_diagonal(&made.jac);
    jac_drop(&made);
  }
}

/* Rows of a part are rows of the whole. */
static void check_part(const struct kwm_jac *jac, int64_t first, int64_t n) {
  const struct kwm_jac part = kwm_jac_part(jac, first, n);
  const int64_t width = jac_columns(jac);
  assert_int_equal(part.n, n);
  assert_int_equal(part.m, jac->m);
  double *const whole = jac_rows(jac), *const rows = jac_rows(&part);
  if (n > 0) {
    assert_memory_equal(rows, whole + first * jac->m * width, (size_t)(n * jac->m * width) * sizeof *rows);
    assert_memory_equal(part.e, jac->e + first * jac->m, (size_t)(n * jac->m) * sizeof *part.e);
  }
  free(whole), free(rows);
}

static void test_part(void **state) {
  (void)state;
  struct jac_case u = jac_units(6, 3, 16, 5, 300), o = jac_outer(6, 3, 4, 5, 301);
  for (int64_t first = 0; first <= 6; first++)
    for (int64_t n = 0; n <= 6 - first; n++) {
      check_part(&u.jac, first, n);
      check_part(&o.jac, first, n);
    }
  jac_drop(&u), jac_drop(&o);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_fisher),   cmocka_unit_test(test_score_units), cmocka_unit_test(test_score_outer),
      cmocka_unit_test(test_dense),    cmocka_unit_test(test_part),        cmocka_unit_test(test_dense_outer),
      cmocka_unit_test(test_diagonal), cmocka_unit_test(test_given_score), cmocka_unit_test(test_part_framed),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
