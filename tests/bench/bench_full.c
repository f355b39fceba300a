/* The distributed full covariance's measurement update against the matrix routines that it can't do without, called
   alone on the same distributed matrices in the same run, turn by turn. Run under mpirun, one BLAS thread a rank.
   usage: bench_full [PARAMETERS [ROWS [BLOCK [REPETITIONS]]]]   (10000 100 64 7) */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../src/cov/full_state.h"
#include "../../src/cov/scalapack.h"
#include "kwm/backend.h"
#include "kwm/par.h"

enum { REPETITIONS_MAX = 99 };

/* Phases of the update, then the routines alone. */
enum { PROJECT, CONDITION, APPLY, SYMM, TRSM, SYRK, PHASES };
static const char *const phase_words[PHASES] = {"project", "condition", "apply", "pdsymm", "pdtrsm", "pdsyrk"};

struct bench {
  int64_t n, rows, block, repetitions, n_local;
  int rank, size;
  kwm_full *full;
  float *H, *mean;
  double *S, *w;
  double seconds[PHASES + 2][REPETITIONS_MAX]; /* phases, the update, the routines alone */
};

static void *array(size_t bytes) {
  void *memory;
  if (kwm_alloc(&memory, bytes, "benchmark") != KWM_OK) exit(1);
  return memory;
}

static void setup(struct bench *b) {
  const int64_t first = b->n * b->rank / b->size, last = b->n * (b->rank + 1) / b->size;
  const struct kwm_full_segment segment = {first, last - first};
  b->n_local = last - first;
  double *const prior = array((size_t)b->n_local * sizeof *prior);
  for (int64_t k = 0; k < b->n_local; k++) prior[k] = 1;
  const struct kwm_full_spec spec = {.comm = MPI_COMM_WORLD,
                                     .n = b->n,
                                     .n_segments = 1,
                                     .segments = &segment,
                                     .prior_variance = prior,
                                     .rows_max = b->rows,
                                     .block = b->block};
  if (kwm_full_create(&b->full, &spec) != KWM_OK) {
    fprintf(stderr, "bench_full: %s\n", kwm_error_message());
    MPI_Abort(MPI_COMM_WORLD, 1);
  }
  kwm_free(prior);
  b->H = array((size_t)(b->rows * b->n_local) * sizeof *b->H);
  b->mean = array((size_t)b->n_local * sizeof *b->mean);
  b->S = array((size_t)(b->rows * b->rows) * sizeof *b->S);
  b->w = array((size_t)b->rows * sizeof *b->w);
  for (int64_t k = 0; k < b->rows * b->n_local; k++)
    b->H[k] = (float)((((uint64_t)k + (uint64_t)b->rank * 977) * 2654435761u >> 8) % 1000) * 1e-4f - 0.05f;
}

/* From when all ranks are here. */
static double clock_start(void) {
  MPI_Barrier(MPI_COMM_WORLD);
  return kwm_par_seconds();
}

/* Until the last rank is done. */
static double clock_stop(double start) {
  MPI_Barrier(MPI_COMM_WORLD);
  return kwm_par_seconds() - start;
}

/* L <- factor of S + I, w <- its solution with e = 1; not part of what is compared. */
static void solve(struct bench *b) {
  for (int64_t k = 0; k < b->rows; k++) b->S[k * b->rows + k] += 1, b->w[k] = 1;
  if (!kwm_cholesky_f64(b->rows, b->S, b->rows)) MPI_Abort(MPI_COMM_WORLD, 1);
  kwm_cholesky_solve_f64(b->rows, b->S, b->rows, b->w);
}

static void update(struct bench *b, int64_t turn) {
  memset(b->S, 0, (size_t)(b->rows * b->rows) * sizeof *b->S);
  double start = clock_start();
  kwm_full_project(b->full, b->rows, b->H, b->S);
  b->seconds[PROJECT][turn] = clock_stop(start);
  solve(b);
  start = clock_start();
  if (!kwm_full_condition(b->full, b->rows, b->S, b->w)) MPI_Abort(MPI_COMM_WORLD, 1);
  b->seconds[CONDITION][turn] = clock_stop(start);
  start = clock_start();
  kwm_full_apply(b->full, 1, b->mean);
  b->seconds[APPLY][turn] = clock_stop(start);
}

/* The same three products on what the update left: P, Hᵀ, Z and L where they lie. */
static void alone(struct bench *b, int64_t turn) {
  kwm_full *const f = b->full;
  const int n = (int)b->n, m = (int)b->rows, origin = 1;
  const double one = 1, zero = 0, minus_one = -1;
  double start = clock_start();
  pdsymm_("L", "L", &n, &m, &one, f->P, &origin, &origin, f->desc_p, f->Ht, &origin, &origin, f->desc_z, &zero, f->Z,
          &origin, &origin, f->desc_z);
  b->seconds[SYMM][turn] = clock_stop(start);
  start = clock_start();
  pdtrsm_("R", "L", "T", "N", &n, &m, &one, f->S, &origin, &origin, f->desc_s, f->Z, &origin, &origin, f->desc_z);
  b->seconds[TRSM][turn] = clock_stop(start);
  start = clock_start();
  pdsyrk_("L", "N", &n, &m, &minus_one, f->Z, &origin, &origin, f->desc_z, &one, f->P, &origin, &origin, f->desc_p);
  b->seconds[SYRK][turn] = clock_stop(start);
}

static int ascending(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static double median(struct bench *b, int which) {
  qsort(b->seconds[which], (size_t)b->repetitions, sizeof(double), ascending);
  return b->seconds[which][b->repetitions / 2];
}

static void print(struct bench *b, int which, const char *words, double operations) {
  const double middle = median(b, which), *const all = b->seconds[which];
  printf("%-34s %9.1f %9.1f %9.1f", words, 1e3 * middle, 1e3 * all[0], 1e3 * all[b->repetitions - 1]);
  if (operations > 0) printf(" %9.1f", operations / middle / 1e9);
  printf("\n");
}

static void report(struct bench *b) {
  const double n = (double)b->n, m = (double)b->rows;
  const double work[PHASES] = {
      2 * n * n * m + 2 * n * m * m, n * m * m, n * n * m, 2 * n * n * m, n * m * m, n * n * m};
  printf("%lld parameters, %lld rows, %d ranks, blocks of %lld, %lld repetitions\n", (long long)b->n,
         (long long)b->rows, b->size, (long long)b->full->shape.block, (long long)b->repetitions);
  printf("%-34s %9s %9s %9s %9s\n", "", "median ms", "least", "most", "GFLOP/s");
  for (int k = 0; k < PHASES; k++) print(b, k, phase_words[k], work[k]);
  print(b, PHASES, "project + condition + apply", work[PROJECT] + work[CONDITION] + work[APPLY]);
  print(b, PHASES + 1, "pdsymm + pdtrsm + pdsyrk alone", work[SYMM] + work[TRSM] + work[SYRK]);
  printf("routines alone / update: %.1f %%\n", 100 * median(b, PHASES + 1) / median(b, PHASES));
}

static int64_t argument(int argc, char **argv, int k, int64_t otherwise) {
  return argc > k ? strtoll(argv[k], NULL, 10) : otherwise;
}

int main(int argc, char **argv) {
  static struct bench b;
  MPI_Init(&argc, &argv);
  kwm_backend_start();
  b.n = argument(argc, argv, 1, 10000);
  b.rows = argument(argc, argv, 2, 100);
  b.block = argument(argc, argv, 3, KWM_FULL_BLOCK);
  b.repetitions = argument(argc, argv, 4, 7);
  MPI_Comm_rank(MPI_COMM_WORLD, &b.rank);
  MPI_Comm_size(MPI_COMM_WORLD, &b.size);
  if (b.n < b.size || b.rows < 1 || b.block < 1 || b.repetitions < 1 || b.repetitions > REPETITIONS_MAX) {
    if (b.rank == 0) fprintf(stderr, "usage: bench_full [PARAMETERS [ROWS [BLOCK [REPETITIONS]]]]\n");
    MPI_Finalize();
    return 2;
  }
  setup(&b);
  update(&b, 0);
  alone(&b, 0);
  for (int64_t turn = 0; turn < b.repetitions; turn++) {
    update(&b, turn);
    alone(&b, turn);
    b.seconds[PHASES][turn] = b.seconds[PROJECT][turn] + b.seconds[CONDITION][turn] + b.seconds[APPLY][turn];
    b.seconds[PHASES + 1][turn] = b.seconds[SYMM][turn] + b.seconds[TRSM][turn] + b.seconds[SYRK][turn];
  }
  if (b.rank == 0) report(&b);
  kwm_full_destroy(&b.full);
  kwm_free(b.H), kwm_free(b.mean), kwm_free(b.S), kwm_free(b.w);
  MPI_Finalize();
  return 0;
}
