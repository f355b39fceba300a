/* Correcting activations against dense textbook filters in double precision, and what must hold whatever the numbers:
   no token is known before it is scored, gains stay bounded, a wrong model does not make the filter diverge. */
#include "kwm/backend.h"
#include "kwm/correct.h"
#include "kwm/rng.h"
#include "kwm/tensor.h"
#include "kwm_test.h"

enum { D = 5, V = 9, S = 3, STEPS = 40 };
static const double PRIOR = 1.5, NOISE = 0.02, DECAY = 0.97;

struct text {
  float W[V * D], y[STEPS][S * D];
  int32_t tokens[STEPS][S];
};

static float draw(uint64_t what, int64_t k) {
  return (float)kwm_rng_normal(11, KWM_RNG_TEST, what, (uint64_t)k);
}

static void make_text(struct text *text) {
  for (int k = 0; k < V * D; k++) text->W[k] = draw(1, k);
  for (int t = 0; t < STEPS; t++) {
    for (int k = 0; k < S * D; k++) text->y[t][k] = 0.7f * draw(2, t * S * D + k);
    for (int s = 0; s < S; s++)
      text->tokens[t][s] = (int32_t)kwm_rng_below(11, KWM_RNG_TEST, 3, (uint64_t)(t * S + s), 4);
  }
}

static struct kwm_correct_spec spec_of(const struct text *text, enum kwm_correct_kind kind,
                                       enum kwm_correct_form form) {
  return (struct kwm_correct_spec){.kind = kind,
                                   .form = form,
                                   .streams = S,
                                   .width = D,
                                   .classes = V,
                                   .rank = D,
                                   .top = V,
                                   .prior = PRIOR,
                                   .noise = NOISE,
                                   .decay = DECAY,
                                   .window = 8,
                                   .W = text->W};
}

static kwm_correct *open_correct(const struct kwm_correct_spec *spec) {
  kwm_correct *correct = NULL;
  assert_ok(kwm_correct_create(&correct, spec));
  return correct;
}

static void step_as(kwm_correct *correct, const float *y, const int32_t *tokens, double surprisal[S]) {
  float facts[S * KWM_TOKEN_FACTS];
  kwm_correct_run(correct, 1, y, tokens, facts);
  for (int s = 0; s < S; s++) surprisal[s] = (double)facts[s * KWM_TOKEN_FACTS + KWM_TOKEN_SURPRISAL];
}

static void step(kwm_correct *correct, const struct text *text, int t, double surprisal[S]) {
  step_as(correct, text->y[t], text->tokens[t], surprisal);
}

/* One stream of the textbook: P (d, d), b (d); Q = noise * shape. */
struct textbook {
  double P[D * D], b[D], shape[D * D];
};

static void textbook_open(struct textbook *book) {
  memset(book, 0, sizeof *book);
  for (int k = 0; k < D; k++) book->shape[k * D + k] = 1, book->P[k * D + k] = PRIOR;
}

/* p <- softmax(W (y + b)), g <- Wᵀ(onehot - p); the surprisal. */
static double textbook_score(const struct textbook *book, const float *W, const float *y, int32_t token, double p[V],
                             double g[D]) {
  double sum = 0;
  for (int i = 0; i < V; i++) {
    double logit = 0;
    for (int k = 0; k < D; k++) logit += (double)W[i * D + k] * ((double)y[k] + book->b[k]);
    sum += p[i] = exp(logit);
  }
  memset(g, 0, D * sizeof *g);
  for (int i = 0; i < V; i++) {
    p[i] /= sum;
    for (int k = 0; k < D; k++) g[k] += ((i == token) - p[i]) * (double)W[i * D + k];
  }
  return -log(p[token]);
}

/* F <- Wᵀ(diag(p) - ppᵀ)W, or ggᵀ. */
static void textbook_information(enum kwm_correct_form form, const float *W, const double *p, const double *g,
                                 double F[D * D]) {
  for (int a = 0; a < D; a++)
    for (int b = 0; b < D; b++) {
      double second = 0, mean_a = 0, mean_b = 0;
      for (int i = 0; i < V; i++) {
        second += p[i] * (double)W[i * D + a] * (double)W[i * D + b];
        mean_a += p[i] * (double)W[i * D + a], mean_b += p[i] * (double)W[i * D + b];
      }
      F[a * D + b] = form == KWM_CORRECT_OBSERVED ? g[a] * g[b] : second - mean_a * mean_b;
    }
}

static void invert(const double *A, double *X) {
  double copy[D * D];
  memcpy(copy, A, sizeof copy);
  for (int k = 0; k < D * D; k++) X[k] = k % (D + 1) == 0;
  assert_true(kwm_solve_f64(D, D, copy, X));
}

/* P <- (I + PF)⁻¹P, which is (P⁻¹ + F)⁻¹ where P has an inverse; b += P⁺g. */
static void textbook_take(struct textbook *book, const double *F, const double *g) {
  double A[D * D], after[D * D];
  for (int i = 0; i < D; i++)
    for (int j = 0; j < D; j++) {
      A[i * D + j] = i == j;
      for (int k = 0; k < D; k++) A[i * D + j] += book->P[i * D + k] * F[k * D + j];
    }
  memcpy(after, book->P, sizeof after);
  assert_true(kwm_solve_f64(D, D, A, after));
  for (int i = 0; i < D; i++)
    for (int k = 0; k < D; k++) book->b[i] += after[i * D + k] * g[k];
  memcpy(book->P, after, sizeof after);
}

/* Then time goes on. */
static void textbook_update(struct textbook *book, const double *F, const double *g) {
  double trace = 0, most = 0;
  textbook_take(book, F, g);
  for (int k = 0; k < D * D; k++) book->P[k] = DECAY * DECAY * book->P[k] + NOISE * book->shape[k];
  for (int k = 0; k < D; k++) book->b[k] *= DECAY, trace += book->P[k * D + k], most += PRIOR * book->shape[k * D + k];
  for (int k = 0; k < D * D && trace > most; k++) book->P[k] *= most / trace;
}

static void compare_state(const kwm_correct *correct, int s, const struct textbook *book, double relative) {
  double b[D], P[D * D];
  kwm_correct_state(correct, s, b, P, NULL);
  for (int k = 0; k < D; k++) assert_close(b[k], book->b[k], relative, relative);
  for (int k = 0; k < D * D; k++) assert_close(P[k], book->P[k], relative, relative);
}

static void follow_textbook(const struct kwm_correct_spec *spec, const struct text *text, struct textbook *book) {
  kwm_correct *const correct = open_correct(spec);
  for (int t = 0; t < STEPS; t++) {
    double surprisal[S];
    step(correct, text, t, surprisal);
    for (int s = 0; s < S; s++) {
      double p[V], g[D], F[D * D];
      const double wanted = textbook_score(&book[s], text->W, text->y[t] + s * D, text->tokens[t][s], p, g);
      assert_close(surprisal[s], wanted, 1e-4, 1e-5);
      textbook_information(spec->form, text->W, p, g, F);
      textbook_update(&book[s], F, g);
      compare_state(correct, s, &book[s], 1e-4);
    }
  }
  assert_true(kwm_correct_facts(correct).broken == 0);
  kwm_correct_destroy(correct);
}

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
  const enum kwm_correct_form forms[] = {KWM_CORRECT_OBSERVED, KWM_CORRECT_TOPK, KWM_CORRECT_EXACT};
  struct text text, other;
  make_text(&text);
  other = text;
  for (int t = CHANGE; t < STEPS; t++)
    for (int s = 0; s < S; s++) other.tokens[t][s] = (other.tokens[t][s] + 1) % V;
  for (int at = 0; at < 9; at++) {
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
  const enum kwm_correct_form forms[] = {KWM_CORRECT_OBSERVED, KWM_CORRECT_TOPK, KWM_CORRECT_EXACT};
  struct text text;
  make_text(&text);
  for (int k = 0; k < V * D; k++) text.W[k] *= 4;
  for (int at = 0; at < 9; at++) {
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
    assert_true(kwm_correct_on_device(&spec));
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
    cmocka_unit_test(test_lowrank),
    cmocka_unit_test(test_lowrank_gives_up),
    cmocka_unit_test(test_cut),
    cmocka_unit_test(test_bias),
    cmocka_unit_test(test_topk_is_cautious),
    cmocka_unit_test(test_observed_on_average),
    cmocka_unit_test(test_diag),
    cmocka_unit_test(test_no_future),
    cmocka_unit_test(test_wrong_model),
    cmocka_unit_test(test_contraction),
    cmocka_unit_test(test_idle),
    cmocka_unit_test(test_device),
    cmocka_unit_test(test_refused),
};
KWM_TEST_MAIN(tests)
