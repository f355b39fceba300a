/* Correcting activations against dense textbook filters in double precision, and what must hold whatever the numbers:
   no token is known before it is scored, gains stay bounded, a wrong model does not make the filter diverge. */
#include "correct_case.h"

static void test_full(void **state) {
  (void)state;
  const enum kwm_correct_form forms[] = {KWM_CORRECT_OBSERVED, KWM_CORRECT_TOPK, KWM_CORRECT_EXACT};
  struct text text;
  make_text(&text);
  for (int f = 0; f < 3; f++) {
    struct textbook book[S];
    const struct kwm_correct_spec spec = spec_of(&text, KWM_CORRECT_FULL, forms[f]);
    for (int s = 0; s < S; s++) textbook_open(&book[s]);
    follow_textbook(&spec, &text, book);
  }
}

static void take_state(const struct kwm_correct_spec *spec, const struct text *text, int steps, double *b, double *P) {
  kwm_correct *const correct = open_correct(spec);
  double surprisal[S];
  for (int t = 0; t < steps; t++) step(correct, text, t, surprisal);
  kwm_correct_state(correct, 0, b, P, NULL);
  kwm_correct_destroy(correct);
}

/* Few classes one by one: P between the exact one and the one without any information (law of total covariance), here
   with fewer rows than coordinates and with more. */
static void test_topk_is_cautious(void **state) {
  (void)state;
  struct text text;
  make_text(&text);
  for (int top = 2; top <= 7; top += 5) {
    struct kwm_correct_spec exact = spec_of(&text, KWM_CORRECT_FULL, KWM_CORRECT_EXACT);
    struct kwm_correct_spec few = spec_of(&text, KWM_CORRECT_FULL, KWM_CORRECT_TOPK);
    double P[D * D], Q[D * D], values[D];
    few.top = top;
    exact.noise = few.noise = 0;
    exact.decay = few.decay = 1;
    take_state(&exact, &text, 1, NULL, P);
    take_state(&few, &text, 1, NULL, Q);
    for (int k = 0; k < D * D; k++) P[k] = Q[k] - P[k], Q[k] = PRIOR * (k % (D + 1) == 0) - Q[k];
    assert_true(kwm_eigen_f64(D, P, values));
    assert_true(values[0] > -1e-6 && values[D - 1] > 1e-4);
    assert_true(kwm_eigen_f64(D, Q, values));
    assert_true(values[0] > -1e-6 && values[D - 1] > 1e-2);
  }
}

/* The observed form's information, averaged over what the model expects, is the exact one. */
static void test_observed_on_average(void **state) {
  (void)state;
  struct text text;
  struct textbook book;
  double p[V], g[D], F[D * D], mean[D * D] = {0};
  make_text(&text);
  textbook_open(&book);
  textbook_score(&book, text.W, text.y[0], 0, p, g);
  textbook_information(KWM_CORRECT_EXACT, text.W, p, g, F);
  struct kwm_correct_spec spec = spec_of(&text, KWM_CORRECT_FULL, KWM_CORRECT_OBSERVED);
  spec.noise = 0;
  spec.decay = 1;
  for (int32_t token = 0; token < V; token++) {
    double P[D * D], information[D * D];
    text.tokens[0][0] = token;
    take_state(&spec, &text, 1, NULL, P);
    invert(P, information);
    for (int k = 0; k < D * D; k++) mean[k] += p[token] * (information[k] - (k % (D + 1) == 0) / PRIOR);
  }
  for (int k = 0; k < D * D; k++) assert_close(mean[k], F[k], 1e-4, 1e-5);
}

/* Classes drawn from the prediction: their mean information, over seeds, is the exact one, and other seeds draw others.
 */
static void test_sampled_on_average(void **state) {
  (void)state;
  enum { SEEDS = 4000 };
  struct text text;
  struct textbook book;
  double p[V], g[D], F[D * D], mean[D * D] = {0}, spread = 0, largest = 0;
  make_text(&text);
  textbook_open(&book);
  textbook_score(&book, text.W, text.y[0], text.tokens[0][0], p, g);
  textbook_information(KWM_CORRECT_EXACT, text.W, p, g, F);
  struct kwm_correct_spec spec = spec_of(&text, KWM_CORRECT_FULL, KWM_CORRECT_SAMPLED);
  spec.noise = 0;
  spec.decay = 1;
  for (int seed = 0; seed < SEEDS; seed++) {
    double P[D * D], information[D * D];
    spec.seed = (uint64_t)seed;
    spec.top = 1 + seed % 3;
    take_state(&spec, &text, 1, NULL, P);
    invert(P, information);
    for (int k = 0; k < D * D; k++) {
      const double here = information[k] - (k % (D + 1) == 0) / PRIOR;
      mean[k] += here / SEEDS;
      spread += (here - F[k]) * (here - F[k]) / SEEDS;
    }
  }
  for (int k = 0; k < D * D; k++) largest = fmax(largest, fabs(F[k]));
  assert_true(spread > 0.01 * largest * largest);
  for (int k = 0; k < D * D; k++) assert_close(mean[k], F[k], 0, 0.05 * largest);
}

/* The diagonal of the information, coordinate by coordinate. */
static void test_diag(void **state) {
  (void)state;
  const enum kwm_correct_form forms[] = {KWM_CORRECT_OBSERVED, KWM_CORRECT_TOPK, KWM_CORRECT_EXACT};
  struct text text;
  make_text(&text);
  for (int f = 0; f < 3; f++) {
    struct textbook book[S];
    const struct kwm_correct_spec spec = spec_of(&text, KWM_CORRECT_DIAG, forms[f]);
    kwm_correct *const correct = open_correct(&spec);
    for (int s = 0; s < S; s++) textbook_open(&book[s]);
    for (int t = 0; t < STEPS; t++) {
      double surprisal[S];
      step(correct, &text, t, surprisal);
      for (int s = 0; s < S; s++) {
        double p[V], g[D], F[D * D];
        textbook_score(&book[s], text.W, text.y[t] + s * D, text.tokens[t][s], p, g);
        textbook_information(spec.form, text.W, p, g, F);
        for (int k = 0; k < D * D; k++) F[k] *= k % (D + 1) == 0;
        textbook_update(&book[s], F, g);
        compare_state(correct, s, &book[s], 1e-4);
      }
    }
    kwm_correct_destroy(correct);
  }
}

/* Other tokens from step CHANGE on: what is said of the tokens up to that step has the same bits, after it not. */
static void test_no_future(void **state) {
  (void)state;
  enum { CHANGE = 20 };
  const enum kwm_correct_kind kinds[] = {KWM_CORRECT_FULL, KWM_CORRECT_LOWRANK, KWM_CORRECT_DIAG};
  const enum kwm_correct_form forms[] = {KWM_CORRECT_OBSERVED, KWM_CORRECT_TOPK, KWM_CORRECT_EXACT,
                                         KWM_CORRECT_SAMPLED};
  struct text text, other;
  make_text(&text);
  other = text;
  for (int t = CHANGE; t < STEPS; t++)
    for (int s = 0; s < S; s++) other.tokens[t][s] = (other.tokens[t][s] + 1) % V;
  for (int at = 0; at < 12; at++) {
    struct kwm_correct_spec spec =
        spec_of(&text, kinds[at % 3], kinds[at % 3] == KWM_CORRECT_LOWRANK ? KWM_CORRECT_OBSERVED : forms[at / 3]);
    spec.rank = spec.top = 3;
    spec.bias = at % 2, spec.bias_decay = 0.99, spec.cut = at / 3 * 1e-3;
    kwm_correct *const one = open_correct(&spec), *const two = open_correct(&spec);
    for (int t = 0; t < STEPS; t++) {
      float logits[2][S * V];
      double surprisal[2][S];
      kwm_correct_logits(one, text.y[t], logits[0]);
      kwm_correct_logits(two, text.y[t], logits[1]);
      const bool same = memcmp(logits[0], logits[1], sizeof logits[0]) == 0;
      assert_true(same == (t <= CHANGE));
      step(one, &text, t, surprisal[0]);
      step(two, &other, t, surprisal[1]);
      assert_true((memcmp(surprisal[0], surprisal[1], sizeof surprisal[0]) == 0) == (t < CHANGE));
    }
    kwm_correct_destroy(one);
    kwm_correct_destroy(two);
  }
}

/* A model that knows nothing of the text, and logits that saturate: numbers stay finite, no update is left out, and
   next to nothing is lost against no correction (lowrank: with a small prior, which most directions keep). */
static void test_wrong_model(void **state) {
  (void)state;
  enum { LONG = 3000 };
  const enum kwm_correct_kind kinds[] = {KWM_CORRECT_FULL, KWM_CORRECT_LOWRANK, KWM_CORRECT_DIAG};
  const enum kwm_correct_form forms[] = {KWM_CORRECT_OBSERVED, KWM_CORRECT_TOPK, KWM_CORRECT_EXACT,
                                         KWM_CORRECT_SAMPLED};
  struct text text;
  make_text(&text);
  for (int k = 0; k < V * D; k++) text.W[k] *= 4;
  for (int at = 0; at < 12; at++) {
    struct kwm_correct_spec spec =
        spec_of(&text, kinds[at % 3], kinds[at % 3] == KWM_CORRECT_LOWRANK ? KWM_CORRECT_OBSERVED : forms[at / 3]);
    double corrected = 0, fixed = 0, P[D * D], trace = 0;
    spec.rank = spec.top = 3;
    if (spec.kind == KWM_CORRECT_LOWRANK) spec.prior = 0.02;
    spec.noise = 1e-3;
    spec.bound = 1;
    spec.decay = 1;
    kwm_correct *const correct = open_correct(&spec);
    struct textbook none;
    textbook_open(&none);
    for (int t = 0; t < LONG; t++) {
      const float *const y = text.y[t % STEPS];
      int32_t tokens[S];
      double surprisal[S], p[V], g[D];
      for (int s = 0; s < S; s++) tokens[s] = (int32_t)kwm_rng_below(11, KWM_RNG_TEST, 9, (uint64_t)(t * S + s), V);
      step_as(correct, y, tokens, surprisal);
      for (int s = 0; s < S; s++) {
        corrected += surprisal[s];
        fixed += textbook_score(&none, text.W, y + s * D, tokens[s], p, g);
      }
    }
    kwm_correct_state(correct, 0, NULL, P, NULL);
    for (int k = 0; k < D; k++) trace += P[k * D + k];
    const struct kwm_correct_facts facts = kwm_correct_facts(correct);
    assert_true(isfinite(corrected) && facts.broken == 0 && facts.tokens == S * LONG);
    if (!(corrected <= 1.02 * fixed))
      fail_msg("case %d: corrected %g, static %g", at, corrected / facts.tokens, fixed / facts.tokens);
    assert_true(trace <= D * PRIOR * (1 + 1e-9));
    assert_true(facts.contraction > 0 && isfinite(facts.contraction));
    assert_true(facts.expected > 0 && facts.squared > facts.expected);
    kwm_correct_destroy(correct);
  }
}

/* The contraction of (55): without process noise the errors that are left after a window are fewer than before. */
static void test_contraction(void **state) {
  (void)state;
  struct text text;
  double surprisal[S];
  make_text(&text);
  struct kwm_correct_spec spec = spec_of(&text, KWM_CORRECT_FULL, KWM_CORRECT_EXACT);
  kwm_correct *const correct = open_correct(&spec);
  for (int t = 0; t < 7; t++) step(correct, &text, t, surprisal);
  assert_true(kwm_correct_facts(correct).contraction == 0);
  for (int t = 7; t < STEPS; t++) step(correct, &text, t, surprisal);
  assert_true(kwm_correct_facts(correct).contraction > 0 && kwm_correct_facts(correct).contraction < 1);
  kwm_correct_destroy(correct);
}

static void test_idle(void **state) {
  (void)state;
  struct text text;
  double before[D], after[D], surprisal[S], P[D * D], Q[D * D];
  make_text(&text);
  const struct kwm_correct_spec spec = spec_of(&text, KWM_CORRECT_FULL, KWM_CORRECT_OBSERVED);
  kwm_correct *const correct = open_correct(&spec);
  for (int t = 0; t < 10; t++) step(correct, &text, t, surprisal);
  kwm_correct_state(correct, 1, before, P, NULL);
  kwm_correct_idle(correct);
  kwm_correct_state(correct, 1, after, Q, NULL);
  for (int k = 0; k < D; k++) {
    assert_close(after[k], DECAY * before[k], 1e-12, 1e-12);
    assert_close(Q[k * D + k], DECAY * DECAY * P[k * D + k] + NOISE, 1e-12, 0);
  }
  assert_true(kwm_correct_facts(correct).tokens == 10 * S);
  kwm_correct_destroy(correct);
}

static void test_refused(void **state) {
  (void)state;
  struct text text;
  kwm_correct *correct = NULL;
  make_text(&text);
  struct kwm_correct_spec low = spec_of(&text, KWM_CORRECT_LOWRANK, KWM_CORRECT_OBSERVED);
  low.rank = D + 1;
  assert_int_equal(kwm_correct_create(&correct, &low), KWM_ERR_USAGE);
  assert_null(correct);
  assert_non_null(strstr(kwm_error_message(), "rank from 1 to 5, found 6"));
  struct kwm_correct_spec top = spec_of(&text, KWM_CORRECT_FULL, KWM_CORRECT_TOPK);
  top.top = V + 1;
  assert_int_equal(kwm_correct_create(&correct, &top), KWM_ERR_USAGE);
  assert_non_null(strstr(kwm_error_message(), "found 10"));
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_full),
    cmocka_unit_test(test_topk_is_cautious),
    cmocka_unit_test(test_observed_on_average),
    cmocka_unit_test(test_sampled_on_average),
    cmocka_unit_test(test_diag),
    cmocka_unit_test(test_no_future),
    cmocka_unit_test(test_wrong_model),
    cmocka_unit_test(test_contraction),
    cmocka_unit_test(test_idle),
    cmocka_unit_test(test_refused),
};
KWM_TEST_MAIN(tests)
