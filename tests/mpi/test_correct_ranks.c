/* An observer whose streams are divided over ranks says what one with all of them says, also where streams share what
   they correct: noises that adapt and rows of the read-out. */
#include "../correct_case.h"
#include "grids.h"

enum { STREAMS = 5, RUN = 8, RUNS = 6 };

struct division {
  struct kwm_layout layout;
  struct kwm_shared shared;
  int64_t first, own;
};

static void divide(struct division *to, kwm_device *device) {
  const int size = world_size();
  assert_all(kwm_layout_init(&to->layout, 1, 1, size) == KWM_OK);
  to->first = STREAMS * to->layout.owner / size;
  to->own = STREAMS * (to->layout.owner + 1) / size - to->first;
  assert_all(kwm_shared_init(&to->shared, &to->layout, device, V) == KWM_OK); /* pieces shorter than W */
}

static void undivide(struct division *to) {
  kwm_shared_fini(&to->shared);
  kwm_layout_fini(&to->layout);
}

/* One run's tokens of streams [first, first + own). */
static void make_run(int run, int64_t first, int64_t own, float *y, int32_t *tokens) {
  for (int64_t t = 0; t < RUN; t++)
    for (int64_t s = 0; s < own; s++) {
      const int64_t at = (run * RUN + t) * STREAMS + first + s, to = t * own + s;
      for (int k = 0; k < D; k++) y[to * D + k] = 0.7f * draw(2, at * D + k);
      tokens[to] = (int32_t)kwm_rng_below(11, KWM_RNG_TEST, 3, (uint64_t)at, 4);
    }
}

static float farthest(float most, float a, float b) {
  return fabsf(a - b) > most ? fabsf(a - b) : most;
}

/* The largest difference between this rank's facts and those of all streams on one. */
static float compare_runs(const struct division *at, kwm_correct *whole, kwm_correct *part) {
  float most = 0;
  for (int run = 0; run < RUNS; run++) {
    float y[RUN * STREAMS * D], all[RUN * STREAMS * KWM_TOKEN_FACTS], some[RUN * STREAMS * KWM_TOKEN_FACTS];
    int32_t tokens[RUN * STREAMS];
    make_run(run, 0, STREAMS, y, tokens);
    kwm_correct_run(whole, RUN, y, tokens, all);
    make_run(run, at->first, at->own, y, tokens);
    kwm_correct_run(part, RUN, y, tokens, some);
    for (int64_t t = 0; t < RUN; t++)
      for (int64_t k = 0; k < at->own * KWM_TOKEN_FACTS; k++)
        most = farthest(most, some[t * at->own * KWM_TOKEN_FACTS + k],
                        all[(t * STREAMS + at->first) * KWM_TOKEN_FACTS + k]);
  }
  return most;
}

static void compare(struct kwm_correct_spec spec, kwm_device *device) {
  struct division at;
  kwm_correct *whole = NULL, *part = NULL;
  divide(&at, device);
  spec.device = device;
  spec.streams = STREAMS;
  assert_all(kwm_correct_create(&whole, &spec) == KWM_OK);
  spec.streams = at.own;
  spec.shared = &at.shared;
  assert_all(kwm_correct_create(&part, &spec) == KWM_OK);
  assert_all(compare_runs(&at, whole, part) < 2e-5f);
  const struct kwm_correct_facts wanted = kwm_correct_facts(whole), found = kwm_correct_facts(part);
  assert_all(fabs(found.noise / wanted.noise - 1) < 1e-4 && fabs(found.scale / wanted.scale - 1) < 1e-4);
  assert_all(spec.adapt == 0 || (found.noise != spec.noise && found.scale != 1));
  kwm_correct_destroy(whole);
  kwm_correct_destroy(part);
  undivide(&at);
}

static void compare_all(kwm_device *device) {
  struct text text;
  void *W = NULL;
  make_text(&text);
  assert_all(kwm_device_alloc(device, &W, sizeof text.W, "read-out") == KWM_OK);
  kwm_device_put(device, W, text.W, sizeof text.W);
  struct kwm_correct_spec spec = spec_of(&text, KWM_CORRECT_FULL, KWM_CORRECT_OBSERVED);
  spec.device_W = W;
  spec.every = 4, spec.rows = 2, spec.bias = 0.3, spec.bias_decay = 0.99;
  spec.readout = 0.2;
  compare(spec, device);
  spec.adapt = 0.2;
  compare(spec, device);
  spec.kind = KWM_CORRECT_BIAS, spec.adapt = 0;
  compare(spec, device);
  spec = spec_of(&text, KWM_CORRECT_FULL, KWM_CORRECT_EXACT);
  spec.adapt = 0.2;
  if (device == NULL) compare(spec, NULL);
  kwm_device_free(device, W);
}

static void test_host(void **state) {
  (void)state;
  compare_all(NULL);
}

static void test_device(void **state) {
  (void)state;
  const struct kwm_device_spec spec = {.local_rank = 0};
  kwm_device *device = NULL;
  assert_all(kwm_device_open(&device, "shadow", &spec) == KWM_OK);
  compare_all(device);
  kwm_device_close(device);
}

static const struct CMUnitTest tests[] = {cmocka_unit_test(test_host), cmocka_unit_test(test_device)};
KWM_TEST_MAIN(tests)
