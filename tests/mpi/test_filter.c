/* The answer does not depend on the layout: every grid of replicas, stages and owners against one rank alone. Bit for
   bit in the information form; in the innovation form, whose one S is summed over owners, to single precision. And what
   stops a step stops it on all ranks. */
#include "grids.h"

#include <unistd.h>

#include "small_model.h"

enum { WIDTH = 64, BATCH = 16, CHUNKS = 8, STEPS = 20, SMALL_BATCH = 6 };

static struct kwm_learn_spec spec_of(enum kwm_form form) {
  const bool innovation = form == KWM_FORM_INNOVATION;
  return (struct kwm_learn_spec){
      .filter = {.gain_factor = 0.7,
                 .trust_region = 0.05,
                 .forgetting = 0.999,
                 .process_noise = 1e-3,
                 .score_test = true,
                 .batch = innovation ? SMALL_BATCH : BATCH,
                 .chunks = innovation ? 1 : CHUNKS},
      .rows = SMALL_CLASSES,
      .cov = {{.structure = "block", .form = form, .prior = 1},
              {.structure = "kron", .form = form, .real = KWM_REAL_FLOAT, .prior = 5, .refresh = 100},
              {.structure = "kron", .form = form, .real = KWM_REAL_FLOAT, .prior = 5, .refresh = 100}}};
}

/* One program: a model, a pipe and a Kalman learner on a layout. */
struct program {
  struct small small;
  kwm_learner learner;
};

/* Grids that no stages fit are not tried. */
static bool fits(const struct kwm_layout *layout, enum kwm_form form) {
  if (layout->stages > 2 || (layout->stages == 2 && layout->owners > 2)) return false;
  return form == KWM_FORM_INFORMATION || layout->replicas == 1;
}

static void program_init(struct program *program, const struct kwm_layout *layout, const struct kwm_learn_spec *spec) {
  memset(program, 0, sizeof *program);
  small_init(&program->small, layout, WIDTH, spec->filter.batch, spec->filter.chunks);
  assert_ok(
      kwm_learner_create(&program->learner, &kwm_learn_kalman, &program->small.layout, &program->small.params, spec));
}

static void program_fini(struct program *program) {
  kwm_learner_destroy(&program->learner);
  small_fini(&program->small);
}

static void program_step(struct program *program, int64_t t, struct kwm_step *step) {
  struct kwm_lin lin;
  const int64_t n = program->learner.spec.filter.batch;
  kwm_learner_predict(&program->learner);
  small_linearise(&program->small, t * n % (SMALL_IMAGES - n), n, &lin);
  kwm_learner_step(&program->learner, &lin, step);
}

/* ---- states by way of checkpoints */

static void make_dir(char *dir, size_t size) {
  const char *const base = getenv("TMPDIR");
  snprintf(dir, size, "%s/kwm-filter-XXXXXX", base != NULL ? base : P_tmpdir);
  const bool made = world_rank() != 0 || mkdtemp(dir) != NULL;
  assert_all(made);
  MPI_Bcast(dir, (int)size, MPI_CHAR, 0, MPI_COMM_WORLD);
}

/* Collective over the program's world; -> a file in dir that rank 0 opens alone. */
static void save(const struct program *program, const char *dir, int64_t number) {
  kwm_ckpt *ckpt = NULL;
  assert_ok(kwm_ckpt_create(&ckpt, program->small.layout.world, dir, number));
  assert_ok(kwm_learner_save(&program->learner, ckpt));
  assert_ok(kwm_ckpt_commit(&ckpt, 100));
}

struct comparison {
  kwm_ckpt *a, *b;
  double worst; /* largest relative error of a dataset in the Frobenius norm */
  bool same;
  int datasets;
};

static double *read_wide(kwm_ckpt *ckpt, const char *name, enum kwm_type type, int n_dims, const int64_t *dims,
                         int64_t length) {
  double *const wide = dense_new(length);
  if (type == KWM_F64) {
    assert_ok(kwm_ckpt_get(ckpt, name, type, n_dims, dims, 0, dims[0], wide));
    return wide;
  }
  float *const narrow = calloc((size_t)length, sizeof *narrow);
  assert_ok(kwm_ckpt_get(ckpt, name, type, n_dims, dims, 0, dims[0], narrow));
  for (int64_t k = 0; k < length; k++) wide[k] = (double)narrow[k];
  free(narrow);
  return wide;
}

static void compare_dataset(void *context, const char *name, enum kwm_type type, int n_dims, const int64_t *dims) {
  struct comparison *const comparison = context;
  int64_t length = 1;
  if (type == KWM_I64) return;
  for (int d = 0; d < n_dims; d++) length *= dims[d];
  double *const a = read_wide(comparison->a, name, type, n_dims, dims, length);
  double *const b = read_wide(comparison->b, name, type, n_dims, dims, length);
  comparison->same = comparison->same && memcmp(a, b, (size_t)length * sizeof *a) == 0;
  /* Eigenvectors keep no sign and no order under rounding; what they carry shows in the means. */
  if (strstr(name, "basis") == NULL && strstr(name, "/cov/hidden/precision") == NULL &&
      strstr(name, "/cov/output/precision") == NULL)
    comparison->worst = fmax(comparison->worst, dense_error(length, a, b));
  comparison->datasets++;
  free(a), free(b);
}

/* Files 1 and 2 of dir, compared and removed on rank 0; the others get the verdict. */
static struct comparison compare_files(const char *dir) {
  struct comparison comparison = {.same = true};
  if (world_rank() == 0) {
    char path[2][512];
    for (int k = 0; k < 2; k++) snprintf(path[k], sizeof path[k], "%s/step-%010d.h5", dir, k + 1);
    assert_ok(kwm_ckpt_open(&comparison.a, MPI_COMM_SELF, path[0]));
    assert_ok(kwm_ckpt_open(&comparison.b, MPI_COMM_SELF, path[1]));
    assert_ok(kwm_ckpt_list(comparison.a, compare_dataset, &comparison));
    kwm_ckpt_close(&comparison.a), kwm_ckpt_close(&comparison.b);
    unlink(path[0]), unlink(path[1]);
  }
  MPI_Bcast(&comparison, sizeof comparison, MPI_BYTE, 0, MPI_COMM_WORLD);
  return comparison;
}

/* ---- the same answer on every layout */

static enum kwm_form form_now;

/* No score comes before the first. */
static bool same_products(const struct kwm_step *a, const struct kwm_step *b, int64_t t) {
  if (t == 0) return isnan(a->product) && isnan(b->product);
  if (form_now == KWM_FORM_INFORMATION) return a->product == b->product;
  return close_to(a->product, b->product, 1e-3, 1e-3 * fabs(b->product));
}

static void same_answer(struct kwm_layout *layout) {
  if (!fits(layout, form_now)) return;
  const struct kwm_learn_spec spec = spec_of(form_now);
  const struct kwm_layout alone = small_alone();
  struct program here, reference;
  struct kwm_step step, step_alone;
  char dir[256];
  bool same_steps = true;
  make_dir(dir, sizeof dir);
  program_init(&here, layout, &spec);
  program_init(&reference, &alone, &spec);
  for (int64_t t = 0; t < STEPS; t++) {
    program_step(&here, t, &step);
    program_step(&reference, t, &step_alone);
    same_steps = same_steps && step.verdict == KWM_STEP_DONE && step_alone.verdict == KWM_STEP_DONE;
    for (int g = 0; g < SMALL_GROUPS; g++)
      same_steps = same_steps &&
                   close_to(step.scale[g], step_alone.scale[g], form_now == KWM_FORM_INFORMATION ? 0 : 1e-4, 0) &&
                   close_to(step.kl[g], step_alone.kl[g], form_now == KWM_FORM_INFORMATION ? 0 : 1e-4, 0);
    same_steps = same_steps && close_to(step.nis, step_alone.nis, 1e-4, 0) && same_products(&step, &step_alone, t) &&
                 step.innovation.samples == (double)spec.filter.batch;
  }
  assert_all(same_steps);
  save(&here, dir, 1);
  if (world_rank() == 0) save(&reference, dir, 2);
  const struct comparison found = compare_files(dir);
  assert_all(found.datasets == 3 + 1 + 2 * 5 + 3 + 3);
  assert_all(form_now == KWM_FORM_INFORMATION ? found.same : found.worst < 1e-4);
  program_fini(&here), program_fini(&reference);
  assert_all(world_rank() != 0 || rmdir(dir) == 0);
}

static void test_information(void **state) {
  (void)state;
  form_now = KWM_FORM_INFORMATION;
  for_each_layout(same_answer);
}

static void test_innovation(void **state) {
  (void)state;
  form_now = KWM_FORM_INNOVATION;
  for_each_layout(same_answer);
}

/* ---- what stops a step */

/* Spoils element `at` of group g's means on its owner (the recurrence's last owner). */
static void spoil(struct program *program, int g, int64_t at) {
  const struct kwm_params *const params = &program->small.params;
  const struct kwm_share share = params->share[g];
  if (share.count > 0 && share.first + share.count == params->model->groups[g].total) params->mean[g][at] = NAN;
}

static bool skipped_everywhere(struct program *program, int64_t t) {
  struct kwm_step step;
  program_step(program, t, &step);
  return step.verdict == KWM_STEP_NOT_FINITE || step.verdict == KWM_STEP_INDEFINITE;
}

/* One number that is not one, anywhere in the means: every rank skips, and nothing else changes. */
static void not_a_number(struct kwm_layout *layout) {
  static const struct {
    int group;
    int64_t at;
  } where[] = {{KWM_GROUP_RECURRENCE, 0},     {KWM_GROUP_RECURRENCE, 5}, {KWM_GROUP_HIDDEN, 3},
               {KWM_GROUP_HIDDEN, 2 * WIDTH}, {KWM_GROUP_OUTPUT, 1},     {KWM_GROUP_OUTPUT, SMALL_HIDDEN}};
  if (!fits(layout, form_now)) return;
  struct kwm_learn_spec spec = spec_of(form_now);
  spec.filter.forgetting = 1, spec.filter.process_noise = 0, spec.filter.score_test = false;
  for (size_t w = 0; w < sizeof where / sizeof where[0]; w++) {
    struct program program;
    struct kwm_step step;
    char dir[256];
    make_dir(dir, sizeof dir);
    program_init(&program, layout, &spec);
    for (int64_t t = 0; t < 2; t++) program_step(&program, t, &step);
    spoil(&program, where[w].group, where[w].at);
    save(&program, dir, 1);
    assert_all(skipped_everywhere(&program, 2));
    save(&program, dir, 2);
    const struct comparison found = compare_files(dir);
    assert_all(found.same);
    assert_all(program.learner.steps == 3);
    program_fini(&program);
    assert_all(world_rank() != 0 || rmdir(dir) == 0);
  }
}

static void test_not_a_number(void **state) {
  (void)state;
  form_now = KWM_FORM_INFORMATION;
  for_each_layout(not_a_number);
  form_now = KWM_FORM_INNOVATION;
  for_each_layout(not_a_number);
}

/* A gate below the surprisal skips, one above does not. */
static void gate(struct kwm_layout *layout) {
  if (!fits(layout, KWM_FORM_INFORMATION)) return;
  for (int open = 0; open < 2; open++) {
    struct kwm_learn_spec spec = spec_of(KWM_FORM_INFORMATION);
    struct program program;
    struct kwm_step step;
    spec.filter.gate = open ? 50 : 0.01;
    program_init(&program, layout, &spec);
    program_step(&program, 0, &step);
    assert_all(step.verdict == (open ? KWM_STEP_DONE : KWM_STEP_GATED));
    float first[KWM_GATED_PARAMS];
    kwm_model_initial_mean(&program.small.model, KWM_GROUP_RECURRENCE, 3,
                           program.small.params.share[KWM_GROUP_RECURRENCE].first, 1, first);
    const bool same = program.small.params.share[KWM_GROUP_RECURRENCE].count == 0 ||
                      memcmp(first, program.small.params.mean[KWM_GROUP_RECURRENCE], sizeof first) == 0;
    assert_all(same == !open || program.small.params.share[KWM_GROUP_RECURRENCE].count == 0);
    program_fini(&program);
  }
}

static void test_gate(void **state) {
  (void)state;
  for_each_layout(gate);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_information),
    cmocka_unit_test(test_innovation),
    cmocka_unit_test(test_not_a_number),
    cmocka_unit_test(test_gate),
};
KWM_TEST_MAIN(tests)
