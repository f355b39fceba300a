/* The gradient baselines against their textbook recursions in double precision, their schedule, and their checkpoints.
 */
#include "small_model.h"

#include <unistd.h>

enum { UNITS = 16, BATCH = 8, CHUNKS = 4, TOTAL = 10 };

struct program {
  struct small small;
  kwm_learner learner;
};

static struct kwm_learn_spec spec_of(void) {
  return (struct kwm_learn_spec){.filter = {.gain_factor = 1, .forgetting = 1, .batch = BATCH, .chunks = CHUNKS},
                                 .cov = {{.structure = "block", .prior = 1},
                                         {.structure = "kron", .prior = 5, .refresh = 100},
                                         {.structure = "kron", .prior = 5, .refresh = 100}},
                                 .rate = 0.05,
                                 .momentum = 0.9,
                                 .beta1 = 0.9,
                                 .beta2 = 0.99,
                                 .epsilon = 1e-6,
                                 .total_steps = TOTAL};
}

static void program_init(struct program *program, const char *name) {
  const struct kwm_layout alone = small_alone();
  const struct kwm_learn_spec spec = spec_of();
  const struct kwm_learner_ops *const ops = kwm_learner_find(name);
  assert_non_null(ops);
  memset(program, 0, sizeof *program);
  small_init(&program->small, &alone, UNITS, BATCH, CHUNKS);
  const size_t before = kwm_mem_bytes();
  assert_ok(kwm_learner_create(&program->learner, ops, &program->small.layout, &program->small.params, &spec));
  assert_int_equal(kwm_mem_bytes() - before, kwm_learner_bytes(ops, &spec, &program->small.params, 1));
}

static void program_fini(struct program *program) {
  kwm_learner_destroy(&program->learner);
  small_fini(&program->small);
}

static int64_t length_of(const struct program *program, int g) {
  return program->small.model.groups[g].total * program->small.model.groups[g].params;
}

static void linearise(struct program *program, int64_t t, struct kwm_lin *lin) {
  small_linearise(&program->small, t * BATCH % (SMALL_IMAGES - BATCH), BATCH, lin);
}

/* Gradient of the mean log-likelihood, group g, in the order of the means. */
static double *gradient_of(const struct kwm_lin *lin, int g) {
  double *const gradient = jac_dense_score(&lin->jac[g]);
  for (int64_t k = 0; k < jac_columns(&lin->jac[g]); k++) gradient[k] /= BATCH;
  return gradient;
}

/* One parameter's step. */
struct recursion {
  double v, first, second;
};

static double sgd(struct recursion *r, double gradient, double rate) {
  r->v = 0.9 * r->v + gradient;
  return rate * r->v;
}

static double adam(struct recursion *r, double gradient, double rate, double t) {
  r->first = 0.9 * r->first + 0.1 * gradient;
  r->second = 0.99 * r->second + 0.01 * gradient * gradient;
  return rate * (r->first / (1 - pow(0.9, t))) / (sqrt(r->second / (1 - pow(0.99, t))) + 1e-6);
}

/* Moves of three steps against the recursion on the gradients that the program met on its own way. */
static void check_recursion(const char *name, bool is_adam) {
  struct program program;
  struct recursion *memory[KWM_GROUPS_MAX];
  program_init(&program, name);
  for (int g = 0; g < SMALL_GROUPS; g++) memory[g] = calloc((size_t)length_of(&program, g), sizeof *memory[g]);
  for (int t = 0; t < 3; t++) {
    struct kwm_lin lin;
    struct kwm_step step;
    double *before[KWM_GROUPS_MAX], *gradient[KWM_GROUPS_MAX];
    linearise(&program, t, &lin);
    const double rate = 0.05 * 0.5 * (1 + cos(M_PI * t / TOTAL));
    for (int g = 0; g < SMALL_GROUPS; g++) {
      gradient[g] = gradient_of(&lin, g);
      before[g] = small_widen(length_of(&program, g), program.small.params.mean[g]);
    }
    kwm_learner_step(&program.learner, &lin, &step);
    assert_int_equal(step.verdict, KWM_STEP_DONE);
    for (int g = 0; g < SMALL_GROUPS; g++) {
      for (int64_t k = 0; k < length_of(&program, g); k++)
        before[g][k] +=
            is_adam ? adam(&memory[g][k], gradient[g][k], rate, t + 1) : sgd(&memory[g][k], gradient[g][k], rate);
      /* A gradient near zero leaves Adam's quotient uncertain: absolute, in parts of the rate. */
      for (int64_t k = 0; k < length_of(&program, g); k++)
        assert_close((double)program.small.params.mean[g][k], before[g][k], 1e-6, 0.05 * (is_adam ? 2e-3 : 1e-5));
      assert_below(dense_error_f32(length_of(&program, g), program.small.params.mean[g], before[g]), 1e-5);
      free(gradient[g]), free(before[g]);
    }
  }
  for (int g = 0; g < SMALL_GROUPS; g++) free(memory[g]);
  program_fini(&program);
}

static void test_sgd(void **state) {
  (void)state;
  check_recursion("sgd", false);
}

static void test_adam(void **state) {
  (void)state;
  check_recursion("adam", true);
}

/* Half a cosine: after total_steps nothing moves any more, and halfway half the rate is left. */
static void test_schedule(void **state) {
  (void)state;
  struct program program;
  struct kwm_lin lin;
  struct kwm_step step;
  program_init(&program, "sgd");
  const int64_t n = length_of(&program, KWM_GROUP_OUTPUT);
  program.learner.steps = TOTAL / 2;
  linearise(&program, 0, &lin);
  double *const gradient = gradient_of(&lin, KWM_GROUP_OUTPUT);
  double *const before = small_widen(n, program.small.params.mean[KWM_GROUP_OUTPUT]);
  kwm_learner_step(&program.learner, &lin, &step);
  for (int64_t k = 0; k < n; k++)
    assert_close((double)program.small.params.mean[KWM_GROUP_OUTPUT][k] - before[k], 0.025 * gradient[k], 1e-3, 1e-7);
  for (int64_t late = TOTAL; late < 3 * TOTAL; late += TOTAL) {
    program.learner.steps = late;
    double *const still = small_widen(n, program.small.params.mean[KWM_GROUP_OUTPUT]);
    linearise(&program, 1, &lin);
    kwm_learner_step(&program.learner, &lin, &step);
    for (int64_t k = 0; k < n; k++) assert_true((double)program.small.params.mean[KWM_GROUP_OUTPUT][k] == still[k]);
    free(still);
  }
  free(gradient), free(before);
  program_fini(&program);
}

/* Adam's first step is the rate, up or down, whatever the gradient's size. */
static void test_adam_first(void **state) {
  (void)state;
  struct program program;
  struct kwm_lin lin;
  struct kwm_step step;
  program_init(&program, "adam");
  linearise(&program, 0, &lin);
  double *const gradient = gradient_of(&lin, KWM_GROUP_OUTPUT);
  double *const before =
      small_widen(length_of(&program, KWM_GROUP_OUTPUT), program.small.params.mean[KWM_GROUP_OUTPUT]);
  kwm_learner_step(&program.learner, &lin, &step);
  for (int64_t k = 0; k < length_of(&program, KWM_GROUP_OUTPUT); k++)
    if (fabs(gradient[k]) > 1e-3)
      assert_close((double)program.small.params.mean[KWM_GROUP_OUTPUT][k] - before[k], copysign(0.05, gradient[k]),
                   2e-3, 0);
  free(gradient), free(before);
  program_fini(&program);
}

static bool same_means(const struct program *a, const struct program *b) {
  bool same = true;
  for (int g = 0; g < SMALL_GROUPS; g++)
    same =
        same && memcmp(a->small.params.mean[g], b->small.params.mean[g], (size_t)length_of(a, g) * sizeof(float)) == 0;
  return same;
}

/* Saved after two steps, loaded into a fresh program: the same third and fourth step, bit for bit. */
static void check_round_trip(const char *name) {
  struct program program, resumed;
  struct kwm_lin lin;
  struct kwm_step step;
  const char *const base = getenv("TMPDIR");
  char dir[256];
  snprintf(dir, sizeof dir, "%s/kwm-learn-XXXXXX", base != NULL ? base : P_tmpdir);
  assert_non_null(mkdtemp(dir));
  program_init(&program, name);
  program_init(&resumed, name);
  for (int64_t t = 0; t < 2; t++) linearise(&program, t, &lin), kwm_learner_step(&program.learner, &lin, &step);
  kwm_ckpt *ckpt = NULL;
  assert_ok(kwm_ckpt_create(&ckpt, MPI_COMM_SELF, dir, 2));
  assert_ok(kwm_learner_save(&program.learner, ckpt));
  assert_ok(kwm_ckpt_commit(&ckpt, 1));
  assert_ok(kwm_ckpt_open_newest(&ckpt, MPI_COMM_SELF, dir));
  assert_ok(kwm_learner_load(&resumed.learner, ckpt));
  assert_int_equal(resumed.learner.steps, 2);
  assert_true(same_means(&program, &resumed));
  for (int64_t t = 2; t < 4; t++) {
    linearise(&program, t, &lin), kwm_learner_step(&program.learner, &lin, &step);
    linearise(&resumed, t, &lin), kwm_learner_step(&resumed.learner, &lin, &step);
    assert_true(same_means(&program, &resumed));
  }
  unlink(kwm_ckpt_path(ckpt));
  kwm_ckpt_close(&ckpt);
  assert_int_equal(rmdir(dir), 0);
  program_fini(&program), program_fini(&resumed);
}

static void test_round_trip(void **state) {
  (void)state;
  check_round_trip("sgd");
  check_round_trip("adam");
  check_round_trip("kalman");
}

/* What is not a number moves nothing; the step counts. */
static void test_not_a_number(void **state) {
  (void)state;
  static const char *const names[] = {"sgd", "adam", "kalman"};
  for (int l = 0; l < 3; l++) {
    struct program program, untouched;
    struct kwm_lin lin;
    struct kwm_step step;
    program_init(&program, names[l]);
    program_init(&untouched, names[l]);
    program.small.params.mean[KWM_GROUP_HIDDEN][2 * UNITS] = NAN;
    untouched.small.params.mean[KWM_GROUP_HIDDEN][2 * UNITS] = NAN;
    linearise(&program, 0, &lin);
    kwm_learner_step(&program.learner, &lin, &step);
    assert_true(step.verdict == KWM_STEP_NOT_FINITE || step.verdict == KWM_STEP_INDEFINITE);
    assert_true(same_means(&program, &untouched) && program.learner.steps == 1);
    program_fini(&program), program_fini(&untouched);
  }
}

static void test_find(void **state) {
  (void)state;
  assert_ptr_equal(kwm_learner_find("kalman"), &kwm_learn_kalman);
  assert_ptr_equal(kwm_learner_find("sgd"), &kwm_learn_sgd);
  assert_ptr_equal(kwm_learner_find("adam"), &kwm_learn_adam);
  assert_ptr_equal(kwm_learner_find("kfac"), &kwm_learn_kfac);
  assert_ptr_equal(kwm_learner_find("ewc"), &kwm_learn_ewc);
  assert_ptr_equal(kwm_learner_find("si"), &kwm_learn_si);
  assert_null(kwm_learner_find("newton"));
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_sgd),        cmocka_unit_test(test_adam),       cmocka_unit_test(test_schedule),
    cmocka_unit_test(test_adam_first), cmocka_unit_test(test_round_trip), cmocka_unit_test(test_not_a_number),
    cmocka_unit_test(test_find),
};
KWM_TEST_MAIN(tests)
