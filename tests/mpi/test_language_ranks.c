/* A language model's steps on several ranks against one: stages, replicas, both; losses, means and covariance agree to
   rounding, and what one layout saved another goes on with. */
#include <unistd.h>

#include "language_case.h"

enum { STEPS = 12 };

struct learned {
  double loss[STEPS];
  struct kwm_reading last;
};

static struct kwm_language_learn_spec learn_spec(bool adam) {
  struct kwm_language_learn_spec spec = {.adam = adam,
                                         .seed = 3,
                                         .tokens = CASE_TOKENS,
                                         .warmup = 3,
                                         .average = 0.1,
                                         .prior = {10, 10, 10},
                                         .left = {[KWM_TENSOR_MATRIX] = true},
                                         .right = {[KWM_TENSOR_MATRIX] = true, [KWM_TENSOR_EMBEDDING] = true},
                                         .step = {0.01, 0.01, 0.01},
                                         .stage_noise = 1.5,
                                         .pull = 0.01,
                                         .rate_f = 0.1,
                                         .rate_m = 0.2,
                                         .rate_factor = 0.1,
                                         .refresh = 4,
                                         .factor_every = 1,
                                         .steady = true,
                                         .rate = 0.01,
                                         .beta1 = 0.9,
                                         .beta2 = 0.95,
                                         .epsilon = 1e-8,
                                         .decay = 0.01,
                                         .clip = 1};
  return spec;
}

/* Steps [first, STEPS) on this layout; from: a checkpoint to begin with, to: one to leave after half of the steps. */
static struct learned learn_so(struct language_way way, int readings, int ranks, int replicas, bool adam,
                               const char *from, const char *to) {
  struct language_case c;
  struct learned learned = {0};
  kwm_language_learner *learner;
  const struct kwm_language_learn_spec spec = learn_spec(adam);
  language_case_open(&c, way, readings, ranks, replicas, 4);
  assert_ok(kwm_language_learner_create(&learner, &c.layout, &c.model, c.language, way.device, &spec));
  kwm_ckpt *ckpt = NULL;
  if (from != NULL) {
    assert_ok(kwm_ckpt_open_newest(&ckpt, c.layout.world, from));
    assert_ok(kwm_language_learner_load(learner, ckpt));
    kwm_ckpt_close(&ckpt);
  }
  for (int64_t step = kwm_language_steps(learner); step < STEPS; step++) {
    struct kwm_language_result result;
    for (uint64_t k = 0; k < CASE_TOKENS; k++) {
      c.ids[k] = (int32_t)case_draw((uint64_t)step * 100 + k, CASE_TYPES);
      c.targets[k] = (c.ids[k] * 5 + 1) % CASE_TYPES;
    }
    c.batch.step = (uint64_t)step;
    kwm_language_learn(learner, &c.batch, &result);
    assert_all(result.verdict == KWM_STEP_DONE);
    const double *const last = result.reading.of[c.model.stages - 1];
    assert_all(last[KWM_READ_TOKENS] == CASE_TOKENS);
    learned.loss[step] = last[KWM_READ_SURPRISAL] / last[KWM_READ_TOKENS];
    learned.last = result.reading;
    if (to == NULL || step + 1 != STEPS / 2) continue;
    assert_ok(kwm_ckpt_create(&ckpt, c.layout.world, to, step + 1));
    assert_ok(kwm_language_learner_save(learner, ckpt));
    assert_ok(kwm_ckpt_commit(&ckpt, 1));
  }
  kwm_language_learner_destroy(learner);
  language_case_close(&c);
  return learned;
}

static struct learned learn(int readings, int ranks, int replicas, bool adam, const char *from, const char *to) {
  return learn_so((struct language_way){0}, readings, ranks, replicas, adam, from, to);
}

static int world_size(void) {
  int size;
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  return size;
}

static void compare(const struct learned *one, const struct learned *other, int readings) {
  for (int step = 0; step < STEPS; step++) assert_all(close_to(one->loss[step], other->loss[step], 2e-4, 0));
  for (int s = 0; s < readings; s++)
    assert_all(close_to(one->last.of[s][KWM_READ_SQUARED], other->last.of[s][KWM_READ_SQUARED], 2e-3, 0));
}

/* All ranks as replicas of one stage, as a pipe of stages, and as both. Against one rank alone: tests/e2e/language.py.
 */
static void test_layouts(void **state) {
  (void)state;
  const int size = world_size();
  for (int readings = 1; readings <= 4; readings += 3)
    for (int adam = 0; adam < 2; adam++) {
      const struct learned flat = learn(readings, 1, size, adam, NULL, NULL);
      const struct learned piped = learn(readings, size, 1, adam, NULL, NULL);
      compare(&flat, &piped, readings);
      if (size < 4) continue;
      const struct learned mixed = learn(readings, size / 2, 2, adam, NULL, NULL);
      compare(&flat, &mixed, readings);
    }
}

/* On devices, messages from one to another and through the host: the same bits, and near those without a device. */
static void test_messages(void **state) {
  (void)state;
  kwm_device *device;
  const struct kwm_device_spec spec = {.local_rank = kwm_par_local_rank()};
  const int size = world_size();
  assert_ok(kwm_device_open(&device, "shadow", &spec));
  for (int readings = 1; readings <= 4; readings += 3) {
    const struct learned plain = learn(readings, size, 1, false, NULL, NULL);
    const struct learned direct = learn_so((struct language_way){device, true}, readings, size, 1, false, NULL, NULL);
    const struct learned hosts = learn_so((struct language_way){device, false}, readings, size, 1, false, NULL, NULL);
    compare(&plain, &direct, readings);
    assert_all(memcmp(direct.loss, hosts.loss, sizeof direct.loss) == 0);
  }
  kwm_device_close(device);
}

/* The losses fall: targets follow from inputs. */
static void test_learns(void **state) {
  (void)state;
  for (int adam = 0; adam < 2; adam++) {
    const struct learned learned =
        learn(2, world_size() > 2 ? 2 : world_size(), world_size() > 2 ? 2 : 1, adam, NULL, NULL);
    assert_all(learned.loss[STEPS - 1] < learned.loss[0] - 0.1);
  }
}

static const char *folder_of(const char *name) {
  static char folder[128];
  int rank, pid = (int)getpid();
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Bcast(&pid, 1, MPI_INT, 0, MPI_COMM_WORLD);
  snprintf(folder, sizeof folder, "language-%s-%d", name, pid);
  return folder;
}

/* Half of the steps, a checkpoint, and on: the same bits on the same layout, rounding on another one. */
static void test_resume(void **state) {
  (void)state;
  const int size = world_size(), replicas = size == 4 ? 2 : size;
  for (int adam = 0; adam < 2; adam++) {
    const char *const folder = folder_of(adam ? "adam" : "kalman");
    const struct learned whole = learn(2, size / replicas, replicas, adam, NULL, folder);
    const struct learned resumed = learn(2, size / replicas, replicas, adam, folder, NULL);
    const struct learned moved = learn(2, size > 1 ? 2 : 1, size > 1 ? size / 2 : 1, adam, folder, NULL);
    for (int step = STEPS / 2; step < STEPS; step++) {
      assert_all(whole.loss[step] == resumed.loss[step]);
      assert_all(close_to(whole.loss[step], moved.loss[step], 2e-4, 0));
    }
    int rank;
    char command[256];
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    if (rank == 0) assert_int_equal(system(command), 0);
  }
}

/* One number that is not finite, on one rank, is seen by all. */
static void test_finite(void **state) {
  (void)state;
  struct language_case c;
  kwm_language_learner *learner;
  const int size = world_size();
  const struct kwm_language_learn_spec spec = learn_spec(false);
  language_case_open(&c, (struct language_way){0}, 4, size, 1, 4);
  assert_ok(kwm_language_learner_create(&learner, &c.layout, &c.model, c.language, NULL, &spec));
  assert_all(kwm_language_finite(learner));
  const int t = kwm_transformer_tensor(0, KWM_LAYER_DOWN);
  float *const mean = kwm_language_means(learner, false)[t];
  assert_all((mean != NULL) == (c.layout.rank == 0));
  if (mean != NULL) mean[5] = NAN;
  assert_all(!kwm_language_finite(learner));
  kwm_language_learner_destroy(learner);
  language_case_close(&c);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_finite),   cmocka_unit_test(test_layouts), cmocka_unit_test(test_learns),
    cmocka_unit_test(test_messages), cmocka_unit_test(test_resume),
};
KWM_TEST_MAIN(tests)
