/* Assembly: configuration -> model, layout, data, means, learner, pipe. */
#include "failure.h"
#include "run.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "kwm/backend.h"
#include "kwm/layer.h"

enum { CONFIG_BYTES_MAX = 1 << 20 };

/* text: CONFIG_BYTES_MAX + 1 bytes. */
static kwm_status read_text(const char *path, char *text) {
  struct stat info;
  FILE *file = stat(path, &info) == 0 && S_ISDIR(info.st_mode) ? (errno = EISDIR, NULL) : fopen(path, "rb");
  KWM_CHECK(file != NULL, KWM_ERR_USAGE, "config %s: wanted a readable file, found: %s", path, strerror(errno));
  const size_t bytes = fread(text, 1, CONFIG_BYTES_MAX + 1, file);
  const bool failed = ferror(file) != 0;
  fclose(file);
  KWM_CHECK(!failed, KWM_ERR_USAGE, "config %s: wanted a readable file, reading failed", path);
  KWM_CHECK(bytes <= CONFIG_BYTES_MAX, KWM_ERR_USAGE, "config %s: wanted at most %d bytes", path, CONFIG_BYTES_MAX);
  KWM_CHECK(memchr(text, '\0', bytes) == NULL, KWM_ERR_USAGE, "config %s: wanted text, found a zero byte", path);
  text[bytes] = '\0';
  return KWM_OK;
}

kwm_status kwm_run_configure_text(struct kwm_run *run, const char *name, const char *text,
                                  const struct kwm_arguments *arguments) {
  kwm_status status = kwm_config_load(&run->config, name, text, arguments->n_overrides, arguments->overrides);
  if (status == KWM_OK) status = kwm_config_text(&run->config, &run->config_text);
  return kwm_agree(MPI_COMM_WORLD, status);
}

/* Before a layout exists: rank 0's text on every rank. */
static kwm_status broadcast_text(const char *path, char *text) {
  struct kwm_layout world;
  kwm_par_world(&world);
  KWM_TRY(kwm_agree(MPI_COMM_WORLD, world.rank == 0 ? read_text(path, text) : KWM_OK));
  kwm_par_broadcast_world(&world, text, CONFIG_BYTES_MAX + 1);
  return KWM_OK;
}

kwm_status kwm_run_configure(struct kwm_run *run, const struct kwm_arguments *arguments) {
  KWM_CHECK(arguments->subject != NULL, KWM_ERR_USAGE, "arguments: wanted a configuration file, found none");
  char *text = calloc(1, CONFIG_BYTES_MAX + 2);
  KWM_TRY(kwm_agree(MPI_COMM_WORLD, text != NULL ? KWM_OK : KWM_RAISE(KWM_ERR_SYSTEM, "memory: no room for a text")));
  kwm_status status = broadcast_text(arguments->subject, text);
  if (status == KWM_OK) status = kwm_run_configure_text(run, arguments->subject, text, arguments);
  free(text);
  return status;
}

enum kwm_lowrank_kind kwm_run_kind(const char *word) {
  if (strcmp(word, "covariance") == 0) return KWM_LOWRANK_COVARIANCE;
  if (strcmp(word, "diagonal") == 0) return KWM_LOWRANK_DIAGONAL;
  return strcmp(word, "subspace") == 0 ? KWM_LOWRANK_SUBSPACE : KWM_LOWRANK_PRECISION;
}

static enum kwm_real real_of(const char *word) {
  return strcmp(word, "float") == 0 ? KWM_REAL_FLOAT : KWM_REAL_DOUBLE;
}

static bool is_dense(const struct kwm_config *config) {
  return strcmp(config->model.kind, "dense") == 0;
}

static struct kwm_cov_choice choice_of(const struct kwm_config_cov *cov) {
  const bool innovation = strcmp(cov->form, "innovation") == 0;
  return (struct kwm_cov_choice){.structure = cov->structure,
                                 .form = innovation ? KWM_FORM_INNOVATION : KWM_FORM_INFORMATION,
                                 .real = real_of(cov->real),
                                 .prior = cov->prior,
                                 .refresh = cov->refresh,
                                 .delay = cov->delay,
                                 .rank = cov->rank,
                                 .kind = kwm_run_kind(cov->kind)};
}

struct kwm_config_cov *kwm_run_cov(struct kwm_config *config, enum kwm_role role) {
  struct kwm_config_cov *const covs[KWM_ROLES] = {[KWM_ROLE_RECURRENCE] = &config->cov.recurrence,
                                                  [KWM_ROLE_HIDDEN] = &config->cov.hidden,
                                                  [KWM_ROLE_OUTPUT] = &config->cov.output};
  return covs[role];
}

const char *kwm_run_role_words(enum kwm_role role) {
  static const char *const words[KWM_ROLES] = {
      [KWM_ROLE_RECURRENCE] = "recurrence", [KWM_ROLE_HIDDEN] = "hidden", [KWM_ROLE_OUTPUT] = "output"};
  return words[role];
}

bool kwm_run_couples_samples(const struct kwm_config *config) {
  const struct kwm_config_cov *const covs[] = {&config->cov.hidden, &config->cov.output, &config->cov.recurrence};
  const size_t n_covs = is_dense(config) ? 2 : 3;
  bool couples = strcmp(config->cov.joint, "full") == 0;
  for (size_t k = 0; k < n_covs; k++)
    couples = couples || strcmp(covs[k]->form, "innovation") == 0 || strcmp(covs[k]->structure, "lowrank") == 0;
  return couples && strcmp(config->learner, "kalman") == 0;
}

/* What the keys must agree on beyond their own ranges. */
static kwm_status check_replicas(const struct kwm_config *config) {
  const long long replicas = config->layout.replicas;
  KWM_CHECK(config->train.chunks % replicas == 0, KWM_ERR_USAGE,
            "layout: wanted layout.replicas to divide train.chunks %lld, found %lld", (long long)config->train.chunks,
            replicas);
  KWM_CHECK(
      replicas == 1 || !kwm_run_couples_samples(config), KWM_ERR_USAGE,
      "layout: wanted layout.replicas 1 with the innovation form, lowrank or cov.joint full (the samples are taken "
      "together), found %lld",
      replicas);
  return KWM_OK;
}

/* One basis is awaited at a time. */
static kwm_status check_delay(const struct kwm_config *config) {
  const struct kwm_config_cov *const covs[] = {&config->cov.hidden, &config->cov.output};
  for (int k = 0; k < 2; k++)
    KWM_CHECK(covs[k]->delay < covs[k]->refresh, KWM_ERR_USAGE,
              "config: wanted cov.%s.delay below its refresh %lld, found %lld", k == 0 ? "hidden" : "output",
              (long long)covs[k]->refresh, (long long)covs[k]->delay);
  return KWM_OK;
}

void kwm_run_fit_layout(struct kwm_config *config, bool spread) {
  struct kwm_layout world;
  const int64_t replicas_max = kwm_run_couples_samples(config) ? 1 : 64,
                owners_max = config->model.width / KWM_GATED_LANES;
  int64_t replicas = 1;
  kwm_par_world(&world);
  const bool fits = config->layout.replicas * config->layout.stages * config->layout.owners == world.size;
  if (fits && (!spread || config->layout.replicas == 1)) return;
  while (2 * replicas <= replicas_max && world.size % (2 * replicas) == 0 &&
         (!spread || world.size / replicas > owners_max))
    replicas *= 2;
  config->layout.stages = 1;
  config->layout.owners = world.size / replicas;
  config->layout.replicas = replicas;
  if (config->train.chunks % replicas != 0) config->train.chunks = replicas;
}

/* widths "256 256" -> model. */
static kwm_status read_widths(struct kwm_model *model, const char *text) {
  const char *at = text;
  while (*at != '\0') {
    char *end;
    const long long width = strtoll(at, &end, 10);
    const bool number = end != at && (*end == ' ' || *end == ',' || *end == '\0') && width >= 1 && width <= 65536;
    KWM_CHECK(number && model->n_layers < KWM_LAYERS_MAX, KWM_ERR_USAGE,
              "config key `model.widths`: wanted 1 to %d numbers from 1 to 65536, found `%s`", KWM_LAYERS_MAX, text);
    model->widths[model->n_layers++] = width;
    at = end + strspn(end, " ,");
  }
  KWM_CHECK(model->n_layers > 0, KWM_ERR_USAGE, "config key `model.widths`: wanted at least one number, found nothing");
  return KWM_OK;
}

kwm_status kwm_run_lay_out(struct kwm_run *run, int64_t length, int classes) {
  const struct kwm_config *const config = &run->config;
  const bool gaussian = strcmp(config->model.observation, "gaussian") == 0;
  run->model = (struct kwm_model){.kind = is_dense(config) ? KWM_MODEL_DENSE : KWM_MODEL_GATED,
                                  .width = config->model.width,
                                  .hidden = config->model.hidden,
                                  .classes = classes,
                                  .length = length,
                                  .decay_min = config->model.decay_min,
                                  .decay_max = config->model.decay_max,
                                  .phase_max = config->model.phase_max,
                                  .readouts = strcmp(config->sensitivity, "stage") == 0,
                                  .noise_variance = gaussian ? config->model.noise_variance : 0};
  KWM_TRY(kwm_layout_init(&run->layout, config->layout.replicas, config->layout.stages, config->layout.owners));
  run->layout.direct = strcmp(config->layout.messages, "device") == 0;
  kwm_status status = kwm_run_check_words(config);
  if (status == KWM_OK) status = kwm_failure_check(config);
  if (status == KWM_OK && is_dense(config)) status = read_widths(&run->model, config->model.widths);
  if (status == KWM_OK) kwm_model_lay_out(&run->model);
  if (status == KWM_OK)
    status = kwm_stage_assign(&run->stages, &run->model, config->layout.stages, config->layout.owners);
  if (status == KWM_OK) status = check_replicas(config);
  if (status == KWM_OK) status = check_delay(config);
  return kwm_agree(run->layout.world, status);
}

kwm_status kwm_run_data_path(const struct kwm_run *run, const char **path) {
  const bool lists = strcmp(run->config.stream.kind, "list") == 0;
  const char *const environment = getenv("KWM_DATA");
  *path = run->config.data.path[0] != '\0' ? run->config.data.path : environment;
  KWM_CHECK(lists || (*path != NULL && **path != '\0'), KWM_ERR_USAGE,
            "data: wanted a folder in data.path or in the environment's KWM_DATA, found neither");
  return KWM_OK;
}

static kwm_status probe_stream(const struct kwm_run *run, const char *path, struct kwm_probe *probe) {
  const struct kwm_stream_spec spec = kwm_run_stream_spec(&run->config, path);
  struct kwm_stream_facts facts;
  KWM_TRY(kwm_stream_probe(&spec, &facts));
  *probe = (struct kwm_probe){
      .length = facts.length, .tasks = facts.tasks, .classes = facts.classes, .stream_bytes = facts.bytes};
  return KWM_OK;
}

static kwm_status probe_images(const struct kwm_run *run, const char *path, struct kwm_probe *probe) {
  int64_t test_length = 0;
  *probe = (struct kwm_probe){.classes = 10};
  KWM_TRY(kwm_images_probe(path, KWM_TRAIN, &probe->n_train, &probe->length));
  KWM_TRY(kwm_images_probe(path, KWM_TEST, &probe->n_test, &test_length));
  KWM_CHECK(run->config.data.validation < probe->n_train, KWM_ERR_USAGE,
            "data: wanted data.validation below the %lld training samples, found %lld", (long long)probe->n_train,
            (long long)run->config.data.validation);
  return KWM_OK;
}

kwm_status kwm_run_probe(const struct kwm_run *run, struct kwm_probe *probe) {
  const char *path;
  kwm_status status = kwm_run_data_path(run, &path); /* ranks on other hosts may lack the environment */
  if (status == KWM_OK && kwm_run_streams(&run->config))
    status = probe_stream(run, path, probe);
  else if (status == KWM_OK)
    status = probe_images(run, path, probe);
  return kwm_agree(MPI_COMM_WORLD, status);
}

static kwm_status read_train(struct kwm_run *run, const char *path) {
  const int64_t held = run->config.data.validation;
  if (held > 0) { /* first, so that the whole file is in memory only once */
    KWM_TRY(kwm_images_read(&run->valid, path, KWM_VALID));
    KWM_TRY(kwm_images_slice(&run->valid, run->valid.n - held, held));
  }
  KWM_TRY(kwm_images_read(&run->train, path, KWM_TRAIN));
  return kwm_images_slice(&run->train, 0, run->train.n - held);
}

static kwm_status make_room_for_moved(struct kwm_run *run) {
  const int64_t batch = run->config.train.batch;
  if (run->config.data.shift == 0) return KWM_OK;
  KWM_CHECK(kwm_images_square(run->train.length), KWM_ERR_DATA,
            "data: wanted square images with data.shift above 0, found %lld pixels", (long long)run->train.length);
  KWM_TRY(kwm_alloc((void **)&run->moved.pixels, (size_t)(batch * run->train.length), "moved images"));
  return kwm_alloc((void **)&run->moved.labels, (size_t)batch, "labels of moved images");
}

static kwm_status read_splits(struct kwm_run *run, bool train, bool test) {
  const char *path;
  KWM_TRY(kwm_run_data_path(run, &path));
  if (kwm_run_streams(&run->config)) {
    const struct kwm_stream_spec spec = kwm_run_stream_spec(&run->config, path);
    return kwm_stream_create(&run->stream, &spec);
  }
  if (train) KWM_TRY(read_train(run, path));
  if (train) KWM_TRY(make_room_for_moved(run));
  if (test) KWM_TRY(kwm_images_read(&run->test, path, KWM_TEST));
  struct kwm_images *const all[] = {&run->train, &run->valid, &run->test};
  for (size_t k = 0; k < sizeof all / sizeof all[0]; k++) {
    if (all[k]->n == 0) continue;
    KWM_CHECK(all[k]->length == run->model.length, KWM_ERR_DATA, "data %s: wanted images of %lld pixels, found %lld",
              path, (long long)run->model.length, (long long)all[k]->length);
    if (run->config.data.permute) KWM_TRY(kwm_images_permute(all[k], run->config.seed));
  }
  return KWM_OK;
}

kwm_status kwm_run_read_data(struct kwm_run *run, bool train, bool test) {
  run->libraries_bytes = kwm_mem_resident();
  return kwm_agree(run->layout.world, read_splits(run, train, test));
}

struct kwm_pipe_spec kwm_run_pipe_spec(const struct kwm_config *config) {
  const bool sampled = strcmp(config->filter.evidence, "sampled") == 0;
  return (struct kwm_pipe_spec){.batch = config->train.batch,
                                .chunks = config->train.chunks,
                                .evidence = sampled ? KWM_EVIDENCE_SAMPLED : KWM_EVIDENCE_EXACT,
                                .seed = config->seed,
                                .dropout = config->model.dropout,
                                .direct = strcmp(config->layout.messages, "device") == 0};
}

static bool inflates(const struct kwm_config *config) {
  return strcmp(config->change.reaction, "inflate") == 0 || kwm_failure_inflates(config);
}

static struct kwm_filter_spec filter_spec(const struct kwm_config *config) {
  return (struct kwm_filter_spec){.gain_factor = config->filter.gain_factor,
                                  .trust_region = config->filter.trust_region,
                                  .trust_expected = config->filter.trust_expected,
                                  .line_search = config->filter.line_search,
                                  .gate = config->filter.gate,
                                  .batch = config->train.batch,
                                  .chunks = config->train.chunks,
                                  .forgetting = config->filter.forgetting,
                                  .process_noise = config->filter.process_noise,
                                  .adapt_process = config->filter.adapt_process,
                                  .adapt_noise = config->filter.adapt_noise,
                                  .inflation = inflates(config) ? config->change.inflation : 0,
                                  .score_test = config->filter.score_test,
                                  .real = real_of(config->cov.joint_real)};
}

/* The baseline's own keys. */
static void add_rates(const struct kwm_config *config, struct kwm_learn_spec *spec) {
  const char *const learner = config->learner;
  const bool sgd = strcmp(learner, "sgd") == 0, kfac = strcmp(learner, "kfac") == 0;
  const bool ewc = strcmp(learner, "ewc") == 0;
  spec->rate = sgd ? config->sgd.rate : kfac ? config->kfac.rate : config->adam.rate;
  spec->momentum = config->sgd.momentum;
  spec->beta1 = config->adam.beta1;
  spec->beta2 = config->adam.beta2;
  spec->epsilon = config->adam.epsilon;
  spec->damping = kfac ? config->kfac.damping : config->si.damping;
  spec->decay = kfac ? config->kfac.decay : config->ewc.decay;
  spec->strength = ewc ? config->ewc.strength : config->si.strength;
  spec->refresh = config->kfac.refresh;
}

struct kwm_learn_spec kwm_run_learn_spec(const struct kwm_config *config, const struct kwm_model *model,
                                         int64_t steps) {
  const struct kwm_pipe_spec pipe = kwm_run_pipe_spec(config);
  struct kwm_learn_spec spec = {.filter = filter_spec(config),
                                .rows = kwm_pipe_rows(model, pipe.evidence),
                                .seed = config->seed,
                                .cov = {[KWM_ROLE_RECURRENCE] = choice_of(&config->cov.recurrence),
                                        [KWM_ROLE_HIDDEN] = choice_of(&config->cov.hidden),
                                        [KWM_ROLE_OUTPUT] = choice_of(&config->cov.output)},
                                .joint = strcmp(config->cov.joint, "full") == 0,
                                .total_steps = strcmp(config->train.schedule, "constant") == 0 ? 0 : steps};
  add_rates(config, &spec);
  return spec;
}

kwm_status kwm_run_build_learner(struct kwm_run *run) {
  const struct kwm_config *const config = &run->config;
  struct kwm_layout *const layout = &run->layout;
  struct kwm_learn_spec spec = kwm_run_learn_spec(config, &run->model, kwm_run_steps(run));
  spec.group_rank = layout->stage * layout->owners + layout->owner;
  spec.group_ranks = run->stages.ranks;
  spec.device = run->device;
  KWM_TRY(kwm_agree(layout->world,
                    kwm_params_create(&run->params, &run->model, &run->stages, spec.group_rank, config->seed)));
  return kwm_agree(layout->world,
                   kwm_learner_create(&run->learner, kwm_learner_find(config->learner), layout, &run->params, &spec));
}

kwm_status kwm_run_build(struct kwm_run *run) {
  KWM_TRY(kwm_run_build_learner(run));
  struct kwm_pipe_spec spec = kwm_run_pipe_spec(&run->config);
  spec.device = run->device;
  return kwm_agree(run->layout.world, kwm_pipe_create(&run->pipe, &run->layout, &run->model, &run->stages, &spec));
}

void kwm_run_fini(struct kwm_run *run) {
  kwm_pipe_destroy(run->pipe);
  kwm_learner_destroy(&run->learner);
  kwm_params_destroy(&run->params);
  kwm_device_close(run->device);
  kwm_images_fini(&run->train);
  kwm_images_fini(&run->valid);
  kwm_images_fini(&run->test);
  kwm_images_fini(&run->moved);
  kwm_stream_destroy(run->stream);
  if (run->layout.size > 0) kwm_layout_fini(&run->layout);
  kwm_config_fini(&run->config);
  free(run->config_text);
  memset(run, 0, sizeof *run);
}

bool kwm_run_checkpoint_folder(const char *subject, char *dir, size_t bytes) {
  struct stat info;
  if (stat(subject, &info) != 0 || !S_ISDIR(info.st_mode)) return false;
  snprintf(dir, bytes, "%s/checkpoints", subject);
  if (stat(dir, &info) != 0) snprintf(dir, bytes, "%s", subject);
  return true;
}

kwm_status kwm_run_open_checkpoint(kwm_ckpt **ckpt, struct kwm_layout *layout, const char *subject) {
  char dir[4096];
  if (!kwm_run_checkpoint_folder(subject, dir, sizeof dir)) return kwm_ckpt_open(ckpt, layout->world, subject);
  return kwm_ckpt_open_newest(ckpt, layout->world, dir);
}

int kwm_run_libraries(const char *libraries[][2], int capacity) {
  const char *const list[][2] = {
      {"MPI", kwm_par_version()}, {"HDF5", kwm_ckpt_version()}, {"BLAS", kwm_backend_words()}};
  const int n = sizeof list / sizeof list[0];
  KWM_ASSERT(n <= capacity);
  for (int i = 0; i < n; i++) {
    libraries[i][0] = list[i][0];
    libraries[i][1] = list[i][1];
  }
  return n;
}
