/* Private to the CUDA backend: what a device holds, and what becomes of a call that fails. */
#pragma once

#include <cublas_v2.h>
#include <cusolverDn.h>
#include <stddef.h>

#include "cuda_kernels.h"
#include "cuda_replay.h"

/* stream, blas and solver: by cuda_stream and the like, which put on the stream what was asked for before. */
struct cuda_state {
  cudaStream_t stream;
  cublasHandle_t blas;
  cusolverDnHandle_t solver;
  struct cuda_replay *replay;
  void *blas_room; /* cuBLAS's workspace: a fixed one, so that equal calls give equal bits */

  struct cuda_scratch scratch;
  int *report; /* (CUDA_REPORT) what factorisations say; the device's */

  char *ring; /* pinned: what was put and not yet copied */
  size_t ring_at;

  void *room; /* scratch of what is done in one call, as large as was ever asked for */
  size_t room_bytes;

  struct cuda_seat *seats; /* where eigenproblems are solved (cuda_eigen.c) */

  cudaStream_t aside; /* the one that `stream` is not, of work and work beside; NULL until it is needed */
  cudaEvent_t begun, done;

  void *group; /* NCCL's communicator */
};
enum { CUDA_INFO, CUDA_NOT_FINITE, CUDA_REPORT };

static inline struct cuda_state *cuda_state_of(const kwm_device *d) {
  return d->state;
}

static inline cudaStream_t cuda_stream(kwm_device *d) {
  cuda_flush(d);
  return cuda_state_of(d)->stream;
}

static inline cublasHandle_t cuda_blas(kwm_device *d) {
  cuda_flush(d);
  return cuda_state_of(d)->blas;
}

static inline cusolverDnHandle_t cuda_solver(kwm_device *d) {
  cuda_flush(d);
  return cuda_state_of(d)->solver;
}

/* Most operations return nothing, and a device that fails in one of them is lost: one line, then the process ends. All
   four libraries say 0 for success. */
#define CUDA_MUST(library, call)                                                                                       \
  do {                                                                                                                 \
    const int cuda_must_ = (int)(call);                                                                                \
    if (cuda_must_ != 0) cuda_failed(#call, cuda_words_##library(cuda_must_), __FILE_NAME__, __LINE__);                \
  } while (0)
void cuda_failed(const char *call, const char *words, const char *file, int line) __attribute__((noreturn));

/* Words for what a library returned; static storage. */
const char *cuda_words_cuda(int error);
const char *cuda_words_blas(int error);
const char *cuda_words_solver(int error);

/* Starts a kernel on the device's stream. */
#define CUDA_LAUNCH(d, name, ...)                                                                                      \
  do {                                                                                                                 \
    cuda_##name(__VA_ARGS__, cuda_stream(d));                                                                          \
    CUDA_MUST(cuda, cudaPeekAtLastError());                                                                            \
  } while (0)

/* cuda_dense.c; see kwm/device_ops.h. */
void cuda_gemm(kwm_device *d, bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, float alpha,
               const float *A, int64_t lda, const float *B, int64_t ldb, float beta, float *C, int64_t ldc);
void cuda_gemm_f64(kwm_device *d, bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, double alpha,
                   const double *A, int64_t lda, const double *B, int64_t ldb, double beta, double *C, int64_t ldc);
bool cuda_factor_f64(kwm_device *d, int64_t n, double *W);
bool cuda_factor_solve_f64(kwm_device *d, int64_t n, double *S, double *x, double *x_host);

/* What factorisations say from the first on; good: waits for them. */
void cuda_clear_report(kwm_device *d);
bool cuda_good_report(kwm_device *d);

/* Memory of the device; NULL: there is not so much. */
void *cuda_memory(size_t bytes);

/* Scratch, until somebody else asks for it. NULL: there is not so much memory. */
double *cuda_room(kwm_device *d, size_t doubles);

/* cuda_eigen.c: see kwm/device_ops.h. */
void cuda_eigen_wake(kwm_device *d, int64_t n);
void *cuda_eigen_begin(kwm_device *d, const struct kwm_device_eigen *of);
bool cuda_eigen_end(kwm_device *d, void *begun);
void cuda_eigen_close(kwm_device *d);

/* cuda_large.c */
void cuda_gram_f64(kwm_device *d, int64_t n, int64_t k, double alpha, const double *A, double beta, double *C);
void cuda_symm_f64(kwm_device *d, int64_t m, int64_t n, const double *A, const double *B, double *C);
void cuda_gemmt_f64(kwm_device *d, int64_t m, int64_t k, const double *A, const double *B, double beta, double *C);
void cuda_solve_lower_f64(kwm_device *d, int64_t n, int64_t k, const double *L, double *B);

/* cuda_outer.c */
void cuda_form_rows(kwm_device *d, int64_t n, int64_t m, int64_t o, int64_t i, const float *J, const float *a,
                    double *H);
void cuda_outer_symm(kwm_device *d, const struct kwm_device_outer *rows, const double *P, int64_t k, const double *Y,
                     double *Z);
void cuda_outer_share(kwm_device *d, const struct kwm_device_outer *rows, const double *Z, double keep, double *S);
void cuda_downdate_both(kwm_device *d, int64_t n, int64_t k, const double *Y, double *P);
void cuda_mirror_upper(kwm_device *d, int64_t n, double *A);

/* cuda_nccl.c, with KWM_NCCL. leave: accepts that nothing was joined. */
bool cuda_identity(kwm_device *d, unsigned char identity[KWM_DEVICE_IDENTITY]);
bool cuda_join(kwm_device *d, const unsigned char identity[KWM_DEVICE_IDENTITY], int rank, int size);
void cuda_exchange(kwm_device *d, int peer, const struct kwm_device_message *message);
void cuda_leave(kwm_device *d);

/* cuda_ops.c: the table. cuda.c: its entries on memory. */
extern const struct kwm_device_ops cuda_ops;
extern const struct kwm_tensor_ops cuda_tensor; /* cuda_tensor.c */
extern const struct kwm_lane_ops cuda_lane;     /* cuda_lane.c */
void cuda_close(kwm_device *d);
void *cuda_alloc(kwm_device *d, size_t bytes, bool shared);
void cuda_free(kwm_device *d, void *at);
void cuda_put(kwm_device *d, void *to, const void *from_host, size_t bytes);
void cuda_get(kwm_device *d, void *to_host, const void *from, size_t bytes);
void cuda_copy_rows(kwm_device *d, int64_t rows, size_t width, void *to, size_t pitch_to, const void *from,
                    size_t pitch_from);
void cuda_zero(kwm_device *d, void *at, size_t bytes);
void cuda_wait(kwm_device *d);

/* A stream whose kernels go before those of eigenproblems beside them. */
cudaError_t cuda_open_stream(cudaStream_t *stream);

/* cuda_aside.c: see kwm/device.h. */
void cuda_aside(kwm_device *d, bool begins);
void cuda_rejoin(kwm_device *d);
void cuda_aside_close(kwm_device *d);
