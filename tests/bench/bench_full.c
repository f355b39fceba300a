/* The distributed full covariance's measurement update against the matrix routines that it can't do without, called
   alone on the same distributed matrices in the same run, turn by turn; each rank's peak memory against what
   kwm_full_bytes says; with "spectrum", the spectrum against pdsyev and pdsyevd alone. Run under mpirun, one BLAS
   thread a rank. usage: bench_full [PARAMETERS [ROWS [BLOCK [REPETITIONS [double|float [spectrum]]]]]]   (10000 100 64
   7 double) REPETITIONS 0: one update and no routines alone. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../src/cov/full_state.h"
#include "../../src/cov/scalapack.h"
#include "kwm/backend.h"
#include "kwm/par.h"

enum { REPETITIONS_MAX = 99 };

/* Phases of the update, then the routines alone. */
enum { PROJECT, CONDITION, APPLY, FIRST, SECOND, THIRD, PHASES };
static const char *const phase_words[2][PHASES] = {
    {"project", "condition", "apply", "pdsymm P Ht", "pdtrsm Z L^-T", "pdsyrk P - A'A"},
    {"project", "condition", "apply", "psgemm Y'Ht", "psgemm Y Bt", "psgemm Y - W B"},
};

struct bench {
  int64_t n, rows, block, repetitions, n_local;
  int rank, size;
  bool is_root; /* float */
  size_t before, predicted;
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
                                     .block = b->block,
                                     .real = b->is_root ? KWM_REAL_FLOAT : KWM_REAL_DOUBLE};
  b->before = kwm_mem_peak_resident();
  b->predicted = kwm_full_bytes(&spec, b->size, b->rank, b->n_local);
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
static void alone_double(struct bench *b, int64_t turn) {
  kwm_full *const f = b->full;
  const int n = (int)b->n, m = (int)b->rows, origin = 1;
  const double one = 1, zero = 0, minus_one = -1;
  double start = clock_start();
  pdsymm_("L", "L", &n, &m, &one, f->P, &origin, &origin, f->desc_p, f->Ht, &origin, &origin, f->desc_z, &zero, f->Z,
          &origin, &origin, f->desc_z);
  b->seconds[FIRST][turn] = clock_stop(start);
  start = clock_start();
  pdtrsm_("R", "L", "T", "N", &n, &m, &one, f->S, &origin, &origin, f->desc_s, f->Z, &origin, &origin, f->desc_z);
  b->seconds[SECOND][turn] = clock_stop(start);
  start = clock_start();
  pdsyrk_("L", "N", &n, &m, &minus_one, f->Z, &origin, &origin, f->desc_z, &one, f->P, &origin, &origin, f->desc_p);
  b->seconds[THIRD][turn] = clock_stop(start);
}

/* The same for the square root; what was Hᵀ is small enough to do the state no harm. */
static void alone_float(struct bench *b, int64_t turn) {
  kwm_full *const f = b->full;
  const int n = (int)b->n, m = (int)b->rows, origin = 1;
  const float one = 1, zero = 0, minus_little = -1e-6f;
  double start = clock_start();
  psgemm_("T", "N", &n, &m, &n, &one, f->Y, &origin, &origin, f->desc_p, f->Hf, &origin, &origin, f->desc_z, &zero,
          f->F, &origin, &origin, f->desc_z);
  b->seconds[FIRST][turn] = clock_stop(start);
  start = clock_start();
  psgemm_("N", "N", &n, &m, &n, &one, f->Y, &origin, &origin, f->desc_p, f->F, &origin, &origin, f->desc_z, &zero,
          f->Hf, &origin, &origin, f->desc_z);
  b->seconds[SECOND][turn] = clock_stop(start);
  start = clock_start();
  psgemm_("N", "T", &n, &n, &m, &minus_little, f->Hf, &origin, &origin, f->desc_z, f->F, &origin, &origin, f->desc_z,
          &one, f->Y, &origin, &origin, f->desc_p);
  b->seconds[THIRD][turn] = clock_stop(start);
}

static void alone(struct bench *b, int64_t turn) {
  if (b->is_root)
    alone_float(b, turn);
  else
    alone_double(b, turn);
}

/* Seconds of the spectrum, and of its routines alone on P's copy: pdsyev without vectors, pdsyevd, which has none
   without. Double only. */
static void spectrum(struct bench *b) {
  kwm_full *const f = b->full;
  const size_t bytes = (size_t)(f->shape.p_rows * f->shape.p_columns) * sizeof(double);
  const int n = (int)b->n, origin = 1, ask = -1;
  double *const values = array((size_t)b->n * sizeof *values), *const A = array(bytes), *const Z = array(bytes);
  double start = clock_start(), wanted[2];
  int failed = 0, whole;
  if (kwm_full_spectrum(f, values) != KWM_OK) MPI_Abort(MPI_COMM_WORLD, 1);
  const double ours = clock_stop(start);
  if (b->rank == 0) printf("spectrum %.3f s, values %.6g to %.6g\n", ours, values[0], values[b->n - 1]);
  for (int vectors = 0; vectors < 2 && !b->is_root; vectors++) {
    int length;
    memcpy(A, f->P, bytes);
    if (vectors == 0)
      pdsyev_("N", "L", &n, A, &origin, &origin, f->desc_p, values, Z, &origin, &origin, f->desc_p, wanted, &ask,
              &failed, 1, 1);
    else
      pdsyevd_("V", "L", &n, A, &origin, &origin, f->desc_p, values, Z, &origin, &origin, f->desc_p, wanted, &ask,
               &whole, &ask, &failed, 1, 1);
    length = (int)wanted[0];
    double *const work = array((size_t)length * sizeof *work);
    int *const index = array((size_t)(7 * n + 8 * b->size + 2) * sizeof *index);
    const int n_index = 7 * n + 8 * b->size + 2;
    start = clock_start();
    if (vectors == 0)
      pdsyev_("N", "L", &n, A, &origin, &origin, f->desc_p, values, Z, &origin, &origin, f->desc_p, work, &length,
              &failed, 1, 1);
    else
      pdsyevd_("V", "L", &n, A, &origin, &origin, f->desc_p, values, Z, &origin, &origin, f->desc_p, work, &length,
               index, &n_index, &failed, 1, 1);
    const double theirs = clock_stop(start);
    if (b->rank == 0)
      printf("%s alone %.3f s (%d): %.1f %% of the spectrum\n", vectors == 0 ? "pdsyev N" : "pdsyevd V", theirs, failed,
             100 * theirs / ours);
    kwm_free(work), kwm_free(index);
  }
  kwm_free(values), kwm_free(A), kwm_free(Z);
}

/* Peak resident bytes that came with the covariance, a rank at a time. */
static void report_memory(const struct bench *b) {
  for (int r = 0; r < b->size; r++) {
    MPI_Barrier(MPI_COMM_WORLD);
    if (r != b->rank) continue;
    const double peak = (double)kwm_mem_peak_resident(), own = peak - (double)b->before;
    printf("rank %d: peak resident %.1f MB, %.1f MB of it since before the covariance; kwm_full_bytes %.1f MB; ratio "
           "%.3f\n",
           r, peak / 1e6, own / 1e6, (double)b->predicted / 1e6, own / (double)b->predicted);
    fflush(stdout);
  }
  MPI_Barrier(MPI_COMM_WORLD);
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
  const double product = 2 * n * n * m, small = n * m * m;
  const double works[2][PHASES] = {{product + 2 * small, small, product / 2, product, small, product / 2},
                                   {product + 2 * small, product + 5 * small, product, product, product, product}};
  const double *const work = works[b->is_root];
  printf("%lld parameters, %lld rows, %d ranks, blocks of %lld, %lld repetitions, %s\n", (long long)b->n,
         (long long)b->rows, b->size, (long long)b->full->shape.block, (long long)b->repetitions,
         b->is_root ? "float" : "double");
  printf("%-34s %9s %9s %9s %9s\n", "", "median ms", "least", "most", "GFLOP/s");
  for (int k = 0; k < PHASES; k++) print(b, k, phase_words[b->is_root][k], work[k]);
  print(b, PHASES, "project + condition + apply", work[PROJECT] + work[CONDITION] + work[APPLY]);
  print(b, PHASES + 1, "routines alone", work[FIRST] + work[SECOND] + work[THIRD]);
  printf("routines alone / update: %.1f %%\n", 100 * median(b, PHASES + 1) / median(b, PHASES));
}

static int64_t argument(int argc, char **argv, int k, int64_t otherwise) {
  return argc > k ? strtoll(argv[k], NULL, 10) : otherwise;
}

int main(int argc, char **argv) {
  static struct bench b;
  kwm_backend_kernels(argv);
  MPI_Init(&argc, &argv);
  kwm_backend_start();
  b.n = argument(argc, argv, 1, 10000);
  b.rows = argument(argc, argv, 2, 100);
  b.block = argument(argc, argv, 3, KWM_FULL_BLOCK);
  b.repetitions = argument(argc, argv, 4, 7);
  b.is_root = argc > 5 && strcmp(argv[5], "float") == 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &b.rank);
  MPI_Comm_size(MPI_COMM_WORLD, &b.size);
  if (b.n < b.size || b.rows < 1 || b.block < 1 || b.repetitions < 0 || b.repetitions > REPETITIONS_MAX) {
    if (b.rank == 0)
      fprintf(stderr, "usage: bench_full [PARAMETERS [ROWS [BLOCK [REPETITIONS [double|float [spectrum]]]]]]\n");
    MPI_Finalize();
    return 2;
  }
  setup(&b);
  const double start = clock_start();
  update(&b, 0);
  const double first = clock_stop(start);
  if (b.rank == 0) printf("first update, L included: %.3f s\n", first);
  if (b.repetitions > 0) alone(&b, 0);
  for (int64_t turn = 0; turn < b.repetitions; turn++) {
    update(&b, turn);
    alone(&b, turn);
    b.seconds[PHASES][turn] = b.seconds[PROJECT][turn] + b.seconds[CONDITION][turn] + b.seconds[APPLY][turn];
    b.seconds[PHASES + 1][turn] = b.seconds[FIRST][turn] + b.seconds[SECOND][turn] + b.seconds[THIRD][turn];
  }
  if (b.rank == 0 && b.repetitions > 0) report(&b);
  report_memory(&b);
  if (argc > 6 && strcmp(argv[6], "spectrum") == 0) spectrum(&b);
  kwm_full_destroy(&b.full);
  kwm_free(b.H), kwm_free(b.mean), kwm_free(b.S), kwm_free(b.w);
  MPI_Finalize();
  return 0;
}
