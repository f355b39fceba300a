/* The pipe on a device against the pipe on the host, one rank: every array of a linearisation, its facts, and
   predictions. */
#include "pipe_pair.h"

static void test_gated(void **state) {
  (void)state;
  static const int64_t chunks[] = {1, 2, 4};
  for (int k = 0; k < 6; k++) {
    const char *differs = NULL;
    struct kwm_layout alone = small_alone();
    const bool same = pair_gated(&alone, 16 << k % 2, 22, chunks[k / 2], k % 3 == 2 ? 0.3 : 0, &differs);
    if (!same) fail_msg("case %d: %s differ", k, differs != NULL ? differs : kwm_error_message());
  }
}

/* Exact and sampled, adjoint and stage, categorical and Gaussian, plain and framed. */
static void test_dense(void **state) {
  (void)state;
  for (int k = 0; k < 32; k++) {
    const struct net_shape shape = {.n_layers = 1 + k / 16 * 2,
                                    .widths = {8, 5, 6},
                                    .readouts = k / 8 % 2,
                                    .noise_variance = k / 4 % 2 == 1 ? 0.2 : 0,
                                    .evidence = k / 2 % 2 == 1 ? KWM_EVIDENCE_SAMPLED : KWM_EVIDENCE_EXACT,
                                    .batch = 21,
                                    .chunks = 4,
                                    .dropout = k / 2 % 3 == 1 ? 0.3 : 0};
    const char *differs = NULL;
    struct kwm_layout alone = small_alone();
    const bool same = pair_dense(&alone, &shape, k % 2, &differs);
    if (!same) fail_msg("case %d: %s differ", k, differs != NULL ? differs : kwm_error_message());
  }
}

/* Replicas of a batch work on their own chunks, at their own places of what is drawn. */
static void test_replica(void **state) {
  (void)state;
  for (int replica = 0; replica < 2; replica++) {
    const struct net_shape shape = {
        .n_layers = 2, .widths = {8, 5}, .evidence = KWM_EVIDENCE_SAMPLED, .batch = 30, .chunks = 4};
    const char *differs = NULL;
    struct kwm_layout layout = small_alone();
    struct net net;
    struct pair pair;
    layout.replicas = 2, layout.replica = replica;
    net_init(&net, &layout, &shape);
    const struct kwm_pipe_spec spec = {.batch = 30, .chunks = 4, .evidence = shape.evidence, .seed = NET_SEED};
    assert_true(pair_init(&pair, net.pipe, &net.layout, &net.model, &net.stages, &net.params, &spec));
    const struct kwm_batch batch = {.images = &net.data->images, .order = net.order, .n = 29, .step = 3};
    const bool same = pair_linearise(&pair, &batch) && pair_surprisal(&pair, &batch);
    differs = pair.differs;
    pair_fini(&pair);
    net_fini(&net);
    if (!same) fail_msg("replica %d: %s differ", replica, differs);
  }
}

/* Samples that came ahead are those of their step, whatever becomes of the host's copy; another step's are gathered. */
static void test_ahead(void **state) {
  (void)state;
  const struct net_shape shape = {.n_layers = 2, .widths = {8, 5}, .batch = 20, .chunks = 2, .dropout = 0.3};
  const struct kwm_layout alone = small_alone();
  struct net net;
  struct pair pair;
  net_init(&net, &alone, &shape);
  const struct kwm_pipe_spec spec = {.batch = 20, .chunks = 2, .seed = NET_SEED, .dropout = 0.3};
  struct small_images *const kept = small_images_new(), *const given = small_images_new();
  assert_true(pair_init(&pair, net.pipe, &net.layout, &net.model, &net.stages, &net.params, &spec));
  bool same = true;
  for (uint64_t step = 0; step < 4; step++) {
    struct kwm_lin lin, there, fetched;
    const struct kwm_batch here = {.images = &kept->images, .order = net.order + step, .n = 19, .step = step};
    struct kwm_batch next = {.images = &given->images, .order = net.order + step + 1, .n = 19, .step = step + 1};
    struct kwm_batch now = here;
    now.images = &given->images;
    memcpy(given->pixels, kept->pixels, sizeof kept->pixels);
    if (step % 3 != 0) memset(given->pixels, 77, sizeof given->pixels); /* steps 1 and 2 came ahead */
    kwm_pipe_linearise(pair.host, &pair.means, &here, &lin);
    kwm_pipe_linearise(pair.there, &pair.sent, &now, &there);
    memcpy(given->pixels, kept->pixels, sizeof kept->pixels);
    if (step < 2) kwm_pipe_ahead(pair.there, &next);
    assert_ok(kwm_lin_fetch(&pair.mirror, &there, &fetched));
    for (int g = 0; g < lin.n_parts; g++) same = same && same_jac(&pair, &fetched.jac[g], &lin.jac[g]);
    memset(given->pixels, 99, sizeof given->pixels);
    double a[KWM_CHUNKS_MAX], b[KWM_CHUNKS_MAX];
    kwm_pipe_surprisal(pair.host, &pair.means, &here, a);
    kwm_pipe_surprisal(pair.there, &pair.sent, &now, b);
    same = same && same_surprisals(&pair, b, a);
  }
  const char *const differs = pair.differs;
  pair_fini(&pair);
  net_fini(&net);
  free(kept), free(given);
  if (!same) fail_msg("%s differ", differs);
}

/* The facts are there once they are asked for; a NaN in the means is seen in them, as on the host. */
static void test_not_a_number(void **state) {
  (void)state;
  const struct kwm_layout alone = small_alone();
  struct small small;
  struct pair pair;
  struct kwm_lin lin;
  small_init(&small, &alone, 16, 8, 2);
  const struct kwm_pipe_spec spec = {.batch = 8, .chunks = 2, .evidence = KWM_EVIDENCE_EXACT};
  assert_true(pair_init(&pair, small.pipe, &small.layout, &small.model, &small.stages, &small.params, &spec));
  const struct kwm_batch batch = {.images = &small.data->images, .order = small.order, .n = 8};
  kwm_pipe_linearise(pair.there, &pair.sent, &batch, &lin);
  assert_true(isfinite(kwm_lin_innovation(&lin).surprisal));
  small.params.mean[KWM_GROUP_HIDDEN][2] = NAN;
  kwm_device_put(test_device, pair.sent.at[KWM_GROUP_HIDDEN], small.params.mean[KWM_GROUP_HIDDEN], 3 * sizeof(float));
  kwm_pipe_linearise(pair.there, &pair.sent, &batch, &lin);
  assert_true(isnan(kwm_lin_innovation(&lin).surprisal));
  pair_fini(&pair);
  small_fini(&small);
}

/* Nothing is left on the host, and what a device cannot do is refused. */
static void test_made(void **state) {
  (void)state;
  const struct net_shape shape = {.n_layers = 2, .widths = {8, 5}, .batch = 20, .chunks = 2};
  const struct kwm_layout alone = small_alone();
  struct net net;
  net_init(&net, &alone, &shape);
  struct kwm_pipe_spec spec = {.batch = 20, .chunks = 2, .evidence = KWM_EVIDENCE_EXACT, .device = test_device};
  kwm_pipe *pipe = NULL;
  const size_t before = kwm_mem_bytes();
  assert_ok(kwm_pipe_create(&pipe, &net.layout, &net.model, &net.stages, &spec));
  kwm_pipe_destroy(pipe);
  assert_int_equal(kwm_mem_bytes(), before);
  spec.evidence = KWM_EVIDENCE_OUTPUTS;
  assert_int_equal(kwm_pipe_create(&pipe, &net.layout, &net.model, &net.stages, &spec), KWM_ERR_USAGE);
  assert_int_equal(kwm_mem_bytes(), before);
  net_fini(&net);
}

/* A host's linearisation needs no bringing. */
static void test_fetched_from_host(void **state) {
  (void)state;
  const struct kwm_layout alone = small_alone();
  struct small small;
  struct kwm_lin_mirror mirror = {0};
  struct kwm_lin lin, fetched;
  double surprisal[KWM_CHUNKS_MAX];
  small_init(&small, &alone, 16, 8, 2);
  small_linearise(&small, 0, 8, &lin);
  assert_ok(kwm_lin_fetch(&mirror, &lin, &fetched));
  assert_memory_equal(&lin, &fetched, sizeof lin);
  const struct kwm_innovation innovation = kwm_lin_innovation(&lin);
  assert_memory_equal(&innovation, &lin.innovation, sizeof innovation);
  kwm_lin_surprisals(&lin, surprisal);
  assert_memory_equal(surprisal, lin.surprisal, 2 * sizeof *surprisal);
  kwm_lin_mirror_fini(&mirror);
  small_fini(&small);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_gated),
    cmocka_unit_test(test_dense),
    cmocka_unit_test(test_replica),
    cmocka_unit_test(test_ahead),
    cmocka_unit_test(test_not_a_number),
    cmocka_unit_test(test_made),
    cmocka_unit_test(test_fetched_from_host),
};
PIPE_TEST_MAIN(tests)
