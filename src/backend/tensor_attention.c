/* The host's causal attention: head by head, by matrix products on the columns of qkv. */
#include "tensor_host.h"

#include <math.h>

#include "kwm/backend.h"

enum { TILE = 64 };

/* Row i of the scores <- its softmax over j <= i, 0 beyond. */
static void soften(int64_t context, float scale, float *scores) {
  for (int64_t i = 0; i < context; i++) {
    float *const row = scores + i * context, top = row[0];
    for (int64_t j = 1; j <= i; j++) top = row[j] > top ? row[j] : top;
    double sum = 0;
    for (int64_t j = 0; j <= i; j++) sum += (double)(row[j] = expf(scale * (row[j] - top)));
    const float over = (float)(1 / sum);
    for (int64_t j = 0; j <= i; j++) row[j] *= over;
    for (int64_t j = i + 1; j < context; j++) row[j] = 0;
  }
}

void tensor_attention(kwm_device *d, const struct kwm_attention *a, const float *qkv, float *weights, float *out) {
  (void)d;
  const int64_t context = a->context, size = a->size, width = a->heads * size;
  const float scale = (float)(1 / sqrt((double)size));
  for (int64_t which = 0; which < a->sequences * a->heads; which++) {
    const int64_t row = which / a->heads * context, column = which % a->heads * size;
    const float *const q = qkv + row * 3 * width + column;
    float *const w = weights + which * context * context;
    kwm_gemm(false, true, context, context, size, 1, q, 3 * width, q + width, 3 * width, 0, w, context);
    soften(context, scale, w);
    kwm_gemm(false, false, context, size, context, 1, w, context, q + 2 * width, 3 * width, 0,
             out + row * width + column, width);
  }
}

/* One head's weights w (context, context) <- w (s - sᵀw by rows), s = sout vᵀ the score of the weights, by tiles on and
   below the diagonal. mean (context, size; ld): w v, for its row's product with sout is sᵀw. */
static void score_softmax(int64_t context, int64_t size, int64_t ld, const float *sout, int64_t ld_out, const float *v,
                          const float *mean, float *w) {
  float tile[TILE * TILE];
  double means[TILE];
  for (int64_t top = 0; top < context; top += TILE) {
    const int64_t rows = context - top < TILE ? context - top : TILE;
    for (int64_t i = 0; i < rows; i++) {
      means[i] = 0;
      for (int64_t k = 0; k < size; k++)
        means[i] += (double)sout[(top + i) * ld_out + k] * (double)mean[(top + i) * ld + k];
    }
    for (int64_t left = 0; left <= top; left += TILE) {
      const int64_t columns = context - left < TILE ? context - left : TILE;
      kwm_gemm(false, true, rows, columns, size, 1, sout + top * ld_out, ld_out, v + left * ld, ld, 0, tile, TILE);
      for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < columns; j++) w[(top + i) * context + left + j] *= tile[i * TILE + j] - (float)means[i];
    }
  }
}

/* The place of the score of q holds w v until it is due. */
void tensor_attention_adjoint(kwm_device *d, const struct kwm_attention *a, const float *qkv, float *weights,
                              const float *sout, float *sqkv) {
  (void)d;
  const int64_t context = a->context, size = a->size, width = a->heads * size, ld = 3 * width;
  const float scale = (float)(1 / sqrt((double)size));
  for (int64_t which = 0; which < a->sequences * a->heads; which++) {
    const int64_t row = which / a->heads * context, column = which % a->heads * size;
    const float *const q = qkv + row * ld + column, *const k = q + width, *const v = k + width;
    const float *const score = sout + row * width + column;
    float *const sq = sqkv + row * ld + column, *const sk = sq + width, *const sv = sk + width;
    float *const w = weights + which * context * context;
    kwm_gemm(false, false, context, size, context, 1, w, context, v, ld, 0, sq, ld);
    kwm_gemm(true, false, context, size, context, 1, w, context, score, width, 0, sv, ld);
    score_softmax(context, size, ld, score, width, v, sq, w);
    kwm_gemm(false, false, context, size, context, scale, w, context, k, ld, 0, sq, ld);
    kwm_gemm(true, false, context, size, context, scale, w, context, q, ld, 0, sk, ld);
  }
}
