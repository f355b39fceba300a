/* A device: memory of its own and the kernels that work there (kwm/device_ops.h). Local; one a process.

     shadow   plain C behind memory that only its kernels can touch, filled with NaN: finds missing copies without a GPU
     cuda     one GPU of this host: cuBLAS, cuSOLVER, own kernels

   NULL stands for the host wherever a device is asked for: host memory, OpenBLAS, and the rooms' own tuned loops, the
   reference (backend: cpu).

   Kernels of a device run in the order in which they were asked for, beside the host, which sees results after
   kwm_device_wait or through kwm_device_get. Memory is owned by who allocated it. */
#pragma once

#include "kwm/base.h"

struct kwm_device_ops;
struct kwm_dropout;
typedef struct kwm_device {
  const struct kwm_device_ops *ops;
  int index;       /* of the host's devices */
  char words[128]; /* what it is */
  double memory;   /* bytes it has */
  void *state;     /* the implementation's own */
} kwm_device;

/* What a device is to be. */
struct kwm_device_spec {
  int local_rank; /* of this process among those on the host: which of the host's devices it takes */
  bool tf32;      /* cuda: matrix products on tensor cores, inputs rounded to 10 bits of mantissa */
  bool graphs;    /* cuda: sequences of calls that come again go to the GPU as one; the same bits either way */
};

/* NAME "cpu": *device <- NULL. "cuda" without a GPU, or in a build without CUDA: KWM_ERR_SYSTEM, in words. */
kwm_status kwm_device_open(kwm_device **device, const char *name, const struct kwm_device_spec *spec);
void kwm_device_close(kwm_device *device); /* accepts NULL */

/* "cpu", "shadow", "cuda" */
const char *kwm_device_name(const kwm_device *device);

/* Memory of the device. alloc: contents undefined (host: zeros). share: memory that kernels write and, after a wait,
   the host reads (small results). Both accept 0 bytes; both free with kwm_device_free, which accepts NULL.
   KWM_ERR_SYSTEM: no room. */
kwm_status kwm_device_alloc(kwm_device *device, void **at, size_t bytes, const char *what);
kwm_status kwm_device_share(kwm_device *device, void **at, size_t bytes, const char *what);
void kwm_device_free(kwm_device *device, void *at);

/* put: host -> device; what is put may be changed at once. get: device -> host, waits for all that was asked before.
   copy, zero: within the device. None accepts overlaps. begin: what was asked for before begins now, if it has not,
   while the host does something that takes a while. */
void kwm_device_put(kwm_device *device, void *to, const void *from, size_t bytes);
void kwm_device_get(kwm_device *device, void *to, const void *from, size_t bytes);
void kwm_device_copy(kwm_device *device, void *to, const void *from, size_t bytes);
void kwm_device_zero(kwm_device *device, void *at, size_t bytes);
void kwm_device_begin(kwm_device *device);
void kwm_device_wait(kwm_device *device);

/* Work beside: the kernels (no products) asked for between aside(true) and aside(false) come after all that was asked
   before and run beside what is asked for later, until rejoin: what comes after it, a wait too, comes after them. One
   such piece comes after the other. A device may as well do it all in order. */
void kwm_device_aside(kwm_device *device, bool begins);
void kwm_device_rejoin(kwm_device *device);

/* rows of `width` floats within the device, `to` and `from` floats from row to row. */
void kwm_device_copy_rows(kwm_device *device, int64_t rows, int64_t width, float *to, int64_t ld_to, const float *from,
                          int64_t ld_from);

/* C <- alpha op(A) op(B) + beta C as kwm_gemm. */
void kwm_device_gemm(kwm_device *device, bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k,
                     float alpha, const float *A, int64_t lda, const float *B, int64_t ldb, float beta, float *C,
                     int64_t ldc);

/* x (n, m, w), rows ld floats apart: the m rows of sample i <- times what dropout keeps of row i (kwm/tensor.h). */
void kwm_device_drop(kwm_device *device, int64_t n, int64_t m, int64_t w, int64_t ld, const struct kwm_dropout *drop,
                     float *x);

/* y (n) += x (n) */
void kwm_device_add(kwm_device *device, int64_t n, const float *x, float *y);

/* Devices talk to each other without the host (cuda with NCCL): a group of `size` processes, each calling with its
   `rank` and the identity that one of them made. exchange: a message to `peer` of the group and one from it.
   join is collective; false from offers: there is no such way, and what is sent goes through the host (kwm/par.h). */
enum { KWM_DEVICE_IDENTITY = 128 };
bool kwm_device_offers(const kwm_device *device);
kwm_status kwm_device_identity(kwm_device *device, unsigned char identity[KWM_DEVICE_IDENTITY]);
kwm_status kwm_device_join(kwm_device *device, const unsigned char identity[KWM_DEVICE_IDENTITY], int rank, int size);
struct kwm_device_message {
  int64_t n; /* floats each way, > 0 */
  const float *send;
  float *receive;
};
void kwm_device_exchange(kwm_device *device, int peer, const struct kwm_device_message *message);
