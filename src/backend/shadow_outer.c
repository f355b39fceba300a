/* The shadow device's rows J ⊗ a of a matrix (src/layer/jac.c): formed whole, then multiplied. */
#include "shadow.h"

#include "kwm/backend.h"

void shadow_outer_rows(kwm_device *d, int64_t n, int64_t m, int64_t o, int64_t i, const float *J, const float *a,
                       double *H) {
  const float *const rows = shadow_array(d, J, n * m * o, sizeof *J);
  const float *const inputs = shadow_array(d, a, n * i, sizeof *a);
  double *const to = shadow_array(d, H, n * m * o * i, sizeof *H);
  for (int64_t row = 0; row < n * m; row++)
    for (int64_t k = 0; k < o; k++)
      for (int64_t j = 0; j < i; j++)
        to[(row * o + k) * i + j] = (double)rows[row * o + k] * (double)inputs[row / m * i + j];
}

/* H, formed in their scratch; k: numbers of a product that follows each row. */
static double *form(kwm_device *d, const struct kwm_device_outer *rows, int64_t k) {
  const int64_t count = rows->n * rows->m, p = rows->o * rows->i;
  double *const H = shadow_array(d, rows->scratch, count * (p + k), sizeof *H);
  shadow_outer_rows(d, rows->n, rows->m, rows->o, rows->i, rows->J, rows->a, rows->scratch);
  return H;
}

void shadow_mirror_f64(kwm_device *d, int64_t n, double *A) {
  kwm_mirror_f64(n, shadow_array(d, A, n * n, sizeof *A), n);
}

void shadow_downdate_both(kwm_device *d, int64_t n, int64_t k, const double *Y, double *P) {
  shadow_gram_f64(d, n, k, -1, Y, 1, P);
  shadow_mirror_f64(d, n, P);
}

/* Many rows want both triangles: what stands below is read, so that it shows where it is another. */
static void multiply(int64_t count, int64_t p, const double *H, const double *P, double *Z) {
  if (count <= KWM_OUTER_FEW)
    kwm_symm_f64(count, p, 1, P, p, H, p, 0, Z, p);
  else
    kwm_gemm_f64(false, false, count, p, p, 1, H, p, P, p, 0, Z, p);
}

void shadow_outer_symm(kwm_device *d, const struct kwm_device_outer *rows, const double *P, int64_t k, const double *Y,
                       double *Z) {
  const int64_t count = rows->n * rows->m, p = rows->o * rows->i;
  double *const H = form(d, rows, k), *const G = H + count * p;
  double *const to = shadow_array(d, Z, count * p, sizeof *Z);
  multiply(count, p, H, shadow_array(d, P, p * p, sizeof *P), to);
  if (k == 0) return;
  const double *const others = shadow_array(d, Y, k * p, sizeof *Y);
  kwm_gemm_f64(false, true, count, k, p, 1, H, p, others, p, 0, G, k);
  kwm_gemm_f64(false, false, count, p, k, -1, G, k, others, p, 1, to, p);
}

void shadow_outer_share(kwm_device *d, const struct kwm_device_outer *rows, const double *Z, double keep, double *S) {
  form(d, rows, 0);
  shadow_gemmt_f64(d, rows->n * rows->m, rows->o * rows->i, Z, rows->scratch, keep, S);
}
