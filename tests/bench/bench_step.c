/* One dense block on request, for peers.py: the measurement update of a matrix block in the innovation form, a step a
   line, so that others can take turns with it on the same rows. usage: bench_step PARAMETERS ROWS double|float SETS
   FILE FILE: SETS times the rows H (ROWS, PARAMETERS) and then innovations e (ROWS), as float. P0 = 1/100, R = I. Reads
   lines:

     step K       a step with set K; answers its seconds
     state FILE   writes P (PARAMETERS, PARAMETERS) and then the mean, as double; answers "written" */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kwm/backend.h"
#include "kwm/cov.h"
#include "kwm/par.h"

struct bench {
  int64_t n, rows, sets;
  kwm_cov cov;
  float *data, *ones, *float_mean;
  double *S, *w, *delta, *mean;
};

static int fail(const char *words) {
  fprintf(stderr, "bench_step: %s\n", words);
  exit(1);
}

static void *array(int64_t n, size_t size) {
  void *memory;
  if (kwm_alloc(&memory, (size_t)n * size, "benchmark") != KWM_OK) fail(kwm_error_message());
  return memory;
}

static void read_data(struct bench *b, const char *path) {
  const size_t length = (size_t)(b->sets * (b->n + 1) * b->rows);
  b->data = array((int64_t)length, sizeof(float));
  FILE *const file = fopen(path, "rb");
  if (file == NULL || fread(b->data, sizeof(float), length, file) != length)
    fail("the file of rows is missing or short");
  fclose(file);
}

static void setup(struct bench *b, enum kwm_real real) {
  const struct kwm_cov_spec spec = {.name = "benchmark",
                                    .form = KWM_FORM_INNOVATION,
                                    .real = real,
                                    .count = 1,
                                    .total = 1,
                                    .params = b->n,
                                    .d_o = 1,
                                    .d_i = b->n,
                                    .prior_precision = 100,
                                    .forgetting = 1,
                                    .n_max = b->rows,
                                    .m = 1};
  if (kwm_cov_create(&b->cov, &kwm_cov_block, &spec) != KWM_OK) fail(kwm_error_message());
  b->ones = array(b->rows, sizeof(float)), b->float_mean = array(b->n, sizeof(float));
  b->S = array(b->rows * b->rows, sizeof(double)), b->w = array(b->rows, sizeof(double));
  b->delta = array(b->n, sizeof(double)), b->mean = array(b->n, sizeof(double));
  for (int64_t k = 0; k < b->rows; k++) b->ones[k] = 1;
}

/* The mean in double as well, to be compared. */
static double step(struct bench *b, int64_t set) {
  const int64_t rows = b->rows;
  float *const H = b->data + set * (b->n + 1) * rows, *const e = H + rows * b->n;
  const struct kwm_jac jac = {
      .shape = KWM_JAC_OUTER, .n = rows, .m = 1, .d_o = 1, .d_i = b->n, .J = b->ones, .a = H, .e = e};
  const double start = kwm_par_seconds();
  memset(b->S, 0, (size_t)(rows * rows) * sizeof *b->S);
  kwm_cov_project(&b->cov, &jac, b->S);
  for (int64_t k = 0; k < rows; k++) b->S[k * rows + k] += 1, b->w[k] = (double)e[k];
  if (!kwm_cholesky_f64(rows, b->S, rows)) fail("S is not positive definite");
  kwm_cholesky_solve_f64(rows, b->S, rows, b->w);
  if (!kwm_cov_condition(&b->cov, &jac, b->S, b->w)) fail("a step was not finite");
  kwm_cov_delta(&b->cov, b->delta);
  kwm_cov_apply(&b->cov, 1, b->float_mean);
  for (int64_t k = 0; k < b->n; k++) b->mean[k] += b->delta[k];
  return kwm_par_seconds() - start;
}

static void write_state(struct bench *b, const char *path) {
  const size_t n = (size_t)b->n;
  double *const P = array(b->n * b->n, sizeof *P);
  FILE *const file = fopen(path, "wb");
  if (!kwm_cov_covariance(&b->cov, P)) fail("P is not positive definite");
  if (file == NULL || fwrite(P, sizeof *P, n * n, file) != n * n || fwrite(b->mean, sizeof *P, n, file) != n ||
      fclose(file) != 0)
    fail("could not write the state");
  kwm_free(P);
}

static void serve(struct bench *b) {
  char line[4096], path[4096];
  long long set;
  while (fgets(line, sizeof line, stdin) != NULL) {
    if (sscanf(line, "step %lld", &set) == 1 && set >= 0 && set < b->sets) {
      printf("%.9f\n", step(b, set));
    } else if (sscanf(line, "state %4095[^\n]", path) == 1) {
      write_state(b, path);
      printf("written\n");
    } else {
      fail("wanted \"step K\" or \"state FILE\"");
    }
    fflush(stdout);
  }
}

int main(int argc, char **argv) {
  static struct bench b;
  const char *const real = argc > 3 ? argv[3] : "";
  kwm_backend_kernels(argv);
  if (argc == 6) b.n = atoll(argv[1]), b.rows = atoll(argv[2]), b.sets = atoll(argv[4]);
  if (b.n < 1 || b.rows < 1 || b.sets < 1 || (strcmp(real, "double") != 0 && strcmp(real, "float") != 0)) {
    fprintf(stderr, "usage: bench_step PARAMETERS ROWS double|float SETS FILE\n");
    return 2;
  }
  kwm_backend_start();
  read_data(&b, argv[5]);
  setup(&b, strcmp(real, "double") == 0 ? KWM_REAL_DOUBLE : KWM_REAL_FLOAT);
  printf("%s\n", kwm_backend_words());
  fflush(stdout);
  serve(&b);
  kwm_cov_destroy(&b.cov);
  return 0;
}
