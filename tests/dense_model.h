/* A small dense model with the images of small_model.h: one rank's worth of program around it, and the same model once
   more in double precision, written term by term (it takes only the order of the groups from the program). */
#pragma once

#include "small_model.h"

enum { NET_LAYERS_MAX = 3, NET_SEED = 11 };

/* What varies between tests. */
struct net_shape {
  int n_layers;
  int64_t widths[NET_LAYERS_MAX];
  bool readouts;
  double noise_variance;
  enum kwm_evidence evidence;
  int64_t batch, chunks;
  double dropout;
};

struct net {
  struct kwm_model model;
  struct kwm_layout layout;
  struct kwm_stages stages;
  struct kwm_params params;
  kwm_pipe *pipe;
  struct small_images *data;
  int32_t order[SMALL_IMAGES];
  uint64_t step;    /* of the next mini-batch */
  bool bytes_right; /* the pipe holds what kwm_pipe_bytes says */
};

static inline struct kwm_model net_model(const struct net_shape *shape) {
  struct kwm_model model = {.kind = KWM_MODEL_DENSE,
                            .classes = SMALL_CLASSES,
                            .length = SMALL_LENGTH,
                            .n_layers = shape->n_layers,
                            .readouts = shape->readouts,
                            .noise_variance = shape->noise_variance};
  memcpy(model.widths, shape->widths, sizeof shape->widths);
  kwm_model_lay_out(&model);
  return model;
}

/* Initial means are without biases: a unit whose inputs are all zero would stand on the ReLU's kink. */
static inline void net_shake(struct net *net) {
  for (int g = 0; g < net->model.n_groups; g++)
    for (int64_t k = 0; k < net->params.share[g].count * net->model.groups[g].params; k++)
      net->params.mean[g][k] += 0.1f * (float)test_normal(80 + (uint64_t)g, k);
}

/* net: lives at one place from here on. */
static inline void net_init(struct net *net, const struct kwm_layout *layout, const struct net_shape *shape) {
  memset(net, 0, sizeof *net);
  net->model = net_model(shape);
  net->layout = *layout;
  net->data = small_images_new();
  for (int i = 0; i < SMALL_IMAGES; i++) net->order[i] = (17 * i + 5) % SMALL_IMAGES;
  assert_ok(kwm_stage_assign(&net->stages, &net->model, layout->stages, layout->owners));
  const int me = layout->stage * layout->owners + layout->owner;
  assert_ok(kwm_params_create(&net->params, &net->model, &net->stages, me, 3));
  net_shake(net);
  const struct kwm_pipe_spec spec = {.batch = shape->batch,
                                     .chunks = shape->chunks,
                                     .evidence = shape->evidence,
                                     .seed = NET_SEED,
                                     .dropout = shape->dropout};
  const size_t before = kwm_mem_bytes();
  assert_ok(kwm_pipe_create(&net->pipe, &net->layout, &net->model, &net->stages, &spec));
  net->bytes_right = kwm_mem_bytes() - before == kwm_pipe_bytes(&net->model, &net->stages, me, &spec, layout->replicas);
}

static inline void net_fini(struct net *net) {
  kwm_pipe_destroy(net->pipe);
  kwm_params_destroy(&net->params);
  free(net->data);
}

static inline struct kwm_means net_means(const struct net *net) {
  struct kwm_means means = {0};
  memcpy(means.at, net->params.mean, sizeof means.at);
  return means;
}

static inline void net_linearise_at(struct net *net, const struct kwm_means *means, int64_t first, int64_t n,
                                    struct kwm_lin *lin) {
  const struct kwm_batch batch = {.images = &net->data->images, .order = net->order + first, .n = n, .step = net->step};
  kwm_pipe_linearise(net->pipe, means, &batch, lin);
}

static inline void net_linearise(struct net *net, int64_t first, int64_t n, struct kwm_lin *lin) {
  const struct kwm_means means = net_means(net);
  net_linearise_at(net, &means, first, n, lin);
}

static inline const uint8_t *net_pixels(const struct net *net, int64_t i) {
  return net->data->pixels + net->order[i] * SMALL_LENGTH;
}

static inline int net_label(const struct net *net, int64_t i) {
  return net->data->labels[net->order[i]];
}

/* ---- in double precision */

struct net_reference {
  const struct kwm_model *model; /* borrowed */
  double *W[KWM_GROUPS_MAX];
};

/* Of a rank that owns everything. */
static inline struct net_reference net_reference(const struct net *net) {
  struct net_reference made = {.model = &net->model};
  for (int g = 0; g < net->model.n_groups; g++)
    made.W[g] = small_widen(net->model.groups[g].params, net->params.mean[g]);
  return made;
}

static inline void net_reference_drop(struct net_reference *made) {
  for (int g = 0; g < made->model->n_groups; g++) free(made->W[g]);
}

/* The group whose outputs' logits decide about group g's Jacobian: its own read-out, or the output. */
static inline int net_observed(const struct kwm_model *model, int g) {
  for (int l = 0; l < model->n_layers && model->readouts; l++)
    if (g == kwm_model_layer(model, l) || g == kwm_model_readout(model, l)) return kwm_model_readout(model, l);
  return model->n_groups - 1;
}

/* out (d_o) <- W [a, 1] */
static inline void net_multiply(const struct kwm_group *group, const double *W, const double *a, double *out) {
  for (int64_t o = 0; o < group->d_o; o++) {
    const double *const row = W + o * group->d_i;
    out[o] = row[group->d_i - 1];
    for (int64_t j = 0; j + 1 < group->d_i; j++) out[o] += row[j] * a[j];
  }
}

/* logits (classes) of the read-out, or of the output, that is group `observed`. */
static inline void net_logits(const struct net_reference *made, int observed, const uint8_t *pixels, double *logits) {
  enum { WIDE = 64 };
  const struct kwm_model *const model = made->model;
  double a[WIDE], u[WIDE];
  for (int64_t j = 0; j < model->length; j++) a[j] = pixels[j] / 255.0;
  for (int l = 0; l < model->n_layers; l++) {
    const int g = kwm_model_layer(model, l);
    assert_true(model->groups[g].d_o <= WIDE && model->groups[g].d_i <= WIDE);
    net_multiply(&model->groups[g], made->W[g], a, u);
    for (int64_t k = 0; k < model->groups[g].d_o; k++) a[k] = u[k] > 0 ? u[k] : 0;
    if (model->readouts && l + 1 < model->n_layers && observed == kwm_model_readout(model, l)) break;
  }
  net_multiply(&model->groups[observed], made->W[observed], a, logits);
}

static inline double net_log_likelihood(const struct net_reference *made, int observed, const uint8_t *pixels,
                                        int label) {
  const double R = made->model->noise_variance;
  double logits[SMALL_CLASSES], p[SMALL_CLASSES], sum = 0;
  net_logits(made, observed, pixels, logits);
  ref_softmax(SMALL_CLASSES, logits, p);
  if (!(R > 0)) return log(p[label]);
  for (int c = 0; c < SMALL_CLASSES; c++) sum -= 0.5 * (pow((c == label) - logits[c], 2) / R + log(2 * acos(-1) * R));
  return sum;
}

/* D (classes, params of g) <- d logits / d W_g of one sample by central differences: exact but for rounding, since the
   logits are linear in each weight away from the kinks. */
static inline double *net_differences(const struct net_reference *made, int observed, int g, const uint8_t *pixels) {
  const double step = 1e-5;
  const int64_t n = made->model->groups[g].params;
  double *const D = dense_new(SMALL_CLASSES * n), *const W = made->W[g];
  for (int64_t k = 0; k < n; k++) {
    const double keep = W[k];
    double above[SMALL_CLASSES], below[SMALL_CLASSES];
    W[k] = keep + step, net_logits(made, observed, pixels, above);
    W[k] = keep - step, net_logits(made, observed, pixels, below);
    W[k] = keep;
    for (int c = 0; c < SMALL_CLASSES; c++) D[c * n + k] = (above[c] - below[c]) / (2 * step);
  }
  return D;
}
