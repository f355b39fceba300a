/* The gated model: one mini-batch through the ranks of a replica, chunk after chunk.

     units' owners      h, S of chunk c                     -> h to the hidden layer's owner, without waiting
     hidden's owner     z = [Re h, Im h, 1], u, act          -> act to the output layer's owner
     output's owner     logits, innovation e, ∂ŷ/∂act        -> e, ∂ŷ/∂act back to the hidden layer's owner
     hidden's owner     ∂ŷ/∂h                                -> e and each owner's columns of it to the units' owners

   A rank may be several of these; a message to oneself is a copy or nothing at all, and the output's owner has e. All
   ranks walk through chunks in the same order, so blocking receives cannot deadlock.

   On a device all arrays are the device's, and the samples come there before the chunks. */
#include "pipe_ops.h"

#include "kwm/layer.h"
#include "kwm/sens.h"

enum { TAG_STATE, TAG_ACT, TAG_J_ACT, TAG_J_STATE };

struct gated_pipe {
  struct kwm_pipe common;
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
};

/* Array sizes of a rank in floats: one list for allocation and for `kwm plan`. */
struct pipe_sizes {
  size_t h, S, J_units, e, z, u, act, J_act, J_state, staging, arriving, logits, J_out;
};

static struct pipe_sizes sizes_of(const struct kwm_model *model, const struct kwm_stages *stages, int me, int64_t n) {
  const size_t units = (size_t)stages->share[KWM_GROUP_RECURRENCE][me].count, samples = (size_t)n;
  const size_t m = (size_t)model->classes, width = (size_t)model->width, hidden = (size_t)model->hidden;
  const bool hidden_here = stages->owner[KWM_GROUP_HIDDEN] == me, output_here = stages->owner[KWM_GROUP_OUTPUT] == me;
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

/* Bytes of all arrays, each rounded; NULL: as they are. */
static size_t sum_of(const struct pipe_sizes *s, size_t (*rounded)(size_t bytes)) {
  const size_t floats[] = {s->h,     s->S,       s->J_units, s->e,        s->z,      s->u,    s->act,
                           s->J_act, s->J_state, s->staging, s->arriving, s->logits, s->J_out};
  size_t bytes = 0;
  for (size_t k = 0; k < sizeof floats / sizeof floats[0]; k++)
    bytes += rounded != NULL ? rounded(floats[k] * sizeof(float)) : floats[k] * sizeof(float);
  return bytes;
}

static int gated_requests(const struct kwm_model *model, const struct kwm_stages *stages) {
  (void)model;
  return 4 + 2 * stages->ranks;
}

static size_t gated_bytes(const struct kwm_model *model, const struct kwm_stages *stages, int group_rank, int64_t n_max,
                          const struct kwm_pipe_spec *spec) {
  (void)spec;
  const struct pipe_sizes s = sizes_of(model, stages, group_rank, n_max);
  const int64_t units = stages->share[KWM_GROUP_RECURRENCE][group_rank].count;
  const size_t bytes =
      kwm_mem_rounded(sizeof(struct gated_pipe)) + kwm_mem_rounded((size_t)n_max) + sum_of(&s, kwm_mem_rounded);
  return bytes + (units > 0 ? kwm_gated_bytes(units, model->length, n_max) : 0);
}

static size_t gated_device_bytes(const struct kwm_model *model, const struct kwm_stages *stages, int group_rank,
                                 int64_t n_max, const struct kwm_pipe_spec *spec) {
  (void)spec;
  const struct pipe_sizes s = sizes_of(model, stages, group_rank, n_max);
  const int64_t units = stages->share[KWM_GROUP_RECURRENCE][group_rank].count;
  return sum_of(&s, NULL) + (units > 0 ? kwm_gated_device_bytes(units, model->length, n_max) : 0);
}

static kwm_status allocate(struct gated_pipe *pipe) {
  kwm_device *const device = pipe->common.spec.device;
  const struct pipe_sizes s = sizes_of(pipe->common.model, pipe->common.stages, pipe->common.me, pipe->common.n_max);
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
    if (device == NULL || list[k].floats > 0)
      KWM_TRY(kwm_device_alloc(device, (void **)list[k].at, list[k].floats * sizeof(float), "activations"));
  return kwm_device_alloc(device, (void **)&pipe->common.labels, (size_t)pipe->common.n_max, "labels");
}

static kwm_status gated_create(struct kwm_pipe **common, const struct kwm_pipe *filled) {
  KWM_CHECK(filled->spec.evidence == KWM_EVIDENCE_EXACT, KWM_ERR_USAGE,
            "config: wanted filter.evidence exact with model.kind gated");
  KWM_TRY(kwm_alloc((void **)common, sizeof(struct gated_pipe), "pipe"));
  struct gated_pipe *const pipe = (struct gated_pipe *)*common;
  const struct kwm_stages *const stages = filled->stages;
  const int64_t row = KWM_GATED_CHANNELS * filled->model->width + 1;
  pipe->common = *filled;
  pipe->hidden_here = stages->owner[KWM_GROUP_HIDDEN] == filled->me;
  pipe->output_here = stages->owner[KWM_GROUP_OUTPUT] == filled->me;
  pipe->units = stages->share[KWM_GROUP_RECURRENCE][filled->me].count;
  KWM_TRY(allocate(pipe));
  if (pipe->units > 0)
    KWM_TRY(kwm_gated_create(&pipe->gated, filled->spec.device, pipe->units, filled->model->length, filled->n_max));
  return pipe->hidden_here ? pipe_append_ones(&pipe->common, row, pipe->z) : KWM_OK;
}

static void gated_destroy(struct kwm_pipe *common) {
  struct gated_pipe *const pipe = (struct gated_pipe *)common;
  float *const arrays[] = {pipe->h,        pipe->S,      pipe->J_units, pipe->e,       pipe->z,
                           pipe->u,        pipe->act,    pipe->J_act,   pipe->J_state, pipe->staging,
                           pipe->arriving, pipe->logits, pipe->J_out};
  for (size_t k = 0; k < sizeof arrays / sizeof arrays[0]; k++) kwm_device_free(common->spec.device, arrays[k]);
  kwm_gated_destroy(pipe->gated);
}

static void units_forward(struct gated_pipe *pipe, struct pipe_span span, const struct kwm_images *images,
                          const int32_t *index, bool sensitivities) {
  if (pipe->units == 0) return;
  const int64_t wide = KWM_GATED_CHANNELS * pipe->units;
  float *const h = pipe->h + span.at * wide;
  float *const S = sensitivities ? pipe->S + span.at * wide * KWM_GATED_PARAMS : NULL;
  if (pipe->common.spec.device == NULL)
    kwm_gated_forward(pipe->gated, span.n, images->pixels, index, h, S);
  else
    kwm_gated_forward(pipe->gated, span.n, pipe->common.place.pixels + span.at * pipe->common.model->length, NULL, h,
                      S);
  if (!pipe->hidden_here)
    pipe_send(&pipe->common, pipe->common.stages->owner[KWM_GROUP_HIDDEN], TAG_STATE, 1,
              &(struct kwm_link_part){h, span.n * wide});
}

/* z rows <- the states of every owner's units. */
static void collect_states(struct gated_pipe *pipe, struct pipe_span span) {
  const int64_t width = pipe->common.model->width, row = KWM_GATED_CHANNELS * width + 1;
  for (int q = 0; q < pipe->common.stages->ranks; q++) {
    const struct kwm_share share = pipe->common.stages->share[KWM_GROUP_RECURRENCE][q];
    if (share.count == 0) continue;
    const int64_t wide = KWM_GATED_CHANNELS * share.count;
    const float *from = pipe->h + span.at * wide;
    if (q != pipe->common.me) {
      pipe_receive(&pipe->common, q, TAG_STATE, 1, &(struct kwm_link_part){pipe->arriving, span.n * wide});
      from = pipe->arriving;
    }
    for (int64_t c = 0; c < KWM_GATED_CHANNELS; c++)
      kwm_device_copy_rows(pipe->common.spec.device, span.n, share.count,
                           pipe->z + span.at * row + c * width + share.first, row, from + c * share.count, wide);
  }
}

static void hidden_forward(struct gated_pipe *pipe, struct pipe_span span, const float *W) {
  const struct kwm_model *const model = pipe->common.model;
  const int64_t d_i = model->groups[KWM_GROUP_HIDDEN].d_i, hidden = model->hidden;
  float *const u = pipe->u + span.at * hidden, *const act = pipe->act + span.at * (hidden + 1);
  collect_states(pipe, span);
  kwm_dense_forward(pipe->common.spec.device, span.n, d_i, hidden, W, pipe->z + span.at * d_i, u, hidden);
  kwm_relu_forward(pipe->common.spec.device, span.n, hidden, u, act);
  pipe_drop(&pipe->common, span, 0, 1, hidden, hidden + 1, act);
  if (!pipe->output_here)
    pipe_send(&pipe->common, pipe->common.stages->owner[KWM_GROUP_OUTPUT], TAG_ACT, 1,
              &(struct kwm_link_part){act, span.n * (hidden + 1)});
}

static void receive_act(struct gated_pipe *pipe, struct pipe_span span) {
  const int64_t d_i = pipe->common.model->hidden + 1;
  if (!pipe->hidden_here)
    pipe_receive(&pipe->common, pipe->common.stages->owner[KWM_GROUP_HIDDEN], TAG_ACT, 1,
                 &(struct kwm_link_part){pipe->act + span.at * d_i, span.n * d_i});
}

static void take_labels(struct gated_pipe *pipe, struct pipe_span span, const struct kwm_images *images,
                        const int32_t *index) {
  if (pipe->common.spec.device != NULL) return; /* pipe_gather brought them */
  for (int64_t i = 0; i < span.n; i++) pipe->common.labels[span.at + i] = images->labels[index[i]];
}

static struct kwm_sens_seen seen_at(struct gated_pipe *pipe, int64_t at, double *facts, struct kwm_innovation *sums) {
  return (struct kwm_sens_seen){.labels = pipe->common.labels + at, .sums = sums, .facts = pipe_facts(facts, at)};
}

static void output_linearise(struct gated_pipe *pipe, struct pipe_span span, const float *W,
                             struct kwm_innovation *sums) {
  const int64_t m = pipe->common.model->classes, hidden = pipe->common.model->hidden;
  const struct kwm_sens_output out = {.logits = pipe->logits + span.at * m,
                                      .e = pipe->e + span.at * m,
                                      .J = pipe->J_out + span.at * m * m,
                                      .J_act = pipe->J_act + span.at * m * hidden};
  const struct kwm_sens_seen seen = seen_at(pipe, span.at, pipe->common.place.facts, sums);
  receive_act(pipe, span);
  kwm_sens_output(pipe->common.spec.device, pipe->common.model, span.n, W, pipe->act + span.at * (hidden + 1), &seen,
                  &out);
  if (pipe->hidden_here) return;
  const struct kwm_link_part parts[] = {{out.J_act, span.n * m * hidden}, {out.e, span.n * m}};
  pipe_send(&pipe->common, pipe->common.stages->owner[KWM_GROUP_HIDDEN], TAG_J_ACT, 2, parts);
}

/* One owner's columns of ∂ŷ/∂h for the chunk; where it owns all units, they lie ready. */
static float *columns_for(struct gated_pipe *pipe, struct pipe_span span, struct kwm_share share) {
  const int64_t m = pipe->common.model->classes, width = pipe->common.model->width,
                rows = span.n * m * KWM_GATED_CHANNELS;
  float *const J = pipe->J_state + span.at * m * KWM_GATED_CHANNELS * width;
  if (share.count == width) return J;
  float *const to = pipe->staging + pipe->common.n_max * m * KWM_GATED_CHANNELS * share.first +
                    span.at * m * KWM_GATED_CHANNELS * share.count;
  kwm_device_copy_rows(pipe->common.spec.device, rows, share.count, to, share.count, J + share.first, width);
  return to;
}

/* Parts of what rank q gets of the rows: the output's owner made e. */
static int row_parts(const struct kwm_stages *stages, int q) {
  return stages->owner[KWM_GROUP_OUTPUT] == q ? 1 : 2;
}

static void hidden_linearise(struct gated_pipe *pipe, struct pipe_span span, const float *W) {
  const int64_t m = pipe->common.model->classes, hidden = pipe->common.model->hidden;
  float *const e = pipe->e + span.at * m, *const J_act = pipe->J_act + span.at * m * hidden;
  const struct kwm_link_part parts[] = {{J_act, span.n * m * hidden}, {e, span.n * m}};
  if (!pipe->output_here)
    pipe_receive(&pipe->common, pipe->common.stages->owner[KWM_GROUP_OUTPUT], TAG_J_ACT, 2, parts);
  pipe_drop(&pipe->common, span, 0, m, hidden, hidden, J_act);
  kwm_sens_hidden(pipe->common.spec.device, pipe->common.model, span.n, W, pipe->u + span.at * hidden, J_act,
                  pipe->J_state + span.at * m * KWM_GATED_CHANNELS * pipe->common.model->width);
  for (int q = 0; q < pipe->common.stages->ranks; q++) {
    const struct kwm_share share = pipe->common.stages->share[KWM_GROUP_RECURRENCE][q];
    if (share.count == 0) continue;
    float *const columns = columns_for(pipe, span, share);
    const struct kwm_link_part rows[] = {{columns, span.n * m * KWM_GATED_CHANNELS * share.count}, {e, span.n * m}};
    if (q != pipe->common.me) pipe_send(&pipe->common, q, TAG_J_STATE, row_parts(pipe->common.stages, q), rows);
  }
}

static void units_receive(struct gated_pipe *pipe, struct pipe_span span) {
  if (pipe->units == 0 || pipe->hidden_here) return;
  const int64_t m = pipe->common.model->classes, wide = m * KWM_GATED_CHANNELS * pipe->units;
  const struct kwm_stages *const stages = pipe->common.stages;
  const struct kwm_link_part rows[] = {{pipe->J_units + span.at * wide, span.n * wide},
                                       {pipe->e + span.at * m, span.n * m}};
  pipe_receive(&pipe->common, stages->owner[KWM_GROUP_HIDDEN], TAG_J_STATE, row_parts(stages, pipe->common.me), rows);
}

static void fill_jacobians(struct gated_pipe *pipe, int64_t n, struct kwm_lin *lin) {
  const struct kwm_model *const model = pipe->common.model;
  const float *J_units = pipe->J_units;
  if (pipe->hidden_here && pipe->units > 0)
    J_units =
        columns_for(pipe, (struct pipe_span){0, 0}, pipe->common.stages->share[KWM_GROUP_RECURRENCE][pipe->common.me]);
  lin->n_parts = model->n_groups;
  lin->jac[KWM_GROUP_RECURRENCE] = kwm_sens_jac(model, KWM_GROUP_RECURRENCE, n, pipe->units, J_units, pipe->S, pipe->e);
  lin->jac[KWM_GROUP_HIDDEN] = kwm_sens_jac(model, KWM_GROUP_HIDDEN, n, 1, pipe->J_act, pipe->z, pipe->e);
  lin->jac[KWM_GROUP_OUTPUT] = kwm_sens_jac(model, KWM_GROUP_OUTPUT, n, 1, pipe->J_out, pipe->act, pipe->e);
}

/* Nothing is sent from where the hidden layer is: there a device takes all samples at once. */
static void units_linearise(struct gated_pipe *pipe, const struct kwm_lin *lin, const struct kwm_images *images,
                            const int32_t *order) {
  if (pipe->common.spec.device != NULL && pipe->hidden_here) {
    units_forward(pipe, pipe_whole(lin), images, order, true);
    return;
  }
  for (int64_t c = 0; c < lin->chunks; c++) {
    const struct pipe_span span = pipe_chunk(lin, c);
    units_forward(pipe, span, images, order + span.at, true);
  }
}

static void gated_linearise(struct kwm_pipe *common, const struct kwm_means *means, const struct kwm_batch *batch,
                            int64_t start, struct kwm_lin *lin) {
  struct gated_pipe *const pipe = (struct gated_pipe *)common;
  const int32_t *const order = batch->order + start;
  if (pipe->units > 0) kwm_gated_refresh(pipe->gated, means->at[KWM_GROUP_RECURRENCE]);
  if (common->spec.device != NULL) pipe_gather_step(common, pipe_whole(lin), batch, order);
  units_linearise(pipe, lin, batch->images, order);
  for (int64_t c = 0; c < lin->chunks; c++) {
    const struct pipe_span span = pipe_chunk(lin, c);
    if (pipe->hidden_here) hidden_forward(pipe, span, means->at[KWM_GROUP_HIDDEN]);
    if (pipe->output_here) {
      struct kwm_innovation of_chunk = {0};
      take_labels(pipe, span, batch->images, order + span.at);
      output_linearise(pipe, span, means->at[KWM_GROUP_OUTPUT], &of_chunk);
      pipe_observed(lin, c, &of_chunk);
    }
    if (pipe->hidden_here) hidden_linearise(pipe, span, means->at[KWM_GROUP_HIDDEN]);
  }
  for (int64_t c = 0; c < lin->chunks; c++) units_receive(pipe, pipe_chunk(lin, c));
  pipe_wait(common);
  fill_jacobians(pipe, lin->bounds[lin->chunks], lin);
}

static void gated_begin(struct kwm_pipe *common, const struct kwm_means *means) {
  struct gated_pipe *const pipe = (struct gated_pipe *)common;
  if (pipe->units > 0) kwm_gated_refresh(pipe->gated, means->at[KWM_GROUP_RECURRENCE]);
}

static void gated_predict(struct kwm_pipe *common, const struct kwm_means *means, const struct kwm_images *images,
                          struct pipe_span span, const int32_t *index, struct kwm_innovation *sums) {
  struct gated_pipe *const pipe = (struct gated_pipe *)common;
  const int64_t classes = pipe->common.model->classes;
  const struct kwm_sens_seen seen = seen_at(pipe, span.at, common->place.seen, sums);
  if (common->spec.device != NULL && images != NULL) pipe_gather(common, span, images, index);
  units_forward(pipe, span, images, index, false);
  if (pipe->hidden_here) hidden_forward(pipe, span, means->at[KWM_GROUP_HIDDEN]);
  if (!pipe->output_here) return;
  float *const logits = pipe->logits + span.at * classes;
  receive_act(pipe, span);
  take_labels(pipe, span, images, index);
  kwm_dense_forward(common->spec.device, span.n, pipe->common.model->hidden + 1, classes, means->at[KWM_GROUP_OUTPUT],
                    pipe->act + span.at * (pipe->common.model->hidden + 1), logits, classes);
  kwm_sens_facts(common->spec.device, common->model, span.n, logits, &seen);
}

static int gated_links(const struct kwm_model *model, const struct kwm_stages *stages, const struct kwm_pipe_spec *spec,
                       struct pipe_link list[PIPE_LINKS_MAX]) {
  (void)spec;
  const int hidden = stages->owner[KWM_GROUP_HIDDEN], output = stages->owner[KWM_GROUP_OUTPUT];
  const int64_t m = model->classes;
  int n = 0;
  for (int q = 0; q < stages->ranks; q++) {
    const int64_t wide = KWM_GATED_CHANNELS * stages->share[KWM_GROUP_RECURRENCE][q].count;
    if (q == hidden || wide == 0) continue;
    list[n++] = (struct pipe_link){q, hidden, TAG_STATE, wide};
    list[n++] = (struct pipe_link){hidden, q, TAG_J_STATE, m * wide + (row_parts(stages, q) == 2 ? m : 0)};
  }
  if (output == hidden) return n;
  list[n++] = (struct pipe_link){hidden, output, TAG_ACT, model->hidden + 1};
  list[n++] = (struct pipe_link){output, hidden, TAG_J_ACT, m * model->hidden + m};
  return n;
}

static const float *gated_outputs(const struct kwm_pipe *common) {
  return ((const struct gated_pipe *)common)->logits;
}

const struct pipe_ops pipe_gated = {.requests = gated_requests,
                                    .bytes = gated_bytes,
                                    .device_bytes = gated_device_bytes,
                                    .create = gated_create,
                                    .destroy = gated_destroy,
                                    .linearise = gated_linearise,
                                    .begin = gated_begin,
                                    .predict = gated_predict,
                                    .outputs = gated_outputs,
                                    .links = gated_links};
