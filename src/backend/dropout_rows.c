/* Dropout of the rows of a Jacobian, or of activations, on the host: for the host itself and for the shadow device. */
#include "dropout.h"
#include "tensor_host.h"

enum { QUAD = 4 };

void dropout_rows(int64_t n, int64_t m, int64_t w, int64_t ld, const struct kwm_dropout *drop, float *x) {
  for (int64_t i = 0; i < n; i++)
    for (int64_t first = 0; first < w; first += QUAD) {
      float factors[QUAD];
      tensor_keep4(drop, i, first / QUAD, factors);
      for (int64_t r = 0; r < m; r++)
        for (int64_t k = first; k < first + QUAD && k < w; k++) x[(i * m + r) * ld + k] *= factors[k - first];
    }
}
