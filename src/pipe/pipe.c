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

size_t kwm_pipe_device_bytes(const struct kwm_model *model, const struct kwm_stages *stages, int group_rank,
                             const struct kwm_pipe_spec *spec, int64_t replicas) {
  const int64_t n_max = kwm_pipe_samples_max(spec->batch, replicas);
  return ops_of(model)->device_bytes(model, stages, group_rank, n_max, spec) +
         pipe_place_bytes(model, stages, group_rank, n_max, spec) + (size_t)n_max +
         pipe_messages_bytes(ops_of(model), model, stages, group_rank, spec, replicas);
}

int64_t kwm_pipe_rows(const struct kwm_model *model, enum kwm_evidence evidence) {
  return evidence == KWM_EVIDENCE_SAMPLED ? 1 : model->classes;
}

static kwm_status create(kwm_pipe **pipe, const struct kwm_pipe *filled) {
  KWM_TRY(filled->ops->create(pipe, filled));
  KWM_TRY(pipe_place_init(*pipe));
  return kwm_alloc((void **)&(*pipe)->requests, (size_t)filled->requests_max * sizeof(MPI_Request), "requests");
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
  KWM_CHECK(spec->device == NULL || spec->evidence != KWM_EVIDENCE_OUTPUTS, KWM_ERR_USAGE,
            "pipe: wanted rows of the plain outputs on the host, found backend %s", kwm_device_name(spec->device));
  const kwm_status status = create(pipe, &filled);
  if (spec->device == NULL || stages->ranks == 1) return status;
  KWM_TRY(kwm_agree(layout->world, status));
  return pipe_messages_open(*pipe);
}

void kwm_pipe_destroy(kwm_pipe *pipe) {
  if (pipe == NULL) return;
  kwm_links_close(pipe->links);
  pipe->ops->destroy(pipe);
  pipe_place_fini(pipe);
  kwm_device_free(pipe->spec.device, pipe->labels);
  kwm_free(pipe->requests);
  kwm_free(pipe);
}

/* Nothing is dropped of what only asks for predictions. */
static void begin_drop(struct kwm_pipe *pipe, const struct kwm_batch *batch, int64_t start) {
  const bool drops = batch != NULL && pipe->spec.evidence != KWM_EVIDENCE_OUTPUTS;
  pipe->drop = (struct kwm_dropout){.seed = pipe->spec.seed,
                                    .step = drops ? batch->step : 0,
                                    .first = start,
                                    .rate = drops ? (float)pipe->spec.dropout : 0};
}

void pipe_drop(struct kwm_pipe *pipe, struct pipe_span span, int site, int64_t m, int64_t w, int64_t ld, float *x) {
  struct kwm_dropout drop = pipe->drop;
  drop.site = (uint32_t)site;
  drop.first += span.at;
  kwm_device_drop(pipe->spec.device, span.n, m, w, ld, &drop, x);
}

void kwm_pipe_linearise(kwm_pipe *pipe, const struct kwm_means *means, const struct kwm_batch *batch,
                        struct kwm_lin *lin) {
  const int64_t chunks = pipe->spec.chunks, n = batch->n;
  const int64_t local = chunks / pipe->layout->replicas, base = local * pipe->layout->replica;
  const int64_t start = kwm_pipe_chunk_start(n, chunks, base);
  memset(lin, 0, sizeof *lin);
  lin->chunks = local;
  lin->batch = n;
  lin->device = pipe->spec.device;
  lin->facts = pipe->place.facts;
  lin->categorical = !(pipe->model->noise_variance > 0);
  for (int64_t c = 0; c <= local; c++) lin->bounds[c] = kwm_pipe_chunk_start(n, chunks, base + c) - start;
  KWM_ASSERT(lin->bounds[local] <= pipe->n_max);
  begin_drop(pipe, batch, start);
  pipe_settle(pipe);
  pipe->ops->linearise(pipe, means, batch, start, lin);
  kwm_device_begin(pipe->spec.device);
}

/* sums += the facts of what a device predicted; nothing on the host, which added as it went. */
static void add_facts(const struct kwm_pipe *pipe, struct pipe_span span, struct kwm_innovation *sums) {
  if (pipe->place.seen == NULL) return;
  kwm_device_wait(pipe->spec.device);
  kwm_innovation_facts(sums, !(pipe->model->noise_variance > 0), span.n, pipe_facts(pipe->place.seen, span.at));
}

/* A device's surprisals, once all chunks are on their way. */
static void read_surprisal(const struct kwm_pipe *pipe, int64_t n, double *surprisal) {
  const int64_t chunks = pipe->spec.chunks, local = chunks / pipe->layout->replicas;
  const int64_t base = local * pipe->layout->replica, start = kwm_pipe_chunk_start(n, chunks, base);
  for (int64_t c = 0; c < local && pipe->place.seen != NULL; c++) {
    const int64_t from = kwm_pipe_chunk_start(n, chunks, base + c), to = kwm_pipe_chunk_start(n, chunks, base + c + 1);
    struct kwm_innovation sums = {0};
    add_facts(pipe, (struct pipe_span){from - start, to - from}, &sums);
    surprisal[c] = sums.surprisal;
  }
}

void kwm_pipe_surprisal(kwm_pipe *pipe, const struct kwm_means *means, const struct kwm_batch *batch,
                        double *surprisal) {
  const int64_t chunks = pipe->spec.chunks, n = batch->n;
  const int64_t local = chunks / pipe->layout->replicas, base = local * pipe->layout->replica;
  const int64_t start = kwm_pipe_chunk_start(n, chunks, base);
  const bool held = pipe->spec.device != NULL && pipe->place.held_step == (int64_t)batch->step;
  begin_drop(pipe, batch, start);
  pipe_settle(pipe);
  pipe->ops->begin(pipe, means);
  for (int64_t c = 0; c < local; c++) {
    const int64_t from = kwm_pipe_chunk_start(n, chunks, base + c), to = kwm_pipe_chunk_start(n, chunks, base + c + 1);
    struct kwm_innovation sums = {0};
    pipe->ops->predict(pipe, means, held ? NULL : batch->images, (struct pipe_span){from - start, to - from},
                       batch->order + from, &sums);
    surprisal[c] = sums.surprisal;
  }
  pipe_wait(pipe);
  read_surprisal(pipe, n, surprisal);
}

void kwm_pipe_predict(kwm_pipe *pipe, const struct kwm_means *means, const struct kwm_images *images,
                      struct kwm_innovation *sums) {
  const int64_t replicas = pipe->layout->replicas, block = pipe->block, slots = pipe->n_max / block;
  int32_t index[BLOCK_MAX];
  struct pipe_span done = {0, 0};
  memset(sums, 0, sizeof *sums);
  begin_drop(pipe, NULL, 0);
  pipe_settle(pipe);
  pipe->ops->begin(pipe, means);
  for (int64_t first = block * pipe->layout->replica; first < images->n; first += block * replicas) {
    const int64_t n = images->n - first < block ? images->n - first : block;
    for (int64_t i = 0; i < n; i++) index[i] = (int32_t)(first + i);
    pipe->ops->predict(pipe, means, images, (struct pipe_span){done.n, n}, index, sums);
    done.n += n;
    if (done.n < slots * block) continue;
    pipe_wait(pipe);
    pipe_settle(pipe);
    add_facts(pipe, done, sums);
    done.n = 0;
  }
  pipe_wait(pipe);
  add_facts(pipe, done, sums);
  kwm_par_sum_world(pipe->layout, KWM_INNOVATION_FIELDS, (double *)sums);
}

const float *kwm_pipe_outputs(const kwm_pipe *pipe) {
  return pipe->ops->outputs(pipe);
}

double kwm_pipe_message_bytes(const struct kwm_model *model, const struct kwm_stages *stages,
                              const struct kwm_pipe_spec *spec, int64_t n) {
  struct pipe_link list[PIPE_LINKS_MAX];
  const int links = ops_of(model)->links(model, stages, spec, list);
  double floats = 0;
  for (int k = 0; k < links; k++) floats += (double)list[k].floats;
  return floats * (double)n * sizeof(float);
}
