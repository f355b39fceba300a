/* A device's layers and observations give what the host's give. */
#include "device_case.h"
#include "gated_reference.h"

#include "kwm/layer.h"
#include "kwm/model.h"
#include "kwm/tensor.h"

static const double CLOSE = 1e-5, SENSITIVE = 1e-4;

/* A third of them ink, the rest background, in runs of all lengths. */
static uint8_t *make_pixels(struct device_case *c, int64_t n, int64_t length) {
  uint8_t *const pixels = case_host(c, n * length, 1);
  for (int64_t i = 0; i < n; i++)
    for (int64_t t = 0, ink = 0; t < length; t++) {
      const uint64_t draw = kwm_rng_below(7, KWM_RNG_TEST, 50 + (uint64_t)i, (uint64_t)t, 2560);
      if (draw % (uint64_t)(i % 5 + 2) == 0 && t % 60 < 55) ink = !ink && i % 7 != 1;
      pixels[i * length + t] = (uint8_t)(ink || i % 7 == 2 ? 1 + draw % 255 : 0);
    }
  return pixels;
}

static void body_pixels(struct device_case *c, const int64_t *size) {
  const int64_t n = size[0], w = size[1];
  const uint8_t *const pixels = make_pixels(c, n, w);
  double *const wanted = case_host(c, n * (w + 1), sizeof *wanted);
  for (int64_t k = 0; k < n * (w + 1); k++)
    wanted[k] = k % (w + 1) == w ? 1 : pixels[k / (w + 1) * w + k % (w + 1)] / 255.0;
  float *const to = case_floats(c, n * (w + 1));
  c->device->ops->pixels(c->device, n, w, case_copy(c, n * w, pixels), to);
  assert_floats(c, n * (w + 1), to, wanted, 1e-6);
}

/* Zeros of both signs and NaN among the inputs: NaN stays NaN. */
static void body_relu(struct device_case *c, const int64_t *size) {
  const int64_t n = size[0], w = size[1];
  float *const u = case_normals(c, n * w, 1, 1), *const to = case_floats(c, n * (w + 1));
  for (int64_t k = 0; k < n * w; k += 11) u[k] = k % 3 == 0 ? 0.0f : -0.0f;
  if (n * w > 7) u[7] = NAN;
  c->device->ops->relu(c->device, n, w, case_copy(c, n * w, u), to);
  const float *const found = case_get(c, n * (w + 1), sizeof *found, to);
  for (int64_t k = 0; k < n * (w + 1); k++) {
    const int64_t i = k / (w + 1), j = k % (w + 1);
    const float wanted = j == w ? 1 : u[i * w + j] <= 0 ? 0 : u[i * w + j];
    assert_true(isnan(wanted) ? isnan(found[k]) : found[k] == wanted);
  }
}

static void body_mask(struct device_case *c, const int64_t *size) {
  const int64_t n = size[0], w = size[1], m = size[2];
  float *const u = case_normals(c, n * w, 1, 1), *const J = case_normals(c, n * m * w, 2, 1);
  for (int64_t k = 0; k < n * w; k += 11) u[k] = 0;
  if (n * w > 7) u[7] = NAN;
  float *const to = case_copy(c, n * m * w, J);
  for (int64_t k = 0; k < n * m * w; k++)
    if (!(u[k / (m * w) * w + k % w] > 0)) J[k] = 0;
  c->device->ops->relu_mask(c->device, n, m, w, case_copy(c, n * w, u), to);
  assert_same(c, n * m * w, to, J);
}

/* Every element by the rule itself, at any place of the rows; what lies between rows stays. */
static void body_drop(struct device_case *c, const int64_t *size) {
  const int64_t n = size[0], w = size[1], m = size[2], ld = w + size[3];
  const struct kwm_dropout drops[] = {{7, 3, 2, 1000, 0.4f}, {8, 1u << 31, 0, 0, 0.9f}};
  for (int k = 0; k < 2; k++) {
    float *const x = case_normals(c, n * m * ld, 4, 1), *const to = case_copy(c, n * m * ld, x);
    c->device->ops->drop(c->device, n, m, w, ld, &drops[k], to);
    for (int64_t e = 0; e < n * m * ld; e++)
      if (e % ld < w) x[e] *= kwm_tensor_keep(&drops[k], e / ld / m, e % ld);
    assert_same(c, n * m * ld, to, x);
  }
}

/* Nearly the asked share is dropped, and what is left makes up for it. */
static void test_drop_share(void **state) {
  (void)state;
  enum { N = 64, W = 257 };
  const struct kwm_dropout drop = {.seed = 1, .step = 9, .rate = 0.3f};
  float x[N * W];
  double sum = 0;
  for (int k = 0; k < N * W; k++) x[k] = 1;
  kwm_device_drop(NULL, N, 1, W, W, &drop, x);
  for (int k = 0; k < N * W; k++) {
    assert_true(x[k] == 0 || fabsf(x[k] - 1 / 0.7f) < 1e-6f);
    sum += (double)x[k];
  }
  assert_true(fabs(sum / (N * W) - 1) < 4 * sqrt(0.3 / 0.7 / (N * W)));
}

static void test_dense(void **state) {
  (void)state;
  static const int64_t sizes[][4] = {{1, 1, 1}, {3, 16, 10}, {100, 256, 10}, {33, 257, 1}, {257, 33, 3}};
  case_run_all(body_pixels, sizes);
  case_run_all(body_relu, sizes);
  case_run_all(body_mask, sizes);
  static const int64_t rows[][4] = {{1, 1, 1, 0}, {3, 16, 10, 0}, {100, 256, 1, 1}, {33, 257, 3, 2}, {5, 6, 10, 1}};
  case_run_all(body_drop, rows);
}

/* Decays |a| at gate 1/2 of 0.6 to 0.99, phases of 0.05 to 1.5, the rest of order one half. */
static float *make_theta(struct device_case *c, int64_t count) {
  float *const theta = case_normals(c, count * KWM_GATED_PARAMS, 3, 0.4);
  for (int64_t u = 0; u < count; u++) {
    const double decay = 0.6 + 0.39 * (double)u / (double)count;
    theta[u * KWM_GATED_PARAMS] = (float)log(-2 * log(decay));
    theta[u * KWM_GATED_PARAMS + 1] = (float)log(0.05 + 1.45 * kwm_rng_uniform(7, KWM_RNG_TEST, 4, (uint64_t)u));
  }
  return theta;
}

/* h and S as the device finds them, and h again where S is not asked for. */
struct gated_found {
  float *h, *S, *plain;
};

static struct gated_found run_gated(struct device_case *c, const int64_t *size, const float *theta,
                                    const uint8_t *pixels) {
  const int64_t n = size[0], length = size[1], count = size[2], states = n * 2 * count;
  float *const tables = case_floats(c, kwm_device_gated_floats(count));
  uint16_t *const symbols = case_new(c, n * length, sizeof *symbols);
  int32_t *const n_symbols = case_new(c, n, sizeof *n_symbols);
  const struct gated_found at = {case_floats(c, states), case_floats(c, states * KWM_GATED_PARAMS),
                                 case_floats(c, states)};
  const struct kwm_device_ops *const ops = c->device->ops;
  ops->gated_tables(c->device, count, case_copy(c, count * KWM_GATED_PARAMS, theta), tables);
  ops->gated_encode(c->device, n, length, case_copy(c, n * length, pixels), symbols, n_symbols);
  ops->gated_forward(c->device, n, length, count, tables, symbols, n_symbols, at.h, at.S);
  ops->gated_forward(c->device, n, length, count, tables, symbols, n_symbols, at.plain, NULL);
  return (struct gated_found){case_get(c, states, sizeof(float), at.h),
                              case_get(c, states * KWM_GATED_PARAMS, sizeof(float), at.S),
                              case_get(c, states, sizeof(float), at.plain)};
}

/* Term by term in double precision: any number of units. */
static void body_gated(struct device_case *c, const int64_t *size) {
  const int64_t n = size[0], length = size[1], count = size[2], states = n * 2 * count;
  const float *const theta = make_theta(c, count);
  const uint8_t *const pixels = make_pixels(c, n, length);
  const struct gated_found found = run_gated(c, size, theta, pixels);
  double *const h = case_host(c, states, sizeof *h), *const S = case_host(c, states * KWM_GATED_PARAMS, sizeof *S);
  const double *const wide = case_wide(c, count * KWM_GATED_PARAMS, theta);
  for (int64_t i = 0; i < n; i++)
    for (int64_t u = 0; u < count; u++) {
      double complex of_unit[REF_PARAMS];
      double peak[REF_PARAMS + 1];
      const double complex end = ref_unit(wide + u * REF_PARAMS, length, pixels + i * length, of_unit, peak);
      h[2 * i * count + u] = creal(end), h[(2 * i + 1) * count + u] = cimag(end);
      for (int k = 0; k < REF_PARAMS; k++) {
        S[(2 * i * REF_PARAMS + k) * count + u] = creal(of_unit[k]);
        S[((2 * i + 1) * REF_PARAMS + k) * count + u] = cimag(of_unit[k]);
      }
    }
  assert_below(dense_error_f32(states, found.h, h), CLOSE);
  assert_below(dense_error_f32(states, found.plain, h), CLOSE);
  assert_below(dense_error_f32(states * KWM_GATED_PARAMS, found.S, S), SENSITIVE);
}

/* The host's kernel. */
static void body_gated_host(struct device_case *c, const int64_t *size) {
  const int64_t n = size[0], length = size[1], count = size[2], states = n * 2 * count;
  const float *const theta = make_theta(c, count);
  const uint8_t *const pixels = make_pixels(c, n, length);
  const struct gated_found found = run_gated(c, size, theta, pixels);
  float *const h = case_host(c, states, sizeof *h), *const S = case_host(c, states * KWM_GATED_PARAMS, sizeof *S);
  int32_t *const index = case_host(c, n, sizeof *index);
  for (int64_t i = 0; i < n; i++) index[i] = (int32_t)i;
  kwm_gated *host = NULL;
  assert_ok(kwm_gated_create(&host, NULL, count, length, n));
  kwm_gated_refresh(host, theta);
  kwm_gated_forward(host, n, pixels, index, h, S);
  kwm_gated_destroy(host);
  assert_below(dense_error_f32(states, found.h, case_wide(c, states, h)), CLOSE);
  assert_below(dense_error_f32(states * KWM_GATED_PARAMS, found.S, case_wide(c, states * KWM_GATED_PARAMS, S)),
               SENSITIVE);
}

/* samples, pixels, units */
static void test_gated(void **state) {
  (void)state;
  static const int64_t odd[][4] = {{1, 1, 1}, {3, 200, 3}, {9, 784, 5}, {33, 50, 33}, {2, 97, 257}};
  static const int64_t even[][4] = {{1, 784, 16}, {16, 784, 64}, {33, 100, 256}, {100, 131, 32}};
  case_run_all(body_gated, odd);
  case_run_all(body_gated_host, even);
}

/* A parameter that is not a number is seen in that unit and in no other. */
static void body_gated_nan(struct device_case *c, const int64_t *size) {
  const int64_t n = size[0], count = size[2];
  float *const theta = make_theta(c, count);
  theta[1 * KWM_GATED_PARAMS + 3] = NAN;
  const struct gated_found found = run_gated(c, size, theta, make_pixels(c, n, size[1]));
  for (int64_t k = 0; k < n * 2 * count; k++) assert_true(isfinite(found.h[k]) == (k % count != 1));
}

static void test_gated_nan(void **state) {
  (void)state;
  static const int64_t sizes[][4] = {{3, 100, 16}, {2, 60, 37}};
  case_run_all(body_gated_nan, sizes);
}

/* Facts of one sample as the host adds them. */
static void take_facts(const struct kwm_innovation *one, double *facts) {
  facts[KWM_FACT_SURPRISAL] = one->surprisal;
  facts[KWM_FACT_ENTROPY] = one->entropy;
  facts[KWM_FACT_VARIANCE] = one->variance;
  facts[KWM_FACT_CORRECT] = one->correct;
  facts[KWM_FACT_SQUARED] = one->squared;
  facts[KWM_FACT_EXPECTED] = one->expected;
  facts[KWM_FACT_TOP] = 0;
  for (int bin = 0; bin < KWM_CALIBRATION_BINS; bin++) facts[KWM_FACT_TOP] += one->calibration.confidence[bin];
}

/* One kind of fact after the other: a large one must not hide a small one. */
static void check_facts(struct device_case *c, int64_t n, const double *facts, const double *wanted) {
  const double *const found = case_seen(c, n * KWM_FACTS, facts);
  for (int fact = 0; fact < KWM_FACTS; fact++) {
    double *const a = case_host(c, n, sizeof *a), *const b = case_host(c, n, sizeof *b);
    for (int64_t i = 0; i < n; i++) a[i] = found[i * KWM_FACTS + fact], b[i] = wanted[i * KWM_FACTS + fact];
    assert_below(dense_error(n, a, b), fact == KWM_FACT_VARIANCE ? 1e-4 : CLOSE);
  }
}

/* The observation of n samples: on the host, and the device's arguments for the same. */
struct seen {
  struct kwm_model model;
  float *logits;
  uint8_t *labels;
  struct kwm_device_observation on_device;
};

static struct seen make_seen(struct device_case *c, int64_t n, int64_t m, double noise) {
  struct seen seen = {.model = {.classes = m, .noise_variance = noise}, .logits = case_normals(c, n * m, 5, 2)};
  seen.labels = case_host(c, n, 1);
  for (int64_t i = 0; i < n; i++) {
    seen.labels[i] = (uint8_t)kwm_rng_below(7, KWM_RNG_TEST, 6, (uint64_t)i, (uint64_t)m);
    if (i % 3 == 1) seen.logits[i * m] += 90;                        /* probabilities that vanish */
    if (i % 3 == 2) seen.logits[i * m + m - 1] = seen.logits[i * m]; /* ties count for the first */
  }
  seen.on_device = (struct kwm_device_observation){.n = n,
                                                   .classes = m,
                                                   .noise = noise,
                                                   .logits = case_copy(c, n * m, seen.logits),
                                                   .labels = case_copy(c, n, seen.labels),
                                                   .facts = case_facts(c, n * KWM_FACTS)};
  return seen;
}

static void check_observe(struct device_case *c, int64_t n, int64_t m, double noise) {
  const struct seen seen = make_seen(c, n, m, noise);
  float *const e = case_host(c, n * m, sizeof *e), *const J = case_host(c, n * m * m, sizeof *J);
  double *const wanted = case_host(c, n * KWM_FACTS, sizeof *wanted);
  for (int64_t i = 0; i < n; i++) {
    struct kwm_innovation one = {0};
    kwm_observe(&seen.model, 1, seen.logits + i * m, seen.labels + i, e + i * m, J + i * m * m, &one);
    take_facts(&one, wanted + i * KWM_FACTS);
  }
  float *const to_e = case_floats(c, n * m), *const to_J = case_floats(c, n * m * m);
  c->device->ops->observe(c->device, &seen.on_device, to_e, to_J);
  check_facts(c, n, seen.on_device.facts, wanted);
  assert_floats(c, n * m, to_e, case_wide(c, n * m, e), CLOSE);
  assert_floats(c, n * m * m, to_J, case_wide(c, n * m * m, J), CLOSE);
  struct kwm_device_observation again = seen.on_device;
  again.facts = case_facts(c, n * KWM_FACTS);
  c->device->ops->observe(c->device, &again, NULL, NULL);
  check_facts(c, n, again.facts, wanted);
}

static void body_observe(struct device_case *c, const int64_t *size) {
  check_observe(c, size[0], size[1], 0);
  check_observe(c, size[0], size[1], 0.3);
}

static void check_sampled(struct device_case *c, int64_t n, int64_t m, double noise) {
  const struct seen seen = make_seen(c, n, m, noise);
  const struct kwm_draw draw = {.seed = 3, .step = 11, .index = 40};
  const int64_t width = noise > 0 ? m : 1;
  double *const draws = case_host(c, n * width, sizeof *draws), *const wanted =
                                                                    case_host(c, n * KWM_FACTS, sizeof *wanted);
  float *const g = case_host(c, n * m, sizeof *g), *const h = case_host(c, n * m, sizeof *h);
  for (int64_t i = 0; i < n; i++) {
    const uint64_t at = draw.index + (uint64_t)i;
    const struct kwm_draw of_sample = {.seed = draw.seed, .step = draw.step, .index = at};
    for (int64_t k = 0; k < width; k++)
      draws[i * width + k] = noise > 0 ? kwm_rng_normal(draw.seed, KWM_RNG_LABELS, draw.step, at * 64 + (uint64_t)k)
                                       : kwm_rng_uniform(draw.seed, KWM_RNG_LABELS, draw.step, at);
    struct kwm_innovation one = {0};
    kwm_observe_sampled(&seen.model, 1, seen.logits + i * m, seen.labels + i, &of_sample, g + i * m, h + i * m, &one);
    take_facts(&one, wanted + i * KWM_FACTS);
  }
  float *const to_g = case_floats(c, n * m), *const to_h = case_floats(c, n * m);
  c->device->ops->observe_sampled(c->device, &seen.on_device, case_copy(c, n * width, draws), to_g, to_h);
  check_facts(c, n, seen.on_device.facts, wanted);
  assert_floats(c, n * m, to_g, case_wide(c, n * m, g), CLOSE);
  assert_floats(c, n * m, to_h, case_wide(c, n * m, h), CLOSE);
}

static void body_sampled(struct device_case *c, const int64_t *size) {
  check_sampled(c, size[0], size[1], 0);
  check_sampled(c, size[0], size[1], 0.3);
}

static void test_observe(void **state) {
  (void)state;
  static const int64_t sizes[][4] = {{1, 2}, {3, 10}, {100, 10}, {33, 33}, {257, 3}, {16, 64}};
  case_run_all(body_observe, sizes);
  case_run_all(body_sampled, sizes);
}

/* A logit that is not a number is seen in its sample's facts, innovation and rows, and nowhere else. */
static void body_nan(struct device_case *c, const int64_t *size) {
  const int64_t n = size[0], m = size[1];
  struct seen seen = make_seen(c, n, m, 0);
  const float bad = NAN;
  kwm_device_put(c->device, (float *)(uintptr_t)seen.on_device.logits + m + m / 2, &bad, sizeof bad);
  float *const to_e = case_floats(c, n * m), *const to_J = case_floats(c, n * m * m);
  c->device->ops->observe(c->device, &seen.on_device, to_e, to_J);
  const double *const facts = case_seen(c, n * KWM_FACTS, seen.on_device.facts);
  const float *const e = case_get(c, n * m, sizeof *e, to_e), *const J = case_get(c, n * m * m, sizeof *J, to_J);
  for (int64_t i = 0; i < n; i++)
    for (int fact = 0; fact < KWM_FACTS; fact++)
      if (fact != KWM_FACT_CORRECT) assert_true(isfinite(facts[i * KWM_FACTS + fact]) == (i != 1));
  for (int64_t k = 0; k < n * m; k++) assert_true(isfinite(e[k]) == (k / m != 1));
  for (int64_t k = 0; k < n * m * m; k++) assert_true(isfinite(J[k]) == (k / (m * m) != 1));
}

static void test_nan(void **state) {
  (void)state;
  static const int64_t sizes[][4] = {{3, 10}, {33, 3}, {2, 64}};
  case_run_all(body_nan, sizes);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_dense),   cmocka_unit_test(test_gated), cmocka_unit_test(test_gated_nan),
    cmocka_unit_test(test_observe), cmocka_unit_test(test_nan),   cmocka_unit_test(test_drop_share),
};

DEVICE_TEST_MAIN(tests)
