/* The dense model: one mini-batch through consecutive layers on consecutive ranks, chunk after chunk.

     forward    layer l's owner: a_l -> u_l = W_l a_l -> a_{l+1} = [max(u_l, 0), 1], sent on to layer l + 1's owner
     backward   rows of the Jacobian at the logits, pulled back to each layer's outputs u_l and sent on to the layer
                before (adjoint), or from a layer's own read-out only (readouts)

   All ranks walk through the chunks and their layers in the same order, so blocking receives cannot deadlock.

   On a device all arrays are the device's, and the samples come there before the chunks. */
#include "dense_layers.h"

#include "kwm/layer.h"

enum { TAG_ACT, TAG_ROWS };

static int dense_requests(const struct kwm_model *model, const struct kwm_stages *stages) {
  (void)stages;
  return 4 * (model->n_layers + 1);
}

/* ---- forward */

static bool here(const struct dense_pipe *pipe, int l) {
  return dense_owner(pipe->common.stages, pipe->common.model, l) == pipe->common.me;
}

static void take_pixels(struct dense_pipe *pipe, struct pipe_span span, const struct kwm_images *images,
                        const int32_t *index) {
  const int64_t length = images->length, d_i = length + 1;
  for (int64_t i = 0; i < span.n; i++) {
    const uint8_t *const pixels = images->pixels + index[i] * length;
    float *const row = pipe->layer[0].a + (span.at + i) * d_i;
    for (int64_t j = 0; j < length; j++) row[j] = (float)pixels[j] * (1.0f / 255);
  }
}

static void take_on_host(struct dense_pipe *pipe, struct pipe_span span, const struct kwm_images *images,
                         const int32_t *index) {
  if (here(pipe, 0)) take_pixels(pipe, span, images, index);
  for (int64_t i = 0; i < span.n; i++) pipe->common.labels[span.at + i] = images->labels[index[i]];
}

/* Layer 0's inputs, where it is, from what is on the device. */
static void take_on_device(struct dense_pipe *pipe, struct pipe_span span) {
  kwm_device *const device = pipe->common.spec.device;
  const int64_t length = pipe->common.model->length;
  if (here(pipe, 0) && span.n > 0)
    device->ops->pixels(device, span.n, length, pipe->common.place.pixels + span.at * length,
                        pipe->layer[0].a + span.at * (length + 1));
}

/* u <- a Wᵀ; framed: W is VᵀWU, so u = ((a U) (VᵀWU)ᵀ) Vᵀ. */
static void multiply(struct dense_pipe *pipe, struct pipe_span span, int l, const struct kwm_means *means) {
  const struct kwm_group *const g = dense_group(pipe->common.model, l);
  const int index = kwm_model_layer(pipe->common.model, l);
  const struct kwm_frame frame = means->frame[index];
  kwm_device *const device = pipe->common.spec.device;
  struct dense_layer *const layer = &pipe->layer[l];
  const float *const a = layer->a + span.at * g->d_i;
  float *const u = layer->u + span.at * g->d_o;
  if (frame.U == NULL) {
    kwm_dense_forward(device, span.n, g->d_i, g->d_o, means->at[index], a, u, g->d_o);
    return;
  }
  KWM_ASSERT(l == 0);
  float *const aU = layer->aU + span.at * g->d_i, *const y = layer->y + span.at * g->d_o;
  kwm_dense_turn(device, span.n, g->d_i, frame.U, a, aU);
  kwm_dense_forward(device, span.n, g->d_i, g->d_o, means->at[index], aU, y, g->d_o);
  kwm_dense_forward(device, span.n, g->d_o, g->d_o, frame.V, y, u, g->d_o);
}

static void layer_forward(struct dense_pipe *pipe, struct pipe_span span, int l, const struct kwm_means *means) {
  const struct kwm_model *const model = pipe->common.model;
  const struct kwm_group *const g = dense_group(model, l);
  const int64_t d_next = g->d_o + 1;
  if (l > 0 && !here(pipe, l - 1))
    pipe_receive(&pipe->common, dense_owner(pipe->common.stages, model, l - 1), TAG_ACT, 1,
                 &(struct kwm_link_part){pipe->layer[l].a + span.at * g->d_i, span.n * g->d_i});
  multiply(pipe, span, l, means);
  if (l == model->n_layers) return;
  float *const act = pipe->layer[l + 1].a + span.at * d_next;
  kwm_relu_forward(pipe->common.spec.device, span.n, g->d_o, pipe->layer[l].u + span.at * g->d_o, act);
  pipe_drop(&pipe->common, span, l, 1, g->d_o, d_next, act);
  if (!here(pipe, l + 1))
    pipe_send(&pipe->common, dense_owner(pipe->common.stages, model, l + 1), TAG_ACT, 1,
              &(struct kwm_link_part){act, span.n * d_next});
}

static void forward(struct dense_pipe *pipe, struct pipe_span span, const struct kwm_means *means) {
  for (int l = 0; l <= pipe->common.model->n_layers; l++)
    if (here(pipe, l)) layer_forward(pipe, span, l, means);
}

/* ---- backward */

static struct kwm_sens_rows rows_at(const struct dense_pipe *pipe, const struct kwm_sens_rows *rows, int64_t at,
                                    int64_t d) {
  return (struct kwm_sens_rows){rows->J + at * pipe->per_sample * d, rows->g == NULL ? NULL : rows->g + at * d};
}

static float *e_at(const struct dense_layer *layer, int64_t at, int64_t m) {
  return layer->e == NULL ? NULL : layer->e + at * m;
}

/* What is seen of a chunk. draw: of its first sample. facts: of all samples, on a device. */
static struct kwm_sens_seen seen_at(struct dense_pipe *pipe, int64_t at, const struct kwm_draw *draw, double *facts,
                                    struct kwm_innovation *sums) {
  const double *const draws = pipe->common.place.draws;
  return (struct kwm_sens_seen){.labels = pipe->common.labels + at,
                                .draw = *draw,
                                .sums = sums,
                                .draws = draws == NULL ? NULL : draws + at * kwm_draws_width(pipe->common.model),
                                .facts = pipe_facts(facts, at)};
}

/* Rows at the logits of `layer`. */
static void observe(struct dense_pipe *pipe, struct pipe_span span, struct dense_layer *layer,
                    const struct kwm_sens_seen *seen) {
  const struct kwm_model *const model = pipe->common.model;
  const int64_t m = model->classes;
  const struct kwm_sens_rows rows = rows_at(pipe, &layer->rows, span.at, m);
  kwm_sens_observe(pipe->common.spec.device, model, pipe->common.spec.evidence, span.n, layer->u + span.at * m, seen,
                   &rows, e_at(layer, span.at, m));
}

/* A hidden layer's rows from its own read-out. */
static void readout_rows(struct dense_pipe *pipe, struct pipe_span span, int l, const struct kwm_means *means,
                         const struct kwm_draw *draw) {
  const struct kwm_model *const model = pipe->common.model;
  const int64_t m = model->classes, d_o = dense_group(model, l)->d_o;
  const float *const W = means->at[kwm_model_readout(model, l)];
  struct dense_layer *const readout = &pipe->readout[l], *const layer = &pipe->layer[l];
  struct kwm_innovation own = {0};
  kwm_device *const device = pipe->common.spec.device;
  const struct kwm_sens_seen seen = seen_at(pipe, span.at, draw, pipe->common.place.unread, &own);
  kwm_dense_forward(device, span.n, d_o + 1, m, W, pipe->layer[l + 1].a + span.at * (d_o + 1), readout->u + span.at * m,
                    m);
  observe(pipe, span, readout, &seen);
  const struct kwm_sens_rows from = rows_at(pipe, &readout->rows, span.at, m);
  const struct kwm_sens_rows to = rows_at(pipe, &layer->rows, span.at, d_o);
  kwm_sens_pull(device, span.n, pipe->per_sample, m, d_o + 1, W, &from, &to);
  if (layer->e != NULL)
    kwm_device_copy(device, layer->e + span.at * m, readout->e + span.at * m, (size_t)(span.n * m) * sizeof(float));
}

/* What goes back of a chunk at d outputs: rows, or their sampled score, and the innovations where they are asked for.
 */
enum { ROW_PARTS = 3 };
static int row_parts(const struct dense_pipe *pipe, struct pipe_span span, int64_t d, const struct kwm_sens_rows *rows,
                     float *e, struct kwm_link_part parts[ROW_PARTS]) {
  int n = 0;
  parts[n++] = (struct kwm_link_part){rows->J, span.n * pipe->per_sample * d};
  if (rows->g != NULL) parts[n++] = (struct kwm_link_part){rows->g, span.n * d};
  if (e != NULL) parts[n++] = (struct kwm_link_part){e, span.n * pipe->common.model->classes};
  return n;
}

/* Layer l's rows to the outputs of the layer before it. */
static void pull_back(struct dense_pipe *pipe, struct pipe_span span, int l, const struct kwm_means *means) {
  const struct kwm_model *const model = pipe->common.model;
  const struct kwm_group *const g = dense_group(model, l);
  const int64_t d = g->d_i - 1, m = model->classes;
  const bool local = here(pipe, l - 1);
  kwm_device *const device = pipe->common.spec.device;
  struct dense_layer *const layer = &pipe->layer[l], *const before = &pipe->layer[l - 1];
  const struct kwm_sens_rows from = rows_at(pipe, &layer->rows, span.at, g->d_o);
  const struct kwm_sens_rows to = rows_at(pipe, local ? &before->rows : &layer->below, span.at, d);
  float *const e = e_at(layer, span.at, m);
  KWM_ASSERT(means->frame[kwm_model_layer(model, l)].U == NULL);
  kwm_sens_pull(device, span.n, pipe->per_sample, g->d_o, g->d_i, means->at[kwm_model_layer(model, l)], &from, &to);
  if (local && e != NULL) kwm_device_copy(device, e_at(before, span.at, m), e, (size_t)(span.n * m) * sizeof(float));
  if (local) return;
  struct kwm_link_part parts[ROW_PARTS];
  const int n = row_parts(pipe, span, d, &to, e, parts);
  pipe_send(&pipe->common, dense_owner(pipe->common.stages, model, l - 1), TAG_ROWS, n, parts);
}

static void receive_rows(struct dense_pipe *pipe, struct pipe_span span, int l) {
  const struct kwm_model *const model = pipe->common.model;
  const int64_t d = dense_group(model, l)->d_o;
  struct dense_layer *const layer = &pipe->layer[l];
  const struct kwm_sens_rows rows = rows_at(pipe, &layer->rows, span.at, d);
  struct kwm_link_part parts[ROW_PARTS];
  const int n = row_parts(pipe, span, d, &rows, e_at(layer, span.at, model->classes), parts);
  pipe_receive(&pipe->common, dense_owner(pipe->common.stages, model, l + 1), TAG_ROWS, n, parts);
}

static void layer_backward(struct dense_pipe *pipe, struct pipe_span span, int l, const struct kwm_means *means,
                           const struct kwm_draw *draw, struct kwm_innovation *sums) {
  const struct kwm_model *const model = pipe->common.model;
  const int64_t d = dense_group(model, l)->d_o;
  const struct kwm_sens_seen seen = seen_at(pipe, span.at, draw, pipe->common.place.facts, sums);
  if (l == model->n_layers) observe(pipe, span, &pipe->layer[l], &seen);
  if (dense_has_readout(model, l)) readout_rows(pipe, span, l, means, draw);
  if (dense_follows(model, l) && !here(pipe, l + 1)) receive_rows(pipe, span, l);
  if (l < model->n_layers) {
    const struct kwm_sens_rows rows = rows_at(pipe, &pipe->layer[l].rows, span.at, d);
    pipe_drop(&pipe->common, span, l, pipe->per_sample, d, d, rows.J);
    if (rows.g != NULL) pipe_drop(&pipe->common, span, l, 1, d, d, rows.g);
    kwm_sens_relu(pipe->common.spec.device, span.n, pipe->per_sample, d, pipe->layer[l].u + span.at * d, &rows);
  }
  if (l > 0 && dense_follows(model, l - 1)) pull_back(pipe, span, l, means);
}

/* ---- the operations */

/* Where one S couples all layers, every rank needs the innovations, which are the same for all of them. */
static const float *any_e(const struct dense_pipe *pipe) {
  for (int l = 0; l <= pipe->common.model->n_layers; l++)
    if (pipe->layer[l].e != NULL) return pipe->layer[l].e;
  return NULL;
}

static struct kwm_jac jac_of(const struct dense_pipe *pipe, int64_t n, int group, const struct dense_layer *layer,
                             const float *a, bool framed) {
  const struct kwm_group *const g = &pipe->common.model->groups[group];
  return (struct kwm_jac){.shape = KWM_JAC_OUTER,
                          .n = n,
                          .m = pipe->per_sample,
                          .d_o = g->d_o,
                          .d_i = g->d_i,
                          .J = layer->rows.J,
                          .g = layer->rows.g,
                          .e = layer->e != NULL ? layer->e : any_e(pipe),
                          .a = a,
                          .aU = framed ? layer->aU : NULL};
}

static void dense_linearise(struct kwm_pipe *common, const struct kwm_means *means, const struct kwm_batch *batch,
                            int64_t start, struct kwm_lin *lin) {
  struct dense_pipe *const pipe = (struct dense_pipe *)common;
  const struct kwm_model *const model = common->model;
  const int32_t *const order = batch->order + start;
  const int64_t n = lin->bounds[lin->chunks];
  struct kwm_draw draw = {common->spec.seed, batch->step, (uint64_t)start};
  if (common->spec.device != NULL) {
    pipe_gather_step(common, pipe_whole(lin), batch, order);
    take_on_device(pipe, pipe_whole(lin));
    pipe_draw(common, n, &draw);
  }
  for (int64_t c = 0; c < lin->chunks; c++) {
    const struct pipe_span span = pipe_chunk(lin, c);
    if (common->spec.device == NULL) take_on_host(pipe, span, batch->images, order + span.at);
    forward(pipe, span, means);
  }
  for (int64_t c = 0; c < lin->chunks; c++) {
    const struct pipe_span span = pipe_chunk(lin, c);
    struct kwm_innovation of_chunk = {0};
    draw.index = (uint64_t)(start + span.at);
    for (int l = model->n_layers; l >= 0; l--)
      if (here(pipe, l)) layer_backward(pipe, span, l, means, &draw, &of_chunk);
    pipe_observed(lin, c, &of_chunk);
  }
  pipe_wait(common);
  lin->n_parts = model->n_groups;
  for (int l = 0; l <= model->n_layers; l++) {
    const int g = kwm_model_layer(model, l);
    lin->jac[g] = jac_of(pipe, n, g, &pipe->layer[l], pipe->layer[l].a, means->frame[g].U != NULL);
    if (!dense_has_readout(model, l)) continue;
    const int r = kwm_model_readout(model, l);
    lin->jac[r] = jac_of(pipe, n, r, &pipe->readout[l], pipe->layer[l + 1].a, false);
  }
}

static void dense_begin(struct kwm_pipe *common, const struct kwm_means *means) {
  (void)common, (void)means;
}

static void dense_predict(struct kwm_pipe *common, const struct kwm_means *means, const struct kwm_images *images,
                          struct pipe_span span, const int32_t *index, struct kwm_innovation *sums) {
  struct dense_pipe *const pipe = (struct dense_pipe *)common;
  const int64_t m = common->model->classes;
  const struct kwm_sens_seen seen = {
      .labels = common->labels + span.at, .sums = sums, .facts = pipe_facts(common->place.seen, span.at)};
  if (common->spec.device == NULL) {
    take_on_host(pipe, span, images, index);
  } else {
    if (images != NULL) pipe_gather(common, span, images, index);
    take_on_device(pipe, span);
  }
  forward(pipe, span, means);
  if (here(pipe, common->model->n_layers))
    kwm_sens_facts(common->spec.device, common->model, span.n, pipe->layer[common->model->n_layers].u + span.at * m,
                   &seen);
}

static const float *dense_outputs(const struct kwm_pipe *common) {
  return ((const struct dense_pipe *)common)->layer[common->model->n_layers].u;
}

static int dense_links(const struct kwm_model *model, const struct kwm_stages *stages, const struct kwm_pipe_spec *spec,
                       struct pipe_link list[PIPE_LINKS_MAX]) {
  const bool sampled = spec->evidence == KWM_EVIDENCE_SAMPLED;
  const int64_t rows = kwm_pipe_rows(model, spec->evidence) + sampled;
  int n = 0;
  for (int l = 1; l <= model->n_layers; l++) {
    const int64_t d = dense_group(model, l)->d_i;
    const int from = dense_owner(stages, model, l - 1), to = dense_owner(stages, model, l);
    if (from == to) continue;
    list[n++] = (struct pipe_link){from, to, TAG_ACT, d};
    if (!dense_follows(model, l - 1)) continue;
    list[n++] = (struct pipe_link){to, from, TAG_ROWS, rows * (d - 1) + (sampled ? 0 : model->classes)};
  }
  return n;
}

const struct pipe_ops pipe_dense = {.requests = dense_requests,
                                    .bytes = dense_bytes,
                                    .device_bytes = dense_device_bytes,
                                    .create = dense_create,
                                    .destroy = dense_destroy,
                                    .linearise = dense_linearise,
                                    .begin = dense_begin,
                                    .predict = dense_predict,
                                    .outputs = dense_outputs,
                                    .links = dense_links};
