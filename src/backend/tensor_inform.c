/* The host's information of tokens (kwm/inform.h says what): sums in double, what is kept in single precision. */
#include <math.h>
#include <string.h>

#include "kwm/backend.h"
#include "tensor_host.h"

static float chance(const float *e, int32_t target, int64_t i) {
  const float p = i == target ? 1 - e[i] : -e[i];
  return p > 0 ? p : 0;
}

/* The likeliest class after `last` in the order of the list; last -1: of all. */
static int32_t next_likely(const struct kwm_likely *of, const float *e, int32_t target, int32_t last) {
  int32_t best = -1;
  const float bound = last < 0 ? 2 : chance(e, target, last);
  for (int32_t i = 0; i < (int32_t)of->classes; i++) {
    const float p = chance(e, target, i);
    if (p > bound || (p == bound && i <= last)) continue;
    if (best < 0 || p > chance(e, target, best)) best = i;
  }
  return best;
}

static void likely_rows(const struct kwm_likely *of, const float *e, int32_t target, const float *g,
                        const int32_t *listed, float *A) {
  const int64_t r = of->r, top = of->top;
  const double negligible = 1e-6;
  double rest = 1;
  for (int64_t j = 0; j < top; j++) rest -= (double)chance(e, target, listed[j]);
  for (int64_t k = 0; k < r; k++) {
    const double mean = (double)of->M[target * r + k] - (double)g[k];
    double others = mean;
    for (int64_t j = 0; j < top; j++) {
      const double p = (double)chance(e, target, listed[j]), row = (double)of->M[listed[j] * r + k];
      A[j * r + k] = (float)(sqrt(p) * (row - mean));
      others -= p * row;
    }
    A[top * r + k] = rest > negligible ? (float)(sqrt(rest) * (others / rest - mean)) : 0;
  }
}

void tensor_likely(kwm_device *d, const struct kwm_likely *of) {
  (void)d;
  for (int64_t s = 0; s < of->n; s++) {
    const float *const e = of->e + s * of->classes;
    int32_t *const listed = of->listed + s * of->top;
    for (int64_t j = 0; j < of->top; j++) listed[j] = next_likely(of, e, of->targets[s], j > 0 ? listed[j - 1] : -1);
    likely_rows(of, e, of->targets[s], of->g + s * of->r, listed, of->A + s * (of->top + 1) * of->r);
  }
}

/* Z (rows, r) of one stream, in the room. */
static bool factor(const struct kwm_inform *of, const float *A, const float *P) {
  const int64_t r = of->r, m = of->rows;
  double N[KWM_INFORM_ROWS * KWM_INFORM_ROWS];
  float *const G = of->room;
  kwm_gemm(false, false, m, r, r, sqrtf(of->weight), A, r, P, r, 0, G, r);
  for (int64_t i = 0; i < m; i++)
    for (int64_t j = 0; j < m; j++) {
      double sum = i == j;
      const double root = sqrt((double)of->weight);
      for (int64_t k = 0; k < r; k++) sum += root * (double)G[i * r + k] * (double)A[j * r + k];
      N[i * m + j] = sum;
    }
  if (!kwm_cholesky_f64(m, N, m)) return false;
  for (int64_t j = 0; j < m; j++)
    for (int64_t k = 0; k < r; k++) {
      double sum = (double)G[j * r + k];
      for (int64_t i = 0; i < j; i++) sum -= N[j * m + i] * (double)G[i * r + k];
      G[j * r + k] = (float)(sum / N[j * m + j]);
    }
  return true;
}

/* v <- a (v - P⁺AᵀA v) */
static void watch(const struct kwm_inform *of, const float *A, const float *P) {
  const int64_t r = of->r;
  double seen[KWM_INFORM_ROWS], along[KWM_INFORM_COORDINATES];
  for (int64_t j = 0; j < of->rows; j++) {
    seen[j] = 0;
    for (int64_t k = 0; k < r; k++) seen[j] += (double)A[j * r + k] * (double)of->watched[k];
  }
  for (int64_t k = 0; k < r; k++) {
    along[k] = 0;
    for (int64_t j = 0; j < of->rows; j++) along[k] += (double)of->weight * (double)A[j * r + k] * seen[j];
  }
  for (int64_t k = 0; k < r; k++) {
    double sum = (double)of->watched[k];
    for (int64_t i = 0; i < r; i++) sum -= (double)P[k * r + i] * along[i];
    of->watched[k] = (float)((double)of->decay * sum);
  }
}

/* From P⁺ to the next token's P. */
static void pass_time(const struct kwm_inform *of, float *P) {
  const int64_t r = of->r;
  const double keep = (double)of->decay * (double)of->decay, most = (double)r * (double)of->prior;
  double trace = 0;
  for (int64_t k = 0; k < r; k++) trace += keep * (double)P[k * r + k] + (double)of->noise;
  const double t = trace > most ? most / trace : 1;
  for (int64_t k = 0; k < r * r; k++) P[k] *= (float)(t * keep);
  for (int64_t k = 0; k < r; k++) P[k * r + k] += (float)(t * (double)of->noise);
}

static void follow(const struct kwm_inform *of, int64_t s, const double *g, const double *step, double share) {
  float *const trend = of->trend + s * of->r, *const pull = of->pull + 2 * s;
  double x = 0;
  for (int64_t k = 0; k < of->r; k++) {
    x += g[k] * (double)trend[k];
    trend[k] = (float)((double)KWM_INFORM_TREND * (double)trend[k] + share * step[k]);
  }
  pull[0] += (float)x, pull[1] += (float)(x * x);
}

static bool take(const struct kwm_inform *of, int64_t s) {
  const int64_t r = of->r;
  const float *const A = of->A + s * of->rows * r;
  float *const c = of->c + s * r, *const P = of->P + s * r * r;
  double step[KWM_INFORM_COORDINATES], g[KWM_INFORM_COORDINATES], promised = 0;
  if (!factor(of, A, P)) return false;
  kwm_gemm(true, false, r, r, of->rows, -1, of->room, r, of->room, r, 1, P, r);
  for (int64_t k = 0; k < r; k++) {
    g[k] = of->g != NULL ? (double)of->g[s * r + k] : 0;
    for (int64_t j = 0; j < of->rows && of->g == NULL; j++) g[k] += (double)A[j * r + k];
    g[k] *= (double)of->weight;
  }
  for (int64_t k = 0; k < r; k++) {
    step[k] = 0;
    for (int64_t i = 0; i < r; i++) step[k] += (double)P[k * r + i] * g[i];
    promised += step[k] * g[k];
  }
  const double bound = (double)of->bound, share = bound > 0 && promised > bound ? bound / promised : 1;
  for (int64_t k = 0; k < r; k++) c[k] = (float)((double)of->decay * ((double)c[k] + share * step[k]));
  if (!isfinite(promised)) return false;
  if (of->trend != NULL) follow(of, s, g, step, share);
  if (s == 0) watch(of, A, P);
  pass_time(of, P);
  return true;
}

void tensor_inform(kwm_device *d, const struct kwm_inform *of) {
  const int64_t r = of->r;
  (void)d;
  KWM_ASSERT(kwm_inform_fits(r, of->rows));
  for (int64_t s = 0; s < of->n; s++) {
    if (take(of, s)) continue;
    of->broken[s]++;
    for (int64_t k = 0; k < r; k++) of->c[s * r + k] = 0;
    for (int64_t k = 0; k < r * r; k++) of->P[s * r * r + k] = k % (r + 1) == 0 ? of->prior : 0;
  }
}

void tensor_lean(kwm_device *d, const struct kwm_lean *of) {
  (void)d;
  for (int64_t s = 0; s < of->n; s++)
    for (int64_t i = 0; i < of->classes; i++) tensor_lean_one(of, s, i);
}
