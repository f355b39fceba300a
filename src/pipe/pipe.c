/* The door to the models' pipes, and how a batch is cut: into chunks for a step, into blocks for predictions. */
#include "kwm/pipe.h"

#include <string.h>

#include "pipe_ops.h"

enum { BLOCK_MAX = 1024 };

int64_t kwm_pipe_chunk_start(int64_t n, int64_t chunks, int64_t c) {
  return n * c / chunks;
}

int64_t kwm_pipe_samples_max(int64_t batch, int64_t replicas) {
  int64_t most = 1;
  for (int64_t r = 0; r < replicas; r++) {
    const int64_t share = kwm_pipe_chunk_start(batch, replicas, r + 1) - kwm_pipe_chunk_start(batch, replicas, r);
    most = share > most ? share : most;
  }
  return most;
}

static const struct pipe_ops *ops_of(const struct kwm_model *model) {
  return model->kind == KWM_MODEL_DENSE ? &pipe_dense : &pipe_gated;
}

static int requests_of(const struct kwm_model *model, const struct kwm_stages *stages, int64_t chunks) {
  return (int)chunks * ops_of(model)->requests(model, stages);
}

size_t kwm_pipe_bytes(const struct kwm_model *model, const struct kwm_stages *stages, int group_rank,
                      const struct kwm_pipe_spec *spec, int64_t replicas) {
  const int64_t n_max = kwm_pipe_samples_max(spec->batch, replicas);
  return ops_of(model)->bytes(model, stages, group_rank, n_max, spec) +
         kwm_mem_rounded((size_t)requests_of(model, stages, spec->chunks) * sizeof(MPI_Request));
}

int64_t kwm_pipe_rows(const struct kwm_model *model, enum kwm_evidence evidence) {
  return evidence == KWM_EVIDENCE_SAMPLED ? 1 : model->classes;
}

kwm_status kwm_pipe_create(kwm_pipe **pipe, struct kwm_layout *layout, const struct kwm_model *model,
                           const struct kwm_stages *stages, const struct kwm_pipe_spec *spec) {
  const int64_t block = spec->batch / spec->chunks;
  const struct kwm_pipe filled = {.ops = ops_of(model),
                                  .layout = layout,
                                  .model = model,
                                  .stages = stages,
                                  .spec = *spec,
                                  .n_max = kwm_pipe_samples_max(spec->batch, layout->replicas),
                                  .block = block < 1           ? 1
                                           : block > BLOCK_MAX ? BLOCK_MAX
                                                               : block,
                                  .me = layout->stage * layout->owners + layout->owner,
                                  .requests_max = requests_of(model, stages, spec->chunks)};
  KWM_TRY(filled.ops->create(pipe, &filled));
  return kwm_alloc((void **)&(*pipe)->requests, (size_t)filled.requests_max * sizeof(MPI_Request), "requests");
}

void kwm_pipe_destroy(kwm_pipe *pipe) {
  if (pipe == NULL) return;
  pipe->ops->destroy(pipe);
  kwm_free(pipe->requests);
  kwm_free(pipe);
}

void pipe_send(struct kwm_pipe *pipe, int to, int tag, const float *data, int64_t floats) {
  KWM_ASSERT(pipe->n_requests < pipe->requests_max);
  pipe->requests[pipe->n_requests++] = kwm_par_send(pipe->layout, to, tag, data, floats * (int64_t)sizeof(float));
}

void pipe_receive(struct kwm_pipe *pipe, int from, int tag, float *data, int64_t floats) {
  kwm_par_receive(pipe->layout, from, tag, data, floats * (int64_t)sizeof(float));
}

void pipe_wait(struct kwm_pipe *pipe) {
  kwm_par_wait(pipe->layout, pipe->n_requests, pipe->requests);
  pipe->n_requests = 0;
}

void kwm_pipe_linearise(kwm_pipe *pipe, const struct kwm_means *means, const struct kwm_batch *batch,
                        struct kwm_lin *lin) {
  const int64_t chunks = pipe->spec.chunks, n = batch->n;
  const int64_t local = chunks / pipe->layout->replicas, base = local * pipe->layout->replica;
  const int64_t start = kwm_pipe_chunk_start(n, chunks, base);
  memset(lin, 0, sizeof *lin);
  lin->chunks = local;
  lin->batch = n;
  for (int64_t c = 0; c <= local; c++) lin->bounds[c] = kwm_pipe_chunk_start(n, chunks, base + c) - start;
  KWM_ASSERT(lin->bounds[local] <= pipe->n_max);
  pipe->ops->linearise(pipe, means, batch, start, lin);
}

void kwm_pipe_surprisal(kwm_pipe *pipe, const struct kwm_means *means, const struct kwm_batch *batch,
                        double *surprisal) {
  const int64_t chunks = pipe->spec.chunks, n = batch->n;
  const int64_t local = chunks / pipe->layout->replicas, base = local * pipe->layout->replica;
  const int64_t start = kwm_pipe_chunk_start(n, chunks, base);
  pipe->ops->begin(pipe, means);
  for (int64_t c = 0; c < local; c++) {
    const int64_t from = kwm_pipe_chunk_start(n, chunks, base + c), to = kwm_pipe_chunk_start(n, chunks, base + c + 1);
    struct kwm_innovation sums = {0};
    pipe->ops->predict(pipe, means, batch->images, (struct pipe_span){from - start, to - from}, batch->order + from,
                       &sums);
    surprisal[c] = sums.surprisal;
  }
  pipe_wait(pipe);
}

void kwm_pipe_predict(kwm_pipe *pipe, const struct kwm_means *means, const struct kwm_images *images,
                      struct kwm_innovation *sums) {
  const int64_t replicas = pipe->layout->replicas, block = pipe->block, slots = pipe->n_max / block;
  int32_t index[BLOCK_MAX];
  int64_t slot = 0;
  memset(sums, 0, sizeof *sums);
  pipe->ops->begin(pipe, means);
  for (int64_t first = block * pipe->layout->replica; first < images->n; first += block * replicas) {
    const int64_t n = images->n - first < block ? images->n - first : block;
    for (int64_t i = 0; i < n; i++) index[i] = (int32_t)(first + i);
    pipe->ops->predict(pipe, means, images, (struct pipe_span){slot * block, n}, index, sums);
    if (++slot < slots) continue;
    pipe_wait(pipe);
    slot = 0;
  }
  pipe_wait(pipe);
  kwm_par_sum_world(pipe->layout, KWM_INNOVATION_FIELDS, (double *)sums);
}

const float *kwm_pipe_outputs(const kwm_pipe *pipe) {
  return pipe->ops->outputs(pipe);
}

double kwm_pipe_message_bytes(const struct kwm_model *model, const struct kwm_stages *stages,
                              const struct kwm_pipe_spec *spec, int64_t n) {
  return ops_of(model)->message_bytes(model, stages, spec, n);
}
