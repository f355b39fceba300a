/* Spectra and what they say: eigenvalues of every structure, form and real against those of its dense P, facts against
   numbers known by hand, and the facts of blocks together against those of all their values. */
#include "cov_shapes.h"

#include "kwm/spectrum.h"

enum { FACTS = KWM_SPECTRUM_FACTS };

/* values, each as often as it occurs, are the eigenvalues of P0^-½ P P0^-½. */
static void check_dense(const struct cov_shape *shape) {
  const int64_t n = cov_numbers(shape);
  float *const mean = cov_zeros(shape);
  double *const prior = cov_prior(shape), *const wanted = dense_new(n), *const E = dense_new(n * n);
  kwm_cov cov = cov_ready(shape, 1, 0.01, mean);
  double *const P = cov_dense(&cov), *const found = dense_new(kwm_cov_spectrum_length(&cov));
  const int64_t last = kwm_cov_spectrum_last(&cov), length = kwm_cov_spectrum_length(&cov);
  assert_int_equal(last, cov_is_lowrank(shape) ? (shape->rank < n ? n - shape->rank : 0) : 1);
  lowrank_scale(n, P, prior, -0.5);
  dense_spectrum(n, P, wanted, E);
  assert_true(kwm_cov_spectrum(&cov, found));
  double *const all = dense_new(n);
  for (int64_t k = 0; k < n; k++) all[k] = found[k < length ? k : length - 1];
  for (int64_t k = 0; k < n; k++) {
    int64_t best = 0;
    for (int64_t j = 0; j < n; j++)
      if (all[j] > all[best]) best = j;
    assert_close(all[best], wanted[k], cov_either(shape, 1e-10, 1e-4), cov_either(shape, 1e-12, 1e-5));
    all[best] = -1;
  }
  free(all), free(found), free(P), free(E), free(wanted), free(prior), free(mean);
  kwm_cov_destroy(&cov);
}
COV_TEST(dense)

static void assert_facts(const double found[FACTS], const double wanted[FACTS]) {
  for (int k = 0; k < FACTS; k++) assert_close(found[k], wanted[k], 1e-14, 1e-15);
}

static void test_equal_values(void **state) {
  (void)state;
  const double values[4] = {0.25, 0.25, 0.25, 0.25};
  double facts[FACTS];
  kwm_spectrum_facts(4, values, 1, facts);
  assert_facts(facts, (double[FACTS]){1, 4, 3, 1, 0.25, 0.25, 1});
  kwm_spectrum_facts(4, values, 97, facts);
  assert_facts(facts, (double[FACTS]){25, 100, 75, 1, 0.25, 0.25, 1});
}

static void test_known_values(void **state) {
  (void)state;
  const double values[3] = {0.25, 0.5, 1.25}, shares[3] = {0.125, 0.25, 0.625};
  double facts[FACTS], rank = 1;
  for (int k = 0; k < 3; k++) rank *= pow(shares[k], -shares[k]);
  kwm_spectrum_facts(3, values, 1, facts);
  assert_facts(facts, (double[FACTS]){2, rank, 1, 5, 1.25, 0.25, 1.0 / 3}); /* 1/2 itself is not known */
}

/* A value that stands for no direction counts for nothing, whatever it is. */
static void test_no_others(void **state) {
  (void)state;
  const double values[3] = {0.4, 0.8, 0};
  double with[FACTS], without[FACTS];
  kwm_spectrum_facts(3, values, 0, with);
  kwm_spectrum_facts(2, values, 1, without);
  assert_facts(with, without);
  assert_close(with[KWM_SPECTRUM_CONDITION], 2, 1e-15, 0);
}

static void test_zeros(void **state) {
  (void)state;
  const double one[3] = {0.5, 1, 0}, none[2] = {0, 0};
  double facts[FACTS];
  kwm_spectrum_facts(3, one, 5, facts);
  assert_true(isinf(facts[KWM_SPECTRUM_CONDITION]) && facts[KWM_SPECTRUM_SMALLEST] == 0);
  assert_close(facts[KWM_SPECTRUM_EFFECTIVE_RANK], pow(1.5, 2.0 / 3) * pow(3, 1.0 / 3), 1e-14, 0);
  assert_close(facts[KWM_SPECTRUM_KNOWN], 5.0 / 7, 1e-15, 0);
  kwm_spectrum_facts(2, none, 1, facts);
  assert_true(facts[KWM_SPECTRUM_EFFECTIVE_RANK] == 0 && facts[KWM_SPECTRUM_EFFECTIVE_PARAMETERS] == 2);
}

static void check_join(int64_t blocks, int64_t width, const double *values) {
  double *const facts = dense_new(FACTS * blocks), wanted[FACTS], found[FACTS], each[FACTS];
  for (int64_t b = 0; b < blocks; b++) {
    kwm_spectrum_facts(width, values + b * width, 1, each);
    for (int k = 0; k < FACTS; k++) facts[k * blocks + b] = each[k];
  }
  kwm_spectrum_facts(blocks * width, values, 1, wanted);
  kwm_spectrum_join(blocks, facts, found);
  for (int k = 0; k < FACTS; k++) assert_close(found[k], wanted[k], 1e-13, 1e-15);
  free(facts);
}

static void test_join(void **state) {
  (void)state;
  double values[7 * 5];
  for (int k = 0; k < 7 * 5; k++) values[k] = pow(0.7, (k * 11) % 35);
  check_join(7, 5, values);
  check_join(1, 35, values);
  for (int k = 5; k < 10; k++) values[k] = 0; /* a block of nothing */
  double zeroless[6 * 5];
  memcpy(zeroless, values + 10, 5 * 5 * sizeof *values);
  memcpy(zeroless + 25, values, 5 * sizeof *values);
  check_join(6, 5, zeroless);
  double facts[FACTS * 2], whole[FACTS], first[FACTS], none[FACTS];
  kwm_spectrum_facts(5, values, 1, first);
  kwm_spectrum_facts(5, values + 5, 1, none);
  for (int k = 0; k < FACTS; k++) facts[2 * k] = first[k], facts[2 * k + 1] = none[k];
  kwm_spectrum_join(2, facts, whole);
  assert_close(whole[KWM_SPECTRUM_EFFECTIVE_RANK], first[KWM_SPECTRUM_EFFECTIVE_RANK], 1e-14, 0);
  assert_true(isinf(whole[KWM_SPECTRUM_CONDITION]));
  for (int k = 0; k < FACTS; k++) facts[2 * k] = none[k];
  kwm_spectrum_join(2, facts, whole);
  assert_true(whole[KWM_SPECTRUM_EFFECTIVE_RANK] == 0 && whole[KWM_SPECTRUM_TRACE] == 0);
}

static void test_words(void **state) {
  (void)state;
  for (int k = 0; k < FACTS; k++) assert_true(kwm_spectrum_words[k] != NULL && kwm_spectrum_words[k][0] != 0);
}

static const struct CMUnitTest tests[] = {
    cov_unit_test(dense),
    cmocka_unit_test(test_equal_values),
    cmocka_unit_test(test_known_values),
    cmocka_unit_test(test_no_others),
    cmocka_unit_test(test_zeros),
    cmocka_unit_test(test_join),
    cmocka_unit_test(test_words),
};
KWM_TEST_MAIN(tests)
