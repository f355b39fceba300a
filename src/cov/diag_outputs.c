/* What a variance per parameter says about the outputs: C = sum_k p_k J_k J_kᵀ for every sample. A matrix has rows
   J ⊗ a, so that its variances weigh in by sum_j a_j² p_kj. */
#include "diag.h"

#include "kwm/backend.h"

/* C (m, m) += sum_k w_k J_k J_kᵀ for one sample's J (m, n) */
static void add_outputs(int64_t m, int64_t n, const double *J, const double *w, double *C) {
  for (int64_t r = 0; r < m; r++)
    for (int64_t s = r; s < m; s++) {
      double sum = 0;
      for (int64_t k = 0; k < n; k++) sum += w[k] * J[r * n + k] * J[s * n + k];
      C[r * m + s] += sum;
      if (s > r) C[s * m + r] += sum;
    }
}

/* w (n, d_o) <- sum_j a_j²/D_kj; squares: (n, d_i), variance: (d_o, d_i) scratch. */
static void output_weights(const kwm_cov *cov, const struct kwm_jac *jac, double *squares, double *variance,
                           double *w) {
  const struct diag_state *const state = cov->state;
  const int64_t o = jac->d_o, i = jac->d_i, n = jac->n;
  for (int64_t k = 0; k < n * i; k++) squares[k] = (double)jac->a[k] * (double)jac->a[k];
  for (int64_t k = 0; k < o * i; k++) variance[k] = 1 / reals_get(&state->D, k);
  kwm_gemm_f64(false, true, n, o, i, 1, squares, i, variance, i, 0, w, o);
}

static bool predict_matrix(const kwm_cov *cov, const struct kwm_jac *jac, double *C) {
  const int64_t o = jac->d_o, i = jac->d_i, n = jac->n, m = jac->m;
  double *w = NULL;
  if (kwm_alloc((void **)&w, (size_t)(n * o + n * i + o * i + m * o) * sizeof *w, "outputs' covariance") != KWM_OK)
    return false;
  double *const squares = w + n * o, *const variance = squares + n * i, *const J = variance + o * i;
  output_weights(cov, jac, squares, variance, w);
  for (int64_t s = 0; s < n; s++) {
    for (int64_t k = 0; k < m * o; k++) J[k] = (double)jac->J[s * m * o + k];
    add_outputs(m, o, J, w + s * o, C + s * m * m);
  }
  kwm_free(w);
  return true;
}

/* The rows of one sample at a time. */
static bool predict_units(const kwm_cov *cov, const struct kwm_jac *jac, double *C) {
  const struct diag_state *const state = cov->state;
  const int64_t n = diag_numbers(&cov->spec), m = jac->m;
  double *variance = NULL;
  if (kwm_alloc((void **)&variance, (size_t)(n + m * n) * sizeof *variance, "outputs' covariance") != KWM_OK)
    return false;
  double *const H = variance + n;
  for (int64_t k = 0; k < n; k++) variance[k] = 1 / reals_get(&state->D, k);
  for (int64_t s = 0; s < jac->n; s++) {
    const struct kwm_jac one = kwm_jac_part(jac, s, 1);
    kwm_jac_dense_f64(&one, H);
    add_outputs(m, n, H, variance, C + s * m * m);
  }
  kwm_free(variance);
  return true;
}

bool diag_outputs(const kwm_cov *cov, const struct kwm_jac *jac, double *C) {
  return jac->shape == KWM_JAC_OUTER ? predict_matrix(cov, jac, C) : predict_units(cov, jac, C);
}
