/* One mini-batch through the ranks of a replica, chunk after chunk.

     units' owners      h, S of chunk c                     -> h to the hidden layer's owner, without waiting
     hidden's owner     z = [Re h, Im h, 1], u, act          -> act to the output layer's owner
     output's owner     logits, innovation e, ∂ŷ/∂act        -> e, ∂ŷ/∂act back to the hidden layer's owner
     hidden's owner     ∂ŷ/∂h                                -> e and each owner's columns of it to the units' owners

   A rank may be several of these; a message to oneself is a copy or nothing at all. All ranks walk through chunks in
   the same order, so blocking receives cannot deadlock. */
#include "kwm/pipe.h"

#include <string.h>

#include "kwm/layer.h"
#include "kwm/sens.h"

enum { BLOCK_MAX = 1024 };
enum { TAG_STATE, TAG_ACT, TAG_INNOVATION, TAG_J_ACT, TAG_E, TAG_J_STATE };

struct kwm_pipe {
  struct kwm_layout *layout;
  const struct kwm_model *model;
  const struct kwm_stages *stages;
  int64_t n_max, chunks;
  int64_t block; /* samples predicted together: one size on every layout, so that results agree bitwise */
  int me;        /* rank in the replica's group */
  bool hidden_here, output_here;
  int64_t units;         /* own units */
  kwm_gated *gated;      /* NULL without units */
  float *h, *S;          /* units: (n, 2, units), (n, 2, params, units) */
  float *J_units;        /* units, hidden elsewhere: (n, m, 2, units) */
  float *e;              /* (n, m) */
  float *z, *u;          /* hidden: (n, 2 width + 1), (n, hidden) */
  float *act, *J_act;    /* hidden or output: (n, hidden + 1), (n, m, hidden) */
  float *J_state;        /* hidden: (n, m, 2 width) */
  float *staging;        /* hidden: (n, m, 2, units of q) for every owner q in turn */
  float *arriving;       /* hidden: (n, 2, width) states of one owner */
  float *logits, *J_out; /* output: (n, m), (n, m, m) */
  uint8_t *labels;       /* output: (n) */
  MPI_Request *requests;
  int n_requests, requests_max;
};

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

/* Array sizes of a rank in floats: one list for allocation and for `kwm plan`. */
struct pipe_sizes {
  size_t h, S, J_units, e, z, u, act, J_act, J_state, staging, arriving, logits, J_out;
};

static struct pipe_sizes sizes_of(const struct kwm_model *model, const struct kwm_stages *stages, int me, int64_t n) {
  const size_t units = (size_t)stages->share[KWM_GROUP_RECURRENCE][me].count, samples = (size_t)n;
  const size_t m = (size_t)model->classes, width = (size_t)model->width, hidden = (size_t)model->hidden;
  const bool hidden_here = stages->hidden_rank == me, output_here = stages->output_rank == me;
  struct pipe_sizes sizes = {.e = samples * m};
  sizes.h = samples * KWM_GATED_CHANNELS * units;
  sizes.S = sizes.h * KWM_GATED_PARAMS;
  if (!hidden_here) sizes.J_units = sizes.h * m;
  if (hidden_here) {
    sizes.z = samples * (KWM_GATED_CHANNELS * width + 1);
    sizes.u = samples * hidden;
    sizes.J_state = samples * m * KWM_GATED_CHANNELS * width;
    sizes.staging = sizes.J_state;
    sizes.arriving = samples * KWM_GATED_CHANNELS * width;
  }
  if (hidden_here || output_here) {
    sizes.act = samples * (hidden + 1);
    sizes.J_act = samples * m * hidden;
  }
  if (output_here) {
    sizes.logits = samples * m;
    sizes.J_out = samples * m * m;
  }
  return sizes;
}

static int requests_of(const struct kwm_stages *stages, int64_t chunks) {
  return (int)chunks * (4 + 2 * stages->ranks);
}

size_t kwm_pipe_bytes(const struct kwm_model *model, const struct kwm_stages *stages, int group_rank, int64_t batch,
                      int64_t chunks, int64_t replicas) {
  const int64_t n_max = kwm_pipe_samples_max(batch, replicas);
  const struct pipe_sizes s = sizes_of(model, stages, group_rank, n_max);
  const size_t floats[] = {s.h,     s.S,       s.J_units, s.e,        s.z,      s.u,    s.act,
                           s.J_act, s.J_state, s.staging, s.arriving, s.logits, s.J_out};
  size_t bytes = kwm_mem_rounded(sizeof(struct kwm_pipe)) + kwm_mem_rounded((size_t)n_max) +
                 kwm_mem_rounded((size_t)requests_of(stages, chunks) * sizeof(MPI_Request));
  for (size_t k = 0; k < sizeof floats / sizeof floats[0]; k++) bytes += kwm_mem_rounded(floats[k] * sizeof(float));
  const int64_t units = stages->share[KWM_GROUP_RECURRENCE][group_rank].count;
  if (units > 0) bytes += kwm_gated_bytes(units, model->length, n_max);
  return bytes;
}

static kwm_status allocate(kwm_pipe *pipe) {
  const struct pipe_sizes s = sizes_of(pipe->model, pipe->stages, pipe->me, pipe->n_max);
  const struct {
    float **at;
    size_t floats;
  } list[] = {{&pipe->h, s.h},
              {&pipe->S, s.S},
              {&pipe->J_units, s.J_units},
              {&pipe->e, s.e},
              {&pipe->z, s.z},
              {&pipe->u, s.u},
              {&pipe->act, s.act},
              {&pipe->J_act, s.J_act},
              {&pipe->J_state, s.J_state},
              {&pipe->staging, s.staging},
              {&pipe->arriving, s.arriving},
              {&pipe->logits, s.logits},
              {&pipe->J_out, s.J_out}};
  for (size_t k = 0; k < sizeof list / sizeof list[0]; k++)
    KWM_TRY(kwm_alloc((void **)list[k].at, list[k].floats * sizeof(float), "activations"));
  return kwm_alloc((void **)&pipe->labels, (size_t)pipe->n_max, "labels");
}

kwm_status kwm_pipe_create(kwm_pipe **pipe, struct kwm_layout *layout, const struct kwm_model *model,
                           const struct kwm_stages *stages, int64_t batch, int64_t chunks) {
  const int64_t n_max = kwm_pipe_samples_max(batch, layout->replicas);
  KWM_TRY(kwm_alloc((void **)pipe, sizeof **pipe, "pipe"));
  kwm_pipe *p = *pipe;
  p->layout = layout;
  p->model = model;
  p->stages = stages;
  p->n_max = n_max;
  p->block = batch / chunks < 1 ? 1 : batch / chunks > BLOCK_MAX ? BLOCK_MAX : batch / chunks;
  p->chunks = chunks;
  p->me = layout->stage * layout->owners + layout->owner;
  p->hidden_here = stages->hidden_rank == p->me;
  p->output_here = stages->output_rank == p->me;
  p->units = stages->share[KWM_GROUP_RECURRENCE][p->me].count;
  p->requests_max = requests_of(stages, chunks);
  KWM_TRY(allocate(p));
  KWM_TRY(kwm_alloc((void **)&p->requests, (size_t)p->requests_max * sizeof *p->requests, "requests"));
  if (p->units > 0) KWM_TRY(kwm_gated_create(&p->gated, p->units, model->length, n_max));
  for (int64_t i = 0; i < n_max && p->hidden_here; i++) p->z[(i + 1) * (KWM_GATED_CHANNELS * model->width + 1) - 1] = 1;
  return KWM_OK;
}

void kwm_pipe_destroy(kwm_pipe *pipe) {
  if (pipe == NULL) return;
  float *const arrays[] = {pipe->h,        pipe->S,      pipe->J_units, pipe->e,       pipe->z,
                           pipe->u,        pipe->act,    pipe->J_act,   pipe->J_state, pipe->staging,
                           pipe->arriving, pipe->logits, pipe->J_out};
  for (size_t k = 0; k < sizeof arrays / sizeof arrays[0]; k++) kwm_free(arrays[k]);
  kwm_gated_destroy(pipe->gated);
  kwm_free(pipe->labels);
  kwm_free(pipe->requests);
  kwm_free(pipe);
}

static void send(kwm_pipe *pipe, int to, int tag, const float *data, int64_t floats) {
  KWM_ASSERT(pipe->n_requests < pipe->requests_max);
  pipe->requests[pipe->n_requests++] = kwm_par_send(pipe->layout, to, tag, data, floats * (int64_t)sizeof(float));
}

static void receive(kwm_pipe *pipe, int from, int tag, float *data, int64_t floats) {
  kwm_par_receive(pipe->layout, from, tag, data, floats * (int64_t)sizeof(float));
}

static void wait_sends(kwm_pipe *pipe) {
  kwm_par_wait(pipe->layout, pipe->n_requests, pipe->requests);
  pipe->n_requests = 0;
}

/* Samples [at, at + n) of the buffers: a chunk in hand. */
struct span {
  int64_t at, n;
};

static void units_forward(kwm_pipe *pipe, struct span span, const struct kwm_images *images, const int32_t *index,
                          bool sensitivities) {
  if (pipe->units == 0) return;
  const int64_t wide = KWM_GATED_CHANNELS * pipe->units;
  float *const h = pipe->h + span.at * wide;
  float *const S = sensitivities ? pipe->S + span.at * wide * KWM_GATED_PARAMS : NULL;
  kwm_gated_forward(pipe->gated, span.n, images->pixels, index, h, S);
  if (!pipe->hidden_here) send(pipe, pipe->stages->hidden_rank, TAG_STATE, h, span.n * wide);
}

/* z rows <- the states of every owner's units. */
static void collect_states(kwm_pipe *pipe, struct span span) {
  const int64_t width = pipe->model->width, row = KWM_GATED_CHANNELS * width + 1;
  for (int q = 0; q < pipe->stages->ranks; q++) {
    const struct kwm_share share = pipe->stages->share[KWM_GROUP_RECURRENCE][q];
    if (share.count == 0) continue;
    const int64_t wide = KWM_GATED_CHANNELS * share.count;
    const float *from = pipe->h + span.at * wide;
    if (q != pipe->me) {
      receive(pipe, q, TAG_STATE, pipe->arriving, span.n * wide);
      from = pipe->arriving;
    }
    for (int64_t i = 0; i < span.n; i++)
      for (int64_t c = 0; c < KWM_GATED_CHANNELS; c++)
        memcpy(pipe->z + (span.at + i) * row + c * width + share.first,
               from + (i * KWM_GATED_CHANNELS + c) * share.count, (size_t)share.count * sizeof(float));
  }
}

static void hidden_forward(kwm_pipe *pipe, struct span span, const float *W) {
  const struct kwm_model *const model = pipe->model;
  const int64_t d_i = model->groups[KWM_GROUP_HIDDEN].d_i, hidden = model->hidden;
  float *const u = pipe->u + span.at * hidden, *const act = pipe->act + span.at * (hidden + 1);
  collect_states(pipe, span);
  kwm_dense_forward(span.n, d_i, hidden, W, pipe->z + span.at * d_i, u, hidden);
  kwm_relu_forward(span.n, hidden, u, act);
  if (!pipe->output_here) send(pipe, pipe->stages->output_rank, TAG_ACT, act, span.n * (hidden + 1));
}

static void receive_act(kwm_pipe *pipe, struct span span) {
  const int64_t d_i = pipe->model->hidden + 1;
  if (!pipe->hidden_here) receive(pipe, pipe->stages->hidden_rank, TAG_ACT, pipe->act + span.at * d_i, span.n * d_i);
}

static void take_labels(kwm_pipe *pipe, struct span span, const struct kwm_images *images, const int32_t *index) {
  for (int64_t i = 0; i < span.n; i++) pipe->labels[span.at + i] = images->labels[index[i]];
}

static void output_linearise(kwm_pipe *pipe, struct span span, const float *W, struct kwm_innovation *sums) {
  const int64_t m = pipe->model->classes, hidden = pipe->model->hidden;
  const struct kwm_sens_output out = {.logits = pipe->logits + span.at * m,
                                      .e = pipe->e + span.at * m,
                                      .J = pipe->J_out + span.at * m * m,
                                      .J_act = pipe->J_act + span.at * m * hidden};
  receive_act(pipe, span);
  kwm_sens_output(pipe->model, span.n, W, pipe->act + span.at * (hidden + 1), pipe->labels + span.at, &out, sums);
  if (pipe->hidden_here) return;
  send(pipe, pipe->stages->hidden_rank, TAG_INNOVATION, out.e, span.n * m);
  send(pipe, pipe->stages->hidden_rank, TAG_J_ACT, out.J_act, span.n * m * hidden);
}

/* One owner's columns of ∂ŷ/∂h for the chunk; where it owns all units, they lie ready. */
static const float *columns_for(kwm_pipe *pipe, struct span span, struct kwm_share share) {
  const int64_t m = pipe->model->classes, width = pipe->model->width, rows = span.n * m * KWM_GATED_CHANNELS;
  const float *const J = pipe->J_state + span.at * m * KWM_GATED_CHANNELS * width;
  if (share.count == width) return J;
  float *const to = pipe->staging + pipe->n_max * m * KWM_GATED_CHANNELS * share.first +
                    span.at * m * KWM_GATED_CHANNELS * share.count;
  for (int64_t row = 0; row < rows; row++)
    memcpy(to + row * share.count, J + row * width + share.first, (size_t)share.count * sizeof(float));
  return to;
}

static void hidden_linearise(kwm_pipe *pipe, struct span span, const float *W) {
  const int64_t m = pipe->model->classes, hidden = pipe->model->hidden;
  float *const e = pipe->e + span.at * m, *const J_act = pipe->J_act + span.at * m * hidden;
  if (!pipe->output_here) {
    receive(pipe, pipe->stages->output_rank, TAG_INNOVATION, e, span.n * m);
    receive(pipe, pipe->stages->output_rank, TAG_J_ACT, J_act, span.n * m * hidden);
  }
  kwm_sens_hidden(pipe->model, span.n, W, pipe->u + span.at * hidden, J_act,
                  pipe->J_state + span.at * m * KWM_GATED_CHANNELS * pipe->model->width);
  for (int q = 0; q < pipe->stages->ranks; q++) {
    const struct kwm_share share = pipe->stages->share[KWM_GROUP_RECURRENCE][q];
    if (share.count == 0) continue;
    const float *const columns = columns_for(pipe, span, share);
    if (q == pipe->me) continue;
    send(pipe, q, TAG_E, e, span.n * m);
    send(pipe, q, TAG_J_STATE, columns, span.n * m * KWM_GATED_CHANNELS * share.count);
  }
}

static void units_receive(kwm_pipe *pipe, struct span span) {
  if (pipe->units == 0 || pipe->hidden_here) return;
  const int64_t m = pipe->model->classes, wide = m * KWM_GATED_CHANNELS * pipe->units;
  receive(pipe, pipe->stages->hidden_rank, TAG_E, pipe->e + span.at * m, span.n * m);
  receive(pipe, pipe->stages->hidden_rank, TAG_J_STATE, pipe->J_units + span.at * wide, span.n * wide);
}

static void fill_jacobians(kwm_pipe *pipe, int64_t n, struct kwm_lin *lin) {
  const struct kwm_model *const model = pipe->model;
  const float *J_units = pipe->J_units;
  if (pipe->hidden_here && pipe->units > 0)
    J_units = columns_for(pipe, (struct span){0, 0}, pipe->stages->share[KWM_GROUP_RECURRENCE][pipe->me]);
  lin->n_parts = KWM_GROUPS;
  lin->jac[KWM_GROUP_RECURRENCE] = kwm_sens_jac(model, KWM_GROUP_RECURRENCE, n, pipe->units, J_units, pipe->S, pipe->e);
  lin->jac[KWM_GROUP_HIDDEN] = kwm_sens_jac(model, KWM_GROUP_HIDDEN, n, 1, pipe->J_act, pipe->z, pipe->e);
  lin->jac[KWM_GROUP_OUTPUT] = kwm_sens_jac(model, KWM_GROUP_OUTPUT, n, 1, pipe->J_out, pipe->act, pipe->e);
}

void kwm_pipe_linearise(kwm_pipe *pipe, float *const mean[KWM_GROUPS], const struct kwm_images *images, int64_t n,
                        const int32_t *order, struct kwm_lin *lin) {
  const int64_t local = pipe->chunks / pipe->layout->replicas, base = local * pipe->layout->replica;
  const int64_t start = kwm_pipe_chunk_start(n, pipe->chunks, base);
  memset(lin, 0, sizeof *lin);
  lin->chunks = local;
  lin->batch = n;
  for (int64_t c = 0; c <= local; c++) lin->bounds[c] = kwm_pipe_chunk_start(n, pipe->chunks, base + c) - start;
  KWM_ASSERT(lin->bounds[local] <= pipe->n_max);
  if (pipe->units > 0) kwm_gated_refresh(pipe->gated, mean[KWM_GROUP_RECURRENCE]);
  for (int64_t c = 0; c < local; c++) {
    const struct span span = {lin->bounds[c], lin->bounds[c + 1] - lin->bounds[c]};
    units_forward(pipe, span, images, order + start + span.at, true);
  }
  for (int64_t c = 0; c < local; c++) {
    const struct span span = {lin->bounds[c], lin->bounds[c + 1] - lin->bounds[c]};
    if (pipe->hidden_here) hidden_forward(pipe, span, mean[KWM_GROUP_HIDDEN]);
    if (pipe->output_here) {
      take_labels(pipe, span, images, order + start + span.at);
      output_linearise(pipe, span, mean[KWM_GROUP_OUTPUT], &lin->innovation);
    }
    if (pipe->hidden_here) hidden_linearise(pipe, span, mean[KWM_GROUP_HIDDEN]);
  }
  for (int64_t c = 0; c < local; c++)
    units_receive(pipe, (struct span){lin->bounds[c], lin->bounds[c + 1] - lin->bounds[c]});
  wait_sends(pipe);
  fill_jacobians(pipe, lin->bounds[local], lin);
}

static void predict_block(kwm_pipe *pipe, float *const mean[KWM_GROUPS], const struct kwm_images *images,
                          struct span span, const int32_t *index, struct kwm_innovation *sums) {
  const int64_t classes = pipe->model->classes;
  units_forward(pipe, span, images, index, false);
  if (pipe->hidden_here) hidden_forward(pipe, span, mean[KWM_GROUP_HIDDEN]);
  if (!pipe->output_here) return;
  float *const logits = pipe->logits + span.at * classes;
  receive_act(pipe, span);
  take_labels(pipe, span, images, index);
  kwm_dense_forward(span.n, pipe->model->hidden + 1, classes, mean[KWM_GROUP_OUTPUT],
                    pipe->act + span.at * (pipe->model->hidden + 1), logits, classes);
  kwm_observe(pipe->model, span.n, logits, pipe->labels + span.at, NULL, NULL, sums);
}

void kwm_pipe_predict(kwm_pipe *pipe, float *const mean[KWM_GROUPS], const struct kwm_images *images,
                      struct kwm_innovation *sums) {
  const int64_t replicas = pipe->layout->replicas, block = pipe->block;
  int32_t index[BLOCK_MAX];
  memset(sums, 0, sizeof *sums);
  if (pipe->units > 0) kwm_gated_refresh(pipe->gated, mean[KWM_GROUP_RECURRENCE]);
  const int64_t slots = pipe->n_max / block;
  int64_t slot = 0;
  for (int64_t first = block * pipe->layout->replica; first < images->n; first += block * replicas) {
    const int64_t n = images->n - first < block ? images->n - first : block;
    for (int64_t i = 0; i < n; i++) index[i] = (int32_t)(first + i);
    predict_block(pipe, mean, images, (struct span){slot * block, n}, index, sums);
    if (++slot < slots) continue;
    wait_sends(pipe);
    slot = 0;
  }
  wait_sends(pipe);
  kwm_par_sum_world(pipe->layout, KWM_INNOVATION_FIELDS, (double *)sums);
}

double kwm_pipe_message_bytes(const struct kwm_model *model, const struct kwm_stages *stages, int64_t n) {
  const double m = (double)model->classes, samples = (double)n * sizeof(float);
  double bytes = 0;
  for (int q = 0; q < stages->ranks; q++) {
    const double units = (double)stages->share[KWM_GROUP_RECURRENCE][q].count;
    if (q == stages->hidden_rank || units == 0) continue;
    bytes += samples * (KWM_GATED_CHANNELS * units * (1 + m) + m);
  }
  if (stages->output_rank != stages->hidden_rank) bytes += samples * ((double)model->hidden * (1 + m) + 1 + m);
  return bytes;
}
