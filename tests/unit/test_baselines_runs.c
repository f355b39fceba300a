/* Runs of the baselines of continual learning: skipped steps, other chunks, ranks without blocks, and across a
 * checkpoint.
 */
#include "baseline_case.h"

#include <unistd.h>

/* ---- steps that are not done */

enum fault { GATED, NOT_FINITE, NAN_ROWS, FAULTS };

/* What the fault is answered with. */
static enum kwm_verdict spoil(struct made *made, enum fault fault) {
  if (fault == GATED) made->lin.innovation.surprisal = 6 * BATCH;
  if (fault == NOT_FINITE) made->lin.innovation.surprisal = NAN;
  if (fault == NAN_ROWS) made->part[GROUPS - 1].J[0] = NAN;
  return fault == GATED ? KWM_STEP_GATED : fault == NOT_FINITE ? KWM_STEP_NOT_FINITE : KWM_STEP_INDEFINITE;
}

/* Exact rows make the score too; sampled ones only the information, which si does not use. */
static bool notices(int learner, bool sampled, enum fault fault) {
  return !(fault == NAN_ROWS && learner == SI && sampled);
}

/* Apart from the step counter nothing remembers a skipped step, boundary and later inverses included. */
static void test_skipped(void **state) {
  (void)state;
  for (int learner = 0; learner < LEARNERS; learner++)
    for (int sampled = 0; sampled < 2; sampled++)
      for (int fault = 0; fault < FAULTS; fault++) {
        if (!notices(learner, sampled, (enum fault)fault)) continue;
        struct program program, smooth;
        program_init(&program, learner, sampled, CHUNKS, true);
        program_init(&smooth, learner, sampled, CHUNKS, true);
        for (int64_t t = 0; t < 14; t++) {
          if (t == 0 || t == 3 || t == 12) {
            struct made made;
            make(&program, 60 + t, &made);
            const enum kwm_verdict wanted = spoil(&made, (enum fault)fault);
            assert_int_equal(step_on(&program, &made), wanted);
            assert_true(same_means(&program, &smooth));
            assert_int_equal(program.learner.steps, t + 1);
            program.learner.steps = t;
            drop(&made);
          }
          if (t == 7) kwm_learner_boundary(&program.learner), kwm_learner_boundary(&smooth.learner);
          step(&program, t), step(&smooth, t);
          assert_true(same_means(&program, &smooth));
        }
        program_fini(&program), program_fini(&smooth);
      }
}

/* kfac without damping: eight samples span no layer's inputs, so there is no inverse, and the step is skipped. */
static void test_singular(void **state) {
  (void)state;
  struct program program, untouched;
  struct made made;
  program_init(&program, KFAC, true, CHUNKS, true);
  model_init(&untouched, true, true);
  program.learner.spec.damping = 0;
  make(&program, 0, &made);
  assert_int_equal(step_on(&program, &made), KWM_STEP_INDEFINITE);
  assert_true(same_means(&program, &untouched));
  drop(&made);
  program_fini(&program), kwm_params_destroy(&untouched.params);
}

/* Rows that are all zero have an inverse (of the damping), and move nothing. */
static void test_zero_rows(void **state) {
  (void)state;
  struct program program, untouched;
  struct made made;
  program_init(&program, KFAC, true, CHUNKS, true);
  model_init(&untouched, true, true);
  make(&program, 0, &made);
  silence(&made);
  assert_int_equal(step_on(&program, &made), KWM_STEP_DONE);
  assert_true(same_means(&program, &untouched));
  drop(&made);
  program_fini(&program), kwm_params_destroy(&untouched.params);
}

/* ---- chunks and owners */

/* Another number of chunks is another order of the same sums; the last step is short, and some chunks are empty. */
static void test_chunks(void **state) {
  (void)state;
  for (int learner = 0; learner < LEARNERS; learner++)
    for (int sampled = 0; sampled < 2; sampled++) {
      struct program one, four;
      program_init(&one, learner, sampled, 1, true);
      program_init(&four, learner, sampled, CHUNKS, true);
      for (int64_t t = 0; t < 6; t++) {
        struct made whole, parts;
        if (t == 3) kwm_learner_boundary(&one.learner), kwm_learner_boundary(&four.learner);
        make_short(&one, t, t == 5 ? 3 : BATCH, &whole);
        make_short(&four, t, t == 5 ? 3 : BATCH, &parts);
        assert_int_equal(step_on(&one, &whole), KWM_STEP_DONE);
        assert_int_equal(step_on(&four, &parts), KWM_STEP_DONE);
        drop(&whole), drop(&parts);
      }
      for (int g = 0; g < GROUPS; g++) {
        double *const wide = small_widen(length_of(&one, g), one.params.mean[g]);
        assert_below(dense_error_f32(length_of(&one, g), four.params.mean[g], wide), 1e-5);
        free(wide);
      }
      program_fini(&one), program_fini(&four);
    }
}

/* A rank without blocks takes part in every step. */
static void test_owns_nothing(void **state) {
  (void)state;
  for (int learner = 0; learner < LEARNERS; learner++)
    for (int sampled = 0; sampled < 2; sampled++) {
      struct program program;
      program_init(&program, learner, sampled, CHUNKS, false);
      step(&program, 0);
      kwm_learner_boundary(&program.learner);
      step(&program, 1);
      assert_int_equal(program.learner.steps, 2);
      program_fini(&program);
    }
}

/* ---- checkpoints */

static void make_dir(char *dir, size_t size) {
  const char *const base = getenv("TMPDIR");
  snprintf(dir, size, "%s/kwm-baselines-XXXXXX", base != NULL ? base : P_tmpdir);
  assert_non_null(mkdtemp(dir));
}

/* -> the checkpoint, opened for reading. */
static kwm_ckpt *save(const struct program *program, const char *dir) {
  kwm_ckpt *ckpt = NULL;
  assert_ok(kwm_ckpt_create(&ckpt, MPI_COMM_SELF, dir, program->learner.steps));
  assert_ok(kwm_learner_save(&program->learner, ckpt));
  assert_ok(kwm_ckpt_commit(&ckpt, 1));
  assert_ok(kwm_ckpt_open_newest(&ckpt, MPI_COMM_SELF, dir));
  return ckpt;
}

static void close_and_remove(kwm_ckpt **ckpt, const char *dir) {
  unlink(kwm_ckpt_path(*ckpt));
  kwm_ckpt_close(ckpt);
  assert_int_equal(rmdir(dir), 0);
}

/* Saved between two inverses and between two boundaries, loaded into a fresh program: the same steps, bit for bit. */
static void check_round_trip(int learner, bool sampled) {
  struct program program, resumed;
  char dir[256];
  program_init(&program, learner, sampled, CHUNKS, true);
  program_init(&resumed, learner, sampled, CHUNKS, true);
  for (int64_t t = 0; t < 15; t++) {
    if (t == 6) kwm_learner_boundary(&program.learner);
    step(&program, t);
  }
  make_dir(dir, sizeof dir);
  kwm_ckpt *ckpt = save(&program, dir);
  assert_ok(kwm_learner_load(&resumed.learner, ckpt));
  close_and_remove(&ckpt, dir);
  assert_int_equal(resumed.learner.steps, 15);
  for (int64_t t = 15; t < 22; t++) {
    assert_true(same_means(&program, &resumed));
    if (t == 18) kwm_learner_boundary(&program.learner), kwm_learner_boundary(&resumed.learner);
    step(&program, t), step(&resumed, t);
  }
  assert_true(same_means(&program, &resumed));
  program_fini(&program), program_fini(&resumed);
}

static void test_round_trip(void **state) {
  (void)state;
  for (int learner = 0; learner < LEARNERS; learner++) {
    check_round_trip(learner, false);
    check_round_trip(learner, true);
  }
}

/* Each one's state is its own: another's checkpoint is refused. */
static void test_strangers(void **state) {
  (void)state;
  for (int learner = 0; learner < LEARNERS; learner++) {
    struct program program, stranger;
    char dir[256];
    program_init(&program, learner, true, CHUNKS, true);
    program_init(&stranger, (learner + 1) % LEARNERS, true, CHUNKS, true);
    make_dir(dir, sizeof dir);
    kwm_ckpt *ckpt = save(&program, dir);
    assert_int_equal(kwm_learner_load(&stranger.learner, ckpt), KWM_ERR_DATA);
    close_and_remove(&ckpt, dir);
    program_fini(&program), program_fini(&stranger);
  }
}

static void test_refresh(void **state) {
  (void)state;
  struct program program;
  struct kwm_learn_spec spec = spec_of(CHUNKS);
  spec.refresh = 0;
  model_init(&program, true, true);
  assert_int_equal(kwm_learner_create(&program.learner, &kwm_learn_kfac, &program.layout, &program.params, &spec),
                   KWM_ERR_USAGE);
  assert_non_null(strstr(kwm_error_message(), "refresh"));
  program_fini(&program);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_skipped),   cmocka_unit_test(test_singular),     cmocka_unit_test(test_zero_rows),
    cmocka_unit_test(test_chunks),    cmocka_unit_test(test_owns_nothing), cmocka_unit_test(test_round_trip),
    cmocka_unit_test(test_strangers), cmocka_unit_test(test_refresh),
};
KWM_TEST_MAIN(tests)
