/* Work beside: on a stream of its own, between events on both. */
#include "cuda_state.h"

static void turn(struct cuda_state *state) {
  const cudaStream_t now = state->stream;
  state->stream = state->aside;
  state->aside = now;
}

static void open_aside(struct cuda_state *state) {
  CUDA_MUST(cuda, cuda_open_stream(&state->aside));
  CUDA_MUST(cuda, cudaEventCreateWithFlags(&state->begun, cudaEventDisableTiming));
  CUDA_MUST(cuda, cudaEventCreateWithFlags(&state->done, cudaEventDisableTiming));
}

void cuda_aside(kwm_device *d, bool begins) {
  struct cuda_state *const state = cuda_state_of(d);
  cuda_flush(d);
  if (begins) {
    if (state->aside == NULL) open_aside(state);
    CUDA_MUST(cuda, cudaEventRecord(state->begun, state->stream));
    CUDA_MUST(cuda, cudaStreamWaitEvent(state->aside, state->begun, 0));
  } else {
    CUDA_MUST(cuda, cudaEventRecord(state->done, state->stream));
  }
  turn(state);
}

void cuda_rejoin(kwm_device *d) {
  struct cuda_state *const state = cuda_state_of(d);
  cuda_flush(d);
  if (state->aside != NULL) CUDA_MUST(cuda, cudaStreamWaitEvent(state->stream, state->done, 0));
}

void cuda_aside_close(kwm_device *d) {
  struct cuda_state *const state = cuda_state_of(d);
  if (state->aside == NULL) return;
  cudaStreamSynchronize(state->aside);
  cudaEventDestroy(state->begun);
  cudaEventDestroy(state->done);
  cudaStreamDestroy(state->aside);
}
