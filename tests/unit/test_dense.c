/* Jacobian rows, scores and outputs of the dense model, group by group, against central differences of the same model
   in double precision.

   The differences are good to 1e-9 (rounding 1e-16 / 1e-5, the logits being linear); what is compared is single
   precision through at most four matrix products. */
#include "dense_model.h"

enum { BATCH = 5, CHUNKS = 2 };
static const double SINGLE = 1e-5;

static struct net_shape shape_of(int n_layers, enum kwm_evidence evidence) {
  return (struct net_shape){
      .n_layers = n_layers, .widths = {8, 5, 6}, .evidence = evidence, .batch = BATCH, .chunks = CHUNKS};
}

struct bench {
  struct net net;
  struct net_reference reference;
  struct kwm_lin lin;
  enum kwm_evidence evidence;
};

/* Linearised at the first samples. */
static void bench_init(struct bench *bench, const struct net_shape *shape) {
  const struct kwm_layout alone = small_alone();
  net_init(&bench->net, &alone, shape);
  assert_true(bench->net.bytes_right);
  bench->evidence = shape->evidence;
  bench->net.step = 4;
  net_linearise(&bench->net, 0, BATCH, &bench->lin);
  assert_int_equal(bench->lin.n_parts, bench->net.model.n_groups);
  assert_int_equal(bench->lin.batch, BATCH);
  bench->reference = net_reference(&bench->net);
}

static void bench_fini(struct bench *bench) {
  net_reference_drop(&bench->reference);
  net_fini(&bench->net);
}

/* ---- rows and scores */

/* H (classes, n) <- L⁻¹ D of one sample at its own logits. */
static void whiten(double R, const double *logits, int64_t n, const double *D, double *H) {
  double p[SMALL_CLASSES];
  ref_softmax(SMALL_CLASSES, logits, p);
  for (int64_t k = 0; k < n; k++) {
    double mean = 0;
    for (int c = 0; c < SMALL_CLASSES; c++) mean += p[c] * D[c * n + k];
    for (int c = 0; c < SMALL_CLASSES; c++)
      H[c * n + k] = R > 0 ? D[c * n + k] / sqrt(R) : sqrt(p[c]) * (D[c * n + k] - mean);
  }
}

/* H (1, n) <- hᵀD for the drawn score h (classes). */
static void draw(const float *h, int64_t n, const double *D, double *H) {
  for (int64_t k = 0; k < n; k++) {
    H[k] = 0;
    for (int c = 0; c < SMALL_CLASSES; c++) H[k] += (double)h[c] * D[c * n + k];
  }
}

/* The whitened innovation of sample i. */
static void check_innovation(const struct bench *bench, const float *e, int64_t i, const double *logits) {
  const double R = bench->net.model.noise_variance;
  double p[SMALL_CLASSES], wanted[SMALL_CLASSES];
  ref_softmax(SMALL_CLASSES, logits, p);
  for (int c = 0; c < SMALL_CLASSES; c++) {
    const double y = c == net_label(&bench->net, i);
    wanted[c] = R > 0 ? (y - logits[c]) / sqrt(R) : (y - p[c]) / sqrt(p[c]);
  }
  assert_below(dense_error_f32(SMALL_CLASSES, e + i * SMALL_CLASSES, wanted), SINGLE);
}

static void check_rows(const struct bench *bench, int g) {
  const struct kwm_jac *const jac = &bench->lin.jac[g];
  const struct net *const net = &bench->net;
  const int observed = net_observed(&net->model, g);
  const int64_t n = net->model.groups[g].params, rows = jac->m * n;
  double *const found = jac_rows(jac), *const H = dense_new(SMALL_CLASSES * n), logits[SMALL_CLASSES];
  assert_int_equal(jac->m, bench->evidence == KWM_EVIDENCE_SAMPLED ? 1 : SMALL_CLASSES);
  assert_true((jac->e != NULL) == (bench->evidence == KWM_EVIDENCE_EXACT));
  assert_true((jac->g != NULL) == (bench->evidence == KWM_EVIDENCE_SAMPLED) && jac->aU == NULL);
  for (int64_t i = 0; i < BATCH; i++) {
    double *const D = net_differences(&bench->reference, observed, g, net_pixels(net, i));
    net_logits(&bench->reference, observed, net_pixels(net, i), logits);
    switch (bench->evidence) {
    case KWM_EVIDENCE_EXACT: whiten(net->model.noise_variance, logits, n, D, H); break;
    case KWM_EVIDENCE_SAMPLED: draw(bench->lin.jac[observed].J + i * SMALL_CLASSES, n, D, H); break;
    case KWM_EVIDENCE_OUTPUTS: memcpy(H, D, (size_t)rows * sizeof *H); break;
    }
    assert_below(dense_error(rows, found + i * rows, H), SINGLE);
    if (jac->e != NULL) check_innovation(bench, jac->e, i, logits);
    free(D);
  }
  free(found), free(H);
}

static double log_likelihood(const struct bench *bench, int observed) {
  double sum = 0;
  for (int64_t i = 0; i < BATCH; i++)
    sum += net_log_likelihood(&bench->reference, observed, net_pixels(&bench->net, i), net_label(&bench->net, i));
  return sum;
}

static void check_score(const struct bench *bench, int g) {
  enum { WIDEST = 64 };
  const int observed = net_observed(&bench->net.model, g);
  const int64_t n = bench->net.model.groups[g].params;
  double *const W = bench->reference.W[g], *const wanted = dense_new(n), step = 1e-5;
  float *const found = calloc((size_t)n, sizeof *found), scratch[BATCH * WIDEST];
  for (int64_t c = 0; c < bench->lin.chunks; c++) {
    const int64_t first = bench->lin.bounds[c];
    const struct kwm_jac part = kwm_jac_part(&bench->lin.jac[g], first, bench->lin.bounds[c + 1] - first);
    kwm_jac_score(&part, found, scratch);
  }
  for (int64_t k = 0; k < n; k++) {
    const double keep = W[k];
    W[k] = keep + step;
    const double above = log_likelihood(bench, observed);
    W[k] = keep - step;
    wanted[k] = (above - log_likelihood(bench, observed)) / (2 * step);
    W[k] = keep;
  }
  assert_below(dense_error_f32(n, found, wanted), SINGLE);
  free(wanted), free(found);
}

/* Every group of models with 1 to 3 hidden layers, observed as softmax and as Gaussian. */
static void check_all(enum kwm_evidence evidence, bool readouts) {
  for (int n_layers = 1; n_layers <= NET_LAYERS_MAX; n_layers++)
    for (int gaussian = 0; gaussian < 2; gaussian++) {
      struct net_shape shape = shape_of(n_layers, evidence);
      struct bench bench;
      shape.readouts = readouts;
      shape.noise_variance = gaussian ? 0.3 : 0;
      bench_init(&bench, &shape);
      assert_int_equal(bench.net.model.n_groups, readouts ? 2 * n_layers : n_layers + 1);
      assert_close(-bench.lin.innovation.surprisal, log_likelihood(&bench, bench.net.model.n_groups - 1), 1e-5, 0);
      for (int g = 0; g < bench.net.model.n_groups; g++) {
        check_rows(&bench, g);
        if (evidence != KWM_EVIDENCE_OUTPUTS) check_score(&bench, g);
      }
      bench_fini(&bench);
    }
}

static void test_exact(void **state) {
  (void)state;
  check_all(KWM_EVIDENCE_EXACT, false);
}

static void test_sampled(void **state) {
  (void)state;
  check_all(KWM_EVIDENCE_SAMPLED, false);
}

static void test_stage(void **state) {
  (void)state;
  check_all(KWM_EVIDENCE_EXACT, true);
  check_all(KWM_EVIDENCE_SAMPLED, true);
}

/* Rows are those of the plain outputs, which are there to be read. */
static void test_outputs(void **state) {
  (void)state;
  check_all(KWM_EVIDENCE_OUTPUTS, false);
  const struct net_shape shape = shape_of(2, KWM_EVIDENCE_OUTPUTS);
  struct bench bench;
  bench_init(&bench, &shape);
  const float *const outputs = kwm_pipe_outputs(bench.net.pipe);
  for (int64_t i = 0; i < BATCH; i++) {
    double logits[SMALL_CLASSES];
    net_logits(&bench.reference, bench.net.model.n_groups - 1, net_pixels(&bench.net, i), logits);
    assert_below(dense_error_f32(SMALL_CLASSES, outputs + i * SMALL_CLASSES, logits), SINGLE);
  }
  bench_fini(&bench);
}

/* ---- what is drawn */

/* The class that a uniform number of (seed, step, i) draws for sample i. */
static int wanted_class(const struct bench *bench, uint64_t step, int64_t i) {
  double logits[SMALL_CLASSES], p[SMALL_CLASSES], sum = 0;
  int c = 0;
  net_logits(&bench->reference, bench->net.model.n_groups - 1, net_pixels(&bench->net, i), logits);
  ref_softmax(SMALL_CLASSES, logits, p);
  const double uniform = kwm_rng_uniform(NET_SEED, KWM_RNG_LABELS, step, (uint64_t)i);
  while (c + 1 < SMALL_CLASSES && uniform >= (sum += p[c])) c++;
  return c;
}

/* The class that was drawn for each sample: h is positive there alone. */
static void drawn(const struct net_shape *shape, uint64_t step, int *classes) {
  struct bench bench;
  bench_init(&bench, shape);
  bench.net.step = step;
  net_linearise(&bench.net, 0, BATCH, &bench.lin);
  const float *const h = bench.lin.jac[bench.net.model.n_groups - 1].J;
  for (int64_t i = 0; i < BATCH; i++) {
    int positive = 0;
    for (int c = 0; c < SMALL_CLASSES; c++)
      if (h[i * SMALL_CLASSES + c] > 0) classes[i] = c, positive++;
    assert_int_equal(positive, 1);
    assert_int_equal(classes[i], wanted_class(&bench, step, i));
  }
  bench_fini(&bench);
}

/* Keyed by seed, step and place in the mini-batch: chunks change nothing, another step draws anew. */
static void test_draws(void **state) {
  (void)state;
  int first[BATCH], again[BATCH], differing = 0;
  struct net_shape shape = shape_of(2, KWM_EVIDENCE_SAMPLED);
  drawn(&shape, 9, first);
  for (shape.chunks = 1; shape.chunks <= 4; shape.chunks++) {
    drawn(&shape, 9, again);
    assert_memory_equal(first, again, sizeof first);
  }
  shape.chunks = CHUNKS;
  for (uint64_t step = 10; step < 20; step++) {
    drawn(&shape, step, again);
    differing += memcmp(first, again, sizeof first) != 0;
  }
  assert_true(differing >= 8);
}

/* ---- read-outs of their own */

static bool same_rows(const struct kwm_jac *jac, const float *before) {
  return memcmp(jac->J, before, (size_t)(jac->n * jac->m * jac->d_o) * sizeof *before) == 0;
}

static float *copy_rows(const struct kwm_jac *jac) {
  const size_t bytes = (size_t)(jac->n * jac->m * jac->d_o) * sizeof(float);
  float *const copy = malloc(bytes);
  assert_non_null(copy);
  return memcpy(copy, jac->J, bytes);
}

/* Nothing comes back from the layers behind a read-out: whichever group's weights change, rows change only in front of
   it as far as its own read-out reaches, and behind it. */
static void test_apart(void **state) {
  (void)state;
  enum { LAYER1, READOUT1, LAYER2, READOUT2, LAYER3, OUTPUT, GROUPS };
  static const bool changes[GROUPS][GROUPS] = {
      [READOUT1] = {[LAYER1] = true, [READOUT1] = true},
      [READOUT2] = {[LAYER2] = true, [READOUT2] = true},
      [LAYER3] = {[LAYER3] = true, [OUTPUT] = true},
      [OUTPUT] = {[LAYER3] = true, [OUTPUT] = true},
  };
  static const int changed[] = {READOUT1, READOUT2, LAYER3, OUTPUT};
  for (size_t k = 0; k < sizeof changed / sizeof changed[0]; k++) {
    struct net_shape shape = shape_of(3, KWM_EVIDENCE_EXACT);
    struct bench bench;
    float *before[GROUPS];
    shape.readouts = true;
    bench_init(&bench, &shape);
    assert_int_equal(bench.net.model.n_groups, GROUPS);
    for (int g = 0; g < GROUPS; g++) before[g] = copy_rows(&bench.lin.jac[g]);
    float *const W = bench.net.params.mean[changed[k]];
    for (int64_t j = 0; j < bench.net.model.groups[changed[k]].params; j++) W[j] *= 1.5f;
    net_linearise(&bench.net, 0, BATCH, &bench.lin);
    for (int g = 0; g < GROUPS; g++) {
      assert_int_equal(same_rows(&bench.lin.jac[g], before[g]), !changes[changed[k]][g]);
      free(before[g]);
    }
    bench_fini(&bench);
  }
}

/* Names say what a group is; a layer begins alike with and without read-outs, and no two read-outs alike. */
static void test_groups(void **state) {
  (void)state;
  static const char *const names[] = {"layer1", "readout1", "layer2", "readout2", "layer3", "output"};
  static const char *const plain_names[] = {"layer1", "layer2", "layer3", "output"};
  struct net_shape shape = shape_of(3, KWM_EVIDENCE_EXACT);
  const struct kwm_model plain = net_model(&shape);
  shape.readouts = true;
  const struct kwm_model model = net_model(&shape);
  float a[512], b[512];
  for (int g = 0; g < 4; g++) assert_string_equal(plain.groups[g].name, plain_names[g]);
  for (int g = 0; g < 6; g++) assert_string_equal(model.groups[g].name, names[g]);
  assert_int_equal(kwm_model_parameters(&model) - kwm_model_parameters(&plain), SMALL_CLASSES * (9 + 6));
  for (int l = 0; l <= 3; l++) {
    const int g = kwm_model_layer(&model, l), p = kwm_model_layer(&plain, l);
    assert_string_equal(model.groups[g].name, plain.groups[p].name);
    kwm_model_initial_mean(&model, g, 3, 0, 1, a);
    kwm_model_initial_mean(&plain, p, 3, 0, 1, b);
    assert_memory_equal(a, b, (size_t)plain.groups[p].params * sizeof a[0]);
    assert_true(a[plain.groups[p].d_i - 1] == 0 && a[0] != 0);
  }
  kwm_model_initial_mean(&model, 1, 3, 0, 1, a);
  kwm_model_initial_mean(&model, 3, 3, 0, 1, b);
  assert_true(fabsf(a[0] / b[0] - sqrtf(5.0f / 8)) > 1e-3f);
}

/* ---- batches */

/* A short batch, with chunks that get no sample at all. */
static void test_short(void **state) {
  (void)state;
  struct net_shape shape = shape_of(2, KWM_EVIDENCE_SAMPLED);
  struct bench bench;
  shape.chunks = 4;
  bench_init(&bench, &shape);
  for (int64_t n = 1; n <= 3; n++) {
    struct kwm_lin lin;
    net_linearise(&bench.net, 0, n, &lin);
    assert_true(lin.batch == n && lin.bounds[lin.chunks] == n && lin.innovation.samples == (double)n);
    double wanted = 0;
    for (int64_t i = 0; i < n; i++)
      wanted -= net_log_likelihood(&bench.reference, 2, net_pixels(&bench.net, i), net_label(&bench.net, i));
    assert_close(lin.innovation.surprisal, wanted, 1e-5, 0);
  }
  bench_fini(&bench);
}

static void test_predict(void **state) {
  (void)state;
  for (int readouts = 0; readouts < 2; readouts++) {
    struct net_shape shape = shape_of(3, KWM_EVIDENCE_EXACT);
    struct bench bench;
    struct kwm_innovation sums;
    double surprisal = 0, correct = 0;
    shape.readouts = readouts;
    bench_init(&bench, &shape);
    for (int64_t i = 0; i < SMALL_IMAGES; i++) {
      double logits[SMALL_CLASSES];
      const int observed = bench.net.model.n_groups - 1, label = net_label(&bench.net, i);
      bool best = true;
      net_logits(&bench.reference, observed, net_pixels(&bench.net, i), logits);
      for (int c = 0; c < SMALL_CLASSES; c++) best = best && logits[c] <= logits[label];
      surprisal -= net_log_likelihood(&bench.reference, observed, net_pixels(&bench.net, i), label);
      correct += best;
    }
    const struct kwm_means means = net_means(&bench.net);
    kwm_pipe_predict(bench.net.pipe, &means, &bench.net.data->images, &sums);
    assert_true(sums.samples == SMALL_IMAGES && sums.correct == correct);
    assert_close(sums.surprisal, surprisal, 1e-6, 0);
    bench_fini(&bench);
  }
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_exact),   cmocka_unit_test(test_sampled), cmocka_unit_test(test_stage),
    cmocka_unit_test(test_outputs), cmocka_unit_test(test_draws),   cmocka_unit_test(test_apart),
    cmocka_unit_test(test_groups),  cmocka_unit_test(test_short),   cmocka_unit_test(test_predict),
};
KWM_TEST_MAIN(tests)
