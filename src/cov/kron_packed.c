/* Sums of squares as evidence: what is sent, added up over chunks and replicas and cleared is little more than the
   upper triangle, and still made by matrix products. */
#include "kron.h"

#include "kwm/backend.h"

int64_t kron_packed(int64_t n) {
  int64_t length = 0;
  for (int64_t first = 0; first < n; first += KRON_PANEL) length += kron_panel(n, first) * (n - first);
  return length;
}

void kron_add_gram(int64_t n, int64_t rows, const float *values, float *packed) {
  for (int64_t first = 0; first < n; first += KRON_PANEL) {
    const int64_t width = kron_panel(n, first), left = n - first;
    kwm_gram(width, rows, 1.0f, values + first, n, 1.0f, packed, left);
    kwm_gemm(true, false, width, left - width, rows, 1.0f, values + first, n, values + first + width, n, 1.0f,
             packed + width, left);
    packed += width * left;
  }
}
