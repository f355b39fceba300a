/* One dense block's measurement update against the BLAS routines that it can't do without, called alone at its shape in
   the same run, turn by turn: dsymm and dsyrk, or ssymm, ssyrk and sgemm. The step is project, factor of S, condition
   and apply; its work is that of the short form, 2n²m for H P and n²m for P - YᵀY, whatever is executed. One BLAS
   thread unless OPENBLAS_NUM_THREADS says otherwise. usage: bench_block [PARAMETERS [ROWS [REPETITIONS]]]   (5120 100
   9) */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kwm/backend.h"
#include "kwm/cov.h"
#include "kwm/par.h"

enum { REPETITIONS_MAX = 99, D_O = 16 };

/* Phases of the step, all of it, then the routines alone. SHARE: the step's rate over that of syrk, in %. */
enum { PROJECT, SOLVE, CONDITION, APPLY, STEP, SYMM, SYRK, GEMM, SHARE, EXECUTED, COLUMNS };
static const char *const words[COLUMNS] = {"project", "factor of S", "condition", "apply", "step",
                                           "symm",    "syrk",        "gemm",      "",      ""};

void ssymm_(const char *side, const char *triangle, const int *m, const int *n, const float *alpha, const float *A,
            const int *lda, const float *B, const int *ldb, const float *beta, float *C, const int *ldc);

struct bench {
  int64_t n, rows, repetitions;
  bool narrow;
  kwm_cov cov;
  struct kwm_jac jac;
  float *J, *a, *e, *mean;
  double *S, *w;
  void *P, *H, *Z; /* the routines' own, float or double */
  double numbers[COLUMNS][REPETITIONS_MAX];
};

static void *array(size_t bytes) {
  void *memory;
  if (kwm_alloc(&memory, bytes, "benchmark") != KWM_OK) exit(1);
  return memory;
}

static float number(int64_t k) {
  return (float)(((uint64_t)k * 2654435761u >> 8) % 1000) * 1e-3f - 0.5f;
}

static void setup(struct bench *b) {
  const int64_t d_i = b->n / D_O, size = b->narrow ? (int64_t)sizeof(float) : (int64_t)sizeof(double);
  const struct kwm_cov_spec spec = {.name = "benchmark",
                                    .form = KWM_FORM_INNOVATION,
                                    .real = b->narrow ? KWM_REAL_FLOAT : KWM_REAL_DOUBLE,
                                    .count = 1,
                                    .total = 1,
                                    .params = b->n,
                                    .d_o = D_O,
                                    .d_i = d_i,
                                    .prior_precision = 100,
                                    .forgetting = 1,
                                    .n_max = b->rows,
                                    .m = 1};
  if (kwm_cov_create(&b->cov, &kwm_cov_block, &spec) != KWM_OK) {
    fprintf(stderr, "bench_block: %s\n", kwm_error_message());
    exit(1);
  }
  b->J = array((size_t)(b->rows * D_O) * sizeof(float)), b->a = array((size_t)(b->rows * d_i) * sizeof(float));
  b->e = array((size_t)b->rows * sizeof(float)), b->mean = array((size_t)b->n * sizeof(float));
  b->S = array((size_t)(b->rows * b->rows) * sizeof(double)), b->w = array((size_t)b->rows * sizeof(double));
  b->P = array((size_t)(b->n * b->n * size));
  b->H = array((size_t)(b->n * b->rows * size)), b->Z = array((size_t)(b->n * b->rows * size));
  for (int64_t k = 0; k < b->rows * D_O; k++) b->J[k] = number(k);
  for (int64_t k = 0; k < b->rows * d_i; k++) b->a[k] = number(k + 7919);
  for (int64_t k = 0; k < b->n * b->rows; k++) {
    if (b->narrow)
      ((float *)b->H)[k] = ((float *)b->Z)[k] = number(k);
    else
      ((double *)b->H)[k] = ((double *)b->Z)[k] = (double)number(k);
  }
  b->jac = (struct kwm_jac){
      .shape = KWM_JAC_OUTER, .n = b->rows, .m = 1, .d_o = D_O, .d_i = d_i, .J = b->J, .a = b->a, .e = b->e};
}

static void drop(struct bench *b) {
  kwm_cov_destroy(&b->cov);
  kwm_free(b->J), kwm_free(b->a), kwm_free(b->e), kwm_free(b->mean), kwm_free(b->S), kwm_free(b->w);
  kwm_free(b->P), kwm_free(b->H), kwm_free(b->Z);
}

static void step(struct bench *b, int64_t turn) {
  memset(b->S, 0, (size_t)(b->rows * b->rows) * sizeof *b->S);
  double at[5] = {kwm_par_seconds()};
  kwm_cov_project(&b->cov, &b->jac, b->S);
  at[1] = kwm_par_seconds();
  for (int64_t k = 0; k < b->rows; k++) b->S[k * b->rows + k] += 1, b->w[k] = 1;
  if (!kwm_cholesky_f64(b->rows, b->S, b->rows)) exit(1);
  kwm_cholesky_solve_f64(b->rows, b->S, b->rows, b->w);
  at[2] = kwm_par_seconds();
  if (!kwm_cov_condition(&b->cov, &b->jac, b->S, b->w)) exit(1);
  at[3] = kwm_par_seconds();
  kwm_cov_apply(&b->cov, 1, b->mean);
  at[4] = kwm_par_seconds();
  for (int k = 0; k < 4; k++) b->numbers[k][turn] = at[k + 1] - at[k];
  b->numbers[STEP][turn] = at[4] - at[0];
}

/* The same shapes, and a matrix of no structure: H P as a plain product. */
static void alone(struct bench *b, int64_t turn) {
  const int64_t n = b->n, m = b->rows;
  const int columns = (int)n, rows = (int)m;
  const float one = 1, zero = 0;
  double at[4] = {kwm_par_seconds()};
  if (b->narrow)
    ssymm_("L", "L", &columns, &rows, &one, b->P, &columns, b->H, &columns, &zero, b->Z, &columns);
  else
    kwm_symm_f64(m, n, 1, b->P, n, b->H, n, 0, b->Z, n);
  at[1] = kwm_par_seconds();
  if (b->narrow)
    kwm_gram(n, m, -1, b->H, n, 1, b->P, n);
  else
    kwm_gram_f64(n, m, -1, b->H, n, 1, b->P, n);
  at[2] = kwm_par_seconds();
  if (b->narrow)
    kwm_gemm(false, false, m, n, n, 1, b->H, n, b->P, n, 0, b->Z, n);
  else
    kwm_gemm_f64(false, false, m, n, n, 1, b->H, n, b->P, n, 0, b->Z, n);
  at[3] = kwm_par_seconds();
  for (int k = 0; k < 3; k++) b->numbers[SYMM + k][turn] = at[k + 1] - at[k];
}

static int ascending(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static void print(struct bench *b, int which, const char *what, double unit, double operations) {
  double *const all = b->numbers[which];
  qsort(all, (size_t)b->repetitions, sizeof *all, ascending);
  const double middle = all[b->repetitions / 2];
  printf("  %-36s %9.2f %9.2f %9.2f", what, unit * middle, unit * all[0], unit * all[b->repetitions - 1]);
  if (operations > 0) printf(" %9.1f", operations / middle / 1e9);
  printf("\n");
}

/* The float form multiplies each of its panels of 64 columns by a triangle besides. */
static double executed(const struct bench *b) {
  const double n = (double)b->n, m = (double)b->rows;
  return b->narrow ? n * n * (3 * m + 32) : 3 * n * n * m;
}

static void report(struct bench *b) {
  const double n = (double)b->n, m = (double)b->rows, work = 3 * n * n * m;
  for (int64_t turn = 0; turn < b->repetitions; turn++) {
    const double syrk = n * n * m / b->numbers[SYRK][turn];
    b->numbers[SHARE][turn] = work / b->numbers[STEP][turn] / syrk;
    b->numbers[EXECUTED][turn] = executed(b) / b->numbers[STEP][turn] / syrk;
  }
  printf("%s, %lld parameters, %lld rows, %lld repetitions\n", b->narrow ? "float" : "double", (long long)b->n,
         (long long)b->rows, (long long)b->repetitions);
  printf("  %-36s %9s %9s %9s %9s\n", "", "median ms", "least", "most", "GFLOP/s");
  for (int k = PROJECT; k < STEP; k++) print(b, k, words[k], 1e3, 0);
  print(b, STEP, words[STEP], 1e3, work);
  const double flops[3] = {2 * n * n * m, n * n * m, 2 * n * n * m};
  for (int k = SYMM; k <= GEMM; k++) print(b, k, words[k], 1e3, flops[k - SYMM]);
  printf("  %-36s %9s %9s %9s\n", "", "median %", "least", "most");
  print(b, SHARE, "step (short form's flops) / syrk", 100, 0);
  if (b->narrow) print(b, EXECUTED, "step (flops executed) / syrk", 100, 0);
}

static int64_t argument(int argc, char **argv, int k, int64_t otherwise) {
  return argc > k ? strtoll(argv[k], NULL, 10) : otherwise;
}

static void run(struct bench *b) {
  setup(b);
  step(b, 0);
  alone(b, 0);
  for (int64_t turn = 0; turn < b->repetitions; turn++) {
    step(b, turn);
    alone(b, turn);
  }
  report(b);
  drop(b);
}

int main(int argc, char **argv) {
  static struct bench b;
  kwm_backend_kernels(argv);
  /* The library reads it when it is loaded. */
  if (getenv("OPENBLAS_NUM_THREADS") == NULL && setenv("OPENBLAS_NUM_THREADS", "1", 1) == 0)
    execv("/proc/self/exe", argv);
  kwm_backend_start();
  b.n = argument(argc, argv, 1, 5120) / D_O * D_O;
  b.rows = argument(argc, argv, 2, 100);
  b.repetitions = argument(argc, argv, 3, 9);
  if (b.n < 1 || b.rows < 1 || b.repetitions < 1 || b.repetitions > REPETITIONS_MAX) {
    fprintf(stderr, "usage: bench_block [PARAMETERS [ROWS [REPETITIONS]]]\n");
    return 2;
  }
  printf("%s, %s threads\n", kwm_backend_words(), getenv("OPENBLAS_NUM_THREADS"));
  run(&b);
  b.narrow = true;
  run(&b);
  return 0;
}
