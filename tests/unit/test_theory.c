/* The verification of the theory itself: a right filter fulfils every claim, and each wrong filter fails exactly the
   claims that it must: gain halved, process noise dropped, S local to each block. Nothing is timed here. */
#include "kwm_test.h"

#include "kwm/theory.h"

enum { FAULTS = 4, MOST_FAILING = 40 };

/* Claims that fail with each fault and seed 1; all others hold. */
static const char *const failing[FAULTS][MOST_FAILING] = {
    [KWM_FAULT_GAIN_HALVED] = {"thm1-half",        "thm1-paper",     "thm1-noise",       "thm1-multiple",
                               "thm1-counted",     "thm1-deficient", "thm1-damped",      "thm1-damped-range",
                               "thm1-posterior",   "thm1-exact",     "thm1-large-R",     "thm1-zero-R",
                               "thm1-run",         "riccati-step",   "riccati-short",    "riccati-joseph",
                               "radius-full-rank", "radius-ones",    "radius-history",   "radius-decay",
                               "thm3-noise",       "lyapunov-drop",  "lyapunov-noise",   "thm4-gain-map",
                               "batch-mean",       "batch-sequence", "batch-calibrated", "block-marginal",
                               "block-correction", "full-step"},
    [KWM_FAULT_Q_DROPPED] = {"riccati-step", "riccati-joseph", "riccati-rest", "riccati-wind-up", "thm3-exponential",
                             "thm3-noise", "lyapunov-predict", "diag-rest", "kron-exact", "full-step", "full-spectrum"},
    [KWM_FAULT_LOCAL_S] = {"block-marginal", "block-correction"},
};

static struct kwm_finding *verify(uint64_t seed, enum kwm_fault fault) {
  const struct kwm_theory_spec spec = {.seed = seed, .fault = fault};
  struct kwm_layout world;
  struct kwm_finding *const findings = calloc((size_t)kwm_theory_count(false), sizeof *findings);
  assert_non_null(findings);
  kwm_par_world(&world);
  assert_ok(kwm_theory_verify(&world, &spec, findings));
  return findings;
}

static bool expected(enum kwm_fault fault, const char *id) {
  for (int k = 0; k < MOST_FAILING && failing[fault][k] != NULL; k++)
    if (strcmp(failing[fault][k], id) == 0) return true;
  return false;
}

static void test_faults_fail_their_lines_only(void **state) {
  (void)state;
  for (int fault = KWM_FAULT_NONE; fault < FAULTS; fault++) {
    struct kwm_finding *const findings = verify(1, (enum kwm_fault)fault);
    int found = 0, wanted = 0;
    while (wanted < MOST_FAILING && failing[fault][wanted] != NULL) wanted++;
    for (int i = 0; i < kwm_theory_count(false); i++) {
      const bool fails = expected((enum kwm_fault)fault, findings[i].claim->id);
      if (findings[i].pass == fails)
        fail_msg("fault %d: %s is %g, wanted it to %s", fault, findings[i].claim->id, findings[i].number,
                 fails ? "fail" : "pass");
      found += fails;
    }
    assert_int_equal(found, wanted);
    free(findings);
  }
}

static void test_other_seeds_pass(void **state) {
  (void)state;
  for (uint64_t seed = 2; seed <= 6; seed++) {
    struct kwm_finding *const findings = verify(seed, KWM_FAULT_NONE);
    for (int i = 0; i < kwm_theory_count(false); i++)
      if (!findings[i].pass) fail_msg("seed %d: %s is %g", (int)seed, findings[i].claim->id, findings[i].number);
    free(findings);
  }
}

static void test_same_numbers_again(void **state) {
  (void)state;
  struct kwm_finding *const one = verify(7, KWM_FAULT_NONE), *const two = verify(7, KWM_FAULT_NONE);
  struct kwm_finding *const other = verify(8, KWM_FAULT_NONE);
  int differ = 0;
  for (int i = 0; i < kwm_theory_count(false); i++) {
    assert_memory_equal(&one[i].number, &two[i].number, sizeof(double));
    assert_memory_equal(&one[i].bound, &two[i].bound, sizeof(double));
    differ += one[i].number < other[i].number || one[i].number > other[i].number;
  }
  assert_true(differ > kwm_theory_count(false) / 2);
  free(one), free(two), free(other);
}

static void test_claims_are_well_made(void **state) {
  (void)state;
  const int n = kwm_theory_count(false);
  struct kwm_finding *const findings = verify(1, KWM_FAULT_NONE);
  int papers = 0;
  assert_true(n >= 30 && kwm_theory_count(true) > n);
  for (int i = 0; i < n; i++) {
    const struct kwm_claim *const claim = findings[i].claim;
    const bool false_as_stated = strncmp(claim->statement, "false as stated: ", 17) == 0;
    assert_true(strlen(claim->id) > 0 && strlen(claim->id) <= 18 && claim->computed[0] != '\0');
    assert_true(claim->equations[0] == '(' && strlen(claim->equations) <= 11);
    assert_true(false_as_stated == (claim->kind == KWM_CLAIM_PAPER));
    assert_true(isfinite(findings[i].bound) && !findings[i].timed);
    papers += false_as_stated;
    for (int j = 0; j < i; j++) assert_string_not_equal(findings[j].claim->id, claim->id);
    /* No line passes without a number, nor far from its bound on the wrong side. */
    const double away = claim->relation == KWM_AT_LEAST ? -1e9 : 1e9;
    assert_false(kwm_claim_holds(claim, NAN, findings[i].bound));
    assert_false(kwm_claim_holds(claim, findings[i].number, NAN));
    assert_false(kwm_claim_holds(claim, findings[i].bound + away, findings[i].bound));
  }
  assert_true(papers >= 10);
  free(findings);
}

static void test_relations(void **state) {
  (void)state;
  const struct kwm_claim most = {.relation = KWM_AT_MOST}, least = {.relation = KWM_AT_LEAST};
  const struct kwm_claim within = {.relation = KWM_WITHIN, .tolerance = 0.25};
  assert_true(kwm_claim_holds(&most, 1, 1) && !kwm_claim_holds(&most, 1.5, 1));
  assert_true(kwm_claim_holds(&least, 1, 1) && !kwm_claim_holds(&least, 0.5, 1));
  assert_true(kwm_claim_holds(&within, 1.25, 1) && kwm_claim_holds(&within, 0.75, 1));
  assert_false(kwm_claim_holds(&within, 1.5, 1) || kwm_claim_holds(&within, 0.5, 1));
}

int main(int argc, char **argv) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_relations),          cmocka_unit_test(test_claims_are_well_made),
      cmocka_unit_test(test_same_numbers_again), cmocka_unit_test(test_faults_fail_their_lines_only),
      cmocka_unit_test(test_other_seeds_pass),
  };
  MPI_Init(&argc, &argv);
  const int failed = cmocka_run_group_tests(tests, NULL, NULL);
  MPI_Finalize();
  return failed;
}
