/* Kernels against the machine's own limits, measured in the same run: the rate of independent vector multiply-adds and
   of a large matrix product on one core. Prints a table: what, median of the repetitions, their spread, fraction of a
   limit. */
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

struct timing {
  double median, low, high; /* seconds */
};

static int ascending(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static struct timing measure(void (*run)(void *context), void *context) {
  double seconds[REPETITIONS];
  run(context);
  for (int i = 0; i < REPETITIONS; i++) {
    const double start = kwm_par_seconds();
    run(context);
    seconds[i] = kwm_par_seconds() - start;
  }
  qsort(seconds, REPETITIONS, sizeof seconds[0], ascending);
  return (struct timing){seconds[REPETITIONS / 2], seconds[0], seconds[REPETITIONS - 1]};
}

static void row(const char *what, struct timing t, double operations, const char *limit, double peak) {
  printf("%-38s %9.3f %9.3f %9.3f %9.1f   %5.1f %% of %s\n", what, 1e3 * t.median, 1e3 * t.low, 1e3 * t.high,
         operations / t.median / 1e9, 100 * operations / t.median / peak, limit);
}

/* ---- limits ---- */

#if defined(__AVX512F__)
enum { WIDE = 16 };
#else
enum { WIDE = 8 };
#endif
typedef float vec __attribute__((vector_size(WIDE * sizeof(float))));
enum { CHAINS = 12, FMA_ROUNDS = 2000000 };
static float sink;

static void run_fma(void *context) {
  (void)context;
  vec chain[CHAINS], factor = {0}, add = {0};
  for (int k = 0; k < WIDE; k++) factor[k] = 0.999f + 1e-6f * (float)k, add[k] = 1e-3f;
  memset(chain, 0, sizeof chain);
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

static double product_row(const char *what, int64_t m, int64_t n, int64_t k, double peak) {
  struct product p = {m, n, k, floats(m * k), floats(k * n), floats(m * n)};
  const struct timing t = measure(run_product, &p);
  const double operations = 2.0 * (double)m * (double)n * (double)k;
  row(what, t, operations, peak > 0 ? "large matrix product" : "itself", peak > 0 ? peak : operations / t.median);
  kwm_free(p.A), kwm_free(p.B), kwm_free(p.C);
  return operations / t.median;
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
  if (!kwm_cov_absorb(&e->cov, e->sums, SAMPLES, e->kl)) exit(1);
  kwm_cov_apply(&e->cov, 1e-3, e->mean);
}

static void bench_recurrence(const struct kwm_model *model, const char *folder, double fma, struct recurrence *r) {
  if (kwm_images_read(&r->images, folder, KWM_TEST) != KWM_OK) {
    fprintf(stderr, "%s\n", kwm_error_message());
    exit(3);
  }
  if (kwm_gated_create(&r->gated, model->width, r->images.length, SAMPLES) != KWM_OK) exit(1);
  r->theta = floats(model->width * KWM_GATED_PARAMS);
  r->h = floats(SAMPLES * 2 * model->width);
  r->S = floats(SAMPLES * 2 * KWM_GATED_PARAMS * model->width);
  for (int32_t i = 0; i < SAMPLES; i++) r->index[i] = i;
  kwm_model_initial_mean(model, KWM_GROUP_RECURRENCE, 1, 0, model->width, r->theta);
  kwm_gated_refresh(r->gated, r->theta);
  double executed, plain;
  kwm_gated_operations(r->gated, SAMPLES, r->images.pixels, r->index, &executed, &plain);
  const struct timing t = measure(run_forward, r);
  row("recurrence, sensitivities", t, executed, "vector peak", fma);
  row("  the same, counted pixel by pixel", t, plain, "vector peak", fma);
  row("recurrence, prediction only", measure(run_predict, r), executed * 8 / 82, "vector peak", fma);
  row("recurrence, tables from parameters", measure(run_refresh, r), 0, "vector peak", fma);
}

static void bench_block(const struct kwm_model *model, const struct recurrence *r, double fma) {
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
  row("block evidence (units' Fisher)", measure(run_evidence, &e), operations, "vector peak", fma);
  row("block gain and update", measure(run_update, &e), (double)(count * p * p * p), "vector peak", fma);
}

static void bench_kron(const struct kwm_model *model, double gemm) {
  static struct evidence e;
  const struct kwm_group *const g = &model->groups[KWM_GROUP_HIDDEN];
  const int64_t o = g->d_o, i = g->d_i;
  const struct kwm_cov_spec spec = {.name = g->name,
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
  row("kron evidence (hidden layer)", measure(run_evidence, &e), evidence, "large matrix product", gemm);
  row("kron gain and update (hidden layer)", measure(run_update, &e), update, "large matrix product", gemm);
}

int main(int argc, char **argv) {
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
  printf("%-38s %9s %9s %9s %9s\n", "", "median ms", "min", "max", "Gflop/s");
  const struct timing t = measure(run_fma, NULL);
  const double fma = 2.0 * WIDE * CHAINS * FMA_ROUNDS / t.median;
  row("vector multiply-add (peak)", t, fma * t.median, "itself", fma);
  const double gemm = product_row("matrix product 1024 x 1024 x 1024", 1024, 1024, 1024, 0);
  bench_recurrence(&model, argv[1], fma, &recurrence);
  bench_block(&model, &recurrence, fma);
  product_row("read-out Jacobian 250 x 513 x 256", 250, 512, 256, gemm);
  bench_kron(&model, gemm);
  MPI_Finalize();
  return sink > 1e30f;
}
