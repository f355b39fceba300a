/* Jacobian blocks made of random numbers, and the dense rows that they stand for, written as kwm/lin.h defines them. */
#pragma once

#include "dense.h"

#include "kwm/lin.h"

/* A jac that owns its arrays. */
struct jac_case {
  struct kwm_jac jac;
  float *J, *S, *a, *e;
};

/* n normal numbers of a stream; NULL for none. */
static inline float *normal_floats(int64_t n, uint64_t stream) {
  if (n == 0) return NULL;
  float *const array = calloc((size_t)n, sizeof *array);
  assert_non_null(array);
  for (int64_t k = 0; k < n; k++) array[k] = (float)test_normal(stream, k);
  return array;
}

static inline struct jac_case jac_units(int64_t n, int64_t m, int64_t count, int64_t params, uint64_t stream) {
  struct jac_case made = {.J = normal_floats(n * m * 2 * count, 4 * stream),
                          .S = normal_floats(n * 2 * params * count, 4 * stream + 1),
                          .e = normal_floats(n * m, 4 * stream + 2)};
  made.jac = (struct kwm_jac){.shape = KWM_JAC_UNITS, .n = n, .m = m, .count = count, .channels = 2, .params = params};
  made.jac.J = made.J, made.jac.S = made.S, made.jac.e = made.e;
  return made;
}

static inline struct jac_case jac_outer(int64_t n, int64_t m, int64_t d_o, int64_t d_i, uint64_t stream) {
  struct jac_case made = {.J = normal_floats(n * m * d_o, 4 * stream),
                          .a = normal_floats(n * d_i, 4 * stream + 1),
                          .e = normal_floats(n * m, 4 * stream + 2)};
  made.jac = (struct kwm_jac){.shape = KWM_JAC_OUTER, .n = n, .m = m, .d_o = d_o, .d_i = d_i};
  made.jac.J = made.J, made.jac.a = made.a, made.jac.e = made.e;
  return made;
}

static inline void jac_drop(struct jac_case *made) {
  free(made->J), free(made->S), free(made->a), free(made->e);
}

static inline int64_t jac_columns(const struct kwm_jac *jac) {
  return jac->shape == KWM_JAC_UNITS ? jac->count * jac->params : jac->d_o * jac->d_i;
}

/* Element (i, r), column k of H. */
static inline double jac_element(const struct kwm_jac *jac, int64_t i, int64_t r, int64_t column) {
  if (jac->shape == KWM_JAC_OUTER)
    return (double)jac->J[(i * jac->m + r) * jac->d_o + column / jac->d_i] *
           (double)jac->a[i * jac->d_i + column % jac->d_i];
  const int64_t u = column / jac->params, k = column % jac->params;
  double sum = 0;
  for (int64_t c = 0; c < jac->channels; c++)
    sum += (double)jac->J[((i * jac->m + r) * jac->channels + c) * jac->count + u] *
           (double)jac->S[((i * jac->channels + c) * jac->params + k) * jac->count + u];
  return sum;
}

/* Fills columns [first, ...) of H (n·m, width). */
static inline void jac_rows_into(const struct kwm_jac *jac, int64_t width, int64_t first, double *H) {
  for (int64_t i = 0; i < jac->n; i++)
    for (int64_t r = 0; r < jac->m; r++)
      for (int64_t k = 0; k < jac_columns(jac); k++)
        H[(i * jac->m + r) * width + first + k] = jac_element(jac, i, r, k);
}

/* H (n·m, columns). */
static inline double *jac_rows(const struct kwm_jac *jac) {
  double *const H = dense_new(jac->n * jac->m * jac_columns(jac));
  jac_rows_into(jac, jac_columns(jac), 0, H);
  return H;
}

static inline double *jac_innovation(const struct kwm_jac *jac) {
  double *const e = dense_new(jac->n * jac->m);
  for (int64_t k = 0; k < jac->n * jac->m; k++) e[k] = (double)jac->e[k];
  return e;
}

/* Hᵀe (columns). */
static inline double *jac_dense_score(const struct kwm_jac *jac) {
  const int64_t rows = jac->n * jac->m, width = jac_columns(jac);
  double *const H = jac_rows(jac), *const e = jac_innovation(jac), *const s = dense_new(width);
  for (int64_t row = 0; row < rows; row++)
    for (int64_t k = 0; k < width; k++) s[k] += H[row * width + k] * e[row];
  free(H), free(e);
  return s;
}

/* HᵀH (columns, columns). */
static inline double *jac_dense_fisher(const struct kwm_jac *jac) {
  const int64_t rows = jac->n * jac->m, width = jac_columns(jac);
  double *const H = jac_rows(jac), *const Ht = dense_new(rows * width), *const F = dense_new(width * width);
  dense_transpose(rows, width, H, Ht);
  dense_multiply(width, width, rows, Ht, H, F);
  free(H), free(Ht);
  return F;
}
