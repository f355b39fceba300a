/* What the pipe of the language model hands to its sink: the scores of all tensors against central differences of the
   summed surprisal, whatever is dropped; what is kept from whom between stages. */
#include "language_case.h"

struct scores {
  struct language_case of;
  float *mean[KWM_TENSORS_MAX], *score[KWM_TENSORS_MAX];
};

static int64_t size_of(const struct scores *s, int t) {
  return s->of.model.tensors[t].rows * s->of.model.tensors[t].columns;
}

static void take_matrix(void *context, int t, int64_t n, int64_t d_o, int64_t d_i, const float *s, const float *a) {
  struct scores *const scores = context;
  for (int64_t r = 0; r < n; r++)
    for (int64_t o = 0; o < d_o; o++)
      for (int64_t i = 0; i < d_i; i++) scores->score[t][o * d_i + i] += s[r * d_o + o] * a[r * d_i + i];
}

static float *take_vector(void *context, int t) {
  return ((struct scores *)context)->score[t];
}

static void take_reading(void *context, int t, int64_t n, const float *y) {
  (void)context, (void)t, (void)n, (void)y;
}

/* Means spread wider than the initial ones, so that nothing is nearly linear. */
static void open_scores(struct scores *s, int readings, int64_t micro) {
  memset(s, 0, sizeof *s);
  language_case_open(&s->of, (struct language_way){0}, readings, CASE_ALONE, micro);
  for (int t = 0; t < s->of.model.n_tensors; t++) {
    s->mean[t] = malloc((size_t)size_of(s, t) * sizeof(float));
    s->score[t] = calloc((size_t)size_of(s, t), sizeof(float));
    assert_non_null(s->mean[t]);
    assert_non_null(s->score[t]);
    for (int64_t k = 0; k < size_of(s, t); k++)
      s->mean[t][k] =
          s->of.model.tensors[t].middle + 0.3f * (float)kwm_rng_normal(5, KWM_RNG_TEST, (uint64_t)t, (uint64_t)k);
  }
}

static void close_scores(struct scores *s) {
  for (int t = 0; t < s->of.model.n_tensors; t++) free(s->mean[t]), free(s->score[t]);
  language_case_close(&s->of);
}

static struct kwm_reading step(struct scores *s) {
  const struct kwm_sink sink = {.context = s, .matrix = take_matrix, .vector = take_vector, .reading = take_reading};
  struct kwm_reading reading;
  for (int t = 0; t < s->of.model.n_tensors; t++) memset(s->score[t], 0, (size_t)size_of(s, t) * sizeof(float));
  kwm_language_step(s->of.language, s->mean, &s->of.batch, &sink, &reading);
  return reading;
}

/* The derivative of -surprisal of `stage` along a random direction of tensor t, and the score's along the same. */
static void compare_tensor(struct scores *s, int t, int stage) {
  const float apart = 3e-3f;
  const int64_t n = size_of(s, t);
  float *const direction = malloc((size_t)n * sizeof *direction), *const kept = malloc((size_t)n * sizeof *kept);
  assert_non_null(direction);
  assert_non_null(kept);
  double along = 0, sides[2], norm = 0;
  memcpy(kept, s->mean[t], (size_t)n * sizeof *kept);
  step(s);
  for (int64_t k = 0; k < n; k++) {
    direction[k] = (float)kwm_rng_normal(9, KWM_RNG_TEST, (uint64_t)t, (uint64_t)k);
    along += (double)direction[k] * s->score[t][k];
    norm += (double)s->score[t][k] * s->score[t][k];
  }
  for (int side = 0; side < 2; side++) {
    for (int64_t k = 0; k < n; k++) s->mean[t][k] = kept[k] + (side == 0 ? apart : -apart) * direction[k];
    sides[side] = -step(s).of[stage][KWM_READ_SURPRISAL];
  }
  memcpy(s->mean[t], kept, (size_t)n * sizeof *kept);
  const double difference = (sides[0] - sides[1]) / (2 * (double)apart);
  if (!close_to(along, difference, 0.01, 0.01 * sqrt(norm) + 1e-3))
    fail_msg("%s: score %g, difference %g", s->of.model.tensors[t].name, along, difference);
  free(direction);
  free(kept);
}

static void test_adjoint_scores(void **state) {
  (void)state;
  struct scores s;
  open_scores(&s, 1, 2);
  for (int t = 0; t < s.of.model.n_tensors; t++) compare_tensor(&s, t, 0);
  close_scores(&s);
}

/* A stage's tensors learn from its own reading; the embedding is another matter (next test). */
static void test_stage_scores(void **state) {
  (void)state;
  struct scores s;
  open_scores(&s, 2, 4);
  for (int t = 1; t < s.of.model.n_tensors; t++) compare_tensor(&s, t, s.of.model.tensors[t].stage);
  close_scores(&s);
}

/* The embedding's score: as the last stage reads it, and as the first stage's tokens; no stage in between has a say. */
static void test_embedding_between_stages(void **state) {
  (void)state;
  struct scores s, moved;
  const int late = kwm_transformer_tensor(2, KWM_LAYER_UP);
  open_scores(&s, 2, 4);
  open_scores(&moved, 2, 4);
  for (int64_t k = 0; k < size_of(&s, late); k++) moved.mean[late][k] += 0.1f;
  step(&s), step(&moved);
  /* What moved is behind the first stage: its scores have the same bits, the second's do not. */
  const int early = kwm_transformer_tensor(1, KWM_LAYER_UP), last = kwm_transformer_tensor(3, KWM_LAYER_UP);
  assert_memory_equal(s.score[early], moved.score[early], (size_t)size_of(&s, early) * sizeof(float));
  assert_memory_equal(s.score[1], moved.score[1], (size_t)size_of(&s, 1) * sizeof(float));
  assert_memory_not_equal(s.score[last], moved.score[last], (size_t)size_of(&s, last) * sizeof(float));
  assert_memory_not_equal(s.score[0], moved.score[0], (size_t)size_of(&s, 0) * sizeof(float));
  close_scores(&s);
  close_scores(&moved);
}

/* Micro-batches only order the sums. */
static void test_micro_batches(void **state) {
  (void)state;
  struct scores one, four;
  open_scores(&one, 1, 1);
  open_scores(&four, 1, 4);
  const struct kwm_reading a = step(&one), b = step(&four);
  assert_close(a.of[0][KWM_READ_SURPRISAL], b.of[0][KWM_READ_SURPRISAL], 1e-6, 0);
  for (int t = 0; t < one.of.model.n_tensors; t++)
    for (int64_t k = 0; k < size_of(&one, t); k++) assert_close(one.score[t][k], four.score[t][k], 1e-3, 1e-4);
  close_scores(&one);
  close_scores(&four);
}

/* Prediction drops nothing, covers every token but the first, and windows do not see each other. */
static void test_predict(void **state) {
  (void)state;
  enum { N = 17 };
  struct scores s;
  double whole[2 * (N - 1)], part[2 * (N - 1)];
  int32_t ids[N];
  open_scores(&s, 2, 2);
  for (uint64_t k = 0; k < N; k++) ids[k] = (int32_t)case_draw(100 + k, CASE_TYPES);
  kwm_language_predict(s.of.language, s.mean, N, ids, whole);
  for (int k = 0; k < 2 * (N - 1); k++) assert_true(whole[k] > 0 && isfinite(whole[k]));
  ids[2] = (ids[2] + 1) % CASE_TYPES; /* seen by the first window only */
  kwm_language_predict(s.of.language, s.mean, N, ids, part);
  for (int k = 0; k < N - 1; k++) {
    const bool before = k < 1, window = k < CASE_CONTEXT;
    if (before || !window)
      assert_true(whole[k] == part[k]);
    else
      assert_true(whole[k] != part[k]);
  }
  close_scores(&s);
}

/* What predictions are read from: with the embedding it gives the surprisals of kwm_language_predict; a state knows no
   later token. */
static void test_states(void **state) {
  (void)state;
  enum { N = 17, WIDTH = 8 };
  struct scores s;
  double surprisal[2 * (N - 1)];
  float y[N * WIDTH], other[N * WIDTH];
  int32_t ids[N];
  open_scores(&s, 2, 2);
  for (uint64_t k = 0; k < N; k++) ids[k] = (int32_t)case_draw(100 + k, CASE_TYPES);
  kwm_language_predict(s.of.language, s.mean, N, ids, surprisal);
  kwm_language_states(s.of.language, s.mean, N, ids, y);
  for (int t = 0; t < N - 1; t++) {
    double sum = 0, logit[CASE_TYPES];
    for (int i = 0; i < CASE_TYPES; i++) {
      logit[i] = 0;
      for (int k = 0; k < WIDTH; k++)
        logit[i] += (double)y[t * WIDTH + k] * (double)s.mean[KWM_TENSOR_EMBED][i * WIDTH + k];
      sum += exp(logit[i]);
    }
    assert_close(log(sum) - logit[ids[t + 1]], surprisal[N - 1 + t], 1e-4, 1e-5);
  }
  for (int k = 9; k < N; k++) ids[k] = (ids[k] + 1) % CASE_TYPES;
  kwm_language_states(s.of.language, s.mean, N, ids, other);
  assert_memory_equal(y, other, 9 * WIDTH * sizeof *y);
  assert_memory_not_equal(y + 9 * WIDTH, other + 9 * WIDTH, WIDTH * sizeof *y);
  close_scores(&s);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_adjoint_scores),
    cmocka_unit_test(test_stage_scores),
    cmocka_unit_test(test_embedding_between_stages),
    cmocka_unit_test(test_micro_batches),
    cmocka_unit_test(test_predict),
    cmocka_unit_test(test_states),
};
KWM_TEST_MAIN(tests)
