/* Products of Jacobian blocks, arranged so that the inner loop runs over blocks (UNITS) or is a matrix product (OUTER).

   UNITS: HᵀH = sum_i S_iᵀ (J_iᵀJ_i) S_i with a 2x2 middle, m times less work than forming the rows. */
#include "kwm/lin.h"

#include <string.h>

#include "kwm/backend.h"

enum { LANES = 16, CHANNELS = 2, PARAMS_MAX = 16 };

struct kwm_jac kwm_jac_part(const struct kwm_jac *jac, int64_t first, int64_t n) {
  struct kwm_jac part = *jac;
  part.n = n;
  if (jac->e != NULL) part.e = jac->e + first * jac->m;
  if (jac->shape == KWM_JAC_UNITS) {
    part.J = jac->J + first * jac->m * jac->channels * jac->count;
    part.S = jac->S + first * jac->channels * jac->params * jac->count;
  } else {
    part.J = jac->J + first * jac->m * jac->d_o;
    part.a = jac->a + first * jac->d_i;
    if (jac->aU != NULL) part.aU = jac->aU + first * jac->d_i;
    if (jac->g != NULL) part.g = jac->g + first * jac->d_o;
  }
  return part;
}

/* For one sample and LANES units: the metric JᵀJ = [rr ri; ri ii] and the cotangent Jᵀe. */
struct pullback {
  float rr[LANES], ri[LANES], ii[LANES], cr[LANES], ci[LANES];
};

static void pull_back(const struct kwm_jac *jac, int64_t i, int64_t u, struct pullback *restrict out) {
  *out = (struct pullback){0};
  for (int64_t r = 0; r < jac->m; r++) {
    const float *const Jr = jac->J + ((i * jac->m + r) * CHANNELS) * jac->count + u;
    const float *const Ji = Jr + jac->count;
    const float e = jac->e[i * jac->m + r];
    for (int l = 0; l < LANES; l++) {
      out->rr[l] += Jr[l] * Jr[l];
      out->ri[l] += Jr[l] * Ji[l];
      out->ii[l] += Ji[l] * Ji[l];
      out->cr[l] += Jr[l] * e;
      out->ci[l] += Ji[l] * e;
    }
  }
}

/* Adds one sample's SᵀMS (packed) and Sᵀc for LANES units to the accumulators. */
static void accumulate(const float *S, int64_t count, int64_t params, const struct pullback *restrict pull,
                       float (*restrict F)[LANES], float (*restrict s)[LANES]) {
  const float *const Sr = S, *const Si = S + params * count;
  int64_t index = 0;
  for (int64_t k = 0; k < params; k++) {
    float tr[LANES], ti[LANES];
    for (int l = 0; l < LANES; l++) {
      const float a = Sr[k * count + l], b = Si[k * count + l];
      tr[l] = pull->rr[l] * a + pull->ri[l] * b;
      ti[l] = pull->ri[l] * a + pull->ii[l] * b;
      s[k][l] += pull->cr[l] * a + pull->ci[l] * b;
    }
    for (int64_t j = k; j < params; j++, index++) {
      const float *const a = Sr + j * count, *const b = Si + j * count;
      for (int l = 0; l < LANES; l++) F[index][l] += tr[l] * a[l] + ti[l] * b[l];
    }
  }
}

void kwm_jac_fisher(const struct kwm_jac *jac, float *F, float *s) {
  KWM_ASSERT(jac->shape == KWM_JAC_UNITS && jac->channels == CHANNELS && jac->params <= PARAMS_MAX);
  KWM_ASSERT(jac->count % LANES == 0);
  const int64_t p = jac->params, count = jac->count, packed = kwm_packed(p);
  for (int64_t u = 0; u < count; u += LANES) {
    float Fl[PARAMS_MAX * (PARAMS_MAX + 1) / 2][LANES] = {{0}}, sl[PARAMS_MAX][LANES] = {{0}};
    for (int64_t i = 0; i < jac->n; i++) {
      struct pullback pull;
      pull_back(jac, i, u, &pull);
      accumulate(jac->S + i * CHANNELS * p * count + u, count, p, &pull, Fl, sl);
    }
    for (int64_t k = 0; k < packed; k++)
      for (int l = 0; l < LANES; l++) F[k * count + u + l] += Fl[k][l];
    for (int64_t k = 0; k < p; k++)
      for (int l = 0; l < LANES; l++) s[k * count + u + l] += sl[k][l];
  }
}

static void score_units(const struct kwm_jac *jac, float *s) {
  const int64_t p = jac->params, count = jac->count;
  for (int64_t u = 0; u < count; u += LANES) {
    for (int64_t i = 0; i < jac->n; i++) {
      struct pullback pull;
      pull_back(jac, i, u, &pull);
      const float *const Sr = jac->S + i * CHANNELS * p * count + u, *const Si = Sr + p * count;
      for (int64_t k = 0; k < p; k++)
        for (int l = 0; l < LANES; l++)
          s[k * count + u + l] += pull.cr[l] * Sr[k * count + l] + pull.ci[l] * Si[k * count + l];
    }
  }
}

void kwm_jac_output_score(const struct kwm_jac *jac, float *g) {
  if (jac->g != NULL) {
    memcpy(g, jac->g, (size_t)(jac->n * jac->d_o) * sizeof *g);
    return;
  }
  for (int64_t i = 0; i < jac->n; i++) {
    float *const row = g + i * jac->d_o;
    for (int64_t o = 0; o < jac->d_o; o++) row[o] = 0;
    for (int64_t r = 0; r < jac->m; r++) {
      const float e = jac->e[i * jac->m + r];
      const float *const J = jac->J + (i * jac->m + r) * jac->d_o;
      for (int64_t o = 0; o < jac->d_o; o++) row[o] += e * J[o];
    }
  }
}

void kwm_jac_score(const struct kwm_jac *jac, float *s, float *g) {
  if (jac->shape == KWM_JAC_UNITS) {
    score_units(jac, s);
    return;
  }
  kwm_jac_output_score(jac, g);
  kwm_gemm(true, false, jac->d_o, jac->d_i, jac->n, 1.0f, g, jac->d_o, jac->a, jac->d_i, 1.0f, s, jac->d_i);
}

static void diagonal_units(const struct kwm_jac *jac, float *f, float *s) {
  const int64_t p = jac->params, count = jac->count;
  KWM_ASSERT(jac->channels == CHANNELS && p <= PARAMS_MAX && count % LANES == 0);
  for (int64_t u = 0; u < count; u += LANES) {
    float fl[PARAMS_MAX][LANES] = {{0}}, sl[PARAMS_MAX][LANES] = {{0}};
    for (int64_t i = 0; i < jac->n; i++) {
      struct pullback pull;
      pull_back(jac, i, u, &pull);
      const float *const Sr = jac->S + i * CHANNELS * p * count + u, *const Si = Sr + p * count;
      for (int64_t k = 0; k < p; k++)
        for (int l = 0; l < LANES; l++) {
          const float a = Sr[k * count + l], b = Si[k * count + l];
          fl[k][l] += (pull.rr[l] * a + pull.ri[l] * b) * a + (pull.ri[l] * a + pull.ii[l] * b) * b;
          sl[k][l] += pull.cr[l] * a + pull.ci[l] * b;
        }
    }
    for (int64_t k = 0; k < p; k++)
      for (int l = 0; l < LANES; l++) {
        f[k * count + u + l] += fl[k][l];
        s[k * count + u + l] += sl[k][l];
      }
  }
}

/* f_ij += sum_n (sum_r J_nr,i²) a_n,j² */
void kwm_jac_diagonal(const struct kwm_jac *jac, float *f, float *s, float *scratch) {
  if (jac->shape == KWM_JAC_UNITS) {
    diagonal_units(jac, f, s);
    return;
  }
  const int64_t n = jac->n, o = jac->d_o, d = jac->d_i;
  float *const g2 = scratch, *const a2 = scratch + n * o;
  kwm_jac_score(jac, s, g2);
  for (int64_t k = 0; k < n * o; k++) g2[k] = 0;
  for (int64_t row = 0; row < n * jac->m; row++)
    for (int64_t k = 0; k < o; k++) g2[row / jac->m * o + k] += jac->J[row * o + k] * jac->J[row * o + k];
  for (int64_t k = 0; k < n * d; k++) a2[k] = jac->a[k] * jac->a[k];
  kwm_gemm(true, false, o, d, n, 1.0f, g2, o, a2, d, 1.0f, f, d);
}

static void dense_outer(const struct kwm_jac *jac, float *H) {
  const int64_t o = jac->d_o, d = jac->d_i;
  for (int64_t row = 0; row < jac->n * jac->m; row++) {
    const float *const a = jac->a + row / jac->m * d;
    for (int64_t k = 0; k < o; k++)
      for (int64_t j = 0; j < d; j++) H[(row * o + k) * d + j] = jac->J[row * o + k] * a[j];
  }
}

void kwm_jac_dense(const struct kwm_jac *jac, float *H) {
  if (jac->shape == KWM_JAC_OUTER) {
    dense_outer(jac, H);
    return;
  }
  const int64_t p = jac->params, count = jac->count;
  for (int64_t i = 0; i < jac->n; i++) {
    const float *const Sr = jac->S + i * CHANNELS * p * count, *const Si = Sr + p * count;
    for (int64_t r = 0; r < jac->m; r++) {
      const float *const Jr = jac->J + ((i * jac->m + r) * CHANNELS) * count, *const Ji = Jr + count;
      float *const row = H + (i * jac->m + r) * count * p;
      for (int64_t u = 0; u < count; u++)
        for (int64_t k = 0; k < p; k++) row[u * p + k] = Jr[u] * Sr[k * count + u] + Ji[u] * Si[k * count + u];
    }
  }
}

static void dense_outer_f64(const struct kwm_jac *jac, double *H) {
  const int64_t o = jac->d_o, d = jac->d_i;
  for (int64_t row = 0; row < jac->n * jac->m; row++) {
    const float *const a = jac->a + row / jac->m * d;
    for (int64_t k = 0; k < o; k++)
      for (int64_t j = 0; j < d; j++) H[(row * o + k) * d + j] = (double)jac->J[row * o + k] * (double)a[j];
  }
}

void kwm_jac_dense_f64(const struct kwm_jac *jac, double *H) {
  if (jac->shape == KWM_JAC_OUTER) {
    dense_outer_f64(jac, H);
    return;
  }
  const int64_t p = jac->params, count = jac->count, rows = jac->n * jac->m;
  for (int64_t row = 0; row < rows; row++) {
    const float *const Sr = jac->S + row / jac->m * CHANNELS * p * count, *const Si = Sr + p * count;
    const float *const Jr = jac->J + row * CHANNELS * count, *const Ji = Jr + count;
    for (int64_t u = 0; u < count; u++)
      for (int64_t k = 0; k < p; k++)
        H[(row * count + u) * p + k] =
            (double)Jr[u] * (double)Sr[k * count + u] + (double)Ji[u] * (double)Si[k * count + u];
  }
}
