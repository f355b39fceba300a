/* Causal attention, the categorical innovation and the read-out of a transformer. */
#include "tensor_case.h"

static const double CLOSE = 5e-6, ROUNDED = 2e-3;

/* ---- attention, one head at a time in double: q, k, v, out and their scores (context, size) ---- */

struct head {
  int64_t context, size;
  const double *sout;
};

/* weights (context, context), out <- of qkv, three matrices one after the other. */
static void head_forward(const struct head *h, const double *qkv, double *weights, double *out) {
  const int64_t context = h->context, size = h->size;
  const double *const q = qkv, *const k = q + context * size, *const v = k + context * size;
  for (int64_t i = 0; i < context; i++) {
    double sum = 0;
    for (int64_t j = 0; j < context; j++) {
      double score = 0;
      for (int64_t c = 0; c < size; c++) score += q[i * size + c] * k[j * size + c];
      weights[i * context + j] = j > i ? 0 : exp(score / sqrt((double)size));
      sum += weights[i * context + j];
    }
    for (int64_t j = 0; j < context; j++) weights[i * context + j] /= sum;
  }
  dense_multiply(context, size, context, weights, v, out);
}

static double head_loss(const void *arguments, const double *qkv) {
  const struct head *const h = arguments;
  double *const weights = dense_new(h->context * h->context), *const out = dense_new(h->context * h->size), sum = 0;
  head_forward(h, qkv, weights, out);
  for (int64_t k = 0; k < h->context * h->size; k++) sum += out[k] * h->sout[k];
  free(weights), free(out);
  return sum;
}

/* sqkv <- the score of qkv. */
static void head_adjoint(const struct head *h, const double *qkv, const double *weights, double *sqkv) {
  const int64_t context = h->context, size = h->size, all = context * size, square = context * context;
  double *const t = dense_new(square), *const s = dense_new(square), *const turned = dense_new(all);
  dense_transpose(context, context, weights, t);
  dense_multiply(context, size, context, t, h->sout, sqkv + 2 * all);
  dense_transpose(context, size, qkv + 2 * all, turned);
  dense_multiply(context, context, size, h->sout, turned, s);
  for (int64_t i = 0; i < context; i++) {
    double mean = 0;
    for (int64_t j = 0; j < context; j++) mean += weights[i * context + j] * s[i * context + j];
    for (int64_t j = 0; j < context; j++)
      s[i * context + j] = weights[i * context + j] * (s[i * context + j] - mean) / sqrt((double)size);
  }
  dense_multiply(context, size, context, s, qkv + all, sqkv);
  dense_transpose(context, context, s, t);
  dense_multiply(context, size, context, t, qkv, sqkv + all);
  free(t), free(s), free(turned);
}

/* Row i, column c of part p (q, k, v) of head h of sequence s. */
static int64_t at(const struct kwm_attention *a, int parts, int p, int64_t s, int64_t h, int64_t i, int64_t c) {
  const int64_t width = a->heads * a->size;
  return (s * a->context + i) * parts * width + p * width + h * a->size + c;
}

/* Where a head's numbers are wanted, all in double. */
struct wanted {
  double *weights, *out, *sqkv;
};

static void one_head(const struct kwm_attention *a, int64_t s, int64_t h, const float *qkv, const float *sout,
                     const struct wanted *to) {
  const int64_t context = a->context, size = a->size, all = context * size;
  double *const in = dense_new(3 * all), *const score = dense_new(all), *const out = dense_new(all);
  double *const back = dense_new(3 * all), *const weights = to->weights + (s * a->heads + h) * context * context;
  const struct head head = {context, size, score};
  for (int64_t k = 0; k < all; k++) {
    score[k] = (double)sout[at(a, 1, 0, s, h, k / size, k % size)];
    for (int p = 0; p < 3; p++) in[p * all + k] = (double)qkv[at(a, 3, p, s, h, k / size, k % size)];
  }
  head_forward(&head, in, weights, out);
  head_adjoint(&head, in, weights, back);
  if (all < 200 && s == 0)
    for (int64_t k = 0; k < 3 * all; k++) assert_close(case_slope(head_loss, &head, in, k), back[k], 1e-5, 1e-8);
  for (int64_t k = 0; k < all; k++) {
    to->out[at(a, 1, 0, s, h, k / size, k % size)] = out[k];
    for (int p = 0; p < 3; p++) to->sqkv[at(a, 3, p, s, h, k / size, k % size)] = back[p * all + k];
  }
  free(in), free(score), free(out), free(back);
}

static void attention_case(struct device_case *c, const int64_t *sizes, double bound) {
  const struct kwm_attention a = {sizes[0], sizes[1], sizes[2], sizes[3]};
  const int64_t n = a.sequences * a.context, width = a.heads * a.size;
  const int64_t weights = a.sequences * a.heads * a.context * a.context;
  const float *const qkv = case_normals(c, 3 * n * width, 1, 1.2), *const sout = case_normals(c, n * width, 2, 1);
  const struct wanted wanted = {case_zeros(c, weights), case_zeros(c, n * width), case_zeros(c, 3 * n * width)};
  for (int64_t k = 0; k < a.sequences * a.heads; k++) one_head(&a, k / a.heads, k % a.heads, qkv, sout, &wanted);
  float *const to_qkv = case_copy(c, 3 * n * width, qkv), *const to_sout = case_copy(c, n * width, sout);
  float *const to_weights = case_floats(c, weights), *const to_out = case_floats(c, n * width);
  float *const to_sqkv = case_floats(c, 3 * n * width);
  case_ops(c)->attention(c->device, &a, to_qkv, to_weights, to_out);
  assert_floats(c, n * width, to_out, wanted.out, bound);
  const float *const found = case_get(c, weights, sizeof *found, to_weights);
  assert_below(dense_error_f32(weights, found, wanted.weights), bound);
  for (int64_t k = 0; k < weights; k++)
    if (k % a.context > k / a.context % a.context) assert_true(found[k] == 0);
  case_ops(c)->attention_adjoint(c->device, &a, to_qkv, to_weights, to_sout, to_sqkv);
  assert_floats(c, 3 * n * width, to_sqkv, wanted.sqkv, bound);
}

static void body_attention(struct device_case *c, const int64_t *sizes) {
  attention_case(c, sizes, CLOSE);
}

static void test_attention(void **state) {
  (void)state;
  static const int64_t sizes[][4] = {{1, 1, 1, 1},    {2, 5, 3, 4},    {3, 17, 2, 7},   {2, 64, 2, 32},
                                     {2, 128, 3, 64}, {1, 130, 2, 33}, {1, 200, 1, 64}, {3, 48, 2, 64}};
  tensor_run_all(body_attention, sizes);
}

static void body_rounded(struct device_case *c, const int64_t *sizes) {
  attention_case(c, sizes, ROUNDED);
}

/* With products on tensor cores, where heads of 64 have kernels of their own. */
static void test_attention_tf32(void **state) {
  (void)state;
  static const int64_t sizes[][4] = {{2, 128, 3, 64}, {1, 16, 1, 64}, {3, 48, 2, 64},
                                     {2, 112, 1, 64}, {2, 40, 2, 64}, {1, 33, 2, 5}};
  const struct kwm_device_spec rounded = {.tf32 = true}, full = {0};
  char name[16];
  snprintf(name, sizeof name, "%s", kwm_device_name(test_device));
  kwm_device_close(test_device);
  assert_ok(kwm_device_open(&test_device, name, &rounded));
  tensor_run_all(body_rounded, sizes);
  kwm_device_close(test_device);
  assert_ok(kwm_device_open(&test_device, name, &full));
}

/* ---- the categorical innovation ---- */

/* One row in double: innovation and facts. */
static void row_in_double(int64_t classes, const float *logits, int64_t target, double *e, double *facts) {
  double top = (double)logits[0], sum = 0;
  for (int64_t k = 1; k < classes; k++) top = fmax(top, (double)logits[k]);
  for (int64_t k = 0; k < classes; k++) sum += exp((double)logits[k] - top);
  for (int k = 0; k < KWM_TOKEN_FACTS; k++) facts[k] = 0;
  for (int64_t k = 0; k < classes; k++) {
    const double p = exp((double)logits[k] - top) / sum;
    e[k] = (k == target) - p;
    facts[KWM_TOKEN_ENTROPY] -= p > 0 ? p * log(p) : 0;
    facts[KWM_TOKEN_SQUARES] += p * p;
  }
  facts[KWM_TOKEN_SURPRISAL] = log(sum) - ((double)logits[target] - top);
  facts[KWM_TOKEN_CORRECT] = (double)logits[target] >= top;
  facts[KWM_TOKEN_LARGEST] = 1 / sum;
}

/* The log-likelihood, whose slope the innovation is. */
struct likelihood {
  int64_t classes, target;
};

static double log_likelihood(const void *arguments, const double *logits) {
  const struct likelihood *const of = arguments;
  double sum = 0;
  for (int64_t k = 0; k < of->classes; k++) sum += exp(logits[k]);
  return logits[of->target] - log(sum);
}

/* Every third target is the likeliest class; the first row is far from zero, the second has one class for certain. */
static float *make_logits(struct device_case *c, int64_t n, int64_t classes, int64_t ld, int32_t *targets) {
  float *const logits = case_normals(c, n * ld, 1, 2);
  for (int64_t r = 0; r < n; r++) {
    int64_t best = 0;
    if (r == 0)
      for (int64_t k = 0; k < classes; k++) logits[k] += 300;
    if (r == 1) logits[r * ld + classes / 2] = 150;
    for (int64_t k = 1; k < classes; k++)
      if (logits[r * ld + k] > logits[r * ld + best]) best = k;
    if (r % 3 == 0) targets[r] = (int32_t)best;
  }
  return logits;
}

static void body_categorical(struct device_case *c, const int64_t *size) {
  const int64_t n = size[0], classes = size[1], ld = size[2], all = (n - 1) * ld + classes;
  int32_t *const targets = case_indices(c, n, classes, 3);
  float *const logits = make_logits(c, n, classes, ld, targets);
  double *const e = case_wide(c, all, logits), *const facts = case_zeros(c, n * KWM_TOKEN_FACTS);
  for (int64_t r = 0; r < n; r++) {
    const struct likelihood of = {classes, targets[r]};
    double *const wide = case_wide(c, classes, logits + r * ld);
    row_in_double(classes, logits + r * ld, targets[r], e + r * ld, facts + r * KWM_TOKEN_FACTS);
    for (int64_t k = 0; k < classes && r == 2; k += case_stride(classes))
      assert_close(case_slope(log_likelihood, &of, wide, k), e[r * ld + k], 1e-5, 1e-8);
  }
  const int32_t *const to_targets = case_copy(c, n, targets);
  float *const to = case_copy(c, all, logits), *const to_facts = case_floats(c, n * KWM_TOKEN_FACTS);
  case_ops(c)->categorical(c->device, n, classes, ld, to_targets, false, to, to_facts);
  assert_same(c, all, to, logits);
  const float *const before = case_get(c, n * KWM_TOKEN_FACTS, sizeof *before, to_facts);
  case_ops(c)->categorical(c->device, n, classes, ld, to_targets, true, to, to_facts);
  assert_same(c, n * KWM_TOKEN_FACTS, to_facts, before);
  const float *const found = case_get(c, all, sizeof *found, to);
  for (int64_t r = 0; r < n; r++) {
    if (r != 1) assert_below(dense_error_f32(classes, found + r * ld, e + r * ld), CLOSE);
    for (int64_t k = 0; k < classes; k++) assert_close((double)found[r * ld + k], e[r * ld + k], 0, 1e-6);
    for (int k = 0; k < KWM_TOKEN_FACTS; k++)
      assert_close((double)before[r * KWM_TOKEN_FACTS + k], facts[r * KWM_TOKEN_FACTS + k], 1e-5, 1e-5);
    for (int64_t k = classes; k < ld && r < n - 1; k++) assert_true(found[r * ld + k] == logits[r * ld + k]);
  }
}

static void test_categorical(void **state) {
  (void)state;
  static const int64_t sizes[][3] = {{1, 1, 1},     {4, 2, 3},       {9, 65, 65},
                                     {7, 513, 520}, {5, 4099, 4103}, {4, 33278, 33278}};
  tensor_run_all(body_categorical, sizes);
}

/* What is not a number shows in the facts. */
static void body_not_finite(struct device_case *c, const int64_t *size) {
  const int64_t classes = size[0];
  float *const logits = case_normals(c, classes, 1, 1);
  const int32_t target = 0;
  logits[classes / 2] = NAN;
  float *const to = case_copy(c, classes, logits), *const facts = case_floats(c, KWM_TOKEN_FACTS);
  case_ops(c)->categorical(c->device, 1, classes, classes, case_copy(c, 1, &target), true, to, facts);
  const float *const found = case_get(c, KWM_TOKEN_FACTS, sizeof *found, facts);
  assert_true(isnan(found[KWM_TOKEN_SURPRISAL]) && isnan(found[KWM_TOKEN_ENTROPY]));
}

static void test_not_finite(void **state) {
  (void)state;
  static const int64_t sizes[][1] = {{3}, {1000}, {5000}};
  tensor_run_all(body_not_finite, sizes);
}

/* ---- the read-out as a whole: of rounded numbers only as near as 8 bits of mantissa are ---- */

/* logits -> e in double, and their facts. */
static void read_in_double(const struct kwm_read *r, double *logits, double *facts) {
  double *const E = dense_new(r->classes * r->width), *const y = dense_new(r->n * r->width);
  double *const turned = dense_new(r->classes * r->width);
  for (int64_t k = 0; k < r->classes * r->width; k++) E[k] = (double)r->E[k];
  for (int64_t k = 0; k < r->n * r->width; k++) y[k] = (double)r->y[k];
  dense_transpose(r->classes, r->width, E, turned);
  dense_multiply(r->n, r->classes, r->width, y, turned, logits);
  for (int64_t i = 0; i < r->n; i++) {
    float *const row = calloc((size_t)r->classes, sizeof *row);
    assert_non_null(row);
    for (int64_t k = 0; k < r->classes; k++) row[k] = (float)logits[i * r->classes + k];
    row_in_double(r->classes, row, r->targets[i], logits + i * r->classes, facts + i * KWM_TOKEN_FACTS);
    free(row);
  }
  free(E), free(y), free(turned);
}

static void read_case(struct device_case *c, const int64_t *size, bool half) {
  const int64_t n = size[0], classes = size[1], w = size[2], facts = n * KWM_TOKEN_FACTS;
  const double bound = half ? 2e-2 : 1e-5;
  const float *const y = case_normals(c, n * w, 1, 1), *const E = case_normals(c, classes * w, 2, 0.3);
  const float *const before = case_normals(c, classes * w, 4, 0.1);
  const int32_t *const targets = case_indices(c, n, classes, 3);
  struct kwm_read r = {.n = n, .classes = classes, .width = w, .y = y, .E = E, .targets = targets, .half = half};
  double *const e = case_zeros(c, n * classes), *const wanted = case_zeros(c, facts), *const sy = case_zeros(c, n * w);
  double *const turned = case_zeros(c, n * classes), *const sE = case_zeros(c, classes * w);
  read_in_double(&r, e, wanted);
  dense_multiply(n, w, classes, e, case_wide(c, classes * w, E), sy);
  dense_transpose(n, classes, e, turned);
  dense_multiply(classes, w, n, turned, case_wide(c, n * w, y), sE);
  for (int64_t k = 0; k < classes * w; k++) sE[k] += (double)before[k];
  r.y = case_copy(c, n * w, y), r.E = case_copy(c, classes * w, E), r.targets = case_copy(c, n, targets);
  r.room = case_floats(c, kwm_tensor_read_room(n, classes, w, half));
  r.facts = case_floats(c, facts);
  case_ops(c)->read(c->device, &r);
  const float *const alone = case_get(c, facts, sizeof *alone, r.facts);
  r.sy = case_floats(c, n * w), r.sE = case_copy(c, classes * w, before);
  case_ops(c)->read(c->device, &r);
  assert_same(c, facts, r.facts, alone);
  for (int64_t k = 0; k < facts; k++)
    if (!half || k % KWM_TOKEN_FACTS != KWM_TOKEN_CORRECT) assert_close((double)alone[k], wanted[k], bound, bound);
  assert_floats(c, n * w, r.sy, sy, bound);
  assert_floats(c, classes * w, r.sE, sE, bound);
}

static void body_read(struct device_case *c, const int64_t *size) {
  read_case(c, size, false);
  read_case(c, size, true);
}

static void test_read(void **state) {
  (void)state;
  static const int64_t sizes[][3] = {{1, 2, 1}, {5, 7, 3}, {33, 65, 16}, {40, 513, 24}, {20, 3001, 64}, {128, 128, 32}};
  tensor_run_all(body_read, sizes);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_attention),  cmocka_unit_test(test_attention_tf32), cmocka_unit_test(test_categorical),
    cmocka_unit_test(test_not_finite), cmocka_unit_test(test_read),
};

DEVICE_TEST_MAIN(tests)
