/* A linear-Gaussian problem through the filter with its blocks on all ranks: units dealt over them unevenly, matrices
   on one each. What comes out is the textbook's filter, decoupled as the structures are, and what one rank alone gets.
 */
#include "grids.h"

#include "../cov_shapes.h"

#include "kwm/filter.h"

enum { GROUPS = 3, UNITS = 16, UNIT = 3, FIRST = 15, SECOND = 8, N = UNITS * UNIT + FIRST + SECOND, STEPS = 20 };
enum { ROWS = COV_ROWS, SETTINGS = 8 };
static const double FORGETTING = 0.98, NOISE = 0.01;

/* What each group is: group 0 the units, 1 and 2 matrices of 3 x 5 and 2 x 4. */
struct setting {
  const char *structure[GROUPS];
  enum kwm_lowrank_kind kind;
  int64_t rank;
  int64_t width[GROUPS]; /* parameters that stay coupled; 0: the projection is not the textbook's */
};
static const struct setting settings[SETTINGS] = {
    {.structure = {"block", "block", "block"}, .width = {UNIT, FIRST, SECOND}},
    {.structure = {"diag", "diag", "diag"}, .width = {1, 1, 1}},
    {.structure = {"block", "kron", "kron"}},
    {.structure = {"lowrank", "lowrank", "lowrank"}, .rank = 48, .width = {UNITS * UNIT, FIRST, SECOND}},
    {.structure = {"lowrank", "lowrank", "lowrank"}, .kind = KWM_LOWRANK_SUBSPACE, .rank = 5},
    {.structure = {"lowrank", "lowrank", "lowrank"}, .kind = KWM_LOWRANK_DIAGONAL, .rank = 5},
    {.structure = {"lowrank", "lowrank", "kron"}, .rank = 6},
    {.structure = {"lowrank", "block", "diag"}, .rank = 48, .width = {UNITS * UNIT, FIRST, 1}},
};
static const int64_t offsets[GROUPS] = {0, UNITS *UNIT, UNITS *UNIT + FIRST};
static const int64_t params[GROUPS] = {UNIT, FIRST, SECOND}, d_o[GROUPS] = {0, 3, 2}, d_i[GROUPS] = {0, 5, 4};

/* One filter on a layout. theta holds this rank's means where they belong. */
struct program {
  struct kwm_layout *layout;
  struct kwm_filter filter;
  float theta[N];
};

/* Blocks [first, first + count) of group g on this rank: of the units rank r has r + 1 parts. */
static void share(const struct kwm_layout *layout, int g, int64_t *first, int64_t *count) {
  const int64_t size = layout->owners, at = layout->owner, parts = size * (size + 1) / 2;
  const bool here = at == (g == 1 ? (size > 1) : size - 1);
  *first = g == 0 ? UNITS * (at * (at + 1) / 2) / parts : 0;
  *count = g == 0 ? UNITS * ((at + 1) * (at + 2) / 2) / parts - *first : here;
}

static struct kwm_cov_spec spec_of(const struct setting *setting, enum kwm_real real, struct kwm_layout *layout,
                                   int g) {
  static const char *const names[GROUPS] = {"units", "first", "second"};
  const struct cov_shape shape = {.structure = setting->structure[g],
                                  .form = KWM_FORM_INNOVATION,
                                  .real = real,
                                  .params = params[g],
                                  .d_o = d_o[g],
                                  .d_i = d_i[g],
                                  .rank = setting->rank,
                                  .kind = setting->kind};
  struct kwm_cov_spec spec = cov_spec_of(&shape, FORGETTING, NOISE);
  spec.name = names[g];
  spec.total = g == 0 ? UNITS : 1;
  spec.seed = (uint64_t)g;
  if (layout->owners > 1 && cov_is_lowrank(&shape)) spec.layout = layout;
  share(layout, g, &spec.first, &spec.count);
  return spec;
}

static void program_init(struct program *program, const struct setting *setting, enum kwm_real real,
                         struct kwm_layout *layout) {
  const struct kwm_filter_spec spec = {
      .gain_factor = 1, .batch = COV_SAMPLES, .chunks = 1, .forgetting = FORGETTING, .process_noise = NOISE};
  kwm_cov cov[GROUPS];
  float *mean[GROUPS];
  *program = (struct program){.layout = layout};
  lowrank_anchor(N, program->theta);
  for (int g = 0; g < GROUPS; g++) {
    const struct kwm_cov_spec cov_spec = spec_of(setting, real, layout, g);
    assert_all(kwm_cov_create(&cov[g], kwm_cov_find(setting->structure[g]), &cov_spec) == KWM_OK);
    mean[g] = program->theta + offsets[g] + cov_spec.first * params[g];
  }
  assert_all(kwm_filter_init(&program->filter, layout, &spec, GROUPS, cov, mean) == KWM_OK);
}

static struct kwm_layout alone_layout(void) {
  return (struct kwm_layout){.size = 1,
                             .replicas = 1,
                             .stages = 1,
                             .owners = 1,
                             .world = MPI_COMM_SELF,
                             .group = MPI_COMM_SELF,
                             .peers = MPI_COMM_SELF};
}

/* all (N) <- the means of all ranks. */
static void all_means(struct program *program, float *all) {
  memset(all, 0, N * sizeof *all);
  for (int g = 0; g < GROUPS; g++) {
    const struct kwm_filter_part *const part = &program->filter.group[g].part;
    if (part->count > 0)
      memcpy(all + offsets[g] + part->first * part->params, part->mean,
             (size_t)(part->count * part->params) * sizeof *all);
  }
  kwm_par_sum_group_f32(program->layout, N, all);
}

/* A step's Jacobians of all groups, whole, and its targets y = Hθ* + v. */
struct data {
  struct jac_case whole[GROUPS];
  double H[ROWS * N], y[ROWS];
};

static void data_init(struct data *data, int64_t step) {
  data->whole[0] = jac_units(COV_SAMPLES, COV_OUTPUTS, UNITS, UNIT, (uint64_t)(1600 + 3 * step));
  for (int g = 1; g < GROUPS; g++)
    data->whole[g] = jac_outer(COV_SAMPLES, COV_OUTPUTS, d_o[g], d_i[g], (uint64_t)(1600 + 3 * step + g));
  for (int g = 0; g < GROUPS; g++) jac_rows_into(&data->whole[g].jac, N, offsets[g], data->H);
  for (int64_t r = 0; r < ROWS; r++) {
    data->y[r] = test_normal(1590, step * ROWS + r);
    for (int64_t k = 0; k < N; k++) data->y[r] += data->H[r * N + k] * test_normal(1591, k);
  }
}

static void data_drop(struct data *data) {
  for (int g = 0; g < GROUPS; g++) jac_drop(&data->whole[g]);
}

/* e (ROWS) <- y - Hθ */
static void innovation_of(const struct data *data, const double *theta, double *e) {
  for (int64_t r = 0; r < ROWS; r++) {
    e[r] = data->y[r];
    for (int64_t k = 0; k < N; k++) e[r] -= data->H[r * N + k] * theta[k];
  }
}

/* The columns of units [first, first + count); J, S in made. */
static struct jac_case columns_of(const struct kwm_jac *whole, int64_t first, int64_t count) {
  struct jac_case part = {.jac = *whole};
  const int64_t J_rows = whole->n * whole->m * whole->channels, S_rows = whole->n * whole->channels * whole->params;
  part.J = calloc((size_t)(J_rows * count + 1), sizeof *part.J);
  part.S = calloc((size_t)(S_rows * count + 1), sizeof *part.S);
  for (int64_t k = 0; k < J_rows * count; k++) part.J[k] = whole->J[k / count * UNITS + first + k % count];
  for (int64_t k = 0; k < S_rows * count; k++) part.S[k] = whole->S[k / count * UNITS + first + k % count];
  part.jac.count = count, part.jac.J = part.J, part.jac.S = part.S;
  return part;
}

/* True if the step was done. */
static bool program_step(struct program *program, const struct data *data) {
  const struct kwm_filter_part *const units = &program->filter.group[0].part;
  struct kwm_lin lin = {.n_parts = GROUPS, .chunks = 1, .bounds = {0, COV_SAMPLES}, .batch = COV_SAMPLES};
  struct kwm_step step = {0};
  double theta[N], e[ROWS];
  float all[N], narrow[ROWS];
  kwm_filter_predict(&program->filter);
  all_means(program, all);
  for (int64_t k = 0; k < N; k++) theta[k] = (double)all[k];
  innovation_of(data, theta, e);
  for (int64_t r = 0; r < ROWS; r++) narrow[r] = (float)e[r];
  struct jac_case part = columns_of(&data->whole[0].jac, units->first, units->count);
  for (int g = 0; g < GROUPS; g++) {
    lin.jac[g] = g == 0 ? part.jac : data->whole[g].jac;
    lin.jac[g].e = narrow;
  }
  kwm_filter_innovate(&program->filter, &lin);
  kwm_filter_gain(&program->filter, &lin, &step);
  kwm_filter_update(&program->filter, &step);
  free(part.J), free(part.S);
  return step.verdict == KWM_STEP_DONE && step.rows == ROWS;
}

/* P (N, N) of all groups, zero between them, by way of a checkpoint that one rank alone reads. */
static double *gathered(const struct program *program, const struct setting *setting, enum kwm_real real) {
  char dir[256], path[512];
  const char *const base = getenv("TMPDIR");
  kwm_ckpt *ckpt = NULL;
  struct kwm_layout alone = alone_layout();
  struct program twin;
  double *const P = dense_new(N * N), *const part = dense_new(N * N);
  snprintf(dir, sizeof dir, "%s/kwm-ranks-XXXXXX", base != NULL ? base : P_tmpdir);
  const bool made = world_rank() != 0 || mkdtemp(dir) != NULL;
  assert_all(made);
  MPI_Bcast(dir, (int)sizeof dir, MPI_CHAR, 0, MPI_COMM_WORLD);
  assert_ok(kwm_ckpt_create(&ckpt, program->layout->world, dir, 1));
  assert_ok(kwm_filter_save(&program->filter, ckpt, true));
  assert_ok(kwm_ckpt_commit(&ckpt, 1));
  program_init(&twin, setting, real, &alone);
  assert_all(kwm_ckpt_open_newest(&ckpt, MPI_COMM_SELF, dir) == KWM_OK);
  assert_all(kwm_filter_load(&twin.filter, ckpt) == KWM_OK);
  snprintf(path, sizeof path, "%s", kwm_ckpt_path(ckpt));
  kwm_ckpt_close(&ckpt);
  for (int g = 0; g < GROUPS; g++) {
    const int64_t n = (g == 0 ? UNITS : 1) * params[g];
    assert_all(kwm_cov_covariance(&twin.filter.group[g].cov, part));
    for (int64_t k = 0; k < n * n; k++) P[(offsets[g] + k / n) * N + offsets[g] + k % n] = part[k];
  }
  kwm_filter_fini(&twin.filter);
  const bool removed = world_rank() != 0 || (unlink(path) == 0 && rmdir(dir) == 0);
  assert_all(removed);
  free(part);
  return P;
}

/* ---- the textbook */

struct textbook {
  double P[N * N], prior[N], theta[N];
  float anchor[N];
  int64_t block[N]; /* what a parameter stays coupled with */
};

static void textbook_init(struct textbook *book, const struct setting *setting) {
  memset(book, 0, sizeof *book);
  lowrank_anchor(N, book->anchor);
  for (int g = 0; g < GROUPS; g++)
    for (int64_t k = offsets[g]; k < (g + 1 < GROUPS ? offsets[g + 1] : N); k++) {
      book->prior[k] = g == 0 ? cov_prior_variance[k % UNIT] : 1 / cov_prior_precision;
      book->P[k * N + k] = book->prior[k];
      book->theta[k] = (double)book->anchor[k];
      book->block[k] = setting->width[g] > 0 ? 100 * g + (k - offsets[g]) / setting->width[g] : k;
    }
}

static void textbook_step(struct textbook *book, const struct data *data) {
  double e[ROWS], delta[N];
  dense_time(N, book->P, book->prior, FORGETTING, NOISE, book->anchor, book->theta);
  innovation_of(data, book->theta, e);
  dense_update(N, ROWS, book->P, data->H, e, delta);
  for (int64_t k = 0; k < N * N; k++)
    if (book->block[k / N] != book->block[k % N]) book->P[k] = 0;
  for (int64_t k = 0; k < N; k++) book->theta[k] += delta[k];
}

/* ---- the tests */

static double means_error(const float *a, const float *b) {
  double wide[N];
  for (int64_t k = 0; k < N; k++) wide[k] = (double)b[k];
  return dense_error_f32(N, a, wide);
}

static void same_filter(const struct setting *setting, enum kwm_real real, struct kwm_layout *layout) {
  static struct program here, alone;
  static struct textbook book;
  static struct data data;
  const bool wide = real == KWM_REAL_DOUBLE;
  struct kwm_layout one = alone_layout();
  bool done = true;
  program_init(&here, setting, real, layout);
  program_init(&alone, setting, real, &one);
  textbook_init(&book, setting);
  for (int64_t step = 0; step < STEPS; step++) {
    data_init(&data, step);
    done = program_step(&here, &data) && done;
    done = program_step(&alone, &data) && done;
    textbook_step(&book, &data);
    data_drop(&data);
  }
  assert_all(done);
  double *const P = gathered(&here, setting, real), *const P_alone = dense_new(N * N);
  float means[N], means_alone[N];
  for (int g = 0; g < GROUPS; g++) {
    const int64_t n = (g == 0 ? UNITS : 1) * params[g];
    double *const part = cov_dense(&alone.filter.group[g].cov);
    for (int64_t k = 0; k < n * n; k++) P_alone[(offsets[g] + k / n) * N + offsets[g] + k % n] = part[k];
    free(part);
  }
  all_means(&here, means), all_means(&alone, means_alone);
  assert_all(dense_error(N * N, P, P_alone) <= (wide ? 1e-10 : 1e-4));
  assert_all(means_error(means, means_alone) <= (wide ? 1e-5 : 1e-4)); /* innovations are float */
  if (setting->width[0] > 0) {
    assert_all(dense_error(N * N, P, book.P) <= (wide ? 1e-10 : 1e-4));
    assert_all(dense_error_f32(N, means, book.theta) <= (wide ? 1e-5 : 1e-4));
  }
  free(P), free(P_alone);
  kwm_filter_fini(&here.filter), kwm_filter_fini(&alone.filter);
}

static void run_setting(int k) {
  struct kwm_layout layout;
  assert_all(kwm_layout_init(&layout, 1, 1, world_size()) == KWM_OK);
  same_filter(&settings[k], KWM_REAL_DOUBLE, &layout);
  same_filter(&settings[k], KWM_REAL_FLOAT, &layout);
  kwm_layout_fini(&layout);
}

#define SETTING_TEST(name, k)                                                                                          \
  static void test_##name(void **state) {                                                                              \
    (void)state;                                                                                                       \
    run_setting(k);                                                                                                    \
  }
SETTING_TEST(block, 0)
SETTING_TEST(diag, 1)
SETTING_TEST(kron, 2)
SETTING_TEST(lowrank, 3)
SETTING_TEST(subspace, 4)
SETTING_TEST(low_rank, 5)
SETTING_TEST(mixture, 6)

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_block),   cmocka_unit_test(test_diag),     cmocka_unit_test(test_kron),
    cmocka_unit_test(test_lowrank), cmocka_unit_test(test_subspace), cmocka_unit_test(test_low_rank),
    cmocka_unit_test(test_mixture),
};
KWM_TEST_MAIN(tests)
