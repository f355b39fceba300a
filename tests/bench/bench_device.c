/* A device's kernels (kwm/device_ops.h) against its own limits in the same run: bytes a second of a large copy within
   it, operations a second of a large matrix product in float and in double. Each row of the table below says what a
   kernel must read, write and compute; the floor is the longest of the three at these rates. Sizes are those of a step
   on sequential MNIST, then of one that fills the device. Times are those of one call among many that nobody waits for
   (eigen waits itself), so none is below the first row, a kernel of one number. What fits the device's cache can beat
   a floor of bytes; with tf32 the floor of operations is that of the tensor cores. usage: bench_device shadow|cuda
   [small] [tf32] [--output FILE]   (FILE: the table, by tabs) */
#include "bench_device.h"

#include <string.h>

enum { PARAMS = 10 };

struct sizes {
  int64_t n, m, units, length, hidden;
};

/* ---- limits, dense algebra ---- */

static void run_copy(const struct kernel *k) {
  kwm_device_copy(k->d, k->a[1], k->a[0], (size_t)k->n * sizeof(float));
}

static void run_gemm(const struct kernel *k) {
  k->ops->gemm(k->d, k->transpose_a, k->transpose_b, k->m, k->n, k->k, 1, k->a[0], k->transpose_a ? k->m : k->k,
               k->a[1], k->ld, 0, k->a[2], k->n);
}

static void run_gemm_add(const struct kernel *k) {
  k->ops->gemm(k->d, k->transpose_a, k->transpose_b, k->m, k->n, k->k, 1, k->a[0], k->transpose_a ? k->m : k->k,
               k->a[1], k->ld, 1, k->a[2], k->n);
}

static void run_gemm_f64(const struct kernel *k) {
  k->ops->gemm_f64(k->d, false, false, k->n, k->n, k->n, 1, k->a[0], k->n, k->a[1], k->n, 0, k->a[2], k->n);
}

static void run_eigen(const struct kernel *k) {
  const struct kwm_device_eigen problem = {k->n, k->a[0], k->a[1]};
  if (k->ops->eigen_end(k->d, k->ops->eigen_begin(k->d, &problem))) return;
  fprintf(stderr, "bench_device: eigen: wanted the eigenvectors of order %d, found no convergence\n", (int)k->n);
  exit(1);
}

static void run_add_scaled(const struct kernel *k) {
  k->ops->add_scaled(k->d, k->n, 1e-6f, k->a[0], k->a[1]);
}

static void limits(struct bench *b) {
  const int64_t copied = b->small ? 1 << 12 : 1 << 27, f32 = b->small ? 48 : 8192, f64 = b->small ? 32 : 4096;
  row(b, (struct kernel){"launch", run_add_scaled, .n = 1, .arrays = {{SIGNED, READ, 1}, {SIGNED, BOTH, 1}}},
      "add_scaled of 1");
  row(b,
      (struct kernel){"copy", run_copy, .n = copied, .limit = &b->copy,
                      .arrays = {{SIGNED, READ, copied}, {SIGNED, WRITE, copied}}},
      "n %d", (int)copied);
  row(b,
      (struct kernel){"gemm", run_gemm, .n = f32, .m = f32, .k = f32, .ld = f32, .limit = &b->f32,
                      .f32 = 2.0 * (double)(f32 * f32 * f32),
                      .arrays = {{SIGNED, READ, f32 * f32}, {SIGNED, READ, f32 * f32}, {SIGNED, WRITE, f32 * f32}}},
      "n %d", (int)f32);
  row(b,
      (struct kernel){"gemm_f64", run_gemm_f64, .n = f64, .limit = &b->f64, .f64 = 2.0 * (double)(f64 * f64 * f64),
                      .arrays = {{WIDE, READ, f64 * f64}, {WIDE, READ, f64 * f64}, {WIDE, WRITE, f64 * f64}}},
      "n %d", (int)f64);
}

/* C (m, n) of k products each. how: "NN", "NT", "TN", and "+" behind it where C is added to. ldb 0: B is contiguous. */
static void product(const struct bench *b, const char *name, const char *how, int64_t m, int64_t n, int64_t k,
                    int64_t ldb) {
  const bool ta = how[0] == 'T', tb = how[1] == 'T', add = how[2] == '+';
  const int64_t ld = ldb > 0 ? ldb : tb ? k : n;
  row(b,
      (struct kernel){
          name, add ? run_gemm_add : run_gemm, .n = n, .m = m, .k = k, .ld = ld, .transpose_a = ta, .transpose_b = tb,
          .f32 = 2.0 * (double)(m * n * k),
          .arrays = {{SIGNED, READ, m * k}, {SIGNED, READ, (tb ? n : k) * ld}, {SIGNED, add ? BOTH : WRITE, m * n}}},
      "%d x %d x %d %s", (int)m, (int)n, (int)k, how);
}

/* The products of one matrix block (o, i) that grow with the batch. The pull back leaves the bias out. */
static void batch_products(const struct bench *b, int64_t n, int64_t m, int64_t o, int64_t i) {
  product(b, "gemm forward", "NT", n, o, i, 0);
  product(b, "gemm pull back", "NN", n * m, i - 1, o, i);
  product(b, "gemm aU", "NN", n, i, i, 0);
  product(b, "gemm gV", "NN", n, o, o, 0);
  product(b, "gemm A", "TN+", i, i, n, 0);
  product(b, "gemm G", "TN+", o, o, n * m, 0);
  product(b, "gemm X", "TN+", o, i, n, 0);
}

static void basis_products(const struct bench *b, int64_t o, int64_t i) {
  product(b, "gemm G in basis", "NN", o, o, o, 0);
  product(b, "gemm step U", "NT", o, i, i, 0);
  product(b, "gemm V step", "NN+", o, i, o, 0);
  product(b, "gemm overlap U", "TN", i, i, i, 0);
}

static void eigen(const struct bench *b, int64_t n) {
  /* To tridiagonal form 4/3 n³, the vectors back 2 n³; what lies between is not counted. */
  row(b,
      (struct kernel){"eigen", run_eigen, .n = n, .f64 = 10.0 / 3 * (double)(n * n * n),
                      .arrays = {{SIGNED, READ, n * n}, {SIGNED, WRITE, n * n}}},
      "n %d", (int)n);
}

/* ---- layers and the observation ---- */

static void run_tables(const struct kernel *k) {
  k->ops->gated_tables(k->d, k->count, k->a[0], k->a[1]);
}

static void run_encode(const struct kernel *k) {
  k->ops->gated_encode(k->d, k->n, k->w, k->a[2], k->a[3], k->a[4]);
}

static void before_forward(const struct kernel *k) {
  run_tables(k);
  run_encode(k);
}

static void run_forward(const struct kernel *k) {
  k->ops->gated_forward(k->d, k->n, k->w, k->count, k->a[1], k->a[3], k->a[4], k->a[5], k->a[6]);
}

/* Pixels that are no background, and runs of background. */
static double symbols_of(const struct sizes *s) {
  double found = 0;
  for (int64_t sample = 0; sample < s->n; sample++)
    for (int64_t t = 0; t < s->length; t++) found += pixel(sample, t) != 0 || t == 0 || pixel(sample, t - 1) != 0;
  return found;
}

/* The arrays of the recurrence, no traffic yet. */
static struct kernel recurrence(const struct sizes *s, const char *name, void (*run)(const struct kernel *k)) {
  return (struct kernel){name,
                         run,
                         .n = s->n,
                         .w = s->length,
                         .count = s->units,
                         .arrays = {{THETA, NONE, s->units * PARAMS},
                                    {TABLES, NONE, kwm_device_gated_floats(s->units)},
                                    {PIXELS, NONE, s->n * s->length},
                                    {SYMBOLS, NONE, s->n * s->length},
                                    {COUNTS, NONE, s->n},
                                    {SIGNED, NONE, s->n * 2 * s->units}}};
}

/* A symbol costs 82 operations a unit, 8 without sensitivities (src/layer/gated.c); a pixel value's row of the tables
   some 28. */
static void recurrence_rows(const struct bench *b, const struct sizes *s) {
  const double symbols = symbols_of(s), units = (double)s->units;
  const int n = (int)s->n, count = (int)s->units;
  struct kernel k = recurrence(s, "gated_tables", run_tables);
  k.arrays[0].traffic = READ, k.arrays[1].traffic = WRITE, k.f32 = 28 * 256 * units;
  row(b, k, "units %d", count);
  k = recurrence(s, "gated_encode", run_encode);
  k.arrays[2].traffic = READ, k.arrays[4].traffic = WRITE, k.bytes = 2 * symbols;
  row(b, k, "n %d length %d", n, (int)s->length);
  k = recurrence(s, "gated_forward", run_forward);
  k.before = before_forward, k.bytes = 2 * symbols, k.f32 = 8 * symbols * units;
  k.arrays[1].traffic = READ, k.arrays[5].traffic = WRITE;
  row(b, k, "n %d units %d", n, count);
  k.name = "gated_forward S", k.f32 = 82 * symbols * units;
  k.arrays[6] = (struct array){SIGNED, WRITE, s->n * 2 * PARAMS * s->units};
  row(b, k, "n %d units %d", n, count);
}

static void run_observe(const struct kernel *k) {
  const struct kwm_device_observation o = {k->n, k->m, 0, k->a[0], k->a[1], k->a[2]};
  k->ops->observe(k->d, &o, k->a[3], k->a[4]);
}

static void run_observe_sampled(const struct kernel *k) {
  const struct kwm_device_observation o = {k->n, k->m, 0, k->a[0], k->a[1], k->a[2]};
  k->ops->observe_sampled(k->d, &o, k->a[5], k->a[3], k->a[4]);
}

static void observation_rows(const struct bench *b, int64_t n, int64_t m) {
  const struct array logits = {SIGNED, READ, n * m}, labels = {LABELS, READ, n}, facts = {FACTS, WRITE, n * KWM_FACTS};
  const struct array e = {SIGNED, WRITE, n * m};
  row(b,
      (struct kernel){"observe", run_observe, .n = n, .m = m, .f32 = (double)(n * m * (16 + 2 * m)),
                      .arrays = {logits, labels, facts, e, {SIGNED, WRITE, n * m * m}}},
      "n %d m %d", (int)n, (int)m);
  row(b,
      (struct kernel){"observe_sampled", run_observe_sampled, .n = n, .m = m, .f32 = (double)(n * m * 18),
                      .arrays = {logits, labels, facts, e, e, {WIDE, READ, n}}},
      "n %d m %d", (int)n, (int)m);
}

static void run_relu(const struct kernel *k) {
  k->ops->relu(k->d, k->n, k->w, k->a[0], k->a[1]);
}

static void run_relu_mask(const struct kernel *k) {
  k->ops->relu_mask(k->d, k->n, k->m, k->w, k->a[0], k->a[1]);
}

static void relu_rows(const struct bench *b, int64_t n, int64_t m, int64_t w) {
  row(b,
      (struct kernel){"relu", run_relu, .n = n, .w = w, .f32 = (double)(n * w),
                      .arrays = {{SIGNED, READ, n * w}, {SIGNED, WRITE, n * (w + 1)}}},
      "n %d w %d", (int)n, (int)w);
  row(b,
      (struct kernel){"relu_mask", run_relu_mask, .n = n, .m = m, .w = w, .f32 = (double)(n * m * w),
                      .arrays = {{SIGNED, READ, n * w}, {SIGNED, BOTH, n * m * w}}},
      "n %d m %d w %d", (int)n, (int)m, (int)w);
}

/* ---- evidence ---- */

static struct kwm_device_units units_of(const struct kernel *k) {
  return (struct kwm_device_units){k->n, k->m, k->count, k->p, k->a[0], k->a[1], k->a[2]};
}

static void run_fisher(const struct kernel *k) {
  const struct kwm_device_units units = units_of(k);
  k->ops->units_fisher(k->d, &units, k->a[3], k->a[4]);
}

static void run_diagonal(const struct kernel *k) {
  const struct kwm_device_units units = units_of(k);
  k->ops->units_diagonal(k->d, &units, k->a[3], k->a[4]);
}

/* A unit's share of a sample: JᵀJ and Jᵀe 10 m, these times S 10 p, then p (p + 1)/2 numbers of 4, or p of them. */
static void units_rows(const struct bench *b, const struct sizes *s) {
  const int64_t n = s->n, m = s->m, count = s->units, p = PARAMS;
  const double pairs = (double)(n * count);
  struct kernel k = {.name = "units_fisher",
                     .run = run_fisher,
                     .n = n,
                     .m = m,
                     .count = count,
                     .p = p,
                     .f32 = pairs * (double)(10 * m + 10 * p + 2 * p * (p + 1)),
                     .arrays = {{SIGNED, READ, n * m * 2 * count},
                                {SIGNED, READ, n * 2 * p * count},
                                {SIGNED, READ, n * m},
                                {SIGNED, BOTH, p * (p + 1) / 2 * count},
                                {SIGNED, BOTH, p * count}}};
  row(b, k, "n %d m %d units %d", (int)n, (int)m, (int)count);
  k.name = "units_diagonal", k.run = run_diagonal, k.f32 = pairs * (double)(10 * m + 14 * p);
  k.arrays[3].count = p * count;
  row(b, k, "n %d m %d units %d", (int)n, (int)m, (int)count);
}

static void run_output_score(const struct kernel *k) {
  k->ops->output_score(k->d, k->n, k->m, k->w, k->a[0], k->a[1], k->a[2]);
}

static void run_output_squares(const struct kernel *k) {
  k->ops->output_squares(k->d, k->n, k->m, k->w, k->a[1], k->a[2]);
}

static void run_add_squares(const struct kernel *k) {
  k->ops->add_squares(k->d, k->n, k->w, k->a[0], k->a[1]);
}

static void run_column_dots(const struct kernel *k) {
  k->ops->column_dots(k->d, k->n, k->w, k->a[0], k->a[1], k->a[2]);
}

static void column_rows(const struct bench *b, int64_t n, int64_t o, int64_t i) {
  row(b,
      (struct kernel){"add_squares", run_add_squares, .n = n, .w = i, .f32 = 2.0 * (double)(n * i),
                      .arrays = {{SIGNED, READ, n * i}, {SIGNED, BOTH, i}}},
      "n %d w %d", (int)n, (int)i);
  row(b,
      (struct kernel){"column_dots", run_column_dots, .n = o, .w = o, .f32 = 2.0 * (double)(o * o),
                      .arrays = {{SIGNED, READ, o * o}, {SIGNED, READ, o * o}, {SIGNED, WRITE, o}}},
      "n %d w %d", (int)o, (int)o);
}

static void output_rows(const struct bench *b, int64_t n, int64_t m, int64_t w) {
  struct kernel k = {.name = "output_score",
                     .run = run_output_score,
                     .n = n,
                     .m = m,
                     .w = w,
                     .f32 = 2.0 * (double)(n * m * w),
                     .arrays = {{SIGNED, READ, n * m}, {SIGNED, READ, n * m * w}, {SIGNED, WRITE, n * w}}};
  row(b, k, "n %d m %d w %d", (int)n, (int)m, (int)w);
  k.name = "output_squares", k.run = run_output_squares, k.arrays[0].traffic = NONE;
  row(b, k, "n %d m %d w %d", (int)n, (int)m, (int)w);
}

/* ---- covariance ---- */

static void run_square(const struct kernel *k) {
  k->ops->square(k->d, k->n, k->a[0]);
}

/* Fresh numbers: squared again and again, they would leave the range. */
static void before_square(const struct kernel *k) {
  kwm_device_copy(k->d, k->a[0], k->a[1], (size_t)k->n * sizeof(float));
}

static void run_kron_gain(const struct kernel *k) {
  k->ops->kron_gain(k->d, k->o, k->i, 100, k->a[0], k->a[1], k->a[2], k->a[3], k->a[4], k->a[5], k->a[6]);
}

static void run_kron_forget(const struct kernel *k) {
  k->ops->kron_forget(k->d, k->n, 0.9999f, 3, k->a[0]);
}

static void run_kron_diffuse(const struct kernel *k) {
  k->ops->kron_diffuse(k->d, k->n, 1e-6f, k->a[0]);
}

static void run_kron_pull(const struct kernel *k) {
  k->ops->kron_pull(k->d, k->n, 0.1f, k->a[0], k->a[1], k->a[2]);
}

static void run_sum_inverse(const struct kernel *k) {
  k->ops->sum_inverse(k->d, k->n, k->a[0], k->a[1]);
}

/* What kron does with each element of a matrix (o, i). */
static void elementwise_rows(const struct bench *b, int64_t o, int64_t i) {
  const int64_t n = o * i;
  const double each = (double)n;
  const struct array x = {SIGNED, READ, n}, to = {SIGNED, WRITE, n}, y = {SIGNED, BOTH, n}, D = {POSITIVE, READ, n};
  const struct kernel kernels[] = {
      {"kron_gain", run_kron_gain, .o = o, .i = i, .f32 = 14 * each,
       .arrays = {{POSITIVE, READ, o}, {POSITIVE, READ, i}, x, D, to, to, {FACTS, WRITE, KWM_GAINS}}},
      {"kron_forget", run_kron_forget, .n = n, .f32 = 2 * each, .arrays = {{POSITIVE, BOTH, n}}},
      {"kron_diffuse", run_kron_diffuse, .n = n, .f32 = 3 * each, .arrays = {{POSITIVE, BOTH, n}}},
      {"kron_pull", run_kron_pull, .n = n, .f32 = 3 * each, .arrays = {D, x, y}},
      {"add_scaled", run_add_scaled, .n = n, .f32 = 2 * each, .arrays = {x, y}},
      {"square", run_square, before_square, 10, .n = n, .f32 = each,
       .arrays = {{NEAR_ONE, BOTH, n}, {NEAR_ONE, NONE, n}}},
      {"sum_inverse", run_sum_inverse, .n = n, .f32 = 2 * each, .arrays = {D, {FACTS, WRITE, 1}}}};
  for (size_t k = 0; k < sizeof kernels / sizeof kernels[0]; k++) row(b, kernels[k], "%d x %d", (int)o, (int)i);
}

static void run_block_absorb(const struct kernel *k) {
  k->ops->block_absorb(k->d, k->count, k->p, k->a[0], k->a[1], k->a[2], k->a[3], k->a[4]);
}

static void run_block_take(const struct kernel *k) {
  k->ops->block_take(k->d, k->count, k->p, k->a[2], k->a[0]);
}

static void run_block_predict(const struct kernel *k) {
  k->ops->block_predict(k->d, k->count, k->p, 0.9999, 1e-6, k->a[1], k->a[2], k->a[0], k->a[3], k->a[4], k->a[5]);
}

/* absorb: a factor p³/3, its solves 2p², three products with δ of 2p²; predict: a factor and its solves, two inverses
   of p³ each. */
static void block_rows(const struct bench *b, int64_t count, int64_t p) {
  const int64_t all = count * p * p, evidence = count * (p * (p + 1) / 2 + p);
  const double blocks = (double)count, square = (double)(p * p), cube = square * (double)p;
  const struct kernel kernels[] = {
      {"block_absorb", run_block_absorb, .count = count, .p = p, .f64 = blocks * (cube / 3 + 8 * square),
       .arrays = {{BLOCKS, READ, all},
                  {WIDE, READ, p},
                  {SIGNED, READ, evidence},
                  {WIDE, WRITE, count * p},
                  {FACTS, WRITE, count * KWM_GAINS}}},
      {"block_take", run_block_take, .count = count, .p = p, .f64 = blocks * square,
       .arrays = {{BLOCKS, BOTH, all}, {WIDE, NONE, p}, {SIGNED, READ, evidence}}},
      {"block_predict", run_block_predict, .count = count, .p = p, .f64 = blocks * (7 * cube / 3 + 4 * square),
       .arrays = {{BLOCKS, BOTH, all},
                  {WIDE, READ, p},
                  {SIGNED, READ, count * p},
                  {BLOCKS, NONE, all},
                  {SIGNED, BOTH, count * p},
                  {FACTS, WRITE, 1}}}};
  for (size_t k = 0; k < sizeof kernels / sizeof kernels[0]; k++)
    row(b, kernels[k], "%d blocks of %d", (int)count, (int)p);
}

static void run_diag_absorb(const struct kernel *k) {
  k->ops->diag_absorb(k->d, k->wide, 1, k->p, 1, k->a[0], k->a[1], k->a[2], k->a[3], k->a[4], k->a[5]);
}

static void diag_rows(const struct bench *b, int64_t p) {
  for (int wide = 0; wide < 2; wide++)
    row(b,
        (struct kernel){wide ? "diag_absorb f64" : "diag_absorb", run_diag_absorb, .p = p, .wide = wide != 0,
                        .f64 = 14 * (double)p,
                        .arrays = {{WIDE, READ, 1},
                                   {SIGNED, READ, 2 * p},
                                   {wide ? WIDE : POSITIVE, READ, p},
                                   {wide ? WIDE : SIGNED, WRITE, p},
                                   {WIDE, WRITE, p},
                                   {FACTS, WRITE, KWM_GAINS}}},
        "one block of %d", (int)p);
}

/* ---- */

/* All that grows with the batch. */
static void batch_rows(const struct bench *b, const struct sizes *s) {
  const int64_t n = s->n, m = s->m, o = s->hidden, i = 2 * s->units + 1;
  recurrence_rows(b, s);
  relu_rows(b, n, m, o);
  observation_rows(b, n, m);
  units_rows(b, s);
  output_rows(b, n, m, o);
  output_rows(b, n, m, m);
  column_rows(b, n, o, i);
  column_rows(b, n, m, o + 1);
  batch_products(b, n, m, o, i);
  batch_products(b, n, m, m, o + 1);
}

/* All that does not. */
static void state_rows(const struct bench *b, const struct sizes *s) {
  const int64_t o = s->hidden, i = 2 * s->units + 1;
  basis_products(b, o, i);
  basis_products(b, s->m, o + 1);
  elementwise_rows(b, o, i);
  elementwise_rows(b, s->m, o + 1);
  block_rows(b, s->units, PARAMS);
  diag_rows(b, o * i);
}

static void all_rows(struct bench *b) {
  const struct sizes small = {6, 3, 16, 56, 16}, step = {100, 10, 256, 784, 256}, full = {1000, 10, 256, 784, 256};
  printf("%-18s %-24s %10s %10s %10s %10s %12s %10s %7s\n", "kernel", "size", "median us", "least", "most", "MB", "Mop",
         "floor us", "%");
  limits(b);
  batch_rows(b, b->small ? &small : &step);
  state_rows(b, b->small ? &small : &step);
  for (int k = 0; k < 3; k++) eigen(b, (const int64_t[]){257, 513, 785}[k] / (b->small ? 32 : 1));
  if (b->small) return;
  batch_rows(b, &full);
  elementwise_rows(b, 5120, 5120);
  block_rows(b, 16384, PARAMS);
  diag_rows(b, 5120 * 5120);
}

static int usage(void) {
  fprintf(stderr, "usage: bench_device shadow|cuda [small] [tf32] [--output FILE]\n");
  return 2;
}

int main(int argc, char **argv) {
  struct bench b = {0};
  struct kwm_device_spec spec = {.graphs = true};
  const char *output = NULL;
  if (argc < 2 || strcmp(argv[1], "cpu") == 0) return usage();
  for (int k = 2; k < argc; k++) {
    if (strcmp(argv[k], "small") == 0)
      b.small = true;
    else if (strcmp(argv[k], "tf32") == 0)
      spec.tf32 = true;
    else if (strcmp(argv[k], "--output") == 0 && k + 1 < argc)
      output = argv[++k];
    else
      return usage();
  }
  need(kwm_device_open(&b.device, argv[1], &spec));
  if (output != NULL && (b.tsv = fopen(output, "w")) == NULL) {
    fprintf(stderr, "bench_device: wanted to write %s, could not\n", output);
    return 1;
  }
  if (b.tsv != NULL)
    fprintf(b.tsv, "kernel\tsize\tmicroseconds\tleast\tmost\tbytes\toperations\toperations_f64\tfloor\tratio\n");
  printf("%s: %s, matrix products in %s\n", kwm_device_name(b.device), b.device->words, spec.tf32 ? "tf32" : "float");
  all_rows(&b);
  printf("limits: copy %.0f GB/s, float %.1f Tflop/s, double %.1f Tflop/s; %%: floor over median\n", b.copy * 1e-9,
         b.f32 * 1e-12, b.f64 * 1e-12);
  kwm_device_close(b.device);
  if (b.tsv != NULL && fclose(b.tsv) != 0) return 1;
  return 0;
}
