/* Predictive distributions against brute force: many independent draws by another root of C, and closed forms; their
   sums and scores against sums by hand; the outputs' covariance of a whole filter against dense rows and covariances.
 */
#include "cov_case.h"
#include "dense_model.h"

#include "kwm/backend.h"
#include "kwm/tasks.h"

#include "../../src/app/outlook.h"

enum { M = 3, ROOT = 2, MANY = 200000, KEYS = 3000, SEED = 5 };

static const float z3[M] = {1.5f, 0.2f, -1};
/* C = B Bᵀ of rank 2, so that its factor needs help. */
static const double B[M * ROOT] = {1.2, 0.3, -0.7, 1.5, 0.1, -0.9};

static void gram(double C[M * M]) {
  for (int r = 0; r < M; r++)
    for (int s = 0; s < M; s++) C[r * M + s] = B[r * ROOT] * B[s * ROOT] + B[r * ROOT + 1] * B[s * ROOT + 1];
}

/* p <- softmax(z); its entropy. */
static double simple_softmax(int64_t m, const double *z, double *p) {
  double total = 0, entropy = 0;
  for (int64_t k = 0; k < m; k++) total += p[k] = exp(z[k]);
  for (int64_t k = 0; k < m; k++) entropy -= (p[k] / total) * log(p[k] / total), p[k] /= total;
  return entropy;
}

/* Mean probabilities and mean entropy over z + B ξ. */
static double brute_force(double p[M]) {
  double certain = 0;
  for (int k = 0; k < M; k++) p[k] = 0;
  for (int64_t d = 0; d < MANY; d++) {
    const double xi[ROOT] = {test_normal(90, ROOT * d), test_normal(90, ROOT * d + 1)};
    double at[M], each[M];
    for (int r = 0; r < M; r++) at[r] = (double)z3[r] + B[r * ROOT] * xi[0] + B[r * ROOT + 1] * xi[1];
    certain += simple_softmax(M, at, each) / MANY;
    for (int k = 0; k < M; k++) p[k] += each[k] / MANY;
  }
  return certain;
}

/* One key's draws are few: the mean over many keys is what brute force gives. */
static void test_posterior(void **state) {
  (void)state;
  double C[M * M], wanted[M], found[M] = {0}, certain = 0;
  gram(C);
  const double wanted_certain = brute_force(wanted);
  for (uint64_t key = 0; key < KEYS; key++) {
    struct kwm_outlook outlook;
    kwm_outlook(&outlook, M, z3, C, SEED, key);
    double total = 0;
    for (int k = 0; k < M; k++) total += outlook.p[KWM_OUTLOOK_POSTERIOR][k];
    assert_close(total, 1, 1e-12, 0);
    for (int k = 0; k < M; k++) found[k] += outlook.p[KWM_OUTLOOK_POSTERIOR][k] / KEYS;
    certain += (outlook.entropy[KWM_OUTLOOK_POSTERIOR] - outlook.information) / KEYS;
    assert_true(outlook.information > 0);
  }
  for (int k = 0; k < M; k++) assert_close(found[k], wanted[k], 0, 4e-3);
  assert_close(certain, wanted_certain, 0, 4e-3);
  double plain[M];
  const double mean[M] = {(double)z3[0], (double)z3[1], (double)z3[2]};
  simple_softmax(M, mean, plain);
  assert_true(fabs(plain[0] - wanted[0]) > 0.05);
}

static void test_keys(void **state) {
  (void)state;
  double C[M * M];
  struct kwm_outlook a, b;
  gram(C);
  kwm_outlook(&a, M, z3, C, SEED, 7), kwm_outlook(&b, M, z3, C, SEED, 7);
  assert_memory_equal(a.p[KWM_OUTLOOK_POSTERIOR], b.p[KWM_OUTLOOK_POSTERIOR], M * sizeof(double));
  kwm_outlook(&b, M, z3, C, SEED, 8);
  assert_true(a.p[KWM_OUTLOOK_POSTERIOR][0] != b.p[KWM_OUTLOOK_POSTERIOR][0]);
  kwm_outlook(&b, M, z3, C, SEED + 1, 7);
  assert_true(a.p[KWM_OUTLOOK_POSTERIOR][0] != b.p[KWM_OUTLOOK_POSTERIOR][0]);
}

/* Nothing unknown: all forms are the plug-in. Only the lower triangle of C is read. */
static void test_certain(void **state) {
  (void)state;
  const double mean[M] = {(double)z3[0], (double)z3[1], (double)z3[2]}, none[M * M] = {0, 9, 9, 0, 0, 9, 0, 0, 0};
  double plain[M];
  struct kwm_outlook outlook;
  const double entropy = simple_softmax(M, mean, plain);
  kwm_outlook(&outlook, M, z3, none, SEED, 1);
  for (int f = 0; f < KWM_OUTLOOK_FORMS; f++) {
    for (int k = 0; k < M; k++) assert_close(outlook.p[f][k], plain[k], 1e-9, 0);
    assert_close(outlook.entropy[f], entropy, 1e-9, 0);
  }
  assert_close(outlook.information, 0, 0, 1e-9);
}

static void test_mackay(void **state) {
  (void)state;
  static const float z[2] = {1.3f, -0.4f};
  static const double C[4] = {2, 0.5, 0.5, 3};
  struct kwm_outlook outlook;
  kwm_outlook(&outlook, 2, z, C, SEED, 1);
  const double pi = acos(-1), gap = 1.3 / sqrt(1 + pi / 4) + 0.4 / sqrt(1 + 3 * pi / 8);
  assert_close(outlook.p[KWM_OUTLOOK_MACKAY][0], 1 / (1 + exp(-gap)), 1e-7, 0);
  assert_close(outlook.p[KWM_OUTLOOK_PLUGIN][0], 1 / (1 + exp(-1.7)), 1e-7, 0);
}

/* Logits whose exponentials no number holds. */
static void test_extreme(void **state) {
  (void)state;
  static const float z[2] = {-3000, 900};
  static const double C[4] = {1, 0, 0, 1};
  struct kwm_outlook outlook;
  struct kwm_outlook_sums sums = {0};
  kwm_outlook(&outlook, 2, z, C, SEED, 1);
  for (int f = 0; f < KWM_OUTLOOK_FORMS; f++) {
    assert_true(outlook.p[f][1] == 1 && outlook.p[f][0] == 0);
    assert_true(outlook.entropy[f] == 0);
  }
  kwm_outlook_add(&sums, 2, &outlook, 0);
  assert_true(isfinite(sums.form[KWM_OUTLOOK_POSTERIOR].surprisal) && sums.form[KWM_OUTLOOK_PLUGIN].surprisal > 700);
}

/* Without a covariance, or with none that is one, only the plug-in says anything. */
static void test_no_covariance(void **state) {
  (void)state;
  static const double bad[4][4] = {{NAN, 0, 0, 1}, {INFINITY, 0, 0, 1}, {-1, 0, 0, 0.5}, {1, 2, 2, 1}};
  static const float z[2] = {1, 0};
  for (int c = 0; c < 5; c++) {
    struct kwm_outlook outlook;
    struct kwm_outlook_sums sums = {0};
    kwm_outlook(&outlook, 2, z, c == 4 ? NULL : bad[c], SEED, 1);
    assert_close(outlook.p[KWM_OUTLOOK_PLUGIN][0], 1 / (1 + exp(-1.0)), 1e-12, 0);
    assert_true(isnan(outlook.information));
    assert_true(isnan(kwm_outlook_score(&outlook, 2, KWM_OUTLOOK_INFORMATION)));
    assert_true(isnan(kwm_outlook_score(&outlook, 2, KWM_OUTLOOK_ENTROPY_POSTERIOR)));
    kwm_outlook_add(&sums, 2, &outlook, 0);
    assert_true(sums.form[KWM_OUTLOOK_PLUGIN].correct == 1);
    for (int f = KWM_OUTLOOK_POSTERIOR; f <= KWM_OUTLOOK_MACKAY; f++) {
      assert_true(isnan(outlook.p[f][0]) && isnan(outlook.entropy[f]));
      assert_true(isnan(sums.form[f].correct) && isnan(sums.form[f].surprisal) && isnan(sums.form[f].entropy));
      assert_true(isnan(kwm_calibration_error(&sums.form[f].calibration)));
    }
  }
}

static void test_sums(void **state) {
  (void)state;
  static const float z[3][2] = {{2, 0}, {0, 1}, {3, 0}};
  static const int labels[3] = {0, 0, 1};
  struct kwm_outlook_sums sums = {0};
  const struct kwm_outlook_form_sums *const plugin = &sums.form[KWM_OUTLOOK_PLUGIN];
  double surprisal = 0, entropy = 0;
  for (int i = 0; i < 3; i++) {
    struct kwm_outlook outlook;
    double p[2];
    const double mean[2] = {(double)z[i][0], (double)z[i][1]};
    entropy += simple_softmax(2, mean, p);
    surprisal -= log(p[labels[i]]);
    kwm_outlook(&outlook, 2, z[i], NULL, SEED, 1);
    kwm_outlook_add(&sums, 2, &outlook, labels[i]);
  }
  assert_true(sums.samples == 3 && plugin->correct == 1);
  assert_close(plugin->surprisal, surprisal, 1e-12, 0);
  assert_close(plugin->entropy, entropy, 1e-12, 0);
  /* Three bins: one right, two wrong. */
  const double right = 1 / (1 + exp(-2.0)), first = 1 / (1 + exp(-1.0)), second = 1 / (1 + exp(-3.0));
  assert_close(kwm_calibration_error(&plugin->calibration), (1 - right + first + second) / 3, 1e-12, 0);
}

/* A population of flat or uncertain outputs ranks above one of sharp ones in every score. */
static void test_scores(void **state) {
  (void)state;
  enum { N = 20 };
  double known[KWM_OUTLOOK_SCORES][N], strange[KWM_OUTLOOK_SCORES][N], scratch[2 * N];
  for (int i = 0; i < N; i++) {
    struct kwm_outlook outlook;
    const float sharp[2] = {4 + 0.1f * (float)i, 0}, flat[2] = {0.1f * (float)i, 0};
    const double small[4] = {0.01, 0, 0, 0.01}, large[4] = {9, 0, 0, 9};
    kwm_outlook(&outlook, 2, sharp, small, SEED, (uint64_t)i);
    for (int s = 0; s < KWM_OUTLOOK_SCORES; s++)
      known[s][i] = kwm_outlook_score(&outlook, 2, (enum kwm_outlook_score)s);
    kwm_outlook(&outlook, 2, flat, large, SEED, (uint64_t)(N + i));
    for (int s = 0; s < KWM_OUTLOOK_SCORES; s++)
      strange[s][i] = kwm_outlook_score(&outlook, 2, (enum kwm_outlook_score)s);
  }
  for (int s = 0; s < KWM_OUTLOOK_SCORES; s++) {
    assert_true(kwm_auroc(N, known[s], N, strange[s], scratch) == 1);
    assert_true(kwm_auroc(N, strange[s], N, known[s], scratch) == 0);
  }
}

/* ---- the covariance of a filter's outputs */

enum { SAMPLES = 4, CLASSES_SQUARED = SMALL_CLASSES * SMALL_CLASSES };

struct bench {
  struct net net;
  struct kwm_filter filter;
  struct kwm_lin lin;
};

/* Some steps old. structure: of the output; the hidden layers are kron. */
static void bench_init(struct bench *bench, const char *structure) {
  const struct kwm_layout alone = small_alone();
  const struct net_shape shape = {
      .n_layers = 2, .widths = {6, 4}, .evidence = KWM_EVIDENCE_EXACT, .batch = SAMPLES, .chunks = 2};
  const struct kwm_filter_spec spec = {.gain_factor = 1, .forgetting = 1, .batch = SAMPLES, .chunks = 2};
  kwm_cov cov[KWM_GROUPS_MAX];
  memset(bench, 0, sizeof *bench);
  net_init(&bench->net, &alone, &shape);
  const int n_groups = bench->net.model.n_groups;
  for (int g = 0; g < n_groups; g++) {
    const struct kwm_group *const group = &bench->net.model.groups[g];
    const struct kwm_cov_spec cov_spec = {.name = group->name,
                                          .count = 1,
                                          .total = 1,
                                          .params = group->params,
                                          .d_o = group->d_o,
                                          .d_i = group->d_i,
                                          .prior_precision = 20,
                                          .forgetting = 1,
                                          .refresh = 2,
                                          .rank = 3,
                                          .n_max = SAMPLES,
                                          .m = SMALL_CLASSES};
    assert_ok(kwm_cov_create(&cov[g], kwm_cov_find(g + 1 < n_groups ? "kron" : structure), &cov_spec));
  }
  assert_ok(kwm_filter_init(&bench->filter, &bench->net.layout, &spec, n_groups, cov, bench->net.params.mean));
  for (int64_t t = 0; t < 4; t++) {
    struct kwm_step step = {0};
    kwm_filter_predict(&bench->filter);
    net_linearise(&bench->net, t * SAMPLES, SAMPLES, &bench->lin);
    kwm_filter_innovate(&bench->filter, &bench->lin);
    kwm_filter_gain(&bench->filter, &bench->lin, &step);
    kwm_filter_update(&bench->filter, &step);
    assert_int_equal(step.verdict, KWM_STEP_DONE);
  }
}

static void bench_fini(struct bench *bench) {
  kwm_filter_fini(&bench->filter);
  net_fini(&bench->net);
}

/* C (n, m, m) += H P Hᵀ of group g, densely. */
static void add_group(const struct bench *bench, int g, double *C) {
  const struct kwm_jac *const jac = &bench->lin.jac[g];
  const int64_t width = jac_columns(jac), m = jac->m;
  double *const P = dense_new(width * width), *const H = jac_rows(jac);
  assert_true(kwm_cov_covariance(&bench->filter.group[g].cov, P));
  for (int64_t at = 0; at < jac->n * m * m; at++) {
    const double *const left = H + at / m * width, *const right = H + (at / (m * m) * m + at % m) * width;
    for (int64_t k = 0; k < width; k++)
      for (int64_t l = 0; l < width; l++) C[at] += left[k] * P[k * width + l] * right[l];
  }
  free(P), free(H);
}

/* The sum over all groups, whatever C held; then without a group whose jac holds no samples. */
static void test_filter(void **state) {
  (void)state;
  struct bench bench;
  bench_init(&bench, "block");
  for (int without = -1; without < bench.net.model.n_groups; without++) {
    double C[SAMPLES * CLASSES_SQUARED], wanted[SAMPLES * CLASSES_SQUARED] = {0};
    struct kwm_lin lin = bench.lin;
    for (int k = 0; k < SAMPLES * CLASSES_SQUARED; k++) C[k] = 77;
    for (int g = 0; g < bench.net.model.n_groups; g++)
      if (g != without) add_group(&bench, g, wanted);
    if (without >= 0) lin.jac[without].n = 0;
    assert_true(kwm_filter_predictive(&bench.filter, &lin, C));
    assert_below(dense_error(SAMPLES * CLASSES_SQUARED, C, wanted), 1e-5);
  }
  bench_fini(&bench);
}

/* One group without an answer is none for all; not if it is not asked. */
static void test_filter_refuses(void **state) {
  (void)state;
  struct bench bench;
  double C[SAMPLES * CLASSES_SQUARED];
  bench_init(&bench, "lowrank");
  assert_false(kwm_filter_predictive(&bench.filter, &bench.lin, C));
  bench.lin.jac[bench.net.model.n_groups - 1].n = 0;
  assert_true(kwm_filter_predictive(&bench.filter, &bench.lin, C));
  bench_fini(&bench);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_posterior),      cmocka_unit_test(test_keys),    cmocka_unit_test(test_certain),
    cmocka_unit_test(test_mackay),         cmocka_unit_test(test_extreme), cmocka_unit_test(test_no_covariance),
    cmocka_unit_test(test_sums),           cmocka_unit_test(test_scores),  cmocka_unit_test(test_filter),
    cmocka_unit_test(test_filter_refuses),
};
KWM_TEST_MAIN(tests)
