/* What the tests of corrections of activations share: a small text that a model reads, and the textbook's filter in
   double. */
#pragma once

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

static inline float draw(uint64_t what, int64_t k) {
  return (float)kwm_rng_normal(11, KWM_RNG_TEST, what, (uint64_t)k);
}

static inline void make_text(struct text *text) {
  for (int k = 0; k < V * D; k++) text->W[k] = draw(1, k);
  for (int t = 0; t < STEPS; t++) {
    for (int k = 0; k < S * D; k++) text->y[t][k] = 0.7f * draw(2, t * S * D + k);
    for (int s = 0; s < S; s++)
      text->tokens[t][s] = (int32_t)kwm_rng_below(11, KWM_RNG_TEST, 3, (uint64_t)(t * S + s), 4);
  }
}

static inline struct kwm_correct_spec spec_of(const struct text *text, enum kwm_correct_kind kind,
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

static inline kwm_correct *open_correct(const struct kwm_correct_spec *spec) {
  kwm_correct *correct = NULL;
  assert_ok(kwm_correct_create(&correct, spec));
  return correct;
}

static inline void step_as(kwm_correct *correct, const float *y, const int32_t *tokens, double surprisal[S]) {
  float facts[S * KWM_TOKEN_FACTS];
  kwm_correct_run(correct, 1, y, tokens, facts);
  for (int s = 0; s < S; s++) surprisal[s] = (double)facts[s * KWM_TOKEN_FACTS + KWM_TOKEN_SURPRISAL];
}

static inline void step(kwm_correct *correct, const struct text *text, int t, double surprisal[S]) {
  step_as(correct, text->y[t], text->tokens[t], surprisal);
}

/* One stream of the textbook: P (d, d), b (d); Q = noise * shape. */
struct textbook {
  double P[D * D], b[D], shape[D * D];
};

static inline void textbook_open(struct textbook *book) {
  memset(book, 0, sizeof *book);
  for (int k = 0; k < D; k++) book->shape[k * D + k] = 1, book->P[k * D + k] = PRIOR;
}

/* p <- softmax(W (y + b)), g <- Wᵀ(onehot - p); the surprisal. */
static inline double textbook_score(const struct textbook *book, const float *W, const float *y, int32_t token,
                                    double p[V], double g[D]) {
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
static inline void textbook_information(enum kwm_correct_form form, const float *W, const double *p, const double *g,
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

static inline void invert(const double *A, double *X) {
  double copy[D * D];
  memcpy(copy, A, sizeof copy);
  for (int k = 0; k < D * D; k++) X[k] = k % (D + 1) == 0;
  assert_true(kwm_solve_f64(D, D, copy, X));
}

/* P <- (I + PF)⁻¹P, which is (P⁻¹ + F)⁻¹ where P has an inverse; b += P⁺g. */
static inline void textbook_take(struct textbook *book, const double *F, const double *g) {
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
static inline void textbook_update(struct textbook *book, const double *F, const double *g) {
  double trace = 0, most = 0;
  textbook_take(book, F, g);
  for (int k = 0; k < D * D; k++) book->P[k] = DECAY * DECAY * book->P[k] + NOISE * book->shape[k];
  for (int k = 0; k < D; k++) book->b[k] *= DECAY, trace += book->P[k * D + k], most += PRIOR * book->shape[k * D + k];
  for (int k = 0; k < D * D && trace > most; k++) book->P[k] *= most / trace;
}

static inline void compare_state(const kwm_correct *correct, int s, const struct textbook *book, double relative) {
  double b[D], P[D * D];
  kwm_correct_state(correct, s, b, P, NULL);
  for (int k = 0; k < D; k++) assert_close(b[k], book->b[k], relative, relative);
  for (int k = 0; k < D * D; k++) assert_close(P[k], book->P[k], relative, relative);
}

static inline void follow_textbook(const struct kwm_correct_spec *spec, const struct text *text,
                                   struct textbook *book) {
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
