/* Corrections on a device, in single precision, against those on the host. */
#include "correct_case.h"

#include "kwm/device.h"

/* On a device, in single precision: the same as on the host. More tokens than are sent at once, and a watched window.
 */
static void test_device(void **state) {
  (void)state;
  enum { LONG = 150 };
  const enum kwm_correct_kind kinds[] = {KWM_CORRECT_FULL, KWM_CORRECT_FULL, KWM_CORRECT_BIAS};
  const struct kwm_device_spec open = {0};
  struct text text;
  kwm_device *device;
  float y[LONG * S * D], *there;
  int32_t tokens[LONG * S];
  make_text(&text);
  for (int t = 0; t < LONG; t++)
    memcpy(y + t * S * D, text.y[t % STEPS], sizeof text.y[0]),
        memcpy(tokens + t * S, text.tokens[t % STEPS], sizeof text.tokens[0]);
  assert_ok(kwm_device_open(&device, "shadow", &open));
  assert_ok(kwm_device_alloc(device, (void **)&there, sizeof text.W, "read-out"));
  kwm_device_put(device, there, text.W, sizeof text.W);
  for (int at = 0; at < 3; at++) {
    struct kwm_correct_spec spec = spec_of(&text, kinds[at], at == 1 ? KWM_CORRECT_TOPK : KWM_CORRECT_OBSERVED);
    float facts[2][LONG * S * KWM_TOKEN_FACTS];
    double b[2][D], P[2][D * D], l[2][V];
    spec.top = 3, spec.bound = 0.5, spec.bias = at > 0 ? 0.5 : 0, spec.bias_decay = 0.95;
    kwm_correct *const here = open_correct(&spec);
    spec.device = device, spec.device_W = there, spec.W = NULL;
    struct kwm_correct_spec exact = spec;
    exact.form = KWM_CORRECT_EXACT; /* which no kernel knows, however few the classes are */
    assert_true(kwm_correct_on_device(&spec) && kwm_correct_on_device(&exact) == (kinds[at] == KWM_CORRECT_BIAS));
    kwm_correct *const far = open_correct(&spec);
    kwm_correct_run(here, LONG, y, tokens, facts[0]);
    kwm_correct_run(far, LONG, y, tokens, facts[1]);
    for (int k = 0; k < LONG * S * KWM_TOKEN_FACTS; k++)
      assert_close((double)facts[1][k], (double)facts[0][k], 1e-3, 1e-4);
    if (at < 2) {
      kwm_correct_state(here, 1, b[0], P[0], NULL);
      kwm_correct_state(far, 1, b[1], P[1], NULL);
      for (int k = 0; k < D; k++) assert_close(b[1][k], b[0][k], 1e-3, 1e-4);
      for (int k = 0; k < D * D; k++) assert_close(P[1][k], P[0][k], 1e-3, 1e-4);
      assert_close(kwm_correct_facts(far).contraction, kwm_correct_facts(here).contraction, 1e-3, 0);
    }
    for (int s = 0; s < S && at > 0; s++) {
      kwm_correct_state(here, s, NULL, NULL, l[0]);
      kwm_correct_state(far, s, NULL, NULL, l[1]);
      for (int i = 0; i < V; i++) assert_close(l[1][i], l[0][i], 1e-3, 1e-4);
    }
    assert_true(kwm_correct_facts(far).broken == 0);
    kwm_correct_destroy(here);
    kwm_correct_destroy(far);
  }
  kwm_device_free(device, there);
  kwm_device_close(device);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_device),
};
KWM_TEST_MAIN(tests)
