/* kwm plan of a language model: what every rank will hold, and whether that fits. */
#include <stdio.h>

#include "language_commands.h"
#include "language_run.h"
#include "plan.h"

static const double MEGA = 1e6;

/* Memory of one rank. */
struct need {
  struct kwm_language_bytes learner, pipe;
  double copy;         /* for a checkpoint that is written while the run goes on */
  double host, device; /* all of it; host: with texts and libraries */
};

/* The ranks of one replica's stages and owners, as a layout sees them. */
static struct kwm_layout place_of(const struct kwm_layout *layout, int q) {
  struct kwm_layout at = {.replicas = layout->replicas, .stages = layout->stages, .owners = layout->owners};
  at.stage = q / at.owners, at.owner = q % at.owners;
  return at;
}

/* Eigenvectors in double: the matrix, what LAPACK takes, and on a device as much again (plan.c). */
static double basis_bytes(const struct kwm_language_run *run, const struct kwm_language_learn_spec *learn) {
  int64_t d = 0;
  for (int t = 0; t < run->model.n_tensors && !learn->adam; t++) {
    const struct kwm_tensor *const tensor = &run->model.tensors[t];
    if (learn->left[tensor->role] && tensor->rows > d) d = tensor->rows;
    if (learn->right[tensor->role] && tensor->columns > d) d = tensor->columns;
  }
  return 4.0 * (double)(d * d) * sizeof(double);
}

/* HDF5 copies a window of what one call moves; an evaluation keeps every token's surprisal. */
static double passing_bytes(const struct kwm_language_run *run) {
  const double window = 16 << 20;
  int64_t tokens = 0;
  for (int split = KWM_VALID; split <= KWM_TEST; split++)
    if (run->text[split].n > tokens) tokens = run->text[split].n;
  const double surprisal = (double)(run->model.stages * tokens) * sizeof(double);
  return window > surprisal ? window : surprisal;
}

static struct need need_of(const struct kwm_language_run *run, const struct kwm_layout *at) {
  const struct kwm_language_spec spec = kwm_language_run_spec(run);
  const struct kwm_language_learn_spec learn = kwm_language_run_learn_spec(run);
  const bool on_device = kwm_language_run_on_device(run);
  struct kwm_language_place place;
  struct need need = {0};
  if (kwm_language_spread(&place, &run->model, spec.reading, at->stages) != KWM_OK) return need;
  need.learner = kwm_language_learner_bytes(&run->model, &place, at, on_device, &learn);
  need.pipe = kwm_language_pipe_bytes(&run->model, &spec, at, on_device);
  need.device = need.learner.arrays + need.pipe.arrays + basis_bytes(run, &learn);
  need.copy = run->run->config.checkpoint.background ? need.learner.stored : 0;
  need.host = (double)run->run->libraries_bytes + kwm_plan_growth() + passing_bytes(run) + need.learner.host +
              need.pipe.host + need.copy + (on_device ? 0 : need.device);
  if (!on_device) need.device = 0;
  return need;
}

/* The largest over the ranks; *rank <- where. */
static struct need largest_need(const struct kwm_language_run *run, const struct kwm_layout *layout, int *rank) {
  struct need most = {0};
  for (int q = 0; q < layout->stages * layout->owners; q++) {
    const struct kwm_layout at = place_of(layout, q);
    const struct need need = need_of(run, &at);
    if (need.host > most.host) most.host = need.host, *rank = q;
    if (need.device > most.device) most.device = need.device;
  }
  return most;
}

/* The fewest owners that would do, 0 if none that the micro-batches can be dealt to would. */
static int64_t owners_that_fit(const struct kwm_language_run *run, double bytes) {
  struct kwm_layout layout = run->run->layout;
  const int64_t micro = run->run->config.train.chunks / layout.replicas;
  int rank;
  for (layout.owners++; layout.owners <= micro; layout.owners++)
    if (micro % layout.owners == 0 && largest_need(run, &layout, &rank).host <= bytes) return layout.owners;
  return 0;
}

static kwm_status judge(const struct kwm_language_run *run, const struct kwm_budget *budget) {
  int rank = 0;
  const struct need need = largest_need(run, &run->run->layout, &rank);
  const bool fits = need.host <= budget->bytes;
  const int64_t owners = fits ? 0 : owners_that_fit(run, budget->bytes);
  char words[64] = "no number of owners fits";
  if (owners > 0) snprintf(words, sizeof words, "fits: layout.owners=%lld", (long long)owners);
  KWM_CHECK(fits, KWM_ERR_USAGE, "memory: wanted at most %.1f MB on a rank (%s), found %.1f MB on rank %d; %s",
            budget->bytes / MEGA, budget->source, need.host / MEGA, rank, words);
  const kwm_device *const device = run->run->device;
  KWM_CHECK(
      device == NULL || device->memory <= 0 || need.device <= device->memory, KWM_ERR_USAGE,
      "memory: wanted at most %.1f MB on a device (%s), found %.1f MB; more of layout.stages or .owners take less",
      device->memory / MEGA, device->words, need.device / MEGA);
  return KWM_OK;
}

kwm_status kwm_language_plan_check(struct kwm_language_run *run, bool tells) {
  struct kwm_run *const base = run->run;
  struct kwm_budget budget;
  kwm_plan_measure(base);
  KWM_TRY(kwm_plan_budget(base, &budget));
  if (tells && base->layout.rank == 0)
    printf("# memory of a rank: at most %.1f MB (%s)\n", budget.bytes / MEGA, budget.source);
  return kwm_agree(base->layout.world, base->layout.rank == 0 ? judge(run, &budget) : KWM_OK);
}

static int owned(const struct kwm_language_run *run, const struct kwm_language_place *place,
                 const struct kwm_layout *at) {
  const struct kwm_language_learn_spec learn = kwm_language_run_learn_spec(run);
  int owner[KWM_TENSORS_MAX], n = 0;
  kwm_language_owners(&run->model, place, at->owners, &learn, owner);
  for (int t = 0; t < run->model.n_tensors; t++)
    n += owner[t] == at->owner && kwm_language_holder(place, &run->model, t) == at->stage;
  return n;
}

static void print_messages(const struct kwm_language_run *run) {
  const struct kwm_config *const config = &run->run->config;
  const struct kwm_layout *const layout = &run->run->layout;
  const double rows = (double)(config->train.batch * config->model.context) * (double)config->model.width;
  const double boundaries = layout->stages - 1, copies = (double)(run->model.types * run->model.width);
  const double workers = (double)layout->owners * layout->replicas;
  printf("# messages of a step, MB: forward %.1f, back %.1f, embedded tokens %.1f, the embedding's copies %.1f; scores "
         "to owners %.1f, means from them as much\n",
         4 * rows * boundaries / MEGA, run->model.stages > 1 ? 0 : 4 * rows * boundaries / MEGA,
         boundaries > 0 ? 4 * rows / MEGA : 0, 4 * copies * boundaries * workers / MEGA,
         4 * (double)kwm_transformer_parameters(&run->model) * (layout->owners - 1) * layout->replicas / MEGA);
}

static void print_plan(const struct kwm_language_run *run) {
  const struct kwm_layout *const layout = &run->run->layout;
  struct kwm_language_place place;
  if (kwm_language_spread(&place, &run->model, kwm_language_run_spec(run).reading, layout->stages) != KWM_OK) return;
  printf("# %lld parameters, %lld words, %lld tokens of training text, %lld steps a pass; %d ranks = %d replicas x %d "
         "stages x %d owners\n",
         (long long)kwm_transformer_parameters(&run->model), (long long)run->model.types,
         (long long)run->text[KWM_TRAIN].n, (long long)run->pass_steps, layout->size, layout->replicas, layout->stages,
         layout->owners);
  printf("rank\tlayers\treadings\ttensors_owned\tmeans_covariance_MB\tactivations_MB\ttotal_MB\tcheckpoint_copy_"
         "MB\thost_MB\tdevice_MB\n");
  for (int rank = 0; rank < layout->size; rank++) {
    const struct kwm_layout at = place_of(layout, rank % (layout->stages * layout->owners));
    const struct need need = need_of(run, &at);
    const double learner = need.learner.arrays / MEGA, pipe = need.pipe.arrays / MEGA;
    printf("%d\t%d to %d\t%d\t%d\t%.1f\t%.1f\t%.1f\t%.1f\t%.1f\t%.1f\n", rank, place.first_layer[at.stage] + 1,
           place.first_layer[at.stage + 1], place.first_stage[at.stage + 1] - place.first_stage[at.stage],
           owned(run, &place, &at), learner, pipe, learner + pipe, need.copy / MEGA, need.host / MEGA,
           need.device / MEGA);
  }
  print_messages(run);
}

static kwm_status plan(struct kwm_language_run *language) {
  struct kwm_language_place place;
  KWM_TRY(kwm_language_run_layout(language));
  KWM_TRY(kwm_language_run_read(language));
  KWM_TRY(kwm_language_spread(&place, &language->model, 0, language->run->layout.stages));
  kwm_plan_measure(language->run);
  if (language->run->layout.rank == 0) print_plan(language);
  return kwm_language_plan_check(language, true);
}

kwm_status kwm_language_plan(struct kwm_run *run) {
  struct kwm_language_run language = {.run = run};
  const kwm_status status = plan(&language);
  kwm_language_run_fini(&language);
  return status;
}
