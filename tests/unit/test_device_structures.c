/* Covariance structures on a device against themselves on the host: the same Jacobians, side by side.

   Tolerances are relative to the norm of what is compared. Both sides sum the same float products in another order, and
   their states follow each other through some 30 steps (kron: and five eigenbases): 5e-5 for a state in float, 5e-6 for
   one in double, whose evidence is a float sum all the same. Plain loops are within a tenth of that. */
#include "cov_case.h"
#include "device_case.h"

enum { SAMPLES = 24, CHUNKS = 3, STEPS = 32, NUMBERS_MAX = 160, REFRESH = 10, LATE = 3 };
static const int64_t chunk_bounds[CHUNKS + 1] = {0, 7, 8, SAMPLES};

static const struct subject {
  struct cov_shape shape;
  int64_t m;
  bool framed;
  int64_t delay;
} subjects[] = {
    {{"kron", KWM_FORM_INFORMATION, KWM_REAL_FLOAT, .count = 1, .d_o = 5, .d_i = 7}, 3, false, 0},
    {{"kron", KWM_FORM_INFORMATION, KWM_REAL_FLOAT, .count = 1, .d_o = 5, .d_i = 7}, 3, true, 0},
    {{"kron", KWM_FORM_INFORMATION, KWM_REAL_FLOAT, .count = 1, .d_o = 8, .d_i = 3}, 1, false, 0},
    {{"kron", KWM_FORM_INFORMATION, KWM_REAL_FLOAT, .count = 1, .d_o = 5, .d_i = 7}, 1, true, 0},
    {{"kron", KWM_FORM_INFORMATION, KWM_REAL_FLOAT, .count = 1, .d_o = 5, .d_i = 7}, 3, false, LATE},
    {{"kron", KWM_FORM_INFORMATION, KWM_REAL_FLOAT, .count = 1, .d_o = 5, .d_i = 7}, 1, true, LATE},
    {{"block", KWM_FORM_INFORMATION, KWM_REAL_DOUBLE, .count = 16, .params = 7}, 3, false, 0},
    {{"block", KWM_FORM_INFORMATION, KWM_REAL_DOUBLE, .count = 16, .params = 10}, 1, false, 0},
    {{"diag", KWM_FORM_INFORMATION, KWM_REAL_DOUBLE, .count = 16, .params = 7}, 3, false, 0},
    {{"diag", KWM_FORM_INFORMATION, KWM_REAL_FLOAT, .count = 16, .params = 7}, 3, false, 0},
    {{"diag", KWM_FORM_INFORMATION, KWM_REAL_FLOAT, .count = 1, .d_o = 5, .d_i = 7}, 3, false, 0},
    {{"diag", KWM_FORM_INFORMATION, KWM_REAL_DOUBLE, .count = 1, .d_o = 7, .d_i = 5}, 1, false, 0},
};
enum { SUBJECTS = sizeof subjects / sizeof *subjects };

static float *device_floats(int64_t n, const float *values) {
  void *at = NULL;
  if (values == NULL) return NULL;
  assert_ok(kwm_device_alloc(test_device, &at, (size_t)n * sizeof *values, "test"));
  kwm_device_put(test_device, at, values, (size_t)n * sizeof *values);
  return at;
}

static struct kwm_cov_spec spec_of(const struct subject *subject, double forgetting, double process_noise) {
  struct kwm_cov_spec spec = cov_spec_of(&subject->shape, forgetting, process_noise);
  spec.framed = subject->framed;
  spec.m = subject->m;
  spec.n_max = SAMPLES;
  spec.refresh = REFRESH;
  spec.delay = subject->delay;
  return spec;
}

static kwm_cov new_cov(const struct subject *subject, double forgetting, double process_noise, kwm_device *on) {
  kwm_cov cov;
  const struct kwm_cov_ops *const ops = kwm_cov_find(subject->shape.structure);
  struct kwm_cov_spec spec = spec_of(subject, forgetting, process_noise);
  spec.device = on;
  const size_t before = kwm_mem_bytes();
  assert_true(kwm_cov_on_device(ops, &spec));
  assert_ok(kwm_cov_create(&cov, ops, &spec));
  assert_int_equal(kwm_mem_bytes() - before, cov.ops->bytes(&spec));
  return cov;
}

/* The same structure in both places, with means that begin alike. */
struct sides {
  const struct subject *subject;
  kwm_cov here, there;
  int64_t n;
  float mean[NUMBERS_MAX], anchor[NUMBERS_MAX];
  float *mean_there, *anchor_there, *evidence, *evidence_there;
  double tolerance;
};

static void sides_open(struct sides *sides, const struct subject *subject, double forgetting, double process_noise) {
  *sides = (struct sides){.subject = subject, .n = cov_numbers(&subject->shape)};
  assert_true(sides->n <= NUMBERS_MAX);
  sides->tolerance = subject->shape.real == KWM_REAL_FLOAT ? 5e-5 : 5e-6;
  sides->here = new_cov(subject, forgetting, process_noise, NULL);
  sides->there = new_cov(subject, forgetting, process_noise, test_device);
  for (int64_t k = 0; k < sides->n; k++) {
    sides->mean[k] = (float)test_normal(790, k);
    sides->anchor[k] = (float)test_normal(791, k);
  }
  const int64_t length = kwm_cov_evidence_length(&sides->here), length_there = kwm_cov_evidence_length(&sides->there);
  sides->mean_there = device_floats(sides->n, sides->mean);
  sides->anchor_there = device_floats(sides->n, sides->anchor);
  sides->evidence = calloc((size_t)length, sizeof(float));
  float *const zeros = calloc((size_t)length_there, sizeof(float));
  sides->evidence_there = device_floats(length_there, zeros);
  free(zeros);
}

static void sides_close(struct sides *sides) {
  kwm_cov_destroy(&sides->here), kwm_cov_destroy(&sides->there), free(sides->evidence);
  kwm_device_free(test_device, sides->mean_there), kwm_device_free(test_device, sides->anchor_there);
  kwm_device_free(test_device, sides->evidence_there);
}

/* One step's rows in both places; odd steps bring g and, framed, aU, as a pipe may. */
struct rows {
  struct jac_case made;
  struct kwm_jac there;
  float *g;
};

static void give_score(struct rows *rows) {
  struct kwm_jac *const jac = &rows->made.jac;
  rows->g = calloc((size_t)(jac->n * jac->d_o), sizeof *rows->g);
  kwm_jac_output_score(jac, rows->g);
  jac->g = rows->g;
  rows->there.g = device_floats(jac->n * jac->d_o, rows->g);
  rows->there.e = NULL;
}

/* aU of the device alone: the host turns the inputs itself. */
static void give_turned(struct rows *rows, const kwm_cov *there) {
  const struct kwm_frame frame = kwm_cov_frame(there);
  const int64_t n = rows->there.n, i = rows->there.d_i;
  void *aU = NULL;
  assert_ok(kwm_device_alloc(test_device, &aU, (size_t)(n * i) * sizeof(float), "test"));
  kwm_device_gemm(test_device, false, false, n, i, i, 1, rows->there.a, i, frame.U, i, 0, aU, i);
  rows->there.aU = aU;
}

static struct rows rows_new(const struct sides *sides, uint64_t stream) {
  const struct cov_shape *const shape = &sides->subject->shape;
  const int64_t m = sides->subject->m;
  struct rows rows = {0};
  rows.made = cov_is_matrix(shape) ? jac_outer(SAMPLES, m, shape->d_o, shape->d_i, stream)
                                   : jac_units(SAMPLES, m, shape->count, shape->params, stream);
  const struct kwm_jac *const jac = &rows.made.jac;
  rows.there = *jac;
  rows.there.J = device_floats(SAMPLES * m * (cov_is_matrix(shape) ? jac->d_o : 2 * jac->count), jac->J);
  rows.there.S = device_floats(SAMPLES * 2 * jac->params * jac->count, jac->S);
  rows.there.a = device_floats(SAMPLES * jac->d_i, jac->a);
  const float *const e = device_floats(SAMPLES * m, jac->e);
  rows.there.e = e;
  return rows;
}

static void rows_drop(struct rows *rows) {
  const float *const arrays[] = {rows->there.J, rows->there.S,  rows->there.a,
                                 rows->there.e, rows->there.aU, rows->there.g};
  for (size_t k = 0; k < sizeof arrays / sizeof *arrays; k++)
    kwm_device_free(test_device, (void *)(uintptr_t)arrays[k]);
  free(rows->g), jac_drop(&rows->made);
}

static void gather(struct sides *sides, const struct rows *rows) {
  memset(sides->evidence, 0, (size_t)kwm_cov_evidence_length(&sides->here) * sizeof(float));
  kwm_device_zero(test_device, sides->evidence_there, (size_t)kwm_cov_evidence_length(&sides->there) * sizeof(float));
  for (int c = 0; c < CHUNKS; c++) {
    const int64_t first = chunk_bounds[c], n = chunk_bounds[c + 1] - first;
    const struct kwm_jac here = kwm_jac_part(&rows->made.jac, first, n), there = kwm_jac_part(&rows->there, first, n);
    kwm_cov_evidence(&sides->here, &here, sides->evidence);
    kwm_cov_evidence(&sides->there, &there, sides->evidence_there);
  }
}

/* batch: more than these samples, as with replicas. */
static bool absorb_there(struct sides *sides, const struct rows *rows, bool ahead, double *kl) {
  if (ahead) kwm_cov_prepare(&sides->there, &rows->there, sides->evidence_there, 2 * SAMPLES);
  return kwm_cov_absorb(&sides->there, &rows->there, sides->evidence_there, 2 * SAMPLES, kl);
}

static bool absorb_here(struct sides *sides, const struct rows *rows, double *kl) {
  return kwm_cov_absorb(&sides->here, &rows->made.jac, sides->evidence, 2 * SAMPLES, kl);
}

typedef void question(const kwm_cov *cov, double *answer);

static void check_answer(const struct sides *sides, question *asked, int64_t n) {
  double here[NUMBERS_MAX], there[NUMBERS_MAX];
  asked(&sides->here, here), asked(&sides->there, there);
  assert_below(dense_error(n, there, here), sides->tolerance);
}

/* Means as matrices: framed ones turn with their own basis, whose vectors have a sign of their own. */
static void check_means(const struct sides *sides) {
  float there[NUMBERS_MAX], here[NUMBERS_MAX];
  double wanted[NUMBERS_MAX];
  kwm_device_get(test_device, there, sides->mean_there, (size_t)sides->n * sizeof *there);
  kwm_cov_unframe(&sides->there, there, there);
  kwm_cov_unframe(&sides->here, sides->mean, here);
  for (int64_t k = 0; k < sides->n; k++) wanted[k] = (double)here[k];
  assert_below(dense_error_f32(sides->n, there, wanted), sides->tolerance);
}

static void check_prepared(const struct sides *sides, const double *kl, const double *found) {
  const int64_t count = sides->here.spec.count;
  assert_below(dense_error(count, found, kl), sides->tolerance);
  check_answer(sides, kwm_cov_moved, count);
  check_answer(sides, kwm_cov_delta, sides->n);
  if (sides->here.ops->slope == NULL) return;
  check_answer(sides, kwm_cov_slope, count);
  check_answer(sides, kwm_cov_expected, count);
}

/* Every seventh step is given up, another moves the mean alone. */
static void finish(struct sides *sides, int64_t step) {
  if (step % 7 == 3) return;
  if (step % 7 == 5 && sides->here.ops->move != NULL) {
    kwm_cov_move(&sides->here, 0.25, sides->mean);
    kwm_cov_move(&sides->there, 0.25, sides->mean_there);
    return;
  }
  kwm_cov_apply(&sides->here, 0.5, sides->mean);
  kwm_cov_apply(&sides->there, 0.5, sides->mean_there);
}

static void step_both(struct sides *sides, int64_t step) {
  double kl[NUMBERS_MAX], found[NUMBERS_MAX];
  assert_true(kwm_cov_predict(&sides->here, step, sides->anchor, sides->mean));
  assert_true(kwm_cov_predict(&sides->there, step, sides->anchor_there, sides->mean_there));
  struct rows rows = rows_new(sides, (uint64_t)(800 + step));
  const float *const e = rows.there.e;
  if (step % 2 == 1 && sides->here.spec.d_o > 0) give_score(&rows);
  if (step % 2 == 1 && sides->subject->framed) give_turned(&rows, &sides->there);
  gather(sides, &rows);
  assert_true(absorb_here(sides, &rows, kl));
  assert_true(absorb_there(sides, &rows, step % 3 > 0, found));
  check_prepared(sides, kl, found);
  finish(sides, step);
  check_means(sides);
  rows.there.e = e;
  rows_drop(&rows);
}

static void check_health(const struct sides *sides) {
  struct kwm_health here = {0}, there = {.trace = 1};
  kwm_cov_health(&sides->here, &here), kwm_cov_health(&sides->there, &there);
  assert_close(there.trace - 1, here.trace, sides->tolerance, 0);
  assert_close(there.prior_trace, here.prior_trace, 1e-14, 0);
  assert_true(there.parameters == here.parameters && there.floor_hits == here.floor_hits);
}

static void check_states(struct sides *sides) {
  const int64_t n = sides->n, m = sides->subject->m, outputs = SAMPLES * m * m;
  double *const here = dense_new(n * n + outputs), *const there = dense_new(n * n + outputs);
  assert_true(kwm_cov_covariance(&sides->here, here) && kwm_cov_covariance(&sides->there, there));
  assert_below(dense_error(n * n, there, here), sides->tolerance);
  assert_int_equal(kwm_cov_spectrum_length(&sides->there), n);
  assert_true(kwm_cov_spectrum(&sides->here, here) && kwm_cov_spectrum(&sides->there, there));
  assert_below(dense_error(n, there, here), sides->tolerance);
  struct rows rows = rows_new(sides, 900);
  memset(here, 0, (size_t)outputs * sizeof *here), memset(there, 0, (size_t)outputs * sizeof *there);
  assert_true(kwm_cov_predictive(&sides->here, &rows.made.jac, here));
  assert_true(kwm_cov_predictive(&sides->there, &rows.there, there));
  assert_below(dense_error(outputs, there, here), sides->tolerance);
  check_health(sides);
  rows_drop(&rows), free(here), free(there);
}

static void test_runs(void **state) {
  (void)state;
  static const double time[][2] = {{1, 0}, {0.95, 0.02}, {0.5, 0}, {1, 0.1}};
  for (int s = 0; s < SUBJECTS; s++)
    for (size_t t = 0; t < sizeof time / sizeof *time; t++) {
      struct sides sides;
      sides_open(&sides, &subjects[s], time[t][0], time[t][1]);
      check_states(&sides);
      for (int64_t step = 0; step < STEPS; step++) step_both(&sides, step);
      check_states(&sides);
      sides_close(&sides);
    }
}

/* Evidence that is not finite is refused, and the next step is as if it had never been. */
static void test_bad_evidence(void **state) {
  (void)state;
  static const float bad[] = {NAN, INFINITY};
  for (int s = 0; s < SUBJECTS; s++) {
    struct sides sides;
    sides_open(&sides, &subjects[s], 0.95, 0.02);
    for (int64_t step = 0; step < 3; step++) step_both(&sides, step);
    double *const before = dense_new(sides.n * sides.n), *const after = dense_new(sides.n * sides.n), kl[NUMBERS_MAX];
    assert_true(kwm_cov_covariance(&sides.there, before));
    for (int b = 0; b < 2; b++) {
      struct rows rows = rows_new(&sides, 901);
      kwm_device_put(test_device, (void *)(uintptr_t)rows.there.J, &bad[b], sizeof bad[b]);
      gather(&sides, &rows);
      assert_false(absorb_there(&sides, &rows, b == 0, kl));
      assert_true(kwm_cov_covariance(&sides.there, after));
      assert_memory_equal(after, before, (size_t)(sides.n * sides.n) * sizeof *after);
      rows_drop(&rows);
    }
    for (int64_t step = 3; step < 6; step++) step_both(&sides, step);
    sides_close(&sides), free(before), free(after);
  }
}

/* A basis that can't be had leaves the mean, its frame and all else. Asked for at step 5, taken there or LATE. */
static void check_no_basis(const struct subject *subject) {
  const int64_t taken = 5 + subject->delay;
  struct sides sides;
  double kl;
  float mean[NUMBERS_MAX], kept[NUMBERS_MAX];
  const float bad = NAN;
  sides_open(&sides, subject, 0.9, 0.1);
  const size_t bytes = (size_t)sides.n * sizeof *mean, squares = (size_t)(sides.n * sides.n) * sizeof(double);
  double *const before = dense_new(sides.n * sides.n), *const after = dense_new(sides.n * sides.n);
  for (int64_t step = 0; step < 3; step++) step_both(&sides, step);
  if (subject->delay > 0) assert_true(kwm_cov_predict(&sides.there, 4, sides.anchor_there, sides.mean_there));
  struct rows rows = rows_new(&sides, 902);
  gather(&sides, &rows);
  kwm_device_put(test_device, sides.evidence_there, &bad, sizeof bad); /* of A, which only the basis sees */
  assert_true(absorb_there(&sides, &rows, true, &kl));
  kwm_cov_apply(&sides.there, 1, sides.mean_there);
  if (subject->delay > 0) assert_true(kwm_cov_predict(&sides.there, 5, sides.anchor_there, sides.mean_there));
  kwm_device_get(test_device, kept, sides.mean_there, bytes);
  const struct kwm_frame frame = kwm_cov_frame(&sides.there);
  assert_true(kwm_cov_covariance(&sides.there, before));
  assert_false(kwm_cov_predict(&sides.there, taken, sides.anchor_there, sides.mean_there));
  assert_true(kwm_cov_covariance(&sides.there, after));
  assert_memory_equal(after, before, squares);
  kwm_device_get(test_device, mean, sides.mean_there, bytes);
  assert_memory_equal(mean, kept, bytes);
  assert_true(frame.U == kwm_cov_frame(&sides.there).U && frame.V == kwm_cov_frame(&sides.there).V);
  assert_true(kwm_cov_predict(&sides.there, taken + 1, sides.anchor_there, sides.mean_there));
  kwm_device_get(test_device, mean, sides.mean_there, bytes);
  assert_true(memcmp(mean, kept, bytes) != 0);
  rows_drop(&rows), sides_close(&sides), free(before), free(after);
}

static void test_no_basis(void **state) {
  (void)state;
  check_no_basis(&subjects[1]);
  check_no_basis(&subjects[5]);
}

/* A checkpoint of one block's precision that is not positive definite. */
static void write_indefinite(const kwm_cov *cov, struct cov_file *file) {
  const int64_t count = cov->spec.count, p = cov->spec.params, dims[3] = {count, p, p};
  double *const M = dense_new(count * p * p);
  for (int64_t k = 0; k < count * p; k++) M[k * p + k % p] = k == count * p - 2 ? -3 : 2;
  const char *const base = getenv("TMPDIR");
  snprintf(file->dir, sizeof file->dir, "%s/kwm-cov-XXXXXX", base != NULL ? base : P_tmpdir);
  assert_non_null(mkdtemp(file->dir));
  assert_ok(kwm_ckpt_create(&file->ckpt, MPI_COMM_SELF, file->dir, 1));
  assert_ok(kwm_ckpt_put(file->ckpt, "/cov/group/precision", KWM_F64, 3, dims, 0, count, M));
  assert_ok(kwm_ckpt_commit(&file->ckpt, 1));
  assert_ok(kwm_ckpt_open_newest(&file->ckpt, MPI_COMM_SELF, file->dir));
  free(M);
}

static double *precision_of(const kwm_cov *cov) {
  struct cov_file file;
  cov_write(cov, &file);
  double *const M =
      cov_read(&file, "precision", KWM_F64, 3, (const int64_t[]){cov->spec.count, cov->spec.params, cov->spec.params});
  cov_file_drop(&file);
  return M;
}

static void test_indefinite(void **state) {
  (void)state;
  static const double time[][2] = {{1, 0.1}, {0.99, 0}};
  for (int t = 0; t < 2; t++) {
    struct sides sides;
    struct cov_file file;
    float mean[NUMBERS_MAX];
    sides_open(&sides, &subjects[6], time[t][0], time[t][1]);
    write_indefinite(&sides.there, &file);
    assert_ok(kwm_cov_load(&sides.there, file.ckpt));
    double *const before = precision_of(&sides.there);
    assert_false(kwm_cov_predict(&sides.there, 1, sides.anchor_there, sides.mean_there));
    double *const after = precision_of(&sides.there);
    assert_memory_equal(after, before, (size_t)(sides.n * sides.here.spec.params) * sizeof *after);
    kwm_device_get(test_device, mean, sides.mean_there, (size_t)sides.n * sizeof *mean);
    assert_memory_equal(mean, sides.mean, (size_t)sides.n * sizeof *mean);
    free(before), free(after), cov_file_drop(&file), sides_close(&sides);
  }
}

/* from -> a checkpoint -> to; the covariances are then the same to the last bit. */
static void hand_over(const kwm_cov *from, kwm_cov *to) {
  const int64_t n = from->spec.count * from->spec.params;
  double *const wanted = dense_new(n * n), *const found = dense_new(n * n);
  struct cov_file file;
  cov_write(from, &file);
  assert_ok(kwm_cov_load(to, file.ckpt));
  assert_true(kwm_cov_covariance(from, wanted) && kwm_cov_covariance(to, found));
  assert_memory_equal(found, wanted, (size_t)(n * n) * sizeof *found);
  cov_file_drop(&file), free(wanted), free(found);
}

/* What one side saved the other goes on with, through a refresh too. A framed mean goes with its basis. */
static void test_handed_over(void **state) {
  (void)state;
  for (int s = 0; s < SUBJECTS; s++)
    for (int up = 0; up < 2; up++) {
      struct sides sides;
      sides_open(&sides, &subjects[s], 0.95, 0.02);
      for (int64_t step = 0; step < 7; step++) step_both(&sides, step);
      const size_t bytes = (size_t)sides.n * sizeof *sides.mean;
      kwm_cov *const from = up ? &sides.here : &sides.there, *const to = up ? &sides.there : &sides.here;
      kwm_cov_destroy(to);
      *to = new_cov(&subjects[s], 0.95, 0.02, up ? test_device : NULL);
      hand_over(from, to);
      if (up)
        kwm_device_put(test_device, sides.mean_there, sides.mean, bytes);
      else
        kwm_device_get(test_device, sides.mean, sides.mean_there, bytes);
      for (int64_t step = 7; step < 13; step++) step_both(&sides, step);
      check_states(&sides);
      sides_close(&sides);
    }
}

/* A structure's state and the mean, bit by bit. */
struct bits {
  double *P;
  float mean[NUMBERS_MAX];
};

static struct bits bits_of(const struct sides *sides, bool there) {
  struct bits bits = {.P = dense_new(sides->n * sides->n)};
  assert_true(kwm_cov_covariance(there ? &sides->there : &sides->here, bits.P));
  memcpy(bits.mean, sides->mean, sizeof bits.mean);
  if (there) kwm_device_get(test_device, bits.mean, sides->mean_there, (size_t)sides->n * sizeof *bits.mean);
  return bits;
}

static void assert_bits(const struct sides *sides, bool there, struct bits *wanted) {
  struct bits found = bits_of(sides, there);
  assert_memory_equal(found.P, wanted->P, (size_t)(sides->n * sides->n) * sizeof *found.P);
  assert_memory_equal(found.mean, wanted->mean, (size_t)sides->n * sizeof *found.mean);
  free(found.P), free(wanted->P);
}

/* Both sides made anew from their own checkpoints, by which the means are found again. */
static void start_again(struct sides *sides, struct cov_file *here, struct cov_file *there, const float *mean,
                        const float *mean_there) {
  kwm_cov_destroy(&sides->here), kwm_cov_destroy(&sides->there);
  sides->here = new_cov(sides->subject, 0.95, 0.02, NULL);
  sides->there = new_cov(sides->subject, 0.95, 0.02, test_device);
  assert_ok(kwm_cov_load(&sides->here, here->ckpt));
  assert_ok(kwm_cov_load(&sides->there, there->ckpt));
  memcpy(sides->mean, mean, (size_t)sides->n * sizeof *mean);
  kwm_device_put(test_device, sides->mean_there, mean_there, (size_t)sides->n * sizeof *mean);
}

/* Stopped while a basis is awaited, or after it was taken, and gone on with: the same bits as never stopped. A
   checkpoint has the factors of a basis that is awaited. */
static void test_resumed(void **state) {
  (void)state;
  static const int64_t stops[] = {7, 11, 14};
  static const bool awaited[] = {true, true, false};
  for (int s = 4; s < 6; s++)
    for (int k = 0; k < 3; k++) {
      struct sides sides;
      struct cov_file here, there;
      float mean[NUMBERS_MAX], mean_there[NUMBERS_MAX];
      int n_dims = 2;
      int64_t dims[2];
      sides_open(&sides, &subjects[s], 0.95, 0.02);
      for (int64_t step = 0; step < stops[k]; step++) step_both(&sides, step);
      cov_write(&sides.here, &here), cov_write(&sides.there, &there);
      const bool found = kwm_ckpt_shape(there.ckpt, "/cov/group/awaited_input_factor", &n_dims, dims) == KWM_OK;
      assert_int_equal(found, awaited[k]);
      memcpy(mean, sides.mean, sizeof mean);
      kwm_device_get(test_device, mean_there, sides.mean_there, (size_t)sides.n * sizeof *mean);
      for (int64_t step = stops[k]; step < 22; step++) step_both(&sides, step);
      struct bits wanted[2] = {bits_of(&sides, false), bits_of(&sides, true)};
      start_again(&sides, &here, &there, mean, mean_there);
      for (int64_t step = stops[k]; step < 22; step++) step_both(&sides, step);
      for (int side = 0; side < 2; side++) assert_bits(&sides, side == 1, &wanted[side]);
      cov_file_drop(&here), cov_file_drop(&there), sides_close(&sides);
    }
}

/* A rank without blocks. */
static void test_empty(void **state) {
  (void)state;
  for (int s = 0; s < SUBJECTS; s++) {
    struct subject none = subjects[s];
    none.shape.count = 0;
    kwm_cov cov = new_cov(&none, 0.95, 0.02, test_device);
    struct kwm_health health = {0};
    kwm_cov_health(&cov, &health);
    assert_true(health.parameters == 0 && kwm_cov_predict(&cov, 1, NULL, NULL));
    assert_int_equal(kwm_cov_evidence_length(&cov), 0);
    kwm_cov_destroy(&cov);
  }
}

static void test_refused(void **state) {
  (void)state;
  const struct cov_shape shapes[] = {
      {"kron", KWM_FORM_INFORMATION, KWM_REAL_DOUBLE, .count = 1, .d_o = 3, .d_i = 2},
      {"kron", KWM_FORM_INNOVATION, KWM_REAL_FLOAT, .count = 1, .d_o = 3, .d_i = 2},
      {"block", KWM_FORM_INFORMATION, KWM_REAL_FLOAT, .count = 2, .params = 3},
      {"block", KWM_FORM_INFORMATION, KWM_REAL_DOUBLE, .count = 1, .d_o = 3, .d_i = 2},
      {"block", KWM_FORM_INNOVATION, KWM_REAL_DOUBLE, .count = 2, .params = 3},
      {"diag", KWM_FORM_INNOVATION, KWM_REAL_DOUBLE, .count = 2, .params = 3},
      {"lowrank", KWM_FORM_INFORMATION, KWM_REAL_DOUBLE, .count = 2, .params = 3, .rank = 2}};
  for (size_t k = 0; k < sizeof shapes / sizeof *shapes; k++) {
    const struct kwm_cov_spec spec = cov_spec_of(&shapes[k], 1, 0);
    assert_false(kwm_cov_on_device(kwm_cov_find(shapes[k].structure), &spec));
  }
}

/* Checkpoints want MPI. */
int main(int argc, char **argv) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_runs),        cmocka_unit_test(test_bad_evidence),
                                     cmocka_unit_test(test_no_basis),    cmocka_unit_test(test_indefinite),
                                     cmocka_unit_test(test_handed_over), cmocka_unit_test(test_resumed),
                                     cmocka_unit_test(test_empty),       cmocka_unit_test(test_refused)};
  const char *const name = getenv("KWM_TEST_BACKEND");
  const struct kwm_device_spec spec = {.graphs = true};
  MPI_Init(&argc, &argv);
  int failed = CASE_SKIPPED;
  if (kwm_device_open(&test_device, name != NULL ? name : "shadow", &spec) != KWM_OK) {
    printf("skipped: %s\n", kwm_error_message());
  } else {
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    kwm_device_close(test_device);
  }
  MPI_Finalize();
  return failed;
}
