/* Spectrum, modes, observability of K, and K with its spectrum moved (equations (132), (133)). */
#include <math.h>
#include <string.h>

#include "kwm/backend.h"
#include "kwm/lift.h"

static void copy_K(const struct kwm_lift *lift, double *K) {
  const int size = lift->size;
  for (int i = 0; i < size; i++)
    memcpy(K + (int64_t)i * size, lift->A + (int64_t)i * (size + lift->spec.k), (size_t)size * sizeof *K);
}

/* Smallest over largest eigenvalue of Σ_j (Kʲ)ᵀCᵀC Kʲ, over `size` steps; T, G, E: (size, size) scratch. */
static double observability(const struct kwm_lift *lift, const double *K, const double *C, double *T, double *G,
                            double *E, double *values) {
  const int64_t size = lift->size, m = lift->spec.m, square = size * size;
  double *const next = E;
  memcpy(T, C, (size_t)(m * size) * sizeof *T); /* rows of C Kʲ */
  memset(G, 0, (size_t)square * sizeof *G);
  for (int64_t j = 0; j < size; j++) {
    kwm_gemm_f64(true, false, size, size, m, 1, T, size, T, size, 1, G, size);
    kwm_gemm_f64(false, false, m, size, size, 1, T, size, K, size, 0, next, size);
    memcpy(T, next, (size_t)(m * size) * sizeof *T);
  }
  double sum = 0;
  for (int64_t k = 0; k < square; k++) sum += G[k];
  if (!isfinite(sum) || !kwm_eigen_f64(size, G, values)) return NAN;
  return values[size - 1] > 0 ? values[0] / values[size - 1] : 0;
}

/* Eigenvalues with the first output's share of each mode, sorted by modulus: an insertion sort of four columns. */
static void sort(int64_t size, const double *real, const double *imaginary, const double *V, const double *C,
                 double *values, double *modes) {
  for (int64_t j = 0; j < size; j++) {
    const bool second = imaginary[j]<0, pair = imaginary[j]> 0 || second;
    const int64_t c = second ? j - 1 : j;
    double squares = 0, re = 0, im = 0;
    for (int64_t i = 0; i < size; i++) {
      const double a = V[i * size + c], b = !pair ? 0 : second ? -V[i * size + c + 1] : V[i * size + c + 1];
      squares += a * a + b * b;
      re += C[i] * a, im += C[i] * b;
    }
    const double mode[2] = {hypot(re, im) / sqrt(squares), atan2(im, re)};
    int64_t at = j;
    for (; at > 0 && hypot(values[2 * at - 2], values[2 * at - 1]) < hypot(real[j], imaginary[j]); at--) {
      memcpy(values + 2 * at, values + 2 * at - 2, 2 * sizeof *values);
      memcpy(modes + 2 * at, modes + 2 * at - 2, 2 * sizeof *modes);
    }
    values[2 * at] = real[j], values[2 * at + 1] = imaginary[j];
    memcpy(modes + 2 * at, mode, sizeof mode);
  }
}

kwm_status kwm_lift_spectrum(const struct kwm_lift *lift, double *values, double *modes, struct kwm_lift_facts *facts) {
  const int64_t size = lift->size, square = size * size;
  double *memory;
  const int64_t m = lift->spec.m;
  KWM_TRY(kwm_alloc((void **)&memory, (size_t)(4 * square + 4 * size + m + lift->window + m * size) * sizeof *memory,
                    "spectrum"));
  double *const K = memory, *const V = K + square, *const T = V + square, *const E = T + square;
  double *const real = E + square, *const imaginary = real + size, *const values_of = imaginary + size;
  double *const z = values_of + size, *const y = z + size, *const middle = y + m, *const C = middle + lift->window;
  if (lift->spec.encoder != NULL) kwm_lift_apply(lift, middle, z);
  kwm_lift_read(lift, z, y, C);
  copy_K(lift, K);
  facts->observability = observability(lift, K, C, T, V, E, values_of);
  const bool found = kwm_eigensystem_f64(size, K, real, imaginary, V);
  kwm_status status =
      found ? KWM_OK : KWM_RAISE(KWM_ERR_NUMERIC, "koopman: wanted K's eigenvalues, they did not converge");
  if (found) sort(size, real, imaginary, V, C, values, modes);
  facts->radius = 0, facts->unstable = 0;
  for (int64_t j = 0; j < size && found; j++) {
    const double modulus = hypot(values[2 * j], values[2 * j + 1]);
    facts->radius = fmax(facts->radius, modulus);
    facts->unstable += modulus > 1 + 1e-6;
  }
  kwm_free(memory);
  return status;
}

/* W <- V Λ' with |λ'| <= limit: columns of a pair turn together. */
static void scale_modes(int64_t size, double limit, const double *real, const double *imaginary, const double *V,
                        double *W) {
  for (int64_t j = 0; j < size; j++) {
    const double modulus = hypot(real[j], imaginary[j]), factor = modulus > limit ? limit / modulus : 1;
    const double a = factor * real[j], b = factor * imaginary[j];
    if (imaginary[j] < 0) continue;
    for (int64_t i = 0; i < size; i++) {
      const double x = V[i * size + j], y = imaginary[j] > 0 ? V[i * size + j + 1] : 0;
      W[i * size + j] = a * x - b * y;
      if (imaginary[j] > 0) W[i * size + j + 1] = b * x + a * y;
    }
  }
}

kwm_status kwm_lift_stabilise(struct kwm_lift *lift, double limit) {
  const int64_t size = lift->size, square = size * size;
  double *memory;
  KWM_TRY(kwm_alloc((void **)&memory, (size_t)(4 * square + 2 * size) * sizeof *memory, "spectrum"));
  double *const K = memory, *const V = K + square, *const W = V + square, *const Vt = W + square;
  double *const real = Vt + square, *const imaginary = real + size;
  copy_K(lift, K);
  bool right = kwm_eigensystem_f64(size, K, real, imaginary, V), beyond = false;
  for (int64_t j = 0; j < size; j++) beyond = beyond || hypot(real[j], imaginary[j]) > limit;
  if (right && beyond) {
    /* K' = V Λ' V⁻¹: K'ᵀ solves Vᵀ K'ᵀ = (V Λ')ᵀ. V acts as V_r on pairs, so the real columns serve. */
    scale_modes(size, limit, real, imaginary, V, W);
    for (int64_t i = 0; i < size; i++)
      for (int64_t j = 0; j < size; j++) Vt[j * size + i] = V[i * size + j], K[j * size + i] = W[i * size + j];
    right = kwm_solve_f64(size, size, Vt, K);
    for (int64_t i = 0; i < size && right; i++)
      for (int64_t j = 0; j < size; j++) right = right && isfinite(K[j * size + i]);
    for (int64_t i = 0; i < size && right; i++)
      for (int64_t j = 0; j < size; j++) lift->A[i * (size + lift->spec.k) + j] = K[j * size + i];
  }
  kwm_free(memory);
  KWM_CHECK(right, KWM_ERR_NUMERIC, "koopman: wanted K with %g as its largest modulus, found it not diagonalisable",
            limit);
  return KWM_OK;
}
