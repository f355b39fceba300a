/* kfac, ewc and si on replicas: bit for bit what one rank alone makes of the same chunks, and so is what it goes on
   with from a checkpoint that replicas wrote. */
#include "baseline_case.h"

#include <unistd.h>

enum { STEPS = 14, SAVED = 8, BOUNDARY = 5 };

static void program_spread(struct program *program, int learner, bool sampled) {
  const struct kwm_learn_spec spec = spec_of(CHUNKS);
  int ranks = 1;
  MPI_Comm_size(MPI_COMM_WORLD, &ranks);
  model_init(program, sampled, true);
  assert_ok(kwm_layout_init(&program->layout, ranks, 1, 1));
  const size_t before = kwm_mem_bytes();
  const struct kwm_learner_ops *const ops = kwm_learner_find(NAMES[learner]);
  assert_ok(kwm_learner_create(&program->learner, ops, &program->layout, &program->params, &spec));
  assert_all(kwm_mem_bytes() - before == kwm_learner_bytes(ops, &spec, &program->params, ranks));
}

/* The step's chunks of this replica. */
static void step_spread(struct program *program, int64_t t) {
  struct made made;
  make(program, t, &made);
  const int64_t chunks = CHUNKS / program->layout.replicas, samples = BATCH / program->layout.replicas;
  for (int k = 0; k < GROUPS; k++)
    made.lin.jac[k] = kwm_jac_part(&made.lin.jac[k], program->layout.replica * samples, samples);
  made.lin.chunks = chunks;
  for (int64_t c = 0; c <= chunks; c++) made.lin.bounds[c] = c * samples / chunks;
  made.lin.innovation.samples = made.lin.innovation.surprisal = (double)samples;
  assert_all(step_on(program, &made) == KWM_STEP_DONE);
  drop(&made);
}

static void make_dir(char *dir, size_t size) {
  const char *const base = getenv("TMPDIR");
  int rank = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  snprintf(dir, size, "%s/kwm-baselines-XXXXXX", base != NULL ? base : P_tmpdir);
  const bool made = rank != 0 || mkdtemp(dir) != NULL;
  assert_all(made);
  MPI_Bcast(dir, (int)size, MPI_CHAR, 0, MPI_COMM_WORLD);
}

/* Saved by all replicas, loaded by each rank for itself. */
static void hand_over(const struct program *spread, struct program *resumed) {
  char dir[256];
  kwm_ckpt *ckpt = NULL;
  make_dir(dir, sizeof dir);
  assert_ok(kwm_ckpt_create(&ckpt, spread->layout.world, dir, SAVED));
  assert_ok(kwm_learner_save(&spread->learner, ckpt));
  assert_ok(kwm_ckpt_commit(&ckpt, 1));
  const kwm_status opened = kwm_ckpt_open_newest(&ckpt, MPI_COMM_SELF, dir);
  assert_all(opened == KWM_OK);
  const kwm_status loaded = kwm_learner_load(&resumed->learner, ckpt);
  assert_all(loaded == KWM_OK);
  if (spread->layout.rank == 0) unlink(kwm_ckpt_path(ckpt));
  kwm_ckpt_close(&ckpt);
  MPI_Barrier(MPI_COMM_WORLD);
  if (spread->layout.rank == 0) rmdir(dir);
}

static void check(int learner, bool sampled) {
  struct program spread, alone, resumed;
  program_spread(&spread, learner, sampled);
  program_init(&alone, learner, sampled, CHUNKS, true);
  program_init(&resumed, learner, sampled, CHUNKS, true);
  for (int64_t t = 0; t < STEPS; t++) {
    if (t == SAVED) hand_over(&spread, &resumed);
    if (t == BOUNDARY) kwm_learner_boundary(&spread.learner), kwm_learner_boundary(&alone.learner);
    step_spread(&spread, t);
    step(&alone, t);
    assert_all(same_means(&spread, &alone));
    if (t < SAVED) continue;
    step(&resumed, t);
    assert_all(same_means(&spread, &resumed));
  }
  kwm_learner_destroy(&spread.learner), kwm_params_destroy(&spread.params), kwm_layout_fini(&spread.layout);
  program_fini(&alone), program_fini(&resumed);
}

static void test_replicas(void **state) {
  (void)state;
  for (int learner = 0; learner < LEARNERS; learner++) {
    check(learner, false);
    check(learner, true);
  }
}

/* Rows that are not numbers on the last replica only stop the step on all. */
static void test_one_fails(void **state) {
  (void)state;
  struct program spread, untouched;
  for (int learner = 0; learner < LEARNERS; learner++) {
    struct made made;
    program_spread(&spread, learner, false);
    model_init(&untouched, false, true);
    make(&spread, 0, &made);
    if (spread.layout.rank == spread.layout.size - 1) made.part[0].J[0] = NAN;
    made.lin.chunks = CHUNKS / spread.layout.replicas;
    assert_all(step_on(&spread, &made) == KWM_STEP_INDEFINITE);
    assert_all(same_means(&spread, &untouched));
    drop(&made);
    kwm_learner_destroy(&spread.learner), kwm_params_destroy(&spread.params), kwm_layout_fini(&spread.layout);
    kwm_params_destroy(&untouched.params);
  }
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_replicas),
    cmocka_unit_test(test_one_fails),
};
KWM_TEST_MAIN(tests)
