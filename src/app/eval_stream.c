/* kwm eval on a stream: one walk over the test samples of all tasks, mini-batch after mini-batch. The outputs' rows of
   the Jacobian give H P Hᵀ, the covariance of the logits under the posterior; the logits' owner makes predictions of
   it.

   Tasks that were not learned are the unseen ones. If all were, a permuted or rotated stream goes on by two more. Of
   all samples only the scores are kept, for the ROC curve. */
#include "eval_stream.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "checkpoint.h"
#include "kwm/cov_ops.h"
#include "kwm/tasks.h"
#include "outlook.h"

enum { UNSEEN = 2, FORM_FACTS = 4, FACTS = FORM_FACTS * KWM_OUTLOOK_FORMS + 1, NAME_BYTES = 48 };

static const char *const form_words[KWM_OUTLOOK_FORMS] = {
    [KWM_OUTLOOK_PLUGIN] = "plugin", [KWM_OUTLOOK_POSTERIOR] = "posterior", [KWM_OUTLOOK_MACKAY] = "mackay"};
static const char *const fact_words[FORM_FACTS] = {"accuracy", "nll", "calibration_error", "entropy"};
static const char *const score_words[KWM_OUTLOOK_SCORES] = {[KWM_OUTLOOK_ENTROPY_PLUGIN] = "entropy_plugin",
                                                            [KWM_OUTLOOK_ENTROPY_POSTERIOR] = "entropy_posterior",
                                                            [KWM_OUTLOOK_INFORMATION] = "mutual_information",
                                                            [KWM_OUTLOOK_MAX_PROBABILITY] = "max_probability"};

struct survey {
  struct kwm_run *run;
  bool posterior;                     /* there is a covariance that can foretell the outputs' */
  int64_t tasks, learned;             /* of the run's stream; those that are behind */
  double begun;                       /* share of the next task that is behind */
  int64_t total;                      /* tasks looked at: with those that the stream goes on by */
  int32_t *order;                     /* (batch) */
  double *C;                          /* (samples of a step here, classes, classes) */
  int64_t *first;                     /* (total + 1) each task's first sample among all */
  struct kwm_outlook_sums *sums;      /* (total) */
  double *scores[KWM_OUTLOOK_SCORES]; /* (all samples) */
  double *scratch;                    /* (all samples) for the ROC curve */
};

/* ---- setup */

/* With read-outs of their own the rows of early layers are not the output's. */
static bool counts(const struct kwm_model *model, int g) {
  const int last = kwm_model_layer(model, model->n_layers - 1), output = kwm_model_layer(model, model->n_layers);
  return !model->readouts || g == last || g == output;
}

static bool has_posterior(const struct kwm_run *run) {
  const bool exact = run->model.kind == KWM_MODEL_DENSE && run->model.noise_variance == 0;
  if (!exact || run->learner.ops != &kwm_learn_kalman || run->learner.spec.joint) return false;
  const struct kwm_filter *const filter = kwm_learner_filter(&run->learner);
  for (int g = 0; g < filter->n_groups; g++)
    if (counts(&run->model, g) && filter->group[g].cov.ops->predictive == NULL) return false;
  return true;
}

static void find_place(struct survey *survey, int64_t step) {
  struct kwm_run *const run = survey->run;
  survey->tasks = survey->total = survey->learned = kwm_stream_facts(run->stream).tasks;
  if (step < kwm_stream_steps(run->stream, survey->tasks)) {
    const struct kwm_lap lap = kwm_run_lap(run, step);
    survey->learned = lap.lap;
    survey->begun = (double)(step - lap.first) / (double)lap.steps;
    return;
  }
  const char *const kind = run->config.stream.kind;
  if (strcmp(kind, "permuted") == 0 || strcmp(kind, "rotated") == 0) survey->total += UNSEEN;
}

/* A task that the stream goes on by has as many samples as the first. */
static void count_samples(struct survey *survey) {
  struct kwm_images images;
  for (int64_t t = 0; t < survey->total; t++) {
    kwm_stream_split(survey->run->stream, t < survey->tasks ? t : 0, KWM_TEST, &images);
    survey->first[t + 1] = survey->first[t] + images.n;
  }
}

static kwm_status allocate(struct survey *survey) {
  const struct kwm_run *const run = survey->run;
  const int64_t batch = run->config.train.batch, m = run->model.classes;
  const size_t here = (size_t)kwm_pipe_samples_max(batch, run->layout.replicas), tasks = (size_t)survey->total;
  KWM_TRY(kwm_alloc((void **)&survey->order, (size_t)batch * sizeof(int32_t), "mini-batch"));
  KWM_TRY(kwm_alloc((void **)&survey->C, here * (size_t)(m * m) * sizeof(double), "outputs' covariance"));
  KWM_TRY(kwm_alloc((void **)&survey->first, (tasks + 1) * sizeof(int64_t), "tasks"));
  KWM_TRY(kwm_alloc((void **)&survey->sums, tasks * sizeof *survey->sums, "tasks"));
  count_samples(survey);
  const size_t bytes = (size_t)survey->first[survey->total] * sizeof(double);
  for (int s = 0; s < KWM_OUTLOOK_SCORES; s++) KWM_TRY(kwm_alloc((void **)&survey->scores[s], bytes, "scores"));
  return kwm_alloc((void **)&survey->scratch, bytes, "scores");
}

static void survey_fini(struct survey *survey) {
  kwm_free(survey->order);
  kwm_free(survey->C);
  kwm_free(survey->first);
  kwm_free(survey->sums);
  for (int s = 0; s < KWM_OUTLOOK_SCORES; s++) kwm_free(survey->scores[s]);
  kwm_free(survey->scratch);
}

/* Predictions take the outputs' rows; without a posterior any pipe gives the outputs. */
static kwm_status make_pipe(struct survey *survey) {
  struct kwm_run *const run = survey->run;
  struct kwm_pipe_spec spec = kwm_run_pipe_spec(&run->config);
  if (survey->posterior) spec.evidence = KWM_EVIDENCE_OUTPUTS;
  return kwm_pipe_create(&run->pipe, &run->layout, &run->model, &run->stages, &spec);
}

/* ---- the walk */

/* first: this replica's first sample of the mini-batch, within the task. */
static void take_samples(struct survey *survey, int64_t task, const struct kwm_images *images, int64_t first, int64_t n,
                         bool covariance) {
  const int64_t m = survey->run->model.classes;
  const float *const z = kwm_pipe_outputs(survey->run->pipe);
  for (int64_t i = 0; i < n && z != NULL; i++) {
    struct kwm_outlook outlook;
    const uint64_t key = (uint64_t)task << 32 | (uint64_t)(first + i);
    const double *const C = covariance ? survey->C + i * m * m : NULL;
    kwm_outlook(&outlook, m, z + i * m, C, survey->run->config.seed, key);
    kwm_outlook_add(&survey->sums[task], m, &outlook, images->labels[first + i]);
    for (int s = 0; s < KWM_OUTLOOK_SCORES; s++)
      survey->scores[s][survey->first[task] + first + i] = kwm_outlook_score(&outlook, m, (enum kwm_outlook_score)s);
  }
}

static void take_batch(struct survey *survey, int64_t task, const struct kwm_images *images, int64_t first, int64_t n) {
  struct kwm_run *const run = survey->run;
  const struct kwm_means means = kwm_learner_means(&run->learner);
  const struct kwm_batch batch = {.images = images, .order = survey->order, .n = n};
  const int64_t chunks = run->config.train.chunks, replicas = run->layout.replicas;
  struct kwm_lin lin;
  for (int64_t i = 0; i < n; i++) survey->order[i] = (int32_t)(first + i);
  kwm_pipe_linearise(run->pipe, &means, &batch, &lin);
  for (int g = 0; g < lin.n_parts && survey->posterior; g++)
    if (!counts(&run->model, g)) lin.jac[g].n = 0;
  const bool covariance =
      survey->posterior && kwm_filter_predictive(kwm_learner_filter(&run->learner), &lin, survey->C);
  first += kwm_pipe_chunk_start(n, chunks, chunks / replicas * run->layout.replica);
  take_samples(survey, task, images, first, lin.bounds[lin.chunks], covariance);
}

static void take_task(struct survey *survey, int64_t task) {
  const int64_t batch = survey->run->config.train.batch;
  struct kwm_images images;
  kwm_stream_split(survey->run->stream, task, KWM_TEST, &images);
  for (int64_t first = 0; first < images.n; first += batch)
    take_batch(survey, task, &images, first, images.n - first < batch ? images.n - first : batch);
}

/* The same stream, longer: its tasks so far stay as they are. */
static kwm_status prolong(struct survey *survey) {
  struct kwm_run *const run = survey->run;
  const char *path;
  KWM_TRY(kwm_run_data_path(run, &path));
  struct kwm_stream_spec spec = kwm_run_stream_spec(&run->config, path);
  if (spec.tasks > 1) spec.angle *= (double)(survey->total - 1) / (double)(spec.tasks - 1);
  spec.tasks = survey->total;
  kwm_stream_destroy(run->stream);
  run->stream = NULL;
  return kwm_stream_create(&run->stream, &spec);
}

static kwm_status walk(struct survey *survey) {
  struct kwm_layout *const layout = &survey->run->layout;
  for (int64_t t = 0; t < survey->tasks; t++) take_task(survey, t);
  if (survey->total > survey->tasks) KWM_TRY(kwm_agree(layout->world, prolong(survey)));
  for (int64_t t = survey->tasks; t < survey->total; t++) take_task(survey, t);
  kwm_par_sum_world(layout, survey->total * KWM_DOUBLES(struct kwm_outlook_sums), (double *)survey->sums);
  for (int s = 0; s < KWM_OUTLOOK_SCORES; s++)
    kwm_par_sum_world(layout, survey->first[survey->total], survey->scores[s]);
  return KWM_OK;
}

/* ---- what it says */

static void fact_names(char names[FACTS][NAME_BYTES]) {
  for (int k = 0; k < FACTS - 1; k++)
    snprintf(names[k], NAME_BYTES, "%s_%s", fact_words[k / KWM_OUTLOOK_FORMS], form_words[k % KWM_OUTLOOK_FORMS]);
  snprintf(names[FACTS - 1], NAME_BYTES, "mutual_information");
}

/* Gaussian outputs are no logits: of them only the accuracy means something. */
static void facts_of(const struct kwm_model *model, const struct kwm_outlook_sums *sums, double values[FACTS]) {
  const double absent = model->noise_variance > 0 ? NAN : 0;
  for (int f = 0; f < KWM_OUTLOOK_FORMS; f++) {
    const struct kwm_outlook_form_sums *const form = &sums->form[f];
    double *const at = values + f;
    at[0] = form->correct / sums->samples;
    at[KWM_OUTLOOK_FORMS] = form->surprisal / sums->samples + absent;
    at[2 * KWM_OUTLOOK_FORMS] = kwm_calibration_error(&form->calibration) + absent;
    at[3 * KWM_OUTLOOK_FORMS] = form->entropy / sums->samples + absent;
  }
  values[FACTS - 1] = sums->information / sums->samples + absent;
}

/* nan without the sign that some processors give it. */
static void print_number(const char *before, double value) {
  if (isnan(value))
    printf("%snan", before);
  else
    printf("%s%.6f", before, value);
}

static void print_averages(const struct survey *survey) {
  char names[FACTS][NAME_BYTES];
  double values[FACTS], averages[FACTS] = {0};
  fact_names(names);
  for (int64_t t = 0; t < survey->learned; t++) {
    facts_of(&survey->run->model, &survey->sums[t], values);
    for (int k = 0; k < FACTS; k++) averages[k] += values[k];
  }
  for (int k = 0; k < FACTS; k++) {
    averages[k] /= (double)survey->learned;
    /* The plug-in's has the name that it has in summary.json. */
    printf("average_%s", k == KWM_OUTLOOK_PLUGIN ? "accuracy" : names[k]);
    print_number("\t", averages[k]);
    printf("\n");
  }
}

/* A task in hand counts on neither side. */
static void print_curves(const struct survey *survey) {
  const int64_t learned = survey->first[survey->learned], all = survey->first[survey->total];
  const int64_t unseen = survey->first[survey->learned + (survey->begun > 0)];
  const bool none = survey->run->model.noise_variance > 0;
  for (int s = 0; s < KWM_OUTLOOK_SCORES; s++) {
    const double *const scores = survey->scores[s];
    const double area = kwm_auroc(learned, scores, all - unseen, scores + unseen, survey->scratch);
    printf("ood_auroc_%s", score_words[s]);
    print_number("\t", none ? NAN : area);
    printf("\n");
  }
}

static void print_table(const struct survey *survey) {
  char names[FACTS][NAME_BYTES];
  double values[FACTS];
  fact_names(names);
  printf("\ntask\tlearned\tsamples");
  for (int k = 0; k < FACTS; k++) printf("\t%s", names[k]);
  printf("\n");
  for (int64_t t = 0; t < survey->total; t++) {
    const double learned = t < survey->learned ? 1 : t == survey->learned ? survey->begun : 0;
    facts_of(&survey->run->model, &survey->sums[t], values);
    printf("%lld\t%g\t%.0f", (long long)t + 1, learned, survey->sums[t].samples);
    for (int k = 0; k < FACTS; k++) print_number("\t", values[k]);
    printf("\n");
  }
}

static void print_survey(const struct survey *survey) {
  const struct kwm_model *const model = &survey->run->model;
  const char *const extent = counts(model, 0) ? "all layers" : "last layers";
  const int64_t unseen = survey->total - survey->learned - (survey->begun > 0);
  printf("posterior\t%s\n", survey->posterior ? extent : "none");
  printf("task_count\t%lld\nlearned\t%lld\nunseen\t%lld\n", (long long)survey->tasks, (long long)survey->learned,
         (long long)unseen);
  print_averages(survey);
  print_curves(survey);
  print_table(survey);
}

static kwm_status look(struct survey *survey, kwm_ckpt *ckpt, int64_t step) {
  struct kwm_run *const run = survey->run;
  KWM_TRY(kwm_run_read_data(run, true, true));
  KWM_TRY(kwm_run_build_learner(run));
  KWM_TRY(kwm_checkpoint_matches(run, ckpt));
  KWM_TRY(kwm_learner_load(&run->learner, ckpt));
  survey->posterior = has_posterior(run);
  find_place(survey, step);
  kwm_status status = make_pipe(survey);
  if (status == KWM_OK) status = allocate(survey);
  KWM_TRY(kwm_agree(run->layout.world, status));
  KWM_TRY(walk(survey));
  if (run->layout.rank == 0) print_survey(survey);
  return KWM_OK;
}

kwm_status kwm_eval_stream(struct kwm_run *run, kwm_ckpt *ckpt, int64_t step) {
  struct survey survey = {.run = run};
  const kwm_status status = look(&survey, ckpt, step);
  survey_fini(&survey);
  return status;
}
