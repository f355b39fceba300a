/* A transformer's operations (kwm/tensor.h) against a device's limits in the same run, as bench_device does, at the
   sizes of a step of a language model: 6 layers of width 512, 8 heads, 64 sequences of 128 tokens, 33,278 classes.
   First the basis and its products in float, then all the rest with products as `tf32` says; "calls" is how often a
   step takes a row, and the last line adds them up. usage: bench_tensor shadow|cuda [small] [tf32] [ROW]
   (ROW: only rows whose names begin so, and no basis) */
#include "bench_device.h"

#include <string.h>

#include "kwm/tensor.h"

/* A language model's sizes. */
struct sizes {
  int64_t layers, sequences, context, heads, size, hidden, classes, types;
};

struct step {
  struct bench *b;
  const char *only; /* rows whose names begin so; NULL: all */
  double total, floor;
};

static const struct kwm_tensor_ops *ops_of(const struct kernel *k) {
  return k->ops->tensor;
}

static const struct kwm_dropout drop = {.seed = 1, .step = 2, .site = 3, .rate = 0.2f};

/* Measures a row and adds it to the step, `calls` times. */
static void add(struct step *step, struct kernel k, int64_t calls, const char *what) {
  if (step->only != NULL && strncmp(k.name, step->only, strlen(step->only)) != 0) return;
  const struct measured found = row(step->b, k, "%s, %d calls", what, (int)calls);
  step->total += (double)calls * found.median;
  step->floor += (double)calls * found.floor;
}

/* ---- limits and products ---- */

static void run_copy(const struct kernel *k) {
  kwm_device_copy(k->d, k->a[1], k->a[0], (size_t)k->n * sizeof(float));
}

static void run_gemm(const struct kernel *k) {
  k->ops->gemm(k->d, k->transpose_a, k->transpose_b, k->m, k->n, k->k, 1, k->a[0], k->transpose_a ? k->m : k->k,
               k->a[1], k->ld, 0, k->a[2], k->n);
}

static struct kernel gemm(const char *how, int64_t m, int64_t n, int64_t k) {
  const bool ta = how[0] == 'T', tb = how[1] == 'T';
  return (struct kernel){"gemm",
                         run_gemm,
                         .n = n,
                         .m = m,
                         .k = k,
                         .ld = tb ? k : n,
                         .transpose_a = ta,
                         .transpose_b = tb,
                         .f32 = 2.0 * (double)(m * n * k),
                         .arrays = {{SIGNED, READ, m * k}, {SIGNED, READ, n * k}, {SIGNED, WRITE, m * n}}};
}

static void limits(struct bench *b) {
  const int64_t copied = b->small ? 1 << 12 : 1 << 27, order = b->small ? 48 : 8192;
  struct kernel k = gemm("NN", order, order, order);
  row(b,
      (struct kernel){"copy", run_copy, .n = copied, .limit = &b->copy,
                      .arrays = {{SIGNED, READ, copied}, {SIGNED, WRITE, copied}}},
      "n %d", (int)copied);
  k.limit = &b->f32;
  row(b, k, "n %d", (int)order);
}

/* A matrix (o, i) of a layer: forward, and what its adjoint gives the input and the matrix. */
static void matrix(struct step *step, int64_t n, int64_t o, int64_t i, int64_t calls) {
  char what[48];
  snprintf(what, sizeof what, "%d to %d", (int)i, (int)o);
  add(step, gemm("NT", n, o, i), calls, what);
  add(step, gemm("NN", n, i, o), calls, what);
  add(step, gemm("TN", o, i, n), calls, what);
}

/* ---- rows ---- */

static void run_embed(const struct kernel *k) {
  ops_of(k)->embed(k->d, k->n, k->w, k->count, k->a[0], k->a[1], k->a[2], &drop, k->a[3]);
}

static void run_gather(const struct kernel *k) {
  const struct kwm_gather gather = {k->count, k->n, k->a[0], k->a[1], k->a[2]};
  ops_of(k)->gather(k->d, k->w, &gather, k->a[3], k->a[4]);
}

static void run_fold(const struct kernel *k) {
  ops_of(k)->fold(k->d, k->n, k->w, k->count, k->a[0], k->a[1]);
}

static void embedding_rows(struct step *step, const struct sizes *s) {
  const int64_t n = s->sequences * s->context, w = s->heads * s->size;
  add(step,
      (struct kernel){"embed", run_embed, .n = n, .w = w, .m = s->classes, .count = s->context,
                      .arrays = {{TOKENS, READ, n},
                                 {SIGNED, NONE, s->classes * w},
                                 {SIGNED, READ, s->context * w},
                                 {SIGNED, BOTH, n * w}}}, /* as much is read of E */
      1, "dropout");
  add(step,
      (struct kernel){"gather", run_gather, .n = n, .w = w, .m = s->classes, .count = s->types,
                      .bytes = 8.0 * (double)(s->types * w),
                      .arrays = {{TOKENS, READ, s->types},
                                 {BEGINS, READ, s->types + 1},
                                 {PLACES, READ, n},
                                 {SIGNED, READ, n * w},
                                 {SIGNED, NONE, s->classes * w}}},
      1, "as words are");
  add(step,
      (struct kernel){"fold", run_fold, .n = n, .w = w, .count = s->context,
                      .arrays = {{SIGNED, READ, n * w}, {SIGNED, BOTH, s->context * w}}},
      1, "positions");
}

static void run_norm(const struct kernel *k) {
  ops_of(k)->norm(k->d, k->n, k->w, k->a[0], k->a[1], k->a[2], k->a[3]);
}

static void run_norm_adjoint(const struct kernel *k) {
  ops_of(k)->norm_adjoint(k->d, k->n, k->w, k->a[0], k->a[1], k->a[2], k->a[3], k->a[4], k->a[5], k->a[6], k->a[7]);
}

static void run_gelu(const struct kernel *k) {
  ops_of(k)->gelu(k->d, k->n, k->a[0], k->a[1]);
}

static void run_gelu_adjoint(const struct kernel *k) {
  ops_of(k)->gelu_adjoint(k->d, k->n, k->a[0], k->a[1], k->a[1]);
}

static void run_residual(const struct kernel *k) {
  ops_of(k)->residual(k->d, k->n, k->w, &drop, k->a[0], k->a[1], k->a[2]);
}

static void run_dropout(const struct kernel *k) {
  ops_of(k)->residual(k->d, k->n, k->w, &drop, NULL, k->a[0], k->a[1]);
}

static void layer_rows(struct step *step, const struct sizes *s) {
  const int64_t n = s->sequences * s->context, w = s->heads * s->size, norms = 2 * s->layers + 1;
  const struct array x = {SIGNED, READ, n * w}, to = {SIGNED, WRITE, n * w}, g = {POSITIVE, READ, w};
  add(step, (struct kernel){"norm", run_norm, .n = n, .w = w, .arrays = {x, g, to, {SIGNED, WRITE, n}}}, norms, "rms");
  add(step,
      (struct kernel){
          "norm_adjoint", run_norm_adjoint, .n = n, .w = w,
          .arrays =
              {x, g, {POSITIVE, READ, n}, x, x, to, {SIGNED, BOTH, w}, {SIGNED, NONE, kwm_tensor_norm_scratch(n, w)}}},
      norms, "with more");
  add(step,
      (struct kernel){"gelu", run_gelu, .n = n * s->hidden,
                      .arrays = {{SIGNED, READ, n * s->hidden}, {SIGNED, WRITE, n * s->hidden}}},
      s->layers, "hidden");
  add(step,
      (struct kernel){"gelu_adjoint", run_gelu_adjoint, .n = n * s->hidden,
                      .arrays = {{SIGNED, READ, n * s->hidden}, {SIGNED, BOTH, n * s->hidden}}},
      s->layers, "hidden");
  add(step, (struct kernel){"residual", run_residual, .n = n, .w = w, .arrays = {x, x, to}}, 2 * s->layers, "dropout");
  add(step, (struct kernel){"dropout", run_dropout, .n = n, .w = w, .arrays = {x, to}}, 2 * s->layers + 1, "adjoint");
}

static struct kwm_attention attention_of(const struct kernel *k) {
  return (struct kwm_attention){k->n, k->m, k->count, k->w};
}

static void run_attention(const struct kernel *k) {
  const struct kwm_attention a = attention_of(k);
  ops_of(k)->attention(k->d, &a, k->a[0], k->a[1], k->a[2]);
}

static void run_attention_adjoint(const struct kernel *k) {
  const struct kwm_attention a = attention_of(k);
  ops_of(k)->attention_adjoint(k->d, &a, k->a[0], k->a[1], k->a[2], k->a[3]);
}

/* Operations on and below the diagonal: two products, five in the adjoint (of which one could be kept). */
static void attention_rows(struct step *step, const struct sizes *s) {
  const int64_t n = s->sequences * s->context, w = s->heads * s->size, weights = n * s->heads * s->context;
  const double product = (double)(n * s->context * w);
  struct kernel k = {
      "attention",        run_attention,
      .n = s->sequences,  .m = s->context,
      .count = s->heads,  .w = s->size,
      .f32 = 2 * product, .arrays = {{SIGNED, READ, 3 * n * w}, {SIGNED, WRITE, weights}, {SIGNED, WRITE, n * w}}};
  add(step, k, s->layers, "causal");
  k.name = "attention_adjoint", k.run = run_attention_adjoint, k.f32 = 4 * product;
  k.arrays[1].traffic = READ, k.arrays[2].traffic = READ, k.arrays[3] = (struct array){SIGNED, WRITE, 3 * n * w};
  add(step, k, s->layers, "causal");
}

static void run_categorical(const struct kernel *k) {
  ops_of(k)->categorical(k->d, k->n, k->m, k->ld, k->a[0], true, k->a[1], k->a[2]);
}

static void run_read(const struct kernel *k) {
  const struct kwm_read read = {.n = k->n,
                                .classes = k->m,
                                .width = k->w,
                                .y = k->a[0],
                                .E = k->a[1],
                                .targets = k->a[2],
                                .facts = k->a[3],
                                .sy = k->a[4],
                                .sE = k->a[5],
                                .half = k->wide,
                                .room = k->a[6]};
  ops_of(k)->read(k->d, &read);
}

/* Three products, and the categorical's traffic; floors of the rounded ones at twice TF32's rate. */
static void read_rows(struct step *step, const struct sizes *s) {
  const int64_t n = s->sequences * s->context, w = s->heads * s->size, m = s->classes;
  struct kernel k = {"read",
                     run_read,
                     .n = n,
                     .m = m,
                     .w = w,
                     .f32 = 6.0 * (double)(n * m * w),
                     .arrays = {{SIGNED, READ, n * w},
                                {SIGNED, READ, m * w},
                                {TOKENS, READ, n},
                                {SIGNED, WRITE, n * KWM_TOKEN_FACTS},
                                {SIGNED, WRITE, n * w},
                                {SIGNED, BOTH, m * w},
                                {SIGNED, NONE, kwm_tensor_read_room(n, m, w, true)}}};
  add(step, k, 0, "as the device's");
  k.wide = true, k.f32 /= 2;
  add(step, k, 1, "bfloat16");
}

static void run_facts(const struct kernel *k) {
  ops_of(k)->categorical(k->d, k->n, k->m, k->ld, k->a[0], false, k->a[1], k->a[2]);
}

static void run_adam(const struct kernel *k) {
  const struct kwm_adam_step adam = {1e-3f, 0.9f, 0.98f, 1e-8f, 1e-5f, 1, 10};
  ops_of(k)->adam(k->d, k->n, &adam, k->a[0], k->a[1], k->a[2], k->a[3]);
}

static void run_riccati(const struct kernel *k) {
  const struct kwm_riccati_step riccati = {1e-4f, 1, 0.02f, 0.1f, false, true};
  ops_of(k)->riccati(k->d, k->n, &riccati, k->a[0], k->a[1], k->a[2], k->a[3], k->a[0]);
}

static void run_drift(const struct kernel *k) {
  ops_of(k)->drift(k->d, k->n, 0.999f, 1e-3f, k->a[0], k->a[1]);
}

static void run_norm2(const struct kernel *k) {
  ops_of(k)->norm2(k->d, k->n, k->a[0], k->a[1]);
}

static void learner_rows(struct step *step, const struct sizes *s) {
  const int64_t n = s->sequences * s->context, w = s->heads * s->size;
  const int64_t all = (s->classes + s->context + s->layers * (4 * w + 2 * s->hidden)) * w;
  struct kernel k = {
      "categorical",
      run_categorical,
      .n = n,
      .m = s->classes,
      .ld = s->classes,
      .arrays = {{TOKENS, READ, n}, {SIGNED, BOTH, n * s->classes}, {SIGNED, WRITE, n * KWM_TOKEN_FACTS}}};
  const struct array x = {SIGNED, READ, all}, y = {SIGNED, BOTH, all}, positive = {POSITIVE, BOTH, all};
  add(step, k, 0, "innovation");
  k.name = "categorical facts", k.run = run_facts, k.arrays[1].traffic = READ;
  add(step, k, 0, "facts");
  add(step, (struct kernel){"norm2", run_norm2, .n = all, .arrays = {x, {FACTS, WRITE, 1}}}, 1, "all");
  add(step, (struct kernel){"adam", run_adam, .n = all, .arrays = {x, y, positive, y}}, 1, "all");
  add(step, (struct kernel){"riccati", run_riccati, .n = all, .arrays = {y, positive, y, positive}}, 0, "all");
  add(step, (struct kernel){"drift", run_drift, .n = all, .arrays = {x, y}}, 0, "all");
}

/* ---- basis ---- */

static void run_basis(const struct kernel *k) {
  if (ops_of(k)->basis(k->d, k->n, k->wide, k->a[0], k->a[1], k->a[2])) return;
  fprintf(stderr, "bench_tensor: basis: wanted eigenvectors of order %d, found no convergence\n", (int)k->n);
  exit(1);
}

/* Something orthonormal to improve: its own eigenvectors. */
static void before_basis(const struct kernel *k) {
  ops_of(k)->basis(k->d, k->n, true, k->a[0], k->a[1], k->a[2]);
}

/* anew: tridiagonal form and the vectors back, 10/3 n³ (bench_device.c); else eleven products. */
static void basis_rows(struct bench *b, int64_t n) {
  const double cube = (double)(n * n * n);
  struct kernel k = {"basis anew",
                     run_basis,
                     .n = n,
                     .wide = true,
                     .f32 = 10 * cube / 3,
                     .arrays = {{SPREAD, READ, n * n}, {SPREAD, WRITE, n * n}, {SIGNED, NONE, 4 * n * n}}};
  row(b, k, "n %d", (int)n);
  k.name = "basis improve", k.wide = false, k.before = before_basis, k.f32 = 22 * cube, k.arrays[1].traffic = BOTH;
  row(b, k, "n %d", (int)n);
  row(b, gemm("NN", n, n, n), "n %d", (int)n);
}

static void heading(const struct bench *b, bool tf32) {
  printf("%s: %s, matrix products in %s\n", kwm_device_name(b->device), b->device->words, tf32 ? "tf32" : "float");
  printf("%-18s %-24s %10s %10s %10s %10s %12s %10s %7s\n", "kernel", "size", "median us", "least", "most", "MB", "Mop",
         "floor us", "%");
}

int main(int argc, char **argv) {
  struct bench b = {0};
  struct step step = {.b = &b};
  struct kwm_device_spec spec = {.graphs = true};
  if (argc < 2 || strcmp(argv[1], "cpu") == 0) {
    fprintf(stderr, "usage: bench_tensor shadow|cuda [small] [tf32] [ROW]\n");
    return 2;
  }
  bool tf32 = false;
  for (int k = 2; k < argc; k++) {
    if (strcmp(argv[k], "small") == 0)
      b.small = true;
    else if (strcmp(argv[k], "tf32") == 0)
      tf32 = true;
    else
      step.only = argv[k];
  }
  need(kwm_device_open(&b.device, argv[1], &spec));
  heading(&b, false);
  limits(&b);
  for (int k = 0; k < 3 && step.only == NULL; k++)
    basis_rows(&b, (const int64_t[]){512, 1536, 2048}[k] / (b.small ? 64 : 1));
  kwm_device_close(b.device);
  spec.tf32 = tf32;
  need(kwm_device_open(&b.device, argv[1], &spec));
  heading(&b, tf32);
  limits(&b);
  const struct sizes all = {6, 64, 128, 8, 64, 2048, 33278, 2700}, few = {1, 2, 8, 2, 4, 32, 100, 9};
  const struct sizes *const s = b.small ? &few : &all;
  const int64_t n = s->sequences * s->context, w = s->heads * s->size;
  embedding_rows(&step, s);
  layer_rows(&step, s);
  attention_rows(&step, s);
  matrix(&step, n, 3 * w, w, s->layers);
  matrix(&step, n, w, w, s->layers);
  matrix(&step, n, s->hidden, w, s->layers);
  matrix(&step, n, w, s->hidden, s->layers);
  matrix(&step, n, s->classes, w, 0);
  matrix(&step, n, (s->classes + 63) / 64 * 64, w, 0);
  read_rows(&step, s);
  learner_rows(&step, s);
  printf("limits: copy %.0f GB/s, products %.1f Tflop/s; a step of Adam: %.3f ms, floor %.3f ms\n", b.copy * 1e-9,
         b.f32 * 1e-12, 1e3 * step.total, 1e3 * step.floor);
  kwm_device_close(b.device);
  return 0;
}
