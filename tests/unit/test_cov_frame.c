/* `kron` with its mean kept in the eigenbasis: the same filter as with a plain mean, seen through a rotation. */
#include "cov_case.h"

enum { O = 4, I_ = 7, N = O * I_, STEPS = 32 };

static struct kwm_cov_spec spec_of(bool framed, int64_t m, double forgetting, double process_noise) {
  const struct cov_shape shape = {
      .structure = "kron", .form = KWM_FORM_INFORMATION, .real = KWM_REAL_FLOAT, .count = 1, .d_o = O, .d_i = I_};
  struct kwm_cov_spec spec = cov_spec_of(&shape, forgetting, process_noise);
  spec.framed = framed;
  spec.m = m;
  spec.refresh = 10;
  return spec;
}

static kwm_cov new_cov(const struct kwm_cov_spec *spec) {
  kwm_cov cov;
  const size_t before = kwm_mem_bytes();
  assert_ok(kwm_cov_create(&cov, &kwm_cov_kron, spec));
  assert_int_equal(kwm_mem_bytes() - before, kwm_cov_bytes(&kwm_cov_kron, spec));
  return cov;
}

static void fill(uint64_t stream, float *values) {
  for (int64_t k = 0; k < N; k++) values[k] = (float)test_normal(stream, k);
}

/* M (d_o, d_i) <- VᵀWU */
static void turned(const struct kwm_frame *frame, const float *W, double *M) {
  for (int64_t k = 0; k < N; k++) {
    M[k] = 0;
    for (int64_t l = 0; l < N; l++)
      M[k] += (double)frame->V[l / I_ * O + k / I_] * (double)W[l] * (double)frame->U[l % I_ * I_ + k % I_];
  }
}

/* aU (n, d_i), as a forward pass makes it. */
static void turn_inputs(const struct kwm_frame *frame, const struct kwm_jac *jac, float *aU) {
  for (int64_t s = 0; s < jac->n; s++)
    for (int64_t k = 0; k < I_; k++) {
      double sum = 0;
      for (int64_t j = 0; j < I_; j++) sum += (double)jac->a[s * I_ + j] * (double)frame->U[j * I_ + k];
      aU[s * I_ + k] = (float)sum;
    }
}

struct pair {
  kwm_cov plain, framed;
  float W[N], M[N], anchor[N];
};

/* One step of both; their changes in KL agree. */
static void step_both(struct pair *both, int64_t step, int64_t m) {
  struct jac_case made = jac_outer(COV_SAMPLES, m, O, I_, (uint64_t)(300 + step));
  struct kwm_jac in_frame = made.jac;
  struct cov_step plain, framed;
  float aU[COV_SAMPLES * I_];
  assert_true(kwm_cov_predict(&both->plain, step, both->anchor, both->W));
  assert_true(kwm_cov_predict(&both->framed, step, both->anchor, both->M));
  const struct kwm_frame frame = kwm_cov_frame(&both->framed);
  turn_inputs(&frame, &made.jac, aU);
  in_frame.aU = step % 4 == 0 ? NULL : aU;
  assert_true(cov_prepare(&both->plain, &made.jac, &plain));
  assert_true(cov_prepare(&both->framed, &in_frame, &framed));
  assert_close(framed.kl[0], plain.kl[0], 1e-4, 0);
  double delta[N], found[N];
  kwm_cov_delta(&both->plain, delta);
  kwm_cov_delta(&both->framed, found);
  assert_below(dense_error(N, found, delta), 1e-4);
  kwm_cov_apply(&both->plain, 0.5, both->W);
  kwm_cov_apply(&both->framed, 0.5, both->M);
  cov_step_drop(&plain), cov_step_drop(&framed), jac_drop(&made);
}

/* Both means are float: what is lost is their rounding, and that of the bases, over some steps. */
static void check_same(struct pair *both) {
  const struct kwm_frame frame = kwm_cov_frame(&both->framed), none = kwm_cov_frame(&both->plain);
  double M[N], W[N];
  float back[N], copy[N];
  assert_null(none.U);
  assert_null(none.V);
  turned(&frame, both->W, M);
  assert_below(dense_error_f32(N, both->M, M), 2e-5);
  for (int64_t k = 0; k < N; k++) W[k] = (double)both->W[k];
  kwm_cov_unframe(&both->framed, both->M, back);
  assert_below(dense_error_f32(N, back, W), 2e-5);
  memcpy(back, both->M, sizeof back);
  kwm_cov_unframe(&both->framed, back, back);
  assert_below(dense_error_f32(N, back, W), 2e-5);
  kwm_cov_unframe(&both->plain, both->W, copy);
  assert_memory_equal(copy, both->W, sizeof copy);
}

static void check_run(int64_t m, double forgetting, double process_noise) {
  const struct kwm_cov_spec plain = spec_of(false, m, forgetting, process_noise);
  const struct kwm_cov_spec framed = spec_of(true, m, forgetting, process_noise);
  struct pair both = {.plain = new_cov(&plain), .framed = new_cov(&framed)};
  fill(290, both.W), fill(291, both.anchor);
  memcpy(both.M, both.W, sizeof both.M);
  check_same(&both);
  for (int64_t step = 0; step < STEPS; step++) {
    step_both(&both, step, m);
    check_same(&both);
  }
  struct cov_state one = cov_state_of(&both.plain), other = cov_state_of(&both.framed);
  assert_memory_equal(one.basis, other.basis, N * N * sizeof *one.basis);
  assert_below(dense_error(N, other.D, one.D), 1e-5);
  cov_state_drop(&one), cov_state_drop(&other), kwm_cov_destroy(&both.plain), kwm_cov_destroy(&both.framed);
}

static void test_runs(void **state) {
  (void)state;
  for (int64_t m = 1; m <= COV_OUTPUTS; m += COV_OUTPUTS - 1) {
    check_run(m, 1, 0);
    check_run(m, 0.95, 0.02);
    check_run(m, 0.5, 0);
  }
}

/* A basis that can't be had leaves the framed mean, its frame and all else. */
static void test_no_basis(void **state) {
  (void)state;
  const struct kwm_cov_spec spec = spec_of(true, 1, 0.9, 0.1);
  kwm_cov cov = new_cov(&spec);
  float anchor[N], mean[N], keep[N], *const evidence = calloc((size_t)kwm_cov_evidence_length(&cov), sizeof *evidence);
  double kl;
  fill(292, anchor), fill(293, mean);
  evidence[0] = NAN; /* of A, which only the basis sees */
  assert_true(kwm_cov_absorb(&cov, NULL, evidence, 1, &kl));
  kwm_cov_apply(&cov, 1, mean);
  memcpy(keep, mean, sizeof keep);
  struct cov_state before = cov_state_of(&cov);
  assert_false(kwm_cov_predict(&cov, 5, anchor, mean));
  struct cov_state after = cov_state_of(&cov);
  assert_true(cov_same_state(&before, &after));
  assert_memory_equal(mean, keep, sizeof keep);
  assert_true(kwm_cov_predict(&cov, 6, anchor, mean));
  assert_true(memcmp(mean, keep, sizeof keep) != 0);
  free(evidence), cov_state_drop(&before), cov_state_drop(&after), kwm_cov_destroy(&cov);
}

/* The frame comes back with the state; the mean is the caller's. */
static void test_resumed(void **state) {
  (void)state;
  const struct kwm_cov_spec plain = spec_of(false, 1, 1, 0), framed = spec_of(true, 1, 1, 0);
  struct pair both = {.plain = new_cov(&plain), .framed = new_cov(&framed)};
  for (int64_t step = 0; step < 7; step++) step_both(&both, step, 1);
  kwm_cov again = new_cov(&framed);
  struct cov_file file;
  cov_write(&both.framed, &file);
  assert_ok(kwm_cov_load(&again, file.ckpt));
  cov_file_drop(&file);
  const struct kwm_frame was = kwm_cov_frame(&both.framed), is = kwm_cov_frame(&again);
  assert_memory_equal(is.U, was.U, I_ * I_ * sizeof *is.U);
  assert_memory_equal(is.V, was.V, O * O * sizeof *is.V);
  assert_true(was.U[0] != 1 && was.V[0] != 1);
  kwm_cov_destroy(&both.plain), kwm_cov_destroy(&both.framed), kwm_cov_destroy(&again);
}

/* A rank that owns nothing has no frame, and touches nothing. */
static void test_empty(void **state) {
  (void)state;
  struct kwm_cov_spec spec = spec_of(true, 1, 1, 0);
  spec.count = 0;
  kwm_cov cov = new_cov(&spec);
  float plain[1] = {7};
  assert_null(kwm_cov_frame(&cov).U);
  assert_null(kwm_cov_frame(&cov).V);
  assert_true(kwm_cov_predict(&cov, 1, NULL, NULL));
  kwm_cov_unframe(&cov, NULL, plain);
  assert_true(plain[0] == 7);
  kwm_cov_destroy(&cov);
}

/* Inputs that come in the frame are taken as they are: here they say nothing. */
static void test_inputs(void **state) {
  (void)state;
  const float aU[COV_SAMPLES * I_] = {0};
  const struct kwm_cov_spec spec = spec_of(true, 1, 1, 0);
  struct jac_case made = jac_outer(COV_SAMPLES, 1, O, I_, 294);
  kwm_cov cov = new_cov(&spec);
  struct cov_step step;
  double moved = 1;
  made.jac.aU = aU;
  assert_true(cov_prepare(&cov, &made.jac, &step));
  kwm_cov_moved(&cov, &moved);
  assert_true(step.kl[0] == 0 && moved == 0);
  cov_step_drop(&step), jac_drop(&made), kwm_cov_destroy(&cov);
}

/* No step is turned back, and no input; the mean turns with the basis. */
static void test_cost(void **state) {
  (void)state;
  const double o = 200, i = 500, both = o * i * (o + i);
  struct kwm_cov_spec plain = spec_of(false, 1, 1, 0), framed = spec_of(true, 1, 1, 0);
  plain.d_o = framed.d_o = 200, plain.d_i = framed.d_i = 500, plain.refresh = framed.refresh = 1000000000;
  const double apart = kwm_cov_operations(&kwm_cov_kron, &plain) - kwm_cov_operations(&kwm_cov_kron, &framed);
  assert_close(apart, 2 * both + 2 * COV_SAMPLES * i * i, 1e-6, 0);
  plain.refresh = framed.refresh = 1;
  assert_close(kwm_cov_operations(&kwm_cov_kron, &plain) - kwm_cov_operations(&kwm_cov_kron, &framed), apart - 2 * both,
               1e-6, 0);
  plain.forgetting = framed.forgetting = 0.9;
  assert_close(kwm_cov_operations(&kwm_cov_kron, &plain) - kwm_cov_operations(&kwm_cov_kron, &framed), apart, 1e-6, 0);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_runs),  cmocka_unit_test(test_no_basis), cmocka_unit_test(test_resumed),
    cmocka_unit_test(test_empty), cmocka_unit_test(test_inputs),   cmocka_unit_test(test_cost),
};
KWM_TEST_MAIN(tests)
