/* Batches of tokens: each target belongs to its input, training takes what it says it takes, and evaluation predicts
   every token but the first exactly once. The tokens are their own positions, so a batch says where it comes from. */
#include "../kwm_test.h"

#include "kwm/tokens.h"

enum { N_MAX = 200, UNTOUCHED = -7 };

static int32_t ids[N_MAX];

static int count_up(void **state) {
  (void)state;
  for (int32_t i = 0; i < N_MAX; i++) ids[i] = i;
  return 0;
}

static void assert_stream_rows(const struct kwm_text_streams *text, int64_t step, int64_t first, int64_t rows) {
  int32_t inputs[N_MAX + 1], targets[N_MAX + 1];
  for (int i = 0; i <= N_MAX; i++) inputs[i] = targets[i] = UNTOUCHED;
  kwm_streams_batch(text, step, first, rows, inputs, targets);
  for (int64_t row = 0; row < rows; row++)
    for (int64_t i = 0; i < text->context; i++) {
      const int64_t at = (first + row) * (text->n / text->streams) + step * text->context + i;
      assert_int_equal(inputs[row * text->context + i], at);
      assert_int_equal(targets[row * text->context + i], at + 1);
    }
  assert_int_equal(inputs[rows * text->context], UNTOUCHED);
  assert_int_equal(targets[rows * text->context], UNTOUCHED);
}

static void streams_are_contiguous(void **state) {
  (void)state;
  for (int64_t n = 0; n <= 60; n++)
    for (int64_t streams = 1; streams <= 5; streams++)
      for (int64_t context = 1; context <= 8; context++) {
        const struct kwm_text_streams text = {.ids = ids, .n = n, .streams = streams, .context = context};
        const int64_t steps = kwm_streams_steps(n, streams, context), length = n / streams;
        /* The last target lies in the stream, and one step more would leave it. */
        assert_true(steps == 0 || steps * context + 1 <= length);
        assert_true((steps + 1) * context + 1 > length);
        for (int64_t step = 0; step < steps; step++) {
          assert_stream_rows(&text, step, 0, streams);
          for (int64_t first = 0; first < streams; first++) assert_stream_rows(&text, step, first, 1);
        }
      }
}

/* Marks the targets of a batch; false if one came before, or does not belong to its input. */
static int64_t mark(const int32_t *inputs, const int32_t *targets, int64_t count, int *seen) {
  int64_t predicted = 0;
  for (int64_t i = 0; i < count; i++) {
    if (targets[i] == KWM_NO_TARGET) continue;
    assert_int_equal(targets[i], inputs[i] + 1);
    seen[targets[i]]++;
    predicted++;
  }
  return predicted;
}

static void assert_covers(const struct kwm_text_streams *text, int64_t rows, bool contiguous) {
  const int64_t count = kwm_windows_count(text->n, text->context), batches = (count + rows - 1) / rows;
  int32_t inputs[N_MAX], targets[N_MAX], next[N_MAX];
  int seen[N_MAX + 1] = {0};
  for (int64_t row = 0; row < rows; row++) next[row] = -1;
  for (int64_t k = 0; k < batches; k++) {
    const int64_t got =
        kwm_windows_batch(text, contiguous ? k : k * rows, contiguous ? batches : 1, rows, inputs, targets);
    assert_int_equal(got, mark(inputs, targets, rows * text->context, seen));
    for (int64_t row = 0; row < rows && contiguous; row++) {
      const int32_t from = inputs[row * text->context];
      if (next[row] >= 0 && targets[row * text->context] != KWM_NO_TARGET) assert_int_equal(from, next[row]);
      next[row] = from + (int32_t)text->context;
    }
  }
  for (int64_t i = 0; i <= N_MAX; i++) assert_int_equal(seen[i], i >= 1 && i < text->n);
}

static void windows_cover_the_text(void **state) {
  (void)state;
  for (int64_t n = 0; n <= 40; n++)
    for (int64_t context = 1; context <= 12; context++)
      for (int64_t rows = 1; rows <= 6; rows++) {
        const struct kwm_text_streams text = {.ids = ids, .n = n, .context = context};
        assert_covers(&text, rows, false);
        assert_covers(&text, rows, true);
      }
  assert_int_equal(kwm_windows_count(245569, 128), 1919);
}

static void pads_the_last_window(void **state) {
  (void)state;
  const struct kwm_text_streams text = {.ids = ids + 10, .n = 6, .context = 4};
  int32_t inputs[12], targets[12];
  assert_int_equal(kwm_windows_batch(&text, 0, 1, 3, inputs, targets), 5);
  static const int32_t wanted_inputs[12] = {10, 11, 12, 13, 14, 15};
  static const int32_t wanted_targets[12] = {11, 12, 13, 14, 15, -1, -1, -1, -1, -1, -1, -1};
  assert_memory_equal(inputs, wanted_inputs, sizeof inputs);
  assert_memory_equal(targets, wanted_targets, sizeof targets);
}

/* Targets of their own: each batch takes them from where its targets without them come from. */
static void takes_targets_from_where_they_are(void **state) {
  (void)state;
  int32_t others[N_MAX], inputs[2][40], targets[2][40];
  for (int32_t i = 0; i < N_MAX; i++) others[i] = 1000 + i;
  struct kwm_text_streams text = {.ids = ids, .n = 50, .streams = 4, .context = 5};
  for (int k = 0; k < 2; k++) {
    text.targets = k == 0 ? NULL : others;
    kwm_streams_batch(&text, 1, 0, 4, inputs[k], targets[k]);
    assert_int_equal(kwm_windows_batch(&text, 6, 1, 4, inputs[k] + 20, targets[k] + 20), 19);
  }
  assert_memory_equal(inputs[0], inputs[1], sizeof inputs[0]);
  for (int i = 0; i < 40; i++)
    assert_int_equal(targets[1][i], targets[0][i] < 0 ? KWM_NO_TARGET : targets[0][i] + 1000);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(streams_are_contiguous),
      cmocka_unit_test(windows_cover_the_text),
      cmocka_unit_test(pads_the_last_window),
      cmocka_unit_test(takes_targets_from_where_they_are),
  };
  return cmocka_run_group_tests(tests, count_up, NULL);
}
