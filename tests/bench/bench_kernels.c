/* Kernels against the machine's own limits on one core: the rate of independent vector multiply-adds, and that of a
   large matrix product. Clocks drift, so the limit is measured next to every repetition of a kernel and the fraction is
   taken pairwise; printed are medians, and the spread of the fraction. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kwm/backend.h"
#include "kwm/cov.h"
#include "kwm/data.h"
#include "kwm/layer.h"
#include "kwm/model.h"
#include "kwm/par.h"

enum { REPETITIONS = 15, SAMPLES = 100, CLASSES = 10 };

/* A limit: run once, its operations. */
struct limit {
  const char *name;
  void (*run)(void *context);
  void *context;
  double operations;
};

static double seconds_of(void (*run)(void *context), void *context) {
  const double start = kwm_par_seconds();
  run(context);
  return kwm_par_seconds() - start;
}

static int ascending(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

/* Runs a kernel of so many operations beside its limit and prints a row; operations 0: time only. */
static void row(const char *what, void (*run)(void *context), void *context, double operations,
                const struct limit *limit) {
  double seconds[REPETITIONS], fraction[REPETITIONS];
  run(context);
  for (int i = 0; i < REPETITIONS; i++) {
    const double peak = limit->operations / seconds_of(limit->run, limit->context);
    seconds[i] = seconds_of(run, context);
    fraction[i] = 100 * operations / seconds[i] / peak;
  }
  qsort(seconds, REPETITIONS, sizeof seconds[0], ascending);
  qsort(fraction, REPETITIONS, sizeof fraction[0], ascending);
  printf("%-38s %9.3f ms", what, 1e3 * seconds[REPETITIONS / 2]);
  if (operations > 0)
    printf(" %8.1f Gflop/s %7.1f %% of %s (%.1f to %.1f)", operations / seconds[REPETITIONS / 2] / 1e9,
           fraction[REPETITIONS / 2], limit->name, fraction[0], fraction[REPETITIONS - 1]);
  printf("\n");
}

/* ---- limits ---- */

#if defined(__AVX512F__)
enum { WIDE = 16 };
#else
enum { WIDE = 8 };
#endif
typedef float vec __attribute__((vector_size(WIDE * sizeof(float))));
enum { CHAINS = 12, FMA_ROUNDS = 400000 };
static float sink;

static void run_fma(void *context) {
  (void)context;
  vec chain[CHAINS], factor = {0}, add = {0};
  for (int k = 0; k < WIDE; k++) factor[k] = 0.999f + 1e-6f * (float)k, add[k] = 1e-3f;
  for (int c = 0; c < CHAINS; c++) /* different, or the compiler keeps one chain for all */
    for (int k = 0; k < WIDE; k++) chain[c][k] = 0.01f * (float)(c * WIDE + k);
  for (int i = 0; i < FMA_ROUNDS; i++) {
#pragma GCC unroll 12
    for (int c = 0; c < CHAINS; c++) chain[c] = chain[c] * factor + add;
  }
  for (int c = 0; c < CHAINS; c++) sink += chain[c][0];
}

struct product {
  int64_t m, n, k;
  float *A, *B, *C;
};

static float *floats(int64_t n) {
  void *memory;
  if (kwm_alloc(&memory, (size_t)n * sizeof(float), "benchmark") != KWM_OK) exit(1);
  float *const values = memory;
  for (int64_t i = 0; i < n; i++) values[i] = (float)((i * 2654435761u >> 8) % 1000) * 1e-3f - 0.5f;
  return values;
}

static void run_product(void *context) {
  const struct product *const p = context;
  kwm_gemm(false, false, p->m, p->n, p->k, 1, p->A, p->k, p->B, p->n, 0, p->C, p->n);
}

static struct product product_of(int64_t m, int64_t n, int64_t k) {
  return (struct product){m, n, k, floats(m * k), floats(k * n), floats(m * n)};
}

/* ---- the program's kernels ---- */

struct recurrence {
  kwm_gated *gated;
  struct kwm_images images;
  int32_t index[SAMPLES];
  float *theta, *h, *S;
};

static void run_forward(void *context) {
  struct recurrence *const r = context;
  kwm_gated_forward(r->gated, SAMPLES, r->images.pixels, r->index, r->h, r->S);
}

static void run_predict(void *context) {
  struct recurrence *const r = context;
  kwm_gated_forward(r->gated, SAMPLES, r->images.pixels, r->index, r->h, NULL);
}

static void run_refresh(void *context) {
  struct recurrence *const r = context;
  kwm_gated_refresh(r->gated, r->theta);
}

struct evidence {
  struct kwm_jac jac;
  kwm_cov cov;
  float *sums, *mean;
  double kl[4096];
};

static void run_evidence(void *context) {
  struct evidence *const e = context;
  memset(e->sums, 0, (size_t)kwm_cov_evidence_length(&e->cov) * sizeof(float));
  kwm_cov_evidence(&e->cov, &e->jac, e->sums);
}

static void run_update(void *context) {
  struct evidence *const e = context;
  if (!kwm_cov_absorb(&e->cov, &e->jac, e->sums, SAMPLES, e->kl)) exit(1);
  kwm_cov_apply(&e->cov, 1e-3, e->mean);
}

static void bench_recurrence(const struct kwm_model *model, const char *folder, const struct limit *fma,
                             struct recurrence *r) {
  if (kwm_images_read(&r->images, folder, KWM_TEST) != KWM_OK) {
    fprintf(stderr, "%s\n", kwm_error_message());
    exit(3);
  }
  if (kwm_gated_create(&r->gated, NULL, model->width, r->images.length, SAMPLES) != KWM_OK) exit(1);
  r->theta = floats(model->width * KWM_GATED_PARAMS);
  r->h = floats(SAMPLES * 2 * model->width);
  r->S = floats(SAMPLES * 2 * KWM_GATED_PARAMS * model->width);
  for (int32_t i = 0; i < SAMPLES; i++) r->index[i] = i;
  kwm_model_initial_mean(model, KWM_GROUP_RECURRENCE, 1, 0, model->width, r->theta);
  kwm_gated_refresh(r->gated, r->theta);
  double executed, plain;
  kwm_gated_operations(r->gated, SAMPLES, r->images.pixels, r->index, &executed, &plain);
  row("recurrence, sensitivities", run_forward, r, executed, fma);
  row("  the same, counted pixel by pixel", run_forward, r, plain, fma);
  row("recurrence, prediction only", run_predict, r, executed * 8 / 82, fma);
  row("recurrence, tables from parameters", run_refresh, r, 0, fma);
}

static void bench_block(const struct kwm_model *model, const struct recurrence *r, const struct limit *fma) {
  static struct evidence e;
  double variance[KWM_GATED_PARAMS];
  const int64_t count = model->width, p = KWM_GATED_PARAMS;
  kwm_model_prior_variance(30, variance);
  const struct kwm_cov_spec spec = {.name = "recurrence",
                                    .count = count,
                                    .total = count,
                                    .params = p,
                                    .prior_variance = variance,
                                    .forgetting = 1,
                                    .refresh = 100,
                                    .n_max = SAMPLES,
                                    .m = CLASSES};
  if (kwm_cov_create(&e.cov, &kwm_cov_block, &spec) != KWM_OK) exit(1);
  e.jac = (struct kwm_jac){.shape = KWM_JAC_UNITS,
                           .n = SAMPLES,
                           .m = CLASSES,
                           .count = count,
                           .channels = 2,
                           .params = p,
                           .J = floats(SAMPLES * CLASSES * 2 * count),
                           .S = r->S,
                           .e = floats(SAMPLES * CLASSES)};
  e.sums = floats(kwm_cov_evidence_length(&e.cov));
  e.mean = floats(count * p);
  const double operations = (double)(SAMPLES * count) * (CLASSES * 10.0 + (double)p * 10 + (double)(p * (p + 1)) * 2);
  row("block evidence (units' Fisher)", run_evidence, &e, operations, fma);
  row("block gain and update", run_update, &e, 0, fma);
}

static void bench_kron(const struct kwm_model *model, const struct limit *gemm) {
  static struct evidence e;
  const struct kwm_group *const g = &model->groups[KWM_GROUP_HIDDEN];
  const int64_t o = g->d_o, i = g->d_i;
  const struct kwm_cov_spec spec = {.name = g->name,
                                    .real = KWM_REAL_FLOAT,
                                    .count = 1,
                                    .total = 1,
                                    .params = g->params,
                                    .d_o = o,
                                    .d_i = i,
                                    .prior_precision = 3,
                                    .forgetting = 1,
                                    .refresh = 100,
                                    .n_max = SAMPLES,
                                    .m = CLASSES};
  if (kwm_cov_create(&e.cov, &kwm_cov_kron, &spec) != KWM_OK) exit(1);
  e.jac = (struct kwm_jac){.shape = KWM_JAC_OUTER,
                           .n = SAMPLES,
                           .m = CLASSES,
                           .d_o = o,
                           .d_i = i,
                           .J = floats(SAMPLES * CLASSES * o),
                           .a = floats(SAMPLES * i),
                           .e = floats(SAMPLES * CLASSES)};
  e.sums = floats(kwm_cov_evidence_length(&e.cov));
  e.mean = floats(g->params);
  const double n = SAMPLES, nm = n * CLASSES, fo = (double)o, fi = (double)i;
  const double evidence = n * fi * fi + nm * fo * fo + 2 * n * (fi * fi + fo * fo + fo * fi);
  const double update = 2 * (fo * fo * fo + fo * fi * fi + fo * fo * fi);
  row("kron evidence (hidden layer)", run_evidence, &e, evidence, gemm);
  row("kron gain and update (hidden layer)", run_update, &e, update, gemm);
}

int main(int argc, char **argv) {
  kwm_backend_kernels(argv);
  MPI_Init(&argc, &argv);
  if (argc != 2) {
    fprintf(stderr, "usage: bench_kernels FOLDER with IDX files\n");
    return 2;
  }
  struct kwm_model model = {.width = 256,
                            .hidden = 256,
                            .classes = CLASSES,
                            .length = 784,
                            .decay_min = 0.98,
                            .decay_max = 0.9995,
                            .phase_max = 1.047};
  static struct recurrence recurrence;
  kwm_model_lay_out(&model);
  printf("one core, %d samples, %d repetitions; %s\n", SAMPLES, REPETITIONS, kwm_backend_words());
  struct product large = product_of(768, 768, 768), readout = product_of(250, 512, 256);
  const struct limit fma = {"vector peak", run_fma, NULL, 2.0 * WIDE * CHAINS * FMA_ROUNDS};
  const struct limit gemm = {"a 768-cubed product", run_product, &large, 2.0 * 768 * 768 * 768};
  row("matrix product 768 x 768 x 768", run_product, &large, gemm.operations, &fma);
  bench_recurrence(&model, argv[1], &fma, &recurrence);
  bench_block(&model, &recurrence, &fma);
  row("read-out Jacobian 250 x 512 x 256", run_product, &readout, 2.0 * 250 * 512 * 256, &gemm);
  bench_kron(&model, &gemm);
  MPI_Finalize();
  return sink > 1e30f;
}
