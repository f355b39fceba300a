/* A language model's steps on several ranks against one: stages, owners, replicas, all of them; losses, means and
   covariance agree to rounding, and what one layout saved another goes on with. */
#include <unistd.h>

#include "language_case.h"

enum { STEPS = 12 };

struct learned {
  double loss[STEPS];
  struct kwm_reading last;
  double kl[KWM_TRANSFORMER_STAGES_MAX]; /* of the last step */
  double shortened;                      /* steps of stages, over the run */
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
                                         .trust = 2e-4,
                                         .rate = 0.01,
                                         .beta1 = 0.9,
                                         .beta2 = 0.95,
                                         .epsilon = 1e-8,
                                         .decay = 0.01,
                                         .clip = 1};
  return spec;
}

/* Steps [first, STEPS) on this layout; from: a checkpoint to begin with, to: one to leave after half of the steps. */
static struct learned learn_so(struct language_way way, int readings, struct case_layout layout, bool adam,
                               const char *from, const char *to) {
  struct language_case c;
  struct learned learned = {0};
  kwm_language_learner *learner;
  const struct kwm_language_learn_spec spec = learn_spec(adam);
  language_case_open(&c, way, readings, layout, 4);
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
    memcpy(learned.kl, result.kl, sizeof learned.kl);
    for (int s = 0; s < readings; s++) learned.shortened += result.scale[s] > 0 && result.scale[s] < 1;
    if (to == NULL || step + 1 != STEPS / 2) continue;
    assert_ok(kwm_ckpt_create(&ckpt, c.layout.world, to, step + 1));
    assert_ok(kwm_language_learner_save(learner, ckpt));
    assert_ok(kwm_ckpt_commit(&ckpt, 1));
  }
  kwm_par_sum_world(&c.layout, readings, learned.kl);
  kwm_par_sum_world(&c.layout, 1, &learned.shortened);
  kwm_language_learner_destroy(learner);
  language_case_close(&c);
  return learned;
}

static struct learned learn(int readings, struct case_layout layout, bool adam, const char *from, const char *to) {
  return learn_so((struct language_way){0}, readings, layout, adam, from, to);
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
  for (int s = 0; s < readings; s++) assert_all(close_to(one->kl[s], other->kl[s], 5e-3, 0));
}

/* All ranks as replicas of one stage, as its owners, as a pipe of stages, and as two of these. Against one rank alone:
   tests/e2e/language.py. */
static void test_layouts(void **state) {
  (void)state;
  const int size = world_size(), half = size / 2;
  const struct case_layout others[] = {{size, 1, 1}, {1, size, 1}, {half, 2, 1}, {half, 1, 2}, {1, half, 2}};
  for (int readings = 1; readings <= 4; readings += 3)
    for (int adam = 0; adam < 2; adam++) {
      const struct learned flat = learn(readings, (struct case_layout){1, 1, size}, adam, NULL, NULL);
      assert_all(adam ? flat.shortened == 0 : flat.shortened > 0 && flat.shortened < STEPS * readings);
      for (int k = 0; k < (size < 4 ? 2 : 5); k++) {
        const struct learned other = learn(readings, others[k], adam, NULL, NULL);
        compare(&flat, &other, readings);
      }
    }
}

/* On devices, messages from one to another and through the host: the same bits, and near those without a device. */
static void test_messages(void **state) {
  (void)state;
  kwm_device *device;
  const struct kwm_device_spec spec = {.local_rank = kwm_par_local_rank(), .graphs = true};
  const int size = world_size();
  const struct case_layout layouts[] = {{size, 1, 1}, {2, 2, 1}};
  assert_ok(kwm_device_open(&device, "shadow", &spec));
  for (int k = 0; k < (size == 4 ? 4 : 2); k++) {
    const int readings = k % 2 == 0 ? 1 : 4;
    const struct case_layout layout = layouts[k / 2];
    const struct learned plain = learn(readings, layout, false, NULL, NULL);
    const struct learned direct = learn_so((struct language_way){device, true}, readings, layout, false, NULL, NULL);
    const struct learned hosts = learn_so((struct language_way){device, false}, readings, layout, false, NULL, NULL);
    compare(&plain, &direct, readings);
    assert_all(memcmp(direct.loss, hosts.loss, sizeof direct.loss) == 0);
  }
  kwm_device_close(device);
}

/* The losses fall: targets follow from inputs. */
static void test_learns(void **state) {
  (void)state;
  for (int adam = 0; adam < 2; adam++) {
    const int size = world_size();
    const struct case_layout layout = {size > 2 ? 2 : size, 1, size > 2 ? 2 : 1};
    const struct learned learned = learn(2, layout, adam, NULL, NULL);
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

static void remove_folder(const char *folder) {
  char command[256];
  int rank;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  snprintf(command, sizeof command, "rm -rf '%s'", folder);
  if (rank == 0) assert_int_equal(system(command), 0);
}

/* Half of the steps, a checkpoint, and on: the same bits on the same layout, rounding on others. */
static void test_resume(void **state) {
  (void)state;
  const int size = world_size(), half = size > 1 ? size / 2 : 1, two = size > 1 ? 2 : 1;
  const struct case_layout layouts[] = {{half, 1, two}, {1, two, half}}, others[] = {{1, half, two}, {two, half, 1}};
  for (int k = 0; k < 4; k++) {
    const bool adam = k % 2 == 0;
    const char *const folder = folder_of(adam ? "adam" : "kalman");
    const struct learned whole = learn(2, layouts[k / 2], adam, NULL, folder);
    const struct learned resumed = learn(2, layouts[k / 2], adam, folder, NULL);
    const struct learned moved = learn(2, others[k / 2], adam, folder, NULL);
    for (int step = STEPS / 2; step < STEPS; step++) {
      assert_all(whole.loss[step] == resumed.loss[step]);
      assert_all(close_to(whole.loss[step], moved.loss[step], 2e-4, 0));
    }
    remove_folder(folder);
  }
}

/* Owners divide the covariance: what a rank holds is what was said, and all of it together what one rank would hold. */
static void test_owned(void **state) {
  (void)state;
  const int size = world_size();
  for (int adam = 0; adam < 2; adam++) {
    struct language_case c;
    kwm_language_learner *learner;
    const struct kwm_language_learn_spec spec = learn_spec(adam);
    language_case_open(&c, (struct language_way){0}, 1, (struct case_layout){1, size, 1}, 4);
    const struct kwm_language_place *const place = kwm_language_places(c.language);
    const size_t before = kwm_mem_bytes();
    assert_ok(kwm_language_learner_create(&learner, &c.layout, &c.model, c.language, NULL, &spec));
    const double held = (double)(kwm_mem_bytes() - before);
    const struct kwm_language_bytes bytes = kwm_language_learner_bytes(&c.model, place, &c.layout, false, &spec);
    const double heads = 128.0 * (6 + 10 * c.model.n_tensors) + sizeof(struct kwm_riccati) * KWM_TENSORS_MAX * 2;
    assert_all(bytes.arrays + bytes.host <= held && held <= bytes.arrays + bytes.host + heads);
    double trace[KWM_TENSOR_ROLES], prior[KWM_TENSOR_ROLES], all = 0;
    kwm_language_health(learner, trace, prior);
    for (int role = 0; role < KWM_TENSOR_ROLES; role++) all += 10 * prior[role];
    assert_all(adam || size == 1 || all < 0.9 * (double)kwm_transformer_parameters(&c.model));
    kwm_par_sum_world(&c.layout, 1, &all);
    assert_all(adam || close_to(all, (double)kwm_transformer_parameters(&c.model), 1e-9, 0));
    kwm_language_learner_destroy(learner);
    language_case_close(&c);
  }
}

/* One number that is not finite, on one rank, is seen by all. */
static void test_finite(void **state) {
  (void)state;
  struct language_case c;
  kwm_language_learner *learner;
  const int size = world_size();
  const struct kwm_language_learn_spec spec = learn_spec(false);
  language_case_open(&c, (struct language_way){0}, 4, (struct case_layout){size, 1, 1}, 4);
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
    cmocka_unit_test(test_messages), cmocka_unit_test(test_owned),   cmocka_unit_test(test_resume),
};
KWM_TEST_MAIN(tests)
