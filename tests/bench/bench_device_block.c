/* The measurement update of one large dense block on a device, P (p, p) in double precision by r rows (n samples of 10
   outputs), against what the device can do at least, measured in the same run: a copy of a matrix as large as P (bytes
   read and written a second), and a large product of matrices in double precision (operations a second).

   The step is that of kwm_cov: project, condition and apply on the device, and what they exchange with the host; the
   host's factor of S is not timed. Floors, with T the bytes of a triangle of P:

     whole   the larger of 3 T and of all operations of an update that forms H and subtracts its rows at once: 3 p²r for
             P, 2 pr² for S and its factor's solve
     own     of what is done: a sample's rows share their input (2 p²n for H P, 2 prn for Z Hᵀ), and k pending rows are
             subtracted from H P (4 prk; k/2 on average), and from P every k/r steps: the larger of T and 2 p²n, plus
   r/k times the larger of 2 T and p²k, plus the rest

   With S on the device (filter/shared_device.c) its factor is the device's and in the time, and r³/3 in the floor.

   The device's part is what the step asks of the device, without a wait in between, for some numbers of steps whose
   rows are pending, and as it is with rows formed and subtracted at once (before); the rest is the host's.

   Times of the step are means over some steps, whose number the steps between two subtractions divide. Every p rows a
   step looks at P besides (p³/3). Then the kernels alone, and the same products on full storage.
   usage: bench_device_block [BACKEND [PARAMETERS [REPETITIONS]]]   (cuda 5120 21) */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kwm/backend.h"
#include "kwm/cov_ops.h"
#include "kwm/device_ops.h"
#include "kwm/par.h"

enum { REPETITIONS_MAX = 199, D_O = 16, OUTPUTS = 10, CALLS = 5, PENDING = 640 };
static const int64_t samples[] = {1, 10, 100}, deferred[] = {1, 2, 3, 4, 5, 6, 8, 12, 16, 24, 32, 48, 64};
enum { DEFERRED = sizeof deferred / sizeof *deferred };

/* What is timed: the step, then kernels alone. */
enum {
  PROJECT,
  CONDITION,
  APPLY,
  ROWS,
  SYMM,
  SYMM_PENDING,
  SHARE,
  DELTA,
  SEE,
  SOLVE,
  GRAM,
  GRAM_PENDING,
  BOTH_PENDING,
  MIRROR,
  ROWS_SYMM,
  ROWS_SHARE,
  GEMM_SYMM,
  GEMM_GRAM,
  COPY,
  GEMM,
  BEFORE,
  CHAIN,
  WHOLE = CHAIN + DEFERRED,
  HOST,
  FACTOR,
  THERE,
  TIMED
};
static const char *const words[] = {[PROJECT] = "project",
                                    [CONDITION] = "condition",
                                    [APPLY] = "apply",
                                    [ROWS] = "rows of H alone",
                                    [SYMM] = "H P alone",
                                    [SYMM_PENDING] = "H P alone, rows pending",
                                    [SHARE] = "Z H' alone",
                                    [DELTA] = "Z'w alone",
                                    [SEE] = "δ to the host alone",
                                    [SOLVE] = "Z <- Z/L alone",
                                    [GRAM] = "P - Z'Z alone",
                                    [GRAM_PENDING] = "P - Y'Y alone, rows pending",
                                    [BOTH_PENDING] = "the same, both triangles",
                                    [MIRROR] = "P's other triangle alone",
                                    [ROWS_SYMM] = "H P, rows formed",
                                    [ROWS_SHARE] = "Z H', rows formed",
                                    [GEMM_SYMM] = "H P, full storage",
                                    [GEMM_GRAM] = "P - Z'Z, full storage",
                                    [COPY] = "copy of P",
                                    [GEMM] = "large product",
                                    [BEFORE] = "the device's part before",
                                    [WHOLE] = "the whole step",
                                    [HOST] = "the host's factor of S",
                                    [FACTOR] = "the device's factor of S",
                                    [THERE] = "the whole step, S there"};

struct bench {
  kwm_device *device;
  int64_t p, n, rows, repetitions, steps, pending; /* of a turn; rows */
  kwm_cov cov;
  struct kwm_jac jac; /* the device's */
  struct kwm_device_outer outer;
  float *J, *a, *mean;
  double *S, *w;                                     /* the host's */
  double *P, *W, *H, *Z, *Y, *L, *v, *out, *S_there; /* the device's, for the kernels alone */
  double *seen;                                      /* shared */
  double seconds[TIMED][REPETITIONS_MAX];
};

static void must(kwm_status status) {
  if (status == KWM_OK) return;
  fprintf(stderr, "bench_device_block: %s\n", kwm_error_message());
  exit(1);
}

static void *array(size_t bytes) {
  void *at = NULL;
  must(kwm_alloc(&at, bytes, "benchmark"));
  return at;
}

static double number(int64_t k) {
  return (double)(((uint64_t)k * 2654435761u >> 8) % 1000) * 1e-3 - 0.5;
}

/* n numbers on the device. */
static double *doubles(struct bench *b, int64_t n) {
  const size_t bytes = (size_t)n * sizeof(double);
  void *at = NULL;
  double *const values = array(bytes);
  for (int64_t k = 0; k < n; k++) values[k] = number(k);
  must(kwm_device_alloc(b->device, &at, bytes, "benchmark"));
  kwm_device_put(b->device, at, values, bytes);
  kwm_free(values);
  return at;
}

static float *floats(struct bench *b, int64_t n) {
  const size_t bytes = (size_t)n * sizeof(float);
  void *at = NULL;
  float *const values = array(bytes);
  for (int64_t k = 0; k < n; k++) values[k] = (float)number(k + 7919);
  must(kwm_device_alloc(b->device, &at, bytes, "benchmark"));
  kwm_device_put(b->device, at, values, bytes);
  kwm_free(values);
  return at;
}

/* A symmetric matrix. */
static double *symmetric(struct bench *b) {
  const int64_t p = b->p;
  double *const values = array((size_t)(p * p) * sizeof(double));
  void *to = NULL;
  for (int64_t i = 0; i < p; i++)
    for (int64_t j = 0; j < p; j++) values[i * p + j] = number(i < j ? i * p + j : j * p + i);
  must(kwm_device_alloc(b->device, &to, (size_t)(p * p) * sizeof(double), "benchmark"));
  kwm_device_put(b->device, to, values, (size_t)(p * p) * sizeof(double));
  kwm_free(values);
  return to;
}

static double lower(int64_t r, int64_t i, int64_t j) {
  return i == j ? 1 : i > j ? 1e-3 * number(i * r + j) : 0;
}

/* L is nearly the unit matrix, so that what is solved again and again stays as large as it is. */
static double *unit(struct bench *b, int64_t n) {
  double *const values = array((size_t)(n * n) * sizeof(double)), *const at = doubles(b, n * n);
  for (int64_t k = 0; k < n * n; k++) values[k] = lower(n, k / n, k % n);
  kwm_device_put(b->device, at, values, (size_t)(n * n) * sizeof(double));
  kwm_free(values);
  return at;
}

static void setup(struct bench *b) {
  const int64_t d_i = b->p / D_O, r = b->rows;
  const struct kwm_cov_spec spec = {.name = "benchmark",
                                    .form = KWM_FORM_INNOVATION,
                                    .real = KWM_REAL_DOUBLE,
                                    .count = 1,
                                    .total = 1,
                                    .params = b->p,
                                    .d_o = D_O,
                                    .d_i = d_i,
                                    .prior_precision = 100,
                                    .forgetting = 1,
                                    .n_max = b->n,
                                    .m = OUTPUTS,
                                    .device = b->device};
  must(kwm_cov_create(&b->cov, &kwm_cov_block, &spec));
  b->J = floats(b, r * D_O), b->a = floats(b, b->n * d_i), b->mean = floats(b, b->p);
  b->jac =
      (struct kwm_jac){.shape = KWM_JAC_OUTER, .n = b->n, .m = OUTPUTS, .d_o = D_O, .d_i = d_i, .J = b->J, .a = b->a};
  b->steps = r > 100 ? 8 : 80;
  b->pending = r > PENDING ? r : PENDING / r * r;
  b->Y = doubles(b, b->pending * b->p);
  b->outer = (struct kwm_device_outer){b->n, OUTPUTS, D_O, d_i, b->J, b->a, doubles(b, r * (b->p + b->pending))};
  b->S = array((size_t)(r * r) * sizeof(double)), b->w = array((size_t)r * sizeof(double));
  b->P = symmetric(b), b->W = doubles(b, b->p * b->p);
  b->H = doubles(b, r * b->p), b->Z = doubles(b, r * b->p);
  must(kwm_device_share(b->device, (void **)&b->seen, (size_t)b->p * sizeof(double), "benchmark"));
  b->S_there = doubles(b, r * r);
  b->L = unit(b, r), b->v = doubles(b, r), b->out = doubles(b, r * r > b->p ? r * r : b->p);
}

static void drop(struct bench *b) {
  void *const arrays[] = {b->J, b->a, b->mean, b->P,       b->W,   b->H, b->Z, b->Y, b->outer.scratch,
                          b->L, b->v, b->out,  b->S_there, b->seen};
  kwm_cov_destroy(&b->cov);
  for (size_t k = 0; k < sizeof arrays / sizeof *arrays; k++) kwm_device_free(b->device, arrays[k]);
  kwm_free(b->S), kwm_free(b->w);
}

static void step(struct bench *b, int64_t turn) {
  const int64_t r = b->rows;
  memset(b->S, 0, (size_t)(r * r) * sizeof *b->S);
  kwm_device_wait(b->device);
  const double begin = kwm_par_seconds();
  kwm_cov_project(&b->cov, &b->jac, b->S);
  const double projected = kwm_par_seconds();
  for (int64_t k = 0; k < r; k++) b->S[k * r + k] += 1, b->w[k] = number(k);
  if (!kwm_cholesky_f64(r, b->S, r)) exit(1);
  kwm_cholesky_solve_f64(r, b->S, r, b->w);
  const double factored = kwm_par_seconds();
  if (!kwm_cov_condition(&b->cov, &b->jac, b->S, b->w)) exit(1);
  const double conditioned = kwm_par_seconds();
  kwm_cov_apply(&b->cov, 1, b->mean);
  kwm_device_wait(b->device);
  const double applied = kwm_par_seconds(), share = 1 / (double)b->steps;
  b->seconds[HOST][turn] += share * (factored - projected);
  b->seconds[PROJECT][turn] += share * (projected - begin);
  b->seconds[CONDITION][turn] += share * (conditioned - factored);
  b->seconds[APPLY][turn] += share * (applied - conditioned);
}

/* The same with S, its factor and w on the device, in S_there and v. */
static void step_there(struct bench *b, int64_t turn) {
  const struct kwm_device_ops *const ops = b->device->ops;
  const int64_t r = b->rows;
  kwm_device_put(b->device, b->v, b->w, (size_t)r * sizeof *b->w);
  kwm_device_wait(b->device);
  const double begin = kwm_par_seconds();
  kwm_device_zero(b->device, b->S_there, (size_t)(r * r) * sizeof *b->S_there);
  b->cov.ops->project_there(&b->cov, &b->jac, b->S_there);
  ops->add_diagonal(b->device, r, 1, b->S_there);
  if (!ops->factor_solve_f64(b->device, r, b->S_there, b->v, b->w)) exit(1);
  if (!b->cov.ops->condition_there(&b->cov, &b->jac, b->S_there, b->v)) exit(1);
  kwm_cov_apply(&b->cov, 1, b->mean);
  kwm_device_wait(b->device);
  b->seconds[THERE][turn] += (kwm_par_seconds() - begin) / (double)b->steps;
}

static void factor_there(struct bench *b, int64_t turn) {
  const struct kwm_device_ops *const ops = b->device->ops;
  kwm_device_zero(b->device, b->S_there, (size_t)(b->rows * b->rows) * sizeof *b->S_there);
  ops->add_diagonal(b->device, b->rows, 2, b->S_there);
  kwm_device_wait(b->device);
  const double before = kwm_par_seconds();
  if (!ops->factor_solve_f64(b->device, b->rows, b->S_there, b->v, b->w)) exit(1);
  b->seconds[FACTOR][turn] = kwm_par_seconds() - before;
}

/* All steps of a turn of either kind. */
static void steps(struct bench *b, int64_t turn) {
  static const int summed[] = {PROJECT, CONDITION, APPLY, HOST, THERE};
  for (size_t k = 0; k < sizeof summed / sizeof *summed; k++) b->seconds[summed[k]][turn] = 0;
  for (int64_t k = 0; k < b->steps; k++) step(b, turn);
  for (int64_t k = 0; k < b->steps; k++) step_there(b, turn);
  factor_there(b, turn);
}

static void call(struct bench *b, int which) {
  kwm_device *const d = b->device;
  const struct kwm_device_ops *const ops = d->ops;
  const int64_t p = b->p, r = b->rows, n = p < 4096 ? p : 4096;
  switch (which) {
  case ROWS: ops->outer_rows(d, b->n, OUTPUTS, D_O, p / D_O, b->J, b->a, b->H); break;
  case SYMM: ops->outer_symm(d, &b->outer, b->P, 0, b->Y, b->Z); break;
  case SYMM_PENDING: ops->outer_symm(d, &b->outer, b->P, b->pending / 2 / r * r, b->Y, b->Z); break;
  case SHARE: ops->outer_share(d, &b->outer, b->Z, 0, b->out); break;
  case BOTH_PENDING: ops->downdate_both(d, p, b->pending, b->Y, b->P); break;
  case MIRROR: ops->mirror_f64(d, p, b->P); break;
  case ROWS_SYMM: ops->symm_f64(d, r, p, b->P, b->H, b->Z); break;
  case ROWS_SHARE: ops->gemmt_f64(d, r, p, b->Z, b->H, 0, b->out); break;
  case DELTA: ops->gemm_f64(d, false, false, 1, p, r, 1, b->v, r, b->Z, p, 0, b->out, p); break;
  case SEE: kwm_device_copy(d, b->seen, b->out, (size_t)p * sizeof(double)); break;
  case SOLVE: ops->solve_lower_f64(d, r, p, b->L, b->Z); break;
  case GRAM: ops->gram_f64(d, p, r, -1e-9, b->H, 1, b->P); break;
  case GRAM_PENDING: ops->gram_f64(d, p, b->pending, -1e-9, b->Y, 1, b->P); break;
  case GEMM_SYMM: ops->gemm_f64(d, false, false, r, p, p, 1, b->H, p, b->P, p, 0, b->Z, p); break;
  case GEMM_GRAM: ops->gemm_f64(d, true, false, p, p, r, -1e-9, b->H, p, b->H, p, 1, b->P, p); break;
  case COPY: ops->copy_rows(d, 1, (size_t)(p * p) * sizeof(double), b->W, 0, b->P, 0); break;
  case BEFORE:
    call(b, ROWS_SYMM), call(b, ROWS_SHARE), call(b, DELTA), call(b, SEE), call(b, SOLVE), call(b, GRAM);
    break;
  default: ops->gemm_f64(d, false, false, n, n, n, 1, b->P, p, b->P, p, 0, b->W, p); break;
  }
}

/* What `count` steps ask of the device whose rows are then subtracted from P; each finds those of the ones before. */
static void chain(struct bench *b, int64_t count) {
  const struct kwm_device_ops *const ops = b->device->ops;
  for (int64_t k = 0; k < count; k++) {
    ops->outer_symm(b->device, &b->outer, b->P, k * b->rows, b->Y, b->Z);
    call(b, SHARE), call(b, DELTA), call(b, SEE), call(b, SOLVE);
  }
  if (b->rows > KWM_OUTER_FEW)
    ops->downdate_both(b->device, b->p, count * b->rows, b->Y, b->P);
  else
    ops->gram_f64(b->device, b->p, count * b->rows, -1e-9, b->Y, 1, b->P);
}

static bool fits(const struct bench *b, int k) {
  return k < CHAIN || k >= WHOLE || deferred[k - CHAIN] * b->rows <= b->pending;
}

/* Some calls to one wait: what it costs to wait is the step's, not theirs. */
static void alone(struct bench *b, int64_t turn) {
  for (int which = ROWS; which < WHOLE; which++) {
    if (!fits(b, which)) continue;
    const int64_t count = which < CHAIN ? 1 : deferred[which - CHAIN];
    kwm_device_wait(b->device);
    const double begin = kwm_par_seconds();
    for (int k = 0; k < CALLS; k++)
      if (which < CHAIN)
        call(b, which);
      else
        chain(b, count);
    kwm_device_wait(b->device);
    b->seconds[which][turn] = (kwm_par_seconds() - begin) / (double)(CALLS * count);
  }
  b->seconds[WHOLE][turn] = b->seconds[PROJECT][turn] + b->seconds[CONDITION][turn] + b->seconds[APPLY][turn];
}

static int ascending(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static double largest(double a, double b) {
  return a > b ? a : b;
}

/* The median; the numbers are then in order. */
static double middle(struct bench *b, int which) {
  qsort(b->seconds[which], (size_t)b->repetitions, sizeof(double), ascending);
  return b->seconds[which][b->repetitions / 2];
}

/* Of one step. */
struct limits {
  double p, n, r, bytes, rate, T; /* bytes and operations a second */
};

static double own_floor(const struct limits *of, double steps) {
  const double p = of->p, n = of->n, r = of->r, k = (steps - 1) / 2 * r;
  const double symm = largest(of->T / of->bytes, 2 * p * p * n / of->rate);
  const double gram = largest(2 * of->T / of->bytes / steps, p * p * r / of->rate);
  return symm + gram + (4 * p * r * k + 2 * p * r * n + p * r * r) / of->rate;
}

static void print_times(struct bench *b, int k, const char *word, double floor, double own) {
  const double median = middle(b, k);
  printf("  %-34s %10.4f %10.4f %10.4f", word, 1e3 * median, 1e3 * b->seconds[k][0],
         1e3 * b->seconds[k][b->repetitions - 1]);
  if (floor > 0) printf(" %10.4f %8.1f", 1e3 * floor, 100 * floor / median);
  if (own > 0) printf(" %10.4f %8.1f", 1e3 * own, 100 * own / median);
  printf("\n");
}

static void report(struct bench *b) {
  const double p = (double)b->p, r = (double)b->rows, N = largest(0, p < 4096 ? p : 4096);
  const double bytes = 16 * p * p / middle(b, COPY), rate = 2 * N * N * N / middle(b, GEMM), T = 4 * p * (p + 1);
  const struct limits of = {p, (double)b->n, r, bytes, rate, T};
  const double symm = largest(T / bytes, 2 * p * p * r / rate), gram = largest(2 * T / bytes, p * p * r / rate);
  const double others = 2 * p * r * r / rate, whole = largest(3 * T / bytes, 3 * p * p * r / rate + others);
  const double floors[TIMED] = {[SYMM] = symm,
                                [SHARE] = p * r * r / rate,
                                [SOLVE] = p * r * r / rate,
                                [GRAM] = gram,
                                [GRAM_PENDING] = largest(2 * T / bytes, p * p * (double)b->pending / rate),
                                [ROWS_SYMM] = symm,
                                [ROWS_SHARE] = p * r * r / rate,
                                [GEMM_SYMM] = symm,
                                [GEMM_GRAM] = gram,
                                [BEFORE] = whole,
                                [WHOLE] = whole,
                                [THERE] = largest(whole, 3 * p * p * r / rate + others + r * r * r / 3 / rate)};
  printf("p = %lld, r = %lld, %lld repetitions; copy %.0f GB/s, product %.2f TFLOP/s\n", (long long)b->p,
         (long long)b->rows, (long long)b->repetitions, 1e-9 * bytes, 1e-12 * rate);
  printf("  %-34s %10s %10s %10s %10s %8s %10s %8s\n", "ms", "median", "least", "most", "floor", "floor %", "own",
         "own %");
  for (int k = 0; k < TIMED; k++) {
    char word[64];
    const int64_t count = k >= CHAIN && k < WHOLE ? deferred[k - CHAIN] : 0;
    if (!fits(b, k)) continue;
    snprintf(word, sizeof word, "the device's part, %lld steps", (long long)count);
    print_times(b, k, count > 0 ? word : words[k], count > 0 ? whole : floors[k],
                count > 0 ? own_floor(&of, (double)count) : 0);
  }
  printf("\n");
}

static int64_t argument(int argc, char **argv, int k, int64_t otherwise) {
  return argc > k ? strtoll(argv[k], NULL, 10) : otherwise;
}

int main(int argc, char **argv) {
  static struct bench b;
  const struct kwm_device_spec spec = {.graphs = true};
  kwm_backend_kernels(argv);
  kwm_backend_start();
  b.p = argument(argc, argv, 2, 5120) / D_O * D_O;
  b.repetitions = argument(argc, argv, 3, 21);
  if (b.p < 1 || b.repetitions < 1 || b.repetitions > REPETITIONS_MAX) {
    fprintf(stderr, "usage: bench_device_block [BACKEND [PARAMETERS [REPETITIONS]]]\n");
    return 2;
  }
  must(kwm_device_open(&b.device, argc > 1 ? argv[1] : "cuda", &spec));
  if (b.device == NULL) {
    fprintf(stderr, "bench_device_block: wanted a device, found the host\n");
    return 2;
  }
  printf("%s: %s\n", kwm_device_name(b.device), b.device->words);
  for (size_t k = 0; k < sizeof samples / sizeof *samples; k++) {
    b.n = samples[k], b.rows = b.n * OUTPUTS;
    setup(&b);
    steps(&b, 0), alone(&b, 0);
    for (int64_t turn = 0; turn < b.repetitions; turn++) steps(&b, turn), alone(&b, turn);
    report(&b);
    drop(&b);
  }
  kwm_device_close(b.device);
  return 0;
}
