/* kwm plan: bytes and operations of every rank, computed by the same functions that the constructors use. */
#include "plan.h"

#include <stdio.h>
#include <string.h>

#include "kwm/app.h"
#include "kwm/cov_ops.h"
#include "kwm/full.h"
#include "language_commands.h"
#include "language_run.h"
#include "task_table.h"
#include "world_run.h"

/* What libraries take beyond what is resident at the start: OpenBLAS's packing buffers, HDF5's and MPI's pools, code
   pages touched later. Measured at 4 to 15 MB, LAPACK's workspace and a checkpoint's copies apart, on models of 1
   thousand to 1 million parameters; these and everything else are counted. */
enum { LIBRARY_GROWTH = 7000000 };

double kwm_plan_growth(void) {
  return LIBRARY_GROWTH;
}

size_t kwm_plan_total(const struct kwm_plan *plan) {
  return plan->data + plan->params + plan->learner + plan->pipe + plan->libraries;
}

static size_t larger(size_t a, size_t b) {
  return a > b ? a : b;
}

/* The largest workspace of the filter's LAPACK calls: eigenvectors of order d (3 d²: row-major copy and work; kron's
   factors, lowrank's Gram matrix on every rank, float's joint covariance's A Aᵀ), or the copy of S that is factored. */
static size_t lapack_bytes(const struct kwm_run *run, const struct kwm_params *params,
                           const struct kwm_learn_spec *spec) {
  size_t numbers = 0;
  const size_t rows = (size_t)(spec->filter.batch * spec->rows);
  if (strcmp(run->config.learner, "kalman") != 0) return 0;
  for (int g = 0; g < run->model.n_groups; g++) {
    const size_t d_o = (size_t)run->model.groups[g].d_o, d_i = (size_t)run->model.groups[g].d_i;
    const struct kwm_cov_choice *const choice = &spec->cov[run->model.groups[g].role];
    const bool rotates = params->share[g].count > 0 && strcmp(choice->structure, "kron") == 0 && !spec->joint;
    const size_t d = rotates ? larger(d_o, d_i) : 0;
    const bool low = strcmp(choice->structure, "lowrank") == 0 && !spec->joint;
    const size_t columns = low ? (size_t)choice->rank + rows : 0;
    numbers = larger(numbers, 3 * larger(d * d, columns * columns));
  }
  const bool root = spec->joint && spec->filter.real == KWM_REAL_FLOAT;
  if (kwm_run_couples_samples(&run->config)) numbers = larger(numbers, (root ? 3 : 1) * rows * rows);
  return numbers * sizeof(double);
}

/* Of a matrix on a device: what a checkpoint has besides P, from which the run goes on. */
static size_t deferred_numbers(const struct kwm_run *run, const struct kwm_group *group,
                               const struct kwm_cov_choice *choice) {
  const bool deferred = strcmp(choice->structure, "block") == 0 && choice->form == KWM_FORM_INNOVATION &&
                        group->d_o > 0 && strcmp(run->config.backend, "cpu") != 0;
  return deferred ? (size_t)(group->params * (group->params + KWM_PENDING_ROWS)) : 0;
}

/* What checkpoint.background copies: means, and the learner's state. */
static size_t copy_bytes(const struct kwm_run *run, const struct kwm_params *params,
                         const struct kwm_learn_spec *spec) {
  const struct kwm_learner_ops *const learner = kwm_learner_find(run->config.learner);
  size_t means = 0, state = 0;
  if (!run->config.checkpoint.background) return 0;
  for (int g = 0; g < run->model.n_groups; g++) {
    const struct kwm_group *const group = &run->model.groups[g];
    const struct kwm_cov_choice *const choice = &spec->cov[group->role];
    const char *const structure = choice->structure;
    const size_t p = (size_t)group->params, sides = (size_t)(group->d_o * group->d_o + group->d_i * group->d_i);
    const size_t factors = choice->delay > 0 ? 2 * sides : sides; /* a basis may be awaited */
    const size_t columns = strcmp(structure, "block") == 0     ? p
                           : strcmp(structure, "lowrank") == 0 ? (size_t)choice->rank + 1
                                                               : 1;
    const size_t numbers =
        p * columns + (strcmp(structure, "kron") == 0 ? sides + factors : 0) + deferred_numbers(run, group, choice);
    const size_t count = (size_t)params->share[g].count;
    means += count * p * sizeof(float);
    state += count * numbers * (choice->real == KWM_REAL_FLOAT ? sizeof(float) : sizeof(double));
  }
  const size_t n = (size_t)kwm_model_parameters(&run->model);
  const size_t number = spec->filter.real == KWM_REAL_FLOAT ? sizeof(float) : sizeof(double);
  if (spec->joint) state = n * n * number / (size_t)spec->group_ranks;
  return means + (learner->saved != NULL ? learner->saved(params) : state);
}

/* ---- operations */

static struct kwm_cov_spec cov_spec(const struct kwm_run *run, const struct kwm_learn_spec *spec, int g,
                                    struct kwm_share share) {
  const struct kwm_group *const group = &run->model.groups[g];
  const struct kwm_cov_choice *const choice = &spec->cov[group->role];
  const struct kwm_filter_spec *const filter = &spec->filter;
  return (struct kwm_cov_spec){.form = choice->form,
                               .real = choice->real,
                               .count = share.count,
                               .total = group->total,
                               .params = group->params,
                               .d_o = group->d_o,
                               .d_i = group->d_i,
                               .forgetting = filter->forgetting,
                               .process_noise = filter->process_noise + filter->adapt_process,
                               .refresh = choice->refresh,
                               .delay = choice->delay,
                               .rank = choice->rank,
                               .kind = choice->kind,
                               .n_max = kwm_pipe_samples_max(filter->batch, run->config.layout.replicas),
                               .m = spec->rows,
                               .layout = (struct kwm_layout *)&run->layout}; /* only compared with NULL */
}

static struct kwm_full_spec full_spec(const struct kwm_run *run, const struct kwm_learn_spec *spec) {
  const struct kwm_filter_spec *const filter = &spec->filter;
  struct kwm_full_spec full = {.rows_max = filter->batch * spec->rows, .real = filter->real};
  full.n = kwm_model_parameters(&run->model);
  full.dynamics = filter->forgetting < 1 || filter->process_noise > 0 || filter->adapt_process > 0;
  return full;
}

/* Forward in time with sensitivities, forward and back through a matrix: what kwm_stage_operations counts, less the
   evidence and updates of the default structures, which are in there to balance the ranks. n: samples. */
static double model_operations(const struct kwm_run *run, int g, double n, double rows) {
  const struct kwm_group *const group = &run->model.groups[g];
  const double runs = 0.25; /* symbols per pixel; images are mostly background */
  if (group->d_o == 0) return n * runs * (double)run->model.length * 84;
  const double forward = run->config.filter.line_search ? 2 : 1;
  return n * 2 * (double)group->d_o * (double)group->d_i * (forward + rows);
}

/* S is factored, and with adaptive noise inverted, on every rank. */
static double filter_operations(const struct kwm_run *run, const struct kwm_learn_spec *spec,
                                const struct kwm_params *params) {
  const double rows = (double)(spec->filter.batch * spec->rows);
  double operations = 0;
  bool shared = spec->joint;
  if (spec->joint) {
    const struct kwm_filter_spec *const filter = &spec->filter;
    const struct kwm_full_spec full = full_spec(run, spec);
    operations = kwm_full_operations(&full, run->stages.ranks, (filter->forgetting < 1),
                                     filter->process_noise + filter->adapt_process > 0);
  }
  for (int g = 0; g < run->model.n_groups && !spec->joint; g++) {
    const struct kwm_cov_spec cov = cov_spec(run, spec, g, params->share[g]);
    operations += kwm_cov_operations(kwm_cov_find(spec->cov[run->model.groups[g].role].structure), &cov);
    shared = shared || cov.form == KWM_FORM_INNOVATION;
  }
  return operations + (shared ? (spec->filter.adapt_noise > 0 ? 1 : 1. / 3) * rows * rows * rows : 0);
}

/* Jᵀe and its products with sensitivities or inputs, and the rule. */
static double gradient_operations(const struct kwm_run *run, int g, int64_t count, double n, double m) {
  const struct kwm_group *const group = &run->model.groups[g];
  const double p = (double)group->params, o = (double)group->d_o;
  return (double)count * (n * (o > 0 ? 2 * m * o + 2 * p : 10 * m + 4 * p) + 10 * p);
}

static double operations_of(const struct kwm_run *run, const struct kwm_learn_spec *spec,
                            const struct kwm_params *params) {
  const double n = (double)kwm_pipe_samples_max(spec->filter.batch, run->config.layout.replicas);
  const bool kalman = strcmp(run->config.learner, "kalman") == 0;
  double operations = kalman ? filter_operations(run, spec, params) : 0;
  for (int g = 0; g < run->model.n_groups; g++) {
    const int64_t count = params->share[g].count;
    operations += (double)count * model_operations(run, g, n, (double)spec->rows);
    if (!kalman) operations += gradient_operations(run, g, count, n, (double)spec->rows);
  }
  return operations;
}

bool kwm_plan_countable(const struct kwm_run *run) {
  const struct kwm_learn_spec spec = kwm_run_learn_spec(&run->config, &run->model, 1);
  if (strcmp(run->config.learner, "kalman") != 0) return true;
  if (spec.joint) {
    const struct kwm_full_spec full = full_spec(run, &spec);
    return kwm_full_countable(&full, run->stages.ranks);
  }
  bool countable = true;
  for (int g = 0; g < run->model.n_groups; g++) {
    const struct kwm_cov_spec cov = cov_spec(run, &spec, g, (struct kwm_share){0, run->model.groups[g].total});
    countable = countable && kwm_cov_countable(kwm_cov_find(spec.cov[run->model.groups[g].role].structure), &cov);
  }
  return countable;
}

/* ---- a rank, and the command */

/* The stream, the order of a mini-batch, the tasks' accuracies. */
static size_t stream_bytes(const struct kwm_config *config, const struct kwm_probe *probe) {
  return probe->stream_bytes + kwm_mem_rounded((size_t)config->train.batch * sizeof(int32_t)) +
         kwm_task_table_bytes(probe->tasks);
}

/* Eigenvectors of the largest factor of a kron, in double: the matrix and 3 d² of work (backend/cuda_dense.c). */
static size_t basis_bytes(const struct kwm_run *run, const struct kwm_params *params,
                          const struct kwm_learn_spec *spec) {
  size_t d = 0;
  for (int g = 0; g < run->model.n_groups; g++) {
    const struct kwm_group *const group = &run->model.groups[g];
    const bool turns = params->share[g].count > 0 && strcmp(spec->cov[group->role].structure, "kron") == 0;
    if (turns) d = larger(d, larger((size_t)group->d_o, (size_t)group->d_i));
  }
  return 4 * d * d * sizeof(double);
}

/* Without what CUDA takes for itself. */
static size_t device_bytes(const struct kwm_run *run, int group_rank, const struct kwm_params *params,
                           const struct kwm_learn_spec *spec) {
  const struct kwm_config *const config = &run->config;
  const struct kwm_learner_ops *const learner = kwm_learner_find(config->learner);
  const struct kwm_pipe_spec pipe = kwm_run_pipe_spec(config);
  const bool there = learner->on_device != NULL && learner->on_device(spec, &run->model);
  if (strcmp(config->backend, "cpu") == 0) return 0;
  return kwm_learner_device_bytes(learner, spec, params, config->layout.replicas) +
         kwm_pipe_device_bytes(&run->model, &run->stages, group_rank, &pipe, config->layout.replicas) +
         (there ? basis_bytes(run, params, spec) : 0);
}

struct kwm_plan kwm_plan_rank(const struct kwm_run *run, int group_rank, const struct kwm_probe *probe) {
  const struct kwm_config *const config = &run->config;
  const int64_t held = config->data.validation, length = run->model.length, replicas = config->layout.replicas;
  struct kwm_learn_spec spec = kwm_run_learn_spec(config, &run->model, 1);
  spec.group_rank = group_rank;
  spec.group_ranks = run->stages.ranks;
  struct kwm_params params = {.model = &run->model};
  for (int g = 0; g < run->model.n_groups; g++) params.share[g] = run->stages.share[g][group_rank];
  struct kwm_plan plan = {.libraries = run->libraries_bytes + LIBRARY_GROWTH + lapack_bytes(run, &params, &spec) +
                                       copy_bytes(run, &params, &spec)};
  plan.data = probe->tasks > 0
                  ? stream_bytes(config, probe)
                  : kwm_images_bytes(probe->n_train, length) + (held > 0 ? kwm_images_bytes(held, length) : 0) +
                        kwm_images_bytes(probe->n_test, length) +
                        (config->data.shift > 0 ? kwm_images_bytes(config->train.batch, length) : 0) +
                        kwm_mem_rounded((size_t)(probe->n_train - held + config->train.batch) * sizeof(int32_t));
  plan.params = kwm_params_bytes(&run->model, &run->stages, group_rank);
  plan.learner = kwm_learner_bytes(kwm_learner_find(config->learner), &spec, &params, replicas);
  const struct kwm_pipe_spec pipe = kwm_run_pipe_spec(config);
  plan.pipe = kwm_pipe_bytes(&run->model, &run->stages, group_rank, &pipe, replicas);
  plan.device = device_bytes(run, group_rank, &params, &spec);
  plan.operations = operations_of(run, &spec, &params);
  return plan;
}

void kwm_plan_measure(struct kwm_run *run) {
  double resident = (double)kwm_mem_resident();
  kwm_par_max_world(&run->layout, 1, &resident);
  run->libraries_bytes = (size_t)resident;
}

static void print_plan(const struct kwm_run *run, const struct kwm_probe *probe) {
  const struct kwm_config *const config = &run->config;
  const struct kwm_pipe_spec pipe = kwm_run_pipe_spec(config);
  const double mega = 1e6;
  const int64_t n_train = probe->n_train - config->data.validation;
  printf("# %lld parameters, ", (long long)kwm_model_parameters(&run->model));
  if (probe->tasks > 0)
    printf("%lld tasks", (long long)probe->tasks);
  else
    printf("%lld training samples, %lld steps an epoch", (long long)n_train,
           (long long)kwm_run_epoch_steps(config, n_train));
  printf("; %d ranks = %d replicas x %d stages x %d owners\n", run->layout.size, run->layout.replicas,
         run->layout.stages, run->layout.owners);
  printf("rank");
  for (int g = 0; g < run->model.n_groups; g++)
    printf("\t%s", run->model.groups[g].role == KWM_ROLE_RECURRENCE ? "units" : run->model.groups[g].name);
  printf("\tdata_MB\tmeans_MB\tlearner_MB\tactivations_MB\tlibraries_MB\ttotal_MB\ttotal_"
         "bytes\tdevice_MB\tMflop_per_step\n");
  for (int rank = 0; rank < run->layout.size; rank++) {
    const int q = rank % run->stages.ranks;
    const struct kwm_plan plan = kwm_plan_rank(run, q, probe);
    printf("%d", rank);
    for (int g = 0; g < run->model.n_groups; g++) printf("\t%lld", (long long)run->stages.share[g][q].count);
    printf("\t%.1f\t%.1f\t%.1f\t%.1f\t%.1f\t%.1f\t%zu\t%.1f\t%.0f\n", (double)plan.data / mega,
           (double)plan.params / mega, (double)plan.learner / mega, (double)plan.pipe / mega,
           (double)plan.libraries / mega, (double)kwm_plan_total(&plan) / mega, kwm_plan_total(&plan),
           (double)plan.device / mega, plan.operations / mega);
  }
  printf("# messages within a replica: %.2f MB a step\n",
         kwm_pipe_message_bytes(&run->model, &run->stages, &pipe,
                                kwm_pipe_samples_max(config->train.batch, config->layout.replicas)) /
             mega);
}

static kwm_status plan(struct kwm_run *run, const struct kwm_arguments *arguments) {
  struct kwm_probe probe;
  KWM_TRY(kwm_run_configure(run, arguments));
  if (kwm_language_is(&run->config)) return kwm_language_plan(run);
  if (kwm_world_wanted(&run->config)) return kwm_world_plan(run);
  KWM_TRY(kwm_run_probe(run, &probe));
  KWM_TRY(kwm_run_lay_out(run, probe.length, probe.classes));
  kwm_plan_measure(run);
  if (run->layout.rank == 0 && kwm_plan_countable(run)) print_plan(run, &probe);
  return kwm_plan_check(run, &probe, true);
}

kwm_status kwm_command_plan(int argc, char **argv) {
  struct kwm_arguments arguments;
  struct kwm_run run;
  memset(&run, 0, sizeof run);
  kwm_status status = kwm_arguments_read(&arguments, argc, argv);
  if (status == KWM_OK) status = plan(&run, &arguments);
  kwm_run_fini(&run);
  kwm_arguments_fini(&arguments);
  return status;
}
