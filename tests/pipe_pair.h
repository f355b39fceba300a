/* A pipe on a device beside the host's: one model, the same means and samples, and the question whether they agree.
   Nothing here asserts, so that several ranks may ask. */
#pragma once

#include "dense_model.h"
#include "device_case.h"

struct pair {
  const struct kwm_model *model;
  const struct kwm_layout *layout;
  const struct kwm_stages *stages;
  kwm_device *device;
  kwm_pipe *host, *there; /* host: borrowed */
  struct kwm_means means, sent;
  float *frame[2]; /* U, V of layer 0; owned */
  int64_t chunks;
  struct kwm_lin_mirror mirror;
  const char *differs; /* what did first */
};

static const double PAIR_TOLERANCE = 1e-5;
static bool pair_direct; /* messages from device to device */

static inline int pair_me(const struct pair *pair) {
  return pair->layout->stage * pair->layout->owners + pair->layout->owner;
}

/* The same on the device. */
static inline float *pair_send(const struct pair *pair, int64_t n, const float *from) {
  float *to = NULL;
  if (kwm_device_alloc(pair->device, (void **)&to, (size_t)n * sizeof *to, "means") != KWM_OK) return NULL;
  kwm_device_put(pair->device, to, from, (size_t)n * sizeof *to);
  return to;
}

/* The first layer's mean is now one of a frame. Any matrices do. */
static inline void pair_frame(struct pair *pair) {
  const struct kwm_group *const g = &pair->model->groups[0];
  const int64_t sides[2] = {g->d_i, g->d_o};
  if (pair->stages->share[0][pair_me(pair)].count == 0) return;
  for (int k = 0; k < 2; k++) {
    pair->frame[k] = normal_floats(sides[k] * sides[k], 90 + (uint64_t)k);
    for (int64_t i = 0; i < sides[k] * sides[k]; i++) pair->frame[k][i] /= (float)sqrt((double)sides[k]);
  }
  pair->means.frame[0] = (struct kwm_frame){pair->frame[0], pair->frame[1]};
  pair->sent.frame[0] = (struct kwm_frame){pair_send(pair, sides[0] * sides[0], pair->frame[0]),
                                           pair_send(pair, sides[1] * sides[1], pair->frame[1])};
}

/* spec: the host pipe's. False: in kwm_error_message. */
static inline bool pair_init(struct pair *pair, kwm_pipe *host, struct kwm_layout *layout,
                             const struct kwm_model *model, const struct kwm_stages *stages,
                             const struct kwm_params *params, const struct kwm_pipe_spec *spec) {
  struct kwm_pipe_spec on_device = *spec;
  on_device.device = test_device;
  on_device.direct = pair_direct;
  *pair = (struct pair){.model = model, .layout = layout, .stages = stages, .device = test_device, .host = host};
  pair->chunks = spec->chunks / layout->replicas;
  for (int g = 0; g < model->n_groups; g++) {
    pair->means.at[g] = params->mean[g];
    pair->sent.at[g] = pair_send(pair, params->share[g].count * model->groups[g].params, params->mean[g]);
  }
  return kwm_pipe_create(&pair->there, layout, model, stages, &on_device) == KWM_OK;
}

static inline void pair_fini(struct pair *pair) {
  kwm_pipe_destroy(pair->there);
  kwm_lin_mirror_fini(&pair->mirror);
  for (int g = 0; g < pair->model->n_groups; g++) kwm_device_free(pair->device, pair->sent.at[g]);
  const float *const frame[2] = {pair->sent.frame[0].U, pair->sent.frame[0].V};
  for (int k = 0; k < 2; k++) {
    kwm_device_free(pair->device, (void *)(uintptr_t)frame[k]);
    free(pair->frame[k]);
  }
}

/* ---- agreement */

static inline bool pair_says(struct pair *pair, bool same, const char *what) {
  if (!same && pair->differs == NULL) pair->differs = what;
  return same;
}

static inline bool same_floats(int64_t n, const float *a, const float *b) {
  if ((a == NULL) != (b == NULL)) return false;
  if (n == 0 || a == NULL) return true;
  double *const wide = small_widen(n, b);
  const bool same = dense_error_f32(n, a, wide) <= PAIR_TOLERANCE;
  free(wide);
  return same;
}

static inline bool same_jac(struct pair *pair, const struct kwm_jac *a, const struct kwm_jac *b) {
  const bool shapes = a->shape == b->shape && a->n == b->n && a->m == b->m && a->count == b->count &&
                      a->channels == b->channels && a->params == b->params && a->d_o == b->d_o && a->d_i == b->d_i;
  if (!pair_says(pair, shapes, "shapes")) return false;
  const int64_t n = a->n, states = n * a->channels * a->count;
  const int64_t J = a->shape == KWM_JAC_UNITS ? states * a->m : n * a->m * a->d_o;
  return pair_says(pair, same_floats(J, a->J, b->J), "J") &&
         pair_says(pair, same_floats(states * a->params, a->S, b->S), "S") &&
         pair_says(pair, same_floats(n * a->d_i, a->a, b->a), "a") &&
         pair_says(pair, same_floats(n * a->d_i, a->aU, b->aU), "aU") &&
         pair_says(pair, same_floats(n * a->m, a->e, b->e), "e") &&
         pair_says(pair, same_floats(n * a->d_o, a->g, b->g), "g");
}

static inline bool same_innovation(struct pair *pair, const struct kwm_innovation *a, const struct kwm_innovation *b) {
  const double sums[2][5] = {{a->surprisal, a->entropy, a->variance, a->squared, a->expected},
                             {b->surprisal, b->entropy, b->variance, b->squared, b->expected}};
  bool same = a->samples == b->samples && a->correct == b->correct;
  /* The variance is what is left of two numbers near the square of the entropy. */
  for (int k = 0; k < 5; k++)
    same = same && close_to(sums[0][k], sums[1][k], PAIR_TOLERANCE, k == 2 ? PAIR_TOLERANCE * fabs(sums[1][1]) : 1e-12);
  for (int k = 0; k < KWM_CALIBRATION_BINS; k++)
    same = same && a->calibration.count[k] == b->calibration.count[k] &&
           a->calibration.correct[k] == b->calibration.correct[k] &&
           close_to(a->calibration.confidence[k], b->calibration.confidence[k], PAIR_TOLERANCE, 1e-12);
  return pair_says(pair, same, "innovation");
}

static inline bool same_surprisals(struct pair *pair, const double *a, const double *b) {
  bool same = true;
  for (int64_t c = 0; c < pair->chunks; c++) same = same && close_to(a[c], b[c], PAIR_TOLERANCE, 1e-12);
  return pair_says(pair, same, "surprisal");
}

/* The output's owner has them on the device. */
static inline bool same_outputs(struct pair *pair, int64_t n) {
  if (pair->stages->owner[pair->model->n_groups - 1] != pair_me(pair)) return true;
  float *const outputs = calloc((size_t)(n * pair->model->classes) + 1, sizeof *outputs);
  if (outputs == NULL) return false;
  kwm_device_get(pair->device, outputs, kwm_pipe_outputs(pair->there),
                 (size_t)(n * pair->model->classes) * sizeof *outputs);
  const bool same = same_floats(n * pair->model->classes, outputs, kwm_pipe_outputs(pair->host));
  free(outputs);
  return pair_says(pair, same, "outputs");
}

/* One step on both: every array of the parts that this rank owns, and the facts. */
static inline bool pair_linearise(struct pair *pair, const struct kwm_batch *batch) {
  struct kwm_lin lin, there, fetched;
  double surprisal[KWM_CHUNKS_MAX];
  const int me = pair_me(pair);
  const bool owner = pair->stages->owner[pair->model->n_groups - 1] == me;
  kwm_pipe_linearise(pair->host, &pair->means, batch, &lin);
  kwm_pipe_linearise(pair->there, &pair->sent, batch, &there);
  kwm_lin_surprisals(&there, surprisal); /* first: it has to wait by itself */
  bool same = pair_says(pair, kwm_lin_fetch(&pair->mirror, &there, &fetched) == KWM_OK, "fetched");
  same = same && pair_says(pair, there.device == pair->device && (there.facts != NULL) == owner, "lin");
  same = same && pair_says(pair, fetched.device == NULL && fetched.facts == NULL, "lin on the host");
  same = same && pair_says(pair, there.n_parts == lin.n_parts && there.chunks == lin.chunks, "parts and chunks");
  for (int g = 0; g < lin.n_parts && same; g++)
    same = pair->stages->share[g][me].count == 0 || same_jac(pair, &fetched.jac[g], &lin.jac[g]);
  const struct kwm_innovation innovation = kwm_lin_innovation(&there);
  return same && same_innovation(pair, &innovation, &lin.innovation) &&
         same_innovation(pair, &fetched.innovation, &lin.innovation) &&
         same_surprisals(pair, surprisal, lin.surprisal) && same_surprisals(pair, fetched.surprisal, lin.surprisal) &&
         same_outputs(pair, lin.bounds[lin.chunks]);
}

static inline bool pair_surprisal(struct pair *pair, const struct kwm_batch *batch) {
  double here[KWM_CHUNKS_MAX], there[KWM_CHUNKS_MAX];
  kwm_pipe_surprisal(pair->host, &pair->means, batch, here);
  kwm_pipe_surprisal(pair->there, &pair->sent, batch, there);
  return same_surprisals(pair, there, here);
}

static inline bool pair_predict(struct pair *pair, const struct kwm_images *images) {
  struct kwm_innovation here, there;
  kwm_pipe_predict(pair->host, &pair->means, images, &here);
  kwm_pipe_predict(pair->there, &pair->sent, images, &there);
  return pair_says(pair, there.samples == (double)images->n, "samples") && same_innovation(pair, &there, &here);
}

/* Steps of all sizes up to `most`, what comes between them, and the first step once more. */
static inline bool pair_agrees(struct pair *pair, const struct kwm_images *images, const int32_t *order, int64_t most) {
  const int64_t sizes[] = {most, most - 1, 3, most};
  bool same = true;
  for (size_t k = 0; k < sizeof sizes / sizeof sizes[0]; k++) {
    const struct kwm_batch batch = {.images = images, .order = order + 5 * (k % 3), .n = sizes[k], .step = 7 * k};
    const bool linearised = pair_linearise(pair, &batch);
    const bool surprised = pair_surprisal(pair, &batch), predicted = pair_predict(pair, images);
    same = same && linearised && surprised && predicted;
  }
  return same;
}

/* ---- the two models */

static inline bool pair_gated(struct kwm_layout *layout, int64_t width, int64_t batch, int64_t chunks,
                              double noise_variance, const char **differs) {
  struct small small;
  struct pair pair;
  small_init(&small, layout, width, batch, chunks);
  small.model.noise_variance = noise_variance;
  const struct kwm_pipe_spec spec = {
      .batch = batch, .chunks = chunks, .evidence = KWM_EVIDENCE_EXACT, .seed = 5, .dropout = chunks > 1 ? 0.4 : 0};
  small_pipe(&small, &spec);
  bool same = pair_init(&pair, small.pipe, &small.layout, &small.model, &small.stages, &small.params, &spec);
  same = same && pair_agrees(&pair, &small.data->images, small.order, batch);
  *differs = pair.differs;
  pair_fini(&pair);
  small_fini(&small);
  return same;
}

static inline bool pair_dense(struct kwm_layout *layout, const struct net_shape *shape, bool framed,
                              const char **differs) {
  struct net net;
  struct pair pair;
  net_init(&net, layout, shape);
  const struct kwm_pipe_spec spec = {.batch = shape->batch,
                                     .chunks = shape->chunks,
                                     .evidence = shape->evidence,
                                     .seed = NET_SEED,
                                     .dropout = shape->dropout};
  bool same = pair_init(&pair, net.pipe, &net.layout, &net.model, &net.stages, &net.params, &spec);
  if (framed) pair_frame(&pair);
  same = same && pair_agrees(&pair, &net.data->images, net.order, shape->batch);
  *differs = pair.differs;
  pair_fini(&pair);
  net_fini(&net);
  return same;
}

/* main of these tests: as DEVICE_TEST_MAIN, on all ranks. */
#define PIPE_TEST_MAIN(tests)                                                                                          \
  static int pair_tests(void) {                                                                                        \
    return cmocka_run_group_tests(tests, NULL, NULL);                                                                  \
  }                                                                                                                    \
  int main(int argc, char **argv) {                                                                                    \
    MPI_Init(&argc, &argv);                                                                                            \
    const int status = pair_main(pair_tests);                                                                          \
    MPI_Finalize();                                                                                                    \
    return status;                                                                                                     \
  }

static inline int pair_main(int (*pair_tests)(void)) {
  const struct kwm_device_spec spec = {.local_rank = kwm_par_local_rank(), .graphs = true};
  const char *const name = getenv("KWM_TEST_BACKEND") != NULL ? getenv("KWM_TEST_BACKEND") : "shadow";
  int rank = 0, all = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  if (rank != 0 && freopen("/dev/null", "w", stdout) == NULL) return 1;
  const int missing = kwm_device_open(&test_device, name, &spec) != KWM_OK;
  MPI_Allreduce(&missing, &all, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD);
  if (missing) printf("skipped: %s\n", kwm_error_message());
  const int mine = all ? CASE_SKIPPED : pair_tests();
  MPI_Allreduce(&mine, &all, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD);
  kwm_device_close(test_device);
  return all;
}
