/* A `lowrank` group that is spread over the ranks of a replica, unevenly, some with nothing, is the filter that one
   rank alone would run: every rank also runs that one and compares. And it comes back from a checkpoint on other
   shares. */
#include "grids.h"

#include "../lowrank_case.h"

enum { TOTAL = 9, PARAMS = 3, N = TOTAL * PARAMS, STEPS = 4, ROWS = COV_SAMPLES * COV_OUTPUTS, SETTINGS = 16 };
static const double LAMBDA = 0.95, NOISE = 0.02;

/* All kinds, forms and reals. */
static struct cov_shape shape_of(int setting, bool matrix) {
  const enum kwm_lowrank_kind kind = (enum kwm_lowrank_kind)(setting % 4);
  struct cov_shape shape = lowrank_way(matrix ? lowrank_matrix(kind, 5, 3, 5) : lowrank_units(kind, 5), setting / 4);
  if (!matrix) shape.count = TOTAL, shape.params = PARAMS;
  return shape;
}

/* Blocks [first, first + count) of `total` for this rank: weights 3, 0, 2, 1, 3, ... along the group or against it. */
static void share(const struct kwm_layout *layout, int64_t total, bool backwards, int64_t *first, int64_t *count) {
  static const int64_t weights[4] = {3, 0, 2, 1};
  const int size = group_size(layout), at = backwards ? size - 1 - group_rank(layout) : group_rank(layout);
  int64_t all = 0, before = 0;
  for (int k = 0; k < size; k++) all += weights[k % 4], before += k < at ? weights[k % 4] : 0;
  *first = total * before / all;
  *count = total * (before + weights[at % 4]) / all - *first;
}

/* The group spread over layout, and the same on this rank alone. */
struct pair {
  struct kwm_layout *layout;
  struct cov_shape shape;
  kwm_cov spread, alone;
  float mean[N], mean_alone[N], anchor[N];
};

/* The part of alone's arrays that this rank has of spread's. */
static int64_t offset(const struct pair *pair) {
  return pair->spread.spec.first * pair->spread.spec.params;
}

static int64_t length(const struct pair *pair) {
  return pair->spread.spec.count * pair->spread.spec.params;
}

static struct kwm_cov_spec spread_spec(struct kwm_layout *layout, const struct cov_shape *shape, bool backwards) {
  struct kwm_cov_spec spec = cov_spec_of(shape, LAMBDA, NOISE);
  spec.layout = layout;
  share(layout, spec.total, backwards, &spec.first, &spec.count);
  if (spec.count == 0) spec.prior_variance = NULL;
  return spec;
}

static void pair_init(struct pair *pair, struct kwm_layout *layout, const struct cov_shape *shape) {
  static const double lengths[5] = {5, 3, 2, 1, 0.5};
  const struct kwm_cov_spec spec = spread_spec(layout, shape, false);
  *pair = (struct pair){.layout = layout, .shape = *shape, .alone = cov_new(shape, LAMBDA, NOISE)};
  const size_t before = kwm_mem_bytes();
  const kwm_status status = kwm_cov_create(&pair->spread, &kwm_cov_lowrank, &spec);
  assert_all(status == KWM_OK && kwm_mem_bytes() - before == kwm_cov_bytes(&kwm_cov_lowrank, &spec));
  lowrank_anchor(N, pair->anchor);
  if (shape->kind != KWM_LOWRANK_COVARIANCE) return;
  /* From the prior form A learns nothing. */
  struct cov_file file;
  lowrank_plant(&pair->alone, 0.1, 5, lengths);
  cov_write(&pair->alone, &file);
  assert_ok(kwm_cov_load(&pair->spread, file.ckpt));
  cov_file_drop(&file);
}

static void pair_fini(struct pair *pair) {
  kwm_cov_destroy(&pair->spread), kwm_cov_destroy(&pair->alone);
}

/* This rank's part of the Jacobian whole; without blocks just the numbers of rows. */
static struct jac_case part_of(const struct pair *pair, const struct kwm_jac *whole) {
  const int64_t first = pair->spread.spec.first, count = pair->spread.spec.count;
  struct jac_case part = {.jac = {.shape = whole->shape, .n = whole->n, .m = whole->m}};
  if (count == 0) return part;
  part.jac = *whole;
  if (whole->shape == KWM_JAC_OUTER) return part;
  const int64_t wide = whole->count, J_rows = whole->n * whole->m * 2, S_rows = whole->n * 2 * PARAMS;
  part.J = calloc((size_t)(J_rows * count), sizeof *part.J);
  part.S = calloc((size_t)(S_rows * count), sizeof *part.S);
  for (int64_t k = 0; k < J_rows * count; k++) part.J[k] = whole->J[k / count * wide + first + k % count];
  for (int64_t k = 0; k < S_rows * count; k++) part.S[k] = whole->S[k / count * wide + first + k % count];
  part.jac.count = count, part.jac.J = part.J, part.jac.S = part.S;
  return part;
}

/* Up to apply; S is summed over the group as a filter does it. */
static bool prepare_spread(struct pair *pair, const struct kwm_jac *jac, const float *e, double *kl) {
  double S[ROWS * ROWS] = {0}, w[ROWS];
  if (pair->shape.form == KWM_FORM_INFORMATION)
    return kwm_cov_absorb(&pair->spread, jac, NULL, jac->n, kl + pair->spread.spec.first);
  kwm_cov_project(&pair->spread, jac, S);
  kwm_par_sum_group(pair->layout, ROWS * ROWS, S);
  for (int64_t k = 0; k < ROWS; k++) S[k * ROWS + k] += 1;
  if (isnan(S[0])) return false;
  cov_factor(ROWS, S, e, w);
  return kwm_cov_condition(&pair->spread, jac, S, w);
}

static double error_f32(int64_t n, const float *a, const float *b) {
  double *const wide = dense_new(n);
  for (int64_t k = 0; k < n; k++) wide[k] = (double)b[k];
  const double error = dense_error_f32(n, a, wide);
  free(wide);
  return error;
}

static double close_of(const struct cov_shape *shape) {
  return shape->real == KWM_REAL_DOUBLE ? 1e-10 : 2e-4;
}

/* δ, moved, kl and means of a step against those of one rank. */
static void one_step(struct pair *pair, int64_t step) {
  const double close = close_of(&pair->shape), close_mean = fmax(close, 1e-6);
  const int64_t at = offset(pair), n = length(pair), first = pair->spread.spec.first, count = pair->spread.spec.count;
  struct jac_case whole = cov_jac(&pair->shape, (uint64_t)(1400 + step)), part = part_of(pair, &whole.jac);
  double delta[N], delta_alone[N], moved[TOTAL], moved_alone[TOTAL], kl[TOTAL] = {0};
  struct cov_step alone;
  assert_true(kwm_cov_predict(&pair->alone, step, pair->anchor, pair->mean_alone));
  assert_all(kwm_cov_predict(&pair->spread, step, pair->anchor + at, pair->mean + at));
  assert_all(error_f32(n, pair->mean + at, pair->mean_alone + at) <= close_mean);
  assert_true(cov_prepare(&pair->alone, &whole.jac, &alone));
  assert_all(prepare_spread(pair, &part.jac, whole.e, kl));
  kwm_cov_delta(&pair->alone, delta_alone);
  kwm_cov_delta(&pair->spread, delta + at);
  assert_all(dense_error(n, delta + at, delta_alone + at) <= close);
  kwm_cov_moved(&pair->alone, moved_alone);
  kwm_cov_moved(&pair->spread, moved + first);
  assert_all(dense_error(count, moved + first, moved_alone + first) <= close);
  assert_all(pair->shape.form == KWM_FORM_INNOVATION || dense_error(count, kl + first, alone.kl + first) <= close);
  kwm_cov_apply(&pair->alone, 0.7, pair->mean_alone);
  kwm_cov_apply(&pair->spread, 0.7, pair->mean + at);
  assert_all(error_f32(n, pair->mean + at, pair->mean_alone + at) <= close_mean);
  cov_step_drop(&alone), jac_drop(&whole), free(part.J), free(part.S);
}

/* Health adds up over the group; the spectrum is the same everywhere. */
static void same_view(struct pair *pair) {
  const int64_t values = kwm_cov_spectrum_length(&pair->alone);
  double spectrum[16], spectrum_alone[16];
  struct kwm_health health = {0}, alone = {0};
  kwm_cov_health(&pair->alone, &alone);
  kwm_cov_health(&pair->spread, &health);
  kwm_par_sum_group(pair->layout, 1, &health.trace);
  kwm_par_sum_group(pair->layout, 1, &health.prior_trace);
  kwm_par_sum_group(pair->layout, 1, &health.parameters);
  assert_all(close_to(health.trace, alone.trace, close_of(&pair->shape), 0));
  assert_all(close_to(health.prior_trace, alone.prior_trace, 1e-12, 0) && health.parameters == alone.parameters);
  assert_all(kwm_cov_spectrum_length(&pair->spread) == values);
  const bool good = kwm_cov_spectrum(&pair->alone, spectrum_alone);
  assert_all(kwm_cov_spectrum(&pair->spread, spectrum) && good);
  assert_all(dense_error(values, spectrum, spectrum_alone) <= close_of(&pair->shape));
}

/* A folder for all ranks. */
static void shared_dir(char *dir, size_t size) {
  const char *const base = getenv("TMPDIR");
  snprintf(dir, size, "%s/kwm-owners-XXXXXX", base != NULL ? base : P_tmpdir);
  const bool made = world_rank() != 0 || mkdtemp(dir) != NULL;
  assert_all(made);
  MPI_Bcast(dir, (int)size, MPI_CHAR, 0, MPI_COMM_WORLD);
}

/* Saved from its shares: loaded by one rank alone it is that rank's covariance, and on other shares, by all, it goes on
   as it would have here. */
static void through_checkpoint(struct pair *pair) {
  const int64_t n = cov_numbers(&pair->shape);
  const struct kwm_cov_spec spec = spread_spec(pair->layout, &pair->shape, true);
  char dir[256], path[512];
  kwm_ckpt *ckpt = NULL;
  double *const P = dense_new(n * n), *const P_alone = dense_new(n * n);
  shared_dir(dir, sizeof dir);
  assert_ok(kwm_ckpt_create(&ckpt, pair->layout->world, dir, 1));
  assert_ok(kwm_cov_save(&pair->spread, ckpt, pair->layout->replica == 0));
  assert_ok(kwm_ckpt_commit(&ckpt, 1));
  assert_ok(kwm_ckpt_open_newest(&ckpt, MPI_COMM_SELF, dir));
  kwm_cov twin = cov_new(&pair->shape, LAMBDA, NOISE);
  assert_ok(kwm_cov_load(&twin, ckpt));
  kwm_ckpt_close(&ckpt);
  assert_true(kwm_cov_covariance(&twin, P) && kwm_cov_covariance(&pair->alone, P_alone));
  assert_all(dense_error(n * n, P, P_alone) <= close_of(&pair->shape));
  kwm_cov_destroy(&twin);
  kwm_cov_destroy(&pair->spread);
  assert_all(kwm_cov_create(&pair->spread, &kwm_cov_lowrank, &spec) == KWM_OK);
  assert_ok(kwm_ckpt_open_newest(&ckpt, pair->layout->world, dir));
  assert_ok(kwm_cov_load(&pair->spread, ckpt));
  snprintf(path, sizeof path, "%s", kwm_ckpt_path(ckpt));
  kwm_ckpt_close(&ckpt);
  memcpy(pair->mean, pair->mean_alone, sizeof pair->mean);
  one_step(pair, STEPS);
  same_view(pair);
  MPI_Barrier(MPI_COMM_WORLD);
  const bool removed = world_rank() != 0 || (unlink(path) == 0 && rmdir(dir) == 0);
  assert_all(removed);
  free(P), free(P_alone);
}

static void same_filter(struct kwm_layout *layout) {
  for (int setting = 0; setting < 2 * SETTINGS; setting++) {
    const struct cov_shape shape = shape_of(setting % SETTINGS, setting >= SETTINGS);
    struct pair pair;
    pair_init(&pair, layout, &shape);
    same_view(&pair);
    for (int64_t step = 0; step < STEPS; step++) one_step(&pair, step);
    same_view(&pair);
    through_checkpoint(&pair);
    pair_fini(&pair);
  }
}

static void test_same_filter(void **state) {
  (void)state;
  for_each_layout(same_filter);
}

/* One number that is not one, in the rows of one rank: no rank takes the step, none waits for another, and the next one
   is taken as if nothing had been. */
static void not_finite(struct kwm_layout *layout) {
  for (int setting = 0; setting < SETTINGS; setting++) {
    const struct cov_shape shape = shape_of(setting, false);
    struct pair pair;
    pair_init(&pair, layout, &shape);
    one_step(&pair, 0);
    struct jac_case whole = cov_jac(&shape, 1450), part = part_of(&pair, &whole.jac);
    double kl[TOTAL];
    if (pair.spread.spec.count > 0 && pair.spread.spec.first == 0) part.J[0] = NAN;
    assert_all(!prepare_spread(&pair, &part.jac, whole.e, kl));
    one_step(&pair, 1);
    jac_drop(&whole), free(part.J), free(part.S);
    pair_fini(&pair);
  }
}

static void test_not_finite(void **state) {
  (void)state;
  for_each_layout(not_finite);
}

/* A mean that is not finite on one rank: the time update's verdict is the same everywhere, and nothing has changed. */
static void time_refused(struct kwm_layout *layout) {
  for (int setting = 0; setting < SETTINGS; setting++) {
    const struct cov_shape shape = shape_of(setting, false);
    struct pair pair;
    pair_init(&pair, layout, &shape);
    one_step(&pair, 0);
    const int64_t at = offset(&pair);
    const bool here = pair.spread.spec.count > 0 && pair.spread.spec.first == 0;
    const float keep = pair.mean[0];
    float before[N];
    if (here) pair.mean[0] = NAN;
    memcpy(before, pair.mean, sizeof before);
    assert_all(!kwm_cov_predict(&pair.spread, 1, pair.anchor + at, pair.mean + at));
    assert_all(memcmp(before, pair.mean, sizeof before) == 0);
    pair.mean[0] = keep;
    one_step(&pair, 1);
    pair_fini(&pair);
  }
}

static void test_time_refused(void **state) {
  (void)state;
  for_each_layout(time_refused);
}

/* Every rank refuses what one alone has wrong, with that rank's message. */
static void refused(struct kwm_layout *layout) {
  const struct cov_shape shape = shape_of(0, false);
  for (int which = 0; which < 2; which++) {
    struct kwm_cov_spec spec = spread_spec(layout, &shape, false);
    const size_t before = kwm_mem_bytes();
    kwm_cov cov;
    if (which == 0 && group_rank(layout) == group_size(layout) - 1) spec.rank = 0;
    if (which == 1) spec.total++;
    assert_all(kwm_cov_create(&cov, &kwm_cov_lowrank, &spec) == KWM_ERR_USAGE);
    assert_all(strstr(kwm_error_message(), which == 0 ? "wanted rank >= 1, found 0"
                                                      : "wanted the group's 10 blocks on its owners, found 9") != NULL);
    kwm_cov_destroy(&cov);
    assert_all(kwm_mem_bytes() == before);
  }
}

static void test_refused(void **state) {
  (void)state;
  for_each_layout(refused);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_same_filter),
    cmocka_unit_test(test_not_finite),
    cmocka_unit_test(test_time_refused),
    cmocka_unit_test(test_refused),
};
KWM_TEST_MAIN(tests)
