/* How time and memory of a structure grow with its parameters n: whole steps (evidence and absorb, or project, factor
   of S and condition; then apply) at sizes in geometric progression, the median of repetitions, and the exponents of
   time (also of the larger half of the sizes alone, beyond the caches) and of kwm_cov_bytes by least squares in the
   logarithms. What happens only now and then counts with its share of a step: the refresh of kron's basis, every 100
   steps, and block's look at P, every n/rows. One BLAS thread unless OPENBLAS_NUM_THREADS says otherwise.
   usage: bench_scaling [STRUCTURE ...]   (all) */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kwm/backend.h"
#include "kwm/cov_ops.h"
#include "kwm/par.h"

enum { SIZES_MAX = 8, REPETITIONS_LEAST = 5, REPETITIONS_MAX = 60, REFRESHES = 3, REFRESH = 100 };
enum { RANK = 64, PARAMS = 10, LANES = 16, D_O = 16, WINDOWS = 16, WINDOW = 997 };
static const double SECONDS_A_SIZE = 1.0;

enum shape {
  UNITS,  /* blocks of PARAMS parameters, more and more of them */
  SQUARE, /* one matrix d x d */
  FLAT,   /* one matrix D_O x n/D_O */
};

/* What grows, from n = least to n = most in so many sizes. wanted: the exponent of time aimed at, 0: none. */
struct scenario {
  const struct kwm_cov_ops *ops;
  enum kwm_form form;
  enum kwm_real real;
  enum shape shape;
  int64_t samples, outputs;
  double least, most;
  int sizes;
  double wanted;
};

static const struct scenario scenarios[] = {
    {&kwm_cov_lowrank, KWM_FORM_INFORMATION, KWM_REAL_FLOAT, UNITS, 10, 10, 1e4, 1e6, 7, 1.1},
    {&kwm_cov_lowrank, KWM_FORM_INNOVATION, KWM_REAL_FLOAT, UNITS, 10, 10, 1e4, 1e6, 7, 1.1},
    {&kwm_cov_kron, KWM_FORM_INFORMATION, KWM_REAL_FLOAT, SQUARE, 100, 10, 128 * 128, 1448 * 1448, 8, 1.6},
    {&kwm_cov_diag, KWM_FORM_INFORMATION, KWM_REAL_DOUBLE, UNITS, 10, 10, 1e4, 1e6, 7, 0},
    {&kwm_cov_diag, KWM_FORM_INNOVATION, KWM_REAL_DOUBLE, UNITS, 10, 10, 1e4, 1e6, 7, 0},
    {&kwm_cov_block, KWM_FORM_INFORMATION, KWM_REAL_DOUBLE, UNITS, 10, 10, 1e4, 1e6, 7, 0},
    {&kwm_cov_block, KWM_FORM_INNOVATION, KWM_REAL_DOUBLE, UNITS, 10, 10, 1e4, 4e5, 6, 0},
    {&kwm_cov_block, KWM_FORM_INNOVATION, KWM_REAL_DOUBLE, FLAT, 100, 1, 640, 5120, 7, 0},
    {&kwm_cov_block, KWM_FORM_INNOVATION, KWM_REAL_FLOAT, FLAT, 100, 1, 640, 5120, 7, 0},
};

struct bench {
  kwm_cov cov;
  struct kwm_jac jac;
  float *stream; /* random numbers; the arrays of a step are windows of it */
  float *sums, *mean;
  double *S, *w, *kl;
  int64_t steps;
  double seconds[REPETITIONS_MAX];
};

/* One size's results. */
struct point {
  double n, bytes, median, least, most; /* s */
};

static void fail(const char *words) {
  fprintf(stderr, "bench_scaling: %s\n", words);
  exit(1);
}

static void *array(int64_t n, size_t size) {
  void *memory;
  if (kwm_alloc(&memory, (size_t)n * size, "benchmark") != KWM_OK) fail(kwm_error_message());
  return memory;
}

static int64_t larger(int64_t a, int64_t b) {
  return a > b ? a : b;
}

static struct kwm_cov_spec spec_of(const struct scenario *s, double n, double *variance) {
  struct kwm_cov_spec spec = {.name = "benchmark",
                              .form = s->form,
                              .real = s->real,
                              .count = 1,
                              .total = 1,
                              .forgetting = 1,
                              .refresh = REFRESH,
                              .rank = RANK,
                              .kind = KWM_LOWRANK_PRECISION,
                              .n_max = s->samples,
                              .m = s->outputs};
  if (s->shape == UNITS) {
    spec.params = PARAMS;
    spec.count = spec.total = LANES * llround(n / (PARAMS * LANES));
    for (int k = 0; k < PARAMS; k++) variance[k] = 10 / n;
    spec.prior_variance = variance;
  } else {
    spec.d_o = s->shape == SQUARE ? llround(sqrt(n)) : D_O;
    spec.d_i = s->shape == SQUARE ? spec.d_o : llround(n / D_O);
    spec.params = spec.d_o * spec.d_i;
    spec.prior_precision = n / 10;
  }
  return spec;
}

/* Numbers of the largest array of a step's jac. */
static int64_t window_length(const struct kwm_cov_spec *spec) {
  const int64_t n = spec->n_max, m = spec->m;
  if (spec->d_o > 0) return n * larger(m * spec->d_o, spec->d_i);
  return n * 2 * larger(m, spec->params) * spec->count;
}

static void setup(struct bench *b, const struct scenario *s, double n) {
  double variance[PARAMS];
  const struct kwm_cov_spec spec = spec_of(s, n, variance);
  const int64_t rows = spec.n_max * spec.m, length = window_length(&spec) + WINDOW * (WINDOWS + 3);
  memset(b, 0, sizeof *b);
  if (kwm_cov_create(&b->cov, s->ops, &spec) != KWM_OK) fail(kwm_error_message());
  b->stream = array(length, sizeof(float));
  b->sums = array(kwm_cov_evidence_length(&b->cov), sizeof(float));
  b->mean = array(spec.count * spec.params, sizeof(float));
  b->S = array(rows * rows, sizeof(double)), b->w = array(rows, sizeof(double));
  b->kl = array(spec.count, sizeof(double));
  uint64_t state = 1;
  for (int64_t k = 0; k < length; k++) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    b->stream[k] = (float)(state >> 40) * 0x1p-24f - 0.5f;
  }
}

static void drop(struct bench *b) {
  kwm_cov_destroy(&b->cov);
  kwm_free(b->stream), kwm_free(b->sums), kwm_free(b->mean), kwm_free(b->S), kwm_free(b->w), kwm_free(b->kl);
}

/* Other rows in every step, so that sums over steps get their full rank. */
static void next_data(struct bench *b) {
  const struct kwm_cov_spec *const spec = &b->cov.spec;
  const float *const window = b->stream + b->steps++ % WINDOWS * WINDOW;
  b->jac = (struct kwm_jac){.n = spec->n_max, .m = spec->m, .J = window, .e = window + 3 * WINDOW};
  if (spec->d_o > 0) {
    b->jac.shape = KWM_JAC_OUTER;
    b->jac.d_o = spec->d_o, b->jac.d_i = spec->d_i;
    b->jac.a = window + WINDOW;
  } else {
    b->jac.shape = KWM_JAC_UNITS;
    b->jac.count = spec->count, b->jac.channels = 2, b->jac.params = spec->params;
    b->jac.S = window + 2 * WINDOW;
  }
}

static bool prepare_information(struct bench *b) {
  memset(b->sums, 0, (size_t)kwm_cov_evidence_length(&b->cov) * sizeof *b->sums);
  kwm_cov_evidence(&b->cov, &b->jac, b->sums);
  return kwm_cov_absorb(&b->cov, &b->jac, b->sums, b->jac.n, b->kl);
}

static bool prepare_innovation(struct bench *b) {
  const int64_t rows = b->jac.n * b->jac.m;
  memset(b->S, 0, (size_t)(rows * rows) * sizeof *b->S);
  kwm_cov_project(&b->cov, &b->jac, b->S);
  for (int64_t k = 0; k < rows; k++) b->S[k * rows + k] += 1, b->w[k] = (double)b->jac.e[k];
  if (!kwm_cholesky_f64(rows, b->S, rows)) return false;
  kwm_cholesky_solve_f64(rows, b->S, rows, b->w);
  return kwm_cov_condition(&b->cov, &b->jac, b->S, b->w);
}

/* Seconds of a step in which nothing rare is due. */
static double step(struct bench *b) {
  next_data(b);
  const double start = kwm_par_seconds();
  if (!kwm_cov_predict(&b->cov, 2, NULL, NULL)) fail("predict failed");
  if (!(b->cov.spec.form == KWM_FORM_INFORMATION ? prepare_information(b) : prepare_innovation(b)))
    fail("a step was not finite");
  kwm_cov_apply(&b->cov, 1e-3, b->mean);
  return kwm_par_seconds() - start;
}

static int ascending(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static double median(double *values, int64_t n) {
  qsort(values, (size_t)n, sizeof *values, ascending);
  return values[n / 2];
}

/* Steps from one look at P to the next, 0 if there is none: as soon as as many rows came in as there are parameters. */
static int64_t look_period(const struct scenario *s, const struct kwm_cov_spec *spec) {
  const int64_t rows = spec->n_max * spec->m;
  const bool looks = s->ops == &kwm_cov_block && s->shape == FLAT && s->real == KWM_REAL_DOUBLE;
  return looks ? (spec->params + rows - 1) / rows : 0;
}

/* A refresh's share of a step. */
static double refresh_share(struct bench *b, const struct scenario *s) {
  double seconds[REFRESHES];
  if (s->ops != &kwm_cov_kron) return 0;
  for (int k = 0; k < REFRESHES; k++) {
    const double start = kwm_par_seconds();
    if (!kwm_cov_predict(&b->cov, REFRESH, NULL, NULL)) fail("no eigenvectors");
    seconds[k] = kwm_par_seconds() - start;
    step(b);
  }
  return median(seconds, REFRESHES) / REFRESH;
}

static struct point measure(struct bench *b, const struct scenario *s) {
  const struct kwm_cov_spec *const spec = &b->cov.spec;
  const int64_t period = look_period(s, spec), full_rank = spec->d_i / spec->n_max + 1;
  const int64_t wanted = larger(period - 1, s->shape == SQUARE ? full_rank : 0);
  double total = 0, rare = 0;
  int64_t n = 0;
  step(b); /* touches all memory for the first time */
  while (n < larger(wanted, REPETITIONS_LEAST) || (n < REPETITIONS_MAX && total < SECONDS_A_SIZE)) {
    if (n == REPETITIONS_MAX) fail("too many repetitions wanted");
    total += b->seconds[n++] = step(b);
  }
  /* Looks are left out of the range. */
  const double look = period > 0 ? b->seconds[period - 2] : 0;
  const double middle = median(b->seconds, n);
  if (period > 0 && look > middle) rare = (look - middle) / (double)period;
  rare += refresh_share(b, s);
  return (struct point){.n = (double)(spec->count * spec->params),
                        .bytes = (double)kwm_cov_bytes(s->ops, spec),
                        .median = middle + rare,
                        .least = b->seconds[0] + rare,
                        .most = b->seconds[n - 1 - (period > 0 ? (n + 1) / period : 0)] + rare};
}

/* Slope of log y over log n with its standard error. */
static void fit(int k, const double *n, const double *y, double *slope, double *error) {
  double mean_x = 0, mean_y = 0, xx = 0, xy = 0, rest = 0;
  for (int i = 0; i < k; i++) mean_x += log(n[i]) / k, mean_y += log(y[i]) / k;
  for (int i = 0; i < k; i++) {
    xx += (log(n[i]) - mean_x) * (log(n[i]) - mean_x);
    xy += (log(n[i]) - mean_x) * (log(y[i]) - mean_y);
  }
  *slope = xy / xx;
  for (int i = 0; i < k; i++) {
    const double left = log(y[i]) - mean_y - *slope * (log(n[i]) - mean_x);
    rest += left * left;
  }
  *error = sqrt(rest / (k - 2) / xx);
}

static const char *title(const struct scenario *s) {
  static char words[128];
  static const char *const shapes[] = {"units", "square", "matrix"};
  snprintf(words, sizeof words, "%s %s\t%s\t%s", s->ops->name, shapes[s->shape],
           s->form == KWM_FORM_INFORMATION ? "information" : "innovation",
           s->real == KWM_REAL_DOUBLE ? "double" : "float");
  return words;
}

static void run(const struct scenario *s, char *summary, size_t bytes) {
  static struct bench b;
  double n[SIZES_MAX], seconds[SIZES_MAX], memory[SIZES_MAX], exponents[3], errors[3];
  for (int k = 0; k < s->sizes; k++) {
    setup(&b, s, s->least * pow(s->most / s->least, (double)k / (s->sizes - 1)));
    const struct point p = measure(&b, s);
    drop(&b);
    n[k] = p.n, seconds[k] = p.median, memory[k] = p.bytes;
    printf("%s\t%.0f\t%.3f\t%.3f\t%.3f\t%.2f\n", title(s), p.n, 1e3 * p.median, 1e3 * p.least, 1e3 * p.most,
           p.bytes / 1e6);
    fflush(stdout);
  }
  const int half = s->sizes / 2, rest = s->sizes - half;
  fit(s->sizes, n, seconds, &exponents[0], &errors[0]);
  fit(rest, n + half, seconds + half, &exponents[1], &errors[1]);
  fit(s->sizes, n, memory, &exponents[2], &errors[2]);
  const int length = snprintf(summary, bytes, "%s\t%.3f +- %.3f\t%.3f +- %.3f\t%.3f +- %.3f", title(s), exponents[0],
                              errors[0], exponents[1], errors[1], exponents[2], errors[2]);
  if (s->wanted > 0)
    snprintf(summary + length, bytes - (size_t)length, "\t<= %.1f %s", s->wanted,
             exponents[0] <= s->wanted ? "met" : "missed");
}

static bool asked_for(const struct scenario *s, int argc, char **argv) {
  for (int k = 1; k < argc; k++)
    if (strcmp(argv[k], s->ops->name) == 0) return true;
  return argc == 1;
}

int main(int argc, char **argv) {
  enum { COUNT = sizeof scenarios / sizeof *scenarios };
  static char summaries[COUNT][256];
  kwm_backend_kernels(argv);
  for (int k = 1; k < argc; k++)
    if (kwm_cov_find(argv[k]) == NULL) {
      fprintf(stderr, "usage: bench_scaling [block|kron|diag|lowrank ...]\n");
      return 2;
    }
  /* The library reads it when it is loaded. */
  if (getenv("OPENBLAS_NUM_THREADS") == NULL && setenv("OPENBLAS_NUM_THREADS", "1", 1) == 0)
    execv("/proc/self/exe", argv);
  kwm_backend_start();
  printf("%s, %s threads; lowrank: %d columns, form B\n", kwm_backend_words(), getenv("OPENBLAS_NUM_THREADS"), RANK);
  printf("structure\tform\treal\tn\tms\tleast\tmost\tMB\n");
  for (int k = 0; k < COUNT; k++)
    if (asked_for(&scenarios[k], argc, argv)) run(&scenarios[k], summaries[k], sizeof summaries[k]);
  printf("structure\tform\treal\texponent of time\tlarger half of the sizes\texponent of bytes\twanted\n");
  for (int k = 0; k < COUNT; k++)
    if (summaries[k][0] != '\0') printf("%s\n", summaries[k]);
  return 0;
}
