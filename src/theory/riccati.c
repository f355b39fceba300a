/* The discrete algebraic Riccati equation by structured doubling: step k of the doubling is step 2^k of the Riccati
   recursion from P = 0 (equations.md 3(b), invariant 23). */
#include <math.h>
#include <string.h>

#include "kwm/backend.h"
#include "kwm/theory.h"

static const double CLOSE = 1e-13; /* relative change at which the doubling has arrived */
static const double GROWING = 0.4; /* relative change that is growth without end, */
enum { ENOUGH = 20 };              /* if it is still there after so many doublings: a million steps */

/* Everything of order n that a doubling needs, in one allocation. */
struct doubling {
  int64_t n;
  double *memory, *A, *G, *X; /* A_k, G_k, X_k */
  double *W, *V, *T, *U;      /* scratch */
};

static void multiply(int64_t n, bool ta, bool tb, const double *A, const double *B, double beta, double *C) {
  kwm_gemm_f64(ta, tb, n, n, n, 1, A, n, B, n, beta, C, n);
}

static void symmetrise(int64_t n, double *A) {
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = 0; j < i; j++) A[i * n + j] = A[j * n + i] = (A[i * n + j] + A[j * n + i]) / 2;
}

static double norm(int64_t n, const double *A) {
  double sum = 0;
  for (int64_t k = 0; k < n * n; k++) sum += A[k] * A[k];
  return sqrt(sum);
}

/* G <- CᵀR⁻¹C */
static bool information(int64_t n, int64_t m, const double *C, const double *R, double *L, double *Z, double *G) {
  memcpy(L, R, (size_t)(m * m) * sizeof *L);
  memcpy(Z, C, (size_t)(m * n) * sizeof *Z);
  if (!kwm_cholesky_f64(m, L, m)) return false;
  kwm_triangular_solve_f64(m, n, L, m, Z, n);
  kwm_gemm_f64(true, false, n, n, m, 1, Z, n, Z, n, 0, G, n);
  return true;
}

/* W <- (I + G X)⁻¹ */
static bool factor(struct doubling *d) {
  const int64_t n = d->n;
  multiply(n, false, false, d->G, d->X, 0, d->T);
  for (int64_t k = 0; k < n * n; k++) d->W[k] = k % (n + 1) == 0;
  for (int64_t k = 0; k < n; k++) d->T[k * n + k] += 1;
  return kwm_solve_f64(n, n, d->T, d->W);
}

/* One doubling; the relative change of X. */
static double twice(struct doubling *d) {
  const int64_t n = d->n;
  const size_t bytes = (size_t)(n * n) * sizeof(double);
  if (!factor(d)) return NAN;
  multiply(n, false, false, d->W, d->A, 0, d->V); /* ΩA */
  multiply(n, false, false, d->X, d->V, 0, d->T); /* XΩA */
  multiply(n, true, false, d->A, d->T, 0, d->U);  /* AᵀXΩA */
  const double moved = norm(n, d->U);
  for (int64_t k = 0; k < n * n; k++) d->X[k] += d->U[k];
  multiply(n, false, true, d->G, d->A, 0, d->T);  /* GAᵀ */
  multiply(n, false, false, d->W, d->T, 0, d->U); /* ΩGAᵀ */
  multiply(n, false, false, d->A, d->U, 1, d->G); /* G + AΩGAᵀ */
  multiply(n, false, false, d->A, d->V, 0, d->T); /* AΩA */
  memcpy(d->A, d->T, bytes);
  symmetrise(n, d->X), symmetrise(n, d->G);
  const double size = norm(n, d->X);
  return size <= 0 ? 0 : moved / size; /* NAN stays NAN */
}

/* |Q + A X (I + G X)⁻¹ Aᵀ - X| / |X| with G = CᵀR⁻¹C. */
static double residual(struct doubling *d, const double *A, const double *Q) {
  const int64_t n = d->n;
  if (!factor(d)) return NAN;
  multiply(n, false, false, d->X, d->W, 0, d->T);
  multiply(n, false, true, d->T, A, 0, d->U);
  memcpy(d->V, Q, (size_t)(n * n) * sizeof *Q);
  multiply(n, false, false, A, d->U, 1, d->V);
  for (int64_t k = 0; k < n * n; k++) d->V[k] -= d->X[k];
  const double size = norm(n, d->X);
  return size > 0 ? norm(n, d->V) / size : norm(n, d->V);
}

/* What grows and is not observed makes up half of X with every doubling at least, until numbers end. */
static enum kwm_riccati_verdict judge(int doublings, double before, double change) {
  if (change <= CLOSE) return KWM_RICCATI_CONVERGED;
  if (change >= GROWING && doublings >= ENOUGH) return KWM_RICCATI_UNDETECTABLE;
  if (before >= GROWING && !isfinite(change)) return KWM_RICCATI_UNDETECTABLE;
  return isfinite(change) ? KWM_RICCATI_SLOW : KWM_RICCATI_NUMERIC;
}

static void solve(struct doubling *d, int64_t m, const double *A, const double *C, const double *Q, const double *R,
                  int doublings, struct kwm_riccati_report *report) {
  const int64_t n = d->n;
  double *const L = d->memory + 7 * n * n, *const Z = L + m * m;
  *report = (struct kwm_riccati_report){.verdict = KWM_RICCATI_NUMERIC, .change = NAN, .residual = NAN};
  if (!information(n, m, C, R, L, Z, d->G)) return;
  for (int64_t k = 0; k < n * n; k++) d->A[k] = A[k % n * n + k / n];
  memcpy(d->X, Q, (size_t)(n * n) * sizeof *Q);
  double before = 0;
  bool goes_on = true;
  while (goes_on) {
    report->change = twice(d);
    report->doublings++;
    const bool winds_up = report->doublings >= ENOUGH && report->change >= GROWING;
    goes_on = report->doublings < doublings && report->change > CLOSE && !winds_up;
    if (goes_on) before = report->change;
  }
  report->verdict = judge(report->doublings, before, report->change);
  if (information(n, m, C, R, L, Z, d->G)) report->residual = residual(d, A, Q);
}

kwm_status kwm_riccati_doubling(int64_t n, int64_t m, const double *A, const double *C, const double *Q,
                                const double *R, int doublings, double *X, struct kwm_riccati_report *report) {
  const size_t square = (size_t)(n * n);
  struct doubling d = {.n = n};
  KWM_ASSERT(n > 0 && m > 0 && doublings > 0);
  KWM_TRY(kwm_alloc((void **)&d.memory, (7 * square + (size_t)(m * (m + n))) * sizeof(double), "Riccati equation"));
  d.A = d.memory, d.G = d.A + square, d.X = d.G + square, d.W = d.X + square;
  d.V = d.W + square, d.T = d.V + square, d.U = d.T + square;
  solve(&d, m, A, C, Q, R, doublings, report);
  memcpy(X, d.X, square * sizeof *X);
  kwm_free(d.memory);
  return KWM_OK;
}

const char *kwm_riccati_words(enum kwm_riccati_verdict verdict) {
  switch (verdict) {
  case KWM_RICCATI_CONVERGED: return "converged to the steady state";
  case KWM_RICCATI_SLOW: return "did not converge: a closed-loop pole on or next to the unit circle";
  case KWM_RICCATI_UNDETECTABLE: return "grows without bound: not detectable, what grows is not observed";
  case KWM_RICCATI_NUMERIC: break;
  }
  return "failed: R not positive definite, or numbers not finite";
}
