/* What kwm_learner_device_bytes and kwm_pipe_device_bytes say is what learner and pipe take of a device's memory: its
   allocations are counted on their way. Some arrays are counted rounded up, so that a little more is said. */
#include "pipe_pair.h"

#include "kwm/device_ops.h"

static const struct kwm_device_ops *under;
static size_t taken;

static void *counted(kwm_device *d, size_t bytes, bool shared) {
  if (!shared) taken += bytes;
  return under->alloc(d, bytes, shared);
}

enum { CHUNKS = 4, BATCH = 21, ARRAYS = 100, ROUNDED = 64 };

static struct kwm_learn_spec learn_spec(const char *structure, const char *matrix, bool forgets) {
  const struct kwm_cov_choice units = {.structure = structure, .real = KWM_REAL_DOUBLE, .prior = 3, .refresh = 10};
  const struct kwm_cov_choice matrices = {
      .structure = matrix, .real = KWM_REAL_FLOAT, .prior = 3, .refresh = 10, .delay = forgets ? 3 : 0};
  struct kwm_learn_spec spec = {
      .filter = {.gain_factor = 1, .batch = BATCH, .chunks = CHUNKS},
      .rows = SMALL_CLASSES,
      .rate = 0.1,
      .cov = {[KWM_ROLE_RECURRENCE] = units, [KWM_ROLE_HIDDEN] = matrices, [KWM_ROLE_OUTPUT] = matrices}};
  spec.filter.forgetting = forgets ? 0.99 : 1;
  spec.filter.line_search = forgets && strcmp(structure, "diag") == 0;
  return spec;
}

static void check(struct kwm_layout *layout, const struct kwm_model *model, const struct kwm_stages *stages,
                  const char *learner, struct kwm_learn_spec spec, enum kwm_evidence evidence) {
  const struct kwm_learner_ops *const ops = kwm_learner_find(learner);
  struct kwm_device_ops counting = *test_device->ops;
  struct kwm_params params;
  kwm_learner made;
  kwm_pipe *pipe = NULL;
  struct kwm_pipe_spec rows = {.batch = BATCH, .chunks = CHUNKS, .evidence = evidence, .device = test_device};
  assert_ok(kwm_params_create(&params, model, stages, 0, 3));
  under = test_device->ops;
  counting.alloc = counted;
  test_device->ops = &counting;
  spec.device = test_device;
  spec.rows = kwm_pipe_rows(model, evidence);
  const size_t of_learner = kwm_learner_device_bytes(ops, &spec, &params, layout->replicas);
  taken = 0;
  assert_ok(kwm_learner_create(&made, ops, layout, &params, &spec));
  assert_in_range(of_learner, taken, taken + ARRAYS * ROUNDED);
  const size_t of_pipe = kwm_pipe_device_bytes(model, stages, 0, &rows, layout->replicas);
  const size_t ones = (size_t)kwm_pipe_samples_max(BATCH, layout->replicas) * sizeof(float); /* given back at once */
  taken = 0;
  assert_ok(kwm_pipe_create(&pipe, layout, model, stages, &rows));
  assert_in_range(of_pipe + ones, taken, taken + ARRAYS * ROUNDED);
  kwm_pipe_destroy(pipe);
  kwm_learner_destroy(&made);
  kwm_params_destroy(&params);
  test_device->ops = under;
}

static void test_gated(void **state) {
  (void)state;
  struct kwm_layout alone = small_alone();
  struct small small;
  small_init(&small, &alone, 32, BATCH, CHUNKS);
  for (int forgets = 0; forgets < 2; forgets++) {
    check(&alone, &small.model, &small.stages, "kalman", learn_spec("block", "kron", forgets), KWM_EVIDENCE_EXACT);
    check(&alone, &small.model, &small.stages, "kalman", learn_spec("diag", "kron", forgets), KWM_EVIDENCE_EXACT);
    check(&alone, &small.model, &small.stages, "kalman", learn_spec("diag", "diag", forgets), KWM_EVIDENCE_EXACT);
  }
  check(&alone, &small.model, &small.stages, "adam", learn_spec("diag", "diag", false), KWM_EVIDENCE_EXACT);
  small_fini(&small);
}

static void test_dense(void **state) {
  (void)state;
  struct kwm_layout alone = small_alone();
  for (int k = 0; k < 4; k++) {
    const struct net_shape shape = {.n_layers = 2,
                                    .widths = {8, 5},
                                    .readouts = k % 2,
                                    .evidence = k / 2 ? KWM_EVIDENCE_SAMPLED : KWM_EVIDENCE_EXACT,
                                    .batch = BATCH,
                                    .chunks = CHUNKS};
    struct net net;
    net_init(&net, &alone, &shape);
    check(&alone, &net.model, &net.stages, "kalman", learn_spec("diag", "kron", k == 1), shape.evidence);
    check(&alone, &net.model, &net.stages, "sgd", learn_spec("diag", "kron", false), shape.evidence);
    net_fini(&net);
  }
}

/* One dense matrix block in the innovation form. */
static void test_matrix(void **state) {
  (void)state;
  struct kwm_layout alone = small_alone();
  const struct net_shape shape = {.n_layers = 1, .widths = {8}, .batch = BATCH, .chunks = CHUNKS};
  struct kwm_learn_spec spec = learn_spec("diag", "block", false);
  struct net net;
  for (int role = KWM_ROLE_HIDDEN; role < KWM_ROLES; role++) {
    spec.cov[role].form = KWM_FORM_INNOVATION;
    spec.cov[role].real = KWM_REAL_DOUBLE;
  }
  net_init(&net, &alone, &shape);
  check(&alone, &net.model, &net.stages, "kalman", spec, KWM_EVIDENCE_EXACT);
  net_fini(&net);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_gated),
    cmocka_unit_test(test_dense),
    cmocka_unit_test(test_matrix),
};
PIPE_TEST_MAIN(tests)
