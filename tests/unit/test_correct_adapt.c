/* Noises that follow the innovations: a simulated offset that drifts is followed by the process noise that it drifts
   with, from far too much and from far too little. */
#include "correct_case.h"
#include "kwm/device.h"

enum { RUN = 64, RUNS = 80, LAST = 40 };

static const double KEEP = 0.99;
static float read_out[V * D];

/* Tokens that softmax(W(y + b)) draws, b wandering by the variance `noise` a token; b (S, D). */
static void draw_run(int run, double noise, double *b, float *y, int32_t *tokens) {
  for (int t = 0; t < RUN; t++)
    for (int s = 0; s < S; s++) {
      const int64_t at = (int64_t)(run * RUN + t) * S + s;
      double logits[V], sum = 0;
      for (int k = 0; k < D; k++) {
        b[s * D + k] = KEEP * b[s * D + k] + sqrt(noise) * kwm_rng_normal(2, KWM_RNG_TEST, 50, (uint64_t)(at * D + k));
        y[(t * S + s) * D + k] = (float)kwm_rng_normal(2, KWM_RNG_TEST, 51, (uint64_t)(at * D + k));
      }
      for (int i = 0; i < V; i++) {
        logits[i] = 0;
        for (int k = 0; k < D; k++)
          logits[i] += (double)read_out[i * D + k] * ((double)y[(t * S + s) * D + k] + b[s * D + k]);
        sum += exp(logits[i]);
      }
      double left = (double)kwm_rng_below(2, KWM_RNG_TEST, 52, (uint64_t)at, 1 << 20) / (1 << 20) * sum;
      int32_t token = 0;
      while (token + 1 < V && (left -= exp(logits[token])) > 0) token++;
      tokens[t * S + s] = token;
    }
}

/* The geometric mean of q, and the mean of R's scale, over the last runs. */
static void follow(const struct kwm_correct_spec *spec, double noise, double *q, double *scale) {
  double b[S * D] = {0};
  float y[RUN * S * D], facts[RUN * S * KWM_TOKEN_FACTS];
  int32_t tokens[RUN * S];
  kwm_correct *const correct = open_correct(spec);
  *q = *scale = 0;
  for (int run = 0; run < RUNS; run++) {
    draw_run(run, noise, b, y, tokens);
    kwm_correct_run(correct, RUN, y, tokens, facts);
    const struct kwm_correct_facts found = kwm_correct_facts(correct);
    if (run >= RUNS - LAST) *q += log(found.noise) / LAST, *scale += found.scale / LAST;
  }
  assert_true(kwm_correct_facts(correct).broken == 0);
  kwm_correct_destroy(correct);
  *q = exp(*q);
}

static void compare(struct kwm_correct_spec *spec, double factor) {
  for (int k = 0; k < 4; k++) {
    const double noise = k % 2 == 0 ? 2e-2 : 2e-3;
    double q, scale;
    spec->noise = k < 2 ? 1e-6 : 0.3;
    follow(spec, noise, &q, &scale);
    assert_true(q < factor * noise && q > noise / factor);
    assert_true(scale > 0.9 && scale < 1.5); /* offsets are not known: predictions are a little too sure */
  }
}

static struct kwm_correct_spec adapting(const struct text *text, enum kwm_correct_kind kind,
                                        enum kwm_correct_form form) {
  struct kwm_correct_spec spec = spec_of(text, kind, form);
  for (int k = 0; k < V * D; k++) read_out[k] = text->W[k];
  spec.decay = KEEP, spec.adapt = 0.3;
  return spec;
}

static void test_host(void **state) {
  (void)state;
  struct text text;
  make_text(&text);
  struct kwm_correct_spec spec = adapting(&text, KWM_CORRECT_FULL, KWM_CORRECT_EXACT);
  compare(&spec, 2);
  spec.form = KWM_CORRECT_OBSERVED;
  compare(&spec, 4);
}

static void test_device(void **state) {
  (void)state;
  const struct kwm_device_spec open = {.local_rank = 0};
  struct text text;
  kwm_device *device;
  float *there;
  make_text(&text);
  struct kwm_correct_spec spec = adapting(&text, KWM_CORRECT_FULL, KWM_CORRECT_TOPK);
  assert_ok(kwm_device_open(&device, "shadow", &open));
  assert_ok(kwm_device_alloc(device, (void **)&there, sizeof text.W, "read-out"));
  kwm_device_put(device, there, text.W, sizeof text.W);
  double here[2], far[2];
  spec.noise = 1e-4;
  follow(&spec, 1e-2, &here[0], &here[1]);
  spec.device = device, spec.device_W = there, spec.W = NULL;
  assert_true(kwm_correct_on_device(&spec));
  follow(&spec, 1e-2, &far[0], &far[1]);
  assert_close(far[0], here[0], 0.05, 0);
  assert_close(far[1], here[1], 0.01, 0);
  spec.form = KWM_CORRECT_OBSERVED, spec.every = 8, spec.rows = 4;
  compare(&spec, 4);
  kwm_device_free(device, there);
  kwm_device_close(device);
}

/* What a run does to the noises is known to the runs after it alone. */
static void test_future(void **state) {
  (void)state;
  struct text text;
  float facts[2][2 * RUN * S * KWM_TOKEN_FACTS];
  make_text(&text);
  const struct kwm_correct_spec spec = adapting(&text, KWM_CORRECT_FULL, KWM_CORRECT_TOPK);
  for (int other = 0; other < 2; other++) {
    double b[S * D] = {0};
    float y[RUN * S * D];
    int32_t tokens[RUN * S];
    kwm_correct *const correct = open_correct(&spec);
    for (int run = 0; run < 2; run++) {
      draw_run(run, 1e-2, b, y, tokens);
      for (int s = 0; s < S && run == 1 && other; s++) tokens[(RUN - 1) * S + s] = V - 1 - tokens[(RUN - 1) * S + s];
      kwm_correct_run(correct, RUN, y, tokens, facts[other] + run * RUN * S * KWM_TOKEN_FACTS);
    }
    kwm_correct_destroy(correct);
  }
  assert_memory_equal(facts[0], facts[1], (size_t)((2 * RUN - 1) * S * KWM_TOKEN_FACTS) * sizeof(float));
}

static void test_refused(void **state) {
  (void)state;
  struct text text;
  kwm_correct *correct;
  make_text(&text);
  struct kwm_correct_spec spec = adapting(&text, KWM_CORRECT_LOWRANK, KWM_CORRECT_OBSERVED);
  assert_int_equal(kwm_correct_create(&correct, &spec), KWM_ERR_USAGE);
  spec.kind = KWM_CORRECT_BIAS, spec.bias = 1;
  assert_int_equal(kwm_correct_create(&correct, &spec), KWM_ERR_USAGE);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_host),
    cmocka_unit_test(test_device),
    cmocka_unit_test(test_future),
    cmocka_unit_test(test_refused),
};
KWM_TEST_MAIN(tests)
