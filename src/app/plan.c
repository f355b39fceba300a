/* kwm plan: bytes and operations of every rank, computed by the same functions that the constructors use. */
#include "plan.h"

#include <stdio.h>
#include <string.h>

#include "kwm/app.h"

/* What libraries take beyond what is resident at the start: OpenBLAS's packing buffers, HDF5's and MPI's pools, code
   pages touched later. Measured at 4 to 11 MB, LAPACK's workspace apart, on models of 136 thousand to 1 million
   parameters; that workspace and everything else is counted. */
enum { LIBRARY_GROWTH = 7000000 };

size_t kwm_plan_total(const struct kwm_plan *plan) {
  return plan->data + plan->params + plan->learner + plan->pipe + plan->libraries;
}

static size_t larger(size_t a, size_t b) {
  return a > b ? a : b;
}

/* The largest workspace of the filter's LAPACK calls: eigenvectors of order d (3 d²: row-major copy and work; kron's
   factors, lowrank's Gram matrix), or the copy of S that is factored. */
static size_t lapack_bytes(const struct kwm_run *run, const struct kwm_params *params,
                           const struct kwm_learn_spec *spec) {
  size_t numbers = 0;
  const size_t rows = (size_t)(spec->filter.batch * run->model.classes);
  if (strcmp(run->config.learner, "kalman") != 0) return 0;
  for (int g = 0; g < KWM_GROUPS; g++) {
    const size_t d_o = (size_t)run->model.groups[g].d_o, d_i = (size_t)run->model.groups[g].d_i;
    const bool rotates = params->share[g].count > 0 && strcmp(spec->cov[g].structure, "kron") == 0 && !spec->joint;
    const size_t d = rotates ? larger(d_o, d_i) : 0;
    const bool low = params->share[g].count > 0 && strcmp(spec->cov[g].structure, "lowrank") == 0 && !spec->joint;
    const size_t columns = low ? (size_t)spec->cov[g].rank + rows : 0;
    numbers = larger(numbers, 3 * larger(d * d, columns * columns));
  }
  if (kwm_run_couples_samples(&run->config)) numbers = larger(numbers, rows * rows);
  return numbers * sizeof(double);
}

struct kwm_plan kwm_plan_rank(const struct kwm_run *run, int group_rank, int64_t n_train, int64_t n_test,
                              size_t resident) {
  const struct kwm_config *const config = &run->config;
  const int64_t held = config->data.validation, length = run->model.length, replicas = config->layout.replicas;
  struct kwm_learn_spec spec = kwm_run_learn_spec(config, n_train - held);
  spec.group_rank = group_rank;
  spec.group_ranks = run->stages.ranks;
  struct kwm_params params = {.model = &run->model};
  for (int g = 0; g < KWM_GROUPS; g++) params.share[g] = run->stages.share[g][group_rank];
  struct kwm_plan plan = {.libraries = resident + LIBRARY_GROWTH + lapack_bytes(run, &params, &spec)};
  plan.data = kwm_images_bytes(n_train, length) + (held > 0 ? kwm_images_bytes(held, length) : 0) +
              kwm_images_bytes(n_test, length) + kwm_mem_rounded((size_t)(n_train - held) * sizeof(int32_t));
  plan.params = kwm_params_bytes(&run->model, &run->stages, group_rank);
  plan.learner = kwm_learner_bytes(kwm_learner_find(config->learner), &spec, &params, replicas);
  plan.pipe =
      kwm_pipe_bytes(&run->model, &run->stages, group_rank, config->train.batch, config->train.chunks, replicas);
  for (int g = 0; g < KWM_GROUPS; g++)
    plan.operations += kwm_stage_operations(&run->model, g, config->train.batch) * (double)params.share[g].count *
                       (double)config->train.batch / (double)replicas;
  return plan;
}

static void print_plan(const struct kwm_run *run, int64_t n_train, int64_t n_test) {
  const struct kwm_config *const config = &run->config;
  const double mega = 1e6;
  int64_t parameters = 0;
  for (int g = 0; g < KWM_GROUPS; g++) parameters += run->model.groups[g].total * run->model.groups[g].params;
  printf(
      "# %lld parameters, %lld training samples, %lld steps an epoch; %d ranks = %d replicas x %d stages x %d owners\n",
      (long long)parameters, (long long)(n_train - config->data.validation),
      (long long)kwm_run_epoch_steps(config, n_train - config->data.validation), run->layout.size, run->layout.replicas,
      run->layout.stages, run->layout.owners);
  printf("rank\tunits\thidden\toutput\tdata_MB\tmeans_MB\tlearner_MB\tactivations_MB\tlibraries_MB\ttotal_MB\ttotal_"
         "bytes\tMflop_per_step\n");
  for (int rank = 0; rank < run->layout.size; rank++) {
    const int q = rank % run->stages.ranks;
    const struct kwm_plan plan = kwm_plan_rank(run, q, n_train, n_test, run->libraries_bytes);
    printf("%d\t%lld\t%lld\t%lld\t%.1f\t%.1f\t%.1f\t%.1f\t%.1f\t%.1f\t%zu\t%.0f\n", rank,
           (long long)run->stages.share[KWM_GROUP_RECURRENCE][q].count,
           (long long)run->stages.share[KWM_GROUP_HIDDEN][q].count,
           (long long)run->stages.share[KWM_GROUP_OUTPUT][q].count, (double)plan.data / mega,
           (double)plan.params / mega, (double)plan.learner / mega, (double)plan.pipe / mega,
           (double)plan.libraries / mega, (double)kwm_plan_total(&plan) / mega, kwm_plan_total(&plan),
           plan.operations / mega);
  }
  printf("# messages within a replica: %.2f MB a step\n",
         kwm_pipe_message_bytes(&run->model, &run->stages,
                                kwm_pipe_samples_max(config->train.batch, config->layout.replicas)) /
             mega);
}

static kwm_status plan(struct kwm_run *run, const struct kwm_arguments *arguments) {
  struct kwm_probe probe;
  KWM_TRY(kwm_run_configure(run, arguments));
  KWM_TRY(kwm_run_probe(run, &probe));
  KWM_TRY(kwm_run_lay_out(run, probe.length));
  double resident = (double)kwm_mem_resident();
  kwm_par_max_world(&run->layout, 1, &resident);
  run->libraries_bytes = (size_t)resident;
  if (run->layout.rank == 0) print_plan(run, probe.n_train, probe.n_test);
  return KWM_OK;
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
