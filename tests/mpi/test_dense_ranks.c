/* The dense model on every grid of replicas, stages and owners against one rank alone: the same bits in the information
   form, whatever the evidence and the sensitivity; to single precision where one S couples all layers. A checkpoint of
   one grid goes on, on another, as if nothing had been. */
#include "grids.h"

#include <unistd.h>

#include "dense_model.h"

enum { BATCH = 12, CHUNKS = 4, STEPS = 12, SAVED = 7, SMALL_BATCH = 3, SMALL_STEPS = 4 };

/* One way to learn. */
struct way {
  enum kwm_evidence evidence;
  bool readouts, innovation, joint;
};

static const struct way ways[] = {{KWM_EVIDENCE_SAMPLED, false, false, false},
                                  {KWM_EVIDENCE_EXACT, false, false, false},
                                  {KWM_EVIDENCE_SAMPLED, true, false, false},
                                  {KWM_EVIDENCE_EXACT, true, false, false}};
static const struct way coupled[] = {{KWM_EVIDENCE_EXACT, false, true, false}, {KWM_EVIDENCE_EXACT, false, true, true}};
enum { WAYS = sizeof ways / sizeof ways[0], COUPLED = sizeof coupled / sizeof coupled[0] };

static const struct way *way_now;

static struct net_shape shape_now(void) {
  return (struct net_shape){.n_layers = 3,
                            .widths = {8, 6, 5},
                            .readouts = way_now->readouts,
                            .evidence = way_now->evidence,
                            .batch = way_now->innovation ? SMALL_BATCH : BATCH,
                            .chunks = way_now->innovation ? 1 : CHUNKS};
}

static struct kwm_learn_spec spec_now(const struct kwm_layout *layout) {
  const struct net_shape shape = shape_now();
  const struct kwm_cov_choice kron = {.structure = "kron",
                                      .form = way_now->innovation ? KWM_FORM_INNOVATION : KWM_FORM_INFORMATION,
                                      .real = KWM_REAL_FLOAT,
                                      .prior = 5,
                                      .refresh = way_now->innovation ? 2 : 5};
  return (struct kwm_learn_spec){.filter = {.gain_factor = 0.7,
                                            .trust_region = 0.05,
                                            .forgetting = 0.999,
                                            .process_noise = 1e-3,
                                            .score_test = true,
                                            .batch = shape.batch,
                                            .chunks = shape.chunks},
                                 .rows = way_now->evidence == KWM_EVIDENCE_SAMPLED ? 1 : SMALL_CLASSES,
                                 .cov = {[KWM_ROLE_HIDDEN] = kron, [KWM_ROLE_OUTPUT] = kron},
                                 .joint = way_now->joint,
                                 .group_rank = group_rank(layout),
                                 .group_ranks = group_size(layout)};
}

/* One program: a model, a pipe and a Kalman learner on a layout. */
struct program {
  struct net net;
  kwm_learner learner;
};

static void program_init(struct program *program, const struct kwm_layout *layout) {
  const struct net_shape shape = shape_now();
  const struct kwm_learn_spec spec = spec_now(layout);
  memset(program, 0, sizeof *program);
  net_init(&program->net, layout, &shape);
  const size_t before = kwm_mem_bytes();
  assert_ok(
      kwm_learner_create(&program->learner, &kwm_learn_kalman, &program->net.layout, &program->net.params, &spec));
  program->net.bytes_right =
      program->net.bytes_right &&
      kwm_mem_bytes() - before == kwm_learner_bytes(&kwm_learn_kalman, &spec, &program->net.params, layout->replicas);
}

static void program_fini(struct program *program) {
  kwm_learner_destroy(&program->learner);
  net_fini(&program->net);
}

static void program_step(struct program *program, int64_t t, struct kwm_step *step) {
  const int64_t n = program->learner.spec.filter.batch;
  struct kwm_lin lin;
  kwm_learner_predict(&program->learner);
  const struct kwm_means means = kwm_learner_means(&program->learner);
  program->net.step = (uint64_t)t;
  net_linearise_at(&program->net, &means, t * n % (SMALL_IMAGES - n), n, &lin);
  kwm_learner_step(&program->learner, &lin, step);
}

/* ---- the same answer on every layout */

static bool fits(const struct kwm_layout *layout) {
  return !way_now->innovation || layout->replicas == 1;
}

/* This rank's means and those of a rank that owns everything. */
static bool same_means(const struct program *here, const struct program *reference, double tolerance) {
  bool same = true;
  for (int g = 0; g < here->net.model.n_groups; g++) {
    const int64_t n = here->net.params.share[g].count * here->net.model.groups[g].params;
    const float *const a = here->net.params.mean[g], *const b = reference->net.params.mean[g];
    if (n == 0) continue;
    double *const wide = small_widen(n, b);
    same =
        same && (tolerance == 0 ? memcmp(a, b, (size_t)n * sizeof *a) == 0 : dense_error_f32(n, a, wide) <= tolerance);
    free(wide);
  }
  return same;
}

static bool same_step(const struct program *here, const struct kwm_step *a, const struct kwm_step *b,
                      double tolerance) {
  bool same = a->verdict == KWM_STEP_DONE && b->verdict == KWM_STEP_DONE && close_to(a->nis, b->nis, 1e-4, 0) &&
              a->innovation.samples == (double)here->learner.spec.filter.batch;
  for (int g = 0; g < here->net.model.n_groups; g++)
    same = same && close_to(a->scale[g], b->scale[g], tolerance, 0) && close_to(a->kl[g], b->kl[g], tolerance, 0);
  return same;
}

/* The output's owner has the outputs of its replica's samples, the others none. */
static bool same_outputs(const struct program *here, const struct program *reference) {
  const struct kwm_layout *const layout = &here->net.layout;
  const int64_t batch = here->learner.spec.filter.batch, n = batch / layout->replicas;
  const bool mine = here->net.stages.owner[here->net.model.n_groups - 1] == group_rank(layout);
  const float *const outputs = kwm_pipe_outputs(here->net.pipe);
  if (!mine) return outputs == NULL;
  const float *const wanted = kwm_pipe_outputs(reference->net.pipe) + layout->replica * n * SMALL_CLASSES;
  return way_now->innovation || memcmp(outputs, wanted, (size_t)(n * SMALL_CLASSES) * sizeof *wanted) == 0;
}

static bool same_predictions(struct program *here, struct program *reference, double tolerance) {
  const struct kwm_means a = kwm_learner_means(&here->learner), b = kwm_learner_means(&reference->learner);
  struct kwm_innovation sums, wanted;
  kwm_pipe_predict(here->net.pipe, &a, &here->net.data->images, &sums);
  kwm_pipe_predict(reference->net.pipe, &b, &reference->net.data->images, &wanted);
  return sums.samples == SMALL_IMAGES && close_to(sums.surprisal, wanted.surprisal, tolerance, 0) &&
         (way_now->innovation || sums.correct == wanted.correct);
}

static void same_answer(struct kwm_layout *layout) {
  if (!fits(layout)) return;
  const struct kwm_layout alone = small_alone();
  const double tolerance = way_now->innovation ? 1e-3 : 0;
  struct program here, reference;
  struct kwm_step step, step_alone;
  bool same = true;
  program_init(&here, layout), program_init(&reference, &alone);
  assert_all(here.net.bytes_right && reference.net.bytes_right);
  for (int64_t t = 0; t < (way_now->innovation ? SMALL_STEPS : STEPS); t++) {
    program_step(&here, t, &step), program_step(&reference, t, &step_alone);
    same = same && same_step(&here, &step, &step_alone, tolerance) && same_outputs(&here, &reference);
  }
  assert_all(same);
  assert_all(same_means(&here, &reference, tolerance));
  assert_all(same_predictions(&here, &reference, way_now->innovation ? 1e-3 : 1e-12));
  program_fini(&here), program_fini(&reference);
}

static void test_information(void **state) {
  (void)state;
  for (way_now = ways; way_now < ways + WAYS; way_now++) for_each_layout(same_answer);
}

static void test_coupled(void **state) {
  (void)state;
  for (way_now = coupled; way_now < coupled + COUPLED; way_now++) for_each_layout(same_answer);
}

/* ---- from one layout to another */

static char dir[256];
static int files, grid;

static void make_dir(void) {
  const char *const base = getenv("TMPDIR");
  snprintf(dir, sizeof dir, "%s/kwm-dense-XXXXXX", base != NULL ? base : P_tmpdir);
  const bool made = world_rank() != 0 || mkdtemp(dir) != NULL;
  assert_all(made);
  MPI_Bcast(dir, sizeof dir, MPI_CHAR, 0, MPI_COMM_WORLD);
}

/* The grid of owners alone and that of replicas alone write a file each. */
static void leave(struct kwm_layout *layout) {
  if (layout->owners < layout->size && layout->replicas < layout->size) return;
  struct program program;
  struct kwm_step step;
  kwm_ckpt *ckpt = NULL;
  program_init(&program, layout);
  for (int64_t t = 0; t < SAVED; t++) program_step(&program, t, &step);
  assert_all(kwm_ckpt_create(&ckpt, layout->world, dir, ++files) == KWM_OK);
  assert_all(kwm_learner_save(&program.learner, ckpt) == KWM_OK);
  assert_all(kwm_ckpt_commit(&ckpt, 2) == KWM_OK);
  program_fini(&program);
}

/* The grids go on from the files in turn. */
static void go_on(struct kwm_layout *layout) {
  const struct kwm_layout alone = small_alone();
  struct program here, reference;
  struct kwm_step step, step_alone;
  kwm_ckpt *ckpt = NULL;
  bool same = true;
  program_init(&here, layout), program_init(&reference, &alone);
  for (int g = 0; g < here.net.model.n_groups; g++) /* what is loaded does not depend on what was there */
    for (int64_t k = 0; k < here.net.params.share[g].count * here.net.model.groups[g].params; k++)
      here.net.params.mean[g][k] = NAN;
  assert_all(kwm_ckpt_open_step(&ckpt, layout->world, dir, ++grid % files + 1) == KWM_OK);
  assert_all(kwm_learner_load(&here.learner, ckpt) == KWM_OK);
  kwm_ckpt_close(&ckpt);
  for (int64_t t = 0; t < STEPS; t++) {
    program_step(&reference, t, &step_alone);
    if (t < SAVED) continue;
    program_step(&here, t, &step);
    same = same && same_step(&here, &step, &step_alone, 0);
  }
  assert_all(same && here.learner.steps == STEPS);
  assert_all(same_means(&here, &reference, 0));
  program_fini(&here), program_fini(&reference);
}

static void test_handed_over(void **state) {
  (void)state;
  for (way_now = ways; way_now < ways + WAYS; way_now += WAYS - 1) {
    make_dir();
    files = grid = 0;
    for_each_layout(leave);
    for_each_layout(go_on);
    for (int k = 1; k <= files && world_rank() == 0; k++) {
      char path[512];
      snprintf(path, sizeof path, "%s/step-%010d.h5", dir, k);
      unlink(path);
    }
    assert_all(world_rank() != 0 || rmdir(dir) == 0);
  }
}

/* ---- what stops a step */

static bool finite_but(const struct program *program, int g) {
  bool finite = true;
  for (int k = 0; k < program->net.model.n_groups; k++)
    for (int64_t j = 0; j < program->net.params.share[k].count * program->net.model.groups[k].params && k != g; j++)
      finite = finite && isfinite(program->net.params.mean[k][j]);
  return finite;
}

/* One number that is not one, in any group: every rank skips, and it stays where it is. */
static void not_a_number(struct kwm_layout *layout) {
  const struct net_shape shape = shape_now();
  const int n_groups = net_model(&shape).n_groups;
  for (int g = 0; g < n_groups; g++) {
    struct program here;
    struct kwm_step step;
    program_init(&here, layout);
    program_step(&here, 0, &step);
    const bool done = step.verdict == KWM_STEP_DONE;
    if (here.net.params.share[g].count > 0) here.net.params.mean[g][2] = NAN;
    program_step(&here, 1, &step);
    assert_all(done && (step.verdict == KWM_STEP_NOT_FINITE || step.verdict == KWM_STEP_INDEFINITE));
    assert_all(finite_but(&here, g));
    program_fini(&here);
  }
}

static void test_not_a_number(void **state) {
  (void)state;
  for (way_now = ways; way_now < ways + WAYS; way_now++) for_each_layout(not_a_number);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_information),
    cmocka_unit_test(test_coupled),
    cmocka_unit_test(test_handed_over),
    cmocka_unit_test(test_not_a_number),
};
KWM_TEST_MAIN(tests)
