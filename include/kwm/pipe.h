/* The pipe: which rank owns which blocks, and how one mini-batch passes through the ranks of a replica.

   Activations go forward by messages, chunk after chunk: units' owners -> hidden layer's owner -> output layer's owner.
   The innovation and the linearised observation (rows of ∂ŷ/∂h) come back to the owners; parameters never travel. */
#pragma once

#include "kwm/data.h"
#include "kwm/lin.h"
#include "kwm/model.h"
#include "kwm/par.h"

enum { KWM_GROUP_RANKS_MAX = 128 };

/* Blocks [first, first + count) of each group, for every rank of a replica's group. */
struct kwm_share {
  int64_t first, count;
};
struct kwm_stages {
  int ranks; /* stages * owners */
  struct kwm_share share[KWM_GROUPS][KWM_GROUP_RANKS_MAX];
  int hidden_rank, output_rank; /* group ranks of the matrix blocks' owners */
};

/* Local, the same everywhere. Two stages: units on stage 0's owners, read-out on stage 1's; one stage: all blocks over
   its owners, balanced by estimated operations. KWM_ERR_USAGE if there are more owners than blocks to own. */
kwm_status kwm_stage_assign(struct kwm_stages *stages, const struct kwm_model *model, int64_t n_stages,
                            int64_t n_owners);

/* Estimated operations per sample of owning one block of a group (forward, Jacobian, evidence, update spread over a
   batch of `batch`). */
double kwm_stage_operations(const struct kwm_model *model, enum kwm_group_id group, int64_t batch);

typedef struct kwm_pipe kwm_pipe;

/* batch: samples of a step over all replicas, summed in `chunks` chunks. Local. Layout, model and stages are borrowed
   for the pipe's lifetime. */
kwm_status kwm_pipe_create(kwm_pipe **pipe, struct kwm_layout *layout, const struct kwm_model *model,
                           const struct kwm_stages *stages, int64_t batch, int64_t chunks);
void kwm_pipe_destroy(kwm_pipe *pipe);
size_t kwm_pipe_bytes(const struct kwm_model *model, const struct kwm_stages *stages, int group_rank, int64_t batch,
                      int64_t chunks, int64_t replicas);

/* Bytes that one step on a replica sends between its ranks for n samples: forward and back. */
double kwm_pipe_message_bytes(const struct kwm_model *model, const struct kwm_stages *stages, int64_t n);

/* Chunk c of n samples is [start(c), start(c + 1)); a replica works on chunks / replicas consecutive ones, at most
   kwm_pipe_samples_max samples. */
int64_t kwm_pipe_chunk_start(int64_t n, int64_t chunks, int64_t c);
int64_t kwm_pipe_samples_max(int64_t batch, int64_t replicas);

/* Collective over the replica's group. Linearises at the means of this rank's parts (mean[g]: (count_g, params_g),
   NULL where it owns nothing) for the global mini-batch order[0..n): fills lin, whose pointers stay valid until the
   next call. */
void kwm_pipe_linearise(kwm_pipe *pipe, float *const mean[KWM_GROUPS], const struct kwm_images *images, int64_t n,
                        const int32_t *order, struct kwm_lin *lin);

/* Collective over world: predictions of all samples of `images` without sensitivities; sums: their innovation's facts
   over all samples, the same on all ranks. */
void kwm_pipe_predict(kwm_pipe *pipe, float *const mean[KWM_GROUPS], const struct kwm_images *images,
                      struct kwm_innovation *sums);
