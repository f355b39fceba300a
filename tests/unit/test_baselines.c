/* The baselines of continual learning, kfac, ewc and si, against their recursions written densely in double precision,
   and what a boundary between two tasks does. */
#include "baseline_case.h"

/* The gradient of the mean log-likelihood, and the mean diagonal of HᵀH, in the order of the means. */
static double *gradient_of(const struct kwm_jac *jac) {
  if (jac->e != NULL) {
    double *const gradient = jac_dense_score(jac);
    for (int64_t k = 0; k < jac_columns(jac); k++) gradient[k] /= BATCH;
    return gradient;
  }
  double *const gradient = dense_new(jac_columns(jac));
  for (int64_t s = 0; s < jac->n; s++)
    for (int64_t k = 0; k < jac_columns(jac); k++)
      gradient[k] += (double)jac->g[s * jac->d_o + k / jac->d_i] * (double)jac->a[s * jac->d_i + k % jac->d_i] / BATCH;
  return gradient;
}

static double *diagonal_of(const struct kwm_jac *jac) {
  const int64_t width = jac_columns(jac);
  double *const H = jac_rows(jac), *const diagonal = dense_new(width);
  for (int64_t row = 0; row < jac->n * jac->m; row++)
    for (int64_t k = 0; k < width; k++) diagonal[k] += H[row * width + k] * H[row * width + k] / BATCH;
  free(H);
  return diagonal;
}

/* ---- the recursions in double precision */

/* One parameter of ewc or si. */
struct memory {
  double theta, first, second, anchor;
  double fisher, task;     /* ewc */
  double path, importance; /* si */
};

/* A group's recursion; A, G and inverses: kfac. */
struct reference {
  int64_t n, o, i;
  struct memory *at;
  double *A, *G, *inverse_A, *inverse_G;
};

static struct reference reference_new(const struct program *program, int g) {
  const int64_t o = program->model.groups[g].d_o, i = program->model.groups[g].d_i;
  struct reference made = {.n = length_of(program, g), .o = o, .i = i};
  made.at = calloc((size_t)made.n, sizeof *made.at);
  for (int64_t k = 0; k < made.n; k++) made.at[k].theta = made.at[k].anchor = (double)program->params.mean[g][k];
  made.A = dense_new(i * i), made.inverse_A = dense_new(i * i);
  made.G = dense_new(o * o), made.inverse_G = dense_new(o * o);
  return made;
}

static void reference_drop(struct reference *reference) {
  free(reference->at), free(reference->A), free(reference->G), free(reference->inverse_A), free(reference->inverse_G);
}

static double rate_at(int64_t t) {
  return 0.02 * 0.5 * (1 + cos(M_PI * (double)t / TOTAL));
}

/* Returns the change of theta. */
static double adam(struct memory *at, double gradient, int64_t t) {
  at->first = 0.9 * at->first + 0.1 * gradient;
  at->second = 0.99 * at->second + 0.01 * gradient * gradient;
  const double first = at->first / (1 - pow(0.9, (double)t + 1)), second = at->second / (1 - pow(0.99, (double)t + 1));
  const double change = rate_at(t) * first / (sqrt(second) + 1e-6);
  at->theta += change;
  return change;
}

static void reference_ewc(struct reference *reference, const double *gradient, const double *diagonal, int64_t t) {
  for (int64_t k = 0; k < reference->n; k++) {
    struct memory *const at = &reference->at[k];
    at->task = 0.99 * at->task + 0.01 * diagonal[k];
    adam(at, gradient[k] - 3 * at->fisher * (at->theta - at->anchor), t);
  }
}

static void reference_si(struct reference *reference, const double *gradient, const double *diagonal, int64_t t) {
  (void)diagonal;
  for (int64_t k = 0; k < reference->n; k++) {
    struct memory *const at = &reference->at[k];
    at->path += gradient[k] * adam(at, gradient[k] - 2 * 3 * at->importance * (at->theta - at->anchor), t);
  }
}

static void reference_boundary(struct reference *reference) {
  for (int64_t k = 0; k < reference->n; k++) {
    struct memory *const at = &reference->at[k];
    const double way = at->theta - at->anchor;
    at->fisher = 0.8 * at->fisher + at->task;
    at->importance += fmax(at->path, 0) / (way * way + 0.05);
    at->task = at->path = at->first = 0;
    at->anchor = at->theta;
  }
}

/* C (d, d) <- b C + (1-b) rowsᵀrows/BATCH */
static void follow(int64_t d, int64_t n, const float *rows, double b, double *C) {
  for (int64_t k = 0; k < d * d; k++) C[k] *= b;
  for (int64_t s = 0; s < n; s++)
    for (int64_t k = 0; k < d * d; k++)
      C[k] += (1 - b) / BATCH * (double)rows[s * d + k / d] * (double)rows[s * d + k % d];
}

static void damped_inverse(int64_t d, const double *C, double damping, double *inverse) {
  memcpy(inverse, C, (size_t)(d * d) * sizeof *C);
  for (int64_t k = 0; k < d; k++) inverse[k * d + k] += damping;
  dense_invert(d, inverse);
}

static void reference_kfac(struct reference *reference, const struct kwm_jac *jac, const double *gradient,
                           const double *diagonal, int64_t t) {
  const int64_t o = reference->o, i = reference->i;
  const double b = fmin(0.8, 1 - 1 / ((double)t + 1));
  if (o == 0) {
    for (int64_t k = 0; k < reference->n; k++) {
      struct memory *const at = &reference->at[k];
      at->fisher = b * at->fisher + (1 - b) * diagonal[k];
      at->theta += rate_at(t) * gradient[k] / (at->fisher + 0.05);
    }
    return;
  }
  follow(i, jac->n, jac->a, b, reference->A);
  follow(o, jac->n * jac->m, jac->J, b, reference->G);
  if (t < 10 || t % 4 == 0) {
    const double a = dense_trace(i, reference->A) / (double)i, g = dense_trace(o, reference->G) / (double)o;
    damped_inverse(i, reference->A, sqrt(a / g * 0.05), reference->inverse_A);
    damped_inverse(o, reference->G, sqrt(g / a * 0.05), reference->inverse_G);
  }
  double *const half = dense_new(o * i), *const whole = dense_new(o * i);
  dense_multiply(o, i, o, reference->inverse_G, gradient, half);
  dense_multiply(o, i, i, half, reference->inverse_A, whole);
  for (int64_t k = 0; k < o * i; k++) reference->at[k].theta += rate_at(t) * whole[k];
  free(half), free(whole);
}

/* The way from the first means, so that the means themselves hide nothing. */
static void assert_same_way(const struct program *program, int g, const struct reference *reference,
                            const double *start) {
  double *const found = dense_new(reference->n), *const wanted = dense_new(reference->n);
  for (int64_t k = 0; k < reference->n; k++) {
    found[k] = (double)program->params.mean[g][k] - start[k];
    wanted[k] = reference->at[k].theta - start[k];
  }
  assert_below(dense_error(reference->n, found, wanted), 1e-4);
  free(found), free(wanted);
}

/* A push that no gradient asked for: the way back, along the penalty, costs likelihood as often as it wins. */
static void push(struct program *program, struct reference *reference) {
  for (int g = 0; g < GROUPS; g++)
    for (int64_t k = 0; k < reference[g].n; k++) {
      program->params.mean[g][k] += 0.5f;
      reference[g].at[k].theta = (double)program->params.mean[g][k];
    }
}

static void check_recursion(int learner, bool sampled) {
  enum { STEPS = 18 };
  struct program program;
  struct reference reference[GROUPS];
  double *start[GROUPS];
  program_init(&program, learner, sampled, CHUNKS, true);
  for (int g = 0; g < GROUPS; g++) reference[g] = reference_new(&program, g);
  for (int g = 0; g < GROUPS; g++) start[g] = small_widen(length_of(&program, g), program.params.mean[g]);
  for (int64_t t = 0; t < STEPS; t++) {
    struct made made;
    make(&program, t, &made);
    if (t == 5 || t == 11) kwm_learner_boundary(&program.learner);
    if (t == 7 || t == 13) push(&program, reference);
    assert_int_equal(step_on(&program, &made), KWM_STEP_DONE);
    for (int g = 0; g < GROUPS; g++) {
      double *const gradient = gradient_of(&made.lin.jac[g]), *const diagonal = diagonal_of(&made.lin.jac[g]);
      if (learner != KFAC && (t == 5 || t == 11)) reference_boundary(&reference[g]);
      if (learner == KFAC) reference_kfac(&reference[g], &made.lin.jac[g], gradient, diagonal, t);
      if (learner == EWC) reference_ewc(&reference[g], gradient, diagonal, t);
      if (learner == SI) reference_si(&reference[g], gradient, diagonal, t);
      assert_same_way(&program, g, &reference[g], start[g]);
      free(gradient), free(diagonal);
    }
    drop(&made);
  }
  for (int g = 0; g < GROUPS; g++) reference_drop(&reference[g]), free(start[g]);
  program_fini(&program);
}

static void test_kfac(void **state) {
  (void)state;
  check_recursion(KFAC, false);
  check_recursion(KFAC, true);
}

static void test_ewc(void **state) {
  (void)state;
  check_recursion(EWC, false);
  check_recursion(EWC, true);
}

static void test_si(void **state) {
  (void)state;
  check_recursion(SI, false);
  check_recursion(SI, true);
}

/* ---- boundaries */

/* Parameters that a step without evidence moves back and further away, when they were pushed `apart` before it. */
struct pulled {
  int64_t back, away;
};

static struct pulled pull(struct program *program, double apart) {
  struct made made;
  struct pulled pulled = {0};
  float *before[GROUPS];
  make(program, 50, &made);
  silence(&made);
  for (int g = 0; g < GROUPS; g++) {
    for (int64_t k = 0; k < length_of(program, g); k++) program->params.mean[g][k] += (float)apart;
    before[g] = calloc((size_t)length_of(program, g), sizeof(float));
    memcpy(before[g], program->params.mean[g], (size_t)length_of(program, g) * sizeof(float));
  }
  assert_int_equal(step_on(program, &made), KWM_STEP_DONE);
  for (int g = 0; g < GROUPS; g++) {
    for (int64_t k = 0; k < length_of(program, g); k++) {
      const float change = program->params.mean[g][k] - before[g][k];
      pulled.back += change * (float)apart < 0;
      pulled.away += change * (float)apart > 0 || (apart == 0 && change != 0);
    }
    free(before[g]);
  }
  drop(&made);
  return pulled;
}

/* Before a boundary nothing is pulled. Right after it nothing moves without evidence (Adam forgot its direction), and
   what is apart from the anchor comes back: all had information (ewc), nearly all won likelihood on their way (si). */
static void test_boundary(void **state) {
  (void)state;
  for (int learner = EWC; learner <= SI; learner++)
    for (int sampled = 0; sampled < 2; sampled++) {
      struct program program;
      int64_t parameters = 0;
      program_init(&program, learner, sampled, CHUNKS, true);
      for (int g = 0; g < GROUPS; g++) parameters += length_of(&program, g);
      const struct pulled first = pull(&program, 0.1);
      assert_true(first.back == 0 && first.away == 0);
      for (int64_t t = 0; t < 4; t++) step(&program, t);
      kwm_learner_boundary(&program.learner);
      const struct pulled still = pull(&program, 0), up = pull(&program, 0.1);
      assert_true(still.back == 0 && still.away == 0 && up.away == 0);
      assert_in_range(up.back, parameters * 9 / 10, parameters);
      program_fini(&program);
    }
}

/* kfac is not told, and takes no notice. */
static void test_no_boundary(void **state) {
  (void)state;
  struct program told, untold;
  program_init(&told, KFAC, true, CHUNKS, true);
  program_init(&untold, KFAC, true, CHUNKS, true);
  for (int64_t t = 0; t < 3; t++) {
    kwm_learner_boundary(&told.learner);
    step(&told, t), step(&untold, t);
  }
  for (int g = 0; g < GROUPS; g++)
    assert_memory_equal(told.params.mean[g], untold.params.mean[g], (size_t)length_of(&told, g) * sizeof(float));
  program_fini(&told), program_fini(&untold);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_kfac),     cmocka_unit_test(test_ewc),         cmocka_unit_test(test_si),
    cmocka_unit_test(test_boundary), cmocka_unit_test(test_no_boundary),
};
KWM_TEST_MAIN(tests)
