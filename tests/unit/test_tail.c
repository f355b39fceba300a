/* The layers after an offset (kwm/tail.h): scores against central differences, and no knowledge of later tokens. */
#include <math.h>
#include <string.h>

#include "kwm/rng.h"
#include "kwm/tail.h"
#include "kwm/tensor.h"
#include "kwm_test.h"

enum { S = 2, CONTEXT = 6, WIDTH = 8, TYPES = 11, LAYERS = 3, ROWS = S * CONTEXT };

struct setting {
  struct kwm_transformer model;
  float *means[KWM_TENSORS_MAX];
  int32_t ids[ROWS], targets[ROWS];
};

static void open_setting(struct setting *setting) {
  memset(setting, 0, sizeof *setting);
  setting->model = (struct kwm_transformer){
      .types = TYPES, .context = CONTEXT, .width = WIDTH, .heads = 2, .ratio = 2, .layers = LAYERS, .stages = 1};
  assert_ok(kwm_transformer_lay_out(&setting->model));
  for (int t = 0; t < setting->model.n_tensors; t++) {
    const int64_t n = setting->model.tensors[t].rows * setting->model.tensors[t].columns;
    float *const mean = calloc((size_t)n, sizeof *mean);
    assert_non_null(mean);
    kwm_transformer_initial(&setting->model, t, 3, mean);
    for (int64_t k = 0; k < n; k++) mean[k] += 0.2f * (float)kwm_rng_normal(5, KWM_RNG_TEST, (uint64_t)t, (uint64_t)k);
    setting->means[t] = mean;
  }
  for (int k = 0; k < ROWS; k++) {
    setting->ids[k] = (int32_t)kwm_rng_below(5, KWM_RNG_TEST, 90, (uint64_t)k, TYPES);
    setting->targets[k] = (int32_t)kwm_rng_below(5, KWM_RNG_TEST, 91, (uint64_t)k, TYPES);
  }
}

static void close_setting(struct setting *setting) {
  for (int t = 0; t < setting->model.n_tensors; t++) free(setting->means[t]);
}

/* Offsets of the first two tokens, then those of [2, 5); facts (3, S), rows (S, groups, width) of the latter. */
static void read_block(const struct setting *setting, int layer, const float *offsets, float *facts, int groups,
                       float *rows) {
  float early[S * WIDTH];
  kwm_tail *tail;
  const struct kwm_tail_spec spec = {.model = &setting->model, .sequences = S, .layer = layer};
  assert_ok(kwm_tail_create(&tail, &spec));
  for (int k = 0; k < S * WIDTH; k++) early[k] = 0.3f * (float)kwm_rng_normal(5, KWM_RNG_TEST, 92, (uint64_t)k);
  kwm_tail_open(tail, setting->means, setting->ids, setting->targets);
  kwm_tail_offset(tail, 0, early);
  kwm_tail_offset(tail, 2, offsets);
  kwm_tail_read(tail, 2, 3, facts, groups, rows);
  kwm_tail_destroy(tail);
}

static double log_likelihood(const float *facts, int s) {
  double sum = 0;
  for (int t = 0; t < 3; t++) sum -= (double)facts[(t * S + s) * KWM_TOKEN_FACTS + KWM_TOKEN_SURPRISAL];
  return sum;
}

static void test_score(void **state) {
  (void)state;
  struct setting setting;
  open_setting(&setting);
  for (int layer = 1; layer <= LAYERS; layer++) {
    float offsets[S * WIDTH], facts[3 * S * KWM_TOKEN_FACTS], rows[S * 2 * WIDTH], other[S * 2 * WIDTH];
    for (int k = 0; k < S * WIDTH; k++) offsets[k] = 0.3f * (float)kwm_rng_normal(5, KWM_RNG_TEST, 93, (uint64_t)k);
    read_block(&setting, layer, offsets, facts, 2, rows);
    for (int k = 0; k < S * WIDTH; k++) {
      const int s = k / WIDTH;
      const float at = offsets[k], step = 1e-2f;
      offsets[k] = at + step;
      read_block(&setting, layer, offsets, facts, 2, other);
      const double above = log_likelihood(facts, s);
      offsets[k] = at - step;
      read_block(&setting, layer, offsets, facts, 2, other);
      const double slope = (above - log_likelihood(facts, s)) / (2 * (double)step);
      offsets[k] = at;
      const double found = (double)rows[2 * s * WIDTH + k % WIDTH] + (double)rows[(2 * s + 1) * WIDTH + k % WIDTH];
      assert_close(found, slope, 5e-3, 2e-3);
    }
  }
  close_setting(&setting);
}

/* Attention keeps earlier tokens with the offsets that they had, unless there is no attention left. */
static void test_caches(void **state) {
  (void)state;
  struct setting setting;
  const float none[S * WIDTH] = {0};
  float facts[2][S * KWM_TOKEN_FACTS], rows[S * WIDTH], early[S * WIDTH];
  open_setting(&setting);
  for (int k = 0; k < S * WIDTH; k++) early[k] = 1;
  for (int layer = 1; layer <= LAYERS; layer++) {
    for (int with = 0; with < 2; with++) {
      kwm_tail *tail;
      const struct kwm_tail_spec spec = {.model = &setting.model, .sequences = S, .layer = layer};
      assert_ok(kwm_tail_create(&tail, &spec));
      kwm_tail_open(tail, setting.means, setting.ids, setting.targets);
      if (with) kwm_tail_offset(tail, 0, early);
      kwm_tail_offset(tail, 3, none);
      kwm_tail_read(tail, 3, 1, facts[with], 1, rows);
      kwm_tail_destroy(tail);
    }
    if (layer == LAYERS)
      assert_memory_equal(facts[0], facts[1], sizeof facts[0]);
    else
      assert_memory_not_equal(facts[0], facts[1], sizeof facts[0]);
  }
  close_setting(&setting);
}

/* Neither what is read nor its score knows of inputs and targets after it. */
static void test_future(void **state) {
  (void)state;
  struct setting setting;
  const float offsets[S * WIDTH] = {0.5f, 0.25f};
  float facts[2][3 * S * KWM_TOKEN_FACTS], rows[2][S * WIDTH];
  open_setting(&setting);
  for (int other = 0; other < 2; other++) {
    for (int s = 0; s < S && other; s++) {
      setting.ids[s * CONTEXT + 5] = TYPES - 1 - setting.ids[s * CONTEXT + 5];
      setting.targets[s * CONTEXT + 5] = TYPES - 1 - setting.targets[s * CONTEXT + 5];
    }
    read_block(&setting, 1, offsets, facts[other], 1, rows[other]);
  }
  assert_memory_equal(facts[0], facts[1], sizeof facts[0]);
  assert_memory_equal(rows[0], rows[1], sizeof rows[0]);
  close_setting(&setting);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_score),
    cmocka_unit_test(test_caches),
    cmocka_unit_test(test_future),
};
KWM_TEST_MAIN(tests)
