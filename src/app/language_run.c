/* Assembly of a language model's run. */
#include "failure.h"
#include "language_run.h"

#include <math.h>
#include <string.h>

#include "kwm/log.h"

bool kwm_language_is(const struct kwm_config *config) {
  return strcmp(config->model.kind, "transformer") == 0;
}

static bool is(const char *word, const char *wanted) {
  return strcmp(word, wanted) == 0;
}

/* What the keys must agree on beyond their own ranges. */
static kwm_status check_words(const struct kwm_config *config) {
  KWM_CHECK(is(config->learner, "kalman") || is(config->learner, "adam"), KWM_ERR_USAGE,
            "config: wanted learner kalman or adam with model.kind transformer, found %s", config->learner);
  KWM_CHECK(is(config->sensitivity, "adjoint") || is(config->sensitivity, "stage"), KWM_ERR_USAGE,
            "config: wanted sensitivity adjoint or stage with model.kind transformer, found %s", config->sensitivity);
  KWM_CHECK(is(config->learner, "adam") || is(config->filter.evidence, "innovations"), KWM_ERR_USAGE,
            "config: wanted filter.evidence innovations with model.kind transformer, found %s",
            config->filter.evidence);
  KWM_CHECK(is(config->stream.kind, "none") || is(config->stream.kind, "topics"), KWM_ERR_USAGE,
            "config: wanted stream.kind none or topics with model.kind transformer, found %s", config->stream.kind);
  const char *const structures[] = {config->cov.hidden.structure, config->cov.output.structure};
  for (int k = 0; k < 2; k++)
    KWM_CHECK(is(structures[k], "kron") || is(structures[k], "diag"), KWM_ERR_USAGE,
              "config: wanted cov.%s.structure kron or diag with model.kind transformer, found %s",
              k == 0 ? "hidden" : "output", structures[k]);
  const int64_t delays[] = {config->cov.hidden.delay, config->cov.output.delay};
  for (int k = 0; k < 2; k++)
    KWM_CHECK(delays[k] == 0, KWM_ERR_USAGE, "config: wanted cov.%s.delay 0 with model.kind transformer, found %lld",
              k == 0 ? "hidden" : "output", (long long)delays[k]);
  return KWM_OK;
}

void kwm_language_run_fit(struct kwm_config *config) {
  struct kwm_layout world;
  kwm_par_world(&world);
  if (config->layout.stages * config->layout.owners * config->layout.replicas == world.size) return;
  int64_t replicas = 1;
  while (world.size % (2 * replicas) == 0) replicas *= 2;
  config->layout.owners = world.size / replicas;
  config->layout.stages = 1;
  config->layout.replicas = replicas;
  if (config->train.chunks % world.size != 0) config->train.chunks = world.size;
  if (config->train.batch % config->train.chunks != 0) config->train.batch = config->train.chunks;
}

kwm_status kwm_language_run_layout(struct kwm_language_run *run) {
  const struct kwm_config *const config = &run->run->config;
  KWM_TRY(kwm_agree(MPI_COMM_WORLD, check_words(config)));
  KWM_TRY(kwm_agree(MPI_COMM_WORLD, kwm_failure_check(config)));
  return kwm_layout_init(&run->run->layout, config->layout.replicas, config->layout.stages, config->layout.owners);
}

static kwm_status read_texts(struct kwm_language_run *run) {
  const struct kwm_config *const config = &run->run->config;
  struct kwm_text_source source = {.files = {config->data.train, config->data.valid, config->data.test}};
  KWM_TRY(kwm_run_data_path(run->run, &source.folder));
  KWM_TRY(kwm_vocabulary_read(&run->vocabulary, &run->text[KWM_TRAIN], &source));
  KWM_TRY(kwm_tokens_read(&run->text[KWM_VALID], run->vocabulary, &source, KWM_VALID, true));
  KWM_TRY(kwm_tokens_read(&run->text[KWM_TEST], run->vocabulary, &source, KWM_TEST, true));
  run->pass_steps = kwm_streams_steps(run->text[KWM_TRAIN].n, config->train.batch, config->model.context);
  KWM_CHECK(run->pass_steps > 0, KWM_ERR_DATA,
            "data: wanted at least one step of %lld sequences of %lld tokens, found %lld tokens",
            (long long)config->train.batch, (long long)config->model.context, (long long)run->text[KWM_TRAIN].n);
  const int64_t all = config->train.epochs * run->pass_steps, most = config->train.max_steps;
  run->steps = most > 0 && most < all ? most : all;
  return KWM_OK;
}

kwm_status kwm_language_run_model(struct kwm_language_run *run, int64_t types) {
  const struct kwm_config *const config = &run->run->config;
  run->model = (struct kwm_transformer){.types = types,
                                        .context = config->model.context,
                                        .width = config->model.width,
                                        .heads = config->model.heads,
                                        .ratio = config->model.ratio,
                                        .layers = (int)config->model.layers,
                                        .stages = is(config->sensitivity, "stage") ? (int)config->model.readouts : 1,
                                        .dropout = config->model.dropout,
                                        .dropout_embedding = config->model.dropout_embedding,
                                        .dropout_readout = config->model.dropout_readout};
  return kwm_transformer_lay_out(&run->model);
}

kwm_status kwm_language_run_read(struct kwm_language_run *run) {
  run->run->libraries_bytes = kwm_mem_resident();
  kwm_status status = read_texts(run);
  if (status == KWM_OK) status = kwm_language_run_model(run, kwm_vocabulary_facts(run->vocabulary).size);
  return kwm_agree(run->run->layout.world, status);
}

bool kwm_language_run_on_device(const struct kwm_language_run *run) {
  return !is(run->run->config.backend, "cpu");
}

/* A layer has much beside products, and on a GPU the filter's own; a reading is one large product after the other,
   which in 16 bits run twice as fast as in TF32. On an H200 (6 layers of 512, 33,278 words) a reading with all that is
   five times a layer's operations took half of a layer's time. */
static double reading_cost(const struct kwm_config *config) {
  if (!is(config->backend, "cuda")) return 1;
  return is(config->precision, "bfloat16") ? 0.1 : 0.2;
}

struct kwm_language_spec kwm_language_run_spec(const struct kwm_language_run *run) {
  const struct kwm_config *const config = &run->run->config;
  const int64_t all = run->own * run->run->layout.owners;
  return (struct kwm_language_spec){.batch = run->own > 0 ? all : config->train.batch,
                                    .micro = run->own > 0 ? all / run->micro : config->train.chunks,
                                    .seed = config->seed,
                                    .half = is(config->precision, "bfloat16"),
                                    .copy_every = config->train.copy_every,
                                    .reading = reading_cost(config),
                                    .direct = is(config->layout.messages, "device"),
                                    .device = run->run->device};
}

struct kwm_language_learn_spec kwm_language_run_learn_spec(const struct kwm_language_run *run) {
  const struct kwm_config *const config = &run->run->config;
  const double hidden = config->cov.hidden.prior, output = config->cov.output.prior, q = config->filter.process_noise;
  const bool matrices = is(config->cov.hidden.structure, "kron"), reads = is(config->cov.output.structure, "kron");
  return (struct kwm_language_learn_spec){
      .adam = is(config->learner, "adam"),
      .seed = config->seed,
      .tokens = config->train.batch * config->model.context,
      .total_steps = is(config->train.schedule, "cosine") ? run->steps : 0,
      .warmup = config->train.warmup,
      .floor = config->train.floor,
      .average = config->train.average,
      .prior = {[KWM_TENSOR_MATRIX] = hidden, [KWM_TENSOR_EMBEDDING] = output, [KWM_TENSOR_VECTOR] = output},
      .left = {[KWM_TENSOR_MATRIX] = matrices},
      .right = {[KWM_TENSOR_MATRIX] = matrices, [KWM_TENSOR_EMBEDDING] = reads},
      .step = {[KWM_TENSOR_MATRIX] = sqrt(q / hidden),
               [KWM_TENSOR_EMBEDDING] = sqrt(q / output),
               [KWM_TENSOR_VECTOR] = sqrt(q / output)},
      .stage_noise = config->filter.stage_noise,
      .pull = config->filter.pull,
      .rate_f = config->filter.evidence_rate,
      .rate_m = 1 - config->filter.smoothing,
      .rate_factor = config->filter.factor_rate,
      .refresh = config->cov.hidden.refresh,
      .anew = config->cov.hidden.exact,
      .factor_every = config->filter.factor_every,
      .spread = config->filter.spread_bases,
      .steady = is(config->filter.riccati, "steady"),
      .trust = config->filter.trust_region,
      .gate = config->filter.gate,
      .rate = config->adam.rate,
      .beta1 = config->adam.beta1,
      .beta2 = config->adam.beta2,
      .epsilon = config->adam.epsilon,
      .decay = config->adam.decay,
      .clip = config->adam.clip};
}

kwm_status kwm_language_run_build(struct kwm_language_run *run) {
  struct kwm_layout *const layout = &run->run->layout;
  const struct kwm_language_spec spec = kwm_language_run_spec(run);
  const struct kwm_language_learn_spec learn = kwm_language_run_learn_spec(run);
  KWM_TRY(kwm_agree(layout->world, kwm_language_create(&run->language, layout, &run->model, &spec)));
  return kwm_language_learner_create(&run->learner, layout, &run->model, run->language, run->run->device, &learn);
}

void kwm_language_run_fini(struct kwm_language_run *run) {
  kwm_language_learner_destroy(run->learner);
  kwm_language_destroy(run->language);
  for (int split = 0; split < 3; split++) kwm_tokens_fini(&run->text[split]);
  kwm_vocabulary_destroy(run->vocabulary);
}

/* Weights of the mixture of the stages' predictions: expectation maximisation, which never lowers the likelihood. */
static void fit_weights(int stages, int64_t n, const double *surprisal, double *weights) {
  enum { ROUNDS = 30 };
  for (int s = 0; s < stages; s++) weights[s] = 1.0 / stages;
  for (int round = 0; round < ROUNDS; round++) {
    double sums[KWM_TRANSFORMER_STAGES_MAX] = {0};
    for (int64_t t = 0; t < n; t++) {
      double p[KWM_TRANSFORMER_STAGES_MAX], all = 0;
      for (int s = 0; s < stages; s++) all += p[s] = weights[s] * exp(-surprisal[s * n + t]);
      for (int s = 0; s < stages && all > 0; s++) sums[s] += p[s] / all;
    }
    for (int s = 0; s < stages; s++) weights[s] = sums[s] / (double)n;
  }
}

void kwm_language_score_text(int stages, int64_t n, const double *surprisal, const double *weights,
                             struct kwm_language_score *score) {
  double fused = 0;
  for (int s = 0; s < stages; s++) {
    double sum = 0;
    for (int64_t t = 0; t < n; t++) sum += surprisal[s * n + t];
    score->stage[s] = exp(sum / (double)n);
  }
  for (int64_t t = 0; t < n; t++) {
    double p = 0;
    for (int s = 0; s < stages; s++) p += weights[s] * exp(-surprisal[s * n + t]);
    fused -= log(p);
  }
  score->tokens = n;
  score->fused = exp(fused / (double)n);
}

kwm_status kwm_language_score(struct kwm_language_run *run, enum kwm_split split, bool fits, double *weights,
                              struct kwm_language_score *score) {
  const struct kwm_tokens *const text = &run->text[split];
  const int64_t n = text->n - 1;
  float *const *const means = kwm_language_means(run->learner, true);
  double *surprisal;
  memset(score, 0, sizeof *score);
  if (n < 1) return KWM_OK;
  KWM_TRY(kwm_agree(run->run->layout.world,
                    kwm_alloc((void **)&surprisal, (size_t)(run->model.stages * n) * sizeof *surprisal, "surprisal")));
  kwm_language_share(run->language, means);
  kwm_language_predict(run->language, means, text->n, text->ids, surprisal);
  kwm_language_share(run->language, kwm_language_means(run->learner, false));
  if (fits) fit_weights(run->model.stages, n, surprisal, weights);
  kwm_language_score_text(run->model.stages, n, surprisal, weights, score);
  kwm_free(surprisal);
  return KWM_OK;
}
