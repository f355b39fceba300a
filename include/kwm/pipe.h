/* The pipe: which rank owns which blocks, and how one mini-batch passes through the ranks of a replica.

   Activations go forward by messages, chunk after chunk, from the owners of one layer to the owner of the next. What a
   layer's Jacobian needs of the innovation comes back to its owner: gated, the rows of ∂ŷ/∂h; dense, rows or scores
   layer after layer (sensitivity: adjoint), or nothing from beyond its own read-out (stage). Parameters never travel.
 */
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
  struct kwm_share share[KWM_GROUPS_MAX][KWM_GROUP_RANKS_MAX];
  int owner[KWM_GROUPS_MAX]; /* group rank of a matrix block's owner */
};

/* Local, the same everywhere. Gated, two stages: units on stage 0's owners, read-out on stage 1's; one stage: all
   blocks over its owners. Dense: consecutive layers on consecutive ranks, a read-out where its layer is. Balanced by
   estimated operations. KWM_ERR_USAGE if there are more ranks than blocks to own. */
kwm_status kwm_stage_assign(struct kwm_stages *stages, const struct kwm_model *model, int64_t n_stages,
                            int64_t n_owners);

/* Estimated operations per sample of owning one block of a group (forward, Jacobian, evidence, update spread over a
   batch of `batch`). */
double kwm_stage_operations(const struct kwm_model *model, int group, int64_t batch);

typedef struct kwm_pipe kwm_pipe;

struct kwm_pipe_spec {
  int64_t batch, chunks; /* samples of a step over all replicas, summed in chunks */
  enum kwm_evidence evidence;
  uint64_t seed;      /* of what is drawn */
  double dropout;     /* share of hidden units that linearise and surprisal drop, the same of a step; predict none */
  kwm_device *device; /* borrowed: where activations and Jacobians are; the means given must be there; NULL: host */
  bool direct;        /* messages go from device to device where that can be (kwm/link.h) and no two ranks share one */
};

/* Layout, model and stages are borrowed for the pipe's lifetime. Local, but on a device with several ranks in a replica
   collective over world. */
kwm_status kwm_pipe_create(kwm_pipe **pipe, struct kwm_layout *layout, const struct kwm_model *model,
                           const struct kwm_stages *stages, const struct kwm_pipe_spec *spec);
void kwm_pipe_destroy(kwm_pipe *pipe);
size_t kwm_pipe_bytes(const struct kwm_model *model, const struct kwm_stages *stages, int group_rank,
                      const struct kwm_pipe_spec *spec, int64_t replicas);

/* What it takes on the device of a run with one. */
size_t kwm_pipe_device_bytes(const struct kwm_model *model, const struct kwm_stages *stages, int group_rank,
                             const struct kwm_pipe_spec *spec, int64_t replicas);

/* Rows of the Jacobian for each sample. */
int64_t kwm_pipe_rows(const struct kwm_model *model, enum kwm_evidence evidence);

/* How messages go, in words; "" if there are none on a device. */
const char *kwm_pipe_ways(const kwm_pipe *pipe);

/* Bytes that one step on a replica sends between its ranks for n samples: forward and back. */
double kwm_pipe_message_bytes(const struct kwm_model *model, const struct kwm_stages *stages,
                              const struct kwm_pipe_spec *spec, int64_t n);

/* Chunk c of n samples is [start(c), start(c + 1)); a replica works on chunks / replicas consecutive ones, at most
   kwm_pipe_samples_max samples. */
int64_t kwm_pipe_chunk_start(int64_t n, int64_t chunks, int64_t c);
int64_t kwm_pipe_samples_max(int64_t batch, int64_t replicas);

/* The means of this rank's parts: at[g] (count_g, params_g), NULL where it owns nothing; frame[g]: how a matrix is kept
   (kwm/lin.h), NULLs for plain. Only the first layer of a dense model may be framed. */
struct kwm_means {
  float *at[KWM_GROUPS_MAX];
  struct kwm_frame frame[KWM_GROUPS_MAX];
};

/* Collective over the replica's group. Linearises at the means for the global mini-batch: fills lin, whose pointers
   stay valid until the next call. */
void kwm_pipe_linearise(kwm_pipe *pipe, const struct kwm_means *means, const struct kwm_batch *batch,
                        struct kwm_lin *lin);

/* On a device, after a linearisation: the samples of the mini-batch that will be linearised next go there, behind what
   runs; batch may then be changed. Nothing without a device. Local. */
void kwm_pipe_ahead(kwm_pipe *pipe, const struct kwm_batch *next);

/* Collective over the replica's group: surprisal[c] (chunks of this replica) <- that of the local chunk c's samples at
   the means, as kwm_pipe_linearise would put it into lin (categorical: bit for bit); zero where the output is not
   owned. Forward only, and through the same buffers: what the last lin points to is gone. On a device, of the batch
   that was linearised last only its numbers and its step are looked at: its samples are there. */
void kwm_pipe_surprisal(kwm_pipe *pipe, const struct kwm_means *means, const struct kwm_batch *batch,
                        double *surprisal);

/* Collective over world: predictions of all samples of `images` without sensitivities; sums: their innovation's facts
   over all samples, the same on all ranks. */
void kwm_pipe_predict(kwm_pipe *pipe, const struct kwm_means *means, const struct kwm_images *images,
                      struct kwm_innovation *sums);

/* The outputs (n, classes) of the last kwm_pipe_linearise's samples on the output's owner, NULL elsewhere; the device's
   if there is one. Local. */
const float *kwm_pipe_outputs(const kwm_pipe *pipe);
