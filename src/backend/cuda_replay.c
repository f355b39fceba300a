/* Calls that are kept, and graphs of those that come again (cuda_replay.h). */
#include "cuda_replay.h"

#include <stdlib.h>
#include <string.h>

#include "cuda_state.h"

/* Bytes and calls that are kept at most, sequences that are remembered, and calls below which none is. */
enum { CALLS_BYTES = 1 << 14, CALLS_MOST = 128, SEQUENCES = 128, CALLS_FEW = 4 };

/* What a call's bytes follow; whole multiples of it. */
struct call {
  cuda_play *play;
  size_t bytes;
};

struct sequence {
  uint64_t hash;
  size_t bytes;
  char *calls;
  cudaGraphExec_t graph; /* NULL: seen once, or it cannot be captured */
  bool alone;            /* it cannot */
  int64_t used;          /* turn of last use; 0: this place is free */
};

struct cuda_replay {
  _Alignas(struct call) char calls[CALLS_BYTES];
  size_t bytes;
  int count;
  bool playing; /* what is asked for is done at once */
  int64_t turn;
  struct sequence sequences[SEQUENCES];
};

struct cuda_replay *cuda_replay_open(bool graphs) {
  struct cuda_replay *const replay = calloc(1, sizeof *replay);
  if (replay != NULL) replay->playing = !graphs;
  return replay;
}

static void drop(struct sequence *sequence) {
  if (sequence->graph != NULL) cudaGraphExecDestroy(sequence->graph);
  free(sequence->calls);
  memset(sequence, 0, sizeof *sequence);
}

void cuda_replay_close(struct cuda_replay *replay) {
  for (int k = 0; replay != NULL && k < SEQUENCES; k++) drop(&replay->sequences[k]);
  free(replay);
}

void cuda_replay_forget(kwm_device *d) {
  for (int k = 0; k < SEQUENCES; k++) drop(&cuda_state_of(d)->replay->sequences[k]);
}

void cuda_ask(kwm_device *d, cuda_play *play, const void *call, size_t bytes) {
  struct cuda_replay *const replay = cuda_state_of(d)->replay;
  const size_t whole =
      sizeof(struct call) + (bytes + sizeof(struct call) - 1) / sizeof(struct call) * sizeof(struct call);
  if (replay->playing) {
    play(d, call);
    return;
  }
  if (replay->count == CALLS_MOST || replay->bytes + whole > CALLS_BYTES) cuda_flush(d);
  char *const at = replay->calls + replay->bytes;
  memset(at, 0, whole);
  memcpy(at, &(struct call){play, bytes}, sizeof(struct call));
  memcpy(at + sizeof(struct call), call, bytes);
  replay->bytes += whole;
  replay->count++;
}

static void play_all(kwm_device *d) {
  const struct cuda_replay *const replay = cuda_state_of(d)->replay;
  for (size_t at = 0; at < replay->bytes;) {
    const struct call *const call = (const struct call *)(const void *)(replay->calls + at);
    call->play(d, call + 1);
    at += sizeof *call + (call->bytes + sizeof *call - 1) / sizeof *call * sizeof *call;
  }
}

/* FNV-1a over words. */
static uint64_t hash_of(const char *calls, size_t bytes) {
  uint64_t hash = 14695981039346656037u;
  for (size_t k = 0; k < bytes; k += sizeof hash) {
    uint64_t word;
    memcpy(&word, calls + k, sizeof word);
    hash = (hash ^ word) * 1099511628211u;
    hash ^= hash >> 32;
  }
  return hash;
}

static struct sequence *find(struct cuda_replay *replay, uint64_t hash) {
  for (int k = 0; k < SEQUENCES; k++) {
    struct sequence *const sequence = &replay->sequences[k];
    if (sequence->used > 0 && sequence->hash == hash && sequence->bytes == replay->bytes &&
        memcmp(sequence->calls, replay->calls, replay->bytes) == 0)
      return sequence;
  }
  return NULL;
}

/* In the place that has not been used for longest. Without memory for it nothing is remembered. */
static void remember(struct cuda_replay *replay, uint64_t hash) {
  struct sequence *oldest = &replay->sequences[0];
  for (int k = 1; k < SEQUENCES; k++)
    if (replay->sequences[k].used < oldest->used) oldest = &replay->sequences[k];
  drop(oldest);
  char *const calls = malloc(replay->bytes);
  if (calls == NULL) return;
  memcpy(calls, replay->calls, replay->bytes);
  *oldest = (struct sequence){.hash = hash, .bytes = replay->bytes, .calls = calls, .used = replay->turn};
}

static void capture(kwm_device *d, struct sequence *sequence) {
  const cudaStream_t stream = cuda_state_of(d)->stream;
  cudaGraph_t graph = NULL;
  CUDA_MUST(cuda, cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed));
  play_all(d);
  sequence->alone = cudaStreamEndCapture(stream, &graph) != cudaSuccess ||
                    cudaGraphInstantiateWithFlags(&sequence->graph, graph, 0) != cudaSuccess;
  if (sequence->alone) sequence->graph = NULL;
  if (graph != NULL) cudaGraphDestroy(graph);
  (void)cudaGetLastError(); /* later checks must not find it */
}

/* The first time one by one: what calls need of memory they then have. */
static void play(kwm_device *d) {
  struct cuda_replay *const replay = cuda_state_of(d)->replay;
  struct sequence *sequence = NULL;
  if (replay->count >= CALLS_FEW) {
    const uint64_t hash = hash_of(replay->calls, replay->bytes);
    replay->turn++;
    sequence = find(replay, hash);
    if (sequence == NULL)
      remember(replay, hash);
    else
      sequence->used = replay->turn;
  }
  if (sequence != NULL && sequence->graph == NULL && !sequence->alone) capture(d, sequence);
  if (sequence != NULL && sequence->graph != NULL)
    CUDA_MUST(cuda, cudaGraphLaunch(sequence->graph, cuda_state_of(d)->stream));
  else
    play_all(d);
}

void cuda_flush(kwm_device *d) {
  struct cuda_replay *const replay = cuda_state_of(d)->replay;
  if (replay == NULL || replay->count == 0 || replay->playing) return;
  replay->playing = true;
  play(d);
  replay->playing = false;
  replay->bytes = 0;
  replay->count = 0;
}
