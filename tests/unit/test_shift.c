/* Shifts of a text: what may change, how often, when, and that the counts say so. */
#include "../kwm_test.h"

#include "kwm/shift.h"

enum { SIZE = 1000, N = 200000, UNK = 5 };

static int32_t ids[N], inputs[N], targets[N];

static const struct kwm_vocabulary_facts vocabulary = {.size = SIZE, .unk = UNK, .eos = 0};

/* Word 0 every seventh token, <unk> every eleventh, all words among the rest. */
static int make_text(void **state) {
  (void)state;
  for (int32_t i = 0; i < N; i++) ids[i] = i % 7 == 0 ? 0 : i % 11 == 0 ? UNK : (i * 37 + i / 13) % SIZE;
  return 0;
}

static kwm_shift *shift_of(struct kwm_shift_spec spec) {
  kwm_shift *shift = NULL;
  assert_ok(kwm_shift_create(&shift, &spec, &vocabulary));
  return shift;
}

/* Applies a shift to the whole text as one stream, checks its counts, and ends it. */
static struct kwm_shift_counts apply(struct kwm_shift_spec spec) {
  const size_t before = kwm_mem_bytes();
  kwm_shift *const shift = shift_of(spec);
  assert_int_equal(kwm_mem_bytes() - before, kwm_shift_facts(shift).bytes);
  const struct kwm_shift_counts counts = kwm_shift_apply(shift, ids, N, N, inputs, targets);
  int64_t changed_inputs = 0, changed_targets = 0, on = 0;
  for (int64_t i = 0; i < N; i++) {
    changed_inputs += inputs[i] != ids[i];
    changed_targets += targets[i] != ids[i];
    on += kwm_shift_on(shift, i);
    if (!kwm_shift_on(shift, i)) assert_true(inputs[i] == ids[i] && targets[i] == ids[i]);
  }
  assert_int_equal(counts.tokens, N);
  assert_int_equal(counts.on, on);
  assert_int_equal(counts.inputs, changed_inputs);
  assert_int_equal(counts.targets, changed_targets);
  kwm_shift_destroy(shift);
  assert_int_equal(kwm_mem_bytes(), before);
  return counts;
}

static void none_changes_nothing(void **state) {
  (void)state;
  const struct kwm_shift_counts counts = apply((struct kwm_shift_spec){.dropout = 0.5, .share = 0.5, .seed = 3});
  assert_int_equal(counts.inputs + counts.targets + counts.dropped, 0);
  assert_int_equal(counts.on, N);
}

static void dropout_replaces_inputs_by_unk(void **state) {
  (void)state;
  const double p = 0.15;
  const struct kwm_shift_counts counts =
      apply((struct kwm_shift_spec){.kind = KWM_SHIFT_TOKEN_DROPOUT, .dropout = p, .seed = 3});
  assert_int_equal(counts.targets, 0);
  int64_t unknown = 0;
  for (int64_t i = 0; i < N; i++) {
    unknown += ids[i] == UNK;
    assert_true(inputs[i] == ids[i] || inputs[i] == UNK);
  }
  /* Six standard errors: the draws are fixed, no chance is left. */
  assert_close((double)counts.dropped / N, p, 0.0, 6.0 * sqrt(p * (1.0 - p) / N));
  assert_close((double)counts.inputs / (double)(N - unknown), p, 0.0,
               6.0 * sqrt(p * (1.0 - p) / (double)(N - unknown)));
  assert_true(counts.inputs < counts.dropped);
  const struct kwm_shift_counts all =
      apply((struct kwm_shift_spec){.kind = KWM_SHIFT_TOKEN_DROPOUT, .dropout = 1.0, .seed = 3});
  assert_true(all.dropped == N && all.inputs == N - unknown && all.targets == 0);
}

/* What every word becomes: the same wherever it stands, input or target, and never what another becomes. */
static void assert_permutes(int32_t drawn_wanted, struct kwm_shift_spec spec) {
  const struct kwm_shift_counts counts = apply(spec);
  assert_int_equal(counts.inputs, counts.targets);
  assert_int_equal(counts.dropped, 0);
  assert_memory_equal(inputs, targets, sizeof inputs);
  int32_t map[SIZE], back[SIZE], moved = 0;
  for (int32_t id = 0; id < SIZE; id++) map[id] = back[id] = -1;
  for (int64_t i = 0; i < N; i++) {
    assert_true(inputs[i] >= 0 && inputs[i] < SIZE);
    if (map[ids[i]] < 0) moved += inputs[i] != ids[i];
    assert_true(map[ids[i]] < 0 || map[ids[i]] == inputs[i]);
    assert_true(back[inputs[i]] < 0 || back[inputs[i]] == ids[i]);
    map[ids[i]] = inputs[i];
    back[inputs[i]] = ids[i];
  }
  for (int32_t id = 0; id < SIZE; id++) assert_true(map[id] >= 0 && back[id] >= 0);
  kwm_shift *const shift = shift_of(spec);
  const struct kwm_shift_facts facts = kwm_shift_facts(shift);
  kwm_shift_destroy(shift);
  assert_int_equal(facts.drawn, drawn_wanted);
  assert_int_equal(facts.moved, moved);
  assert_true(moved <= drawn_wanted && moved >= drawn_wanted - 8); /* one stays in the mean */
}

static void permutes_a_share_of_the_words(void **state) {
  (void)state;
  const struct kwm_shift_spec spec = {.kind = KWM_SHIFT_VOCAB_PERMUTE, .seed = 4, .dropout = 0.9};
  static const double shares[] = {0.0, 0.1, 0.1004, 0.1006, 0.5, 1.0};
  static const int32_t drawn[] = {0, 100, 100, 101, 500, 1000};
  for (int i = 0; i < 6; i++) {
    struct kwm_shift_spec with = spec;
    with.share = shares[i];
    assert_permutes(drawn[i], with);
  }
  assert_permutes(SIZE, (struct kwm_shift_spec){.kind = KWM_SHIFT_RANDOM, .seed = 4, .share = 0.1});
}

/* Special words are words: over the seeds each of them is drawn about as often as the share says. */
static void draws_special_words_too(void **state) {
  (void)state;
  enum { SEEDS = 400 };
  int eos = 0, unk = 0;
  for (uint64_t seed = 0; seed < SEEDS; seed++) {
    kwm_shift *const shift =
        shift_of((struct kwm_shift_spec){.kind = KWM_SHIFT_VOCAB_PERMUTE, .share = 0.1, .seed = seed});
    static const int32_t words[2] = {0, UNK};
    int32_t in[2], out[2];
    (void)kwm_shift_apply(shift, words, 2, 2, in, out);
    eos += in[0] != 0;
    unk += in[1] != UNK;
    kwm_shift_destroy(shift);
  }
  assert_close((double)eos / SEEDS, 0.1, 0.0, 6.0 * sqrt(0.09 / SEEDS));
  assert_close((double)unk / SEEDS, 0.1, 0.0, 6.0 * sqrt(0.09 / SEEDS));
}

/* Both is one after the other, with the draws of each alone. */
static void both_is_the_composition(void **state) {
  (void)state;
  static int32_t permuted[N], dropped[N];
  static const double shares[] = {0.1, 1.0};
  for (int k = 0; k < 2; k++) {
    struct kwm_shift_spec spec = {.kind = KWM_SHIFT_VOCAB_PERMUTE, .share = shares[k], .dropout = 0.15, .seed = 9};
    (void)apply(spec);
    memcpy(permuted, inputs, sizeof permuted);
    spec.kind = KWM_SHIFT_TOKEN_DROPOUT;
    const struct kwm_shift_counts alone = apply(spec);
    memcpy(dropped, inputs, sizeof dropped);
    spec.kind = KWM_SHIFT_BOTH;
    const struct kwm_shift_counts counts = apply(spec);
    assert_int_equal(counts.dropped, alone.dropped);
    assert_memory_equal(targets, permuted, sizeof targets);
    for (int64_t i = 0; i < N; i++)
      if (ids[i] != UNK) assert_int_equal(inputs[i], dropped[i] == UNK ? UNK : permuted[i]);
  }
}

static void draws_depend_on_seed_and_place_only(void **state) {
  (void)state;
  struct kwm_shift_spec spec = {.kind = KWM_SHIFT_BOTH, .share = 0.1, .dropout = 0.15, .seed = 9};
  static int32_t first_inputs[N], first_targets[N], part[N], part_targets[N];
  (void)apply(spec);
  memcpy(first_inputs, inputs, sizeof inputs);
  memcpy(first_targets, targets, sizeof targets);
  kwm_shift *const shift = shift_of(spec);
  (void)kwm_shift_apply(shift, ids, 1000, 125, part, part_targets);
  kwm_shift_destroy(shift);
  assert_memory_equal(part, first_inputs, 1000 * sizeof *part);
  assert_memory_equal(part_targets, first_targets, 1000 * sizeof *part);
  spec.seed = 10;
  (void)apply(spec);
  assert_memory_not_equal(inputs, first_inputs, sizeof inputs);
  assert_memory_not_equal(targets, first_targets, sizeof targets);
}

static void follows_a_schedule(void **state) {
  (void)state;
  static const char *const schedules[] = {"100-200 1000-1001,5000-", " 100-200,  1000-1001  5000- ,"};
  for (int k = 0; k < 2; k++) {
    const struct kwm_shift_spec spec = {.kind = KWM_SHIFT_RANDOM, .seed = 1, .schedule = schedules[k]};
    const struct kwm_shift_counts counts = apply(spec);
    assert_int_equal(counts.on, 100 + 1 + N - 5000);
    kwm_shift *const shift = shift_of(spec);
    static const int64_t times[] = {0, 99, 100, 199, 200, 999, 1000, 1001, 4999, 5000, INT64_MAX - 1};
    static const bool on[] = {false, false, true, true, false, false, true, false, false, true, true};
    for (int i = 0; i < 11; i++) assert_int_equal(kwm_shift_on(shift, times[i]), on[i]);
    kwm_shift_destroy(shift);
  }
}

/* Ten streams in parallel: each has the shift at the same time of its own. */
static void streams_share_the_time(void **state) {
  (void)state;
  kwm_shift *const shift = shift_of((struct kwm_shift_spec){.kind = KWM_SHIFT_RANDOM, .schedule = "30-50", .seed = 2});
  const struct kwm_shift_counts counts = kwm_shift_apply(shift, ids, 1000, 100, inputs, targets);
  kwm_shift_destroy(shift);
  assert_int_equal(counts.on, 200);
  for (int64_t i = 0; i < 1000; i++)
    if (i % 100 < 30 || i % 100 >= 50) assert_int_equal(inputs[i], ids[i]);
  assert_true(counts.inputs > 190);
}

static void assert_refused(struct kwm_shift_spec spec, const char *words) {
  const size_t before = kwm_mem_bytes();
  kwm_shift *shift = NULL;
  assert_int_equal(kwm_shift_create(&shift, &spec, &vocabulary), KWM_ERR_USAGE);
  if (strstr(kwm_error_message(), words) == NULL) fail_msg("\"%s\" lacks \"%s\"", kwm_error_message(), words);
  assert_null(shift);
  assert_int_equal(kwm_mem_bytes(), before);
}

static void refuses_what_it_cannot_read(void **state) {
  (void)state;
  static const char *const schedules[] = {"5",
                                          "-5",
                                          "a-b",
                                          "5-5",
                                          "7-5",
                                          "1-2 2-x",
                                          "10-20 15-30",
                                          "10- 20-30",
                                          "1--2",
                                          "1-2;3-4",
                                          "99999999999999999999-",
                                          "1 - 2",
                                          "1-2-3"};
  for (size_t i = 0; i < sizeof schedules / sizeof *schedules; i++)
    assert_refused((struct kwm_shift_spec){.schedule = schedules[i]}, "wanted a schedule of ascending intervals");
  assert_refused((struct kwm_shift_spec){.kind = KWM_SHIFT_BOTH, .dropout = 1.5}, "a chance of dropout from 0 to 1");
  assert_refused((struct kwm_shift_spec){.kind = KWM_SHIFT_BOTH, .share = -0.1}, "a share of words from 0 to 1");
  assert_refused((struct kwm_shift_spec){.kind = KWM_SHIFT_BOTH, .share = NAN}, "found nan");
}

static void knows_kinds_by_name(void **state) {
  (void)state;
  static const char *const names[] = {"none", "token-dropout", "vocab-permute", "both", "random"};
  for (int k = 0; k < 5; k++) {
    enum kwm_shift_kind kind = KWM_SHIFT_NONE;
    assert_ok(kwm_shift_kind_of(&kind, names[k]));
    assert_int_equal(kind, k);
  }
  enum kwm_shift_kind kind = KWM_SHIFT_BOTH;
  assert_int_equal(kwm_shift_kind_of(&kind, "drop"), KWM_ERR_USAGE);
  assert_non_null(strstr(kwm_error_message(), "found \"drop\""));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(none_changes_nothing),
      cmocka_unit_test(dropout_replaces_inputs_by_unk),
      cmocka_unit_test(permutes_a_share_of_the_words),
      cmocka_unit_test(draws_special_words_too),
      cmocka_unit_test(both_is_the_composition),
      cmocka_unit_test(draws_depend_on_seed_and_place_only),
      cmocka_unit_test(follows_a_schedule),
      cmocka_unit_test(streams_share_the_time),
      cmocka_unit_test(refuses_what_it_cannot_read),
      cmocka_unit_test(knows_kinds_by_name),
  };
  return cmocka_run_group_tests(tests, make_text, NULL);
}
