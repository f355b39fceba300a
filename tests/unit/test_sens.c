/* Jacobian rows and scores of the whole model against central differences of the same model in double precision.

   The differences themselves are good to 1e-9 (step 1e-5: truncation 1e-10, rounding 1e-16 / 1e-5). What is compared is
   single precision through a recurrence of 30 pixels and two layers: 1e-5 of the group's norm leaves a margin of ten.
 */
#include "small_model.h"

#include "kwm/layer.h"
#include "kwm/sens.h"

enum { WIDTH = 16, BATCH = 7, CHUNKS = 4 };
static const double STEP = 1e-5, SINGLE = 1e-5;

static double *group_of(struct ref_model *reference, int g) {
  return g == KWM_GROUP_RECURRENCE ? reference->theta : g == KWM_GROUP_HIDDEN ? reference->W1 : reference->W2;
}

static int64_t length_of(const struct small *small, int g) {
  return small->model.groups[g].total * small->model.groups[g].params;
}

static double log_likelihood(const struct small *small, const struct ref_model *reference, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; i++) {
    const int32_t at = small->order[i];
    sum += ref_log_likelihood(reference, small->data->pixels + at * SMALL_LENGTH, small->data->labels[at]);
  }
  return sum;
}

static double *difference_score(const struct small *small, struct ref_model *reference, int g) {
  double *const score = dense_new(length_of(small, g)), *const values = group_of(reference, g);
  for (int64_t k = 0; k < length_of(small, g); k++) {
    const double keep = values[k];
    values[k] = keep + STEP;
    const double above = log_likelihood(small, reference, BATCH);
    values[k] = keep - STEP;
    score[k] = (above - log_likelihood(small, reference, BATCH)) / (2 * STEP);
    values[k] = keep;
  }
  return score;
}

/* Summed over the chunks of the step, in the order of the means. */
static double *program_score(const struct kwm_lin *lin, int g, int64_t length) {
  const struct kwm_jac *const jac = &lin->jac[g];
  float *const s = calloc((size_t)length, sizeof *s), *const scratch = normal_floats(BATCH * 64, 1);
  for (int64_t c = 0; c < lin->chunks; c++) {
    const struct kwm_jac part = kwm_jac_part(jac, lin->bounds[c], lin->bounds[c + 1] - lin->bounds[c]);
    kwm_jac_score(&part, s, scratch);
  }
  double *const score = dense_new(length);
  const bool units = jac->shape == KWM_JAC_UNITS;
  for (int64_t k = 0; k < length; k++) score[k] = (double)s[units ? k % jac->params * jac->count + k / jac->params : k];
  free(s), free(scratch);
  return score;
}

static void test_score(void **state) {
  (void)state;
  struct small small;
  struct kwm_lin lin;
  const struct kwm_layout alone = small_alone();
  small_init(&small, &alone, WIDTH, BATCH, CHUNKS);
  small_linearise(&small, 0, BATCH, &lin);
  assert_int_equal(lin.batch, BATCH);
  assert_int_equal(lin.bounds[lin.chunks], BATCH);
  struct ref_model reference = small_reference(&small);
  assert_close(-lin.innovation.surprisal, log_likelihood(&small, &reference, BATCH), 1e-5, 0);
  for (int g = 0; g < SMALL_GROUPS; g++) {
    double *const wanted = difference_score(&small, &reference, g), *const found =
                                                                        program_score(&lin, g, length_of(&small, g));
    assert_below(dense_error(length_of(&small, g), found, wanted), SINGLE);
    free(wanted), free(found);
  }
  small_reference_drop(&reference);
  small_fini(&small);
}

/* Whitened rows √p_r (∂logit_r - sum_c p_c ∂logit_c) of one sample with respect to values[0..n), rows into H (classes,
   n). */
static void difference_rows(const struct ref_model *reference, const uint8_t *pixels, int64_t n, double *values,
                            double *H) {
  double *const z = dense_new(2 * WIDTH);
  double p[SMALL_CLASSES], above[SMALL_CLASSES], below[SMALL_CLASSES];
  ref_states(reference, pixels, z);
  ref_readout(reference, z, above);
  ref_softmax(SMALL_CLASSES, above, p);
  for (int64_t k = 0; k < n; k++) {
    const double keep = values[k];
    double mean = 0;
    values[k] = keep + STEP;
    ref_states(reference, pixels, z), ref_readout(reference, z, above);
    values[k] = keep - STEP;
    ref_states(reference, pixels, z), ref_readout(reference, z, below);
    values[k] = keep;
    for (int c = 0; c < SMALL_CLASSES; c++) mean += p[c] * (above[c] - below[c]) / (2 * STEP);
    for (int c = 0; c < SMALL_CLASSES; c++) H[c * n + k] = sqrt(p[c]) * ((above[c] - below[c]) / (2 * STEP) - mean);
  }
  free(z);
}

/* Every row of H, every group, every sample: not only their products with e. */
static void test_rows(void **state) {
  (void)state;
  struct small small;
  struct kwm_lin lin;
  const struct kwm_layout alone = small_alone();
  small_init(&small, &alone, WIDTH, BATCH, CHUNKS);
  small_linearise(&small, 0, BATCH, &lin);
  struct ref_model reference = small_reference(&small);
  for (int g = 0; g < SMALL_GROUPS; g++) {
    const int64_t n = length_of(&small, g), rows = SMALL_CLASSES * n;
    double *const found = jac_rows(&lin.jac[g]), *const wanted = dense_new(rows);
    for (int64_t i = 0; i < BATCH; i++) {
      difference_rows(&reference, small.data->pixels + small.order[i] * SMALL_LENGTH, n, group_of(&reference, g),
                      wanted);
      assert_below(dense_error(rows, found + i * rows, wanted), SINGLE);
    }
    free(found), free(wanted);
  }
  small_reference_drop(&reference);
  small_fini(&small);
}

/* ∂(whitened ŷ)/∂h as the read-out alone gives it, against differences in the states h. */
static void test_state_rows(void **state) {
  (void)state;
  struct small small;
  const struct kwm_layout alone = small_alone();
  small_init(&small, &alone, WIDTH, BATCH, CHUNKS);
  struct ref_model reference = small_reference(&small);
  const int64_t wide = 2 * WIDTH;
  double *const z = dense_new(wide);
  float z_f32[2 * WIDTH + 1], u[SMALL_HIDDEN], act[SMALL_HIDDEN + 1], logits[SMALL_CLASSES], e[SMALL_CLASSES];
  float J[SMALL_CLASSES * SMALL_CLASSES], J_act[SMALL_CLASSES * SMALL_HIDDEN], J_state[SMALL_CLASSES * 2 * WIDTH];
  const struct kwm_sens_output out = {.logits = logits, .e = e, .J = J, .J_act = J_act};
  struct kwm_innovation sums = {0};
  const uint8_t label = 3;
  const struct kwm_sens_seen seen = {.labels = &label, .sums = &sums};
  for (int64_t k = 0; k < wide; k++) z[k] = (double)(z_f32[k] = (float)test_normal(60, k));
  z_f32[wide] = 1;
  kwm_dense_forward(NULL, 1, wide + 1, SMALL_HIDDEN, small.params.mean[KWM_GROUP_HIDDEN], z_f32, u, SMALL_HIDDEN);
  kwm_relu_forward(NULL, 1, SMALL_HIDDEN, u, act);
  kwm_sens_output(NULL, &small.model, 1, small.params.mean[KWM_GROUP_OUTPUT], act, &seen, &out);
  kwm_sens_hidden(NULL, &small.model, 1, small.params.mean[KWM_GROUP_HIDDEN], u, J_act, J_state);
  double p[SMALL_CLASSES], above[SMALL_CLASSES], below[SMALL_CLASSES];
  double *const wanted = dense_new(SMALL_CLASSES * wide);
  ref_readout(&reference, z, above);
  ref_softmax(SMALL_CLASSES, above, p);
  for (int64_t k = 0; k < wide; k++) {
    double mean = 0;
    const double keep = z[k];
    z[k] = keep + STEP, ref_readout(&reference, z, above);
    z[k] = keep - STEP, ref_readout(&reference, z, below);
    z[k] = keep;
    for (int c = 0; c < SMALL_CLASSES; c++) mean += p[c] * (above[c] - below[c]) / (2 * STEP);
    for (int c = 0; c < SMALL_CLASSES; c++)
      wanted[c * wide + k] = sqrt(p[c]) * ((above[c] - below[c]) / (2 * STEP) - mean);
  }
  assert_below(dense_error_f32(SMALL_CLASSES * wide, J_state, wanted), SINGLE);
  free(z), free(wanted);
  small_reference_drop(&reference);
  small_fini(&small);
}

/* Values that are not numbers pass through ReLU, for the likelihood to see. */
static void test_relu(void **state) {
  (void)state;
  const float u[4] = {-1, 0, 2, NAN};
  float act[5], J[8] = {1, 2, 3, 4, 5, 6, 7, 8};
  kwm_relu_forward(NULL, 1, 4, u, act);
  assert_true(act[0] == 0 && act[1] == 0 && act[2] == 2 && isnan(act[3]) && act[4] == 1);
  kwm_relu_pull_back(NULL, 1, 2, 3, u, J);
  const float wanted[8] = {0, 0, 3, 0, 0, 6, 7, 8};
  assert_memory_equal(J, wanted, sizeof J);
}

int main(int argc, char **argv) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_score),
      cmocka_unit_test(test_rows),
      cmocka_unit_test(test_state_rows),
      cmocka_unit_test(test_relu),
  };
  MPI_Init(&argc, &argv);
  const int failed = cmocka_run_group_tests(tests, NULL, NULL);
  MPI_Finalize();
  return failed;
}
