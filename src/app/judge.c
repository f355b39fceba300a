/* kwm judge: how far every structure is from the exact filter.

   The exact filter over all parameters (cov.joint=full) learns from the training data as kwm train would. Beside it run
   the structured filters, fed with the same linearised steps, taken at the exact filter's means: what differs is the
   covariance alone. At the end, for each structure,

     kl     KL(N(0, P̃) || N(0, P)) = (tr(P⁻¹P̃) - n - log|P̃| + log|P|)/2, nats
     gain   |K̃e - Ke| / |Ke| in units of the prior's deviations, median of the last tenth of the steps
     trace  tr P̃ over tr P, in units of the prior */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kwm/app.h"
#include "kwm/backend.h"
#include "kwm/log.h"
#include "kwm/layer.h"
#include "language_run.h"
#include "run.h"
#include "world_run.h"

/* Words of the configuration for all groups; matrices: where it differs from the recurrence. */
struct candidate {
  const char *recurrence, *matrices; /* structures */
  const char *form, *kind;
  int64_t rank;
};
static const struct candidate candidates[] = {
    {"block", "block", "innovation", "precision", 1},       {"lowrank", "block", "innovation", "precision", 256},
    {"lowrank", "kron", "innovation", "precision", 256},    {"block", "kron", "innovation", "precision", 1},
    {"block", "kron", "information", "precision", 1},       {"block", "diag", "innovation", "precision", 1},
    {"block", "diag", "information", "precision", 1},       {"diag", "diag", "innovation", "precision", 1},
    {"diag", "diag", "information", "precision", 1},        {"lowrank", "lowrank", "innovation", "precision", 256},
    {"lowrank", "lowrank", "innovation", "precision", 64},  {"lowrank", "lowrank", "innovation", "precision", 16},
    {"lowrank", "lowrank", "information", "precision", 64}, {"lowrank", "lowrank", "innovation", "covariance", 64},
    {"lowrank", "lowrank", "innovation", "subspace", 64},   {"lowrank", "lowrank", "innovation", "diagonal", 256},
    {"lowrank", "lowrank", "innovation", "diagonal", 64},   {"lowrank", "lowrank", "information", "diagonal", 64},
};
enum { CANDIDATES = sizeof candidates / sizeof candidates[0], PARAMETERS_MAX = 12000 };

/* A learner on means of its own. */
struct pupil {
  struct kwm_params params;
  kwm_learner learner;
  double *gap; /* of the last tenth of the steps */
  double seconds;
};

struct judge {
  struct kwm_run *run;
  int64_t n, steps, tail; /* parameters, steps, steps whose gain counts */
  double *prior;          /* (n) variances */
  double *exact, *before; /* (n) the exact filter's step; means */
  struct pupil pupil[CANDIDATES];
};

/* ---- making */

static struct kwm_learn_spec spec_of(const struct kwm_run *run, const struct candidate *candidate) {
  const bool innovation = strcmp(candidate->form, "innovation") == 0;
  struct kwm_learn_spec spec = kwm_run_learn_spec(&run->config, &run->model, kwm_run_steps(run));
  spec.joint = false;
  spec.group_ranks = 1;
  for (int role = 0; role < KWM_ROLES; role++) {
    spec.cov[role].structure = role == KWM_ROLE_RECURRENCE ? candidate->recurrence : candidate->matrices;
    spec.cov[role].form = innovation ? KWM_FORM_INNOVATION : KWM_FORM_INFORMATION;
    spec.cov[role].real = KWM_REAL_DOUBLE;
    spec.cov[role].kind = kwm_run_kind(candidate->kind);
    spec.cov[role].rank = candidate->rank;
  }
  return spec;
}

static kwm_status make_pupil(struct judge *judge, int c) {
  struct kwm_run *const run = judge->run;
  struct pupil *const pupil = &judge->pupil[c];
  const struct kwm_learn_spec spec = spec_of(run, &candidates[c]);
  KWM_TRY(kwm_params_create(&pupil->params, &run->model, &run->stages, 0, run->config.seed));
  KWM_TRY(kwm_alloc((void **)&pupil->gap, (size_t)judge->tail * sizeof(double), "gain errors"));
  return kwm_learner_create(&pupil->learner, kwm_learner_find("kalman"), &run->layout, &pupil->params, &spec);
}

static void fill_prior(struct judge *judge) {
  double variance[KWM_GATED_PARAMS], *at = judge->prior;
  const struct kwm_learn_spec *const spec = &judge->run->learner.spec;
  kwm_model_prior_variance(spec->cov[KWM_ROLE_RECURRENCE].prior, variance);
  for (int g = 0; g < judge->run->model.n_groups; g++) {
    const struct kwm_group *const group = &judge->run->model.groups[g];
    for (int64_t k = 0; k < group->total * group->params; k++)
      *at++ = group->role == KWM_ROLE_RECURRENCE ? variance[k % group->params] : 1 / spec->cov[group->role].prior;
  }
}

static kwm_status make(struct judge *judge) {
  const size_t bytes = (size_t)judge->n * sizeof(double);
  judge->tail = judge->steps < 10 ? 1 : judge->steps / 10;
  KWM_TRY(kwm_alloc((void **)&judge->prior, bytes, "prior variances"));
  KWM_TRY(kwm_alloc((void **)&judge->exact, bytes, "exact step"));
  KWM_TRY(kwm_alloc((void **)&judge->before, bytes, "means"));
  fill_prior(judge);
  for (int c = 0; c < CANDIDATES; c++) KWM_TRY(make_pupil(judge, c));
  return KWM_OK;
}

static void drop(struct judge *judge) {
  for (int c = 0; c < CANDIDATES; c++) {
    kwm_learner_destroy(&judge->pupil[c].learner);
    kwm_params_destroy(&judge->pupil[c].params);
    kwm_free(judge->pupil[c].gap);
  }
  kwm_free(judge->prior);
  kwm_free(judge->exact);
  kwm_free(judge->before);
}

/* ---- the run */

static void copy_means(const struct kwm_params *params, double *means) {
  for (int g = 0; g < params->model->n_groups; g++)
    for (int64_t k = 0; k < params->share[g].count * params->model->groups[g].params; k++)
      *means++ = (double)params->mean[g][k];
}

/* delta (n) <- the step that the learner just took, before trust region and gain factor; NaN if it took none. */
static void step_taken(const struct kwm_params *params, const double *before, const struct kwm_step *step,
                       double *delta) {
  for (int g = 0; g < params->model->n_groups; g++) {
    const double scale = step->verdict == KWM_STEP_DONE ? step->scale[g] : NAN;
    for (int64_t k = 0; k < params->share[g].count * params->model->groups[g].params; k++, delta++, before++)
      *delta = ((double)params->mean[g][k] - *before) / scale;
  }
}

/* |a - b| / |b| in units of the prior's deviations. */
static double distance(const struct judge *judge, const double *a, const double *b) {
  double difference = 0, norm = 0;
  for (int64_t k = 0; k < judge->n; k++) {
    difference += (a[k] - b[k]) * (a[k] - b[k]) / judge->prior[k];
    norm += b[k] * b[k] / judge->prior[k];
  }
  return sqrt(difference / norm);
}

/* One step of a pupil on its own means, from innovations at the exact filter's. counted: where its gain goes, or < 0.
 */
static void pupil_step(struct judge *judge, struct pupil *pupil, const struct kwm_lin *lin, int64_t counted,
                       double *delta) {
  struct kwm_step step;
  const double start = kwm_par_seconds();
  kwm_learner_predict(&pupil->learner);
  copy_means(&pupil->params, judge->before);
  kwm_learner_step(&pupil->learner, lin, &step);
  pupil->seconds += kwm_par_seconds() - start;
  if (counted < 0) return;
  step_taken(&pupil->params, judge->before, &step, delta);
  pupil->gap[counted] = distance(judge, delta, judge->exact);
}

static kwm_status run_steps(struct judge *judge, const int32_t *order, double *delta) {
  struct kwm_run *const run = judge->run;
  const int64_t batch = run->config.train.batch;
  for (int64_t t = 0; t < judge->steps; t++) {
    const int64_t counted = t - (judge->steps - judge->tail);
    struct kwm_lin lin;
    struct kwm_step step;
    kwm_learner_predict(&run->learner);
    copy_means(&run->params, judge->before);
    const struct kwm_batch drawn = {.images = &run->train,
                                    .order = order + t * batch % (run->train.n - batch + 1),
                                    .n = batch,
                                    .step = (uint64_t)t};
    const struct kwm_means means = kwm_learner_means(&run->learner);
    kwm_pipe_linearise(run->pipe, &means, &drawn, &lin);
    kwm_learner_step(&run->learner, &lin, &step);
    KWM_CHECK(step.verdict == KWM_STEP_DONE, KWM_ERR_NUMERIC, "judge: wanted the exact filter to do step %lld",
              (long long)t);
    step_taken(&run->params, judge->before, &step, judge->exact);
    for (int c = 0; c < CANDIDATES; c++) pupil_step(judge, &judge->pupil[c], &lin, counted, delta);
    const bool last = t + 1 == judge->steps;
    if (!last && (t + 1) % run->config.report.every != 0) continue;
    kwm_log_progress(last, "step %lld/%lld  loss %.4f", (long long)(t + 1), (long long)judge->steps,
                     step.innovation.surprisal / step.innovation.samples);
  }
  return KWM_OK;
}

/* ---- the verdict */

/* P (n, n) positive definite <- its inverse; *logs <- log|P|. */
static bool invert(int64_t n, double *P, double *logs) {
  if (!kwm_cholesky_f64(n, P, n)) return false;
  *logs = 0;
  for (int64_t k = 0; k < n; k++) *logs += 2 * log(P[k * n + k]);
  return kwm_cholesky_invert_f64(n, P, n);
}

/* Adds group g's part of tr(P⁻¹P̃), log|P̃| and tr(P0⁻¹P̃); own: scratch (n_g, n_g). */
static bool add_group(const struct judge *judge, const kwm_cov *cov, int64_t first, const double *inverse, double *own,
                      double sums[3]) {
  const int64_t n = judge->n, ng = cov->spec.count * cov->spec.params;
  if (!kwm_cov_covariance(cov, own)) return false;
  for (int64_t i = 0; i < ng; i++) {
    for (int64_t j = 0; j < ng; j++) sums[0] += inverse[(first + i) * n + first + j] * own[i * ng + j];
    sums[2] += own[i * ng + i] / judge->prior[first + i];
  }
  if (!kwm_cholesky_f64(ng, own, ng)) {
    sums[1] = -INFINITY; /* a subspace: infinitely far from anything that covers all directions */
    return true;
  }
  for (int64_t k = 0; k < ng; k++) sums[1] += 2 * log(own[k * ng + k]);
  return true;
}

static int by_size(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static void print_pupil(struct judge *judge, int c, const double *inverse, double logs, double trace, double *own) {
  const struct candidate *const words = &candidates[c];
  struct pupil *const pupil = &judge->pupil[c];
  const struct kwm_filter *const filter = kwm_learner_filter(&pupil->learner);
  double sums[3] = {0};
  bool good = true;
  int64_t first = 0;
  size_t bytes = 0;
  for (int g = 0; g < judge->run->model.n_groups; g++) {
    const kwm_cov *const cov = &filter->group[g].cov;
    good = good && add_group(judge, cov, first, inverse, own, sums);
    first += cov->spec.count * cov->spec.params;
    bytes += kwm_cov_bytes(cov->ops, &cov->spec);
  }
  qsort(pupil->gap, (size_t)judge->tail, sizeof(double), by_size);
  const bool low = strcmp(words->recurrence, "lowrank") == 0;
  char rank[64] = "";
  if (low) snprintf(rank, sizeof rank, " %s %lld", words->kind, (long long)words->rank);
  const double kl = good ? 0.5 * (sums[0] - (double)judge->n - sums[1] + logs) : NAN;
  printf("%s/%s%s\t%s\t%.5g\t%.4f\t%.4f\t%.2f\t%.2f\n", words->recurrence, words->matrices, rank, words->form, kl,
         pupil->gap[judge->tail / 2], sums[2] / trace, (double)bytes / 1e6,
         1e3 * pupil->seconds / (double)judge->steps);
}

static kwm_status pronounce(struct judge *judge) {
  const int64_t n = judge->n;
  double *P, *own, logs, trace = 0;
  KWM_TRY(kwm_alloc((void **)&P, (size_t)(n * n) * sizeof(double), "exact covariance"));
  KWM_TRY(kwm_alloc((void **)&own, (size_t)(n * n) * sizeof(double), "structured covariance"));
  kwm_filter_covariance(kwm_learner_filter(&judge->run->learner), P);
  for (int64_t k = 0; k < n; k++) trace += P[k * n + k] / judge->prior[k];
  const bool good = invert(n, P, &logs);
  if (good) {
    printf("# %lld parameters, %lld steps of %lld samples; exact: trace %.4f of the prior's\n", (long long)n,
           (long long)judge->steps, (long long)judge->run->config.train.batch, trace / (double)n);
    printf("structure\tform\tkl_nats\tgain_error\ttrace_ratio\tMB\tms_per_step\n");
    for (int c = 0; c < CANDIDATES; c++) print_pupil(judge, c, P, logs, trace, own);
  }
  kwm_free(P);
  kwm_free(own);
  KWM_CHECK(good, KWM_ERR_NUMERIC, "judge: wanted a positive definite exact covariance");
  return KWM_OK;
}

static kwm_status judge_run(struct kwm_run *run, struct kwm_arguments *arguments) {
  static char joint[] = "cov.joint=full", learner[] = "learner=kalman", stages[] = "layout.stages=1";
  char *const forced[] = {joint, learner, stages};
  struct kwm_probe probe;
  for (size_t k = 0; k < sizeof forced / sizeof forced[0]; k++) KWM_TRY(kwm_arguments_add(arguments, forced[k]));
  KWM_TRY(kwm_run_configure(run, arguments));
  KWM_CHECK(!kwm_language_is(&run->config) && !kwm_world_wanted(&run->config), KWM_ERR_USAGE,
            "config: wanted model.kind gated or dense with judge, found %s", run->config.model.kind);
  KWM_TRY(kwm_run_probe(run, &probe));
  KWM_TRY(kwm_run_lay_out(run, probe.length, probe.classes));
  KWM_CHECK(run->layout.size == 1, KWM_ERR_USAGE, "judge: wanted 1 rank, found %d", run->layout.size);
  const int64_t n = kwm_model_parameters(&run->model);
  KWM_CHECK(n <= PARAMETERS_MAX, KWM_ERR_USAGE,
            "judge: wanted at most %d parameters (dense covariances are compared), found %lld", PARAMETERS_MAX,
            (long long)n);
  KWM_TRY(kwm_run_read_data(run, true, false));
  KWM_TRY(kwm_run_build(run));
  KWM_CHECK(run->config.train.batch <= run->train.n, KWM_ERR_USAGE, "judge: wanted train.batch within the data");
  struct judge judge = {.run = run, .n = n, .steps = kwm_run_steps(run)};
  int32_t *order = NULL;
  double *delta = NULL;
  kwm_status status = make(&judge);
  if (status == KWM_OK) status = kwm_alloc((void **)&order, (size_t)run->train.n * sizeof *order, "order");
  if (status == KWM_OK) status = kwm_alloc((void **)&delta, (size_t)n * sizeof *delta, "step");
  if (status == KWM_OK) kwm_order(run->config.seed, 0, run->train.n, order);
  if (status == KWM_OK) status = run_steps(&judge, order, delta);
  if (status == KWM_OK) status = pronounce(&judge);
  kwm_free(order);
  kwm_free(delta);
  drop(&judge);
  return status;
}

kwm_status kwm_command_judge(int argc, char **argv) {
  struct kwm_arguments arguments;
  struct kwm_run run;
  memset(&run, 0, sizeof run);
  kwm_status status = kwm_arguments_read(&arguments, argc, argv);
  if (status == KWM_OK) status = judge_run(&run, &arguments);
  kwm_run_fini(&run);
  kwm_arguments_fini(&arguments);
  return status;
}
