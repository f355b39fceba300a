/* Corrections with a covariance of low rank, with a cut score, and with a bias of every word. */
#include "correct_case.h"

/* As long as no row is given up it is the full filter without process noise; offset and covariance. */
static void test_lowrank(void **state) {
  (void)state;
  struct text text;
  struct textbook book[S];
  make_text(&text);
  struct kwm_correct_spec spec = spec_of(&text, KWM_CORRECT_LOWRANK, KWM_CORRECT_OBSERVED);
  kwm_correct *const correct = open_correct(&spec);
  for (int s = 0; s < S; s++) {
    textbook_open(&book[s]);
    memset(book[s].shape, 0, sizeof book[s].shape);
  }
  for (int t = 0; t + 1 < D; t++) {
    double surprisal[S];
    step(correct, &text, t, surprisal);
    for (int s = 0; s < S; s++) {
      double p[V], g[D], F[D * D];
      assert_close(surprisal[s], textbook_score(&book[s], text.W, text.y[t] + s * D, text.tokens[t][s], p, g), 1e-4,
                   1e-5);
      textbook_information(spec.form, text.W, p, g, F);
      textbook_take(&book[s], F, g);
      for (int k = 0; k < D; k++) book[s].b[k] *= DECAY;
      compare_state(correct, s, &book[s], 1e-4);
    }
  }
  assert_true(kwm_correct_facts(correct).broken == 0);
  kwm_correct_destroy(correct);
}

/* After U is full the leading half of its directions stays, each with the process noise of the tokens since. */
static void test_lowrank_gives_up(void **state) {
  (void)state;
  enum { RANK = 4 };
  struct text text;
  double surprisal[S], P[D * D], Q[D * D], values[D], wanted[D];
  make_text(&text);
  struct kwm_correct_spec spec = spec_of(&text, KWM_CORRECT_LOWRANK, KWM_CORRECT_OBSERVED);
  struct kwm_correct_spec whole = spec;
  spec.rank = RANK;
  kwm_correct *const correct = open_correct(&spec), *const all = open_correct(&whole);
  for (int t = 0; t < RANK; t++) {
    step(correct, &text, t, surprisal);
    step(all, &text, t, surprisal);
  }
  kwm_correct_state(correct, 0, NULL, P, NULL);
  kwm_correct_state(all, 0, NULL, Q, NULL);
  assert_true(kwm_eigen_f64(D, P, values) && kwm_eigen_f64(D, Q, wanted));
  for (int k = 0; k < D; k++) {
    const double steps = RANK / 2, grown = pow(DECAY, 2 * steps) * wanted[k] + steps * NOISE;
    assert_close(values[k], k < RANK / 2 && grown < PRIOR ? grown : PRIOR, 1e-4, 1e-5);
  }
  kwm_correct_destroy(correct);
  kwm_correct_destroy(all);
}

/* Without a class above the cut the score takes all words by their usual frequencies; with all above it, it is exact.
 */
static void test_cut(void **state) {
  (void)state;
  struct text text;
  double surprisal[S], b[3][D], often[V];
  const double cuts[] = {0, 1e-9, 1};
  make_text(&text);
  for (int i = 0; i < V; i++) often[i] = 1 + i % 3;
  for (int c = 0; c < 3; c++) {
    struct kwm_correct_spec spec = spec_of(&text, KWM_CORRECT_LOWRANK, KWM_CORRECT_OBSERVED);
    spec.cut = cuts[c], spec.often = often, spec.decay = 1;
    kwm_correct *const correct = open_correct(&spec);
    step(correct, &text, 0, surprisal);
    kwm_correct_state(correct, 0, b[c], NULL, NULL);
    assert_true(kwm_correct_facts(correct).listed == (c == 1 ? V * S : 0));
    kwm_correct_destroy(correct);
  }
  double g[D], square = 0;
  for (int k = 0; k < D; k++) {
    double mean = 0, all = 0;
    for (int i = 0; i < V; i++) mean += often[i] * (double)text.W[i * D + k], all += often[i];
    g[k] = (double)text.W[text.tokens[0][0] * D + k] - mean / all;
    square += g[k] * g[k];
    assert_close(b[0][k], b[1][k], 1e-4, 1e-5);
  }
  for (int k = 0; k < D; k++) assert_close(b[2][k], PRIOR * g[k] / (1 + PRIOR * square), 1e-4, 1e-5);
}

/* The bias beside each kind of offset, and alone, against its own textbook. */
static void test_bias(void **state) {
  (void)state;
  const enum kwm_correct_kind kinds[] = {KWM_CORRECT_BIAS, KWM_CORRECT_FULL, KWM_CORRECT_DIAG, KWM_CORRECT_LOWRANK};
  struct text text;
  make_text(&text);
  for (int at = 0; at < 5; at++) {
    struct kwm_correct_spec spec = spec_of(&text, kinds[at % 4], KWM_CORRECT_OBSERVED);
    double l[S][V] = {{0}}, v[S][V], b[D] = {0}, found[V], surprisal[S];
    spec.bias = 0.8, spec.bias_decay = 0.9, spec.cut = at == 4 ? 0 : 1e-9,
    spec.kind = at == 4 ? KWM_CORRECT_LOWRANK : spec.kind;
    for (int k = 0; k < S * V; k++) v[k / V][k % V] = spec.bias;
    kwm_correct *const correct = open_correct(&spec);
    for (int t = 0; t < STEPS; t++) {
      for (int s = 0; s < S; s++) {
        double p[V], sum = 0;
        if (spec.kind != KWM_CORRECT_BIAS) kwm_correct_state(correct, s, b, NULL, NULL);
        for (int i = 0; i < V; i++) {
          double logit = l[s][i];
          for (int k = 0; k < D; k++) logit += (double)text.W[i * D + k] * ((double)text.y[t][s * D + k] + b[k]);
          sum += p[i] = exp(logit);
        }
        for (int i = 0; i < V; i++) {
          p[i] /= sum;
          v[s][i] /= 1 + v[s][i] * p[i] * (1 - p[i]);
          l[s][i] = 0.9 * (l[s][i] + v[s][i] * ((i == text.tokens[t][s]) - p[i]));
          v[s][i] = 0.81 * v[s][i] + 0.19 * spec.bias;
        }
      }
      step(correct, &text, t, surprisal);
      for (int s = 0; s < S; s++) {
        kwm_correct_state(correct, s, NULL, NULL, found);
        for (int i = 0; i < V; i++) assert_close(found[i], l[s][i], 1e-3, 1e-4);
      }
    }
    kwm_correct_destroy(correct);
  }
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_lowrank),
    cmocka_unit_test(test_lowrank_gives_up),
    cmocka_unit_test(test_cut),
    cmocka_unit_test(test_bias),
};
KWM_TEST_MAIN(tests)
