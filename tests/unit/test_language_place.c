/* Where layers and stages of a language model go: ranks have alike to compute, as costs say. */
#include "kwm/language.h"
#include "kwm_test.h"

enum { LAYERS = 6 };

static struct kwm_transformer model_of(int readings, int64_t types) {
  struct kwm_transformer model = {
      .types = types, .context = 8, .width = 16, .heads = 2, .ratio = 4, .layers = LAYERS, .stages = readings};
  assert_ok(kwm_transformer_lay_out(&model));
  return model;
}

static void check_layers(const struct kwm_transformer *model, double reading, int ranks, const int *wanted) {
  struct kwm_language_place place;
  assert_ok(kwm_language_spread(&place, model, reading, ranks));
  for (int r = 0; r < ranks; r++) assert_int_equal(place.first_layer[r + 1] - place.first_layer[r], wanted[r]);
  assert_int_equal(place.first_stage[0], 0);
  assert_int_equal(place.first_stage[ranks], model->stages);
}

/* 3 (2 x 16² x 12 + 4 x 16 x 8) = 19,968 operations of a layer; 3 x 2 x 16 x 1040 = 99,840 of a reading of 1,040 words,
   five layers'. */
static void test_reverse_sweep(void **state) {
  (void)state;
  const struct kwm_transformer few = model_of(1, 20), many = model_of(1, 1040), more = model_of(1, 20000);
  check_layers(&few, 1, 3, (int[]){2, 2, 2});
  check_layers(&many, 1, 2, (int[]){5, 1});
  check_layers(&many, 0, 2, (int[]){3, 3});
  check_layers(&more, 1, 2, (int[]){5, 1});
  check_layers(&many, 0.1, 3, (int[]){2, 2, 2});
  check_layers(&few, 1, LAYERS, (int[]){1, 1, 1, 1, 1, 1});
}

/* Whole stages: with a large vocabulary all cost nearly the same, but for the last one's third product. */
static void test_stages(void **state) {
  (void)state;
  const struct kwm_transformer model = model_of(6, 20), large = model_of(3, 100000);
  check_layers(&model, 1, 2, (int[]){3, 3});
  check_layers(&model, 1, 3, (int[]){2, 2, 2});
  check_layers(&large, 1, 2, (int[]){4, 2});
  struct kwm_language_place place;
  assert_int_equal(kwm_language_spread(&place, &large, 1, 4), KWM_ERR_USAGE);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_reverse_sweep),
    cmocka_unit_test(test_stages),
};

int main(void) {
  return cmocka_run_group_tests(tests, NULL, NULL);
}
