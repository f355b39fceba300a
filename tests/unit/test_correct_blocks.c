/* Corrections in blocks of tokens against the textbook's filter in double. */
#include "correct_case.h"

enum { EVERY = 6, ROWS = 3, MOST = STEPS / EVERY };

/* Tokens [first, first + EVERY) of all streams. */
static void block(kwm_correct *correct, const struct text *text, int first, float *facts) {
  float y[EVERY * S * D];
  int32_t tokens[EVERY * S];
  for (int t = 0; t < EVERY; t++) {
    memcpy(y + t * S * D, text->y[first + t], sizeof text->y[0]);
    memcpy(tokens + t * S, text->tokens[first + t], sizeof text->tokens[0]);
  }
  kwm_correct_run(correct, EVERY, y, tokens, facts);
}

/* F <- Σ GGᵀ over the rows, g <- ΣG, of predictions by the book as it is; surprisals compared. */
static void textbook_rows(const struct textbook *book, const struct text *text, int s, int first, const float *facts,
                          double F[D * D], double g[D]) {
  double rows[ROWS][D] = {{0}};
  for (int t = 0; t < EVERY; t++) {
    double p[V], one[D];
    const double wanted = textbook_score(book, text->W, text->y[first + t] + s * D, text->tokens[first + t][s], p, one);
    assert_close((double)facts[(t * S + s) * KWM_TOKEN_FACTS + KWM_TOKEN_SURPRISAL], wanted, 1e-4, 1e-5);
    for (int k = 0; k < D; k++) rows[t * ROWS / EVERY][k] += one[k];
  }
  memset(F, 0, D * D * sizeof *F);
  memset(g, 0, D * sizeof *g);
  for (int j = 0; j < ROWS; j++)
    for (int k = 0; k < D; k++) {
      g[k] += rows[j][k];
      for (int i = 0; i < D; i++) F[k * D + i] += rows[j][k] * rows[j][i];
    }
}

/* full with time going on; lowrank as long as no row is given up, which is without process noise. */
static void test_blocks(void **state) {
  (void)state;
  struct text text;
  make_text(&text);
  for (int low = 0; low < 2; low++) {
    struct kwm_correct_spec spec = spec_of(&text, low ? KWM_CORRECT_LOWRANK : KWM_CORRECT_FULL, KWM_CORRECT_OBSERVED);
    spec.every = EVERY, spec.rows = ROWS, spec.rank = KWM_CORRECT_RANK;
    kwm_correct *const correct = open_correct(&spec);
    struct textbook book[S];
    for (int s = 0; s < S; s++) textbook_open(&book[s]);
    for (int first = 0; first + EVERY <= STEPS; first += EVERY) {
      float facts[EVERY * S * KWM_TOKEN_FACTS];
      block(correct, &text, first, facts);
      for (int s = 0; s < S; s++) {
        double F[D * D], g[D], trace = 0;
        textbook_rows(&book[s], &text, s, first, facts, F, g);
        textbook_take(&book[s], F, g);
        const double a = pow(DECAY, EVERY);
        for (int k = 0; k < D * D && !low; k++)
          book[s].P[k] = a * a * book[s].P[k] + (k % (D + 1) == 0 ? EVERY * NOISE : 0);
        for (int k = 0; k < D; k++) book[s].b[k] *= a, trace += book[s].P[k * D + k];
        for (int k = 0; k < D * D && trace > D * PRIOR; k++) book[s].P[k] *= D * PRIOR / trace;
        compare_state(correct, s, &book[s], 5e-4);
      }
    }
    assert_true(kwm_correct_facts(correct).broken == 0);
    assert_true(kwm_correct_facts(correct).tokens == MOST * EVERY * S);
    assert_true(kwm_correct_facts(correct).contraction > 0);
    kwm_correct_destroy(correct);
  }
}

/* When no more rows fit, half of the directions stays, with the noise of the tokens since. */
static void test_gives_up(void **state) {
  (void)state;
  enum { RANK = 2 * ROWS };
  struct text text;
  float facts[EVERY * S * KWM_TOKEN_FACTS];
  double P[D * D], Q[D * D], values[D], wanted[D];
  make_text(&text);
  struct kwm_correct_spec spec = spec_of(&text, KWM_CORRECT_LOWRANK, KWM_CORRECT_OBSERVED), whole;
  spec.every = EVERY, spec.rows = ROWS, spec.rank = RANK;
  whole = spec, whole.rank = KWM_CORRECT_RANK;
  kwm_correct *const correct = open_correct(&spec), *const all = open_correct(&whole);
  for (int k = 0; k < 2; k++) {
    block(correct, &text, k * EVERY, facts);
    block(all, &text, k * EVERY, facts);
  }
  kwm_correct_state(correct, 0, NULL, P, NULL);
  kwm_correct_state(all, 0, NULL, Q, NULL);
  assert_true(kwm_eigen_f64(D, P, values) && kwm_eigen_f64(D, Q, wanted));
  for (int k = 0; k < D; k++) {
    const double steps = 2 * EVERY, grown = pow(DECAY, 2 * steps) * wanted[k] + steps * NOISE;
    assert_close(values[k], k < RANK / 2 && grown < PRIOR ? grown : PRIOR, 1e-3, 1e-4);
  }
  kwm_correct_destroy(correct);
  kwm_correct_destroy(all);
}

/* Blocks of one token are the filter of single tokens. */
static void test_single(void **state) {
  (void)state;
  struct text text;
  make_text(&text);
  struct kwm_correct_spec spec = spec_of(&text, KWM_CORRECT_FULL, KWM_CORRECT_OBSERVED);
  spec.bias = 0.8, spec.bias_decay = 0.9;
  kwm_correct *const one = open_correct(&spec);
  spec.every = EVERY, spec.rows = ROWS;
  kwm_correct *const blocks = open_correct(&spec);
  for (int t = 0; t < STEPS; t++) {
    double surprisal[2][S], l[2][V];
    step(one, &text, t, surprisal[0]);
    step(blocks, &text, t, surprisal[1]);
    for (int s = 0; s < S; s++) {
      assert_close(surprisal[1][s], surprisal[0][s], 1e-3, 1e-4);
      kwm_correct_state(one, s, NULL, NULL, l[0]);
      kwm_correct_state(blocks, s, NULL, NULL, l[1]);
      for (int i = 0; i < V; i++) assert_close(l[1][i], l[0][i], 1e-3, 1e-4);
    }
  }
  kwm_correct_destroy(one);
  kwm_correct_destroy(blocks);
}

/* The bias takes a block's innovations and its information together, whatever the rows. */
static void test_bias(void **state) {
  (void)state;
  struct text text;
  make_text(&text);
  for (int kind = 0; kind < 2; kind++) {
    struct kwm_correct_spec spec = spec_of(&text, kind ? KWM_CORRECT_LOWRANK : KWM_CORRECT_BIAS, KWM_CORRECT_OBSERVED);
    double l[S][V] = {{0}}, v[S][V];
    spec.every = EVERY, spec.rows = ROWS, spec.rank = KWM_CORRECT_RANK, spec.bias = 0.8, spec.bias_decay = 0.9;
    for (int k = 0; k < S * V; k++) v[k / V][k % V] = spec.bias;
    kwm_correct *const correct = open_correct(&spec);
    for (int first = 0; first + EVERY <= STEPS; first += EVERY) {
      float facts[EVERY * S * KWM_TOKEN_FACTS];
      for (int s = 0; s < S; s++) {
        double e[V] = {0}, told[V] = {0}, b[D] = {0};
        if (kind) kwm_correct_state(correct, s, b, NULL, NULL);
        for (int t = first; t < first + EVERY; t++) {
          double p[V], sum = 0;
          for (int i = 0; i < V; i++) {
            double logit = l[s][i];
            for (int k = 0; k < D; k++) logit += (double)text.W[i * D + k] * ((double)text.y[t][s * D + k] + b[k]);
            sum += p[i] = exp(logit);
          }
          for (int i = 0; i < V; i++)
            p[i] /= sum, e[i] += (i == text.tokens[t][s]) - p[i], told[i] += p[i] * (1 - p[i]);
        }
        const double a = pow(0.9, EVERY);
        for (int i = 0; i < V; i++) {
          v[s][i] /= 1 + v[s][i] * told[i];
          l[s][i] = a * (l[s][i] + v[s][i] * e[i]);
          v[s][i] = a * a * v[s][i] + (1 - a * a) * spec.bias;
        }
      }
      block(correct, &text, first, facts);
      for (int s = 0; s < S; s++) {
        double found[V];
        kwm_correct_state(correct, s, NULL, NULL, found);
        for (int i = 0; i < V; i++) assert_close(found[i], l[s][i], 1e-3, 1e-4);
      }
    }
    kwm_correct_destroy(correct);
  }
}

/* Rows of the read-out that follow what is seen, shared by the streams; and a read-out that somebody else moves. */
static void test_readout(void **state) {
  (void)state;
  struct text text;
  make_text(&text);
  struct kwm_correct_spec spec = spec_of(&text, KWM_CORRECT_BIAS, KWM_CORRECT_OBSERVED);
  double W[V * D], v[V];
  spec.every = EVERY, spec.rows = ROWS, spec.readout = 0.4;
  for (int k = 0; k < V * D; k++) W[k] = (double)text.W[k];
  for (int i = 0; i < V; i++) v[i] = spec.readout;
  kwm_correct *const correct = open_correct(&spec);
  for (int first = 0; first + EVERY <= STEPS; first += EVERY) {
    float facts[EVERY * S * KWM_TOKEN_FACTS];
    double score[V * D] = {0}, told[V] = {0}, square = 0;
    for (int k = 0; k < V * D && first == EVERY; k++) text.W[k] += 0.5f * draw(7, k), W[k] += 0.5 * (double)draw(7, k);
    if (first == EVERY) kwm_correct_moved(correct);
    block(correct, &text, first, facts);
    for (int t = 0; t < EVERY; t++)
      for (int s = 0; s < S; s++) {
        const float *const y = text.y[first + t] + s * D;
        const int32_t token = text.tokens[first + t][s];
        double p[V], sum = 0;
        for (int i = 0; i < V; i++) {
          double logit = 0;
          for (int k = 0; k < D; k++) logit += W[i * D + k] * (double)y[k];
          sum += p[i] = exp(logit);
        }
        assert_close((double)facts[(t * S + s) * KWM_TOKEN_FACTS + KWM_TOKEN_SURPRISAL], -log(p[token] / sum), 1e-3,
                     1e-4);
        for (int i = 0; i < V; i++) {
          p[i] /= sum, told[i] += p[i] * (1 - p[i]);
          for (int k = 0; k < D; k++) score[i * D + k] += ((i == token) - p[i]) * (double)y[k];
        }
        for (int k = 0; k < D; k++) square += (double)y[k] * (double)y[k] / (EVERY * S * D);
      }
    for (int i = 0; i < V; i++) {
      v[i] /= 1 + v[i] * square * told[i];
      for (int k = 0; k < D; k++) W[i * D + k] += v[i] * score[i * D + k];
    }
  }
  kwm_correct_destroy(correct);
}

/* No score knows of a token that comes after it, be it in the same block. */
static void test_future(void **state) {
  (void)state;
  struct text text;
  float facts[2][2 * EVERY * S * KWM_TOKEN_FACTS];
  make_text(&text);
  for (int other = 0; other < 2; other++) {
    struct kwm_correct_spec spec = spec_of(&text, KWM_CORRECT_LOWRANK, KWM_CORRECT_OBSERVED);
    spec.every = EVERY, spec.rows = ROWS, spec.rank = 2 * ROWS, spec.bias = 0.5, spec.bias_decay = 0.9,
    spec.readout = 0.1;
    kwm_correct *const correct = open_correct(&spec);
    for (int s = 0; s < S && other; s++) text.tokens[2 * EVERY - 1][s] = V - 1 - text.tokens[2 * EVERY - 1][s];
    block(correct, &text, 0, facts[other]);
    block(correct, &text, EVERY, facts[other] + EVERY * S * KWM_TOKEN_FACTS);
    kwm_correct_destroy(correct);
  }
  const int before = (2 * EVERY - 1) * S * KWM_TOKEN_FACTS;
  assert_memory_equal(facts[0], facts[1], (size_t)before * sizeof(float));
  assert_memory_not_equal(facts[0] + before, facts[1] + before, S * KWM_TOKEN_FACTS * sizeof(float));
}

static void test_refused(void **state) {
  (void)state;
  struct text text;
  kwm_correct *correct;
  make_text(&text);
  struct kwm_correct_spec spec = spec_of(&text, KWM_CORRECT_DIAG, KWM_CORRECT_OBSERVED);
  spec.every = EVERY, spec.rows = ROWS;
  assert_int_equal(kwm_correct_create(&correct, &spec), KWM_ERR_USAGE);
  spec.kind = KWM_CORRECT_FULL, spec.form = KWM_CORRECT_TOPK;
  assert_int_equal(kwm_correct_create(&correct, &spec), KWM_ERR_USAGE);
  spec.kind = KWM_CORRECT_LOWRANK, spec.form = KWM_CORRECT_OBSERVED, spec.rank = ROWS - 1;
  assert_int_equal(kwm_correct_create(&correct, &spec), KWM_ERR_USAGE);
  spec.rank = ROWS, spec.every = 1, spec.readout = 1;
  assert_int_equal(kwm_correct_create(&correct, &spec), KWM_ERR_USAGE);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_blocks),  cmocka_unit_test(test_gives_up), cmocka_unit_test(test_single),
    cmocka_unit_test(test_bias),    cmocka_unit_test(test_readout),  cmocka_unit_test(test_future),
    cmocka_unit_test(test_refused),
};
KWM_TEST_MAIN(tests)
