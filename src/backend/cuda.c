/* One GPU of this host, opened, and its memory. Everything that is asked of it runs in order on one stream; the host
   waits only where something is read back. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cuda_state.h"
#include "device_open.h"

/* What cuBLAS wants on the largest GPUs. */
enum { BLAS_BYTES = 32 << 20, RING_BYTES = 16 << 20, RING_ALIGNMENT = 256 };

void cuda_failed(const char *call, const char *words, const char *file, int line) {
  fprintf(stderr, "kwm: backend cuda: %s: wanted success, found: %s [%s:%d]\n", call, words, file, line);
  abort();
}

const char *cuda_words_cuda(int error) {
  return cudaGetErrorString((cudaError_t)error);
}

const char *cuda_words_blas(int error) {
  return cublasGetStatusString((cublasStatus_t)error);
}

const char *cuda_words_solver(int error) {
  static char words[32];
  snprintf(words, sizeof words, "cuSOLVER status %d", error);
  return words;
}

/* Fails an opening with one line. */
#define OPEN_TRY(library, call, what)                                                                                  \
  do {                                                                                                                 \
    const int open_try_ = (int)(call);                                                                                 \
    KWM_CHECK(open_try_ == 0, KWM_ERR_SYSTEM, "backend cuda: wanted %s, found: %s", what,                              \
              cuda_words_##library(open_try_));                                                                        \
  } while (0)

/* Which of the host's devices, and what it is. */
static kwm_status choose(kwm_device *d, const struct kwm_device_spec *spec) {
  int count = 0;
  const cudaError_t found = cudaGetDeviceCount(&count);
  KWM_CHECK(found == cudaSuccess && count > 0, KWM_ERR_SYSTEM, "backend cuda: wanted a GPU, found none (%s)",
            found == cudaSuccess ? "no device" : cudaGetErrorString(found));
  struct cudaDeviceProp properties;
  d->index = spec->local_rank % count;
  OPEN_TRY(cuda, cudaSetDevice(d->index), "to use a GPU");
  OPEN_TRY(cuda, cudaGetDeviceProperties(&properties, d->index), "a GPU's properties");
  KWM_CHECK(properties.major >= 8, KWM_ERR_SYSTEM,
            "backend cuda: wanted compute capability 8.0 or more, found %d.%d (%s)", properties.major, properties.minor,
            properties.name);
  snprintf(d->words, sizeof d->words, "%.*s", (int)sizeof d->words - 1, properties.name);
  d->memory = (double)properties.totalGlobalMem;
  return KWM_OK;
}

static kwm_status take_memory(struct cuda_state *state) {
  const size_t parts = (size_t)CUDA_PARTS * CUDA_SUMS * sizeof(double);
  OPEN_TRY(cuda, cudaMalloc(&state->blas_room, BLAS_BYTES), "memory for cuBLAS");
  OPEN_TRY(cuda, cudaMalloc((void **)&state->scratch.parts, parts), "memory for sums");
  OPEN_TRY(cuda, cudaMalloc((void **)&state->scratch.done, sizeof *state->scratch.done), "memory for sums");
  OPEN_TRY(cuda, cudaMalloc((void **)&state->report, CUDA_REPORT * sizeof *state->report), "memory for reports");
  OPEN_TRY(cuda, cudaMemsetAsync(state->scratch.done, 0, sizeof *state->scratch.done, state->stream),
           "memory for sums");
  OPEN_TRY(cuda, cudaHostAlloc((void **)&state->ring, RING_BYTES, cudaHostAllocDefault), "pinned memory");
  return KWM_OK;
}

cudaError_t cuda_open_stream(cudaStream_t *stream) {
  int last = 0, first = 0;
  const cudaError_t error = cudaDeviceGetStreamPriorityRange(&last, &first);
  return error != cudaSuccess ? error : cudaStreamCreateWithPriority(stream, cudaStreamNonBlocking, first);
}

static kwm_status start(kwm_device *d, const struct kwm_device_spec *spec) {
  struct cuda_state *const state = cuda_state_of(d);
  OPEN_TRY(cuda, cuda_open_stream(&state->stream), "a stream");
  state->replay = cuda_replay_open(spec->graphs);
  KWM_CHECK(state->replay != NULL, KWM_ERR_SYSTEM, "backend cuda: wanted memory for calls, found none");
  KWM_TRY(take_memory(state));
  OPEN_TRY(blas, cublasCreate(&state->blas), "cuBLAS");
  OPEN_TRY(blas, cublasSetStream(state->blas, state->stream), "cuBLAS on a stream");
  OPEN_TRY(blas, cublasSetWorkspace(state->blas, state->blas_room, BLAS_BYTES), "cuBLAS with a workspace");
  OPEN_TRY(blas, cublasSetMathMode(state->blas, spec->tf32 ? CUBLAS_TF32_TENSOR_OP_MATH : CUBLAS_DEFAULT_MATH),
           "cuBLAS in a precision");
  OPEN_TRY(solver, cusolverDnCreate(&state->solver), "cuSOLVER");
  OPEN_TRY(solver, cusolverDnSetStream(state->solver, state->stream), "cuSOLVER on a stream");
  OPEN_TRY(cuda, cudaStreamSynchronize(state->stream), "an answer");
  return KWM_OK;
}

kwm_status device_open_cuda(kwm_device **device, const struct kwm_device_spec *spec) {
  kwm_device *d = NULL;
  KWM_TRY(kwm_alloc((void **)&d, sizeof *d, "cuda device"));
  d->ops = &cuda_ops;
  kwm_status status = kwm_alloc(&d->state, sizeof(struct cuda_state), "cuda device");
  if (status == KWM_OK) status = choose(d, spec);
  if (status == KWM_OK) status = start(d, spec);
  if (status == KWM_OK)
    *device = d;
  else
    cuda_close(d);
  return status;
}

/* Also of what was opened in part; what fails now is of no consequence. */
void cuda_close(kwm_device *d) {
  struct cuda_state *const state = cuda_state_of(d);
  if (state != NULL) {
    if (state->stream != NULL) cudaStreamSynchronize(state->stream);
    cuda_aside_close(d);
    cuda_eigen_close(d);
    cuda_replay_close(state->replay);
#ifdef KWM_NCCL
    cuda_leave(d);
#endif
    if (state->solver != NULL) cusolverDnDestroy(state->solver);
    if (state->blas != NULL) cublasDestroy(state->blas);
    cudaFree(state->room);
    cudaFree(state->blas_room);
    cudaFree(state->scratch.parts);
    cudaFree(state->scratch.done);
    cudaFree(state->report);
    cudaFreeHost(state->ring);
    if (state->stream != NULL) cudaStreamDestroy(state->stream);
  }
  kwm_free(state);
  kwm_free(d);
}

/* NULL: there was no memory. */
static void *given(cudaError_t error, void *at) {
  if (error == cudaErrorMemoryAllocation) {
    (void)cudaGetLastError(); /* later checks must not find it */
    return NULL;
  }
  CUDA_MUST(cuda, error);
  return at;
}

void *cuda_memory(size_t bytes) {
  void *at = NULL;
  const cudaError_t error = cudaMalloc(&at, bytes);
  return given(error, at);
}

void *cuda_alloc(kwm_device *d, size_t bytes, bool shared) {
  (void)d;
  void *at = NULL;
  if (!shared) return cuda_memory(bytes);
  const cudaError_t error = cudaHostAlloc(&at, bytes, cudaHostAllocMapped);
  return given(error, at);
}

void cuda_free(kwm_device *d, void *at) {
  struct cudaPointerAttributes attributes;
  cuda_wait(d);
  cuda_replay_forget(d);
  CUDA_MUST(cuda, cudaPointerGetAttributes(&attributes, at));
  if (attributes.type == cudaMemoryTypeHost)
    CUDA_MUST(cuda, cudaFreeHost(at));
  else
    CUDA_MUST(cuda, cudaFree(at));
}

/* Room for `bytes` that no copy still reads. */
static char *ring_take(kwm_device *d, size_t bytes) {
  struct cuda_state *const state = cuda_state_of(d);
  if (state->ring_at + bytes > RING_BYTES) {
    cuda_wait(d);
    state->ring_at = 0;
  }
  char *const at = state->ring + state->ring_at;
  state->ring_at += (bytes + RING_ALIGNMENT - 1) / RING_ALIGNMENT * RING_ALIGNMENT;
  return at;
}

void cuda_put(kwm_device *d, void *to, const void *from_host, size_t bytes) {
  for (size_t done = 0; done < bytes;) {
    const size_t left = bytes - done, piece = left < RING_BYTES ? left : RING_BYTES;
    char *const at = ring_take(d, piece);
    memcpy(at, (const char *)from_host + done, piece);
    CUDA_MUST(cuda, cudaMemcpyAsync((char *)to + done, at, piece, cudaMemcpyDefault, cuda_stream(d)));
    done += piece;
  }
}

void cuda_get(kwm_device *d, void *to_host, const void *from, size_t bytes) {
  CUDA_MUST(cuda, cudaMemcpyAsync(to_host, from, bytes, cudaMemcpyDefault, cuda_stream(d)));
  cuda_wait(d);
}

struct copy_rows_call {
  int64_t rows;
  size_t width, pitch_to, pitch_from;
  void *to;
  const void *from;
};

/* As one piece where it is one: a pitch has a limit, which the length of a copy does not have. */
static void play_copy_rows(kwm_device *d, const void *call) {
  const struct copy_rows_call *const c = call;
  const cudaStream_t stream = cuda_stream(d);
  const size_t rows = (size_t)c->rows;
  if (rows == 1 || (c->pitch_to == c->width && c->pitch_from == c->width))
    CUDA_MUST(cuda, cudaMemcpyAsync(c->to, c->from, c->width * rows, cudaMemcpyDefault, stream));
  else
    CUDA_MUST(cuda,
              cudaMemcpy2DAsync(c->to, c->pitch_to, c->from, c->pitch_from, c->width, rows, cudaMemcpyDefault, stream));
}

void cuda_copy_rows(kwm_device *d, int64_t rows, size_t width, void *to, size_t pitch_to, const void *from,
                    size_t pitch_from) {
  CUDA_ASK(d, copy_rows, rows, width, pitch_to, pitch_from, to, from);
}

struct zero_call {
  void *at;
  size_t bytes;
};

static void play_zero(kwm_device *d, const void *call) {
  const struct zero_call *const c = call;
  CUDA_MUST(cuda, cudaMemsetAsync(c->at, 0, c->bytes, cuda_stream(d)));
}

void cuda_zero(kwm_device *d, void *at, size_t bytes) {
  CUDA_ASK(d, zero, at, bytes);
}

void cuda_wait(kwm_device *d) {
  CUDA_MUST(cuda, cudaStreamSynchronize(cuda_stream(d)));
}
