/* The offset with a covariance of low rank: P = (λI + UᵀU)⁻¹, λ = 1 / prior. With K = UUᵀ, P g = (g - Uᵀ(λI + K)⁻¹U g)
   / λ, and U g is K's last column where g is U's last row. Kept when U is full: the leading half of its right singular
   vectors, row j of length sqrt(s_j), which is the best approximation of UᵀU of that rank. */
#include <math.h>
#include <string.h>

#include "correct_state.h"
#include "kwm/backend.h"

void correct_low_score(kwm_correct *correct, int64_t s, const float *logits, double log_sum, int32_t target) {
  const struct kwm_correct_spec *const spec = &correct->spec;
  const int64_t d = spec->width;
  const float least = (float)(log_sum + log(spec->cut));
  float *const score = correct->score + s * d;
  double rest = 1;
  memcpy(score, spec->W + target * d, (size_t)d * sizeof *score);
  for (int64_t i = 0; i < spec->classes; i++) {
    if (logits[i] < least) continue;
    const float p = expf(logits[i] - (float)log_sum), *const row = spec->W + i * d;
    for (int64_t k = 0; k < d; k++) score[k] -= p * row[k];
    rest -= (double)p;
    correct->sums.listed++;
  }
  for (int64_t k = 0; k < d && rest > 0; k++) score[k] -= (float)rest * correct->usual[k];
}

/* w (n) <- (λI + K)⁻¹ K's last column, n rows known. False: not definite. */
static bool solve(kwm_correct *correct, int64_t s, double *w) {
  const int64_t q = correct->spec.rank, n = correct->known[s];
  const double *const K = correct->K + s * q * q;
  double L[KWM_CORRECT_RANK * KWM_CORRECT_RANK];
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = 0; j < n; j++) L[i * n + j] = K[i * q + j] + (i == j ? 1 / correct->spec.prior : 0);
  for (int64_t i = 0; i < n; i++) w[i] = K[i * q + n - 1];
  return kwm_solve_f64(n, 1, L, w);
}

/* The row of this token's score: U and K. */
static void add_row(kwm_correct *correct, int64_t s) {
  const int64_t q = correct->spec.rank, d = correct->r, at = correct->known[s]++;
  float *const U = correct->U + s * q * d;
  double *const K = correct->K + s * q * q;
  memcpy(U + at * d, correct->score + s * d, (size_t)d * sizeof *U);
  for (int64_t j = 0; j <= at; j++) {
    float sum = 0;
    for (int64_t k = 0; k < d; k++) sum += U[j * d + k] * U[at * d + k];
    K[j * q + at] = K[at * q + j] = (double)sum;
  }
}

/* U is full: half of it stays, after the time that has passed since the last time. */
static bool compress(kwm_correct *correct, int64_t s) {
  const int64_t q = correct->spec.rank, d = correct->r, keep = q / 2;
  const double lambda = 1 / correct->spec.prior, steps = (double)(q - keep), a2 = pow(correct->spec.decay, 2 * steps);
  double Q[KWM_CORRECT_RANK * KWM_CORRECT_RANK], values[KWM_CORRECT_RANK];
  double *const K = correct->K + s * q * q;
  float *const U = correct->U + s * q * d;
  memcpy(Q, K, (size_t)(q * q) * sizeof *Q);
  if (!kwm_eigen_f64(q, Q, values)) return false;
  memset(K, 0, (size_t)(q * q) * sizeof *K);
  float *const kept = correct->kept;
  for (int64_t j = 0; j < keep; j++) {
    const double had = values[q - 1 - j], variance = a2 / (lambda + had) + steps * correct->spec.noise;
    const double has = 1 / variance - lambda, scale = had > 0 && has > 0 ? sqrt(has / had) : 0;
    memset(kept + j * d, 0, (size_t)d * sizeof *kept);
    for (int64_t i = 0; i < q; i++) {
      const float share = (float)(scale * Q[i * q + q - 1 - j]);
      for (int64_t k = 0; k < d; k++) kept[j * d + k] += share * U[i * d + k];
    }
    K[j * q + j] = scale > 0 ? has : 0;
  }
  memcpy(U, kept, (size_t)(keep * d) * sizeof *U);
  correct->known[s] = keep;
  return true;
}

/* A (d) <- P⁺g */
static void find_step(const kwm_correct *correct, int64_t s, const double *w) {
  const int64_t q = correct->spec.rank, d = correct->r;
  const float *const U = correct->U + s * q * d, *const g = correct->score + s * d;
  float *const sum = correct->kept;
  memcpy(sum, g, (size_t)d * sizeof *sum);
  for (int64_t j = 0; j < correct->known[s]; j++) {
    const float share = (float)w[j];
    for (int64_t k = 0; k < d; k++) sum[k] -= share * U[j * d + k];
  }
  for (int64_t k = 0; k < d; k++) correct->A[k] = correct->spec.prior * (double)sum[k];
}

/* c <- a (c + s P⁺g); the error watched: F = ggᵀ, so that P⁺Fv = P⁺g gᵀv. */
static bool move(kwm_correct *correct, int64_t s) {
  const int64_t d = correct->r;
  const float *const g = correct->score + s * d;
  double *const c = correct->c + s * d;
  double promised = 0, seen = 0;
  for (int64_t k = 0; k < d; k++) promised += correct->A[k] * (double)g[k];
  const double bound = correct->spec.bound, share = bound > 0 && promised > bound ? bound / promised : 1;
  for (int64_t k = 0; k < d; k++) c[k] = correct->spec.decay * (c[k] + share * correct->A[k]);
  if (!isfinite(promised)) return false;
  if (s > 0) return true;
  for (int64_t k = 0; k < d; k++) seen += correct->watched[k] * (double)g[k];
  for (int64_t k = 0; k < d; k++) correct->A[k] *= seen;
  correct_watch(correct, correct->A);
  return true;
}

void correct_low_update(kwm_correct *correct, int64_t s) {
  double w[KWM_CORRECT_RANK];
  add_row(correct, s);
  bool good = solve(correct, s, w);
  if (good) {
    find_step(correct, s, w);
    good = move(correct, s);
  }
  if (good && correct->known[s] == correct->spec.rank) good = compress(correct, s);
  if (good) return;
  correct->sums.broken++;
  correct_reset(correct, s);
}

void correct_low_state(const kwm_correct *correct, int64_t s, double *P) {
  const int64_t q = correct->spec.rank, d = correct->r, n = correct->known[s];
  const double prior = correct->spec.prior;
  const float *const U = correct->U + s * q * d;
  double L[KWM_CORRECT_RANK * KWM_CORRECT_RANK], X[KWM_CORRECT_RANK];
  for (int64_t k = 0; k < d; k++) {
    for (int64_t i = 0; i < n * n; i++)
      L[i] = correct->K[s * q * q + i / n * q + i % n] + (i % (n + 1) == 0 ? 1 / prior : 0);
    for (int64_t i = 0; i < n; i++) X[i] = (double)U[i * d + k];
    const bool good = n == 0 || kwm_solve_f64(n, 1, L, X);
    KWM_ASSERT(good);
    for (int64_t i = 0; i < d; i++) {
      double sum = i == k;
      for (int64_t j = 0; j < n; j++) sum -= (double)U[j * d + i] * X[j];
      P[i * d + k] = prior * sum;
    }
  }
}
