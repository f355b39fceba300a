/* Launchers of a transformer's kernels, in C; arguments and meaning are those of kwm/tensor.h's operation of the same
   name unless said. */
#pragma once

#include "cuda_kernels.h"
#include "tensor_host.h"

#ifdef __cplusplus
extern "C" {
#endif

/* cuda_tensor.cu */
void cuda_tensor_embed(int64_t n, int64_t width, int64_t context, const int32_t *ids, const float *E, const float *pos,
                       const struct kwm_dropout *drop, float *x, cudaStream_t stream);
void cuda_tensor_gather(int64_t width, const struct kwm_gather *gather, const float *x, float *table,
                        cudaStream_t stream);
void cuda_tensor_fold(int64_t n, int64_t width, int64_t context, const float *x, float *sums, cudaStream_t stream);
void cuda_tensor_residual(int64_t n, int64_t width, const struct kwm_dropout *drop, const float *x, const float *f,
                          float *y, cudaStream_t stream);

/* cuda_tensor_norm.cu */
void cuda_tensor_norm(int64_t n, int64_t width, const float *x, const float *g, float *y, float *inv,
                      cudaStream_t stream);
void cuda_tensor_norm_adjoint(int64_t n, int64_t width, const float *x, const float *g, const float *inv,
                              const float *sy, const float *more, float *sx, float *sg, float *scratch,
                              cudaStream_t stream);

/* cuda_tensor_attention.cu. An array that is looked at once for each sequence and head, and where the next begins. */
enum { TENSOR_VIEWS = 9 };
struct cuda_view {
  float *base;
  int64_t per_sequence, per_head;
};

/* pointers (count, sequences · heads) <- the views' addresses. */
void cuda_tensor_point(int64_t sequences, int64_t heads, int count, const struct cuda_view *views, float **pointers,
                       cudaStream_t stream);
/* scores (rows, context), row i of every `context` rows <- softmax of scale times its first i + 1, then zeros. Adjoint:
   weights w <- w (s - sᵀw), s the score of the weights. */
void cuda_tensor_soften(int64_t rows, int64_t context, float scale, float *scores, cudaStream_t stream);
void cuda_tensor_soften_adjoint(int64_t rows, int64_t context, const float *s, float *weights, cudaStream_t stream);

/* cuda_tensor_heads.cu: attention in one kernel, with products in TF32, for the sizes and alignments that fit. */
bool cuda_tensor_heads_fit(const struct kwm_attention *a, const void *const arrays[4]);
void cuda_tensor_heads(const struct kwm_attention *a, const float *qkv, float *weights, float *out,
                       cudaStream_t stream);
void cuda_tensor_heads_adjoint(const struct kwm_attention *a, const float *qkv, const float *weights, const float *sout,
                               float *sqkv, cudaStream_t stream);

/* cuda_tensor_learn.cu */
void cuda_tensor_gelu(int64_t n, const float *u, float *y, cudaStream_t stream);
void cuda_tensor_gelu_adjoint(int64_t n, const float *u, const float *sy, float *su, cudaStream_t stream);
void cuda_tensor_riccati(int64_t n, const struct kwm_riccati_step *step, const float *y, float *f, float *m, float *p,
                         float *x, cudaStream_t stream);
void cuda_tensor_adam(int64_t n, const struct kwm_adam_step *step, const float *score, float *m, float *v, float *mean,
                      cudaStream_t stream);
void cuda_tensor_drift(int64_t n, float keep, float scale, const float *x, float *mean, cudaStream_t stream);
void cuda_tensor_norm2(int64_t n, const float *x, double *sums, const struct cuda_scratch *scratch,
                       cudaStream_t stream);
void cuda_tensor_quadratic(int64_t n, const float *w, const float *x, double *sums, const struct cuda_scratch *scratch,
                           cudaStream_t stream);

/* cuda_tensor_read.cu. half: the innovation goes to e (n, ld), zeros after the classes; logits and e aligned, ld a
   multiple of 4. narrow: to (all) <- x (n) rounded to bfloat16, then zeros; aligned. */
void cuda_tensor_categorical(int64_t n, int64_t classes, int64_t ld, const int32_t *targets, bool innovate,
                             float *logits, float *facts, cudaStream_t stream);
void cuda_tensor_categorical_half(int64_t n, int64_t classes, int64_t ld, const int32_t *targets, float *logits,
                                  uint16_t *e, float *facts, cudaStream_t stream);
void cuda_tensor_narrow(int64_t n, int64_t all, const float *x, uint16_t *to, cudaStream_t stream);

/* cuda_tensor_basis.cu: what lies between the products. *damping <- that of A (n, n). */
void cuda_tensor_damping(int64_t n, const float *A, double *damping, cudaStream_t stream);
/* B (n, n) <- A + damping I; *not_finite <- 1 if something is not. */
void cuda_tensor_damp(int64_t n, const float *A, const double *damping, float *B, int *not_finite, cudaStream_t stream);
/* *not_finite <- 1 if something in B (n, n) is not. */
void cuda_tensor_check(int64_t n, const float *B, int *not_finite, cudaStream_t stream);
/* U (n, n) <- B transposed */
void cuda_tensor_turn(int64_t n, const float *B, float *U, cudaStream_t stream);
/* X (n, n) <- of R (n, n) and the damping */
void cuda_tensor_first_order(int64_t n, const float *R, const double *damping, float *X, cudaStream_t stream);
/* *newton <- of G = XᵀX (n, n); then M <- scale M (power 1) or scale² M (power 2), and, `shifts`, I more; step k's
   M <- keep I - cut M, or Z <- (keep - cut - 1) I + (keep - cut) Z - cut (H + P), P = ZH, with H <- Z + Zᵀ + H. */
void cuda_tensor_bound(int64_t n, const float *G, struct tensor_newton *newton, const struct cuda_scratch *scratch,
                       cudaStream_t stream);
void cuda_tensor_shift(int64_t n, int power, bool shifts, const struct tensor_newton *newton, float *M,
                       cudaStream_t stream);
void cuda_tensor_newton(int64_t n, int step, const struct tensor_newton *newton, float *M, cudaStream_t stream);
void cuda_tensor_add_both(int64_t n, const float *Z, float *H, cudaStream_t stream);
void cuda_tensor_follow(int64_t n, int step, const struct tensor_newton *newton, const float *H, const float *P,
                        float *Z, cudaStream_t stream);
/* high (n) <- x to 10 bits of mantissa, low (n) <- the rest, exactly */
void cuda_tensor_split(int64_t n, const float *x, float *high, float *low, cudaStream_t stream);

/* cuda_inform.cu */
void cuda_inform_likely(const struct kwm_likely *likely, cudaStream_t stream);
void cuda_inform_take(const struct kwm_inform *inform, cudaStream_t stream);
void cuda_inform_lean(const struct kwm_lean *lean, cudaStream_t stream);

/* cuda_blocks.cu, cuda_shrink.cu, cuda_tally.cu */
void cuda_blocks_inform(const struct kwm_inform_low *inform, cudaStream_t stream);
void cuda_blocks_shrink(const struct kwm_inform_low *inform, cudaStream_t stream);
void cuda_blocks_tally(const struct kwm_tally *tally, cudaStream_t stream);
void cuda_blocks_steer(const struct kwm_steer *steer, cudaStream_t stream);
void cuda_blocks_shift(int64_t n, int64_t width, const float *c, float *x, cudaStream_t stream);

/* cuda_tensor.c: scratch, until somebody else asks for it. cuda_tensor_basis.c, cuda_tensor_read.c: the operations. */
void *cuda_tensor_room(kwm_device *d, size_t bytes);
bool cuda_tensor_basis(kwm_device *d, int64_t n, bool anew, const float *A, float *U, float *scratch);
void cuda_tensor_read(kwm_device *d, const struct kwm_read *read);
void cuda_tensor_half_gemm(kwm_device *d, int64_t m, int64_t n, int64_t k, const uint16_t *A, const uint16_t *B,
                           float *C);

#ifdef __cplusplus
}
#endif
