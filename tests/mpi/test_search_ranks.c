/* The line search and the derived trust region on every grid of replicas, stages and owners against one rank alone: the
   same bits, for the dense and for the gated model. What the pipe finds without sensitivities at some means is, chunk
   by chunk, what it finds there with them. A checkpoint goes on as if nothing had been. */
#include "grids.h"

#include <unistd.h>

#include "dense_model.h"

enum { BATCH = 14, CHUNKS = 4, STEPS = 10, SAVED = 4, WIDTH = 64 };

/* One model and its evidence. */
struct way {
  bool dense;
  enum kwm_evidence evidence;
  double noise_variance;
  const char *hidden;
};
static const struct way ways[] = {{true, KWM_EVIDENCE_SAMPLED, 0, "kron"},
                                  {true, KWM_EVIDENCE_EXACT, 0, "diag"},
                                  {true, KWM_EVIDENCE_SAMPLED, 0.1, "kron"},
                                  {true, KWM_EVIDENCE_EXACT, 0.1, "kron"},
                                  {false, KWM_EVIDENCE_EXACT, 0, "kron"}};
enum { WAYS = sizeof ways / sizeof ways[0] };
static const struct way *way_now;

static struct kwm_learn_spec spec_now(const struct kwm_layout *layout) {
  const struct kwm_cov_choice kron = {.structure = "kron", .real = KWM_REAL_FLOAT, .prior = 5, .refresh = 3};
  struct kwm_cov_choice diag = kron, hidden = kron;
  diag.structure = "diag", diag.prior = 1, hidden.structure = way_now->hidden;
  return (struct kwm_learn_spec){.filter = {.gain_factor = 1,
                                            .trust_expected = 0.5,
                                            .line_search = true,
                                            .forgetting = 0.999,
                                            .process_noise = 1e-3,
                                            .score_test = true,
                                            .batch = BATCH,
                                            .chunks = CHUNKS},
                                 .rows = way_now->evidence == KWM_EVIDENCE_SAMPLED ? 1 : SMALL_CLASSES,
                                 .cov = {diag, hidden, kron},
                                 .group_rank = group_rank(layout),
                                 .group_ranks = group_size(layout)};
}

/* A model, a pipe and a Kalman learner on a layout: small of the gated model, net of the dense one. */
struct program {
  struct small small;
  struct net net;
  struct kwm_params *params;
  kwm_pipe *pipe;
  kwm_learner learner;
  struct kwm_lin lin;
  struct kwm_batch batch;
};

static void program_init(struct program *program, const struct kwm_layout *layout) {
  const struct net_shape shape = {.n_layers = 3,
                                  .widths = {8, 6, 5},
                                  .evidence = way_now->evidence,
                                  .noise_variance = way_now->noise_variance,
                                  .batch = BATCH,
                                  .chunks = CHUNKS};
  const struct kwm_learn_spec spec = spec_now(layout);
  memset(program, 0, sizeof *program);
  if (way_now->dense)
    net_init(&program->net, layout, &shape);
  else
    small_init(&program->small, layout, WIDTH, BATCH, CHUNKS);
  program->params = way_now->dense ? &program->net.params : &program->small.params;
  program->pipe = way_now->dense ? program->net.pipe : program->small.pipe;
  struct kwm_layout *const own = way_now->dense ? &program->net.layout : &program->small.layout;
  assert_ok(kwm_learner_create(&program->learner, &kwm_learn_kalman, own, program->params, &spec));
}

static void program_fini(struct program *program) {
  kwm_learner_destroy(&program->learner);
  if (way_now->dense)
    net_fini(&program->net);
  else
    small_fini(&program->small);
}

static bool fits(const struct kwm_layout *layout) {
  return way_now->dense || (layout->stages <= 2 && (layout->stages == 1 || layout->owners <= 2));
}

static void program_linearise(struct program *program, int64_t t) {
  const bool dense = way_now->dense;
  const struct small_images *const data = dense ? program->net.data : program->small.data;
  const int32_t *const order = dense ? program->net.order : program->small.order;
  kwm_learner_predict(&program->learner);
  const struct kwm_means means = kwm_learner_means(&program->learner);
  program->batch = (struct kwm_batch){
      .images = &data->images, .order = order + t * BATCH % (SMALL_IMAGES - BATCH), .n = BATCH, .step = (uint64_t)t};
  kwm_pipe_linearise(program->pipe, &means, &program->batch, &program->lin);
}

static void program_step(struct program *program, int64_t t, struct kwm_step *step) {
  program_linearise(program, t);
  kwm_learner_search(&program->learner, &program->lin, program->pipe, &program->batch, step);
}

static bool same_means(const struct program *here, const struct program *reference) {
  bool same = true;
  for (int g = 0; g < here->params->model->n_groups; g++) {
    const struct kwm_share share = here->params->share[g];
    const int64_t params = here->params->model->groups[g].params;
    const float *const all = reference->params->mean[g];
    same = same && (share.count == 0 || memcmp(here->params->mean[g], all + share.first * params,
                                               (size_t)(share.count * params) * sizeof *all) == 0);
  }
  return same;
}

static bool same_step(const struct program *here, const struct kwm_step *a, const struct kwm_step *b) {
  bool same = a->verdict == KWM_STEP_DONE && b->verdict == KWM_STEP_DONE && a->search == b->search;
  for (int g = 0; g < here->params->model->n_groups; g++)
    same = same && a->scale[g] == b->scale[g] && a->kl[g] == b->kl[g] && a->expected[g] == b->expected[g];
  return same;
}

/* ---- the same answer on every layout */

/* Some steps are shortened, and some searches end before the whole step: else there would be nothing to compare. */
static void same_answer(struct kwm_layout *layout) {
  if (!fits(layout)) return;
  const struct kwm_layout alone = small_alone();
  struct program here, reference;
  struct kwm_step step, step_alone;
  bool same = true, searched = false, shortened = false;
  program_init(&here, layout), program_init(&reference, &alone);
  for (int64_t t = 0; t < STEPS; t++) {
    program_step(&here, t, &step), program_step(&reference, t, &step_alone);
    same = same && same_step(&here, &step, &step_alone);
    searched = searched || (step.search > 0 && step.search < 1);
    for (int g = 0; g < here.params->model->n_groups; g++) shortened = shortened || step.scale[g] < 1;
  }
  assert_all(searched && shortened);
  assert_all(same);
  assert_all(same_means(&here, &reference));
  program_fini(&here), program_fini(&reference);
}

static void test_layouts(void **state) {
  (void)state;
  for (way_now = ways; way_now < ways + WAYS; way_now++) for_each_layout(same_answer);
}

/* ---- surprisals */

static bool output_here(const struct program *program) {
  const struct kwm_params *const params = program->params;
  return params->share[params->model->n_groups - 1].count > 0;
}

/* Means other than those that were linearised last. */
static void program_shrink(struct program *program) {
  for (int g = 0; g < program->params->model->n_groups; g++)
    for (int64_t k = 0; k < program->params->share[g].count * program->params->model->groups[g].params; k++)
      program->params->mean[g][k] *= 0.9f;
}

/* What is found at the means as they are now, against what a linearisation there, here and on one rank, says. */
static bool right_surprisals(struct program *here, struct program *reference) {
  const struct kwm_means means = kwm_learner_means(&here->learner), all = kwm_learner_means(&reference->learner);
  double found[KWM_CHUNKS_MAX], sum = 0;
  bool same = true;
  kwm_pipe_surprisal(here->pipe, &means, &here->batch, found);
  kwm_pipe_linearise(here->pipe, &means, &here->batch, &here->lin);
  kwm_pipe_linearise(reference->pipe, &all, &reference->batch, &reference->lin);
  const double *const wanted = reference->lin.surprisal + here->lin.chunks * here->learner.layout->replica;
  for (int64_t c = 0; c < here->lin.chunks; c++) {
    /* A Gaussian's squares may be rounded otherwise beside its rows. */
    const double rounding = way_now->noise_variance > 0 ? 1e-13 : 0;
    same = same && close_to(found[c], here->lin.surprisal[c], rounding, 0) &&
           close_to(found[c], output_here(here) ? wanted[c] : 0, rounding, 0);
    sum += found[c];
  }
  return same && close_to(sum, here->lin.innovation.surprisal, 1e-13, 0) && (sum != 0) == output_here(here);
}

/* After t steps, with a mini-batch that the chunks do not divide. */
static void same_surprisals(struct kwm_layout *layout) {
  if (!fits(layout)) return;
  const struct kwm_layout alone = small_alone();
  struct program here, reference;
  struct kwm_step step;
  bool same = true;
  program_init(&here, layout), program_init(&reference, &alone);
  for (int64_t t = 0; t < 3; t++) {
    program_linearise(&here, t), program_linearise(&reference, t);
    same = same && right_surprisals(&here, &reference);
    program_shrink(&here), program_shrink(&reference);
    same = same && right_surprisals(&here, &reference);
    program_step(&here, t, &step), program_step(&reference, t, &step);
  }
  assert_all(same);
  program_fini(&here), program_fini(&reference);
}

static void test_surprisals(void **state) {
  (void)state;
  for (way_now = ways; way_now < ways + WAYS; way_now++) for_each_layout(same_surprisals);
}

/* ---- a checkpoint */

static void handed_over(struct kwm_layout *layout) {
  if (!fits(layout)) return;
  const char *const base = getenv("TMPDIR");
  char dir[256];
  struct program here, other;
  struct kwm_step step, step_other;
  kwm_ckpt *ckpt = NULL;
  bool same = true;
  snprintf(dir, sizeof dir, "%s/kwm-search-XXXXXX", base != NULL ? base : P_tmpdir);
  const bool made = world_rank() != 0 || mkdtemp(dir) != NULL;
  assert_all(made);
  MPI_Bcast(dir, sizeof dir, MPI_CHAR, 0, MPI_COMM_WORLD);
  program_init(&here, layout), program_init(&other, layout);
  for (int64_t t = 0; t < SAVED; t++) program_step(&here, t, &step);
  assert_all(kwm_ckpt_create(&ckpt, layout->world, dir, 1) == KWM_OK);
  assert_all(kwm_learner_save(&here.learner, ckpt) == KWM_OK);
  assert_all(kwm_ckpt_commit(&ckpt, 1) == KWM_OK);
  assert_all(kwm_ckpt_open_step(&ckpt, layout->world, dir, 1) == KWM_OK);
  assert_all(kwm_learner_load(&other.learner, ckpt) == KWM_OK);
  if (world_rank() == 0) unlink(kwm_ckpt_path(ckpt));
  kwm_ckpt_close(&ckpt);
  assert_all(world_rank() != 0 || rmdir(dir) == 0);
  for (int64_t t = SAVED; t < STEPS; t++) {
    program_step(&here, t, &step), program_step(&other, t, &step_other);
    same = same && same_step(&here, &step, &step_other);
  }
  for (int g = 0; g < here.params->model->n_groups; g++)
    same = same &&
           (here.params->share[g].count == 0 ||
            memcmp(here.params->mean[g], other.params->mean[g],
                   (size_t)(here.params->share[g].count * here.params->model->groups[g].params) * sizeof(float)) == 0);
  assert_all(same);
  program_fini(&here), program_fini(&other);
}

static void test_handed_over(void **state) {
  (void)state;
  for (way_now = ways; way_now < ways + WAYS; way_now += WAYS - 1) for_each_layout(handed_over);
}

static const struct CMUnitTest tests[] = {cmocka_unit_test(test_layouts), cmocka_unit_test(test_surprisals),
                                          cmocka_unit_test(test_handed_over)};
KWM_TEST_MAIN(tests)
