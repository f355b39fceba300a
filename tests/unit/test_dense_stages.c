/* The dense model over ranks, seen from one process: consecutive layers in a balanced way, and what every rank's pipe
   holds and sends. */
#include "dense_model.h"

static struct net_shape shape_of(int n_layers, enum kwm_evidence evidence) {
  return (struct net_shape){.n_layers = n_layers, .widths = {8, 5, 6}, .evidence = evidence, .batch = 70, .chunks = 4};
}

/* The smallest possible largest cost of consecutive runs of layers on `ranks` ranks, by trying all of them. */
static double least(const double *cost, int layers, int ranks) {
  double sum = 0, best = INFINITY;
  if (ranks == 1) {
    for (int l = 0; l < layers; l++) sum += cost[l];
    return sum;
  }
  for (int own = 1; own <= layers - (ranks - 1); own++) {
    sum += cost[own - 1];
    best = fmin(best, fmax(sum, least(cost + own, layers - own, ranks - 1)));
  }
  return best;
}

static void check_assigned(const struct kwm_model *model, int ranks) {
  struct kwm_stages stages;
  double cost[KWM_LAYERS_MAX + 1] = {0}, load[KWM_GROUP_RANKS_MAX] = {0}, most = 0;
  assert_ok(kwm_stage_assign(&stages, model, ranks % 2 == 0 ? 2 : ranks, ranks % 2 == 0 ? ranks / 2 : 1));
  assert_int_equal(stages.ranks, ranks);
  int before = 0;
  for (int l = 0; l <= model->n_layers; l++) {
    const int g = kwm_model_layer(model, l), r = kwm_model_readout(model, l), owner = stages.owner[g];
    const bool both = model->readouts && l + 1 < model->n_layers;
    assert_true(owner == before || owner == before + 1);
    if (both) assert_int_equal(stages.owner[r], owner);
    cost[l] = kwm_stage_operations(model, g, 100) + (both ? kwm_stage_operations(model, r, 100) : 0);
    load[owner] += cost[l];
    before = owner;
  }
  assert_int_equal(before, ranks - 1);
  for (int g = 0; g < model->n_groups; g++)
    for (int rank = 0; rank < ranks; rank++) {
      assert_int_equal(stages.share[g][rank].count, rank == stages.owner[g]);
      assert_int_equal(stages.share[g][rank].first, 0);
    }
  for (int rank = 0; rank < ranks; rank++) most = fmax(most, load[rank]);
  assert_close(most, least(cost, model->n_layers + 1, ranks), 1e-12, 0);
}

/* Widths that make the first layer, the middle or the last layers heavy. */
static void test_assign(void **state) {
  (void)state;
  static const int64_t widths[][7] = {{64, 8, 8, 8, 8, 8, 8}, {8, 8, 8, 8, 8, 200, 200}, {8, 100, 8, 100, 8, 8, 50}};
  for (size_t w = 0; w < sizeof widths / sizeof widths[0]; w++)
    for (int n_layers = 1; n_layers <= 7; n_layers++)
      for (int readouts = 0; readouts < 2; readouts++) {
        struct kwm_model model = {.kind = KWM_MODEL_DENSE, .classes = 10, .length = 30, .n_layers = n_layers};
        model.readouts = readouts;
        memcpy(model.widths, widths[w], sizeof widths[w]);
        kwm_model_lay_out(&model);
        for (int ranks = 1; ranks <= n_layers + 1; ranks++) check_assigned(&model, ranks);
      }
}

static void test_too_many(void **state) {
  (void)state;
  const struct net_shape shape = shape_of(2, KWM_EVIDENCE_EXACT);
  const struct kwm_model model = net_model(&shape);
  struct kwm_stages stages;
  assert_ok(kwm_stage_assign(&stages, &model, 1, 3));
  assert_int_equal(kwm_stage_assign(&stages, &model, 2, 2), KWM_ERR_USAGE);
  assert_non_null(strstr(kwm_error_message(), "wanted at most 3 ranks"));
  assert_non_null(strstr(kwm_error_message(), "found layout.stages x layout.owners 4"));
  assert_int_equal(kwm_stage_assign(&stages, &model, 3, 100), KWM_ERR_USAGE);
  assert_non_null(strstr(kwm_error_message(), "found layout.stages 3 x layout.owners 100"));
}

/* Every rank of every assignment, with replicas. */
static void test_bytes(void **state) {
  (void)state;
  for (int n_layers = 1; n_layers <= NET_LAYERS_MAX; n_layers++)
    for (int evidence = KWM_EVIDENCE_EXACT; evidence <= KWM_EVIDENCE_OUTPUTS; evidence++)
      for (int k = 0; k < 6 * (n_layers + 1); k++) {
        struct net_shape shape = shape_of(n_layers, (enum kwm_evidence)evidence);
        struct kwm_layout layout = small_alone();
        shape.readouts = k % 2;
        layout.replicas = 1 << k / 2 % 3;
        layout.stages = 1 + k / 6;
        for (layout.stage = 0; layout.stage < layout.stages; layout.stage++) {
          struct net net;
          net_init(&net, &layout, &shape);
          assert_true(net.bytes_right);
          net_fini(&net);
        }
      }
}

/* Of one step between three ranks: activations forward; rows, with innovations or scores beside them, back. */
static void test_message_bytes(void **state) {
  (void)state;
  const double forward = 9 + 6, m = SMALL_CLASSES, exact[] = {m * 8 + m, m * 5 + m}, sampled[] = {2 * 8, 2 * 5};
  for (int k = 0; k < 4; k++) {
    struct net_shape shape = shape_of(2, k / 2 == 0 ? KWM_EVIDENCE_EXACT : KWM_EVIDENCE_SAMPLED);
    shape.readouts = k % 2;
    const struct kwm_model model = net_model(&shape);
    const struct kwm_pipe_spec spec = {.batch = 7, .chunks = 1, .evidence = shape.evidence};
    const double *const back = k / 2 == 0 ? exact : sampled;
    struct kwm_stages stages;
    assert_ok(kwm_stage_assign(&stages, &model, 3, 1));
    const double floats = forward + back[1] + (shape.readouts ? 0 : back[0]);
    assert_true(kwm_pipe_message_bytes(&model, &stages, &spec, 7) == 4 * 7 * floats);
    assert_ok(kwm_stage_assign(&stages, &model, 1, 1));
    assert_true(kwm_pipe_message_bytes(&model, &stages, &spec, 7) == 0);
  }
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_assign),
    cmocka_unit_test(test_too_many),
    cmocka_unit_test(test_bytes),
    cmocka_unit_test(test_message_bytes),
};
KWM_TEST_MAIN(tests)
