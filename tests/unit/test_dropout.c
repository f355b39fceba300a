/* Dropout in training: the rows are the derivative of the network that was left, in both models; the line search sees
   the same network; predictions see all of it; every layout drops the same. */
#include "dense_model.h"

enum { SAMPLES = 12, CHUNKS = 4 };
static const double STEP = 2e-3, CLOSE = 2e-2;

/* What both models are reduced to. */
struct subject {
  kwm_pipe *pipe;
  const struct kwm_model *model;
  struct kwm_params *params;
  struct kwm_batch batch;
};

static double surprisal_of(const struct subject *s) {
  double chunks[KWM_CHUNKS_MAX], sum = 0;
  struct kwm_means means = {0};
  memcpy(means.at, s->params->mean, sizeof means.at);
  kwm_pipe_surprisal(s->pipe, &means, &s->batch, chunks);
  for (int c = 0; c < CHUNKS; c++) sum += chunks[c];
  return sum;
}

/* Parameter k of group g in the order of kwm_jac_score: of units, parameter by parameter. */
static float *parameter(const struct subject *s, int g, int64_t k) {
  const struct kwm_group *const group = &s->model->groups[g];
  const int64_t count = s->params->share[g].count;
  const bool matrix = group->d_o > 0;
  return &s->params->mean[g][matrix ? k : k % count * group->params + k / count];
}

/* The score against differences of the log-likelihood, at some parameters of every group; a kink may spoil a few. */
static void check_score(const struct subject *s) {
  int looked = 0, bad = 0;
  for (int g = 0; g < s->model->n_groups; g++) {
    const int64_t n = s->params->share[g].count * s->model->groups[g].params;
    struct kwm_lin lin;
    struct kwm_means means = {0};
    float *const score = calloc((size_t)n, sizeof *score), *const scratch = calloc(SAMPLES * 300, sizeof *scratch);
    memcpy(means.at, s->params->mean, sizeof means.at);
    kwm_pipe_linearise(s->pipe, &means, &s->batch, &lin);
    kwm_jac_score(&lin.jac[g], score, scratch);
    for (int64_t k = 0; k < n; k += 1 + n / 23) {
      float *const at = parameter(s, g, k), was = *at;
      *at = was + (float)STEP;
      const double up = surprisal_of(s);
      *at = was - (float)STEP;
      const double down = surprisal_of(s);
      *at = was;
      const double slope = (down - up) / (2 * STEP);
      looked++;
      bad += !(fabs(slope - (double)score[k]) <= CLOSE * (1 + fabs(slope)));
    }
    free(score), free(scratch);
  }
  if (bad * 20 > looked) fail_msg("%d of %d derivatives differ", bad, looked);
}

static void with_gated(double dropout, void (*check)(const struct subject *s)) {
  const struct kwm_layout alone = small_alone();
  const struct kwm_pipe_spec spec = {
      .batch = SAMPLES, .chunks = CHUNKS, .evidence = KWM_EVIDENCE_EXACT, .seed = 5, .dropout = dropout};
  struct small small;
  small_init(&small, &alone, 16, SAMPLES, CHUNKS);
  small_pipe(&small, &spec);
  const struct subject subject = {
      small.pipe, &small.model, &small.params, {&small.data->images, small.order, SAMPLES, 17}};
  check(&subject);
  small_fini(&small);
}

static void with_dense(double dropout, void (*check)(const struct subject *s)) {
  const struct kwm_layout alone = small_alone();
  const struct net_shape shape = {
      .n_layers = 2, .widths = {9, 14}, .batch = SAMPLES, .chunks = CHUNKS, .dropout = dropout};
  struct net net;
  net_init(&net, &alone, &shape);
  const struct subject subject = {net.pipe, &net.model, &net.params, {&net.data->images, net.order, SAMPLES, 17}};
  check(&subject);
  net_fini(&net);
}

static void test_score(void **state) {
  (void)state;
  with_gated(0.4, check_score);
  with_dense(0.4, check_score);
}

/* What linearise says of its chunks, surprisal says again; another step drops others. */
static void check_same_network(const struct subject *s) {
  struct kwm_lin lin;
  struct kwm_means means = {0};
  double here[KWM_CHUNKS_MAX], later[KWM_CHUNKS_MAX];
  struct kwm_batch next = s->batch;
  memcpy(means.at, s->params->mean, sizeof means.at);
  kwm_pipe_linearise(s->pipe, &means, &s->batch, &lin);
  kwm_pipe_surprisal(s->pipe, &means, &s->batch, here);
  assert_memory_equal(here, lin.surprisal, CHUNKS * sizeof *here);
  next.step++;
  kwm_pipe_surprisal(s->pipe, &means, &next, later);
  for (int c = 0; c < CHUNKS; c++) assert_true(later[c] != here[c]);
}

static void test_same_network(void **state) {
  (void)state;
  with_gated(0.4, check_same_network);
  with_dense(0.4, check_same_network);
}

static double whole;

static void predict(const struct subject *s) {
  struct kwm_innovation sums;
  struct kwm_lin lin;
  struct kwm_means means = {0};
  memcpy(means.at, s->params->mean, sizeof means.at);
  kwm_pipe_linearise(s->pipe, &means, &s->batch, &lin);
  kwm_pipe_predict(s->pipe, &means, s->batch.images, &sums);
  if (whole == 0) whole = sums.surprisal;
  assert_true(sums.surprisal == whole);
}

static void test_predictions_are_whole(void **state) {
  (void)state;
  void (*const with[])(double, void (*)(const struct subject *)) = {with_gated, with_dense};
  for (int k = 0; k < 2; k++) {
    whole = 0;
    with[k](0, predict);
    with[k](0.5, predict);
  }
}

/* A replica's chunks are those of the whole mini-batch, bit for bit. */
static void test_replicas(void **state) {
  (void)state;
  struct kwm_layout layout = small_alone();
  const struct net_shape shape = {.n_layers = 1, .widths = {8}, .batch = 22, .chunks = CHUNKS, .dropout = 0.4};
  double all[KWM_CHUNKS_MAX] = {0}, parts[KWM_CHUNKS_MAX] = {0};
  for (int k = 0; k < 3; k++) {
    struct net net;
    struct kwm_lin lin;
    layout.replicas = k == 0 ? 1 : 2, layout.replica = k == 2;
    net_init(&net, &layout, &shape);
    net.step = 3;
    net_linearise(&net, 0, 22, &lin);
    memcpy(k == 0 ? all : parts + 2 * (k - 1), lin.surprisal, (size_t)lin.chunks * sizeof *all);
    net_fini(&net);
  }
  assert_memory_equal(parts, all, CHUNKS * sizeof *all);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_score),
    cmocka_unit_test(test_same_network),
    cmocka_unit_test(test_predictions_are_whole),
    cmocka_unit_test(test_replicas),
};

int main(int argc, char **argv) {
  MPI_Init(&argc, &argv);
  const int failed = cmocka_run_group_tests(tests, NULL, NULL);
  MPI_Finalize();
  return failed;
}
